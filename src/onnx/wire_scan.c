/*
 * wire_scan.c - a walk over protobuf's wire format, guided by protobuf-c's own descriptors.
 *
 * A message is a sequence of (field number, wire type) keys and values: 0 a varint, 1 eight
 * bytes, 2 a length and so many bytes, 5 four bytes; 3 and 4 (groups) ONNX does not have.
 * Only fields that the descriptor calls messages are entered.  The copy differs from the
 * original in two ways: raw_data of a tensor is replaced by 16 bytes, its place and length
 * in the file, and every message's length is a varint of five bytes (padding is legal), so
 * that it can be filled in afterwards.
 */
#include "onnx/wire_impl.h"

#include <string.h>

#include "onnx.pb-c.h"

enum { VARINT_MAX = 10, LENGTH_BYTES = 5, SPAN_BYTES = 16, RAW_DATA = 9 };

typedef struct {
    const char *path;
    const uint8_t *data; /* borrowed: the mapping */
    dr_buf copy;
    size_t messages, bytes;
} scan;

typedef struct {
    size_t at, end; /* in data */
} extent;

static dr_status bad(const scan *s, size_t at, const char *what)
{
    return dr_fail(DR_EFORMAT, "%s: byte %zu: %s", s->path, at, what);
}

static dr_status varint(const scan *s, extent *e, uint64_t *out)
{
    size_t start = e->at;

    *out = 0;
    for (int i = 0; i < VARINT_MAX && e->at < e->end; i++) {
        uint8_t byte = s->data[e->at++];
        *out |= (uint64_t)(byte & 127) << (7 * i);
        if (byte < 128)
            return DR_OK;
    }
    return bad(s, start, "expected a number, found the end of the message");
}

static dr_status put_varint(scan *s, uint64_t v)
{
    uint8_t out[VARINT_MAX];
    size_t n = 0;

    for (; v > 127; v >>= 7)
        out[n++] = (uint8_t)(v | 128);
    out[n++] = (uint8_t)v;
    return dr_buf_add(&s->copy, out, n);
}

static void put_length(uint8_t *out, size_t v)
{
    for (int i = 0; i < LENGTH_BYTES; i++, v >>= 7)
        out[i] = (uint8_t)((v & 127) | (i < LENGTH_BYTES - 1 ? 128 : 0));
}

static dr_status count(scan *s, size_t at, size_t bytes)
{
    s->bytes += bytes;
    if (s->bytes > ONNX_SCAN_BYTES)
        return bad(s, at, "the graph does not fit 512 MiB without its weights");
    return DR_OK;
}

static dr_status message(scan *s, extent e, const ProtobufCMessageDescriptor *desc,
                         int depth);

/* A message as a field: its length is known when it has been walked. */
static dr_status submessage(scan *s, extent e, const ProtobufCMessageDescriptor *desc,
                            int depth)
{
    char *room = NULL;
    dr_status st = DR_OK;

    if (depth == ONNX_SCAN_DEPTH)
        return bad(s, e.at, "messages are nested deeper than 64");
    DR_TRY(dr_buf_reserve(&s->copy, LENGTH_BYTES, &room));
    size_t at = s->copy.len;
    s->copy.len += LENGTH_BYTES;
    DR_TRY(message(s, e, desc, depth + 1));
    put_length((uint8_t *)s->copy.data + at, s->copy.len - at - LENGTH_BYTES);
done:
    return st;
}

static dr_status put_span(scan *s, extent e)
{
    uint8_t span[SPAN_BYTES];
    dr_status st = DR_OK;

    for (size_t i = 0; i < 8; i++) {
        span[i] = (uint8_t)((uint64_t)e.at >> (8 * i));
        span[8 + i] = (uint8_t)((uint64_t)(e.end - e.at) >> (8 * i));
    }
    DR_TRY(put_varint(s, SPAN_BYTES));
    DR_TRY(dr_buf_add(&s->copy, span, sizeof(span)));
done:
    return st;
}

