#include "model.h"

#include <endian.h>
#include <errno.h>

#include "fp8.h"
#include "scratch_dir.h"

#include "fail_alloc.h"

static const char index_file[] = "m/model.safetensors.index.json";

/* A safetensors file with `json` as its header and data_len bytes 0, 1, 2, ... behind it. */
static void put_weights(const char *name, const char *json, size_t data_len)
{
    char file[4096];
    size_t len = strlen(json);
    uint64_t word = htole64(len);

    assert_true(8 + len + data_len <= sizeof(file));
    memcpy(file, &word, 8);
    memcpy(file + 8, json, len);
    for (size_t i = 0; i < data_len; i++)
        file[8 + len + i] = (char)i;
    put_bytes(name, file, 8 + len + data_len);
}

static const char two[] = "{\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
                          "\"a\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[2,8]}}";
static const char third[] = "{\"c\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}";

static void put_single(void)
{
    put_text("m/config.json", "{\"model_type\":\"llama\"}");
    put_weights("m/model.safetensors", two, 8);
}

static void put_sharded(const char *weight_map)
{
    char json[512];

    put_text("m/config.json", "{}");
    put_weights("m/1.safetensors", two, 8);
    put_weights("m/2.safetensors", third, 4);
    snprintf(json, sizeof(json), "{\"metadata\":{\"total_size\":12},\"weight_map\":{%s}}", weight_map);
    put_text(index_file, json);
}

static const char good_map[] = "\"a\":\"1.safetensors\",\"c\":\"2.safetensors\",\"b\":\"1.safetensors\"";

/* As the donor of config is opened. */
static int open_with_files(const char *dir, const char *name, bool hub, struct model **model, struct err *err)
{
    int ret = model_open(dir, name, hub, model, err);

    if (ret == 0)
        ret = model_list_files(*model, err);
    if (ret) {
        model_free(*model);
        *model = NULL;
    }
    return ret;
}

static struct model *open_model(void)
{
    struct err err = {""};
    struct model *model = NULL;

    open_with_files(scratch_path("m"), "m", false, &model, &err);
    assert_string_equal(err.text, "");
    assert_non_null(model);
    return model;
}

static void expect_refusal(int code, const char *says)
{
    struct err err = {""};
    struct model *model = (struct model *)&err;
    int ret = open_with_files(scratch_path("m"), "m", false, &model, &err);

    assert_says(err.text, says);
    assert_int_equal(ret, code);
    assert_null(model);
    assert_int_equal(open_with_files(scratch_path("m"), "m", false, &model, NULL), code);
}

static void expect_bytes(const struct model *model, const char *name, const char *bytes, size_t len)
{
    const struct model_tensor *tensor = model_tensor(model, name);
    char buf[16];

    assert_non_null(tensor);
    assert_string_equal(tensor->st.name, name);
    assert_int_equal(tensor->st.len, len);
    assert_int_equal(tensor->feed.feed.dtype, tensor->st.dtype);
    assert_int_equal(tensor->feed.feed.read(&tensor->feed.feed, 0, tensor->st.n, buf, NULL, NULL), 0);
    assert_memory_equal(buf, bytes, len);
}

static void test_single(void **state)
{
    struct model *model;

    (void)state;
    put_single();
    model = open_model();
    assert_string_equal(model->dir, scratch_path("m"));
    assert_string_equal(model->name, "m");
    assert_false(model->hub);
    assert_string_equal(cJSON_GetObjectItem(model->config, "model_type")->valuestring, "llama");
    assert_int_equal(model->n_tensors, 2);
    assert_string_equal(model->tensors[0].st.name, "a");
    assert_int_equal(model->n_sources, 1);
    assert_int_equal(model->n_files, 0);
    expect_bytes(model, "a", "\2\3\4\5\6\7", 6);
    expect_bytes(model, "b", "\0\1", 2);
    assert_null(model_tensor(model, "c"));
    assert_null(model_tensor(model, ""));
    model_free(model);
    model_free(NULL);
}

static void test_sharded(void **state)
{
    struct model *model;

    (void)state;
    put_sharded(good_map);
    model = open_model();
    assert_int_equal(model->n_tensors, 3);
    assert_int_equal(model->n_sources, 2);
    expect_bytes(model, "a", "\2\3\4\5\6\7", 6);
    expect_bytes(model, "c", "\0\1\2\3", 4);
    assert_string_equal(model_tensor(model, "c")->feed.source->path, scratch_path("m/2.safetensors"));
    model_free(model);
}

static void test_single_wins(void **state)
{
    struct model *model;

    (void)state;
    put_sharded("\"x\":\"missing.safetensors\"");
    put_single();
    model = open_model();
    assert_int_equal(model->n_tensors, 2);
    model_free(model);
}

