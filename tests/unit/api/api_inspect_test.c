/*
 * api_inspect_test.c - every kind of folder and file that a model comes in, and others.
 */
#include "api_fixture.h"

static dr_arena arena;

static json_t *inspect(const char *path)
{
    drupe_result *r = NULL;
    json_t *j = NULL;

    if (CHECK_DRUPE(drupe_inspect(&r, path), DRUPE_OK))
        j = report_of(r);
    drupe_result_free(r);
    return j;
}

static void fails(const char *path, drupe_status want, const char *text)
{
    drupe_result *r = NULL;

    CHECK_DRUPE(drupe_inspect(&r, path), want);
    CHECK_ERROR(text);
    CHECK(r == NULL);
}

static void run(const char *pass, const char *model, const char *out)
{
    const drupe_pass step = {pass, NULL};
    const drupe_job job = {.model = model,
                           .output = out,
                           .adapters = pass[0] == 'M' ? "travel=" ADAPTER : NULL,
                           .passes = &step,
                           .pass_count = 1};
    drupe_result *r = NULL;

    CHECK_DRUPE(drupe_run(&r, &job), DRUPE_OK);
    drupe_result_free(r);
}

static void test_models(void)
{
    const char *out = in_tmp(&arena, "rtn");
    json_t *j = inspect(TINY);

    CHECK_STR(text_at(j, "kind"), "Hugging Face model");
    CHECK_STR(text_at(j, "architecture"), "LlamaForCausalLM");
    CHECK_EQ_INT(int_at(j, "layers"), 2);
    CHECK_EQ_INT(int_at(j, "vocabulary"), 128);
    CHECK(json_object_get(j, "quantization") == NULL);
    json_decref(j);

    run("Rtn", TINY, out);
    j = inspect(out);
    CHECK_STR(text_at(j, "quantization"), "4 bits, group 32, zero points");
    CHECK_STR(json_string_value(json_array_get(json_object_get(j, "made_by"), 0)), "Rtn");
    json_decref(j);
}

/* The tiny Llama with other rotations, and a Phi-3, by the words that inspect has. */
static void test_ropes(void)
{
    static const char *const kinds[] = {"default", "linear", "llama3", "yarn"};
    const char *dir = in_tmp(&arena, "rope"), *file = in_tmp(&arena, "rope/config.json");
    json_t *config = NULL;

    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(
        dr_copy_file(in_tmp(&arena, "rope/model.safetensors"), TINY "/model.safetensors"));
    CHECK_OK(dr_json_read(&config, TINY "/config.json"));
    for (size_t i = 0; i < DR_COUNT(kinds); i++) {
        char want[64];
        (void)json_object_set_new(config, "rope_parameters",
                                  json_pack("{s:s, s:f, s:f, s:f, s:f, s:i}", "rope_type",
                                            kinds[i], "rope_theta", 10000.0, "factor", 4.0,
                                            "low_freq_factor", 1.0, "high_freq_factor", 4.0,
                                            "original_max_position_embeddings", 32));
        CHECK_OK(dr_json_write(file, config));
        json_t *j = inspect(dir);
        (void)snprintf(want, sizeof(want), "%s, theta 10000", kinds[i]);
        CHECK_STR(text_at(j, "rope"), want);
        json_decref(j);
    }
    json_decref(config);
    json_t *j = inspect(DRUPE_SOURCE_DIR "/tests/golden/hf/phi3");
    CHECK_STR(text_at(j, "rope"), "longrope, theta 10000");
    json_decref(j);
}

static void test_onnx(void)
{
    const char *out = in_tmp(&arena, "onnx");
    const char *places[] = {out, in_tmp(&arena, "onnx/model"),
                            in_tmp(&arena, "onnx/model/model.onnx")};

    run("ModelBuilder", TINY, out);
    for (size_t i = 0; i < DR_COUNT(places); i++) {
        json_t *j = inspect(places[i]);
        CHECK_STR(text_at(j, "kind"), "ONNX model");
        CHECK(int_at(json_object_get(j, "operators"), "MatMul") > 0);
        CHECK(json_array_size(json_object_get(j, "inputs")) > 2);
        if (i < 2)
            CHECK_STR(json_string_value(json_array_get(json_object_get(j, "adapters"), 0)),
                      "travel.onnx_adapter");
        json_decref(j);
    }
}

