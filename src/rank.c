#include "rank.h"

#include <string.h>

enum { DIGIT = 8, DIGITS = sizeof(real_bits), BINS = 1 << DIGIT, SHORT = 48 };

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

/* Where each digit's elements begin, in the order of that digit. */
static void count_digits(const real_bits *keys, size_t n, unsigned digits, uint32_t start[DIGITS][BINS])
{
    memset(start, 0, digits * sizeof(start[0]));
    for (size_t i = 0; i < n; i++)
        for (unsigned d = 0; d < digits; d++)
            start[d][keys[i] >> d * DIGIT & (BINS - 1)]++;
    for (unsigned d = 0; d < digits; d++) {
        uint32_t sum = 0;
        for (size_t b = 0; b < BINS; b++) {
            uint32_t count = start[d][b];
            start[d][b] = sum;
            sum += count;
        }
    }
}

/* A radix sort of the indices, least digit first; the last digit's places are the ranks. */
void rank_row(const real_bits *keys, size_t n, unsigned bits, uint32_t *const order[2], uint32_t *rank)
{
    uint32_t start[DIGITS][BINS];
    unsigned digits = (bits + DIGIT - 1) / DIGIT, last = digits - 1;

    if (n < SHORT) {
        rank_pairs(keys, n, rank);
        return;
    }
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
