#include "yaml_tree.h"

#include <errno.h>
#include <float.h>
#include <math.h>

#include "scratch_dir.h"
#include "yaml_text.h"

#include "fail_alloc.h"

struct tree {
    struct arena arena;
    struct report report;
    const struct ynode **docs;
    size_t n;
    int ret;
};

static struct tree read_bytes(const char *text, size_t len)
{
    struct tree tree = {{0}};
    struct findings findings = {0};

    tree.ret = yaml_tree_read(&tree.arena, &findings, "t.yml", text, len, &tree.docs, &tree.n);
    findings_flush(&findings, "t.yml", &tree.report);
    return tree;
}

static struct tree read_tree(const char *text)
{
    return read_bytes(text, strlen(text));
}

static void free_tree(struct tree *tree)
{
    arena_fini(&tree->arena);
    report_fini(&tree->report);
}

static size_t show(const struct ynode *node, char *out, size_t size)
{
    size_t len = 0;

    if (node->kind == YNODE_LIST) {
        len += (size_t)snprintf(out, size, "[");
        for (size_t i = 0; i < node->n; i++) {
            len += show(node->items[i], out + len, size - len);
            len += (size_t)snprintf(out + len, size - len, i + 1 < node->n ? "," : "");
        }
        return len + (size_t)snprintf(out + len, size - len, "]");
    }
    if (node->kind == YNODE_MAP) {
        len += (size_t)snprintf(out, size, "{");
        for (size_t i = 0; i < node->n; i++) {
            len += show(node->pairs[i].key, out + len, size - len);
            len += (size_t)snprintf(out + len, size - len, ":");
            len += show(node->pairs[i].value, out + len, size - len);
            len += (size_t)snprintf(out + len, size - len, i + 1 < node->n ? "," : "");
        }
        return len + (size_t)snprintf(out + len, size - len, "}");
    }
    if (node->kind == YNODE_TEXT)
        return (size_t)snprintf(out, size, "'%s'", node->text);
    if (node->kind == YNODE_NULL)
        return (size_t)snprintf(out, size, "null");
    if (node->kind == YNODE_BOOL)
        return (size_t)snprintf(out, size, node->number == 1 ? "yes" : "no");
    return (size_t)snprintf(out, size, "%g", node->number);
}

static void check_tree(const char *text, const char *expected)
{
    struct tree tree = read_tree(text);
    char shown[1024];

    if (tree.report.n)
        assert_string_equal(tree.report.problems[0].text, "");
    assert_int_equal(tree.ret, 0);
    assert_int_equal(tree.n, 1);
    show(tree.docs[0], shown, sizeof(shown));
    assert_string_equal(shown, expected);
    free_tree(&tree);
}

static void check_problem(const char *text, size_t len, const char *expected)
{
    struct tree tree = read_bytes(text, len);

    assert_int_equal(tree.report.n, 1);
    assert_string_equal(tree.report.problems[0].text, expected);
    assert_int_equal(tree.report.n_errors, 1);
    free_tree(&tree);
}

