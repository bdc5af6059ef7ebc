/* Methods on task vectors, the differences from the base.
 *
 *     d_i = r(x_i - b), pruned as the method says (task_prune.h); e_i = r(r(w_i) d_i)
 *     m = r(sum e), divisor = r(sum r(w)), 1 for |divisor| < r(1e-8)
 *     consensus: the sign of r(sum e) is elected, zero being positive; models whose e_i has another sign, or
 *         none, leave both sums; the divisor is the element's own, 1 where it is 0
 *     normalize: m = r(m / divisor)
 *     lambda not 1: m = r(m lambda)
 *     out = r(b + m)
 *
 * In float16 r(1e-8) is 0, so weights that cancel give infinities there, as in mergekit. */
#include "task_prune.h"

#include <math.h>
#include <string.h>

static void rounded_weights(const struct merge *merge, const struct kernels *kernels, real *w)
{
    for (unsigned i = 0; i < task_donors(merge); i++)
        w[i] = (real)merge_input(merge, task_input(merge, i), TASK_WEIGHT);
    kernels->cast[round_of(merge->work)](w, task_donors(merge));
}

static void weighted_delta(const struct task *task, unsigned donor, size_t at, size_t n, real *acc)
{
    const real *x = task->tile->in[task_input(task->merge, donor)], *base = task->tile->in[task->merge->base];

    task->kernels->task_add[task->round](acc, x + at, base + at, task->w[donor], n);
}

static real weight_sum(const struct task *task)
{
    real sum = kernel_sum_scalars(task->w, task->n_donors, task->round), least = (real)1e-8;

    task->kernels->cast[task->round](&sum, 1);
    task->kernels->cast[task->round](&least, 1);
    return real_abs(sum) < least ? 1 : sum;
}

/* Whether m is the plain sum: the last step rounds it. */
static bool is_plain(const struct merge *merge)
{
    return merge->shared[TASK_NORMALIZE] == 0 && merge->shared[TASK_LAMBDA] == 1;
}

/* out = m once the sum is in it. divisor: of each element; NULL: of all. */
static void finish(const struct task *task, const real *divisor)
{
    const struct merge *merge = task->merge;
    const struct kernels *kernels = task->kernels;
    const struct tile *tile = task->tile;
    bool normalize = merge->shared[TASK_NORMALIZE] != 0;

    if (!is_plain(merge))
        kernels->settle[task->round](tile->out, tile->n);
    if (normalize && divisor)
        kernels->divide_by[task->round](tile->out, divisor, tile->n);
    else if (normalize)
        kernels->divide[task->round](tile->out, weight_sum(task), tile->n);
    if (merge->shared[TASK_LAMBDA] != 1)
        kernels->scale[task->round](tile->out, (real)merge->shared[TASK_LAMBDA], tile->n);
    kernels->apply[task->round](tile->in[merge->base], tile->out, tile->out, tile->n);
}

static void run_task_arithmetic(const struct merge *merge, const struct kernels *kernels,
                                const struct tile *tile)
{
    struct task task = task_begin(merge, kernels, tile);

    rounded_weights(merge, kernels, tile->scalars);
    task.w = tile->scalars;
    task_sum(&task, weighted_delta, tile->out);
    finish(&task, NULL);
}

/* The elected sign's sums: of the deltas into tile->out, of the weights into `divisor`. */
static void sum_agreeing(struct task *task, const real *w, real *sum, real *divisor)
{
    const struct tile *tile = task->tile;

    task_sum(task, task_delta, sum);
    task->kernels->settle[task->round](sum, tile->n);
    task->sum = sum;
    task_sum(task, task_agreeing, tile->out);
    task->w = w;
    if (task->merge->shared[TASK_NORMALIZE] != 0)
        task_sum(task, task_agreeing_weight, divisor);
}

/* task->deltas = the pruned deltas, weighted; the weights are left in tile->scalars. */
static void prune_all(struct task *task)
{
    const struct tile *tile = task->tile;
    real *const *deltas = tile->temp + PRUNE_TEMPS, *w = tile->scalars;

    rounded_weights(task->merge, task->kernels, w);
    for (unsigned i = 0; i < task->n_donors; i++) {
        prune_delta(task->merge, task->kernels, tile, i, deltas[i]);
        task->kernels->scale[task->round](deltas[i], w[i], tile->n);
    }
    task->deltas = deltas;
}

