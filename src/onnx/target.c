/*
 * target.c - the providers that graphs are made for, and what their graphs have.
 *
 * TO ADD a provider: a value of onnx_provider, a row here, its goldens in
 * tools/oracle/graph_goldens.py and its rows in docs/EXPORT.md.
 */
#include <string.h>
#include <strings.h>

#include "core/param.h"
#include "onnx/build_impl.h"

enum {
    FP32 = 1 << ONNX_FP32,
    FP16 = 1 << ONNX_FP16,
    BF16 = 1 << ONNX_BF16,
    INT8 = 1 << ONNX_INT8,
    INT4 = 1 << ONNX_INT4,
    INT2 = 1 << ONNX_INT2
};

static const onnx_target targets[ONNX_PROVIDER_COUNT] = {
    [ONNX_CPU] = {.name = "CPUExecutionProvider",
                  .short_name = "cpu",
                  .device = "cpu",
                  .precisions = FP32 | INT8 | INT4 | INT2,
                  .accuracy = true,
                  .fused_matmul = true,
                  .any_table = true,
                  .experts = true,
                  .own_gelu = true},
    [ONNX_CUDA] = {.name = "CUDAExecutionProvider",
                   .short_name = "cuda",
                   .device = "gpu",
                   .precisions = FP16 | BF16 | INT8 | INT4,
                   .option = "enable_cuda_graph",
                   .option_value = "0",
                   .fused_matmul = true},
    [ONNX_DML] = {.name = "DmlExecutionProvider",
                  .short_name = "dml",
                  .device = "gpu",
                  .precisions = FP16 | INT4,
                  .option = "enable_graph_capture",
                  .option_value = "1",
                  .split_qkv = true,
                  .whole_tables = true},
    [ONNX_WEBGPU] = {.name = "WebGpuExecutionProvider",
                     .short_name = "webgpu",
                     .device = "gpu",
                     .precisions = INT8 | INT4,
                     .option = "enableGraphCapture",
                     .option_value = "0",
                     .accuracy = true},
    [ONNX_TRT_RTX] = {.name = "NvTensorRTRTXExecutionProvider",
                      .short_name = "NvTensorRtRtx",
                      .device = "gpu",
                      .precisions = FP16 | BF16 | INT4,
                      .option = "enable_cuda_graph",
                      .option_value = "1",
                      .split_norm = true,
                      .qdq = true,
                      .whole_tables = true},
};

static const char *const precisions[ONNX_PRECISION_COUNT] = {"fp32", "fp16", "bf16",
                                                             "int8", "int4", "int2"};

static const char fixed[] = "its graphs have fixed shapes: NpuModelBuilder makes them";

/* Olive's other providers, and why no graph of any shape is made for them. */
static const struct {
    const char *name, *short_name, *why;
} refused[] = {
    {"QNNExecutionProvider", "qnn", fixed},
    {"OpenVINOExecutionProvider", "openvino", fixed},
    {"VitisAIExecutionProvider", "vitisai", fixed},
    {"TensorrtExecutionProvider", "tensorrt", "GroupQueryAttention is unknown to it"},
    {"ROCMExecutionProvider", "rocm", "onnxruntime has dropped it"},
    {"MIGraphXExecutionProvider", "migraphx", "its graphs are not known here"},
    {"JsExecutionProvider", "js", "WebGPU has taken its place"},
    {"XnnpackExecutionProvider", "xnnpack", "it has no MatMulNBits"},
    {"CoreMLExecutionProvider", "coreml", "its graphs are not known here"},
};

const onnx_target *onnx_target_of(onnx_provider p)
{
    DR_BUG_IF(p >= ONNX_PROVIDER_COUNT);
    return &targets[p];
}

const char *onnx_precision_name(onnx_precision p)
{
    DR_BUG_IF(p >= ONNX_PRECISION_COUNT);
    return precisions[p];
}

