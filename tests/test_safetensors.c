#include "safetensors.h"

#include <endian.h>
#include <errno.h>

#include "scratch_dir.h"

#include "fail_alloc.h"

static struct arena arena;
static struct st_tensor *list;
static size_t n;

static void forget(void)
{
    free(list);
    list = NULL;
    arena_fini(&arena);
}

static int parse(const char *json, uint64_t data_len, struct err *err)
{
    char *exact = memcpy(__real_malloc(strlen(json) + 1), json, strlen(json)); /* no NUL behind it */
    int ret;

    forget();
    ret = st_parse(&arena, exact, strlen(json), data_len, &list, &n, err);
    free(exact);
    return ret;
}

static int teardown(void **state)
{
    (void)state;
    forget();
    return 0;
}

static void expect(const char *json, uint64_t data_len, size_t count)
{
    struct err err = {""};

    parse(json, data_len, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(n, count);
}

static void test_parse(void **state)
{
    (void)state;
    expect("{\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[8,20]},"
           "\"__metadata__\":{\"format\":\"pt\",\"x\":\"\"},"
           "\"a\":{\"data_offsets\":[0,8],\"later\":[{}],\"shape\":[],\"dtype\":\"I64\"}}   ",
           20, 2);
    assert_string_equal(list[0].name, "a");
    assert_int_equal(list[0].dtype, DTYPE_I64);
    assert_int_equal(list[0].ndim, 0);
    assert_int_equal(list[0].n, 1);
    assert_int_equal(list[0].begin, 0);
    assert_int_equal(list[0].len, 8);
    assert_string_equal(list[1].name, "b");
    assert_int_equal(list[1].dtype, DTYPE_BF16);
    assert_int_equal(list[1].ndim, 2);
    assert_int_equal(list[1].shape[0], 2);
    assert_int_equal(list[1].shape[1], 3);
    assert_int_equal(list[1].n, 6);
    assert_int_equal(list[1].begin, 8);
    assert_int_equal(list[1].len, 12);
}

static void test_no_tensors(void **state)
{
    (void)state;
    expect("{}", 0, 0);
    expect("{\"__metadata__\":{}}", 0, 0);
}

static void test_no_elements(void **state)
{
    (void)state;
    expect("{\"z\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
           "\"y\":{\"dtype\":\"F32\",\"shape\":[0,9],\"data_offsets\":[0,0]},"
           "\"x\":{\"dtype\":\"F32\",\"shape\":[9,0],\"data_offsets\":[4,4]}}",
           4, 3);
    assert_string_equal(list[0].name, "y");
    assert_int_equal(list[0].n, 0);
    assert_string_equal(list[1].name, "z");
    assert_string_equal(list[2].name, "x");
}

static void test_half_bytes(void **state)
{
    (void)state;
    expect("{\"x\":{\"dtype\":\"F4\",\"shape\":[1,2],\"data_offsets\":[0,1]},"
           "\"y\":{\"dtype\":\"F6_E2M3\",\"shape\":[4],\"data_offsets\":[1,4]}}",
           4, 2);
    assert_int_equal(list[0].n, 2);
    assert_int_equal(list[1].len, 3);
}

static void test_every_type(void **state)
{
    char json[200];

    (void)state;
    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        unsigned bytes = dtype_bits((enum dtype)i);
        snprintf(json, sizeof(json), "{\"x\":{\"dtype\":\"%s\",\"shape\":[2,4],\"data_offsets\":[0,%u]}}",
                 dtype_name((enum dtype)i), bytes);
        expect(json, bytes, 1);
        assert_int_equal(list[0].dtype, i);
    }
}

static void test_eight_dimensions(void **state)
{
    (void)state;
    expect("{\"x\":{\"dtype\":\"U8\",\"shape\":[1,1,2,1,1,1,1,3],\"data_offsets\":[0,6]}}", 6, 1);
    assert_int_equal(list[0].ndim, 8);
    assert_int_equal(list[0].shape[7], 3);
}

#define ONE(fields) "{\"x\":{" fields "}}"
#define TYPE "\"dtype\":\"U8\","
#define SHAPE "\"shape\":[4],"
#define OFFSETS "\"data_offsets\":[0,4]"

