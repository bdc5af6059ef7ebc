/* The engine of passes, with methods made for it: what is computed, how often, who is told, what fails. */
#include "stats.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "fail_alloc.h"
#include "memory_feed.h"
#include "scratch_dir.h"

enum { N = 700 * 1000 + 123, ROW = 777, MAX_TENSORS = 40 };

/* ---- someone who waits */

struct waiter {
    struct stats_waiter waiter; /* first member */
    pthread_mutex_t lock;
    pthread_cond_t told;
    int calls, status;
    struct err err;
};

static void told(struct stats_waiter *waiter, int status, const struct err *err)
{
    struct waiter *self = (struct waiter *)waiter;

    pthread_mutex_lock(&self->lock);
    self->calls++;
    self->status = status;
    self->err = status ? *err : (struct err){""};
    pthread_cond_signal(&self->told);
    pthread_mutex_unlock(&self->lock);
}

static void waiter_init(struct waiter *waiter)
{
    memset(waiter, 0, sizeof(*waiter));
    waiter->waiter.ready = told;
    pthread_mutex_init(&waiter->lock, NULL);
    pthread_cond_init(&waiter->told, NULL);
}

static int await(struct waiter *waiter)
{
    pthread_mutex_lock(&waiter->lock);
    while (waiter->calls == 0)
        pthread_cond_wait(&waiter->told, &waiter->lock);
    pthread_mutex_unlock(&waiter->lock);
    return waiter->status;
}

struct engine {
    struct pool *pool;
    struct stats *stats;
};

static struct engine engine_new(unsigned n_threads)
{
    struct engine engine;

    assert_int_equal(pool_new(n_threads, kernels_best(), &engine.pool, NULL), 0);
    engine.stats = stats_new(engine.pool, n_threads, 0, NULL);
    assert_non_null(engine.stats);
    return engine;
}

static void engine_free(struct engine *engine)
{
    pool_free(engine->pool);
    stats_free(engine->stats);
}

/* Ask until it is there, as serve.c does. 0, or why not. */
static int get(struct engine *engine, const struct recipe *recipe, struct err *err)
{
    for (;;) {
        struct waiter waiter;
        waiter_init(&waiter);
        if (stats_get(engine->stats, recipe, NULL, &waiter.waiter))
            return 0;
        int status = await(&waiter);
        if (status) {
            *err = waiter.err;
            return status;
        }
    }
}

static void must_get(struct engine *engine, const struct recipe *recipe)
{
    struct err err;
    int status = get(engine, recipe, &err);

    if (status)
        fail_msg("%d: %s", status, err.text);
}

/* ---- methods: the sum of all inputs, then of squares of their distance from the mean, then of the elements
 * from a third of the tensor on */

struct moments {
    double sum, squares, rest;
    unsigned n_blocks, n_finished;
};

static size_t moments_size(const struct merge *merge)
{
    (void)merge;
    return sizeof(struct moments);
}

static size_t double_size(const struct merge *merge)
{
    (void)merge;
    return sizeof(double);
}

/* Workers cannot fail a test: they remember what was wrong first. */
static char wrong[256];
static pthread_mutex_t wrong_lock = PTHREAD_MUTEX_INITIALIZER;

static void remember(const char *what, uint64_t a, uint64_t b)
{
    pthread_mutex_lock(&wrong_lock);
    if (wrong[0] == '\0')
        snprintf(wrong, sizeof(wrong), "%s: %llu, %llu", what, (unsigned long long)a, (unsigned long long)b);
    pthread_mutex_unlock(&wrong_lock);
}

static int nothing_wrong(void **state)
{
    (void)state;
    if (wrong[0])
        print_error("%s\n", wrong);
    return wrong[0] ? -1 : 0;
}

static void check_rows(const struct merge *merge, const struct tile *tile)
{
    uint64_t row = merge->method->row_length ? merge->method->row_length(merge) : 1;

    if (tile->first % row != 0 || tile->n % row != 0 || tile->n == 0)
        remember("first and length of a tile that is no whole rows", tile->first, tile->n);
}

