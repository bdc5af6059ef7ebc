/* A file of kept statistics: how its bytes are laid out, and which of them are believed.
 *
 *     0                 head: what wrote it; a file of another version or kind of machine holds nothing
 *     SEGMENT_HEAD      SEGMENT_SLOTS entries, zero where none has been written (a hole of the file)
 *     SEGMENT_DATA      blobs, each at a multiple of SEGMENT_UNIT, in any order
 *
 * Blobs are native structs, so numbers are native, too. Head, entries and blobs have a checksum each: a blob
 * is there once its entry and itself are, whatever of the file reached the disk, in any order. Entries are
 * never changed. Pure functions.
 */
#ifndef STAT_SEGMENT_H
#define STAT_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Raise it whenever a method's state, or the key that the state is kept under, changes its meaning. */
#define STATS_VERSION 3

enum {
    SEGMENT_HEAD = 64,
    SEGMENT_ENTRY = 40,
    SEGMENT_SLOTS = 8192,
    SEGMENT_DATA = SEGMENT_HEAD + SEGMENT_SLOTS * SEGMENT_ENTRY,
    SEGMENT_UNIT = 8,
    SEGMENT_BLOB_MAX = (1 << 27) - 1, /* bytes */
};

struct stat_key {
    uint64_t lo, hi;
};

struct segment_entry {
    struct stat_key key;
    uint64_t hash;     /* of the blob: segment_hash */
    uint32_t off, len; /* of the blob: in units of SEGMENT_UNIT from the file's beginning; in bytes, not 0 */
};

/* stats_version: STATS_VERSION, but in tests. */
void segment_write_head(char head[SEGMENT_HEAD], uint32_t stats_version);
bool segment_head_is_ours(const char head[SEGMENT_HEAD], uint32_t stats_version);

void segment_write_entry(char out[SEGMENT_ENTRY], const struct segment_entry *entry);
/* false: damaged, or nothing has been written there. */
bool segment_read_entry(const char in[SEGMENT_ENTRY], struct segment_entry *entry);
bool segment_slot_is_free(const char in[SEGMENT_ENTRY]);

uint64_t segment_hash(const void *blob, size_t len);

#endif
