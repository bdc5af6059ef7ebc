/* Vectors that golden/make_vectors.py wrote: merges with their inputs, parameters and what mergekit made of
 * them. Read and replayed by every instruction set, whole and in pieces; statistics, where a method needs
 * them, are computed by a pool's threads as in an engine. */
#ifndef VECTORS_H
#define VECTORS_H

#include <pthread.h>
#include <stdio.h>

#include "compute.h"
#include "memory_feed.h"
#include "pool.h"
#include "scratch_dir.h"
#include "stats.h"

/* ---- statistics of one recipe, waited for */

struct stats_wait {
    struct stats_waiter waiter; /* first member */
    pthread_mutex_t lock;
    pthread_cond_t told;
    int status; /* 1: not yet */
    struct err err;
};

static inline void stats_wait_ready(struct stats_waiter *waiter, int status, const struct err *err)
{
    struct stats_wait *self = (struct stats_wait *)waiter;

    pthread_mutex_lock(&self->lock);
    self->status = status;
    if (status)
        self->err = *err;
    pthread_cond_signal(&self->told);
    pthread_mutex_unlock(&self->lock);
}

static inline int stats_await(struct stats *stats, const struct recipe *recipe, struct err *err)
{
    struct stats_wait wait = {.waiter.ready = stats_wait_ready};

    pthread_mutex_init(&wait.lock, NULL);
    pthread_cond_init(&wait.told, NULL);
    do {
        wait.status = 1;
        if (stats_get(stats, recipe, NULL, &wait.waiter))
            break;
        pthread_mutex_lock(&wait.lock);
        while (wait.status == 1)
            pthread_cond_wait(&wait.told, &wait.lock);
        pthread_mutex_unlock(&wait.lock);
    } while (wait.status == 0);
    pthread_cond_destroy(&wait.told);
    pthread_mutex_destroy(&wait.lock);
    if (wait.status < 0)
        *err = wait.err;
    return wait.status < 0 ? wait.status : 0;
}

/* ---- what computes: by one instruction set */

struct bench {
    struct pool *pool;
    struct stats *stats;
    struct scratch *scratch;
    const struct kernels *kernels;
    size_t n_slots;
    struct stat_slot **slots; /* of the recipes that were prepared */
};

static inline void bench_init(struct bench *bench, const struct kernels *kernels, unsigned n_threads)
{
    struct err err;

    *bench = (struct bench){.kernels = kernels};
    assert_int_equal(pool_new(n_threads, kernels, &bench->pool, &err), 0);
    bench->stats = stats_new(bench->pool, n_threads, 0, NULL);
    bench->scratch = scratch_new(kernels);
    assert_non_null(bench->stats);
    assert_non_null(bench->scratch);
}

static inline void bench_fini(struct bench *bench)
{
    pool_free(bench->pool);
    for (size_t i = 0; i < bench->n_slots; i++) {
        stats_release(bench->stats, bench->slots[i]);
        free(bench->slots[i]);
    }
    free(bench->slots);
    stats_free(bench->stats);
    scratch_free(bench->scratch);
}

static inline struct stat_slot *bench_slot(struct bench *bench)
{
    struct stat_slot *slot = calloc(1, sizeof(*slot));

    bench->slots = reallocarray(bench->slots, bench->n_slots + 1, sizeof(struct stat_slot *));
    assert_non_null(bench->slots);
    assert_non_null(slot);
    return bench->slots[bench->n_slots++] = slot;
}

/* The recipe gets a slot, the bench's, if its method needs statistics, and has them then. */
static inline void bench_prepare(struct bench *bench, struct recipe *recipe)
{
    const struct method_stats *stats = recipe->merge.method->stats;
    struct err err;

    recipe->slot = stats && stats->state_size(&recipe->merge) ? bench_slot(bench) : NULL;
    if (stats_await(bench->stats, recipe, &err))
        fail_msg("%s: %s", recipe->merge.name, err.text);
}

/* ---- the file */

struct reader {
    const char *path;
    const unsigned char *at, *end;
};