static void add_sum(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                    void *acc)
{
    double *sum = acc;

    (void)kernels;
    check_rows(merge, tile);
    for (unsigned k = 0; k < merge->n_inputs; k++)
        for (size_t i = 0; i < tile->n; i++)
            *sum += (double)tile->in[k][i];
}

static void add_squares(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                        void *acc)
{
    const struct moments *moments = tile->stats;
    double *sum = acc, mean = moments->sum / (double)merge->n;

    (void)kernels;
    for (size_t i = 0; i < tile->n; i++)
        *sum += ((double)tile->in[0][i] - mean) * ((double)tile->in[0][i] - mean);
}

static double fold(struct moments *moments, const struct blocks *blocks)
{
    double sum = 0;

    if (blocks->n > 0 && blocks->first + (blocks->n - 1) * blocks->size >= blocks->end)
        remember("blocks and end", blocks->n, blocks->end);
    for (size_t i = 0; i < blocks->n; i++)
        sum += *(const double *)(const void *)(blocks->accs + i * blocks->acc_size);
    moments->n_blocks += (unsigned)blocks->n;
    moments->n_finished++;
    return sum;
}

static void finish_sum(const struct merge *merge, void *state, const struct blocks *blocks)
{
    (void)merge;
    ((struct moments *)state)->sum = fold(state, blocks);
}

static void finish_squares(const struct merge *merge, void *state, const struct blocks *blocks)
{
    (void)merge;
    ((struct moments *)state)->squares = fold(state, blocks);
}

static void finish_rest(const struct merge *merge, void *state, const struct blocks *blocks)
{
    (void)merge;
    ((struct moments *)state)->rest = fold(state, blocks);
}

static uint64_t rest_first(const struct merge *merge)
{
    return merge->n / 3 / ROW * ROW;
}

static void rest_range(const struct merge *merge, const void *state, uint64_t *first, uint64_t *n)
{
    const struct moments *moments = state;

    if (moments->n_finished != 2)
        remember("passes before the third", moments->n_finished, 2);
    *first = rest_first(merge);
    *n = merge->n - *first;
}

static const struct pass *next_moment(const struct merge *merge, const void *state, unsigned n_done)
{
    static const struct pass passes[] = {
        {double_size, add_sum, finish_sum, NULL},
        {double_size, add_squares, finish_squares, NULL},
        {double_size, add_sum, finish_rest, rest_range},
    };

    (void)merge;
    if (((const struct moments *)state)->n_finished != n_done)
        remember("passes finished, counted", ((const struct moments *)state)->n_finished, n_done);
    return n_done < 3 ? &passes[n_done] : NULL;
}

/* out = input 0 / the sum of all */
static void run_moments(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    const struct moments *moments = tile->stats;

    (void)merge;
    (void)kernels;
    for (size_t i = 0; i < tile->n; i++)
        tile->out[i] = (float)((double)tile->in[0][i] / moments->sum);
}

static void run_first(const struct merge *merge, const struct kernels *kernels, const struct tile *tile)
{
    (void)merge;
    (void)kernels;
    memcpy(tile->out, tile->in[0], tile->n * sizeof(*tile->out));
}

static uint64_t row_length(const struct merge *merge)
{
    (void)merge;
    return ROW;
}

static int check_sum(const struct merge *merge, const void *state, struct err *err)
{
    (void)merge;
    return ((const struct moments *)state)->sum > 0 ? 0 : err_set(err, -EIO, "the sum is not above 0");
}

static const struct method_stats moments_stats = {moments_size, next_moment, NULL},
                                 checked_stats = {moments_size, next_moment, check_sum};
static const struct method moments_method = {.name = "moments", .stats = &moments_stats, .run = run_moments},
                           rows_method = {.name = "rows",
                                          .stats = &moments_stats,
                                          .run = run_moments,
                                          .row_length = row_length},
                           checked_method = {.name = "checked", .stats = &checked_stats, .run = run_moments},
                           plain_method = {.name = "plain", .run = run_first};

struct tensor {
    struct recipe recipe;
    struct stat_slot slot;
    struct memory_feed feeds[2];
    const struct feed *inputs[2];
    float *data;
    char name[16];
};

