/* Kernels of packed vectors against the steps that they join, by every instruction set: the same bytes, sums
 * included. */
#include "kernel.h"

#include <math.h>

#include "scratch_dir.h"

enum { N = 1111, ODD = 37, PAIRS = TASK_FUSED * (TASK_FUSED + 1) / 2 };

/* Vectors of BF16 near each other, the base behind them. */
struct packs {
    const struct kernels *k;
    size_t n;
    unsigned char bytes[TASK_FUSED + 1][2 * N + 1], result[2 * N + 1];
    const void *in[TASK_FUSED + 1];
    const void *base; /* NULL: vectors are the inputs */
    float x[TASK_FUSED + 1][N];
    const float *v[TASK_FUSED]; /* the vectors */
    float delta[TASK_FUSED][N], out[N], want[N];
};

static float next(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return (float)(int32_t)*seed * 0x1p-33f;
}

/* Some zeros, and numbers that are too small to be normal. */
static void fill(float x[TASK_FUSED + 1][N])
{
    uint32_t seed = 7;

    for (size_t i = 0; i < N; i++) {
        float common = next(&seed);
        for (unsigned j = 0; j <= TASK_FUSED; j++) {
            x[j][i] = common + 0.1f * next(&seed);
            if (seed >> 27 == 3)
                x[j][i] = seed & 1 << 20 ? -0.0f : ldexpf(next(&seed), -128);
        }
    }
}

static struct packs *packs_new(const struct kernels *k, size_t n, size_t shift, bool with_base)
{
    struct packs *p = malloc(sizeof(*p));

    assert_non_null(p);
    p->k = k;
    p->n = n;
    fill(p->x);
    for (unsigned j = 0; j <= TASK_FUSED; j++) {
        k->cast[ROUND_BF16](p->x[j], N);
        k->pack[DTYPE_BF16](p->x[j], p->bytes[j] + shift, n);
        p->in[j] = p->bytes[j] + shift;
    }
    for (unsigned j = 0; j < TASK_FUSED; j++) {
        k->delta[ROUND_BF16](p->x[j], p->x[TASK_FUSED], p->delta[j], n);
        p->v[j] = with_base ? p->delta[j] : p->x[j];
    }
    p->base = with_base ? p->in[TASK_FUSED] : NULL;
    return p;
}

static void check_sums(const struct packs *p, const char *what, const double *got, const double *want,
                       unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof(got[i])) != 0)
            fail_msg("%s by %s, %zu elements: sum %u is %.17g instead of %.17g", what, p->k->isa, p->n, i,
                     got[i], want[i]);
}

static void check_result(struct packs *p, const char *what, size_t shift)
{
    p->k->load[DTYPE_BF16](p->result + shift, p->out, p->n);
    for (size_t i = 0; i < p->n; i++)
        if (memcmp(&p->out[i], &p->want[i], sizeof(p->out[i])) != 0)
            fail_msg("%s by %s, %zu elements: element %zu is %a instead of %a", what, p->k->isa, p->n, i,
                     (double)p->out[i], (double)p->want[i]);
}

static void check_gram(struct packs *p, unsigned k, bool rounded)
{
    double got[PAIRS], want[PAIRS];
    unsigned pair = 0;

    for (unsigned i = 0; i < k; i++) {
        for (unsigned j = i; j < k; j++, pair++) {
            got[pair] = want[pair] = 0.25 * pair; /* to be added to */
            want[pair] += i == j    ? p->k->squares(p->v[i], p->n)
                          : rounded ? p->k->dot_rounded[ROUND_BF16](p->v[i], p->v[j], p->n)
                                    : p->k->dot(p->v[i], p->v[j], p->n);
        }
    }
    (rounded ? p->k->gram_rounded_bf16 : p->k->gram_bf16)[k](p->in, p->base, p->n, got);
    check_sums(p, rounded ? "rounded Gram matrix" : "Gram matrix", got, want, pair);
}

static const float w[TASK_FUSED] = {0.333984375f, 0.25f, 0.1005859375f, 0.296875f},
                   divisors[TASK_FUSED] = {7.03125f, 8.0f, 0.65625f, 31.75f},
                   dots[TASK_FUSED] = {0.99609375f, 0.875f, 1.0f, 0.90234375f};
static const float n_mean = 1.0078125f, norm = 6.71875f;

static struct sphere sphere_of(void)
{
    struct sphere sphere = {.inverse_mean = 1 / n_mean, .norm = norm};

    for (unsigned j = 0; j < TASK_FUSED; j++) {
        sphere.w[j] = w[j];
        sphere.inverse[j] = 1 / divisors[j];
        sphere.dots[j] = dots[j];
    }
    return sphere;
}

