/*
 * api_inspect.c - what a model folder or file holds.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "api/drupe_impl.h"
#include "core/file.h"
#include "core/json.h"
#include "hf/hf.h"
#include "onnx/onnx.h"

static dr_status line(drupe_result *r, const char *key, const char *fmt, ...)
    DR_PRINTF(3, 4);

/* One line for people; the same text into the report. */
static dr_status line(drupe_result *r, const char *key, const char *fmt, ...)
{
    char text[1024];
    va_list va;

    va_start(va, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, va);
    va_end(va);
    json_object_set_new(r->report, key, json_string(text));
    return dr_buf_addf(&r->text, "%-16s %s\n", key, text);
}

static dr_status number(drupe_result *r, const char *key, int64_t v)
{
    json_object_set_new(r->report, key, json_integer((json_int_t)v));
    return dr_buf_addf(&r->text, "%-16s %lld\n", key, (long long)v);
}

static dr_status inspect_hf(drupe_result *r, const char *path)
{
    static const char *const ropes[] = {"default", "linear", "llama3", "longrope"};
    hf_model *m = NULL;
    dr_status st = DR_OK;

    DR_TRY(hf_model_open(&m, path));
    const hf_config *c = hf_model_config(m);
    hf_quant q = hf_model_quant(m);
    DR_TRY(line(r, "kind", "%s", hf_model_is_gguf(m) ? "GGUF file" : "Hugging Face model"));
    DR_TRY(line(r, "architecture", "%s", c->arch_name));
    DR_TRY(line(r, "weights", "%s", hf_model_origin(m)));
    DR_TRY(number(r, "weight_bytes", (int64_t)hf_model_weight_bytes(m)));
    DR_TRY(number(r, "tensors", (int64_t)hf_tensor_count(m)));
    DR_TRY(number(r, "layers", c->layers));
    DR_TRY(number(r, "hidden_size", c->hidden));
    DR_TRY(number(r, "intermediate", c->intermediate));
    DR_TRY(number(r, "heads", c->heads));
    DR_TRY(number(r, "kv_heads", c->kv_heads));
    DR_TRY(number(r, "head_dim", c->head_dim));
    DR_TRY(number(r, "vocabulary", c->vocab));
    DR_TRY(number(r, "context", c->max_position));
    DR_TRY(line(r, "rope", "%s, theta %g", ropes[c->rope.kind], c->rope.theta));
    DR_TRY(line(r, "tied_embeddings", "%s", c->tied ? "yes" : "no"));
    if (q.method != HF_QUANT_NONE)
        DR_TRY(line(r, "quantization", "%d bits, group %d, %s", q.bits, q.group,
                    q.symmetric ? "symmetric" : "zero points"));
done:
    hf_model_close(m);
    return st;
}

static dr_status inspect_adapter(drupe_result *r, const char *path)
{
    hf_adapter ad = {0};
    size_t parameters = 0;
    dr_status st = DR_OK;

    DR_TRY(hf_adapter_open(&ad, path, NULL));
    for (size_t i = 0; i < ad.count; i++)
        parameters += (size_t)ad.modules[i].r * (ad.modules[i].n_in + ad.modules[i].n_out);
    DR_TRY(line(r, "kind", "LoRA adapter (PEFT)"));
    DR_TRY(number(r, "rank", ad.r));
    DR_TRY(line(r, "alpha", "%g", ad.alpha));
    DR_TRY(number(r, "modules", (int64_t)ad.count));
    DR_TRY(number(r, "parameters", (int64_t)parameters));
    if (ad.count > 0)
        DR_TRY(line(r, "first_module", "%s", ad.modules[0].module));
done:
    hf_adapter_release(&ad);
    return st;
}

static dr_status list(drupe_result *r, const char *key, const char *const *items, size_t n)
{
    json_t *j = json_array();
    dr_status st = DR_OK;

    json_object_set_new(r->report, key, j);
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(j, json_string(items[i]));
        if (i < 8)
            DR_TRY(dr_buf_addf(&r->text, "%-16s %s\n", i ? "" : key, items[i]));
        else if (i == 8)
            DR_TRY(dr_buf_addf(&r->text, "%-16s ... %zu in all\n", "", n));
    }
done:
    return st;
}

static dr_status inspect_onnx(drupe_result *r, dr_arena *a, const char *path)
{
    onnx_info info = {0};
    json_t *ops = json_object();
    dr_status st = DR_OK;

    json_object_set_new(r->report, "operators", ops);
    DR_TRY(onnx_inspect(a, &info, path));
    DR_TRY(line(r, "kind", "ONNX model"));
    DR_TRY(number(r, "ir_version", info.ir_version));
    DR_TRY(line(r, "producer", "%s", info.producer ? info.producer : ""));
    DR_TRY(list(r, "opsets", info.opsets, info.opset_count));
    DR_TRY(list(r, "inputs", info.inputs, info.input_count));
    DR_TRY(list(r, "outputs", info.outputs, info.output_count));
    DR_TRY(number(r, "initializers", (int64_t)info.initializer_count));
    DR_TRY(number(r, "inline_bytes", (int64_t)info.initializer_bytes));
    DR_TRY(number(r, "external_bytes", (int64_t)info.external_bytes));
    for (size_t i = 0; i < info.op_count; i++) {
        api_set_int(ops, info.ops[i], info.op_counts[i]);
        DR_TRY(dr_buf_addf(&r->text, "%-16s %6zu %s\n", i ? "" : "operators",
                           info.op_counts[i], info.ops[i]));
    }
done:
    return st;
}

/* What lies at path decides; a result folder stands for its model/. */
static dr_status inspect(drupe_result *r, dr_arena *a, const char *path)
{
    size_t n = strlen(path);
    const char *model = dr_path_join(a, path, "model");
    const char *found = path;
    dr_status st = DR_OK;

    if (n > 5 && strcmp(path + n - 5, ".onnx") == 0)
        return inspect_onnx(r, a, path);
    if (dr_is_file(dr_path_join(a, path, "adapter_config.json")))
        return inspect_adapter(r, path);
    if (dr_is_file(dr_path_join(a, path, "model.onnx")))
        return inspect_onnx(r, a, dr_path_join(a, path, "model.onnx"));
    if (dr_is_file(dr_path_join(a, model, "model.onnx")))
        return inspect_onnx(r, a, dr_path_join(a, model, "model.onnx"));
    DR_TRY(hf_resolve(a, &found, path));
    DR_TRY(inspect_hf(r, found));
done:
    return st;
}

drupe_status drupe_inspect(drupe_result **out, const char *path)
{
    drupe_result *r = api_result_new();
    dr_arena a = {0};
    dr_status st = DR_OK;

    *out = NULL;
    dr_trail_clear();
    DR_TRY(inspect(r, &a, path));
    api_result_seal(r);
    *out = r;
    r = NULL;
done:
    drupe_result_free(r);
    dr_arena_release(&a);
    return (drupe_status)st;
}