static struct tensor *tensor_new(const struct method *method, uint64_t n, unsigned seed)
{
    struct tensor *tensor = calloc(1, sizeof(*tensor));

    assert_non_null(tensor);
    tensor->data = malloc((n + 1) * sizeof(*tensor->data));
    assert_non_null(tensor->data);
    for (uint64_t i = 0; i < n; i++)
        tensor->data[i] = (float)((seed = seed * 1664525 + 1013904223) >> 8) * 0x1p-24f;
    snprintf(tensor->name, sizeof(tensor->name), "tensor %u", seed % 1000);
    for (unsigned i = 0; i < 2; i++) {
        tensor->feeds[i] = memory_feed(DTYPE_F32, n, tensor->data);
        tensor->inputs[i] = &tensor->feeds[i].feed;
    }
    tensor->recipe = (struct recipe){RECIPE_MERGE, DTYPE_F32, .n_inputs = 2, .inputs = tensor->inputs};
    tensor->recipe.merge = (struct merge){
        .method = method, .work = DTYPE_F32, .result = DTYPE_F32, .n_inputs = 2, .base = -1, .n = n};
    tensor->recipe.merge.name = tensor->name;
    tensor->recipe.slot = method->stats ? &tensor->slot : NULL;
    return tensor;
}

static void tensor_free(struct tensor *tensor)
{
    free(tensor->data);
    free(tensor);
}

static const struct moments *state_of(const struct tensor *tensor)
{
    return atomic_load(&tensor->slot.state);
}

static void assert_near(double got, double want)
{
    if (!(got >= want * (1 - 1e-9) && got <= want * (1 + 1e-9)))
        fail_msg("%.17g instead of %.17g", got, want);
}

static void check_moments(const struct tensor *tensor)
{
    const struct merge *merge = &tensor->recipe.merge;
    double sum = 0, rest = 0, squares = 0;

    for (uint64_t i = 0; i < merge->n; i++)
        sum += 2 * (double)tensor->data[i];
    for (uint64_t i = rest_first(merge); i < merge->n; i++)
        rest += 2 * (double)tensor->data[i];
    for (uint64_t i = 0; i < merge->n; i++) {
        double distance = (double)tensor->data[i] - sum / (double)merge->n;
        squares += distance * distance;
    }
    assert_near(state_of(tensor)->sum, sum);
    assert_near(state_of(tensor)->squares, squares);
    assert_near(state_of(tensor)->rest, rest);
}

/* ---- tests */

static void check_any_threads(const struct method *method, uint64_t n)
{
    static const unsigned threads[] = {1, 2, 3, 7};
    struct moments first;

    for (size_t i = 0; i < sizeof(threads) / sizeof(threads[0]); i++) {
        struct engine engine = engine_new(threads[i]);
        struct tensor *tensor = tensor_new(method, n, 5);
        must_get(&engine, &tensor->recipe);
        check_moments(tensor);
        if (i == 0)
            first = *state_of(tensor);
        assert_memory_equal(&first, state_of(tensor), sizeof(first));
        engine_free(&engine);
        tensor_free(tensor);
    }
    assert_true(n < 200 * 1000 || first.n_blocks > 3);
}

static void test_any_threads(void **state)
{
    (void)state;
    check_any_threads(&moments_method, N);
    check_any_threads(&moments_method, 5);
    check_any_threads(&rows_method, 900 * ROW);
    check_any_threads(&rows_method, ROW);
}

/* However many ask, it is computed once and each is told once. */
static void test_single_flight(void **state)
{
    struct engine engine = engine_new(3);
    struct tensor *tensor = tensor_new(&moments_method, N, 1);
    struct waiter waiters[50];
    struct stats_counters counters;
    uint64_t elements = 2 * (uint64_t)N + N - rest_first(&tensor->recipe.merge);
    int asked = 0;

    (void)state;
    for (int i = 0; i < 50; i++) {
        waiter_init(&waiters[i]);
        if (stats_get(engine.stats, &tensor->recipe, NULL, i % 10 == 9 ? NULL : &waiters[i].waiter))
            break;
        asked++;
    }
    for (int i = 0; i < asked; i++)
        assert_int_equal(i % 10 == 9 ? 0 : await(&waiters[i]), 0);
    assert_true(stats_get(engine.stats, &tensor->recipe, NULL, NULL));
    stats_counters(engine.stats, &counters);
    assert_int_equal(counters.tensors, 1);
    assert_int_equal(counters.bytes_read, elements * 2 * sizeof(float));
    assert_in_range(counters.kept_bytes, sizeof(struct moments), sizeof(struct moments) + 128);
    engine_free(&engine);
    for (int i = 0; i < asked; i++)
        assert_int_equal(waiters[i].calls, i % 10 != 9);
    tensor_free(tensor);
}

