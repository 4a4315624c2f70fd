/*
 * builder_options.c - Olive's parameters of ModelBuilder, and the model builder's own
 * extra_options, which are the same things by other names.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "pass/builder_impl.h"
#include "pass/shared_impl.h"

static const char *const precisions[] = {"fp32", "fp16", "bf16", "int8",
                                         "int4", "int2", NULL};

static const char *const devices[] = {"cpu", "gpu", "npu", NULL};

/* Rounding and what has 8 bits, by one word. */
enum {
    ALGO_DEFAULT,
    ALGO_RTN,
    ALGO_K,
    ALGO_RTN_LAST,
    ALGO_K_LAST,
    ALGO_K_MIXED,
    ALGO_AUTO /* what was measured to be best: docs/EXPORT.md */
};
static const char *const algorithms[] = {
    "default", "rtn", "k_quant", "rtn_last", "k_quant_last", "k_quant_mixed", "auto", NULL};
static const char *const mixes[] = {"last_matmul:int8", "mixed_layers:int8", NULL};

static const char *const adapter_precisions[] = {"fp32", "fp16", "int4", NULL};

#define B builder_config

const dr_param builder_params[] = {
    DR_CHOICE(B, precision, .dflt = "null", .choices = precisions,
              .help =
                  "default: int4 on a quantized base, else fp32 or the provider's first"),
    DR_CHOICE(B, device, .dflt = "null", .choices = devices,
              .help = "where it will run; default: the provider's"),
    DR_STR(B, provider, .dflt = "null",
           .help = "whose operators the graph has; default: the CPU's, on a gpu CUDA's"),
    DR_INT(B, int4_block_size, .dflt = "32", .search = "[32, 64, 128]", .min = 16,
           .max = 256, .help = "weights that share a scale, where the base has none"),
    DR_BOOL(B, int4_is_symmetric, .dflt = "true", .help = "no zero points, likewise"),
    DR_INT(B, int4_accuracy_level, .dflt = "4", .max = 4,
           .help = "0 unset, 1 float, 4 int8 activations (fastest)"),
    DR_CHOICE(B, int4_algo_config, .dflt = "null", .choices = algorithms,
              .search = "[\"default\", \"rtn\", \"k_quant_mixed\", \"k_quant_last\"]",
              .help = "how weights are rounded; auto: by what was measured"),
    DR_CHOICE(B, matmul_mixed_precision, .dflt = "null", .choices = mixes,
              .help = "what has 8 bits in an int4 graph"),
    DR_STR(B, int4_op_types_to_quantize, .dflt = "null", .listed = true,
           .help = "MatMul, Gather (embeddings); default: both when they are tied"),
    DR_STR(B, int4_nodes_to_exclude, .dflt = "null", .listed = true,
           .help = "nodes left as floats, such as /lm_head/MatMul"),
    DR_BOOL(B, shared_embeddings, .dflt = "true",
            .help = "false: a tied embedding has a table of its own, of floats"),
    DR_BOOL(B, use_qdq, .dflt = "false",
            .help = "DequantizeLinear and MatMul in place of MatMulNBits"),
    DR_BOOL(B, use_webgpu_fp32, .dflt = "false", .help = "32-bit floats on WebGPU"),
    DR_BOOL(B, use_cuda_bf16, .dflt = "false",
            .help = "bfloat16 where an int4 graph for CUDA has float16"),
    DR_BOOL(B, include_hidden_states, .dflt = "false",
            .help = "the last hidden states are an output, too"),
    DR_BOOL(B, exclude_embeds, .dflt = "false",
            .help = "inputs_embeds in place of input_ids"),
    DR_BOOL(B, exclude_lm_head, .dflt = "false",
            .help = "hidden_states in place of logits"),
    DR_BOOL(B, prune_lm_head, .dflt = "false", .help = "logits of the last token alone"),
    DR_BOOL(B, enable_cuda_graph, .dflt = "false",
            .help = "genai_config.json asks for CUDA graphs"),
    DR_STR(B, extra_options, .dflt = "null", .listed = true,
           .help = "the builder's options: block_size=64,is_symmetric=false"),
    DR_STR(B, min_ort_version, .dflt = "null",
           .help = "oldest onnxruntime that must load the model, such as 1.20"),
    DR_BOOL(B, use_ort_genai, .dflt = "false",
            .help = "genai_config.json and tokenizer for onnxruntime-genai"),
    DR_INT(B, max_length, .dflt = "0", .max = 1 << 24,
           .help = "search.max_length; 0: the context, at most 4096"),
    DR_CHOICE(B, adapter_precision, .dflt = "null", .choices = adapter_precisions,
              .help = "of adapter files and the inputs for them; default: the graph's"),
    DR_INT(B, adapter_int4_block_size, .dflt = "32", .min = 16, .max = 256,
           .help = "values of an int4 adapter that share a scale"),
    DR_BOOL(B, adapter_int4_is_symmetric, .dflt = "true",
            .help = "int4 adapters have no zero points"),
    DR_REFUSED("metadata_only", "the graph is always written", "use_ort_genai"),
    DR_REFUSED("search", "its members come later", "max_length"),
    DR_REFUSED("use_8bits_moe", "the runtime's QMoE is right in 4 bits alone", NULL),
    DR_REFUSED("moe_quant_type", "the runtime's QMoE is right in 4 bits alone", NULL),
    DR_REFUSED("adapter_path", "adapters are inputs of the graph", NULL),
    DR_REFUSED("fuse_qkv", "the provider decides", "provider"),
    DR_REFUSED("disable_qkv_fusion", "the provider decides", "provider"),
    DR_REFUSED("fuse_mlp_gate_up", "gate and up are two products", NULL),
    DR_REFUSED("num_hidden_layers", "the model has all of its layers", NULL),
    DR_REFUSED("config_only", "the graph is always written", "use_ort_genai"),
    DR_REFUSED("hf_token", "models come from a path or the hub", NULL),
    DR_REFUSED("hf_remote", "code in model folders is never run", NULL),
    DR_REFUSED("use_paged_attention", "it comes with a serving engine", NULL),
    DR_REFUSED("kv_cache_quant_scheme", "the cache keeps the graph's type", NULL),
    DR_REFUSED("matmulnbits_weights_prepacked", "the runtime packs them for its machine",
               NULL),
};
_Static_assert(DR_COUNT(builder_params) == BUILDER_PARAMS, "their number in the header");

