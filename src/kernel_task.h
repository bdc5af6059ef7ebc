/* Bodies of struct kernels for pruned task vectors: a part of kernel_tile.c, which says what keeps them fast.
 */
#ifndef KERNEL_TASK_H
#define KERNEL_TASK_H

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "rng.h"

INLINE void delta(round_fn *r, const real *x, const real *base, real *out, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        out[i] = r(x[i] - base[i]);
}
EACH_TYPE(delta, (const real *x, const real *base, real *out, size_t n), x, base, out, n)

#ifndef REAL_F64
static void delta_of_bf16(const void *x, const void *base, float *out, size_t n)
{
    const u16_packed *a = x, *b = base;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        out[i] = round_bf16(from_bf16(a[i]) - from_bf16(b[i]));
}
#endif

/* Signed, where comparisons of magnitudes are cheapest: none has the highest bit. */
INLINE real_bits magnitude(real x)
{
    real_signed u = (real_signed)(bits_of_real(x) & ~((real_bits)1 << REAL_MAGNITUDE));

    return (real_bits)(u > (real_signed)REAL_NAN ? (real_signed)REAL_NAN : u);
}

static void order_key_none(const real *x, real_bits *key, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        key[i] = magnitude(x[i]);
}

#ifndef REAL_F64
static void order_key_bf16(const float *x, uint32_t *key, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        key[i] = (magnitude(x[i]) + 0xffff) >> 16;
}

static void order_key_f16(const float *x, uint32_t *key, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        key[i] = to_f16(x[i]) & 0x7fffu;
}
#endif

#ifndef REAL_F64
static void delta_keys_bf16(const void *x, const void *base, uint32_t zero, uint32_t *key, size_t n)
{
    const u16_packed *a = x, *b = base;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        uint32_t k = (magnitude(round_bf16(from_bf16(a[i]) - from_bf16(b[i]))) + 0xffff) >> 16;
        key[i] = k == 0 ? zero + (uint32_t)i % SPREAD_ZEROS : k;
    }
}
#endif

static void spread_zeros(real_bits *key, unsigned shift, uint32_t zero, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        real_bits k = key[i], spread = zero + (uint32_t)i % SPREAD_ZEROS;
        key[i] = k == 0 ? spread : k >> shift;
    }
}

static void select_by(real *x, const real *by, real_bits low, real_bits high, size_t n)
{
    real_bits span = high - low;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] * (magnitude(by[i]) - low < span ? (real)1 : (real)0);
}

/* ---- random numbers */

/* Philox in lanes of 64 bits whose upper halves mean nothing, which is what a widening product wants of its
 * factors and gives back. Compilers know that product only by its name. */
#if defined(__AVX512F__)
#define WIDE 64
#define WIDEN(a, b) ((wide)_mm512_mul_epu32((__m512i)(a), (__m512i)(b)))
#elif defined(__AVX2__)
#define WIDE 32
#define WIDEN(a, b) ((wide)_mm256_mul_epu32((__m256i)(a), (__m256i)(b)))
#elif defined(__SSE2__)
#define WIDE 16
#define WIDEN(a, b) ((wide)_mm_mul_epu32((__m128i)(a), (__m128i)(b)))
#else
#define WIDE 16
#define WIDEN(a, b) (((a)&0xffffffff) * ((b)&0xffffffff))
#endif
typedef uint64_t wide __attribute__((vector_size(WIDE)));

enum { WIDE_LANES = WIDE / 8, RNG_BLOCKS = 64, RNG_ABREAST = 2 };

/* Lanes of two in turn, those of even and of odd number: what every instruction set interleaves in place.
 * LANE_BLOCKS has the blocks stand in such lanes that the one, and then the other, are in order. */
#if WIDE == 64
#define LANE_BLOCKS            \
    {                          \
        0, 4, 1, 5, 2, 6, 3, 7 \
    }
#define EVEN_LANES(a, b) __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14)
#define ODD_LANES(a, b) __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15)
#elif WIDE == 32
#define LANE_BLOCKS \
    {               \
        0, 2, 1, 3  \
    }
