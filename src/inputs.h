/* What a merge reads from: a model on disk, or a stage that another document computes, seen alike.
 *
 * FP8 weights with scales are seen as what they stand for, their scales not at all. Made while planning;
 * immutable afterwards.
 */
#ifndef INPUTS_H
#define INPUTS_H

#include "layers.h"
#include "model.h"
#include "plan.h"

struct met; /* meet.h */

struct input_model {
    const char *name;         /* to show */
    const struct model *disk; /* one of the two */
    const struct plan *stage;
    const cJSON *config;
    size_t n_names;
    const char **names; /* of its tensors, sorted by strcmp */
    size_t *places;     /* [n_names] of them among the tensors of disk or stage */
    struct layers layers;
    const char *embedding; /* the input embedding that a tied head shares, or NULL */

    /* Another input in the layout of a third (meet.h): */
    const struct input_model *of;
    const struct met *met; /* [n_names], as names; NULL: it is itself */
    const struct input_model *met_with;
    struct input_model *met_as; /* what it became there */
};

/* One tensor of it. */
struct input_tensor {
    const char *name;
    const char *shown; /* where it is from, for people: its name there, or a sentence */
    enum dtype dtype;
    unsigned ndim;
    uint64_t n;
    const uint64_t *shape;
    const struct feed *feed;
    const char *file; /* NULL: computed */
};

/* Everything but ->name and the model or stage is filled in here. 0 or -ENOMEM. */
int input_init(struct arena *arena, struct input_model *input);
/* The same once names are there. */
int input_init_names(struct arena *arena, struct input_model *input);

/* 1: found; 0: there is no such tensor; -ENOMEM. Its feed lives in the arena. */
int input_find(struct arena *arena, const struct input_model *input, const char *name,
               struct input_tensor *tensor);
bool input_has(const struct input_model *input, const char *name);

/* Index of the first name that is not below `prefix`. */
size_t input_lower_bound(const struct input_model *input, const char *prefix);

/* Is this the output head, which some models tie to the embedding? */
bool is_head(const char *name);

/* Is its first dimension the vocabulary: a head (with its bias) or an input embedding? */
bool has_vocabulary(const char *name);

/* With a head it lacks read from its embedding. Otherwise as input_find. *hint: the index among names where
 * it is looked for first, and where it was found. */
int input_find_tied(struct arena *arena, const struct input_model *input, const char *name, size_t *hint,
                    struct input_tensor *tensor);

#endif
