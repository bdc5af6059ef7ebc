/* Bodies of struct kernels for sce: a part of kernel_tile.c, behind kernel_task.h.
 */
#ifndef KERNEL_SCE_H
#define KERNEL_SCE_H

/* ---- variance over donors */

enum { STRIP = 64 };

/* x / count; where `exact`, count is a power of two and the product the same. */
INLINE double divide_count(double x, double count, double inverse, bool exact)
{
    return exact ? x * inverse : x / count;
}

/* x: differences from the base, as are the next ones'. */
INLINE void welford(const real *x, unsigned count, bool exact, double *mean, double *m2, size_t n)
{
    double inverse = 1.0 / count;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        double value = x[i], d = value - mean[i];
        mean[i] = mean[i] + divide_count(d, count, inverse, exact);
        m2[i] = m2[i] + d * (value - mean[i]);
    }
}

/* The first one's step: its mean is itself, and infinities make NaN. */
INLINE void welford_first(const real *x, double *mean, double *m2, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        mean[i] = x[i];
        m2[i] = mean[i] - mean[i];
    }
}

INLINE bool is_power_of_two(unsigned count)
{
    return (count & (count - 1)) == 0;
}

INLINE void welford_next(const real *x, unsigned j, double *mean, double *m2, size_t n)
{
    if (j == 0)
        welford_first(x, mean, m2, n);
    else if (is_power_of_two(j + 1))
        welford(x, j + 1, true, mean, m2, n);
    else
        welford(x, j + 1, false, mean, m2, n);
}

INLINE void variance_of(round_fn *r, const double *m2, unsigned count, bool exact, real *out, size_t n)
{
    double inverse = 1.0 / count;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        out[i] = r((real)divide_count(m2[i], count, inverse, exact));
}