/* A value with a length: a message, a weight, or bytes that are copied. */
static dr_status delimited(scan *s, extent *e, const ProtobufCMessageDescriptor *desc,
                           const ProtobufCFieldDescriptor *field, int depth)
{
    size_t start = e->at;
    uint64_t n = 0;
    dr_status st = DR_OK;

    DR_TRY(varint(s, e, &n));
    if (n > e->end - e->at)
        DR_FAIL(DR_EFORMAT, "%s: byte %zu: a field of %llu bytes runs past its message",
                s->path, start, (unsigned long long)n);
    extent value = {e->at, e->at + (size_t)n};
    e->at = value.end;
    if (field != NULL && field->type == PROTOBUF_C_TYPE_MESSAGE) {
        DR_TRY(submessage(s, value, field->descriptor, depth));
    } else if (desc == &onnx__tensor_proto__descriptor && field != NULL &&
               field->id == RAW_DATA) {
        DR_TRY(put_span(s, value));
    } else {
        /* a packed number of one byte becomes eight; a string has its pointer */
        bool text = field != NULL && (field->type == PROTOBUF_C_TYPE_STRING ||
                                      field->type == PROTOBUF_C_TYPE_BYTES);
        DR_TRY(count(s, start, text ? (size_t)n + 32 : (size_t)n * 8 + 64));
        DR_TRY(put_varint(s, n));
        DR_TRY(dr_buf_add(&s->copy, s->data + value.at, (size_t)n));
    }
done:
    return st;
}

/* A value of fixed size. */
static dr_status fixed(scan *s, extent *e, size_t n)
{
    if (n > e->end - e->at)
        return bad(s, e->at, "a field runs past its message");
    e->at += n;
    return dr_buf_add(&s->copy, s->data + e->at - n, n);
}

static dr_status message(scan *s, extent e, const ProtobufCMessageDescriptor *desc,
                         int depth)
{
    uint64_t key = 0, v = 0;
    dr_status st = DR_OK;

    if (++s->messages > ONNX_SCAN_MESSAGES)
        return bad(s, e.at, "more than 4 million messages");
    DR_TRY(count(s, e.at, desc->sizeof_message + 16));
    while (e.at < e.end) {
        size_t start = e.at;
        DR_TRY(varint(s, &e, &key));
        if (key >> 3 == 0 || key >> 3 > 0x1fffffff)
            DR_TRY(bad(s, start, "no field has this number"));
        const ProtobufCFieldDescriptor *field =
            protobuf_c_message_descriptor_get_field(desc, (unsigned)(key >> 3));
        DR_TRY(put_varint(s, key));
        switch (key & 7) {
        case 0:
            DR_TRY(varint(s, &e, &v));
            DR_TRY(put_varint(s, v));
            DR_TRY(count(s, start, field != NULL ? 8 : 64));
            break;
        case 1:
        case 5:
            DR_TRY(fixed(s, &e, (key & 7) == 1 ? 8 : 4));
            DR_TRY(count(s, start, field != NULL ? 8 : 64));
            break;
        case 2:
            DR_TRY(delimited(s, &e, desc, field, depth));
            break;
        default:
            DR_TRY(bad(s, start, "expected a field of ONNX, found a group"));
        }
    }
done:
    return st;
}

/* ---- the door ---- */

dr_status onnx_file_open(onnx_file *f, const char *path)
{
    scan s = {.path = path};
    dr_status st = DR_OK;

    *f = (onnx_file){0};
    dr_buf_init(&s.copy, ONNX_SCAN_BYTES);
    DR_TRY(dr_map_open(&f->map, path));
    s.data = f->map.data;
    DR_TRY(message(&s, (extent){0, f->map.size}, &onnx__model_proto__descriptor, 0));
    f->model = onnx__model_proto__unpack(NULL, s.copy.len, (const uint8_t *)s.copy.data);
    if (f->model == NULL)
        DR_FAIL(DR_EFORMAT, "%s: a field is not of the type that ONNX gives it", path);
    if (f->model->graph == NULL)
        DR_FAIL(DR_EFORMAT, "%s: no ONNX model: it has no graph", path);
done:
    dr_buf_release(&s.copy);
    if (st != DR_OK)
        onnx_file_close(f);
    return st;
}

void onnx_file_close(onnx_file *f)
{
    if (f->model != NULL)
        onnx__model_proto__free_unpacked(f->model, NULL);
    dr_map_close(&f->map);
    *f = (onnx_file){0};
}

int onnx_by_text(const void *a, const void *b)
{
    const char *const *p = a, *const *q = b;

    return strcmp(*p, *q);
}

bool onnx_raw_span(const Onnx__TensorProto *t, uint64_t *offset, uint64_t *bytes)
{
    *offset = *bytes = 0;
    if (!t->has_raw_data || t->raw_data.len != SPAN_BYTES)
        return false;
    for (size_t i = 0; i < 8; i++) {
        *offset |= (uint64_t)t->raw_data.data[i] << (8 * i);
        *bytes |= (uint64_t)t->raw_data.data[8 + i] << (8 * i);
    }
    return true;
}
