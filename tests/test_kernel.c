/* Every instruction set against the baseline, the baseline against scalar references in double. With the
 * argument "all": roundings of every float32, which takes minutes. */
#include "kernel.h"

#include <math.h>
#include <stdbool.h>

#include "memory_feed.h"
#include "scratch_dir.h"

enum { N = 4096 + 37, SPECIALS = 20 };

static bool all_floats;

static const struct {
    enum dtype dtype;
    enum round round;
    int digits, min_exp; /* of the significand; of the smallest normal number, as frexp counts */
    double max;          /* largest finite value */
} types[] = {
    {DTYPE_F32, ROUND_NONE, 24, -125, 0x1.fffffep127},
    {DTYPE_BF16, ROUND_BF16, 8, -125, 0x1.fep127},
    {DTYPE_F16, ROUND_F16, 11, -13, 65504},
};
enum { TYPES = sizeof(types) / sizeof(types[0]) };

/* The nearest value of the type, from its definition: x in units of the last place, rounded half to even. */
static double nearest(double x, size_t type)
{
    int exp, unit;
    double y;

    if (!isfinite(x) || x == 0)
        return x;
    frexp(x, &exp);
    unit = (exp > types[type].min_exp ? exp : types[type].min_exp) - types[type].digits;
    y = ldexp(nearbyint(ldexp(x, -unit)), unit);
    return fabs(y) > types[type].max ? copysign(INFINITY, x) : y;
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state ^ *state >> 15;
}

static float float_from(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof(x));
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

static bool same(float a, float b)
{
    return (isnan(a) && isnan(b)) || bits_of(a) == bits_of(b);
}

static void check_same(const char *what, const char *isa, size_t type, size_t at, float got, double want)
{
    if (!same(got, (float)want))
        fail_msg("%s %s in %s, element %zu: %a instead of %a", isa, what, dtype_name(types[type].dtype), at,
                 (double)got, want);
}

static const float specials[SPECIALS] = {0.0f,      -0.0f,        1.0f,      -1.0f,      0x1p-126f,
                                         0x1p-149f, -0x1.8p-140f, 65504.0f,  -65519.9f,  65520.0f,
                                         0x1p-14f,  0x1p-24f,     -0x1p-25f, 0x1p-26f,   3e38f,
                                         -3.4e38f,  0x1.01p0f,    0x1.03p0f, 0x1.002p0f, 1e-6f};

/* Numbers of all magnitudes, ones near each other (seed even), zeros, subnormals, infinities and NaN, all of
 * the type. */
static void fill(float *x, size_t type, uint32_t seed)
{
    uint32_t state = seed * 977 + 1;

    for (size_t i = 0; i < N; i++) {
        float value = float_from(next_random(&state));
        if (seed % 2 == 0 && i % 4 != 0)
            value = ldexpf((float)(int32_t)next_random(&state), -33);
        if (i % 11 == seed % 11)
            value = specials[(i / 11 + seed) % SPECIALS];
        if (i % 97 == seed % 97)
            value = i % 2 ? INFINITY : -INFINITY;
        if (i % 101 == seed % 101 || isnan(value))
            value = NAN;
        x[i] = (float)nearest((double)value, type);
    }
}

struct arrays {
    float a[N], b[N], acc[N], out[N];
};

static struct arrays *arrays_new(size_t type, uint32_t seed)
{
    struct arrays *m = malloc(sizeof(*m));

    assert_non_null(m);
    fill(m->a, type, seed);
    fill(m->b, type, seed + 2);
    fill(m->acc, 0, seed + 4);
    return m;
}

/* What the headers say, one element. r: nearest of the type; each float32 operation is exact in double and
 * rounded once, which double is wide enough for. */
static float op(double x)
{
    return (float)x;
}

static double want_task_add(double acc, double x, double base, double w, size_t type)
{
    double delta = nearest((double)op(x - base), type);

    return (double)op(acc + nearest((double)op(w * delta), type));
}

static double want_apply(double base, double acc, size_t type)
{
    return nearest((double)op(base + nearest(acc, type)), type);
}

static double want_nearswap(double a, double b, double t, size_t type)
{
    double d = fabs(nearest((double)op(a - b), type)), least = nearest((double)1e-6f, type);
    double inverse, w;

    if (d < least)
        d = least;
    inverse = nearest((double)op(1 / d), type);
    w = nearest((double)op(inverse * t), type);
    if (types[type].dtype == DTYPE_F16 && isinf(inverse))
        w = nearest((double)op(t / d), type);
    if (w < 0)
        w = 0;
    if (w > 1)
        w = 1;
    w = (double)op(w);
    double donor = nearest((double)op(w * b), type), rest = nearest((double)op(1 - w), type);
    return nearest((double)op(donor + nearest((double)op(rest * a), type)), type);
}

