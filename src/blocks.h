/* What a pass's `finish` does with the accumulators of its blocks: sums, and histograms. All are in the order
 * of blocks. */
#ifndef BLOCKS_H
#define BLOCKS_H

#include "method.h"

/* Sum of number `index` of accumulators that are arrays of double, of uint64_t. */
double blocks_sum(const struct blocks *blocks, size_t index);
uint64_t blocks_count(const struct blocks *blocks, size_t index);

/* n bins of uint32_t, which begin so many bytes into each accumulator. */
struct histogram {
    const struct blocks *blocks;
    size_t offset;
    uint32_t n; /* a multiple of HISTOGRAM_UNIT */
};

enum { HISTOGRAM_UNIT = 256 };

/* The bins of one block. */
const uint32_t *histogram_bins(const struct histogram *histogram, size_t block);

/* Bins [first, first + n) of all blocks together. n: HISTOGRAM_UNIT at most. */
void histogram_add_up(const struct histogram *histogram, uint32_t first, uint32_t n,
                      uint64_t out[HISTOGRAM_UNIT]);

/* The bin that holds the element after *rank others, in order of bins or from the last one down; *rank: those
 * of them that are in that bin. Where there are not so many elements: the last bin in that order, *rank what
 * is left of it after all of them. */
uint32_t histogram_find(const struct histogram *histogram, bool descending, uint64_t *rank);

#endif
