/* A tensor in memory as a feed, for tests: it can fail, and counts what is read. */
#ifndef MEMORY_FEED_H
#define MEMORY_FEED_H

#include <errno.h>
#include <string.h>

#include "digest.h"
#include "source.h"

struct memory_feed {
    struct feed feed; /* first member */
    const unsigned char *data;
    uint64_t fails_at; /* reading this element gives -EIO; UINT64_MAX: never */
};

static inline int memory_feed_read(const struct feed *feed, uint64_t first, size_t n, void *out,
                                   struct scratch *scratch, struct err *err)
{
    const struct memory_feed *self = (const struct memory_feed *)feed;
    size_t bits = dtype_bits(feed->dtype);

    (void)scratch;
    if (first > feed->n || n > feed->n - first)
        return err_set(err, -EIO, "elements %zu from %zu of %zu", n, (size_t)first, (size_t)feed->n);
    if (self->fails_at >= first && self->fails_at - first < n)
        return err_set(err, -EIO, "memory: cannot read");
    memcpy(out, self->data + first * bits / 8, n * bits / 8);
    return 0;
}

static inline void memory_feed_identify(const struct feed *feed, struct digest *digest)
{
    const struct memory_feed *self = (const struct memory_feed *)feed;

    digest_add(digest, &self->data, sizeof(self->data));
    digest_number(digest, self->fails_at);
}

static inline struct memory_feed memory_feed(enum dtype dtype, uint64_t n, const void *data)
{
    return (struct memory_feed){
        {dtype, n, memory_feed_read, .identify = memory_feed_identify}, data, UINT64_MAX};
}

/* Elements that differ, where any NaN equals any other; *at: the first. */
static inline size_t float_bytes_differ(enum dtype dtype, const unsigned char *a, const unsigned char *b,
                                        size_t n, size_t *at)
{
    size_t size = dtype_bits(dtype) / 8, differ = 0;
    uint64_t infinite = dtype == DTYPE_F16    ? 0x7c00
                        : dtype == DTYPE_BF16 ? 0x7f80
                        : dtype == DTYPE_F32  ? 0x7f800000
                                              : 0x7ff0000000000000;
    uint64_t magnitude = UINT64_MAX >> (64 - 8 * size + 1);

    for (size_t i = 0; i < n; i++) {
        uint64_t x = 0, y = 0;
        memcpy(&x, a + i * size, size);
        memcpy(&y, b + i * size, size);
        if (x == y || ((x & magnitude) > infinite && (y & magnitude) > infinite))
            continue;
        if (differ++ == 0)
            *at = i;
    }
    return differ;
}

#endif
