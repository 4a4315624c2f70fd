/*
 * torch_fuzz.c - a file of torch.save, a zip with a pickle or the older stream of pickles:
 * the weights of a small Llama, and a file to inspect.
 */
#include "fuzz/fuzz_inspect.h"
#include "fuzz/fuzz_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    char path[256];
    hf_model *m = NULL;

    fuzz_begin();
    if (!ready)
        fuzz_put_file("config.json", "golden/hf/torch/config.json");
    ready = true;
    fuzz_put("pytorch_model.bin", data, size);
    if (hf_model_open(&m, fuzz_dir()) == DR_OK)
        fuzz_use_model(m);
    hf_model_close(m);
    fuzz_inspect(fuzz_path(path, "pytorch_model.bin"));
    return 0;
}
