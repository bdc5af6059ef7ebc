#include "order.h"

#include <stdlib.h>
#include <string.h>

#include "blocks.h"

enum {
    BINS_16 = 1 << 15, /* magnitudes of a 16-bit type; the uppermost bits of other types' */
    REFINED = 16,      /* further bits at a time */
    BINS_LOW = 1 << REFINED,
    ZEROS = 8, /* bins for zeros, which are many in a row: one would be a chain */
    GROUP_SERIES = 8,
    GROUP_CUTS = 4, /* counted in one pass: accumulators are 1 MiB at most */
    INFINITE_BF16 = 0x7f80,
    INFINITE_F16 = 0x7c00,
    BLOCK = 1 << 20, /* elements, to be worth a histogram */
};

struct count_acc {
    uint32_t bins[BINS_16 + ZEROS]; /* of one series */
};

struct refine_acc {
    uint32_t bins[BINS_LOW]; /* of one cut */
};

/* Of one cut in one block. */
struct locate_acc {
    uint64_t equals; /* among the cut's elements */
    uint64_t index;  /* of the skip-th of them, if there are more than that */
};

static const struct order_user *user_of(const struct merge *merge)
{
    return merge->method->own;
}

static unsigned n_series(const struct merge *merge)
{
    return user_of(merge)->n_series(merge);
}

static unsigned n_cuts(const struct merge *merge)
{
    return n_series(merge) * ORDER_CUTS;
}

size_t order_size(unsigned n)
{
    return sizeof(struct order) + n * ORDER_CUTS * sizeof(struct cut);
}

static unsigned group_end(unsigned first, unsigned group, unsigned n)
{
    return n - first < group ? n : first + group;
}

static bool group_has_cuts(const struct merge *merge, unsigned first)
{
    unsigned end = group_end(first, GROUP_SERIES, n_series(merge));

    for (unsigned i = first; i < end; i++)
        if (user_of(merge)->has_cuts(merge, i))
            return true;
    return false;
}

/* Do the first bins leave bits of the magnitude for others? */
static bool refines(const struct merge *merge)
{
    return round_of(merge->work) == ROUND_NONE;
}

/* Bits that the first bins leave. */
static unsigned key_shift(const struct merge *merge)
{
    return refines(merge) ? REAL_MAGNITUDE - 15 : 0;
}

/* The order keys of a series' values, in tile->temp[at]. */
static real_bits *series_keys(const struct merge *merge, const struct kernels *kernels,
                              const struct tile *tile, unsigned series, unsigned at)
{
    real_bits *keys = (real_bits *)(void *)tile->temp[at];

    user_of(merge)->values(merge, kernels, tile, series, tile->out);
    kernels->order_key[round_of(merge->work)](tile->out, keys, tile->n);
    return keys;
}

/* The same where zeros are many in a row. */
static real_bits *spread_keys(const struct merge *merge, const struct kernels *kernels,
                              const struct tile *tile, unsigned series, unsigned at)
{
    real_bits *keys = series_keys(merge, kernels, tile, series, at);

    kernels->spread_zeros(keys, key_shift(merge), BINS_16, tile->n);
    return keys;
}

/* ---- how many elements have each magnitude */

static size_t count_size(const struct merge *merge)
{
    return group_end(0, GROUP_SERIES, n_series(merge)) * sizeof(struct count_acc);
}

/* A series of the group and its bins. */
struct counted {
    const real_bits *keys;
    uint32_t *bins;
};

static void count_one(struct counted a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        a.bins[a.keys[i]]++;
}

/* Two series in turn: an increment waits for the one before in the same bin, and neighbours often share one.
 */
static void count_two(struct counted a, struct counted b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        a.bins[a.keys[i]]++;
        b.bins[b.keys[i]]++;
    }
}

static unsigned count_end(const struct merge *merge, const struct order *order)
{
    return group_end(order->n_counted, GROUP_SERIES, n_series(merge));
}