#define EVEN_LANES(a, b) __builtin_shufflevector(a, b, 0, 4, 2, 6)
#define ODD_LANES(a, b) __builtin_shufflevector(a, b, 1, 5, 3, 7)
#else
#define LANE_BLOCKS \
    {               \
        0, 1        \
    }
#define EVEN_LANES(a, b) __builtin_shufflevector(a, b, 0, 2)
#define ODD_LANES(a, b) __builtin_shufflevector(a, b, 1, 3)
#endif

struct rng_lanes {
    wide c0, c1, c2, c3;
};

/* The same in all lanes. */
INLINE wide wide_of(uint32_t value)
{
    return (wide){0} + value;
}

INLINE struct rng_lanes rng_round(struct rng_lanes c, uint32_t k0, uint32_t k1)
{
    wide p0 = WIDEN(c.c0, wide_of(RNG_MULTIPLIER_0)), p1 = WIDEN(c.c2, wide_of(RNG_MULTIPLIER_1));

    return (struct rng_lanes){p1 >> 32 ^ c.c1 ^ wide_of(k0), p1, p0 >> 32 ^ c.c3 ^ wide_of(k1), p0};
}

INLINE wide wide_pair(wide low, wide high)
{
    return (low & wide_of(UINT32_MAX)) | high << 32;
}

/* The words of WIDE_LANES blocks. */
INLINE void rng_store(struct rng_lanes c, uint32_t *words)
{
    const wide words01 = wide_pair(c.c0, c.c1), words23 = wide_pair(c.c2, c.c3);
    const wide pairs[2] = {EVEN_LANES(words01, words23), ODD_LANES(words01, words23)};

    memcpy(words, pairs, sizeof(pairs));
}

/* Of RNG_ABREAST times WIDE_LANES blocks from `block` on: a round waits for the one before, so that several
 * are under way at a time. */
INLINE void rng_wide(uint64_t seed, uint32_t model, uint64_t block, uint32_t *words)
{
    struct rng_lanes c[RNG_ABREAST];

    for (uint32_t j = 0; j < RNG_ABREAST; j++) {
        const wide at = (wide)LANE_BLOCKS + (block + j * WIDE_LANES);
        c[j] = (struct rng_lanes){at, at >> 32, (wide){0}, wide_of(model)};
    }
    for (uint32_t i = 0; i < RNG_ROUNDS; i++)
        for (uint32_t j = 0; j < RNG_ABREAST; j++)
            c[j] = rng_round(c[j], (uint32_t)seed + i * RNG_WEYL_0, (uint32_t)(seed >> 32) + i * RNG_WEYL_1);
    for (uint32_t j = 0; j < RNG_ABREAST; j++)
        rng_store(c[j], words + j * WIDE_LANES * RNG_WORDS);
}

/* Blocks [block, block + RNG_BLOCKS). */
static void rng_blocks(uint64_t seed, uint32_t model, uint64_t block, uint32_t *words)
{
    for (size_t i = 0; i < RNG_BLOCKS; i += RNG_ABREAST * WIDE_LANES)
        rng_wide(seed, model, block + i, words + i * RNG_WORDS);
}

/* All but whole chunks is taken from chunks made aside. */
static void random_words(uint32_t *words, uint64_t seed, uint32_t model, uint64_t first, size_t n)
{
    enum { CHUNK = RNG_BLOCKS * RNG_WORDS };
    uint32_t aside[CHUNK];

    for (size_t at = 0, step; at < n; at += step) {
        size_t skip = (size_t)((first + at) % RNG_WORDS);
        uint64_t block = (first + at) / RNG_WORDS;
        step = n - at < CHUNK - skip ? n - at : CHUNK - skip;
        rng_blocks(seed, model, block, step == CHUNK ? words + at : aside);
        if (step < CHUNK)
            memcpy(words + at, aside + skip, step * sizeof(*words));
    }
}

static void keep_random(real *x, const uint32_t *words, uint32_t limit, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] * ((int32_t)(words[i] >> 8) < (int32_t)limit ? (real)1 : (real)0);
}

static void keep_ranked(real *x, const uint32_t *words, const uint32_t *rank, double low, double step,
                        size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] * (words[i] >> 8 < low + step * rank[i] ? (real)1 : (real)0);
}

