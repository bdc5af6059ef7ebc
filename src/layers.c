#include "layers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const COUNT_KEYS[] = {
    "num_hidden_layers", "n_layer",        "n_layers",           "num_layers",        "num_decoder_layers",
    "decoder_layers",    "encoder_layers", "num_encoder_layers", "num_hidden_blocks", "depth",
};

/* No model has nearly as many; a hostile header could, and each name is compared with all. */
enum { STACKS_MAX = 256 };

/* The next `.NUMBER.` at or after `at`: where the number starts; its value and end. NULL if there is none. */
static const char *next_number(const char *at, uint64_t *value, const char **end)
{
    for (at = strchr(at, '.'); at; at = strchr(at + 1, '.')) {
        size_t digits = strspn(at + 1, "0123456789");
        if (digits == 0 || digits > 9 || at[1 + digits] != '.')
            continue;
        *value = strtoull(at + 1, NULL, 10);
        *end = at + 1 + digits;
        return at + 1;
    }
    return NULL;
}

static bool is_stack(const struct stack *stack, const char *name, size_t len)
{
    return strlen(stack->prefix) == len && memcmp(stack->prefix, name, len) == 0;
}

/* Note that layer `number` of the stack name[0..len) exists. Names come sorted, so the last ones are likely.
 */
static int note(struct arena *arena, struct layers *all, const char *name, size_t len, uint64_t number)
{
    struct stack *stack;

    for (size_t i = all->n; i-- > 0;) {
        stack = &all->stacks[i];
        if (!is_stack(stack, name, len))
            continue;
        stack->count = stack->count > number ? stack->count : number + 1;
        return 0;
    }
    if (all->n == STACKS_MAX)
        return 0;
    stack = arena_push(arena, &all->stacks, &all->n, sizeof(*stack));
    if (!stack)
        return -ENOMEM;
    stack->count = number + 1;
    stack->prefix = arena_strndup(arena, name, len);
    return stack->prefix ? 0 : -ENOMEM;
}

static cJSON *count_in(cJSON *object, uint64_t count)
{
    for (size_t i = 0; i < sizeof(COUNT_KEYS) / sizeof(COUNT_KEYS[0]); i++) {
        cJSON *item = cJSON_GetObjectItemCaseSensitive(object, COUNT_KEYS[i]);
        if (cJSON_IsNumber(item) && item->valuedouble == (double)count)
            return item;
    }
    return NULL;
}

cJSON *layers_config(cJSON *config, uint64_t count)
{
    cJSON *found = count_in(config, count), *item;

    cJSON_ArrayForEach(item, config)
    {
        if (!found && cJSON_IsObject(item))
            found = count_in(item, count);
    }
    return found;
}

static int by_prefix(const void *a, const void *b)
{
    return strcmp(((const struct stack *)a)->prefix, ((const struct stack *)b)->prefix);
}

int layers_find(struct arena *arena, const char *const *names, size_t n, const cJSON *config,
                struct layers *layers)
{
    struct layers all = {0};
    size_t most = 0;

    *layers = (struct layers){0};
    for (size_t i = 0; i < n; i++) {
        uint64_t number;
        const char *end, *at = next_number(names[i], &number, &end);
        /* Only the outermost number: experts within a layer are numbered too, in thousands of stacks. */
        if (at && note(arena, &all, names[i], (size_t)(at - names[i]), number))
            return -ENOMEM;
    }
    for (size_t i = 0; i < all.n; i++) {
        most = all.stacks[i].count > all.stacks[most].count ? i : most;
        /* layers_config only looks when it is not asked to change anything */
        if (!layers_config((cJSON *)(uintptr_t)config, all.stacks[i].count))
            continue;
        struct stack *stack = arena_push(arena, &layers->stacks, &layers->n, sizeof(*stack));
        if (!stack)
            return -ENOMEM;
        *stack = all.stacks[i];
    }
    if (layers->n == 0 && all.n > 0)
        *layers = (struct layers){1, &all.stacks[most]};
    if (layers->n)
        qsort(layers->stacks, layers->n, sizeof(*layers->stacks), by_prefix);
    return 0;
}

bool layers_split(const struct layers *layers, const char *name, const struct stack **stack, uint64_t *layer,
                  const char **rest)
{
    const char *end, *at = next_number(name, layer, &end);

    for (size_t i = 0; at && i < layers->n; i++) {
        if (!is_stack(&layers->stacks[i], name, (size_t)(at - name)))
            continue;
        *stack = &layers->stacks[i];
        *rest = end + 1;
        return true;
    }
    return false;
}
