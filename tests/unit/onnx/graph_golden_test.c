/*
 * graph_golden_test.c - graphs against the model builder's, node by node: inputs, outputs,
 * initializers and nodes with their operands and attributes, as lines, for every provider,
 * precision and form.  tools/oracle/graph_goldens.py made tests/golden/onnx/ with the
 * builder of onnxruntime-genai 0.18; what may differ is listed below, with its reason.
 *
 * Not compared: the opset, the order of nodes, constants (their values are in the names).
 */
#include "onnx_fixture.h"

#include <stdlib.h>

enum { LINES_MAX = 256 };

/* ---- lines of an export ---- */

static dr_arena arena;

typedef struct {
    const char *line[LINES_MAX];
    size_t count;
} lines;

static void add(lines *l, const char *text)
{
    if (CHECK(l->count < LINES_MAX))
        l->line[l->count++] = text;
}

/* Every `from` in text becomes `to`. */
static const char *replaced(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from), *out = "";
    size_t n = strlen(from);

    for (; at != NULL; text = at + n, at = strstr(text, from))
        out = dr_arena_printf(&arena, "%s%.*s%s", out, (int)(at - text), text, to);
    return dr_arena_printf(&arena, "%s%s", out, text);
}

static const char *shortened(const char *name)
{
    static const char *const pairs[][2] = {
        {"/model/layers.", "/L"},
        {"model.layers.", "L"},
        {"/output_0", "@"},
        {"/model/attn_mask_reformat/attn_mask_subgraph/", "/AMS/"},
        {"/skip_simplified_layer_norm", "/ssln"},
        {"/model/constants/", "/C/"},
    };

    for (size_t i = 0; i < DR_COUNT(pairs); i++)
        name = replaced(name, pairs[i][0], pairs[i][1]);
    return name;
}

static const char *type_name(int32_t type)
{
    switch (type) {
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT:
        return "FLOAT";
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16:
        return "FLOAT16";
    case ONNX__TENSOR_PROTO__DATA_TYPE__BFLOAT16:
        return "BFLOAT16";
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT64:
        return "INT64";
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT8:
        return "UINT8";
    case ONNX__TENSOR_PROTO__DATA_TYPE__INT4:
        return "INT4";
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT4:
        return "UINT4";
    default:
        return "?";
    }
}

static const char *joined(const char *list, const char *item)
{
    return list == NULL ? item : dr_arena_printf(&arena, "%s,%s", list, item);
}

static const char *number(int64_t v)
{
    return dr_arena_printf(&arena, "%lld", (long long)v);
}

static const char *value_line(const char *kind, const Onnx__ValueInfoProto *v)
{
    const Onnx__TypeProto__Tensor *t = v->type->tensor_type;
    const char *dims = NULL;

    for (size_t i = 0; i < t->shape->n_dim; i++) {
        const Onnx__TensorShapeProto__Dimension *d = t->shape->dim[i];
        bool named = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
        dims = joined(dims, named ? d->dim_param : number(d->dim_value));
    }
    return dr_arena_printf(&arena, "%s %s %s[%s]", kind, shortened(v->name),
                           type_name(t->elem_type), dims != NULL ? dims : "");
}

static const char *init_line(const Onnx__TensorProto *t)
{
    const char *dims = NULL;

    for (size_t i = 0; i < t->n_dims; i++)
        dims = joined(dims, number(t->dims[i]));
    return dr_arena_printf(&arena, "INIT %s %s[%s]", shortened(t->name),
                           type_name(t->data_type), dims != NULL ? dims : "");
}

static const char *attribute(const Onnx__AttributeProto *a)
{
    const char *ints = NULL;

    if (a->type == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT)
        return dr_arena_printf(&arena, "%s=%lld", a->name, (long long)a->i);
    if (a->type == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT)
        return dr_arena_printf(&arena, "%s=%.6g", a->name, (double)a->f);
    if (a->type == ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING)
        return dr_arena_printf(&arena, "%s=%.*s", a->name, (int)a->s.len,
                               (const char *)a->s.data);
    for (size_t i = 0; i < a->n_ints; i++)
        ints = joined(ints, number(a->ints[i]));
    return dr_arena_printf(&arena, "%s=[%s]", a->name, ints != NULL ? ints : "");
}

static int by_text(const void *a, const void *b)
{
    const char *const *p = a, *const *q = b;

    return strcmp(*p, *q);
}