static const struct {
    const char *json;
    uint64_t data_len;
    const char *says;
} broken[] = {
    {"", 0, "the text ends too early"},
    {"[]", 0, "the header is not an object"},
    {"{}x", 0, "something follows"},
    {"{\"x\":{},}", 0, "dtype is missing"},
    {"{\"x\":3}", 0, "tensor \"x\": it is not described by an object"},
    {ONE(SHAPE OFFSETS), 4, "tensor \"x\": dtype is missing"},
    {ONE(TYPE OFFSETS), 4, "tensor \"x\": shape is missing"},
    {ONE(TYPE "\"shape\":[4]"), 4, "tensor \"x\": data_offsets are missing"},
    {ONE("\"dtype\":7," SHAPE OFFSETS), 4, "tensor \"x\": dtype is not a string"},
    {ONE("\"dtype\":\"u8\"," SHAPE OFFSETS), 4, "tensor \"x\": unknown dtype \"u8\""},
    {ONE("\"dtype\":\"U8\\u0000\"," SHAPE OFFSETS), 4, "tensor \"x\": unknown dtype \"U8?\""},
    {ONE("\"dtype\":\"\\u001b[31m\"," SHAPE OFFSETS), 4, "unknown dtype \"?[31m\""},
    {ONE(TYPE "\"shape\":4," OFFSETS), 4, "tensor \"x\": shape is not a list"},
    {ONE(TYPE "\"shape\":[4.0]," OFFSETS), 4, "shape holds something that is no whole number"},
    {ONE(TYPE "\"shape\":[-4]," OFFSETS), 4, "shape holds something that is no whole number"},
    {ONE(TYPE "\"shape\":[\"4\"]," OFFSETS), 4, "shape holds something that is no whole number"},
    {ONE(TYPE "\"shape\":[[4]]," OFFSETS), 4, "shape holds something that is no whole number"},
    {ONE(TYPE "\"shape\":[18446744073709551616]," OFFSETS), 4, "no whole number below 2^64"},
    {ONE(TYPE "\"shape\":[1,1,1,1,1,1,1,1,4]," OFFSETS), 4, "tensor \"x\": more than 8 dimensions"},
    {ONE(TYPE "\"shape\":[4294967296,4294967296]," OFFSETS), 4, "the number of elements overflows"},
    {ONE(TYPE "\"shape\":[2,9223372036854775808,0]," OFFSETS), 4, "the number of elements overflows"},
    {ONE("\"dtype\":\"F32\",\"shape\":[4611686018427387905]," OFFSETS), 4, "the size overflows"},
    {ONE("\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]"), 1, "no whole number of bytes"},
    {ONE("\"dtype\":\"F6_E3M2\",\"shape\":[2],\"data_offsets\":[0,2]"), 2, "no whole number of bytes"},
    {ONE(TYPE SHAPE "\"data_offsets\":7"), 4, "data_offsets are not two whole numbers"},
    {ONE(TYPE SHAPE "\"data_offsets\":[]"), 4, "data_offsets are not two whole numbers"},
    {ONE(TYPE SHAPE "\"data_offsets\":[0]"), 4, "data_offsets are not two whole numbers"},
    {ONE(TYPE SHAPE "\"data_offsets\":[0,4,8]"), 4, "data_offsets are not two whole numbers"},
    {ONE(TYPE SHAPE "\"data_offsets\":[0,4.0]"), 4, "data_offsets are not two whole numbers"},
    {ONE(TYPE SHAPE "\"data_offsets\":[-4,0]"), 4, "data_offsets are not two whole numbers"},
    {ONE(TYPE SHAPE "\"data_offsets\":[4,0]"), 4, "begin <= end"},
    {ONE(TYPE SHAPE "\"data_offsets\":[0,5]"), 5, "shape and dtype make 4 bytes, but data_offsets hold 5"},
    {ONE(TYPE TYPE SHAPE OFFSETS), 4, "the key \"dtype\" is given twice"},
    {ONE(TYPE SHAPE OFFSETS ",\"later\":[1,]"), 4, "a value was expected"},
    {ONE(TYPE SHAPE OFFSETS), 3, "truncated: its tensors take 4 bytes, but only 3 follow the header"},
    {ONE(TYPE SHAPE OFFSETS), 6, "2 bytes at the end belong to no tensor"},
    {"{}", 1, "1 bytes at the end belong to no tensor"},
    {ONE(TYPE SHAPE "\"data_offsets\":[2,6]"), 6, "2 bytes before tensor \"x\" belong to none"},
    {"{\"x\":{" TYPE SHAPE OFFSETS "},\"y\":{" TYPE SHAPE "\"data_offsets\":[3,7]}}", 7,
     "tensors \"x\" and \"y\" overlap"},
    {"{\"x\":{" TYPE SHAPE OFFSETS "},\"y\":{" TYPE SHAPE OFFSETS "}}", 4, "tensors \"x\" and \"y\" overlap"},
    {"{\"x\":{" TYPE SHAPE OFFSETS "},\"y\":{" TYPE SHAPE "\"data_offsets\":[5,9]}}", 9,
     "1 bytes before tensor \"y\" belong to none"},
    {"{\"x\":{" TYPE SHAPE OFFSETS "},\"y\":{" TYPE "\"shape\":[0],\"data_offsets\":[2,2]}}", 4, "overlap"},
    {"{\"x\":{" TYPE SHAPE OFFSETS "},\"\\u0078\":{" TYPE SHAPE "\"data_offsets\":[4,8]}}", 8,
     "the key \"x\" is given twice"},
    {"{\"a\\u0000b\":{" TYPE SHAPE OFFSETS "}}", 4, "tensor \"a?b\": its name holds control characters"},
    {"{\"a\\nb\":{" TYPE SHAPE OFFSETS "}}", 4, "tensor \"a?b\": its name holds control characters"},
    {"{\"a\\u009b\":{" TYPE SHAPE OFFSETS "}}", 4, "control characters"},
    {"{\"__metadata__\":3}", 0, "__metadata__ does not map strings to strings"},
    {"{\"__metadata__\":null}", 0, "__metadata__ does not map strings to strings"},
    {"{\"__metadata__\":[\"a\"]}", 0, "__metadata__ does not map strings to strings"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__ does not map strings to strings"},
    {"{\"__metadata__\":{\"a\":\"b\",\"a\":\"c\"}}", 0, "the key \"a\" is given twice"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "the key \"__metadata__\" is given twice"},
};

static void test_broken(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(broken) / sizeof(*broken); i++) {
        struct err err = {"nothing was said"};
        int ret = parse(broken[i].json, broken[i].data_len, &err);
        assert_says(err.text, broken[i].says);
        assert_int_equal(ret, -EINVAL);
        assert_int_equal(parse(broken[i].json, broken[i].data_len, NULL), -EINVAL);
    }
}

