/*
 * quantize.c - the frame of every quantizing pass.
 */
#include "pass/quantize_impl.h"

#include <stdlib.h>

#include "core/file.h"
#include "core/log.h"
#include "core/mem.h"
#include "pass/eval_impl.h"
#include "pass/quant_report_impl.h"
#include "pass/shared_impl.h"

enum {
    MEMORY_BASE = 64 << 20,
    JUDGE_SEQ_LEN = 512,
    JUDGE_BLOCKS = 16,
    MIX_BLOCKS = 16,   /* of text that weighs errors, for a quantizer that reads none */
    MIX_FORWARDS = 3,  /* its work, in forward passes */
    HEAD_SLICE = 8192, /* rows of the head at a time */
    GROUP_MIN = 16,
    GROUP_MAX = 1024,
    WRITERS = 12
};

dr_status pass_check_group(const char *name, int group)
{
    if (group == -1 ||
        (group >= GROUP_MIN && group <= GROUP_MAX && (group & (group - 1)) == 0))
        return DR_OK;
    return dr_fail(DR_EUSAGE,
                   "%s: expected -1 (a whole row) or a power of two from %d to %d, "
                   "found %d",
                   name, GROUP_MIN, GROUP_MAX, group);
}

/* Do all ranks judge, each a share?  Those of other hosts may not see what the first one
 * writes. */
static bool judges(const pass_job *job)
{
    const dr_ranks *r = job->device->ranks;

    return dr_ranks_local_count(r) == dr_ranks_count(r) &&
           dr_ranks_count(r) <= JUDGE_BLOCKS;
}

/* What the judge found; errors: of each layer, on the first block. */
typedef struct {
    quant_quality quality;
    quant_layer_error *errors; /* owned */
} judgement;

/* The judge: built-in text that never calibrates, shared among ranks where all see the
 * result.  Layers are the first one's. */
static dr_status judge(const pass_job *job, judgement *found, nn_device *dev,
                       const hf_model *before, const hf_model *after,
                       const tok_tokenizer *t, bool layers)
{
    dr_ranks *ranks = judges(job) ? job->device->ranks : NULL;
    const data_options o = {.max_seq_len = pass_at_most_context(JUDGE_SEQ_LEN, before),
                            .max_samples = JUDGE_BLOCKS,
                            .held_out = true};
    data_blocks blocks = {0};
    data_texts texts = {0};
    dr_status st = DR_OK;

    DR_TRY(pass_text_blocks(&blocks, &texts, job->arena, &o, t));
    const quant_calib text = {blocks.ids, blocks.count, blocks.seq_len};
    if (layers && dr_ranks_first(job->device->ranks))
        found->errors =
            dr_calloc((size_t)hf_model_config(before)->layers, sizeof(*found->errors));
    DR_TRYF(quant_compare_layers(&found->quality, found->errors, dev, before, after, &text,
                                 ranks),
            "judging the result");
done:
    data_blocks_release(&blocks);
    return st;
}

