/*
 * tok_encode.c - text to ids: the way through added tokens, normalizers, pre-tokenizer and
 * model, and the growing list of ids.
 */
#include <stdlib.h>

#include "core/mem.h"
#include "tok/tok_impl.h"

void tok_ids_release(tok_ids *ids)
{
    free(ids->ids);
    *ids = (tok_ids){0};
}

dr_status tok_ids_add(tok_ids *ids, int32_t id)
{
    if (ids->count == ids->cap) {
        if (ids->count >= (size_t)1 << 40)
            return dr_fail(DR_EFORMAT, "more than %zu ids", ids->count);
        ids->cap = ids->cap ? ids->cap * 2 : 64;
        ids->ids = dr_realloc(ids->ids, ids->cap, sizeof(*ids->ids));
    }
    ids->ids[ids->count++] = id;
    return DR_OK;
}

typedef struct {
    const tok_tokenizer *t;
    tok_work *w;
    tok_ids *out;
    tok_str text; /* what the gaps are offsets of */
    size_t head;  /* its bytes that stem from the original's first character */
} walk;

/* A part without added tokens, normalized. */
static dr_status encode_part(const walk *k, tok_str part, size_t head)
{
    const char *base = NULL;
    const tok_spans *words = NULL;
    dr_status st = DR_OK;

    DR_TRY(tok_ops_run(&k->t->ops, k->w, part, head, &base, &words));
    for (size_t i = 0; i < words->count; i++)
        DR_TRY(tok_model_word(&k->t->model, k->w, k->out,
                              (tok_str){base + words->v[i].at, words->v[i].n}));
done:
    return st;
}

static dr_status normalized_gap(void *ctx, const tok_gap *gap)
{
    const walk *k = ctx;

    if (gap->id >= 0)
        return tok_ids_add(k->out, gap->id);
    return encode_part(k, (tok_str){k->text.s + gap->start, gap->stop - gap->start},
                       tok_head_of(k->head, gap->start, gap->stop - gap->start));
}

static dr_status raw_gap(void *ctx, const tok_gap *gap)
{
    const walk *k = ctx;
    walk part = *k;
    uint32_t cp = 0;
    dr_status st = DR_OK;

    if (gap->id >= 0)
        return tok_ids_add(k->out, gap->id);
    part.text = (tok_str){k->text.s + gap->start, gap->stop - gap->start};
    part.head = gap->start == 0 && part.text.n > 0
                    ? tok_utf8_get(part.text.s, part.text.n, &cp)
                    : 0;
    DR_TRY(tok_normals_run(&k->t->normals, k->w, &part.text,
                           k->t->wants_head ? &part.head : NULL));
    DR_TRY(
        tok_addeds_cut(&k->t->added, k->t->added.normal, part.text, normalized_gap, &part));
done:
    return st;
}

static dr_status add_ids(tok_ids *out, const tok_ids *ids)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < ids->count; i++)
        DR_TRY(tok_ids_add(out, ids->ids[i]));
done:
    return st;
}

dr_status tok_encode(const tok_tokenizer *t, tok_ids *out, const char *text, size_t n,
                     bool add_special)
{
    tok_work *w = tok_work_take(t);
    walk k = {.t = t, .w = w, .out = out, .text = {text, n}};
    dr_status st = DR_OK;

    if (n > TOK_TEXT_MAX / 4)
        DR_FAIL(DR_EFORMAT, "%zu bytes are too many for one text", n);
    if (!tok_utf8_valid(text, n)) {
        dr_buf_reset(&w->clean);
        DR_TRY(tok_utf8_lossy(&w->clean, text, n));
        k.text = (tok_str){w->clean.data, w->clean.len};
    }
    if (add_special)
        DR_TRY(add_ids(out, &t->post.before));
    DR_TRY(tok_addeds_cut(&t->added, t->added.raw, k.text, raw_gap, &k));
    if (add_special)
        DR_TRY(add_ids(out, &t->post.after));
done:
    tok_work_give(t, w);
    return st;
}
