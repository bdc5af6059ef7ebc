/* Sums over the blocks of a pass, and where an element of a rank is in their histograms. */
#include "blocks.h"

#include "scratch_dir.h"

enum { BLOCKS = 3, BINS = 2 * HISTOGRAM_UNIT, BEFORE = 5 };

struct acc {
    uint32_t other[BEFORE], bins[BINS];
};

static void test_sums(void **state)
{
    const double sums[BLOCKS][4] = {{1, 0x1p60}, {2, 1}, {4, -0x1p60}};
    const uint64_t counts[BLOCKS][2] = {{1, UINT32_MAX}, {0, UINT32_MAX}, {5, 2}};
    struct blocks of_sums = {.n = BLOCKS, .accs = (const void *)sums, .acc_size = sizeof(sums[0])};
    struct blocks of_counts = {.n = BLOCKS, .accs = (const void *)counts, .acc_size = sizeof(counts[0])};

    (void)state;
    assert_true(blocks_sum(&of_sums, 0) == 7);
    assert_true(blocks_sum(&of_sums, 1) == 0); /* in order: the 1 is lost */
    assert_int_equal(blocks_count(&of_counts, 0), 6);
    assert_int_equal(blocks_count(&of_counts, 1), 0x200000000);
    of_sums.n = of_counts.n = 0;
    assert_true(blocks_sum(&of_sums, 0) == 0);
    assert_int_equal(blocks_count(&of_counts, 0), 0);
}

static void check_find(const struct histogram *histogram, bool descending, uint64_t rank, uint32_t bin,
                       uint64_t within)
{
    uint64_t left = rank;
    uint32_t got = histogram_find(histogram, descending, &left);

    if (got != bin || left != within)
        fail_msg("rank %zu: bin %u and %zu instead of %u and %zu", (size_t)rank, got, (size_t)left, bin,
                 (size_t)within);
}

static void test_histogram(void **state)
{
    struct acc *accs = calloc(BLOCKS, sizeof(*accs));
    struct blocks blocks = {.n = BLOCKS, .accs = (const char *)accs, .acc_size = sizeof(*accs)};
    struct histogram histogram = {&blocks, offsetof(struct acc, bins), BINS};

    (void)state;
    assert_non_null(accs);
    for (int b = 0; b < BLOCKS; b++)
        memset(accs[b].other, 0xff, sizeof(accs[b].other));
    accs[0].bins[3] = 2;
    accs[2].bins[3] = 1;
    accs[1].bins[HISTOGRAM_UNIT] = UINT32_MAX;
    accs[2].bins[HISTOGRAM_UNIT] = UINT32_MAX;
    accs[1].bins[BINS - 1] = 4;
    assert_ptr_equal(histogram_bins(&histogram, 2), accs[2].bins);
    check_find(&histogram, false, 0, 3, 0);
    check_find(&histogram, false, 2, 3, 2);
    check_find(&histogram, false, 3, HISTOGRAM_UNIT, 0);
    check_find(&histogram, false, 0x1ffffffff, HISTOGRAM_UNIT, 0x1fffffffc);
    check_find(&histogram, false, 0x200000001, BINS - 1, 0);
    check_find(&histogram, false, 0x200000005, BINS - 1, 0);
    check_find(&histogram, true, 3, BINS - 1, 3);
    check_find(&histogram, true, 4, HISTOGRAM_UNIT, 0);
    check_find(&histogram, true, 0x200000002, 3, 0);
    check_find(&histogram, true, 0x200000005, 0, 0);
    free(accs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_histogram),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
