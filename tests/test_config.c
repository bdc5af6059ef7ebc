#include "config.h"

#include <errno.h>

#include "scratch_dir.h"

#include "fail_alloc.h"

static struct config *parse(const char *yaml)
{
    struct report report = {0};
    struct config *config;
    int ret = config_parse("m.yml", yaml, strlen(yaml), NULL, &config, &report);

    if (report.n)
        assert_string_equal(report.problems[0].text, "");
    assert_int_equal(ret, 0);
    assert_non_null(config);
    report_fini(&report);
    return config;
}

static void check_ref(const struct model_ref *ref, const char *path, const char *revision,
                      const char *adapter, const char *adapter_revision)
{
    const char *const got[] = {ref->path, ref->revision, ref->adapter, ref->adapter_revision};
    const char *const expected[] = {path, revision, adapter, adapter_revision};

    for (size_t i = 0; i < 4; i++)
        assert_string_equal(got[i] ? got[i] : "(none)", expected[i] ? expected[i] : "(none)");
}

static void test_models(void **state)
{
    struct config *config = parse("# a comment\n"
                                  "merge_method: task_arithmetic\n"
                                  "base_model: org/base\n"
                                  "models:\n"
                                  "  - model: org/a\n"
                                  "    parameters:\n"
                                  "      weight: 0.5\n"
                                  "  - model: ./b\n"
                                  "parameters: {normalize: no}\n"
                                  "dtype: float32\n"
                                  "out_dtype: torch.bfloat16\n"
                                  "chat_template: chatml\n");
    const struct document *doc = &config->docs[0];
    const struct slice *slice = &doc->modules[0].slices[0];

    (void)state;
    assert_int_equal(config->n_docs, 1);
    assert_string_equal(config->path, "m.yml");
    assert_int_equal(strncmp(config->text, "# a comment\n", 12), 0);
    assert_null(doc->name);
    assert_int_equal(doc->at.line, 2);
    assert_string_equal(doc->method, "task_arithmetic");
    assert_int_equal(doc->method_at.line, 2);
    assert_int_equal(doc->method_at.col, 15);
    check_ref(doc->base_model, "org/base", NULL, NULL, NULL);
    assert_int_equal(doc->base_model->at.col, 13);
    assert_int_equal(doc->n_modules, 1);
    assert_null(doc->modules[0].name);
    assert_int_equal(doc->modules[0].n_slices, 1);
    assert_int_equal(slice->n_sources, 2);
    assert_true(slice->sources[0].whole && slice->sources[1].whole);
    assert_null(slice->base_model);
    check_ref(&slice->sources[1].model, "./b", NULL, NULL, NULL);
    assert_string_equal(slice->sources[1].model.written, "./b");
    assert_int_equal(slice->sources[0].params.n, 1);
    assert_string_equal(slice->sources[0].params.list[0].name, "weight");
    assert_int_equal(slice->sources[0].params.list[0].at.line, 7);
    assert_int_equal(slice->sources[1].params.n, 0);
    assert_string_equal(doc->params.list[0].name, "normalize");
    assert_int_equal(doc->dtype, DTYPE_F32);
    assert_int_equal(doc->out_dtype, DTYPE_BF16);
    assert_int_equal(doc->out_dtype_at.line, 11);
    assert_string_equal(doc->chat_template, "chatml");
    assert_int_equal(doc->chat_template_at.line, 12);
    assert_false(doc->tokenizer.given);
    assert_int_equal(doc->mismatch, MISMATCH_ERROR);
    config_free(config);
}

static void test_what_is_not_given(void **state)
{
    struct config *config = parse("merge_method: linear\nmodels: [{model: a}]\n");
    const struct document *doc = &config->docs[0];

    (void)state;
    assert_null(doc->base_model);
    assert_null(doc->chat_template);
    assert_int_equal(doc->dtype, DTYPE_NONE);
    assert_int_equal(doc->out_dtype, DTYPE_NONE);
    assert_int_equal(doc->params.n, 0);
    config_free(config);
    config_free(NULL);
}

