/*
 * edit_impl.h - a model.onnx of anybody's in memory, to be changed and written again.
 *
 * Protobuf's own structs, copied into an arena as far as they may change, so that the file
 * as it was read stays whole.  Weights stay where they are, in the mapping or in external
 * files; those are left alone, and the new model.onnx goes beside them.  Only where a
 * rewrite makes large values are all of them written anew, to one file (new_data).
 */
#ifndef DRUPE_ONNX_EDIT_IMPL_H
#define DRUPE_ONNX_EDIT_IMPL_H

#include <stdbool.h>
#include <stddef.h>

#include "core/arena.h"
#include "core/tensor.h"
#include "onnx/onnx_rewrite.h"
#include "onnx/wire_impl.h"

struct Onnx__AttributeProto; /* onnx.pb-c.h */
struct Onnx__GraphProto;
struct Onnx__NodeProto;
struct Onnx__StringStringEntryProto;
struct Onnx__TypeProto__Tensor;
struct Onnx__ValueInfoProto;

struct onnx_edit {
    const char *path; /* arena */
    const char *dir;  /* arena: where its external files lie */
    onnx_file file;   /* owned */
    dr_arena arena;
    struct Onnx__ModelProto *model; /* arena: copies, which may be changed */
    struct Onnx__GraphProto *graph;
    const char **files; /* arena: names of external files, each once */
    dr_map *maps;       /* owned: opened when first needed, beside files */
    size_t file_count;
    const char *out;      /* arena: the model that is written, of onnx_rewrite_open */
    const char *new_data; /* arena: the file for large new values; NULL: all stay inside */
    dr_writer data;       /* owned: that file, from the first of them on */
    bool data_open;
    size_t changes; /* what a rewrite has done, for the report */
};

/* DR_EFORMAT; DR_EUNSUPPORTED: sparse tensors, training graphs, external files elsewhere
 * than beside the model. */
DR_MUST_USE dr_status onnx_edit_open(onnx_edit *e, const char *path);
void onnx_edit_close(onnx_edit *e);

/* Where its file is not known yet: of values that onnx_edit_tensor has written. */
#define ONNX_NEW_DATA "\1"
bool onnx_edit_external(const struct Onnx__TensorProto *t);

/* NULL: no such initializer; no node gives such a value. */
struct Onnx__TensorProto *onnx_edit_init(const onnx_edit *e, const char *name);
struct Onnx__NodeProto *onnx_edit_maker(const onnx_edit *e, const char *name);
const struct Onnx__AttributeProto *onnx_edit_attr(const struct Onnx__NodeProto *n,
                                                  const char *name);
int64_t onnx_edit_int(const struct Onnx__NodeProto *n, const char *name, int64_t otherwise);
float onnx_edit_float(const struct Onnx__NodeProto *n, const char *name, float otherwise);

/* The initializer, or the constant, that a value is; NULL: it is computed. */
const struct Onnx__TensorProto *onnx_edit_constant(const onnx_edit *e, const char *name);
/* One more external file, which lies where the others do. */
void onnx_edit_add_file(onnx_edit *e, const char *name);
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

/* ---- making nodes and values (edit_make.c) ---- */

/* A copy of a list of pointers with room for one more, up to the next power of two; and the
 * list itself while there is room. */
void *onnx_edit_list(dr_arena *a, const void *from, size_t count);
void *onnx_edit_room(dr_arena *a, void *list, size_t count);

bool onnx_is(const struct Onnx__NodeProto *n, const char *op);
/* A name that nothing in the graph has: what the format makes, or that and _2, ... */
char *onnx_edit_unused(onnx_edit *e, const char *format, ...) DR_PRINTF(2, 3);
/* A node at the end of the graph (onnx_edit_sort puts it where it belongs), its inputs up
 * to the first NULL, and one output of that name; domain NULL: the standard one. */
struct Onnx__NodeProto *onnx_edit_node(onnx_edit *e, const char *domain, const char *op,
                                       const char *name, const char *const *in,
                                       const char *out);
void onnx_edit_set_int(onnx_edit *e, struct Onnx__NodeProto *n, const char *name,
                       int64_t v);
void onnx_edit_set_ints(onnx_edit *e, struct Onnx__NodeProto *n, const char *name,
                        const int64_t *v, size_t count);
void onnx_edit_set_float(onnx_edit *e, struct Onnx__NodeProto *n, const char *name,
                         float v);
void onnx_edit_drop_attr(struct Onnx__NodeProto *n, const char *name);
void onnx_edit_set_op(onnx_edit *e, struct Onnx__NodeProto *n, const char *domain,
                      const char *op);
/* Input i, with empty ones before it where the node has fewer. */
void onnx_edit_set_input(onnx_edit *e, struct Onnx__NodeProto *n, size_t i,
                         const char *name);

/* A tensor of any ONNX type with these values (copied).  Large ones go to new_data. */
DR_MUST_USE dr_status onnx_edit_tensor(onnx_edit *e, struct Onnx__TensorProto **out,
                                       const char *name, int32_t type, const int64_t *dims,
                                       size_t rank, const void *values, size_t bytes);
