#include "recipe_edit.h"

#include <errno.h>
#include <string.h>

#include "method.h"
#include "yaml_tree.h"
#include "yaml_write.h"

/* Nodes are shared by aliases, so what changes is copied, never changed. When memory runs out, `failed` is
 * set and work goes on with what there is, since nobody will see it. */
struct editor {
    struct arena arena;
    const struct document *document;
    const struct method *method;
    const struct variant *variant;
    bool failed;
};

static const struct ynode no_node = {.kind = YNODE_NULL, .plain = true, .text = "null"},
                          no_map = {.kind = YNODE_MAP};

/* Nodes */

static const struct ynode *new_node(struct editor *e, struct ynode node)
{
    struct ynode *made = arena_alloc(&e->arena, 1, sizeof(*made));

    e->failed = e->failed || !made;
    if (!made)
        return &no_node;
    *made = node;
    return made;
}

/* A word that needs no quotes, by far. */
static bool is_word(const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    size_t head = strspn(text, letters);
    double number;

    return head > 0 && text[head + strspn(text + head, "abcdefghijklmnopqrstuvwxyz0123456789_.")] == '\0' &&
           yaml_resolve(text, &number) == YNODE_TEXT;
}

static const struct ynode *text_node(struct editor *e, const char *text)
{
    return new_node(e, (struct ynode){.kind = YNODE_TEXT, .plain = is_word(text), .text = text});
}

static struct ynode *map_copy(struct editor *e, const struct ynode *map)
{
    struct ynode *copy = arena_alloc(&e->arena, 1, sizeof(*copy));
    struct ypair *pairs = arena_alloc(&e->arena, map->n + 1, sizeof(*pairs));

    e->failed = e->failed || !copy || !pairs;
    if (!copy || !pairs)
        return NULL;
    *copy = *map;
    if (map->n)
        memcpy(pairs, map->pairs, map->n * sizeof(*pairs));
    copy->pairs = pairs;
    return copy;
}

static size_t map_find(const struct ynode *map, const char *key)
{
    size_t i = 0;

    while (i < map->n && strcmp(map->pairs[i].key->text, key) != 0)
        i++;
    return i;
}

/* NULL if there is none, or nothing in it. */
static const struct ynode *map_get(const struct ynode *map, const char *key)
{
    size_t i = map_find(map, key);

    return i < map->n && map->pairs[i].value->kind != YNODE_NULL ? map->pairs[i].value : NULL;
}

/* The mapping with another value under `key`; NULL takes the key out. */
static const struct ynode *map_with(struct editor *e, const struct ynode *map, const char *key,
                                    const struct ynode *value)
{
    size_t i = map_find(map, key);
    struct ynode *copy = map_copy(e, map);

    if (!copy || (!value && i == map->n))
        return map;
    if (i == copy->n)
        copy->pairs[copy->n++] = (struct ypair){text_node(e, key), value};
    else if (value)
        copy->pairs[i].value = value;
    else
        memmove(&copy->pairs[i], &copy->pairs[i + 1], (--copy->n - i) * sizeof(*copy->pairs));
    return copy;
}

struct items {
    size_t n;
    const struct ynode **list;
};

static void add_item(struct editor *e, struct items *items, const struct ynode *node)
{
    const struct ynode **item = arena_push(&e->arena, &items->list, &items->n, sizeof(*item));

    e->failed = e->failed || !item;
    if (item)
        *item = node;
}

static const struct ynode *list_node(struct editor *e, const struct items *items)
{
    return new_node(e, (struct ynode){.kind = YNODE_LIST, .n = items->n, .items = items->list});
}

/* Values */

/* A number that YAML 1.1 takes for one: 1e-5 is text there, and -0 a whole number without a sign. */
static const char *yaml_number(struct editor *e, const char *text)
{
    size_t head = strcspn(text, "e");
    const char *point = memchr(text, '.', head) ? "" : ".0", *exponent = text + head + 1;
    const char *made;

    if (!text[head] && strcmp(text, "-0") != 0)
        return text;
    if (!text[head])
        return "-0.0";
    made =
        arena_printf(&e->arena, "%.*s%se%s%s", (int)head, text, point, *exponent == '-' ? "" : "+", exponent);
    e->failed = e->failed || !made;
    return made ? made : text;
}

static const struct ynode *scalar_node(struct editor *e, const struct scalar *scalar)
{
    bool boolean = scalar->kind == SCALAR_BOOL;

    return new_node(e, (struct ynode){.kind = boolean ? YNODE_BOOL : YNODE_FLOAT,
                                      .plain = true,
                                      .text = boolean ? scalar->text : yaml_number(e, scalar->text)});
}

