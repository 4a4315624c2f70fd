/*
 * gptq_head.c - the head by GPTQ, for the last hidden states of the text; and the table of
 * a model whose embedding is its head.
 *
 * The head is the largest weight of many models, so its rows are solved in slices: rows do
 * not depend on each other, and each slice finds the same factor of the same Hessian again,
 * which costs D^3 beside the slice's own rows x D^2.
 *
 * A head of its own is rounded last, for what the rounded layers give it.  A table is what
 * the text comes in by, so it is rounded first, for the original's last hidden states, and
 * the layers are then rounded for the text as the rounded table gives it.  As a head it
 * costs far more than as an embedding (SmolLM2-135M, 4 bits, blocks of 32, rounded to
 * nearest: KL 0.077 and 0.012 on top of 0.285), so no row is solved for its second use:
 * with 0.3 and 1 of the Hessian's mean diagonal added for it, KL was 0.0570 and 0.0579 in
 * place of 0.0558.
 */
#include "core/mem.h"
#include "quant/quant_impl.h"

enum { SLICE_ROWS = 8192, TABLE_TOKENS = 16384 };

/* h[D][D] = the Hessian of the final norm's outputs for s->x. */
static dr_status sum_hessian(float *h, const quant_stream *s)
{
    nn_device *dev = s->site->dev;
    size_t d = (size_t)s->cfg->hidden, t = s->calib.seq_len;
    float *y = NULL, *strips = NULL;
    dr_status st = DR_OK;

    DR_TRY(quant_floats_at(s->mem, &y, s->step * t, d, "norm outputs"));
    DR_TRY(quant_floats_at(s->mem, &strips, nn_gram_floats(d), 1, "Hessian"));
    for (size_t i = 0; i < s->calib.count; i += s->step) {
        size_t m = quant_stream_count(s, i) * t;
        DR_TRY(dr_cancelled_check());
        DR_TRY(nn_final_norm(s->dec, y, s->x + i * t * d, m));
        DR_TRY(nn_rough_gram(dev, strips, y, m, d, i == 0));
    }
    DR_TRY(quant_sum(s->site, strips, nn_gram_floats(d), "Hessians"));
    DR_TRY(quant_gram_expand(dev, h, strips, d, 1.0f));
done:
    nn_mem_free(s->mem, y);
    nn_mem_free(s->mem, strips);
    return st;
}

typedef struct {
    const quant_site *site;
    const hf_linear *l;
    const quant_grid *grid;
    const quant_gptq_options *o;
    bool best;
    nn_device *mem; /* where h lies, and with it there; NULL: the host's memory */
    float *h, *w;   /* owned: [D][D]; here: [SLICE_ROWS][D] */
    float *there;   /* owned: the same as w there */
} rows_job;

/* Rows row0 .. of the linear into the same rows of q. */
static dr_status solve_slice(const rows_job *j, dr_qtensor *q, size_t row0, size_t rows)
{
    size_t d = j->l->n_in;
    float *w = j->mem != NULL ? j->there : j->w;
    dr_qtensor part = {0};
    double loss = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    DR_TRY(hf_linear_read(j->site->in, j->l, j->w, row0, rows));
    if (!dr_all_finite(j->w, DR_DTYPE_F32, rows * d))
        DR_FAIL(DR_EFORMAT, "rows %zu to %zu hold a weight that is not finite", row0,
                row0 + rows - 1);
    if (j->mem != NULL)
        DR_TRY(nn_copy(j->mem, w, j->w, rows * d * sizeof(*w)));
    if (j->best)
        DR_TRY(quant_chain_solve(&part, &loss, NULL, j->site->dev, w, j->h, rows, d,
                                 j->grid, j->o, j->l->path));
    else
        DR_TRY(quant_gptq_solve(&part, &loss, j->site->dev, w, j->h, rows, d, j->grid, j->o,
                                j->l->path));
    dr_qtensor_copy_rows(q, row0, &part, 0, rows);
done:
    dr_qtensor_release(&part);
    return st;
}

