#include "cache.h"

#include "scratch_dir.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

/* A cache whose fills are kept for the test to finish. */
struct bench {
    struct cache *cache;
    uint64_t keys[64];
    char *slots[64];
    int n;
};

struct want {
    struct cache_waiter waiter; /* first member */
    int n_calls, status;
    const char *data;
    char said[64];
};

/* Owners have pieces of the same numbers. */
static struct cache_key key_of(uint64_t key)
{
    return (struct cache_key){key % 3, key / 3};
}

static uint64_t number_of(struct cache_key key)
{
    return 3 * key.piece + key.owner;
}

static void keep_fill(void *arg, const struct cache_waiter *waiter, char *slot)
{
    struct bench *b = arg;

    b->keys[b->n] = number_of(waiter->key);
    b->slots[b->n++] = slot;
}

static void note_ready(struct cache_waiter *waiter, int status, const char *data, const struct err *err)
{
    struct want *want = (struct want *)waiter;

    want->n_calls++;
    want->status = status;
    want->data = data;
    if (err)
        snprintf(want->said, sizeof(want->said), "%.63s", err->text);
}

static void start(struct bench *b, size_t slots)
{
    *b = (struct bench){.n = 0};
    assert_int_equal(cache_new(slots * PIECE, keep_fill, b, &b->cache, NULL), 0);
}

static void get(struct bench *b, struct want *want, uint64_t key)
{
    *want = (struct want){.waiter = {.ready = note_ready, .key = key_of(key)}};
    cache_get(b->cache, &want->waiter);
}

static void finish(struct bench *b, int i)
{
    memset(b->slots[i], (int)b->keys[i], PIECE);
    cache_filled(b->cache, b->slots[i], 0, NULL);
}

/* Bring a piece in and let go of it. */
static void load(struct bench *b, uint64_t key)
{
    struct want want;
    int n = b->n;

    get(b, &want, key);
    if (b->n > n)
        finish(b, n);
    assert_int_equal(want.n_calls, 1);
    assert_int_equal(want.data[77], (char)key);
    cache_unpin(b->cache, want.data);
}

static void test_one_fill_serves_all_who_wait(void **state)
{
    struct bench b;
    struct want a, c;
    struct cache_stats stats;

    (void)state;
    start(&b, 2);
    get(&b, &a, 5);
    get(&b, &c, 5);
    assert_int_equal(b.n, 1);
    assert_int_equal(a.n_calls + c.n_calls, 0);
    finish(&b, 0);
    assert_int_equal(a.n_calls, 1);
    assert_int_equal(c.n_calls, 1);
    assert_ptr_equal(a.data, c.data);
    cache_unpin(b.cache, a.data);
    cache_unpin(b.cache, c.data);
    cache_stats(b.cache, &stats);
    assert_int_equal(stats.misses, 1);
    assert_int_equal(stats.joined, 1);
    assert_int_equal(stats.pinned, 0);
    cache_free(b.cache);
}

static void test_the_oldest_goes(void **state)
{
    struct bench b;

    (void)state;
    start(&b, 2);
    load(&b, 1);
    load(&b, 2);
    load(&b, 1); /* a hit makes 2 the oldest */
    load(&b, 3);
    assert_int_equal(b.n, 3);
    load(&b, 1);
    assert_int_equal(b.n, 3);
    load(&b, 2);
    assert_int_equal(b.n, 4);
    cache_free(b.cache);
}

static void test_a_pinned_piece_stays_and_the_starved_get_their_turn(void **state)
{
    struct bench b;
    struct want held, starved, more;

    (void)state;
    start(&b, 1);
    get(&b, &held, 1);
    finish(&b, 0);
    get(&b, &starved, 2);
    get(&b, &more, 2);
    assert_int_equal(b.n, 1);
    assert_int_equal(held.data[0], 1);
    cache_unpin(b.cache, held.data);
    assert_int_equal(b.n, 2); /* one fill for both */
    assert_int_equal(b.keys[1], 2);
    finish(&b, 1);
    assert_int_equal(starved.n_calls, 1);
    assert_int_equal(more.n_calls, 1);
    cache_unpin(b.cache, starved.data);
    cache_unpin(b.cache, more.data);
    cache_free(b.cache);
}

static void test_spent_slots_are_taken_first(void **state)
{
    struct bench b;
    struct want want;
    struct cache_stats stats;

    (void)state;
    start(&b, 4);
    load(&b, 1);
    for (uint64_t key = 10; key < 20; key++) {
        int n = b.n;
        get(&b, &want, key);
        finish(&b, n);
        cache_unpin_spent(b.cache, want.data);
    }
    cache_stats(b.cache, &stats);
    assert_int_equal(stats.used, 2); /* ten pieces went through one slot */
    load(&b, 1);
    assert_int_equal(b.n, 11);
    load(&b, 19); /* still there until its slot is wanted, and then kept like any other */
    assert_int_equal(b.n, 11);
    load(&b, 2);
    load(&b, 3);
    load(&b, 19);
    assert_int_equal(b.n, 13);
    cache_free(b.cache);
}

