/*
 * rotations.c - what attention needs to know of a layer: its rotation's tables, its window.
 *
 * A decoder has tables for two rotations at most (Gemma 3: layers with a window have their
 * own); they grow with the longest sequence seen.
 */
#include "nn/decoder_impl.h"

void nn_rope_release(nn_rope_table *t)
{
    nn_mem_free(t->mem, t->cos);
    *t = (nn_rope_table){0};
}

/* transformers takes longrope's long factors for the whole sequence once it is longer than
 * the model was trained on. */
static dr_status need_rope(nn_decoder *d, nn_rope_table *table, const hf_rope *r, size_t t)
{
    dr_status st = DR_OK;
    bool is_long = r->kind == HF_ROPE_LONGROPE && t > (size_t)r->original_max;
    size_t half = (size_t)r->rotary_dim / 2;
    float *p = NULL, *host = NULL;

    if (t <= table->rows && is_long == table->is_long)
        return DR_OK;
    DR_TRY(nn_mem_new(d->mem, &p, 2 * t * half, NN_MEM_FLOAT, "tables of rotations"));
    nn_rope_release(table);
    *table = (nn_rope_table){p, p + t * half, d->mem, t, is_long};
    DR_TRY(nn_mem_new(NULL, &host, 2 * t * half, NN_MEM_FLOAT, "tables of rotations"));
    hf_rope_tables(r, is_long, t, host, host + t * half);
    DR_TRY(nn_copy(d->dev, p, host, 2 * t * half * sizeof(float)));
done:
    nn_mem_free(NULL, host);
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
    DR_TRY(need_rope(d, table, r, d->starts != NULL ? d->longest : t));
    s->rotary_dim = (size_t)r->rotary_dim;
    s->cos = table->cos;
    s->sin = table->sin;
done:
    return st;
}
