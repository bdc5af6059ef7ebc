#include "stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define BUDGET (256 * MIB)

static char models[STREAMS + 1];

static struct stream_file file_of(size_t index)
{
    return (struct stream_file){&models[0], index, index + 2, 1000 * MIB + 123};
}

static bool read_at(struct streams *streams, const struct stream_file *file, uint64_t off, uint64_t len)
{
    return streams_read(streams, file, 1, off, len);
}

static void read_on(struct streams *streams, const struct stream_file *file, uint64_t from, uint64_t to,
                    uint64_t len)
{
    for (uint64_t off = from; off < to; off += len)
        read_at(streams, file, off, len);
}

/* Takes what there is; all of it must follow `from` without a gap. Where it ends. */
static uint64_t take_all(struct streams *streams, const struct stream_file *file, uint64_t from)
{
    struct stream_range piece;

    while (streams_take(streams, &piece)) {
        assert_int_equal(piece.file.index, file->index);
        assert_int_equal(piece.off, from);
        assert_int_equal(piece.off % STREAM_PIECE, 0);
        from += piece.len;
        assert_true(piece.len == STREAM_PIECE || from == file->size);
    }
    return from;
}

static void a_reader_is_believed_after_a_mib(void **state)
{
    struct streams streams;
    struct stream_file file = file_of(0);

    (void)state;
    streams_init(&streams, BUDGET);
    for (uint64_t off = 0; off < MIB; off += 128 * KIB)
        assert_false(read_at(&streams, &file, off, 128 * KIB));
    assert_true(read_at(&streams, &file, MIB, 128 * KIB));
    assert_int_equal(take_all(&streams, &file, 2 * MIB), 6 * MIB);
    assert_false(read_at(&streams, &file, MIB + 128 * KIB, 128 * KIB));
}

static void large_reads_need_several(void **state)
{
    struct streams streams;
    struct stream_file file = file_of(0);

    (void)state;
    streams_init(&streams, BUDGET);
    for (uint64_t off = 0; off < 8 * MIB; off += MIB)
        assert_false(read_at(&streams, &file, off, MIB));
    assert_true(read_at(&streams, &file, 8 * MIB, MIB));
    assert_int_equal(take_all(&streams, &file, 9 * MIB), 13 * MIB);
}

static void windows_double_up_to_the_most(void **state)
{
    struct streams streams;
    struct stream_file file = file_of(0);
    uint64_t ahead = 0, widest = 0, end = 2 * MIB;

    (void)state;
    streams_init(&streams, BUDGET);
    for (uint64_t off = 0; off < 300 * MIB; off += 128 * KIB) {
        if (!read_at(&streams, &file, off, 128 * KIB))
            continue;
        end = take_all(&streams, &file, end);
        ahead = end - off;
        assert_true(ahead <= 2 * widest + 8 * MIB);
        widest = ahead > widest ? ahead : widest;
    }
    assert_in_range(widest, STREAM_WINDOW_MAX, STREAM_WINDOW_MAX + 2 * MIB);
}

static void a_file_ends(void **state)
{
    struct streams streams;
    struct stream_file file = file_of(0);

    (void)state;
    streams_init(&streams, BUDGET);
    file.size = 5 * MIB + 77;
    read_on(&streams, &file, 0, 2 * MIB, 128 * KIB);
    assert_int_equal(take_all(&streams, &file, 2 * MIB), file.size);
    read_on(&streams, &file, 2 * MIB, 5 * MIB, 128 * KIB);
    assert_false(read_at(&streams, &file, 5 * MIB, 77));
}

static void random_reads_are_no_stream(void **state)
{
    static const uint64_t lens[] = {4 * KIB, 128 * KIB, MIB};
    struct streams streams;
    struct stream_file file = file_of(0);
    struct stream_range range;

    (void)state;
    srandom(1);
    for (size_t k = 0; k < 3; k++) {
        size_t taken = 0;

        streams_init(&streams, BUDGET);
        for (int i = 0; i < 2000; i++) {
            read_at(&streams, &file, (uint64_t)random() % (file.size - lens[k]), lens[k]);
            taken += streams_take(&streams, &range);
        }
        assert_in_range(taken, 0, 40);
    }
}

