/*
 * st_write.c - writing safetensors: the header, and whole small files.
 *
 * Model folders stream their tensors (writer.c); this file has what both ways share.
 */
#include <stdlib.h>

#include "core/json.h"
#include "hf/hf.h"
#include "hf/st_impl.h"

static json_t *describe(const dr_tensor *t, uint64_t begin)
{
    json_t *shape = json_array();

    for (int i = 0; i < t->ndim; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->dims[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dr_dtype_name(t->dtype), "shape",
                     shape, "data_offsets", (json_int_t)begin,
                     (json_int_t)(begin + t->bytes));
}

dr_status hf_st_header(dr_buf *out, const dr_tensor *tensors, size_t count)
{
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    unsigned char size[8];
    uint64_t begin = 0, n;
    char *text = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++) {
        if (json_object_get(header, tensors[i].name) != NULL)
            DR_FAIL(DR_EFORMAT, "tensor %s is to be written twice", tensors[i].name);
        if (json_object_set_new(header, tensors[i].name, describe(&tensors[i], begin)) != 0)
            DR_FAIL(DR_EFORMAT, "tensor %s: its name is not UTF-8", tensors[i].name);
        begin += tensors[i].bytes;
    }
    text = json_dumps(header, JSON_COMPACT);
    if (text == NULL)
        DR_FAIL(DR_EFORMAT, "the header of %zu tensors cannot be written", count);
    dr_buf_reset(out);
    DR_TRY(dr_buf_add(out, size, sizeof(size))); /* its place */
    DR_TRY(dr_buf_adds(out, text));
    while (out->len % 8 != 0)
        DR_TRY(dr_buf_adds(out, " "));
    n = out->len - sizeof(size);
    for (size_t i = 0; i < sizeof(size); i++)
        out->data[i] = (char)(unsigned char)(n >> 8 * i);
done:
    free(text);
    json_decref(header);
    return st;
}

dr_status hf_st_write(const char *path, const dr_tensor *tensors, size_t count)
{
    dr_writer w = {.fd = -1};
    dr_buf header;
    dr_status st = DR_OK;

    dr_buf_init(&header, HF_ST_HEADER_MAX);
    DR_TRYF(hf_st_header(&header, tensors, count), "writing %s", path);
    DR_TRY(dr_writer_open(&w, path));
    DR_TRY(dr_writer_add(&w, header.data, header.len));
    for (size_t i = 0; i < count; i++)
        DR_TRY(dr_writer_add(&w, tensors[i].data, tensors[i].bytes));
    DR_TRY(dr_writer_finish(&w));
done:
    dr_writer_close(&w);
    dr_buf_release(&header);
    return st;
}
