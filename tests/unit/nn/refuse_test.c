/*
 * refuse_test.c - a model of which the forward would compute something else is refused.
 */
#include "check.h"
#include "family.h"
#include "nn/nn.h"

int main(void)
{
    static const struct {
        const char *name, *text;
    } refused[] = {
        {"qwen3_moe", "Qwen3MoeForCausalLM's mixture of experts"},
        {"gpt_oss", "GptOssForCausalLM's mixture of experts"},
    };
    dr_arena arena = {0};
    nn_device *dev = NULL;

    CHECK_OK(nn_device_open(&dev, "ref", 1));
    for (size_t i = 0; i < DR_COUNT(family_names); i++) {
        json_t *golden = family_golden(&arena, family_names[i]);
        const json_t *config = json_object_get(json_object_get(golden, "configs"), "5");
        const char *text = NULL;
        nn_decoder *d = NULL;
        hf_model *m = NULL;
        for (size_t k = 0; k < DR_COUNT(refused); k++)
            text = strcmp(refused[k].name, family_names[i]) == 0 ? refused[k].text : text;
        CHECK_OK(
            hf_model_open(&m, family_model(&arena, family_names[i], golden, config, 1)));
        if (CHECK_STATUS(nn_decoder_open(&d, dev, m, 0),
                         text == NULL ? DR_OK : DR_EUNSUPPORTED) &&
            text != NULL)
            CHECK_TRAIL(text);
        nn_decoder_close(d);
        hf_model_close(m);
        json_decref(golden);
    }
    nn_device_close(dev);
    dr_arena_release(&arena);
    return check_done();
}