/* The same as a new initializer. */
DR_MUST_USE dr_status onnx_edit_add_init(onnx_edit *e, const char *name, int32_t type,
                                         const int64_t *dims, size_t rank,
                                         const void *values, size_t bytes);
/* One number of a float or integer type; rank 0, or 1 with one value. */
DR_MUST_USE dr_status onnx_edit_add_number(onnx_edit *e, const char *name, int32_t type,
                                           size_t rank, double value);
/* What of it the new file has to hold, too; then the graph, sorted, beside it. */
DR_MUST_USE dr_status onnx_edit_finish(onnx_edit *e, const char *path);

/* Whatever reads `from` (outputs of the graph aside) reads `to`; how many did. */
size_t onnx_edit_redirect(onnx_edit *e, const char *from, const char *to);
size_t onnx_edit_readers(const onnx_edit *e, const char *name);
bool onnx_edit_is_output(const onnx_edit *e, const char *name);
bool onnx_edit_is_input(const onnx_edit *e, const char *name);
/* Removes a node that gives what `by` has: its readers read that, and if its output is the
 * graph's, by's maker takes the name.  false: it cannot be removed. */
bool onnx_edit_bypass(onnx_edit *e, struct Onnx__NodeProto *n, const char *by);
/* Takes out nodes, initializers and descriptions that no output needs. */
void onnx_edit_drop_dead(onnx_edit *e);
/* Of nodes that do the same with the same, one is left. */
void onnx_edit_join_doubles(onnx_edit *e);
/* Which node gives a value, by name. */
typedef struct {
    const char *name;
    size_t node; /* its place in the graph */
} onnx_made;
typedef struct {
    onnx_made *list; /* arena, sorted */
    size_t count;
} onnx_makers;
/* DR_EFORMAT: two nodes give one. */
DR_MUST_USE dr_status onnx_edit_makers(const onnx_edit *e, dr_arena *a, onnx_makers *out);
const onnx_made *onnx_maker_of(const onnx_makers *m, const char *name); /* NULL: none */
/* Nodes before those that read them, else in the order they have. */
DR_MUST_USE dr_status onnx_edit_sort(onnx_edit *e);
/* The last node of that name; NULL: none. */
struct Onnx__NodeProto *onnx_edit_called(const onnx_edit *e, const char *name);
/* maker (NULL: nobody) gives the value under another name. */
void onnx_edit_rename_output(struct Onnx__NodeProto *maker, const char *from, char *to);
/* The description of that name in a list; what it says of a tensor; NULL: none. */
struct Onnx__ValueInfoProto *onnx_edit_in(struct Onnx__ValueInfoProto **list, size_t n,
                                          const char *name);
struct Onnx__TypeProto__Tensor *onnx_tensor_of(const struct Onnx__ValueInfoProto *v);
/* Of a tensor with `rank` sizes, which are still to be set; name: the arena's. */
struct Onnx__ValueInfoProto *onnx_edit_value(dr_arena *a, char *name, int32_t type,
                                             size_t rank);
void onnx_edit_add_output(onnx_edit *e, struct Onnx__ValueInfoProto *v);
void onnx_edit_add_info(onnx_edit *e, struct Onnx__ValueInfoProto *v);
/* t as it is, the arena's. */
void onnx_edit_take_init(onnx_edit *e, struct Onnx__TensorProto *t);
/* What stands under the key; NULL: nothing. */
const char *onnx_edit_entry(struct Onnx__StringStringEntryProto *const *list, size_t n,
                            const char *key);
/* The description of a value that the graph has (input, output or between); NULL: none. */
struct Onnx__ValueInfoProto *onnx_edit_info(const onnx_edit *e, const char *name);
void onnx_edit_drop_info(onnx_edit *e, const char *name);
/* Its version of the standard operators (domain "") or another set; 0: not imported. */
int64_t onnx_edit_opset(const onnx_edit *e, const char *domain);
/* That version at least. */
void onnx_edit_need_opset(onnx_edit *e, const char *domain, int64_t version);
/* onnx_raise_opset to that version, or to the newer one that the graph has. */
DR_MUST_USE dr_status onnx_edit_raise_opset(onnx_edit *e, int64_t least);
/* DR_EUNSUPPORTED: a node holds graphs, or the model functions; what names the rewrite. */
DR_MUST_USE dr_status onnx_edit_flat(const onnx_edit *e, const char *what);

/* DR_EUSAGE: a name of the list that no node has; what: the list's. */
DR_MUST_USE dr_status onnx_edit_nodes_there(const onnx_edit *e, const char *what,
                                            onnx_names list);

/* ---- types (edit_types.c) ---- */

typedef struct {
    const char *name;
    int32_t type; /* 0: unknown */
} onnx_typed;
/* Element types of all values, by name. */
typedef struct {
    onnx_typed *list; /* arena of the edit; sorted */
    size_t count;
} onnx_types;
DR_MUST_USE dr_status onnx_edit_types(onnx_edit *e, onnx_types *out);
int32_t onnx_type_of(const onnx_types *t, const char *name);

#endif
