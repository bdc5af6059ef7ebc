#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cli.h"
#include "control.h"
#include "mountinfo.h"
#include "ops.h"
#include "reply.h"
#include "unmount.h"
#include "upkeep.h"

#define READ_AHEAD_KB 4096 /* default 128: the difference is a factor of three for a sequential reader */
#define N_FUSE_THREADS 4   /* they only submit */
#define WAKE_MS 20

struct session {
    const struct session_setup *setup;
    struct meld_engine *engine; /* NULL once freed */
    struct upkeep *upkeep;
    struct ops ops;
    struct replies replies;
    struct fuse_session *fuse;
    unsigned major, minor; /* of the mount; 0:0 if it is not known */
    int init_fd, asked_fd, stop_fd, signal_fd;
    pthread_t main_thread, watcher;
    /* The watcher's alone until it is joined. */
    struct control control;
    bool ready, ending;
    struct err err; /* why it never got ready */
};

static void raise_event(int fd)
{
    (void)!write(fd, &(uint64_t){1}, sizeof(uint64_t));
}

static void on_init(void *arg)
{
    raise_event(((struct session *)arg)->init_fd);
}

static void on_asked(void *arg)
{
    raise_event(((struct session *)arg)->asked_fd);
}

static void wake(int signo)
{
    (void)signo;
}

/* Every thread blocks the signals that end the mount and the watcher takes them from a descriptor, so one
 * that comes between mounting and looping is not lost. SIGUSR1 only wakes the main thread out of libfuse's
 * loop. */
static int setup_signals(struct session *s, struct err *err)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN}, woken = {.sa_handler = wake};
    sigset_t set, all;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    all = set;
    sigaddset(&all, SIGUSR1);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGUSR1, &woken, NULL);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    s->init_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->asked_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->signal_fd < 0 || s->init_fd < 0 || s->asked_fd < 0 || s->stop_fd < 0)
        return err_set(err, -errno, "signalfd: %s", strerror(errno));
    return 0;
}

static int forget_name(void *arg, uint64_t parent, const char *name)
{
    const struct session *s = arg;

    return fuse_lowlevel_notify_inval_entry(s->fuse, parent, name, strlen(name));
}

static int make_upkeep(struct session *s, struct err *err)
{
    const struct upkeep_setup setup = {
        .recipes = s->setup->recipes,
        .log = s->setup->log,
        .mountpoint = s->setup->mountpoint,
        .forget = forget_name,
        .arg = s,
    };
    int ret = upkeep_new(&setup, &s->upkeep, err);

    if (ret < 0)
        return ret;
    s->ops.names = upkeep_names(s->upkeep);
    s->replies = (struct replies){s->engine, s->ops.names, cli_clock()};
    return 0;
}

static int make_fuse_session(struct session *s, struct err *err)
{
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    char *list = NULL, *source = NULL, fixed[160];
    int ret = -ENOMEM;

    snprintf(fixed, sizeof(fixed), "ro,nosuid,nodev,noexec,default_permissions,max_read=%u,subtype=meldfs%s",
             OPS_MAX_READ, s->setup->options->allow_other ? ",allow_other" : "");
    if (asprintf(&source, "fsname=%s", recipes_path(s->setup->recipes)) < 0)
        source = NULL;
    if (source && fuse_opt_add_opt(&list, fixed) == 0 && fuse_opt_add_opt_escaped(&list, source) == 0 &&
        fuse_opt_add_arg(&args, "meldfs") == 0 && fuse_opt_add_arg(&args, "-o") == 0 &&
        fuse_opt_add_arg(&args, list) == 0 && (!s->setup->debug || fuse_opt_add_arg(&args, "-d") == 0)) {
        s->fuse = fuse_session_new(&args, &ops_table, sizeof(ops_table), &s->ops);
        ret = s->fuse ? 0 : -EINVAL;
    }
    free(source);
    free(list);
    fuse_opt_free_args(&args);
    return ret < 0 ? err_set(err, ret, "libfuse refuses the session: %s", strerror(-ret)) : 0;
}

