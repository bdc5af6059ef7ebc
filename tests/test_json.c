#include "json.h"

#include <errno.h>

#include "scratch_dir.h"

#include "fail_alloc.h"

static void test_valid(void **state)
{
    static const char *const texts[] = {
        "null",
        " true ",
        "\t\r\n false",
        "0",
        "-0",
        "-12.5e+3",
        "1E9",
        "1e-1",
        "0.0",
        "123456789012345678901234567890",
        "\"\"",
        "\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD834\\uDD1E\"",
        "\"\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e\xf4\x8f\xbf\xbf\x7f\"",
        "[]",
        "[ ]",
        "{}",
        "{ }",
        "[1,[2,[3]],{}]",
        "{\"a\":{\"a\":{\"a\":1}},\"b\":{\"a\":1}}",
        "[{\"a\":1},{\"a\":1}]",
        "{\"a\" : [ 1 , 2 ] , \"\" : null }",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        struct err err = {""};
        json_check(texts[i], strlen(texts[i]), &err);
        assert_string_equal(err.text, "");
        assert_int_equal(json_check(texts[i], strlen(texts[i]), NULL), 0);
    }
}

static const struct {
    const char *text, *says;
} broken[] = {
    {"", "byte 0: the text ends too early"},
    {"  ", "byte 2: the text ends too early"},
    {"nul", "byte 0: a value was expected"},
    {"nulll", "byte 4: something follows the end of the value"},
    {"True", "a value was expected"},
    {"NaN", "a value was expected"},
    {"Infinity", "a value was expected"},
    {"\xef\xbb\xbf{}", "byte 0: a value was expected"},
    {"{} {}", "byte 3: something follows"},
    {"01", "byte 0: a number with a leading zero"},
    {"-01", "byte 1: a number with a leading zero"},
    {"+1", "a value was expected"},
    {"-", "the text ends too early"},
    {"-a", "a digit is missing"},
    {"1.", "the text ends too early"},
    {"[1.]", "a digit is missing"},
    {".5", "a value was expected"},
    {"1e", "the text ends too early"},
    {"[1e+]", "a digit is missing"},
    {"0x10", "something follows"},
    {"1 2", "something follows"},
    {"[1 2]", "byte 3: a comma or ] was expected"},
    {"[1,]", "byte 3: a value was expected"},
    {"[,1]", "byte 1: a value was expected"},
    {"[1", "the text ends too early"},
    {"[", "the text ends too early"},
    {"[}", "a value was expected"},
    {"]", "a value was expected"},
    {"{", "the text ends too early"},
    {"{]", "a key in quotes was expected"},
    {"{1:2}", "byte 1: a key in quotes was expected"},
    {"{a:1}", "a key in quotes was expected"},
    {"{'a':1}", "a key in quotes was expected"},
    {"{\"a\"}", "byte 4: a colon was expected"},
    {"{\"a\" 1}", "a colon was expected"},
    {"{\"a\":}", "a value was expected"},
    {"{\"a\":1,}", "byte 7: a key in quotes was expected"},
    {"{\"a\":1 \"b\":2}", "a comma or } was expected"},
    {"{\"a\":1]", "a comma or } was expected"},
    {"{\"a\":1", "the text ends too early"},
    {"{\"a\":1,\"b\":2,\"a\":3}", "byte 13: the key \"a\" is given twice"},
    {"{\"a\":1,\"\\u0061\":3}", "byte 7: the key \"a\" is given twice"},
    {"{\"a\":{\"b\":[{\"c\":1}],\"x\":0},\"a\":3}", "the key \"a\" is given twice"},
    {"{\"\":1,\"\":1}", "the key \"\" is given twice"},
    {"{\"a\\n\":1,\"a\\n\":1}", "the key \"a?\" is given twice"},
    {"\"", "the text ends too early"},
    {"\"abc", "byte 4: the text ends too early"},
    {"\"a\\\"", "the text ends too early"},
    {"\"\\", "byte 2: the text ends too early"},
    {"\"\\x\"", "byte 1: unknown escape"},
    {"\"\\u12\"", "four hexadecimal digits"},
    {"\"\\u12g4\"", "four hexadecimal digits"},
    {"\"\\uD834\"", "byte 1: half of a surrogate pair"},
    {"\"\\uD834x\"", "half of a surrogate pair"},
    {"\"\\uD834\\n\"", "half of a surrogate pair"},
    {"\"\\uD834\\uD834\"", "half of a surrogate pair"},
    {"\"\\uDD1E\"", "half of a surrogate pair"},
    {"\"\\uDD1E\\uD834\"", "half of a surrogate pair"},
    {"\"a\nb\"", "byte 2: control character in a string"},
    {"\"\x01\"", "control character in a string"},
    {"\"\x80\"", "byte 1: invalid UTF-8"},
    {"\"\xc3\"", "invalid UTF-8"},
    {"\"\xc0\xaf\"", "invalid UTF-8"},
    {"\"\xe0\x80\xaf\"", "invalid UTF-8"},
    {"\"\xed\xa0\x80\"", "invalid UTF-8"},
    {"\"\xf0\x80\x80\xaf\"", "invalid UTF-8"},
    {"\"\xf4\x90\x80\x80\"", "invalid UTF-8"},
    {"\"\xe2\x82\"", "invalid UTF-8"},
    {"\"\xe2\x82", "invalid UTF-8"},
    {"\"\xff\"", "invalid UTF-8"},
    {"[1] // no", "something follows"},
    {"[1,/* */2]", "a value was expected"},
    {"[\v1]", "a value was expected"},
};

