#include "method.h"

#include <string.h>

static const struct method *const methods[] = {
    &method_linear,
    &method_task_arithmetic,
    &method_nearswap,
    &method_passthrough,
};

static const char *const planned_names[] = {
    "arcee_fusion", "breadcrumbs",  "breadcrumbs_ties", "dare_linear", "dare_ties",
    "della",        "della_linear", "karcher",          "model_stock", "multislerp",
    "nuslerp",      "ram",          "ramplus_tl",       "sce",         "slerp",
    "ties",
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
    if (method_find(name))
        return NULL;
    for (size_t i = 0; i < sizeof(planned_names) / sizeof(planned_names[0]); i++)
        if (strcmp(planned_names[i], name) == 0)
            return "not supported yet: merge_method";
    return "there is no merge_method";
}

const struct method *const *method_all(size_t *n)
{
    *n = sizeof(methods) / sizeof(methods[0]);
    return methods;
}
