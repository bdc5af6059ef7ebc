#include "view.h"

#include "scratch_dir.h"

#include "memory_feed.h"

static const unsigned char numbers[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,
                                        12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23};

/* Every range of the feed has these bytes. */
static void expect(const struct feed *feed, const unsigned char *want, size_t n)
{
    unsigned char out[64];
    struct err err = {""};

    assert_int_equal(feed->n, n);
    for (size_t first = 0; first <= n; first++) {
        for (size_t count = 0; first + count <= n; count++) {
            memset(out, 0xff, sizeof(out));
            assert_int_equal(feed->read(feed, first, count, out, NULL, &err), 0);
            assert_memory_equal(out, want + first, count);
            assert_int_equal(out[count], 0xff);
        }
    }
    assert_int_equal(feed->read(feed, n, 1, out, NULL, &err), -EIO);
    assert_non_null(strstr(err.text, "cannot be read alone"));
}

static void test_slices(void **state)
{
    static const unsigned char columns[] = {1, 2, 9, 10, 17, 18}, rows[] = {8, 9, 10, 11, 12, 13, 14, 15};
    struct memory_feed of = memory_feed(DTYPE_U8, 24, numbers);
    struct slice_feed slice;

    (void)state;
    slice_feed_init(&slice, &of.feed, 1, 2, 8, 3); /* [3, 8][:, 1:3] */
    expect(&slice.feed, columns, 6);
    assert_int_equal(slice.feed.n_parts, 1);
    assert_ptr_equal(slice.feed.parts[0], &of.feed);
    slice_feed_init(&slice, &of.feed, 8, 8, 24, 1); /* [3, 8][1:2] */
    expect(&slice.feed, rows, 8);
    slice_feed_init(&slice, &of.feed, 0, 8, 8, 3);
    expect(&slice.feed, numbers, 24);
    slice_feed_init(&slice, &of.feed, 0, 0, 8, 3);
    expect(&slice.feed, numbers, 0);
}

static void test_concatenations(void **state)
{
    static const unsigned char a[] = {0, 1, 2, 3}, b[] = {10, 11, 12, 13, 14, 15};
    static const unsigned char rows[] = {0, 1, 2, 3, 10, 11, 12, 13, 14, 15};
    static const unsigned char columns[] = {0, 1, 10, 11, 12, 2, 3, 13, 14, 15};
    struct memory_feed feeds[] = {memory_feed(DTYPE_U8, 4, a), memory_feed(DTYPE_U8, 6, b)};
    const struct feed *parts[] = {&feeds[0].feed, &feeds[1].feed};
    struct concat_feed concat;

    (void)state;
    concat_feed_init(&concat, parts, (const uint64_t[]){0, 4, 10}, 2, 1);
    expect(&concat.feed, rows, 10);
    concat_feed_init(&concat, parts, (const uint64_t[]){0, 2, 5}, 2, 2); /* [2, 2] and [2, 3] along 1 */
    expect(&concat.feed, columns, 10);
    assert_int_equal(concat.feed.n_parts, 2);
}

/* Experts 0 and 1, each gate and up of 2 rows of 2: [2, 4, 2] packed, and taken apart again. */
static void test_packs(void **state)
{
    struct memory_feed feeds[4];
    const struct feed *parts[4];
    struct concat_feed pack;
    struct slice_feed part;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        feeds[i] = memory_feed(DTYPE_U8, 4, numbers + 4 * i);
        parts[i] = &feeds[i].feed;
    }
    concat_feed_init(&pack, parts, (const uint64_t[]){0, 4, 8, 12, 16}, 4, 1);
    expect(&pack.feed, numbers, 16);
    slice_feed_init(&part, &pack.feed, 12, 4, 16, 1); /* up of expert 1 */
    expect(&part.feed, numbers + 12, 4);
    slice_feed_init(&part, &pack.feed, 6, 4, 16, 1); /* over an edge */
    expect(&part.feed, numbers + 6, 4);
}

static void test_wider_elements_and_failures(void **state)
{
    static const uint16_t words[] = {1, 2, 3, 4, 5, 6};
    struct memory_feed of = memory_feed(DTYPE_BF16, 6, words), nibbles = memory_feed(DTYPE_F4, 6, words);
    const struct feed *parts[] = {&of.feed, &of.feed};
    struct concat_feed concat;
    struct slice_feed slice;
    struct err err = {""};
    uint16_t out[12];

    (void)state;
    slice_feed_init(&slice, &of.feed, 1, 2, 3, 2);
    assert_int_equal(slice.feed.dtype, DTYPE_BF16);
    assert_int_equal(slice.feed.read(&slice.feed, 1, 3, out, NULL, &err), 0);
    assert_memory_equal(out, ((const uint16_t[]){3, 5, 6}), 6);
    concat_feed_init(&concat, parts, (const uint64_t[]){0, 3, 6}, 2, 2);
    assert_int_equal(concat.feed.read(&concat.feed, 2, 5, out, NULL, &err), 0);
    assert_memory_equal(out, ((const uint16_t[]){3, 1, 2, 3, 4}), 10);
    of.fails_at = 4;
    assert_int_equal(concat.feed.read(&concat.feed, 0, 12, out, NULL, &err), -EIO);
    assert_int_equal(slice.feed.read(&slice.feed, 0, 4, out, NULL, &err), -EIO);
    assert_string_equal(err.text, "memory: cannot read");
    slice_feed_init(&slice, &nibbles.feed, 0, 3, 6, 1);
    assert_int_equal(slice.feed.read(&slice.feed, 0, 3, out, NULL, &err), -EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_concatenations),
        cmocka_unit_test(test_packs),
        cmocka_unit_test(test_wider_elements_and_failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
