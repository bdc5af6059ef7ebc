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

/* Block by block, so that memory is read in order. */
void histogram_add_up(const struct histogram *histogram, uint32_t first, uint32_t n,
                      uint64_t out[HISTOGRAM_UNIT])
{
    memset(out, 0, n * sizeof(*out));
    for (size_t b = 0; b < histogram->blocks->n; b++) {
        const uint32_t *bins = histogram_bins(histogram, b) + first;
        for (uint32_t i = 0; i < n; i++)
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
            histogram_add_up(histogram, bin / HISTOGRAM_UNIT * HISTOGRAM_UNIT, HISTOGRAM_UNIT, counts);
        if (counts[bin % HISTOGRAM_UNIT] > *rank)
            break;
        *rank -= counts[bin % HISTOGRAM_UNIT];
    }
    return bin;
}
