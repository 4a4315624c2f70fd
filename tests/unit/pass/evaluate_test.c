/*
 * evaluate_test.c - perplexity, KL, top-1 and multiple choice against torch's figures
 * (tests/golden/evaluate), and what is refused.
 */
#include "check.h"

#include "core/file.h"
#include "core/json.h"
#include "nn/nn.h"
#include "pass/pass.h"

#define GOLDEN DRUPE_SOURCE_DIR "/tests/golden/"

static dr_arena arena;
static json_t *golden;

/* The tiny Llama with the toy tokenizer; edit (may be NULL) is put into its config. */
static const char *make_model(const char *name, const json_t *edit)
{
    static const char *const files[][2] = {
        {GOLDEN "tiny/llama/model.safetensors", "model.safetensors"},
        {DRUPE_SOURCE_DIR "/tests/cli/toy/tokenizer.json", "tokenizer.json"},
        {DRUPE_SOURCE_DIR "/tests/cli/toy/tokenizer_config.json", "tokenizer_config.json"}};
    const char *dir = dr_path_join(&arena, check_tmp(), name);
    json_t *config = NULL;

    CHECK_OK(dr_make_dirs(dir));
    for (size_t i = 0; i < DR_COUNT(files); i++)
        CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, files[i][1]), files[i][0]));
    CHECK_OK(dr_json_read(&config, GOLDEN "tiny/llama/config.json"));
    if (edit != NULL)
        json_object_update(config, (json_t *)(uintptr_t)edit);
    CHECK_OK(dr_json_write(dr_path_join(&arena, dir, "config.json"), config));
    json_decref(config);
    return dir;
}

/* A list of the golden as JSON lines; texts become {"text": ...}. */
static const char *write_lines(const char *name, const json_t *list)
{
    const char *path = dr_path_join(&arena, check_tmp(), name);
    dr_buf b;

    dr_buf_init(&b, 1 << 20);
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *row = json_incref(json_array_get(list, i));
        if (json_is_string(row))
            row = json_pack("{s:o}", "text", row);
        char *line = json_dumps(row, JSON_COMPACT);
        CHECK_OK(dr_buf_addf(&b, "%s\n", line));
        free(line);
        json_decref(row);
    }
    CHECK_OK(dr_write_file(path, b.data, b.len));
    dr_buf_release(&b);
    return path;
}

