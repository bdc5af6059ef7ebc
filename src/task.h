/* What the methods on task vectors have in common: method_task.c, method_sce.c, method_ram.c.
 *
 * Inputs are a base and donors; a delta is r(donor - base). */
#ifndef TASK_H
#define TASK_H

#include "method.h"

unsigned task_donors(const struct merge *merge);
/* The input that is donor `donor`. */
unsigned task_input(const struct merge *merge, unsigned donor);
/* struct method's is_copy: no donor has the tensor. */
bool task_is_base_alone(const struct merge *merge);

enum { TASK_SUM_TEMPS = TILE_TEMPS }; /* tile->temp arrays that task_sum uses, the first */

/* A tile being merged. */
struct task {
    const struct merge *merge;
    const struct kernels *kernels;
    const struct tile *tile;
    enum round round; /* of the values that are summed: torch's order depends on their type */
    unsigned n_donors;
    const real *w;       /* [n_donors], rounded; or NULL */
    real *const *deltas; /* [n_donors][tile->n], pruned and weighted as the method has it; or NULL */
    const real *sum;     /* [tile->n], whose signs are elected; or NULL */
    const void *arg;
};

/* tile->scalars + n_donors is task_sum's own. */
struct task task_begin(const struct merge *merge, const struct kernels *kernels, const struct tile *tile);

/* acc += a donor's term, elements [at, at + n) of the tile. */
typedef void task_term(const struct task *task, unsigned donor, size_t at, size_t n, real *acc);

/* out = the sum of all donors' terms, not rounded, in torch's order. */
void task_sum(const struct task *task, task_term *term, real *out);

/* Terms for `deltas`: themselves; w times those that have the elected sign, and such w alone. */
task_term task_delta, task_agreeing, task_agreeing_weight;

#endif
