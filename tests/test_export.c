#include "export.h"

#include "scratch_dir.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>

#define MIB ((uint64_t)1 << 20)
#define NEVER UINT64_MAX

/* An engine of five files whose byte at `off` is off * 31 + the file's number; a thread answers, last come
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
    struct meld_file files[5];
    uint64_t fingerprint;
    struct export_options options;
    uint64_t fail_at, short_at, signal_at; /* in file 1 */
    uint64_t copy_from, copy_to;           /* of file 2: what the kernel can copy */
    bool copy_fails;
    unsigned slow_us; /* for each answer */
    bool refuse_start;
    uint64_t asked_from, copied; /* least offset asked for in file 1; bytes of file 2 */
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
                  {"more.safetensors", 5 * MIB + 1, true},
                  {"sub/deep/x", 3},
                  {"zero", 0}},
        .fingerprint = 0x123456789abcdef0,
        .asked_from = NEVER,
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
    if (meld->slow_us)
        nanosleep(&(struct timespec){0, (long)meld->slow_us * 1000}, NULL);
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

uint64_t meld_fingerprint(const struct meld *meld)
{
    return meld->fingerprint;
}

ssize_t meld_copy(struct meld *meld, size_t index, uint64_t off, size_t len, int fd, struct err *err)
{
    size_t n = 0;

    if (index != 2 || off < meld->copy_from || off >= meld->copy_to)
        return 0;
    if (meld->copy_fails)
        return err_set(err, -EIO, "source.safetensors: changed since it was opened");
    for (; n < len && off + n < meld->copy_to; n++) {
        unsigned char byte = (unsigned char)((off + n) * 31 + index);
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)(off + n)), 1);
    }
    ((struct meld *)(uintptr_t)meld)->copied += n;
    return (ssize_t)n;
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
    if (index == 1 && off < meld->asked_from)
        meld->asked_from = off;
    *job = (struct job){meld->jobs, index, off, len, done, arg};
    meld->jobs = job;
    pthread_cond_signal(&meld->changed);
    pthread_mutex_unlock(&meld->lock);
}

/* ---- system calls that fail on demand ---- */

static int fail_fallocate, fail_fsync, fail_rename, fail_pwrite; /* errno, 0 for none */
static int good_fsyncs;                                          /* before those that fail */
static bool fail_every_rename;
static uint64_t fail_pwrite_at;
static bool short_pwrites;
static unsigned n_unlocked; /* partial files that somebody else could have locked when they got their names */
static bool folder_synced;  /* out/sub/deep */

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
    char link[64], path[512];
    ssize_t len;

    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    len = readlink(link, path, sizeof(path) - 1);
    path[len > 0 ? len : 0] = '\0';
    folder_synced |= strcmp(path, scratch_path("out/sub/deep")) == 0;
    if (!fail_fsync || good_fsyncs-- > 0)
        return __real_fsync(fd);
    errno = fail_fsync;
    return -1;
}

int __wrap_renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
    int file = strstr(old, ".partial") ? openat(from, old, O_RDONLY | O_CLOEXEC) : -1;

    n_unlocked += file >= 0 && flock(file, LOCK_SH | LOCK_NB) == 0;
    if (file >= 0)
        close(file);
    errno = fail_rename;
    return fail_rename && (fail_every_rename || strcmp(new, "zero") == 0)
               ? -1
               : __real_renameat2(from, old, to, new, flags);
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
    good_fsyncs = 0;
    short_pwrites = fail_every_rename = folder_synced = false;
    n_unlocked = 0;
    return scratch_setup(state);
}

/* ---- checks ---- */

