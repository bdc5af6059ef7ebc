#include "control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cli.h"

#define REQUEST_MAX 8192
#define ANSWER_MAX ((size_t)16 << 20) /* a line or two a recipe, of thousands */
#define PATIENCE 2.0                  /* of a client, in seconds */
#define ASK_PATIENCE 1.0              /* of the daemon, for a request */
#define TELL_PATIENCE 1.0             /* of the daemon, until its answer is taken */

static bool is_private(int folder)
{
    struct stat st;

    return fstat(folder, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 077);
}

static int make_folder(const char *path, struct err *err)
{
    int folder;

    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_set(err, -errno, "%s: %s", path, strerror(errno));
    folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return err_set(err, -errno, "%s: %s", path, strerror(errno));
    if (is_private(folder))
        return folder;
    close(folder);
    return err_set(err, -EPERM, "%s: must be yours alone (chmod 700)", path);
}

/* sudo keeps the variable of the user who called it. */
static const char *own_runtime_dir(void)
{
    const char *path = getenv("XDG_RUNTIME_DIR");
    struct stat st;

    if (!path || path[0] != '/' || stat(path, &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return NULL;
    return path;
}

static int open_folder(struct err *err)
{
    const char *runtime = own_runtime_dir();
    char path[PATH_MAX];

    if (runtime)
        snprintf(path, sizeof(path), "%s/meldfs", runtime);
    else if (geteuid() == 0)
        snprintf(path, sizeof(path), "/run/meldfs");
    else
        snprintf(path, sizeof(path), "/tmp/meldfs-%u", (unsigned)geteuid());
    return make_folder(path, err);
}

/* Through the folder's descriptor: the real path may be longer than an address can hold. */
static struct sockaddr_un address(int folder, const char *name)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};

    snprintf(at.sun_path, sizeof(at.sun_path), "/proc/self/fd/%d/%.60s", folder, name);
    return at;
}

static int connect_to(int folder, const char *name)
{
    struct sockaddr_un at = address(folder, name);
    struct timeval patience = {.tv_sec = (time_t)PATIENCE};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), ret;

    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience,
               sizeof(patience)); /* a full backlog makes connect wait */
    if (connect(fd, (struct sockaddr *)&at, sizeof(at)) == 0)
        return fd;
    ret = -errno;
    close(fd);
    return ret;
}

static void remove_dead(int folder)
{
    int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        const char *dot = strrchr(entry->d_name, '.');
        int fd;

        if (!dot || strcmp(dot, ".sock") != 0)
            continue;
        fd = connect_to(folder, entry->d_name);
        if (fd >= 0)
            close(fd);
        else if (fd == -ECONNREFUSED)
            unlinkat(folder, entry->d_name, 0);
    }
    if (dir)
        closedir(dir);
    else if (copy >= 0)
        close(copy);
}

/* Under a temporary name until it listens: one that does not would be taken for dead. */
static int listen_at(int folder, const char *name, struct err *err)
{
    char temporary[48];
    struct sockaddr_un at;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), ret;

    snprintf(temporary, sizeof(temporary), "%s.new", name);
    at = address(folder, temporary);
    unlinkat(folder, temporary, 0);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof(at)) == 0 &&
        fchmodat(folder, temporary, 0600, 0) == 0 && listen(fd, 8) == 0 &&
        renameat(folder, temporary, folder, name) == 0)
        return fd;
    ret = err_set(err, -errno, "status socket %s: %s", name, strerror(errno));
    unlinkat(folder, temporary, 0);
    if (fd >= 0)
        close(fd);
    return ret;
}

static void socket_name(char *name, size_t room, unsigned major, unsigned minor)
{
    snprintf(name, room, "%u-%u.sock", major, minor);
}

int control_open(struct control *control, unsigned major, unsigned minor, struct err *err)
{
    control->fd = -1;
    control->folder = open_folder(err);
    if (control->folder < 0)
        return control->folder;
    remove_dead(control->folder);
    socket_name(control->name, sizeof(control->name), major, minor);
    control->fd = listen_at(control->folder, control->name, err);
    control->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (control->fd >= 0)
        return 0;
    if (control->spare >= 0)
        close(control->spare);
    close(control->folder);
    return control->fd;
}

