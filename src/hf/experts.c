/*
 * experts.c - mixtures of experts: where files keep them, and reading them as one stack of
 * rows a layer, the order in which ONNX Runtime takes them.
 *
 *   Qwen 3     mlp.gate.weight [E, D]; mlp.experts.N.gate_proj, up_proj [I, D], down_proj
 *              [D, I] each by itself
 *   gpt-oss    mlp.router.weight [E, D] and bias [E]; mlp.experts.gate_up_proj [E, D, 2I],
 *              gate and up in turn, down_proj [E, I, D], inputs down the rows; biases
 *              [E, 2I] and [E, D]; self_attn.sinks [H].  Or as they were trained, MXFP4:
 *              gate_up_proj_blocks [E, 2I, D/32, 16] and _scales [E, 2I, D/32], two values
 *              of 4 bits (sign, 2 exponent bits, 1 of fraction) in a byte, a power of two
 *              for each 32 (OCP Microscaling Formats 1.0)
 */
#include "hf/roles_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MX_BLOCK = 32 };

typedef struct {
    char text[HF_NAME_MAX];
} name;

static name name_of(int layer, const char *leaf)
{
    name n;

    (void)snprintf(n.text, sizeof(n.text), "model.layers.%d.%s", layer, leaf);
    return n;
}

static const hf_entry *find(const hf_model *m, int layer, const char *leaf)
{
    return hf_entry_find(m, name_of(layer, leaf).text);
}

size_t hf_expert_out(const hf_config *c, hf_expert_part part)
{
    return part == HF_EXPERT_GATE_UP ? 2 * (size_t)c->experts.inner : (size_t)c->hidden;
}

size_t hf_expert_in(const hf_config *c, hf_expert_part part)
{
    return part == HF_EXPERT_GATE_UP ? (size_t)c->hidden : (size_t)c->experts.inner;
}

/* "gate_proj", "up_proj" or "down_proj" of one expert. */
static const hf_entry *single(const hf_model *m, int layer, size_t expert, const char *leaf)
{
    char text[64];

    (void)snprintf(text, sizeof(text), "mlp.experts.%zu.%s.weight", expert, leaf);
    return find(m, layer, text);
}

static const char *const stacks[] = {
    [HF_EXPERT_GATE_UP] = "mlp.experts.gate_up_proj",
    [HF_EXPERT_DOWN] = "mlp.experts.down_proj",
};

/* A tensor of all experts: "", "_bias", "_blocks", "_scales". */
static const hf_entry *stack(const hf_model *m, int layer, hf_expert_part part,
                             const char *suffix)
{
    char text[64];

    (void)snprintf(text, sizeof(text), "%s%s", stacks[part], suffix);
    return find(m, layer, text);
}

/* ---- checking ---- */

static dr_status missing(const hf_model *m, int layer, const char *leaf)
{
    return dr_fail(DR_EFORMAT, "%s: tensor %s is missing", m->path,
                   name_of(layer, leaf).text);
}

/* dims: the shape, up to a 0. */
static dr_status check(const hf_model *m, const hf_entry *e, const size_t dims[4],
                       bool bytes)
{
    int n = 0;
    bool same = true;

    for (; n < 4 && dims[n] != 0; n++)
        same = same && n < e->ndim && e->dims[n] == (int64_t)dims[n];
    if (!same || e->ndim != n)
        return dr_fail(DR_EFORMAT,
                       "%s: %s: the shape is not what config.json says (%zu x %zu...)",
                       m->path, e->t.name, dims[0], dims[1]);
    if (bytes ? e->t.dtype != DR_DTYPE_U8 : e->read == NULL)
        return dr_fail(DR_EUNSUPPORTED, "%s: %s: weights of type %s are not supported",
                       m->path, e->t.name, e->type);
    return DR_OK;
}

static dr_status check_named(const hf_model *m, int layer, const char *leaf,
                             const size_t dims[4])
{
    const hf_entry *e = find(m, layer, leaf);

    return e == NULL ? missing(m, layer, leaf) : check(m, e, dims, false);
}

