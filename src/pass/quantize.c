/*
 * quantize.c - the frame of every quantizing pass.
 */
#include "pass/quantize_impl.h"

#include <stdio.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"

enum { JUDGE_SEQ_LEN = 512, JUDGE_BLOCKS = 16 };

dr_status pass_folder_bytes(const pass_job *job, const char *dir, uint64_t *bytes)
{
    char **names = NULL;
    size_t count = 0;
    uint64_t size = 0;
    dr_status st = DR_OK;

    *bytes = 0;
    DR_TRY(dr_list_dir(job->arena, dir, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *path = dr_path_join(job->arena, dir, names[i]);
        if (!dr_is_file(path))
            continue;
        DR_TRY(dr_file_size(&size, path));
        *bytes += size;
    }
done:
    return st;
}

static dr_status open_tokenizer(tok_tokenizer **out, const hf_model *m)
{
    json_t *tokenizer = NULL, *config = NULL;
    dr_status st = DR_OK;

    DR_TRY(hf_model_tokenizer(m, &tokenizer, &config));
    DR_TRY(tok_open_json(out, tokenizer, config, hf_model_path(m)));
done:
    json_decref(tokenizer);
    json_decref(config);
    return st;
}

/* Blocks of the user's data, or of the built-in text's half. */
static dr_status load_blocks(data_blocks *out, dr_arena *a, const data_options *o,
                             const tok_tokenizer *t)
{
    data_texts texts = {0};
    dr_status st = DR_OK;

    DR_TRY(data_load(a, &texts, o, t));
    DR_TRY(data_tokenize(out, &texts, o, t));
    dr_log(DR_INFO, "%s: %zu texts, %zu tokens, %zu blocks of %zu", texts.source, texts.count,
           out->tokens, out->count, out->seq_len);
done:
    return st;
}

/* The judge: built-in text that never calibrates. */
static dr_status judge(const pass_job *job, quant_quality *q, nn_device *dev,
                       const hf_model *before, const char *dir, const tok_tokenizer *t)
{
    const data_options o = {
        .max_seq_len = JUDGE_SEQ_LEN, .max_samples = JUDGE_BLOCKS, .held_out = true};
    hf_model *after = NULL;
    data_blocks blocks = {0};
    dr_status st = DR_OK;

    DR_TRY(load_blocks(&blocks, job->arena, &o, t));
    DR_TRYF(hf_model_open(&after, dir), "reading the result back");
    const quant_calib text = {blocks.ids, blocks.count, blocks.seq_len};
    DR_TRYF(quant_compare(q, dev, before, after, &text), "judging the result");
done:
    hf_model_close(after);
    data_blocks_release(&blocks);
    return st;
}

static dr_status tell(const pass_job *job, const hf_model *in, uint64_t in_bytes,
                      uint64_t out_bytes, const quant_grid *grid, const quant_quality *q)
{
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
    if (q == NULL)
        goto done;
    DR_TRY(dr_buf_addf(job->text, "%-14s %14.4f %14.4f\n", "perplexity", q->ppl_before,
                       q->ppl_after));
    DR_TRY(dr_buf_addf(job->text, "%-14s %14s %8.4f+-%.4f\n", "KL (nats)", "", q->kl,
                       q->kl_stderr));
    DR_TRY(dr_buf_addf(job->text, "%-14s %14s %13.2f%%\n", "same top token", "",
                       100 * q->top1));
    DR_TRY(dr_buf_addf(job->text, "judged on %zu tokens of built-in text that did not "
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
    dr_progress_begin(&progress, "quantizing", "layers", (size_t)hf_model_config(m)->layers);
    DR_TRY(plan->quantize(&site, grid, &calib, job->config));
    dr_progress_end(&progress);
    DR_TRY(hf_writer_finish(writer));
done:
    hf_writer_close(writer);
    return st;
}

dr_status pass_quantize(const pass_job *job, pass_model *out, const pass_model *in,
                        const pass_quant_plan *plan)
{
    const char *dir = dr_path_join(job->arena, job->out_dir, "model");
    quant_grid grid = plan->grid;
    data_options data = *job->data;
    quant_quality quality = {0};
    data_blocks blocks = {0};
    hf_model *m = NULL;
    tok_tokenizer *tok = NULL;
    nn_device *dev = NULL;
    uint64_t bytes = 0;
    dr_status st = DR_OK;

    DR_TRYF(hf_model_open(&m, in->path), "opening the model to quantize");
    if (hf_model_quant(m).method != HF_QUANT_NONE) {
        st = dr_fail(DR_EUNSUPPORTED, "%s is quantized already (%s)", in->name,
                     hf_model_origin(m));
        dr_hint("start from the model that it was made from");
        goto done;
    }
    DR_TRY(fit_group(&grid, m));
    DR_TRY(nn_device_open(&dev, job->device, job->threads));
    if (plan->calib_samples > 0 || job->evaluate)
        DR_TRY(open_tokenizer(&tok, m));
    if (plan->calib_samples > 0) {
        if (data.max_seq_len == 0)
            data.max_seq_len = plan->calib_seq_len;
        if (data.max_samples == 0)
            data.max_samples = plan->calib_samples;
        DR_TRYF(load_blocks(&blocks, job->arena, &data, tok), "reading calibration text");
    }
    DR_TRY(quantize_into(job, dir, dev, m, &grid, &blocks, plan));
    if (job->evaluate)
        DR_TRY(judge(job, &quality, dev, m, dir, tok));
    DR_TRY(pass_folder_bytes(job, dir, &bytes));
    DR_TRY(tell(job, m, hf_model_weight_bytes(m), bytes, &grid,
                job->evaluate ? &quality : NULL));
    *out = (pass_model){.kind = PASS_MODEL_HF, .path = dir, .name = in->name};
done:
    data_blocks_release(&blocks);
    tok_close(tok);
    nn_device_close(dev);
    hf_model_close(m);
    return st;
}

dr_status pass_quantize_estimate(const pass_job *job, const pass_model *in, pass_need *need,
                                 bool activations)
{
    hf_model *m = NULL;
    dr_status st = DR_OK;

    DR_TRY(hf_model_open(&m, in->path));
    const hf_config *c = hf_model_config(m);
    uint64_t layer = 0, widest = 0;
    for (int s = 0; s < HF_SLOT_COUNT; s++) {
        uint64_t k = hf_slot_in(c, (hf_slot)s);
        layer += 4 * k * hf_slot_out(c, (hf_slot)s);
        widest = k > widest ? k : widest;
    }
    uint64_t head = (job->evaluate ? 8ull : 0) * (uint64_t)c->vocab * (uint64_t)c->hidden;
    need->disk = hf_model_weight_bytes(m) * 3 / 5;
    need->memory = 3 * layer + (64u << 20);
    if (activations) /* the residual stream of all tokens, two Grams of the widest input */
        need->memory += 16384ull * (uint64_t)c->hidden * 8 + 8 * widest * widest;
    need->memory = need->memory > head ? need->memory : head;
done:
    hf_model_close(m);
    return st;
}
