#include "mountinfo.h"

#include "fail_alloc.h"
#include "scratch_dir.h"

static const char table[] =
    "24 29 0:22 / /proc rw,relatime shared:5 - proc proc rw\n"
    "40 29 0:39 / /mnt/chat ro,nosuid shared:9 - fuse.meldfs /srv/chat.yml ro,user_id=1000,group_id=100\n"
    "41 29 0:40 / /m\\040nt/a\\134b\\011c ro - fuse.meldfs /srv/a\\040b,c.yml ro,user_id=0,group_id=0\n"
    "42 29 0:41 / /mnt/other ro - fuse.sshfs host: ro,user_id=7\n"
    "43 29 0:42 / /mnt/twice ro - fuse.meldfs /old.yml ro,user_id=0\n"
    "44 43 0:43 / /mnt/twice ro - fuse.meldfs /new.yml ro,user_id=0\n"
    "45 29 0:44 / /mnt/under ro - fuse.meldfs /under.yml ro,user_id=0\n"
    "46 45 0:45 / /mnt/under rw - tmpfs tmpfs rw\n"
    "garbage\n"
    "47 29\n"
    "48 29 0:46 / /mnt/cut ro - fuse.meldfs\n"
    "\n";

static int parse(struct mount_list *list)
{
    FILE *in = fmemopen((void *)(uintptr_t)table, sizeof(table) - 1, "r");
    int ret;

    assert_non_null(in);
    ret = mountinfo_parse(in, list);
    fclose(in);
    return ret;
}

static void ours_are_found(void **state)
{
    struct mount_list list = {0};
    const struct mount_entry *mount;

    (void)state;
    assert_int_equal(parse(&list), 0);
    assert_int_equal(list.n, 5);
    mount = mountinfo_find(&list, "/mnt/chat");
    assert_non_null(mount);
    assert_string_equal(mount->source, "/srv/chat.yml");
    assert_int_equal(mount->major, 0);
    assert_int_equal(mount->minor, 39);
    assert_int_equal(mount->uid, 1000);
    mountinfo_free(&list);
    assert_int_equal(list.n, 0);
    mountinfo_free(&list);
}

static void names_are_unescaped(void **state)
{
    struct mount_list list = {0};
    const struct mount_entry *mount;

    (void)state;
    assert_int_equal(parse(&list), 0);
    mount = mountinfo_find(&list, "/m nt/a\\b\tc");
    assert_non_null(mount);
    assert_string_equal(mount->source, "/srv/a b,c.yml");
    mountinfo_free(&list);
}

static void the_topmost_is_seen(void **state)
{
    struct mount_list list = {0};

    (void)state;
    assert_int_equal(parse(&list), 0);
    assert_string_equal(mountinfo_find(&list, "/mnt/twice")->source, "/new.yml");
    assert_null(mountinfo_find(&list, "/mnt/under"));
    assert_null(mountinfo_find(&list, "/mnt/other"));
    assert_null(mountinfo_find(&list, "/mnt/chat/"));
    assert_null(mountinfo_find(&list, "/mnt/cut"));
    mountinfo_free(&list);
}

static int try_parse(void)
{
    struct mount_list list = {0};
    FILE *in = fopen(scratch_path("table"), "re");
    int ret = mountinfo_parse(in, &list);

    fclose(in);
    mountinfo_free(&list);
    return ret;
}

static void memory_runs_out(void **state)
{
    struct mount_list list = {0};

    (void)state;
    put_text("table", table);
    for (long refused = 0; refused < 15; refused++) {
        FILE *in = fopen(scratch_path("table"), "re");

        assert_non_null(in);
        allocs_left = refused;
        assert_int_equal(mountinfo_parse(in, &list), -ENOMEM);
        allocs_left = -1;
        fclose(in);
        mountinfo_free(&list);
    }
    assert_int_equal(try_parse(), 0);
}

static void absolute(const char *path, const char *expected)
{
    struct err err = {""};
    char *out = mountinfo_absolute(path, &err);

    if (!out)
        fail_msg("%s: %s", path, err.text);
    assert_string_equal(out, expected);
    free(out);
}

static void paths_become_absolute(void **state)
{
    char here[512], expected[600];

    (void)state;
    put_text("folder/file", "");
    assert_int_equal(symlink("folder", scratch_path("link")), 0);
    assert_int_equal(symlink("nowhere", scratch_path("dangling")), 0);
    assert_int_equal(chdir(scratch_dir), 0);
    assert_non_null(getcwd(here, sizeof(here)));
    snprintf(expected, sizeof(expected), "%s/folder", here);
    absolute("folder", expected);
    absolute("folder//", expected);
    absolute("./folder/.", expected);
    absolute(scratch_path("folder"), expected);
    absolute("link/.", expected);
    snprintf(expected, sizeof(expected), "%s/folder/file", here);
    absolute("link/file", expected);
    /* The last component is not looked at: it may be a mount that hangs. */
    snprintf(expected, sizeof(expected), "%s/dangling", here);
    absolute("dangling", expected);
    snprintf(expected, sizeof(expected), "%s/missing", here);
    absolute("missing", expected);
    absolute(".", here);
    absolute("/", "/");
    absolute("/tmp", "/tmp");
    absolute("//tmp//", "/tmp");
    assert_int_equal(chdir("/"), 0);
}

static void paths_that_are_none(void **state)
{
    struct err err;
    char path[5000];

    (void)state;
    memset(path, 'x', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    assert_null(mountinfo_absolute("", &err));
    assert_says(err.text, "not a path: empty");
    assert_null(mountinfo_absolute(path, &err));
    assert_says(err.text, "not a path: too long");
    assert_null(mountinfo_absolute("/nowhere-at-all/x", &err));
    assert_says(err.text, "/nowhere-at-all/: No such file");
}

static void the_kernels_list(void **state)
{
    struct mount_list list = {0};
    struct err err = {""};

    (void)state;
    if (mountinfo_read(&list, &err) != 0)
        fail_msg("%s", err.text);
    mountinfo_free(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ours_are_found),
        cmocka_unit_test(names_are_unescaped),
        cmocka_unit_test(the_topmost_is_seen),
        cmocka_unit_test_setup_teardown(memory_runs_out, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(paths_become_absolute, scratch_setup, scratch_teardown),
        cmocka_unit_test(paths_that_are_none),
        cmocka_unit_test(the_kernels_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
