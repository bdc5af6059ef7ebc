#include "survey_json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "layers.h"

enum { FORMAT = 1 };

/* Separates members: nothing before the first. */
struct list {
    FILE *out;
    bool begun;
};

static FILE *next(struct list *list)
{
    if (list->begun)
        fputc(',', list->out);
    list->begun = true;
    return list->out;
}

static void put_text(FILE *out, const char *text)
{
    json_write_string(out, text, strlen(text));
}

/* What is no number is null. */
static void put_number(FILE *out, double value)
{
    if (isfinite(value))
        fprintf(out, "%.17g", value);
    else
        fputs("null", out);
}

static void put_key(struct list *list, const char *key)
{
    put_text(next(list), key);
    fputc(':', list->out);
}

static void member_text(struct list *list, const char *key, const char *text)
{
    put_key(list, key);
    if (text)
        put_text(list->out, text);
    else
        fputs("null", list->out);
}

static void member_number(struct list *list, const char *key, double value)
{
    put_key(list, key);
    put_number(list->out, value);
}

static void member_count(struct list *list, const char *key, uint64_t count)
{
    put_key(list, key);
    fprintf(list->out, "%" PRIu64, count);
}

/* ---- shares */

static double share(uint64_t part, uint64_t whole)
{
    return whole ? (double)part / (double)whole : NAN;
}

static double length_ratio(double square, double whole)
{
    return whole > 0 ? sqrt(square / whole) : NAN;
}

static double cosine(double dot, double a, double b)
{
    return a > 0 && b > 0 ? dot / sqrt(a) / sqrt(b) : NAN;
}

static const struct merge *merge_of(const struct survey_tensor *t)
{
    return t->tensor->recipe.kind == RECIPE_MERGE ? &t->tensor->recipe.merge : NULL;
}

/* Is input i held against another? */
static bool is_donor(const struct survey_tensor *t, unsigned i)
{
    return t->reference >= 0 && t->reference != (int)i;
}

static bool has_numbers(const struct survey_tensor *t)
{
    return t->floats && !t->failed;
}

static bool leaves_out(const struct survey_tensor *t)
{
    return merge_of(t) && merge_of(t)->method->kept;
}

/* ---- a tensor's place */

/* "mlp.experts.3.up_proj.weight" is of the kind "mlp.experts.*.up_proj.weight". */
static void put_kind(FILE *out, const char *name)
{
    char *kind = strdup(name), *to = kind;
    const char *from = name;

    while (kind && *from) {
        size_t len = strcspn(from, "."), digits = strspn(from, "0123456789");
        if (len > 0 && digits == len) {
            *to++ = '*';
        } else {
            memcpy(to, from, len);
            to += len;
        }
        from += len;
        if (*from == '.')
            *to++ = *from++;
    }
    if (kind)
        *to = '\0';
    put_text(out, kind ? kind : name);
    free(kind);
}

static void put_place(struct list *list, const struct layers *layers, const char *name)
{
    const struct stack *stack;
    const char *rest = name;
    uint64_t layer;

    if (layers_split(layers, name, &stack, &layer, &rest)) {
        member_count(list, "stack", (uint64_t)(stack - layers->stacks));
        member_count(list, "layer", layer);
    } else {
        rest = name;
    }
    put_key(list, "kind");
    put_kind(list->out, rest);
}

/* ---- a tensor */

static void put_values(struct list *list, const struct method *method, const double *values)
{
    struct list members = {list->out, false};

    put_key(list, "parameters");
    fputc('{', list->out);
    for (unsigned p = 0; p < method->n_params; p++) {
        if (!isnan(values[p]) && !method->params[p].unused)
            member_number(&members, method->params[p].name, values[p]);
    }
    fputc('}', list->out);
}

static void put_change(struct list *list, const struct survey_tensor *t, unsigned i)
{
    const struct survey_sums *sums = &t->numbers.inputs[i];

    member_number(list, "change", sqrt(sums->change));
    member_number(list, "relative", length_ratio(sums->change, t->numbers.inputs[t->reference].square));
    member_number(list, "changed", share(sums->n_changed, t->tensor->recipe.merge.n));
    member_number(list, "kept",
                  leaves_out(t)     ? share(sums->n_kept, sums->n_whole)
                  : sums->n_changed ? 1
                                    : NAN);
    member_number(list, "kept_length",
                  leaves_out(t)     ? length_ratio(sums->kept, sums->whole)
                  : sums->n_changed ? 1
                                    : NAN);
}

