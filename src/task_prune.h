/* What a method leaves of a donor's delta: the part of the task-vector family in which its methods differ.
 *
 *     magnitude  the max(1, int(density n)) largest |d|
 *     outliers   of |d| in ascending order int(density n), those from max(0, n - that - int(gamma n)) on
 *     random     each with probability density, rounded to bfloat16 in that type
 *     ranked     each with probability density - epsilon + 2 epsilon rank / (row - 1), rank among |d| of its
 * row
 *
 * Equals are in order of their index, NaN is the largest. density >= 1 keeps everything, <= 0 makes zeros
 * (random and outliers: zero times d). What is not kept is multiplied by 0, so NaN and infinities stay NaN.
 * rescale: the rest times r(L1 norm before / L1 norm after), both rounded, unless one is below 1e-7. In
 * float16 and float64 random and ranked do this in float32, the delta rounded to it in float64, and round
 * once; so do the others where a norm passes 65504, of
 * which mergekit makes NaN. */
#ifndef TASK_PRUNE_H
#define TASK_PRUNE_H

#include "order.h"
#include "task.h"

/* Parameters of the family in this order; `own` is gamma or epsilon. */
enum {
    TASK_WEIGHT,
    TASK_DENSITY,
    TASK_NORMALIZE,
    TASK_RESCALE,
    TASK_INT8_MASK,
    TASK_LAMBDA,
    TASK_COMMON,
    TASK_OWN = TASK_COMMON
};

enum prune { PRUNE_MAGNITUDE, PRUNE_OUTLIERS, PRUNE_RANDOM, PRUNE_RANKED };

/* struct method's `own`. */
struct task_family {
    struct order_user order; /* first member: prune_order */
    enum prune prune;
    bool consensus; /* only what agrees with the elected sign is summed */
};

extern const struct method_stats prune_stats;

unsigned prune_order_series(const struct merge *merge);
bool prune_order_has_cuts(const struct merge *merge, unsigned donor);
void prune_order_values(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                        unsigned donor, real *out);
void prune_order_count(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                       const unsigned *donors, unsigned n, uint32_t zero, uint32_t *const *bins);
void prune_order_choose(const struct merge *merge, unsigned donor, uint64_t nonzero,
                        struct cut cuts[ORDER_CUTS]);
#define PRUNE_ORDER                                                                                         \
    {                                                                                                       \
        prune_order_series, prune_order_has_cuts, prune_order_values, prune_order_count, prune_order_choose \
    }

int prune_check(const struct merge *merge, struct err *err);
uint64_t prune_row_length(const struct merge *merge);

enum { PRUNE_TEMPS = 5 }; /* tile->temp arrays that prune_delta uses, the first */

/* d = a donor's delta, pruned. */
void prune_values(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                  unsigned donor, real *d);

/* The same, and rescaled. */
void prune_delta(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                 unsigned donor, real *d);

/* e = r(w d) of that, BF16 as the tile is. d: room for a delta. */
void prune_packed(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                  unsigned donor, real w, real *d, void *e);

#endif