/* Elements as stored. */
static void count_packed(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                         struct count_acc *accs)
{
    const struct order *order = tile->stats;
    unsigned series[TASK_FUSED], n = 0, end = count_end(merge, order);
    uint32_t *bins[TASK_FUSED];

    for (unsigned i = order->n_counted; i < end; i++) {
        if (user_of(merge)->has_cuts(merge, i)) {
            series[n] = i;
            bins[n++] = accs[i - order->n_counted].bins;
        }
        if (n == TASK_FUSED || (n > 0 && i + 1 == end)) {
            user_of(merge)->count(merge, kernels, tile, series, n, BINS_16, bins);
            n = 0;
        }
    }
}

static void count_reals(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                        struct count_acc *accs)
{
    const struct order *order = tile->stats;
    struct counted two[2];
    unsigned n = 0;

    for (unsigned i = order->n_counted; i < count_end(merge, order); i++) {
        if (!user_of(merge)->has_cuts(merge, i))
            continue;
        two[n] = (struct counted){spread_keys(merge, kernels, tile, i, n), accs[i - order->n_counted].bins};
        if (++n < 2)
            continue;
        count_two(two[0], two[1], tile->n);
        n = 0;
    }
    if (n > 0)
        count_one(two[0], tile->n);
}

static void count_add(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                      void *acc)
{
    if (tile->packed)
        count_packed(merge, kernels, tile, acc);
    else
        count_reals(merge, kernels, tile, acc);
}

/* The block in which the skip-th element of a bin is. */
static void find_block(const struct histogram *histogram, uint32_t bin, struct cut *cut)
{
    const struct blocks *blocks = histogram->blocks;
    size_t block = 0;

    while (block + 1 < blocks->n && histogram_bins(histogram, block)[bin] <= cut->skip)
        cut->skip -= histogram_bins(histogram, block++)[bin];
    cut->from = blocks->first + block * blocks->size;
    cut->to = blocks->end - cut->from < blocks->size ? blocks->end : cut->from + blocks->size;
}

/* Where no equal element from `from` on is before the cut, that will do as the index. */
static void settle_index(struct cut *cut)
{
    if (cut->skip > 0)
        return;
    cut->index = cut->from;
    cut->from = cut->to = 0;
}

static real_bits key_of_bin(const struct merge *merge, uint32_t bin)
{
    const uint16_t half = (uint16_t)bin;
    real value;
    real_bits key;

    if (refines(merge))
        return bin;
    if (bin > (merge->work == DTYPE_BF16 ? INFINITE_BF16 : INFINITE_F16))
        return REAL_NAN;
    kernels_best()->load[merge->work](&half, &value, 1);
    memcpy(&key, &value, sizeof(key));
    return key;
}

static void cut_counted(const struct merge *merge, const struct histogram *histogram, struct cut *cut)
{
    uint32_t bin;

    cut->skip = cut->rank;
    bin = histogram_find(histogram, cut->descending, &cut->skip);
    cut->key = key_of_bin(merge, bin);
    if (refines(merge))
        return;
    find_block(histogram, bin, cut);
    settle_index(cut);
}

/* Zeros move to their bin. How many there are. */
static uint64_t join_zeros(const struct blocks *blocks, unsigned series)
{
    uint64_t zeros = 0;

    for (size_t b = 0; b < blocks->n; b++) {
        char *acc = (char *)(uintptr_t)blocks->accs + b * blocks->acc_size;
        uint32_t *bins = ((struct count_acc *)(void *)acc)[series].bins;
        for (unsigned i = 0; i < ZEROS; i++) {
            bins[0] += bins[BINS_16 + i];
            zeros += bins[BINS_16 + i];
        }
    }
    return zeros;
}

static void count_series(const struct merge *merge, struct order *order, unsigned series,
                         const struct blocks *blocks)
{
    unsigned at = series - order->n_counted;
    struct histogram histogram = {blocks, at * sizeof(struct count_acc), BINS_16};
    struct cut *cuts = order->cuts + series * ORDER_CUTS;

    user_of(merge)->choose(merge, series, merge->n - join_zeros(blocks, at), cuts);
    for (unsigned i = 0; i < ORDER_CUTS; i++)
        if (cuts[i].wanted)
            cut_counted(merge, &histogram, &cuts[i]);
}

