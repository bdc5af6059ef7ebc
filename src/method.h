/* Merge methods: a method is one file with one const struct method, and one row in method.c's table.
 *
 * A method sees tiles: for each input the same run of elements as reals (real.h), values of the working type.
 */
#ifndef METHOD_H
#define METHOD_H

#include <stdbool.h>

#include "dtype.h"
#include "err.h"
#include "kernel.h"

enum base_rule {
    BASE_IGNORED,  /* the base model, if given, is just another input */
    BASE_OPTIONAL, /* if given it is not a donor */
    BASE_REQUIRED,
};

enum param_kind { PARAM_NUMBER, PARAM_BOOL, PARAM_INTEGER };
enum param_scope {
    PARAM_SHARED, /* one value a tensor */
    PARAM_DONOR,  /* one a donor; the base has none */
    PARAM_INPUT,  /* one an input, the base included */
};

struct method_param {
    const char *name;
    enum param_kind kind;
    enum param_scope scope;
    bool required;
    double value;  /* default; NAN: none (absent is a case of its own) */
    bool unused;   /* accepted for compatibility, changes nothing: said once as a warning */
    bool in_stats; /* the statistics depend on it */
};

/* What happens to a tensor that the base alone, or a donor alone, has. */
enum lone_rule {
    LONE_BASE_PASSES,  /* the base's tensor as it is; a donor's without a base is an error */
    LONE_EITHER_PASSES /* the only one there is */
};

/* How one output tensor is merged: resolved, immutable, in the plan's arena. */
struct merge {
    const struct method *method;
    enum dtype work;         /* inputs are cast to it and operations round to it: F32, BF16, F16 or F64 */
    enum dtype result;       /* what the method returns: work, or what it and F32 promote to */
    unsigned n_inputs;       /* models that have the tensor, in the order of the merge file */
    int base;                /* index of the base among the inputs, or -1 */
    const double *shared;    /* by the method's own parameter order; entries of other scopes are NAN */
    const double *per_input; /* [n_inputs][n_params]; NAN where there is none */
    uint64_t n;              /* elements of the tensor */
    unsigned ndim;
    const uint64_t *shape;
    const char *name; /* of the output tensor */
    uint64_t seed;    /* of random methods: the user's, and the tensor's name mixed in */
};

/* Elements [first, first + n) of every input, as reals, and room for the result. */
struct tile {
    uint64_t first;
    size_t n;              /* at most TILE */
    const real *const *in; /* [n_inputs][n] */
    real *out;             /* [n], aliases no input; values of the result type */
    const void *stats;     /* the method's state (struct method_stats), complete; NULL if it has none */
    /* [n_inputs][n] as stored, BF16, and then there is nothing in `in`; NULL: there is. Given to passes of
     * methods that take it alone. */
    const void *const *packed;
    /* For the method's own use: */
    real *const *temp; /* [TILE_TEMPS, or method->n_temps if that is more, and n_input_temps n_inputs][n] */
    real *scalars;     /* [2 n_inputs] */
};

/* The same as packed elements. */
struct packed_tile {
    uint64_t first;
    size_t n;              /* any number */
    const void *const *in; /* [n_inputs][n], in merge->work */
    void *out;             /* [n], in merge->result, any alignment, aliases no input */
    const void *stats;     /* as a tile's */
    const void **inputs;   /* [n_inputs], for the method's own use, as is */
    real *const *temp;     /* as a tile's, of so many elements: */
    size_t n_temp;
    real *scalars; /* [2 n_inputs] */
};

enum { TILE = 1024, TILE_TEMPS = 3 };

/* Accumulators of a pass's blocks, in order. Block i is elements [first + i size, ...) of the tensor. */
struct blocks {
    uint64_t first, size, end; /* elements; all blocks but the last have `size` */
    size_t n;
    const char *accs; /* [n], acc_size apart */
    size_t acc_size;
};

/* Where a pass leaves what it found for passes with other parameters: parts by number. */
struct leavings {
    void (*put)(struct leavings *leavings, unsigned part, const void *data, size_t len);
    /* malloc'd; NULL: it is not there. */
    void *(*get)(struct leavings *leavings, unsigned part, size_t *len);
};

/* One pass over a tensor. Blocks are worked on by any thread in any order, a block's tiles in order by one.
 * How the tensor is cut depends on its size, acc_size and block_min alone, so sums come out the same on every
 * machine.
 */
