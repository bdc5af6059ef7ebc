/* What passes over tensors leave for later ones with other parameters: small blobs by key, in memory and on
 * disk. Whether one is found changes how long something takes, but no byte. Thread-safe.
 */
#ifndef SAVINGS_H
#define SAVINGS_H

#include "digest.h"
#include "stat_store.h"

struct savings;

/* max_bytes: of memory; the longest unused go first. store: NULL: memory only; borrowed. NULL if memory runs
 * out. */
struct savings *savings_new(size_t max_bytes, struct stat_store *store);
void savings_free(struct savings *savings); /* NULL is fine */

/* Keep a copy, if there is room. */
void savings_put(struct savings *savings, struct digest key, const void *data, size_t len);
/* A copy, malloc'd; NULL: it is not there. */
void *savings_get(struct savings *savings, struct digest key, size_t *len);

size_t savings_bytes(struct savings *savings);

#endif
