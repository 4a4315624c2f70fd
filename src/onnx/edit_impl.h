/*
 * edit_impl.h - a model.onnx of anybody's in memory, to be changed and written again.
 *
 * Protobuf's own structs, copied into an arena as far as they may change, so that the file
 * as it was read stays whole.  Weights stay where they are, in the mapping or in external
 * files, until the model is written; external files are left alone: the new model.onnx
 * goes beside them.
 */
#ifndef DRUPE_ONNX_EDIT_IMPL_H
#define DRUPE_ONNX_EDIT_IMPL_H

#include <stdbool.h>
#include <stddef.h>

#include "core/arena.h"
#include "core/tensor.h"
#include "onnx/wire_impl.h"

struct Onnx__AttributeProto; /* onnx.pb-c.h */
struct Onnx__GraphProto;
struct Onnx__NodeProto;

typedef struct {
    const char *path; /* arena */
    const char *dir;  /* arena: where its external files lie */
    onnx_file file;   /* owned */
    dr_arena arena;
    struct Onnx__ModelProto *model; /* arena: copies, which may be changed */
    struct Onnx__GraphProto *graph;
    const char **files; /* arena: names of external files, each once */
    dr_map *maps;       /* owned: opened when first needed, beside files */
    size_t file_count;
} onnx_edit;

/* DR_EFORMAT; DR_EUNSUPPORTED: sparse tensors, training graphs, external files elsewhere
 * than beside the model. */
DR_MUST_USE dr_status onnx_edit_open(onnx_edit *e, const char *path);
void onnx_edit_close(onnx_edit *e);

/* NULL: no such initializer; no node gives such a value. */
struct Onnx__TensorProto *onnx_edit_init(const onnx_edit *e, const char *name);
struct Onnx__NodeProto *onnx_edit_maker(const onnx_edit *e, const char *name);
const struct Onnx__AttributeProto *onnx_edit_attr(const struct Onnx__NodeProto *n,
                                                  const char *name);
int64_t onnx_edit_int(const struct Onnx__NodeProto *n, const char *name, int64_t otherwise);

/* The initializer, or the constant, that a value is; NULL: it is computed. */
const struct Onnx__TensorProto *onnx_edit_constant(const onnx_edit *e, const char *name);
/* A view of a tensor's values, wherever they lie; data in the arena or in a mapping.
 * DR_EFORMAT: fewer bytes than its shape asks for; DR_EUNSUPPORTED: its type. */
DR_MUST_USE dr_status onnx_edit_values(onnx_edit *e, dr_tensor *out,
                                       const struct Onnx__TensorProto *t);

/* An input that the graph need not be given: `rank` sizes, the one at `open` named and 0
 * until it is. */
void onnx_edit_add_optional(onnx_edit *e, const char *name, int32_t type,
                            const int64_t *dims, size_t rank, size_t open,
                            const char *symbol);
/* Takes nodes that make, initializers that are, and descriptions of what nothing reads any
 * more out of the graph: of the named ones only. */
void onnx_edit_drop_unread(onnx_edit *e, const char *const *names, size_t count);

DR_MUST_USE dr_status onnx_edit_save(onnx_edit *e, const char *path);

#endif
