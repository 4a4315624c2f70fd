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

static dr_status check_int4(const onnx_builder *b)
{
    const onnx_options *o = b->o;

    if (o->block_size < ONNX_BLOCK_MIN || o->block_size > ONNX_BLOCK_MAX ||
        (o->block_size & (o->block_size - 1)) != 0)
        return dr_fail(DR_EUSAGE, "block size %d: expected 16, 32, 64, 128 or 256",
                       o->block_size);
    if (o->head_bits != 0 && o->head_bits != 4 && o->head_bits != 8)
        return dr_fail(DR_EUSAGE, "%d bits for lm_head: expected 4 or 8", o->head_bits);
    if (o->head_bits == 8 && onnx_before(b, ONNX_SINCE_BYTES))
        return dr_fail(DR_EUNSUPPORTED,
                       "8-bit weights (lm_head) need onnxruntime 1.%d, not 1.%d",
                       ONNX_SINCE_BYTES, o->min_ort_minor);
    if (o->accuracy_level < 0 || o->accuracy_level > 4)
        return dr_fail(DR_EUSAGE, "accuracy level %d: expected 0 to 4", o->accuracy_level);
    return DR_OK;
}

static dr_status check(onnx_builder *b)
{
    int64_t window = b->c->sliding_window;
    dr_status st = DR_OK;

    if (b->o->precision == ONNX_INT4)
        DR_TRY(check_int4(b));
    if (window == 1 && onnx_before(b, ONNX_SINCE_WINDOW))
        DR_FAIL(DR_EUNSUPPORTED, "a sliding window of one token needs onnxruntime 1.%d",
                ONNX_SINCE_WINDOW);
    if (window > 0 && onnx_before(b, ONNX_SINCE_WINDOW))
        onnx_note(
            b->report,
            "the sliding window of %lld tokens is exact up to onnxruntime 1.%d; later "
            "versions attend to one token less",
            (long long)window, ONNX_SINCE_WINDOW - 1);
    if (b->o->precision == ONNX_FP32 && hf_model_quant(b->m).method != HF_QUANT_NONE)
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
    DR_TRY(onnx_data_finish(&b->data, &r->data_bytes));
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
                      .float_type = ONNX_FLOAT,
                      .logits_type = ONNX_FLOAT};
    dr_status st = DR_OK;

    *report = (onnx_report){0};
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