static const char *node_line(const Onnx__NodeProto *n)
{
    const char *attrs[16], *in = NULL, *out = NULL, *text;

    for (size_t i = 0; i < n->n_input; i++)
        in = joined(in, shortened(n->input[i]));
    for (size_t i = 0; i < n->n_output; i++)
        out = joined(out, shortened(n->output[i]));
    text = dr_arena_printf(&arena, "NODE %s %s(%s)->(%s)", n->op_type, shortened(n->name),
                           in != NULL ? in : "", out);
    CHECK(n->n_attribute <= DR_COUNT(attrs));
    for (size_t i = 0; i < n->n_attribute; i++)
        attrs[i] = attribute(n->attribute[i]);
    qsort(attrs, n->n_attribute, sizeof(*attrs), by_text);
    for (size_t i = 0; i < n->n_attribute; i++)
        text = dr_arena_printf(&arena, "%s %s", text, attrs[i]);
    return text;
}

static void export_lines(lines *l, const exported *e)
{
    for (size_t i = 0; i < e->g->n_input; i++)
        add(l, value_line("IN", e->g->input[i]));
    for (size_t i = 0; i < e->g->n_output; i++)
        add(l, value_line("OUT", e->g->output[i]));
    for (size_t i = 0; i < e->g->n_initializer; i++)
        add(l, init_line(e->g->initializer[i]));
    for (size_t i = 0; i < e->g->n_node; i++) {
        if (strcmp(e->g->node[i]->op_type, "Constant") != 0)
            add(l, node_line(e->g->node[i]));
    }
    qsort(l->line, l->count, sizeof(*l->line), by_text);
}

/* ---- what may differ ---- */

enum { TIED_PACKED = 1, TIED_FLOAT = 2, LONGROPE = 4, TIED_BYTES = 8, SQUARE_HEAD = 16 };

/* Beginnings of lines that one side may have alone. */
static const struct {
    unsigned when;
    bool ours;
    const char *begins;
} allowed[] = {
    /* one table of bytes, under two names, in place of a Reshape that is folded */
    {TIED_PACKED, false, "NODE Reshape /model/embed_tokens/Reshape("},
    {TIED_PACKED, false, "NODE GatherBlockQuantized /model/embed_tokens/"},
    {TIED_PACKED, true, "INIT model.embed_tokens.weight_packed UINT8["},
    {TIED_PACKED, true, "NODE GatherBlockQuantized /model/embed_tokens/"},
    /* one table of floats, read in both ways, in place of a Transpose that is folded */
    {TIED_FLOAT, false, "INIT lm_head.MatMul.weight "},
    {TIED_FLOAT, false, "NODE Transpose /model/embed_tokens/Transpose("},
    {TIED_FLOAT, false, "NODE Gather /model/embed_tokens/Gather("},
    {TIED_FLOAT, false, "NODE MatMul /lm_head/MatMul("},
    {TIED_FLOAT, true, "INIT model.embed_tokens.weight "},
    {TIED_FLOAT, true, "NODE Gather /model/embed_tokens/Gather("},
    {TIED_FLOAT, true, "NODE FusedMatMul /lm_head/MatMul("},
    /* tied int8: the embedding is the head's table, where the builder's stays float */
    {TIED_BYTES, false, "INIT model.embed_tokens.weight "},
    {TIED_BYTES, false, "NODE Gather /model/embed_tokens/Gather("},
    {TIED_BYTES, false, "NODE SimplifiedLayerNormalization /L0/input_layernorm/"},
    {TIED_BYTES, false, "NODE SkipSimplifiedLayerNormalization /L0/post_attention"},
    {TIED_BYTES, true, "INIT model.embed_tokens.weight_packed UINT8["},
    {TIED_BYTES, true, "NODE GatherBlockQuantized /model/embed_tokens/"},
    {TIED_BYTES, true, "NODE SimplifiedLayerNormalization /L0/input_layernorm/"},
    {TIED_BYTES, true, "NODE SkipSimplifiedLayerNormalization /L0/post_attention"},
    /* the builder finds the head by its size, and o_proj has the same in this model */
    {SQUARE_HEAD, false, "NODE MatMul /lm_head/MatMul("},
    {SQUARE_HEAD, false, "NODE MatMulNBits /lm_head/MatMul_Q4("},
    {SQUARE_HEAD, true, "NODE MatMul /lm_head/MatMul("},
    {SQUARE_HEAD, true, "NODE MatMulNBits /lm_head/MatMul_Q4("},
    /* rows cut from one table, in place of an If that copies one of two */
    {LONGROPE, false, "NODE If /model/rope_caches_subgraph/If("},
    {LONGROPE, false, "NODE Greater /model/rope_caches_subgraph/Greater("},
    {LONGROPE, true, "INIT cos_table "},
    {LONGROPE, true, "INIT sin_table "},
    {LONGROPE, true, "NODE Add /model/rope_caches_subgraph/"},
    {LONGROPE, true, "NODE Cast /model/rope_caches_subgraph/"},
    {LONGROPE, true, "NODE Gather /model/rope_caches_subgraph/"},
    {LONGROPE, true, "NODE Greater /model/rope_caches_subgraph/"},
    {LONGROPE, true, "NODE Mul /model/rope_caches_subgraph/"},
    {LONGROPE, true, "NODE Slice /model/rope_caches_subgraph/"},
};

