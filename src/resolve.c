#include "resolve.h"

#include <errno.h>
#include <math.h>
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

static bool text_bool(const char *text, double *value)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "f", "t", "n", "y"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *value = (double)(i % 2);
            return true;
        }
    }
    return false;
}

/* Text that is a number, "1e-3", has become one in config. NaN stands for "not given" from here on, and an
 * infinite value makes nothing but NaN. */
bool resolve_scalar(const struct method_param *param, const struct scalar *scalar, double *value)
{
    *value = scalar->number;
    if (param->kind == PARAM_BOOL)
        return scalar->kind == SCALAR_TEXT ? text_bool(scalar->text, value) : *value == 0 || *value == 1;
    return scalar->kind != SCALAR_TEXT && isfinite(*value);
}

int resolve_check(const struct method_param *param, const struct setting *setting, struct err *err)
{
    static const char *const kinds[] = {[PARAM_NUMBER] = "a finite number",
                                        [PARAM_BOOL] = "true or false",
                                        [PARAM_INTEGER] = "a whole number"};
    double value;

    for (size_t i = 0; i < setting->n; i++) {
        const struct scalar *scalar = &setting->values[i];
        if (!resolve_scalar(param, scalar, &value) ||
            (param->kind == PARAM_INTEGER && !setting->gradient && value != floor(value)))
            return err_set(err, -EINVAL, "parameter `%s` is %s, not `%s`", param->name, kinds[param->kind],
                           scalar->text);
    }
    return 0;
}

int resolve_setting(const struct method_param *param, const struct setting *setting, double t, double *value,
                    struct err *err)
{
    double x = t * (double)(setting->n - 1), low, high, fraction = x - (double)(size_t)x;
    size_t i = (size_t)x, next = i + 1 < setting->n ? i + 1 : setting->n - 1;

    if (resolve_check(param, setting, err))
        return -EINVAL;
    resolve_scalar(param, &setting->values[i], &low);
    resolve_scalar(param, &setting->values[next], &high);
    *value = param->kind == PARAM_BOOL || setting->n == 1 ? low : (1 - fraction) * low + fraction * high;
    if (param->kind == PARAM_INTEGER && *value != floor(*value))
        return err_set(err, -EINVAL, "parameter `%s` is a whole number, but its gradient gives %g here",
                       param->name, *value);
    return 0;
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
            return resolve_setting(param, setting, t, value, err) ? -EINVAL : 1;
        }
    }
    return 0;
}
