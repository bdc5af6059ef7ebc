#include "tree.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define INO_ROOT 1

/* While the tree grows: a node covers files [lo, hi), whose paths are the same up to `prefix`. */
struct span {
    size_t lo, hi, prefix;
};

struct tree {
    size_t n, room;
    struct tree_node *nodes;
};

struct growth {
    struct tree *tree;
    const struct meld_file *files;
    uint64_t fingerprint;
    struct span *spans; /* one a node, in step with tree->nodes */
    struct err *err;
};

static int add_node(struct growth *g, struct tree_node node, struct span span)
{
    struct tree *tree = g->tree;

    if (tree->n == tree->room) {
        size_t room = tree->room ? 2 * tree->room : 64;
        struct tree_node *nodes = reallocarray(tree->nodes, room, sizeof(*nodes));
        struct span *spans;

        if (!nodes)
            return -ENOMEM;
        tree->nodes = nodes;
        spans = reallocarray(g->spans, room, sizeof(*spans));
        if (!spans)
            return -ENOMEM;
        g->spans = spans;
        tree->room = room;
    }
    tree->nodes[tree->n] = node;
    g->spans[tree->n++] = span;
    return 0;
}

static bool name_ok(const char *name, size_t len)
{
    if (len == 0 || len > NAME_MAX)
        return false;
    return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

/* The child that begins at file `lo`; *next is the first file that is not below it. */
static int add_child(struct growth *g, size_t folder, size_t lo, size_t *next)
{
    const struct meld_file *file = &g->files[lo];
    struct span above = g->spans[folder];
    const char *name = file->path + above.prefix;
    size_t len = strcspn(name, "/"), end = above.prefix + len, hi = lo + 1;
    bool is_folder = name[len] == '/';
    struct tree_node node = {.file = is_folder ? -1 : (ssize_t)lo, .parent = folder};
    int ret;

    if (!name_ok(name, len))
        return err_set(g->err, -EINVAL, "%s: not a path that can be served", file->path);
    while (is_folder && hi < above.hi && strncmp(g->files[hi].path, file->path, end + 1) == 0)
        hi++;
    node.ino = XXH64(file->path, end, g->fingerprint);
    node.name = strndup(name, len);
    ret = node.name ? add_node(g, node, (struct span){lo, hi, end + 1}) : -ENOMEM;
    if (ret < 0) {
        free(node.name);
        return err_set(g->err, ret, "out of memory for the list of files");
    }
    g->tree->nodes[folder].n_folders += is_folder;
    *next = hi;
    return 0;
}

struct pair {
    struct tree_node node;
    struct span span;
};

static int pair_order(const void *a, const void *b)
{
    return strcmp(((const struct pair *)a)->node.name, ((const struct pair *)b)->node.name);
}

/* Paths are in order as wholes ("a-b" < "a/b"), names within a folder must be in their own ("a" < "a-b"). */
static int sort_children(struct growth *g, size_t first, size_t n)
{
    struct pair *pairs = calloc(n ? n : 1, sizeof(*pairs));

    if (!pairs)
        return err_set(g->err, -ENOMEM, "out of memory for the list of files");
    for (size_t i = 0; i < n; i++)
        pairs[i] = (struct pair){g->tree->nodes[first + i], g->spans[first + i]};
    qsort(pairs, n, sizeof(*pairs), pair_order);
    for (size_t i = 0; i < n; i++) {
        g->tree->nodes[first + i] = pairs[i].node;
        g->spans[first + i] = pairs[i].span;
    }
    free(pairs);
    for (size_t i = 1; i < n; i++)
        if (strcmp(g->tree->nodes[first + i - 1].name, g->tree->nodes[first + i].name) == 0)
            return err_set(g->err, -EINVAL, "%s: there twice", g->files[g->spans[first + i].lo].path);
    return 0;
}

static int add_children(struct growth *g, size_t folder)
{
    struct span span = g->spans[folder];
    size_t first = g->tree->n, next = span.hi;
    int ret;

    for (size_t lo = span.lo; lo < span.hi; lo = next) {
        ret = add_child(g, folder, lo, &next);
        if (ret < 0)
            return ret;
    }
    g->tree->nodes[folder].first = first;
    g->tree->nodes[folder].n = g->tree->n - first;
    return sort_children(g, first, g->tree->n - first);
}

static int check_order(const struct meld_file *files, size_t n, struct err *err)
{
    for (size_t i = 1; i < n; i++)
        if (strcmp(files[i - 1].path, files[i].path) >= 0)
            return err_set(err, -EINVAL, "%s: there twice or out of order", files[i].path);
    return 0;
}

static int ino_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static bool ino_taken(const uint64_t *inos, size_t n, uint64_t ino)
{
    for (size_t i = 0; i < n; i++)
        if (inos[i] == ino)
            return true;
    return ino <= INO_ROOT;
}

int tree_settle(uint64_t *inos, size_t n)
{
    uint64_t *sorted;
    bool clash;

    if (n == 0)
        return 0;
    sorted = calloc(n, sizeof(*sorted));
    if (!sorted)
        return -ENOMEM;
    memcpy(sorted, inos, n * sizeof(*inos));
    qsort(sorted, n, sizeof(*sorted), ino_order);
    clash = sorted[0] <= INO_ROOT;
    for (size_t i = 1; i < n; i++)
        clash |= sorted[i - 1] == sorted[i];
    free(sorted);
    for (size_t i = 0; clash && i < n; i++)
        while (ino_taken(inos, i, inos[i]))
            inos[i] = XXH64(&inos[i], sizeof(inos[i]), i);
    return 0;
}

static int settle_nodes(struct tree *tree, struct err *err)
{
    uint64_t *inos = calloc(tree->n, sizeof(*inos));
    int ret = -ENOMEM;

    if (inos) {
        for (size_t i = 1; i < tree->n; i++)
            inos[i - 1] = tree->nodes[i].ino;
        ret = tree_settle(inos, tree->n - 1);
        for (size_t i = 1; i < tree->n; i++)
            tree->nodes[i].ino = inos[i - 1];
    }
    free(inos);
    return ret < 0 ? err_set(err, ret, "out of memory for the list of files") : 0;
}

/* Nodes are their own queue: a folder's children are appended when its turn comes. */
static int grow(struct growth *g, size_t n)
{
    struct tree_node root = {.name = strdup(""), .ino = INO_ROOT, .file = -1};
    int ret = root.name ? add_node(g, root, (struct span){0, n, 0}) : -ENOMEM;

    if (ret < 0) {
        free(root.name);
        return err_set(g->err, ret, "out of memory for the list of files");
    }
    for (size_t i = 0; i < g->tree->n && ret == 0; i++)
        if (g->tree->nodes[i].file < 0)
            ret = add_children(g, i);
    return ret;
}

struct tree *tree_new(const struct meld_file *files, size_t n, uint64_t fingerprint, struct err *err)
{
    struct growth g = {calloc(1, sizeof(struct tree)), files, fingerprint, NULL, err};
    int ret = check_order(files, n, err);

    if (!g.tree)
        ret = err_set(err, -ENOMEM, "out of memory for the list of files");
    if (ret == 0)
        ret = grow(&g, n);
    if (ret == 0)
        ret = settle_nodes(g.tree, err);
    free(g.spans);
    if (ret == 0)
        return g.tree;
    tree_free(g.tree);
    return NULL;
}

void tree_free(struct tree *tree)
{
    if (!tree)
        return;
    for (size_t i = 0; i < tree->n; i++)
        free(tree->nodes[i].name);
    free(tree->nodes);
    free(tree);
}

size_t tree_n_nodes(const struct tree *tree)
{
    return tree->n;
}

const struct tree_node *tree_node(const struct tree *tree, size_t node)
{
    return node < tree->n ? &tree->nodes[node] : NULL;
}

ssize_t tree_lookup(const struct tree *tree, size_t folder, const char *name)
{
    const struct tree_node *node = tree_node(tree, folder);
    size_t lo = 0, hi;

    if (!node)
        return -ENOENT;
    if (node->file >= 0)
        return -ENOTDIR;
    for (hi = node->n; lo < hi;) {
        size_t mid = lo + (hi - lo) / 2;
        int order = strcmp(name, tree->nodes[node->first + mid].name);

        if (order == 0)
            return (ssize_t)(node->first + mid);
        if (order < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return -ENOENT;
}
