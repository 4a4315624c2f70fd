/*
 * slot_rows.c - a slot of a layer as one matrix, whatever modules its rows come from.
 *
 * Packed modules are converted once, when the source is opened (hf_linear_packed), and cut
 * by rows afterwards: Phi-3's gate_up_proj gives gate_proj and up_proj, Llama's q_proj,
 * k_proj and v_proj give one qkv_proj.
 */
#include <string.h>

#include "onnx/weight_impl.h"

/* The part that has this row; *within: its row there. */
static size_t part_of(const onnx_source *s, size_t row, size_t *within)
{
    size_t i = s->part_count - 1;

    DR_BUG_IF(row >= s->rows);
    while (i > 0 && s->part[i]->row0 > row)
        i--;
    *within = s->part[i] != NULL ? row - s->part[i]->row0 : row; /* NULL: experts */
    return i;
}

static dr_status add_part(onnx_source *s, const hf_linear *l, dr_pool *pool)
{
    dr_status st = DR_OK;

    DR_BUG_IF(s->part_count == ONNX_PARTS);
    if (l->packed)
        DR_TRYF(hf_linear_packed(s->m, l, &s->packed[s->part_count], pool), "reading %s",
                l->path);
    s->part[s->part_count++] = l;
    s->rows = l->row0 + l->n_out;
    s->cols = l->n_in;
done:
    return st;
}

dr_status onnx_source_slot(onnx_source *s, const hf_model *m, dr_pool *pool, int layer,
                           hf_slot slot)
{
    const hf_linear *l = NULL;
    size_t count = hf_layer_linears(m, layer, &l);
    dr_status st = DR_OK;

    *s = (onnx_source){.m = m};
    for (size_t i = 0; i < count; i++) {
        if (l[i].slot == slot)
            DR_TRY(add_part(s, &l[i], pool));
    }
    DR_BUG_IF(s->part_count == 0);
done:
    if (st != DR_OK)
        onnx_source_release(s);
    return st;
}

static dr_status one_linear(onnx_source *s, const hf_model *m, dr_pool *pool,
                            const hf_linear *l)
{
    dr_status st = DR_OK;

    *s = (onnx_source){.m = m};
    st = add_part(s, l, pool);
    if (st != DR_OK)
        onnx_source_release(s);
    return st;
}

dr_status onnx_source_embedding(onnx_source *s, const hf_model *m, dr_pool *pool)
{
    return one_linear(s, m, pool, hf_embed_linear(m));
}

void onnx_source_experts(onnx_source *s, const hf_model *m, int layer, hf_expert_part part)
{
    const hf_config *c = hf_model_config(m);

    *s = (onnx_source){.m = m,
                       .part_count = 1,
                       .rows = (size_t)c->experts.count * hf_expert_out(c, part),
                       .cols = hf_expert_in(c, part),
                       .stack = (size_t)c->experts.count,
                       .layer = layer,
                       .expert = part};
}

dr_status onnx_source_head(onnx_source *s, const hf_model *m, dr_pool *pool)
{
    const hf_linear *head = hf_head_linear(m);

    return one_linear(s, m, pool, head != NULL ? head : hf_embed_linear(m));
}

void onnx_source_release(onnx_source *s)
{
    for (size_t i = 0; i < ONNX_PARTS; i++)
        dr_qtensor_release(&s->packed[i]);
    *s = (onnx_source){0};
}

dr_status onnx_source_read(const onnx_source *s, float *dst, size_t row0, size_t count)
{
    dr_status st = DR_OK;

    if (s->stack > 0)
        return hf_expert_read(s->m, s->layer, s->expert, dst, row0, count);
    while (count > 0) {
        size_t at = 0, i = part_of(s, row0, &at);
        size_t n = s->part[i]->n_out - at < count ? s->part[i]->n_out - at : count;
        if (s->packed[i].codes != NULL)
            dr_qtensor_to_f32(dst, &s->packed[i], at, n);
        else
            DR_TRY(hf_linear_read(s->m, s->part[i], dst, at, n));
        dst += n * s->cols;
        row0 += n;
        count -= n;
    }
done:
    return st;
}

