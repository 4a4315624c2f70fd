/*
 * quantize.c - the frame of every quantizing pass.
 */
#include "pass/quantize_impl.h"

#include "core/file.h"
#include "core/log.h"
#include "pass/shared_impl.h"

enum {
    MEMORY_BASE = 64 << 20,
    JUDGE_SEQ_LEN = 512,
    JUDGE_BLOCKS = 16,
    GROUP_MIN = 16,
    GROUP_MAX = 1024
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

static size_t at_most_context(size_t tokens, const hf_model *m)
{
    int64_t context = hf_model_config(m)->max_position;

    return context > 0 && (uint64_t)context < tokens ? (size_t)context : tokens;
}

/* What the user said about calibration text, or the plan's own sizes. */
static data_options calib_options(const pass_job *job, const pass_quant_plan *plan,
                                  const hf_model *m)
{
    data_options o = *job->data;

    if (o.max_seq_len == 0)
        o.max_seq_len = at_most_context(plan->calib_seq_len, m);
    if (o.max_samples == 0)
        o.max_samples = plan->calib_samples;
    return o;
}

/* The judge: built-in text that never calibrates. */
static dr_status judge(const pass_job *job, quant_quality *q, nn_device *dev,
                       const hf_model *before, const hf_model *after,
                       const tok_tokenizer *t)
{
    const data_options o = {.max_seq_len = at_most_context(JUDGE_SEQ_LEN, before),
                            .max_samples = JUDGE_BLOCKS,
                            .held_out = true};
    data_blocks blocks = {0};
    data_texts texts = {0};
    dr_status st = DR_OK;

    DR_TRY(pass_text_blocks(&blocks, &texts, job->arena, &o, t));
    const quant_calib text = {blocks.ids, blocks.count, blocks.seq_len};
    DR_TRYF(quant_compare(q, dev, before, after, &text), "judging the result");
done:
    data_blocks_release(&blocks);
    return st;
}

static dr_status tell(const pass_job *job, const hf_model *in, const hf_model *made,
                      const quant_grid *grid, const quant_quality *q)
{
    uint64_t in_bytes = hf_model_weight_bytes(in), out_bytes = hf_model_weight_bytes(made);
    json_t *r = job->report;
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(job->text, "weights        %s\n", hf_model_origin(in)));
    DR_TRY(dr_buf_addf(job->text, "grid           %d bits, group %d, %s\n", grid->bits,
                       grid->group_size, grid->symmetric ? "symmetric" : "zero points"));
    DR_TRY(dr_buf_addf(job->text, "%-14s %14s %14s\n", "", "before", "after"));
    DR_TRY(dr_buf_addf(job->text, "%-14s %14llu %14llu\n", "bytes",
                       (unsigned long long)in_bytes, (unsigned long long)out_bytes));
    json_object_set_new(r, "origin", json_string(hf_model_origin(in)));
    json_object_set_new(r, "bytes_before", json_integer((json_int_t)in_bytes));
    json_object_set_new(r, "bytes_after", json_integer((json_int_t)out_bytes));
    json_object_set_new(r, "bits", json_integer(grid->bits));
    json_object_set_new(r, "group_size", json_integer(grid->group_size));
    json_object_set_new(r, "symmetric", json_boolean(grid->symmetric));
    if (q == NULL) {
        DR_TRY(dr_buf_adds(job->text, "not measured: --no_evaluate\n"));
        goto done;
    }
    DR_TRY(dr_buf_addf(job->text, "%-14s %14.4f %14.4f\n", "perplexity", q->ppl_before,
                       q->ppl_after));
    DR_TRY(dr_buf_addf(job->text, "%-14s %14s %8.4f+-%.4f\n", "KL (nats)", "", q->kl,
                       q->kl_stderr));
    DR_TRY(dr_buf_addf(job->text, "%-14s %14s %13.2f%%\n", "same top token", "",
                       100 * q->top1));
    DR_TRY(dr_buf_addf(job->text,
                       "judged on %zu tokens of built-in text that did not "
                       "calibrate\n",
                       q->tokens));
    json_object_set_new(r, "perplexity_before", json_real(q->ppl_before));
    json_object_set_new(r, "perplexity_after", json_real(q->ppl_after));
    json_object_set_new(r, "kl", json_real(q->kl));
    json_object_set_new(r, "kl_stderr", json_real(q->kl_stderr));
    json_object_set_new(r, "top1_agreement", json_real(q->top1));
    json_object_set_new(r, "judged_tokens", json_integer((json_int_t)q->tokens));
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

/* The quantizer proper, into dir. */
static dr_status quantize_into(const pass_job *job, const char *dir, nn_device *dev,
                               const hf_model *m, const quant_grid *grid,
                               const data_blocks *blocks, const pass_quant_plan *plan)
{
    const hf_quant layout = {plan->layout, grid->bits, grid->group_size, grid->symmetric};
    const quant_calib calib = {blocks->ids, blocks->count, blocks->seq_len};
    hf_writer *writer = NULL;
    dr_progress progress;
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(dir));
    DR_TRY(hf_writer_open(&writer, dir, m, &layout));
    const quant_site site = {dev, m, writer, &progress};
    dr_progress_begin(&progress, "quantizing", "layers",
                      (size_t)hf_model_config(m)->layers);
    DR_TRY(plan->quantize(&site, grid, &calib, job->config));
    dr_progress_end(&progress);
    DR_TRY(hf_writer_finish(writer));
done:
    hf_writer_close(writer);
    return st;
}

