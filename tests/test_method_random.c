/* dare and della: what mergekit draws at random. Masks are those of rng.h; their shares, and their
 * independence of each other, are as chance would have them; the bytes do not depend on how a tensor is read.
 * Seeds are fixed, so a check within five sigma passes always or never. */
#include "method.h"

#include <errno.h>
#include <math.h>

#include "rng.h"
#include "sparse_case.h"

static uint32_t mix(uint64_t i, unsigned donor, unsigned seed)
{
    uint64_t x = (i + 1) * 0x9e3779b97f4a7c15 ^ (uint64_t)(seed * 8 + donor + 1) * 0xc2b2ae3d27d4eb4f;

    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9;
    return (uint32_t)(x >> 32);
}

/* Never 0, so that what is 0 was dropped. */
static float never_zero(uint64_t i, unsigned donor, unsigned seed)
{
    uint32_t x = mix(i, donor, seed);

    return (float)(1 + x % 200) / 256 * (x & 1024 ? -1.0f : 1.0f);
}

static struct sparse_case *plain_case(const char *method, enum dtype work, unsigned n_donors, unsigned ndim,
                                      const uint64_t *shape, unsigned seed)
{
    struct sparse_case *c = case_new(method, work, n_donors, ndim, shape, never_zero, seed);

    case_set(c, "normalize", 0);
    case_set(c, "rescale", 0);
    return c;
}

/* Donor `donor` alone, of what it keeps. */
static void run_donor(struct sparse_case *c, unsigned donor)
{
    case_set(c, "weight", 0);
    case_set_donor(c, "weight", donor, 1);
    case_run(c, 1);
}

static void check_kept(const struct sparse_case *c, unsigned donor, double p)
{
    uint64_t n = c->recipe.merge.n, kept = 0;
    float *x = case_values(c, donor);

    for (uint64_t i = 0; i < n; i++) {
        bool keep = rng_draw(c->recipe.merge.seed, donor, i, p);
        kept += keep;
        if (c->out[i] != (keep ? x[i] : 0))
            fail_msg("%s in %s: element %zu is %g, its delta %g, to be kept: %d", c->recipe.merge.name,
                     dtype_name(c->recipe.merge.work), (size_t)i, (double)c->out[i], (double)x[i], keep);
    }
    if (fabs((double)kept - p * (double)n) > 5 * sqrt((double)n * p * (1 - p)))
        fail_msg("p %g: %zu of %zu are kept", p, (size_t)kept, (size_t)n);
    free(x);
}

static void test_dare_keeps_a_share(void **state)
{
    static const double density[] = {0.01, 0.1, 0.53, 0.9};
    static const enum dtype works[] = {DTYPE_BF16, DTYPE_F16, DTYPE_F32};
    uint64_t n = 60001;

    (void)state;
    for (size_t w = 0; w < 3; w++)
        for (size_t i = 0; i < 4; i++) {
            struct sparse_case *c = plain_case("dare_linear", works[w], 2, 1, &n, (unsigned)i + 1);
            float p = (float)density[i];
            if (works[w] == DTYPE_BF16)
                kernels_best()->cast[ROUND_BF16](&p, 1);
            case_set(c, "density", density[i]);
            run_donor(c, 0);
            check_kept(c, 0, p);
            run_donor(c, 1);
            check_kept(c, 1, p);
            case_free(c);
        }
}

