#include "model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "folder.h"
#include "fp8.h"
#include "json.h"
#include "jsontree.h"
#include "shard_index.h"
#include "side_files.h"
#include "sort.h"
#include "text.h"

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

enum { CONFIG_MAX = 1 << 20 };

/* config.json */

static int read_config(struct model *model, const struct folder *folder, struct err *err)
{
    char *text;
    size_t len;
    int ret;

    if (!folder_has(folder, "config.json") && folder_has(folder, "adapter_config.json"))
        return err_set(err, -ENOENT, "%s: an adapter, not a model: name it as MODEL+ADAPTER", folder->dir);
    if (!folder_has(folder, "config.json"))
        return err_set(err, -ENOENT, "%s: no config.json there: not the folder of a model", folder->dir);
    ret = folder_read(folder, "config.json", CONFIG_MAX, &text, &len, err);
    if (ret)
        return ret;
    model->config_hash = XXH64(text, len, 0);
    ret = jsontree_parse(text, len, &model->config, err);
    if (ret)
        err_prefix(err, ret, "%s/config.json", folder->dir);
    else if (!cJSON_IsObject(model->config))
        ret = err_set(err, -EINVAL, "%s/config.json: not an object", folder->dir);
    free(text);
    return ret;
}

/* FP8 under several names; whether the weights are so is seen when they are there. */
static bool may_be_fp8(const char *method)
{
    return strstr(method, "fp8") || strcmp(method, "compressed-tensors") == 0 ||
           strcmp(method, "modelopt") == 0 || strcmp(method, "quark") == 0;
}

static const char *quant_method(const cJSON *quantization)
{
    const cJSON *method = cJSON_GetObjectItemCaseSensitive(quantization, "quant_method");

    return cJSON_IsString(method) ? method->valuestring : "(not named)";
}

static int refuse_quantized(const struct model *model, const cJSON *quantization, struct err *err)
{
    const char *text = quant_method(quantization);
    char shown[JSON_SHOWN];

    json_shown(text, strlen(text), shown);
    return err_set(
        err, -EINVAL,
        "%s/config.json: quantization_config.quant_method is %s: quantised weights cannot be merged; "
        "use the unquantised original",
        model->dir, shown);
}

static bool is_quantization(const cJSON *found)
{
    return found && !cJSON_IsNull(found) && !(cJSON_IsObject(found) && cJSON_GetArraySize(found) == 0);
}

/* Of the whole, or of a part (text_config and its kin); NULL: there is none. */
static const cJSON *find_quantization(const cJSON *config)
{
    const cJSON *found = cJSON_GetObjectItemCaseSensitive(config, "quantization_config"), *part;

    if (is_quantization(found))
        return found;
    cJSON_ArrayForEach(part, config)
    {
        found = cJSON_GetObjectItemCaseSensitive(part, "quantization_config");
        if (cJSON_IsObject(part) && is_quantization(found))
            return found;
    }
    return NULL;
}

static void read_scale_block(struct model *model, const cJSON *quantization)
{
    const cJSON *size = cJSON_GetObjectItemCaseSensitive(quantization, "weight_block_size");

    for (int i = 0; i < 2; i++) {
        const cJSON *item = cJSON_GetArrayItem(size, i);
        model->scale_block[i] = 128; /* what everybody uses */
        if (cJSON_IsNumber(item) && item->valuedouble >= 1 && item->valuedouble <= 1 << 30)
            model->scale_block[i] = (uint64_t)item->valuedouble;
    }
}

static int check_quantization(struct model *model, struct err *err)
{
    const cJSON *found = find_quantization(model->config);

    read_scale_block(model, found);
    return found && !may_be_fp8(quant_method(found)) ? refuse_quantized(model, found, err) : 0;
}

/* Weights */

