/* What the files that read a merge file share: config.c (documents), config_layers.c (models, slices,
 * modules), config_value.c (parameters), config_ref.c (models and tokenizers by name), config_names.c (models
 * by number and alias), config_order.c (stages), config_object.c (mappings by table). Nobody else includes
 * this.
 *
 * Readers say what is wrong and go on; whether anything was is asked of the findings at the end.
 */
#ifndef CONFIG_PART_H
#define CONFIG_PART_H

#include "config.h"
#include "findings.h"
#include "yaml_tree.h"

struct reader {
    struct config *config; /* its arena holds everything */
    struct findings *findings;
    config_method_problem *method_problem; /* may be NULL */
};

/* One key of a mapping and what takes its value: never a null, about which object_read has its say. */
struct field {
    const char *name;
    void (*read)(struct reader *reader, const struct ypair *pair, void *out);
    bool needs_value; /* a null is an error, not as if the key were not there */
};

struct object {
    const char *what; /* "a slice" */
    const struct field *fields;
    size_t n_fields;
    enum severity unknown; /* how bad another key is */
    bool extensible;       /* keys x-... are no matter */
};

/* Read the mapping that `node` should be, key by key. */
void object_read(struct reader *reader, const struct ynode *node, const struct object *object, void *out);
/* A mapping, but without that key. */
bool lacks_key(const struct ynode *node, const char *key);
/* One that only the top level has. */
bool key_of_document(const char *key);

void reader_error(struct reader *reader, struct place at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void reader_warning(struct reader *reader, struct place at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* From the arena; NULL after noting that memory ran out. */
void *reader_alloc(struct reader *reader, size_t n, size_t size);
/* The text of a value, NULL after saying why there is none. */
const char *reader_text(struct reader *reader, const struct ypair *pair);
/* Whether the value is a list of something; else says so. `item` is how its entries begin: "- model:". */
bool reader_list(struct reader *reader, const struct ypair *pair, const char *item);
/* Whether a scalar stands for a whole number, from 0 to a billion. */
bool scalar_count(const struct ynode *node, int64_t *count);

void params_read(struct reader *reader, const struct ypair *pair, struct params *params);
/* Whether some method of mergekit has a parameter of this name. */
bool known_param(const char *name);

/* False after saying why. */
bool ref_read(struct reader *reader, const struct ypair *pair, struct model_ref *ref);
/* NULL after saying why. */
struct model_ref *ref_new(struct reader *reader, const struct ypair *pair);
void tokenizer_read(struct reader *reader, const struct ypair *pair, struct tokenizer_config *tokenizer);
void tokenizer_source_read(struct reader *reader, const struct ypair *pair,
                           struct tokenizer_config *tokenizer);
int model_ref_compare(const struct model_ref *a, const struct model_ref *b);

/* The three ways to list what is merged; each fills document->modules. */
void models_read(struct reader *reader, const struct ypair *pair, struct document *document);
void slices_read(struct reader *reader, const struct ypair *pair, struct document *document);
void modules_read(struct reader *reader, const struct ypair *pair, struct document *document);

/* Number the document's models, once all are read. */
void models_number(struct reader *reader, struct document *document);
/* `names:` of `meldfs:`, after that. */
void aliases_read(struct reader *reader, const struct ynode *map, struct document *document);

struct staged {
    struct document document;
    struct place name_at;
};

/* Stages so that each comes after those it needs, the result last, into config->docs. */
void order_documents(struct reader *reader, struct staged *staged, size_t n);

#endif
