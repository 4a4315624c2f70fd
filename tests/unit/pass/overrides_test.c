/*
 * overrides_test.c - MixedPrecisionOverrides against Olive's own (tools/oracle/
 * override_goldens.py): the overrides, and what each node reads; the graph gives what it
 * gave.
 */
#include "onnx/onnx.h"
#include "ort/ort.h"
#include "pass_fixture.h"

#define FOLDER DRUPE_SOURCE_DIR "/tests/golden/overrides"
enum { SIZE = 16 };

static dr_arena arena;

static bool run_graph(float y[SIZE], const char *folder)
{
    static float x[SIZE];
    const char *const names[] = {"y"};
    ort_session *s = NULL;
    ort_value in = {.name = "x", .dtype = DR_DTYPE_F32, .ndim = 2, .dims = {4, 4}},
              out[1] = {0};
    bool good = false;

    for (int i = 0; i < SIZE; i++)
        x[i] = (float)i / 7 - 1;
    in.data = x;
    in.bytes = sizeof(x);
    if (CHECK_OK(
            ort_session_open(&s, dr_path_join(&arena, folder, "model.onnx"), 1, false)) &&
        CHECK_OK(ort_session_run(s, &in, 1, names, out, 1))) {
        memcpy(y, out[0].data, SIZE * sizeof(float));
        ort_values_release(out, 1);
        good = true;
    }
    ort_session_close(s);
    return good;
}

/* Every node reads what it is to read, and no more. */
static void check_inputs(const json_t *want, const char *folder)
{
    onnx_edit *e = NULL;
    const char *node;
    json_t *list, *name;
    size_t i;

    if (!CHECK_OK(
            onnx_rewrite_open(&e, dr_path_join(&arena, folder, "model.onnx"), check_tmp())))
        return;
    CHECK_EQ_INT(onnx_rewrite_nodes(e), json_object_size(want));
    json_object_foreach((json_t *)(uintptr_t)want, node, list)
    {
        json_array_foreach(list, i, name)
        {
            CHECK_STR(onnx_rewrite_input(e, node, i), json_string_value(name));
        }
        CHECK(onnx_rewrite_input(e, node, json_array_size(list)) == NULL);
    }
    onnx_rewrite_close(e);
}

static void check_case(const json_t *c, bool runtime)
{
    const pass_model in = {.kind = PASS_MODEL_ONNX, .path = FOLDER, .name = FOLDER};
    const json_t *want = json_object_get(c, "overrides");
    const char *to = in_tmp(&arena, "made");
    float before[SIZE], after[SIZE];
    json_t *said = NULL;
    pass_model out;

    if (!CHECK_OK(run_pass_on(&arena, &out, "MixedPrecisionOverrides",
                              json_object_get(c, "config"), &in, to)))
        return;
    if (CHECK_OK(dr_json_parse(&said, out.attributes, strlen(out.attributes), "said")) &&
        json_is_object(want) &&
        !CHECK(json_equal(json_object_get(said, "mixed_precision_overrides"), want)))
        (void)printf("  %s\n", out.attributes);
    check_inputs(json_object_get(c, "inputs"), out.path);
    if (runtime && run_graph(before, FOLDER) && run_graph(after, out.path))
        CHECK_MEM(before, after, sizeof(before));
    json_decref(said);
}

/* ---- what a quantizer makes of it ---- */

#define TEXT DRUPE_SOURCE_DIR "/tests/golden/rewrite/text"

/* Of the first `most` values that the quantizer rounds. */
static const char *attributes_of(size_t most)
{
    const onnx_int8_options o = {.is_signed = true};
    const char *const *names = NULL, *text = "";
    onnx_edit *e = NULL;
    size_t count = 0;

    if (CHECK_OK(onnx_rewrite_open(&e, TEXT "/model.onnx", check_tmp())) &&
        CHECK_OK(onnx_static_values(e, &o, &names, &count)))
        CHECK(count > 5);
    for (size_t i = 0; i < count && i < most; i++)
        text = dr_arena_printf(&arena, "%s%s\"%s\": [{\"quant_type\": \"QUInt16\"}]", text,
                               *text ? ", " : "", names[i]);
    onnx_rewrite_close(e);
    return dr_arena_printf(&arena, "{\"mixed_precision_overrides\": {%s}}", text);
}

static char *quantized(const char *type, const char *attributes, const char *name)
{
    const pass_model in = {
        .kind = PASS_MODEL_ONNX, .path = TEXT, .name = TEXT, .attributes = attributes};
    const char *to = in_tmp(&arena, name);
    json_t *config =
        json_pack("{s:s, s:b}", "activation_type", type, "quant_preprocess", 0);
    char *hex = dr_arena_alloc(&arena, DR_SHA256_HEX, 1);
    pass_model out;

    run_pass_checks = true; /* it runs in the runtime */
    if (CHECK_OK(run_pass_on(&arena, &out, "OnnxStaticQuantization", config, &in, to)))
        CHECK_OK(dr_sha256_file(hex, dr_path_join(&arena, out.path, "model.onnx")));
    run_pass_checks = false;
    json_decref(config);
    return hex;
}

/* All values of 16 bits is what activation_type says, too; some are something else. */
static void test_consumed(void)
{
    const char *all = quantized("int8", attributes_of(1000), "all");
    const char *some = quantized("int8", attributes_of(2), "some");
    const char *wide = quantized("uint16", NULL, "wide");
    const char *narrow = quantized("int8", NULL, "narrow");
    const pass_model in = {.kind = PASS_MODEL_ONNX,
                           .path = TEXT,
                           .name = TEXT,
                           .attributes = "{\"mixed_precision_overrides\": {\"a\": "
                                         "[{\"quant_type\": \"QInt4\"}]}}"};
    json_t *none = json_object();
    pass_model out;

    CHECK_STR(all, wide);
    CHECK(strcmp(some, wide) != 0 && strcmp(some, narrow) != 0);
    CHECK(strcmp(narrow, wide) != 0);
    CHECK_STATUS(run_pass_on(&arena, &out, "OnnxStaticQuantization", none, &in,
                             in_tmp(&arena, "bad")),
                 DR_EUNSUPPORTED);
    CHECK_TRAIL("a: expected QUInt16, found QInt4");
    json_decref(none);
}

static void refused(json_t *config, const char *message)
{
    const pass_model in = {.kind = PASS_MODEL_ONNX, .path = FOLDER, .name = FOLDER};
    pass_model out;

    CHECK_STATUS(run_pass_on(&arena, &out, "MixedPrecisionOverrides", config, &in,
                             in_tmp(&arena, "bad")),
                 DR_EUSAGE);
    CHECK_TRAIL(message);
    json_decref(config);
}

int main(void)
{
    json_t *cases = NULL, *c;
    ort_info info;
    size_t i;

    ort_probe(&arena, &info);
    if (info.ort_found)
        test_consumed();
    else
        SKIP("no onnxruntime");
    if (CHECK_OK(dr_json_read(&cases, FOLDER "/olive.json")))
        json_array_foreach(cases, i, c)
        {
            check_case(c, info.ort_found);
        }
    CHECK_EQ_INT(json_array_size(cases), 7);
    json_decref(cases);
    refused(json_pack("{s:{s:s}}", "overrides_config", "none", "QUInt16"),
            "has no value called none");
    refused(json_pack("{s:{s:s}}", "overrides_config", "a", "uint16"),
            "a: expected a type as QUInt16, found uint16");
    refused(json_object(), "overrides_config is required");
    dr_arena_release(&arena);
    return check_done();
}
