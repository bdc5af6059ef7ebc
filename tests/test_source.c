#include "source.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "scratch_dir.h"

#include "fail_alloc.h"

/* What pread does: as told for the next calls, then as ever. */
static struct {
    int fail_with;     /* errno of every call */
    int interruptions; /* EINTR this many times first */
    size_t at_most;    /* bytes a call */
} preads;

ssize_t __real_pread(int fd, void *buf, size_t len, off_t off);
ssize_t __wrap_pread(int fd, void *buf, size_t len, off_t off);
ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t off);

ssize_t __wrap_pread(int fd, void *buf, size_t len, off_t off)
{
    if (preads.interruptions > 0) {
        preads.interruptions--;
        errno = EINTR;
        return -1;
    }
    if (preads.fail_with) {
        errno = preads.fail_with;
        return -1;
    }
    if (preads.at_most && len > preads.at_most)
        len = preads.at_most;
    return __real_pread(fd, buf, len, off);
}

ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t off)
{
    return __wrap_pread(fd, buf, len, off);
}

static const char text[] = "0123456789abcdef";

static struct source *open_text(void)
{
    struct err err = {""};
    struct source *source = NULL;

    preads.fail_with = 0;
    preads.interruptions = 0;
    preads.at_most = 0;
    put_text("file", text);
    source_open(scratch_path("file"), &source, &err);
    assert_string_equal(err.text, "");
    return source;
}

static void expect_failure(const char *name, int code, const char *says)
{
    struct err err = {""};
    struct source *source = (struct source *)&err;

    assert_int_equal(source_open(scratch_path(name), &source, &err), code);
    assert_null(source);
    assert_says(err.text, scratch_path(name));
    assert_says(err.text, says);
}

static void test_open(void **state)
{
    struct source *source = open_text();
    struct stat st;

    (void)state;
    assert_int_equal(stat(scratch_path("file"), &st), 0);
    assert_string_equal(source->path, scratch_path("file"));
    assert_int_equal(source->dev, st.st_dev);
    assert_int_equal(source->ino, st.st_ino);
    assert_int_equal(source->size, strlen(text));
    assert_int_equal(source->mtime.tv_nsec, st.st_mtim.tv_nsec);
    assert_int_equal(source->ctime.tv_nsec, st.st_ctim.tv_nsec);
    assert_int_equal(fcntl(source->fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    assert_int_equal(fcntl(source->fd, F_GETFD), FD_CLOEXEC);
    source_close(source);
}

static void test_relative(void **state)
{
    struct source *source = NULL;
    int cwd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int ret;

    (void)state;
    put_text("sub/file", text);
    assert_int_equal(chdir(scratch_dir), 0);
    ret = source_open("sub/file", &source, NULL);
    assert_int_equal(fchdir(cwd), 0);
    close(cwd);
    assert_int_equal(ret, 0);
    assert_string_equal(source->path, scratch_path("sub/file"));
    source_close(source);
}

static void test_not_there(void **state)
{
    (void)state;
    put_text("file", text);
    expect_failure("missing", -ENOENT, "No such file");
    expect_failure("file/below", -ENOTDIR, "Not a directory");
}

static void test_not_regular(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)state;
    mkdir(scratch_path("dir"), 0755);
    expect_failure("dir", -EINVAL, "not a regular file");
    assert_int_equal(mkfifo(scratch_path("fifo"), 0644), 0);
    expect_failure("fifo", -EINVAL, "not a regular file"); /* and does not wait for a writer */
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", scratch_path("socket"));
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    expect_failure("socket", -EINVAL, "not a regular file");
    close(fd);
}

static void test_not_allowed(void **state)
{
    (void)state;
    put_text("secret", text);
    assert_int_equal(chmod(scratch_path("secret"), 0), 0);
    if (geteuid() != 0) {
        expect_failure("secret", -EACCES, "Permission denied");
        return;
    }
    assert_int_equal(seteuid(65534), 0);
    expect_failure("secret", -EACCES, "Permission denied");
    assert_int_equal(seteuid(0), 0);
}

static void test_read(void **state)
{
    struct source *source = open_text();
    char buf[17] = "";

    (void)state;
    assert_int_equal(source_read(source, 0, 16, buf, NULL), 0);
    assert_string_equal(buf, text);
    assert_int_equal(source_read(source, 10, 3, buf, NULL), 0);
    assert_memory_equal(buf, "abc3456789abcdef", 16);
    assert_int_equal(source_read(source, 16, 0, buf, NULL), 0);
    source_close(source);
}

static void test_interrupted(void **state)
{
    struct source *source = open_text();
    char buf[17] = "";

    (void)state;
    preads.interruptions = 5;
    preads.at_most = 3;
    assert_int_equal(source_read(source, 0, 16, buf, NULL), 0);
    assert_string_equal(buf, text);
    assert_int_equal(preads.interruptions, 0);
    source_close(source);
}

static void test_pread_fails(void **state)
{
    struct source *source = open_text();
    struct err err = {""};
    char buf[16];

    (void)state;
    preads.fail_with = ENXIO;
    assert_int_equal(source_read(source, 4, 7, buf, &err), -EIO);
    assert_says(err.text, scratch_path("file"));
    assert_says(err.text, "7 bytes at 4: No such device");
    source_close(source);
}

static void test_past_end(void **state)
{
    struct source *source = open_text();
    struct err err = {""};
    char buf[32];

    (void)state;
    assert_int_equal(source_read(source, 10, 7, buf, &err), -EIO);
    assert_says(err.text, scratch_path("file"));
    assert_says(err.text, "7 bytes at 10 were wanted, but it has only 16");
    assert_int_equal(source_read(source, UINT64_MAX - 1, 7, buf, &err), -EIO);
    assert_says(err.text, "7 bytes at 18446744073709551614 were wanted");
    source_close(source);
}

static void test_truncated(void **state)
{
    struct source *source = open_text();
    struct err err = {""};
    char buf[16];

    (void)state;
    assert_int_equal(truncate(scratch_path("file"), 5), 0);
    assert_int_equal(source_read(source, 2, 8, buf, &err), -EIO);
    assert_says(err.text, scratch_path("file"));
    assert_says(err.text, "changed since it was opened: it had 16 bytes and now has 5");
    assert_null(strstr(err.text, "wanted"));
    err.text[0] = '\0';
    assert_int_equal(source_read(source, 0, 2, buf, &err), -EIO); /* what is left is another file's */
    assert_says(err.text, "changed since it was opened");
    source_close(source);
}

/* The mtime is set, not waited for: clocks of file systems are coarse. */
static void test_rewritten(void **state)
{
    struct source *source = open_text();
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, source->mtime};
    struct err err = {""};
    char buf[16];

    (void)state;
    times[1].tv_sec--;
    put_text("file", "fedcba9876543210");
    assert_int_equal(utimensat(AT_FDCWD, scratch_path("file"), times, 0), 0);
    assert_int_equal(source_read(source, 0, 16, buf, &err), -EIO);
    assert_says(err.text, scratch_path("file"));
    assert_says(err.text, "changed since it was opened: it was written to");
    source_close(source);
}

