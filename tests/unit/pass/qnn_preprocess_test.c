/*
 * qnn_preprocess_test.c - QNNPreprocess against onnxruntime's own
 * (tools/oracle/qnn_preprocess_goldens.py): the same operators, inputs and outputs; and
 * what the graph gives is what it gave.
 */
#include "onnx/onnx.h"
#include "ort/ort.h"
#include "pass_fixture.h"

#define GOLDEN DRUPE_SOURCE_DIR "/tests/golden/qnn-preprocess/"
enum { OUTPUTS = 2, ELEMENTS = 1024 };

static dr_arena arena;

static void check_ports(const char *const *got, size_t count, const json_t *want)
{
    CHECK_EQ_INT(count, json_array_size(want));
    for (size_t i = 0; i < count && i < json_array_size(want); i++)
        CHECK_STR(got[i], json_string_value(json_array_get(want, i)));
}

static void check_graph(const char *graph, const json_t *c)
{
    const json_t *ops = json_object_get(c, "ops");
    onnx_info info = {0};

    if (!CHECK_OK(onnx_inspect(&arena, &info, graph)))
        return;
    CHECK_EQ_INT(info.op_count, json_object_size(ops));
    for (size_t i = 0; i < info.op_count; i++)
        if (!CHECK_EQ_INT(info.op_counts[i],
                          json_integer_value(json_object_get(ops, info.ops[i]))))
            (void)printf("  %s\n", info.ops[i]);
    check_ports(info.inputs, info.input_count, json_object_get(c, "inputs"));
    check_ports(info.outputs, info.output_count, json_object_get(c, "outputs"));
}

/* ---- running it ---- */

/* values, which are [N, C, ...] in memory, with the channels last; back: the other way. */
static void channels(float *out, const float *values, const int64_t *dims, int rank,
                     bool back)
{
    size_t n = (size_t)dims[0], c = (size_t)dims[back ? rank - 1 : 1], rest = 1;

    for (int d = 1; d < rank; d++)
        rest *= (size_t)dims[d];
    rest /= c;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < c; k++)
            for (size_t r = 0; r < rest; r++) {
                const size_t first = (i * c + k) * rest + r, last = (i * rest + r) * c + k;
                out[back ? first : last] = values[back ? last : first];
            }
}

static bool is_last(const json_t *config, const char *key, const char *name)
{
    const json_t *list = json_object_get(config, key);

    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_string_value(json_array_get(list, i)), name) == 0)
            return true;
    return false;
}

/* Outputs with their channels first. */
static size_t run_graph(float (*y)[ELEMENTS], const char *graph, const json_t *config)
{
    static float x[ELEMENTS], moved[ELEMENTS];
    const char *names[OUTPUTS];
    ort_value in = {0}, out[OUTPUTS] = {0};
    ort_session *s = NULL;
    bool optional = false;
    size_t count = 0, n = 1;

    if (!CHECK_OK(ort_session_open(&s, graph, 1, false)) ||
        !CHECK_OK(ort_session_input(s, 0, &in, &optional)))
        goto done;
    for (int d = 0; d < in.ndim; d++)
        n *= (size_t)in.dims[d];
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(i * 37 % 101) / 20 - 2.5F;
    in.data = x;
    in.bytes = n * sizeof(float);
    if (is_last(config, "inputs_to_make_channel_last", in.name)) {
        const int64_t first[] = {in.dims[0], in.dims[3], in.dims[1], in.dims[2]};
        channels(moved, x, first, in.ndim, false);
        in.data = moved;
    }
    while (count < ort_session_output_count(s) && count < OUTPUTS) {
        names[count] = ort_session_output_name(s, count);
        count++;
    }
    if (!CHECK_OK(ort_session_run(s, &in, 1, names, out, count))) {
        count = 0;
        goto done;
    }
    for (size_t i = 0; i < count; i++)
        if (is_last(config, "outputs_to_make_channel_last", names[i]))
            channels(y[i], out[i].data, out[i].dims, out[i].ndim, true);
        else
            memcpy(y[i], out[i].data, out[i].bytes);
    ort_values_release(out, count);
done:
    ort_session_close(s);
    return count;
}

static void check_case(const json_t *c)
{
    static float before[OUTPUTS][ELEMENTS], after[OUTPUTS][ELEMENTS];
    const char *from = dr_arena_printf(&arena, GOLDEN "%s",
                                       json_string_value(json_object_get(c, "graph")));
    const pass_model in = {.kind = PASS_MODEL_ONNX, .path = from, .name = from};
    const json_t *config = json_object_get(c, "config");
    const char *graph = dr_path_join(&arena, from, "model.onnx");
    pass_model out;

    (void)memset(before, 0, sizeof(before));
    (void)memset(after, 0, sizeof(after));
    if (!CHECK_OK(run_pass_on(&arena, &out, "QNNPreprocess", config, &in,
                              in_tmp(&arena, "made"))))
        return;
    const char *made = dr_path_join(&arena, out.path, "model.onnx");
    check_graph(made, c);
    const size_t count = run_graph(before, graph, NULL);
    CHECK(count > 0);
    CHECK_EQ_INT(run_graph(after, made, config), count);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < ELEMENTS; k++)
            CHECK_NEAR(after[i][k], before[i][k], 1e-5);
}

static void refused(const char *config, const char *says)
{
    const pass_model in = {.kind = PASS_MODEL_ONNX, .path = GOLDEN "gelu", .name = "gelu"};
    json_t *j = NULL;
    pass_model out;

    CHECK_OK(dr_json_parse(&j, config, strlen(config), "config"));
    CHECK_EQ_INT(run_pass_on(&arena, &out, "QNNPreprocess", j, &in, in_tmp(&arena, "no")),
                 DR_EUSAGE);
    CHECK(strstr(dr_trail_get()->frames[0].text, says) != NULL);
    json_decref(j);
}

int main(void)
{
    json_t *cases = NULL;
    ort_info info = {0};

    ort_probe(&arena, &info);
    if (!info.ort_found) {
        SKIP("no runtime");
        return check_done();
    }
    if (CHECK_OK(dr_json_read(&cases, GOLDEN "cases.json")))
        for (size_t i = 0; i < json_array_size(cases); i++)
            check_case(json_array_get(cases, i));
    json_decref(cases);
    refused("{\"fuse_layernorm\": true}",
            "LayerNormalization is of opset 17, the graph has 13");
    refused("{\"inputs_to_make_channel_last\": [\"y\"]}", "has no input called y");
    refused("{\"inputs_to_make_channel_last\": [\"x\"]}",
            "input x has 2 dimensions, not N, C and others");
    refused("{\"outputs_to_make_channel_last\": [\"x\"]}", "has no output called x");
    dr_arena_release(&arena);
    return check_done();
}
