#include "models.h"

#include "fixture.h"
#include "side_files.h"

#include <errno.h>
#include <unistd.h>

enum { MANY = SIDE_MAX + 1 };

static int setup(void **state)
{
    struct put_tensor tensor = {"a.weight", DTYPE_BF16, 1, {33}, 1};

    if (scratch_setup(state))
        return -1;
    put_shard("m/model.safetensors", &tensor, 1);
    put_text("m/config.json", "{}");
    put_text("m/tokenizer.json", "{}");
    return 0;
}

static struct model *open_one(struct models *models, const char *name)
{
    struct model *model;
    struct err err = {""};

    if (models_open(models, scratch_path("m"), name, false, &model, &err))
        fail_msg("%s", err.text);
    assert_int_equal(model_list_files(model, &err), 0);
    return model;
}

/* What is open and unchanged is shared, under one name; what nobody has is closed by a sweep. */
static void test_sharing(void **state)
{
    struct models *models = models_new();
    struct model *a = open_one(models, "m"), *b = open_one(models, "m"), *c = open_one(models, "other");

    (void)state;
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, c);
    assert_string_equal(c->name, "other");
    model_free(b);
    models_sweep(models);
    assert_ptr_equal(a, b = open_one(models, "m"));
    model_free(a);
    model_free(b);
    models_sweep(models);
    models_free(models);
    assert_non_null(model_tensor(c, "a.weight")); /* who has a model keeps it */
    model_free(c);
    models_free(NULL);
    models_sweep(NULL);
}

/* `change` makes it another model for who opens it next, and leaves the one that is open. */
static void changed_by(void (*change)(void))
{
    struct models *models = models_new();
    struct model *before = open_one(models, "m"), *after;

    change();
    after = open_one(models, "m");
    assert_ptr_not_equal(before, after);
    assert_ptr_equal(after, before = (model_free(before), open_one(models, "m")));
    model_free(before);
    model_free(after);
    models_free(models);
}

static void change_config(void)
{
    put_text("m/config.json", "{\"a\": 1}");
}

static void change_weights(void)
{
    struct put_tensor tensor = {"b.weight", DTYPE_BF16, 1, {33}, 1};

    put_shard("m/model.safetensors", &tensor, 1);
}

static void change_side_file(void)
{
    put_text("m/tokenizer.json", "{\"a\": 2}");
}

static void add_side_file(void)
{
    put_text("m/vocab.json", "{}");
}

static void remove_side_file(void)
{
    assert_int_equal(unlink(scratch_path("m/vocab.json")), 0);
}

static void test_changes(void **state)
{
    (void)state;
    changed_by(change_config);
    changed_by(change_weights);
    changed_by(change_side_file);
    changed_by(add_side_file);
    changed_by(remove_side_file);
}

/* More side files than a model may have; false: no more. */
static void put_many(bool there)
{
    char name[32];

    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof(name), "m/%d.json", i);
        if (there)
            put_text(name, "{}");
        else
            unlink(scratch_path(name));
    }
}

/* Side files of a model that others have can be asked for again and again. */
static void test_listing_that_fails(void **state)
{
    struct models *models = models_new();
    struct model *model;
    struct err err;
    size_t before;

    (void)state;
    put_many(true);
    assert_int_equal(models_open(models, scratch_path("m"), "m", false, &model, &err), 0);
    before = scratch_descriptors();
    for (int i = 0; i < 3; i++) {
        assert_int_not_equal(model_list_files(model, &err), 0);
        assert_int_equal(model->n_files, 0);
        assert_int_equal(scratch_descriptors(), before);
    }
    put_many(false);
    assert_int_equal(model_list_files(model, &err), 0);
    assert_int_equal(model->n_files, 1);
    model_free(model);
    models_free(models);
}

static void test_failure(void **state)
{
    struct models *models = models_new();
    struct model *model;
    struct err err;

    (void)state;
    assert_int_equal(models_open(models, scratch_path("none"), "none", false, &model, &err), -ENOENT);
    assert_null(model);
    models_free(models);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sharing),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_listing_that_fails),
        cmocka_unit_test(test_failure),
    };

    return cmocka_run_group_tests(tests, setup, scratch_teardown);
}
