#include "recipe_key.h"

#include <math.h>
#include <string.h>

static void add_values(struct digest *digest, const struct method *method, const double *values,
                       bool stats_only)
{
    for (unsigned p = 0; p < method->n_params; p++) {
        double value = isnan(values[p]) ? (double)NAN : values[p]; /* of one sign */
        if (!stats_only || method->params[p].in_stats)
            digest_add(digest, &value, sizeof(value));
    }
}

static void add_method(struct digest *digest, const struct merge *merge, bool stats_only)
{
    const struct method *method = merge->method;

    digest_number(digest, merge->seed);
    add_values(digest, method, merge->shared, stats_only);
    for (unsigned i = 0; method->n_params > 0 && i < merge->n_inputs; i++)
        add_values(digest, method, merge->per_input + i * method->n_params, stats_only);
}

static void add_inputs(struct digest *digest, const struct recipe *recipe);

static void add_feed(struct digest *digest, const struct feed *feed)
{
    const struct recipe *stage = feed_recipe(feed);

    digest_number(digest, feed->dtype);
    digest_number(digest, feed->n);
    if (stage) {
        digest_number(digest, stage->kind);
        add_inputs(digest, stage);
        if (stage->kind == RECIPE_MERGE)
            add_method(digest, &stage->merge, false);
        return;
    }
    feed->identify(feed, digest);
    for (size_t i = 0; i < feed->n_parts; i++)
        add_feed(digest, feed->parts[i]);
}

static void add_inputs(struct digest *digest, const struct recipe *recipe)
{
    const struct merge *merge = &recipe->merge;

    if (recipe->kind == RECIPE_MERGE)
        digest_add(digest, merge->method->name, strlen(merge->method->name));
    digest_number(digest, merge->work);
    digest_number(digest, (uint64_t)merge->base);
    digest_number(digest, merge->n);
    digest_add(digest, merge->shape, merge->ndim * sizeof(merge->shape[0]));
    digest_number(digest, recipe->n_inputs);
    for (unsigned i = 0; i < recipe->n_inputs; i++)
        add_feed(digest, recipe->inputs[i]);
}

struct digest recipe_inputs_key(const struct recipe *recipe)
{
    struct digest digest = {0};

    add_inputs(&digest, recipe);
    return digest;
}

struct digest recipe_stats_key(const struct recipe *recipe)
{
    struct digest digest = recipe_inputs_key(recipe);

    add_method(&digest, &recipe->merge, true);
    return digest;
}
