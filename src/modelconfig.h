/* config.json of the result: the donor's, made to match what is served. */
#ifndef MODELCONFIG_H
#define MODELCONFIG_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dtype.h"

/* Where a layer of the result comes from: layer `layer` of the `count` that `config` describes. */
struct layer_origin {
    const cJSON *config;
    uint64_t layer, count;
};

/* State `n` layers of the stack `prefix` in place of `count`, and let every per-layer list (an array with an
 * entry a layer: layer_types) follow its layers. False if memory ran out. */
bool modelconfig_layers(cJSON *config, const char *prefix, uint64_t count, const struct layer_origin *origins,
                        size_t n);

/* State the element type (dtype, or torch_dtype where the donor says that), in nested configs too. */
bool modelconfig_dtype(cJSON *config, enum dtype dtype);

/* tie_word_embeddings becomes false wherever it is true. */
bool modelconfig_untie(cJSON *config);

/* What was quantised is no longer: without quantization_config, of the whole and of parts. */
void modelconfig_unquantize(cJSON *config);

/* vocab_size becomes `rows` wherever it is `old`. */
void modelconfig_vocab(cJSON *config, uint64_t old, uint64_t rows);

#endif
