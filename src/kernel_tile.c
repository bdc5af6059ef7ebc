/* The bodies of struct kernels, compiled once per instruction set with KERNEL_ISA naming it, and for float64.
 *
 * Each is a plain loop that gcc and clang vectorise in every build; tests/bench/bench_kernel.c shows one that
 * is not. What makes it so: loops are told that their arrays do not overlap (EACH_ELEMENT), choices are of
 * two values of one width, and NaN is looked at only where arbitrary float32 comes in or goes out.
 */
#include "kernel.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#if !defined(__clang__)
#define INSTRUMENTED 0
#elif __has_feature(address_sanitizer) || __has_feature(undefined_behavior_sanitizer) || \
    __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer) || __has_feature(coverage_sanitizer)
#define INSTRUMENTED 1
#else
#define INSTRUMENTED 0
#endif
#if INSTRUMENTED /* clang warns of a loop that it was asked to vectorise and cannot */
#define EACH_ELEMENT
#elif defined(__clang__)
#define EACH_ELEMENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define EACH_ELEMENT _Pragma("GCC ivdep")
#endif
#define INLINE static inline __attribute__((always_inline))

/* Packed elements at any address. */
typedef uint16_t u16_packed __attribute__((aligned(1), may_alias));
typedef uint32_t u32_packed __attribute__((aligned(1), may_alias)); /* two of 16 bits */
typedef float f32_packed __attribute__((aligned(1), may_alias));
typedef double f64_packed __attribute__((aligned(1), may_alias));

INLINE uint32_t bits_of(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof(u));
    return u;
}

/* The same of a real. */
INLINE real_bits bits_of_real(real x)
{
    real_bits u;

    memcpy(&u, &x, sizeof(u));
    return u;
}

INLINE real real_of(real_bits u)
{
    real x;

    memcpy(&x, &u, sizeof(x));
    return x;
}

INLINE float float_of(uint32_t u)
{
    float x;

    memcpy(&x, &u, sizeof(x));
    return x;
}

#define SIGN 0x80000000u
#define INFINITE 0x7f800000u
#define EXP16_MIN 0x38800000 /* 2^-14, the smallest normal float16 */
#define EXP16_MAX 0x47800000 /* 2^16, the first float16 does not have */

typedef real round_fn(real x);

INLINE real round_none(real x)
{
    return x;
}

INLINE uint32_t nearest_bf16(uint32_t u)
{
    return u + 0x7fff + (u >> 16 & 1);
}

/* The exponent that decides float16's last place: subnormals share one, and above its range any will do. */
INLINE uint32_t exponent_f16(uint32_t u)
{
    int32_t e = (int32_t)(u & INFINITE);

    e = e < EXP16_MIN ? EXP16_MIN : e;
    return (uint32_t)(e > EXP16_MAX ? EXP16_MAX : e);
}

INLINE float from_f16(uint32_t h)
{
    uint32_t m = (h & 0x7fff) << 13;
    uint32_t small = bits_of(float_of(m + EXP16_MIN) - 0x1p-14f);
    uint32_t u = m + (112u << 23);

    u = (int32_t)m < 0x00800000 ? small : u;
    u = (int32_t)m >= 0x0f800000 ? m + (224u << 23) : u;
    return float_of(u | (h & 0x8000) << 16);
}

/* As round_f16, further down, without the sign: what the sum has above the added power of two counts units in
 * float16's last place, its leading bit included, which is carried into the exponent by addition. */
INLINE uint16_t to_f16(float x)
{
    uint32_t u = bits_of(x), a = u & ~SIGN;
    float y = float_of(a) < 0x1p16f ? float_of(a) : 0x1p16f;
    uint32_t e = exponent_f16(bits_of(y)), magic = e + (13u << 23);
    uint32_t h = ((e - EXP16_MIN) >> 13) + (bits_of(y + float_of(magic)) - magic);

    h = (int32_t)a > (int32_t)INFINITE ? 0x7e00 : h;
    return (uint16_t)(h | (u >> 16 & 0x8000));
}

INLINE uint16_t to_bf16(float x)
{
    uint32_t u = bits_of(x);

    return (uint16_t)((x != x ? u | 0x400000 : nearest_bf16(u)) >> 16);
}

INLINE float from_bf16(uint32_t h)
{
    return float_of(h << 16);
}

#ifndef REAL_F64
INLINE float round_bf16(float x)
{
    return float_of(nearest_bf16(bits_of(x)) & 0xffff0000);
}

/* Adding 1.5 times 2^13 times the exponent leaves no bits below float16's last place; the addition rounds as
 * float16 would. Scaling up and down turns what is beyond its range into infinity. */
