/*
 * generator_test.c - generation by GenAI against a bigram model worked out by hand, with
 * and without an adapter; and, in a folder that the environment names, against what GenAI's
 * Python package said (tools/oracle/ort_goldens.py).
 *
 *     DRUPE_TEST_GENAI_DIR=/tmp/smol-int4 generator_test
 */
#include "check.h"
#include "core/file.h"
#include "core/json.h"
#include "ort/ort.h"
#include "ort_fixture.h"

static char model_dir[4200], adapter_path[4200], wrong_path[4200];

typedef struct {
    int32_t ids[64];
    size_t count, stop_after;
} heard;

static bool hear(void *ctx, int32_t id)
{
    heard *h = ctx;

    if (h->count < 64)
        h->ids[h->count] = id;
    h->count++;
    return h->count != h->stop_after;
}

/* The chain from the prompt's last id, until the end of sequence or until room runs out. */
static size_t chain(int32_t *ids, int32_t last, size_t prompt_count, size_t max_length)
{
    size_t n = 0;

    for (; prompt_count + n < max_length; n++) {
        last = fixture_next(last);
        if (last == FIXTURE_EOS)
            return n;
        ids[n] = last;
    }
    return n;
}

static void expect_ids(const int32_t *ids, size_t count, const int32_t *want,
                       size_t want_count)
{
    if (CHECK_EQ_INT(count, want_count))
        CHECK_MEM(ids, want, count * sizeof(*ids));
}

static void test_greedy(void)
{
    const int32_t prompt[] = {1, 2, 4}, short_prompt[] = {6};
    int32_t want[64], *ids = NULL;
    heard h = {0};
    size_t count = 0;
    ort_generator *g = NULL;
    ort_generate_options o = ORT_GENERATE_DEFAULTS;
    ort_generate_stats stats = {0};

    if (!CHECK_OK(ort_generator_open(&g, model_dir, NULL)))
        return;
    if (CHECK_OK(ort_generate(g, prompt, 3, hear, &h, &ids, &count, &stats))) {
        expect_ids(ids, count, want,
                   chain(want, 4, 3, 24)); /* 24: the config's max_length */
        expect_ids(h.ids, h.count, want, count);
        CHECK_EQ_INT(stats.prompt_tokens, 3);
        CHECK_EQ_INT(stats.new_tokens, count);
        CHECK(!stats.ended);
        CHECK(stats.load_s > 0 && stats.prefill_s > 0 && stats.decode_s >= 0);
    }
    free(ids);

    /* again on the same model, stopped by the listener */
    h = (heard){.stop_after = 3};
    ids = NULL;
    if (CHECK_OK(ort_generate(g, short_prompt, 1, hear, &h, &ids, &count, NULL))) {
        (void)chain(want, 6, 1, 24);
        expect_ids(ids, count, want, 3);
    }
    free(ids);

    o.max_length = 7;
    ort_generator_set(g, &o);
    ids = NULL;
    if (CHECK_OK(ort_generate(g, prompt, 3, NULL, NULL, &ids, &count, NULL)))
        expect_ids(ids, count, want, chain(want, 4, 3, 7));
    free(ids);
    CHECK_OK(ort_generate(g, prompt, 3, NULL, NULL, NULL, NULL, NULL));

    CHECK_STATUS(ort_generate(g, prompt, 0, NULL, NULL, NULL, NULL, NULL), DR_EUSAGE);
    o.max_length = 3;
    ort_generator_set(g, &o);
    CHECK_STATUS(ort_generate(g, prompt, 3, NULL, NULL, NULL, NULL, NULL), DR_EUSAGE);
    CHECK_TRAIL("no room in max_length 3");
    ort_generator_close(g);
}