#undef B

/* ---- extra_options ---- */

/* The builder's names of what has a name of Olive's. */
static const char *const aliases[][2] = {
    {"accuracy_level", "int4_accuracy_level"},
    {"block_size", "int4_block_size"},
    {"is_symmetric", "int4_is_symmetric"},
    {"algo_config", "int4_algo_config"},
    {"op_types_to_quantize", "int4_op_types_to_quantize"},
    {"nodes_to_exclude", "int4_nodes_to_exclude"},
};

static bool was_given(const unsigned char *given, const char *name)
{
    return dr_param_given(builder_params, DR_COUNT(builder_params), given, name);
}

static dr_status unknown_extra(const char *key)
{
    const char *names[DR_COUNT(builder_params) + DR_COUNT(aliases)];
    size_t n = 0;

    for (size_t i = 0; i < DR_COUNT(aliases); i++)
        names[n++] = aliases[i][0];
    for (size_t i = 0; i < DR_COUNT(builder_params); i++) {
        if (builder_params[i].type != DR_PARAM_REFUSED)
            names[n++] = builder_params[i].name;
    }
    dr_status st = dr_fail(DR_EUSAGE, "extra_options: unknown key \"%s\"", key);
    const char *near = dr_nearest(key, names, n);
    if (near != NULL)
        dr_hint("did you mean \"%s\"?", near);
    return st;
}

