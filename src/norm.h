/* What the methods of norms and dots share: donors, rounding of scalars, sums of a pass, and how a tensor
 * falls into vectors. */
#ifndef NORM_H
#define NORM_H

#include <math.h>

#include "blocks.h"
#include "method.h"
#include "scalar.h"

/* kernel_round to the working type. */
real norm_round(const struct merge *merge, double x);

/* In float32 and float64 mergekit's roundings are not replayed: its own sums are farther off than they are.
 * There the result is what all these methods end in, a linear combination of the inputs, computed in float64
 * with coefficients that follow from the Gram matrix, and rounded once. */
bool norm_is_exact(const struct merge *merge);

unsigned norm_donors(const struct merge *merge);
/* Index of a donor among the inputs. */
unsigned norm_donor(const struct merge *merge, unsigned donor);

/* Of k vectors' Gram matrix, as the numbers (0, 0), (0, 1), ... (0, k-1), (1, 1) ...; i <= j. */
size_t norm_pairs(unsigned k);
size_t norm_pair(unsigned k, unsigned i, unsigned j);

/* min and max that let NaN through, as torch's clamp does. */
static inline real norm_at_least(real x, real low)
{
    return x < low ? low : x;
}

static inline real norm_at_most(real x, real high)
{
    return x > high ? high : x;
}

/* The vectors that norms are taken of: n of len elements each. Strided: vector i is elements i, i + n, ...;
 * else each is contiguous, one after the other. */
struct norm_vectors {
    uint64_t n, len;
    bool strided;
};

struct norm_vectors norm_whole(const struct merge *merge);   /* one */
struct norm_vectors norm_rows(const struct merge *merge);    /* along the last dimension */
struct norm_vectors norm_columns(const struct merge *merge); /* along the first */

/* Are the numbers of vectors statistics, kept for each? Those of contiguous ones that are short enough are
 * computed as they are needed, from tiles of whole rows: of short ones there are many. */
bool norm_is_kept(struct norm_vectors vectors);
/* method's row_length: 1 for any vectors that are kept, and for those of one element, which are not. */
uint64_t norm_row_length(struct norm_vectors vectors);

/* A part of a tile that lies in one contiguous vector. */
struct norm_part {
    uint64_t vector;
    size_t at, n;
};
/* The part that begins at `part->at + part->n`, which are 0 at first; false: the tile is at its end. */
bool norm_next_part(struct norm_vectors vectors, const struct tile *tile, struct norm_part *part);

/* Do the kernels of packed vectors take as many donors? */
bool norm_is_fused(const struct merge *merge);
/* Of so many: where they are from element `at` of packed inputs on. */
struct norm_packed {
    const void *x[TASK_FUSED], *base; /* base: NULL for none */
};
struct norm_packed norm_packed(const struct merge *merge, const void *const *in, size_t at);

/* A donor's elements, or where there is a base its delta, of a tile of either kind: the tile's own, or in
 * temp[TILE_TEMPS + donor]. The method's n_input_temps is 1. */
const real *norm_vector(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                        unsigned donor);
/* gram[vector][norm_pairs] += the Gram matrix of these donors. rounded: with dot_rounded off the diagonal. */
void norm_add_gram(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                   struct norm_vectors vectors, bool rounded, double *gram);

#endif
