#include "shard_index.h"

#include <errno.h>

#include "scratch_dir.h"

#include "fail_alloc.h"

static struct arena arena;
static struct shard_index shards;

static int parse(const char *json, struct err *err)
{
    char *exact = memcpy(__real_malloc(strlen(json) + 1), json, strlen(json)); /* no NUL behind it */
    int ret;

    arena_fini(&arena);
    ret = shard_index_parse(&arena, exact, strlen(json), &shards, err);
    free(exact);
    return ret;
}

static int teardown(void **state)
{
    (void)state;
    arena_fini(&arena);
    return 0;
}

static void test_parse(void **state)
{
    struct err err = {""};

    (void)state;
    parse("{\"metadata\":{\"total_size\":12.5,\"x\":[{}]},\"weight_map\":{\"b\":\"2.safetensors\","
          "\"c\":\"1.safetensors\",\"a\":\"2.safetensors\"},\"later\":null}",
          &err);
    assert_string_equal(err.text, "");
    assert_int_equal(shards.n, 3);
    assert_int_equal(shards.n_files, 2);
    assert_string_equal(shards.files[0], "1.safetensors");
    assert_string_equal(shards.files[1], "2.safetensors");
    for (size_t i = 0; i < 3; i++) {
        const char name[] = {(char)('a' + i), '\0'};
        assert_string_equal(shards.entries[i].tensor, name);
        assert_int_equal(shards.entries[i].shard, i == 2 ? 0 : 1);
        assert_string_equal(shards.entries[i].file, shards.files[shards.entries[i].shard]);
    }
}

static void test_empty(void **state)
{
    (void)state;
    assert_int_equal(parse("{\"weight_map\":{}}", NULL), 0);
    assert_int_equal(shards.n, 0);
    assert_int_equal(shards.n_files, 0);
}

static const struct {
    const char *json, *says;
} broken[] = {
    {"", "the text ends too early"},
    {"[]", "the index is not an object"},
    {"{}", "weight_map is missing"},
    {"{\"metadata\":{}}", "weight_map is missing"},
    {"{\"metadata\":[}", "a value was expected"},
    {"{\"weight_map\":[]}", "weight_map is not an object"},
    {"{\"weight_map\":{}", "the text ends too early"},
    {"{\"weight_map\":{}}x", "something follows"},
    {"{\"weight_map\":{},\"weight_map\":{}}", "the key \"weight_map\" is given twice"},
    {"{\"weight_map\":{\"a\":3}}", "weight_map does not map names to file names"},
    {"{\"weight_map\":{\"a\":[\"b.safetensors\"]}}", "weight_map does not map names to file names"},
    {"{\"weight_map\":{\"a\":\"x.safetensors\",\"a\":\"y.safetensors\"}}", "the key \"a\" is given twice"},
    {"{\"weight_map\":{\"a\":\"\"}}", "puts \"a\" in \"\", which is no plain file name"},
    {"{\"weight_map\":{\"a\":\"..\"}}", "which is no .safetensors file"},
    {"{\"weight_map\":{\"a\":\".safetensors\"}}", "which is no .safetensors file"},
    {"{\"weight_map\":{\"a\":\"../x.safetensors\"}}", "\"../x.safetensors\", which is no plain file name"},
    {"{\"weight_map\":{\"a\":\"/x.safetensors\"}}", "which is no plain file name"},
    {"{\"weight_map\":{\"a\":\"sub/x.safetensors\"}}", "which is no plain file name"},
    {"{\"weight_map\":{\"a\":\"x\\n.safetensors\"}}", "\"x?.safetensors\", which is no plain file name"},
    {"{\"weight_map\":{\"a\":\"x.safetensors\\u0000\"}}", "which is no plain file name"},
    {"{\"weight_map\":{\"a\":\"pytorch_model.bin\"}}", "which is no .safetensors file"},
    {"{\"weight_map\":{\"a\\u0007\":\"x.safetensors\"}}", "the name \"a?\" holds control characters"},
};

static void test_broken(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(broken) / sizeof(*broken); i++) {
        struct err err = {"nothing was said"};
        int ret = parse(broken[i].json, &err);
        assert_says(err.text, broken[i].says);
        assert_int_equal(ret, -EINVAL);
        assert_int_equal(parse(broken[i].json, NULL), -EINVAL);
    }
}

static void test_long_name(void **state)
{
    char json[400];
    struct err err = {""};

    (void)state;
    snprintf(json, sizeof(json), "{\"weight_map\":{\"a\":\"%0244d.safetensors\"}}", 0);
    assert_int_equal(parse(json, &err), -EINVAL);
    assert_says(err.text, "which is no plain file name");
    snprintf(json, sizeof(json), "{\"weight_map\":{\"a\":\"%0243d.safetensors\"}}", 0);
    assert_int_equal(parse(json, &err), 0);
}

static char *many(int files)
{
    char *json = NULL;
    size_t len;
    FILE *out = open_memstream(&json, &len);

    fprintf(out, "{\"weight_map\":{");
    for (int i = 0; i < files; i++)
        fprintf(out, "%s\"%d\":\"%d.safetensors\"", i ? "," : "", i, i);
    fprintf(out, "}}");
    fclose(out);
    return json;
}

static void test_too_many(void **state)
{
    char *json = many(SHARDS_MAX + 1);
    struct err err = {""};

    (void)state;
    assert_int_equal(parse(json, &err), -EINVAL);
    assert_says(err.text, "names 4097 files; at most 4096");
    free(json);
    json = many(SHARDS_MAX);
    assert_int_equal(parse(json, &err), 0);
    assert_int_equal(shards.n_files, SHARDS_MAX);
    free(json);
}

static void test_no_memory(void **state)
{
    char *json = many(1000);
    struct err err = {""};

    (void)state;
    assert_in_range(refuse_each_alloc(parse(json, &err)), 10, 100);
    assert_string_equal(err.text, "out of memory");
    free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),     cmocka_unit_test(test_empty),    cmocka_unit_test(test_broken),
        cmocka_unit_test(test_long_name), cmocka_unit_test(test_too_many), cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, teardown);
}
