/*
 * int8.c - what passes that round a graph to 8 bits have in common.
 */
#include "pass/attributes_impl.h"
#include "pass/int8_impl.h"
#include "pass/parts_impl.h"

#include <string.h>

#include "core/file.h"
#include "pass/shared_impl.h"

enum { CALIB_SAMPLES = 32, CALIB_TOKENS = 128 };

const char *const pass_int8_precisions[] = {"int8", "uint8", NULL};
const char *const pass_tristate[] = {"false", "true", NULL};

dr_status pass_int8_validate(const pass_int8 *c, const unsigned char *given)
{
    (void)given;
    if (c->op_types_to_quantize != NULL && c->op_types_to_exclude != NULL)
        return dr_fail(DR_EUSAGE, "op_types_to_quantize and op_types_to_exclude contradict "
                                  "each other");
    return DR_OK;
}

onnx_int8_options pass_int8_options(dr_arena *a, const pass_int8 *c)
{
    const bool is_signed = c->precision == 0;

    return (onnx_int8_options){
        .is_signed = is_signed,
        .symmetric = c->weight_symmetric >= 0 ? c->weight_symmetric == 1 : is_signed,
        .per_channel = c->per_channel,
        .reduce_range = c->reduce_range,
        .op_types = pass_names(a, c->op_types_to_quantize),
        .op_exclude = pass_names(a, c->op_types_to_exclude),
        .nodes = pass_names(a, c->nodes_to_quantize),
        .exclude = pass_names(a, c->nodes_to_exclude)};
}

/* ---- static ---- */

const char *const pass_activations[] = {"int8", "uint8", "int16", "uint16", NULL};
const char *const pass_methods[] = {"MinMax", "Entropy", "Percentile", NULL};
const char *const pass_formats[] = {"QDQ", "QOperator", NULL};

dr_status pass_static_validate(const void *config, const unsigned char *given)
{
    const pass_ranged_int8 *c = config;
    dr_status st = DR_OK;

    if (c->dynamic && c->fixed.activation_symmetric)
        DR_FAIL(DR_EUSAGE, "activation_symmetric: DynamicQuantizeLinear has zero points");
    DR_TRY(pass_int8_validate(&c->int8, given));
    if (c->fixed.calibrate_method != 0)
        DR_FAIL(DR_EUNSUPPORTED, "calibrate_method %s: the nearest is MinMax",
                pass_methods[c->fixed.calibrate_method]);
    if (c->fixed.quant_format != 0)
        DR_FAIL(DR_EUNSUPPORTED, "quant_format QOperator: the nearest is QDQ, which the "
                                 "runtime fuses to the same operators");
    DR_TRY(pass_external_validate(config, given));
done:
    return st;
}

/* The job's text in blocks, by the tokenizer beside the graph. */
static dr_status calibration(data_blocks *blocks, const pass_job *job, const char *dir)
{
    const char *file = dr_path_join(job->arena, dir, "tokenizer.json");
    data_options d = *job->data;
    tok_tokenizer *t = NULL;
    data_texts texts = {0};
    dr_status st = DR_OK;

    if (!dr_is_file(file)) {
        st = dr_fail(DR_EUSAGE, "%s: no tokenizer.json: calibration text cannot be read",
                     dir);
        dr_hint("export with --use_ort_genai, or put the tokenizer beside the graph");
        goto done;
    }
    d.max_seq_len = d.max_seq_len > 0 ? d.max_seq_len : CALIB_TOKENS;
    d.max_samples = d.max_samples > 0 ? d.max_samples : CALIB_SAMPLES;
    DR_TRY(tok_open(&t, dir));
    DR_TRYF(pass_text_blocks(blocks, &texts, job->arena, &d, t),
            "reading calibration text");
    DR_TRY(pass_say_losses(&texts, blocks, NULL, d.max_samples));
    json_object_set_new(job->report, "calibration",
                        pass_text_json(texts.source, &texts, blocks));
done:
    tok_close(t);
    return st;
}

