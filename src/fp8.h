/* FP8 weights as the numbers they stand for.
 *
 * With scales an element is w s: w the FP8 value and s the scale of its block, both exact in float32, the
 * product rounded to float32 and then to the type served (nearest, ties to even): what transformers 5 gives
 * when it loads such a model with dequantize=True. Without scales it is w itself, which bfloat16 holds
 * exactly. Scales are multiplied, whether they are called weight_scale or weight_scale_inv; a weight that has
 * both is refused (model.h), since nothing says which is meant.
 */
#ifndef FP8_H
#define FP8_H

#include "source.h"

/* The last two dimensions of a weight are cut into blocks of block_rows x block_cols elements, each with one
 * scale; scales lie row by row, scale_cols to a row of blocks, and matrix after matrix. */
struct fp8_feed {
    struct feed feed;              /* first member */
    const struct feed *sources[2]; /* the weight; its scales, or NULL */
    uint64_t rows, cols;           /* of a matrix */
    uint64_t block_rows, block_cols, scale_rows, scale_cols;
};

bool fp8_is(enum dtype dtype); /* one of the four FP8 types that hold weights */

/* A tensor without scales. dtype: BF16, F16 or F32. */
void fp8_feed_plain(struct fp8_feed *feed, const struct feed *weight, enum dtype dtype);

/* shape: of the weight. The scale is one number, one a row ([rows] or [rows, 1]), or one a block: of `block`
 * rows and columns (0: not stated) where that gives the scale's shape, else of the size that divides evenly.
 * Scales are F32, BF16, F16, F8_E8M0, or U8 for the latter. 0, or -EINVAL if shapes or types do not fit. */
int fp8_feed_scaled(struct fp8_feed *feed, const struct feed *weight, const uint64_t *shape, unsigned ndim,
                    const struct feed *scale, const uint64_t *scale_shape, unsigned scale_ndim,
                    const uint64_t block[2], enum dtype dtype, struct err *err);

#endif
