/* What is merged with what: models, slices of them, modules. */
#include <stdlib.h>
#include <string.h>

#include "config_part.h"

static void source_model(struct reader *reader, const struct ypair *pair, void *out)
{
    ref_read(reader, pair, &((struct slice_source *)out)->model);
}

static void source_params(struct reader *reader, const struct ypair *pair, void *out)
{
    params_read(reader, pair, &((struct slice_source *)out)->params);
}

/* Leaves range_at.line 0 where there is no valid range. */
static void source_range(struct reader *reader, const struct ypair *pair, void *out)
{
    struct slice_source *source = out;
    const struct ynode *value = pair->value;

    if (value->kind != YNODE_LIST || value->n != 2 || !scalar_count(value->items[0], &source->begin) ||
        !scalar_count(value->items[1], &source->end)) {
        reader_error(
            reader, value->at,
            "`layer_range` must be two whole numbers from 0 in brackets, such as [0, 16]: the first layer "
            "and the one after the last");
        return;
    }
    if (source->end < source->begin) {
        reader_error(reader, value->at,
                     "`layer_range` [%lld, %lld] runs backwards: the smaller number comes first",
                     (long long)source->begin, (long long)source->end);
        return;
    }
    source->range_at = value->at;
}

static void source_read(struct reader *reader, const struct ynode *node, struct slice_source *source)
{
    static const struct field fields[] = {
        {"model", source_model, true}, {"layer_range", source_range, true}, {"parameters", source_params}};
    static const struct object object = {"a source of a slice", fields, 3, SEVERITY_WARNING};

    source->at = node->at;
    object_read(reader, node, &object, source);
    if (lacks_key(node, "model"))
        reader_error(reader, node->at, "this source names no model: add `model:`");
    if (lacks_key(node, "layer_range"))
        reader_error(reader, node->at,
                     "this source has no `layer_range:`: add one, or use `models:` to merge whole models");
}

static void whole_model_read(struct reader *reader, const struct ynode *node, struct slice_source *source)
{
    static const struct field fields[] = {{"model", source_model, true}, {"parameters", source_params}};
    static const struct object object = {"an entry of `models:`", fields, 2, SEVERITY_WARNING};

    source->at = node->at;
    source->whole = true;
    if (node->kind == YNODE_TEXT) {
        reader_error(reader, node->at, "an entry of `models:` is a mapping: write `- model: %.64s`",
                     node->text);
        return;
    }
    object_read(reader, node, &object, source);
    if (lacks_key(node, "model"))
        reader_error(reader, node->at, "this entry names no model: add `model:`");
}

static int source_compare(const void *a_ptr, const void *b_ptr)
{
    const struct slice_source *a = *(struct slice_source *const *)a_ptr,
                              *b = *(struct slice_source *const *)b_ptr;
    int order = model_ref_compare(&a->model, &b->model);

    return order ? order : a < b ? -1 : a > b;
}

static void check_repeated(struct reader *reader, const struct slice *slice)
{
    struct slice_source **sorted = reader_alloc(reader, slice->n_sources, sizeof(struct slice_source *));

    if (!sorted)
        return;
    for (size_t i = 0; i < slice->n_sources; i++)
        sorted[i] = &slice->sources[i];
    qsort(sorted, slice->n_sources, sizeof(*sorted), source_compare);
    for (size_t i = 1; i < slice->n_sources; i++)
        if (sorted[i]->model.path && model_ref_equal(&sorted[i]->model, &sorted[i - 1]->model))
            reader_error(reader, sorted[i]->model.at, "model `%s` is there twice, first in line %u: keep one",
                         sorted[i]->model.written, sorted[i - 1]->model.at.line);
}

static void check_lengths(struct reader *reader, const struct slice *slice)
{
    const struct slice_source *first = NULL, *source;

    for (size_t i = 0; i < slice->n_sources; i++) {
        source = &slice->sources[i];
        if (source->range_at.line && !first)
            first = source;
        if (source->range_at.line && source->end - source->begin != first->end - first->begin)
            reader_error(
                reader, source->range_at,
                "`layer_range` has %lld layers and the first source of the slice %lld: make them equal",
                (long long)(source->end - source->begin), (long long)(first->end - first->begin));
    }
}

/* The entries of a list as sources, by `read`. */
static void sources_read(struct reader *reader, const struct ynode *list, struct slice *slice,
                         void (*read)(struct reader *, const struct ynode *, struct slice_source *))
{
    slice->sources = reader_alloc(reader, list->n, sizeof(*slice->sources));
    if (!slice->sources)
        return;
    slice->n_sources = list->n;
    for (size_t i = 0; i < list->n; i++)
        read(reader, list->items[i], &slice->sources[i]);
    check_repeated(reader, slice);
    check_lengths(reader, slice);
}

