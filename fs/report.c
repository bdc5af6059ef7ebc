#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "interrupt.h"
#include "page.h"
#include "progress.h"

/* ---- the page */

/* JSON within a script element: where a `<` can stand it may be written as an escape, so that no name of a
 * tensor ends the element or begins a comment. */
static void put_json(FILE *out, const char *json)
{
    for (size_t len; *json; json += len) {
        len = strcspn(json, "<");
        fwrite(json, 1, len, out);
        if (json[len] != '<')
            continue;
        fputs("\\u003c", out);
        len++;
    }
}

static void put_script(FILE *out, const char *id, const char *json)
{
    fprintf(out, "<script type=\"application/json\" id=\"%s\">", id);
    put_json(out, json);
    fputs("</script>\n", out);
}

/* A file's name as a JSON string: bytes that are no ASCII letters may be anything, and are shown as `?`. */
static void put_title(FILE *out, const char *title)
{
    fputs("<script type=\"application/json\" id=\"title\">\"", out);
    for (; *title; title++) {
        bool fits = *title >= ' ' && *title < 0x7f && !strchr("\"\\<", *title);
        fputc(fits ? *title : '?', out);
    }
    fputs("\"</script>\n", out);
}

void report_page(FILE *out, const char *title, const char *json)
{
    fputs(page_head, out);
    put_title(out, title);
    put_script(out, "data", json);
    fputs(page_tail, out);
}

/* ---- the file it goes to */

struct output {
    const char *path; /* NULL: standard output */
    FILE *file;
    bool made; /* the file was not there before */
};

/* Opened before minutes of work, but what it holds is left until there is something to replace it with. */
static bool output_open(struct output *output)
{
    int fd;

    output->file = stdout;
    if (!output->path)
        return true;
    fd = open(output->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    output->made = fd >= 0;
    if (fd < 0 && errno == EEXIST)
        fd = open(output->path, O_WRONLY | O_CLOEXEC);
    output->file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (output->file)
        return true;
    cli_say("%s: %s", output->path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return false;
}

static bool output_close(struct output *output)
{
    bool good = fflush(output->file) == 0 && !ferror(output->file);

    if (output->path)
        good = fclose(output->file) == 0 && good;
    if (!good)
        cli_say("%s: %s", output->path ? output->path : "standard output", strerror(errno));
    if (!good && output->made)
        unlink(output->path); /* half a page */
    return good;
}

static void output_drop(struct output *output)
{
    if (output->path)
        fclose(output->file);
    if (output->made)
        unlink(output->path);
}

/* ---- the work */

struct work {
    struct progress progress;
    const sigset_t *signals;
};

static bool show_progress(void *arg, uint64_t done, uint64_t total)
{
    struct work *work = arg;

    work->progress.total = total;
    progress_update(&work->progress, done);
    return !interrupt_pending(work->signals);
}

/* NULL with the exit status' reason said. */
static char *survey(struct meld *meld, const sigset_t *signals, bool *wrong)
{
    struct work work = {progress_start(0, 0), signals};
    struct report report = {0};
    char *json = NULL;
    int ret;

    ret = meld_survey(meld, show_progress, &work, &report, &json);
    progress_end(&work.progress);
    *wrong = ret < 0 || report.n_errors > 0;
    cli_report(&report, ret);
    report_fini(&report);
    return json;
}

int report_run(struct meld *meld, const char *title, const char *output, bool json)
{
    struct output to = {.path = output};
    bool wrong = true;
    sigset_t signals;
    char *text;

    interrupt_block(&signals); /* from before there is a file that would be left */
    if (!output_open(&to))
        return 1;
    text = survey(meld, &signals, &wrong);
    if (!text) {
        output_drop(&to);
        return 1;
    }
    pthread_sigmask(SIG_UNBLOCK, &signals, NULL); /* whoever reads it may be slow */
    if (to.path && ftruncate(fileno(to.file), 0) < 0 && errno != EINVAL)
        cli_say("%s: %s", to.path, strerror(errno));
    if (json)
        fputs(text, to.file);
    else
        report_page(to.file, title, text);
    free(text);
    return !output_close(&to) || wrong;
}
