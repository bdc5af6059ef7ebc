/* Norms, dots, exponentials and logarithms: what they add up to, that every instruction set gives the same
 * bytes for any length, and what becomes of NaN and infinities. */
#include "kernel.h"

#include <math.h>

#include "scratch_dir.h"

enum { N = 1111, SHORT = 70 };

static const struct kernels *const *sets;
static size_t n_sets;
static float a[N], b[N];

static int fill(void **state)
{
    uint32_t seed = 3;

    (void)state;
    sets = kernels_available(&n_sets);
    for (int i = 0; i < N; i++) {
        a[i] = (float)(int32_t)(seed = seed * 1664525 + 1013904223) * 0x1p-33f;
        b[i] = (float)(int32_t)(seed = seed * 1664525 + 1013904223) * 0x1p-33f;
    }
    kernels_best()->cast[ROUND_BF16](a, N);
    kernels_best()->cast[ROUND_BF16](b, N);
    return 0;
}

static float r(enum round round, float x)
{
    kernels_best()->cast[round](&x, 1);
    return x;
}

static void assert_close(double got, double want, double error, const char *what)
{
    if (!(fabs(got - want) <= error * fabs(want)))
        fail_msg("%s: %.17g instead of %.17g", what, got, want);
}

/* Each reduction by each set, of n elements, beside the plain loop. */
static void check_sums(enum round round, size_t n)
{
    double want[4] = {0}, first[4];

    for (size_t i = 0; i < n; i++) {
        want[0] += (double)a[i] * (double)a[i];
        want[1] += fabs((double)a[i] * (double)b[i]); /* of signed terms there may be little left */
        want[2] += (double)r(round, fabsf(a[i]) * fabsf(b[i]));
        want[3] += (double)r(round, r(round, a[i] / 0.7f) * r(round, a[i] / 0.3f));
    }
    for (size_t s = 0; s < n_sets; s++) {
        float positive[2][N];
        for (size_t i = 0; i < n; i++) {
            positive[0][i] = fabsf(a[i]);
            positive[1][i] = fabsf(b[i]);
        }
        double got[4] = {sets[s]->squares(a, n), sets[s]->dot(positive[0], positive[1], n),
                         sets[s]->dot_rounded[round](positive[0], positive[1], n),
                         sets[s]->dot_units[round](a, 0.7f, a, 0.3f, n)};
        for (int k = 0; k < 4; k++)
            assert_close(got[k], want[k], 1e-14, sets[s]->isa);
        if (s == 0)
            memcpy(first, got, sizeof(first));
        assert_memory_equal(first, got, sizeof(first));
    }
}

static void test_sums(void **state)
{
    (void)state;
    for (int round = 0; round < ROUND_COUNT; round++) {
        for (size_t n = 0; n < SHORT; n++)
            check_sums((enum round)round, n);
        check_sums((enum round)round, N);
    }
}

/* sum of c x, in order, in double */
static void test_combine(void **state)
{
    static const double c[3] = {0.3, -1.7, 1e-3};
    const float *const x[3] = {a, b, a};
    float out[N];

    (void)state;
    for (size_t s = 0; s < n_sets; s++) {
        for (unsigned k = 1; k <= 3; k++) {
            for (size_t n = 0; n < SHORT; n++) {
                sets[s]->combine[ROUND_BF16](x, c, k, out, 0, n);
                for (size_t i = 0; i < n; i++) {
                    double want = c[0] * (double)a[i];
                    want = k > 1 ? want + c[1] * (double)b[i] : want;
                    want = k > 2 ? want + c[2] * (double)a[i] : want;
                    assert_float_equal(out[i], r(ROUND_BF16, (float)want), 0);
                }
            }
        }
    }
}

/* Of one exponential: high + low, by every set; x <= largest. */
static double exponential(float x, float largest)
{
    float high, low, other[2];

    sets[0]->exponentials(&x, largest, &high, &low, 1);
    for (size_t s = 1; s < n_sets; s++) {
        sets[s]->exponentials(&x, largest, &other[0], &other[1], 1);
        assert_memory_equal(&other[0], &high, sizeof(high));
        assert_memory_equal(&other[1], &low, sizeof(low));
    }
    return (double)high + (double)low;
}

static void test_exponentials(void **state)
{
    (void)state;
    for (float x = -80; x <= 0; x += 0.0137f)
        assert_close(exponential(x, 0), exp((double)x), 3e-10, "exp");
    for (float x = -0.001f; x <= 0; x += 1e-7f)
        assert_close(exponential(x, 0), exp((double)x), 3e-10, "exp");
    assert_true(exponential(3, 3) == 1);
    assert_close(exponential(-65504, 65504), 0, 0, "far below");
    assert_close(exponential(-INFINITY, 1), 0, 0, "minus infinity");
    assert_true(isnan(exponential(NAN, 1)));
    assert_true(isnan(exponential(INFINITY, INFINITY)));
    assert_true(isnan(exponential(1, NAN)));
}