/* With rescale every kept element is the delta times one number, that of the norms. */
static void check_rescaled(const char *method, enum dtype work)
{
    const uint64_t shape[2] = {500, 301};
    struct sparse_case *c = plain_case(method, work, 1, 2, shape, 9);
    enum round round = round_of(work);
    float *kept = calloc(c->recipe.merge.n, sizeof(*kept)), *x = case_values(c, 0);
    float before = 0, after = 0, scale;
    double sum_before = 0, sum_after = 0;

    assert_non_null(kept);
    case_set(c, "density", 0.4);
    case_run(c, 1);
    memcpy(kept, c->out, c->recipe.merge.n * sizeof(*kept));
    for (uint64_t i = 0; i < c->recipe.merge.n; i++) {
        sum_before += (double)fabsf(x[i]);
        sum_after += (double)fabsf(kept[i]);
    }
    before = (float)sum_before;
    after = (float)sum_after;
    if (work == DTYPE_BF16) {
        kernels_best()->cast[round](&before, 1);
        kernels_best()->cast[round](&after, 1);
    }
    scale = before / after;
    if (work == DTYPE_BF16)
        kernels_best()->cast[round](&scale, 1);
    kernels_best()->scale[round](kept, scale, (size_t)c->recipe.merge.n);
    case_set(c, "rescale", 1);
    case_run(c, 2);
    for (uint64_t i = 0; i < c->recipe.merge.n; i++)
        if (c->out[i] != kept[i])
            fail_msg("%s in %s: element %zu is %a instead of %a", method, dtype_name(work), (size_t)i,
                     (double)c->out[i], (double)kept[i]);
    free(kept);
    free(x);
    case_free(c);
}

static void test_rescale(void **state)
{
    static const enum dtype works[] = {DTYPE_BF16, DTYPE_F16, DTYPE_F32};

    (void)state;
    for (size_t w = 0; w < 3; w++) {
        check_rescaled("dare_linear", works[w]);
        check_rescaled("dare_ties", works[w]);
        check_rescaled("della", works[w]);
        check_rescaled("della_linear", works[w]);
    }
}

/* ---- independence */

enum { DRAWS = 200000 };

static bool *mask_of(unsigned seed, unsigned donor, double density)
{
    uint64_t n = DRAWS;
    struct sparse_case *c = plain_case("dare_linear", DTYPE_F32, 3, 1, &n, seed);
    bool *mask = calloc(DRAWS, sizeof(*mask));

    assert_non_null(mask);
    case_set(c, "density", density);
    run_donor(c, donor);
    for (uint64_t i = 0; i < n; i++)
        mask[i] = c->out[i] != 0;
    case_free(c);
    return mask;
}

/* Chi-square of the 2 x 2 table of a[i] and b[i + lag]; 25 is five sigma. */
static void check_independent(const bool *a, const bool *b, size_t lag, const char *what)
{
    double count[2][2] = {{0, 0}, {0, 0}}, n = DRAWS - (double)lag, chi = 0;

    for (size_t i = 0; i + lag < DRAWS; i++)
        count[a[i]][b[i + lag]]++;
    for (int x = 0; x < 2; x++)
        for (int y = 0; y < 2; y++) {
            double expected = (count[x][0] + count[x][1]) * (count[0][y] + count[1][y]) / n;
            chi += (count[x][y] - expected) * (count[x][y] - expected) / expected;
        }
    if (chi > 25)
        fail_msg("%s, lag %zu: chi-square %g", what, lag, chi);
}

static void test_masks_are_independent(void **state)
{
    bool *a = mask_of(1, 0, 0.5), *donor = mask_of(1, 1, 0.5), *third = mask_of(1, 2, 0.3),
         *seed = mask_of(2, 0, 0.5);

    (void)state;
    for (size_t lag = 0; lag < 9; lag++) {
        check_independent(a, donor, lag, "two donors");
        check_independent(a, third, lag, "donors of other densities");
        check_independent(a, seed, lag, "two seeds");
        check_independent(a, a, lag + 1, "neighbours");
    }
    free(a);
    free(donor);
    free(third);
    free(seed);
}

/* ---- della */

static uint32_t rank_in_row(const float *x, size_t row, size_t at)
{
    size_t first = at / row * row;
    uint32_t rank = 0;

    for (size_t i = first; i < first + row; i++)
        rank += fabsf(x[i]) < fabsf(x[at]) || (fabsf(x[i]) == fabsf(x[at]) && i < at);
    return rank;
}