static void test_no_tensors(void **state)
{
    struct model *model;

    (void)state;
    put_text("m/config.json", "{}");
    put_weights("m/model.safetensors", "{}", 0);
    model = open_model();
    assert_int_equal(model->n_tensors, 0);
    assert_null(model_tensor(model, "a"));
    model_free(model);
    assert_int_equal(unlink(scratch_path("m/model.safetensors")), 0);
    put_text(index_file, "{\"weight_map\":{}}");
    model = open_model();
    assert_int_equal(model->n_tensors, 0);
    model_free(model);
}

static void test_index_disagrees(void **state)
{
    (void)state;
    put_sharded("\"a\":\"1.safetensors\",\"c\":\"2.safetensors\"");
    expect_refusal(-EINVAL, "index.json does not list tensor \"b\", which is in ");
    put_sharded(
        "\"a\":\"1.safetensors\",\"b\":\"1.safetensors\",\"c\":\"2.safetensors\",\"d\":\"2.safetensors\"");
    expect_refusal(-EINVAL, "index.json says that tensor \"d\" is in 2.safetensors; it is not");
    put_sharded("\"a\":\"1.safetensors\",\"b\":\"2.safetensors\",\"c\":\"2.safetensors\"");
    expect_refusal(-EINVAL, "index.json says that tensor \"b\" is in 2.safetensors; it is not");
    put_sharded("\"a\":\"1.safetensors\",\"b\":\"1.safetensors\"");
    put_text("m/1.safetensors", "");
    expect_refusal(-EINVAL, "m/1.safetensors: no safetensors file: only 0 bytes");
}

static void test_tensor_in_two_shards(void **state)
{
    (void)state;
    put_sharded(good_map);
    put_weights("m/2.safetensors", two, 8);
    expect_refusal(-EINVAL, "tensor \"a\" is there already, in ");
}

static void test_shard_missing(void **state)
{
    (void)state;
    put_sharded(good_map);
    assert_int_equal(unlink(scratch_path("m/2.safetensors")), 0);
    expect_refusal(-ENOENT, "model.safetensors.index.json lists a file that is not there: ");
    expect_refusal(-ENOENT, scratch_path("m/2.safetensors"));
}

static void test_index_broken(void **state)
{
    (void)state;
    put_sharded("\"a\":\"../1.safetensors\"");
    expect_refusal(-EINVAL, "m/model.safetensors.index.json: weight_map puts \"a\" in \"../1.safetensors\"");
    put_text(index_file, "{");
    expect_refusal(-EINVAL, "m/model.safetensors.index.json: byte 1: the text ends too early");
}

static void test_header_broken(void **state)
{
    (void)state;
    put_single();
    put_weights("m/model.safetensors", two, 7);
    expect_refusal(-EINVAL, "m/model.safetensors: truncated: its tensors take 8 bytes, but only 7");
    put_text("m/model.safetensors", "\xff\xff\xff\xff\xff\xff\xff\x7f{}");
    expect_refusal(-EINVAL,
                   "m/model.safetensors: no safetensors file: it states a header of 9223372036854775807");
    put_text("m/model.safetensors", "x");
    expect_refusal(-EINVAL, "m/model.safetensors: no safetensors file: only 1 bytes");
}

static void test_no_directory(void **state)
{
    (void)state;
    expect_refusal(-ENOENT, "No such file or directory");
    put_text("m", "");
    expect_refusal(-ENOTDIR, "not a directory; name the folder that holds the model");
}

static void test_locked_directory(void **state)
{
    (void)state;
    put_single();
    assert_int_equal(chmod(scratch_path("m"), 0644), 0);
    if (geteuid() == 0)
        assert_int_equal(seteuid(65534), 0);
    expect_refusal(-EACCES, "m: Permission denied");
    if (getuid() == 0)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(scratch_path("m"), 0755), 0);
}

static void test_no_config(void **state)
{
    (void)state;
    put_weights("m/model.safetensors", two, 8);
    expect_refusal(-ENOENT, "no config.json there");
    put_text("m/adapter_config.json", "{}");
    expect_refusal(-ENOENT, "an adapter, not a model: name it as MODEL+ADAPTER");
}

