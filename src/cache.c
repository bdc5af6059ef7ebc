#include "cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { SLOTS_MIN = 4 }; /* that are never lent */
enum { TOUCHES = 512 }; /* that are remembered, but for those whose places collide */

enum state { FREE, FILLING, PRESENT };

/* One a slot, for ever; `self - entries` is the slot's number. */
struct entry {
    enum state state;
    unsigned pins;
    bool spent; /* its slot is taken before a free one */
    struct cache_key key;
    struct entry *chain;         /* next of its hash bucket (FILLING, PRESENT), or of the free list */
    struct entry *newer, *older; /* the LRU list: PRESENT and unpinned only */
    struct cache_waiter *waiters, **waiters_tail;
};

struct cache {
    cache_fill *fill;
    void *arg;
    char *slab;
    size_t n;
    pthread_mutex_t lock; /* guards all below */
    size_t limit;         /* slots that may be used now */
    struct entry *entries, **buckets;
    struct entry *free_list, *newest, *oldest;
    struct cache_key touched[TOUCHES];
    struct cache_waiter *starved, **starved_tail; /* found no slot, first come first served */
    bool serving;                                 /* someone is serving the starved */
    struct cache_stats stats;
};

int cache_new(size_t bytes, cache_fill *fill, void *arg, struct cache **out, struct err *err)
{
    struct cache *cache = calloc(1, sizeof(*cache));
    size_t n = bytes / PIECE ? bytes / PIECE : 1;

    *out = NULL;
    if (!cache)
        return err_set(err, -ENOMEM, "out of memory for the cache");
    *cache = (struct cache){.fill = fill, .arg = arg, .n = n, .limit = n, .slab = MAP_FAILED};
    cache->starved_tail = &cache->starved;
    cache->stats.slots = n;
    pthread_mutex_init(&cache->lock, NULL);
    /* Reserved, not yet backed: the daemon's memory grows with what is really cached. */
    cache->slab =
        mmap(NULL, n * PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cache->slab != MAP_FAILED) {
        /* First touches of small pages would cost as much as the arithmetic; a refusal changes nothing else.
         */
        madvise(cache->slab, n * PIECE, MADV_HUGEPAGE);
        cache->entries = calloc(n, sizeof(*cache->entries));
        cache->buckets = calloc(n, sizeof(*cache->buckets));
    }
    if (!cache->entries || !cache->buckets) {
        cache_free(cache);
        return err_set(err, -ENOMEM, "out of memory for a cache of %zu MiB", n);
    }
    for (size_t i = n; i-- > 0;) {
        cache->entries[i].chain = cache->free_list;
        cache->free_list = &cache->entries[i];
    }
    *out = cache;
    return 0;
}

void cache_free(struct cache *cache)
{
    if (!cache)
        return;
    if (cache->slab != MAP_FAILED)
        munmap(cache->slab, cache->n * PIECE);
    pthread_mutex_destroy(&cache->lock);
    free(cache->entries);
    free(cache->buckets);
    free(cache);
}

static char *slot_of(const struct cache *cache, const struct entry *entry)
{
    return cache->slab + (size_t)(entry - cache->entries) * PIECE;
}

static struct entry *entry_of(const struct cache *cache, const char *slot)
{
    return &cache->entries[(size_t)(slot - cache->slab) / PIECE];
}

static uint64_t hash_of(struct cache_key key)
{
    return ((key.piece + key.owner * 0xD1B54A32D192ED03u) * 0x9E3779B97F4A7C15u) >> 20;
}

static bool same(struct cache_key a, struct cache_key b)
{
    return a.owner == b.owner && a.piece == b.piece;
}

static struct entry **bucket_of(const struct cache *cache, struct cache_key key)
{
    return &cache->buckets[hash_of(key) % cache->n];
}

static struct entry *find(const struct cache *cache, struct cache_key key)
{
    struct entry *entry = *bucket_of(cache, key);

