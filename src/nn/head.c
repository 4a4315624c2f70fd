/*
 * head.c - from the last layer's output to logits and to the loss.
 *
 * The loss never holds more than one chunk of logits: rows are taken so many at a time that
 * they fit 100 MB, and only rows with a target are computed at all.  A head that is not
 * kept is read in runs of rows, for each chunk anew.
 */
#include <string.h>

#include "core/mem.h"
#include "nn/decoder_impl.h"

enum { READ_ROWS = 256, IGNORED = -100 };

/* ---- the weights ---- */

/* The head's linear, or that of the embeddings where they are the head. */
static const hf_linear *head_of(const nn_decoder *d)
{
    const hf_linear *head = hf_head_linear(d->m);

    return head != NULL ? head : hf_embed_linear(d->m);
}

typedef struct {
    const nn_decoder *d;
    const hf_linear *l;
    float *dst;
    size_t row0, rows;
} read_job;

static dr_status read_task(void *ctx, size_t task, int worker)
{
    const read_job *j = ctx;
    size_t at = task * READ_ROWS, n = j->rows - at < READ_ROWS ? j->rows - at : READ_ROWS;

    (void)worker;
    return hf_linear_read(j->d->m, j->l, j->dst + at * j->d->dims.d, j->row0 + at, n);
}

static dr_status read_here(nn_decoder *d, const hf_linear *l, float *dst, size_t row0,
                           size_t rows)
{
    dr_status st = DR_OK;
    read_job j = {d, l, dst, row0, rows};

    DR_TRYF(dr_pool_run(nn_device_pool(d->dev), (rows + READ_ROWS - 1) / READ_ROWS,
                        read_task, &j),
            "reading the head");
done:
    return st;
}

/* Rows that are read in one piece. */
static size_t read_step(const nn_decoder *d)
{
    size_t rows = NN_HEAD_PIECE / d->dims.d / READ_ROWS * READ_ROWS;

    if (rows == 0)
        rows = READ_ROWS;
    return rows < d->dims.v ? rows : d->dims.v;
}

/* Is the head kept for products that round? */
static bool rounded(const nn_decoder *d)
{
    return d->keep_head && nn_device_rounds(d->mem);
}

/* Rows that are multiplied in one piece, whether the head is kept or not: so the bytes of
 * the gradient, a sum over pieces, do not depend on it.  Of rounded products all at once:
 * small pieces would leave most of a GPU idle. */
static size_t piece_rows(const nn_decoder *d)
{
    return rounded(d) ? d->dims.v : read_step(d);
}

static dr_status read_rows(nn_decoder *d, const hf_linear *l, float *dst, size_t row0,
                           size_t rows)
{
    size_t step = read_step(d), row = d->dims.d;
    float *stage = NULL;
    dr_status st = DR_OK;

    if (d->mem == NULL)
        return read_here(d, l, dst, row0, rows);
    DR_TRY(nn_stage(d, &stage, step * row));
    for (size_t i = 0; i < rows; i += step) {
        size_t n = rows - i < step ? rows - i : step;
        DR_TRY(read_here(d, l, stage, row0 + i, n));
        DR_TRY(nn_copy(d->dev, dst + i * row, stage, n * row * sizeof(*dst)));
    }
done:
    return st;
}

/* *kept = all rows of l, the head or the embeddings. */
static dr_status keep_rows(nn_decoder *d, float **kept, const hf_linear *l)
{
    nn_stored stored = {.src = hf_linear_bf16(d->m, l), .count = d->dims.v * d->dims.d};
    bool exact = d->mem != NULL && d->mem->backend->load != NULL && stored.src != NULL;
    nn_mem_kind kind = nn_device_rounds(d->mem) || exact ? NN_MEM_BF16 : NN_MEM_FLOAT;
    float *p = NULL;
    dr_status st = DR_OK;

    DR_TRY(nn_mem_new(d->mem, &p, stored.count, kind, "the head"));
    stored.dst = p;
    if (exact)
        st = d->mem->backend->load(d->mem, &stored, 1);
    else
        st = read_rows(d, l, p, 0, d->dims.v);
    if (st != DR_OK)
        nn_mem_free(d->mem, p);
    DR_TRY(st);
    *kept = p;
done:
    return st;
}

static dr_status keep_head(nn_decoder *d)
{
    return d->head != NULL ? DR_OK : keep_rows(d, &d->head, head_of(d));
}

