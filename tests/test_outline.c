/* Structures: layouts that meet, modules, FP8, and warnings about all that. */
#include "planned.h"

#include "inputs.h"

#include "fail_alloc.h"

enum { EXPERTS = 3 };

/* A layer of experts in one of three layouts: "mixtral", "qwen", "packed". Elements of expert e's part p
 * begin with seed + 2 e + p, so what comes together can be told. */
static void put_experts(const char *dir, const char *layout, unsigned layers, unsigned seed)
{
    static const char *const mixtral[] = {"block_sparse_moe.experts.%u.w1.weight",
                                          "block_sparse_moe.experts.%u.w3.weight",
                                          "block_sparse_moe.experts.%u.w2.weight"};
    static const char *const qwen[] = {"mlp.experts.%u.gate_proj.weight", "mlp.experts.%u.up_proj.weight",
                                       "mlp.experts.%u.down_proj.weight"};
    const char *const *parts = strcmp(layout, "mixtral") == 0 ? mixtral : qwen;
    struct put_tensor tensors[64];
    char names[64][96], path[64], config[128];
    size_t n = 0;

    for (unsigned l = 0; l < layers; l++) {
        int len = snprintf(names[n], sizeof(names[n]), "model.layers.%u.", l);
        if (strcmp(layout, "packed") == 0) {
            snprintf(names[n] + len, 64, "mlp.experts.gate_up_proj");
            tensors[n] = (struct put_tensor){names[n], DTYPE_BF16, 3, {EXPERTS, 4, 3}, seed};
            n++;
            snprintf(names[n], sizeof(names[n]), "model.layers.%u.mlp.experts.down_proj", l);
            tensors[n] = (struct put_tensor){names[n], DTYPE_BF16, 3, {EXPERTS, 3, 2}, seed};
            n++;
        }
        for (unsigned e = 0; e < EXPERTS && strcmp(layout, "packed") != 0; e++) {
            for (unsigned p = 0; p < 3; p++, n++) {
                char part[64];
                snprintf(part, sizeof(part), parts[p], e);
                snprintf(names[n], sizeof(names[n]), "model.layers.%u.%s", l, part);
                tensors[n] = (struct put_tensor){
                    names[n], DTYPE_BF16, 2, {p == 2 ? 3 : 2, p == 2 ? 2 : 3}, seed + 2 * e + p};
            }
        }
        snprintf(names[n], sizeof(names[n]), "model.layers.%u.%s.gate.weight", l,
                 strcmp(layout, "mixtral") == 0 ? "block_sparse_moe" : "mlp");
        tensors[n] = (struct put_tensor){names[n], DTYPE_BF16, 2, {EXPERTS, 3}, seed};
        n++;
    }
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    put_shard(path, tensors, n);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    snprintf(config, sizeof(config), "{\"num_hidden_layers\": %u}", layers);
    put_text(path, config);
}

/* All bytes of an input of a planned tensor. */
static size_t read_input(const struct plan_tensor *t, unsigned input, unsigned char *out)
{
    const struct feed *feed = t->recipe.inputs[input];
    struct err err = {""};
    uint64_t len;

    assert_true(dtype_bytes(feed->dtype, feed->n, &len));
    assert_int_equal(feed->n, t->recipe.merge.n);
    assert_int_equal(feed->read(feed, 0, feed->n, out, NULL, &err), 0);
    assert_string_equal(err.text, "");
    return len;
}

static void put_elements(unsigned char *out, unsigned seed, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        put_element(out + 2 * i, DTYPE_BF16, seed, i);
}

#define LINEAR(a, b) \
    "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: " a "}, {model: " b "}]\n"

