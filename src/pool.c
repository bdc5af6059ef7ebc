#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "compute.h"

struct worker {
    struct pool *pool;
    pthread_t thread;
    struct scratch *scratch;
};

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct task *head, **tail; /* lock */
    unsigned n_busy;           /* lock: tasks being run, which may submit more */
    bool stopping;             /* lock */
    unsigned n_workers;
    struct worker workers[];
};

/* The next task with the pool's lock held; NULL once nothing is left and nothing can come. */
static struct task *next_task(struct pool *pool)
{
    struct task *task;

    while (!pool->head && !(pool->stopping && pool->n_busy == 0))
        pthread_cond_wait(&pool->wake, &pool->lock);
    task = pool->head;
    if (!task)
        return NULL;
    pool->head = task->next;
    if (!pool->head)
        pool->tail = &pool->head;
    pool->n_busy++;
    return task;
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    struct pool *pool = worker->pool;
    struct task *task;

    pthread_mutex_lock(&pool->lock);
    while ((task = next_task(pool))) {
        pthread_mutex_unlock(&pool->lock);
        task->run(task, worker->scratch);
        pthread_mutex_lock(&pool->lock);
        pool->n_busy--;
        if (pool->stopping && pool->n_busy == 0)
            pthread_cond_broadcast(&pool->wake);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static int start(struct pool *pool, const struct kernels *kernels, struct err *err)
{
    struct worker *worker = &pool->workers[pool->n_workers];
    sigset_t all, old;
    int status;

    worker->pool = pool;
    worker->scratch = scratch_new(kernels);
    if (!worker->scratch)
        return err_set(err, -ENOMEM, "out of memory for a worker's buffers");
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    status = pthread_create(&worker->thread, NULL, work, worker);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (status) {
        scratch_free(worker->scratch);
        return err_set(err, -status, "cannot start a worker thread: %s", strerror(status));
    }
    pool->n_workers++;
    return 0;
}

int pool_new(unsigned n_threads, const struct kernels *kernels, struct pool **out, struct err *err)
{
    struct pool *pool = calloc(1, sizeof(*pool) + n_threads * sizeof(pool->workers[0]));
    int status = 0;

    *out = NULL;
    if (!pool)
        return err_set(err, -ENOMEM, "out of memory for %u workers", n_threads);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pool->tail = &pool->head;
    for (unsigned i = 0; i < n_threads && status == 0; i++)
        status = start(pool, kernels, err);
    if (status) {
        pool_free(pool);
        return status;
    }
    *out = pool;
    return 0;
}

void pool_submit(struct pool *pool, struct task *task)
{
    task->next = NULL;
    pthread_mutex_lock(&pool->lock);
    *pool->tail = task;
    pool->tail = &task->next;
    pthread_cond_signal(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

void pool_free(struct pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->n_workers; i++) {
        pthread_join(pool->workers[i].thread, NULL);
        scratch_free(pool->workers[i].scratch);
    }
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
