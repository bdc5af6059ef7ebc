#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config_part.h"

enum { FILE_BYTES_MAX = 16 << 20, READ_BYTES = 16 << 10 };

/* A document while its keys come in. */
struct draft {
    struct staged *staged;
    struct document *document;     /* staged's */
    const struct ynode *models;    /* key of the first of models, slices and modules */
    const struct ynode *tokenizer; /* key of the first of tokenizer and tokenizer_source */
    const struct ynode *aliases;   /* wait for the models */
};

static void doc_name(struct reader *reader, const struct ypair *pair, void *out)
{
    struct draft *draft = out;

    draft->document->name = reader_text(reader, pair);
    draft->staged->name_at = pair->value->at;
}

static void doc_method(struct reader *reader, const struct ypair *pair, void *out)
{
    struct draft *draft = out;
    const char *problem = NULL;

    draft->document->method = reader_text(reader, pair);
    draft->document->method_at = pair->value->at;
    if (draft->document->method && reader->method_problem)
        problem = reader->method_problem(draft->document->method);
    if (problem)
        reader_error(reader, pair->value->at, "%s `%.64s`", problem, draft->document->method);
}

static void doc_base(struct reader *reader, const struct ypair *pair, void *out)
{
    ((struct draft *)out)->document->base_model = ref_new(reader, pair);
}

static void doc_params(struct reader *reader, const struct ypair *pair, void *out)
{
    params_read(reader, pair, &((struct draft *)out)->document->params);
}

/* Types as mergekit spells them, and how else they are often written. */
static const char *spelling(const char *name)
{
    static const char *const names[][2] = {
        {"bfloat16", "bfloat16"}, {"float16", "float16"}, {"float32", "float32"}, {"float64", "float64"},
        {"bf16", "bfloat16"},     {"fp16", "float16"},    {"f16", "float16"},     {"half", "float16"},
        {"fp32", "float32"},      {"f32", "float32"},     {"float", "float32"},   {"double", "float64"},
        {"fp64", "float64"},      {"f64", "float64"}};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcasecmp(name, names[i][0]) == 0)
            return names[i][1];
    return NULL;
}

static enum dtype dtype_read(struct reader *reader, const struct ypair *pair)
{
    const char *text = reader_text(reader, pair), *name, *known;

    if (!text)
        return DTYPE_NONE;
    name = strncmp(text, "torch.", 6) == 0 ? text + 6 : text;
    known = spelling(name);
    if (known && strcmp(name, known) == 0)
        return dtype_from_torch(known);
    if (known)
        reader_error(reader, pair->value->at, "`%s: %.64s` is not known: write `%s`", pair->key->text, text,
                     known);
    else
        reader_error(reader, pair->value->at,
                     "`%s` cannot be `%.64s`: it is float32, float16, bfloat16 or float64", pair->key->text,
                     text);
    return DTYPE_NONE;
}

static void doc_dtype(struct reader *reader, const struct ypair *pair, void *out)
{
    struct document *document = ((struct draft *)out)->document;

    document->dtype = dtype_read(reader, pair);
    document->dtype_at = pair->value->at;
}

static void doc_out_dtype(struct reader *reader, const struct ypair *pair, void *out)
{
    struct document *document = ((struct draft *)out)->document;

    document->out_dtype = dtype_read(reader, pair);
    document->out_dtype_at = pair->value->at;
}

static void doc_template(struct reader *reader, const struct ypair *pair, void *out)
{
    struct document *document = ((struct draft *)out)->document;

    document->chat_template = reader_text(reader, pair);
    document->chat_template_at = pair->value->at;
}

/* Whether `key` is the first of those that exclude each other; else says so. */
static bool take_turn(struct reader *reader, const struct ynode **first, const struct ynode *key)
{
    if (*first)
        reader_error(reader, key->at, "`%s` beside `%s` in line %u: keep one of the two", key->text,
                     (*first)->text, (*first)->at.line);
    else
        *first = key;
    return *first == key;
}

static void doc_models(struct reader *reader, const struct ypair *pair, void *out)
{
    struct draft *draft = out;

    if (take_turn(reader, &draft->models, pair->key))
        models_read(reader, pair, draft->document);
}

