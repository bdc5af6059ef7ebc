/* Replaced by the recipe editor. */
#include "variant.h"
char *recipe_edit(const struct config *config, const struct document *doc, const struct variant *variant,
                  struct err *err);
