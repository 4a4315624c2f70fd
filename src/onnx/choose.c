/*
 * choose.c - which weights are rounded, and to how many bits.
 *
 * A product is known by its path ("/model/layers.3/mlp/down_proj"), whatever the family, as
 * in the model builder, whose rules these are.  An int2 graph has a head and an embedding
 * of 4 bits: with 2, the next token is lost (docs/EXPORT.md).
 */
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/param.h"
#include "onnx/build_impl.h"

/* The first and last eighth, and every third between; an eighth is rounded half to even. */
static bool sensitive_layer(int i, int layers)
{
    int rest = layers % 8, eighth = layers / 8;

    eighth += rest > 4 || (rest == 4 && eighth % 2 == 1);
    return 8 * i < layers || 8 * i >= 7 * layers || ((i - eighth) % 3 + 3) % 3 == 2;
}

static bool sensitive(const onnx_builder *b, const char *path)
{
    int layer = 0;

    return sscanf(path, "/model/layers.%d/", &layer) == 1 &&
           sensitive_layer(layer, b->c->layers) &&
           (dr_ends_with(path, "/qkv_proj") || dr_ends_with(path, "/v_proj") ||
            dr_ends_with(path, "/down_proj"));
}

/* Whether a node is to stay as it is; it counts as met. */
static bool excluded(onnx_builder *b, const char *node)
{
    bool any = false;

    for (size_t i = 0; i < b->o->exclude_count; i++) {
        if (strcmp(b->o->exclude[i], node) != 0)
            continue;
        b->excluded[i] = true;
        any = true;
    }
    return any;
}

/* For onnx_choose_check, should an exclusion name nothing. */
static void remember(onnx_builder *b, const char *node)
{
    size_t n = b->product_count;

    if (b->o->exclude_count == 0)
        return;
    if ((n & (n - 1)) == 0) { /* full at every power of two */
        const char **more = dr_arena_alloc(b->arena, n > 0 ? 2 * n : 1, sizeof(*more));
        if (n > 0)
            memcpy(more, b->products, n * sizeof(*more));
        b->products = more;
    }
    b->products[b->product_count++] = node;
}

int onnx_choose_bits(onnx_builder *b, const char *path)
{
    const onnx_options *o = b->o;
    const char *node = onnx_build_path(b, path, "MatMul");
    int bits = onnx_precision_bits(o->precision);
    bool head = strcmp(path, "/lm_head") == 0;

    remember(b, node);
    if (excluded(b, node) || bits == 0 || (o->ops != 0 && !(o->ops & ONNX_OP_MATMUL)))
        return 0;
    if (bits == 8)
        return 8;
    if (head && o->head_bits != 0)
        return o->head_bits;
    if (head && o->mix != ONNX_MIX_NONE)
        return 8;
    if (o->mix == ONNX_MIX_LAYERS && sensitive(b, path))
        return 8;
    return head && bits < 4 ? 4 : bits;
}

int onnx_choose_embedding(onnx_builder *b, bool tied)
{
    static const char node[] = "/model/embed_tokens/Gather";
    const onnx_options *o = b->o;
    int bits = onnx_precision_bits(o->precision);

    remember(b, node);
    if (excluded(b, node) || bits == 0 ||
        (o->ops != 0 ? !(o->ops & ONNX_OP_GATHER) : !tied))
        return 0;
    return bits < 4 ? 4 : bits;
}

dr_status onnx_choose_check(const onnx_builder *b)
{
    for (size_t i = 0; i < b->o->exclude_count; i++) {
        const char *name = b->o->exclude[i];
        if (b->excluded[i])
            continue;
        dr_status st =
            dr_fail(DR_EUSAGE, "nodes to exclude: nothing is rounded for a node %s", name);
        const char *near = dr_nearest(name, b->products, b->product_count);
        if (near != NULL)
            dr_hint("there is %s", near);
        else
            dr_hint("names are such as /lm_head/MatMul and "
                    "/model/layers.0/mlp/down_proj/MatMul");
        return st;
    }
    return DR_OK;
}