static dr_status tell(const pass_job *job, const hf_model *in, const hf_model *made,
                      const quant_grid *grid, const quant_quality *q)
{
    uint64_t in_bytes = hf_model_weight_bytes(in), out_bytes = hf_model_weight_bytes(made);
    static const eval_names names = {"perplexity before", "perplexity_before",
                                     "perplexity after", "perplexity_after"};
    bool packed = hf_model_quant(made).method != HF_QUANT_NONE;
    json_t *r = job->report;
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(job->text, "weights        %s\n", hf_model_origin(in)));
    if (packed)
        DR_TRY(dr_buf_addf(job->text, "grid           %d bits, group %d, %s\n", grid->bits,
                           grid->group_size,
                           grid->symmetric ? "symmetric" : "zero points"));
    DR_TRY(dr_buf_addf(job->text, "%-14s %14s %14s\n", "", "before", "after"));
    DR_TRY(dr_buf_addf(job->text, "%-14s %14llu %14llu\n", "bytes",
                       (unsigned long long)in_bytes, (unsigned long long)out_bytes));
    json_object_set_new(r, "origin", json_string(hf_model_origin(in)));
    json_object_set_new(r, "bytes_before", json_integer((json_int_t)in_bytes));
    json_object_set_new(r, "bytes_after", json_integer((json_int_t)out_bytes));
    if (packed) {
        json_object_set_new(r, "bits", json_integer(grid->bits));
        json_object_set_new(r, "group_size", json_integer(grid->group_size));
        json_object_set_new(r, "symmetric", json_boolean(grid->symmetric));
    }
    if (q == NULL) {
        DR_TRY(dr_buf_adds(job->text, "not measured: --no_evaluate\n"));
        goto done;
    }
    DR_TRY(eval_quality(job->text, r, q, &names));
    DR_TRY(dr_buf_addf(job->text,
                       "judged on %zu tokens of built-in text that did not "
                       "calibrate, %zu blocks\n",
                       q->tokens, q->blocks));
    DR_TRY(eval_limit(job->text, r, "KL", q->kl, job->max_kl));
done:
    return st;
}

static dr_status fit_group(quant_grid *grid, const hf_model *m)
{
    int wanted = grid->group_size;
    dr_status st = DR_OK;

    DR_TRY(quant_fit_group(&grid->group_size, m, wanted));
    if (grid->group_size != wanted)
        dr_warn_result("group size %d does not divide every width of this model; using %d",
                       wanted, grid->group_size);
done:
    return st;
}

/* The quantizer's plan; bits by measured error and training need text whatever rounds. */
static pass_quant_plan plan_of(const pass_job *job, const pass_model *in)
{
    pass_quant_plan plan = job->def->quant_plan(job->config);

    if ((plan.modules->max_size != NULL || plan.modules->distill_steps > 0) &&
        plan.calib_samples == 0) {
        plan.calib_samples = MIX_BLOCKS;
        plan.calib_seq_len = JUDGE_SEQ_LEN;
    }
    if (plan.modules->max_size != NULL)
        plan.forwards += MIX_FORWARDS;
    if (in->mix != NULL) {
        pass_modules *mixed = dr_arena_alloc(job->arena, 1, sizeof(*mixed));
        *mixed = *plan.modules;
        mixed->mixed = in->mix->rule;
        mixed->ratio = in->mix->ratio;
        plan.modules = mixed;
        plan.grid = (quant_grid){in->mix->bits, in->mix->group_size, in->mix->symmetric};
    }
    return plan;
}

/* The choice of a pass before this one has a place in it. */
static dr_status check_mix(const pass_job *job, const pass_model *in,
                           const pass_quant_plan *plan)
{
    dr_status st = DR_OK;

    if (in->mix == NULL)
        goto done;
    if (plan->layout == HF_QUANT_NONE)
        DR_FAIL(DR_EUSAGE, "%s: SelectiveMixedPrecision chooses for a quantizer",
                job->def->name);
    if (pass_mix_asked(job->def->quant_plan(job->config).modules))
        DR_FAIL(DR_EUSAGE, "%s: mixed, max_size: SelectiveMixedPrecision has chosen",
                job->def->name);
    DR_TRY(pass_modules_check(plan->modules, &plan->grid, plan->layout));
done:
    return st;
}

/* Bits and groups by slot, where they are asked for. */
static dr_status mix(const pass_job *job, pass_choices *chosen, nn_device *dev,
                     const hf_model *m, const quant_grid *grid, const data_blocks *blocks,
                     const pass_quant_plan *plan)
{
    const quant_calib calib = {blocks->ids, blocks->count, blocks->seq_len};
    dr_progress progress;
    const quant_site site = {.dev = dev,
                             .in = m,
                             .progress = plan->modules->max_size ? &progress : NULL,
                             .resume = job->killed};
    dr_status st = DR_OK;

    if (site.progress != NULL)
        dr_progress_begin(&progress, "weighing errors", "layers",
                          (size_t)hf_model_config(m)->layers);
    st = pass_mix(chosen, job->arena, &site, grid, plan->modules,
                  pass_layout_of(plan->modules, plan->layout), &calib);
    if (site.progress != NULL)
        dr_progress_end(&progress);
    return st;
}

