/*
 * npu_pass.c - the NpuModelBuilder pass: a Hugging Face model as graphs of fixed shapes for
 * QNN, OpenVINO and VitisAI, run before they are handed on.
 *
 * What it stands for in Olive: ModelBuilder, GraphSurgeries, MatMulNBitsToQDQ,
 * OnnxStaticQuantization, DynamicToFixedShape and StaticLLM, one after the other.  The
 * graphs are built in their last form here.
 */
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "core/mem.h"
#include "pass/export_impl.h"
#include "pass/npu_export_impl.h"
#include "pass/shared_impl.h"

enum {
    MARGIN_BYTES = 64 << 20,
    SEQUENCE = 64, /* Olive's StaticLLM and its recipes for QNN */
    TOTAL = 512,
    DIMS_MAX = 8,
    BLOCK_CPU = 32,
    BLOCK_NPU = 128
};

typedef enum { QNN, OPENVINO, VITISAI } target;
typedef enum { FP32, INT8, INT4 } precision;

typedef struct {
    int provider;
    int device;
    int precision;
    int int4_block_size;
    int activation_type;
    bool use_qdq_encoding;
    const char *dim_param;
    const char *dim_value;
    bool use_ort_genai;
} npu;

static const char *const providers[] = {"QNNExecutionProvider", "OpenVINOExecutionProvider",
                                        "VitisAIExecutionProvider", NULL};
static const char *const devices[] = {"cpu", "npu", NULL};
static const char *const precisions[] = {"fp32", "int8", "int4", NULL};
static const char *const types[] = {"QUInt8", "QUInt16", NULL};

static const dr_param params[] = {
    DR_CHOICE(npu, provider, .dflt = "QNNExecutionProvider", .choices = providers,
              .help = "whose operators and types the graphs have"),
    DR_CHOICE(npu, device, .dflt = "npu", .choices = devices,
              .help = "cpu: smaller blocks of 4-bit weights (OpenVINO)"),
    DR_CHOICE(npu, precision, .dflt = "null", .choices = precisions,
              .help = "weights; default: int8, OpenVINO fp32, int4 on a quantized base"),
    DR_INT(npu, int4_block_size, .dflt = "0", .min = -1, .max = 256,
           .help = "4-bit weights that share a scale (OpenVINO); -1: all of an output"),
    DR_CHOICE(npu, activation_type, .dflt = "QUInt16", .choices = types,
              .help = "what values are rounded to"),
    DR_BOOL(npu, use_qdq_encoding, .dflt = "false",
            .help = "round values for OpenVINO, too; the others always do"),
    DR_STR(npu, dim_param, .dflt = "null",
           .help = "dims to fix: batch_size,sequence_length,total_sequence_length"),
    DR_STR(npu, dim_value, .dflt = "null", .help = "their sizes (default: 1,64,512)"),
    DR_BOOL(npu, use_ort_genai, .dflt = "false",
            .help = "genai_config.json and tokenizer for onnxruntime-genai (QNN)"),
};

/* ---- sizes ---- */

static dr_status set_dim(onnx_npu_options *o, int64_t *past, const char *name,
                         const char *value)
{
    int64_t *const fields[] = {&o->batch, &o->sequence, past, &o->total};
    static const char *const names[] = {"batch_size", "sequence_length",
                                        "past_sequence_length", "total_sequence_length"};
    size_t i = 0;
    char *end = NULL;

    while (i < DR_COUNT(names) && strcmp(name, names[i]) != 0)
        i++;
    if (i == DR_COUNT(names))
        return dr_fail(DR_EUSAGE,
                       "dim %s: expected batch_size, sequence_length, past_sequence_length "
                       "or total_sequence_length",
                       name);
    const long long v = strtoll(value, &end, 10);
    if (end == value || *end != '\0' || v < 0)
        return dr_fail(DR_EUSAGE, "%s: expected a size, found \"%s\"", name, value);
    *fields[i] = v;
    return DR_OK;
}

