/*
 * unpack.c - packed weights of Hugging Face checkpoints into drupe's layout.
 *
 * Four layouts of W[N, K] with G groups along K (bits b, words of 32 bits):
 *
 *            codes                       scales   zero points
 *   awq      word [K, N/8], see          [G, N]   word [G, N/8], as the codes
 *            packed_impl.h
 *   gptq     word [K*b/32, N], inputs    [G, N]   word [G, N*b/32], in order; stored minus
 *            in order, lowest first               1, but plain in gptq_v2
 *   olive    byte [N, K*b/8], inputs     [N, G]   byte [N, G*b/8], in order; absent when
 *            in order, lowest first               symmetric
 *   com-     word [N, K*b/32], inputs    [N, G]   word [N*b/32, G], outputs in order;
 *   pressed  in order, lowest first               absent when symmetric
 *
 * so awq is transposed nibble by nibble, gptq word by word, the others copied.  A group
 * that is no power of two, or longer than 256, becomes several blocks with the same scale;
 * a group of a whole row may leave a short last block, which is filled with its zero point.
 *
 * A g_idx says which group an input belongs to.  Where that is not the plain order, blocks
 * of neighbours do not exist, and sorting them would need the layer's input sorted, too:
 * such a linear is not packed, but read as floats.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "hf/packed_impl.h"
#include "hf/roles_impl.h"

enum {
    BLOCK_MAX = 256,
    BLOCK_MIN = 16,
    ROW_BLOCK = 128,
    TILE_WORDS = 64,
    TASK_ROWS = 256 /* whole words of any layout */
};

/* ---- sizes ---- */

/* Everything that the loops need to know of one packed linear. */
struct view {
    const hf_parts *p;
    const hf_quant *quant;
    bool v2;
    size_t rows_all, cols; /* N, K */
    size_t row0, rows;     /* those wanted */
    size_t span, groups;   /* inputs of a group; G */
};

static size_t words(size_t count, int bits)
{
    return count * (size_t)bits / 32;
}

static size_t whole_words(size_t count, int bits)
{
    return (count * (size_t)bits + 31) / 32;
}

static size_t bytes_for(size_t count, int bits)
{
    return (count * (size_t)bits + 7) / 8;
}

/* The block that groups of span inputs are cut into; 0: cannot be. */
static int block_for(size_t span, size_t cols)
{
    int block = BLOCK_MAX;

    while (block >= BLOCK_MIN && span % (size_t)block != 0)
        block /= 2;
    if (block >= BLOCK_MIN)
        return block;
    return span >= cols ? ROW_BLOCK : 0;
}

static dr_status check_part(const hf_model *m, const hf_entry *e, size_t rows, size_t cols,
                            dr_dtype dtype)
{
    bool type = dtype == DR_DTYPE_F32 ? dr_dtype_is_float(e->t.dtype) : e->t.dtype == dtype;

    if (!type)
        return dr_fail(DR_EFORMAT, "%s: %s: expected %s, found %s", m->path, e->t.name,
                       dtype == DR_DTYPE_F32 ? "scales" : dr_dtype_name(dtype), e->type);
    if (e->ndim != 2 || e->rows != rows || e->cols != cols)
        return dr_fail(DR_EFORMAT, "%s: %s: expected [%zu, %zu], found [%zu, %zu]", m->path,
                       e->t.name, rows, cols, e->rows, e->cols);
    return DR_OK;
}

static dr_status check_shapes(const hf_model *m, const hf_linear *l, const hf_parts *p,
                              const struct view *v)
{
    int bits = v->quant->bits;
    size_t g = v->groups;
    dr_status st = DR_OK;

    if (v->quant->method == HF_QUANT_OLIVE) {
        DR_TRY(check_part(m, p->qweight, l->n_out, bytes_for(l->n_in, bits), DR_DTYPE_U8));
        DR_TRY(check_part(m, p->scales, l->n_out, g, DR_DTYPE_F32));
        if (p->qzeros != NULL)
            DR_TRY(check_part(m, p->qzeros, l->n_out, bytes_for(g, bits), DR_DTYPE_U8));
        goto done;
    }
    if (v->quant->method == HF_QUANT_COMPRESSED) {
        DR_TRY(
            check_part(m, p->qweight, l->n_out, whole_words(l->n_in, bits), DR_DTYPE_I32));
        DR_TRY(check_part(m, p->scales, l->n_out, g, DR_DTYPE_F32));
        if (p->qzeros != NULL)
            DR_TRY(check_part(m, p->qzeros, whole_words(l->n_out, bits), g, DR_DTYPE_I32));
        goto done;
    }
    if (v->quant->method == HF_QUANT_AWQ)
        DR_TRY(check_part(m, p->qweight, l->n_in, words(l->n_out, bits), DR_DTYPE_I32));
    else
        DR_TRY(check_part(m, p->qweight, words(l->n_in, bits), l->n_out, DR_DTYPE_I32));
    DR_TRY(check_part(m, p->scales, g, l->n_out, DR_DTYPE_F32));
    if (p->qzeros != NULL)
        DR_TRY(check_part(m, p->qzeros, g, words(l->n_out, bits), DR_DTYPE_I32));
done:
    return st;
}

