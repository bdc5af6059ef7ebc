#include "export_journal.h"

#include "scratch_dir.h"

#include <errno.h>

static const struct journal example = {0x0123456789abcdef, 5000000000, 4096};

static void written_and_read(void **state)
{
    char text[JOURNAL_LEN + 1];
    struct journal journal;

    (void)state;
    journal_format(&example, text);
    assert_int_equal(strlen(text), JOURNAL_LEN);
    assert_says(text, "meldfs-export 1 0123456789abcdef 000000012a05f200 0000000000001000 ");
    assert_true(journal_parse(text, JOURNAL_LEN, &journal));
    assert_memory_equal(&journal, &example, sizeof(example));
}

static void every_damage_is_seen(void **state)
{
    char text[JOURNAL_LEN + 2] = {0}, damaged[JOURNAL_LEN + 2];
    struct journal journal = {1, 2, 3};

    (void)state;
    journal_format(&example, text);
    for (size_t len = 0; len < JOURNAL_LEN; len++)
        assert_false(journal_parse(text, len, &journal));
    assert_false(journal_parse(text, JOURNAL_LEN + 1, &journal));
    for (size_t i = 0; i < JOURNAL_LEN; i++) {
        for (int byte = 0; byte < 256; byte++) {
            memcpy(damaged, text, sizeof(text));
            damaged[i] = (char)byte;
            if (damaged[i] != text[i])
                assert_false(journal_parse(damaged, JOURNAL_LEN, &journal));
        }
    }
    assert_int_equal(journal.synced, 3);
}

static void more_than_the_whole_is_none(void **state)
{
    char text[JOURNAL_LEN + 1];
    struct journal journal = {1, 10, 11};

    (void)state;
    journal_format(&journal, text);
    assert_false(journal_parse(text, JOURNAL_LEN, &journal));
}

static int folder(void)
{
    int fd = open(scratch_path("."), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static void files(void **state)
{
    struct journal journal, other = example;
    int dir = folder();

    (void)state;
    assert_int_equal(journal_read(dir, "j", &journal), -ENOENT);
    assert_int_equal(journal_write(dir, "j", &example), 0);
    assert_int_equal(journal_read(dir, "j", &journal), 0);
    assert_int_equal(journal.synced, example.synced);
    other.synced = 8192;
    assert_int_equal(journal_create(dir, "j", &other), -EEXIST);
    put_text("j.new", "of a process that was killed");
    assert_int_equal(journal_write(dir, "j", &other), 0);
    assert_int_equal(journal_read(dir, "j", &journal), 0);
    assert_int_equal(journal.synced, 8192);
    assert_int_equal(journal_create(dir, "k", &other), 0);
    assert_int_equal(journal_read(dir, "k", &journal), 0);
    close(dir);
}

static void what_is_no_journal(void **state)
{
    struct journal journal;
    int dir = folder();

    (void)state;
    put_text("empty", "");
    put_bytes("long", scratch_dir, sizeof(scratch_dir));
    assert_int_equal(symlink("empty", scratch_path("link")), 0);
    assert_int_equal(mkdir(scratch_path("folder"), 0755), 0);
    assert_int_equal(mkfifo(scratch_path("fifo"), 0644), 0);
    assert_int_equal(journal_read(dir, "empty", &journal), -ENOENT);
    assert_int_equal(journal_read(dir, "long", &journal), -ENOENT);
    assert_int_equal(journal_read(dir, "link", &journal), -ENOENT);
    assert_int_equal(journal_read(dir, "folder", &journal), -ENOENT);
    assert_int_equal(journal_read(dir, "fifo", &journal), -ENOENT);
    assert_int_equal(journal_write(dir, "folder", &example), -EISDIR);
    close(dir);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(written_and_read),   TEST(every_damage_is_seen), TEST(more_than_the_whole_is_none), TEST(files),
        TEST(what_is_no_journal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
