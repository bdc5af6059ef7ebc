/* Parameter values of one tensor: scopes, filters and gradients, down to a number.
 *
 * Precedence: source (= model), slice, module, top level, the method's default. In a scope the first setting
 * whose filter is part of the tensor's name decides; a scope without a matching one, or with an empty list,
 * falls through. A gradient of n values at t in [0, 1]: x = t (n-1), i = int(x), (1-frac) v[i] + frac
 * v[min(i+1, n-1)] in double; lists of booleans pick element int(x). mergekit 0.1.5, config.py: the same.
 */
#ifndef RESOLVE_H
#define RESOLVE_H

#include "config.h"
#include "method.h"

enum { SCOPES_MAX = 4 };

/* From highest to lowest precedence. */
struct scopes {
    unsigned n;
    const struct params *list[SCOPES_MAX];
};

void scopes_add(struct scopes *scopes, const struct params *params);

/* One value as a number, true being 1; false if it is not of the parameter's kind. */
bool resolve_scalar(const struct method_param *param, const struct scalar *scalar, double *value);

/* Are all values of a setting of the parameter's kind? 0 or -EINVAL. */
int resolve_check(const struct method_param *param, const struct setting *setting, struct err *err);

/* The value of one setting at position t. 0, or -EINVAL: not of the parameter's kind. */
int resolve_setting(const struct method_param *param, const struct setting *setting, double t, double *value,
                    struct err *err);

/* Value of `param` for `tensor` at position t. 1: *value is set; 0: no scope has one; -EINVAL: a value is not
 * of the parameter's kind, with its place in *at. */
int resolve(const struct scopes *scopes, const struct method_param *param, const char *tensor, double t,
            double *value, struct place *at, struct err *err);

#endif
