#include "json.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

/* Where the scanner stands between two events. */
enum state {
    STATE_VALUE, /* a value must follow */
    STATE_FIRST, /* just behind { or [ */
    STATE_NEXT,  /* behind a member of a container */
    STATE_DONE,  /* behind the one value */
};

struct level {
    bool object;
    uint64_t seed;    /* of the hashes of its keys: another for each object */
    size_t first_key; /* in keys.list */
};

/* The keys of all open objects: a stack of hashes, and an open-addressing table of positions in it. Keys
 * leave in the reverse of the order in which they came, so that clearing a slot never cuts a chain that is
 * still in use. A collision of 128-bit hashes would refuse a good file; none is to be expected. */
struct keys {
    XXH128_hash_t *list;
    size_t n, room;
    uint32_t *slots; /* position in list + 1; 0: free */
    size_t n_slots;  /* 0 or a power of two, over twice room */
};

struct json {
    const char *text;
    size_t len, pos;
    struct err *err;
    int status; /* 0 or -errno */
    enum state state;
    enum json_event last;
    char *token; /* decoded text of the last event */
    size_t token_len, token_room;
    struct keys keys;
    uint64_t seed; /* unknown to whoever made the file, that he may not choose colliding slots */
    unsigned depth;
    struct level levels[JSON_DEPTH];
};

struct json *json_new(const char *text, size_t len, struct err *err)
{
    struct json *json = calloc(1, sizeof(*json));

    if (!json)
        return NULL;
    json->text = text;
    json->len = len;
    json->err = err;
    json->last = JSON_ERROR;
    if (getrandom(&json->seed, sizeof(json->seed), GRND_NONBLOCK) != sizeof(json->seed))
        json->seed = (uintptr_t)json;
    return json;
}

void json_free(struct json *json)
{
    if (!json)
        return;
    free(json->token);
    free(json->keys.list);
    free(json->keys.slots);
    free(json);
}

int json_status(const struct json *json)
{
    return json->status;
}

enum json_event json_fail(struct json *json, const char *fmt, ...)
{
    va_list args;

    if (json->status == 0 && json->err) {
        va_start(args, fmt);
        vsnprintf(json->err->text, sizeof(json->err->text), fmt, args);
        va_end(args);
    }
    if (json->status == 0)
        json->status = -EINVAL;
    return json->last = JSON_ERROR;
}

static enum json_event fail_memory(struct json *json)
{
    json_fail(json, "out of memory");
    json->status = -ENOMEM;
    return JSON_ERROR;
}

static enum json_event fail_at(struct json *json, size_t pos, const char *what)
{
    return json_fail(json, "byte %zu: %s", pos, what);
}

static enum json_event fail_here(struct json *json, const char *what)
{
    return fail_at(json, json->pos, json->pos < json->len ? what : "the text ends too early");
}

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static void skip_space(struct json *json)
{
    while (json->pos < json->len && is_space(json->text[json->pos]))
        json->pos++;
}

static bool at(const struct json *json, char c)
{
    return json->pos < json->len && json->text[json->pos] == c;
}

/* Keys */

static size_t keys_slot(const struct keys *keys, XXH128_hash_t hash)
{
    size_t i = (size_t)hash.low64 & (keys->n_slots - 1);

    while (keys->slots[i] != 0 && !XXH128_isEqual(keys->list[keys->slots[i] - 1], hash))
        i = (i + 1) & (keys->n_slots - 1);
    return i;
}

static bool keys_grow(struct keys *keys)
{
    size_t room = keys->room ? keys->room * 2 : 32;
    XXH128_hash_t *list = reallocarray(keys->list, room, sizeof(*list));
    uint32_t *slots;

    if (!list)
        return false;
    keys->list = list;
    slots = calloc(room * 2, sizeof(*slots));
    if (!slots)
        return false;
    free(keys->slots);
    keys->slots = slots;
    keys->n_slots = room * 2;
    keys->room = room;
    for (size_t i = 0; i < keys->n; i++)
        slots[keys_slot(keys, list[i])] = (uint32_t)i + 1;
    return true;
}