static void put_input(struct list *inputs, const struct survey_tensor *t, unsigned i)
{
    const struct plan_input *input = &t->tensor->inputs[i];
    const struct survey_sums *sums = &t->numbers.inputs[i];
    const struct merge *merge = merge_of(t);
    struct list list = {next(inputs), false};

    fputc('{', list.out);
    member_count(&list, "model", t->models[i]);
    member_text(&list, "dtype", dtype_torch_name(input->dtype));
    if (strcmp(input->tensor, t->tensor->st.name) != 0)
        member_text(&list, "tensor", input->tensor);
    if (strcmp(input->asked, input->tensor) != 0)
        member_text(&list, "tied", input->tensor);
    if (merge)
        put_values(&list, merge->method, merge->per_input + (size_t)i * merge->method->n_params);
    if (has_numbers(t)) {
        member_number(&list, "norm", sqrt(sums->square));
        member_count(&list, "nan", sums->n_nan);
        member_count(&list, "infinite", sums->n_infinite);
    }
    if (has_numbers(t) && is_donor(t, i))
        put_change(&list, t, i);
    fputc('}', list.out);
}

static void put_inputs(struct list *list, const struct survey_tensor *t)
{
    struct list inputs = {list->out, false};

    put_key(list, "inputs");
    fputc('[', list->out);
    for (unsigned i = 0; i < t->tensor->recipe.n_inputs; i++)
        put_input(&inputs, t, i);
    fputc(']', list->out);
}

/* [model, model, cosine] of each pair. */
static void put_cosines(struct list *list, const struct survey_tensor *t)
{
    const struct survey_sums *inputs = t->numbers.inputs;
    struct list pairs = {list->out, false};

    put_key(list, "cosines");
    fputc('[', list->out);
    for (unsigned i = 0; i < t->tensor->recipe.n_inputs; i++) {
        for (unsigned j = i + 1; j < t->tensor->recipe.n_inputs; j++) {
            if (!is_donor(t, i) || !is_donor(t, j))
                continue;
            fprintf(next(&pairs), "[%u,%u,", t->models[i], t->models[j]);
            put_number(list->out, cosine(survey_dot(&t->numbers, i, j), inputs[i].change, inputs[j].change));
            fputc(']', list->out);
        }
    }
    fputc(']', list->out);
}

static void put_absent(struct list *list, const struct plan_tensor *tensor)
{
    struct list absent = {list->out, false};

    put_key(list, "left_out");
    fputc('[', list->out);
    for (size_t i = 0; i < tensor->n_absent; i++) {
        struct list members = {next(&absent), false};
        fputc('{', list->out);
        member_text(&members, "model", tensor->absent[i].model);
        member_text(&members, "why", tensor->absent[i].dropped ? tensor->note : "it has no such tensor");
        fputc('}', list->out);
    }
    fputc(']', list->out);
}

static void put_shape(struct list *list, const struct st_tensor *st)
{
    put_key(list, "shape");
    fputc('[', list->out);
    for (unsigned i = 0; i < st->ndim; i++)
        fprintf(list->out, "%s%" PRIu64, i ? "," : "", st->shape[i]);
    fputc(']', list->out);
}

static void put_merged(struct list *list, const struct survey_tensor *t)
{
    member_count(list, "result_nan", t->numbers.result.n_nan);
    member_count(list, "result_infinite", t->numbers.result.n_infinite);
    if (t->reference < 0)
        return;
    member_count(list, "reference", t->models[t->reference]);
    member_number(list, "change", sqrt(t->numbers.result.change));
    member_number(list, "changed", share(t->numbers.result.n_changed, t->tensor->recipe.merge.n));
    put_cosines(list, t);
    member_number(list, "conflict", share(t->numbers.n_conflict, t->numbers.n_shared));
    member_number(list, "survival", survey_survival(t));
}

static const char *how(const struct recipe *recipe)
{
    static const char *const kinds[] = {[RECIPE_COPY] = "copied",
                                        [RECIPE_CAST] = "cast",
                                        [RECIPE_EQUAL] = "equal",
                                        [RECIPE_MERGE] = "merged"};

    return kinds[recipe->kind];
}

