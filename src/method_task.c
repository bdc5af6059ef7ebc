/* Methods on task vectors, the differences from the base.
 *
 *     d_i = r(x_i - b), pruned as the method says; e_i = r(r(w_i) d_i)
 *     m = r(sum e), divisor = r(sum r(w))
 *     normalize: m = r(m / divisor), with 1 for |divisor| < r(1e-8): in float16 that is 0, so weights that
 * cancel give infinities there, as in mergekit lambda not 1: m = r(m lambda) out = r(b + m)
 *
 * Sums are in float32 from +0, in the order in which torch adds up k tensors of n elements on one thread
 * (ATen's SumKernel, the same on every CPU; found by experiment for 1 to 130 tensors of 1 to 1000 elements):
 *   - the first n - n mod 32 elements in order of the models; of n below a vector's 8 elements (16 in 16-bit
 *     types) the first n - n mod 4;
 *   - the rest as four interleaved sums, models 0, 4, 8 ..., 1, 5, 9 ... and so on, each as far as all four
 *     have one; the models then left go to the first; the four are added in order;
 *   - in either, 16 models at a time form a partial sum that goes to a second level, 16 of those to a third;
 *   - a tensor of one element is summed as the weights are: kernel_sum_scalars.
 * Up to four models all of this is the order of the models. */
#include "method.h"

#include <math.h>
#include <string.h>

/* Common to the family, in this order; a method's own parameters follow. */
enum { WEIGHT, DENSITY, NORMALIZE, RESCALE, INT8_MASK, LAMBDA, N_COMMON };

enum { PARTIALS = 4, LEVEL = 16, LEVELS = TILE_TEMPS + 1, BLOCK = 32 };

struct task {
    const struct merge *merge;
    const struct kernels *kernels;
    const struct tile *tile;
    enum round round;
    unsigned n_donors;
    const float *w; /* [n_donors], rounded */
};

static unsigned donors(const struct merge *merge)
{
    return merge->n_inputs - 1;
}

static unsigned donor_input(const struct merge *merge, unsigned donor)
{
    return donor < (unsigned)merge->base ? donor : donor + 1;
}

static void rounded_weights(const struct merge *merge, const struct kernels *kernels, float *w)
{
    for (unsigned i = 0; i < donors(merge); i++)
        w[i] = (float)merge_input(merge, donor_input(merge, i), WEIGHT);
    kernels->cast[round_of(merge->work)](w, donors(merge));
}

/* acc += a donor's term, elements [at, at + n) of the tile. */
typedef void term_fn(const struct task *task, unsigned donor, size_t at, size_t n, float *acc);

static void weighted_delta(const struct task *task, unsigned donor, size_t at, size_t n, float *acc)
{
    const float *x = task->tile->in[donor_input(task->merge, donor)],
                *base = task->tile->in[task->merge->base];

    task->kernels->task_add[task->round](acc, x + at, base + at, task->w[donor], n);
}

/* Part of the donors for part of a tile: `count` donors from `first` in steps of `step`. */
struct span {
    unsigned first, step, count;
    size_t at, n;
};

static void clear(float *x, size_t n)
{
    memset(x, 0, n * sizeof(*x));
}

/* A level that is full moves up after `done` donors. */
static void carry(const struct kernels *kernels, float *const acc[LEVELS], unsigned done, size_t n)
{
    for (unsigned level = 1; level < LEVELS; level++) {
        kernels->add(acc[level], acc[level - 1], n);
        clear(acc[level - 1], n);
        done /= LEVEL;
        if (done % LEVEL != 0)
            return;
    }
}

/* acc: arrays of span.n; the sum is left in the first, the others are touched from LEVEL donors on. */
static void sum_span(const struct task *task, term_fn *term, struct span span, float *const acc[LEVELS])
{
    unsigned levels = span.count < LEVEL ? 1 : LEVELS;

    for (unsigned i = 0; i < levels; i++)
        clear(acc[i], span.n);
    for (unsigned i = 0; i < span.count; i++) {
        term(task, span.first + i * span.step, span.at, span.n, acc[0]);
        if ((i + 1) % LEVEL == 0)
            carry(task->kernels, acc, i + 1, span.n);
    }
    for (unsigned i = 1; i < levels; i++)
        task->kernels->add(acc[0], acc[i], span.n);
}

/* n: below BLOCK */
static void sum_interleaved(const struct task *task, term_fn *term, size_t at, size_t n, float *out)
{
    float part[PARTIALS][BLOCK], high[LEVELS - 1][BLOCK];
    unsigned rows = task->n_donors / PARTIALS;

    for (unsigned i = 0; i < PARTIALS; i++) {
        float *const acc[LEVELS] = {part[i], high[0], high[1], high[2]};
        sum_span(task, term, (struct span){i, PARTIALS, rows, at, n}, acc);
    }
    for (unsigned i = rows * PARTIALS; i < task->n_donors; i++)
        term(task, i, at, n, part[0]);
    for (unsigned i = 1; i < PARTIALS; i++)
        task->kernels->add(part[0], part[i], n);
    memcpy(out, part[0], n * sizeof(*out));
}

