/* Bodies of struct kernels for what is kept at random (dare, della): a part of kernel_tile.c, which says what
 * keeps them fast. */
#ifndef KERNEL_RANDOM_H
#define KERNEL_RANDOM_H

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "rng.h"

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

enum { WIDE_LANES = WIDE / 8, RNG_BLOCKS = 144, RNG_ABREAST = 2 };

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

/* Blocks [block, block + n), and what fills up the last step. */
static void rng_blocks(uint64_t seed, uint32_t model, uint64_t block, size_t n, uint32_t *words)
{
    for (size_t i = 0; i < n; i += RNG_ABREAST * WIDE_LANES)
        rng_wide(seed, model, block + i, words + i * RNG_WORDS);
}

/* ---- draws: of each element the upper half, and both where that alone does not tell */

/* More than a tile, wherever in a block that begins. */
enum { CHUNK = RNG_BLOCKS * RNG_HALVES, KEEP = 0xffff, ONE_BF16 = 0x3f80 };

union chunk {
    uint32_t words[RNG_BLOCKS * RNG_WORDS];
    uint16_t halves[CHUNK];
};

/* What halves are compared with: probabilities times 2^16. */
#define HALVES 0x1p16
struct limits {
    const uint32_t *rank; /* NULL: all are `low` */
    double low, step;
};

INLINE double limit_at(const struct limits *limits, size_t i)
{
    return limits->rank ? limits->low + limits->step * (int32_t)limits->rank[i] : limits->low;
}

/* keep = whether the whole words are below their limits, but for those whose halves are equal; whether there
 * are such. */
static bool below_one(const uint16_t *half, double limit, uint16_t *keep, size_t n)
{
    uint16_t whole = (uint16_t)limit, equal = 0;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        keep[i] = half[i] < whole ? KEEP : 0;
        equal |= half[i] == whole ? 1 : 0;
    }
    return equal;
}

static bool below_each(const uint16_t *half, const struct limits *limits, uint16_t *keep, size_t n)
{
    const uint32_t *rank = limits->rank;
    double low = limits->low, step = limits->step;
    uint16_t equal = 0;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        int32_t whole = (int32_t)(low + step * (int32_t)rank[i]);
        keep[i] = half[i] < whole ? KEEP : 0;
        equal |= half[i] == whole ? 1 : 0;
    }
    return equal;
}

static void keep_below(const struct draws *of, const uint16_t *half, const struct limits *limits,
                       uint16_t *keep, size_t n)
{
    if (!(limits->rank ? below_each(half, limits, keep, n) : below_one(half, limits->low, keep, n)))
        return;
    for (size_t i = 0; i < n; i++) {
        double limit = limit_at(limits, i);
        if (half[i] == (int32_t)limit)
            keep[i] = rng_draw(of->seed, of->model, of->first + i, limit / HALVES) ? KEEP : 0;
    }
}

static void keep_draws(const struct draws *of, const struct limits *limits, uint16_t *keep, size_t n)
{
    union chunk chunk;

    for (size_t at = 0, count; at < n; at += count) {
        const struct draws from = {of->seed, of->first + at, of->model};
        const struct limits to = {limits->rank ? limits->rank + at : NULL, limits->low, limits->step};
        size_t skip = (size_t)(from.first % RNG_HALVES);
        count = n - at < CHUNK - skip ? n - at : CHUNK - skip;
        rng_blocks(of->seed, of->model, from.first / RNG_HALVES, (skip + count + RNG_HALVES - 1) / RNG_HALVES,
                   chunk.words);
        keep_below(&from, chunk.halves + skip, &to, keep + at, count);
    }
}

static void keep_random(const struct draws *of, double p, uint16_t *keep, size_t n)
{
    if (p < 1)
        keep_draws(of, &(struct limits){NULL, p * HALVES, 0}, keep, n);
    else
        memset(keep, KEEP & 0xff, n * sizeof(*keep));
}

static void keep_ranked(const struct draws *of, const uint32_t *rank, double low, double step, uint16_t *keep,
                        size_t n)
{
    keep_draws(of, &(struct limits){rank, low * HALVES, step * HALVES}, keep, n);
}

INLINE float one_or_zero(uint16_t keep)
{
    return from_bf16(keep & ONE_BF16);
}

static void keep_some(real *x, const uint16_t *keep, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] * one_or_zero(keep[i]);
}

/* ---- packed BF16 */

#ifndef REAL_F64
/* sum_abs's lanes in vectors of every fourth: the elements 4 q + place of LANE_ELEMENTS that are taken at a
 * time, LANE_STEPS times until all lanes had theirs. */
enum {
    LANE_BYTES = WIDE < 32 ? WIDE : 32,
    LANE_ELEMENTS = LANE_BYTES / 2,
    LANE_STEPS = SUM_LANES / LANE_ELEMENTS,
    PLACES = 4
};
typedef double lane_sums __attribute__((vector_size(LANE_BYTES)));
typedef uint64_t lane_bits __attribute__((vector_size(LANE_BYTES)));
typedef uint32_t lane_pairs __attribute__((vector_size(LANE_BYTES)));
typedef float lane_floats __attribute__((vector_size(LANE_BYTES)));

struct norm_lanes {
    lane_sums before[LANE_STEPS][PLACES], after[LANE_STEPS][PLACES];
};

/* A float's bits, taken for those of a double, are its value times NORM_UNIT, subnormal or not; only what is
 * infinite or NaN comes to NORM_LARGE. That is cheaper than a conversion. The mask is for values of BF16
 * without their signs, which are three bits below a double's. */
