#include "kernel.h"

#include <stdbool.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "packed elements are read in the machine's order");

#ifdef REAL_F64
extern const struct kernels kernels_f64;

static const struct kernels *const sets[] = {&kernels_f64};

static size_t unsupported(void)
{
    return 0;
}
#elif defined(__x86_64__)
extern const struct kernels kernels_baseline;
extern const struct kernels kernels_avx2, kernels_avx512;
#ifdef KERNELS_AVX512_BF16
extern const struct kernels kernels_avx512_bf16;
#endif

static const struct kernels *const sets[] = {
#ifdef KERNELS_AVX512_BF16
    &kernels_avx512_bf16,
#endif
    &kernels_avx512, &kernels_avx2, &kernels_baseline};
enum { SETS = sizeof(sets) / sizeof(sets[0]) };

static bool runs_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool runs_avx512(void)
{
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

static size_t unsupported(void)
{
    size_t runs = runs_avx512() ? 3 : runs_avx2() ? 2 : 1;

    if (runs == 3 && __builtin_cpu_supports("avx512bf16"))
        return 0;
    return SETS - runs;
}
#else
extern const struct kernels kernels_baseline;

static const struct kernels *const sets[] = {&kernels_baseline};

static size_t unsupported(void)
{
    return 0;
}
#endif

const struct kernels *const *kernels_available(size_t *n)
{
    size_t skip = unsupported();

    *n = sizeof(sets) / sizeof(sets[0]) - skip;
    return sets + skip;
}

const struct kernels *kernels_best(void)
{
    size_t n;

    return kernels_available(&n)[0];
}

real kernel_round(enum round round, double x)
{
    real y = (real)x;

    kernels_best()->cast[round](&y, 1);
    return y;
}

/* torch sums a contiguous vector (ATen's SumKernel, whatever the CPU) with vectors of 8 float32, of 4
 * float64, or of 16 16-bit elements whose halves are added first; the vectors go to four interleaved partial
 * sums, what is left over to the first of them; the lanes are added to the sum of the elements that fill no
 * vector. Fewer elements than a vector are summed as if each were one. A partial sum of 16 steps moves to a
 * second level.
 */
enum { LANES = REAL_TORCH_LANES, PARTIALS = 4, LEVEL = 16 };

struct lane {
    const real *x;
    size_t step, fold; /* distance of successive elements; of the one added on loading, 0: none */
};

static real lane_at(const struct lane *lane, size_t i)
{
    const real *x = lane->x + i * lane->step;

    return lane->fold ? x[0] + x[lane->fold] : x[0];
}

static real lane_partial(const struct lane *lane, size_t first, size_t n)
{
    real low = 0, high = 0;

    for (size_t i = 0; i < n; i++) {
        low += lane_at(lane, first + i * PARTIALS);
        if ((i + 1) % LEVEL == 0) {
            high += low;
            low = 0;
        }
    }
    return low + high;
}

static real lane_sum(const struct lane *lane, size_t n)
{
    real sum[PARTIALS];

    for (size_t i = 0; i < PARTIALS; i++)
        sum[i] = lane_partial(lane, i, n / PARTIALS);
    for (size_t i = n / PARTIALS * PARTIALS; i < n; i++)
        sum[0] += lane_at(lane, i);
    return ((sum[0] + sum[1]) + sum[2]) + sum[3];
}

real kernel_sum_scalars(const real *x, size_t n, enum round round)
{
    size_t fold = round == ROUND_NONE ? 0 : LANES, vector = LANES + fold, vectors = n / vector;
    real sum = 0;

    if (vectors == 0)
        return lane_sum(&(struct lane){x, 1, 0}, n);
    for (size_t i = vectors * vector; i < n; i++)
        sum += x[i];
    for (size_t i = 0; i < LANES; i++)
        sum += lane_sum(&(struct lane){x + i, vector, fold}, vectors);
    return sum;
}
