#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "builder.h"
#include "fp8.h"
#include "resolve.h"
#include "witness.h"

/* One tensor while its fate is decided. */
struct candidate {
    struct builder *builder;
    const struct slice_inputs *slice;
    const char *name;
    double t;
    unsigned n;                 /* inputs that have it */
    bool *has;                  /* [slice->n] does the model have it? */
    struct input_tensor *views; /* [n] */
    unsigned *index;            /* [n] of the model in the slice */
    const char *
        *asked;     /* [n] name there; a tied head is asked for as the head, and read from the embedding */
    int base;       /* index into views, or -1 */
    bool pass;      /* the one input is served as it is, without the method */
    bool by_values; /* the method's parameters say how it is made */
    const char *note;
};

static struct place place_of(const struct candidate *c)
{
    return c->builder->doc->method_at;
}

static struct input_model *model_of(const struct candidate *c, unsigned i)
{
    return c->slice->models[c->index[i]];
}

/* Keep only input i. */
static void keep(struct candidate *c, unsigned i, const char *note)
{
    c->views[0] = c->views[i];
    c->index[0] = c->index[i];
    c->asked[0] = c->asked[i];
    c->base = c->base == (int)i ? 0 : -1;
    c->n = 1;
    c->note = note;
}

/* FP8 without scales is cast to a type that is stated, as any other is; bfloat16 holds all its values. */
static int widen_fp8(struct candidate *c, struct input_tensor *v)
{
    struct fp8_feed *feed;

    if (!fp8_is(v->dtype) || c->builder->doc->dtype == DTYPE_NONE)
        return 0;
    feed = arena_alloc(&c->builder->plan->arena, 1, sizeof(*feed));
    if (!feed)
        return -ENOMEM;
    fp8_feed_plain(feed, v->feed, DTYPE_BF16);
    v->feed = &feed->feed;
    v->dtype = DTYPE_BF16;
    return 0;
}

/* Room for the slice's inputs, the same for one tensor after the other. */
static int make_room(struct candidate *c)
{
    struct builder *b = c->builder;
    struct gathered *g = &b->gathered;

    if (c->slice->n > g->room) {
        g->views = arena_alloc(&b->arena, c->slice->n, sizeof(*g->views));
        g->index = arena_alloc(&b->arena, c->slice->n, sizeof(*g->index));
        g->asked = arena_alloc(&b->arena, c->slice->n, sizeof(*g->asked));
        g->has = arena_alloc(&b->arena, c->slice->n, sizeof(*g->has));
        g->room = g->views && g->index && g->asked && g->has ? c->slice->n : 0;
    }
    c->views = g->views;
    c->index = g->index;
    c->asked = g->asked;
    c->has = g->has;
    return g->room ? 0 : -ENOMEM;
}

static int gather(struct candidate *c, const char *const *names)
{
    struct builder *b = c->builder;

    if (make_room(c))
        return -ENOMEM;
    for (unsigned i = 0; i < c->slice->n; i++) {
        const char *name = names[i] ? names[i] : c->name;
        int found =
            input_find_tied(&b->plan->arena, c->slice->models[i], name, &b->gathered.hint, &c->views[c->n]);
        if (found < 0)
            return found;
        c->has[i] = found;
        if (found == 0)
            continue;
        if (widen_fp8(c, &c->views[c->n]))
            return -ENOMEM;
        if (c->slice->base == (int)i)
            c->base = (int)c->n;
        c->asked[c->n] = name;
        c->index[c->n++] = i;
    }
    b->gathered.hint++;
    return 0;
}

static void warn_of_absent(const struct candidate *c)
{
    for (unsigned i = 0, k = 0; i < c->slice->n; i++) {
        if (k < c->n && c->index[k] == i) {
            k++;
            continue;
        }
        if (c->slice->sources[i])
            say(c->builder, SEVERITY_WARNING, c->slice->sources[i]->model.at,
                "model %s lacks `%s`: it is left out there (and in any other tensor it lacks)",
                c->slice->models[i]->name, c->name);
    }
}

static bool same_shape(const struct input_tensor *a, const struct input_tensor *b)
{
    return a->ndim == b->ndim && memcmp(a->shape, b->shape, a->ndim * sizeof(a->shape[0])) == 0;
}

static const char *shape_text(struct arena *arena, const struct input_tensor *view)
{
    const char *text = "[";

    for (unsigned i = 0; text && i < view->ndim; i++)
        text = arena_printf(arena, "%s%s%llu", text, i ? ", " : "", (unsigned long long)view->shape[i]);
    text = text ? arena_printf(arena, "%s]", text) : NULL;
    return text ? text : "[...]";
}

