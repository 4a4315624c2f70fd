/*
 * build_npu_linear.c - products of a graph of fixed shapes, its embedding and its head.
 *
 *   product    MatMul(x, W) with W [inputs, outputs] of floats, or DequantizeLinear of
 *   codes embedding  floats: Gather of rows
 *              packed weights: Gather of byte codes and of a scale a row, multiplied after:
 *              DequantizeLinear before Gather would make all of the table floats at each
 *              step QDQ: one grid for the table, the value's own, so that Gather only moves
 *   head       8 bits where the layers have fewer; a tied table of floats is transposed in
 *              the graph and not stored twice
 */
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "onnx/npu_impl.h"

#define TABLE "model.embed_tokens.weight"

enum { HEAD_BITS = 8, TABLE_ROWS = 64 };

static const char *init_name(npu_builder *b, const char *path, const char *rest)
{
    char *name = dr_arena_printf(b->arena, "%s.%s", path + 1, rest);

    for (char *p = name; *p != '\0'; p++)
        *p = *p == '/' ? '.' : *p;
    return name;
}

/* ---- products ---- */

/* [cols][count], as floats or as what DequantizeLinear makes of codes. */
static dr_status weight(npu_builder *b, npu_value *out, const char *path, npu_rows rows,
                        int bits)
{
    const char *name = init_name(b, path, "weight");
    onnx_shape shape = npu_shape(2, (int64_t)rows.s->cols, (int64_t)rows.count, 0, 0);
    npu_matrix w = {0};
    dr_status st = DR_OK;

    *out = (npu_value){.name = name, .shape = shape};
    if (bits == 32) {
        if (npu_again(b, name) == NULL)
            DR_TRY(onnx_data_columns(b->data, name, rows.s, rows.row0, rows.count));
        goto done;
    }
    DR_TRY(npu_matrix_write(b, &w, name, rows, bits));
    onnx_node *n =
        onnx_node_new(&b->g, "", "DequantizeLinear", npu_path(b, path, "DequantizeLinear"));
    onnx_node_in(&b->g, n, w.codes);
    onnx_node_in(&b->g, n, w.scales);
    if (w.zeros != NULL)
        onnx_node_in(&b->g, n, w.zeros);
    onnx_attr_int(&b->g, n, "axis", w.block < 0 ? 1 : 0);
    if (w.block > 0)
        onnx_attr_int(&b->g, n, "block_size", w.block);
    out->name = onnx_node_out(&b->g, n, npu_path(b, path, "weight"), ONNX_FLOAT, shape);
done:
    return st;
}

/* y plus the rows' bias, where one is not zero; *any false: y is the result. */
static dr_status bias(npu_builder *b, npu_value *out, const char *path, npu_rows rows,
                      bool *any)
{
    void *values = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&values, rows.count, sizeof(float), "bias"));
    DR_TRY(onnx_source_bias(rows.s, values, rows.row0, rows.count, any));
    if (*any)
        *out = npu_const(b, init_name(b, path, "bias"), values,
                         npu_shape(1, (int64_t)rows.count, 0, 0, 0));
done:
    dr_big_free(values);
    return st;
}

static dr_status product(npu_builder *b, npu_value *out, const char *path, npu_rows rows,
                         int bits, const npu_value *x, const char *output)
{
    onnx_shape shape = x->shape;
    npu_value pair[2] = {*x};
    bool any = false;
    dr_status st = DR_OK;

    shape.dim[shape.rank - 1] = onnx_num((int64_t)rows.count);
    DR_TRY(weight(b, &pair[1], path, rows, bits));
    onnx_node *n = npu_node(b, "MatMul", npu_path(b, path, "MatMul"), pair, 2);
    DR_TRY(bias(b, &pair[1], path, rows, &any));
    *out = npu_settle_as(b, n, shape, any ? NULL : output);
    if (any) {
        pair[0] = *out;
        n = npu_node(b, "Add", npu_path(b, path, "Add"), pair, 2);
        *out = npu_settle_as(b, n, shape, output);
    }
done:
    return st;
}

dr_status npu_linear(npu_builder *b, npu_value *out, const char *path, npu_rows rows,
                     const npu_value *x)
{
    return product(b, out, path, rows, b->o->weight_bits, x, NULL);
}

/* ---- a table of codes ---- */

/* What the tasks share: rows of the embedding to codes, each row or all on one scale. */
typedef struct {
    const hf_model *m;
    size_t rows, cols;
    uint8_t *codes; /* [rows][cols] of 8 or 16 bits */
    float *scales;  /* [rows]: signed bytes; NULL: on the grid below */
    float scale, zero;
    int bits;
    float *least, *largest; /* of each task; not NULL: only looked at */
} table;

static void look(const table *t, size_t task, const float *v, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        t->least[task] = v[i] < t->least[task] ? v[i] : t->least[task];
        t->largest[task] = v[i] > t->largest[task] ? v[i] : t->largest[task];
    }
}

