/* The methods of norms and dots against vectors of mergekit 0.1.5 (golden/make_norm_vectors.py), and what
 * they do better. With an argument: against the vectors in that file. */
#include "method.h"

#include <math.h>

#include "vectors.h"

static const char *vectors_path;

/* ---- vectors */

/* Of the largest value, in float32, where mergekit's own float32 sums are the larger error. */
static double tolerance(const char *method)
{
    if (strcmp(method, "multislerp") == 0 || strcmp(method, "nuslerp") == 0)
        return 3e-5;
    return strcmp(method, "model_stock") == 0 ? 3e-6 : 1e-6;
}

static double value_of(enum dtype dtype, const unsigned char *bytes, size_t i)
{
    double x;
    float y;

    if (dtype == DTYPE_F64) {
        memcpy(&x, bytes + i * sizeof(x), sizeof(x));
        return x;
    }
    kernels_best()->load[dtype](bytes + i * dtype_bits(dtype) / 8, &y, 1);
    return (double)y;
}

static double largest(const struct vector *v)
{
    double most = 0, x;

    for (size_t i = 0; i < v->recipe.merge.n; i++) {
        x = fabs(value_of(v->recipe.dtype, v->expected, i));
        most = isfinite(x) && x > most ? x : most;
    }
    return most;
}

/* Half a unit in the last place of the type at x. */
static double half_unit(enum dtype dtype, double x)
{
    int digits = dtype == DTYPE_F32   ? 24
                 : dtype == DTYPE_F16 ? 11
                                      : 8,
        least = dtype == DTYPE_F16 ? -24 : -149;
    int exponent = x == 0 ? -1000 : ilogb(x) - digits + 1;

    return ldexp(0.5, exponent < least ? least : exponent);
}

static void check_near(const struct vector *v, const struct bench *bench, const unsigned char *out)
{
    double most = largest(v), limit = tolerance(v->method) * most;
    bool is_truth = v->recipe.dtype == DTYPE_F64 && v->recipe.merge.work != DTYPE_F64;

    for (size_t i = 0; i < v->recipe.merge.n; i++) {
        double got = value_of(v->recipe.dtype, out, i), want = value_of(v->recipe.dtype, v->expected, i);
        if (is_truth) /* rounded as exactly as the type can */
            limit = half_unit(v->recipe.merge.work, want) * (1 + 1e-4) + 1e-11 * most;
        if (fabs(got - want) <= limit || (isnan(got) && isnan(want)))
            continue;
        fail_msg("%s by %s: element %zu is %.9g instead of %.9g, %g too far", v->label, bench->kernels->isa,
                 i, got, want, fabs(got - want) - limit);
    }
}

static void check_norm_vector(const struct vector *v, const struct bench *bench, unsigned char *out)
{
    if (v->recipe.dtype == DTYPE_BF16 || v->recipe.dtype == DTYPE_F16) {
        check_vector(v, bench, out);
        return;
    }
    compute_in_steps(v, SIZE_MAX, 1, out, bench->scratch);
    check_near(v, bench, out);
    compute_in_steps(v, 3, 29, out, bench->scratch);
    check_near(v, bench, out);
}

static void test_vectors(void **state)
{
    (void)state;
    replay_vectors(vectors_path, check_norm_vector);
}

/* ---- merges of numbers made here */

struct made {
    struct vector v;
    unsigned char *data[MAX_INPUTS], *out;
};

static size_t size_of(const struct made *made)
{
    return made->v.recipe.merge.n * dtype_bits(made->v.recipe.dtype) / 8;
}

/* Any magnitudes from 2^-8 to 1/2, of both signs, and some zeros. */
static float number(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 28 == 0 ? 0 : ldexpf((float)(int32_t)*seed, -32 - (int)(*seed >> 5 & 7));
}

