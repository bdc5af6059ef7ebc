#include "recipe_edit.h"

#include "scratch_dir.h"

#include <errno.h>
#include <math.h>

#include "resolve.h"
#include "yaml_tree.h"
#include "yaml_write.h"

#include "fail_alloc.h"

static struct config *parse(const char *yaml)
{
    struct report report = {0};
    struct config *config;

    config_parse("m.yml", yaml, strlen(yaml), NULL, &config, &report);
    assert_string_equal(report.n_errors ? report.problems[0].text : "", "");
    assert_non_null(config);
    report_fini(&report);
    return config;
}

static bool any_filter(void *arg, const char *filter)
{
    (void)arg;
    return *filter;
}

/* The text of `yaml` with the variant's values; to be freed. */
static char *edit(const char *yaml, size_t doc, const char *path)
{
    struct config *config = parse(yaml);
    struct variant *variant;
    struct err err = {""};
    char *text;

    if (variant_parse(&config->docs[doc], any_filter, NULL, path, &variant, &err))
        print_error("%s\n", err.text);
    assert_non_null(variant);
    text = recipe_edit(config, &config->docs[doc], variant, &err);
    assert_non_null(text);
    variant_free(variant);
    config_free(config);
    return text;
}

static void check_text(const char *yaml, size_t doc, const char *path, const char *want)
{
    char *text = edit(yaml, doc, path);

    assert_string_equal(text, want);
    free(text);
}

static void test_texts(void **state)
{
    static const char ties[] = "# two donors\n"
                               "merge_method: ties\n"
                               "base_model: org/base\n"
                               "models:\n"
                               "  - model: org/a\n"
                               "    parameters: {weight: 0.5, density: 0.5}\n"
                               "  - model: org/b\n"
                               "    parameters: {weight: 0.5}\n"
                               "parameters: {normalize: no}\n";

    (void)state;
    check_text(ties, 0, "weight=0.3",
               "merge_method: ties\n"
               "base_model: org/base\n"
               "models:\n"
               "- model: org/a\n"
               "  parameters:\n"
               "    density: 0.5\n"
               "- model: org/b\n"
               "parameters:\n"
               "  normalize: no\n"
               "  weight: 0.3\n");
    check_text(ties, 0, "a.weight.mlp=1e-5/b.density=1~0/weight.attn=-0/normalize=on",
               "merge_method: ties\n"
               "base_model: org/base\n"
               "models:\n"
               "- model: org/a\n"
               "  parameters:\n"
               "    weight:\n"
               "    - filter: mlp\n"
               "      value: 1.0e-5\n"
               "    - filter: attn\n"
               "      value: -0.0\n"
               "    - value: 0.5\n"
               "    density: 0.5\n"
               "- model: org/b\n"
               "  parameters:\n"
               "    weight:\n"
               "    - filter: attn\n"
               "      value: -0.0\n"
               "    - value: 0.5\n"
               "    density: [1, 0]\n"
               "parameters:\n"
               "  normalize: true\n"
               "  weight:\n"
               "  - filter: attn\n"
               "    value: -0.0\n");
    /* A base that is merged without being listed. */
    check_text("merge_method: linear\nbase_model: {model: {path: x}}\nmodels: [{model: a}]\n"
               "parameters: {weight: 1}\n",
               0, "x.weight=2",
               "merge_method: linear\n"
               "base_model:\n"
               "  model:\n"
               "    path: x\n"
               "models:\n"
               "- model: a\n"
               "- model:\n"
               "    model:\n"
               "      path: x\n"
               "  parameters:\n"
               "    weight: 2\n"
               "parameters:\n"
               "  weight: 1\n");
}

static void test_documents(void **state)
{
    static const char stages[] = "merge_method: linear\n"
                                 "models: [{model: first, parameters: {weight: 1}}]\n"
                                 "---\n"
                                 "name: first\n"
                                 "merge_method: linear\n"
                                 "models: [{model: a, parameters: {weight: 0x10}}]\n";

    (void)state;
    check_text(stages, 1, "weight=2",
               "merge_method: linear\n"
               "models:\n"
               "- model: first\n"
               "parameters:\n"
               "  weight: 2\n"
               "---\n"
               "name: first\n"
               "merge_method: linear\n"
               "models:\n"
               "- model: a\n"
               "  parameters:\n"
               "    weight: 0x10\n");
    check_text(stages, 0, "a.weight=2",
               "merge_method: linear\n"
               "models:\n"
               "- model: first\n"
               "  parameters:\n"
               "    weight: 1\n"
               "---\n"
               "name: first\n"
               "merge_method: linear\n"
               "models:\n"
               "- model: a\n"
               "  parameters:\n"
               "    weight: 2\n");
}