/* ln(p/q) for p = (1 + 1e-8) and q, by every set: p ln(p/q) of one element. */
static double logarithm(float q)
{
    const float one = 1, zero = 0;
    double term = sets[0]->sum_divergence[ROUND_NONE](&one, &zero, 1, &q, &zero, 1, 1);

    for (size_t s = 1; s < n_sets; s++) {
        double other = sets[s]->sum_divergence[ROUND_NONE](&one, &zero, 1, &q, &zero, 1, 1);
        assert_memory_equal(&other, &term, sizeof(term));
    }
    return term;
}

static void test_logarithms(void **state)
{
    (void)state;
    for (float q = 1e-8f; q < 1; q *= 1.0371f) {
        float ratio = (1 + 1e-8f) / (q + 1e-8f);
        assert_close(logarithm(q), log((double)ratio), 0x1p-24 * 1.001, "ln"); /* rounded to float32 */
    }
    for (int i = 1; i < 1000; i++) { /* near 1, where little is left */
        float q = 1 - (float)i * 0x1p-23f;
        assert_close(logarithm(q), log((double)((1 + 1e-8f) / (q + 1e-8f))), 0x1p-24 * 1.001, "ln");
    }
    assert_true(logarithm(1) == 0);
    assert_true(isnan(logarithm(NAN)));
    assert_true(logarithm(-1e-8f) == INFINITY);    /* q + 1e-8 = 0 */
    assert_true(logarithm(INFINITY) == -INFINITY); /* p/q = 0 */
}

static void test_largest(void **state)
{
    float x[SHORT];

    (void)state;
    for (size_t s = 0; s < n_sets; s++) {
        for (size_t n = 1; n < SHORT; n++) {
            for (size_t at = 0; at < n; at++) {
                memset(x, 0, sizeof(x));
                x[at] = 2;
                x[(at + 1) % n] = n > 1 ? -3 : 2;
                assert_float_equal(sets[s]->largest(x, n), 2, 0);
            }
        }
    }
}

/* Elementwise ones, in place and by all sets, for lengths around a vector's. */
static void check_each(enum round round, size_t n)
{
    enum { KINDS = 10 };
    static float first[KINDS][N], out[KINDS][N];
    static const float *const two[] = {a, b};
    static const float w[] = {0.3f, -0.7f}, dots[] = {0.4f, -0.2f};

    for (size_t s = 0; s < n_sets; s++) {
        const struct kernels *k = sets[s];
        for (int i = 0; i < KINDS; i++)
            memcpy(out[i], b, n * sizeof(float));
        k->quotient[round](a, 0.3f, out[0], n);
        k->mean[round][2](two, w, out[1], n);
        k->scaled_add[round](out[2], a, 0.3f, n);
        k->tangent_add[round](out[3], a, b, 0.3f, -0.7f, n);
        k->add_rounded[round](out[4], a, n);
        k->mix[round](a, 0.3f, b, -0.7f, out[5], n);
        k->blend[round](a, 0.3f, b, -0.7f, out[6], n);
        k->importance[round](a, b, 0.3f, out[7], n);
        k->fuse[round](a, b, a, 0.1f, out[8], n);
        k->tangent[round][2](two, b, dots, w, out[9], n);
        for (size_t i = 0; i < n; i++) {
            assert_float_equal(out[0][i], r(round, a[i] / 0.3f), 0);
            assert_float_equal(out[1][i], r(round, 0 + r(round, a[i] * 0.3f) + r(round, b[i] * -0.7f)), 0);
            assert_float_equal(out[2][i], b[i] + r(round, a[i] * 0.3f), 0);
            assert_float_equal(out[3][i], b[i] + r(round, r(round, a[i] - r(round, 0.3f * b[i])) * -0.7f), 0);
            assert_float_equal(out[4][i], r(round, b[i] + a[i]), 0);
            assert_float_equal(out[5][i], r(round, 0.3f * a[i] + -0.7f * b[i]), 0);
            assert_float_equal(out[6][i], r(round, r(round, 0.3f * a[i]) + r(round, -0.7f * b[i])), 0);
            assert_float_equal(out[7][i], r(round, fabsf(r(round, a[i] - b[i])) * 0.3f), 0);
            assert_float_equal(out[9][i],
                               r(round, 0 + r(round, r(round, a[i] - r(round, 0.4f * b[i])) * 0.3f) +
                                            r(round, r(round, b[i] - r(round, -0.2f * b[i])) * -0.7f)),
                               0);
            assert_float_equal(out[8][i], a[i] >= 0.1f ? b[i] + r(round, a[i] - b[i]) : b[i], 0);
        }
        if (s == 0)
            memcpy(first, out, sizeof(first));
        for (int i = 0; i < KINDS; i++)
            assert_memory_equal(first[i], out[i], n * sizeof(float));
    }
}

static void test_each(void **state)
{
    (void)state;
    for (int round = 0; round < ROUND_COUNT; round++) {
        for (size_t n = 0; n < SHORT; n++)
            check_each((enum round)round, n);
        check_each((enum round)round, N);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),         cmocka_unit_test(test_combine),
        cmocka_unit_test(test_exponentials), cmocka_unit_test(test_logarithms),
        cmocka_unit_test(test_largest),      cmocka_unit_test(test_each),
    };

    return cmocka_run_group_tests(tests, fill, NULL);
}