static const float factors[] = {0.75f, -0.3f, 1.0f, 0.0f, 1e30f};

static void check_steps(const struct kernels *k, size_t type, uint32_t seed, float factor, size_t n)
{
    struct arrays *m = arrays_new(type, seed);
    enum round round = types[type].round;
    float w = (float)nearest((double)factor, type), out[4];

    memcpy(m->out, m->acc, sizeof(m->out));
    k->task_add[round](m->out, m->a, m->b, w, n);
    for (size_t i = 0; i < n; i++)
        check_same("task_add", k->isa, type, i, m->out[i],
                   want_task_add((double)m->acc[i], (double)m->a[i], (double)m->b[i], (double)w, type));
    memcpy(m->out, m->a, sizeof(m->out));
    k->divide[round](m->out, w, n);
    for (size_t i = 0; i < n; i++)
        check_same("divide", k->isa, type, i, m->out[i],
                   nearest((double)op((double)m->a[i] / (double)w), type));
    memcpy(m->out, m->a, sizeof(m->out));
    k->scale[round](m->out, factor, n);
    for (size_t i = 0; i < n; i++)
        check_same("scale", k->isa, type, i, m->out[i],
                   nearest((double)op((double)m->a[i] * (double)factor), type));
    k->apply[round](m->a, m->b, m->out, n);
    for (size_t i = 0; i < n; i++)
        check_same("apply", k->isa, type, i, m->out[i], want_apply((double)m->a[i], (double)m->b[i], type));
    k->nearswap[round](m->a, m->b, factor, m->out, n);
    for (size_t i = 0; i < n; i++)
        check_same("nearswap", k->isa, type, i, m->out[i],
                   want_nearswap((double)m->a[i], (double)m->b[i], (double)factor, type));
    memcpy(out, m->b, sizeof(out)); /* the output may be an input */
    k->nearswap[round](m->a, out, factor, out, 4);
    for (size_t i = 0; i < 4 && i < n; i++)
        check_same("nearswap in place", k->isa, type, i, out[i], (double)m->out[i]);
    free(m);
}

static void test_steps(void **state)
{
    static const size_t lengths[] = {N, 1, 3, 15, 16, 17, 33};
    size_t n_sets;
    const struct kernels *const *sets = kernels_available(&n_sets);

    (void)state;
    for (size_t s = 0; s < n_sets; s++)
        for (size_t type = 0; type < TYPES; type++)
            for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
                for (size_t f = 0; f < sizeof(factors) / sizeof(factors[0]); f++)
                    check_steps(sets[s], type, (uint32_t)(i + f), factors[f], lengths[i]);
}

/* fmaf of the C library is the reference. Near cancellations and in subnormals, too. */
static void test_fma_and_add(void **state)
{
    size_t n_sets;
    const struct kernels *const *sets = kernels_available(&n_sets);

    (void)state;
    for (size_t s = 0; s < n_sets; s++)
        for (uint32_t seed = 0; seed < 12; seed++) {
            struct arrays *m = arrays_new(0, seed);
            float w = seed % 3 == 0 ? 0x1.555556p-1f : m->b[seed];
            for (size_t i = 0; i < N; i += 3)
                m->acc[i] = -m->a[i] * w * (i % 2 ? 1.0f : 0x1.000002p0f);
            memcpy(m->out, m->acc, sizeof(m->out));
            sets[s]->fma(m->out, m->a, w, N);
            for (size_t i = 0; i < N; i++)
                check_same("fma", sets[s]->isa, 0, i, m->out[i], (double)fmaf(m->a[i], w, m->acc[i]));
            memcpy(m->out, m->acc, sizeof(m->out));
            sets[s]->add(m->out, m->a, N);
            for (size_t i = 0; i < N; i++)
                check_same("add", sets[s]->isa, 0, i, m->out[i], (double)m->acc[i] + (double)m->a[i]);
            free(m);
        }
}

