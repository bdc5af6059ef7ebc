#include "meet.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "text.h"
#include "view.h"

enum {
    NAME_MAX_LEN = 400,
    PARTS_MAX = 1 << 18, /* that packs of one model are taken apart into: a header may declare any number */
};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* Spellings of the beginning of a name, and the one they are compared in. */
static const struct spelling {
    const char *written, *common;
} beginnings[] = {
    {"language_model.model.", "model.language_model."},
    {"language_model.lm_head.", "lm_head."},
    {"model.layers.", "model.language_model.layers."},
    {"model.embed_tokens.", "model.language_model.embed_tokens."},
    {"model.norm.", "model.language_model.norm."},
    {"model.vision_tower.vision_model.", "model.vision_tower."},
    {"vision_tower.vision_model.", "model.vision_tower."},
    {"vision_tower.", "model.vision_tower."},
    {"multi_modal_projector.", "model.multi_modal_projector."},
    {"visual.", "model.visual."},
};

/* Of its end. */
static const struct spelling ends[] = {
    {".block_sparse_moe.gate.weight", ".mlp.gate.weight"},
    {".mlp.router.weight", ".mlp.gate.weight"},
};

/* Experts: `experts` NUMBER `parts[k]` is rows k/n_parts of matrix NUMBER of the pack. */
static const struct pack {
    const char *experts, *parts[2], *packed;
    unsigned n_parts;
} packs[] = {
    {".block_sparse_moe.experts.", {".w1.weight", ".w3.weight"}, ".mlp.experts.gate_up_proj", 2},
    {".block_sparse_moe.experts.", {".w2.weight", NULL}, ".mlp.experts.down_proj", 1},
    {".mlp.experts.", {".gate_proj.weight", ".up_proj.weight"}, ".mlp.experts.gate_up_proj", 2},
    {".mlp.experts.", {".down_proj.weight", NULL}, ".mlp.experts.down_proj", 1},
    {".feed_forward.experts.",
     {".gate_proj.weight", ".up_proj.weight"},
     ".feed_forward.experts.gate_up_proj",
     2},
    {".feed_forward.experts.", {".down_proj.weight", NULL}, ".feed_forward.experts.down_proj", 1},
    {".feed_forward.experts.", {".w1.weight", ".w3.weight"}, ".feed_forward.experts.gate_up_proj", 2},
    {".feed_forward.experts.", {".w2.weight", NULL}, ".feed_forward.experts.down_proj", 1},
};

/* How a name is spelt; NULL: in the common way. */
struct form {
    const struct spelling *beginning, *end;
    const struct pack *pack;
};

struct parsed {
    struct form form;
    uint64_t expert;
    unsigned part;                  /* with form.pack */
    char common[NAME_MAX_LEN + 64]; /* the name of the tensor or of its pack */
};

static bool starts_with(const char *name, const char *head)
{
    return strncmp(name, head, strlen(head)) == 0;
}

/* Is name[0..) a number and then a part of the pack? */
static bool parse_part(const struct pack *pack, const char *at, struct parsed *out)
{
    size_t digits = strspn(at, "0123456789");

    if (digits == 0 || digits > 6 || (at[0] == '0' && digits > 1))
        return false;
    for (out->part = 0; out->part < pack->n_parts; out->part++) {
        if (strcmp(at + digits, pack->parts[out->part]) != 0)
            continue;
        out->expert = strtoull(at, NULL, 10);
        out->form.pack = pack;
        return true;
    }
    return false;
}

static void parse_pack(struct parsed *out)
{
    for (size_t i = 0; i < COUNT(packs); i++) {
        char *at = strstr(out->common, packs[i].experts);
        if (!at || !parse_part(&packs[i], at + strlen(packs[i].experts), out))
            continue;
        strcpy(at, packs[i].packed); /* at most a byte longer than what it replaces */
        return;
    }
}

static void parse_end(struct parsed *out)
{
    for (size_t i = 0; i < COUNT(ends); i++) {
        if (!ends_with(out->common, ends[i].written))
            continue;
        out->form.end = &ends[i];
        strcpy(out->common + strlen(out->common) - strlen(ends[i].written), ends[i].common);
        return;
    }
}

