/*
 * adapter_impl.h - the writers behind onnx_adapter_save.
 */
#ifndef DRUPE_ONNX_ADAPTER_IMPL_H
#define DRUPE_ONNX_ADAPTER_IMPL_H

#include "onnx/onnx.h"

DR_MUST_USE dr_status adapter_write_flat(const char *path, const dr_tensor *tensors,
                                         size_t count);
/* numpy.savez's archive: NAME.npy each, stored.  BF16 has no dtype there:
 * DR_EUNSUPPORTED. */
DR_MUST_USE dr_status adapter_write_npz(const char *path, const dr_tensor *tensors,
                                        size_t count);

#endif
