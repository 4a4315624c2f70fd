/*
 * lift_run_test.c - graphs with LoRA products made by others
 * (tools/oracle/lift_goldens.py), after onnx_lift_adapter, in ONNX Runtime where it is at
 * hand: with the adapter file they
 * give what they gave, without it what the base gives; and graphs that are refused.
 */
#include "onnx/onnx.h"
#include "ort/ort.h"
#include "st_golden.h"

#define LIFT DRUPE_SOURCE_DIR "/tests/golden/lift/"

static dr_arena arena;

/* How far the first output is from what is expected; negative: it did not run. */
static double far(const char *dir, const char *adapter, const dr_tensor *x,
                  const dr_tensor *want)
{
    ort_value in = {0}, out = {0};
    ort_session *s = NULL;
    double worst = -1;
    bool optional = false;

    if (!CHECK_OK(ort_session_open(&s, dr_path_join(&arena, dir, "model.onnx"), 1, true)) ||
        !CHECK_OK(ort_session_adapter(s, adapter)))
        return worst;
    CHECK_OK(ort_session_input(s, 0, &in, &optional));
    CHECK(!optional);
    for (int d = 0; d < x->ndim; d++)
        in.dims[d] = x->dims[d];
    in.data = (void *)(uintptr_t)x->data;
    in.bytes = x->bytes;
    const char *name = ort_session_output_name(s, 0);
    if (CHECK_OK(ort_session_run(s, &in, 1, &name, &out, 1)) &&
        CHECK_EQ_INT(out.bytes, want->bytes)) {
        worst = 0;
        for (size_t i = 0; i < want->bytes / sizeof(float); i++)
            worst = fmax(worst, fabs((double)((const float *)out.data)[i] -
                                     (double)((const float *)want->data)[i]));
        ort_values_release(&out, 1);
    }
    ort_session_close(s);
    return worst;
}

static void lifted(const char *name, size_t modules, size_t rank_min, size_t rank_max)
{
    const char *from = dr_arena_printf(&arena, LIFT "%s", name);
    const char *dir = dr_path_join(&arena, check_tmp(), name);
    const char *adapter = dr_path_join(&arena, dir, "a.onnx_adapter");
    const char *model = dr_path_join(&arena, dir, "model.onnx");
    dr_tensor x, with, without;
    onnx_lifted l = {0};
    st_golden g;

    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(onnx_lift_adapter(&l, &arena, dr_path_join(&arena, from, "model.onnx"), dir,
                               "a.onnx_adapter", ONNX_ADAPTER_FILE));
    CHECK_EQ_INT(l.modules, modules);
    CHECK_EQ_INT(l.rank_min, rank_min);
    CHECK_EQ_INT(l.rank_max, rank_max);
    for (size_t i = 0; i < l.file_count; i++)
        CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, l.files[i]),
                              dr_path_join(&arena, from, l.files[i])));
    CHECK_OK(onnx_adapter_fits(adapter, model));
    if (!st_golden_open(&g, dr_path_join(&arena, from, "expected.safetensors")) ||
        !CHECK(st_golden_find(&g, "x", &x) && st_golden_find(&g, "with", &with) &&
               st_golden_find(&g, "without", &without)))
        return;
    CHECK_NEAR(far(dir, adapter, &x, &with), 0, 2e-6);
    CHECK_NEAR(far(dir, NULL, &x, &without), 0, 2e-6);
    CHECK(far(dir, NULL, &x, &with) > 1e-2); /* an adapter that does something */
    /* what was lifted is an input now: there is nothing to lift */
    CHECK_STATUS(onnx_lift_adapter(&l, &arena, model, check_tmp(), "b.onnx_adapter",
                                   ONNX_ADAPTER_FILE),
                 DR_EUSAGE);
    CHECK_TRAIL("takes its adapters as inputs already");
    st_golden_close(&g);
}

static void refused(const char *name, dr_status status, const char *why)
{
    onnx_lifted l = {0};
    const char *dir = dr_path_join(&arena, check_tmp(), "refused");

    CHECK_OK(dr_make_dirs(dir));
    CHECK_STATUS(onnx_lift_adapter(&l, &arena,
                                   dr_arena_printf(&arena, LIFT "bad/%s.onnx", name), dir,
                                   "a.onnx_adapter", ONNX_ADAPTER_FILE),
                 status);
    CHECK_TRAIL(why);
    CHECK(!dr_exists(dr_path_join(&arena, dir, "model.onnx")));
}

int main(void)
{
    ort_info info;

    refused("none", DR_EUSAGE, "has no LoRA product");
    refused("no_b", DR_EFORMAT, "self_attn.q_proj has a lora_A without a lora_B");
    refused("no_a", DR_EFORMAT, "self_attn.q_proj has a lora_B without a lora_A");
    refused("two", DR_EUNSUPPORTED,
            "are both the lora_A of model.layers.0.self_attn.q_pro");
    refused("computed", DR_EUNSUPPORTED, "is computed by the graph");
    refused("ranks", DR_EFORMAT, "lora_A is F32 of rank 4, lora_B F32 of rank 3");
    refused("elsewhere", DR_EUNSUPPORTED, "lies in ../weights.bin, not in a file beside");
    refused("short", DR_EFORMAT, "expected 512 bytes, found 512 from byte 0 of short.bin");
    ort_probe(&arena, &info);
    if (info.ort_found) {
        lifted("traced", 3, 3, 5);
        lifted("spellings", 3, 4, 4);
    } else {
        SKIP("no ONNX Runtime");
    }
    dr_arena_release(&arena);
    return check_done();
}
