/*
 * build_npu_value.c - values of a graph of fixed shapes, rounded where the form asks for
 * it.
 *
 *     node -> PATH/output_0 [-> QuantizeLinear -> PATH/quantized -> DequantizeLinear]
 *
 * 1. scale = (largest - least) / (2^bits - 1) with 0 inside the range, and the zero point
 *    is round(-least / scale): the rule of ONNX Runtime's quantizer.
 * 2. What moves data keeps the grid, with the same initializers, so that a compiler sees
 *    that nothing is rounded again.
 * 3. Scales and zero points lie in the graph itself, not in the external file: they are
 *    thousands of scalars, which pages of 4096 would make 8 MB.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "onnx/npu_impl.h"

enum { VALUES_STEP = 1024 };

const char *npu_path(npu_builder *b, const char *path, const char *name)
{
    return dr_arena_printf(b->arena, "%s/%s", path, name);
}

onnx_shape npu_shape(int rank, int64_t d0, int64_t d1, int64_t d2, int64_t d3)
{
    return (onnx_shape){rank, {onnx_num(d0), onnx_num(d1), onnx_num(d2), onnx_num(d3)}};
}

/* ---- ranges and grids ---- */

static int by_name(const void *key, const void *range)
{
    return strcmp(key, ((const onnx_range *)range)->name);
}

/* The calibration graph has every name that this one has: one that is missing is a bug. */
void npu_range(const npu_builder *b, const char *name, float *least, float *largest)
{
    const onnx_range *r =
        bsearch(name, b->o->ranges, b->o->range_count, sizeof(*r), by_name);

    DR_BUG_IF(r == NULL);
    *least = r->least;
    *largest = r->largest;
}

float npu_scale(float least, float largest, int bits, float *zero)
{
    const float top = bits == 8 ? 255.0F : 65535.0F;
    const float lo = least < 0 ? least : 0, hi = largest > 0 ? largest : 0;
    float scale = (hi - lo) / top;

    if (!(scale >= 1e-30F)) /* a value that is always zero */
        scale = 1 / top;
    *zero = roundf(-lo / scale);
    *zero = *zero < 0 ? 0 : *zero > top ? top : *zero;
    return scale;
}

const npu_grid *npu_grid_new(npu_builder *b, const char *name, float least, float largest,
                             int bits)
{
    npu_grid *grid = dr_arena_alloc(b->arena, 1, sizeof(*grid));
    float zero = 0;
    const float scale = npu_scale(least, largest, bits, &zero);

    const uint8_t bytes[2] = {(uint8_t)((unsigned)zero & 255),
                              (uint8_t)((unsigned)zero >> 8)};
    *grid = (npu_grid){.scale = dr_arena_printf(b->arena, "%s.scale", name),
                       .zero = dr_arena_printf(b->arena, "%s.zero_point", name),
                       .type = bits == 8 ? ONNX_UINT8 : ONNX_UINT16};
    (void)onnx_graph_init_raw(&b->g, grid->scale, ONNX_FLOAT, (onnx_shape){0}, &scale,
                              sizeof(scale));
    (void)onnx_graph_init_raw(&b->g, grid->zero, grid->type, (onnx_shape){0}, bytes,
                              (size_t)bits / 8);
    return grid;
}

static const char *quantize(npu_builder *b, const char *path, const char *x,
                            const char *out, onnx_shape shape, const npu_grid *grid)
{
    onnx_node *n =
        onnx_node_new(&b->g, "", "QuantizeLinear", npu_path(b, path, "QuantizeLinear"));

    onnx_node_in(&b->g, n, x);
    onnx_node_in(&b->g, n, grid->scale);
    onnx_node_in(&b->g, n, grid->zero);
    return onnx_node_out(&b->g, n, out, grid->type, shape);
}

static npu_value dequantize_as(npu_builder *b, const char *path, const char *x,
                               const char *out, onnx_shape shape, const npu_grid *grid)
{
    onnx_node *n =
        onnx_node_new(&b->g, "", "DequantizeLinear", npu_path(b, path, "DequantizeLinear"));

    onnx_node_in(&b->g, n, x);
    onnx_node_in(&b->g, n, grid->scale);
    onnx_node_in(&b->g, n, grid->zero);
    return (npu_value){onnx_node_out(&b->g, n, out, ONNX_FLOAT, shape), shape, grid};
}

npu_value npu_dequantize(npu_builder *b, const char *path, const char *x, onnx_shape shape,
                         const npu_grid *grid)
{
    return dequantize_as(b, path, x, npu_path(b, path, "dequantized"), shape, grid);
}

