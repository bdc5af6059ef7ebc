/* The plan as text for people: what each tensor is made of. */
#ifndef EXPLAIN_H
#define EXPLAIN_H

#include "plan.h"

/* One tensor (by name), or all with tensor NULL. malloc'd; NULL with -ENOENT (similar names are suggested) or
 * -ENOMEM in *status. */
char *explain_render(const struct plan *plan, const char *tensor, int *status, struct err *err);

#endif