/* Kinds and numbers as PyYAML 6.0.3 gives them. */
static void test_scalars(void **state)
{
    static const struct {
        const char *text;
        enum ynode_kind kind;
        double number;
    } cases[] = {
        {"", YNODE_NULL, 0},
        {"~", YNODE_NULL, 0},
        {"null", YNODE_NULL, 0},
        {"NULL", YNODE_NULL, 0},
        {"nULL", YNODE_TEXT, 0},
        {"yes", YNODE_BOOL, 1},
        {"On", YNODE_BOOL, 1},
        {"TRUE", YNODE_BOOL, 1},
        {"tRue", YNODE_TEXT, 0},
        {"no", YNODE_BOOL, 0},
        {"OFF", YNODE_BOOL, 0},
        {"False", YNODE_BOOL, 0},
        {"y", YNODE_TEXT, 0},
        {"N", YNODE_TEXT, 0},
        {"0", YNODE_INT, 0},
        {"00", YNODE_INT, 0},
        {"0_", YNODE_INT, 0},
        {"010", YNODE_INT, 8},
        {"-017", YNODE_INT, -15},
        {"08", YNODE_TEXT, 0},
        {"0o7", YNODE_TEXT, 0},
        {"+17", YNODE_INT, 17},
        {"1_000", YNODE_INT, 1000},
        {"1__0_", YNODE_INT, 10},
        {"_1", YNODE_TEXT, 0},
        {"0x1F", YNODE_INT, 31},
        {"0x1_F", YNODE_INT, 31},
        {"0x", YNODE_TEXT, 0},
        {"0x_", YNODE_TEXT, 0},
        {"0X1F", YNODE_TEXT, 0},
        {"0b101", YNODE_INT, 5},
        {"0b1_01", YNODE_INT, 5},
        {"0b_", YNODE_TEXT, 0},
        {"0b2", YNODE_TEXT, 0},
        {"9007199254740993", YNODE_INT, 9007199254740992.0},
        {"1.5", YNODE_FLOAT, 1.5},
        {"-1.5", YNODE_FLOAT, -1.5},
        {"1.", YNODE_FLOAT, 1},
        {"1_0.5_0", YNODE_FLOAT, 10.5},
        {".5", YNODE_FLOAT, .5},
        {"-.5", YNODE_TEXT, 0},
        {"._5", YNODE_TEXT, 0},
        {".5_", YNODE_FLOAT, .5},
        {".", YNODE_TEXT, 0},
        {"-", YNODE_TEXT, 0},
        {"1e3", YNODE_TEXT, 0},
        {"1e-3", YNODE_TEXT, 0},
        {"1.0e3", YNODE_TEXT, 0},
        {"1.0e+3", YNODE_FLOAT, 1000},
        {"1.E-2", YNODE_FLOAT, .01},
        {"1.5e+", YNODE_TEXT, 0},
        {"1.5.5", YNODE_TEXT, 0},
        {"1.0e+400", YNODE_FLOAT, INFINITY},
        {"1.7976931348623157e+308", YNODE_FLOAT, DBL_MAX},
        {".inf", YNODE_FLOAT, INFINITY},
        {"-.INF", YNODE_FLOAT, -INFINITY},
        {".iNf", YNODE_TEXT, 0},
        {"inf", YNODE_TEXT, 0},
        {".NaN", YNODE_FLOAT, NAN},
        {"-.nan", YNODE_TEXT, 0},
        {"1:30", YNODE_INT, 90},
        {"-190:20:30", YNODE_INT, -685230},
        {"1:60", YNODE_TEXT, 0},
        {"0:30", YNODE_TEXT, 0},
        {"1:", YNODE_TEXT, 0},
        {"1:123", YNODE_TEXT, 0},
        {"1:30.5", YNODE_FLOAT, 90.5},
        {"0:30.", YNODE_FLOAT, 30},
        {"1:2:3.2_5", YNODE_FLOAT, 3723.25},
        {"1:60.5", YNODE_TEXT, 0},
        {"1:30.5.5", YNODE_TEXT, 0},
        {"1:.5", YNODE_TEXT, 0},
        {"1:30.a", YNODE_TEXT, 0},
        {"2001-01-01", YNODE_TEXT, 0},
        {"<<", YNODE_TEXT, 0},
    };
    double number;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        enum ynode_kind kind = yaml_resolve(cases[i].text, &number);
        if (kind != cases[i].kind ||
            (number != cases[i].number && !(isnan(number) && isnan(cases[i].number))))
            fail_msg("%s: %s %.17g, expected %s %.17g", cases[i].text, ynode_kind_name(kind), number,
                     ynode_kind_name(cases[i].kind), cases[i].number);
    }
}

/* What pydantic, and so mergekit, takes for a float when it gets a string. */
static void test_text_numbers(void **state)
{
    static const struct {
        const char *text;
        double number;
    } yes[] = {{"1e-3", 1e-3},    {" 0.5 ", 0.5},      {"\t1\n", 1},
               {"1_000", 1000},   {"1e5_0", 1e50},     {"1_e5", 1e5},
               {"inf", INFINITY}, {"-INF", -INFINITY}, {"Infinity", INFINITY},
               {"1.", 1},         {"-.5", -.5},        {"+1", 1},
               {"08", 8},         {"010", 10},         {"1e400", INFINITY}};
    static const char *const no[] = {"",    " ",   "1__0", "_1", "1_",  "0x10", "1e", ".",
                                     "1,5", "--1", "1f",   "y",  "1 0", "0b1",  "a",  "infinit"};
    double number;

    (void)state;
    for (size_t i = 0; i < sizeof(yes) / sizeof(*yes); i++)
        if (!yaml_text_number(yes[i].text, &number) || number != yes[i].number)
            fail_msg("%s: %.17g, expected %.17g", yes[i].text, number, yes[i].number);
    assert_true(yaml_text_number("+nan", &number) && isnan(number));
    for (size_t i = 0; i < sizeof(no) / sizeof(*no); i++)
        if (yaml_text_number(no[i], &number))
            fail_msg("\"%s\" is taken for %.17g", no[i], number);
}