/* *list is malloc'd. */
static int read_header(struct arena *names, const struct source *source, struct st_tensor **list, size_t *n,
                       uint64_t *data, struct err *err)
{
    unsigned char word[8] = {0};
    uint64_t len = 0;
    char *json;
    int ret = 0;

    if (source->size >= sizeof(word))
        ret = source_read(source, 0, sizeof(word), word, err);
    if (ret)
        return ret;
    ret = st_header_len(word, source->size, &len, err);
    if (ret)
        return err_prefix(err, ret, "%s", source->path);
    json = malloc(len + 1);
    if (!json)
        return err_set(err, -ENOMEM, "%s: out of memory", source->path);
    ret = source_read(source, sizeof(word), len, json, err);
    if (ret == 0) {
        *data = sizeof(word) + len;
        ret = st_parse(names, json, len, source->size - *data, list, n, err);
        if (ret)
            err_prefix(err, ret, "%s", source->path);
    }
    free(json);
    return ret;
}

static int add_tensors(struct model *model, const struct source *source, const struct st_tensor *list,
                       size_t n, uint64_t data)
{
    struct model_tensor *grown;

    if (n == 0)
        return 0;
    grown = reallocarray(model->tensors, model->n_tensors + n, sizeof(*grown));
    if (!grown)
        return -ENOMEM;
    model->tensors = grown;
    for (size_t i = 0; i < n; i++) {
        struct model_tensor *tensor = &grown[model->n_tensors++];
        tensor->st = list[i];
        file_feed_init(&tensor->feed, source, data + list[i].begin, list[i].dtype, list[i].n);
    }
    return 0;
}

static int add_shard(struct model *model, const struct folder *folder, const char *name, struct err *err)
{
    struct source **grown = reallocarray(model->sources, model->n_sources + 1, sizeof(*grown));
    struct source *source;
    struct st_tensor *list = NULL;
    uint64_t data = 0;
    size_t n = 0;
    int ret;

    if (!grown)
        return err_set(err, -ENOMEM, "%s: out of memory", folder->dir);
    model->sources = grown;
    ret = folder_open(folder, name, &source, err);
    if (ret)
        return ret;
    model->sources[model->n_sources++] = source;
    ret = read_header(&model->arena, source, &list, &n, &data, err);
    if (ret == 0 && add_tensors(model, source, list, n, data))
        ret = err_set(err, -ENOMEM, "%s: out of memory", source->path);
    free(list);
    return ret;
}

static int compare_name(const void *a, const void *b)
{
    const struct model_tensor *x = a, *y = b;

    return strcmp(x->st.name, y->st.name);
}

static int sort_tensors(struct model *model, struct err *err)
{
    sort_list(model->tensors, model->n_tensors, sizeof(*model->tensors), compare_name);
    for (size_t i = 1; i < model->n_tensors; i++) {
        const struct model_tensor *tensor = &model->tensors[i];
        if (strcmp(tensor[-1].st.name, tensor->st.name) == 0)
            return err_set(err, -EINVAL, "%s: tensor \"%.200s\" is there already, in %s",
                           tensor->feed.source->path, tensor->st.name, tensor[-1].feed.source->path);
    }
    return 0;
}

static int check_entry(const struct model *model, const struct shard_entry *entry,
                       const struct model_tensor *tensor, struct err *err)
{
    int order = !entry ? 1 : !tensor ? -1 : strcmp(entry->tensor, tensor->st.name);

    if (order > 0)
        return err_set(err, -EINVAL, "%s/%s does not list tensor \"%.200s\", which is in %s", model->dir,
                       index_name, tensor->st.name, tensor->feed.source->path);
    if (order < 0 || tensor->feed.source != model->sources[entry->shard])
        return err_set(err, -EINVAL, "%s/%s says that tensor \"%.200s\" is in %s; it is not", model->dir,
                       index_name, entry->tensor, entry->file);
    return 0;
}

/* Both are sorted by name. model->sources are the files of the index, in its order. */
static int check_agreement(const struct model *model, const struct shard_index *index, struct err *err)
{
    size_t n = index->n > model->n_tensors ? index->n : model->n_tensors;
    int ret = 0;

    for (size_t i = 0; ret == 0 && i < n; i++)
        ret = check_entry(model, i < index->n ? &index->entries[i] : NULL,
                          i < model->n_tensors ? &model->tensors[i] : NULL, err);
    return ret;
}

