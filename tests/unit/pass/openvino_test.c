/*
 * openvino_test.c - IRs read without OpenVINO: what OpenVINO itself says of them
 * (tools/oracle/openvino_goldens.py); the graph around one; other names and shapes; files
 * that are no IR.
 */
#include "onnx/onnx.h"
#include "pass/openvino_impl.h"
#include "pass_fixture.h"

#define GOLDEN DRUPE_SOURCE_DIR "/tests/golden/openvino/"

static dr_arena arena;

static void check_value(const pass_ir_value *v, const json_t *want)
{
    static const struct {
        const char *word;
        int type;
    } types[] = {{"f32", 1}, {"i64", 7}};
    const char *word = json_string_value(json_object_get(want, "type"));
    const char *name = json_string_value(json_object_get(want, "name"));
    const json_t *shape = json_object_get(want, "shape");

    for (size_t i = 0; i < DR_COUNT(types); i++)
        if (strcmp(types[i].word, word) == 0)
            CHECK_EQ_INT(v->type, types[i].type);
    CHECK((name == NULL) == (v->name == NULL));
    if (name != NULL && v->name != NULL)
        CHECK_STR(v->name, name);
    if (v->rank < 0) { /* a Result without sizes: of rank 0, or of any */
        CHECK_EQ_INT(json_array_size(shape), 0);
        return;
    }
    CHECK_EQ_INT(v->rank, json_array_size(shape));
    for (int i = 0; i < v->rank; i++)
        CHECK_EQ_INT(v->dims[i], json_integer_value(json_array_get(shape, (size_t)i)));
}

static void check_golden(const char *name)
{
    const char *dir = dr_arena_printf(&arena, GOLDEN "%s", name);
    json_t *says = NULL;
    pass_ir ir;

    if (!CHECK_OK(dr_json_read(&says, dr_path_join(&arena, dir, "says.json"))) ||
        !CHECK_OK(pass_ir_read(&ir, &arena, dr_path_join(&arena, dir, "ov_model.xml"))))
        return;
    const json_t *inputs = json_object_get(says, "inputs");
    const json_t *outputs = json_object_get(says, "outputs");
    CHECK_STR(ir.version, json_string_value(json_object_get(says, "version")));
    CHECK_EQ_INT(ir.input_count, json_array_size(inputs));
    CHECK_EQ_INT(ir.output_count, json_array_size(outputs));
    for (size_t i = 0; i < ir.input_count && i < json_array_size(inputs); i++)
        check_value(&ir.inputs[i], json_array_get(inputs, i));
    for (size_t i = 0; i < ir.output_count && i < json_array_size(outputs); i++)
        check_value(&ir.outputs[i], json_array_get(outputs, i));
    json_decref(says);
}

static void refused(const char *text, const char *says)
{
    pass_ir ir;
    const dr_status st = pass_ir_parse(&ir, &arena, text, strlen(text), "x.xml");

    CHECK(st == DR_EFORMAT || st == DR_EUNSUPPORTED);
    CHECK_STR(dr_trail_get()->frames[0].text, says);
}

#define LAYER(inner) "<net><layers><layer id=\"0\" name=\"x\" " inner "</layers></net>"
#define RESULT                                                                             \
    "<layer id=\"1\" type=\"Result\"><input><port precision=\"FP32\"/></input></layer>"

static void no_ir(void)
{
    refused("", "x.xml:1: no OpenVINO IR: there is no element in it");
    refused("<nets/>", "x.xml:1: no OpenVINO IR: its root is not <net>");
    refused("<net>\n<layers>", "x.xml:2: no OpenVINO IR: it ends before its elements do");
    refused("<net></layers>", "x.xml:1: no OpenVINO IR: an element ends that is not open");
    refused("<net", "x.xml:1: no OpenVINO IR: a tag has no end");
    refused("<net a=\">", "x.xml:1: no OpenVINO IR: a tag has no end");
    refused("<!-- ", "x.xml:1: no OpenVINO IR: a comment has no end");
    refused("<?xml ", "x.xml:1: no OpenVINO IR: an instruction has no end");
    refused("<!DOCTYPE net [<!ENTITY a \"b\">]><net/>",
            "x.xml:1: no OpenVINO IR: it has a document type");
    refused("<net></net>", "x.xml:1: no OpenVINO IR: it has no Result");
    refused(LAYER("type=\"Parameter\"><data element_type=\"f32\"/></layer>"),
            "x.xml:1: no OpenVINO IR: a Parameter without a shape");
    refused(LAYER("type=\"Parameter\"><data shape=\"1\" element_type=\"u1\"/></layer>"),
            "x.xml: the input x has the type u1, which ONNX does not have");
    refused(LAYER("type=\"Parameter\"/>" RESULT),
            "x.xml:1: no OpenVINO IR: an input or output without a type");
    char deep[1024] = "", *p = deep;
    for (int i = 0; i < 70; i++, p += 5)
        memcpy(p, "<net>", 6);
    refused(deep, "x.xml:1: no OpenVINO IR: elements too deep, or a name too long");
}

