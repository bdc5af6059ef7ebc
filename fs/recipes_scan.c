#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "recipe_table.h"

#undef uthash_nonfatal_oom
#define uthash_nonfatal_oom(recipe) ((void)(recipe), failed = true)
#include <utlist.h>

#define YOUNG_MS 200 /* a file that was written so lately may be written again with the same time */

static bool is_older(const struct timespec *time, const struct timespec *now)
{
    int64_t ms = ((int64_t)now->tv_sec - time->tv_sec) * 1000 + (now->tv_nsec - time->tv_nsec) / 1000000;

    return ms > YOUNG_MS;
}

static int take_stamp(const char *path, struct stamp *stamp)
{
    struct timespec now;
    struct stat st;

    memset(stamp, 0, sizeof(*stamp));
    if (stat(path, &st) < 0)
        return -errno;
    clock_gettime(CLOCK_REALTIME, &now);
    if (is_older(&st.st_mtim, &now) && is_older(&st.st_ctim, &now)) {
        stamp->dev = st.st_dev;
        stamp->ino = st.st_ino;
        stamp->size = st.st_size;
        stamp->mtime = st.st_mtim;
        stamp->ctime = st.st_ctim;
    }
    return 0;
}

static bool same_stamp(const struct stamp *a, const struct stamp *b)
{
    return a->ino && memcmp(a, b, sizeof(*a)) == 0;
}

/* One line of text, malloc'd. */
static char *first_error(const struct report *report, int code)
{
    char *text = NULL;

    for (size_t i = 0; i < report->n && !text; i++)
        if (report->problems[i].severity == SEVERITY_ERROR)
            text = strdup(report->problems[i].text);
    if (!text)
        text = strdup(strerror(-code));
    for (char *c = text; c && *c; c++)
        if (*c == '\n')
            *c = ' ';
    return text;
}

static void set_error(struct recipes *recipes, struct recipe *recipe, char *error)
{
    char *old;

    pthread_mutex_lock(&recipes->lock);
    old = recipe->error;
    recipe->error = error;
    pthread_mutex_unlock(&recipes->lock);
    free(old);
}

/* The same plan as before, if it is still there: a change of nothing changes nothing. Takes over `fresh`. */
static struct generation *adopt(struct recipes *recipes, struct recipe *recipe, struct generation *fresh)
{
    struct generation *known = recipes_generation(recipes, recipe, generation_fingerprint(fresh));

    if (known) {
        meld_move_plan(fresh->models[0].meld, known->models[0].meld);
        generation_let_go(fresh);
        generation_free(fresh);
        return known;
    }
    fresh->recipe = recipe;
    pthread_mutex_lock(&recipes->lock);
    LL_PREPEND(recipe->generations, fresh);
    pthread_mutex_unlock(&recipes->lock);
    return fresh;
}

/* Takes over `generation`; NULL: nothing waits any more. */
static void set_waiting(struct recipes *recipes, struct recipe *recipe, struct generation *generation)
{
    struct generation *old;

    pthread_mutex_lock(&recipes->lock);
    old = recipe->waiting;
    recipe->waiting = generation;
    if (generation && generation == recipe->current) { /* nothing has changed */
        recipe->waiting = NULL;
    } else {
        generation = NULL;
    }
    pthread_mutex_unlock(&recipes->lock);
    recipes_let_go(recipes, old);
    recipes_let_go(recipes, generation);
}

struct scan {
    struct recipes *recipes;
    bool all;
    const struct recipes_hooks *hooks;
};

/* Who reads a FIFO waits for its writer, and the mount's end for who reads. */
static int check_kind(const char *path, struct report *report)
{
    struct stat st;

    if (stat(path, &st) < 0 || S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))
        return 0; /* or a better reason is found by who reads it */
    report_add(report, SEVERITY_ERROR, (struct place){path, 0, 0}, "not a regular file");
    return -EINVAL;
}

static void plan(const struct scan *scan, struct recipe *recipe)
{
    struct recipes *recipes = scan->recipes;
    struct generation *fresh = NULL;
    struct report report = {0};
    struct err err;
    int ret = check_kind(recipe->path, &report);

    if (ret == 0)
        ret = generation_new(recipes->planner, recipe->path, ++recipes->last_number, &fresh, &report);
    if (ret == 0 && scan->hooks->check && scan->hooks->check(scan->hooks->arg, &err) < 0) {
        report_add(&report, SEVERITY_ERROR, (struct place){0}, "%s", err.text);
        ret = -EINVAL;
        generation_free(fresh);
    }
    scan->hooks->tell(scan->hooks->arg, recipe->path, &report, ret);
    set_error(recipes, recipe, ret < 0 ? first_error(&report, ret) : NULL);
    report_fini(&report);
    if (ret == 0)
        set_waiting(recipes, recipe, adopt(recipes, recipe, fresh));
}

static void plan_if_changed(const struct scan *scan, struct recipe *recipe)
{
    struct stamp stamp;

    take_stamp(recipe->path, &stamp); /* before it is read: a change in between is seen the next time */
    if (!scan->all && same_stamp(&recipe->stamp, &stamp))
        return;
    recipe->stamp = stamp;
    plan(scan, recipe);
}

/* ---- files ---- */

static struct recipe *add_recipe(struct recipes *recipes, const char *name, const char *path)
{
    struct recipe *recipe = calloc(1, sizeof(*recipe));
    bool failed = false;

