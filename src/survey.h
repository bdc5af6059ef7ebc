/* What a merge does, in numbers: one sweep over every tensor, from which inspect.c and survey_json.c tell.
 *
 * The elements compared are those stored, not those rounded to the working type; what is
 * served is compared as float32. A
 * *change* is the difference from the tensor's reference input: the base where the method has one; else the
 * document's base_model, if that is an input; else the first. Sums are in float64 over fixed blocks, folded
 * in a fixed order, so they depend neither on threads nor on the CPU. Memory does not depend on the size of
 * tensors.
 */
#ifndef SURVEY_H
#define SURVEY_H

#include "meld.h"
#include "plan.h"

/* Of one input of a tensor, or of the result. */
struct survey_sums {
    uint64_t n_nan, n_infinite;
    double square; /* of the elements */
    double change; /* squared length of the change */
    uint64_t n_changed;
    /* Of the delta as the method sees it, rounded to the working type, where the method leaves elements out
     * (method->kept): elements that are not 0 and squared length, of all and of what it uses. */
    uint64_t n_whole, n_kept;
    double whole, kept;
};

/* Of one tensor. */
struct survey_numbers {
    struct survey_sums result, *inputs;
    double *dots; /* of the inputs' changes: survey_dot */
    /* Elements that two or more inputs change; and those of them that are not all changed the same way. */
    uint64_t n_shared, n_conflict;
    /* Squared length of the change that the merge makes without any rounding to the types asked for; its
     * product with the change served. */
    double exact, served;
};

struct survey_tensor {
    const struct plan_tensor *tensor;
    int reference;  /* index of an input; -1: no input stands for the others (copies, casts, integers) */
    bool floats;    /* elements are numbers that kernels load; else nothing is counted */
    bool lossless;  /* float32 or float64 throughout: no rounding to ask about */
    bool has_exact; /* exact and served are known */
    bool chooses;   /* they are not, for without rounding other elements would be chosen */
    bool failed;    /* it could not be read or computed: reported */
    const unsigned *models; /* [n_inputs] index into survey->models */
    struct survey_numbers numbers;
};

struct survey_model {
    const char *name; /* to show; two models may share it */
};

struct survey {
    const struct plan *plan;
    size_t n;
    struct survey_tensor *tensors; /* [n], as the plan's */
    size_t n_models;
    struct survey_model *models; /* those that are inputs, in order of first use */
    struct arena arena;
};

struct survey_how {
    unsigned n_threads;
    struct stat_store *store; /* where statistics are found and kept; NULL: nowhere */
    meld_progress *progress;  /* or NULL */
    void *arg;
};

/* Read everything once, with workers of its own. Nothing may be served from the same plans meanwhile. What
 * cannot be read goes to report, once a tensor. 0; -ECANCELED (progress said so); -ENOMEM. */
int survey_run(const struct plan_set *plans, const struct survey_how *how, struct report *report,
               struct survey **out);
void survey_free(struct survey *survey); /* NULL is fine */

double survey_dot(const struct survey_numbers *numbers, unsigned i, unsigned j); /* i != j */

/* Share of the merge's change that is left in what is served, at most 1: rounding away from the reference
 * makes changes larger, and nothing is lost then. NAN: not known. */
double survey_survival(const struct survey_tensor *tensor);

#endif
