/*
 * build_npu.c - onnx_npu_build: a graph for prompts and one for single tokens, each of one
 * shape, over one file of weights.
 *
 * What compilers for NPUs take: operators of the standard domain, every dim a number,
 * rotary tables and the causal mask as constants, positions and padding as inputs.  A
 * window slides over the cache: past tokens end where the new ones begin, and
 * attention_mask says which of the positions before are not there yet.
 *
 * The mask in numbers: with M larger than the span of all scores by NPU_HIDDEN,
 *     bias = M * attention_mask + (-M where causal, else -2 M)
 * is 0, -M or -2 M; rounded values end at -M, and a hidden score at its grid's least.
 */
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "core/mem.h"
#include "onnx/build_impl.h"
#include "onnx/npu_impl.h"

#define DATA_NAME "model.onnx.data"

enum { FLOAT_MASK = 10000, TOTAL_MAX = 1 << 16, BATCH_MAX = 64 };

const char *onnx_npu_file(dr_arena *a, const onnx_npu_options *o, bool token)
{
    const int64_t seq = token ? 1 : o->sequence;

    return dr_arena_printf(a, "%s_b%lld_s%lld_past%lld.onnx", token ? "token" : "prompt",
                           (long long)o->batch, (long long)seq,
                           (long long)(o->total - seq));
}

/* ---- options ---- */

static dr_status check_sizes(const hf_config *c, const onnx_npu_options *o)
{
    if (o->batch < 1 || o->batch > BATCH_MAX)
        return dr_fail(DR_EUSAGE, "batch_size %lld: expected 1 to %d", (long long)o->batch,
                       BATCH_MAX);
    if (o->windowed && o->batch != 1)
        return dr_fail(DR_EUSAGE, "batch_size %lld: a windowed cache has one row",
                       (long long)o->batch);
    if (o->total < 2 || o->total > TOTAL_MAX || o->total > c->max_position)
        return dr_fail(
            DR_EUSAGE,
            "total_sequence_length %lld: expected 2 to %lld (the model's context "
            "is %lld)",
            (long long)o->total,
            (long long)(c->max_position < TOTAL_MAX ? c->max_position : TOTAL_MAX),
            (long long)c->max_position);
    if (o->sequence < 1 || o->sequence >= o->total)
        return dr_fail(
            DR_EUSAGE,
            "sequence_length %lld: expected 1 to %lld (total_sequence_length less "
            "one)",
            (long long)o->sequence, (long long)(o->total - 1));
    if (o->genai && (o->sequence < 2 || o->total < 2 * o->sequence))
        return dr_fail(DR_EUSAGE,
                       "sequence_length %lld of %lld: ORT GenAI's windows need 2 or more, "
                       "and twice as many tokens in all",
                       (long long)o->sequence, (long long)o->total);
    return DR_OK;
}

/* What no graph of fixed shapes has a part for. */
static dr_status check_family(const hf_config *c)
{
    const char *what = NULL;

    if (c->norm_kind != HF_NORM_KIND_RMS)
        what = "norms with a mean";
    else if (c->qk_norm == HF_QK_NORM_ROW)
        what = "norms over all heads of a token";
    else if (c->parallel)
        what = "attention and MLP side by side";
    else if (!c->gated)
        what = "an MLP without a gate";
    else if (c->experts.count > 0)
        what = "experts";
    else if (c->sinks)
        what = "attention sinks";
    else if (c->head_bias)
        what = "a bias of the head";
    if (what == NULL)
        return DR_OK;
    return dr_fail(DR_EUNSUPPORTED, "%s has %s, which graphs of fixed shapes have not",
                   c->arch_name, what);
}

static dr_status check(const npu_builder *b)
{
    const onnx_npu_options *o = b->o;
    const int bits = o->weight_bits;
    dr_status st = DR_OK;

    DR_BUG_IF(o->form == ONNX_NPU_QDQ && o->ranges == NULL);
    DR_BUG_IF(o->windowed && o->form != ONNX_NPU_QDQ);
    DR_BUG_IF(o->genai && !o->windowed);
    DR_BUG_IF(bits != 32 && bits != 8 && bits != 4 && bits != 0);
    DR_TRY(check_family(b->c));
    DR_TRY(check_sizes(b->c, o));
    if (o->form != ONNX_NPU_FLOAT && hf_model_quant(b->m).method != HF_QUANT_NONE)
        dr_warn_result("weights that were packed (%s) are rounded again: a scale for each "
                       "output",
                       hf_model_origin(b->m));
    if (b->c->rope.kind == HF_ROPE_LONGROPE)
        onnx_note(b->report, "longrope: the %s factors, which hold for %lld tokens",
                  o->total > b->c->rope.original_max ? "long" : "short",
                  (long long)o->total);
done:
    return st;
}

/* ---- inputs ---- */

static onnx_type id_type(const npu_builder *b)
{
    return b->o->windowed ? ONNX_INT32 : ONNX_INT64;
}

