/* Bodies of the methods of a Gram matrix for packed BF16: the sums of a pass over k vectors in one loop, and
 * the elements that are made of them. Part of kernel_tile.c, after kernel_norm.h, whose lanes it keeps.
 *
 * Vectors are k arrays as they are stored, or their deltas r(x - base). */
#ifndef KERNEL_GRAM_H
#define KERNEL_GRAM_H

/* Some of a sum's lanes at a time, as many as a register holds of float64: k vectors have up to ten sums,
 * which then stay in registers. Compilers widen vectors in halves, unless told by name. */
enum { SUMS_MAX = TASK_FUSED * (TASK_FUSED + 1) / 2 };

typedef double wide_f64 __attribute__((vector_size(WIDE)));
#if defined(__AVX512F__)
typedef float wide_f32 __attribute__((vector_size(32)));
typedef uint32_t wide_u32 __attribute__((vector_size(32)));
#define WIDE_F64(x) ((wide_f64)_mm512_cvtps_pd((__m256)(x)))
#define MULTIPLY_ADD(a, b, c) ((wide_f64)_mm512_fmadd_pd((__m512d)(a), (__m512d)(b), (__m512d)(c)))
#define WIDE_U32(x) ((wide_u32)_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(x))))
#elif defined(__AVX2__)
typedef float wide_f32 __attribute__((vector_size(16)));
typedef uint32_t wide_u32 __attribute__((vector_size(16)));
#define WIDE_F64(x) ((wide_f64)_mm256_cvtps_pd((__m128)(x)))
#define MULTIPLY_ADD(a, b, c) ((wide_f64)_mm256_fmadd_pd((__m256d)(a), (__m256d)(b), (__m256d)(c)))
#define WIDE_U32(x) ((wide_u32)_mm_cvtepu16_epi32(_mm_loadl_epi64((const void *)(x))))
#elif defined(__SSE2__) /* two of four are used */
typedef float wide_f32 __attribute__((vector_size(16)));
typedef uint32_t wide_u32 __attribute__((vector_size(16)));
#define WIDE_F64(x) ((wide_f64)_mm_cvtps_pd((__m128)(x)))
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#define WIDE_U32(x) \
    ((wide_u32)_mm_unpacklo_epi16(_mm_cvtsi32_si128((int)*(const u32_packed *)(x)), _mm_setzero_si128()))
#else
typedef float wide_f32 __attribute__((vector_size(8)));
typedef uint32_t wide_u32 __attribute__((vector_size(8)));
#define WIDE_F64(x) __builtin_convertvector(x, wide_f64)
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#define WIDE_U32(x) ((wide_u32){(x)[0], (x)[1]})
#endif

INLINE wide_f32 wide_load(const u16_packed *x)
{
    return (wide_f32)(WIDE_U32(x) << 16);
}

/* round_bf16 of each */
INLINE wide_f32 wide_round(wide_f32 x)
{
    wide_u32 u = (wide_u32)x;

    return (wide_f32)((u + 0x7fff + (u >> 16 & 1)) & 0xffff0000);
}

/* The inputs of a loop over k vectors. */
struct packed_vectors {
    const u16_packed *x[TASK_FUSED], *base; /* base: NULL for none */
};

INLINE struct packed_vectors packed_vectors(unsigned k, const void *const *x, const void *base)
{
    struct packed_vectors vectors = {.base = base};

    for (unsigned j = 0; j < k; j++)
        vectors.x[j] = x[j];
    return vectors;
}

/* The last n % LANES elements, and zeros, which add nothing; room: [k + 1] */
INLINE struct packed_vectors packed_rest(unsigned k, const struct packed_vectors *of, size_t n,
                                         uint16_t (*room)[LANES])
{
    struct packed_vectors rest = {.base = of->base ? room[k] : NULL};
    size_t at = n / LANES * LANES, bytes = n % LANES * sizeof(**room);

    for (unsigned j = 0; j < k; j++) {
        memcpy(room[j], of->x[j] + at, bytes);
        rest.x[j] = room[j];
    }
    if (of->base)
        memcpy(room[k], of->base + at, bytes);
    return rest;
}

/* What a loop adds to its sums of so many lanes. sphere: for those that take it. */
typedef void terms_fn(unsigned k, const wide_f32 *v, const struct sphere *sphere, wide_f64 *sum);

INLINE void add_terms(terms_fn *terms, unsigned k, bool deltas, const struct packed_vectors *vectors,
                      size_t at, const struct sphere *sphere, wide_f64 *sum)
{
    wide_f32 v[TASK_FUSED];

    for (unsigned j = 0; j < k; j++) {
        v[j] = wide_load(vectors->x[j] + at);
        if (deltas)
            v[j] = wide_round(v[j] - wide_load(vectors->base + at));
    }
    terms(k, v, sphere, sum);
}

