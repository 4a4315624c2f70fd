/*
 * int8.c - what passes that round a graph to 8 bits have in common.
 */
#include "pass/int8_impl.h"

const char *const pass_int8_precisions[] = {"int8", "uint8", NULL};
const char *const pass_tristate[] = {"false", "true", NULL};

dr_status pass_int8_validate(const pass_int8 *c, const unsigned char *given)
{
    (void)given;
    if (c->op_types_to_quantize != NULL && c->op_types_to_exclude != NULL)
        return dr_fail(DR_EUSAGE, "op_types_to_quantize and op_types_to_exclude contradict "
                                  "each other");
    return DR_OK;
}

onnx_int8_options pass_int8_options(dr_arena *a, const pass_int8 *c)
{
    const bool is_signed = c->precision == 0;

    return (onnx_int8_options){
        .is_signed = is_signed,
        .symmetric = c->weight_symmetric >= 0 ? c->weight_symmetric == 1 : is_signed,
        .per_channel = c->per_channel,
        .reduce_range = c->reduce_range,
        .op_types = pass_names(a, c->op_types_to_quantize),
        .op_exclude = pass_names(a, c->op_types_to_exclude),
        .nodes = pass_names(a, c->nodes_to_quantize),
        .exclude = pass_names(a, c->nodes_to_exclude)};
}
