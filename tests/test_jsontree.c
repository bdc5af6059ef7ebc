#include "jsontree.h"

#include "scratch_dir.h"

#include <errno.h>
#include <stdbool.h>

#include "fail_alloc.h"

static const char TEXT[] = "{\n"
                           "  \"rms_norm_eps\": 9.999999747378752e-06,\n"
                           "  \"rope_theta\": 10000.0,\n"
                           "  \"big\": 18446744073709551615,\n"
                           "  \"empty\": {},\n"
                           "  \"none\": [],\n"
                           "  \"list\": [\n    1,\n    -0.50,\n    {\n      \"a\": null\n    }\n  ],\n"
                           "  \"say \\\"hi\\\"\": \"\\u0001\\n\",\n"
                           "  \"yes\": true,\n"
                           "  \"no\": false\n"
                           "}\n";

static void test_what_is_read_is_written(void **state)
{
    cJSON *tree, *copy;
    char *text;

    (void)state;
    assert_int_equal(jsontree_parse(TEXT, strlen(TEXT), &tree, NULL), 0);
    copy = cJSON_Duplicate(tree, true);
    text = jsontree_print(copy);
    assert_string_equal(text, TEXT);
    free(text);
    cJSON_Delete(copy);
    jsontree_set_number(cJSON_GetObjectItem(tree, "rope_theta"), 7);
    text = jsontree_print(tree);
    assert_says(text, "\"rope_theta\": 7,");
    free(text);
    cJSON_Delete(tree);
}

static void test_what_cjson_would_take(void **state)
{
    static const char *const bad[] = {"{\"k\\u0000a\": 1}",
                                      "[\"\\u0000\"]",
                                      "{\"a\": 1, \"a\": 2}",
                                      "{} x",
                                      "{\"a\": 01}",
                                      "\"\xff\"",
                                      "",
                                      "[1,]"};
    struct err err;
    cJSON *tree;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(jsontree_parse(bad[i], strlen(bad[i]), &tree, &err), -EINVAL);
        assert_null(tree);
    }
}

static int round_trip(void)
{
    cJSON *tree;
    int status = jsontree_parse(TEXT, strlen(TEXT), &tree, NULL);
    char *text = status ? NULL : jsontree_print(tree);

    cJSON_Delete(tree);
    free(text);
    return status || text ? status : -ENOMEM;
}

static void test_every_allocation_refused(void **state)
{
    (void)state;
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = malloc, .free_fn = free}); /* the refusing one */
    assert_true(refuse_each_alloc(round_trip()) > 20);
    cJSON_InitHooks(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_read_is_written),
        cmocka_unit_test(test_what_cjson_would_take),
        cmocka_unit_test(test_every_allocation_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
