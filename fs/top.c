#include "top.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "control.h"
#include "mountinfo.h"
#include "top_view.h"

#define PERIOD 1.0 /* seconds */

/* The other screen, without cursor and without wrapping; and back. */
#define ENTER "\033[?1049h\033[?25l\033[?7l"
#define LEAVE "\033[?7h\033[?25h\033[?1049l"

/* What is remembered of one mount from one time to the next. */
struct watched {
    char *mountpoint;
    unsigned major, minor;
    char *now, *before; /* what the daemon said; NULL: nothing */
    double asked, asked_before;
    struct err err;
    bool gone;
};

struct top {
    const char *path; /* as typed; NULL: all */
    struct watched *mounts;
    size_t n;
    int signal_fd;
    bool keys;    /* stdin is worth looking at */
    bool entered; /* the terminal is ours */
    bool has_saved;
    struct termios saved;
    bool ending;
};

/* ---- the terminal */

static void put(const char *text, size_t len)
{
    while (len > 0) {
        ssize_t done = write(STDOUT_FILENO, text, len);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return;
        text += done;
        len -= (size_t)done;
    }
}

static void enter_screen(struct top *top)
{
    struct termios raw;

    top->has_saved = tcgetattr(STDIN_FILENO, &top->saved) == 0;
    if (top->has_saved) {
        raw = top->saved;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        raw.c_cc[VMIN] = 1;
        raw.c_cc[VTIME] = 0;
        tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    }
    put(ENTER, sizeof(ENTER) - 1);
    top->entered = true;
}

static void leave_screen(struct top *top)
{
    top->entered = false;
    put(LEAVE, sizeof(LEAVE) - 1);
    if (top->has_saved)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &top->saved);
}

/* Ctrl-Z: the shell gets its terminal as it was, and what it has made of it is kept when we go on. */
static void suspend(struct top *top)
{
    bool entered = top->entered;

    if (entered)
        leave_screen(top);
    raise(SIGSTOP);
    if (entered)
        enter_screen(top);
}

static struct winsize window(void)
{
    struct winsize size;

    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row == 0 || size.ws_col == 0)
        size = (struct winsize){.ws_row = 24, .ws_col = 80};
    return size;
}

/* In one write, from the corner on, so that nothing flickers. */
static void put_screen(const struct top_screen *screen)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);

    if (!out)
        return;
    fputs("\033[H", out);
    for (size_t i = 0; i < screen->n; i++)
        fprintf(out, "%s%s\033[K", i ? "\r\n" : "", screen->lines[i]);
    fputs("\033[J", out);
    if (fclose(out) == 0)
        put(text, len);
    free(text);
}

/* ---- the mounts */

static void forget(struct watched *mount)
{
    free(mount->mountpoint);
    free(mount->now);
    free(mount->before);
    *mount = (struct watched){0};
}

static struct watched *find(struct top *top, const struct mount_entry *entry)
{
    for (size_t i = 0; i < top->n; i++)
        if (top->mounts[i].major == entry->major && top->mounts[i].minor == entry->minor &&
            strcmp(top->mounts[i].mountpoint, entry->mountpoint) == 0)
            return &top->mounts[i];
    return NULL;
}

static struct watched *watch(struct top *top, const struct mount_entry *entry)
{
    struct watched *mount = find(top, entry), *more;

    if (mount)
        return mount;
    more = reallocarray(top->mounts, top->n + 1, sizeof(*more));
    if (!more)
        return NULL;
    top->mounts = more;
    mount = &more[top->n];
    *mount = (struct watched){
        .mountpoint = strdup(entry->mountpoint), .major = entry->major, .minor = entry->minor};
    if (!mount->mountpoint)
        return NULL;
    top->n++;
    return mount;
}

static void ask(struct watched *mount, const struct mount_entry *entry)
{
    pid_t pid;

    free(mount->before);
    mount->before = mount->now;
    mount->asked_before = mount->asked;
    control_ask(entry, &mount->now, &pid, &mount->err);
    mount->asked = cli_clock();
    mount->gone = false;
}

static void drop_gone(struct top *top)
{
    size_t n = 0;

    for (size_t i = 0; i < top->n; i++)
        if (top->mounts[i].gone)
            forget(&top->mounts[i]);
        else
            top->mounts[n++] = top->mounts[i];
    top->n = n;
}

static void take_signals(struct top *top);
static void take_keys(struct top *top);

