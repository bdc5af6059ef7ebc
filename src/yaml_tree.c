#include "yaml_tree.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "yaml_text.h"

struct anchor {
    const char *name;
    struct ynode *node;
};

/* A collection that is being read. */
struct level {
    struct ynode *node;
    const struct ynode *key; /* MAP: waits for its value */
};

struct builder {
    struct arena *arena;
    struct findings *findings;
    const char *file;
    struct text_cursor cursor;
    yaml_parser_t parser;
    void *anchors; /* tsearch tree of struct anchor; each document has its own */
    size_t depth;
    struct level levels[YAML_DEPTH_MAX];
    const struct ynode *root;
    unsigned weight; /* of all documents */
};

static int fail(struct builder *b, struct place at, const char *message)
{
    findings_add(b->findings, SEVERITY_ERROR, at, "%s", message);
    return -EINVAL;
}

static struct place place_of(struct builder *b, const yaml_mark_t *mark)
{
    text_cursor_to_index(&b->cursor, mark->index);
    return text_cursor_place(&b->cursor, b->file);
}

/* Anchors and aliases */

static int anchor_compare(const void *a_ptr, const void *b_ptr)
{
    const struct anchor *a = a_ptr, *b = b_ptr;

    return strcmp(a->name, b->name);
}

static void keep(void *anchor)
{
    (void)anchor; /* the arena has it */
}

static void forget_anchors(struct builder *b)
{
    tdestroy(b->anchors, keep);
    b->anchors = NULL;
}

static int set_anchor(struct builder *b, const yaml_char_t *name, struct ynode *node)
{
    struct anchor *anchor, **found;

    if (!name)
        return 0;
    anchor = arena_alloc(b->arena, 1, sizeof(*anchor));
    if (!anchor || !(anchor->name = arena_strdup(b->arena, (const char *)name)))
        return -ENOMEM;
    anchor->node = node;
    found = tsearch(anchor, &b->anchors, anchor_compare);
    if (!found)
        return -ENOMEM;
    if (*found == anchor)
        return 0;
    findings_add(b->findings, SEVERITY_ERROR, node->at, "anchor `&%s` is given twice, first in line %u",
                 anchor->name, (*found)->node->at.line);
    return 0;
}

static int find_alias(struct builder *b, const yaml_event_t *event, struct ynode **out)
{
    struct anchor key = {(const char *)event->data.alias.anchor, NULL}, **found;
    struct place at = place_of(b, &event->start_mark);

    found = tfind(&key, &b->anchors, anchor_compare);
    if (!found) {
        findings_add(b->findings, SEVERITY_ERROR, at, "no anchor `&%s` stands before this alias", key.name);
        return -EINVAL;
    }
    *out = (*found)->node;
    if ((*out)->open) {
        findings_add(b->findings, SEVERITY_ERROR, at, "alias `*%s` stands inside its own anchor", key.name);
        return -EINVAL;
    }
    return 0;
}

/* Scalars */

static struct ynode *new_node(struct builder *b, enum ynode_kind kind, const yaml_event_t *event)
{
    struct ynode *node = arena_alloc(b->arena, 1, sizeof(*node));

    if (!node)
        return NULL;
    node->kind = kind;
    node->weight = 1;
    node->at = place_of(b, &event->start_mark);
    return node;
}

static const char tag_prefix[] = "tag:yaml.org,2002:"; /* written `!!` */

/* "!" alone asks for what no tag gives. */
static const char *tag_of(const yaml_char_t *tag)
{
    return tag && strcmp((const char *)tag, "!") != 0 ? (const char *)tag : NULL;
}

/* The kinds that a tag can ask for. */
static bool tag_allows(const char *tag, enum ynode_kind *kind)
{
    static const struct {
        const char *name;
        enum ynode_kind kind;
    } tags[] = {{"str", YNODE_TEXT},  {"int", YNODE_INT},  {"float", YNODE_FLOAT}, {"bool", YNODE_BOOL},
                {"null", YNODE_NULL}, {"seq", YNODE_LIST}, {"map", YNODE_MAP}};

    if (strncmp(tag, tag_prefix, sizeof(tag_prefix) - 1) != 0)
        return false;
    for (size_t i = 0; i < sizeof(tags) / sizeof(*tags); i++)
        if (strcmp(tag + sizeof(tag_prefix) - 1, tags[i].name) == 0) {
            *kind = tags[i].kind;
            return true;
        }
    return false;
}

static void bad_tag(struct builder *b, struct place at, const char *tag)
{
    bool common = strncmp(tag, tag_prefix, sizeof(tag_prefix) - 1) == 0;

    findings_add(b->findings, SEVERITY_ERROR, at, "tag `%s%.64s` does not fit here: leave it out",
                 common ? "!!" : "", common ? tag + sizeof(tag_prefix) - 1 : tag);
}

