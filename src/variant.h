/* A variant: values for parameters of a document, as the names of a path.
 *
 *     math.weight=0.3/weight.self_attn=0~0.5~0.3/lambda=0.8
 *
 * A key is PARAM, MODEL.PARAM, PARAM.FILTER or MODEL.PARAM.FILTER. MODEL is the last component of a model's
 * path, its number in the document, or an alias; names hold dots, so a key is matched whole against all that
 * the document has, and one that can be read in two ways is an error. A key overrides every scope of the
 * merge file. Of the overrides that apply to a parameter of an input and a tensor the most specific decides:
 * one for a model and a filter, for a model, for a filter, for all; of two with filters that both match, the
 * earlier in canonical order.
 *
 * Canonical: keys sorted by strcmp; of the spellings that can only be read in one way the first of last
 * component, alias in the order of the file, number; numbers as Python prints them, without what says
 * nothing: 0.3, 1, 1e-5, 1e22, -0; true and false. Immutable.
 */
#ifndef VARIANT_H
#define VARIANT_H

#include "config.h"

struct override {
    unsigned param;         /* index among the method's parameters */
    int model;              /* number in the document; -1: all models, or a shared parameter */
    const char *filter;     /* NULL: every tensor */
    struct setting setting; /* as resolve takes it; the same filter, no place */
    const char *key;
    const char *text; /* "KEY=VALUE" */
};

struct variant {
    size_t n;              /* at least 1 */
    struct override *list; /* in canonical order */
    const char *path;      /* their texts, joined by '/' */
};

/* Is there a tensor whose name contains `filter`? */
typedef bool variant_filter(void *arg, const char *filter);

/* path: "KEY=VALUE/KEY=VALUE/...", in any order and spelling; any bytes. Thread-safe; takes microseconds, but
 * for has_filter. 0; -ENOENT with the reason, which is printable; -ENOMEM. *out is NULL on failure. */
int variant_parse(const struct document *document, variant_filter *has_filter, void *arg, const char *path,
                  struct variant **out, struct err *err);
void variant_free(struct variant *variant); /* NULL is fine */

#endif