/* n_inputs tensors of one type with parameters at their defaults, required ones at 0.25, 0.5 ... by input. */
static struct made *made_new(const struct method *method, enum dtype work, unsigned n_inputs, int base,
                             uint64_t rows, uint64_t columns)
{
    struct made *made = calloc(1, sizeof(*made));
    struct vector *v = &made->v;
    struct merge *merge = &v->recipe.merge;
    uint32_t seed = 1;

    assert_non_null(made);
    v->shape[0] = rows;
    v->shape[1] = columns;
    v->recipe = (struct recipe){RECIPE_MERGE, work, .n_inputs = n_inputs, .inputs = v->inputs};
    *merge = (struct merge){method, work, method->result_f32 ? DTYPE_F32 : work, n_inputs, base};
    merge->shared = v->shared;
    merge->per_input = v->per_input;
    merge->shape = v->shape;
    merge->ndim = 2;
    merge->n = rows * columns;
    merge->name = method->name;
    set_defaults(v);
    for (unsigned p = 0; p < method->n_params; p++) {
        v->shared[p] = method->params[p].required ? 0.25 : v->shared[p];
        for (unsigned i = 0; method->params[p].required && i < n_inputs; i++)
            v->per_input[i * method->n_params + p] = 0.25 * (i + 1);
    }
    for (unsigned i = 0; i < n_inputs; i++) {
        made->data[i] = calloc(merge->n + 1, dtype_bits(work) / 8);
        assert_non_null(made->data[i]);
        for (uint64_t k = 0; k < merge->n; k++)
            kernels_best()->store[work](&(float){number(&seed)}, made->data[i] + k * dtype_bits(work) / 8, 1);
        v->feeds[i] = memory_feed(work, merge->n, made->data[i]);
        v->inputs[i] = &v->feeds[i].feed;
    }
    made->out = calloc(1, size_of(made) + 1);
    assert_non_null(made->out);
    return made;
}

static void made_free(struct made *made)
{
    for (unsigned i = 0; i < made->v.recipe.n_inputs; i++)
        free(made->data[i]);
    free(made->out);
    free(made);
}

static void set_shared(struct made *made, const char *name, double value)
{
    int index = method_param(made->v.recipe.merge.method, name);

    assert_true(index >= 0);
    made->v.shared[index] = value;
}

static void compute(struct made *made, struct bench *bench)
{
    struct err err;

    bench_prepare(bench, &made->v.recipe);
    if (recipe_compute(&made->v.recipe, 0, made->v.recipe.merge.n, made->out, bench->scratch, &err) != 0)
        fail_msg("%s: %s", made->v.recipe.merge.name, err.text);
}

static void compute_alone(struct made *made)
{
    struct bench bench;

    bench_init(&bench, kernels_best(), 2);
    compute(made, &bench);
    bench_fini(&bench);
}

static void same_bytes(const struct made *made, const unsigned char *want, const char *what)
{
    enum dtype dtype = made->v.recipe.dtype;
    size_t at = 0, differ = float_bytes_differ(dtype, made->out, want, made->v.recipe.merge.n, &at);

    if (differ)
        fail_msg("%s in %s, %s: %zu differ, element %zu first: %.9g instead of %.9g",
                 made->v.recipe.merge.name, dtype_name(made->v.recipe.merge.work), what, differ, at,
                 value_of(dtype, made->out, at), value_of(dtype, want, at));
}

/* ---- properties */

static const enum dtype work_types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};

static void check_any_machine(struct made *made)
{
    size_t n_sets;
    const struct kernels *const *sets = kernels_available(&n_sets);
    unsigned char *want = malloc(size_of(made));

    assert_non_null(want);
    for (size_t s = 0; s < n_sets; s++) {
        for (unsigned threads = 1; threads <= 3; threads++) {
            struct bench bench;
            bench_init(&bench, sets[s], threads);
            compute(made, &bench);
            if (s == 0 && threads == 1)
                memcpy(want, made->out, size_of(made));
            same_bytes(made, want, sets[s]->isa);
            bench_fini(&bench);
        }
    }
    free(want);
    made_free(made);
}

static struct made *made_with(struct made *made, const char *name, double value)
{
    set_shared(made, name, value);
    return made;
}

