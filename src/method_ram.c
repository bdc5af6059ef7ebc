/* ram and ramplus_tl: what donors share is averaged, what one alone changes is kept whole, or more.
 *
 *     d_i = r(x_i - b), live where |d_i| > r(epsilon), else times 0; count = live donors of an element
 *     ram: out = r(b + r(sum r(d_i if count is 1, r(d_i / count) if more)))
 *     ramplus_tl: d_i of count 1 times 1 + r clamp(shared_i / max(lone_i, epsilon), 0, alpha), with shared_i
 * and lone_i a donor's live elements of count above 1 and of 1; from that product on all is float32, in
 * float64 that */
#include "blocks.h"
#include "task.h"

#include <math.h>
#include <string.h>

enum { RAM_EPSILON, N_RAM_PARAMS };
enum { R, ALPHA, EPSILON, N_PLUS_PARAMS };
enum { COUNT = TASK_SUM_TEMPS, N_TEMPS };

static const struct method_param ram_params[N_RAM_PARAMS] = {
    [RAM_EPSILON] = {"epsilon", PARAM_NUMBER, PARAM_SHARED, .value = 1e-5},
};

static const struct method_param plus_params[N_PLUS_PARAMS] = {
    [R] = {"r", PARAM_NUMBER, PARAM_SHARED, .value = 0.1},
    [ALPHA] = {"alpha", PARAM_NUMBER, PARAM_SHARED, .value = 0.2},
    [EPSILON] = {"epsilon", PARAM_NUMBER, PARAM_SHARED, .value = 1e-5, .in_stats = true},
};

/* ramplus_tl: of one donor how many elements it changes alone, and with others; read again as pairs of
 * uint64_t. */
struct census {
    uint64_t lone, shared;
};

/* The state of one donor. */
struct factor {
    struct census census;
    real lone; /* what its lone elements are multiplied by */
};

/* What the terms need. */
struct ram {
    enum round work; /* of the deltas; the sum's may be another */
    real eps;
    const real *count;            /* of the tile's elements */
    const struct factor *factors; /* [n_donors], or NULL */
};

static void count_live(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                       real eps, real *count)
{
    memset(count, 0, tile->n * sizeof(*count));
    for (unsigned i = 0; i < task_donors(merge); i++)
        kernels->ram_count[round_of(merge->work)](count, tile->in[task_input(merge, i)],
                                                  tile->in[merge->base], eps, tile->n);
}

static void ram_term(const struct task *task, unsigned donor, size_t at, size_t n, real *acc)
{
    const struct ram *ram = task->arg;
    const real *x = task->tile->in[task_input(task->merge, donor)] + at,
               *base = task->tile->in[task->merge->base] + at;

    if (ram->factors)
        task->kernels->ramplus_add[ram->work](acc, x, base, ram->eps, ram->count + at,
                                              ram->factors[donor].lone, n);
    else
        task->kernels->ram_add[ram->work](acc, x, base, ram->eps, ram->count + at, n);
}

/* round: of the sum and the result */
static void run_with(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                     enum round round, double epsilon, const struct factor *factors)
{
    struct task task = task_begin(merge, kernels, tile);
    struct ram ram = {task.round, kernel_round(task.round, epsilon), tile->temp[COUNT], factors};

    count_live(merge, kernels, tile, ram.eps, tile->temp[COUNT]);
    task.round = round;
    task.arg = &ram;
    task_sum(&task, ram_term, tile->out);
    kernels->apply[round](tile->in[merge->base], tile->out, tile->out, tile->n);
}

/* The live deltas. */
static void keep_live(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                      double epsilon, real *const *out)
{
    enum round round = round_of(merge->work);
    real eps = kernel_round(round, epsilon);

    for (unsigned i = 0; i < task_donors(merge); i++) {
        kernels->delta[round](tile->in[task_input(merge, i)], tile->in[merge->base], out[i], tile->n);
        for (size_t k = 0; k < tile->n; k++)
            out[i][k] *= real_abs(out[i][k]) > eps;
    }
}

static void kept_ram(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                     real *const *out)
{
    keep_live(merge, kernels, tile, merge->shared[RAM_EPSILON], out);
}

