/* Layers found in tensor names: `model.layers.12.mlp.up_proj.weight` is layer 12 of the stack
 * `model.layers.`.
 *
 * No table of architectures: a stack of layers is a numbered component whose count the model's config states
 * (num_hidden_layers and its kin, in config.json or one of its *_config objects; a vision tower's in a vision
 * config, a decoder's preferably by a key that says so). Where two stacks are counted by the same number, as
 * a tower's blocks and the layers of its projector can be, the one of more tensors is meant. Where the config
 * states none that fits, the stack with the most numbers is taken.
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

/* The number in config that states how many layers the stack `prefix` of `count` layers has; NULL if none
 * does. */
cJSON *layers_config(cJSON *config, const char *prefix, uint64_t count);

/* May the object `section` of a config (NULL: the whole) be about the stack `prefix`? Not if one of the two
 * is a vision or audio tower, an encoder or decoder, and the other is another one. */
bool layers_section_fits(const char *section, const char *prefix);

#endif
