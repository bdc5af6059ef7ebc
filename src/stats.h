/* Statistics: the numbers that need a whole tensor before its first byte can be produced.
 *
 * A method says what they are (method.h, struct method_stats): a small state, made by passes over the tensor.
 * They are computed on demand, once, by the pool's workers: a pass is cut into blocks that any worker may
 * take, each with an accumulator of its own, and the accumulators are folded in order of the blocks. How a
 * tensor is cut depends on its size alone, so the numbers do not depend on threads. Workers take a block in
 * short steps, so that reads get their turn; few tensors are worked on at a time and accumulators have a
 * common limit, so memory is bounded; who waits is a list entry. Thread-safe.
 */
#ifndef STATS_H
#define STATS_H

#include "compute.h"
#include "err.h"
#include "pool.h"

struct stats;

/* Someone who waits for a recipe. Owned by the caller, used until `ready` is called, once, without locks, by
 * a worker or within stats_get. status 0: ask again, more may be missing; else -errno and err says why. */
struct stats_waiter {
    void (*ready)(struct stats_waiter *waiter, int status, const struct err *err);
    struct stats_waiter *next;
};

struct stats_counters {
    uint64_t tensors, bytes_read, running; /* finished since the start; elements' bytes read by passes; now */
    uint64_t kept_bytes;                   /* of finished states */
};

/* As many tensors as threads are worked on at a time. pool: borrowed. NULL if memory runs out. */
struct stats *stats_new(struct pool *pool, unsigned n_threads);
/* Frees the states, too: no recipe may be computed any more. No run may be left: after pool_free. NULL is
 * fine. */
void stats_free(struct stats *stats);
/* Runs end as soon as they can, with -ECANCELED. */
void stats_stop(struct stats *stats);

/* Is what the recipe needs, its stages' needs included, there? If not it is begun, and the waiter (NULL:
 * nobody) told. */
bool stats_get(struct stats *stats, const struct recipe *recipe, struct stats_waiter *waiter);

/* Bytes held now: finished states, and accumulators of passes under way. */
size_t stats_held(const struct stats *stats);

void stats_counters(struct stats *stats, struct stats_counters *counters);

#endif
