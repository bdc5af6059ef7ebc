#include "planned.h"

#include "fail_alloc.h"

static int models(void **state)
{
    if (scratch_setup(state))
        return -1;
    put_model((struct put_model){.dir = "base", .dtype = DTYPE_BF16, .seed = 1, .layers = 3});
    put_model((struct put_model){.dir = "a", .dtype = DTYPE_BF16, .seed = 2, .layers = 3});
    put_model((struct put_model){.dir = "b", .dtype = DTYPE_F32, .seed = 3, .layers = 3});
    put_model((struct put_model){.dir = "deep", .dtype = DTYPE_BF16, .seed = 4, .layers = 5});
    put_model((struct put_model){.dir = "wide", .dtype = DTYPE_BF16, .seed = 5, .layers = 3, .rows = 12});
    put_model((struct put_model){.dir = "tied",
                                 .dtype = DTYPE_BF16,
                                 .seed = 6,
                                 .layers = 3,
                                 .tied = true,
                                 .config = "\"layer_types\": [\"f\", \"g\", \"h\"],"});
    return 0;
}

#define CHAT                          \
    "merge_method: task_arithmetic\n" \
    "base_model: base\n"              \
    "models:\n"                       \
    "- model: a\n"                    \
    "  parameters: {weight: 1}\n"     \
    "- model: b\n"                    \
    "  parameters: {weight: [0, 1]}\n"

static void test_models_and_types(void **state)
{
    struct planned p = good(CHAT);
    const struct plan_tensor *t = tensor(&p, "model.layers.1.mlp.up_proj.weight");

    (void)state;
    assert_int_equal(p.plan->n_tensors, 9);
    assert_int_equal(t->recipe.kind, RECIPE_MERGE);
    assert_int_equal(t->recipe.n_inputs, 3); /* the base is added last */
    assert_int_equal(t->recipe.merge.base, 2);
    assert_int_equal(t->recipe.merge.work, DTYPE_F32); /* bfloat16 with float32 */
    assert_int_equal(t->st.dtype, DTYPE_F32);
    assert_true(t->t == 0.5);
    assert_true(donor_value(t, 0, "weight") == 1);
    assert_true(donor_value(t, 1, "weight") == 0.5);
    assert_true(isnan(donor_value(t, 2, "weight")));
    assert_true(donor_value(tensor(&p, "model.norm.weight"), 1, "weight") == 0);
    assert_string_equal(p.plan->donor->name, "base");
    assert_string_equal(cJSON_GetObjectItem(p.plan->config, "torch_dtype")->valuestring, "float32");
    drop(&p);
    p = good(CHAT "dtype: float32\nout_dtype: bfloat16\n");
    t = tensor(&p, "lm_head.weight");
    assert_int_equal(t->recipe.merge.work, DTYPE_F32);
    assert_int_equal(t->recipe.dtype, DTYPE_BF16);
    assert_int_equal(t->st.len, 10 * 4 * 2);
    drop(&p);
}

static void test_a_listed_base_is_no_donor(void **state)
{
    struct planned p = good("merge_method: task_arithmetic\nbase_model: ./base\nmodels:\n- model: base\n"
                            "  parameters: {weight: 3}\n- model: a\n  parameters: {weight: 1}\n");
    const struct plan_tensor *t = tensor(&p, "lm_head.weight");

    (void)state;
    assert_int_equal(t->recipe.n_inputs, 2);
    assert_int_equal(t->recipe.merge.base, 0);
    assert_warns(&p, "m.yml:5:16: `weight` of the base model is ignored");
    drop(&p);
    /* linear counts it */
    p = good("merge_method: linear\nbase_model: base\nparameters: {weight: 2}\nmodels:\n- model: a\n");
    t = tensor(&p, "lm_head.weight");
    assert_int_equal(t->recipe.n_inputs, 2);
    assert_int_equal(t->recipe.merge.base, -1);
    assert_true(donor_value(t, 1, "weight") == 2);
    drop(&p);
}