/* The report of a run; NULL when it fails, with *st. */
static json_t *run(dr_status *st, pass_evaluation e)
{
    pass_device device = {.kind = "cpu", .threads = 2};
    json_t *report = json_object();
    dr_buf text;

    dr_buf_init(&text, 1 << 20);
    e.arena = &arena;
    e.text = &text;
    e.report = report;
    e.device = &device;
    e.threads = 2;
    *st = pass_evaluate(&e);
    nn_device_close(device.dev);
    dr_buf_release(&text);
    if (*st != DR_OK) {
        json_decref(report);
        report = NULL;
    }
    return report;
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

/* golden[key]: the mean and its standard error. */
static double part(const json_t *from, const char *key, size_t i)
{
    return json_number_value(json_array_get(json_object_get(from, key), i));
}

static data_options text_options(const char *file)
{
    return (data_options){
        .data_name = "json",
        .data_files = file,
        .max_seq_len = (size_t)json_integer_value(json_object_get(golden, "seq_len")),
        .max_samples = (size_t)json_integer_value(json_object_get(golden, "blocks"))};
}

static void on_text(const char *first, const char *second)
{
    const json_t *want = json_object_get(golden, "text");
    const data_options o =
        text_options(write_lines("rows.jsonl", json_object_get(golden, "rows")));
    dr_status st = DR_OK;
    json_t *r = run(&st, (pass_evaluation){.model = {second, "second", false},
                                           .reference = {first, "first", false},
                                           .data = &o,
                                           .max_kl = 0.1,
                                           .max_perplexity = 1e6});

    if (!CHECK_OK(st))
        return;
    CHECK_NEAR(number(r, "reference_perplexity") / exp(part(want, "loss_before", 0)), 1,
               1e-5);
    CHECK_NEAR(number(r, "perplexity") / exp(part(want, "loss_after", 0)), 1, 1e-5);
    CHECK_NEAR(number(r, "perplexity_stderr") /
                   (exp(part(want, "loss_after", 0)) * part(want, "loss_after", 1)),
               1, 1e-4);
    CHECK_NEAR(number(r, "perplexity_ratio") / exp(part(want, "loss_more", 0)), 1, 1e-5);
    CHECK_NEAR(number(r, "kl"), part(want, "kl", 0), 1e-5);
    CHECK_NEAR(number(r, "kl_stderr"), part(want, "kl", 1), 1e-5);
    CHECK_NEAR(number(r, "kl_high"),
               part(want, "kl", 0) + 2.776445105 * part(want, "kl", 1),
               1e-3); /* 5 blocks: t of 4 degrees */
    CHECK_NEAR(number(r, "top1_agreement"), part(want, "same", 0), 1e-9);
    CHECK_NEAR(number(r, "top1_agreement_stderr"), part(want, "same", 1), 1e-9);
    CHECK_EQ_INT(json_integer_value(json_object_get(r, "judged_tokens")), 5 * 24);
    const json_t *limits = json_object_get(r, "limits");
    CHECK(json_is_false(json_object_get(json_array_get(limits, 0), "met")));
    CHECK(json_is_true(json_object_get(json_array_get(limits, 1), "met")));
    json_decref(r);

    /* alone: the same perplexity, no KL */
    r = run(&st, (pass_evaluation){.model = {first, "first", false}, .data = &o});
    if (CHECK_OK(st)) {
        CHECK_NEAR(number(r, "perplexity") / exp(part(want, "loss_before", 0)), 1, 1e-5);
        CHECK(json_object_get(r, "kl") == NULL);
        CHECK(json_object_get(r, "limits") == NULL);
    }
    json_decref(r);
    /* one block has no interval */
    const data_options one = {.data_name = "json",
                              .data_files = o.data_files,
                              .max_seq_len = 24,
                              .max_samples = 1};
    r = run(&st, (pass_evaluation){.model = {first, "first", false}, .data = &one});
    if (CHECK_OK(st))
        CHECK(json_is_null(json_object_get(r, "perplexity_low")));
    json_decref(r);
}

static void on_task(const char *first, const char *second)
{
    const json_t *questions = json_object_get(golden, "questions");
    const json_t *want = json_object_get(golden, "task");
    const json_t *w1 = json_object_get(want, "first"),
                 *w2 = json_object_get(want, "second");
    const data_options o = {0};
    dr_status st = DR_OK;
    json_t *r = run(&st, (pass_evaluation){.model = {second, "second", false},
                                           .reference = {first, "first", false},
                                           .data = &o,
                                           .task = write_lines("task.jsonl", questions)});

    if (!CHECK_OK(st))
        return;
    CHECK_NEAR(number(r, "reference_acc"), part(w1, "acc", 0), 1e-9);
    CHECK_NEAR(number(r, "reference_acc_stderr"), part(w1, "acc", 1), 1e-9);
    CHECK_NEAR(number(r, "reference_acc_norm"), part(w1, "acc_norm", 0), 1e-9);
    CHECK_NEAR(number(r, "acc"), part(w2, "acc", 0), 1e-9);
    CHECK_NEAR(number(r, "acc_norm"), part(w2, "acc_norm", 0), 1e-9);
    CHECK_NEAR(number(r, "acc_norm_stderr"), part(w2, "acc_norm", 1), 1e-9);
    const json_t *scores = json_object_get(w2, "scores"),
                 *found = json_object_get(r, "scores");
    CHECK_EQ_INT(json_array_size(found), json_array_size(questions));
    for (size_t q = 0; q < json_array_size(scores); q++) {
        const json_t *row = json_array_get(scores, q);
        for (size_t k = 0; k < json_array_size(row); k++)
            CHECK_NEAR(json_number_value(json_array_get(json_array_get(found, q), k)),
                       json_number_value(json_array_get(row, k)), 1e-3);
    }
    json_decref(r);
}

/* What it writes is what transformers' greedy search writes. */
static void on_targets(const char *model)
{
    const json_t *want = json_object_get(golden, "written");
    const json_t *texts = json_object_get(want, "texts");
    const data_options o = {0};
    dr_status st = DR_OK;
    json_t *r =
        run(&st, (pass_evaluation){
                     .model = {model, "first", false},
                     .data = &o,
                     .task = write_lines("written.jsonl", json_object_get(want, "rows")),
                     .max_new_tokens = (int)number(want, "new_tokens")});

    if (!CHECK_OK(st))
        return;
    const json_t *found = json_object_get(r, "answers");
    CHECK_EQ_INT(json_array_size(found), json_array_size(texts));
    for (size_t i = 0; i < json_array_size(texts); i++)
        CHECK_STR(json_string_value(json_array_get(found, i)),
                  json_string_value(json_array_get(texts, i)));
    CHECK_NEAR(number(r, "exact_match"), part(want, "exact_match", 0), 1e-12);
    CHECK_NEAR(number(r, "exact_match_stderr"), part(want, "exact_match", 1), 1e-12);
    CHECK_NEAR(number(r, "wer"), number(want, "wer"), 1e-12);
    json_decref(r);
}

/* A row that is not whole: its line, and what is wrong. */
static void bad_rows(const char *model)
{
    static const char *const rows[][2] = {
        {"{\"context\": \"a\", \"choices\": [], \"answer\": 0}",
         ":2: choices: expected two or more, found 0"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"\"], \"answer\": 0}",
         ":2: choice 2 is empty"},
        {"{\"context\": \"a\", \"choices\": [\"b\", 3], \"answer\": 0}",
         ":2: choice 2: expected a string, found an integer"},
        {"{\"context\": \"a\", \"choices\": \"b\", \"answer\": 0}",
         ":2: choices: expected a list, found a string"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 2}",
         ":2: answer 2: the 2 choices are 0 to 1, or A to B"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": \"C\"}",
         ":2: answer 2: the 2 choices"},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": \"b c\"}",
         ":2: answer: expected an index or a letter, found \"b c\""},
        {"{\"context\": \"a\", \"choices\": [\"b\", \"c\"]}", "found nothing"},
        {"{\"text\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 0}",
         ":2: neither \"context\" nor \"question\""},
        {"{\"context\": 1, \"choices\": [\"b\", \"c\"], \"answer\": 0}",
         ":2: context: expected a string"},
        {"{\"context\": \"a\", \"target\": \"b\"}",
         ":2: a target, and line 1 has the other"},
        {"{\"context\": \"a\", \"target\": []}", ":2: target: an empty list"},
        {"{\"context\": \"a\", \"target\": \" \"}", ":2: target: an empty text"},
        {"{\"context\": \"a\", \"target\": \"b\", \"choices\": []}",
         ":2: both \"choices\" and \"target\""},
        {"[1]", ":2: a row must be an object"},
        {"{\"context\": ", ":2:"}};
    const data_options o = {0};
    const char *path = dr_path_join(&arena, check_tmp(), "bad.jsonl");
    dr_status st = DR_OK;

    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        const char *text = dr_arena_printf(
            &arena,
            "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 1}\n%s\n",
            rows[i][0]);
        CHECK_OK(dr_write_file(path, text, strlen(text)));
        json_decref(run(&st, (pass_evaluation){
                                 .model = {model, "m", false}, .data = &o, .task = path}));
        CHECK_STATUS(st, DR_EFORMAT);
        CHECK_TRAIL(rows[i][1]);
        CHECK_TRAIL("bad.jsonl");
    }
    CHECK_OK(dr_write_file(path, "\n", 1));
    json_decref(run(
        &st, (pass_evaluation){.model = {model, "m", false}, .data = &o, .task = path}));
    CHECK_STATUS(st, DR_EFORMAT);
    CHECK_TRAIL("no question in it");
}