/* What can be said no to before any work. */
static dr_status check_input(const pass_job *job, const pass_model *in, const hf_model *m)
{
    const data_options *d = job->data;
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
    if (in->adapter_count > 0) {
        st = dr_fail(DR_EUSAGE, "%s has an adapter, which quantizing would leave behind",
                     in->name);
        dr_hint("quantize the base alone; give the adapter to auto-opt");
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
    const pass_quant_plan planned = job->def->quant_plan(job->config), *plan = &planned;
    const char *dir = dr_path_join(job->arena, job->out_dir, "model");
    quant_grid grid = plan->grid;
    quant_quality quality = {0};
    data_blocks blocks = {0};
    hf_model *m = NULL, *made = NULL;
    tok_tokenizer *tok = NULL;
    nn_device *dev = NULL;
    dr_status st = DR_OK;

    DR_TRYF(hf_model_open(&m, in->path), "opening the model to quantize");
    DR_TRY(check_input(job, in, m));
    DR_TRY(fit_group(&grid, m));
    DR_TRY(nn_device_open(&dev, job->device, job->threads));
    if (plan->calib_samples > 0 || job->evaluate)
        DR_TRYF(pass_open_tokenizer(&tok, m,
                                    "a model without tokenizer: --algorithm rtn "
                                    "--no_evaluate"),
                "reading the tokenizer, which calibration and measuring need");
    if (plan->calib_samples > 0) {
        const data_options data = calib_options(job, plan, m);
        DR_TRYF(pass_calibration(&blocks, job, &data, dev, m, tok),
                "reading calibration text");
    }
    DR_TRY(quantize_into(job, dir, dev, m, &grid, &blocks, plan));
    DR_TRYF(hf_model_open(&made, dir), "reading the result back");
    if (job->evaluate)
        DR_TRY(judge(job, &quality, dev, m, made, tok));
    DR_TRY(tell(job, m, made, &grid, job->evaluate ? &quality : NULL));
    *out = (pass_model){.kind = PASS_MODEL_HF, .path = dir, .name = in->name};
done:
    data_blocks_release(&blocks);
    tok_close(tok);
    nn_device_close(dev);
    hf_model_close(made);
    hf_model_close(m);
    return st;
}

dr_status pass_quantize_estimate(const pass_job *job, const pass_model *in, pass_need *need)
{
    const pass_quant_plan planned = job->def->quant_plan(job->config), *plan = &planned;
    hf_model *m = NULL;
    dr_status st = DR_OK;

    DR_TRY(hf_model_open(&m, in->path));
    const hf_config *c = hf_model_config(m);
    const data_options data = calib_options(job, plan, m);
    uint64_t layer = pass_layer_elements(c), layers = (uint64_t)c->layers;
    uint64_t embed = pass_embed_elements(c), widest = (uint64_t)hf_slot_in(c, HF_SLOT_DOWN);
    uint64_t tokens = plan->calib_samples > 0 ? data.max_samples * data.max_seq_len : 0;
    uint64_t judged = job->evaluate ? JUDGE_SEQ_LEN * JUDGE_BLOCKS : 0;

    need->disk =
        layer * layers * 5 / 8 + embed * dr_dtype_bytes(c->dtype) * (c->tied ? 1 : 2);
    need->memory = 3 * 4 * layer + MEMORY_BASE;
    if (tokens > 0) /* the residual stream of all tokens (in a parallel layer one more), two
                       Grams of the widest input */
        need->memory +=
            (c->parallel ? 12 : 8) * tokens * (uint64_t)c->hidden + 8 * widest * widest;
    if (job->evaluate) /* the head as floats, and the hidden states of both models */
        need->memory += 4 * embed + 8 * judged * (uint64_t)c->hidden;
    need->seconds =
        pass_seconds(job, 2 * (double)(layer * layers) *
                                  (plan->forwards * (double)tokens + 2 * (double)judged) +
                              4 * (double)embed * (double)judged);
    if (tokens > 0)
        pass_calibration_need(need, job, &data, c);
done:
    hf_model_close(m);
    return st;
}

/* ---- the grid ---- */

dr_status pass_grid_validate(const void *config, const unsigned char *given)
{
    const pass_grid *c = config;

    (void)given;
    return pass_check_group("group_size", c->group_size);
}

pass_quant_plan pass_grid_plan(const void *config, pass_quantizer quantize)
{
    const pass_grid *c = config;

    return (pass_quant_plan){.layout = HF_QUANT_GPTQ,
                             .grid = {c->bits, c->group_size, c->sym},
                             .quantize = quantize};
}