static dr_status check_singles(const hf_model *m, int layer)
{
    static const char *const leaves[] = {"gate_proj", "up_proj", "down_proj"};
    size_t d = (size_t)m->c.hidden, inner = (size_t)m->c.experts.inner;
    char text[64];
    dr_status st = DR_OK;

    for (int i = 0; i < m->c.experts.count; i++) {
        for (size_t k = 0; k < DR_COUNT(leaves); k++) {
            bool down = k == 2;
            (void)snprintf(text, sizeof(text), "mlp.experts.%d.%s.weight", i, leaves[k]);
            DR_TRY(check_named(m, layer, text,
                               (size_t[4]){down ? d : inner, down ? inner : d}));
        }
    }
done:
    return st;
}

static dr_status check_stack(const hf_model *m, int layer, hf_expert_part part)
{
    size_t e = (size_t)m->c.experts.count, out = hf_expert_out(&m->c, part),
           in = hf_expert_in(&m->c, part);
    const hf_entry *plain = stack(m, layer, part, ""),
                   *blocks = stack(m, layer, part, "_blocks"),
                   *scales = stack(m, layer, part, "_scales");
    char text[64];
    dr_status st = DR_OK;

    if (plain != NULL) {
        DR_TRY(check(m, plain, (size_t[4]){e, in, out}, false));
        if (!dr_dtype_is_float(plain->t.dtype))
            DR_FAIL(DR_EUNSUPPORTED, "%s: %s: experts of type %s are not supported",
                    m->path, plain->t.name, plain->type);
    } else if (blocks == NULL || scales == NULL) {
        DR_TRY(missing(m, layer, stacks[part]));
    } else if (in % MX_BLOCK != 0) {
        DR_FAIL(DR_EFORMAT, "%s: %s: %zu inputs are no multiple of %d", m->path,
                blocks->t.name, in, MX_BLOCK);
    } else {
        DR_TRY(check(m, blocks, (size_t[4]){e, out, in / MX_BLOCK, MX_BLOCK / 2}, true));
        DR_TRY(check(m, scales, (size_t[4]){e, out, in / MX_BLOCK}, true));
    }
    (void)snprintf(text, sizeof(text), "%s_bias", stacks[part]);
    if (m->c.experts.bias)
        DR_TRY(check_named(m, layer, text, (size_t[4]){e, out}));
done:
    return st;
}

static const char *router(const hf_model *m)
{
    return m->c.experts.bias ? "mlp.router.weight" : "mlp.gate.weight";
}

dr_status hf_experts_check(const hf_model *m, int layer)
{
    size_t e = (size_t)m->c.experts.count;
    dr_status st = DR_OK;

    if (m->c.sinks)
        DR_TRY(check_named(m, layer, "self_attn.sinks", (size_t[4]){(size_t)m->c.heads}));
    if (e == 0)
        goto done;
    DR_TRY(check_named(m, layer, router(m), (size_t[4]){e, (size_t)m->c.hidden}));
    if (m->c.experts.bias)
        DR_TRY(check_named(m, layer, "mlp.router.bias", (size_t[4]){e}));
    if (!m->c.experts.bias) {
        DR_TRY(check_singles(m, layer));
    } else {
        DR_TRY(check_stack(m, layer, HF_EXPERT_GATE_UP));
        DR_TRY(check_stack(m, layer, HF_EXPERT_DOWN));
    }
done:
    return st;
}

/* ---- reading ---- */

/* dst[count][in] = rows row .. of one expert. */
static dr_status read_single(const hf_model *m, int layer, hf_expert_part part,
                             size_t expert, size_t row, size_t count, float *dst)
{
    size_t in = hf_expert_in(&m->c, part);
    dr_status st = DR_OK;

    if (part == HF_EXPERT_DOWN)
        return hf_entry_read(m, single(m, layer, expert, "down_proj"), dst, row, count);
    const hf_entry *const turns[2] = {single(m, layer, expert, "gate_proj"),
                                      single(m, layer, expert, "up_proj")};
    for (size_t i = 0; i < count; i++)
        DR_TRY(hf_entry_read(m, turns[(row + i) % 2], dst + i * in, (row + i) / 2, 1));
done:
    return st;
}