/* *ordered: g_idx is the plain order. */
static dr_status check_order(bool *ordered, const hf_model *m, const hf_entry *e,
                             const struct view *v)
{
    const unsigned char *p = e->t.data;

    if (e->t.dtype != DR_DTYPE_I32 || e->rows * e->cols != v->cols)
        return dr_fail(DR_EFORMAT, "%s: %s: expected %zu of I32, found %zu of %s", m->path,
                       e->t.name, v->cols, e->rows * e->cols, e->type);
    *ordered = true;
    for (size_t k = 0; k < v->cols; k++) {
        uint32_t g = hf_load32(p + 4 * k);
        if (g >= v->groups)
            return dr_fail(DR_EFORMAT, "%s: %s: input %zu is in group %d of %zu", m->path,
                           e->t.name, k, (int)g, v->groups);
        *ordered = *ordered && g == k / v->span;
    }
    return DR_OK;
}

static struct view view_of(const hf_model *m, const hf_linear *l, const hf_parts *p)
{
    size_t span = p->quant.group == -1 ? l->n_in : (size_t)p->quant.group;

    return (struct view){
        .p = p,
        .quant = &p->quant,
        .v2 = m->gptq_v2,
        .rows_all = l->n_out,
        .cols = l->n_in,
        .rows = l->n_out,
        .span = span,
        .groups = (l->n_in + span - 1) / span,
    };
}

static dr_status check_view(bool *ordered, const hf_model *m, const hf_linear *l,
                            const hf_parts *p)
{
    struct view v = view_of(m, l, p);
    const hf_quant *q = &p->quant;
    dr_status st = DR_OK;

    if (l->n_in % v.span != 0 && q->method != HF_QUANT_GPTQ &&
        q->method != HF_QUANT_COMPRESSED)
        DR_FAIL(DR_EFORMAT, "%s: %s: %zu inputs are not a multiple of group_size %zu",
                m->path, l->path, l->n_in, v.span);
    if (block_for(v.span, l->n_in) == 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: %s: group_size %zu is not a multiple of %d", m->path,
                l->path, v.span, BLOCK_MIN);
    if (q->method <= HF_QUANT_GPTQ && l->n_out % (size_t)(32 / q->bits) != 0)
        DR_FAIL(DR_EFORMAT, "%s: %s: %zu outputs are not a multiple of %d", m->path,
                l->path, l->n_out, 32 / q->bits);
    if (q->method == HF_QUANT_GPTQ && l->n_in % (size_t)(32 / q->bits) != 0)
        DR_FAIL(DR_EFORMAT, "%s: %s: %zu inputs are not a multiple of %d", m->path, l->path,
                l->n_in, 32 / q->bits);
    DR_TRY(check_shapes(m, l, p, &v));
    if (p->g_idx != NULL)
        DR_TRY(check_order(ordered, m, p->g_idx, &v));
done:
    return st;
}

static const hf_entry *find(const hf_model *m, const char *module, const char *part)
{
    char name[HF_NAME_MAX];

    (void)snprintf(name, sizeof(name), "%s.%s", module, part);
    return hf_entry_find(m, name);
}

/* Rows of a linear whose inputs are not in order: hf_parts.rows. */
static dr_status read_unordered(const hf_model *m, const hf_linear *l, float *dst,
                                size_t row0, size_t count)
{
    const hf_parts *p = hf_linear_parts(m, l);
    const unsigned char *order = p->g_idx->t.data;
    struct view v = view_of(m, l, p);
    dr_qtensor q = {0};
    dr_status st = DR_OK;

    /* Codes come by input, scales and zero points by group in order: block g * span. */
    DR_TRY(hf_unpack_rows(m, l, &q, row0, count, NULL));
    size_t kb = dr_qtensor_blocks(&q);
    for (size_t r = 0; r < count; r++) {
        for (size_t k = 0; k < v.cols; k++) {
            size_t b = hf_load32(order + 4 * k) * v.span / (size_t)q.block;
            int code = dr_qtensor_code(&q, r, k) - dr_qtensor_zero(&q, r, b);
            dst[r * v.cols + k] = (float)code * q.scales[r * kb + b];
        }
    }
done:
    dr_qtensor_release(&q);
    return st;
}

