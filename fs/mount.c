#include "mount.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cachedir.h"
#include "cli.h"
#include "control.h"
#include "meld.h"
#include "mountinfo.h"
#include "place.h"
#include "recipes.h"
#include "self.h"
#include "session.h"

#define PLAN_SHARE 16 /* plans in a folder of recipes may hold one in so many bytes of the cache */

struct mounting {
    const struct mount_request *request;
    struct meld_engine *engine; /* NULL once the session has it, and so are recipes */
    struct planner planner;
    struct recipes *recipes;
    char *config, *cwd, *mountpoint; /* absolute */
    bool folder;                     /* config is one, of recipes */
    int ready_fd;                    /* the parent waits at its other end; -1 in the foreground */
};

/* A single recipe's plan stays. */
static int make_engine(struct mounting *m, struct err *err)
{
    const struct mount_options *options = &m->request->options;
    size_t cache_bytes = options->cache_bytes ? options->cache_bytes : MELD_CACHE_DEFAULT;
    char *stats_dir = options->no_stats ? NULL : cachedir_path();
    int ret =
        meld_engine_new(&(struct meld_engine_options){.cache_bytes = options->cache_bytes,
                                                      .n_threads = options->n_threads,
                                                      .stats_dir = stats_dir,
                                                      .plan_bytes = m->folder ? cache_bytes / PLAN_SHARE : 0},
                        &m->engine, err);

    free(stats_dir);
    return ret;
}

/* The files of a model would be taken for recipes. */
static int refuse_served(const char *config, struct err *err)
{
    struct mount_place place;
    int ret = place_find(config, NULL, 0, &place, err);

    if (ret == 0 && place.mountpoint)
        ret = err_set(err, -EINVAL,
                      "%s: is served by the mount at %s already; `meldfs yaml` prints a recipe to be mounted",
                      config, place.mountpoint);
    place_fini(&place);
    return ret;
}

/* A link to a merge file is not followed here: it may lead elsewhere one day. */
static int find_config(struct mounting *m, struct err *err)
{
    const char *config = m->request->config;
    struct stat st;

    if (stat(config, &st) < 0)
        return err_set(err, -errno, "%s: %s", config, strerror(errno));
    m->folder = S_ISDIR(st.st_mode);
    if (!m->folder) {
        m->config = mountinfo_absolute(config, err);
        return m->config ? 0 : -ENOENT;
    }
    m->config = realpath(config, NULL);
    if (!m->config)
        return err_set(err, -errno, "%s: %s", config, strerror(errno));
    return refuse_served(config, err);
}

static int make_recipes(struct mounting *m, struct err *err)
{
    const struct mount_request *request = m->request;

    m->cwd = request->fstab ? NULL : getcwd(NULL, 0);
    m->planner.engine = m->engine;
    m->planner.cwd = m->cwd;
    m->planner.yaml_dir_only = request->fstab;
    m->planner.strict = request->options.strict;
    m->planner.seed = request->options.seed;
    m->planner.set = request->set;
    m->planner.n_set = request->n_set;
    m->recipes = recipes_new(&m->planner, m->config, m->folder);
    return m->recipes ? 0 : err_set(err, -ENOMEM, "out of memory");
}

struct told {
    bool wrong;
};

static void tell_problems(void *arg, const char *path, const struct report *report, int code)
{
    struct told *told = arg;

    (void)path;
    told->wrong |= code < 0;
    cli_report(report, code);
}

/* In a folder, what is wrong is left out; a single recipe must be good. */
static int plan(struct mounting *m)
{
    struct told told = {false};
    const struct recipes_hooks hooks = {.tell = tell_problems, .arg = &told};
    struct err err;
    int ret = find_config(m, &err);

    if (ret == 0)
        ret = make_engine(m, &err);
    if (ret == 0)
        ret = make_recipes(m, &err);
    if (ret == 0)
        ret = recipes_scan(m->recipes, true, &hooks, &err);
    if (ret < 0)
        cli_say("%s", err.text);
    else if (told.wrong && !m->folder)
        ret = -EINVAL;
    return ret;
}