static void test_float64(void **state)
{
    struct planned p = good("merge_method: ties\nbase_model: base\nparameters: {weight: 1}\n"
                            "models: [{model: a}, {model: b}]\ndtype: float64\n");
    const struct recipe *recipe = &tensor(&p, "lm_head.weight")->recipe;

    (void)state;
    assert_int_equal(recipe->merge.work, DTYPE_F64);
    assert_int_equal(recipe->dtype, DTYPE_F64);
    assert_ptr_equal(recipe->merge.method, method_in(method_find("ties"), DTYPE_F64));
    assert_ptr_not_equal(recipe->merge.method, method_find("ties"));
    drop(&p);
    p = good("merge_method: arcee_fusion\nbase_model: base\nmodels: [{model: a}]\ndtype: float64\n");
    assert_int_equal(tensor(&p, "lm_head.weight")->recipe.dtype, DTYPE_F64);
    drop(&p);
    p = good("merge_method: passthrough\nmodels: [{model: a}]\ndtype: float64\nout_dtype: float16\n");
    recipe = &tensor(&p, "lm_head.weight")->recipe;
    assert_int_equal(recipe->kind, RECIPE_CAST);
    assert_int_equal(recipe->merge.work, DTYPE_F64);
    assert_int_equal(recipe->dtype, DTYPE_F16);
    drop(&p);
}

static void test_slices(void **state)
{
    struct planned p = good("merge_method: passthrough\nslices:\n"
                            "- sources: [{model: tied, layer_range: [1, 3]}]\n"
                            "- sources: [{model: deep, layer_range: [4, 5]}]\n"
                            "- sources: [{model: tied, layer_range: [0, 0]}]\n"
                            "- sources: [{model: tied, layer_range: [1, 2]}]\n");
    const cJSON *types = cJSON_GetObjectItem(p.plan->config, "layer_types");

    (void)state;
    assert_int_equal(p.plan->n_tensors, 4 * 2 + 2);
    assert_string_equal(tensor(&p, "model.layers.0.mlp.up_proj.weight")->inputs[0].tensor,
                        "model.layers.1.mlp.up_proj.weight");
    assert_string_equal(tensor(&p, "model.layers.2.self_attn.q_proj.weight")->inputs[0].model, "deep");
    assert_string_equal(tensor(&p, "model.layers.2.self_attn.q_proj.weight")->inputs[0].tensor,
                        "model.layers.4.self_attn.q_proj.weight");
    assert_string_equal(tensor(&p, "model.layers.3.self_attn.q_proj.weight")->inputs[0].tensor,
                        "model.layers.1.self_attn.q_proj.weight");
    assert_int_equal(tensor(&p, "model.norm.weight")->recipe.kind, RECIPE_COPY);
    assert_int_equal(cJSON_GetObjectItem(p.plan->config, "num_hidden_layers")->valueint, 4);
    assert_int_equal(cJSON_GetArraySize(types), 4);
    assert_string_equal(cJSON_GetArrayItem(types, 0)->valuestring, "g");
    assert_string_equal(cJSON_GetArrayItem(types, 3)->valuestring, "g");
    drop(&p);
}

static void test_tied_and_untied(void **state)
{
    struct planned p =
        good("merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: tied}, {model: a}]\n");
    const struct plan_tensor *head = tensor(&p, "lm_head.weight");

    (void)state;
    assert_int_equal(head->recipe.n_inputs, 2);
    assert_string_equal(head->inputs[0].tensor, "model.embed_tokens.weight");
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(p.plan->config, "tie_word_embeddings")));
    drop(&p);
    p = good("merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: tied}]\n");
    assert_int_equal(p.plan->n_tensors, 8);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(p.plan->config, "tie_word_embeddings")));
    drop(&p);
}