/* The common prefix of rows, where all other dimensions agree. A row's elements are contiguous, so the first
 * rows of a file's tensor are a shorter tensor at the same offset. */
static int truncate_rows(struct candidate *c)
{
    struct builder *b = c->builder;
    uint64_t rows = UINT64_MAX, most = 0;

    for (unsigned i = 0; i < c->n; i++) {
        struct input_tensor *v = &c->views[i];
        if (v->ndim == 0 || v->ndim != c->views[0].ndim ||
            memcmp(v->shape + 1, c->views[0].shape + 1, (v->ndim - 1) * sizeof(v->shape[0])) != 0)
            return -EINVAL;
        rows = v->shape[0] < rows ? v->shape[0] : rows;
        most = v->shape[0] > most ? v->shape[0] : most;
    }
    for (unsigned i = 0; i < c->n; i++) {
        struct input_tensor *v = &c->views[i];
        uint64_t *shape = arena_alloc(&b->plan->arena, v->ndim, sizeof(*shape));
        if (!shape)
            return -ENOMEM;
        memcpy(shape, v->shape, v->ndim * sizeof(*shape));
        shape[0] = rows;
        if (c->builder->donor->embedding && strcmp(v->name, c->builder->donor->embedding) == 0 &&
            model_of(c, i) == c->builder->donor) {
            b->vocab_old = v->shape[0];
            b->vocab = rows;
        }
        v->n = v->shape[0] ? v->n / v->shape[0] * rows : 0;
        v->shape = shape;
    }
    c->note = "rows beyond the shortest input are cut (meldfs: mismatch: truncate)";
    return 0;
}

/* Make shapes agree as `meldfs: mismatch:` says. 0; -EINVAL reported; -ENOMEM. */
static int agree_on_shape(struct candidate *c)
{
    struct builder *b = c->builder;
    unsigned odd = 1;
    int status;

    while (odd < c->n && same_shape(&c->views[0], &c->views[odd]))
        odd++;
    if (odd >= c->n)
        return 0;
    if (b->doc->mismatch == MISMATCH_BASE && c->base >= 0) {
        keep(c, (unsigned)c->base, "shapes differ: the base model's is kept (meldfs: mismatch: base)");
        c->pass = true;
        return 0;
    }
    if (b->doc->mismatch == MISMATCH_TRUNCATE && has_vocabulary(c->name)) {
        status = truncate_rows(c);
        if (status != -EINVAL)
            return status;
    }
    b->n_mismatched++;
    say(b, SEVERITY_ERROR, place_of(c), "shapes of `%s` differ: %s in %s, %s in %s%s", c->name,
        shape_text(&b->arena, &c->views[0]), model_of(c, 0)->name, shape_text(&b->arena, &c->views[odd]),
        model_of(c, odd)->name,
        has_vocabulary(c->name) ? "; vocabularies that differ need `tokenizer:`, or "
                                  "`meldfs: {mismatch: truncate}` to drop the extra rows"
                                : "; models of different architectures cannot be merged "
                                  "(`meldfs: {mismatch: base}` keeps the base's)");
    return -EINVAL;
}

/* What happens where some inputs lack the tensor. -EINVAL is reported. */
static int apply_lone_rules(struct candidate *c)
{
    const struct method *method = c->builder->method;
    bool has_base = method->base != BASE_IGNORED && c->slice->base >= 0;
    unsigned donors = c->n - (has_base && c->base >= 0);

    if (!has_base || c->pass)
        return 0;
    if (c->base < 0 && method->lone == LONE_EITHER_PASSES && c->n == 1) {
        c->pass = true;
        c->note = "the base model lacks it: the donor's is served";
    } else if (c->base < 0) {
        say(c->builder, SEVERITY_ERROR, place_of(c),
            "the base model %s lacks `%s`, which %s has: %s cannot merge it",
            c->slice->models[c->slice->base]->name, c->name, model_of(c, 0)->name, method->name);
        return -EINVAL;
    } else if (donors == 0 || donors < method->min_donors) {
        keep(c, (unsigned)c->base,
             donors ? "too few donors have it: the base model's is served" : "only the base model has it");
        c->pass = true;
    }
    return 0;
}