static void test_slices(void **state)
{
    struct config *config = parse("merge_method: passthrough\n"
                                  "slices:\n"
                                  "  - sources:\n"
                                  "      - model: a\n"
                                  "        layer_range: [0, 8]\n"
                                  "      - {model: b, layer_range: [\"2\", 10.0], parameters: {scale: 2}}\n"
                                  "    base_model: a@main\n"
                                  "    parameters: {t: 1}\n"
                                  "  - sources: [{model: a, layer_range: [8, 8]}]\n");
    const struct module *module = &config->docs[0].modules[0];
    const struct slice_source *source = module->slices[0].sources;

    (void)state;
    assert_int_equal(module->n_slices, 2);
    assert_int_equal(module->slices[0].n_sources, 2);
    assert_false(source[0].whole);
    assert_int_equal(source[0].begin, 0);
    assert_int_equal(source[0].end, 8);
    assert_int_equal(source[0].range_at.line, 5);
    assert_int_equal(source[0].range_at.col, 22);
    assert_int_equal(source[1].begin, 2);
    assert_int_equal(source[1].end, 10);
    assert_string_equal(source[1].params.list[0].name, "scale");
    check_ref(module->slices[0].base_model, "a", "main", NULL, NULL);
    assert_string_equal(module->slices[0].params.list[0].name, "t");
    assert_int_equal(module->slices[1].sources[0].begin, 8);
    assert_int_equal(module->slices[1].sources[0].end, 8);
    config_free(config);
}

static void test_modules(void **state)
{
    struct config *config = parse("merge_method: linear\n"
                                  "modules:\n"
                                  "  text: {models: [{model: a}, {model: b}], parameters: {weight: 1}}\n"
                                  "  vision: {slices: [{sources: [{model: a, layer_range: [0, 1]}]}]}\n");
    const struct document *doc = &config->docs[0];

    (void)state;
    assert_int_equal(doc->n_modules, 2);
    assert_string_equal(doc->modules[0].name, "text");
    assert_int_equal(doc->modules[0].at.line, 3);
    assert_int_equal(doc->modules[0].slices[0].n_sources, 2);
    assert_string_equal(doc->modules[0].params.list[0].name, "weight");
    assert_string_equal(doc->modules[1].name, "vision");
    assert_int_equal(doc->modules[1].slices[0].sources[0].end, 1);
    config_free(config);
}

static void check_scalar(const struct scalar *scalar, enum scalar_kind kind, double number, const char *text)
{
    assert_int_equal(scalar->kind, kind);
    assert_true(scalar->number == number);
    assert_string_equal(scalar->text, text);
}

static const char values_yaml[] = "merge_method: x\n"
                                  "models: [{model: a}]\n"
                                  "parameters:\n"
                                  "  number: 1_0\n"
                                  "  exponent: 1e-3\n"
                                  "  quoted: \"010\"\n"
                                  "  octal: 010\n"
                                  "  bool: on\n"
                                  "  text: y\n";

static void test_scalars(void **state)
{
    struct config *config = parse(values_yaml);
    const struct param *list = config->docs[0].params.list;

    (void)state;
    assert_int_equal(config->docs[0].params.n, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(list[i].n, 1);
        assert_int_equal(list[i].at.line, 4 + i);
        assert_int_equal(list[i].at.col, 3);
        assert_int_equal(list[i].settings->at.line, 4 + i);
        assert_int_equal(list[i].settings->n, 1);
        assert_false(list[i].settings->gradient);
        assert_null(list[i].settings->filter);
    }
    check_scalar(list[0].settings->values, SCALAR_NUMBER, 10, "1_0");
    check_scalar(list[1].settings->values, SCALAR_NUMBER, 1e-3, "1e-3");
    check_scalar(list[2].settings->values, SCALAR_NUMBER, 10, "010");
    check_scalar(list[3].settings->values, SCALAR_NUMBER, 8, "010");
    check_scalar(list[4].settings->values, SCALAR_BOOL, 1, "on");
    check_scalar(list[5].settings->values, SCALAR_TEXT, 0, "y");
    config_free(config);
}