static void check_della(enum dtype work, unsigned ndim, const uint64_t *shape, size_t row)
{
    struct sparse_case *c = plain_case("della_linear", work, 2, ndim, shape, 5 + ndim);
    double density = 0.45, epsilon = 0.3, sum = 0, variance = 0, kept = 0;
    float *x = case_values(c, 1);

    case_set(c, "density", density);
    case_set(c, "epsilon", epsilon);
    run_donor(c, 1);
    for (uint64_t i = 0; i < c->recipe.merge.n; i++) {
        double p =
            row == 1 ? density : density - epsilon + 2 * epsilon * rank_in_row(x, row, i) / (double)(row - 1);
        uint32_t word = rng_word(c->recipe.merge.seed, 1, i);
        bool keep = c->out[i] != 0;
        sum += p;
        variance += p * (1 - p);
        kept += keep;
        if (keep != (word < p * 0x1p32) && fabs(word - p * 0x1p32) > 1)
            fail_msg("rows of %zu in %s: element %zu of probability %g, word %x, is %g", row,
                     dtype_name(work), (size_t)i, p, word, (double)c->out[i]);
        if (keep && c->out[i] != x[i])
            fail_msg("element %zu is %g instead of %g", (size_t)i, (double)c->out[i], (double)x[i]);
    }
    if (fabs(kept - sum) > 5 * sqrt(variance))
        fail_msg("rows of %zu: %g are kept instead of %g", row, kept, sum);
    free(x);
    case_free(c);
}

static void test_della_keeps_by_rank(void **state)
{
    static const enum dtype works[] = {DTYPE_BF16, DTYPE_F16, DTYPE_F32};
    const uint64_t square[3] = {60, 70, 1}, cube[3] = {3, 5, 400}, column[2] = {3000, 1}, vector[1] = {4000},
                   narrow[2] = {500, 7};

    (void)state;
    for (size_t w = 0; w < 3; w++) {
        check_della(works[w], 2, square, 70);
        check_della(works[w], 3, cube, 400);
        check_della(works[w], 2, column, 1);
        check_della(works[w], 3, square, 1);
        check_della(works[w], 1, vector, 4000);
        check_della(works[w], 2, narrow, 7);
    }
}

/* A scalar passes as it is, an empty tensor is no error, no density makes zeros. */
static void test_della_at_the_edges(void **state)
{
    const uint64_t empty[2] = {5, 0}, row[1] = {9};
    struct sparse_case *c = plain_case("della", DTYPE_F32, 1, 0, NULL, 1);

    (void)state;
    case_set(c, "density", 0.5);
    case_run(c, 1);
    assert_true(c->out[0] == never_zero(0, 0, 1));
    case_free(c);
    c = plain_case("della", DTYPE_F32, 1, 2, empty, 1);
    case_set(c, "density", 0.5);
    case_set(c, "rescale", 1);
    case_run(c, 1);
    case_free(c);
    c = plain_case("della", DTYPE_F32, 1, 1, row, 1);
    case_set(c, "density", 0);
    case_run(c, 1);
    for (int i = 0; i < 9; i++)
        assert_true(c->out[i] == 0);
    case_free(c);
}

/* ---- the same bytes however they are read */

static void check_pieces(const char *method, unsigned ndim, const uint64_t *shape)
{
    struct sparse_case *c = plain_case(method, DTYPE_BF16, 3, ndim, shape, 77);
    size_t n = (size_t)c->recipe.merge.n;
    float *whole = calloc(n, sizeof(*whole)), *part = calloc(n, sizeof(*part));
    unsigned seed = 3;
    struct bench bench;
    struct err err;

    assert_non_null(whole);
    assert_non_null(part);
    case_set(c, "rescale", 1);
    case_set(c, "density", 0.6);
    case_run(c, 1);
    memcpy(whole, c->out, n * sizeof(*whole));
    bench_init(&bench, kernels_best(), 3);
    bench_prepare(&bench, &c->recipe);
    for (int i = 0; i < 60; i++) {
        size_t first = (size_t)rand_r(&seed) % n, len = (size_t)rand_r(&seed) % (i % 2 ? 50 : 5000);
        len = len > n - first ? n - first : len;
        assert_int_equal(recipe_compute(&c->recipe, first, len, part, bench.scratch, &err), 0);
        if (memcmp(part, whole + first, len * sizeof(*part)) != 0)
            fail_msg("%s: elements %zu to %zu differ from a whole read", method, first, first + len);
    }
    bench_fini(&bench);
    free(whole);
    free(part);
    case_free(c);
}