static void test_experts_that_meet_are_packed(void **state)
{
    struct planned p = good(LINEAR("packed", "mixtral"));
    const struct plan_tensor *t = tensor(&p, "model.layers.1.mlp.experts.gate_up_proj");
    unsigned char got[256], want[256];
    size_t len = read_input(t, 1, got);

    (void)state;
    assert_int_equal(p.plan->n_tensors, 2 * 3);
    assert_int_equal(p.report.n, 0);
    for (unsigned e = 0; e < EXPERTS; e++) {
        put_elements(want + 24 * e, 20 + 2 * e, 6);
        put_elements(want + 24 * e + 12, 20 + 2 * e + 1, 6);
    }
    assert_memory_equal(got, want, len);
    assert_string_equal(t->inputs[1].shown,
                        "6 tensors from model.layers.1.block_sparse_moe.experts.0.w1.weight on");
    t = tensor(&p, "model.layers.0.mlp.experts.down_proj");
    len = read_input(t, 1, got);
    for (unsigned e = 0; e < EXPERTS; e++)
        put_elements(want + 12 * e, 20 + 2 * e + 2, 6);
    assert_memory_equal(got, want, len);
    t = tensor(&p, "model.layers.0.mlp.gate.weight");
    assert_string_equal(t->inputs[1].shown, "model.layers.0.block_sparse_moe.gate.weight");
    drop(&p);
}

static void test_experts_that_meet_are_unpacked(void **state)
{
    struct planned p = good(LINEAR("qwen", "packed"));
    const struct plan_tensor *t = tensor(&p, "model.layers.1.mlp.experts.2.up_proj.weight");
    unsigned char got[256], whole[256];

    (void)state;
    assert_int_equal(p.plan->n_tensors, 2 * (3 * EXPERTS + 1));
    assert_int_equal(read_input(t, 1, got), 12);
    put_elements(whole, 40, EXPERTS * 12);
    assert_memory_equal(got, whole + 2 * (2 * 12 + 6), 12);
    assert_string_equal(t->inputs[1].shown,
                        "rows 2 to 4 of matrix 2 of model.layers.1.mlp.experts.gate_up_proj");
    assert_string_equal(t->inputs[1].tensor, "model.layers.1.mlp.experts.2.up_proj.weight");
    t = tensor(&p, "model.layers.0.mlp.experts.1.down_proj.weight");
    assert_int_equal(read_input(t, 1, got), 12);
    assert_memory_equal(got, whole + 2 * 6, 12);
    drop(&p);
    /* two spellings of loose experts, and layers that the donor does not have */
    p = good("merge_method: linear\nparameters: {weight: 1}\nslices:\n- sources:\n"
             "  - {model: mixtral, layer_range: [0, 1]}\n  - {model: qwen4, layer_range: [3, 4]}\n");
    t = tensor(&p, "model.layers.0.block_sparse_moe.experts.1.w3.weight");
    assert_string_equal(t->inputs[1].shown, "model.layers.3.mlp.experts.1.up_proj.weight");
    assert_string_equal(t->inputs[1].tensor, "model.layers.3.block_sparse_moe.experts.1.w3.weight");
    assert_int_equal(p.plan->n_tensors, 3 * EXPERTS + 1);
    drop(&p);
}

/* A stage is packed by its donor; what it is taken apart into is computed by it. */
static void test_stages_meet_too(void **state)
{
    struct planned p = good("name: mid\n" LINEAR("packed", "qwen") "---\n" LINEAR("mixtral", "mid"));
    const struct plan_tensor *t = tensor(&p, "model.layers.0.block_sparse_moe.experts.0.w2.weight");

    (void)state;
    assert_int_equal(t->recipe.inputs[1]->n_parts, 1);
    assert_non_null(feed_recipe(t->recipe.inputs[1]->parts[0]));
    assert_null(t->inputs[1].file);
    drop(&p);
}

#define DOWN(expert) "model.layers.0.mlp.experts." expert ".down_proj.weight"