static void add_one(const struct merge *merge, void *state)
{
    struct moments *moments = state;

    (void)merge;
    moments->sum += 1;
}

/* A slot's own copy of a state counts as memory, as long as it is there. */
static void test_own_copies_are_counted(void **state)
{
    static const struct method_stats stats = {moments_size, next_moment, NULL, add_one};
    static const struct method method = {.name = "moments", .stats = &stats, .run = run_moments};
    struct engine engine = engine_new(2);
    struct tensor *tensor = tensor_new(&method, N, 1);
    struct stats_counters counters;
    size_t shared;

    (void)state;
    must_get(&engine, &tensor->recipe);
    stats_counters(engine.stats, &counters);
    assert_in_range(counters.kept_bytes, 2 * sizeof(struct moments), 2 * sizeof(struct moments) + 128);
    shared = (size_t)counters.kept_bytes - sizeof(struct moments);
    tensor->recipe.slot = calloc(1, sizeof(tensor->slot)); /* of a variant */
    must_get(&engine, &tensor->recipe);
    assert_int_equal(stats_held(engine.stats), shared + 2 * sizeof(struct moments));
    pool_free(engine.pool); /* and with it the run, which holds the state, too */
    engine.pool = NULL;
    stats_release(engine.stats, tensor->recipe.slot);
    assert_int_equal(stats_held(engine.stats), shared + sizeof(struct moments));
    stats_release(engine.stats, &tensor->slot); /* nothing is spare here */
    assert_int_equal(stats_held(engine.stats), 0);
    free(tensor->recipe.slot);
    engine_free(&engine);
    tensor_free(tensor);
}

static void test_many_tensors(void **state)
{
    struct engine engine = engine_new(3);
    struct tensor *tensors[MAX_TENSORS];
    struct waiter waiters[MAX_TENSORS];

    (void)state;
    for (unsigned i = 0; i < MAX_TENSORS; i++) {
        tensors[i] = tensor_new(&moments_method, 1000 * i, i);
        waiter_init(&waiters[i]);
        assert_false(stats_get(engine.stats, &tensors[i]->recipe, NULL, &waiters[i].waiter));
    }
    for (unsigned i = 0; i < MAX_TENSORS; i++) {
        assert_int_equal(await(&waiters[i]), 0);
        if (i > 0)
            check_moments(tensors[i]);
    }
    engine_free(&engine); /* the last run's end is behind us now */
    for (unsigned i = 0; i < MAX_TENSORS; i++)
        tensor_free(tensors[i]);
}

/* All passes are over at once, each with no blocks. */
static void test_empty(void **state)
{
    struct engine engine = engine_new(2);
    struct tensor *tensor = tensor_new(&moments_method, 0, 1);

    (void)state;
    must_get(&engine, &tensor->recipe);
    assert_int_equal(state_of(tensor)->n_finished, 3);
    assert_int_equal(state_of(tensor)->n_blocks, 0);
    engine_free(&engine);
    tensor_free(tensor);
}

