/*
 * build_model.c - onnx_build: options checked, the graph and its weights in one pass, then
 * the small files beside them.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "onnx/build_impl.h"

#define DATA_NAME "model.onnx.data"

bool onnx_before(const onnx_builder *b, int minor)
{
    return b->o->min_ort_minor > 0 && b->o->min_ort_minor < minor;
}

void onnx_note(onnx_report *r, const char *fmt, ...)
{
    char text[512];
    va_list va;

    va_start(va, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, va);
    va_end(va);
    const char **notes = dr_arena_alloc(&r->notes_arena, r->note_count + 1, sizeof(*notes));
    if (r->note_count > 0)
        memcpy(notes, r->notes, r->note_count * sizeof(*notes));
    notes[r->note_count++] = dr_arena_strdup(&r->notes_arena, text);
    r->notes = notes;
}

void onnx_report_release(onnx_report *r)
{
    dr_arena_release(&r->notes_arena);
    *r = (onnx_report){0};
}

/* ---- options ---- */

static dr_status check_rounding(const onnx_builder *b)
{
    const onnx_options *o = b->o;
    int bits = onnx_precision_bits(o->precision);
    bool bytes = bits == 8 || o->head_bits == 8 || o->mix != ONNX_MIX_NONE;

    if (o->block_size < ONNX_BLOCK_MIN || o->block_size > ONNX_BLOCK_MAX ||
        (o->block_size & (o->block_size - 1)) != 0)
        return dr_fail(DR_EUSAGE, "block size %d: expected 16, 32, 64, 128 or 256",
                       o->block_size);
    if (o->head_bits != 0 && o->head_bits != 4 && o->head_bits != 8)
        return dr_fail(DR_EUSAGE, "%d bits for lm_head: expected 4 or 8", o->head_bits);
    if (o->accuracy_level < 0 || o->accuracy_level > 4)
        return dr_fail(DR_EUSAGE, "accuracy level %d: expected 0 to 4", o->accuracy_level);
    if (bytes && !onnx_uses_qdq(b) && onnx_before(b, ONNX_SINCE_BYTES))
        return dr_fail(DR_EUNSUPPORTED, "8-bit weights%s need onnxruntime 1.%d, not 1.%d",
                       bits == 8 ? "" : " (lm_head)", ONNX_SINCE_BYTES, o->min_ort_minor);
    if (bits == 2 && onnx_before(b, ONNX_SINCE_2BIT))
        return dr_fail(DR_EUNSUPPORTED, "2-bit weights need onnxruntime 1.%d, not 1.%d",
                       ONNX_SINCE_2BIT, o->min_ort_minor);
    if (bits == 2 && onnx_uses_qdq(b))
        return dr_fail(DR_EUNSUPPORTED, "DequantizeLinear has no 2-bit weights");
    return DR_OK;
}

/* Options that contradict one another. */
static dr_status check_form(const onnx_builder *b)
{
    const onnx_options *o = b->o;
    onnx_precision floats[] = {ONNX_FP32, ONNX_FP16, ONNX_BF16};
    bool cuda = o->provider == ONNX_CUDA || o->provider == ONNX_TRT_RTX;

    for (size_t i = 0; i < DR_COUNT(floats); i++) {
        if (o->precision == floats[i] && o->qdq)
            return dr_fail(DR_EUSAGE, "qdq: a graph in %s has nothing that is packed",
                           onnx_precision_name(o->precision));
    }
    if (o->webgpu_fp32 && o->provider != ONNX_WEBGPU)
        return dr_fail(DR_EUSAGE, "webgpu_fp32: the provider is %s", b->target->name);
    if (o->cuda_bf16 && !cuda)
        return dr_fail(DR_EUSAGE, "cuda_bf16: the provider is %s", b->target->name);
    if (o->cuda_graph && !cuda)
        return dr_fail(DR_EUSAGE, "cuda_graph: the provider is %s", b->target->name);
    if (o->exclude_lm_head && (o->include_hidden_states || o->prune_lm_head))
        return dr_fail(DR_EUSAGE, "exclude_lm_head leaves nothing for %s",
                       o->prune_lm_head ? "prune_lm_head" : "include_hidden_states");
    return DR_OK;
}

static dr_status check(onnx_builder *b)
{
    int64_t window = b->c->sliding_window;
    dr_status st = DR_OK;

    DR_TRY(onnx_precision_check(b->o->provider, b->o->precision));
    DR_TRY(check_form(b));
    if (onnx_precision_bits(b->o->precision) != 0)
        DR_TRY(check_rounding(b));
    if (window == 1 && onnx_before(b, ONNX_SINCE_WINDOW))
        DR_FAIL(DR_EUNSUPPORTED, "a sliding window of one token needs onnxruntime 1.%d",
                ONNX_SINCE_WINDOW);
    if (window > 0 && onnx_before(b, ONNX_SINCE_WINDOW))
        onnx_note(
            b->report,
            "the sliding window of %lld tokens is exact up to onnxruntime 1.%d; later "
            "versions attend to one token less",
            (long long)window, ONNX_SINCE_WINDOW - 1);
    if (onnx_precision_bits(b->o->precision) == 0 &&
        hf_model_quant(b->m).method != HF_QUANT_NONE)
        onnx_note(b->report, "packed weights (%s) are written as floats",
                  hf_model_origin(b->m));
done:
    return st;
}

/* ---- the model ---- */

static dr_status write_model(onnx_builder *b, const char *dir, dr_pool *pool)
{
    const char *data = dr_path_join(b->arena, dir, DATA_NAME);
    const char *graph = dr_path_join(b->arena, dir, "model.onnx");
    onnx_report *r = b->report;
    dr_status st = DR_OK;

    DR_TRY(onnx_data_open(&b->data, &b->g, pool, b->float_type, data));
    DR_TRY(onnx_build_decoder(b));
    DR_TRY(onnx_choose_check(b));
    DR_TRY(onnx_data_finish(&b->data, &r->data_bytes));
    if (b->o->splits != NULL)
        onnx_graph_meta(&b->g, "split_assignments", b->o->splits);
    DR_TRY(onnx_graph_write(&b->g, graph, DATA_NAME, &r->graph_bytes));
    r->nodes = b->g.nodes.count;
    r->initializers = b->g.inits.count;
    r->opset = b->g.opset != 0 ? b->g.opset : ONNX_OPSET;
done:
    onnx_data_close(&b->data);
    return st;
}

dr_status onnx_build(onnx_report *report, const char *dir, const hf_model *m, dr_pool *pool,
                     const onnx_options *o)
{
    dr_arena arena = {0};
    onnx_builder b = {.arena = &arena,
                      .g = {.arena = &arena},
                      .data = {.w = {.fd = -1}},
                      .m = m,
                      .c = hf_model_config(m),
                      .o = o,
                      .report = report,
                      .target = onnx_target_of(o->provider),
                      .float_type = onnx_float_type(o)};
    dr_status st = DR_OK;

    *report = (onnx_report){0};
    b.logits_type = b.float_type == ONNX_BFLOAT16 ? ONNX_FLOAT : b.float_type;
    b.excluded = dr_arena_alloc(&arena, o->exclude_count + 1, sizeof(*b.excluded));
    DR_TRY(check(&b));
    DR_TRY(onnx_join_adapters(&b));
    DR_TRY(write_model(&b, dir, pool));
    DR_TRY(onnx_write_adapters(&b, dir));
    if (o->genai)
        DR_TRY(onnx_genai_write(m, dir, o, report));
done:
    dr_arena_release(&arena);
    if (st != DR_OK)
        onnx_report_release(report);
    return st;
}
