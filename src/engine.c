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
    return serve_new(engine->cache_bytes, engine->n_threads, engine_store(engine), &engine->serve, err);
}

const char *meld_engine_problem(const struct meld_engine *engine)
{
    return engine->stats_problem.text[0] ? engine->stats_problem.text : NULL;
}

void meld_engine_stop(struct meld_engine *engine)
{
    serve_stop(engine->serve);
}

void meld_engine_free(struct meld_engine *engine)
{
    if (!engine)
        return;
    serve_end(engine->serve);
    keeper_drop(&engine->keeper);
}

void meld_counters(struct meld_engine *engine, struct meld_counters *counters)
{
    *counters = (struct meld_counters){0};
    if (engine->serve)
        serve_counters(engine->serve, counters);
}

void meld_submit(struct meld *meld, size_t index, uint64_t off, size_t len, meld_done *done, void *arg)
{
    serve_submit(meld->engine->serve, &meld->served, index, off, len, done, arg);
}

bool meld_expect(struct meld *meld, size_t index, uint64_t off, size_t len)
{
    return serve_expect(meld->engine->serve, &meld->served, index, off, len);
}

void meld_prefetch(struct meld *meld, size_t index, uint64_t off, size_t len, meld_done *done, void *arg)
{
    serve_prefetch(meld->engine->serve, &meld->served, index, off, len, done, arg);
}

/* One wait for one submit. */
struct wait {
    pthread_mutex_t lock;
    pthread_cond_t woken;
    bool over;
    int status;
    char *buf;
    size_t len; /* bytes received */
    struct err *err;
};

static void wake(void *arg, int status, const struct iovec *iov, int n_iov, const struct err *err)
{
    struct wait *wait = arg;

    for (int i = 0; i < n_iov; i++) {
        memcpy(wait->buf + wait->len, iov[i].iov_base, iov[i].iov_len);
        wait->len += iov[i].iov_len;
    }
    if (status && wait->err && err)
        *wait->err = *err;
    pthread_mutex_lock(&wait->lock);
    wait->status = status;
    wait->over = true;
    pthread_cond_signal(&wait->woken);
    pthread_mutex_unlock(&wait->lock);
}

static int read_part(struct meld *meld, size_t index, uint64_t off, size_t len, struct wait *wait)
{
    wait->over = false;
    meld_submit(meld, index, off, len, wake, wait);
    pthread_mutex_lock(&wait->lock);
    while (!wait->over)
        pthread_cond_wait(&wait->woken, &wait->lock);
    pthread_mutex_unlock(&wait->lock);
    return wait->status;
}

ssize_t meld_read(struct meld *meld, size_t index, uint64_t off, void *buf, size_t len, struct err *err)
{
    struct wait wait = {.buf = buf, .err = err};
    size_t asked;
    int status;

    pthread_mutex_init(&wait.lock, NULL);
    pthread_cond_init(&wait.woken, NULL);
    do {
        size_t before = wait.len;
        asked = len - before < MELD_READ_MAX ? len - before : MELD_READ_MAX;
        status = read_part(meld, index, off + before, asked, &wait);
        asked -= wait.len - before;
    } while (status == 0 && asked == 0 && wait.len < len);
    pthread_cond_destroy(&wait.woken);
    pthread_mutex_destroy(&wait.lock);
    return status ? status : (ssize_t)wait.len;
}
