#include "names.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define GENERATION "generation="
#define FINGERPRINT_DIGITS 16

static void release(void *arg, struct view *view)
{
    struct names *names = arg;

    meld_close(view->meld);
    if (view->model)
        recipes_let_go(names->recipes, view->model->generation);
}

int names_init(struct names *names, struct recipes *recipes, size_t max_idle, views_crowded *crowded,
               void *arg)
{
    names->recipes = recipes;
    names->views = views_new(max_idle, release, names, crowded, arg);
    return names->views ? 0 : -ENOMEM;
}

/* ---- what a node is ---- */

const struct tree_node *found_node(const struct found *found)
{
    return found->view && found->view->model ? tree_node(found->view->model->tree, found->node) : NULL;
}

bool found_is_folder(const struct found *found)
{
    const struct tree_node *node = found_node(found);

    return node ? node->file < 0 : !found->view;
}

const struct meld_file *found_file(const struct found *found)
{
    const struct tree_node *node = found_node(found);

    return node && node->file >= 0 ? meld_file(found->view->meld, (size_t)node->file) : NULL;
}

uint64_t found_id(const struct found *found)
{
    return found->view ? view_id(found->view, found->node) : VIEWS_ROOT_ID;
}

/* Numbers 0 and 1 are nobody's and the root's. */
static uint64_t settled(uint64_t ino)
{
    return ino > 1 ? ino : ino + 2;
}

static uint64_t mixed(const struct meld *meld, uint64_t ino)
{
    return settled(XXH64(&ino, sizeof(ino), meld_fingerprint(meld)));
}

uint64_t found_ino(const struct found *found)
{
    const struct view *view = found->view;
    const struct tree_node *node = found_node(found);

    if (!view || found->node == 0)
        return view ? view->ino : 1;
    return view->meld == view->model->meld ? node->ino : mixed(view->meld, node->ino);
}

uint64_t found_parent_ino(const struct found *found)
{
    const struct tree_node *node = found_node(found);

    if (!node || found->node == 0)
        return found->view ? found->view->parent_ino : 1;
    return found_ino(&(struct found){.view = found->view, .node = node->parent});
}

int names_get(struct names *names, uint64_t id, struct found *found)
{
    uint64_t slot = views_slot(id);
    struct standing standing = {.slot = slot};

    *found = (struct found){.node = id < VIEWS_ROOT_ID ? 0 : views_node(id)};
    if (slot == 0 && recipes_folder(names->recipes))
        return found->node == 0 ? 0 : -ENOENT;
    do {
        if (slot == 0 && recipes_find(names->recipes, "", &standing) < 0)
            return -ENOENT;
        found->view = views_get(names->views, standing.slot);
    } while (slot == 0 && !found->view); /* it was changed over in between */
    found->passing = standing.passing;
    if (found->view && (found->view->model ? found_node(found) != NULL : found->node == 0))
        return 0;
    views_put(names->views, found->view);
    found->view = NULL;
    return -ENOENT;
}

/* ---- making views ---- */

struct plan_of_view {
    const struct served *model;
    struct meld *meld; /* taken over */
    const char *path;
    uint64_t pinned;
    const struct found *at; /* the directory it is in; NULL: the mount's root */
    const char *name;
    bool is_root;
};

/* Of a generation, which of its models, below which directory if pinned, with which values. */
static char *key_of(const struct served *model, uint64_t pinned, const char *path)
{
    char *key;
    size_t index = (size_t)(model - model->generation->models);

    return asprintf(&key, "%" PRIu64 "/%zu/%" PRIu64 "/%s", model->generation->number, index, pinned, path) <
                   0
               ? NULL
               : key;
}

static struct view *make_view(struct names *names, const struct plan_of_view *plan)
{
    struct view *view = calloc(1, sizeof(*view)), *out = NULL;

    if (!view) {
        meld_close(plan->meld);
        return NULL;
    }
    *view = (struct view){
        .key = key_of(plan->model, plan->pinned, plan->path),
        .model = plan->model,
        .meld = plan->meld,
        .path = strdup(plan->path),
        .pinned = plan->pinned,
        .is_root = plan->is_root,
        .parent = plan->is_root ? 0
                  : plan->at    ? found_id(plan->at)
                                : VIEWS_ROOT_ID,
        .parent_ino = plan->at ? found_ino(plan->at) : 1,
        .name = strdup(plan->name),
        .ino = plan->is_root ? 1 : mixed(plan->meld, plan->pinned ? 2 : 1), /* it may lie in the other */
    };
    generation_hold(plan->model->generation);
    return views_add(names->views, view, &out) < 0 ? NULL : out;
}

struct view *names_serve(struct names *names, struct generation *generation, const char *name)
{
    const struct plan_of_view plan = {
        .model = &generation->models[0],
        .meld = meld_ref(generation->models[0].meld),
        .path = "",
        .name = name,
        .is_root = !recipes_folder(names->recipes),
    };

    return make_view(names, &plan);
}

/* ---- steps ---- */

