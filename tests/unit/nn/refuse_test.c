/*
 * refuse_test.c - a model of which the forward would compute something else is refused.
 */
#include "check.h"
#include "family.h"
#include "nn/nn.h"

int main(void)
{
    static const struct {
        const char *name, *text; /* NULL: it opens */
    } rows[] = {
        {"llama2", NULL},
        {"llama_yarn", NULL},
        {"mistral", NULL},
        {"phi4mini", NULL},
        {"qwen2", "Qwen2ForCausalLM's window of some layers"},
        {"qwen3", "Qwen3ForCausalLM's norm of queries and keys"},
        {"smollm3", "SmolLM3ForCausalLM's rotation that differs from layer to layer"},
        {"phi2", "PhiForCausalLM's LayerNorm"},
        {"stablelm", "StableLmForCausalLM's LayerNorm"},
        {"gemma", "GemmaForCausalLM's gelu"},
        {"granite", "GraniteForCausalLM's embedding multiplier"},
        {"olmo2", "Olmo2ForCausalLM's norm of queries and keys"},
    };
    dr_arena arena = {0};
    nn_device *dev = NULL;

    CHECK_OK(nn_device_open(&dev, "ref", 1));
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        json_t *golden = family_golden(&arena, rows[i].name);
        const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");
        nn_decoder *d = NULL;
        hf_model *m = NULL;
        CHECK_OK(hf_model_open(&m, family_model(&arena, rows[i].name, golden, config, 1)));
        if (CHECK_STATUS(nn_decoder_open(&d, dev, m, 0),
                         rows[i].text == NULL ? DR_OK : DR_EUNSUPPORTED) &&
            rows[i].text != NULL)
            CHECK_TRAIL(rows[i].text);
        nn_decoder_close(d);
        hf_model_close(m);
        json_decref(golden);
    }
    nn_device_close(dev);
    dr_arena_release(&arena);
    return check_done();
}
