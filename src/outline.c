#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "builder.h"
#include "sort.h"

/* A growing list of tensor names. */
struct names {
    size_t n;
    const char **list;
};

static int add_name(struct builder *b, struct names *names, const char *name)
{
    const char **slot = arena_push(&b->arena, &names->list, &names->n, sizeof(*slot));

    if (!slot)
        return -ENOMEM;
    *slot = name;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void sort_unique(struct names *names)
{
    size_t kept = 0;

    sort_list(names->list, names->n, sizeof(*names->list), by_name);
    for (size_t i = 0; i < names->n; i++) {
        if (kept == 0 || strcmp(names->list[kept - 1], names->list[i]) != 0)
            names->list[kept++] = names->list[i];
    }
    names->n = kept;
}

/* Does a tensor belong to the module called `module`: is that a run of components in its name? */
static bool in_module(const char *name, const char *module)
{
    size_t len = strlen(module);

    for (const char *at = name; (at = strstr(at, module)); at++) {
        if ((at == name || at[-1] == '.') && at[len] == '.')
            return true;
    }
    return false;
}

/* Has a name a component that begins so? */
static bool has_component(const char *name, const char *const *heads, size_t n)
{
    for (const char *at = name; at; at = strchr(at, '.') ? strchr(at, '.') + 1 : NULL) {
        for (size_t i = 0; i < n; i++) {
            if (strncmp(at, heads[i], strlen(heads[i])) == 0)
                return true;
        }
    }
    return false;
}

static bool is_projector(const char *name)
{
    static const char *const heads[] = {"multi_modal_projector", "mm_",       "merger",
                                        "patch_merger",          "projector", "connector"};

    return has_component(name, heads, sizeof(heads) / sizeof(heads[0]));
}

static bool is_vision(const char *name)
{
    static const char *const heads[] = {"vis", "image_"};

    return has_component(name, heads, sizeof(heads) / sizeof(heads[0])) && !is_projector(name);
}

static bool is_audio(const char *name)
{
    static const char *const heads[] = {"audio"};

    return has_component(name, heads, 1);
}

static enum module_kind kind_of(const struct builder *b, const struct module *module)
{
    return b->modules[module - b->doc->modules];
}

static bool is_claimed(const struct builder *b, const struct module *module, const char *name)
{
    switch (kind_of(b, module)) {
    case MODULE_WHOLE:
        return true;
    case MODULE_NAMED: /* the head is in the module that T5's and its kin's shared embedding is in */
        return in_module(name, module->name) || (strcmp(module->name, "shared") == 0 && is_head(name));
    case MODULE_VISION:
        return is_vision(name);
    case MODULE_PROJECTOR:
        return is_projector(name);
    case MODULE_TEXT:
        return !is_vision(name) && !is_projector(name) && !is_audio(name);
    case MODULE_REST:
    case MODULE_NONE:
        break;
    }
    return false;
}

static bool belongs(const struct builder *b, const struct module *module, const char *name)
{
    if (kind_of(b, module) != MODULE_REST)
        return is_claimed(b, module, name);
    for (size_t i = 0; i < b->doc->n_modules; i++) {
        if (is_claimed(b, &b->doc->modules[i], name))
            return false;
    }
    return true;
}

/* Is there a name that passes the test? */
static bool any_name(const struct input_model *model, bool (*test)(const char *name))
{
    for (size_t i = 0; i < model->n_names; i++) {
        if (test(model->names[i]))
            return true;
    }
    return false;
}

static bool any_in_module(const struct input_model *model, const char *module)
{
    for (size_t i = 0; i < model->n_names; i++) {
        if (in_module(model->names[i], module))
            return true;
    }
    return false;
}

/* mergekit's names of parts that are told from names of tensors. */
static const struct alias {
    const char *name;
    enum module_kind kind;
    bool (*test)(const char *name); /* there must be one such tensor */
} aliases[] = {
    {"text_decoder", MODULE_TEXT, is_vision},   {"text_decoder", MODULE_TEXT, is_projector},
    {"text_decoder", MODULE_TEXT, is_audio},    {"vision_tower", MODULE_VISION, is_vision},
    {"vision_model", MODULE_VISION, is_vision}, {"multi_modal_projector", MODULE_PROJECTOR, is_projector},
};

static enum module_kind find_kind(const struct input_model *donor, const char *name)
{
    if (!name)
        return MODULE_WHOLE;
    if (strcmp(name, "default") == 0)
        return MODULE_REST;
    if (any_in_module(donor, name))
        return MODULE_NAMED;
    for (size_t i = 0; i < sizeof(aliases) / sizeof(aliases[0]); i++) {
        if (strcmp(aliases[i].name, name) == 0 && any_name(donor, aliases[i].test))
            return aliases[i].kind;
    }
    return MODULE_NONE;
}

/* "`a`, `b` and `default`": what a module of the donor can be called. */
static const char *module_names(struct builder *b)
{
    static const char *const common[] = {"text_decoder", "vision_tower", "multi_modal_projector",
                                         "encoder",      "decoder",      "shared"};
    const struct input_model *donor = b->donor;
    char *text = arena_strdup(&b->arena, "");

    for (size_t i = 0; text && i < sizeof(common) / sizeof(common[0]); i++) {
        if (find_kind(donor, common[i]) != MODULE_NONE)
            text = arena_printf(&b->arena, "%s`%s`, ", text, common[i]);
    }
    for (size_t i = 0; text && i < donor->layers.n; i++) {
        const char *prefix = donor->layers.stacks[i].prefix;
        text = arena_printf(&b->arena, "%s`%.*s`, ", text, (int)strlen(prefix) - 1, prefix);
    }
    return text ? arena_printf(&b->arena, "%sand `default` for what no other module has", text) : NULL;
}

/* What the modules' names mean to a model. 0 or -ENOMEM. */
static int set_kinds(struct builder *b, const struct input_model *model)
{
    b->modules = arena_alloc(&b->arena, b->doc->n_modules, sizeof(*b->modules));
    if (!b->modules)
        return -ENOMEM;
    for (size_t i = 0; i < b->doc->n_modules; i++)
        b->modules[i] = find_kind(model, b->doc->modules[i].name);
    return 0;
}

/* Every module must be one that the donor has. 0, -EINVAL (reported) or -ENOMEM. */
static int check_modules(struct builder *b)
{
    int status = set_kinds(b, b->donor);

    for (size_t i = 0; i < b->doc->n_modules && status != -ENOMEM; i++) {
        const struct module *module = &b->doc->modules[i];
        const char *names;
        if (b->modules[i] != MODULE_NONE)
            continue;
        names = module_names(b);
        if (!names)
            return -ENOMEM;
        say(b, SEVERITY_ERROR, module->at, "%s has no module `%s`; it has %s", b->donor->name, module->name,
            names);
        status = -EINVAL;
    }
    return status;
}

/* A tensor in two modules would be made twice. */
static int check_overlap(struct builder *b)
{
    for (size_t i = 0; i < b->donor->n_names; i++) {
        const struct module *first = NULL;
        for (size_t m = 0; m < b->doc->n_modules; m++) {
            const struct module *module = &b->doc->modules[m];
            if (!is_claimed(b, module, b->donor->names[i]))
                continue;
            if (first) {
                say(b, SEVERITY_ERROR, module->at, "`%s` is in module `%s` and in module `%s`",
                    b->donor->names[i], first->name, module->name);
                return -EINVAL;
            }
            first = module;
        }
    }
    return 0;
}

/* Rotary tables that old checkpoints carry; they are computed from the config and loaders ignore them. */
static bool is_leftover(const char *name)
{
    const char *tail = ".rotary_emb.inv_freq";
    size_t len = strlen(name);

    return len > strlen(tail) && strcmp(name + len - strlen(tail), tail) == 0;
}

static bool wanted(const struct builder *b, const struct slice_inputs *slice, const char *name)
{
    return belongs(b, slice->module, name) && (!is_leftover(name) || input_has(b->donor, name));
}

/* Models mostly have the same names. */
static bool same_place(const struct input_model *model, size_t i, const char *name)
{
    return i < model->n_names && strcmp(model->names[i], name) == 0;
}

/* Names of a slice's models that `wanted` lets pass; layers too, or without. */
static int collect(struct builder *b, const struct slice_inputs *slice, bool with_layers, struct names *names)
{
    for (unsigned m = 0; m < slice->n; m++) {
        const struct input_model *model = slice->models[m];
        for (size_t i = 0; i < model->n_names; i++) {
            const struct stack *stack;
            uint64_t layer;
            const char *rest, *name = model->names[i];
            if (with_layers && m > 0 && same_place(slice->models[0], i, name))
                continue;
            if (!with_layers && layers_split(&model->layers, name, &stack, &layer, &rest))
                continue;
            if (wanted(b, slice, name) && add_name(b, names, name))
                return -ENOMEM;
        }
    }
    return 0;
}

static double position(uint64_t layer, uint64_t count)
{
    return count > 1 ? (double)layer / (double)(count - 1) : 1;
}

/* Where a tensor is among the layers of its own stack; 0 outside of them. */
static double position_of(const struct slice_inputs *slice, const char *name)
{
    const struct stack *stack;
    uint64_t layer;
    const char *rest;

    for (unsigned m = 0; m < slice->n; m++) {
        if (layers_split(&slice->models[m]->layers, name, &stack, &layer, &rest))
            return position(layer, stack->count);
    }
    return 0;
}

/* All layers of all models, under their own numbers: `models:`. */
static int plan_whole(struct builder *b, const struct slice_inputs *slice)
{
    struct names names = {0};
    const char **same = arena_alloc(&b->arena, slice->n, sizeof(*same));
    int status = collect(b, slice, true, &names);

    if (status || !same)
        return -ENOMEM;
    sort_unique(&names);
    for (size_t i = 0; i < names.n && status == 0; i++)
        status = tensor_plan(b, slice, names.list[i], same, position_of(slice, names.list[i]));
    return status;
}

/* The one stack of layers of a model in a module; NULL (reported) if there is none or more. */
static const struct stack *stack_of(struct builder *b, const struct module *module,
                                    const struct input_model *model, struct place at)
{
    const struct stack *found = NULL;

    for (size_t i = 0; i < model->layers.n; i++) {
        const struct stack *stack = &model->layers.stacks[i];
        if (!belongs(b, module, stack->prefix))
            continue;
        if (found) {
            say(b, SEVERITY_ERROR, at, "%s has layers in `%s*` and `%s*`: choose among them with `modules:`",
                model->name, found->prefix, stack->prefix);
            return NULL;
        }
        found = stack;
    }
    if (!found)
        say(b, SEVERITY_ERROR, at, "%s has no numbered layers here, so `layer_range` means nothing",
            model->name);
    return found;
}

/* Names of layer `layer` of a model, without what is before them. */
static int collect_layer(struct builder *b, const struct input_model *model, const char *prefix,
                         struct names *rests)
{
    size_t len = strlen(prefix);

    for (size_t i = input_lower_bound(model, prefix); i < model->n_names; i++) {
        if (strncmp(model->names[i], prefix, len) != 0)
            break;
        if (!is_leftover(model->names[i]) && add_name(b, rests, model->names[i] + len))
            return -ENOMEM;
    }
    return 0;
}

/* Layer `i` of a slice becomes layer `out` of the result. */
static int plan_layer(struct builder *b, const struct slice_inputs *slice, const struct stack *const *stacks,
                      const struct stack *out_stack, uint64_t i, uint64_t out, double t)
{
    struct names rests = {0};
    const char **prefixes = arena_alloc(&b->arena, slice->n, sizeof(*prefixes));
    const char **names = arena_alloc(&b->arena, slice->n, sizeof(*names));

    if (!prefixes || !names)
        return -ENOMEM;
    for (unsigned m = 0; m < slice->n; m++) {
        uint64_t layer = (uint64_t)slice->sources[m]->begin + i;
        prefixes[m] = arena_printf(&b->arena, "%s%llu.", stacks[m]->prefix, (unsigned long long)layer);
        if (!prefixes[m] || collect_layer(b, slice->models[m], prefixes[m], &rests))
            return -ENOMEM;
    }
    sort_unique(&rests);
    for (size_t k = 0; k < rests.n; k++) {
        char *name =
            arena_printf(&b->arena, "%s%llu.%s", out_stack->prefix, (unsigned long long)out, rests.list[k]);
        for (unsigned m = 0; m < slice->n; m++)
            names[m] = arena_printf(&b->arena, "%s%s", prefixes[m], rests.list[k]);
        for (unsigned m = 0; m < slice->n; m++) {
            if (!names[m] || !name)
                return -ENOMEM;
        }
        int status = tensor_plan(b, slice, name, names, t);
        if (status)
            return status;
    }
    return 0;
}

static int add_origin(struct builder *b, const struct slice_inputs *slice, const struct stack *stack,
                      uint64_t i)
{
    struct restack *restack = &b->restacks[b->n_restacks - 1];
    struct layer_origin *origin = arena_push(&b->arena, &restack->origins, &restack->n, sizeof(*origin));

    if (!origin)
        return -ENOMEM;
    *origin =
        (struct layer_origin){slice->models[0]->config, (uint64_t)slice->sources[0]->begin + i, stack->count};
    return 0;
}

/* Stacks of each source, with its range inside. False if something was reported. */
static bool find_stacks(struct builder *b, const struct slice_inputs *slice, const struct stack **stacks)
{
    bool good = true;

    for (unsigned m = 0; m < slice->n; m++) {
        const struct slice_source *source = slice->sources[m];
        stacks[m] = stack_of(b, slice->module, slice->models[m], source->range_at);
        good = good && stacks[m];
        if (stacks[m] && (uint64_t)source->end > stacks[m]->count) {
            say(b, SEVERITY_ERROR, source->range_at,
                "layer_range [%lld, %lld) goes past the %llu layers of %s", (long long)source->begin,
                (long long)source->end, (unsigned long long)stacks[m]->count, slice->models[m]->name);
            good = false;
        }
    }
    return good;
}

static int plan_range(struct builder *b, const struct slice_inputs *slice, const struct stack *out_stack,
                      uint64_t *out)
{
    const struct stack **stacks = arena_alloc(&b->arena, slice->n, sizeof(struct stack *));
    uint64_t n = (uint64_t)(slice->sources[0]->end - slice->sources[0]->begin);
    int status = 0;

    if (!stacks)
        return -ENOMEM;
    if (!find_stacks(b, slice, stacks))
        return 0;
    for (uint64_t i = 0; i < n && status == 0; i++) {
        status = plan_layer(b, slice, stacks, out_stack, i, (*out)++, position(i, n));
        if (status == 0)
            status = add_origin(b, slice, stacks[0], i);
    }
    return status;
}

/* Is a tensor outside the layers one that comes before them? */
static bool is_first(const char *name)
{
    return (strstr(name, "embed") || strstr(name, "wte.") || strstr(name, "wpe.") ||
            strstr(name, "shared.")) &&
           !is_head(name);
}

/* A result whose config comes from an untied model has a head, even where the last slice's models are all
 * tied. */
static int add_head(struct builder *b, const struct slice_inputs *slice, struct names *names)
{
    for (size_t i = 0; i < b->donor->n_names; i++) {
        if (is_head(b->donor->names[i]) && wanted(b, slice, b->donor->names[i]) &&
            add_name(b, names, b->donor->names[i]))
            return -ENOMEM;
    }
    return 0;
}

/* What is outside the layers: from the first slice's sources before them, from the last's after. */
static int plan_outside(struct builder *b, const struct slice_inputs *slice, bool first)
{
    struct names names = {0};
    const char **same = arena_alloc(&b->arena, slice->n, sizeof(*same));
    int status = collect(b, slice, false, &names);

    if (status || !same || add_head(b, slice, &names))
        return -ENOMEM;
    sort_unique(&names);
    for (size_t i = 0; i < names.n && status == 0; i++) {
        if (is_first(names.list[i]) == first)
            status = tensor_plan(b, slice, names.list[i], same, 0);
    }
    return status;
}

/* A module given by slices of layers, numbered on from 0. */
static int plan_slices(struct builder *b, struct slice_inputs *const *slices, size_t n)
{
    const struct module *module = slices[0]->module;
    const struct stack *out_stack = stack_of(b, module, b->donor, module->at);
    struct restack *restack;
    uint64_t out = 0;
    int status;

    if (!out_stack)
        return 0;
    restack = arena_push(&b->arena, &b->restacks, &b->n_restacks, sizeof(*restack));
    if (!restack)
        return -ENOMEM;
    *restack = (struct restack){.stack = out_stack};
    status = plan_outside(b, slices[0], true);
    for (size_t i = 0; i < n && status == 0; i++)
        status = plan_range(b, slices[i], out_stack, &out);
    return status ? status : plan_outside(b, slices[n - 1], false);
}

/* Tensors of the donor that no module claims stay as they are. */
static int plan_unclaimed(struct builder *b)
{
    int status = 0;

    for (size_t i = 0; i < b->donor->n_names && status == 0; i++) {
        bool claimed = false;
        for (size_t m = 0; m < b->doc->n_modules && !claimed; m++)
            claimed = belongs(b, &b->doc->modules[m], b->donor->names[i]);
        if (!claimed)
            status = tensor_plan_kept(b, b->donor->names[i], "in no module of the merge file: kept");
    }
    return status;
}

int outline_plan(struct builder *b, struct slice_inputs *const *slices, size_t n_slices)
{
    int status = check_modules(b);

    if (status == 0)
        status = check_overlap(b);
    for (size_t i = 0, n; i < n_slices && status == 0; i += n) {
        for (n = 1; i + n < n_slices && slices[i + n]->module == slices[i]->module; n++)
            ;
        status =
            slices[i]->slice->sources[0].whole ? plan_whole(b, slices[i]) : plan_slices(b, slices + i, n);
    }
    if (status == 0)
        status = plan_unclaimed(b);
    if (status == 0)
        advise_on_filters(b);
    return status == -EINVAL ? 0 : status;
}
