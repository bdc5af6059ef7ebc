/* Models by name, and tokenizers, which are named by models. */
#include <string.h>

#include "config_part.h"

static int text_compare(const char *a, const char *b)
{
    if (!a || !b)
        return (a != NULL) - (b != NULL);
    return strcmp(a, b);
}

int model_ref_compare(const struct model_ref *a, const struct model_ref *b)
{
    int order = text_compare(a->path, b->path);

    if (!order)
        order = text_compare(a->revision, b->revision);
    if (!order)
        order = text_compare(a->adapter, b->adapter);
    return order ? order : text_compare(a->adapter_revision, b->adapter_revision);
}

bool model_ref_equal(const struct model_ref *a, const struct model_ref *b)
{
    return model_ref_compare(a, b) == 0;
}

static const char *copy(struct reader *reader, const char *text, size_t len)
{
    const char *made = arena_strndup(&reader->config->arena, text, len);

    if (!made)
        reader->findings->no_memory = true;
    return made;
}

/* `len` bytes of text, at most one `@` in them, into a path and a revision; false if a part would be empty.
 */
static bool split_revision(struct reader *reader, const char *text, size_t len, const char **path,
                           const char **revision)
{
    const char *at = memchr(text, '@', len);
    size_t head = at ? (size_t)(at - text) : len;

    if (head == 0 || (at && (head + 1 == len || memchr(at + 1, '@', len - head - 1))))
        return false;
    *path = copy(reader, text, head);
    *revision = at ? copy(reader, at + 1, len - head - 1) : NULL;
    return true;
}

/* "path@revision+adapter@revision"; what does not divide so is a path as a whole. */
static void split_reference(struct reader *reader, const char *text, struct model_ref *ref)
{
    const char *plus = strchr(text, '+');
    size_t len = strlen(text), head = plus ? (size_t)(plus - text) : len;
    bool fits = !plus || !strchr(plus + 1, '+');

    fits = fits && split_revision(reader, text, head, &ref->path, &ref->revision);
    if (fits && plus)
        fits = split_revision(reader, plus + 1, len - head - 1, &ref->adapter, &ref->adapter_revision);
    if (fits)
        return;
    ref->path = text;
    ref->revision = ref->adapter = ref->adapter_revision = NULL;
}

/* The two parts of a model written as a mapping: each a text, or {path, revision}. */
struct path_out {
    const char **path, **revision;
};

static void path_path(struct reader *reader, const struct ypair *pair, void *out)
{
    *((struct path_out *)out)->path = reader_text(reader, pair);
}

static void path_revision(struct reader *reader, const struct ypair *pair, void *out)
{
    *((struct path_out *)out)->revision = reader_text(reader, pair);
}

static void path_read(struct reader *reader, const struct ypair *pair, const char **path,
                      const char **revision)
{
    static const struct field fields[] = {{"path", path_path, true}, {"revision", path_revision}};
    static const struct object object = {"a path with a revision", fields, 2, SEVERITY_WARNING};
    struct path_out out = {path, revision};
    const char *text;

    if (pair->value->kind == YNODE_MAP) {
        object_read(reader, pair->value, &object, &out);
        if (lacks_key(pair->value, "path"))
            reader_error(reader, pair->value->at, "`%s` needs a `path:`", pair->key->text);
        return;
    }
    text = reader_text(reader, pair);
    if (text && !split_revision(reader, text, strlen(text), path, revision))
        *path = text;
}

static void ref_model(struct reader *reader, const struct ypair *pair, void *out)
{
    struct model_ref *ref = out;

    path_read(reader, pair, &ref->path, &ref->revision);
}

static void ref_lora(struct reader *reader, const struct ypair *pair, void *out)
{
    struct model_ref *ref = out;

    path_read(reader, pair, &ref->adapter, &ref->adapter_revision);
}

static void ref_architecture(struct reader *reader, const struct ypair *pair, void *out)
{
    (void)out;
    reader_warning(reader, pair->key->at,
                   "`override_architecture` has no effect: models are read by their tensors");
}

