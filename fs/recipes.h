/* The merge files that a mount serves, one or a folder of them, each with its generations.
 *
 * Lookups come from any thread. Planning and changing over is one thread's work at a time: who mounts, then
 * the keeper. A file that is wrong leaves what was planned before; one that is gone, its last generation
 * until it is changed over. No lock is held while a recipe is planned.
 */
#ifndef RECIPES_H
#define RECIPES_H

#include <stdio.h>
#include <time.h>

#include "generation.h"
#include "log.h"
#include "views.h"

struct recipes;

/* path: absolute, of a merge file or of a folder, whose *.yml and *.yaml are recipes by their names without
 * it; hidden ones and names with control characters are none. planner: borrowed. NULL if memory ran out. */
struct recipes *recipes_new(const struct planner *planner, const char *path, bool folder);
/* No view may be left. */
void recipes_free(struct recipes *recipes);
bool recipes_folder(const struct recipes *recipes);
const char *recipes_path(const struct recipes *recipes);
const struct planner *recipes_planner(const struct recipes *recipes);

struct recipes_hooks {
    /* What is to be said of one that was planned; `code` as meld_open's. */
    void (*tell)(void *arg, const char *path, const struct report *report, int code);
    /* May a plan be used that has just been made? Refusing fills err. NULL: any. */
    int (*check)(void *arg, struct err *err);
    bool (*stopped)(void *arg); /* nobody wants the rest; NULL: never */
    void *arg;
};

/* Plan what is new or has changed since; all: whatever the files say (sources may have changed). What comes
 * of it waits to be changed over to. Not in two threads at once. 0 or -errno, with err, where the folder
 * cannot be read; -ECANCELED if it was stopped. */
int recipes_scan(struct recipes *recipes, bool all, const struct recipes_hooks *hooks, struct err *err);

/* ---- changing over, by the same thread ---- */

struct change {
    struct recipe *recipe;
    const char *name;        /* of the recipe's directory; "" if it is the mount's */
    struct generation *from; /* NULL: the name is new */
    struct generation *to;   /* NULL: the name goes */
};
/* What waits; *list is malloc'd, valid until the next scan. Number of changes, or -ENOMEM. */
ssize_t recipes_waiting(struct recipes *recipes, struct change **list);
/* From now on lookups say that the name may pass. */
void recipes_prepare(struct recipes *recipes, const struct change *change);
/* view: of `to`, pinned, taken over; NULL if the name goes. *old: the view it replaces, to be put. false: not
 * yet, for weights of the old generation were used in the last `rest_ms`; the name may stay, and view is the
 * caller's. */
bool recipes_commit(struct recipes *recipes, const struct change *change, int64_t rest_ms, struct view *view,
                    struct view **old);

/* ---- from any thread ---- */

struct standing {
    uint64_t slot; /* of the view that the name leads to */
    bool passing;  /* the kernel is not to remember it */
};
/* name "" where the mount has one recipe. 0 or -ENOENT. */
int recipes_find(struct recipes *recipes, const char *name, struct standing *standing);
/* The generation of that fingerprint, held; NULL: nobody has it any more. */
struct generation *recipes_generation(struct recipes *recipes, const struct recipe *recipe,
                                      uint64_t fingerprint);
/* One holder less. */
void recipes_let_go(struct recipes *recipes, struct generation *generation);
const char *recipe_name(const struct recipe *recipe); /* "" where the mount has one */
/* Where its file is, malloc'd; NULL if memory ran out. */
char *recipes_path_of(struct recipes *recipes, const struct recipe *recipe);

/* The names that lead somewhere, sorted. 0 or -ENOMEM. */
struct recipe_name {
    char *name;
    uint64_t slot, ino; /* of its view, and of that one's folder */
};
struct recipe_names {
    size_t n;
    struct recipe_name *list;
};
int recipes_names(struct recipes *recipes, struct recipe_names *out);
void recipe_names_fini(struct recipe_names *names);
struct timespec recipes_changed(struct recipes *recipes); /* when names last came or went */

/* For status: `key value` lines of the mount, and in a folder a section for each recipe. */
void recipes_describe(struct recipes *recipes, FILE *out);

#endif