/* One "key=value". */
static dr_status set_extra(builder_config *c, unsigned char *given, dr_arena *a, char *pair)
{
    char *eq = strchr(pair, '=');
    const char *name = pair;
    dr_status st = DR_OK;

    if (eq == NULL) {
        st = dr_fail(DR_EUSAGE, "extra_options: expected key=value, found \"%s\"", pair);
        dr_hint("such as block_size=64,is_symmetric=false");
        goto done;
    }
    *eq = '\0';
    for (size_t i = 0; i < DR_COUNT(aliases); i++) {
        if (strcmp(pair, aliases[i][0]) == 0)
            name = aliases[i][1];
    }
    const dr_param *row = dr_param_find(builder_params, DR_COUNT(builder_params), name);
    if (row == NULL || strcmp(name, "extra_options") == 0) {
        st = unknown_extra(pair);
        goto done;
    }
    if (given[row - builder_params])
        DR_FAIL(DR_EUSAGE, "extra_options: %s is given twice (%s)", pair, row->name);
    const char *label = dr_arena_printf(a, "extra_options: %s", pair);
    DR_TRY(dr_param_set_text(row, c, eq + 1, label, a));
    given[row - builder_params] = 1;
done:
    return st;
}

/* Where the next pair begins: a value may have commas, one before "name=" ends it. */
static char *next_pair(char *pair)
{
    for (char *p = strchr(pair, ','); p != NULL; p = strchr(p + 1, ',')) {
        size_t n = strspn(p + 1, "abcdefghijklmnopqrstuvwxyz_0123456789");
        if (n > 0 && p[1 + n] == '=')
            return p;
    }
    return NULL;
}

static dr_status set_extras(builder_config *c, unsigned char *given, dr_arena *a)
{
    char *pair = dr_arena_strdup(a, c->extra_options);
    dr_status st = DR_OK;

    while (pair != NULL && *pair != '\0') {
        char *end = next_pair(pair);
        if (end != NULL)
            *end++ = '\0';
        DR_TRY(set_extra(c, given, a, pair));
        pair = end;
    }
done:
    return st;
}

/* ---- single values ---- */

static dr_status parse_ort_version(int *minor, const char *text)
{
    char *end = NULL;
    long v = 0;

    *minor = 0;
    if (text == NULL)
        return DR_OK;
    if (strncmp(text, "1.", 2) == 0)
        v = strtol(text + 2, &end, 10);
    if (end == NULL || end == text + 2 || (*end != '\0' && *end != '.') || v < 1 || v > 999)
        return dr_fail(DR_EUSAGE, "min_ort_version: expected such as 1.20, found \"%s\"",
                       text);
    if (v < 20)
        return dr_fail(DR_EUSAGE,
                       "min_ort_version %s: 1.20 is the oldest that loads adapters", text);
    *minor = (int)v;
    return DR_OK;
}

static dr_status parse_ops(unsigned *ops, dr_arena *a, const builder_config *c)
{
    const char *text = c->int4_op_types_to_quantize;
    size_t n = 0;

    *ops = c->shared_embeddings ? 0 : ONNX_OP_MATMUL;
    if (text == NULL)
        return DR_OK;
    const char **list = pass_words(&n, a, text, ",/");
    *ops = 0;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], "MatMul") == 0)
            *ops |= ONNX_OP_MATMUL;
        else if (strcmp(list[i], "Gather") == 0)
            *ops |= ONNX_OP_GATHER;
        else
            return dr_fail(DR_EUSAGE,
                           "int4_op_types_to_quantize: expected MatMul or Gather, found "
                           "\"%s\"",
                           list[i]);
    }
    if (*ops == 0)
        return dr_fail(DR_EUSAGE, "int4_op_types_to_quantize: the list is empty");
    return DR_OK;
}

static dr_status parse_provider(onnx_provider *out, const builder_config *c)
{
    const char *device = c->device >= 0 ? devices[c->device] : NULL, *name = c->provider;
    dr_status st = DR_OK;

    if (name == NULL)
        name = device != NULL && strcmp(device, "gpu") == 0 ? "CUDAExecutionProvider"
                                                            : "CPUExecutionProvider";
    DR_TRY(onnx_provider_parse(out, name));
    const char *its = onnx_provider_device(*out);
    if (device != NULL && strcmp(device, its) != 0) {
        st = dr_fail(DR_EUSAGE, "device %s: %s runs on a %s", device,
                     onnx_provider_name(*out), its);
        dr_hint("leave the device out, or give a provider of it");
    }
done:
    return st;
}