/* Two or more inputs of the same experts, some apart: left as they are they would be served twice. */
static void test_experts_that_cannot_be_packed(void **state)
{
    static const char *const text = LINEAR("packed", "few");
    struct put_tensor few[] = {
        {DOWN("0"), DTYPE_BF16, 2, {3, 2}, 1},
        {DOWN("1"), DTYPE_BF16, 2, {3, 2}, 1},
        {DOWN("2"), DTYPE_BF16, 2, {3, 2}, 1},
        {"model.layers.0.block_sparse_moe.experts.1.w2.weight", DTYPE_BF16, 2, {3, 2}, 1},
    };
    struct put_tensor halves[] = {
        {"model.layers.1.mlp.experts.0.gate_proj.weight", DTYPE_BF16, 2, {2, 3}, 1},
        {"model.layers.1.mlp.experts.0.up_proj.weight", DTYPE_BF16, 2, {2, 3}, 1},
        {"model.layers.1.mlp.experts.1.gate_proj.weight", DTYPE_BF16, 2, {2, 3}, 1},
    };

    (void)state;
    put_text("few/config.json", "{\"num_hidden_layers\": 2}");
    put_shard("few/model.safetensors", few, 4);
    BAD(text, "m.yml:3:35: few: `model.layers.0.", "` are the same part of one expert");
    few[3].name = DOWN("4"); /* 3 is the first that is missing */
    put_shard("few/model.safetensors", few, 4);
    BAD(text, "few lacks `" DOWN("3") "`: without it the experts cannot be packed into "
                                      "`model.layers.0.mlp.experts.down_proj`, as packed has them");
    put_shard("few/model.safetensors", few + 1, 2);
    BAD(text, "few lacks `" DOWN("0") "`");
    few[1].dtype = DTYPE_F32;
    put_shard("few/model.safetensors", few, 3);
    BAD(text, "few: `" DOWN("0") "` and `" DOWN("1") "` are not matrices of one type and shape");
    put_shard("few/model.safetensors", halves, 3);
    BAD(text, "few lacks `model.layers.1.mlp.experts.1.up_proj.weight`");
}

/* Parts next to the pack they would be in, and names that are no part's, stay as they are. */
static void test_experts_that_need_no_pack(void **state)
{
    struct put_tensor both[] = {
        {DOWN("0"), DTYPE_BF16, 2, {3, 2}, 1},
        {DOWN("01"), DTYPE_BF16, 2, {3, 2}, 1},
        {"model.layers.0.mlp.experts.down_proj", DTYPE_BF16, 3, {EXPERTS, 3, 2}, 1},
        {"model.layers.1.mlp.gate.weight", DTYPE_BF16, 2, {EXPERTS, 3}, 1},
    };
    struct planned p;

    (void)state;
    put_shard("both/model.safetensors", both, 4);
    put_text("both/config.json", "{\"num_hidden_layers\": 2}");
    p = good(LINEAR("packed", "both"));
    assert_int_equal(tensor(&p, DOWN("0"))->recipe.n_inputs, 1);
    assert_int_equal(tensor(&p, DOWN("01"))->recipe.n_inputs, 1);
    assert_int_equal(tensor(&p, "model.layers.0.mlp.experts.down_proj")->recipe.n_inputs, 2);
    drop(&p);
}

static void test_packs_that_cannot_be_taken_apart(void **state)
{
    static const char *const text = LINEAR("qwen", "odd");
    struct put_tensor odd = {"model.layers.0.mlp.experts.gate_up_proj", DTYPE_BF16, 3, {65536, 2, 0}, 1};

    (void)state;
    put_text("odd/config.json", "{\"num_hidden_layers\": 2}");
    put_shard("odd/model.safetensors", &odd, 1);
    BAD(text,
        "m.yml:3:33: odd: `model.layers.0.mlp.experts.gate_up_proj` does not hold experts in a shape that "
        "is understood, and qwen has each of them apart");
    odd.shape[0] = 0;
    odd.shape[2] = 3;
    put_shard("odd/model.safetensors", &odd, 1);
    BAD(text, "does not hold experts in a shape that is understood");
    odd.shape[0] = EXPERTS;
    odd.shape[1] = 3; /* no two halves */
    put_shard("odd/model.safetensors", &odd, 1);
    BAD(text, "does not hold experts in a shape that is understood");
    odd.shape[0] = EXPERTS + 1;
    odd.shape[1] = 4;
    put_shard("odd/model.safetensors", &odd, 1);
    BAD(text, "odd: `model.layers.0.mlp.experts.gate_up_proj` holds 4 experts, and qwen has no more than 3");
}