static void test_broken(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(broken) / sizeof(*broken); i++) {
        struct err err = {"nothing was said"};
        char *exact =
            memcpy(__real_malloc(strlen(broken[i].text) + 1), broken[i].text, strlen(broken[i].text));
        int ret = json_check(exact, strlen(broken[i].text), &err); /* no NUL behind it to stop at */
        assert_says(err.text, broken[i].says);
        assert_int_equal(ret, -EINVAL);
        assert_int_equal(json_check(exact, strlen(broken[i].text), NULL), -EINVAL);
        free(exact);
    }
}

static void test_nul_in_text(void **state)
{
    struct err err = {""};

    (void)state;
    assert_int_equal(json_check("{}\0", 3, &err), -EINVAL);
    assert_says(err.text, "something follows");
    assert_int_equal(json_check("\"a\0b\"", 5, &err), -EINVAL);
    assert_says(err.text, "control character");
}

static void test_depth(void **state)
{
    char text[2 * JSON_DEPTH + 3];
    struct err err = {""};

    (void)state;
    memset(text, '[', JSON_DEPTH);
    memset(text + JSON_DEPTH, ']', JSON_DEPTH);
    assert_int_equal(json_check(text, (size_t)2 * JSON_DEPTH, &err), 0);
    memset(text, '[', JSON_DEPTH + 1);
    memset(text + JSON_DEPTH + 1, ']', JSON_DEPTH + 1);
    assert_int_equal(json_check(text, (size_t)2 * JSON_DEPTH + 2, &err), -EINVAL);
    assert_says(err.text, "byte 128: nested too deeply");
}

static void expect_text(struct json *json, enum json_event event, const char *text)
{
    size_t len;

    assert_int_equal(json_next(json), event);
    assert_string_equal(json_text(json, &len), text);
    assert_int_equal(len, strlen(text));
}

static void test_events(void **state)
{
    static const char text[] =
        "{\"k\\u00e9\": [1, -2.5, \"s\\n\", true, false, null, {}], \"x\": {\"y\": []}}";
    struct err err = {""};
    struct json *json = json_new(text, strlen(text), &err);
    uint64_t value = 5;

    (void)state;
    assert_int_equal(json_next(json), JSON_OBJECT);
    expect_text(json, JSON_KEY, "k\xc3\xa9");
    assert_false(json_u64(json, &value));
    expect_text(json, JSON_ARRAY, "");
    expect_text(json, JSON_NUMBER, "1");
    assert_true(json_u64(json, &value));
    assert_int_equal(value, 1);
    expect_text(json, JSON_NUMBER, "-2.5");
    assert_false(json_u64(json, &value));
    expect_text(json, JSON_STRING, "s\n");
    assert_int_equal(json_next(json), JSON_TRUE);
    assert_int_equal(json_next(json), JSON_FALSE);
    assert_int_equal(json_next(json), JSON_NULL);
    assert_int_equal(json_next(json), JSON_OBJECT);
    assert_int_equal(json_next(json), JSON_OBJECT_END);
    assert_int_equal(json_next(json), JSON_ARRAY_END);
    expect_text(json, JSON_KEY, "x");
    assert_true(json_skip(json, json_next(json)));
    assert_int_equal(json_next(json), JSON_OBJECT_END);
    assert_int_equal(json_next(json), JSON_END);
    assert_int_equal(json_next(json), JSON_END);
    assert_int_equal(json_status(json), 0);
    assert_string_equal(err.text, "");
    json_free(json);
}

static void test_embedded_nul(void **state)
{
    static const char text[] = "\"a\\u0000b\"";
    struct json *json = json_new(text, strlen(text), NULL);
    size_t len;

    (void)state;
    assert_int_equal(json_next(json), JSON_STRING);
    assert_memory_equal(json_text(json, &len), "a\0b", 4);
    assert_int_equal(len, 3);
    json_free(json);
}

