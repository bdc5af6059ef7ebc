/* What a merge reads from: a model on disk, or a stage that another document computes, seen alike.
 *
 * Made while planning; immutable afterwards.
 */
#ifndef INPUTS_H
#define INPUTS_H

#include "layers.h"
#include "model.h"
#include "plan.h"

struct input_model {
    const char *name;         /* to show */
    const struct model *disk; /* one of the two */
    const struct plan *stage;
    const cJSON *config;
    size_t n_names;
    const char **names; /* of its tensors, sorted by strcmp */
    struct layers layers;
    const char *embedding; /* the input embedding that a tied head shares, or NULL */
};

/* One tensor of it. */
struct view {
    const char *name;
    enum dtype dtype;
    unsigned ndim;
    uint64_t n;
    const uint64_t *shape;
    const struct feed *feed;
    const char *file; /* NULL: computed */
};

/* Everything but ->name and the model or stage is filled in here. 0 or -ENOMEM. */
int input_init(struct arena *arena, struct input_model *input);

/* 1: found; 0: there is no such tensor; -ENOMEM. */
int input_view(struct arena *arena, const struct input_model *input, const char *name, struct view *view);

/* Index of the first name that is not below `prefix`. */
size_t input_lower_bound(const struct input_model *input, const char *prefix);

/* Is this the output head, which some models tie to the embedding? */
bool is_head(const char *name);

/* With a head it lacks read from its embedding. Otherwise as input_view. */
int input_view_tied(struct arena *arena, const struct input_model *input, const char *name,
                    struct view *view);

#endif
