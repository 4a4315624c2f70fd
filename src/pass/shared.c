/*
 * shared.c - what a run will need, roughly; the tokenizer of a model; lists in text.
 */
#include <string.h>

#include "pass/shared_impl.h"

#include "core/hash.h"
#include "core/log.h"
#include "core/pool.h"
#include "nn/nn.h"

/* Float operations a second of one thread in large products, with some of the time lost to
 * reading weights: between what AVX2 and what AVX-512 machines reach. */
static const double thread_rate = 5e10;
/* And of a GPU, in bf16: a third of what an H100 reaches, twice an A10's. */
static const double gpu_rate = 2e14;

uint64_t pass_layer_elements(const hf_config *c)
{
    uint64_t n = hf_layer_weights(c);

    for (int p = 0; p < 2 && c->experts.count > 0; p++)
        n += (uint64_t)c->experts.count * hf_expert_in(c, (hf_expert_part)p) *
             hf_expert_out(c, (hf_expert_part)p);
    return n;
}

uint64_t pass_embed_elements(const hf_config *c)
{
    return (uint64_t)c->vocab * (uint64_t)c->hidden;
}

double pass_seconds(const pass_job *job, double flops)
{
    int threads = job->threads > 0 ? job->threads : dr_cpu_count();

    if (job->device != NULL && strncmp(job->device->kind, "cuda", 4) == 0)
        return flops / gpu_rate;
    return flops / (thread_rate * threads);
}

dr_status pass_open_reference(hf_model **out, dr_arena *a, const char *name)
{
    const char *path = NULL;
    dr_status st = DR_OK;

    DR_TRYF(hf_resolve(a, &path, name), "finding reference_model");
    DR_TRYF(hf_model_open(out, path), "opening reference_model");
done:
    return st;
}

dr_status pass_open_device(nn_device **dev, pass_device *where)
{
    dr_status st = DR_OK;

    if (where->dev == NULL)
        DR_TRY(nn_device_open_rank(&where->dev, where->kind, where->threads, where->ranks));
    *dev = where->dev;
done:
    return st;
}

dr_status pass_same_text(dr_ranks *r, const data_blocks *b)
{
    char hex[DR_SHA256_HEX];

    dr_sha256(hex, b->ids, b->count * b->seq_len * sizeof(*b->ids));
    return dr_ranks_same(r, hex, "text");
}

size_t pass_at_most_context(size_t tokens, const hf_model *m)
{
    int64_t context = hf_model_config(m)->max_position;

    return context > 0 && (uint64_t)context < tokens ? (size_t)context : tokens;
}

dr_status pass_open_tokenizer(tok_tokenizer **out, const hf_model *m, const char *advice)
{
    json_t *tokenizer = NULL, *config = NULL;
    dr_status st = DR_OK;

    st = hf_model_tokenizer(m, &tokenizer, &config);
    if (st != DR_OK) {
        dr_hint("%s", advice);
        goto done;
    }
    DR_TRY(tok_open_json(out, tokenizer, config, hf_model_path(m)));
    /* Gemma 3's text models have the id of an image that they do not know: no error. */
    if (tok_vocab_size(*out) > (size_t)hf_model_config(m)->vocab)
        dr_warn_result("%s: tokenizer.json has ids up to %zu, the embedding has %d rows",
                       hf_model_path(m), tok_vocab_size(*out) - 1,
                       hf_model_config(m)->vocab);
done:
    json_decref(tokenizer);
    json_decref(config);
    return st;
}

const char **pass_words(size_t *count, dr_arena *a, const char *text, const char *cuts)
{
    char *copy = dr_arena_strdup(a, text != NULL ? text : ""), *rest = NULL;
    const char **list = dr_arena_alloc(a, strlen(copy) + 1, sizeof(*list));

    *count = 0;
    for (char *w = strtok_r(copy, cuts, &rest); w; w = strtok_r(NULL, cuts, &rest)) {
        w += strspn(w, " ");
        for (size_t n = strlen(w); n > 0 && w[n - 1] == ' ';)
            w[--n] = '\0';
        if (*w != '\0')
            list[(*count)++] = w;
    }
    return list;
}

dr_status pass_text_blocks(data_blocks *out, data_texts *texts, dr_arena *a,
                           const data_options *o, const tok_tokenizer *t)
{
    dr_status st = DR_OK;

    DR_TRY(data_load(a, texts, o, t));
    DR_TRY(data_tokenize(out, texts, o, t));
    dr_log(DR_INFO, "%s: %zu texts, %zu tokens, %zu blocks of %zu", texts->source,
           texts->count, out->tokens, out->count, out->seq_len);
done:
    return st;
}
