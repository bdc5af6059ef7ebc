/* arcee_fusion: the donor's elements where they matter most, the base's elsewhere.
 *
 *     p = r(softmax(x) + 1e-8), q of the base, along the last dimension; D = r(sum r(p r(ln r(p/q)))), of a
 * row importance = r(|r(x - b)| D); q1, q2, q3: its elements in ascending order at (n-1)/4, (n-1)/2, 3(n-1)/4
 *     threshold = r(q2 + r(1.5 r(q3 - q1)))
 *     out = b + r(x - b) where importance >= threshold, else b; float32, in float64 that
 *
 * softmax, exp and ln are computed in float64 and rounded. mergekit draws a million elements for the
 * quartiles of larger tensors; here all count.
 *
 * The quartiles come from histograms of the 16 high bits of the importance, which is all of it in 16-bit
 * types, then of the next 16 bits below each of the three, as long as there are any. D is kept for rows that
 * are long, which are few, and computed each time for others. */
#include "norm.h"
#include "row_limit.h"

#include <string.h>

enum {
    QUARTILES = 3,
    DIGIT = 16, /* bits */
    BINS = 1 << DIGIT,
    ROW_KEPT = 256, /* of rows at least as long, D is kept */
};
enum { HIGH, LOW, BASE_HIGH, BASE_LOW, N_TEMPS }; /* temp: of e^x and e^base */

struct state {
    real threshold;
    unsigned bits_left;         /* of keys, not looked at so far */
    real_bits above[QUARTILES]; /* their upper bits, */
    uint64_t rank[QUARTILES];   /* and the rank among those that share them */
    real divergences[];         /* [rows], if kept */
};

static uint64_t row_length(const struct merge *merge)
{
    return merge->ndim ? merge->shape[merge->ndim - 1] : 1;
}

static bool keeps_divergences(const struct merge *merge)
{
    return row_length(merge) >= ROW_KEPT;
}

static size_t state_size(const struct merge *merge)
{
    size_t rows = merge->n && keeps_divergences(merge) ? (size_t)(merge->n / row_length(merge)) : 0;

    return merge->n ? sizeof(struct state) + rows * sizeof(real) : 0;
}

static unsigned donor_of(const struct merge *merge)
{
    return norm_donor(merge, 0);
}

/* ---- a row's divergence */

static double exponentials(const struct kernels *kernels, const real *x, real *high, real *low, size_t n)
{
    kernels->exponentials(x, kernels->largest(x, n), high, low, n);
    return 1 / kernels->sum_pairs(high, low, n);
}

/* Of the row at elements [at, at + n) of a tile. */
static real divergence(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                       size_t at, size_t n)
{
    real *const *temp = tile->temp;
    double of_x = exponentials(kernels, tile->in[donor_of(merge)] + at, temp[HIGH], temp[LOW], n);
    double of_base = exponentials(kernels, tile->in[merge->base] + at, temp[BASE_HIGH], temp[BASE_LOW], n);

    return norm_round(merge, kernels->sum_divergence[round_of(merge->work)](
                                 temp[HIGH], temp[LOW], of_x, temp[BASE_HIGH], temp[BASE_LOW], of_base, n));
}

static void add_divergences(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                            void *acc)
{
    size_t row = (size_t)row_length(merge);
    real *out = acc;

    for (size_t at = 0; at < tile->n; at += row)
        *out++ = divergence(merge, kernels, tile, at, row);
}

static void finish_divergences(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct state *s = state;

    memcpy(s->divergences, blocks->accs, (size_t)(merge->n / row_length(merge)) * sizeof(real));
}

/* The importance of a tile's elements, in the last temp. */
static real *importance(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    const struct state *state = tile->stats;
    size_t row = (size_t)row_length(merge);
    real *out = tile->temp[N_TEMPS], d;

    for (size_t at = 0; at < tile->n; at += row) {
        d = keeps_divergences(merge) ? state->divergences[(tile->first + at) / row]
                                     : divergence(merge, kernels, tile, at, row);
        kernels->importance[round_of(merge->work)](tile->in[donor_of(merge)] + at, tile->in[merge->base] + at,
                                                   d, out + at, row);
    }
    return out;
}

/* ---- quartiles */

/* Bits of a number as a key that orders as sorting does: negative ones first, NaN last. */
static real_bits key_of(real_bits bits, real_bits sign, real_bits infinite)
{
    if ((bits & (sign - 1)) > infinite)
        return sign | (sign - 1);
    return bits & sign ? ~bits & (sign | (sign - 1)) : bits | sign;
}

static unsigned key_bits(const struct merge *merge)
{
    return round_of(merge->work) == ROUND_NONE ? REAL_MAGNITUDE + 1 : DIGIT;
}

/* Keys of n elements into temp[LOW] and on. */
static const real_bits *keys_of(const struct merge *merge, const struct kernels *kernels,
                                const struct tile *tile)
{
    const real *x = importance(merge, kernels, tile);
    const real_bits infinite = merge->work == DTYPE_BF16 ? 0x7f80 : 0x7c00;
    real_bits *keys = (void *)tile->temp[LOW], bits;
    uint16_t *halves = (void *)tile->temp[HIGH];

    if (key_bits(merge) > DIGIT) {
        for (size_t i = 0; i < tile->n; i++) {
            memcpy(&bits, &x[i], sizeof(bits));
            keys[i] = key_of(bits, (real_bits)1 << REAL_MAGNITUDE, REAL_INFINITE);
        }
        return keys;
    }
    kernels->pack[merge->work](x, halves, tile->n);
    for (size_t i = 0; i < tile->n; i++)
        keys[i] = key_of(halves[i], 1 << (DIGIT - 1), infinite);
    return keys;
}