static bool parse(const char *name, struct parsed *out)
{
    size_t len = strlen(name);

    *out = (struct parsed){.expert = 0};
    if (len > NAME_MAX_LEN)
        return false;
    for (size_t i = 0; i < COUNT(beginnings) && !out->form.beginning; i++) {
        if (starts_with(name, beginnings[i].written))
            out->form.beginning = &beginnings[i];
    }
    if (out->form.beginning)
        snprintf(out->common, sizeof(out->common), "%s%s", out->form.beginning->common,
                 name + strlen(out->form.beginning->written));
    else
        memcpy(out->common, name, len + 1);
    parse_pack(out);
    if (!out->form.pack)
        parse_end(out);
    return true;
}

/* `common` in another form; NULL if memory runs out. */
static const char *spell(struct arena *arena, const char *common, const struct form *form, uint64_t expert,
                         unsigned part)
{
    const char *rest = common, *head = "", *tail = "";
    char number[24] = "";
    size_t len;

    if (form->beginning && starts_with(common, form->beginning->common)) {
        head = form->beginning->written;
        rest += strlen(form->beginning->common);
    }
    len = strlen(rest);
    if (form->pack) {
        len -= strlen(form->pack->packed);
        snprintf(number, sizeof(number), "%llu", (unsigned long long)expert);
        tail = form->pack->parts[part];
    } else if (form->end) {
        len -= strlen(form->end->common);
        tail = form->end->written;
    }
    return arena_printf(arena, "%s%.*s%s%s%s", head, (int)len, rest, form->pack ? form->pack->experts : "",
                        number, tail);
}

/* The same for the same tensor of another layer. */
static uint64_t kind_of(const char *common)
{
    char text[NAME_MAX_LEN + 64];
    size_t n = 0;

    for (const char *at = common; *at;) {
        size_t digits = at != common && at[-1] == '.' ? strspn(at, "0123456789") : 0;
        if (digits && (at[digits] == '.' || !at[digits])) {
            text[n++] = '#';
            at += digits;
        } else {
            text[n++] = *at++;
        }
    }
    return XXH64(text, n, 0);
}

/* The form that the donor gives to each kind of tensor, and how many experts it has in it. */
struct kind {
    uint64_t hash, n_experts;
    struct form form;
};

struct kinds {
    size_t n;
    struct kind *list; /* sorted by hash, each once */
};

static int by_hash(const void *a, const void *b)
{
    uint64_t x = ((const struct kind *)a)->hash, y = ((const struct kind *)b)->hash;

    return x < y ? -1 : x > y;
}

static void sort_kinds(struct kinds *kinds)
{
    size_t kept = 0;

    qsort(kinds->list, kinds->n, sizeof(*kinds->list), by_hash);
    for (size_t i = 0; i < kinds->n; i++) {
        struct kind *last = kept ? &kinds->list[kept - 1] : NULL, *next = &kinds->list[i];
        if (!last || last->hash != next->hash)
            kinds->list[kept++] = *next;
        else if (last->n_experts < next->n_experts)
            last->n_experts = next->n_experts;
    }
    kinds->n = kept;
}

static int list_kinds(struct arena *arena, const struct input_model *donor, struct kinds *kinds)
{
    struct parsed parsed;

    kinds->n = 0;
    kinds->list = arena_alloc(arena, donor->n_names + 1, sizeof(*kinds->list));
    if (!kinds->list)
        return -ENOMEM;
    for (size_t i = 0; i < donor->n_names; i++) {
        if (parse(donor->names[i], &parsed))
            kinds->list[kinds->n++] = (struct kind){kind_of(parsed.common), parsed.expert + 1, parsed.form};
    }
    sort_kinds(kinds);
    return 0;
}

static const struct kind *find_kind(const struct kinds *kinds, const char *common)
{
    struct kind key = {.hash = kind_of(common)};

    return bsearch(&key, kinds->list, kinds->n, sizeof(key), by_hash);
}

/* A part that is to go into a pack. */
struct loose {
    const char *pack, *from;
    uint64_t expert;
    unsigned part, n_parts;
};

struct meeting {
    struct arena *arena;
    struct input_model *model;
    const struct input_model *donor;
    struct err *err;
    struct kinds kinds;
    size_t n_met, n_loose, n_parts; /* n_parts: of packs taken apart */
    struct met *met;
    struct loose *loose;
    bool changed;
};