/* The same bytes by every instruction set and any number of threads. */
static void test_any_machine(void **state)
{
    enum { ROWS = 211, COLUMNS = 777 };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        enum dtype work = work_types[i];
        check_any_machine(made_new(&method_slerp, work, 2, 0, ROWS, COLUMNS));
        check_any_machine(made_new(&method_nuslerp, work, 3, 1, ROWS, COLUMNS));
        check_any_machine(
            made_with(made_new(&method_nuslerp, work, 2, -1, ROWS, COLUMNS), "nuslerp_flatten", 0));
        check_any_machine(
            made_with(made_with(made_new(&method_nuslerp, work, 3, 0, ROWS, COLUMNS), "nuslerp_flatten", 0),
                      "nuslerp_row_wise", 1));
        check_any_machine(made_new(&method_multislerp, work, 3, -1, ROWS, COLUMNS));
        check_any_machine(made_new(&method_multislerp, work, 4, 2, ROWS, COLUMNS));
        check_any_machine(made_new(&method_karcher, work, 3, -1, ROWS, COLUMNS));
        check_any_machine(made_new(&method_model_stock, work, 4, 0, ROWS, COLUMNS));
        check_any_machine(
            made_with(made_new(&method_model_stock, work, 4, 0, ROWS, COLUMNS), "filter_wise", 1));
        check_any_machine(made_new(&method_arcee_fusion, work, 2, 0, ROWS, COLUMNS));
        check_any_machine(made_new(&method_arcee_fusion, work, 2, 1, 2 * COLUMNS, ROWS));
    }
}

/* Row r as a tensor of its own, computed as a whole. */
static void check_row(const struct made *rows, uint64_t r, const char *flatten, double value)
{
    const struct merge *merge = &rows->v.recipe.merge;
    size_t bytes = rows->v.shape[1] * dtype_bits(merge->work) / 8;
    struct made *alone =
        made_new(merge->method, merge->work, merge->n_inputs, merge->base, 1, rows->v.shape[1]);

    set_shared(alone, flatten, value);
    for (unsigned i = 0; i < merge->n_inputs; i++)
        memcpy(alone->data[i], rows->data[i] + r * bytes, bytes);
    compute_alone(alone);
    same_bytes(alone, rows->out + r * bytes, "a row alone");
    made_free(alone);
}

/* Rows that are too long for a tile have statistics, short ones are computed as they come: both are what the
 * row gives as a tensor. (The last place of a float64 sum shows in neither.) */
static void test_rows(void **state)
{
    static const uint64_t shapes[][2] = {{3, 70000}, {7, 1000}, {40, 11}};

    (void)state;
    for (size_t s = 0; s < 3; s++) {
        for (size_t i = 0; i < 3; i++) {
            struct made *nu = made_new(&method_nuslerp, work_types[i], 3, 0, shapes[s][0], shapes[s][1]);
            struct made *stock =
                made_new(&method_model_stock, work_types[i], 4, 0, shapes[s][0], shapes[s][1]);
            set_shared(nu, "nuslerp_flatten", 0);
            set_shared(stock, "filter_wise", 1);
            compute_alone(nu);
            compute_alone(stock);
            for (uint64_t r = 0; r < shapes[s][0]; r += 2) {
                check_row(nu, r, "nuslerp_flatten", 1);
                check_row(stock, r, "filter_wise", 0);
            }
            made_free(nu);
            made_free(stock);
        }
    }
}

static size_t state_bytes(const struct made *made)
{
    return made->v.recipe.merge.method->stats->state_size(&made->v.recipe.merge);
}

/* Rows of one element (a convolution's weights by [out, in, 1], say) are many: nothing is kept of them, nor
 * of columns of one. A tensor that is one such row has statistics, and gives the same. */
