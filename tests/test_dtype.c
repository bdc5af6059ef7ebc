#include "dtype.h"

#include "scratch_dir.h"

static const struct {
    enum dtype dtype;
    const char *name, *torch;
    unsigned bits;
} types[] = {
    {DTYPE_BOOL, "BOOL", "bool", 8},
    {DTYPE_F4, "F4", "F4", 4},
    {DTYPE_F6_E2M3, "F6_E2M3", "F6_E2M3", 6},
    {DTYPE_F6_E3M2, "F6_E3M2", "F6_E3M2", 6},
    {DTYPE_U8, "U8", "uint8", 8},
    {DTYPE_I8, "I8", "int8", 8},
    {DTYPE_F8_E5M2, "F8_E5M2", "float8_e5m2", 8},
    {DTYPE_F8_E4M3, "F8_E4M3", "float8_e4m3fn", 8},
    {DTYPE_F8_E8M0, "F8_E8M0", "float8_e8m0fnu", 8},
    {DTYPE_F8_E4M3FNUZ, "F8_E4M3FNUZ", "float8_e4m3fnuz", 8},
    {DTYPE_F8_E5M2FNUZ, "F8_E5M2FNUZ", "float8_e5m2fnuz", 8},
    {DTYPE_I16, "I16", "int16", 16},
    {DTYPE_U16, "U16", "uint16", 16},
    {DTYPE_F16, "F16", "float16", 16},
    {DTYPE_BF16, "BF16", "bfloat16", 16},
    {DTYPE_I32, "I32", "int32", 32},
    {DTYPE_U32, "U32", "uint32", 32},
    {DTYPE_F32, "F32", "float32", 32},
    {DTYPE_C64, "C64", "complex64", 64},
    {DTYPE_F64, "F64", "float64", 64},
    {DTYPE_I64, "I64", "int64", 64},
    {DTYPE_U64, "U64", "uint64", 64},
};

static void test_names(void **state)
{
    (void)state;
    assert_int_equal(sizeof(types) / sizeof(*types), DTYPE_COUNT);
    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        bool in_torch = types[i].torch != types[i].name && strcmp(types[i].torch, types[i].name) != 0;
        assert_int_equal(types[i].dtype, i);
        assert_string_equal(dtype_name(types[i].dtype), types[i].name);
        assert_string_equal(dtype_torch_name(types[i].dtype), types[i].torch);
        assert_int_equal(dtype_bits(types[i].dtype), types[i].bits);
        assert_int_equal(dtype_from_name(types[i].name), i);
        assert_int_equal(dtype_from_torch(types[i].torch), in_torch ? i : DTYPE_NONE);
    }
}

static void test_other_names(void **state)
{
    (void)state;
    assert_int_equal(dtype_from_torch("torch.bfloat16"), DTYPE_BF16);
    assert_int_equal(dtype_from_torch("float"), DTYPE_F32);
    assert_int_equal(dtype_from_torch("torch.half"), DTYPE_F16);
    assert_int_equal(dtype_from_torch("double"), DTYPE_F64);
    assert_int_equal(dtype_from_torch("BF16"), DTYPE_NONE);
    assert_int_equal(dtype_from_torch("torch.torch.half"), DTYPE_NONE);
    assert_int_equal(dtype_from_torch(""), DTYPE_NONE);
    assert_int_equal(dtype_from_name("bf16"), DTYPE_NONE);
    assert_int_equal(dtype_from_name("BF160"), DTYPE_NONE);
    assert_int_equal(dtype_bits(DTYPE_NONE), 0);
    assert_string_equal(dtype_name(DTYPE_NONE), "none");
    assert_string_equal(dtype_torch_name(DTYPE_NONE), "none");
}

static void test_classes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < DTYPE_COUNT; i++) {
        const char *name = types[i].name;
        bool is_float = strcmp(name, "F16") == 0 || strcmp(name, "BF16") == 0 || strcmp(name, "F32") == 0 ||
                        strcmp(name, "F64") == 0;
        bool is_integer = name[0] == 'I' || name[0] == 'U' || strcmp(name, "BOOL") == 0;
        assert_int_equal(dtype_is_float(types[i].dtype), is_float);
        assert_int_equal(dtype_is_integer(types[i].dtype), is_integer);
    }
    assert_false(dtype_is_float(DTYPE_NONE));
    assert_false(dtype_is_integer(DTYPE_NONE));
}

static void test_promote(void **state)
{
    static const enum dtype order[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F32, DTYPE_F64};
    static const enum dtype expected[4][4] = {
        {DTYPE_F16, DTYPE_F32, DTYPE_F32, DTYPE_F64},
        {DTYPE_F32, DTYPE_BF16, DTYPE_F32, DTYPE_F64},
        {DTYPE_F32, DTYPE_F32, DTYPE_F32, DTYPE_F64},
        {DTYPE_F64, DTYPE_F64, DTYPE_F64, DTYPE_F64},
    };

    (void)state;
    for (unsigned a = 0; a < 4; a++)
        for (unsigned b = 0; b < 4; b++)
            assert_int_equal(dtype_promote(order[a], order[b]), expected[a][b]);
}

static void test_bytes(void **state)
{
    uint64_t bytes = 77;

    (void)state;
    assert_true(dtype_bytes(DTYPE_BF16, 3, &bytes));
    assert_int_equal(bytes, 6);
    assert_true(dtype_bytes(DTYPE_F4, 6, &bytes));
    assert_int_equal(bytes, 3);
    assert_true(dtype_bytes(DTYPE_F6_E3M2, 4, &bytes));
    assert_int_equal(bytes, 3);
    assert_true(dtype_bytes(DTYPE_U64, 0, &bytes));
    assert_int_equal(bytes, 0);
    assert_false(dtype_bytes(DTYPE_F4, 3, &bytes));
    assert_false(dtype_bytes(DTYPE_F6_E2M3, 6, &bytes));
    assert_false(dtype_bytes(DTYPE_U64, UINT64_MAX / 64 + 1, &bytes));
    assert_int_equal(bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),   cmocka_unit_test(test_other_names), cmocka_unit_test(test_classes),
        cmocka_unit_test(test_promote), cmocka_unit_test(test_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
