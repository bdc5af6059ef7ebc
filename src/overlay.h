/* A variant's recipes: those of some tensors of the plan with changed parameters, made when they are read.
 *
 * Of the changes that concern a parameter of an input and a tensor the most specific one decides (variant.h).
 * What does not change is shared: inputs, and through their keys all statistics that do not depend on what
 * does.
 */
#ifndef OVERLAY_H
#define OVERLAY_H

#include "keeper.h"
#include "plan.h"
#include "stats.h"
#include "variant.h"

struct overlay {
    struct keeper keeper; /* first member; holds the model, and the slots' statistics */
    size_t n;
    struct recipe *recipes; /* [n] */
    struct keeper *owner;   /* of plan and variant */
    struct stats *stats;
    struct stat_slot *slots; /* [n] */
    double *values;
};

/* Of tensors[0..n). One owner is the caller's; owner: of what they point into, held. 0 or -ENOMEM. */
int overlay_new(const struct plan_tensor *const *tensors, size_t n, const struct variant *variant,
                struct stats *stats, struct keeper *owner, struct overlay **out);

/* Are the variant's values right for every tensor of the plan? 0; -EINVAL with the tensor and the reason;
 * -ENOMEM. */
int overlay_check(const struct plan *plan, const struct variant *variant, struct err *err);

#endif