/* Values, by the rule of variant.h and by the edited text. */

static const struct override *deciding(const struct variant *variant, unsigned param, int model,
                                       const char *tensor)
{
    const struct override *best = NULL;
    int best_rank = 0;

    for (size_t i = 0; i < variant->n; i++) {
        const struct override *o = &variant->list[i];
        int rank = (o->model >= 0 ? 3 : 1) + (o->filter != NULL);
        if (o->param == param && (o->model < 0 || o->model == model) && rank > best_rank &&
            (!o->filter || strstr(tensor, o->filter))) {
            best = o;
            best_rank = rank;
        }
    }
    return best;
}

/* Where a value is looked for: a source (NULL: an input without one, or a shared parameter) of a slice. */
struct spot {
    const struct document *document;
    const struct module *module;
    const struct slice *slice;
    const struct slice_source *source;
};

/* The value that the file gives, or -1000. */
static double filed(const struct spot *spot, const struct method_param *param, const char *tensor, double t)
{
    struct scopes scopes = {0};
    struct place at;
    double value = -1000;

    if (spot->source && param->scope != PARAM_SHARED)
        scopes_add(&scopes, &spot->source->params);
    scopes_add(&scopes, &spot->slice->params);
    scopes_add(&scopes, &spot->module->params);
    scopes_add(&scopes, &spot->document->params);
    assert_true(resolve(&scopes, param, tensor, t, &value, &at, NULL) >= 0);
    return value;
}

static double expected(const struct spot *spot, const struct variant *variant, unsigned param, int model,
                       const char *tensor, double t)
{
    const struct method_param *known = &method_find(spot->document->method)->params[param];
    const struct override *override = deciding(variant, param, model, tensor);
    struct setting setting;
    struct param as_param;
    struct params params = {1, &as_param};
    struct scopes scopes = {0};
    struct place at;
    double value;

    if (!override)
        return filed(spot, known, tensor, t);
    setting = override->setting;
    setting.filter = NULL;
    as_param = (struct param){.name = known->name, .n = 1, .settings = &setting};
    scopes_add(&scopes, &params);
    assert_int_equal(resolve(&scopes, known, tensor, t, &value, &at, NULL), 1);
    return value;
}

static const char *const tensors[] = {"model.layers.0.self_attn.q_proj.weight",
                                      "model.layers.1.mlp.up.weight", "lm_head.weight", "model.norm.weight"};

static void compare_spot(const struct spot *before, const struct spot *after, const struct variant *variant,
                         int model)
{
    const struct method *method = method_find(before->document->method);

    for (unsigned p = 0; p < method->n_params; p++) {
        if ((model < 0) != (method->params[p].scope == PARAM_SHARED))
            continue;
        for (size_t n = 0; n < 4; n++)
            for (double t = 0; t <= 1; t += 0.25) {
                double want = expected(before, variant, p, model, tensors[n], t);
                double got = filed(after, &method->params[p], tensors[n], t);
                if (memcmp(&want, &got, sizeof(want)) == 0)
                    continue;
                print_error("%s: `%s` of model %d for %s at %g is %.17g, not %.17g\n", variant->path,
                            method->params[p].name, model, tensors[n], t, got, want);
                fail();
            }
    }
}

static void compare_slices(const struct spot *before, const struct spot *after, const struct variant *variant)
{
    const struct method *method = method_find(before->document->method);
    const struct model_ref *base =
        before->slice->base_model ? before->slice->base_model : before->document->base_model;
    struct spot a = *before, b = *after;

    compare_spot(&a, &b, variant, -1);
    for (size_t i = 0; i < a.slice->n_sources; i++) {
        a.source = &a.slice->sources[i];
        b.source = &b.slice->sources[i];
        if (method->base == BASE_IGNORED || !base || !model_ref_equal(base, &a.source->model))
            compare_spot(&a, &b, variant, document_model(a.document, &a.source->model));
    }
    a.source = NULL;
    b.source = b.slice->n_sources > a.slice->n_sources ? &b.slice->sources[a.slice->n_sources] : NULL;
    if (method->base == BASE_IGNORED && base && a.slice->sources[0].whole)
        compare_spot(&a, &b, variant, document_model(a.document, base));
}

