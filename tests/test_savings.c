#include "savings.h"

#include <errno.h>

#include "scratch_dir.h"

static struct digest key_of(uint64_t number)
{
    return (struct digest){number, ~number};
}

static bool has(struct savings *savings, uint64_t number, const char *text)
{
    size_t len = 0;
    char *data = savings_get(savings, key_of(number), &len);
    bool same = data && len == strlen(text) && memcmp(data, text, len) == 0;

    free(data);
    return same;
}

static void put(struct savings *savings, uint64_t number, const char *text)
{
    savings_put(savings, key_of(number), text, strlen(text));
}

static void test_round_trip(void **state)
{
    struct savings *savings = savings_new(1 << 20, NULL);

    (void)state;
    put(savings, 1, "one");
    put(savings, 1 + ((uint64_t)1 << 40), "of the same bucket");
    put(savings, 2, "");
    assert_true(has(savings, 1, "one"));
    assert_true(has(savings, 1 + ((uint64_t)1 << 40), "of the same bucket"));
    assert_true(has(savings, 2, ""));
    assert_false(has(savings, 3, ""));
    savings_free(savings);
    savings_free(NULL);
}

/* Memory stays within its bound; what was used last stays longest; what is too large for it is not kept. */
static void test_bound(void **state)
{
    static char large[3000];
    struct savings *savings = savings_new(2000, NULL);

    (void)state;
    memset(large, 'x', sizeof(large) - 1);
    for (uint64_t i = 0; i < 100; i++) {
        put(savings, i, "some hundred bytes, most of which are the entry's own");
        assert_true(has(savings, 0, "some hundred bytes, most of which are the entry's own"));
        assert_true(savings_bytes(savings) <= 2000);
    }
    assert_false(has(savings, 50, "some hundred bytes, most of which are the entry's own"));
    put(savings, 1000, large);
    assert_false(has(savings, 1000, large));
    savings_free(savings);
}

/* What memory has no room for, or has forgotten, is found on disk, as long as it is there. */
static void test_disk(void **state)
{
    struct stat_store *store;
    struct savings *savings;
    struct err err;

    (void)state;
    assert_int_equal(stat_store_open(scratch_path("store"), STAT_STORE_BYTES, &store, &err), 0);
    savings = savings_new(200, store);
    for (uint64_t i = 0; i < 10; i++)
        put(savings, i, "text");
    savings_free(savings);
    savings = savings_new(0, store);
    for (uint64_t i = 0; i < 10; i++)
        assert_true(has(savings, i, "text"));
    assert_false(has(savings, 10, "text"));
    assert_int_equal(savings_bytes(savings), 0);
    savings_free(savings);
    stat_store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_disk),
    };

    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
