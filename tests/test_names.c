#include "names.h"

#include "fake_meld.h"

#include <pthread.h>

#define REST_MS 1000

static const struct planner planner;
static struct recipes *recipes;
static struct names names;

static void crowded(void *arg)
{
    (void)arg;
}

static void tell(void *arg, const char *path, const struct report *report, int code)
{
    (void)arg, (void)path, (void)report, (void)code;
}

static void scan(bool all)
{
    const struct recipes_hooks hooks = {.tell = tell};
    struct err err = {""};

    if (recipes_scan(recipes, all, &hooks, &err) < 0)
        fail_msg("%s", err.text);
}

/* As the upkeep does, but without a kernel. How many changed over. */
static int change(void)
{
    struct change *list;
    ssize_t n = recipes_waiting(recipes, &list);
    int done = 0;

    for (ssize_t i = 0; i < n; i++) {
        struct view *view = list[i].to ? names_serve(&names, list[i].to, list[i].name) : NULL, *old = NULL;
        bool over;

        recipes_prepare(recipes, &list[i]);
        over = recipes_commit(recipes, &list[i], REST_MS, view, &old);
        views_put(names.views, over ? old : view);
        done += over;
    }
    free(list);
    return done;
}

static void serve(const char *path, bool folder)
{
    recipes = recipes_new(&planner, scratch_path(path), folder);
    assert_non_null(recipes);
    assert_int_equal(names_init(&names, recipes, 256, crowded, NULL), 0);
    scan(false);
    change();
}

static int setup(void **state)
{
    if (scratch_setup(state) < 0)
        return -1;
    put_text("a.yml", "first");
    serve("a.yml", false);
    return 0;
}

static int setup_folder(void **state)
{
    if (scratch_setup(state) < 0)
        return -1;
    put_text("r/one.yml", "first");
    put_text("r/two.x.yaml", "second");
    put_text("r/bad.yml", "wrong");
    put_text("r/readme.txt", "no recipe");
    put_text("r/.hidden.yml", "first");
    serve("r", true);
    return 0;
}

static int teardown(void **state)
{
    views_free(names.views);
    recipes_free(recipes);
    if (n_melds != 0)
        return -1;
    return scratch_teardown(state);
}

static struct found walk(const char *path)
{
    struct found found;
    struct err err = {""};
    int ret = names_walk(&names, path, &found, &err);

    if (ret < 0)
        fail_msg("%s: %s", path, err.text[0] ? err.text : strerror(-ret));
    return found;
}

static void put(struct found found)
{
    views_put(names.views, found.view);
}

static void is_at(const char *path, const char *canonical)
{
    struct found found = walk(path);
    char *text = found_path(&found);

    assert_string_equal(text, canonical);
    free(text);
    put(found);
}

static void refuse(const char *path, const char *says)
{
    struct found found;
    struct err err;

    assert_int_equal(names_walk(&names, path, &found, &err), -ENOENT);
    assert_says(err.text, says);
}

/* The target of a link, one step from the directory at `path`. */
static void leads_to(const char *path, const char *name, const char *target)
{
    struct found at = walk(path), found;
    struct err err;

    assert_int_equal(names_step(&names, &at, name, &found, &err), 0);
    assert_non_null(found.view);
    if (target)
        assert_string_equal(found.view->target, target);
    else
        assert_null(found.view->target);
    put(found);
    put(at);
}

static void files_and_folders(void **state)
{
    struct found found = walk("model.safetensors");

    (void)state;
    assert_int_equal(found_file(&found)->size, 1000);
    assert_false(found_is_folder(&found));
    put(found);
    found = walk("sub");
    assert_true(found_is_folder(&found));
    put(found);
    is_at("", "");
    is_at("sub/x=1", "sub/x=1");
    is_at("/a=1//sub/", "a=1/sub");
    refuse("nothing", "");
    refuse("sub/a=1", "");
    refuse("..", "");
}

