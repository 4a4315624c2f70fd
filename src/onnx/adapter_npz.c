/*
 * adapter_npz.c - NumPy's .npz: a zip archive whose members NAME.npy are stored.
 *
 * A .npy header is "\x93NUMPY", 1, 0, its length, a Python dict as text padded with spaces
 * so that the values begin at a multiple of 64 of the member.
 *
 * Source: numpy.lib.format.
 */
#include <inttypes.h>

#include "core/zip_writer.h"
#include "onnx/adapter_impl.h"

enum { MAGIC_BYTES = 10 /* of a .npy: magic, version, length of the dict */ };

static const char *numpy_type(dr_dtype t)
{
    switch (t) {
    case DR_DTYPE_F32:
        return "<f4";
    case DR_DTYPE_F16:
        return "<f2";
    case DR_DTYPE_U8:
        return "|u1";
    case DR_DTYPE_F64:
    case DR_DTYPE_BF16:
    case DR_DTYPE_I8:
    case DR_DTYPE_I16:
    case DR_DTYPE_I32:
    case DR_DTYPE_I64:
    case DR_DTYPE_BOOL:
    case DR_DTYPE_COUNT:
        break;
    }
    return NULL;
}

/* What stands before the values; b is empty. */
static dr_status npy_header(dr_buf *b, const dr_tensor *t, const char *path)
{
    const char *type = numpy_type(t->dtype);
    dr_buf dict;
    dr_status st = DR_OK;

    dr_buf_init(&dict, 1 << 15);
    if (type == NULL)
        DR_FAIL(DR_EUNSUPPORTED, "%s: NumPy has no type for %s (%s)", path,
                dr_dtype_name(t->dtype), t->name);
    DR_TRY(dr_buf_addf(&dict, "{'descr': '%s', 'fortran_order': False, 'shape': (", type));
    for (int i = 0; i < t->ndim; i++)
        DR_TRY(dr_buf_addf(&dict, "%s%" PRId64, i ? ", " : "", t->dims[i]));
    DR_TRY(dr_buf_adds(&dict, t->ndim == 1 ? ",), }" : "), }"));
    while ((MAGIC_BYTES + dict.len + 1) % 64 != 0)
        DR_TRY(dr_buf_adds(&dict, " "));
    DR_TRY(dr_buf_adds(&dict, "\n"));
    DR_TRY(dr_buf_add(b, "\x93NUMPY\x01\x00", 8));
    const unsigned char length[2] = {(unsigned char)dict.len,
                                     (unsigned char)(dict.len >> 8)};
    DR_TRY(dr_buf_add(b, length, sizeof(length)));
    DR_TRY(dr_buf_add(b, dict.data, dict.len));
done:
    dr_buf_release(&dict);
    return st;
}

dr_status adapter_write_npz(const char *path, const dr_tensor *tensors, size_t count)
{
    dr_arena a = {0};
    dr_zip *z = NULL;
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, 1 << 16);
    DR_TRY(dr_zip_open(&z, path));
    for (size_t i = 0; i < count; i++) {
        const dr_tensor *t = &tensors[i];
        dr_buf_reset(&b);
        DR_TRY(npy_header(&b, t, path));
        const dr_zip_part parts[] = {{b.data, b.len}, {t->data, t->bytes}};
        DR_TRY(dr_zip_add(z, dr_arena_printf(&a, "%s.npy", t->name), parts, 2));
    }
    DR_TRY(dr_zip_finish(z));
done:
    dr_zip_close(z);
    dr_buf_release(&b);
    dr_arena_release(&a);
    return st;
}
