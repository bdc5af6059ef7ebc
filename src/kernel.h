/* Numeric primitives over tiles of reals, one body each, built per instruction set, dispatched once; and once
 * more for float64 (real.h).
 *
 * A value of the working type is held in a real, float32 for all types it can represent; an operation is the
 * real's followed by rounding to the type (nearest, ties to even), which for the real's own type is nothing.
 * The bytes never depend on the CPU: no contraction, no reassociation, fmaf only where a formula has it. NaN
 * payloads are not part of the contract. n is any number of elements; real pointers need no alignment beyond
 * their type's, packed ones none; out may equal an input, but ranges must not overlap otherwise.
 */
#ifndef KERNEL_H
#define KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dtype.h"
#include "real.h"

/* The working types: the real's own, F32 or F64, and two that are rounded to. */
enum round { ROUND_NONE, ROUND_BF16, ROUND_F16, ROUND_COUNT };

static inline enum round round_of(enum dtype dtype)
{
    return dtype == DTYPE_BF16 ? ROUND_BF16 : dtype == DTYPE_F16 ? ROUND_F16 : ROUND_NONE;
}

enum { SPREAD_ZEROS = 8 };

enum { TASK_FUSED = 4 }; /* donors that the fused task vector kernels take */

/* The draws of elements `first` and on under a model. */
struct draws {
    uint64_t seed, first;
    uint32_t model;
};

/* multislerp's numbers of up to TASK_FUSED vectors: of each its weight, 1 / (its norm + eps), its dot with
 * the mean; 1 / the mean's norm, and the norm of the result. */
struct sphere {
    real w[TASK_FUSED], inverse[TASK_FUSED], dots[TASK_FUSED], inverse_mean, norm;
};

/* A primitive that rounds has one entry a working type; of those for float64 only ROUND_NONE is there. */
struct kernels {
    const char *isa; /* "baseline", "avx2", "avx512", "avx512_bf16"; "f64" */

    /* Widen n elements of F16, BF16, F32 exactly; F64 is rounded to float32, which torch does too before it
     * rounds that to 16 bits. load[] of another type is NULL. */
    void (*load[DTYPE_COUNT])(const void *in, real *out, size_t n);
    /* Round reals to F16, BF16, F32, F64; float64 to 16 bits by way of float32, as above. NaN stays NaN,
     * overflow becomes infinity. */
    void (*store[DTYPE_COUNT])(const real *in, void *out, size_t n);
    /* store for values of a working type, which there is nothing left to round of. */
    void (*pack[DTYPE_COUNT])(const real *in, void *out, size_t n);
    /* x = r(x), NaN stays NaN: the cast of arbitrary reals to the working type. */
    void (*cast[ROUND_COUNT])(real *x, size_t n);
    /* x = r(x) for results of operations on values of the type: what every chain below uses. A NaN
     * there is the CPU's own or a value of the type, so rounding cannot carry it into an infinity. */
    void (*settle[ROUND_COUNT])(real *x, size_t n);

    /* Methods' steps follow; their files say which formula they make up. */