INLINE float round_f16(float x)
{
    uint32_t u = bits_of(x);
    float magic = float_of(exponent_f16(u) + (13u << 23 | 0x400000));
    float y = (x + magic) - magic;

    y = y * 0x1p112f * 0x1p-112f;
    return float_of(bits_of(y) | (u & SIGN));
}
#endif

/* packed elements */

static void load_f16(const void *in, real *out, size_t n)
{
    const u16_packed *x = in;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        out[i] = from_f16(x[i]);
}

static void load_bf16(const void *in, real *out, size_t n)
{
    const u16_packed *x = in;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        out[i] = from_bf16(x[i]);
}

static void load_f32(const void *in, real *out, size_t n)
{
#ifdef REAL_F64
    const f32_packed *x = in;

    for (size_t i = 0; i < n; i++)
        out[i] = x[i];
#else
    memcpy(out, in, n * sizeof(*out));
#endif
}

static void load_f64(const void *in, real *out, size_t n)
{
    const f64_packed *x = in;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        out[i] = (real)x[i];
}

static void store_f16(const real *in, void *out, size_t n)
{
    u16_packed *y = out;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        y[i] = to_f16((float)in[i]);
}

static void store_bf16(const real *in, void *out, size_t n)
{
    u16_packed *y = out;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        y[i] = to_bf16((float)in[i]);
}

static void store_f32(const real *in, void *out, size_t n)
{
#ifdef REAL_F64
    f32_packed *y = out;

    for (size_t i = 0; i < n; i++)
        y[i] = (float)in[i];
#else
    memcpy(out, in, n * sizeof(*in));
#endif
}

static void store_f64(const real *in, void *out, size_t n)
{
    f64_packed *y = out;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        y[i] = in[i];
}

/* One copy of a body for each working type that the real serves. EACH_TYPE_SUM: of one that returns a sum. */
#ifdef REAL_F64
#define EACH_TYPE_OF(returns, result, name, params, ...) \
    static returns name##_none params                    \
    {                                                    \
        result name(round_none, __VA_ARGS__);            \
    }
#define ENTRIES(name)              \
    {                              \
        [ROUND_NONE] = name##_none \
    }
#else
#define EACH_TYPE_OF(returns, result, name, params, ...) \
    static returns name##_none params                    \
    {                                                    \
        result name(round_none, __VA_ARGS__);            \
    }                                                    \
    static returns name##_bf16 params                    \
    {                                                    \
        result name(round_bf16, __VA_ARGS__);            \
    }                                                    \
    static returns name##_f16 params                     \
    {                                                    \
        result name(round_f16, __VA_ARGS__);             \
    }
#define ENTRIES(name)                                                                    \
    {                                                                                    \
        [ROUND_NONE] = name##_none, [ROUND_BF16] = name##_bf16, [ROUND_F16] = name##_f16 \
    }
#endif
#define EACH_TYPE(name, params, ...) EACH_TYPE_OF(void, , name, params, __VA_ARGS__)
#define EACH_TYPE_SUM(name, params, ...) EACH_TYPE_OF(double, return, name, params, __VA_ARGS__)

INLINE void settle(round_fn *r, real *x, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        x[i] = r(x[i]);
}
EACH_TYPE(settle, (real * x, size_t n), x, n)

#ifndef REAL_F64
/* Of a result of an operation on values of the type. */
INLINE uint16_t pack_one(float x)
{
    return (uint16_t)(nearest_bf16(bits_of(x)) >> 16);
}

INLINE float cast_bf16(float x)
{
    uint32_t u = bits_of(x), y = nearest_bf16(u) & 0xffff0000;

    return float_of(x != x ? u | 0x400000 : y);
}

static void cast_to_bf16(float *x, size_t n)
{
    settle(cast_bf16, x, n);
}

static void pack_bf16(const float *in, void *out, size_t n)
{
    u16_packed *y = out;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        y[i] = (uint16_t)(bits_of(in[i]) >> 16);
}
#endif

static void add(real *acc, const real *x, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        acc[i] = acc[i] + x[i];
}

#ifdef REAL_F64
INLINE double fma_exact(double x, double w, double acc)
{
    return fma(x, w, acc);
}
#else
/* Fused multiply-add for CPUs without one. The product is exact in double; the sum is made odd where it is
 * not exact, so that the rounding to float32 sees that something was left. Inlined, where fmaf would be a
 * call. */