static void row_codes(const table *t, size_t row, const float *v)
{
    float largest = 0;

    for (size_t i = 0; i < t->cols; i++)
        largest = fabsf(v[i]) > largest ? fabsf(v[i]) : largest;
    const float scale = largest > 0 ? largest / 127 : 1;
    for (size_t i = 0; i < t->cols; i++)
        t->codes[row * t->cols + i] = (uint8_t)(int8_t)roundf(v[i] / scale);
    t->scales[row] = scale;
}

static void grid_codes(const table *t, size_t first, const float *v, size_t count)
{
    const float top = t->bits == 8 ? 255 : 65535;

    for (size_t i = 0; i < count; i++) {
        float x = roundf(v[i] / t->scale) + t->zero;
        unsigned code = (unsigned)(x < 0 ? 0 : x > top ? top : x);
        if (t->bits == 8) {
            t->codes[first + i] = (uint8_t)code;
        } else {
            t->codes[2 * (first + i)] = (uint8_t)(code & 255);
            t->codes[2 * (first + i) + 1] = (uint8_t)(code >> 8);
        }
    }
}

static dr_status table_task(void *ctx, size_t task, int worker)
{
    const table *t = ctx;
    const size_t first = task * TABLE_ROWS;
    const size_t count = first + TABLE_ROWS < t->rows ? TABLE_ROWS : t->rows - first;
    dr_arena scratch = {0};
    void *v = NULL;
    dr_status st = DR_OK;

    (void)worker;
    DR_TRY(dr_arena_big(&scratch, &v, count * t->cols, sizeof(float), TABLE));
    DR_TRY(hf_embed_read(t->m, v, first, count));
    for (size_t i = 0; i < count * t->cols; i++)
        if (!isfinite(((const float *)v)[i]))
            DR_FAIL(DR_EFORMAT, "embedding: row %zu has a value that is not finite",
                    first + i / t->cols);
    if (t->least != NULL)
        look(t, task, v, count * t->cols);
    else if (t->scales == NULL)
        grid_codes(t, first * t->cols, v, count * t->cols);
    for (size_t i = 0; t->least == NULL && t->scales != NULL && i < count; i++)
        row_codes(t, first + i, (const float *)v + i * t->cols);
done:
    dr_arena_release(&scratch);
    return st;
}

static dr_status run_table(npu_builder *b, table *t)
{
    return dr_pool_run(b->data->pool, (t->rows + TABLE_ROWS - 1) / TABLE_ROWS, table_task,
                       t);
}

static npu_value gather(npu_builder *b, const char *path, const char *of, onnx_type type,
                        int64_t width)
{
    onnx_shape shape = npu_shape(3, b->o->batch, b->seq, width, 0);
    const npu_value in[2] = {{.name = of}, {.name = "input_ids"}};
    onnx_node *n = npu_node(b, "Gather", path, in, 2);

    return (npu_value){onnx_node_out(&b->g, n, npu_path(b, path, "output_0"), type, shape),
                       shape, NULL};
}

/* ---- embedding ---- */

/* A byte a value and a scale a row. */
static dr_status byte_embedding(npu_builder *b, npu_value *out)
{
    static const char path[] = "/model/embed_tokens";
    table t = {.m = b->m, .rows = (size_t)b->c->vocab, .cols = (size_t)b->c->hidden};
    dr_arena scratch = {0};
    void *codes = NULL, *scales = NULL;
    dr_status st = DR_OK;

    if (npu_again(b, TABLE) == NULL) {
        DR_TRY(dr_arena_big(&scratch, &codes, t.rows, t.cols, TABLE));
        DR_TRY(dr_arena_big(&scratch, &scales, t.rows, sizeof(float), TABLE));
        t.codes = codes;
        t.scales = scales;
        DR_TRY(run_table(b, &t));
        DR_TRY(onnx_data_raw(b->data, TABLE, ONNX_INT8_VALUE,
                             npu_shape(2, (int64_t)t.rows, (int64_t)t.cols, 0, 0), codes,
                             t.rows * t.cols));
        DR_TRY(onnx_data_floats(b->data, TABLE "_scales",
                                npu_shape(2, (int64_t)t.rows, 1, 0, 0), scales, t.rows));
    } else {
        (void)npu_again(b, TABLE "_scales");
    }
    npu_value pair[2] = {
        gather(b, npu_path(b, path, "Gather"), TABLE, ONNX_INT8_VALUE, b->c->hidden),
        gather(b, npu_path(b, path, "scales/Gather"), TABLE "_scales", ONNX_FLOAT, 1)};
    onnx_node *n = npu_node(b, "Cast", npu_path(b, path, "Cast"), pair, 1);
    onnx_attr_int(&b->g, n, "to", ONNX_FLOAT);
    pair[0].name = onnx_node_out(&b->g, n, npu_path(b, path, "Cast/output_0"), ONNX_FLOAT,
                                 pair[0].shape);
    n = npu_node(b, "Mul", npu_path(b, path, "Mul"), pair, 2);
    *out = npu_settle(b, n, pair[0].shape);
done:
    dr_arena_release(&scratch);
    return st;
}