static dr_status parse_rounding(onnx_options *o, const builder_config *c,
                                const unsigned char *given)
{
    int algo = c->int4_algo_config;
    bool k = algo == ALGO_K || algo == ALGO_K_LAST || algo == ALGO_K_MIXED;
    bool rtn = algo == ALGO_RTN || algo == ALGO_RTN_LAST;

    o->rounding = k ? ONNX_ROUND_K_QUANT : rtn ? ONNX_ROUND_RTN : ONNX_ROUND_DEFAULT;
    if (algo == ALGO_RTN_LAST || algo == ALGO_K_LAST)
        o->mix = ONNX_MIX_HEAD;
    else if (algo == ALGO_K_MIXED)
        o->mix = ONNX_MIX_LAYERS;
    if (k && c->int4_is_symmetric && was_given(given, "int4_is_symmetric"))
        return dr_fail(DR_EUSAGE, "int4_is_symmetric: %s always has zero points",
                       algorithms[algo]);
    if (c->matmul_mixed_precision < 0)
        return DR_OK;
    if (o->mix != ONNX_MIX_NONE)
        return dr_fail(DR_EUSAGE, "matmul_mixed_precision: %s says it already",
                       algorithms[algo]);
    o->mix = c->matmul_mixed_precision == 0 ? ONNX_MIX_HEAD : ONNX_MIX_LAYERS;
    return DR_OK;
}

/* What was measured to be closest to the model at the speed of the default: zero points,
 * and 8 bits, which old runtimes do not know, for the head and the layers that matter
 * most. */
static dr_status choose_rounding(onnx_options *o, const builder_config *c,
                                 const unsigned char *given, bool packed)
{
    static const char *const chosen[] = {"int4_is_symmetric", "matmul_mixed_precision"};

    if (c->int4_algo_config != ALGO_AUTO)
        return DR_OK;
    for (size_t i = 0; i < DR_COUNT(chosen); i++) {
        if (was_given(given, chosen[i]))
            return dr_fail(DR_EUSAGE, "%s: int4_algo_config auto chooses it", chosen[i]);
    }
    if (packed || o->provider != ONNX_CPU || o->precision != ONNX_INT4 ||
        o->min_ort_minor > 0)
        return DR_OK;
    o->symmetric = false;
    o->mix = ONNX_MIX_LAYERS;
    return DR_OK;
}

/* ---- together ---- */

/* Rows that only a graph with rounded or packed weights has. */
static const char *const packed_rows[] = {
    "int4_block_size",       "int4_is_symmetric",      "int4_accuracy_level",
    "int4_algo_config",      "matmul_mixed_precision", "int4_op_types_to_quantize",
    "int4_nodes_to_exclude", "shared_embeddings",      "use_qdq",
};

static dr_status check_floats(onnx_precision precision, const unsigned char *given)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < DR_COUNT(packed_rows) && st == DR_OK; i++) {
        if (!was_given(given, packed_rows[i]))
            continue;
        st = dr_fail(DR_EUSAGE, "%s has no effect on a graph in %s", packed_rows[i],
                     onnx_precision_name(precision));
        dr_hint("give --precision int4, or start from a quantized model");
    }
    return st;
}

