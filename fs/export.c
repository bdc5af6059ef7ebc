#include "export.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "export_outdir.h"
#include "export_queue.h"
#include "export_sync.h"
#include "interrupt.h"
#include "progress.h"

#define SYNC_SECONDS \
    3 /* a disk is told to make things last so often; less is felt, more is lost with a kill */

struct export
{
    struct meld_engine *engine;
    struct meld *meld;
    const struct export_options *options;
    struct outdir folder;
    struct queue *queue;
    sigset_t signals;
    struct progress progress;
    double started;
    uint64_t there; /* bytes of an export that ended early */
    bool whole;     /* the model is complete */
};

int export_parse_part(const char *text, struct export_options *options)
{
    char again[32];
    unsigned part, n_parts;

    if (sscanf(text, "%9u/%9u", &part, &n_parts) != 2 || part < 1 || part > n_parts)
        return -EINVAL;
    snprintf(again, sizeof(again), "%u/%u", part, n_parts);
    if (strcmp(text, again) != 0)
        return -EINVAL;
    options->part = part;
    options->n_parts = n_parts;
    return 0;
}

static bool tick(void *arg, uint64_t done)
{
    struct export *e = arg;

    progress_update(&e->progress, done);
    return !interrupt_pending(&e->signals);
}

/* Compute and write, while what is written is brought to the disk. */
static int write_files(struct export *e, struct err *err)
{
    double seconds = e->options->sync_seconds > 0 ? e->options->sync_seconds : SYNC_SECONDS;
    struct syncer *syncer;
    int ret;

    e->queue = queue_new(e->engine, e->meld, &e->folder);
    ret = e->queue ? syncer_start(e->queue, &e->folder, seconds, &syncer) : -ENOMEM;
    if (ret < 0)
        return err_set(err, ret, "%s: cannot begin to write: %s", e->folder.dir, strerror(-ret));
    queue_run(e->queue, tick, e);
    progress_note(&e->progress, "waiting for the disk");
    syncer_stop(syncer);
    if (interrupt_pending(&e->signals))
        queue_fail(e->queue, -EINTR, NULL, "interrupted");
    return queue_status(e->queue, err);
}

static int run(struct export *e, struct err *err)
{
    int ret = outdir_open(&e->folder, e->meld, e->folder.dir, e->options, err);

    if (ret == 0)
        ret = meld_engine_start(e->engine, err);
    if (ret < 0)
        return ret;
    e->there = outdir_done(&e->folder);
    if (e->there)
        cli_say("%s: goes on where an export ended: %s of %s are there", e->folder.dir,
                cli_bytes(e->there).text, cli_bytes(outdir_bytes(&e->folder)).text);
    e->progress = progress_start(outdir_bytes(&e->folder), e->there);
    ret = write_files(e, err);
    if (ret == 0)
        ret = outdir_finish(&e->folder, &e->whole, err);
    progress_end(&e->progress);
    return ret;
}

static void tell_success(const struct export *e)
{
    uint64_t bytes = outdir_bytes(&e->folder);
    double seconds = cli_clock() - e->started;
    size_t n = 0;

    for (size_t i = 0; i < e->folder.n; i++)
        n += e->folder.targets[i].mine;
    printf("%s: %zu files, %s in %s, %s/s\n", e->folder.dir, n, cli_bytes(bytes).text,
           cli_seconds(seconds).text, cli_bytes((uint64_t)((double)(bytes - e->there) / seconds)).text);
    if (!e->whole)
        printf("%s: files of other parts are still missing\n", e->folder.dir);
}

static void tell_failure(const struct export *e, uint64_t kept, const struct err *err)
{
    cli_say("%s", err->text);
    if (kept)
        cli_say(
            "%s: %s of %s are kept: the same command goes on from there; remove the folder to give that up",
            e->folder.dir, cli_bytes(kept).text, cli_bytes(outdir_bytes(&e->folder)).text);
}

int export_run(struct meld_engine *engine, struct meld *meld, const char *dir,
               const struct export_options *options)
{
    struct export e = {
        .engine = engine, .meld = meld, .options = options, .folder.dir = dir, .started = cli_clock()};
    struct err err;
    int ret;

    interrupt_block(&e.signals);
    ret = run(&e, &err);
    if (ret < 0)
        tell_failure(&e, outdir_abandon(&e.folder), &err);
    else
        tell_success(&e);
    queue_free(e.queue);
    outdir_fini(&e.folder);
    return ret < 0;
}
