/* libmeld: a merged model as files that are computed while they are read.
 *
 *     struct meld_options options = {.config = "merge.yml"};
 *     struct meld *meld;
 *     struct report report = {0};
 *     if (meld_open(&options, &meld, &report) == 0) {      // plans from headers, no threads, milliseconds
 *         if (meld_start(meld, &err) == 0)                 // after the last fork
 *             meld_read(meld, meld_find(meld, "model.safetensors"), off, buf, len, &err);
 *         meld_close(meld);
 *     }
 *
 * A recipe's bytes are always the same: over reads, opens, thread counts and CPUs. After meld_start every
 * function may be called from any thread. Nothing prints, exits or keeps global state.
 */
#ifndef MELD_H
#define MELD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include "err.h"

struct meld;

#define MELD_CACHE_DEFAULT ((size_t)256 << 20)
#define MELD_CACHE_MIN ((size_t)4 << 20)

struct meld_options {
    const char *config;   /* path of the merge file */
    const char *name;     /* of the model, for the card; NULL: the merge file's name without .yml */
    bool yaml_dir_only;   /* relative model paths are the merge file's folder's alone (fstab), not the working
                             directory's */
    bool strict;          /* warnings are errors */
    size_t cache_bytes;   /* 0: MELD_CACHE_DEFAULT; rounded up to MELD_CACHE_MIN */
    unsigned n_threads;   /* 0: as many as CPUs may be used */
    uint64_t seed;        /* of random methods */
    uint64_t shard_bytes; /* 0: 5e9 */
};

/* Read, plan and lay out. All problems, warnings too, go to report. 0 or -errno (-EINVAL: the report has
 * errors). */
int meld_open(const struct meld_options *options, struct meld **out, struct report *report);
/* Start the workers and map the cache. Call once, after forking. */
int meld_start(struct meld *meld, struct err *err);
/* What was submitted, and what will be, ends soon, with -ECANCELED where it was not done.
 */
void meld_stop(struct meld *meld);
/* Waits for what was submitted. NULL is fine. */
void meld_close(struct meld *meld);

struct meld_file {
    const char *path; /* relative, '/' between components; sorted by path */
    uint64_t size;
    bool computed; /* a safetensors shard: no disk holds it */
};

size_t meld_n_files(const struct meld *meld);
const struct meld_file *meld_file(const struct meld *meld, size_t index); /* index < meld_n_files */
ssize_t meld_find(const struct meld *meld, const char *path);             /* index or -ENOENT */

/* The same for everything that gives the same bytes: recipe, sources' identities and version. */
uint64_t meld_fingerprint(const struct meld *meld);
/* The newest of the merge file and the sources. */
struct timespec meld_mtime(const struct meld *meld);

/* status 0: the bytes are in iov[0..n_iov), valid during the call only; together as many as asked for, fewer
 * only at the end of the file. Else -errno and err says why. Called exactly once a submit, by a worker or
 * within the submit; must not block for long. */
typedef void meld_done(void *arg, int status, const struct iovec *iov, int n_iov, const struct err *err);

/* Ask for bytes [off, off + len) of file `index`, len <= MELD_READ_MAX. Never blocks on computation. */
#define MELD_READ_MAX ((size_t)16 << 20)
void meld_submit(struct meld *meld, size_t index, uint64_t off, size_t len, meld_done *done, void *arg);

/* The same, waiting. Bytes read (short only at the end of the file), or -errno. Any len. Not from a worker.
 */
ssize_t meld_read(struct meld *meld, size_t index, uint64_t off, void *buf, size_t len, struct err *err);

/* What is known of one tensor (or of all: NULL), as text for people: sources, method, effective parameter
 * values. malloc'd. NULL with err if there is no such tensor (names near it are suggested) or no memory. */
char *meld_explain(const struct meld *meld, const char *tensor, struct err *err);

/* How far something is, in bytes; called now and then by the thread that waits for it. false: stop. */
typedef bool meld_progress(void *arg, uint64_t done, uint64_t total);

/* Read every tensor, and tell what headers cannot: NaN, infinities and what cannot be read are errors; donors
 * that change nothing, and changes that rounding loses, warnings. *text: figures for people, malloc'd.
 * progress may be NULL. Not after meld_start. 0, whatever was found; -ECANCELED; -ENOMEM. */
int meld_inspect(struct meld *meld, meld_progress *progress, void *arg, struct report *report, char **text);

struct meld_counters {
    uint64_t cache_bytes, cache_used, hits, misses, joined,
        evicted;                                                 /* pieces, but for *_bytes and cache_used */
    uint64_t requests, bytes_served, bytes_computed, bytes_read; /* since the start */
    uint64_t stats_done, stats_running;                          /* tensors */
    uint64_t stats_bytes_read, stats_kept;
    uint64_t failed;                           /* requests answered by an error */
    uint64_t n_tensors, n_models, bytes_total; /* bytes_total: of all files */
};
void meld_counters(struct meld *meld, struct meld_counters *counters);

const char *meld_version(void);

#endif