/* A tied head is asked for by its own name, so that filters on it hold. */
static void test_filters_on_a_tied_head(void **state)
{
    struct planned p =
        good("merge_method: linear\nmodels:\n- model: a\n  parameters: {weight: 1}\n- model: tied\n"
             "  parameters:\n    weight: [{filter: lm_head, value: 0.9}, {value: 0.2}]\n");

    (void)state;
    assert_true(donor_value(tensor(&p, "lm_head.weight"), 1, "weight") == 0.9);
    assert_true(donor_value(tensor(&p, "model.embed_tokens.weight"), 1, "weight") == 0.2);
    drop(&p);
}

/* The config says untied, so there must be a head, though the last slice's model has none of its own. */
static void test_a_stack_that_ends_in_a_tied_model(void **state)
{
    struct planned p =
        good("merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [0, 1]}]\n"
             "- sources: [{model: tied, layer_range: [0, 1]}]\n");

    (void)state;
    assert_string_equal(tensor(&p, "lm_head.weight")->inputs[0].model, "tied");
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(p.plan->config, "tie_word_embeddings")));
    drop(&p);
}

static void test_only_vocabularies_are_truncated(void **state)
{
    struct put_tensor a[] = {{"model.layers.0.k.weight", DTYPE_BF16, 2, {8, 4}, 1}};
    struct put_tensor b[] = {{"model.layers.0.k.weight", DTYPE_BF16, 2, {6, 4}, 1}};

    (void)state;
    put_shard("k8/model.safetensors", a, 1);
    put_shard("k6/model.safetensors", b, 1);
    put_text("k8/config.json", "{}");
    put_text("k6/config.json", "{}");
    BAD("merge_method: linear\nparameters: {weight: 1}\nmeldfs: {mismatch: truncate}\nmodels: [{model: k8}, "
        "{model: k6}]\n",
        "shapes of `model.layers.0.k.weight` differ");
}

/* Stages are computed anew for each reader: a tower of them would take for ever. */
static void test_towers_of_stages(void **state)
{
    char text[8192] = "", *at = text;

    (void)state;
    at += sprintf(
        at,
        "name: s0\nmerge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a}, {model: b}]\n---\n");
    for (int i = 1; i < 12; i++)
        at += sprintf(at,
                      "name: s%d\nmerge_method: nearswap\nparameters: {t: 1}\nbase_model: s%d\n"
                      "models: [{model: t%d}]\n---\nname: t%d\nmerge_method: nearswap\nparameters: {t: 1}\n"
                      "base_model: s%d\nmodels: [{model: a}]\n---\n",
                      i, i - 1, i, i, i - 1);
    sprintf(at, "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: s11}]\n");
    BAD(text, "export an inner stage first");
}

static void test_shapes_that_differ(void **state)
{
    static const char head[] = "merge_method: task_arithmetic\nbase_model: base\nmodels:\n- model: wide\n"
                               "  parameters: {weight: 1}\n";
    struct planned p;
    char text[512];

    (void)state;
    BAD(head, "shapes of `lm_head.weight` differ: [12, 4] in wide, [10, 4] in base", "`tokenizer:`",
        "differ in 1 more tensors");
    snprintf(text, sizeof(text), "%smeldfs: {mismatch: base}\n", head);
    p = good(text);
    assert_int_equal(tensor(&p, "lm_head.weight")->recipe.kind, RECIPE_COPY);
    assert_string_equal(tensor(&p, "lm_head.weight")->inputs[0].model, "base");
    drop(&p);
    snprintf(text, sizeof(text), "%smeldfs: {mismatch: truncate}\n", head);
    p = good(text);
    assert_int_equal(tensor(&p, "lm_head.weight")->recipe.kind, RECIPE_MERGE);
    assert_int_equal(tensor(&p, "lm_head.weight")->st.shape[0], 10);
    drop(&p);
    p = good("merge_method: linear\nparameters: {weight: 1}\nmeldfs: {mismatch: truncate}\n"
             "models: [{model: wide}, {model: base}]\n");
    assert_int_equal(cJSON_GetObjectItem(p.plan->config, "vocab_size")->valueint, 10);
    drop(&p);
}

