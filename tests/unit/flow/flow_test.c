/*
 * flow_test.c - the engine: what it refuses before it begins, what it leaves behind.
 */
#include "flow_fixture.h"

static dr_arena arena;

static void refused(const char *pass, const char *config, flow_spec o, dr_status want,
                    const char *text)
{
    o.output = in_tmp(&arena, "refused");
    CHECK_STATUS(run_pass(pass, config, o), want);
    CHECK_TRAIL(text);
    nothing_at(&arena, o.output);
}

static void test_plan(void)
{
    const flow_spec o = {0};

    refused("Rnt", NULL, o, DR_EUSAGE, "no pass is called Rnt");
    CHECK_TRAIL("did you mean Rtn?");
    refused("rtn", "{\"group_siz\": 32}", o, DR_EUSAGE, "Rtn: unknown key \"group_siz\"");
    CHECK_TRAIL("did you mean \"group_size\"?");
    refused("Rtn", "{\"group_size\": \"32\"}", o, DR_EUSAGE,
            "Rtn: group_size: expected an integer, found a string");
    refused("Rtn", "{\"sym\": 1}", o, DR_EUSAGE, "expected true or false");
    refused("Rtn", "{\"bits\": 5}", o, DR_EUSAGE, "bits: expected 2, 3, 4 or 8, found 5");
    refused("Rtn", "[]", o, DR_EUSAGE, "expected an object of parameters, found an array");
    refused("Rtn", "{\"group_size\": 0}", o, DR_EUSAGE, "a power of two from 16 to 1024");
    refused("Rtn", "{\"group_size\": 48}", o, DR_EUSAGE, "found 48");
    refused("Gptq", "{\"group_size\": 8}", o, DR_EUSAGE, "found 8");
    refused("AutoAWQQuantizer", "{\"q_group_size\": 100}", o, DR_EUSAGE, "q_group_size");
    refused("Gptq", "{\"data_config\": \"x\"}", o, DR_EUSAGE, "not supported yet");
    refused("ModelBuilder", "{\"int4_block_size\": 48}", o, DR_EUSAGE,
            "expected 16, 32, 64, 128 or 256");
    refused("ModelBuilder", "{\"int4_accuracy_level\": 3}", o, DR_EUSAGE,
            "no CPU kernel has");
    refused("ModelBuilder", "{\"precision\": \"fp16\"}", o, DR_EUSAGE,
            "precision fp16 for CPUExecutionProvider");
    CHECK_TRAIL("it takes fp32, int8, int4, int2");
    refused("ModelBuilder", "{\"precision\": \"int3\"}", o, DR_EUSAGE, "found \"int3\"");
    refused("ModelBuilder", "{\"provider\": \"QNNExecutionProvider\"}", o, DR_EUSAGE,
            "NpuModelBuilder makes them");
    refused("ModelBuilder", "{\"provider\": \"dml\", \"device\": \"cpu\"}", o, DR_EUSAGE,
            "DmlExecutionProvider runs on a gpu");
    refused("ModelBuilder",
            "{\"precision\": \"int4\", \"extra_options\": {\"blocksize\": 64}}", o,
            DR_EUSAGE, "extra_options: unknown key \"blocksize\"");
    CHECK_TRAIL("did you mean \"block_size\"?");
    refused("ModelBuilder",
            "{\"precision\": \"int4\", \"int4_block_size\": 64, "
            "\"extra_options\": {\"block_size\": 64}}",
            o, DR_EUSAGE, "block_size is given twice");
    refused("ModelBuilder",
            "{\"precision\": \"int4\", \"int4_op_types_to_quantize\": [\"Conv\"]}", o,
            DR_EUSAGE, "expected MatMul or Gather, found \"Conv\"");
    refused("ModelBuilder",
            "{\"precision\": \"int4\", \"int4_algo_config\": \"k_quant\", "
            "\"int4_is_symmetric\": true}",
            o, DR_EUSAGE, "k_quant always has zero points");
    refused("ModelBuilder",
            "{\"precision\": \"int4\", \"int4_algo_config\": \"k_quant_last\", "
            "\"matmul_mixed_precision\": \"mixed_layers:int8\"}",
            o, DR_EUSAGE, "k_quant_last says it already");
    refused("ModelBuilder", "{\"use_cuda_bf16\": true}", o, DR_EUSAGE,
            "the provider is CPU");
    refused("ModelBuilder",
            "{\"provider\": \"cuda\", \"precision\": \"int4\", \"int4_accuracy_level\": 4}",
            o, DR_EUSAGE, "has one way to compute");
    refused("ModelBuilder", "{\"max_length\": 64}", o, DR_EUSAGE,
            "no effect without use_ort_genai");
    refused("ModelBuilder", "{\"precision\": \"fp32\", \"int4_block_size\": 64}", o,
            DR_EUSAGE, "int4_block_size has no effect");
    refused("ModelBuilder", "{\"int4_accuracy_level\": 1}", o, DR_EUSAGE,
            "int4_accuracy_level has no effect"); /* the tiny model is plain: fp32 */
    refused("ModelBuilder", "{\"min_ort_version\": \"2\"}", o, DR_EUSAGE,
            "expected such as 1.20");
    refused("ModelBuilder", "{\"min_ort_version\": \"1.19\"}", o, DR_EUSAGE,
            "1.20 is the oldest");
    refused("LoRA", "{\"warmup_steps\": 3}", o, DR_EUSAGE,
            "no effect with lr_scheduler_type constant");
    refused("LoRA", "{\"max_steps\": 3, \"num_train_epochs\": 2}", o, DR_EUSAGE,
            "no effect with max_steps 3");
    refused("LoRA", "{\"max_steps\": 0}", o, DR_EUSAGE, "0 trains nothing");
    refused("LoRA", NULL, o, DR_EUSAGE, "training needs data_name and data_files");
}

