#include "card.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "folder.h"
#include "json.h"

enum { LICENCE_MAX = 64, FRONT_MAX = 65536 };

/* The value of `license:` in front matter: text between two lines of `---`. */
static bool parse_licence(const char *text, char licence[LICENCE_MAX])
{
    if (strncmp(text, "---\n", 4) != 0)
        return false;
    for (const char *line = text + 4; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, "---", 3) == 0)
            return false;
        if (sscanf(line, "license: %63[A-Za-z0-9.-]", licence) == 1)
            return true;
    }
    return false;
}

/* The licence a model's own card states; false if there is no card or it states none. */
static bool read_licence(const char *dir, char licence[LICENCE_MAX])
{
    struct folder folder = {0};
    struct source *card = NULL;
    char *text = calloc(1, FRONT_MAX + 1);
    bool found = false;

    if (text && folder_init(&folder, dir, NULL) == 0 && folder_open(&folder, "README.md", &card, NULL) == 0) {
        size_t len = card->size < FRONT_MAX ? (size_t)card->size : FRONT_MAX;
        found = source_read(card, 0, len, text, NULL) == 0 && parse_licence(text, licence);
    }
    source_close(card);
    folder_fini(&folder);
    free(text);
    return found;
}

/* The licence that all models state, or NULL; *differ if they do not agree. */
static const char *common_licence(const struct plan *plan, char licence[LICENCE_MAX], bool *differ)
{
    char other[LICENCE_MAX];
    size_t n_known = 0;

    *differ = false;
    for (size_t i = 0; i < plan->n_models; i++) {
        if (!read_licence(plan->models[i]->dir, n_known ? other : licence))
            continue;
        if (n_known++ && strcmp(licence, other) != 0)
            *differ = true;
    }
    *differ = *differ || (n_known && n_known < plan->n_models);
    return n_known && !*differ ? licence : NULL;
}

static void front_matter(FILE *out, const struct plan *plan, const char *licence)
{
    fprintf(out, "---\nbase_model:\n");
    for (size_t i = 0; i < plan->n_models; i++) {
        fprintf(out, "- ");
        json_write_string(out, plan->models[i]->name,
                          strlen(plan->models[i]->name)); /* JSON's strings are YAML's */
        fputc('\n', out);
    }
    fprintf(out, "base_model_relation: merge\nlibrary_name: transformers\n");
    if (licence)
        fprintf(out, "license: %s\n", licence);
    fprintf(out, "tags:\n- mergekit\n- merge\n---\n");
}

static void body(FILE *out, const struct plan *plan, const char *title, bool licences_differ)
{
    const struct method *method = method_find(plan->doc->method);

    fprintf(out, "# %s\n\nA merge of language models", title);
    if (method && method->paper)
        fprintf(out, " by [%s](%s)", method->title, method->paper);
    else if (method)
        fprintf(out, " by %s", method->title);
    fprintf(out, ", computed while it is read by meldfs.\n"
                 "The recipe, which mergekit runs too, is in `mergekit_config.yml`.\n\n## Models\n\n");
    for (size_t i = 0; i < plan->n_models; i++)
        fprintf(out, "* %s%s\n", plan->models[i]->name,
                plan->models[i] == plan->donor ? " (config and tokenizer)" : "");
    if (licences_differ)
        fprintf(
            out,
            "\n## Licence\n\nThe models do not all state the same licence. Check what applies to their merge "
            "before you pass it on.\n");
}

char *card_render(const struct plan *plan, const char *title)
{
    char licence[LICENCE_MAX], *text = NULL;
    const char *common;
    size_t len;
    bool differ, failed;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        return NULL;
    common = common_licence(plan, licence, &differ);
    front_matter(out, plan, common);
    body(out, plan, title, differ);
    failed = ferror(out);
    if (fclose(out) || failed) {
        free(text);
        return NULL;
    }
    return text;
}