/* The quantizer proper, into dir. */
static dr_status quantize_into(const pass_job *job, const char *dir, nn_device *dev,
                               const hf_model *m, const quant_grid *grid,
                               const pass_choices *chosen, const data_blocks *blocks,
                               const pass_quant_plan *plan)
{
    const hf_quant_method method = pass_layout_of(plan->modules, plan->layout);
    const hf_quant layout = {method, quant_stored_bits(grid), grid->group_size,
                             grid->symmetric};
    const quant_calib calib = {blocks->ids, blocks->count, blocks->seq_len};
    hf_writer *writer = NULL;
    dr_progress progress;
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(dir));
    DR_TRY(hf_writer_open(&writer, dir, m, method == HF_QUANT_NONE ? NULL : &layout));
    DR_TRY(pass_choices_formats(writer, chosen, m, method));
    if (!dr_ranks_first(job->device->ranks))
        hf_writer_mute(writer);
    if (job->killed != NULL)
        hf_writer_keep(writer, dr_resume_dir(job->killed));
    if (nn_mem_apart(dev)) /* the host has little else to do */
        DR_TRY(hf_writer_behind(writer, WRITERS));
    const quant_site site = {.dev = dev,
                             .in = m,
                             .out = writer,
                             .progress = &progress,
                             .choices = chosen->layers,
                             .head = chosen->head ? &chosen->head_grid : NULL,
                             .embed = chosen->embed ? &chosen->embed_grid : NULL,
                             .outer_stays =
                                 !plan->rotates && !chosen->head && !chosen->embed,
                             .shared = true,
                             .resume = job->killed};
    dr_progress_begin(&progress, "quantizing", "layers",
                      (size_t)hf_model_config(m)->layers);
    DR_TRY(plan->quantize(&site, grid, &calib, job->config));
    dr_progress_end(&progress);
    DR_TRY(hf_writer_finish(writer));
    hf_writer_close(writer); /* its memory before distilling, which needs more */
    writer = NULL;
    if (plan->modules->distill_steps > 0)
        DR_TRY(pass_distill(job, dir, dev, m, &layout, chosen, plan->modules, &calib));
done:
    hf_writer_close(writer);
    return st;
}

/* All ranks have read the same text, and there is some for each. */
static dr_status check_shares(dr_ranks *r, const data_blocks *b)
{
    dr_status st = DR_OK;

    DR_TRY(pass_same_text(r, b));
    if (b->count < dr_ranks_count(r))
        DR_FAIL(DR_EUSAGE, "calibration: %zu blocks of text for %zu processes", b->count,
                dr_ranks_count(r));
done:
    return st;
}

/* What the first rank has written; the others' folders are empty. */
static dr_status open_made(hf_model **made, const pass_job *job, const char *dir)
{
    dr_ranks *r = job->device->ranks;
    dr_status st = DR_OK;

    DR_TRY(dr_ranks_meet(r, "the rounded model"));
    if (!dr_ranks_first(r) && !judges(job))
        goto done;
    if (!dr_ranks_first(r))
        dir = dr_arena_printf(job->arena, "%s.tmp/model", job->final_dir);
    DR_TRYF(hf_model_open(made, dir), "reading the result back");
done:
    return st;
}

