#include "layers.h"

#include "scratch_dir.h"

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static struct layers find(struct arena *arena, const char *const *names, size_t n, const char *config)
{
    cJSON *json = cJSON_Parse(config);
    struct layers layers;

    assert_non_null(json);
    assert_int_equal(layers_find(arena, names, n, json, &layers), 0);
    cJSON_Delete(json);
    return layers;
}

static void test_the_stack_that_the_config_counts(void **state)
{
    /* as many experts as layers is no trap, nor is a vision tower of another depth */
    static const char *const names[] = {
        "lm_head.weight",
        "model.layers.0.mlp.experts.0.w",
        "model.layers.0.mlp.experts.7.w",
        "model.layers.1.mlp.experts.0.w",
        "model.norm.weight",
        "visual.blocks.0.norm.weight",
        "visual.blocks.4.norm.weight",
    };
    struct arena arena = {0};
    struct layers layers = find(&arena, names, COUNT(names), "{\"num_hidden_layers\": 2}");
    const struct stack *stack;
    uint64_t layer;
    const char *rest;

    (void)state;
    assert_int_equal(layers.n, 1);
    assert_string_equal(layers.stacks[0].prefix, "model.layers.");
    assert_int_equal(layers.stacks[0].count, 2);
    assert_true(layers_split(&layers, names[2], &stack, &layer, &rest));
    assert_int_equal(layer, 0);
    assert_string_equal(rest, "mlp.experts.7.w");
    assert_false(layers_split(&layers, names[4], &stack, &layer, &rest));
    assert_false(layers_split(&layers, names[6], &stack, &layer, &rest));
    arena_fini(&arena);
}

static void test_nested_configs_and_two_stacks(void **state)
{
    static const char *const names[] = {
        "decoder.block.0.layer.0.q",
        "decoder.block.5.layer.1.q",
        "encoder.block.0.layer.0.q",
        "encoder.block.3.layer.0.q",
    };
    struct arena arena = {0};
    struct layers layers =
        find(&arena, names, COUNT(names), "{\"num_layers\": 4, \"text_config\": {\"num_hidden_layers\": 6}}");

    (void)state;
    assert_int_equal(layers.n, 2);
    assert_string_equal(layers.stacks[0].prefix, "decoder.block.");
    assert_int_equal(layers.stacks[0].count, 6);
    assert_int_equal(layers.stacks[1].count, 4);
    arena_fini(&arena);
}

static void test_without_a_count_the_longest_stack(void **state)
{
    static const char *const names[] = {"a.0.x.w",    "a.1.x.w",    "h.0.attn.w",
                                        "h.1.attn.w", "h.2.attn.w", "x.12345678901.y"};
    struct arena arena = {0};
    struct layers layers = find(&arena, names, COUNT(names), "{}");

    (void)state;
    assert_int_equal(layers.n, 1);
    assert_string_equal(layers.stacks[0].prefix, "h.");
    assert_int_equal(layers.stacks[0].count, 3);
    layers = find(&arena, names, 0, "{\"num_hidden_layers\": 2}");
    assert_int_equal(layers.n, 0);
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_stack_that_the_config_counts),
        cmocka_unit_test(test_nested_configs_and_two_stacks),
        cmocka_unit_test(test_without_a_count_the_longest_stack),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
