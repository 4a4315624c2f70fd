/*
 * api_inspect.c - what a model folder or file holds.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "api/drupe_impl.h"
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "hf/hf.h"
#include "onnx/onnx.h"

dr_status api_line(drupe_result *r, const char *key, const char *fmt, ...)
{
    char text[1024];
    va_list va;

    va_start(va, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, va);
    va_end(va);
    json_object_set_new(r->report, key, json_string(text));
    return dr_buf_addf(&r->text, "%-16s %s\n", key, text);
}

dr_status api_number(drupe_result *r, const char *key, int64_t v)
{
    json_object_set_new(r->report, key, json_integer((json_int_t)v));
    return dr_buf_addf(&r->text, "%-16s %lld\n", key, (long long)v);
}

static dr_status inspect_hf(drupe_result *r, const char *path)
{
    static const char *const ropes[] = {[HF_ROPE_DEFAULT] = "default",
                                        [HF_ROPE_LINEAR] = "linear",
                                        [HF_ROPE_LLAMA3] = "llama3",
                                        [HF_ROPE_YARN] = "yarn",
                                        [HF_ROPE_LONGROPE] = "longrope"};
    hf_model *m = NULL;
    dr_status st = DR_OK;

    DR_TRY(hf_model_open(&m, path));
    const hf_config *c = hf_model_config(m);
    hf_quant q = hf_model_quant(m);
    DR_TRY(api_line(r, "kind", "%s",
                    hf_model_is_gguf(m) ? "GGUF file" : "Hugging Face model"));
    DR_TRY(api_line(r, "architecture", "%s", c->arch_name));
    DR_TRY(api_line(r, "weights", "%s", hf_model_origin(m)));
    DR_TRY(api_number(r, "weight_bytes", (int64_t)hf_model_weight_bytes(m)));
    DR_TRY(api_number(r, "tensors", (int64_t)hf_tensor_count(m)));
    DR_TRY(api_number(r, "layers", c->layers));
    DR_TRY(api_number(r, "hidden_size", c->hidden));
    DR_TRY(api_number(r, "intermediate", c->intermediate));
    DR_TRY(api_number(r, "heads", c->heads));
    DR_TRY(api_number(r, "kv_heads", c->kv_heads));
    DR_TRY(api_number(r, "head_dim", c->head_dim));
    DR_TRY(api_number(r, "vocabulary", c->vocab));
    DR_TRY(api_number(r, "context", c->max_position));
    DR_TRY(api_line(r, "rope", "%s, theta %g", ropes[c->rope.kind], c->rope.theta));
    DR_TRY(api_line(r, "tied_embeddings", "%s", c->tied ? "yes" : "no"));
    if (q.method != HF_QUANT_NONE)
        DR_TRY(api_line(r, "quantization", "%d bits, group %d, %s", q.bits, q.group,
                        q.symmetric ? "symmetric" : "zero points"));
done:
    hf_model_close(m);
    return st;
}

static dr_status inspect_adapter(drupe_result *r, const char *path)
{
    static const char *const kinds[] = {"LoRA", "LoHa", "LoKr"};
    hf_adapter ad = {0};
    size_t parameters = 0;
    dr_status st = DR_OK;

    DR_TRY(hf_adapter_open_any(&ad, path, NULL));
    for (size_t i = 0; i < ad.count; i++)
        parameters +=
            ad.kind != HF_ADAPTER_LORA
                ? hf_factor_count(&ad.modules[i])
                : (size_t)ad.modules[i].r * (ad.modules[i].n_in + ad.modules[i].n_out);
    DR_TRY(api_line(r, "kind", "%s adapter (PEFT)", ad.dora ? "DoRA" : kinds[ad.kind]));
    DR_TRY(api_number(r, "rank", ad.r));
    DR_TRY(api_line(r, "alpha", "%g", ad.alpha));
    DR_TRY(api_number(r, "modules", (int64_t)ad.count));
    DR_TRY(api_number(r, "parameters", (int64_t)parameters));
    if (ad.count > 0)
        DR_TRY(api_line(r, "first_module", "%s", ad.modules[0].module));
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
    DR_TRY(api_line(r, "kind", "ONNX model"));
    DR_TRY(api_number(r, "ir_version", info.ir_version));
    DR_TRY(api_line(r, "producer", "%s", info.producer ? info.producer : ""));
    DR_TRY(list(r, "opsets", info.opsets, info.opset_count));
    DR_TRY(list(r, "inputs", info.inputs, info.input_count));
    DR_TRY(list(r, "outputs", info.outputs, info.output_count));
    DR_TRY(api_number(r, "initializers", (int64_t)info.initializer_count));
    DR_TRY(api_number(r, "inline_bytes", (int64_t)info.initializer_bytes));
    DR_TRY(api_number(r, "external_bytes", (int64_t)info.external_bytes));
    for (size_t i = 0; i < info.op_count; i++) {
        api_set_int(ops, info.ops[i], info.op_counts[i]);
        DR_TRY(dr_buf_addf(&r->text, "%-16s %6zu %s\n", i ? "" : "operators",
                           info.op_counts[i], info.ops[i]));
    }
done:
    return st;
}

/* Whether dir holds graphs: "model.onnx", or those of fixed shapes. */
static bool has_graph(dr_arena *a, const char *dir)
{
    char **names = NULL;
    size_t count = 0;

    if (dr_is_file(dr_path_join(a, dir, "model.onnx")))
        return true;
    if (dr_is_file(dr_path_join(a, dir, "config.json")) || !dr_is_dir(dir) ||
        dr_list_dir(a, dir, &names, &count) != DR_OK) {
        dr_trail_clear();
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (dr_ends_with(names[i], ".onnx"))
            return true;
    }
    return false;
}

