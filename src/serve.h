/* Requests for bytes of models' files: what is cached, what is computed, who waits.
 *
 * Nobody waits in a thread: a request is a list entry until its pieces are there. One for all models:
 * threads, cache and statistics are shared. Thread-safe.
 */
#ifndef SERVE_H
#define SERVE_H

#include "keeper.h"
#include "layout.h"
#include "meld.h"
#include "overlay.h"

struct serve;
struct stats;

/* A model as requests see it. Immutable; held by each request on it. */
struct served {
    struct keeper *owner; /* of all this; not NULL */
    uint64_t id;          /* no other model's, ever: its pieces are cached under it */
    const struct layout *layout;
    /* A variant: what it changes; recipes of `layout` are then only what its own are made from. Else NULL. */
    const struct variant *variant;
    /* In place of the layout's file of this index: the recipe's text. SIZE_MAX: none. */
    size_t own_index;
    struct vfile own;
};

static inline const struct vfile *served_file(const struct served *model, size_t index)
{
    return index == model->own_index ? &model->own : &model->layout->files[index];
}

/* cache_bytes: of merged pieces kept, and what statistics hold. store: of statistics, or NULL; borrowed.
 * Starts n_threads workers. */
int serve_new(size_t cache_bytes, unsigned n_threads, struct stat_store *store, struct serve **out,
              struct err *err);
/* As meld_engine_stop. NULL is fine. */
void serve_stop(struct serve *serve);
/* Waits for what was submitted and ends the threads; nothing may be submitted any more. NULL is fine. */
void serve_end(struct serve *serve);
/* Ends it, too. No model's statistics may be released afterwards. NULL is fine. */
void serve_free(struct serve *serve);

/* As meld_submit. model: held until it is done. */
void serve_submit(struct serve *serve, struct served *model, size_t index, uint64_t off, size_t len,
                  meld_done *done, void *arg);

/* A request that cannot be submitted: it is counted, and answered at once. */
void serve_fail(struct serve *serve, meld_done *done, void *arg, int status, const struct err *err);

/* As meld_expect and meld_prefetch. model: held as long as it takes. */
bool serve_expect(struct serve *serve, struct served *model, size_t index, uint64_t off, size_t len);
void serve_prefetch(struct serve *serve, struct served *model, size_t index, uint64_t off, size_t len,
                    meld_done *done, void *arg);

struct stats *serve_stats(struct serve *serve);

/* Fills in the counters of cache, requests and statistics. */
void serve_counters(struct serve *serve, struct meld_counters *counters);

#endif
