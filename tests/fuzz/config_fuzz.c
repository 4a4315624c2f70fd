/*
 * config_fuzz.c - the JSON files of a model folder.  What the text is decides a key in it:
 * "weight_map" an index of shards, "peft_type" an adapter's config, "do_sample" a
 * generation_config.json, else config.json.  The files beside it are a small model's.
 */
#include "fuzz/fuzz_inspect.h"
#include "fuzz/fuzz_model.h"

static bool has(const uint8_t *data, size_t size, const char *key)
{
    return memmem(data, size, key, strlen(key)) != NULL;
}

static void open_model(void)
{
    hf_model *m = NULL;

    if (hf_model_open(&m, fuzz_dir()) == DR_OK)
        fuzz_use_model(m);
    hf_model_close(m);
}

static void as_index(const uint8_t *data, size_t size)
{
    fuzz_put_file("model-00001-of-00003.safetensors",
                  "golden/hf/llama_shards/model-00001-of-00003.safetensors");
    fuzz_put_file("model-00002-of-00003.safetensors",
                  "golden/hf/llama_shards/model-00002-of-00003.safetensors");
    fuzz_put_file("model-00003-of-00003.safetensors",
                  "golden/hf/llama_shards/model-00003-of-00003.safetensors");
    fuzz_drop("model.safetensors");
    fuzz_put("model.safetensors.index.json", data, size);
    open_model();
    fuzz_drop("model.safetensors.index.json");
}

static void as_adapter(const uint8_t *data, size_t size)
{
    hf_adapter ad = {0};

    fuzz_put_file("adapter_model.safetensors",
                  "golden/adapters/patterns/adapter_model.safetensors");
    fuzz_put("adapter_config.json", data, size);
    if (hf_adapter_open(&ad, fuzz_dir(), NULL) == DR_OK)
        hf_adapter_release(&ad);
    fuzz_inspect(fuzz_dir());
    fuzz_drop("adapter_config.json");
}

/* The family whose weights are beside it: one of two, by a word that Phi-3's has. */
static void as_config(const uint8_t *data, size_t size)
{
    fuzz_put_file("model.safetensors", has(data, size, "Phi3")
                                           ? "golden/hf/phi3/model.safetensors"
                                           : "golden/hf/llama/model.safetensors");
    fuzz_put("config.json", data, size);
    open_model();
    fuzz_inspect(fuzz_dir());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin();
    fuzz_put_file("config.json", "golden/hf/llama/config.json");
    fuzz_drop("generation_config.json");
    if (has(data, size, "weight_map")) {
        as_index(data, size);
    } else if (has(data, size, "peft_type")) {
        as_adapter(data, size);
    } else if (has(data, size, "do_sample")) {
        fuzz_put_file("model.safetensors", "golden/hf/llama/model.safetensors");
        fuzz_put("generation_config.json", data, size);
        open_model();
    } else {
        as_config(data, size);
    }
    return 0;
}
