#include "safetensors.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "sort.h"

static const char metadata_key[] = "__metadata__";

int st_header_len(const unsigned char word[8], uint64_t file_len, uint64_t *len, struct err *err)
{
    uint64_t value;

    if (file_len < 8)
        return err_set(err, -EINVAL, "no safetensors file: only %" PRIu64 " bytes", file_len);
    memcpy(&value, word, sizeof(value));
    value = le64toh(value);
    if (value > ST_HEADER_MAX)
        return err_set(err, -EINVAL,
                       "no safetensors file: it states a header of %" PRIu64
                       " bytes (at most %u are allowed)",
                       value, ST_HEADER_MAX);
    if (value > file_len - 8)
        return err_set(err, -EINVAL,
                       "truncated: the header takes %" PRIu64 " bytes, but only %" PRIu64
                       " follow its length",
                       value, file_len - 8);
    *len = value;
    return 0;
}

/* Parsing */

struct parser {
    struct arena *names;
    struct json *json;
    struct st_tensor *list;
    size_t n, room;
    const char *name; /* of the tensor at hand, for messages */
    size_t name_len;
};

/* Fields of a tensor seen so far. */
enum { HAS_DTYPE = 1, HAS_SHAPE = 2, HAS_OFFSETS = 4 };

static const char *tensor_shown(const struct parser *parser, char out[JSON_SHOWN])
{
    return json_shown(parser->name, parser->name_len, out);
}

static int refuse(struct parser *parser, const char *what)
{
    char shown[JSON_SHOWN];

    json_fail(parser->json, "tensor \"%s\": %s", tensor_shown(parser, shown), what);
    return -EINVAL;
}

static int parse_dtype(struct parser *parser, struct st_tensor *tensor)
{
    char shown[JSON_SHOWN], shown_tensor[JSON_SHOWN];
    const char *text;
    size_t len;

    if (json_next(parser->json) != JSON_STRING)
        return refuse(parser, "dtype is not a string");
    text = json_text(parser->json, &len);
    tensor->dtype = strlen(text) == len ? dtype_from_name(text) : DTYPE_NONE;
    if (tensor->dtype == DTYPE_NONE) {
        json_fail(parser->json, "tensor \"%s\": unknown dtype \"%s\"", tensor_shown(parser, shown_tensor),
                  json_shown(text, len, shown));
        return -EINVAL;
    }
    return 0;
}

static int parse_shape(struct parser *parser, struct st_tensor *tensor)
{
    enum json_event event;

    if (json_next(parser->json) != JSON_ARRAY)
        return refuse(parser, "shape is not a list");
    while ((event = json_next(parser->json)) != JSON_ARRAY_END) {
        if (event == JSON_ERROR)
            return -EINVAL;
        if (tensor->ndim == ST_DIMS)
            return refuse(parser, "more than 8 dimensions");
        if (!json_u64(parser->json, &tensor->shape[tensor->ndim++]))
            return refuse(parser, "shape holds something that is no whole number below 2^64");
    }
    return 0;
}

static int parse_offsets(struct parser *parser, struct st_tensor *tensor)
{
    static const char what[] = "data_offsets are not two whole numbers [begin, end] with begin <= end";
    uint64_t end;

    if (json_next(parser->json) != JSON_ARRAY)
        return refuse(parser, what);
    json_next(parser->json);
    if (!json_u64(parser->json, &tensor->begin))
        return refuse(parser, what);
    json_next(parser->json);
    if (!json_u64(parser->json, &end) || end < tensor->begin || json_next(parser->json) != JSON_ARRAY_END)
        return refuse(parser, what);
    tensor->len = end - tensor->begin;
    return 0;
}

/* Fields that the format may get later are passed over, as the library does. */
static int parse_field(struct parser *parser, struct st_tensor *tensor, unsigned *has)
{
    const char *key = json_text(parser->json, NULL);

    if (strcmp(key, "dtype") == 0) {
        *has |= HAS_DTYPE;
        return parse_dtype(parser, tensor);
    }
    if (strcmp(key, "shape") == 0) {
        *has |= HAS_SHAPE;
        return parse_shape(parser, tensor);
    }
    if (strcmp(key, "data_offsets") == 0) {
        *has |= HAS_OFFSETS;
        return parse_offsets(parser, tensor);
    }
    return json_skip(parser->json, json_next(parser->json)) ? 0 : -EINVAL;
}

