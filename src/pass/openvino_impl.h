/*
 * openvino_impl.h - OpenVINO's IR: NAME.xml, a graph, and NAME.bin, its weights.
 */
#ifndef DRUPE_PASS_OPENVINO_IMPL_H
#define DRUPE_PASS_OPENVINO_IMPL_H

#include "pass/pass.h"

/* A piece of the file's text; to 0: it is not there. */
typedef struct {
    size_t from, to;
} pass_ir_span;

/* An input or output. */
typedef struct {
    const char *name;    /* the first by byte, of those that it has; NULL: it has none */
    const char *layer;   /* its layer's name */
    int type;            /* TensorProto's number */
    int rank;            /* -1: not even that is said */
    const int64_t *dims; /* [rank]; -1: open */
    /* Of an input, for who changes them: the shape and the names (the attributes' values),
     * all of its port's <dim>.  tag_end: where the tag ends that has or takes the names. */
    pass_ir_span shape, names, port_dims;
    size_t tag_end;
} pass_ir_value;

typedef struct {
    pass_ir_value *inputs, *outputs; /* arena; in the order in which OpenVINO has them */
    size_t input_count, output_count;
    const char *version; /* of the OpenVINO that wrote it; NULL: it does not say */
} pass_ir;

/* text: the .xml file, which `where` names.  DR_EFORMAT: it is no IR, with the line;
 * DR_EUNSUPPORTED: an input or output of a type that ONNX does not have. */
DR_MUST_USE dr_status pass_ir_parse(pass_ir *out, dr_arena *a, const char *text, size_t n,
                                    const char *where);
DR_MUST_USE dr_status pass_ir_read(pass_ir *out, dr_arena *a, const char *path);

/* NAME.bin of NAME.xml. */
const char *pass_ir_weights(dr_arena *a, const char *xml);
/* The folders that tokenizers are in, as optimum-cli's results have them, into dir. */
DR_MUST_USE dr_status pass_openvino_folders(const pass_job *job, const char *dir,
                                            const char *from);

#endif