/* A template makes the context; with it other columns do. */
static void by_template(const char *model)
{
    static const char plain[] = "{\"context\": \"the path of 7\", \"choices\": [\"three\", "
                                "\"a\"], \"answer\": 1}\n";
    static const char other[] =
        "{\"what\": \"path\", \"n\": 7, \"choices\": [\"three\", \"a\"], \"answer\": 1}\n";
    const data_options none = {0}, made = {.text_template = "the {what} of {n}"};
    const char *a = dr_path_join(&arena, check_tmp(), "plain.jsonl");
    const char *b = dr_path_join(&arena, check_tmp(), "other.jsonl");
    dr_status st = DR_OK;

    CHECK_OK(dr_write_file(a, plain, strlen(plain)));
    CHECK_OK(dr_write_file(b, other, strlen(other)));
    json_t *x =
        run(&st, (pass_evaluation){.model = {model, "m", false}, .data = &none, .task = a});
    CHECK_OK(st);
    json_t *y =
        run(&st, (pass_evaluation){.model = {model, "m", false}, .data = &made, .task = b});
    CHECK_OK(st);
    CHECK(x != NULL &&
          json_equal(json_object_get(x, "scores"), json_object_get(y, "scores")));
    json_decref(x);
    json_decref(y);
}

static void refused(const char *model)
{
    const char *other = make_model("other", NULL);
    const data_options o = {0};
    json_t *tokenizer = NULL;
    dr_status st = DR_OK;

    CHECK_OK(dr_json_read(&tokenizer, dr_path_join(&arena, other, "tokenizer.json")));
    json_t *vocab = json_object_get(json_object_get(tokenizer, "model"), "vocab");
    json_object_del(vocab, "q");
    json_object_set_new(vocab, "Q1", json_integer(84));
    CHECK_OK(dr_json_write(dr_path_join(&arena, other, "tokenizer.json"), tokenizer));
    json_decref(tokenizer);
    json_decref(run(&st, (pass_evaluation){.model = {other, "that", false},
                                           .reference = {model, "this", false},
                                           .data = &o}));
    CHECK_STATUS(st, DR_EUSAGE);
    CHECK_TRAIL("this and that have other vocabularies (token 84: \"q\" and \"Q1\")");
    json_decref(run(
        &st, (pass_evaluation){.model = {model, "m", false}, .data = &o, .max_kl = 0.1}));
    CHECK_STATUS(st, DR_EUSAGE);
    CHECK_TRAIL("max_kl needs a reference");
}

int main(void)
{
    CHECK_OK(dr_json_read(&golden, GOLDEN "evaluate/evaluate.json"));
    const char *first = make_model("first", NULL);
    const char *second = make_model("second", json_object_get(golden, "edit"));

    on_text(first, second);
    on_task(first, second);
    on_targets(first);
    bad_rows(first);
    by_template(first);
    refused(first);
    json_decref(golden);
    dr_arena_release(&arena);
    return check_done();
}
