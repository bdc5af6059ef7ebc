/* multislerp: the weighted mean of any number of donors, or of their deltas from a base, on a hypersphere:
 * projected onto the tangent space at their normalised sum, averaged there, and projected back.
 *
 *     w = r(weights); normalize_weights: w = r(w / r(sum w)); v_i = x_i, or r(x_i - b)
 *     n_i = |v_i|; u_i = r(v_i / r(n_i + eps))
 *     mean = r(sum r(u w)), n_mean = |mean|; mean = r(mean / n_mean)
 *     dot_i = r(sum r(u_i mean)); res = r(sum r(r(u_i - r(dot_i mean)) w_i)); n_res = r(|res| + eps)
 *     out = r(r(r(mean r(cos n_res)) + r(res r(r(sin n_res) / n_res))) r(sum r(n w))), + b
 *     n_mean < r(eps): out = r(sum r(v w)), + b, for two donors, or where all v are 0; else an error
 *
 * In float16 eps is 0: there a donor without a delta is 0 u, not NaN, and sin n / n is 1 at n = 0.
 *
 * In float32 and float64 all of it is in float64, with one rounding, and little is left: tangents at the mean
 * of the same weights sum up to nothing but roundings. So n_res = eps, and the coefficient of v is
 *
 *     cos(eps) sum(n w) w / (n_mean (n + eps))
 *
 * In 16 bits the numbers depend on one another: n_mean, then dot, then n_res. One pass measures all three,
 * each with what is assumed of those before; the Gram matrix, which the first pass takes, foretells them
 * well. The pass is repeated until what was assumed is what came out: once, nearly always. */
#include "norm.h"

#include <errno.h>
#include <string.h>

enum { WEIGHT, NORMALIZE, EPS, N_PARAMS };
enum { MAX_MEASURED = 3 }; /* passes after which nothing is assumed any more */

struct state {
    bool settled, linear, all_zero;
    real n_mean;
    real cosine, sine, norm; /* of n_res: cos, and sin / n_res; sum of n w */
    /* [4][donors] real: weights, norms, divisors (norms + eps), dots; or where norm_is_exact: [inputs]
     * double, the coefficients */
    _Alignas(double) real numbers[];
};

struct points {
    unsigned n; /* donors */
    real *w, *norms, *divisors, *dots;
};

static struct points points_of(const struct merge *merge, const struct state *state)
{
    unsigned n = norm_donors(merge);
    real *at = (real *)(uintptr_t)state->numbers;

    return (struct points){n, at, at + n, at + 2 * n, at + 3 * n};
}

static size_t state_size(const struct merge *merge)
{
    unsigned n = norm_donors(merge);

    return n < 2 ? 0 : sizeof(struct state) + 4 * merge->n_inputs * sizeof(real);
}

static real eps(const struct merge *merge)
{
    return (real)merge->shared[EPS];
}

/* Arrays for each donor. */
static real *unit_at(const struct tile *tile, unsigned i)
{
    return tile->temp[TILE_TEMPS + i];
}

/* ---- the first pass */

static size_t gram_size(const struct merge *merge)
{
    return norm_pairs(norm_donors(merge)) * sizeof(double);
}

static void add_gram(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                     void *acc)
{
    norm_add_gram(merge, kernels, tile, norm_whole(merge), false, acc);
}

static void set_weights(const struct merge *merge, struct points p)
{
    enum round round = round_of(merge->work);
    real sum;

    for (unsigned i = 0; i < p.n; i++)
        p.w[i] = norm_round(merge, merge_input(merge, norm_donor(merge, i), WEIGHT));
    sum = norm_round(merge, (double)kernel_sum_scalars(p.w, p.n, round));
    for (unsigned i = 0; merge->shared[NORMALIZE] != 0 && i < p.n; i++)
        p.w[i] = norm_round(merge, (double)(p.w[i] / sum));
}

