#include <errno.h>

#include "model.h"

#include "scratch_dir.h"

#include "fail_alloc.h"

static struct model_search search;
static struct model_place place;

static int setup(void **state)
{
    static char cwd[100], yaml_dir[100], cache[100];
    int ret = scratch_setup(state);

    snprintf(cwd, sizeof(cwd), "%s", scratch_path("cwd"));
    snprintf(yaml_dir, sizeof(yaml_dir), "%s", scratch_path("yaml"));
    snprintf(cache, sizeof(cache), "%s", scratch_path("hub"));
    search = (struct model_search){cwd, yaml_dir, cache};
    mkdir(cwd, 0755);
    mkdir(yaml_dir, 0755);
    return ret;
}

/* As config splits a name. */
static struct model_ref ref(const char *written)
{
    static char path[200], revision[200];
    struct model_ref out = {.written = written, .path = path};
    char *end;

    snprintf(path, sizeof(path), "%s", written);
    if ((end = strchr(path, '+'))) {
        *end = '\0';
        out.adapter = end + 1;
    }
    if ((end = strchr(path, '@'))) {
        *end = '\0';
        snprintf(revision, sizeof(revision), "%s", end + 1);
        out.revision = revision;
    }
    return out;
}

static int find(const char *written, struct err *err)
{
    struct model_ref model = ref(written);

    return model_find(&model, &search, &place, err);
}

static void make_dir(const char *path)
{
    char file[300];

    snprintf(file, sizeof(file), "%s/config.json", path);
    put_text(file, "{}");
}

static void expect_found(const char *written, const char *want_dir, const char *want_name, bool want_hub)
{
    struct err err = {""};

    find(written, &err);
    assert_string_equal(err.text, "");
    assert_string_equal(place.dir, scratch_path(want_dir));
    assert_string_equal(place.name, want_name);
    assert_int_equal(place.hub, want_hub);
    model_place_fini(&place);
}

static void expect_missing(const char *written, int code, const char *says)
{
    struct err err = {""};

    assert_int_equal(find(written, &err), code);
    assert_says(err.text, says);
    assert_null(place.dir);
    assert_null(place.name);
    assert_int_equal(find(written, NULL), code);
}

static void test_paths(void **state)
{
    (void)state;
    make_dir("cwd/m");
    make_dir("yaml/m");
    make_dir("yaml/n");
    make_dir("yaml/org/n");
    make_dir("abs/o");
    expect_found("m", "cwd/m", "m", false);
    expect_found("m//", "cwd/m", "m", false);
    expect_found("./m", "cwd/m", "m", false);
    expect_found("n", "yaml/n", "n", false);
    expect_found("../yaml/m", "yaml/m", "m", false);
    expect_found("org/n", "yaml/org/n", "n", false);
    expect_found("../abs/o/.", "abs/o", "o", false);
}

static void test_name_of_dots(void **state)
{
    (void)state;
    make_dir("cwd/m");
    search.cwd = scratch_path("cwd/m");
    expect_found(".", "cwd/m", "m", false);
    expect_found("..", "cwd", "cwd", false);
    expect_found("../", "cwd", "cwd", false);
    assert_int_equal(find("/", NULL), 0);
    assert_string_equal(place.dir, "/");
    assert_string_equal(place.name, "/");
    model_place_fini(&place);
}

static void test_no_cwd(void **state)
{
    (void)state;
    make_dir("cwd/m");
    make_dir("yaml/m");
    search.cwd = NULL;
    expect_found("m", "yaml/m", "m", false);
    search.yaml_dir = NULL;
    expect_missing("./m", -ENOENT, "model \"./m\": no such directory (looked for nothing)");
}

static void test_absolute(void **state)
{
    char written[300];

    (void)state;
    make_dir("abs/o");
    snprintf(written, sizeof(written), "%s", scratch_path("abs/o"));
    expect_found(written, "abs/o", "o", false);
    snprintf(written, sizeof(written), "%s", scratch_path("abs/p"));
    expect_missing(written, -ENOENT, "no such directory (looked for /tmp/");
}

static void test_links(void **state)
{
    (void)state;
    make_dir("abs/v3");
    assert_int_equal(symlink("../abs/v3", scratch_path("cwd/current")), 0);
    expect_found("current", "abs/v3", "current", false);
}

