/* Ranks of a row's elements by key: stable, in time linear in the row. */
#ifndef RANK_H
#define RANK_H

#include <stddef.h>
#include <stdint.h>

#include "kernel.h"

/* rank[i]: how many elements have a smaller key, or the same and a smaller index. keys: n, below 2^bits.
 * order: room for 2 n. Nothing aliases; n is at most UINT32_MAX. */
void rank_row(const struct kernels *kernels, const real_bits *keys, size_t n, unsigned bits,
              uint32_t *const order[2], uint32_t *rank);

#endif
