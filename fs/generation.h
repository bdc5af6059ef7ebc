/* One plan of a recipe as it is served: the model, its named documents, and the tree of files of each.
 *
 * Immutable but for its counter and the note of when weights were read last. Who makes one holds it.
 */
#ifndef GENERATION_H
#define GENERATION_H

#include <stdatomic.h>

#include "meld.h"
#include "tree.h"

/* How recipes are planned; the same at every reload. */
struct planner {
    struct meld_engine *engine;
    const char *cwd;    /* absolute: where relative model paths are sought first */
    bool yaml_dir_only; /* nowhere but beside the merge file */
    bool strict;
    uint64_t seed;
    const char *const *set; /* n_set KEY=VALUE */
    size_t n_set;
};

struct generation;
struct recipe;

struct served {
    struct generation *generation;
    const char *document; /* its name; NULL: the result */
    struct meld *meld;
    struct tree *tree;
};

struct generation {
    struct recipe *recipe;
    uint64_t number; /* never given twice within a mount */
    size_t n_models; /* the result, then the named documents */
    struct served *models;
    atomic_uint n_reading;    /* weights: requests under way */
    atomic_int_fast64_t used; /* weights: when last opened or read, in ms of the monotonic clock; 0: never */
    atomic_size_t n_refs;
    struct generation *next; /* its recipe's list, by recipes' lock */
};

/* What meld_open says goes to report; *out is held. 0 or -errno. */
int generation_new(const struct planner *planner, const char *path, uint64_t number, struct generation **out,
                   struct report *report);
struct generation *generation_hold(struct generation *generation);
/* false unless somebody holds it: it may be on its way out. */
bool generation_hold_if_held(struct generation *generation);
/* true: nobody holds it any more, the caller frees it. */
bool generation_let_go(struct generation *generation);
void generation_free(struct generation *generation); /* NULL is fine */

uint64_t generation_fingerprint(const struct generation *generation);
/* The document of that name; NULL: there is none. */
const struct served *generation_document(const struct generation *generation, const char *name);

/* A weight file of it is opened, or a read begins (+1) or ends (-1). */
void generation_use(struct generation *generation, int reading);
/* Nobody has used a weight file for so long. */
bool generation_rests(const struct generation *generation, int64_t ms);

#endif
