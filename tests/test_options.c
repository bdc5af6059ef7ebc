#include "options.h"

#include "cli.h"
#include "fail_alloc.h"
#include "progress.h"
#include "scratch_dir.h"

static struct mount_options good(const char *list)
{
    struct mount_options options = {0};
    struct err err = {""};

    if (options_parse(list, &options, &err) != 0)
        fail_msg("%s: %s", list, err.text);
    return options;
}

static void bad(const char *list, const char *says)
{
    struct mount_options options = {0};
    struct err err = {""};

    assert_int_equal(options_parse(list, &options, &err), -EINVAL);
    assert_says(err.text, says);
}

static void ours_are_read(void **state)
{
    struct mount_options options = good("cache=64M,threads=3,strict,noprefetch,allow_other");

    (void)state;
    assert_int_equal(options.cache_bytes, 64 << 20);
    assert_int_equal(options.n_threads, 3);
    assert_true(options.strict);
    assert_true(options.no_prefetch);
    assert_true(options.allow_other);
}

static void nothing_given(void **state)
{
    struct mount_options options = good("");

    (void)state;
    assert_int_equal(options.cache_bytes, 0);
    assert_int_equal(options.n_threads, 0);
    assert_int_equal(options.seed, 0);
    assert_false(options.strict);
    assert_false(options.no_prefetch);
    assert_false(options.allow_other);
}

static void later_wins_and_lists_add_up(void **state)
{
    struct mount_options options = good("cache=1G,cache=2G");
    struct err err;

    (void)state;
    assert_int_equal(options.cache_bytes, 2ul << 30);
    assert_int_equal(options_parse("threads=2", &options, &err), 0);
    assert_int_equal(options.cache_bytes, 2ul << 30);
    assert_int_equal(options.n_threads, 2);
    assert_int_equal(options_parse("seed=18446744073709551615", &options, &err), 0);
    assert_true(options.seed == UINT64_MAX);
    assert_int_equal(options_parse("seed=-1", &options, &err), -EINVAL);
    assert_says(err.text, "seed=-1: give a whole number");
    assert_int_equal(options_parse("seed=18446744073709551616", &options, &err), -EINVAL);
}

static void those_of_fstab_change_nothing(void **state)
{
    struct mount_options options =
        good("rw,,defaults,noauto,nofail,user,user=joe,_netdev,x-systemd.automount,noexec,"
             "x-gvfs-name=a b,suid,dev,relatime,comment=hello,users,ro,");

    (void)state;
    assert_int_equal(options.cache_bytes, 0);
    assert_false(options.allow_other);
}

static void unknown_ones_are_named(void **state)
{
    (void)state;
    bad("ro,cahce=4M", "unknown option cahce=4M");
    bad("cache", "unknown option cache");
    bad("Strict", "unknown option Strict");
    bad("strict=1", "unknown option strict=1");
    bad("rw ", "unknown option rw ");
}

static void bad_values_are_named(void **state)
{
    static const char *const caches[] = {"cache=",   "cache=0",   "cache=0M", "cache=-1",   "cache=+1",
                                         "cache= 1", "cache=4MB", "cache=M",  "cache=1.5G", "cache=0x10"};
    static const char *const threads[] = {"threads=",
                                          "threads=0",
                                          "threads=-1",
                                          "threads=two",
                                          "threads=1025",
                                          "threads=2x",
                                          "threads=99999999999999999999"};

    (void)state;
    for (size_t i = 0; i < sizeof(caches) / sizeof(caches[0]); i++)
        bad(caches[i], caches[i]);
    for (size_t i = 0; i < sizeof(threads) / sizeof(threads[0]); i++)
        bad(threads[i], threads[i]);
    bad("cache=99999999999999999999", "too large");
    bad("cache=99999999999T", "too large");
}

