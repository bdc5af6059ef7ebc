#include "err.h"

#include <errno.h>

#include "scratch_dir.h"

#include "fail_alloc.h"

static void test_set(void **state)
{
    struct err err = {"old"};

    (void)state;
    assert_int_equal(err_set(&err, -EIO, "%s: %d", "file", 7), -EIO);
    assert_string_equal(err.text, "file: 7");
    assert_int_equal(err_set(NULL, -ENOENT, "nobody asked"), -ENOENT);
}

static void test_prefix(void **state)
{
    struct err err = {""};

    (void)state;
    err_set(&err, -EIO, "inner");
    assert_int_equal(err_prefix(&err, -EIO, "outer %d", 1), -EIO);
    assert_string_equal(err.text, "outer 1: inner");
    assert_int_equal(err_prefix(NULL, -EIO, "nobody asked"), -EIO);
}

static void test_cut(void **state)
{
    struct err err;
    char text[3000];

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    err_set(&err, -EIO, "%s", text);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    err_prefix(&err, -EIO, "before");
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_memory_equal(err.text, "before: xxx", 11);
    err_prefix(&err, -EIO, "%s", text);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

static void test_report(void **state)
{
    struct report report = {0};

    (void)state;
    report_add(&report, SEVERITY_ERROR, (struct place){"a.yml", 3, 5}, "bad %s", "key");
    report_add(&report, SEVERITY_WARNING, (struct place){"a.yml"}, "odd");
    report_add(&report, SEVERITY_ERROR, (struct place){0}, "no place");
    assert_int_equal(report.n, 3);
    assert_int_equal(report.n_errors, 2);
    assert_string_equal(report.problems[0].text, "a.yml:3:5: bad key");
    assert_int_equal(report.problems[0].severity, SEVERITY_ERROR);
    assert_string_equal(report.problems[1].text, "a.yml: odd");
    assert_int_equal(report.problems[1].severity, SEVERITY_WARNING);
    assert_string_equal(report.problems[2].text, "no place");
    report_fini(&report);
    assert_int_equal(report.n, 0);
    assert_int_equal(report.n_errors, 0);
    assert_null(report.problems);
}

static void test_report_no_memory(void **state)
{
    struct report report = {0};
    size_t refused = 0;

    (void)state;
    for (; report.n == 0; refused++) {
        allocs_left = (long)refused;
        report_add(&report, SEVERITY_ERROR, (struct place){"a.yml", 3, 5}, "bad %s", "key");
        allocs_left = -1;
    }
    assert_int_equal(refused, 4); /* three allocations, then none refused */
    assert_int_equal(report.n_errors, refused);
    assert_string_equal(report.problems[0].text, "a.yml:3:5: bad key");
    report_fini(&report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set),    cmocka_unit_test(test_prefix),           cmocka_unit_test(test_cut),
        cmocka_unit_test(test_report), cmocka_unit_test(test_report_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
