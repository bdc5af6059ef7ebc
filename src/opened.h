/* A merge file as it was planned, or a variant of one: all that its bytes are computed from. Immutable and
 * counted: requests under way hold it by themselves.
 */
#ifndef OPENED_H
#define OPENED_H

#include "meld.h"
#include "serve.h"

/* What a merge file is planned from, so that it can be planned again. */
struct origin {
    char *config, *name; /* as meld_options */
    char *cwd;           /* NULL: relative model paths are sought in yaml_dir alone */
    char *yaml_dir;
    uint64_t seed, shard_bytes;
    /* Once it was planned; else NULL: */
    char *text; /* of the merge file, with what was set */
    size_t text_len;
    struct meld *first; /* that it is the origin of: what has come since beside its files is left out */
};

/* The result of a merge file, a named document of it, or a variant of either. */
struct opened_model {
    const struct plan *plan;
    struct layout *layout;
    struct served served;
    uint64_t fingerprint;
    struct timespec mtime;
};

struct opened {
    struct keeper keeper;       /* first member */
    struct meld_engine *engine; /* held; or NULL */
    struct opened *next;        /* for who drops several */
    size_t n_models;
    struct opened_model *models; /* the result, then the named documents; or the variant */

    /* of a merge file: */
    struct config *config;
    struct plan_set *plans;

    /* of a variant: */
    struct opened *of; /* held */
    struct variant *variant;
    char *recipe; /* the merge file with its values */
};

/* 0, -EINVAL or -ENOMEM. */
int origin_init(struct origin *origin, const struct meld_options *options);
void origin_fini(struct origin *origin);

/* set: n_set "KEY=VALUE", carried out first. All problems go to report. 0 or -errno, as meld_open. */
int opened_new(struct meld_engine *engine, const struct origin *origin, const char *const *set, size_t n_set,
               struct opened **out, struct report *report);
/* Of the model of that number. As meld_variant. */
int opened_variant(struct opened *of, size_t number, const char *path, struct opened **out, struct err *err);
/* The canonical spelling. As meld_variant_path. */
int opened_variant_path(const struct opened *of, size_t number, const char *path, char **canonical,
                        struct err *err);
struct opened *opened_hold(struct opened *opened);
void opened_drop(struct opened *opened); /* NULL is fine */

/* Bytes that go when it does, but for the models it reads, which other plans may share. */
size_t opened_bytes(const struct opened *opened);

#endif