static void test_pieces(void **state)
{
    const uint64_t wide[2] = {70, 2500}, narrow[2] = {9000, 13}, vector[1] = {150000};

    (void)state;
    check_pieces("dare_ties", 2, wide);
    check_pieces("dare_linear", 1, vector);
    check_pieces("della", 2, wide);
    check_pieces("della", 2, narrow);
    check_pieces("della_linear", 1, vector);
}

/* ---- values that make no sense */

static int check_values(const char *method, double density, const char *other, double value, struct err *err)
{
    const uint64_t n = 4;
    struct sparse_case *c = plain_case(method, DTYPE_F32, 2, 1, &n, 1);
    int ret;

    case_set_donor(c, "density", 1, density);
    if (other)
        case_set(c, other, value);
    ret = c->recipe.merge.method->check(&c->recipe.merge, err);
    case_free(c);
    return ret;
}

static void test_values_that_make_no_sense(void **state)
{
    struct err err = {{0}};

    (void)state;
    assert_int_equal(check_values("dare_ties", -0.1, NULL, 0, &err), -EINVAL);
    assert_string_equal(err.text,
                        "density -0.1: it is the probability with which an element is kept, 0 or more");
    assert_int_equal(check_values("dare_ties", 0, NULL, 0, &err), 0);
    assert_int_equal(check_values("ties", -0.1, NULL, 0, &err), 0);
    assert_int_equal(check_values("della", 0.9, NULL, 0, &err), -EINVAL);
    assert_string_equal(err.text,
                        "density 0.9 with epsilon 0.15: density - epsilon and density + epsilon must "
                        "lie between 0 and 1, or density be 0 or 1");
    assert_int_equal(check_values("della", 0.9, "epsilon", 0.05, &err), 0);
    assert_int_equal(check_values("della", 0.1, "epsilon", -0.1, &err), -EINVAL);
    assert_int_equal(check_values("della", 1, NULL, 0, &err), 0);
    assert_int_equal(check_values("della", 0, NULL, 0, &err), 0);
}

/* Of rows that workers would need too much memory for, the more the more models there are. */
static void check_row_limit(const char *method, unsigned n_donors, uint64_t limit)
{
    const uint64_t one = 1;
    struct sparse_case *c = plain_case(method, DTYPE_BF16, n_donors, 1, &one, 1);
    struct merge *merge = &c->recipe.merge;
    struct err err = {{0}};
    char want[200];

    case_set(c, "density", 0.5);
    merge->n = c->shape[0] = limit;
    assert_int_equal(merge->method->check(merge, &err), 0);
    merge->n = c->shape[0] = limit + 1;
    assert_int_equal(merge->method->check(merge, &err), -EINVAL);
    snprintf(want, sizeof(want),
             "%s of %u models takes rows of up to %zu elements, and these have %zu; leave the tensor to the "
             "base with `modules:`, or use another method",
             method, n_donors + 1, (size_t)limit, (size_t)limit + 1);
    assert_string_equal(err.text, want);
    case_set(c, "density", 1); /* nothing is ranked */
    assert_int_equal(merge->method->check(merge, &err), 0);
    merge->n = 1;
    case_free(c);
}

static void test_row_limit(void **state)
{
    (void)state;
    check_row_limit("della", 1, 5 * (1 << 20) / (1 + 5 + 2 * 3));
    check_row_limit("della_linear", 2, 5 * (1 << 20) / (1 + 5 + 3 * 3));
    check_row_limit("della", 8, 5 * (1 << 20) / (1 + 5 + 9 * 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dare_keeps_a_share),        cmocka_unit_test(test_rescale),
        cmocka_unit_test(test_masks_are_independent),     cmocka_unit_test(test_della_keeps_by_rank),
        cmocka_unit_test(test_della_at_the_edges),        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_values_that_make_no_sense), cmocka_unit_test(test_row_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