static void test_touched_only(void **state)
{
    struct source *source = open_text();
    char buf[17] = "";

    (void)state;
    assert_int_equal(chmod(scratch_path("file"), 0600), 0);
    assert_int_equal(link(scratch_path("file"), scratch_path("backup")), 0);
    assert_int_equal(source_read(source, 0, 16, buf, NULL), 0);
    assert_string_equal(buf, text);
    source_close(source);
}

static void test_replaced(void **state)
{
    struct source *source = open_text();
    char buf[17] = "";

    (void)state;
    put_text("new", "fedcba9876543210");
    assert_int_equal(rename(scratch_path("new"), scratch_path("file")), 0);
    assert_int_equal(source_read(source, 0, 16, buf, NULL), 0);
    assert_string_equal(buf, text);
    assert_int_equal(unlink(scratch_path("file")), 0);
    assert_int_equal(source_read(source, 0, 16, buf, NULL), 0);
    source_close(source);
}

/* What may be opened ends just above what is open; back to what it was. */
static struct source *open_scarce(void)
{
    struct rlimit before, limit;
    struct source *source;
    int lowest = dup(0);

    close(lowest);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    limit = before;
    limit.rlim_cur = (rlim_t)lowest + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    source = open_text();
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    return source;
}

static void test_scarce(void **state)
{
    struct source *source = open_scarce();
    struct stat st;
    char buf[17] = "";

    (void)state;
    assert_int_equal(stat(scratch_path("file"), &st), 0);
    assert_int_equal(source->fd, -1);
    assert_int_equal(source->ino, st.st_ino);
    for (int i = 0; i < 2; i++) {
        int lowest = dup(0), now;
        close(lowest);
        assert_int_equal(source_read(source, 0, 16, buf, NULL), 0);
        assert_string_equal(buf, text);
        now = dup(0);
        close(now);
        assert_int_equal(now, lowest); /* nothing stays open */
    }
    source_close(source);
}

