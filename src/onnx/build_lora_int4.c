/*
 * build_lora_int4.c - adapters packed to 4 bits as inputs of any rank.
 *
 *     .quant.weight [n][blocks][block/2] -> Flatten     \
 *     .quant.scale [n * blocks]          -> Reshape      > GatherBlockQuantized of all rows
 *     (.quant.zero_point)                -> Reshape     /         | [n][blocks * block]
 *     0, 1, ... n-1                                              Slice to [n][k]
 *                                                                 | transposed
 *                                                     x -> FusedMatMul -> [.., n]
 *
 * Without an adapter n (of A) or the blocks (of B) are 0 and all of it is empty, so the sum
 * is zero.  MatMulNBits takes the same bytes, but has the rank in its attributes: one rank
 * for all adapters of a graph, and an empty weight would be read past its end.
 */
#include "onnx/build_lora_impl.h"

/* A size of a value in between that only the runtime knows. */
static onnx_dim some(onnx_builder *b, const lora_half *h, const char *what)
{
    return onnx_sym(dr_arena_printf(b->arena, "%s.%s", h->name, what));
}

static size_t blocks_of(const onnx_builder *b, const lora_half *h)
{
    size_t block = (size_t)b->form.block;

    return (h->k + block - 1) / block;
}

/* A flat list as one row for each of n; the size that is not known is left to Reshape. */
static const char *by_rows(onnx_builder *b, const lora_half *h, const char *what,
                           const char *list, onnx_type type, size_t row)
{
    int64_t sizes[2] = {-1, (int64_t)row};
    onnx_dim dims[2] = {onnx_sym(h->r), onnx_num((int64_t)row)};

    if (h->n > 0) {
        sizes[0] = (int64_t)h->n;
        sizes[1] = -1;
        dims[0] = onnx_num((int64_t)h->n);
        dims[1] = some(b, h, what);
    }
    return onnx_op(&b->g, "Reshape", onnx_build_path(b, h->path, what), list,
                   onnx_constant(&b->g, sizes, 2), type, onnx_shape2(dims[0], dims[1]));
}

/* The first size of x, as a scalar. */
static const char *first_size(onnx_builder *b, const lora_half *h, const char *x)
{
    onnx_graph *g = &b->g;
    const char *shape = onnx_op(g, "Shape", onnx_build_path(b, h->path, "Shape"), x, NULL,
                                ONNX_INT64, onnx_shape1(onnx_num(3)));
    onnx_node *n = onnx_node_new(g, "", "Gather", onnx_build_path(b, h->path, "Gather"));

    onnx_node_in(g, n, shape);
    onnx_node_in(g, n, onnx_constant(g, (int64_t[]){0}, 0));
    onnx_attr_int(g, n, "axis", 0);
    return onnx_node_out(g, n, onnx_build_path(b, h->path, "Gather/output_0"), ONNX_INT64,
                         (onnx_shape){0});
}

static const char *row_numbers(onnx_builder *b, const lora_half *h, const char *codes)
{
    onnx_graph *g = &b->g;
    const char *count = h->n > 0 ? onnx_constant(g, (int64_t[]){(int64_t)h->n}, 0)
                                 : first_size(b, h, codes);
    onnx_node *n = onnx_node_new(g, "", "Range", onnx_build_path(b, h->path, "Range"));

    onnx_node_in(g, n, onnx_constant(g, (int64_t[]){0}, 0));
    onnx_node_in(g, n, count);
    onnx_node_in(g, n, onnx_constant(g, (int64_t[]){1}, 0));
    return onnx_node_out(g, n, onnx_build_path(b, h->path, "Range/output_0"), ONNX_INT64,
                         onnx_shape1(lora_size(h->n, h->r)));
}

/*
 * The codes as [n][bytes].  Behind zero points the shape must not be seen: onnxruntime
 * wants sizes for all of it once it knows one (seen in 1.32.0), and n is the rank.  A
 * Compress is what its inference does not look through.
 */
static const char *flat_codes(onnx_builder *b, const lora_half *h, const char *codes)
{
    onnx_graph *g = &b->g;
    onnx_shape shape = onnx_shape2(lora_size(h->n, h->r), some(b, h, "bytes"));

    if (h->n > 0 || b->form.symmetric) {
        onnx_node *n =
            onnx_node_new(g, "", "Flatten", onnx_build_path(b, h->path, "Flatten"));
        onnx_node_in(g, n, codes);
        onnx_attr_int(g, n, "axis", 1);
        return onnx_node_out(g, n, onnx_build_path(b, h->path, "Flatten/output_0"),
                             ONNX_UINT8, shape);
    }
    const char *sizes = onnx_op(g, "Shape", onnx_build_path(b, h->path, "codes/Shape"),
                                codes, NULL, ONNX_INT64, onnx_shape1(onnx_num(3)));
    const char *first = onnx_cast(g, onnx_build_path(b, h->path, "codes/first"),
                                  onnx_constant(g, (int64_t[]){1, 0, 0}, 3), ONNX_BOOL,
                                  onnx_shape1(onnx_num(3)));
    const char *rows = onnx_op(g, "Compress", onnx_build_path(b, h->path, "codes/Compress"),
                               sizes, first, ONNX_INT64, onnx_shape1(some(b, h, "one")));
    onnx_node *n =
        onnx_node_new(g, "", "Concat", onnx_build_path(b, h->path, "codes/Concat"));
    onnx_node_in(g, n, rows);
    onnx_node_in(g, n, onnx_constant1(g, (int64_t)blocks_of(b, h) * b->form.block / 2));
    onnx_attr_int(g, n, "axis", 0);
    sizes = onnx_node_out(g, n, onnx_build_path(b, h->path, "codes/Concat/output_0"),
                          ONNX_INT64, onnx_shape1(some(b, h, "two")));
    return onnx_op(g, "Reshape", onnx_build_path(b, h->path, "codes/Reshape"), codes, sizes,
                   ONNX_UINT8, (onnx_shape){.rank = -1});
}

