/* sce: task vectors weighted by their energy, the elements selected by their variance over the donors.
 *
 *     d_i = r(x_i - b)
 *     select_topk < 1: only the int(v select_topk) elements of the largest r(variance) stay, of equals those
 * of the lowest index, with v the elements whose variance is not 0; others are multiplied by 0 w_i = r(mean
 * r(d_i^2)); w_i = r(w_i / r(sum w)), or r(1/N) where |sum| < 1e-6 the sign of r(sum d) is elected, zero
 * being positive; e_i = w_i where d_i has it, else 0 out = r(b + r(r(sum r(d_i e_i)) / max(r(sum e_i),
 * r(1e-6)))) */
#include "blocks.h"
#include "order.h"
#include "task.h"

#include <math.h>
#include <string.h>

enum { SELECT_TOPK, INT8_MASK, N_PARAMS };
enum { VARIANCE = TASK_SUM_TEMPS, WEIGHTS, N_TEMPS };

static const struct method_param params[N_PARAMS] = {
    [SELECT_TOPK] = {"select_topk", PARAM_NUMBER, PARAM_SHARED, .value = 1, .in_stats = true},
    [INT8_MASK] = {"int8_mask", PARAM_BOOL, PARAM_SHARED, .value = 0, .unused = true},
};

/* Behind the state's struct order. */
struct energies {
    bool known;
    real weight[]; /* [n_donors] */
};

static bool selects(const struct merge *merge)
{
    return merge->shared[SELECT_TOPK] < 1;
}

static bool sorts(const struct merge *merge)
{
    return selects(merge) && merge->shared[SELECT_TOPK] > 0 && merge->n > 0;
}

/* ---- the selection */

static unsigned n_series(const struct merge *merge)
{
    return sorts(merge) ? 1 : 0;
}

static bool has_cuts(const struct merge *merge, unsigned series)
{
    (void)series;
    return sorts(merge);
}

/* Of elements as stored, and packed; where nothing is compared with them: 0. */
static void packed_variances(const struct merge *merge, const struct kernels *kernels, const void *const *in,
                             void *out, size_t n)
{
    if (sorts(merge))
        kernels->variance_bf16(in, (unsigned)merge->base, task_donors(merge), out, n);
    else
        memset(out, 0, n * sizeof(uint16_t));
}

static void variances(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                      unsigned series, real *out)
{
    (void)series;
    if (!tile->packed) {
        kernels->variance[round_of(merge->work)](tile->in, (unsigned)merge->base, task_donors(merge), out,
                                                 tile->n);
        return;
    }
    packed_variances(merge, kernels, tile->packed, tile->temp[VARIANCE], tile->n);
    kernels->load[DTYPE_BF16](tile->temp[VARIANCE], out, tile->n);
}

static void count(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                  const unsigned *series, unsigned n, uint32_t zero, uint32_t *const *bins)
{
    (void)series;
    (void)n;
    kernels->count_variances_bf16(tile->packed, (unsigned)merge->base, task_donors(merge), zero, bins[0],
                                  tile->n);
}

/* int(nonzero select_topk), a product in float32. */
static void choose(const struct merge *merge, unsigned series, uint64_t nonzero, struct cut cuts[ORDER_CUTS])
{
    float product = (float)nonzero * (float)merge->shared[SELECT_TOPK];
    uint64_t count = product < (float)merge->n ? (uint64_t)product : merge->n;

    (void)series;
    cuts[0] = (struct cut){.rank = count, .wanted = count < merge->n, .descending = true};
}

static const struct order_user order = {
    .n_series = n_series, .has_cuts = has_cuts, .values = variances, .count = count, .choose = choose};

static const struct cut *cuts_of(const void *state)
{
    return ((const struct order *)state)->cuts;
}

/* How many of a run's elements are before the cut's index. */
static size_t before_index(const struct cut *cut, uint64_t first, size_t n)
{
    return cut->index <= first ? 0 : cut->index - first < n ? (size_t)(cut->index - first) : n;
}