/* Nothing but the sizes declared needs memory: with a donor of that many experts, too, there is an end. */
static void test_packs_of_very_many_experts(void **state)
{
    struct put_tensor last = {DOWN("99999"), DTYPE_BF16, 2, {1, 1}, 1};
    struct put_tensor packs[3] = {
        {"model.layers.0.mlp.experts.down_proj", DTYPE_U8, 3, {100000, 1, 1}, 1},
        {"model.layers.1.mlp.experts.down_proj", DTYPE_U8, 3, {100000, 1, 1}, 1},
        {"model.layers.2.mlp.experts.down_proj", DTYPE_U8, 3, {100000, 1, 1}, 1},
    };

    (void)state;
    put_text("last/config.json", "{\"num_hidden_layers\": 2}");
    put_shard("last/model.safetensors", &last, 1);
    put_text("packs/config.json", "{\"num_hidden_layers\": 2}");
    put_shard("packs/model.safetensors", packs, 3);
    BAD(LINEAR("last", "packs"), "packs: `model.layers.2.mlp.experts.down_proj` and the packs before it hold "
                                 "more than 262144 tensors");
}

static void test_heads_are_whole_components(void **state)
{
    (void)state;
    assert_true(is_head("lm_head.weight"));
    assert_true(is_head("model.lm_head.weight"));
    assert_false(is_head("film_head.weight"));
    assert_false(is_head("head.weight"));
    assert_true(has_vocabulary("shared.weight"));
    assert_false(has_vocabulary("unshared.weight"));
}

/* ---- parts of multimodal and encoder-decoder models */

/* Text of 3 layers, vision of 2, a projector; `now`: as transformers 5 names them. */
static void put_seeing(const char *dir, bool now, unsigned seed)
{
    const char *text = now ? "model.language_model." : "language_model.model.", *rest = now ? "model." : "";
    struct put_tensor tensors[16];
    char names[16][96], path[64];
    size_t n = 0;

    for (unsigned i = 0; i < 3; i++)
        snprintf(names[n++], 96, "%slayers.%u.mlp.up_proj.weight", text, i);
    for (unsigned i = 0; i < 2; i++)
        snprintf(names[n++], 96, "%svision_tower.vision_model.encoder.layers.%u.fc.weight", rest, i);
    snprintf(names[n++], 96, "%sembed_tokens.weight", text);
    snprintf(names[n++], 96, "%smulti_modal_projector.linear_1.weight", rest);
    snprintf(names[n++], 96, "%slm_head.weight", now ? "" : "language_model.");
    snprintf(names[n++], 96, "image_newline");
    for (size_t i = 0; i < n; i++)
        tensors[i] = (struct put_tensor){names[i], DTYPE_BF16, 2, {4, 4}, seed};
    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    put_shard(path, tensors, n);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    put_text(path, "{\"text_config\": {\"num_hidden_layers\": 3, \"layer_types\": [1, 2, 3]},"
                   " \"vision_config\": {\"num_hidden_layers\": 2, \"layer_types\": [1, 2]}}");
}

static void test_both_stacks_have_their_gradients(void **state)
{
    struct planned p = good(LINEAR("seeing", "seeing_now"));

    (void)state;
    assert_int_equal(p.plan->n_tensors, 9);
    assert_int_equal(p.report.n, 0);
    assert_true(tensor(&p, "language_model.model.layers.1.mlp.up_proj.weight")->t == 0.5);
    assert_true(tensor(&p, "vision_tower.vision_model.encoder.layers.1.fc.weight")->t == 1);
    assert_true(tensor(&p, "language_model.lm_head.weight")->t == 0);
    for (size_t i = 0; i < p.plan->n_tensors; i++)
        assert_int_equal(p.plan->tensors[i].recipe.n_inputs, 2);
    assert_string_equal(tensor(&p, "language_model.lm_head.weight")->inputs[1].shown, "lm_head.weight");
    drop(&p);
}

