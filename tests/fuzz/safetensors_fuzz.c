/*
 * safetensors_fuzz.c - a safetensors file: the weights of a small Llama, the values of an
 * adapter, a file to inspect.
 */
#include "fuzz/fuzz_inspect.h"
#include "fuzz/fuzz_model.h"

static void put_neighbours(void)
{
    static bool done;

    if (done)
        return;
    done = true;
    fuzz_put_file("config.json", "golden/hf/llama/config.json");
    fuzz_put_file("adapter_config.json", "golden/adapters/lora/adapter_config.json");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hf_model *m = NULL;
    hf_adapter ad = {0};
    char path[256];

    fuzz_begin();
    put_neighbours();
    fuzz_put("model.safetensors", data, size);
    if (hf_model_open(&m, fuzz_dir()) == DR_OK)
        fuzz_use_model(m);
    fuzz_put("adapter_model.safetensors", data, size);
    if (hf_adapter_open(&ad, fuzz_dir(), m) == DR_OK)
        hf_adapter_release(&ad);
    hf_model_close(m);
    fuzz_inspect(fuzz_path(path, "model.safetensors"));
    return 0;
}