/* How far below a score the mask must be, whatever the layer. */
static float mask_size(npu_builder *b)
{
    float most = 0;

    if (b->o->form != ONNX_NPU_QDQ)
        return FLOAT_MASK;
    for (int i = 0; i < b->c->layers; i++) {
        float least = 0, largest = 0;
        npu_range(b, npu_scores(b, i), &least, &largest);
        most = largest - least > most ? largest - least : most;
    }
    return most + NPU_HIDDEN;
}

/* [B, 1, 1, T]: M where there is a token, else 0. */
static npu_value padding(npu_builder *b)
{
    const int64_t batch = b->o->batch, total = b->o->total;
    onnx_shape shape = npu_shape(2, batch, total, 0, 0);
    npu_value pair[2] = {{.name = "attention_mask"}};

    onnx_node *n = npu_node(b, "Cast", "/model/mask/Cast", pair, 1);
    onnx_attr_int(&b->g, n, "to", ONNX_FLOAT);
    pair[0] = npu_settle_in(b, n, shape, 0, 1);
    pair[1] = npu_const(b, "model.mask.size", &b->mask, npu_shape(1, 1, 0, 0, 0));
    n = npu_node(b, "Mul", "/model/mask/Mul", pair, 2);
    pair[0] = npu_settle_in(b, n, shape, 0, b->mask);
    return npu_reshape(b, "/model/mask/Reshape", &pair[0],
                       npu_shape(4, batch, 1, 1, total));
}

/* [B, 1, S, T]; window 0: none. */
static dr_status causal(npu_builder *b, npu_value *out, const char *name,
                        const npu_value *pad, int64_t window)
{
    const int64_t total = b->o->total, rows = b->seq;
    npu_value pair[2] = {*pad};
    void *p = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&p, (size_t)(rows * total), sizeof(float), "causal mask"));
    float *values = p;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t at = b->past + i;
        for (int64_t j = 0; j < total; j++) {
            bool seen = j <= at && (window == 0 || at - j < window);
            values[i * total + j] = seen ? -b->mask : -2 * b->mask;
        }
    }
    pair[1] = npu_const(b, dr_arena_printf(b->arena, "model.mask.%s", name), values,
                        npu_shape(4, 1, 1, rows, total));
    onnx_node *n =
        npu_node(b, "Add", dr_arena_printf(b->arena, "/model/mask/%s/Add", name), pair, 2);
    *out = npu_settle_in(b, n, npu_shape(4, b->o->batch, 1, rows, total), -b->mask, 0);
done:
    dr_big_free(p);
    return st;
}

/* Rows of a table [T, rotary_dim] for position_ids, as [B, 1, S, rotary_dim]. */
static npu_value positions(npu_builder *b, const char *name, const float *table,
                           int64_t rotary)
{
    const char *path = dr_arena_printf(b->arena, "/model/rotary/%s", name);
    const npu_value in[2] = {npu_const(b,
                                       dr_arena_printf(b->arena, "model.rotary.%s", name),
                                       table, npu_shape(2, b->o->total, rotary, 0, 0)),
                             {.name = "position_ids"}};
    onnx_node *n = npu_node(b, "Gather", npu_path(b, path, "Gather"), in, 2);
    const npu_value rows =
        npu_moved(b, n, npu_shape(3, b->o->batch, b->seq, rotary, 0), &in[0]);

    return npu_reshape(b, npu_path(b, path, "Reshape"), &rows,
                       npu_shape(4, b->o->batch, 1, b->seq, rotary));
}

/* Both halves of a row; the first half of the sine is for -x2 of rotate_half. */
static dr_status rotary(npu_builder *b, npu_rotation *out, const hf_rope *r,
                        const char *suffix)
{
    const size_t half = (size_t)r->rotary_dim / 2, rows = (size_t)b->o->total;
    const size_t n = rows * half;
    void *p = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&p, 6 * n, sizeof(float), "tables of rotary positions"));
    float *cos_half = p, *sin_half = cos_half + n;
    float *cos_all = sin_half + n, *sin_all = cos_all + 2 * n;
    hf_rope_tables(r, b->o->total > r->original_max, rows, cos_half, sin_half);
    for (size_t i = 0; i < n; i++) {
        const size_t at = i / half * 2 * half + i % half;
        cos_all[at] = cos_all[at + half] = cos_half[i];
        sin_all[at] = -sin_half[i];
        sin_all[at + half] = sin_half[i];
    }
    out->cos =
        positions(b, dr_arena_printf(b->arena, "cos%s", suffix), cos_all, r->rotary_dim);
    out->sin =
        positions(b, dr_arena_printf(b->arena, "sin%s", suffix), sin_all, r->rotary_dim);
done:
    dr_big_free(p);
    return st;
}

/* Of those rotations that some layer has. */
static dr_status rotations(npu_builder *b)
{
    const hf_rope *const kinds[2] = {&b->c->rope, &b->c->rope_local};
    dr_status st = DR_OK;

    for (int k = 0; k < 2; k++) {
        bool used = false;
        for (int i = 0; i < b->c->layers; i++)
            used = used || hf_layer_rope(b->c, i) == kinds[k];
        if (used)
            DR_TRY(rotary(b, &b->rotation[k], kinds[k], k == 0 ? "" : "_local"));
    }
done:
    return st;
}

