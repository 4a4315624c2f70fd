/*
 * load_test.c - files become texts; every way in which a file is wrong names its line.
 */
#include "check.h"

#include "core/file.h"
#include "data/data.h"
#include "toy_tok.h"

static dr_arena arena;
static data_texts texts;

static const char *put(const char *name, const char *text, size_t n)
{
    const char *path = dr_path_join(&arena, check_tmp(), name);

    CHECK_OK(dr_write_file(path, text, n));
    return path;
}

static dr_status load(data_options o)
{
    dr_trail_clear();
    return data_load(&arena, &texts, &o, NULL);
}

static dr_status load_json(const char *content, const char *template_text)
{
    return load((data_options){.data_name = "json",
                               .data_files = put("x.jsonl", content, strlen(content)),
                               .text_template = template_text});
}

static dr_status load_text(const char *content, size_t n)
{
    return load(
        (data_options){.data_name = "text", .data_files = put("x.txt", content, n)});
}

/* The texts, each between < and >. */
static void holds(const char *want)
{
    dr_buf b;

    dr_buf_init(&b, 1 << 20);
    for (size_t i = 0; i < texts.count; i++) {
        CHECK_EQ_INT(strlen(texts.texts[i]), texts.text_bytes[i]);
        CHECK_OK(dr_buf_addf(&b, "<%s>", texts.texts[i]));
    }
    CHECK_STR(b.data, want);
    dr_buf_release(&b);
}

static void test_json_lines(void)
{
    CHECK_OK(load_json(
        "{\"p\": \"a\", \"r\": \"1\"}\n\n  \t\r\n{\"r\": \"2\", \"p\": \"b\"}", "{p}-{r}"));
    holds("<a-1><b-2>");
    CHECK_EQ_INT(texts.column_count, 2);
    CHECK_STR(texts.columns[0], "p");
    CHECK_STR(texts.columns[1], "r");
    CHECK_OK(load_json("\xef\xbb\xbf{\"text\": \"a\"}\r\n{\"text\": \"b\"}\r\n", NULL));
    holds("<a><b>");
    CHECK_OK(load_json("{\"text\": \"\"}\n{\"text\": \"b\"}\n", NULL)); /* as Olive */
    holds("<b>");
    CHECK_OK(load((data_options){
        .data_name = "json",
        .data_files = dr_arena_printf(&arena, "%s,%s", put("1.jsonl", "{\"t\":\"x\"}", 9),
                                      put("2.jsonl", "{\"t\":\"y\"}\n", 10)),
        .text_field = "t"}));
    holds("<x><y>");
    CHECK(strstr(texts.source, "2.jsonl") != NULL);
}

static void test_json_array(void)
{
    CHECK_OK(load_json("\n [ {\"text\": \"a\"},\n {\"text\": \"b\"} ]\n", NULL));
    holds("<a><b>");
    CHECK_STATUS(load_json("[{\"text\": \"a\"}, {\"tex\": \"b\"}]", NULL), DR_EFORMAT);
    CHECK_TRAIL("x.jsonl: row 2: no column \"text\"");
    CHECK_STATUS(load_json("[{\"text\": \"a\"},\n 3]", NULL), DR_EFORMAT);
    CHECK_TRAIL("row 2: a row must be an object, found an integer");
    CHECK_STATUS(load_json("[{\"text\": \"a\"},\n {\"text\" \"b\"}]", NULL), DR_EFORMAT);
    CHECK_TRAIL("x.jsonl:2:");
}

static void test_json_columns(void)
{
    CHECK_OK(load_json("{\"p\": [\"a\", \"b\"],\n \"r\": [1, null]}\n", "{p}-{r}"));
    holds("<a-1><b-None>");
    CHECK_STR(texts.columns[1], "r");
    CHECK_STATUS(load_json("{\"p\": [\"a\", \"b\"],\n \"r\": [1]}", "{p}"), DR_EFORMAT);
    CHECK_TRAIL("x.jsonl: column \"r\" has 1 values, column \"p\" has 2");
    CHECK_STATUS(load_json("{\"text\": [\"a\",\n [3]]}", NULL), DR_EUNSUPPORTED);
    CHECK_TRAIL("x.jsonl: row 2: column \"text\" is an array, not text");
    /* One line is a row, whatever it holds; one row on several lines is refused. */
    CHECK_STATUS(load_json("{\"text\": [\"a\"]}\n", NULL), DR_EUNSUPPORTED);
    CHECK_STATUS(load_json("{\"text\":\n \"a\"}", NULL), DR_EFORMAT);
    CHECK_TRAIL("one object of columns");
}

static dr_status load_csv(const char *content, const char *template_text)
{
    return load((data_options){.data_name = "csv",
                               .data_files = put("x.csv", content, strlen(content)),
                               .text_template = template_text});
}

static void csv_refused(const char *content, const char *say)
{
    CHECK_STATUS(load_csv(content, "{a}"), DR_EFORMAT);
    CHECK_TRAIL(say);
}