/* The bias of one part, cut to [row0, row0 + count) of the source. */
static dr_status part_bias(const onnx_source *s, const hf_linear *l, float *dst,
                           size_t row0, size_t count, bool *any)
{
    dr_arena scratch = {0};
    void *all = NULL;
    dr_status st = DR_OK;

    if (!l->has_bias)
        return DR_OK;
    DR_TRY(dr_arena_big(&scratch, &all, l->n_out, sizeof(float), l->path));
    DR_TRYF(hf_linear_bias(s->m, l, all), "reading the bias of %s", l->path);
    for (size_t i = 0; i < l->n_out; i++) {
        size_t row = l->row0 + i;
        if (row < row0 || row >= row0 + count)
            continue;
        dst[row - row0] = ((const float *)all)[i];
        if (((const float *)all)[i] != 0.0f)
            *any = true;
    }
done:
    dr_arena_release(&scratch);
    return st;
}

dr_status onnx_source_bias(const onnx_source *s, float *dst, size_t row0, size_t count,
                           bool *any)
{
    dr_status st = DR_OK;

    *any = false;
    memset(dst, 0, count * sizeof(*dst));
    for (size_t i = 0; i < s->part_count; i++) {
        if (s->part[i] != NULL)
            DR_TRY(part_bias(s, s->part[i], dst, row0, count, any));
    }
done:
    return st;
}

const char *onnx_source_name(const onnx_source *s, size_t row)
{
    size_t at = 0, i = part_of(s, row, &at);

    if (s->stack > 0)
        return s->expert == HF_EXPERT_DOWN ? "experts.down_proj" : "experts.gate_up_proj";
    return s->part[i]->path;
}

size_t onnx_source_row_in(const onnx_source *s, size_t row)
{
    size_t at = 0;

    (void)part_of(s, row, &at);
    return at;
}

bool onnx_source_packed(const onnx_source *s, size_t row0, size_t count)
{
    size_t at = 0;
    bool packed = false;

    for (size_t i = part_of(s, row0, &at); i <= part_of(s, row0 + count - 1, &at); i++)
        packed = packed || s->packed[i].codes != NULL;
    return packed;
}

/* Blocks that the runtimes take: a power of two up to 256 that divides the module's. */
static int runtime_block(int block)
{
    int b = block & -block;

    return b < ONNX_BLOCK_MAX ? b : ONNX_BLOCK_MAX;
}

bool onnx_source_grid(const onnx_source *s, size_t row0, size_t count, onnx_grid *grid)
{
    size_t at = 0, first = part_of(s, row0, &at);

    *grid = (onnx_grid){.bits = s->packed[first].bits,
                        .block = runtime_block(s->packed[first].block),
                        .symmetric = true};
    for (size_t i = first; i <= part_of(s, row0 + count - 1, &at); i++) {
        const dr_qtensor *q = &s->packed[i];
        if (q->codes == NULL || q->bits != grid->bits ||
            runtime_block(q->block) != grid->block)
            return false;
        grid->symmetric = grid->symmetric && q->zeros == NULL;
    }
    return true;
}

static void put_zero(uint8_t *zeros, size_t block, int bits, int zero)
{
    size_t at = block * (size_t)bits;

    zeros[at / 8] |= (uint8_t)(zero << at % 8);
}

void onnx_source_row(const onnx_source *s, size_t row, const onnx_grid *grid,
                     uint8_t *codes, float *scales, uint8_t *zeros)
{
    size_t at = 0;
    const dr_qtensor *q = &s->packed[part_of(s, row, &at)];
    size_t n = (size_t)grid->block, kb = (s->cols + n - 1) / n;
    size_t from_kb = dr_qtensor_blocks(q), ratio = (size_t)q->block / n;
    size_t zero_bytes = (kb * (size_t)grid->bits + 7) / 8;

    memcpy(codes, q->codes + at * dr_qtensor_row_bytes(q), kb * n * (size_t)q->bits / 8);
    for (size_t b = 0; b < kb; b++)
        scales[b] = q->scales[at * from_kb + b / ratio];
    if (zeros == NULL)
        return;
    if (ratio == 1 && q->zeros != NULL) {
        memcpy(zeros, q->zeros + at * zero_bytes, zero_bytes);
        return;
    }
    memset(zeros, 0, zero_bytes);
    for (size_t b = 0; b < kb; b++)
        put_zero(zeros, b, grid->bits, dr_qtensor_zero(q, at, b / ratio));
}