static void test_rows_of_one(void **state)
{
    enum { ROWS = 3001 };

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct made *nu = made_new(&method_nuslerp, work_types[i], 3, 0, ROWS, 1);
        struct made *columns = made_new(&method_nuslerp, work_types[i], 3, 0, 1, ROWS);
        struct made *stock = made_new(&method_model_stock, work_types[i], 4, 0, ROWS, 1);
        set_shared(nu, "nuslerp_flatten", 0);
        set_shared(columns, "nuslerp_flatten", 0);
        set_shared(columns, "nuslerp_row_wise", 1);
        set_shared(stock, "filter_wise", 1);
        assert_int_equal(state_bytes(nu), 0);
        assert_int_equal(state_bytes(columns), 0);
        assert_int_equal(state_bytes(stock), 0);
        compute_alone(nu);
        compute_alone(columns);
        compute_alone(stock);
        same_bytes(columns, nu->out, "columns of one element");
        for (uint64_t r = 0; r < ROWS; r += 7) {
            check_row(nu, r, "nuslerp_flatten", 1);
            check_row(stock, r, "filter_wise", 0);
        }
        made_free(nu);
        made_free(columns);
        made_free(stock);
    }
}

static void transpose(const unsigned char *in, unsigned char *out, uint64_t rows, uint64_t columns,
                      size_t size)
{
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < columns; c++)
            memcpy(out + size * (c * rows + r), in + size * (r * columns + c), size);
}

static void check_columns(enum dtype work)
{
    enum { ROWS = 90, COLUMNS = 1500 };
    struct made *columns = made_new(&method_nuslerp, work, 3, 0, ROWS, COLUMNS);
    struct made *rows = made_new(&method_nuslerp, work, 3, 0, COLUMNS, ROWS);
    size_t size = dtype_bits(work) / 8;
    unsigned char *want = malloc(size_of(columns));

    assert_non_null(want);
    for (unsigned i = 0; i < 3; i++)
        transpose(columns->data[i], rows->data[i], ROWS, COLUMNS, size);
    set_shared(columns, "nuslerp_flatten", 0);
    set_shared(columns, "nuslerp_row_wise", 1);
    set_shared(rows, "nuslerp_flatten", 0);
    compute_alone(columns);
    compute_alone(rows);
    transpose(rows->out, want, COLUMNS, ROWS, size);
    same_bytes(columns, want, "columns as rows of the transpose");
    free(want);
    made_free(columns);
    made_free(rows);
}

/* nuslerp_row_wise does to columns what its absence does to rows. */
static void test_columns(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++)
        check_columns(work_types[i]);
}

/* ---- arcee_fusion against the formula in plain float64 */

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

static float rounded(enum dtype dtype, double x)
{
    float y = (float)x;

    kernels_best()->cast[round_of(dtype)](&y, 1);
    return y;
}

static void softmax(enum dtype dtype, const float *x, size_t n, float *p)
{
    double most = -INFINITY, sum = 0;

    for (size_t i = 0; i < n; i++)
        most = (double)x[i] > most ? (double)x[i] : most;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - most);
    for (size_t i = 0; i < n; i++)
        p[i] = rounded(dtype, (double)(rounded(dtype, exp((double)x[i] - most) / sum) + 1e-8f));
}

static float naive_divergence(enum dtype dtype, const float *x, const float *base, size_t n)
{
    float *p = malloc(n * sizeof(*p)), *q = malloc(n * sizeof(*q));
    double sum = 0;

    assert_non_null(p);
    assert_non_null(q);
    softmax(dtype, x, n, p);
    softmax(dtype, base, n, q);
    for (size_t i = 0; i < n; i++) {
        float ln = rounded(dtype, log((double)rounded(dtype, (double)(p[i] / q[i]))));
        sum += (double)rounded(dtype, (double)(p[i] * ln));
    }
    free(p);
    free(q);
    return rounded(dtype, sum);
}

