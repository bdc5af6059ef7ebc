/* Worker threads that run short tasks, first come first served. Workers never wait for a task. */
#ifndef POOL_H
#define POOL_H

#include "err.h"

struct scratch;
struct kernels;

struct task {
    void (*run)(struct task *task, struct scratch *scratch);
    struct task *next; /* the pool's while queued */
};

struct pool;

/* Start n_threads (at least 1) workers, each with a scratch of its own. All signals are blocked in them. */
int pool_new(unsigned n_threads, const struct kernels *kernels, struct pool **out, struct err *err);
/* Queue a task; it belongs to the pool until run is called. Callable from workers. */
void pool_submit(struct pool *pool, struct task *task);
/* Run what is queued, stop and join. NULL is fine. */
void pool_free(struct pool *pool);

#endif
