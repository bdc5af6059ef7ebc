#include "plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "builder.h"
#include "meet.h"
#include "models.h"
#include "resolve.h"
#include "sort.h"
#include "witness.h"

/* Of stages: reads of models for an element, and nesting. */
#define COST_MAX 1000.0
enum { DEPTH_MAX = 32 };

void say(struct builder *b, enum severity severity, struct place at, const char *fmt, ...)
{
    uint64_t where = (uint64_t)at.line << 32 | at.col, hash = XXH64(fmt, strlen(fmt), where), *said;
    char *text = NULL;
    va_list args;

    for (size_t i = 0; i < b->n_said; i++) {
        if (b->said[i] == hash)
            return;
    }
    said = arena_push(&b->arena, &b->said, &b->n_said, sizeof(*said));
    if (said)
        *said = hash;
    va_start(args, fmt);
    if (vasprintf(&text, fmt, args) < 0)
        text = NULL;
    va_end(args);
    report_add(b->report, severity, at, "%s", text ? text : fmt);
    free(text);
}

/* Reports it, once, and remembers; returns -ENOMEM. */
static int say_memory(struct builder *b)
{
    if (!b->no_memory)
        report_add(b->report, SEVERITY_ERROR, (struct place){b->config->path, 0, 0},
                   "out of memory while planning");
    b->no_memory = true;
    return -ENOMEM;
}

static struct input_model *find_stage(struct builder *b, const struct model_ref *ref)
{
    for (size_t i = 0; i < b->n_inputs; i++) {
        if (b->inputs[i]->stage && strcmp(b->inputs[i]->name, ref->path) == 0)
            return b->inputs[i];
    }
    return NULL;
}

/* Does the name belong to a document that could not be planned? Enough was said about that. */
static bool is_failed_stage(const struct builder *b, const struct model_ref *ref)
{
    for (size_t i = 0; i < b->config->n_docs; i++) {
        if (b->config->docs[i].name && strcmp(b->config->docs[i].name, ref->path) == 0)
            return true;
    }
    return false;
}

static struct input_model *find_dir(struct builder *b, const char *dir)
{
    for (size_t i = 0; i < b->n_inputs; i++) {
        if (b->inputs[i]->disk && strcmp(b->inputs[i]->disk->dir, dir) == 0)
            return b->inputs[i];
    }
    return NULL;
}

static struct input_model *add_input(struct builder *b, struct input_model input)
{
    struct input_model *added = arena_alloc(&b->arena, 1, sizeof(*added)), **slot;

    if (!added) {
        say_memory(b);
        return NULL;
    }
    *added = input;
    slot =
        input_init(&b->arena, added) ? NULL : arena_push(&b->arena, &b->inputs, &b->n_inputs, sizeof(*slot));
    if (!slot) {
        say_memory(b);
        return NULL;
    }
    *slot = added;
    return added;
}

/* The set owns the model from here on, whatever fails. */
static struct input_model *adopt(struct builder *b, struct model *model)
{
    struct model **grown = reallocarray(b->set->models, b->set->n_models + 1, sizeof(*grown));

    if (!grown) {
        say_memory(b);
        model_free(model);
        return NULL;
    }
    b->set->models = grown;
    grown[b->set->n_models++] = model;
    return add_input(b, (struct input_model){.name = model->name, .disk = model});
}

static struct input_model *open_place(struct builder *b, const struct model_ref *ref,
                                      const struct model_place *place)
{
    struct input_model *input = find_dir(b, place->dir);
    struct model *model;
    struct err err = {{0}};
    int status;

    if (input)
        return input;
    status = models_open(b->search->models, place->dir, place->name, place->hub, &model, &err);
    if (status == -ENOMEM)
        say_memory(b);
    else if (status)
        say(b, SEVERITY_ERROR, ref->at, "%s", err.text);
    return status ? NULL : adopt(b, model);
}

/* The model that a reference names; NULL after reporting why not. */
static struct input_model *open_ref(struct builder *b, const struct model_ref *ref)
{
    struct input_model *input = find_stage(b, ref);
    struct model_place place;
    struct err err = {{0}};
    int status;

