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

/* What turns the elected sign into plus: zero elects that, a sum of NaN the other. */
INLINE real_bits turn_of(real sum)
{
    return sum >= 0 ? 0 : (real_bits)1 << REAL_MAGNITUDE;
}

/* 1 where x has that sign, else 0. */
INLINE real agrees(real x, real_bits turn)
{
    return real_of(bits_of_real(x) ^ turn) > 0 ? (real)1 : (real)0;
}

/* acc + x k; k is 0 or 1. */
INLINE real add_if(real acc, real x, real k)
{
#if defined(__FMA__) && !defined(REAL_F64)
    return fmaf(x, k, acc);
#else
    return acc + x * k;
#endif
}

INLINE void agree(round_fn *r, real *acc, const real *x, const real *sum, real w, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        acc[i] = acc[i] + r(x[i] * (w * agrees(x[i], turn_of(sum[i]))));
}
EACH_TYPE(agree, (real * acc, const real *x, const real *sum, real w, size_t n), acc, x, sum, w, n)

static void agree_weight(real *acc, const real *x, const real *sum, real w, size_t n)
{
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++)
        acc[i] = acc[i] + w * agrees(x[i], turn_of(sum[i]));
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

/* An element of the result, not rounded. The sum need not be, either: of values of the type it is 0 or NaN
 * only if it was that before, so that its sign stays. k, normalize and scales, which lambda 1 does not, are
 * constants where this is inlined. */
INLINE real consensus_one(round_fn *r, unsigned k, bool normalize, bool scales, real base, const real *e,
                          const real *w, real lambda)
{
    real sum = 0, m = 0, d = 0;
    real_bits turn;

    for (unsigned j = 0; j < k; j++)
        sum = sum + e[j];
    turn = turn_of(sum);
    for (unsigned j = 0; j < k; j++) {
        real agreed = agrees(e[j], turn);
        m = add_if(m, e[j], agreed);
        d = add_if(d, w[j], agreed);
    }
    d = r(d);
    m = r(m);
    if (normalize)
        m = r(m / (d == 0 ? (real)1 : d));
    return base + (scales ? r(m * lambda) : m);
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
        out[i] = r(consensus_one(r, k, normalize, true, base[i], e, weight, lambda));
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
enum join {
    JOIN_SUM,
    JOIN_SUM_SCALED,
    JOIN_SUM_DIVIDED,
    JOIN_CONSENSUS,
    JOIN_CONSENSUS_SCALED,
    JOIN_CONSENSUS_DIVIDED,
    JOIN_CONSENSUS_DIVIDED_SCALED
};

/* An element of the result, not rounded. e: its weighted deltas. */
INLINE float join_one(unsigned k, enum join join, float base, const float *e, const float *w, float divisor,
                      float lambda)
{
    bool scales = join == JOIN_CONSENSUS_SCALED || join == JOIN_CONSENSUS_DIVIDED_SCALED;
    float m = 0;

    if (join >= JOIN_CONSENSUS)
        return consensus_one(round_bf16, k, join >= JOIN_CONSENSUS_DIVIDED, scales, base, e, w, lambda);
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
    PAIRS_OF(pairs_agreeing_scaled, k, JOIN_CONSENSUS_SCALED)                                                \
    PAIRS_OF(pairs_mean, k, JOIN_CONSENSUS_DIVIDED)                                                          \
    PAIRS_OF(pairs_mean_scaled, k, JOIN_CONSENSUS_DIVIDED_SCALED)                                            \
    static void consensus_bf16_##k(const void *base, const void *const *e, const float *w, bool normalize,   \
                                   float lambda, void *out, size_t n)                                        \
    {                                                                                                        \
        pairs_fn *plain = normalize ? pairs_mean_##k : pairs_agreeing_##k;                                   \
        pairs_fn *scaled = normalize ? pairs_mean_scaled_##k : pairs_agreeing_scaled_##k;                    \
        join_bf16(lambda != 1 ? scaled : plain, k, base, e, w, 1, lambda, out, n);                           \
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