static void test_data_options(void)
{
    refused("Rtn", NULL, (flow_spec){.data = {.max_samples = 3}}, DR_EUSAGE,
            "Rtn reads no data");
    refused("ModelBuilder", NULL, (flow_spec){.data = {.text_field = "x"}}, DR_EUSAGE,
            "ModelBuilder reads no data");
    refused("LoRA", NULL,
            (flow_spec){.data = {.data_name = "json", .data_files = "no/such"}}, DR_EIO,
            "no/such: no such file");
    refused("Gptq", NULL, (flow_spec){.data = {.data_files = "no/such"}}, DR_EUSAGE,
            "data_files needs data_name");
}

/* A plan: nothing is made, and the workflow is there; a config beside a result. */
static void test_workflow(void)
{
    json_t *config = json_of("{\"group_size\": 32}"), *saved = NULL;
    const flow_step steps[] = {{"Rtn", config}, {"ModelBuilder", NULL}};
    flow_spec o = {.model = TINY,
                   .output = in_tmp(&arena, "planned"),
                   .steps = steps,
                   .step_count = 2,
                   .dry_run = true};
    flow_result r;

    if (CHECK_OK(flow_run(&r, &o))) {
        const json_t *passes =
            json_object_get(json_object_get(r.report, "workflow"), "passes");
        CHECK(r.model_path == NULL);
        CHECK_EQ_INT(json_object_size(passes), 2);
        CHECK_EQ_INT(json_integer_value(
                         json_object_get(json_object_get(passes, "rtn"), "group_size")),
                     32);
        CHECK_EQ_INT(json_object_size(json_object_get(passes, "modelbuilder")), 1);
        nothing_at(&arena, o.output);
    }
    flow_result_release(&r);
    o.dry_run = false;
    o.save_config = true;
    o.step_count = 1;
    CHECK_OK(flow_run(&r, &o));
    flow_result_release(&r);
    if (CHECK_OK(dr_json_read(&saved, dr_path_join(&arena, o.output, "config.json"))))
        CHECK_STR(json_string_value(
                      json_object_get(json_object_get(saved, "input_model"), "model_path")),
                  TINY);
    json_decref(saved);
    json_decref(config);
}

static void test_kinds(void)
{
    const flow_step steps[] = {{"ModelBuilder", NULL}, {"Rtn", NULL}};
    const flow_spec o = {
        .model = TINY, .output = in_tmp(&arena, "kinds"), .steps = steps, .step_count = 2};
    flow_result r;

    CHECK_STATUS(flow_run(&r, &o), DR_EUSAGE);
    CHECK_TRAIL("Rtn takes a Hugging Face model, and ModelBuilder before it gives an ONNX");
    flow_result_release(&r);
    nothing_at(&arena, o.output);
}

/* What a run leaves: model, drupe.json, Olive's model_config.json; the same each time. */
static void test_result(void)
{
    const char *out = in_tmp(&arena, "rtn"), *text = NULL;
    char *copy = copy_tiny(&arena, "copy");
    json_t *j = NULL;

    CHECK_OK(run_pass("Rtn", "{\"group_size\": 32}", (flow_spec){.output = out}));
    const char *first = tree_of(&arena, out);
    CHECK(strstr(first, "/model/model.safetensors ") != NULL);
    CHECK(strstr(first, "/model/config.json ") != NULL);
    CHECK(!dr_exists(dr_arena_printf(&arena, "%s.tmp", out)));

    CHECK_OK(dr_json_read(&j, dr_path_join(&arena, out, "model_config.json")));
    CHECK_OK(dr_json_str(j, "type", &text, "model_config.json"));
    CHECK_STR(text, "HfModel");
    CHECK_OK(
        dr_json_str(dr_json_get(j, "config"), "model_path", &text, "model_config.json"));
    CHECK_STR(text, "model");
    json_decref(j);

    /* again, for any number of threads, from the same content elsewhere, over itself */
    CHECK_OK(run_pass("Rtn", "{\"group_size\": 32}",
                      (flow_spec){.model = copy, .output = out, .threads = 3}));
    CHECK_STR(tree_of(&arena, out), first);
    CHECK_OK(run_pass("Rtn", "{\"group_size\": 16}", (flow_spec){.output = out}));
    CHECK(strcmp(tree_of(&arena, out), first) != 0);
}