/* ---- passes ---- */

static const pass_model *golden(const char *name)
{
    pass_model *m = dr_arena_alloc(&arena, 1, sizeof(*m));
    const char *dir = dr_arena_printf(&arena, GOLDEN "%s", name);

    *m = (pass_model){
        .kind = PASS_MODEL_OPENVINO, .path = dir, .file = "ov_model.xml", .name = dir};
    return m;
}

static json_t *parsed(const char *text)
{
    json_t *j = NULL;

    CHECK_OK(dr_json_parse(&j, text, strlen(text), "config"));
    return j;
}

static dr_status run(pass_model *out, const char *pass, const char *config,
                     const pass_model *in, const char *to)
{
    json_t *j = parsed(config);
    const dr_status st = run_pass_on(&arena, out, pass, j, in, in_tmp(&arena, to));

    json_decref(j);
    return st;
}

static void encapsulated(void)
{
    pass_model out;
    onnx_info info = {0};

    if (!CHECK_OK(run(&out, "OpenVINOEncapsulation", "{\"target_device\": \"npu\"}",
                      golden("plain"), "wrapped")) ||
        !CHECK_OK(
            onnx_inspect(&arena, &info, dr_path_join(&arena, out.path, "model.onnx"))))
        return;
    CHECK_EQ_INT(out.kind, PASS_MODEL_ONNX);
    CHECK_EQ_INT(info.ir_version, 10);
    CHECK_EQ_INT(info.opset_count, 9);
    CHECK_EQ_INT(info.op_count, 1);
    CHECK_STR(info.ops[0], "com.microsoft.EPContext");
    CHECK_EQ_INT(info.input_count, 3);
    CHECK_EQ_INT(info.output_count, 4);
    CHECK_STR(info.inputs[0], "zeta float32[input_0_0,4]");
    CHECK_STR(info.inputs[2], "mask int64[1,input_2_1]");
    CHECK_STR(info.outputs[2], "sum, <a>&b float32[output_2_0,3]");
    CHECK(strstr(out.attributes, "\"device\":\"NPU\"") != NULL);
    CHECK(dr_is_file(dr_path_join(&arena, out.path, "ov_model.xml")));
    CHECK(dr_is_file(dr_path_join(&arena, out.path, "ov_model.bin")));
    CHECK(!dr_is_file(dr_path_join(&arena, out.path, "genai_config.json")));
    CHECK_EQ_INT(run(&out, "OpenVINOEncapsulation", "{}", golden("bare"), "no"), DR_EUSAGE);
    CHECK_STR(dr_trail_get()->frames[0].text, "input 0 of the IR (zeta) has no name");
    CHECK_EQ_INT(run(&out, "OpenVINOEncapsulation", "{\"opset_imports\": [[\"\", 11]]}",
                     golden("plain"), "no"),
                 DR_EUSAGE);
    CHECK_EQ_INT(run(&out, "OpenVINOEncapsulation",
                     "{\"genai_config_override\": {\"search\": {\"top_k\": 5}}}",
                     golden("plain"), "no"),
                 DR_EUSAGE);
}

