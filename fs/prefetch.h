/* Has computed what sequential readers will want next, before they ask.
 *
 * The reads that arrive are told to it (stream.h finds the streams), and a thread of its own has their
 * windows computed into the engine's cache, a few pieces at a time, so that whoever reads elsewhere waits for
 * little. The thread never waits for the mount, and holds no lock while it calls the engine. Where statistics
 * are missing they are begun, for all of a window, and nothing else is until they are there. Thread-safe.
 */
#ifndef PREFETCH_H
#define PREFETCH_H

#include "meld.h"

struct prefetch;

/* cache_bytes: what the engine's cache holds; a quarter of it may be ahead of its readers. 0 or -errno. */
int prefetch_new(size_t cache_bytes, struct prefetch **out, struct err *err);
/* Nothing is begun any more. Before meld_stop. NULL is fine. */
void prefetch_stop(struct prefetch *prefetch);
/* Waits for what was begun, so only after prefetch_stop; the models must still be open. NULL is fine. */
void prefetch_free(struct prefetch *prefetch);

/* [off, off + len) of file `index`, within its size, is asked for through the handle: any number but 0 that
 * no other open file has. Call it before the read itself is submitted. meld: somebody holds it until
 * prefetch_release. Cheap. */
void prefetch_read(struct prefetch *prefetch, struct meld *meld, size_t index, uint64_t ino, uint64_t handle,
                   uint64_t off, size_t len);
/* The handle was flushed, as at each close of a duplicate: it reads no further, or begins anew. */
void prefetch_flush(struct prefetch *prefetch, uint64_t handle);
/* It is closed: what it was open on may go. */
void prefetch_release(struct prefetch *prefetch, uint64_t handle);

#endif