static void check_setting(const struct setting *setting, const char *filter, bool gradient, size_t n,
                          double last)
{
    assert_string_equal(setting->filter ? setting->filter : "(none)", filter ? filter : "(none)");
    assert_int_equal(setting->gradient, gradient);
    assert_int_equal(setting->n, n);
    if (n)
        assert_true(setting->values[n - 1].number == last);
}

static void test_gradients_and_filters(void **state)
{
    struct config *config = parse("merge_method: x\n"
                                  "models: [{model: a}]\n"
                                  "parameters:\n"
                                  "  gradient: [0, 0.5, 1e-1]\n"
                                  "  empty: []\n"
                                  "  filtered: {filter: mlp, value: [1, 2]}\n"
                                  "  several:\n"
                                  "    - {filter: self_attn, value: 3}\n"
                                  "    - {filter: \"*\", value: []}\n"
                                  "    - filter: ''\n"
                                  "      value: 4\n"
                                  "    - value: 5\n");
    const struct param *list = config->docs[0].params.list;

    (void)state;
    check_setting(list[0].settings, NULL, true, 3, 0.1);
    check_setting(list[1].settings, NULL, true, 0, 0);
    check_setting(list[2].settings, "mlp", true, 2, 2);
    assert_int_equal(list[3].n, 4);
    check_setting(&list[3].settings[0], "self_attn", false, 1, 3);
    check_setting(&list[3].settings[1], NULL, true, 0, 0);
    check_setting(&list[3].settings[2], NULL, false, 1, 4);
    check_setting(&list[3].settings[3], NULL, false, 1, 5);
    assert_int_equal(list[3].settings[2].at.line, 11);
    assert_int_equal(list[3].settings[2].at.col, 14);
    config_free(config);
}