/* The inputs, and their rows as floats [n][blocks * block]. */
static const char *unpacked(onnx_builder *b, const lora_half *h)
{
    onnx_graph *g = &b->g;
    size_t kb = blocks_of(b, h);
    const char *codes = dr_arena_printf(b->arena, "%s.quant.weight", h->name);
    const char *scales = dr_arena_printf(b->arena, "%s.quant.scale", h->name);
    const char *zeros = dr_arena_printf(b->arena, "%s.quant.zero_point", h->name);
    onnx_dim rows = lora_size(h->n, h->r);
    onnx_dim blocks = kb > 0 ? onnx_num((int64_t)kb) : some(b, h, "blocks");
    onnx_dim wide = kb > 0 ? onnx_num((int64_t)kb * b->form.block) : some(b, h, "padded");

    lora_input(b, codes, ONNX_UINT8,
               (onnx_shape){3, {rows, blocks, onnx_num(b->form.block / 2)}});
    lora_input(b, scales, lora_type(b), onnx_shape1(some(b, h, "scale_count")));
    scales = by_rows(b, h, "scales", scales, lora_type(b), kb);
    scales = lora_cast(b, h->path, scales, onnx_shape2(rows, blocks));
    if (!b->form.symmetric) {
        lora_input(b, zeros, ONNX_UINT8, onnx_shape1(some(b, h, "zero_point_count")));
        zeros = by_rows(b, h, "zero_points", zeros, ONNX_UINT8, (kb + 1) / 2);
    }
    const char *bytes = flat_codes(b, h, codes), *numbers = row_numbers(b, h, codes);
    onnx_node *n = onnx_node_new(g, "com.microsoft", "GatherBlockQuantized",
                                 onnx_build_path(b, h->path, "GatherBlockQuantized"));
    onnx_node_in(g, n, bytes);
    onnx_node_in(g, n, numbers);
    onnx_node_in(g, n, scales);
    if (!b->form.symmetric)
        onnx_node_in(g, n, zeros);
    onnx_attr_int(g, n, "bits", 4);
    onnx_attr_int(g, n, "block_size", b->form.block);
    onnx_attr_int(g, n, "gather_axis", 0);
    onnx_attr_int(g, n, "quantize_axis", 1);
    return onnx_node_out(g, n, onnx_build_path(b, h->path, "GatherBlockQuantized/output_0"),
                         b->float_type, onnx_shape2(rows, wide));
}

/* As many columns as x has numbers: the others fill up the last block. */
static const char *cut(onnx_builder *b, const lora_half *h, const char *weight,
                       const char *x)
{
    onnx_graph *g = &b->g;
    const char *end = NULL;

    if (h->k > 0 && h->k % (size_t)b->form.block == 0)
        return weight;
    if (h->k > 0) {
        end = onnx_constant1(g, (int64_t)h->k);
    } else {
        end = onnx_op(g, "Shape", onnx_build_path(b, h->path, "Shape"), x, NULL, ONNX_INT64,
                      onnx_shape1(onnx_num(3)));
        onnx_node *n =
            onnx_node_new(g, "", "Gather", onnx_build_path(b, h->path, "Gather"));
        onnx_node_in(g, n, end);
        onnx_node_in(g, n, onnx_constant1(g, 2));
        onnx_attr_int(g, n, "axis", 0);
        end = onnx_node_out(g, n, onnx_build_path(b, h->path, "Gather/output_0"),
                            ONNX_INT64, onnx_shape1(onnx_num(1)));
    }
    onnx_node *n = onnx_node_new(g, "", "Slice", onnx_build_path(b, h->path, "Slice"));
    onnx_node_in(g, n, weight);
    onnx_node_in(g, n, onnx_constant1(g, 0));
    onnx_node_in(g, n, end);
    onnx_node_in(g, n, onnx_constant1(g, 1));
    return onnx_node_out(g, n, onnx_build_path(b, h->path, "Slice/output_0"), b->float_type,
                         onnx_shape2(lora_size(h->n, h->r), lora_size(h->k, h->r)));
}

const char *lora_int4_half(onnx_builder *b, const lora_half *h, const char *x)
{
    onnx_graph *g = &b->g;
    const char *weight = cut(b, h, unpacked(b, h), x);
    onnx_node *n = onnx_node_new(g, "com.microsoft", "FusedMatMul",
                                 onnx_build_path(b, h->path, "MatMul"));

    onnx_node_in(g, n, x);
    onnx_node_in(g, n, weight);
    onnx_attr_int(g, n, "transB", 1);
    return onnx_node_out(g, n, onnx_build_path(b, h->path, "MatMul/output_0"),
                         b->float_type, lora_result(h));
}
