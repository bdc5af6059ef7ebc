/* The folders that a flat list of paths makes, with a number for every node.
 *
 * A node is an index: 0 is the root, a folder's children follow each other in order of name. Immutable once
 * made, so any thread may read it.
 */
#ifndef TREE_H
#define TREE_H

#include <stdint.h>
#include <sys/types.h>

#include "meld.h"

struct tree;

struct tree_node {
    char *name;       /* last component; "" is the root's */
    uint64_t ino;     /* st_ino: the same for the same fingerprint and path; 0 is nobody's, 1 the root's */
    ssize_t file;     /* index in the list; -1 for a folder */
    size_t parent;    /* the root's is the root */
    size_t first, n;  /* a folder's children: nodes [first, first + n) */
    size_t n_folders; /* of those children */
};

/* files: n, sorted by path, as meld_file gives them; nothing is kept of it. NULL with err if a path cannot be
 * served (empty, "." or ".." as a component, a name twice or longer than 255, not sorted) or memory ran out.
 */
struct tree *tree_new(const struct meld_file *files, size_t n, uint64_t fingerprint, struct err *err);
void tree_free(struct tree *tree);

size_t tree_n_nodes(const struct tree *tree);
const struct tree_node *tree_node(const struct tree *tree, size_t node);       /* NULL if there is none */
ssize_t tree_lookup(const struct tree *tree, size_t folder, const char *name); /* node, -ENOENT or -ENOTDIR */

/* Make n numbers distinct and none below 2. The earlier of two equal ones keeps its value, and what the later
 * becomes depends on nothing else. 0 or -ENOMEM. */
int tree_settle(uint64_t *inos, size_t n);

#endif
