#include "task_prune.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "blocks.h"
#include "rank.h"
#include "row_limit.h"

/* Behind the state's struct order. */
struct norms {
    bool known;
    real scale[]; /* [n_donors] */
};

enum keep { KEEP_ALL, KEEP_NONE, KEEP_SOME };

static const struct task_family *family_of(const struct merge *merge)
{
    return merge->method->own;
}

static double donor_value(const struct merge *merge, unsigned donor, unsigned param)
{
    return merge_input(merge, task_input(merge, donor), param);
}

static enum keep keep_of(const struct merge *merge, unsigned donor)
{
    double density = donor_value(merge, donor, TASK_DENSITY);
    enum prune prune = family_of(merge)->prune;

    if (density >= 1)
        return KEEP_ALL;
    if (density <= 0 && (prune == PRUNE_MAGNITUDE || prune == PRUNE_RANKED))
        return KEEP_NONE;
    if (prune == PRUNE_RANKED && merge->ndim == 0)
        return KEEP_ALL;
    return KEEP_SOME;
}

static bool keeps_some(const struct merge *merge)
{
    for (unsigned i = 0; i < task_donors(merge); i++)
        if (keep_of(merge, i) == KEEP_SOME)
            return true;
    return false;
}

/* ---- which magnitudes stay */

/* int(share n), within 0 and n. */
static uint64_t count_of(double share, uint64_t n)
{
    double count = share * (double)n;

    return count >= (double)n ? n : count > 0 ? (uint64_t)count : 0;
}

/* The sorted elements that stay: [*low, *high), magnitude in descending order, outliers in ascending. */
static void kept_ranks(const struct merge *merge, unsigned donor, uint64_t *low, uint64_t *high)
{
    uint64_t n = merge->n, count = count_of(donor_value(merge, donor, TASK_DENSITY), n), top;

    *low = 0;
    *high = count ? count : 1;
    if (family_of(merge)->prune == PRUNE_MAGNITUDE)
        return;
    top = count_of(donor_value(merge, donor, TASK_OWN), n);
    *low = n - count > top ? n - count - top : 0;
    *high = *low + count;
}

static bool sorts(const struct merge *merge)
{
    return family_of(merge)->prune == PRUNE_MAGNITUDE || family_of(merge)->prune == PRUNE_OUTLIERS;
}

bool prune_order_has_cuts(const struct merge *merge, unsigned donor)
{
    uint64_t low, high;

    if (!sorts(merge) || keep_of(merge, donor) != KEEP_SOME || merge->n == 0)
        return false;
    kept_ranks(merge, donor, &low, &high);
    return low < high && high - low < merge->n;
}

unsigned prune_order_series(const struct merge *merge)
{
    for (unsigned i = 0; i < task_donors(merge); i++)
        if (prune_order_has_cuts(merge, i))
            return task_donors(merge);
    return 0;
}

static void delta(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                  unsigned donor, real *out)
{
    unsigned x = task_input(merge, donor), base = (unsigned)merge->base;

    if (tile->packed)
        kernels->delta_bf16(tile->packed[x], tile->packed[base], out, tile->n);
    else
        kernels->delta[round_of(merge->work)](tile->in[x], tile->in[base], out, tile->n);
}

/* out = x as float32, in which mergekit sorts float64 and prunes it at random. May be called for float64
 * only.
 */
static void narrow(const real *x, real *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (real)(float)x[i];
}

static bool is_wide(const struct merge *merge)
{
    return merge->work == DTYPE_F64;
}

void prune_order_values(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                        unsigned donor, real *out)
{
    delta(merge, kernels, tile, donor, out);
    if (is_wide(merge))
        narrow(out, out, tile->n);
}

void prune_order_count(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                       const unsigned *donors, unsigned n, uint32_t zero, uint32_t *const *bins)
{
    const void *x[TASK_FUSED];

    for (unsigned i = 0; i < n; i++)
        x[i] = tile->packed[task_input(merge, donors[i])];
    kernels->count_deltas_bf16(n, x, tile->packed[merge->base], zero, bins, tile->n);
}

void prune_order_choose(const struct merge *merge, unsigned donor, uint64_t nonzero,
                        struct cut cuts[ORDER_CUTS])
{
    bool descending = family_of(merge)->prune == PRUNE_MAGNITUDE;
    uint64_t low, high;

