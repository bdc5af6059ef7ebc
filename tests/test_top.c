#include "top_view.h"

#include "fail_alloc.h"
#include "scratch_dir.h"

#define BEFORE                                                                                       \
    "recipe /a.yml\npid 7\ngeneration 00ab\nuptime_seconds 60.0\nmemory_bytes 100\nhits 10\nmisses " \
    "10\njoined 0\n"                                                                                 \
    "failed 2\nserved_bytes 1000000\ncomputed_bytes 0\nread_bytes 0\nstats_done 3\n"
#define NOW                                                                                                \
    "recipe /a.yml\npid 7\ngeneration 00ab\nuptime_seconds 62.0\nmemory_bytes 314572800\nhits 25\nmisses " \
    "14\n"                                                                                                 \
    "joined 1\nfailed 5\nserved_bytes 401000000\ncomputed_bytes 3000\nread_bytes 2000000000\n"             \
    "cache_bytes 268435456\ncache_used_bytes 134217728\nstats_kept_bytes 1048576\nplan_bytes "             \
    "2097152\nstats_done 5\n"                                                                              \
    "stats_running 2\nstats_todo 10\n"

/* All lines, a newline behind each, freed by the next call. */
static const char *render(const struct top_mount *mounts, size_t n, size_t width, size_t height)
{
    static char text[16384];
    struct top_screen screen;
    size_t len = 0;

    assert_int_equal(top_render("head", mounts, n, width, height, &screen), 0);
    assert_true(screen.n <= height);
    text[0] = '\0';
    for (size_t i = 0; i < screen.n; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s\n", screen.lines[i]);
    top_screen_fini(&screen);
    return text;
}

static void a_mount_has_its_figures(void **state)
{
    struct top_mount mount = {"/mnt/a", NOW, BEFORE, 2, NULL};

    (void)state;
    assert_string_equal(
        render(&mount, 1, 200, 50),
        "head\n"
        "\n"
        "/mnt/a  up 1 min 2 s, pid 7, generation 00ab\n"
        "  served 200 MB/s  computed 1.50 kB/s  sources 1.00 GB/s  cache hits 75 %  errors 5 (3 new)\n"
        "  memory 300 MiB: cache 128 MiB of 256 MiB, statistics 1.00 MiB, plans 2.00 MiB, other 169 MiB\n"
        "  statistics of 5 tensors, 2 under way, 10 to do, 10.0 s left\n");
}

static void the_first_time_has_no_rates(void **state)
{
    struct top_mount mount = {"/mnt/a", NOW, NULL, 0, NULL};
    const char *text = render(&mount, 1, 200, 50);

    (void)state;
    assert_says(text, "served -  computed -  sources -  cache hits -  errors 5\n");
    assert_says(text, "2 under way, 10 to do\n");
    mount.now = "stats_done 5\nstats_loaded 4\nstats_running 0\n";
    assert_says(render(&mount, 1, 200, 50), "of 5 tensors, 4 more found on disk, 0 under way\n");
}

/* Another daemon at the same place: its counters began anew. */
static void a_new_daemon_has_no_past(void **state)
{
    struct top_mount mount = {"/mnt/a", "pid 8\nserved_bytes 5\n", BEFORE, 1, NULL};

    (void)state;
    assert_says(render(&mount, 1, 200, 50), "served -  computed -");
}

static void nothing_asked_has_no_hit_rate(void **state)
{
    struct top_mount mount = {"/mnt/a", NOW, NOW, 1, NULL};

    (void)state;
    assert_says(render(&mount, 1, 200, 50),
                "served 0 bytes/s  computed 0 bytes/s  sources 0 bytes/s  cache hits -");
}

static void who_is_silent_is_told(void **state)
{
    struct top_mount mounts[] = {{"/mnt/a", NULL, BEFORE, 1, "has died"}, {"/mnt/b", NOW, BEFORE, 1, NULL}};
    const char *text = render(mounts, 2, 200, 50);

    (void)state;
    assert_says(text, "/mnt/a\n  has died\n\n/mnt/b");
    assert_says(render(NULL, 0, 80, 24), "nothing is mounted");
}

static void mounts_without_room_are_counted(void **state)
{
    struct top_mount mounts[20];

    (void)state;
    for (size_t i = 0; i < 20; i++)
        mounts[i] = (struct top_mount){"/mnt/a", NOW, BEFORE, 1, NULL};
    assert_says(render(mounts, 20, 80, 24), "... and 16 more: make the window higher\n");
    assert_says(render(mounts, 2, 80, 10), "... and 1 more");
    assert_null(strstr(render(mounts, 2, 80, 11), "more"));
    assert_string_equal(render(mounts, 2, 80, 3), "head\n2 mounts: make the window higher\n");
    assert_string_equal(render(mounts, 2, 80, 1), "head\n");
    assert_string_equal(render(mounts, 2, 80, 0), "");
}

static size_t n_characters(const char *line)
{
    size_t n = 0;

    for (; *line; line++)
        n += ((unsigned char)*line & 0xc0) != 0x80;
    return n;
}

/* Any window, names of any bytes: no line is longer, nothing in it moves the cursor. */
static void lines_fit(void **state)
{
    struct top_mount mounts[] = {
        {"/m\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80/\x1b[2J\n\x7f\xff\xc2\x9b", NOW, BEFORE, 1, NULL},
        {"/b", NULL, NULL, 0, "\x1b]0;title\a"}};
    struct top_screen screen;

    (void)state;
    for (size_t width = 0; width < 120; width++) {
        assert_int_equal(top_render("meldfs top", mounts, 2, width, 40, &screen), 0);
        for (size_t i = 0; i < screen.n; i++) {
            assert_true(n_characters(screen.lines[i]) <= width);
            for (const char *c = screen.lines[i]; *c; c++)
                assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
            assert_null(strstr(screen.lines[i], "\xc2\x9b"));
        }
        if (width == 100)
            assert_says(screen.lines[2], "/m\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80/?[2J????");
        top_screen_fini(&screen);
    }
}

static int render_once(void)
{
    struct top_mount mount = {"/mnt/a", NOW, BEFORE, 1, NULL};
    struct top_screen screen;
    int ret = top_render("head", &mount, 1, 80, 24, &screen);

    top_screen_fini(&screen);
    return ret;
}

static void memory_runs_out(void **state)
{
    (void)state;
    assert_int_equal(refuse_each_alloc(render_once()), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mount_has_its_figures),
        cmocka_unit_test(the_first_time_has_no_rates),
        cmocka_unit_test(a_new_daemon_has_no_past),
        cmocka_unit_test(nothing_asked_has_no_hit_rate),
        cmocka_unit_test(who_is_silent_is_told),
        cmocka_unit_test(mounts_without_room_are_counted),
        cmocka_unit_test(lines_fit),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
