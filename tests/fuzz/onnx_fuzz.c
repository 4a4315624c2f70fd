/*
 * onnx_fuzz.c - a model.onnx: inspected, asked whether an adapter fits it, and its LoRA
 * products lifted into a model of its own.
 */
#include "core/dtype.h"
#include "core/file.h"
#include "fuzz/fuzz_inspect.h"
#include "onnx/onnx.h"

/* An adapter of one module, written once. */
static void put_adapter(const char *path)
{
    static const float values[8];
    const dr_tensor t[] = {
        {.name = "model.layers.0.self_attn.q_proj.lora_A.weight",
         .dtype = DR_DTYPE_F32,
         .ndim = 2,
         .dims = {4, 2},
         .data = values,
         .bytes = sizeof(values)},
        {.name = "model.layers.0.self_attn.q_proj.lora_B.weight",
         .dtype = DR_DTYPE_F32,
         .ndim = 2,
         .dims = {2, 4},
         .data = values,
         .bytes = sizeof(values)},
    };

    if (onnx_adapter_save(path, t, DR_COUNT(t), ONNX_ADAPTER_FILE) != DR_OK) {
        (void)fprintf(stderr, "%s: not written\n", path);
        exit(2);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    char path[256], adapter[256], out[256];
    onnx_lifted lifted;
    dr_arena arena = {0};

    fuzz_begin();
    fuzz_path(adapter, "a.onnx_adapter");
    if (!ready)
        put_adapter(adapter);
    ready = true;
    fuzz_put("input.onnx", data, size);
    fuzz_inspect(fuzz_path(path, "input.onnx"));
    (void)!onnx_adapter_fits(adapter, path);
    (void)!dr_make_dirs(fuzz_path(out, "out"));
    (void)!onnx_lift_adapter(&lifted, &arena, path, out, "a.onnx_adapter",
                             ONNX_ADAPTER_FILE);
    dr_arena_release(&arena);
    return 0;
}