static int run(struct meld *meld)
{
    int status = export_run((struct meld_engine *)meld, meld, scratch_path("out"), &meld->options);

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

static bool is_there(const char *name)
{
    struct stat st;

    return lstat(scratch_path(name), &st) == 0;
}

/* Hidden names are those of what is not finished. */
static int n_hidden(void)
{
    DIR *dir = opendir(scratch_path("out"));
    struct dirent *entry;
    int n = 0;

    while (dir && (entry = readdir(dir)))
        n += entry->d_name[0] == '.' && strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    if (dir)
        closedir(dir);
    return n;
}

static void check_files(const struct meld *meld)
{
    for (size_t i = 0; i < meld_n_files(meld); i++)
        check_file(meld, i);
    assert_int_equal(n_hidden(), 0);
}

static void check_nothing(void)
{
    struct stat st;

    assert_int_equal(stat(scratch_path("out"), &st), -1);
    assert_int_equal(errno, ENOENT);
}

/* Some of the first weight file is kept, and nothing that looks whole; the same again goes on. */
static void fails_and_goes_on(struct meld *meld)
{
    struct meld again = new_meld();

    assert_int_equal(run(meld), 1);
    assert_true(is_there("out/.model.safetensors.partial"));
    assert_true(is_there("out/.model.safetensors.synced"));
    assert_false(is_there("out/config.json") || is_there("out/model.safetensors") || is_there("out/sub"));
    fail_pwrite = fail_fsync = 0;
    assert_int_equal(run(&again), 0);
    assert_true(again.asked_from >= 10 * MIB - 6 * MIB);
    check_files(&again);
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

/* A name in the folder does not lead the export out of it. */
static void a_subfolder_that_is_a_symlink(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    put_text("elsewhere/deep/x.txt", "");
    assert_int_equal(mkdir(scratch_path("out"), 0755), 0);
    assert_int_equal(symlink("../elsewhere", scratch_path("out/sub")), 0);
    assert_int_equal(run(&meld), 1);
    assert_false(is_there("elsewhere/deep/x") || is_there("elsewhere/deep/.x.partial"));
    assert_false(is_there("out/config.json"));
}

static void folders_that_cannot_be(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    put_text("file", "");
    assert_int_equal(export_run((struct meld_engine *)&meld, &meld, scratch_path("file"), &meld.options), 1);
    assert_int_equal(
        export_run((struct meld_engine *)&meld, &meld, scratch_path("file/below"), &meld.options), 1);
    assert_int_equal(export_run((struct meld_engine *)&meld, &meld, scratch_path("no/where"), &meld.options),
                     1);
}

static void a_failure_keeps_what_is_written(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    meld.fail_at = 20 * MIB;
    fails_and_goes_on(&meld);
}

static void a_failure_at_once_leaves_nothing(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    meld.fail_at = 0;
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
    fails_and_goes_on(&meld);
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
    fails_and_goes_on(&meld);
}

/* Under nohup; a blocked signal would come although it is ignored. */
static void a_signal_that_is_ignored_does_not(void **state)
{
    struct meld meld = new_meld();
    int status;

    (void)state;
    meld.signal_at = 10 * MIB;
    signal(SIGINT, SIG_IGN);
    status = run(&meld);
    signal(SIGINT, SIG_IGN); /* other tests have it blocked: what has come is dropped */
    signal(SIGINT, SIG_DFL);
    assert_int_equal(status, 0);
    check_files(&meld);
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
    fails_and_goes_on(&meld);
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
    meld = new_meld();
    good_fsyncs = 2; /* the record and config.json: then the weights are not sure to be there */
    fails_and_leaves_nothing(&meld);
}

/* Of the last: those before have their names, and the same again goes on. */
static void renames_that_fail(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    fail_rename = EACCES;
    assert_int_equal(run(&meld), 1);
    assert_true(is_there("out/model.safetensors"));
    assert_false(is_there("out/zero"));
    fail_rename = 0;
    meld = new_meld();
    assert_int_equal(run(&meld), 0);
    assert_int_equal(meld.asked_from, NEVER);
    check_files(&meld);
}

static void a_file_system_without_noreplace(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    fail_rename = EINVAL;
    fail_every_rename = true;
    assert_int_equal(run(&meld), 0);
    check_files(&meld);
}

/* Else a second export of the same part might begin one anew just then. */
static void names_are_given_under_the_lock(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    assert_int_equal(run(&meld), 0);
    assert_int_equal(n_unlocked, 0);
}

static void folders_that_were_there_are_synced(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    put_text("out/sub/deep/other", "");
    assert_int_equal(run(&meld), 0);
    assert_true(folder_synced);
}

/* ---- going on ---- */

static void another_recipe_is_not_mixed_in(void **state)
{
    struct meld meld = new_meld(), other = new_meld();

    (void)state;
    meld.fail_at = 20 * MIB;
    assert_int_equal(run(&meld), 1);
    other.fingerprint++;
    assert_int_equal(run(&other), 1);
    assert_true(is_there("out/.model.safetensors.synced"));
    other = new_meld();
    other.fingerprint++;
    other.options.afresh = true;
    assert_int_equal(run(&other), 0);
    assert_int_equal(other.asked_from, 0);
    check_files(&other);
}

/* Each way in which a journal or a partial file may be wrong: it is as if there were none. */
static void damage_is_not_gone_on_from(void **state)
{
    static const char *const files[] = {"out/.model.safetensors.synced", "out/.model.safetensors.partial"};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct meld meld = new_meld(), again = new_meld();
        meld.fail_at = 20 * MIB;
        assert_int_equal(run(&meld), 1);
        if (i < 2)
            assert_int_equal(truncate(scratch_path(files[i]), 17), 0);
        else
            assert_int_equal(unlink(scratch_path(files[i - 2])), 0);
        assert_int_equal(run(&again), 0);
        assert_int_equal(again.asked_from, 0);
        check_files(&again);
        for (size_t k = 0; k < meld_n_files(&meld); k++) {
            char name[64];
            snprintf(name, sizeof(name), "out/%s", meld.files[k].path);
            assert_int_equal(unlink(scratch_path(name)), 0);
        }
    }
}

static void a_damaged_record_is_replaced(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    put_text("out/.meldfs-export", "meldfs-export 1 0");
    assert_int_equal(run(&meld), 0);
    check_files(&meld);
}

/* Told by its name. */
static void a_record_that_cannot_be_written(void **state)
{
    struct meld meld = new_meld();
    char said[1024];
    size_t len;
    FILE *in;
    int saved = dup(STDERR_FILENO);

    (void)state;
    put_text("out/.meldfs-export/other", "mine");
    assert_non_null(freopen(scratch_path("said"), "w", stderr));
    assert_int_equal(run(&meld), 1);
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    in = fopen(scratch_path("said"), "re");
    assert_non_null(in);
    len = fread(said, 1, sizeof(said) - 1, in);
    said[len] = '\0';
    fclose(in);
    assert_non_null(strstr(said, "/.meldfs-export: "));
    assert_true(is_there("out/.meldfs-export/other"));
}

static void what_has_a_name_must_be_of_its_size(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    meld.fail_at = 20 * MIB;
    assert_int_equal(run(&meld), 1);
    put_text("out/zero", "mine");
    meld = new_meld();
    assert_int_equal(run(&meld), 1);
    assert_true(is_there("out/zero") && is_there("out/.model.safetensors.synced"));
}

/* In a process of its own; its pid. */
static pid_t run_apart(const struct meld *as)
{
    pid_t pid = fork();

    if (pid == 0) {
        struct meld meld = *as;
        if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
            _exit(9);
        _exit(run(&meld));
    }
    assert_true(pid > 0);
    return pid;
}

static int status_of(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static bool is_complete(void)
{
    return is_there("out/zero") && n_hidden() == 0;
}

/* The more often, the later, so that a slow machine comes to an end, too. */
static void killed_at_any_moment(void **state)
{
    struct meld meld = new_meld();
    unsigned seed = 1, n_killed = 0;

    (void)state;
    meld.slow_us = 300;
    meld.options.sync_seconds = 1e-9;
    for (int ms = 20; !is_complete(); ms += 10) {
        pid_t pid = run_apart(&meld);
        int status;

        nanosleep(&(struct timespec){0, 1000000L * (rand_r(&seed) % (ms < 900 ? ms : 900))}, NULL);
        kill(pid, SIGKILL);
        status = status_of(pid);
        assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
        n_killed += WIFSIGNALED(status);
    }
    check_files(&meld);
    assert_true(n_killed > 0);
}

/* ---- parts ---- */

static void parts_at_once(void **state)
{
    struct meld meld = new_meld();
    pid_t pids[3];

    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < 3; i++) { /* the third has no file */
            meld.options = (struct export_options){.part = i + 1, .n_parts = 3};
            meld.slow_us = (round + i) % 2 * 100;
            pids[i] = run_apart(&meld);
        }
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(status_of(pids[i]), 0);
        check_files(&meld);
        assert_int_equal(nftw(scratch_path("out"), scratch_remove, 16, FTW_DEPTH | FTW_PHYS), 0);
    }
}

