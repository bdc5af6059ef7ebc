/* Planning in progress: what plan.c, outline.c and tensor.c share while they build a plan.
 *
 * plan.c opens what a document names; outline.c walks its modules, slices and layers and names the tensors of
 * the result; tensor.c decides how one of them is made.
 */
#ifndef BUILDER_H
#define BUILDER_H

#include "inputs.h"
#include "modelconfig.h"
#include "plan.h"

/* A slice with its models opened. In `models:` the base, where not listed, is added last, with no source. */
struct slice_inputs {
    const struct module *module;
    const struct slice *slice;
    unsigned n;
    struct input_model **models;
    const struct slice_source **sources; /* NULL entry: the added base */
    int base;                            /* index, or -1 */
};

/* What the name of a module means (outline.c). */
enum module_kind {
    MODULE_WHOLE,  /* it has no name */
    MODULE_NAMED,  /* a run of components in the names of its tensors */
    MODULE_REST,   /* `default`: what no other module claims */
    MODULE_VISION, /* mergekit's names for parts of multimodal models, where they are not such runs */
    MODULE_PROJECTOR,
    MODULE_TEXT,
    MODULE_NONE,
};

/* Layers of one of the donor's stacks that slices choose. */
struct restack {
    const struct stack *stack;
    size_t n;
    struct layer_origin *origins; /* of the result's layers */
};

/* Room for the inputs of the tensor in hand. */
struct gathered {
    size_t hint; /* where its name may be among a model's: models are alike, and names come in order */
    unsigned room;
    struct input_tensor *views;
    unsigned *index;
    const char **asked;
    bool *has;
};

struct builder {
    const struct config *config;
    const struct model_search *search;
    uint64_t seed;
    struct report *report;
    size_t errors_before; /* in the report, when this document began */
    bool unsound;         /* a slice has not the inputs that the method needs */
    struct plan_set *set;
    struct arena arena; /* until plan_build returns */
    size_t n_inputs;
    struct input_model **inputs; /* every model and stage so far */

    /* of the document in hand */
    const struct document *doc;
    const struct method *method;
    struct plan *plan;
    struct input_model *donor; /* of config */
    size_t n_restacks;
    struct restack *restacks;
    enum module_kind *modules; /* [doc->n_modules] */
    bool head;                 /* the result has an output head of its own */
    uint64_t vocab_old, vocab; /* rows of the embedding before and after truncation; 0: unchanged */
    unsigned n_mismatched;
    struct gathered gathered;

    bool no_memory; /* somewhere memory ran out, and that was reported */
    size_t n_said;
    uint64_t *said; /* hashes of (message, place) */
};

/* Report a problem, but the same message for the same place only once: a wrong value would else be told for
 * every tensor. `fmt` must be a literal. */
void say(struct builder *builder, enum severity severity, struct place at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Add every tensor of the document to the plan. 0 or -ENOMEM; problems are reported. */
int outline_plan(struct builder *builder, struct slice_inputs *const *slices, size_t n_slices);

/* Add one tensor named `name`; names[i] is its name in model i of the slice, NULL if that has none. */
int tensor_plan(struct builder *builder, const struct slice_inputs *slice, const char *name,
                const char *const *names, double t);
/* Add the donor's tensor as it is, cast to the document's types. */
int tensor_plan_kept(struct builder *builder, const char *name, const char *note);

/* Warn, once each, of what is hardly meant (advice.c): weights that sum to 0, density 0, types that are too
 * small; index[i]: of input i in the slice. And of filters that match nothing, once the document's tensors
 * are planned. */
void advise_on_tensor(struct builder *builder, const struct slice_inputs *slice, const unsigned *index,
                      const struct plan_tensor *tensor);
void advise_on_filters(struct builder *builder);

#endif
