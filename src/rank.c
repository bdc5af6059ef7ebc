#include "rank.h"

#include <stdbool.h>
#include <string.h>

enum { DIGIT = 8, DIGITS = sizeof(real_bits), BINS = 1 << DIGIT, SHORT = 48, SPAN = 4096 };

/* Below SHORT elements comparing all pairs costs less than clearing counters. */
static void rank_pairs(const real_bits *keys, size_t n, uint32_t *rank)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t before = 0;
        for (size_t j = 0; j < i; j++)
            before += keys[j] <= keys[i];
        for (size_t j = i + 1; j < n; j++)
            before += keys[j] < keys[i];
        rank[i] = before;
    }
}

/* From how many there are of each to where each begins. */
static void begin_each(uint32_t *start, size_t n)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t count = start[i];
        start[i] = sum;
        sum += count;
    }
}

static size_t above(real_bits key, real_bits floor)
{
    return (size_t)((key > floor ? key : floor) - floor);
}

/* Where few values lie between the smallest and the largest, as in a row of a 16-bit type, each is counted:
 * those above a floor, which stands for zero. */
static bool rank_counted(const struct kernels *kernels, const real_bits *keys, size_t n, uint32_t *rank)
{
    uint32_t start[SPAN];
    real_bits floor, most, span;

    kernels->key_range(keys, n, &floor, &most);
    floor = most == 0 ? 0 : floor - 1;
    span = most - floor + 1;
    if (span > SPAN || span > 2 * n)
        return false;
    memset(start, 0, (size_t)span * sizeof(*start));
    for (size_t i = 0; i < n; i++)
        start[above(keys[i], floor)]++;
    begin_each(start, (size_t)span);
    for (size_t i = 0; i < n; i++)
        rank[i] = start[above(keys[i], floor)]++;
    return true;
}

/* Where each digit's elements begin, in the order of that digit. */
static void count_digits(const real_bits *keys, size_t n, unsigned digits, uint32_t start[DIGITS][BINS])
{
    memset(start, 0, digits * sizeof(start[0]));
    for (size_t i = 0; i < n; i++)
        for (unsigned d = 0; d < digits; d++)
            start[d][keys[i] >> d * DIGIT & (BINS - 1)]++;
    for (unsigned d = 0; d < digits; d++)
        begin_each(start[d], BINS);
}

/* A radix sort of the indices, least digit first; the last digit's places are the ranks. */
static void rank_sorted(const real_bits *keys, size_t n, unsigned bits, uint32_t *const order[2],
                        uint32_t *rank)
{
    uint32_t start[DIGITS][BINS];
    unsigned digits = (bits + DIGIT - 1) / DIGIT, last = digits - 1;

    count_digits(keys, n, digits, start);
    for (size_t i = 0; i < n; i++)
        order[0][start[0][keys[i] & (BINS - 1)]++] = (uint32_t)i;
    for (unsigned d = 1; d < last; d++) {
        const uint32_t *from = order[(d - 1) % 2];
        for (size_t i = 0; i < n; i++)
            order[d % 2][start[d][keys[from[i]] >> d * DIGIT & (BINS - 1)]++] = from[i];
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t at = order[(last - 1) % 2][i];
        rank[at] = start[last][keys[at] >> last * DIGIT & (BINS - 1)]++;
    }
}

void rank_row(const struct kernels *kernels, const real_bits *keys, size_t n, unsigned bits,
              uint32_t *const order[2], uint32_t *rank)
{
    if (n < SHORT)
        rank_pairs(keys, n, rank);
    else if (!rank_counted(kernels, keys, n, rank))
        rank_sorted(keys, n, bits, order, rank);
}