static void parts_one_by_one(void **state)
{
    struct meld meld = new_meld(), other = new_meld(), first = new_meld();

    (void)state;
    meld.options = (struct export_options){.part = 2, .n_parts = 2};
    assert_int_equal(run(&meld), 0);
    check_file(&meld, 2);
    assert_false(is_there("out/config.json") || is_there("out/model.safetensors"));
    other.fingerprint++;
    other.options = (struct export_options){.part = 1, .n_parts = 2};
    assert_int_equal(run(&other), 1);
    first.options = other.options;
    assert_int_equal(run(&first), 0);
    check_files(&first);
}

/* Afresh throws away what is unfinished; where it may not write, it leaves that, too. */
static void afresh_beside_a_part_that_is_complete(void **state)
{
    struct meld second = new_meld(), other = new_meld(), first = new_meld();

    (void)state;
    second.options = (struct export_options){.part = 2, .n_parts = 2};
    assert_int_equal(run(&second), 0);
    other.fingerprint++;
    other.options.afresh = true;
    assert_int_equal(run(&other), 1);
    first.options = (struct export_options){.part = 1, .n_parts = 2};
    assert_int_equal(run(&first), 0);
    check_files(&first);
}

/* A part that fails before it wrote anything takes nothing from the others. */
static void a_part_that_fails(void **state)
{
    struct meld second = new_meld(), first = new_meld();

    (void)state;
    second.options = (struct export_options){.part = 2, .n_parts = 2};
    first.options = (struct export_options){.part = 1, .n_parts = 2};
    first.fail_at = 0;
    assert_int_equal(run(&second), 0);
    assert_int_equal(run(&first), 1);
    check_file(&second, 2);
    first = new_meld();
    first.options = (struct export_options){.part = 1, .n_parts = 2};
    assert_int_equal(run(&first), 0);
    check_files(&first);
}

