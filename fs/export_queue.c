#include "export_queue.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "timed_wait.h"

#define PIECE ((uint64_t)1 << 20) /* aligned in the file, as the cache's pieces are */
#define COPY (8 * PIECE)          /* so much does the kernel copy at a time: some milliseconds */
#define TICK_NS 100000000L

/* One piece under way. */
struct piece {
    struct queue *queue;
    struct spot place;
    uint64_t len;
    bool busy; /* guarded by the queue's lock, as `place` is while it is busy */
};

struct queue {
    struct meld_engine *engine;
    struct meld *meld;
    struct outdir *folder;
    queue_tick *tick;
    void *arg;
    uint64_t there; /* bytes that need not be written */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct spot next; /* to be asked for */
    uint64_t done;    /* bytes */
    unsigned in_flight;
    int status;
    struct err err; /* of the first failure */
    unsigned n_pieces;
    struct piece pieces[];
};

static unsigned window_size(void)
{
    cpu_set_t cpus;
    int n = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;

    return 2 * (unsigned)n + 2;
}

struct queue *queue_new(struct meld_engine *engine, struct meld *meld, struct outdir *folder)
{
    unsigned n = window_size();
    struct queue *queue = calloc(1, sizeof(*queue) + n * sizeof(queue->pieces[0]));

    if (!queue)
        return NULL;
    queue->engine = engine;
    queue->meld = meld;
    queue->folder = folder;
    queue->there = outdir_done(folder);
    queue->n_pieces = n;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->changed, NULL);
    return queue;
}

void queue_free(struct queue *queue)
{
    if (!queue)
        return;
    pthread_mutex_destroy(&queue->lock);
    pthread_cond_destroy(&queue->changed);
    free(queue);
}

int queue_fail(struct queue *queue, int status, const char *path, const char *why)
{
    pthread_mutex_lock(&queue->lock);
    if (queue->status == 0) {
        queue->status = status;
        err_set(&queue->err, status, "%s%s%s: %s", queue->folder->dir, path ? "/" : "", path ? path : "",
                why);
    }
    pthread_mutex_unlock(&queue->lock);
    return status;
}

int queue_status(struct queue *queue, struct err *err)
{
    int status;

    pthread_mutex_lock(&queue->lock);
    status = queue->status;
    if (status < 0 && err)
        *err = queue->err;
    pthread_mutex_unlock(&queue->lock);
    return status;
}

static bool before(struct spot a, struct spot b)
{
    return a.file != b.file ? a.file < b.file : a.off < b.off;
}

struct spot queue_written(struct queue *queue)
{
    struct spot place;

    pthread_mutex_lock(&queue->lock);
    place = queue->next;
    for (unsigned i = 0; i < queue->n_pieces; i++) {
        if (queue->pieces[i].busy && before(queue->pieces[i].place, place))
            place = queue->pieces[i].place;
    }
    pthread_mutex_unlock(&queue->lock);
    return place;
}

/* ---- a piece ---- */

static int write_all(int fd, const struct iovec *iov, int n_iov, uint64_t off, uint64_t *len)
{
    *len = 0;
    for (int i = 0; i < n_iov; i++) {
        const char *at = iov[i].iov_base;
        size_t left = iov[i].iov_len;

        while (left > 0) {
            ssize_t n = pwrite(fd, at, left, (off_t)(off + *len));

            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0)
                return n < 0 ? -errno : -EIO;
            at += n;
            left -= (size_t)n;
            *len += (uint64_t)n;
        }
    }
    return 0;
}

static int write_piece(struct piece *piece, const struct iovec *iov, int n_iov)
{
    const struct target *target = &piece->queue->folder->targets[piece->place.file];
    uint64_t len;
    int status = write_all(target->fd, iov, n_iov, piece->place.off, &len);

    if (status < 0)
        return queue_fail(piece->queue, status, target->path, strerror(-status));
    if (len != piece->len)
        return queue_fail(piece->queue, -EIO, target->path, "fewer bytes than it should have");
    return 0;
}