/* The kernel answers a stat of a dead mount from its cache, but not a statfs. A daemon that hangs would not
 * let that return, so its socket is asked first. */
static bool has_died(const struct mount_entry *mount)
{
    struct err err;
    struct statfs st;
    pid_t pid = 0;
    char *text;
    int ret = control_ask(mount, &text, &pid, &err);

    free(text);
    return (ret == -ENOENT || ret == -ECONNREFUSED) && statfs(mount->mountpoint, &st) < 0 &&
           errno == ENOTCONN;
}

static int refuse_mounted(const struct mount_entry *mount, struct err *err)
{
    const char *path = mount->mountpoint;

    if (has_died(mount))
        return err_set(
            err, -ENOTCONN,
            "%s: a mount whose daemon has died is still there (%s): clear it with `meldfs umount %s`", path,
            strerror(ENOTCONN), path);
    return err_set(err, -EBUSY, "%s: %s is mounted there already; `meldfs umount %s` takes it away", path,
                   mount->source, path);
}

static int check_not_mounted(const char *mountpoint, struct err *err)
{
    struct mount_list list = {0};
    const struct mount_entry *mount;
    int ret = mountinfo_read(&list, err);

    mount = ret == 0 ? mountinfo_find(&list, mountpoint) : NULL;
    if (mount)
        ret = refuse_mounted(mount, err);
    mountinfo_free(&list);
    return ret;
}

static int check_folder(const char *mountpoint, struct err *err)
{
    struct stat st;

    if (stat(mountpoint, &st) < 0) {
        if (errno == ENOENT)
            return err_set(err, -ENOENT, "%s: no such folder: make it with mkdir", mountpoint);
        return err_set(err, -errno, "%s: %s%s", mountpoint, strerror(errno),
                       errno == ENOTCONN ? ": a dead FUSE mount is there; unmount it first" : "");
    }
    if (!S_ISDIR(st.st_mode))
        return err_set(err, -ENOTDIR, "%s: not a folder, so nothing can be mounted on it", mountpoint);
    if (geteuid() != 0 && access(mountpoint, W_OK) < 0)
        return err_set(err, -EACCES, "%s: only a folder that you may write to can be mounted on", mountpoint);
    return 0;
}

static int find_mountpoint(struct mounting *m, struct err *err)
{
    char *absolute = mountinfo_absolute(m->request->mountpoint, err);
    int ret = absolute ? check_not_mounted(absolute, err) : -ENOENT;

    if (ret == 0)
        ret = check_folder(absolute, err);
    if (ret == 0) {
        m->mountpoint = realpath(absolute, NULL); /* the last component may be a link, perhaps to a mount */
        ret = m->mountpoint ? check_not_mounted(m->mountpoint, err)
                            : err_set(err, -errno, "%s: %s", absolute, strerror(errno));
    }
    free(absolute);
    return ret;
}

static int check_device(struct err *err)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC), code = errno;

    if (fd >= 0) {
        close(fd);
        return 0;
    }
    return err_set(
        err, -code,
        "/dev/fuse: %s: %s; a container must be started with --device /dev/fuse --cap-add SYS_ADMIN; where "
        "that is not to be had, `meldfs export CONFIG DIR` writes the model to disk",
        strerror(code),
        code == EACCES || code == EPERM ? "FUSE is not permitted here"
                                        : "this machine has no FUSE (modprobe fuse loads it)");
}

/* Everything that the plans read is open by now. What was open before, mount_run has closed, but for 0 to 2.
 */
static int prepare(struct mounting *m, struct err *err)
{
    int ret = find_mountpoint(m, err);

    if (ret == 0)
        ret = self_check(m->mountpoint, m->config, err);
    return ret == 0 ? check_device(err) : ret;
}

/* The pipe carries one zero byte, or the text of what went wrong. */
static int tell_parent(void *arg)
{
    const struct mounting *m = arg;

    return m->ready_fd < 0 || write(m->ready_fd, "", 1) == 1 ? 0 : -1;
}