static void test_tensors_some_lack(void **state)
{
    struct put_tensor extra[] = {
        {"model.embed_tokens.weight", DTYPE_BF16, 2, {10, 4}, 1},
        {"model.extra.bias", DTYPE_BF16, 1, {4}, 1},
        {"model.position_ids", DTYPE_I64, 1, {4}, 1},
    };
    struct planned p;

    (void)state;
    put_shard("more/model.safetensors", extra, 3);
    put_text("more/config.json", "{}");
    put_shard("less/model.safetensors", extra, 1);
    put_text("less/config.json", "{}");
    p = good("merge_method: task_arithmetic\nbase_model: more\nmodels:\n- model: less\n  parameters: "
             "{weight: 1}\n");
    assert_int_equal(tensor(&p, "model.extra.bias")->recipe.kind, RECIPE_COPY);
    assert_string_equal(tensor(&p, "model.extra.bias")->note, "only the base model has it");
    assert_int_equal(tensor(&p, "model.position_ids")->recipe.kind, RECIPE_COPY);
    assert_warns(&p, "m.yml:4:10: model less lacks `model.extra.bias`");
    drop(&p);
    BAD("merge_method: task_arithmetic\nbase_model: less\nmodels:\n- model: more\n  parameters: {weight: "
        "1}\n",
        "the base model less lacks `model.extra.bias`, which more has");
    BAD("merge_method: nearswap\nbase_model: less\nparameters: {t: 0.1}\nmodels: [{model: more}]\n",
        "the base model less lacks `model.extra.bias`, which more has: nearswap cannot merge it");
    p = good("merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: more}, {model: less}]\n");
    assert_int_equal(tensor(&p, "model.extra.bias")->recipe.n_inputs, 1);
    drop(&p);
    BAD("merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: more}, {model: ./more/../more/}]\n",
        "`more` and `./more/../more/` are the same model, more, twice in a slice");
}

static void test_modules(void **state)
{
    struct planned p =
        good("merge_method: linear\nparameters: {weight: 1}\ndtype: float32\nbase_model: base\nmodules:\n"
             "  layers:\n    models: [{model: a}]\n");

    (void)state;
    assert_int_equal(tensor(&p, "model.layers.0.mlp.up_proj.weight")->recipe.kind, RECIPE_MERGE);
    assert_int_equal(tensor(&p, "model.norm.weight")->recipe.kind, RECIPE_CAST);
    assert_int_equal(tensor(&p, "model.norm.weight")->recipe.n_inputs, 1);
    assert_string_equal(tensor(&p, "model.norm.weight")->inputs[0].model, "base");
    drop(&p);
    p = good(
        "merge_method: linear\nparameters: {weight: 1}\nmodules:\n  default:\n    models: [{model: a}]\n");
    assert_int_equal(tensor(&p, "model.norm.weight")->recipe.kind, RECIPE_MERGE);
    drop(&p);
}

static void test_stages(void **state)
{
    struct planned p =
        good("name: mid\nmerge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a}, {model: b}]\n"
             "dtype: float32\nout_dtype: bfloat16\n---\n"
             "merge_method: task_arithmetic\nbase_model: base\nmodels:\n- model: mid\n"
             "  parameters: {weight: 1}\n");
    const struct plan_tensor *t = tensor(&p, "lm_head.weight");

    (void)state;
    assert_int_equal(p.set->n_plans, 2);
    assert_null(t->inputs[0].file);
    assert_string_equal(t->inputs[0].model, "mid");
    assert_int_equal(t->inputs[0].dtype, DTYPE_BF16); /* as if saved in its out_dtype */
    assert_int_equal(p.plan->n_models, 3);
    drop(&p);
}

