/* Models that are open, to be shared by all plans that read them: each header is parsed once, each file has
 * one descriptor, however many recipes there are. Thread-safe.
 */
#ifndef MODELS_H
#define MODELS_H

#include "model.h"

struct models;

struct models *models_new(void);         /* NULL if memory runs out */
void models_free(struct models *models); /* plans keep what they have. NULL is fine */

/* As model_open, but a model that is open already and whose files are still the same is given to one owner
 * more. models: NULL opens anew. */
int models_open(struct models *models, const char *dir, const char *name, bool hub, struct model **out,
                struct err *err);
/* Let go of those that no plan has any more: after each plan that was made or freed. Waits for nobody:
 * whoever has a model opened meanwhile makes a plan, and sweeps then. NULL is fine. */
void models_sweep(struct models *models);

#endif
