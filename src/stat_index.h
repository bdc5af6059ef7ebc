/* Where each kept blob is: a table in memory, open addressing. Several entries may have one key, as when two
 * programs have computed the same; an entry that turns out to be damaged is struck out. Not thread-safe. */
#ifndef STAT_INDEX_H
#define STAT_INDEX_H

#include "stat_segment.h"

enum { STAT_FILES = 32 }; /* that entries may be in */

struct stat_place {
    struct stat_key key;
    uint64_t hash;
    uint32_t off;      /* as in segment_entry; 0: the slot is empty */
    uint32_t len : 27; /* bytes; 0: struck out */
    uint32_t file : 5;
};

/* Zero-initialised is empty and valid. */
struct stat_index {
    struct stat_place *slots;
    size_t n_slots;        /* 0 or a power of two */
    size_t n_taken, n_out; /* slots that are not empty, those struck out included; those struck out */
};

void stat_index_fini(struct stat_index *index);
/* 0 or -ENOMEM. */
int stat_index_add(struct stat_index *index, const struct segment_entry *entry, unsigned file);
/* The first that is not struck out, or NULL. Valid until the index changes. */
struct stat_place *stat_index_find(const struct stat_index *index, struct stat_key key, size_t len);
void stat_index_strike(struct stat_index *index, struct stat_place *place);
void stat_index_strike_file(struct stat_index *index, unsigned file);

#endif
