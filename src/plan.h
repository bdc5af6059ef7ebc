/* The plan: every output tensor with its inputs and resolved parameters. Immutable after plan_build.
 *
 * Built from headers alone. No table of architectures: tensors are those of the donor of config, layers the
 * numbered component of their names whose count the config states.
 */
#ifndef PLAN_H
#define PLAN_H

#include "compute.h"
#include "config.h"
#include "model.h"

/* One input of an output tensor, to explain it. */
struct plan_input {
    const char *model;  /* name to show */
    const char *tensor; /* its name there, in the layout of the result */
    const char *file;   /* path, or NULL: computed by a stage */
    enum dtype dtype;
    const char *shown; /* its name there, or what it is made of */
    const char *asked; /* what it is called for parameters: `tensor`, but a tied head is a head */
    int model_number;  /* of the document's models (document_model); -1: none */
};

/* A model that an output tensor is made without. */
struct plan_absent {
    const char *model; /* name to show */
    bool dropped;      /* it has the tensor, and the note says why it is not used; false: it has none */
};

struct plan_tensor {
    struct st_tensor st; /* name, dtype, shape, len; begin is the layout's */
    struct recipe recipe;
    struct plan_input *inputs; /* [recipe.n_inputs] */
    size_t n_absent;
    struct plan_absent *absent;
    double t;         /* position in its slice, for gradients */
    bool by_values;   /* parameter values say how it is made, by recipe.merge.method: other ones may say
                         otherwise */
    const char *note; /* why it is not simply merged, or NULL */
};

/* A model as the plan sees it: opened from disk, or a stage computed from others. */
struct plan {
    const struct document *doc;
    size_t n_tensors;
    struct plan_tensor *tensors; /* sorted by name; owned */
    size_t n_models;
    struct model **models;     /* distinct, in order of first mention; owned by the set */
    const struct model *donor; /* of config, tokenizer and side files */
    struct witness *witnesses; /* [doc->n_models] */
    cJSON *config;             /* config.json of the result; owned */
    double cost;               /* reads of models for an element: a stage is computed anew for each reader */
    unsigned depth;            /* of stages below */
    enum dtype dtype;          /* of most bytes served: what config.json says */
    struct arena arena;
};

/* All plans of a file: stages, then the result. Owns models. */
struct plan_set {
    size_t n_models;
    struct model **models;
    size_t n_plans;
    struct plan **plans; /* the last is the result */
};

/* seed: of random methods. Problems go to report, all of them. 0, or -EINVAL if there were errors, or
 * -ENOMEM. */
int plan_build(const struct config *config, const struct model_search *search, uint64_t seed,
               struct plan_set **out, struct report *report);
void plan_free(struct plan_set *set);

#endif