/* A failing read fails those who wait, by name; then the slot may be asked again. */
static void test_failing_read(void **state)
{
    struct engine engine = engine_new(3);
    struct tensor *tensor = tensor_new(&moments_method, N, 1);
    struct waiter waiters[5];
    struct stats_counters counters;

    (void)state;
    for (int round = 0; round < 3; round++) {
        int asked = 0;
        tensor->feeds[1].fails_at = N - 1 - (uint64_t)round * N / 3;
        for (; asked < 5; asked++) {
            waiter_init(&waiters[asked]);
            assert_false(stats_get(engine.stats, &tensor->recipe, NULL, &waiters[asked].waiter));
        }
        for (int i = 0; i < asked; i++) {
            assert_int_equal(await(&waiters[i]), -EIO);
            assert_int_equal(waiters[i].calls, 1);
            assert_says(waiters[i].err.text, tensor->name);
            assert_says(waiters[i].err.text, "memory: cannot read");
        }
        assert_null(state_of(tensor));
    }
    tensor->feeds[1].fails_at = UINT64_MAX;
    must_get(&engine, &tensor->recipe);
    check_moments(tensor);
    stats_counters(engine.stats, &counters);
    assert_int_equal(counters.tensors, 1);
    engine_free(&engine);
    tensor_free(tensor);
}

static void test_state_refused(void **state)
{
    struct engine engine = engine_new(2);
    struct tensor *tensor = tensor_new(&checked_method, 2000, 1);
    struct err err;

    (void)state;
    for (int i = 0; i < 2000; i++)
        tensor->data[i] = -tensor->data[i];
    assert_int_equal(get(&engine, &tensor->recipe, &err), -EIO);
    assert_says(err.text, tensor->name);
    assert_says(err.text, "the sum is not above 0");
    assert_null(state_of(tensor));
    for (int i = 0; i < 2000; i++)
        tensor->data[i] = -tensor->data[i];
    must_get(&engine, &tensor->recipe);
    engine_free(&engine);
    tensor_free(tensor);
}

/* Zeros without end, as far as a test is concerned. */
static int read_zeros(const struct feed *feed, uint64_t first, size_t n, void *out, struct scratch *scratch,
                      struct err *err)
{
    (void)feed;
    (void)first;
    (void)scratch;
    (void)err;
    memset(out, 0, n * sizeof(float));
    return 0;
}

enum { STOP_BYTES = 8 << 20 }; /* that a thread reads at most after it was told: far below 200 ms */

static void test_stop(void **state)
{
    struct engine engine = engine_new(3);
    struct tensor *tensors[8];
    struct waiter waiters[8];
    struct stats_counters before, after;

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        tensors[i] = tensor_new(&moments_method, 1, i);
        tensors[i]->recipe.merge.n = (uint64_t)1 << 40;
        for (unsigned k = 0; k < 2; k++)
            tensors[i]->feeds[k].feed = (struct feed){DTYPE_F32, (uint64_t)1 << 40, read_zeros,
                                                      .identify = tensors[i]->feeds[k].feed.identify};
        waiter_init(&waiters[i]);
        assert_false(stats_get(engine.stats, &tensors[i]->recipe, NULL, &waiters[i].waiter));
    }
    do {
        sched_yield();
        stats_counters(engine.stats, &before);
    } while (before.bytes_read == 0);
    stats_stop(engine.stats);
    stats_counters(engine.stats, &before);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(await(&waiters[i]), -ECANCELED);
        assert_says(waiters[i].err.text, "stopped");
    }
    stats_counters(engine.stats, &after);
    assert_in_range(after.bytes_read - before.bytes_read, 0, 3 * STOP_BYTES);
    engine_free(&engine);
    for (unsigned i = 0; i < 8; i++)
        tensor_free(tensors[i]);
}

/* Input 0 of `outer` is what `inner` makes. */
static void join(struct tensor *outer, struct recipe_feed *feed, const struct tensor *inner)
{
    recipe_feed_init(feed, &inner->recipe);
    outer->inputs[0] = &feed->feed;
}

static double moment_of(const struct tensor *tensor)
{
    return state_of(tensor)->sum;
}