static void a_part_twice_at_once(void **state)
{
    struct meld meld = new_meld();
    int file;

    (void)state;
    put_text("out/.model.safetensors.partial", "");
    file = open(scratch_path("out/.model.safetensors.partial"), O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(file, LOCK_EX), 0);
    meld.options = (struct export_options){.part = 1, .n_parts = 2};
    assert_int_equal(run(&meld), 1);
    assert_true(is_there("out/.model.safetensors.partial"));
    close(file);
}

static void part_numbers(void **state)
{
    static const char *const wrong[] = {"",     "1",    "0/2",  "3/2",  "1/2/", "1/ 2",
                                        " 1/2", "+1/2", "01/2", "-1/2", "1/0"};
    struct export_options options = {0};

    (void)state;
    assert_int_equal(export_parse_part("3/12", &options), 0);
    assert_int_equal(options.part, 3);
    assert_int_equal(options.n_parts, 12);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(export_parse_part(wrong[i], &options), -EINVAL);
    assert_int_equal(options.part, 3);
}

/* ---- copies ---- */

static void copied_by_the_kernel(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    meld.copy_from = MIB + 5;
    meld.copy_to = 4 * MIB + 77;
    assert_int_equal(run(&meld), 0);
    assert_true(meld.copied > 2 * MIB);
    check_files(&meld);
}

static void a_source_that_changed(void **state)
{
    struct meld meld = new_meld();

    (void)state;
    meld.copy_to = 4 * MIB;
    meld.copy_fails = true;
    assert_int_equal(run(&meld), 1);
    assert_false(is_there("out/more.safetensors") || is_there("out/model.safetensors"));
}

static void a_folder_that_cannot_be_written_to(void **state)
{
    struct meld meld = new_meld();
    pid_t pid;

    (void)state;
    assert_int_equal(mkdir(scratch_path("out"), 0555), 0);
    pid = fork();
    if (pid == 0) {
        if (geteuid() == 0 && setuid(65534) != 0)
            _exit(9);
        _exit(run(&meld));
    }
    assert_int_equal(WEXITSTATUS(status_of(pid)), 1);
    assert_int_equal(n_hidden(), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, scratch_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_bytes_arrive),
        TEST(a_folder_with_other_files_is_taken),
        TEST(the_models_names_must_be_free),
        TEST(a_subfolder_that_is_a_symlink),
        TEST(folders_that_cannot_be),
        TEST(a_failure_keeps_what_is_written),
        TEST(a_failure_at_once_leaves_nothing),
        TEST(a_failure_leaves_what_was_there),
        TEST(a_short_answer_is_a_failure),
        TEST(an_engine_that_does_not_start),
        TEST(a_signal_ends_it),
        TEST(a_signal_that_is_ignored_does_not),
        TEST(two_do_not_write_into_one_folder),
        TEST(more_than_the_disk_holds),
        TEST(a_disk_that_fills_up),
        TEST(a_file_system_without_fallocate),
        TEST(writes_that_fail),
        TEST(writes_that_are_short),
        TEST(a_disk_that_lost_bytes),
        TEST(renames_that_fail),
        TEST(a_file_system_without_noreplace),
        TEST(names_are_given_under_the_lock),
        TEST(folders_that_were_there_are_synced),
        TEST(another_recipe_is_not_mixed_in),
        TEST(damage_is_not_gone_on_from),
        TEST(a_damaged_record_is_replaced),
        TEST(a_record_that_cannot_be_written),
        TEST(what_has_a_name_must_be_of_its_size),
        TEST(killed_at_any_moment),
        TEST(parts_at_once),
        TEST(parts_one_by_one),
        TEST(afresh_beside_a_part_that_is_complete),
        TEST(a_part_that_fails),
        TEST(a_part_twice_at_once),
        TEST(part_numbers),
        TEST(copied_by_the_kernel),
        TEST(a_source_that_changed),
        TEST(a_folder_that_cannot_be_written_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