/* The fused kernel is task_add, task_add, ..., apply. */
static void check_fused(const struct kernels *k, unsigned n_donors, size_t n, size_t shift)
{
    static const float w[TASK_FUSED] = {0.75f, -0.3984375f, 1.0f, 0.0f};
    static unsigned char packed[TASK_FUSED + 1][2 * N + 1], out[2 * N + 1];
    const void *donors[TASK_FUSED];
    struct arrays *m = arrays_new(1, 3);

    fill(m->b, 1, 5);
    memset(m->acc, 0, sizeof(m->acc));
    k->pack[DTYPE_BF16](m->b, packed[TASK_FUSED] + shift, n);
    for (unsigned i = 0; i < n_donors; i++) {
        fill(m->a, 1, 6 + i);
        k->pack[DTYPE_BF16](m->a, packed[i] + shift, n);
        donors[i] = packed[i] + shift;
        k->task_add[ROUND_BF16](m->acc, m->a, m->b, w[i], n);
    }
    k->apply[ROUND_BF16](m->b, m->acc, m->acc, n);
    k->task_bf16[n_donors](packed[TASK_FUSED] + shift, donors, w, out + shift, n);
    k->load[DTYPE_BF16](out + shift, m->out, n);
    for (size_t i = 0; i < n; i++)
        check_same("fused", k->isa, 1, i, m->out[i], (double)m->acc[i]);
    free(m);
}

static void test_fused(void **state)
{
    size_t n_sets;
    const struct kernels *const *sets = kernels_available(&n_sets);

    (void)state;
    for (size_t s = 0; s < n_sets; s++)
        for (unsigned n_donors = 1; n_donors <= TASK_FUSED; n_donors++) {
            check_fused(sets[s], n_donors, N, 0);
            check_fused(sets[s], n_donors, 5, 1);
            check_fused(sets[s], n_donors, 67, 1);
        }
}

enum { PATTERNS = 65536 };

/* Every pattern of BF16 as the base, and others as the donors; seed even: such as are a few last places away.
 */
static void fill_patterns(uint16_t *base, uint16_t (*x)[PATTERNS], uint32_t seed)
{
    uint32_t state = seed;

    for (size_t i = 0; i < PATTERNS; i++) {
        base[i] = (uint16_t)(i * (2 * seed + 1));
        for (size_t j = 0; j < TASK_FUSED; j++) {
            uint32_t word = next_random(&state) >> 8;
            x[j][i] = (uint16_t)(seed % 2 ? word : base[i] + word % 9 - 4);
        }
    }
}

static void check_patterns(const struct kernels *k, const struct kernels *reference, unsigned n_donors,
                           const float *w, uint32_t seed)
{
    static uint16_t base[PATTERNS], x[TASK_FUSED][PATTERNS], out[PATTERNS], want[PATTERNS];
    const void *const in[TASK_FUSED] = {x[0], x[1], x[2], x[3]};
    size_t at;

    fill_patterns(base, x, seed);
    reference->task_bf16[n_donors](base, in, w, want, PATTERNS);
    k->task_bf16[n_donors](base, in, w, out, PATTERNS);
    if (float_bytes_differ(DTYPE_BF16, (const void *)out, (const void *)want, PATTERNS, &at))
        fail_msg("%s: %u donors of weights %a, ..., base 0x%04x: 0x%04x, not 0x%04x", k->isa, n_donors,
                 (double)w[0], base[at], out[at], want[at]);
}

static void test_patterns(void **state)
{
    static const float w[][TASK_FUSED] = {{0.75f, -0.3984375f, 1, 0},  {0x1p-15f, -0x1p-15f, 0x1p-14f, 1},
                                          {0x1p-16f, 0.3f, -1, -0.0f}, {0x1p-130f, 0x1p-149f, 1, 1},
                                          {0x1p127f, -0x1p100f, 3, 1}, {INFINITY, 1, NAN, 2}};
    size_t n_sets;
    const struct kernels *const *sets = kernels_available(&n_sets);

    (void)state;
    for (size_t s = 0; s + 1 < n_sets; s++)
        for (uint32_t i = 0; i < 4 * sizeof(w) / sizeof(w[0]); i++)
            check_patterns(sets[s], sets[n_sets - 1], 1 + i % TASK_FUSED, w[i / 4], i);
}

/* ---- kernels of packed BF16 against the steps that they join */

struct packs {
    unsigned char bytes[TASK_FUSED + 1][2 * N + 1]; /* the last: the base */
    float x[TASK_FUSED + 1][N];
    const void *in[TASK_FUSED + 1];
    float out[N], want[N];
    unsigned char result[2 * N + 1];
};

static struct packs *packs_new(const struct kernels *k, size_t n, size_t shift)
{
    struct packs *p = malloc(sizeof(*p));

