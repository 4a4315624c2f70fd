/*
 * training.c - around the training: the data before it, the base and the report after it.
 */
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "pass/lora_impl.h"
#include "pass/shared_impl.h"

dr_status pass_training_blocks(const pass_job *job, data_blocks *blocks, const hf_model *m)
{
    int64_t context = hf_model_config(m)->max_position;
    tok_tokenizer *tok = NULL;
    data_texts texts = {0};
    dr_buf preview, lost;
    dr_status st = DR_OK;

    dr_buf_init(&preview, (size_t)1 << 20);
    dr_buf_init(&lost, 4096);
    size_t seq = job->data->max_seq_len > 0 ? job->data->max_seq_len : PASS_LORA_SEQ_LEN;
    if (context > 0 && seq > (size_t)context)
        dr_warn_result("blocks of %zu tokens are longer than the model's context of %lld",
                       seq, (long long)context);
    DR_TRY(pass_open_tokenizer(&tok, m, "training needs the model's tokenizer.json"));
    DR_TRY(data_load(job->arena, &texts, job->data, tok));
    DR_TRY(data_tokenize(blocks, &texts, job->data, tok));
    DR_TRY(data_preview(&preview, &texts, blocks, job->data, tok));
    dr_log_text(DR_INFO, preview.data);
    DR_TRY(data_losses(&lost, &texts, blocks));
    if (lost.len > 0)
        dr_warn_result("%s: %s", texts.source, lost.data);
    if (blocks->dropped > blocks->tokens / 8)
        dr_warn_result("%zu of %zu tokens are cut off: %zu blocks of %zu are trained on",
                       blocks->dropped, blocks->tokens, blocks->count, blocks->seq_len);
    json_object_set_new(job->report, "rows", json_integer((json_int_t)texts.count));
    json_object_set_new(job->report, "tokens", json_integer((json_int_t)blocks->tokens));
    json_object_set_new(job->report, "cut_off_tokens",
                        json_integer((json_int_t)blocks->dropped));
done:
    dr_buf_release(&preview);
    dr_buf_release(&lost);
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

dr_status pass_tell_training(const pass_job *job, const train_report *t, const char *how,
                             const data_blocks *blocks)
{
    double first = t->steps > 0 ? t->losses[0] : 0, last = 0;
    size_t tail = t->steps < 10 ? t->steps : 10;
    json_t *r = job->report, *losses = json_array();
    dr_status st = DR_OK;

    for (size_t i = t->steps - tail; i < t->steps; i++)
        last += t->losses[i] / (double)tail;
    for (size_t i = 0; i < t->steps; i++)
        json_array_append_new(losses, json_real(t->losses[i]));
    json_object_set_new(r, "losses", losses);
    json_object_set_new(r, "steps", json_integer((json_int_t)t->steps));
    json_object_set_new(r, "blocks", json_integer((json_int_t)blocks->count));
    json_object_set_new(r, "trained_tokens", json_integer((json_int_t)t->tokens));
    json_object_set_new(r, "trainable_parameters", json_integer((json_int_t)t->trainable));
    json_object_set_new(r, "seconds", json_real(t->seconds));
    json_object_set_new(r, "base", json_string(how));
    DR_TRY(dr_buf_addf(job->text, "steps          %zu over %zu blocks of %zu tokens\n",
                       t->steps, blocks->count, blocks->seq_len));
    DR_TRY(dr_buf_addf(job->text, "loss           %.4f at first, %.4f over the last %zu\n",
                       first, last, tail));
    DR_TRY(dr_buf_addf(job->text, "parameters     %zu trained\n", t->trainable));
    DR_TRY(dr_buf_addf(job->text, "time           %.1f s, %.0f tokens/s\n", t->seconds,
                       t->seconds > 0 ? (double)t->tokens / t->seconds : 0));
    DR_TRY(dr_buf_addf(job->text, "base model     %s\n", how));
done:
    return st;
}
