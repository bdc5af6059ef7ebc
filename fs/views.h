/* The directories of a mount that come and go: variants, generations, documents, and links to them.
 *
 * A view is found by its key (what it shows) and by its slot, a number that is never given twice. It lives
 * as long as somebody here has it pinned or the kernel knows a node of it. One that nobody has pinned is
 * idle; the kernel forgets nothing by itself, so above a limit the oldest idle ones are to be taken from it.
 * Thread-safe.
 */
#ifndef VIEWS_H
#define VIEWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HASH_NONFATAL_OOM 1 /* by itself it would end the process */
#include <uthash.h>

struct meld;
struct served;

struct view {
    /* Set by who makes it, never changed after views_add. */
    char *key;
    const struct served *model; /* NULL: a link */
    struct meld *meld;          /* the model with the values of `path` */
    char *path;                 /* of the variant, canonical; "" for none */
    char *target;               /* a link's text */
    uint64_t pinned;            /* below the generation=... of this directory; 0: below none */
    bool is_root;               /* its directory is the mount's */
    uint64_t parent;            /* node id of the directory that has it as `name`; 0: none has */
    uint64_t parent_ino;        /* st_ino of that directory */
    uint64_t ino;               /* st_ino of its own directory, or of the link */
    char *name;

    uint64_t slot;
    /* The table's lock guards what follows. */
    uint64_t lookups; /* how often the kernel has been told of a node */
    size_t n_pins;
    bool idle; /* is in the list of idle ones */
    struct view *prev, *next;
    UT_hash_handle by_key, by_slot;
};

/* Called without a lock when nothing refers to a view any more: frees what `meld` and `model` hold. */
typedef void views_release(void *arg, struct view *view);
/* Called with the lock held when there are too many idle views: to call views_take_idle, from a thread of the
 * daemon's own. */
typedef void views_crowded(void *arg);

struct views;

/* Each call gets its own argument. NULL if memory ran out. */
struct views *views_new(size_t max_idle, views_release *release, void *release_arg, views_crowded *crowded,
                        void *crowded_arg);
/* Whatever the kernel still knows and whoever still pins. */
void views_free(struct views *views);

/* Node ids: 1 is the mount's root. A view has fewer than 2^24 nodes. */
#define VIEWS_ROOT_ID 1
#define VIEWS_MAX_NODES ((size_t)1 << 24)
uint64_t view_id(const struct view *view, size_t node);
uint64_t views_slot(uint64_t id); /* 0: the root's */
size_t views_node(uint64_t id);

/* Takes over `view`, made by calloc with strings from malloc; a string that is NULL is -ENOMEM (target may
 * be). *out: it, pinned, or the one that has its key already, for which it is released. 0 or -ENOMEM. */
int views_add(struct views *views, struct view *view, struct view **out);
struct view *views_find(struct views *views, const char *key); /* pinned; NULL if there is none */
struct view *views_get(struct views *views, uint64_t slot);    /* the same */
void views_put(struct views *views, struct view *view);        /* NULL is fine */

void views_known(struct views *views, struct view *view); /* pinned; the kernel is told of one of its nodes */
void views_forget(struct views *views, uint64_t slot, uint64_t n);

/* Directory entries: to be taken from the kernel. */
struct entry {
    uint64_t parent;
    char *name;
};
struct entry_list {
    size_t n;
    struct entry *entries;
};
/* Zero-initialised is empty. 0 or -ENOMEM. */
int entry_list_add(struct entry_list *list, uint64_t parent, const char *name);
void entry_list_fini(struct entry_list *list);

/* The oldest idle ones, as many as are above the limit; they are not named again until they are used. */
void views_take_idle(struct views *views, struct entry_list *out);
/* Those that directory `parent` leads to, but for pinned ones. 0 or -ENOMEM. */
int views_entries(struct views *views, uint64_t parent, struct entry_list *out);

struct views_count {
    size_t all, idle, variants, links;
};
struct views_count views_count(struct views *views);

#endif
