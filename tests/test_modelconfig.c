#include "modelconfig.h"

#include "scratch_dir.h"

static void assert_json(const cJSON *json, const char *want)
{
    cJSON *wanted = cJSON_Parse(want);
    char *text = cJSON_PrintUnformatted(json);

    assert_non_null(wanted);
    if (!cJSON_Compare(json, wanted, true))
        fail_msg("%s is not %s", text, want);
    free(text);
    cJSON_Delete(wanted);
}

static void test_layers_and_their_lists(void **state)
{
    cJSON *a =
        cJSON_Parse("{\"num_hidden_layers\": 3, \"layer_types\": [\"f\", \"s\", \"g\"], \"eos\": [1, 2, 3],"
                    " \"text_config\": {\"n_layer\": 3, \"layer_types\": [1, 2, 3]}}");
    cJSON *b = cJSON_Parse("{\"num_hidden_layers\": 2, \"layer_types\": [\"x\", \"y\"]}");
    const struct layer_origin origins[] = {{a, 2, 3}, {b, 1, 2}, {b, 0, 2}, {a, 0, 3}};
    cJSON *out = cJSON_Duplicate(a, true);

    (void)state;
    assert_true(modelconfig_layers(out, "model.layers.", 3, origins, 4));
    /* the count is set where it was found first; b has no text_config, so the donor's entries stand in */
    assert_json(
        out, "{\"num_hidden_layers\": 4, \"layer_types\": [\"g\", \"y\", \"x\", \"f\"], \"eos\": [1, 2, 3],"
             " \"text_config\": {\"n_layer\": 3, \"layer_types\": [3, 2, 1, 1]}}");
    cJSON_Delete(out);
    cJSON_Delete(a);
    cJSON_Delete(b);
}

static void test_dtype(void **state)
{
    cJSON *json = cJSON_Parse("{\"dtype\": \"float32\", \"vision_config\": {\"torch_dtype\": \"float32\"}}");

    (void)state;
    assert_true(modelconfig_dtype(json, DTYPE_BF16));
    assert_json(json, "{\"dtype\": \"bfloat16\", \"vision_config\": {\"torch_dtype\": \"bfloat16\"}}");
    cJSON_Delete(json);
    json = cJSON_Parse("{}");
    assert_true(modelconfig_dtype(json, DTYPE_F16));
    assert_json(json, "{\"torch_dtype\": \"float16\"}");
    cJSON_Delete(json);
}

static void test_tie_and_vocabulary(void **state)
{
    cJSON *json = cJSON_Parse(
        "{\"vocab_size\": 10, \"text_config\": {\"tie_word_embeddings\": true, \"vocab_size\": 12}}");

    (void)state;
    assert_true(modelconfig_untie(json));
    modelconfig_vocab(json, 12, 9);
    assert_json(json,
                "{\"vocab_size\": 10, \"text_config\": {\"tie_word_embeddings\": false, \"vocab_size\": 9},"
                " \"tie_word_embeddings\": false}");
    cJSON_Delete(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers_and_their_lists),
        cmocka_unit_test(test_dtype),
        cmocka_unit_test(test_tie_and_vocabulary),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
