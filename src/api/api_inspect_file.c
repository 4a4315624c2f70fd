/*
 * api_inspect_file.c - single files that a model is made of: safetensors by their header
 * (which may have types that are not read), files of torch.save, ONNX Runtime's adapter
 * files.
 */
#include <string.h>

#include "api/drupe_impl.h"
#include "core/file.h"
#include "core/json.h"
#include "hf/hf.h"
#include "onnx/onnx.h"

enum { SHOWN_MAX = 8 };

/* ---- safetensors ---- */

static uint64_t read_u64(const unsigned char *p)
{
    uint64_t v = 0;

    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

/* One tensor "F32 [2, 3] name" into the list; the first few for people too. */
static dr_status add_tensor(drupe_result *r, json_t *list, const char *type,
                            const int64_t *dims, size_t ndim, const char *name)
{
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, 1 << 16);
    DR_TRY(dr_buf_addf(&b, "%s [", type));
    for (size_t i = 0; i < ndim; i++)
        DR_TRY(dr_buf_addf(&b, "%s%lld", i ? ", " : "", (long long)dims[i]));
    DR_TRY(dr_buf_addf(&b, "] %s", name));
    if (json_array_size(list) < SHOWN_MAX)
        DR_TRY(dr_buf_addf(&r->text, "%-16s %s\n", json_array_size(list) ? "" : "tensors",
                           b.data));
    else if (json_array_size(list) == SHOWN_MAX)
        DR_TRY(dr_buf_addf(&r->text, "%-16s ...\n", ""));
    json_t *text = json_string(b.data); /* NULL: not UTF-8 */
    json_array_append_new(list, text != NULL ? text : json_string("(a name not in UTF-8)"));
done:
    dr_buf_release(&b);
    return st;
}

/* *end: where the data ends, so far. */
static dr_status add_header_row(drupe_result *r, json_t *list, const char *name,
                                const json_t *row, uint64_t *end, const char *path)
{
    const json_t *shape = dr_json_get(row, "shape");
    const json_t *to = json_array_get(dr_json_get(row, "data_offsets"), 1);
    const char *type = NULL;
    int64_t dims[16];
    size_t n = json_array_size(shape);
    dr_status st = DR_OK;

    DR_TRY(dr_json_str(row, "dtype", &type, path));
    if (type == NULL || !json_is_array(shape) || n > DR_COUNT(dims))
        DR_FAIL(DR_EFORMAT, "%s: tensor \"%s\" has no dtype or no shape", path, name);
    for (size_t i = 0; i < n; i++)
        dims[i] = (int64_t)json_integer_value(json_array_get(shape, i));
    if (json_integer_value(to) > 0 && (uint64_t)json_integer_value(to) > *end)
        *end = (uint64_t)json_integer_value(to);
    DR_TRY(add_tensor(r, list, type, dims, n, name));
done:
    return st;
}

dr_status api_inspect_safetensors(drupe_result *r, const char *path)
{
    dr_map m = {0};
    json_t *header = NULL, *list = json_array(), *row;
    const char *name;
    uint64_t end = 0;
    dr_status st = DR_OK;

    json_object_set_new(r->report, "tensor_list", list);
    DR_TRY(dr_map_open(&m, path));
    uint64_t bytes = m.size >= 8 ? read_u64(m.data) : 0;
    if (m.size < 8 || bytes > m.size - 8)
        DR_FAIL(DR_EFORMAT, "%s: not a safetensors file: a header of %llu bytes in %zu",
                path, (unsigned long long)bytes, m.size);
    DR_TRY(dr_json_parse(&header, (const char *)m.data + 8, (size_t)bytes, path));
    if (!json_is_object(header))
        DR_FAIL(DR_EFORMAT, "%s: the header is %s, not an object", path,
                dr_json_type(header));
    DR_TRY(api_line(r, "kind", "safetensors file"));
    DR_TRY(api_number(r, "file_bytes", (int64_t)m.size));
    json_object_foreach(header, name, row)
    {
        if (strcmp(name, "__metadata__") != 0)
            DR_TRY(add_header_row(r, list, name, row, &end, path));
    }
    if (end != m.size - 8 - bytes)
        DR_FAIL(DR_EFORMAT, "%s: its tensors have %llu bytes, the file has %zu", path,
                (unsigned long long)end, m.size - 8 - (size_t)bytes);
    DR_TRY(api_number(r, "tensors", (int64_t)json_array_size(list)));
done:
    json_decref(header);
    dr_map_close(&m);
    return st;
}

/* ---- files of torch.save ---- */

dr_status api_inspect_torch(drupe_result *r, const char *path)
{
    dr_arena a = {0};
    dr_tensor *t = NULL;
    json_t *list = json_array();
    uint64_t bytes = 0;
    size_t n = 0;
    dr_status st = DR_OK;

    json_object_set_new(r->report, "tensor_list", list);
    DR_TRY(hf_torch_tensors(&a, &t, &n, path));
    DR_TRY(dr_file_size(&bytes, path));
    DR_TRY(api_line(r, "kind", "PyTorch file"));
    DR_TRY(api_number(r, "file_bytes", (int64_t)bytes));
    for (size_t i = 0; i < n; i++)
        DR_TRY(add_tensor(r, list, dr_dtype_name(t[i].dtype), t[i].dims, (size_t)t[i].ndim,
                          t[i].name));
    DR_TRY(api_number(r, "tensors", (int64_t)n));
done:
    dr_arena_release(&a);
    return st;
}

/* ---- ONNX Runtime adapters ---- */

dr_status api_inspect_onnx_adapter(drupe_result *r, const char *path)
{
    json_t *list = json_array();
    onnx_adapter_file f = {0};
    size_t bytes = 0;
    dr_status st = DR_OK;

    json_object_set_new(r->report, "tensor_list", list);
    DR_TRY(onnx_adapter_open(&f, path));
    DR_TRY(api_line(r, "kind", "ONNX Runtime adapter"));
    for (size_t i = 0; i < f.count; i++) {
        const dr_tensor *t = &f.tensors[i];
        DR_TRY(add_tensor(r, list, dr_dtype_name(t->dtype), t->dims, (size_t)t->ndim,
                          t->name));
        bytes += t->bytes;
    }
    DR_TRY(api_number(r, "parameters", (int64_t)f.count));
    DR_TRY(api_number(r, "value_bytes", (int64_t)bytes));
done:
    onnx_adapter_close(&f);
    return st;
}
