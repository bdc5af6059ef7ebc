/* Statistics: the numbers that need a whole tensor before its first byte can be produced.
 *
 * A method says what they are (method.h, struct method_stats): a small state, made by passes over the tensor.
 * They are computed on demand, once, by the pool's workers: a pass is cut into blocks that any worker may
 * take, each with an accumulator of its own, and the accumulators are folded in order of the blocks. How a
 * tensor is cut depends on its size alone, so the numbers do not depend on threads. Workers take a block in
 * short steps, so that reads get their turn; few tensors are worked on at a time and accumulators have a
 * common limit, so memory is bounded; who waits is a list entry.
 *
 * What is found is known by a key (recipe_key.h) and shared by all recipes that have the same one: those of
 * variants, of other merge files, of the same file read again. A recipe's slot is bound to it when it is
 * asked for, and holds it until it is released; what no slot holds is kept as long as there is room.
 * Thread-safe.
 */
#ifndef STATS_H
#define STATS_H

#include "compute.h"
#include "err.h"
#include "keeper.h"
#include "pool.h"
#include "stat_store.h"

struct stats;

/* Someone who waits for a recipe. Owned by the caller, used until `ready` is called, once, without locks, by
 * a worker or within stats_get. status 0: ask again, more may be missing; else -errno and err says why. */
struct stats_waiter {
    void (*ready)(struct stats_waiter *waiter, int status, const struct err *err);
    struct stats_waiter *next;
};

struct stats_counters {
    uint64_t tensors, loaded, bytes_read, running; /* computed, and found on disk, since the start; elements'
                                                      bytes read by passes; now */
    uint64_t resumed;                              /* passes that another one had left enough for */
    uint64_t todo, todo_bytes; /* begun and not finished; what one pass over each of them reads */
    uint64_t kept_bytes;       /* of finished states, and recipes' own copies of them */
};

/* As many tensors as threads are worked on at a time. spare_max: bytes of states that no slot holds, and of
 * savings. store: where they are kept on disk, NULL: nowhere. pool, store: borrowed. NULL if memory runs out.
 */
struct stats *stats_new(struct pool *pool, unsigned n_threads, size_t spare_max, struct stat_store *store);
/* Frees the states, too: no recipe may be computed any more, nor its slot released. No run may be left: after
 * pool_free. NULL is fine. */
void stats_free(struct stats *stats);
/* Runs end as soon as they can, with -ECANCELED. */
void stats_stop(struct stats *stats);

/* Is what the recipe needs, its stages' needs included, there? If not it is begun, and the waiter (NULL:
 * nobody) told. owner: of the recipe and its stages, who must outlive what is begun and is held for so long;
 * NULL: they live until stats_free. */
bool stats_get(struct stats *stats, const struct recipe *recipe, struct keeper *owner,
               struct stats_waiter *waiter);
/* The slot's recipe is not computed any more, or must ask again. NULL, or a slot never bound, is fine. */
void stats_release(struct stats *stats, struct stat_slot *slot);

/* Bytes held now: finished states, recipes' own copies of them, and accumulators of passes under way. */
size_t stats_held(const struct stats *stats);

void stats_counters(struct stats *stats, struct stats_counters *counters);

#endif
