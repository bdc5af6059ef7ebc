/* The models of a document: each once, with a number and the names that it goes by. */
#include <stdlib.h>
#include <string.h>

#include "config_part.h"

/* A model where it is mentioned. */
struct mention {
    const struct model_ref *ref;
    size_t order;
    bool repeated;
};

struct mentions {
    size_t n;
    struct mention *list;
};

/* What to do with each slice. */
typedef void visit_slice(void *arg, const struct slice *slice);

static void for_slices(const struct document *document, visit_slice *visit, void *arg)
{
    for (size_t m = 0; m < document->n_modules; m++)
        for (size_t s = 0; s < document->modules[m].n_slices; s++)
            visit(arg, &document->modules[m].slices[s]);
}

static void count_slice(void *arg, const struct slice *slice)
{
    *(size_t *)arg += slice->n_sources + 1;
}

static void mention(struct mentions *mentions, const struct model_ref *ref)
{
    if (!ref || !ref->path)
        return;
    mentions->list[mentions->n] = (struct mention){ref, mentions->n, false};
    mentions->n++;
}

static void mention_sources(void *arg, const struct slice *slice)
{
    for (size_t i = 0; i < slice->n_sources; i++)
        mention(arg, &slice->sources[i].model);
}

static void mention_base(void *arg, const struct slice *slice)
{
    mention(arg, slice->base_model);
}

static int by_reference(const void *a_ptr, const void *b_ptr)
{
    const struct mention *a = *(struct mention *const *)a_ptr, *b = *(struct mention *const *)b_ptr;
    int order = model_ref_compare(a->ref, b->ref);

    return order ? order : a->order < b->order ? -1 : a->order > b->order;
}

/* Number those that are no repetition in order of mention, and list the numbers by reference. `sorted`: by
 * reference, then order. */
static void assign_numbers(struct document *document, struct mentions *mentions,
                           struct mention *const *sorted, int *by_ref)
{
    int *number_at = by_ref + mentions->n; /* by mention */
    size_t k = 0;

    for (size_t i = 1; i < mentions->n; i++)
        sorted[i]->repeated = model_ref_equal(sorted[i]->ref, sorted[i - 1]->ref);
    for (size_t i = 0; i < mentions->n; i++) {
        if (mentions->list[i].repeated)
            continue;
        number_at[i] = (int)document->n_models;
        document->models[document->n_models++] = mentions->list[i].ref;
    }
    for (size_t i = 0; i < mentions->n; i++)
        if (!sorted[i]->repeated)
            by_ref[k++] = number_at[sorted[i]->order];
    document->models_sorted = by_ref;
}

static void find_models(struct reader *reader, struct document *document)
{
    struct mentions mentions = {0};
    struct mention **sorted;
    size_t room = 1;
    int *by_ref;

    for_slices(document, count_slice, &room);
    mentions.list = reader_alloc(reader, room, sizeof(*mentions.list));
    sorted = reader_alloc(reader, room, sizeof(*sorted));
    by_ref = reader_alloc(reader, 2 * room, sizeof(*by_ref));
    document->models = reader_alloc(reader, room, sizeof(*document->models));
    if (!mentions.list || !sorted || !by_ref || !document->models)
        return;
    for_slices(document, mention_sources, &mentions);
    for_slices(document, mention_base, &mentions);
    mention(&mentions, document->base_model);
    for (size_t i = 0; i < mentions.n; i++)
        sorted[i] = &mentions.list[i];
    if (mentions.n)
        qsort(sorted, mentions.n, sizeof(*sorted), by_reference);
    assign_numbers(document, &mentions, sorted, by_ref);
}