/* What the parts of a packed linear are called. */
struct names {
    const char *qweight, *scales, *qzeros, *g_idx;
};

static dr_status find_parts(const hf_model *m, const hf_linear *l, hf_parts *p,
                            const struct names *n)
{
    dr_status st = DR_OK;

    DR_TRY(hf_quant_of_module(&p->quant, m, l->path));
    p->scales = find(m, l->path, n->scales);
    p->qzeros = find(m, l->path, n->qzeros);
    p->g_idx = find(m, l->path, n->g_idx);
    if (p->scales == NULL)
        DR_FAIL(DR_EFORMAT, "%s: tensor %s.%s is missing", m->path, l->path, n->scales);
    if (p->qzeros == NULL && !p->quant.symmetric)
        DR_FAIL(DR_EFORMAT,
                "%s: tensor %s.%s is missing, and config.json does not call the weights "
                "symmetric",
                m->path, l->path, n->qzeros);
done:
    return st;
}

/* compressed-tensors says the shape again, since rows are filled up to whole words. */
static dr_status check_stated_shape(const hf_model *m, const hf_linear *l,
                                    const hf_entry *e)
{
    int64_t shape[2] = {0};

    if (e == NULL)
        return DR_OK;
    if (e->t.dtype == DR_DTYPE_I64 && e->t.bytes == 16)
        memcpy(shape, e->t.data, 16);
    if (shape[0] != (int64_t)l->n_out || shape[1] != (int64_t)l->n_in)
        return dr_fail(DR_EFORMAT, "%s: %s: expected [%zu, %zu] in I64, found [%lld, %lld]",
                       m->path, e->t.name, l->n_out, l->n_in, (long long)shape[0],
                       (long long)shape[1]);
    return DR_OK;
}

dr_status hf_unpack_find(hf_model *m, hf_linear *l, hf_parts *p)
{
    static const struct names plain = {"qweight", "scales", "qzeros", "g_idx"};
    static const struct names newer = {"weight_qweight", "weight_scales", "weight_qzeros",
                                       "weight_g_idx"}; /* Olive's */
    static const struct names compressed = {"weight_packed", "weight_scale",
                                            "weight_zero_point", "weight_g_idx"};
    const struct names *n = m->quant.method == HF_QUANT_COMPRESSED ? &compressed : &plain;
    bool ordered = true;
    dr_status st = DR_OK;

    if (m->quant.method == HF_QUANT_NONE)
        goto done;
    p->qweight = find(m, l->path, n->qweight);
    if (p->qweight == NULL && m->quant.method == HF_QUANT_OLIVE) {
        n = &newer;
        p->qweight = find(m, l->path, n->qweight);
    }
    if (p->qweight == NULL)
        goto done;
    DR_TRY(find_parts(m, l, p, n));
    DR_TRY(check_view(&ordered, m, l, p));
    if (m->quant.method == HF_QUANT_COMPRESSED) {
        p->others[0] = find(m, l->path, "weight_shape");
        DR_TRY(check_stated_shape(m, l, p->others[0]));
    }
    l->packed = ordered;
    if (!ordered) {
        p->rows = read_unordered;
        m->unordered++;
    }
done:
    return st;
}

/* ---- codes ---- */

/* 16 inputs from k0 of eight outputs (one word column): 8 bytes for each nibble. */
static void awq_block(uint64_t x[8], const unsigned char *src, size_t stride, size_t k0,
                      size_t cols)
{
    for (size_t i = 0; i < 8; i++) {
        size_t k = k0 + i;
        uint64_t lo = k < cols ? hf_load32(src + k * stride) : 0;
        uint64_t hi = k + 8 < cols ? hf_load32(src + (k + 8) * stride) : 0;
        x[i] = lo | hi << 32;
    }
    hf_transpose8(x);
}

