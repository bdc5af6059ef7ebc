/* karcher: the mean of the inputs on the unit sphere (Riemannian centre of mass), times the mean of their
 * norms.
 *
 * Every point of the iteration is a linear combination of the inputs, so it runs on their coefficients, in
 * float64, with dots from the inputs' Gram matrix:
 *
 *     units u_i = x_i / n_i of the inputs with n_i > tol, weights w = 1 / their number
 *     m = sum w u, to length 1; u_0 where it is shorter than tol
 *     at most max_iter times: A_i = acos(m.u_i); v = sum of w A_i / sin A_i (u_i - (m.u_i) m), without those
 *         with A_i < tol; stop at |v| < tol; m = cos|v| m + sin|v| v / |v|, to length 1
 *     out = r(m (mean of all n_i))
 *
 * mergekit rounds every step of that to the working type; this is held against the exact result instead. */
#include "norm.h"

#include <errno.h>
#include <string.h>

enum { MAX_ITER, TOL, N_PARAMS };
enum { ITER_LIMIT = 10000 };

/* The state: [n_inputs] coefficients of the result, then what the iteration needs. */
struct points {
    unsigned n; /* inputs */
    double tol;
    double *mean, *tangent; /* [n] coefficients of units */
    double *norms, *angles; /* [n]; an angle of NAN: that input has no unit */
    double *gram;           /* [norm_pairs(n)] of the units */
};

static size_t state_size(const struct merge *merge)
{
    return (4 * (size_t)merge->n_inputs + norm_pairs(merge->n_inputs)) * sizeof(double);
}

static struct points points_of(const struct merge *merge, void *state)
{
    double *at = state;
    unsigned n = merge->n_inputs;

    return (struct points){n, merge->shared[TOL], at, at + n, at + 2 * n, at + 3 * n, at + 4 * n};
}

static size_t gram_size(const struct merge *merge)
{
    return norm_pairs(merge->n_inputs) * sizeof(double);
}

static void add_gram(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                     void *acc)
{
    norm_add_gram(merge, kernels, tile, norm_whole(merge), false, acc);
}

static double gram_at(const struct points *p, unsigned i, unsigned j)
{
    return p->gram[i < j ? norm_pair(p->n, i, j) : norm_pair(p->n, j, i)];
}

/* Gram matrix of the inputs to that of the units, 0 where there is none. */
static void make_units(struct points *p)
{
    for (unsigned i = 0; i < p->n; i++)
        p->norms[i] = sqrt(gram_at(p, i, i));
    for (unsigned i = 0; i < p->n; i++) {
        for (unsigned j = i; j < p->n; j++) {
            bool both = p->norms[i] > p->tol && p->norms[j] > p->tol;
            double *at = &p->gram[norm_pair(p->n, i, j)];
            *at = both ? *at / (p->norms[i] * p->norms[j]) : 0;
        }
    }
}

static double dot_unit(const struct points *p, const double *a, unsigned unit)
{
    double sum = 0;

    for (unsigned i = 0; i < p->n; i++)
        sum += a[i] * gram_at(p, i, unit);
    return sum;
}

static double length(const struct points *p, const double *a)
{
    double square = 0;

    for (unsigned i = 0; i < p->n; i++)
        square += a[i] * dot_unit(p, a, i);
    return square > 0 ? sqrt(square) : square < 0 ? 0 : square;
}

static void scale(const struct points *p, double *a, double by)
{
    for (unsigned i = 0; i < p->n; i++)
        a[i] *= by;
}

/* The weighted mean of the units, to length 1. false: there are no units. */
static bool begin(struct points *p)
{
    unsigned first = p->n, count = 0;
    double len;

    for (unsigned i = p->n; i-- > 0;) {
        bool valid = p->norms[i] > p->tol;
        first = valid ? i : first;
        count += valid;
    }
    for (unsigned i = 0; i < p->n; i++)
        p->mean[i] = p->norms[i] > p->tol ? 1 / (double)count : 0;
    if (count == 0)
        return false;
    len = length(p, p->mean);
    if (len < p->tol) {
        memset(p->mean, 0, p->n * sizeof(*p->mean));
        p->mean[first] = 1;
    } else {
        scale(p, p->mean, 1 / len);
    }
    return true;
}