static void test_mistakes(void **state)
{
    (void)state;
    BAD("merge_method: tise\nbase_model: base\nmodels: [{model: a}]\n",
        "m.yml:1:15: there is no merge_method `tise`");
    BAD("merge_method: task_arithmetic\nmodels: [{model: a}]\nparameters: {weight: 1}\n",
        "needs a `base_model:`");
    BAD("merge_method: task_arithmetic\nbase_model: base\nmodels: [{model: a}, {model: b}]\n",
        "needs `weight` under `parameters:` of a", "of b");
    BAD("merge_method: nearswap\nbase_model: base\nmodels: [{model: a}]\n", "nearswap needs `t`");
    BAD("merge_method: nearswap\nbase_model: base\nparameters: {t: 1}\nmodels: [{model: a}, {model: b}]\n",
        "nearswap takes exactly 1 model beside the base; here are 2");
    BAD("merge_method: passthrough\nmodels: [{model: a}, {model: b}]\n",
        "passthrough takes exactly 1 model; here are 2");
    BAD("merge_method: linear\nparameters: {weight: 1, normalize: 0.5}\nmodels: [{model: a}]\n",
        "m.yml:2:36: parameter `normalize` is true or false, not `0.5`");
    BAD("merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a}, {model: deep}]\n",
        "deep has 5 layers and a has 3: choose layers with `slices:`");
    BAD("merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [1, 4]}]\n",
        "layer_range [1, 4) goes past the 3 layers of a");
    BAD("merge_method: task_arithmetic\nbase_model: base\nparameters: {weight: 1}\nslices:\n"
        "- sources: [{model: a, layer_range: [0, 2]}]\n",
        "m.yml:5:3: task_arithmetic needs the base model among the sources of every slice");
    BAD("merge_method: nuslerp\nbase_model: base\nparameters: {weight: 1}\nslices:\n"
        "- sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [0, 2]}]\n",
        "m.yml:5:3: nuslerp needs the base model among the sources of every slice");
    BAD("merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: ./nowhere}, {model: org/name}]\n",
        "./nowhere", "hf download org/name");
    BAD("merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a+b}]\n",
        "not supported yet: adapters");
    BAD("merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a}]\ntokenizer_source: union\n",
        "m.yml:4:19: not supported yet: a tokenizer");
    BAD("merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a}]\nchat_template: chatml\n",
        "not supported yet: chat_template");
    BAD("name: s\nmerge_method: linear\nparameters: {weight: 1}\nmodels: [{model: ./gone}]\n---\n"
        "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: s}, {model: ./nowhere}]\n",
        "./gone", "./nowhere");
}

static void test_warnings(void **state)
{
    struct planned p = good(CHAT "parameters: {wieght: 1, density: 0.5}\n");

    (void)state;
    assert_warns(&p, "m.yml:8:14: task_arithmetic has no parameter `wieght`");
    assert_warns(&p, "`density` changes nothing in task_arithmetic");
    drop(&p);
    p = good("merge_method: linear\nmodels: [{model: a, parameters: {weight: 1, normalize: false}}]\n");
    assert_warns(&p, "`normalize` is one value for all models");
    assert_true(
        tensor(&p, "lm_head.weight")->recipe.merge.shared[method_param(method_find("linear"), "normalize")] ==
        1);
    drop(&p);
}

static int plan_once(void)
{
    struct planned p;
    int status = plan_text(CHAT, &p);

    drop(&p);
    return status;
}

static void test_every_allocation_refused(void **state)
{
    (void)state;
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = malloc, .free_fn = free}); /* the refusing one */
    assert_true(refuse_each_alloc(plan_once()) > 100);
    cJSON_InitHooks(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models_and_types),
        cmocka_unit_test(test_a_listed_base_is_no_donor),
        cmocka_unit_test(test_float64),
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_tied_and_untied),
        cmocka_unit_test(test_filters_on_a_tied_head),
        cmocka_unit_test(test_a_stack_that_ends_in_a_tied_model),
        cmocka_unit_test(test_only_vocabularies_are_truncated),
        cmocka_unit_test(test_towers_of_stages),
        cmocka_unit_test(test_shapes_that_differ),
        cmocka_unit_test(test_tensors_some_lack),
        cmocka_unit_test(test_modules),
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_warnings),
        cmocka_unit_test(test_every_allocation_refused),
    };

    return cmocka_run_group_tests(tests, models, scratch_teardown);
}