    if (input && (ref->adapter || ref->revision)) {
        say(b, SEVERITY_ERROR, ref->at,
            "`%s` is a stage of this file: it has no revision and takes no adapter", ref->path);
        return NULL;
    }
    if (input || is_failed_stage(b, ref))
        return input;
    status = model_find(ref, b->search, &place, &err);
    if (status == -ENOMEM)
        say_memory(b);
    else if (status)
        say(b, SEVERITY_ERROR, ref->at, "%s", err.text);
    else if (place.adapted)
        say(b, SEVERITY_ERROR, ref->at, "not supported yet: adapters (`+%s`); merge it into the model first",
            ref->adapter);
    else
        input = open_place(b, ref, &place);
    if (input && ref->revision && !place.hub && !place.whole)
        say(b, SEVERITY_WARNING, ref->at, "%s is a folder: the revision `%s` is ignored", input->disk->dir,
            ref->revision);
    model_place_fini(&place);
    return input;
}

/* Nothing but the model named twice merges a model with itself. */
static bool is_repeated(struct builder *b, const struct slice_inputs *s, const struct slice_source *source)
{
    for (unsigned i = 0; i + 1 < s->n; i++) {
        if (s->models[i] && s->models[i] == s->models[s->n - 1]) {
            say(b, SEVERITY_ERROR, source->model.at, "`%s` and `%s` are the same model, %s, twice in a slice",
                s->sources[i]->model.written, source->model.written, s->models[i]->name);
            return true;
        }
    }
    return false;
}

/* `models:` get the base as their last input where it is not listed. */
static void add_base(struct slice_inputs *s, struct input_model *base)
{
    for (unsigned i = 0; i < s->n; i++) {
        if (s->models[i] == base)
            s->base = (int)i;
    }
    if (s->base >= 0 || !s->slice->sources[0].whole)
        return;
    s->base = (int)s->n;
    s->models[s->n++] = base;
}

static struct slice_inputs *open_slice(struct builder *b, const struct module *module,
                                       const struct slice *slice)
{
    struct slice_inputs *s = arena_alloc(&b->arena, 1, sizeof(*s));
    const struct model_ref *base_ref = slice->base_model ? slice->base_model : b->doc->base_model;
    struct input_model *base = NULL;
    bool good = true;

    if (!s) {
        say_memory(b);
        return NULL;
    }
    *s = (struct slice_inputs){.module = module, .slice = slice, .base = -1};
    s->models = arena_alloc(&b->arena, slice->n_sources + 1, sizeof(struct input_model *));
    s->sources = arena_alloc(&b->arena, slice->n_sources + 1, sizeof(struct slice_source *));
    if (!s->models || !s->sources) {
        say_memory(b);
        return NULL;
    }
    for (size_t i = 0; i < slice->n_sources; i++) {
        s->models[s->n] = open_ref(b, &slice->sources[i].model);
        s->sources[s->n] = &slice->sources[i];
        good = s->models[s->n++] && good;
        good = !is_repeated(b, s, &slice->sources[i]) && good;
    }
    if (base_ref) {
        base = open_ref(b, base_ref);
        good = base && good;
    }
    if (good && base)
        add_base(s, base);
    return good ? s : NULL;
}

/* Without a base or enough donors the method cannot even be asked about a tensor. */
static void check_donors(struct builder *b, const struct slice_inputs *s)
{
    const struct method *m = b->method;
    bool has_base = m->base != BASE_IGNORED && s->base >= 0,
         given = b->doc->base_model || s->slice->base_model;
    unsigned donors = s->n - has_base;
    const char *plural = m->min_donors > 1 ? "s" : "", *beside = has_base ? " beside the base" : "";

    if (s->base < 0 && (m->base == BASE_REQUIRED || (m->base == BASE_OPTIONAL && given)))
        say(b, SEVERITY_ERROR, given ? s->slice->at : b->doc->method_at,
            given ? "%s needs the base model among the sources of every slice" : "%s needs a `base_model:`",
            m->name);
    else if (donors < m->min_donors)
        say(b, SEVERITY_ERROR, s->slice->at, "%s merges at least %u model%s%s; here are %u", m->name,
            m->min_donors, plural, beside, donors);
    else if (m->max_donors && donors > m->max_donors)
        say(b, SEVERITY_ERROR, s->slice->at, "%s takes exactly %u model%s%s; here are %u", m->name,
            m->max_donors, m->max_donors > 1 ? "s" : "", beside, donors);
    else
        return;
    b->unsound = true;
}