static double clamp1(double x)
{
    return x < -1 ? -1 : x > 1 ? 1 : x;
}

/* The mean direction from p->mean to the units, in their tangent space. */
static void tangent_mean(struct points *p, double weight)
{
    double along = 0;

    for (unsigned i = 0; i < p->n; i++) {
        double dot = clamp1(dot_unit(p, p->mean, i)), angle = scalar_acos(dot);
        bool counts = p->norms[i] > p->tol && !(angle < p->tol);
        p->tangent[i] = counts ? weight * (angle / scalar_sin(angle)) : 0;
        along += p->tangent[i] * dot;
    }
    for (unsigned i = 0; i < p->n; i++)
        p->tangent[i] -= along * p->mean[i];
}

/* One step; false: the mean is where it should be. */
static bool step(struct points *p, double weight)
{
    double len, unit, cosine, sine;

    tangent_mean(p, weight);
    len = length(p, p->tangent);
    if (len < p->tol)
        return false;
    cosine = scalar_cos(len);
    sine = scalar_sin(len);
    for (unsigned i = 0; i < p->n; i++)
        p->mean[i] = cosine * p->mean[i] + sine / len * p->tangent[i];
    unit = length(p, p->mean);
    if (unit > p->tol)
        scale(p, p->mean, 1 / unit);
    return true;
}

/* Coefficients of units to those of inputs, of which an input without a unit has none. */
static void end(struct points *p)
{
    double sum = 0;

    for (unsigned i = 0; i < p->n; i++)
        sum += p->norms[i] / (double)p->n;
    for (unsigned i = 0; i < p->n; i++)
        p->mean[i] = p->norms[i] > p->tol ? p->mean[i] * (sum / p->norms[i]) : sum * 0;
}

static void finish_gram(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct points p = points_of(merge, state);
    double weight, count = 0;
    bool more;

    for (size_t i = 0; i < norm_pairs(p.n); i++)
        p.gram[i] = blocks_sum(blocks, i);
    make_units(&p);
    more = begin(&p);
    for (unsigned i = 0; i < p.n; i++)
        count += p.norms[i] > p.tol;
    weight = 1 / count;
    for (double i = 0; more && i < merge->shared[MAX_ITER]; i++)
        more = step(&p, weight);
    end(&p);
}

static const struct pass *next(const struct merge *merge, const void *state, unsigned n_done)
{
    static const struct pass pass = {.acc_size = gram_size, .add = add_gram, .finish = finish_gram};

    (void)merge;
    (void)state;
    return n_done == 0 ? &pass : NULL;
}

static void run(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    kernels->combine[round_of(merge->work)](tile->in, tile->stats, merge->n_inputs, tile->out, 0, tile->n);
}

static bool run_packed(const struct merge *merge, const struct kernels *kernels,
                       const struct packed_tile *tile)
{
    if (merge->work != DTYPE_BF16 || !norm_is_fused(merge))
        return false;
    kernels->combine_bf16[merge->n_inputs](tile->in, tile->stats, tile->out, tile->n);
    return true;
}

static bool is_single(const struct merge *merge)
{
    return merge->n_inputs == 1;
}

static int check(const struct merge *merge, struct err *err)
{
    double n = merge->shared[MAX_ITER];

    if (n >= 0 && n <= ITER_LIMIT)
        return 0;
    return err_set(err, -EINVAL, "`max_iter: %g` must be from 0 to %d", n, ITER_LIMIT);
}

static const struct method_param params[N_PARAMS] = {
    [MAX_ITER] = {"max_iter", PARAM_INTEGER, PARAM_SHARED, .value = 10, .in_stats = true},
    [TOL] = {"tol", PARAM_NUMBER, PARAM_SHARED, .value = 1e-5, .in_stats = true},
};

static const struct method_stats stats = {.state_size = state_size, .next = next, .takes_packed = true};

const struct method method_karcher = {
    .name = "karcher",
    .title = "Karcher Mean",
    .paper = "https://arxiv.org/abs/2603.04972",
    .base = BASE_IGNORED,
    .lone = LONE_BASE_PASSES,
    .min_donors = 1,
    .params = params,
    .n_params = N_PARAMS,
    .check = check,
    .stats = &stats,
    .n_input_temps = 1,
    .is_copy = is_single,
    .run = run,
    .run_packed = run_packed,
};
