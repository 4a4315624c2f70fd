/*
 * rewrite_test.c - passes that change graphs, on graphs of others
 * (tools/oracle/pass_goldens.py), in ONNX Runtime: what a result gives is near to what the
 * graph gave before, and to what Olive's pass of that name makes of it.
 */
#include "core/json.h"
#include "onnx/onnx.h"
#include "ort/ort.h"
#include "pass_fixture.h"
#include "st_golden.h"

#define REWRITE DRUPE_SOURCE_DIR "/tests/golden/rewrite/"
enum { OUTPUTS = 8 };

static dr_arena arena;

/* ---- a pass ---- */

static dr_status run_pass(const char *name, const json_t *config, const char *from,
                          const char *to)
{
    const pass_model in = {.kind = PASS_MODEL_ONNX, .path = from, .name = from};
    pass_model out;

    return run_pass_on(&arena, &out, name, config, &in, to);
}

/* ---- running a graph ---- */

/* The input as the graph takes it: halves for floats, channels last. */
static ort_value as_input(const ort_value *want, const dr_tensor *x)
{
    ort_value v = *want;
    size_t n = dr_tensor_count(x);
    bool last = x->ndim == 4 && want->dims[3] == x->dims[1] && want->dims[1] != x->dims[1];

    for (int d = 0; d < x->ndim; d++)
        v.dims[d] = x->dims[d];
    v.bytes = n * dr_dtype_bytes(v.dtype);
    void *data = dr_arena_alloc(&arena, v.bytes + 1, 1);
    if (v.dtype == x->dtype)
        memcpy(data, x->data, v.bytes);
    else
        dr_from_f32(data, x->data, v.dtype, n);
    v.data = data;
    if (last) {
        size_t c = (size_t)x->dims[1], hw = (size_t)(x->dims[2] * x->dims[3]);
        for (size_t i = 0; i < n; i++) {
            size_t b = i / (c * hw), k = i / hw % c, at = i % hw;
            ((float *)data)[(b * hw + at) * c + k] = ((const float *)x->data)[i];
        }
        v.dims[1] = x->dims[2];
        v.dims[2] = x->dims[3];
        v.dims[3] = x->dims[1];
    }
    return v;
}

/* How far an output is from the values, as a share of their largest. */
static double far(const ort_value *out, const dr_tensor *want)
{
    size_t n = dr_tensor_count(want);
    float *got = dr_arena_alloc(&arena, n + 1, sizeof(float));
    double worst = 0, most = 1e-9;

    if (!CHECK_EQ_INT(out->bytes, n * dr_dtype_bytes(out->dtype)))
        return 1e9;
    dr_to_f32(got, out->data, out->dtype, n);
    for (size_t i = 0; i < n; i++) {
        double w = (double)((const float *)want->data)[i];
        worst = fmax(worst, fabs((double)got[i] - w));
        most = fmax(most, fabs(w));
    }
    return worst / most;
}

typedef struct {
    size_t number;
    const char *graph, *pass;
    double before, olive; /* olive: negative: not compared */
    st_golden *olives;
} kase;

static void compare(const char *folder, const kase *k)
{
    ort_value in[OUTPUTS], out[OUTPUTS] = {0};
    const char *names[OUTPUTS];
    ort_session *s = NULL;
    size_t inputs = 0, count = 0;
    st_golden g;
    dr_tensor x, want;
    bool optional = false;

    if (!st_golden_open(&g, dr_arena_printf(&arena, REWRITE "%s/x.safetensors", k->graph)))
        return;
    if (!CHECK_OK(ort_session_open(&s, dr_path_join(&arena, folder, "model/model.onnx"), 1,
                                   true)))
        goto done;
    for (; inputs < ort_session_input_count(s) && inputs < OUTPUTS; inputs++) {
        CHECK_OK(ort_session_input(s, inputs, &in[inputs], &optional));
        if (!CHECK(st_golden_find(&g, in[inputs].name, &x)))
            goto done;
        in[inputs] = as_input(&in[inputs], &x);
    }
    for (size_t i = 0; i < ort_session_output_count(s); i++) {
        if (st_golden_find(&g, ort_session_output_name(s, i), &want))
            names[count++] = ort_session_output_name(s, i);
    }
    CHECK(count > 0);
    if (!CHECK_OK(ort_session_run(s, in, inputs, names, out, count)))
        goto done;
    for (size_t i = 0; i < count; i++) {
        CHECK(st_golden_find(&g, names[i], &want));
        if (!CHECK_NEAR(far(&out[i], &want), 0, k->before))
            printf("case %zu: %s on %s, %s: before\n", k->number, k->pass, k->graph,
                   names[i]);
        const char *key = dr_arena_printf(&arena, "%zu.%s", k->number, names[i]);
        if (k->olive < 0)
            continue;
        if (!CHECK(st_golden_find(k->olives, key, &want)) ||
            !CHECK_NEAR(far(&out[i], &want), 0, k->olive))
            printf("case %zu: %s on %s, %s: Olive\n", k->number, k->pass, k->graph,
                   names[i]);
    }
    ort_values_release(out, count);
done:
    ort_session_close(s);
    st_golden_close(&g);
}

