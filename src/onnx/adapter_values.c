/*
 * adapter_values.c - an adapter as a list of named values.
 *
 * A is [R][K] and B [N][R] in PEFT; a product in a graph wants [K][R] and [R][N].  Packed
 * they stay as they are: MatMulNBits' rows are the outputs.
 */
#include <math.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "onnx/onnx.h"
#include "onnx/weight_impl.h"

typedef struct {
    dr_arena *a;
    dr_tensor *list; /* arena */
    size_t count;
    const onnx_adapter_form *form;
} values;

/* One half of a module: rows of PEFT's matrix, and what they are multiplied with. */
typedef struct {
    const char *name; /* "model.layers.0.self_attn.q_proj.lora_A" */
    const float *rows;
    size_t count, cols;
    float scale;
} half;

static dr_status new_tensor(values *v, dr_tensor **out, const char *name, dr_dtype dtype,
                            int ndim, const size_t *dims)
{
    dr_tensor *t = &v->list[v->count++];
    size_t n = 1;
    void *data = NULL;
    dr_status st = DR_OK;

    *t = (dr_tensor){.name = name, .dtype = dtype, .ndim = ndim};
    for (int i = 0; i < ndim; i++) {
        t->dims[i] = (int64_t)dims[i];
        if (!dr_mul(&n, n, dims[i]))
            DR_FAIL(DR_ENOMEM, "%s: its size overflows", name);
    }
    DR_TRY(dr_arena_big(v->a, &data, n, dr_dtype_bytes(dtype), name));
    t->data = data;
    t->bytes = n * dr_dtype_bytes(dtype);
    *out = t;
done:
    return st;
}

/* n floats as values of t, whose finite ones stay finite. */
static dr_status narrow(dr_tensor *t, const float *src, size_t n)
{
    union {
        const void *c;
        void *p;
    } data = {.c = t->data}; /* made by new_tensor, not const there */
    const uint16_t *bits = t->data;

    dr_from_f32(data.p, src, t->dtype, n);
    for (size_t i = 0; i < n; i++) {
        bool bad = !isfinite(src[i]);
        if (t->dtype == DR_DTYPE_F16)
            bad = bad || (bits[i] & 0x7c00) == 0x7c00;
        else if (t->dtype == DR_DTYPE_BF16)
            bad = bad || (bits[i] & 0x7f80) == 0x7f80;
        if (!bad)
            continue;
        dr_status st =
            dr_fail(DR_EFORMAT, "%s: the value %g does not fit %s", t->name, (double)src[i],
                    t->dtype == DR_DTYPE_F16    ? "float16"
                    : t->dtype == DR_DTYPE_BF16 ? "bfloat16"
                                                : "an adapter");
        if (isfinite(src[i]))
            dr_hint("float32 holds it");
        return st;
    }
    return DR_OK;
}

static dr_status add_floats(values *v, const half *h)
{
    const size_t dims[2] = {h->cols, h->count};
    void *turned = NULL;
    dr_tensor *t = NULL;
    dr_status st = DR_OK;

    DR_TRY(new_tensor(v, &t, dr_arena_printf(v->a, "%s.weight", h->name), v->form->dtype, 2,
                      dims));
    DR_TRY(dr_big_alloc(&turned, h->count * h->cols, sizeof(float), t->name));
    onnx_transpose(turned, h->count, 0, h->rows, h->count, h->cols, 0, h->cols,
                   sizeof(float));
    float *x = turned;
    for (size_t i = 0; h->scale != 1.0f && i < h->count * h->cols; i++)
        x[i] *= h->scale;
    DR_TRY(narrow(t, x, h->count * h->cols));
done:
    dr_big_free(turned);
    return st;
}

static dr_status add_packed(values *v, const half *h)
{
    const onnx_adapter_form *f = v->form;
    const onnx_grid grid = {.bits = 4, .block = f->block, .symmetric = f->symmetric};
    size_t block = (size_t)f->block, kb = (h->cols + block - 1) / block;
    size_t scales = h->count * kb, zero_bytes = h->count * ((kb + 1) / 2), bad = 0;
    void *rows = NULL, *found = NULL;
    dr_tensor *codes = NULL, *scale = NULL, *zeros = NULL;
    union {
        const void *c;
        uint8_t *p;
    } to = {0}, zero_to = {0};
    dr_status st = DR_OK;

    DR_TRY(new_tensor(v, &codes, dr_arena_printf(v->a, "%s.quant.weight", h->name),
                      DR_DTYPE_U8, 3, (const size_t[]){h->count, kb, block / 2}));
    DR_TRY(new_tensor(v, &scale, dr_arena_printf(v->a, "%s.quant.scale", h->name), f->dtype,
                      1, (const size_t[]){scales}));
    if (!f->symmetric) {
        DR_TRY(new_tensor(v, &zeros, dr_arena_printf(v->a, "%s.quant.zero_point", h->name),
                          DR_DTYPE_U8, 1, (const size_t[]){zero_bytes}));
        zero_to.c = zeros->data;
    }
    DR_TRY(dr_big_alloc(&rows, h->count, h->cols * sizeof(float), h->name));
    DR_TRY(dr_big_alloc(&found, scales, sizeof(float), h->name));
    float *x = rows;
    for (size_t i = 0; i < h->count * h->cols; i++)
        x[i] = h->rows[i] * h->scale;
    to.c = codes->data;
    if (!onnx_block_quantize(to.p, found, zero_to.p, x, h->count, h->cols, &grid, &bad))
        DR_FAIL(DR_EFORMAT, "%s: row %zu has a value that is not finite", h->name, bad);
    DR_TRY(narrow(scale, found, scales));
done:
    dr_big_free(rows);
    dr_big_free(found);
    return st;
}

static dr_status add_module(values *v, const hf_lora_module *m)
{
    size_t r = (size_t)m->r;
    const half halves[2] = {
        {dr_arena_printf(v->a, "%s.lora_A", m->module), m->a, r, m->n_in, 1.0f},
        {dr_arena_printf(v->a, "%s.lora_B", m->module), m->b, m->n_out, r, m->scale}};
    dr_tensor *t = NULL;
    dr_status st = DR_OK;

    for (int i = 0; i < 2; i++)
        DR_TRY(v->form->int4 ? add_packed(v, &halves[i]) : add_floats(v, &halves[i]));
    if (m->magnitude == NULL)
        return DR_OK;
    if (m->factor == NULL) {
        st = dr_fail(DR_EUSAGE, "%s: a DoRA adapter is converted with its base model",
                     m->module);
        dr_hint("name the base model with -m");
        goto done;
    }
    DR_TRY(new_tensor(v, &t, dr_arena_printf(v->a, "%s.lora_magnitude_vector", m->module),
                      v->form->dtype, 1, (const size_t[]){m->n_out}));
    DR_TRY(narrow(t, m->factor, m->n_out));
done:
    return st;
}

dr_status onnx_adapter_tensors(dr_arena *a, dr_tensor **out, size_t *count,
                               const hf_adapter *ad, const onnx_adapter_form *form)
{
    values v = {.a = a, .form = form};
    dr_status st = DR_OK;

    v.list = dr_arena_alloc(a, 7 * ad->count + 1, sizeof(*v.list));
    for (size_t i = 0; i < ad->count; i++) {
        DR_TRY(dr_cancelled_check());
        DR_TRY(add_module(&v, &ad->modules[i]));
    }
    *out = v.list;
    *count = v.count;
done:
    return st;
}
