/* The files of a mounted directory, and which tensor elements are which bytes of them. Immutable after
 * building.
 *
 * Shards hold tensors sorted as the safetensors library sorts them, placed by type descending then name,
 * filled greedily to SHARD_BYTES; data begins on a multiple of 4096.
 */
#ifndef LAYOUT_H
#define LAYOUT_H

#include "plan.h"

#define SHARD_BYTES 5000000000u

enum vfile_kind {
    VFILE_BYTES,  /* rendered: config.json, index, README.md, ... */
    VFILE_SOURCE, /* a side file of the donor, served as it is */
    VFILE_SHARD,  /* computed */
};

struct vfile {
    const char *path; /* relative, '/' between components */
    enum vfile_kind kind;
    uint64_t size;
    const char *bytes;                  /* BYTES: the content; SHARD: the header */
    uint64_t bytes_len;                 /* SHARD: offset of data */
    const struct source *source;        /* SOURCE */
    const struct plan_tensor **tensors; /* SHARD: in order of st.begin (relative to bytes_len) */
    uint64_t *begin;                    /* SHARD: [n_tensors] offset of each tensor's data in the file */
    size_t n_tensors;
};

struct layout {
    size_t n_files;
    struct vfile *files; /* sorted by path */
    uint64_t bytes_served;
    struct arena arena;
};

/* shard_bytes: SHARD_BYTES, smaller in tests. recipe: text of mergekit_config.yml; name: of the model, for
 * the card's title. 0, -ENOMEM, or -EINVAL. */
int layout_build(const struct plan *plan, const char *recipe, const char *name, uint64_t shard_bytes,
                 struct layout **out, struct err *err);
void layout_free(struct layout *layout);

/* Whether bytes from `off` on are those of a file on disk: which, from where there, and how many. */
struct stored {
    const struct source *source;
    uint64_t off, len;
};
bool layout_stored(const struct vfile *file, uint64_t off, struct stored *out);

/* Index of the first tensor of a shard whose data ends after `off` (n_tensors if none). */
size_t layout_find(const struct vfile *file, uint64_t off);

#endif
