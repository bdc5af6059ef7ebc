#include "answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

bool answer_next(const char **text, struct answer_line *line)
{
    while (**text) {
        size_t len = strcspn(*text, "\n"), key_len = strcspn(*text, " \n");
        const char *value = *text + key_len + (key_len < len);

        *line = (struct answer_line){*text, value, key_len, (size_t)(*text + len - value)};
        *text += len + ((*text)[len] == '\n');
        if (key_len > 0)
            return true;
    }
    return false;
}

static bool is_key(const struct answer_line *line, const char *key)
{
    return line->key_len == strlen(key) && memcmp(line->key, key, line->key_len) == 0;
}

bool answer_has(const char *text, const char *key)
{
    struct answer_line line;

    while (answer_next(&text, &line))
        if (is_key(&line, key))
            return true;
    return false;
}

uint64_t answer_number(const char *text, const char *key)
{
    struct answer_line line;

    while (answer_next(&text, &line))
        if (is_key(&line, key))
            return line.value_len && line.value[0] != '-' ? strtoull(line.value, NULL, 10) : 0;
    return 0;
}

double answer_hit_ratio(uint64_t hits, uint64_t misses, uint64_t joined)
{
    double all = (double)hits + (double)misses + (double)joined;

    return all > 0 ? (double)hits / all : -1;
}

uint64_t answer_other_memory(const char *text)
{
    uint64_t all = answer_number(text, "memory_bytes"), known;

    known = answer_number(text, "cache_used_bytes") + answer_number(text, "stats_kept_bytes") +
            answer_number(text, "plan_bytes");
    return known < all ? all - known : 0;
}

/* By bytes where the daemon knows them, since tensors differ in size. */
double answer_statistics_left(const char *before, const char *now, double seconds)
{
    bool bytes = answer_has(now, "stats_todo_bytes");
    const char *counter = bytes ? "stats_bytes_read" : "stats_done";
    double todo = (double)answer_number(now, bytes ? "stats_todo_bytes" : "stats_todo"),
           done = (double)answer_number(now, counter) - (double)answer_number(before, counter);

    return todo > 0 && done > 0 && seconds > 0 ? todo / done * seconds : -1;
}

/* ---- JSON */

/* A fingerprint may happen to look like a number, and a path, too. */
static bool is_always_text(const struct answer_line *line)
{
    static const char *const words[] = {"recipe", "version", "generation", "name", "path", "error", "reason"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t len = strlen(words[i]);
        const char *end = line->key + line->key_len;
        if (line->key_len >= len && memcmp(end - len, words[i], len) == 0 &&
            (line->key_len == len || end[-(ptrdiff_t)len - 1] == '_'))
            return true;
    }
    return false;
}

static size_t count_digits(const char *text, size_t len)
{
    size_t n = 0;

    while (n < len && text[n] >= '0' && text[n] <= '9')
        n++;
    return n;
}

/* A number as the daemon writes them, in a form that JSON has: 12, -3, 0.250. */
static bool is_number(const char *text, size_t len)
{
    size_t sign = len > 0 && text[0] == '-', whole = count_digits(text + sign, len - sign), fraction;

    if (whole == 0 || (whole > 1 && text[sign] == '0'))
        return false;
    text += sign + whole;
    len -= sign + whole;
    if (len == 0)
        return true;
    fraction = text[0] == '.' ? count_digits(text + 1, len - 1) : 0;
    return fraction > 0 && fraction == len - 1;
}

/* What is no UTF-8 (paths are any bytes) becomes U+FFFD. malloc'd, or NULL. */
static char *as_utf8(const char *text, size_t len)
{
    char *out = malloc(3 * len + 1), *end = out;

    for (size_t i = 0, n; out && i < len; i += n ? n : 1) {
        n = json_utf8_len(text + i, len - i);
        if (text[i] == '\0')
            break;
        end = n ? mempcpy(end, text + i, n) : mempcpy(end, "\xef\xbf\xbd", 3);
    }
    if (out)
        *end = '\0';
    return out;
}

static cJSON *text_value(const char *text, size_t len)
{
    char *clean = as_utf8(text, len);
    cJSON *value = clean ? cJSON_CreateString(clean) : NULL;

    free(clean);
    return value;
}

