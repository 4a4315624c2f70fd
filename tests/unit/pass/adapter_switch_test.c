/*
 * adapter_switch_test.c - one int4 base and two adapters of PEFT's, in one process: GenAI
 * switched between them from call to call says what PEFT says greedily over the dequantized
 * base (tools/oracle/adapter_switch.py, which also makes a folder of a real model for
 * DRUPE_TEST_SWITCH).
 */
#include "check.h"
#include "core/file.h"
#include "core/json.h"
#include "hf/hf.h"
#include "onnx/onnx.h"
#include "ort/ort.h"

#define TOY DRUPE_SOURCE_DIR "/tests/cli/toy/"

enum { ROOM = 64 };
static dr_arena arena;

static size_t read_ids(int32_t *out, const json_t *list)
{
    size_t n = json_array_size(list);

    if (!CHECK(n <= ROOM))
        return 0;
    for (size_t i = 0; i < n; i++)
        out[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return n;
}

/* A base with the tokenizer that GenAI's files need; the tiny one has none of its own. */
static const char *with_tokenizer(const char *base)
{
    static const char *const names[] = {"config.json", "model.safetensors",
                                        "tokenizer.json", "tokenizer_config.json"};
    const char *dir = dr_path_join(&arena, check_tmp(), "base");

    if (dr_is_file(dr_path_join(&arena, base, "tokenizer.json")))
        return base;
    CHECK_OK(dr_make_dirs(dir));
    for (size_t i = 0; i < DR_COUNT(names); i++)
        CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, names[i]),
                              dr_path_join(&arena, i < 2 ? base : TOY, names[i])));
    return dir;
}

/* The base's codes as they are, sums in float, the head as it came; a and b beside it. */
static const char *export(const char *from)
{
    static const char *const head[] = {"/lm_head/MatMul"};
    const char *dir = dr_path_join(&arena, check_tmp(), "export");
    hf_adapter ads[2] = {{0}};
    const onnx_named_adapter named[] = {{"a", &ads[0]}, {"b", &ads[1]}};
    const onnx_options o = {.precision = ONNX_INT4,
                            .block_size = 32,
                            .symmetric = true,
                            .accuracy_level = 1,
                            .exclude = head,
                            .exclude_count = 1,
                            .genai = true,
                            .adapters = named,
                            .adapter_count = 2};
    onnx_report report = {0};
    hf_model *m = NULL;
    dr_pool *pool = NULL;

    CHECK_OK(dr_make_dirs(dir));
    if (!CHECK_OK(hf_model_open(&m, with_tokenizer(dr_path_join(&arena, from, "base")))) ||
        !CHECK_OK(dr_pool_open(&pool, 2)))
        return NULL;
    for (int i = 0; i < 2; i++)
        CHECK_OK(hf_adapter_open(&ads[i], dr_path_join(&arena, from, named[i].name), m));
    CHECK_OK(onnx_build(&report, dir, m, pool, &o));
    onnx_report_release(&report);
    for (int i = 0; i < 2; i++)
        hf_adapter_release(&ads[i]);
    dr_pool_close(pool);
    hf_model_close(m);
    return dir;
}

/* Each prompt as base, A, B, A, base. */
static void switching(const char *from)
{
    static const char *const order[] = {"base", "a", "b", "a", "base"};
    int32_t prompt[ROOM], want[ROOM], *ids = NULL;
    ort_generate_options o = ORT_GENERATE_DEFAULTS;
    ort_generator *g = NULL;
    json_t *expected = NULL;
    size_t count = 0;

    if (!CHECK_OK(dr_json_read(&expected, dr_path_join(&arena, from, "expected.json"))))
        return;
    const char *dir = export(from);
    const json_t *prompts = json_object_get(expected, "prompts");
    if (dir == NULL || !CHECK_OK(ort_generator_open(&g, dir, NULL)))
        return;
    for (size_t i = 0; i < json_array_size(prompts); i++) {
        size_t n = read_ids(prompt, json_array_get(prompts, i));
        for (size_t k = 0; k < DR_COUNT(order); k++) {
            const char *file = dr_arena_printf(&arena, "%s/%s.onnx_adapter", dir, order[k]);
            const json_t *said = json_object_get(expected, order[k]);
            size_t new = read_ids(want, json_array_get(said, i));
            bool base = strcmp(order[k], "base") == 0;
            o.max_length = (int)(n + json_integer_value(json_object_get(expected, "new")));
            ort_generator_set(g, &o);
            CHECK_OK(ort_generator_use(g, base ? NULL : file));
            if (!CHECK_OK(ort_generate(g, prompt, n, NULL, NULL, &ids, &count, NULL)))
                continue;
            if (CHECK_EQ_INT(count, new))
                CHECK_MEM(ids, want, new * sizeof(*ids));
            free(ids);
        }
    }
    CHECK_STATUS(ort_generator_use(g, "/no/such.onnx_adapter"), DR_EIO);
    ort_generator_close(g);
    json_decref(expected);
}

int main(void)
{
    const char *real = getenv("DRUPE_TEST_SWITCH");
    ort_info info = {0};

    ort_probe(&arena, &info);
    if (info.genai_found)
        switching(real != NULL ? real : DRUPE_SOURCE_DIR "/tests/golden/switch");
    else
        SKIP(info.why);
    dr_arena_release(&arena);
    return check_done();
}
