#include "log.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_line_says_who_speaks, setup, teardown),
        cmocka_unit_test_setup_teardown(a_text_is_said_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_flood_is_cut, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
