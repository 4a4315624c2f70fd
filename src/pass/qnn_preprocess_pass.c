/*
 * qnn_preprocess_pass.c - the QNNPreprocess pass: a graph made ready for QNN, as
 * onnxruntime's qnn_preprocess_model does it.
 */
#include "pass/optimized_impl.h"

typedef struct {
    pass_external external;
    bool fuse_layernorm;
    const char *inputs_to_make_channel_last, *outputs_to_make_channel_last;
} preprocess;

static const dr_param params[] = {
    DR_BOOL(preprocess, fuse_layernorm, .dflt = "false",
            .help = "LayerNormalization where it is written out, too"),
    DR_STR(preprocess, inputs_to_make_channel_last, .dflt = "null", .listed = true,
           .help = "inputs N, C, D1, ... that become N, D1, ..., C"),
    DR_STR(preprocess, outputs_to_make_channel_last, .dflt = "null", .listed = true,
           .help = "outputs, likewise"),
    PASS_EXTERNAL_ROWS,
};

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const preprocess *c = job->config;
    onnx_names inputs = pass_names(job->arena, c->inputs_to_make_channel_last);
    onnx_names outputs = pass_names(job->arena, c->outputs_to_make_channel_last);
    dr_status st = DR_OK;

    (void)in;
    DR_TRY(onnx_prepare_for_qnn(e, c->fuse_layernorm));
    if (inputs != NULL || outputs != NULL)
        DR_TRY(onnx_channels_last(e, inputs, outputs));
    onnx_set_metadata(e, "onnx.infer", "onnxruntime.tools.qnn.preprocess");
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_optimized(job, out, in, ORT_LEVEL_BASIC, change);
}

extern const pass_def pass_qnn_preprocess; /* PASS(qnn_preprocess) */
const pass_def pass_qnn_preprocess = {
    .name = "QNNPreprocess",
    .version = 1,
    .summary = "a graph made ready for QNN's quantizer",
    PASS_REWRITE_EACH(preprocess, params),
    .validate = pass_external_validate,
    .run = run,
};
