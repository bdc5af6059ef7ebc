#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "resolve.h"
#include "variant_part.h"
#include "yaml_tree.h"

/* Digits d0 d1 ... dn-1 and a power of ten: d0.d1... x 10^e. */
struct decimal {
    bool minus;
    char digits[20];
    int n, e;
};

static struct decimal to_decimal(double number, int n)
{
    struct decimal decimal = {.minus = false};
    char text[NUMBER_TEXT_MAX];

    snprintf(text, sizeof(text), "%.*e", n - 1, number);
    for (const char *at = text; *at && *at != 'e'; at++) {
        decimal.minus = decimal.minus || *at == '-';
        if (*at >= '0' && *at <= '9') /* the point may be a comma in this locale */
            decimal.digits[decimal.n++] = *at;
    }
    decimal.e = atoi(strchr(text, 'e') + 1);
    return decimal;
}

/* A point among the digits where that takes few zeros, as in Python. */
static void decimal_write(const struct decimal *d, char text[NUMBER_TEXT_MAX])
{
    static const char zeros[] = "0000000000000000";
    const char *sign = d->minus ? "-" : "";

    if (d->e < -4 || d->e >= 16)
        snprintf(text, NUMBER_TEXT_MAX, "%s%c%s%se%d", sign, d->digits[0], d->n > 1 ? "." : "", d->digits + 1,
                 d->e);
    else if (d->e < 0)
        snprintf(text, NUMBER_TEXT_MAX, "%s0.%.*s%s", sign, -d->e - 1, zeros, d->digits);
    else if (d->e >= d->n - 1)
        snprintf(text, NUMBER_TEXT_MAX, "%s%s%.*s", sign, d->digits, d->e - d->n + 1, zeros);
    else
        snprintf(text, NUMBER_TEXT_MAX, "%s%.*s.%s", sign, d->e + 1, d->digits, d->digits + d->e + 1);
}

void number_write(double number, char text[NUMBER_TEXT_MAX])
{
    enum { DIGITS_ENOUGH = 17 };
    double back;

    for (int n = 1; n <= DIGITS_ENOUGH; n++) {
        struct decimal decimal = to_decimal(number, n);
        decimal_write(&decimal, text);
        if (yaml_text_number(text, &back) && back == number)
            return;
    }
}

/* A part of the text as a value of the parameter's kind. */
static int scalar_of(const struct variant_reader *reader, const struct method_param *param, const char *text,
                     size_t len, struct scalar *scalar)
{
    scalar->text = arena_strndup(reader->arena, text, len);
    if (!scalar->text)
        return -ENOMEM;
    scalar->kind = yaml_text_number(scalar->text, &scalar->number) ? SCALAR_NUMBER : SCALAR_TEXT;
    if (len == 0)
        return err_set(reader->err, -ENOENT, "a value for `%s` is missing", param->name);
    if (strcspn(scalar->text, " \t\n\v\f\r") < len) /* a merge file may have them around a number */
        return err_set(reader->err, -ENOENT, "a value for `%s` has blanks in it", param->name);
    return 0;
}

static int make_canonical(const struct variant_reader *reader, const struct method_param *param,
                          struct scalar *scalar)
{
    char text[NUMBER_TEXT_MAX];

    resolve_scalar(param, scalar, &scalar->number);
    scalar->kind = param->kind == PARAM_BOOL ? SCALAR_BOOL : SCALAR_NUMBER;
    if (scalar->kind == SCALAR_NUMBER)
        number_write(scalar->number, text);
    else
        snprintf(text, sizeof(text), scalar->number != 0 ? "true" : "false");
    scalar->text = arena_strdup(reader->arena, text);
    return scalar->text ? 0 : -ENOMEM;
}

int value_read(const struct variant_reader *reader, const struct method_param *param, const char *text,
               struct setting *setting)
{
    size_t n = 1, len;
    int ret = 0;

    for (const char *at = text; (at = strchr(at, '~')); at++)
        n++;
    *setting = (struct setting){.gradient = n > 1, .n = n};
    setting->values = arena_alloc(reader->arena, n, sizeof(*setting->values));
    if (!setting->values)
        return -ENOMEM;
    if (setting->gradient && param->kind == PARAM_INTEGER)
        return err_set(reader->err, -ENOENT, "`%s` is a whole number, which has no gradient", param->name);
    for (size_t i = 0; !ret && i < n; i++, text += len + 1) {
        len = strcspn(text, "~");
        ret = scalar_of(reader, param, text, len, &setting->values[i]);
    }
    if (!ret && resolve_check(param, setting, reader->err))
        ret = -ENOENT;
    for (size_t i = 0; !ret && i < n; i++)
        ret = make_canonical(reader, param, &setting->values[i]);
    return ret;
}
