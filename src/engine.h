/* What engine.c and opened.c share: the engine, and models opened in it. */
#ifndef ENGINE_H
#define ENGINE_H

#include <pthread.h>

#include "keeper.h"
#include "meld.h"
#include "serve.h"

struct meld_engine {
    struct keeper keeper; /* first member; whoever made it and its models */
    size_t cache_bytes;
    unsigned n_threads;
    struct serve *serve;      /* after meld_engine_start */
    char *stats_dir;          /* or NULL */
    struct stat_store *store; /* or NULL: stats_problem says why */
    struct err stats_problem;
    struct models *models;
    pthread_mutex_t planning;   /* one plan at a time: it may list a shared model's side files */
    atomic_uint_fast64_t n_ids; /* models so far */
};

struct meld {
    struct keeper keeper; /* first member; not a document's: its file's result is kept for it */
    struct served served;
    struct meld_engine *engine; /* held */
    struct meld *of;            /* of a variant: held; of a document: the result, not held */
    const struct plan *plan;
    struct meld_file *files; /* as the layout's */
    uint64_t fingerprint;
    struct timespec mtime;
    char *recipe; /* of a variant; else NULL: the file's text */

    /* of a variant: */
    struct variant *variant;

    /* of a document or a result: */
    struct layout *layout;

    /* of a result: */
    struct config *config;
    struct plan_set *plans;
    size_t n_documents;
    struct meld *documents;
};

/* The model of the merge file's result. */
struct meld *meld_result(struct meld *meld);

unsigned engine_cpus(void);
/* Opened when it is first asked for, which must be after the last fork; by one thread at a time. NULL: none.
 */
struct stat_store *engine_store(struct meld_engine *engine);

#endif