/* "!!float 1" and the like; what the text says must be of the kind that the tag names. */
static void apply_tag(struct builder *b, struct ynode *node, const char *tag)
{
    enum ynode_kind wanted, is = yaml_resolve(node->text, &node->number);
    bool fits;

    if (!tag_allows(tag, &wanted) || wanted > YNODE_TEXT) {
        bad_tag(b, node->at, tag);
        return;
    }
    fits = is == wanted || wanted == YNODE_TEXT;
    if (wanted == YNODE_FLOAT)
        fits = is == YNODE_INT || is == YNODE_FLOAT || yaml_text_number(node->text, &node->number);
    node->kind = wanted;
    if (!fits)
        bad_tag(b, node->at, tag);
}

static int read_scalar(struct builder *b, const yaml_event_t *event, struct ynode **out)
{
    const char *text = (const char *)event->data.scalar.value, *tag = tag_of(event->data.scalar.tag);
    size_t len = event->data.scalar.length;
    struct ynode *node = new_node(b, YNODE_TEXT, event);

    if (!node || !(node->text = arena_strndup(b->arena, text, len)))
        return -ENOMEM;
    if (memchr(text, '\0', len))
        return fail(b, node->at, "this text holds a NUL: take the `\\0` out");
    if (tag) {
        apply_tag(b, node, tag);
    } else if (event->data.scalar.plain_implicit) {
        node->plain = true;
        node->kind = yaml_resolve(text, &node->number);
    }
    *out = node;
    return set_anchor(b, event->data.scalar.anchor, node);
}

/* Collections */

static int check_weight(struct builder *b, unsigned more, struct place at)
{
    b->weight += more < YAML_NODES_MAX ? more : YAML_NODES_MAX;
    if (b->weight <= YAML_NODES_MAX)
        return 0;
    findings_add(b->findings, SEVERITY_ERROR, at, "more than %d values, those that aliases repeat included",
                 YAML_NODES_MAX);
    return -EINVAL;
}

/* Put a finished node into the collection that is open. */
static int attach(struct builder *b, const struct ynode *node)
{
    struct level *level;
    struct ypair *pair;
    const struct ynode **item;

    if (b->depth == 0) {
        b->root = node;
        return 0;
    }
    level = &b->levels[b->depth - 1];
    if (level->node->kind == YNODE_LIST) {
        item = arena_push(b->arena, &level->node->items, &level->node->n, sizeof(*item));
        if (item)
            *item = node;
        level->node->weight += node->weight;
        return item ? 0 : -ENOMEM;
    }
    if (!level->key) {
        level->key = node;
        return node->kind < YNODE_LIST ? 0
                                       : fail(b, node->at, "a key must be a word, not a list or a mapping");
    }
    pair = arena_push(b->arena, &level->node->pairs, &level->node->n, sizeof(*pair));
    if (!pair)
        return -ENOMEM;
    *pair = (struct ypair){level->key, node};
    level->key = NULL;
    return 0;
}

static int open_collection(struct builder *b, enum ynode_kind kind, const yaml_event_t *event)
{
    bool map = kind == YNODE_MAP;
    const char *tag = tag_of(map ? event->data.mapping_start.tag : event->data.sequence_start.tag);
    struct ynode *node = new_node(b, kind, event);
    const struct level *outer = b->depth ? &b->levels[b->depth - 1] : NULL;
    enum ynode_kind wanted;

    if (!node)
        return -ENOMEM;
    if (outer && outer->node->kind == YNODE_MAP && !outer->key)
        return fail(b, node->at, "a key must be a word, not a list or a mapping");
    if (b->depth == YAML_DEPTH_MAX)
        return fail(b, node->at, "lists and mappings are nested too deeply");
    if (tag && (!tag_allows(tag, &wanted) || wanted != kind))
        bad_tag(b, node->at, tag);
    node->open = true;
    b->levels[b->depth++] = (struct level){node, NULL};
    return set_anchor(b, map ? event->data.mapping_start.anchor : event->data.sequence_start.anchor, node);
}

/* A pair that a mapping may have: its own, or one that `<<` brings. */
struct candidate {
    struct ypair pair;
    bool own, dropped;
};

static bool is_merge(const struct ypair *pair)
{
    return pair->key->plain && strcmp(pair->key->text, "<<") == 0;
}

/* Earlier candidates win, so own pairs come first, and of several `<<` the last. */
static void add_pairs(struct candidate *list, size_t *n, const struct ynode *map)
{
    for (size_t i = 0; i < map->n; i++)
        list[(*n)++] = (struct candidate){map->pairs[i], false, false};
}