static int give(struct view *view, struct found *found)
{
    *found = (struct found){.view = view};
    return view ? 0 : -ENOMEM;
}

static int step_to_recipe(struct names *names, const char *name, struct found *found, struct err *err)
{
    struct standing standing;

    do {
        if (recipes_find(names->recipes, name, &standing) < 0)
            return err_set(err, -ENOENT,
                           "%s: there is no such recipe in %s, or it is wrong: see `meldfs status`", name,
                           recipes_path(names->recipes));
        *found = (struct found){views_get(names->views, standing.slot), 0, standing.passing};
    } while (!found->view);
    return 0;
}

static int step_to_document(struct names *names, const struct found *at, const struct served *document,
                            struct found *found)
{
    const struct plan_of_view plan = {
        .model = document,
        .meld = meld_ref(document->meld),
        .path = "",
        .pinned = at->view->pinned,
        .at = at,
        .name = document->document,
    };

    return give(make_view(names, &plan), found);
}

static bool parse_fingerprint(const char *text, uint64_t *value)
{
    *value = strtoull(text, NULL, 16);
    return strlen(text) == FINGERPRINT_DIGITS && strspn(text, "0123456789abcdef") == FINGERPRINT_DIGITS;
}

static int step_to_generation(struct names *names, const struct found *at, const char *name,
                              struct found *found, struct err *err)
{
    const struct view *view = at->view;
    struct generation *generation;
    struct plan_of_view plan = {.path = "", .at = at, .name = name, .pinned = found_id(at)};
    uint64_t fingerprint;
    int ret;

    if (view->path[0] || view->pinned || view->model->document)
        return err_set(err, -ENOENT, "%s: stands in the directory of a recipe only", name);
    if (!parse_fingerprint(name + strlen(GENERATION), &fingerprint))
        return err_set(err, -ENOENT, "%s: give the %d digits (0-9, a-f) that `meldfs status` prints", name,
                       FINGERPRINT_DIGITS);
    generation = recipes_generation(names->recipes, view->model->generation->recipe, fingerprint);
    if (!generation)
        return err_set(err, -ENOENT,
                       "%s: this generation is not the current one, and nobody holds it any more", name);
    plan.model = &generation->models[0];
    plan.meld = meld_ref(plan.model->meld);
    ret = give(make_view(names, &plan), found);
    recipes_let_go(names->recipes, generation);
    return ret;
}

/* From directory `path` up to its model's and down to the canonical one. */
static char *link_target(const char *path, const char *canonical)
{
    size_t depth = path[0] != '\0', len = strlen(canonical);
    char *target;

    for (const char *c = path; *c; c++)
        depth += *c == '/';
    target = malloc(3 * depth + len + 1);
    if (!target)
        return NULL;
    for (size_t i = 0; i < depth; i++)
        memcpy(target + 3 * i, "../", 3);
    memcpy(target + 3 * depth, canonical, len + 1);
    return target;
}

static int make_link(struct names *names, const struct found *at, const char *name, const char *canonical,
                     struct found *found)
{
    struct view *view = calloc(1, sizeof(*view)), *out = NULL;

    if (!view)
        return -ENOMEM;
    if (asprintf(&view->key, "link/%" PRIu64 "/%" PRIu64 "/%s", at->view->model->generation->number,
                 found_id(at), name) < 0)
        view->key = NULL;
    view->meld = meld_ref(at->view->meld); /* for its time */
    view->target = link_target(at->view->path, canonical);
    view->pinned = at->view->pinned;
    view->parent = found_id(at);
    view->parent_ino = found_ino(at);
    view->name = strdup(name);
    view->ino = settled(XXH64(name, strlen(name), view->parent_ino));
    if (view->target)
        view->path = strdup("");
    return views_add(names->views, view, &out) < 0 ? -ENOMEM : give(out, found);
}

/* Takes over meld. */
static int give_variant(struct names *names, const struct found *at, const char *name, const char *path,
                        const char *canonical, struct meld *meld, struct found *found)
{
    const struct plan_of_view plan = {.model = at->view->model,
                                      .meld = meld,
                                      .path = path,
                                      .pinned = at->view->pinned,
                                      .at = at,
                                      .name = name};

    if (strcmp(canonical, path) == 0)
        return give(make_view(names, &plan), found);
    meld_close(meld);
    return make_link(names, at, name, canonical, found);
}

static int step_along(struct names *names, const struct found *at, const char *name, const char *path,
                      struct found *found, struct err *err)
{
    char *canonical = NULL, *key = key_of(at->view->model, at->view->pinned, path);
    struct meld *meld;
    int ret;

    if (!key)
        return -ENOMEM;
    found->view = views_find(names->views, key); /* keys are of canonical paths only */
    free(key);
    if (found->view)
        return 0;
    ret = meld_variant_path(at->view->model->meld, path, &canonical, err);
    if (ret == 0)
        ret = meld_variant(at->view->model->meld, canonical, &meld, err);
    if (ret == 0)
        ret = give_variant(names, at, name, path, canonical, meld, found);
    free(canonical);
    return ret;
}

