#include "modelconfig.h"

#include <string.h>

#include "jsontree.h"
#include "layers.h"

static bool replace(cJSON *object, const char *key, cJSON *item)
{
    if (item && cJSON_ReplaceItemInObjectCaseSensitive(object, key, item))
        return true;
    cJSON_Delete(item);
    return false;
}

/* The list named `key` of an origin's config, where it has an entry for each of its layers. */
static const cJSON *list_of(const struct layer_origin *origin, const char *section, const char *key)
{
    const cJSON *object =
        section ? cJSON_GetObjectItemCaseSensitive(origin->config, section) : origin->config;
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(object, key);

    return cJSON_IsArray(list) && (uint64_t)cJSON_GetArraySize(list) == origin->count ? list : NULL;
}

/* The list that follows the layers; an origin that has no such list lends the donor's entry, as far as it
 * goes. */
static cJSON *follow(const cJSON *old, const char *section, const struct layer_origin *origins, size_t n)
{
    int size = cJSON_GetArraySize(old);
    cJSON *list = cJSON_CreateArray();

    for (size_t i = 0; list && i < n; i++) {
        const cJSON *from = list_of(&origins[i], section, old->string);
        int index = (int)origins[i].layer;
        cJSON *item;

        if (!from)
            index %= size;
        item = cJSON_Duplicate(cJSON_GetArrayItem(from ? from : old, index), true);
        if (!item || !cJSON_AddItemToArray(list, item)) {
            cJSON_Delete(item);
            cJSON_Delete(list);
            return NULL;
        }
    }
    return list;
}

static bool lists_follow(cJSON *object, const char *section, uint64_t count,
                         const struct layer_origin *origins, size_t n)
{
    cJSON *item = object ? object->child : NULL, *next;

    for (; item; item = next) {
        next = item->next;
        /* A list of another meaning can have as many entries by chance (architectures of a one-layer model).
         */
        if (!cJSON_IsArray(item) || (uint64_t)cJSON_GetArraySize(item) != count || count == 0 ||
            !(strstr(item->string, "layer") || strstr(item->string, "block") || strstr(item->string, "rope")))
            continue;
        if (!replace(object, item->string, follow(item, section, origins, n)))
            return false;
    }
    return true;
}

bool modelconfig_layers(cJSON *config, const char *prefix, uint64_t count, const struct layer_origin *origins,
                        size_t n)
{
    cJSON *stated = layers_config(config, prefix, count), *item;

    if (stated)
        jsontree_set_number(stated, (double)n);
    if (!lists_follow(config, NULL, count, origins, n))
        return false;
    cJSON_ArrayForEach(item, config)
    {
        if (cJSON_IsObject(item) && layers_section_fits(item->string, prefix) &&
            !lists_follow(item, item->string, count, origins, n))
            return false;
    }
    return true;
}

static bool set_string(cJSON *object, const char *key, const char *value)
{
    return !cJSON_HasObjectItem(object, key) || replace(object, key, cJSON_CreateString(value));
}

bool modelconfig_dtype(cJSON *config, enum dtype dtype)
{
    const char *name = dtype_torch_name(dtype);
    cJSON *item;

    if (!cJSON_HasObjectItem(config, "dtype") && !cJSON_HasObjectItem(config, "torch_dtype") &&
        !cJSON_AddStringToObject(config, "torch_dtype", name))
        return false;
    if (!set_string(config, "dtype", name) || !set_string(config, "torch_dtype", name))
        return false;
    cJSON_ArrayForEach(item, config)
    {
        if (cJSON_IsObject(item) &&
            (!set_string(item, "dtype", name) || !set_string(item, "torch_dtype", name)))
            return false;
    }
    return true;
}

static bool untie(cJSON *object)
{
    const cJSON *tied = cJSON_GetObjectItemCaseSensitive(object, "tie_word_embeddings");

    return !cJSON_IsTrue(tied) || replace(object, "tie_word_embeddings", cJSON_CreateFalse());
}

bool modelconfig_untie(cJSON *config)
{
    cJSON *item;

    /* Absent means true in transformers' Gemma and T5, false elsewhere: say what is so. */
    if (!cJSON_HasObjectItem(config, "tie_word_embeddings") &&
        !cJSON_AddFalseToObject(config, "tie_word_embeddings"))
        return false;
    cJSON_ArrayForEach(item, config)
    {
        if (cJSON_IsObject(item) && !untie(item))
            return false;
    }
    return untie(config);
}

void modelconfig_vocab(cJSON *config, uint64_t old, uint64_t rows)
{
    cJSON *item, *size = cJSON_GetObjectItemCaseSensitive(config, "vocab_size");

    if (cJSON_IsNumber(size) && size->valuedouble == (double)old)
        jsontree_set_number(size, (double)rows);
    cJSON_ArrayForEach(item, config)
    {
        size = cJSON_GetObjectItemCaseSensitive(item, "vocab_size");
        if (cJSON_IsObject(item) && cJSON_IsNumber(size) && size->valuedouble == (double)old)
            jsontree_set_number(size, (double)rows);
    }
}

void modelconfig_unquantize(cJSON *config)
{
    static const char *const keys[] = {"quantization_config", "compression_config"};
    cJSON *item;

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        cJSON_DeleteItemFromObjectCaseSensitive(config, keys[i]);
        cJSON_ArrayForEach(item, config)
        {
            if (cJSON_IsObject(item))
                cJSON_DeleteItemFromObjectCaseSensitive(item, keys[i]);
        }
    }
}