static void run_pruned(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    const struct task_family *family = merge->method->own;
    struct task task = task_begin(merge, kernels, tile);
    real *const *deltas, *w = tile->scalars, *sum = tile->temp[TASK_SUM_TEMPS],
                         *divisor = tile->temp[TASK_SUM_TEMPS + 1];

    prune_all(&task);
    deltas = task.deltas;
    if (family->consensus && task.n_donors <= TASK_FUSED) {
        kernels->consensus[task.round][task.n_donors](tile->in[merge->base], (const real *const *)deltas, w,
                                                      merge->shared[TASK_NORMALIZE] != 0,
                                                      (real)merge->shared[TASK_LAMBDA], tile->out, tile->n);
    } else if (family->consensus) {
        sum_agreeing(&task, w, sum, divisor);
        finish(&task, divisor);
    } else {
        task.w = w;
        task_sum(&task, task_delta, tile->out);
        finish(&task, NULL);
    }
}

/* What disagrees with the elected sign is left out, too. */
static void kept_pruned(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                        real *const *out)
{
    const struct task_family *family = merge->method->own;
    struct task task = task_begin(merge, kernels, tile);
    real *agrees = tile->temp[0];

    if (family->consensus) {
        prune_all(&task);
        task_sum(&task, task_delta, tile->out);
        kernels->settle[task.round](tile->out, tile->n);
    }
    for (unsigned i = 0; i < task.n_donors; i++) {
        prune_values(merge, kernels, tile, i, out[i]);
        if (!family->consensus)
            continue;
        memset(agrees, 0, tile->n * sizeof(*agrees));
        kernels->agree_weight(agrees, task.deltas[i], tile->out, 1, tile->n);
        for (size_t k = 0; k < tile->n; k++)
            out[i][k] *= agrees[k];
    }
}

static bool run_packed(const struct merge *merge, const struct kernels *kernels,
                       const struct packed_tile *tile)
{
    unsigned n = task_donors(merge);

    if (merge->work != DTYPE_BF16 || n < 1 || n > TASK_FUSED || !is_plain(merge))
        return false;
    rounded_weights(merge, kernels, tile->scalars);
    for (unsigned i = 0; i < n; i++)
        tile->inputs[i] = tile->in[task_input(merge, i)];
    kernels->task_bf16[n](tile->in[merge->base], tile->inputs, tile->scalars, tile->out, tile->n);
    return true;
}

/* `tile` is a part of what was asked for, out its result. */
static void join_pruned(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                        const real *w, void *out)
{
    const struct task_family *family = merge->method->own;
    const struct task task = {.merge = merge,
                              .kernels = kernels,
                              .round = round_of(merge->work),
                              .n_donors = task_donors(merge),
                              .w = w};
    bool normalize = merge->shared[TASK_NORMALIZE] != 0;
    real lambda = (real)merge->shared[TASK_LAMBDA];
    const void *e[TASK_FUSED];

    for (unsigned i = 0; i < task.n_donors; i++) {
        real *const *room = tile->temp + PRUNE_TEMPS;
        prune_packed(merge, kernels, tile, i, w[i], room[task.n_donors], room[i]);
        e[i] = room[i];
    }
    if (family->consensus)
        kernels->consensus_bf16[task.n_donors](tile->packed[merge->base], e, w, normalize, lambda, out,
                                               tile->n);
    else
        kernels->sum_bf16[task.n_donors](tile->packed[merge->base], e, normalize ? weight_sum(&task) : 1,
                                         lambda, out, tile->n);
}

static bool run_pruned_packed(const struct merge *merge, const struct kernels *kernels,
                              const struct packed_tile *tile)
{
    unsigned n_donors = task_donors(merge);

    if (merge->work != DTYPE_BF16 || n_donors < 1 || n_donors > TASK_FUSED)
        return false;
    rounded_weights(merge, kernels, tile->scalars);
    for (size_t at = 0, step; at < tile->n; at += step) {
        step = tile->n - at < tile->n_temp ? tile->n - at : tile->n_temp;
        for (unsigned i = 0; i < merge->n_inputs; i++)
            tile->inputs[i] = (const uint16_t *)tile->in[i] + at;
        join_pruned(merge, kernels,
                    &(struct tile){.first = tile->first + at,
                                   .n = step,
                                   .stats = tile->stats,
                                   .packed = tile->inputs,
                                   .temp = tile->temp},
                    tile->scalars, (uint16_t *)tile->out + at);
    }
    return true;
}