static void set_norms(const struct merge *merge, struct points p, const struct blocks *blocks)
{
    for (unsigned i = 0; i < p.n; i++) {
        p.norms[i] = norm_round(merge, sqrt(blocks_sum(blocks, norm_pair(p.n, i, i))));
        p.divisors[i] = norm_round(merge, (double)(p.norms[i] + eps(merge)));
        if (p.divisors[i] == 0)
            p.divisors[i] = INFINITY;
    }
}

/* r(sum r(n w)); terms: [n] for its use */
static real mean_norm(const struct merge *merge, struct points p, real *terms)
{
    for (unsigned i = 0; i < p.n; i++)
        terms[i] = norm_round(merge, (double)(p.norms[i] * p.w[i]));
    return norm_round(merge, (double)kernel_sum_scalars(terms, p.n, round_of(merge->work)));
}

/* u_i . (sum of w u), as far as the Gram matrix tells */
static double dot_sum(struct points p, const struct blocks *blocks, unsigned i)
{
    double sum = 0;

    for (unsigned j = 0; j < p.n; j++) {
        double dot = blocks_sum(blocks, i < j ? norm_pair(p.n, i, j) : norm_pair(p.n, j, i));
        sum += (double)p.w[j] * dot / ((double)p.divisors[i] * (double)p.divisors[j]);
    }
    return sum;
}

static void foretell(const struct merge *merge, struct state *state, const struct blocks *blocks)
{
    struct points p = points_of(merge, state);
    double square = 0;

    for (unsigned i = 0; i < p.n; i++)
        square += (double)p.w[i] * dot_sum(p, blocks, i);
    state->n_mean = norm_round(merge, square > 0 ? sqrt(square) : 0);
    for (unsigned i = 0; i < p.n; i++)
        p.dots[i] = norm_round(merge, dot_sum(p, blocks, i) / (double)state->n_mean);
}

static void finish_gram(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct state *s = state;
    struct points p = points_of(merge, s);

    set_weights(merge, p);
    set_norms(merge, p, blocks);
    s->all_zero = true;
    for (unsigned i = 0; i < p.n; i++)
        s->all_zero = s->all_zero && p.norms[i] == 0;
    s->norm = mean_norm(merge, p, p.dots);
    foretell(merge, s, blocks);
}

/* ---- exactly */

static double exact_weight(const struct merge *merge, unsigned donor)
{
    double sum = 0;

    for (unsigned i = 0; i < norm_donors(merge); i++)
        sum += merge_input(merge, norm_donor(merge, i), WEIGHT);
    return merge_input(merge, norm_donor(merge, donor), WEIGHT) / (merge->shared[NORMALIZE] != 0 ? sum : 1);
}

/* |sum of w v|^2 */
static double exact_square(const struct merge *merge, const struct blocks *blocks, const double *w)
{
    unsigned k = norm_donors(merge);
    double square = 0;

    for (unsigned i = 0; i < k; i++)
        for (unsigned j = 0; j < k; j++)
            square += w[i] * w[j] * blocks_sum(blocks, norm_pair(k, i < j ? i : j, i < j ? j : i));
    return square;
}

static void finish_exact(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct state *s = state;
    unsigned k = norm_donors(merge);
    double *coefs = (void *)s->numbers, sum = 0, norm = 0, n_mean;

    s->all_zero = true;
    for (unsigned i = 0; i < k; i++) {
        double n = sqrt(blocks_sum(blocks, norm_pair(k, i, i)));
        coefs[i] = exact_weight(merge, i) / (n + merge->shared[EPS]);
        norm += n * exact_weight(merge, i);
        s->all_zero = s->all_zero && n == 0;
    }
    n_mean = exact_square(merge, blocks, coefs);
    n_mean = n_mean < 0 ? 0 : sqrt(n_mean);
    s->linear = n_mean < merge->shared[EPS] || n_mean == 0;
    for (unsigned i = k; i-- > 0;) { /* downwards: from the donors' places to the inputs' */
        double c =
            s->linear ? exact_weight(merge, i) : coefs[i] / n_mean * scalar_cos(merge->shared[EPS]) * norm;
        coefs[norm_donor(merge, i)] = c;
        sum += c;
    }
    if (merge->base >= 0)
        coefs[merge->base] = 1 - sum;
    s->settled = true;
}