static int read_sharded(struct model *model, const struct folder *folder, struct err *err)
{
    struct arena arena = {0};
    struct shard_index index;
    char *text;
    size_t len;
    int ret = folder_read(folder, index_name, ST_HEADER_MAX, &text, &len, err);

    if (ret)
        return ret;
    ret = shard_index_parse(&arena, text, len, &index, err);
    free(text);
    if (ret)
        err_prefix(err, ret, "%s/%s", folder->dir, index_name);
    for (size_t i = 0; ret == 0 && i < index.n_files; i++) {
        ret = add_shard(model, folder, index.files[i], err);
        if (ret == -ENOENT)
            err_prefix(err, ret, "%s lists a file that is not there", index_name);
    }
    if (ret == 0)
        ret = sort_tensors(model, err);
    if (ret == 0)
        ret = check_agreement(model, &index, err);
    arena_fini(&arena);
    return ret;
}

static int no_weights(const struct folder *folder, struct err *err)
{
    if (folder_has(folder, "pytorch_model.bin") || folder_has(folder, "pytorch_model.bin.index.json"))
        return err_set(
            err, -EINVAL,
            "%s: the weights are in pytorch_model.bin, which can run code when it is loaded; convert "
            "them: load the model in transformers and save it with save_pretrained",
            folder->dir);
    return err_set(err, -ENOENT, "%s: neither %s nor %s is there", folder->dir, single_name, index_name);
}

static int read_weights(struct model *model, const struct folder *folder, struct err *err)
{
    int ret;

    if (folder_has(folder, single_name)) {
        ret = add_shard(model, folder, single_name, err);
        return ret ? ret : sort_tensors(model, err);
    }
    if (folder_has(folder, index_name))
        return read_sharded(model, folder, err);
    return no_weights(folder, err);
}

/* FP8 */

static const char *const scale_tails[] = {"_scale", "_scale_inv"};

enum { N_SCALE_TAILS = sizeof(scale_tails) / sizeof(scale_tails[0]) };

/* The tensor of that name with something added, or without its end; NULL if there is none. */
static const struct model_tensor *named(const struct model *model, const char *name, size_t len,
                                        const char *tail)
{
    char text[512];

    if (len + strlen(tail) >= sizeof(text))
        return NULL;
    memcpy(text, name, len);
    strcpy(text + len, tail);
    return model_tensor(model, text);
}

static enum dtype own_dtype(const cJSON *config)
{
    static const char *const keys[] = {"dtype", "torch_dtype"};
    const cJSON *text = cJSON_GetObjectItemCaseSensitive(config, "text_config");
    enum dtype found = DTYPE_NONE;

    for (int i = 0; i < 4 && found == DTYPE_NONE; i++) {
        const cJSON *item = cJSON_GetObjectItemCaseSensitive(i < 2 ? config : text, keys[i % 2]);
        if (cJSON_IsString(item))
            found = dtype_from_torch(item->valuestring);
    }
    return found == DTYPE_F32 || found == DTYPE_F16 ? found : DTYPE_BF16;
}

int model_scaled(const struct model *model, const struct model_tensor *tensor, struct fp8_feed *feed,
                 struct err *err)
{
    const struct model_tensor *scale = NULL;
    int ret;

    for (int i = 0; i < N_SCALE_TAILS && fp8_is(tensor->st.dtype); i++) {
        const struct model_tensor *found =
            named(model, tensor->st.name, strlen(tensor->st.name), scale_tails[i]);
        if (scale && found)
            return err_set(err, -EINVAL,
                           "%s: tensor \"%.200s\" has two sets of scales, \"%.200s\" and \"%.200s\": remove "
                           "the one that is not meant",
                           tensor->feed.source->path, tensor->st.name, scale->st.name, found->st.name);
        scale = found ? found : scale;
    }
    if (!scale)
        return 0;
    ret = fp8_feed_scaled(feed, &tensor->feed.feed, tensor->st.shape, tensor->st.ndim, &scale->feed.feed,
                          scale->st.shape, scale->st.ndim, model->scale_block, own_dtype(model->config), err);
    if (ret)
        return err_prefix(err, ret, "%s: tensor \"%.200s\"", tensor->feed.source->path, tensor->st.name);
    return 1;
}

