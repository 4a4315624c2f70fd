/*
 * ref_impl.h - the operations of the reference device, one for each row of ops.def.
 */
#ifndef DRUPE_NN_REF_REF_IMPL_H
#define DRUPE_NN_REF_REF_IMPL_H

#include "nn/nn_impl.h"

#define NN_OP(op, params, args) dr_status ref_##op params;
#include "nn/ops.def"
#include "nn/quant_ops.def"
#undef NN_OP

#endif
