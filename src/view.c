#include "view.h"

#include <errno.h>
#include <inttypes.h>

#include "digest.h"

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Whole bytes only: nobody cuts tensors of 4- and 6-bit elements. */
static int check_range(const struct feed *feed, uint64_t first, size_t n, struct err *err)
{
    if (first <= feed->n && n <= feed->n - first && dtype_bits(feed->dtype) >= 8)
        return 0;
    return err_set(err, -EIO, "elements %" PRIu64 " to %" PRIu64 " of %" PRIu64 " cannot be read alone",
                   first, first + n, feed->n);
}

static int slice_read(const struct feed *feed, uint64_t first, size_t n, void *out, struct scratch *scratch,
                      struct err *err)
{
    const struct slice_feed *self = (const struct slice_feed *)feed;
    size_t size = dtype_bits(feed->dtype) / 8, done = 0;
    int ret = check_range(feed, first, n, err);

    while (ret == 0 && done < n) {
        uint64_t row = (first + done) / self->run, at = (first + done) % self->run;
        size_t step = (size_t)least(self->run - at, n - done);
        ret = self->of->read(self->of, row * self->stride + self->begin + at, step, (char *)out + done * size,
                             scratch, err);
        done += step;
    }
    return ret;
}

static void slice_identify(const struct feed *feed, struct digest *digest)
{
    const struct slice_feed *self = (const struct slice_feed *)feed;

    digest_number(digest, self->begin);
    digest_number(digest, self->run);
    digest_number(digest, self->stride);
}

void slice_feed_init(struct slice_feed *slice, const struct feed *of, uint64_t begin, uint64_t run,
                     uint64_t stride, uint64_t rows)
{
    *slice = (struct slice_feed){.of = of, .begin = begin, .run = run, .stride = stride};
    if (run == stride) { /* one run */
        slice->run = slice->stride = rows * run;
        rows = 1;
    }
    slice->feed = (struct feed){of->dtype, rows * slice->run, slice_read, 1, &slice->of, slice_identify};
}

/* The part that element `at` of a row is in. */
static size_t find_part(const struct concat_feed *concat, uint64_t at)
{
    size_t low = 0, high = concat->feed.n_parts;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (concat->begin[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int concat_read(const struct feed *feed, uint64_t first, size_t n, void *out, struct scratch *scratch,
                       struct err *err)
{
    const struct concat_feed *self = (const struct concat_feed *)feed;
    uint64_t length = self->begin[feed->n_parts];
    size_t size = dtype_bits(feed->dtype) / 8, done = 0;
    int ret = check_range(feed, first, n, err);

    while (ret == 0 && done < n) {
        uint64_t row = (first + done) / length, at = (first + done) % length;
        size_t k = find_part(self, at), step = (size_t)least(self->begin[k + 1] - at, n - done);
        uint64_t run = self->begin[k + 1] - self->begin[k];
        ret = feed->parts[k]->read(feed->parts[k], row * run + at - self->begin[k], step,
                                   (char *)out + done * size, scratch, err);
        done += step;
    }
    return ret;
}

static void concat_identify(const struct feed *feed, struct digest *digest)
{
    const struct concat_feed *self = (const struct concat_feed *)feed;

    digest_add(digest, self->begin, (feed->n_parts + 1) * sizeof(self->begin[0]));
}

void concat_feed_init(struct concat_feed *concat, const struct feed *const *parts, const uint64_t *begin,
                      size_t n, uint64_t rows)
{
    *concat = (struct concat_feed){{parts[0]->dtype, rows * begin[n], concat_read, n, parts, concat_identify},
                                   begin};
}