/* Merging whole models needs equally many layers in all. */
static void check_layers(struct builder *b, const struct slice_inputs *s)
{
    const struct layers *first = &s->models[0]->layers;

    for (unsigned i = 1; i < s->n && s->slice->sources[0].whole; i++) {
        const struct layers *other = &s->models[i]->layers;
        for (size_t k = 0, j = 0; k < first->n; k++) {
            while (j < other->n && strcmp(other->stacks[j].prefix, first->stacks[k].prefix) < 0)
                j++;
            if (j < other->n && strcmp(first->stacks[k].prefix, other->stacks[j].prefix) == 0 &&
                first->stacks[k].count != other->stacks[j].count)
                say(b, SEVERITY_ERROR, s->sources[i] ? s->sources[i]->model.at : b->doc->method_at,
                    "%s has %llu layers and %s has %llu: choose layers with `slices:`", s->models[i]->name,
                    (unsigned long long)other->stacks[j].count, s->models[0]->name,
                    (unsigned long long)first->stacks[k].count);
        }
    }
}

static void check_kinds(struct builder *b, const struct param *param, const struct method_param *known)
{
    struct err err;

    for (size_t i = 0; i < param->n; i++) {
        if (resolve_check(known, &param->settings[i], &err))
            say(b, SEVERITY_ERROR, param->settings[i].at, "%s", err.text);
    }
}

/* Parameters that the method does not read change nothing in mergekit; people should know. */
static void check_params(struct builder *b, const struct params *params, bool of_model, bool of_base)
{
    for (size_t i = 0; i < params->n; i++) {
        const struct param *param = &params->list[i];
        int index = method_param(b->method, param->name);
        const struct method_param *known = index < 0 ? NULL : &b->method->params[index];
        if (known)
            check_kinds(b, param, known);
        if (!known)
            say(b, SEVERITY_WARNING, param->at, "%s has no parameter `%s`: it is ignored", b->method->name,
                param->name);
        else if (known->unused)
            say(b, SEVERITY_WARNING, param->at, "`%s` changes nothing in %s", param->name, b->method->name);
        else if (of_model && known->scope == PARAM_SHARED)
            say(b, SEVERITY_WARNING, param->at,
                "`%s` is one value for all models: it is ignored here and belongs under the top "
                "`parameters:`",
                param->name);
        else if (of_base && known->scope == PARAM_DONOR)
            say(b, SEVERITY_WARNING, param->at, "`%s` of the base model is ignored: only donors have one",
                param->name);
    }
}

static void check_slice(struct builder *b, const struct slice_inputs *s)
{
    check_donors(b, s);
    check_layers(b, s);
    if (b->method->base != BASE_IGNORED && s->base >= 0 && s->sources[s->base])
        check_params(b, &s->sources[s->base]->params, true, true);
}

/* Parameters at every scope, before any model is opened. */
static void check_module(struct builder *b, const struct module *module)
{
    check_params(b, &module->params, false, false);
    for (size_t i = 0; i < module->n_slices; i++) {
        const struct slice *slice = &module->slices[i];
        check_params(b, &slice->params, false, false);
        for (size_t k = 0; k < slice->n_sources; k++)
            check_params(b, &slice->sources[k].params, true, false);
    }
}

/* What is understood and not carried out yet is refused by name, never ignored. */
static void check_document(struct builder *b)
{
    const struct document *doc = b->doc;

    b->method = method_find(doc->method);
    if (!b->method)
        say(b, SEVERITY_ERROR, doc->method_at, "%s `%s`", method_problem(doc->method), doc->method);
    if (doc->tokenizer.given)
        say(b, SEVERITY_ERROR, doc->tokenizer.at,
            "not supported yet: a tokenizer other than the base model's; remove this key to keep that one");
    if (doc->chat_template)
        say(b, SEVERITY_ERROR, doc->chat_template_at,
            "not supported yet: chat_template; remove this key to keep the base model's");
    if (!b->method)
        return;
    check_params(b, &doc->params, false, false);
    for (size_t i = 0; i < doc->n_modules; i++)
        check_module(b, &doc->modules[i]);
}

/* Open every slice's models. NULL if something is wrong (reported). */
static struct slice_inputs **open_slices(struct builder *b, size_t *n)
{
    struct slice_inputs **list = NULL, **slot;
    bool good = true;

    *n = 0;
    for (size_t m = 0; m < b->doc->n_modules; m++) {
        const struct module *module = &b->doc->modules[m];
        for (size_t i = 0; i < module->n_slices; i++) {
            struct slice_inputs *s = open_slice(b, module, &module->slices[i]);
            slot = arena_push(&b->arena, &list, n, sizeof(*slot));
            if (!slot) {
                say_memory(b);
                return NULL;
            }
            *slot = s;
            good = s && good;
            if (s && b->method)
                check_slice(b, s);
        }
    }
    return good ? list : NULL;
}