static inline const void *take(struct reader *reader, size_t len)
{
    const unsigned char *at = reader->at;

    if ((size_t)(reader->end - at) < len)
        fail_msg("%s is cut short", reader->path);
    reader->at += len;
    return at;
}

static inline unsigned take_u8(struct reader *reader)
{
    return *(const unsigned char *)take(reader, 1);
}

static inline uint32_t take_u32(struct reader *reader)
{
    uint32_t value;

    memcpy(&value, take(reader, sizeof(value)), sizeof(value));
    return value;
}

static inline double take_f64(struct reader *reader)
{
    double value;

    memcpy(&value, take(reader, sizeof(value)), sizeof(value));
    return value;
}

static inline void take_text(struct reader *reader, char out[256])
{
    unsigned len = take_u8(reader);

    memcpy(out, take(reader, len), len);
    out[len] = '\0';
}

static inline enum dtype take_dtype(struct reader *reader)
{
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64};
    unsigned code = take_u8(reader);

    assert_in_range(code, 0, 3);
    return dtypes[code];
}

enum { MAX_INPUTS = 80, MAX_PARAMS = 16 };

struct vector {
    char method[256], label[512];
    struct recipe recipe;
    struct memory_feed feeds[MAX_INPUTS];
    const struct feed *inputs[MAX_INPUTS];
    uint64_t shape[8];
    double shared[MAX_PARAMS], per_input[MAX_INPUTS * MAX_PARAMS];
    const unsigned char *expected;
};

static inline void set_defaults(struct vector *v)
{
    struct merge *merge = &v->recipe.merge;

    for (unsigned p = 0; p < merge->method->n_params; p++) {
        v->shared[p] = merge->method->params[p].value;
        for (unsigned i = 0; i < merge->n_inputs; i++)
            v->per_input[i * merge->method->n_params + p] = merge->method->params[p].value;
    }
}

static inline void take_params(struct reader *reader, struct vector *v)
{
    const struct method *method = v->recipe.merge.method;

    set_defaults(v);
    for (unsigned left = take_u8(reader); left > 0; left--) {
        char name[256];
        int p;
        take_text(reader, name);
        p = method_param(method, name);
        assert_true(p >= 0);
        unsigned n = take_u8(reader);
        if (n == 0)
            v->shared[p] = take_f64(reader);
        for (unsigned i = 0; i < n; i++)
            v->per_input[i * method->n_params + (unsigned)p] = take_f64(reader);
    }
}

static inline void take_shape(struct reader *reader, struct merge *merge, uint64_t *shape)
{
    merge->ndim = take_u8(reader);
    merge->shape = shape;
    merge->n = 1;
    for (unsigned i = 0; i < merge->ndim; i++) {
        shape[i] = take_u32(reader);
        merge->n *= shape[i];
    }
}

static inline void take_vector(struct reader *reader, struct vector *v, size_t number)
{
    struct merge *merge = &v->recipe.merge;

    memset(v, 0, sizeof(*v));
    take_text(reader, v->method);
    merge->method = method_find(v->method);
    assert_non_null(merge->method);
    merge->work = take_dtype(reader);
    merge->result = take_dtype(reader);
    v->recipe.kind = RECIPE_MERGE;
    v->recipe.dtype = take_dtype(reader);
    v->recipe.inputs = v->inputs;
    v->recipe.n_inputs = merge->n_inputs = take_u8(reader);
    assert_in_range(merge->n_inputs, 1, MAX_INPUTS);
    merge->base = (int8_t)take_u8(reader);
    merge->name = v->label;
    merge->shared = v->shared;
    merge->per_input = v->per_input;
    for (unsigned i = 0; i < merge->n_inputs; i++)
        v->feeds[i].feed.dtype = take_dtype(reader);
    take_shape(reader, merge, v->shape);
    take_params(reader, v);
    for (unsigned i = 0; i < merge->n_inputs; i++) {
        enum dtype dtype = v->feeds[i].feed.dtype;
        v->feeds[i] = memory_feed(dtype, merge->n, take(reader, merge->n * dtype_bits(dtype) / 8));
        v->inputs[i] = &v->feeds[i].feed;
    }
    v->expected = take(reader, merge->n * dtype_bits(v->recipe.dtype) / 8);
    snprintf(v->label, sizeof(v->label), "case %zu: %s in %s to %s, %u inputs of %zu", number, v->method,
             dtype_name(merge->work), dtype_name(v->recipe.dtype), merge->n_inputs, (size_t)merge->n);
}

