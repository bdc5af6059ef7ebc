/* Elements of an output tensor, computed from its inputs.
 *
 * Works in tiles so that memory does not depend on the tensor: raw bytes of 128 KiB an input (less for each
 * if there are more than 8), tiles of at most TILE reals. A scratch belongs to one thread; stages
 * compute inline with a deeper level of the same scratch.
 */
#ifndef COMPUTE_H
#define COMPUTE_H

#include <stdatomic.h>

#include "kernel.h"
#include "method.h"
#include "scratch.h"
#include "source.h"

enum recipe_kind {
    RECIPE_COPY,  /* input 0 as it is; dtype equal to the input's */
    RECIPE_CAST,  /* input 0 rounded to merge.work, then to dtype */
    RECIPE_EQUAL, /* integers: all inputs must hold the same bytes, which are served */
    RECIPE_MERGE,
};

/* Where a recipe's statistics are found. Filled by stats.c; whoever computes must know it to be filled. */
struct stat_slot {
    _Atomic(const void *) state; /* complete, or NULL */
    struct stat_entry *entry;    /* which it belongs to; guarded by the lock of stats.c */
    void *own;                   /* the state, where the recipe has its own copy */
};

struct witness; /* witness.h */

struct recipe {
    enum recipe_kind kind;
    enum dtype dtype;   /* as served */
    struct merge merge; /* RECIPE_MERGE; RECIPE_CAST uses work and n; the others n and name only */
    unsigned n_inputs;
    const struct feed *const *inputs; /* [n_inputs], in the order of merge */
    struct witness *const
        *witnesses;         /* [n_inputs], NULL for the base and where nobody asks; NULL: for none */
    struct stat_slot *slot; /* RECIPE_MERGE of a method that needs statistics here; else NULL */
};

/* How one input is served that goes through the working type: as it is where that changes nothing. */
enum recipe_kind recipe_pass_kind(enum dtype from, enum dtype work, enum dtype to);

/* Elements [first, first + n), first + n <= merge.n, packed in recipe->dtype into out (any alignment).
 * 0; -EIO with the tensor and the file; -ENOMEM; -EINVAL for a range of 4- or 6-bit elements that is no whole
 * number of bytes. The bytes do not depend on how a range is cut; of a failed range, out may hold any. */
int recipe_compute(const struct recipe *recipe, uint64_t first, size_t n, void *out, struct scratch *scratch,
                   struct err *err);

/* Call `visit` with tiles of the inputs, cast to the working type, over elements [first, first + n) of a
 * RECIPE_MERGE, in order; whole rows where the method has them: the first and the last row even where only a
 * part of them is asked for. A RECIPE_CAST may have many inputs here: they are tiles of at most TILE
 * elements. state: what tile->stats shall be. The visitor gets the tile's first element beside the tile,
 * which only the method, and code that is built twice as it is, may look into (real.h). */
typedef void tile_visit(void *arg, const struct merge *merge, const struct kernels *kernels,
                        const struct tile *tile, uint64_t first);
int recipe_visit(const struct recipe *recipe, const void *state, uint64_t first, uint64_t n,
                 tile_visit *visit, void *arg, struct scratch *scratch, struct err *err);

/* The same for a pass of the recipe's method, which gets elements as stored where it takes them. */
int recipe_pass(const struct recipe *recipe, const void *state, uint64_t first, uint64_t n, tile_visit *visit,
                void *arg, struct scratch *scratch, struct err *err);

/* Elements of a row of the recipe's method: 1 if it has none. */
uint64_t recipe_row(const struct recipe *recipe);

/* The recipe behind a feed that a stage computes, or NULL. */
const struct recipe *feed_recipe(const struct feed *feed);

/* A stage's tensor as an input of another merge. */
struct recipe_feed {
    struct feed feed; /* first member */
    const struct recipe *recipe;
};
void recipe_feed_init(struct recipe_feed *feed, const struct recipe *recipe);

#endif
