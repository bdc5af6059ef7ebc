/* Warnings: what a merge file may say and hardly means. */
#include <math.h>
#include <string.h>

#include "builder.h"

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* A tensor, and whose parameters decide over it. */
struct subject {
    struct builder *b;
    const struct slice_inputs *slice;
    const unsigned *index; /* of each input in the slice */
    const struct plan_tensor *tensor;
};

static const struct param *param_in(const struct params *params, const char *name)
{
    for (size_t i = 0; i < params->n; i++) {
        if (strcmp(params->list[i].name, name) == 0)
            return &params->list[i];
    }
    return NULL;
}

/* Where the parameter of an input is set: its own place, or the scope's that it falls to. */
static struct place place_of(const struct subject *s, unsigned input, const char *name)
{
    const struct slice_source *source = s->slice->sources[s->index[input]];
    const struct params *scopes[] = {source ? &source->params : NULL,
                                     s->slice->slice ? &s->slice->slice->params : NULL,
                                     s->slice->module ? &s->slice->module->params : NULL, &s->b->doc->params};

    for (size_t i = 0; i < COUNT(scopes); i++) {
        const struct param *param = scopes[i] ? param_in(scopes[i], name) : NULL;
        if (param)
            return param->at;
    }
    return s->b->doc->method_at;
}

/* Methods that divide by the sum of the weights, and what they do where it is 0. */
static const struct divider {
    const char *method, *where_told, *effect;
} dividers[] = {
    {"linear", "normalize", "the result is infinite or NaN"},
    {"multislerp", "normalize_weights", "the result is infinite or NaN"},
    {"nuslerp", NULL, "both count the same"},
    {"task_arithmetic", "normalize", "that tensor is not normalized"},
    {"dare_linear", "normalize", "that tensor is not normalized"},
    {"della_linear", "normalize", "that tensor is not normalized"},
    {"breadcrumbs", "normalize", "that tensor is not normalized"},
};

static void advise_on_sum(const struct subject *s, const struct divider *divider)
{
    const struct merge *merge = &s->tensor->recipe.merge;
    int weight = method_param(merge->method, "weight");
    int told = divider->where_told ? method_param(merge->method, divider->where_told) : -1;
    double sum = 0, most = 0;
    unsigned some = 0;

    if (weight < 0 || (told >= 0 && merge->shared[told] == 0))
        return;
    for (unsigned i = 0; i < merge->n_inputs; i++) {
        double w = merge_input(merge, i, (unsigned)weight);
        if (isnan(w))
            continue;
        some = most == 0 ? i : some;
        most = fmax(most, fabs(w));
        sum += w;
    }
    /* Weights that are all 0 keep the base, which is often meant. */
    if (fabs(sum) >= 1e-8 || (most == 0 && merge->method->base == BASE_REQUIRED))
        return;
    say(s->b, SEVERITY_WARNING, place_of(s, some, "weight"),
        "the weights of `%s` sum to 0 and are to be divided by that: %s", s->tensor->st.name,
        divider->effect);
}

static void advise_on_weights(const struct subject *s)
{
    for (size_t i = 0; i < COUNT(dividers); i++) {
        if (strcmp(dividers[i].method, s->tensor->recipe.merge.method->name) == 0)
            advise_on_sum(s, &dividers[i]);
    }
}

static void advise_on_density(const struct subject *s)
{
    const struct merge *merge = &s->tensor->recipe.merge;
    int density = method_param(merge->method, "density");

    if (density < 0 || merge->method->params[density].unused)
        return;
    for (unsigned i = 0; i < merge->n_inputs; i++) {
        if (merge_input(merge, i, (unsigned)density) == 0)
            say(s->b, SEVERITY_WARNING, place_of(s, i, "density"),
                "density 0 keeps nothing of what %s changes in `%s`", s->tensor->inputs[i].model,
                s->tensor->st.name);
    }
}

static bool exceeds_f16(enum dtype dtype)
{
    return dtype == DTYPE_BF16 || dtype == DTYPE_F32 || dtype == DTYPE_F64;
}

static void advise_on_type(const struct subject *s)
{
    const struct document *doc = s->b->doc;
    const struct recipe *recipe = &s->tensor->recipe;
    bool work = recipe->kind == RECIPE_MERGE && recipe->merge.work == DTYPE_F16;

    if (recipe->dtype != DTYPE_F16 && !work)
        return;
    for (unsigned i = 0; i < recipe->n_inputs; i++) {
        if (exceeds_f16(s->tensor->inputs[i].dtype)) {
            say(s->b, SEVERITY_WARNING,
                doc->out_dtype == DTYPE_F16 && !work ? doc->out_dtype_at : doc->dtype_at,
                "float16 ends at 65504 and loses digits below 6e-5: `%s` of %s is %s, and what does not fit "
                "becomes infinite or 0",
                s->tensor->inputs[i].tensor, s->tensor->inputs[i].model,
                dtype_torch_name(s->tensor->inputs[i].dtype));
            return;
        }
    }
}

void advise_on_tensor(struct builder *builder, const struct slice_inputs *slice, const unsigned *index,
                      const struct plan_tensor *tensor)
{
    const struct subject s = {builder, slice, index, tensor};

    advise_on_type(&s);
    if (tensor->recipe.kind != RECIPE_MERGE)
        return;
    advise_on_weights(&s);
    advise_on_density(&s);
}

/* ---- filters */

static bool any_tensor(const struct plan *plan, const char *filter)
{
    for (size_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        if (strstr(tensor->st.name, filter))
            return true;
        for (unsigned k = 0; k < tensor->recipe.n_inputs; k++) {
            if (strstr(tensor->inputs[k].tensor, filter))
                return true;
        }
    }
    return false;
}

static void advise_on_param(struct builder *b, const struct param *param)
{
    const struct setting *all = NULL;

    for (size_t i = 0; i < param->n; i++) {
        const struct setting *setting = &param->settings[i];
        if (all)
            say(b, SEVERITY_WARNING, setting->at,
                "never used: the value of `%s` in line %u is for all tensors and comes first", param->name,
                all->at.line);
        else if (setting->filter && !any_tensor(b->plan, setting->filter))
            say(b, SEVERITY_WARNING, setting->at, "no tensor has `%s` in its name: this `%s` is never used",
                setting->filter, param->name);
        if (!setting->filter && setting->n > 0)
            all = setting;
    }
}

static void advise_on_params(struct builder *b, const struct params *params)
{
    for (size_t i = 0; i < params->n; i++) {
        if (method_param(b->method, params->list[i].name) >= 0)
            advise_on_param(b, &params->list[i]);
    }
}

void advise_on_filters(struct builder *b)
{
    advise_on_params(b, &b->doc->params);
    for (size_t m = 0; m < b->doc->n_modules; m++) {
        const struct module *module = &b->doc->modules[m];
        advise_on_params(b, &module->params);
        for (size_t i = 0; i < module->n_slices; i++) {
            advise_on_params(b, &module->slices[i].params);
            for (size_t k = 0; k < module->slices[i].n_sources; k++)
                advise_on_params(b, &module->slices[i].sources[k].params);
        }
    }
}
