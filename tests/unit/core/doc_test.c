/*
 * doc_test.c - JSON and YAML with places: values, positions, what is refused and where.
 */
#include "core/doc.h"

#include "check.h"
#include "core/json.h"

static void same(const char *name, const char *text, const char *json)
{
    dr_doc d;
    json_t *want = NULL;

    if (!CHECK_OK(dr_doc_parse(&d, text, strlen(text), name)))
        return;
    CHECK_OK(dr_json_parse(&want, json, strlen(json), "expected"));
    if (!CHECK(json_equal(d.top->value, want))) {
        char *found = json_dumps(d.top->value, JSON_ENCODE_ANY);
        (void)printf("  found %s\n  of    %s\n", found, text);
        free(found);
    }
    json_decref(want);
    dr_doc_release(&d);
}

static void bad(const char *name, const char *text, const char *message)
{
    dr_doc d;

    dr_trail_clear();
    CHECK_STATUS(dr_doc_parse(&d, text, strlen(text), name), DR_EFORMAT);
    CHECK_TRAIL(message);
}

static void test_values(void)
{
    same("a.yaml", "a: 1\nb: [x, 2.5, -3e2, 1e-4]\nc:\n  d: yes\n  e: off\n  f: ~\n  g:\n",
         "{\"a\": 1, \"b\": [\"x\", 2.5, -300.0, 1e-4], \"c\": {\"d\": true, \"e\": false,"
         " \"f\": null, \"g\": null}}");
    same("a.yaml", "- \"1\"\n- 'yes'\n- !!str 2\n- 0x1f\n- 0o17\n- v1.2\n- 1.\n- .5\n",
         "[\"1\", \"yes\", \"2\", 31, 15, \"v1.2\", 1.0, 0.5]");
    same("a.yaml", "a: |\n  one\n  two\nb: >-\n  one\n  two\n", /* block and folded text */
         "{\"a\": \"one\\ntwo\\n\", \"b\": \"one two\"}");
    same("a.yaml", "# a comment\n---\na: b # and one\n", "{\"a\": \"b\"}");
    same("a.yaml", "{\"a\": [1, {\"b\": null}], 'c': d}",
         "{\"a\": [1, {\"b\": null}], \"c\": \"d\"}");
    same("a.json", "{\"a\\u00e9\\n\": [true, -1.5e3, \"\\ud83d\\ude00\"]}\n",
         "{\"a\\u00e9\\n\": [true, -1500.0, \"\\ud83d\\ude00\"]}");
    same("a.json", "\t{\n\t\"a\":\t[ ],\n\t\"b\": {}\n}", "{\"a\": [], \"b\": {}}");
    same("a.yaml", "a: 12345678901234567890123\n", "{\"a\": 12345678901234567890123.0}");
    same("a.yaml", "", "null");
}

static void test_aliases(void)
{
    same("a.yaml", "a: &x {k: 1, l: [2]}\nb: *x\n",
         "{\"a\": {\"k\": 1, \"l\": [2]}, \"b\": {\"k\": 1, \"l\": [2]}}");
    same("a.yaml", "base: &x {k: 1, l: 2}\nb: {<<: *x, l: 3, m: 4}\n",
         "{\"base\": {\"k\": 1, \"l\": 2}, \"b\": {\"k\": 1, \"l\": 3, \"m\": 4}}");
    same("a.yaml", "x: &x {k: 1}\ny: &y {k: 2, l: 5}\nb: {<<: [*x, *y]}\n",
         "{\"x\": {\"k\": 1}, \"y\": {\"k\": 2, \"l\": 5}, \"b\": {\"k\": 1, \"l\": 5}}");
    bad("a.yaml", "a: &x [*x]\n", "more than 64 levels");
    bad("a.yaml", "a: &x {b: 1, <<: *x}\n", "levels");
    bad("a.yaml", "a: *nothing\n", "a.yaml:1:");
    bad("a.yaml",
        "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
        "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
        "e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
        "more than 100000 values");
}

static void test_places(void)
{
    static const char text[] = "one:\n  two: [5, {three: 7}]\nfour: x\n";
    dr_arena a = {0};
    dr_doc d;

    if (!CHECK_OK(dr_doc_parse(&d, text, strlen(text), "w.yaml")))
        return;
    const dr_node *two = dr_node_get(dr_node_get(d.top, "one"), "two");
    const dr_node *three = two != NULL ? dr_node_get(two->first->next, "three") : NULL;
    CHECK(dr_node_get(d.top, "five") == NULL);
    if (CHECK(three != NULL)) {
        CHECK_STR(dr_node_path(&a, three), "one.two[1].three");
        CHECK_STR(dr_node_place(&a, &d, three), "w.yaml:2:13: one.two[1].three");
        CHECK_EQ_INT(three->line, 2);
        CHECK_EQ_INT(three->column, 20);
        CHECK_STATUS(dr_node_fail(&d, three, "expected %s", "a word"), DR_EUSAGE);
        CHECK_TRAIL("w.yaml:2:20: one.two[1].three: expected a word");
        CHECK_EQ_INT(two->first->column, 9);
    }
    CHECK_STR(dr_node_path(&a, d.top), "");
    dr_doc_release(&d);
    dr_arena_release(&a);
}

static void test_bad(void)
{
    dr_doc d;

    bad("a.json", "{\"a\": 1,\n \"b\": [1, 2}\n", "a.json:2:");
    bad("a.json", "{\"a\": word}", "a.json:1:7: not JSON");
    bad("a.json", "{\"a\": 1, \"b\": 2, \"a\": 3}",
        "a.json:1:18: the key \"a\" is here twice; the first is at 1:2");
    bad("a.yaml", "a: 1\nb: 2\na: 3\n", "a.yaml:3:1: the key \"a\" is here twice");
    bad("a.yaml", "a: [1, 2\nb: 3\n", "a.yaml:");
    bad("a.yaml", "a: .nan\n", "a.yaml:1:4: a number that is not finite");
    bad("a.yaml", "a: !!python/object x\n", "a tag");
    bad("a.yaml", "? [1, 2]\n: 3\n", "a key is a text");
    bad("a.yaml", "a: 1\n---\nb: 2\n", "a second document");
    bad("a.yaml", "a: \"\\0\"\n", "a zero character");
    bad("a.yaml", "a: \xff\xfe\n", "not UTF-8");
    CHECK_STATUS(dr_doc_read(&d, "no/such.json"), DR_EIO);
    dr_doc_release(&d);
}

int main(void)
{
    test_values();
    test_aliases();
    test_places();
    test_bad();
    return check_done();
}
