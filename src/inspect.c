#include "inspect.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "survey.h"

enum {
    FEW_BYTES = 1 << 20, /* integers that are compared when a merge is opened */
    WORST = 5,           /* tensors that are named */
};

/* ---- integers */

static uint64_t integer_bytes(const struct plan *plan)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        if (tensor->recipe.kind != RECIPE_EQUAL)
            continue;
        if (tensor->st.len > FEW_BYTES || tensor->recipe.n_inputs > FEW_BYTES)
            return FEW_BYTES + 1;
        bytes += tensor->st.len * tensor->recipe.n_inputs;
    }
    return bytes;
}

static int compare_integers(const struct plan *plan, struct scratch *scratch, void *room,
                            struct report *report)
{
    struct err err = {""};
    int status = 0;

    for (size_t i = 0; i < plan->n_tensors; i++) {
        const struct recipe *recipe = &plan->tensors[i].recipe;
        if (recipe->kind != RECIPE_EQUAL ||
            recipe_compute(recipe, 0, (size_t)recipe->merge.n, room, scratch, &err) == 0)
            continue;
        report_add(report, SEVERITY_ERROR, plan->doc->method_at, "%s", err.text);
        status = -EINVAL;
    }
    return status;
}

int inspect_integers(const struct plan_set *plans, struct report *report)
{
    struct scratch *scratch;
    uint64_t bytes = 0;
    void *room;
    int status = 0;

    for (size_t i = 0; i < plans->n_plans && bytes <= FEW_BYTES; i++)
        bytes += integer_bytes(plans->plans[i]);
    if (bytes == 0 || bytes > FEW_BYTES)
        return 0;
    scratch = scratch_new(kernels_best());
    room = malloc(FEW_BYTES);
    if (!scratch || !room)
        status = -ENOMEM;
    for (size_t i = 0; i < plans->n_plans && status != -ENOMEM; i++) {
        int differ = compare_integers(plans->plans[i], scratch, room, report);
        status = differ ? differ : status;
    }
    scratch_free(scratch);
    free(room);
    return status;
}

/* ---- what is told */

/* An input model over all its tensors. */
struct total {
    uint64_t n_nan, n_infinite;
    double change, base; /* squared lengths in tensors where this is a donor: of its change, of the base */
    size_t n_tensors, n_changes, n_odd;
    const char *odd; /* the first tensor with a NaN or infinity */
};

static bool is_odd(const struct survey_sums *sums)
{
    return sums->n_nan + sums->n_infinite > 0;
}

static void add_input(struct total *total, const struct survey_tensor *t, unsigned i)
{
    const struct recipe *recipe = &t->tensor->recipe;
    const struct survey_sums *sums = &t->numbers.inputs[i];
    int base = recipe->kind == RECIPE_MERGE ? recipe->merge.base : -1;

    total->n_tensors++;
    total->n_nan += sums->n_nan;
    total->n_infinite += sums->n_infinite;
    if (is_odd(sums)) {
        total->odd = total->odd ? total->odd : t->tensor->inputs[i].tensor;
        total->n_odd++;
    }
    if (base < 0 || base == (int)i)
        return;
    total->n_changes++;
    total->change += sums->change;
    total->base += t->numbers.inputs[base].square;
}

/* One total a model. NULL: no memory. */
static struct total *add_up(const struct survey *survey)
{
    struct total *totals = calloc(survey->n_models + 1, sizeof(*totals));

    for (size_t k = 0; totals && k < survey->n; k++) {
        const struct survey_tensor *t = &survey->tensors[k];
        for (unsigned i = 0; i < t->tensor->recipe.n_inputs && t->floats && !t->failed; i++)
            add_input(&totals[t->models[i]], t, i);
    }
    return totals;
}

static const char *more_tensors(size_t n, char *text, size_t room)
{
    text[0] = '\0';
    if (n > 1)
        snprintf(text, room, ", as do %zu more tensors", n - 1);
    return text;
}

static void tell_of_models(struct report *report, const struct survey *survey, const struct total *totals)
{
    char more[64];

    for (size_t i = 0; i < survey->n_models; i++) {
        const struct total *t = &totals[i];
        const char *name = survey->models[i].name;
        if (t->n_odd)
            report_add(report, SEVERITY_ERROR, (struct place){0},
                       "%s: `%s` holds NaN or infinities%s: %" PRIu64 " NaN and %" PRIu64 " infinite in all",
                       name, t->odd, more_tensors(t->n_odd, more, sizeof(more)), t->n_nan, t->n_infinite);
        else if (t->n_changes && t->change == 0)
            report_add(report, SEVERITY_WARNING, (struct place){0},
                       "%s equals the base model in all %zu tensors that are merged: it changes nothing",
                       name, t->n_changes);
    }
}

static bool inputs_are_odd(const struct survey_tensor *t)
{
    for (unsigned i = 0; i < t->tensor->recipe.n_inputs; i++) {
        if (is_odd(&t->numbers.inputs[i]))
            return true;
    }
    return false;
}

