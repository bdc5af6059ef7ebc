/* The survey as JSON, for programs and for the page that `meldfs report` writes. docs/report.md has the keys.
 */
#ifndef SURVEY_JSON_H
#define SURVEY_JSON_H

#include "survey.h"

/* One object; no local paths. malloc'd; NULL if memory runs out. */
char *survey_json(const struct survey *survey);

#endif