bool model_is_scale(const struct model *model, const char *name)
{
    for (int i = 0; i < N_SCALE_TAILS; i++) {
        const struct model_tensor *of = NULL;
        if (ends_with(name, scale_tails[i]))
            of = named(model, name, strlen(name) - strlen(scale_tails[i]), "");
        if (of && fp8_is(of->st.dtype))
            return true;
    }
    return false;
}

/* Scales must fit now; a model said to be quantised must be so in a way that is understood. */
static int check_scales(struct model *model, struct err *err)
{
    const cJSON *quantization = find_quantization(model->config);
    int ret = 0;

    for (size_t i = 0; ret >= 0 && i < model->n_tensors; i++) {
        struct fp8_feed feed;
        ret = model_scaled(model, &model->tensors[i], &feed, err);
        model->n_scaled += ret == 1;
    }
    if (ret >= 0 && quantization && model->n_scaled == 0 && !strstr(quant_method(quantization), "fp8"))
        ret = refuse_quantized(model, quantization, err);
    return ret < 0 ? ret : 0;
}

/* The whole */

static int read_model(struct model *model, const struct folder *folder, struct err *err)
{
    int ret = read_config(model, folder, err);

    if (ret == 0)
        ret = check_quantization(model, err);
    if (ret == 0)
        ret = read_weights(model, folder, err);
    return ret ? ret : check_scales(model, err);
}

static void close_files(struct model *model)
{
    for (size_t i = 0; i < model->n_files; i++)
        source_close(model->files[i].source);
    model->n_files = 0;
}

int model_list_files(struct model *model, struct err *err)
{
    struct folder folder;
    int ret;

    if (model->listed)
        return 0;
    ret = folder_init(&folder, model->dir, err);
    if (ret)
        return ret;
    ret = side_files_list(&folder, &model->arena, &model->files, &model->n_files, err);
    folder_fini(&folder);
    model->listed = ret == 0;
    if (ret) /* who shares the model may try again */
        close_files(model);
    return ret;
}

static void model_drop(struct keeper *keeper);

int model_open(const char *dir, const char *name, bool hub, struct model **out, struct err *err)
{
    struct folder folder = {0};
    struct model *model = calloc(1, sizeof(*model));
    int ret;

    *out = NULL;
    if (!model)
        return err_set(err, -ENOMEM, "%s: out of memory", dir);
    model->keeper = (struct keeper){1, model_drop};
    ret = folder_init(&folder, dir, err);
    if (ret)
        goto out;
    model->hub = hub;
    model->dir = strdup(folder.dir);
    model->name = strdup(name);
    if (model->dir && model->name)
        ret = read_model(model, &folder, err);
    else
        ret = err_set(err, -ENOMEM, "%s: out of memory", dir);
out:
    folder_fini(&folder);
    if (ret)
        model_free(model);
    else
        *out = model;
    return ret;
}

void model_free(struct model *model)
{
    if (model)
        keeper_drop(&model->keeper);
}

static void model_drop(struct keeper *keeper)
{
    struct model *model = (struct model *)keeper;

    for (size_t i = 0; i < model->n_sources; i++)
        source_close(model->sources[i]);
    close_files(model);
    free(model->sources);
    free(model->tensors);
    cJSON_Delete(model->config);
    arena_fini(&model->arena);
    free(model->dir);
    free(model->name);
    free(model);
}

static int find_name(const void *key, const void *element)
{
    return strcmp(key, ((const struct model_tensor *)element)->st.name);
}

const struct model_tensor *model_tensor(const struct model *model, const char *name)
{
    if (model->n_tensors == 0)
        return NULL;
    return bsearch(name, model->tensors, model->n_tensors, sizeof(*model->tensors), find_name);
}
