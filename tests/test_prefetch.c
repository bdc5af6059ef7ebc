#include "prefetch.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)
#define SIZE (200 * MIB + 5)

/* An engine of one file that answers what it is asked to compute from a thread, or at once, or never before
 * it is told to. */
struct meld {
    struct meld_file file;
    atomic_int owners;
    atomic_uint n_expected, n_asked;
    atomic_bool there[SIZE / MIB + 1];
    int status;
    bool at_once;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct {
        meld_done *done;
        void *arg;
        uint64_t off;
    } jobs[64];
    unsigned n_jobs, most_jobs;
    bool held, ended;
    pthread_t worker;
};

const struct meld_file *meld_file(const struct meld *meld, size_t index)
{
    assert_int_equal(index, 0);
    return &meld->file;
}

struct meld *meld_ref(struct meld *meld)
{
    assert_true(atomic_fetch_add(&meld->owners, 1) > 0);
    return meld;
}

void meld_close(struct meld *meld)
{
    atomic_fetch_sub(&meld->owners, 1);
}

bool meld_expect(struct meld *meld, size_t index, uint64_t off, size_t len)
{
    assert_int_equal(index, 0);
    assert_true(atomic_load(&meld->owners) > 0);
    assert_true(off % MELD_PIECE == 0 && off + len <= SIZE && len > 0);
    atomic_fetch_add(&meld->n_expected, 1);
    return true;
}

void meld_prefetch(struct meld *meld, size_t index, uint64_t off, size_t len, meld_done *done, void *arg)
{
    assert_int_equal(index, 0);
    assert_true(atomic_load(&meld->owners) > 0);
    assert_true(off % MELD_PIECE == 0 && off + len <= SIZE && len > 0);
    atomic_fetch_add(&meld->n_asked, 1);
    if (meld->at_once) {
        atomic_store(&meld->there[off / MIB], meld->status == 0);
        done(arg, meld->status, NULL, 0, NULL);
        return;
    }
    pthread_mutex_lock(&meld->lock);
    meld->jobs[meld->n_jobs].done = done;
    meld->jobs[meld->n_jobs].arg = arg;
    meld->jobs[meld->n_jobs++].off = off;
    if (meld->n_jobs > meld->most_jobs)
        meld->most_jobs = meld->n_jobs;
    pthread_cond_signal(&meld->changed);
    pthread_mutex_unlock(&meld->lock);
}

static void *work(void *arg)
{
    struct meld *meld = arg;

    pthread_mutex_lock(&meld->lock);
    while (!meld->ended || meld->n_jobs > 0) {
        if (meld->n_jobs == 0 || meld->held) {
            pthread_cond_wait(&meld->changed, &meld->lock);
            continue;
        }
        meld_done *done = meld->jobs[--meld->n_jobs].done;
        void *whose = meld->jobs[meld->n_jobs].arg;
        atomic_store(&meld->there[meld->jobs[meld->n_jobs].off / MIB], true);
        pthread_mutex_unlock(&meld->lock);
        done(whose, 0, NULL, 0, NULL);
        pthread_mutex_lock(&meld->lock);
    }
    pthread_mutex_unlock(&meld->lock);
    return NULL;
}

static void set(struct meld *meld, bool *flag, bool value)
{
    pthread_mutex_lock(&meld->lock);
    *flag = value;
    pthread_cond_signal(&meld->changed);
    pthread_mutex_unlock(&meld->lock);
}

static int setup(void **state)
{
    struct meld *meld = calloc(1, sizeof(*meld));

    meld->file = (struct meld_file){"model.safetensors", SIZE, true};
    atomic_store(&meld->owners, 1);
    pthread_mutex_init(&meld->lock, NULL);
    pthread_cond_init(&meld->changed, NULL);
    *state = meld;
    return pthread_create(&meld->worker, NULL, work, meld);
}

static int teardown(void **state)
{
    struct meld *meld = *state;

    set(meld, &meld->ended, true);
    pthread_join(meld->worker, NULL);
    free(meld);
    return 0;
}