static int by_tensor_name(const void *a, const void *b)
{
    return strcmp(((const struct plan_tensor *)a)->st.name, ((const struct plan_tensor *)b)->st.name);
}

/* The type of most bytes. */
static enum dtype main_dtype(const struct plan *plan)
{
    uint64_t bytes[DTYPE_COUNT] = {0};
    enum dtype most = DTYPE_F32;

    for (size_t i = 0; i < plan->n_tensors; i++)
        bytes[plan->tensors[i].st.dtype] += plan->tensors[i].st.len;
    for (int d = 0; d < DTYPE_COUNT; d++)
        most = bytes[d] > bytes[most] ? (enum dtype)d : most;
    return most;
}

static bool finish_config(struct builder *b)
{
    struct plan *plan = b->plan;

    plan->dtype = main_dtype(plan);
    plan->config = cJSON_Duplicate(b->donor->config, true);
    if (!plan->config || !modelconfig_dtype(plan->config, plan->dtype))
        return false;
    for (size_t i = 0; i < b->n_restacks; i++) {
        const struct restack *r = &b->restacks[i];
        if (!modelconfig_layers(plan->config, r->stack->prefix, r->stack->count, r->origins, r->n))
            return false;
    }
    modelconfig_unquantize(plan->config);
    if (b->vocab)
        modelconfig_vocab(plan->config, b->vocab_old, b->vocab);
    return !b->head || modelconfig_untie(plan->config);
}

/* Models on disk that the plan reads, through stages too. */
static bool note_model(struct plan *plan, struct model *model)
{
    struct model **slot;

    for (size_t i = 0; i < plan->n_models; i++) {
        if (plan->models[i] == model)
            return true;
    }
    slot = arena_push(&plan->arena, &plan->models, &plan->n_models, sizeof(*slot));
    if (slot)
        *slot = model;
    return slot;
}

static bool note_input(struct plan *plan, const struct input_model *input)
{
    bool good = !input->disk || note_model(plan, (struct model *)(uintptr_t)input->disk);

    for (size_t i = 0; input->stage && i < input->stage->n_models && good; i++)
        good = note_model(plan, input->stage->models[i]);
    return good;
}

static bool note_models(struct builder *b, struct slice_inputs *const *slices, size_t n)
{
    bool good = note_input(b->plan, b->donor);

    for (size_t i = 0; i < n; i++) {
        for (unsigned m = 0; m < slices[i]->n && good; m++)
            good = note_input(b->plan, slices[i]->models[m]);
    }
    return good;
}

/* Has this document an error? */
static bool failed(const struct builder *b)
{
    return b->report->n_errors > b->errors_before;
}

/* Stages are computed inline, element by element, each time they are read: reads of models that an element of
 * the result costs, and how deep the computation nests. */
static double cost_of(struct slice_inputs *const *slices, size_t n, unsigned *depth)
{
    double most = 0;

    *depth = 0;
    for (size_t i = 0; i < n; i++) {
        double cost = 0;
        for (unsigned m = 0; m < slices[i]->n; m++) {
            const struct plan *stage = slices[i]->models[m]->stage;
            cost += stage ? stage->cost : 1;
            if (stage && stage->depth >= *depth)
                *depth = stage->depth + 1;
        }
        most = cost > most ? cost : most;
    }
    return most;
}

/* Of the donor. -ENOMEM; other problems are reported. */
static int list_side_files(struct builder *b)
{
    struct err err;
    int status = 0;

    for (size_t i = 0; i < b->set->n_models; i++) {
        if (b->set->models[i] == b->plan->donor)
            status = model_list_files(b->set->models[i], &err);
    }
    if (status && status != -ENOMEM)
        say(b, SEVERITY_ERROR, b->doc->base_model ? b->doc->base_model->at : b->doc->at, "%s", err.text);
    return status == -ENOMEM ? status : 0;
}

/* Give the inputs the donor's layout. 0, -EINVAL (reported) or -ENOMEM. */
static int meet_inputs(struct builder *b, struct slice_inputs *const *slices, size_t n)
{
    struct err err;
    int status = 0;

    for (size_t i = 0; i < n; i++) {
        struct slice_inputs *s = slices[i];
        for (unsigned m = 0; m < s->n && status == 0; m++) {
            status = input_meet(&b->arena, s->models[m], b->donor, &s->models[m], &err);
            if (status == -EINVAL)
                say(b, SEVERITY_ERROR, s->sources[m] ? s->sources[m]->model.at : b->doc->method_at, "%s",
                    err.text);
        }
    }
    return status;
}