INLINE float fma_exact(float x, float w, float acc)
{
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return fmaf(x, w, acc);
#else
    double product = (double)x * w, addend = acc, sum = product + addend;
    double part = sum - product, rest = (product - (sum - part)) + (addend - part);
    uint64_t s, e;

    memcpy(&s, &sum, sizeof(s));
    memcpy(&e, &rest, sizeof(e));
    e = (s - ((s ^ e) >> 63)) | 1; /* truncated, then odd */
    s = rest > 0 || rest < 0 ? e : s;
    memcpy(&sum, &s, sizeof(sum));
    return (float)sum;
#endif
}
#endif

static void fma_add(real *acc, const real *x, real w, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        acc[i] = fma_exact(x[i], w, acc[i]);
}

INLINE void task_add(round_fn *r, real *acc, const real *x, const real *base, real w, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        acc[i] = acc[i] + r(w * r(x[i] - base[i]));
}
EACH_TYPE(task_add, (real * acc, const real *x, const real *base, real w, size_t n), acc, x, base, w, n)

INLINE void divide(round_fn *r, real *acc, real divisor, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        acc[i] = r(acc[i] / divisor);
}
EACH_TYPE(divide, (real * acc, real divisor, size_t n), acc, divisor, n)

INLINE void scale(round_fn *r, real *x, real s, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        x[i] = r(x[i] * s);
}
EACH_TYPE(scale, (real * x, real s, size_t n), x, s, n)

INLINE void apply(round_fn *r, const real *base, const real *acc, real *out, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        out[i] = r(base[i] + r(acc[i]));
}
EACH_TYPE(apply, (const real *base, const real *acc, real *out, size_t n), base, acc, out, n)

#ifndef REAL_F64
/* Packed BF16 in pairs, the first in the lower half of a word: both are widened, and put together again, by
 * shifts and masks of whole words, where to widen 16 bits to 32 would take shuffles. */
typedef float half_fn(uint32_t pair);

INLINE float low_half(uint32_t pair)
{
    return float_of(pair << 16);
}

INLINE float high_half(uint32_t pair)
{
    return float_of(pair & 0xffff0000);
}

INLINE uint32_t to_pair(float low, float high)
{
    return nearest_bf16(bits_of(low)) >> 16 | (nearest_bf16(bits_of(high)) & 0xffff0000);
}

/* Element i of a pair's half; k is a constant where this is inlined, so that the loop unrolls and the one
 * over pairs is vectorised. */
INLINE float task_one(unsigned k, half_fn *half, uint32_t base, const u32_packed *const *x, const float *w,
                      size_t i)
{
    float acc = 0;

    for (unsigned j = 0; j < k; j++)
        acc = acc + round_bf16(w[j] * round_bf16(half(x[j][i]) - half(base)));
    return half(base) + round_bf16(acc);
}

INLINE void task_pairs(unsigned k, const void *base, const void *const *x, const float *w, void *out,
                       size_t n)
{
    const u32_packed *b = base, *donor[TASK_FUSED];
    float weight[TASK_FUSED];
    u32_packed *y = out;

    for (unsigned j = 0; j < k; j++) {
        donor[j] = x[j];
        weight[j] = w[j];
    }
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        y[i] = to_pair(task_one(k, low_half, b[i], donor, weight, i),
                       task_one(k, high_half, b[i], donor, weight, i));
}

/* The last element of an odd number of them, as a pair. */
INLINE uint32_t last_of(const void *x, size_t n)
{
    return ((const u16_packed *)x)[n - 1];
}

INLINE void task_bf16(unsigned k, const void *base, const void *const *x, const float *w, void *out, size_t n)
{
    uint32_t last[TASK_FUSED], last_base, last_out;
    const void *last_x[TASK_FUSED];

    task_pairs(k, base, x, w, out, n / 2);
    if (n % 2 == 0)
        return;
    for (unsigned j = 0; j < k; j++) {
        last[j] = last_of(x[j], n);
        last_x[j] = &last[j];
    }
    last_base = last_of(base, n);
    task_pairs(k, &last_base, last_x, w, &last_out, 1);
    ((u16_packed *)out)[n - 1] = (uint16_t)last_out;
}

#if defined(__AVX512BW__)
#include "kernel_group.h"
#else
#define task_groups task_bf16
#endif

#define TASK(k)                                                                                            \
    static void task_bf16_##k(const void *base, const void *const *x, const float *w, void *out, size_t n) \
    {                                                                                                      \
        task_groups(k, base, x, w, out, n);                                                                \
    }
TASK(1)
TASK(2)
TASK(3)
TASK(4)

/* to_bf16 of both */
INLINE uint32_t cast_pair(float low, float high)
{
    return (uint32_t)to_bf16(low) | (uint32_t)to_bf16(high) << 16;
}

