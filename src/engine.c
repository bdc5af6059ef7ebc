#include "engine.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "models.h"

const char *meld_version(void)
{
    return MELD_VERSION;
}

unsigned engine_cpus(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    return n > 0 ? (unsigned)n : 1;
}

static void engine_drop(struct keeper *keeper)
{
    struct meld_engine *engine = (struct meld_engine *)keeper;

    plans_fini(&engine->plans);
    serve_free(engine->serve);
    stat_store_close(engine->store);
    models_free(engine->models);
    free(engine->stats_dir);
    pthread_mutex_destroy(&engine->planning);
    free(engine);
}

int meld_engine_new(const struct meld_engine_options *options, struct meld_engine **out, struct err *err)
{
    struct meld_engine *engine = calloc(1, sizeof(*engine));
    size_t bytes = options->cache_bytes ? options->cache_bytes : MELD_CACHE_DEFAULT;

    *out = engine;
    if (!engine)
        return err_set(err, -ENOMEM, "out of memory");
    *engine = (struct meld_engine){
        .keeper = {1, engine_drop},
        .cache_bytes = bytes < MELD_CACHE_MIN ? MELD_CACHE_MIN : bytes,
        .n_threads = options->n_threads ? options->n_threads : engine_cpus(),
        .models = models_new(),
        .stats_dir = options->stats_dir ? strdup(options->stats_dir) : NULL,
    };
    pthread_mutex_init(&engine->planning, NULL);
    plans_init(&engine->plans, options->plan_bytes);
    if (engine->models && (engine->stats_dir || !options->stats_dir))
        return 0;
    meld_engine_free(engine);
    *out = NULL;
    return err_set(err, -ENOMEM, "out of memory");
}

struct stat_store *engine_store(struct meld_engine *engine)
{
    if (engine->stats_dir && !engine->store && !engine->stats_problem.text[0])
        stat_store_open(engine->stats_dir, STAT_STORE_BYTES, &engine->store, &engine->stats_problem);
    return engine->store;
}

int meld_engine_start(struct meld_engine *engine, struct err *err)
{
    int status = serve_new(engine->cache_bytes, engine->n_threads, engine_store(engine), &engine->serve, err);

    return status ? status : plans_start(&engine->plans, err);
}

const char *meld_engine_problem(const struct meld_engine *engine)
{
    return engine->stats_problem.text[0] ? engine->stats_problem.text : NULL;
}

void meld_engine_stop(struct meld_engine *engine)
{
    plans_stop(&engine->plans);
    serve_stop(engine->serve);
}

void meld_engine_free(struct meld_engine *engine)
{
    if (!engine)
        return;
    plans_end(&engine->plans); /* it may submit */
    serve_end(engine->serve);
    keeper_drop(&engine->keeper);
}

void meld_counters(struct meld_engine *engine, struct meld_counters *counters)
{
    *counters = (struct meld_counters){0};
    if (engine->serve)
        serve_counters(engine->serve, counters);
    plans_counters(&engine->plans, counters);
}
