/*
 * st_impl.h - safetensors files inside this room: one file's header, read and written.
 *
 * A file is: 8 bytes little-endian n, n bytes of JSON {name: {dtype, shape, data_offsets}},
 * then the data.  Source: huggingface/safetensors, README "Format".
 */
#ifndef DRUPE_HF_ST_IMPL_H
#define DRUPE_HF_ST_IMPL_H

#include "core/arena.h"
#include "core/buf.h"
#include "core/file.h"
#include "core/tensor.h"

/* Room for the header of a file, as the reference implementation limits it. */
#define HF_ST_HEADER_MAX ((size_t)100 << 20)

/*
 * The tensors of a mapped file in the order of their data; names and list in a, data in the
 * mapping.  where: the file, for messages.  Everything is checked: header size, types,
 * shapes against bytes, and that the data is covered without overlap or hole.
 * DR_EFORMAT: damaged; DR_EUNSUPPORTED: an element type, by name.
 */
DR_MUST_USE dr_status hf_st_parse(dr_arena *a, dr_tensor **tensors, size_t *count,
                                  const dr_map *map, const char *where);

/* The header (8 bytes of size, JSON, spaces up to a multiple of 8) of tensors that will
 * follow one another; data pointers are not looked at. */
DR_MUST_USE dr_status hf_st_header(dr_buf *out, const dr_tensor *tensors, size_t count);

#endif
