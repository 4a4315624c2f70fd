/*
 * rotations.c - what attention needs to know of a layer: its rotation's tables, its window.
 *
 * A decoder has tables for two rotations at most (Gemma 3: layers with a window have their
 * own); they grow with the longest sequence seen.
 */
#include "core/mem.h"
#include "nn/decoder_impl.h"

void nn_rope_release(nn_rope_table *t)
{
    dr_big_free(t->cos);
    *t = (nn_rope_table){0};
}

/* transformers takes longrope's long factors for the whole sequence once it is longer than
 * the model was trained on. */
static dr_status need_rope(nn_rope_table *table, const hf_rope *r, size_t t)
{
    dr_status st = DR_OK;
    bool is_long = r->kind == HF_ROPE_LONGROPE && t > (size_t)r->original_max;
    size_t half = (size_t)r->rotary_dim / 2;
    void *p = NULL;

    if (t <= table->rows && is_long == table->is_long)
        return DR_OK;
    DR_TRY(dr_big_alloc(&p, 2 * t * half, sizeof(float), "tables of rotations"));
    dr_big_free(table->cos);
    *table = (nn_rope_table){p, (float *)p + t * half, t, is_long};
    hf_rope_tables(r, is_long, t, table->cos, table->sin);
done:
    return st;
}

dr_status nn_decoder_shape(nn_decoder *d, nn_attn_shape *s, const nn_layer *w, size_t b,
                           size_t t)
{
    dr_status st = DR_OK;
    const hf_rope *r = hf_layer_rope(d->c, w->index);
    nn_rope_table *table = r == &d->c->rope_local ? &d->rope_local : &d->rope;

    *s = (nn_attn_shape){.b = b, .t = t, .heads = d->dims.h, .kv_heads = d->dims.g};
    s->head_dim = d->dims.c;
    s->window = (size_t)hf_layer_window(d->c, w->index);
    s->scale = (float)d->c->attn_scale;
    s->softcap = (float)d->c->attn_softcap;
    s->starts = d->starts;
    if (r == NULL)
        return DR_OK;
    DR_TRY(need_rope(table, r, d->starts != NULL ? d->longest : t));
    s->rotary_dim = (size_t)r->rotary_dim;
    s->cos = table->cos;
    s->sin = table->sin;
done:
    return st;
}