/* l for the Hessian of the stream's end; q is a new weight. */
static dr_status solve_rows(dr_qtensor *q, const quant_stream *s, const hf_linear *l,
                            const quant_grid *grid, const quant_gptq_options *o, bool best)
{
    size_t block = 0, slice = l->n_out < SLICE_ROWS ? l->n_out : SLICE_ROWS, d = l->n_in;
    rows_job j = {
        .site = s->site, .l = l, .grid = grid, .o = o, .best = best, .mem = s->mem};
    dr_status st = DR_OK;

    DR_TRY(quant_grid_block(&block, grid, d, l->path));
    DR_TRY(quant_floats_at(s->mem, &j.h, d, d, "Hessian"));
    DR_TRY(quant_floats(&j.w, slice, d, "a slice of the head"));
    if (s->mem != NULL)
        DR_TRY(quant_floats_at(s->mem, &j.there, slice, d, "a slice of the head"));
    DR_TRY(sum_hessian(j.h, s));
    DR_TRY(dr_qtensor_new(q, quant_stored_bits(grid), (int)block, l->n_out, d,
                          grid->symmetric));
    const quant_rows own = quant_own_rows(s->site, l->n_out);
    for (size_t row = 0; row < own.count; row += slice) {
        size_t n = own.count - row < slice ? own.count - row : slice;
        DR_TRYF(solve_slice(&j, q, own.from + row, n), "rounding %s", l->path);
    }
    DR_TRY(quant_share_packed(s->site, q));
done:
    nn_mem_free(s->mem, j.h);
    nn_mem_free(s->mem, j.there);
    dr_big_free(j.w);
    return st;
}

dr_status quant_gptq_head(const quant_stream *s, const quant_gptq_options *o, bool best)
{
    const hf_linear *head = hf_head_linear(s->site->in);
    dr_qtensor q = {0};
    dr_status st = DR_OK;

    DR_TRY(solve_rows(&q, s, head, s->site->head, o, best));
    DR_TRY(hf_writer_packed(s->site->out, head, &q));
done:
    dr_qtensor_release(&q);
    return st;
}

/* ---- the table ---- */

/* The text on its way through the original's layers. */
static dr_status run_original(quant_stream *s)
{
    const hf_config *c = s->cfg;
    size_t t = s->calib.seq_len, d = (size_t)c->hidden;
    size_t step = s->step < s->calib.count ? s->step : s->calib.count;
    float *packed[HF_SLOT_COUNT] = {NULL};
    const nn_layer *w = NULL;
    nn_acts acts = {0};
    dr_status st = DR_OK;

    DR_TRY(nn_acts_new_there(&acts, s->mem, c, step, t, 0));
    DR_TRY(quant_packed_slots(packed, s->site->dev, s->mem, c));
    for (int layer = 0; layer < c->layers; layer++) {
        nn_layer own;
        DR_TRY(nn_decoder_layer(s->dec, layer, &w));
        DR_TRY(quant_pack_slots(&own, packed, s->site->dev, c, w));
        for (size_t i = 0; i < s->calib.count; i += s->step) {
            DR_TRY(dr_cancelled_check());
            DR_TRY(nn_layer_forward(s->dec, &own, quant_stream_count(s, i), t,
                                    s->x + i * t * d, &acts, NULL, 0));
        }
    }
done:
    for (int i = 0; i < HF_SLOT_COUNT; i++)
        nn_mem_free(s->mem, packed[i]);
    nn_mem_free(s->mem, acts.x);
    return st;
}

dr_status quant_gptq_table(dr_qtensor *q, const quant_site *site, const quant_calib *calib,
                           const quant_gptq_options *o, bool best)
{
    size_t most = calib->seq_len < TABLE_TOKENS ? TABLE_TOKENS / calib->seq_len : 1;
    size_t ranks = dr_ranks_count(quant_ranks(site));
    most = most > ranks ? most : ranks; /* a block for each */
    const quant_calib some = {calib->ids, calib->count < most ? calib->count : most,
                              calib->seq_len};
    const hf_linear *table = hf_embed_linear(site->in);
    quant_stream s = {0};
    dr_status st = DR_OK;

    if (site->embed == NULL)
        return DR_OK;
    if (hf_head_linear(site->in) != NULL)
        return quant_round_rows(q, site, site->embed, quant_choose_kquant, table);
    DR_TRY(quant_stream_open(&s, site, &some, quant_solves_there(site, site->embed)));
    DR_TRY(run_original(&s));
    DR_TRY(solve_rows(q, &s, table, site->embed, o, best));
done:
    quant_stream_close(&s);
    return st;
}