static real of_key(const struct merge *merge, real_bits key)
{
    real_bits sign = (real_bits)1 << (key_bits(merge) - 1), bits = key & sign ? key & (sign - 1) : ~key;
    uint16_t half = (uint16_t)bits;
    real x;

    if (key_bits(merge) == DIGIT)
        kernels_best()->load[merge->work](&half, &x, 1);
    else
        memcpy(&x, &bits, sizeof(x));
    return x;
}

static size_t high_size(const struct merge *merge)
{
    (void)merge;
    return BINS * sizeof(uint32_t);
}

static size_t low_size(const struct merge *merge)
{
    return QUARTILES * high_size(merge);
}

static void add_high(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                     void *acc)
{
    const real_bits *keys = keys_of(merge, kernels, tile);
    const unsigned left = key_bits(merge) - DIGIT;
    uint32_t *bins = acc;

    for (size_t i = 0; i < tile->n; i++)
        bins[keys[i] >> left]++;
}

static void add_low(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                    void *acc)
{
    const struct state *s = tile->stats;
    const real_bits *keys = keys_of(merge, kernels, tile);
    const unsigned left = REAL_MAGNITUDE >= 2 * DIGIT ? s->bits_left - DIGIT : 0; /* in float32 none */
    uint32_t *bins = acc;

    for (unsigned q = 0; q < QUARTILES; q++)
        for (size_t i = 0; i < tile->n; i++)
            if (keys[i] >> (left + DIGIT) == s->above[q])
                bins[q * BINS + (keys[i] >> left & (BINS - 1))]++;
}

/* The bin of bins number `set` that holds the element of a rank; *rank: then within it. */
static uint32_t find(const struct blocks *blocks, size_t set, uint64_t *rank)
{
    struct histogram histogram = {blocks, set * BINS * sizeof(uint32_t), BINS};

    return histogram_find(&histogram, false, rank);
}

static void set_threshold(const struct merge *merge, struct state *s)
{
    real q1 = of_key(merge, s->above[0]), q2 = of_key(merge, s->above[1]), q3 = of_key(merge, s->above[2]);
    real spread = norm_round(merge, (double)((real)1.5 * norm_round(merge, (double)(q3 - q1))));

    s->threshold = norm_round(merge, (double)(q2 + spread));
}

static void finish_high(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct state *s = state;

    for (unsigned q = 0; q < QUARTILES; q++) {
        uint64_t quarter = (merge->n - 1) / 4, rest = (merge->n - 1) % 4;
        s->rank[q] = (q + 1) * quarter + (q + 1) * rest / 4;
        s->above[q] = find(blocks, 0, &s->rank[q]);
    }
    s->bits_left = key_bits(merge) - DIGIT;
    if (s->bits_left == 0)
        set_threshold(merge, s);
}

static void finish_low(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct state *s = state;

    for (unsigned q = 0; q < QUARTILES; q++)
        s->above[q] = s->above[q] << DIGIT | find(blocks, q, &s->rank[q]);
    s->bits_left -= DIGIT;
    if (s->bits_left == 0)
        set_threshold(merge, s);
}

static const struct pass *next(const struct merge *merge, const void *state, unsigned n_done)
{
    static const struct pass passes[] = {
        {.row_bytes = sizeof(real), .add = add_divergences, .finish = finish_divergences},
        {.acc_size = high_size, .add = add_high, .finish = finish_high},
        {.acc_size = low_size, .add = add_low, .finish = finish_low},
    };
    unsigned at = n_done + !keeps_divergences(merge);

    if (at < 2)
        return &passes[at];
    return ((const struct state *)state)->bits_left > 0 ? &passes[2] : NULL;
}

static void run(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    const struct state *s = tile->stats;
    const real *by = importance(merge, kernels, tile);

    kernels->fuse[round_of(merge->work)](tile->in[donor_of(merge)], tile->in[merge->base], by, s->threshold,
                                         tile->out, tile->n);
}

static void kept(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                 real *const *out)
{
    const struct state *s = tile->stats;
    const real *by = importance(merge, kernels, tile);

    kernels->delta[round_of(merge->work)](tile->in[donor_of(merge)], tile->in[merge->base], out[0], tile->n);
    for (size_t i = 0; i < tile->n; i++)
        out[0][i] *= by[i] >= s->threshold;
}

static int check(const struct merge *merge, struct err *err)
{
    return row_limit_check(merge, row_length(merge), err);
}

static const struct method_stats stats = {state_size, next, NULL};

const struct method method_arcee_fusion = {
    .name = "arcee_fusion",
    .title = "Arcee Fusion",
    .paper = "https://arcee.ai",
    .base = BASE_REQUIRED,
    .chooses = true,
    .lone = LONE_EITHER_PASSES,
    .min_donors = 1,
    .max_donors = 1,
    .result_f32 = true,
    .check = check,
    .stats = &stats,
    .row_length = row_length,
    .n_temps = N_TEMPS + 1,
    .run = run,
    .kept = kept,
};
