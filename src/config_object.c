/* Mappings read by table, and what is said about keys that are in none. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_part.h"
#include "similar.h"

void reader_error(struct reader *reader, struct place at, const char *fmt, ...)
{
    char text[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    findings_add(reader->findings, SEVERITY_ERROR, at, "%s", text);
}

void reader_warning(struct reader *reader, struct place at, const char *fmt, ...)
{
    char text[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    findings_add(reader->findings, SEVERITY_WARNING, at, "%s", text);
}

void *reader_alloc(struct reader *reader, size_t n, size_t size)
{
    void *at = arena_alloc(&reader->config->arena, n, size);

    if (!at)
        reader->findings->no_memory = true;
    return at;
}

const char *reader_text(struct reader *reader, const struct ypair *pair)
{
    const struct ynode *value = pair->value;

    if (value->kind == YNODE_TEXT && value->text[0])
        return value->text;
    if (value->kind == YNODE_TEXT)
        reader_error(reader, value->at, "`%s` is empty", pair->key->text);
    else if (value->kind < YNODE_LIST)
        reader_error(reader, value->at, "`%s` must be a text and `%.64s` is %s in YAML: put it in quotes",
                     pair->key->text, value->text, ynode_kind_name(value->kind));
    else
        reader_error(reader, value->at, "`%s` must be a text, not %s", pair->key->text,
                     ynode_kind_name(value->kind));
    return NULL;
}

bool reader_list(struct reader *reader, const struct ypair *pair, const char *item)
{
    const struct ynode *value = pair->value;

    if (value->kind != YNODE_LIST)
        reader_error(reader, value->at, "`%s` must be a list, not %s: begin each entry with `%s`",
                     pair->key->text, ynode_kind_name(value->kind), item);
    else if (value->n == 0)
        reader_error(reader, value->at, "`%s` is empty: add an entry that begins with `%s`", pair->key->text,
                     item);
    return value->kind == YNODE_LIST && value->n > 0;
}

bool scalar_count(const struct ynode *node, int64_t *count)
{
    double number = node->number;

    if (node->kind == YNODE_TEXT && !yaml_text_number(node->text, &number))
        return false;
    if (node->kind != YNODE_INT && node->kind != YNODE_FLOAT && node->kind != YNODE_TEXT)
        return false;
    if (!(number >= 0 && number <= 1e9) || number != floor(number))
        return false;
    *count = (int64_t)number;
    return true;
}

static const char *closest(const struct object *object, const char *key)
{
    struct similar similar = similar_to(key);

    for (size_t i = 0; i < object->n_fields; i++)
        similar_try(&similar, object->fields[i].name);
    return similar.best;
}

static const struct field *find_field(const struct object *object, const char *key)
{
    for (size_t i = 0; i < object->n_fields; i++)
        if (strcmp(object->fields[i].name, key) == 0)
            return &object->fields[i];
    return NULL;
}

static void unknown_key(struct reader *reader, const struct object *object, const struct ynode *key)
{
    const char *near = closest(object, key->text);
    const char *name = key->text;

    if (find_field(object, "parameters") && known_param(name))
        findings_add(reader->findings, object->unknown, key->at,
                     "`%s` belongs under `parameters:`: here it has no effect, indent it below that key",
                     name);
    else if (!find_field(object, "merge_method") && key_of_document(name))
        findings_add(reader->findings, object->unknown, key->at,
                     "`%s` belongs at the top level of the file: in %s it has no effect", name, object->what);
    else if (strcmp(name, "layer_range") == 0)
        findings_add(reader->findings, object->unknown, key->at,
                     "`layer_range` has no effect in %s: only the sources of `slices:` have one",
                     object->what);
    else if (near)
        findings_add(reader->findings, object->unknown, key->at, "unknown key `%s` in %s: did you mean `%s`?",
                     name, object->what, near);
    else
        findings_add(reader->findings, object->unknown, key->at, "unknown key `%.64s` in %s", name,
                     object->what);
}

bool lacks_key(const struct ynode *node, const char *key)
{
    for (size_t i = 0; node->kind == YNODE_MAP && i < node->n; i++)
        if (strcmp(node->pairs[i].key->text, key) == 0)
            return false;
    return node->kind == YNODE_MAP;
}

void object_read(struct reader *reader, const struct ynode *node, const struct object *object, void *out)
{
    const struct field *field;

    if (node->kind != YNODE_MAP) {
        reader_error(reader, node->at, "%s must be a mapping of `key: value`, not %s", object->what,
                     ynode_kind_name(node->kind));
        return;
    }
    for (size_t i = 0; i < node->n; i++) {
        const struct ypair *pair = &node->pairs[i];
        field = find_field(object, pair->key->text);
        if (!field && object->extensible && strncmp(pair->key->text, "x-", 2) == 0)
            continue;
        if (!field)
            unknown_key(reader, object, pair->key);
        else if (pair->value->kind != YNODE_NULL)
            field->read(reader, pair, out);
        else if (field->needs_value)
            reader_error(reader, pair->key->at, "`%s` has no value", field->name);
        else
            reader_warning(reader, pair->key->at, "`%s` has no value: as if it were not there", field->name);
    }
}