static int check_size(struct parser *parser, struct st_tensor *tensor)
{
    char shown[JSON_SHOWN];
    uint64_t bytes;

    tensor->n = 1;
    for (unsigned i = 0; i < tensor->ndim; i++)
        if (__builtin_mul_overflow(tensor->n, tensor->shape[i], &tensor->n))
            return refuse(parser, "the number of elements overflows");
    if (!dtype_bytes(tensor->dtype, tensor->n, &bytes))
        return refuse(parser, tensor->n > UINT64_MAX / dtype_bits(tensor->dtype)
                                  ? "the size overflows"
                                  : "its elements are no whole number of bytes");
    if (bytes != tensor->len) {
        json_fail(parser->json,
                  "tensor \"%s\": shape and dtype make %" PRIu64 " bytes, but data_offsets hold %" PRIu64,
                  tensor_shown(parser, shown), bytes, tensor->len);
        return -EINVAL;
    }
    return 0;
}

static int parse_fields(struct parser *parser, struct st_tensor *tensor)
{
    enum json_event event;
    unsigned has = 0;

    if (json_next(parser->json) != JSON_OBJECT)
        return refuse(parser, "it is not described by an object");
    while ((event = json_next(parser->json)) == JSON_KEY)
        if (parse_field(parser, tensor, &has))
            return -EINVAL;
    if (event != JSON_OBJECT_END)
        return -EINVAL;
    if (!(has & HAS_DTYPE))
        return refuse(parser, "dtype is missing");
    if (!(has & HAS_SHAPE))
        return refuse(parser, "shape is missing");
    if (!(has & HAS_OFFSETS))
        return refuse(parser, "data_offsets are missing");
    return check_size(parser, tensor);
}

bool st_name_ok(const char *name, size_t len)
{
    const unsigned char *s = (const unsigned char *)name;

    for (size_t i = 0; i < len; i++)
        if (s[i] < 0x20 || s[i] == 0x7f || (s[i] == 0xc2 && i + 1 < len && s[i + 1] < 0xa0))
            return false;
    return true;
}

static int parse_tensor(struct parser *parser, const char *name, size_t len)
{
    struct st_tensor *tensor;

    parser->name = name;
    parser->name_len = len;
    if (!st_name_ok(name, len))
        return refuse(parser, "its name holds control characters");
    if (parser->n == parser->room) {
        size_t room = parser->room ? parser->room * 2 : 64;
        struct st_tensor *list = reallocarray(parser->list, room, sizeof(*list));
        if (!list)
            return -ENOMEM;
        parser->list = list;
        parser->room = room;
    }
    tensor = &parser->list[parser->n++];
    *tensor = (struct st_tensor){.name = arena_strndup(parser->names, name, len)};
    if (!tensor->name)
        return -ENOMEM;
    parser->name = tensor->name; /* the scanner's text changes with what it reads next */
    return parse_fields(parser, tensor);
}

static int parse_metadata(struct parser *parser)
{
    enum json_event event = json_next(parser->json);

    if (event == JSON_OBJECT)
        while ((event = json_next(parser->json)) == JSON_KEY)
            if (json_next(parser->json) != JSON_STRING)
                break;
    if (event == JSON_OBJECT_END)
        return 0;
    json_fail(parser->json, "%s does not map strings to strings", metadata_key);
    return -EINVAL;
}

static int parse_header(struct parser *parser)
{
    enum json_event event;
    const char *name;
    size_t len;
    int ret;

    if (json_next(parser->json) != JSON_OBJECT) {
        json_fail(parser->json, "the header is not an object");
        return -EINVAL;
    }
    while ((event = json_next(parser->json)) == JSON_KEY) {
        name = json_text(parser->json, &len);
        ret = strcmp(name, metadata_key) == 0 ? parse_metadata(parser) : parse_tensor(parser, name, len);
        if (ret)
            return ret;
    }
    if (event != JSON_OBJECT_END || json_next(parser->json) != JSON_END)
        return -EINVAL;
    return 0;
}

/* By place; of tensors without bytes at the same place as another, those first. */
static int compare_begin(const void *a, const void *b)
{
    const struct st_tensor *x = a, *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->len != y->len)
        return x->len < y->len ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int check_layout(const struct st_tensor *list, size_t n, uint64_t data_len, struct err *err)
{
    uint64_t end = 0;

    for (size_t i = 0; i < n; i++) {
        const struct st_tensor *tensor = &list[i];
        if (tensor->begin < end)
            return err_set(err, -EINVAL, "tensors \"%.200s\" and \"%.200s\" overlap", list[i - 1].name,
                           tensor->name);
        if (tensor->begin > end)
            return err_set(err, -EINVAL, "%" PRIu64 " bytes before tensor \"%.200s\" belong to none",
                           tensor->begin - end, tensor->name);
        end = tensor->begin + tensor->len;
    }
    if (end > data_len)
        return err_set(err, -EINVAL,
                       "truncated: its tensors take %" PRIu64 " bytes, but only %" PRIu64
                       " follow the header",
                       end, data_len);
    if (end < data_len)
        return err_set(err, -EINVAL, "%" PRIu64 " bytes at the end belong to no tensor", data_len - end);
    return 0;
}

