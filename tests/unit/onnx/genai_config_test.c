/*
 * genai_config_test.c - genai_config.json: keys, the joined end tokens, the cap on length.
 */
#include "family.h"
#include "onnx_fixture.h"

static dr_arena arena;

static json_t *config_of(const char *path, int64_t max_length)
{
    onnx_options o = fixture_options(ONNX_INT4);
    const char *dir = NULL;
    json_t *root = NULL;

    o.genai = true;
    o.max_length = max_length;
    if (CHECK_OK(fixture_export(&arena, &dir, "genai", path, &o, 1)))
        CHECK_OK(dr_json_read(&root, dr_path_join(&arena, dir, "genai_config.json")));
    return root;
}

static int64_t number(const json_t *root, const char *section, const char *key)
{
    return json_integer_value(json_object_get(json_object_get(root, section), key));
}

static const char *put(const char *dir, const char *name, const char *text)
{
    CHECK_OK(dr_write_file(dr_path_join(&arena, dir, name), text, strlen(text)));
    return dir;
}

static void plain(const char *path)
{
    json_t *root = config_of(path, 0);
    const json_t *model = json_object_get(root, "model");
    const json_t *decoder = json_object_get(model, "decoder");

    CHECK_EQ_INT(json_object_size(root), 2);
    CHECK_STR(json_string_value(json_object_get(model, "type")), "llama");
    CHECK_EQ_INT(number(root, "model", "context_length"), 64);
    CHECK_EQ_INT(number(root, "model", "vocab_size"), FIX_V);
    CHECK_EQ_INT(number(root, "model", "bos_token_id"), 1);
    CHECK_EQ_INT(number(root, "model", "eos_token_id"), 2);
    CHECK_EQ_INT(number(root, "model", "pad_token_id"), 2);
    CHECK_EQ_INT(json_integer_value(json_object_get(decoder, "head_size")), 16);
    CHECK_EQ_INT(json_integer_value(json_object_get(decoder, "num_key_value_heads")), 1);
    CHECK_STR(json_string_value(json_object_get(decoder, "filename")), "model.onnx");
    CHECK(json_object_get(decoder, "sliding_window") == NULL);
    CHECK_EQ_INT(number(root, "search", "max_length"), 64);
    CHECK(json_is_true(
        json_object_get(json_object_get(root, "search"), "past_present_share_buffer")));
    json_decref(root);

    root = config_of(path, 17);
    CHECK_EQ_INT(number(root, "search", "max_length"), 17);
    json_decref(root);
}

static void too_long(const char *path)
{
    onnx_options o = fixture_options(ONNX_INT4);
    const char *dir = NULL;

    o.genai = true;
    o.max_length = 65;
    CHECK_STATUS(fixture_export(&arena, &dir, "genai", path, &o, 1), DR_EUSAGE);
    CHECK_TRAIL("context of 64");
}

/* config 2, generation_config 5 and 2, tokenizer <end> = 7: all of them, once. */
static void ends(const char *path)
{
    put(path, "generation_config.json",
        "{\"eos_token_id\": [5, 2], \"do_sample\": true, \"temperature\": 0.6,"
        " \"top_k\": 20, \"top_p\": 0.9}");
    put(path, "tokenizer.json",
        "{\"version\": \"1.0\", \"added_tokens\": [{\"id\": 7, \"content\": \"<end>\","
        " \"special\": true}], \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 9},"
        " \"merges\": []}}");
    put(path, "tokenizer_config.json", "{\"eos_token\": {\"content\": \"<end>\"}}");
    json_t *root = config_of(path, 0);
    const json_t *eos = json_object_get(json_object_get(root, "model"), "eos_token_id");
    bool seen[3] = {false};
    CHECK_EQ_INT(json_array_size(eos), 3);
    for (size_t i = 0; i < json_array_size(eos); i++) {
        int64_t id = json_integer_value(json_array_get(eos, i));
        seen[0] = seen[0] || id == 2;
        seen[1] = seen[1] || id == 5;
        seen[2] = seen[2] || id == 7;
    }
    CHECK(seen[0] && seen[1] && seen[2]);
    const json_t *search = json_object_get(root, "search");
    CHECK(json_is_true(json_object_get(search, "do_sample")));
    CHECK_NEAR(json_real_value(json_object_get(search, "temperature")), 0.6, 1e-9);
    CHECK_NEAR(json_real_value(json_object_get(search, "top_p")), 0.9, 1e-9);
    CHECK_EQ_INT(number(root, "search", "top_k"), 20);
    json_decref(root);
    CHECK(dr_is_file(dr_path_join(&arena, check_tmp(), "genai/tokenizer.json")));

    put(path, "tokenizer_config.json", "{\"eos_token\": \"a\"}"); /* in the vocabulary */
    root = config_of(path, 0);
    eos = json_object_get(json_object_get(root, "model"), "eos_token_id");
    CHECK_EQ_INT(json_array_size(eos), 3);
    CHECK_EQ_INT(json_integer_value(json_array_get(eos, 2)), 9);
    json_decref(root);
}

/* A word that GenAI 0.5 does not know is not written for its runtime. */
static void words(const char *name, const char *today, const char *then)
{
    json_t *golden = family_golden(&arena, name);
    const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");
    const char *path = family_model(&arena, name, golden, config, 1);
    onnx_options o = fixture_options(ONNX_FP32);

    o.genai = true;
    for (int i = 0; i < 2; i++) {
        json_t *root = NULL;
        const char *dir = NULL;
        o.min_ort_minor = i == 0 ? 0 : 20;
        if (CHECK_OK(fixture_export(&arena, &dir, "words", path, &o, 1)) &&
            CHECK_OK(dr_json_read(&root, dr_path_join(&arena, dir, "genai_config.json"))))
            CHECK_STR(
                json_string_value(json_object_get(json_object_get(root, "model"), "type")),
                i == 0 ? today : then);
        json_decref(root);
    }
    json_decref(golden);
}

int main(void)
{
    fixture f;

    fixture_llama(&f, &arena);
    const char *path = fixture_save(&f, "model", "");
    plain(path);
    too_long(path);
    ends(path);
    words("phi3", "phi3", "phi3");
    words("granite", "granite", "llama");
    words("olmo2", "decoder", "llama");
    words("gemma3", "gemma3_text", "llama");
    dr_arena_release(&arena);
    return check_done();
}