    assert_non_null(p);
    for (unsigned i = 0; i <= TASK_FUSED; i++) {
        fill(p->x[i], 1, 5 + i);
        k->pack[DTYPE_BF16](p->x[i], p->bytes[i] + shift, n);
        p->in[i] = p->bytes[i] + shift;
    }
    return p;
}

/* What a kernel left in `result`, or in `out`, against `want`. */
static void check_packed(const char *what, const struct kernels *k, struct packs *p, const void *result,
                         size_t n)
{
    if (result)
        k->load[DTYPE_BF16](result, p->out, n);
    for (size_t i = 0; i < n; i++)
        check_same(what, k->isa, 1, i, p->out[i], (double)p->want[i]);
}

static void check_linear(const struct kernels *k, unsigned n_inputs, bool divides, size_t n, size_t shift)
{
    static const float w[TASK_FUSED] = {0.75f, -0.3f, 1.0f, 0.0f}, divisor = 0.7f;
    struct packs *p = packs_new(k, n, shift);

    memset(p->want, 0, sizeof(p->want));
    for (unsigned i = 0; i < n_inputs; i++)
        k->fma(p->want, p->x[i], w[i], n);
    if (divides)
        k->divide[ROUND_NONE](p->want, divisor, n);
    k->cast[ROUND_BF16](p->want, n);
    k->linear_bf16[n_inputs](p->in, w, divides ? &divisor : NULL, p->result + shift, n);
    check_packed("linear of packed", k, p, p->result + shift, n);
    free(p);
}

static void check_consensus(const struct kernels *k, unsigned n_donors, bool normalize, float lambda,
                            size_t n, size_t shift)
{
    static const float w[TASK_FUSED] = {0.75f, -0.3984375f, 1.0f, 0.5f};
    struct packs *p = packs_new(k, n, shift);
    const float *const x[TASK_FUSED] = {p->x[0], p->x[1], p->x[2], p->x[3]};

    k->consensus[ROUND_BF16][n_donors](p->x[TASK_FUSED], x, w, normalize, lambda, p->want, n);
    k->consensus_bf16[n_donors](p->in[TASK_FUSED], p->in, w, normalize, lambda, p->result + shift, n);
    check_packed("consensus of packed", k, p, p->result + shift, n);
    free(p);
}

static void check_sum(const struct kernels *k, unsigned n_donors, float divisor, float lambda, size_t n,
                      size_t shift)
{
    struct packs *p = packs_new(k, n, shift);
    const float *const x[TASK_FUSED] = {p->x[0], p->x[1], p->x[2], p->x[3]};

    memset(p->want, 0, sizeof(p->want));
    for (unsigned i = 0; i < n_donors; i++)
        k->add(p->want, x[i], n);
    k->settle[ROUND_BF16](p->want, n);
    k->divide[ROUND_BF16](p->want, divisor, n);
    k->scale[ROUND_BF16](p->want, lambda, n);
    k->apply[ROUND_BF16](p->x[TASK_FUSED], p->want, p->want, n);
    k->sum_bf16[n_donors](p->in[TASK_FUSED], p->in, divisor, lambda, p->result + shift, n);
    check_packed("sum of packed", k, p, p->result + shift, n);
    free(p);
}

/* Delta, keep, scale and scale; scale alone. */
static void check_kept(const struct kernels *k, size_t n, size_t shift)
{
    static uint16_t keep[N];
    struct packs *p = packs_new(k, n, shift);

    k->keep_random(&(struct draws){n, shift, 0}, 0.53, keep, n);
    k->delta_bf16(p->in[0], p->in[1], p->want, n);
    k->keep(p->want, keep, n);
    k->scale[ROUND_BF16](p->want, 1.9921875f, n);
    k->scale[ROUND_BF16](p->want, -0.3984375f, n);
    k->kept_bf16(p->in[0], p->in[1], keep, 1.9921875f, -0.3984375f, p->result + shift, n);
    check_packed("what is kept of packed", k, p, p->result + shift, n);
    memcpy(p->want, p->x[0], n * sizeof(p->want[0]));
    k->scale[ROUND_BF16](p->want, 0.7f, n);
    k->weigh_bf16(p->x[0], 0.7f, p->result + shift, n);
    check_packed("weighted", k, p, p->result + shift, n);
    free(p);
}

