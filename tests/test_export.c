#include "export.h"

#include "scratch_dir.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>

#define MIB ((uint64_t)1 << 20)
#define NEVER UINT64_MAX

/* An engine of four files whose byte at `off` is off * 31 + the file's number; a thread answers, last come
 * first served, so that pieces arrive out of order. */
struct job {
    struct job *next;
    size_t index;
    uint64_t off;
    size_t len;
    meld_done *done;
    void *arg;
};

struct meld {
    struct meld_file files[4];
    uint64_t fail_at, short_at, signal_at; /* in file 1 */
    bool refuse_start;
    pthread_t worker;
    bool started, stop;
    pthread_mutex_t lock; /* guards stop and jobs */
    pthread_cond_t changed;
    struct job *jobs;
};

static struct meld new_meld(void)
{
    return (struct meld){
        .files = {{"config.json", 5},
                  {"model.safetensors", 40 * MIB + 12345, true},
                  {"sub/deep/x", 3},
                  {"zero", 0}},
        .fail_at = NEVER,
        .short_at = NEVER,
        .signal_at = NEVER,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .changed = PTHREAD_COND_INITIALIZER,
    };
}

static bool holds(const struct job *job, uint64_t off)
{
    return job->index == 1 && off >= job->off && off < job->off + job->len;
}

static void answer(const struct meld *meld, const struct job *job)
{
    struct err err = {"source.safetensors: changed"};
    unsigned char *bytes = malloc(job->len);
    struct iovec iov[2] = {{bytes, job->len / 3}, {bytes + job->len / 3, job->len - job->len / 3}};

    for (size_t i = 0; i < job->len; i++)
        bytes[i] = (unsigned char)((job->off + i) * 31 + job->index);
    if (holds(job, meld->signal_at))
        kill(getpid(), SIGINT);
    if (holds(job, meld->fail_at))
        job->done(job->arg, -EIO, NULL, 0, &err);
    else
        job->done(job->arg, 0, iov, holds(job, meld->short_at) ? 1 : 2, NULL);
    free(bytes);
}

static void *work(void *arg)
{
    struct meld *meld = arg;
    struct job *job;

    pthread_mutex_lock(&meld->lock);
    for (;;) {
        while (!meld->jobs && !meld->stop)
            pthread_cond_wait(&meld->changed, &meld->lock);
        job = meld->jobs;
        if (!job)
            break;
        meld->jobs = job->next;
        pthread_mutex_unlock(&meld->lock);
        answer(meld, job);
        free(job);
        pthread_mutex_lock(&meld->lock);
    }
    pthread_mutex_unlock(&meld->lock);
    return NULL;
}

/* The engine is the model itself. */
int meld_engine_start(struct meld_engine *engine, struct err *err)
{
    struct meld *meld = (struct meld *)engine;

    if (meld->refuse_start)
        return err_set(err, -ENOMEM, "no memory for the cache");
    meld->started = true;
    return -pthread_create(&meld->worker, NULL, work, meld);
}

void meld_engine_stop(struct meld_engine *engine)
{
    (void)engine; /* what was asked for is answered in no time */
}

static void stop(struct meld *meld)
{
    if (!meld->started)
        return;
    pthread_mutex_lock(&meld->lock);
    meld->stop = true;
    pthread_cond_signal(&meld->changed);
    pthread_mutex_unlock(&meld->lock);
    pthread_join(meld->worker, NULL);
}

size_t meld_n_files(const struct meld *meld)
{
    return sizeof(meld->files) / sizeof(meld->files[0]);
}

const struct meld_file *meld_file(const struct meld *meld, size_t index)
{
    return &meld->files[index];
}

void meld_submit(struct meld *meld, size_t index, uint64_t off, size_t len, meld_done *done, void *arg)
{
    struct job *job = malloc(sizeof(*job));

    pthread_mutex_lock(&meld->lock);
    *job = (struct job){meld->jobs, index, off, len, done, arg};
    meld->jobs = job;
    pthread_cond_signal(&meld->changed);
    pthread_mutex_unlock(&meld->lock);
}

/* ---- system calls that fail on demand ---- */

