/* Write a merged model to disk: the files that a mount of it would serve, byte for byte. */
#ifndef EXPORT_H
#define EXPORT_H

#include "meld.h"

/* meld: planned, not started; the caller closes it. Files appear in dir under their names only when all are
 * complete; on an error, SIGINT or SIGTERM nothing of them is left, nor dir if it was made here. Tells
 * progress and problems on stderr, the result on stdout. Exit status. Call before any thread is started. */
int export_run(struct meld_engine *engine, struct meld *meld, const char *dir);

#endif
