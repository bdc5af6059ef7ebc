#include "jsontree.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"

static bool keep_text(const struct json *json, cJSON *number)
{
    size_t len;
    const char *text = json_text(json, &len);

    number->valuestring = cJSON_malloc(len + 1);
    if (!number->valuestring)
        return false;
    memcpy(number->valuestring, text, len + 1);
    return true;
}

/* cJSON's strings end at a NUL, so two keys could become one. */
static bool has_nul(const struct json *json)
{
    size_t len;
    const char *text = json_text(json, &len);

    return strlen(text) != len;
}

/* Walk the scanner's events and the tree side by side; both hold the same values in the same order. */
static bool keep_numbers(struct json *json, enum json_event event, cJSON *node)
{
    if (event == JSON_STRING && has_nul(json))
        return json_fail(json, "a string contains \\u0000"), false;
    if (event == JSON_NUMBER)
        return keep_text(json, node);
    if (event != JSON_OBJECT && event != JSON_ARRAY)
        return event != JSON_ERROR;
    for (cJSON *child = node->child; child; child = child->next) {
        event = json_next(json);
        if (event == JSON_KEY && has_nul(json))
            return json_fail(json, "a key contains \\u0000"), false;
        if (event == JSON_KEY)
            event = json_next(json);
        if (!keep_numbers(json, event, child))
            return false;
    }
    return json_next(json) != JSON_ERROR; /* the end of the object or array */
}

int jsontree_parse(const char *text, size_t len, cJSON **out, struct err *err)
{
    struct json *json;
    cJSON *tree;
    int ret = json_check(text, len, err);

    *out = NULL;
    if (ret)
        return ret;
    tree = cJSON_ParseWithLength(text, len);
    json = json_new(text, len, err);
    if (tree && json && keep_numbers(json, json_next(json), tree))
        ret = 0;
    else if (tree && json && json_status(json))
        ret = json_status(json);
    else
        ret = err_set(err, -ENOMEM, "out of memory");
    json_free(json);
    if (ret)
        cJSON_Delete(tree);
    else
        *out = tree;
    return ret;
}

void jsontree_set_number(cJSON *number, double value)
{
    cJSON_free(number->valuestring);
    number->valuestring = NULL;
    cJSON_SetNumberValue(number, value);
}

static void print_number(FILE *out, const cJSON *number)
{
    if (number->valuestring)
        fputs(number->valuestring, out);
    else
        fprintf(out, "%.17g", number->valuedouble);
}

static void print(FILE *out, const cJSON *node, int depth);

static void print_members(FILE *out, const cJSON *node, int depth)
{
    const char *brackets = cJSON_IsArray(node) ? "[]" : "{}";
    const cJSON *child;

    fputc(brackets[0], out);
    cJSON_ArrayForEach(child, node)
    {
        fprintf(out, "%s\n%*s", child == node->child ? "" : ",", 2 * depth + 2, "");
        if (cJSON_IsObject(node)) {
            json_write_string(out, child->string, strlen(child->string));
            fputs(": ", out);
        }
        print(out, child, depth + 1);
    }
    if (node->child)
        fprintf(out, "\n%*s", 2 * depth, "");
    fputc(brackets[1], out);
}

static void print(FILE *out, const cJSON *node, int depth)
{
    if (cJSON_IsObject(node) || cJSON_IsArray(node))
        print_members(out, node, depth);
    else if (cJSON_IsString(node))
        json_write_string(out, node->valuestring, strlen(node->valuestring));
    else if (cJSON_IsNumber(node))
        print_number(out, node);
    else
        fputs(cJSON_IsTrue(node) ? "true" : cJSON_IsFalse(node) ? "false" : "null", out);
}

char *jsontree_print(const cJSON *tree)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    bool failed;

    if (!out)
        return NULL;
    print(out, tree, 0);
    fputc('\n', out);
    failed = ferror(out);
    if (fclose(out) || failed) {
        free(text);
        return NULL;
    }
    return text;
}
