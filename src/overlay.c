#include "overlay.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "resolve.h"

/* The more, the more specific; negative: the override does not concern it. */
static int rank(const struct override *o, unsigned param, int model, const char *name)
{
    if (o->param != param || (o->model >= 0 && o->model != model) || (o->filter && !strstr(name, o->filter)))
        return -1;
    return 2 * (o->model >= 0) + (o->filter != NULL);
}

static const struct override *find(const struct variant *variant, unsigned param, int model, const char *name)
{
    const struct override *best = NULL;
    int highest = -1;

    for (size_t i = 0; i < variant->n; i++) {
        int of_this = rank(&variant->list[i], param, model, name);
        if (of_this > highest) {
            highest = of_this;
            best = &variant->list[i];
        }
    }
    return best;
}

/* Parameters of input i; shared ones where i is the number of inputs. */
static int change_values(const struct plan_tensor *tensor, const struct variant *variant, unsigned i,
                         double *values, struct err *err)
{
    const struct merge *merge = &tensor->recipe.merge;
    bool shared = i == merge->n_inputs;
    const char *name = shared ? tensor->st.name : tensor->inputs[i].asked;
    int model = shared ? -1 : tensor->inputs[i].model_number, status = 0;

    for (unsigned p = 0; p < merge->method->n_params && status == 0; p++) {
        const struct method_param *param = &merge->method->params[p];
        const struct override *found;
        if (shared != (param->scope == PARAM_SHARED) ||
            (param->scope == PARAM_DONOR && merge->base == (int)i))
            continue;
        found = find(variant, p, model, name);
        if (found)
            status = resolve_setting(param, &found->setting, tensor->t, &values[p], err);
    }
    return status;
}

static size_t n_values(const struct plan_tensor *tensor)
{
    return tensor->by_values ? (tensor->recipe.merge.n_inputs + 1) * tensor->recipe.merge.method->n_params
                             : 0;
}

/* As the plan decides it. What is of no floating type is in the plan because it is copied whatever it is, and
 * has no working type. */
static enum recipe_kind kind_of(const struct recipe *recipe)
{
    const struct merge *merge = &recipe->merge;

    if (!merge->method->is_copy || !merge->method->is_copy(merge))
        return RECIPE_MERGE;
    return dtype_is_float(recipe->inputs[0]->dtype)
               ? recipe_pass_kind(recipe->inputs[0]->dtype, merge->work, recipe->dtype)
               : RECIPE_COPY;
}

/* The tensor's recipe with the variant's values, for which there is room; slot: to use if it needs one. */
static int change(const struct plan_tensor *tensor, const struct variant *variant, double *values,
                  struct stat_slot *slot, struct recipe *recipe, struct err *err)
{
    struct merge *merge = &recipe->merge;
    size_t n_params = tensor->recipe.merge.method->n_params;
    int status = 0;

    *recipe = tensor->recipe;
    memcpy(values, merge->per_input, merge->n_inputs * n_params * sizeof(*values));
    memcpy(values + merge->n_inputs * n_params, merge->shared, n_params * sizeof(*values));
    for (unsigned i = 0; i <= merge->n_inputs && status == 0; i++)
        status = change_values(tensor, variant, i, values + i * n_params, err);
    merge->per_input = values;
    merge->shared = values + merge->n_inputs * n_params;
    recipe->kind = kind_of(recipe);
    recipe->slot =
        recipe->kind == RECIPE_MERGE && merge->method->stats && merge->method->stats->state_size(merge) > 0
            ? slot
            : NULL;
    return status;
}

static void overlay_drop(struct keeper *keeper)
{
    struct overlay *overlay = (struct overlay *)keeper;

    for (size_t i = 0; i < overlay->n; i++)
        stats_release(overlay->stats, &overlay->slots[i]);
    keeper_drop(overlay->owner);
    free(overlay->values);
    free(overlay->slots);
    free(overlay->recipes);
    free(overlay);
}

static int allocate(struct overlay *overlay, const struct plan_tensor *const *tensors, size_t n)
{
    size_t values = 1;

    for (size_t i = 0; i < n; i++)
        values += n_values(tensors[i]);
    overlay->recipes = calloc(n + 1, sizeof(*overlay->recipes));
    overlay->slots = calloc(n + 1, sizeof(*overlay->slots));
    overlay->values = calloc(values, sizeof(*overlay->values));
    return overlay->recipes && overlay->slots && overlay->values ? 0 : -ENOMEM;
}

int overlay_new(const struct plan_tensor *const *tensors, size_t n, const struct variant *variant,
                struct stats *stats, struct keeper *owner, struct overlay **out)
{
    struct overlay *overlay = calloc(1, sizeof(*overlay));
    double *values;
    struct err err;

    *out = NULL;
    if (!overlay)
        return -ENOMEM;
    *overlay = (struct overlay){.keeper = {1, overlay_drop}, .owner = owner, .stats = stats};
    keeper_hold(owner);
    if (allocate(overlay, tensors, n)) {
        overlay_drop(&overlay->keeper);
        return -ENOMEM;
    }
    values = overlay->values;
    for (; overlay->n < n; overlay->n++) {
        const struct plan_tensor *tensor = tensors[overlay->n];
        struct recipe *recipe = &overlay->recipes[overlay->n];
        *recipe = tensor->recipe;
        if (tensor->by_values) /* overlay_check has found nothing wrong */
            change(tensor, variant, values, &overlay->slots[overlay->n], recipe, &err);
        values += n_values(tensor);
    }
    *out = overlay;
    return 0;
}

static int check(const struct plan_tensor *tensor, const struct variant *variant, double *values,
                 struct err *err)
{
    struct stat_slot slot = {NULL, NULL};
    struct recipe recipe;
    int status = change(tensor, variant, values, &slot, &recipe, err);

    if (status == 0 && recipe.kind == RECIPE_MERGE && !dtype_is_float(recipe.inputs[0]->dtype))
        status = err_set(err, -EINVAL, "its type %s cannot be merged", dtype_name(recipe.inputs[0]->dtype));
    if (status == 0 && recipe.kind == RECIPE_MERGE && recipe.merge.method->check)
        status = recipe.merge.method->check(&recipe.merge, err);
    return status ? err_prefix(err, status, "tensor %s", tensor->st.name) : 0;
}

int overlay_check(const struct plan *plan, const struct variant *variant, struct err *err)
{
    size_t most = 1;
    double *values;
    int status = 0;

    for (size_t i = 0; i < plan->n_tensors; i++)
        most = n_values(&plan->tensors[i]) > most ? n_values(&plan->tensors[i]) : most;
    values = calloc(most, sizeof(*values));
    if (!values)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t i = 0; i < plan->n_tensors && status == 0; i++) {
        if (plan->tensors[i].by_values)
            status = check(&plan->tensors[i], variant, values, err);
    }
    free(values);
    return status;
}
