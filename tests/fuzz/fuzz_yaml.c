/* libFuzzer: whatever the text, config_parse ends, frees all, and its result and its report agree; and the
 * tree comes back the same after it was written. */
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "yaml_tree.h"
#include "yaml_write.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_values(const struct params *params)
{
    for (size_t i = 0; i < params->n; i++)
        for (size_t k = 0; k < params->list[i].n; k++)
            for (size_t v = 0; v < params->list[i].settings[k].n; v++)
                if (!params->list[i].settings[k].values[v].text)
                    abort();
}

static void check_slice(const struct slice *slice)
{
    if (slice->n_sources == 0)
        abort();
    check_values(&slice->params);
    for (size_t i = 0; i < slice->n_sources; i++) {
        const struct slice_source *source = &slice->sources[i];
        if (!source->model.path || !source->model.written || source->begin < 0 || source->end < source->begin)
            abort();
        check_values(&source->params);
    }
}

/* What the rest of the program relies on. */
static void check_document(const struct document *document)
{
    if (!document->method || document->n_modules == 0)
        abort();
    check_values(&document->params);
    for (size_t m = 0; m < document->n_modules; m++) {
        if (document->modules[m].n_slices == 0)
            abort();
        for (size_t s = 0; s < document->modules[m].n_slices; s++)
            check_slice(&document->modules[m].slices[s]);
    }
}

static void check_same(const struct ynode *a, const struct ynode *b)
{
    bool nothing = a->kind == YNODE_NULL && !a->text[0]; /* is written as a word */

    if (a->kind != b->kind || a->n != b->n || a->weight != b->weight ||
        (a->kind < YNODE_TEXT && memcmp(&a->number, &b->number, sizeof(a->number)) != 0) ||
        (a->kind < YNODE_LIST && !nothing && strcmp(a->text, b->text) != 0))
        abort();
    for (size_t i = 0; i < a->n; i++) {
        if (a->kind == YNODE_LIST) {
            check_same(a->items[i], b->items[i]);
            continue;
        }
        check_same(a->pairs[i].key, b->pairs[i].key);
        check_same(a->pairs[i].value, b->pairs[i].value);
    }
}

/* Trees of which nothing is wrong, and that are small enough. */
static void check_written(const char *data, size_t len)
{
    struct arena arena = {0};
    struct findings findings = {0};
    struct report report = {0};
    const struct ynode **docs, **again;
    size_t n, n_again, weight = 0;
    char *text;
    int ret = yaml_tree_read(&arena, &findings, "fuzz.yml", data, len, &docs, &n);

    for (size_t i = 0; ret == 0 && i < n; i++)
        weight += docs[i]->weight;
    if (ret == 0 && findings.n == 0 && weight < 10000) {
        text = yaml_write(docs, n);
        if (!text || yaml_tree_read(&arena, &findings, "again.yml", text, strlen(text), &again, &n_again) ||
            findings.n || n_again != n)
            abort();
        for (size_t i = 0; i < n; i++)
            check_same(docs[i], again[i]);
        free(text);
    }
    findings_flush(&findings, "fuzz.yml", &report);
    report_fini(&report);
    arena_fini(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct report report = {0};
    struct config *config;
    int ret = config_parse("fuzz.yml", (const char *)data, len, NULL, &config, &report);

    if ((ret == 0) != (report.n_errors == 0) || (ret == 0) != (config != NULL))
        abort();
    if (config && (config->n_docs == 0 || config->docs[config->n_docs - 1].name))
        abort();
    for (size_t i = 0; config && i < config->n_docs; i++)
        check_document(&config->docs[i]);
    config_free(config);
    report_fini(&report);
    check_written((const char *)data, len);
    return 0;
}
