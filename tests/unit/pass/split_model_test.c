/*
 * split_model_test.c - SplitModel and ComposeOnnxModels: the parts, run one after the other
 * in ONNX Runtime without its own rewriting, give what the whole gives, to the byte; and so
 * does what is made of the parts again.
 */
#include "onnx/onnx.h"
#include "ort/ort.h"
#include "pass_fixture.h"

#define REWRITE DRUPE_SOURCE_DIR "/tests/golden/rewrite/"
#define TINY    DRUPE_SOURCE_DIR "/tests/golden/tiny/llama"
enum { VALUES = 160, BATCH = 2, SEQUENCE = 5 };

static dr_arena arena;

/* ---- running graphs ---- */

/* Values by name: what was fed, and what came. */
typedef struct {
    ort_value list[VALUES];
    size_t count;
} values;

static const ort_value *value_of(const values *v, const char *name)
{
    for (size_t i = 0; i < v->count; i++)
        if (strcmp(v->list[i].name, name) == 0)
            return &v->list[i];
    return NULL;
}

/* Sizes by the names that exporters give them: nothing in the cache. */
static int64_t size_of(const char *name, int d)
{
    if (strncmp(name, "past_key", 8) == 0)
        return d == 0 ? BATCH : 0;
    return d == 0 ? BATCH : SEQUENCE;
}

/* Small numbers that differ; masks are ones. */
static void feed(values *v, const ort_value *want)
{
    ort_value x = *want;
    size_t n = 1;

    x.name = dr_arena_strdup(&arena, want->name);
    for (int d = 0; d < x.ndim; d++) {
        x.dims[d] = x.dims[d] >= 0 ? x.dims[d] : size_of(x.name, d);
        n *= (size_t)x.dims[d];
    }
    x.bytes = n * dr_dtype_bytes(x.dtype);
    x.data = dr_arena_alloc(&arena, x.bytes + 1, 1);
    for (size_t i = 0; i < n; i++)
        if (x.dtype == DR_DTYPE_F32)
            ((float *)x.data)[i] = (float)(i * 7 % 13) / 8 - 0.7F;
        else
            ((int64_t *)x.data)[i] =
                strstr(x.name, "mask") != NULL ? 1 : (int64_t)(i * 5 % 17);
    if (CHECK(v->count < VALUES))
        v->list[v->count++] = x;
}

/* Runs a graph on the values that there are, and others for inputs that no one has given;
 * its outputs are added, copied. */
static bool run_graph(values *v, const char *path)
{
    ort_session *s = NULL;
    ort_value in[VALUES], out[VALUES] = {0};
    const char *names[VALUES];
    size_t inputs = 0, outputs = 0;
    bool optional = false, good = CHECK_OK(ort_session_open(&s, path, 1, false));

    for (size_t i = 0; good && i < ort_session_input_count(s); i++) {
        ort_value want = {0};
        good = CHECK_OK(ort_session_input(s, i, &want, &optional));
        if (good && value_of(v, want.name) == NULL)
            feed(v, &want);
        if (good)
            in[inputs++] = *value_of(v, want.name);
    }
    for (; good && outputs < ort_session_output_count(s); outputs++)
        names[outputs] = ort_session_output_name(s, outputs);
    good = good && CHECK_OK(ort_session_run(s, in, inputs, names, out, outputs));
    for (size_t i = 0; good && i < outputs && CHECK(v->count < VALUES); i++) {
        ort_value copy = out[i];
        copy.name = dr_arena_strdup(&arena, names[i]);
        copy.data = dr_arena_alloc(&arena, copy.bytes + 1, 1);
        memcpy(copy.data, out[i].data, copy.bytes);
        v->list[v->count++] = copy;
    }
    ort_values_release(out, good ? outputs : 0);
    ort_session_close(s);
    return good;
}

/* Every output that the whole graph has, in both. */
static void same_outputs(const values *whole, const values *other, const char *path)
{
    ort_session *s = NULL;

    if (!CHECK_OK(ort_session_open(&s, path, 1, false)))
        return;
    for (size_t i = 0; i < ort_session_output_count(s); i++) {
        const char *name = ort_session_output_name(s, i);
        const ort_value *a = value_of(whole, name), *b = value_of(other, name);
        if (!CHECK(a != NULL && b != NULL && a->bytes > 0) ||
            !CHECK_EQ_INT(a->bytes, b->bytes))
            continue;
        CHECK_MEM(a->data, b->data, a->bytes);
    }
    ort_session_close(s);
}