/* A generating model: what is beside the IR says so. */
static void generating(void)
{
    static const char config[] =
        "{\"model_type\": \"llama\", \"bos_token_id\": 1, \"max_position_embeddings\": 64,"
        " \"hidden_size\": 32, \"num_attention_heads\": 4, \"num_hidden_layers\": 2,"
        " \"num_key_value_heads\": 2, \"vocab_size\": 128}";
    static const char generation[] = "{\"eos_token_id\": [7, 9]}";
    const char *dir = in_tmp(&arena, "llm");
    const char *const files[] = {"ov_model.xml", "ov_model.bin"};
    const pass_model *plain = golden("plain");
    pass_model in = *plain, out;
    json_t *genai = NULL;

    CHECK_OK(dr_make_dirs(dir));
    for (size_t i = 0; i < DR_COUNT(files); i++)
        CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, files[i]),
                              dr_path_join(&arena, plain->path, files[i])));
    CHECK_OK(
        dr_write_file(dr_path_join(&arena, dir, "config.json"), config, strlen(config)));
    CHECK_OK(dr_write_file(dr_path_join(&arena, dir, "generation_config.json"), generation,
                           strlen(generation)));
    in.path = dir;
    if (!CHECK_OK(run(&out, "OpenVINOEncapsulation",
                      "{\"genai_config_override\": {\"search\": {\"top_k\": 5}}}", &in,
                      "wrapped-llm")) ||
        !CHECK_OK(
            dr_json_read(&genai, dr_path_join(&arena, out.path, "genai_config.json"))))
        return;
    const json_t *model = json_object_get(genai, "model");
    const json_t *decoder = json_object_get(model, "decoder");
    CHECK_STR(json_string_value(json_object_get(model, "type")), "llama");
    CHECK_STR(json_string_value(json_object_get(decoder, "filename")), "model.onnx");
    CHECK_EQ_INT(json_integer_value(json_object_get(decoder, "head_size")), 8);
    CHECK_EQ_INT(json_integer_value(json_object_get(model, "pad_token_id")), 7);
    CHECK_EQ_INT(json_object_size(json_object_get(decoder, "inputs")), 3);
    CHECK_EQ_INT(
        json_integer_value(json_object_get(json_object_get(genai, "search"), "top_k")), 5);
    json_decref(genai);
    CHECK_EQ_INT(run(&out, "OpenVINOEncapsulation",
                     "{\"genai_config_override\": {\"search\": {\"top_kk\": 5}}}", &in,
                     "no"),
                 DR_EUSAGE);
    CHECK_STR(dr_trail_get()->frames[0].text,
              "genai_config_override.search.top_kk: genai_config.json has no such member");
}

static void updated(void)
{
    pass_model out;
    pass_ir ir;

    if (CHECK_OK(run(&out, "OpenVINOIoUpdate",
                     "{\"static\": true, \"input_shapes\": [[2, 4], [3], [1, 9]],"
                     " \"input_names\": [\"a<b\", \"b&c\\\"\", \"m\"]}",
                     golden("plain"), "st")) &&
        CHECK_OK(pass_ir_read(&ir, &arena, dr_path_join(&arena, out.path, out.file)))) {
        CHECK_STR(out.file, "ov_model_st.xml");
        CHECK_STR(ir.inputs[0].name, "a<b");
        CHECK_STR(ir.inputs[1].name, "b&c\"");
        CHECK_EQ_INT(ir.inputs[0].dims[0], 2);
        CHECK_EQ_INT(ir.inputs[2].dims[1], 9);
        CHECK_STR(ir.outputs[2].name, "sum, <a>&b");
        CHECK(dr_is_file(dr_path_join(&arena, out.path, "ov_model_st.bin")));
    }
    if (CHECK_OK(run(&out, "OpenVINOIoUpdate", "{}", golden("bare"), "dy")) &&
        CHECK_OK(pass_ir_read(&ir, &arena, dr_path_join(&arena, out.path, out.file)))) {
        CHECK_STR(out.file, "ov_model_dy.xml");
        CHECK_STR(ir.inputs[2].name, "input_2");
        CHECK_STR(ir.outputs[3].name, "output_3");
    }
    static const struct {
        const char *config, *says;
    } bad[] = {
        {"{\"input_names\": [\"a\"]}", "input_names: 1 names, and the model has 3 inputs"},
        {"{\"input_names\": [\"a\", \"b\", \"a\"]}", "input_names: a is there twice"},
        {"{\"static\": true}", "static true needs input_shapes"},
        {"{\"input_shapes\": [[1]]}", "input_shapes are set with static true"},
        {"{\"static\": true, \"input_shapes\": [[1]]}",
         "input_shapes: 1 shapes, and the model has 3 inputs"},
        {"{\"static\": true, \"input_shapes\": [[2], [3], [1, 9]]}",
         "input_shapes: zeta has 2 sizes, found 1"},
        {"{\"static\": true, \"input_shapes\": [[2, 5], [3], [1, 9]]}",
         "input_shapes: size 1 of zeta is 4, found 5"},
        {"{\"static\": true, \"input_shapes\": [[2, \"x\"]]}",
         "input_shapes[0][1]: expected a size or -1"}};
    for (size_t i = 0; i < DR_COUNT(bad); i++) {
        CHECK_EQ_INT(run(&out, "OpenVINOIoUpdate", bad[i].config, golden("plain"), "no"),
                     DR_EUSAGE);
        CHECK_STR(dr_trail_get()->frames[0].text, bad[i].says);
    }
}

int main(void)
{
    check_golden("plain");
    check_golden("loop");
    check_golden("old");
    check_golden("bare");
    no_ir();
    encapsulated();
    generating();
    updated();
    dr_arena_release(&arena);
    return check_done();
}
