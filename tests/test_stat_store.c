#include "stat_store.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "fail_alloc.h"
#include "scratch_dir.h"
#include "stat_folder.h"
#include "stat_index.h"

#define MIB ((uint64_t)1 << 20)

static struct stat_store *open_store(const char *name, uint64_t max_bytes)
{
    struct stat_store *store;
    struct err err = {""};
    int ret = stat_store_open(scratch_path(name), max_bytes, &store, &err);

    if (ret < 0)
        print_error("%s\n", err.text);
    assert_int_equal(ret, 0);
    return store;
}

static struct stat_key key_of(uint64_t i)
{
    return (struct stat_key){i * 0x9E3779B97F4A7C15u, ~i};
}

/* Every key has its own bytes. */
static void fill(uint64_t i, char *blob, size_t len)
{
    for (size_t k = 0; k < len; k++)
        blob[k] = (char)(i * 31 + k * 7 + k / 251 + 1);
}

static void put(struct stat_store *store, uint64_t i, size_t len)
{
    char *blob = malloc(len);

    assert_non_null(blob);
    fill(i, blob, len);
    stat_store_put(store, key_of(i), blob, len);
    free(blob);
}

/* Found: then with the right bytes. Else zeros. */
static bool get(struct stat_store *store, uint64_t i, size_t len)
{
    char *blob = malloc(2 * len), *expected = blob + len;
    bool found;

    assert_non_null(blob);
    memset(blob, 99, len);
    found = stat_store_get(store, key_of(i), blob, len);
    memset(expected, 0, len);
    if (found)
        fill(i, expected, len);
    if (memcmp(blob, expected, len) != 0)
        fail_msg("blob %llu of %zu bytes: %s, wrong bytes", (unsigned long long)i, len,
                 found ? "found" : "not found");
    free(blob);
    return found;
}

static size_t n_found(struct stat_store *store, uint64_t first, uint64_t n, size_t len)
{
    size_t found = 0;

    for (uint64_t i = first; i < first + n; i++)
        found += get(store, i, len);
    return found;
}

