/* Requests for bytes of the layout's files: what is cached, what is computed, who waits.
 *
 * Nobody waits in a thread: a request is a list entry until its pieces are there. Thread-safe.
 */
#ifndef SERVE_H
#define SERVE_H

#include "layout.h"
#include "meld.h"

struct serve;

/* layout: borrowed. cache_bytes: of merged pieces kept. Starts n_threads workers. */
int serve_new(const struct layout *layout, size_t cache_bytes, unsigned n_threads, struct serve **out,
              struct err *err);
/* Waits for what was submitted. NULL is fine. */
void serve_free(struct serve *serve);

/* As meld_stop. NULL is fine. */
void serve_stop(struct serve *serve);

/* As meld_submit. */
void serve_submit(struct serve *serve, size_t index, uint64_t off, size_t len, meld_done *done, void *arg);

/* Fills in the counters of cache and requests, leaves the rest. */
void serve_counters(struct serve *serve, struct meld_counters *counters);

#endif
