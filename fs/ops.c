#include "ops.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "cli.h"

#define BLOCK 4096
#define FOREVER 1e9 /* seconds that the kernel may keep names and attributes: a generation never changes */
#define ROOT_SECONDS 1.0 /* but the root's: a stat of a mount whose daemon has died should say so */
#define XATTR_GENERATION "user.meldfs.generation"
#define XATTR_RECIPE "user.meldfs.recipe"
#define XATTR_MAX 65536         /* the kernel's limit for a value */
#define ENOUGH_BYTES (1u << 20) /* read of a donor that changed nothing, before that is told */
#define MAX_TOLD 16             /* such donors */

/* An open file or folder. */
struct handle {
    struct found at;            /* its view is pinned */
    struct recipe_names names;  /* of a folder of recipes, when it was opened */
    struct handle *prev, *next; /* by ops->lock */
};

static struct ops *ops_of(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static struct handle *handle_of(const struct fuse_file_info *fi)
{
    return (struct handle *)(uintptr_t)fi->fh;
}

/* For prefetch: no two that are open have the same. */
static uint64_t number_of(const struct handle *handle)
{
    return (uint64_t)(uintptr_t)handle;
}

void ops_init(struct ops *ops)
{
    pthread_mutex_init(&ops->lock, NULL);
    ops->handles = NULL;
}

/* Takes over the pin of `at`. NULL if memory ran out. */
static struct handle *open_handle(struct ops *ops, const struct found *at)
{
    struct handle *handle = calloc(1, sizeof(*handle));

    if (!handle) {
        views_put(ops->names->views, at->view);
        return NULL;
    }
    handle->at = *at;
    if (found_file(at))
        meld_pin(at->view->meld); /* what is open goes on as it is, whatever is done to its sources' names */
    pthread_mutex_lock(&ops->lock);
    DL_APPEND(ops->handles, handle);
    pthread_mutex_unlock(&ops->lock);
    return handle;
}

static void close_handle(struct ops *ops, struct handle *handle)
{
    pthread_mutex_lock(&ops->lock);
    DL_DELETE(ops->handles, handle);
    pthread_mutex_unlock(&ops->lock);
    if (found_file(&handle->at))
        meld_unpin(handle->at.view->meld);
    views_put(ops->names->views, handle->at.view);
    recipe_names_fini(&handle->names);
    free(handle);
}

void ops_fini(struct ops *ops)
{
    while (ops->handles)
        close_handle(ops, ops->handles);
    pthread_mutex_destroy(&ops->lock);
}

/* ---- attributes ---- */

static struct timespec mtime_of(const struct ops *ops, const struct view *view)
{
    return view ? meld_mtime(view->meld) : recipes_changed(ops->names->recipes);
}

static nlink_t links_of(const struct ops *ops, const struct found *found)
{
    const struct tree_node *node = found_node(found);
    struct recipe_names names;
    nlink_t n = 2;

    if (node)
        return node->file < 0 ? 2 + node->n_folders : 1;
    if (found->view || recipes_names(ops->names->recipes, &names) < 0)
        return found->view ? 1 : n;
    n += names.n;
    recipe_names_fini(&names);
    return n;
}

static mode_t mode_of(const struct found *found)
{
    if (found_is_folder(found))
        return S_IFDIR | 0555;
    return found->view->target ? S_IFLNK | 0777 : S_IFREG | 0444;
}

static uint64_t size_of(const struct found *found)
{
    const struct meld_file *file = found_file(found);

    if (file)
        return file->size;
    return found->view && found->view->target ? strlen(found->view->target) : 0;
}

static struct stat stat_of(const struct ops *ops, const struct found *found)
{
    struct timespec mtime = mtime_of(ops, found->view);
    uint64_t size = size_of(found);
    struct stat st = {
        .st_ino = found_ino(found),
        .st_mode = mode_of(found),
        .st_nlink = links_of(ops, found),
        .st_uid = ops->uid,
        .st_gid = ops->gid,
        .st_size = (off_t)size,
        .st_blksize = BLOCK,
        .st_blocks = (blkcnt_t)((size + 511) / 512), /* with 0, `tar -S` takes a file for one hole */
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

/* Why a name with a `=` is none, for who looks into the log. */
static void log_refusal(struct ops *ops, const char *name, const struct err *err)
{
    char text[1400];

    if (!err->text[0])
        return;
    snprintf(text, sizeof(text), "%s: no such variant: %s", name, err->text);
    log_once(ops->log, LOG_NOTICE, cli_shown(text).text);
}

/* The kernel is told of one more name before it is answered: it may forget it at once. */
static void reply_entry(fuse_req_t req, const struct found *found)
{
    struct ops *ops = ops_of(req);
    double timeout = found->passing ? 0 : FOREVER;
    struct fuse_entry_param entry = {
        .ino = found_id(found),
        .attr = stat_of(ops, found),
        .attr_timeout = FOREVER,
        .entry_timeout = timeout,
    };

    views_known(ops->names->views, found->view);
    if (fuse_reply_entry(req, &entry) < 0)
        views_forget(ops->names->views, found->view->slot, 1);
}

/* A weight file whose name would change over to another generation. */
static bool is_load(const struct found *found)
{
    const struct meld_file *file = found_file(found);

    return file && file->computed && !found->view->pinned;
}

static int look_up(struct ops *ops, const struct found *at, const char *name, struct found *found)
{
    struct err err = {""};
    int ret = names_step(ops->names, at, name, found, &err);

    if (ret == -ENOENT && strchr(name, '='))
        log_refusal(ops, name, &err);
    return ret;
}

/* Nobody's name is cached as missing: another generation may have it, or a folder get it. A weight file that
 * is looked up while its name may pass is about to be opened. Takes over the pins of both. */
static void reply_lookup(fuse_req_t req, struct found *at, struct found *found, int ret)
{
    struct views *views = ops_of(req)->names->views;

    if (ret == 0 && found->passing && is_load(found))
        generation_use(found->view->model->generation, 0);
    if (ret == 0)
        reply_entry(req, found);
    else
        fuse_reply_err(req, -ret);
    views_put(views, found->view);
    views_put(views, at->view);
}

/* A lookup that needs a plan which was dropped. */
struct looking {
    fuse_req_t req;
    struct found at; /* its view is pinned */
    char name[];
};

static void look_up_planned(void *arg, int status, const struct err *err)
{
    struct looking *looking = arg;
    struct ops *ops = ops_of(looking->req);
    struct found found = {0};
    char text[1400];

    if (status == 0) {
        status = look_up(ops, &looking->at, looking->name, &found);
    } else if (status != -ECANCELED) {
        snprintf(text, sizeof(text), "%s: cannot be looked up: %s", looking->name, err->text);
        log_once(ops->log, LOG_ERR, cli_shown(text).text);
    }
    if (status < 0 && status != -ENOENT && status != -ENOMEM)
        status = -EIO;
    reply_lookup(looking->req, &looking->at, &found, status);
    free(looking);
}

/* Takes over the pin of `at`. */
static void look_up_later(fuse_req_t req, struct found *at, const char *name)
{
    struct looking *looking = malloc(sizeof(*looking) + strlen(name) + 1);

    if (!looking) {
        reply_lookup(req, at, &(struct found){0}, -ENOMEM);
        return;
    }
    *looking = (struct looking){req, *at};
    strcpy(looking->name, name);
    meld_plan(at->view->model->meld, look_up_planned, looking);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct ops *ops = ops_of(req);
    struct found at = {0}, found = {0};
    int ret;

    note_asked(ops);
    ret = strlen(name) > NAME_MAX ? -ENAMETOOLONG : names_get(ops->names, parent, &at);
    if (ret == 0)
        ret = look_up(ops, &at, name, &found);
    if (ret == -EAGAIN)
        look_up_later(req, &at, name);
    else
        reply_lookup(req, &at, &found, ret);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
    views_forget(ops_of(req)->names->views, views_slot(ino), n);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        views_forget(ops_of(req)->names->views, views_slot(forgets[i].ino), forgets[i].nlookup);
    fuse_reply_none(req);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct ops *ops = ops_of(req);
    struct found found;
    struct stat st;

    (void)fi;
    note_asked(ops);
    if (names_get(ops->names, ino, &found) < 0) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    st = stat_of(ops, &found);
    views_put(ops->names->views, found.view);
    fuse_reply_attr(req, &st, ino == FUSE_ROOT_ID ? ROOT_SECONDS : FOREVER);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct ops *ops = ops_of(req);
    struct found found;

    if (names_get(ops->names, ino, &found) < 0) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    if (found.view && found.view->target)
        fuse_reply_readlink(req, found.view->target);
    else
        fuse_reply_err(req, EINVAL);
    views_put(ops->names->views, found.view);
}

/* ---- files ---- */

static int check_open(const struct found *found, const struct fuse_file_info *fi)
{
    if (!found_file(found))
        return found_is_folder(found) ? EISDIR : ELOOP;
    return (fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC) ? EROFS : 0;
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct ops *ops = ops_of(req);
    struct handle *handle;
    struct found found;
    int code = -names_get(ops->names, ino, &found);

    if (code == 0)
        code = check_open(&found, fi);
    if (code) {
        views_put(ops->names->views, found.view);
        fuse_reply_err(req, code);
        return;
    }
    if (is_load(&found))
        generation_use(found.view->model->generation, 0);
    handle = open_handle(ops, &found);
    if (!handle) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    fi->fh = (uint64_t)(uintptr_t)handle;
    fi->keep_cache = 1;
    if (fuse_reply_open(req, fi) < 0)
        close_handle(ops, handle);
}

struct reading {
    fuse_req_t req;
    size_t len; /* that must be answered: a short reply would shrink the file for everyone */
    const struct handle *handle;
    bool load;
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

    snprintf(text, sizeof(text), "%s: cannot be read: %s", found_file(&reading->handle->at)->path, why);
    log_once(ops_of(reading->req)->log, LOG_ERR, text);
}

/* After the reply the handle may be released at any time. */
static void read_done(void *arg, int status, const struct iovec *iov, int n_iov, const struct err *err)
{
    struct reading *reading = arg;

    if (status == 0 && iov_len(iov, n_iov) != reading->len) {
        log_failure(reading, "fewer bytes than the file has");
        status = -EIO;
    } else if (status < 0 && status != -ECANCELED) { /* that: the mount is ending */
        log_failure(reading, err && err->text[0] ? err->text : strerror(-status));
    }
    if (reading->load)
        generation_use(reading->handle->at.view->model->generation, -1);
    if (status == 0)
        fuse_reply_iov(reading->req, iov, n_iov);
    else
        fuse_reply_err(reading->req, status == -ENOMEM ? ENOMEM : EIO);
    free(reading);
}

static void submit(fuse_req_t req, const struct handle *handle, uint64_t off, size_t size)
{
    const struct found *at = &handle->at;
    size_t index = (size_t)found_node(at)->file;
    struct reading *reading = malloc(sizeof(*reading));

    if (!reading) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    *reading = (struct reading){req, size, handle, is_load(at)};
    if (reading->load)
        generation_use(at->view->model->generation, 1);
    if (ops_of(req)->prefetch)
        prefetch_read(ops_of(req)->prefetch, at->view->meld, index, found_id(at), number_of(handle), off,
                      size);
    meld_submit(at->view->meld, index, off, size, read_done, reading);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    const struct handle *handle = handle_of(fi);
    uint64_t end = found_file(&handle->at)->size, from = (uint64_t)off;

    (void)ino;
    if (off < 0)
        fuse_reply_err(req, EINVAL);
    else if (from >= end || size == 0)
        fuse_reply_buf(req, NULL, 0);
    else
        submit(req, handle, from, size < end - from ? size : (size_t)(end - from));
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    if (ops_of(req)->prefetch)
        prefetch_flush(ops_of(req)->prefetch, number_of(handle_of(fi)));
    fuse_reply_err(req, 0);
}

/* Once a reader has read enough of a model to tell. */
static void tell_idle(const struct ops *ops, struct meld *meld)
{
    struct meld_idle idle[MAX_TOLD];
    size_t n = meld_idle_donors(meld, idle, MAX_TOLD);
    char text[512];

    for (size_t i = 0; i < n && i < MAX_TOLD; i++) {
        if (idle[i].bytes < ENOUGH_BYTES)
            continue;
        snprintf(text, sizeof(text),
                 "%s:%u:%u: %s changes nothing in all that was read of it so far: its task vector is zero",
                 idle[i].at.file, idle[i].at.line, idle[i].at.col, idle[i].model);
        log_once(ops->log, LOG_WARNING, text);
    }
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct ops *ops = ops_of(req);

    (void)ino;
    if (handle_of(fi)->at.view)
        tell_idle(ops, handle_of(fi)->at.view->meld);
    if (ops->prefetch)
        prefetch_release(ops->prefetch, number_of(handle_of(fi)));
    close_handle(ops, handle_of(fi));
    fuse_reply_err(req, 0);
}

/* ---- folders ---- */

/* What the root lists may change; a folder of a generation never does. */
static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct ops *ops = ops_of(req);
    struct handle *handle;
    struct found found;
    int code = -names_get(ops->names, ino, &found);

    note_asked(ops);
    if (code == 0 && !found_is_folder(&found))
        code = ENOTDIR;
    if (code) {
        views_put(ops->names->views, found.view);
        fuse_reply_err(req, code);
        return;
    }
    handle = open_handle(ops, &found);
    if (!handle || (!found.view && recipes_names(ops->names->recipes, &handle->names) < 0)) {
        if (handle)
            close_handle(ops, handle);
        fuse_reply_err(req, ENOMEM);
        return;
    }
    fi->fh = (uint64_t)(uintptr_t)handle;
    fi->cache_readdir = fi->keep_cache = ino != FUSE_ROOT_ID;
    if (fuse_reply_open(req, fi) < 0)
        close_handle(ops, handle);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    close_handle(ops_of(req), handle_of(fi));
    fuse_reply_err(req, 0);
}

/* Entry `index` of a folder: 0 is ".", 1 is "..". NULL after the last. */
static const char *entry_of(const struct ops *ops, const struct handle *handle, uint64_t index,
                            struct stat *st)
{
    const struct tree_node *folder = found_node(&handle->at);
    struct found entry = handle->at;
    const char *name;

    if (index < 2) {
        *st = (struct stat){.st_ino = found_ino(&entry), .st_mode = S_IFDIR};
        if (index == 1 && folder)
            st->st_ino = found_parent_ino(&entry);
        return index == 0 ? "." : "..";
    }
    index -= 2;
    if (!folder) {
        if (index >= handle->names.n)
            return NULL;
        *st = (struct stat){.st_ino = handle->names.list[index].ino, .st_mode = S_IFDIR};
        return handle->names.list[index].name;
    }
    if (index >= folder->n)
        return NULL;
    entry.node = folder->first + (size_t)index;
    name = found_node(&entry)->name;
    *st = stat_of(ops, &entry);
    return name;
}

static size_t fill_folder(fuse_req_t req, const struct handle *handle, char *buf, size_t size, uint64_t index)
{
    const char *name;
    struct stat st;
    size_t len = 0;

    while ((name = entry_of(ops_of(req), handle, index, &st))) {
        size_t need = fuse_add_direntry(req, buf + len, size - len, name, &st, (off_t)++index);

        if (need > size - len)
            break;
        len += need;
    }
    return len;
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    char *buf = off < 0 ? NULL : malloc(size);

    (void)ino;
    if (!buf) {
        fuse_reply_err(req, off < 0 ? EINVAL : ENOMEM);
        return;
    }
    fuse_reply_buf(req, buf, fill_folder(req, handle_of(fi), buf, size, (uint64_t)off));
    free(buf);
}

/* ---- the rest ---- */

static void add_model(struct statvfs *st, const struct view *view)
{
    size_t n = meld_n_files(view->meld);

    st->f_files += tree_n_nodes(view->model->tree);
    for (size_t i = 0; i < n; i++)
        st->f_blocks += (meld_file(view->meld, i)->size + BLOCK - 1) / BLOCK;
}

static void add_recipes(struct ops *ops, struct statvfs *st)
{
    struct recipe_names names;

    if (recipes_names(ops->names->recipes, &names) < 0)
        return;
    for (size_t i = 0; i < names.n; i++) {
        struct view *view = views_get(ops->names->views, names.list[i].slot);

        if (view)
            add_model(st, view);
        views_put(ops->names->views, view);
    }
    recipe_names_fini(&names);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct ops *ops = ops_of(req);
    struct statvfs st = {.f_bsize = BLOCK, .f_frsize = BLOCK, .f_namemax = NAME_MAX};
    struct found found;

    if (names_get(ops->names, ino, &found) < 0) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    if (!found.view)
        add_recipes(ops, &st);
    else if (found.view->model)
        add_model(&st, found.view);
    views_put(ops->names->views, found.view);
    fuse_reply_statfs(req, &st);
}

static void reply_xattr(fuse_req_t req, const char *value, size_t len, size_t room)
{
    if (len > XATTR_MAX)
        fuse_reply_err(req, E2BIG);
    else if (room == 0)
        fuse_reply_xattr(req, len);
    else if (room < len)
        fuse_reply_err(req, ERANGE);
    else
        fuse_reply_buf(req, value, len);
}

/* Foreign names get ENODATA: after ENOSYS the kernel would stop asking for ours. */
static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct ops *ops = ops_of(req);
    struct found found;
    char value[17];
    bool known = names_get(ops->names, ino, &found) == 0 && found_node(&found);

    if (known && strcmp(name, XATTR_GENERATION) == 0) {
        snprintf(value, sizeof(value), "%016" PRIx64, meld_fingerprint(found.view->meld));
        reply_xattr(req, value, strlen(value), size);
    } else if (known && strcmp(name, XATTR_RECIPE) == 0) {
        const char *text = meld_recipe(found.view->meld);

        reply_xattr(req, text, strlen(text), size);
    } else {
        fuse_reply_err(req, ENODATA);
    }
    views_put(ops->names->views, found.view);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    static const char list[] = XATTR_GENERATION "\0" XATTR_RECIPE;
    struct ops *ops = ops_of(req);
    struct found found;
    bool known = names_get(ops->names, ino, &found) == 0 && found_node(&found);

    reply_xattr(req, list, known ? sizeof(list) : 0, size);
    views_put(ops->names->views, found.view);
}

const struct fuse_lowlevel_ops ops_table = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .readlink = op_readlink,
    .open = op_open,
    .read = op_read,
    .flush = op_flush,
    .release = op_release,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .releasedir = op_releasedir,
    .statfs = op_statfs,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
};