static int add_met(struct meeting *m, struct met met, const char *const *from, size_t n_from)
{
    struct met *added = arena_push(m->arena, &m->met, &m->n_met, sizeof(*added));
    const char **list = arena_alloc(m->arena, n_from, sizeof(*list));

    if (!added || !list)
        return -ENOMEM;
    memcpy(list, from, n_from * sizeof(*list));
    *added = met;
    added->from = list;
    added->n_from = n_from;
    return met.name ? 0 : -ENOMEM;
}

static int add_same(struct meeting *m, const char *name)
{
    return add_met(m, (struct met){.name = name}, &name, 1);
}

/* May it be taken apart as the donor has it? 0 or -EINVAL. */
static int check_pack(struct meeting *m, const struct input_tensor *pack, const struct kind *kind)
{
    const char *model = m->model->name, *donor = m->donor->name;

    if (pack->ndim != 3 || pack->n == 0 || pack->shape[1] % kind->form.pack->n_parts)
        return err_set(m->err, -EINVAL,
                       "%s: `%.200s` does not hold experts in a shape that is understood, and %s has each of "
                       "them apart: the two cannot meet",
                       model, pack->name, donor);
    if (pack->shape[0] > kind->n_experts)
        return err_set(m->err, -EINVAL,
                       "%s: `%.200s` holds %llu experts, and %s has no more than %llu: models with different "
                       "numbers of experts cannot meet",
                       model, pack->name, (unsigned long long)pack->shape[0], donor,
                       (unsigned long long)kind->n_experts);
    m->n_parts += (size_t)pack->shape[0] * kind->form.pack->n_parts;
    if (m->n_parts > PARTS_MAX)
        return err_set(m->err, -EINVAL, "%s: `%.200s` and the packs before it hold more than %d tensors",
                       model, pack->name, PARTS_MAX);
    return 0;
}

/* A pack becomes the parts it is made of. */
static int take_apart(struct meeting *m, const char *name, const char *common, const struct kind *kind)
{
    struct input_tensor pack;
    unsigned n_parts = kind->form.pack->n_parts;
    int found = input_find(m->arena, m->model, name, &pack), status;

    if (found < 0)
        return found;
    status = check_pack(m, &pack, kind);
    if (status)
        return status;
    m->changed = true;
    for (uint64_t e = 0; e < pack.shape[0]; e++) {
        for (unsigned k = 0; k < n_parts; k++) {
            struct met met = {spell(m->arena, common, &kind->form, e, k), MET_PART, 0, NULL, k, n_parts, e};
            if (add_met(m, met, &name, 1))
                return -ENOMEM;
        }
    }
    return 0;
}

static int set_aside(struct meeting *m, const char *name, const struct parsed *parsed,
                     const struct form *form)
{
    struct loose *loose = arena_push(m->arena, &m->loose, &m->n_loose, sizeof(*loose));

    if (!loose)
        return -ENOMEM;
    *loose = (struct loose){spell(m->arena, parsed->common, form, 0, 0), name, parsed->expert, parsed->part,
                            parsed->form.pack->n_parts};
    return loose->pack ? 0 : -ENOMEM;
}

static int meet_name(struct meeting *m, const char *name)
{
    struct parsed parsed;
    const struct kind *kind;
    const struct form *form;
    const char *spelt;

    if (input_has(m->donor, name) || !parse(name, &parsed) || !(kind = find_kind(&m->kinds, parsed.common)))
        return add_same(m, name);
    form = &kind->form;
    if (form->pack && !parsed.form.pack)
        return take_apart(m, name, parsed.common, kind);
    if (!form->pack && parsed.form.pack)
        return set_aside(m, name, &parsed, form);
    if (form->pack && form->pack->n_parts != parsed.form.pack->n_parts)
        return add_same(m, name);
    spelt = spell(m->arena, parsed.common, form, parsed.expert, parsed.part);
    if (spelt && (strcmp(spelt, name) == 0 || input_has(m->model, spelt)))
        return add_same(m, name);
    m->changed = true;
    return add_met(m, (struct met){.name = spelt}, &name, 1);
}

static int by_pack(const void *a, const void *b)
{
    const struct loose *x = a, *y = b;
    int order = strcmp(x->pack, y->pack);

    if (order == 0)
        order = x->expert < y->expert ? -1 : x->expert > y->expert;
    return order ? order : (int)x->part - (int)y->part;
}