/* d = d times whether its element is selected. by: the variances. */
static void select_elements(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                            const real *by, real *d)
{
    const struct cut *cut = cuts_of(tile->stats);
    size_t before;

    if (!sorts(merge))
        kernels->select(d, d, 0, 0, tile->n);
    if (!sorts(merge) || !cut->wanted)
        return;
    before = before_index(cut, tile->first, tile->n);
    kernels->select(d, by, cut->key, REAL_BITS_MAX, before);
    kernels->select(d + before, by + before, cut->key + 1, REAL_BITS_MAX, tile->n - before);
}

/* The same of packed elements: the order keys of BF16 that selected ones have at least, `before` of the run's
 * elements and in the others. */
struct selection {
    uint32_t least[2];
    size_t before;
};

enum { KEEPS_ALL = 0, KEEPS_NONE = 0xffff };

static struct selection selection_of(const struct merge *merge, const struct cut *cut, uint64_t first,
                                     size_t n)
{
    uint32_t key;

    if (!sorts(merge))
        return (struct selection){{0, selects(merge) ? KEEPS_NONE : KEEPS_ALL}, 0};
    if (!cut->wanted)
        return (struct selection){{0, KEEPS_ALL}, 0};
    key = (uint32_t)((cut->key + 0xffff) >> 16);
    return (struct selection){{key, key + 1}, before_index(cut, first, n)};
}

static void donor_delta(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                        unsigned donor, const real *by, real *d)
{
    kernels->delta[round_of(merge->work)](tile->in[task_input(merge, donor)], tile->in[merge->base], d,
                                          tile->n);
    if (selects(merge))
        select_elements(merge, kernels, tile, by, d);
}

/* ---- the weights */

static size_t energies_size(const struct merge *merge)
{
    return task_donors(merge) * sizeof(double);
}

/* A donor's selected delta in tile->out. by: packed. */
static void packed_delta(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                         unsigned donor, const void *by)
{
    const uint16_t *x = tile->packed[task_input(merge, donor)], *base = tile->packed[merge->base], *v = by;
    const struct selection selection = selection_of(merge, cuts_of(tile->stats), tile->first, tile->n);
    size_t at = selection.before;

    kernels->selected_delta_bf16(x, base, v, selection.least[0], tile->out, at);
    kernels->selected_delta_bf16(x + at, base + at, v + at, selection.least[1], tile->out + at, tile->n - at);
}

static void energies_add(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                         void *acc)
{
    real *by = tile->temp[VARIANCE];
    double *sums = acc;

    if (tile->packed)
        packed_variances(merge, kernels, tile->packed, by, tile->n);
    else if (sorts(merge))
        variances(merge, kernels, tile, 0, by);
    for (unsigned i = 0; i < task_donors(merge); i++) {
        if (tile->packed)
            packed_delta(merge, kernels, tile, i, by);
        else
            donor_delta(merge, kernels, tile, i, by, tile->out);
        sums[i] += kernels->sum_squares[round_of(merge->work)](tile->out, tile->n);
    }
}

static struct energies *energies_of(const struct merge *merge, const void *state)
{
    return (void *)((char *)(uintptr_t)state + order_size(n_series(merge)));
}

static void energies_finish(const struct merge *merge, void *state, const struct blocks *blocks)
{
    const struct kernels *kernels = kernels_best();
    enum round round = round_of(merge->work);
    struct energies *energies = energies_of(merge, state);
    real *w = energies->weight, sum;
    unsigned n = task_donors(merge);

    for (unsigned i = 0; i < n; i++)
        w[i] = (real)(blocks_sum(blocks, i) / (double)merge->n);
    kernels->cast[round](w, n);
    sum = kernel_sum_scalars(w, n, round);
    kernels->cast[round](&sum, 1);
    if (fabs((double)sum) < 1e-6) {
        sum = (real)n;
        for (unsigned i = 0; i < n; i++)
            w[i] = 1;
    }
    kernels->divide[round](w, sum, n);
    energies->known = true;
}

static const struct pass energies_pass = {
    .acc_size = energies_size, .add = energies_add, .finish = energies_finish};

static size_t state_size(const struct merge *merge)
{
    return order_size(n_series(merge)) + sizeof(struct energies) + task_donors(merge) * sizeof(real);
}

static const struct pass *next_pass(const struct merge *merge, const void *state, unsigned n_done)
{
    const struct pass *pass = order_next(merge, state);

    (void)n_done;
    return pass || energies_of(merge, state)->known ? pass : &energies_pass;
}