static void test_long_numbers(void **state)
{
    char digits[2000];
    double number;

    (void)state;
    memset(digits, '1', sizeof(digits));
    digits[400] = '\0';
    assert_int_equal(yaml_resolve(digits, &number), YNODE_INT);
    assert_true(yaml_text_number(digits, &number) && isinf(number));
    digits[400] = '1';
    digits[1999] = '\0';
    assert_int_equal(yaml_resolve(digits, &number), YNODE_TEXT);
    assert_false(yaml_text_number(digits, &number));
}

static void test_trees(void **state)
{
    (void)state;
    check_tree("a: 1\nb: [x, 2.5, yes, ~]\nc:\n  d: \"1\"\n  e: '1'\n",
               "{'a':1,'b':['x',2.5,yes,null],'c':{'d':'1','e':'1'}}");
    check_tree("- - 1\n  - []\n- {}\n- |\n  x\n  y\n- >\n  x\n  y\n", "[[1,[]],{},'x\ny\n','x y\n']");
    check_tree("\xEF\xBB\xBF"
               "a: \xC3\xA9\r\nb: \"\\u00e9\"\r\n",
               "{'a':'\xC3\xA9','b':'\xC3\xA9'}");
    check_tree(
        "a: !!str 1\nb: !!float 1\nc: !!float 1e-3\nd: !!int 010\ne: !!bool yes\nf: !!null ~\ng: !!seq []\n"
        "h: !!map {}\ni: ! \"1\"\nj: ! []\n",
        "{'a':'1','b':1,'c':0.001,'d':8,'e':yes,'f':null,'g':[],'h':{},'i':1,'j':[]}");
    check_tree("%YAML 1.1\n---\na: 1\n", "{'a':1}");
    check_tree("a: 1\n---\n# nothing\n---\n", "{'a':1}");
    check_tree("1: a\nyes: b\n~: c\n", "{1:'a',yes:'b',null:'c'}");
}

static void test_aliases(void **state)
{
    (void)state;
    check_tree("a: &x [1]\nb: *x\nc: &y 2\nd: {*y : *x}\n", "{'a':[1],'b':[1],'c':2,'d':{2:[1]}}");
    check_tree("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\n", "{'a':{'p':1,'q':2},'b':{'q':3,'p':1}}");
    check_tree("a: &x {p: 1}\nb: &y {p: 2, q: 2}\nc: {<<: [*x, *y]}\nd: {<<: *x, <<: *y}\n",
               "{'a':{'p':1},'b':{'p':2,'q':2},'c':{'p':1,'q':2},'d':{'p':2,'q':2}}");
    check_tree("a: &x {p: 1}\nb: &y {<<: *x, q: 2}\nc: {<<: *y}\nd: {<<: {p: 4}}\n",
               "{'a':{'p':1},'b':{'q':2,'p':1},'c':{'q':2,'p':1},'d':{'p':4}}");
    check_tree("a: {\"<<\": 1}\n", "{'a':{'<<':1}}");
    check_tree("a: {<<: {}}\n", "{'a':{}}");
}

static void test_anchors_end_with_their_document(void **state)
{
    const char *text = "a: &x 1\n---\nb: *x\n";

    (void)state;
    check_problem(text, strlen(text), "t.yml:3:4: no anchor `&x` stands before this alias");
}

static void test_places(void **state)
{
    struct tree tree =
        read_tree("\xEF\xBB\xBF\xC3\xA9: {\xF0\x9F\x98\x80: x}\r\nb: 1\rc: 2\n---\nd:\n  - 3\n");
    const struct ynode *first;

    (void)state;
    assert_int_equal(tree.n, 2);
    first = tree.docs[0];
    assert_int_equal(first->at.line, 1);
    assert_int_equal(first->at.col, 1);
    assert_int_equal(first->pairs[0].value->pairs[0].value->at.col, 12);
    assert_int_equal(first->pairs[1].key->at.line, 2);
    assert_int_equal(first->pairs[2].value->at.line, 3);
    assert_int_equal(first->pairs[2].value->at.col, 4);
    assert_int_equal(tree.docs[1]->pairs[0].value->items[0]->at.line, 6);
    assert_int_equal(tree.docs[1]->pairs[0].value->items[0]->at.col, 5);
    assert_string_equal(first->at.file, "t.yml");
    free_tree(&tree);
}