static void test_modules_of_a_multimodal_model(void **state)
{
    struct planned p = good("merge_method: passthrough\nbase_model: seeing\nmodules:\n"
                            "  text_decoder:\n    slices:\n"
                            "    - sources: [{model: seeing, layer_range: [0, 2]}]\n"
                            "    - sources: [{model: seeing, layer_range: [1, 3]}]\n"
                            "  vision_tower:\n    slices:\n"
                            "    - sources: [{model: seeing, layer_range: [1, 2]}]\n");
    const cJSON *text = cJSON_GetObjectItem(p.plan->config, "text_config");
    const cJSON *vision = cJSON_GetObjectItem(p.plan->config, "vision_config");

    (void)state;
    assert_int_equal(p.plan->n_tensors, 4 + 1 + 4);
    assert_string_equal(tensor(&p, "language_model.model.layers.3.mlp.up_proj.weight")->inputs[0].tensor,
                        "language_model.model.layers.2.mlp.up_proj.weight");
    assert_string_equal(tensor(&p, "vision_tower.vision_model.encoder.layers.0.fc.weight")->inputs[0].tensor,
                        "vision_tower.vision_model.encoder.layers.1.fc.weight");
    assert_string_equal(tensor(&p, "multi_modal_projector.linear_1.weight")->note,
                        "in no module of the merge file: kept");
    assert_int_equal(cJSON_GetObjectItem(text, "num_hidden_layers")->valueint, 4);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(text, "layer_types")), 4);
    assert_int_equal(cJSON_GetObjectItem(vision, "num_hidden_layers")->valueint, 1);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(vision, "layer_types")), 1);
    drop(&p);
    p = good("merge_method: linear\nparameters: {weight: 1}\ndtype: float32\nbase_model: seeing\nmodules:\n"
             "  text_decoder:\n    models: [{model: seeing_now}]\n");
    assert_int_equal(tensor(&p, "language_model.lm_head.weight")->recipe.n_inputs, 2);
    assert_int_equal(tensor(&p, "vision_tower.vision_model.encoder.layers.1.fc.weight")->recipe.n_inputs, 1);
    drop(&p);
}

static void test_modules_of_an_encoder_decoder(void **state)
{
    struct put_tensor t5[] = {
        {"decoder.block.0.layer.0.q.weight", DTYPE_BF16, 2, {2, 2}, 1},
        {"decoder.block.1.layer.0.q.weight", DTYPE_BF16, 2, {2, 2}, 1},
        {"decoder.final_layer_norm.weight", DTYPE_BF16, 1, {2}, 1},
        {"encoder.block.0.layer.0.q.weight", DTYPE_BF16, 2, {2, 2}, 1},
        {"encoder.block.1.layer.0.q.weight", DTYPE_BF16, 2, {2, 2}, 1},
        {"lm_head.weight", DTYPE_BF16, 2, {4, 2}, 1},
        {"shared.weight", DTYPE_BF16, 2, {4, 2}, 1},
    };
    struct planned p;

    (void)state;
    put_shard("t5/model.safetensors", t5, 7);
    put_text("t5/config.json", "{\"num_layers\": 2, \"num_decoder_layers\": 2}");
    p = good("merge_method: passthrough\nbase_model: t5\nmodules:\n"
             "  decoder:\n    slices:\n    - sources: [{model: t5, layer_range: [1, 2]}]\n"
             "  encoder:\n    models: [{model: t5}]\n"
             "  shared:\n    models: [{model: t5}]\n");
    assert_int_equal(p.plan->n_tensors, 6);
    assert_string_equal(tensor(&p, "decoder.block.0.layer.0.q.weight")->inputs[0].tensor,
                        "decoder.block.1.layer.0.q.weight");
    assert_true(tensor(&p, "encoder.block.1.layer.0.q.weight")->t == 1);
    assert_int_equal(cJSON_GetObjectItem(p.plan->config, "num_layers")->valueint, 2);
    assert_int_equal(cJSON_GetObjectItem(p.plan->config, "num_decoder_layers")->valueint, 1);
    assert_null(tensor(&p, "lm_head.weight")->note);
    drop(&p);
    BAD("merge_method: passthrough\nslices:\n- sources: [{model: t5, layer_range: [0, 1]}]\n",
        "t5 has layers in `decoder.block.*` and `encoder.block.*`: choose among them with `modules:`");
    BAD("merge_method: passthrough\nmodules:\n  encodr:\n    models: [{model: t5}]\n",
        "m.yml:3:3: t5 has no module `encodr`; it has `encoder`, `decoder`, `shared`, `decoder.block`, "
        "`encoder.block`, and `default` for what no other module has");
    BAD("merge_method: passthrough\nmodules:\n  text_decoder:\n    models: [{model: t5}]\n",
        "t5 has no module `text_decoder`");
    BAD("merge_method: passthrough\nmodules:\n  encoder:\n    models: [{model: t5}]\n"
        "  encoder.block:\n    models: [{model: t5}]\n",
        "`encoder.block.0.layer.0.q.weight` is in module `encoder` and in module `encoder.block`");
}