static float sum_single(const struct task *task, term_fn *term)
{
    float *terms = task->tile->scalars + task->n_donors;

    clear(terms, task->n_donors);
    for (unsigned i = 0; i < task->n_donors; i++)
        term(task, i, 0, 1, terms + i);
    return kernel_sum_scalars(terms, task->n_donors, task->round);
}

/* Leading elements of a tensor that are summed in order of the models. */
static uint64_t in_order(uint64_t n, enum round round)
{
    uint64_t vector = round == ROUND_F32 ? 8 : 16;

    return n >= vector ? n / BLOCK * BLOCK : n / PARTIALS * PARTIALS;
}

/* out = the sum of all donors' terms, not rounded. */
static void sum_donors(const struct task *task, term_fn *term, float *out)
{
    const struct tile *tile = task->tile;
    float *const acc[LEVELS] = {out, tile->temp[0], tile->temp[1], tile->temp[2]};
    uint64_t limit = in_order(task->merge->n, task->round);
    size_t n = limit <= tile->first            ? 0
               : limit - tile->first < tile->n ? (size_t)(limit - tile->first)
                                               : tile->n;

    if (task->n_donors <= PARTIALS)
        n = tile->n;
    if (n > 0)
        sum_span(task, term, (struct span){0, 1, task->n_donors, 0, n}, acc);
    if (n == tile->n)
        return;
    if (task->merge->n == 1)
        out[0] = sum_single(task, term);
    else
        sum_interleaved(task, term, n, tile->n - n, out + n);
}

static float weight_sum(const struct task *task)
{
    float sum = kernel_sum_scalars(task->w, task->n_donors, task->round), least = 1e-8f;

    task->kernels->cast[task->round](&sum, 1);
    task->kernels->cast[task->round](&least, 1);
    return fabsf(sum) < least ? 1 : sum;
}

/* Whether m is the plain sum: the last step rounds it. */
static bool is_plain(const struct merge *merge)
{
    return merge->shared[NORMALIZE] == 0 && merge->shared[LAMBDA] == 1;
}

static void run_task_arithmetic(const struct merge *merge, const struct kernels *kernels,
                                const struct tile *tile)
{
    struct task task = {merge, kernels, tile, round_of(merge->work), donors(merge), tile->scalars};

    rounded_weights(merge, kernels, tile->scalars);
    sum_donors(&task, weighted_delta, tile->out);
    if (!is_plain(merge))
        kernels->settle[task.round](tile->out, tile->n);
    if (merge->shared[NORMALIZE] != 0)
        kernels->divide[task.round](tile->out, weight_sum(&task), tile->n);
    if (merge->shared[LAMBDA] != 1)
        kernels->scale[task.round](tile->out, (float)merge->shared[LAMBDA], tile->n);
    kernels->apply[task.round](tile->in[merge->base], tile->out, tile->out, tile->n);
}

static bool run_packed(const struct merge *merge, const struct kernels *kernels,
                       const struct packed_tile *tile)
{
    unsigned n = donors(merge);

    if (merge->work != DTYPE_BF16 || n < 1 || n > TASK_FUSED || !is_plain(merge))
        return false;
    rounded_weights(merge, kernels, tile->scalars);
    for (unsigned i = 0; i < n; i++)
        tile->inputs[i] = tile->in[donor_input(merge, i)];
    kernels->task_bf16[n](tile->in[merge->base], tile->inputs, tile->scalars, tile->out, tile->n);
    return true;
}

static bool is_base_alone(const struct merge *merge)
{
    return donors(merge) == 0;
}

static const struct method_param task_arithmetic_params[N_COMMON] = {
    [WEIGHT] = {"weight", PARAM_NUMBER, PARAM_DONOR, .required = true, .value = NAN},
    [DENSITY] = {"density", PARAM_NUMBER, PARAM_DONOR, .value = 1, .unused = true},
    [NORMALIZE] = {"normalize", PARAM_BOOL, PARAM_SHARED, .value = 0},
    [RESCALE] = {"rescale", PARAM_BOOL, PARAM_SHARED, .value = 0, .unused = true},
    [INT8_MASK] = {"int8_mask", PARAM_BOOL, PARAM_SHARED, .value = 0, .unused = true},
    [LAMBDA] = {"lambda", PARAM_NUMBER, PARAM_SHARED, .value = 1},
};

const struct method method_task_arithmetic = {
    .name = "task_arithmetic",
    .title = "Task Arithmetic",
    .paper = "https://arxiv.org/abs/2212.04089",
    .base = BASE_REQUIRED,
    .lone = LONE_BASE_PASSES,
    .params = task_arithmetic_params,
    .n_params = N_COMMON,
    .is_copy = is_base_alone,
    .run = run_task_arithmetic,
    .run_packed = run_packed,
};
