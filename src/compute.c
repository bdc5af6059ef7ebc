#include "compute.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    ALIGN = 64,
    RAW_BYTES = 128 * 1024,   /* of one input at a time, */
    RAW_TOTAL = 1024 * 1024,  /* of all of them: a core's second-level cache holds what is in use */
    TILES_TOTAL = 128 * 1024, /* float32 tiles, by which many inputs make a tile shorter */
    TILE_MIN = 64,            /* but not below this */
    BLOCK_BYTES = RAW_TOTAL + 256 * 1024,
};

struct block {
    struct block *next;
    size_t size, used; /* bytes of data */
    unsigned char *data;
};

/* A stack of allocations: blocks up to `top` are in use, those behind it empty. */
struct scratch {
    const struct kernels *kernels;
    struct block *first, *top;
};

struct mark {
    struct block *top;
    size_t used;
};

enum recipe_kind recipe_pass_kind(enum dtype from, enum dtype work, enum dtype to)
{
    return from == to && dtype_promote(from, work) == work ? RECIPE_COPY : RECIPE_CAST;
}

static size_t align_up(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static struct block *block_new(size_t size)
{
    struct block *block = malloc(sizeof(*block) + ALIGN + size);

    if (!block)
        return NULL;
    block->next = NULL;
    block->size = size;
    block->used = 0;
    block->data = (unsigned char *)(block + 1);
    block->data += ALIGN - (uintptr_t)block->data % ALIGN;
    return block;
}

struct scratch *scratch_new(const struct kernels *kernels)
{
    struct scratch *scratch = malloc(sizeof(*scratch));

    if (!scratch)
        return NULL;
    scratch->kernels = kernels;
    scratch->first = scratch->top = block_new(BLOCK_BYTES);
    if (!scratch->first) {
        free(scratch);
        return NULL;
    }
    return scratch;
}

void scratch_free(struct scratch *scratch)
{
    if (!scratch)
        return;
    for (struct block *block = scratch->first, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    free(scratch);
}

static struct mark scratch_mark(const struct scratch *scratch)
{
    return (struct mark){scratch->top, scratch->top->used};
}

static void scratch_release(struct scratch *scratch, struct mark mark)
{
    for (struct block *block = mark.top->next; block; block = block->next)
        block->used = 0;
    mark.top->used = mark.used;
    scratch->top = mark.top;
}

static bool scratch_grow(struct scratch *scratch, size_t bytes)
{
    struct block *top = scratch->top, *block = top->next;

    if (!block || block->size < bytes) {
        block = block_new(bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES);
        if (!block)
            return false;
        block->next = top->next;
        top->next = block;
    }
    scratch->top = block;
    return true;
}

/* n x size bytes, not cleared, valid until release. */
static void *scratch_take(struct scratch *scratch, size_t n, size_t size)
{
    size_t bytes;
    void *at;

    if (__builtin_mul_overflow(n, size, &bytes) || bytes > SIZE_MAX / 2)
        return NULL;
    bytes = align_up(bytes);
    if (scratch->top->size - scratch->top->used < bytes && !scratch_grow(scratch, bytes))
        return NULL;
    at = scratch->top->data + scratch->top->used;
    scratch->top->used += bytes;
    return at;
}

/* One merge, cast or pass under way. */
struct job {
    const struct recipe *recipe;
    const void *state; /* the method's statistics */
    tile_visit *visit; /* a pass: who gets the tiles */
    void *arg;
    uint64_t first, end; /* elements wanted */
    const struct kernels *kernels;
    struct scratch *scratch;
    bool packed;          /* run_packed may be tried */
    size_t row;           /* a tile holds whole rows of so many elements */
    size_t chunk, tile_n; /* elements that are read, that are computed at a time */
    unsigned n_temps;
    unsigned char **raw; /* [n_inputs] a chunk each, as stored */
    float **slots;       /* [n_inputs] a tile each; NULL for an input that is used as stored */
    const float **in;    /* [n_inputs] */
    const void **packed_in, **packed_temp;
    float *out, **temp, *scalars;
};

static size_t element_size(enum dtype dtype)
{
    return dtype_bits(dtype) / 8;
}

static size_t largest_element(const struct recipe *recipe)
{
    size_t size = 0;

    for (unsigned i = 0; i < recipe->n_inputs; i++)
        if (element_size(recipe->inputs[i]->dtype) > size)
            size = element_size(recipe->inputs[i]->dtype);
    return size;
}

uint64_t recipe_row(const struct recipe *recipe)
{
    const struct method *method = recipe->merge.method;
    uint64_t row =
        recipe->kind == RECIPE_MERGE && method->row_length ? method->row_length(&recipe->merge) : 1;

    return row ? row : 1;
}

/* Whole rows: as many as fit into a tile, but one at least; tiles as fit into a chunk, likewise. */
static void choose_sizes(struct job *job, uint64_t n)
{
    size_t n_inputs = job->recipe->n_inputs, tiles = n_inputs + 1 + job->n_temps;
    size_t raw = RAW_TOTAL / n_inputs < RAW_BYTES ? RAW_TOTAL / n_inputs : RAW_BYTES;
    size_t tile_n = TILE;

    while (tile_n > TILE_MIN && tile_n * tiles * sizeof(float) > TILES_TOTAL)
        tile_n /= 2;
    job->tile_n = tile_n < job->row ? job->row : tile_n / job->row * job->row;
    job->chunk = raw / largest_element(job->recipe) / job->tile_n * job->tile_n;
    if (job->chunk < job->tile_n)
        job->chunk = job->tile_n;
    if (job->chunk > n)
        job->chunk = (size_t)n;
    if (job->tile_n > n)
        job->tile_n = (size_t)n;
}

static bool used_as_stored(const struct recipe *recipe, unsigned input)
{
    return recipe->inputs[input]->dtype == DTYPE_F32 && recipe->merge.work == DTYPE_F32;
}

static int take_input(struct job *job, unsigned i)
{
    job->raw[i] = scratch_take(job->scratch, job->chunk, element_size(job->recipe->inputs[i]->dtype));
    job->slots[i] = NULL;
    if (!job->raw[i])
        return -ENOMEM;
    if (used_as_stored(job->recipe, i))
        return 0;
    job->slots[i] = scratch_take(job->scratch, job->tile_n, sizeof(float));
    return job->slots[i] ? 0 : -ENOMEM;
}

static int take_tables(struct job *job)
{
    size_t n = job->recipe->n_inputs;

    job->raw = scratch_take(job->scratch, n, sizeof(*job->raw));
    job->slots = scratch_take(job->scratch, n, sizeof(*job->slots));
    job->in = scratch_take(job->scratch, n, sizeof(*job->in));
    job->packed_in = scratch_take(job->scratch, n, sizeof(*job->packed_in));
    job->packed_temp = scratch_take(job->scratch, n, sizeof(*job->packed_temp));
    job->scalars = scratch_take(job->scratch, n, 2 * sizeof(*job->scalars));
    job->temp = scratch_take(job->scratch, job->n_temps, sizeof(*job->temp));
    job->out = scratch_take(job->scratch, job->tile_n, sizeof(*job->out));
    if (!job->raw || !job->slots || !job->in || !job->packed_in || !job->packed_temp || !job->scalars ||
        !job->out || !job->temp)
        return -ENOMEM;
    for (unsigned i = 0; i < job->n_temps; i++) {
        job->temp[i] = scratch_take(job->scratch, job->tile_n, sizeof(float));
        if (!job->temp[i])
            return -ENOMEM;
    }
    return 0;
}

static bool may_run_packed(const struct recipe *recipe)
{
    const struct merge *merge = &recipe->merge;

    if (recipe->kind != RECIPE_MERGE || !merge->method->run_packed || recipe->dtype != merge->result ||
        recipe_row(recipe) > 1)
        return false;
    for (unsigned i = 0; i < recipe->n_inputs; i++)
        if (recipe->inputs[i]->dtype != merge->work)
            return false;
    return true;
}

/* The first and last rows are computed whole where only a part of them is wanted. */
static uint64_t begin_of(const struct job *job)
{
    return job->first / job->row * job->row;
}

static uint64_t end_of(const struct job *job)
{
    uint64_t end = (job->end + job->row - 1) / job->row * job->row;

    return end < job->recipe->merge.n ? end : job->recipe->merge.n;
}

static int job_init(struct job *job)
{
    const struct recipe *recipe = job->recipe;
    const struct method *method = recipe->kind == RECIPE_MERGE ? recipe->merge.method : NULL;
    int ret;

    job->kernels = job->scratch->kernels;
    job->n_temps = method && method->n_temps > TILE_TEMPS ? method->n_temps : TILE_TEMPS;
    job->n_temps += method ? method->n_input_temps * recipe->n_inputs : 0;
    job->packed = !job->visit && may_run_packed(recipe);
    choose_sizes(job, end_of(job) - begin_of(job));
    ret = take_tables(job);
    for (unsigned i = 0; ret == 0 && i < recipe->n_inputs; i++)
        ret = take_input(job, i);
    return ret;
}

static int read_chunk(const struct job *job, uint64_t first, size_t n, struct err *err)
{
    const struct recipe *recipe = job->recipe;
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < recipe->n_inputs; i++)
        ret = recipe->inputs[i]->read(recipe->inputs[i], first, n, job->raw[i], job->scratch, err);
    return ret;
}

/* Input i as float32 values of the working type. */
static const float *load_input(const struct job *job, unsigned i, size_t at, size_t n)
{
    enum dtype dtype = job->recipe->inputs[i]->dtype, work = job->recipe->merge.work;
    const void *raw = job->raw[i] + at * element_size(dtype);

    if (!job->slots[i])
        return raw;
    job->kernels->load[dtype](raw, job->slots[i], n);
    if (dtype != work && work != DTYPE_F32)
        job->kernels->cast[round_of(work)](job->slots[i], n);
    return job->slots[i];
}

/* x holds values of type `from`. */
static void write_out(const struct job *job, enum dtype from, const float *x, void *out, size_t n)
{
    enum dtype dtype = job->recipe->dtype;

    (dtype == from ? job->kernels->pack : job->kernels->store)[dtype](x, out, n);
}

/* The part of a tile that is wanted; out: of the job's first element. */
static void write_wanted(const struct job *job, enum dtype from, const float *x, const struct tile *tile,
                         unsigned char *out)
{
    uint64_t begin = tile->first > job->first ? tile->first : job->first;
    uint64_t end = tile->first + tile->n < job->end ? tile->first + tile->n : job->end;

    write_out(job, from, x + (begin - tile->first),
              out + (begin - job->first) * element_size(job->recipe->dtype), (size_t)(end - begin));
}

/* Elements `at` and on of the chunk, which is the tensor's `first` and on. */
static void compute_tile(const struct job *job, uint64_t first, size_t at, size_t n, unsigned char *out)
{
    const struct merge *merge = &job->recipe->merge;
    struct tile tile = {first + at, n, job->in, job->out, job->state, job->temp, job->scalars};

    for (unsigned i = 0; i < job->recipe->n_inputs; i++)
        job->in[i] = load_input(job, i, at, n);
    if (job->visit) {
        job->visit(job->arg, merge, job->kernels, &tile);
    } else if (job->recipe->kind == RECIPE_CAST) {
        write_wanted(job, merge->work, job->in[0], &tile, out);
    } else {
        merge->method->run(merge, job->kernels, &tile);
        write_wanted(job, merge->result, job->out, &tile, out);
    }
}

static bool compute_packed(const struct job *job, uint64_t first, size_t n, unsigned char *out)
{
    const struct merge *merge = &job->recipe->merge;
    struct packed_tile tile = {.first = first, .n = n, .in = job->packed_in};

    if (!job->packed)
        return false;
    for (unsigned i = 0; i < job->recipe->n_inputs; i++)
        job->packed_in[i] = job->raw[i];
    tile.out = out + (first - job->first) * element_size(merge->result);
    tile.inputs = job->packed_temp;
    tile.scalars = job->scalars;
    return merge->method->run_packed(merge, job->kernels, &tile);
}

static void compute_chunk(const struct job *job, uint64_t first, size_t n, unsigned char *out)
{
    if (compute_packed(job, first, n, out))
        return;
    for (size_t at = 0; at < n; at += job->tile_n)
        compute_tile(job, first, at, n - at < job->tile_n ? n - at : job->tile_n, out);
}

static int run_job(struct job *job, unsigned char *out, struct err *err)
{
    uint64_t end;

    job->row = (size_t)recipe_row(job->recipe);
    end = end_of(job);
    if (job_init(job) != 0)
        return err_set(err, -ENOMEM, "out of memory for %u inputs", job->recipe->n_inputs);
    for (uint64_t at = begin_of(job), step; at < end; at += step) {
        step = end - at < job->chunk ? end - at : job->chunk;
        int ret = read_chunk(job, at, (size_t)step, err);
        if (ret)
            return ret;
        compute_chunk(job, at, (size_t)step, out);
    }
    return 0;
}

static int compute_merge(const struct recipe *recipe, uint64_t first, size_t n, unsigned char *out,
                         struct scratch *scratch, struct err *err)
{
    struct job job = {.recipe = recipe, .scratch = scratch, .first = first, .end = first + n};

    if (recipe->slot) {
        job.state = atomic_load_explicit(&recipe->slot->state, memory_order_acquire);
        if (!job.state)
            return err_set(err, -EIO, "its statistics were not computed first"); /* a mistake of the caller */
    }
    return run_job(&job, out, err);
}

int recipe_visit(const struct recipe *recipe, const void *state, uint64_t first, uint64_t n,
                 tile_visit *visit, void *arg, struct scratch *scratch, struct err *err)
{
    struct job job = {.recipe = recipe,
                      .scratch = scratch,
                      .first = first,
                      .end = first + n,
                      .state = state,
                      .visit = visit,
                      .arg = arg};
    struct mark mark = scratch_mark(scratch);
    int ret = n ? run_job(&job, NULL, err) : 0;

    scratch_release(scratch, mark);
    return ret ? err_prefix(err, ret, "tensor %s", recipe->merge.name) : 0;
}

static const char *feed_name(const struct feed *feed)
{
    const struct file_feed *file = feed_file(feed);

    return file ? file->source->path : "a computed stage";
}

static int check_equal(const struct recipe *recipe, unsigned input, uint64_t at, const unsigned char *a,
                       const unsigned char *b, size_t n, struct err *err)
{
    size_t size = element_size(recipe->dtype), i = 0;

    if (memcmp(a, b, n * size) == 0)
        return 0;
    while (memcmp(a + i * size, b + i * size, size) == 0)
        i++;
    return err_set(err, -EIO,
                   "%s elements are copied, not merged, but %s and %s differ from element %" PRIu64
                   " on; leave one of the models out",
                   dtype_name(recipe->dtype), feed_name(recipe->inputs[0]), feed_name(recipe->inputs[input]),
                   at + i);
}

static int compare_input(const struct recipe *recipe, unsigned input, uint64_t first, size_t n,
                         const unsigned char *out, struct scratch *scratch, struct err *err)
{
    const struct feed *feed = recipe->inputs[input];
    size_t size = element_size(recipe->dtype), chunk = RAW_BYTES / size;
    unsigned char *raw = scratch_take(scratch, RAW_BYTES, 1);
    int ret = 0;

    if (!raw)
        return err_set(err, -ENOMEM, "out of memory");
    for (size_t at = 0, step; ret == 0 && at < n; at += step) {
        step = n - at < chunk ? n - at : chunk;
        ret = feed->read(feed, first + at, step, raw, scratch, err);
        if (ret == 0)
            ret = check_equal(recipe, input, first + at, out + at * size, raw, step, err);
    }
    return ret;
}

static int compute_equal(const struct recipe *recipe, uint64_t first, size_t n, unsigned char *out,
                         struct scratch *scratch, struct err *err)
{
    int ret = recipe->inputs[0]->read(recipe->inputs[0], first, n, out, scratch, err);

    for (unsigned i = 1; ret == 0 && i < recipe->n_inputs; i++) {
        struct mark mark = scratch_mark(scratch);
        ret = compare_input(recipe, i, first, n, out, scratch, err);
        scratch_release(scratch, mark);
    }
    return ret;
}

static int compute_copy(const struct recipe *recipe, uint64_t first, size_t n, void *out,
                        struct scratch *scratch, struct err *err)
{
    const struct feed *feed = recipe->inputs[0];
    uint64_t bytes;

    if (!dtype_bytes(feed->dtype, first, &bytes) || !dtype_bytes(feed->dtype, n, &bytes))
        return err_set(err, -EINVAL, "elements %" PRIu64 " to %" PRIu64 " of %s are no whole bytes", first,
                       first + n, dtype_name(feed->dtype));
    return feed->read(feed, first, n, out, scratch, err);
}

static int compute_kind(const struct recipe *recipe, uint64_t first, size_t n, void *out,
                        struct scratch *scratch, struct err *err)
{
    switch (recipe->kind) {
    case RECIPE_COPY:
        return compute_copy(recipe, first, n, out, scratch, err);
    case RECIPE_EQUAL:
        return compute_equal(recipe, first, n, out, scratch, err);
    case RECIPE_CAST:
    case RECIPE_MERGE:
        return compute_merge(recipe, first, n, out, scratch, err);
    }
    return err_set(err, -EINVAL, "recipe of kind %d", (int)recipe->kind);
}

int recipe_compute(const struct recipe *recipe, uint64_t first, size_t n, void *out, struct scratch *scratch,
                   struct err *err)
{
    struct mark mark = scratch_mark(scratch);
    int ret;

    if (n == 0)
        return 0;
    ret = compute_kind(recipe, first, n, out, scratch, err);
    scratch_release(scratch, mark);
    if (ret)
        err_prefix(err, ret, "tensor %s", recipe->merge.name);
    return ret;
}

static int recipe_feed_read(const struct feed *feed, uint64_t first, size_t n, void *out,
                            struct scratch *scratch, struct err *err)
{
    const struct recipe_feed *self = (const struct recipe_feed *)feed;

    return recipe_compute(self->recipe, first, n, out, scratch, err);
}

const struct recipe *feed_recipe(const struct feed *feed)
{
    return feed->read == recipe_feed_read ? ((const struct recipe_feed *)feed)->recipe : NULL;
}

void recipe_feed_init(struct recipe_feed *feed, const struct recipe *recipe)
{
    feed->feed = (struct feed){recipe->dtype, recipe->merge.n, .read = recipe_feed_read};
    feed->recipe = recipe;
}