/* With the text as it is: 64 bits are more than a double holds. */
static cJSON *line_value(const struct answer_line *line)
{
    cJSON *value;
    char digits[64];

    if (is_always_text(line) || line->value_len >= sizeof(digits) || !is_number(line->value, line->value_len))
        return text_value(line->value, line->value_len);
    memcpy(digits, line->value, line->value_len);
    digits[line->value_len] = '\0';
    value = cJSON_CreateNumber(strtod(digits, NULL));
    if (value && !(value->valuestring = strdup(digits))) {
        cJSON_Delete(value);
        return NULL;
    }
    return value;
}

/* Takes `value`, NULL for want of memory. */
static bool add(cJSON *object, const char *key, cJSON *value)
{
    if (value && cJSON_AddItemToObject(object, key, value))
        return true;
    cJSON_Delete(value);
    return false;
}

/* Takes `value`, as a second one of the key: it makes a list of it. */
static bool add_to_list(cJSON *object, const char *key, cJSON *there, cJSON *value)
{
    cJSON *list;

    if (cJSON_IsArray(there))
        return cJSON_AddItemToArray(there, value);
    list = cJSON_CreateArray();
    if (!list) {
        cJSON_Delete(value);
        return false;
    }
    cJSON_AddItemToArray(list, cJSON_DetachItemViaPointer(object, there));
    cJSON_AddItemToArray(list, value);
    return add(object, key, list);
}

static bool add_line(cJSON *object, const struct answer_line *line)
{
    char *key = as_utf8(line->key, line->key_len);
    cJSON *value = key ? line_value(line) : NULL, *there;
    bool added;

    there = value ? cJSON_GetObjectItemCaseSensitive(object, key) : NULL;
    added = there ? add_to_list(object, key, there, value) : add(object, key, value);
    free(key);
    return added;
}

/* Takes `value`. Names that the daemon uses itself are left as it says. */
static bool add_derived(cJSON *object, const char *key, cJSON *value)
{
    if (!cJSON_GetObjectItemCaseSensitive(object, key))
        return add(object, key, value);
    cJSON_Delete(value);
    return true;
}

static cJSON *number_or_null(double value)
{
    return value < 0 ? cJSON_CreateNull() : cJSON_CreateNumber(value);
}

static bool add_all_derived(cJSON *object, const char *text, const char *before, double seconds)
{
    double ratio = answer_hit_ratio(answer_number(text, "hits"), answer_number(text, "misses"),
                                    answer_number(text, "joined")),
           left = before ? answer_statistics_left(before, text, seconds) : -1;

    return add_derived(object, "memory_other_bytes", number_or_null((double)answer_other_memory(text))) &&
           add_derived(object, "hit_ratio", number_or_null(ratio)) &&
           add_derived(object, "stats_left_seconds", number_or_null(left));
}

/* The object that the lines of a section go to. NULL for want of memory. */
static cJSON *add_section(cJSON *object, const struct answer_line *line)
{
    char *key = as_utf8(line->value, line->value_len), *list_key = NULL;
    cJSON *list = NULL, *section = NULL;

    if (key && asprintf(&list_key, "%ss", key) < 0)
        list_key = NULL;
    if (list_key) {
        list = cJSON_GetObjectItemCaseSensitive(object, list_key);
        list = list ? list : cJSON_AddArrayToObject(object, list_key);
        section = cJSON_IsArray(list) ? cJSON_CreateObject() : NULL;
    }
    if (section && !cJSON_AddItemToArray(list, section)) {
        cJSON_Delete(section);
        section = NULL;
    }
    free(key);
    free(list_key);
    return section;
}

static bool add_text(cJSON *object, const char *text)
{
    cJSON *target = object;
    struct answer_line line;
    bool good = true;

    while (good && answer_next(&text, &line)) {
        if (is_key(&line, "section"))
            good = (target = add_section(object, &line)) != NULL;
        else if (!is_key(&line, "mountpoint") && !is_key(&line, "answers"))
            good = add_line(target, &line);
    }
    return good;
}

cJSON *answer_json(const struct mount_entry *mount, const char *text, const char *before, double seconds,
                   const char *error)
{
    cJSON *object = cJSON_CreateObject();
    bool good;

    if (!object)
        return NULL;
    good = add(object, "mountpoint", text_value(mount->mountpoint, strlen(mount->mountpoint))) &&
           add(object, "answers", cJSON_CreateBool(text != NULL));
    if (good && !text)
        good = add(object, "recipe", text_value(mount->source, strlen(mount->source))) &&
               add(object, "error", text_value(error, strlen(error)));
    if (good && text)
        good = add_text(object, text) && add_all_derived(object, text, before, seconds);
    if (good)
        return object;
    cJSON_Delete(object);
    return NULL;
}