dr_status nn_embeddings(nn_decoder *d, const float **out)
{
    bool own = hf_head_linear(d->m) != NULL;
    dr_status st = DR_OK;

    *out = NULL;
    if (!rounded(d))
        return DR_OK;
    if (!own)
        DR_TRY(keep_head(d));
    else if (d->table == NULL)
        DR_TRY(keep_rows(d, &d->table, hf_embed_linear(d->m)));
    *out = own ? d->table : d->head;
done:
    return st;
}

/* Rows row0 .. row0 + rows - 1 as floats; space [piece_rows][D] unless the head is kept. */
static dr_status piece(nn_decoder *d, const float **out, float *space, size_t row0,
                       size_t rows)
{
    dr_status st = DR_OK;

    if (d->keep_head)
        DR_TRY(keep_head(d));
    *out = d->keep_head ? d->head + row0 * d->dims.d : space;
    if (!d->keep_head)
        DR_TRY(read_rows(d, head_of(d), space, row0, rows));
done:
    return st;
}

/* The head as integers, for logits or (back) their gradients: made once. */
static dr_status integers(nn_decoder *d, const float **out, bool back)
{
    float **kept = back ? &d->head_back : &d->head_packed;
    size_t v = d->dims.v, width = d->dims.d;
    float *w = NULL, *turned = NULL, *packed = NULL;
    dr_status st = DR_OK;

    if (*kept != NULL)
        goto done;
    DR_TRY(nn_mem_new(NULL, &w, v * width, NN_MEM_FLOAT, "the head"));
    DR_TRY(read_here(d, head_of(d), w, 0, v));
    DR_TRY(nn_mem_new(NULL, &packed,
                      (back ? nn_i8_packed_bytes(width, v) : nn_i8_packed_bytes(v, width)) /
                          sizeof(float),
                      NN_MEM_FLOAT, "the packed head"));
    if (back) {
        DR_TRY(nn_mem_new(NULL, &turned, v * width, NN_MEM_FLOAT, "the head"));
        DR_TRY(nn_transpose(d->dev, turned, w, v, width));
        DR_TRY(nn_i8_pack(d->dev, packed, turned, width, v));
    } else {
        DR_TRY(nn_i8_pack(d->dev, packed, w, v, width));
    }
    *kept = packed;
    packed = NULL;
done:
    *out = *kept;
    dr_big_free(w);
    dr_big_free(turned);
    dr_big_free(packed);
    return st;
}

/* ---- logits ---- */

dr_status nn_final_norm(nn_decoder *d, float *y, const float *x, size_t m)
{
    return nn_norm(d, y, x, d->final_norm, d->final_bias, m);
}

/* What a chunk of rows needs; gradients only when they are asked for. */
typedef struct {
    float *x, *norm;   /* [rows][D] */
    float *logits;     /* [rows][V] */
    float *grad;       /* of the logits: they themselves, or rounded for products */
    float *dnorm, *dx; /* [rows][D] */
    float *space;      /* a piece of the head */
} chunk;

static size_t chunk_rows(const nn_decoder *d, size_t count)
{
    return nn_head_rows(d->dims.v, count, rounded(d));
}

static dr_status make_room(nn_decoder *d, chunk *c, size_t rows, bool loss, bool grad)
{
    dr_status st = DR_OK;
    size_t wide = rows * d->dims.d;
    float *scratch = NULL;
    const nn_part parts[] = {
        {&c->x, loss ? wide : 0},
        {&c->norm, wide},
        {&c->logits, loss ? rows * d->dims.v : 0},
        {&c->dnorm, grad ? wide : 0},
        {&c->dx, grad ? wide : 0},
        {&c->space, d->keep_head ? 0 : piece_rows(d) * d->dims.d},
    };

    DR_TRY(nn_scratch(d, &scratch, nn_place(parts, DR_COUNT(parts), NULL)));
    (void)nn_place(parts, DR_COUNT(parts), scratch);
    c->grad = c->logits;
done:
    return st;
}

/* logits[rows][V] of x[rows][D]. */
static dr_status logits_of(nn_decoder *d, chunk *c, float *logits, const float *x,
                           size_t rows, bool rough)
{
    dr_status st = DR_OK;
    const nn_dims *s = &d->dims;
    size_t step = piece_rows(d);
    const float *packed = NULL;

    DR_TRY(nn_final_norm(d, c->norm, x, rows));
    if (rough) {
        DR_TRY(integers(d, &packed, false));
        DR_TRY(nn_i8_matmul(d->dev, logits, c->norm, packed, d->head_bias, rows, s->v, s->d,
                            s->v, false));
    }
    for (size_t v = 0; v < s->v && !rough; v += step) {
        const float *w = NULL;
        size_t n = s->v - v < step ? s->v - v : step;
        DR_TRY(piece(d, &w, c->space, v, n));
        DR_TRY(nn_matmul_nt(d->dev, logits + v, c->norm, w,
                            d->head_bias != NULL ? d->head_bias + v : NULL, rows, n, s->d,
                            s->v, false));
    }
    if (d->c->logit_scale != 1 || d->c->logit_softcap != 0)
        DR_TRY(nn_scale_cap(d->dev, logits, rows * s->v, (float)d->c->logit_scale,
                            (float)d->c->logit_softcap));
done:
    return st;
}