/* sums[i] += fold_lanes of sum i, of n_sums, each in LANES lanes by the element's position. */
INLINE void sum_terms(terms_fn *terms, unsigned k, unsigned n_sums, bool deltas,
                      const struct packed_vectors *vectors, const struct sphere *sphere, size_t n,
                      double *sums)
{
    double lane[SUMS_MAX][LANES];
    uint16_t room[TASK_FUSED + 1][LANES] = {{0}};
    const struct packed_vectors rest = packed_rest(k, vectors, n, room);

    for (size_t first = 0; first < LANES; first += WIDE_LANES) {
        wide_f64 sum[SUMS_MAX] = {{0}};
        for (size_t at = first; at < n / LANES * LANES; at += LANES)
            add_terms(terms, k, deltas, vectors, at, sphere, sum);
        if (n % LANES != 0)
            add_terms(terms, k, deltas, &rest, first, sphere, sum);
        for (unsigned i = 0; i < n_sums; i++)
            memcpy(&lane[i][first], &sum[i], sizeof(sum[i]));
    }
    for (unsigned i = 0; i < n_sums; i++)
        sums[i] += fold_lanes(lane[i]);
}

/* Products of two BF16 are exact in float64, so that it is the same whether they are fused with the sum. */
INLINE void gram_terms(unsigned k, const wide_f32 *v, const struct sphere *sphere, wide_f64 *sum)
{
    (void)sphere;
    for (unsigned i = 0; i < k; i++)
        for (unsigned j = i; j < k; j++, sum++)
            *sum = MULTIPLY_ADD(WIDE_F64(v[i]), WIDE_F64(v[j]), *sum);
}

INLINE void gram_rounded_terms(unsigned k, const wide_f32 *v, const struct sphere *sphere, wide_f64 *sum)
{
    (void)sphere;
    for (unsigned i = 0; i < k; i++) {
        *sum = MULTIPLY_ADD(WIDE_F64(v[i]), WIDE_F64(v[i]), *sum);
        sum++;
        for (unsigned j = i + 1; j < k; j++, sum++)
            *sum = *sum + WIDE_F64(wide_round(v[i] * v[j]));
    }
}

INLINE void sphere_terms(unsigned k, const wide_f32 *v, const struct sphere *s, wide_f64 *sum)
{
    wide_f32 u[TASK_FUSED], mean = {0};

    for (unsigned j = 0; j < k; j++) {
        u[j] = wide_round(v[j] * s->inverse[j]);
        mean = mean + wide_round(u[j] * s->w[j]);
    }
    mean = wide_round(mean);
    sum[0] = MULTIPLY_ADD(WIDE_F64(mean), WIDE_F64(mean), sum[0]);
    mean = wide_round(mean * s->inverse_mean);
    for (unsigned j = 0; j < k; j++)
        sum[1 + j] = sum[1 + j] + WIDE_F64(wide_round(u[j] * mean));
}

INLINE void sum_vectors(terms_fn *terms, unsigned k, unsigned n_sums, const void *const *x, const void *base,
                        const struct sphere *sphere, size_t n, double *sums)
{
    const struct packed_vectors vectors = packed_vectors(k, x, base);

    if (base)
        sum_terms(terms, k, n_sums, true, &vectors, sphere, n, sums);
    else
        sum_terms(terms, k, n_sums, false, &vectors, sphere, n, sums);
}

/* ---- elements, in pairs */

/* What they are made with: each kind takes its own. */
struct numbers {
    struct sphere sphere;
    float t, rest, inverse; /* model_stock; 1 / k */
    double c[TASK_FUSED];   /* karcher */
};

/* The result of one half of a pair, not yet rounded. base: its pair, where there is a base. */
typedef float element_fn(unsigned k, half_fn *half, bool deltas, const u32_packed *const *x, uint32_t base,
                         const struct numbers *numbers, size_t i);

INLINE void pairs_of(element_fn *one, unsigned k, bool has_base, const void *const *x, const void *base,
                     const struct numbers *numbers, void *out, size_t n)
{
    const struct numbers own = *numbers;
    const u32_packed *b = base, *vector[TASK_FUSED];
    u32_packed *y = out;

    for (unsigned j = 0; j < k; j++)
        vector[j] = x[j];
    EACH_ELEMENT
    for (size_t i = 0; i < n; i++) {
        uint32_t pair = has_base ? b[i] : 0;
        y[i] = to_pair(one(k, low_half, has_base, vector, pair, &own, i),
                       one(k, high_half, has_base, vector, pair, &own, i));
    }
}

