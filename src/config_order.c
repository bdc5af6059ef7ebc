/* Documents that are models of others: which needs which, and in what order they can be made. */
#include <stdlib.h>
#include <string.h>

#include "config_part.h"

struct need {
    size_t by;         /* the document that names */
    struct place at;   /* where */
    struct need *next; /* of the same stage */
};

struct stage {
    const struct staged *staged;
    const char *name; /* NULL: the result */
    size_t index;     /* in the file */
    size_t unmet;     /* needs of this one that are not placed yet */
    bool placed;
    struct need *needed; /* by these */
};

struct graph {
    struct reader *reader;
    size_t n;
    struct stage *stages;
    struct stage **by_name; /* sorted; those with a name */
    size_t n_named;
};

static int name_compare(const void *a_ptr, const void *b_ptr)
{
    const struct stage *a = *(struct stage *const *)a_ptr, *b = *(struct stage *const *)b_ptr;
    int order = strcmp(a->name, b->name);

    return order ? order : a < b ? -1 : a > b;
}

static struct stage *find_stage(const struct graph *graph, const char *name)
{
    size_t low = 0, high = graph->n_named;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(graph->by_name[middle]->name, name);
        if (order == 0)
            return graph->by_name[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static void add_need(struct graph *graph, struct stage *stage, const struct model_ref *ref)
{
    struct stage *other = ref && ref->path ? find_stage(graph, ref->path) : NULL;
    struct need *need;

    if (!other)
        return;
    if (other == stage) {
        reader_error(graph->reader, ref->at, "stage `%s` takes itself as a model: name another", stage->name);
        return;
    }
    need = reader_alloc(graph->reader, 1, sizeof(*need));
    if (!need)
        return;
    *need = (struct need){stage->index, ref->at, other->needed};
    other->needed = need;
    stage->unmet++;
}

static void add_needs(struct graph *graph, struct stage *stage)
{
    const struct document *document = &stage->staged->document;

    add_need(graph, stage, document->base_model);
    add_need(graph, stage, document->tokenizer.model);
    for (size_t m = 0; m < document->n_modules; m++) {
        for (size_t s = 0; s < document->modules[m].n_slices; s++) {
            const struct slice *slice = &document->modules[m].slices[s];
            add_need(graph, stage, slice->base_model);
            for (size_t i = 0; i < slice->n_sources; i++)
                add_need(graph, stage, &slice->sources[i].model);
        }
    }
}

static void check_names(struct graph *graph)
{
    for (size_t i = 1; i < graph->n_named; i++)
        if (strcmp(graph->by_name[i]->name, graph->by_name[i - 1]->name) == 0)
            reader_error(graph->reader, graph->by_name[i]->staged->name_at,
                         "the name `%s` is given twice, first in line %u: rename one of the documents",
                         graph->by_name[i]->name, graph->by_name[i - 1]->staged->name_at.line);
}

static bool graph_init(struct graph *graph, struct reader *reader, const struct staged *staged, size_t n)
{
    *graph = (struct graph){reader, n};
    graph->stages = reader_alloc(reader, n, sizeof(*graph->stages));
    graph->by_name = reader_alloc(reader, n, sizeof(struct stage *));
    if (!graph->stages || !graph->by_name)
        return false;
    for (size_t i = 0; i < n; i++) {
        graph->stages[i] = (struct stage){&staged[i], staged[i].document.name, i};
        if (graph->stages[i].name)
            graph->by_name[graph->n_named++] = &graph->stages[i];
    }
    qsort(graph->by_name, graph->n_named, sizeof(*graph->by_name), name_compare);
    return true;
}

static void check_results(struct graph *graph)
{
    const struct stage *first = NULL;

    for (size_t i = 0; i < graph->n; i++) {
        if (graph->stages[i].staged->name_at.line)
            continue;
        if (first)
            reader_error(graph->reader, graph->stages[i].staged->document.at,
                         "a second document without `name:`, after that in line %u: only the result has none",
                         first->staged->document.at.line);
        else
            first = &graph->stages[i];
    }
    if (!first)
        reader_error(graph->reader, graph->stages[graph->n - 1].staged->document.at,
                     "every document has a `name:`: take it off the one that is the result");
}

/* Those that nothing keeps waiting, then those that these were the last to keep, and so on. */
static size_t place_stages(struct graph *graph, struct stage **order)
{
    size_t n = 0;

    for (size_t i = 0; i < graph->n; i++)
        if (graph->stages[i].unmet == 0)
            order[n++] = &graph->stages[i];
    for (size_t i = 0; i < n; i++) {
        order[i]->placed = true;
        for (const struct need *need = order[i]->needed; need; need = need->next)
            if (--graph->stages[need->by].unmet == 0)
                order[n++] = &graph->stages[need->by];
    }
    return n;
}

/* A need among those that could not be placed; every such stage waits for another, so stepping from each to
 * one it waits for must come round. */
static void report_circle(struct graph *graph)
{
    struct stage **waits_for = reader_alloc(graph->reader, graph->n, sizeof(struct stage *)), *at = NULL;
    struct place *where = reader_alloc(graph->reader, graph->n, sizeof(*where));

    if (!waits_for || !where)
        return;
    for (size_t i = 0; i < graph->n; i++)
        for (const struct need *need = graph->stages[i].needed; !graph->stages[i].placed && need;
             need = need->next) {
            waits_for[need->by] = &graph->stages[i];
            where[need->by] = need->at;
            at = graph->stages[i].name && !at ? &graph->stages[i] : at;
        }
    for (size_t i = 0; at && i < graph->n; i++)
        at = waits_for[at->index];
    if (at)
        reader_error(graph->reader, where[at->index],
                     "stages need each other in a circle: `%s` needs `%s`, which in the end needs `%s`",
                     at->name, waits_for[at->index]->name, at->name);
}

static void warn_unused(struct graph *graph)
{
    for (size_t i = 0; i < graph->n_named; i++)
        if (!graph->by_name[i]->needed)
            reader_warning(graph->reader, graph->by_name[i]->staged->name_at,
                           "no other document takes `%s` as a model", graph->by_name[i]->name);
}

static void take_in_order(struct reader *reader, struct stage **order, size_t n)
{
    struct config *config = reader->config;

    config->docs = reader_alloc(reader, n, sizeof(*config->docs));
    if (!config->docs)
        return;
    for (size_t i = 0; i < n; i++)
        if (order[i]->name)
            config->docs[config->n_docs++] = order[i]->staged->document;
    for (size_t i = 0; i < n; i++)
        if (!order[i]->name)
            config->docs[config->n_docs++] = order[i]->staged->document;
}

void order_documents(struct reader *reader, struct staged *staged, size_t n)
{
    struct graph graph;
    struct stage **order = reader_alloc(reader, n, sizeof(struct stage *));

    if (n == 1 && staged->document.name) {
        reader_warning(reader, staged->name_at, "`name` has no effect in a file of one document");
        staged->document.name = NULL;
        staged->name_at = (struct place){0};
    }
    if (!order || !graph_init(&graph, reader, staged, n))
        return;
    check_results(&graph);
    check_names(&graph);
    for (size_t i = 0; i < n; i++)
        add_needs(&graph, &graph.stages[i]);
    warn_unused(&graph);
    if (place_stages(&graph, order) < n)
        report_circle(&graph);
    else
        take_in_order(reader, order, n);
}
