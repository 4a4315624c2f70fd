/*
 * bnb.c - linears that bitsandbytes quantized to 4 bits (nf4, fp4), read as floats.
 *
 * The weight [N, K] is one run of N * K elements in blocks (64 of them); a block has a
 * scale, absmax, and an element is one of 16 numbers times that.  Element 2i is the high
 * nibble of byte i.  With double quantization absmax is itself a byte: one of 256 numbers
 * times the scale of its own block (256 of them), plus an offset.
 *
 *   W.weight                          bytes [N * K / 2], whatever type they are filed under
 *   W.weight.quant_map                16 floats
 *   W.weight.absmax                   float, or bytes when nested
 *   W.weight.nested_absmax, .nested_quant_map   float; 256 floats
 *   W.weight.quant_state.bitsandbytes__nf4      JSON: shape, blocksize, nested_blocksize,
 *                                               nested_offset, quant_type
 *
 * The numbers are not evenly spaced, so no packed form of drupe's can carry them.  Source:
 * bitsandbytes, functional.py, QuantState.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "hf/roles_impl.h"

enum { LEVELS = 16, NESTED_LEVELS = 256, BLOCK_MAX = 4096 };

/* One linear's grid. */
struct grid {
    float levels[LEVELS];
    const float *nested_levels; /* arena: [NESTED_LEVELS]; NULL: absmax is float */
    size_t block, nested_block;
    float offset;
    const char *type; /* "nf4" */
};

static const hf_entry *find(const hf_model *m, const hf_linear *l, const char *part)
{
    char name[HF_NAME_MAX];

    (void)snprintf(name, sizeof(name), "%s.weight%s", l->path, part);
    return hf_entry_find(m, name);
}

/* A part that must be there with so many elements; what: to_f32 or bytes. */
static dr_status need(const hf_model *m, const hf_linear *l, const char *part,
                      const hf_entry **out, size_t count, dr_dtype dtype)
{
    const hf_entry *e = find(m, l, part);

    *out = e;
    if (e == NULL)
        return dr_fail(DR_EFORMAT, "%s: tensor %s.weight%s is missing", m->path, l->path,
                       part);
    if (e->t.dtype != dtype || e->rows * e->cols != count)
        return dr_fail(DR_EFORMAT, "%s: %s: expected %zu of %s, found %zu of %s", m->path,
                       e->t.name, count, dr_dtype_name(dtype), e->rows * e->cols, e->type);
    return DR_OK;
}

/* A size of the state: a power of two of some range. */
static dr_status block_size(const json_t *o, const char *key, size_t *out,
                            const char *where)
{
    int64_t v = 0;
    dr_status st = dr_json_int(o, key, &v, where);

    if (st == DR_OK && (v < 16 || v > BLOCK_MAX || (v & (v - 1)) != 0))
        return dr_fail(DR_EFORMAT, "%s: %s: %lld is out of range", where, key,
                       (long long)v);
    *out = (size_t)v;
    return st;
}

static dr_status parse_state(const hf_model *m, const hf_linear *l, struct grid *g,
                             const hf_entry *e, bool nested)
{
    const char *where = e->t.name;
    const json_t *shape = NULL;
    double offset = 0;
    json_t *o = NULL;
    dr_status st = DR_OK;

    if (e->t.dtype != DR_DTYPE_U8)
        DR_FAIL(DR_EFORMAT, "%s: %s: expected U8, found %s", m->path, where, e->type);
    DR_TRY(dr_json_parse(&o, e->t.data, e->t.bytes, where));
    shape = dr_json_get(o, "shape");
    if (json_array_size(shape) != 2 ||
        json_integer_value(json_array_get(shape, 0)) != (json_int_t)l->n_out ||
        json_integer_value(json_array_get(shape, 1)) != (json_int_t)l->n_in)
        DR_FAIL(DR_EFORMAT, "%s: shape: expected [%zu, %zu] from config.json", where,
                l->n_out, l->n_in);
    DR_TRY(block_size(o, "blocksize", &g->block, where));
    if (nested) {
        DR_TRY(block_size(o, "nested_blocksize", &g->nested_block, where));
        DR_TRY(dr_json_real(o, "nested_offset", &offset, where));
    }
    g->offset = (float)offset;
    if (!isfinite(g->offset))
        DR_FAIL(DR_EFORMAT, "%s: nested_offset: %g is out of range", where, offset);
done:
    json_decref(o);
    return st;
}