/* What libfuse and fusermount3 write to stderr, on one line, ends up in `text`. */
static int mount_quietly(struct session *s, char *text, size_t room)
{
    int capture = memfd_create("mount", MFD_CLOEXEC), saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3), ret;
    ssize_t len = 0;

    if (capture >= 0 && saved >= 0)
        dup2(capture, STDERR_FILENO);
    ret = fuse_session_mount(s->fuse, s->setup->mountpoint);
    if (saved >= 0)
        dup2(saved, STDERR_FILENO);
    if (capture >= 0)
        len = pread(capture, text, room - 1, 0);
    while (len > 0 && text[len - 1] == '\n')
        len--;
    text[len > 0 ? len : 0] = '\0';
    for (char *c = text; *c; c++)
        if (*c == '\n')
            *c = ';';
    if (capture >= 0)
        close(capture);
    if (saved >= 0)
        close(saved);
    return ret;
}

/* From the kernel's list: asking the mount itself would wait for an answer that nobody gives yet. */
static void find_device(struct session *s)
{
    struct mount_list list = {0};
    const struct mount_entry *mount = NULL;

    if (mountinfo_read(&list, NULL) == 0)
        mount = mountinfo_find(&list, s->setup->mountpoint);
    if (mount) {
        s->major = mount->major;
        s->minor = mount->minor;
    }
    mountinfo_free(&list);
}

static int mount_it(struct session *s, struct err *err)
{
    char text[600];
    const char *hint = "";

    if (mount_quietly(s, text, sizeof(text)) == 0) {
        find_device(s);
        return 0;
    }
    if (strstr(text, "Operation not permitted"))
        hint =
            " (a container needs --device /dev/fuse and --cap-add SYS_ADMIN; where they are not to be had, "
            "`meldfs export` writes the model to disk)";
    else if (strstr(text, "exec fusermount3"))
        hint = " (install fuse3)";
    return err_set(err, -EIO, "%s: cannot mount: %s%s", s->setup->mountpoint,
                   *text ? text : "no reason given", hint);
}

/* As root only. The kernel takes the smaller of this and what it said at the start, so not before that is
 * over, as it is when the first request comes. */
static void set_read_ahead(const struct session *s)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", s->major, s->minor);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    dprintf(fd, "%d", READ_AHEAD_KB);
    close(fd);
}

/* Nothing here may touch the mount: a thread of the daemon that waits for the daemon could not be killed. */
static int become_ready(struct session *s)
{
    struct err err;

    if (control_open(&s->control, s->major, s->minor, &err) < 0)
        log_line(s->setup->log, LOG_WARNING, "%s: `meldfs status` will not reach it: %s",
                 s->setup->mountpoint, err.text);
    if (s->setup->on_ready(s->setup->arg) != 0)
        return err_set(&s->err, -EPIPE, "%s: nobody waits for the mount any more", s->setup->mountpoint);
    s->ready = true;
    return 0;
}