    (void)nonzero;
    kept_ranks(merge, donor, &low, &high);
    cuts[0] = (struct cut){.rank = low, .wanted = low > 0, .descending = descending};
    cuts[1] = (struct cut){.rank = high, .wanted = high < merge->n, .descending = descending};
}

/* One end of the magnitudes that stay: as kernels->select has it, before an index and from it on. */
struct bound {
    real_bits before, after;
    uint64_t index;
};

static struct bound bound_of(const struct cut *cut, real_bits otherwise)
{
    if (!cut->wanted)
        return (struct bound){otherwise, otherwise, 0};
    return (struct bound){cut->descending ? cut->key : cut->key + 1,
                          cut->descending ? cut->key + 1 : cut->key, cut->index};
}

static real_bits bound_at(struct bound bound, uint64_t at)
{
    return at < bound.index ? bound.before : bound.after;
}

static uint64_t next_index(struct bound bound, uint64_t at, uint64_t end)
{
    return bound.index > at && bound.index < end ? bound.index : end;
}

/* by: what is compared */
static void select_between(const struct kernels *kernels, const struct tile *tile, struct bound low,
                           struct bound high, const real *by, real *d)
{
    uint64_t last = tile->first + tile->n;

    for (uint64_t at = tile->first, end; at < last; at = end) {
        size_t i = (size_t)(at - tile->first);
        end = next_index(low, at, next_index(high, at, last));
        kernels->select(d + i, by + i, bound_at(low, at), bound_at(high, at), (size_t)(end - at));
    }
}

static void prune_sorted(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                         unsigned donor, real *d)
{
    const struct order *order = tile->stats;
    const struct cut *cuts;
    const real *by = d;
    uint64_t low, high;

    kept_ranks(merge, donor, &low, &high);
    if (high <= low)
        kernels->select(d, d, 0, 0, tile->n);
    if (!prune_order_has_cuts(merge, donor))
        return;
    cuts = order->cuts + donor * ORDER_CUTS;
    if (is_wide(merge)) {
        narrow(d, tile->temp[0], tile->n);
        by = tile->temp[0];
    }
    if (family_of(merge)->prune == PRUNE_MAGNITUDE)
        select_between(kernels, tile, bound_of(&cuts[1], 0), (struct bound){REAL_BITS_MAX, REAL_BITS_MAX, 0},
                       by, d);
    else
        select_between(kernels, tile, bound_of(&cuts[0], 0), bound_of(&cuts[1], REAL_BITS_MAX), by, d);
}

/* ---- at random */

/* Is what stays drawn whatever the delta is? */
static bool is_random(const struct merge *merge)
{
    return family_of(merge)->prune == PRUNE_RANDOM;
}

static struct draws draws_of(const struct merge *merge, const struct tile *tile, unsigned donor)
{
    return (struct draws){merge->seed, tile->first, donor};
}

/* The density as mergekit has it. */
static double probability_of(const struct merge *merge, unsigned donor)
{
    double density = donor_value(merge, donor, TASK_DENSITY);

    return merge->work == DTYPE_BF16 ? (double)kernel_round(ROUND_BF16, density) : (double)(float)density;
}

static uint64_t row_of(const struct merge *merge)
{
    return merge->ndim == 0 ? 1 : merge->shape[merge->ndim - 1];
}

static const uint32_t *ranks_of(const struct merge *merge, const struct kernels *kernels,
                                const struct tile *tile, const real *d)
{
    real_bits *keys = (real_bits *)(void *)tile->temp[1];
    uint32_t *rank = (uint32_t *)(void *)tile->temp[4];
    uint32_t *const order[2] = {(uint32_t *)(void *)tile->temp[2], (uint32_t *)(void *)tile->temp[3]};
    size_t row = (size_t)row_of(merge);

    kernels->order_key[round_of(merge->work)](d, keys, tile->n);
    for (size_t at = 0; at < tile->n; at += row)
        rank_row(kernels, keys + at, row, round_of(merge->work) == ROUND_NONE ? REAL_MAGNITUDE : 15, order,
                 rank + at);
    return rank;
}

