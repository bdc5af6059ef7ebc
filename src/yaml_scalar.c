/* Which plain scalars are null, booleans and numbers: the regular expressions of PyYAML's resolver as
 * matchers. Each takes the text after an optional sign and returns the number, NAN where it does not match.
 */
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "yaml_tree.h"

enum { NUMBER_MAX = 400 }; /* longer texts are no numbers */

static const char digits[] = "0123456789", digits_[] = "0123456789_";

/* strtod over the whole text, whatever the locale of the program. */
static bool number_in_c(const char *text, double *number)
{
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    char *end;

    if (c == (locale_t)0)
        return false;
    *number = strtod_l(text, &end, c);
    freelocale(c);
    return *text && *end == '\0';
}

static double number_without_underscores(const char *text, size_t len)
{
    char buffer[NUMBER_MAX + 1];
    size_t n = 0;
    double number;

    for (size_t i = 0; i < len; i++)
        if (text[i] != '_')
            buffer[n++] = text[i];
    buffer[n] = '\0';
    return number_in_c(buffer, &number) ? number : NAN;
}

static double in_base(const char *text, const char *allowed, double base)
{
    double number = 0;
    bool any = false;

    for (; *text; text++) {
        const char *at = strchr(allowed, *text);
        if (!at)
            return NAN;
        if (*text == '_')
            continue;
        number = number * base + (double)(at - allowed);
        any = true;
    }
    return any ? number : NAN;
}

/* 0b101, 0x1F, 017 (octal), 0, 1_000 */
static double match_int(const char *text)
{
    if (strncmp(text, "0b", 2) == 0)
        return in_base(text + 2, "01_", 2);
    if (strncmp(text, "0x", 2) == 0) {
        size_t len = strlen(text);
        return strspn(text + 2, "0123456789abcdefABCDEF_") == len - 2 ? number_without_underscores(text, len)
                                                                      : NAN;
    }
    if (text[0] == '0' && text[1])
        return strspn(text + 1, "_") == strlen(text + 1) ? 0 : in_base(text + 1, "01234567_", 8);
    if (text[0] < '0' || text[0] > '9' || text[strspn(text, digits_)])
        return NAN;
    return number_without_underscores(text, strlen(text));
}

/* 190:20:30 and 190:20:30.15; `fraction` tells which of the two is looked for. */
static double match_sexagesimal(const char *text, bool fraction)
{
    size_t head = strspn(text, digits_);
    double number;

    if (head == 0 || text[0] == '_' || (!fraction && text[0] == '0') || text[head] != ':')
        return NAN;
    number = number_without_underscores(text, head);
    for (text += head; *text == ':'; text += head + 1) {
        head = strspn(text + 1, digits);
        if (head < 1 || head > 2 || (head == 2 && text[1] > '5'))
            return NAN;
        if (text[head + 1] == '.')
            break;
        number = number * 60 + number_without_underscores(text + 1, head);
    }
    if (!fraction)
        return *text ? NAN : number;
    head = strspn(text + (*text == ':'), "0123456789_.");
    if (*text != ':' || text[head + 1] || strchr(strchr(text, '.') + 1, '.'))
        return NAN;
    return number * 60 + number_without_underscores(text + 1, head);
}

/* 1.5, 1., 1_0.5e+3, .5: a point, and a sign in the exponent. */
static double match_decimal(const char *text)
{
    size_t whole = strspn(text, digits_), part, exponent;

    if (text[0] == '_' || text[whole] != '.')
        return NAN;
    part = strspn(text + whole + 1, digits_);
    if (whole == 0 && (part == 0 || text[1] == '_'))
        return NAN;
    exponent = whole + 1 + part;
    if (text[exponent] == 'e' || text[exponent] == 'E') {
        size_t n =
            text[exponent + 1] == '+' || text[exponent + 1] == '-' ? strspn(text + exponent + 2, digits) : 0;
        if (n == 0)
            return NAN;
        exponent += n + 2;
    }
    return text[exponent] ? NAN : number_without_underscores(text, exponent);
}

static bool among(const char *text, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(text, words[i]) == 0)
            return true;
    return false;
}

static bool is_null(const char *text)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};

    return among(text, words, sizeof(words) / sizeof(*words));
}

static bool is_bool(const char *text, double *number)
{
    static const char *const no[] = {"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"};
    static const char *const yes[] = {"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"};

    *number = among(text, yes, sizeof(yes) / sizeof(*yes));
    return *number == 1 || among(text, no, sizeof(no) / sizeof(*no));
}

static bool is_special(const char *text, bool sign, double *number)
{
    static const char *const inf[] = {".inf", ".Inf", ".INF"}, *const nan_words[] = {".nan", ".NaN", ".NAN"};

    *number = among(text, inf, 3) ? INFINITY : NAN;
    return *number == INFINITY || (!sign && among(text, nan_words, 3));
}

/* PyYAML has no sign before a number that begins with its point. */
static double match_float(const char *text, bool sign)
{
    double number = sign && text[0] == '.' ? NAN : match_decimal(text);

    return isnan(number) ? match_sexagesimal(text, true) : number;
}

enum ynode_kind yaml_resolve(const char *text, double *number)
{
    bool sign = text[0] == '-' || text[0] == '+';
    const char *bare = text + sign;
    enum ynode_kind kind = YNODE_INT;

    *number = 0;
    if (is_null(text))
        return YNODE_NULL;
    if (is_bool(text, number))
        return YNODE_BOOL;
    if (strlen(text) > NUMBER_MAX)
        return YNODE_TEXT;
    *number = match_int(bare);
    if (isnan(*number))
        *number = match_sexagesimal(bare, false);
    if (isnan(*number)) {
        kind = YNODE_FLOAT;
        *number = match_float(bare, sign);
    }
    if (isnan(*number) && !is_special(bare, sign, number)) {
        *number = 0;
        return YNODE_TEXT;
    }
    if (text[0] == '-')
        *number = -*number;
    return kind;
}

/* Underscores stand alone and inside; returns the length without them, 0 if there is something else than a
 * number. */
static size_t clean_number(const char *text, size_t len, char *out)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++) {
        if (text[i] != '_')
            out[n++] = text[i];
        else if (i == 0 || i + 1 == len || text[i + 1] == '_')
            return 0;
    }
    out[n] = '\0';
    return n;
}

bool yaml_text_number(const char *text, double *number)
{
    static const char space[] = " \t\n\r\f\v", allowed[] = "0123456789+-.eE";
    char buffer[NUMBER_MAX + 1];
    const char *word;
    size_t len;

    text += strspn(text, space);
    len = strlen(text);
    while (len && strchr(space, text[len - 1]))
        len--;
    if (len == 0 || len > NUMBER_MAX || clean_number(text, len, buffer) == 0)
        return false;
    word = buffer + (buffer[0] == '-' || buffer[0] == '+');
    if (buffer[strspn(buffer, allowed)] && strcasecmp(word, "inf") != 0 &&
        strcasecmp(word, "infinity") != 0 && strcasecmp(word, "nan") != 0)
        return false;
    return number_in_c(buffer, number);
}

const char *ynode_kind_name(enum ynode_kind kind)
{
    static const char *const names[] = {
        [YNODE_NULL] = "nothing",   [YNODE_BOOL] = "a yes or no", [YNODE_INT] = "a number",
        [YNODE_FLOAT] = "a number", [YNODE_TEXT] = "a text",      [YNODE_LIST] = "a list",
        [YNODE_MAP] = "a mapping"};

    return names[kind];
}