static size_t count_merged(struct builder *b, const struct ynode *value)
{
    size_t n = 0;

    if (value->kind == YNODE_MAP)
        return value->n;
    if (value->kind != YNODE_LIST)
        fail(b, value->at, "`<<` takes an alias of a mapping, or a list of such");
    for (size_t i = 0; value->kind == YNODE_LIST && i < value->n; i++) {
        if (value->items[i]->kind == YNODE_MAP)
            n += value->items[i]->n;
        else
            fail(b, value->items[i]->at, "`<<` takes an alias of a mapping, or a list of such");
    }
    return n;
}

static size_t gather(struct builder *b, const struct ynode *map, struct candidate **out)
{
    size_t room = map->n, n = 0;

    for (size_t i = 0; i < map->n; i++)
        room += is_merge(&map->pairs[i]) ? count_merged(b, map->pairs[i].value) : 0;
    *out = arena_alloc(b->arena, room, sizeof(**out));
    if (!*out)
        return 0;
    for (size_t i = 0; i < map->n; i++)
        if (!is_merge(&map->pairs[i]))
            (*out)[n++] = (struct candidate){map->pairs[i], true, false};
    for (size_t i = map->n; i-- > 0;) {
        const struct ynode *value = map->pairs[i].value;
        if (!is_merge(&map->pairs[i]))
            continue;
        if (value->kind == YNODE_MAP)
            add_pairs(*out, &n, value);
        for (size_t k = 0; value->kind == YNODE_LIST && k < value->n; k++)
            if (value->items[k]->kind == YNODE_MAP)
                add_pairs(*out, &n, value->items[k]);
    }
    return n;
}

static int candidate_compare(const void *a_ptr, const void *b_ptr)
{
    const struct candidate *a = *(struct candidate *const *)a_ptr, *b = *(struct candidate *const *)b_ptr;
    int order = strcmp(a->pair.key->text, b->pair.key->text);

    return order ? order : a < b ? -1 : a > b;
}

/* Sorted, so that a mapping of many keys takes no time; keys are equal where their texts are. */
static int drop_repeated(struct builder *b, struct candidate *list, size_t n)
{
    struct candidate **sorted = arena_alloc(b->arena, n, sizeof(*sorted)), *first;

    if (!sorted)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        sorted[i] = &list[i];
    if (n)
        qsort(sorted, n, sizeof(*sorted), candidate_compare);
    for (size_t i = 0, head = 0; i < n; i++) {
        first = sorted[head];
        if (i == head || strcmp(first->pair.key->text, sorted[i]->pair.key->text) != 0) {
            head = i;
            continue;
        }
        sorted[i]->dropped = true;
        if (sorted[i]->own)
            findings_add(b->findings, SEVERITY_ERROR, sorted[i]->pair.key->at,
                         "key `%s` is given twice, first in line %u: keep one", first->pair.key->text,
                         first->pair.key->at.line);
    }
    return 0;
}

static int finish_map(struct builder *b, struct ynode *map)
{
    struct candidate *list;
    size_t n = gather(b, map, &list), kept = 0;

    if (!list || drop_repeated(b, list, n))
        return -ENOMEM;
    map->pairs = arena_alloc(b->arena, n, sizeof(*map->pairs));
    if (!map->pairs)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        if (list[i].dropped)
            continue;
        map->pairs[kept++] = list[i].pair;
        map->weight += list[i].pair.value->weight + 1;
    }
    map->n = kept;
    return 0;
}

static int close_collection(struct builder *b)
{
    struct ynode *node = b->levels[--b->depth].node;
    int ret = node->kind == YNODE_MAP ? finish_map(b, node) : 0;

    node->open = false;
    return ret ? ret : attach(b, node);
}

/* Events */

static int take_event(struct builder *b, const yaml_event_t *event)
{
    struct ynode *node = NULL;
    int ret;

    switch (event->type) {
    case YAML_SEQUENCE_START_EVENT:
        ret = check_weight(b, 1, place_of(b, &event->start_mark));
        return ret ? ret : open_collection(b, YNODE_LIST, event);
    case YAML_MAPPING_START_EVENT:
        ret = check_weight(b, 1, place_of(b, &event->start_mark));
        return ret ? ret : open_collection(b, YNODE_MAP, event);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return close_collection(b);
    case YAML_SCALAR_EVENT:
        ret = read_scalar(b, event, &node);
        break;
    case YAML_ALIAS_EVENT:
        ret = find_alias(b, event, &node);
        break;
    default:
        return 0;
    }
    if (!ret)
        ret = check_weight(b, node->weight, place_of(b, &event->start_mark));
    return ret ? ret : attach(b, node);
}

static int end_document(struct builder *b, const struct ynode ***docs, size_t *n_docs)
{
    const struct ynode **doc, *root = b->root;

    forget_anchors(b);
    b->root = NULL;
    if (!root || root->kind == YNODE_NULL)
        return 0;
    doc = arena_push(b->arena, docs, n_docs, sizeof(*doc));
    if (doc)
        *doc = root;
    return doc ? 0 : -ENOMEM;
}

