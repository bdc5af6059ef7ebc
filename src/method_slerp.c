/* slerp: from the base, t = 0, to the donor, t = 1, along the great circle.
 *
 *     na, nb = norms, 1 where not above 1e-8; dot = clamp(sum a b / (na nb))
 *     |dot| > 0.9995: ca = 1 - t, cb = t; else ca = sin((1-t) A) / sin A, cb = sin(t A) / sin A, A =
 * acos(dot) out = r(ca a + cb b)
 *
 * All in float32 whatever the working type, with one rounding at the end; sums are in float64, rounded once.
 * Inputs in float32: all in float64. */
#include "norm.h"

enum { T, N_PARAMS };

struct state {
    real na, nb;     /* norms */
    real dot;        /* of the units */
    real ca, cb;     /* coefficients */
    double cosine;   /* where norm_is_exact */
    double exact[2]; /* there: of the inputs */
};

static size_t state_size(const struct merge *merge)
{
    (void)merge;
    return sizeof(struct state);
}

static unsigned donor_of(const struct merge *merge)
{
    return norm_donor(merge, 0);
}

static size_t gram_size(const struct merge *merge)
{
    (void)merge;
    return 3 * sizeof(double);
}

static void add_gram(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                     void *acc)
{
    unsigned a = (unsigned)merge->base, b = donor_of(merge);
    double *sum = acc;

    if (tile->packed) {
        const void *const both[] = {tile->packed[a], tile->packed[b]};
        kernels->gram_bf16[2](both, NULL, tile->n, sum);
        return;
    }
    sum[0] += kernels->squares(tile->in[a], tile->n);
    sum[1] += kernels->dot(tile->in[a], tile->in[b], tile->n);
    sum[2] += kernels->squares(tile->in[b], tile->n);
}

static real norm_of(double square)
{
    real norm = (real)sqrt(square);

    return norm > (real)1e-8 ? norm : 1;
}

static real sine(real x)
{
    return (real)scalar_sin((double)x);
}

/* The dot of the units follows from that of the inputs: no second pass for it. */
static void finish_gram(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct state *s = state;
    double aa = blocks_sum(blocks, 0), ab = blocks_sum(blocks, 1), bb = blocks_sum(blocks, 2);

    (void)merge;
    s->na = norm_of(aa);
    s->nb = norm_of(bb);
    s->dot = norm_at_most(norm_at_least((real)(ab / ((double)s->na * (double)s->nb)), -1), 1);
}

static void set_coefs(const struct merge *merge, struct state *s)
{
    real t = (real)merge->shared[T], rest = 1 - t, angle = (real)scalar_acos((double)s->dot);

    s->ca = rest;
    s->cb = t;
    if (real_abs(s->dot) > (real)0.9995)
        return;
    s->ca = sine(rest * angle) / sine(angle);
    s->cb = sine(t * angle) / sine(angle);
}

/* ---- exactly */

static void finish_exact(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct state *s = state;
    double na = sqrt(blocks_sum(blocks, 0)), nb = sqrt(blocks_sum(blocks, 2));

    (void)merge;
    s->cosine = blocks_sum(blocks, 1) / ((na > 1e-8 ? na : 1) * (nb > 1e-8 ? nb : 1));
}

static void set_exact(const struct merge *merge, struct state *s)
{
    double t = merge->shared[T], c = s->cosine, angle = scalar_acos(c < -1 ? -1 : c > 1 ? 1 : c);
    bool linear = fabs(c) > 0.9995;

    s->exact[merge->base] = linear ? 1 - t : scalar_sin((1 - t) * angle) / scalar_sin(angle);
    s->exact[donor_of(merge)] = linear ? t : scalar_sin(t * angle) / scalar_sin(angle);
}

static void settle(const struct merge *merge, void *state)
{
    (norm_is_exact(merge) ? set_exact : set_coefs)(merge, state);
}

static const struct pass *next(const struct merge *merge, const void *state, unsigned n_done)
{
    static const struct pass rounded = {.acc_size = gram_size, .add = add_gram, .finish = finish_gram},
                             exact = {.acc_size = gram_size, .add = add_gram, .finish = finish_exact};

    (void)state;
    if (n_done > 0)
        return NULL;
    return norm_is_exact(merge) ? &exact : &rounded;
}

static void run(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    const struct state *s = tile->stats;

    if (norm_is_exact(merge)) {
        kernels->combine[ROUND_NONE](tile->in, s->exact, 2, tile->out, 0, tile->n);
        return;
    }
    kernels->mix[round_of(merge->work)](tile->in[merge->base], s->ca, tile->in[donor_of(merge)], s->cb,
                                        tile->out, tile->n);
}

static bool run_packed(const struct merge *merge, const struct kernels *kernels,
                       const struct packed_tile *tile)
{
    const struct state *s = tile->stats;

    if (merge->work != DTYPE_BF16)
        return false;
    kernels->mix_bf16(tile->in[merge->base], s->ca, tile->in[donor_of(merge)], s->cb, tile->out, tile->n);
    return true;
}

static const struct method_param params[N_PARAMS] = {
    [T] = {"t", PARAM_NUMBER, PARAM_SHARED, .required = true, .value = NAN},
};

static const struct method_stats stats = {
    .state_size = state_size, .next = next, .settle = settle, .takes_packed = true};

const struct method method_slerp = {
    .name = "slerp",
    .title = "SLERP",
    .paper = "https://en.wikipedia.org/wiki/Slerp",
    .base = BASE_REQUIRED,
    .lone = LONE_EITHER_PASSES,
    .min_donors = 1,
    .max_donors = 1,
    .params = params,
    .n_params = N_PARAMS,
    .stats = &stats,
    .run = run,
    .run_packed = run_packed,
};
