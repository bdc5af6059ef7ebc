#include "rank.h"

#include <stdbool.h>
#include <stdlib.h>

#include "scratch_dir.h"

struct keyed {
    uint32_t key, index;
};

static int by_key(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static uint32_t next_random(unsigned *seed)
{
    return (uint32_t)rand_r(seed) * 2654435761u;
}

static void check_keys(const uint32_t *keys, size_t n, unsigned bits)
{
    uint32_t *rank = calloc(n, sizeof(*rank)),
             *order[2] = {calloc(n, sizeof(**order)), calloc(n, sizeof(**order))};
    struct keyed *sorted = calloc(n, sizeof(*sorted));

    assert_non_null(sorted);
    for (uint32_t i = 0; i < n; i++)
        sorted[i] = (struct keyed){keys[i], i};
    qsort(sorted, n, sizeof(*sorted), by_key);
    rank_row(kernels_best(), keys, n, bits, order, rank);
    for (uint32_t i = 0; i < n; i++)
        if (rank[sorted[i].index] != i)
            fail_msg("%zu of %u bits: element %u is at %u, not %u", n, bits, sorted[i].index,
                     rank[sorted[i].index], i);
    free(rank);
    free(order[0]);
    free(order[1]);
    free(sorted);
}

static void check(size_t n, unsigned bits, uint32_t distinct, unsigned seed)
{
    uint32_t *keys = calloc(n, sizeof(*keys));

    assert_non_null(keys);
    for (size_t i = 0; i < n; i++) {
        uint32_t x = next_random(&seed);
        keys[i] = (distinct ? x % distinct * 77773u : x) & (UINT32_MAX >> (32 - bits));
    }
    check_keys(keys, n, bits);
    free(keys);
}

/* Keys of so many values from `least` on, and zeros among them. */
static void check_range(size_t n, uint32_t least, uint32_t values, bool zeros, unsigned seed)
{
    uint32_t *keys = calloc(n, sizeof(*keys));

    assert_non_null(keys);
    for (size_t i = 0; i < n; i++)
        keys[i] = zeros && next_random(&seed) >> 24 < 50 ? 0 : least + next_random(&seed) % values;
    check_keys(keys, n, 15);
    free(keys);
}

static void test_against_a_sort(void **state)
{
    static const size_t lengths[] = {1, 2, 3, 7, 47, 48, 49, 256, 1000, 70000};

    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
        for (uint32_t distinct = 0; distinct < 40; distinct += 13) {
            check(lengths[i], 15, distinct, (unsigned)i + distinct);
            check(lengths[i], 31, distinct, (unsigned)i + distinct + 5);
        }
    check(2000, 31, 1, 1);
}

static void test_ranges(void **state)
{
    static const uint32_t values[] = {1, 2, 100, 4094, 4095, 4096, 4097};

    (void)state;
    for (size_t n = 48; n < 10000; n = n * 5 + 1)
        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
            for (int zeros = 0; zeros < 2; zeros++) {
                check_range(n, 0, values[i], zeros, (unsigned)n);
                check_range(n, 1, values[i], zeros, (unsigned)n);
                check_range(n, 0x3800, values[i], zeros, (unsigned)n);
                check_range(n, 0x8000 - values[i], values[i], zeros, (unsigned)n);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_a_sort), cmocka_unit_test(test_ranges)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