/* NaN that come from the inputs are told of already. */
static void tell_of_result(struct report *report, const struct survey *survey)
{
    const struct survey_tensor *first = NULL;
    uint64_t n_nan = 0, n_infinite = 0;
    char more[64];
    size_t n = 0;

    for (size_t k = 0; k < survey->n; k++) {
        const struct survey_tensor *t = &survey->tensors[k];
        if (!is_odd(&t->numbers.result) || inputs_are_odd(t))
            continue;
        first = first ? first : t;
        n_nan += t->numbers.result.n_nan;
        n_infinite += t->numbers.result.n_infinite;
        n++;
    }
    if (first)
        report_add(report, SEVERITY_ERROR, (struct place){0},
                   "the merged `%s` holds NaN or infinities, which no input has%s: %" PRIu64
                   " NaN and %" PRIu64 " infinite in all; see weights, density and dtype",
                   first->tensor->st.name, more_tensors(n, more, sizeof(more)), n_nan, n_infinite);
}

/* Changes are from a base here. */
static bool loses(const struct survey_tensor *t)
{
    return t->has_exact && t->tensor->recipe.merge.base >= 0 && !isnan(survey_survival(t));
}

static int by_survival(const void *a, const void *b)
{
    double x = survey_survival(*(const struct survey_tensor *const *)a);
    double y = survey_survival(*(const struct survey_tensor *const *)b);

    return x < y ? -1 : x > y;
}

/* The tensors that lose most, worst first, and the share that survives in all of them. NULL: no memory. */
static const struct survey_tensor **list_worst(const struct survey *survey, size_t *n, double *share)
{
    const struct survey_tensor **list = calloc(survey->n + 1, sizeof(*list));
    double exact = 0, served = 0;

    *n = 0;
    for (size_t k = 0; list && k < survey->n; k++) {
        const struct survey_tensor *t = &survey->tensors[k];
        if (!loses(t))
            continue;
        exact += t->numbers.exact;
        served += t->numbers.served;
        list[(*n)++] = t;
    }
    if (*n)
        qsort(list, *n, sizeof(*list), by_survival);
    *share = served < exact ? served / exact : 1;
    return list;
}

static void render_models(FILE *out, const struct survey *survey, const struct total *totals)
{
    for (size_t i = 0; i < survey->n_models; i++) {
        const struct total *t = &totals[i];
        if (t->n_tensors == 0)
            continue;
        fprintf(out, "%s: %zu tensors, %" PRIu64 " NaN, %" PRIu64 " infinite", survey->models[i].name,
                t->n_tensors, t->n_nan, t->n_infinite);
        if (t->n_changes && t->base > 0)
            fprintf(out, "; its task vector is %.3g of the base's length", sqrt(t->change / t->base));
        fputc('\n', out);
    }
}

static void render_survival(FILE *out, const struct survey_tensor *const *list, size_t n, double share,
                            struct report *report)
{
    const char *type = n ? dtype_torch_name(list[0]->tensor->st.dtype) : "";

    if (n == 0)
        return;
    fprintf(out, "of the merged change %.1f %% survives rounding to %s; least in\n", 100 * share, type);
    for (size_t i = 0; i < n && i < WORST; i++)
        fprintf(out, "  %5.1f %%  %s\n", 100 * survey_survival(list[i]), list[i]->tensor->st.name);
    if (share < 0.5)
        report_add(
            report, SEVERITY_WARNING, (struct place){0},
            "rounding to %s keeps %.0f %% of what the merge changes: `dtype: float32` rounds less often, "
            "and with `out_dtype: float32` nothing is lost",
            type, 100 * share);
}

static void render_unknown(FILE *out, const struct survey *survey)
{
    const struct recipe *first = NULL;
    size_t n = 0;

    for (size_t k = 0; k < survey->n; k++) {
        if (!survey->tensors[k].chooses)
            continue;
        first = first ? first : &survey->tensors[k].tensor->recipe;
        n++;
    }
    if (first)
        fprintf(out,
                "how much of the merged change survives rounding is not known for %zu tensors: %s chooses "
                "elements by values rounded to %s, and would choose others without rounding; with "
                "`dtype: float32` it is known\n",
                n, first->merge.method->name, dtype_torch_name(first->merge.work));
}

static int tell(const struct survey *survey, struct report *report, char **text)
{
    struct total *totals = add_up(survey);
    double share;
    size_t n, len;
    const struct survey_tensor **worst = list_worst(survey, &n, &share);
    FILE *out = worst && totals ? open_memstream(text, &len) : NULL;
    int status = -ENOMEM;

    if (out) {
        tell_of_models(report, survey, totals);
        tell_of_result(report, survey);
        render_models(out, survey, totals);
        render_survival(out, worst, n, share, report);
        render_unknown(out, survey);
        status = ferror(out) ? -ENOMEM : 0;
        status = fclose(out) ? -ENOMEM : status;
    }
    free(worst);
    free(totals);
    return status;
}

int inspect_tensors(const struct plan_set *plans, const struct survey_how *how, struct report *report,
                    char **text)
{
    struct survey *survey;
    int status = survey_run(plans, how, report, &survey);

    *text = NULL;
    if (status == 0)
        status = tell(survey, report, text);
    survey_free(survey);
    if (status) {
        free(*text);
        *text = NULL;
    }
    return status;
}