/* What can be said no to before any work. */
static dr_status check_input(const pass_job *job, const pass_model *in, const hf_model *m,
                             const pass_quant_plan *plan)
{
    const data_options *d = job->data;
    size_t ranks = dr_ranks_count(job->device->ranks);
    int64_t context = hf_model_config(m)->max_position;
    dr_status st = DR_OK;

    if (hf_model_quant(m).method != HF_QUANT_NONE) {
        st = dr_fail(DR_EUNSUPPORTED, "%s is quantized already (%s)", in->name,
                     hf_model_origin(m));
        dr_hint("start from the model that it was made from");
        goto done;
    }
    if (hf_model_config(m)->experts.count > 0) {
        st = dr_fail(DR_EUNSUPPORTED, "%s: the experts of %s are not quantized yet",
                     in->name, hf_model_config(m)->arch_name);
        dr_hint("auto-opt --precision int4 rounds them in the graph");
        goto done;
    }
    if (ranks > 1 && plan->modules->distill_steps > 0) {
        st = dr_fail(DR_EUSAGE, "distill_steps: one process trains, and %zu were started",
                     ranks);
        dr_hint("run it without mpirun");
        goto done;
    }
    if (in->adapter_count > 0) {
        st = dr_fail(DR_EUSAGE, "%s has an adapter, which quantizing would leave behind",
                     in->name);
        dr_hint("quantize the base alone, then give the adapter to auto-opt");
        goto done;
    }
    if (context > 0 && d->max_seq_len > (size_t)context)
        dr_warn_result("blocks of %zu tokens are longer than the model's context of %lld",
                       d->max_seq_len, (long long)context);
done:
    return st;
}

dr_status pass_quantize(const pass_job *job, pass_model *out, const pass_model *in)
{
    const pass_quant_plan planned = plan_of(job, in), *plan = &planned;
    const char *dir = dr_path_join(job->arena, job->out_dir, "model");
    quant_grid grid = plan->grid;
    judgement found = {0};
    pass_choices chosen = {0};
    data_blocks blocks = {0};
    hf_model *m = NULL, *made = NULL;
    tok_tokenizer *tok = NULL;
    nn_device *dev = NULL;
    dr_status st = DR_OK;

    DR_TRY(check_mix(job, in, plan));
    DR_TRYF(hf_model_open(&m, in->path), "opening the model to quantize");
    DR_TRY(check_input(job, in, m, plan));
    DR_TRY(fit_group(&grid, m));
    DR_TRY(pass_choose_modules(&chosen, job->arena, m, &grid, plan->modules));
    DR_TRY(pass_open_device(&dev, job->device));
    if (plan->calib_samples > 0 || job->evaluate)
        DR_TRYF(pass_open_tokenizer(&tok, m,
                                    "a model without tokenizer: --algorithm rtn "
                                    "--no_evaluate"),
                "reading the tokenizer, which calibration and measuring need");
    if (plan->calib_samples > 0) {
        const data_options data =
            pass_calibration_options(job, m, plan->calib_samples, plan->calib_seq_len);
        DR_TRYF(pass_calibration(&blocks, job, &data, dev, m, tok),
                "reading calibration text");
        DR_TRY(check_shares(job->device->ranks, &blocks));
    }
    DR_TRY(mix(job, &chosen, dev, m, &grid, &blocks, plan));
    DR_TRY(quantize_into(job, dir, dev, m, &grid, &chosen, &blocks, plan));
    DR_TRY(open_made(&made, job, dir));
    *out = (pass_model){.kind = PASS_MODEL_HF, .path = dir, .name = in->name};
    if (job->evaluate && made != NULL)
        DR_TRY(judge(job, &found, dev, m, made, tok, !plan->rotates));
    if (!dr_ranks_first(job->device->ranks))
        goto done;
    if (pass_mix_asked(plan->modules))
        DR_TRY(pass_mix_tell(job, &chosen, m));
    DR_TRY(tell(job, m, made, &grid, job->evaluate ? &found.quality : NULL));
    const pass_quant_outcome outcome = {.before = m,
                                        .after = made,
                                        .grid = &grid,
                                        .calib_blocks = blocks.count,
                                        .calib_seq_len = blocks.seq_len,
                                        .quality = job->evaluate ? &found.quality : NULL,
                                        .errors = found.errors};
    DR_TRYF(pass_quant_report(job, &outcome), "writing the report");
done:
    free(found.errors);
    data_blocks_release(&blocks);
    tok_close(tok);
    hf_model_close(made);
    hf_model_close(m);
    return st;
}