/* Of what is finite, subnormals included, or not. */
static void check_norms(const struct kernels *k, bool finite, size_t n, size_t shift)
{
    static uint16_t keep[N];
    struct packs *p = packs_new(k, n, shift);
    double sums[2], want[2];

    for (size_t i = 0; finite && i < n; i++)
        for (unsigned j = 0; j < 2; j++)
            p->x[j][i] = fabsf(p->x[j][i]) < 1e30f ? p->x[j][i] : 0x1p-130f;
    for (unsigned j = 0; j < 2; j++)
        k->pack[DTYPE_BF16](p->x[j], p->bytes[j] + shift, n);
    k->keep_random(&(struct draws){n, shift, finite}, 0.53, keep, n);
    k->norms_bf16(p->in[0], p->in[1], keep, sums, n);
    k->delta_bf16(p->in[0], p->in[1], p->want, n);
    want[0] = k->sum_abs(p->want, n);
    k->keep(p->want, keep, n);
    want[1] = k->sum_abs(p->want, n);
    assert_true(!finite || isfinite(want[0]));
    for (unsigned j = 0; j < 2; j++)
        if (sums[j] != want[j] && !(isnan(sums[j]) && isnan(want[j])))
            fail_msg("%s: norm %u of %zu is %a, not %a", k->isa, j, n, sums[j], want[j]);
    free(p);
}

static void check_deltas(const struct kernels *k, size_t n, size_t shift)
{
    struct packs *p = packs_new(k, n, shift);

    k->delta[ROUND_BF16](p->x[0], p->x[1], p->want, n);
    k->delta_bf16(p->in[0], p->in[1], p->out, n);
    check_packed("delta of packed", k, p, NULL, n);
    k->mix[ROUND_BF16](p->x[0], 0.7f, p->x[1], 0.4f, p->want, n);
    k->mix_bf16(p->in[0], 0.7f, p->in[1], 0.4f, p->result + shift, n);
    check_packed("mix of packed", k, p, p->result + shift, n);
    free(p);
}

static void check_counts(const struct kernels *k, unsigned n_donors, size_t n, size_t shift)
{
    enum { BINS = 1 << 16 };
    static uint32_t key[N], bins[TASK_FUSED][BINS];
    uint32_t *const at[TASK_FUSED] = {bins[0], bins[1], bins[2], bins[3]};
    struct packs *p = packs_new(k, n, shift);

    memset(bins, 0, sizeof(bins));
    k->count_deltas_bf16(n_donors, p->in, p->in[TASK_FUSED], 0x8000, at, n);
    for (unsigned j = 0; j < n_donors; j++) {
        k->delta[ROUND_BF16](p->x[j], p->x[TASK_FUSED], p->want, n);
        k->order_key[ROUND_BF16](p->want, key, n);
        k->spread_zeros(key, 0, 0x8000, n);
        for (size_t i = 0; i < n; i++)
            bins[j][key[i]]--;
    }
    for (size_t i = 0; i < BINS; i++)
        for (unsigned j = 0; j < TASK_FUSED; j++)
            assert_int_equal(bins[j][i], 0);
    free(p);
}

/* in: so many donors and, after them, the base. */
static void check_variance(const struct kernels *k, unsigned n_donors, size_t n, size_t shift)
{
    enum { BINS = 1 << 16 };
    static uint32_t key[N], bins[BINS];
    struct packs *p = packs_new(k, n, shift);
    const float *const x[TASK_FUSED + 1] = {p->x[0], p->x[1], p->x[2], p->x[3], p->x[4]};

    k->variance[ROUND_BF16](x, n_donors, n_donors, p->want, n);
    k->variance_bf16(p->in, n_donors, n_donors, p->result + shift, n);
    check_packed("variance of packed", k, p, p->result + shift, n);
    memset(bins, 0, sizeof(bins));
    k->count_variances_bf16(p->in, n_donors, n_donors, 0x8000, bins, n);
    k->order_key[ROUND_BF16](p->want, key, n);
    k->spread_zeros(key, 0, 0x8000, n);
    for (size_t i = 0; i < n; i++)
        bins[key[i]]--;
    for (size_t i = 0; i < BINS; i++)
        assert_int_equal(bins[i], 0);
    free(p);
}

