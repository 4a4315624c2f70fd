/*
 * wire_impl.h - reading a model.onnx that anybody may have written.
 *
 * protobuf-c has no limit of its own: nested graphs run it out of stack, millions of empty
 * messages out of memory, and it copies every weight.  So the bytes are walked first, with
 * limits, and copied without weights; protobuf-c sees that copy.  A tensor's raw_data
 * stays in the mapping: onnx_raw_span says where.
 */
#ifndef DRUPE_ONNX_WIRE_IMPL_H
#define DRUPE_ONNX_WIRE_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/file.h"
#include "core/status.h"

struct Onnx__ModelProto; /* onnx.pb-c.h */
struct Onnx__TensorProto;

enum {
    ONNX_SCAN_DEPTH = 64,           /* messages within messages */
    ONNX_SCAN_MESSAGES = 1 << 22,   /* in all */
    ONNX_SCAN_BYTES = 512 * 1048576 /* of memory after unpacking, weights aside */
};

typedef struct {
    dr_map map;                     /* owned */
    struct Onnx__ModelProto *model; /* owned */
} onnx_file;

/* DR_EFORMAT: no protobuf, no model, or past a limit, with the byte where it was seen. */
DR_MUST_USE dr_status onnx_file_open(onnx_file *f, const char *path);
void onnx_file_close(onnx_file *f);

/* protobuf-c leaves out a string that the file does not have. */
static inline const char *onnx_text(const char *s)
{
    return s != NULL ? s : "";
}
/* Of strings behind pointers, for qsort and bsearch. */
int onnx_by_text(const void *a, const void *b);

/* Where raw_data lies in f->map; false: the tensor has none. */
bool onnx_raw_span(const struct Onnx__TensorProto *t, uint64_t *offset, uint64_t *bytes);

#endif