/* ---- sums in float64: SUM_LANES interleaved ones, added in order at the end */

enum { SUM_LANES = 16 };

INLINE double sum_up(const double lane[SUM_LANES])
{
    double sum = 0;

    for (size_t i = 0; i < SUM_LANES; i++)
        sum += lane[i];
    return sum;
}

INLINE double of_abs(round_fn *r, real x)
{
    (void)r;
    return real_abs(x);
}

INLINE double of_square(round_fn *r, real x)
{
    return r(x * x);
}

INLINE double sum_of(double of(round_fn *, real), round_fn *r, const real *x, size_t n)
{
    double lane[SUM_LANES] = {0};
    size_t i = 0;

    for (; i + SUM_LANES <= n; i += SUM_LANES)
        for (size_t j = 0; j < SUM_LANES; j++)
            lane[j] += of(r, x[i + j]);
    for (; i < n; i++)
        lane[i % SUM_LANES] += of(r, x[i]);
    return sum_up(lane);
}

static double sum_abs(const real *x, size_t n)
{
    return sum_of(of_abs, round_none, x, n);
}

INLINE double sum_squares(round_fn *r, const real *x, size_t n)
{
    return sum_of(of_square, r, x, n);
}
EACH_TYPE_SUM(sum_squares, (const real *x, size_t n), x, n)

/* ---- consensus */

/* 1 where x has the sign that was elected: of the sum, zero being positive. A sum of NaN elects the negative.
 */
INLINE real agrees(real x, real sum)
{
    real y = x * (real)((sum >= 0) * 2 - 1);

    return (real)(y > 0);
}

INLINE void agree(round_fn *r, real *acc, const real *x, const real *sum, real w, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        acc[i] = acc[i] + r(x[i] * (w * agrees(x[i], sum[i])));
}
EACH_TYPE(agree, (real * acc, const real *x, const real *sum, real w, size_t n), acc, x, sum, w, n)

static void agree_weight(real *acc, const real *x, const real *sum, real w, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        acc[i] = acc[i] + w * agrees(x[i], sum[i]);
}

INLINE void divide_by(round_fn *r, real *acc, const real *divisor, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        real d = r(divisor[i]);
        acc[i] = r(r(acc[i]) / (d == 0 ? (real)1 : d));
    }
}
EACH_TYPE(divide_by, (real * acc, const real *divisor, size_t n), acc, divisor, n)

/* Element i of the result, not rounded. k and normalize are constants where this is inlined. */
INLINE real consensus_one(round_fn *r, unsigned k, bool normalize, real base, const real *const *e,
                          const real *w, real lambda, size_t i)
{
    real sum = 0, m = 0, d = 0;

    for (unsigned j = 0; j < k; j++)
        sum = sum + e[j][i];
    sum = r(sum);
    for (unsigned j = 0; j < k; j++) {
        real agreed = agrees(e[j][i], sum);
        m = m + e[j][i] * agreed;
        d = d + w[j] * agreed;
    }
    d = r(d);
    m = r(m);
    if (normalize)
        m = r(m / (d == 0 ? (real)1 : d));
    return base + r(m * lambda);
}

INLINE void consensus_of(round_fn *r, unsigned k, bool normalize, const real *base, const real *const *x,
                         const real *w, real lambda, real *out, size_t n)
{
    const real *e[TASK_FUSED];
    real weight[TASK_FUSED];

    for (unsigned j = 0; j < k; j++) {
        e[j] = x[j];
        weight[j] = w[j];
    }
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        out[i] = r(consensus_one(r, k, normalize, base[i], e, weight, lambda, i));
}

INLINE void consensus(round_fn *r, unsigned k, const real *base, const real *const *x, const real *w,
                      bool normalize, real lambda, real *out, size_t n)
{
    if (normalize)
        consensus_of(r, k, true, base, x, w, lambda, out, n);
    else
        consensus_of(r, k, false, base, x, w, lambda, out, n);
}

