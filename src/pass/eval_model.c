/*
 * eval_model.c - a model that is judged: a Hugging Face one through nn, an ONNX one through
 * the runtime; to the judge both are rows of logits.
 */
#include "pass/eval_impl.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/mem.h"
#include "onnx/onnx.h"
#include "pass/shared_impl.h"

static dr_status open_hf(eval_model *m, dr_arena *a, const pass_judged *which)
{
    json_t *tokenizer = NULL, *config = NULL;
    dr_status st = DR_OK;

    DR_TRYF(hf_model_open(&m->hf, which->path), "opening %s", which->name);
    m->context = pass_at_most_context(SIZE_MAX, m->hf);
    m->bytes = hf_model_weight_bytes(m->hf);
    m->origin = hf_model_origin(m->hf);
    if (which->adapter != NULL) {
        DR_TRY(hf_adapter_open(&m->peft, which->adapter, m->hf));
        m->origin = dr_arena_printf(a, "%s, adapter %s", m->origin, which->adapter);
    }
    if (hf_model_tokenizer(m->hf, &tokenizer, &config) != DR_OK) {
        dr_trail_clear(); /* the other model may have one */
        goto done;
    }
    DR_TRY(tok_open_json(&m->tok, tokenizer, config, which->path));
done:
    json_decref(tokenizer);
    json_decref(config);
    return st;
}

dr_status eval_onnx_bytes(uint64_t *bytes, dr_arena *a, const char *file)
{
    const char *data = dr_arena_printf(a, "%s.data", file);
    uint64_t more = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_file_size(bytes, file));
    if (dr_is_file(data))
        DR_TRY(dr_file_size(&more, data));
    *bytes += more;
done:
    return st;
}

/* What genai_config.json says. */
static dr_status read_context(size_t *context, dr_arena *a, const char *dir)
{
    const char *where = dr_path_join(a, dir, "genai_config.json");
    int64_t n = 0;
    json_t *config = NULL;
    dr_status st = DR_OK;

    if (!dr_is_file(where))
        return DR_OK;
    DR_TRY(dr_json_read(&config, where));
    DR_TRY(dr_json_int(dr_json_get(config, "model"), "context_length", &n, where));
    if (n > 0)
        *context = (size_t)n;
done:
    json_decref(config);
    return st;
}

static dr_status open_onnx(eval_model *m, dr_arena *a, const pass_judged *which)
{
    const char *dir = dr_path_dir(a, which->path);
    dr_status st = DR_OK;

    m->file = which->path;
    m->adapter = which->adapter;
    m->origin = "onnx";
    DR_TRY(read_context(&m->context, a, dir));
    if (which->adapter != NULL) {
        DR_TRY(onnx_adapter_fits(which->adapter, which->path));
        m->origin = dr_arena_printf(a, "onnx, adapter %s", dr_path_base(which->adapter));
    }
    DR_TRY(eval_onnx_bytes(&m->bytes, a, which->path));
    if (dr_is_file(dr_path_join(a, dir, "tokenizer.json")))
        DR_TRYF(tok_open(&m->tok, dir), "reading the tokenizer of %s", which->name);
done:
    return st;
}

dr_status eval_open(eval_model *m, dr_arena *a, const pass_judged *which)
{
    *m = (eval_model){.name = which->name, .context = SIZE_MAX};
    return which->onnx ? open_onnx(m, a, which) : open_hf(m, a, which);
}

void eval_close(eval_model *m)
{
    eval_end(m);
    tok_close(m->tok);
    hf_adapter_release(&m->peft);
    hf_model_close(m->hf);
    *m = (eval_model){0};
}

dr_status eval_same_vocabulary(const eval_model *a, const eval_model *b)
{
    size_t na = 0, nb = 0;
    dr_status st = DR_OK;

    if (a->tok == NULL || b->tok == NULL) /* one tokenizer serves both */
        return DR_OK;
    na = tok_vocab_size(a->tok);
    nb = tok_vocab_size(b->tok);
    for (size_t i = 0; i < (na > nb ? na : nb); i++) {
        const char *pa = tok_piece(a->tok, (int32_t)i), *pb = tok_piece(b->tok, (int32_t)i);
        if (pa == pb || (pa != NULL && pb != NULL && strcmp(pa, pb) == 0))
            continue;
        st = dr_fail(DR_EUSAGE,
                     "%s and %s have other vocabularies (token %zu: %s%s%s and %s%s%s): no "
                     "KL between them",
                     a->name, b->name, i, pa ? "\"" : "", pa ? pa : "none", pa ? "\"" : "",
                     pb ? "\"" : "", pb ? pb : "none", pb ? "\"" : "");
        dr_hint("evaluate each by itself, without --reference_model");
        return st;
    }
    return DR_OK;
}

/* ---- logits ---- */

dr_status eval_begin(eval_model *m, nn_device *dev, const quant_text *texts, size_t count,
                     int threads)
{
    dr_status st = DR_OK;

    eval_end(m);
    if (m->hf != NULL) {
        DR_TRY(quant_logits_open(&m->own, dev, m->hf, texts, count));
        if (m->peft.path != NULL)
            quant_logits_adapter(m->own, &m->peft);
        goto done;
    }
    m->list = dr_calloc(count, sizeof(*m->list));
    for (size_t i = 0; i < count; i++)
        m->list[i] = (ort_text){texts[i].ids, texts[i].count, texts[i].from};
    DR_TRY(ort_logits_open(&m->theirs, m->file, m->adapter, m->list, count, threads));
done:
    return st;
}

size_t eval_vocab(const eval_model *m)
{
    return m->hf != NULL ? (size_t)hf_model_config(m->hf)->vocab
                         : ort_logits_vocab(m->theirs);
}

dr_status eval_next(eval_model *m, float *logits, size_t rows)
{
    return m->hf != NULL ? quant_logits_next(m->own, logits, rows)
                         : ort_logits_next(m->theirs, logits, rows);
}

void eval_end(eval_model *m)
{
    quant_logits_close(m->own);
    ort_logits_close(m->theirs);
    free(m->list);
    m->own = NULL;
    m->theirs = NULL;
    m->list = NULL;
}
