/*
 * pack.c - drupe's packed weights into the layouts of Hugging Face checkpoints, which
 * unpack.c describes.
 *
 * Scales are written as F16, which every reader of these formats takes.  Blocks and groups
 * need not be the same size: a long group takes blocks that agree, short groups repeat the
 * scale of a long block.  What does not divide as the format wants is refused, since all
 * readers assume it.
 *
 * compressed-tensors has codes with a sign, stored with 2^(bits-1) added: drupe's own, as
 * are its zero points; rows end in whole words, whose rest is zero bits.
 *
 * A GPTQ file (version 1) stores zero points minus one, modulo 2^bits, as ORT GenAI's
 * builder and AutoGPTQ read them.  GPTQModel adds the one to whole words instead, which is
 * the same unless a zero point is 0; such a group has weights of one sign only.
 */
#include <math.h>

#include "core/mem.h"
#include "hf/packed_impl.h"
#include "hf/roles_impl.h"

enum { PART_QWEIGHT, PART_SCALES, PART_QZEROS, PART_LAST };

/* The last: g_idx, and the shape that compressed-tensors says again. */
static const char *const part_names[][HF_PACKED_PARTS] = {
    {"qweight", "scales", "qzeros", "g_idx"},
    {"weight_packed", "weight_scale", "weight_zero_point", "weight_shape"}};

static bool is_compressed(const hf_quant *q)
{
    return q->method == HF_QUANT_COMPRESSED;
}

static const char *part_name(const hf_quant *q, int part)
{
    return part_names[is_compressed(q)][part];
}

static size_t bytes_for(size_t count, int bits)
{
    return (count * (size_t)bits + 7) / 8;
}

static size_t words_for(size_t count, int bits)
{
    return (count * (size_t)bits + 31) / 32;
}

static size_t span_of(const hf_linear *l, const hf_quant *q)
{
    return q->group == -1 ? l->n_in : (size_t)q->group;
}

/* ---- plan ---- */

static dr_status refuse_count(const hf_linear *l, const char *what, size_t count, size_t of)
{
    dr_status st = dr_fail(DR_EUNSUPPORTED,
                           "%s: %zu %s are not a multiple of %zu, as the file format wants",
                           l->path, count, what, of);

    dr_hint("the olive and the compressed-tensors layout take any number");
    return st;
}

static dr_status check_sizes(const hf_linear *l, const hf_quant *q)
{
    size_t per_word = (size_t)(32 / q->bits), span = span_of(l, q);
    dr_status st = DR_OK;

    DR_TRY(hf_quant_check(q, l->path));
    if (l->n_in % span != 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: %zu inputs are not a multiple of the group size %zu",
                l->path, l->n_in, span);
    if (q->method == HF_QUANT_OLIVE || is_compressed(q))
        goto done;
    if (l->n_out % per_word != 0)
        return refuse_count(l, "outputs", l->n_out, per_word);
    if (q->method == HF_QUANT_GPTQ && l->n_in % per_word != 0)
        return refuse_count(l, "inputs", l->n_in, per_word);
done:
    return st;
}

static void add_part(dr_arena *a, hf_packed *out, int part, const hf_linear *l,
                     const hf_quant *q, dr_dtype t, size_t rows, size_t cols)
{
    dr_tensor *p = &out->part[out->count++];

    *p = (dr_tensor){
        .name = dr_arena_printf(a, "%s.%s", l->path, part_name(q, part)),
        .dtype = t,
        .ndim = cols > 0 ? 2 : 1,
        .dims = {(int64_t)rows, (int64_t)cols},
        .bytes = rows * (cols > 0 ? cols : 1) * dr_dtype_bytes(t),
    };
}

dr_status hf_pack_plan(dr_arena *a, hf_packed *out, const hf_linear *l, const hf_quant *q)
{
    size_t n = l->n_out, k = l->n_in, bits = (size_t)q->bits;
    dr_status st = DR_OK;

    *out = (hf_packed){0};
    DR_TRY(check_sizes(l, q));
    size_t g = k / span_of(l, q);
    if (q->method == HF_QUANT_OLIVE) {
        add_part(a, out, PART_QWEIGHT, l, q, DR_DTYPE_U8, n, bytes_for(k, q->bits));
        add_part(a, out, PART_SCALES, l, q, DR_DTYPE_F16, n, g);
        if (!q->symmetric)
            add_part(a, out, PART_QZEROS, l, q, DR_DTYPE_U8, n, bytes_for(g, q->bits));
        goto done;
    }
    if (is_compressed(q)) {
        add_part(a, out, PART_QWEIGHT, l, q, DR_DTYPE_I32, n, words_for(k, q->bits));
        add_part(a, out, PART_SCALES, l, q, DR_DTYPE_F16, n, g);
        if (!q->symmetric)
            add_part(a, out, PART_QZEROS, l, q, DR_DTYPE_I32, words_for(n, q->bits), g);
        add_part(a, out, PART_LAST, l, q, DR_DTYPE_I64, 2, 0);
        goto done;
    }
    if (q->method == HF_QUANT_AWQ)
        add_part(a, out, PART_QWEIGHT, l, q, DR_DTYPE_I32, k, n * bits / 32);
    else
        add_part(a, out, PART_QWEIGHT, l, q, DR_DTYPE_I32, k * bits / 32, n);
    add_part(a, out, PART_SCALES, l, q, DR_DTYPE_F16, g, n);
    add_part(a, out, PART_QZEROS, l, q, DR_DTYPE_I32, g, n * bits / 32);
    if (q->method == HF_QUANT_GPTQ)
        add_part(a, out, PART_LAST, l, q, DR_DTYPE_I32, k, 0);
done:
    return st;
}

