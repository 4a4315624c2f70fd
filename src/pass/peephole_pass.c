/*
 * peephole_pass.c - the OnnxPeepholeOptimizer pass: what a graph computes that it need not.
 *
 * Constants are folded by ONNX Runtime's basic optimizations, which hold for any provider;
 * the rest is onnx_tidy's.
 */
#include "pass/optimized_impl.h"

typedef struct {
    pass_external external;
    bool onnxscript_optimize, onnxoptimizer_optimize, fuse_reshape_operations;
    bool fix_com_microsoft_opset, cast_chain_elimination;
} peephole;

static const dr_param params[] = {
    DR_BOOL(peephole, onnxscript_optimize, .dflt = "true",
            .help = "constants are folded, by the runtime"),
    DR_BOOL(peephole, onnxoptimizer_optimize, .dflt = "true",
            .help = "nodes of no effect and double ones go"),
    DR_BOOL(peephole, fuse_reshape_operations, .dflt = "true",
            .help = "of two Reshapes the second is left"),
    DR_BOOL(peephole, fix_com_microsoft_opset, .dflt = "false",
            .help = "com.microsoft is imported, whether it is used or not"),
    DR_BOOL(peephole, cast_chain_elimination, .dflt = "false",
            .help = "casts to a narrower type and back go, which changes values"),
    PASS_EXTERNAL_ROWS,
};

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const peephole *c = job->config;

    (void)in;
    if (c->fix_com_microsoft_opset)
        onnx_import(e, "com.microsoft", 1);
    return onnx_tidy(e, &(onnx_tidy_options){.general = c->onnxoptimizer_optimize,
                                             .reshapes = c->fuse_reshape_operations,
                                             .casts = c->cast_chain_elimination});
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const peephole *c = job->config;

    return pass_optimized(job, out, in, c->onnxscript_optimize ? ORT_LEVEL_BASIC : -1,
                          change);
}

extern const pass_def pass_peephole; /* PASS(peephole) */
const pass_def pass_peephole = {
    .name = "OnnxPeepholeOptimizer",
    .version = 1,
    .summary = "constants folded, nodes of no effect taken out",
    PASS_REWRITE_EACH(peephole, params),
    .validate = pass_external_validate,
    .run = run,
};