static int say_missing(struct meeting *m, const struct loose *loose, size_t i)
{
    struct parsed parsed;
    const char *name = NULL;

    if (parse(loose->from, &parsed))
        name =
            spell(m->arena, parsed.common, &parsed.form, i / loose->n_parts, (unsigned)(i % loose->n_parts));
    if (!name)
        return -ENOMEM;
    return err_set(m->err, -EINVAL,
                   "%s lacks `%.200s`: without it the experts cannot be packed into `%.200s`, as %s has them",
                   m->model->name, name, loose->pack, m->donor->name);
}

static bool alike(const struct input_tensor *a, const struct input_tensor *b)
{
    return a->ndim == 2 && b->ndim == 2 && a->n > 0 && a->dtype == b->dtype && a->shape[0] == b->shape[0] &&
           a->shape[1] == b->shape[1];
}

/* Are they all there, once each, alike? 0, -EINVAL or -ENOMEM. */
static int check_parts(struct meeting *m, const struct loose *loose, size_t n)
{
    struct input_tensor first, other;

    for (size_t i = 0; i < n; i++) {
        size_t place = (size_t)loose[i].expert * loose->n_parts + loose[i].part;
        int found = input_find(m->arena, m->model, loose[i].from, i ? &other : &first);
        if (found < 0)
            return found;
        if (place > i)
            return say_missing(m, loose, i);
        if (place < i)
            return err_set(m->err, -EINVAL, "%s: `%.200s` and `%.200s` are the same part of one expert",
                           m->model->name, loose[i - 1].from, loose[i].from);
        if (!alike(&first, i ? &other : &first))
            return err_set(m->err, -EINVAL,
                           "%s: `%.200s` and `%.200s` are not matrices of one type and shape: they cannot be "
                           "packed into `%.200s`, as %s has them",
                           m->model->name, loose->from, loose[i].from, loose->pack, m->donor->name);
    }
    return n % loose->n_parts ? say_missing(m, loose, n) : 0;
}

/* Parts become a pack. */
static int put_together(struct meeting *m, const struct loose *loose, size_t n)
{
    const char **from = arena_alloc(m->arena, n, sizeof(*from));
    int status = from ? check_parts(m, loose, n) : -ENOMEM;

    if (status)
        return status;
    for (size_t i = 0; i < n; i++)
        from[i] = loose[i].from;
    m->changed = true;
    return add_met(m, (struct met){.name = loose->pack, .kind = MET_PACK, .n_parts = loose->n_parts}, from,
                   n);
}

/* Where the model has the pack, too, its parts are something else. */
static int leave_apart(struct meeting *m, const struct loose *loose, size_t n)
{
    int status = 0;

    for (size_t i = 0; i < n && status == 0; i++)
        status = add_same(m, loose[i].from);
    return status;
}

static int put_all_together(struct meeting *m)
{
    int status = 0;

    if (m->n_loose)
        qsort(m->loose, m->n_loose, sizeof(*m->loose), by_pack);
    for (size_t i = 0, n; i < m->n_loose && status == 0; i += n) {
        for (n = 1; i + n < m->n_loose && strcmp(m->loose[i + n].pack, m->loose[i].pack) == 0; n++)
            ;
        status = input_has(m->model, m->loose[i].pack) ? leave_apart(m, m->loose + i, n)
                                                       : put_together(m, m->loose + i, n);
    }
    return status;
}

static int by_met_name(const void *a, const void *b)
{
    return strcmp(((const struct met *)a)->name, ((const struct met *)b)->name);
}

static int finish(struct meeting *m)
{
    struct input_model *out = arena_alloc(m->arena, 1, sizeof(*out));

    if (!out)
        return -ENOMEM;
    qsort(m->met, m->n_met, sizeof(*m->met), by_met_name);
    *out = (struct input_model){.name = m->model->name,
                                .disk = m->model->disk,
                                .stage = m->model->stage,
                                .config = m->model->config,
                                .of = m->model,
                                .met = m->met};
    out->names = arena_alloc(m->arena, m->n_met, sizeof(*out->names));
    if (!out->names)
        return -ENOMEM;
    for (size_t i = 0; i < m->n_met; i++) {
        if (out->n_names && strcmp(out->names[out->n_names - 1], m->met[i].name) == 0)
            continue; /* two tensors that would be one: only a hostile header has them */
        m->met[out->n_names] = m->met[i];
        out->names[out->n_names++] = m->met[i].name;
    }
    m->model->met_as = out;
    return input_init_names(m->arena, out);
}

