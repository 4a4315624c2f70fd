/*
 * family_test.c - exports of every family in ONNX Runtime against transformers: prompts of
 * several lengths and token by token, all spellings of config.json, and changed configs,
 * which must show.
 */
#include "family_runner.h"

/* ---- the tests ---- */

static void test_spelling(const char *name, const json_t *golden, const char *spelling)
{
    const json_t *config = json_object_get(json_object_get(golden, "configs"), spelling);
    const char *label = dr_arena_printf(&arena, "%s-%s", name, spelling);
    runner r;

    if (CHECK_OK(
            runner_open(&r, family_model(&arena, label, golden, config, 1), ONNX_FP32)))
        check_logits(label, &r, golden);
    runner_close(&r);
}

/* One number of the config changed: logits must be others. */
static void test_mutation(const char *name, const json_t *golden, size_t index)
{
    const json_t *change = json_array_get(json_object_get(golden, "mutations"), index);
    const json_t *path = json_array_get(change, 0);
    double factor = json_number_value(json_array_get(change, 1));
    json_t *config =
        json_deep_copy(json_object_get(json_object_get(golden, "configs"), "5"));
    size_t depth = json_array_size(path);
    const char *key = json_string_value(json_array_get(path, depth - 1));
    const char *label = dr_arena_printf(&arena, "%s-changed-%zu", name, index);
    json_t *o = config;
    runner r;

    for (size_t i = 0; i + 1 < depth; i++)
        o = json_object_get(o, json_string_value(json_array_get(path, i)));
    const json_t *old = json_object_get(o, key);
    double value = json_number_value(old) * factor;
    json_object_set_new(
        o, key, json_is_integer(old) ? json_integer(lround(value)) : json_real(value));
    if (CHECK_OK(
            runner_open(&r, family_model(&arena, label, golden, config, 1), ONNX_FP32))) {
        double difference = prompt_difference(&r, golden);
        if (!CHECK(difference > 1e-3))
            (void)printf("  %s: %s times %g changes logits by %.3g only\n", name, key,
                         factor, difference);
    }
    runner_close(&r);
    json_decref(config);
}

/* GenAI goes on from three tokens. */
static void run_genai(const char *dir)
{
    const int32_t ids[] = {5, 9, 30};
    ort_generate_options o = ORT_GENERATE_DEFAULTS;
    ort_generator *g = NULL;
    size_t n = 0;

    o.max_length = 6;
    o.threads = 1;
    if (CHECK_OK(ort_generator_open(&g, dir, &o)) &&
        CHECK_OK(ort_generate(g, ids, DR_COUNT(ids), NULL, NULL, NULL, &n, NULL)))
        CHECK(n <= 3);
    ort_generator_close(g);
}

/* Rounded to 4 bits it loads and runs; how near it comes is the quantizer's matter. */
static void test_int4(const char *name, const json_t *golden)
{
    const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");
    const char *label = dr_arena_printf(&arena, "%s-int4", name);
    runner r;

    if (CHECK_OK(
            runner_open(&r, family_model(&arena, label, golden, config, 1), ONNX_INT4)))
        CHECK(isfinite(prompt_difference(&r, golden)));
    runner_close(&r);
    if (genai)
        run_genai(dr_arena_printf(&arena, "%s/%s-onnx", check_tmp(), label));
}

/* Greedy tokens in GenAI, past the window, with a cache of max_length and a growing one. */
static void test_genai(const char *name, const json_t *golden)
{
    const json_t *greedy = json_object_get(golden, "greedy");
    const json_t *want = json_object_get(greedy, "ids");
    size_t prompt = (size_t)json_integer_value(json_object_get(greedy, "prompt"));
    const char *dir = dr_arena_printf(&arena, "%s/%s-5-onnx", check_tmp(), name);
    size_t count = json_array_size(want);
    int64_t ids64[TOKENS_MAX];
    int32_t ids[TOKENS_MAX];

    (void)ids_of(ids64, golden);
    for (size_t i = 0; i < prompt; i++)
        ids[i] = (int32_t)ids64[i];
    for (int share = 0; share < 2 && count > 0; share++) {
        ort_generate_options o = ORT_GENERATE_DEFAULTS;
        ort_generator *g = NULL;
        int32_t *got = NULL;
        size_t n = 0;
        o.max_length = (int)(prompt + count);
        o.share_buffer = share;
        o.threads = 1;
        if (CHECK_OK(ort_generator_open(&g, dir, &o)) &&
            CHECK_OK(ort_generate(g, ids, prompt, NULL, NULL, &got, &n, NULL))) {
            /* An end of sequence is in the golden, but is not handed out. */
            CHECK(n == count || (n == count - 1 && count < 8));
            for (size_t i = 0; i < n && i < count; i++)
                if (!CHECK_EQ_INT(got[i], json_integer_value(json_array_get(want, i))))
                    (void)printf("  %s, share %d, token %zu\n", name, share, i);
        }
        free(got);
        ort_generator_close(g);
    }
}

/* Experts in a runtime that cannot hold them: an error that says which can. */
static bool refused_here(const char *name, const json_t *golden)
{
    const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");
    const char *label = dr_arena_printf(&arena, "%s-old", name);
    runner r;

    if (!too_old_for(golden))
        return false;
    CHECK_STATUS(runner_open(&r, family_model(&arena, label, golden, config, 1), ONNX_FP32),
                 DR_EUNSUPPORTED);
    CHECK_TRAIL("need onnxruntime 1.32");
    runner_close(&r);
    return true;
}

static void test_family(const char *name)
{
    static const char *const spellings[] = {"5", "4", "old"};
    json_t *golden = family_golden(&arena, name);

    if (golden == NULL || refused_here(name, golden)) {
        json_decref(golden);
        return;
    }
    for (size_t i = 0; i < DR_COUNT(spellings); i++)
        test_spelling(name, golden, spellings[i]);
    for (size_t i = 0; i < json_array_size(json_object_get(golden, "mutations")); i++)
        test_mutation(name, golden, i);
    test_int4(name, golden);
    if (genai)
        test_genai(name, golden);
    json_decref(golden);
}

int main(void)
{
    if (!runtime_found())
        return check_done();
    if (!genai)
        SKIP("runtime: no onnxruntime-genai");
    for (size_t i = 0; i < DR_COUNT(family_names); i++)
        test_family(family_names[i]);
    dr_arena_release(&arena);
    return check_done();
}
