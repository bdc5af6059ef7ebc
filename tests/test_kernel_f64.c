/* The float64 kernels and what is built with them, against libm in long double and plain definitions. Built
 * with REAL_F64; what the float32 build shares is shown by test_kernel.c. */
#include "kernel.h"

#include <math.h>
#include <stdlib.h>

#include "rank.h"
#include "scratch_dir.h"

enum { N = 1000 };

static double next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)*state * 0x1p-63;
}

static uint64_t bits_of(double x)
{
    uint64_t bits;

    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

static void check_same(const char *what, size_t at, double got, double want)
{
    if (bits_of(got) != bits_of(want) && !(isnan(got) && isnan(want)))
        fail_msg("%s: element %zu is %a, not %a", what, at, got, want);
}

static void check_near(const char *what, double got, long double want, double tolerance)
{
    long double error = fabsl((long double)got - want);

    if (!(error <= tolerance * fabsl(want)))
        fail_msg("%s is %.17g, not %.17Lg", what, got, want);
}

static void fill(double *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        x[i] = next_random(&seed);
}

static void test_loads_and_stores(void **state)
{
    /* 1 + 2^-8 and a little: nearest in bfloat16 is 1 + 2^-7, but by way of float32 it is a tie, and even is
     * 1 */
    static const double x[] = {0,        -0.0, 1 + 0x1p-8 + 0x1p-40, -(1 + 0x1p-11 + 0x1p-40), 1e300, -1e-300,
                               INFINITY, 0.1};
    static const double bf16[] = {0, -0.0, 1, -(1 + 0x1p-11), INFINITY, -0.0, INFINITY, 0x1.9ap-4};
    static const double f16[] = {0, -0.0, 1 + 0x1p-8, -1, INFINITY, -0.0, INFINITY, 0x1.998p-4};
    const struct kernels *k = kernels_best();
    unsigned char packed[8 * 8];
    double back[8], plain[8] = {0};

    (void)state;
    for (size_t i = 0; i < 8; i++)
        plain[i] = (float)x[i];
    k->store[DTYPE_F64](x, packed, 8);
    k->load[DTYPE_F64](packed, back, 8);
    for (size_t i = 0; i < 8; i++)
        check_same("F64", i, back[i], x[i]);
    k->store[DTYPE_F32](x, packed, 8);
    k->load[DTYPE_F32](packed, back, 8);
    for (size_t i = 0; i < 8; i++)
        check_same("F32", i, back[i], plain[i]);
    k->store[DTYPE_BF16](x, packed, 8);
    k->load[DTYPE_BF16](packed, back, 8);
    for (size_t i = 0; i < 8; i++)
        check_same("BF16", i, back[i], i == 3 ? -1 : bf16[i]);
    k->store[DTYPE_F16](x, packed, 8);
    k->load[DTYPE_F16](packed, back, 8);
    for (size_t i = 0; i < 8; i++)
        check_same("F16", i, back[i], f16[i]);
}

static void test_keys_order_magnitudes(void **state)
{
    static const double x[] = {0, -5e-324, 1, -(1 + 0x1p-52), 2, -1e308, INFINITY, -NAN};
    const struct kernels *k = kernels_best();
    double y[8];
    uint64_t key[8];

    (void)state;
    k->order_key[ROUND_NONE](x, key, 8);
    for (size_t i = 1; i < 8; i++)
        assert_true(key[i - 1] < key[i]);
    assert_true(key[7] == REAL_NAN);
    memcpy(y, x, sizeof(y));
    k->select(y, x, key[2], key[4], 8); /* 1 and its neighbour */
    for (size_t i = 0; i < 6; i++)
        check_same("selected", i, y[i], i == 2 || i == 3 ? x[i] : x[i] * 0);
    assert_true(isnan(y[6]) && isnan(y[7]));
    k->spread_zeros(key, 48, 40000, 8);
    assert_true(key[0] == 40000 && key[1] == 0 && key[2] == 0x3ff0 && key[7] == 0x7ff0);
}

static void test_steps_are_those_of_double(void **state)
{
    const struct kernels *k = kernels_best();
    double a[N], b[N], c[N], out[N];

    (void)state;
    fill(a, N, 1);
    fill(b, N, 2);
    fill(c, N, 3);
    memcpy(out, c, sizeof(out));
    k->fma(out, a, 0.1, N);
    for (size_t i = 0; i < N; i++)
        check_same("fma", i, out[i], fma(a[i], 0.1, c[i]));
    memcpy(out, c, sizeof(out));
    k->task_add[ROUND_NONE](out, a, b, 0.1, N);
    k->divide[ROUND_NONE](out, 0.3, N);
    k->apply[ROUND_NONE](b, out, out, N);
    for (size_t i = 0; i < N; i++)
        check_same("task", i, out[i], b[i] + (c[i] + 0.1 * (a[i] - b[i])) / 0.3);
    k->nearswap[ROUND_NONE](a, b, 1e-3, out, N);
    for (size_t i = 0; i < N; i++) {
        double w = fmin(1 / fmax(fabs(a[i] - b[i]), 1e-6) * 1e-3, 1);
        check_same("nearswap", i, out[i], w * b[i] + (1 - w) * a[i]);
    }
}

static void test_consensus_is_that_of_its_steps(void **state)
{
    const struct kernels *k = kernels_best();
    double base[N], x[3][N], sum[N] = {0}, moved[N] = {0}, weight[N] = {0}, out[N];
    const double *e[] = {x[0], x[1], x[2]}, w[] = {0.5, -0.2, 0.7};

    (void)state;
    fill(base, N, 9);
    for (unsigned j = 0; j < 3; j++) {
        fill(x[j], N, j + 10);
        k->add(sum, x[j], N);
    }
    for (unsigned j = 0; j < 3; j++) {
        k->agree[ROUND_NONE](moved, x[j], sum, 1, N);
        k->agree_weight(weight, x[j], sum, w[j], N);
    }
    k->divide_by[ROUND_NONE](moved, weight, N);
    k->scale[ROUND_NONE](moved, 0.9, N);
    k->apply[ROUND_NONE](base, moved, moved, N);
    k->consensus[ROUND_NONE][3](base, e, w, true, 0.9, out, N);
    for (size_t i = 0; i < N; i++)
        check_same("consensus", i, out[i], moved[i]);
}

/* As torch does it: vectors of four to four partial sums, what is left first. */
static void test_order_of_sums(void **state)
{
    const double big = 0x1p53;
    const double ten[] = {big, 0, 0, 0, 0, 0, 0, 0, 1, 1}, six[] = {1, big, 0, 0, 1, 1};

    (void)state;
    assert_true(kernel_sum_scalars(six, 3, ROUND_NONE) == big);     /* one each, in order */
    assert_true(kernel_sum_scalars(six, 6, ROUND_NONE) == big + 4); /* 1 + 1, + 1, + big: a tie, to even */
    assert_true(kernel_sum_scalars(ten, 10, ROUND_NONE) == big + 2);
}

static void test_sums(void **state)
{
    const struct kernels *k = kernels_best();
    double a[N], b[N];
    long double squares = 0, dot = 0, size = 0;

    (void)state;
    fill(a, N, 4);
    fill(b, N, 5);
    for (size_t i = 0; i < N; i++) {
        squares += (long double)a[i] * a[i];
        dot += (long double)a[i] * b[i];
        size += fabsl(a[i]);
    }
    check_near("squares", k->squares(a, N), squares, 1e-14);
    check_near("sum_squares", k->sum_squares[ROUND_NONE](a, N), squares, 1e-14);
    check_near("dot", k->dot(a, b, N), dot, 1e-12);
    check_near("sum_abs", k->sum_abs(a, N), size, 1e-14);
}

static void test_variance(void **state)
{
    const struct kernels *k = kernels_best();
    double x[5][N], out[N];
    const double *in[] = {x[0], x[1], x[2], x[3], x[4]};

    (void)state;
    for (unsigned j = 0; j < 5; j++)
        fill(x[j], N, j + 20);
    k->variance[ROUND_NONE](in, 1, 4, out, N);
    for (size_t i = 0; i < N; i++) {
        long double mean = 0, sum = 0;
        for (unsigned j = 0; j < 5; j++)
            mean += j == 1 ? 0 : (long double)(x[j][i] - x[1][i]) / 4;
        for (unsigned j = 0; j < 5; j++)
            sum += j == 1 ? 0 : (x[j][i] - x[1][i] - mean) * (x[j][i] - x[1][i] - mean) / 4;
        check_near("variance", out[i], sum, 1e-13);
    }
}

/* Softmax and the divergence of two rows to nearly all the digits there are. */
static void test_exponentials_and_logarithms(void **state)
{
    const struct kernels *k = kernels_best();
    double x[N], y[N], high[4][N];
    long double sums[2] = {0}, divergence = 0;

    (void)state;
    fill(x, N, 6);
    fill(y, N, 7);
    for (size_t i = 0; i < N; i++) {
        x[i] = 9 * x[i] - 20 * (double)(i % 3);
        y[i] *= 9;
    }
    k->exponentials(x, k->largest(x, N), high[0], high[1], N);
    k->exponentials(y, k->largest(y, N), high[2], high[3], N);
    for (size_t i = 0; i < N; i++) {
        long double e = expl(x[i] - k->largest(x, N));
        check_near("exponential", high[0][i] + high[1][i], e, 5e-16);
        sums[0] += e;
        sums[1] += expl(y[i] - k->largest(y, N));
    }
    check_near("sum", k->sum_pairs(high[0], high[1], N), sums[0], 1e-14);
    for (size_t i = 0; i < N; i++) {
        long double p = expl(x[i] - k->largest(x, N)) / sums[0] + 1e-8;
        long double q = expl(y[i] - k->largest(y, N)) / sums[1] + 1e-8;
        divergence += p * logl(p / q);
    }
    check_near("divergence",
               k->sum_divergence[ROUND_NONE](high[0], high[1], 1 / (double)sums[0], high[2], high[3],
                                             1 / (double)sums[1], N),
               divergence, 1e-13);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Distinct keys of 63 bits, many of which share their upper halves. */
static void test_ranks(void **state)
{
    enum { RANKED = 3000 };
    uint64_t *keys = calloc(2 * RANKED, sizeof(*keys)), *sorted = keys + RANKED, seed = 77;
    uint32_t *rank = calloc(3 * RANKED, sizeof(*rank)), *order[] = {rank + RANKED, rank + 2 * RANKED};

    (void)state;
    assert_true(keys && rank);
    for (uint64_t i = 0; i < RANKED; i++) {
        next_random(&seed);
        keys[i] = sorted[i] = (seed >> 62) << 60 | (seed >> 30 & 0xffff) << 16 | i << 40;
    }
    qsort(sorted, RANKED, sizeof(*sorted), by_value);
    rank_row(kernels_best(), keys, RANKED, REAL_MAGNITUDE, order, rank);
    for (size_t i = 0; i < RANKED; i++)
        assert_true(sorted[rank[i]] == keys[i]);
    keys[0] = keys[20]; /* of equals the first comes first */
    rank_row(kernels_best(), keys, 40, REAL_MAGNITUDE, order, rank);
    assert_true(rank[20] == rank[0] + 1);
    free(keys);
    free(rank);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loads_and_stores),
        cmocka_unit_test(test_keys_order_magnitudes),
        cmocka_unit_test(test_steps_are_those_of_double),
        cmocka_unit_test(test_consensus_is_that_of_its_steps),
        cmocka_unit_test(test_order_of_sums),
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_variance),
        cmocka_unit_test(test_exponentials_and_logarithms),
        cmocka_unit_test(test_ranks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
