#include "unmount.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "control.h"
#include "mountinfo.h"

#define WAIT_MS 10000

static pid_t start_fusermount(const char *mountpoint, bool lazy, int output)
{
    const char *argv[] = {"fusermount3", "-u", lazy ? "-z" : "--", lazy ? "--" : mountpoint, NULL, NULL};
    pid_t pid;

    if (lazy)
        argv[4] = mountpoint;
    pid = fork();
    if (pid != 0)
        return pid;
    if (output >= 0)
        dup2(output, STDERR_FILENO);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    dprintf(STDERR_FILENO, "fusermount3: %s (install fuse3)", strerror(errno));
    _exit(1);
}

/* fusermount3 tells why in words only. */
static int fusermount(const char *mountpoint, bool lazy, struct err *err)
{
    int output = memfd_create("fusermount3", MFD_CLOEXEC), status = 0;
    pid_t pid = start_fusermount(mountpoint, lazy, output);
    char text[512] = "";

    if (pid < 0)
        status = -1;
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (output >= 0) {
        ssize_t len = pread(output, text, sizeof(text) - 1, 0);

        text[len > 0 ? len : 0] = '\0';
        text[strcspn(text, "\n")] = '\0';
        close(output);
    }
    if (status == 0)
        return 0;
    return err_set(err, strstr(text, strerror(EBUSY)) ? -EBUSY : -EPERM, "%s",
                   *text ? text : "fusermount3 failed");
}

int unmount_now(const char *mountpoint, bool lazy, struct err *err)
{
    if (umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
        return 0;
    if (errno == EPERM)
        return fusermount(mountpoint, lazy, err);
    return err_set(err, -errno, "%s", strerror(errno));
}

/* The daemon's pid as a descriptor, so that its end can be waited for. -1: not known. */
static int watch_daemon(const struct mount_entry *mount)
{
    struct err ignored;
    pid_t pid = 0;
    char *text;
    int ret = control_ask(mount, &text, &pid, &ignored);

    free(text);
    return ret == 0 && pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}

static void wait_for_daemon(const char *mountpoint, int pidfd)
{
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};

    if (pidfd >= 0 && poll(&ended, 1, WAIT_MS) == 0)
        cli_say("%s: unmounted, but the daemon still runs: something holds a file of it open", mountpoint);
}

static int unmount_found(const struct mount_entry *mount)
{
    const char *path = mount->mountpoint;
    int pidfd = watch_daemon(mount), ret;
    struct err err;

    ret = unmount_now(path, false, &err);
    if (ret == 0)
        wait_for_daemon(path, pidfd);
    else if (ret == -EBUSY)
        cli_say("%s: in use: close what reads it or stands in it, then try again (fuser -vm %s names them)",
                path, path);
    else
        cli_say("%s: %s", path, err.text);
    if (pidfd >= 0)
        close(pidfd);
    return ret < 0;
}

int unmount_run(const char *path)
{
    struct mount_list list = {0};
    const struct mount_entry *mount = NULL;
    struct err err;
    int status = 1;

    if (mountinfo_read(&list, &err) == 0)
        mount = mountinfo_lookup(&list, path, &err);
    if (mount)
        status = unmount_found(mount);
    else
        cli_say("%s", err.text);
    mountinfo_free(&list);
    return status;
}