static void keep_ranked(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                        unsigned donor, const real *d, uint16_t *keep)
{
    double density = donor_value(merge, donor, TASK_DENSITY), epsilon = donor_value(merge, donor, TASK_OWN);
    uint64_t row = row_of(merge);
    const uint32_t *rank = ranks_of(merge, kernels, tile, d);
    const struct draws draws = draws_of(merge, tile, donor);

    if (row == 1)
        epsilon = 0;
    kernels->keep_ranked(&draws, rank, density - epsilon, row == 1 ? 0 : 2 * epsilon / (double)(row - 1),
                         keep, tile->n);
}

/* Which elements of the delta d stay; NULL where they are not ranked. Ranks take tile->temp but the first. */
static void keep_drawn(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                       unsigned donor, const real *d, uint16_t *keep)
{
    const struct draws draws = draws_of(merge, tile, donor);

    if (is_random(merge))
        kernels->keep_random(&draws, probability_of(merge, donor), keep, tile->n);
    else
        keep_ranked(merge, kernels, tile, donor, d, keep);
}

static void prune_drawn(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                        unsigned donor, real *d)
{
    uint16_t *keep = (uint16_t *)(void *)tile->temp[0];

    keep_drawn(merge, kernels, tile, donor, d, keep);
    if (is_wide(merge))
        narrow(d, d, tile->n);
    kernels->keep(d, keep, tile->n);
}

/* ---- a donor's delta */

/* Of a delta that is there. */
static void prune_some(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                       unsigned donor, real *d)
{
    if (sorts(merge))
        prune_sorted(merge, kernels, tile, donor, d);
    else
        prune_drawn(merge, kernels, tile, donor, d);
}

void prune_values(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                  unsigned donor, real *d)
{
    enum keep keep = keep_of(merge, donor);

    if (keep == KEEP_NONE) {
        memset(d, 0, tile->n * sizeof(*d));
        return;
    }
    delta(merge, kernels, tile, donor, d);
    if (keep == KEEP_SOME)
        prune_some(merge, kernels, tile, donor, d);
}

static bool needs_norms(const struct merge *merge)
{
    return merge->shared[TASK_RESCALE] != 0 && keeps_some(merge);
}

static const struct norms *norms_of(const struct merge *merge, const void *state)
{
    return (const void *)((const char *)state + order_size(prune_order_series(merge)));
}

static real scale_in(const struct merge *merge, const struct tile *tile, unsigned donor)
{
    return needs_norms(merge) ? norms_of(merge, tile->stats)->scale[donor] : 1;
}

void prune_delta(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                 unsigned donor, real *d)
{
    real scale = scale_in(merge, tile, donor);

    prune_values(merge, kernels, tile, donor, d);
    if (scale != 1)
        kernels->scale[round_of(merge->work)](d, scale, tile->n);
    if (is_wide(merge) && !sorts(merge) && scale != 1)
        narrow(d, d, tile->n);
}

void prune_packed(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                  unsigned donor, real w, real *d, void *e)
{
    uint16_t *keep = (uint16_t *)(void *)tile->temp[0];

    if (!is_random(merge) || keep_of(merge, donor) != KEEP_SOME) {
        prune_delta(merge, kernels, tile, donor, d);
        kernels->weigh_bf16(d, w, e, tile->n);
        return;
    }
    keep_drawn(merge, kernels, tile, donor, NULL, keep);
    kernels->kept_bf16(tile->packed[task_input(merge, donor)], tile->packed[merge->base], keep,
                       scale_in(merge, tile, donor), w, e, tile->n);
}

/* ---- norms */

/* Of one donor; read again as pairs of double. */
struct norm_acc {
    double before, after;
};

static size_t norms_size(const struct merge *merge)
{
    return task_donors(merge) * sizeof(struct norm_acc);
}

/* Of a tile of elements as stored. */
static void norms_of_drawn(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                           unsigned donor, struct norm_acc *acc)
{
    uint16_t *keep = (uint16_t *)(void *)tile->temp[0];
    double sums[2];

    if (!is_random(merge))
        delta(merge, kernels, tile, donor, tile->out);
    keep_drawn(merge, kernels, tile, donor, tile->out, keep);
    kernels->norms_bf16(tile->packed[task_input(merge, donor)], tile->packed[merge->base], keep, sums,
                        tile->n);
    acc->before += sums[0];
    acc->after += sums[1];
}

