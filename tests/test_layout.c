#include "layout.h"

#include "fixture.h"

#include <errno.h>

#include "fail_alloc.h"

static struct config *config;
static struct plan_set *set;

static int plan(void **state)
{
    static const char text[] =
        "merge_method: linear\nparameters: {weight: 1}\nmodels:\n- model: a\n- model: b\n";
    struct report report = {0};
    struct model_search search = {.hub = "/nonexistent"};

    if (scratch_setup(state))
        return -1;
    search.yaml_dir = scratch_dir;
    put_model((struct put_model){.dir = "a", .dtype = DTYPE_BF16, .seed = 1, .layers = 3});
    put_model((struct put_model){.dir = "b", .dtype = DTYPE_BF16, .seed = 2, .layers = 3});
    put_text("a/tokenizer.json", "{\"tokens\": 1}");
    put_text("a/1_Pooling/config.json", "{}");
    put_text("a/README.md", "---\nlanguage: en\nlicense: apache-2.0\n---\n# A\n");
    put_text("b/README.md", "---\nlicense: apache-2.0\n---\n");
    if (config_parse("m.yml", text, strlen(text), NULL, &config, &report) ||
        plan_build(config, &search, 0, &set, &report)) {
        print_error("%s\n", report.n ? report.problems[0].text : "?");
        return -1;
    }
    report_fini(&report);
    return 0;
}

static int drop(void **state)
{
    plan_free(set);
    config_free(config);
    return scratch_teardown(state);
}

static struct layout *lay(uint64_t shard_bytes)
{
    struct layout *layout;
    struct err err = {{0}};
    int status = layout_build(set->plans[0], config->text, "name", shard_bytes, &layout, &err);

    if (status)
        print_error("%s\n", err.text);
    assert_int_equal(status, 0);
    return layout;
}

static const struct vfile *file(const struct layout *layout, const char *path)
{
    for (size_t i = 0; i < layout->n_files; i++) {
        if (strcmp(layout->files[i].path, path) == 0)
            return &layout->files[i];
    }
    fail_msg("no file %s", path);
    return NULL;
}

static void test_one_shard(void **state)
{
    struct layout *layout = lay(SHARD_BYTES);
    const struct vfile *model = file(layout, "model.safetensors");
    uint64_t total = 0;

    (void)state;
    assert_int_equal(layout->n_files, 6);
    for (size_t i = 1; i < layout->n_files; i++)
        assert_true(strcmp(layout->files[i - 1].path, layout->files[i].path) < 0);
    assert_int_equal(model->bytes_len % 4096, 0);
    assert_string_equal(model->tensors[0]->st.name, "lm_head.weight");
    for (size_t i = 0; i < model->n_tensors; i++) {
        assert_int_equal(model->begin[i], model->bytes_len + total);
        assert_int_equal(layout_find(model, model->begin[i]), i);
        total += model->tensors[i]->st.len;
        assert_int_equal(layout_find(model, model->bytes_len + total - 1), i);
    }
    assert_int_equal(model->size, model->bytes_len + total);
    assert_int_equal(layout_find(model, model->size), model->n_tensors);
    assert_int_equal(layout_find(model, 0), 0);
    assert_int_equal(file(layout, "tokenizer.json")->kind, VFILE_SOURCE);
    assert_int_equal(file(layout, "1_Pooling/config.json")->size, 2);
    assert_string_equal(file(layout, "mergekit_config.yml")->bytes, config->text);
    layout_free(layout);
}

static void test_shards_and_index(void **state)
{
    struct layout *layout = lay(100); /* an embedding is 80 bytes, a projection 48 or 32 */
    const struct vfile *index = file(layout, "model.safetensors.index.json");
    cJSON *json = cJSON_Parse(index->bytes);
    const cJSON *map = cJSON_GetObjectItem(json, "weight_map");
    size_t n_shards = 0, n_tensors = 0;
    uint64_t data = 0;

    (void)state;
    for (size_t i = 0; i < layout->n_files; i++) {
        const struct vfile *shard = &layout->files[i];
        if (shard->kind != VFILE_SHARD)
            continue;
        n_shards++;
        assert_true(shard->n_tensors == 1 || shard->size - shard->bytes_len <= 100);
        data += shard->size - shard->bytes_len;
        for (size_t k = 0; k < shard->n_tensors; k++, n_tensors++) {
            const cJSON *entry = cJSON_GetObjectItem(map, shard->tensors[k]->st.name);
            assert_non_null(entry);
            assert_string_equal(entry->valuestring, shard->path);
        }
    }
    assert_int_equal(n_tensors, 9);
    assert_int_equal(cJSON_GetArraySize(map), 9);
    assert_int_equal(n_shards, 5);
    file(layout, "model-00001-of-00005.safetensors");
    assert_true(cJSON_GetObjectItem(cJSON_GetObjectItem(json, "metadata"), "total_size")->valuedouble ==
                (double)data);
    cJSON_Delete(json);
    layout_free(layout);
}

static void test_the_card(void **state)
{
    struct layout *layout = lay(SHARD_BYTES);
    const char *card = file(layout, "README.md")->bytes;

    (void)state;
    assert_says(card, "---\nbase_model:\n- \"a\"\n- \"b\"\nbase_model_relation: merge\n");
    assert_says(card, "\nlicense: apache-2.0\n");
    assert_says(card, "# name\n");
    assert_null(strstr(card, scratch_dir));
    layout_free(layout);
    put_text("b/README.md", "---\nlicense: mit\n---\n");
    layout = lay(SHARD_BYTES);
    card = file(layout, "README.md")->bytes;
    assert_null(strstr(card, "\nlicense:"));
    assert_says(card, "do not all state the same licence");
    layout_free(layout);
    put_text("b/README.md", "no front matter\nlicense: mit\n");
    layout = lay(SHARD_BYTES);
    assert_says(file(layout, "README.md")->bytes, "do not all state the same licence");
    layout_free(layout);
}

static int lay_once(void)
{
    struct layout *layout;
    int status = layout_build(set->plans[0], config->text, "name", 100, &layout, NULL);

    layout_free(layout);
    return status;
}

static void test_every_allocation_refused(void **state)
{
    (void)state;
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = malloc, .free_fn = free}); /* the refusing one */
    assert_true(refuse_each_alloc(lay_once()) > 10);
    cJSON_InitHooks(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_shard),
        cmocka_unit_test(test_shards_and_index),
        cmocka_unit_test(test_the_card),
        cmocka_unit_test(test_every_allocation_refused),
    };

    return cmocka_run_group_tests(tests, plan, drop);
}