    /* acc = acc + x, not rounded to the working type */
    void (*add)(real *acc, const real *x, size_t n);
    /* linear: acc = fma(x, w, acc) */
    void (*fma)(real *acc, const real *x, real w, size_t n);
    /* acc = acc + r(w r(x - base)): a task vector's share of the sum, itself not rounded */
    void (*task_add[ROUND_COUNT])(real *acc, const real *x, const real *base, real w, size_t n);
    /* acc = r(acc / divisor); acc holds float32 or values of the type */
    void (*divide[ROUND_COUNT])(real *acc, real divisor, size_t n);
    /* x = r(x s) */
    void (*scale[ROUND_COUNT])(real *x, real s, size_t n);
    /* out = r(base + r(acc)) */
    void (*apply[ROUND_COUNT])(const real *base, const real *acc, real *out, size_t n);
    /* apply after task_add of `donors` inputs (1 to TASK_FUSED) from acc = 0, all packed BF16: the commonest
     * merge without a trip through memory for each step. NULL for float64. */
    void (*task_bf16[TASK_FUSED + 1])(const void *base, const void *const *x, const real *w, void *out,
                                      size_t n);
    /* The same for linear: fma of so many inputs from acc = 0, divide by *divisor if that is not NULL, store
     */
    void (*linear_bf16[TASK_FUSED + 1])(const void *const *x, const real *w, const real *divisor, void *out,
                                        size_t n);
    /* delta and mix of packed BF16, which mix packs too. NULL for float64. */
    void (*delta_bf16)(const void *x, const void *base, real *out, size_t n);
    void (*mix_bf16)(const void *a, real ca, const void *b, real cb, void *out, size_t n);
    /* Pruned task vectors and what is made of them (kernel_task.h). out = r(x - base) */
    void (*delta[ROUND_COUNT])(const real *x, const real *base, real *out, size_t n);
    /* key: orders magnitudes, all NaN the same and the largest: 15 bits in 16-bit types, else 31 or 63 */
    void (*order_key[ROUND_COUNT])(const real *x, real_bits *key, size_t n);
    /* key = key >> shift, and zeros zero + 0, zero + 1 ... zero + SPREAD_ZEROS - 1 in turn */
    void (*spread_zeros)(real_bits *key, unsigned shift, uint32_t zero, size_t n);
    /* The smallest of keys that is not 0, and the largest of all; where all are 0, least is anything. */
    void (*key_range)(const real_bits *key, size_t n, real_bits *least, real_bits *most);
    /* x = x times whether the bits of |by|, those of NaN being REAL_NAN, are in [low, high) */
    void (*select)(real *x, const real *by, real_bits low, real_bits high, size_t n);
    /* bins[j][key]++ with the keys that delta, order_key and spread_zeros make of packed BF16, of k inputs (1
     * to TASK_FUSED); zero: at most 2^16 - SPREAD_ZEROS. NULL for float64. */
    void (*count_deltas_bf16)(unsigned k, const void *const *x, const void *base, uint32_t zero,
                              uint32_t *const *bins, size_t n);
    /* keep: all bits where rng_draw has it of probability p, else 0 */
    void (*keep_random)(const struct draws *of, double p, uint16_t *keep, size_t n);
    /* the same of probabilities low + step rank, above 0 and below 1; rank below 2^31 */
    void (*keep_ranked)(const struct draws *of, const uint32_t *rank, double low, double step, uint16_t *keep,
                        size_t n);
    /* x = x times whether it is kept */
    void (*keep)(real *x, const uint16_t *keep, size_t n);
    /* e = r(r(d scale) w) of d = delta_bf16 after keep; e = r(d w) of values; packed BF16. NULL for float64.
     */
    void (*kept_bf16)(const void *x, const void *base, const uint16_t *keep, real scale, real w, void *e,
                      size_t n);
    void (*weigh_bf16)(const real *d, real w, void *e, size_t n);
    /* sums = sum_abs of delta_bf16, and of that after keep. NULL for float64. */
    void (*norms_bf16)(const void *x, const void *base, const uint16_t *keep, double sums[2], size_t n);
    /* The sum of |x|, of r(x x), in float64: the bytes are the same everywhere, and depend on how a tensor is
     * cut. */
    double (*sum_abs)(const real *x, size_t n);
    double (*sum_squares[ROUND_COUNT])(const real *x, size_t n);
    /* acc = acc + r(x (w k)) with k 1 where x has the sign of sum, in which 0 is positive and NaN negative;
     * 0 elsewhere, and where x is 0 */
    void (*agree[ROUND_COUNT])(real *acc, const real *x, const real *sum, real w, size_t n);
    /* acc = acc + w k */
    void (*agree_weight)(real *acc, const real *x, const real *sum, real w, size_t n);
    /* Of so many weighted deltas x (1 to TASK_FUSED): out = r(base + r(lambda m)), m the sum of what agrees
     * with the sum's sign, divided by that of its weights if `normalize`: agree, agree_weight and divide_by
     * in one */
    void (*consensus[ROUND_COUNT][TASK_FUSED + 1])(const real *base, const real *const *x, const real *w,
                                                   bool normalize, real lambda, real *out, size_t n);
    /* The same of packed BF16; and for the plain sum: out = r(base + r(lambda r(r(sum x) / divisor))). NULL
     * for float64. */
    void (*consensus_bf16[TASK_FUSED + 1])(const void *base, const void *const *x, const real *w,
                                           bool normalize, real lambda, void *out, size_t n);
    void (*sum_bf16[TASK_FUSED + 1])(const void *base, const void *const *x, real divisor, real lambda,
                                     void *out, size_t n);
    /* acc = r(r(acc) / r(divisor)), with 1 for a divisor of 0; with `least` for smaller ones */
    void (*divide_by[ROUND_COUNT])(real *acc, const real *divisor, size_t n);
    void (*divide_least[ROUND_COUNT])(real *acc, const real *divisor, real least, size_t n);
    /* out = r(population variance of r(x - in[base]) over the k other inputs), k at least 1 */
    void (*variance[ROUND_COUNT])(const real *const *in, unsigned base, unsigned k, real *out, size_t n);
    /* The same of packed BF16; counted as count_deltas_bf16 does. NULL for float64, as are the next two. */
    void (*variance_bf16)(const void *const *in, unsigned base, unsigned k, void *out, size_t n);
    void (*count_variances_bf16)(const void *const *in, unsigned base, unsigned k, uint32_t zero,
                                 uint32_t *bins, size_t n);
    /* out = r(x - base) times whether the order key of `by` is `least` or more */
    void (*selected_delta_bf16)(const void *x, const void *base, const void *by, uint32_t least, real *out,
                                size_t n);
    /* method_sce.c's last line, with the selected deltas of so many donors (1 to TASK_FUSED) */
    void (*sce_bf16[TASK_FUSED + 1])(const void *base, const void *const *x, const void *by, uint32_t least,
                                     const real *w, real floor, void *out, size_t n);
    /* method_ram.c: count = count + (|r(x - base)| > eps); acc = acc + what such an input adds, where so many
     * do; plus: in float32, and times `lone` where it is the only one */
    void (*ram_count[ROUND_COUNT])(real *count, const real *x, const real *base, real eps, size_t n);
    void (*ram_add[ROUND_COUNT])(real *acc, const real *x, const real *base, real eps, const real *count,
                                 size_t n);
    void (*ramplus_add[ROUND_COUNT])(real *acc, const real *x, const real *base, real eps, const real *count,
                                     real lone, size_t n);
    /* nearswap of base a and donor b: method_nearswap.c's formula with t */
    void (*nearswap[ROUND_COUNT])(const real *a, const real *b, real t, real *out, size_t n);