static void test_home(void **state)
{
    char *old = getenv("HOME") ? strdup(getenv("HOME")) : NULL;

    (void)state;
    make_dir("home/m");
    setenv("HOME", scratch_path("home"), 1);
    expect_found("~/m", "home/m", "m", false);
    expect_found("~", "home", "home", false);
    expect_missing("~/x", -ENOENT, scratch_path("home/x"));
    expect_missing("~m", -ENOENT, "cwd/~m");
    if (old)
        setenv("HOME", old, 1);
    else
        unsetenv("HOME");
    free(old);
}

static void test_plus_and_at_in_paths(void **state)
{
    (void)state;
    make_dir("cwd/a+b");
    make_dir("cwd/c@d");
    make_dir("cwd/e");
    expect_found("a+b", "cwd/a+b", "a+b", false);
    expect_found("c@d", "cwd/c@d", "c@d", false);
    expect_found("e+adapter", "cwd/e", "e", false);
    assert_int_equal(find("e+adapter", NULL), 0);
    assert_true(place.adapted);
    model_place_fini(&place);
    expect_found("e@main", "cwd/e", "e", false);
    make_dir("yaml/e+adapter");
    expect_found("e+adapter", "yaml/e+adapter", "e+adapter", false);
    assert_int_equal(find("e+adapter", NULL), 0);
    assert_false(place.adapted);
    model_place_fini(&place);
}

static void test_missing_path(void **state)
{
    char says[400];

    (void)state;
    snprintf(says, sizeof(says), "model \"./x\": no such directory (looked for %s, %s)",
             scratch_path("cwd/./x"), scratch_path("yaml/./x"));
    expect_missing("./x", -ENOENT, says);
    expect_missing("a/b/c", -ENOENT, "model \"a/b/c\": no such directory");
    expect_missing("two words", -ENOENT, "model \"two words\": no such directory");
    expect_missing("", -ENOENT, "model \"\": no such directory (looked for nothing)");
    expect_missing("+x", -ENOENT, "model \"+x\": no such directory");
}

static void test_no_directory(void **state)
{
    (void)state;
    put_text("cwd/m.safetensors", "");
    expect_missing("./m.safetensors", -ENOTDIR, "not a directory; name the folder that holds the model");
    expect_missing("./m.safetensors/x", -ENOENT, "no such directory");
}

static void test_not_allowed(void **state)
{
    (void)state;
    make_dir("cwd/locked/m");
    assert_int_equal(chmod(scratch_path("cwd/locked"), 0), 0);
    if (geteuid() == 0)
        assert_int_equal(seteuid(65534), 0);
    expect_missing("./locked/m", -EACCES, "model \"./locked/m\": Permission denied");
    if (getuid() == 0)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(scratch_path("cwd/locked"), 0755), 0);
}

static void test_hub(void **state)
{
    (void)state;
    put_text("hub/models--org--n/refs/main", "abc123\n");
    put_text("hub/models--org--n/refs/v1.0", "def456");
    put_text("hub/models--org--n/refs/refs/pr/1", "def456");
    make_dir("hub/models--org--n/snapshots/abc123");
    make_dir("hub/models--org--n/snapshots/def456");
    put_text("hub/models--gpt2/refs/main", "abc");
    make_dir("hub/models--gpt2/snapshots/abc");
    expect_found("org/n", "hub/models--org--n/snapshots/abc123", "org/n", true);
    expect_found("org/n@v1.0", "hub/models--org--n/snapshots/def456", "org/n", true);
    expect_found("org/n@refs/pr/1", "hub/models--org--n/snapshots/def456", "org/n", true);
    expect_found("org/n@def456", "hub/models--org--n/snapshots/def456", "org/n", true);
    expect_found("org/n@v1.0+some/adapter", "hub/models--org--n/snapshots/def456", "org/n", true);
    expect_found("gpt2", "hub/models--gpt2/snapshots/abc", "gpt2", true);
    put_text("cwd/gpt2", "a file is no model");
    expect_found("gpt2", "hub/models--gpt2/snapshots/abc", "gpt2", true);
    make_dir("cwd/org/n");
    expect_found("org/n", "cwd/org/n", "n", false);
}

