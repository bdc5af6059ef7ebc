#include "export_sync.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "timed_wait.h"

#define LOOK_NS 20000000L             /* how often the thread looks what is new */
#define ANNOUNCE ((uint64_t)16 << 20) /* bytes that are given to the disk at once */

struct syncer {
    struct queue *queue;
    struct outdir *folder;
    double seconds, last; /* between journals; when the last one was written */
    size_t file;          /* all before it are synced */
    uint64_t announced;   /* of it */
    bool failed;
    pthread_t thread;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    bool stopping;
};

static void sync_to(struct syncer *syncer, uint64_t len)
{
    struct target *target = &syncer->folder->targets[syncer->file];
    int status = outdir_sync(syncer->folder, target, len);

    syncer->last = cli_clock();
    if (status == 0)
        return;
    syncer->failed = true; /* the kernel may have dropped what it could not write: nothing more is noted */
    queue_fail(syncer->queue, status, target->path, strerror(-status));
}

/* Ask the disk to begin, without waiting for it. */
static void announce(struct syncer *syncer, uint64_t to)
{
    const struct target *target = &syncer->folder->targets[syncer->file];

    if (to - syncer->announced < ANNOUNCE)
        return;
    sync_file_range(target->fd, (off_t)syncer->announced, (off_t)(to - syncer->announced),
                    SYNC_FILE_RANGE_WRITE);
    syncer->announced = to;
}

static bool is_open(const struct target *target)
{
    return target->mine && !target->complete;
}

/* Bring what is written by now to the disk; at the end, all of it. */
static void look(struct syncer *syncer, bool last)
{
    struct spot written = queue_written(syncer->queue);

    for (; !syncer->failed && syncer->file < written.file; syncer->file++, syncer->announced = 0) {
        struct target *target = &syncer->folder->targets[syncer->file];
        if (is_open(target))
            sync_to(syncer, target->size);
    }
    if (syncer->failed || written.file != syncer->file || written.file >= syncer->folder->n ||
        !is_open(&syncer->folder->targets[written.file]))
        return;
    announce(syncer, written.off);
    if (written.off > syncer->folder->targets[written.file].synced &&
        (last || cli_clock() - syncer->last >= syncer->seconds))
        sync_to(syncer, written.off);
}

static bool wait_to_look(struct syncer *syncer)
{
    bool stopping;

    pthread_mutex_lock(&syncer->lock);
    if (!syncer->stopping)
        timed_wait(&syncer->changed, &syncer->lock, LOOK_NS);
    stopping = syncer->stopping;
    pthread_mutex_unlock(&syncer->lock);
    return !stopping;
}

static void *run(void *arg)
{
    struct syncer *syncer = arg;

    while (wait_to_look(syncer))
        look(syncer, false);
    look(syncer, true);
    return NULL;
}

static int start_thread(struct syncer *syncer)
{
    sigset_t all, old;
    int status;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    status = pthread_create(&syncer->thread, NULL, run, syncer);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -status;
}

int syncer_start(struct queue *queue, struct outdir *folder, double seconds, struct syncer **out)
{
    struct syncer *syncer = calloc(1, sizeof(*syncer));
    int status;

    *out = NULL;
    if (!syncer)
        return -ENOMEM;
    syncer->queue = queue;
    syncer->folder = folder;
    syncer->seconds = seconds;
    syncer->last = cli_clock();
    pthread_mutex_init(&syncer->lock, NULL);
    pthread_cond_init(&syncer->changed, NULL);
    status = start_thread(syncer);
    if (status < 0) {
        pthread_cond_destroy(&syncer->changed);
        pthread_mutex_destroy(&syncer->lock);
        free(syncer);
        return status;
    }
    *out = syncer;
    return 0;
}

void syncer_stop(struct syncer *syncer)
{
    if (!syncer)
        return;
    pthread_mutex_lock(&syncer->lock);
    syncer->stopping = true;
    pthread_cond_signal(&syncer->changed);
    pthread_mutex_unlock(&syncer->lock);
    pthread_join(syncer->thread, NULL);
    pthread_cond_destroy(&syncer->changed);
    pthread_mutex_destroy(&syncer->lock);
    free(syncer);
}
