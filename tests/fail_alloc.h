/* Allocations that fail on demand. Link with -Wl,--wrap= for each function wrapped here. */
#ifndef FAIL_ALLOC_H
#define FAIL_ALLOC_H

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long allocs_left = -1; /* this many succeed, then one fails and all after it; negative: none fails */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_reallocarray(void *old, size_t n, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t n);
int __real_vasprintf(char **out, const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_reallocarray(void *old, size_t n, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t n);
int __wrap_vasprintf(char **out, const char *fmt, va_list args) __attribute__((format(printf, 2, 0)));
int __wrap_asprintf(char **out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static inline int alloc_refused(void)
{
    if (allocs_left < 0)
        return 0;
    if (allocs_left > 0) {
        allocs_left--;
        return 0;
    }
    errno = ENOMEM;
    return 1;
}

void *__wrap_malloc(size_t size)
{
    return alloc_refused() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return alloc_refused() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return alloc_refused() ? NULL : __real_realloc(old, size);
}

void *__wrap_reallocarray(void *old, size_t n, size_t size)
{
    return alloc_refused() ? NULL : __real_reallocarray(old, n, size);
}

char *__wrap_strdup(const char *text)
{
    return alloc_refused() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t n)
{
    return alloc_refused() ? NULL : __real_strndup(text, n);
}

int __wrap_vasprintf(char **out, const char *fmt, va_list args)
{
    return alloc_refused() ? -1 : __real_vasprintf(out, fmt, args);
}

int __wrap_asprintf(char **out, const char *fmt, ...)
{
    va_list args;
    int len;

    va_start(args, fmt);
    len = __wrap_vasprintf(out, fmt, args);
    va_end(args);
    return len;
}

/* Run `call` with the first allocation refused, then the second, ..., until it needs no more of them. `call`
 * must give -ENOMEM each time, and 0 at last; evaluates to the number of refusals. */
#define refuse_each_alloc(call)              \
    ({                                       \
        long refused_ = 0;                   \
        for (int ret_;; refused_++) {        \
            allocs_left = refused_;          \
            ret_ = (call);                   \
            allocs_left = -1;                \
            if (ret_ == 0)                   \
                break;                       \
            assert_int_equal(ret_, -ENOMEM); \
        }                                    \
        refused_;                            \
    })

#endif
