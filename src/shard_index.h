/* model.safetensors.index.json: which tensor is in which file.
 *
 *     {"metadata": ..., "weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors", ...}}
 *
 * Hostile input: strict JSON; file names are plain names, of at most SHARDS_MAX files.
 */
#ifndef SHARD_INDEX_H
#define SHARD_INDEX_H

#include <stddef.h>

#include "arena.h"
#include "err.h"

enum { SHARDS_MAX = 4096 };

struct shard_entry {
    const char *tensor, *file;
    size_t shard; /* position of file in files */
};

struct shard_index {
    size_t n;
    struct shard_entry *entries; /* sorted by tensor */
    size_t n_files;
    const char **files; /* sorted */
};

/* Everything in `index` is the arena's. -EINVAL with key and rule, -ENOMEM. */
int shard_index_parse(struct arena *arena, const char *json, size_t len, struct shard_index *index,
                      struct err *err);

#endif