dr_status npu_dims(onnx_npu_options *o, const char *names, const char *values)
{
    const char **name = NULL, **value = NULL;
    const onnx_npu_options before = *o;
    size_t count = 0, value_count = 0;
    int64_t past = -1;
    dr_arena a = {0};
    dr_status st = DR_OK;

    o->total = -1;
    name = pass_words(&count, &a, names, ", ");
    value = pass_words(&value_count, &a, values, ", ");
    if (count > DIMS_MAX || value_count > DIMS_MAX)
        DR_FAIL(DR_EUSAGE, "more than %d dims to fix", DIMS_MAX);
    if (count != value_count)
        DR_FAIL(DR_EUSAGE, "%zu dims to fix, but %zu sizes", count, value_count);
    for (size_t i = 0; i < count; i++)
        DR_TRY(set_dim(o, &past, name[i], value[i]));
    if (past >= 0 && o->total >= 0 && past + o->sequence != o->total)
        DR_FAIL(DR_EUSAGE,
                "total_sequence_length %lld is not past_sequence_length %lld and "
                "sequence_length %lld",
                (long long)o->total, (long long)past, (long long)o->sequence);
    if (o->total < 0)
        o->total = past >= 0 ? past + o->sequence : before.total;
done:
    dr_arena_release(&a);
    return st;
}

/* ---- the pass ---- */

static bool rounds(const npu *c)
{
    return c->provider != OPENVINO || c->use_qdq_encoding;
}

static onnx_npu_options defaults(const hf_config *c)
{
    onnx_npu_options o = {.batch = 1, .sequence = SEQUENCE, .total = TOTAL};

    if (c != NULL && c->max_position < TOTAL) {
        o.total = c->max_position;
        o.sequence = o.total / 2 < SEQUENCE ? o.total / 2 : SEQUENCE;
        o.sequence = o.sequence < 1 ? 1 : o.sequence;
    }
    return o;
}

static bool was_given(const unsigned char *given, const char *name)
{
    return dr_param_given(params, DR_COUNT(params), given, name);
}

static dr_status validate(const void *config, const unsigned char *given)
{
    const npu *c = config;
    const int b = c->int4_block_size;
    onnx_npu_options o = defaults(NULL);
    dr_status st = DR_OK;

    if (b > 0 && (b < 16 || (b & (b - 1)) != 0))
        DR_FAIL(DR_EUSAGE, "int4_block_size: expected -1, 16, 32, 64, 128 or 256, found %d",
                b);
    if (c->device == 0 && c->provider != OPENVINO)
        DR_FAIL(DR_EUSAGE, "device cpu: %s is for NPUs", providers[c->provider]);
    if (rounds(c) && c->precision == FP32)
        DR_FAIL(DR_EUSAGE, "precision fp32: %s; use int8 or int4",
                c->provider == OPENVINO ? "use_qdq_encoding rounds weights"
                                        : "an NPU's weights are rounded");
    if (was_given(given, "int4_block_size") && (rounds(c) || c->precision == INT8))
        DR_FAIL(DR_EUSAGE, "int4_block_size has no effect: weights have a scale an output");
    if (was_given(given, "activation_type") && !rounds(c))
        DR_FAIL(DR_EUSAGE, "activation_type has no effect without use_qdq_encoding");
    if (c->use_ort_genai && c->provider != QNN) {
        st = dr_fail(DR_EUSAGE,
                     "use_ort_genai: onnxruntime-genai runs fixed shapes on QNN "
                     "and the CPU, not on %s",
                     providers[c->provider]);
        dr_hint("leave it out: the graphs run in onnxruntime itself");
        goto done;
    }
    DR_TRY(npu_dims(&o, c->dim_param, c->dim_value));
done:
    return st;
}

static int weight_bits(const npu *c, const hf_model *m)
{
    const bool packed = hf_model_quant(m).method != HF_QUANT_NONE;

    if (c->precision == INT8)
        return 8;
    if (c->precision == INT4)
        return 4;
    if (c->precision == FP32)
        return 32;
    if (rounds(c))
        return packed && hf_model_quant(m).bits <= 4 ? 4 : 8;
    return packed ? 0 : 32;
}

