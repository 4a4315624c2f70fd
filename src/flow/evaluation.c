/*
 * evaluation.c - what is judged, found: a Hugging Face model as every run finds its input,
 * or the decoder's graph of an ONNX folder.
 */
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "flow/flow_impl.h"
#include "hf/hf.h"
#include "nn/nn.h"

dr_status flow_onnx_graph(dr_arena *a, const char **file, const char *folder)
{
    const char *where = dr_path_join(a, folder, "genai_config.json"), *name = "model.onnx";
    json_t *config = NULL;
    dr_status st = DR_OK;

    if (dr_is_file(where)) {
        DR_TRY(dr_json_read(&config, where));
        DR_TRY(dr_json_str(dr_json_get(dr_json_get(config, "model"), "decoder"), "filename",
                           &name, where));
    }
    *file = dr_path_join(a, folder, name);
done:
    json_decref(config);
    return st;
}

dr_status flow_onnx_adapter(dr_arena *a, const char **path, const char *folder,
                            const char *adapter)
{
    const char *inside =
        dr_path_join(a, folder, dr_arena_printf(a, "%s.onnx_adapter", adapter));
    dr_status st = DR_OK;

    if (dr_is_file(inside)) {
        *path = inside;
    } else if (dr_is_file(adapter)) {
        *path = adapter;
    } else {
        st = dr_fail(DR_EUSAGE, "no adapter %s: neither %s nor a file of that name",
                     adapter, inside);
        dr_hint("auto-opt --adapter_path NAME=FOLDER writes NAME.onnx_adapter");
    }
    return st;
}

/* The folder's graph; NULL: there is none. */
static dr_status graph_in(const char **file, dr_arena *a, const char *folder)
{
    dr_status st = DR_OK;

    DR_TRY(flow_onnx_graph(a, file, folder));
    if (!dr_is_file(*file))
        *file = NULL;
done:
    return st;
}

static bool has_weights(dr_arena *a, const char *folder)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json",
                                        "pytorch_model.bin",
                                        "pytorch_model.bin.index.json"};

    for (size_t i = 0; i < DR_COUNT(names); i++)
        if (dr_is_file(dr_path_join(a, folder, names[i])))
            return true;
    return false;
}

/* *file NULL: it is not an ONNX model. */
static dr_status find_graph(const char **file, dr_arena *a, const char *name,
                            const char *type)
{
    dr_status st = DR_OK;

    *file = NULL;
    if (dr_ends_with(name, ".onnx") && dr_is_file(name)) {
        *file = name;
        return DR_OK;
    }
    if (!dr_is_dir(name) || (has_weights(a, name) && !flow_is_onnx_type(type)))
        return DR_OK;
    DR_TRY(graph_in(file, a, name));
    if (*file == NULL && flow_is_onnx_type(type)) {
        DR_TRY(graph_in(file, a, dr_path_join(a, name, "model")));
        if (*file == NULL) {
            st = dr_fail(
                DR_EUNSUPPORTED,
                "%s: no model.onnx in it: graphs of fixed shapes are not evaluated", name);
            dr_hint("evaluate the model that it was made from");
        }
    }
done:
    return st;
}

/* The one PEFT folder that text names. */
static dr_status peft_adapter(const char **folder, dr_arena *a, const char *text)
{
    const pass_adapter *list = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(flow_find_adapters(a, &list, &count, NULL, text));
    if (count > 1)
        DR_FAIL(DR_EUSAGE, "adapter_path: %zu adapters; one is evaluated at a time", count);
    *folder = list[0].path;
done:
    return st;
}

static dr_status find_model(pass_judged *out, dr_arena *a, const char *name)
{
    const char *type = NULL, *adapter = NULL, *file = NULL;
    dr_status st = DR_OK;

    if (*name == '\0')
        DR_FAIL(DR_EUSAGE, "no model was named");
    if (dr_is_dir(name))
        DR_TRY(flow_read_model_config(a, name, &type, &adapter));
    if (adapter == NULL && dr_is_file(dr_path_join(a, name, "adapter_config.json"))) {
        st = dr_fail(DR_EUSAGE, "%s is an adapter alone", name);
        dr_hint("name its base, and it with -a");
        goto done;
    }
    DR_TRY(find_graph(&file, a, name, type));
    *out = (pass_judged){.path = file, .name = name, .onnx = file != NULL};
    if (file != NULL)
        goto done;
    DR_TRY(hf_resolve(a, &out->path, name));
    if (adapter != NULL) /* of a result: its own */
        DR_TRY(peft_adapter(&out->adapter, a, adapter));
done:
    return st;
}

/* -a: a file of an ONNX model, a folder of another. */
static dr_status find_adapter(pass_judged *m, dr_arena *a, const char *adapter)
{
    if (adapter == NULL)
        return DR_OK;
    if (!m->onnx)
        return peft_adapter(&m->adapter, a, adapter);
    return flow_onnx_adapter(a, &m->adapter, dr_path_dir(a, m->path), adapter);
}

dr_status flow_evaluate(flow_result *out, const flow_evaluation *e)
{
    pass_evaluation p = {.data = &e->data,
                         .task = e->task,
                         .max_new_tokens = e->max_new_tokens,
                         .max_kl = e->max_kl,
                         .max_perplexity = e->max_perplexity,
                         .threads = e->threads,
                         .arena = &out->arena,
                         .text = &out->text};
    uint64_t memory = 0, disk = 0;
    pass_device device = {0};
    pass_need need = {0};
    dr_status st = DR_OK;

    *out = (flow_result){.report = json_object()};
    dr_buf_init(&out->text, (size_t)16 << 20);
    p.report = out->report;
    p.device = &device;
    DR_TRY(flow_compute(&device, e->device, e->threads, e->ranks));
    p.threads = device.threads;
    DR_TRY(flow_ranks_device(e->ranks, &device));
    DR_TRYF(find_model(&p.model, &out->arena, e->model), "finding the model");
    DR_TRY(find_adapter(&p.model, &out->arena, e->adapter));
    if (e->reference != NULL)
        DR_TRYF(find_model(&p.reference, &out->arena, e->reference),
                "finding the reference model");
    DR_TRY(flow_limits(&memory, &disk, "."));
    DR_TRY(pass_evaluate_estimate(&p, &need));
    DR_TRY(flow_check_resources(&need, ".", memory / dr_ranks_local_count(e->ranks), disk));
    DR_TRYF(pass_evaluate(&p), "evaluating %s", e->model);
done:
    nn_device_close(device.dev);
    return st;
}