static void test_u64(void **state)
{
    static const struct {
        const char *text;
        bool fits;
        uint64_t value;
    } numbers[] = {
        {"0", true, 0},
        {"18446744073709551615", true, UINT64_MAX},
        {"18446744073709551616", false, 0},
        {"99999999999999999999", false, 0},
        {"9007199254740993", true, 9007199254740993u},
        {"-0", false, 0},
        {"-1", false, 0},
        {"1.0", false, 0},
        {"1e3", false, 0},
        {"true", false, 0},
        {"\"1\"", false, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        struct json *json = json_new(numbers[i].text, strlen(numbers[i].text), NULL);
        uint64_t value = 0;
        assert_int_not_equal(json_next(json), JSON_ERROR);
        assert_int_equal(json_u64(json, &value), numbers[i].fits);
        assert_int_equal(value, numbers[i].value);
        json_free(json);
    }
}

static void test_skip_error(void **state)
{
    static const char text[] = "[[1, {\"a\": 2}, x]]";
    struct err err = {""};
    struct json *json = json_new(text, strlen(text), &err);

    (void)state;
    assert_false(json_skip(json, json_next(json)));
    assert_says(err.text, "byte 15: a value was expected");
    assert_int_equal(json_status(json), -EINVAL);
    assert_false(json_skip(json, json_next(json)));
    json_free(json);
}

static void test_fail(void **state)
{
    struct err err = {""};
    struct json *json = json_new("[1]", 3, &err);

    (void)state;
    assert_int_equal(json_next(json), JSON_ARRAY);
    assert_int_equal(json_fail(json, "no %s", "good"), JSON_ERROR);
    assert_int_equal(json_fail(json, "later"), JSON_ERROR);
    assert_int_equal(json_next(json), JSON_ERROR);
    assert_string_equal(err.text, "no good");
    assert_int_equal(json_status(json), -EINVAL);
    json_free(json);
}

/* An object with many keys, then the first again: all must be remembered, and forgotten at the object's end.
 */
static void test_many_keys(void **state)
{
    enum { N = 5000 };
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    struct err err = {""};

    (void)state;
    fprintf(out, "[");
    for (int round = 0; round < 2; round++) {
        fprintf(out, "{");
        for (int i = 0; i < N; i++)
            fprintf(out, "\"key%d\":{\"a\":%d},", i, i);
        fprintf(out, "\"last\":0},");
    }
    fprintf(out, "{");
    for (int i = 0; i < N; i++)
        fprintf(out, "\"key%d\":%d,", i, i);
    fprintf(out, "\"key17\":0}]");
    fclose(out);
    assert_int_equal(json_check(text, len, &err), -EINVAL);
    assert_says(err.text, "the key \"key17\" is given twice");
    free(text);
}

static void test_no_memory(void **state)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    struct err err = {""};

    (void)state;
    fprintf(out, "{\"long\":\"%0500d\"", 0);
    for (int i = 0; i < 100; i++)
        fprintf(out, ",\"key%d\":0", i);
    fprintf(out, "}");
    fclose(out);
    assert_in_range(refuse_each_alloc(json_check(text, len, &err)), 8, 100);
    assert_string_equal(err.text, "out of memory");
    allocs_left = 0;
    assert_null(json_new("1", 1, NULL));
    allocs_left = -1;
    json_free(NULL);
    free(text);
}

static void test_shown(void **state)
{
    char out[JSON_SHOWN], text[500];

    (void)state;
    assert_string_equal(json_shown("plain \xc3\xa9", 8, out), "plain \xc3\xa9");
    assert_string_equal(json_shown("a\0\x1b\x7f\xc2\x9b\xff\xc3", 8, out), "a??????");
    for (size_t i = 0; i + 1 < sizeof(text); i += 2)
        memcpy(text + i, "\xc3\xa9", 2);
    json_shown(text, sizeof(text), out);
    assert_in_range(strlen(out), JSON_SHOWN - 5, JSON_SHOWN - 1);
    assert_string_equal(out + strlen(out) - 5, "\xc3\xa9...");
}

static void test_write(void **state)
{
    static const char text[] = "a\"\\/\b\f\n\r\t\x01\x1f\x7f\xc3\xa9\0z";
    char *written = NULL;
    size_t len;
    FILE *out = open_memstream(&written, &len);
    struct json *json;

    (void)state;
    json_write_string(out, text, sizeof(text) - 1);
    fclose(out);
    assert_string_equal(written, "\"a\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\xc3\xa9\\u0000z\"");
    json = json_new(written, len, NULL);
    assert_int_equal(json_next(json), JSON_STRING);
    assert_memory_equal(json_text(json, &len), text, sizeof(text));
    assert_int_equal(len, sizeof(text) - 1);
    json_free(json);
    free(written);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),       cmocka_unit_test(test_broken),
        cmocka_unit_test(test_nul_in_text), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_events),      cmocka_unit_test(test_embedded_nul),
        cmocka_unit_test(test_u64),         cmocka_unit_test(test_skip_error),
        cmocka_unit_test(test_fail),        cmocka_unit_test(test_many_keys),
        cmocka_unit_test(test_no_memory),   cmocka_unit_test(test_shown),
        cmocka_unit_test(test_write),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