static void test_refs(void **state)
{
    static const struct {
        const char *yaml, *written, *path, *revision, *adapter, *adapter_revision;
    } cases[] = {
        {"a", "a", "a"},
        {"org/a@v1", "org/a@v1", "org/a", "v1"},
        {"a+b", "a+b", "a", NULL, "b"},
        {"a@r+b@s", "a@r+b@s", "a", "r", "b", "s"},
        {"a+b+c", "a+b+c", "a+b+c"},
        {"a@b@c", "a@b@c", "a@b@c"},
        {"a+b@c@d", "a+b@c@d", "a+b@c@d"},
        {"a+", "a+", "a+"},
        {"+a", "+a", "+a"},
        {"a@", "a@", "a@"},
        {"'@a'", "@a", "@a"},
        {"a+b@", "a+b@", "a+b@"},
        {"1e-3", "1e-3", "1e-3"},
        {"{model: a}", "a", "a"},
        {"{model: a@r}", "a@r", "a", "r"},
        {"{model: a+b}", "a+b", "a+b"},
        {"{model: {path: a@b}}", "a@b", "a@b"},
        {"{model: {path: a, revision: r}, lora: b@s}", "a@r+b@s", "a", "r", "b", "s"},
        {"{model: a, lora: {path: b, revision: s}}", "a+b@s", "a", NULL, "b", "s"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char yaml[256];
        struct config *config;
        const struct model_ref *ref;

        snprintf(yaml, sizeof(yaml), "merge_method: x\nmodels:\n- model: %s\n", cases[i].yaml);
        config = parse(yaml);
        ref = &config->docs[0].modules[0].slices[0].sources[0].model;
        assert_string_equal(ref->written, cases[i].written);
        check_ref(ref, cases[i].path, cases[i].revision, cases[i].adapter, cases[i].adapter_revision);
        assert_int_equal(ref->at.line, 3);
        assert_int_equal(ref->at.col, 10);
        config_free(config);
    }
}

static void test_refs_equal(void **state)
{
    struct model_ref a = {.path = "p", .revision = "r"}, b = a;

    (void)state;
    b.written = "other words";
    assert_true(model_ref_equal(&a, &b));
    b.revision = NULL;
    assert_false(model_ref_equal(&a, &b));
    assert_false(model_ref_equal(&b, &a));
    b = a;
    b.adapter = "x";
    assert_false(model_ref_equal(&a, &b));
    a.adapter = "x";
    a.adapter_revision = "1";
    assert_false(model_ref_equal(&a, &b));
}

static void test_tokenizer(void **state)
{
    struct config *config = parse("merge_method: x\nmodels: [{model: a}]\n"
                                  "tokenizer: {tokens: {\"<x>\": {source: a}}, pad_to_multiple_of: \"8\"}\n");
    const struct tokenizer_config *tokenizer = &config->docs[0].tokenizer;

    (void)state;
    assert_true(tokenizer->given && tokenizer->has_tokens);
    assert_string_equal(tokenizer->source, "union");
    assert_null(tokenizer->model);
    assert_int_equal(tokenizer->pad_to_multiple_of, 8);
    assert_int_equal(tokenizer->at.line, 3);
    assert_int_equal(tokenizer->at.col, 12);
    config_free(config);

    config = parse("merge_method: x\nmodels: [{model: a}]\ntokenizer: {source: b}\n");
    assert_null(config->docs[0].tokenizer.source);
    check_ref(config->docs[0].tokenizer.model, "b", NULL, NULL, NULL);
    config_free(config);

    config = parse("merge_method: x\nmodels: [{model: a}]\ntokenizer_source: base\n");
    assert_true(config->docs[0].tokenizer.given);
    assert_string_equal(config->docs[0].tokenizer.source, "base");
    config_free(config);

    config = parse("merge_method: x\nmodels: [{model: a}]\ntokenizer_source: {model: b, lora: c}\n");
    check_ref(config->docs[0].tokenizer.model, "b", NULL, "c", NULL);
    config_free(config);
}

static void test_extensions(void **state)
{
    static const struct {
        const char *word;
        enum mismatch mismatch;
    } cases[] = {{"error", MISMATCH_ERROR}, {"base", MISMATCH_BASE}, {"truncate", MISMATCH_TRUNCATE}};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        char yaml[256];
        struct config *config;

        snprintf(yaml, sizeof(yaml),
                 "merge_method: x\nmodels: [{model: a}]\nmeldfs: {mismatch: %s, names: {b: a}}\n",
                 cases[i].word);
        config = parse(yaml);
        assert_int_equal(config->docs[0].mismatch, cases[i].mismatch);
        assert_int_equal(config->docs[0].mismatch_at.line, 3);
        config_free(config);
    }
}

static void check_model(const struct document *document, int number, const char *written, const char *name,
                        bool is_donor)
{
    assert_string_equal(document->models[number]->written, written);
    assert_string_equal(document->model_names[number] ? document->model_names[number] : "(none)", name);
    assert_int_equal(document->is_donor[number], is_donor);
    assert_int_equal(document_model(document, document->models[number]), number);
}

static void test_numbers(void **state)
{
    struct config *config =
        parse("merge_method: x\n"
              "base_model: org/base\n"
              "slices:\n"
              "- base_model: other\n"
              "  sources: [{model: m/b/, layer_range: [0, 1]}, {model: m/a@v, layer_range: [0, 1]}]\n"
              "- sources: [{model: .., layer_range: [0, 1]}, {model: m/b/, layer_range: [0, 1]},\n"
              "            {model: org/base, layer_range: [0, 1]}]\n"
              "- sources: [{model: {model: {path: m/a, revision: v}}, layer_range: [0, 1]}]\n"
              "meldfs: {names: {z: .., second: m/a@v}}\n");
    const struct document *doc = &config->docs[0];
    const struct model_name *first;

    (void)state;
    assert_int_equal(doc->n_models, 5);
    check_model(doc, 0, "m/b/", "b", true);
    check_model(doc, 1, "m/a@v", "a", true);
    check_model(doc, 2, "..", "(none)", true);
    check_model(doc, 3, "org/base", "base", false);
    check_model(doc, 4, "other", "other", false);
    assert_int_equal(document_model(doc, &(struct model_ref){.path = "m/a"}), -1);
    assert_int_equal(doc->n_aliases, 2);
    assert_int_equal(doc->n_names, 6);
    assert_int_equal(document_named(doc, "z.weight", 1, &first), 1);
    assert_int_equal(first->model, 2);
    assert_true(first->alias);
    assert_int_equal(document_named(doc, "basement", 4, &first), 1);
    assert_int_equal(document_named(doc, "basement", 5, &first), 0);
    config_free(config);
}