/* The type arithmetic is done in: as told, or what the inputs promote to. -EINVAL is reported. */
static int work_type(struct candidate *c, enum dtype *work)
{
    *work = c->builder->doc->dtype;
    for (unsigned i = 0; i < c->n; i++) {
        enum dtype dtype = c->views[i].dtype;
        if (!dtype_is_float(dtype)) {
            say(c->builder, SEVERITY_ERROR, place_of(c),
                fp8_is(dtype) ? "`%s` is %s in %s, a type without arithmetic: set `dtype: bfloat16`"
                              : "`%s` is %s in %s: that type cannot be merged",
                c->name, dtype_name(dtype), model_of(c, i)->name);
            return -EINVAL;
        }
        if (c->builder->doc->dtype == DTYPE_NONE)
            *work = i == 0 ? dtype : dtype_promote(*work, dtype);
    }
    return 0;
}

static int values_of(struct candidate *c, const struct slice_source *source, const struct method_param *param,
                     const char *tensor, double *value)
{
    struct scopes scopes = {0};
    struct place at = place_of(c);
    struct err err;
    int found;

    if (source)
        scopes_add(&scopes, &source->params);
    scopes_add(&scopes, &c->slice->slice->params);
    scopes_add(&scopes, &c->slice->module->params);
    scopes_add(&scopes, &c->builder->doc->params);
    found = resolve(&scopes, param, tensor, c->t, value, &at, &err);
    if (found < 0)
        say(c->builder, SEVERITY_ERROR, at, "%s", err.text);
    if (found == 0 && !param->required)
        *value = param->value;
    return found;
}

/* Every parameter of input i; shared ones when i is the number of inputs. -EINVAL is reported. */
static int fill_values(struct candidate *c, unsigned i, double *values)
{
    const struct method *method = c->builder->method;
    bool shared = i == c->n, is_base = method->base != BASE_IGNORED && c->base == (int)i;
    const struct slice_source *source = shared ? NULL : c->slice->sources[c->index[i]];
    int status = 0;

    for (unsigned p = 0; p < method->n_params; p++) {
        const struct method_param *param = &method->params[p];
        values[p] = NAN;
        if (shared != (param->scope == PARAM_SHARED) || (param->scope == PARAM_DONOR && is_base))
            continue;
        int found = values_of(c, source, param, shared ? c->name : c->asked[i], &values[p]);
        if (found < 0)
            status = found;
        if (found != 0 || !param->required)
            continue;
        status = -EINVAL;
        if (shared)
            say(c->builder, SEVERITY_ERROR, place_of(c), "%s needs `%s` under `parameters:`; `%s` has none",
                method->name, param->name, c->name);
        else
            say(c->builder, SEVERITY_ERROR, source ? source->model.at : place_of(c),
                "%s needs `%s` under `parameters:` of %s (or at the top for all); `%s` has none",
                method->name, param->name, model_of(c, i)->name, c->name);
    }
    return status;
}

static int merge_values(struct candidate *c, struct merge *merge)
{
    size_t n_params = c->builder->method->n_params;
    double *values = arena_alloc(&c->builder->plan->arena, (c->n + 1) * (n_params + 1), sizeof(*values));
    int status = 0, failed;

    if (!values)
        return -ENOMEM;
    for (unsigned i = 0; i <= c->n; i++) {
        failed = fill_values(c, i, values + i * n_params);
        status = failed ? failed : status;
    }
    merge->per_input = values;
    merge->shared = values + c->n * n_params;
    return status;
}

/* One input, cast as a method that returns it would. */
static void pass_recipe(struct candidate *c, enum dtype work, struct recipe *recipe)
{
    enum dtype out = c->builder->doc->out_dtype;

    recipe->dtype = out == DTYPE_NONE ? work : out;
    recipe->merge.work = work;
    recipe->kind = recipe_pass_kind(c->views[0].dtype, work, recipe->dtype);
}

static int merge_recipe(struct candidate *c, enum dtype work, struct recipe *recipe)
{
    const struct method *method = c->builder->method;
    enum dtype out = c->builder->doc->out_dtype;
    struct merge *merge = &recipe->merge;
    struct err err;
    int status;

    merge->method = method_in(method, work);
    merge->n_inputs = c->n;
    merge->work = work;
    merge->result = method->result_f32 ? dtype_promote(work, DTYPE_F32) : work;
    merge->base = method->base == BASE_IGNORED ? -1 : c->base;
    recipe->kind = RECIPE_MERGE;
    recipe->dtype = out == DTYPE_NONE ? merge->result : out;
    c->by_values = true;
    status = merge_values(c, merge);
    if (status)
        return status;
    if (merge->method->check && merge->method->check(merge, &err)) {
        say(c->builder, SEVERITY_ERROR, place_of(c), "%s (`%s`)", err.text, c->name);
        return -EINVAL;
    }
    if (merge->method->is_copy && merge->method->is_copy(merge))
        pass_recipe(c, work, recipe);
    return 0;
}

