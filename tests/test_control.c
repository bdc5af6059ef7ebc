#include "control.h"

#include "scratch_dir.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Unlike any device that is mounted. */
#define MAJOR 4000
#define MINOR 123456

static int setup(void **state)
{
    if (scratch_setup(state) < 0)
        return -1;
    return setenv("XDG_RUNTIME_DIR", scratch_dir, 1);
}

static struct mount_entry mine(void)
{
    return (struct mount_entry){
        .mountpoint = (char *)(uintptr_t) "/mnt/x", .major = MAJOR, .minor = MINOR, .uid = geteuid()};
}

struct asking {
    struct mount_entry mount;
    char *text;
    pid_t pid;
    struct err err;
    int ret;
};

static void *ask(void *arg)
{
    struct asking *asking = arg;

    asking->ret = control_ask(&asking->mount, &asking->text, &asking->pid, &asking->err);
    return NULL;
}

static struct control open_control(void)
{
    struct control control;
    struct err err = {""};

    if (control_open(&control, MAJOR, MINOR, &err) != 0)
        fail_msg("%s", err.text);
    return control;
}

/* Answers the text at arg; to anything but `status`, the request. */
static char *answer(void *arg, const char *request)
{
    return strdup(strcmp(request, "status") == 0 ? arg : request);
}

static void serve(struct control *control, const char *text)
{
    control_serve(control, answer, (char *)(uintptr_t)text);
}

static void round_trip(const char *text)
{
    struct control control = open_control();
    struct pollfd ready = {.fd = control.fd, .events = POLLIN};
    struct asking asking = {.mount = mine()};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, ask, &asking), 0);
    assert_int_equal(poll(&ready, 1, 30000), 1);
    serve(&control, text);
    pthread_join(thread, NULL);
    control_close(&control);
    if (asking.ret != 0)
        fail_msg("%s", asking.err.text);
    assert_string_equal(asking.text, text);
    assert_int_equal(asking.pid, getpid());
    free(asking.text);
}

static void a_client_is_answered(void **state)
{
    struct stat st;

    (void)state;
    round_trip("recipe /a b\npid 3\n");
    assert_int_equal(stat(scratch_path("meldfs"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(stat(scratch_path("meldfs/4000-123456.sock"), &st), -1);
}

static void long_answers_arrive_whole(void **state)
{
    size_t len = 3 << 20;
    char *text = malloc(len + 1);

    (void)state;
    assert_non_null(text);
    memset(text, 'x', len);
    text[len] = '\0';
    round_trip(text);
    free(text);
}

static void *request(void *arg)
{
    struct asking *asking = arg;

    asking->ret = control_request(&asking->mount, "path a b/c=1", &asking->text, &asking->pid, &asking->err);
    return NULL;
}

static void requests_are_passed_on(void **state)
{
    struct control control = open_control();
    struct pollfd ready = {.fd = control.fd, .events = POLLIN};
    struct asking asking = {.mount = mine()};
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, request, &asking), 0);
    assert_int_equal(poll(&ready, 1, 30000), 1);
    serve(&control, "");
    pthread_join(thread, NULL);
    control_close(&control);
    assert_int_equal(asking.ret, 0);
    assert_string_equal(asking.text, "path a b/c=1");
    free(asking.text);
}

static char *answer_all(void *arg, const char *request)
{
    (void)arg;
    assert_string_equal(request, "");
    return strdup("all");
}

/* As `socat -u` does. */
static void who_says_nothing_is_answered(void **state)
{
    struct control control = open_control();
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char text[8] = "";

    (void)state;
    snprintf(at.sun_path, sizeof(at.sun_path), "%s", scratch_path("meldfs/4000-123456.sock"));
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    shutdown(fd, SHUT_WR);
    control_serve(&control, answer_all, NULL);
    assert_int_equal(read(fd, text, sizeof(text)), 3);
    assert_string_equal(text, "all");
    close(fd);
    control_close(&control);
}

static void folders_may_be_deep(void **state)
{
    char path[512];

    (void)state;
    snprintf(path, sizeof(path), "%s/%0150d", scratch_dir, 7);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(setenv("XDG_RUNTIME_DIR", path, 1), 0);
    round_trip("x 1\n");
}

static void serving_nobody_returns(void **state)
{
    struct control control = open_control();

    (void)state;
    serve(&control, "x 1\n");
    control_close(&control);
    control_close(&control);
}

static void refuse(struct mount_entry mount, int code, const char *says)
{
    struct asking asking = {.mount = mount};

    ask(&asking);
    assert_int_equal(asking.ret, code);
    assert_null(asking.text);
    assert_says(asking.err.text, says);
}

static void nobody_listens(void **state)
{
    struct mount_entry mount = mine();

    (void)state;
    refuse(mount, -ENOENT, "does not answer");
}

static void put_dead_socket(const char *name)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    mkdir(scratch_path("meldfs"), 0700);
    snprintf(at.sun_path, sizeof(at.sun_path), "%s", scratch_path(name));
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    close(fd);
}

