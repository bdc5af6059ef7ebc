#include "recipes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "recipe_table.h"

enum { MAX_TOLD = 16 }; /* donors */

struct recipes *recipes_new(const struct planner *planner, const char *path, bool folder)
{
    struct recipes *recipes = calloc(1, sizeof(*recipes));

    if (!recipes)
        return NULL;
    *recipes = (struct recipes){.planner = planner, .path = strdup(path), .folder = folder};
    pthread_mutex_init(&recipes->lock, NULL);
    clock_gettime(CLOCK_REALTIME, &recipes->changed);
    if (recipes->path)
        return recipes;
    recipes_free(recipes);
    return NULL;
}

void recipe_free(struct recipe *recipe)
{
    if (!recipe)
        return;
    free(recipe->name);
    free(recipe->path);
    free(recipe->error);
    free(recipe);
}

bool recipes_folder(const struct recipes *recipes)
{
    return recipes->folder;
}

const char *recipes_path(const struct recipes *recipes)
{
    return recipes->path;
}

const struct planner *recipes_planner(const struct recipes *recipes)
{
    return recipes->planner;
}

const char *recipe_name(const struct recipe *recipe)
{
    return recipe->name;
}

char *recipes_path_of(struct recipes *recipes, const struct recipe *recipe)
{
    char *path;

    pthread_mutex_lock(&recipes->lock);
    path = strdup(recipe->path);
    pthread_mutex_unlock(&recipes->lock);
    return path;
}

/* ---- generations and who holds them ---- */

void recipe_reap(struct recipes *recipes, struct recipe *recipe)
{
    if (!recipe->gone || recipe->generations)
        return;
    HASH_DEL(recipes->table, recipe);
    recipe_free(recipe);
}

void recipes_let_go(struct recipes *recipes, struct generation *generation)
{
    if (!generation || !generation_let_go(generation))
        return;
    pthread_mutex_lock(&recipes->lock);
    LL_DELETE(generation->recipe->generations, generation);
    recipe_reap(recipes, generation->recipe);
    pthread_mutex_unlock(&recipes->lock);
    generation_free(generation);
}

struct generation *recipes_generation(struct recipes *recipes, const struct recipe *recipe,
                                      uint64_t fingerprint)
{
    struct generation *generation;

    pthread_mutex_lock(&recipes->lock);
    for (generation = recipe->generations; generation; generation = generation->next)
        if (generation_fingerprint(generation) == fingerprint && generation_hold_if_held(generation))
            break;
    pthread_mutex_unlock(&recipes->lock);
    return generation;
}

/* Takes over a reference. *old: what it pushes out. With the lock held. */
static void remember(struct recipe *recipe, struct generation *generation, struct generation **old)
{
    *old = recipe->recent[N_RECENT - 1];
    memmove(recipe->recent + 1, recipe->recent, (N_RECENT - 1) * sizeof(recipe->recent[0]));
    recipe->recent[0] = generation;
}

/* ---- changing over ---- */

static bool is_waiting(const struct recipe *recipe)
{
    return recipe->gone ? recipe->current || recipe->waiting : recipe->waiting != NULL;
}

ssize_t recipes_waiting(struct recipes *recipes, struct change **list)
{
    struct recipe *recipe;
    size_t n = 0;

    pthread_mutex_lock(&recipes->lock);
    *list = calloc(HASH_COUNT(recipes->table) + 1, sizeof(**list));
    for (recipe = *list ? recipes->table : NULL; recipe; recipe = recipe->hh.next)
        if (is_waiting(recipe))
            (*list)[n++] =
                (struct change){recipe, recipe->name, recipe->current, recipe->gone ? NULL : recipe->waiting};
    pthread_mutex_unlock(&recipes->lock);
    return *list ? (ssize_t)n : -ENOMEM;
}

void recipes_prepare(struct recipes *recipes, const struct change *change)
{
    pthread_mutex_lock(&recipes->lock);
    change->recipe->passing = true;
    pthread_mutex_unlock(&recipes->lock);
}

/* What the recipe itself holds. With the lock held. */
static void take_held(struct recipe *recipe, struct generation *held[N_HELD])
{
    memcpy(held, recipe->recent, sizeof(recipe->recent));
    held[N_RECENT] = recipe->current;
    held[N_RECENT + 1] = recipe->waiting;
    memset(recipe->recent, 0, sizeof(recipe->recent));
    recipe->current = recipe->waiting = NULL;
}

/* What the recipe lets go of goes to held[]. With the lock held. */
static void change_over(struct recipe *recipe, struct view *view, struct generation *held[N_HELD])
{
    if (recipe->gone) {
        take_held(recipe, held);
    } else {
        if (recipe->current)
            remember(recipe, recipe->current, &held[0]);
        recipe->current = recipe->waiting;
        recipe->waiting = NULL;
    }
    recipe->view = view;
}

bool recipes_commit(struct recipes *recipes, const struct change *change, int64_t rest_ms, struct view *view,
                    struct view **old)
{
    struct generation *held[N_HELD] = {0};
    struct recipe *recipe = change->recipe;
    bool rests;