static void variants(void **state)
{
    (void)state;
    is_at("a=1", "a=1");
    is_at("b=02/a=1", "a=1/b=2");
    is_at("c=1/b=2/a=3/config.json", "a=3/b=2/c=1/config.json");
    refuse("aa=1", "is no key");
    refuse("a=1/a=2", "set twice");
    refuse("a=1/nothing", "");
    leads_to("", "a=1", NULL);
    leads_to("", "a=01", "a=1");
    leads_to("b=1", "a=1", "../a=1/b=1");
    leads_to("b=1/c=1", "a=01", "../../a=1/b=1/c=1");
    leads_to("b=1/c=1", "d=1", NULL);
    leads_to("b=1/c=1", "d=01", "../../b=1/c=1/d=1");
}

static void one_view_each(void **state)
{
    struct found a = walk("a=1/b=2"), b = walk("b=2/a=1");

    (void)state;
    assert_ptr_equal(a.view, b.view);
    put(b);
    b = walk("a=1/b=3");
    assert_ptr_not_equal(a.view, b.view);
    assert_int_not_equal(found_ino(&a), found_ino(&b));
    put(a);
    put(b);
    assert_int_equal(views_count(names.views).all, 1); /* the root's */
}

static void documents(void **state)
{
    (void)state;
    is_at("stage", "stage");
    is_at("stage/b=1/a=1", "stage/a=1/b=1");
    leads_to("stage", "a=01", "a=1");
    refuse("a=1/stage", "");
    refuse("stage/stage", "");
    refuse("stage/generation=0123456789abcdef", "directory of a recipe only");
}

/* Reads until it is changed over: then it is another view, but the old one goes on. */
static void reload(void **state)
{
    struct found old = walk("model.safetensors"), fresh, root;
    uint64_t ino = found_ino(&old);

    (void)state;
    put_text("a.yml", "second");
    scan(true);
    generation_use(old.view->model->generation, 0);
    assert_int_equal(change(), 0); /* a load is under way */
    fresh = walk("model.safetensors");
    assert_ptr_equal(fresh.view, old.view);
    put(fresh);
    atomic_store(&old.view->model->generation->used, 0);
    generation_use(old.view->model->generation, 1);
    atomic_store(&old.view->model->generation->used, 0);
    assert_int_equal(change(), 0); /* a read is */
    generation_use(old.view->model->generation, -1);
    atomic_store(&old.view->model->generation->used, 0);
    assert_int_equal(change(), 1);
    fresh = walk("model.safetensors");
    assert_int_not_equal(found_ino(&fresh), ino);
    assert_int_equal(found_ino(&old), ino);
    assert_string_equal(fresh.view->meld->word, "second");
    assert_string_equal(old.view->meld->word, "first");
    assert_int_equal(names_get(&names, VIEWS_ROOT_ID, &root), 0);
    assert_ptr_equal(root.view, fresh.view);
    put(root);
    put(fresh);
    put(old);
}

static void a_change_of_nothing(void **state)
{
    struct found before = walk(""), after;

    (void)state;
    scan(true);
    assert_int_equal(change(), 0);
    after = walk("");
    assert_ptr_equal(before.view, after.view);
    put(before);
    put(after);
}

static void what_is_wrong_changes_nothing(void **state)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    (void)state;
    put_text("a.yml", "wrong");
    scan(true);
    assert_int_equal(change(), 0);
    recipes_describe(recipes, out);
    fclose(out);
    assert_says(text, "reload_error ");
    assert_says(text, "a.yml:1:1: is wrong");
    free(text);
    is_at("a=1", "a=1");
}

static void name_generation(char *name, size_t room)
{
    struct found root = walk("");

    snprintf(name, room, "generation=%016llx",
             (unsigned long long)generation_fingerprint(root.view->model->generation));
    put(root);
}