static dr_status options_of(onnx_npu_options *o, const npu *c, const pass_model *in,
                            const hf_model *m)
{
    const bool packed = hf_model_quant(m).method != HF_QUANT_NONE;
    dr_status st = DR_OK;

    *o = defaults(hf_model_config(m));
    if (packed && c->precision == FP32)
        DR_FAIL(DR_EUSAGE, "precision fp32: %s is quantized (%s); leave precision out",
                in->name, hf_model_origin(m));
    if (in->adapter_count > 0) {
        st = dr_fail(DR_EUNSUPPORTED,
                     "%s has an adapter, which graphs of fixed shapes for "
                     "an NPU have no inputs for",
                     in->name);
        dr_hint("merge the adapter into the model first");
        goto done;
    }
    DR_TRY(npu_dims(o, c->dim_param, c->dim_value));
    o->form = rounds(c) ? ONNX_NPU_QDQ : ONNX_NPU_FLOAT;
    o->windowed = c->provider != OPENVINO;
    o->weight_bits = weight_bits(c, m);
    if (packed && !rounds(c) && c->precision == INT4 && c->int4_block_size == 0)
        o->weight_bits = 0;
    o->block_size = rounds(c) ? -1 : c->int4_block_size;
    if (o->block_size == 0)
        o->block_size = c->device == 1 ? BLOCK_NPU : BLOCK_CPU;
    o->value_bits = c->activation_type == 0 ? 8 : 16;
    o->genai = c->use_ort_genai;
    o->provider = c->provider == QNN ? "QNN" : NULL;
    o->quant_type = c->provider == VITISAI ? "QDQ" : NULL;
done:
    return st;
}

static dr_status tell(const pass_job *job, const onnx_report *r, const onnx_npu_options *o,
                      const npu *c)
{
    const bool rounded = o->form == ONNX_NPU_QDQ;
    json_t *j = job->report;
    dr_status st = DR_OK;

    for (size_t i = 0; i < r->note_count; i++)
        dr_log(DR_INFO, "%s", r->notes[i]);
    DR_TRY(dr_buf_addf(job->text, "target         %s\n", providers[c->provider]));
    DR_TRY(dr_buf_addf(job->text, "shapes         batch %lld, sequence %lld, total %lld\n",
                       (long long)o->batch, (long long)o->sequence, (long long)o->total));
    for (int token = o->sequence == 1; token < 2; token++)
        DR_TRY(dr_buf_addf(job->text, "graph          %s\n",
                           onnx_npu_file(job->arena, o, token == 1)));
    DR_TRY(dr_buf_addf(job->text, "values         %s\n",
                       rounded ? types[c->activation_type] : "float"));
    DR_TRY(dr_buf_addf(job->text, "weights        %llu bytes, %s\n",
                       (unsigned long long)r->data_bytes,
                       o->weight_bits == 0    ? "as packed"
                       : o->weight_bits == 32 ? "float"
                       : o->weight_bits == 8  ? "8 bit"
                                              : "4 bit"));
    DR_TRY(dr_buf_addf(job->text, "graphs         %zu nodes, opset %d, %llu bytes\n",
                       r->nodes, r->opset, (unsigned long long)r->graph_bytes));
    json_object_set_new(j, "provider", json_string(providers[c->provider]));
    json_object_set_new(j, "batch_size", json_integer(o->batch));
    json_object_set_new(j, "sequence_length", json_integer(o->sequence));
    json_object_set_new(j, "total_sequence_length", json_integer(o->total));
    json_object_set_new(j, "nodes", json_integer((json_int_t)r->nodes));
    json_object_set_new(j, "graph_bytes", json_integer((json_int_t)r->graph_bytes));
    json_object_set_new(j, "weight_bytes", json_integer((json_int_t)r->data_bytes));
done:
    return st;
}