struct pass {
    /* Bytes of a block's accumulator, zeroed at the start. Where it is large, blocks are few. */
    size_t (*acc_size)(const struct merge *merge);
    /* tile->stats: the state as the passes before left it. tile->out may be used as one more temp. */
    void (*add)(const struct merge *merge, const struct kernels *kernels, const struct tile *tile, void *acc);
    /* Fold the accumulators, in order of blocks, into the state. */
    void (*finish)(const struct merge *merge, void *state, const struct blocks *blocks);
    /* The elements to pass over; NULL: all. */
    void (*range)(const struct merge *merge, const void *state, uint64_t *first, uint64_t *n);
    /* Not 0: instead of one accumulator a block there is one of so many bytes for each row
     * (method->row_length) passed over, all in one array; `add` gets that of the tile's first row, acc_size
     * is not called. */
    size_t row_bytes;
    /* Leave what does not depend on parameters, before `finish`; the state is as before the pass. And the
     * state from that, as the pass and `finish` would make it or equivalent; false: something is not there,
     * and the state is as it was. NULL both: nothing of the kind. Parts are the inputs', in the working type.
     */
    void (*leave)(const struct merge *merge, const void *state, const struct blocks *blocks,
                  struct leavings *to);
    bool (*resume)(const struct merge *merge, void *state, struct leavings *from);
    /* Elements of a block at least: more than the usual number where to clear and fold an accumulator would
     * take as long. */
    uint64_t block_min;
};

/* What a method must know of the whole tensor before its first element: a small state, made by passes. */
struct method_stats {
    size_t (*state_size)(
        const struct merge *merge); /* bytes, zeroed at the start; 0: nothing is needed here */
    /* The pass to do after `n_done` of them; NULL: the state is complete. */
    const struct pass *(*next)(const struct merge *merge, const void *state, unsigned n_done);
    /* Can a tensor with this state be merged? 0, or -EIO with the reason: whoever waits is told. NULL: any.
     */
    int (*check)(const struct merge *merge, const void *state, struct err *err);
    /* What follows from the state and from parameters that are not in_stats: done for each recipe, on a copy
     * of its own. NULL: nothing does. */
    void (*settle)(const struct merge *merge, void *state);
    bool takes_packed; /* passes look into tile->packed where there is one, else into tile->in */
};

struct method {
    const char *name, *title;
    const char *paper; /* URL, or NULL */
    enum base_rule base;
    enum lone_rule lone;
    unsigned min_donors,
        max_donors;  /* max 0: any number. Donors: inputs without the base where the rule excludes it */
    bool result_f32; /* the result is float32 where the working type is one of 16 bits */
    bool chooses; /* leaves elements out by how their rounded values compare: in another working type it would
                     be others */
    const struct method_param *params;
    unsigned n_params;
    /* Values that are numbers but make no sense together; NULL: none. 0 or -EINVAL with the reason. */
    int (*check)(const struct merge *merge, struct err *err);
    const struct method_stats *stats; /* NULL: element-wise */
    /* Elements that belong together: a tile then holds whole rows of this length, however many fit into TILE
     * elements, at least one. NULL or 1: any run of elements. Divides merge->n. */
    uint64_t (*row_length)(const struct merge *merge);
    unsigned n_temps;       /* tile->temp arrays wanted; at least TILE_TEMPS are there */
    unsigned n_input_temps; /* and so many more for each input, behind those */
    const void *own;        /* what else the method's file wants to know: for families of one algorithm */
    /* The values of merge make this tensor exactly its (single) input: served by copying. NULL: never. */
    bool (*is_copy)(const struct merge *merge);
    void (*run)(const struct merge *merge, const struct kernels *kernels, const struct tile *tile);
    /* out[i] = what the merge uses of donor i's delta r(x - b), 0 where the element is left out, neither
     * weighted nor rescaled. out: [inputs without the base][n]; tile->out is one more temp. NULL: all of it.
     * For people who want to see what a method does: nothing that is served depends on it. */
    void (*kept)(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                 real *const *out);
    /* A shortcut with the same bytes where inputs have the working type on disk and the result is served as
     * it is; NULL: none. false: not for these values, nothing was written. */
    bool (*run_packed)(const struct merge *merge, const struct kernels *kernels,
                       const struct packed_tile *tile);
};

extern const struct method method_ties, method_dare_linear, method_dare_ties, method_breadcrumbs,
    method_breadcrumbs_ties, method_della, method_della_linear;
extern const struct method method_sce, method_ram, method_ramplus_tl;
extern const struct method method_slerp, method_nuslerp, method_multislerp, method_karcher,
    method_model_stock, method_arcee_fusion;
extern const struct method method_linear, method_passthrough, method_task_arithmetic, method_nearswap;

/* Index of parameter `name`, or -1. */
int method_param(const struct method *method, const char *name);

/* Parameter `index` of an input. */
double merge_input(const struct merge *merge, unsigned input, unsigned index);

/* What carries out a method of the table in a working type: the same, but for F64. */
const struct method *method_in(const struct method *method, enum dtype work);

/* By the name in a merge file; NULL if it is none that is carried out. */
const struct method *method_find(const char *name);
/* What is wrong with the name of a method, as the beginning of a sentence that ends in it; NULL: nothing. */
const char *method_problem(const char *name);
/* All methods, in the order of the documentation. */
const struct method *const *method_all(size_t *n);

#endif