/* Statistics of a tensor whose inputs are stages that need some themselves, or whose inputs do. */
static void test_stages(void **state)
{
    struct engine engine = engine_new(3);
    struct tensor *inner = tensor_new(&moments_method, ROW, 1), *middle = tensor_new(&rows_method, ROW, 2),
                  *plain = tensor_new(&plain_method, ROW, 3), *outer = tensor_new(&moments_method, ROW, 4);
    struct recipe_feed feeds[4];
    double in_middle = 0, in_outer = 0;

    (void)state;
    join(middle, &feeds[0], inner);
    join(plain, &feeds[1], middle);
    join(outer, &feeds[2], plain);
    recipe_feed_init(&feeds[3], &inner->recipe);
    outer->inputs[1] = &feeds[3].feed;
    must_get(&engine, &outer->recipe);
    assert_true(stats_get(engine.stats, &plain->recipe, NULL, NULL));
    for (int i = 0; i < ROW; i++) {
        float of_inner = (float)((double)inner->data[i] / moment_of(inner));
        in_middle += (double)of_inner + (double)middle->data[i];
        in_outer += (double)(float)((double)of_inner / moment_of(middle)) + (double)of_inner;
    }
    assert_near(moment_of(middle), in_middle);
    assert_near(moment_of(outer), in_outer);
    engine_free(&engine);
    tensor_free(inner);
    tensor_free(middle);
    tensor_free(plain);
    tensor_free(outer);
}

static void test_failing_stage(void **state)
{
    struct engine engine = engine_new(2);
    struct tensor *inner = tensor_new(&moments_method, ROW, 1), *plain = tensor_new(&plain_method, ROW, 2),
                  *outer = tensor_new(&moments_method, ROW, 3);
    struct recipe_feed feeds[2];
    struct err err;

    (void)state;
    join(plain, &feeds[0], inner);
    join(outer, &feeds[1], plain);
    inner->feeds[0].fails_at = 17;
    assert_int_equal(get(&engine, &outer->recipe, &err), -EIO);
    assert_says(err.text, inner->name);
    assert_null(state_of(outer));
    assert_int_equal(get(&engine, &plain->recipe, &err), -EIO);
    inner->feeds[0].fails_at = UINT64_MAX;
    must_get(&engine, &outer->recipe);
    engine_free(&engine);
    tensor_free(inner);
    tensor_free(plain);
    tensor_free(outer);
}

/* ---- a pass with a number for each row */

static void add_rows(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                     void *acc)
{
    double *sums = acc;

    (void)kernels;
    check_rows(merge, tile);
    for (size_t i = 0; i < tile->n; i++)
        sums[i / ROW] += (double)tile->in[0][i];
}

static void finish_rows(const struct merge *merge, void *state, const struct blocks *blocks)
{
    memcpy(state, blocks->accs, (size_t)(merge->n / ROW) * sizeof(double));
}

static const struct pass *next_rows(const struct merge *merge, const void *state, unsigned n_done)
{
    static const struct pass pass = {.add = add_rows, .finish = finish_rows, .row_bytes = sizeof(double)};

    (void)merge;
    (void)state;
    return n_done == 0 ? &pass : NULL;
}

static size_t rows_size(const struct merge *merge)
{
    return (size_t)(merge->n / ROW) * sizeof(double);
}

static void test_row_numbers(void **state)
{
    static const struct method_stats stats = {rows_size, next_rows, NULL};
    static const struct method method = {
        .name = "rows", .stats = &stats, .run = run_first, .row_length = row_length};
    enum { ROWS = 1000 };
    struct engine engine = engine_new(3);
    struct tensor *tensor = tensor_new(&method, ROWS * ROW, 1);
    const double *sums;

    (void)state;
    must_get(&engine, &tensor->recipe);
    sums = (const void *)state_of(tensor);
    for (size_t r = 0; r < ROWS; r++) {
        double want = 0;
        for (size_t i = 0; i < ROW; i++)
            want += (double)tensor->data[r * ROW + i];
        if (memcmp(&sums[r], &want, sizeof(want)) != 0)
            fail_msg("row %zu: %.17g instead of %.17g", r, sums[r], want);
    }
    engine_free(&engine);
    tensor_free(tensor);
}

/* ---- a pass that needs much memory */

enum { HEAVY = 9 << 20, N_HEAVY = 6 };

static atomic_int in_pass[N_HEAVY];

static size_t heavy_size(const struct merge *merge)
{
    (void)merge;
    return HEAVY;
}

