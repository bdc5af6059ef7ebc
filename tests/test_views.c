#include "views.h"

#include "fail_alloc.h"
#include "scratch_dir.h"

#include <pthread.h>
#include <stdatomic.h>

#define MAX_IDLE 4

static struct {
    atomic_int released, crowded;
} seen;

static void release(void *arg, struct view *view)
{
    (void)arg, (void)view;
    seen.released++;
}

static void crowded(void *arg)
{
    (void)arg;
    seen.crowded++;
}

static struct views *new_views(void)
{
    struct views *views = views_new(MAX_IDLE, release, NULL, crowded, NULL);

    atomic_store(&seen.released, 0);
    atomic_store(&seen.crowded, 0);
    assert_non_null(views);
    return views;
}

static struct view *make(const char *key, uint64_t parent)
{
    struct view *view = calloc(1, sizeof(*view));

    if (view)
        *view = (struct view){.key = strdup(key), .path = strdup(key), .name = strdup(key), .parent = parent};
    return view;
}

static struct view *add(struct views *views, const char *key)
{
    struct view *view;

    assert_int_equal(views_add(views, make(key, VIEWS_ROOT_ID), &view), 0);
    return view;
}

/* As a lookup does: told to the kernel, then nobody's. */
static uint64_t look_up(struct views *views, const char *key)
{
    struct view *view = add(views, key);
    uint64_t slot = view->slot;

    views_known(views, view);
    views_put(views, view);
    return slot;
}

static void a_key_is_one_view(void **state)
{
    struct views *views = new_views();
    struct view *a = add(views, "a"), *again = add(views, "a"), *b = add(views, "b");

    (void)state;
    assert_ptr_equal(a, again);
    assert_ptr_not_equal(a, b);
    assert_int_equal(seen.released, 1); /* the second of that key */
    assert_ptr_equal(views_find(views, "a"), a);
    assert_ptr_equal(views_get(views, b->slot), b);
    assert_null(views_find(views, "c"));
    assert_null(views_get(views, 77));
    views_free(views);
    assert_int_equal(seen.released, 3);
}

static void ids_and_back(void **state)
{
    struct view view = {.slot = 12345}, root = {.slot = 7, .is_root = true};

    (void)state;
    assert_int_equal(views_slot(view_id(&view, 678)), 12345);
    assert_int_equal(views_node(view_id(&view, 678)), 678);
    assert_int_equal(views_node(view_id(&view, VIEWS_MAX_NODES - 1)), VIEWS_MAX_NODES - 1);
    assert_int_equal(view_id(&root, 0), VIEWS_ROOT_ID);
    assert_int_equal(views_slot(view_id(&root, 1)), 7);
    assert_int_equal(views_slot(VIEWS_ROOT_ID), 0);
    assert_int_equal(views_slot(0), 0);
}

static void lives_while_known_or_pinned(void **state)
{
    struct views *views = new_views();
    struct view *view = add(views, "a");
    uint64_t slot = view->slot;

    (void)state;
    views_known(views, view);
    views_known(views, view);
    views_forget(views, slot, 2);
    assert_int_equal(seen.released, 0); /* pinned */
    views_known(views, view);
    views_put(views, view);
    assert_int_equal(seen.released, 0); /* known */
    views_forget(views, slot, 100);     /* more than it was told */
    assert_int_equal(seen.released, 1);
    views_forget(views, slot, 1); /* of nobody */
    assert_int_equal(views_count(views).all, 0);
    views_free(views);
}

static void slots_are_never_given_twice(void **state)
{
    struct views *views = new_views();
    uint64_t first = look_up(views, "a"), second;

    (void)state;
    views_forget(views, first, 1);
    second = look_up(views, "a");
    assert_int_not_equal(first, second);
    views_free(views);
}

