/* The safetensors header: parse, validate, render.
 *
 *     u64 little-endian: bytes of JSON | JSON, padded with spaces | tensor data, contiguous
 *
 * https://github.com/huggingface/safetensors. A header is hostile input: every rule of the format is
 * checked (at most 100 MB, sizes = shape x type with checked arithmetic, no hole, no overlap, no duplicate
 * name, the data exactly fills the file), and what breaks it is named.
 */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "dtype.h"
#include "err.h"

#define ST_HEADER_MAX 100000000u /* bytes of JSON */
enum { ST_DIMS = 8 };

struct st_tensor {
    const char *name; /* UTF-8, no NUL and no control characters */
    enum dtype dtype;
    unsigned ndim; /* 0: a scalar, one element */
    uint64_t shape[ST_DIMS];
    uint64_t n;     /* elements: product of shape */
    uint64_t begin; /* bytes from the start of data */
    uint64_t len;   /* bytes */
};

/* What the first 8 bytes of a file of `file_len` bytes say: bytes of JSON behind them, checked before
 * anything is allocated. -EINVAL: too many for the format or for the file. */
int st_header_len(const unsigned char word[8], uint64_t file_len, uint64_t *len, struct err *err);

/* Whether a name (well-formed UTF-8) is free of control characters. */
bool st_name_ok(const char *name, size_t len);

/* Parse `len` bytes of header JSON of a file with `data_len` bytes behind it. On success *tensors, malloc'd,
 * holds *n entries sorted by begin (those without bytes before the one that begins at the same place); NULL
 * if there are none. Their names are the arena's. -EINVAL with the tensor and the rule broken, or -ENOMEM. */
int st_parse(struct arena *names, const char *json, size_t len, uint64_t data_len, struct st_tensor **tensors,
             size_t *n, struct err *err);

/* Order of tensors in a file as the safetensors library writes it: type descending, then name by bytes.
 * For qsort over struct st_tensor. */
int st_compare(const void *a, const void *b);

/* The first bytes of a file: length word, JSON with `__metadata__ {"format":"pt"}`, spaces until data begins
 * on a multiple of `align` (at least 1). Tensors are written in the order given, `begin` of each as it is.
 * *out is malloc'd, *out_len = offset of data. -EINVAL: more JSON than the format allows; -ENOMEM. */
int st_render(const struct st_tensor *tensors, size_t n, uint64_t align, char **out, uint64_t *out_len,
              struct err *err);

#endif