static dr_status inputs(npu_builder *b)
{
    onnx_shape ids = npu_shape(2, b->o->batch, b->seq, 0, 0);
    const int64_t window = b->c->sliding_window;
    dr_status st = DR_OK;

    onnx_graph_input(&b->g, "input_ids", id_type(b), ids);
    onnx_graph_input(&b->g, "attention_mask", id_type(b),
                     npu_shape(2, b->o->batch, b->o->total, 0, 0));
    onnx_graph_input(&b->g, "position_ids", id_type(b), ids);
    b->mask = mask_size(b);
    const npu_value pad = padding(b);
    DR_TRY(causal(b, &b->bias[0], "causal", &pad, 0));
    if (window > 0 && window < b->o->total)
        DR_TRY(causal(b, &b->bias[1], "window", &pad, window));
    DR_TRY(rotations(b));
done:
    return st;
}

/* ---- a graph ---- */

static dr_status decoder(npu_builder *b)
{
    dr_progress progress;
    npu_value x;
    dr_status st = DR_OK;

    dr_progress_begin(&progress, b->seq == 1 ? "token graph" : "prompt graph", "layers",
                      (size_t)b->c->layers);
    DR_TRY(inputs(b));
    DR_TRY(npu_embedding(b, &x));
    x = npu_scaled(b, "/model/embed_tokens/scale", &x, b->c->embed_scale, NULL);
    for (int i = 0; i < b->c->layers; i++) {
        DR_TRY(dr_cancelled_check());
        DR_TRYF(npu_layer(b, &x, i), "building layer %d of %d", i, b->c->layers);
        dr_progress_step(&progress, (size_t)i + 1, NULL);
    }
    DR_TRY(npu_norm(b, &x, "/model/norm", HF_NORM_FINAL, 0, &x));
    DR_TRY(npu_head(b, &x));
done:
    dr_progress_end(&progress);
    return st;
}

static void meta(npu_builder *b)
{
    const onnx_npu_options *o = b->o;

    if (o->quant_type == NULL)
        return;
    onnx_graph_meta(&b->g, "architectures", b->c->arch_name);
    onnx_graph_meta(&b->g, "model_type", b->c->model_type);
    onnx_graph_meta(&b->g, "activation_type", o->value_bits == 8 ? "QUInt8" : "QUInt16");
    onnx_graph_meta(&b->g, "weight_type", o->weight_bits == 8 ? "QInt8" : "QInt4");
    onnx_graph_meta(&b->g, "quant_type", o->quant_type);
}

static dr_status write_graph(npu_builder *b, const char *dir, bool token)
{
    const char *file = dr_path_join(b->arena, dir, onnx_npu_file(b->arena, b->o, token));
    uint64_t bytes = 0;
    dr_status st = DR_OK;

    b->seq = token ? 1 : b->o->sequence;
    b->past = b->o->total - b->seq;
    b->data->g = &b->g;
    meta(b);
    DR_TRY(decoder(b));
    DR_TRY(onnx_graph_write(&b->g, file, DATA_NAME, &bytes));
    b->report->graph_bytes += bytes;
    b->report->nodes += b->g.nodes.count;
    b->report->initializers += b->g.inits.count;
    b->report->opset = NPU_OPSET;
done:
    return st;
}

dr_status onnx_npu_build(onnx_report *report, const char *dir, const hf_model *m,
                         dr_pool *pool, const onnx_npu_options *o)
{
    dr_arena arena = {0};
    onnx_data data = {.w = {.fd = -1}};
    npu_builder fresh = {.arena = &arena,
                         .g = {.arena = &arena, .opset = NPU_OPSET},
                         .data = &data,
                         .m = m,
                         .c = hf_model_config(m),
                         .o = o,
                         .report = report};
    npu_builder prompt = fresh, token = fresh;
    dr_status st = DR_OK;

    *report = (onnx_report){0};
    DR_TRY(check(&fresh));
    DR_TRY(onnx_data_open(&data, &prompt.g, pool, ONNX_FLOAT,
                          dr_path_join(&arena, dir, DATA_NAME)));
    if (o->sequence > 1) {
        DR_TRY(write_graph(&prompt, dir, false));
        token.before = &prompt.g;
    }
    if (o->form != ONNX_NPU_CALIBRATE || o->sequence == 1)
        DR_TRY(write_graph(&token, dir, true));
    DR_TRY(onnx_data_finish(&data, &report->data_bytes));
    if (o->genai)
        DR_TRY(npu_genai_write(m, dir, o, onnx_npu_file(&arena, o, false),
                               onnx_npu_file(&arena, o, true), report));
done:
    onnx_data_close(&data);
    dr_arena_release(&arena);
    if (st != DR_OK)
        onnx_report_release(report);
    return st;
}
