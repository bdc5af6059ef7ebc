/* Bodies of the primitives of norms, dots and what is made of them; part of kernel_tile.c, which includes
 * this file once for each instruction set.
 *
 * A reduction adds element i to lane i mod LANES, in float64, and folds the lanes in a fixed order: every
 * instruction set does the same additions. */

enum { LANES = 16 };

INLINE double fold_lanes(double lane[LANES])
{
    for (size_t width = LANES / 2; width > 0; width /= 2)
        for (size_t j = 0; j < width; j++)
            lane[j] = lane[j] + lane[j + width];
    return lane[0];
}

/* The body of a reduction over n elements: `term` is a double, made of element i. */
#define RETURN_SUM(n, term)                         \
    double lane[LANES] = {0};                       \
    size_t whole = (n) / LANES * LANES;             \
    for (size_t at = 0; at < whole; at += LANES) {  \
        for (size_t j = 0; j < LANES; j++) {        \
            const size_t i = at + j;                \
            lane[j] = lane[j] + (term);             \
        }                                           \
    }                                               \
    for (size_t i = whole; i < (n); i++)            \
        lane[i - whole] = lane[i - whole] + (term); \
    return fold_lanes(lane)

static double squares(const real *x, size_t n)
{
    RETURN_SUM(n, (double)x[i] * (double)x[i]);
}

static double dot(const real *a, const real *b, size_t n)
{
    RETURN_SUM(n, (double)a[i] * (double)b[i]);
}

INLINE double dot_rounded(round_fn *r, const real *a, const real *b, size_t n)
{
    RETURN_SUM(n, (double)r(a[i] * b[i]));
}
EACH_TYPE_SUM(dot_rounded, (const real *a, const real *b, size_t n), a, b, n)

INLINE double dot_units(round_fn *r, const real *a, real na, const real *b, real nb, size_t n)
{
    RETURN_SUM(n, (double)r(r(a[i] / na) * r(b[i] / nb)));
}
EACH_TYPE_SUM(dot_units, (const real *a, real na, const real *b, real nb, size_t n), a, na, b, nb, n)

INLINE void quotient(round_fn *r, const real *x, real divisor, real *out, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        out[i] = r(x[i] / divisor);
}
EACH_TYPE(quotient, (const real *x, real divisor, real *out, size_t n), x, divisor, out, n)

INLINE void scaled_add(round_fn *r, real *acc, const real *x, real w, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        acc[i] = acc[i] + r(x[i] * w);
}
EACH_TYPE(scaled_add, (real * acc, const real *x, real w, size_t n), acc, x, w, n)

INLINE void tangent_add(round_fn *r, real *acc, const real *x, const real *mean, real dot, real w, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        acc[i] = acc[i] + r(r(x[i] - r(dot * mean[i])) * w);
}
EACH_TYPE(tangent_add, (real * acc, const real *x, const real *mean, real dot, real w, size_t n), acc, x,
          mean, dot, w, n)

/* scaled_add of k arrays from 0, settled; tangent_add likewise. k is a constant where these are inlined. */
INLINE void mean_of(round_fn *r, unsigned k, const real *const *x, const real *w, real *out, size_t n)
{
    const real *u[TASK_FUSED];
    real weight[TASK_FUSED];

    for (unsigned j = 0; j < k; j++) {
        u[j] = x[j];
        weight[j] = w[j];
    }
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        real sum = 0;
        for (unsigned j = 0; j < k; j++)
            sum = sum + r(u[j][i] * weight[j]);
        out[i] = r(sum);
    }
}

INLINE void tangent_of(round_fn *r, unsigned k, const real *const *x, const real *mean, const real *dots,
                       const real *w, real *out, size_t n)
{
    const real *u[TASK_FUSED];
    real weight[TASK_FUSED], dot[TASK_FUSED];

    for (unsigned j = 0; j < k; j++) {
        u[j] = x[j];
        weight[j] = w[j];
        dot[j] = dots[j];
    }
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        real sum = 0;
        for (unsigned j = 0; j < k; j++)
            sum = sum + r(r(u[j][i] - r(dot[j] * mean[i])) * weight[j]);
        out[i] = r(sum);
    }
}

