/*
 * tokenizer_fuzz.c - tokenizer.json, and tokenizer_config.json where the input has two
 * texts with a NUL between them.
 */
#include "fuzz/fuzz_tok.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size > 0 ? memchr(data, 0, size) : NULL;
    const size_t first = nul != NULL ? (size_t)(nul - data) : size;
    tok_tokenizer *t = NULL;

    fuzz_begin();
    dr_log_level(DR_CRITICAL);
    fuzz_put("tokenizer.json", data, first);
    if (nul != NULL)
        fuzz_put("tokenizer_config.json", nul + 1, size - first - 1);
    else
        fuzz_drop("tokenizer_config.json");
    if (tok_open(&t, fuzz_dir()) == DR_OK)
        fuzz_use_tokenizer(t);
    tok_close(t);
    return 0;
}