/* Has the model a tensor under a name that the donor does not have? Both lists are sorted. */
static bool differs(const struct input_model *model, const struct input_model *donor)
{
    for (size_t i = 0, k = 0; i < model->n_names; i++) {
        while (k < donor->n_names && strcmp(donor->names[k], model->names[i]) < 0)
            k++;
        if (k == donor->n_names || strcmp(donor->names[k], model->names[i]) != 0)
            return true;
    }
    return false;
}

static int meet(struct arena *arena, struct input_model *model, const struct input_model *donor,
                struct err *err)
{
    struct meeting m = {.arena = arena, .model = model, .donor = donor, .err = err};
    int status = list_kinds(arena, donor, &m.kinds);

    for (size_t i = 0; i < model->n_names && status == 0; i++)
        status = meet_name(&m, model->names[i]);
    if (status == 0)
        status = put_all_together(&m);
    return status || !m.changed ? status : finish(&m);
}

int input_meet(struct arena *arena, struct input_model *model, const struct input_model *donor,
               struct input_model **out, struct err *err)
{
    int status = 0;

    *out = model;
    if (model == donor)
        return 0;
    if (model->met_with != donor) {
        model->met_as = model;
        if (differs(model, donor))
            status = meet(arena, model, donor, err);
        model->met_with = status ? NULL : donor;
    }
    *out = model->met_as;
    return status;
}

/* ---- tensors of a model that met */

static int find_part(struct arena *arena, const struct met *met, struct input_tensor *tensor)
{
    struct slice_feed *slice = arena_alloc(arena, 1, sizeof(*slice));
    uint64_t *shape = arena_alloc(arena, 2, sizeof(*shape));

    if (!slice || !shape)
        return -ENOMEM;
    shape[0] = tensor->shape[1] / met->n_parts;
    shape[1] = tensor->shape[2];
    tensor->n = shape[0] * shape[1];
    slice_feed_init(slice, tensor->feed, (met->expert * met->n_parts + met->part) * tensor->n, tensor->n,
                    tensor->feed->n, 1);
    tensor->feed = &slice->feed;
    tensor->ndim = 2;
    tensor->shape = shape;
    tensor->shown = arena_printf(
        arena, "rows %llu to %llu of matrix %llu of %s", (unsigned long long)(met->part * shape[0]),
        (unsigned long long)((met->part + 1) * shape[0]), (unsigned long long)met->expert, tensor->shown);
    return tensor->shown ? 1 : -ENOMEM;
}

static int find_pack(struct arena *arena, const struct input_model *of, const struct met *met,
                     struct input_tensor *tensor)
{
    struct concat_feed *concat = arena_alloc(arena, 1, sizeof(*concat));
    const struct feed **feeds = arena_alloc(arena, met->n_from, sizeof(*feeds));
    uint64_t *begin = arena_alloc(arena, met->n_from + 1, sizeof(*begin));
    uint64_t *shape = arena_alloc(arena, 3, sizeof(*shape));

    if (!concat || !feeds || !begin || !shape)
        return -ENOMEM;
    for (size_t i = 0; i < met->n_from; i++) {
        if (input_find(arena, of, met->from[i], tensor) < 0)
            return -ENOMEM;
        feeds[i] = tensor->feed;
        begin[i + 1] = begin[i] + tensor->n;
    }
    shape[0] = met->n_from / met->n_parts;
    shape[1] = tensor->shape[0] * met->n_parts;
    shape[2] = tensor->shape[1];
    concat_feed_init(concat, feeds, begin, met->n_from, 1);
    tensor->feed = &concat->feed;
    tensor->n = concat->feed.n;
    tensor->ndim = 3;
    tensor->shape = shape;
    tensor->shown = arena_printf(arena, "%zu tensors from %s on", met->n_from, met->from[0]);
    return tensor->shown ? 1 : -ENOMEM;
}

int met_find(struct arena *arena, const struct input_model *of, const struct met *met,
             struct input_tensor *tensor)
{
    int found = met->kind == MET_PACK ? find_pack(arena, of, met, tensor)
                                      : input_find(arena, of, met->from[0], tensor);

    if (found == 1 && met->kind == MET_PART)
        found = find_part(arena, met, tensor);
    tensor->name = arena_strdup(arena, met->name);
    return tensor->name ? found : -ENOMEM;
}
