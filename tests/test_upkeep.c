#include "upkeep.h"

#include "fake_meld.h"

#include "cli.h"

static const struct planner planner;
static struct recipes *recipes;
static struct log *log_to;
static struct upkeep *upkeep;

/* The kernel's side. Whoever looks a name up holds the lock of its folder until the answer is there, and to
 * forget a name takes that lock, so a lookup ends before. */
static struct {
    struct found at; /* of a lookup that has begun */
    const char *name;
    uint64_t slot;
    atomic_bool remembered, wrong; /* another thread cannot fail a test */
} kernel;

static void end_lookup(void)
{
    struct names *names = upkeep_names(upkeep);
    struct found found;
    struct err err;

    if (!kernel.at.view)
        return;
    if (names_step(names, &kernel.at, kernel.name, &found, &err) < 0) {
        atomic_store(&kernel.wrong, true);
        return;
    }
    views_known(names->views, found.view);
    kernel.slot = found.view->slot;
    atomic_store(&kernel.remembered, !found.passing);
    views_put(names->views, found.view);
    views_put(names->views, kernel.at.view);
    kernel.at.view = NULL;
}

static int forget(void *arg, uint64_t parent, const char *name)
{
    (void)arg;
    if (parent != VIEWS_ROOT_ID)
        atomic_store(&kernel.wrong, true);
    end_lookup();
    if (!kernel.name || strcmp(name, kernel.name) != 0)
        return -ENOENT;
    atomic_store(&kernel.remembered, false);
    views_forget(upkeep_names(upkeep)->views, kernel.slot, 1);
    return 0;
}

static void tell(void *arg, const char *path, const struct report *report, int code)
{
    (void)arg, (void)path, (void)report;
    assert_int_equal(code, 0);
}

static int setup(void **state)
{
    const struct recipes_hooks hooks = {.tell = tell};
    struct err err;

    if (scratch_setup(state) < 0)
        return -1;
    put_text("a.yml", "first");
    recipes = recipes_new(&planner, scratch_path("a.yml"), false);
    log_to = log_new(false);
    if (!recipes || !log_to || recipes_scan(recipes, true, &hooks, &err) < 0)
        return -1;
    memset(&kernel, 0, sizeof(kernel));
    return upkeep_new(&(struct upkeep_setup){recipes, log_to, "/mnt", forget, NULL}, &upkeep, &err);
}

static void start(void)
{
    struct err err = {""};

    if (upkeep_start(upkeep, &err) < 0)
        fail_msg("%s", err.text);
}

static int teardown(void **state)
{
    upkeep_stop(upkeep);
    upkeep_free(upkeep);
    recipes_free(recipes);
    log_free(log_to);
    return n_melds == 0 ? scratch_teardown(state) : -1;
}

static bool serves(const char *word)
{
    struct names *names = upkeep_names(upkeep);
    struct found found;
    bool same;

    assert_int_equal(names_get(names, VIEWS_ROOT_ID, &found), 0);
    same = strcmp(found.view->meld->word, word) == 0;
    views_put(names->views, found.view);
    return same;
}

static void wait_for(const char *word)
{
    double end = cli_clock() + 20;

    while (!serves(word) && cli_clock() < end)
        usleep(1000);
    assert_true(serves(word));
}

/* Nothing happens any more that would wake the thread. */
static void saved_before_the_start(void **state)
{
    (void)state;
    put_text("a.yml", "second");
    start();
    wait_for("second");
}

/* It begins with the old generation, and what it finds must not be remembered. */
static void a_lookup_during_a_change(void **state)
{
    (void)state;
    kernel.name = "x=1";
    assert_int_equal(names_get(upkeep_names(upkeep), VIEWS_ROOT_ID, &kernel.at), 0);
    start();
    put_text("a.yml", "second");
    wait_for("second");
    assert_null(kernel.at.view);
    assert_false(atomic_load(&kernel.wrong));
    assert_false(atomic_load(&kernel.remembered));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(saved_before_the_start, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lookup_during_a_change, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
