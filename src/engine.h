/* The engine, as what belongs to libmeld sees it. */
#ifndef ENGINE_H
#define ENGINE_H

#include <pthread.h>

#include "keeper.h"
#include "meld.h"
#include "plans.h"
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
    struct plans plans;
};

unsigned engine_cpus(void);
/* Opened when it is first asked for, which must be after the last fork; by one thread at a time. NULL: none.
 */
struct stat_store *engine_store(struct meld_engine *engine);

#endif