static void generations(void **state)
{
    char first[64], path[128], canonical[128];
    struct found found;

    (void)state;
    name_generation(first, sizeof(first));
    put_text("a.yml", "second");
    scan(true);
    assert_int_equal(change(), 1);
    found = walk(first);
    assert_string_equal(found.view->meld->word, "first");
    put(found);
    snprintf(path, sizeof(path), "%s/b=1/a=01", first);
    snprintf(canonical, sizeof(canonical), "%s/a=1/b=1", first);
    is_at(path, canonical);
    snprintf(path, sizeof(path), "%s/%s", first, first);
    refuse(path, "directory of a recipe only");
    refuse("generation=123", "give the 16 digits");
    refuse("generation=0123456789ABCDEF", "give the 16 digits");
    refuse("generation=0123456789abcdef", "nobody holds it");
    for (int i = 0; i < 3; i++) {
        put_text("a.yml", (const char[]){(char)('p' + i), '\0'});
        scan(true);
        assert_int_equal(change(), 1);
    }
    refuse(first, "nobody holds it"); /* only a few recent ones stay */
}

static void back_to_an_older_one(void **state)
{
    struct found first = walk(""), again;

    (void)state;
    put_text("a.yml", "second");
    scan(true);
    assert_int_equal(change(), 1);
    put_text("a.yml", "first");
    scan(true);
    assert_int_equal(change(), 1);
    again = walk("");
    assert_ptr_equal(first.view, again.view);
    put(first);
    put(again);
}

static void folder_lists(const char *expected)
{
    struct recipe_names list;
    char text[256] = "";

    assert_int_equal(recipes_names(recipes, &list), 0);
    for (size_t i = 0; i < list.n; i++)
        sprintf(text + strlen(text), "%s ", list.list[i].name);
    recipe_names_fini(&list);
    assert_string_equal(text, expected);
}

static void a_folder(void **state)
{
    struct found root;

    (void)state;
    folder_lists("one two.x ");
    is_at("one/b=1/a=1", "one/a=1/b=1");
    is_at("two.x/stage", "two.x/stage");
    refuse("bad", "there is no such recipe");
    refuse("a=1", "there is no such recipe");
    assert_int_equal(names_get(&names, VIEWS_ROOT_ID, &root), 0);
    assert_null(root.view);
    assert_true(found_is_folder(&root));
    assert_int_equal(found_ino(&root), 1);
}

/* Of an idle recipe: files are looked up without its plan, variants need it, but for those that are there. */
static void a_plan_that_was_dropped(void **state)
{
    struct found one = walk("one"), variant = walk("one/a=1"), at;
    struct meld *meld = one.view->model->meld;
    struct err err;

    (void)state;
    atomic_store(&meld->dropped, true);
    is_at("one/config.json", "one/config.json");
    is_at("one/a=1/config.json", "one/a=1/config.json");
    assert_int_equal(names_walk(&names, "one/a=1/b=2", &at, &err), -EAGAIN);
    assert_ptr_equal(at.view->model->meld, meld);
    put(at);
    assert_int_equal(names_walk(&names, "one/a=2", &at, &err), -EAGAIN);
    assert_ptr_equal(at.view, one.view);
    put(at);
    atomic_store(&meld->dropped, false);
    is_at("one/a=2", "one/a=2");
    put(variant);
    put(one);
}

static void recipes_come_and_go(void **state)
{
    struct found one = walk("one");

    (void)state;
    put_text("r/new.yml", "third");
    put_text("r/bad.yml", "good");
    assert_int_equal(unlink(scratch_path("r/one.yml")), 0);
    scan(false);
    assert_int_equal(change(), 3);
    folder_lists("bad new two.x ");
    refuse("one", "there is no such recipe");
    put(one);
    put_text("r/one.yml", "first");
    put_text("r/new.yml", "wrong");
    scan(false);
    assert_int_equal(change(), 1);
    folder_lists("bad new one two.x ");
}

static void twins(void **state)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    (void)state;
    put_text("r/one.yaml", "second");
    scan(false);
    change();
    recipes_describe(recipes, out);
    fclose(out);
    assert_says(text, "one.yml: not served, for ");
    assert_says(text, "one.yaml has the same name");
    free(text);
    assert_int_equal(unlink(scratch_path("r/one.yaml")), 0);
    scan(false);
    change();
    folder_lists("one two.x ");
}

