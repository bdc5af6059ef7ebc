#include "tiles.h"

#include <errno.h>

#include "witness.h"

enum {
    RAW_BYTES = 256 * 1024,   /* of one input at a time, */
    RAW_TOTAL = 1024 * 1024,  /* of all of them: a core's second-level cache holds what is in use */
    TILES_TOTAL = 128 * 1024, /* tiles of reals, by which many inputs make a tile shorter */
    TILE_MIN = 64,            /* but not below this */
};

/* One merge, cast or pass under way. */
struct job {
    struct tiles_job of; /* what is wanted */
    const struct recipe *recipe;
    const struct kernels *kernels;
    bool packed;          /* run_packed may be tried */
    bool as_stored;       /* tiles have elements as stored */
    size_t row;           /* a tile holds whole rows of so many elements */
    size_t chunk, tile_n; /* elements that are read, that are computed at a time */
    unsigned n_temps;
    unsigned char **raw; /* [n_inputs] a chunk each, as stored */
    real **slots;        /* [n_inputs] a tile each; NULL for an input that is used as stored */
    const real **in;     /* [n_inputs] */
    const void **packed_in, **packed_temp;
    real *out, **temp, *scalars;
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

/* Whole rows: as many as fit into a tile, but one at least; tiles as fit into a chunk, likewise. */
static void choose_sizes(struct job *job, uint64_t n)
{
    size_t n_inputs = job->recipe->n_inputs, tiles = n_inputs + 1 + job->n_temps;
    size_t raw = RAW_TOTAL / n_inputs < RAW_BYTES ? RAW_TOTAL / n_inputs : RAW_BYTES;
    size_t tile_n = TILE;

    while (tile_n > TILE_MIN && tile_n * tiles * sizeof(real) > TILES_TOTAL)
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
    return recipe->inputs[input]->dtype == recipe->merge.work && round_of(recipe->merge.work) == ROUND_NONE;
}

static int take_input(struct job *job, unsigned i)
{
    job->raw[i] = scratch_take(job->of.scratch, job->chunk, element_size(job->recipe->inputs[i]->dtype));
    job->slots[i] = NULL;
    if (!job->raw[i])
        return -ENOMEM;
    if (used_as_stored(job->recipe, i))
        return 0;
    job->slots[i] = scratch_take(job->of.scratch, job->tile_n, sizeof(real));
    return job->slots[i] ? 0 : -ENOMEM;
}

static int take_tables(struct job *job)
{
    size_t n = job->recipe->n_inputs;

    job->raw = scratch_take(job->of.scratch, n, sizeof(*job->raw));
    job->slots = scratch_take(job->of.scratch, n, sizeof(*job->slots));
    job->in = scratch_take(job->of.scratch, n, sizeof(*job->in));
    job->packed_in = scratch_take(job->of.scratch, n, sizeof(*job->packed_in));
    job->packed_temp = scratch_take(job->of.scratch, n, sizeof(*job->packed_temp));
    job->scalars = scratch_take(job->of.scratch, n, 2 * sizeof(*job->scalars));
    job->temp = scratch_take(job->of.scratch, job->n_temps, sizeof(*job->temp));
    job->out = scratch_take(job->of.scratch, job->tile_n, sizeof(*job->out));
    if (!job->raw || !job->slots || !job->in || !job->packed_in || !job->packed_temp || !job->scalars ||
        !job->out || !job->temp)
        return -ENOMEM;
    for (unsigned i = 0; i < job->n_temps; i++) {
        job->temp[i] = scratch_take(job->of.scratch, job->tile_n, sizeof(real));
        if (!job->temp[i])
            return -ENOMEM;
    }
    return 0;
}

static bool all_of_type(const struct recipe *recipe, enum dtype dtype)
{
    for (unsigned i = 0; i < recipe->n_inputs; i++)
        if (recipe->inputs[i]->dtype != dtype)
            return false;
    return recipe->merge.work == dtype;
}

static bool may_run_packed(const struct recipe *recipe)
{
    const struct merge *merge = &recipe->merge;

    return recipe->kind == RECIPE_MERGE && merge->method->run_packed && recipe->dtype == merge->result &&
           recipe_row(recipe) == 1 && all_of_type(recipe, merge->work);
}

/* The first and last rows are computed whole where only a part of them is wanted. */
static uint64_t begin_of(const struct job *job)
{
    return job->of.first / job->row * job->row;
}

static uint64_t end_of(const struct job *job)
{
    uint64_t end = (job->of.end + job->row - 1) / job->row * job->row;

    return end < job->recipe->merge.n ? end : job->recipe->merge.n;
}

static int job_init(struct job *job)
{
    const struct recipe *recipe = job->recipe;
    const struct method *method = recipe->kind == RECIPE_MERGE ? recipe->merge.method : NULL;
    int ret;

    job->n_temps = method && method->n_temps > TILE_TEMPS ? method->n_temps : TILE_TEMPS;
    job->n_temps += method ? method->n_input_temps * recipe->n_inputs : 0;
    job->packed = !job->of.visit && may_run_packed(recipe);
    job->as_stored = job->of.as_stored && all_of_type(recipe, DTYPE_BF16);
    choose_sizes(job, end_of(job) - begin_of(job));
    ret = take_tables(job);
    for (unsigned i = 0; ret == 0 && i < recipe->n_inputs; i++)
        ret = take_input(job, i);
    return ret;
}

/* Of the chunk that was read. */
static void look_for_changes(const struct job *job, size_t n)
{
    const struct recipe *recipe = job->recipe;
    int base = recipe->merge.base;

    for (unsigned i = 0; recipe->witnesses && base >= 0 && i < recipe->n_inputs; i++) {
        enum dtype dtype = recipe->inputs[i]->dtype;
        if (recipe->witnesses[i] && dtype == recipe->inputs[base]->dtype)
            witness_look(recipe->witnesses[i], job->raw[i], job->raw[base], n * element_size(dtype));
        else if (recipe->witnesses[i])
            witness_doubt(recipe->witnesses[i]);
    }
}

static int read_chunk(const struct job *job, uint64_t first, size_t n, struct err *err)
{
    const struct recipe *recipe = job->recipe;
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < recipe->n_inputs; i++)
        ret = recipe->inputs[i]->read(recipe->inputs[i], first, n, job->raw[i], job->of.scratch, err);
    if (ret == 0)
        look_for_changes(job, n);
    return ret;
}

