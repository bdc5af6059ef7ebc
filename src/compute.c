#include "compute.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tiles.h"

enum { COMPARED_BYTES = 128 * 1024 }; /* at a time */

enum recipe_kind recipe_pass_kind(enum dtype from, enum dtype work, enum dtype to)
{
    return from == to && dtype_promote(from, work) == work ? RECIPE_COPY : RECIPE_CAST;
}

static size_t element_size(enum dtype dtype)
{
    return dtype_bits(dtype) / 8;
}

uint64_t recipe_row(const struct recipe *recipe)
{
    const struct method *method = recipe->merge.method;
    uint64_t row =
        recipe->kind == RECIPE_MERGE && method->row_length ? method->row_length(&recipe->merge) : 1;

    return row ? row : 1;
}

static int run(const struct tiles_job *job, unsigned char *out, struct err *err)
{
    if (job->recipe->merge.work == DTYPE_F64)
        return tiles_run_f64(job, kernels_best_f64(), out, err);
    return tiles_run(job, scratch_kernels(job->scratch), out, err);
}

static int compute_merge(const struct recipe *recipe, uint64_t first, size_t n, unsigned char *out,
                         struct scratch *scratch, struct err *err)
{
    struct tiles_job job = {.recipe = recipe, .scratch = scratch, .first = first, .end = first + n};

    if (recipe->slot) {
        job.state = atomic_load_explicit(&recipe->slot->state, memory_order_acquire);
        if (!job.state)
            return err_set(err, -EIO, "its statistics were not computed first"); /* a mistake of the caller */
    }
    return run(&job, out, err);
}

static int visit_tiles(const struct tiles_job *job, struct err *err)
{
    struct mark mark = scratch_mark(job->scratch);
    int ret = job->end > job->first ? run(job, NULL, err) : 0;

    scratch_release(job->scratch, mark);
    return ret ? err_prefix(err, ret, "tensor %s", job->recipe->merge.name) : 0;
}

static struct tiles_job visit_job(const struct recipe *recipe, const void *state, uint64_t first, uint64_t n,
                                  tile_visit *visit, void *arg, struct scratch *scratch)
{
    return (struct tiles_job){.recipe = recipe,
                              .first = first,
                              .end = first + n,
                              .state = state,
                              .visit = visit,
                              .arg = arg,
                              .scratch = scratch};
}

int recipe_visit(const struct recipe *recipe, const void *state, uint64_t first, uint64_t n,
                 tile_visit *visit, void *arg, struct scratch *scratch, struct err *err)
{
    struct tiles_job job = visit_job(recipe, state, first, n, visit, arg, scratch);

    return visit_tiles(&job, err);
}

int recipe_pass(const struct recipe *recipe, const void *state, uint64_t first, uint64_t n, tile_visit *visit,
                void *arg, struct scratch *scratch, struct err *err)
{
    struct tiles_job job = visit_job(recipe, state, first, n, visit, arg, scratch);

    job.as_stored = recipe->merge.method->stats->takes_packed;
    return visit_tiles(&job, err);
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
    size_t size = element_size(recipe->dtype), chunk = COMPARED_BYTES / size;
    unsigned char *raw = scratch_take(scratch, COMPARED_BYTES, 1);
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