/* A reader that skips one half, in steps that a stream tolerates. */
static void strides_are_no_stream(void **state)
{
    struct streams streams;
    struct stream_file file = file_of(0);

    (void)state;
    streams_init(&streams, BUDGET);
    for (uint64_t off = 0; off < 500 * MIB; off += 2 * MIB)
        assert_false(read_at(&streams, &file, off, MIB));
}

static void reads_come_in_any_order(void **state)
{
    struct streams streams;
    struct stream_file file = file_of(0);
    uint64_t end = 4 * MIB;

    (void)state;
    streams_init(&streams, BUDGET);
    read_on(&streams, &file, 0, 3 * MIB, 4 * KIB);
    assert_true(read_at(&streams, &file, 3 * MIB, 4 * KIB));
    for (uint64_t off = 3 * MIB; off < 100 * MIB; off += 4 * MIB) {
        end = take_all(&streams, &file, end);
        read_at(&streams, &file, off + 3 * MIB, MIB);
        end = take_all(&streams, &file, end);
        read_at(&streams, &file, off + 1 * MIB, MIB);
        read_at(&streams, &file, off + 0 * MIB, MIB);
        read_at(&streams, &file, off + 2 * MIB, MIB);
    }
    for (size_t i = 1; i < STREAMS; i++)
        assert_int_equal(streams.streams[i].handle, 0);
}

static void a_jump_of_16_mib_goes_on(void **state)
{
    struct streams streams;
    struct stream_file file = file_of(0);

    (void)state;
    streams_init(&streams, BUDGET);
    read_on(&streams, &file, 0, 20 * MIB, 128 * KIB);
    while (streams_take(&streams, &(struct stream_range){0}))
        ;
    assert_true(read_at(&streams, &file, 36 * MIB, 128 * KIB));
    assert_true(take_all(&streams, &file, 37 * MIB) > 40 * MIB);
    assert_false(read_at(&streams, &file, 60 * MIB, 128 * KIB)); /* another reader, or the same: not known */
}

/* Several in a file and in others: the windows of all fit the budget, and who waits least is served first. */
static void readers_share_the_budget(void **state)
{
    struct streams streams;
    struct stream_range piece;
    uint64_t at[8] = {0}, sum = 0;

    (void)state;
    streams_init(&streams, 32 * MIB);
    for (uint64_t off = 0; off < 60 * MIB; off += 128 * KIB) {
        for (size_t i = 0; i < 8; i++) {
            struct stream_file file = file_of(i / 2);
            uint64_t first = i % 2 * 500 * MIB;
            streams_read(&streams, &file, i + 1, first + off, 128 * KIB);
            at[i] = first + off;
        }
        while (streams_take(&streams, &piece))
            ;
    }
    for (size_t i = 0; i < STREAMS; i++)
        sum += streams.streams[i].window;
    assert_in_range(sum, 16 * MIB, 32 * MIB);
    for (size_t i = 0; i < 8; i++) {
        struct stream_file file = file_of(i / 2);
        streams_read(&streams, &file, i + 1, at[i] + (i == 5 ? 3 : 1) * MIB, 128 * KIB);
    }
    assert_true(streams_take(&streams, &piece));
    assert_int_equal(piece.file.index, 2);
    assert_true(piece.off > 500 * MIB);
}

static void a_budget_of_nothing(void **state)
{
    struct streams streams;
    struct stream_file file = file_of(0);

    (void)state;
    streams_init(&streams, MIB - 1);
    for (uint64_t off = 0; off < 20 * MIB; off += 128 * KIB)
        assert_false(read_at(&streams, &file, off, 128 * KIB));
}

static void what_comes_into_sight_is_told_once(void **state)
{
    struct streams streams;
    struct stream_file file = file_of(0);
    struct stream_range range;
    uint64_t end = 2 * MIB;

    (void)state;
    streams_init(&streams, BUDGET);
    for (uint64_t off = 0; off < 100 * MIB; off += 128 * KIB) {
        read_at(&streams, &file, off, 128 * KIB);
        if (!streams_sight(&streams, &range))
            continue;
        assert_int_equal(range.off, end);
        end = range.off + range.len;
        assert_false(streams_sight(&streams, &range));
        while (streams_take(&streams, &range))
            ;
    }
    assert_true(end > 150 * MIB);
}

