/*
 * session_tuning_test.c - OrtSessionParamsTuning: what is chosen follows from the times in
 * the report, and stands where Olive and GenAI look for it; the graph stays as it is.
 */
#include "ort/ort.h"
#include "pass_fixture.h"

#define TEXT DRUPE_SOURCE_DIR "/tests/golden/rewrite/text"
#define TINY DRUPE_SOURCE_DIR "/tests/golden/tiny/llama"

static dr_arena arena;

/* The settings that save most of the default beside them; NULL: none saves 2 %. */
static const json_t *fastest(const json_t *report)
{
    const json_t *best = NULL;
    double least = 0.98;
    json_t *one;
    size_t i;

    json_array_foreach(json_object_get(report, "settings"), i, one)
    {
        double own = json_number_value(json_object_get(one, "milliseconds"));
        double plain = json_number_value(json_object_get(one, "default_milliseconds"));
        CHECK(own > 0 && plain > 0);
        if (own / plain < least) {
            least = own / plain;
            best = json_object_get(one, "session_options");
        }
    }
    return best;
}

static void check_result(const pass_model *out, const json_t *report, size_t settings)
{
    const json_t *best = fastest(report);
    json_t *said = NULL;

    CHECK_EQ_INT(json_array_size(json_object_get(report, "settings")), settings);
    if (!CHECK_OK(dr_json_parse(&said, out->settings, strlen(out->settings), "settings")))
        return;
    CHECK_STR(
        json_string_value(json_array_get(json_object_get(said, "execution_provider"), 0)),
        "CPUExecutionProvider");
    const json_t *chosen = json_object_get(said, "session_options");
    CHECK(best != NULL ? json_equal(chosen, best) : chosen == NULL);
    json_decref(said);
}

/* A graph of others: all combinations, each once. */
static void test_graph(void)
{
    const pass_model in = {.kind = PASS_MODEL_ONNX, .path = TEXT, .name = TEXT};
    json_t *config = json_pack("{s:[i, i], s:[i, i], s:i}", "intra_thread_num_list", 1, 2,
                               "opt_level_list", 0, 99, "execution_mode_list", 0);
    json_t *report = json_object();
    pass_model out;

    run_pass_report = report;
    if (CHECK_OK(run_pass_on(&arena, &out, "OrtSessionParamsTuning", config, &in,
                             in_tmp(&arena, "tuned")))) {
        check_result(&out, report, 4);
        CHECK_EQ_INT(json_integer_value(json_object_get(report, "changes")), 0);
    }
    run_pass_report = NULL;
    json_decref(report);
    json_decref(config);
}

/* One for GenAI: it reads them from its own file. */
static void test_genai(void)
{
    const pass_model tiny = {.kind = PASS_MODEL_HF, .path = TINY, .name = TINY};
    json_t *build = json_pack("{s:s, s:b}", "precision", "fp32", "use_ort_genai", 1);
    json_t *config = json_pack("{s:i}", "intra_thread_num_list", 1);
    json_t *both = json_pack("{s:[i, i]}", "execution_mode_list", 0, 1);
    json_t *report = json_object(), *genai = NULL;
    pass_model built, out;

    if (CHECK_OK(run_pass_on(&arena, &built, "ModelBuilder", build, &tiny,
                             in_tmp(&arena, "built")))) {
        run_pass_report = report;
        if (CHECK_OK(run_pass_on(&arena, &out, "OrtSessionParamsTuning", config, &built,
                                 in_tmp(&arena, "tuned"))) &&
            CHECK_OK(dr_json_read(&genai,
                                  dr_path_join(&arena, out.path, "genai_config.json")))) {
            const json_t *options =
                json_object_get(json_object_get(json_object_get(genai, "model"), "decoder"),
                                "session_options");
            check_result(&out, report, 1);
            CHECK_EQ_INT(
                json_integer_value(json_object_get(options, "intra_op_num_threads")),
                fastest(report) != NULL ? 1 : 0);
        }
        run_pass_report = NULL;
        CHECK_STATUS(run_pass_on(&arena, &out, "OrtSessionParamsTuning", both, &built,
                                 in_tmp(&arena, "bad")),
                     DR_EUSAGE);
        CHECK_TRAIL("is for GenAI, which has mode 0 only");
    }
    json_decref(genai);
    json_decref(report);
    json_decref(both);
    json_decref(config);
    json_decref(build);
}

static void refused(json_t *config, dr_status status, const char *message)
{
    const pass_model in = {.kind = PASS_MODEL_ONNX, .path = TEXT, .name = TEXT};
    pass_model out;

    CHECK_STATUS(run_pass_on(&arena, &out, "OrtSessionParamsTuning", config, &in,
                             in_tmp(&arena, "bad")),
                 status);
    CHECK_TRAIL(message);
    json_decref(config);
}

static void test_errors(void)
{
    refused(json_pack("{s:[i, i]}", "intra_thread_num_list", 1, 0), DR_EUSAGE,
            "intra_thread_num_list: 0 is none of its values");
    refused(json_pack("{s:[i, i]}", "intra_thread_num_list", 2, 2), DR_EUSAGE,
            "2 is there twice");
    refused(json_pack("{s:i}", "opt_level_list", 3), DR_EUSAGE, "3 is none of its values");
    refused(json_pack("{s:s}", "opt_level_list", "all"), DR_EUSAGE,
            "expected an integer, found \"all\"");
    refused(json_pack("{s:[i, i, i, i, i], s:[i, i, i, i, i], s:[i, i, i]}",
                      "intra_thread_num_list", 1, 2, 3, 4, 5, "inter_thread_num_list", 1, 2,
                      3, 4, 5, "opt_level_list", 0, 1, 2),
            DR_EUSAGE, "75 combinations of settings; 64 at most");
    refused(json_pack("{s:b}", "io_bind", 1), DR_EUNSUPPORTED,
            "io_bind: CPUExecutionProvider has no such setting");
    refused(json_pack("{s:s}", "device", "gpu"), DR_EUNSUPPORTED,
            "gpu: sessions are tuned");
    refused(json_pack("{s:s}", "providers_list", "CUDAExecutionProvider"), DR_EUNSUPPORTED,
            "CUDAExecutionProvider: sessions are tuned");
}

int main(void)
{
    ort_info info;

    ort_probe(&arena, &info);
    if (info.ort_found) {
        test_graph();
        test_genai();
    } else {
        SKIP("no onnxruntime");
    }
    test_errors();
    dr_arena_release(&arena);
    return check_done();
}