    while (entry && !same(entry->key, key))
        entry = entry->chain;
    return entry;
}

static void unhash(struct cache *cache, struct entry *entry)
{
    struct entry **link = bucket_of(cache, entry->key);

    while (*link != entry)
        link = &(*link)->chain;
    *link = entry->chain;
}

static void lru_add(struct cache *cache, struct entry *entry)
{
    entry->older = cache->newest;
    entry->newer = NULL;
    *(entry->older ? &entry->older->newer : &cache->oldest) = entry;
    cache->newest = entry;
}

static void lru_add_oldest(struct cache *cache, struct entry *entry)
{
    entry->newer = cache->oldest;
    entry->older = NULL;
    *(entry->newer ? &entry->newer->older : &cache->newest) = entry;
    cache->oldest = entry;
}

static void lru_remove(struct cache *cache, struct entry *entry)
{
    *(entry->newer ? &entry->newer->older : &cache->newest) = entry->older;
    *(entry->older ? &entry->older->newer : &cache->oldest) = entry->newer;
}

static void pin(struct cache *cache, struct entry *entry)
{
    if (entry->pins++ == 0) {
        lru_remove(cache, entry);
        cache->stats.pinned++;
    }
}

static void free_entry(struct cache *cache, struct entry *entry)
{
    *entry = (struct entry){.state = FREE, .chain = cache->free_list};
    cache->free_list = entry;
    cache->stats.used--;
}

static struct entry *free_slot(const struct cache *cache)
{
    return cache->stats.used < cache->limit ? cache->free_list : NULL;
}

/* A slot for `key`: a spent piece's, a free one, or the oldest unpinned piece's; NULL if all are filling or
 * pinned. */
static struct entry *place(struct cache *cache, struct cache_key key)
{
    struct entry *entry = cache->oldest && cache->oldest->spent ? NULL : free_slot(cache);

    if (entry) {
        cache->free_list = entry->chain;
        cache->stats.used++;
    } else {
        entry = cache->oldest;
        if (!entry)
            return NULL;
        lru_remove(cache, entry);
        unhash(cache, entry);
        cache->stats.evicted++;
    }
    *entry = (struct entry){.state = FILLING, .key = key, .chain = *bucket_of(cache, key)};
    entry->waiters_tail = &entry->waiters;
    *bucket_of(cache, key) = entry;
    return entry;
}

static void append(struct cache_waiter ***tail, struct cache_waiter *waiter)
{
    waiter->next = NULL;
    **tail = waiter;
    *tail = &waiter->next;
}

/* What cache_get has to do once it has let go of the lock. */
enum action { WAIT, DELIVER, FILL };

static enum action admit(struct cache *cache, struct cache_waiter *waiter, struct entry **entry)
{
    *entry = find(cache, waiter->key);
    if (*entry && (*entry)->state == PRESENT) {
        cache->stats.hits++;
        pin(cache, *entry);
        return DELIVER;
    }
    if (*entry) {
        cache->stats.joined++;
        append(&(*entry)->waiters_tail, waiter);
        return WAIT;
    }
    *entry = place(cache, waiter->key);
    if (!*entry) {
        append(&cache->starved_tail, waiter);
        return WAIT;
    }
    cache->stats.misses++;
    append(&(*entry)->waiters_tail, waiter);
    return FILL;
}

/* Unless it is delivered to or filled for, the waiter may be gone at any time. */
static void act(struct cache *cache, enum action action, struct cache_waiter *waiter, struct entry *entry)
{
    if (action == DELIVER)
        waiter->ready(waiter, 0, slot_of(cache, entry), NULL);
    else if (action == FILL)
        cache->fill(cache->arg, waiter, slot_of(cache, entry));
}

void cache_get(struct cache *cache, struct cache_waiter *waiter)
{
    enum action action;
    struct entry *entry;

    pthread_mutex_lock(&cache->lock);
    action = admit(cache, waiter, &entry);
    pthread_mutex_unlock(&cache->lock);
    act(cache, action, waiter, entry);
}

