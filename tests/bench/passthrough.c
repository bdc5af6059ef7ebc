/* One file served through FUSE by pread and reply: what a file system costs that has nothing to compute.
 *
 *     passthrough FILE FOLDER     until SIGTERM
 *
 * The file is FOLDER/model.safetensors. Requests, times and caching are set as the daemon sets them. */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_NAME "model.safetensors"
#define READ_MAX ((size_t)1 << 20)
#define FOREVER 1e9

enum { FILE_INO = FUSE_ROOT_ID + 1 };

struct served {
    int fd;
    struct stat file;
};

static struct stat attributes(const struct served *served, fuse_ino_t ino)
{
    struct stat st = {.st_ino = ino, .st_mode = S_IFDIR | 0555, .st_nlink = 2};

    if (ino != FILE_INO)
        return st;
    st.st_mode = S_IFREG | 0444;
    st.st_nlink = 1;
    st.st_size = served->file.st_size;
    st.st_blocks = (served->file.st_size + 511) / 512;
    st.st_mtim = served->file.st_mtim;
    return st;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    (void)userdata;
    conn->max_read = READ_MAX;
    conn->max_background = 64;
    conn->congestion_threshold = 48;
    conn->want |= conn->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param entry = {.ino = FILE_INO, .attr_timeout = FOREVER, .entry_timeout = FOREVER};

    if (parent != FUSE_ROOT_ID || strcmp(name, FILE_NAME) != 0) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    entry.attr = attributes(fuse_req_userdata(req), FILE_INO);
    fuse_reply_entry(req, &entry);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
    struct stat st = attributes(fuse_req_userdata(req), ino);

    (void)info;
    fuse_reply_attr(req, &st, FOREVER);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
    if (ino != FILE_INO) {
        fuse_reply_err(req, EISDIR);
        return;
    }
    info->keep_cache = 1;
    fuse_reply_open(req, info);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *info)
{
    static _Thread_local char buf[READ_MAX];
    const struct served *served = fuse_req_userdata(req);
    ssize_t n = pread(served->fd, buf, size < READ_MAX ? size : READ_MAX, off);

    (void)ino, (void)info;
    if (n < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_buf(req, buf, (size_t)n);
}

static const struct fuse_lowlevel_ops ops = {
    .init = op_init,
    .lookup = op_lookup,
    .getattr = op_getattr,
    .open = op_open,
    .read = op_read,
};

static int serve(struct served *served, const char *folder)
{
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    bool told = fuse_opt_add_arg(&args, "passthrough") == 0 && fuse_opt_add_arg(&args, "-o") == 0 &&
                fuse_opt_add_arg(&args, "ro,fsname=passthrough,max_read=1048576") == 0;
    struct fuse_loop_config *config = fuse_loop_cfg_create();
    struct fuse_session *session = told ? fuse_session_new(&args, &ops, sizeof(ops), served) : NULL;
    int ret = 1;

    if (session && config && fuse_set_signal_handlers(session) == 0) {
        if (fuse_session_mount(session, folder) == 0) {
            ret = fuse_session_loop_mt(session, config) < 0;
            fuse_session_unmount(session);
        }
        fuse_remove_signal_handlers(session);
    }
    if (session)
        fuse_session_destroy(session);
    if (config)
        fuse_loop_cfg_destroy(config);
    fuse_opt_free_args(&args);
    return ret;
}

int main(int argc, char **argv)
{
    struct served served;
    int ret;

    if (argc != 3) {
        fprintf(stderr, "usage: passthrough FILE FOLDER\n");
        return 2;
    }
    served.fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (served.fd < 0 || fstat(served.fd, &served.file) != 0) {
        fprintf(stderr, "passthrough: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    ret = serve(&served, argv[2]);
    close(served.fd);
    return ret;
}
