/* libFuzzer: whatever the text, config_parse ends, frees all, and its result and its report agree. */
#include <stdlib.h>

#include "config.h"

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
    return 0;
}
