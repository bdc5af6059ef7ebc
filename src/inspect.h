/* What only reading the tensors can tell: NaN, donors that change nothing, changes that rounding loses.
 *
 * Reads everything once, with workers of its own. Nothing may be served from the same plans meanwhile.
 */
#ifndef INSPECT_H
#define INSPECT_H

#include "meld.h"
#include "plan.h"
#include "survey.h"

/* Integers that are to be copied must be equal in all inputs. Where there are few of them, in all plans
 * together, say so now and not at the first read. 0, -EINVAL (reported) or -ENOMEM. */
int inspect_integers(const struct plan_set *plans, struct report *report);

/* As meld_inspect. */
int inspect_tensors(const struct plan_set *plans, const struct survey_how *how, struct report *report,
                    char **text);

#endif
