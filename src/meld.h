/* libmeld: merged models as files that are computed while they are read.
 *
 *     struct meld_engine *engine;
 *     struct meld *meld;
 *     struct report report = {0};
 *     meld_engine_new(&(struct meld_engine_options){0}, &engine, &err);
 *     if (meld_open(engine, &(struct meld_options){.config = "merge.yml"}, &meld, &report) == 0) {
 *         if (meld_engine_start(engine, &err) == 0)        // after the last fork
 *             meld_read(meld, meld_find(meld, "model.safetensors"), off, buf, len, &err);
 *         meld_close(meld);
 *     }
 *     meld_engine_free(engine);
 *
 * An engine is what runs: threads, cache, statistics; any number of models share it. A model is a recipe as
 * it was planned once, from headers, in milliseconds: immutable and counted. A variant of it, a named
 * document and a later reading of the same file are models, too. A recipe's bytes are always the same: over
 * reads, opens, thread counts and CPUs. Every function may be called from any thread. Nothing prints, exits
 * or keeps global state.
 */
#ifndef MELD_H
#define MELD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#include "err.h"

struct meld_engine;
struct meld;

#define MELD_CACHE_DEFAULT ((size_t)256 << 20)
#define MELD_CACHE_MIN ((size_t)4 << 20)

struct meld_engine_options {
    size_t cache_bytes; /* 0: MELD_CACHE_DEFAULT; rounded up to MELD_CACHE_MIN */
    unsigned n_threads; /* 0: as many as CPUs may be used */
    const char *
        stats_dir; /* folder where statistics are kept between runs, made if it is not there; NULL: nowhere */
    size_t plan_bytes; /* that plans may hold before those that nobody has pinned, and that were not used for
                          longest, are dropped; but for one. 0: none is */
};

int meld_engine_new(const struct meld_engine_options *options, struct meld_engine **out, struct err *err);
/* Start the workers and map the cache. Once, after forking. */
int meld_engine_start(struct meld_engine *engine, struct err *err);
/* Why statistics are not kept on disk though they should be; NULL: nothing is wrong. After the start. */
const char *meld_engine_problem(const struct meld_engine *engine);
/* What was submitted, and what will be, ends soon, with -ECANCELED where it was not done. */
void meld_engine_stop(struct meld_engine *engine);
/* Waits for what was submitted and ends the threads. Of models that are still open only meld_unpin and
 * meld_close may be called then. NULL is fine. */
void meld_engine_free(struct meld_engine *engine);

struct meld_options {
    const char *config; /* path of the merge file */
    const char *name;   /* of the model, for the card; NULL: the merge file's name without .yml */
    const char *cwd; /* relative model paths are sought from here first; NULL: from the working directory */
    bool yaml_dir_only;     /* they are the merge file's folder's alone (fstab) */
    bool strict;            /* warnings are errors */
    uint64_t seed;          /* of random methods */
    uint64_t shard_bytes;   /* 0: 5e9 */
    const char *const *set; /* n_set "KEY=VALUE", as in a variant's path, carried out before it is planned */
    size_t n_set;
};

/* Read, plan and lay out. engine: borrowed, at least until all its models are closed or it is freed. All
 * problems, warnings too, go to report. 0 or -errno (-EINVAL: the report has errors). */
int meld_open(struct meld_engine *engine, const struct meld_options *options, struct meld **out,
              struct report *report);
/* One owner more; returns meld. */
struct meld *meld_ref(struct meld *meld);
/* One owner less; requests under way hold the model by themselves. NULL is fine. */
void meld_close(struct meld *meld);

/* A plan that was dropped is made again when it is needed, from what it was made from, and from sources that
 * must still be the same. All that is said of files, the numbers, times and texts below stay known without
 * it. Who needs bytes waits for it as for the bytes; what else needs it and must not wait says so with
 * -EAGAIN.
 *
 * A pinned plan is not dropped, and if it was, not any more once it is made again. Of a file, its documents
 * and variants it is one. Never blocks. */
void meld_pin(struct meld *meld);
void meld_unpin(struct meld *meld);
/* Two results with the same fingerprint, opened from the same file: `to` gets the plan of `from`, if it has
 * none. `from` has no variants, was not read and is about to be closed. */
void meld_move_plan(struct meld *from, struct meld *to);
/* status 0: the plan is there, and stays for as long as the call takes. Else -EIO, -ENOMEM or -ECANCELED, and
 * err says why. */
typedef void meld_planned(void *arg, int status, const struct err *err);
/* Have the plan made. done: called once, within the call or by a thread of the engine's. Never blocks. */
void meld_plan(struct meld *meld, meld_planned *done, void *arg);

/* The model with other parameters. path: "KEY=VALUE/KEY=VALUE...", in any order and spelling. Nothing is
 * planned anew. meld may be a named document, but no variant. 0; -ENOENT with the reason why there is none
 * (no such key, the nearest one named; set twice; no number; values the method refuses); -ENOMEM; -EAGAIN:
 * the plan was dropped. */
int meld_variant(struct meld *meld, const char *path, struct meld **out, struct err *err);
/* The one canonical spelling of such a path, malloc'd. The same codes, but that values are not looked at. */
int meld_variant_path(struct meld *meld, const char *path, char **canonical, struct err *err);
/* Of a variant: its canonical path; else "". */
const char *meld_path(const struct meld *meld);

