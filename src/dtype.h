/* Element types of the safetensors format.
 *
 * The order is the library's own (of alignment), by which tensors are sorted in a file.
 */
#ifndef DTYPE_H
#define DTYPE_H

#include <stdbool.h>
#include <stdint.h>

enum dtype {
    DTYPE_BOOL,
    DTYPE_F4, /* two to a byte */
    DTYPE_F6_E2M3,
    DTYPE_F6_E3M2,
    DTYPE_U8,
    DTYPE_I8,
    DTYPE_F8_E5M2,
    DTYPE_F8_E4M3,
    DTYPE_F8_E8M0,
    DTYPE_F8_E4M3FNUZ,
    DTYPE_F8_E5M2FNUZ,
    DTYPE_I16,
    DTYPE_U16,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_I32,
    DTYPE_U32,
    DTYPE_F32,
    DTYPE_C64,
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_U64,
    DTYPE_COUNT,
    DTYPE_NONE = DTYPE_COUNT, /* "not given" */
};

unsigned dtype_bits(enum dtype dtype);    /* of one element: 4, 6, 8, 16, 32 or 64; DTYPE_NONE: 0 */
const char *dtype_name(enum dtype dtype); /* in a header: "BF16" */
/* In YAML and config.json: "bfloat16"; for types torch lacks, as above. */
const char *dtype_torch_name(enum dtype dtype);
enum dtype dtype_from_name(const char *name); /* "BF16"; DTYPE_NONE if unknown */
/* "bfloat16", "torch.bfloat16", also float, double, half; DTYPE_NONE if unknown. */
enum dtype dtype_from_torch(const char *name);
bool dtype_is_float(enum dtype dtype);   /* F16, BF16, F32, F64: what can be merged */
bool dtype_is_integer(enum dtype dtype); /* BOOL and the integers: copied, never merged */

/* torch.promote_types of two floating types (F16 with BF16 is F32). Both satisfy dtype_is_float. */
enum dtype dtype_promote(enum dtype a, enum dtype b);

/* Bytes of n elements; false if that overflows or is no whole number of bytes. */
bool dtype_bytes(enum dtype dtype, uint64_t n, uint64_t *bytes);

#endif