/* ---- cases ---- */

static json_t *splits(const char *text)
{
    return text != NULL ? json_pack("{s:s}", "split_assignments", text) : json_object();
}

static size_t count_parts(const pass_model *m)
{
    size_t n = 0;

    while (m->parts[n] != NULL)
        n++;
    return n;
}

static void check_split(const pass_model *in, const char *text, size_t parts)
{
    json_t *config = splits(text), *none = json_object();
    const char *whole = dr_path_join(&arena, in->path, "model.onnx");
    values before = {0}, chain = {0}, after = {0};
    pass_model cut, joined;

    if (CHECK_OK(
            run_pass_on(&arena, &cut, "SplitModel", config, in, in_tmp(&arena, "cut"))) &&
        CHECK_EQ_INT(count_parts(&cut), parts) && run_graph(&before, whole)) {
        CHECK(!dr_exists(dr_path_join(&arena, in_tmp(&arena, "cut"), "described")));
        for (size_t i = 0; i < parts; i++)
            if (!run_graph(&chain, dr_path_join(&arena, cut.path, cut.parts[i])))
                (void)printf("  part %zu of %s\n", i, in->path);
        same_outputs(&before, &chain, whole);
        if (CHECK_OK(run_pass_on(&arena, &joined, "ComposeOnnxModels", none, &cut,
                                 in_tmp(&arena, "joined"))) &&
            run_graph(&after, dr_path_join(&arena, joined.path, "model.onnx")))
            same_outputs(&before, &after, whole);
        CHECK_EQ_INT(after.count, before.count); /* as many inputs and outputs */
    }
    json_decref(config);
    json_decref(none);
}

static pass_model graph_at(const char *path)
{
    return (pass_model){.kind = PASS_MODEL_ONNX, .path = path, .name = path};
}

/* A pass on each part, and the parts made one, is the pass on the whole. */
static void check_each(const char *pass, json_t *config, bool chained)
{
    const pass_model text = graph_at(REWRITE "text");
    json_t *where = splits("layers.0=0;layers.1=1"), *none = json_object();
    values whole = {0}, chain = {0}, joined = {0};
    pass_model cut, each, one, all;
    const char *path;

    if (CHECK_OK(
            run_pass_on(&arena, &cut, "SplitModel", where, &text, in_tmp(&arena, "cut"))) &&
        CHECK_OK(run_pass_on(&arena, &each, pass, config, &cut, in_tmp(&arena, "each"))) &&
        CHECK_EQ_INT(each.kind, PASS_MODEL_PARTS) &&
        CHECK_OK(run_pass_on(&arena, &one, "ComposeOnnxModels", none, &each,
                             in_tmp(&arena, "one"))) &&
        CHECK_OK(run_pass_on(&arena, &all, pass, config, &text, in_tmp(&arena, "all")))) {
        path = dr_path_join(&arena, all.path, "model.onnx");
        (void)run_graph(&whole, path);
        for (size_t i = 0; i < count_parts(&each); i++)
            (void)run_graph(&chain, dr_path_join(&arena, each.path, each.parts[i]));
        if (chained)
            same_outputs(&whole, &chain, path);
        (void)run_graph(&joined, dr_path_join(&arena, one.path, "model.onnx"));
        same_outputs(&whole, &joined, path);
    }
    json_decref(where);
    json_decref(none);
    json_decref(config);
}

/* Captured before the export, which writes it into the graph. */
static void test_captured(void)
{
    const pass_model tiny = {.kind = PASS_MODEL_HF, .path = TINY, .name = TINY};
    json_t *info =
        json_pack("{s:i, s:b}", "num_splits", 2, "unique_embeds_lm_head_splits", 1);
    json_t *int4 = json_pack("{s:s, s:i}", "precision", "int4", "int4_block_size", 32);
    pass_model said, built;

    if (CHECK_OK(run_pass_on(&arena, &said, "CaptureSplitInfo", info, &tiny,
                             in_tmp(&arena, "said")))) {
        CHECK_STR(said.attributes, "{\"split_assignments\":{\"model.embed_tokens\":0,"
                                   "\"model.layers.0\":1,\"model.layers.1\":2,"
                                   "\"lm_head\":3}}");
        if (CHECK_OK(run_pass_on(&arena, &built, "ModelBuilder", int4, &said,
                                 in_tmp(&arena, "built"))))
            check_split(&built, NULL, 4);
        /* its own list comes before what the graph says */
        if (built.path != NULL)
            check_split(&built, "model.layers.0=0;model.layers.1=1", 2);
    }
    json_decref(info);
    json_decref(int4);
}