static void test_hub_missing(void **state)
{
    char says[400];

    (void)state;
    snprintf(says, sizeof(says),
             "model \"org/n\" is neither a directory nor in the hub cache (%s): hf download org/n",
             search.hub);
    expect_missing("org/n", -ENOENT, says);
    expect_missing("org/n@v2", -ENOENT, "hf download org/n --revision v2");
    put_text("hub/models--org--n/refs/main", "gone");
    expect_missing("org/n@v2", -ENOENT, "revision v2 of model \"org/n\" is not in the hub cache");
    expect_missing("org/n", -ENOENT, "revision main of model \"org/n\" is not in the hub cache");
}

static void test_hub_hostile(void **state)
{
    (void)state;
    make_dir("hub/models--org--n/snapshots/abc");
    make_dir("hub/outside");
    put_text("hub/models--org--n/refs/main", "../../outside");
    expect_missing("org/n", -ENOENT, "hf download");
    put_text("hub/models--org--n/refs/main", "..");
    expect_missing("org/n", -ENOENT, "hf download");
    put_text("hub/models--org--n/refs/main", "");
    expect_missing("org/n", -ENOENT, "hf download");
    put_text("hub/models--org--n/refs/main",
             "0123456789012345678901234567890123456789012345678901234567890123456789");
    expect_missing("org/n", -ENOENT, "hf download");
    expect_missing("org/n@../../x", -ENOENT, "no such directory");
    expect_missing("org/..", -ENOENT, "no such directory");
    expect_missing("org/", -ENOENT, "no such directory");
}

static void test_hub_variables(void **state)
{
    static const char *const variables[] = {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME",
                                            "XDG_CACHE_HOME", "HOME"};
    static const char *const below[] = {"", "", "/hub", "/huggingface/hub", "/.cache/huggingface/hub"};
    char *old[5], value[200], path[200];

    (void)state;
    search.hub = NULL;
    for (size_t i = 0; i < 5; i++) {
        old[i] = getenv(variables[i]) ? strdup(getenv(variables[i])) : NULL;
        setenv(variables[i], "", 1);
    }
    for (size_t i = 5; i-- > 0;) { /* each is stronger than those after it */
        snprintf(value, sizeof(value), "%s", scratch_path(variables[i]));
        setenv(variables[i], value, 1);
        snprintf(path, sizeof(path), "%s%s/models--org--n/refs/main", variables[i], below[i]);
        put_text(path, "abc");
        snprintf(path, sizeof(path), "%s%s/models--org--n/snapshots/abc", variables[i], below[i]);
        make_dir(path);
        expect_found("org/n", path, "org/n", true);
    }
    for (size_t i = 0; i < 5; i++) {
        if (old[i])
            setenv(variables[i], old[i], 1);
        else
            unsetenv(variables[i]);
        free(old[i]);
    }
}

static int find_and_free(const char *written, struct err *err)
{
    int ret = find(written, err);

    model_place_fini(&place);
    return ret;
}

static void test_no_memory(void **state)
{
    struct err err = {""};

    (void)state;
    make_dir("yaml/m");
    put_text("hub/models--org--n/refs/main", "abc123");
    make_dir("hub/models--org--n/snapshots/abc123");
    assert_in_range(refuse_each_alloc(find_and_free("m+x", &err)), 8, 20);
    assert_string_equal(err.text, "out of memory");
    err.text[0] = '\0';
    assert_in_range(refuse_each_alloc(find_and_free("org/n", &err)), 8, 20);
    assert_string_equal(err.text, "out of memory");
}

#define in_scratch(test) cmocka_unit_test_setup_teardown(test, setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_scratch(test_paths),
        in_scratch(test_name_of_dots),
        in_scratch(test_no_cwd),
        in_scratch(test_absolute),
        in_scratch(test_links),
        in_scratch(test_home),
        in_scratch(test_plus_and_at_in_paths),
        in_scratch(test_missing_path),
        in_scratch(test_no_directory),
        in_scratch(test_not_allowed),
        in_scratch(test_hub),
        in_scratch(test_hub_missing),
        in_scratch(test_hub_hostile),
        in_scratch(test_hub_variables),
        in_scratch(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