static void put_tensor(struct list *tensors, const struct survey_tensor *t, const struct layers *layers)
{
    const struct plan_tensor *tensor = t->tensor;
    const struct merge *merge = merge_of(t);
    struct list list = {next(tensors), false};

    fputs("\n{", list.out);
    member_text(&list, "name", tensor->st.name);
    put_place(&list, layers, tensor->st.name);
    put_shape(&list, &tensor->st);
    member_count(&list, "elements", tensor->st.n);
    member_text(&list, "dtype", dtype_torch_name(tensor->st.dtype));
    member_text(&list, "how", how(&tensor->recipe));
    if (t->failed)
        member_text(&list, "failed", "it could not be read or computed");
    if (tensor->note)
        member_text(&list, "note", tensor->note);
    if (merge) {
        member_text(&list, "work", dtype_torch_name(merge->work));
        put_values(&list, merge->method, merge->shared);
    }
    put_inputs(&list, t);
    if (has_numbers(t))
        put_merged(&list, t);
    if (tensor->n_absent)
        put_absent(&list, tensor);
    fputc('}', list.out);
}

/* ---- all tensors together */

/* Of one model, over the tensors that it is a donor of. */
struct total {
    uint64_t n_tensors, n_elements, n_changed, n_whole, n_kept;
    double change, reference, whole, kept;
};

struct totals {
    struct total *models; /* [n_models] */
    struct dots {
        double dot, a, b; /* of changes where both are donors: their product, their squared lengths */
    } * pairs;            /* [n_models][n_models] */
    uint64_t n_shared, n_conflict;
    double exact, served;
};

/* A method that leaves nothing out keeps all that a donor changes. */
static void add_donor(struct total *total, const struct survey_tensor *t, unsigned i)
{
    const struct survey_sums *sums = &t->numbers.inputs[i];

    total->n_tensors++;
    total->n_elements += t->tensor->recipe.merge.n;
    total->n_changed += sums->n_changed;
    total->change += sums->change;
    total->reference += t->numbers.inputs[t->reference].square;
    total->n_whole += leaves_out(t) ? sums->n_whole : sums->n_changed;
    total->n_kept += leaves_out(t) ? sums->n_kept : sums->n_changed;
    total->whole += leaves_out(t) ? sums->whole : sums->change;
    total->kept += leaves_out(t) ? sums->kept : sums->change;
}

static void add_pair(struct totals *totals, size_t n_models, const struct survey_tensor *t, unsigned i,
                     unsigned j)
{
    const struct survey_sums *inputs = t->numbers.inputs;
    unsigned a = t->models[i], b = t->models[j];
    struct dots *dots = &totals->pairs[a < b ? a * n_models + b : b * n_models + a];

    dots->dot += survey_dot(&t->numbers, i, j);
    dots->a += inputs[i].change;
    dots->b += inputs[j].change;
}

static void add_tensor(struct totals *totals, size_t n_models, const struct survey_tensor *t)
{
    for (unsigned i = 0; i < t->tensor->recipe.n_inputs; i++) {
        if (!is_donor(t, i))
            continue;
        add_donor(&totals->models[t->models[i]], t, i);
        for (unsigned j = i + 1; j < t->tensor->recipe.n_inputs; j++) {
            if (is_donor(t, j))
                add_pair(totals, n_models, t, i, j);
        }
    }
    totals->n_shared += t->numbers.n_shared;
    totals->n_conflict += t->numbers.n_conflict;
    if (!t->has_exact || isnan(survey_survival(t)))
        return;
    totals->exact += t->numbers.exact;
    totals->served += t->numbers.served;
}

static bool add_up(struct totals *totals, const struct survey *survey)
{
    *totals = (struct totals){.models = calloc(survey->n_models + 1, sizeof(*totals->models))};
    totals->pairs = calloc(survey->n_models + 1, (survey->n_models + 1) * sizeof(*totals->pairs));
    if (!totals->models || !totals->pairs)
        return false;
    for (size_t i = 0; i < survey->n; i++) {
        if (has_numbers(&survey->tensors[i]))
            add_tensor(totals, survey->n_models, &survey->tensors[i]);
    }
    return true;
}

static void put_model(struct list *models, const char *name, const struct total *total)
{
    struct list list = {next(models), false};

    fputc('{', list.out);
    member_text(&list, "name", name);
    member_count(&list, "tensors", total->n_tensors);
    if (total->n_tensors) {
        member_number(&list, "relative", length_ratio(total->change, total->reference));
        member_number(&list, "changed", share(total->n_changed, total->n_elements));
        member_number(&list, "kept", share(total->n_kept, total->n_whole));
        member_number(&list, "kept_length", length_ratio(total->kept, total->whole));
    }
    fputc('}', list.out);
}

