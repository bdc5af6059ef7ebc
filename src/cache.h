/* Pieces of served files in memory: byte-bounded LRU, single-flight, filled without holding a lock.
 *
 * Memory is one slab of PIECE-sized slots, mapped once. An entry is filling (one filler, any number of
 * waiters in a list), or present (may be pinned, evicted when it is not). A failed fill leaves nothing.
 * Nobody sleeps here: who finds no free slot is kept in a list and gets his turn when a pin is dropped.
 * Thread-safe.
 */
#ifndef CACHE_H
#define CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define PIECE ((size_t)1 << 20)

struct cache;

struct cache_stats {
    uint64_t slots, used, pinned;
    uint64_t hits, misses, joined, evicted, failed; /* joined: found it filling; since the start */
};

/* Whose piece, and which. */
struct cache_key {
    uint64_t owner, piece;
};

/* Someone who wants a piece. Owned by the caller, used by the cache until `ready` is called, exactly once. */
struct cache_waiter {
    /* status 0: `data` holds the piece and is pinned until cache_unpin(cache, data). Else -errno, data NULL
     * and err says why. Called without locks, by whoever filled the piece, or within cache_get. */
    void (*ready)(struct cache_waiter *waiter, int status, const char *data, const struct err *err);
    struct cache_key key;
    struct cache_waiter *next;
};

/* Asked to fill `slot` (PIECE bytes) with the piece that `waiter` waits for, who goes on waiting until that
 * has led to cache_filled, exactly once, from any thread, also within the call. Called without locks. */
typedef void cache_fill(void *arg, const struct cache_waiter *waiter, char *slot);

int cache_new(size_t bytes, cache_fill *fill, void *arg, struct cache **out, struct err *err);
void cache_free(struct cache *cache); /* no waiter, fill or pin may be left; NULL is fine */

void cache_get(struct cache *cache, struct cache_waiter *waiter); /* waiter->key, ->ready set */
/* For who wants little of a piece: is it worth cache_get, since it is there, or coming, or was touched
 * lately? Else this is counted as a miss, and is a touch: what alone was asked for is cheaper. */
bool cache_touch(struct cache *cache, struct cache_key key);
void cache_filled(struct cache *cache, char *slot, int status, const struct err *err);
void cache_unpin(struct cache *cache, const char *data);
/* The same, by who has handed on the whole piece and does not expect it to be asked for again: its slot is
 * the first to be taken, so that a stream goes round in a few slots that the processor's own cache still
 * holds. */
void cache_unpin_spent(struct cache *cache, const char *data);

/* Make do with `bytes` less than cache_new was given, which somebody else uses, but not with fewer than a few
 * slots: what is over is given back to the system, pinned pieces excepted. */
void cache_lend(struct cache *cache, size_t bytes);

void cache_stats(struct cache *cache, struct cache_stats *stats);

#endif
