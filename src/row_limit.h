/* How long a row may be where workers hold whole rows (method->row_length): what they hold is memory that is
 * taken once for each worker, and work that is done again for each piece of a row that is read by itself. */
#ifndef ROW_LIMIT_H
#define ROW_LIMIT_H

#include "method.h"

/* 0, or -EINVAL where arrays of `row` elements for this method and these inputs pass 20 MiB. */
int row_limit_check(const struct merge *merge, uint64_t row, struct err *err);

#endif