int st_parse(struct arena *names, const char *json, size_t len, uint64_t data_len, struct st_tensor **tensors,
             size_t *n, struct err *err)
{
    struct parser parser = {.names = names, .json = json_new(json, len, err)};
    int ret = -ENOMEM;

    if (!parser.json)
        goto out;
    ret = parse_header(&parser);
    if (json_status(parser.json))
        ret = json_status(parser.json);
    if (ret)
        goto out;
    sort_list(parser.list, parser.n, sizeof(*parser.list), compare_begin);
    ret = check_layout(parser.list, parser.n, data_len, err);
out:
    if (ret == -ENOMEM)
        err_set(err, ret, "out of memory");
    if (ret) {
        free(parser.list);
    } else {
        *tensors = parser.list;
        *n = parser.n;
    }
    json_free(parser.json);
    return ret;
}

/* Rendering */

int st_compare(const void *a, const void *b)
{
    const struct st_tensor *x = a, *y = b;

    if (x->dtype != y->dtype)
        return x->dtype > y->dtype ? -1 : 1;
    return strcmp(x->name, y->name);
}

enum {
    NUMBER_MAX = 20,
    ENTRY_MAX = 64 + (ST_DIMS + 2) * (NUMBER_MAX + 1)
}; /* what follows a name, in bytes */

static char *put_number(char *at, uint64_t value)
{
    char digits[NUMBER_MAX];
    size_t n = 0;

    do
        digits[n++] = (char)('0' + value % 10);
    while (value /= 10);
    while (n)
        *at++ = digits[--n];
    return at;
}

/* Not by fprintf: a model of many experts has tens of thousands of them, each with half a dozen numbers. */
static void write_tensor(FILE *out, const struct st_tensor *tensor)
{
    char text[ENTRY_MAX], *at = text;

    putc_unlocked(',', out);
    json_write_string(out, tensor->name, strlen(tensor->name));
    at = stpcpy(stpcpy(stpcpy(at, ":{\"dtype\":\""), dtype_name(tensor->dtype)), "\",\"shape\":[");
    for (unsigned i = 0; i < tensor->ndim; i++) {
        if (i)
            *at++ = ',';
        at = put_number(at, tensor->shape[i]);
    }
    at = put_number(stpcpy(at, "],\"data_offsets\":["), tensor->begin);
    *at++ = ',';
    at = stpcpy(put_number(at, tensor->begin + tensor->len), "]}");
    fwrite(text, 1, (size_t)(at - text), out);
}

static void write_header(FILE *out, const struct st_tensor *tensors, size_t n, uint64_t align)
{
    fwrite("\0\0\0\0\0\0\0", 1, 8, out); /* the length, known later */
    fprintf(out, "{\"%s\":{\"format\":\"pt\"}", metadata_key);
    for (size_t i = 0; i < n; i++)
        write_tensor(out, &tensors[i]);
    fputc('}', out);
    for (uint64_t at = (uint64_t)ftello(out); at % align != 0; at++)
        putc_unlocked(' ', out);
}

int st_render(const struct st_tensor *tensors, size_t n, uint64_t align, char **out, uint64_t *out_len,
              struct err *err)
{
    char *text = NULL;
    size_t len = 0;
    FILE *file = open_memstream(&text, &len);
    uint64_t word;
    bool failed;

    if (!file)
        return err_set(err, -ENOMEM, "out of memory");
    write_header(file, tensors, n, align);
    failed = ferror(file);
    if (fclose(file) != 0 || failed) {
        free(text);
        return err_set(err, -ENOMEM, "out of memory");
    }
    if (len - 8 > ST_HEADER_MAX) {
        free(text);
        return err_set(err, -EINVAL, "the header of %zu tensors would take %zu bytes; the format allows %u",
                       n, len - 8, ST_HEADER_MAX);
    }
    word = htole64(len - 8);
    memcpy(text, &word, sizeof(word));
    *out = text;
    *out_len = len;
    return 0;
}