static int step_to_variant(struct names *names, const struct found *at, const char *name, struct found *found,
                           struct err *err)
{
    const char *above = at->view->path;
    char *path;
    int ret;

    if (asprintf(&path, "%s%s%s", above, *above ? "/" : "", name) < 0)
        return -ENOMEM;
    ret = step_along(names, at, name, path, found, err);
    free(path);
    return ret;
}

/* Files win over documents, documents over what has a `=`. */
static int step_in_view(struct names *names, const struct found *at, const char *name, struct found *found,
                        struct err *err)
{
    const struct view *view = at->view;
    const struct served *document;
    ssize_t node = view->model ? tree_lookup(view->model->tree, at->node, name) : -ENOTDIR;

    if (node >= 0) {
        *found = (struct found){views_get(names->views, view->slot), (size_t)node, at->passing};
        return 0;
    }
    if (node != -ENOENT || at->node > 0)
        return (int)node;
    document =
        view->path[0] || view->model->document ? NULL : generation_document(view->model->generation, name);
    if (document)
        return step_to_document(names, at, document, found);
    if (strncmp(name, GENERATION, strlen(GENERATION)) == 0)
        return step_to_generation(names, at, name, found, err);
    return strchr(name, '=') ? step_to_variant(names, at, name, found, err) : -ENOENT;
}

int names_step(struct names *names, const struct found *at, const char *name, struct found *found,
               struct err *err)
{
    int ret;

    *found = (struct found){0};
    err_set(err, 0, "%s", "");
    if (!at->view)
        return step_to_recipe(names, name, found, err);
    ret = step_in_view(names, at, name, found, err);
    found->passing = at->passing;
    return ret;
}

/* ---- paths ---- */

struct walk {
    struct names *names;
    struct found at, model; /* model: the directory of its model, in whose terms variants are */
    struct err *err;
};

static int walk_name(struct walk *walk, const char *name);

static int walk_path(struct walk *walk, const char *path)
{
    char *copy = strdup(path), *rest = copy, *name;
    int ret = copy ? 0 : -ENOMEM;

    while (ret == 0 && (name = strsep(&rest, "/")))
        if (*name)
            ret = walk_name(walk, name);
    free(copy);
    return ret;
}

/* "../" in a link leads up to the model's directory, and what follows is canonical: no further link comes. */
static int walk_link(struct walk *walk, const char *target)
{
    while (strncmp(target, "../", 3) == 0)
        target += 3;
    views_put(walk->names->views, walk->at.view);
    walk->at = walk->model;
    walk->at.view = views_get(walk->names->views, walk->model.view->slot);
    return walk_path(walk, target);
}

static int walk_name(struct walk *walk, const char *name)
{
    struct views *views = walk->names->views;
    struct found next;
    int ret = names_step(walk->names, &walk->at, name, &next, walk->err);

    if (ret < 0)
        return ret;
    if (next.view->target) {
        ret = walk_link(walk, next.view->target);
        views_put(views, next.view);
        return ret;
    }
    views_put(views, walk->at.view);
    walk->at = next;
    if (!next.view->path[0]) {
        views_put(views, walk->model.view);
        walk->model = next;
        walk->model.view = views_get(views, next.view->slot);
    }
    return 0;
}

int names_walk(struct names *names, const char *path, struct found *found, struct err *err)
{
    struct walk walk = {.names = names, .err = err};
    int ret = names_get(names, VIEWS_ROOT_ID, &walk.at);

    err_set(err, 0, "%s", "");
    if (ret == 0)
        ret = names_get(names, VIEWS_ROOT_ID, &walk.model);
    if (ret == 0)
        ret = walk_path(&walk, path);
    views_put(names->views, walk.model.view);
    if (ret == 0 || ret == -EAGAIN) {
        *found = walk.at;
        return ret;
    }
    views_put(names->views, walk.at.view);
    return ret;
}

static void write_node(const struct tree *tree, size_t node, FILE *out)
{
    const struct tree_node *at = tree_node(tree, node);

    if (node == 0)
        return;
    write_node(tree, at->parent, out);
    fprintf(out, "/%s", at->name);
}

static void write_path(const struct found *found, FILE *out)
{
    const struct view *view = found->view;
    const struct served *model = view->model;
    const char *recipe = recipe_name(model->generation->recipe);

    if (*recipe)
        fprintf(out, "/%s", recipe);
    if (view->pinned)
        fprintf(out, "/" GENERATION "%016" PRIx64, generation_fingerprint(model->generation));
    if (model->document)
        fprintf(out, "/%s", model->document);
    if (view->path[0])
        fprintf(out, "/%s", view->path);
    write_node(model->tree, found->node, out);
}

char *found_path(const struct found *found)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        return NULL;
    if (found->view && found->view->model)
        write_path(found, out);
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    if (*text == '/')
        memmove(text, text + 1, len);
    return text;
}