static void check_sphere(struct packs *p, unsigned k, size_t shift)
{
    static float unit[TASK_FUSED][N], mean[N], tangent[N];
    const float *const units[TASK_FUSED] = {unit[0], unit[1], unit[2], unit[3]};
    const struct sphere sphere = sphere_of();
    double got[TASK_FUSED + 1] = {0}, want[TASK_FUSED + 1];

    for (unsigned j = 0; j < k; j++)
        p->k->quotient[ROUND_BF16](p->v[j], divisors[j], unit[j], p->n);
    p->k->mean[ROUND_BF16][k](units, w, mean, p->n);
    want[0] = p->k->squares(mean, p->n);
    p->k->divide[ROUND_BF16](mean, n_mean, p->n);
    for (unsigned j = 0; j < k; j++)
        want[1 + j] = p->k->dot_rounded[ROUND_BF16](unit[j], mean, p->n);
    p->k->sphere_sums_bf16[k](p->in, p->base, &sphere, p->n, got);
    check_sums(p, "sums of the sphere", got, want, k + 1);
    p->k->tangent[ROUND_BF16][k](units, mean, dots, w, tangent, p->n);
    p->k->blend[ROUND_BF16](mean, 1, tangent, 1, p->want, p->n);
    p->k->scale[ROUND_BF16](p->want, norm, p->n);
    if (p->base)
        p->k->apply[ROUND_BF16](p->x[TASK_FUSED], p->want, p->want, p->n);
    p->k->sphere_bf16[k](p->in, p->base, &sphere, p->result + shift, p->n);
    check_result(p, "sphere", shift);
}

static void check_stock(struct packs *p, unsigned k, size_t shift)
{
    const float t = 0.3046875f, rest = 0.6953125f;

    memset(p->want, 0, sizeof(p->want));
    for (unsigned j = 0; j < k; j++)
        p->k->add_rounded[ROUND_BF16](p->want, p->x[j], p->n);
    p->k->divide[ROUND_BF16](p->want, (float)k, p->n);
    p->k->blend[ROUND_BF16](p->want, t, p->x[TASK_FUSED], rest, p->want, p->n);
    p->k->stock_bf16[k](p->in, p->in[TASK_FUSED], t, rest, p->result + shift, p->n);
    check_result(p, "model_stock", shift);
}

static void check_combine(struct packs *p, unsigned k, size_t shift)
{
    static const double c[TASK_FUSED] = {0.3, 0.41, -0.07, 1.9};
    const float *const x[TASK_FUSED] = {p->x[0], p->x[1], p->x[2], p->x[3]};

    p->k->combine[ROUND_BF16](x, c, k, p->want, 0, p->n);
    p->k->combine_bf16[k](p->in, c, p->result + shift, p->n);
    check_result(p, "combination", shift);
}

static void check_vectors(const struct kernels *k, size_t n, size_t shift, bool with_base)
{
    struct packs *p = packs_new(k, n, shift, with_base);

    for (unsigned n_vectors = 2; n_vectors <= TASK_FUSED; n_vectors++) {
        check_gram(p, n_vectors, false);
        check_gram(p, n_vectors, true);
        check_sphere(p, n_vectors, shift);
        check_stock(p, n_vectors, shift);
        check_combine(p, n_vectors, shift);
    }
    free(p);
}

static void test_vectors(void **state)
{
    size_t n_sets;
    const struct kernels *const *sets = kernels_available(&n_sets);

    (void)state;
    for (size_t s = 0; s < n_sets; s++) {
        for (int with_base = 0; with_base < 2; with_base++) {
            for (size_t n = 0; n < ODD; n++)
                check_vectors(sets[s], n, n % 2, with_base);
            check_vectors(sets[s], N, 1, with_base);
        }
    }
}

/* A quotient of two BF16 lies so far from where its rounding turns that a product with 1 / divisor rounds to
 * the same: all numbers, by all divisors of one sign of some powers. */
static void test_inverse(void **state)
{
    enum { ALL = 1 << 16 };
    static float x[ALL], quotient[ALL], product[ALL];
    static const int powers[] = {-100, -99, -50, -1, 0, 1, 7, 60, 99};
    const struct kernels *k = kernels_best();

    (void)state;
    for (uint32_t i = 0; i < ALL; i++)
        k->load[DTYPE_BF16](&(uint16_t){(uint16_t)i}, &x[i], 1);
    for (size_t power = 0; power < sizeof(powers) / sizeof(powers[0]); power++) {
        for (int digits = 128; digits < 256; digits++) {
            float divisor = ldexpf((float)digits, powers[power] - 7);
            k->quotient[ROUND_BF16](x, divisor, quotient, ALL);
            memcpy(product, x, sizeof(x));
            k->scale[ROUND_BF16](product, 1 / divisor, ALL);
            for (size_t i = 0; i < ALL; i++)
                if (memcmp(&quotient[i], &product[i], sizeof(quotient[i])) != 0 && !isnan(quotient[i]))
                    fail_msg("%a / %a is %a, times its inverse %a", (double)x[i], (double)divisor,
                             (double)quotient[i], (double)product[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vectors), cmocka_unit_test(test_inverse)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
