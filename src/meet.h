/* Inputs in different layouts: an input whose tensors are named or packed unlike those of the donor of config
 * is seen as if they were like them.
 *
 * transformers 5 keeps the experts of a layer in two packed tensors, where checkpoints have three a expert,
 * and has moved the parts of multimodal models; both layouts are met with, since some tools write the new
 * one. This is the one place that knows names of tensors by heart, and only to make inputs meet: what it does
 * not know stays as it is.
 */
#ifndef MEET_H
#define MEET_H

#include "inputs.h"

/* `model` in the layout of `donor`; *out is the model itself where nothing differs. Layers and experts that
 * the donor lacks follow those it has. Experts that should meet and cannot are an error, for what is left
 * apart would be served twice, from one model each: some are missing or unlike the others, or there are more
 * in a pack than the donor has. 0, -EINVAL with err, or -ENOMEM. */
int input_meet(struct arena *arena, struct input_model *model, const struct input_model *donor,
               struct input_model **out, struct err *err);

enum met_kind { MET_SAME, MET_PART, MET_PACK };

/* How a tensor of the model that met comes from those of the model as it is. */
struct met {
    const char *name;
    enum met_kind kind;
    size_t n_from;
    const char *const *from; /* the tensor; the pack it is a part of; the parts of the pack, in order */
    unsigned part, n_parts;  /* of an expert */
    uint64_t expert;         /* MET_PART */
};

/* As input_find. */
int met_find(struct arena *arena, const struct input_model *of, const struct met *met,
             struct input_tensor *tensor);

#endif