INLINE float linear_one(unsigned k, half_fn *half, const u32_packed *const *x, const float *w, size_t i)
{
    float acc = 0;

    for (unsigned j = 0; j < k; j++)
        acc = fma_exact(half(x[j][i]), w[j], acc);
    return acc;
}

INLINE void linear_pairs(unsigned k, bool divides, const void *const *x, const float *w, float divisor,
                         void *out, size_t n)
{
    const u32_packed *input[TASK_FUSED];
    float weight[TASK_FUSED];
    u32_packed *y = out;

    for (unsigned j = 0; j < k; j++) {
        input[j] = x[j];
        weight[j] = w[j];
    }
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        float low = linear_one(k, low_half, input, weight, i),
              high = linear_one(k, high_half, input, weight, i);
        y[i] = divides ? cast_pair(low / divisor, high / divisor) : cast_pair(low, high);
    }
}

INLINE void linear_some(unsigned k, const void *const *x, const float *w, const float *divisor, void *out,
                        size_t n)
{
    if (divisor)
        linear_pairs(k, true, x, w, *divisor, out, n);
    else
        linear_pairs(k, false, x, w, 1, out, n);
}

INLINE void linear_bf16(unsigned k, const void *const *x, const float *w, const float *divisor, void *out,
                        size_t n)
{
    uint32_t last[TASK_FUSED], last_out;
    const void *last_x[TASK_FUSED];

    linear_some(k, x, w, divisor, out, n / 2);
    if (n % 2 == 0)
        return;
    for (unsigned j = 0; j < k; j++) {
        last[j] = last_of(x[j], n);
        last_x[j] = &last[j];
    }
    linear_some(k, last_x, w, divisor, &last_out, 1);
    ((u16_packed *)out)[n - 1] = (uint16_t)last_out;
}

#define LINEAR(k)                                                                                      \
    static void linear_bf16_##k(const void *const *x, const float *w, const float *divisor, void *out, \
                                size_t n)                                                              \
    {                                                                                                  \
        linear_bf16(k, x, w, divisor, out, n);                                                         \
    }
LINEAR(1)
LINEAR(2)
LINEAR(3)
LINEAR(4)
#endif

/* min and max that let NaN through, as torch's clamp does. */
INLINE real at_least(real x, real low)
{
    return x < low ? low : x;
}

INLINE real at_most(real x, real high)
{
    return x > high ? high : x;
}

INLINE bool is_f16(round_fn *r)
{
#ifdef REAL_F64
    (void)r;
    return false;
#else
    return r == round_f16;
#endif
}

INLINE real nearswap_one(round_fn *r, real a, real b, real least, real t)
{
    real distance = at_least(real_abs(r(a - b)), least);
    real inverse = r(1 / distance);
    real w = r(inverse * t), direct = r(t / distance);

    if (is_f16(r))
        w = inverse > 65504 ? direct : w;
    w = at_most(at_least(w, 0), 1);
    return r(r(w * b) + r(r(1 - w) * a));
}

INLINE void nearswap(round_fn *r, const real *a, const real *b, real t, real *out, size_t n)
{
    const real least = r((real)1e-6);

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        out[i] = nearswap_one(r, a[i], b[i], least, t);
}
EACH_TYPE(nearswap, (const real *a, const real *b, real t, real *out, size_t n), a, b, t, out, n)

#include "kernel_task.h"

#include "kernel_random.h"

#include "kernel_sce.h"

#include "kernel_norm.h"
#ifndef REAL_F64
#include "kernel_gram.h"
#endif

#define JOIN(a, b) a##b
#define SET(isa) JOIN(kernels_, isa)
#define TEXT(x) #x
#define NAME(isa) TEXT(isa)