static void norms_of_values(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                            unsigned donor, struct norm_acc *acc)
{
    delta(merge, kernels, tile, donor, tile->out);
    if (is_wide(merge) && !sorts(merge))
        narrow(tile->out, tile->out, tile->n);
    acc->before += kernels->sum_abs(tile->out, tile->n);
    if (is_wide(merge))
        delta(merge, kernels, tile, donor, tile->out);
    prune_some(merge, kernels, tile, donor, tile->out);
    acc->after += kernels->sum_abs(tile->out, tile->n);
}

static void norms_add(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                      void *acc)
{
    struct norm_acc *accs = acc;

    for (unsigned i = 0; i < task_donors(merge); i++)
        if (keep_of(merge, i) == KEEP_SOME)
            (tile->packed && !sorts(merge) ? norms_of_drawn : norms_of_values)(merge, kernels, tile, i,
                                                                               accs + i);
}

static real ratio_in(enum round round, double before, double after)
{
    real b = kernel_round(round, before), a = kernel_round(round, after);

    if ((double)b < 1e-7 || (double)a < 1e-7)
        return 1;
    return kernel_round(round, (double)(b / a));
}

/* In float32 whatever the working type. */
static float ratio_f32(double before, double after)
{
    float b = (float)before, a = (float)after;

    return (double)b < 1e-7 || (double)a < 1e-7 ? 1 : b / a;
}

/* float16 has no norm above 65504. */
static bool overflows(const struct merge *merge, double before, double after)
{
    return merge->work == DTYPE_F16 && (before >= 65520 || after >= 65520);
}

static real scale_of(const struct merge *merge, double before, double after)
{
    bool at_random = merge->work != DTYPE_BF16 && !sorts(merge);

    if (at_random || overflows(merge, before, after))
        return (real)ratio_f32(before, after);
    return ratio_in(round_of(merge->work), before, after);
}

static void norms_finish(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct norms *norms = (void *)((char *)state + order_size(prune_order_series(merge)));

    norms->known = true;
    for (unsigned i = 0; i < task_donors(merge); i++) {
        double before = blocks_sum(blocks, 2 * i), after = blocks_sum(blocks, 2 * i + 1);
        norms->scale[i] = keep_of(merge, i) == KEEP_SOME ? scale_of(merge, before, after) : 1;
    }
}

static const struct pass norms_pass = {.acc_size = norms_size, .add = norms_add, .finish = norms_finish};

/* ---- the state: struct order, struct norms */

static size_t state_size(const struct merge *merge)
{
    unsigned series = prune_order_series(merge);

    if (series == 0 && !needs_norms(merge))
        return 0;
    return order_size(series) + sizeof(struct norms) + task_donors(merge) * sizeof(real);
}

static const struct pass *next_pass(const struct merge *merge, const void *state, unsigned n_done)
{
    const struct pass *pass = order_next(merge, state);

    (void)n_done;
    if (pass)
        return pass;
    return needs_norms(merge) && !norms_of(merge, state)->known ? &norms_pass : NULL;
}

const struct method_stats prune_stats = {.state_size = state_size, .next = next_pass, .takes_packed = true};

uint64_t prune_row_length(const struct merge *merge)
{
    return family_of(merge)->prune == PRUNE_RANKED && merge->n > 0 && keeps_some(merge) ? row_of(merge) : 1;
}

static int check_ranked(const struct merge *merge, unsigned donor, struct err *err)
{
    double density = donor_value(merge, donor, TASK_DENSITY), epsilon = donor_value(merge, donor, TASK_OWN);

    if (density >= 1 || density <= 0)
        return 0;
    if (!(density + fabs(epsilon) < 1 && density - fabs(epsilon) > 0))
        return err_set(
            err, -EINVAL,
            "density %g with epsilon %g: density - epsilon and density + epsilon must lie between 0 "
            "and 1, or density be 0 or 1",
            density, epsilon);
    return row_limit_check(merge, row_of(merge), err);
}

static int check_random(const struct merge *merge, unsigned donor, struct err *err)
{
    double density = donor_value(merge, donor, TASK_DENSITY);

    if (density >= 0)
        return 0;
    return err_set(err, -EINVAL, "density %g: it is the probability with which an element is kept, 0 or more",
                   density);
}

int prune_check(const struct merge *merge, struct err *err)
{
    enum prune prune = family_of(merge)->prune;
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < task_donors(merge); i++)
        ret = prune == PRUNE_RANKED   ? check_ranked(merge, i, err)
              : prune == PRUNE_RANDOM ? check_random(merge, i, err)
                                      : 0;
    return ret;
}
