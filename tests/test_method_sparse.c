/* Methods that prune task vectors, sce and ram: vectors of mergekit 0.1.5 (golden/make_vectors.py --sparse),
 * and the order of elements in tensors of many blocks against a sort. With an argument: the vectors in that
 * file. What is drawn at random is in test_method_random.c. */
#include "method.h"

#include <math.h>

#include "scratch_dir.h"
#include "sparse_case.h"

static const char *vectors_path;

/* The mean squares of sce in float32 differ from mergekit's in the last place, which moves everything. */
static void check_near(const struct vector *v, const struct bench *bench, unsigned char *out)
{
    const float *got = (const float *)(const void *)out;
    float largest = 0, want;

    compute_in_steps(v, 5, 64, out, bench->scratch);
    for (size_t i = 0; i < v->recipe.merge.n; i++) {
        memcpy(&want, v->expected + i * sizeof(want), sizeof(want));
        largest = fmaxf(largest, fabsf(want));
    }
    for (size_t i = 0; i < v->recipe.merge.n; i++) {
        memcpy(&want, v->expected + i * sizeof(want), sizeof(want));
        if (!(fabsf(got[i] - want) <= 1e-6f * largest) && !(isnan(got[i]) && isnan(want)) && got[i] != want)
            fail_msg("%s by %s: element %zu is %a instead of %a", v->label, bench->kernels->isa, i,
                     (double)got[i], (double)want);
    }
}

static void check(const struct vector *v, const struct bench *bench, unsigned char *out)
{
    if (v->recipe.merge.method == &method_sce && v->recipe.merge.work == DTYPE_F32)
        check_near(v, bench, out);
    else
        check_vector(v, bench, out);
}

static void test_vectors(void **state)
{
    (void)state;
    replay_vectors(vectors_path, check);
}

/* ---- the order of elements, against a sort */

static uint32_t mix(uint64_t i, unsigned donor, unsigned seed)
{
    uint64_t x = (i + 1) * 0x9e3779b97f4a7c15 ^ (uint64_t)(seed * 8 + donor + 1) * 0xc2b2ae3d27d4eb4f;

    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9;
    return (uint32_t)(x >> 32);
}

/* Few magnitudes, so that a cut is among thousands of equals; neighbours alike, so that blocks differ. */
static float few(uint64_t i, unsigned donor, unsigned seed)
{
    uint32_t x = mix(i, donor, seed);

    return (float)((x % 7 + (i >> 15) % 3) * (donor + 1)) / 64 * (x & 1024 ? -1.0f : 1.0f);
}

/* Magnitudes that differ in the lower half of a float32 only, a few of them equal. */
static float near_one(uint64_t i, unsigned donor, unsigned seed)
{
    return 1 + (float)(mix(i, donor, seed) % 30000) * 0x1p-23f;
}

static float any(uint64_t i, unsigned donor, unsigned seed)
{
    uint32_t x = mix(i, donor, seed);

    return ((float)(x >> 8) * 0x1p-24f - 0.5f) * (x & 1 ? 1.0f : 1e-3f);
}

struct sorted {
    float magnitude;
    uint32_t index;
};