/* ---- the second */

/* Where a division by it is a multiplication by what is then as exact. */
static bool is_moderate(real divisor)
{
    return divisor > (real)0x1p-100 && divisor < (real)0x1p100;
}

/* Can the kernels of packed BF16 do with this state? They leave out the tangent's norm, of which there is
 * nothing but roundings of up to 2^-8: W = sum of |w| each of u w, their sum, the mean's quotient and its
 * products with dots, 6 W by which sum of w dot may miss n_mean, and 2 W of the tangents. That is 12 W, and
 * up to 16, where n_res is 1/16, cos n_res and sin n_res / n_res round to 1. */
static bool is_plain(const struct merge *merge, const struct state *state)
{
    struct points p = points_of(merge, state);
    bool plain = norm_is_fused(merge) && !state->linear && is_moderate(state->n_mean);
    real sum = 0;

    for (unsigned i = 0; plain && i < p.n; i++) {
        plain = is_moderate(p.divisors[i]);
        sum += real_abs(p.w[i]);
    }
    return plain && sum <= (real)1.125 && eps(merge) <= (real)0x1p-9;
}

static struct sphere sphere_of(const struct merge *merge, const struct state *state)
{
    struct points p = points_of(merge, state);
    struct sphere sphere = {.inverse_mean = 1 / state->n_mean, .norm = state->norm};

    for (unsigned i = 0; i < p.n; i++) {
        sphere.w[i] = p.w[i];
        sphere.inverse[i] = 1 / p.divisors[i];
        sphere.dots[i] = p.dots[i];
    }
    return sphere;
}

/* u_i, in its array */
static void make_unit(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                      unsigned i)
{
    real *out = unit_at(tile, i);
    const struct state *state = tile->stats;
    const real *v = norm_vector(merge, kernels, tile, i);

    kernels->quotient[round_of(merge->work)](v, points_of(merge, state).divisors[i], out, tile->n);
}

static void fill(real *x, real value, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = value;
}

/* The sum of w u into temp[0], and all u. */
static real *make_mean(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    enum round round = round_of(merge->work);
    struct points p = points_of(merge, tile->stats);
    real *mean = tile->temp[0];

    for (unsigned i = 0; i < p.n; i++)
        make_unit(merge, kernels, tile, i);
    if (p.n <= TASK_FUSED) {
        kernels->mean[round][p.n]((const real *const *)tile->temp + TILE_TEMPS, p.w, mean, tile->n);
        return mean;
    }
    fill(mean, 0, tile->n);
    for (unsigned i = 0; i < p.n; i++)
        kernels->scaled_add[round](mean, unit_at(tile, i), p.w[i], tile->n);
    kernels->settle[round](mean, tile->n);
    return mean;
}

/* The tangents' sum into temp[1], of the u that are there. dots: NULL, or to add u_i . mean to. */
static real *make_tangent(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                          const real *mean, double *dots)
{
    enum round round = round_of(merge->work);
    struct points p = points_of(merge, tile->stats);
    real *tangent = tile->temp[1];

    for (unsigned i = 0; dots && i < p.n; i++)
        dots[i] += kernels->dot_rounded[round](unit_at(tile, i), mean, tile->n);
    if (p.n <= TASK_FUSED) {
        kernels->tangent[round][p.n]((const real *const *)tile->temp + TILE_TEMPS, mean, p.dots, p.w, tangent,
                                     tile->n);
        return tangent;
    }
    fill(tangent, 0, tile->n);
    for (unsigned i = 0; i < p.n; i++)
        kernels->tangent_add[round](tangent, unit_at(tile, i), mean, p.dots[i], p.w[i], tile->n);
    kernels->settle[round](tangent, tile->n);
    return tangent;
}