/* From here on nothing is added, and others point into the list. */
static void finish_tensors(struct plan *plan)
{
    struct plan_tensor *whole = reallocarray(plan->tensors, plan->n_tensors, sizeof(*whole));

    plan->tensors = whole ? whole : plan->tensors;
    sort_list(plan->tensors, plan->n_tensors, sizeof(*plan->tensors), by_tensor_name);
}

static int plan_slices_of(struct builder *b, struct slice_inputs *const *slices, size_t n)
{
    int status;
    struct plan *plan = b->plan;

    b->donor = b->doc->base_model ? open_ref(b, b->doc->base_model) : slices[0]->models[0];
    if (!b->donor)
        return 0;
    plan->donor = b->donor->disk ? b->donor->disk : b->donor->stage->donor;
    if (list_side_files(b))
        return say_memory(b);
    status = meet_inputs(b, slices, n);
    if (status)
        return status == -EINVAL ? 0 : say_memory(b);
    plan->cost = cost_of(slices, n, &plan->depth);
    if (plan->cost > COST_MAX || plan->depth > DEPTH_MAX)
        say(b, SEVERITY_ERROR, b->doc->at,
            "stages feed stages %u deep, and each element would need %.0f reads: export an inner stage first",
            plan->depth, plan->cost);
    if (b->unsound || plan->cost > COST_MAX || plan->depth > DEPTH_MAX)
        return 0;
    if (outline_plan(b, slices, n) || !note_models(b, slices, n))
        return say_memory(b);
    if (b->n_mismatched > 1)
        say(b, SEVERITY_ERROR, b->doc->method_at, "shapes differ in %u more tensors", b->n_mismatched - 1);
    if (failed(b))
        return 0;
    if (plan->n_tensors == 0)
        say(b, SEVERITY_ERROR, b->doc->method_at, "the result has no tensors");
    else
        finish_tensors(plan);
    return finish_config(b) ? 0 : say_memory(b);
}

static int plan_document(struct builder *b, const struct document *doc)
{
    struct slice_inputs **slices;
    struct plan *plan = calloc(1, sizeof(*plan));
    size_t n;

    if (!plan)
        return say_memory(b);
    b->set->plans[b->set->n_plans++] = plan;
    plan->witnesses = arena_alloc(&plan->arena, doc->n_models + 1, sizeof(*plan->witnesses));
    if (!plan->witnesses)
        return say_memory(b);
    plan->doc = b->doc = doc;
    b->errors_before = b->report->n_errors;
    b->unsound = false;
    b->plan = plan;
    b->donor = NULL;
    b->n_restacks = b->vocab = b->n_mismatched = 0;
    b->restacks = NULL;
    b->head = false;
    check_document(b);
    slices = open_slices(b, &n);
    if (!slices || !b->method)
        return 0;
    return plan_slices_of(b, slices, n);
}

/* A finished stage is a model for the documents after it. */
static int offer_stage(struct builder *b)
{
    if (failed(b) || !b->plan->config || !b->doc->name)
        return 0;
    return add_input(b, (struct input_model){.name = b->doc->name, .stage = b->plan}) ? 0 : -ENOMEM;
}

int plan_build(const struct config *config, const struct model_search *search, uint64_t seed,
               struct plan_set **out, struct report *report)
{
    struct builder b = {.config = config, .search = search, .seed = seed, .report = report};
    size_t errors_before = report->n_errors;
    int status = 0;

    *out = NULL;
    b.set = calloc(1, sizeof(*b.set));
    if (!b.set || !(b.set->plans = calloc(config->n_docs, sizeof(*b.set->plans))))
        status = say_memory(&b);
    for (size_t i = 0; i < config->n_docs && status == 0; i++) {
        status = plan_document(&b, &config->docs[i]);
        if (status == 0)
            status = offer_stage(&b);
    }
    if (b.no_memory)
        status = -ENOMEM;
    else if (status == 0 && report->n_errors > errors_before)
        status = -EINVAL;
    arena_fini(&b.arena);
    if (status)
        plan_free(b.set);
    else
        *out = b.set;
    return status;
}

void plan_free(struct plan_set *set)
{
    if (!set)
        return;
    for (size_t i = 0; i < set->n_plans; i++) {
        cJSON_Delete(set->plans[i]->config);
        free(set->plans[i]->tensors);
        arena_fini(&set->plans[i]->arena);
        free(set->plans[i]);
    }
    for (size_t i = 0; i < set->n_models; i++)
        model_free(set->models[i]);
    free(set->plans);
    free(set->models);
    free(set);
}