/* x on a grid; output: the name that consumers read, NULL: one of the path. */
static npu_value pair(npu_builder *b, const char *path, const char *x, onnx_shape shape,
                      const npu_grid *grid, const char *output)
{
    const char *q = quantize(b, path, x, npu_path(b, path, "quantized"), shape, grid);

    return dequantize_as(b, path, q,
                         output != NULL ? output : npu_path(b, path, "dequantized"), shape,
                         grid);
}

/* ---- nodes ---- */

onnx_node *npu_node(npu_builder *b, const char *op, const char *path, const npu_value *in,
                    size_t count)
{
    onnx_node *n = onnx_node_new(&b->g, "", op, path);

    for (size_t i = 0; i < count; i++)
        onnx_node_in(&b->g, n, in[i].name);
    return n;
}

/* The least and the largest element of x, as outputs of the graph. */
static void measure(npu_builder *b, const char *path, const char *x, const char *name)
{
    static const char *const ops[2][2] = {{"ReduceMin", "min"}, {"ReduceMax", "max"}};
    onnx_report *r = b->report;

    if (r->value_count % VALUES_STEP == 0) {
        const char **more =
            dr_arena_alloc(&r->notes_arena, r->value_count + VALUES_STEP, sizeof(*more));
        if (r->value_count > 0)
            memcpy(more, r->values, r->value_count * sizeof(*more));
        r->values = more;
    }
    r->values[r->value_count++] = dr_arena_strdup(&r->notes_arena, name);
    for (int i = 0; i < 2; i++) {
        const char *out = dr_arena_printf(b->arena, "%s.%s", name, ops[i][1]);
        onnx_graph_output(&b->g, out, ONNX_FLOAT, (onnx_shape){0});
        onnx_node *n = onnx_node_new(&b->g, "", ops[i][0], npu_path(b, path, ops[i][0]));
        onnx_node_in(&b->g, n, x);
        onnx_attr_int(&b->g, n, "keepdims", 0);
        (void)onnx_node_out(&b->g, n, out, ONNX_FLOAT, (onnx_shape){0});
    }
}

npu_value npu_settle_as(npu_builder *b, onnx_node *n, onnx_shape shape, const char *output)
{
    const char *name = output, *raw = npu_path(b, n->name, "output_0");
    float least = 0, largest = 0;

    if (name == NULL)
        name = raw;
    if (b->o->form == ONNX_NPU_QDQ) {
        npu_range(b, name, &least, &largest);
        raw = onnx_node_out(&b->g, n, raw, ONNX_FLOAT, shape);
        return pair(b, n->name, raw, shape,
                    npu_grid_new(b, name, least, largest, b->o->value_bits), output);
    }
    const char *x = onnx_node_out(&b->g, n, name, ONNX_FLOAT, shape);
    if (b->o->form == ONNX_NPU_CALIBRATE)
        measure(b, n->name, x, name);
    return (npu_value){x, shape, NULL};
}

npu_value npu_settle(npu_builder *b, onnx_node *n, onnx_shape shape)
{
    return npu_settle_as(b, n, shape, NULL);
}

npu_value npu_settle_in(npu_builder *b, onnx_node *n, onnx_shape shape, float least,
                        float largest)
{
    const char *x =
        onnx_node_out(&b->g, n, npu_path(b, n->name, "output_0"), ONNX_FLOAT, shape);

    if (b->o->form != ONNX_NPU_QDQ)
        return (npu_value){x, shape, NULL};
    return pair(b, n->name, x, shape, npu_grid_new(b, x, least, largest, b->o->value_bits),
                NULL);
}

npu_value npu_moved(npu_builder *b, onnx_node *n, onnx_shape shape, const npu_value *like)
{
    const char *path = n->name;

    if (n->out_count > 0)
        path = dr_arena_printf(b->arena, "%s/%zu", n->name, n->out_count);
    const char *x =
        onnx_node_out(&b->g, n, npu_path(b, path, "output_0"), ONNX_FLOAT, shape);
    if (like->grid == NULL)
        return (npu_value){x, shape, NULL};
    return pair(b, path, x, shape, like->grid, NULL);
}

npu_value npu_reshape(npu_builder *b, const char *path, const npu_value *x,
                      onnx_shape shape)
{
    int64_t dims[ONNX_DIMS];

    for (int i = 0; i < shape.rank; i++)
        dims[i] = shape.dim[i].size;
    onnx_node *n = npu_node(b, "Reshape", path, x, 1);
    onnx_node_in(&b->g, n, onnx_constant(&b->g, dims, (size_t)shape.rank));
    return npu_moved(b, n, shape, x);
}

