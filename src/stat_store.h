/* Statistics that last: blobs on disk under 128-bit keys, shared by whoever uses the folder.
 *
 * A key stands for all that its blob depends on, so a blob never changes, and whether one is found changes
 * how long something takes, but no byte. What is damaged, or of another version of meldfs, is not found.
 * Blobs are appended to files of stat_segment.h's form: each has one writer at a time, who holds a lock on it
 * (flock), and any number of readers. Nothing waits for a disk: after a power failure a blob is there as it
 * was written, or not there.
 *
 * The folder is kept within max_bytes by removing files, the one that was longest neither read nor written
 * first, never one that is being written; who has a removed file open goes on reading it. Each writer at work
 * may exceed that by a sixteenth. At most 32 files of 8192 blobs are used, so the index in memory, 32 bytes a
 * slot in a table that is at most three quarters full (43 to 86 bytes a blob), has at most 16 MiB.
 * Thread-safe.
 */
#ifndef STAT_STORE_H
#define STAT_STORE_H

#include "err.h"
#include "stat_segment.h"

#define STAT_STORE_BYTES ((uint64_t)1 << 30) /* a folder's size unless told otherwise */

struct stat_store;

struct stat_store_counters {
    uint64_t n_blobs, found, missed, damaged, written; /* in the index now; calls and blobs since the start */
    uint64_t held_bytes;                               /* of memory: the index */
};

/* The folder is made, mode 0700, and the folders that it lies in. Blobs that others write later are found by
 * the next open. max_bytes: at least 4 MiB is used. 0, or -errno with err: -EPERM if others may write in the
 * folder, or it is theirs. Open it after the last fork. */
int stat_store_open(const char *dir, uint64_t max_bytes, struct stat_store **out, struct err *err);
void stat_store_close(struct stat_store *store); /* NULL is fine */

/* The key's blob of exactly `len` bytes into buf, or zeros and false. */
bool stat_store_get(struct stat_store *store, struct stat_key key, void *buf, size_t len);

/* Keep a blob if that can be done: one that is larger than a sixteenth of max_bytes, or for which there is no
 * room on the disk, is not kept. Writes to the page cache and does not wait for the disk. */
void stat_store_put(struct stat_store *store, struct stat_key key, const void *buf, size_t len);

void stat_store_counters(struct stat_store *store, struct stat_store_counters *counters);

#endif
