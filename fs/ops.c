#include "ops.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 4096
#define FOREVER 1e9 /* seconds that the kernel may keep names and attributes: a generation never changes */
#define ROOT_SECONDS 1.0 /* but the root's: a stat of a mount whose daemon has died should say so */
#define XATTR_GENERATION "user.meldfs.generation"

static struct ops *ops_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static const struct tree_node *node_of(fuse_req_t req, fuse_ino_t ino)
{
    return ino == 0 ? NULL : tree_node(ops_of(req)->tree, (size_t)(ino - FUSE_ROOT_ID));
}

static struct stat stat_of(const struct ops *ops, const struct tree_node *node)
{
    struct timespec mtime = meld_mtime(ops->meld);
    struct stat st = {
        .st_ino = node->ino,
        .st_mode = node->file < 0 ? S_IFDIR | 0555 : S_IFREG | 0444,
        .st_nlink = node->file < 0 ? 2 + node->n_folders : 1,
        .st_uid = ops->uid,
        .st_gid = ops->gid,
        .st_size = (off_t)node->size,
        .st_blksize = BLOCK,
        .st_blocks = (blkcnt_t)((node->size + 511) / 512), /* with 0, `tar -S` takes a file for one hole */
        .st_atim = mtime,
        .st_mtim = mtime,
        .st_ctim = mtime,
    };
    return st;
}

static void note_asked(struct ops *ops)
{
    if (!atomic_load_explicit(&ops->asked, memory_order_relaxed) && !atomic_exchange(&ops->asked, true))
        ops->on_asked(ops->arg);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    struct ops *ops = userdata;

    conn->want |= conn->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_AUTO_INVAL_DATA);
    conn->want &= ~(unsigned)(FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_SPLICE_READ |
                              FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
    conn->max_read = OPS_MAX_READ;
    conn->max_write =
        OPS_MAX_READ; /* nothing is written, but libfuse derives the pages of a request from it */
    conn->max_background = 64;
    conn->congestion_threshold = 48;
    ops->on_init(ops->arg);
}

/* Nobody's name is cached as missing: another generation may have it. */
static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct ops *ops = ops_of(req);
    ssize_t node = parent == 0 ? -ENOENT : tree_lookup(ops->tree, (size_t)(parent - FUSE_ROOT_ID), name);
    struct fuse_entry_param entry = {.attr_timeout = FOREVER, .entry_timeout = FOREVER};

    note_asked(ops);
    if (node < 0) {
        fuse_reply_err(req, (int)-node);
        return;
    }
    entry.ino = (fuse_ino_t)node + FUSE_ROOT_ID;
    entry.attr = stat_of(ops, tree_node(ops->tree, (size_t)node));
    fuse_reply_entry(req, &entry);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
    (void)ino, (void)n;
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    (void)count, (void)forgets;
    fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    const struct tree_node *node = node_of(req, ino);
    struct stat st;

    (void)fi;
    note_asked(ops_of(req));
    if (!node) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    st = stat_of(ops_of(req), node);
    fuse_reply_attr(req, &st, ino == FUSE_ROOT_ID ? ROOT_SECONDS : FOREVER);
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    const struct tree_node *node = node_of(req, ino);

    if (!node || node->file < 0) {
        fuse_reply_err(req, node ? EISDIR : ENOENT);
        return;
    }
    if ((fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC)) {
        fuse_reply_err(req, EROFS);
        return;
    }
    fi->keep_cache = 1;
    fi->fh = 1 + atomic_fetch_add_explicit(&ops_of(req)->n_opened, 1, memory_order_relaxed);
    fuse_reply_open(req, fi);
}

struct reading {
    fuse_req_t req;
    size_t len; /* that must be answered: a short reply would shrink the file for everyone */
    uint64_t off;
    const struct tree_node *node;
};

static size_t iov_len(const struct iovec *iov, int n_iov)
{
    size_t len = 0;

    for (int i = 0; i < n_iov; i++)
        len += iov[i].iov_len;
    return len;
}

static void log_failure(const struct reading *reading, const char *why)
{
    char text[1400];

    snprintf(text, sizeof(text), "%s: cannot be read: %s", reading->node->name, why);
    log_once(ops_of(reading->req)->log, LOG_ERR, text);
}