dr_status pass_quantize_estimate(const pass_job *job, const pass_model *in, pass_need *need)
{
    const pass_quant_plan planned = plan_of(job, in), *plan = &planned;
    hf_model *m = NULL;
    dr_status st = DR_OK;

    DR_TRY(hf_model_open(&m, in->path));
    const hf_config *c = hf_model_config(m);
    const data_options data =
        pass_calibration_options(job, m, plan->calib_samples, plan->calib_seq_len);
    uint64_t layer = pass_layer_elements(c), layers = (uint64_t)c->layers;
    uint64_t embed = pass_embed_elements(c), widest = (uint64_t)hf_slot_in(c, HF_SLOT_DOWN);
    uint64_t tokens = plan->calib_samples > 0 ? data.max_samples * data.max_seq_len : 0;
    uint64_t judged = job->evaluate ? JUDGE_SEQ_LEN * JUDGE_BLOCKS : 0;

    need->disk =
        layer * layers *
            (plan->layout == HF_QUANT_NONE ? 8 * dr_dtype_bytes(c->dtype)
                                           : (uint64_t)quant_stored_bits(&plan->grid) + 1) /
            8 +
        embed * dr_dtype_bytes(c->dtype) * (c->tied && !plan->rotates ? 1 : 2);
    need->memory = 3 * 4 * layer + MEMORY_BASE;
    if (tokens > 0) /* the residual stream of all tokens (in a parallel layer one more), two
                       Grams of the widest input */
        need->memory +=
            (c->parallel ? 12 : 8) * tokens * (uint64_t)c->hidden + 8 * widest * widest;
    if (plan->twice) /* its stream and attention outputs, a layer as floats and packed, two
                        more matrices of the widest input */
        need->memory += 4 * tokens * ((uint64_t)c->hidden + hf_slot_in(c, HF_SLOT_O)) +
                        6 * layer + 12 * widest * widest;
    if (plan->modules->lm_head ||
        plan->modules->embeds) /* packed, and a slice five times */
        need->memory += embed * 9 / 8 + (uint64_t)5 * 4 * HEAD_SLICE * (uint64_t)c->hidden;
    if (job->evaluate) /* the head as floats, and the hidden states of both models */
        need->memory += 4 * embed + 8 * judged * (uint64_t)c->hidden;
    need->seconds =
        pass_seconds(job, 2 * (double)(layer * layers) *
                                  (plan->forwards * (double)tokens + 2 * (double)judged) +
                              4 * (double)embed * (double)judged);
    if (tokens > 0) /* hidden states for a run after a kill, two of them in turn */
        need->disk += (plan->twice ? 16 : 8) * tokens * (uint64_t)c->hidden;
    if (tokens > 0)
        pass_calibration_need(need, job, &data, c);
    pass_distill_need(need, job, plan->modules, c, tokens, data.max_seq_len);
done:
    hf_model_close(m);
    return st;
}

/* ---- the grid ---- */

dr_status pass_grid_validate(const void *config, const unsigned char *given)
{
    const pass_grid *c = config;
    const quant_grid grid = {c->bits, c->group_size, c->sym};
    dr_status st = DR_OK;

    (void)given;
    DR_TRY(pass_check_group("group_size", c->group_size));
    DR_TRY(pass_modules_check(&c->modules, &grid, HF_QUANT_GPTQ));
done:
    return st;
}

pass_quant_plan pass_grid_plan(const void *config, pass_quantizer quantize)
{
    const pass_grid *c = config;

    return (pass_quant_plan){.layout = HF_QUANT_GPTQ,
                             .modules = &c->modules,
                             .grid = {c->bits, c->group_size, c->sym},
                             .quantize = quantize};
}
