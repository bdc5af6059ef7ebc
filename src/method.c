#include "method.h"

#include <string.h>

#define EACH_METHOD(of)                                                                                 \
    of(linear), of(task_arithmetic), of(ties), of(dare_linear), of(dare_ties), of(breadcrumbs),         \
        of(breadcrumbs_ties), of(della), of(della_linear), of(sce), of(ram), of(ramplus_tl), of(slerp), \
        of(nuslerp), of(multislerp), of(karcher), of(model_stock), of(nearswap), of(arcee_fusion),      \
        of(passthrough)

#define IN_F64(name) method_##name##_f64
#define METHOD(name) &method_##name
#define METHOD_F64(name) &method_##name##_f64

extern const struct method EACH_METHOD(IN_F64);

static const struct method *const methods[] = {EACH_METHOD(METHOD)};
static const struct method *const in_f64[] = {EACH_METHOD(METHOD_F64)};

int method_param(const struct method *method, const char *name)
{
    for (unsigned i = 0; i < method->n_params; i++)
        if (strcmp(method->params[i].name, name) == 0)
            return (int)i;
    return -1;
}

double merge_input(const struct merge *merge, unsigned input, unsigned index)
{
    return merge->per_input[(size_t)input * merge->method->n_params + index];
}

const struct method *method_find(const char *name)
{
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        if (strcmp(methods[i]->name, name) == 0)
            return methods[i];
    return NULL;
}

const struct method *method_in(const struct method *method, enum dtype work)
{
    for (size_t i = 0; work == DTYPE_F64 && i < sizeof(methods) / sizeof(methods[0]); i++)
        if (methods[i] == method)
            return in_f64[i];
    return method;
}

const char *method_problem(const char *name)
{
    return method_find(name) ? NULL : "there is no merge_method";
}

const struct method *const *method_all(size_t *n)
{
    *n = sizeof(methods) / sizeof(methods[0]);
    return methods;
}
