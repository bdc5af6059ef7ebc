#include "tree.h"

#include "fail_alloc.h"
#include "scratch_dir.h"

#define N(array) (sizeof(array) / sizeof((array)[0]))

static const struct meld_file files[] = {
    {"config.json", 10}, {"m-2.safetensors", 7}, {"sub-x", 3}, {"sub.y", 4}, {"sub/deep/er/a", 1},
    {"sub/deep/z", 2},   {"sub/deep-b", 5},      {"sub0", 6},  {"tok", 8},
};

static struct tree *good_tree(const struct meld_file *list, size_t n, uint64_t fingerprint)
{
    struct err err = {""};
    struct tree *tree = tree_new(list, n, fingerprint, &err);

    if (!tree)
        fail_msg("%s", err.text);
    return tree;
}

static void sorted_files(struct meld_file *out)
{
    memcpy(out, files, sizeof(files));
    /* As meld_file gives them: '-' and '.' come before '/', so "sub/deep-b" before "sub/deep/er/a". */
    out[4] = files[6];
    out[5] = files[4];
    out[6] = files[5];
}

static struct tree *example(uint64_t fingerprint)
{
    struct meld_file list[N(files)];

    sorted_files(list);
    return good_tree(list, N(list), fingerprint);
}

static size_t find(const struct tree *tree, const char *path)
{
    char copy[256], *rest = copy, *name;
    ssize_t node = 0;

    snprintf(copy, sizeof(copy), "%s", path);
    while ((name = strsep(&rest, "/"))) {
        node = tree_lookup(tree, (size_t)node, name);
        if (node < 0)
            fail_msg("%s of %s: %zd", name, path, node);
    }
    return (size_t)node;
}

static void every_path_is_found(void **state)
{
    struct tree *tree = example(1);
    struct meld_file list[N(files)];

    (void)state;
    sorted_files(list);
    for (size_t i = 0; i < N(list); i++) {
        const struct tree_node *node = tree_node(tree, find(tree, list[i].path));

        assert_int_equal(node->file, i);
    }
    assert_int_equal(tree_n_nodes(tree), 1 + N(files) + 3);
    tree_free(tree);
}

static void folders_know_their_children(void **state)
{
    struct tree *tree = example(1);
    const struct tree_node *root = tree_node(tree, 0), *sub = tree_node(tree, find(tree, "sub"));
    static const char *const names[] = {"config.json", "m-2.safetensors", "sub", "sub-x", "sub.y", "sub0",
                                        "tok"};

    (void)state;
    assert_int_equal(root->n, N(names));
    for (size_t i = 0; i < N(names); i++)
        assert_string_equal(tree_node(tree, root->first + i)->name, names[i]);
    assert_int_equal(root->n_folders, 1);
    assert_int_equal(root->parent, 0);
    assert_int_equal(sub->parent, 0);
    assert_int_equal(sub->n, 2);
    assert_int_equal(sub->file, -1);
    assert_int_equal(tree_node(tree, find(tree, "sub/deep"))->parent, find(tree, "sub"));
    tree_free(tree);
}

static void missing_names(void **state)
{
    struct tree *tree = example(1);

    (void)state;
    assert_int_equal(tree_lookup(tree, 0, "con"), -ENOENT);
    assert_int_equal(tree_lookup(tree, 0, ""), -ENOENT);
    assert_int_equal(tree_lookup(tree, 0, "sub/deep"), -ENOENT);
    assert_int_equal(tree_lookup(tree, find(tree, "tok"), "x"), -ENOTDIR);
    assert_int_equal(tree_lookup(tree, 1000, "tok"), -ENOENT);
    assert_null(tree_node(tree, tree_n_nodes(tree)));
    assert_null(tree_node(tree, SIZE_MAX));
    tree_free(tree);
}