/* Donors of which the one is so small beside the other that float32 does not hold their difference. */
static void check_far_apart(const struct kernels *k)
{
    struct packs *p = packs_new(k, N, 0);
    const float *const x[3] = {p->x[0], p->x[1], p->x[2]};

    for (size_t i = 0; i < N; i++) {
        p->x[0][i] = (float)(i % 256 + 1) / 256 * (i % 3 ? 0x1p-20f : 1);
        p->x[1][i] = (float)(i % 253 + 1) / 256 * (i % 5 ? -1 : 0x1p-30f);
        p->x[2][i] = 0;
    }
    for (unsigned i = 0; i < 3; i++)
        k->store[DTYPE_BF16](p->x[i], p->bytes[i], N);
    for (unsigned i = 0; i < 3; i++)
        k->load[DTYPE_BF16](p->bytes[i], p->x[i], N);
    k->variance[ROUND_BF16](x, 2, 2, p->want, N);
    k->variance_bf16(p->in, 2, 2, p->result, N);
    check_packed("variance of packed", k, p, p->result, N);
    free(p);
}

/* by: packed values, the second donor's. */
static void check_selected(const struct kernels *k, float bound, size_t n, size_t shift)
{
    struct packs *p = packs_new(k, n, shift);
    uint32_t least, bits;

    k->order_key[ROUND_BF16](&bound, &least, 1);
    memcpy(&bits, &bound, sizeof(bits));
    bits = isnan(bound) ? 0x7f800001 : bits;
    for (uint32_t more = 0; more < 2; more++) {
        k->delta[ROUND_BF16](p->x[0], p->x[TASK_FUSED], p->want, n);
        k->select(p->want, p->x[1], bits + more, REAL_BITS_MAX, n);
        k->selected_delta_bf16(p->in[0], p->in[TASK_FUSED], p->in[1], least + more, p->out, n);
        check_packed("selected delta of packed", k, p, NULL, n);
    }
    free(p);
}

/* by: the base's values; p->want = what the sums of the selected deltas come to. */
static void sce_in_steps(const struct kernels *k, struct packs *p, unsigned n_donors, const float *w,
                         uint32_t low, float least, size_t n)
{
    static float d[TASK_FUSED][N], sum[N], weights[N];

    memset(sum, 0, sizeof(sum));
    memset(weights, 0, sizeof(weights));
    memset(p->want, 0, sizeof(p->want));
    for (unsigned j = 0; j < n_donors; j++) {
        k->delta[ROUND_BF16](p->x[j], p->x[TASK_FUSED], d[j], n);
        k->select(d[j], p->x[TASK_FUSED], low, REAL_BITS_MAX, n);
        k->add(sum, d[j], n);
    }
    k->settle[ROUND_BF16](sum, n);
    for (unsigned j = 0; j < n_donors; j++) {
        k->agree[ROUND_BF16](p->want, d[j], sum, w[j], n);
        k->agree_weight(weights, d[j], sum, w[j], n);
    }
    k->divide_least[ROUND_BF16](p->want, weights, least, n);
    k->apply[ROUND_BF16](p->x[TASK_FUSED], p->want, p->want, n);
}

static void check_sce(const struct kernels *k, unsigned n_donors, size_t n, size_t shift)
{
    static const float w[TASK_FUSED] = {0.75f, 0.3984375f, 1.0f, 0.5f};
    struct packs *p = packs_new(k, n, shift);

    sce_in_steps(k, p, n_donors, w, 0x3f000000, 0x1p-20f, n);
    k->sce_bf16[n_donors](p->in[TASK_FUSED], p->in, p->in[TASK_FUSED], 0x3f00, w, 0x1p-20f, p->result + shift,
                          n);
    check_packed("sce of packed", k, p, p->result + shift, n);
    free(p);
}

static void check_all_packed(const struct kernels *k, size_t n, size_t shift)
{
    for (unsigned i = 1; i <= TASK_FUSED; i++) {
        check_sum(k, i, 1, 1, n, shift);
        check_counts(k, i, n, shift);
        check_variance(k, i, n, shift);
        check_sce(k, i, n, shift);
        for (unsigned j = 0; j < 2; j++) {
            check_linear(k, i, j, n, shift);
            check_consensus(k, i, j, 0.75f, n, shift);
            check_consensus(k, i, j, 1, n, shift);
            check_sum(k, i, j ? 1.0f : -0.3984375f, 0.75f, n, shift);
        }
    }
    check_kept(k, n, shift);
    check_norms(k, true, n, shift);
    check_norms(k, false, n, shift);
    check_deltas(k, n, shift);
    check_selected(k, 0.5f, n, shift);
    check_selected(k, INFINITY, n, shift);
    check_selected(k, NAN, n, shift);
}

