/*
 * json_test.c - typed access that names file, key and type found; parse and print.
 */
#include "check.h"

#include "core/arena.h"
#include "core/file.h"
#include "core/json.h"

static const char text[] =
    "{\"layers\": 12, \"eps\": 1e-5, \"tied\": true, \"name\": \"qwen\","
    " \"rope\": null, \"sizes\": [1, 2], \"one\": 1}";

static json_t *parse(void)
{
    json_t *o = NULL;

    CHECK_OK(dr_json_parse(&o, text, strlen(text), "config.json"));
    return o;
}

static void test_get(void)
{
    json_t *o = parse();
    int64_t i = -1;
    double d = -1;
    bool b = false;
    const char *s = "dflt";

    CHECK_OK(dr_json_int(o, "layers", &i, "config.json"));
    CHECK_EQ_INT(i, 12);
    CHECK_OK(dr_json_real(o, "eps", &d, "config.json"));
    CHECK_NEAR(d, 1e-5, 0);
    CHECK_OK(dr_json_real(o, "one", &d, "config.json")); /* an integer is a number */
    CHECK_NEAR(d, 1, 0);
    CHECK_OK(dr_json_bool(o, "tied", &b, "config.json"));
    CHECK(b);
    CHECK_OK(dr_json_str(o, "name", &s, "config.json"));
    CHECK_STR(s, "qwen");
    CHECK_EQ_INT(json_array_size(dr_json_get(o, "sizes")), 2);
    json_decref(o);
}

static void test_absent(void)
{
    json_t *o = parse();
    int64_t i = 7;
    const char *s = "dflt";

    CHECK_OK(dr_json_int(o, "rope", &i, "config.json"));
    CHECK_OK(dr_json_int(o, "nothing", &i, "config.json"));
    CHECK_EQ_INT(i, 7);
    CHECK_OK(dr_json_str(o, "nothing", &s, "config.json"));
    CHECK_STR(s, "dflt");
    CHECK(dr_json_get(o, "rope") == NULL);
    json_decref(o);
}

static void test_wrong(void)
{
    json_t *o = parse();
    int64_t i = 7;
    double d = 7;
    bool b = false;
    const char *s = NULL;

    CHECK_STATUS(dr_json_int(o, "name", &i, "config.json"), DR_EFORMAT);
    CHECK_TRAIL("config.json: name: expected an integer, found a string");
    CHECK_STATUS(dr_json_int(o, "eps", &i, "config.json"), DR_EFORMAT);
    CHECK_STATUS(dr_json_real(o, "tied", &d, "config.json"), DR_EFORMAT);
    CHECK_TRAIL("found true");
    CHECK_STATUS(dr_json_bool(o, "one", &b, "config.json"), DR_EFORMAT);
    CHECK_STATUS(dr_json_str(o, "sizes", &s, "config.json"), DR_EFORMAT);
    CHECK_TRAIL("found an array");
    CHECK_EQ_INT(i, 7);
    CHECK_STR(dr_json_type(NULL), "nothing");
    json_decref(o);
}

static void test_malformed(void)
{
    static const char *const bad[] = {"", "{", "{\"a\" 1}", "[1,]", "nul", "{\"a\": 1} x"};
    json_t *o = NULL;

    for (size_t i = 0; i < DR_COUNT(bad); i++) {
        CHECK_STATUS(dr_json_parse(&o, bad[i], strlen(bad[i]), "bad.json"), DR_EFORMAT);
        CHECK_TRAIL("bad.json:1:");
        CHECK(o == NULL);
    }
    CHECK_STATUS(dr_json_parse(&o, "[1,\n2,\n}", 8, "bad.json"), DR_EFORMAT);
    CHECK_TRAIL("bad.json:3:");
}

/* transformers writes 10^30 for "no limit": such integers become numbers, strings stay. */
static void test_wide(void)
{
    static const char wide[] = "{\"max\": 1000000000000000019884624838656, \"n\": 12, "
                               "\"s\": \"10000000000000000000000 \\\" 9\", "
                               "\"e\": 1e5, \"d\": [-99999999999999999999, 0.5]}";
    json_t *o = NULL;
    double max = 0;
    int64_t n = 0;
    const char *s = NULL;

    CHECK_OK(dr_json_parse(&o, wide, strlen(wide), "wide"));
    CHECK_OK(dr_json_real(o, "max", &max, "wide"));
    CHECK_NEAR(max, 1e30, 1e15);
    CHECK_OK(dr_json_int(o, "n", &n, "wide"));
    CHECK_EQ_INT(n, 12);
    CHECK_OK(dr_json_str(o, "s", &s, "wide"));
    CHECK_STR(s, "10000000000000000000000 \" 9");
    CHECK_NEAR(json_real_value(json_array_get(json_object_get(o, "d"), 0)), -1e20, 1e5);
    json_decref(o);
}

static void test_files(void)
{
    dr_arena a = {0};
    json_t *o = parse(), *back = NULL;
    const char *path = dr_path_join(&a, check_tmp(), "config.json");
    dr_buf b;

    dr_buf_init(&b, 1000);
    CHECK_OK(dr_json_write(path, o));
    CHECK_OK(dr_json_read(&back, path));
    CHECK(json_equal(o, back));
    CHECK_OK(dr_read_file(&b, path));
    CHECK(strncmp(b.data, "{\n  \"layers\": 12,\n  \"eps\"", 25) == 0); /* order is kept */
    CHECK(b.len > 0 && b.data[b.len - 1] == '\n');
    json_decref(back);
    json_decref(o);
    CHECK_STATUS(dr_json_read(&back, dr_path_join(&a, check_tmp(), "none.json")), DR_EIO);
    CHECK_TRAIL("none.json");
    dr_buf_release(&b);
    dr_arena_release(&a);
}

int main(void)
{
    test_get();
    test_absent();
    test_wrong();
    test_malformed();
    test_wide();
    test_files();
    return check_done();
}
