/* `meldfs report`: what a merge does to every tensor, as a page or as JSON. */
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "meld.h"

/* output: a file, NULL for standard output; title: for the page. The exit status: 0, or 1 if something went
 * wrong, which is said; what could be told is written even where a tensor could not be read. */
int report_run(struct meld *meld, const char *title, const char *output, bool json);

/* The page: `json` is an object. For tests. */
void report_page(FILE *out, const char *title, const char *json);

#endif