static void read_done(void *arg, int status, const struct iovec *iov, int n_iov, const struct err *err)
{
    struct reading *reading = arg;

    if (status == -ECANCELED) { /* the mount is ending */
        fuse_reply_err(reading->req, EIO);
    } else if (status < 0) {
        log_failure(reading, err && err->text[0] ? err->text : strerror(-status));
        fuse_reply_err(reading->req, status == -ENOMEM ? ENOMEM : EIO);
    } else if (iov_len(iov, n_iov) != reading->len) {
        log_failure(reading, "fewer bytes than the file has");
        fuse_reply_err(reading->req, EIO);
    } else {
        fuse_reply_iov(reading->req, iov, n_iov);
    }
    free(reading);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    const struct tree_node *node = node_of(req, ino);
    struct ops *ops = ops_of(req);
    struct reading *reading;

    if (!node || node->file < 0 || off < 0) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    if ((uint64_t)off >= node->size || size == 0) {
        fuse_reply_buf(req, NULL, 0);
        return;
    }
    reading = malloc(sizeof(*reading));
    if (!reading) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    if (size > node->size - (uint64_t)off)
        size = (size_t)(node->size - (uint64_t)off);
    *reading = (struct reading){req, size, (uint64_t)off, node};
    if (ops->prefetch)
        prefetch_read(ops->prefetch, ops->meld, (size_t)node->file, ino, fi->fh, (uint64_t)off, size);
    meld_submit(ops->meld, (size_t)node->file, (uint64_t)off, size, read_done, reading);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    if (ops_of(req)->prefetch)
        prefetch_flush(ops_of(req)->prefetch, fi->fh);
    fuse_reply_err(req, 0);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    if (ops_of(req)->prefetch)
        prefetch_release(ops_of(req)->prefetch, fi->fh);
    fuse_reply_err(req, 0);
}

static void reply_ok(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino, (void)fi;
    fuse_reply_err(req, 0);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    const struct tree_node *node = node_of(req, ino);

    note_asked(ops_of(req));
    if (!node || node->file >= 0) {
        fuse_reply_err(req, node ? ENOTDIR : ENOENT);
        return;
    }
    fi->cache_readdir = 1;
    fi->keep_cache = 1;
    fuse_reply_open(req, fi);
}

/* Entry `index` of a folder: 0 is ".", 1 is "..". NULL after the last. */
static const struct tree_node *entry_of(const struct tree *tree, const struct tree_node *folder,
                                        uint64_t index, const char **name)
{
    const struct tree_node *node;

    if (index < 2) {
        *name = index == 0 ? "." : "..";
        return index == 0 ? folder : tree_node(tree, folder->parent);
    }
    if (index - 2 >= folder->n)
        return NULL;
    node = tree_node(tree, folder->first + (size_t)(index - 2));
    *name = node->name;
    return node;
}

static size_t fill_folder(fuse_req_t req, const struct tree_node *folder, char *buf, size_t size,
                          uint64_t index)
{
    const struct ops *ops = ops_of(req);
    const struct tree_node *node;
    const char *name;
    size_t len = 0;

    while ((node = entry_of(ops->tree, folder, index, &name))) {
        struct stat st = stat_of(ops, node);
        size_t need = fuse_add_direntry(req, buf + len, size - len, name, &st, (off_t)++index);

        if (need > size - len)
            break;
        len += need;
    }
    return len;
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    const struct tree_node *folder = node_of(req, ino);
    char *buf;

    (void)fi;
    if (!folder || folder->file >= 0 || off < 0) {
        fuse_reply_err(req, EINVAL);
        return;
    }
    buf = malloc(size);
    if (!buf) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    fuse_reply_buf(req, buf, fill_folder(req, folder, buf, size, (uint64_t)off));
    free(buf);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    const struct ops *ops = ops_of(req);
    struct statvfs st = {.f_bsize = BLOCK, .f_frsize = BLOCK, .f_namemax = 255};

    (void)ino;
    st.f_files = tree_n_nodes(ops->tree);
    for (size_t i = 0; i < st.f_files; i++)
        st.f_blocks += (tree_node(ops->tree, i)->size + BLOCK - 1) / BLOCK;
    fuse_reply_statfs(req, &st);
}

static void reply_xattr(fuse_req_t req, const char *value, size_t len, size_t room)
{
    if (room == 0)
        fuse_reply_xattr(req, len);
    else if (room < len)
        fuse_reply_err(req, ERANGE);
    else
        fuse_reply_buf(req, value, len);
}

/* Foreign names get ENODATA: after ENOSYS the kernel would stop asking for ours. */
static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    char value[17];

    if (!node_of(req, ino) || strcmp(name, XATTR_GENERATION) != 0) {
        fuse_reply_err(req, ENODATA);
        return;
    }
    snprintf(value, sizeof(value), "%016" PRIx64, meld_fingerprint(ops_of(req)->meld));
    reply_xattr(req, value, strlen(value), size);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    (void)ino;
    reply_xattr(req, XATTR_GENERATION, sizeof(XATTR_GENERATION), size);
}

const struct fuse_lowlevel_ops ops_table = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .open = op_open,
    .read = op_read,
    .flush = op_flush,
    .release = op_release,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .releasedir = reply_ok,
    .statfs = op_statfs,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
};
