/* Bodies of struct kernels for pruned task vectors: a part of kernel_tile.c, which says what keeps them fast.
 */
#ifndef KERNEL_TASK_H
#define KERNEL_TASK_H

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

#define NAN_BF16 0x7f81 /* the order key of NaN in BF16 */

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
enum { COUNTED = 128 }; /* keys made at a time: while they are counted the CPU makes the next */

/* From COUNTED packed values to their keys, as order_key has them, zeros spread. */
INLINE void to_keys(uint32_t zero, uint16_t *key)
{
    EACH_ELEMENT
    for (size_t i = 0; i < COUNTED; i++) {
        int16_t k = (int16_t)(key[i] & 0x7fff);
        k = k > NAN_BF16 ? NAN_BF16 : k;
        key[i] = k == 0 ? (uint16_t)(zero + i % SPREAD_ZEROS) : (uint16_t)k;
    }
}

INLINE void delta_keys(const void *x, const void *base, uint32_t zero, uint16_t *key)
{
    const u32_packed *a = x, *b = base;
    uint32_t pairs[COUNTED / 2];

    EACH_ELEMENT
    for (size_t i = 0; i < COUNTED / 2; i++)
        pairs[i] = to_pair(low_half(a[i]) - low_half(b[i]), high_half(a[i]) - high_half(b[i]));
    memcpy(key, pairs, sizeof(pairs));
    to_keys(zero, key);
}

INLINE void count_keys(const uint16_t *key, uint32_t *bins)
{
    for (size_t i = 0; i < COUNTED; i += 4) {
        uint64_t four;
        memcpy(&four, key + i, sizeof(four));
        bins[four & 0xffff]++;
        bins[four >> 16 & 0xffff]++;
        bins[four >> 32 & 0xffff]++;
        bins[four >> 48]++;
    }
}

