/*
 * calibrate.c - the text that a quantizer looks at.
 *
 * A row that is shorter than its block (line-by-line) is repeated to the block's end: what
 * quantizers add up is over all positions, and padding would count as text.
 * Text that the model writes itself begins with its begin (or end) of text, one sequence a
 * block, at the temperature that was asked for; nothing is read, so that models whose data
 * nobody has can be calibrated on what they know.
 */
#include <string.h>

#include "core/log.h"
#include "pass/quantize_impl.h"
#include "pass/shared_impl.h"

static void repeat_rows(data_blocks *b)
{
    for (size_t i = 0; i < b->count; i++)
        for (size_t j = b->lengths[i]; j < b->seq_len; j++)
            b->ids[i * b->seq_len + j] = b->ids[i * b->seq_len + j - b->lengths[i]];
}

/* ---- the model's own text ---- */

static nn_sample_options sampling(const data_options *o)
{
    return (nn_sample_options){.count = o->max_samples,
                               .len = o->max_seq_len,
                               .temperature = o->temperature,
                               .seed = o->random_seed};
}

static double sampling_seconds(const pass_job *job, const data_options *o,
                               const hf_config *c)
{
    const nn_sample_options s = sampling(o);
    nn_sample_cost cost = nn_sample_costs(c, &s);

    return pass_seconds(job, cost.flops) + (double)cost.read_bytes / PASS_READ_RATE;
}

/* "40 s", "3 min", "2.5 h". */
static const char *duration(dr_arena *a, double s)
{
    if (s < 90)
        return dr_arena_printf(a, "%.0f s", s < 1 ? 1 : s);
    if (s < 5400)
        return dr_arena_printf(a, "%.0f min", s / 60);
    return dr_arena_printf(a, "%.1f h", s / 3600);
}

static dr_status write_itself(data_blocks *out, const pass_job *job, const data_options *o,
                              nn_device *dev, const hf_model *m, const tok_tokenizer *t)
{
    nn_sample_options s = sampling(o);
    nn_decoder *d = NULL;
    dr_progress progress;
    dr_status st = DR_OK;

    s.first = tok_bos(t) >= 0 ? tok_bos(t) : tok_eos(t);
    if (s.first < 0) {
        st =
            dr_fail(DR_EUNSUPPORTED, "calibration_source self: the tokenizer has neither a "
                                     "begin nor an end of text to start from");
        dr_hint("give a file: --data_name text --data_files FILE");
        goto done;
    }
    DR_TRY(data_blocks_new(out, s.count, s.len));
    for (size_t i = 0; i < s.count; i++)
        out->lengths[i] = s.len;
    out->tokens = s.count * s.len;
    const dr_part text = {out->ids, out->tokens * sizeof(*out->ids)};
    if (dr_resume_take(job->killed, "text", out->ids, text.bytes))
        goto done; /* a run that was killed since had written it */
    dr_warn_result("the model writes its calibration text: about %s on this CPU: %zu x %zu "
                   "tokens",
                   duration(job->arena, sampling_seconds(job, o, hf_model_config(m))),
                   s.count, s.len);
    DR_TRY(nn_decoder_open(&d, dev, m, SIZE_MAX));
    dr_progress_begin(&progress, "writing text", "tokens", s.count * s.len);
    DR_TRY(nn_sample(d, out->ids, &s, &progress));
    dr_progress_end(&progress);
    if (job->killed != NULL)
        (void)dr_resume_keep(job->killed, "text", &text, 1);
done:
    nn_decoder_close(d);
    return st;
}

void pass_calibration_need(pass_need *need, const pass_job *job, const data_options *o,
                           const hf_config *c)
{
    const nn_sample_options s = sampling(o);

    if (!o->self_written)
        return;
    uint64_t memory = nn_sample_costs(c, &s).memory_bytes;
    need->memory = need->memory > memory ? need->memory : memory;
    need->seconds += sampling_seconds(job, o, c);
}

data_options pass_calibration_options(const pass_job *job, const hf_model *m,
                                      size_t samples, size_t seq_len)
{
    data_options o = *job->data;

    if (o.max_seq_len == 0)
        o.max_seq_len = pass_at_most_context(seq_len, m);
    if (o.max_samples == 0)
        o.max_samples = samples;
    return o;
}

dr_status pass_calibration(data_blocks *out, const pass_job *job, const data_options *o,
                           nn_device *dev, const hf_model *m, const tok_tokenizer *t)
{
    data_texts texts = {0};
    dr_status st = DR_OK;

    if (o->self_written) {
        DR_TRY(write_itself(out, job, o, dev, m, t));
        json_object_set_new(job->report, "calibration",
                            pass_text_json("self", &texts, out));
        goto done;
    }
    DR_TRY(pass_text_blocks(out, &texts, job->arena, o, t));
    DR_TRY(pass_say_losses(&texts, out, "repeated to its end", job->data->max_samples));
    json_object_set_new(job->report, "calibration",
                        pass_text_json(texts.source, &texts, out));
    repeat_rows(out);
done:
    return st;
}