/* The graph with ranges as outputs, in a folder of its own beside its weights. */
static dr_status measure(const pass_job *job, onnx_seen **seen, const char *const *names,
                         size_t count, const char *graph, const data_blocks *blocks)
{
    const char *dir = dr_path_join(job->arena, job->out_dir, "calibration");
    ort_text *texts = dr_arena_alloc(job->arena, blocks->count + 1, sizeof(*texts));
    float *least = dr_arena_alloc(job->arena, count, sizeof(*least));
    float *largest = dr_arena_alloc(job->arena, count, sizeof(*largest));
    onnx_edit *e = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_make_dirs(dir));
    DR_TRY(onnx_rewrite_open(&e, graph, dir));
    DR_TRY(onnx_add_ranges(e, names, count));
    DR_TRY(onnx_rewrite_save(e));
    DR_TRY(pass_link_external(job, dir, graph, e));
    for (size_t i = 0; i < blocks->count; i++)
        texts[i] = (ort_text){blocks->ids + i * blocks->seq_len, blocks->seq_len, 0};
    DR_TRYF(ort_text_ranges(least, largest, names, count,
                            dr_path_join(job->arena, dir, "model.onnx"), texts,
                            blocks->count, job->threads),
            "calibrating");
    *seen = dr_arena_alloc(job->arena, count, sizeof(**seen));
    for (size_t i = 0; i < count; i++)
        (*seen)[i] = (onnx_seen){names[i], least[i], largest[i]};
    DR_TRY(dr_remove_tree(dir));
done:
    onnx_rewrite_close(e);
    return st;
}

/* What MixedPrecisionOverrides said; ends with NULL. */
static dr_status wide_values(onnx_names *out, dr_arena *a, const char *attributes)
{
    json_t *all = NULL, *v;
    const char *key, **names;
    size_t count = 0;
    dr_status st = DR_OK;

    *out = NULL;
    DR_TRY(pass_read_attribute(&all, attributes, "mixed_precision_overrides"));
    names = dr_arena_alloc(a, json_object_size(all) + 1, sizeof(*names));
    json_object_foreach(all, key, v)
    {
        const char *type =
            json_string_value(json_object_get(json_array_get(v, 0), "quant_type"));
        if (type == NULL || strcmp(type, "QUInt16") != 0)
            DR_FAIL(DR_EUNSUPPORTED,
                    "mixed_precision_overrides: %s: expected QUInt16, found %s", key,
                    type != NULL ? type : dr_json_type(v));
        names[count++] = dr_arena_strdup(a, key);
    }
    *out = names;
done:
    json_decref(all);
    return st;
}

static dr_status change(onnx_edit *e, const pass_job *job, const pass_model *in)
{
    const pass_ranged_int8 *c = job->config;
    const pass_static *fixed = &c->fixed;
    const onnx_int8_options o = pass_int8_options(job->arena, &c->int8);
    onnx_activation act = {.bits = fixed->activation_type < 2 ? 8 : 16,
                           .is_signed = fixed->activation_type % 2 == 0,
                           .symmetric = fixed->activation_symmetric,
                           .min_range = fixed->min_real_range};
    const char *const *names = NULL;
    onnx_seen *seen = NULL;
    data_blocks blocks = {0};
    size_t count = 0;
    dr_status st = DR_OK;

    if (c->dynamic)
        return onnx_dynamic_int8(e, &o);
    DR_TRY(wide_values(&act.wide, job->arena, in->attributes));
    DR_TRY(onnx_static_values(e, &o, &names, &count));
    DR_TRY(calibration(&blocks, job, in->path));
    DR_TRY(measure(job, &seen, names, count, onnx_rewrite_path(e), &blocks));
    DR_TRY(onnx_static_int8(e, &o, &act, seen, count));
    DR_TRY(dr_buf_addf(job->text, "calibrated     %zu values on %zu tokens\n", count,
                       blocks.count * blocks.seq_len));
done:
    data_blocks_release(&blocks);
    return st;
}

dr_status pass_static_run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const pass_ranged_int8 *c = job->config;

    return pass_optimized(job, out, in, c->int8.quant_preprocess ? ORT_LEVEL_BASIC : -1,
                          change);
}