static int serve(struct mounting *m, struct err *err)
{
    struct session_setup setup = {
        .engine = m->engine,
        .recipes = m->recipes,
        .mountpoint = m->mountpoint,
        .options = &m->request->options,
        .log = log_new(m->ready_fd >= 0),
        .debug = m->request->debug,
        .on_ready = tell_parent,
        .arg = m,
    };
    int ret;

    if (!setup.log)
        return err_set(err, -ENOMEM, "out of memory");
    mallopt(M_ARENA_MAX, 2); /* an arena a thread would cost more than the cache */
    m->engine = NULL;
    m->recipes = NULL;
    ret = session_run(&setup, err);
    log_free(setup.log);
    return ret;
}

static void detach(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    setsid();
    (void)!chdir("/");
    for (int fd = 0; null >= 0 && fd < 3; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
}

static int be_daemon(struct mounting *m)
{
    struct err err;
    int ret;

    detach();
    ret = serve(m, &err);
    if (ret < 0)
        (void)!write(m->ready_fd, err.text, strlen(err.text));
    return ret < 0;
}

static int tell_end(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status))
        cli_say("the daemon was ended by signal %d (%s) before the mount answered", WTERMSIG(status),
                strsignal(WTERMSIG(status)));
    else
        cli_say("the daemon ended before the mount answered (status %d)", WEXITSTATUS(status));
    return 1;
}

static int wait_for_daemon(pid_t pid, int fd)
{
    char text[sizeof(((struct err *)0)->text)];
    size_t len = 0;
    ssize_t got;

    while ((got = read(fd, text + len, sizeof(text) - 1 - len)) != 0) {
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            break;
        if (len == 0 && text[0] == '\0')
            return 0;
        len += (size_t)got;
    }
    if (len == 0)
        return tell_end(pid);
    text[len] = '\0';
    cli_say("%s", text);
    waitpid(pid, NULL, 0);
    return 1;
}

/* Does the mount answer? Asked by the parent, which the daemon's end sets free. */
static int probe(const char *mountpoint)
{
    struct stat st;

    if (stat(mountpoint, &st) == 0)
        return 0;
    cli_say("%s: mounted, but it does not answer: %s", mountpoint, strerror(errno));
    return 1;
}

static int start_daemon(struct mounting *m)
{
    int fds[2], status;
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0) {
        cli_say("pipe: %s", strerror(errno));
        return 1;
    }
    fflush(NULL);
    pid = fork();
    m->ready_fd = fds[1];
    if (pid == 0) {
        close(fds[0]);
        return be_daemon(m);
    }
    close(fds[1]);
    if (pid < 0)
        cli_say("fork: %s", strerror(errno));
    status = pid < 0 ? 1 : wait_for_daemon(pid, fds[0]);
    if (status == 0)
        status = probe(m->mountpoint);
    close(fds[0]);
    return status;
}

static int start_foreground(struct mounting *m)
{
    struct err err;
    int ret = serve(m, &err);

    if (ret == -EINTR) /* a signal that came before anyone could read is as good as one that came later */
        ret = 0;
    if (ret < 0)
        cli_say("%s", err.text);
    return ret < 0;
}

int mount_run(const struct mount_request *request)
{
    struct mounting m = {.request = request, .ready_fd = -1};
    struct err err;
    int status = 1, ret;

    /* A daemon that kept the caller's descriptors would hold his locks and pipes for as long as it lives. */
    if (!request->foreground)
        close_range(3, ~0U, 0);
    ret = plan(&m);
    if (ret == 0 && request->fake)
        status = 0;
    else if (ret == 0 && prepare(&m, &err) < 0)
        cli_say("%s", err.text);
    else if (ret == 0)
        status = request->foreground ? start_foreground(&m) : start_daemon(&m);
    recipes_free(m.recipes);
    meld_engine_free(m.engine);
    free(m.config);
    free(m.cwd);
    free(m.mountpoint);
    return status;
}