static void the_oldest_idle_ones_are_named(void **state)
{
    struct views *views = new_views();
    struct entry_list list = {0};
    uint64_t slots[8];
    struct view *view;

    (void)state;
    for (int i = 0; i < 6; i++)
        slots[i] = look_up(views, (const char[]){(char)('a' + i), '\0'});
    assert_true(seen.crowded > 0);
    view = views_get(views, slots[0]); /* used again: the youngest now */
    views_put(views, view);
    views_take_idle(views, &list);
    assert_int_equal(list.n, 2);
    assert_string_equal(list.entries[0].name, "b");
    assert_string_equal(list.entries[1].name, "c");
    assert_int_equal(list.entries[0].parent, VIEWS_ROOT_ID);
    entry_list_fini(&list);
    views_take_idle(views, &list);
    assert_int_equal(list.n, 0); /* not named again, though the kernel still knows them */
    view = views_get(views, slots[1]);
    views_put(views, view); /* until they are used */
    views_take_idle(views, &list);
    assert_int_equal(list.n, 1);
    assert_string_equal(list.entries[0].name, "d");
    entry_list_fini(&list);
    views_free(views);
}

static void pinned_ones_are_not_idle(void **state)
{
    struct views *views = new_views();
    struct entry_list list = {0};

    (void)state;
    for (int i = 0; i < 20; i++) {
        struct view *view = add(views, (const char[]){(char)('a' + i), '\0'});

        views_known(views, view);
    }
    views_take_idle(views, &list);
    assert_int_equal(list.n, 0);
    assert_int_equal(views_count(views).all, 20);
    assert_int_equal(views_count(views).idle, 0);
    views_free(views);
}

static void entries_of_a_directory(void **state)
{
    struct views *views = new_views();
    struct entry_list list = {0};
    struct view *view;

    (void)state;
    look_up(views, "a");
    assert_int_equal(views_add(views, make("b", 99), &view), 0);
    views_known(views, view);
    assert_int_equal(views_entries(views, 99, &list), 0);
    assert_int_equal(list.n, 1);
    assert_string_equal(list.entries[0].name, "b");
    entry_list_fini(&list);
    assert_int_equal(views_entries(views, 98, &list), 0);
    assert_int_equal(list.n, 0);
    views_free(views);
}

static int try_views(void)
{
    struct views *views = views_new(MAX_IDLE, release, NULL, crowded, NULL);
    struct view *seed, *view;
    int ret = -ENOMEM;

    if (!views)
        return -ENOMEM;
    seed = make("a", 1);
    if (seed)
        ret = views_add(views, seed, &view);
    views_free(views);
    return ret;
}

static void memory_runs_out(void **state)
{
    (void)state;
    assert_true(refuse_each_alloc(try_views()) >= 5);
}

/* Threads look up and forget the same few keys. */
static void *churn(void *arg)
{
    struct views *views = arg;

    for (unsigned i = 0; i < 20000; i++) {
        const char key[] = {(char)('a' + i % 7), '\0'};
        uint64_t slot = look_up(views, key);

        if (i % 5 == 0) {
            struct entry_list list = {0};

            views_take_idle(views, &list);
            entry_list_fini(&list);
        }
        views_forget(views, slot, 1);
    }
    return NULL;
}

static void from_many_threads(void **state)
{
    struct views *views = views_new(MAX_IDLE, release, NULL, crowded, NULL);
    pthread_t threads[4];

    (void)state;
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, churn, views), 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(views_count(views).all, 0);
    views_free(views);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_is_one_view),
        cmocka_unit_test(ids_and_back),
        cmocka_unit_test(lives_while_known_or_pinned),
        cmocka_unit_test(slots_are_never_given_twice),
        cmocka_unit_test(the_oldest_idle_ones_are_named),
        cmocka_unit_test(pinned_ones_are_not_idle),
        cmocka_unit_test(entries_of_a_directory),
        cmocka_unit_test(memory_runs_out),
        cmocka_unit_test(from_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
