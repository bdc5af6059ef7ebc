/* libFuzzer: whatever the path, variant_parse ends, and what it calls canonical is read as just that. The
 * first byte chooses the merge file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "variant.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const char *const files[] = {
    "merge_method: ties\n"
    "base_model: org/base\n"
    "models: [{model: org/math-7b.v0.2}, {model: code/}, {model: other/same}, {model: org/same}]\n"
    "meldfs: {names: {mine: other/same, m.x: org/math-7b.v0.2}}\n",
    "merge_method: linear\n"
    "models: [{model: a/weight}, {model: a/1}, {model: a/0}, {model: /}, {model: a/mlp}]\n"
    "meldfs: {names: {x.weight: a/1, x: a/0, weight.weight: /}}\n",
    "{merge_method: karcher, models: [{model: a}, {model: b}]}\n",
    "{merge_method: arcee_fusion, base_model: a, models: [{model: b}]}\n",
};

static bool has_filter(void *arg, const char *filter)
{
    (void)arg;
    return strstr("model.layers.0.mlp.up_proj.weight", filter) != NULL;
}

static struct variant *parse(const struct config *config, const char *path)
{
    struct variant *variant;
    struct err err = {""};
    int ret = variant_parse(&config->docs[0], has_filter, NULL, path, &variant, &err);

    if ((ret == 0) != (variant != NULL) || (ret && (ret != -ENOENT || !err.text[0])))
        abort();
    for (const char *at = err.text; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            abort();
    return variant;
}

static void check_again(const struct config *config, const struct variant *variant)
{
    struct variant *again = parse(config, variant->path);

    if (!again || strcmp(again->path, variant->path) != 0 || again->n != variant->n)
        abort();
    for (size_t i = 0; i < again->n; i++) {
        const struct override *a = &variant->list[i], *b = &again->list[i];
        if (a->param != b->param || a->model != b->model || a->setting.n != b->setting.n ||
            strcmp(a->text, b->text) != 0 || strlen(a->text) > 255)
            abort();
        for (size_t k = 0; k < a->setting.n; k++)
            if (memcmp(&a->setting.values[k].number, &b->setting.values[k].number, sizeof(double)) != 0)
                abort();
    }
    variant_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct report report = {0};
    struct config *config;
    struct variant *variant;
    const char *file;
    char *path;

    if (len == 0)
        return 0;
    file = files[data[0] % (sizeof(files) / sizeof(*files))];
    path = strndup((const char *)data + 1, len - 1);
    if (config_parse("fuzz.yml", file, strlen(file), NULL, &config, &report) || !path)
        abort();
    variant = parse(config, path);
    if (variant)
        check_again(config, variant);
    variant_free(variant);
    config_free(config);
    report_fini(&report);
    free(path);
    return 0;
}
