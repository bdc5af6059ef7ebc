/* The folder that an export fills, and what is in it while it is not finished:
 *
 *     .meldfs-export             that all the model's names were free, and for which model the folder is
 * filled since .NAME.partial              bytes of a file that is not complete yet; locked by who writes it
 *     .NAME.synced               of a weight file: how many of them are there for good
 *
 * Both journals name the fingerprint, so bytes of two recipes, or of sources before and after a change, never
 * meet: a folder that is being filled for another model is refused. Several processes may fill one folder,
 * each its share of the weight files; who completes the model removes .meldfs-export.
 */
#ifndef EXPORT_OUTDIR_H
#define EXPORT_OUTDIR_H

#include "export.h"

struct target {
    char *path, *partial, *journal; /* relative to the folder */
    uint64_t size;
    bool computed; /* a weight file: continued where it is partly there, and has a journal */
    bool mine;     /* to be written by this process */
    bool complete; /* has its name */
    int fd;        /* of the partial file, or -1 */
    uint64_t synced;
};

struct outdir {
    const char *dir; /* as given */
    int fd;
    uint64_t fingerprint;
    bool made;    /* here */
    bool claimed; /* it is being filled for this model */
    bool shared;  /* with processes that write other parts */
    size_t n;
    struct target *targets; /* in step with meld_file */
    size_t n_subfolders;
    char **subfolders; /* that were made here, in order */
};

/* Open or make the folder, lock it, see what is there, and open all targets. After a failure, too,
 * outdir_abandon may and outdir_fini must follow. */
int outdir_open(struct outdir *folder, const struct meld *meld, const char *dir,
                const struct export_options *options, struct err *err);
void outdir_fini(struct outdir *folder);

/* Bytes of this process's files, and how many of them need not be written any more. */
uint64_t outdir_bytes(const struct outdir *folder);
uint64_t outdir_done(const struct outdir *folder);

/* Make the first `len` bytes of a target last, and note that they do. 0 or -errno. */
int outdir_sync(const struct outdir *folder, struct target *target, uint64_t len);

/* Give this process's files, all synced, their names. *whole: so the model is complete. */
int outdir_finish(struct outdir *folder, bool *whole, struct err *err);

/* Leave only what the next export can use: bytes that are there for good. How many; if none, everything made
 * here is gone. */
uint64_t outdir_abandon(struct outdir *folder);

#endif
