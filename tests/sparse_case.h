/* A merge over tensors in memory for tests of one method: a base of zeros, so that a donor's delta is itself,
 * every parameter at its default but weight (1) until a test sets it. */
#ifndef SPARSE_CASE_H
#define SPARSE_CASE_H

#include "vectors.h"

enum { CASE_DONORS = 8, CASE_PARAMS = 8 };

struct sparse_case {
    struct recipe recipe;
    struct memory_feed feeds[CASE_DONORS + 1];
    const struct feed *inputs[CASE_DONORS + 1];
    double shared[CASE_PARAMS], per_input[(CASE_DONORS + 1) * CASE_PARAMS];
    uint64_t shape[3];
    void *data[CASE_DONORS + 1]; /* packed in merge.work */
    float *out;                  /* [n] */
};

typedef float case_value(uint64_t i, unsigned donor, unsigned seed);

static inline void case_set(struct sparse_case *c, const char *name, double value)
{
    const struct merge *merge = &c->recipe.merge;
    int p = method_param(merge->method, name);

    assert_in_range(p, 0, CASE_PARAMS - 1);
    c->shared[p] = value;
    for (unsigned i = 0; i < merge->n_inputs; i++)
        c->per_input[i * merge->method->n_params + (unsigned)p] = value;
}

static inline void case_set_donor(struct sparse_case *c, const char *name, unsigned donor, double value)
{
    const struct method *method = c->recipe.merge.method;

    c->per_input[(donor + 1) * method->n_params + (unsigned)method_param(method, name)] = value;
}

static inline void *case_pack(enum dtype dtype, uint64_t n, case_value *value, unsigned donor, unsigned seed)
{
    float *wide = calloc(n + 1, sizeof(*wide));
    void *packed = calloc(n + 1, sizeof(*wide));

    assert_non_null(wide);
    assert_non_null(packed);
    for (uint64_t i = 0; value && i < n; i++)
        wide[i] = value(i, donor, seed);
    kernels_best()->store[dtype](wide, packed, (size_t)n);
    free(wide);
    return packed;
}

static inline struct sparse_case *case_new(const char *method, enum dtype work, unsigned n_donors,
                                           unsigned ndim, const uint64_t *shape, case_value *value,
                                           unsigned seed)
{
    struct sparse_case *c = calloc(1, sizeof(*c));
    struct merge *merge;

    assert_non_null(c);
    merge = &c->recipe.merge;
    *merge = (struct merge){.method = method_find(method),
                            .work = work,
                            .result = work,
                            .n_inputs = n_donors + 1,
                            .shared = c->shared,
                            .per_input = c->per_input,
                            .n = 1,
                            .ndim = ndim,
                            .shape = c->shape,
                            .name = method,
                            .seed = seed};
    assert_non_null(merge->method);
    for (unsigned i = 0; i < ndim; i++)
        merge->n *= c->shape[i] = shape[i];
    for (unsigned p = 0; p < merge->method->n_params; p++)
        case_set(c, merge->method->params[p].name, merge->method->params[p].value);
    case_set(c, "weight", 1);
    c->recipe = (struct recipe){.kind = RECIPE_MERGE,
                                .dtype = DTYPE_F32,
                                .merge = *merge,
                                .n_inputs = n_donors + 1,
                                .inputs = c->inputs};
    for (unsigned i = 0; i <= n_donors; i++) {
        c->data[i] = case_pack(work, merge->n, i ? value : NULL, i - 1, seed);
        c->feeds[i] = memory_feed(work, merge->n, c->data[i]);
        c->inputs[i] = &c->feeds[i].feed;
    }
    c->out = calloc(merge->n + 1, sizeof(*c->out));
    assert_non_null(c->out);
    return c;
}

static inline void case_free(struct sparse_case *c)
{
    for (unsigned i = 0; i < c->recipe.n_inputs; i++)
        free(c->data[i]);
    free(c->out);
    free(c);
}

/* A donor's values, as they were rounded. */
static inline float *case_values(const struct sparse_case *c, unsigned donor)
{
    float *x = calloc(c->recipe.merge.n + 1, sizeof(*x));

    assert_non_null(x);
    kernels_best()->load[c->recipe.merge.work](c->data[donor + 1], x, (size_t)c->recipe.merge.n);
    return x;
}

/* out = the merge, its statistics included, by n_threads. */
static inline void case_run(struct sparse_case *c, unsigned n_threads)
{
    struct bench bench;
    struct err err;

    bench_init(&bench, kernels_best(), n_threads);
    bench_prepare(&bench, &c->recipe);
    if (recipe_compute(&c->recipe, 0, (size_t)c->recipe.merge.n, c->out, bench.scratch, &err))
        fail_msg("%s", err.text);
    bench_fini(&bench);
}

#endif
