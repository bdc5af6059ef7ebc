#include "blocks.h"

#include <string.h>

static const char *acc_of(const struct blocks *blocks, size_t block)
{
    return blocks->accs + block * blocks->acc_size;
}

double blocks_sum(const struct blocks *blocks, size_t index)
{
    double sum = 0;

    for (size_t i = 0; i < blocks->n; i++)
        sum += ((const double *)(const void *)acc_of(blocks, i))[index];
    return sum;
}

uint64_t blocks_count(const struct blocks *blocks, size_t index)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < blocks->n; i++)
        sum += ((const uint64_t *)(const void *)acc_of(blocks, i))[index];
    return sum;
}

const uint32_t *histogram_bins(const struct histogram *histogram, size_t block)
{
    return (const uint32_t *)(const void *)(acc_of(histogram->blocks, block) + histogram->offset);
}

/* Bins [first, first + HISTOGRAM_UNIT) of all blocks: block by block, so that memory is read in order. */
static void add_up(const struct histogram *histogram, uint32_t first, uint64_t out[HISTOGRAM_UNIT])
{
    memset(out, 0, HISTOGRAM_UNIT * sizeof(*out));
    for (size_t b = 0; b < histogram->blocks->n; b++) {
        const uint32_t *bins = histogram_bins(histogram, b) + first;
        for (uint32_t i = 0; i < HISTOGRAM_UNIT; i++)
            out[i] += bins[i];
    }
}

uint32_t histogram_find(const struct histogram *histogram, bool descending, uint64_t *rank)
{
    uint64_t counts[HISTOGRAM_UNIT];
    uint32_t bin = 0;

    for (uint32_t i = 0; i < histogram->n; i++) {
        bin = descending ? histogram->n - 1 - i : i;
        if (i % HISTOGRAM_UNIT == 0)
            add_up(histogram, bin / HISTOGRAM_UNIT * HISTOGRAM_UNIT, counts);
        if (counts[bin % HISTOGRAM_UNIT] > *rank)
            break;
        *rank -= counts[bin % HISTOGRAM_UNIT];
    }
    return bin;
}