#define PARAMS(normalized, rescaled, prunes)                                                \
    [TASK_WEIGHT] = {"weight", PARAM_NUMBER, PARAM_DONOR, .required = true, .value = NAN},  \
    [TASK_DENSITY] = {"density",  PARAM_NUMBER,        PARAM_DONOR,                         \
                      .value = 1, .unused = !(prunes), .in_stats = true},                   \
    [TASK_NORMALIZE] = {"normalize", PARAM_BOOL, PARAM_SHARED, .value = (normalized)},      \
    [TASK_RESCALE] = {"rescale",           PARAM_BOOL,          PARAM_SHARED,               \
                      .value = (rescaled), .unused = !(prunes), .in_stats = true},          \
    [TASK_INT8_MASK] = {"int8_mask", PARAM_BOOL, PARAM_SHARED, .value = 0, .unused = true}, \
    [TASK_LAMBDA] = {"lambda", PARAM_NUMBER, PARAM_SHARED, .value = 1}

#define GAMMA [TASK_OWN] = {"gamma", PARAM_NUMBER, PARAM_DONOR, .value = 0.01, .in_stats = true}
#define EPSILON [TASK_OWN] = {"epsilon", PARAM_NUMBER, PARAM_DONOR, .value = 0.15, .in_stats = true}

static const struct method_param arithmetic_params[] = {PARAMS(0, 0, false)},
                                 ties_params[] = {PARAMS(1, 0, true)}, dare_params[] = {PARAMS(0, 1, true)},
                                 breadcrumbs_params[] = {PARAMS(0, 0, true), GAMMA},
                                 della_params[] = {PARAMS(1, 1, true), EPSILON},
                                 della_linear_params[] = {PARAMS(0, 1, true), EPSILON};

#define N_PARAMS(params) (sizeof(params) / sizeof((params)[0]))

const struct method method_task_arithmetic = {
    .name = "task_arithmetic",
    .title = "Task Arithmetic",
    .paper = "https://arxiv.org/abs/2212.04089",
    .base = BASE_REQUIRED,
    .lone = LONE_BASE_PASSES,
    .params = arithmetic_params,
    .n_params = N_PARAMS(arithmetic_params),
    .is_copy = task_is_base_alone,
    .run = run_task_arithmetic,
    .run_packed = run_packed,
};

static const struct task_family ties = {PRUNE_ORDER, PRUNE_MAGNITUDE, true},
                                dare_linear = {PRUNE_ORDER, PRUNE_RANDOM, false},
                                dare_ties = {PRUNE_ORDER, PRUNE_RANDOM, true},
                                breadcrumbs = {PRUNE_ORDER, PRUNE_OUTLIERS, false},
                                breadcrumbs_ties = {PRUNE_ORDER, PRUNE_OUTLIERS, true},
                                della = {PRUNE_ORDER, PRUNE_RANKED, true},
                                della_linear = {PRUNE_ORDER, PRUNE_RANKED, false};

#define PRUNED(family, parameters, heading, url) \
    const struct method method_##family = {      \
        .name = #family,                         \
        .title = (heading),                      \
        .paper = (url),                          \
        .base = BASE_REQUIRED,                   \
        .lone = LONE_BASE_PASSES,                \
        .chooses = true,                         \
        .params = (parameters),                  \
        .n_params = N_PARAMS(parameters),        \
        .check = prune_check,                    \
        .stats = &prune_stats,                   \
        .row_length = prune_row_length,          \
        .n_temps = PRUNE_TEMPS,                  \
        .n_input_temps = 1,                      \
        .own = &(family),                        \
        .is_copy = task_is_base_alone,           \
        .run = run_pruned,                       \
        .run_packed = run_pruned_packed,         \
        .kept = kept_pruned,                     \
    }

PRUNED(ties, ties_params, "TIES", "https://arxiv.org/abs/2306.01708");
PRUNED(dare_linear, dare_params, "Linear DARE", "https://arxiv.org/abs/2311.03099");
PRUNED(dare_ties, dare_params, "DARE TIES", "https://arxiv.org/abs/2311.03099");
PRUNED(breadcrumbs, breadcrumbs_params, "Model Breadcrumbs", "https://arxiv.org/abs/2312.06795");
PRUNED(breadcrumbs_ties, breadcrumbs_params, "Model Breadcrumbs with TIES",
       "https://arxiv.org/abs/2312.06795");
PRUNED(della, della_params, "DELLA", "https://arxiv.org/abs/2406.11617");
PRUNED(della_linear, della_linear_params, "Linear DELLA", "https://arxiv.org/abs/2406.11617");
