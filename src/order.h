/* Order statistics of magnitudes: where a cut through a tensor's elements falls, sorted stably by magnitude.
 *
 * A method has series of values (a donor's delta; a variance), and for each up to two cuts. An element is
 * before a cut at rank p if its magnitude is below the cut's key (above it, where descending), or is the same
 * and its index below the cut's index. NaN is the largest of all and equal to itself. Nothing is sorted: a
 * histogram over all magnitudes of a 16-bit type (in float32 and float64: over the upper 15 bits, then over
 * the next 16 of the cut's, until no bits are left) finds the key and the block that holds the index, passes
 * over that block the index itself.
 *
 * struct method's `own` must point to a struct order_user, and the state begin with a struct order.
 */
#ifndef ORDER_H
#define ORDER_H

#include "method.h"

enum { ORDER_CUTS = 2 };

struct cut {
    uint64_t rank; /* elements before it */
    bool wanted, descending;
    real_bits key;  /* magnitude as kernels->select compares them; while that is under way its upper bits */
    uint64_t index; /* complete once from == to */
    uint64_t from, to; /* elements among which the index is, `skip` equal ones from the first */
    uint64_t skip;
};

struct order {
    unsigned n_counted, n_refined; /* series; cuts, those that are not wanted included, with the bits that */
    unsigned bits_left;            /* are looked at now but for these, the lowest */
    struct cut cuts[];             /* [n_series][ORDER_CUTS], zeroed at the start */
};

struct order_user {
    unsigned (*n_series)(const struct merge *merge);
    /* Can a series have cuts? Others are not looked at. */
    bool (*has_cuts)(const struct merge *merge, unsigned series);
    /* out = a series' values, of the working type */
    void (*values)(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                   unsigned series, real *out);
    /* bins[i][key]++ for a tile of elements as stored, with the keys of those values of so many series (at
     * most TASK_FUSED), zeros being `zero` + 0, `zero` + 1 ... in turn; NULL where passes do not take those.
     */
    void (*count)(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                  const unsigned *series, unsigned n, uint32_t zero, uint32_t *const *bins);
    /* Set rank, wanted and descending of the cuts there are. Of the tensor's elements `nonzero` are not 0. */
    void (*choose)(const struct merge *merge, unsigned series, uint64_t nonzero, struct cut cuts[ORDER_CUTS]);
};

/* Bytes of the state's part. */
size_t order_size(unsigned n_series);

/* The next pass over the tensor; NULL: all cuts are known. */
const struct pass *order_next(const struct merge *merge, const struct order *order);

#endif