static const char *written(struct reader *reader, const struct model_ref *ref)
{
    bool adapter = ref->adapter != NULL;
    const char *text =
        arena_printf(&reader->config->arena, "%s%s%s%s%s%s%s", ref->path, ref->revision ? "@" : "",
                     ref->revision ? ref->revision : "", adapter ? "+" : "", adapter ? ref->adapter : "",
                     adapter && ref->adapter_revision ? "@" : "",
                     adapter && ref->adapter_revision ? ref->adapter_revision : "");

    if (!text)
        reader->findings->no_memory = true;
    return text;
}

static bool ref_from_map(struct reader *reader, const struct ypair *pair, struct model_ref *ref)
{
    static const struct field fields[] = {
        {"model", ref_model, true}, {"lora", ref_lora}, {"override_architecture", ref_architecture}};
    static const struct object object = {"a model written as a mapping", fields, 3, SEVERITY_WARNING};
    size_t errors = reader->findings->n_errors;

    object_read(reader, pair->value, &object, ref);
    if (lacks_key(pair->value, "model"))
        reader_error(reader, pair->value->at, "`%s` as a mapping needs `model:` inside: {model: {path: ...}}",
                     pair->key->text);
    if (reader->findings->n_errors > errors)
        return false;
    ref->written = written(reader, ref);
    return ref->written != NULL;
}

bool ref_read(struct reader *reader, const struct ypair *pair, struct model_ref *ref)
{
    *ref = (struct model_ref){.at = pair->value->at};
    if (pair->value->kind == YNODE_MAP)
        return ref_from_map(reader, pair, ref);
    ref->written = reader_text(reader, pair);
    if (!ref->written)
        return false;
    split_reference(reader, ref->written, ref);
    return !reader->findings->no_memory;
}

struct model_ref *ref_new(struct reader *reader, const struct ypair *pair)
{
    struct model_ref *ref = reader_alloc(reader, 1, sizeof(*ref));

    return ref && ref_read(reader, pair, ref) ? ref : NULL;
}

/* Tokenizers */

static void tokenizer_model(struct reader *reader, const struct ypair *pair, void *out)
{
    struct tokenizer_config *tokenizer = out;
    const struct ynode *value = pair->value;

    tokenizer->source = NULL;
    if (value->kind == YNODE_TEXT && (strcmp(value->text, "union") == 0 || strcmp(value->text, "base") == 0))
        tokenizer->source = value->text;
    else
        tokenizer->model = ref_new(reader, pair);
}

static void tokenizer_tokens(struct reader *reader, const struct ypair *pair, void *out)
{
    struct tokenizer_config *tokenizer = out;

    tokenizer->has_tokens = true;
    if (pair->value->kind != YNODE_MAP)
        reader_error(reader, pair->value->at, "`tokens` must be a mapping of token to `source:`, not %s",
                     ynode_kind_name(pair->value->kind));
}

static void tokenizer_pad(struct reader *reader, const struct ypair *pair, void *out)
{
    struct tokenizer_config *tokenizer = out;

    if (!scalar_count(pair->value, &tokenizer->pad_to_multiple_of) || tokenizer->pad_to_multiple_of == 0)
        reader_error(reader, pair->value->at, "`pad_to_multiple_of` must be a whole number above 0");
}

void tokenizer_read(struct reader *reader, const struct ypair *pair, struct tokenizer_config *tokenizer)
{
    static const struct field fields[] = {
        {"source", tokenizer_model}, {"tokens", tokenizer_tokens}, {"pad_to_multiple_of", tokenizer_pad}};
    static const struct object object = {"`tokenizer`", fields, 3, SEVERITY_WARNING};

    *tokenizer = (struct tokenizer_config){.given = true, .at = pair->value->at, .source = "union"};
    object_read(reader, pair->value, &object, tokenizer);
}

void tokenizer_source_read(struct reader *reader, const struct ypair *pair,
                           struct tokenizer_config *tokenizer)
{
    *tokenizer = (struct tokenizer_config){.given = true, .at = pair->value->at};
    tokenizer_model(reader, pair, tokenizer);
}
