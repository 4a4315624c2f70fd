/*
 * mixed_precision_pass.c - the OrtMixedPrecision pass: float16 but for operators that lose
 * by it, and for the head where its weight was no float16 to begin with.
 */
#include "pass/rewrite_impl.h"

typedef struct {
    pass_external external;
    const char *op_block_list;
    double atol;
} mixed_precision;

static const dr_param params[] = {
    DR_STR(mixed_precision, op_block_list,
           .dflt = "SimplifiedLayerNormalization,SkipSimplifiedLayerNormalization,Relu,Add",
           .listed = true, .help = "operators that stay float32"),
    DR_FLOAT(mixed_precision, atol, .dflt = "1e-6", .min = 0, .max = 1,
             .help = "a head's weight that is nearer to float16 was float16 before"),
    PASS_EXTERNAL_ROWS,
};

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const mixed_precision *c = job->config;
    const char *keep[] = {NULL, NULL};
    const char *output = onnx_rewrite_output(e, 0);
    onnx_half_options o = {.min_positive = 1e-7,
                           .max_finite = 1e4,
                           .op_block = pass_names(job->arena, c->op_block_list)};
    double loss = -1;
    dr_status st = DR_OK;

    (void)in;
    DR_TRY(onnx_half_loss(e, &keep[0], &loss));
    if (loss >= c->atol) { /* its logits stay float32, too */
        const char **names = dr_arena_alloc(job->arena, 2, sizeof(*names));
        names[0] = output;
        o.node_block = keep;
        o.keep_io = true;
        o.keep_names = names;
    }
    DR_TRY(onnx_to_half(e, &o));
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    return pass_rewrite(job, out, in, change);
}

extern const pass_def pass_mixed_precision; /* PASS(mixed_precision) */
const pass_def pass_mixed_precision = {
    .name = "OrtMixedPrecision",
    .version = 1,
    .summary = "float16 where it costs nothing",
    PASS_REWRITE_EACH(mixed_precision, params),
    .validate = pass_external_validate,
    .run = run,
};