npu_value npu_transpose(npu_builder *b, const char *path, const npu_value *x,
                        const int64_t perm[4])
{
    onnx_shape shape = {.rank = 4};

    for (int i = 0; i < 4; i++)
        shape.dim[i] = x->shape.dim[perm[i]];
    onnx_node *n = npu_node(b, "Transpose", path, x, 1);
    onnx_attr_ints(&b->g, n, "perm", perm, 4);
    return npu_moved(b, n, shape, x);
}

npu_value npu_scaled(npu_builder *b, const char *path, const npu_value *x, double by,
                     const char *output)
{
    const float value = (float)by;
    npu_value pair[2] = {*x};

    if (by == 1)
        return *x;
    pair[1] = npu_const(b, dr_arena_printf(b->arena, "%s.factor", path + 1), &value,
                        npu_shape(1, 1, 0, 0, 0));
    onnx_node *n = npu_node(b, "Mul", npu_path(b, path, "Mul"), pair, 2);
    return npu_settle_as(b, n, x->shape, output);
}

npu_value npu_capped(npu_builder *b, const char *path, const npu_value *x, double s,
                     const char *output)
{
    if (s == 0)
        return *x;
    npu_value y = npu_scaled(b, npu_path(b, path, "in"), x, 1 / s, NULL);
    onnx_node *n = npu_node(b, "Tanh", npu_path(b, path, "Tanh"), &y, 1);
    y = npu_settle(b, n, x->shape);
    return npu_scaled(b, npu_path(b, path, "out"), &y, s, output);
}

/* ---- inputs, outputs, constants ---- */

npu_value npu_bytes_out(npu_builder *b, const char *path, const npu_value *x,
                        const char *output, const npu_grid *grid)
{
    onnx_graph_output(&b->g, output, grid->type, x->shape);
    const char *q = quantize(b, path, x->name, output, x->shape, grid);
    return npu_dequantize(b, path, q, x->shape, grid);
}

npu_value npu_bytes_in(npu_builder *b, const char *input, onnx_shape shape,
                       const char *range)
{
    float least = 0, largest = 0;

    npu_range(b, range, &least, &largest);
    const npu_grid *grid = npu_grid_new(b, input, least, largest, 8);
    onnx_graph_input(&b->g, input, grid->type, shape);
    return npu_dequantize(b, dr_arena_printf(b->arena, "/model/%s", input), input, shape,
                          grid);
}

npu_value npu_float_in(npu_builder *b, const char *input, onnx_shape shape,
                       const char *range)
{
    float least = 0, largest = 0;

    onnx_graph_input(&b->g, input, ONNX_FLOAT, shape);
    if (b->o->form != ONNX_NPU_QDQ)
        return (npu_value){dr_arena_strdup(b->arena, input), shape, NULL};
    npu_range(b, range, &least, &largest);
    return pair(b, dr_arena_printf(b->arena, "/model/%s", input), input, shape,
                npu_grid_new(b, input, least, largest, b->o->value_bits), NULL);
}

npu_value npu_const(npu_builder *b, const char *name, const float *values, onnx_shape shape)
{
    size_t count = 1;
    float least = 0, largest = 0;

    for (int i = 0; i < shape.rank; i++)
        count *= (size_t)shape.dim[i].size;
    if (b->o->form != ONNX_NPU_QDQ) {
        (void)onnx_graph_init_raw(&b->g, name, ONNX_FLOAT, shape, values,
                                  count * sizeof(*values));
        return (npu_value){dr_arena_strdup(b->arena, name), shape, NULL};
    }
    for (size_t i = 0; i < count; i++) {
        least = values[i] < least ? values[i] : least;
        largest = values[i] > largest ? values[i] : largest;
    }
    const int bits = b->o->value_bits;
    const npu_grid *grid = npu_grid_new(b, name, least, largest, bits);
    const float top = bits == 8 ? 255.0F : 65535.0F;
    float zero = 0;
    const float scale = npu_scale(least, largest, bits, &zero);
    uint8_t *codes = dr_arena_alloc(b->arena, count, (size_t)bits / 8);
    for (size_t i = 0; i < count; i++) {
        float v = roundf(values[i] / scale) + zero;
        unsigned code = (unsigned)(v < 0 ? 0 : v > top ? top : v);
        codes[i * (size_t)bits / 8] = (uint8_t)(code & 255);
        if (bits == 16)
            codes[2 * i + 1] = (uint8_t)(code >> 8);
    }
    (void)onnx_graph_init_raw(&b->g, name, grid->type, shape, codes,
                              count * (size_t)bits / 8);
    return npu_dequantize(b, dr_arena_printf(b->arena, "/%s", name), name, shape, grid);
}