static void slice_sources(struct reader *reader, const struct ypair *pair, void *out)
{
    struct slice *slice = out;

    if (reader_list(reader, pair, "- model:"))
        sources_read(reader, pair->value, slice, source_read);
}

static void slice_base(struct reader *reader, const struct ypair *pair, void *out)
{
    ((struct slice *)out)->base_model = ref_new(reader, pair);
}

static void slice_params(struct reader *reader, const struct ypair *pair, void *out)
{
    params_read(reader, pair, &((struct slice *)out)->params);
}

static void slice_residual(struct reader *reader, const struct ypair *pair, void *out)
{
    (void)out;
    reader_warning(reader, pair->key->at, "`residual_weight` has no effect: leave it out");
}

static void slice_read(struct reader *reader, const struct ynode *node, struct slice *slice)
{
    static const struct field fields[] = {{"sources", slice_sources, true},
                                          {"base_model", slice_base},
                                          {"parameters", slice_params},
                                          {"residual_weight", slice_residual}};
    static const struct object object = {"a slice", fields, 4, SEVERITY_WARNING};

    slice->at = node->at;
    object_read(reader, node, &object, slice);
    if (lacks_key(node, "sources"))
        reader_error(reader, node->at,
                     "this slice has no `sources:`: add a list of models with their layers");
}

/* `models:` is one slice of whole models. */
static void module_models(struct reader *reader, const struct ypair *pair, void *out)
{
    struct module *module = out;

    if (!reader_list(reader, pair, "- model:"))
        return;
    module->slices = reader_alloc(reader, 1, sizeof(*module->slices));
    if (!module->slices)
        return;
    module->n_slices = 1;
    module->slices->at = pair->value->at;
    sources_read(reader, pair->value, module->slices, whole_model_read);
}

static void module_slices(struct reader *reader, const struct ypair *pair, void *out)
{
    struct module *module = out;

    if (!reader_list(reader, pair, "- sources:"))
        return;
    module->slices = reader_alloc(reader, pair->value->n, sizeof(*module->slices));
    if (!module->slices)
        return;
    module->n_slices = pair->value->n;
    for (size_t i = 0; i < module->n_slices; i++)
        slice_read(reader, pair->value->items[i], &module->slices[i]);
}

static void module_params(struct reader *reader, const struct ypair *pair, void *out)
{
    params_read(reader, pair, &((struct module *)out)->params);
}

/* Is the key not there, or without a value, which counts as that? */
static bool lacks_value(const struct ynode *node, const char *key)
{
    for (size_t i = 0; node->kind == YNODE_MAP && i < node->n; i++)
        if (strcmp(node->pairs[i].key->text, key) == 0)
            return node->pairs[i].value->kind == YNODE_NULL;
    return node->kind == YNODE_MAP;
}

static void module_read(struct reader *reader, const struct ypair *pair, struct module *module)
{
    static const struct field fields[] = {
        {"models", module_models}, {"slices", module_slices}, {"parameters", module_params}};
    static const struct object object = {"a module", fields, 3, SEVERITY_WARNING};
    const struct ynode *node = pair->value;
    bool both = node->kind == YNODE_MAP && !lacks_value(node, "models") && !lacks_value(node, "slices");

    module->at = pair->key->at;
    module->name = pair->key->text;
    if (both) {
        reader_error(reader, module->at, "module `%s` has both `models:` and `slices:`: keep one",
                     module->name);
        return;
    }
    object_read(reader, node, &object, module);
    if (lacks_value(node, "models") && lacks_value(node, "slices"))
        reader_error(reader, module->at, "module `%s` has neither `models:` nor `slices:`: add one",
                     module->name);
}

/* The whole model as the one module, which has no name. */
static struct module *only_module(struct reader *reader, const struct ypair *pair, struct document *document)
{
    document->modules = reader_alloc(reader, 1, sizeof(*document->modules));
    if (!document->modules)
        return NULL;
    document->n_modules = 1;
    document->modules->at = pair->key->at;
    return document->modules;
}

void models_read(struct reader *reader, const struct ypair *pair, struct document *document)
{
    struct module *module = only_module(reader, pair, document);

    if (module)
        module_models(reader, pair, module);
}

void slices_read(struct reader *reader, const struct ypair *pair, struct document *document)
{
    struct module *module = only_module(reader, pair, document);

    if (module)
        module_slices(reader, pair, module);
}

void modules_read(struct reader *reader, const struct ypair *pair, struct document *document)
{
    const struct ynode *value = pair->value;

    if (value->kind != YNODE_MAP || value->n == 0) {
        reader_error(reader, value->at,
                     "`modules` must be a mapping of module names to `models:` or `slices:`");
        return;
    }
    document->modules = reader_alloc(reader, value->n, sizeof(*document->modules));
    if (!document->modules)
        return;
    document->n_modules = value->n;
    for (size_t i = 0; i < value->n; i++)
        module_read(reader, &value->pairs[i], &document->modules[i]);
}