/* data: the base's and the donor's elements in float32 */
static void naive_arcee(enum dtype dtype, float *const data[2], size_t rows, size_t columns, float *out)
{
    size_t n = rows * columns;
    float *importance = malloc(n * sizeof(*importance)), *sorted = malloc(n * sizeof(*sorted));
    float q1, q2, q3, threshold;

    assert_non_null(importance);
    assert_non_null(sorted);
    for (size_t r = 0; r < rows; r++) {
        float d = naive_divergence(dtype, data[1] + r * columns, data[0] + r * columns, columns);
        for (size_t i = r * columns; i < (r + 1) * columns; i++)
            importance[i] =
                rounded(dtype, (double)(fabsf(rounded(dtype, (double)(data[1][i] - data[0][i]))) * d));
    }
    memcpy(sorted, importance, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), ascending);
    q1 = sorted[(n - 1) / 4];
    q2 = sorted[(n - 1) / 2];
    q3 = sorted[3 * (n - 1) / 4];
    threshold =
        rounded(dtype, (double)(q2 + rounded(dtype, (double)(1.5f * rounded(dtype, (double)(q3 - q1))))));
    for (size_t i = 0; i < n; i++)
        out[i] =
            data[0][i] + (importance[i] >= threshold ? rounded(dtype, (double)(data[1][i] - data[0][i])) : 0);
    free(importance);
    free(sorted);
}

static void check_arcee(enum dtype work, size_t rows, size_t columns)
{
    struct made *made = made_new(&method_arcee_fusion, work, 2, 0, rows, columns);
    size_t n = rows * columns;
    float *data[2], *want = malloc(n * sizeof(*want));

    assert_non_null(want);
    made->v.recipe.dtype = DTYPE_F32;
    made->out = realloc(made->out, n * sizeof(float));
    for (unsigned i = 0; i < 2; i++) {
        data[i] = malloc(n * sizeof(float));
        assert_non_null(data[i]);
        kernels_best()->load[work](made->data[i], data[i], n);
    }
    naive_arcee(work, data, rows, columns, want);
    compute_alone(made);
    same_bytes(made, (const unsigned char *)want, "the plain formula");
    free(data[0]);
    free(data[1]);
    free(want);
    made_free(made);
}

static void test_arcee(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        check_arcee(work_types[i], 60, 1300); /* D kept */
        check_arcee(work_types[i], 1501, 40); /* computed as needed */
        check_arcee(work_types[i], 5, 1);
    }
}

/* ---- where mergekit fails, or gives NaN */

static void copy_input(struct made *made, unsigned to, unsigned from)
{
    memcpy(made->data[to], made->data[from],
           made->v.recipe.merge.n * dtype_bits(made->v.recipe.merge.work) / 8);
}

static void negate_input(struct made *made, unsigned i)
{
    enum dtype work = made->v.recipe.merge.work;
    size_t size = dtype_bits(work) / 8;

    for (uint64_t k = 0; k < made->v.recipe.merge.n; k++)
        made->data[i][k * size + size - 1] ^= 0x80;
}

/* Donors that are the base: there is no direction, and the base is served. */
static void test_multislerp_untouched(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        for (unsigned n = 3; n <= 5; n++) {
            struct made *made = made_new(&method_multislerp, work_types[i], n, 0, 1, 700);
            for (unsigned k = 1; k < n; k++)
                copy_input(made, k, 0);
            compute_alone(made);
            same_bytes(made, made->data[0], "all donors are the base");
            made_free(made);
        }
    }
}

/* In float16, where eps is 0, one donor without a delta and a tensor of one element. */
static void test_multislerp_float16(void **state)
{
    struct made *made = made_new(&method_multislerp, DTYPE_F16, 4, 0, 1, 700);

    (void)state;
    copy_input(made, 2, 0);
    compute_alone(made);
    for (size_t i = 0; i < 700; i++)
        assert_true(isfinite(value_of(DTYPE_F16, made->out, i)) != 0);
    made_free(made);
    made = made_new(&method_multislerp, DTYPE_F16, 2, -1, 1, 1);
    for (unsigned i = 0; i < 2; i++)
        kernels_best()->store[DTYPE_F16](&(float){0.5f + (float)i}, made->data[i], 1);
    compute_alone(made);
    /* a sphere of dimension 0: the mean of the norms, weights 1/3 and 2/3 */
    assert_true(fabs(value_of(DTYPE_F16, made->out, 0) - 3.5 / 3) < 1e-3);
    made_free(made);
}

