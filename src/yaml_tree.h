/* YAML 1.1 as PyYAML's safe loader reads it, as a tree whose every node knows its place.
 *
 * Aliases share the node of their anchor, so the tree is a graph without cycles; `<<` is carried out. What a
 * walk over it can meet is bounded (YAML_NODES_MAX), however often aliases repeat. Texts hold no NUL.
 */
#ifndef YAML_TREE_H
#define YAML_TREE_H

#include <stdbool.h>

#include "arena.h"
#include "findings.h"

enum { YAML_DEPTH_MAX = 64, YAML_NODES_MAX = 1000000 };

enum ynode_kind { YNODE_NULL, YNODE_BOOL, YNODE_INT, YNODE_FLOAT, YNODE_TEXT, YNODE_LIST, YNODE_MAP };

struct ypair {
    const struct ynode *key; /* a scalar */
    const struct ynode *value;
};

struct ynode {
    enum ynode_kind kind;
    bool plain;      /* a scalar without quotes or tag */
    bool open;       /* still being read: an alias to it would be a circle */
    unsigned weight; /* nodes that a walk from here meets */
    struct place at;
    double number;    /* INT, FLOAT; BOOL 0 or 1 */
    const char *text; /* scalars, as written */
    size_t n;
    const struct ynode **items; /* LIST */
    struct ypair *pairs;        /* MAP: no key twice; those that `<<` brought come last */
};

/* The documents of a text, empty ones left out; they live in `arena`, their places name `file`.
 * Problems go to findings. 0 if the tree is whole, though there may be errors (a key given twice: the first
 * is kept); -EINVAL if there is none; -ENOMEM. */
int yaml_tree_read(struct arena *arena, struct findings *findings, const char *file, const char *text,
                   size_t len, const struct ynode ***docs, size_t *n_docs);

/* What a scalar without quotes is, and its number. */
enum ynode_kind yaml_resolve(const char *text, double *number);
/* Text that is taken for a number where one is wanted: "1e-3", " .5", "1_000", "inf". Not YAML's rule but
 * that of mergekit's values, for quoted text too: "010" is 10. */
bool yaml_text_number(const char *text, double *number);
const char *ynode_kind_name(enum ynode_kind kind); /* "a list" */

#endif