/* The sums: of the mean's squares, [donors] dots, of the tangent's squares */
static size_t sphere_size(const struct merge *merge)
{
    return (2 + norm_donors(merge)) * sizeof(double);
}

static void add_sphere(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                       void *acc)
{
    const struct state *state = tile->stats;
    double *sum = acc;
    real *mean;

    if (tile->packed && is_plain(merge, state)) {
        const struct norm_packed packed = norm_packed(merge, tile->packed, 0);
        const struct sphere sphere = sphere_of(merge, state);
        kernels->sphere_sums_bf16[norm_donors(merge)](packed.x, packed.base, &sphere, tile->n, sum);
        return;
    }
    mean = make_mean(merge, kernels, tile);
    sum[0] += kernels->squares(mean, tile->n);
    kernels->divide[round_of(merge->work)](mean, state->n_mean, tile->n);
    sum[1 + norm_donors(merge)] +=
        kernels->squares(make_tangent(merge, kernels, tile, mean, sum + 1), tile->n);
}

/* Assume `measured` from now on; was it what was assumed? */
static bool agrees(real *assumed, real measured)
{
    bool same = *assumed == measured || (isnan(*assumed) && isnan(measured));

    *assumed = measured;
    return same;
}

static void set_result(const struct merge *merge, struct state *state, double square)
{
    real n = norm_round(merge, (double)(norm_round(merge, sqrt(square)) + eps(merge)));
    real sine = norm_round(merge, scalar_sin((double)n));

    state->cosine = norm_round(merge, scalar_cos((double)n));
    state->sine = n == 0 ? 1 : norm_round(merge, (double)(sine / n));
}

static void finish_sphere(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct state *s = state;
    struct points p = points_of(merge, s);
    real n_mean = norm_round(merge, sqrt(blocks_sum(blocks, 0)));
    double shorter = (double)s->n_mean / (double)n_mean; /* what the dots were measured with */
    bool same = true, same_mean = agrees(&s->n_mean, n_mean);

    s->linear = n_mean < norm_round(merge, merge->shared[EPS]) || n_mean == 0;
    for (unsigned i = 0; i < p.n; i++) {
        double dot = blocks_sum(blocks, 1 + i);
        same = agrees(&p.dots[i], norm_round(merge, same_mean ? dot : dot * shorter)) && same;
    }
    set_result(merge, s, blocks_sum(blocks, 1 + p.n));
    s->settled = s->linear || (same_mean && same);
}

static const struct pass *next(const struct merge *merge, const void *state, unsigned n_done)
{
    static const struct pass first = {.acc_size = gram_size, .add = add_gram, .finish = finish_gram},
                             exact = {.acc_size = gram_size, .add = add_gram, .finish = finish_exact},
                             sphere = {.acc_size = sphere_size, .add = add_sphere, .finish = finish_sphere};
    const struct state *s = state;

    if (n_done == 0)
        return norm_is_exact(merge) ? &exact : &first;
    return s->settled || n_done > MAX_MEASURED ? NULL : &sphere;
}

static int check_state(const struct merge *merge, const void *state, struct err *err)
{
    const struct state *s = state;

    if (!s->linear || s->all_zero || norm_donors(merge) == 2)
        return 0;
    return err_set(err, -EIO,
                   "the weighted sum of %u models is zero here, so that multislerp has no direction to go; "
                   "change a `weight`",
                   norm_donors(merge));
}

/* ---- elements */

