#include "arena.h"

#include <stdint.h>

#include "scratch_dir.h"

#include "fail_alloc.h"

static void test_alloc(void **state)
{
    static const size_t sizes[] = {0, 1, 15, 16, 17, 1000, 16384, 16385, 70000, 1, 65536};
    struct arena arena = {0};
    char *parts[sizeof(sizes) / sizeof(*sizes)];

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        parts[i] = arena_alloc(&arena, 1, sizes[i]);
        assert_non_null(parts[i]);
        assert_int_equal((uintptr_t)parts[i] % 16, 0);
        for (size_t k = 0; k < sizes[i]; k++)
            assert_int_equal(parts[i][k], 0);
        memset(parts[i], (int)i + 1, sizes[i]);
    }
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
        for (size_t k = 0; k < sizes[i]; k++)
            assert_int_equal(parts[i][k], i + 1);
    arena_fini(&arena);
    assert_null(arena.head);
}

static void test_overflow(void **state)
{
    struct arena arena = {0};

    (void)state;
    assert_null(arena_alloc(&arena, SIZE_MAX, 2));
    assert_null(arena_alloc(&arena, SIZE_MAX / 4, 8));
    assert_null(arena_alloc(&arena, 1, SIZE_MAX - 3));
    assert_null(arena.head);
}

static void test_text(void **state)
{
    struct arena arena = {0};

    (void)state;
    assert_string_equal(arena_strdup(&arena, "abc"), "abc");
    assert_string_equal(arena_strndup(&arena, "abcdef", 4), "abcd");
    assert_string_equal(arena_strndup(&arena, "", 0), "");
    assert_string_equal(arena_printf(&arena, "%s-%05d", "model", 42), "model-00042");
    arena_fini(&arena);
}

static void test_push(void **state)
{
    struct arena arena = {0};
    int *list = NULL;
    size_t n = 0;

    (void)state;
    for (int i = 0; i < 1000; i++) {
        int *last = arena_push(&arena, &list, &n, sizeof(*list));
        assert_non_null(last);
        assert_ptr_equal(last, list + i);
        assert_int_equal(*last, 0);
        *last = i;
    }
    assert_int_equal(n, 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(list[i], i);
    arena_fini(&arena);
}

static void test_no_memory(void **state)
{
    struct arena arena = {0};
    int *list = NULL;
    size_t n = 0;

    (void)state;
    *(int *)arena_push(&arena, &list, &n, sizeof(*list)) = 7;
    allocs_left = 0;
    assert_null(arena_alloc(&arena, 1, 70000));
    assert_null(arena_alloc(&arena, 3, 20000));
    assert_null(arena_printf(&arena, "%d", 1));
    assert_non_null(arena_push(&arena, &list, &n, sizeof(*list))); /* fits in the block */
    while (arena_alloc(&arena, 1, 4096))
        ;
    assert_null(arena_push(&arena, &list, &n, 16384));
    allocs_left = -1;
    assert_int_equal(n, 2);
    assert_int_equal(list[0], 7);
    assert_non_null(arena_alloc(&arena, 1, 70000));
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc), cmocka_unit_test(test_overflow),  cmocka_unit_test(test_text),
        cmocka_unit_test(test_push),  cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