#define SPHERE_OF(k, type)                                                                     \
    static void mean_##k##_##type(const real *const *x, const real *w, real *out, size_t n)    \
    {                                                                                          \
        mean_of(round_##type, k, x, w, out, n);                                                \
    }                                                                                          \
    static void tangent_##k##_##type(const real *const *x, const real *mean, const real *dots, \
                                     const real *w, real *out, size_t n)                       \
    {                                                                                          \
        tangent_of(round_##type, k, x, mean, dots, w, out, n);                                 \
    }
#define SPHERE(type)   \
    SPHERE_OF(1, type) \
    SPHERE_OF(2, type) \
    SPHERE_OF(3, type) \
    SPHERE_OF(4, type)
SPHERE(none)
#ifndef REAL_F64
SPHERE(bf16)
SPHERE(f16)
#endif
#define FUSED_ENTRIES(name, type)                                                \
    {                                                                            \
        NULL, name##_1_##type, name##_2_##type, name##_3_##type, name##_4_##type \
    }

INLINE void add_rounded(round_fn *r, real *acc, const real *x, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        acc[i] = r(acc[i] + x[i]);
}
EACH_TYPE(add_rounded, (real * acc, const real *x, size_t n), acc, x, n)

INLINE void mix(round_fn *r, const real *a, real ca, const real *b, real cb, real *out, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        out[i] = r(ca * a[i] + cb * b[i]);
}
EACH_TYPE(mix, (const real *a, real ca, const real *b, real cb, real *out, size_t n), a, ca, b, cb, out, n)

#ifndef REAL_F64
INLINE void mix_pairs(const void *packed_a, float ca, const void *packed_b, float cb, void *out, size_t n)
{
    const u32_packed *a = packed_a, *b = packed_b;
    u32_packed *y = out;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        y[i] =
            to_pair(ca * low_half(a[i]) + cb * low_half(b[i]), ca * high_half(a[i]) + cb * high_half(b[i]));
}

static void mix_of_bf16(const void *a, float ca, const void *b, float cb, void *out, size_t n)
{
    uint32_t last_a, last_b, last_out;

    mix_pairs(a, ca, b, cb, out, n / 2);
    if (n % 2 == 0)
        return;
    last_a = last_of(a, n);
    last_b = last_of(b, n);
    mix_pairs(&last_a, ca, &last_b, cb, &last_out, 1);
    ((u16_packed *)out)[n - 1] = (uint16_t)last_out;
}
#endif

INLINE void blend(round_fn *r, const real *a, real ca, const real *b, real cb, real *out, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        out[i] = r(r(ca * a[i]) + r(cb * b[i]));
}
EACH_TYPE(blend, (const real *a, real ca, const real *b, real cb, real *out, size_t n), a, ca, b, cb, out, n)

/* In runs short enough to keep their sums in registers. */
enum { RUN = 32 };

INLINE void combine_run(round_fn *r, const real *const *x, const double *c, unsigned k, size_t at, size_t n,
                        real *out)
{
    double sum[RUN];

    for (size_t i = 0; i < n; i++)
        sum[i] = c[0] * (double)x[0][at + i];
    for (unsigned j = 1; j < k; j++)
        for (size_t i = 0; i < n; i++)
            sum[i] = sum[i] + c[j] * (double)x[j][at + i];
    for (size_t i = 0; i < n; i++)
        out[at + i] = r((real)sum[i]);
}

INLINE void combine(round_fn *r, const real *const *x, const double *c, unsigned k, real *out, size_t at,
                    size_t n)
{
    size_t end = at + n;

    for (; at + RUN <= end; at += RUN)
        combine_run(r, x, c, k, at, RUN, out);
    combine_run(r, x, c, k, at, end - at, out);
}
EACH_TYPE(combine, (const real *const *x, const double *c, unsigned k, real *out, size_t at, size_t n), x, c,
          k, out, at, n)

/* ---- exp and log, the same bytes everywhere: libm's differ between versions and CPUs */

INLINE uint64_t bits_of_double(double x)
{
    uint64_t u;

    memcpy(&u, &x, sizeof(u));
    return u;
}

INLINE double double_of(uint64_t u)
{
    double x;

    memcpy(&x, &u, sizeof(x));
    return x;
}

/* What float64 takes of the series beyond what float32 does. */
#ifdef REAL_F64
#define EXP_TAIL(r)                        \
    ((r) * (1.0 / 362880 +                 \
            (r) * (1.0 / 3628800 +         \
                   (r) * (1.0 / 39916800 + \
                          (r) * (1.0 / 479001600 + (r) * (1.0 / 6227020800 + (r) / 87178291200))))))
#define LOG_TAIL(z) ((z) * (2.0 / 15 + (z) * (2.0 / 17 + (z) * (2.0 / 19 + (z) * (2.0 / 21)))))
#else
#define EXP_TAIL(r) 0
#define LOG_TAIL(z) 0
#endif

/* e^x for x <= 0, relative error below 3e-10, in float64 4e-16; below e^-200, which float32 does not have,
 * that. NaN stays NaN. With k the integer nearest to x / ln 2, e^x = 2^k e^r, |r| <= ln 2 / 2, by Taylor's
 * series. Adding 1.5 x 2^52 rounds to an integer and leaves it in the lowest bits, which are then added to
 * the exponent. */
INLINE double exp_negative(double x)
{
    const double magic = 0x1.8p52, ln2_high = 0x1.62e42fefa3800p-1, ln2_low = 0x1.ef35793c76730p-45;
    double shifted, k, r, p;

    x = x < -200 ? -200 : x;
    shifted = x * 0x1.71547652b82fep0 + magic;
    k = shifted - magic;
    r = (x - k * ln2_high) - k * ln2_low;
    p = EXP_TAIL(r) + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1;
    p = p * r + 1;
    return double_of(bits_of_double(p) + (bits_of_double(shifted) << 52));
}

/* ln x for normal x >= 0, relative error below 1e-11, in float64 1e-15, near 1 too. ln(2^k m) = k ln 2 + 2
 * artanh(s) with s = (m - 1) / (m + 1) and m between the square roots of 1/2 and 2. */
INLINE double log_positive(double x)
{
    const uint64_t root_half = 0x3fe6a09e667f3bcd, bias = (uint64_t)0x400 << 52;
    uint64_t above = bits_of_double(x) - root_half + bias, exponent = above >> 52;
    double k = double_of(0x4330000000000000 | exponent) - (0x1p52 + 0x400);
    double m = double_of((above & 0x000fffffffffffff) + root_half);
    double s = (m - 1) / (m + 1), z = s * s, p;

    p = LOG_TAIL(z) + 2.0 / 13;
    p = p * z + 2.0 / 11;
    p = p * z + 2.0 / 9;
    p = p * z + 2.0 / 7;
    p = p * z + 2.0 / 5;
    p = p * z + 2.0 / 3;
    p = p * z + 2;
    p = k * 0x1.62e42fefa39efp-1 + s * p;
    p = x < 0x1p-1022 ? -INFINITY : p;
    return x <= 0x1.fffffffffffffp1023 ? p : x;
}

/* ---- arcee_fusion */

static real largest(const real *x, size_t n)
{
    real lane[LANES];
    size_t whole = n / LANES * LANES;

    for (size_t j = 0; j < LANES; j++)
        lane[j] = x[0];
    for (size_t at = 0; at < whole; at += LANES)
        for (size_t j = 0; j < LANES; j++)
            lane[j] = x[at + j] > lane[j] ? x[at + j] : lane[j];
    for (size_t i = whole; i < n; i++)
        lane[0] = x[i] > lane[0] ? x[i] : lane[0];
    for (size_t j = 1; j < LANES; j++)
        lane[0] = lane[j] > lane[0] ? lane[j] : lane[0];
    return lane[0];
}

static void exponentials(const real *x, real largest, real *high, real *low, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        double e = exp_negative((double)x[i] - (double)largest);
        high[i] = (real)e;
        low[i] = (real)(e - (double)high[i]);
    }
}