static void awq_codes(dr_qtensor *out, const struct view *v)
{
    const unsigned char *src = v->p->qweight->t.data;
    size_t stride = v->rows_all / 2, row_bytes = dr_qtensor_row_bytes(out);
    size_t end = v->row0 + v->rows, word_end = (end + 7) / 8;
    uint64_t x[8];

    for (size_t w0 = v->row0 / 8; w0 < word_end; w0 += TILE_WORDS) {
        size_t w1 = w0 + TILE_WORDS < word_end ? w0 + TILE_WORDS : word_end;
        for (size_t k0 = 0; k0 < v->cols; k0 += 16) {
            for (size_t w = w0; w < w1; w++) {
                awq_block(x, src + 4 * w, stride, k0, v->cols);
                for (size_t i = 0; i < 8; i++) {
                    size_t row = 8 * w + (size_t)hf_awq_order[i];
                    if (row >= v->row0 && row < end)
                        memcpy(out->codes + (row - v->row0) * row_bytes + k0 / 2, &x[i], 8);
                }
            }
        }
    }
}

static void gptq_codes(dr_qtensor *out, const struct view *v)
{
    const unsigned char *src = v->p->qweight->t.data;
    size_t row_bytes = dr_qtensor_row_bytes(out), n = words(v->cols, v->quant->bits);

    for (size_t r0 = 0; r0 < v->rows; r0 += TILE_WORDS) {
        size_t r1 = r0 + TILE_WORDS < v->rows ? r0 + TILE_WORDS : v->rows;
        for (size_t i = 0; i < n; i++) {
            const unsigned char *line = src + 4 * (i * v->rows_all + v->row0);
            for (size_t r = r0; r < r1; r++)
                memcpy(out->codes + r * row_bytes + 4 * i, line + 4 * r, 4);
        }
    }
}

/* Olive's and compressed-tensors': rows as they are, from whole bytes or whole words. */
static void row_codes(dr_qtensor *out, const struct view *v)
{
    const unsigned char *src = v->p->qweight->t.data;
    size_t row_bytes = dr_qtensor_row_bytes(out), n = bytes_for(v->cols, v->quant->bits);
    size_t stride =
        v->quant->method == HF_QUANT_OLIVE ? n : 4 * whole_words(v->cols, v->quant->bits);

    for (size_t r = 0; r < v->rows; r++)
        memcpy(out->codes + r * row_bytes, src + (v->row0 + r) * stride, n);
}

/* Codes past the last input are the zero point of their block, so that they are worth 0. */
static void pad_codes(dr_qtensor *q)
{
    size_t kb = dr_qtensor_blocks(q), end = kb * (size_t)q->block;

    for (size_t r = 0; r < q->rows && q->cols < end; r++) {
        int zero = dr_qtensor_zero(q, r, kb - 1);
        for (size_t k = q->cols; k < end; k++)
            dr_qtensor_set_code(q, r, k, zero);
    }
}

/* ---- scales and zero points ---- */

static dr_status read_scales(dr_qtensor *out, const struct view *v, const hf_model *m)
{
    bool by_row = v->quant->method >= HF_QUANT_OLIVE; /* [N, G], else [G, N] */
    size_t kb = dr_qtensor_blocks(out), block = (size_t)out->block;
    float *line = NULL;
    void *p = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&p, by_row ? v->groups : v->rows_all, sizeof(float), "scales"));
    line = p;
    for (size_t r = 0; by_row && r < v->rows; r++) {
        DR_TRY(hf_entry_read(m, v->p->scales, line, v->row0 + r, 1));
        for (size_t b = 0; b < kb; b++)
            out->scales[r * kb + b] = line[b * block / v->span];
    }
    for (size_t b = 0, have = SIZE_MAX; !by_row && b < kb; b++) {
        size_t g = b * block / v->span;
        if (g != have)
            DR_TRY(hf_entry_read(m, v->p->scales, line, g, 1));
        have = g;
        for (size_t r = 0; r < v->rows; r++)
            out->scales[r * kb + b] = line[v->row0 + r];
    }
done:
    dr_big_free(p);
    return st;
}