static void test_shared_entries(void **state)
{
    struct config *config = parse("x-weights: &w {weight: 0.5, density: 0.4}\n"
                                  "merge_method: ties\n"
                                  "base_model: &b org/base\n"
                                  "models:\n"
                                  "- {model: a, parameters: *w}\n"
                                  "- {model: *b, parameters: {<<: *w, weight: 1}}\n");
    const struct slice *slice = &config->docs[0].modules[0].slices[0];

    (void)state;
    check_scalar(slice->sources[0].params.list[0].settings[0].values, SCALAR_NUMBER, 0.5, "0.5");
    check_ref(&slice->sources[1].model, "org/base", NULL, NULL, NULL);
    assert_int_equal(slice->sources[1].params.n, 2);
    check_scalar(slice->sources[1].params.list[0].settings[0].values, SCALAR_NUMBER, 1, "1");
    assert_string_equal(slice->sources[1].params.list[1].name, "density");
    config_free(config);
}

static void test_stages(void **state)
{
    struct config *config = parse("merge_method: x\nmodels: [{model: c}, {model: d+lora}]\n"
                                  "---\nname: c\nmerge_method: x\nbase_model: b\nmodels: [{model: m}]\n"
                                  "---\nname: b\nmerge_method: x\nmodules: {t: {models: [{model: a}]}}\n"
                                  "---\nname: a\nmerge_method: x\nmodels: [{model: m}]\n"
                                  "---\nname: d\nmerge_method: x\n"
                                  "slices: [{sources: [{model: m, layer_range: [0, 1]}], base_model: c}]\n");
    static const char *const order[] = {"a", "b", "c", "d", "(result)"};

    (void)state;
    assert_int_equal(config->n_docs, 5);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(config->docs[i].name ? config->docs[i].name : "(result)", order[i]);
    config_free(config);
}

/* Thousands of stages, each made from the next: no recursion, no square of time. */
static void test_many_stages(void **state)
{
    enum { N = 10000 };
    char *yaml = malloc(N * 64);
    size_t len = 0;
    struct config *config;

    (void)state;
    assert_non_null(yaml);
    for (int i = 0; i < N; i++)
        len += (size_t)snprintf(yaml + len, N * 64 - len,
                                "name: n%d\nmerge_method: x\nmodels: [{model: n%d}]\n---\n", i, i + 1);
    snprintf(yaml + len, N * 64 - len, "merge_method: x\nmodels: [{model: n0}]\n");
    config = parse(yaml);
    assert_int_equal(config->n_docs, N + 1);
    assert_string_equal(config->docs[0].name, "n9999");
    assert_string_equal(config->docs[N - 1].name, "n0");
    assert_null(config->docs[N].name);
    config_free(config);
    free(yaml);
}

static void test_many_models(void **state)
{
    enum { N = 20000 };
    char *yaml = malloc(N * 32);
    size_t len = (size_t)snprintf(yaml, 64, "merge_method: x\nmodels:\n");
    struct config *config;

    (void)state;
    for (int i = 0; i < N; i++)
        len += (size_t)snprintf(yaml + len, N * 32 - len, "- model: m%d\n", i);
    config = parse(yaml);
    assert_int_equal(config->docs[0].modules[0].slices[0].n_sources, N);
    config_free(config);
    free(yaml);
}

static void check_read(const char *path, int expected, const char *says)
{
    struct report report = {0};
    struct config *config;

    assert_int_equal(config_read(path, NULL, &config, &report), expected);
    assert_null(config);
    assert_int_equal(report.n, 1);
    assert_int_equal(report.n_errors, 1);
    assert_int_equal(strncmp(report.problems[0].text, path, strlen(path)), 0);
    assert_string_equal(report.problems[0].text + strlen(path), says);
    report_fini(&report);
}