/* 1: added; 0: it is there already; -1: no memory. */
static int keys_add(struct keys *keys, XXH128_hash_t hash)
{
    size_t slot;

    if (keys->n == keys->room && !keys_grow(keys))
        return -1;
    slot = keys_slot(keys, hash);
    if (keys->slots[slot] != 0)
        return 0;
    keys->list[keys->n++] = hash;
    keys->slots[slot] = (uint32_t)keys->n;
    return 1;
}

static void keys_drop(struct keys *keys, size_t first)
{
    while (keys->n > first) {
        keys->slots[keys_slot(keys, keys->list[keys->n - 1])] = 0;
        keys->n--;
    }
}

/* Strings */

static bool token_room(struct json *json, size_t more)
{
    size_t room = json->token_room ? json->token_room : 64;
    char *token;

    while (room < json->token_len + more + 1)
        room *= 2;
    if (room == json->token_room)
        return true;
    token = realloc(json->token, room);
    if (!token)
        return fail_memory(json) != JSON_ERROR;
    json->token = token;
    json->token_room = room;
    return true;
}

static bool token_append(struct json *json, const char *text, size_t len)
{
    if (!token_room(json, len))
        return false;
    memcpy(json->token + json->token_len, text, len);
    json->token_len += len;
    json->token[json->token_len] = '\0';
    return true;
}

