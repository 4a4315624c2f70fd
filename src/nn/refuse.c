/*
 * refuse.c - what a family has that the forward here does not compute yet.  Such a model is
 * refused by name before anything is computed, since its numbers would be wrong.
 */
#include "nn/decoder_impl.h"

dr_status nn_refuse(const hf_config *c)
{
    const struct {
        bool has;
        const char *what;
    } parts[] = {
        {c->experts.count > 0, "mixture of experts"},
        {c->sinks, "attention sinks"},
    };

    for (size_t i = 0; i < DR_COUNT(parts); i++) {
        if (!parts[i].has)
            continue;
        dr_status st =
            dr_fail(DR_EUNSUPPORTED, "quantize/finetune: %s's %s is not supported yet",
                    c->arch_name, parts[i].what);
        dr_hint("capture-onnx-graph and auto-opt take it");
        return st;
    }
    return DR_OK;
}
