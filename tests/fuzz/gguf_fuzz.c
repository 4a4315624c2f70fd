/*
 * gguf_fuzz.c - a GGUF file: its model, the tokenizer rebuilt from it, and the same looked
 * at by inspect.
 */
#include "fuzz/fuzz_inspect.h"
#include "fuzz/fuzz_model.h"
#include "fuzz/fuzz_tok.h"

static void use_vocabulary(const hf_model *m)
{
    json_t *tokenizer = NULL, *config = NULL;
    tok_tokenizer *t = NULL;

    if (hf_model_tokenizer(m, &tokenizer, &config) == DR_OK &&
        tok_open_json(&t, tokenizer, config, "input.gguf") == DR_OK)
        fuzz_use_tokenizer(t);
    tok_close(t);
    json_decref(tokenizer);
    json_decref(config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[256];
    hf_model *m = NULL;

    fuzz_begin();
    dr_log_level(DR_CRITICAL);
    fuzz_put("input.gguf", data, size);
    if (hf_model_open(&m, fuzz_path(path, "input.gguf")) == DR_OK) {
        fuzz_use_model(m);
        use_vocabulary(m);
        fuzz_inspect(path);
    }
    hf_model_close(m);
    return 0;
}
