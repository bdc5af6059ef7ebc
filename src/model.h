/* A model directory, opened by its headers only: config.json, shard index, tensor table, other files.
 *
 * Everything in it is hostile input. Tensor data is not read. Immutable after opening, but for the list of
 * side files. Counted: who opens it is its one owner.
 */
#ifndef MODEL_H
#define MODEL_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "arena.h"
#include "config.h"
#include "keeper.h"
#include "safetensors.h"
#include "source.h"

struct model_tensor {
    struct st_tensor st;   /* name, dtype, shape */
    struct file_feed feed; /* its bytes */
};

/* A file of the directory that is not weights (side_files.h): tokenizer.json, 1_Pooling/config.json. */
struct model_file {
    const char *path; /* relative to the model, '/' between components, no "..", no control characters */
    struct source *source;
};

struct model {
    struct keeper keeper; /* first member */
    char *dir;            /* absolute path of the directory (for a hub model: of the snapshot) */
    char *name;           /* to show: the hub name "org/model", else the last path component */
    bool hub;             /* found in the hub cache by name */
    cJSON *config;        /* config.json */
    uint64_t config_hash; /* of its text */
    size_t n_tensors;
    struct model_tensor *tensors; /* sorted by name (strcmp) */
    bool listed;                  /* model_list_files was called; without it there are no files */
    size_t n_files;
    struct model_file *files; /* sorted by path; without what is made anew: config.json, README.md, ... */
    size_t n_scaled;          /* FP8 tensors with scales */
    uint64_t scale_block[2];  /* rows and columns that share a scale, where config.json says so; else 0 */
    size_t n_sources;
    struct source **sources; /* weight files; tensors point into them */
    struct arena arena;
};

struct models;

/* Where model names are looked for. */
struct model_search {
    const char *cwd;       /* relative paths: first from here (NULL: not at all) */
    const char *yaml_dir;  /* then from here */
    const char *hub;       /* hub cache folder, or NULL for the environment's: HF_HUB_CACHE, HF_HOME/hub,
                              XDG_CACHE_HOME/huggingface/hub, ~/.cache/huggingface/hub */
    struct models *models; /* those that are open already (models.h); NULL: none */
};

/* What a reference means. */
struct model_place {
    char *dir;    /* canonical path */
    char *name;   /* to show */
    bool hub;     /* found in the hub cache */
    bool whole;   /* the whole text of the reference is a path: revision and adapter in it are none */
    bool adapted; /* the reference's adapter is to be applied to it */
};

/* Find the directory that `ref` names; *place is empty on failure. An existing directory at `written` wins,
 * then one at `path`, each relative to cwd, then to yaml_dir; `~` expands. Else a hub name in the cache:
 * models--ORG--NAME/refs/REVISION (main) -> snapshots/HASH. Never the network: the error for a missing hub
 * model names the `hf download` to type. -ENOENT, -ENOTDIR, -EACCES, -ENOMEM. */
int model_find(const struct model_ref *ref, const struct model_search *search, struct model_place *place,
               struct err *err);
void model_place_fini(struct model_place *place);

/* Open `dir`. Refused, saying what to do instead: no safetensors but pytorch_model.bin; a quantization_config
 * of gptq, awq, bitsandbytes, ... FP8 with scales is understood (fp8.h). model.safetensors wins over an
 * index. Index names: plain file names only. Index and shards must agree. config.json at most 1 MiB, strict
 * JSON. Symbolic links: folder.h. Every file keeps a descriptor open while there are enough (source.h).
 * -EINVAL, -ENOENT, -ENOTDIR, -EACCES, -ENOMEM, -EIO. */
int model_open(const char *dir, const char *name, bool hub, struct model **out, struct err *err);
/* Open the side files, which only the donor of config lends: each keeps a descriptor. Done once. On failure
 * the model stays as it was or has some of them. Codes as model_open. */
int model_list_files(struct model *model, struct err *err);
void model_free(struct model *model); /* one owner less; NULL is fine */

/* Tensor by name, or NULL. */
const struct model_tensor *model_tensor(const struct model *model, const char *name);

struct fp8_feed; /* fp8.h */

/* The feed of an FP8 tensor that has scales, in the model's own type (config.json's, else bfloat16). 1: *feed
 * is filled in; 0: it is none; -EINVAL with err: the scales do not fit, or there are two sets of them, which
 * model_open has refused. */
int model_scaled(const struct model *model, const struct model_tensor *tensor, struct fp8_feed *feed,
                 struct err *err);
/* Is this the name of an FP8 tensor's scales? */
bool model_is_scale(const struct model *model, const char *name);

#endif