/* The graphs of a folder in order; the last one's members are the report's. */
static dr_status inspect_graphs(drupe_result *r, dr_arena *a, const char *dir,
                                char *const *names, size_t count)
{
    const char **graphs = dr_arena_alloc(a, count, sizeof(*graphs));
    size_t n = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++) {
        if (!dr_ends_with(names[i], ".onnx"))
            continue;
        graphs[n++] = names[i];
        DR_TRY(dr_buf_addf(&r->text, "%s\n", names[i]));
        DR_TRY(inspect_onnx(r, a, dr_path_join(a, dir, names[i])));
    }
    DR_TRY(list(r, "graphs", graphs, n));
done:
    return st;
}

/* What lies beside the graph: GenAI's config, adapters. */
static dr_status inspect_onnx_folder(drupe_result *r, dr_arena *a, const char *dir)
{
    char **names = NULL;
    const char **adapters = NULL;
    size_t count = 0, n = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_list_dir(a, dir, &names, &count));
    if (dr_is_file(dr_path_join(a, dir, "model.onnx")))
        DR_TRY(inspect_onnx(r, a, dr_path_join(a, dir, "model.onnx")));
    else
        DR_TRY(inspect_graphs(r, a, dir, names, count));
    adapters = dr_arena_alloc(a, count, sizeof(*adapters));
    for (size_t i = 0; i < count; i++) {
        if (dr_ends_with(names[i], ".onnx_adapter"))
            adapters[n++] = names[i];
    }
    bool genai = dr_is_file(dr_path_join(a, dir, "genai_config.json"));
    DR_TRY(api_line(r, "genai", "%s", genai ? "yes" : "no"));
    DR_TRY(list(r, "adapters", adapters, n));
done:
    return st;
}

/* Which passes made a result, by its drupe.json. */
static dr_status inspect_footprint(drupe_result *r, dr_arena *a, const char *dir)
{
    const char *path = dr_path_join(a, dir, "drupe.json");
    json_t *j = NULL;
    dr_status st = DR_OK;

    if (!dr_is_file(path))
        return DR_OK;
    DR_TRY(dr_json_read(&j, path));
    const json_t *passes = dr_json_get(j, "passes");
    size_t n = json_array_size(passes);
    const char **names = dr_arena_alloc(a, n, sizeof(*names));
    for (size_t i = 0; i < n; i++) {
        DR_TRY(dr_json_str(json_array_get(passes, i), "type", &names[i], path));
        if (names[i] == NULL)
            DR_FAIL(DR_EFORMAT, "%s: pass %zu has no type", path, i + 1);
    }
    DR_TRY(list(r, "made_by", names, n));
done:
    json_decref(j);
    return st;
}

/* What lies at path decides; a result folder stands for its model/. */
static dr_status inspect(drupe_result *r, dr_arena *a, const char *path)
{
    const char *model = dr_path_join(a, path, "model");
    const char *found = path;
    dr_status st = DR_OK;

    if (dr_ends_with(path, ".onnx"))
        return inspect_onnx(r, a, path);
    if (dr_ends_with(path, ".onnx_adapter"))
        return api_inspect_onnx_adapter(r, path);
    if (dr_ends_with(path, ".safetensors"))
        return api_inspect_safetensors(r, path);
    if ((dr_ends_with(path, ".bin") || dr_ends_with(path, ".pt") ||
         dr_ends_with(path, ".pth")) &&
        dr_is_file(path))
        return api_inspect_torch(r, path);
    if (dr_is_file(dr_path_join(a, path, "adapter_config.json")))
        return inspect_adapter(r, path);
    DR_TRY(inspect_footprint(r, a, path));
    if (has_graph(a, path))
        return inspect_onnx_folder(r, a, path);
    if (has_graph(a, model))
        return inspect_onnx_folder(r, a, model);
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
