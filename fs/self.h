/* A daemon that read from its own mount would wait for itself. */
#ifndef SELF_H
#define SELF_H

#include "err.h"

/* Is anything that this process has open, or `recipe`, on the mount? 0; -EBUSY with err, which names it. */
int self_check(const char *mountpoint, const char *recipe, struct err *err);

#endif