static void test_packed(void **state)
{
    size_t n_sets;
    const struct kernels *const *sets = kernels_available(&n_sets);

    (void)state;
    for (size_t s = 0; s < n_sets; s++) {
        check_all_packed(sets[s], N, 0);
        check_all_packed(sets[s], 1, 1);
        check_all_packed(sets[s], 67, 1);
        check_far_apart(sets[s]);
    }
}

/* By the types' layout: sign, exponent of `exp_bits` with a bias, the rest. */
static double decode16(unsigned bits, int exp_bits)
{
    int fraction_bits = 15 - exp_bits, bias = (1 << (exp_bits - 1)) - 1;
    int exp = (int)(bits >> fraction_bits) & ((1 << exp_bits) - 1),
        fraction = (int)bits & ((1 << fraction_bits) - 1);
    double sign = bits & 0x8000 ? -1 : 1;

    if (exp == (1 << exp_bits) - 1)
        return fraction ? NAN : sign * INFINITY;
    if (exp == 0)
        return sign * ldexp(fraction, 1 - bias - fraction_bits);
    return sign * ldexp(fraction + (1 << fraction_bits), exp - bias - fraction_bits);
}

static void check_load16(const struct kernels *k, enum dtype dtype, int exp_bits)
{
    static unsigned char packed[2 * 65536 + 1];
    static float out[65536];

    for (unsigned i = 0; i < 65536; i++)
        memcpy(packed + 1 + 2 * i, &(uint16_t){(uint16_t)i}, 2);
    k->load[dtype](packed + 1, out, 65536);
    for (unsigned i = 0; i < 65536; i++)
        if (!same(out[i], (float)decode16(i, exp_bits)))
            fail_msg("%s: %s 0x%04x loads as %a", k->isa, dtype_name(dtype), i, (double)out[i]);
}

static void test_load(void **state)
{
    static const double doubles[] = {0.1,          -0.0,     1e300, -1e-300, 0x1.0000010000001p0,
                                     0x1.000001p0, INFINITY, NAN,   1};
    enum { DOUBLES = sizeof(doubles) / sizeof(doubles[0]) };
    unsigned char packed[sizeof(doubles) + 1];
    float out[DOUBLES];
    size_t n_sets;
    const struct kernels *const *sets = kernels_available(&n_sets);

    (void)state;
    memcpy(packed + 1, doubles, sizeof(doubles));
    for (size_t s = 0; s < n_sets; s++) {
        check_load16(sets[s], DTYPE_F16, 5);
        check_load16(sets[s], DTYPE_BF16, 8);
        sets[s]->load[DTYPE_F64](packed + 1, out, DOUBLES);
        for (size_t i = 0; i < DOUBLES; i++)
            check_same("load from F64", sets[s]->isa, 0, i, out[i], doubles[i]);
        assert_null(sets[s]->load[DTYPE_I32]);
        assert_null(sets[s]->store[DTYPE_I32]);
    }
}

enum { ROUND_N = 4096 };

/* store, then load, and cast, of ROUND_N float32 against the definition; settle and pack where they apply. */
static void check_round(const struct kernels *k, size_t type, const float *x)
{
    static unsigned char packed[4 * ROUND_N];
    static float stored[ROUND_N], cast[ROUND_N], settled[ROUND_N], repacked[ROUND_N];
    enum dtype dtype = types[type].dtype;
    enum round round = types[type].round;

    k->store[dtype](x, packed, ROUND_N);
    k->load[dtype](packed, stored, ROUND_N);
    memcpy(cast, x, sizeof(cast));
    k->cast[round](cast, ROUND_N);
    memcpy(settled, x, sizeof(settled));
    k->settle[round](settled, ROUND_N);
    k->pack[dtype](cast, packed, ROUND_N);
    k->load[dtype](packed, repacked, ROUND_N);
    for (size_t i = 0; i < ROUND_N; i++) {
        double want = nearest((double)x[i], type);
        if (!same(stored[i], (float)want) || !same(cast[i], (float)want) || !same(repacked[i], (float)want))
            fail_msg("%s: %a to %s: stored %a, cast %a, packed %a, not %a", k->isa, (double)x[i],
                     dtype_name(dtype), (double)stored[i], (double)cast[i], (double)repacked[i], want);
        if (!isnan(x[i]) && !same(settled[i], (float)want))
            fail_msg("%s: %a to %s: settled %a, not %a", k->isa, (double)x[i], dtype_name(dtype),
                     (double)settled[i], want);
    }
}