#define NORM_UNIT 0x1p-896
#define NORM_LARGE 0x1p-768
#define NORM_MASK 0x0fffe00000000000

/* Rounded but for the lower halves, which are anything. */
INLINE lane_bits delta_lanes(lane_pairs x, lane_pairs base)
{
    lane_pairs d = (lane_pairs)((lane_floats)x - (lane_floats)base);

    return (lane_bits)(d + 0x7fff + (d >> 16 & 1));
}

/* d, keep: shifted to NORM_MASK. */
INLINE void norms_place(lane_bits d, lane_bits keep, lane_sums *before, lane_sums *after)
{
    d &= NORM_MASK;
    *before += (lane_sums)d;
    *after += (lane_sums)(d & keep);
}

INLINE void norms_step(const u16_packed *x, const u16_packed *base, const uint16_t *keep,
                       lane_sums before[PLACES], lane_sums after[PLACES])
{
    lane_pairs a, b;
    lane_bits even, odd, kept;

    memcpy(&a, x, sizeof(a));
    memcpy(&b, base, sizeof(b));
    memcpy(&kept, keep, sizeof(kept));
    even = delta_lanes(a << 16, b << 16);
    odd = delta_lanes(a & 0xffff0000, b & 0xffff0000);
    norms_place(even << 29, kept << 45, &before[0], &after[0]);
    norms_place(odd << 29, kept << 29, &before[1], &after[1]);
    norms_place(even >> 3, kept << 13, &before[2], &after[2]);
    norms_place(odd >> 3, kept >> 3, &before[3], &after[3]);
}

INLINE void norms_lanes(const u16_packed *x, const u16_packed *base, const uint16_t *keep,
                        struct norm_lanes *lanes)
{
    for (size_t i = 0; i < LANE_STEPS; i++)
        norms_step(x + i * LANE_ELEMENTS, base + i * LANE_ELEMENTS, keep + i * LANE_ELEMENTS,
                   lanes->before[i], lanes->after[i]);
}

INLINE double sum_places(const lane_sums lane[LANE_STEPS][PLACES])
{
    double sum = 0;

    for (size_t i = 0; i < SUM_LANES; i++)
        sum += lane[i / LANE_ELEMENTS][i % PLACES][i % LANE_ELEMENTS / PLACES];
    return sum / NORM_UNIT;
}

/* Where something is infinite or NaN: sum_abs of delta_of_bf16, and of that after keep_some. */
static void norms_of_any(const u16_packed *x, const u16_packed *base, const uint16_t *keep, double sums[2],
                         size_t n)
{
    double before[SUM_LANES] = {0}, after[SUM_LANES] = {0};

    for (size_t i = 0; i < n; i++) {
        float d = round_bf16(from_bf16(x[i]) - from_bf16(base[i]));
        before[i % SUM_LANES] += fabsf(d);
        after[i % SUM_LANES] += fabsf(d * one_or_zero(keep[i]));
    }
    sums[0] = sum_up(before);
    sums[1] = sum_up(after);
}

/* What is left over is filled up with zeros, which change no sum. */
static void norms_bf16(const void *x, const void *base, const uint16_t *keep, double sums[2], size_t n)
{
    const u16_packed *a = x, *b = base;
    uint16_t rest[3][SUM_LANES] = {{0}};
    struct norm_lanes lanes = {{{{0}}}, {{{0}}}};
    size_t i = 0;

    for (; i + SUM_LANES <= n; i += SUM_LANES)
        norms_lanes(a + i, b + i, keep + i, &lanes);
    memcpy(rest[0], a + i, (n - i) * sizeof(*a));
    memcpy(rest[1], b + i, (n - i) * sizeof(*b));
    memcpy(rest[2], keep + i, (n - i) * sizeof(*keep));
    norms_lanes(rest[0], rest[1], rest[2], &lanes);
    if (sum_places(lanes.before) < NORM_LARGE / NORM_UNIT) {
        sums[0] = sum_places(lanes.before);
        sums[1] = sum_places(lanes.after);
    } else {
        norms_of_any(a, b, keep, sums, n);
    }
}

INLINE float kept_one(half_fn *half, uint32_t x, uint32_t base, uint32_t keep, float scale, float w)
{
    const uint32_t ones = ONE_BF16 << 16 | ONE_BF16;
    float d = round_bf16(half(x) - half(base)) * half(keep & ones);

    return round_bf16(d * scale) * w;
}

INLINE void kept_pairs(const u32_packed *x, const u32_packed *base, const u32_packed *keep, float scale,
                       float w, u32_packed *e, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        e[i] = to_pair(kept_one(low_half, x[i], base[i], keep[i], scale, w),
                       kept_one(high_half, x[i], base[i], keep[i], scale, w));
}

static void kept_bf16(const void *x, const void *base, const uint16_t *keep, float scale, float w, void *e,
                      size_t n)
{
    uint32_t last_x, last_base, last_keep, last;

    kept_pairs(x, base, (const void *)keep, scale, w, e, n / 2);
    if (n % 2 == 0)
        return;
    last_x = last_of(x, n);
    last_base = last_of(base, n);
    last_keep = last_of(keep, n);
    kept_pairs(&last_x, &last_base, &last_keep, scale, w, &last, 1);
    ((u16_packed *)e)[n - 1] = (uint16_t)last;
}
#endif

#endif