static void check_values(const char *yaml, const char *path)
{
    char *text = edit(yaml, 0, path);
    struct config *before = parse(yaml), *after = parse(text);
    const struct document *doc = &before->docs[0], *edited = &after->docs[0];
    struct variant *variant;

    assert_int_equal(variant_parse(doc, any_filter, NULL, path, &variant, NULL), 0);
    assert_int_equal(doc->n_modules, edited->n_modules);
    for (size_t m = 0; m < doc->n_modules; m++) {
        assert_int_equal(doc->modules[m].n_slices, edited->modules[m].n_slices);
        for (size_t s = 0; s < doc->modules[m].n_slices; s++)
            compare_slices(&(struct spot){doc, &doc->modules[m], &doc->modules[m].slices[s]},
                           &(struct spot){edited, &edited->modules[m], &edited->modules[m].slices[s]},
                           variant);
    }
    variant_free(variant);
    config_free(before);
    config_free(after);
    free(text);
}

static const char *const recipes[] = {
    "merge_method: della\n"
    "base_model: base\n"
    "modules:\n"
    "  text:\n"
    "    parameters: {density: [{filter: mlp, value: 0.1}, {filter: attn, value: [0, 1]}], lambda: 3}\n"
    "    slices:\n"
    "    - parameters: {weight: [{filter: head, value: 7}], lambda: [{filter: mlp, value: 2}]}\n"
    "      sources:\n"
    "      - {model: a, layer_range: [0, 2], parameters: {weight: 0.5, lambda: 9}}\n"
    "      - {model: b, layer_range: [0, 2], parameters: {weight: [0, 1, 0.5], density: {value: 0.3}}}\n"
    "      - {model: base, layer_range: [0, 2], parameters: {weight: 1}}\n"
    "    - base_model: b\n"
    "      sources:\n"
    "      - {model: a, layer_range: [2, 4], parameters: {weight: []}}\n"
    "      - {model: b, layer_range: [2, 4]}\n"
    "  vision:\n"
    "    models:\n"
    "    - {model: a, parameters: {weight: [{filter: '*', value: 0.9}]}}\n"
    "    - {model: b, parameters: {density: [{filter: mlp, value: 0.2}, {value: 0.4}]}}\n"
    "parameters: {weight: 0.25, density: 0.75, epsilon: 0.1, rescale: [true, false]}\n",
    "merge_method: linear\n"
    "base_model: base\n"
    "x-w: &w {weight: [{filter: attn, value: 0.5}, {filter: mlp, value: []}]}\n"
    "models:\n"
    "- {model: a, parameters: *w}\n"
    "- {model: b, parameters: {<<: *w}}\n"
    "- {model: c}\n"
    "parameters: {weight: 0.25}\n",
};

static void test_values(void **state)
{
    static const char *const paths[][12] = {
        {"weight=0.3", "weight.mlp=0.3", "a.weight=0.3", "a.weight.mlp=0.3~0.5",
         "a.weight.mlp=1/a.weight=2/weight.mlp=3/weight=4", "a.weight.weight=1/a.weight.mlp=2/b.weight.mlp=3",
         "weight.mlp=1/weight.attn=2/b.weight=3", "lambda=0.5", "lambda.mlp=5/lambda.attn=6",
         "density.attn=0.1/lambda=2/rescale=false/normalize=true~false", "epsilon=1e-05/b.epsilon=2e-300",
         "b.density.mlp=-0/density=1e22/a.weight=0.1~0.2~0.30000000000000004"},
        {"weight=0.3", "weight.mlp=0.3", "a.weight=2", "base.weight=3", "base.weight.mlp=3",
         "base.weight.mlp=3/weight.attn=4", "base.weight.mlp=3/weight.attn=4/weight=5/c.weight.attn=6",
         "b.weight.norm=1/c.weight=7", "normalize=false", "a.weight.attn=1/a.weight.mlp=2/weight=-0",
         "base.weight=3/weight=4", "normalize.mlp=off/weight.mlp=1"},
    };

    (void)state;
    for (size_t r = 0; r < 2; r++)
        for (size_t i = 0; i < 12; i++)
            check_values(recipes[r], paths[r][i]);
}

/* Odd YAML comes back with the same values. */

static void compare_nodes(const struct ynode *a, const struct ynode *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->n, b->n);
    if (a->kind < YNODE_LIST && (a->kind != YNODE_NULL || a->text[0]))
        assert_string_equal(a->text, b->text);
    if (a->kind > YNODE_NULL && a->kind < YNODE_TEXT)
        assert_memory_equal(&a->number, &b->number, sizeof(a->number));
    for (size_t i = 0; i < a->n; i++) {
        if (a->kind == YNODE_LIST) {
            compare_nodes(a->items[i], b->items[i]);
            continue;
        }
        compare_nodes(a->pairs[i].key, b->pairs[i].key);
        compare_nodes(a->pairs[i].value, b->pairs[i].value);
    }
}

