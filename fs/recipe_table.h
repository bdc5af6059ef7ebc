/* What recipes.c and recipes_scan.c share. */
#ifndef RECIPE_TABLE_H
#define RECIPE_TABLE_H

#include <pthread.h>
#include <sys/types.h>

#include "recipes.h"

#define N_RECENT 2 /* generations that `generation=` finds though nobody has them open */
#define N_HELD (N_RECENT + 2)

/* What a file was when it was planned. Zeroed: not known, plan again. */
struct stamp {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime, ctime;
};

struct recipe {
    char *name;
    /* The scanning thread's alone. */
    struct stamp stamp;
    bool seen;
    /* The lock guards what follows; path only the scanning thread changes. */
    char *path;
    struct generation *current, *waiting; /* held */
    struct view *view;                    /* of current; pinned */
    bool gone;                            /* the file is */
    bool passing;
    char *error;                         /* why the file as it is now is not served; NULL: it is */
    struct generation *recent[N_RECENT]; /* held; the last one first */
    struct generation *generations;      /* all that somebody holds */
    UT_hash_handle hh;
};

struct recipes {
    const struct planner *planner;
    char *path;
    bool folder;
    uint64_t last_number; /* the scanning thread's */
    pthread_mutex_t lock; /* guards what follows, and what it says of recipes */
    struct recipe *table;
    struct timespec changed;
    char *error; /* why the folder cannot be read; NULL: it can */
};

void recipe_free(struct recipe *recipe); /* NULL is fine */
/* With the lock held: it goes if its file and its last generation are gone. */
void recipe_reap(struct recipes *recipes, struct recipe *recipe);

#endif