static bool all_integer(const struct candidate *c)
{
    for (unsigned i = 0; i < c->n; i++) {
        if (!dtype_is_integer(c->views[i].dtype) || c->views[i].dtype != c->views[0].dtype)
            return false;
    }
    return true;
}

/* Name, shape and inputs, as the method sees them. */
static int describe(struct candidate *c, struct merge *merge)
{
    struct builder *b = c->builder;
    const struct input_tensor *v = &c->views[0];
    char *name = arena_strdup(&b->plan->arena, c->name);
    uint64_t *shape = arena_alloc(&b->plan->arena, ST_DIMS, sizeof(*shape));

    if (!name || !shape)
        return -ENOMEM;
    memcpy(shape, v->shape, v->ndim * sizeof(*shape));
    *merge = (struct merge){.name = name, .shape = shape, .ndim = v->ndim, .n = v->n, .base = -1};
    merge->seed = b->seed ^ XXH64(name, strlen(name), 0);
    if (b->doc->name) /* a stage draws other numbers than what it feeds */
        merge->seed ^= XXH64(b->doc->name, strlen(b->doc->name), 1);
    return 0;
}

/* Is it to be served as it is stored, whatever its type? 1, 0, or -EINVAL (reported), -ENOMEM. */
static int is_untouched(struct candidate *c, struct merge *merge)
{
    const struct document *doc = c->builder->doc;
    const struct method *method = c->builder->method;
    int status;

    if (c->n != 1 || doc->dtype != DTYPE_NONE || doc->out_dtype != DTYPE_NONE ||
        dtype_is_float(c->views[0].dtype))
        return 0;
    if (c->pass || !method->is_copy)
        return c->pass;
    merge->method = method;
    merge->n_inputs = 1;
    c->by_values = true;
    status = merge_values(c, merge);
    return status ? status : method->is_copy(merge);
}

/* How the tensor is made. -EINVAL is reported. */
static int decide(struct candidate *c, struct recipe *recipe)
{
    enum dtype work;
    int status = agree_on_shape(c);

    if (status)
        return status;
    status = describe(c, &recipe->merge);
    if (status)
        return status;
    if (all_integer(c)) {
        recipe->kind = c->n > 1 ? RECIPE_EQUAL : RECIPE_COPY;
        recipe->dtype = c->views[0].dtype;
        c->note = c->n > 1 ? "not of a floating type: served if all inputs hold the same"
                           : "not of a floating type";
        return 0;
    }
    status = apply_lone_rules(c);
    if (status == 0)
        status = is_untouched(c, &recipe->merge);
    if (status == 1) {
        recipe->kind = RECIPE_COPY;
        recipe->dtype = c->views[0].dtype;
        return 0;
    }
    if (status == 0)
        status = work_type(c, &work);
    if (status)
        return status;
    if (!c->pass)
        return merge_recipe(c, work, recipe);
    pass_recipe(c, work, recipe);
    return 0;
}

/* The document's number of the model that input i is of, -1 where the document names none. */
static int number_of(const struct candidate *c, unsigned i)
{
    const struct slice_source *source = c->slice->sources[c->index[i]];
    const struct model_ref *ref = source ? &source->model : NULL;

    if (!ref && c->slice->slice)
        ref = c->slice->slice->base_model ? c->slice->slice->base_model : c->builder->doc->base_model;
    return ref ? document_model(c->builder->doc, ref) : -1;
}

/* The name by which input i is asked for parameters, for as long as the plan lives. */
static const char *asked_of(const struct candidate *c, unsigned i)
{
    if (strcmp(c->asked[i], c->views[i].name) == 0)
        return c->views[i].name;
    return arena_strdup(&c->builder->plan->arena, c->asked[i]);
}

static int copy_inputs(struct candidate *c, struct plan_tensor *tensor)
{
    struct arena *arena = &c->builder->plan->arena;
    const struct feed **feeds = arena_alloc(arena, c->n, sizeof(*feeds));
    struct witness **witnesses = arena_alloc(arena, c->n, sizeof(*witnesses));

    tensor->inputs = arena_alloc(arena, c->n, sizeof(*tensor->inputs));
    if (!feeds || !witnesses || !tensor->inputs)
        return -ENOMEM;
    for (unsigned i = 0; i < c->n; i++) {
        const struct input_tensor *v = &c->views[i];
        feeds[i] = v->feed;
        const char *asked = asked_of(c, i);
        tensor->inputs[i] = (struct plan_input){
            model_of(c, i)->name, v->name, v->file, v->dtype, v->shown, asked, number_of(c, i)};
        if (!asked)
            return -ENOMEM;
        if (tensor->inputs[i].model_number >= 0 && c->base != (int)i)
            witnesses[i] = &c->builder->plan->witnesses[tensor->inputs[i].model_number];
    }
    tensor->recipe.inputs = feeds;
    tensor->recipe.witnesses = witnesses;
    tensor->recipe.n_inputs = tensor->recipe.merge.n_inputs = c->n;
    return 0;
}

