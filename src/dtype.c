#include "dtype.h"

#include <stddef.h>
#include <string.h>

struct dtype_row {
    const char *name, *torch;
    unsigned bits;
};

/* torch NULL: torch has no such type. */
static const struct dtype_row rows[DTYPE_COUNT] = {
    [DTYPE_BOOL] = {"BOOL", "bool", 8},
    [DTYPE_F4] = {"F4", NULL, 4},
    [DTYPE_F6_E2M3] = {"F6_E2M3", NULL, 6},
    [DTYPE_F6_E3M2] = {"F6_E3M2", NULL, 6},
    [DTYPE_U8] = {"U8", "uint8", 8},
    [DTYPE_I8] = {"I8", "int8", 8},
    [DTYPE_F8_E5M2] = {"F8_E5M2", "float8_e5m2", 8},
    [DTYPE_F8_E4M3] = {"F8_E4M3", "float8_e4m3fn", 8},
    [DTYPE_F8_E8M0] = {"F8_E8M0", "float8_e8m0fnu", 8},
    [DTYPE_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", "float8_e4m3fnuz", 8},
    [DTYPE_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", "float8_e5m2fnuz", 8},
    [DTYPE_I16] = {"I16", "int16", 16},
    [DTYPE_U16] = {"U16", "uint16", 16},
    [DTYPE_F16] = {"F16", "float16", 16},
    [DTYPE_BF16] = {"BF16", "bfloat16", 16},
    [DTYPE_I32] = {"I32", "int32", 32},
    [DTYPE_U32] = {"U32", "uint32", 32},
    [DTYPE_F32] = {"F32", "float32", 32},
    [DTYPE_C64] = {"C64", "complex64", 64},
    [DTYPE_F64] = {"F64", "float64", 64},
    [DTYPE_I64] = {"I64", "int64", 64},
    [DTYPE_U64] = {"U64", "uint64", 64},
};

unsigned dtype_bits(enum dtype dtype)
{
    return dtype < DTYPE_COUNT ? rows[dtype].bits : 0;
}

const char *dtype_name(enum dtype dtype)
{
    return dtype < DTYPE_COUNT ? rows[dtype].name : "none";
}

const char *dtype_torch_name(enum dtype dtype)
{
    return dtype < DTYPE_COUNT && rows[dtype].torch ? rows[dtype].torch : dtype_name(dtype);
}

enum dtype dtype_from_name(const char *name)
{
    for (unsigned i = 0; i < DTYPE_COUNT; i++)
        if (strcmp(rows[i].name, name) == 0)
            return (enum dtype)i;
    return DTYPE_NONE;
}

enum dtype dtype_from_torch(const char *name)
{
    static const struct {
        const char *name;
        enum dtype dtype;
    } aliases[] = {{"float", DTYPE_F32}, {"double", DTYPE_F64}, {"half", DTYPE_F16}};

    if (strncmp(name, "torch.", 6) == 0)
        name += 6;
    for (unsigned i = 0; i < DTYPE_COUNT; i++)
        if (rows[i].torch && strcmp(rows[i].torch, name) == 0)
            return (enum dtype)i;
    for (size_t i = 0; i < sizeof(aliases) / sizeof(*aliases); i++)
        if (strcmp(aliases[i].name, name) == 0)
            return aliases[i].dtype;
    return DTYPE_NONE;
}

bool dtype_is_float(enum dtype dtype)
{
    return dtype == DTYPE_F16 || dtype == DTYPE_BF16 || dtype == DTYPE_F32 || dtype == DTYPE_F64;
}

bool dtype_is_integer(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_BOOL:
    case DTYPE_U8:
    case DTYPE_I8:
    case DTYPE_I16:
    case DTYPE_U16:
    case DTYPE_I32:
    case DTYPE_U32:
    case DTYPE_I64:
    case DTYPE_U64:
        return true;
    default:
        return false;
    }
}

enum dtype dtype_promote(enum dtype a, enum dtype b)
{
    if (a == b)
        return a;
    if (a == DTYPE_F64 || b == DTYPE_F64)
        return DTYPE_F64;
    return DTYPE_F32; /* of two different 16-bit types neither holds the other */
}

bool dtype_bytes(enum dtype dtype, uint64_t n, uint64_t *bytes)
{
    uint64_t bits;

    if (__builtin_mul_overflow(n, dtype_bits(dtype), &bits) || bits % 8 != 0)
        return false;
    *bytes = bits / 8;
    return true;
}
