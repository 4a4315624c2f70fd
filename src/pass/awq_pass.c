/*
 * awq_pass.c - the AutoAWQQuantizer pass: Hugging Face model in, packed 4-bit model out.
 */
#include "pass/quantize_impl.h"

typedef struct {
    int bits;
    int q_group_size;
    bool zero_point;
    bool duo_scaling;
    bool apply_clip;
    bool exact;
    pass_modules modules;
} awq;

static const dr_param params[] = {
    DR_INT(awq, bits, .dflt = "4", .min = 2, .max = 8,
           .help = "bits per weight: 2, 3 (stored as 4), 4, 8; all but 4 need format gptq"),
    DR_INT(awq, q_group_size, .dflt = "128", .search = "[32, 64, 128]", .min = -1,
           .max = 1024, .help = "input channels that share a scale; -1: a whole row"),
    DR_BOOL(awq, zero_point, .dflt = "true", .help = "asymmetric grid"),
    DR_BOOL(awq, duo_scaling, .dflt = "true", .help = "scale by the weights too"),
    DR_BOOL(awq, apply_clip, .dflt = "true", .help = "search a clipping of each group"),
    DR_BOOL(awq, exact, .dflt = "false",
            .help = "AutoAWQ's very search, without drupe's improvements"),
    PASS_MODULES_ROWS(awq, "awq"),
    DR_REFUSED("input_model_dtype", "weights are read as they are stored", NULL),
    DR_REFUSED("version", "awq's layout is gemm, which transformers reads", "format"),
    DR_REFUSED("export_compatible", "every result can be exported", NULL),
    DR_REFUSED("data_config", "data sets by name are those of workflow files", NULL),
};

static quant_grid grid_of(const awq *c)
{
    return (quant_grid){c->bits, c->q_group_size, !c->zero_point};
}

static dr_status validate(const void *config, const unsigned char *given)
{
    const awq *c = config;
    const quant_grid grid = grid_of(c);
    dr_status st = DR_OK;

    (void)given;
    DR_TRY(pass_check_group("q_group_size", c->q_group_size));
    DR_TRY(pass_modules_check(&c->modules, &grid, HF_QUANT_AWQ));
done:
    return st;
}

static dr_status quantize(const quant_site *site, const quant_grid *grid,
                          const quant_calib *calib, const void *config)
{
    const awq *c = config;
    const quant_awq_options o = {c->duo_scaling, c->apply_clip, c->exact};

    return quant_awq(site, grid, calib, &o);
}

static pass_quant_plan quant_plan(const void *config)
{
    const awq *c = config;

    return (pass_quant_plan){.layout = HF_QUANT_AWQ,
                             .modules = &c->modules,
                             .grid = grid_of(c),
                             .calib_samples = 16,
                             .calib_seq_len = 512,
                             /* exact: 20 trials of the layer's outputs, most of them
                              * on a part of the text */
                             .forwards = c->exact ? 8 : 1.5,
                             .quantize = quantize};
}

extern const pass_def pass_awq; /* PASS(awq) in pass/passes.def */
const pass_def pass_awq = {
    .name = "AutoAWQQuantizer",
    .version = 4,
    .summary = "activation-aware weight quantization",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .needs_data = true,
    .shared = true,
    .config_size = sizeof(awq),
    .params = params,
    .params_count = DR_COUNT(params),
    .validate = validate,
    .estimate = pass_quantize_estimate,
    .run = pass_quantize,
    .quant_plan = quant_plan,
};
