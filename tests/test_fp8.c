#include "fp8.h"

#include "scratch_dir.h"

#include "golden/fp8.h"
#include "memory_feed.h"

/* No feed here needs a scratch. */
static void read_all(const struct fp8_feed *feed, void *out)
{
    struct err err = {""};

    assert_int_equal(feed->feed.read(&feed->feed, 0, feed->feed.n, out, NULL, &err), 0);
    assert_string_equal(err.text, "");
}

static void assert_same(enum dtype dtype, const void *got, const void *want, size_t n)
{
    size_t at = 0, differ = float_bytes_differ(dtype, got, want, n, &at), size = dtype_bits(dtype) / 8;
    uint32_t a = 0, b = 0;

    memcpy(&a, (const char *)got + at * size, size);
    memcpy(&b, (const char *)want + at * size, size);
    if (differ)
        fail_msg("%zu of %zu elements differ, first %zu: %#x, not %#x", differ, n, at, a, b);
}

static void test_every_value(void **state)
{
    static const struct {
        enum dtype dtype;
        const uint16_t *want;
    } kinds[] = {{DTYPE_F8_E4M3, golden_e4m3},
                 {DTYPE_F8_E5M2, golden_e5m2},
                 {DTYPE_F8_E4M3FNUZ, golden_e4m3_fnuz},
                 {DTYPE_F8_E5M2FNUZ, golden_e5m2_fnuz}};
    unsigned char every[256];
    uint16_t out[256];

    (void)state;
    for (unsigned i = 0; i < 256; i++)
        every[i] = (unsigned char)i;
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        struct memory_feed weight = memory_feed(kinds[k].dtype, 256, every);
        struct fp8_feed feed;
        assert_true(fp8_is(kinds[k].dtype));
        fp8_feed_plain(&feed, &weight.feed, DTYPE_BF16);
        read_all(&feed, out);
        assert_same(DTYPE_BF16, out, kinds[k].want, 256);
    }
    assert_false(fp8_is(DTYPE_F8_E8M0));
    assert_false(fp8_is(DTYPE_U8));
    assert_false(fp8_is(DTYPE_BF16));
}

static const uint64_t shape[] = {2, 6, 8}, grid[] = {2, 3, 2}, block[] = {2, 4};

static void test_scaled_blocks(void **state)
{
    static const struct {
        enum dtype dtype;
        const void *want;
    } types[] = {
        {DTYPE_BF16, golden_scaled_bf16}, {DTYPE_F16, golden_scaled_f16}, {DTYPE_F32, golden_scaled_f32}};
    struct memory_feed weight = memory_feed(DTYPE_F8_E4M3, 96, golden_weight);
    struct memory_feed scale = memory_feed(DTYPE_F32, 12, golden_scale);
    unsigned char out[96 * 4];
    struct fp8_feed feed;
    struct err err = {""};

    (void)state;
    for (size_t k = 0; k < 3; k++) {
        size_t size = dtype_bits(types[k].dtype) / 8;
        assert_int_equal(
            fp8_feed_scaled(&feed, &weight.feed, shape, 3, &scale.feed, grid, 3, block, types[k].dtype, &err),
            0);
        assert_int_equal(feed.feed.n, 96);
        assert_int_equal(feed.feed.n_parts, 2);
        read_all(&feed, out);
        assert_same(types[k].dtype, out, types[k].want, 96);
        for (size_t first = 0; first < 96; first += 7) { /* any range gives the same */
            size_t n = 96 - first < 13 ? 96 - first : 13;
            assert_int_equal(feed.feed.read(&feed.feed, first, n, out, NULL, &err), 0);
            assert_same(types[k].dtype, out, (const char *)types[k].want + first * size, n);
        }
    }
    /* not stated, but it divides evenly */
    assert_int_equal(fp8_feed_scaled(&feed, &weight.feed, shape, 3, &scale.feed, grid, 3,
                                     (const uint64_t[]){0, 0}, DTYPE_BF16, &err),
                     0);
    read_all(&feed, out);
    assert_same(DTYPE_BF16, out, golden_scaled_bf16, 96);
}

/* w is 1 everywhere, so what is read are the scales. */
static void expect_scales(const uint64_t *weight_shape, unsigned ndim, enum dtype dtype, const void *scales,
                          const uint64_t *scale_shape, unsigned scale_ndim, const float *want)
{
    unsigned char ones[64];
    uint64_t n = 1, n_scales = 1;
    struct fp8_feed feed;
    struct memory_feed weight, scale;
    struct err err = {""};
    float out[64];

    memset(ones, 0x38, sizeof(ones));
    for (unsigned i = 0; i < ndim; i++)
        n *= weight_shape[i];
    for (unsigned i = 0; i < scale_ndim; i++)
        n_scales *= scale_shape[i];
    weight = memory_feed(DTYPE_F8_E4M3, n, ones);
    scale = memory_feed(dtype, n_scales, scales);
    assert_int_equal(fp8_feed_scaled(&feed, &weight.feed, weight_shape, ndim, &scale.feed, scale_shape,
                                     scale_ndim, (const uint64_t[]){2, 2}, DTYPE_F32, &err),
                     0);
    read_all(&feed, out);
    assert_same(DTYPE_F32, out, want, n);
}