/* ---- FP8 */

static void put_fp8(const char *dir, const char *config, size_t n)
{
    struct put_tensor fp8[] = {
        {"model.up.weight", DTYPE_F8_E4M3, 2, {4, 6}, 1},
        {"model.up.weight_scale_inv", DTYPE_F32, 2, {2, 2}, 7},
        {"model.up.input_scale", DTYPE_F32, 1, {1}, 1},
    };
    char path[64];

    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    put_shard(path, fp8, n);
    snprintf(path, sizeof(path), "%s/config.json", dir);
    put_text(path, config);
}

static void test_fp8_is_what_it_stands_for(void **state)
{
    struct planned p;
    const struct plan_tensor *t;
    unsigned char got[64];

    (void)state;
    put_fp8("fp8",
            "{\"torch_dtype\": \"bfloat16\", \"quantization_config\": {\"quant_method\": \"fp8\","
            " \"weight_block_size\": [2, 3]}}",
            3);
    p = good("merge_method: passthrough\nmodels: [{model: fp8}]\n");
    assert_int_equal(p.plan->n_tensors, 1);
    t = tensor(&p, "model.up.weight");
    assert_int_equal(t->recipe.kind, RECIPE_COPY);
    assert_int_equal(t->st.dtype, DTYPE_BF16);
    assert_int_equal(read_input(t, 0, got), 48);
    assert_null(cJSON_GetObjectItem(p.plan->config, "quantization_config"));
    drop(&p);
}

static void test_fp8_without_scales(void **state)
{
    struct planned p;

    (void)state;
    put_fp8("plain8", "{}", 1);
    p = good("merge_method: passthrough\nmodels: [{model: plain8}]\n");
    assert_int_equal(tensor(&p, "model.up.weight")->st.dtype, DTYPE_F8_E4M3);
    drop(&p);
    BAD("merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: plain8}]\n",
        "`model.up.weight` is F8_E4M3 in plain8, a type without arithmetic: set `dtype: bfloat16`");
    p = good("merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: plain8}]\ndtype: float16\n");
    assert_int_equal(tensor(&p, "model.up.weight")->st.dtype, DTYPE_F16);
    assert_int_equal(tensor(&p, "model.up.weight")->recipe.inputs[0]->dtype, DTYPE_BF16);
    drop(&p);
}

/* ---- warnings */

#define TASK(weight_a, weight_b, more)                                               \
    "merge_method: task_arithmetic\nbase_model: packed\nmodels:\n- model: packed2\n" \
    "  parameters: {weight: " weight_a "}\n- model: packed3\n  parameters: {weight: " weight_b "}\n" more

