/*
 * distilling.c - what follows a quantizer where distill_steps asks for it: the checkpoint
 * is written anew with scales that were trained, and takes the first one's place.
 */
#include "core/file.h"
#include "pass/quantize_impl.h"
#include "pass/shared_impl.h"

enum { BATCH = 16, ROWS = 2048 /* tokens at once */ };

/* Of what the run may use, half: the rest is the file cache's and the runtime's. */
static size_t memory_to_keep(const pass_job *job)
{
    return job->memory_bytes > 0 ? (size_t)(job->memory_bytes / 2) : (size_t)1 << 30;
}

static dr_status write_distilled(quant_distill_report *r, const pass_job *job,
                                 const char *dir, nn_device *dev, const hf_model *packed,
                                 const hf_model *original, const hf_quant *layout,
                                 const pass_choices *chosen, const pass_modules *w,
                                 const quant_calib *calib)
{
    const quant_distill_options o = {.steps = (size_t)w->distill_steps,
                                     .batch = BATCH,
                                     .learning_rate = w->distill_learning_rate,
                                     .keep_bytes = memory_to_keep(job)};
    hf_writer *writer = NULL;
    dr_progress progress;
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(dir));
    DR_TRY(hf_writer_open(&writer, dir, packed, layout));
    DR_TRY(pass_choices_formats(writer, chosen, packed, layout->method));
    const quant_site site = {.dev = dev,
                             .in = packed,
                             .out = writer,
                             .progress = &progress,
                             .resume = job->killed};
    dr_progress_begin(&progress, "training scales", "steps", o.steps);
    DR_TRYF(quant_distill(r, &site, original, calib, &o), "training scales");
    dr_progress_end(&progress);
    DR_TRY(hf_writer_finish(writer));
done:
    hf_writer_close(writer);
    return st;
}

dr_status pass_distill(const pass_job *job, const char *dir, nn_device *dev,
                       const hf_model *original, const hf_quant *layout,
                       const pass_choices *chosen, const pass_modules *w,
                       const quant_calib *calib)
{
    const char *made = dr_path_join(job->arena, job->out_dir, "distilled");
    quant_distill_report r = {0};
    hf_model *packed = NULL;
    json_t *report = NULL;
    dr_status st = DR_OK;

    DR_TRY(hf_model_open(&packed, dir));
    DR_TRY(write_distilled(&r, job, made, dev, packed, original, layout, chosen, w, calib));
    hf_model_close(packed);
    packed = NULL;
    DR_TRY(dr_remove_tree(dir));
    DR_TRY(dr_rename(dir, made));
    DR_TRY(dr_buf_addf(job->text,
                       "scales         trained: KL %.4f to %.4f at step %zu of %d, on text "
                       "not trained on\n",
                       r.kl_before, r.kl_after, r.best_step, w->distill_steps));
    report = json_pack("{s:f, s:f, s:I}", "kl_before", r.kl_before, "kl_after", r.kl_after,
                       "best_step", (json_int_t)r.best_step);
    json_object_set_new(job->report, "distill", report);
done:
    hf_model_close(packed);
    return st;
}

void pass_distill_need(pass_need *need, const pass_job *job, const pass_modules *w,
                       const hf_config *c, uint64_t tokens, uint64_t seq_len)
{
    uint64_t layers = (uint64_t)c->layers, body = pass_layer_elements(c) * layers;
    uint64_t embed = pass_embed_elements(c);
    double trained = (double)w->distill_steps * BATCH * (double)seq_len;

    if (w->distill_steps == 0)
        return;
    /* hidden states, both heads, packed weights, one layer, the inputs of all and what one
       computes, there and back */
    uint64_t rows = seq_len > ROWS ? seq_len : ROWS, wide = hf_slot_out(c, HF_SLOT_GATE_UP);
    uint64_t memory = 4 * tokens * (uint64_t)c->hidden + 8 * embed + body * 3 / 4 +
                      10 * pass_layer_elements(c) +
                      4 * rows * ((uint64_t)c->hidden * (layers + 8) + 6 * wide);
    need->memory = memory > need->memory ? memory : need->memory;
    need->disk += body; /* a state in turn, 32 bytes a scale of groups of 32 */
    need->seconds += pass_seconds(job, 2 * ((double)body * ((double)tokens + 3 * trained) +
                                            3 * (double)embed * trained));
}
