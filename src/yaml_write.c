#include "yaml_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* Takes the event over, if it could be made. */
static bool emit(yaml_emitter_t *emitter, int made, yaml_event_t *event)
{
    return made && yaml_emitter_emit(emitter, event);
}

/* Line feeds, and what YAML 1.1 counts among them: U+0085, U+2028, U+2029. */
static bool has_breaks(const char *text)
{
    return strpbrk(text, "\r\n") || strstr(text, "\xC2\x85") || strstr(text, "\xE2\x80\xA8") ||
           strstr(text, "\xE2\x80\xA9");
}

/* A tag tells what the quotes would hide. */
static const char *tag_for(const struct ynode *node)
{
    static const char *const tags[] = {[YNODE_NULL] = YAML_NULL_TAG,
                                       [YNODE_BOOL] = YAML_BOOL_TAG,
                                       [YNODE_INT] = YAML_INT_TAG,
                                       [YNODE_FLOAT] = YAML_FLOAT_TAG};

    return node->plain || node->kind >= YNODE_TEXT ? NULL : tags[node->kind];
}

static bool write_scalar(yaml_emitter_t *emitter, const struct ynode *node)
{
    const char *tag = tag_for(node), *text = node->plain && !node->text[0] ? "null" : node->text;
    yaml_scalar_style_t style = has_breaks(text) ? YAML_DOUBLE_QUOTED_SCALAR_STYLE
                                : node->plain    ? YAML_PLAIN_SCALAR_STYLE
                                                 : YAML_SINGLE_QUOTED_SCALAR_STYLE;
    yaml_event_t event;

    return emit(emitter,
                yaml_scalar_event_initialize(&event, NULL, (const yaml_char_t *)tag,
                                             (const yaml_char_t *)text, (int)strlen(text), !tag, !tag, style),
                &event);
}

/* In brackets a `:` would have to be quoted. */
static bool fits_brackets(const struct ynode *list)
{
    for (size_t i = 0; i < list->n; i++) {
        const struct ynode *item = list->items[i];
        if (!item->plain || item->kind < YNODE_BOOL || item->kind > YNODE_FLOAT || strchr(item->text, ':'))
            return false;
    }
    return true;
}

static bool write_node(yaml_emitter_t *emitter, const struct ynode *node);

static bool write_list(yaml_emitter_t *emitter, const struct ynode *node)
{
    yaml_sequence_style_t style = fits_brackets(node) ? YAML_FLOW_SEQUENCE_STYLE : YAML_BLOCK_SEQUENCE_STYLE;
    yaml_event_t event;
    bool good = emit(emitter, yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, style), &event);

    for (size_t i = 0; good && i < node->n; i++)
        good = write_node(emitter, node->items[i]);
    return good && emit(emitter, yaml_sequence_end_event_initialize(&event), &event);
}

static bool write_map(yaml_emitter_t *emitter, const struct ynode *node)
{
    yaml_event_t event;
    bool good =
        emit(emitter, yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE),
             &event);

    for (size_t i = 0; good && i < node->n; i++)
        good = write_node(emitter, node->pairs[i].key) && write_node(emitter, node->pairs[i].value);
    return good && emit(emitter, yaml_mapping_end_event_initialize(&event), &event);
}

static bool write_node(yaml_emitter_t *emitter, const struct ynode *node)
{
    if (node->kind == YNODE_LIST)
        return write_list(emitter, node);
    return node->kind == YNODE_MAP ? write_map(emitter, node) : write_scalar(emitter, node);
}

static bool write_stream(yaml_emitter_t *emitter, const struct ynode *const *docs, size_t n_docs)
{
    yaml_event_t event;
    bool good = emit(emitter, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING), &event);

    for (size_t i = 0; good && i < n_docs; i++)
        good =
            emit(emitter, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, i == 0), &event) &&
            write_node(emitter, docs[i]) &&
            emit(emitter, yaml_document_end_event_initialize(&event, 1), &event);
    return good && emit(emitter, yaml_stream_end_event_initialize(&event), &event);
}

static int write_out(void *out, unsigned char *bytes, size_t len)
{
    return fwrite(bytes, 1, len, out) == len;
}

char *yaml_write(const struct ynode *const *docs, size_t n_docs)
{
    yaml_emitter_t emitter;
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    bool good;

    if (!out)
        return NULL;
    good = yaml_emitter_initialize(&emitter);
    if (good) {
        yaml_emitter_set_output(&emitter, write_out, out);
        yaml_emitter_set_unicode(&emitter, 1);
        yaml_emitter_set_width(&emitter, -1);
        good = write_stream(&emitter, docs, n_docs);
        yaml_emitter_delete(&emitter);
    }
    if (fclose(out) == 0 && good)
        return text;
    free(text);
    return NULL;
}