/* What failed stays busy, so that nothing behind it counts as written. */
static void piece_done(void *arg, int status, const struct iovec *iov, int n_iov, const struct err *err)
{
    struct piece *piece = arg;
    struct queue *queue = piece->queue;

    if (status == 0)
        status = write_piece(piece, iov, n_iov);
    else
        queue_fail(queue, status, queue->folder->targets[piece->place.file].path,
                   err && err->text[0] ? err->text : strerror(-status));
    pthread_mutex_lock(&queue->lock);
    if (status == 0) {
        piece->busy = false;
        queue->done += piece->len;
    }
    queue->in_flight--;
    pthread_cond_signal(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
}

/* ---- the loop ---- */

/* With the lock held: wait for a change, or a tick. */
static void wait_tick(struct queue *queue)
{
    timed_wait(&queue->changed, &queue->lock, TICK_NS);
}

/* Until at most `limit` are in flight. 0, or the status of what failed meanwhile. */
static int wait_for_room(struct queue *queue, unsigned limit)
{
    bool room;
    uint64_t done;
    int status;

    do {
        pthread_mutex_lock(&queue->lock);
        if (queue->in_flight > limit)
            wait_tick(queue);
        room = queue->in_flight <= limit;
        done = queue->there + queue->done;
        status = queue->status;
        pthread_mutex_unlock(&queue->lock);
        if (!queue->tick(queue->arg, done) && status == 0)
            status = queue_fail(queue, -EINTR, NULL, "interrupted");
    } while (status == 0 && !room);
    return status;
}

static void advance(struct queue *queue, struct spot next, uint64_t copied)
{
    pthread_mutex_lock(&queue->lock);
    queue->next = next;
    queue->done += copied;
    pthread_mutex_unlock(&queue->lock);
}

static void submit(struct queue *queue, struct spot at, uint64_t len)
{
    struct piece *piece = queue->pieces;

    pthread_mutex_lock(&queue->lock);
    while (piece->busy) /* there is one that is not */
        piece++;
    *piece = (struct piece){queue, at, len, true};
    queue->next.off = at.off + len;
    queue->in_flight++;
    pthread_mutex_unlock(&queue->lock);
    meld_submit(queue->meld, at.file, at.off, (size_t)len, piece_done, piece);
}

/* What the kernel can copy is copied by this thread, while workers have pieces to compute. */
static int ask(struct queue *queue, struct spot at)
{
    const struct target *target = &queue->folder->targets[at.file];
    uint64_t left = target->size - at.off, to_border = PIECE - at.off % PIECE;
    struct err err;
    ssize_t n = meld_copy(queue->meld, at.file, at.off, left < COPY ? (size_t)left : COPY, target->fd, &err);

    if (n < 0)
        return queue_fail(queue, (int)n, target->path, err.text);
    if (n > 0)
        advance(queue, (struct spot){at.file, at.off + (uint64_t)n}, (uint64_t)n);
    else
        submit(queue, at, left < to_border ? left : to_border);
    return 0;
}

static int write_file(struct queue *queue, size_t file)
{
    const struct target *target = &queue->folder->targets[file];
    int status = 0;

    if (!target->mine || target->complete)
        return 0;
    advance(queue, (struct spot){file, target->synced}, 0);
    while (status == 0 && queue->next.off < target->size) {
        status = wait_for_room(queue, queue->n_pieces - 1);
        if (status == 0)
            status = ask(queue, queue->next);
    }
    return status;
}

/* What is in flight writes into the targets, so it is awaited after a failure too. */
static void drain(struct queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    while (queue->in_flight > 0)
        pthread_cond_wait(&queue->changed, &queue->lock);
    pthread_mutex_unlock(&queue->lock);
}

int queue_run(struct queue *queue, queue_tick *tick, void *arg)
{
    int status = 0;

    queue->tick = tick;
    queue->arg = arg;
    for (size_t i = 0; i < queue->folder->n && status == 0; i++)
        status = write_file(queue, i);
    if (status == 0)
        status = wait_for_room(queue, 0);
    if (status < 0)
        meld_engine_stop(queue->engine);
    else
        advance(queue, (struct spot){queue->folder->n, 0}, 0);
    drain(queue);
    return queue_status(queue, NULL);
}
