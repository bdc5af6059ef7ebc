#include "prefetch.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "stream.h"

_Static_assert(STREAM_PIECE == MELD_PIECE, "a piece is what the engine keeps");

struct prefetch {
    pthread_t thread;
    unsigned max_flying;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake;
    struct streams streams;
    unsigned n_flying; /* pieces begun and not there yet */
    bool stopping;
};

struct piece {
    struct prefetch *prefetch;
    struct stream_range range;
};

static void piece_done(void *arg, int status, const struct iovec *iov, int n_iov, const struct err *err)
{
    struct piece *piece = arg;
    struct prefetch *prefetch = piece->prefetch;

    (void)iov, (void)n_iov, (void)err; /* a reader that comes here will see the failure and report it */
    pthread_mutex_lock(&prefetch->lock);
    if (status)
        streams_put_back(&prefetch->streams, &piece->range);
    prefetch->n_flying--;
    pthread_cond_signal(&prefetch->wake);
    pthread_mutex_unlock(&prefetch->lock);
    free(piece);
}

/* A stream's model lives while a handle is open: in what a stream gave, it is held from then on. */
static bool hold(bool given, const struct stream_range *range)
{
    if (given)
        meld_ref(range->file.meld);
    return given;
}

/* The range's model is held. */
static void begin_piece(struct prefetch *prefetch, const struct stream_range *range)
{
    struct piece *piece = malloc(sizeof(*piece));

    if (!piece) {
        pthread_mutex_lock(&prefetch->lock);
        prefetch->n_flying--;
        pthread_mutex_unlock(&prefetch->lock);
        return;
    }
    *piece = (struct piece){prefetch, *range};
    meld_prefetch(range->file.meld, range->file.index, range->off, (size_t)range->len, piece_done, piece);
}

/* One thing that is to be done, with the lock let go meanwhile. False: there is nothing. */
static bool work(struct prefetch *prefetch)
{
    struct stream_range range;
    bool sighted;

    sighted = hold(streams_sight(&prefetch->streams, &range), &range);
    if (!sighted && (prefetch->n_flying == prefetch->max_flying ||
                     !hold(streams_take(&prefetch->streams, &range), &range)))
        return false;
    prefetch->n_flying += !sighted;
    pthread_mutex_unlock(&prefetch->lock);
    if (sighted)
        meld_expect(range.file.meld, range.file.index, range.off, (size_t)range.len);
    else
        begin_piece(prefetch, &range);
    meld_close(range.file.meld);
    pthread_mutex_lock(&prefetch->lock);
    return true;
}

static void *run(void *arg)
{
    struct prefetch *prefetch = arg;

    pthread_mutex_lock(&prefetch->lock);
    while (!prefetch->stopping || prefetch->n_flying > 0) {
        if (prefetch->stopping || !work(prefetch))
            pthread_cond_wait(&prefetch->wake, &prefetch->lock);
    }
    pthread_mutex_unlock(&prefetch->lock);
    return NULL;
}

static unsigned cpus(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    return n > 0 ? (unsigned)n : 1;
}

int prefetch_new(size_t cache_bytes, struct prefetch **out, struct err *err)
{
    struct prefetch *prefetch = calloc(1, sizeof(*prefetch));
    sigset_t all, old;
    int status;

    *out = NULL;
    if (!prefetch)
        return err_set(err, -ENOMEM, "out of memory");
    streams_init(&prefetch->streams, cache_bytes / 4);
    prefetch->max_flying = cpus() + 1;
    pthread_mutex_init(&prefetch->lock, NULL);
    pthread_cond_init(&prefetch->wake, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    status = pthread_create(&prefetch->thread, NULL, run, prefetch);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (status) {
        free(prefetch);
        return err_set(err, -status, "cannot start a thread: %s", strerror(status));
    }
    *out = prefetch;
    return 0;
}

void prefetch_stop(struct prefetch *prefetch)
{
    if (!prefetch)
        return;
    pthread_mutex_lock(&prefetch->lock);
    prefetch->stopping = true;
    pthread_cond_signal(&prefetch->wake);
    pthread_mutex_unlock(&prefetch->lock);
}

void prefetch_free(struct prefetch *prefetch)
{
    if (!prefetch)
        return;
    pthread_join(prefetch->thread, NULL);
    pthread_cond_destroy(&prefetch->wake);
    pthread_mutex_destroy(&prefetch->lock);
    free(prefetch);
}

void prefetch_read(struct prefetch *prefetch, struct meld *meld, size_t index, uint64_t ino, uint64_t handle,
                   uint64_t off, size_t len)
{
    struct stream_file file = {meld, index, ino, meld_file(meld, index)->size};

    pthread_mutex_lock(&prefetch->lock);
    if (streams_read(&prefetch->streams, &file, handle, off, len))
        pthread_cond_signal(&prefetch->wake);
    pthread_mutex_unlock(&prefetch->lock);
}

void prefetch_flush(struct prefetch *prefetch, uint64_t handle)
{
    pthread_mutex_lock(&prefetch->lock);
    streams_trim(&prefetch->streams, handle);
    pthread_mutex_unlock(&prefetch->lock);
}

void prefetch_release(struct prefetch *prefetch, uint64_t handle)
{
    pthread_mutex_lock(&prefetch->lock);
    streams_forget(&prefetch->streams, handle);
    pthread_mutex_unlock(&prefetch->lock);
}
