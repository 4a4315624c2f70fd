/*
 * layer_annotations_test.c - annotations of nodes as Olive's own function writes them
 * (tools/oracle/annotation_goldens.py), and from CaptureLayerAnnotations into a graph.
 */
#include "onnx/onnx.h"
#include "pass_fixture.h"

#define TEXT DRUPE_SOURCE_DIR "/tests/golden/rewrite/text/model.onnx"
#define TINY DRUPE_SOURCE_DIR "/tests/golden/tiny/llama"

static dr_arena arena;

static void check_case(const json_t *c)
{
    const char *key;
    json_t *list, *word;
    onnx_edit *e = NULL;
    size_t i;

    if (!CHECK_OK(onnx_rewrite_open(&e, TEXT, check_tmp())))
        return;
    json_object_foreach(json_object_get(c, "config"), key, list)
    {
        json_array_foreach(list, i, word)
        {
            onnx_annotate(e, json_string_value(word), "layer_ann", key);
        }
    }
    CHECK_EQ_INT(onnx_rewrite_nodes(e), json_object_size(json_object_get(c, "nodes")));
    json_object_foreach(json_object_get(c, "nodes"), key, word)
    {
        CHECK_STR(onnx_annotation(e, key, "layer_ann"), json_string_value(word));
    }
    onnx_rewrite_close(e);
}

static void test_export(void)
{
    const pass_model tiny = {.kind = PASS_MODEL_HF, .path = TINY, .name = TINY};
    json_t *config = json_pack("{s:{s:[s], s:[s, s]}}", "layer_annotations", "upper",
                               "layers.1", "lower", "layers.0", "embed");
    json_t *build = json_pack("{s:s}", "precision", "fp32");
    pass_model said, built;
    onnx_edit *e = NULL;

    if (CHECK_OK(run_pass_on(&arena, &said, "CaptureLayerAnnotations", config, &tiny,
                             in_tmp(&arena, "said"))) &&
        CHECK_OK(run_pass_on(&arena, &built, "ModelBuilder", build, &said,
                             in_tmp(&arena, "built"))) &&
        CHECK_OK(onnx_rewrite_open(&e, dr_path_join(&arena, built.path, "model.onnx"),
                                   check_tmp()))) {
#define SAYS(node, what) CHECK_STR(onnx_annotation(e, node, "layer_ann"), what)
        SAYS("/model/layers.0/attn/qkv_proj/MatMul", "lower");
        SAYS("/model/layers.1/mlp/down_proj/MatMul", "upper");
        SAYS("/model/embed_tokens/Gather", "lower");
        SAYS("/lm_head/MatMul", NULL);
    }
    onnx_rewrite_close(e);
    json_decref(config);
    json_decref(build);
}

static void refused(json_t *annotations, const char *message)
{
    const pass_model tiny = {.kind = PASS_MODEL_HF, .path = TINY, .name = TINY};
    json_t *config = json_pack("{s:o}", "layer_annotations", annotations);
    pass_model out;

    CHECK_STATUS(run_pass_on(&arena, &out, "CaptureLayerAnnotations", config, &tiny,
                             in_tmp(&arena, "bad")),
                 DR_EUSAGE);
    CHECK_TRAIL(message);
    json_decref(config);
}

int main(void)
{
    json_t *cases = NULL, *c;
    size_t i;

    if (CHECK_OK(dr_json_read(&cases, DRUPE_SOURCE_DIR "/tests/golden/annotations.json")))
        json_array_foreach(cases, i, c)
        {
            check_case(c);
        }
    CHECK_EQ_INT(json_array_size(cases), 4);
    json_decref(cases);
    test_export();
    refused(json_object(), "expected an object of names and lists, found an empty one");
    refused(json_pack("{s:s}", "a", "b"),
            "\"a\": expected a list of words, found a string");
    refused(json_pack("{s:[]}", "a"),
            "\"a\": expected a list of words, found an empty one");
    refused(json_pack("{s:[s]}", "a", ""), "\"a\": expected a word, found \"\"");
    dr_arena_release(&arena);
    return check_done();
}
