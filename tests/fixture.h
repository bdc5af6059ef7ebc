/* Small models and merge files in the test's own directory. */
#ifndef FIXTURE_H
#define FIXTURE_H

#include "scratch_dir.h"

#include "dtype.h"
#include "safetensors.h"

/* A tensor to write: its elements are small numbers that depend on seed and position. */
struct put_tensor {
    const char *name;
    enum dtype dtype;
    unsigned ndim;
    uint64_t shape[ST_DIMS];
    unsigned seed;
};

static inline void put_element(unsigned char *out, enum dtype dtype, unsigned seed, uint64_t i)
{
    float value = (float)((int)((i * 7 + seed * 13) % 97) - 48) / 64.0f;
    uint32_t bits;

    memcpy(&bits, &value, 4);
    if (dtype == DTYPE_F32) {
        memcpy(out, &bits, 4);
    } else if (dtype == DTYPE_BF16) {
        memcpy(out, (char *)&bits + 2, 2);
    } else {
        memset(out, (int)((i + seed) % 5), dtype_bits(dtype) / 8);
    }
}

/* Write FOLDER/FILE with these tensors, one behind the other, in the order given. */
static inline void put_shard(const char *path, struct put_tensor *tensors, size_t n)
{
    struct st_tensor table[64];
    uint64_t at = 0, off;
    unsigned char *all;
    char *header;

    assert_true(n <= 64);
    for (size_t i = 0; i < n; i++) {
        table[i] = (struct st_tensor){
            .name = tensors[i].name, .dtype = tensors[i].dtype, .ndim = tensors[i].ndim, .n = 1};
        memcpy(table[i].shape, tensors[i].shape, sizeof(table[i].shape));
        for (unsigned d = 0; d < tensors[i].ndim; d++)
            table[i].n *= tensors[i].shape[d];
        assert_true(dtype_bytes(table[i].dtype, table[i].n, &table[i].len));
        table[i].begin = at;
        at += table[i].len;
    }
    assert_int_equal(st_render(table, n, 8, &header, &off, NULL), 0);
    all = calloc(1, off + at + 1);
    assert_non_null(all);
    memcpy(all, header, off);
    for (size_t i = 0; i < n; i++) {
        for (uint64_t k = 0; k < table[i].n; k++)
            put_element(all + off + table[i].begin + k * dtype_bits(table[i].dtype) / 8, table[i].dtype,
                        tensors[i].seed, k);
    }
    put_bytes(path, all, off + at);
    free(header);
    free(all);
}

/* A model of `layers` layers: an embedding, two tensors a layer, a norm, and a head unless tied. */
struct put_model {
    const char *dir;
    enum dtype dtype;
    unsigned seed;
    unsigned layers;
    uint64_t rows; /* of the embedding; 0: 10 */
    bool tied;
    const char *config; /* further members of config.json, each followed by a comma; or NULL */
};

static inline void put_model(struct put_model m)
{
    struct put_tensor tensors[64];
    char names[64][64], path[128], config[1024];
    uint64_t rows = m.rows ? m.rows : 10;
    size_t n = 0;

    tensors[n++] = (struct put_tensor){"model.embed_tokens.weight", m.dtype, 2, {rows, 4}, m.seed};
    for (unsigned i = 0; i < m.layers; i++) {
        snprintf(names[n], sizeof(names[n]), "model.layers.%u.mlp.up_proj.weight", i);
        tensors[n] = (struct put_tensor){names[n], m.dtype, 2, {6, 4}, m.seed + i};
        n++;
        snprintf(names[n], sizeof(names[n]), "model.layers.%u.self_attn.q_proj.weight", i);
        tensors[n] = (struct put_tensor){names[n], m.dtype, 2, {4, 4}, m.seed + 2 * i};
        n++;
    }
    tensors[n++] = (struct put_tensor){"model.norm.weight", m.dtype, 1, {4}, m.seed + 3};
    if (!m.tied)
        tensors[n++] = (struct put_tensor){"lm_head.weight", m.dtype, 2, {rows, 4}, m.seed + 4};
    snprintf(path, sizeof(path), "%s/model.safetensors", m.dir);
    put_shard(path, tensors, n);
    snprintf(path, sizeof(path), "%s/config.json", m.dir);
    snprintf(config, sizeof(config),
             "{%s \"model_type\": \"llama\", \"num_hidden_layers\": %u, \"vocab_size\": %llu, "
             "\"tie_word_embeddings\": %s, \"torch_dtype\": \"bfloat16\"}",
             m.config ? m.config : "", m.layers, (unsigned long long)rows, m.tied ? "true" : "false");
    put_text(path, config);
}

#endif
