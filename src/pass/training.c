/*
 * training.c - around the training: the data before it, the base and the report after it.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "core/mem.h"
#include "pass/eval_impl.h"
#include "pass/lora_impl.h"
#include "pass/shared_impl.h"

/* Texts and blocks of one set, with what is lost on the way. */
static dr_status read_set(const pass_job *job, data_texts *texts, data_blocks *blocks,
                          const data_options *data, const tok_tokenizer *tok)
{
    dr_status st = DR_OK;

    DR_TRY(data_load(job->arena, texts, data, tok));
    DR_TRY(data_tokenize(blocks, texts, data, tok));
    DR_TRY(pass_say_losses(texts, blocks, NULL, 0));
    if (blocks->dropped > blocks->tokens / 8)
        dr_warn_result("%zu of %zu tokens are cut off: %zu blocks of %zu are %s",
                       blocks->dropped, blocks->tokens, blocks->count, blocks->seq_len,
                       data == job->data ? "trained on" : "evaluated");
done:
    return st;
}

/* Rows that are trained on say little when they are evaluated. */
static void check_overlap(const pass_job *job, const data_texts *train,
                          const data_texts *eval)
{
    size_t from = train->from_row > eval->from_row ? train->from_row : eval->from_row;
    size_t end = train->end_row < eval->end_row ? train->end_row : eval->end_row;

    if (strcmp(job->data->data_files, job->eval->data_files) == 0 && from < end)
        dr_warn_result("rows %zu to %zu of %s are both trained on and evaluated; "
                       "--train_split 'train[:90%%]' --eval_split 'train[90%%:]' keeps "
                       "them apart",
                       from + 1, end, train->source);
}

static void set_count(json_t *report, const char *key, size_t n)
{
    json_object_set_new(report, key, json_integer((json_int_t)n));
}

dr_status pass_training_blocks(const pass_job *job, data_blocks *blocks, data_blocks *eval,
                               const hf_model *m)
{
    int64_t context = hf_model_config(m)->max_position;
    tok_tokenizer *tok = NULL;
    data_texts texts = {0}, eval_texts = {0};
    dr_buf preview;
    dr_status st = DR_OK;

    dr_buf_init(&preview, (size_t)1 << 20);
    size_t seq = job->data->max_seq_len > 0 ? job->data->max_seq_len : PASS_LORA_SEQ_LEN;
    if (context > 0 && seq > (size_t)context)
        dr_warn_result("blocks of %zu tokens are longer than the model's context of %lld",
                       seq, (long long)context);
    DR_TRYF(pass_open_tokenizer(&tok, m, "training needs the model's tokenizer.json"),
            "reading the training data");
    DR_TRYF(read_set(job, &texts, blocks, job->data, tok), "reading the training data");
    DR_TRY(data_preview(&preview, &texts, blocks, job->data, tok));
    dr_log_text(DR_INFO, preview.data);
    set_count(job->report, "rows", texts.count);
    set_count(job->report, "tokens", blocks->tokens);
    set_count(job->report, "cut_off_tokens", blocks->dropped);
    if (job->eval == NULL)
        goto done;
    DR_TRYF(read_set(job, &eval_texts, eval, job->eval, tok),
            "reading the evaluation data");
    check_overlap(job, &texts, &eval_texts);
    set_count(job->report, "eval_rows", eval_texts.count);
    set_count(job->report, "eval_blocks", eval->count);
done:
    dr_buf_release(&preview);
    tok_close(tok);
    return st;
}

dr_status pass_place_base(const pass_job *job, const char *dir, const hf_model *m,
                          const char **how)
{
    static const char *const ways[] = {"hard link", "clone (reflink)", "copy"};
    hf_writer *w = NULL;
    char **names = NULL;
    size_t count = 0;
    int worst = DR_PLACED_LINK;
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(dir));
    if (hf_model_is_gguf(m)) {
        DR_TRY(hf_writer_open(&w, dir, m, NULL));
        DR_TRY(hf_writer_finish(w));
        *how = "written out from the GGUF file";
        goto done;
    }
    DR_TRY(dr_list_dir(job->arena, hf_model_path(m), &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *src = dr_path_join(job->arena, hf_model_path(m), names[i]);
        const char *dot = strrchr(names[i], '.');
        dr_placed placed = DR_PLACED_LINK;
        if (!dr_is_file(src) || strcmp(names[i], "drupe.json") == 0 ||
            strcmp(names[i], "model_config.json") == 0 ||
            (dot != NULL && strcmp(dot, ".onnx") == 0))
            continue;
        DR_TRY(dr_place_file(dr_path_join(job->arena, dir, names[i]), src, &placed));
        worst = (int)placed > worst ? (int)placed : worst;
    }
    *how = ways[worst];
done:
    hf_writer_close(w);
    return st;
}

hf_bnb pass_base_grid(const pass_lora_config *c)
{
    return (hf_bnb){.fp4 = c->quant_type == 1, .nested = c->double_quant};
}

dr_status pass_check_plain(const hf_model *m, const char *name)
{
    const hf_linear *linears = NULL;
    size_t n = hf_layer_linears(m, 0, &linears);
    dr_status st;

    for (size_t i = 0; i < n; i++) {
        if (!linears[i].packed)
            continue;
        st = dr_fail(DR_EUSAGE, "%s rounds a plain base, and %s is %s", name,
                     hf_model_path(m), hf_model_origin(m));
        dr_hint("LoRA trains on packed weights as they are");
        return st;
    }
    return DR_OK;
}