static void recipes_that_are_gone_leave_nothing(void **state)
{
    int before = n_melds;

    (void)state;
    for (int i = 0; i < 50; i++) {
        char name[32];

        snprintf(name, sizeof(name), "r/x%d.yml", i);
        put_text(name, "some");
        scan(false);
        assert_int_equal(change(), 1);
        assert_int_equal(unlink(scratch_path(name)), 0);
        scan(false);
        assert_int_equal(change(), 1);
    }
    assert_int_equal(n_melds, before);
}

/* Every name of three characters from a few, in three directories: never more than an error. */
static void odd_names(void **state)
{
    static const char letters[] = {'a', '=', '.', '1', '/', '%', '\\', '\xff', '\n', ' ', '~'};
    static const char *const at[] = {"", "a=1", "stage"};
    const size_t n = sizeof(letters);

    (void)state;
    for (size_t i = 0; i < n * n * n * 3; i++) {
        char path[64];
        struct found found;
        struct err err;

        snprintf(path, sizeof(path), "%s/%c%c%c", at[i % 3], letters[i / 3 % n], letters[i / 3 / n % n],
                 letters[i / 3 / n / n]);
        if (names_walk(&names, path, &found, &err) == 0)
            put(found);
    }
    assert_int_equal(views_count(names.views).all, 1);
}

/* One thread looks names up, as the kernel would, while another edits and changes over. */
static void *look_up(void *arg)
{
    static const char *const paths[] = {"one/b=1/a=1/config.json", "two.x/stage/a=1", "one/model.safetensors",
                                        "bad", "two.x/a=3/b=02"};
    atomic_bool *stop = arg;

    for (size_t i = 0; !atomic_load(stop); i++) {
        struct recipe_names list;
        struct found found;
        uint64_t slot;
        struct err err;

        if (names_walk(&names, paths[i % 5], &found, &err) < 0)
            continue;
        views_known(names.views, found.view);
        if (recipes_names(recipes, &list) == 0)
            recipe_names_fini(&list);
        slot = found.view->slot;
        views_put(names.views, found.view);
        views_forget(names.views, slot, 1);
    }
    return NULL;
}

static void lookups_during_changes(void **state)
{
    pthread_t threads[3];
    atomic_bool stop = false;

    (void)state;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look_up, &stop), 0);
    for (int i = 0; i < 200; i++) {
        put_text("r/one.yml", (const char[]){(char)('a' + i % 5), '\0'});
        put_text("r/bad.yml", i % 2 ? "wrong" : "good");
        if (i % 3)
            unlink(scratch_path("r/two.x.yaml"));
        else
            put_text("r/two.x.yaml", "second");
        scan(false);
        change();
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(files_and_folders, setup, teardown),
        cmocka_unit_test_setup_teardown(variants, setup, teardown),
        cmocka_unit_test_setup_teardown(one_view_each, setup, teardown),
        cmocka_unit_test_setup_teardown(documents, setup, teardown),
        cmocka_unit_test_setup_teardown(reload, setup, teardown),
        cmocka_unit_test_setup_teardown(a_change_of_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_wrong_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(generations, setup, teardown),
        cmocka_unit_test_setup_teardown(back_to_an_older_one, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder, setup_folder, teardown),
        cmocka_unit_test_setup_teardown(a_plan_that_was_dropped, setup_folder, teardown),
        cmocka_unit_test_setup_teardown(recipes_come_and_go, setup_folder, teardown),
        cmocka_unit_test_setup_teardown(twins, setup_folder, teardown),
        cmocka_unit_test_setup_teardown(recipes_that_are_gone_leave_nothing, setup_folder, teardown),
        cmocka_unit_test_setup_teardown(odd_names, setup, teardown),
        cmocka_unit_test_setup_teardown(lookups_during_changes, setup_folder, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
