/* Layers found in tensor names: `model.layers.12.mlp.up_proj.weight` is layer 12 of the stack
 * `model.layers.`.
 *
 * No table of architectures: a stack of layers is a numbered component whose count the model's config states
 * (num_hidden_layers and its kin, in config.json or one of its *_config objects). Where the config states
 * none that fits, the stack with the most numbers is taken.
 */
#ifndef LAYERS_H
#define LAYERS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "arena.h"

struct stack {
    const char *prefix; /* up to the number, with the dot: "model.layers." */
    uint64_t count;     /* layers: 1 + the highest number */
};

struct layers {
    size_t n;
    struct stack *stacks; /* sorted by prefix */
};

/* names: n tensor names, sorted by strcmp. 0 or -ENOMEM. */
int layers_find(struct arena *arena, const char *const *names, size_t n, const cJSON *config,
                struct layers *layers);

/* If `name` belongs to a layer: its stack, number and what follows ("mlp.up_proj.weight"). */
bool layers_split(const struct layers *layers, const char *name, const struct stack **stack, uint64_t *layer,
                  const char **rest);

/* The object and key in config that state the number of layers of a stack with `count` layers; NULL if none
 * does. */
cJSON *layers_config(cJSON *config, uint64_t count);

#endif