static void add_heavy(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                      void *acc)
{
    (void)kernels;
    atomic_store(&in_pass[merge->seed], 1);
    for (unsigned i = 0; i < N_HEAVY; i++) {
        if (i != merge->seed && atomic_load(&in_pass[i]))
            remember("two have memory", i, merge->seed);
    }
    ((unsigned char *)acc)[HEAVY - 1] = 1;
    *(double *)acc += (double)tile->in[0][0];
}

static void finish_heavy(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct moments *moments = state;

    moments->sum += *(const double *)(const void *)blocks->accs;
    moments->n_blocks = (unsigned)blocks->n;
    atomic_store(&in_pass[merge->seed], 0);
}

static const struct pass *next_heavy(const struct merge *merge, const void *state, unsigned n_done)
{
    static const struct pass pass = {heavy_size, add_heavy, finish_heavy, NULL};

    (void)merge;
    (void)state;
    return n_done < 2 ? &pass : NULL;
}

static void test_memory_in_turn(void **state)
{
    static const struct method_stats stats = {moments_size, next_heavy, NULL};
    static const struct method method = {.name = "heavy", .stats = &stats, .run = run_first};
    struct engine engine = engine_new(3);
    struct tensor *tensors[N_HEAVY];
    struct waiter waiters[N_HEAVY];

    (void)state;
    for (unsigned i = 0; i < N_HEAVY; i++) {
        tensors[i] = tensor_new(&method, 200 * 1000, i);
        tensors[i]->recipe.merge.seed = i;
        waiter_init(&waiters[i]);
        assert_false(stats_get(engine.stats, &tensors[i]->recipe, NULL, &waiters[i].waiter));
    }
    for (unsigned i = 0; i < N_HEAVY; i++) {
        assert_int_equal(await(&waiters[i]), 0);
        assert_int_equal(state_of(tensors[i])->n_blocks, 1);
        assert_true(state_of(tensors[i])->sum > 0);
    }
    engine_free(&engine);
    for (unsigned i = 0; i < N_HEAVY; i++)
        tensor_free(tensors[i]);
}

/* ---- allocations that fail */

static int get_alone(long left)
{
    struct engine engine = engine_new(1);
    struct tensor *inner = tensor_new(&moments_method, N, 1), *outer = tensor_new(&moments_method, N, 2);
    struct recipe_feed feed;
    struct err err;
    int status;

    join(outer, &feed, inner);
    allocs_left = left;
    status = get(&engine, &outer->recipe, &err);
    allocs_left = -1;
    if (status)
        assert_says(err.text, "out of memory");
    must_get(&engine, &outer->recipe);
    engine_free(&engine);
    tensor_free(inner);
    tensor_free(outer);
    return status;
}

static void test_refused_allocations(void **state)
{
    long left = 0;
    int status;

    (void)state;
    do {
        status = get_alone(left);
        assert_true(status == 0 || status == -ENOMEM);
        left++;
    } while (status);
    assert_true(left > 2 * 3); /* a run, its state and its accumulators at least, of both */
    allocs_left = 0;
    struct stats *stats = stats_new(NULL, 1, 0, NULL);
    allocs_left = -1;
    assert_null(stats);
    stats_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_any_threads, nothing_wrong),
        cmocka_unit_test_teardown(test_single_flight, nothing_wrong),
        cmocka_unit_test_teardown(test_own_copies_are_counted, nothing_wrong),
        cmocka_unit_test_teardown(test_many_tensors, nothing_wrong),
        cmocka_unit_test_teardown(test_empty, nothing_wrong),
        cmocka_unit_test_teardown(test_failing_read, nothing_wrong),
        cmocka_unit_test_teardown(test_state_refused, nothing_wrong),
        cmocka_unit_test_teardown(test_stop, nothing_wrong),
        cmocka_unit_test_teardown(test_stages, nothing_wrong),
        cmocka_unit_test_teardown(test_failing_stage, nothing_wrong),
        cmocka_unit_test_teardown(test_row_numbers, nothing_wrong),
        cmocka_unit_test_teardown(test_memory_in_turn, nothing_wrong),
        cmocka_unit_test_teardown(test_refused_allocations, nothing_wrong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