static dr_status check_values(const builder_config *c, const onnx_options *o,
                              const unsigned char *given)
{
    int b = c->int4_block_size, level = c->int4_accuracy_level;
    bool level_given = was_given(given, "int4_accuracy_level");

    if ((b & (b - 1)) != 0)
        return dr_fail(DR_EUSAGE,
                       "int4_block_size: expected 16, 32, 64, 128 or 256, found %d", b);
    if (level == 2 || level == 3)
        return dr_fail(DR_EUSAGE,
                       "int4_accuracy_level: %d is a half-precision level, which no CPU "
                       "kernel has; use 0, 1 or 4",
                       level);
    if (level_given && level != 0 && o->provider != ONNX_CPU && o->provider != ONNX_WEBGPU)
        return dr_fail(DR_EUSAGE, "int4_accuracy_level: %s has one way to compute",
                       onnx_provider_name(o->provider));
    if (level_given && o->qdq && level != 4)
        return dr_fail(DR_EUSAGE, "int4_accuracy_level: with use_qdq the session decides");
    if (o->mix != ONNX_MIX_NONE && o->precision == ONNX_INT8)
        return dr_fail(DR_EUSAGE, "matmul_mixed_precision: an int8 graph has 8 bits "
                                  "everywhere");
    if (!c->use_ort_genai && was_given(given, "max_length"))
        return dr_fail(DR_EUSAGE, "max_length has no effect without use_ort_genai");
    if (!c->use_ort_genai && c->enable_cuda_graph)
        return dr_fail(DR_EUSAGE, "enable_cuda_graph has no effect without use_ort_genai");
    if (c->use_webgpu_fp32 && o->provider != ONNX_WEBGPU)
        return dr_fail(DR_EUSAGE, "use_webgpu_fp32: the provider is %s",
                       onnx_provider_name(o->provider));
    if (c->use_cuda_bf16 && o->provider != ONNX_CUDA && o->provider != ONNX_TRT_RTX)
        return dr_fail(DR_EUSAGE, "use_cuda_bf16: the provider is %s",
                       onnx_provider_name(o->provider));
    if (c->use_cuda_bf16 && o->precision == ONNX_FP16)
        return dr_fail(DR_EUSAGE, "use_cuda_bf16: the precision is fp16; give bf16");
    return DR_OK;
}

/* The rows about adapters: of use, and of one another. */
static dr_status check_adapters(const builder_config *c, const unsigned char *given)
{
    static const char *const names[] = {"adapter_int4_block_size",
                                        "adapter_int4_is_symmetric"};
    int b = c->adapter_int4_block_size;

    if ((b & (b - 1)) != 0)
        return dr_fail(DR_EUSAGE,
                       "adapter_int4_block_size: expected 16, 32, 64, 128 or 256, found %d",
                       b);
    for (size_t i = 0; i < DR_COUNT(names); i++) {
        if (was_given(given, names[i]) && c->adapter_precision != BUILDER_ADAPTER_INT4)
            return dr_fail(DR_EUSAGE, "%s needs adapter_precision int4", names[i]);
    }
    return DR_OK;
}

dr_status builder_read(onnx_options *out, dr_arena *a, const builder_config *config,
                       const unsigned char *given, bool packed)
{
    size_t n = DR_COUNT(builder_params);
    unsigned char *seen = dr_arena_alloc(a, n, 1);
    builder_config c = *config;
    dr_status st = DR_OK;

    if (given != NULL)
        memcpy(seen, given, n);
    if (c.extra_options != NULL)
        DR_TRY(set_extras(&c, seen, a));
    *out = (onnx_options){.block_size = c.int4_block_size,
                          .symmetric = c.int4_is_symmetric,
                          .accuracy_level = c.int4_accuracy_level,
                          .qdq = c.use_qdq,
                          .webgpu_fp32 = c.use_webgpu_fp32,
                          .cuda_bf16 = c.use_cuda_bf16,
                          .exclude_embeds = c.exclude_embeds,
                          .exclude_lm_head = c.exclude_lm_head,
                          .include_hidden_states = c.include_hidden_states,
                          .prune_lm_head = c.prune_lm_head,
                          .genai = c.use_ort_genai,
                          .cuda_graph = c.enable_cuda_graph,
                          .max_length = c.max_length};
    DR_TRY(parse_provider(&out->provider, &c));
    out->precision = c.precision >= 0 ? (onnx_precision)c.precision
                                      : onnx_precision_default(out->provider, packed);
    DR_TRY(onnx_precision_check(out->provider, out->precision));
    if (out->precision <= ONNX_BF16)
        DR_TRY(check_floats(out->precision, seen));
    DR_TRY(parse_ops(&out->ops, a, &c));
    DR_TRY(parse_ort_version(&out->min_ort_minor, c.min_ort_version));
    DR_TRY(parse_rounding(out, &c, seen));
    DR_TRY(choose_rounding(out, &c, seen, packed));
    if (c.int4_nodes_to_exclude != NULL)
        out->exclude = pass_words(&out->exclude_count, a, c.int4_nodes_to_exclude, ",");
    DR_TRY(check_values(&c, out, seen));
    DR_TRY(check_adapters(&c, seen));
done:
    return st;
}