/* A client that stayed in the queue would wake the caller again and again. */
static void send_away(struct control *control)
{
    int fd;

    if (control->spare >= 0)
        close(control->spare);
    fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        close(fd);
    control->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Wait until the descriptor is ready, at most until `end`. */
static bool is_ready(int fd, short events, double end)
{
    struct pollfd ready = {.fd = fd, .events = events};
    double left = end - cli_clock();

    return left > 0 && poll(&ready, 1, (int)(left * 1000) + 1) > 0;
}

/* Up to the newline or the end; what has come by the end of the time counts. */
static void read_request(int fd, char *text, size_t room)
{
    double end = cli_clock() + ASK_PATIENCE;
    size_t len = 0;

    text[0] = '\0';
    while (len < room - 1 && !strchr(text, '\n') && is_ready(fd, POLLIN, end)) {
        ssize_t got = recv(fd, text + len, room - 1 - len, MSG_DONTWAIT);

        if (got <= 0)
            break;
        len += (size_t)got;
        text[len] = '\0';
    }
    text[strcspn(text, "\n")] = '\0';
}

static bool send_all(int fd, const char *text, double end)
{
    size_t len = strlen(text);

    while (len > 0 && is_ready(fd, POLLOUT, end)) {
        ssize_t sent = send(fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0 && errno != EAGAIN)
            return false;
        text += sent > 0 ? sent : 0;
        len -= sent > 0 ? (size_t)sent : 0;
    }
    return len == 0;
}

void control_serve(struct control *control, control_answer *answer, void *arg)
{
    int fd = accept4(control->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    char request[REQUEST_MAX], *text;

    if (fd < 0 && (errno == EMFILE || errno == ENFILE))
        send_away(control);
    if (fd < 0)
        return;
    read_request(fd, request, sizeof(request));
    text = answer(arg, request);
    if (text)
        send_all(fd, text, cli_clock() + TELL_PATIENCE);
    free(text);
    close(fd);
}

void control_close(struct control *control)
{
    if (control->fd < 0)
        return;
    unlinkat(control->folder, control->name, 0);
    close(control->fd);
    close(control->folder);
    if (control->spare >= 0)
        close(control->spare);
    control->fd = -1;
}

/* The folders in which the daemon of `uid` may have put its socket. */
static bool candidate(size_t i, uid_t uid, char *path, size_t room)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");

    switch (i) {
    case 0:
        return snprintf(path, room, "%s/meldfs", runtime ? runtime : "/run") > 0;
    case 1:
        return snprintf(path, room, "/run/user/%u/meldfs", (unsigned)uid) > 0;
    case 2:
        return snprintf(path, room, "/run/meldfs") > 0;
    case 3:
        return snprintf(path, room, "/tmp/meldfs-%u", (unsigned)uid) > 0;
    default:
        return false;
    }
}

/* Anyone may make a folder in /tmp: only the kernel says who listens. */
static bool is_owner(int fd, uid_t uid, pid_t *pid)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.uid != uid)
        return false;
    *pid = peer.pid;
    return true;
}

static int connect_to_mount(const struct mount_entry *mount, pid_t *pid)
{
    char path[PATH_MAX], name[32];
    int ret = -ENOENT;

    socket_name(name, sizeof(name), mount->major, mount->minor);
    for (size_t i = 0; candidate(i, mount->uid, path, sizeof(path)); i++) {
        int folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC), fd;

        if (folder < 0) {
            ret = errno == EACCES ? -EACCES : ret;
            continue;
        }
        fd = connect_to(folder, name);
        close(folder);
        if (fd >= 0 && is_owner(fd, mount->uid, pid))
            return fd;
        if (fd >= 0)
            close(fd);
        else if (fd != -ENOENT)
            ret = fd == -EAGAIN ? -ETIMEDOUT : fd;
    }
    return ret;
}

/* malloc'd; NULL: it took too long, the connection broke, or memory ran out. */
static char *read_answer(int fd)
{
    double end = cli_clock() + PATIENCE;
    size_t len = 0, room = 4096;
    char *text = malloc(room), *grown;
    ssize_t got = -1;

    while (text && is_ready(fd, POLLIN, end)) {
        got = recv(fd, text + len, room - 1 - len, MSG_DONTWAIT);
        if (got <= 0)
            break;
        len += (size_t)got;
        if (len < room - 1)
            continue;
        grown = room < ANSWER_MAX ? realloc(text, 2 * room) : NULL;
        if (!grown)
            break;
        text = grown;
        room *= 2;
    }
    if (text && got == 0 && len > 0) {
        text[len] = '\0';
        return text;
    }
    free(text);
    return NULL;
}

static int tell(const struct mount_entry *mount, int code, struct err *err)
{
    if (code == -EACCES && mount->uid != geteuid())
        return err_set(err, code, "belongs to another user (uid %u)", (unsigned)mount->uid);
    if (code == -ECONNREFUSED)
        return err_set(err, code, "has died; `meldfs umount %s` clears the mount", mount->mountpoint);
    if (code == -ENOENT)
        return err_set(err, code, "does not answer; if it has died, `meldfs umount %s` clears the mount",
                       mount->mountpoint);
    return err_set(err, code, "does not answer");
}

int control_request(const struct mount_entry *mount, const char *request, char **text, pid_t *pid,
                    struct err *err)
{
    char *line = NULL;
    int fd;

    *text = NULL;
    if (strlen(request) + 1 >= REQUEST_MAX)
        return err_set(err, -ENAMETOOLONG, "a path of %zu bytes is too long to ask for", strlen(request));
    fd = connect_to_mount(mount, pid);
    if (fd < 0)
        return tell(mount, fd, err);
    if (asprintf(&line, "%s\n", request) < 0)
        line = NULL;
    if (line && send_all(fd, line, cli_clock() + PATIENCE))
        *text = read_answer(fd);
    free(line);
    close(fd);
    return *text ? 0 : tell(mount, -ETIMEDOUT, err);
}

int control_ask(const struct mount_entry *mount, char **text, pid_t *pid, struct err *err)
{
    return control_request(mount, "status", text, pid, err);
}

void control_value(const char *text, const char *key, char *value, size_t room)
{
    size_t len = strlen(key);

    value[0] = '\0';
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, len) == 0 && line[len] == ' ') {
            snprintf(value, room, "%.*s", (int)strcspn(line + len + 1, "\n"), line + len + 1);
            return;
        }
    }
}
