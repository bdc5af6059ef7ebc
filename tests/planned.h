/* Plans of merge files in the test's own directory. */
#ifndef PLANNED_H
#define PLANNED_H

#include "plan.h"

#include "fixture.h"

#include <errno.h>
#include <math.h>

struct planned {
    struct config *config;
    struct plan_set *set;
    struct plan *plan; /* of the result; NULL after an error */
    struct report report;
};

static inline int plan_text(const char *text, struct planned *p)
{
    struct model_search search = {.yaml_dir = scratch_dir, .hub = "/nonexistent"};
    int status;

    *p = (struct planned){0};
    status = config_parse("m.yml", text, strlen(text), method_problem, &p->config, &p->report);
    if (status == 0)
        status = plan_build(p->config, &search, 0, &p->set, &p->report);
    if (status == 0)
        p->plan = p->set->plans[p->set->n_plans - 1];
    return status;
}

static inline void drop(struct planned *p)
{
    plan_free(p->set);
    config_free(p->config);
    report_fini(&p->report);
}

static inline struct planned good(const char *text)
{
    struct planned p;
    int status = plan_text(text, &p);

    if (status)
        print_error("%s\n", p.report.n ? p.report.problems[0].text : "(nothing reported)");
    assert_int_equal(status, 0);
    return p;
}

/* The merge file fails, and says all of `needles`, a NULL-terminated list. */
static inline void bad(const char *text, const char *const *needles)
{
    struct planned p;

    assert_int_equal(plan_text(text, &p), -EINVAL);
    assert_null(p.set);
    for (; *needles; needles++) {
        bool found = false;
        for (size_t i = 0; i < p.report.n; i++)
            found = found || strstr(p.report.problems[i].text, *needles);
        for (size_t i = 0; !found && i < p.report.n; i++)
            print_error("said: %s\n", p.report.problems[i].text);
        if (!found)
            fail_msg("nothing says \"%s\"", *needles);
    }
    drop(&p);
}

#define BAD(text, ...) bad(text, (const char *const[]){__VA_ARGS__, NULL})

static inline void assert_warns(const struct planned *p, const char *needle)
{
    for (size_t i = 0; i < p->report.n; i++) {
        if (strstr(p->report.problems[i].text, needle))
            return;
    }
    for (size_t i = 0; i < p->report.n; i++)
        print_error("said: %s\n", p->report.problems[i].text);
    fail_msg("no warning says \"%s\" (%zu problems)", needle, p->report.n);
}

static inline const struct plan_tensor *tensor(const struct planned *p, const char *name)
{
    for (size_t i = 0; i < p->plan->n_tensors; i++) {
        if (strcmp(p->plan->tensors[i].st.name, name) == 0)
            return &p->plan->tensors[i];
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

static inline double donor_value(const struct plan_tensor *t, unsigned input, const char *param)
{
    const struct merge *m = &t->recipe.merge;

    return m->per_input[input * m->method->n_params + (unsigned)method_param(m->method, param)];
}

#endif