/* 26 -> 5 -> the end of sequence, which is not handed out. */
static void test_end(void)
{
    const int32_t prompt[] = {0, 26}, at_once[] = {5};
    const int32_t want[] = {5};
    int32_t *ids = NULL;
    size_t count = 0;
    ort_generate_stats stats = {0};
    ort_generator *g = NULL;

    CHECK_EQ_INT(fixture_next(26), 5);
    CHECK_EQ_INT(fixture_next(5), FIXTURE_EOS);
    if (!CHECK_OK(ort_generator_open(&g, model_dir, NULL)))
        return;
    if (CHECK_OK(ort_generate(g, prompt, 2, NULL, NULL, &ids, &count, &stats)))
        expect_ids(ids, count, want, 1);
    CHECK(stats.ended);
    free(ids);
    if (CHECK_OK(ort_generate(g, at_once, 1, NULL, NULL, &ids, &count, &stats)))
        CHECK_EQ_INT(count, 0);
    CHECK(stats.ended);
    free(ids);
    ort_generator_close(g);
}

static void test_adapter(void)
{
    const int32_t prompt[] = {1, 2, 4}, want[] = {7, 7, 7, 7, 7};
    int32_t *ids = NULL;
    size_t count = 0;
    ort_generator *g = NULL;
    ort_generate_options o = ORT_GENERATE_DEFAULTS;

    o.adapter_path = adapter_path;
    o.max_length = 8;
    for (int share = -1; share <= 0; share++) {
        o.share_buffer = share;
        if (!CHECK_OK(ort_generator_open(&g, model_dir, &o)))
            return;
        ids = NULL;
        if (CHECK_OK(ort_generate(g, prompt, 3, NULL, NULL, &ids, &count, NULL)))
            expect_ids(ids, count, want, 5);
        free(ids);
        CHECK_OK(ort_generate(g, prompt, 3, NULL, NULL, NULL, NULL, NULL));
        ort_generator_close(g);
    }
}

static void test_sampling(void)
{
    const int32_t prompt[] = {1, 2, 4};
    int32_t *ids[2] = {NULL, NULL};
    size_t counts[2] = {0, 0};
    ort_generate_options o = {.do_sample = true,
                              .temperature = 50,
                              .top_k = 32,
                              .seed = 7,
                              .share_buffer = -1,
                              .threads = 1};

    for (int i = 0; i < 2; i++) {
        ort_generator *g = NULL;
        if (CHECK_OK(ort_generator_open(&g, model_dir, &o)))
            CHECK_OK(ort_generate(g, prompt, 3, NULL, NULL, &ids[i], &counts[i], NULL));
        ort_generator_close(g);
    }
    expect_ids(ids[0], counts[0], ids[1], counts[1]);
    free(ids[0]);
    free(ids[1]);
}

static void test_encode(void)
{
    const int32_t want[] = {27, 26, 2, 26, 1, 0};
    int32_t *ids = NULL;
    size_t count = 0;
    ort_generator *g = NULL;

    if (!CHECK_OK(ort_generator_open(&g, model_dir, NULL)))
        return;
    if (CHECK_OK(ort_generator_encode(g, "ab c ba", &ids, &count)))
        expect_ids(ids, count, want, 6);
    free(ids);
    if (CHECK_OK(ort_generator_encode(g, "", &ids, &count)))
        CHECK_EQ_INT(count, 0);
    free(ids);
    ort_generator_close(g);
}

