#include "cachedir.h"

#include "fail_alloc.h"
#include "scratch_dir.h"

static void expect(const char *cache, const char *home, const char *path)
{
    char *found;

    if (cache)
        setenv("XDG_CACHE_HOME", cache, 1);
    else
        unsetenv("XDG_CACHE_HOME");
    if (home)
        setenv("HOME", home, 1);
    else
        unsetenv("HOME");
    found = cachedir_path();
    assert_non_null(found);
    assert_string_equal(found, path);
    free(found);
}

static void the_first_that_is_ours(void **state)
{
    char own[512], file[512];

    (void)state;
    snprintf(own, sizeof(own), "%s", scratch_path("own")); /* eight further calls follow */
    snprintf(file, sizeof(file), "%s", scratch_path("file"));
    assert_int_equal(mkdir(own, 0700), 0);
    put_text("file", "");
    expect(own, scratch_dir, scratch_path("own/meldfs"));
    expect(scratch_path("own/new"), scratch_dir, scratch_path("own/new/meldfs"));
    expect(scratch_path("no/new"), own, scratch_path("own/.cache/meldfs"));
    expect(NULL, own, scratch_path("own/.cache/meldfs"));
    expect("", own, scratch_path("own/.cache/meldfs"));
    expect("own", own, scratch_path("own/.cache/meldfs"));
    expect(file, own, scratch_path("own/.cache/meldfs"));
    expect(file, file, "/var/cache/meldfs");
    expect(NULL, NULL, "/var/cache/meldfs");
}

static void what_is_another_users_is_not_taken(void **state)
{
    const char *theirs = scratch_path("theirs");

    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(mkdir(theirs, 0777), 0);
    assert_int_equal(chown(theirs, 12345, 12345), 0);
    expect(theirs, theirs, "/var/cache/meldfs");
    expect(scratch_path("theirs/new"), scratch_dir, scratch_path(".cache/meldfs"));
}

static int path_once(void)
{
    char *path = cachedir_path();

    free(path);
    return path ? 0 : -ENOMEM;
}

static void memory_runs_out(void **state)
{
    (void)state;
    assert_int_equal(refuse_each_alloc(path_once()), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_first_that_is_ours, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(what_is_another_users_is_not_taken, scratch_setup, scratch_teardown),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
