/* Parameters: scalars, gradients, and both for the tensors that a filter picks. */
#include <string.h>

#include "config_part.h"

bool known_param(const char *name)
{
    static const char *const names[] = {"weight",      "density",
                                        "gamma",       "epsilon",
                                        "lambda",      "normalize",
                                        "rescale",     "int8_mask",
                                        "t",           "scale",
                                        "select_topk", "r",
                                        "alpha",       "nuslerp_flatten",
                                        "max_iter",    "nuslerp_row_wise",
                                        "eps",         "normalize_weights",
                                        "tol",         "filter_wise"};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static bool scalar_read(struct reader *reader, const char *name, const struct ynode *node,
                        struct scalar *scalar)
{
    *scalar = (struct scalar){SCALAR_TEXT, node->number, node->text};
    switch (node->kind) {
    case YNODE_BOOL:
        scalar->kind = SCALAR_BOOL;
        return true;
    case YNODE_INT:
    case YNODE_FLOAT:
        scalar->kind = SCALAR_NUMBER;
        return true;
    case YNODE_TEXT:
        if (yaml_text_number(node->text, &scalar->number))
            scalar->kind = SCALAR_NUMBER;
        return true;
    case YNODE_NULL:
        reader_error(reader, node->at, "`%s` has no value", name);
        return false;
    case YNODE_LIST:
        reader_error(reader, node->at, "`%s` holds a list inside a list: a gradient is one list of numbers",
                     name);
        return false;
    default:
        reader_error(reader, node->at, "`%s` holds a mapping where a number must stand", name);
        return false;
    }
}

/* One scalar, or a gradient of them. */
static void setting_read(struct reader *reader, const char *name, const struct ynode *node,
                         struct setting *setting)
{
    size_t n = node->kind == YNODE_LIST ? node->n : 1;

    setting->at = node->at;
    setting->gradient = node->kind == YNODE_LIST;
    setting->values = reader_alloc(reader, n, sizeof(*setting->values));
    if (!setting->values)
        return;
    for (size_t i = 0; i < n; i++)
        if (!scalar_read(reader, name, setting->gradient ? node->items[i] : node, &setting->values[i]))
            return;
    setting->n = n;
}

struct condition {
    struct setting *setting;
    const char *param;
};

static void filter_field(struct reader *reader, const struct ypair *pair, void *out)
{
    struct condition *condition = out;
    bool empty = pair->value->kind == YNODE_TEXT && pair->value->text[0] == '\0';
    const char *filter = empty ? NULL : reader_text(reader, pair);

    if (filter && strcmp(filter, "*") != 0)
        condition->setting->filter = filter;
}

static void value_field(struct reader *reader, const struct ypair *pair, void *out)
{
    struct condition *condition = out;

    setting_read(reader, condition->param, pair->value, condition->setting);
}

static void condition_read(struct reader *reader, const char *name, const struct ynode *node,
                           struct setting *setting)
{
    static const struct field fields[] = {{"filter", filter_field}, {"value", value_field, true}};
    static const struct object object = {"a value with a filter", fields, 2, SEVERITY_WARNING};
    struct condition condition = {setting, name};

    setting->at = node->at;
    object_read(reader, node, &object, &condition);
    if (lacks_key(node, "value") && !lacks_key(node, "filter"))
        reader_error(reader, node->at, "`%s` has a `filter` without a `value`: add `value:` beside it", name);
    else if (lacks_key(node, "value"))
        reader_error(reader, node->at,
                     "`%s` is a mapping without `value:`: write a number, or `filter:` and `value:`", name);
}

static bool only_scalars(const struct ynode *list)
{
    for (size_t i = 0; i < list->n; i++)
        if (list->items[i]->kind == YNODE_MAP)
            return false;
    return true;
}

static void conditions_read(struct reader *reader, const struct ynode *list, struct param *param)
{
    param->settings = reader_alloc(reader, list->n, sizeof(*param->settings));
    param->n = param->settings ? list->n : 0;
    for (size_t i = 0; i < param->n; i++) {
        if (list->items[i]->kind == YNODE_MAP)
            condition_read(reader, param->name, list->items[i], &param->settings[i]);
        else
            reader_error(reader, list->items[i]->at,
                         "`%s` mixes numbers and `filter:` entries: write this one as `- value: ...`",
                         param->name);
    }
}

static void param_read(struct reader *reader, const struct ypair *pair, struct param *param)
{
    const struct ynode *value = pair->value;

    param->at = pair->key->at;
    param->name = pair->key->text;
    if (value->kind == YNODE_NULL) {
        reader_error(reader, param->at, "`%s` has no value", param->name);
        return;
    }
    if (value->kind == YNODE_LIST && !only_scalars(value)) {
        conditions_read(reader, value, param);
        return;
    }
    param->settings = reader_alloc(reader, 1, sizeof(*param->settings));
    if (!param->settings)
        return;
    param->n = 1;
    if (value->kind == YNODE_MAP)
        condition_read(reader, param->name, value, param->settings);
    else
        setting_read(reader, param->name, value, param->settings);
}

void params_read(struct reader *reader, const struct ypair *pair, struct params *params)
{
    const struct ynode *value = pair->value;

    if (value->kind != YNODE_MAP) {
        reader_error(reader, value->at, "`parameters` must be a mapping such as `weight: 0.5`, not %s%s",
                     ynode_kind_name(value->kind), value->kind == YNODE_LIST ? ": leave the dashes out" : "");
        return;
    }
    params->list = reader_alloc(reader, value->n, sizeof(*params->list));
    for (size_t i = 0; params->list && i < value->n; i++) {
        const struct ynode *key = value->pairs[i].key;
        if (key_of_document(key->text))
            reader_warning(reader, key->at, "`%s` is no parameter: it belongs at the top level of the file",
                           key->text);
        else
            param_read(reader, &value->pairs[i], &params->list[params->n++]);
    }
}