/* Whatever a valid header is cut at, it is refused. */
static void test_cut(void **state)
{
    static const char whole[] = "{\"__metadata__\":{\"a\":\"b\"},\"x\":{" TYPE SHAPE OFFSETS "}}";
    char cut[sizeof(whole)];

    (void)state;
    expect(whole, 4, 1);
    for (size_t len = 0; len + 1 < sizeof(whole); len++) {
        struct err err = {""};
        snprintf(cut, sizeof(cut), "%.*s", (int)len, whole);
        assert_int_equal(parse(cut, 4, &err), -EINVAL);
        assert_string_not_equal(err.text, "");
    }
}

static void expect_length(uint64_t word, uint64_t file_len, int code, const char *says)
{
    uint64_t stored = htole64(word), len = 77;
    unsigned char bytes[8];
    struct err err = {""};

    memcpy(bytes, &stored, sizeof(bytes));
    assert_int_equal(st_header_len(bytes, file_len, &len, &err), code);
    assert_says(err.text, says);
    assert_int_equal(len, code ? 77 : word);
}

static void test_header_len(void **state)
{
    (void)state;
    expect_length(2, 10, 0, "");
    expect_length(ST_HEADER_MAX, (uint64_t)ST_HEADER_MAX + 8, 0, "");
    expect_length(0, 0, -EINVAL, "only 0 bytes");
    expect_length(0, 7, -EINVAL, "only 7 bytes");
    expect_length(3, 10, -EINVAL, "truncated: the header takes 3 bytes, but only 2 follow");
    expect_length((uint64_t)ST_HEADER_MAX + 1, UINT64_MAX, -EINVAL, "a header of 100000001 bytes");
    expect_length(UINT64_MAX, UINT64_MAX, -EINVAL, "a header of 18446744073709551615 bytes");
}