/* Two that cancel are mixed as they are; of more it is said. */
static void test_multislerp_cancels(void **state)
{
    struct made *two = made_new(&method_multislerp, DTYPE_BF16, 2, -1, 1, 700),
                *four = made_new(&method_multislerp, DTYPE_BF16, 4, -1, 1, 700);
    struct bench bench;
    struct err err;

    (void)state;
    bench_init(&bench, kernels_best(), 2);
    copy_input(two, 1, 0);
    negate_input(two, 1);
    for (unsigned i = 0; i < 4; i++) {
        copy_input(four, i, 0);
        four->v.per_input[i * method_multislerp.n_params] = 0.25;
        if (i % 2)
            negate_input(four, i);
    }
    two->v.per_input[method_multislerp.n_params] = 0.25;
    compute(two, &bench);
    for (size_t i = 0; i < 700; i++)
        assert_true(value_of(DTYPE_BF16, two->out, i) == 0);
    four->v.recipe.slot = bench_slot(&bench);
    assert_int_equal(stats_await(bench.stats, &four->v.recipe, &err), -EIO);
    assert_says(err.text, "multislerp: the weighted sum of 4 models is zero");
    bench_fini(&bench);
    made_free(two);
    made_free(four);
}

/* What the Gram matrix foretells is nearly always what is measured, so that there are two passes. */
static void test_multislerp_passes(void **state)
{
    unsigned extra = 0;

    (void)state;
    for (uint64_t n = 500; n < 520; n++) {
        struct made *made = made_new(&method_multislerp, DTYPE_BF16, 3, 0, 64, n);
        struct stats_counters counters;
        struct bench bench;
        uint64_t pass = 3 * 2 * made->v.recipe.merge.n;
        bench_init(&bench, kernels_best(), 1);
        compute(made, &bench);
        stats_counters(bench.stats, &counters);
        assert_int_equal(counters.bytes_read % pass, 0);
        assert_in_range(counters.bytes_read / pass, 2, 4);
        extra += counters.bytes_read / pass > 2;
        bench_fini(&bench);
        made_free(made);
    }
    assert_in_range(extra, 0, 10);
}

static void test_one_donor(void **state)
{
    struct made *made = made_new(&method_multislerp, DTYPE_BF16, 2, 0, 3, 500);

    (void)state;
    assert_int_equal(method_multislerp.stats->state_size(&made->v.recipe.merge), 0);
    compute_alone(made);
    same_bytes(made, made->data[1], "one donor");
    made->v.recipe.merge.n_inputs = 1;
    assert_true(method_multislerp.is_copy(&made->v.recipe.merge));
    assert_true(method_karcher.is_copy(&made->v.recipe.merge));
    assert_true(method_nuslerp.is_copy(&made->v.recipe.merge));
    made->v.recipe.merge.n_inputs = 2;
    assert_false(method_multislerp.is_copy(&made->v.recipe.merge));
    assert_false(method_karcher.is_copy(&made->v.recipe.merge));
    assert_false(method_nuslerp.is_copy(&made->v.recipe.merge));
    made_free(made);
}

/* ---- the tables */

static void expect(const struct method *method, enum base_rule base, enum lone_rule lone, unsigned min_donors,
                   unsigned max_donors)
{
    assert_ptr_equal(method_find(method->name), method);
    assert_int_equal(method->base, base);
    assert_int_equal(method->lone, lone);
    assert_int_equal(method->min_donors, min_donors);
    assert_int_equal(method->max_donors, max_donors);
    assert_int_equal(method->result_f32, method == &method_arcee_fusion);
}

static void expect_param(const struct method *method, const char *name, enum param_kind kind,
                         enum param_scope scope, double value)
{
    int index = method_param(method, name);

    assert_true(index >= 0);
    assert_int_equal(method->params[index].kind, kind);
    assert_int_equal(method->params[index].scope, scope);
    assert_int_equal(method->params[index].required, isnan(value));
    if (!isnan(value))
        assert_true(method->params[index].value == value);
}