    if (!recipe)
        return NULL;
    recipe->name = strdup(name);
    recipe->path = strdup(path);
    if (recipe->name && recipe->path) {
        pthread_mutex_lock(&recipes->lock);
        HASH_ADD_KEYPTR(hh, recipes->table, recipe->name, strlen(recipe->name), recipe);
        pthread_mutex_unlock(&recipes->lock);
        if (!failed)
            return recipe;
    }
    recipe_free(recipe);
    return NULL;
}

/* Only the scanning thread adds, so what it finds stays unless it was gone. */
static struct recipe *have_recipe(struct recipes *recipes, const char *name, const char *path)
{
    struct recipe *recipe;

    pthread_mutex_lock(&recipes->lock);
    HASH_FIND_STR(recipes->table, name, recipe);
    if (recipe && recipe->gone) {
        recipe->gone = false;
        memset(&recipe->stamp, 0, sizeof(recipe->stamp));
    }
    pthread_mutex_unlock(&recipes->lock);
    return recipe ? recipe : add_recipe(recipes, name, path);
}

static size_t stem_of(const char *name)
{
    const char *dot = strrchr(name, '.');

    if (name[0] == '.' || !dot || (strcmp(dot, ".yml") != 0 && strcmp(dot, ".yaml") != 0))
        return 0;
    return (size_t)(dot - name);
}

/* A control character in a name would break the lines of the status. */
static int is_recipe(const struct dirent *entry)
{
    for (const char *c = entry->d_name; *c; c++)
        if (iscntrl((unsigned char)*c))
            return 0;
    return stem_of(entry->d_name) > 0;
}

/* "chat.yaml" and "chat.yml" would be one directory. */
static void note_twin(const struct scan *scan, struct recipe *recipe, const char *path)
{
    char *error;

    if (asprintf(&error, "%s: not served, for %s has the same name", path, recipe->path) < 0)
        error = NULL;
    set_error(scan->recipes, recipe, error);
    memset(&recipe->stamp, 0, sizeof(recipe->stamp)); /* to be said until it is gone */
}

/* It may have had the other suffix. Returns what is to be freed. */
static char *set_path(struct recipes *recipes, struct recipe *recipe, char *path)
{
    char *old = path;

    pthread_mutex_lock(&recipes->lock);
    if (strcmp(recipe->path, path) != 0) {
        old = recipe->path;
        recipe->path = path;
        memset(&recipe->stamp, 0, sizeof(recipe->stamp));
    }
    pthread_mutex_unlock(&recipes->lock);
    return old;
}

static int scan_file(const struct scan *scan, const char *file)
{
    char *name = strndup(file, stem_of(file)), *path = NULL;
    struct recipe *recipe = NULL;

    if (name && asprintf(&path, "%s/%s", scan->recipes->path, file) < 0)
        path = NULL;
    if (path)
        recipe = have_recipe(scan->recipes, name, path);
    if (recipe && !recipe->seen) {
        path = set_path(scan->recipes, recipe, path);
        recipe->seen = true;
        plan_if_changed(scan, recipe);
    } else if (recipe) {
        note_twin(scan, recipe, path);
    }
    free(name);
    free(path);
    return recipe ? 0 : -ENOMEM;
}

/* Those whose file is not there any more. */
static void mark_gone(struct recipes *recipes)
{
    struct recipe *recipe, *next;

    pthread_mutex_lock(&recipes->lock);
    HASH_ITER(hh, recipes->table, recipe, next)
    {
        recipe->gone = !recipe->seen;
        recipe_reap(recipes, recipe);
    }
    pthread_mutex_unlock(&recipes->lock);
}

static void mark_unseen(struct recipes *recipes)
{
    struct recipe *recipe;

    pthread_mutex_lock(&recipes->lock);
    for (recipe = recipes->table; recipe; recipe = recipe->hh.next)
        recipe->seen = false;
    pthread_mutex_unlock(&recipes->lock);
}

/* What is known of it stays: nothing is served less because it cannot be read. */
static void set_folder_error(struct recipes *recipes, const char *text)
{
    char *error = text ? strdup(text) : NULL, *old;

    pthread_mutex_lock(&recipes->lock);
    old = recipes->error;
    recipes->error = error;
    pthread_mutex_unlock(&recipes->lock);
    free(old);
}

static int scan_folder(const struct scan *scan, struct err *err)
{
    struct dirent **files;
    int n = scandir(scan->recipes->path, &files, is_recipe, alphasort), ret = n < 0 ? -errno : 0;

    if (n < 0)
        err_set(err, ret, "%s: %s", scan->recipes->path, strerror(-ret));
    set_folder_error(scan->recipes, n < 0 ? err->text : NULL);
    if (n < 0)
        return ret;
    mark_unseen(scan->recipes);
    for (int i = 0; i < n; i++) {
        if (ret == 0 && scan->hooks->stopped && scan->hooks->stopped(scan->hooks->arg))
            ret = -ECANCELED;
        if (ret == 0)
            ret = scan_file(scan, files[i]->d_name);
        free(files[i]);
    }
    free(files);
    if (ret == 0)
        mark_gone(scan->recipes);
    return ret < 0 ? err_set(err, ret, "%s", strerror(-ret)) : 0;
}

int recipes_scan(struct recipes *recipes, bool all, const struct recipes_hooks *hooks, struct err *err)
{
    const struct scan scan = {recipes, all, hooks};
    struct recipe *recipe;

    if (recipes->folder)
        return scan_folder(&scan, err);
    recipe = have_recipe(recipes, "", recipes->path);
    if (!recipe)
        return err_set(err, -ENOMEM, "out of memory");
    plan_if_changed(&scan, recipe);
    return 0;
}