static void test_refusals(void)
{
    const int32_t prompt[] = {1};
    char bad_dir[4300], path[4400];
    ort_generator *g = NULL;
    ort_generate_options o = ORT_GENERATE_DEFAULTS;

    CHECK_STATUS(ort_generator_open(&g, "/no/such/folder", NULL), DR_EIO);
    CHECK_STATUS(ort_generator_open(&g, "/", NULL), DR_EFORMAT);
    CHECK_TRAIL("no genai_config.json");
    (void)snprintf(bad_dir, sizeof(bad_dir), "%s/bad", check_tmp());
    (void)snprintf(path, sizeof(path), "%s/genai_config.json", bad_dir);
    CHECK_OK(dr_make_dirs(bad_dir));
    CHECK_OK(dr_write_file(path, "{\"model\":{}}", 12));
    CHECK_STATUS(ort_generator_open(&g, bad_dir, NULL), DR_EDEVICE);
    CHECK_TRAIL("/bad");
    CHECK(g == NULL);

    o.adapter_path = "/no/such.onnx_adapter";
    CHECK_STATUS(ort_generator_open(&g, model_dir, &o), DR_EIO);
    o.adapter_path = path;
    CHECK_STATUS(ort_generator_open(&g, model_dir, &o), DR_EDEVICE);
    o.adapter_path = wrong_path;
    if (CHECK_OK(ort_generator_open(&g, model_dir, &o))) {
        CHECK_STATUS(ort_generate(g, prompt, 1, NULL, NULL, NULL, NULL, NULL), DR_EDEVICE);
        CHECK_TRAIL("with the adapter");
    }
    ort_generator_close(g);
}

/* ---- against the Python package ---- */

static size_t read_ids(int32_t *out, size_t room, const json_t *list)
{
    size_t n = json_array_size(list);

    for (size_t i = 0; i < n && i < room; i++)
        out[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return n < room ? n : room;
}

static void test_against_python(const char *dir)
{
    dr_arena a = {0};
    json_t *golden = NULL;
    ort_generator *g = NULL;
    const char *text = NULL, *adapter = NULL;
    int32_t prompt[512], want[512], *ids = NULL;
    size_t count = 0;
    ort_generate_options o = ORT_GENERATE_DEFAULTS;
    ort_generate_stats stats = {0};

    if (!CHECK_OK(dr_json_read(&golden, dr_path_join(&a, dir, "expect.json"))))
        return;
    CHECK_OK(dr_json_str(golden, "text", &text, dir));
    CHECK_OK(dr_json_str(golden, "adapter", &adapter, dir));
    size_t prompt_count = read_ids(prompt, 512, dr_json_get(golden, "prompt"));
    size_t want_count = read_ids(want, 512, dr_json_get(golden, "new"));
    o.max_length = (int)(prompt_count + want_count);
    if (adapter != NULL)
        o.adapter_path = dr_path_join(&a, dir, adapter);
    if (CHECK_OK(ort_generator_open(&g, dir, &o))) {
        if (CHECK_OK(ort_generator_encode(g, text, &ids, &count)))
            expect_ids(ids, count, prompt, prompt_count);
        free(ids);
        ids = NULL;
        if (CHECK_OK(
                ort_generate(g, prompt, prompt_count, NULL, NULL, &ids, &count, &stats)))
            expect_ids(ids, count, want, want_count);
        free(ids);
        (void)printf("load %.3f s, prefill %.3f s, %.1f tokens/s\n", stats.load_s,
                     stats.prefill_s, (double)(stats.new_tokens - 1) / stats.decode_s);
    }
    ort_generator_close(g);
    json_decref(golden);
    dr_arena_release(&a);
}

int main(void)
{
    const char *dir = getenv("DRUPE_TEST_GENAI_DIR");

    if (!fixture_has_genai()) {
        SKIP("no ONNX Runtime GenAI here");
        return check_done();
    }
    (void)snprintf(model_dir, sizeof(model_dir), "%s/model", check_tmp());
    (void)snprintf(adapter_path, sizeof(adapter_path), "%s/seven.onnx_adapter",
                   check_tmp());
    (void)snprintf(wrong_path, sizeof(wrong_path), "%s/wrong.onnx_adapter", check_tmp());
    fixture_genai(model_dir, false);
    fixture_genai_adapter(adapter_path, 7);
    fixture_wrong_adapter(wrong_path);
    test_greedy();
    test_end();
    test_adapter();
    test_sampling();
    test_encode();
    test_refusals();
    if (dir != NULL)
        test_against_python(dir);
    else
        SKIP("oracle: DRUPE_TEST_GENAI_DIR names no folder with Python's answers");
    return check_done();
}