/* Values are measured on text; comparing only wants it. */
static dr_status open_tokenizer(tok_tokenizer **out, const pass_job *job, const hf_model *m,
                                bool needed)
{
    dr_status st = DR_OK;

    if (!needed && !job->check)
        return DR_OK;
    st = pass_open_tokenizer(out, m,
                             "rounded values need text: without a tokenizer only "
                             "OpenVINOExecutionProvider without use_qdq_encoding goes");
    if (st == DR_EUNSUPPORTED && !needed) {
        dr_trail_clear();
        return DR_OK;
    }
    DR_TRYF(st, "reading the tokenizer, which calibration needs");
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const npu *c = job->config;
    const char *dir = dr_path_join(job->arena, job->out_dir, "model");
    const char *scratch = dr_path_join(job->arena, job->out_dir, "calibration");
    npu_check check = {.dir = dir, .provider = providers[c->provider]};
    onnx_npu_options o;
    onnx_report report = {0};
    tok_tokenizer *tok = NULL;
    hf_model *m = NULL;
    dr_pool *pool = NULL;
    dr_status st = DR_OK;

    DR_TRYF(hf_model_open(&m, in->path), "opening the model to export");
    DR_TRY(options_of(&o, c, in, m));
    DR_TRY(open_tokenizer(&tok, job, m, o.form == ONNX_NPU_QDQ));
    DR_TRY(dr_pool_open(&pool, job->threads));
    DR_TRY(dr_make_dirs(dir));
    if (o.form == ONNX_NPU_QDQ)
        DR_TRYF(npu_calibrate(job, scratch, &check.float_graph, &o, m, pool, tok),
                "calibrating");
    DR_TRYF(onnx_npu_build(&report, dir, m, pool, &o), "writing ONNX");
    DR_TRY(tell(job, &report, &o, c));
    check.o = &o;
    check.t = tok;
    if (job->check)
        DR_TRY(npu_check_run(job, &check));
    else
        DR_TRY(pass_tell_not_checked(job, "--no_check"));
    DR_TRY(dr_remove_tree(scratch));
    *out = (pass_model){.kind = PASS_MODEL_ONNX, .path = dir, .name = in->name};
done:
    onnx_report_release(&report);
    dr_pool_close(pool);
    tok_close(tok);
    hf_model_close(m);
    return st;
}

static dr_status estimate(const pass_job *job, const pass_model *in, pass_need *need)
{
    const npu *c = job->config;
    hf_model *m = NULL;
    dr_status st = DR_OK;

    DR_TRY(hf_model_open(&m, in->path));
    const hf_config *cfg = hf_model_config(m);
    const uint64_t embed = pass_embed_elements(cfg);
    const uint64_t linears = pass_layer_elements(cfg) * (uint64_t)cfg->layers;
    const uint64_t floats = 4 * (linears + (cfg->tied ? 1 : 2) * embed);
    const int bits = weight_bits(c, m);
    need->disk = bits == 32 ? floats : linears * (bits == 8 ? 8 : 5) / 8 + 4 * embed;
    if (rounds(c)) /* the float graph that is measured */
        need->disk += floats;
    need->disk += MARGIN_BYTES;
    need->memory = 5 * embed + MARGIN_BYTES;
    if ((job->check || rounds(c)) &&
        need->memory < need->disk) /* the runtime has it whole */
        need->memory = need->disk;
done:
    hf_model_close(m);
    return st;
}

extern const pass_def pass_npu; /* PASS(npu) in pass/passes.def */
const pass_def pass_npu = {
    .name = "NpuModelBuilder",
    .version = 1,
    .summary = "decoder models as graphs of fixed shapes for QNN, OpenVINO and VitisAI",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_ONNX,
    .config_size = sizeof(npu),
    .params = params,
    .params_count = DR_COUNT(params),
    .needs_data = true,
    .validate = validate,
    .estimate = estimate,
    .run = run,
};