static void test_kinds_of_scales(void **state)
{
    static const float one[] = {3}, rows[] = {3, 5, 7};
    static const uint16_t rows_bf16[] = {0x4040, 0x40a0, 0x40e0};
    static const unsigned char exponents[] = {127, 128, 129};
    static const float by_row[] = {3, 3, 5, 5, 7, 7}, by_exponent[] = {1, 1, 2, 2, 4, 4};
    static const float blocks[] = {1, 2, 3, 4, 5, 6}; /* 2 x 2 over 3 x 5: the last ones are cut */
    static const float by_block[] = {1, 1, 2, 2, 3, 1, 1, 2, 2, 3, 4, 4, 5, 5, 6};
    static const float all[] = {3, 3, 3, 3, 3, 3, 3, 3}, by_matrix[] = {3, 3, 3, 3, 5, 5, 5, 5};

    (void)state;
    expect_scales((const uint64_t[]){3, 2}, 2, DTYPE_F32, one, NULL, 0, all);
    expect_scales((const uint64_t[]){3, 2}, 2, DTYPE_F32, one, (const uint64_t[]){1}, 1, all);
    expect_scales((const uint64_t[]){6}, 1, DTYPE_F32, one, (const uint64_t[]){1}, 1, all);
    expect_scales((const uint64_t[]){2, 2, 2}, 3, DTYPE_F32, one, (const uint64_t[]){1}, 1, all);
    expect_scales((const uint64_t[]){2, 2, 2}, 3, DTYPE_F32, rows, (const uint64_t[]){2, 1, 1}, 3, by_matrix);
    expect_scales((const uint64_t[]){3, 2}, 2, DTYPE_F32, rows, (const uint64_t[]){3}, 1, by_row);
    expect_scales((const uint64_t[]){3, 2}, 2, DTYPE_F32, rows, (const uint64_t[]){3, 1}, 2, by_row);
    expect_scales((const uint64_t[]){3, 2}, 2, DTYPE_BF16, rows_bf16, (const uint64_t[]){3, 1}, 2, by_row);
    expect_scales((const uint64_t[]){3, 2}, 2, DTYPE_F8_E8M0, exponents, (const uint64_t[]){3, 1}, 2,
                  by_exponent);
    expect_scales((const uint64_t[]){3, 2}, 2, DTYPE_U8, exponents, (const uint64_t[]){3, 1}, 2, by_exponent);
    expect_scales((const uint64_t[]){3, 5}, 2, DTYPE_F32, blocks, (const uint64_t[]){2, 3}, 2, by_block);
}

static void test_scales_that_do_not_fit(void **state)
{
    struct memory_feed weight = memory_feed(DTYPE_F8_E4M3, 96, golden_weight);
    struct memory_feed scale = memory_feed(DTYPE_F32, 12, golden_scale),
                       wrong = memory_feed(DTYPE_I32, 12, NULL);
    struct memory_feed five = memory_feed(DTYPE_F32, 5, golden_scale);
    struct fp8_feed feed;
    struct err err = {""};

    (void)state;
    assert_int_equal(
        fp8_feed_scaled(&feed, &weight.feed, shape, 3, &wrong.feed, grid, 3, block, DTYPE_BF16, &err),
        -EINVAL);
    assert_string_equal(err.text, "scales of type I32 are not understood");
    assert_int_equal(fp8_feed_scaled(&feed, &weight.feed, shape, 3, &five.feed, (const uint64_t[]){5}, 1,
                                     block, DTYPE_BF16, &err),
                     -EINVAL);
    assert_string_equal(err.text, "its 5 scales are neither one, nor one a row, nor one a block");
    assert_int_equal(fp8_feed_scaled(&feed, &weight.feed, shape, 3, &scale.feed, (const uint64_t[]){3, 4}, 2,
                                     block, DTYPE_BF16, &err),
                     -EINVAL);
}

static void test_reads_that_fail(void **state)
{
    struct memory_feed weight = memory_feed(DTYPE_F8_E4M3, 96, golden_weight);
    struct memory_feed scale = memory_feed(DTYPE_F32, 12, golden_scale);
    struct fp8_feed feed;
    struct err err = {""};
    uint16_t out[96];

    (void)state;
    assert_int_equal(
        fp8_feed_scaled(&feed, &weight.feed, shape, 3, &scale.feed, grid, 3, block, DTYPE_BF16, &err), 0);
    weight.fails_at = 50;
    assert_int_equal(feed.feed.read(&feed.feed, 0, 96, out, NULL, &err), -EIO);
    assert_int_equal(feed.feed.read(&feed.feed, 0, 50, out, NULL, &err), 0);
    weight.fails_at = UINT64_MAX;
    scale.fails_at = 3;
    assert_int_equal(feed.feed.read(&feed.feed, 0, 96, out, NULL, &err), -EIO);
    assert_string_equal(err.text, "memory: cannot read");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_value),     cmocka_unit_test(test_scaled_blocks),
        cmocka_unit_test(test_kinds_of_scales), cmocka_unit_test(test_scales_that_do_not_fit),
        cmocka_unit_test(test_reads_that_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