static void test_compare(void **state)
{
    struct st_tensor tensors[] = {
        {.name = "b", .dtype = DTYPE_U8},   {.name = "b", .dtype = DTYPE_BF16},
        {.name = "z", .dtype = DTYPE_F32},  {.name = "a", .dtype = DTYPE_BF16},
        {.name = "B", .dtype = DTYPE_BF16}, {.name = "a", .dtype = DTYPE_F16},
    };
    char order[64] = "";

    (void)state;
    qsort(tensors, 6, sizeof(*tensors), st_compare);
    for (size_t i = 0; i < 6; i++)
        snprintf(order + strlen(order), sizeof(order) - strlen(order), "%s:%s ", dtype_name(tensors[i].dtype),
                 tensors[i].name);
    assert_string_equal(order, "F32:z BF16:B BF16:a BF16:b F16:a U8:b ");
}

static const struct st_tensor rendered[] = {
    {.name = "w\"\\\xc3\xa9", .dtype = DTYPE_BF16, .ndim = 2, .shape = {2, 3}, .n = 6, .begin = 0, .len = 12},
    {.name = "scalar", .dtype = DTYPE_F16, .n = 1, .begin = 12, .len = 2},
    {.name = "empty", .dtype = DTYPE_F16, .ndim = 1, .begin = 14},
};

static void test_render(void **state)
{
    static const char json[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"w\\\"\\\\\xc3\xa9\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[0,12]},"
        "\"scalar\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[12,14]},"
        "\"empty\":{\"dtype\":\"F16\",\"shape\":[0],\"data_offsets\":[14,14]}}";
    static const uint64_t aligns[] = {1, 8, 64, 4096};
    uint64_t word, len;
    char *out;

    (void)state;
    for (size_t i = 0; i < sizeof(aligns) / sizeof(*aligns); i++) {
        struct err err = {""};
        assert_int_equal(st_render(rendered, 3, aligns[i], &out, &len, &err), 0);
        assert_int_equal(len % aligns[i], 0);
        assert_in_range(len, 8 + sizeof(json) - 1, 8 + sizeof(json) - 2 + aligns[i]);
        memcpy(&word, out, 8);
        assert_int_equal(le64toh(word), len - 8);
        assert_memory_equal(out + 8, json, sizeof(json) - 1);
        for (uint64_t k = 8 + sizeof(json) - 1; k < len; k++)
            assert_int_equal(out[k], ' ');
        forget();
        assert_int_equal(st_parse(&arena, out + 8, len - 8, 14, &list, &n, &err), 0);
        assert_int_equal(n, 3);
        assert_string_equal(list[0].name, rendered[0].name);
        free(out);
    }
}

static void test_render_none(void **state)
{
    uint64_t len;
    char *out;

    (void)state;
    assert_int_equal(st_render(NULL, 0, 16, &out, &len, NULL), 0);
    assert_int_equal(len, 48);
    assert_memory_equal(out + 8, "{\"__metadata__\":{\"format\":\"pt\"}}        ", 40);
    free(out);
}

static void test_render_too_large(void **state)
{
    enum { NAME = 10 * 1000 * 1000 };
    char *name = calloc(1, NAME + 1);
    struct st_tensor tensors[10];
    struct err err = {""};
    uint64_t len;
    char *out;

    (void)state;
    memset(name, 'x', NAME);
    for (size_t i = 0; i < 10; i++)
        tensors[i] = (struct st_tensor){.name = name, .dtype = DTYPE_U8};
    assert_int_equal(st_render(tensors, 10, 8, &out, &len, &err), -EINVAL);
    assert_says(err.text, "the format allows 100000000");
    assert_int_equal(st_render(tensors, 9, 8, &out, &len, &err), 0);
    free(out);
    free(name);
}

static void test_no_memory(void **state)
{
    struct err err = {""};
    char *json = NULL;
    size_t len;
    FILE *out = open_memstream(&json, &len);
    int count = 300;

    (void)state;
    fprintf(out, "{\"__metadata__\":{}");
    for (int i = 0; i < count; i++)
        fprintf(out, ",\"t%d\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[%d,%d]}", i, 4 * i,
                4 * i + 4);
    fprintf(out, "}");
    fclose(out);
    assert_in_range(refuse_each_alloc(parse(json, (uint64_t)count * 4, &err)), 10, 100);
    assert_string_equal(err.text, "out of memory");
    assert_int_equal(n, count);
    free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_no_tensors),
        cmocka_unit_test(test_no_elements),
        cmocka_unit_test(test_half_bytes),
        cmocka_unit_test(test_every_type),
        cmocka_unit_test(test_eight_dimensions),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_header_len),
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_render),
        cmocka_unit_test(test_render_none),
        cmocka_unit_test(test_render_too_large),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, teardown);
}