#define CONSENSUS_OF(k, type)                                                                 \
    static void consensus_##k##_##type(const real *base, const real *const *x, const real *w, \
                                       bool normalize, real lambda, real *out, size_t n)      \
    {                                                                                         \
        consensus(round_##type, k, base, x, w, normalize, lambda, out, n);                    \
    }
#define CONSENSUS(type)   \
    CONSENSUS_OF(1, type) \
    CONSENSUS_OF(2, type) \
    CONSENSUS_OF(3, type) \
    CONSENSUS_OF(4, type)
CONSENSUS(none)
#ifndef REAL_F64
CONSENSUS(bf16)
CONSENSUS(f16)
#endif
#ifndef REAL_F64
INLINE void consensus_bf16_of(unsigned k, bool normalize, const void *base, const float *const *x,
                              const float *w, float lambda, void *out, size_t n)
{
    const u16_packed *b = base;
    u16_packed *y = out;
    const float *e[TASK_FUSED];
    float weight[TASK_FUSED];

    for (unsigned j = 0; j < k; j++) {
        e[j] = x[j];
        weight[j] = w[j];
    }
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        y[i] = pack_one(consensus_one(round_bf16, k, normalize, from_bf16(b[i]), e, weight, lambda, i));
}

/* Element i of the weighted deltas' sum, not rounded. */
INLINE float sum_one(unsigned k, const float *const *e, size_t i)
{
    float sum = 0;

    for (unsigned j = 0; j < k; j++)
        sum = sum + e[j][i];
    return sum;
}

INLINE void sum_bf16_of(unsigned k, bool divides, const void *base, const float *const *x, float divisor,
                        float lambda, void *out, size_t n)
{
    const u16_packed *b = base;
    u16_packed *y = out;
    const float *e[TASK_FUSED];

    for (unsigned j = 0; j < k; j++)
        e[j] = x[j];
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        float m = round_bf16(sum_one(k, e, i));
        m = divides ? round_bf16(m / divisor) : m;
        y[i] = pack_one(from_bf16(b[i]) + round_bf16(m * lambda));
    }
}

#define PACKED_OF(k)                                                                                        \
    static void consensus_bf16_##k(const void *base, const float *const *x, const float *w, bool normalize, \
                                   float lambda, void *out, size_t n)                                       \
    {                                                                                                       \
        if (normalize)                                                                                      \
            consensus_bf16_of(k, true, base, x, w, lambda, out, n);                                         \
        else                                                                                                \
            consensus_bf16_of(k, false, base, x, w, lambda, out, n);                                        \
    }                                                                                                       \
    static void sum_bf16_##k(const void *base, const float *const *x, float divisor, float lambda,          \
                             void *out, size_t n)                                                           \
    {                                                                                                       \
        if (divisor != 1)                                                                                   \
            sum_bf16_of(k, true, base, x, divisor, lambda, out, n);                                         \
        else                                                                                                \
            sum_bf16_of(k, false, base, x, 1, lambda, out, n);                                              \
    }
PACKED_OF(1)
PACKED_OF(2)
PACKED_OF(3)
PACKED_OF(4)
#endif

INLINE void divide_least(round_fn *r, real *acc, const real *divisor, real least, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        real d = r(divisor[i]);
        acc[i] = r(r(acc[i]) / (d < least ? least : d));
    }
}
EACH_TYPE(divide_least, (real * acc, const real *divisor, real least, size_t n), acc, divisor, least, n)

/* ---- sce: variance over donors */

enum { STRIP = 64 };

/* x / count; where `exact`, count is a power of two and the product the same. */
INLINE double divide_count(double x, double count, double inverse, bool exact)
{
    return exact ? x * inverse : x / count;
}

INLINE void welford(round_fn *r, const real *x, const real *base, unsigned count, bool exact, double *mean,
                    double *m2, size_t n)
{
    double inverse = 1.0 / count;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        double value = r(x[i] - base[i]), d = value - mean[i];
        mean[i] = mean[i] + divide_count(d, count, inverse, exact);
        m2[i] = m2[i] + d * (value - mean[i]);
    }
}

INLINE void variance_end(round_fn *r, const double *m2, unsigned count, bool exact, real *out, size_t n)
{
    double inverse = 1.0 / count;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        out[i] = r((real)divide_count(m2[i], count, inverse, exact));
}

