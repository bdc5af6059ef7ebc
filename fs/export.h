/* Write a merged model to disk: the files that a mount of it would serve, byte for byte. */
#ifndef EXPORT_H
#define EXPORT_H

#include "meld.h"

struct export_options {
    unsigned part,
        n_parts; /* the share of the weight files, from 1; part 1 has the other files, too. 0, 0: all */
    bool afresh; /* throw away what an unfinished export has left in the folder */
    double sync_seconds; /* how much work a kill may cost; 0: the default */
};

/* engine: not started; the caller frees it. meld: of it; the caller closes it. A file appears in dir under
 * its name only when all files of this process are complete and on the disk. What an export of the same model
 * that ended early has left is gone on with. After an error or a signal only what can be gone on with is
 * left, if anything. Tells progress and problems on stderr, the result on stdout. Exit status. Call before
 * any thread is started. */
int export_run(struct meld_engine *engine, struct meld *meld, const char *dir,
               const struct export_options *options);

/* "2/8", from 1. 0 or -EINVAL. */
int export_parse_part(const char *text, struct export_options *options);

#endif
