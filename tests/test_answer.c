#include "answer.h"

#include "control.h"
#include "fail_alloc.h"
#include "json.h"
#include "jsontree.h"
#include "scratch_dir.h"

static const char canned[] = "recipe /home/a b/chat.yml\n"
                             "version 0.1.0\n"
                             "pid 4711\n"
                             "generation 1234567890123456\n"
                             "uptime_seconds 12.500\n"
                             "memory_bytes 314572800\n"
                             "cache_used_bytes 268435456\n"
                             "stats_kept_bytes 1048576\n"
                             "plan_bytes 2097152\n"
                             "hits 30\nmisses 8\njoined 2\n"
                             "huge 18446744073709551615\n";

static struct mount_entry entry(const char *mountpoint)
{
    static char source[] = "/home/a b/chat.yml";

    return (struct mount_entry){.mountpoint = (char *)(uintptr_t)mountpoint, .source = source};
}

/* As printed; must be strict JSON. */
static char *rendered(const char *mountpoint, const char *text, const char *error)
{
    struct mount_entry mount = entry(mountpoint);
    cJSON *object = answer_json(&mount, text, "stats_done 1\n", 2, error);
    struct err err = {""};
    char *out;

    assert_non_null(object);
    out = jsontree_print(object);
    cJSON_Delete(object);
    assert_non_null(out);
    if (json_check(out, strlen(out), &err) < 0)
        fail_msg("%s in\n%s", err.text, out);
    return out;
}

static void check_says(const char *mountpoint, const char *text, const char *needle)
{
    char *out = rendered(mountpoint, text, "why");

    assert_says(out, needle);
    free(out);
}

static void lines_are_taken_apart(void **state)
{
    const char *text = "a 1\n\n b\nflag\nc two words\nlast ";
    struct answer_line line;

    (void)state;
    assert_true(answer_next(&text, &line));
    assert_int_equal(line.key_len, 1);
    assert_memory_equal(line.value, "1", line.value_len);
    assert_true(answer_next(&text, &line));
    assert_memory_equal(line.key, "flag", line.key_len);
    assert_int_equal(line.value_len, 0);
    assert_true(answer_next(&text, &line));
    assert_int_equal(line.value_len, 9);
    assert_true(answer_next(&text, &line));
    assert_int_equal(line.value_len, 0);
    assert_false(answer_next(&text, &line));
}

static void numbers_are_found(void **state)
{
    (void)state;
    assert_int_equal(answer_number(canned, "pid"), 4711);
    assert_int_equal(answer_number(canned, "pi"), 0);
    assert_int_equal(answer_number(canned, "recipe"), 0);
    assert_true(answer_number(canned, "huge") == UINT64_MAX);
    assert_int_equal(answer_number("a \nb 2\n", "a"), 0);
    assert_int_equal(answer_number("a -3", "a"), 0);
    assert_true(answer_has(canned, "joined"));
    assert_false(answer_has(canned, "joine"));
    assert_int_equal(answer_other_memory(canned), 314572800 - 268435456 - 1048576 - 2097152);
    assert_int_equal(answer_other_memory("memory_bytes 1\ncache_used_bytes 2\n"), 0);
}

static void statistics_end_at_their_rate(void **state)
{
    (void)state;
    assert_true(answer_statistics_left("stats_done 2\n", "stats_done 4\nstats_todo 10\n", 1) == 5);
    assert_true(answer_statistics_left("stats_bytes_read 100\nstats_done 1\n",
                                       "stats_bytes_read 200\nstats_done 4\nstats_todo 10\n"
                                       "stats_todo_bytes 1000\n",
                                       0.5) == 5);
    assert_true(answer_statistics_left("stats_done 4\n", "stats_done 4\nstats_todo 10\n", 1) < 0);
    assert_true(answer_statistics_left("stats_done 2\n", "stats_done 4\nstats_todo 0\n", 1) < 0);
    assert_true(answer_statistics_left("", "", 1) < 0);
}

static void json_has_every_key(void **state)
{
    (void)state;
    check_says("/mnt/x", canned, "\"mountpoint\": \"/mnt/x\"");
    check_says("/mnt/x", canned, "\"answers\": true");
    check_says("/mnt/x", canned, "\"recipe\": \"/home/a b/chat.yml\"");
    check_says("/mnt/x", canned, "\"pid\": 4711,");
    check_says("/mnt/x", canned, "\"generation\": \"1234567890123456\"");
    check_says("/mnt/x", canned, "\"uptime_seconds\": 12.500,");
    check_says("/mnt/x", canned, "\"huge\": 18446744073709551615,");
    check_says("/mnt/x", canned, "\"memory_other_bytes\": 42991616");
    check_says("/mnt/x", canned, "\"hit_ratio\": 0.75");
}