static bool may_differ(unsigned when, bool ours, const char *line)
{
    for (size_t i = 0; i < DR_COUNT(allowed); i++) {
        if ((allowed[i].when & when) != 0 && allowed[i].ours == ours &&
            strncmp(line, allowed[i].begins, strlen(allowed[i].begins)) == 0)
            return true;
    }
    return false;
}

/* ---- comparing ---- */

static void golden_lines(lines *l, const char *name)
{
    const char *file = dr_arena_printf(&arena, "%s.txt", name);
    const char *path = dr_path_join(&arena, DRUPE_SOURCE_DIR "/tests/golden/onnx", file);
    dr_map map = {0};

    if (!CHECK_OK(dr_map_open(&map, path)))
        return;
    char *text = dr_arena_printf(&arena, "%.*s", (int)map.size, (const char *)map.data);
    for (char *end; (end = strchr(text, '\n')) != NULL; text = end + 1) {
        *end = '\0';
        /* the builder names the last size of caches, here it is a number */
        add(l, replaced(text, "kv_cache_dim", "16"));
    }
    qsort(l->line, l->count, sizeof(*l->line), by_text);
    dr_map_close(&map);
}

/* Of the tiny models, heads are 16 wide but for Phi-3's 32. */
static void widen(lines *l)
{
    for (size_t i = 0; i < l->count; i++)
        l->line[i] = replaced(l->line[i], "_length,16]", "_length,32]");
}

static void only(const char *name, unsigned when, bool ours, const lines *a, const lines *b)
{
    for (size_t i = 0; i < a->count; i++) {
        if (bsearch(&a->line[i], b->line, b->count, sizeof(*b->line), by_text) != NULL ||
            may_differ(when, ours, a->line[i]))
            continue;
        CHECK(false);
        (void)printf("  %s, %s: %s\n", name, ours ? "ours alone" : "missing", a->line[i]);
    }
}

static void compare(const char *name, const char *model, const onnx_options *o,
                    unsigned when)
{
    const char *dir = NULL;
    lines ours = {0}, theirs = {0};
    exported e;

    golden_lines(&theirs, name);
    if (strcmp(model, "phi3") == 0)
        widen(&theirs);
    if (CHECK(theirs.count > 40) &&
        CHECK_OK(
            fixture_export(&arena, &dir, name, dr_path_join(&arena, TINY, model), o, 1)) &&
        exported_open(&e, &arena, dir)) {
        export_lines(&ours, &e);
        only(name, when, false, &theirs, &ours);
        only(name, when, true, &ours, &theirs);
        exported_close(&e);
    }
}

static onnx_options options(onnx_provider provider, onnx_precision precision)
{
    onnx_options o = fixture_options(precision);

    o.provider = provider;
    return o;
}