static void test_warnings(void **state)
{
    struct planned p = good(TASK("[{filter: gate_up, value: 1}, {filter: self_atn, value: 2}, {value: 1},"
                                 " {filter: down, value: 3}]",
                                 "-1", "parameters: {normalize: true}\ndtype: float16\n"));

    (void)state;
    assert_warns(&p, "m.yml:5:80: no tensor has `self_atn` in its name: this `weight` is never used");
    assert_warns(
        &p, "m.yml:5:118: never used: the value of `weight` in line 5 is for all tensors and comes first");
    assert_warns(&p, "m.yml:5:16: the weights of `model.layers.0.mlp.experts.down_proj` sum to 0");
    assert_warns(&p, "m.yml:9:8: float16 ends at 65504");
    assert_int_equal(p.report.n, 4); /* once each, however many tensors */
    drop(&p);
    p = good(TASK("1", "-1", ""));
    assert_int_equal(p.report.n, 0);
    drop(&p);
    p = good(TASK("0", "0", "parameters: {normalize: true}\n"));
    assert_int_equal(p.report.n, 0);
    drop(&p);
    p = good("merge_method: linear\nmodels:\n- {model: packed, parameters: {weight: 1}}\n"
             "- {model: packed2, parameters: {weight: -1}}\nout_dtype: float16\n");
    assert_warns(&p,
                 "m.yml:3:32: the weights of `model.layers.0.mlp.experts.down_proj` sum to 0 and are to be "
                 "divided by that: the result is infinite or NaN");
    assert_warns(&p, "m.yml:5:12: float16 ends at 65504");
    drop(&p);
}

#define PART                                                                                  \
    "merge_method: passthrough\nbase_model: seeing\nmodules:\n  text_decoder:\n    slices:\n" \
    "    - sources: [{model: seeing_now, layer_range: [1, 2]}]\n"

static int plan_once(const char *text)
{
    struct planned p;
    int status = plan_text(text, &p);

    drop(&p);
    return status;
}

static void test_every_allocation_refused(void **state)
{
    static const char *const texts[] = {
        LINEAR("packed", "mixtral"),
        LINEAR("qwen", "packed"),
        PART,
        "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: fp8}]\n",
    };

    (void)state;
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = malloc, .free_fn = free}); /* the refusing one */
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_true(refuse_each_alloc(plan_once(texts[i])) > 20);
    cJSON_InitHooks(NULL);
}

static int models(void **state)
{
    if (scratch_setup(state))
        return -1;
    put_experts("mixtral", "mixtral", 2, 20);
    put_experts("qwen", "qwen", 2, 30);
    put_experts("qwen4", "qwen", 4, 35);
    put_experts("packed", "packed", 2, 40);
    put_experts("packed2", "packed", 2, 41);
    put_experts("packed3", "packed", 2, 42);
    put_seeing("seeing", false, 50);
    put_seeing("seeing_now", true, 60);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_experts_that_meet_are_packed),
        cmocka_unit_test(test_experts_that_meet_are_unpacked),
        cmocka_unit_test(test_stages_meet_too),
        cmocka_unit_test(test_experts_that_cannot_be_packed),
        cmocka_unit_test(test_experts_that_need_no_pack),
        cmocka_unit_test(test_packs_that_cannot_be_taken_apart),
        cmocka_unit_test(test_packs_of_very_many_experts),
        cmocka_unit_test(test_heads_are_whole_components),
        cmocka_unit_test(test_both_stacks_have_their_gradients),
        cmocka_unit_test(test_modules_of_a_multimodal_model),
        cmocka_unit_test(test_modules_of_an_encoder_decoder),
        cmocka_unit_test(test_fp8_is_what_it_stands_for),
        cmocka_unit_test(test_fp8_without_scales),
        cmocka_unit_test(test_warnings),
        cmocka_unit_test(test_every_allocation_refused),
    };

    return cmocka_run_group_tests(tests, models, scratch_teardown);
}