static void try_cases(void)
{
    json_t *cases = NULL;
    st_golden olives;
    ort_info info;

    ort_probe(&arena, &info);
    if (!info.ort_found) {
        SKIP("no ONNX Runtime");
        return;
    }
    if (!CHECK_OK(dr_json_read(&cases, REWRITE "cases.json")) ||
        !st_golden_open(&olives, REWRITE "olive.safetensors"))
        return;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i);
        const json_t *near = json_object_get(c, "olive");
        const kase k = {i,
                        json_string_value(json_object_get(c, "graph")),
                        json_string_value(json_object_get(c, "pass")),
                        json_number_value(json_object_get(c, "before")),
                        json_is_number(near) ? json_number_value(near) : -1,
                        &olives};
        const char *to = dr_arena_printf(&arena, "%s/%zu", check_tmp(), i);
        const char *from = dr_arena_printf(&arena, REWRITE "%s", k.graph);
        if (CHECK_OK(run_pass(k.pass, json_object_get(c, "config"), from, to)))
            compare(to, &k);
        else
            printf("case %zu: %s on %s\n", i, k.pass, k.graph);
    }
    st_golden_close(&olives);
    json_decref(cases);
}

/* ---- what is refused ---- */

static void refused(const char *pass, const char *config, const char *graph,
                    const char *why)
{
    json_t *c = json_loads(config, 0, NULL);
    dr_status st = run_pass(pass, c, dr_arena_printf(&arena, REWRITE "%s", graph),
                            dr_path_join(&arena, check_tmp(), "refused"));

    CHECK(st == DR_EUSAGE || st == DR_EUNSUPPORTED || st == DR_EIO);
    if (!CHECK_TRAIL(why))
        printf("%s %s\n", pass, config);
    json_decref(c);
}

static void try_refused(void)
{
    refused("GraphSurgeries", "{\"surgeries\": [{\"surgeon\": \"RenameInput\"}]}", "plain",
            "no surgeon is called RenameInput");
    refused("GraphSurgeries",
            "{\"surgeries\": [{\"surgeon\": \"RemoveInputs\", \"name\": 1}]}", "plain",
            "RemoveInputs has no argument called name");
    refused("GraphSurgeries",
            "{\"surgeries\": [{\"surgeon\": \"RemoveInputs\", \"names\": [\"x\"]}]}",
            "plain", "has no input called x");
    refused("GraphSurgeries",
            "{\"surgeries\": [{\"surgeon\": \"ReorderInputs\", \"permutation\": [0, 0]}]}",
            "text", "each of 0 to 1 once");
    refused("OnnxOpVersionConversion", "{\"target_opset\": 13}", "text",
            "opset 17 already");
    refused("DynamicToFixedShape", "{\"dim_param\": [\"n\"], \"dim_value\": [2]}", "plain",
            "has no dimension called n");
    refused("DynamicToFixedShape", "{\"dim_param\": [\"batch\"]}", "plain", "go together");
    refused("DynamicToFixedShape",
            "{\"input_name\": [\"image\"], \"input_shape\": [[2, 4, 8, 8]]}", "plain",
            "dimension 1 of image is 3, not 4");
    refused("InputNCHWtoNHWC", "{\"input_names\": [\"input_ids\"]}", "text",
            "has 2 dimensions, not N, C, H, W");
    refused("OnnxBlockWiseRtnQuantization", "{\"block_size\": 48}", "text",
            "a power of two");
    refused("OnnxBlockWiseRtnQuantization", "{\"nodes_to_exclude\": [\"lm_head\"]}", "text",
            "has no node called lm_head");
    refused("OnnxHqqQuantization", "{}", "static", "none of its");
    refused("OnnxMatMul4Quantizer", "{\"algorithm\": \"GPTQ\"}", "text",
            "needs activations");
    refused("MatMulNBitsToQDQ", "{}", "text", "none of its 0 MatMulNBits");
    refused("OnnxIODataTypeConverter", "{\"name_pattern\": \"(\"}", "text",
            "is no regular expression");
    refused("OnnxFloatToFloat16", "{\"save_as_external_data\": false}", "text",
            "save_as_external_data false");
    refused("OrtTransformersOptimization", "{\"opt_level\": 99}", "text", "opt_level 99");
    refused("OnnxStaticQuantization", "{\"calibrate_method\": \"Entropy\"}", "text",
            "the nearest is MinMax");
    refused("OnnxStaticQuantization", "{\"quant_format\": \"QOperator\"}", "text",
            "the nearest is QDQ");
    refused("OnnxStaticQuantization", "{}", "plain", "no tokenizer.json");
    refused("VitisAIAddMetaData", "{\"config_meta_data_keys\": [\"model_type\"]}", "text",
            "config_meta_data_keys");
}

/* Files of weights that stay come along; others are written anew, to one. */
static void try_files(void)
{
    json_t *none = json_object();
    const char *to = dr_path_join(&arena, check_tmp(), "files");

    json_t *c = json_pack("{s:s}", "graph_name", "g");
    CHECK_OK(run_pass("AddOliveMetadata", c, REWRITE "text", to));
    CHECK(dr_is_file(dr_path_join(&arena, to, "model/weights.bin")));
    CHECK(!dr_exists(dr_path_join(&arena, to, "model/model.onnx.data")));
    CHECK_OK(run_pass("OnnxFloatToFloat16", none, REWRITE "text", to));
    CHECK(!dr_exists(dr_path_join(&arena, to, "model/weights.bin")));
    CHECK(dr_is_file(dr_path_join(&arena, to, "model/model.onnx.data")));
    json_decref(c);
    json_decref(none);
}

int main(void)
{
    try_cases();
    try_refused();
    try_files();
    dr_arena_release(&arena);
    return check_done();
}