extern const struct kernels SET(KERNEL_ISA);
const struct kernels SET(KERNEL_ISA) = {
    .isa = NAME(KERNEL_ISA),
    .load =
        {[DTYPE_F16] = load_f16, [DTYPE_BF16] = load_bf16, [DTYPE_F32] = load_f32, [DTYPE_F64] = load_f64},
    .store = {[DTYPE_F16] = store_f16,
              [DTYPE_BF16] = store_bf16,
              [DTYPE_F32] = store_f32,
              [DTYPE_F64] = store_f64},
#ifdef REAL_F64
    .pack = {[DTYPE_F64] = store_f64},
    .cast = {[ROUND_NONE] = settle_none},
    .consensus = {[ROUND_NONE] = FUSED_ENTRIES(consensus, none)},
    .mean = {[ROUND_NONE] = FUSED_ENTRIES(mean, none)},
    .tangent = {[ROUND_NONE] = FUSED_ENTRIES(tangent, none)},
#else
    .pack = {[DTYPE_F16] = store_f16, [DTYPE_BF16] = pack_bf16, [DTYPE_F32] = store_f32},
    .cast = {[ROUND_NONE] = settle_none, [ROUND_BF16] = cast_to_bf16, [ROUND_F16] = settle_f16},
    .consensus = {[ROUND_NONE] = FUSED_ENTRIES(consensus, none),
                  [ROUND_BF16] = FUSED_ENTRIES(consensus, bf16),
                  [ROUND_F16] = FUSED_ENTRIES(consensus, f16)},
    .mean = {[ROUND_NONE] = FUSED_ENTRIES(mean, none),
             [ROUND_BF16] = FUSED_ENTRIES(mean, bf16),
             [ROUND_F16] = FUSED_ENTRIES(mean, f16)},
    .tangent = {[ROUND_NONE] = FUSED_ENTRIES(tangent, none),
                [ROUND_BF16] = FUSED_ENTRIES(tangent, bf16),
                [ROUND_F16] = FUSED_ENTRIES(tangent, f16)},
    .task_bf16 = {NULL, task_bf16_1, task_bf16_2, task_bf16_3, task_bf16_4},
    .linear_bf16 = {NULL, linear_bf16_1, linear_bf16_2, linear_bf16_3, linear_bf16_4},
    .delta_bf16 = delta_of_bf16,
    .count_deltas_bf16 = count_deltas_bf16,
    .variance_bf16 = variance_packed,
    .count_variances_bf16 = count_variances,
    .selected_delta_bf16 = selected_delta,
    .sce_bf16 = {NULL, sce_bf16_1, sce_bf16_2, sce_bf16_3, sce_bf16_4},
    .consensus_bf16 = {NULL, consensus_bf16_1, consensus_bf16_2, consensus_bf16_3, consensus_bf16_4},
    .sum_bf16 = {NULL, sum_bf16_1, sum_bf16_2, sum_bf16_3, sum_bf16_4},
    .norms_bf16 = norms_bf16,
    .kept_bf16 = kept_bf16,
    .weigh_bf16 = weigh_bf16,
    .mix_bf16 = mix_of_bf16,
    .gram_bf16 = GRAM_ENTRIES(gram_bf16),
    .gram_rounded_bf16 = GRAM_ENTRIES(gram_rounded_bf16),
    .sphere_sums_bf16 = GRAM_ENTRIES(sphere_sums_bf16),
    .sphere_bf16 = GRAM_ENTRIES(sphere_bf16),
    .stock_bf16 = GRAM_ENTRIES(stock_bf16),
    .combine_bf16 = GRAM_ENTRIES(combine_bf16),
#endif
    .settle = ENTRIES(settle),
    .add = add,
    .fma = fma_add,
    .task_add = ENTRIES(task_add),
    .divide = ENTRIES(divide),
    .scale = ENTRIES(scale),
    .apply = ENTRIES(apply),
    .delta = ENTRIES(delta),
    .order_key = ENTRIES(order_key),
    .spread_zeros = spread_zeros,
    .key_range = key_range,
    .select = select_by,
    .keep_random = keep_random,
    .keep_ranked = keep_ranked,
    .keep = keep_some,
    .sum_abs = sum_abs,
    .sum_squares = ENTRIES(sum_squares),
    .agree = ENTRIES(agree),
    .agree_weight = agree_weight,
    .divide_by = ENTRIES(divide_by),
    .divide_least = ENTRIES(divide_least),
    .variance = ENTRIES(variance),
    .ram_count = ENTRIES(ram_count),
    .ram_add = ENTRIES(ram_add),
    .ramplus_add = ENTRIES(ramplus_add),
    .nearswap = ENTRIES(nearswap),
    .squares = squares,
    .dot = dot,
    .dot_rounded = ENTRIES(dot_rounded),
    .dot_units = ENTRIES(dot_units),
    .quotient = ENTRIES(quotient),
    .scaled_add = ENTRIES(scaled_add),
    .tangent_add = ENTRIES(tangent_add),
    .add_rounded = ENTRIES(add_rounded),
    .mix = ENTRIES(mix),
    .blend = ENTRIES(blend),
    .combine = ENTRIES(combine),
    .largest = largest,
    .exponentials = exponentials,
    .sum_pairs = sum_pairs,
    .sum_divergence = ENTRIES(sum_divergence),
    .importance = ENTRIES(importance),
    .fuse = ENTRIES(fuse),
};