bool cache_touch(struct cache *cache, struct cache_key key)
{
    struct cache_key *last = &cache->touched[hash_of(key) % TOUCHES];
    bool worth;

    pthread_mutex_lock(&cache->lock);
    worth = same(*last, key) || find(cache, key);
    *last = key;
    cache->stats.misses += !worth;
    pthread_mutex_unlock(&cache->lock);
    return worth;
}

/* Give those who found no slot their turn, as far as slots go. One thread at a time does so, in a loop and
 * not by recursion: what it calls may drop further pins. Called with the lock held, returns with it released.
 */
static void serve_starved(struct cache *cache)
{
    if (!cache->serving) {
        cache->serving = true;
        while (cache->starved && (free_slot(cache) || cache->oldest || find(cache, cache->starved->key))) {
            struct cache_waiter *waiter = cache->starved;
            enum action action;
            struct entry *entry;

            cache->starved = waiter->next;
            if (!cache->starved)
                cache->starved_tail = &cache->starved;
            action = admit(cache, waiter, &entry);
            pthread_mutex_unlock(&cache->lock);
            act(cache, action, waiter, entry);
            pthread_mutex_lock(&cache->lock);
        }
        cache->serving = false;
    }
    pthread_mutex_unlock(&cache->lock);
}

static unsigned count(const struct cache_waiter *waiter)
{
    unsigned n = 0;

    for (; waiter; waiter = waiter->next)
        n++;
    return n;
}

void cache_filled(struct cache *cache, char *slot, int status, const struct err *err)
{
    struct entry *entry = entry_of(cache, slot);
    struct cache_waiter *waiter, *next;

    pthread_mutex_lock(&cache->lock);
    waiter = entry->waiters;
    entry->waiters = NULL;
    if (status == 0) {
        entry->state = PRESENT;
        entry->pins = count(waiter);
        cache->stats.pinned++;
    } else {
        unhash(cache, entry);
        free_entry(cache, entry);
        cache->stats.failed++;
    }
    pthread_mutex_unlock(&cache->lock);

    for (; waiter; waiter = next) {
        next = waiter->next;
        waiter->ready(waiter, status, status ? NULL : slot, err);
    }
    if (status) {
        pthread_mutex_lock(&cache->lock);
        serve_starved(cache);
    }
}

static void unpin(struct cache *cache, const char *data, bool spent)
{
    struct entry *entry = entry_of(cache, data);

    pthread_mutex_lock(&cache->lock);
    entry->spent = spent;
    if (--entry->pins == 0) {
        (spent ? lru_add_oldest : lru_add)(cache, entry);
        cache->stats.pinned--;
        serve_starved(cache);
    } else {
        pthread_mutex_unlock(&cache->lock);
    }
}

void cache_unpin(struct cache *cache, const char *data)
{
    unpin(cache, data, false);
}

void cache_unpin_spent(struct cache *cache, const char *data)
{
    unpin(cache, data, true);
}

void cache_lend(struct cache *cache, size_t bytes)
{
    size_t lent = (bytes + PIECE - 1) / PIECE, least = cache->n < SLOTS_MIN ? cache->n : SLOTS_MIN;

    pthread_mutex_lock(&cache->lock);
    cache->limit = lent < cache->n - least ? cache->n - lent : least;
    while (cache->stats.used > cache->limit && cache->oldest) {
        struct entry *entry = cache->oldest;
        lru_remove(cache, entry);
        unhash(cache, entry);
        madvise(slot_of(cache, entry), PIECE, MADV_DONTNEED);
        free_entry(cache, entry);
        cache->stats.evicted++;
    }
    serve_starved(cache); /* releases the lock */
}

void cache_stats(struct cache *cache, struct cache_stats *stats)
{
    pthread_mutex_lock(&cache->lock);
    *stats = cache->stats;
    pthread_mutex_unlock(&cache->lock);
}