    pthread_mutex_lock(&recipes->lock);
    recipe->passing = false;
    rests = !recipe->current || generation_rests(recipe->current, rest_ms);
    if (rests) {
        *old = recipe->view;
        change_over(recipe, view, held);
        clock_gettime(CLOCK_REALTIME, &recipes->changed);
    }
    pthread_mutex_unlock(&recipes->lock);
    for (size_t i = 0; i < N_HELD; i++)
        recipes_let_go(recipes, held[i]);
    return rests;
}

void recipes_free(struct recipes *recipes)
{
    struct generation *held[N_HELD];
    struct recipe *recipe, *next;

    if (!recipes)
        return;
    HASH_ITER(hh, recipes->table, recipe, next)
    {
        pthread_mutex_lock(&recipes->lock);
        take_held(recipe, held);
        recipe->gone = false; /* freed here, not with its last generation */
        pthread_mutex_unlock(&recipes->lock);
        for (size_t i = 0; i < N_HELD; i++)
            recipes_let_go(recipes, held[i]);
        HASH_DEL(recipes->table, recipe);
        recipe_free(recipe);
    }
    pthread_mutex_destroy(&recipes->lock);
    free(recipes->path);
    free(recipes->error);
    free(recipes);
}

/* ---- from any thread ---- */

int recipes_find(struct recipes *recipes, const char *name, struct standing *standing)
{
    struct recipe *recipe;
    int ret = -ENOENT;

    pthread_mutex_lock(&recipes->lock);
    HASH_FIND_STR(recipes->table, name, recipe);
    if (recipe && recipe->view) {
        *standing = (struct standing){recipe->view->slot, recipe->passing};
        ret = 0;
    }
    pthread_mutex_unlock(&recipes->lock);
    return ret;
}

static int name_order(const void *a, const void *b)
{
    return strcmp(((const struct recipe_name *)a)->name, ((const struct recipe_name *)b)->name);
}

int recipes_names(struct recipes *recipes, struct recipe_names *out)
{
    struct recipe *recipe;
    int ret = 0;

    out->n = 0;
    pthread_mutex_lock(&recipes->lock);
    out->list = calloc(HASH_COUNT(recipes->table) + 1, sizeof(*out->list));
    for (recipe = out->list ? recipes->table : NULL; recipe && ret == 0; recipe = recipe->hh.next) {
        if (!recipe->view)
            continue;
        out->list[out->n] = (struct recipe_name){strdup(recipe->name), recipe->view->slot, recipe->view->ino};
        ret = out->list[out->n].name ? 0 : -ENOMEM;
        out->n += ret == 0;
    }
    pthread_mutex_unlock(&recipes->lock);
    if (out->list && ret == 0) {
        qsort(out->list, out->n, sizeof(*out->list), name_order);
        return 0;
    }
    recipe_names_fini(out);
    return -ENOMEM;
}

void recipe_names_fini(struct recipe_names *names)
{
    for (size_t i = 0; i < names->n; i++)
        free(names->list[i].name);
    free(names->list);
    *names = (struct recipe_names){0};
}

struct timespec recipes_changed(struct recipes *recipes)
{
    struct timespec changed;

    pthread_mutex_lock(&recipes->lock);
    changed = recipes->changed;
    pthread_mutex_unlock(&recipes->lock);
    return changed;
}

/* With the lock held. */
static void describe_idle(struct meld *meld, FILE *out)
{
    struct meld_idle idle[MAX_TOLD];
    size_t n;

    meld_pin(meld);
    n = meld_idle_donors(meld, idle, MAX_TOLD);
    for (size_t i = 0; i < n && i < MAX_TOLD; i++)
        fprintf(out, "idle_donor_name %s\n", idle[i].model);
    meld_unpin(meld);
}

static void describe(const struct recipe *recipe, FILE *out)
{
    struct meld *meld = recipe->current ? recipe->current->models[0].meld : NULL;

    if (meld)
        fprintf(out,
                "generation %016" PRIx64 "\ntensors %" PRIu64 "\nmodels %" PRIu64 "\nfiles_bytes %" PRIu64
                "\n",
                meld_fingerprint(meld), meld_n_tensors(meld), meld_n_models(meld), meld_bytes(meld));
    if (meld)
        describe_idle(meld, out);
    if (recipe->waiting && recipe->current)
        fprintf(out, "pending_generation %016" PRIx64 "\n", generation_fingerprint(recipe->waiting));
    if (recipe->gone)
        fprintf(out, "reload_error %s: there is no such file any more\n", recipe->path);
    else if (recipe->error)
        fprintf(out, "reload_error %s\n", recipe->error);
}

void recipes_describe(struct recipes *recipes, FILE *out)
{
    struct recipe *recipe;
    size_t n = 0, n_served = 0;

    pthread_mutex_lock(&recipes->lock);
    for (recipe = recipes->table; recipe; recipe = recipe->hh.next) {
        n++;
        n_served += recipe->current != NULL;
        if (!recipes->folder)
            describe(recipe, out);
    }
    if (recipes->folder)
        fprintf(out, "recipes_all %zu\nrecipes_served %zu\n", n, n_served);
    if (recipes->error)
        fprintf(out, "reload_error %s\n", recipes->error);
    for (recipe = recipes->folder ? recipes->table : NULL; recipe; recipe = recipe->hh.next) {
        fprintf(out, "section recipe\nname %s\npath %s\n", recipe->name, recipe->path);
        describe(recipe, out);
    }
    pthread_mutex_unlock(&recipes->lock);
}