int document_model(const struct document *document, const struct model_ref *ref)
{
    size_t low = 0, high = document->n_models;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int number = document->models_sorted[middle];
        int order = model_ref_compare(document->models[number], ref);
        if (order == 0)
            return number;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

struct donors {
    const struct document *document;
    bool *is_donor;
};

static void mark_donors(void *arg, const struct slice *slice)
{
    const struct donors *donors = arg;
    const struct model_ref *base = slice->base_model ? slice->base_model : donors->document->base_model;

    for (size_t i = 0; i < slice->n_sources; i++) {
        const struct model_ref *ref = &slice->sources[i].model;
        if (ref->path && !(base && model_ref_equal(ref, base)))
            donors->is_donor[document_model(donors->document, ref)] = true;
    }
}

/* "/models/math/" -> "math"; NULL where a path ends in no name. */
static const char *last_component(struct reader *reader, const char *path)
{
    size_t end = strlen(path), begin;
    char *name;

    while (end && path[end - 1] == '/')
        end--;
    for (begin = end; begin && path[begin - 1] != '/';)
        begin--;
    path += begin;
    end -= begin;
    if (end == 0 || strspn(path, ".") >= end || (end == 1 && *path == '~'))
        return NULL;
    name = arena_strndup(&reader->config->arena, path, end);
    if (!name)
        reader->findings->no_memory = true;
    return name;
}

static int by_name(const void *a_ptr, const void *b_ptr)
{
    const struct model_name *a = a_ptr, *b = b_ptr;
    int order = strcmp(a->name, b->name);

    return order ? order : (a->model > b->model) - (a->model < b->model);
}

static void sort_names(struct document *document)
{
    if (document->n_names)
        qsort(document->names, document->n_names, sizeof(*document->names), by_name);
}

static void name_models(struct reader *reader, struct document *document)
{
    document->model_names = reader_alloc(reader, document->n_models, sizeof(*document->model_names));
    document->names = reader_alloc(reader, document->n_models, sizeof(*document->names));
    for (size_t i = 0; document->model_names && document->names && i < document->n_models; i++) {
        const char *name = last_component(reader, document->models[i]->path);
        document->model_names[i] = name;
        if (name)
            document->names[document->n_names++] = (struct model_name){name, (int)i, false};
    }
    sort_names(document);
}

void models_number(struct reader *reader, struct document *document)
{
    struct donors donors = {document, NULL};

    find_models(reader, document);
    donors.is_donor = reader_alloc(reader, document->n_models, sizeof(*donors.is_donor));
    document->is_donor = donors.is_donor;
    if (donors.is_donor)
        for_slices(document, mark_donors, &donors);
    name_models(reader, document);
}

/* Of `len` bytes of a name and an entry's: as strcmp. */
static int compare_name(const struct model_name *entry, const char *name, size_t len)
{
    int order = strncmp(entry->name, name, len);

    return order ? order : entry->name[len] != '\0';
}

size_t document_named(const struct document *document, const char *name, size_t len,
                      const struct model_name **first)
{
    size_t low = 0, high = document->n_names, n = 0;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_name(&document->names[middle], name, len) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *first = document->names + low;
    while (low + n < document->n_names && compare_name(*first + n, name, len) == 0)
        n++;
    return n;
}

/* Aliases */

/* Does the last component of another model read the same? */
static const struct model_ref *namesake(const struct document *document, const char *alias, int model)
{
    const struct model_name *found;
    size_t n = document_named(document, alias, strlen(alias), &found);

    for (size_t i = 0; i < n; i++)
        if (found[i].model != model)
            return document->models[found[i].model];
    return NULL;
}

static bool has_controls(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            return true;
    return false;
}

/* An alias is part of a path: `math.weight=0.3`. */
static bool alias_fits(struct reader *reader, const struct ynode *key)
{
    const char *alias = key->text, *problem = NULL;

    if (!*alias)
        problem = "it is empty";
    else if (strpbrk(alias, "=/") || has_controls(alias))
        problem = "a `=`, a `/`, a tab or a new line cannot be part of it";
    else if (alias[strspn(alias, "0123456789")] == '\0')
        problem = "digits alone are a model's position";
    if (problem)
        reader_error(reader, key->at, "`%.64s` cannot be the alias of a model: %s", alias, problem);
    return !problem;
}

static void alias_read(struct reader *reader, const struct ypair *pair, struct document *document)
{
    const struct model_ref *other;
    struct model_ref ref;
    int model;

    if (pair->value->kind == YNODE_NULL) {
        reader_error(reader, pair->key->at, "the alias `%.64s` has no model", pair->key->text);
        return;
    }
    if (!ref_read(reader, pair, &ref) || !alias_fits(reader, pair->key) || document->n_models == 0)
        return;
    model = document_model(document, &ref);
    other = namesake(document, pair->key->text, model);
    if (model < 0)
        reader_error(reader, ref.at, "`%.64s` is none of this document's models: write it as it is there",
                     ref.written);
    else if (other)
        reader_error(reader, pair->key->at, "`%.64s` is what `%.64s` goes by: choose another alias",
                     pair->key->text, other->written);
    else
        document->aliases[document->n_aliases++] = (struct model_name){pair->key->text, model, true};
}

void aliases_read(struct reader *reader, const struct ynode *map, struct document *document)
{
    struct model_name *names = reader_alloc(reader, document->n_names + map->n, sizeof(*names));

    document->aliases = reader_alloc(reader, map->n, sizeof(*document->aliases));
    if (!names || !document->aliases)
        return;
    for (size_t i = 0; i < map->n; i++)
        alias_read(reader, &map->pairs[i], document);
    if (document->n_names)
        memcpy(names, document->names, document->n_names * sizeof(*names));
    if (document->n_aliases)
        memcpy(names + document->n_names, document->aliases, document->n_aliases * sizeof(*names));
    document->names = names;
    document->n_names += document->n_aliases;
    sort_names(document);
}