static void doc_slices(struct reader *reader, const struct ypair *pair, void *out)
{
    struct draft *draft = out;

    if (take_turn(reader, &draft->models, pair->key))
        slices_read(reader, pair, draft->document);
}

static void doc_modules(struct reader *reader, const struct ypair *pair, void *out)
{
    struct draft *draft = out;

    if (take_turn(reader, &draft->models, pair->key))
        modules_read(reader, pair, draft->document);
}

static void doc_tokenizer(struct reader *reader, const struct ypair *pair, void *out)
{
    struct draft *draft = out;

    if (take_turn(reader, &draft->tokenizer, pair->key))
        tokenizer_read(reader, pair, &draft->document->tokenizer);
}

static void doc_tokenizer_source(struct reader *reader, const struct ypair *pair, void *out)
{
    struct draft *draft = out;

    if (take_turn(reader, &draft->tokenizer, pair->key))
        tokenizer_source_read(reader, pair, &draft->document->tokenizer);
}

static void meldfs_mismatch(struct reader *reader, const struct ypair *pair, void *out)
{
    static const char *const words[] = {
        [MISMATCH_ERROR] = "error", [MISMATCH_BASE] = "base", [MISMATCH_TRUNCATE] = "truncate"};
    struct document *document = ((struct draft *)out)->document;
    const char *text = reader_text(reader, pair);

    document->mismatch_at = pair->value->at;
    for (size_t i = 0; text && i < sizeof(words) / sizeof(*words); i++)
        if (strcmp(text, words[i]) == 0) {
            document->mismatch = (enum mismatch)i;
            return;
        }
    if (text)
        reader_error(reader, pair->value->at, "`mismatch` cannot be `%.64s`: it is error, base or truncate",
                     text);
}

static void meldfs_names(struct reader *reader, const struct ypair *pair, void *out)
{
    if (pair->value->kind == YNODE_MAP)
        ((struct draft *)out)->aliases = pair->value;
    else
        reader_error(reader, pair->value->at, "`names` must be a mapping of ALIAS: MODEL, not %s",
                     ynode_kind_name(pair->value->kind));
}

static void doc_meldfs(struct reader *reader, const struct ypair *pair, void *out)
{
    static const struct field fields[] = {{"mismatch", meldfs_mismatch}, {"names", meldfs_names}};
    static const struct object object = {"`meldfs:`", fields, 2, SEVERITY_ERROR};

    object_read(reader, pair->value, &object, out);
}

static const struct field document_fields[] = {{"merge_method", doc_method, true},
                                               {"models", doc_models},
                                               {"slices", doc_slices},
                                               {"modules", doc_modules},
                                               {"base_model", doc_base},
                                               {"dtype", doc_dtype},
                                               {"out_dtype", doc_out_dtype},
                                               {"tokenizer", doc_tokenizer},
                                               {"tokenizer_source", doc_tokenizer_source},
                                               {"chat_template", doc_template},
                                               {"meldfs", doc_meldfs},
                                               {"parameters", doc_params},
                                               {"name", doc_name}};
enum { N_DOCUMENT_FIELDS = sizeof(document_fields) / sizeof(*document_fields) };

/* `parameters` and `name` stand elsewhere, too. */
bool key_of_document(const char *key)
{
    for (size_t i = 0; i < N_DOCUMENT_FIELDS - 2; i++)
        if (strcmp(document_fields[i].name, key) == 0)
            return true;
    return false;
}

static void document_read(struct reader *reader, const struct ynode *node, struct staged *staged)
{
    static const struct object object = {"a merge file", document_fields, N_DOCUMENT_FIELDS, SEVERITY_WARNING,
                                         .extensible = true};
    struct document *document = &staged->document;
    struct draft draft = {staged, document};

    document->at = node->at;
    document->dtype = document->out_dtype = DTYPE_NONE;
    object_read(reader, node, &object, &draft);
    if (lacks_key(node, "merge_method"))
        reader_error(reader, node->at,
                     "there is no `merge_method:`: add one, such as `merge_method: linear`");
    if (node->kind == YNODE_MAP && !draft.models)
        reader_error(reader, node->at, "there is nothing to merge: add `models:`, `slices:` or `modules:`");
    models_number(reader, document);
    if (draft.aliases)
        aliases_read(reader, draft.aliases, document);
}

