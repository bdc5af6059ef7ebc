#include "watch.h"

#include "scratch_dir.h"

#include <poll.h>

#include "cli.h"

static struct watch watch;

static int setup(void **state)
{
    struct err err;

    if (scratch_setup(state) < 0 || watch_open(&watch, &err) < 0)
        return -1;
    return watch_set(&watch, 0, scratch_dir, &err);
}

static int teardown(void **state)
{
    watch_close(&watch);
    return scratch_teardown(state);
}

/* As the thread that watches does, for so long; how often a change was told of. */
static int changes(double seconds)
{
    double end = cli_clock() + seconds;
    int n = 0;

    while (cli_clock() < end) {
        struct pollfd ready = {watch.fd, POLLIN, 0};
        int ms = watch_wait_ms(&watch, cli_clock());

        poll(&ready, 1, ms < 0 || ms > 20 ? 20 : ms);
        watch_read(&watch, cli_clock());
        n += watch_due(&watch, cli_clock());
    }
    return n;
}

static void nothing_happens(void **state)
{
    (void)state;
    assert_int_equal(changes(0.2), 0);
    assert_int_equal(watch_wait_ms(&watch, cli_clock()), -1);
}

static void ways_to_change(void **state)
{
    (void)state;
    put_text("a.yml", "1");
    assert_int_equal(changes(0.4), 1);
    put_text("a.yml", "2");
    assert_int_equal(changes(0.4), 1);
    put_text("b", "3");
    assert_int_equal(rename(scratch_path("b"), scratch_path("a.yml")), 0);
    assert_int_equal(changes(0.4), 1);
    assert_int_equal(symlink("a.yml", scratch_path("c")), 0);
    assert_int_equal(changes(0.4), 1);
    assert_int_equal(unlink(scratch_path("a.yml")), 0);
    assert_int_equal(changes(0.4), 1);
}

static void many_changes_are_one(void **state)
{
    (void)state;
    for (int i = 0; i < 100; i++)
        put_text("a.yml", "x");
    assert_int_equal(changes(0.5), 1);
}

/* By the clock that is given: a change every 10 ms for 3 seconds. */
static void a_flood_is_told_of_now_and_then(void **state)
{
    double now = 1000;
    int n = 0;

    (void)state;
    for (int i = 0; i < 300; i++) {
        put_text("a.yml", "x");
        watch_read(&watch, now += 0.01);
        assert_true(watch_wait_ms(&watch, now) <= 51);
        n += watch_due(&watch, now);
    }
    assert_in_range(n, 5, 7);
    watch_read(&watch, now += 0.06);
    assert_true(watch_due(&watch, now));
    assert_false(watch_due(&watch, now + 10));
}

static void a_folder_that_is_replaced(void **state)
{
    struct err err;

    (void)state;
    assert_int_equal(mkdir(scratch_path("sub"), 0755), 0);
    assert_int_equal(watch_set(&watch, 1, scratch_path("sub"), &err), 0);
    changes(0.2);
    assert_int_equal(rename(scratch_path("sub"), scratch_path("old")), 0);
    assert_int_equal(changes(0.3), 1);
    assert_in_range(watch_wait_ms(&watch, cli_clock()), 1, 1000); /* it is looked for */
    assert_int_equal(mkdir(scratch_path("sub"), 0755), 0);
    assert_true(changes(0.8) > 0);
    put_text("sub/a.yml", "x");
    assert_int_equal(changes(0.3), 1);
    put_text("old/a.yml", "x");
    assert_int_equal(changes(0.3), 0);
}

static void another_folder_in_its_place(void **state)
{
    struct err err;

    (void)state;
    assert_int_equal(mkdir(scratch_path("a"), 0755), 0);
    assert_int_equal(mkdir(scratch_path("b"), 0755), 0);
    assert_int_equal(symlink(".", scratch_path("same")), 0);
    assert_int_equal(watch_set(&watch, 1, scratch_path("a"), &err), 0);
    assert_int_equal(watch_set(&watch, 1, scratch_path("b"), &err), 0);
    changes(0.3);
    put_text("a/x", "1");
    assert_int_equal(changes(0.3), 0);
    put_text("b/x", "1");
    assert_int_equal(changes(0.3), 1);
    assert_int_equal(watch_set(&watch, 1, scratch_path("same"), &err), 0);
    assert_int_equal(watch_set(&watch, 1, scratch_path("b"), &err), 0);
    changes(0.3);
    put_text("x", "1"); /* the other place still has it */
    assert_int_equal(changes(0.3), 1);
}

/* The kernel keeps 16384 events unless told otherwise. */
static void more_events_than_are_kept(void **state)
{
    struct err err;

    (void)state;
    assert_int_equal(mkdir(scratch_path("sub"), 0755), 0);
    assert_int_equal(watch_set(&watch, 1, scratch_path("sub"), &err), 0);
    for (int i = 0; i < 18000; i++)
        close(open(scratch_path(i & 1 ? "sub/a" : "sub/b"), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    assert_int_equal(rename(scratch_path("sub"), scratch_path("old")), 0);
    assert_int_equal(mkdir(scratch_path("sub"), 0755), 0);
    assert_true(changes(0.8) > 0);
    put_text("sub/a.yml", "x");
    assert_int_equal(changes(0.3), 1);
}

static void folders_that_cannot_be(void **state)
{
    struct err err = {""};

    (void)state;
    assert_int_equal(watch_set(&watch, 0, scratch_dir, &err), 0); /* once more */
    assert_int_equal(watch_set(&watch, 1, scratch_dir, &err), 0);
    assert_null(watch.folders[1].path);
    assert_true(watch_set(&watch, 1, scratch_path("none"), &err) < 0);
    assert_says(err.text, "none: cannot be watched");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_happens, setup, teardown),
        cmocka_unit_test_setup_teardown(ways_to_change, setup, teardown),
        cmocka_unit_test_setup_teardown(many_changes_are_one, setup, teardown),
        cmocka_unit_test_setup_teardown(a_flood_is_told_of_now_and_then, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder_that_is_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(another_folder_in_its_place, setup, teardown),
        cmocka_unit_test_setup_teardown(more_events_than_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(folders_that_cannot_be, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