static const struct ynode *value_node(struct editor *e, const struct setting *setting)
{
    struct items items = {0};

    if (!setting->gradient)
        return scalar_node(e, &setting->values[0]);
    for (size_t i = 0; i < setting->n; i++)
        add_item(e, &items, scalar_node(e, &setting->values[i]));
    return list_node(e, &items);
}

static const struct ynode *condition_node(struct editor *e, const char *filter, const struct ynode *value)
{
    const struct ynode *map = &no_map;

    if (filter)
        map = map_with(e, map, "filter", text_node(e, filter));
    return map_with(e, map, "value", value);
}

/* What a scope has, as a list of conditions. */
static void add_old(struct editor *e, struct items *items, const struct ynode *old)
{
    bool conditions = false;

    for (size_t i = 0; old->kind == YNODE_LIST && i < old->n; i++)
        conditions = conditions || old->items[i]->kind == YNODE_MAP;
    if (old->kind == YNODE_MAP)
        add_item(e, items, old);
    else if (!conditions)
        add_item(e, items, condition_node(e, NULL, old));
    for (size_t i = 0; conditions && i < old->n; i++)
        add_item(e, items, old->items[i]);
}

/* One condition without a filter is a value. */
static const struct ynode *setting_node(struct editor *e, const struct items *items)
{
    if (items->n == 1 && items->list[0]->n == 1 && map_get(items->list[0], "value"))
        return map_get(items->list[0], "value");
    return list_node(e, items);
}

/* Overrides */

/* Of a parameter, for one model or for all (-1), with a filter or without. */
static bool is_set(const struct editor *e, unsigned param, int model, bool filtered)
{
    for (size_t i = 0; i < e->variant->n; i++) {
        const struct override *override = &e->variant->list[i];
        if (override->param == param && override->model == model && !override->filter == !filtered)
            return true;
    }
    return false;
}

static bool add_overrides(struct editor *e, struct items *items, unsigned param, int model, bool filtered)
{
    bool any = false;

    for (size_t i = 0; i < e->variant->n; i++) {
        const struct override *override = &e->variant->list[i];
        if (override->param != param || override->model != model || !override->filter != !filtered)
            continue;
        add_item(e, items, condition_node(e, override->filter, value_node(e, &override->setting)));
        any = true;
    }
    return any;
}

/* Everything that decides before what the file has; true if that is not asked any more. */
static bool add_deciding(struct editor *e, struct items *items, unsigned param, int model)
{
    if (model >= 0) {
        add_overrides(e, items, param, model, true);
        if (add_overrides(e, items, param, model, false))
            return true;
    }
    add_overrides(e, items, param, -1, true);
    return add_overrides(e, items, param, -1, false);
}

/* Where parameters stand. */
struct scope {
    bool top;
    int model;    /* -1: no source */
    bool is_base; /* of the method: has no value for a donor's parameter */
};

static const struct ynode *edit_param(struct editor *e, const struct scope *scope, unsigned param,
                                      const struct ynode *params)
{
    const struct method_param *known = &e->method->params[param];
    const struct ynode *old = map_get(params, known->name);
    bool source = scope->model >= 0, filters = is_set(e, param, -1, true), all = is_set(e, param, -1, false);
    bool own = source && (is_set(e, param, scope->model, true) || is_set(e, param, scope->model, false));
    struct items items = {0};

    if (source && (known->scope == PARAM_SHARED || (known->scope == PARAM_DONOR && scope->is_base)))
        return params;
    if (!own && !filters && !all)
        return params;
    if (!own && !scope->top && (all || !old))
        return map_with(e, params, known->name, NULL); /* what is at the top decides */
    if (!add_deciding(e, &items, param, own ? scope->model : -1) && old)
        add_old(e, &items, old);
    return map_with(e, params, known->name, setting_node(e, &items));
}

static const struct ynode *edit_params(struct editor *e, const struct scope *scope,
                                       const struct ynode *params)
{
    for (unsigned p = 0; p < e->method->n_params; p++)
        params = edit_param(e, scope, p, params);
    return params;
}

/* Whatever has `parameters:` of its own. */
static const struct ynode *edit_scope(struct editor *e, const struct scope *scope, const struct ynode *node)
{
    const struct ynode *old = map_get(node, "parameters"),
                       *edited = edit_params(e, scope, old ? old : &no_map);

    if (edited == (old ? old : &no_map))
        return node;
    return map_with(e, node, "parameters", edited->n ? edited : NULL);
}

/* The parts of a document, each beside what config has made of it. */