const char *onnx_provider_name(onnx_provider p)
{
    return onnx_target_of(p)->name;
}

const char *onnx_provider_short(onnx_provider p)
{
    return onnx_target_of(p)->short_name;
}

const char *onnx_provider_device(onnx_provider p)
{
    return onnx_target_of(p)->device;
}

dr_status onnx_provider_parse(onnx_provider *out, const char *text)
{
    const char *names[2 * ONNX_PROVIDER_COUNT];
    dr_status st;

    for (int i = 0; i < ONNX_PROVIDER_COUNT; i++) {
        if (strcasecmp(text, targets[i].name) == 0 ||
            strcasecmp(text, targets[i].short_name) == 0) {
            *out = (onnx_provider)i;
            return DR_OK;
        }
        names[2 * i] = targets[i].name;
        names[2 * i + 1] = targets[i].short_name;
    }
    for (size_t i = 0; i < DR_COUNT(refused); i++) {
        if (strcasecmp(text, refused[i].name) == 0 ||
            strcasecmp(text, refused[i].short_name) == 0)
            return dr_fail(DR_EUSAGE, "provider %s: %s", refused[i].name,
                           refused[i].why);
    }
    st = dr_fail(DR_EUSAGE, "provider: no such provider: \"%s\"", text);
    const char *near = dr_nearest(text, names, DR_COUNT(names));
    if (near != NULL)
        dr_hint("%s is one", near);
    else
        dr_hint("there are CPU-, CUDA-, Dml-, WebGpu- and NvTensorRTRTXExecutionProvider");
    return st;
}

/* ---- precision ---- */

static bool fits(onnx_provider p, onnx_precision precision)
{
    return (onnx_target_of(p)->precisions >> precision & 1) != 0;
}

onnx_precision onnx_precision_default(onnx_provider p, bool packed)
{
    if (packed)
        return ONNX_INT4;
    return fits(p, ONNX_FP32) ? ONNX_FP32 : fits(p, ONNX_FP16) ? ONNX_FP16 : ONNX_INT4;
}

dr_status onnx_precision_check(onnx_provider p, onnx_precision precision)
{
    char list[64] = "";
    size_t at = 0;
    const char *why = "the provider has no kernels for it";

    if (fits(p, precision))
        return DR_OK;
    for (int i = 0; i < ONNX_PRECISION_COUNT; i++) {
        if (!fits(p, (onnx_precision)i))
            continue;
        int n = snprintf(list + at, sizeof(list) - at, "%s%s", at > 0 ? ", " : "",
                         precisions[i]);
        at += n > 0 ? (size_t)n : 0;
        DR_BUG_IF(at >= sizeof(list));
    }
    if (p == ONNX_CPU && precision == ONNX_FP16)
        why = "onnxruntime has few CPU kernels for it and casts around the others";
    else if (p == ONNX_CUDA && precision == ONNX_FP32)
        why = "GroupQueryAttention has no fp32 kernel there";
    dr_status st = dr_fail(DR_EUSAGE, "precision %s for %s: %s",
                           precisions[precision], onnx_target_of(p)->name, why);
    dr_hint("it takes %s", list);
    return st;
}

int onnx_precision_bits(onnx_precision p)
{
    switch (p) {
    case ONNX_INT8:
        return 8;
    case ONNX_INT4:
        return 4;
    case ONNX_INT2:
        return 2;
    case ONNX_FP32:
    case ONNX_FP16:
    case ONNX_BF16:
    case ONNX_PRECISION_COUNT:
        break;
    }
    return 0;
}

onnx_type onnx_float_type(const onnx_options *o)
{
    if (o->precision == ONNX_FP32 || o->provider == ONNX_CPU || o->webgpu_fp32)
        return ONNX_FLOAT;
    return o->precision == ONNX_BF16 || o->cuda_bf16 ? ONNX_BFLOAT16 : ONNX_FLOAT16;
}