/* Input i as values of the working type. */
static const real *load_input(const struct job *job, unsigned i, size_t at, size_t n)
{
    enum dtype dtype = job->recipe->inputs[i]->dtype, work = job->recipe->merge.work;
    const void *raw = job->raw[i] + at * element_size(dtype);

    if (!job->slots[i])
        return raw;
    job->kernels->load[dtype](raw, job->slots[i], n);
    if (dtype != work && round_of(work) != ROUND_NONE)
        job->kernels->cast[round_of(work)](job->slots[i], n);
    return job->slots[i];
}

/* x holds values of type `from`. */
static void write_out(const struct job *job, enum dtype from, const real *x, void *out, size_t n)
{
    enum dtype dtype = job->recipe->dtype;

    (dtype == from ? job->kernels->pack : job->kernels->store)[dtype](x, out, n);
}

/* The part of a tile that is wanted; out: of the job's first element. */
static void write_wanted(const struct job *job, enum dtype from, const real *x, const struct tile *tile,
                         unsigned char *out)
{
    uint64_t begin = tile->first > job->of.first ? tile->first : job->of.first;
    uint64_t end = tile->first + tile->n < job->of.end ? tile->first + tile->n : job->of.end;

    write_out(job, from, x + (begin - tile->first),
              out + (begin - job->of.first) * element_size(job->recipe->dtype), (size_t)(end - begin));
}

/* The tile's elements at `at` of the chunk. */
static void load_tile(const struct job *job, size_t at, struct tile *tile)
{
    for (unsigned i = 0; i < job->recipe->n_inputs; i++) {
        if (job->as_stored)
            job->packed_in[i] = job->raw[i] + at * element_size(DTYPE_BF16);
        else
            job->in[i] = load_input(job, i, at, tile->n);
    }
    tile->packed = job->as_stored ? job->packed_in : NULL;
}

/* Elements `at` and on of the chunk, which is the tensor's `first` and on. */
static void compute_tile(const struct job *job, uint64_t first, size_t at, size_t n, unsigned char *out)
{
    const struct merge *merge = &job->recipe->merge;
    struct tile tile = {.first = first + at,
                        .n = n,
                        .in = job->in,
                        .out = job->out,
                        .stats = job->of.state,
                        .temp = job->temp,
                        .scalars = job->scalars};

    load_tile(job, at, &tile);
    if (job->of.visit) {
        job->of.visit(job->of.arg, merge, job->kernels, &tile, tile.first);
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
    struct packed_tile tile = {.first = first, .n = n, .in = job->packed_in, .stats = job->of.state};

    if (!job->packed)
        return false;
    for (unsigned i = 0; i < job->recipe->n_inputs; i++)
        job->packed_in[i] = job->raw[i];
    tile.out = out + (first - job->of.first) * element_size(merge->result);
    tile.inputs = job->packed_temp;
    tile.scalars = job->scalars;
    tile.temp = job->temp;
    tile.n_temp = job->tile_n;
    return merge->method->run_packed(merge, job->kernels, &tile);
}

static void compute_chunk(const struct job *job, uint64_t first, size_t n, unsigned char *out)
{
    if (compute_packed(job, first, n, out))
        return;
    for (size_t at = 0; at < n; at += job->tile_n)
        compute_tile(job, first, at, n - at < job->tile_n ? n - at : job->tile_n, out);
}

int tiles_run(const struct tiles_job *of, const struct kernels *kernels, unsigned char *out, struct err *err)
{
    struct job job = {.of = *of, .recipe = of->recipe, .kernels = kernels};
    uint64_t end;

    job.row = (size_t)recipe_row(job.recipe);
    end = end_of(&job);
    if (job_init(&job) != 0)
        return err_set(err, -ENOMEM, "out of memory for %u inputs", job.recipe->n_inputs);
    for (uint64_t at = begin_of(&job), step; at < end; at += step) {
        step = end - at < job.chunk ? end - at : job.chunk;
        int ret = read_chunk(&job, at, (size_t)step, err);
        if (ret)
            return ret;
        compute_chunk(&job, at, (size_t)step, out);
    }
    return 0;
}