static const struct model_ref *base_of(const struct editor *e, const struct slice *slice)
{
    return slice->base_model ? slice->base_model : e->document->base_model;
}

static struct scope scope_of(const struct editor *e, const struct slice *slice, const struct model_ref *ref)
{
    const struct model_ref *base = e->method->base == BASE_IGNORED ? NULL : base_of(e, slice);

    return (struct scope){.model = document_model(e->document, ref),
                          .is_base = base && model_ref_equal(base, ref)};
}

static const struct ynode *edit_sources(struct editor *e, const struct ynode *list, const struct slice *slice)
{
    struct items items = {0};

    for (size_t i = 0; i < slice->n_sources; i++) {
        struct scope scope = scope_of(e, slice, &slice->sources[i].model);
        add_item(e, &items, edit_scope(e, &scope, list->items[i]));
    }
    return list_node(e, &items);
}

/* A base that is merged without being listed gets an entry if it has values of its own. */
static const struct ynode *edit_models(struct editor *e, const struct ynode *list, const struct slice *slice,
                                       const struct ynode *base_name)
{
    const struct ynode *edited = edit_sources(e, list, slice), *entry;
    const struct model_ref *base = e->document->base_model;
    struct items items = {edited->n, edited->items};
    struct scope scope;

    for (size_t i = 0; base && i < slice->n_sources; i++)
        if (model_ref_equal(base, &slice->sources[i].model))
            return edited;
    if (!base || !base_name)
        return edited;
    scope = scope_of(e, slice, base);
    entry = edit_scope(e, &scope, map_with(e, &no_map, "model", base_name));
    if (!map_get(entry, "parameters"))
        return edited;
    add_item(e, &items, entry);
    return list_node(e, &items);
}

static const struct ynode *edit_slices(struct editor *e, const struct ynode *list,
                                       const struct module *module)
{
    static const struct scope scope = {.model = -1};
    struct items items = {0};

    for (size_t i = 0; i < module->n_slices; i++) {
        const struct ynode *node = list->items[i], *sources = map_get(node, "sources");
        node = map_with(e, node, "sources", edit_sources(e, sources, &module->slices[i]));
        add_item(e, &items, edit_scope(e, &scope, node));
    }
    return list_node(e, &items);
}

/* `models:` or `slices:` of a module, or of the top level. */
static const struct ynode *edit_lists(struct editor *e, const struct ynode *node, const struct module *module,
                                      const struct ynode *base_name)
{
    const struct ynode *models = map_get(node, "models"), *slices = map_get(node, "slices");

    if (models)
        return map_with(e, node, "models", edit_models(e, models, module->slices, base_name));
    return slices ? map_with(e, node, "slices", edit_slices(e, slices, module)) : node;
}

static const struct ynode *edit_modules(struct editor *e, const struct ynode *map,
                                        const struct ynode *base_name)
{
    static const struct scope scope = {.model = -1};
    struct ynode *copy = map_copy(e, map);

    for (size_t i = 0; copy && i < copy->n; i++) {
        const struct ynode *module = edit_lists(e, map->pairs[i].value, &e->document->modules[i], base_name);
        copy->pairs[i].value = edit_scope(e, &scope, module);
    }
    return copy ? copy : map;
}

static const struct ynode *edit_document(struct editor *e, const struct ynode *node)
{
    static const struct scope scope = {.top = true, .model = -1};
    const struct ynode *modules = map_get(node, "modules"), *base_name = map_get(node, "base_model");

    if (modules)
        node = map_with(e, node, "modules", edit_modules(e, modules, base_name));
    else
        node = edit_lists(e, node, e->document->modules, base_name);
    return edit_scope(e, &scope, node);
}

static char *edit_text(struct editor *e, const struct config *config)
{
    struct findings findings = {0};
    struct report report = {0};
    const struct ynode **docs;
    size_t n;
    int ret = yaml_tree_read(&e->arena, &findings, config->path, config->text, config->text_len, &docs, &n);

    for (size_t i = 0; ret == 0 && i < n; i++)
        if (docs[i]->at.line == e->document->at.line && docs[i]->at.col == e->document->at.col)
            docs[i] = edit_document(e, docs[i]);
    findings_flush(&findings, config->path, &report);
    report_fini(&report);
    return ret || e->failed ? NULL : yaml_write(docs, n);
}

char *recipe_edit(const struct config *config, const struct document *document, const struct variant *variant,
                  struct err *err)
{
    struct editor e = {.document = document, .method = method_find(document->method), .variant = variant};
    char *text = edit_text(&e, config);

    arena_fini(&e.arena);
    if (!text)
        err_set(err, -ENOMEM, "out of memory");
    return text;
}
