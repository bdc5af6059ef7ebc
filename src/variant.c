#include "variant.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "variant_part.h"
#include "yaml_text.h"

static const char *write_text(const struct variant_reader *reader, const struct override *override)
{
    const char *text = arena_printf(reader->arena, "%s=", override->key);

    for (size_t i = 0; text && i < override->setting.n; i++)
        text = arena_printf(reader->arena, "%s%s%s", text, i ? "~" : "", override->setting.values[i].text);
    return text;
}

/* "KEY=VALUE"; the value holds no `=`, names may. */
static int read_component(const struct variant_reader *reader, const char *component,
                          struct override *override)
{
    const char *equals = strrchr(component, '=');
    char written[COMPONENT_MAX + 1];
    struct meaning meaning;
    const char *key;
    int ret;

    if (!equals)
        return err_set(reader->err, -ENOENT, "there is no such file, and a variant is KEY=VALUE");
    key = arena_strndup(reader->arena, component, (size_t)(equals - component));
    if (!key)
        return -ENOMEM;
    ret = key_read(reader, key, &meaning);
    if (!ret)
        ret = value_read(reader, &reader->method->params[meaning.param], equals + 1, &override->setting);
    if (ret)
        return ret;
    if (!key_write(reader, &meaning, written))
        return err_set(reader->err, -ENOENT, "written in full the key has more than %d bytes", COMPONENT_MAX);
    override->param = meaning.param;
    override->model = meaning.model;
    override->filter = override->setting.filter = meaning.filter;
    override->key = arena_strdup(reader->arena, written);
    override->text = override->key ? write_text(reader, override) : NULL;
    if (!override->text)
        return -ENOMEM;
    if (strlen(override->text) > COMPONENT_MAX)
        return err_set(reader->err, -ENOENT, "written in full it has more than %d bytes", COMPONENT_MAX);
    return 0;
}

static int read_part(const struct variant_reader *reader, const char *path, size_t len,
                     struct override *override)
{
    char component[COMPONENT_MAX + 1] = "";
    int ret;

    if (len > COMPONENT_MAX)
        return err_set(reader->err, -ENOENT, "a name of %zu bytes: %d are the most", len, COMPONENT_MAX);
    memcpy(component, path, len);
    ret = read_component(reader, component, override);
    return ret == -ENOENT ? err_prefix(reader->err, ret, "`%s`", component) : ret;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct override *)a)->key, ((const struct override *)b)->key);
}

static int read_path(const struct variant_reader *reader, const char *path, struct variant *variant)
{
    size_t n = 1, len;
    int ret = 0;

    for (const char *at = path; (at = strchr(at, '/')); at++)
        n++;
    variant->list = arena_alloc(reader->arena, n, sizeof(*variant->list));
    if (!variant->list)
        return -ENOMEM;
    for (; !ret && variant->n < n; path += len + 1) {
        len = strcspn(path, "/");
        ret = read_part(reader, path, len, &variant->list[variant->n++]);
    }
    if (ret)
        return ret;
    qsort(variant->list, n, sizeof(*variant->list), by_key);
    for (size_t i = 1; i < n; i++)
        if (by_key(&variant->list[i - 1], &variant->list[i]) == 0)
            return err_set(reader->err, -ENOENT, "`%s` is set twice: to `%s` and to `%s`",
                           variant->list[i].key, variant->list[i - 1].text + strlen(variant->list[i].key) + 1,
                           variant->list[i].text + strlen(variant->list[i].key) + 1);
    return 0;
}

/* Everything in one piece: thousands of variants may be held. Structs first, then texts. */
struct packing {
    struct variant *variant;
    struct scalar *values;
    char *text;
};

static size_t scalars_in(const struct variant *variant)
{
    size_t n = 0;

    for (size_t i = 0; i < variant->n; i++)
        n += variant->list[i].setting.n;
    return n;
}

static size_t text_bytes(const struct variant *variant)
{
    size_t bytes = 0;

    for (size_t i = 0; i < variant->n; i++) {
        const struct override *override = &variant->list[i];
        bytes += 2 * (strlen(override->text) + 1); /* in the path, too */
        bytes += strlen(override->key) + 1 + (override->filter ? strlen(override->filter) + 1 : 0);
        for (size_t k = 0; k < override->setting.n; k++)
            bytes += strlen(override->setting.values[k].text) + 1;
    }
    return bytes;
}

static const char *pack_text(struct packing *packing, const char *text)
{
    size_t size = strlen(text) + 1;
    char *at = packing->text;

    memcpy(at, text, size);
    packing->text += size;
    return at;
}

static void pack_override(struct packing *packing, const struct override *from, struct override *to)
{
    *to = *from;
    to->key = pack_text(packing, from->key);
    to->text = pack_text(packing, from->text);
    to->filter = to->setting.filter = from->filter ? pack_text(packing, from->filter) : NULL;
    to->setting.values = packing->values;
    for (size_t i = 0; i < from->setting.n; i++) {
        *packing->values = from->setting.values[i];
        packing->values->text = pack_text(packing, from->setting.values[i].text);
        packing->values++;
    }
}

static void pack_path(struct packing *packing)
{
    struct variant *variant = packing->variant;

    variant->path = packing->text;
    for (size_t i = 0; i < variant->n; i++) {
        pack_text(packing, variant->list[i].text);
        packing->text[-1] = '/';
    }
    packing->text[-1] = '\0';
}

static struct variant *pack(const struct variant *from)
{
    size_t list_bytes = from->n * sizeof(*from->list), n_scalars = scalars_in(from);
    size_t bytes = sizeof(*from) + list_bytes + n_scalars * sizeof(struct scalar);
    struct variant *variant = malloc(bytes + text_bytes(from));
    struct packing packing = {.variant = variant};

    if (!variant)
        return NULL;
    variant->n = from->n;
    variant->list = (struct override *)(variant + 1);
    packing.values = (struct scalar *)(variant->list + from->n);
    packing.text = (char *)(packing.values + n_scalars);
    for (size_t i = 0; i < from->n; i++)
        pack_override(&packing, &from->list[i], &variant->list[i]);
    pack_path(&packing);
    return variant;
}

int variant_parse(const struct document *document, variant_filter *has_filter, void *arg, const char *path,
                  struct variant **out, struct err *err)
{
    struct arena arena = {0};
    struct variant variant = {0};
    struct variant_reader reader = {document, method_find(document->method), has_filter, arg, &arena, err};
    int ret = reader.method ? read_path(&reader, path, &variant)
                            : err_set(err, -ENOENT, "there is no merge_method `%s`", document->method);

    *out = ret ? NULL : pack(&variant);
    arena_fini(&arena);
    if (ret == -ENOENT && err)
        text_mask(err->text);
    if (ret == -ENOMEM || (!ret && !*out))
        return err_set(err, -ENOMEM, "out of memory");
    return ret;
}

void variant_free(struct variant *variant)
{
    free(variant);
}
