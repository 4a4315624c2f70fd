/*
 * npu_family_test.c - families as graphs of fixed shapes: the logits of transformers in
 * floats, window by window; rounded values near them; families without such a graph refused
 * by what they have.
 */
#include "family.h"
#include "npu_fixture.h"

enum { WINDOW = 4 };

static dr_arena arena;

/* Families that are refused, and why. */
static const char *refusal(const char *name)
{
    static const char *const rows[][2] = {
        {"qwen3_moe", "experts"},          {"gpt_oss", "experts"},
        {"phi2", "norms with a mean"},     {"olmo2", "norms over all heads of a token"},
        {"stablelm", "norms with a mean"}, {"stablelm_parallel", "norms with a mean"},
    };

    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        if (strcmp(rows[i][0], name) == 0)
            return rows[i][1];
    }
    return NULL;
}

/* The first tokens of the golden, whole windows of them. */
static size_t read_golden(const json_t *golden, int32_t *ids, float **logits, size_t *vocab)
{
    const json_t *list = json_object_get(golden, "ids");
    const json_t *rows = json_object_get(golden, "logits");
    const size_t count = json_array_size(list) / WINDOW * WINDOW;

    *vocab = json_array_size(json_array_get(rows, 0));
    *logits = dr_arena_alloc(&arena, count * *vocab, sizeof(float));
    for (size_t t = 0; t < count; t++) {
        ids[t] = (int32_t)json_integer_value(json_array_get(list, t));
        for (size_t i = 0; i < *vocab; i++)
            (*logits)[t * *vocab + i] =
                (float)json_number_value(json_array_get(json_array_get(rows, t), i));
    }
    return count;
}

static void test_family(const char *name)
{
    json_t *golden = family_golden(&arena, name);
    const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");
    const char *folder = dr_arena_printf(&arena, "%s-5", name);
    const char *dir = dr_arena_printf(&arena, "%s/%s-npu", check_tmp(), name);
    int32_t ids[64];
    float *want = NULL;
    size_t vocab = 0;
    onnx_report report = {0};
    hf_model *m = NULL;
    dr_pool *pool = NULL;

    if (golden == NULL ||
        !CHECK_OK(hf_model_open(&m, family_model(&arena, folder, golden, config, 1))))
        return;
    const size_t count = read_golden(golden, ids, &want, &vocab);
    const onnx_npu_options o = {
        .batch = 1, .sequence = WINDOW, .total = (int64_t)count, .weight_bits = 32};
    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(dr_pool_open(&pool, 1));
    if (refusal(name) != NULL) {
        CHECK_STATUS(onnx_npu_build(&report, dir, m, pool, &o), DR_EUNSUPPORTED);
        CHECK_TRAIL(refusal(name));
        CHECK_TRAIL(hf_model_config(m)->arch_name);
    } else if (CHECK_OK(onnx_npu_build(&report, dir, m, pool, &o))) {
        float *got = dr_arena_alloc(&arena, count * vocab, sizeof(*got));
        for (int token = 0; token < 2; token++) {
            const char *file =
                dr_path_join(&arena, dir, onnx_npu_file(&arena, &o, token == 1));
            if (fixed_logits(&arena, got, file, ids, count, vocab) &&
                !CHECK_NEAR(farthest(got, want, count * vocab), 0, 1e-4))
                (void)printf("  %s\n", name);
        }
    }
    onnx_report_release(&report);
    dr_pool_close(pool);
    hf_model_close(m);
    json_decref(golden);
}

int main(void)
{
    ort_info info;

    ort_probe(&arena, &info);
    if (!info.ort_found) {
        SKIP("ONNX Runtime was not found");
        return check_done();
    }
    for (size_t i = 0; i < DR_COUNT(family_names); i++)
        test_family(family_names[i]);
    dr_arena_release(&arena);
    return check_done();
}