/* The named documents of the merge file as models, held by the model itself. */
size_t meld_n_documents(const struct meld *meld);
struct meld *meld_document(struct meld *meld, size_t index);
const char *meld_document_name(const struct meld *meld, size_t index);

/* The recipe as it stands, a variant's with its values: what mergekit_config.yml says. NUL-terminated. */
const char *meld_recipe(const struct meld *meld);

uint64_t meld_n_tensors(const struct meld *meld);
uint64_t meld_n_models(const struct meld *meld); /* that are merged */
uint64_t meld_bytes(const struct meld *meld);    /* of all files */

struct meld_file {
    const char *path; /* relative, '/' between components; sorted by path */
    uint64_t size;
    bool computed; /* a safetensors shard: no disk holds it */
};

/* A variant has the files of the model it is of, under the same numbers. */
size_t meld_n_files(const struct meld *meld);
const struct meld_file *meld_file(const struct meld *meld, size_t index); /* index < meld_n_files */
ssize_t meld_find(const struct meld *meld, const char *path);             /* index or -ENOENT */

/* The same for everything that gives the same bytes: recipe, variant, sources' identities and version. */
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

/* Somebody is expected to read these bytes, which the file has: their sources are announced to the kernel,
 * and statistics that they need are begun. True: none is missing. Never blocks. Without a plan nothing is
 * done. */
bool meld_expect(struct meld *meld, size_t index, uint64_t off, size_t len);
/* Compute and keep what was expected; off is a multiple of MELD_PIECE, len at most that. done: gets no
 * bytes; -EAGAIN where statistics or the plan are missing. What is copied from a source is not kept. */
#define MELD_PIECE ((size_t)1 << 20)
void meld_prefetch(struct meld *meld, size_t index, uint64_t off, size_t len, meld_done *done, void *arg);

/* The same as meld_submit, waiting. Bytes read (short only at the end of the file), or -errno. Any len. Not
 * from a worker.
 */
ssize_t meld_read(struct meld *meld, size_t index, uint64_t off, void *buf, size_t len, struct err *err);

/* Where bytes from `off` on are a plain copy of a source's, have the kernel copy them to the same place of
 * `fd`, at most len: without computing, and sharing storage where the file system can. How many were; 0 where
 * they are no copy or the kernel cannot: ask for them then. -EIO with err if the source has changed. Waits
 * for the disk. */
ssize_t meld_copy(struct meld *meld, size_t index, uint64_t off, size_t len, int fd, struct err *err);

/* What is known of one tensor (or of all: NULL), as text for people: sources, method, effective parameter
 * values. malloc'd. NULL with err if there is no such tensor (names near it are suggested) or no memory. */
char *meld_explain(struct meld *meld, const char *tensor, struct err *err);

/* A donor whose task vector was zero in all that was read of it so far. */
struct meld_idle {
    const char *model; /* as the merge file names it */
    struct place at;   /* there */
    uint64_t bytes;    /* that were compared */
};
/* How many such donors there are; those that have room are filled in. Variants are seen to as well: a model,
 * its variants and its reads are one. Without a plan there are none; the list is valid while it is pinned. */
size_t meld_idle_donors(struct meld *meld, struct meld_idle *list, size_t room);

/* How far something is, in bytes; called now and then by the thread that waits for it. false: stop. */
typedef bool meld_progress(void *arg, uint64_t done, uint64_t total);

/* meld: as it was opened, no variant and no document. Read every tensor, and tell what headers cannot: NaN,
 * infinities and what cannot be read are errors; donors that change nothing, and changes that rounding loses,
 * warnings. *text: figures for people, malloc'd. progress may be NULL. With threads of its own; of a model
 * that has not been read. 0, whatever was found; -ECANCELED; -ENOMEM. */
int meld_inspect(struct meld *meld, meld_progress *progress, void *arg, struct report *report, char **text);

/* Read every tensor, and tell what the merge does to it as JSON: each donor's parameters, size and direction,
 * what the method keeps of it, what rounding leaves (docs/report.md). *json is malloc'd. What cannot be read
 * is an error in report, and the rest is told. meld, progress, threads: as for meld_inspect. 0; -ECANCELED;
 * -ENOMEM. */
int meld_survey(struct meld *meld, meld_progress *progress, void *arg, struct report *report, char **json);

struct meld_counters {
    uint64_t cache_bytes, cache_used, hits, misses, joined,
        evicted;                                                 /* pieces, but for *_bytes and cache_used */
    uint64_t requests, bytes_served, bytes_computed, bytes_read; /* since the start */
    uint64_t stats_done, stats_loaded, stats_running;            /* tensors: computed; found on disk; now */
    uint64_t stats_todo, stats_todo_bytes; /* tensors begun and not finished; what one pass over them reads */
    uint64_t stats_bytes_read, stats_kept;
    uint64_t failed;                         /* requests answered by an error */
    uint64_t plans, plan_bytes, plans_again; /* held; of them; made again since the start */
};
void meld_counters(struct meld_engine *engine, struct meld_counters *counters);

const char *meld_version(void);

#endif