    /* Sums in float64, in lanes by the position in the array, folded in a fixed order; not rounded.
     * Norms and dots: kernel_norm.h. */

    /* sum x^2; sum a b: products are exact */
    double (*squares)(const real *x, size_t n);
    double (*dot)(const real *a, const real *b, size_t n);
    /* sum r(a b) */
    double (*dot_rounded[ROUND_COUNT])(const real *a, const real *b, size_t n);
    /* sum r(r(a/na) r(b/nb)) */
    double (*dot_units[ROUND_COUNT])(const real *a, real na, const real *b, real nb, size_t n);
    /* out = r(x / divisor) */
    void (*quotient[ROUND_COUNT])(const real *x, real divisor, real *out, size_t n);
    /* acc = acc + r(x w), itself not rounded */
    void (*scaled_add[ROUND_COUNT])(real *acc, const real *x, real w, size_t n);
    /* acc = acc + r(r(x - r(dot mean)) w), itself not rounded */
    void (*tangent_add[ROUND_COUNT])(real *acc, const real *x, const real *mean, real dot, real w, size_t n);
    /* settle after scaled_add, after tangent_add, of so many inputs (1 to TASK_FUSED) from acc = 0 */
    void (*mean[ROUND_COUNT][TASK_FUSED + 1])(const real *const *x, const real *w, real *out, size_t n);
    void (*tangent[ROUND_COUNT][TASK_FUSED + 1])(const real *const *x, const real *mean, const real *dots,
                                                 const real *w, real *out, size_t n);
    /* The same of 2 to TASK_FUSED vectors of packed BF16 in one: the inputs, or where there is a base their
     * deltas from it (kernel_gram.h); what is written is packed, too. NULL for float64.
     * sums[i] += the Gram matrix, in norm_pair's order; _rounded: with dot_rounded off the diagonal */
    void (*gram_bf16[TASK_FUSED + 1])(const void *const *x, const void *base, size_t n, double *sums);
    void (*gram_rounded_bf16[TASK_FUSED + 1])(const void *const *x, const void *base, size_t n, double *sums);
    /* sums[0] += squares of the mean before it is divided, sums[1 + i] += dot_rounded of it and unit i */
    void (*sphere_sums_bf16[TASK_FUSED + 1])(const void *const *x, const void *base,
                                             const struct sphere *sphere, size_t n, double *sums);
    /* multislerp where its cos n_res and sin n_res / n_res are 1 */
    void (*sphere_bf16[TASK_FUSED + 1])(const void *const *x, const void *base, const struct sphere *sphere,
                                        void *out, size_t n);
    /* model_stock with its t and 1 - t; there is a base */
    void (*stock_bf16[TASK_FUSED + 1])(const void *const *x, const void *base, real t, real rest, void *out,
                                       size_t n);
    /* combine, of the inputs */
    void (*combine_bf16[TASK_FUSED + 1])(const void *const *x, const double *c, void *out, size_t n);
    /* acc = r(acc + x) */
    void (*add_rounded[ROUND_COUNT])(real *acc, const real *x, size_t n);
    /* out = r(ca a + cb b) in float32; blend: out = r(r(ca a) + r(cb b)) */
    void (*mix[ROUND_COUNT])(const real *a, real ca, const real *b, real cb, real *out, size_t n);
    void (*blend[ROUND_COUNT])(const real *a, real ca, const real *b, real cb, real *out, size_t n);
    /* Elements [at, at + n) of out = r(c_0 x_0 + c_1 x_1 ...) of k >= 1 arrays, in float64, rounded
     * to a real, then r */
    void (*combine[ROUND_COUNT])(const real *const *x, const double *c, unsigned k, real *out, size_t at,
                                 size_t n);