/* The state's tensor, whose name says the type. */
static const hf_entry *find_state(const hf_model *m, const hf_linear *l, struct grid *g)
{
    static const char *const types[] = {"nf4", "fp4"};
    char part[64];

    for (size_t i = 0; i < DR_COUNT(types); i++) {
        (void)snprintf(part, sizeof(part), ".quant_state.bitsandbytes__%s", types[i]);
        const hf_entry *e = find(m, l, part);
        g->type = types[i];
        if (e != NULL)
            return e;
    }
    return NULL;
}

static size_t blocks(size_t count, size_t block)
{
    return (count + block - 1) / block;
}

static float absmax_of(const hf_parts *p, const struct grid *g, size_t b)
{
    const unsigned char *absmax = p->scales->t.data;
    float v = 0;

    if (g->nested_levels == NULL) {
        memcpy(&v, absmax + b * sizeof(v), sizeof(v));
        return v;
    }
    const unsigned char *scales = p->others[1]->t.data;
    memcpy(&v, scales + b / g->nested_block * sizeof(v), sizeof(v));
    return g->nested_levels[absmax[b]] * v + g->offset;
}

/* hf_parts.rows */
static dr_status read_rows(const hf_model *m, const hf_linear *l, float *dst, size_t row0,
                           size_t count)
{
    const hf_parts *p = hf_linear_parts(m, l);
    const struct grid *g = p->grid;
    const unsigned char *codes = p->qweight->t.data;
    size_t first = row0 * l->n_in, end = first + count * l->n_in;

    for (size_t e = first; e < end;) {
        size_t b = e / g->block, stop = (b + 1) * g->block;
        float scale = absmax_of(p, g, b);
        for (stop = stop < end ? stop : end; e < stop; e++)
            dst[e - first] = g->levels[codes[e / 2] >> (e % 2 ? 0 : 4) & 15] * scale;
    }
    return DR_OK;
}

dr_status hf_bnb_find(hf_model *m, const hf_linear *l, hf_parts *p)
{
    struct grid *g = dr_arena_alloc(&m->arena, 1, sizeof(*g));
    const hf_entry *state = find_state(m, l, g), *map = NULL;
    size_t n = l->n_out * l->n_in; /* fits: the config's sizes are below 2^31 */
    float *levels = NULL;
    dr_status st = DR_OK;

    if (state == NULL)
        goto done;
    p->qweight = find(m, l, "");
    if (p->qweight == NULL || p->qweight->t.bytes != (n + 1) / 2)
        DR_FAIL(DR_EFORMAT, "%s: %s.weight: expected %zu bytes, found %zu", m->path,
                l->path, (n + 1) / 2, p->qweight ? p->qweight->t.bytes : 0);
    bool nested = find(m, l, ".nested_absmax") != NULL;
    DR_TRY(parse_state(m, l, g, state, nested));
    size_t absmax = blocks(n, g->block);
    p->others[0] = state;
    DR_TRY(need(m, l, ".absmax", &p->scales, absmax, nested ? DR_DTYPE_U8 : DR_DTYPE_F32));
    DR_TRY(need(m, l, ".quant_map", &map, LEVELS, DR_DTYPE_F32));
    memcpy(g->levels, map->t.data, sizeof(g->levels));
    p->others[2] = map;
    if (nested) {
        DR_TRY(need(m, l, ".nested_absmax", &p->others[1], blocks(absmax, g->nested_block),
                    DR_DTYPE_F32));
        DR_TRY(need(m, l, ".nested_quant_map", &p->others[3], NESTED_LEVELS, DR_DTYPE_F32));
        levels = dr_arena_alloc(&m->arena, NESTED_LEVELS, sizeof(float));
        memcpy(levels, p->others[3]->t.data, NESTED_LEVELS * sizeof(float));
        g->nested_levels = levels;
    }
    p->grid = g;
    p->rows = read_rows;
done:
    return st;
}

const char *hf_bnb_origin(hf_model *m)
{
    for (size_t i = 0; i < m->linear_count; i++) {
        const struct grid *g = m->parts[i].grid;
        if (g != NULL)
            return dr_arena_printf(&m->arena, "bitsandbytes %s%s", g->type,
                                   g->nested_levels ? ", double quantization" : "");
    }
    return NULL;
}