static const char odd[] =
    "%YAML 1.1\n"
    "---\n"
    "plain: [a, 1e-3, 1.0e-3, .5, 1:30, 0x1F, 017, 1_000, yes, ~, null, -1.5e+3, .inf, -.INF, .nan, "
    "2001-01-01]\n"
    "colons: [1:30, 190:20:30.15]\n"
    "quoted: ['1e-3', \"0.5\", 'yes', '', ' a ', '# no', 'a: b', \"\\t\", '- x', '[', '*a', '&a', '!x', '%', "
    "'@']\n"
    "tagged: [!!float 1, !!str 1, !!str yes, !!int 017, !!bool on, !!null '', ! 5]\n"
    "unicode: [\"caf\\u00e9 \\u2028 \\x85 \\U0001F600 \\uFEFF\", \"\\e\\a\\x01\", caf\xc3\xa9, \"\\xa0\"]\n"
    "lines: |\n"
    "   indented\n"
    "     more\n"
    "\n"
    "   end\n"
    "kept: |+\n"
    "  x\n"
    "\n"
    "folded: >-\n"
    "  a\n"
    "  b\n"
    "\n"
    "  c\n"
    "wrapped: a b\n"
    "  c\n"
    "\n"
    "  d\n"
    "'<<': {a: 1}\n"
    "anchor: &x {p: 1, q: [1, 2]}\n"
    "again: *x\n"
    "merged: {<<: *x, p: 2}\n"
    "empty: {a: {}, b: [], c: , ? d, '': 1}\n"
    "deep: [[[[1], {a: [b, [c]]}]]]\n"
    "1: number\n"
    "yes: bool\n"
    "? 'a key with \"quotes\": and more'\n"
    ": {'#': x, '- ': y, \"multi\\nline\": z}\n"
    "--- {second: document}\n"
    "...\n"
    "--- [third]\n";

static void test_round_trip(void **state)
{
    struct arena arena = {0};
    struct findings findings = {0};
    const struct ynode **docs, **again;
    size_t n, n_again;
    char *text, *second;

    (void)state;
    assert_int_equal(yaml_tree_read(&arena, &findings, "a", odd, strlen(odd), &docs, &n), 0);
    assert_int_equal(n, 3);
    text = yaml_write(docs, n);
    assert_int_equal(yaml_tree_read(&arena, &findings, "b", text, strlen(text), &again, &n_again), 0);
    for (size_t i = 0; i < findings.n; i++)
        assert_string_equal(findings.list[i].text, "");
    assert_int_equal(n_again, n);
    for (size_t i = 0; i < n; i++)
        compare_nodes(docs[i], again[i]);
    second = yaml_write(again, n);
    assert_string_equal(text, second);
    free(text);
    free(second);
    arena_fini(&arena);
}

static int edit_again(const struct config *config, const struct variant *variant)
{
    struct err err = {""};
    char *text = recipe_edit(config, &config->docs[0], variant, &err);

    if (!text)
        assert_string_equal(err.text, "out of memory");
    free(text);
    return text ? 0 : -ENOMEM;
}

static void test_memory(void **state)
{
    struct config *config = parse(recipes[0]);
    struct variant *variant;

    (void)state;
    assert_int_equal(variant_parse(&config->docs[0], any_filter, NULL,
                                   "a.weight.mlp=1/a.weight=2/weight.mlp=3~1e-5/lambda=4", &variant, NULL),
                     0);
    assert_true(refuse_each_alloc(edit_again(config, variant)) > 0);
    variant_free(variant);
    config_free(config);
}

/* With a path and a file: print the edited text, for tests/golden/test_variants.py. */
static int print_edited(const char *file, const char *path)
{
    struct report report = {0};
    struct config *config;
    struct variant *variant = NULL;
    struct err err = {""};
    char *text = NULL;

    if (config_read(file, NULL, &config, &report) == 0 &&
        variant_parse(&config->docs[config->n_docs - 1], any_filter, NULL, path, &variant, &err) == 0)
        text = recipe_edit(config, &config->docs[config->n_docs - 1], variant, &err);
    if (text)
        fputs(text, stdout);
    else
        fprintf(stderr, "%s\n", report.n_errors ? report.problems[0].text : err.text);
    variant_free(variant);
    config_free(config);
    report_fini(&report);
    return text ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),      cmocka_unit_test(test_documents), cmocka_unit_test(test_values),
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_memory),
    };

    if (argc == 3)
        return print_edited(argv[1], argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
