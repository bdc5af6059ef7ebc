/* model_stock: from the base towards the average of the donors, by how far they agree.
 *
 *     d_i = r(x_i - b); cos_ij = clamp(r(r(sum r(d_i d_j)) / max(r(n_i n_j), r(1e-6)))), n_i = |d_i|
 *     c = r(mean of all cos_ij); t = r(r(N c) / r(1 + r((N-1) c))), 0 where that divisor is below r(1e-6)
 *     avg = running r(sum x) / N; out = r(r(t avg) + r(r(1-t) b))
 *
 * filter_wise: for each row by itself. Rows that are short are computed as they come; else t is a statistic.
 * In float32 all of it is in float64, with one rounding. */
#include "norm.h"

enum { FILTER_WISE, N_PARAMS };

/* Of one vector. */
struct share {
    real t, rest;
    double exact; /* t, where norm_is_exact */
};

static struct norm_vectors vectors_of(const struct merge *merge)
{
    return merge->shared[FILTER_WISE] != 0 ? norm_rows(merge) : norm_whole(merge);
}

static uint64_t row_length(const struct merge *merge)
{
    return norm_row_length(vectors_of(merge));
}

/* a, b: squares of the norms */
static double exact_cosine(double a, double b, double dot)
{
    double cosine = dot / fmax(sqrt(a) * sqrt(b), 1e-6);

    return cosine < -1 ? -1 : cosine > 1 ? 1 : cosine;
}

static double cosine(const struct merge *merge, double a, double b, double dot)
{
    real na = norm_round(merge, sqrt(a)), nb = norm_round(merge, sqrt(b)), least = norm_round(merge, 1e-6);
    real quotient = norm_round(merge, dot) / norm_at_least(norm_round(merge, (double)(na * nb)), least);

    if (norm_is_exact(merge))
        return exact_cosine(a, b, dot);
    return (double)norm_at_most(norm_at_least(norm_round(merge, (double)quotient), -1), 1);
}

static double exact_share(unsigned n, double cosine)
{
    double divisor = 1 + (n - 1) * cosine;

    return fabs(divisor) < 1e-6 ? 0 : n * cosine / divisor;
}

static struct share share_of(const struct merge *merge, double cosines)
{
    unsigned n = norm_donors(merge);
    double mean = cosines / (double)(norm_pairs(n) - n);
    real c = norm_round(merge, mean), t = 0;
    real divisor = norm_round(merge, (double)(1 + norm_round(merge, (double)((real)(n - 1) * c))));

    if (!(real_abs(divisor) < norm_round(merge, 1e-6)))
        t = norm_round(merge, (double)(norm_round(merge, (double)((real)n * c)) / divisor));
    return (struct share){t, norm_round(merge, (double)(1 - t)), exact_share(n, mean)};
}

/* ---- statistics */

static size_t state_size(const struct merge *merge)
{
    return norm_is_kept(vectors_of(merge)) ? (size_t)vectors_of(merge).n * sizeof(struct share) : 0;
}

static size_t gram_size(const struct merge *merge)
{
    return (size_t)vectors_of(merge).n * norm_pairs(norm_donors(merge)) * sizeof(double);
}

static void add_gram(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                     void *acc)
{
    norm_add_gram(merge, kernels, tile, vectors_of(merge), !norm_is_exact(merge), acc);
}

static double sum_cosines(const struct merge *merge, const struct blocks *blocks, size_t gram)
{
    unsigned k = norm_donors(merge);
    double sum = 0;

    for (unsigned i = 0; i < k; i++) {
        double a = blocks_sum(blocks, gram + norm_pair(k, i, i));
        for (unsigned j = i + 1; j < k; j++)
            sum += cosine(merge, a, blocks_sum(blocks, gram + norm_pair(k, j, j)),
                          blocks_sum(blocks, gram + norm_pair(k, i, j)));
    }
    return sum;
}

static void finish_gram(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct share *shares = state;
    uint64_t n = vectors_of(merge).n;

    for (size_t v = 0; v < n; v++)
        shares[v] = share_of(merge, sum_cosines(merge, blocks, v * norm_pairs(norm_donors(merge))));
}

static const struct pass *next(const struct merge *merge, const void *state, unsigned n_done)
{
    static const struct pass pass = {.acc_size = gram_size, .add = add_gram, .finish = finish_gram};

    (void)merge;
    (void)state;
    return n_done == 0 ? &pass : NULL;
}