dr_status nn_head_logits(nn_decoder *d, float *logits, const float *x, size_t count)
{
    dr_status st = DR_OK;
    chunk c = {0};
    size_t step = count < NN_HEAD_ROWS ? count : NN_HEAD_ROWS;

    DR_TRY(make_room(d, &c, step, false, false));
    for (size_t i = 0; i < count; i += step) {
        size_t n = count - i < step ? count - i : step;
        DR_TRY(logits_of(d, &c, logits + i * d->dims.v, x + i * d->dims.d, n, false));
    }
done:
    return st;
}

/* ---- loss ---- */

/* c->dx = gradient at c->x from that of the logits. */
static dr_status head_back(nn_decoder *d, chunk *c, size_t rows, bool rough)
{
    dr_status st = DR_OK;
    const nn_dims *s = &d->dims;
    size_t step = piece_rows(d);
    const float *packed = NULL;

    if (rough) {
        DR_TRY(integers(d, &packed, true));
        DR_TRY(nn_i8_matmul(d->dev, c->dnorm, c->logits, packed, NULL, rows, s->d, s->v,
                            s->d, false));
    }
    for (size_t v = 0; v < s->v && !rough; v += step) {
        const float *w = NULL;
        size_t n = s->v - v < step ? s->v - v : step;
        DR_TRY(piece(d, &w, c->space, v, n));
        DR_TRY(nn_matmul_nn(d->dev, c->dnorm, c->grad + v, w, rows, s->d, n, s->v, v > 0));
    }
    DR_TRY(nn_zero(d->dev, c->dx, rows * s->d * sizeof(*c->dx)));
    DR_TRY(nn_norm_back(d, c->dx, c->dnorm, c->x, d->final_norm, rows));
done:
    return st;
}

/* Rows with a target, as they are taken up chunk by chunk. */
typedef struct {
    const int32_t *targets;
    size_t count, next; /* next: the first row not looked at yet */
    size_t n;           /* rows of this chunk */
    size_t places[NN_HEAD_ROWS_THERE];
    int32_t chosen[NN_HEAD_ROWS_THERE];
    double losses[NN_HEAD_ROWS_THERE];
} rows;

/* Takes up to `most` rows with a target from r->next on. */
static dr_status gather(const nn_decoder *d, rows *r, size_t most)
{
    dr_status st = DR_OK;

    for (r->n = 0; r->next < r->count && r->n < most; r->next++) {
        int32_t target = r->targets[r->next];
        if (target == IGNORED)
            continue;
        if (target < 0 || target >= d->c->vocab)
            DR_FAIL(DR_EFORMAT, "target %d is outside of the vocabulary of %d", target,
                    d->c->vocab);
        r->places[r->n] = r->next;
        r->chosen[r->n++] = target;
    }
done:
    return st;
}

/* Rows i .. run_end - 1 of the chunk are neighbours. */
static size_t run_end(const rows *r, size_t i)
{
    size_t end = i + 1;

    while (end < r->n && r->places[end] == r->places[end - 1] + 1)
        end++;
    return end;
}

/* The chunk's rows from their places in x, and to them in dx. */
static dr_status take(const nn_decoder *d, const rows *r, float *chunk_x, const float *x)
{
    size_t row = d->dims.d;
    dr_status st = DR_OK;

    for (size_t i = 0, end; i < r->n; i = end) {
        end = run_end(r, i);
        DR_TRY(nn_copy(d->dev, chunk_x + i * row, x + r->places[i] * row,
                       (end - i) * row * sizeof(*x)));
    }
done:
    return st;
}

static dr_status put(const nn_decoder *d, const rows *r, float *dx, const float *chunk_dx)
{
    size_t row = d->dims.d;
    dr_status st = DR_OK;

    for (size_t i = 0, end; i < r->n; i = end) {
        end = run_end(r, i);
        DR_TRY(nn_copy(d->dev, dx + r->places[i] * row, chunk_dx + i * row,
                       (end - i) * row * sizeof(*dx)));
    }
done:
    return st;
}

/* Losses, and (grad_scale is not 0) c->grad: apart from the logits where a device that
 * rounds them for products can write them so. */