static void count_finish(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct order *order = state;
    unsigned n = n_series(merge), end = count_end(merge, order);

    for (unsigned i = order->n_counted; i < end; i++)
        if (user_of(merge)->has_cuts(merge, i))
            count_series(merge, order, i, blocks);
    order->n_counted = end;
    order->bits_left = refines(merge) ? key_shift(merge) - REFINED : 0;
    while (order->n_counted < n && !group_has_cuts(merge, order->n_counted))
        order->n_counted = group_end(order->n_counted, GROUP_SERIES, n);
}

/* ---- counts that another run has left, of a series each: the bins that are not empty, from the first on, as
 * pairs of numbers: how many bins further on than the one before, and how many elements. A number has 7 bits
 * a byte, low ones first; all but the last byte have the 8th set. */

struct counts {
    unsigned char *data;
    size_t len, at;
};

static void write_number(struct counts *counts, uint64_t number)
{
    for (; number > 127; number >>= 7)
        counts->data[counts->len++] = (unsigned char)(number | 128);
    counts->data[counts->len++] = (unsigned char)number;
}

static bool read_number(struct counts *counts, uint64_t *number)
{
    unsigned shift = 0;

    *number = 0;
    while (counts->at < counts->len && shift < 64) {
        unsigned char byte = counts->data[counts->at++];
        *number |= (uint64_t)(byte & 127) << shift;
        shift += 7;
        if (!(byte & 128))
            return true;
    }
    return false;
}

static void leave_series(const struct blocks *blocks, unsigned at, unsigned series, struct leavings *to)
{
    enum { PAIR_MAX = 20, UNIT = HISTOGRAM_UNIT };
    const struct histogram histogram = {blocks, at * sizeof(struct count_acc), BINS_16};
    struct counts counts = {malloc((BINS_16 + ZEROS) * PAIR_MAX), 0, 0};
    uint64_t totals[UNIT];
    uint32_t last = 0;

    for (uint32_t first = 0; counts.data && first < BINS_16 + ZEROS; first += UNIT) {
        uint32_t n = first < BINS_16 ? UNIT : ZEROS;
        histogram_add_up(&histogram, first, n, totals);
        for (uint32_t i = 0; i < n; i++) {
            if (totals[i] == 0)
                continue;
            write_number(&counts, first + i - last);
            write_number(&counts, totals[i]);
            last = first + i;
        }
    }
    if (counts.data)
        to->put(to, series, counts.data, counts.len);
    free(counts.data);
}

static void count_leave(const struct merge *merge, const void *state, const struct blocks *blocks,
                        struct leavings *to)
{
    const struct order *order = state;
    unsigned end = count_end(merge, order);

    for (unsigned i = order->n_counted; i < end; i++)
        if (user_of(merge)->has_cuts(merge, i))
            leave_series(blocks, i - order->n_counted, i, to);
}

/* The counts must be those of n elements. */
static bool fill_bins(struct counts *counts, uint64_t n, uint32_t bins[BINS_16 + ZEROS])
{
    uint64_t bin = 0, step, total, sum = 0;

    while (counts->at < counts->len) {
        if (!read_number(counts, &step) || !read_number(counts, &total))
            return false;
        bin += step;
        if (step >= BINS_16 + ZEROS || bin >= BINS_16 + ZEROS || total > n - sum)
            return false;
        bins[bin] = (uint32_t)total;
        sum += total;
    }
    return sum == n;
}

static bool resume_series(const struct merge *merge, unsigned series, struct count_acc *acc,
                          struct leavings *from)
{
    struct counts counts = {0};
    bool good;

    counts.data = from->get(from, series, &counts.len);
    good = counts.data && fill_bins(&counts, merge->n, acc->bins);
    free(counts.data);
    return good;
}

/* As if all had been one block: the index is then looked for in all of it. */
static bool count_resume(const struct merge *merge, void *state, struct leavings *from)
{
    const struct order *order = state;
    unsigned end = count_end(merge, order);
    struct count_acc *accs = merge->n > 0 && merge->n <= UINT32_MAX ? calloc(1, count_size(merge)) : NULL;
    struct blocks blocks = {0, merge->n, merge->n, 1, (const char *)accs, count_size(merge)};
    bool good = accs;

    for (unsigned i = order->n_counted; i < end && good; i++)
        if (user_of(merge)->has_cuts(merge, i))
            good = resume_series(merge, i, &accs[i - order->n_counted], from);
    if (good)
        count_finish(merge, state, &blocks);
    free(accs);
    return good;
}

