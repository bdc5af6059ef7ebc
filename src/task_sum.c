/* Sums over donors in reals from +0, in the order in which torch adds up k tensors of n elements on one
 * thread (ATen's SumKernel, the same on every CPU; found by experiment for 1 to 130 tensors of 1 to 1000
 * elements):
 *   - the first n - n mod 32 elements (in float64 n mod 16) in order of the models; of n below a vector's 8
 *     elements (4; in 16-bit types 16) the first n - n mod 4;
 *   - the rest as four interleaved sums, models 0, 4, 8 ..., 1, 5, 9 ... and so on, each as far as all four
 *     have one; the models then left go to the first; the four are added in order;
 *   - in either, 16 models at a time form a partial sum that goes to a second level, 16 of those to a third;
 *   - a tensor of one element is summed as the weights are: kernel_sum_scalars.
 * Up to four models all of this is the order of the models. */
#include "task.h"

#include <string.h>

enum { PARTIALS = 4, LEVEL = 16, LEVELS = TASK_SUM_TEMPS + 1, BLOCK = PARTIALS * REAL_TORCH_LANES };

unsigned task_donors(const struct merge *merge)
{
    return merge->n_inputs - 1;
}

unsigned task_input(const struct merge *merge, unsigned donor)
{
    return donor < (unsigned)merge->base ? donor : donor + 1;
}

bool task_is_base_alone(const struct merge *merge)
{
    return task_donors(merge) == 0;
}

struct task task_begin(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    return (struct task){.merge = merge,
                         .kernels = kernels,
                         .tile = tile,
                         .round = round_of(merge->work),
                         .n_donors = task_donors(merge)};
}

void task_delta(const struct task *task, unsigned donor, size_t at, size_t n, real *acc)
{
    task->kernels->add(acc, task->deltas[donor] + at, n);
}

void task_agreeing(const struct task *task, unsigned donor, size_t at, size_t n, real *acc)
{
    task->kernels->agree[task->round](acc, task->deltas[donor] + at, task->sum + at,
                                      task->w ? task->w[donor] : 1, n);
}

void task_agreeing_weight(const struct task *task, unsigned donor, size_t at, size_t n, real *acc)
{
    task->kernels->agree_weight(acc, task->deltas[donor] + at, task->sum + at, task->w[donor], n);
}

/* Part of the donors for part of a tile: `count` donors from `first` in steps of `step`. */
struct span {
    unsigned first, step, count;
    size_t at, n;
};

static void clear(real *x, size_t n)
{
    memset(x, 0, n * sizeof(*x));
}

/* A level that is full moves up after `done` donors. */
static void carry(const struct kernels *kernels, real *const acc[LEVELS], unsigned done, size_t n)
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
static void sum_span(const struct task *task, task_term *term, struct span span, real *const acc[LEVELS])
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
static void sum_interleaved(const struct task *task, task_term *term, size_t at, size_t n, real *out)
{
    real part[PARTIALS][BLOCK], high[LEVELS - 1][BLOCK];
    unsigned rows = task->n_donors / PARTIALS;

    for (unsigned i = 0; i < PARTIALS; i++) {
        real *const acc[LEVELS] = {part[i], high[0], high[1], high[2]};
        sum_span(task, term, (struct span){i, PARTIALS, rows, at, n}, acc);
    }
    for (unsigned i = rows * PARTIALS; i < task->n_donors; i++)
        term(task, i, at, n, part[0]);
    for (unsigned i = 1; i < PARTIALS; i++)
        task->kernels->add(part[0], part[i], n);
    memcpy(out, part[0], n * sizeof(*out));
}

static real sum_single(const struct task *task, task_term *term)
{
    real *terms = task->tile->scalars + task->n_donors;

    clear(terms, task->n_donors);
    for (unsigned i = 0; i < task->n_donors; i++)
        term(task, i, 0, 1, terms + i);
    return kernel_sum_scalars(terms, task->n_donors, task->round);
}

/* Leading elements of a tensor that are summed in order of the models. */
static uint64_t in_order(uint64_t n, enum round round)
{
    uint64_t vector = round == ROUND_NONE ? REAL_TORCH_LANES : 16;

    return n >= vector ? n / BLOCK * BLOCK : n / PARTIALS * PARTIALS;
}

void task_sum(const struct task *task, task_term *term, real *out)
{
    const struct tile *tile = task->tile;
    real *const acc[LEVELS] = {out, tile->temp[0], tile->temp[1], tile->temp[2]};
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
