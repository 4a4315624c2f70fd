/*
 * adapter_fuzz.c - an .onnx_adapter file (FlatBuffers): its values, and a look at it.
 */
#include "fuzz/fuzz_inspect.h"
#include "onnx/onnx.h"

/* Reads every byte that the file says is a value. */
static void touch(const onnx_adapter_file *f)
{
    volatile unsigned sum = 0;

    for (size_t i = 0; i < f->count; i++) {
        const unsigned char *p = f->tensors[i].data;
        for (size_t k = 0; k < f->tensors[i].bytes; k++)
            sum = sum + p[k];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    onnx_adapter_file f = {0};
    char path[256];

    fuzz_begin();
    fuzz_put("input.onnx_adapter", data, size);
    if (onnx_adapter_open(&f, fuzz_path(path, "input.onnx_adapter")) == DR_OK) {
        touch(&f);
        onnx_adapter_close(&f);
    }
    fuzz_inspect(path);
    return 0;
}
