/* A merge file with a variant's values, for mergekit and for whoever wants to keep them.
 *
 * A value for all models goes to the top `parameters:` and out of every other place; one for a model into
 * each source that names it, a base that `models:` does not list being added there. A value with a filter is
 * put in front of what each of these places has. So the result is merged into the same bytes as the variant,
 * by the rule that variant.h states. Comments are lost, anchors written out, all else is kept.
 */
#ifndef RECIPE_EDIT_H
#define RECIPE_EDIT_H

#include "variant.h"

/* document: the one of config that the variant is of; the others are written as they are. malloc'd; NULL only
 * if memory runs out, which err says. */
char *recipe_edit(const struct config *config, const struct document *document, const struct variant *variant,
                  struct err *err);

#endif