/* Around every value of a 16-bit type and every midpoint between two of them. */
static void check_boundaries(const struct kernels *k, size_t type, int exp_bits)
{
    static float x[ROUND_N];
    size_t n = 0;

    for (unsigned i = 0; i < 65536; i++) {
        double value = decode16(i, exp_bits), next = decode16(i + 1, exp_bits);
        uint32_t at[2] = {bits_of((float)value), bits_of((float)(value / 2 + next / 2))};
        for (size_t j = 0; j < 8; j++)
            x[n + j] = float_from(at[j / 4] + (uint32_t)(j % 4) - 1);
        n += 8;
        if (n == ROUND_N) {
            check_round(k, type, x);
            n = 0;
        }
    }
    assert_int_equal(n, 0);
}

/* Every stride-th float32; stride is odd, so that low bits vary. */
static void check_strided(const struct kernels *k, size_t type, uint32_t stride)
{
    static float x[ROUND_N];

    for (uint64_t i = 0; i < 1ull << 32; i += (uint64_t)stride * ROUND_N) {
        for (size_t j = 0; j < ROUND_N; j++)
            x[j] = float_from((uint32_t)(i + j * stride));
        check_round(k, type, x);
    }
}

static void test_round(void **state)
{
    size_t n_sets;
    const struct kernels *const *sets = kernels_available(&n_sets);

    (void)state;
    for (size_t s = 0; s < n_sets; s++) {
        check_boundaries(sets[s], 1, 8);
        check_boundaries(sets[s], 2, 5);
        check_strided(sets[s], 0, 65537);
        check_strided(sets[s], 1, all_floats ? 1 : 1021);
        check_strided(sets[s], 2, all_floats ? 1 : 1021);
    }
}

static void test_store_f64(void **state)
{
    struct arrays *m = arrays_new(0, 1);
    double *out = malloc(N * sizeof(*out));
    size_t n_sets;
    const struct kernels *const *sets = kernels_available(&n_sets);

    (void)state;
    assert_non_null(out);
    for (size_t s = 0; s < n_sets; s++) {
        sets[s]->store[DTYPE_F64](m->a, out, N);
        for (size_t i = 0; i < N; i++)
            check_same("store to F64", sets[s]->isa, 0, i, m->a[i], out[i]);
    }
    free(out);
    free(m);
}

static void test_sets(void **state)
{
    size_t n;
    const struct kernels *const *sets = kernels_available(&n);

    (void)state;
    assert_in_range(n, 1, 4);
    assert_string_equal(sets[n - 1]->isa, "baseline");
    assert_ptr_equal(kernels_best(), sets[0]);
    assert_int_equal(round_of(DTYPE_F32), ROUND_NONE);
    assert_int_equal(round_of(DTYPE_BF16), ROUND_BF16);
    assert_int_equal(round_of(DTYPE_F16), ROUND_F16);
}

/* 2^24 swallows a 1 that is added to it and keeps a 2, so the sum shows who was added to whom. */
static void test_sum_scalars(void **state)
{
    const float big = 0x1p24f;
    const float row[] = {big, 1, 1, 1, 1, 1}, nine[] = {1, 0, 0, 0, big, 0, 0, 0, 1};
    const float pair[] = {1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, big};

    (void)state;
    assert_true(kernel_sum_scalars(row, 0, ROUND_NONE) == 0);
    assert_true(kernel_sum_scalars(row, 3, ROUND_NONE) == big); /* in order */
    assert_true(kernel_sum_scalars(row, 4, ROUND_NONE) == big); /* one each */
    assert_true(kernel_sum_scalars(row, 6, ROUND_NONE) == big); /* ((big + 1 + 1) + 1) + 1 */
    assert_true(kernel_sum_scalars(row + 1, 5, ROUND_BF16) == 5);
    assert_true(kernel_sum_scalars(nine, 9, ROUND_NONE) == big + 2);  /* left over first: 1 + 1, then big */
    assert_true(kernel_sum_scalars(nine, 9, ROUND_BF16) == big);      /* first partial: (1 + big) + 1 */
    assert_true(kernel_sum_scalars(pair, 16, ROUND_BF16) == big + 2); /* halves first: 1 + 1 */
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sets),        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_fma_and_add), cmocka_unit_test(test_fused),
        cmocka_unit_test(test_patterns),    cmocka_unit_test(test_packed),
        cmocka_unit_test(test_load),        cmocka_unit_test(test_round),
        cmocka_unit_test(test_store_f64),   cmocka_unit_test(test_sum_scalars),
    };

    all_floats = argc > 1 && strcmp(argv[1], "all") == 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