INLINE bool is_power_of_two(unsigned count)
{
    return (count & (count - 1)) == 0;
}

/* The first one's step: its mean is itself, and infinities make NaN. */
INLINE void welford_first(round_fn *r, const real *x, const real *base, double *mean, double *m2, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        mean[i] = r(x[i] - base[i]);
        m2[i] = mean[i] - mean[i];
    }
}

/* Donor j of the inputs, the base aside. */
INLINE const real *donor_of(const real *const *in, unsigned base, unsigned j)
{
    return in[j < base ? j : j + 1];
}

INLINE void variance_strip(round_fn *r, const real *const *in, unsigned base, unsigned k, size_t at,
                           real *out, size_t n)
{
    double mean[STRIP], m2[STRIP];

    welford_first(r, donor_of(in, base, 0) + at, in[base] + at, mean, m2, n);
    for (unsigned j = 1; j < k; j++) {
        if (is_power_of_two(j + 1))
            welford(r, donor_of(in, base, j) + at, in[base] + at, j + 1, true, mean, m2, n);
        else
            welford(r, donor_of(in, base, j) + at, in[base] + at, j + 1, false, mean, m2, n);
    }
    if (is_power_of_two(k))
        variance_end(r, m2, k, true, out, n);
    else
        variance_end(r, m2, k, false, out, n);
}

/* The same for two, the commonest number. */
INLINE void variance_two(round_fn *r, const real *x, const real *y, const real *base, real *out, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        double first = r(x[i] - base[i]), value = r(y[i] - base[i]), d = value - first;
        out[i] = r((real)(d * (value - (first + d * 0.5)) * 0.5));
    }
}

/* Welford's recurrence in float64, as torch does it, so that halves round the same way. */
INLINE void variance(round_fn *r, const real *const *in, unsigned base, unsigned k, real *out, size_t n)
{
    if (k == 2) {
        variance_two(r, donor_of(in, base, 0), donor_of(in, base, 1), in[base], out, n);
        return;
    }
    for (size_t at = 0, step; at < n; at += step) {
        step = n - at < STRIP ? n - at : STRIP;
        variance_strip(r, in, base, k, at, out + at, step);
    }
}
EACH_TYPE(variance, (const real *const *in, unsigned base, unsigned k, real *out, size_t n), in, base, k, out,
          n)

/* ---- ram */

INLINE real is_live(round_fn *r, real x, real base, real eps)
{
    return real_abs(r(x - base)) > eps ? (real)1 : (real)0;
}

INLINE void ram_count(round_fn *r, real *count, const real *x, const real *base, real eps, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        count[i] = count[i] + is_live(r, x[i], base[i], eps);
}
EACH_TYPE(ram_count, (real * count, const real *x, const real *base, real eps, size_t n), count, x, base, eps,
          n)

/* `lone` scales what one donor alone changes; s rounds that product and the term. */
INLINE real ram_one(round_fn *r, round_fn *s, real x, real base, real eps, real count, real lone)
{
    real d = r(x - base), z = d * (real_abs(d) > eps ? (real)1 : (real)0);
    real shared = r(z * (count > 1 ? (real)1 : (real)0) / r(count < 1 ? (real)1 : count));

    return s(s(z * (count == 1 ? (real)1 : (real)0) * lone) + shared);
}

INLINE void ram_add(round_fn *r, real *acc, const real *x, const real *base, real eps, const real *count,
                    size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        acc[i] = acc[i] + ram_one(r, r, x[i], base[i], eps, count[i], 1);
}
EACH_TYPE(ram_add, (real * acc, const real *x, const real *base, real eps, const real *count, size_t n), acc,
          x, base, eps, count, n)

INLINE void ramplus_add(round_fn *r, real *acc, const real *x, const real *base, real eps, const real *count,
                        real lone, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        acc[i] = acc[i] + ram_one(r, round_none, x[i], base[i], eps, count[i], lone);
}
EACH_TYPE(ramplus_add,
          (real * acc, const real *x, const real *base, real eps, const real *count, real lone, size_t n),
          acc, x, base, eps, count, lone, n)

#endif
