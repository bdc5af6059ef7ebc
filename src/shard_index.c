#include "shard_index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "safetensors.h"
#include "sort.h"

/* Neighbours in the index are mostly in the same file. */
struct run {
    const char *file;
    size_t shard;
};

struct parser {
    struct arena *arena;
    struct json *json;
    struct shard_index *index; /* while parsing, an entry's shard is its run */
    size_t n_runs;
    struct run *runs;
};

static int refuse(struct parser *parser, const char *what)
{
    json_fail(parser->json, "%s", what);
    return -EINVAL;
}

static bool has_suffix(const char *text, size_t len, const char *suffix)
{
    size_t n = strlen(suffix);

    return len > n && memcmp(text + len - n, suffix, n) == 0;
}

static int check_file(struct parser *parser, const char *tensor, const char *file, size_t len)
{
    char shown_tensor[JSON_SHOWN], shown_file[JSON_SHOWN];
    const char *what = NULL;

    if (len == 0 || len > 255 || memchr(file, '/', len) || !st_name_ok(file, len))
        what = "which is no plain file name";
    else if (!has_suffix(file, len, ".safetensors"))
        what = "which is no .safetensors file";
    if (!what)
        return 0;
    json_fail(parser->json, "weight_map puts \"%s\" in \"%s\", %s",
              json_shown(tensor, strlen(tensor), shown_tensor), json_shown(file, len, shown_file), what);
    return -EINVAL;
}

/* Its name is kept once for a run. */
static int set_file(struct parser *parser, struct shard_entry *entry, const char *file, size_t len)
{
    struct run *run = parser->n_runs ? &parser->runs[parser->n_runs - 1] : NULL;

    if (!run || strcmp(run->file, file) != 0) {
        run = arena_push(parser->arena, &parser->runs, &parser->n_runs, sizeof(*run));
        if (!run)
            return -ENOMEM;
        run->file = arena_strndup(parser->arena, file, len);
    }
    entry->file = run->file;
    entry->shard = parser->n_runs - 1;
    return entry->file ? 0 : -ENOMEM;
}

static int parse_entry(struct parser *parser)
{
    struct shard_entry *entry;
    const char *text;
    char shown[JSON_SHOWN];
    size_t len;

    text = json_text(parser->json, &len);
    if (!st_name_ok(text, len)) {
        json_fail(parser->json, "weight_map: the name \"%s\" holds control characters",
                  json_shown(text, len, shown));
        return -EINVAL;
    }
    entry = arena_push(parser->arena, &parser->index->entries, &parser->index->n, sizeof(*entry));
    if (!entry)
        return -ENOMEM;
    entry->tensor = arena_strndup(parser->arena, text, len);
    if (!entry->tensor)
        return -ENOMEM;
    if (json_next(parser->json) != JSON_STRING)
        return refuse(parser, "weight_map does not map names to file names");
    text = json_text(parser->json, &len);
    if (check_file(parser, entry->tensor, text, len))
        return -EINVAL;
    return set_file(parser, entry, text, len);
}

static int parse_map(struct parser *parser)
{
    enum json_event event;
    int ret;

    if (json_next(parser->json) != JSON_OBJECT)
        return refuse(parser, "weight_map is not an object");
    while ((event = json_next(parser->json)) == JSON_KEY) {
        ret = parse_entry(parser);
        if (ret)
            return ret;
    }
    return event == JSON_OBJECT_END ? 0 : -EINVAL;
}

static int parse_index(struct parser *parser)
{
    enum json_event event;
    bool found = false;
    int ret;

    if (json_next(parser->json) != JSON_OBJECT)
        return refuse(parser, "the index is not an object");
    while ((event = json_next(parser->json)) == JSON_KEY) {
        if (strcmp(json_text(parser->json, NULL), "weight_map") == 0) {
            found = true;
            ret = parse_map(parser);
        } else {
            ret = json_skip(parser->json, json_next(parser->json)) ? 0 : -EINVAL;
        }
        if (ret)
            return ret;
    }
    if (event != JSON_OBJECT_END || json_next(parser->json) != JSON_END)
        return -EINVAL;
    return found ? 0 : refuse(parser, "weight_map is missing");
}

static int compare_file(const void *a, const void *b)
{
    const struct run *const *x = a, *const *y = b;

    return strcmp((*x)->file, (*y)->file);
}

static int compare_tensor(const void *a, const void *b)
{
    const struct shard_entry *x = a, *y = b;

    return strcmp(x->tensor, y->tensor);
}

/* Sort the files and tell each run which one it is. */
static int number_runs(struct parser *parser)
{
    struct shard_index *index = parser->index;
    struct run **order = arena_alloc(parser->arena, parser->n_runs + 1, sizeof(*order));

    if (!order)
        return -ENOMEM;
    for (size_t i = 0; i < parser->n_runs; i++)
        order[i] = &parser->runs[i];
    sort_list(order, parser->n_runs, sizeof(struct run *), compare_file);
    for (size_t i = 0; i < parser->n_runs; i++) {
        if (i == 0 || strcmp(order[i - 1]->file, order[i]->file) != 0) {
            const char **file = arena_push(parser->arena, &index->files, &index->n_files, sizeof(*file));
            if (!file)
                return -ENOMEM;
            *file = order[i]->file;
        }
        order[i]->shard = index->n_files - 1;
    }
    return 0;
}

static int number_files(struct parser *parser, struct err *err)
{
    struct shard_index *index = parser->index;

    if (number_runs(parser))
        return -ENOMEM;
    if (index->n_files > SHARDS_MAX)
        return err_set(err, -EINVAL, "weight_map names %zu files; at most %d are allowed", index->n_files,
                       SHARDS_MAX);
    for (size_t i = 0; i < index->n; i++)
        index->entries[i].shard = parser->runs[index->entries[i].shard].shard;
    sort_list(index->entries, index->n, sizeof(*index->entries), compare_tensor);
    return 0;
}

int shard_index_parse(struct arena *arena, const char *json, size_t len, struct shard_index *index,
                      struct err *err)
{
    struct parser parser = {.arena = arena, .json = json_new(json, len, err), .index = index};
    int ret = -ENOMEM;

    *index = (struct shard_index){0};
    if (parser.json)
        ret = parse_index(&parser);
    if (parser.json && json_status(parser.json))
        ret = json_status(parser.json);
    json_free(parser.json);
    if (ret == 0)
        ret = number_files(&parser, err);
    if (ret == -ENOMEM)
        err_set(err, ret, "out of memory");
    return ret;
}