static void numbers_are_stable_and_distinct(void **state)
{
    struct tree *a = example(1), *b = example(1), *c = example(2);
    struct tree *alone = good_tree(files, 1, 1);

    (void)state;
    for (size_t i = 0; i < tree_n_nodes(a); i++) {
        assert_int_equal(tree_node(a, i)->ino, tree_node(b, i)->ino);
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(tree_node(a, i)->ino, tree_node(a, k)->ino);
        if (i > 0)
            assert_int_not_equal(tree_node(a, i)->ino, tree_node(c, i)->ino);
    }
    assert_int_equal(tree_node(a, 0)->ino, 1);
    assert_int_equal(tree_node(alone, 1)->ino, tree_node(a, find(a, "config.json"))->ino);
    tree_free(a);
    tree_free(b);
    tree_free(c);
    tree_free(alone);
}

static void equal_numbers_are_settled(void **state)
{
    uint64_t a[] = {7, 0, 7, 1, 9, 7}, b[] = {7, 0, 7, 1, 9, 7}, fine[] = {5, 3, 4};

    (void)state;
    assert_int_equal(tree_settle(a, N(a)), 0);
    assert_int_equal(tree_settle(b, N(b)), 0);
    assert_int_equal(a[0], 7);
    assert_int_equal(a[4], 9);
    for (size_t i = 0; i < N(a); i++) {
        assert_int_equal(a[i], b[i]);
        assert_true(a[i] > 1);
        for (size_t k = 0; k < i; k++)
            assert_int_not_equal(a[i], a[k]);
    }
    assert_int_equal(tree_settle(fine, N(fine)), 0);
    assert_int_equal(fine[0], 5);
    assert_int_equal(fine[2], 4);
    assert_int_equal(tree_settle(NULL, 0), 0);
}

static void nothing_to_serve(void **state)
{
    struct tree *tree = good_tree(NULL, 0, 1);

    (void)state;
    assert_int_equal(tree_n_nodes(tree), 1);
    assert_int_equal(tree_lookup(tree, 0, "x"), -ENOENT);
    tree_free(tree);
    tree_free(NULL);
}

static void refuse(const struct meld_file *list, size_t n, const char *says)
{
    struct err err = {""};
    struct tree *tree = tree_new(list, n, 1, &err);

    if (tree)
        fail_msg("%s was taken", list[0].path);
    assert_says(err.text, says);
}

static void bad_paths_are_refused(void **state)
{
    static const char *const bad[] = {"", "/abs", "a//b", "a/", "..", "a/../b", "./a", "."};
    char name[300];
    const struct meld_file twice[] = {{"a"}, {"a"}}, order[] = {{"b"}, {"a"}};
    const struct meld_file both[] = {{"a"}, {"a-b"}, {"a/x"}}, long_name[] = {{name}};

    (void)state;
    for (size_t i = 0; i < N(bad); i++)
        refuse(&(struct meld_file){bad[i]}, 1, "not a path that can be served");
    memset(name, 'x', sizeof(name));
    name[256] = '\0';
    refuse(long_name, 1, "not a path that can be served");
    name[255] = '\0';
    tree_free(good_tree(long_name, 1, 1));
    refuse(twice, N(twice), "a: there twice");
    refuse(order, N(order), "a: there twice or out of order");
    refuse(both, N(both), "a/x: there twice");
}

static int try_tree(void)
{
    struct meld_file list[N(files)];
    struct tree *tree;
    struct err err;

    sorted_files(list);
    tree = tree_new(list, N(list), 1, &err);
    tree_free(tree);
    return tree ? 0 : -ENOMEM;
}

static void memory_runs_out(void **state)
{
    long refused = refuse_each_alloc(try_tree());

    (void)state;
    assert_true(refused > (long)N(files));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_path_is_found),
        cmocka_unit_test(folders_know_their_children),
        cmocka_unit_test(missing_names),
        cmocka_unit_test(numbers_are_stable_and_distinct),
        cmocka_unit_test(equal_numbers_are_settled),
        cmocka_unit_test(nothing_to_serve),
        cmocka_unit_test(bad_paths_are_refused),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
