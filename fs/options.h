/* The list that follows -o. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct mount_options {
    size_t cache_bytes; /* 0: not given */
    unsigned n_threads; /* 0: not given */
    uint64_t seed;      /* of random methods; 0 unless given */
    bool strict, allow_other;
    bool no_stats;    /* keep no statistics on disk */
    bool no_prefetch; /* compute nothing ahead of its readers */
};

/* Add `list` ("cache=256M,ro") to what is there; a later value wins. Options that mount(8) and fstab pass to
 * every file system are accepted and change nothing: a mount is always ro,nosuid,nodev,noexec. 0, or -EINVAL
 * with err naming the option. */
int options_parse(const char *list, struct mount_options *options, struct err *err);

/* Bytes, or with a suffix K, M, G or T (of 1024; any case). 0, -EINVAL, or -ERANGE. */
int options_size(const char *text, size_t *bytes);

#endif