static void test_config_broken(void **state)
{
    char *large = calloc(1, (1 << 20) + 1);

    (void)state;
    put_single();
    put_text("m/config.json", "{\"a\":1,\"a\":2}");
    expect_refusal(-EINVAL, "m/config.json: byte 7: the key \"a\" is given twice");
    put_text("m/config.json", "[]");
    expect_refusal(-EINVAL, "m/config.json: not an object");
    put_text("m/config.json", "");
    expect_refusal(-EINVAL, "m/config.json: byte 0: the text ends too early");
    memset(large, ' ', (1 << 20) + 1);
    memcpy(large, "{}", 2);
    put_bytes("m/config.json", large, (1 << 20) + 1);
    expect_refusal(-EINVAL, "m/config.json: 1048577 bytes; at most 1048576 are read");
    put_bytes("m/config.json", large, 1 << 20);
    model_free(open_model());
    free(large);
}

static void test_not_allowed(void **state)
{
    (void)state;
    put_single();
    put_text("m/tokenizer.json", "{}");
    assert_int_equal(chmod(scratch_path("m/tokenizer.json"), 0), 0);
    if (geteuid() == 0)
        assert_int_equal(seteuid(65534), 0);
    expect_refusal(-EACCES, "m/tokenizer.json: Permission denied");
    if (getuid() == 0)
        assert_int_equal(seteuid(0), 0);
}

static void test_no_safetensors(void **state)
{
    (void)state;
    put_text("m/config.json", "{}");
    expect_refusal(-ENOENT, "neither model.safetensors nor model.safetensors.index.json is there");
    put_text("m/pytorch_model.bin.index.json", "{}");
    expect_refusal(-EINVAL, "save it with save_pretrained");
    put_text("m/pytorch_model.bin", "");
    expect_refusal(-EINVAL, "the weights are in pytorch_model.bin");
}

static void test_quantized(void **state)
{
    static const struct {
        const char *config, *says;
    } refused[] = {
        {"{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4}}",
         "quant_method is gptq: quantised weights"},
        {"{\"quantization_config\":{\"quant_method\":\"awq\"}}", "use the unquantised original"},
        {"{\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}}", "quant_method is bitsandbytes"},
        {"{\"quantization_config\":{\"load_in_4bit\":true}}", "quant_method is (not named)"},
        {"{\"quantization_config\":{\"quant_method\":4}}", "quant_method is (not named)"},
        {"{\"quantization_config\":\"awq\"}", "quant_method is (not named)"},
        {"{\"quantization_config\":{\"quant_method\":\"a\\u001bb\"}}", "quant_method is a?b"},
        {"{\"quantization_config\":{\"quant_method\":\"compressed-tensors\"}}",
         "quant_method is compressed-tensors: quantised weights"}, /* it has no FP8 weights */
        {"{\"text_config\":{\"quantization_config\":{\"quant_method\":\"awq\"}}}", "quant_method is awq"},
    };

    (void)state;
    put_single();
    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++) {
        put_text("m/config.json", refused[i].config);
        expect_refusal(-EINVAL, refused[i].says);
    }
    put_text("m/config.json",
             "{\"quantization_config\":null,\"text_config\":{\"quantization_config\":null}}");
    model_free(open_model());
    put_text("m/config.json", "{\"quantization_config\":{\"quant_method\":\"fp8\"}}");
    model_free(open_model());
    put_text("m/config.json", "{\"quantization_config\":{},\"a\":[[\"quantization_config\"]]}");
    model_free(open_model());
}

static void test_fp8_scales(void **state)
{
    static const char with[] = "{\"w\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[0,2]},"
                               "\"w_scale%s\":{\"dtype\":\"%s\",\"shape\":[],\"data_offsets\":[2,6]}}";
    static const struct {
        const char *tail, *config;
        size_t n_scaled;
        enum dtype dtype;
    } good[] = {
        {"", "{}", 1, DTYPE_BF16},
        {"_inv", "{\"torch_dtype\":\"float16\",\"quantization_config\":{\"quant_method\":\"fp8\"}}", 1,
         DTYPE_F16},
        {"", "{\"text_config\":{\"dtype\":\"float32\"}}", 1, DTYPE_F32},
        {"", "{\"dtype\":\"float64\",\"quantization_config\":{\"quant_method\":\"compressed-tensors\"}}", 1,
         DTYPE_BF16},
        {"_other", "{\"quantization_config\":{\"quant_method\":\"fbgemm_fp8\"}}", 0, DTYPE_NONE},
    };
    char json[300], name[32];

    (void)state;
    put_single();
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct fp8_feed feed;
        struct model *model;
        put_text("m/config.json", good[i].config);
        snprintf(json, sizeof(json), with, good[i].tail, "F32");
        put_weights("m/model.safetensors", json, 6);
        model = open_model();
        snprintf(name, sizeof(name), "w_scale%s", good[i].tail);
        assert_int_equal(model->n_scaled, good[i].n_scaled);
        assert_int_equal(model_is_scale(model, name), good[i].n_scaled);
        assert_false(model_is_scale(model, "w"));
        assert_int_equal(model_scaled(model, model_tensor(model, "w"), &feed, NULL), good[i].n_scaled);
        assert_int_equal(model_scaled(model, model_tensor(model, name), &feed, NULL), 0);
        if (good[i].n_scaled)
            assert_int_equal(feed.feed.dtype, good[i].dtype);
        model_free(model);
    }
    snprintf(json, sizeof(json), with, "", "I32");
    put_weights("m/model.safetensors", json, 6);
    expect_refusal(-EINVAL, "tensor \"w\": scales of type I32 are not understood");
    put_weights("m/model.safetensors",
                "{\"w\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[0,2]},"
                "\"w_scale\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[2,6]},"
                "\"w_scale_inv\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[6,10]}}",
                10);
    expect_refusal(-EINVAL, "tensor \"w\" has two sets of scales, \"w_scale\" and \"w_scale_inv\"");
}

