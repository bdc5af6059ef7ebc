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

/* A stack while it is not known whether it is one of layers. */
struct candidate {
    struct stack stack;
    uint64_t n_names;
    cJSON *stated; /* the number that counts it */
};

struct candidates {
    size_t n;
    struct candidate *list;
};

static bool is_stack(const struct stack *stack, const char *name, size_t len)
{
    return strlen(stack->prefix) == len && memcmp(stack->prefix, name, len) == 0;
}

/* Note that layer `number` of the stack name[0..len) exists. Names come sorted, so the last ones are likely.
 */
static int note(struct arena *arena, struct candidates *all, const char *name, size_t len, uint64_t number)
{
    struct candidate *added;

    for (size_t i = all->n; i-- > 0;) {
        struct stack *stack = &all->list[i].stack;
        if (!is_stack(stack, name, len))
            continue;
        stack->count = stack->count > number ? stack->count : number + 1;
        all->list[i].n_names++;
        return 0;
    }
    if (all->n == STACKS_MAX)
        return 0;
    added = arena_push(arena, &all->list, &all->n, sizeof(*added));
    if (!added)
        return -ENOMEM;
    *added = (struct candidate){.stack = {arena_strndup(arena, name, len), number + 1}, .n_names = 1};
    return added->stack.prefix ? 0 : -ENOMEM;
}

/* Words by which parts of a model are told apart, in configs and in names. */
static const char *const PARTS[] = {"vis", "audio", "encoder", "decoder"};
enum { N_TOWERS = 2, N_PARTS = sizeof(PARTS) / sizeof(PARTS[0]) };

bool layers_section_fits(const char *section, const char *prefix)
{
    bool tower = strstr(prefix, PARTS[0]) || strstr(prefix, PARTS[1]);

    for (int i = 0; section && i < N_TOWERS; i++) {
        if (!strstr(section, PARTS[i]) != !strstr(prefix, PARTS[i]))
            return false;
    }
    for (int i = N_TOWERS; section && !tower && i < N_PARTS; i++) {
        if (strstr(section, PARTS[i]) && !strstr(prefix, PARTS[i]))
            return false;
    }
    return true;
}

/* How likely a number called `key` counts the stack: -1 not, else more is better. */
static int likelihood(const char *section, const char *key, const char *prefix)
{
    bool tower = strstr(prefix, PARTS[0]) || strstr(prefix, PARTS[1]);
    int score = section ? 1 : tower ? 0 : 2;

    if (!layers_section_fits(section, prefix))
        return -1;
    for (int i = N_TOWERS; i < N_PARTS; i++) {
        const char *other = PARTS[i == N_TOWERS ? N_TOWERS + 1 : N_TOWERS];
        if (!strstr(key, PARTS[i]))
            continue;
        if (strstr(prefix, other) && !strstr(prefix, PARTS[i]))
            return -1;
        score += strstr(prefix, PARTS[i]) ? 4 : 0;
    }
    return score;
}

/* The likeliest number in `object`, if it is likelier than *best. */
static cJSON *count_in(cJSON *object, const char *section, const char *prefix, uint64_t count, int *best)
{
    cJSON *found = NULL;

    for (size_t i = 0; i < sizeof(COUNT_KEYS) / sizeof(COUNT_KEYS[0]); i++) {
        cJSON *item = cJSON_GetObjectItemCaseSensitive(object, COUNT_KEYS[i]);
        int score = likelihood(section, COUNT_KEYS[i], prefix);
        if (!cJSON_IsNumber(item) || item->valuedouble != (double)count || score <= *best)
            continue;
        *best = score;
        found = item;
    }
    return found;
}

cJSON *layers_config(cJSON *config, const char *prefix, uint64_t count)
{
    int best = -1;
    cJSON *found = count_in(config, NULL, prefix, count, &best), *item;

    cJSON_ArrayForEach(item, config)
    {
        cJSON *better = cJSON_IsObject(item) ? count_in(item, item->string, prefix, count, &best) : NULL;
        found = better ? better : found;
    }
    return found;
}

static int by_prefix(const void *a, const void *b)
{
    return strcmp(((const struct stack *)a)->prefix, ((const struct stack *)b)->prefix);
}

static bool is_side(const char *prefix)
{
    return strstr(prefix, "encoder") || strstr(prefix, "decoder");
}

/* Is a larger stack counted by the same number? An encoder and a decoder may share one. */
static bool is_outdone(const struct candidates *all, size_t k)
{
    const struct candidate *self = &all->list[k];

    for (size_t i = 0; i < all->n; i++) {
        const struct candidate *other = &all->list[i];
        if (i != k && other->stated == self->stated &&
            !(is_side(other->stack.prefix) && is_side(self->stack.prefix)) &&
            (other->n_names > self->n_names || (other->n_names == self->n_names && i < k)))
            return true;
    }
    return false;
}

static int keep(struct arena *arena, struct layers *layers, const struct stack *stack)
{
    struct stack *kept = arena_push(arena, &layers->stacks, &layers->n, sizeof(*kept));

    if (!kept)
        return -ENOMEM;
    *kept = *stack;
    return 0;
}

static int list_candidates(struct arena *arena, const char *const *names, size_t n, const cJSON *config,
                           struct candidates *all)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t number;
        const char *end, *at = next_number(names[i], &number, &end);
        /* Only the outermost number: experts within a layer are numbered too, in thousands of stacks. */
        if (at && note(arena, all, names[i], (size_t)(at - names[i]), number))
            return -ENOMEM;
    }
    /* layers_config only looks when it is not asked to change anything */
    for (size_t i = 0; i < all->n; i++)
        all->list[i].stated =
            layers_config((cJSON *)(uintptr_t)config, all->list[i].stack.prefix, all->list[i].stack.count);
    return 0;
}

int layers_find(struct arena *arena, const char *const *names, size_t n, const cJSON *config,
                struct layers *layers)
{
    struct candidates all = {0};
    size_t most = 0;
    int status = list_candidates(arena, names, n, config, &all);

    *layers = (struct layers){0};
    for (size_t i = 0; i < all.n && status == 0; i++) {
        most = all.list[i].stack.count > all.list[most].stack.count ? i : most;
        if (all.list[i].stated && !is_outdone(&all, i))
            status = keep(arena, layers, &all.list[i].stack);
    }
    if (status == 0 && layers->n == 0 && all.n > 0)
        status = keep(arena, layers, &all.list[most].stack);
    if (layers->n)
        qsort(layers->stacks, layers->n, sizeof(*layers->stacks), by_prefix);
    return status;
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