/* What the parser's commonest complaints mean to whoever wrote the file. */
struct complaint {
    const char *problem, *words;
    bool at_begin; /* the place that helps is where the thing begins that went wrong */
};

static const struct complaint *find_complaint(const char *problem)
{
    static const struct complaint table[] = {
        {"mapping values are not allowed",
         "a `:` where no key can stand: check the indentation, or quote the value"},
        {"did not find expected key", "this line does not fit those above: check the indentation"},
        {"did not find expected '-'",
         "this line does not fit the list above: check the indentation, or add the `-`"},
        {"could not find expected ':'",
         "neither `key: value` nor an item of a list: add the `:` or check the quotes"},
        {"did not find expected ',' or ']'", "the list that begins here does not end: add a `,` or the `]`",
         true},
        {"did not find expected ',' or '}'",
         "the mapping that begins here does not end: add a `,` or the `}`", true},
        {"block sequence entries are not", "a `-` where no list can begin: put it on a line of its own"},
        {"found unexpected end of stream", "the quotes that begin here do not end: close them", true},
        {"found unexpected ':'", "a blank must follow this `:`"},
        {"did not find expected node content",
         "something is missing here: a value, or the end of a list or mapping"},
        {"cannot start any token", "this character cannot begin a value: put the value in quotes"},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++)
        if (strstr(problem, table[i].problem))
            return &table[i];
    return NULL;
}

/* The line that the cursor is in begins with blanks of which one is a tab. */
static bool tab_indents(const struct text_cursor *cursor, size_t *at)
{
    for (size_t i = cursor->line_start; i < cursor->len; i++) {
        if (cursor->text[i] == '\t') {
            *at = i;
            return true;
        }
        if (cursor->text[i] != ' ')
            return false;
    }
    return false;
}

static int syntax_error(struct builder *b)
{
    const char *problem = b->parser.problem ? b->parser.problem : "the parser gave up";
    const struct complaint *complaint = find_complaint(problem);
    struct place at = place_of(b, &b->parser.problem_mark);
    size_t tab;

    if (b->parser.error == YAML_MEMORY_ERROR)
        return -ENOMEM;
    if (tab_indents(&b->cursor, &tab)) {
        at.col = (unsigned)(tab - b->cursor.line_start + 1);
        return fail(b, at, "a tab cannot indent in YAML: use spaces");
    }
    if (complaint && complaint->at_begin)
        at = place_of(b, &b->parser.context_mark);
    if (complaint)
        return fail(b, at, complaint->words);
    findings_add(b->findings, SEVERITY_ERROR, at, "this is no YAML: %s", problem);
    return -EINVAL;
}

static int read_stream(struct builder *b, const struct ynode ***docs, size_t *n_docs)
{
    yaml_event_t event;
    bool end = false;
    int ret = 0;

    while (!end && !ret) {
        if (!yaml_parser_parse(&b->parser, &event))
            return syntax_error(b);
        end = event.type == YAML_STREAM_END_EVENT;
        ret = event.type == YAML_DOCUMENT_END_EVENT ? end_document(b, docs, n_docs) : take_event(b, &event);
        yaml_event_delete(&event);
    }
    return ret;
}

/* The parser compares each %TAG with all others. */
static int check_directives(struct builder *b, const char *text, size_t len)
{
    static const char directive[] = "\n%TAG";
    enum { ENOUGH = 100 };
    const char *at = text;
    size_t n = 0;

    for (; (at = memmem(at, len - (size_t)(at - text), directive, sizeof(directive) - 1)); at++) {
        if (++n <= ENOUGH)
            continue;
        while (b->cursor.off <= (size_t)(at - text))
            text_cursor_to_index(&b->cursor, b->cursor.index + 1);
        return fail(b, text_cursor_place(&b->cursor, b->file), "too many %TAG lines: leave them out");
    }
    return 0;
}

int yaml_tree_read(struct arena *arena, struct findings *findings, const char *file, const char *text,
                   size_t len, const struct ynode ***docs, size_t *n_docs)
{
    struct builder b = {arena, findings, file};
    int ret = yaml_text_check(findings, file, text, len);

    *docs = NULL;
    *n_docs = 0;
    if (ret)
        return ret;
    text_cursor_init(&b.cursor, text, len);
    ret = check_directives(&b, text, len);
    if (ret)
        return ret;
    if (!yaml_parser_initialize(&b.parser))
        return -ENOMEM;
    yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&b.parser, (const unsigned char *)text + b.cursor.start,
                                 len - b.cursor.start);
    ret = read_stream(&b, docs, n_docs);
    forget_anchors(&b);
    yaml_parser_delete(&b.parser);
    return findings->no_memory ? -ENOMEM : ret;
}