static void what_is_put_back_waits_for_the_next_read(void **state)
{
    struct streams streams;
    struct stream_file file = file_of(0);
    struct stream_range first, second;

    (void)state;
    streams_init(&streams, BUDGET);
    read_on(&streams, &file, 0, 2 * MIB, 128 * KIB);
    assert_true(streams_take(&streams, &first));
    assert_true(streams_take(&streams, &second));
    streams_put_back(&streams, &second);
    streams_put_back(&streams, &first);
    assert_false(streams_take(&streams, &second));
    assert_true(read_at(&streams, &file, 2 * MIB - 4 * KIB, 4 * KIB));
    assert_int_equal(take_all(&streams, &file, first.off), 6 * MIB);
    streams_put_back(&streams, &first); /* the reader has come there by itself */
    read_on(&streams, &file, 2 * MIB, 5 * MIB, 128 * KIB);
    while (streams_take(&streams, &second))
        assert_true(second.off >= 5 * MIB);
}

static void a_flush_trims_its_own(void **state)
{
    struct streams streams;
    struct stream_file a = file_of(0), b = file_of(1);

    (void)state;
    streams_init(&streams, BUDGET);
    for (uint64_t off = 0; off < 2 * MIB; off += 128 * KIB) {
        streams_read(&streams, &a, 7, off, 128 * KIB);
        streams_read(&streams, &b, 8, off, 128 * KIB);
    }
    streams_trim(&streams, 7);
    assert_int_equal(take_all(&streams, &b, 2 * MIB), 6 * MIB);
    assert_true(streams_read(&streams, &a, 7, 2 * MIB, 128 * KIB)); /* as a loader that maps what it opened */
    assert_int_equal(take_all(&streams, &a, 3 * MIB), 7 * MIB);
    streams_read(&streams, &b, 8, 2 * MIB, 128 * KIB);
    streams_forget(&streams, 8);
    assert_false(streams_take(&streams, &(struct stream_range){0}));
    assert_false(streams_read(&streams, &b, 8, 3 * MIB, 128 * KIB));
}

/* As threads that share a tensor: what another one has read is not computed again. */
static void nothing_that_another_has_read(void **state)
{
    struct streams streams;
    struct stream_file file = file_of(0);
    struct stream_range piece;
    uint64_t end = 0;

    (void)state;
    streams_init(&streams, BUDGET);
    read_on(&streams, &file, 40 * MIB, 60 * MIB, 128 * KIB);
    while (streams_take(&streams, &piece))
        ;
    for (uint64_t off = 0; off < 30 * MIB; off += 128 * KIB) {
        streams_read(&streams, &file, 2, off, 128 * KIB);
        while (streams_take(&streams, &piece)) {
            end = piece.off + piece.len;
            assert_true(end <= 40 * MIB || piece.off >= 60 * MIB);
        }
    }
    assert_true(end > 60 * MIB);
}

static void many_readers_take_turns(void **state)
{
    struct streams streams;

    (void)state;
    streams_init(&streams, BUDGET);
    for (uint64_t i = 0; i < 10 * STREAMS; i++) {
        struct stream_file file = file_of(i);
        read_on(&streams, &file, 0, 2 * MIB, 128 * KIB);
        streams_trim(&streams, 1);
    }
    for (size_t i = 0; i < STREAMS; i++)
        assert_true(streams.streams[i].file.index >= 9 * STREAMS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_is_believed_after_a_mib),
        cmocka_unit_test(large_reads_need_several),
        cmocka_unit_test(windows_double_up_to_the_most),
        cmocka_unit_test(a_file_ends),
        cmocka_unit_test(random_reads_are_no_stream),
        cmocka_unit_test(strides_are_no_stream),
        cmocka_unit_test(reads_come_in_any_order),
        cmocka_unit_test(a_jump_of_16_mib_goes_on),
        cmocka_unit_test(readers_share_the_budget),
        cmocka_unit_test(a_budget_of_nothing),
        cmocka_unit_test(what_comes_into_sight_is_told_once),
        cmocka_unit_test(what_is_put_back_waits_for_the_next_read),
        cmocka_unit_test(a_flush_trims_its_own),
        cmocka_unit_test(nothing_that_another_has_read),
        cmocka_unit_test(many_readers_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
