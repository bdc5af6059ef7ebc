#include "findings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct finding *push(struct findings *findings)
{
    struct finding *grown;
    size_t room = findings->room ? findings->room * 2 : 8;

    if (findings->n == findings->room) {
        grown = reallocarray(findings->list, room, sizeof(*grown));
        if (!grown)
            return NULL;
        findings->list = grown;
        findings->room = room;
    }
    return &findings->list[findings->n];
}

void findings_add(struct findings *findings, enum severity severity, struct place at, const char *fmt, ...)
{
    struct finding *entry;
    char *text = NULL;
    va_list args;
    int len;

    if (++*(severity == SEVERITY_ERROR ? &findings->n_errors : &findings->n_warnings) > FINDINGS_SHOWN) {
        findings->n_left_out++;
        return;
    }
    va_start(args, fmt);
    len = vasprintf(&text, fmt, args);
    va_end(args);
    entry = len < 0 ? NULL : push(findings);
    if (!entry) {
        findings->no_memory = true;
        if (len >= 0)
            free(text);
        return;
    }
    *entry = (struct finding){severity, at, findings->n++, text};
}

static int by_place(const void *a_ptr, const void *b_ptr)
{
    const struct finding *a = a_ptr, *b = b_ptr;

    if (a->at.line != b->at.line)
        return a->at.line < b->at.line ? -1 : 1;
    if (a->at.col != b->at.col)
        return a->at.col < b->at.col ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

/* What stands once in the file may be read often, by aliases. */
static bool said_before(const struct finding *list, size_t i)
{
    for (size_t k = i;
         k > 0 && list[k - 1].at.line == list[i].at.line && list[k - 1].at.col == list[i].at.col; k--)
        if (strcmp(list[k - 1].text, list[i].text) == 0)
            return true;
    return false;
}

void findings_flush(struct findings *findings, const char *file, struct report *report)
{
    struct place whole = {file, 0, 0};
    bool errors = findings->n_errors > 0;

    if (findings->n)
        qsort(findings->list, findings->n, sizeof(*findings->list), by_place);
    for (size_t i = 0; i < findings->n; i++)
        if (!said_before(findings->list, i))
            report_add(report, findings->list[i].severity, findings->list[i].at, "%s",
                       findings->list[i].text);
    if (findings->n_left_out)
        report_add(report, errors ? SEVERITY_ERROR : SEVERITY_WARNING, whole,
                   "%zu more problems: mend those above first", findings->n_left_out);
    for (size_t i = 0; i < findings->n; i++)
        free(findings->list[i].text);
    free(findings->list);
    *findings = (struct findings){0};
}