size_t json_utf8_len(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    unsigned char low = 0x80, high = 0xbf; /* bounds of the second byte */
    size_t n;

    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    n = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (n > len)
        return 0;
    if (s[0] == 0xe0)
        low = 0xa0;
    else if (s[0] == 0xed)
        high = 0x9f;
    else if (s[0] == 0xf0)
        low = 0x90;
    else if (s[0] == 0xf4)
        high = 0x8f;
    if (s[1] < low || s[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

static size_t utf8_encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* The \uXXXX at pos: its value, or -1. */
static int32_t hex4(const struct json *json, size_t pos)
{
    int32_t value = 0;

    if (json->len - pos < 6 || json->text[pos] != '\\' || json->text[pos + 1] != 'u')
        return -1;
    for (size_t i = pos + 2; i < pos + 6; i++) {
        char c = json->text[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

static bool unicode_escape(struct json *json)
{
    int32_t c = hex4(json, json->pos), low;
    char utf8[4];

    if (c < 0) {
        fail_here(json, "\\u without four hexadecimal digits");
        return false;
    }
    if (c >= 0xd800 && c <= 0xdfff) {
        low = c < 0xdc00 ? hex4(json, json->pos + 6) : -1;
        if (low < 0xdc00 || low > 0xdfff) {
            fail_here(json, "half of a surrogate pair");
            return false;
        }
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        json->pos += 6;
    }
    json->pos += 6;
    return token_append(json, utf8, utf8_encode((uint32_t)c, utf8));
}

static bool escape(struct json *json)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *found;

    if (json->len - json->pos < 2) {
        json->pos = json->len;
        fail_here(json, "");
        return false;
    }
    if (json->text[json->pos + 1] == 'u')
        return unicode_escape(json);
    found = memchr(from, json->text[json->pos + 1], sizeof(from) - 1);
    if (!found) {
        fail_here(json, "unknown escape in a string");
        return false;
    }
    json->pos += 2;
    return token_append(json, to + (found - from), 1);
}

/* End of the run of plain characters at pos: at a quote, a backslash, or what a string may not hold. */
static size_t plain_end(const struct json *json, size_t pos)
{
    while (pos < json->len) {
        unsigned char c = (unsigned char)json->text[pos];
        size_t n = 1;
        if (c == '"' || c == '\\' || c < 0x20)
            break;
        if (c >= 0x80 && (n = json_utf8_len(json->text + pos, json->len - pos)) == 0)
            break;
        pos += n;
    }
    return pos;
}

/* The string whose quote is at pos, into token. */
static bool scan_string(struct json *json)
{
    json->token_len = 0;
    json->pos++;
    for (;;) {
        size_t end = plain_end(json, json->pos);
        if (!token_append(json, json->text + json->pos, end - json->pos))
            return false;
        json->pos = end;
        if (at(json, '"'))
            break;
        if (!at(json, '\\')) {
            fail_here(json, end < json->len && (unsigned char)json->text[end] < 0x20
                                ? "control character in a string"
                                : "invalid UTF-8");
            return false;
        }
        if (!escape(json))
            return false;
    }
    json->pos++;
    return true;
}

/* Values */

static bool scan_digits(struct json *json)
{
    size_t start = json->pos;

    while (json->pos < json->len && json->text[json->pos] >= '0' && json->text[json->pos] <= '9')
        json->pos++;
    if (json->pos == start)
        fail_here(json, "a digit is missing in a number");
    return json->pos > start;
}

static bool scan_number(struct json *json)
{
    size_t start = json->pos, integer;

    if (at(json, '-'))
        json->pos++;
    integer = json->pos;
    if (!scan_digits(json))
        return false;
    if (json->text[integer] == '0' && json->pos > integer + 1) {
        fail_at(json, integer, "a number with a leading zero");
        return false;
    }
    if (at(json, '.')) {
        json->pos++;
        if (!scan_digits(json))
            return false;
    }
    if (at(json, 'e') || at(json, 'E')) {
        json->pos++;
        if (at(json, '+') || at(json, '-'))
            json->pos++;
        if (!scan_digits(json))
            return false;
    }
    json->token_len = 0;
    return token_append(json, json->text + start, json->pos - start);
}

static bool scan_word(struct json *json, const char *word)
{
    size_t len = strlen(word);

    if (json->len - json->pos < len || memcmp(json->text + json->pos, word, len) != 0)
        return false;
    json->pos += len;
    return true;
}

static enum json_event value_done(struct json *json, enum json_event event)
{
    json->state = json->depth ? STATE_NEXT : STATE_DONE;
    return event;
}

static enum json_event open_level(struct json *json, bool object)
{
    if (json->depth == JSON_DEPTH)
        return fail_here(json, "nested too deeply");
    json->seed += 0x9e3779b97f4a7c15u; /* odd: every object gets another */
    json->levels[json->depth++] = (struct level){object, json->seed, json->keys.n};
    json->pos++;
    json->state = STATE_FIRST;
    return object ? JSON_OBJECT : JSON_ARRAY;
}

static enum json_event close_level(struct json *json)
{
    const struct level *level = &json->levels[--json->depth];

    keys_drop(&json->keys, level->first_key);
    json->pos++;
    return value_done(json, level->object ? JSON_OBJECT_END : JSON_ARRAY_END);
}

static enum json_event scan_value(struct json *json)
{
    char c = json->pos < json->len ? json->text[json->pos] : '\0';

    if (c == '{' || c == '[')
        return open_level(json, c == '{');
    if (c == '"')
        return scan_string(json) ? value_done(json, JSON_STRING) : JSON_ERROR;
    if (c == '-' || (c >= '0' && c <= '9'))
        return scan_number(json) ? value_done(json, JSON_NUMBER) : JSON_ERROR;
    if (scan_word(json, "true"))
        return value_done(json, JSON_TRUE);
    if (scan_word(json, "false"))
        return value_done(json, JSON_FALSE);
    if (scan_word(json, "null"))
        return value_done(json, JSON_NULL);
    return fail_here(json, "a value was expected");
}

static enum json_event scan_key(struct json *json)
{
    size_t start = json->pos;
    char shown[JSON_SHOWN];
    int added;

    if (!at(json, '"'))
        return fail_here(json, "a key in quotes was expected");
    if (!scan_string(json))
        return JSON_ERROR;
    added = keys_add(&json->keys,
                     XXH3_128bits_withSeed(json->token, json->token_len, json->levels[json->depth - 1].seed));
    if (added < 0)
        return fail_memory(json);
    if (added == 0)
        return json_fail(json, "byte %zu: the key \"%s\" is given twice", start,
                         json_shown(json->token, json->token_len, shown));
    skip_space(json);
    if (!at(json, ':'))
        return fail_here(json, "a colon was expected");
    json->pos++;
    json->state = STATE_VALUE;
    return JSON_KEY;
}

static enum json_event scan_member(struct json *json, bool first)
{
    bool object = json->levels[json->depth - 1].object;

    if (at(json, object ? '}' : ']'))
        return close_level(json);
    if (!first) {
        if (!at(json, ','))
            return fail_here(json, object ? "a comma or } was expected" : "a comma or ] was expected");
        json->pos++;
        skip_space(json);
    }
    return object ? scan_key(json) : scan_value(json);
}

static enum json_event scan_end(struct json *json)
{
    return json->pos == json->len ? JSON_END : fail_here(json, "something follows the end of the value");
}

enum json_event json_next(struct json *json)
{
    if (json->status)
        return JSON_ERROR;
    if (json->len >= UINT32_MAX)
        return json_fail(json, "more than 4 GB of JSON");
    skip_space(json);
    switch (json->state) {
    case STATE_VALUE:
        json->last = scan_value(json);
        break;
    case STATE_FIRST:
    case STATE_NEXT:
        json->last = scan_member(json, json->state == STATE_FIRST);
        break;
    case STATE_DONE:
        json->last = scan_end(json);
        break;
    }
    return json->last;
}

const char *json_text(const struct json *json, size_t *len)
{
    bool has = json->last == JSON_KEY || json->last == JSON_STRING || json->last == JSON_NUMBER;

    if (len)
        *len = has ? json->token_len : 0;
    return has ? json->token : "";
}

bool json_u64(const struct json *json, uint64_t *value)
{
    uint64_t sum = 0;

    if (json->last != JSON_NUMBER)
        return false;
    for (const char *s = json->token; *s; s++)
        if (*s < '0' || *s > '9' || __builtin_mul_overflow(sum, 10, &sum) ||
            __builtin_add_overflow(sum, (uint64_t)(*s - '0'), &sum))
            return false;
    *value = sum;
    return true;
}

bool json_skip(struct json *json, enum json_event event)
{
    unsigned depth = 0;

    for (;;) {
        if (event == JSON_ERROR || event == JSON_END)
            return false;
        if (event == JSON_OBJECT || event == JSON_ARRAY)
            depth++;
        else if (event == JSON_OBJECT_END || event == JSON_ARRAY_END)
            depth--;
        if (depth == 0)
            return true;
        event = json_next(json);
    }
}

int json_check(const char *text, size_t len, struct err *err)
{
    struct json *json = json_new(text, len, err);
    enum json_event event;
    int ret;

    if (!json)
        return err_set(err, -ENOMEM, "out of memory");
    do
        event = json_next(json);
    while (event != JSON_END && event != JSON_ERROR);
    ret = json_status(json);
    json_free(json);
    return ret;
}

const char *json_shown(const char *text, size_t len, char out[JSON_SHOWN])
{
    size_t n = 0, step;

    for (size_t i = 0; i < len; i += step) {
        unsigned char c = (unsigned char)text[i];
        step = json_utf8_len(text + i, len - i);
        if (n + (step ? step : 1) > JSON_SHOWN - 4)
            return memcpy(out + n, "...", 4), out;
        if (step == 0 || c < 0x20 || c == 0x7f || (c == 0xc2 && (unsigned char)text[i + 1] < 0xa0)) {
            out[n++] = '?';
            step = step ? step : 1;
            continue;
        }
        memcpy(out + n, text + i, step);
        n += step;
    }
    out[n] = '\0';
    return out;
}

void json_write_string(FILE *out, const char *text, size_t len)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    size_t plain = 0; /* start of the run that needs no escape */

    fputc('"', out);
    for (size_t i = 0; i < len; i++) {
        const char *found;
        if ((unsigned char)text[i] >= 0x20 && text[i] != '"' && text[i] != '\\')
            continue;
        found = memchr(from, text[i], sizeof(from) - 1);
        fwrite(text + plain, 1, i - plain, out);
        plain = i + 1;
        if (found)
            fprintf(out, "\\%c", to[found - from]);
        else
            fprintf(out, "\\u%04x", text[i]);
    }
    fwrite(text + plain, 1, len - plain, out);
    fputc('"', out);
}