INLINE void elements_of(element_fn *one, unsigned k, bool has_base, const void *const *x, const void *base,
                        const struct numbers *numbers, void *out, size_t n)
{
    uint32_t last[TASK_FUSED], last_base, last_out;
    const void *last_x[TASK_FUSED];

    pairs_of(one, k, has_base, x, base, numbers, out, n / 2);
    if (n % 2 == 0)
        return;
    for (unsigned j = 0; j < k; j++) {
        last[j] = last_of(x[j], n);
        last_x[j] = &last[j];
    }
    last_base = has_base ? last_of(base, n) : 0;
    pairs_of(one, k, has_base, last_x, &last_base, numbers, &last_out, 1);
    ((u16_packed *)out)[n - 1] = (uint16_t)last_out;
}

INLINE float sphere_one(unsigned k, half_fn *half, bool deltas, const u32_packed *const *x, uint32_t base,
                        const struct numbers *numbers, size_t i)
{
    const struct sphere *s = &numbers->sphere;
    float u[TASK_FUSED], mean = 0, tangent = 0, result;

    for (unsigned j = 0; j < k; j++) {
        float v = deltas ? round_bf16(half(x[j][i]) - half(base)) : half(x[j][i]);
        u[j] = round_bf16(v * s->inverse[j]);
        mean = mean + round_bf16(u[j] * s->w[j]);
    }
    mean = round_bf16(round_bf16(mean) * s->inverse_mean);
    for (unsigned j = 0; j < k; j++)
        tangent = tangent + round_bf16(round_bf16(u[j] - round_bf16(s->dots[j] * mean)) * s->w[j]);
    result = round_bf16(mean + round_bf16(tangent)) * s->norm;
    return deltas ? half(base) + round_bf16(result) : result;
}

INLINE float stock_one(unsigned k, half_fn *half, bool deltas, const u32_packed *const *x, uint32_t base,
                       const struct numbers *numbers, size_t i)
{
    float sum = 0;

    (void)deltas;
    for (unsigned j = 0; j < k; j++)
        sum = round_bf16(sum + half(x[j][i]));
    return round_bf16(numbers->t * round_bf16(sum * numbers->inverse)) +
           round_bf16(numbers->rest * half(base));
}

INLINE float combine_one(unsigned k, half_fn *half, bool deltas, const u32_packed *const *x, uint32_t base,
                         const struct numbers *numbers, size_t i)
{
    double sum = numbers->c[0] * (double)half(x[0][i]);

    (void)deltas;
    (void)base;
    for (unsigned j = 1; j < k; j++)
        sum = sum + numbers->c[j] * (double)half(x[j][i]);
    return (float)sum;
}

#define GRAM(k)                                                                                           \
    static void gram_bf16_##k(const void *const *x, const void *base, size_t n, double *sums)             \
    {                                                                                                     \
        sum_vectors(gram_terms, k, k *(k + 1) / 2, x, base, NULL, n, sums);                               \
    }                                                                                                     \
    static void gram_rounded_bf16_##k(const void *const *x, const void *base, size_t n, double *sums)     \
    {                                                                                                     \
        sum_vectors(gram_rounded_terms, k, k *(k + 1) / 2, x, base, NULL, n, sums);                       \
    }                                                                                                     \
    static void sphere_sums_bf16_##k(const void *const *x, const void *base, const struct sphere *sphere, \
                                     size_t n, double *sums)                                              \
    {                                                                                                     \
        sum_vectors(sphere_terms, k, k + 1, x, base, sphere, n, sums);                                    \
    }                                                                                                     \
    static void sphere_bf16_##k(const void *const *x, const void *base, const struct sphere *sphere,      \
                                void *out, size_t n)                                                      \
    {                                                                                                     \
        const struct numbers numbers = {.sphere = *sphere};                                               \
        if (base)                                                                                         \
            elements_of(sphere_one, k, true, x, base, &numbers, out, n);                                  \
        else                                                                                              \
            elements_of(sphere_one, k, false, x, NULL, &numbers, out, n);                                 \
    }                                                                                                     \
    static void stock_bf16_##k(const void *const *x, const void *base, float t, float rest, void *out,    \
                               size_t n)                                                                  \
    {                                                                                                     \
        const struct numbers numbers = {.t = t, .rest = rest, .inverse = 1 / (float)k};                   \
        elements_of(stock_one, k, true, x, base, &numbers, out, n);                                       \
    }                                                                                                     \
    static void combine_bf16_##k(const void *const *x, const double *c, void *out, size_t n)              \
    {                                                                                                     \
        struct numbers numbers = {.t = 0};                                                                \
        memcpy(numbers.c, c, k * sizeof(*c));                                                             \
        elements_of(combine_one, k, false, x, NULL, &numbers, out, n);                                    \
    }
GRAM(2)
GRAM(3)
GRAM(4)
#define GRAM_ENTRIES(name)                       \
    {                                            \
        NULL, NULL, name##_2, name##_3, name##_4 \
    }
#endif