static void test_bad_characters(void **state)
{
    static const struct {
        const char *text;
        size_t len;
        const char *problem;
    } cases[] = {
        {"a: b\nc: \0d\n", 11, "t.yml:2:4: character U+0000 may not stand in YAML: delete it"},
        {"a: \x07\n", 5, "t.yml:1:4: character U+0007 may not stand in YAML: delete it"},
        {"\xC3\xA9: \x7F\n", 6, "t.yml:1:5: character U+007F may not stand in YAML: delete it"},
        {"a: \xEF\xBF\xBF\n", 7, "t.yml:1:4: character U+FFFF may not stand in YAML: delete it"},
        {"a: \xC2\x80\n", 6, "t.yml:1:4: character U+0080 may not stand in YAML: delete it"},
        {"a: \xFF\n", 5, "t.yml:1:4: byte 0xFF is no UTF-8: save the file as UTF-8 text"},
        {"a: \xC0\x80\n", 6, "t.yml:1:4: byte 0xC0 is no UTF-8: save the file as UTF-8 text"},
        {"a: \xE0\x80\x80\n", 7, "t.yml:1:4: byte 0xE0 is no UTF-8: save the file as UTF-8 text"},
        {"a: \xED\xA0\x80\n", 7, "t.yml:1:4: byte 0xED is no UTF-8: save the file as UTF-8 text"},
        {"a: \xF4\x90\x80\x80\n", 8, "t.yml:1:4: byte 0xF4 is no UTF-8: save the file as UTF-8 text"},
        {"a: \xE2\x82", 5, "t.yml:1:4: byte 0xE2 is no UTF-8: save the file as UTF-8 text"},
        {"a: \xE2\x28\xA1", 6, "t.yml:1:4: byte 0xE2 is no UTF-8: save the file as UTF-8 text"},
        {"\xFF\xFE"
         "a\0",
         4, "t.yml:1:1: byte 0xFF is no UTF-8: save the file as UTF-8 text"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
        check_problem(cases[i].text, cases[i].len, cases[i].problem);
}

static void test_cursor_goes_back(void **state)
{
    const char *text = "ab\ncd\n";
    struct text_cursor cursor;

    (void)state;
    text_cursor_init(&cursor, text, strlen(text));
    text_cursor_to_index(&cursor, 4);
    text_cursor_to_index(&cursor, 1);
    assert_int_equal(text_cursor_place(&cursor, NULL).line, 1);
    assert_int_equal(text_cursor_place(&cursor, NULL).col, 2);
    text_cursor_to_index(&cursor, 100);
    assert_int_equal(text_cursor_place(&cursor, NULL).line, 3);
}

/* n times `unit`, to be freed. */
static char *repeat(const char *unit, size_t n)
{
    size_t len = strlen(unit);
    char *text = malloc(len * n + 1);

    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        memcpy(text + i * len, unit, len);
    text[len * n] = '\0';
    return text;
}

static void test_deep_nesting(void **state)
{
    static const struct {
        const char *unit, *problem;
    } cases[] = {
        {"[", "t.yml:1:65: lists and mappings are nested too deeply"},
        {"{a: ", "t.yml:1:257: lists and mappings are nested too deeply"},
        {"- ", "t.yml:1:129: lists and mappings are nested too deeply"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char *text = repeat(cases[i].unit, 100000);
        check_problem(text, strlen(text), cases[i].problem);
        free(text);
    }
}

static void test_deepest_nesting(void **state)
{
    struct tree tree;
    char text[2 * YAML_DEPTH_MAX + 1];

    (void)state;
    memset(text, '[', YAML_DEPTH_MAX);
    memset(text + YAML_DEPTH_MAX, ']', YAML_DEPTH_MAX);
    text[2 * YAML_DEPTH_MAX] = '\0';
    tree = read_tree(text);
    assert_int_equal(tree.ret, 0);
    assert_int_equal(tree.docs[0]->weight, YAML_DEPTH_MAX);
    free_tree(&tree);
}

static void test_aliases_that_multiply(void **state)
{
    char text[1024];
    size_t len = (size_t)snprintf(text, sizeof(text), "a: &a [1,2,3,4,5,6,7,8,9,10]\n");

    (void)state;
    for (char name = 'b'; name < 'i'; name++) {
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%c: &%c [", name, name);
        for (int i = 0; i < 10; i++)
            len += (size_t)snprintf(text + len, sizeof(text) - len, "*%c,", name - 1);
        len += (size_t)snprintf(text + len, sizeof(text) - len, "]\n");
    }
    check_problem(text, len, "t.yml:6:29: more than 1000000 values, those that aliases repeat included");
}

static void test_merges_that_multiply(void **state)
{
    char *text = malloc(4 << 20);
    size_t len = 0, size = 4 << 20;

    (void)state;
    assert_non_null(text);
    len += (size_t)snprintf(text, size, "a: &a {");
    for (int i = 0; i < 100000; i++)
        len += (size_t)snprintf(text + len, size - len, "k%d: 1,", i);
    len += (size_t)snprintf(text + len, size - len, "}\n");
    for (int i = 0; i < 1000; i++)
        len += (size_t)snprintf(text + len, size - len, "b%d: {<<: *a}\n", i);
    check_problem(text, len, "t.yml:5:10: more than 1000000 values, those that aliases repeat included");
    free(text);
}

static void test_too_many_values(void **state)
{
    char *text = repeat("-\n", YAML_NODES_MAX);

    (void)state;
    check_problem(text, strlen(text),
                  "t.yml:1000000:2: more than 1000000 values, those that aliases repeat included");
    free(text);
}

static void test_many_keys(void **state)
{
    char *text = malloc(4 << 20);
    size_t len = 0, size = 4 << 20;
    struct tree tree;

    (void)state;
    assert_non_null(text);
    for (int i = 0; i < 100000; i++)
        len += (size_t)snprintf(text + len, size - len, "k%d: 1\n", i);
    tree = read_tree(text);
    assert_int_equal(tree.ret, 0);
    assert_int_equal(tree.docs[0]->n, 100000);
    free_tree(&tree);
    snprintf(text + len, size - len, "k7: 1\n");
    check_problem(text, strlen(text), "t.yml:100001:1: key `k7` is given twice, first in line 8: keep one");
    free(text);
}

static void test_many_tag_directives(void **state)
{
    char *text = repeat("\n%TAG !a! tag:a,2000:", 101);

    (void)state;
    check_problem(text, strlen(text), "t.yml:102:1: too many %TAG lines: leave them out");
    free(text);
}

static void test_many_problems(void **state)
{
    char *text = repeat("a: 1\n", 3000);
    struct tree tree = read_tree(text);

    (void)state;
    assert_int_equal(tree.ret, 0);
    assert_int_equal(tree.report.n, 1001);
    assert_string_equal(tree.report.problems[0].text,
                        "t.yml:2:1: key `a` is given twice, first in line 1: keep one");
    assert_string_equal(tree.report.problems[1000].text, "t.yml: 1999 more problems: mend those above first");
    free_tree(&tree);
    free(text);
}

static void test_findings_order(void **state)
{
    struct findings findings = {0};
    struct report report = {0};

    (void)state;
    findings_add(&findings, SEVERITY_ERROR, (struct place){"f", 2, 1}, "c");
    findings_add(&findings, SEVERITY_WARNING, (struct place){"f", 1, 9}, "b");
    findings_add(&findings, SEVERITY_WARNING, (struct place){"f", 1, 2}, "a");
    findings_add(&findings, SEVERITY_ERROR, (struct place){"f", 2, 1}, "d");
    findings_add(&findings, SEVERITY_ERROR, (struct place){"f", 2, 1}, "c");
    findings_flush(&findings, "f", &report);
    assert_int_equal(report.n, 4);
    assert_string_equal(report.problems[0].text, "f:1:2: a");
    assert_string_equal(report.problems[1].text, "f:1:9: b");
    assert_string_equal(report.problems[2].text, "f:2:1: c");
    assert_string_equal(report.problems[3].text, "f:2:1: d");
    assert_int_equal(findings.n, 0);
    report_fini(&report);
}

static int read_and_free(const char *text)
{
    struct tree tree = read_tree(text);

    free_tree(&tree);
    return tree.ret;
}

static void test_memory_runs_out(void **state)
{
    char *text = repeat("- {a: &x [1, 2, 3], <<: {b: c}}\n- {a: 1}\n", 1);
    char *large = repeat("- {a: some text to fill blocks with, b: [1, 2, 3]}\n", 500);

    (void)state;
    assert_in_range(refuse_each_alloc(read_and_free(text)), 1, 100);
    assert_in_range(refuse_each_alloc(read_and_free(large)), 5, 1000);
    free(text);
    free(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_text_numbers),
        cmocka_unit_test(test_long_numbers),
        cmocka_unit_test(test_trees),
        cmocka_unit_test(test_aliases),
        cmocka_unit_test(test_anchors_end_with_their_document),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_bad_characters),
        cmocka_unit_test(test_cursor_goes_back),
        cmocka_unit_test(test_deep_nesting),
        cmocka_unit_test(test_deepest_nesting),
        cmocka_unit_test(test_aliases_that_multiply),
        cmocka_unit_test(test_merges_that_multiply),
        cmocka_unit_test(test_too_many_values),
        cmocka_unit_test(test_many_keys),
        cmocka_unit_test(test_many_tag_directives),
        cmocka_unit_test(test_many_problems),
        cmocka_unit_test(test_findings_order),
        cmocka_unit_test(test_memory_runs_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