INLINE void variance_end(round_fn *r, const double *m2, unsigned k, real *out, size_t n)
{
    if (is_power_of_two(k))
        variance_of(r, m2, k, true, out, n);
    else
        variance_of(r, m2, k, false, out, n);
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
    real d[STRIP];

    for (unsigned j = 0; j < k; j++) {
        delta(r, donor_of(in, base, j) + at, in[base] + at, d, n);
        welford_next(d, j, mean, m2, n);
    }
    variance_end(r, m2, k, out, n);
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

#ifndef REAL_F64
/* Element `at` and on of donor j, packed. */
INLINE const u16_packed *packed_of(const void *const *in, unsigned base, unsigned j, size_t at)
{
    return (const u16_packed *)in[j < base ? j : j + 1] + at;
}

INLINE void packed_strip(const void *const *in, unsigned base, unsigned k, size_t at, u16_packed *out,
                         size_t n)
{
    double mean[STRIP], m2[STRIP];
    float d[STRIP];

    for (unsigned j = 0; j < k; j++) {
        delta_of_bf16(packed_of(in, base, j, at), (const u16_packed *)in[base] + at, d, n);
        welford_next(d, j, mean, m2, n);
    }
    variance_end(round_bf16, m2, k, d, n);
    pack_bf16(d, out, n);
}

struct half_variance {
    float value; /* not rounded; only if exact */
    uint32_t inexact;
};

/* Of two deltas, where float32 holds their difference: float64, in which all but the last step is exact then,
 * comes to the same. It does if one of two subtractions that give the deltas back, that of the larger, is
 * right; NaN is not. */
INLINE struct half_variance two_halves(half_fn *half, uint32_t x, uint32_t y, uint32_t base)
{
    float first = round_bf16(half(x) - half(base)), value = round_bf16(half(y) - half(base));
    float d = value - first, deviation = d * 0.5f;

    return (struct half_variance){deviation * deviation,
                                  (uint32_t)(value - d != first) | (uint32_t)(d + first != value)};
}

/* Of STRIP elements. false: some are inexact. */
INLINE bool two_exactly(const void *x, const void *y, const void *base, void *out)
{
    const u32_packed *a = x, *b = y, *c = base;
    u32_packed *to = out;
    uint32_t inexact = 0;

    EACH_ELEMENT
    for (size_t i = 0; i < STRIP / 2; i++) {
        struct half_variance low = two_halves(low_half, a[i], b[i], c[i]),
                             high = two_halves(high_half, a[i], b[i], c[i]);
        to[i] = to_pair(low.value, high.value);
        inexact |= low.inexact | high.inexact;
    }
    return inexact == 0;
}

/* Of elements [at, at + n). */
INLINE void packed_variance(const void *const *in, unsigned base, unsigned k, size_t at, u16_packed *out,
                            size_t n)
{
    for (size_t end = at + n, step; at < end; at += step, out += step) {
        step = end - at < STRIP ? end - at : STRIP;
        if (k != 2 || step < STRIP ||
            !two_exactly(packed_of(in, base, 0, at), packed_of(in, base, 1, at),
                         (const u16_packed *)in[base] + at, out))
            packed_strip(in, base, k, at, out, step);
    }
}

static void variance_packed(const void *const *in, unsigned base, unsigned k, void *out, size_t n)
{
    packed_variance(in, base, k, 0, out, n);
}

static void count_variances(const void *const *in, unsigned base, unsigned k, uint32_t zero, uint32_t *bins,
                            size_t n)
{
    uint16_t key[COUNTED] = {0};
    size_t whole = n / COUNTED * COUNTED;

    for (size_t at = 0; at < whole; at += COUNTED) {
        packed_variance(in, base, k, at, key, COUNTED);
        to_keys(zero, key);
        count_keys(key, bins);
    }
    packed_variance(in, base, k, whole, key, n - whole);
    to_keys(zero, key);
    for (size_t i = 0; i < n - whole; i++)
        bins[key[i]]++;
}

/* 1 where the order key of `by`, a value of BF16, is `least` or more. */
INLINE float is_selected(uint32_t by, int32_t least)
{
    int32_t k = (int32_t)(by & 0x7fff);

    return (k > NAN_BF16 ? NAN_BF16 : k) >= least ? 1.0f : 0.0f;
}

static void selected_delta(const void *x, const void *base, const void *by, uint32_t least, float *out,
                           size_t n)
{
    const u16_packed *a = x, *b = base, *v = by;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        out[i] = round_bf16(from_bf16(a[i]) - from_bf16(b[i])) * is_selected(v[i], (int32_t)least);
}

/* What sce adds to an element, not rounded. k is a constant where this is inlined. */
INLINE float sce_one(unsigned k, half_fn *half, uint32_t base, const u32_packed *const *x, float selected,
                     const float *w, float floor, size_t i)
{
    float e[TASK_FUSED], sum = 0, m = 0, d = 0;

    for (unsigned j = 0; j < k; j++) {
        e[j] = round_bf16(half(x[j][i]) - half(base)) * selected;
        sum = sum + e[j];
    }
    sum = round_bf16(sum);
    for (unsigned j = 0; j < k; j++) {
        float weight = w[j] * agrees(e[j], turn_of(sum));
        m = m + round_bf16(e[j] * weight);
        d = d + weight;
    }
    d = round_bf16(d);
    return round_bf16(m) / (d < floor ? floor : d);
}

INLINE void sce_pairs(unsigned k, const void *base, const void *const *x, const void *by, uint32_t least,
                      const float *w, float floor, void *out, size_t n)
{
    const u32_packed *b = base, *v = by, *donor[TASK_FUSED];
    float weight[TASK_FUSED];
    u32_packed *y = out;

    for (unsigned j = 0; j < k; j++) {
        donor[j] = x[j];
        weight[j] = w[j];
    }
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        float low = sce_one(k, low_half, b[i], donor, is_selected(v[i], (int32_t)least), weight, floor, i),
              high = sce_one(k, high_half, b[i], donor, is_selected(v[i] >> 16, (int32_t)least), weight,
                             floor, i);
        y[i] = to_pair(low_half(b[i]) + round_bf16(low), high_half(b[i]) + round_bf16(high));
    }
}

INLINE void sce_of(unsigned k, const void *base, const void *const *x, const void *by, uint32_t least,
                   const float *w, float floor, void *out, size_t n)
{
    uint32_t last[TASK_FUSED], last_base, last_by, last_out;
    const void *last_x[TASK_FUSED];

    sce_pairs(k, base, x, by, least, w, floor, out, n / 2);
    if (n % 2 == 0)
        return;
    for (unsigned j = 0; j < k; j++) {
        last[j] = last_of(x[j], n);
        last_x[j] = &last[j];
    }
    last_base = last_of(base, n);
    last_by = last_of(by, n);
    sce_pairs(k, &last_base, last_x, &last_by, least, w, floor, &last_out, 1);
    ((u16_packed *)out)[n - 1] = (uint16_t)last_out;
}

#define SCE(k)                                                                                       \
    static void sce_bf16_##k(const void *base, const void *const *x, const void *by, uint32_t least, \
                             const float *w, float floor, void *out, size_t n)                       \
    {                                                                                                \
        sce_of(k, base, x, by, least, w, floor, out, n);                                             \
    }
SCE(1)
SCE(2)
SCE(3)
SCE(4)
#endif

#endif