static void sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } right[] = {{"1", 1},        {"4096", 4096},     {"3k", 3 << 10},    {"3K", 3 << 10},
                 {"5m", 5 << 20}, {"7G", 7ull << 30}, {"2T", 2ull << 40}, {"0", 0}};
    size_t bytes;

    (void)state;
    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
        assert_int_equal(options_size(right[i].text, &bytes), 0);
        assert_int_equal(bytes, right[i].bytes);
    }
    assert_int_equal(options_size("16777216T", &bytes), -ERANGE);
    assert_int_equal(options_size("16777215T", &bytes), 0);
    assert_int_equal(options_size("1kk", &bytes), -EINVAL);
}

static int try_parse(void)
{
    struct mount_options options = {0};
    struct err err;

    return options_parse("cache=1M", &options, &err);
}

static void memory_runs_out(void **state)
{
    (void)state;
    assert_int_equal(refuse_each_alloc(try_parse()), 1);
}

static void numbers_for_people(void **state)
{
    (void)state;
    assert_string_equal(cli_bytes(0).text, "0 bytes");
    assert_string_equal(cli_bytes(999).text, "999 bytes");
    assert_string_equal(cli_bytes(1000).text, "1.00 kB");
    assert_string_equal(cli_bytes(2514567890).text, "2.51 GB");
    assert_string_equal(cli_bytes(999999).text, "1.00 MB");
    assert_string_equal(cli_bytes(12345678).text, "12.3 MB");
    assert_string_equal(cli_bytes(UINT64_MAX).text, "18447 PB");
    assert_string_equal(cli_memory(256 << 20).text, "256 MiB");
    assert_string_equal(cli_memory(1023).text, "1023 bytes");
    assert_string_equal(cli_seconds(0.0123).text, "12 ms");
    assert_string_equal(cli_seconds(3.25).text, "3.2 s");
    assert_string_equal(cli_seconds(245).text, "4 min 5 s");
    assert_string_equal(cli_seconds(7385).text, "2 h 3 min");
    assert_string_equal(cli_seconds(100 * 3600).text, "4 d 4 h");
}

static void progress_is(uint64_t total, uint64_t from, uint64_t done, double seconds, const char *expected)
{
    struct progress progress = {.total = total, .from = from};
    char line[160];

    progress_line(line, sizeof(line), 200, &progress, done, seconds);
    assert_string_equal(line, expected);
}

static void progress_lines(void **state)
{
    struct progress progress = {.total = 1000000000};
    char line[160];

    (void)state;
    progress_is(1000000000, 0, 500000000, 2,
                "[############            ]  50 %  500 MB of 1.00 GB  250 MB/s  3 s left");
    progress_is(1000, 0, 0, 0, "[                        ]   0 %  0 bytes of 1.00 kB  0 bytes/s");
    progress_is(1000, 0, 1000, 1, "[########################] 100 %  1.00 kB of 1.00 kB  1.00 kB/s");
    progress_is(0, 0, 0, 1, "[########################] 100 %  0 bytes of 0 bytes  0 bytes/s");
    progress_line(line, sizeof(line), 30, &progress, 500000000, 2);
    assert_string_equal(line, "[############            ]  50");
}

/* What was there at the start took no time. */
static void progress_of_what_goes_on(void **state)
{
    (void)state;
    progress_is(1000000000, 500000000, 750000000, 1,
                "[##################      ]  75 %  750 MB of 1.00 GB  250 MB/s  2 s left");
    progress_is(1000, 500, 500, 1, "[############            ]  50 %  500 bytes of 1.00 kB  0 bytes/s");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ours_are_read),
        cmocka_unit_test(nothing_given),
        cmocka_unit_test(later_wins_and_lists_add_up),
        cmocka_unit_test(those_of_fstab_change_nothing),
        cmocka_unit_test(unknown_ones_are_named),
        cmocka_unit_test(bad_values_are_named),
        cmocka_unit_test(sizes),
        cmocka_unit_test(memory_runs_out),
        cmocka_unit_test(numbers_for_people),
        cmocka_unit_test(progress_lines),
        cmocka_unit_test(progress_of_what_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