/* ---- does the weight fit the format ---- */

static bool same_blocks(const dr_qtensor *w, size_t row, size_t b0, size_t b1)
{
    size_t kb = dr_qtensor_blocks(w);

    for (size_t b = b0 + 1; b < b1; b++) {
        if (w->scales[row * kb + b] != w->scales[row * kb + b0] ||
            dr_qtensor_zero(w, row, b) != dr_qtensor_zero(w, row, b0))
            return false;
    }
    return true;
}

dr_status hf_pack_check(const hf_linear *l, const hf_quant *q, const dr_qtensor *w)
{
    size_t span = span_of(l, q), block = (size_t)w->block, kb = dr_qtensor_blocks(w);
    size_t per = (span + block - 1) / block; /* blocks of a group */

    if (w->rows != l->n_out || w->cols != l->n_in || w->bits != q->bits)
        return dr_fail(DR_EUSAGE,
                       "%s: [%zu, %zu] at %d bits given, [%zu, %zu] at %d wanted", l->path,
                       w->rows, w->cols, w->bits, l->n_out, l->n_in, q->bits);
    if (w->zeros != NULL && q->symmetric)
        return dr_fail(DR_EUSAGE, "%s: zero points given for a symmetric format", l->path);
    if (span % block != 0 && block % span != 0 && span != l->n_in)
        return dr_fail(DR_EUSAGE, "%s: blocks of %zu do not make groups of %zu", l->path,
                       block, span);
    for (size_t r = 0; r < w->rows; r++) {
        for (size_t b = 0; b < kb; b += per) {
            size_t end = b + per < kb ? b + per : kb;
            if (!same_blocks(w, r, b, end))
                return dr_fail(DR_EUSAGE,
                               "%s: the blocks of a group of %zu differ in row %zu",
                               l->path, span, r);
        }
        for (size_t b = 0; b < kb; b++) {
            float s = w->scales[r * kb + b];
            if (!(fabsf(s) < 65520.0f))
                return dr_fail(DR_EUNSUPPORTED, "%s: scale %g of row %zu does not fit fp16",
                               l->path, (double)s, r);
        }
    }
    return DR_OK;
}

/* ---- codes ---- */

/* Zeros where the row's storage ends. */
static uint64_t load8(const uint8_t *row, size_t at, size_t row_bytes)
{
    uint64_t v = 0;

    memcpy(&v, row + at, row_bytes - at < 8 ? row_bytes - at : 8);
    return v;
}

static void awq_codes(unsigned char *dst, const dr_qtensor *w)
{
    enum { TILE_WORDS = 64 };
    size_t row_bytes = dr_qtensor_row_bytes(w), n_words = w->rows / 8, stride = w->rows / 2;
    uint64_t x[8];

    for (size_t w0 = 0; w0 < n_words; w0 += TILE_WORDS) {
        size_t w1 = w0 + TILE_WORDS < n_words ? w0 + TILE_WORDS : n_words;
        for (size_t k0 = 0; k0 < w->cols; k0 += 16) {
            for (size_t at = w0; at < w1; at++) {
                for (size_t i = 0; i < 8; i++) {
                    size_t row = 8 * at + (size_t)hf_awq_order[i];
                    x[i] = load8(w->codes + row * row_bytes, k0 / 2, row_bytes);
                }
                hf_transpose8(x);
                for (size_t k = k0; k < k0 + 16 && k < w->cols; k++) {
                    size_t i = k - k0;
                    uint32_t word = (uint32_t)(x[i % 8] >> (i < 8 ? 0 : 32));
                    memcpy(dst + k * stride + 4 * at, &word, 4);
                }
            }
        }
    }
}