static void test_csv(void)
{
    CHECK_OK(load_csv("text,n\r\nab,1\r\n\"c, \"\"d\"\"\r\ne\",\r\n", "{text}|{n}"));
    holds("<ab|1><c, \"d\"\r\ne|>");
    CHECK_EQ_INT(texts.column_count, 2);
    CHECK_OK(load_csv("\xef\xbb\xbf\"text\"\n\n a \n007\n1.50\n\"\"", NULL));
    holds("< a ><007><1.50>"); /* no guessing of numbers */
    CHECK_EQ_INT(texts.empty_rows, 1);
    CHECK_OK(load_csv("a,b\n,x\n1,", "{a}{b}"));
    holds("<x><1>");
    csv_refused("a,b\n1,2\n3\n", "x.csv:3: 1 fields, but 2 columns: nothing for \"b\"");
    csv_refused("a,b\n\"1\n2\",2\n3,4,5\n",
                "x.csv:4: 3 fields, but 2 columns: too much behind \"b\"");
    csv_refused("a,b\n1,\"2\n3,4\n",
                "x.csv:2: column \"b\": a quote is opened on line 2 and never closed");
    csv_refused("a,b\n1,\"2\"x\n", "x.csv:2: column \"b\": text behind a closing quote");
    csv_refused("a,b\n1,2\"x\n", "column \"b\": a quote inside a field without quotes");
    csv_refused("a,b\n1,\xff\n", "x.csv:2: column \"b\" is not UTF-8");
    csv_refused("a,a\n", "x.csv:1: columns 1 and 2 are both called \"a\"");
    csv_refused("a,\n1,2\n", "x.csv:1: column 2 has no name");
    csv_refused("b\n1\n", "x.csv:2");
    csv_refused("", "no text in it");
    csv_refused("a\n", "no text in it");
}

static void test_values(void)
{
    CHECK_OK(load_json(
        "{\"text\": 3}\n{\"text\": -7}\n{\"text\": true}\n{\"text\": null}\n", NULL));
    holds("<3><-7><True><None>");
    /* as Python's repr(float) */
    CHECK_OK(
        load_json("{\"v\":[1],\"a\":1.0,\"b\":1000000.0,\"c\":0.1,\"d\":1e16,\"e\":1.5e-7,"
                  "\"f\":123456.789,\"g\":1e15,\"h\":0.0001,\"i\":-2.5e300}",
                  "{a} {b} {c} {d} {e} {f} {g} {h} {i}"));
    holds(
        "<1.0 1000000.0 0.1 1e+16 1.5e-07 123456.789 1000000000000000.0 0.0001 -2.5e+300>");
    CHECK_STATUS(load_json("{\"v\": [1]}", "{v}"), DR_EUNSUPPORTED);
    CHECK_TRAIL("{v} is a list or an object");
    CHECK_STATUS(load_json("{\"text\": {\"a\": 1}}", NULL), DR_EUNSUPPORTED);
    CHECK_TRAIL("x.jsonl:1: column \"text\" is an object, not text");
    CHECK_STATUS(load_json("{\"text\": \"a\\u0000b\"}", NULL), DR_EFORMAT);
    CHECK_TRAIL("has a zero character");
}

static void test_json_errors(void)
{
    CHECK_STATUS(load_json("{\"text\": \"a\"}\n{\"text\": \"b\"\n", NULL), DR_EFORMAT);
    CHECK_TRAIL("x.jsonl:2:");
    CHECK_TRAIL("not JSON");
    CHECK_STATUS(load_json("{\n  \"text\": \"a\"\n}\n", NULL), DR_EFORMAT);
    CHECK_TRAIL("x.jsonl:1:");
    CHECK_TRAIL("one object a line");
    CHECK_STATUS(load_json("{\"text\": \"a\"}\n\"b\"\n", NULL), DR_EFORMAT);
    CHECK_TRAIL("x.jsonl:2: a row must be an object, found a string");
    CHECK_STATUS(load_json("{\"text\": \"\xff\"}\n", NULL), DR_EFORMAT);
    CHECK_TRAIL("x.jsonl:1:");
    CHECK_STATUS(load_json("{\"prompt\": \"a\"}\n", "{promt}"), DR_EFORMAT);
    CHECK_TRAIL("no column \"promt\"");
    CHECK_TRAIL("did you mean {prompt}?");
    CHECK_TRAIL("x.jsonl:1");
    CHECK_STATUS(load((data_options){.data_name = "json",
                                     .data_files = put("y.jsonl", "{\"prompt\":\"a\"}", 14),
                                     .text_field = "prompts"}),
                 DR_EFORMAT);
    CHECK_TRAIL("y.jsonl:1: no column \"prompts\"");
    CHECK_TRAIL("did you mean --text_field prompt?");
    CHECK_STATUS(load_json("{\"question\": \"a\"}\n", NULL), DR_EFORMAT);
    CHECK_TRAIL("columns: question");
    CHECK_STATUS(load_json("\n\n", NULL), DR_EFORMAT);
    CHECK_TRAIL("no text in it");
}