static void expect_files(const char *expected)
{
    struct model *model = open_model();
    char list[1024] = "";

    for (size_t i = 0; i < model->n_files; i++) {
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s ", model->files[i].path);
        assert_non_null(strstr(model->files[i].source->path, model->files[i].path));
    }
    model_free(model);
    assert_string_equal(list, expected);
}

static void test_side_files(void **state)
{
    static const char *const shown[] = {
        "tokenizer.json", "a.txt",      "1_Pooling/config.json", "1_Pooling/README.md",
        "params.json",    "d/e/f/deep", "chat_template.jinja",
    };
    static const char *const hidden[] = {
        "README.md",
        "mergekit_config.yml",
        ".gitattributes",
        ".cache/x",
        "__pycache__/x.pyc",
        "other.safetensors",
        "x.bin",
        "X.GGUF",
        "x.pt",
        "x.pth",
        "x.ckpt",
        "x.ggml",
        "x.h5",
        "x.msgpack",
        "x.onnx",
        "x.onnx_data",
        "x.npz",
        "x.ot",
        "consolidated.00.pth",
        "consolidated.json",
        "pytorch_model.bin.index.json",
        "2_Dense/model.safetensors",
        "d/e/f/g/deeper",
        "new\nline",
        "d/.hidden",
    };

    (void)state;
    put_single();
    put_text("m/model.safetensors.index.json", "not read");
    for (size_t i = 0; i < sizeof(shown) / sizeof(*shown) + sizeof(hidden) / sizeof(*hidden); i++) {
        const char *name =
            i < sizeof(shown) / sizeof(*shown) ? shown[i] : hidden[i - sizeof(shown) / sizeof(*shown)];
        char path[100];
        snprintf(path, sizeof(path), "m/%s", name);
        put_text(path, "x");
    }
    assert_int_equal(mkfifo(scratch_path("m/fifo"), 0644), 0);
    expect_files("1_Pooling/README.md 1_Pooling/config.json a.txt chat_template.jinja d/e/f/deep params.json "
                 "tokenizer.json ");
}

static void test_side_links(void **state)
{
    (void)state;
    put_single();
    put_text("secret", "x");
    put_text("m2/x", "a folder whose name begins alike");
    put_text("m/sub/real", "x");
    assert_int_equal(symlink("sub/real", scratch_path("m/inside")), 0);
    assert_int_equal(symlink("../real", scratch_path("m/sub/dangling")), 0);
    assert_int_equal(symlink("../secret", scratch_path("m/outside")), 0);
    assert_int_equal(symlink("../m2/x", scratch_path("m/beside")), 0);
    assert_int_equal(symlink("loop", scratch_path("m/loop")), 0);
    assert_int_equal(symlink(".", scratch_path("m/again")), 0);
    expect_files("inside sub/real ");
}

static void test_locked_folder(void **state)
{
    (void)state;
    put_single();
    put_text("m/lost+found/x", "x");
    assert_int_equal(chmod(scratch_path("m/lost+found"), 0), 0);
    if (geteuid() == 0)
        assert_int_equal(seteuid(65534), 0);
    expect_files("");
    if (getuid() == 0)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(scratch_path("m/lost+found"), 0755), 0);
}

static void test_too_many_side_files(void **state)
{
    (void)state;
    put_single();
    for (int i = 0; i <= 4096; i++) {
        char name[32];
        snprintf(name, sizeof(name), "m/%d", i);
        assert_int_equal(mkdir(scratch_path(name), 0755), 0);
    }
    expect_refusal(-EINVAL, "more than 4096 files beside the weights");
    assert_int_equal(rmdir(scratch_path("m/17")), 0);
    expect_files("");
}