static void gptq_codes(unsigned char *dst, const dr_qtensor *w)
{
    enum { TILE_ROWS = 64 };
    size_t row_bytes = dr_qtensor_row_bytes(w), n = w->cols * (size_t)w->bits / 32;

    for (size_t r0 = 0; r0 < w->rows; r0 += TILE_ROWS) {
        size_t r1 = r0 + TILE_ROWS < w->rows ? r0 + TILE_ROWS : w->rows;
        for (size_t i = 0; i < n; i++) {
            for (size_t r = r0; r < r1; r++)
                memcpy(dst + 4 * (i * w->rows + r), w->codes + r * row_bytes + 4 * i, 4);
        }
    }
}

/* Olive's and compressed-tensors': rows as they are, in n bytes each; what is behind the
 * last input of a row is zero bits in the file. */
static void row_codes(unsigned char *dst, const dr_qtensor *w, size_t n)
{
    size_t bits = w->cols * (size_t)w->bits, used = bytes_for(w->cols, w->bits);

    for (size_t r = 0; r < w->rows; r++, dst += n) {
        memcpy(dst, w->codes + r * dr_qtensor_row_bytes(w), used);
        if (bits % 8 != 0)
            dst[used - 1] &= (unsigned char)((1 << bits % 8) - 1);
    }
}

/* ---- scales and zero points ---- */

static void put_scales(unsigned char *dst, const dr_qtensor *w, const hf_quant *q,
                       size_t span)
{
    size_t kb = dr_qtensor_blocks(w), g_count = w->cols / span;
    bool by_row = q->method >= HF_QUANT_OLIVE;

    for (size_t r = 0; r < w->rows; r++) {
        for (size_t g = 0; g < g_count; g++) {
            uint16_t h = dr_f32_to_f16(w->scales[r * kb + g * span / (size_t)w->block]);
            memcpy(dst + 2 * (by_row ? r * g_count + g : g * w->rows + r), &h, 2);
        }
    }
}

/* dst is zeroed. */
static void put_zeros(unsigned char *dst, const dr_qtensor *w, const hf_quant *q,
                      size_t span)
{
    size_t bits = (size_t)w->bits, g_count = w->cols / span, per_word = 32 / bits;
    unsigned mask = (1u << bits) - 1;

    for (size_t r = 0; r < w->rows; r++) {
        for (size_t g = 0; g < g_count; g++) {
            unsigned z = (unsigned)dr_qtensor_zero(w, r, g * span / (size_t)w->block);
            if (q->method == HF_QUANT_OLIVE) {
                size_t at = g * bits;
                dst[r * bytes_for(g_count, w->bits) + at / 8] |= (uint8_t)(z << at % 8);
                continue;
            }
            size_t place = r % per_word, word_at = g * (w->rows / per_word) + r / per_word;
            if (is_compressed(q))
                word_at = r / per_word * g_count + g;
            if (q->method == HF_QUANT_AWQ)
                place = (size_t)hf_awq_nibble[place];
            else if (q->method == HF_QUANT_GPTQ)
                z = (z - 1) & mask;
            unsigned char *p = dst + 4 * word_at;
            uint32_t word = hf_load32(p) | z << place * bits;
            memcpy(p, &word, 4);
        }
    }
}

static void put_order(unsigned char *dst, const dr_qtensor *w, size_t span)
{
    for (size_t k = 0; k < w->cols; k++) {
        uint32_t g = (uint32_t)(k / span);
        memcpy(dst + 4 * k, &g, 4);
    }
}

static void put_shape(unsigned char *dst, const dr_qtensor *w)
{
    const int64_t shape[2] = {(int64_t)w->rows, (int64_t)w->cols};

    memcpy(dst, shape, sizeof(shape));
}

void hf_pack_part(void *dst, const hf_packed *plan, size_t i, const hf_linear *l,
                  const hf_quant *q, const dr_qtensor *w)
{
    const char *name = strrchr(plan->part[i].name, '.') + 1;
    size_t span = span_of(l, q);

    if (strcmp(name, part_name(q, PART_SCALES)) == 0)
        put_scales(dst, w, q, span);
    else if (strcmp(name, part_name(q, PART_QZEROS)) == 0)
        put_zeros(dst, w, q, span);
    else if (strcmp(name, part_name(q, PART_LAST)) == 0 && is_compressed(q))
        put_shape(dst, w);
    else if (strcmp(name, part_name(q, PART_LAST)) == 0)
        put_order(dst, w, span);
    else if (q->method == HF_QUANT_AWQ)
        awq_codes(dst, w);
    else if (q->method == HF_QUANT_GPTQ)
        gptq_codes(dst, w);
    else
        row_codes(dst, w, plan->part[i].bytes / w->rows);
}