static void count_deltas_bf16(unsigned k, const void *const *x, const void *base, uint32_t zero,
                              uint32_t *const *bins, size_t n)
{
    const u16_packed *b = base;
    uint16_t key[TASK_FUSED][COUNTED], last[COUNTED] = {0}, last_base[COUNTED] = {0};
    size_t whole = n / COUNTED * COUNTED, rest = n - whole;

    for (size_t at = 0; at < whole; at += COUNTED) {
        for (unsigned j = 0; j < k; j++)
            delta_keys((const u16_packed *)x[j] + at, b + at, zero, key[j]);
        for (unsigned j = 0; j < k; j++)
            count_keys(key[j], bins[j]);
    }
    memcpy(last_base, b + whole, rest * sizeof(*b));
    for (unsigned j = 0; j < k; j++) {
        memcpy(last, (const u16_packed *)x[j] + whole, rest * sizeof(*b));
        delta_keys(last, last_base, zero, key[0]);
        for (size_t i = 0; i < rest; i++)
            bins[j][key[0][i]]++;
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

/* 0 less 1 is the largest of all. */
static void key_range(const real_bits *key, size_t n, real_bits *least, real_bits *most)
{
    real_bits low = REAL_BITS_MAX, high = 0;

    for (size_t i = 0; i < n; i++) {
        low = key[i] - 1 < low ? key[i] - 1 : low;
        high = key[i] > high ? key[i] : high;
    }
    *least = low + 1;
    *most = high;
}

static void select_by(real *x, const real *by, real_bits low, real_bits high, size_t n)
{
    real_bits span = high - low;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] * (magnitude(by[i]) - low < span ? (real)1 : (real)0);
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

/* An element of the result, not rounded. k and normalize are constants where this is inlined. */
INLINE real consensus_one(round_fn *r, unsigned k, bool normalize, real base, const real *e, const real *w,
                          real lambda)
{
    real sum = 0, m = 0, d = 0;

    for (unsigned j = 0; j < k; j++)
        sum = sum + e[j];
    sum = r(sum);
    for (unsigned j = 0; j < k; j++) {
        real agreed = agrees(e[j], sum);
        m = m + e[j] * agreed;
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
    const real *delta[TASK_FUSED];
    real weight[TASK_FUSED];

    for (unsigned j = 0; j < k; j++) {
        delta[j] = x[j];
        weight[j] = w[j];
    }
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        real e[TASK_FUSED];
        for (unsigned j = 0; j < k; j++)
            e[j] = delta[j][i];
        out[i] = r(consensus_one(r, k, normalize, base[i], e, weight, lambda));
    }
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
/* How packed deltas are joined. */
enum join { JOIN_SUM, JOIN_SUM_SCALED, JOIN_SUM_DIVIDED, JOIN_CONSENSUS, JOIN_CONSENSUS_DIVIDED };

/* An element of the result, not rounded. e: its weighted deltas. */
INLINE float join_one(unsigned k, enum join join, float base, const float *e, const float *w, float divisor,
                      float lambda)
{
    float m = 0;

    if (join >= JOIN_CONSENSUS)
        return consensus_one(round_bf16, k, join == JOIN_CONSENSUS_DIVIDED, base, e, w, lambda);
    for (unsigned j = 0; j < k; j++)
        m = m + e[j];
    m = round_bf16(m);
    if (join == JOIN_SUM_DIVIDED)
        m = round_bf16(m / divisor);
    return base + (join == JOIN_SUM ? m : round_bf16(m * lambda));
}

/* In pairs (kernel_tile.c). w: for consensus. */
INLINE void join_pairs(unsigned k, enum join join, const void *base, const void *const *e, const float *w,
                       float divisor, float lambda, void *out, size_t n)
{
    const u32_packed *b = base, *delta[TASK_FUSED];
    float weight[TASK_FUSED];
    u32_packed *y = out;

    for (unsigned j = 0; j < k; j++) {
        delta[j] = e[j];
        weight[j] = join >= JOIN_CONSENSUS ? w[j] : 0;
    }
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        float low[TASK_FUSED], high[TASK_FUSED];
        for (unsigned j = 0; j < k; j++) {
            low[j] = low_half(delta[j][i]);
            high[j] = high_half(delta[j][i]);
        }
        y[i] = to_pair(join_one(k, join, low_half(b[i]), low, weight, divisor, lambda),
                       join_one(k, join, high_half(b[i]), high, weight, divisor, lambda));
    }
}

typedef void pairs_fn(const void *base, const void *const *e, const float *w, float divisor, float lambda,
                      void *out, size_t n);

/* Of n elements: an odd number's last is a pair of its own. */
static void join_bf16(pairs_fn *pairs, unsigned k, const void *base, const void *const *e, const float *w,
                      float divisor, float lambda, void *out, size_t n)
{
    uint32_t last[TASK_FUSED], last_base, last_out;
    const void *last_e[TASK_FUSED];

    pairs(base, e, w, divisor, lambda, out, n / 2);
    if (n % 2 == 0)
        return;
    for (unsigned j = 0; j < k; j++) {
        last[j] = last_of(e[j], n);
        last_e[j] = &last[j];
    }
    last_base = last_of(base, n);
    pairs(&last_base, last_e, w, divisor, lambda, &last_out, 1);
    ((u16_packed *)out)[n - 1] = (uint16_t)last_out;
}

#define PAIRS_OF(name, k, join)                                                                   \
    static void name##_##k(const void *base, const void *const *e, const float *w, float divisor, \
                           float lambda, void *out, size_t n)                                     \
    {                                                                                             \
        join_pairs(k, join, base, e, w, divisor, lambda, out, n);                                 \
    }
#define PACKED_OF(k)                                                                                         \
    PAIRS_OF(pairs_sum, k, JOIN_SUM)                                                                         \
    PAIRS_OF(pairs_scaled, k, JOIN_SUM_SCALED)                                                               \
    PAIRS_OF(pairs_divided, k, JOIN_SUM_DIVIDED)                                                             \
    PAIRS_OF(pairs_agreeing, k, JOIN_CONSENSUS)                                                              \
    PAIRS_OF(pairs_mean, k, JOIN_CONSENSUS_DIVIDED)                                                          \
    static void consensus_bf16_##k(const void *base, const void *const *e, const float *w, bool normalize,   \
                                   float lambda, void *out, size_t n)                                        \
    {                                                                                                        \
        join_bf16(normalize ? pairs_mean_##k : pairs_agreeing_##k, k, base, e, w, 1, lambda, out, n);        \
    }                                                                                                        \
    static void sum_bf16_##k(const void *base, const void *const *e, float divisor, float lambda, void *out, \
                             size_t n)                                                                       \
    {                                                                                                        \
        pairs_fn *undivided = lambda != 1 ? pairs_scaled_##k : pairs_sum_##k;                                \
        join_bf16(divisor != 1 ? pairs_divided_##k : undivided, k, base, e, NULL, divisor, lambda, out, n);  \
    }
PACKED_OF(1)
PACKED_OF(2)
PACKED_OF(3)
PACKED_OF(4)

static void weigh_bf16(const float *d, float w, void *e, size_t n)
{
    u16_packed *y = e;

    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        y[i] = pack_one(d[i] * w);
}
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
        float weight = w[j] * agrees(e[j], sum);
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