/* A model that is used. */
static void test_smollm2(void)
{
    const char *models = getenv("DRUPE_TEST_MODELS");
    const char *gguf = dr_path_join(&arena, models ? models : "", "smollm2-135m.gguf");
    const pass_model in = {.kind = PASS_MODEL_HF, .path = gguf, .name = gguf};
    json_t *info = json_pack("{s:i}", "num_splits", 4);
    json_t *int4 = json_pack("{s:s, s:i}", "precision", "int4", "int4_block_size", 32);
    pass_model said, built;

    if (models == NULL || !dr_is_file(gguf))
        SKIP("DRUPE_TEST_MODELS names no folder with smollm2-135m.gguf");
    else if (CHECK_OK(run_pass_on(&arena, &said, "CaptureSplitInfo", info, &in,
                                  in_tmp(&arena, "said"))) &&
             CHECK_OK(run_pass_on(&arena, &built, "ModelBuilder", int4, &said,
                                  in_tmp(&arena, "built"))))
        check_split(&built, NULL, 4);
    json_decref(info);
    json_decref(int4);
}

static void test_errors(void)
{
    const pass_model text = graph_at(REWRITE "text");
    const char *const backwards[] = {"split_1.onnx", "split_0.onnx", NULL};
    json_t *good = splits("layers.0=0;layers.1=1"), *none = json_object();
    pass_model out, cut;

#define BAD(list, status, message)                                                         \
    do {                                                                                   \
        json_t *c = splits(list);                                                          \
        CHECK_STATUS(                                                                      \
            run_pass_on(&arena, &out, "SplitModel", c, &text, in_tmp(&arena, "bad")),      \
            status);                                                                       \
        CHECK_TRAIL(message);                                                              \
        json_decref(c);                                                                    \
    } while (0)
    BAD(NULL, DR_EUSAGE, "nothing says where it is to be split");
    BAD("layers.0", DR_EUSAGE, "expected NAME=PART with parts from 0 to 1023, found");
    BAD("layers.0=x", DR_EUSAGE, "found \"layers.0=x\"");
    BAD("layers.0=-1", DR_EUSAGE, "found \"layers.0=-1\"");
    BAD("layers.0=0;layers.0=1", DR_EUSAGE, "layers.0 is there twice");
    BAD("blocks.0=0;blocks.1=1", DR_EUSAGE, "leave 1 part of it");
    if (CHECK_OK(
            run_pass_on(&arena, &cut, "SplitModel", good, &text, in_tmp(&arena, "cut")))) {
        cut.parts = backwards;
        CHECK_STATUS(run_pass_on(&arena, &out, "ComposeOnnxModels", none, &cut,
                                 in_tmp(&arena, "bad")),
                     DR_EUSAGE);
        CHECK_TRAIL("before it reads");
    }
    json_decref(good);
    json_decref(none);
}

int main(void)
{
    ort_info info;
    pass_model text = graph_at(REWRITE "text"), rounded = graph_at(REWRITE "static");

    ort_probe(&arena, &info);
    if (!info.ort_found) {
        SKIP("no onnxruntime");
        return check_done();
    }
    run_pass_checks = true;
    check_split(&text, "layers.0=0;layers.1=1", 2);
    check_split(&text, "layers.0=0;layers.1=2;lm_head=4", 3); /* numbers with holes */
    check_split(&text, "layers.0.attn=0;layers.0.mlp=1;layers.1=2;lm_head=3", 4);
    check_split(&rounded, "conv=0;fc1=1;fc2=2", 3);
    check_each("OnnxPeepholeOptimizer", json_object(), true);
    check_each("OnnxBlockWiseRtnQuantization", json_pack("{s:i}", "block_size", 32), true);
    check_each("OnnxDynamicQuantization", json_object(), true);
    /* the CPU computes in float32, and rounds what goes from part to part */
    check_each("OnnxFloatToFloat16", json_object(), false);
    check_each("OnnxOpVersionConversion", json_pack("{s:i}", "target_opset", 21), true);
    check_each("OrtTransformersOptimization", json_object(), true);
    test_captured();
    test_smollm2();
    test_errors();
    dr_arena_release(&arena);
    return check_done();
}
