#include "resolve.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void scopes_add(struct scopes *scopes, const struct params *params)
{
    scopes->list[scopes->n++] = params;
}

static const struct param *find_param(const struct params *params, const char *name)
{
    for (size_t i = 0; i < params->n; i++) {
        if (strcmp(params->list[i].name, name) == 0)
            return &params->list[i];
    }
    return NULL;
}

/* "1e-3" is a string in YAML 1.1 and a number to whoever wrote it. */
static bool text_number(const char *text, double *value)
{
    char *end;

    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text))
        return false;
    *value = strtod(text, &end);
    return *end == '\0';
}

static bool text_bool(const char *text, double *value)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on",
                                        "f",     "t",    "n",  "y",   "0",   "1"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *value = (double)(i % 2);
            return true;
        }
    }
    return false;
}

static bool number_of(const struct method_param *param, const struct scalar *scalar, double *value)
{
    *value = scalar->number;
    if (param->kind == PARAM_BOOL)
        return scalar->kind == SCALAR_TEXT ? text_bool(scalar->text, value) : *value == 0 || *value == 1;
    return scalar->kind == SCALAR_TEXT ? text_number(scalar->text, value) : true;
}

static int wrong_kind(const struct method_param *param, const char *written, struct err *err)
{
    static const char *const kinds[] = {
        [PARAM_NUMBER] = "a number", [PARAM_BOOL] = "true or false", [PARAM_INTEGER] = "a whole number"};

    return err_set(err, -EINVAL, "parameter `%s` is %s, not `%s`", param->name, kinds[param->kind], written);
}

static int interpolate(const struct method_param *param, const struct setting *setting, double t,
                       double *value, struct err *err)
{
    double x = t * (double)(setting->n - 1), low, high, fraction;
    size_t i = (size_t)x, next = i + 1 < setting->n ? i + 1 : setting->n - 1;

    for (size_t k = 0; k < setting->n; k++) {
        if (!number_of(param, &setting->values[k], value))
            return wrong_kind(param, setting->values[k].text, err);
    }
    number_of(param, &setting->values[i], &low);
    number_of(param, &setting->values[next], &high);
    fraction = x - (double)i;
    *value = param->kind == PARAM_BOOL || setting->n == 1 ? low : (1 - fraction) * low + fraction * high;
    if (param->kind == PARAM_INTEGER && *value != floor(*value))
        return err_set(err, -EINVAL, "parameter `%s` is a whole number, but its gradient gives %g here",
                       param->name, *value);
    return 1;
}

int resolve(const struct scopes *scopes, const struct method_param *param, const char *tensor, double t,
            double *value, struct place *at, struct err *err)
{
    for (unsigned s = 0; s < scopes->n; s++) {
        const struct param *found = find_param(scopes->list[s], param->name);

        for (size_t i = 0; found && i < found->n; i++) {
            const struct setting *setting = &found->settings[i];
            if (setting->filter && !strstr(tensor, setting->filter))
                continue;
            if (setting->n == 0)
                break;
            *at = setting->at;
            return interpolate(param, setting, t, value, err);
        }
    }
    return 0;
}