static void test_read(void **state)
{
    struct report report = {0};
    struct config *config;

    (void)state;
    put_text("m.yml", "merge_method: linear\nmodels: [{model: a}]\n");
    assert_int_equal(config_read(scratch_path("m.yml"), NULL, &config, &report), 0);
    assert_string_equal(config->path, scratch_path("m.yml"));
    assert_string_equal(config->docs[0].method_at.file, scratch_path("m.yml"));
    assert_int_equal(config->text_len, 42);
    config_free(config);
    assert_int_equal(report.n, 0);
}

static void test_unreadable(void **state)
{
    char *large = calloc(1, (16 << 20) + 1);

    (void)state;
    check_read(scratch_path("none.yml"), -ENOENT, ": there is no such file");
    check_read(scratch_dir, -EISDIR, ": this is a directory: name a merge file in it");
    assert_int_equal(symlink("loop.yml", scratch_path("loop.yml")), 0);
    check_read(scratch_path("loop.yml"), -ELOOP, ": cannot read the file: Too many levels of symbolic links");
    assert_non_null(large);
    memset(large, '#', (16 << 20) + 1);
    put_bytes("large.yml", large, (16 << 20) + 1);
    check_read(scratch_path("large.yml"), -EFBIG, ": the file is larger than 16 MiB: this is no merge file");
    put_bytes("most.yml", large, 16 << 20);
    check_read(scratch_path("most.yml"), -EINVAL, ": the file is empty: it needs at least `merge_method:`");
    free(large);
}

static const char rich[] =
    "x-a: &a {weight: [0, 1], t: {filter: x, value: 1}, u: [{value: 1}]}\n"
    "name: s\nmerge_method: x\nbase_model: a@r+b@s\n"
    "slices: [{sources: [{model: {model: m, lora: l}, layer_range: [0, 1], parameters: *a}]}]\n"
    "tokenizer: {source: q}\nchat_template: c\nfoo: 1\n"
    "---\nmerge_method: x\nmodels: [{model: s}, {model: b}]\n";

static int parse_and_free(const char *yaml)
{
    struct report report = {0};
    struct config *config;
    int ret = config_parse("m.yml", yaml, strlen(yaml), NULL, &config, &report);

    assert_int_equal(config != NULL, ret == 0);
    assert_int_equal(report.n_errors > 0, ret != 0);
    config_free(config);
    report_fini(&report);
    return ret;
}

static int read_and_free(const char *path)
{
    struct report report = {0};
    struct config *config;
    int ret = config_read(path, NULL, &config, &report);

    assert_int_equal(report.n_errors > 0, ret != 0);
    config_free(config);
    report_fini(&report);
    return ret;
}

static void test_memory_runs_out(void **state)
{
    enum { N = 500 };
    char *large = malloc(N * 64);
    size_t len = (size_t)snprintf(large, 64, "merge_method: x\nmodels:\n");

    (void)state;
    for (int i = 0; i < N; i++)
        len +=
            (size_t)snprintf(large + len, N * 64 - len, "- {model: a%d@r+b@s, parameters: {w: [1, 2]}}\n", i);
    put_text("large.yml", large);
    assert_in_range(refuse_each_alloc(parse_and_free(rich)), 5, 1000);
    assert_in_range(refuse_each_alloc(parse_and_free(large)), 10, 2000);
    assert_in_range(refuse_each_alloc(read_and_free(scratch_path("large.yml"))), 11, 2000);
    free(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_what_is_not_given),
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_modules),
        cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_gradients_and_filters),
        cmocka_unit_test(test_refs),
        cmocka_unit_test(test_refs_equal),
        cmocka_unit_test(test_tokenizer),
        cmocka_unit_test(test_extensions),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_shared_entries),
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_many_stages),
        cmocka_unit_test(test_many_models),
        cmocka_unit_test_setup_teardown(test_read, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_unreadable, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(test_memory_runs_out, scratch_setup, scratch_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