/* Models of the slice that are not among the inputs. */
static int note_absent(struct candidate *c, struct plan_tensor *tensor)
{
    struct plan_absent *absent;

    for (unsigned i = 0, k = 0; i < c->slice->n; i++) {
        if (k < c->n && c->index[k] == i) {
            k++;
            continue;
        }
        absent = arena_push(&c->builder->plan->arena, &tensor->absent, &tensor->n_absent, sizeof(*absent));
        if (!absent)
            return -ENOMEM;
        *absent = (struct plan_absent){c->slice->models[i]->name, c->has[i]};
    }
    return 0;
}

static int set_size(struct candidate *c, struct plan_tensor *tensor)
{
    const struct merge *merge = &tensor->recipe.merge;

    memcpy(tensor->st.shape, merge->shape, merge->ndim * sizeof(merge->shape[0]));
    tensor->st.ndim = merge->ndim;
    tensor->st.n = merge->n;
    tensor->st.dtype = tensor->recipe.dtype;
    if (dtype_bytes(tensor->recipe.dtype, merge->n, &tensor->st.len))
        return 0;
    say(c->builder, SEVERITY_ERROR, place_of(c), "`%s` would be too large in %s", c->name,
        dtype_torch_name(tensor->recipe.dtype));
    return -EINVAL;
}

/* Where statistics will be kept, if the method needs any for these values and this shape. */
static int add_slot(struct candidate *c, struct recipe *recipe)
{
    const struct method_stats *stats = recipe->kind == RECIPE_MERGE ? recipe->merge.method->stats : NULL;

    if (!stats || stats->state_size(&recipe->merge) == 0)
        return 0;
    recipe->slot = arena_alloc(&c->builder->plan->arena, 1, sizeof(*recipe->slot));
    return recipe->slot ? 0 : -ENOMEM;
}

/* Room for one more; the old array stays valid where memory runs out. Not the arena's: it would keep all the
 * arrays that were outgrown. */
static struct plan_tensor *push_tensor(struct plan *plan)
{
    size_t n = plan->n_tensors;

    if ((n & (n - 1)) == 0) {
        struct plan_tensor *grown = reallocarray(plan->tensors, n ? 2 * n : 1, sizeof(*grown));
        if (!grown)
            return NULL;
        plan->tensors = grown;
    }
    plan->n_tensors++;
    return &plan->tensors[n];
}

static int plan_candidate(struct candidate *c)
{
    struct builder *b = c->builder;
    struct plan_tensor tensor = {.t = c->t}, *added;
    int status = decide(c, &tensor.recipe);

    if (status == 0)
        status = set_size(c, &tensor);
    if (status == 0)
        status = copy_inputs(c, &tensor);
    if (status == 0)
        status = note_absent(c, &tensor);
    if (status == 0)
        status = add_slot(c, &tensor.recipe);
    if (status)
        return status == -EINVAL ? 0 : status;
    tensor.st.name = tensor.recipe.merge.name;
    tensor.note = c->note;
    tensor.by_values = c->by_values;
    added = push_tensor(b->plan);
    if (!added)
        return -ENOMEM;
    *added = tensor;
    advise_on_tensor(b, c->slice, c->index, added);
    b->head = b->head || is_head(c->name);
    return 0;
}

int tensor_plan(struct builder *builder, const struct slice_inputs *slice, const char *name,
                const char *const *names, double t)
{
    struct candidate c = {.builder = builder, .slice = slice, .name = name, .t = t, .base = -1};
    int status = gather(&c, names);

    if (status)
        return status;
    if (c.n == 0) /* a head that nothing could stand for */
        return 0;
    warn_of_absent(&c);
    return plan_candidate(&c);
}

int tensor_plan_kept(struct builder *builder, const char *name, const char *note)
{
    struct input_model *models[] = {builder->donor};
    const struct slice_source *sources[] = {NULL};
    const struct slice_inputs slice = {.n = 1, .models = models, .sources = sources, .base = 0};
    struct candidate c = {
        .builder = builder, .slice = &slice, .name = name, .base = -1, .pass = true, .note = note};
    const char *names[] = {name};
    int status = gather(&c, names);

    return status ? status : plan_candidate(&c);
}