static void test_tables(void **state)
{
    (void)state;
    expect(&method_slerp, BASE_REQUIRED, LONE_EITHER_PASSES, 1, 1);
    expect(&method_nuslerp, BASE_OPTIONAL, LONE_EITHER_PASSES, 2, 2);
    expect(&method_multislerp, BASE_OPTIONAL, LONE_BASE_PASSES, 1, 0);
    expect(&method_karcher, BASE_IGNORED, LONE_BASE_PASSES, 1, 0);
    expect(&method_model_stock, BASE_REQUIRED, LONE_BASE_PASSES, 2, 0);
    expect(&method_arcee_fusion, BASE_REQUIRED, LONE_EITHER_PASSES, 1, 1);
    expect_param(&method_slerp, "t", PARAM_NUMBER, PARAM_SHARED, NAN);
    expect_param(&method_nuslerp, "weight", PARAM_NUMBER, PARAM_DONOR, NAN);
    expect_param(&method_nuslerp, "nuslerp_flatten", PARAM_BOOL, PARAM_SHARED, 1);
    expect_param(&method_nuslerp, "nuslerp_row_wise", PARAM_BOOL, PARAM_SHARED, 0);
    expect_param(&method_multislerp, "weight", PARAM_NUMBER, PARAM_DONOR, NAN);
    expect_param(&method_multislerp, "normalize_weights", PARAM_BOOL, PARAM_SHARED, 1);
    expect_param(&method_multislerp, "eps", PARAM_NUMBER, PARAM_SHARED, 1e-8);
    expect_param(&method_karcher, "max_iter", PARAM_INTEGER, PARAM_SHARED, 10);
    expect_param(&method_karcher, "tol", PARAM_NUMBER, PARAM_SHARED, 1e-5);
    expect_param(&method_model_stock, "filter_wise", PARAM_BOOL, PARAM_SHARED, 0);
    assert_int_equal(method_arcee_fusion.n_params, 0);
}

static void test_checks(void **state)
{
    struct made *nu = made_new(&method_nuslerp, DTYPE_BF16, 2, -1, 1, 1),
                *karcher = made_new(&method_karcher, DTYPE_BF16, 2, -1, 1, 1),
                *arcee = made_new(&method_arcee_fusion, DTYPE_BF16, 2, 0, 1, 1);
    struct err err;

    (void)state;
    nu->v.shape[0] = 8;
    nu->v.shape[1] = 2000000;
    nu->v.recipe.merge.n = 16000000;
    assert_int_equal(method_nuslerp.check(&nu->v.recipe.merge, &err), 0);
    set_shared(nu, "nuslerp_row_wise", 1);
    assert_int_equal(method_nuslerp.check(&nu->v.recipe.merge, &err), 0); /* flattened all the same */
    set_shared(nu, "nuslerp_flatten", 0);
    assert_int_equal(method_nuslerp.check(&nu->v.recipe.merge, &err), -EINVAL);
    assert_says(err.text, "`nuslerp_row_wise: true` would need numbers for each of 2000000 columns");
    assert_int_equal(method_karcher.check(&karcher->v.recipe.merge, &err), 0);
    set_shared(karcher, "max_iter", -1);
    assert_int_equal(method_karcher.check(&karcher->v.recipe.merge, &err), -EINVAL);
    assert_says(err.text, "`max_iter: -1` must be from 0 to 10000");
    set_shared(karcher, "max_iter", 1e9);
    assert_int_equal(method_karcher.check(&karcher->v.recipe.merge, &err), -EINVAL);
    assert_int_equal(method_arcee_fusion.check(&arcee->v.recipe.merge, &err), 0);
    arcee->v.shape[1] = 600000;
    assert_int_equal(method_arcee_fusion.check(&arcee->v.recipe.merge, &err), -EINVAL);
    assert_says(err.text, "rows of up to 524288 elements, and these have 600000");
    made_free(nu);
    made_free(karcher);
    made_free(arcee);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_checks),
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_any_machine),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_rows_of_one),
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_arcee),
        cmocka_unit_test(test_multislerp_untouched),
        cmocka_unit_test(test_multislerp_float16),
        cmocka_unit_test(test_multislerp_cancels),
        cmocka_unit_test(test_multislerp_passes),
        cmocka_unit_test(test_one_donor),
    };
    char beside[4096];

    vectors_path = argc > 1 ? argv[1] : vectors_beside(__FILE__, "norm.bin", beside);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
