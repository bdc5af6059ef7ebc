#include "views.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#undef uthash_nonfatal_oom
#define uthash_nonfatal_oom(view) ((void)(view), failed = true)
#include <utlist.h>

#define NODE_BITS 24

struct views {
    size_t max_idle;
    views_release *release;
    void *release_arg;
    views_crowded *crowded;
    void *crowded_arg;
    pthread_mutex_t lock; /* guards what follows, and the views' own fields that say so */
    struct view *by_key, *by_slot;
    struct view *idle; /* oldest first */
    size_t n_idle;
    uint64_t last_slot;
};

struct views *views_new(size_t max_idle, views_release *release, void *release_arg, views_crowded *crowded,
                        void *crowded_arg)
{
    struct views *views = calloc(1, sizeof(*views));

    if (!views)
        return NULL;
    *views = (struct views){.max_idle = max_idle,
                            .release = release,
                            .release_arg = release_arg,
                            .crowded = crowded,
                            .crowded_arg = crowded_arg};
    pthread_mutex_init(&views->lock, NULL);
    return views;
}

static void free_view(struct views *views, struct view *view)
{
    if (!view)
        return;
    views->release(views->release_arg, view);
    free(view->key);
    free(view->path);
    free(view->target);
    free(view->name);
    free(view);
}

void views_free(struct views *views)
{
    struct view *view, *next;

    if (!views)
        return;
    HASH_CLEAR(by_key, views->by_key);
    HASH_ITER(by_slot, views->by_slot, view, next)
    {
        HASH_DELETE(by_slot, views->by_slot, view);
        free_view(views, view);
    }
    pthread_mutex_destroy(&views->lock);
    free(views);
}

uint64_t view_id(const struct view *view, size_t node)
{
    return view->is_root && node == 0 ? VIEWS_ROOT_ID : (view->slot << NODE_BITS | node) + VIEWS_ROOT_ID;
}

uint64_t views_slot(uint64_t id)
{
    return id < VIEWS_ROOT_ID ? 0 : (id - VIEWS_ROOT_ID) >> NODE_BITS;
}

size_t views_node(uint64_t id)
{
    return (size_t)(id - VIEWS_ROOT_ID) & (VIEWS_MAX_NODES - 1);
}

/* ---- with the lock held ---- */

static void unlist(struct views *views, struct view *view)
{
    if (!view->idle)
        return;
    DL_DELETE(views->idle, view);
    view->idle = false;
    views->n_idle--;
}

static struct view *pin(struct views *views, struct view *view)
{
    if (!view)
        return NULL;
    unlist(views, view);
    view->n_pins++;
    return view;
}

/* The view, if it is to be freed. */
static struct view *settle(struct views *views, struct view *view)
{
    if (view->n_pins)
        return NULL;
    if (view->lookups == 0) {
        unlist(views, view);
        HASH_DELETE(by_key, views->by_key, view);
        HASH_DELETE(by_slot, views->by_slot, view);
        return view;
    }
    if (view->parent && !view->idle) {
        DL_APPEND(views->idle, view);
        view->idle = true;
        if (++views->n_idle > views->max_idle)
            views->crowded(views->crowded_arg);
    }
    return NULL;
}

static int insert(struct views *views, struct view *view)
{
    bool failed = false;

    view->slot = ++views->last_slot;
    HASH_ADD_KEYPTR(by_key, views->by_key, view->key, strlen(view->key), view);
    if (failed)
        return -ENOMEM;
    HASH_ADD(by_slot, views->by_slot, slot, sizeof(view->slot), view);
    if (!failed)
        return 0;
    HASH_DELETE(by_key, views->by_key, view);
    return -ENOMEM;
}

/* ---- */

int views_add(struct views *views, struct view *view, struct view **out)
{
    int ret = 0;

    *out = NULL;
    if (!view->key || !view->path || !view->name) {
        free_view(views, view);
        return -ENOMEM;
    }
    pthread_mutex_lock(&views->lock);
    HASH_FIND(by_key, views->by_key, view->key, strlen(view->key), *out);
    if (!*out) {
        ret = insert(views, view);
        if (ret == 0) {
            *out = view;
            view = NULL;
        }
    }
    pin(views, *out);
    pthread_mutex_unlock(&views->lock);
    free_view(views, view);
    return ret;
}

struct view *views_find(struct views *views, const char *key)
{
    struct view *view;

    pthread_mutex_lock(&views->lock);
    HASH_FIND(by_key, views->by_key, key, strlen(key), view);
    pin(views, view);
    pthread_mutex_unlock(&views->lock);
    return view;
}

struct view *views_get(struct views *views, uint64_t slot)
{
    struct view *view;

    pthread_mutex_lock(&views->lock);
    HASH_FIND(by_slot, views->by_slot, &slot, sizeof(slot), view);
    pin(views, view);
    pthread_mutex_unlock(&views->lock);
    return view;
}

void views_put(struct views *views, struct view *view)
{
    struct view *dead;

    if (!view)
        return;
    pthread_mutex_lock(&views->lock);
    view->n_pins--;
    dead = settle(views, view);
    pthread_mutex_unlock(&views->lock);
    free_view(views, dead);
}

void views_known(struct views *views, struct view *view)
{
    pthread_mutex_lock(&views->lock);
    view->lookups++;
    pthread_mutex_unlock(&views->lock);
}

void views_forget(struct views *views, uint64_t slot, uint64_t n)
{
    struct view *view, *dead = NULL;

    pthread_mutex_lock(&views->lock);
    HASH_FIND(by_slot, views->by_slot, &slot, sizeof(slot), view);
    if (view) {
        view->lookups -= n < view->lookups ? n : view->lookups;
        if (view->lookups == 0)
            dead = settle(views, view);
    }
    pthread_mutex_unlock(&views->lock);
    free_view(views, dead);
}

/* ---- what the kernel is to forget ---- */

int entry_list_add(struct entry_list *list, uint64_t parent, const char *name)
{
    struct entry *grown = list->entries;

    if ((list->n & (list->n - 1)) == 0)
        grown = reallocarray(list->entries, list->n ? 2 * list->n : 1, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    list->entries = grown;
    grown[list->n] = (struct entry){parent, strdup(name)};
    if (!grown[list->n].name)
        return -ENOMEM;
    list->n++;
    return 0;
}

void entry_list_fini(struct entry_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->entries[i].name);
    free(list->entries);
    *list = (struct entry_list){0};
}

void views_take_idle(struct views *views, struct entry_list *out)
{
    pthread_mutex_lock(&views->lock);
    while (views->n_idle > views->max_idle &&
           entry_list_add(out, views->idle->parent, views->idle->name) == 0)
        unlist(views, views->idle);
    pthread_mutex_unlock(&views->lock);
}

int views_entries(struct views *views, uint64_t parent, struct entry_list *out)
{
    struct view *view, *next;
    int ret = 0;

    pthread_mutex_lock(&views->lock);
    HASH_ITER(by_slot, views->by_slot, view, next)
    {
        if (ret == 0 && view->parent == parent && !view->pinned && view->lookups)
            ret = entry_list_add(out, parent, view->name);
    }
    pthread_mutex_unlock(&views->lock);
    return ret;
}

struct views_count views_count(struct views *views)
{
    struct views_count count = {0};
    struct view *view, *next;

    pthread_mutex_lock(&views->lock);
    count.idle = views->n_idle;
    HASH_ITER(by_slot, views->by_slot, view, next)
    {
        count.all++;
        count.links += view->target != NULL;
        count.variants += !view->target && view->path[0];
    }
    pthread_mutex_unlock(&views->lock);
    return count;
}
