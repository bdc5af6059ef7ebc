#include "layout.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "card.h"
#include "json.h"
#include "jsontree.h"
#include "sort.h"

enum { DATA_ALIGN = 4096 };

static struct vfile *add_file(struct layout *layout, const char *path, enum vfile_kind kind)
{
    struct vfile *file = arena_push(&layout->arena, &layout->files, &layout->n_files, sizeof(*file));

    if (file)
        *file = (struct vfile){.path = path, .kind = kind};
    return path ? file : NULL;
}

/* A rendered file; takes `bytes`, malloc'd, over into the arena. */
static int add_bytes(struct layout *layout, const char *path, char *bytes, size_t len)
{
    struct vfile *file = add_file(layout, path, VFILE_BYTES);
    const char *copy = bytes ? arena_strndup(&layout->arena, bytes, len) : NULL;

    free(bytes);
    if (!file || !copy)
        return -ENOMEM;
    file->bytes = copy;
    file->size = file->bytes_len = len;
    return 0;
}

static int add_text(struct layout *layout, const char *path, char *text)
{
    return add_bytes(layout, path, text, text ? strlen(text) : 0);
}

static int by_placement(const void *a, const void *b)
{
    return st_compare(&(*(const struct plan_tensor *const *)a)->st,
                      &(*(const struct plan_tensor *const *)b)->st);
}

/* How many of the tensors from `from` on go into one shard: at least one, then as many as fit. */
static size_t shard_length(const struct plan_tensor **tensors, size_t from, size_t n, uint64_t shard_bytes)
{
    uint64_t bytes = tensors[from]->st.len;
    size_t end = from + 1;

    while (end < n && bytes + tensors[end]->st.len <= shard_bytes)
        bytes += tensors[end++]->st.len;
    return end - from;
}

static int render_header(struct layout *layout, struct vfile *file, struct err *err)
{
    struct st_tensor *table = calloc(file->n_tensors, sizeof(*table));
    uint64_t at = 0;
    char *header;
    int status;

    if (!table)
        return -ENOMEM;
    for (size_t i = 0; i < file->n_tensors; i++) {
        table[i] = file->tensors[i]->st;
        table[i].begin = at;
        at += table[i].len;
    }
    status = st_render(table, file->n_tensors, DATA_ALIGN, &header, &file->bytes_len, err);
    for (size_t i = 0; i < file->n_tensors; i++)
        file->begin[i] = file->bytes_len + table[i].begin;
    free(table);
    if (status)
        return status;
    file->size = file->bytes_len + at;
    file->bytes = arena_strndup(&layout->arena, header, file->bytes_len);
    free(header);
    return file->bytes ? 0 : -ENOMEM;
}

static int add_shard(struct layout *layout, const char *path, const struct plan_tensor **tensors, size_t n,
                     struct err *err)
{
    struct vfile *file = add_file(layout, path, VFILE_SHARD);

    if (!file)
        return -ENOMEM;
    file->tensors = tensors;
    file->n_tensors = n;
    file->begin = arena_alloc(&layout->arena, n, sizeof(*file->begin));
    return file->begin ? render_header(layout, file, err) : -ENOMEM;
}