static void test_text(void)
{
    static const char lines[] = "\xef\xbb\xbf"
                                "one\n\ntwo\r\nthree\rfour\r\n  \nfive";

    CHECK_OK(load_text(lines, sizeof(lines) - 1));
    holds("<one><two><three><four><  ><five>");
    CHECK_EQ_INT(texts.column_count, 1);
    CHECK_STR(texts.columns[0], "text");
    CHECK_STATUS(load_text("ok\nb\xe9"
                           "d\n",
                           7),
                 DR_EFORMAT);
    CHECK_TRAIL("x.txt:2: not UTF-8");
    CHECK_STATUS(load_text("a\0b\n", 4), DR_EFORMAT);
    CHECK_TRAIL("x.txt:1: column \"text\" has a zero character");
    CHECK_STATUS(load_text("", 0), DR_EFORMAT);
    CHECK_TRAIL("no text in it");
    CHECK_OK(load((data_options){.data_name = "text",
                                 .data_files = put("z.txt", "a\nb\n", 4),
                                 .text_template = "[{text}]\\n"}));
    holds("<[a]\n><[b]\n>");
    CHECK_OK(load_text("[not json]\n", 11));
    holds("<[not json]>");
}

static void test_kinds(void)
{
    static const struct {
        const char *bytes, *kind, *hint;
    } kinds[] = {{"PAR1....", "Parquet is not read", "read_parquet"},
                 {"ARROW1..", "Arrow", "JSON lines"},
                 {"\x1f\x8b\x08", "gzip", "unpack"},
                 {"\x28\xb5\x2f\xfd", "Zstandard", "unpack"},
                 {"PK\x03\x04", "zip", "unpack"},
                 {"\xff\xfe"
                  "a",
                  "UTF-16", "UTF-8"}};

    for (size_t i = 0; i < DR_COUNT(kinds); i++) {
        CHECK_STATUS(load_json(kinds[i].bytes, NULL), DR_EUNSUPPORTED);
        CHECK_TRAIL(kinds[i].kind);
        CHECK_TRAIL(kinds[i].hint);
    }
}

static void test_many_columns(void)
{
    dr_buf b;

    dr_buf_init(&b, 1 << 20);
    CHECK_OK(dr_buf_adds(&b, "{\"c0\": 0"));
    for (int i = 1; i <= 256; i++)
        CHECK_OK(dr_buf_addf(&b, ", \"c%d\": %d", i, i));
    CHECK_OK(dr_buf_adds(&b, "}"));
    CHECK_STATUS(load_json(b.data, "{c0}"), DR_EFORMAT);
    CHECK_TRAIL("more than 256 columns");
    dr_buf_release(&b);
}

static void test_chat(void)
{
    tok_tokenizer *t = toy_tok(true);
    static const char half[] = "{\"messages\": [{\"role\": \"user\"}]}";
    const char *bad[] = {"{\"messages\": \"a\"}", "{\"m\": 1}", half,
                         "{\"messages\": [{\"role\": 1, \"content\": \"x\"}]}",
                         "{\"messages\": [3]}"};
    const char *say[] = {"is a string, not a list", "is nothing, not a list",
                         "message 1: content: expected a string, found nothing",
                         "message 1: role: expected a string, found an integer",
                         "message 1: role: expected a string, found nothing"};

    for (size_t i = 0; i < DR_COUNT(bad); i++) {
        const data_options o = {.data_name = "json",
                                .data_files = put("c.jsonl", bad[i], strlen(bad[i])),
                                .use_chat_template = true};
        CHECK_STATUS(data_load(&arena, &texts, &o, t), DR_EFORMAT);
        CHECK_TRAIL(say[i]);
        CHECK_TRAIL("c.jsonl:1");
    }
    tok_close(t);
}

/* The lab's own file, with the lab's own template. */
static void test_lab(void)
{
    const char *dir = getenv("DRUPE_TEST_DATA");
    const char *path = dr_path_join(&arena, dir ? dir : "", "data_sample_travel.jsonl");

    if (dir == NULL || !dr_is_file(path)) {
        SKIP("DRUPE_TEST_DATA names no folder with data_sample_travel.jsonl");
        return;
    }
    CHECK_OK(load((data_options){
        .data_name = "json",
        .data_files = path,
        .text_template =
            "<|user|>\\n{prompt}<|end|>\\n<|assistant|>\\n{response}<|end|>"}));
    CHECK_EQ_INT(texts.count, 289); /* the last one has no line end */
    CHECK_EQ_INT(texts.column_count, 2);
    CHECK_STR(texts.columns[0], "prompt");
    static const char first[] =
        "<|user|>\nWhat's a must-see in Paris?<|end|>\n<|assistant|>\n"
        "Oh la la!";
    CHECK(texts.count > 0 && strncmp(texts.texts[0], first, sizeof(first) - 1) == 0);
}

int main(void)
{
    test_json_lines();
    test_json_array();
    test_values();
    test_json_errors();
    test_text();
    test_kinds();
    test_many_columns();
    test_json_columns();
    test_csv();
    test_chat();
    test_lab();
    dr_arena_release(&arena);
    return check_done();
}