static void run_ram(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    run_with(merge, kernels, tile, round_of(merge->work), merge->shared[RAM_EPSILON], NULL);
}

/* ---- ramplus_tl: how many elements a donor changes alone, and with others */

struct factors {
    uint64_t known;
    struct factor donors[]; /* [n_donors] */
};

static size_t census_size(const struct merge *merge)
{
    return task_donors(merge) * sizeof(struct census);
}

static void take_census(const real *d, real eps, const real *count, size_t n, struct census *census)
{
    uint64_t live = 0, lone = 0;

    for (size_t i = 0; i < n; i++) {
        bool is_live = real_abs(d[i]) > eps;
        live += is_live;
        lone += is_live & (count[i] == 1);
    }
    census->lone += lone;
    census->shared += live - lone;
}

static void census_add(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                       void *acc)
{
    enum round round = round_of(merge->work);
    real eps = kernel_round(round, merge->shared[EPSILON]), *count = tile->temp[COUNT];
    struct census *censuses = acc;

    count_live(merge, kernels, tile, eps, count);
    for (unsigned i = 0; i < task_donors(merge); i++) {
        kernels->delta[round](tile->in[task_input(merge, i)], tile->in[merge->base], tile->out, tile->n);
        take_census(tile->out, eps, count, tile->n, &censuses[i]);
    }
}

/* In float32 whatever the working type. */
static float factor(const struct merge *merge, struct census census)
{
    float lone = (float)census.lone, least = (float)merge->shared[EPSILON],
          most = (float)merge->shared[ALPHA];
    float rho = (float)census.shared / (lone < least ? least : lone);

    rho = rho < 0 ? 0 : rho;
    rho = rho > most ? most : rho;
    return 1 + (float)merge->shared[R] * rho;
}

static void census_finish(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct factors *factors = state;

    for (unsigned i = 0; i < task_donors(merge); i++) {
        struct census sum = {blocks_count(blocks, 2 * i), blocks_count(blocks, 2 * i + 1)};
        factors->donors[i].census = sum;
    }
    factors->known = true;
}

static void settle(const struct merge *merge, void *state)
{
    struct factors *factors = state;

    for (unsigned i = 0; i < task_donors(merge); i++)
        factors->donors[i].lone = factor(merge, factors->donors[i].census);
}

static const struct pass census_pass = {.acc_size = census_size, .add = census_add, .finish = census_finish};

static size_t factors_size(const struct merge *merge)
{
    return sizeof(struct factors) + task_donors(merge) * sizeof(struct factor);
}

static const struct pass *next_pass(const struct merge *merge, const void *state, unsigned n_done)
{
    (void)merge;
    (void)n_done;
    return ((const struct factors *)state)->known ? NULL : &census_pass;
}

static const struct method_stats plus_stats = {
    .state_size = factors_size, .next = next_pass, .settle = settle};

static void kept_plus(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                      real *const *out)
{
    keep_live(merge, kernels, tile, merge->shared[EPSILON], out);
}

static void run_plus(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    run_with(merge, kernels, tile, ROUND_NONE, merge->shared[EPSILON],
             ((const struct factors *)tile->stats)->donors);
}

const struct method method_ram = {
    .name = "ram",
    .title = "Reinforced Agent Merging",
    .paper = "https://arxiv.org/abs/2601.13572",
    .base = BASE_REQUIRED,
    .chooses = true,
    .lone = LONE_BASE_PASSES,
    .params = ram_params,
    .n_params = N_RAM_PARAMS,
    .n_temps = N_TEMPS,
    .is_copy = task_is_base_alone,
    .run = run_ram,
    .kept = kept_ram,
};

const struct method method_ramplus_tl = {
    .name = "ramplus_tl",
    .title = "Reinforced Agent Merging Plus (Tensor-Local)",
    .paper = "https://arxiv.org/abs/2601.13572",
    .base = BASE_REQUIRED,
    .chooses = true,
    .lone = LONE_BASE_PASSES,
    .result_f32 = true,
    .params = plus_params,
    .n_params = N_PLUS_PARAMS,
    .stats = &plus_stats,
    .n_temps = N_TEMPS,
    .is_copy = task_is_base_alone,
    .run = run_plus,
    .kept = kept_plus,
};
