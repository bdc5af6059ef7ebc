/* Views: a tensor made of parts of others, as a feed over their feeds.
 *
 * Both kinds work on rows, so they cut and join along any dimension: what lies behind the dimension is one
 * run, what lies before it is repetition. Elements keep their type. A run shorter than a page costs a read of
 * its own.
 */
#ifndef VIEW_H
#define VIEW_H

#include "source.h"

/* From each row of `stride` elements of another tensor, `run` elements from `begin` on.
 *
 *     of     |..begin..|--run--|......|..begin..|--run--|......|
 *     view             |--run--|                |--run--|
 */
struct slice_feed {
    struct feed feed; /* first member */
    const struct feed *of;
    uint64_t begin, run, stride;
};

/* of: borrowed; begin + run <= stride, rows x stride <= of->n. */
void slice_feed_init(struct slice_feed *slice, const struct feed *of, uint64_t begin, uint64_t run,
                     uint64_t stride, uint64_t rows);

/* Row by row, some elements of each part: begin[k + 1] - begin[k] of part k. Along the first dimension there
 * is one row, the whole of each part; a stack of equal tensors is that, too.
 *
 *     parts  |a0|a1|a2|     |b-0|b-1|b-2|
 *     view   |a0|b-0|a1|b-1|a2|b-2|
 */
struct concat_feed {
    struct feed feed; /* first member; parts are its parts */
    const uint64_t *begin;
};

/* n >= 1 parts of one type; begin: [n + 1], from 0 to the length of a row, which is not 0. Borrowed. */
void concat_feed_init(struct concat_feed *concat, const struct feed *const *parts, const uint64_t *begin,
                      size_t n, uint64_t rows);

#endif