static const struct method_stats stats = {.state_size = state_size, .next = next_pass, .takes_packed = true};

/* ---- the merge */

/* task->deltas = the selected deltas, task->sum = what elects the sign. */
static void elect(struct task *task)
{
    const struct tile *tile = task->tile;
    real *const *deltas = tile->temp + N_TEMPS, *by = tile->temp[VARIANCE], *sum = by;

    if (sorts(task->merge))
        variances(task->merge, task->kernels, tile, 0, by);
    for (unsigned i = 0; i < task->n_donors; i++)
        donor_delta(task->merge, task->kernels, tile, i, by, deltas[i]);
    task->deltas = deltas;
    task_sum(task, task_delta, sum);
    task->kernels->settle[task->round](sum, tile->n);
    task->sum = sum;
}

static void kept(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                 real *const *out)
{
    struct task task = task_begin(merge, kernels, tile);

    elect(&task);
    for (unsigned i = 0; i < task.n_donors; i++) {
        memset(out[i], 0, tile->n * sizeof(*out[i]));
        task_agreeing(&task, i, 0, tile->n, out[i]);
    }
}

static void run(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    struct task task = task_begin(merge, kernels, tile);
    real *weights = tile->temp[WEIGHTS], least = (real)1e-6;

    elect(&task);
    task.w = energies_of(merge, tile->stats)->weight;
    task_sum(&task, task_agreeing, tile->out);
    task_sum(&task, task_agreeing_weight, weights);
    kernels->cast[task.round](&least, 1);
    kernels->divide_least[task.round](tile->out, weights, least, tile->n);
    kernels->apply[task.round](tile->in[merge->base], tile->out, tile->out, tile->n);
}

/* Elements [at, at + n) of what was asked for; least: the order key that selected ones have. */
static void join_packed(const struct merge *merge, const struct kernels *kernels,
                        const struct packed_tile *tile, const void *by, uint32_t least, size_t at, size_t n)
{
    real floor = (real)1e-6;

    kernels->cast[ROUND_BF16](&floor, 1);
    for (unsigned i = 0; i < task_donors(merge); i++)
        tile->inputs[i] = (const uint16_t *)tile->in[task_input(merge, i)] + at;
    kernels->sce_bf16[task_donors(merge)]((const uint16_t *)tile->in[merge->base] + at, tile->inputs, by,
                                          least, energies_of(merge, tile->stats)->weight, floor,
                                          (uint16_t *)tile->out + at, n);
}

static bool run_packed(const struct merge *merge, const struct kernels *kernels,
                       const struct packed_tile *tile)
{
    unsigned n_donors = task_donors(merge);
    uint16_t *by = (uint16_t *)(void *)tile->temp[VARIANCE];

    if (merge->work != DTYPE_BF16 || n_donors < 1 || n_donors > TASK_FUSED)
        return false;
    for (size_t at = 0, n; at < tile->n; at += n) {
        struct selection selection;
        n = tile->n - at < tile->n_temp ? tile->n - at : tile->n_temp;
        for (unsigned i = 0; i < merge->n_inputs; i++)
            tile->inputs[i] = (const uint16_t *)tile->in[i] + at;
        packed_variances(merge, kernels, tile->inputs, by, n);
        selection = selection_of(merge, cuts_of(tile->stats), tile->first + at, n);
        join_packed(merge, kernels, tile, by, selection.least[0], at, selection.before);
        join_packed(merge, kernels, tile, by + selection.before, selection.least[1], at + selection.before,
                    n - selection.before);
    }
    return true;
}

const struct method method_sce = {
    .name = "sce",
    .title = "SCE",
    .paper = "https://arxiv.org/abs/2408.07990",
    .base = BASE_REQUIRED,
    .chooses = true,
    .lone = LONE_BASE_PASSES,
    .params = params,
    .n_params = N_PARAMS,
    .stats = &stats,
    .n_temps = N_TEMPS,
    .n_input_temps = 1,
    .own = &order,
    .is_copy = task_is_base_alone,
    .run = run,
    .kept = kept,
    .run_packed = run_packed,
};
