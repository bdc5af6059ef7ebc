/* A merge file: mergekit's YAML as plain structs. Opens no model and knows no method's parameters.
 *
 * YAML 1.1 as PyYAML reads it. Every problem is reported, each with line and column. `models:` and `slices:`
 * at the top stand here as one module without a name, and `models:` as one slice whose sources are whole
 * models.
 */
#ifndef CONFIG_H
#define CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "dtype.h"
#include "err.h"

enum scalar_kind { SCALAR_NUMBER, SCALAR_BOOL, SCALAR_TEXT };

struct scalar {
    enum scalar_kind kind;
    double number;    /* NUMBER; a BOOL is 0 or 1 */
    const char *text; /* as written */
};

/* One value of a parameter, for the tensors whose name contains `filter`. */
struct setting {
    struct place at;
    const char *filter; /* NULL: every tensor ("*" in the file, too) */
    bool gradient;      /* written as a list; n may then be any number, 0 too */
    size_t n;           /* 1 for a scalar */
    struct scalar *values;
};

/* A parameter as one scope sets it: the first setting whose filter matches decides. */
struct param {
    struct place at;
    const char *name;
    size_t n;
    struct setting *settings;
};

struct params {
    size_t n;
    struct param *list;
};

/* A model as named: path is all before `+`/`@` handling; see model_find. */
struct model_ref {
    struct place at;
    const char *written;         /* the whole string, or for {model: {path, ...}} an equivalent one */
    const char *path, *revision; /* revision, adapter, adapter_revision: NULL if not given */
    const char *adapter, *adapter_revision;
};

struct slice_source {
    struct place at;
    struct model_ref model;
    bool whole;         /* from `models:`: all layers */
    int64_t begin, end; /* layer_range, half-open; begin <= end, both >= 0 */
    struct place range_at;
    struct params params;
};

struct slice {
    struct place at;
    size_t n_sources;
    struct slice_source *sources;
    struct model_ref *base_model; /* NULL: the document's */
    struct params params;
};

struct module {
    struct place at;
    const char *name; /* NULL: the whole model */
    size_t n_slices;
    struct slice *slices;
    struct params params;
};

struct tokenizer_config {
    bool given;
    struct place at;
    const char *source; /* "union", "base" or NULL: `model` */
    struct model_ref *model;
    bool has_tokens;            /* `tokens:` is there */
    int64_t pad_to_multiple_of; /* 0: not given */
};

/* A name that a model goes by. */
struct model_name {
    const char *name;
    int model; /* number in the document */
    bool alias;
};

enum mismatch { MISMATCH_ERROR, MISMATCH_BASE, MISMATCH_TRUNCATE };

struct document {
    struct place at;
    const char *name; /* NULL: the result */
    const char *method;
    struct place method_at;
    struct model_ref *base_model; /* NULL: none */
    size_t n_modules;
    struct module *modules;
    struct params params;
    enum dtype dtype, out_dtype; /* DTYPE_NONE: not given */
    struct place dtype_at, out_dtype_at;
    struct tokenizer_config tokenizer;
    const char *chat_template; /* NULL: not given */
    struct place chat_template_at;
    enum mismatch mismatch;
    struct place mismatch_at;
    /* The distinct models, numbered in order of mention: sources in the order of the file, then what slices
     * have for a base, then base_model. */
    size_t n_models;
    const struct model_ref **models;
    const int *models_sorted; /* [n_models], by reference: for document_model */
    const bool *is_donor;     /* [n_models]: a source of some slice whose base is another model */
    const char **model_names; /* [n_models]: last components of the paths; NULL where there is none */
    size_t n_aliases;         /* `meldfs: names:`, in the order of the file */
    struct model_name *aliases;
    size_t n_names; /* both kinds, sorted by name, then number: for document_named */
    struct model_name *names;
};

struct config {
    const char *path; /* as given, for messages */
    const char *text; /* the file as written, NUL-terminated */
    size_t text_len;
    size_t n_docs;
    struct document *docs; /* stages in dependency order, the result last */
    struct arena arena;
};

/* What is wrong with a merge_method's name, to be said at its place; NULL: nothing. */
typedef const char *config_method_problem(const char *name);

/* Parse the file at `path` (at most 16 MiB). Warnings and errors go to `report`, all of them; 0 only if there
 * was no error. *out is NULL on failure. method_problem may be NULL. -EINVAL: errors in the report; else
 * -errno, reported as well. */
int config_read(const char *path, config_method_problem *method_problem, struct config **out,
                struct report *report);
/* The same from memory; `path` is for messages. */
int config_parse(const char *path, const char *text, size_t len, config_method_problem *method_problem,
                 struct config **out, struct report *report);
void config_free(struct config *config); /* NULL is fine */

/* Number of a model in the document, -1 if it has none by these words. */
int document_model(const struct document *document, const struct model_ref *ref);
/* The models called by the `len` bytes of `name`: as many entries of document->names, from *first on. */
size_t document_named(const struct document *document, const char *name, size_t len,
                      const struct model_name **first);

bool model_ref_equal(const struct model_ref *a, const struct model_ref *b); /* the same words */

#endif
