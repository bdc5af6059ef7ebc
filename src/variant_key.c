#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "json.h"
#include "similar.h"
#include "variant_part.h"

enum { MEANINGS_MAX = 4, MODELS_TRIED = 16 };

/* Why a way to read a key is none; what explains most comes last. */
enum objection { UNKNOWN, NO_TENSOR, OF_BASE, OF_MODEL, NO_EFFECT, FITS };

/* All ways to read a key. */
struct matches {
    const struct variant_reader *reader;
    const char *filter; /* known to be part of some tensor's name */
    size_t n;           /* of those that fit; the first are told */
    struct meaning list[MEANINGS_MAX];
    enum objection objection; /* to `rejected`, if nothing fits */
    struct meaning rejected;
};

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* Half a character is in some names, but in no recipe. */
static bool is_utf8(const char *text)
{
    size_t len = strlen(text), step;

    for (; len > 0; text += step, len -= step) {
        step = json_utf8_len(text, len);
        if (step == 0)
            return false;
    }
    return true;
}

static bool filter_fits(const struct matches *matches, const char *filter)
{
    return !filter || same_text(filter, matches->filter) ||
           (*filter && strcmp(filter, "*") != 0 && is_utf8(filter) &&
            matches->reader->has_filter(matches->reader->arg, filter));
}

static enum objection object_to(const struct matches *matches, const struct meaning *meaning)
{
    const struct variant_reader *reader = matches->reader;
    const struct method_param *param = &reader->method->params[meaning->param];

    if (param->unused)
        return NO_EFFECT;
    if (meaning->model >= 0 && param->scope == PARAM_SHARED)
        return OF_MODEL;
    if (meaning->model >= 0 && param->scope == PARAM_DONOR && reader->method->base != BASE_IGNORED &&
        !reader->document->is_donor[meaning->model])
        return OF_BASE;
    return filter_fits(matches, meaning->filter) ? FITS : NO_TENSOR;
}

static bool has_meaning(const struct matches *matches, const struct meaning *meaning)
{
    for (size_t i = 0; i < matches->n && i < MEANINGS_MAX; i++) {
        const struct meaning *other = &matches->list[i];
        if (other->param == meaning->param && other->model == meaning->model &&
            same_text(other->filter, meaning->filter))
            return true;
    }
    return false;
}

static void add_meaning(struct matches *matches, const struct meaning *meaning)
{
    enum objection objection = object_to(matches, meaning);

    if (objection == FITS) {
        if (has_meaning(matches, meaning))
            return;
        if (matches->n < MEANINGS_MAX)
            matches->list[matches->n] = *meaning;
        matches->n++;
        matches->filter = meaning->filter;
    } else if (objection > matches->objection) {
        matches->objection = objection;
        matches->rejected = *meaning;
    }
}

/* `rest` as PARAM or PARAM.FILTER. */
static void match_param(struct matches *matches, int model, const char *rest)
{
    size_t len = strcspn(rest, ".");

    for (unsigned p = 0; p < matches->reader->method->n_params; p++) {
        const char *name = matches->reader->method->params[p].name;
        if (strncmp(rest, name, len) == 0 && name[len] == '\0')
            add_meaning(matches, &(struct meaning){p, model, rest[len] ? rest + len + 1 : NULL});
    }
}

/* The number of a model, written as such; -1 if it is none. */
static int position(const struct document *document, const char *text, size_t len)
{
    size_t number = 0;

    if (len == 0 || len > 9 || (text[0] == '0' && len > 1))
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        number = number * 10 + (size_t)(text[i] - '0');
    }
    return number < document->n_models ? (int)number : -1;
}

static void match_key(struct matches *matches, const char *key)
{
    const struct document *document = matches->reader->document;

    match_param(matches, -1, key);
    for (const char *dot = key; (dot = strchr(dot, '.')); dot++) {
        size_t len = (size_t)(dot - key), n;
        const struct model_name *named;
        int number = position(document, key, len);

        if (number >= 0)
            match_param(matches, number, dot + 1);
        n = document_named(document, key, len, &named);
        for (size_t i = 0; i < n; i++)
            match_param(matches, named[i].model, dot + 1);
    }
}

/* Put a key together; true if it can only be read as that. */
static bool try_key(const struct variant_reader *reader, const struct meaning *meaning, const char *model,
                    char key[COMPONENT_MAX + 1])
{
    struct matches matches = {.reader = reader, .filter = meaning->filter};
    int len = snprintf(key, COMPONENT_MAX + 1, "%s%s%s%s%s", model, *model ? "." : "",
                       reader->method->params[meaning->param].name, meaning->filter ? "." : "",
                       meaning->filter ? meaning->filter : "");

    if (len > COMPONENT_MAX)
        return false;
    match_key(&matches, key);
    return matches.n == 1;
}

bool key_write(const struct variant_reader *reader, const struct meaning *meaning,
               char key[COMPONENT_MAX + 1])
{
    const struct document *document = reader->document;
    char number[16];

    if (meaning->model < 0)
        return try_key(reader, meaning, "", key);
    if (document->model_names[meaning->model] &&
        try_key(reader, meaning, document->model_names[meaning->model], key))
        return true;
    for (size_t i = 0; i < document->n_aliases; i++)
        if (document->aliases[i].model == meaning->model &&
            try_key(reader, meaning, document->aliases[i].name, key))
            return true;
    snprintf(number, sizeof(number), "%d", meaning->model);
    return try_key(reader, meaning, number, key);
}