/* ---- the lower bits of a cut's key, where there are more than the first bins tell apart */

static size_t refine_size(const struct merge *merge)
{
    return group_end(0, GROUP_CUTS, n_cuts(merge)) * sizeof(struct refine_acc);
}

static unsigned next_wanted(const struct order *order, unsigned first, unsigned n)
{
    while (first < n && !order->cuts[first].wanted)
        first++;
    return first;
}

/* The cuts of a pass: the next GROUP_CUTS wanted ones, whose accumulators are in this order. */
struct cut_group {
    unsigned n, cuts[GROUP_CUTS];
};

static struct cut_group next_cuts(const struct merge *merge, const struct order *order)
{
    struct cut_group group = {0};
    unsigned n = n_cuts(merge), c = next_wanted(order, order->n_refined, n);

    for (; c < n && group.n < GROUP_CUTS; c = next_wanted(order, c + 1, n))
        group.cuts[group.n++] = c;
    return group;
}

/* Below the bits that a pass looks at: in float32 it is the last. */
static unsigned bits_left(const struct order *order)
{
    return REAL_MAGNITUDE - 15 > REFINED ? order->bits_left : 0;
}

static void refine_add(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                       void *acc)
{
    const struct order *order = tile->stats;
    struct cut_group group = next_cuts(merge, order);
    const unsigned left = bits_left(order);
    struct refine_acc *accs = acc;

    for (unsigned g = 0; g < group.n; g++) {
        const real_bits upper = order->cuts[group.cuts[g]].key,
                        *keys = series_keys(merge, kernels, tile, group.cuts[g] / ORDER_CUTS, 0);
        for (size_t i = 0; i < tile->n; i++)
            if (keys[i] >> (left + REFINED) == upper)
                accs[g].bins[keys[i] >> left & (BINS_LOW - 1)]++;
    }
}

static void refine_cut(const struct histogram *histogram, bool last, struct cut *cut)
{
    uint32_t bin = histogram_find(histogram, cut->descending, &cut->skip);

    cut->key = cut->key << REFINED | bin;
    if (!last)
        return;
    find_block(histogram, bin, cut);
    settle_index(cut);
}

static void refine_finish(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct order *order = state;
    struct cut_group group = next_cuts(merge, order);

    for (unsigned g = 0; g < group.n; g++) {
        struct histogram histogram = {blocks, g * sizeof(struct refine_acc), BINS_LOW};
        refine_cut(&histogram, bits_left(order) == 0, &order->cuts[group.cuts[g]]);
        order->n_refined = group.cuts[g] + 1;
    }
    if (bits_left(order) > 0 && next_wanted(order, order->n_refined, n_cuts(merge)) == n_cuts(merge)) {
        order->bits_left -= REFINED;
        order->n_refined = 0;
    }
}

/* ---- the index */

static size_t locate_size(const struct merge *merge)
{
    return n_cuts(merge) * sizeof(struct locate_acc);
}

/* Elements [*first, *end): of the first cut that lacks its index; of all of them, where their ranges together
 * are no shorter than what lies between the outermost. */
static void locate_span(const struct merge *merge, const struct order *order, uint64_t *first, uint64_t *end)
{
    uint64_t low = UINT64_MAX, high = 0, sum = 0;

    *first = *end = 0;
    for (unsigned c = 0; c < n_cuts(merge); c++) {
        const struct cut *cut = &order->cuts[c];
        if (cut->from == cut->to)
            continue;
        if (sum == 0) {
            *first = cut->from;
            *end = cut->to;
        }
        low = cut->from < low ? cut->from : low;
        high = cut->to > high ? cut->to : high;
        sum += cut->to - cut->from;
    }
    if (sum > 0 && sum >= high - low) {
        *first = low;
        *end = high;
    }
}

static void locate_range(const struct merge *merge, const void *state, uint64_t *first, uint64_t *n)
{
    uint64_t end;

    locate_span(merge, state, first, &end);
    *n = end - *first;
}

static real_bits key_of(real x)
{
    real_bits bits;

    memcpy(&bits, &x, sizeof(bits));
    bits &= REAL_BITS_MAX >> 1;
    return bits < REAL_NAN ? bits : REAL_NAN;
}

