/*
 * family_source_test.c - the tiny model of every family in every form of its files:
 * sharded safetensors, pytorch_model.bin, the latter sharded, F16 GGUF.  The fp32 export of
 * each has transformers' logits, with config.json as transformers 4 and 5 spell it.
 */
#include "family_runner.h"
#include "family_torch.h"
#include "hf/hf_gguf.h"

enum { SHARDS = 3 };

typedef enum { SAFETENSORS, TORCH, TORCH_SHARDS, SOURCES } source;
static const char *const source_names[SOURCES] = {"shards", "bin", "bin-shards"};

static const char *model_folder(const char *label, const json_t *golden,
                                const char *spelling, source from)
{
    const json_t *config = json_object_get(json_object_get(golden, "configs"), spelling);
    const char *dir = dr_path_join(&arena, check_tmp(), label);

    if (from == SAFETENSORS)
        return family_model(&arena, label, golden, config, SHARDS);
    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(dr_json_write(dr_path_join(&arena, dir, "config.json"), config));
    family_torch(&arena, dir, golden, from == TORCH ? 1 : SHARDS);
    return dir;
}

static void test_folder(const char *name, const json_t *golden, const char *spelling,
                        source from)
{
    const char *label =
        dr_arena_printf(&arena, "%s-%s-%s", name, spelling, source_names[from]);
    const char *dir = model_folder(label, golden, spelling, from);
    runner r;

    CHECK(!dr_is_file(dr_path_join(&arena, dir, "model.safetensors")));
    if (CHECK_OK(runner_open(&r, dir, ONNX_FP32)))
        check_logits(label, &r, golden);
    runner_close(&r);
}

/* ---- GGUF ---- */

/* A GGUF file has a tokenizer; this is one. */
static void put_tokenizer(const char *dir)
{
    static const char text[] =
        "{\"version\": \"1.0\", \"added_tokens\": [], \"pre_tokenizer\": {\"type\": "
        "\"ByteLevel\", \"add_prefix_space\": false}, \"decoder\": {\"type\": "
        "\"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 3, \"b\": 4, "
        "\"ab\": 5}, \"merges\": [\"a b\"]}}";

    CHECK_OK(
        dr_write_file(dr_path_join(&arena, dir, "tokenizer.json"), text, sizeof(text) - 1));
}

/* config.json so that the model has a form in GGUF; as it is: refused, by name. */
static json_t *half_config(const char *name, const json_t *golden, const char *spelling)
{
    json_t *config =
        json_deep_copy(json_object_get(json_object_get(golden, "configs"), spelling));
    json_t *changes = json_object_get(json_object_get(golden, "half"), "changes");
    const char *label = dr_arena_printf(&arena, "%s-%s-refused", name, spelling);
    const char *dir = family_model(&arena, label, golden, config, 1);
    hf_gguf_report report;
    hf_model *m = NULL;

    put_tokenizer(dir);
    if (json_object_size(changes) > 0 && CHECK_OK(hf_model_open(&m, dir))) {
        CHECK_STATUS(hf_gguf_write(dr_arena_printf(&arena, "%s.gguf", dir), m, HF_GGUF_F16,
                                   name, &report),
                     DR_EUNSUPPORTED);
        CHECK_TRAIL("has no form in a GGUF of");
    }
    hf_model_close(m);
    CHECK(json_object_update(config, changes) == 0);
    return config;
}

/* Matrices are in half precision there, as in the golden's model `half`. */
static void check_gguf(const char *label, const char *path, const json_t *golden)
{
    json_t *runs = json_object_get(json_object_get(golden, "half"), "runs");
    bool longrope = json_object_get(golden, "steps") != NULL;
    runner r;

    if (CHECK_OK(runner_open(&r, path, ONNX_FP32))) {
        check_same(label, lengths_difference(&r, golden, runs));
        /* Where factors change, keys stay as they were: no logits of a prompt. */
        if (!longrope)
            check_same(label, steps_difference(&r, golden, 0, runs));
    }
    runner_close(&r);
}

static void test_gguf(const char *name, const json_t *golden, const char *spelling)
{
    json_t *config = half_config(name, golden, spelling);
    bool experts = dr_json_get(config, "num_experts_per_tok") != NULL;
    const char *label = dr_arena_printf(&arena, "%s-%s-half", name, spelling);
    const char *dir = family_model(&arena, label, golden, config, SHARDS);
    const char *path = dr_arena_printf(&arena, "%s.gguf", dir);
    hf_gguf_report report;
    hf_model *m = NULL;

    put_tokenizer(dir);
    if (CHECK_OK(hf_model_open(&m, dir))) {
        dr_status st = hf_gguf_write(path, m, HF_GGUF_F16, name, &report);
        if (experts) {
            CHECK_STATUS(st, DR_EUNSUPPORTED);
            CHECK_TRAIL("is not written as GGUF");
        } else if (CHECK_OK(st)) {
            check_gguf(label, path, golden);
        }
    }
    hf_model_close(m);
    json_decref(config);
}

static void test_family(const char *name)
{
    static const char *const spellings[] = {"5", "4", "old"};
    json_t *golden = family_golden(&arena, name);

    for (size_t i = 0; golden != NULL && !too_old_for(golden) && i < DR_COUNT(spellings);
         i++) {
        for (int s = 0; s < SOURCES; s++)
            test_folder(name, golden, spellings[i], (source)s);
        test_gguf(name, golden, spellings[i]);
    }
    json_decref(golden);
}

int main(void)
{
    if (!runtime_found())
        return check_done();
    for (size_t i = 0; i < DR_COUNT(family_names); i++)
        test_family(family_names[i]);
    dr_arena_release(&arena);
    return check_done();
}
