#include "log.h"

#include <fuse_log.h>

#include "scratch_dir.h"

/* stderr goes to a file while a test runs. */
static int saved;

static int setup(void **state)
{
    int fd;

    if (scratch_setup(state) < 0)
        return -1;
    fd = open(scratch_path("log"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    saved = dup(STDERR_FILENO);
    return fd < 0 || saved < 0 || dup2(fd, STDERR_FILENO) < 0 || close(fd) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    dup2(saved, STDERR_FILENO);
    close(saved);
    return scratch_teardown(state);
}

static size_t n_lines(const char *says)
{
    FILE *in = fopen(scratch_path("log"), "re");
    char line[2048];
    size_t n = 0;

    assert_non_null(in);
    while (fgets(line, sizeof(line), in))
        n += strstr(line, says) != NULL;
    fclose(in);
    return n;
}

static void a_line_says_who_speaks(void **state)
{
    struct log *log = log_new(false);

    (void)state;
    log_line(log, LOG_ERR, "%s: %d", "x", 3);
    assert_int_equal(n_lines("meldfs: x: 3\n"), 1);
    log_free(log);
    log_free(NULL);
}

static void a_text_is_said_once(void **state)
{
    struct log *log = log_new(false);

    (void)state;
    for (int i = 0; i < 100; i++) {
        log_once(log, LOG_ERR, "one");
        log_once(log, LOG_ERR, "two %s");
    }
    assert_int_equal(n_lines("meldfs: one\n"), 1);
    assert_int_equal(n_lines("meldfs: two %s\n"), 1);
    log_free(log);
}

static void a_flood_is_cut(void **state)
{
    struct log *log = log_new(false);
    char text[32];

    (void)state;
    for (int i = 0; i < 1000; i++) {
        snprintf(text, sizeof(text), "text %d", i);
        log_once(log, LOG_ERR, text);
    }
    assert_true(n_lines("text") >= 20);
    assert_true(n_lines("text") <= 60);
    log_free(log);
}

static void a_text_stays_a_line(void **state)
{
    struct log *log = log_new(false);

    (void)state;
    log_once(log, LOG_ERR, "a\nmeldfs: b\x1b[2J\xc2\x9b\xc2\xa0");
    assert_int_equal(n_lines("meldfs: a?meldfs: b?[2J\xc2?\xc2\xa0\n"), 1);
    log_free(log);
}

/* ---- syslog, which is recorded here */

static char said[512];
static int said_at;

void __wrap_openlog(const char *name, int option, int facility);
void __wrap_closelog(void);
void __wrap_syslog(int priority, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void __wrap_vsyslog(int priority, const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));
void __wrap___syslog_chk(int priority, int flag, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void __wrap___vsyslog_chk(int priority, int flag, const char *fmt, va_list args)
    __attribute__((format(printf, 3, 0)));

void __wrap_openlog(const char *name, int option, int facility)
{
    check_expected_ptr(name);
    assert_true(option & LOG_PID);
    assert_int_equal(facility, LOG_DAEMON);
}

void __wrap_closelog(void)
{
    function_called();
}

void __wrap_vsyslog(int priority, const char *fmt, va_list args)
{
    said_at = priority;
    vsnprintf(said, sizeof(said), fmt, args);
}

void __wrap_syslog(int priority, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    __wrap_vsyslog(priority, fmt, args);
    va_end(args);
}

/* What they are called in a build with _FORTIFY_SOURCE. */
void __wrap___vsyslog_chk(int priority, int flag, const char *fmt, va_list args)
{
    (void)flag;
    __wrap_vsyslog(priority, fmt, args);
}

void __wrap___syslog_chk(int priority, int flag, const char *fmt, ...)
{
    va_list args;

    (void)flag;
    va_start(args, fmt);
    __wrap_vsyslog(priority, fmt, args);
    va_end(args);
}

static void a_detached_daemon_speaks_to_syslog(void **state)
{
    struct log *log;

    (void)state;
    expect_string(__wrap_openlog, name, "meldfs");
    log = log_new(true);
    log_line(log, LOG_WARNING, "%d %%s\n", 3);
    assert_string_equal(said, "3 %s?");
    assert_int_equal(said_at, LOG_WARNING);
    log_once(log, LOG_ERR, "100 %d");
    assert_string_equal(said, "100 %d");
    assert_int_equal(said_at, LOG_ERR);
    fuse_log(FUSE_LOG_ERR, "libfuse: %d\n", 7);
    assert_string_equal(said, "libfuse: 7\n");
    assert_int_equal(n_lines(""), 0);
    expect_function_call(__wrap_closelog);
    log_free(log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_line_says_who_speaks, setup, teardown),
        cmocka_unit_test_setup_teardown(a_text_is_said_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_flood_is_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(a_text_stays_a_line, setup, teardown),
        cmocka_unit_test_setup_teardown(a_detached_daemon_speaks_to_syslog, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
