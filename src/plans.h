/* The plans of open models. Above a budget those that were not used for longest are dropped, and made again
 * when they are needed, by a thread of their own: a source that hangs holds up only who needs a plan made,
 * be it another file's.
 *
 * A merge file's plan, with its named documents and what its variants need of it, goes as one. What is known
 * of a model without it (struct meld) stays. Thread-safe; nothing is called with the lock held.
 */
#ifndef PLANS_H
#define PLANS_H

#include <pthread.h>

#include "keeper.h"
#include "meld.h"
#include "opened.h"

struct meld {
    struct keeper keeper;       /* first member; not a document's: its file's result is kept for it */
    struct meld_engine *engine; /* held; or NULL */
    struct meld *of;            /* of a variant: held; of a document: the result, not held */
    size_t number;              /* of the model in `opened` */

    size_t n_files;
    struct meld_file *files; /* with their paths */
    uint64_t n_tensors, n_models, bytes;
    uint64_t id; /* served.id, which it keeps */
    uint64_t fingerprint;
    struct timespec mtime;
    char *path;          /* of a variant, canonical; else NULL */
    char *document_name; /* of a document */
    char *recipe;        /* of a variant; else NULL: the file's text */

    /* of a result: */
    struct origin origin;
    size_t n_documents;
    struct meld *documents;
    bool *differ; /* models of all its documents that were seen to differ from the base; with the lock held */

    /* The plans' lock guards what follows; of a result and of a variant. */
    struct opened *opened;    /* held; NULL: it was dropped */
    struct meld *variants;    /* of a result: all, of its documents, too */
    struct meld *prev, *next; /* of a result: in plans->held while it is; of a variant: in variants */
    size_t opened_bytes;
    unsigned n_pins;
};

/* Somebody who waits for a plan. Owned by the caller until `go` is called, once, by the thread. */
struct plan_wait {
    struct meld *meld; /* held by the caller */
    /* opened: the model's, held by the call; NULL: status and err say why. */
    void (*go)(struct plan_wait *wait, struct opened *opened, int status, const struct err *err);
    struct plan_wait *next;
};

struct plans {
    size_t budget; /* bytes; 0: none is dropped */
    pthread_t thread;
    bool running;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake;
    bool stopping;
    struct meld *held; /* longest unused first */
    size_t n, bytes;   /* of those */
    uint64_t n_again;  /* made again so far */
    struct plan_wait *waits, **tail;
};

void plans_init(struct plans *plans, size_t budget);
void plans_fini(struct plans *plans);
/* 0 or -errno. Nothing is to be done where none is dropped. */
int plans_start(struct plans *plans, struct err *err);
void plans_stop(struct plans *plans); /* who waits gets -ECANCELED */
void plans_end(struct plans *plans);  /* stops, and waits for the thread */

/* plans NULL, from here on: the model's engine is NULL, and its plan stays.
 *
 * A result that was just opened, or a variant; opened is taken over. Once a model. */
void plans_add(struct plans *plans, struct meld *meld, struct opened *opened);
/* It is closed. */
void plans_remove(struct plans *plans, struct meld *meld);

/* Results with the same fingerprint: where `to` has no plan, it gets that of `from`, which has no variants
 * and was not read. */
void plans_move(struct plans *plans, struct meld *from, struct meld *to);

/* What the model is read from, held; NULL: it was dropped. Counts as use; to peek does not. */
struct opened *plans_take(struct plans *plans, struct meld *meld);
struct opened *plans_peek(struct plans *plans, struct meld *meld);
/* The same, made again where it was dropped, which may wait for the disk. 0, or -EIO or -ENOMEM with err. */
int plans_make(struct plans *plans, struct meld *meld, struct opened **out, struct err *err);
/* The same, by the thread. */
void plans_wait(struct plans *plans, struct plan_wait *wait);

void plans_counters(struct plans *plans, struct meld_counters *counters);

/* What is pinned is not dropped. */
void plans_pin(struct plans *plans, struct meld *meld);
void plans_unpin(struct plans *plans, struct meld *meld);

/* The model of the merge file's result. */
struct meld *meld_result(struct meld *meld);

#endif
