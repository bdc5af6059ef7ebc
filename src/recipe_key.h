/* What a tensor is computed from, as a hash: equal for what gives the same numbers, wherever it stands. */
#ifndef RECIPE_KEY_H
#define RECIPE_KEY_H

#include "compute.h"
#include "digest.h"

/* Of the recipe's statistics: method, working type, shape, inputs with the identity of their files, and those
 * parameters that statistics depend on. Recipes with equal keys have the same ones. */
struct digest recipe_stats_key(const struct recipe *recipe);

/* Of the values that the inputs have for the method, whatever its parameters. */
struct digest recipe_inputs_key(const struct recipe *recipe);

#endif