static dr_status cross_entropy(nn_decoder *d, chunk *c, rows *r, float grad_scale,
                               float smoothing)
{
    const nn_backend *b = d->dev->backend;
    float scale = grad_scale * (float)d->c->logit_scale, cap = (float)d->c->logit_softcap;
    float *apart = NULL;
    bool taken = false;
    dr_status st = DR_OK;

    if (rounded(d) && b->xent_apart != NULL && scale != 0.0f) {
        DR_TRY(nn_scratch_rounded(d, &apart, r->n * d->dims.v));
        DR_TRY(b->xent_apart(d->dev, &taken, r->losses, apart, c->logits, r->chosen, r->n,
                             d->dims.v, scale, cap, smoothing));
    }
    c->grad = taken ? apart : c->logits;
    if (!taken)
        DR_TRY(nn_xent(d->dev, r->losses, c->logits, r->chosen, r->n, d->dims.v, scale, cap,
                       smoothing));
done:
    return st;
}

/* Losses of the chunk's rows and, when dx is not NULL, their gradients put into place. */
static dr_status chunk_loss(nn_decoder *d, chunk *c, rows *r, const float *x, float *dx,
                            float grad_scale, float smoothing)
{
    const bool rough = d->integers && dx != NULL;
    dr_status st = DR_OK;

    DR_TRY(take(d, r, c->x, x));
    DR_TRY(logits_of(d, c, c->logits, c->x, r->n, rough));
    DR_TRY(cross_entropy(d, c, r, grad_scale, smoothing));
    if (dx == NULL)
        return DR_OK;
    DR_TRY(head_back(d, c, r->n, rough));
    DR_TRY(put(d, r, dx, c->dx));
done:
    return st;
}

dr_status nn_head_loss(nn_decoder *d, const float *x, const int32_t *targets, size_t count,
                       double *loss_sum, size_t *counted, float *dx, float grad_scale,
                       float smoothing)
{
    dr_status st = DR_OK;
    size_t most = chunk_rows(d, count);
    rows r = {.targets = targets, .count = count};
    chunk c = {0};

    if (dx != NULL)
        DR_TRY(nn_zero(d->dev, dx, count * d->dims.d * sizeof(*dx)));
    if (dx == NULL || grad_scale == 0.0f) {
        dx = NULL;
        grad_scale = 0.0f;
    }
    DR_TRY(make_room(d, &c, most, true, dx != NULL));
    while (r.next < count) {
        DR_TRY(gather(d, &r, most));
        DR_TRY(chunk_loss(d, &c, &r, x, dx, grad_scale, smoothing));
        for (size_t i = 0; i < r.n; i++)
            *loss_sum += r.losses[i];
        *counted += r.n;
    }
done:
    return st;
}

/* ---- against a teacher ---- */

dr_status nn_head_kl(nn_decoder *d, const float *x, nn_decoder *teacher,
                     const float *teacher_x, size_t count, double *kl_sum, float *dx,
                     float grad_scale)
{
    size_t step = chunk_rows(d, count), row = d->dims.d, bytes = row * sizeof(*x);
    double kl[NN_HEAD_ROWS_THERE];
    float scale = dx != NULL ? grad_scale * (float)d->c->logit_scale : 0.0f;
    const bool rough = d->integers && dx != NULL;
    chunk c = {0}, tc = {0};
    dr_status st = DR_OK;

    DR_BUG_IF(d->dims.v != teacher->dims.v || d->mem != teacher->mem);
    DR_TRY(make_room(d, &c, step, true, dx != NULL));
    DR_TRY(make_room(teacher, &tc, step, true, false));
    for (size_t i = 0; i < count; i += step) {
        size_t n = count - i < step ? count - i : step;
        DR_TRY(nn_copy(d->dev, c.x, x + i * row, n * bytes));
        DR_TRY(nn_copy(d->dev, tc.x, teacher_x + i * row, n * bytes));
        DR_TRY(logits_of(d, &c, c.logits, c.x, n, rough));
        DR_TRY(logits_of(teacher, &tc, tc.logits, tc.x, n, rough));
        DR_TRY(nn_kl(d->dev, kl, c.logits, tc.logits, n, d->dims.v, scale,
                     (float)d->c->logit_softcap));
        for (size_t k = 0; k < n; k++)
            *kl_sum += kl[k];
        if (dx == NULL)
            continue;
        DR_TRY(head_back(d, &c, n, rough));
        DR_TRY(nn_copy(d->dev, dx + i * row, c.dx, n * bytes));
    }
done:
    return st;
}
