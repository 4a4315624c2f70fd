/*
 * api_generate_test.c - text from an exported model, where a runtime and a small real model
 * are at hand: streamed pieces, ids, limits, the same words twice.
 */
#include "api_fixture.h"

static dr_arena arena;

typedef struct {
    dr_buf text;
    size_t pieces, stop_after;
} heard;

static bool listen(void *ctx, const char *text)
{
    heard *h = ctx;

    CHECK_OK(dr_buf_adds(&h->text, text));
    return ++h->pieces != h->stop_after;
}

static json_t *generate(drupe_generation g, heard *h)
{
    drupe_result *r = NULL;
    json_t *j = NULL;

    dr_buf_reset(&h->text);
    h->pieces = 0;
    if (CHECK_DRUPE(drupe_generate(&r, &g, listen, h), DRUPE_OK))
        j = report_of(r);
    drupe_result_free(r);
    return j;
}

static void fails(drupe_generation g, drupe_status want, const char *text)
{
    drupe_result *r = NULL;

    CHECK_DRUPE(drupe_generate(&r, &g, NULL, NULL), want);
    CHECK_ERROR(text);
    CHECK(r == NULL);
}

static void test_words(const char *model)
{
    drupe_generation g = {.model = model,
                          .prompt = "Name three colours.",
                          .chat = true,
                          .max_new_tokens = 12};
    heard h = {.stop_after = 0};

    dr_buf_init(&h.text, 1 << 20);
    json_t *first = generate(g, &h);
    CHECK_STR(text_at(first, "text"), h.text.data);
    CHECK(h.text.len > 0);
    size_t count = json_array_size(json_object_get(first, "ids"));
    CHECK(count > 0 && count <= 12);
    json_t *second = generate(g, &h);
    CHECK_STR(text_at(second, "text"), text_at(first, "text"));
    CHECK(json_equal(json_object_get(first, "ids"), json_object_get(second, "ids")));
    json_decref(second);

    g.max_new_tokens = 0; /* max_length counts the prompt */
    g.max_length = (int)int_at(first, "prompt_tokens") + 5;
    second = generate(g, &h);
    CHECK_EQ_INT(int_at(second, "new_tokens"), 5);
    json_decref(second);
    g.max_new_tokens = 3; /* the lower of the two */
    second = generate(g, &h);
    CHECK_EQ_INT(json_array_size(json_object_get(second, "ids")), 3);
    json_decref(second);

    g.max_length = 0;
    g.max_new_tokens = 12;
    h.stop_after = 2; /* the listener says stop */
    second = generate(g, &h);
    CHECK_EQ_INT(h.pieces, 2);
    CHECK(json_array_size(json_object_get(second, "ids")) < 12);
    json_decref(second);
    json_decref(first);
    dr_buf_release(&h.text);
}

static void test_errors(const char *model)
{
    fails((drupe_generation){.model = TINY, .prompt = "x"}, DRUPE_EUSAGE,
          "no genai_config.json in it");
    fails((drupe_generation){.model = model, .prompt = ""}, DRUPE_EUSAGE,
          "the prompt is empty");
    fails((drupe_generation){.model = model, .prompt = "x", .adapter = "none"},
          DRUPE_EUSAGE, "no adapter none");
}

int main(void)
{
    const char *models = getenv("DRUPE_TEST_MODELS"), *out = in_tmp(&arena, "onnx");
    const char *gguf = dr_path_join(&arena, models ? models : "", "smollm2-135m.gguf");
    const drupe_pass pass = {"ModelBuilder",
                             "{\"precision\": \"int4\", \"use_ort_genai\": true}"};
    const drupe_job job = {
        .model = gguf, .output = out, .passes = &pass, .pass_count = 1, .check = true};
    drupe_result *r = NULL;

    if (!dr_is_file(gguf)) {
        SKIP("DRUPE_TEST_MODELS names no folder with smollm2-135m.gguf");
        return check_done();
    }
    if (CHECK_DRUPE(drupe_run(&r, &job), DRUPE_OK)) {
        json_t *j = report_of(r);
        if (json_object_get(j, "not_checked") != NULL) {
            SKIP("no runtime was found");
        } else {
            test_words(out);
            test_errors(out);
        }
        json_decref(j);
    }
    drupe_result_free(r);
    dr_arena_release(&arena);
    return check_done();
}
