#include "explain.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_shape(FILE *out, const struct st_tensor *st)
{
    fprintf(out, "%s [", dtype_torch_name(st->dtype));
    for (unsigned i = 0; i < st->ndim; i++)
        fprintf(out, "%s%llu", i ? ", " : "", (unsigned long long)st->shape[i]);
    fprintf(out, "]");
}

static void print_value(FILE *out, const struct method_param *param, double value)
{
    if (param->kind == PARAM_BOOL)
        fprintf(out, " %s=%s", param->name, value != 0 ? "true" : "false");
    else
        fprintf(out, " %s=%.9g", param->name, value);
}

/* Values of one scope: of input `i`, or the shared ones. */
static void print_values(FILE *out, const struct merge *merge, const double *values)
{
    for (unsigned p = 0; p < merge->method->n_params; p++) {
        if (!isnan(values[p]) && !merge->method->params[p].unused)
            print_value(out, &merge->method->params[p], values[p]);
    }
}

static void print_input(FILE *out, const struct plan_tensor *tensor, unsigned i)
{
    const struct plan_input *input = &tensor->inputs[i];
    const struct merge *merge = &tensor->recipe.merge;

    fprintf(out, "  %s%s:", input->model, merge->base == (int)i ? " (base)" : "");
    if (tensor->recipe.kind == RECIPE_MERGE)
        print_values(out, merge, merge->per_input + i * merge->method->n_params);
    fprintf(out, " %s", dtype_torch_name(input->dtype));
    if (strcmp(input->shown, tensor->st.name) != 0)
        fprintf(out, strchr(input->shown, ' ') ? ", %s" : ", `%s`", input->shown);
    fprintf(out, ", %s\n", input->file ? input->file : "computed by that stage");
}

static void print_how(FILE *out, const struct plan_tensor *tensor)
{
    static const char *const kinds[] = {
        [RECIPE_COPY] = "copied", [RECIPE_CAST] = "cast", [RECIPE_EQUAL] = "copied, all inputs being equal"};
    const struct recipe *recipe = &tensor->recipe;

    if (recipe->kind == RECIPE_MERGE) {
        fprintf(out, "  %s in %s", recipe->merge.method->name, dtype_torch_name(recipe->merge.work));
        print_values(out, &recipe->merge, recipe->merge.shared);
        fprintf(out, ", at t=%.6g of its slice", tensor->t);
    } else {
        fprintf(out, "  %s", kinds[recipe->kind]);
    }
    fprintf(out, "%s%s\n", tensor->note ? ": " : "", tensor->note ? tensor->note : "");
}

static void print_tensor(FILE *out, const struct plan_tensor *tensor)
{
    fprintf(out, "%s: ", tensor->st.name);
    print_shape(out, &tensor->st);
    fputc('\n', out);
    print_how(out, tensor);
    for (unsigned i = 0; i < tensor->recipe.n_inputs; i++)
        print_input(out, tensor, i);
}

/* How much of two names agrees from the front and from the back. */
static size_t agreement(const char *a, const char *b)
{
    size_t len_a = strlen(a), len_b = strlen(b), most = len_a < len_b ? len_a : len_b, front = 0, back = 0;

    while (front < most && a[front] == b[front])
        front++;
    while (back < most - front && a[len_a - 1 - back] == b[len_b - 1 - back])
        back++;
    return front + back;
}

/* The tensor to suggest: one that the wanted name is a part of, or the most like it. */
static const char *similar(const struct plan *plan, const char *wanted)
{
    const char *best = NULL;

    for (size_t i = 0; i < plan->n_tensors; i++) {
        const char *name = plan->tensors[i].st.name;
        if (strstr(name, wanted))
            return name;
        if (!best || agreement(name, wanted) > agreement(best, wanted))
            best = name;
    }
    return best;
}

static const struct plan_tensor *find(const struct plan *plan, const char *name)
{
    for (size_t i = 0; i < plan->n_tensors; i++) {
        if (strcmp(plan->tensors[i].st.name, name) == 0)
            return &plan->tensors[i];
    }
    return NULL;
}

char *explain_render(const struct plan *plan, const char *tensor, int *status, struct err *err)
{
    const struct plan_tensor *only = tensor ? find(plan, tensor) : NULL;
    char *text = NULL;
    size_t len;
    FILE *out;
    bool failed;

    *status = -ENOENT;
    if (tensor && !only) {
        const char *near = similar(plan, tensor);
        err_set(err, -ENOENT, "the merge has no tensor `%s`%s%s%s", tensor, near ? "; it has `" : "",
                near ? near : "", near ? "`" : "");
        return NULL;
    }
    *status = err_set(err, -ENOMEM, "out of memory");
    out = open_memstream(&text, &len);
    if (!out)
        return NULL;
    for (size_t i = 0; i < plan->n_tensors; i++) {
        if (!only || only == &plan->tensors[i])
            print_tensor(out, &plan->tensors[i]);
    }
    failed = ferror(out);
    if (fclose(out) || failed) {
        free(text);
        return NULL;
    }
    *status = 0;
    return text;
}