static void a_dead_daemon_is_told(void **state)
{
    (void)state;
    put_dead_socket("meldfs/4000-123456.sock");
    refuse(mine(), -ECONNREFUSED, "has died; `meldfs umount /mnt/x` clears");
}

static void a_hanging_daemon_is_told(void **state)
{
    struct control control = open_control();

    (void)state;
    refuse(mine(), -ETIMEDOUT, "does not answer");
    control_close(&control);
}

static void another_users_socket_is_not_believed(void **state)
{
    struct control control = open_control();
    struct mount_entry mount = mine();

    (void)state;
    mount.uid = geteuid() + 54321;
    refuse(mount, -ENOENT, "does not answer");
    control_close(&control);
}

static void dead_sockets_are_removed(void **state)
{
    struct control control;
    struct stat st;

    (void)state;
    put_dead_socket("meldfs/4000-1.sock");
    put_dead_socket("meldfs/4000-123456.sock");
    put_text("meldfs/other", "stays");
    control = open_control();
    assert_int_equal(lstat(scratch_path("meldfs/4000-1.sock"), &st), -1);
    assert_int_equal(lstat(scratch_path("meldfs/other"), &st), 0);
    control_close(&control);
}

static void living_sockets_stay(void **state)
{
    struct control a = open_control(), b;
    struct err err;
    struct stat st;

    (void)state;
    assert_int_equal(control_open(&b, MAJOR, MINOR + 1, &err), 0);
    assert_int_equal(lstat(scratch_path("meldfs/4000-123456.sock"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    control_close(&b);
    control_close(&a);
}

static void refuse_folder(const char *says)
{
    struct control control;
    struct err err = {""};

    assert_true(control_open(&control, MAJOR, MINOR, &err) < 0);
    assert_says(err.text, says);
    assert_int_equal(control.fd, -1);
    control_close(&control);
}

static void folders_of_others_are_refused(void **state)
{
    (void)state;
    assert_int_equal(mkdir(scratch_path("meldfs"), 0755), 0);
    refuse_folder("must be yours alone");
    assert_int_equal(rmdir(scratch_path("meldfs")), 0);
    put_text("meldfs", "");
    refuse_folder("Not a directory");
    assert_int_equal(unlink(scratch_path("meldfs")), 0);
    assert_int_equal(symlink(scratch_dir, scratch_path("meldfs")), 0);
    refuse_folder("meldfs: ");
}

static void values_are_found(void **state)
{
    static const char text[] = "recipe /a b/c.yml\npid 12\nhits 3\nhits_more 4\nempty \nlast 9";
    char value[16];

    (void)state;
    control_value(text, "recipe", value, sizeof(value));
    assert_string_equal(value, "/a b/c.yml");
    control_value(text, "hits", value, sizeof(value));
    assert_string_equal(value, "3");
    control_value(text, "last", value, sizeof(value));
    assert_string_equal(value, "9");
    control_value(text, "empty", value, sizeof(value));
    assert_string_equal(value, "");
    control_value(text, "hit", value, sizeof(value));
    assert_string_equal(value, "");
    control_value("", "x", value, sizeof(value));
    assert_string_equal(value, "");
    control_value(text, "recipe", value, 4);
    assert_string_equal(value, "/a ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_client_is_answered, setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(long_answers_arrive_whole, setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(requests_are_passed_on, setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(who_says_nothing_is_answered, setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(folders_may_be_deep, setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(serving_nobody_returns, setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(nobody_listens, setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_dead_daemon_is_told, setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_hanging_daemon_is_told, setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(another_users_socket_is_not_believed, setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(dead_sockets_are_removed, setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(living_sockets_stay, setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(folders_of_others_are_refused, setup, scratch_teardown),
        cmocka_unit_test(values_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