static void test_weight_links(void **state)
{
    (void)state;
    put_single();
    put_weights("elsewhere", two, 8);
    assert_int_equal(rename(scratch_path("m/model.safetensors"), scratch_path("m/stored")), 0);
    assert_int_equal(symlink("stored", scratch_path("m/model.safetensors")), 0);
    model_free(open_model());
    assert_int_equal(unlink(scratch_path("m/stored")), 0);
    expect_refusal(-ENOENT, "m/model.safetensors: a link that leads nowhere");
    assert_int_equal(symlink("../elsewhere", scratch_path("m/stored")), 0);
    expect_refusal(-EINVAL, "m/model.safetensors: a link to ");
    expect_refusal(-EINVAL, "which is outside of the model's folder");
    /* but weights may be links to weights */
    assert_int_equal(unlink(scratch_path("m/model.safetensors")), 0);
    put_weights("elsewhere.safetensors", two, 8);
    assert_int_equal(symlink("../elsewhere.safetensors", scratch_path("m/model.safetensors")), 0);
    model_free(open_model());
}

static void test_config_link(void **state)
{
    (void)state;
    put_single();
    put_text("config", "{}");
    assert_int_equal(unlink(scratch_path("m/config.json")), 0);
    assert_int_equal(symlink("../config", scratch_path("m/config.json")), 0);
    expect_refusal(-EINVAL, "m/config.json: a link to ");
}

static void test_snapshot(void **state)
{
    const char *snapshot = "hub/models--o--n/snapshots/abc";
    char path[200];
    struct model *model;
    struct err err = {""};

    (void)state;
    put_text("hub/models--o--n/snapshots/abc/config.json", "{}");
    put_weights("hub/models--o--n/blobs/123", two, 8);
    put_text("hub/models--o--n/refs/main", "x");
    snprintf(path, sizeof(path), "%s/model.safetensors", snapshot);
    assert_int_equal(symlink("../../blobs/123", scratch_path(path)), 0);
    snprintf(path, sizeof(path), "%s/tokenizer.json", snapshot);
    assert_int_equal(symlink("../../blobs/123", scratch_path(path)), 0);
    snprintf(path, sizeof(path), "%s/other.json", snapshot);
    assert_int_equal(symlink("../../refs/main", scratch_path(path)), 0);
    assert_int_equal(open_with_files(scratch_path(snapshot), "o/n", true, &model, &err), 0);
    assert_string_equal(err.text, "");
    assert_true(model->hub);
    assert_string_equal(model->name, "o/n");
    assert_int_equal(model->n_tensors, 2);
    assert_int_equal(model->n_files, 1);
    assert_string_equal(model->files[0].path, "tokenizer.json");
    model_free(model);
}

static void *count_malloc(size_t size)
{
    return __wrap_malloc(size);
}

static int open_and_free(struct err *err)
{
    struct model *model;
    int ret = open_with_files(scratch_path("m"), "m", false, &model, err);

    if (ret)
        assert_null(model);
    model_free(model);
    return ret;
}

static void test_no_memory(void **state)
{
    cJSON_Hooks hooks = {count_malloc, free};
    struct err err = {""};

    (void)state;
    put_sharded(good_map);
    put_text("m/config.json", "{\"a\":[1,\"two\",{\"b\":null}]}");
    put_text("m/tokenizer.json", "{}");
    put_text("m/sub/file", "x");
    cJSON_InitHooks(&hooks);
    assert_in_range(refuse_each_alloc(open_and_free(&err)), 40, 400);
    cJSON_InitHooks(NULL);
    assert_says(err.text, "out of memory");
}

#define in_scratch(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_scratch(test_single),
        in_scratch(test_sharded),
        in_scratch(test_single_wins),
        in_scratch(test_no_tensors),
        in_scratch(test_index_disagrees),
        in_scratch(test_tensor_in_two_shards),
        in_scratch(test_shard_missing),
        in_scratch(test_index_broken),
        in_scratch(test_header_broken),
        in_scratch(test_no_directory),
        in_scratch(test_locked_directory),
        in_scratch(test_no_config),
        in_scratch(test_config_broken),
        in_scratch(test_not_allowed),
        in_scratch(test_no_safetensors),
        in_scratch(test_quantized),
        in_scratch(test_fp8_scales),
        in_scratch(test_side_files),
        in_scratch(test_side_links),
        in_scratch(test_locked_folder),
        in_scratch(test_too_many_side_files),
        in_scratch(test_weight_links),
        in_scratch(test_config_link),
        in_scratch(test_snapshot),
        in_scratch(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