static void test_memory_that_is_lent(void **state)
{
    struct bench b;
    struct cache_stats stats;

    (void)state;
    start(&b, 8);
    for (uint64_t key = 1; key <= 8; key++)
        load(&b, key);
    cache_lend(b.cache, 2 * PIECE + 1);
    cache_stats(b.cache, &stats);
    assert_int_equal(stats.used, 5);
    load(&b, 8); /* the newest are still there */
    assert_int_equal(b.n, 8);
    load(&b, 9);
    cache_stats(b.cache, &stats);
    assert_int_equal(stats.used, 5);
    cache_lend(b.cache, 100 * PIECE); /* but never all */
    cache_stats(b.cache, &stats);
    assert_int_equal(stats.used, 4);
    cache_lend(b.cache, 0);
    for (uint64_t key = 1; key <= 8; key++)
        load(&b, key);
    cache_stats(b.cache, &stats);
    assert_int_equal(stats.used, 8);
    cache_free(b.cache);
}

static void test_a_failed_fill_leaves_nothing(void **state)
{
    struct bench b;
    struct want want, starved;
    struct err err;
    struct cache_stats stats;

    (void)state;
    start(&b, 1);
    get(&b, &want, 1);
    get(&b, &starved, 2);
    cache_filled(b.cache, b.slots[0], err_set(&err, -EIO, "disk gone"), &err);
    assert_int_equal(want.status, -EIO);
    assert_null(want.data);
    assert_string_equal(want.said, "disk gone");
    assert_int_equal(b.n, 2); /* its slot went to who starved */
    finish(&b, 1);
    cache_unpin(b.cache, starved.data);
    load(&b, 1);
    assert_int_equal(b.n, 3);
    cache_stats(b.cache, &stats);
    assert_int_equal(stats.failed, 1);
    cache_free(b.cache);
}

/* ---- many threads, few slots: every byte right, nothing left pinned */

enum { THREADS = 4, ROUNDS = 3000, KEYS = 9 };

struct storm {
    struct cache *cache;
    atomic_int fills;
};

struct sync_want {
    struct cache_waiter waiter; /* first member */
    pthread_mutex_t lock;
    pthread_cond_t woken;
    bool over;
    int status;
    const char *data;
};

static void storm_fill(void *arg, const struct cache_waiter *waiter, char *slot)
{
    struct storm *storm = arg;
    int n = atomic_fetch_add(&storm->fills, 1);
    struct err err;

    memset(slot, (int)number_of(waiter->key) + 1, 4096);
    if (n % 7 == 3)
        cache_filled(storm->cache, slot, err_set(&err, -EIO, "the seventh"), &err);
    else
        cache_filled(storm->cache, slot, 0, NULL);
}

static void wake(struct cache_waiter *waiter, int status, const char *data, const struct err *err)
{
    struct sync_want *want = (struct sync_want *)waiter;

    (void)err;
    pthread_mutex_lock(&want->lock);
    want->over = true;
    want->status = status;
    want->data = data;
    pthread_cond_signal(&want->woken);
    pthread_mutex_unlock(&want->lock);
}

static void *storm_thread(void *arg)
{
    struct storm *storm = arg;
    struct sync_want want = {.waiter.ready = wake};
    unsigned seed = (unsigned)(uintptr_t)&want;
    uintptr_t wrong = 0;

    pthread_mutex_init(&want.lock, NULL);
    pthread_cond_init(&want.woken, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        want.waiter.key = key_of((uint64_t)(rand_r(&seed) % KEYS));
        want.over = false;
        cache_get(storm->cache, &want.waiter);
        pthread_mutex_lock(&want.lock);
        while (!want.over)
            pthread_cond_wait(&want.woken, &want.lock);
        pthread_mutex_unlock(&want.lock);
        if (want.status)
            continue;
        wrong += want.data[(unsigned)i % 4096] != (char)(number_of(want.waiter.key) + 1);
        cache_unpin(storm->cache, want.data);
    }
    pthread_cond_destroy(&want.woken);
    pthread_mutex_destroy(&want.lock);
    return (void *)wrong;
}

static void test_storm(void **state)
{
    struct storm storm = {.fills = 0};
    struct cache_stats stats;
    pthread_t threads[THREADS];

    (void)state;
    assert_int_equal(cache_new(3 * PIECE, storm_fill, &storm, &storm.cache, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, storm_thread, &storm), 0);
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_int_equal((uintptr_t)wrong, 0);
    }
    cache_stats(storm.cache, &stats);
    assert_int_equal(stats.pinned, 0);
    assert_true(stats.used <= stats.slots);
    assert_int_equal(stats.misses, (uint64_t)storm.fills);
    cache_free(storm.cache);
}

static void test_touches(void **state)
{
    struct bench b;
    struct cache_stats stats;

    (void)state;
    start(&b, 2);
    load(&b, 5);
    assert_true(cache_touch(b.cache, key_of(5)));
    assert_false(cache_touch(b.cache, key_of(7)));
    assert_false(cache_touch(b.cache, key_of(8)));
    assert_true(cache_touch(b.cache, key_of(7)));
    cache_stats(b.cache, &stats);
    assert_int_equal(stats.misses, 1 + 2);
    assert_int_equal(stats.used, 1);
    cache_free(b.cache);
}

static void test_too_large(void **state)
{
    struct cache *cache;
    struct err err;

    (void)state;
    assert_int_equal(cache_new((size_t)1 << 50, keep_fill, NULL, &cache, &err), -ENOMEM);
    assert_null(cache);
    assert_says(err.text, "out of memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_fill_serves_all_who_wait),
        cmocka_unit_test(test_the_oldest_goes),
        cmocka_unit_test(test_a_pinned_piece_stays_and_the_starved_get_their_turn),
        cmocka_unit_test(test_spent_slots_are_taken_first),
        cmocka_unit_test(test_memory_that_is_lent),
        cmocka_unit_test(test_a_failed_fill_leaves_nothing),
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_touches),
        cmocka_unit_test(test_too_large),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