/* Keys and signals meanwhile: a daemon that hangs takes two seconds. */
static void look_up(struct top *top, double until)
{
    double left = until - cli_clock();
    struct pollfd fds[] = {{top->signal_fd, POLLIN, 0}, {top->keys ? STDIN_FILENO : -1, POLLIN, 0}};

    if (poll(fds, 2, left > 0 ? (int)(left * 1000) + 1 : 0) < 0)
        return;
    if (fds[0].revents)
        take_signals(top);
    if (fds[1].revents)
        take_keys(top);
}

static void ask_entry(struct top *top, const struct mount_entry *entry)
{
    struct watched *mount = watch(top, entry);

    if (mount)
        ask(mount, entry);
    look_up(top, 0);
}

/* 0, or -errno with err where `path` is none. */
static int ask_all(struct top *top, struct err *err)
{
    struct mount_list list = {0};
    const struct mount_entry *only = NULL;
    int ret = mountinfo_read(&list, err);

    for (size_t i = 0; i < top->n; i++)
        top->mounts[i].gone = true;
    if (ret == 0 && top->path && !(only = mountinfo_lookup(&list, top->path, err)))
        ret = -ENOENT;
    for (size_t i = 0; ret == 0 && i < list.n && !top->ending; i++)
        if (!only || only == &list.entries[i])
            ask_entry(top, &list.entries[i]);
    mountinfo_free(&list);
    drop_gone(top);
    return ret;
}

/* ---- showing */

static void format_head(const struct top *top, char *head, size_t room)
{
    time_t now = time(NULL);
    struct tm tm;
    char clock[16] = "";

    if (localtime_r(&now, &tm))
        strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
    snprintf(head, room, "meldfs top  %s  %zu mount%s  q ends", clock, top->n, top->n == 1 ? "" : "s");
}

static void show(const struct top *top)
{
    struct top_mount *mounts = calloc(top->n ? top->n : 1, sizeof(*mounts));
    struct winsize size = window();
    struct top_screen screen;
    char head[96];

    if (!mounts)
        return;
    for (size_t i = 0; i < top->n; i++) {
        const struct watched *mount = &top->mounts[i];
        mounts[i] = (struct top_mount){mount->mountpoint, mount->now, mount->before,
                                       mount->asked - mount->asked_before, mount->err.text};
    }
    format_head(top, head, sizeof(head));
    if (top_render(head, mounts, top->n, size.ws_col, size.ws_row, &screen) == 0)
        put_screen(&screen);
    top_screen_fini(&screen);
    free(mounts);
}

/* ---- keys and signals */

static void take_signals(struct top *top)
{
    struct signalfd_siginfo info;

    while (read(top->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGTSTP)
            suspend(top);
        else if (info.ssi_signo != SIGWINCH)
            top->ending = true;
        if (!top->ending && top->entered)
            show(top);
    }
}

static void take_keys(struct top *top)
{
    char keys[64];
    ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));

    if (n <= 0)
        top->keys = false;
    for (ssize_t i = 0; i < n; i++)
        top->ending |= keys[i] == 'q' || keys[i] == 'Q';
}

static int open_signals(struct top *top, sigset_t *before, struct err *err)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP};
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        sigaddset(&set, numbers[i]);
    pthread_sigmask(SIG_BLOCK, &set, before);
    top->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return top->signal_fd < 0 ? err_set(err, -errno, "signalfd: %s", strerror(errno)) : 0;
}

static int run(struct top *top, struct err *err)
{
    double next = cli_clock();
    int ret = ask_all(top, err);

    if (ret < 0)
        return ret;
    enter_screen(top);
    while (ret == 0 && !top->ending) {
        show(top);
        next += PERIOD;
        if (next < cli_clock())
            next = cli_clock() + PERIOD; /* asking took long */
        while (!top->ending && cli_clock() < next)
            look_up(top, next);
        if (!top->ending)
            ret = ask_all(top, err);
    }
    leave_screen(top);
    return ret;
}

int top_run(const char *mountpoint)
{
    struct top top = {.path = mountpoint, .signal_fd = -1, .keys = isatty(STDIN_FILENO)};
    struct err err = {""};
    sigset_t before;
    int ret;

    if (!isatty(STDOUT_FILENO)) {
        cli_say("top: standard output is no terminal; `meldfs status` prints the figures once");
        return 1;
    }
    ret = open_signals(&top, &before, &err);
    if (ret == 0)
        ret = run(&top, &err);
    if (ret < 0)
        cli_say("%s", err.text);
    for (size_t i = 0; i < top.n; i++)
        forget(&top.mounts[i]);
    free(top.mounts);
    if (top.signal_fd >= 0)
        close(top.signal_fd);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ret < 0;
}