static double sum_pairs(const real *high, const real *low, size_t n)
{
    RETURN_SUM(n, (double)high[i] + (double)low[i]);
}

INLINE real probability(round_fn *r, real high, real low, double scale)
{
    return r(r((real)(((double)high + (double)low) * scale)) + (real)1e-8);
}

INLINE real divergence(round_fn *r, real p, real q)
{
    return r(p * r((real)log_positive((double)r(p / q))));
}

INLINE double sum_divergence(round_fn *r, const real *high, const real *low, double scale,
                             const real *base_high, const real *base_low, double base_scale, size_t n)
{
    RETURN_SUM(n, (double)divergence(r, probability(r, high[i], low[i], scale),
                                     probability(r, base_high[i], base_low[i], base_scale)));
}
EACH_TYPE_SUM(sum_divergence,
              (const real *high, const real *low, double scale, const real *base_high, const real *base_low,
               double base_scale, size_t n),
              high, low, scale, base_high, base_low, base_scale, n)

INLINE void importance(round_fn *r, const real *x, const real *base, real divergence, real *out, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        out[i] = r(real_abs(r(x[i] - base[i])) * divergence);
}
EACH_TYPE(importance, (const real *x, const real *base, real divergence, real *out, size_t n), x, base,
          divergence, out, n)

/* 0 times a delta is NaN where that is infinite: kept. */
INLINE void fuse(round_fn *r, const real *x, const real *base, const real *importance, real threshold,
                 real *out, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        real kept = importance[i] >= threshold ? (real)1 : (real)0;
        out[i] = base[i] + r(x[i] - base[i]) * kept;
    }
}
EACH_TYPE(fuse,
          (const real *x, const real *base, const real *importance, real threshold, real *out, size_t n), x,
          base, importance, threshold, out, n)
