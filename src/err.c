#include "err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is told goes to terminals and logs, and may quote hostile input. */
static void mask_controls(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
    }
}

int err_set(struct err *err, int code, const char *fmt, ...)
{
    va_list args;

    if (!err)
        return code;
    va_start(args, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, args);
    va_end(args);
    mask_controls(err->text);
    return code;
}

int err_prefix(struct err *err, int code, const char *fmt, ...)
{
    char tail[sizeof(err->text)];
    size_t len;
    va_list args;

    if (!err)
        return code;
    memcpy(tail, err->text, sizeof(tail));
    va_start(args, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, args);
    va_end(args);
    len = strlen(err->text);
    snprintf(err->text + len, sizeof(err->text) - len, ": %s", tail);
    mask_controls(err->text);
    return code;
}

static char *problem_text(struct place at, const char *fmt, va_list args)
{
    char *message = NULL, *text = NULL;

    if (vasprintf(&message, fmt, args) < 0)
        return NULL;
    if (!at.file)
        return message;
    if (at.line == 0 ? asprintf(&text, "%s: %s", at.file, message) < 0
                     : asprintf(&text, "%s:%u:%u: %s", at.file, at.line, at.col, message) < 0)
        text = NULL;
    free(message);
    return text;
}

void report_add(struct report *report, enum severity severity, struct place at, const char *fmt, ...)
{
    struct problem *grown;
    va_list args;
    char *text;

    if (severity == SEVERITY_ERROR)
        report->n_errors++;
    va_start(args, fmt);
    text = problem_text(at, fmt, args);
    va_end(args);
    if (!text)
        return;
    mask_controls(text);
    grown = reallocarray(report->problems, report->n + 1, sizeof(*grown));
    if (!grown) {
        free(text);
        return;
    }
    grown[report->n++] = (struct problem){severity, text};
    report->problems = grown;
}

void report_fini(struct report *report)
{
    for (size_t i = 0; i < report->n; i++)
        free(report->problems[i].text);
    free(report->problems);
    *report = (struct report){0};
}