static int fail_fallocate, fail_fsync, fail_rename, fail_pwrite; /* errno, 0 for none */
static uint64_t fail_pwrite_at;
static bool short_pwrites;

int __real_fallocate64(int fd, int mode, off_t off, off_t len);
int __wrap_fallocate64(int fd, int mode, off_t off, off_t len);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_renameat2(int from, const char *old, int to, const char *new, unsigned flags);
int __wrap_renameat2(int from, const char *old, int to, const char *new, unsigned flags);
ssize_t __real_pwrite64(int fd, const void *buf, size_t len, off_t off);
ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t off);

int __wrap_fallocate64(int fd, int mode, off_t off, off_t len)
{
    errno = fail_fallocate;
    return fail_fallocate ? -1 : __real_fallocate64(fd, mode, off, len);
}

int __wrap_fsync(int fd)
{
    errno = fail_fsync;
    return fail_fsync ? -1 : __real_fsync(fd);
}

int __wrap_renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
    errno = fail_rename;
    return fail_rename && strcmp(new, "zero") == 0 ? -1 : __real_renameat2(from, old, to, new, flags);
}

ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t off)
{
    if (fail_pwrite && (uint64_t)off <= fail_pwrite_at && fail_pwrite_at < (uint64_t)off + len) {
        errno = fail_pwrite;
        return -1;
    }
    return __real_pwrite64(fd, buf, short_pwrites && len > 1000 ? 1000 : len, off);
}

static int setup(void **state)
{
    fail_fallocate = fail_fsync = fail_rename = fail_pwrite = 0;
    short_pwrites = false;
    return scratch_setup(state);
}

/* ---- checks ---- */

static int run(struct meld *meld)
{
    int status = export_run((struct meld_engine *)meld, meld, scratch_path("out"));

    stop(meld);
    return status;
}

static void check_file(const struct meld *meld, size_t index)
{
    const struct meld_file *file = &meld->files[index];
    char path[512];
    uint64_t n = 0;
    FILE *in;
    int c;

    snprintf(path, sizeof(path), "%s/%s", scratch_path("out"), file->path);
    in = fopen(path, "re");
    assert_non_null(in);
    for (; (c = getc_unlocked(in)) != EOF; n++)
        if (c != (unsigned char)(n * 31 + index))
            fail_msg("%s: byte %llu is %d", file->path, (unsigned long long)n, c);
    fclose(in);
    assert_int_equal(n, file->size);
}

static void check_files(const struct meld *meld)
{
    struct stat st;

    for (size_t i = 0; i < meld_n_files(meld); i++)
        check_file(meld, i);
    assert_int_equal(stat(scratch_path("out/.model.safetensors.partial"), &st), -1);
}

static void check_nothing(void)
{
    struct stat st;

    assert_int_equal(stat(scratch_path("out"), &st), -1);
    assert_int_equal(errno, ENOENT);
}

static void fails_and_leaves_nothing(struct meld *meld)
{
    assert_int_equal(run(meld), 1);
    check_nothing();
}

/* ---- tests ---- */

static void all_bytes_arrive(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    assert_int_equal(run(&meld), 0);
    check_files(&meld);
}

static void a_folder_with_other_files_is_taken(void **state)
{
    struct meld meld = new_meld();
    struct stat st;

    (void)state;
    put_text("out/sub/other", "mine");
    put_text("out/.model.safetensors.partial", "of an export that was killed");
    assert_int_equal(run(&meld), 0);
    check_files(&meld);
    assert_int_equal(stat(scratch_path("out/sub/other"), &st), 0);
}

static void the_models_names_must_be_free(void **state)
{
    struct meld meld = new_meld();
    struct stat st;

    (void)state;
    put_text("out/sub/deep/x", "mine");
    assert_int_equal(run(&meld), 1);
    assert_int_equal(stat(scratch_path("out/sub/deep/x"), &st), 0);
    assert_int_equal(st.st_size, 4);
    assert_int_equal(stat(scratch_path("out/config.json"), &st), -1);
    assert_int_equal(unlink(scratch_path("out/sub/deep/x")), 0);
    put_text("out/sub/deep/other", "");
    meld = new_meld();
    assert_int_equal(symlink("nowhere", scratch_path("out/zero")), 0);
    assert_int_equal(run(&meld), 1);
    assert_int_equal(lstat(scratch_path("out/zero"), &st), 0);
}