static void unknown_keys_pass(void **state)
{
    static const char text[] =
        "novel 3\nratio 0.5\nbad 01\nhalf .5\ndot 5.\nexp 1e5\nneg -7\nword x y\nempty\n"
        "mountpoint /else\nx_name 12\nrecipe_error 5\nhit_ratio 9\n";

    (void)state;
    check_says("/m", text, "\"novel\": 3,");
    check_says("/m", text, "\"ratio\": 0.5,");
    check_says("/m", text, "\"bad\": \"01\"");
    check_says("/m", text, "\"half\": \".5\"");
    check_says("/m", text, "\"dot\": \"5.\"");
    check_says("/m", text, "\"exp\": \"1e5\"");
    check_says("/m", text, "\"neg\": -7,");
    check_says("/m", text, "\"word\": \"x y\"");
    check_says("/m", text, "\"empty\": \"\"");
    check_says("/m", text, "\"mountpoint\": \"/m\"");
    check_says("/m", text, "\"x_name\": \"12\"");
    check_says("/m", text, "\"recipe_error\": \"5\"");
    check_says("/m", text, "\"hit_ratio\": 9");
}

static void keys_that_repeat_are_lists(void **state)
{
    char *out = rendered("/m", "model a\nother 1\nmodel b\nmodel 3\n", NULL);

    (void)state;
    assert_says(out, "\"model\": [\n    \"a\",\n    \"b\",\n    3\n  ]");
    free(out);
}

static void what_is_no_text_is_escaped(void **state)
{
    (void)state;
    check_says("/a\"b\\c\td\n\x01", "k \"\\\x02\n", "\"mountpoint\": \"/a\\\"b\\\\c\\td\\n\\u0001\"");
    check_says("/\xff\xc3(", "k \xed\xa0\x80\n", "\"mountpoint\": \"/\xef\xbf\xbd\xef\xbf\xbd(\"");
    check_says("/m", "\xfe\" \xe2\x82\n", "\xef\xbf\xbd\\\"\": \"\xef\xbf\xbd\xef\xbf\xbd\"");
    check_says("/\xe2\x82\xac", "", "/\xe2\x82\xac");
    check_says("/m", "", "\"hit_ratio\": null");
    check_says("/m", "", "\"stats_left_seconds\": null");
    check_says("/m", "stats_done 5\nstats_todo 8\n", "\"stats_left_seconds\": 4");
}

static void who_is_silent_is_told(void **state)
{
    (void)state;
    check_says("/mnt/x", NULL, "\"answers\": false");
    check_says("/mnt/x", NULL, "\"error\": \"why\"");
    check_says("/mnt/x", NULL, "\"recipe\": \"/home/a b/chat.yml\"");
}

static void sections_are_objects(void **state)
{
    static const char text[] = "recipe /f\nsection recipe\nname a\ngeneration 01\nsection recipe\nname b\n";
    struct mount_entry mount = entry("/m");
    cJSON *object = answer_json(&mount, text, NULL, 0, NULL), *list;

    (void)state;
    list = cJSON_GetObjectItemCaseSensitive(object, "recipes");
    assert_int_equal(cJSON_GetArraySize(list), 2);
    assert_string_equal(
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(list, 1), "name")), "b");
    assert_null(cJSON_GetObjectItemCaseSensitive(object, "name"));
    cJSON_Delete(object);
}

/* Any bytes whatsoever, cut anywhere. */
static void anything_gives_json(void **state)
{
    unsigned seed = 1;

    (void)state;
    for (int round = 0; round < 3000; round++) {
        static const char letters[] = "ab \n01.9-\"\\\x01\xff\xc3\xa9_";
        char text[64];
        size_t len = 0;
        for (size_t most = (unsigned)round % sizeof(text); len < most; len++) {
            seed = seed * 1103515245 + 12345;
            text[len] = letters[(seed >> 16) % (sizeof(letters) - 1)];
        }
        text[len < sizeof(text) ? len : sizeof(text) - 1] = '\0';
        free(rendered(text, text, NULL));
    }
}

static int render_once(void)
{
    struct mount_entry mount = entry("/m");
    cJSON *object = answer_json(&mount, "a 1\nb x\na 2\na 3\n", NULL, 0, NULL);

    cJSON_Delete(object);
    return object ? 0 : -ENOMEM;
}

static void memory_runs_out(void **state)
{
    cJSON_Hooks hooks = {.malloc_fn = malloc, .free_fn = free}; /* so that those are counted, too */

    (void)state;
    cJSON_InitHooks(&hooks);
    assert_true(refuse_each_alloc(render_once()) > 10);
    cJSON_InitHooks(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_taken_apart),
        cmocka_unit_test(numbers_are_found),
        cmocka_unit_test(statistics_end_at_their_rate),
        cmocka_unit_test(json_has_every_key),
        cmocka_unit_test(unknown_keys_pass),
        cmocka_unit_test(keys_that_repeat_are_lists),
        cmocka_unit_test(what_is_no_text_is_escaped),
        cmocka_unit_test(who_is_silent_is_told),
        cmocka_unit_test(sections_are_objects),
        cmocka_unit_test(anything_gives_json),
        cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
