#include "pool.h"

#include "scratch_dir.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "kernel.h"

struct counted {
    struct task task; /* first member */
    struct pool *pool;
    atomic_int *runs;
    struct counted *then; /* submitted by the task itself */
};

static void run_counted(struct task *task, struct scratch *scratch)
{
    struct counted *c = (struct counted *)task;

    assert_non_null(scratch);
    atomic_fetch_add(c->runs, 1);
    if (c->then)
        pool_submit(c->pool, &c->then->task);
}

static void test_everything_runs_once(void **state)
{
    static struct counted tasks[5000], chained[5000];
    atomic_int runs = 0;
    struct pool *pool;

    (void)state;
    assert_int_equal(pool_new(3, kernels_best(), &pool, NULL), 0);
    for (int i = 0; i < 5000; i++) {
        chained[i] = (struct counted){{.run = run_counted}, pool, &runs, NULL};
        tasks[i] = (struct counted){{.run = run_counted}, pool, &runs, &chained[i]};
        pool_submit(pool, &tasks[i].task);
    }
    pool_free(pool); /* runs what is queued, and what that queues */
    assert_int_equal(runs, 10000);
}

static int threads_left;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
    return threads_left-- > 0 ? __real_pthread_create(thread, attr, start, arg) : EAGAIN;
}

static void test_a_thread_refused(void **state)
{
    struct pool *pool;
    struct err err;

    (void)state;
    threads_left = 2;
    assert_int_equal(pool_new(4, kernels_best(), &pool, &err), -EAGAIN);
    assert_null(pool);
    assert_says(err.text, "cannot start a worker thread");
    threads_left = 1000;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_thread_refused),
        cmocka_unit_test(test_everything_runs_once),
    };

    threads_left = 1000;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
