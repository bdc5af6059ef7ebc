#include "method.h"

#include <string.h>

static const struct method *const methods[] = {
    &method_linear,
    &method_task_arithmetic,
    &method_ties,
    &method_dare_linear,
    &method_dare_ties,
    &method_breadcrumbs,
    &method_breadcrumbs_ties,
    &method_della,
    &method_della_linear,
    &method_sce,
    &method_ram,
    &method_ramplus_tl,
    &method_slerp,
    &method_nuslerp,
    &method_multislerp,
    &method_karcher,
    &method_model_stock,
    &method_nearswap,
    &method_arcee_fusion,
    &method_passthrough,
};

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

const char *method_problem(const char *name)
{
    return method_find(name) ? NULL : "there is no merge_method";
}

const struct method *const *method_all(size_t *n)
{
    *n = sizeof(methods) / sizeof(methods[0]);
    return methods;
}