/* The zero point of row n in group g as the file stores it. */
static unsigned stored_zero(const struct view *v, size_t g, size_t n)
{
    const unsigned char *p = v->p->qzeros->t.data;
    int bits = v->quant->bits;
    unsigned mask = (1u << bits) - 1;

    if (v->quant->method == HF_QUANT_OLIVE) {
        size_t at = g * (size_t)bits;
        return p[n * bytes_for(v->groups, bits) + at / 8] >> at % 8 & mask;
    }
    size_t per_word = (size_t)(32 / bits);
    if (v->quant->method == HF_QUANT_COMPRESSED)
        return hf_load32(p + 4 * (n / per_word * v->groups + g)) >>
                   n % per_word * (size_t)bits &
               mask;
    uint32_t word = hf_load32(p + 4 * (g * (v->rows_all / per_word) + n / per_word));
    size_t place =
        v->quant->method == HF_QUANT_AWQ ? (size_t)hf_awq_nibble[n % 8] : n % per_word;
    unsigned z = word >> place * (size_t)bits & mask;
    return v->quant->method == HF_QUANT_GPTQ && !v->v2 ? (z + 1) & mask : z;
}

/* out->zeros is zeroed storage.  A symmetric file may write its middle all the same: are
 * all of them that? */
static bool read_zeros(dr_qtensor *out, const struct view *v)
{
    size_t kb = dr_qtensor_blocks(out), row_bytes = dr_qtensor_zero_bytes(out);
    size_t block = (size_t)out->block, bits = (size_t)out->bits;
    bool middle = true;

    for (size_t r = 0; r < v->rows; r++) {
        uint8_t *dst = out->zeros + r * row_bytes;
        for (size_t b = 0; b < kb; b++) {
            unsigned z = stored_zero(v, b * block / v->span, v->row0 + r);
            dst[b * bits / 8] |= (uint8_t)(z << b * bits % 8);
            middle = middle && z == 1u << (bits - 1);
        }
    }
    return middle;
}

void hf_linear_packed_shape(const hf_model *m, const hf_linear *l, dr_qtensor *out,
                            bool *symmetric)
{
    const struct view v = view_of(m, l, hf_linear_parts(m, l));

    DR_BUG_IF(!l->packed);
    *out = (dr_qtensor){.bits = v.quant->bits,
                        .block = block_for(v.span, v.cols),
                        .rows = l->n_out,
                        .cols = v.cols};
    *symmetric = v.p->qzeros == NULL;
}

typedef struct {
    const struct view *v;
    dr_qtensor *out;
    bool *middle; /* [tasks]: of a task's rows all zero points are */
} unpack_job;

static dr_status unpack_task(void *ctx, size_t task, int worker)
{
    const unpack_job *j = ctx;
    struct view v = *j->v;
    size_t at = task * TASK_ROWS, left = v.rows - at;

    (void)worker;
    v.row0 += at;
    v.rows = left < TASK_ROWS ? left : TASK_ROWS;
    dr_qtensor out = dr_qtensor_rows(j->out, at, v.rows);
    if (v.quant->method == HF_QUANT_AWQ)
        awq_codes(&out, &v);
    else if (v.quant->method == HF_QUANT_GPTQ)
        gptq_codes(&out, &v);
    else
        row_codes(&out, &v);
    if (out.zeros != NULL)
        j->middle[task] = read_zeros(&out, &v);
    pad_codes(&out);
    return DR_OK;
}

dr_status hf_unpack_rows(const hf_model *m, const hf_linear *l, dr_qtensor *out,
                         size_t row0, size_t count, dr_pool *pool)
{
    struct view v = view_of(m, l, hf_linear_parts(m, l));
    size_t tasks = (count + TASK_ROWS - 1) / TASK_ROWS;
    unpack_job j = {&v, out, dr_calloc(tasks, sizeof(*j.middle))};
    bool middle = true;
    dr_status st = DR_OK;

    DR_BUG_IF(row0 > l->n_out || count > l->n_out - row0);
    v.row0 = row0;
    v.rows = count;
    DR_TRYF(dr_qtensor_new(out, v.quant->bits, block_for(v.span, v.cols), count, v.cols,
                           v.p->qzeros == NULL),
            "unpacking %s", l->path);
    DR_TRY(read_scales(out, &v, m));
    if (pool != NULL)
        DR_TRY(dr_pool_run(pool, tasks, unpack_task, &j));
    for (size_t i = 0; i < tasks && pool == NULL; i++)
        DR_TRY(unpack_task(&j, i, 0));
    for (size_t i = 0; i < tasks; i++)
        middle = middle && j.middle[i];
    if (v.quant->symmetric && middle && out->zeros != NULL) {
        dr_big_free(out->zeros);
        out->zeros = NULL;
    }
done:
    free(j.middle);
    if (st != DR_OK)
        dr_qtensor_release(out);
    return st;
}
