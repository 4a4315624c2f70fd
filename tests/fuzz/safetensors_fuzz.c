/*
 * safetensors_fuzz.c - a safetensors file: the weights of a small model, the values of an
 * adapter, a file to inspect.  Beside it is the config of the first row whose word is in
 * the file, so that every reader of packed weights is reached.
 */
#include "fuzz/fuzz_inspect.h"
#include "fuzz/fuzz_model.h"

static const struct {
    const char *word, *config;
} rows[] = {
    {"weight_zero_point", "golden/hf/formats/ct_zeros/config.json"},
    {"weight_packed", "golden/hf/formats/ct_group/config.json"},
    {"nested_absmax", "golden/hf/formats/nf4_double/config.json"},
    {"bitsandbytes__fp4", "golden/hf/formats/fp4/config.json"},
    {"absmax", "golden/hf/formats/nf4/config.json"},
    {"g_idx", "golden/hf/gptq/config.json"},
    {"olive", "golden/hf/olive/config.json"},
    {"qzeros", "golden/hf/awq/config.json"},
    {"qkv_proj", "golden/hf/phi3/config.json"},
    {"", "golden/hf/llama/config.json"},
};

static void put_configs(const uint8_t *data, size_t size)
{
    static const char *there = "";
    size_t i = 0;

    while (memmem(data, size, rows[i].word, strlen(rows[i].word)) == NULL &&
           rows[i].word[0] != '\0')
        i++;
    if (there == rows[i].config)
        return;
    if (there[0] == '\0')
        fuzz_put_file("adapter_config.json", "golden/adapters/lora/adapter_config.json");
    there = rows[i].config;
    fuzz_put_file("config.json", there);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hf_model *m = NULL;
    hf_adapter ad = {0};
    char path[256];

    fuzz_begin();
    put_configs(data, size);
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
