/*
 * adapter_fits_test.c - adapter files against exported graphs: those made for them, and
 * those that differ in a name, a type, a size or a missing half.
 */
#include "onnx_fixture.h"

#define GOLDEN DRUPE_SOURCE_DIR "/tests/golden/"
#define Q      "model.layers.0.self_attn.q_proj"

static dr_arena arena;

static const char *export(const char *name, const char *adapter,
                          const onnx_adapter_form *form)
{
    onnx_options o = fixture_options(ONNX_INT4);
    onnx_named_adapter named = {"a", NULL};
    const char *dir = dr_path_join(&arena, check_tmp(), name);
    onnx_report report = {0};
    hf_adapter ad = {0};
    hf_model *m = NULL;
    dr_pool *pool = NULL;

    CHECK_OK(hf_model_open(&m, TINY "llama"));
    if (adapter != NULL)
        CHECK_OK(hf_adapter_open(
            &ad, dr_arena_printf(&arena, GOLDEN "adapters/%s", adapter), m));
    CHECK_OK(dr_pool_open(&pool, 1));
    CHECK_OK(hf_adapter_factors(&ad, m, pool));
    named.adapter = &ad;
    o.adapters = &named;
    o.adapter_count = adapter != NULL;
    o.adapter_form = form;
    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(onnx_build(&report, dir, m, pool, &o));
    onnx_report_release(&report);
    hf_adapter_release(&ad);
    dr_pool_close(pool);
    hf_model_close(m);
    return dir;
}

static const char *in(const char *dir, const char *file)
{
    return dr_path_join(&arena, dir, file);
}

static void fits(const char *adapter_dir, const char *model_dir)
{
    CHECK_OK(
        onnx_adapter_fits(in(adapter_dir, "a.onnx_adapter"), in(model_dir, "model.onnx")));
}

static void differs(const char *adapter, const char *model_dir, const char *why)
{
    CHECK_STATUS(onnx_adapter_fits(adapter, in(model_dir, "model.onnx")), DR_EUSAGE);
    CHECK_TRAIL(why);
}

/* The tensors of one module, each of which a case may change. */
typedef struct {
    dr_tensor t[3];
    size_t count;
} module;

static const float zeros[64 * 64];

static module q_module(int64_t r)
{
    module m = {{{Q ".lora_A.weight", DR_DTYPE_F32, 2, {32, r}, zeros, (size_t)r * 128},
                 {Q ".lora_B.weight", DR_DTYPE_F32, 2, {r, 64}, zeros, (size_t)r * 256}},
                2};

    return m;
}

static const char *saved(const module *m)
{
    const char *path = in(check_tmp(), "x.onnx_adapter");

    CHECK_OK(onnx_adapter_save(path, m->t, m->count, ONNX_ADAPTER_FILE));
    return path;
}

static void by_hand(const char *dir)
{
    module m = q_module(5);

    CHECK_OK(onnx_adapter_fits(saved(&m), in(dir, "model.onnx"))); /* any rank */
    m.count = 1;
    differs(saved(&m), dir, "it has " Q ".lora_A.weight, but no " Q ".lora_B.weight");
    m = q_module(5);
    m.t[1] = q_module(6).t[1];
    differs(saved(&m), dir, Q ".lora_r is 5 in " Q ".lora_A.weight and 6 in");
    m = q_module(5);
    m.t[0].dims[0] = 16;
    m.t[0].dims[1] = 10;
    differs(saved(&m), dir, "dimension 0 of " Q ".lora_A.weight is 16 in the file, 32 in");
    m = q_module(5);
    m.t[0].dtype = DR_DTYPE_F16;
    m.t[0].dims[1] = 10;
    differs(saved(&m), dir, Q ".lora_A.weight is F16 in the file, F32 in the graph");
    CHECK_TRAIL("--dtype float32");
    m = q_module(5);
    m.t[0].name = "model.layers.0.attn.q_proj.lora_A.MatMul.weight";
    differs(saved(&m), dir, "1 of its 2 values are no inputs: model.layers.0.attn.q_proj.");
    CHECK_TRAIL("the graph takes model.layers.0.self_attn.q_proj.lora_A.weight");
    m = q_module(5);
    m.t[2] = (dr_tensor){Q ".lora_magnitude_vector", DR_DTYPE_F32, 1, {64}, zeros, 256};
    m.count = 3;
    differs(saved(&m), dir, "1 of its 3 values are no inputs: " Q ".lora_magnitude_vector");
    m = q_module(5);
    m.t[0].ndim = 1;
    m.t[0].dims[0] = 160;
    differs(saved(&m), dir, "has 1 dimensions in the file, 2 in the graph");
}

int main(void)
{
    onnx_adapter_form half = {.dtype = DR_DTYPE_F16};
    onnx_adapter_form packed = {
        .dtype = DR_DTYPE_F32, .int4 = true, .block = 16, .symmetric = true};
    onnx_adapter_form zero_points = packed;

    if (!dr_is_dir(GOLDEN "adapters")) {
        SKIP(GOLDEN "adapters");
        return check_done();
    }
    zero_points.symmetric = false;
    const char *base = export("base", NULL, NULL);
    const char *floats = export("floats", "lora", NULL);
    const char *halves = export("halves", "lora", &half);
    const char *int4 = export("int4", "lora", &packed);
    const char *int4a = export("int4a", "lora", &zero_points);
    const char *dora = export("dora", "dora", NULL);
    const char *patterns = export("patterns", "patterns", NULL);
    fits(floats, floats);
    fits(halves, halves);
    fits(int4, int4);
    fits(int4a, int4a);
    fits(dora, dora);
    fits(patterns, patterns);
    by_hand(floats);
    differs(in(floats, "a.onnx_adapter"), base, "the graph takes no adapter");
    differs(in(floats, "a.onnx_adapter"), halves, "is F32 in the file, F16 in the graph");
    differs(in(floats, "a.onnx_adapter"), int4, "8 of its 8 values are no inputs");
    differs(in(int4, "a.onnx_adapter"), floats, "lora_A.quant.weight");
    differs(in(int4, "a.onnx_adapter"), int4a, ".quant.zero_point");
    differs(in(int4a, "a.onnx_adapter"), int4, "quant.zero_point");
    differs(in(dora, "a.onnx_adapter"), floats, "lora_magnitude_vector");
    differs(in(patterns, "a.onnx_adapter"), floats, "no inputs");
    CHECK_STATUS(onnx_adapter_fits(in(floats, "a.onnx_adapter"), "/nonexistent"), DR_EIO);
    dr_arena_release(&arena);
    return check_done();
}
