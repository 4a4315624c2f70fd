/*
 * gptq_head.c - the head by GPTQ, for the inputs that the rounded layers give it.
 *
 * It is the largest weight of many models, so its rows are solved in slices: rows do not
 * depend on each other, and each slice finds the same factor of the same Hessian again,
 * which costs D^3 beside the slice's own rows x D^2.
 */
#include "core/mem.h"
#include "quant/quant_impl.h"

enum { SLICE_ROWS = 8192 };

typedef struct {
    float *y;          /* owned: [chunk][D] */
    float *strips, *h; /* owned: the Hessian being summed; [D][D] */
    float *w;          /* owned: [SLICE_ROWS][D] */
} head_run;

static void head_close(head_run *r)
{
    float *all[] = {r->y, r->strips, r->h, r->w};

    for (size_t i = 0; i < DR_COUNT(all); i++)
        dr_big_free(all[i]);
}

static dr_status head_open(head_run *r, const quant_stream *s, size_t rows)
{
    size_t d = (size_t)s->cfg->hidden;
    dr_status st = DR_OK;

    DR_TRY(quant_floats(&r->y, s->step * s->calib->seq_len, d, "norm outputs"));
    DR_TRY(quant_floats(&r->strips, quant_gram_floats(d), 1, "Hessian"));
    DR_TRY(quant_floats(&r->h, d, d, "Hessian"));
    DR_TRY(quant_floats(&r->w, rows, d, "a slice of the head"));
done:
    return st;
}

/* r->h of the final norm's outputs for all of s->x. */
static dr_status sum_hessian(head_run *r, const quant_stream *s)
{
    nn_device *dev = s->site->dev;
    size_t d = (size_t)s->cfg->hidden, t = s->calib->seq_len;
    dr_status st = DR_OK;

    for (size_t i = 0; i < s->calib->count; i += s->step) {
        size_t m = quant_stream_count(s, i) * t;
        DR_TRY(dr_cancelled_check());
        DR_TRY(nn_final_norm(s->dec, r->y, s->x + i * t * d, m));
        DR_TRY(nn_i8_gram(dev, r->strips, r->y, m, d, i == 0));
    }
    DR_TRY(quant_gram_expand(nn_device_pool(dev), r->h, r->strips, d));
done:
    return st;
}

/* Rows row0 .. of the head into the same rows of q. */
static dr_status solve_slice(head_run *r, dr_qtensor *q, const quant_stream *s,
                             const hf_linear *head, size_t row0, size_t rows,
                             const quant_gptq_options *o, bool best)
{
    const quant_grid *grid = s->site->head;
    size_t d = head->n_in;
    dr_qtensor part = {0};
    double loss = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    DR_TRY(hf_linear_read(s->site->in, head, r->w, row0, rows));
    if (!dr_all_finite(r->w, DR_DTYPE_F32, rows * d))
        DR_FAIL(DR_EFORMAT, "rows %zu to %zu hold a weight that is not finite", row0,
                row0 + rows - 1);
    if (best)
        DR_TRY(quant_chain_solve(&part, &loss, s->site->dev, r->w, r->h, rows, d, grid, o,
                                 head->path));
    else
        DR_TRY(quant_gptq_solve(&part, &loss, s->site->dev, r->w, r->h, rows, d, grid, o,
                                head->path));
    dr_qtensor_copy_rows(q, row0, &part, 0, rows);
done:
    dr_qtensor_release(&part);
    return st;
}

dr_status quant_gptq_head(const quant_stream *s, const quant_gptq_options *o, bool best)
{
    const hf_linear *head = hf_head_linear(s->site->in);
    const quant_grid *grid = s->site->head;
    size_t block = 0, slice = head->n_out < SLICE_ROWS ? head->n_out : SLICE_ROWS;
    head_run r = {0};
    dr_qtensor q = {0};
    dr_status st = DR_OK;

    DR_TRY(quant_grid_block(&block, grid, head->n_in, head->path));
    DR_TRY(head_open(&r, s, slice));
    DR_TRY(sum_hessian(&r, s));
    DR_TRY(dr_qtensor_new(&q, quant_stored_bits(grid), (int)block, head->n_out, head->n_in,
                          grid->symmetric));
    for (size_t row = 0; row < head->n_out; row += slice) {
        size_t n = head->n_out - row < slice ? head->n_out - row : slice;
        DR_TRYF(solve_slice(&r, &q, s, head, row, n, o, best), "rounding %s", head->path);
    }
    DR_TRY(hf_writer_packed(s->site->out, head, &q));
done:
    dr_qtensor_release(&q);
    head_close(&r);
    return st;
}
