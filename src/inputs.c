#include "inputs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fp8.h"
#include "meet.h"
#include "text.h"

/* Are the last components of the name these? */
static bool ends_in(const char *name, const char *components)
{
    size_t before = strlen(name) - strlen(components);

    return ends_with(name, components) && (before == 0 || name[before - 1] == '.');
}

bool is_head(const char *name)
{
    return ends_in(name, "lm_head.weight") || ends_in(name, "embed_out.weight");
}

static bool is_embedding(const char *name)
{
    return ends_in(name, "embed_tokens.weight") || ends_in(name, "wte.weight") ||
           ends_in(name, "word_embeddings.weight") || ends_in(name, "embed_in.weight") ||
           ends_in(name, "shared.weight");
}

bool has_vocabulary(const char *name)
{
    return is_head(name) || ends_in(name, "lm_head.bias") || is_embedding(name);
}

int input_init_names(struct arena *arena, struct input_model *input)
{
    for (size_t i = 0; i < input->n_names && !input->embedding; i++) {
        if (is_embedding(input->names[i]))
            input->embedding = input->names[i];
    }
    return layers_find(arena, input->names, input->n_names, input->config, &input->layers);
}

/* Scales of weights, and with them those of activations, say nothing about the weights they become. */
static bool is_scale(const struct model *model, const char *name)
{
    static const char *const tails[] = {"input_scale", "output_scale", "activation_scale",
                                        "q_scale",     "k_scale",      "v_scale"};
    bool found = model->n_scaled && model_is_scale(model, name);

    for (size_t i = 0; model->n_scaled && !found && i < sizeof(tails) / sizeof(tails[0]); i++)
        found = ends_in(name, tails[i]);
    return found;
}

int input_init(struct arena *arena, struct input_model *input)
{
    size_t n = input->disk ? input->disk->n_tensors : input->stage->n_tensors;

    input->config = input->disk ? input->disk->config : input->stage->config;
    input->names = arena_alloc(arena, n + 1, sizeof(*input->names));
    input->places = arena_alloc(arena, n + 1, sizeof(*input->places));
    if (!input->names || !input->places)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const char *name = input->disk ? input->disk->tensors[i].st.name : input->stage->tensors[i].st.name;
        if (input->disk && is_scale(input->disk, name))
            continue;
        input->places[input->n_names] = i;
        input->names[input->n_names++] = name;
    }
    return input_init_names(arena, input);
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

bool input_has(const struct input_model *input, const char *name)
{
    size_t i = input_lower_bound(input, name);

    return i < input->n_names && strcmp(input->names[i], name) == 0;
}

static void describe(struct input_tensor *tensor, const struct st_tensor *st)
{
    *tensor = (struct input_tensor){.name = st->name,
                                    .shown = st->name,
                                    .dtype = st->dtype,
                                    .ndim = st->ndim,
                                    .n = st->n,
                                    .shape = st->shape};
}

static int take_from_stage(struct arena *arena, const struct plan_tensor *found, struct input_tensor *tensor)
{
    struct recipe_feed *feed = arena_alloc(arena, 1, sizeof(*feed));

    if (!feed)
        return -ENOMEM;
    recipe_feed_init(feed, &found->recipe);
    describe(tensor, &found->st);
    tensor->feed = &feed->feed;
    return 1;
}

static int take_from_disk(struct arena *arena, const struct model *model, const struct model_tensor *found,
                          struct input_tensor *tensor)
{
    struct fp8_feed *feed;

    describe(tensor, &found->st);
    tensor->feed = &found->feed.feed;
    tensor->file = found->feed.source->path;
    if (model->n_scaled == 0 || !fp8_is(tensor->dtype))
        return 1;
    feed = arena_alloc(arena, 1, sizeof(*feed));
    if (!feed)
        return -ENOMEM;
    if (model_scaled(model, found, feed, NULL) == 1) {
        tensor->feed = &feed->feed;
        tensor->dtype = feed->feed.dtype;
    }
    return 1;
}

/* Index of the name, n_names if there is none; *hint is where it may be, and then where it is. */
static size_t locate(const struct input_model *input, const char *name, size_t *hint)
{
    size_t i = *hint;

    if (i >= input->n_names || strcmp(input->names[i], name) != 0)
        i = input_lower_bound(input, name);
    if (i == input->n_names || strcmp(input->names[i], name) != 0)
        return input->n_names;
    *hint = i;
    return i;
}

static int find(struct arena *arena, const struct input_model *input, const char *name, size_t *hint,
                struct input_tensor *tensor)
{
    size_t i = locate(input, name, hint);

    if (i == input->n_names)
        return 0;
    if (input->met)
        return met_find(arena, input->of, &input->met[i], tensor);
    if (input->disk)
        return take_from_disk(arena, input->disk, &input->disk->tensors[input->places[i]], tensor);
    return take_from_stage(arena, &input->stage->tensors[input->places[i]], tensor);
}

int input_find(struct arena *arena, const struct input_model *input, const char *name,
               struct input_tensor *tensor)
{
    size_t hint = 0;

    return find(arena, input, name, &hint, tensor);
}

int input_find_tied(struct arena *arena, const struct input_model *input, const char *name, size_t *hint,
                    struct input_tensor *tensor)
{
    int found = find(arena, input, name, hint, tensor);

    if (found == 0 && is_head(name) && input->embedding)
        found = input_find(arena, input, input->embedding, tensor);
    return found;
}