static void take_signal(struct session *s)
{
    struct signalfd_siginfo info;

    if (read(s->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    if (info.ssi_signo == SIGHUP)
        upkeep_reload(s->upkeep);
    else
        s->ending = true;
}

/* libfuse 3.14 looks at the flag only when it wakes, and a signal may come just before it sleeps: say it
 * again until the loop has ended. */
static void end_loop(const struct session *s)
{
    fuse_session_exit(s->fuse);
    pthread_kill(s->main_thread, SIGUSR1);
}

static void *watch(void *arg)
{
    struct session *s = arg;
    struct pollfd fds[] = {{s->stop_fd, POLLIN, 0},
                           {s->signal_fd, POLLIN, 0},
                           {s->init_fd, POLLIN, 0},
                           {s->asked_fd, POLLIN, 0}};

    for (;;) {
        if (poll(fds, 4, s->ending ? WAKE_MS : -1) < 0 && errno != EINTR)
            s->ending = true;
        if (fds[0].revents)
            return NULL;
        if (fds[1].revents)
            take_signal(s);
        if (fds[2].revents && s->ready) {
            control_serve(&s->control, reply, &s->replies);
        } else if (fds[2].revents && !s->ending) {
            s->ending = become_ready(s) < 0;
            fds[2].fd = s->control.fd;
        }
        if (fds[3].revents) {
            set_read_ahead(s);
            fds[3].fd = -1;
        }
        if (s->ending) {
            fds[2].fd = -1;
            upkeep_stop(s->upkeep); /* it may wait for the kernel, which waits for the loop */
            end_loop(s);
        }
    }
}

static int run_loop(struct session *s)
{
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    sigset_t set;
    int ret;

    if (!config)
        return -ENOMEM;
    fuse_loop_cfg_set_clone_fd(config, 0);
    fuse_loop_cfg_set_max_threads(config, N_FUSE_THREADS);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    ret = fuse_session_loop_mt(s->fuse, config);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    fuse_loop_cfg_destroy(config);
    return ret;
}

static int serve(struct session *s, struct err *err)
{
    const struct mount_options *options = s->setup->options;
    int ret = meld_engine_start(s->engine, err);

    if (ret == 0 && !options->no_prefetch)
        ret = prefetch_new(options->cache_bytes ? options->cache_bytes : MELD_CACHE_DEFAULT, &s->ops.prefetch,
                           err);
    if (ret < 0)
        return ret;
    if (meld_engine_problem(s->engine))
        log_line(s->setup->log, LOG_WARNING, "%s", meld_engine_problem(s->engine));
    ret = upkeep_start(s->upkeep, err);
    if (ret < 0)
        return ret;
    ret = pthread_create(&s->watcher, NULL, watch, s);
    if (ret > 0)
        return err_set(err, -ret, "cannot start a thread: %s", strerror(ret));
    ret = run_loop(s);
    raise_event(s->stop_fd);
    pthread_join(s->watcher, NULL);
    upkeep_stop(s->upkeep);
    control_close(&s->control);
    if (s->ready)
        return 0;
    *err = s->err;
    if (err->text[0])
        return -EIO;
    if (s->ending)
        return err_set(err, -EINTR, "%s: told to end before the mount answered", s->setup->mountpoint);
    return err_set(err, -EIO, "%s: the mount was taken away before it answered%s%s", s->setup->mountpoint,
                   ret < 0 ? ": " : "", ret < 0 ? strerror(-ret) : "");
}

/* libfuse leaves the mount where the connection was aborted from outside. */
static void remove_mount(const struct session *s)
{
    struct mount_list list = {0};
    const struct mount_entry *mount = NULL;

    fuse_session_unmount(s->fuse);
    if (mountinfo_read(&list, NULL) == 0)
        mount = mountinfo_find(&list, s->setup->mountpoint);
    if (mount && s->minor && mount->major == s->major && mount->minor == s->minor)
        unmount_now(s->setup->mountpoint, true, NULL);
    mountinfo_free(&list);
}

static int run(struct session *s, struct err *err)
{
    int ret = make_upkeep(s, err);

    if (ret == 0)
        ret = setup_signals(s, err);
    if (ret == 0)
        ret = make_fuse_session(s, err);
    if (ret == 0)
        ret = mount_it(s, err);
    if (ret < 0)
        return ret;
    ret = serve(s, err);
    upkeep_stop(s->upkeep);
    prefetch_stop(s->ops.prefetch);
    meld_engine_stop(
        s->engine); /* statistics of a large tensor take long, and nobody waits for them any more */
    prefetch_free(s->ops.prefetch);
    meld_engine_free(s->engine); /* workers may be writing replies to the descriptor that unmounting closes */
    s->engine = NULL;
    remove_mount(s);
    return ret;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

int session_run(const struct session_setup *setup, struct err *err)
{
    struct session s = {.setup = setup,
                        .engine = setup->engine,
                        .init_fd = -1,
                        .asked_fd = -1,
                        .stop_fd = -1,
                        .signal_fd = -1,
                        .main_thread = pthread_self(),
                        .control = {.fd = -1}};
    int ret;

    s.ops = (struct ops){.log = setup->log,
                         .uid = getuid(),
                         .gid = getgid(),
                         .on_init = on_init,
                         .on_asked = on_asked,
                         .arg = &s};
    ops_init(&s.ops);
    err_set(err, 0, "%s", "");
    ret = run(&s, err);
    meld_engine_free(s.engine);
    if (s.fuse)
        fuse_session_destroy(s.fuse);
    ops_fini(&s.ops);
    upkeep_free(s.upkeep);
    recipes_free(setup->recipes);
    close_if_open(s.init_fd);
    close_if_open(s.asked_fd);
    close_if_open(s.stop_fd);
    close_if_open(s.signal_fd);
    return ret;
}
