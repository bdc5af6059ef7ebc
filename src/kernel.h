/* Numeric primitives over tiles of float32, one body each, built per instruction set, dispatched once.
 *
 * A value of the working type is held in a float32 that the type can represent; an operation is the float32
 * operation followed by rounding to the type (nearest, ties to even). The bytes never depend on the CPU: no
 * contraction, no reassociation, fmaf only where a formula has it. NaN payloads are not part of the contract.
 * n is any number of elements; float pointers need no alignment beyond their type's, packed ones none; out
 * may equal an input, but ranges must not overlap otherwise.
 */
#ifndef KERNEL_H
#define KERNEL_H

#include <stddef.h>
#include <stdint.h>

#include "dtype.h"

enum round { ROUND_F32, ROUND_BF16, ROUND_F16, ROUND_COUNT }; /* the working types */

enum round round_of(enum dtype dtype); /* dtype: F32, BF16 or F16 */

enum { TASK_FUSED = 4 }; /* donors that the fused task vector kernels take */

/* A primitive that rounds has one entry a working type. */
struct kernels {
    const char *isa; /* "baseline", "avx2", "avx512" */

    /* Widen n elements of F16, BF16, F32 exactly; F64 is rounded to float32. load[] of another type is NULL.
     */
    void (*load[DTYPE_COUNT])(const void *in, float *out, size_t n);
    /* Round float32 to F16, BF16, F32, F64 (exact). NaN stays NaN, overflow becomes infinity. */
    void (*store[DTYPE_COUNT])(const float *in, void *out, size_t n);
    /* store for values that F16, BF16, F32 can represent: no rounding left to do. */
    void (*pack[DTYPE_COUNT])(const float *in, void *out, size_t n);
    /* x = r(x), NaN stays NaN: the cast of arbitrary float32 to the working type. */
    void (*cast[ROUND_COUNT])(float *x, size_t n);
    /* x = r(x) for results of float32 operations on values of the type: what every chain below uses. A NaN
     * there is the CPU's own or a value of the type, so rounding cannot carry it into an infinity. */
    void (*settle[ROUND_COUNT])(float *x, size_t n);

    /* Methods' steps follow; their files say which formula they make up. */

    /* acc = acc + x in float32 */
    void (*add)(float *acc, const float *x, size_t n);
    /* linear: acc = fmaf(x, w, acc) */
    void (*fma)(float *acc, const float *x, float w, size_t n);
    /* acc = acc + r(w r(x - base)): a task vector's share of the sum, itself not rounded */
    void (*task_add[ROUND_COUNT])(float *acc, const float *x, const float *base, float w, size_t n);
    /* acc = r(acc / divisor); acc holds float32 or values of the type */
    void (*divide[ROUND_COUNT])(float *acc, float divisor, size_t n);
    /* x = r(x s) */
    void (*scale[ROUND_COUNT])(float *x, float s, size_t n);
    /* out = r(base + r(acc)) */
    void (*apply[ROUND_COUNT])(const float *base, const float *acc, float *out, size_t n);
    /* apply after task_add of `donors` inputs (1 to TASK_FUSED) from acc = 0, all packed BF16: the commonest
     * merge without a trip through memory for each step. */
    void (*task_bf16[TASK_FUSED + 1])(const void *base, const void *const *x, const float *w, void *out,
                                      size_t n);
    /* nearswap of base a and donor b: method_nearswap.c's formula with t */
    void (*nearswap[ROUND_COUNT])(const float *a, const float *b, float t, float *out, size_t n);
};

/* Every set this CPU can run, best first; count in *n. The last is the baseline. */
const struct kernels *const *kernels_available(size_t *n);
const struct kernels *kernels_best(void);

/* Sum of n scalars of the working type in float32, not rounded, in the order in which torch adds the elements
 * of a short contiguous vector. */
float kernel_sum_scalars(const float *x, size_t n, enum round round);

#endif