static void test_adapters(void)
{
    json_t *j = inspect(ADAPTER);

    CHECK_STR(text_at(j, "kind"), "LoRA adapter (PEFT)");
    CHECK_EQ_INT(int_at(j, "rank"), 4);
    long long modules = int_at(j, "modules");
    CHECK_EQ_INT(modules, 6);
    json_decref(j);

    j = inspect(in_tmp(&arena, "onnx/model/travel.onnx_adapter"));
    CHECK_STR(text_at(j, "kind"), "ONNX Runtime adapter");
    CHECK_EQ_INT(int_at(j, "parameters"), 2 * modules);
    const json_t *list = json_object_get(j, "tensor_list");
    CHECK_EQ_INT(json_array_size(list), 2 * modules);
    const char *first = json_string_value(json_array_get(list, 0));
    CHECK(first != NULL && strncmp(first, "F32 [", 5) == 0 &&
          strstr(first, "lora_") != NULL);
    json_decref(j);

    j = inspect(ADAPTER "/adapter_model.safetensors");
    CHECK_STR(text_at(j, "kind"), "safetensors file");
    CHECK_EQ_INT(int_at(j, "tensors"), 2 * modules);
    json_decref(j);
}

/* Each prefix and many flipped bytes of a file: an error or an answer, never more. */
static void test_broken(const char *path, const char *copy)
{
    drupe_result *r = NULL;
    dr_buf b;

    dr_buf_init(&b, 8 << 20);
    CHECK_OK(dr_read_file(&b, path));
    size_t step = b.len / 64 + 1, whole = 0;
    for (size_t n = 0; n < b.len; n += n < 600 ? 1 : step) {
        CHECK_OK(dr_write_file(copy, b.data, n));
        whole += drupe_inspect(&r, copy) == DRUPE_OK;
        drupe_result_free(r);
    }
    for (size_t i = 0; i < 400 && i < b.len; i++) {
        char was = b.data[i];
        b.data[i] = (char)(was ^ (i % 2 ? 0x80 : 0xff));
        CHECK_OK(dr_write_file(copy, b.data, b.len));
        (void)drupe_inspect(&r, copy);
        drupe_result_free(r);
        b.data[i] = was;
    }
    CHECK_OK(dr_write_file(copy, b.data, 4));
    CHECK(drupe_inspect(&r, copy) == DRUPE_EFORMAT);
    CHECK(whole < b.len);
    dr_buf_release(&b);
}

static void test_errors(void)
{
    const char *file = in_tmp(&arena, "x.safetensors"), *empty = in_tmp(&arena, "empty");

    fails(in_tmp(&arena, "none.onnx"), DRUPE_EIO, "none.onnx");
    CHECK_OK(dr_write_file(file, "short", 5));
    fails(file, DRUPE_EFORMAT, "not a safetensors file");
    CHECK_OK(dr_write_file(file, "\x08\0\0\0\0\0\0\0[1,2,3]\n", 16));
    fails(file, DRUPE_EFORMAT, "the header is an array, not an object");
    CHECK_OK(dr_write_file(file, "\x10\0\0\0\0\0\0\0{\"a\":{\"dtype\":1}}", 25));
    fails(file, DRUPE_EFORMAT, "x.safetensors");
    CHECK_OK(dr_make_dirs(empty));
    fails(empty, DRUPE_EFORMAT, "config.json");
    const char *other = in_tmp(&arena, "x.onnx_adapter");
    CHECK_OK(dr_write_file(other, "\x08\0\0\0NOPE", 8));
    fails(other, DRUPE_EFORMAT, "no TORT at byte 4");
}

int main(void)
{
    test_models();
    test_ropes();
    test_onnx();
    test_adapters();
    test_broken(in_tmp(&arena, "onnx/model/travel.onnx_adapter"),
                in_tmp(&arena, "broken.onnx_adapter"));
    test_broken(ADAPTER "/adapter_model.safetensors", in_tmp(&arena, "broken.safetensors"));
    test_errors();
    dr_arena_release(&arena);
    return check_done();
}