/* dst[count][in] from columns col .. of the expert's [in][out]. */
static void read_columns(const hf_entry *e, size_t expert, size_t in, size_t out,
                         size_t col, size_t count, float *dst)
{
    size_t size = dr_dtype_bytes(e->t.dtype);
    float part[64];

    for (size_t i = 0; i < in; i++) {
        const char *row = (const char *)e->t.data + ((expert * in + i) * out + col) * size;
        for (size_t c = 0; c < count; c += DR_COUNT(part)) {
            size_t n = count - c < DR_COUNT(part) ? count - c : DR_COUNT(part);
            dr_to_f32(part, row + c * size, e->t.dtype, n);
            for (size_t k = 0; k < n; k++)
                dst[(c + k) * in + i] = part[k];
        }
    }
}

static void read_mx(const hf_entry *blocks, const hf_entry *scales, size_t row, size_t in,
                    float *dst)
{
    static const float values[16] = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
                                     -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    const uint8_t *code = (const uint8_t *)blocks->t.data + row * in / 2;
    const uint8_t *scale = (const uint8_t *)scales->t.data + row * (in / MX_BLOCK);

    for (size_t i = 0; i < in; i += 2, code++) {
        int power = scale[i / MX_BLOCK] - 127;
        dst[i] = ldexpf(values[*code & 15], power);
        dst[i + 1] = ldexpf(values[*code >> 4], power);
    }
}

dr_status hf_expert_read(const hf_model *m, int layer, hf_expert_part part, float *dst,
                         size_t row0, size_t count)
{
    size_t out = hf_expert_out(&m->c, part), in = hf_expert_in(&m->c, part);
    const hf_entry *plain = stack(m, layer, part, ""),
                   *blocks = stack(m, layer, part, "_blocks"),
                   *scales = stack(m, layer, part, "_scales");
    dr_status st = DR_OK;

    DR_BUG_IF(row0 + count > out * (size_t)m->c.experts.count);
    for (size_t have = 0, n = 0; have < count; have += n) {
        size_t row = row0 + have, expert = row / out, at = row % out;
        float *to = dst + have * in;
        n = out - at < count - have ? out - at : count - have;
        if (plain != NULL) {
            read_columns(plain, expert, in, out, at, n, to);
        } else if (blocks != NULL) {
            for (size_t i = 0; i < n; i++)
                read_mx(blocks, scales, row + i, in, to + i * in);
        } else {
            DR_TRY(read_single(m, layer, part, expert, at, n, to));
        }
    }
done:
    return st;
}

dr_status hf_expert_bias(const hf_model *m, int layer, hf_expert_part part, float *dst)
{
    size_t e = (size_t)m->c.experts.count;

    if (m->c.experts.bias)
        return hf_entry_read(m, stack(m, layer, part, "_bias"), dst, 0, e);
    memset(dst, 0, e * hf_expert_out(&m->c, part) * sizeof(*dst));
    return DR_OK;
}

dr_status hf_router_read(const hf_model *m, int layer, float *dst)
{
    return hf_entry_read(m, find(m, layer, router(m)), dst, 0, (size_t)m->c.experts.count);
}

dr_status hf_router_bias(const hf_model *m, int layer, float *dst)
{
    if (m->c.experts.bias)
        return hf_entry_read(m, find(m, layer, "mlp.router.bias"), dst, 0, 1);
    memset(dst, 0, (size_t)m->c.experts.count * sizeof(*dst));
    return DR_OK;
}

dr_status hf_sinks_read(const hf_model *m, int layer, float *dst)
{
    DR_BUG_IF(!m->c.sinks);
    return hf_entry_read(m, find(m, layer, "self_attn.sinks"), dst, 0, 1);
}
