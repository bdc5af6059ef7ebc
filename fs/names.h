/* What a name means in a directory of the mount: a file, a named document, `generation=FINGERPRINT`, a
 * variant's KEY=VALUE in its canonical place, or a link from another spelling to it. Thread-safe.
 */
#ifndef NAMES_H
#define NAMES_H

#include "recipes.h"
#include "views.h"

struct names {
    struct recipes *recipes;
    struct views *views;
};

/* Both are to be freed with views_free, then recipes_free, by the caller. 0 or -ENOMEM. */
int names_init(struct names *names, struct recipes *recipes, size_t max_idle, views_crowded *crowded,
               void *arg);

/* A node. view NULL: the root of a folder of recipes. */
struct found {
    struct view *view; /* pinned: views_put */
    size_t node;
    bool passing; /* the kernel is not to remember the name */
};

/* 0, or -ENOENT. */
int names_get(struct names *names, uint64_t id, struct found *found);
/* One component below `at`. 0; -ENOENT, with err (empty if there is nothing to say); -ENOTDIR; -ENOMEM;
 * -EAGAIN: the plan of the model that `at` is of was dropped, and is to be made first (meld_plan). */
int names_step(struct names *names, const struct found *at, const char *name, struct found *found,
               struct err *err);
/* A path from the mount's root, links followed. The same, but that -EAGAIN fills in where it came up. */
int names_walk(struct names *names, const char *path, struct found *found, struct err *err);

/* The view of a generation under the name of its recipe, pinned. NULL if memory ran out. */
struct view *names_serve(struct names *names, struct generation *generation, const char *name);

/* Of a link or a view's node: */
bool found_is_folder(const struct found *found);
const struct tree_node *found_node(
    const struct found *found);                       /* NULL for a link and for a folder of recipes */
uint64_t found_ino(const struct found *found);        /* st_ino */
uint64_t found_parent_ino(const struct found *found); /* st_ino of the folder above */
uint64_t found_id(const struct found *found);
const struct meld_file *found_file(const struct found *found); /* NULL: no file */

/* Its one path from the mount's root, malloc'd; "" for the root. NULL if memory ran out. */
char *found_path(const struct found *found);

#endif