/* ---- elements */

/* Room for a double for each input. */
static double *numbers_of(const struct tile *tile)
{
    return (void *)tile->scalars;
}

static double dot(const struct merge *merge, const struct kernels *kernels, const real *a, const real *b,
                  size_t n)
{
    return norm_is_exact(merge) ? kernels->dot(a, b, n)
                                : kernels->dot_rounded[round_of(merge->work)](a, b, n);
}

/* Of a row whose deltas are there. */
static struct share row_share(const struct merge *merge, const struct kernels *kernels, real *const *deltas,
                              double *squares, struct norm_part part)
{
    unsigned k = norm_donors(merge);
    double cosines = 0, ab;

    for (unsigned i = 0; i < k; i++)
        squares[i] = kernels->squares(deltas[i] + part.at, part.n);
    for (unsigned i = 0; i < k; i++) {
        for (unsigned j = i + 1; j < k; j++) {
            ab = dot(merge, kernels, deltas[i] + part.at, deltas[j] + part.at, part.n);
            cosines += cosine(merge, squares[i], squares[j], ab);
        }
    }
    return share_of(merge, cosines);
}

static void run_exact(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                      struct norm_part part, double t)
{
    double *coefs = numbers_of(tile);

    for (unsigned i = 0; i < merge->n_inputs; i++)
        coefs[i] = (int)i == merge->base ? 1 - t : t / norm_donors(merge);
    kernels->combine[ROUND_NONE](tile->in, coefs, merge->n_inputs, tile->out, part.at, part.n);
    for (size_t i = part.at; i < part.at + part.n; i++)
        tile->out[i] += (real)0; /* the donors' mean begins with +0, so zeros of either sign come to +0 */
}

static void average(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    enum round round = round_of(merge->work);
    unsigned k = norm_donors(merge);

    for (size_t i = 0; i < tile->n; i++)
        tile->out[i] = 0;
    for (unsigned i = 0; i < k; i++)
        kernels->add_rounded[round](tile->out, tile->in[norm_donor(merge, i)], tile->n);
    kernels->divide[round](tile->out, (real)k, tile->n);
}

static void run(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    const struct share *shares = tile->stats;
    const real *base = tile->in[merge->base];
    struct norm_part part = {0};

    for (unsigned i = 0; !shares && i < norm_donors(merge); i++)
        norm_vector(merge, kernels, tile, i);
    if (!norm_is_exact(merge))
        average(merge, kernels, tile);
    while (norm_next_part(vectors_of(merge), tile, &part)) {
        struct share share = shares
                                 ? shares[part.vector]
                                 : row_share(merge, kernels, tile->temp + TILE_TEMPS, numbers_of(tile), part);
        if (norm_is_exact(merge))
            run_exact(merge, kernels, tile, part, share.exact);
        else
            kernels->blend[round_of(merge->work)](tile->out + part.at, share.t, base + part.at, share.rest,
                                                  tile->out + part.at, part.n);
    }
}

static bool run_packed(const struct merge *merge, const struct kernels *kernels,
                       const struct packed_tile *tile)
{
    const struct share *share = tile->stats;
    struct norm_packed packed;

    if (merge->work != DTYPE_BF16 || vectors_of(merge).n != 1 || !norm_is_fused(merge))
        return false;
    packed = norm_packed(merge, tile->in, 0);
    kernels->stock_bf16[norm_donors(merge)](packed.x, packed.base, share->t, share->rest, tile->out, tile->n);
    return true;
}

static const struct method_param params[N_PARAMS] = {
    [FILTER_WISE] = {"filter_wise", PARAM_BOOL, PARAM_SHARED, .value = 0, .in_stats = true},
};

static const struct method_stats stats = {.state_size = state_size, .next = next, .takes_packed = true};

const struct method method_model_stock = {
    .name = "model_stock",
    .title = "Model Stock",
    .paper = "https://arxiv.org/abs/2403.19522",
    .base = BASE_REQUIRED,
    .lone = LONE_BASE_PASSES,
    .min_donors = 2,
    .params = params,
    .n_params = N_PARAMS,
    .stats = &stats,
    .row_length = row_length,
    .n_temps = TILE_TEMPS,
    .n_input_temps = 1,
    .run = run,
    .run_packed = run_packed,
};
