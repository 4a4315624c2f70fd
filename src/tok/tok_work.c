/*
 * tok_work.c - scratch space for encoding, lent to one thread at a time.
 */
#include <stdlib.h>

#include "core/mem.h"
#include "tok/tok_impl.h"

static tok_work *work_new(void)
{
    tok_work *w = dr_calloc(1, sizeof(*w));

    dr_buf_init(&w->clean, TOK_TEXT_MAX);
    dr_buf_init(&w->word, TOK_TEXT_MAX);
    dr_buf_init(&w->name, TOK_TEXT_MAX);
    for (int i = 0; i < 2; i++) {
        dr_buf_init(&w->normal[i], TOK_TEXT_MAX);
        dr_buf_init(&w->op[i], TOK_TEXT_MAX);
    }
    w->cache = dr_calloc(TOK_CACHE_SLOTS, sizeof(tok_cached));
    return w;
}

void tok_work_free(tok_work *w)
{
    if (w == NULL)
        return;
    dr_buf_release(&w->clean);
    dr_buf_release(&w->word);
    dr_buf_release(&w->name);
    for (int i = 0; i < 2; i++) {
        dr_buf_release(&w->normal[i]);
        dr_buf_release(&w->op[i]);
        free(w->spans[i].v);
    }
    free(w->cuts.v);
    tok_matcher_release(&w->matcher);
    free(w->symbols);
    free(w->heap);
    dr_big_free(w->ways);
    free(w->cache);
    free(w);
}

size_t tok_growth_max(size_t n)
{
    if (n > (TOK_TEXT_MAX - TOK_GROWTH_BASE) / TOK_GROWTH_TIMES)
        return TOK_TEXT_MAX;
    return TOK_GROWTH_BASE + n * TOK_GROWTH_TIMES;
}

tok_work *tok_work_take(const tok_tokenizer *t)
{
    tok_work *w = NULL;

    (void)pthread_mutex_lock(&t->works->lock);
    w = t->works->idle;
    if (w != NULL)
        t->works->idle = w->next;
    (void)pthread_mutex_unlock(&t->works->lock);
    return w != NULL ? w : work_new();
}

void tok_work_give(const tok_tokenizer *t, tok_work *w)
{
    (void)pthread_mutex_lock(&t->works->lock);
    w->next = t->works->idle;
    t->works->idle = w;
    (void)pthread_mutex_unlock(&t->works->lock);
}

void tok_spans_add(tok_spans *s, size_t at, size_t n, size_t head)
{
    if (s->count == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 64;
        s->v = dr_realloc(s->v, s->cap, sizeof(tok_span));
    }
    s->v[s->count++] = (tok_span){at, n, head};
}