static const char *fingerprint(const char *dir)
{
    const char *path = dr_path_join(&arena, dir, "drupe.json"), *text = NULL;
    json_t *j = NULL;

    CHECK_OK(dr_json_read(&j, path));
    CHECK_OK(dr_json_str(j, "input_fingerprint", &text, path));
    text = dr_arena_strdup(&arena, text != NULL ? text : "");
    json_decref(j);
    return text;
}

/* Content counts, not names or places. */
static void test_fingerprint(void)
{
    char *copy = copy_tiny(&arena, "print-in");
    const char *out = in_tmp(&arena, "print");
    const char *path = dr_path_join(&arena, copy, "model.safetensors");
    dr_buf b;

    dr_buf_init(&b, 1 << 20);
    CHECK_OK(run_pass("Rtn", NULL, (flow_spec){.output = out}));
    const char *first = fingerprint(out);
    CHECK_EQ_INT(strlen(first), 64);
    CHECK_OK(run_pass("Rtn", NULL, (flow_spec){.model = copy, .output = out}));
    CHECK_STR(fingerprint(out), first);
    CHECK_OK(dr_read_file(&b, path));
    b.data[b.len - 1] ^= 1;
    CHECK_OK(dr_write_file(path, b.data, b.len));
    CHECK_OK(run_pass("Rtn", NULL, (flow_spec){.model = copy, .output = out}));
    CHECK(strcmp(fingerprint(out), first) != 0);
    dr_buf_release(&b);
}

static void test_two_steps(void)
{
    json_t *group = json_of("{\"group_size\": 16}");
    const flow_step steps[] = {{"Rtn", group}, {"ModelBuilder", NULL}};
    const flow_spec o = {.model = TINY,
                         .output = in_tmp(&arena, "two/steps/"),
                         .steps = steps,
                         .step_count = 2};
    flow_result r;

    if (CHECK_OK(flow_run(&r, &o))) {
        const char *tree = tree_of(&arena, o.output);
        CHECK(strstr(tree, "/model/model.onnx ") != NULL);
        CHECK(strstr(tree, "step-") == NULL);
        CHECK(strstr(tree, "safetensors") == NULL);
        CHECK_STR(r.model_path, in_tmp(&arena, "two/steps/model"));
        CHECK(r.adapter_path == NULL);
    }
    flow_result_release(&r);
    json_decref(group);
}

/* Folders that are not drupe's stay as they are. */
static void test_output(void)
{
    const char *mine = in_tmp(&arena, "mine"), *file = in_tmp(&arena, "file");

    CHECK_OK(dr_make_dirs(mine));
    CHECK_OK(dr_write_file(dr_path_join(&arena, mine, "thesis.txt"), "text", 4));
    const char *before = tree_of(&arena, mine);
    CHECK_STATUS(run_pass("Rtn", NULL, (flow_spec){.output = mine}), DR_EUSAGE);
    CHECK_TRAIL("not made by drupe");
    CHECK_STR(tree_of(&arena, mine), before);
    /* ... and are refused before the model is looked for */
    CHECK_STATUS(run_pass("Rtn", NULL, (flow_spec){.model = "no/model", .output = mine}),
                 DR_EUSAGE);
    CHECK_TRAIL("not made by drupe");
    CHECK_OK(dr_write_file(file, "x", 1));
    CHECK_STATUS(run_pass("Rtn", NULL, (flow_spec){.output = file}), DR_EUSAGE);
    CHECK_TRAIL("is a file");
    CHECK_STATUS(run_pass("Rtn", NULL, (flow_spec){.output = in_tmp(&arena, "mine/.")}),
                 DR_EUSAGE);
    CHECK_TRAIL("cannot be replaced");
}

int main(void)
{
    test_plan();
    test_data_options();
    test_kinds();
    test_workflow();
    test_result();
    test_fingerprint();
    test_two_steps();
    test_output();
    dr_arena_release(&arena);
    return check_done();
}
