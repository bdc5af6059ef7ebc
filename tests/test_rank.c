#include "rank.h"

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

static void check(size_t n, unsigned bits, uint32_t distinct, unsigned seed)
{
    uint32_t *keys = calloc(n, sizeof(*keys)), *rank = calloc(n, sizeof(*rank)),
             *order[2] = {calloc(n, sizeof(**order)), calloc(n, sizeof(**order))};
    struct keyed *sorted = calloc(n, sizeof(*sorted));

    assert_non_null(sorted);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t x = (uint32_t)rand_r(&seed) * 2654435761u;
        keys[i] = (distinct ? x % distinct * 77773u : x) & (UINT32_MAX >> (32 - bits));
        sorted[i] = (struct keyed){keys[i], i};
    }
    qsort(sorted, n, sizeof(*sorted), by_key);
    rank_row(keys, n, bits, order, rank);
    for (uint32_t i = 0; i < n; i++)
        if (rank[sorted[i].index] != i)
            fail_msg("%zu of %u bits: element %u is at %u, not %u", n, bits, sorted[i].index,
                     rank[sorted[i].index], i);
    free(keys);
    free(rank);
    free(order[0]);
    free(order[1]);
    free(sorted);
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_a_sort)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
