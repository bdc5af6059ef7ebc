/* README.md of the result: a model card whose front matter the hub understands.
 *
 * Models stand there by hub name or last path component, never by a local path.
 */
#ifndef CARD_H
#define CARD_H

#include "plan.h"

/* malloc'd text, or NULL if memory ran out. title: of the model. */
char *card_render(const struct plan *plan, const char *title);

#endif