/* Least and largest of the table, whatever threads look. */
static dr_status table_range(npu_builder *b, table *t, float *least, float *largest)
{
    const size_t tasks = (t->rows + TABLE_ROWS - 1) / TABLE_ROWS;
    dr_arena scratch = {0};
    dr_status st = DR_OK;

    *least = *largest = 0;
    t->least = dr_arena_alloc(&scratch, tasks, sizeof(float));
    t->largest = dr_arena_alloc(&scratch, tasks, sizeof(float));
    DR_TRY(run_table(b, t));
    for (size_t i = 0; i < tasks; i++) {
        *least = t->least[i] < *least ? t->least[i] : *least;
        *largest = t->largest[i] > *largest ? t->largest[i] : *largest;
    }
done:
    t->least = t->largest = NULL;
    dr_arena_release(&scratch);
    return st;
}

/* The table on one grid. */
static dr_status grid_embedding(npu_builder *b, npu_value *out)
{
    static const char path[] = "/model/embed_tokens";
    table t = {.m = b->m,
               .rows = (size_t)b->c->vocab,
               .cols = (size_t)b->c->hidden,
               .bits = b->o->value_bits};
    onnx_shape shape = npu_shape(2, (int64_t)t.rows, (int64_t)t.cols, 0, 0);
    float least = 0, largest = 0;
    void *codes = NULL;
    dr_status st = DR_OK;

    DR_TRY(table_range(b, &t, &least, &largest));
    const npu_grid *grid = npu_grid_new(b, TABLE, least, largest, t.bits);
    if (npu_again(b, TABLE) == NULL) {
        t.scale = npu_scale(least, largest, t.bits, &t.zero);
        DR_TRY(dr_big_alloc(&codes, t.rows * t.cols, (size_t)t.bits / 8, TABLE));
        t.codes = codes;
        DR_TRY(run_table(b, &t));
        DR_TRY(onnx_data_raw(b->data, TABLE, grid->type, shape, codes,
                             t.rows * t.cols * (size_t)t.bits / 8));
    }
    npu_value pair[2] = {npu_dequantize(b, path, TABLE, shape, grid),
                         {.name = "input_ids"}};
    onnx_node *n = npu_node(b, "Gather", npu_path(b, path, "Gather"), pair, 2);
    *out = npu_moved(b, n, npu_shape(3, b->o->batch, b->seq, b->c->hidden, 0), &pair[0]);
done:
    dr_big_free(codes);
    return st;
}

dr_status npu_embedding(npu_builder *b, npu_value *out)
{
    onnx_source s = {0};
    dr_status st = DR_OK;

    if (b->o->form == ONNX_NPU_QDQ)
        return grid_embedding(b, out);
    if (b->o->weight_bits != 32)
        return byte_embedding(b, out);
    DR_TRY(onnx_source_embedding(&s, b->m, b->data->pool));
    if (npu_again(b, TABLE) == NULL)
        DR_TRYF(onnx_data_rows(b->data, TABLE, ONNX_FLOAT, &s), "writing the embedding");
    *out = gather(b, "/model/embed_tokens/Gather", TABLE, ONNX_FLOAT, b->c->hidden);
done:
    onnx_source_release(&s);
    return st;
}

/* ---- head ---- */

/* x times the transpose of the float embedding. */
static npu_value tied_head(npu_builder *b, const npu_value *x, onnx_shape logits,
                           const char *output)
{
    const npu_value in = {.name = TABLE};
    onnx_node *n = npu_node(b, "Transpose", "/lm_head/Transpose", &in, 1);
    const char *columns = onnx_node_out(&b->g, n, "/lm_head/Transpose/output_0", ONNX_FLOAT,
                                        npu_shape(2, b->c->hidden, b->c->vocab, 0, 0));

    onnx_attr_ints(&b->g, n, "perm", (const int64_t[]){1, 0}, 2);
    const npu_value pair[2] = {*x, {.name = columns}};
    n = npu_node(b, "MatMul", "/lm_head/MatMul", pair, 2);
    return npu_settle_as(b, n, logits, output);
}

dr_status npu_head(npu_builder *b, const npu_value *x)
{
    onnx_shape logits = npu_shape(3, b->o->batch, b->seq, b->c->vocab, 0);
    const bool caps = b->c->logit_softcap != 0, scales = b->c->logit_scale != 1;
    const char *first = scales || caps ? NULL : "logits", *second = caps ? NULL : "logits";
    int bits = b->o->weight_bits == 32 ? 32 : HEAD_BITS;
    onnx_source s = {0};
    npu_value y = {0};
    dr_status st = DR_OK;

    onnx_graph_output(&b->g, "logits", ONNX_FLOAT, logits);
    if (bits == 32 && b->c->tied) {
        y = tied_head(b, x, logits, first);
    } else {
        DR_TRY(onnx_source_head(&s, b->m, b->data->pool));
        DR_TRY(product(b, &y, "/lm_head", (npu_rows){&s, 0, s.rows}, bits, x, first));
    }
    y = npu_scaled(b, "/lm_head/scale", &y, b->c->logit_scale, second);
    (void)npu_capped(b, "/lm_head/cap", &y, b->c->logit_softcap, "logits");
done:
    onnx_source_release(&s);
    return st;
}