static void documents_read(struct reader *reader, const struct ynode *const *nodes, size_t n)
{
    struct staged *staged = reader_alloc(reader, n, sizeof(*staged));

    if (!staged)
        return;
    for (size_t i = 0; i < n; i++)
        document_read(reader, nodes[i], &staged[i]);
    order_documents(reader, staged, n);
}

static int read_text(struct reader *reader)
{
    struct config *config = reader->config;
    const struct ynode **nodes;
    size_t n;
    int ret = yaml_tree_read(&config->arena, reader->findings, config->path, config->text, config->text_len,
                             &nodes, &n);

    if (ret)
        return ret;
    if (n == 0)
        reader_error(reader, (struct place){config->path, 0, 0},
                     "the file is empty: it needs at least `merge_method:`");
    else
        documents_read(reader, nodes, n);
    if (reader->findings->no_memory)
        return -ENOMEM;
    return reader->findings->n_errors ? -EINVAL : 0;
}

static int fail_whole(struct report *report, const char *path, int code, const char *message)
{
    report_add(report, SEVERITY_ERROR, (struct place){path, 0, 0}, "%s", message);
    return code;
}

static struct config *config_new(const char *path, const char *text, size_t len)
{
    struct config *config = calloc(1, sizeof(*config));

    if (!config)
        return NULL;
    config->path = arena_strdup(&config->arena, path);
    config->text = arena_strndup(&config->arena, text, len);
    config->text_len = len;
    if (config->path && config->text)
        return config;
    config_free(config);
    return NULL;
}

int config_parse(const char *path, const char *text, size_t len, config_method_problem *method_problem,
                 struct config **out, struct report *report)
{
    struct findings findings = {0};
    struct config *config;
    int ret;

    *out = NULL;
    if (len > FILE_BYTES_MAX)
        return fail_whole(report, path, -EFBIG, "the file is larger than 16 MiB: this is no merge file");
    config = config_new(path, text, len);
    if (!config)
        return fail_whole(report, path, -ENOMEM, "there is not enough memory to read the file");
    ret = read_text(&(struct reader){config, &findings, method_problem});
    findings_flush(&findings, config->path, report);
    if (ret == -ENOMEM)
        fail_whole(report, path, ret, "there is not enough memory to read the file");
    if (ret)
        config_free(config);
    else
        *out = config;
    return ret;
}

/* Up to one byte more than may be, so that too much is seen. */
static int read_all(int fd, char **text, size_t *len)
{
    size_t room = 0;
    ssize_t got = 1;

    while (got != 0 && *len <= FILE_BYTES_MAX) {
        if (*len == room) {
            char *grown = realloc(*text, room ? 2 * room : READ_BYTES);
            if (!grown)
                return -ENOMEM;
            *text = grown;
            room = room ? 2 * room : READ_BYTES;
        }
        got = read(fd, *text + *len, room - *len);
        if (got < 0 && errno != EINTR)
            return -errno;
        *len += got > 0 ? (size_t)got : 0;
    }
    return 0;
}

int config_read(const char *path, config_method_problem *method_problem, struct config **out,
                struct report *report)
{
    char *text = NULL;
    size_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC), ret = fd < 0 ? -errno : read_all(fd, &text, &len);

    *out = NULL;
    if (fd >= 0)
        close(fd);
    if (ret == -ENOENT)
        fail_whole(report, path, ret, "there is no such file");
    else if (ret == -EISDIR)
        fail_whole(report, path, ret, "this is a directory: name a merge file in it");
    else if (ret)
        report_add(report, SEVERITY_ERROR, (struct place){path, 0, 0}, "cannot read the file: %s",
                   strerror(-ret));
    else
        ret = config_parse(path, text, len, method_problem, out, report);
    free(text);
    return ret;
}

void config_free(struct config *config)
{
    if (!config)
        return;
    arena_fini(&config->arena);
    free(config);
}