static void test_providers(void)
{
    static const struct {
        const char *model;
        onnx_provider provider;
        onnx_precision precision;
        unsigned when;
    } rows[] = {
        {"llama", ONNX_CPU, ONNX_FP32, TIED_FLOAT},
        {"llama", ONNX_CPU, ONNX_INT4, TIED_PACKED},
        {"llama", ONNX_CPU, ONNX_INT8, TIED_BYTES},
        {"llama", ONNX_CUDA, ONNX_FP16, TIED_FLOAT},
        {"llama", ONNX_CUDA, ONNX_BF16, TIED_FLOAT},
        {"llama", ONNX_CUDA, ONNX_INT4, TIED_PACKED},
        {"llama", ONNX_CUDA, ONNX_INT8, 0},
        {"llama", ONNX_DML, ONNX_FP16, 0},
        {"llama", ONNX_DML, ONNX_INT4, TIED_PACKED},
        {"llama", ONNX_WEBGPU, ONNX_INT4, TIED_PACKED},
        {"llama", ONNX_WEBGPU, ONNX_INT8, 0},
        {"llama", ONNX_TRT_RTX, ONNX_FP16, 0},
        {"qwen2", ONNX_CPU, ONNX_FP32, 0},
        {"qwen2", ONNX_CPU, ONNX_INT4, 0},
        {"qwen2", ONNX_CUDA, ONNX_FP16, 0},
        {"qwen2", ONNX_DML, ONNX_INT4, 0},
        {"qwen2", ONNX_WEBGPU, ONNX_INT4, 0},
        {"qwen2", ONNX_TRT_RTX, ONNX_INT4, 0},
        {"qwen2", ONNX_TRT_RTX, ONNX_BF16, 0},
        {"phi3", ONNX_CPU, ONNX_INT4, TIED_PACKED | LONGROPE | SQUARE_HEAD},
        {"phi3", ONNX_CUDA, ONNX_INT4, TIED_PACKED | LONGROPE | SQUARE_HEAD},
        {"phi3", ONNX_DML, ONNX_INT4, TIED_PACKED | SQUARE_HEAD},
        {"phi3", ONNX_TRT_RTX, ONNX_FP16, SQUARE_HEAD},
    };

    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        onnx_options o = options(rows[i].provider, rows[i].precision);
        const char *name = dr_arena_printf(&arena, "%s-%s-%s", rows[i].model,
                                           onnx_provider_short(rows[i].provider),
                                           onnx_precision_name(rows[i].precision));
        compare(name, rows[i].model, &o, rows[i].when);
    }
}

static void test_forms(void)
{
    const char *kqm = "llama-cpu-int4-block_size-16-algo_config-k_quant_mixed-"
                      "shared_embeddings-false";
    onnx_options o = options(ONNX_CPU, ONNX_INT4);

    o.symmetric = false;
    compare("qwen2-cpu-int4-is_symmetric-false", "qwen2", &o, 0);

    o = options(ONNX_CPU, ONNX_INT4);
    o.block_size = 16;
    o.ops = ONNX_OP_MATMUL;
    o.rounding = ONNX_ROUND_RTN;
    compare("llama-cpu-int4-block_size-16-algo_config-rtn-shared_embeddings-false", "llama",
            &o, 0);
    o.rounding = ONNX_ROUND_K_QUANT;
    o.mix = ONNX_MIX_LAYERS;
    compare(kqm, "llama", &o, 0);

    o = options(ONNX_CPU, ONNX_INT4);
    o.exclude_embeds = true;
    compare("llama-cpu-int4-exclude_embeds-true", "llama", &o, 0);
    o = options(ONNX_CPU, ONNX_FP32);
    o.exclude_lm_head = true;
    compare("llama-cpu-fp32-exclude_lm_head-true", "llama", &o, 0);

    o = options(ONNX_CPU, ONNX_INT4);
    o.include_hidden_states = true;
    compare("qwen2-cpu-int4-include_hidden_states-true", "qwen2", &o, 0);
    o = options(ONNX_CPU, ONNX_INT4);
    o.prune_lm_head = true;
    compare("qwen2-cpu-int4-prune_lm_head-true", "qwen2", &o, 0);
    o = options(ONNX_CPU, ONNX_INT4);
    o.mix = ONNX_MIX_HEAD;
    compare("qwen2-cpu-int4-matmul_mixed_precision-last_matmul-int8", "qwen2", &o, 0);

    o = options(ONNX_CUDA, ONNX_INT4);
    o.cuda_bf16 = true;
    compare("qwen2-cuda-int4-use_cuda_bf16-true", "qwen2", &o, 0);
    o = options(ONNX_WEBGPU, ONNX_INT4);
    o.webgpu_fp32 = true;
    compare("qwen2-webgpu-int4-use_webgpu_fp32-true", "qwen2", &o, 0);
    o = options(ONNX_CPU, ONNX_INT4);
    o.qdq = true;
    compare("qwen2-cpu-int4-use_qdq-true", "qwen2", &o, 0);
}

int main(void)
{
    test_providers();
    test_forms();
    dr_arena_release(&arena);
    return check_done();
}
