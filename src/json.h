/* A strict streaming JSON scanner: no tree, so a 100 MB header costs what it weighs.
 *
 * RFC 8259 to the letter: UTF-8 checked, no lone surrogates, no `01`, no trailing commas or bytes, depth at
 * most JSON_DEPTH; a key given twice in one object is an error (after escapes are undone). Integers are kept
 * exact. Pull events with json_next until JSON_END or JSON_ERROR; an error is final and names the byte
 * offset.
 */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "err.h"

enum { JSON_DEPTH = 128, JSON_SHOWN = 200 };

enum json_event {
    JSON_ERROR,
    JSON_END, /* the one value is complete and nothing but white space follows */
    JSON_OBJECT,
    JSON_OBJECT_END,
    JSON_ARRAY,
    JSON_ARRAY_END,
    JSON_KEY,    /* text, len */
    JSON_STRING, /* text, len */
    JSON_NUMBER, /* text, len: as written */
    JSON_TRUE,
    JSON_FALSE,
    JSON_NULL,
};

struct json;

/* Scan `len` bytes at `text`, borrowed until json_free. err (may be NULL) is filled at JSON_ERROR.
 * NULL if memory runs out. */
struct json *json_new(const char *text, size_t len, struct err *err);
void json_free(struct json *json);

enum json_event json_next(struct json *json);

/* 0; after JSON_ERROR why: -EINVAL (the text is wrong, or json_fail was called) or -ENOMEM. */
int json_status(const struct json *json);

/* The string, key or number of the last event: decoded UTF-8, valid until the next call, NUL-terminated (a
 * string may hold NULs of its own: trust *len, which may be NULL). "" after other events. */
const char *json_text(const struct json *json, size_t *len);

/* The last JSON_NUMBER as an exact integer in [0, 2^64); false if it is anything else (1.0, 1e3, -1). */
bool json_u64(const struct json *json, uint64_t *value);

/* Having just received JSON_OBJECT or JSON_ARRAY, skip to its end. A scalar's skip does nothing. False:
 * error. `event` is what json_next returned. */
bool json_skip(struct json *json, enum json_event event);

/* Fail from the caller's side: records the message and makes every later json_next return JSON_ERROR. The
 * first failure stands. */
enum json_event json_fail(struct json *json, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Check that `len` bytes are one strict JSON value, before handing them to a laxer parser. 0 or -EINVAL. */
int json_check(const char *text, size_t len, struct err *err);

/* Text of unknown origin made fit for a message: what is no character or a control character becomes `?`, and
 * it is cut with "..." to fit. Returns out. */
const char *json_shown(const char *text, size_t len, char out[JSON_SHOWN]);

/* Length of the well-formed UTF-8 sequence at text (RFC 3629: shortest form, no surrogate, at most U+10FFFF);
 * 0 if there is none. */
size_t json_utf8_len(const char *text, size_t len);

/* Append `text` (UTF-8) as a JSON string with its quotes to a FILE made by open_memstream. */
void json_write_string(FILE *out, const char *text, size_t len);

#endif
