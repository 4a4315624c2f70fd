/*
 * export_adapters.c - the adapters of an export: which modules they change, and their
 * files.
 */
#include <stdlib.h>
#include <string.h>

#include "onnx/build_impl.h"

static const hf_linear *find_linear(const hf_model *m, const char *path)
{
    for (int i = 0; i < hf_model_config(m)->layers; i++) {
        const hf_linear *l = NULL;
        size_t count = hf_layer_linears(m, i, &l);
        for (size_t j = 0; j < count; j++) {
            if (strcmp(l[j].path, path) == 0)
                return &l[j];
        }
    }
    return NULL;
}

static dr_status check_name(const onnx_named_adapter *list, size_t i)
{
    const char *name = list[i].name;

    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL)
        return dr_fail(DR_EUSAGE, "adapter name '%s': expected a plain file name", name);
    for (size_t j = 0; j < i; j++) {
        if (strcmp(list[j].name, name) == 0)
            return dr_fail(DR_EUSAGE, "two adapters are named %s", name);
    }
    return DR_OK;
}

static dr_status check_form(const onnx_builder *b, const onnx_adapter_form *f)
{
    if (!f->int4)
        return DR_OK;
    if (f->block < ONNX_BLOCK_MIN || f->block > ONNX_BLOCK_MAX ||
        (f->block & (f->block - 1)) != 0)
        return dr_fail(DR_EUSAGE, "adapter block size %d: expected 16, 32, 64, 128 or 256",
                       f->block);
    if (onnx_before(b, ONNX_SINCE_BYTES))
        return dr_fail(DR_EUNSUPPORTED, "int4 adapters need onnxruntime 1.%d, not 1.%d",
                       ONNX_SINCE_BYTES, b->o->min_ort_minor);
    return DR_OK;
}

static int by_path(const void *a, const void *b)
{
    const onnx_slot *p = a, *q = b;

    return strcmp(p->path, q->path);
}

static dr_status add_slots(onnx_builder *b, const onnx_named_adapter *named)
{
    for (size_t i = 0; i < named->adapter->count; i++) {
        const hf_lora_module *m = &named->adapter->modules[i];
        const hf_linear *l = find_linear(b->m, m->module);
        if (l == NULL)
            return dr_fail(DR_EUNSUPPORTED,
                           "adapter %s: %s is no linear layer of the decoder", named->name,
                           m->module);
        if (l->n_in != m->n_in || l->n_out != m->n_out)
            return dr_fail(DR_EFORMAT, "adapter %s: %s is %zu x %zu, expected %zu x %zu",
                           named->name, m->module, m->n_out, m->n_in, l->n_out, l->n_in);
        b->lora[b->lora_count++] = (onnx_slot){l->path, m->magnitude != NULL};
    }
    return DR_OK;
}

dr_status onnx_join_adapters(onnx_builder *b)
{
    const onnx_options *o = b->o;
    size_t most = 0, n = 0;
    dr_status st = DR_OK;

    b->form = o->adapter_form != NULL ? *o->adapter_form : ONNX_ADAPTER_FLOATS;
    if (o->adapter_form == NULL)
        b->form.dtype = b->float_type == ONNX_FLOAT16    ? DR_DTYPE_F16
                        : b->float_type == ONNX_BFLOAT16 ? DR_DTYPE_BF16
                                                         : DR_DTYPE_F32;
    DR_TRY(check_form(b, &b->form));
    for (size_t i = 0; i < o->adapter_count; i++)
        most += o->adapters[i].adapter->count;
    b->lora = dr_arena_alloc(b->arena, most + 1, sizeof(*b->lora));
    for (size_t i = 0; i < o->adapter_count; i++) {
        DR_TRY(check_name(o->adapters, i));
        DR_TRY(add_slots(b, &o->adapters[i]));
    }
    qsort(b->lora, b->lora_count, sizeof(*b->lora), by_path);
    for (size_t i = 0; i < b->lora_count; i++) {
        if (n > 0 && strcmp(b->lora[n - 1].path, b->lora[i].path) == 0)
            b->lora[n - 1].dora = b->lora[n - 1].dora || b->lora[i].dora;
        else
            b->lora[n++] = b->lora[i];
    }
    b->lora_count = n;
done:
    return st;
}

static dr_status write_adapter(onnx_builder *b, const char *path, const hf_adapter *ad)
{
    dr_arena scratch = {0};
    dr_tensor *list = NULL;
    size_t count = 0;
    uint64_t bytes = 0;
    dr_status st = DR_OK;

    DR_TRY(onnx_adapter_tensors(&scratch, &list, &count, ad, &b->form));
    DR_TRY(onnx_adapter_save(path, list, count, ONNX_ADAPTER_FILE));
    DR_TRY(dr_file_size(&bytes, path));
    b->report->adapter_bytes += bytes;
done:
    dr_arena_release(&scratch);
    return st;
}

dr_status onnx_write_adapters(onnx_builder *b, const char *dir)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < b->o->adapter_count; i++) {
        const onnx_named_adapter *a = &b->o->adapters[i];
        const char *file = dr_arena_printf(b->arena, "%s.onnx_adapter", a->name);
        DR_TRYF(write_adapter(b, dr_path_join(b->arena, dir, file), a->adapter),
                "writing the adapter %s", a->name);
    }
done:
    return st;
}