static void run_linear(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    struct points p = points_of(merge, tile->stats);
    enum round round = round_of(merge->work);

    fill(tile->out, -(real)0, tile->n); /* which changes nothing that is added to it */
    for (unsigned i = 0; i < p.n; i++)
        kernels->scaled_add[round](tile->out, norm_vector(merge, kernels, tile, i), p.w[i], tile->n);
    kernels->settle[round](tile->out, tile->n);
}

static void run_sphere(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    enum round round = round_of(merge->work);
    const struct state *state = tile->stats;
    real *mean = make_mean(merge, kernels, tile), *tangent;

    kernels->divide[round](mean, state->n_mean, tile->n);
    tangent = make_tangent(merge, kernels, tile, mean, NULL);
    kernels->blend[round](mean, state->cosine, tangent, state->sine, tile->out, tile->n);
    kernels->scale[round](tile->out, state->norm, tile->n);
}

/* The coefficient of a small delta is large, so that the base's digits show in the sum of products: in
 * float64, which has none to spare, deltas are summed. */
static void run_exact(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    const struct state *state = tile->stats;
    const double *coefs = (const void *)state->numbers;

    if (merge->work != DTYPE_F64 || merge->base < 0) {
        kernels->combine[ROUND_NONE](tile->in, coefs, merge->n_inputs, tile->out, 0, tile->n);
        return;
    }
    fill(tile->out, 0, tile->n);
    for (unsigned i = 0; i < norm_donors(merge); i++)
        kernels->task_add[ROUND_NONE](tile->out, tile->in[norm_donor(merge, i)], tile->in[merge->base],
                                      (real)coefs[norm_donor(merge, i)], tile->n);
    kernels->apply[ROUND_NONE](tile->in[merge->base], tile->out, tile->out, tile->n);
}

static void run(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    const struct state *state = tile->stats;

    if (!state) { /* one donor: that */
        memcpy(tile->out, tile->in[norm_donor(merge, 0)], tile->n * sizeof(*tile->out));
        return;
    }
    if (norm_is_exact(merge)) {
        run_exact(merge, kernels, tile);
        return;
    }
    (state->linear ? run_linear : run_sphere)(merge, kernels, tile);
    if (merge->base >= 0)
        kernels->apply[round_of(merge->work)](tile->in[merge->base], tile->out, tile->out, tile->n);
}

static bool run_packed(const struct merge *merge, const struct kernels *kernels,
                       const struct packed_tile *tile)
{
    const struct state *state = tile->stats;
    struct norm_packed packed;
    struct sphere sphere;

    if (!state || merge->work != DTYPE_BF16 || !is_plain(merge, state))
        return false;
    packed = norm_packed(merge, tile->in, 0);
    sphere = sphere_of(merge, state);
    kernels->sphere_bf16[norm_donors(merge)](packed.x, packed.base, &sphere, tile->out, tile->n);
    return true;
}

static bool is_single(const struct merge *merge)
{
    return merge->n_inputs == 1;
}

static const struct method_param params[N_PARAMS] = {
    [WEIGHT] = {"weight", PARAM_NUMBER, PARAM_DONOR, .required = true, .value = NAN, .in_stats = true},
    [NORMALIZE] = {"normalize_weights", PARAM_BOOL, PARAM_SHARED, .value = 1, .in_stats = true},
    [EPS] = {"eps", PARAM_NUMBER, PARAM_SHARED, .value = 1e-8, .in_stats = true},
};

static const struct method_stats stats = {
    .state_size = state_size, .next = next, .check = check_state, .takes_packed = true};

const struct method method_multislerp = {
    .name = "multislerp",
    .title = "Multi-SLERP",
    .paper = "https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    .base = BASE_OPTIONAL,
    .lone = LONE_BASE_PASSES,
    .min_donors = 1,
    .params = params,
    .n_params = N_PARAMS,
    .stats = &stats,
    .n_temps = TILE_TEMPS,
    .n_input_temps = 1,
    .is_copy = is_single,
    .run = run,
    .run_packed = run_packed,
};