/* From `first` in steps of at most `step`. */
static inline void compute_in_steps(const struct vector *v, size_t first_step, size_t step,
                                    unsigned char *out, struct scratch *scratch)
{
    struct err err;
    size_t size = dtype_bits(v->recipe.dtype) / 8;

    for (size_t at = 0, n; at < v->recipe.merge.n; at += n) {
        n = at == 0 ? first_step : step;
        n = n > v->recipe.merge.n - at ? v->recipe.merge.n - at : n;
        if (recipe_compute(&v->recipe, at, n, out + at * size, scratch, &err) != 0)
            fail_msg("%s: %s", v->label, err.text);
    }
}

static inline void check_vector(const struct vector *v, const struct bench *bench, unsigned char *out)
{
    const size_t steps[][2] = {{SIZE_MAX, 1}, {1, 37}, {5, 64}};
    size_t n = v->recipe.merge.n, at = 0, size = dtype_bits(v->recipe.dtype) / 8;

    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        uint64_t got = 0, want = 0;
        compute_in_steps(v, steps[i][0], steps[i][1], out, bench->scratch);
        size_t differ = float_bytes_differ(v->recipe.dtype, out, v->expected, n, &at);
        if (differ == 0)
            continue;
        memcpy(&got, out + at * size, size);
        memcpy(&want, v->expected + at * size, size);
        fail_msg("%s by %s, steps of %zu: %zu differ, element %zu first: %llx instead of %llx", v->label,
                 bench->kernels->isa, steps[i][1], differ, at, (unsigned long long)got,
                 (unsigned long long)want);
    }
}

static inline unsigned char *read_vectors(const char *path, size_t *len)
{
    FILE *file = fopen(path, "rb");
    unsigned char *data;

    if (!file)
        fail_msg("%s: %s", path, strerror(errno));
    fseek(file, 0, SEEK_END);
    *len = (size_t)ftell(file);
    rewind(file);
    data = malloc(*len);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *len, file), *len);
    fclose(file);
    return data;
}

/* Every vector of the file, by one bench: what `check` says of it. */
typedef void vector_check(const struct vector *v, const struct bench *bench, unsigned char *out);

static inline void each_vector(const char *path, const unsigned char *data, size_t len, struct bench *bench,
                               vector_check *check)
{
    struct reader reader = {path, data, data + len};
    struct vector *v = malloc(sizeof(*v));
    unsigned char *out = malloc(1 << 22);

    assert_non_null(v);
    assert_non_null(out);
    assert_memory_equal(take(&reader, 8), "MELDVEC1", 8);
    uint32_t n = take_u32(&reader);
    assert_true(n > 0);
    for (uint32_t i = 0; i < n; i++) {
        take_vector(&reader, v, i);
        assert_in_range(v->recipe.merge.n * dtype_bits(v->recipe.dtype) / 8, 0, 1 << 22);
        bench_prepare(bench, &v->recipe);
        check(v, bench, out);
    }
    assert_ptr_equal(reader.at, reader.end);
    free(out);
    free(v);
}

/* By every instruction set. */
static inline void replay_vectors(const char *path, vector_check *check)
{
    size_t len, n_sets;
    unsigned char *data = read_vectors(path, &len);
    const struct kernels *const *sets = kernels_available(&n_sets);

    for (size_t s = 0; s < n_sets; s++) {
        struct bench bench;
        bench_init(&bench, sets[s], 1 + (unsigned)s);
        each_vector(path, data, len, &bench, check);
        bench_fini(&bench);
    }
    free(data);
}

/* FILE beside the tests' sources, in out. */
static inline const char *vectors_beside(const char *source, const char *file, char out[4096])
{
    const char *slash = strrchr(source, '/');

    snprintf(out, 4096, "%.*sgolden/%s", slash ? (int)(slash + 1 - source) : 0, source, file);
    return out;
}

#endif