/* model.safetensors.index.json over the shards among the layout's files. */
static char *render_index(const struct layout *layout, uint64_t total)
{
    char *text = NULL;
    size_t len, n = 0;
    FILE *out = open_memstream(&text, &len);
    bool failed;

    if (!out)
        return NULL;
    fprintf(out, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {\n",
            (unsigned long long)total);
    for (size_t i = 0; i < layout->n_files; i++) {
        const struct vfile *file = &layout->files[i];
        for (size_t k = 0; file->kind == VFILE_SHARD && k < file->n_tensors; k++) {
            fputs(n++ ? ",\n    " : "    ", out);
            json_write_string(out, file->tensors[k]->st.name, strlen(file->tensors[k]->st.name));
            fputs(": \"", out);
            fputs(file->path, out);
            putc('"', out);
        }
    }
    fprintf(out, "\n  }\n}\n");
    failed = ferror(out);
    if (fclose(out) || failed) {
        free(text);
        return NULL;
    }
    return text;
}

static int place_tensors(struct layout *layout, const struct plan *plan, uint64_t shard_bytes,
                         struct err *err)
{
    const struct plan_tensor **order = arena_alloc(&layout->arena, plan->n_tensors, sizeof(*order));
    size_t n_shards = 0, shard = 0;
    uint64_t total = 0;
    int status = 0;

    if (!order)
        return -ENOMEM;
    for (size_t i = 0; i < plan->n_tensors; i++) {
        order[i] = &plan->tensors[i];
        total += order[i]->st.len;
    }
    sort_list(order, plan->n_tensors, sizeof(*order), by_placement);
    for (size_t i = 0; i < plan->n_tensors; n_shards++)
        i += shard_length(order, i, plan->n_tensors, shard_bytes);
    for (size_t i = 0, n; i < plan->n_tensors && status == 0; i += n) {
        const char *path = n_shards == 1 ? "model.safetensors"
                                         : arena_printf(&layout->arena, "model-%05zu-of-%05zu.safetensors",
                                                        ++shard, n_shards);
        n = shard_length(order, i, plan->n_tensors, shard_bytes);
        status = add_shard(layout, path, order + i, n, err);
    }
    if (status || n_shards == 1)
        return status;
    return add_text(layout, "model.safetensors.index.json", render_index(layout, total));
}

static bool has_file(const struct layout *layout, const char *path)
{
    for (size_t i = 0; i < layout->n_files; i++) {
        if (strcmp(layout->files[i].path, path) == 0)
            return true;
    }
    return false;
}

static int add_side_files(struct layout *layout, const struct model *donor)
{
    for (size_t i = 0; i < donor->n_files; i++) {
        struct vfile *file;
        if (has_file(layout, donor->files[i].path))
            continue;
        file = add_file(layout, donor->files[i].path, VFILE_SOURCE);
        if (!file)
            return -ENOMEM;
        file->source = donor->files[i].source;
        file->size = file->source->size;
    }
    return 0;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct vfile *)a)->path, ((const struct vfile *)b)->path);
}

static int fill(struct layout *layout, const struct plan *plan, const char *recipe, const char *name,
                uint64_t shard_bytes, struct err *err)
{
    int status = place_tensors(layout, plan, shard_bytes, err);

    if (status == 0)
        status = add_text(layout, "config.json", jsontree_print(plan->config));
    if (status == 0)
        status = add_text(layout, "README.md", card_render(plan, name));
    if (status == 0)
        status = add_text(layout, "mergekit_config.yml", strdup(recipe));
    return status ? status : add_side_files(layout, plan->donor);
}

int layout_build(const struct plan *plan, const char *recipe, const char *name, uint64_t shard_bytes,
                 struct layout **out, struct err *err)
{
    struct layout *layout = calloc(1, sizeof(*layout));
    int status;

    *out = NULL;
    if (!layout)
        return err_set(err, -ENOMEM, "out of memory for the layout");
    status = fill(layout, plan, recipe, name, shard_bytes, err);
    if (status) {
        layout_free(layout);
        return status == -ENOMEM ? err_set(err, status, "out of memory for the layout") : status;
    }
    qsort(layout->files, layout->n_files, sizeof(*layout->files), by_path);
    for (size_t i = 0; i < layout->n_files; i++)
        layout->bytes_served += layout->files[i].size;
    *out = layout;
    return 0;
}

void layout_free(struct layout *layout)
{
    if (!layout)
        return;
    arena_fini(&layout->arena);
    free(layout);
}

size_t layout_find(const struct vfile *file, uint64_t off)
{
    size_t low = 0, high = file->n_tensors;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (file->begin[middle] + file->tensors[middle]->st.len <= off)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool tensor_stored(const struct plan_tensor *tensor, uint64_t skip, struct stored *out)
{
    const struct file_feed *feed =
        tensor->recipe.kind == RECIPE_COPY ? feed_file(tensor->recipe.inputs[0]) : NULL;

    if (!feed)
        return false;
    *out = (struct stored){feed->source, feed->off + skip, tensor->st.len - skip};
    return true;
}

bool layout_stored(const struct vfile *file, uint64_t off, struct stored *out)
{
    size_t i;

    if (off >= file->size)
        return false;
    if (file->kind == VFILE_SOURCE) {
        *out = (struct stored){file->source, off, file->size - off};
        return true;
    }
    if (file->kind != VFILE_SHARD || off < file->bytes_len)
        return false;
    i = layout_find(file, off);
    return tensor_stored(file->tensors[i], off - file->begin[i], out);
}