/* Reasons */

/* Add to a text of `size` bytes, as far as it fits. */
static void append(char *text, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void append(char *text, size_t size, const char *fmt, ...)
{
    size_t len = strlen(text);
    va_list args;

    va_start(args, fmt);
    vsnprintf(text + len, size - len, fmt, args);
    va_end(args);
}

static int say_ambiguous(const struct matches *matches)
{
    const struct variant_reader *reader = matches->reader;
    char text[640] = "", key[COMPONENT_MAX + 1];

    for (size_t i = 0; i < matches->n && i < MEANINGS_MAX; i++) {
        const struct meaning *meaning = &matches->list[i];
        append(text, sizeof(text), "%s `%s`", i ? ", or" : "", reader->method->params[meaning->param].name);
        if (meaning->model >= 0)
            append(text, sizeof(text), " of %.64s", reader->document->models[meaning->model]->written);
        if (meaning->filter)
            append(text, sizeof(text), " where `%.64s` is in a tensor's name", meaning->filter);
        if (key_write(reader, meaning, key))
            append(text, sizeof(text), " (then write `%.100s`)", key);
    }
    return err_set(reader->err, -ENOENT, "this can mean%s; an alias under `meldfs: {names: ...}` tells apart",
                   text);
}

/* "`weight`, `density`": what the method reads. */
static void list_params(const struct method *method, char *text, size_t size)
{
    text[0] = '\0';
    for (unsigned p = 0; p < method->n_params; p++)
        if (!method->params[p].unused)
            append(text, size, "%s`%s`", *text ? ", " : "", method->params[p].name);
}

/* The key closest to one that is misspelt. */
struct guess {
    struct similar similar;
    char best[COMPONENT_MAX + 1];
};

static void guess_key(struct guess *guess, const char *model, const char *param, const char *rest)
{
    char key[COMPONENT_MAX + 1];
    unsigned least = guess->similar.least;

    snprintf(key, sizeof(key), "%s%s%s", model, *model ? "." : "", param);
    similar_try(&guess->similar, key);
    if (guess->similar.least < least)
        snprintf(guess->best, sizeof(guess->best), "%s%s", key, rest);
}

/* All keys, against the part of the wanted one that `rest` is left of. */
static void guess_keys(const struct variant_reader *reader, struct guess *guess, const char *rest)
{
    const struct document *document = reader->document;

    for (unsigned p = 0; p < reader->method->n_params; p++) {
        const struct method_param *param = &reader->method->params[p];
        if (param->unused)
            continue;
        guess_key(guess, "", param->name, rest);
        for (size_t i = 0; param->scope != PARAM_SHARED && i < document->n_names && i < MODELS_TRIED; i++)
            guess_key(guess, document->names[i].name, param->name, rest);
    }
}

static int say_unknown(const struct variant_reader *reader, const char *key)
{
    struct guess guess = {.best = ""};
    char head[COMPONENT_MAX + 1], params[256];
    unsigned least = 0;

    for (const char *end = key + strlen(key); end; end = memrchr(key, '.', (size_t)(end - key))) {
        snprintf(head, sizeof(head), "%.*s", (int)(end - key), key);
        guess.similar = similar_to(head);
        if (least && least < guess.similar.least)
            guess.similar.least = least;
        guess_keys(reader, &guess, end);
        least = *guess.best ? guess.similar.least : 0;
    }
    if (*guess.best)
        return err_set(reader->err, -ENOENT, "there is no such key: did you mean `%s`?", guess.best);
    if (reader->method->n_params == 0)
        return err_set(reader->err, -ENOENT,
                       "there is no such key: %s reads no parameter, and has no variants",
                       reader->method->name);
    list_params(reader->method, params, sizeof(params));
    return err_set(reader->err, -ENOENT,
                   "there is no such key: %s reads %s, for one model as MODEL.PARAMETER, for some tensors "
                   "with .FILTER behind",
                   reader->method->name, params);
}

/* Why the one way to read the key that there is does not count. */
static int say_rejected(const struct matches *matches)
{
    const struct variant_reader *reader = matches->reader;
    const char *name = reader->method->params[matches->rejected.param].name;
    const char *filter = matches->rejected.filter;
    char params[256];

    if (matches->objection == NO_EFFECT) {
        list_params(reader->method, params, sizeof(params));
        return err_set(reader->err, -ENOENT, "`%s` changes nothing in %s, which reads %s", name,
                       reader->method->name, params);
    }
    if (matches->objection == OF_MODEL)
        return err_set(reader->err, -ENOENT, "`%s` is one value for all models: write `%s%s%s`", name, name,
                       filter ? "." : "", filter ? filter : "");
    if (matches->objection == OF_BASE)
        return err_set(reader->err, -ENOENT, "`%s` of the base model changes nothing: only donors have one",
                       name);
    return *filter ? err_set(reader->err, -ENOENT, "no tensor has `%s` in its name", filter)
                   : err_set(reader->err, -ENOENT, "the filter behind `%s.` is empty", name);
}

int key_read(const struct variant_reader *reader, const char *key, struct meaning *meaning)
{
    struct matches matches = {.reader = reader};

    match_key(&matches, key);
    if (matches.n == 0)
        return matches.objection == UNKNOWN ? say_unknown(reader, key) : say_rejected(&matches);
    if (matches.n > 1)
        return say_ambiguous(&matches);
    *meaning = matches.list[0];
    return 0;
}