static size_t count_equals(const real *x, real_bits key, size_t n)
{
    real_bits equals = 0;

    for (size_t i = 0; i < n; i++)
        equals += key_of(x[i]) == key;
    return (size_t)equals;
}

/* Index of the skip-th element from `at` on that has the key. */
static size_t nth_equal(const real *x, real_bits key, size_t at, uint64_t skip)
{
    for (;; at++)
        if (key_of(x[at]) == key && skip-- == 0)
            return at;
}

/* Elements are looked at one by one only in the tile that has the one that is wanted. */
static void locate_equals(const struct cut *cut, const struct tile *tile, const real *x,
                          struct locate_acc *acc)
{
    uint64_t first = tile->first, last = tile->first + tile->n;
    size_t begin = cut->from > first ? (size_t)(cut->from - first) : 0;
    size_t end = cut->to < last ? (size_t)(cut->to - first) : tile->n;
    size_t equals = count_equals(x + begin, cut->key, end - begin);

    if (acc->equals <= cut->skip && acc->equals + equals > cut->skip)
        acc->index = first + nth_equal(x, cut->key, begin, cut->skip - acc->equals);
    acc->equals += equals;
}

static void locate_add(const struct merge *merge, const struct kernels *kernels, const struct tile *tile,
                       void *acc)
{
    const struct order *order = tile->stats;
    struct locate_acc *accs = acc;

    for (unsigned c = 0; c < n_cuts(merge); c++) {
        const struct cut *cut = &order->cuts[c];
        if (cut->from >= tile->first + tile->n || cut->to <= tile->first)
            continue;
        user_of(merge)->values(merge, kernels, tile, c / ORDER_CUTS, tile->out);
        locate_equals(cut, tile, tile->out, &accs[c]);
    }
}

/* The index is known where no equal element is in an earlier block of the pass; else the range shrinks. */
static void locate_cut(struct cut *cut, unsigned c, const struct blocks *blocks)
{
    uint64_t before = 0;

    for (size_t b = 0; b < blocks->n; b++) {
        const char *at = blocks->accs + b * blocks->acc_size;
        const struct locate_acc *acc = (const struct locate_acc *)(const void *)at + c;
        uint64_t begin = blocks->first + b * blocks->size;
        if (before + acc->equals <= cut->skip) {
            before += acc->equals;
            continue;
        }
        if (before == 0) {
            cut->index = acc->index;
            cut->from = cut->to = 0;
            return;
        }
        cut->skip -= before;
        cut->from = begin > cut->from ? begin : cut->from;
        cut->to = cut->to - begin < blocks->size ? cut->to : begin + blocks->size;
        settle_index(cut);
        return;
    }
    cut->index =
        cut->to; /* every element equals itself, so this is not reached while sources stay as they are */
    cut->from = cut->to = 0;
}

static void locate_finish(const struct merge *merge, void *state, const struct blocks *blocks)
{
    struct order *order = state;

    for (unsigned c = 0; c < n_cuts(merge); c++) {
        struct cut *cut = &order->cuts[c];
        if (cut->from != cut->to && cut->from >= blocks->first && cut->to <= blocks->end)
            locate_cut(cut, c, blocks);
    }
}

static const struct pass count_pass = {.acc_size = count_size,
                                       .add = count_add,
                                       .finish = count_finish,
                                       .leave = count_leave,
                                       .resume = count_resume,
                                       .block_min = BLOCK},
                         refine_pass = {.acc_size = refine_size,
                                        .add = refine_add,
                                        .finish = refine_finish,
                                        .block_min = BLOCK},
                         locate_pass = {.acc_size = locate_size,
                                        .add = locate_add,
                                        .finish = locate_finish,
                                        .range = locate_range};

const struct pass *order_next(const struct merge *merge, const struct order *order)
{
    uint64_t first, end;

    if (order->n_counted < n_series(merge))
        return &count_pass;
    if (refines(merge) && next_wanted(order, order->n_refined, n_cuts(merge)) < n_cuts(merge))
        return &refine_pass;
    locate_span(merge, order, &first, &end);
    return first < end ? &locate_pass : NULL;
}
