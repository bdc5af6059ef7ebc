/* The files of an export, asked for and written: so many pieces at a time that every worker has one, in the
 * order of the files, each written by the worker that has computed it, while the processor's own cache still
 * holds it.
 *
 * (A file is written by one thread at a time, whatever it is that holds the others up: a lock of ours around
 * the write, or one more worker, was no faster.)
 */
#ifndef EXPORT_QUEUE_H
#define EXPORT_QUEUE_H

#include "export_outdir.h"

struct queue;

/* A place in the bytes to be written: files in order, and within each. */
struct spot {
    size_t file;
    uint64_t off;
};

/* engine: that of the model, started by then. All are borrowed. NULL: no memory. */
struct queue *queue_new(struct meld_engine *engine, struct meld *meld, struct outdir *folder);
void queue_free(struct queue *queue); /* nothing may be under way; NULL is fine */

/* Write every target that is not complete, from its `synced` on. tick(arg, done) is called at least ten times
 * a second by this thread: bytes that are written, or were there; false: stop. Returns when nothing is under
 * way. 0 or -errno as queue_status. */
typedef bool queue_tick(void *arg, uint64_t done);
int queue_run(struct queue *queue, queue_tick *tick, void *arg);

/* Up to here everything is written. Any thread. */
struct spot queue_written(struct queue *queue);

/* Of several failures the first is told. path: of a file, or NULL for the whole. Returns status. Any thread.
 */
int queue_fail(struct queue *queue, int status, const char *path, const char *why);
int queue_status(struct queue *queue,
                 struct err *err); /* 0, or the first failure and why (err may be NULL) */

#endif
