#include "inputs.h"

#include <errno.h>
#include <string.h>

static bool ends_with(const char *name, const char *tail)
{
    size_t len = strlen(name), tail_len = strlen(tail);

    return len >= tail_len && strcmp(name + len - tail_len, tail) == 0 &&
           (len == tail_len || name[len - tail_len - 1] == '.');
}

bool is_head(const char *name)
{
    return ends_with(name, "lm_head.weight") || ends_with(name, "embed_out.weight");
}

static bool is_embedding(const char *name)
{
    return ends_with(name, "embed_tokens.weight") || ends_with(name, "wte.weight") ||
           ends_with(name, "word_embeddings.weight") || ends_with(name, "embed_in.weight") ||
           ends_with(name, "shared.weight");
}

int input_init(struct arena *arena, struct input_model *input)
{
    input->n_names = input->disk ? input->disk->n_tensors : input->stage->n_tensors;
    input->config = input->disk ? input->disk->config : input->stage->config;
    input->names = arena_alloc(arena, input->n_names + 1, sizeof(*input->names));
    if (!input->names)
        return -ENOMEM;
    for (size_t i = 0; i < input->n_names; i++) {
        input->names[i] = input->disk ? input->disk->tensors[i].st.name : input->stage->tensors[i].st.name;
        if (!input->embedding && is_embedding(input->names[i]))
            input->embedding = input->names[i];
    }
    return layers_find(arena, input->names, input->n_names, input->config, &input->layers);
}

size_t input_lower_bound(const struct input_model *input, const char *prefix)
{
    size_t low = 0, high = input->n_names;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(input->names[middle], prefix) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int stage_view(struct arena *arena, const struct plan_tensor *tensor, struct view *view)
{
    struct recipe_feed *feed = arena_alloc(arena, 1, sizeof(*feed));

    if (!feed)
        return -ENOMEM;
    recipe_feed_init(feed, &tensor->recipe);
    view->feed = &feed->feed;
    return 1;
}

int input_view(struct arena *arena, const struct input_model *input, const char *name, struct view *view)
{
    size_t i = input_lower_bound(input, name);
    const struct st_tensor *st;

    if (i == input->n_names || strcmp(input->names[i], name) != 0)
        return 0;
    st = input->disk ? &input->disk->tensors[i].st : &input->stage->tensors[i].st;
    *view =
        (struct view){.name = st->name, .dtype = st->dtype, .ndim = st->ndim, .n = st->n, .shape = st->shape};
    if (input->stage)
        return stage_view(arena, &input->stage->tensors[i], view);
    view->feed = &input->disk->tensors[i].feed.feed;
    view->file = input->disk->tensors[i].feed.source->path;
    return 1;
}

int input_view_tied(struct arena *arena, const struct input_model *input, const char *name, struct view *view)
{
    int found = input_view(arena, input, name, view);

    if (found == 0 && is_head(name) && input->embedding)
        found = input_view(arena, input, input->embedding, view);
    return found;
}