quant_mean pass_eval_mean(const double *losses, size_t count)
{
    double *kept = dr_calloc(count, sizeof(*kept));
    size_t n = 0;

    for (size_t i = 0; i < count; i++)
        if (isfinite(losses[i]))
            kept[n++] = losses[i];
    quant_mean m = quant_mean_of(kept, n, 1);
    free(kept);
    return m;
}

/* Perplexity before and after, and the evaluations between. */
static dr_status tell_evaluations(const pass_job *job, const train_report *t,
                                  size_t eval_blocks)
{
    json_t *r = job->report, *evals = json_array();
    dr_status st = DR_OK;

    for (size_t i = 0; i < t->eval_count; i++)
        json_array_append_new(evals, json_pack("{s:I, s:f, s:f}", "step",
                                               (json_int_t)t->evals[i].step, "eval_loss",
                                               t->evals[i].loss, "eval_perplexity",
                                               exp(t->evals[i].loss)));
    json_object_set_new(r, "evaluations", evals);
    set_count(r, "best_step", t->best_step);
    set_count(r, "adapter_step", t->made_step);
    json_object_set_new(r, "stopped_early",
                        json_boolean(t->stopped && t->steps < t->total));
    DR_TRY(dr_buf_addf(job->text, "evaluation     %zu blocks, %zu times\n", eval_blocks,
                       t->eval_count));
    DR_TRY(dr_buf_addf(job->text, "best           %.4f after step %zu%s\n", t->best_loss,
                       t->best_step,
                       t->made_step != t->steps ? ": this adapter was kept" : ""));
    if (t->stopped && t->steps < t->total)
        DR_TRY(dr_buf_addf(job->text,
                           "stopped        after step %zu of %zu: no better "
                           "evaluation in %zu\n",
                           t->steps, t->total, t->waited));
    DR_TRY(eval_head(job->text));
    if (t->original_losses != NULL)
        DR_TRY(eval_exp_row(job->text, r, "perplexity, original", "original_perplexity",
                            pass_eval_mean(t->original_losses, eval_blocks)));
    DR_TRY(eval_exp_row(job->text, r, "perplexity before", "base_perplexity",
                        pass_eval_mean(t->base_losses, eval_blocks)));
    DR_TRY(eval_exp_row(job->text, r, "perplexity after", "adapter_perplexity",
                        pass_eval_mean(t->made_losses, eval_blocks)));
done:
    return st;
}

dr_status pass_place_checkpoints(const char **spent, const pass_job *job,
                                 const train_options *o)
{
    size_t *steps = NULL, count = 0;
    dr_status st = DR_OK;

    *spent = NULL;
    if (o->save_when == TRAIN_NEVER && o->resume != job->checkpoints)
        return DR_OK; /* what is there is another run's */
    DR_TRY(train_checkpoint_list(job->arena, &steps, &count, job->checkpoints));
    for (size_t i = count; i-- > 0;) {
        const char *name = dr_arena_printf(job->arena, "checkpoint-%zu", steps[i]);
        DR_TRY(dr_place_tree(dr_path_join(job->arena, job->out_dir, name),
                             dr_path_join(job->arena, job->checkpoints, name)));
    }
    if (dr_is_dir(job->checkpoints))
        *spent = job->checkpoints;
    if (count > 0)
        DR_TRY(dr_buf_addf(job->text, "checkpoints    %zu, the last after step %zu\n",
                           count, steps[0]));
done:
    return st;
}

dr_status pass_tell_training(const pass_job *job, const pass_training *what)
{
    const train_report *t = what->report;
    const data_blocks *blocks = what->blocks;
    double first = t->steps > 0 ? t->losses[0] : 0, last = 0;
    size_t tail = t->steps < 10 ? t->steps : 10;
    double rate = t->seconds > 0 ? (double)t->session_tokens / t->seconds : 0;
    json_t *r = job->report, *losses = json_array(), *step_seconds = json_array();
    dr_status st = DR_OK;

    for (size_t i = t->steps - tail; i < t->steps; i++)
        last += t->losses[i] / (double)tail;
    for (size_t i = 0; i < t->steps; i++)
        json_array_append_new(losses, json_real(t->losses[i]));
    for (size_t i = 0; i < t->steps; i++)
        if (t->step_seconds[i] > 0)
            json_array_append_new(step_seconds, json_real(t->step_seconds[i]));
    json_object_set_new(r, "losses", losses);
    json_object_set(r, "log_history", t->history);
    set_count(r, "steps", t->steps);
    set_count(r, "blocks", blocks->count);
    set_count(r, "trained_tokens", t->tokens);
    set_count(r, "trainable_parameters", t->trainable);
    json_object_set_new(r, "seconds", json_real(t->seconds));
    json_object_set_new(r, "step_seconds", step_seconds);
    json_object_set_new(r, "tokens_per_second", json_real(rate));
    set_count(r, "ranks", t->ranks);
    json_object_set_new(r, "base", json_string(what->how));
    DR_TRY(dr_buf_addf(job->text, "steps          %zu over %zu blocks of %zu tokens\n",
                       t->steps, blocks->count, blocks->seq_len));
    DR_TRY(dr_buf_addf(job->text, "loss           %.4f at first, %.4f over the last %zu\n",
                       first, last, tail));
    DR_TRY(dr_buf_addf(job->text, "parameters     %zu trained\n", t->trainable));
    DR_TRY(
        dr_buf_addf(job->text, "time           %.1f s, %.0f tokens/s\n", t->seconds, rate));
    if (t->ranks > 1)
        DR_TRY(dr_buf_addf(
            job->text, "ranks          %zu, each with a share of every batch\n", t->ranks));
    DR_TRY(dr_buf_addf(job->text, "base model     %s\n", what->how));
    if (t->eval_count > 0)
        DR_TRY(tell_evaluations(job, t, what->eval->count));
done:
    return st;
}