static void put_models(struct list *list, const struct survey *survey, const struct totals *totals)
{
    struct list models = {list->out, false}, pairs = {list->out, false};
    size_t n = survey->n_models;

    put_key(list, "models");
    fputc('[', list->out);
    for (size_t i = 0; i < n; i++)
        put_model(&models, survey->models[i].name, &totals->models[i]);
    fputs("]", list->out);
    put_key(list, "cosines");
    fputc('[', list->out);
    for (size_t i = 0; i < n * n; i++) {
        const struct dots *dots = &totals->pairs[i];
        if (!(dots->a > 0 && dots->b > 0))
            continue;
        fprintf(next(&pairs), "[%zu,%zu,", i / n, i % n);
        put_number(list->out, cosine(dots->dot, dots->a, dots->b));
        fputc(']', list->out);
    }
    fputc(']', list->out);
}

/* ---- the whole */

static int find_layers(const struct survey *survey, struct arena *arena, struct layers *layers)
{
    const struct plan *plan = survey->plan;
    const char **names = arena_alloc(arena, plan->n_tensors + 1, sizeof(*names));

    if (!names)
        return -1;
    for (size_t i = 0; i < plan->n_tensors; i++)
        names[i] = plan->tensors[i].st.name;
    return layers_find(arena, names, plan->n_tensors, plan->config, layers);
}

static void put_stacks(struct list *list, const struct layers *layers)
{
    struct list stacks = {list->out, false};

    put_key(list, "stacks");
    fputc('[', list->out);
    for (size_t i = 0; i < layers->n; i++) {
        struct list members = {next(&stacks), false};
        fputc('{', list->out);
        member_text(&members, "prefix", layers->stacks[i].prefix);
        member_count(&members, "layers", layers->stacks[i].count);
        fputc('}', list->out);
    }
    fputc(']', list->out);
}

static void put_method(struct list *list, const struct survey *survey)
{
    const struct plan *plan = survey->plan;
    const struct method *method = method_find(plan->doc->method);
    static const char *const rules[] = {
        [BASE_IGNORED] = "ignored", [BASE_OPTIONAL] = "optional", [BASE_REQUIRED] = "required"};

    member_text(list, "method", plan->doc->method);
    member_text(list, "title", method ? method->title : NULL);
    member_text(list, "base_rule", method ? rules[method->base] : NULL);
    put_key(list, "has_base");
    fputs(plan->doc->base_model ? "true" : "false", list->out);
    member_text(list, "dtype", dtype_torch_name(plan->dtype));
}

static void put_tensors(struct list *list, const struct survey *survey, const struct layers *layers)
{
    struct list tensors = {list->out, false};

    put_key(list, "tensors");
    fputc('[', list->out);
    for (size_t i = 0; i < survey->n; i++)
        put_tensor(&tensors, &survey->tensors[i], layers);
    fputs("\n]", list->out);
}

/* Tensors of which it cannot be said what survives rounding. */
static uint64_t count_unknown(const struct survey *survey)
{
    uint64_t n = 0;

    for (size_t i = 0; i < survey->n; i++)
        n += survey->tensors[i].chooses;
    return n;
}

static void put_survey(FILE *out, const struct survey *survey, const struct layers *layers,
                       const struct totals *totals)
{
    struct list list = {out, false};

    fputc('{', out);
    member_count(&list, "format", FORMAT);
    member_text(&list, "meldfs", meld_version());
    put_method(&list, survey);
    put_models(&list, survey, totals);
    member_number(&list, "conflict", share(totals->n_conflict, totals->n_shared));
    member_number(&list, "survival", totals->exact > 0 ? fmin(totals->served / totals->exact, 1) : NAN);
    member_count(&list, "survival_unknown", count_unknown(survey));
    put_stacks(&list, layers);
    put_tensors(&list, survey, layers);
    fputs("}\n", out);
}

char *survey_json(const struct survey *survey)
{
    struct arena arena = {0};
    struct layers layers = {0};
    struct totals totals = {0};
    char *text = NULL;
    size_t len;
    FILE *out = NULL;
    bool good = find_layers(survey, &arena, &layers) == 0 && add_up(&totals, survey) &&
                (out = open_memstream(&text, &len));

    if (good) {
        put_survey(out, survey, &layers, &totals);
        good = !ferror(out);
        good = fclose(out) == 0 && good;
    }
    arena_fini(&arena);
    free(totals.models);
    free(totals.pairs);
    if (good)
        return text;
    free(text);
    return NULL;
}