static void folders_that_cannot_be(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    put_text("file", "");
    assert_int_equal(export_run((struct meld_engine *)&meld, &meld, scratch_path("file")), 1);
    assert_int_equal(export_run((struct meld_engine *)&meld, &meld, scratch_path("file/below")), 1);
    assert_int_equal(export_run((struct meld_engine *)&meld, &meld, scratch_path("no/where")), 1);
}

static void a_failure_leaves_nothing(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    meld.fail_at = 20 * MIB;
    fails_and_leaves_nothing(&meld);
}

static void a_failure_leaves_what_was_there(void **state)
{
    struct meld meld = new_meld();
    struct stat st;

    (void)state;
    put_text("out/sub/other", "mine");
    meld.fail_at = 0;
    assert_int_equal(run(&meld), 1);
    assert_int_equal(stat(scratch_path("out/sub/other"), &st), 0);
    assert_int_equal(stat(scratch_path("out/sub/deep"), &st), -1);
    assert_int_equal(stat(scratch_path("out/.config.json.partial"), &st), -1);
}

static void a_short_answer_is_a_failure(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    meld.short_at = 40 * MIB + 5;
    fails_and_leaves_nothing(&meld);
}

static void an_engine_that_does_not_start(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    meld.refuse_start = true;
    fails_and_leaves_nothing(&meld);
}

static void a_signal_ends_it(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    meld.signal_at = 10 * MIB;
    fails_and_leaves_nothing(&meld);
}

static void two_do_not_write_into_one_folder(void **state)
{
    struct meld meld = new_meld();
    struct stat st;
    int folder;

    (void)state;
    assert_int_equal(mkdir(scratch_path("out"), 0755), 0);
    folder = open(scratch_path("out"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(flock(folder, LOCK_EX), 0);
    assert_int_equal(run(&meld), 1);
    assert_int_equal(stat(scratch_path("out/.config.json.partial"), &st), -1);
    close(folder);
}

static void more_than_the_disk_holds(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    meld.files[1].size = (uint64_t)1 << 60;
    fails_and_leaves_nothing(&meld);
}

static void a_disk_that_fills_up(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    fail_fallocate = ENOSPC;
    fails_and_leaves_nothing(&meld);
}

static void a_file_system_without_fallocate(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    fail_fallocate = EOPNOTSUPP;
    assert_int_equal(run(&meld), 0);
    check_files(&meld);
}

static void writes_that_fail(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    fail_pwrite = EIO;
    fail_pwrite_at = 39 * MIB;
    fails_and_leaves_nothing(&meld);
}

static void writes_that_are_short(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    meld.files[1].size = 2 * MIB + 7;
    short_pwrites = true;
    assert_int_equal(run(&meld), 0);
    check_files(&meld);
}

static void a_disk_that_lost_bytes(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    fail_fsync = EIO;
    fails_and_leaves_nothing(&meld);
}

static void renames_that_fail(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    fail_rename = EACCES; /* of the last: those before are taken back */
    fails_and_leaves_nothing(&meld);
}

static void a_file_system_without_noreplace(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    fail_rename = EINVAL;
    assert_int_equal(run(&meld), 0);
    check_files(&meld);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_bytes_arrive),
        TEST(a_folder_with_other_files_is_taken),
        TEST(the_models_names_must_be_free),
        TEST(folders_that_cannot_be),
        TEST(a_failure_leaves_nothing),
        TEST(a_failure_leaves_what_was_there),
        TEST(a_short_answer_is_a_failure),
        TEST(an_engine_that_does_not_start),
        TEST(a_signal_ends_it),
        TEST(two_do_not_write_into_one_folder),
        TEST(more_than_the_disk_holds),
        TEST(a_disk_that_fills_up),
        TEST(a_file_system_without_fallocate),
        TEST(writes_that_fail),
        TEST(writes_that_are_short),
        TEST(a_disk_that_lost_bytes),
        TEST(renames_that_fail),
        TEST(a_file_system_without_noreplace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