static int ascending(const void *a, const void *b)
{
    const struct sorted *x = a, *y = b;

    if (x->magnitude != y->magnitude)
        return x->magnitude < y->magnitude ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static int descending(const void *a, const void *b)
{
    const struct sorted *x = a, *y = b;

    if (x->magnitude != y->magnitude)
        return x->magnitude > y->magnitude ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

/* What of a donor stays: the sorted elements [low, high). */
static float *expected_of(const struct sparse_case *c, unsigned donor,
                          int (*order)(const void *, const void *), size_t low, size_t high)
{
    size_t n = (size_t)c->recipe.merge.n;
    struct sorted *sorted = calloc(n, sizeof(*sorted));
    float *x = case_values(c, donor);

    assert_non_null(sorted);
    for (uint32_t i = 0; i < n; i++)
        sorted[i] = (struct sorted){fabsf(x[i]), i};
    qsort(sorted, n, sizeof(*sorted), order);
    for (size_t i = 0; i < n; i++)
        if (i < low || i >= high)
            x[sorted[i].index] = 0;
    free(sorted);
    return x;
}

/* Donor by donor, the others' weight being 0. */
static void check_donors(struct sparse_case *c, const double *density, const double *gamma)
{
    size_t n = (size_t)c->recipe.merge.n;

    for (unsigned d = 0; d + 1 < c->recipe.n_inputs; d++) {
        size_t kept = (size_t)(density[d] * (double)n), top = gamma ? (size_t)(gamma[d] * (double)n) : 0;
        size_t low = !gamma || kept + top > n ? 0 : n - kept - top;
        float *want = expected_of(c, d, gamma ? ascending : descending, low, low + kept);
        case_set(c, "weight", 0);
        case_set_donor(c, "weight", d, 1);
        case_run(c, 1 + d);
        for (size_t i = 0; i < n; i++)
            if (c->out[i] != want[i])
                fail_msg("%s in %s, donor %u: element %zu is %g instead of %g", c->recipe.merge.name,
                         dtype_name(c->recipe.merge.work), d, i, (double)c->out[i], (double)want[i]);
        free(want);
    }
}

static void check_order(const char *method, enum dtype work, unsigned n_donors, uint64_t n, case_value *value)
{
    static const double density[CASE_DONORS] = {0.3, 0.001, 0.9, 0.5, 0.07, 0.71, 0.99, 0.4},
                        gamma[CASE_DONORS] = {0.1, 0.5, 0.01, 0, 0.03, 0.2, 0.005, 0.33};
    struct sparse_case *c = case_new(method, work, n_donors, 1, &n, value, (unsigned)n);
    bool outliers = method_param(c->recipe.merge.method, "gamma") >= 0;

    case_set(c, "normalize", 0);
    for (unsigned d = 0; d < n_donors; d++) {
        case_set_donor(c, "density", d, density[d]);
        if (outliers)
            case_set_donor(c, "gamma", d, gamma[d]);
    }
    check_donors(c, density, outliers ? gamma : NULL);
    case_free(c);
}

static void test_order_of_equals(void **state)
{
    (void)state;
    check_order("ties", DTYPE_BF16, 1, 300001, few);
    check_order("breadcrumbs", DTYPE_BF16, 2, 200000, few);
    check_order("breadcrumbs", DTYPE_F16, 3, 150000, few);
    check_order("ties", DTYPE_F32, 2, 200000, few);
    check_order("breadcrumbs", DTYPE_F32, 2, 600001,
                few); /* blocks so long that finding the index takes two passes */
}

static void test_order_of_many_magnitudes(void **state)
{
    (void)state;
    check_order("breadcrumbs", DTYPE_F32, 2, 150000, near_one);
    check_order("ties", DTYPE_F32, 3, 100000, near_one);
    check_order("ties", DTYPE_F16, 1, 140000, any);
    check_order("breadcrumbs", DTYPE_BF16, 1, 140000, any);
    check_order("breadcrumbs", DTYPE_F32, 1, 140000, any);
}

/* More series and cuts than one pass takes. */
static void test_order_of_many_donors(void **state)
{
    (void)state;
    check_order("breadcrumbs", DTYPE_F32, 8, 70000, few);
    check_order("breadcrumbs", DTYPE_BF16, 8, 70000, few);
}

/* No two alike: 5 is odd, and the factor below 2^17. */
static float all_different(uint64_t i, unsigned donor, unsigned seed)
{
    return 1 + (float)((i * (2 * donor + 5) + seed) % (1 << 17)) * 0x1p-23f;
}

/* How often the elements of a ties merge in float32 are read before its first one is known: once for the
 * upper halves of the keys, then for four cuts at a time, of which ties has one a donor. */
static void test_passes(void **state)
{
    static const unsigned donors[] = {1, 4, 5, 8};
    const uint64_t n = 70000;

    (void)state;
    for (size_t i = 0; i < sizeof(donors) / sizeof(donors[0]); i++) {
        struct sparse_case *c = case_new("ties", DTYPE_F32, donors[i], 1, &n, all_different, 1);
        struct stats_counters counters;
        struct bench bench;
        case_set(c, "density", 0.3);
        bench_init(&bench, kernels_best(), 2);
        bench_prepare(&bench, &c->recipe);
        stats_counters(bench.stats, &counters);
        assert_int_equal(counters.bytes_read / (n * sizeof(float) * (donors[i] + 1)),
                         1 + (donors[i] + 3) / 4);
        bench_fini(&bench);
        case_free(c);
    }
}

/* Where a norm passes what float16 has, mergekit makes NaN; float32 does not. */
static void test_rescale_in_float16(void **state)
{
    uint64_t n = 100000;
    struct sparse_case *c = case_new("ties", DTYPE_F16, 1, 1, &n, few, 3);
    float *kept, *x = case_values(c, 0);
    double before = 0, after = 0;
    float scale, want;

    (void)state;
    for (uint64_t i = 0; i < n; i++)
        x[i] *= 256;
    kernels_best()->store[DTYPE_F16](x, c->data[1], (size_t)n);
    case_set(c, "density", 0.5);
    case_set(c, "rescale", 1);
    kept = expected_of(c, 0, descending, 0, (size_t)n / 2);
    for (uint64_t i = 0; i < n; i++) {
        before += (double)fabsf(x[i]);
        after += (double)fabsf(kept[i]);
    }
    assert_true(before > 65504);
    scale = (float)before / (float)after;
    case_run(c, 2);
    for (uint64_t i = 0; i < n; i++) {
        want = kept[i] * scale;
        kernels_best()->cast[ROUND_F16](&want, 1);
        if (c->out[i] != want)
            fail_msg("element %zu is %g instead of %g", (size_t)i, (double)c->out[i], (double)want);
    }
    free(kept);
    free(x);
    case_free(c);
}

/* Element-wise where nothing must be known first, so that a big tensor is served at once. */
static void test_needs(void **state)
{
    static const char *const methods[] = {"ties", "breadcrumbs", "dare_linear", "della"};
    const uint64_t shape[2] = {40, 30};

    (void)state;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        struct sparse_case *c = case_new(methods[i], DTYPE_BF16, 2, 2, shape, few, 1);
        const struct method *method = c->recipe.merge.method;
        bool random = i >= 2;
        assert_int_equal(method->stats->state_size(&c->recipe.merge), 0);
        assert_int_equal(method->row_length(&c->recipe.merge), 1);
        case_set_donor(c, "density", 1, 0.5);
        case_set(c, "rescale", 0);
        assert_int_equal(method->stats->state_size(&c->recipe.merge) != 0, !random);
        assert_int_equal(method->row_length(&c->recipe.merge), i == 3 ? 30 : 1);
        case_set(c, "rescale", 1);
        assert_int_not_equal(method->stats->state_size(&c->recipe.merge), 0);
        case_free(c);
    }
}

/* With what a pass has counted before, another density needs no counting, and gives the same bytes. */
static void densities_after_each_other(const char *method, enum dtype work, bool on_disk)
{
    static const double densities[] = {0.5, 0.2, 0.9, 0.01, 0.5};
    uint64_t n = 700001;
    struct sparse_case *c = case_new(method, work, 3, 1, &n, few, 1);
    struct stat_store *store = NULL;
    struct stats_counters counters;
    struct bench shared;
    struct err err;
    unsigned resumed = 0;

    if (on_disk)
        assert_int_equal(stat_store_open(scratch_path(method), STAT_STORE_BYTES, &store, &err), 0);
    for (size_t i = 0; i < sizeof(densities) / sizeof(densities[0]); i++) {
        struct bench alone;
        unsigned char *want = malloc(n * 8), *got = malloc(n * 8);
        if (i == 0 || on_disk) {
            bench_init(&shared, kernels_best(), 2);
            stats_free(shared.stats);
            shared.stats = stats_new(shared.pool, 2, (size_t)1 << 20, store);
        }
        case_set(c, "density", densities[i]);
        bench_prepare(&shared, &c->recipe);
        assert_int_equal(recipe_compute(&c->recipe, 0, n, got, shared.scratch, &err), 0);
        stats_counters(shared.stats, &counters);
        resumed = (unsigned)counters.resumed;
        if (on_disk)
            bench_fini(&shared);
        bench_init(&alone, kernels_best(), 2);
        bench_prepare(&alone, &c->recipe);
        assert_int_equal(recipe_compute(&c->recipe, 0, n, want, alone.scratch, &err), 0);
        bench_fini(&alone);
        assert_memory_equal(got, want, n * dtype_bits(c->recipe.dtype) / 8);
        if (on_disk) /* the last one is known altogether */
            assert_int_equal(resumed, i > 0 && i < 4);
        else
            assert_int_equal(resumed, i < 4 ? i : 3);
        free(want);
        free(got);
    }
    if (!on_disk)
        bench_fini(&shared);
    stat_store_close(store);
    case_free(c);
}

static void test_densities_after_each_other(void **state)
{
    (void)state;
    densities_after_each_other("ties", DTYPE_BF16, false);
    densities_after_each_other("ties", DTYPE_F16, true);
    densities_after_each_other("breadcrumbs", DTYPE_F32, true);
}

/* Of a failed read, whoever waits for the statistics is told the tensor and why. */
static void test_a_failing_read(void **state)
{
    uint64_t n = 100000;
    struct sparse_case *c = case_new("ties", DTYPE_BF16, 2, 1, &n, few, 1);
    struct bench bench;
    struct err err;

    (void)state;
    case_set(c, "density", 0.5);
    c->feeds[1].fails_at = 80000;
    bench_init(&bench, kernels_best(), 2);
    c->recipe.slot = bench_slot(&bench);
    assert_int_equal(stats_await(bench.stats, &c->recipe, &err), -EIO);
    assert_string_equal(err.text, "tensor ties: memory: cannot read");
    c->feeds[1].fails_at = UINT64_MAX;
    assert_int_equal(stats_await(bench.stats, &c->recipe, &err), 0);
    bench_fini(&bench);
    case_free(c);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_order_of_equals),
        cmocka_unit_test(test_order_of_many_magnitudes),
        cmocka_unit_test(test_order_of_many_donors),
        cmocka_unit_test(test_passes),
        cmocka_unit_test(test_densities_after_each_other),
        cmocka_unit_test(test_rescale_in_float16),
        cmocka_unit_test(test_needs),
        cmocka_unit_test(test_a_failing_read),
    };
    char beside[4096];

    vectors_path = argc > 1 ? argv[1] : vectors_beside(__FILE__, "sparse.bin", beside);
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