static void test_scarce_replaced(void **state)
{
    struct source *source = open_scarce();
    struct err err = {""};
    char buf[16];

    (void)state;
    put_text("new", text);
    assert_int_equal(rename(scratch_path("new"), scratch_path("file")), 0);
    assert_int_equal(source_read(source, 0, 16, buf, &err), -EIO);
    assert_says(err.text, "changed since it was opened: another file is in its place");
    assert_int_equal(unlink(scratch_path("file")), 0);
    assert_int_equal(mkfifo(scratch_path("file"), 0644), 0);
    assert_int_equal(source_read(source, 0, 16, buf, &err), -EIO); /* and does not wait for a writer */
    assert_int_equal(unlink(scratch_path("file")), 0);
    err.text[0] = '\0';
    assert_int_equal(source_read(source, 0, 16, buf, &err), -EIO);
    assert_says(err.text, scratch_path("file"));
    assert_says(err.text, "No such file");
    source_close(source);
}

static void test_closing(void **state)
{
    struct source *source = open_text();
    int fd = source->fd;

    (void)state;
    source_close(source);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    source_close(NULL);
}

static void test_feed(void **state)
{
    struct source *source = open_text();
    struct file_feed feed;
    struct feed other = {0};
    struct err err = {""};
    char buf[16] = "";

    (void)state;
    file_feed_init(&feed, source, 2, DTYPE_BF16, 6);
    assert_int_equal(feed.feed.dtype, DTYPE_BF16);
    assert_int_equal(feed.feed.n, 6);
    assert_ptr_equal(feed_file(&feed.feed), &feed);
    assert_null(feed_file(&other));
    assert_int_equal(feed.feed.read(&feed.feed, 1, 3, buf, NULL, NULL), 0);
    assert_string_equal(buf, "456789");
    assert_int_equal(feed.feed.read(&feed.feed, 4, 3, buf, NULL, &err), -EIO);
    assert_says(err.text, "elements 4 to 7 of 6");
    assert_int_equal(feed.feed.read(&feed.feed, 7, 0, buf, NULL, &err), -EIO);
    assert_int_equal(feed.feed.read(&feed.feed, UINT64_MAX, 2, buf, NULL, &err), -EIO);
    source_close(source);
}

static void test_feed_half_bytes(void **state)
{
    struct source *source = open_text();
    struct file_feed feed;
    struct err err = {""};
    char buf[16] = "";

    (void)state;
    file_feed_init(&feed, source, 0, DTYPE_F4, 32);
    assert_int_equal(feed.feed.read(&feed.feed, 4, 6, buf, NULL, NULL), 0);
    assert_string_equal(buf, "234");
    assert_int_equal(feed.feed.read(&feed.feed, 1, 2, buf, NULL, &err), -EIO);
    assert_says(err.text, "cannot be read alone");
    assert_int_equal(feed.feed.read(&feed.feed, 2, 3, buf, NULL, &err), -EIO);
    source_close(source);
}

static int open_and_put(struct err *err)
{
    struct source *source;
    int ret = source_open(scratch_path("file"), &source, err);

    source_close(source);
    return ret;
}

static void test_no_memory(void **state)
{
    struct err err = {""};

    (void)state;
    put_text("file", text);
    assert_int_equal(refuse_each_alloc(open_and_put(&err)), 2);
    assert_says(err.text, "out of memory");
}

static ssize_t copy_to_new(const struct source *source, uint64_t off, size_t len, char *copy, struct err *err)
{
    int out = open(scratch_path("copy"), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    ssize_t n = source_copy(source, off, len, out, 2, err);

    assert_int_equal(pread(out, copy, 32, 2), n > 0 ? n : 0);
    close(out);
    return n;
}

static void test_copy(void **state)
{
    struct source *source = open_text();
    char copy[32] = "";
    struct err err = {""};

    (void)state;
    assert_int_equal(copy_to_new(source, 3, 7, copy, &err), 7);
    assert_memory_equal(copy, "3456789", 7);
    assert_int_equal(copy_to_new(source, 10, 100, copy, &err),
                     6); /* the rest is missed by whoever reads it */
    assert_int_equal(source_copy(source, 0, 16, -1, 0, &err), 0);
    put_text("file", "0123456789");
    assert_int_equal(copy_to_new(source, 0, 5, copy, &err), -EIO);
    assert_says(err.text, "changed since it was opened");
    source_close(source);
}

#define in_scratch(test) cmocka_unit_test_setup_teardown(test, scratch_setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_scratch(test_open),        in_scratch(test_relative),
        in_scratch(test_not_there),   in_scratch(test_not_regular),
        in_scratch(test_not_allowed), in_scratch(test_read),
        in_scratch(test_interrupted), in_scratch(test_pread_fails),
        in_scratch(test_past_end),    in_scratch(test_truncated),
        in_scratch(test_rewritten),   in_scratch(test_touched_only),
        in_scratch(test_replaced),    in_scratch(test_closing),
        in_scratch(test_scarce),      in_scratch(test_scarce_replaced),
        in_scratch(test_feed),        in_scratch(test_feed_half_bytes),
        in_scratch(test_no_memory),   in_scratch(test_copy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