static struct stat_files list_files(const char *name)
{
    struct stat_files list;
    int folder = open(scratch_path(name), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(folder >= 0);
    assert_int_equal(stat_folder_list(folder, &list), 0);
    close(folder);
    return list;
}

/* The path of the only file in the folder "s". */
static const char *only_file(void)
{
    struct stat_files list = list_files("s");
    char name[64];

    assert_int_equal(list.n, 1);
    snprintf(name, sizeof(name), "s/%s", list.files[0].name);
    free(list.files);
    return scratch_path(name);
}

static void blobs_come_back(void **state)
{
    static const size_t lens[] = {1, 7, 8, 24, 4096, 3 << 20};
    struct stat_store *store = open_store("a/b/s", 64 * MIB);

    (void)state;
    for (size_t i = 0; i < 6; i++) {
        assert_false(get(store, i, lens[i]));
        put(store, i, lens[i]);
        assert_true(get(store, i, lens[i]));
    }
    stat_store_close(store);
    store = open_store("a/b/s", 64 * MIB);
    for (size_t i = 0; i < 6; i++) {
        assert_true(get(store, i, lens[i]));
        assert_false(get(store, i, lens[i] + 1));
        assert_false(get(store, i + 6, lens[i]));
    }
    stat_store_close(store);
    stat_store_close(NULL);
}

static void what_is_too_large_is_not_kept(void **state)
{
    struct stat_store *store = open_store("s", 4 * MIB);
    char none = 0;

    (void)state;
    put(store, 1, 256 << 10);
    put(store, 2, (256 << 10) + 1);
    stat_store_put(store, key_of(3), "", 0);
    assert_true(get(store, 1, 256 << 10));
    assert_false(get(store, 2, (256 << 10) + 1));
    assert_false(stat_store_get(store, key_of(3), &none, 0));
    stat_store_close(store);
}

static void counters_count(void **state)
{
    struct stat_store *store = open_store("s", MIB);
    struct stat_store_counters c;

    (void)state;
    for (uint64_t i = 0; i < 100; i++)
        put(store, i, 24);
    put(store, 5, 24);
    n_found(store, 90, 20, 24);
    stat_store_counters(store, &c);
    assert_int_equal(c.n_blobs, 100);
    assert_int_equal(c.written, 100);
    assert_int_equal(c.found, 10);
    assert_int_equal(c.missed, 10);
    assert_int_equal(c.damaged, 0);
    assert_int_equal(c.held_bytes, 256 * 32);
    stat_store_close(store);
}

/* What a writer leaves is gone on with, so that a file a run does not become thousands. */
static void files_are_gone_on_with(void **state)
{
    struct stat_store *store;

    (void)state;
    for (uint64_t i = 0; i < 20; i++) {
        store = open_store("s", MIB);
        assert_int_equal(n_found(store, 0, 100, 40), i);
        put(store, i, 40);
        stat_store_close(store);
    }
    only_file();
}

static void a_file_has_so_many_slots(void **state)
{
    struct stat_store *store = open_store("s", 64 * MIB);
    struct stat_files list;

    (void)state;
    for (uint64_t i = 0; i < 2 * SEGMENT_SLOTS + 1; i++)
        put(store, i, 16);
    stat_store_close(store);
    list = list_files("s");
    assert_int_equal(list.n, 3);
    free(list.files);
    store = open_store("s", 64 * MIB);
    assert_int_equal(n_found(store, 0, 2 * SEGMENT_SLOTS + 2, 16), 2 * SEGMENT_SLOTS + 1);
    stat_store_close(store);
}

/* ---- damage */

enum { N_SMALL = 5, SMALL = 20 };

static void make_small(void)
{
    struct stat_store *store = open_store("s", MIB);

    for (uint64_t i = 0; i < N_SMALL; i++)
        put(store, i, SMALL);
    assert_int_equal(n_found(store, 0, N_SMALL, SMALL), N_SMALL);
    stat_store_close(store);
}

static size_t found_again(void)
{
    struct stat_store *store = open_store("s", MIB);
    size_t found = n_found(store, 0, N_SMALL, SMALL);

    stat_store_close(store);
    return found;
}

static void flip(int fd, off_t at, int bit)
{
    unsigned char byte;

    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= (unsigned char)(1 << bit);
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

/* Bytes of the file that say something, and some that do not. */
static bool is_looked_at(off_t at)
{
    return at < SEGMENT_HEAD + (N_SMALL + 1) * SEGMENT_ENTRY || at >= SEGMENT_DATA - 8 || at % 4999 == 0;
}

static void no_flipped_bit_is_believed(void **state)
{
    struct stat st;
    int fd;

    (void)state;
    make_small();
    fd = open(only_file(), O_RDWR | O_CLOEXEC);
    assert_int_equal(fstat(fd, &st), 0);
    for (off_t at = 0; at < st.st_size; at++)
        for (int bit = 0; is_looked_at(at) && bit < 8; bit++) {
            size_t found, expected;
            flip(fd, at, bit);
            found = found_again(); /* fails itself if bytes are wrong */
            expected = at < SEGMENT_HEAD                                        ? 0
                       : at < SEGMENT_HEAD + N_SMALL * SEGMENT_ENTRY            ? N_SMALL - 1
                       : at < SEGMENT_DATA || (at - SEGMENT_DATA) % 24 >= SMALL ? N_SMALL
                                                                                : N_SMALL - 1;
            assert_int_equal(found, expected);
            flip(fd, at, bit);
        }
    close(fd);
    assert_int_equal(found_again(), N_SMALL);
}

static void a_cut_file_has_what_is_left(void **state)
{
    struct stat st;
    char *all;
    int fd;

    (void)state;
    make_small();
    fd = open(only_file(), O_RDWR | O_CLOEXEC);
    assert_int_equal(fstat(fd, &st), 0);
    all = malloc((size_t)st.st_size);
    assert_int_equal(pread(fd, all, (size_t)st.st_size, 0), st.st_size);
    for (off_t len = st.st_size; len >= 0; len--) {
        if (!is_looked_at(len))
            continue;
        assert_int_equal(ftruncate(fd, len), 0);
        assert_int_equal(found_again(),
                         len < SEGMENT_DATA ? 0 : ((size_t)(len - SEGMENT_DATA) + 24 - SMALL) / 24);
    }
    assert_int_equal(pwrite(fd, all, (size_t)st.st_size, 0), st.st_size);
    assert_int_equal(found_again(), N_SMALL);
    free(all);
    close(fd);
}

/* A blob that was lost is computed and kept again, in the same file. */
static void damage_is_mended(void **state)
{
    struct stat_store *store;
    struct stat_store_counters c;
    int fd;

    (void)state;
    make_small();
    fd = open(only_file(), O_RDWR | O_CLOEXEC);
    flip(fd, SEGMENT_DATA + 24, 3);
    close(fd);
    store = open_store("s", MIB);
    assert_false(get(store, 1, SMALL));
    put(store, 1, SMALL);
    assert_true(get(store, 1, SMALL));
    stat_store_counters(store, &c);
    assert_int_equal(c.damaged, 1);
    stat_store_close(store);
    only_file();
    assert_int_equal(found_again(), N_SMALL);
}

static void a_file_cut_while_open(void **state)
{
    struct stat_store *store;

    (void)state;
    make_small();
    store = open_store("s", MIB);
    assert_int_equal(truncate(only_file(), SEGMENT_DATA + 30), 0);
    assert_true(get(store, 0, SMALL));
    assert_false(get(store, 1, SMALL));
    put(store, 9, SMALL);
    assert_true(get(store, 9, SMALL));
    stat_store_close(store);
}

static void another_version_is_not_read(void **state)
{
    char head[SEGMENT_HEAD];
    int fd;

    (void)state;
    make_small();
    fd = open(only_file(), O_RDWR | O_CLOEXEC);
    segment_write_head(head, STATS_VERSION + 1);
    assert_int_equal(pwrite(fd, head, sizeof(head), 0), sizeof(head));
    assert_int_equal(found_again(), 0);
    segment_write_head(head, STATS_VERSION);
    assert_int_equal(pwrite(fd, head, sizeof(head), 0), sizeof(head));
    assert_int_equal(found_again(), N_SMALL);
    close(fd);
}

/* ---- whose folder, which files */

static void refuse(const char *name, int code, const char *says)
{
    struct stat_store *store;
    struct err err = {""};

    assert_int_equal(stat_store_open(scratch_path(name), 0, &store, &err), code);
    assert_null(store);
    assert_says(err.text, name);
    assert_says(err.text, says);
}

static void a_folder_must_be_ours(void **state)
{
    (void)state;
    put_text("file", "");
    refuse("file", -ENOTDIR, "Not a directory");
    refuse("file/s", -ENOTDIR, "Not a directory");
    assert_int_equal(symlink(scratch_dir, scratch_path("link")), 0);
    refuse("link", -ENOTDIR, "");
    assert_int_equal(mkdir(scratch_path("open"), 0700), 0);
    assert_int_equal(chmod(scratch_path("open"), 0777), 0);
    refuse("open", -EPERM, "yours");
    if (geteuid() == 0) {
        assert_int_equal(mkdir(scratch_path("theirs"), 0700), 0);
        assert_int_equal(chown(scratch_path("theirs"), 12345, 12345), 0);
        refuse("theirs", -EPERM, "yours");
    }
}

/* In a child without privileges, where it is root that tests. */
static int in_child(void (*run)(void))
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        run();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void use_unreadable(void)
{
    struct stat_store *store;
    struct err err;
    const char *dir = scratch_path("mine/s");

    if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
        _exit(1);
    if (stat_store_open(dir, 0, &store, &err) < 0)
        _exit(2);
    put(store, 1, 24);
    stat_store_close(store);
    if (chmod(dir, 0) < 0 || stat_store_open(dir, 0, &store, &err) != -EACCES)
        _exit(3);
    if (chmod(dir, 0500) < 0 || stat_store_open(dir, 0, &store, &err) < 0)
        _exit(4);
    put(store, 2, 24); /* the file that is there is gone on with */
    if (!get(store, 1, 24) || !get(store, 2, 24))
        _exit(5);
    stat_store_close(store);
}

static void an_unreadable_folder_is_told(void **state)
{
    (void)state;
    assert_int_equal(mkdir(scratch_path("mine"), 0777), 0);
    assert_int_equal(chmod(scratch_path("mine"), 0777), 0);
    assert_int_equal(in_child(use_unreadable), 0);
}

/* Put something else at the file's place: nothing is found, nothing outside is written, and all goes on. */
static void replaced_by(const char *path, const char *what)
{
    struct stat_store *store = open_store("s", MIB);

    if (n_found(store, 0, N_SMALL, SMALL) != 0)
        fail_msg("%s: something was found", what);
    put(store, 50, SMALL);
    assert_true(get(store, 50, SMALL));
    stat_store_close(store);
    store = open_store("s", MIB);
    assert_true(get(store, 50, SMALL));
    stat_store_close(store);
    remove(path);
}

static void other_things_are_not_read(void **state)
{
    char path[512], saved[512];
    struct stat st, after;

    (void)state;
    make_small();
    snprintf(path, sizeof(path), "%s", only_file());
    snprintf(saved, sizeof(saved), "%s", scratch_path("saved"));
    assert_int_equal(rename(path, saved), 0);
    assert_int_equal(stat(saved, &st), 0);
    assert_int_equal(symlink(saved, path), 0);
    replaced_by(path, "a link");
    assert_int_equal(mkfifo(path, 0600), 0);
    replaced_by(path, "a pipe");
    assert_int_equal(mkdir(path, 0700), 0);
    replaced_by(path, "a folder");
    assert_int_equal(stat(saved, &after), 0);
    assert_int_equal(after.st_size, st.st_size);
    assert_int_equal(after.st_mtim.tv_nsec, st.st_mtim.tv_nsec);
    assert_int_equal(chmod(saved, 0666), 0);
    assert_int_equal(rename(saved, path), 0);
    replaced_by(path, "a file that all may write");
}

static void foreign_files_are_left_alone(void **state)
{
    struct stat_store *store;
    struct stat st;

    (void)state;
    put_text("s/notes.txt", "mine");
    put_text("s/bad.stats", "not what it should be");
    assert_int_equal(chmod(scratch_path("s"), 0700), 0);
    store = open_store("s", 4 * MIB);
    for (uint64_t i = 0; i < 200; i++)
        put(store, i, 100000);
    stat_store_close(store);
    assert_int_equal(stat(scratch_path("s/notes.txt"), &st), 0);
    assert_int_equal(st.st_size, 4);
}

/* ---- size */

static uint64_t bytes_in(const char *name)
{
    struct stat_files list = list_files(name);

    free(list.files);
    return list.bytes;
}

static void the_oldest_go_first(void **state)
{
    struct stat_store *store = open_store("s", 4 * MIB);
    size_t found;

    (void)state;
    for (uint64_t i = 0; i < 200; i++) {
        put(store, i, 100000);
        assert_true(get(store, i, 100000)); /* what was just written is there */
        assert_in_range(bytes_in("s"), 0, 4 * MIB);
    }
    found = n_found(store, 0, 200, 100000);
    assert_in_range(found, 8, 40);
    assert_int_equal(n_found(store, 200 - found, found, 100000), found);
    stat_store_close(store);
    store = open_store("s", 4 * MIB);
    assert_int_equal(n_found(store, 200 - found, found, 100000), found);
    stat_store_close(store);
}

/* Time stamps are as coarse as the kernel's clock. */
static void tick(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

static void what_is_read_stays(void **state)
{
    struct stat_store *store = open_store("s", 4 * MIB);

    (void)state;
    for (uint64_t i = 0; i < 24; i++) {
        put(store, i, 200000); /* a file each */
        tick();
        if (i >= 3) {
            struct stat_store *reader = open_store("s", 4 * MIB);
            assert_true(get(reader, 2, 200000));
            stat_store_close(reader);
        }
    }
    assert_false(get(store, 1, 200000));
    assert_true(get(store, 2, 200000));
    stat_store_close(store);
}

/* One who has it open reads on what another removes; what another is writing is not removed. */
static void others_do_not_take_away(void **state)
{
    struct stat_store *reader, *writer = open_store("s", 4 * MIB), *slow;

    (void)state;
    put(writer, 1, 100000);
    stat_store_close(writer);
    slow = open_store("s", 4 * MIB);
    put(slow, 2, 100);
    reader = open_store("s", 4 * MIB);
    writer = open_store("s", 4 * MIB);
    for (uint64_t i = 100; i < 200; i++)
        put(writer, i, 200000);
    stat_store_close(writer);
    assert_true(get(reader, 1, 100000));
    assert_true(get(reader, 2, 100));
    stat_store_close(reader);
    put(slow, 3, 100);
    stat_store_close(slow);
    reader = open_store("s", 4 * MIB);
    assert_int_equal(n_found(reader, 2, 2, 100), 2);
    stat_store_close(reader);
}

static void descriptors_are_few_and_closed(void **state)
{
    size_t before = scratch_descriptors();
    struct stat_store *store = open_store("s", 4 * MIB);

    (void)state;
    for (uint64_t i = 0; i < 500; i++)
        put(store, i, 200000);
    assert_in_range(scratch_descriptors(), before, before + STAT_FILES + 2);
    stat_store_close(store);
    assert_int_equal(scratch_descriptors(), before);
}

static void a_folder_that_is_moved_is_written_on(void **state)
{
    struct stat_store *store = open_store("s", MIB);

    (void)state;
    put(store, 1, 24);
    assert_int_equal(rename(scratch_path("s"), scratch_path("moved")), 0);
    put(store, 2, 24);
    assert_int_equal(n_found(store, 1, 2, 24), 2);
    stat_store_close(store);
}

static long disk_left = -1; /* bytes that may still be written; negative: any */

ssize_t __real_pwrite64(int fd, const void *buf, size_t len, off_t off);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t off);

ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t off)
{
    if (disk_left == 0) {
        errno = ENOSPC;
        return -1;
    }
    if (disk_left > 0) {
        len = len < (size_t)disk_left ? len : (size_t)disk_left;
        disk_left -= (long)len;
    }
    return __real_pwrite64(fd, buf, len, off);
}

/* Full at any byte, of the head, the blob and the entry: the blob is there or not, and later ones can be
 * written. */
static void a_full_disk_is_survived(void **state)
{
    (void)state;
    for (uint64_t room = 0; room < 32 + SEGMENT_ENTRY + 8; room++) {
        struct stat_store *store = open_store("s", MIB);
        disk_left = (long)room;
        put(store, 1000 + room, 32);
        put(store, 2000 + room, 32); /* not tried again at once */
        disk_left = -1;
        assert_int_equal(get(store, 1000 + room, 32), room >= 32 + SEGMENT_ENTRY);
        assert_false(get(store, 2000 + room, 32));
        stat_store_close(store);
    }
    only_file();
}

/* ---- at once */

enum { N_BLOBS = 3000 };

static void write_many(uint64_t first)
{
    struct stat_store *store = open_store("s", 256 * MIB);

    for (uint64_t i = first; i < first + N_BLOBS; i++) {
        put(store, i, 24 + i % 500);
        if (!get(store, i, 24 + i % 500))
            _exit(1);
    }
    stat_store_close(store);
}

static void write_first(void)
{
    write_many(0);
}

static void write_second(void)
{
    write_many(N_BLOBS / 2); /* half of them are the other's, too */
}

static void two_processes_write(void **state)
{
    struct stat_store *store;
    pid_t child = fork();
    int status;

    (void)state;
    if (child == 0) {
        write_first();
        _exit(0);
    }
    assert_int_equal(in_child(write_second), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    store = open_store("s", 256 * MIB);
    for (uint64_t i = 0; i < N_BLOBS + N_BLOBS / 2; i++)
        if (!get(store, i, 24 + i % 500))
            fail_msg("blob %llu was lost", (unsigned long long)i);
    stat_store_close(store);
}

/* Killed anywhere, what was put before is there, or not, and never wrong. */
static void a_killed_writer_spoils_nothing(void **state)
{
    struct stat_store *store;
    uint64_t at = 0;

    (void)state;
    for (int round = 0; round < 20; round++) {
        pid_t child = fork();
        if (child == 0) {
            store = open_store("s", 64 * MIB);
            for (uint64_t i = at;; i++)
                put(store, i, 5000);
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000 + round * 300000}, NULL);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        store = open_store("s", 64 * MIB);
        while (get(store, at, 5000))
            at++;
        stat_store_close(store);
    }
}

struct user {
    struct stat_store *store;
    uint64_t first;
};

static void *use(void *arg)
{
    struct user *user = arg;

    for (uint64_t i = user->first; i < user->first + 400; i++) {
        put(user->store, i, 2000 + i % 7);
        get(user->store, i / 2, 2000 + i / 2 % 7);
        get(user->store, i, 2000 + i % 7);
    }
    return NULL;
}

/* Small enough that files are removed all the time. */
static void many_threads(void **state)
{
    struct stat_store *store = open_store("s", 4 * MIB);
    struct user users[8];
    pthread_t threads[8];

    (void)state;
    for (size_t i = 0; i < 8; i++) {
        users[i] = (struct user){store, i * 300};
        assert_int_equal(pthread_create(&threads[i], NULL, use, &users[i]), 0);
    }
    for (size_t i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    stat_store_close(store);
}

/* ---- the rest */

static int open_once(void)
{
    struct stat_store *store;
    struct err err;
    int ret = stat_store_open(scratch_path("s"), MIB, &store, &err);

    stat_store_close(store);
    return ret;
}

static void memory_runs_out(void **state)
{
    struct stat_store *store;

    (void)state;
    make_small();
    assert_in_range(refuse_each_alloc(open_once()), 3, 10);
    store = open_store("s", MIB);
    allocs_left = 0;
    stat_store_put(store, key_of(70), "abc", 3);
    allocs_left = -1;
    stat_store_close(store);
    assert_int_equal(found_again(), N_SMALL);
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void opening_is_quick(void **state)
{
    struct stat_store *store = open_store("s", 256 * MIB);
    double best = 1000;

    (void)state;
    for (uint64_t i = 0; i < 50000; i++)
        put(store, i, 100);
    stat_store_close(store);
    for (int i = 0; i < 5; i++) {
        double started = seconds(), took;
        store = open_store("s", 256 * MIB);
        took = seconds() - started;
        best = took < best ? took : best;
        assert_int_equal(n_found(store, 49990, 20, 100), 10);
        stat_store_close(store);
    }
    print_message("50000 blobs: opened in %.2f ms\n", best * 1000);
    assert_true(best < 5); /* a few milliseconds, but for sanitizers on busy machines */
}

#define test(name) cmocka_unit_test_setup_teardown(name, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test(blobs_come_back),
        test(what_is_too_large_is_not_kept),
        test(counters_count),
        test(files_are_gone_on_with),
        test(a_file_has_so_many_slots),
        test(no_flipped_bit_is_believed),
        test(a_cut_file_has_what_is_left),
        test(damage_is_mended),
        test(a_file_cut_while_open),
        test(another_version_is_not_read),
        test(a_folder_must_be_ours),
        test(an_unreadable_folder_is_told),
        test(other_things_are_not_read),
        test(foreign_files_are_left_alone),
        test(the_oldest_go_first),
        test(what_is_read_stays),
        test(others_do_not_take_away),
        test(descriptors_are_few_and_closed),
        test(a_folder_that_is_moved_is_written_on),
        test(a_full_disk_is_survived),
        test(two_processes_write),
        test(a_killed_writer_spoils_nothing),
        test(many_threads),
        test(memory_runs_out),
        test(opening_is_quick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