static struct prefetch *make(size_t cache)
{
    struct prefetch *prefetch;
    struct err err;

    assert_int_equal(prefetch_new(cache, &prefetch, &err), 0);
    return prefetch;
}

static void end(struct prefetch *prefetch, struct meld *meld)
{
    prefetch_stop(prefetch);
    prefetch_free(prefetch);
    assert_int_equal(atomic_load(&meld->owners), 1);
}

static void read_on(struct prefetch *prefetch, struct meld *meld, uint64_t handle, uint64_t from, uint64_t to)
{
    for (uint64_t off = from; off < to; off += MIB / 8)
        prefetch_read(prefetch, meld, 0, 5, handle, off, MIB / 8);
}

static void await(const atomic_bool *flag)
{
    for (int i = 0; i < 20000 && !atomic_load(flag); i++)
        usleep(1000);
    assert_true(atomic_load(flag));
}

static void pieces_come_ahead_of_the_reader(void **state)
{
    struct meld *meld = *state;
    struct prefetch *prefetch = make(256 * MIB);

    for (uint64_t at = 0; at < 190 * MIB; at += 2 * MIB) {
        read_on(prefetch, meld, 1, at, at + 2 * MIB);
        await(&meld->there[at / MIB + 5]);
    }
    await(&meld->there[200]);
    assert_true(atomic_load(&meld->n_expected) > 5);
    end(prefetch, meld);
}

static void few_pieces_at_a_time(void **state)
{
    struct meld *meld = *state;
    struct prefetch *prefetch = make(256 * MIB);

    set(meld, &meld->held, true);
    read_on(prefetch, meld, 1, 0, 50 * MIB);
    while (atomic_load(&meld->n_asked) < 2)
        usleep(1000);
    prefetch_release(prefetch, 1);
    prefetch_stop(prefetch);
    set(meld, &meld->held, false);
    prefetch_free(prefetch);
    assert_true(meld->most_jobs <= 1 + (unsigned)sysconf(_SC_NPROCESSORS_CONF));
    assert_int_equal(atomic_load(&meld->owners), 1);
}

/* Neither a loop that asks again and again, nor the end of prefetching. */
static void missing_statistics_are_asked_for_once_a_read(void **state)
{
    struct meld *meld = *state;
    struct prefetch *prefetch = make(256 * MIB);
    unsigned n;

    meld->at_once = true;
    meld->status = -EAGAIN;
    read_on(prefetch, meld, 1, 0, 8 * MIB);
    while ((n = atomic_load(&meld->n_asked)) == 0)
        usleep(1000);
    assert_true(n <= 64);
    end(prefetch, meld);

    prefetch = make(256 * MIB);
    meld->status = 0;
    read_on(prefetch, meld, 1, 0, 8 * MIB);
    await(&meld->there[10]);
    end(prefetch, meld);
}

struct reader {
    struct prefetch *prefetch;
    struct meld *meld;
    uint64_t handle;
};

static void *read_wildly(void *arg)
{
    struct reader *reader = arg;

    for (int i = 0; i < 20; i++) {
        uint64_t from = reader->handle * 7 % 100 * MIB;
        read_on(reader->prefetch, reader->meld, reader->handle, from, from + 20 * MIB);
        prefetch_flush(reader->prefetch, reader->handle);
        read_on(reader->prefetch, reader->meld, reader->handle, from + 20 * MIB, from + 30 * MIB);
        prefetch_release(reader->prefetch, reader->handle);
        reader->handle += 8;
    }
    return NULL;
}

static void many_threads(void **state)
{
    struct meld *meld = *state;
    struct prefetch *prefetch = make(64 * MIB);
    struct reader readers[4];
    pthread_t threads[4];

    for (size_t i = 0; i < 4; i++) {
        readers[i] = (struct reader){prefetch, meld, i + 1};
        pthread_create(&threads[i], NULL, read_wildly, &readers[i]);
    }
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    end(prefetch, meld);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(pieces_come_ahead_of_the_reader),
        TEST(few_pieces_at_a_time),
        TEST(missing_statistics_are_asked_for_once_a_read),
        TEST(many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