    /* arcee_fusion, for a row of n >= 1 */

    /* the largest element; NaN is passed over, but where it is first */
    real (*largest)(const real *x, size_t n);
    /* high + low = e^(x - largest) to 48 bits */
    void (*exponentials)(const real *x, real largest, real *high, real *low, size_t n);
    double (*sum_pairs)(const real *high, const real *low, size_t n);
    /* sum r(p r(ln r(p/q))), p = r(r((high + low) scale) + 1e-8), q likewise of base */
    double (*sum_divergence[ROUND_COUNT])(const real *high, const real *low, double scale,
                                          const real *base_high, const real *base_low, double base_scale,
                                          size_t n);
    /* out = r(|r(x - base)| divergence) */
    void (*importance[ROUND_COUNT])(const real *x, const real *base, real divergence, real *out, size_t n);
    /* out = base + r(x - base) where importance >= threshold, else base; float32 */
    void (*fuse[ROUND_COUNT])(const real *x, const real *base, const real *importance, real threshold,
                              real *out, size_t n);
};

/* Every set this CPU can run, best first; count in *n. The last is the baseline. */
const struct kernels *const *kernels_available(size_t *n);
const struct kernels *kernels_best(void);
#ifndef REAL_F64
/* The one set of float64, to be handed to what is built for it. */
const struct kernels *kernels_best_f64(void);
#endif

/* x to a real, then to the working type. */
real kernel_round(enum round round, double x);

/* Sum of n scalars of the working type, not rounded, in the order in which torch adds the elements
 * of a short contiguous vector. */
real kernel_sum_scalars(const real *x, size_t n, enum round round);

#endif
