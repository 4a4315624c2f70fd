/*
 * lycoris.c - LoHa and LoKr adapters as PEFT keeps them.
 *
 *     LoHa (Hyeon-Woo et al. 2021)   dW = s (w1_a w1_b) o (w2_a w2_b), element by element
 *     LoKr (Yeh et al. 2023)         dW = s w1 (x) w2, the Kronecker product; w1 or w2 may
 *                                    be a product of two of rank r, too
 *
 * The config has alpha where LoRA's has lora_alpha; s = alpha / r.  Tensors are
 * base_model.model.<module>.hada_w1_a and so on, .lokr_w1 or .lokr_w1_a and .lokr_w1_b.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/mem.h"
#include "hf/peft_impl.h"

/* ---- shapes ---- */

size_t hf_factor_count(const hf_lora_module *mod)
{
    size_t n = 0;

    for (size_t i = 0; i < HF_FACTORS; i++)
        n += mod->f[i].rows * mod->f[i].cols;
    return n;
}

/* Two numbers whose product is n, near the root of n, or the first one near factor; as
 * peft.tuners.lokr.layer.factorization. */
static void split(size_t *small, size_t *large, size_t n, int factor)
{
    size_t most = factor < 0 ? n : (size_t)factor, m = 1, k = n;

    if (factor > 0 && n % (size_t)factor == 0) {
        *small = (size_t)factor;
        *large = n / (size_t)factor;
        return;
    }
    size_t length = m + k;
    while (m < k) {
        size_t next = m + 1;
        while (n % next != 0)
            next++;
        if (next + n / next > length || next > most)
            break;
        m = next;
        k = n / next;
    }
    *small = m < k ? m : k;
    *large = m < k ? k : m;
}

static hf_factor shape(size_t rows, size_t cols)
{
    return (hf_factor){.rows = rows, .cols = cols};
}

/* A matrix of rows x cols, or two of rank r where that is less. */
static void part(hf_factor f[2], size_t rows, size_t cols, size_t r, bool may)
{
    size_t most = rows > cols ? rows : cols;
    bool two = may && 2 * r < most;

    f[0] = shape(rows, two ? r : cols);
    f[1] = shape(two ? r : 0, two ? cols : 0);
}

void hf_lycoris_shapes(hf_lora_module *mod, const hf_adapter *a)
{
    size_t r = (size_t)mod->r, l, k, m, n;

    mod->kind = a->kind;
    if (a->kind == HF_ADAPTER_LOHA) {
        mod->f[0] = mod->f[2] = shape(mod->n_out, r);
        mod->f[1] = mod->f[3] = shape(r, mod->n_in);
        return;
    }
    split(&m, &n, mod->n_in, a->decompose_factor);
    split(&l, &k, mod->n_out, a->decompose_factor);
    part(&mod->f[0], l, m, r, a->decompose_both);
    part(&mod->f[2], k, n, r, true);
}

/* ---- reading ---- */

static const char *const tails[2][6] = {
    {".hada_w1_a", ".hada_w1_b", ".hada_w2_a", ".hada_w2_b", "", ""},
    {".lokr_w1_a", ".lokr_w1_b", ".lokr_w2_a", ".lokr_w2_b", ".lokr_w1", ".lokr_w2"}};

static dr_status take(hf_adapter *out, const dr_tensor *t, const char *where)
{
    size_t p = sizeof(HF_PEFT_PREFIX) - 1, n = strlen(t->name);
    void *values = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0; i < 6; i++) {
        const char *tail = tails[out->kind - HF_ADAPTER_LOHA][i];
        size_t k = strlen(tail);
        if (k == 0 || n <= p + k || strncmp(t->name, HF_PEFT_PREFIX, p) != 0 ||
            strcmp(t->name + n - k, tail) != 0)
            continue;
        if (t->ndim != 2 || !dr_dtype_is_float(t->dtype) || t->dims[0] < 1 ||
            t->dims[1] < 1)
            DR_FAIL(DR_EFORMAT,
                    "%s: %s: expected a matrix of numbers, found %d dimensions of %s",
                    where, t->name, t->ndim, dr_dtype_name(t->dtype));
        hf_lora_module *mod =
            hf_adapter_module(out, dr_arena_strndup(&out->arena, t->name + p, n - p - k));
        hf_factor *f = &mod->f[i < 4 ? i : (i - 4) * 2];
        DR_TRY(
            dr_arena_big(&out->arena, &values, dr_tensor_count(t), sizeof(float), t->name));
        dr_to_f32(values, t->data, t->dtype, dr_tensor_count(t));
        if (f->data != NULL)
            DR_FAIL(DR_EFORMAT, "%s: %s: there already", where, t->name);
        *f = (hf_factor){values, (size_t)t->dims[0], (size_t)t->dims[1]};
        return DR_OK;
    }
    DR_FAIL(DR_EUNSUPPORTED, "%s: %s: no matrix of a linear", where, t->name);
done:
    return st;
}

/* Do the factors multiply to [n_out, n_in]? */
static dr_status check_factors(hf_lora_module *mod, hf_adapter_kind kind, const char *where)
{
    hf_factor *f = mod->f;
    size_t outs[2], ins[2];

    mod->kind = kind;
    for (size_t i = 0; i < 4; i += 2) {
        bool two = f[i + 1].data != NULL;
        if (f[i].data == NULL || (kind == HF_ADAPTER_LOHA && !two))
            return dr_fail(DR_EFORMAT, "%s: %s lacks a part of w%zu", where, mod->module,
                           i / 2 + 1);
        if (two && f[i].cols != f[i + 1].rows)
            return dr_fail(DR_EFORMAT, "%s: %s: ranks %zu and %zu in w%zu", where,
                           mod->module, f[i].cols, f[i + 1].rows, i / 2 + 1);
        outs[i / 2] = f[i].rows;
        ins[i / 2] = two ? f[i + 1].cols : f[i].cols;
    }
    if (kind == HF_ADAPTER_LOKR) {
        mod->n_out = outs[0] * outs[1];
        mod->n_in = ins[0] * ins[1];
        return DR_OK;
    }
    if (outs[0] != outs[1] || ins[0] != ins[1])
        return dr_fail(DR_EFORMAT, "%s: %s: [%zu, %zu] and [%zu, %zu]", where, mod->module,
                       outs[0], ins[0], outs[1], ins[1]);
    mod->n_out = outs[0];
    mod->n_in = ins[0];
    return DR_OK;
}

static dr_status check_fit(const hf_lora_module *mod, const hf_model *m, const char *where)
{
    const hf_linear *l = m != NULL ? hf_find_linear(m, mod->module) : NULL;
    dr_status st;

    if (m == NULL)
        return DR_OK;
    if (l == NULL) {
        st = dr_fail(DR_EFORMAT, "%s: %s is no linear of the model", where, mod->module);
        dr_hint("the adapter was trained on another model");
        return st;
    }
    if (l->n_in != mod->n_in || l->n_out != mod->n_out)
        return dr_fail(DR_EFORMAT, "%s: %s: made for [%zu, %zu], the model has [%zu, %zu]",
                       where, mod->module, mod->n_out, mod->n_in, l->n_out, l->n_in);
    return DR_OK;
}

static dr_status read_config(hf_adapter *out, const json_t *o, const char *where)
{
    int64_t r = 8, factor = -1;
    dr_status st = DR_OK;

    out->alpha = 8;
    DR_TRY(dr_json_int(o, "r", &r, where));
    DR_TRY(dr_json_real(o, "alpha", &out->alpha, where));
    DR_TRY(dr_json_bool(o, "decompose_both", &out->decompose_both, where));
    DR_TRY(dr_json_int(o, "decompose_factor", &factor, where));
    if (r < 1 || r > 1 << 16 || !(fabs(out->alpha) <= 1e9) || factor < -1 ||
        factor > 1 << 30)
        DR_FAIL(DR_EFORMAT, "%s: r %lld, alpha %g or decompose_factor %lld is out of range",
                where, (long long)r, out->alpha, (long long)factor);
    out->r = (int)r;
    out->decompose_factor = (int)factor;
    DR_TRY(hf_adapter_refuse_extras(o, where));
done:
    return st;
}

dr_status hf_lycoris_open(hf_adapter *out, const json_t *o, const hf_model *m,
                          const char *dir, const char *where)
{
    dr_map map = {0};
    dr_tensor *tensors = NULL;
    const char *path = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    DR_TRY(read_config(out, o, where));
    DR_TRY(hf_adapter_tensors(&out->arena, &map, &path, &tensors, &n, dir));
    if (n == 0)
        DR_FAIL(DR_EFORMAT, "%s: no tensors", path);
    out->modules = dr_calloc(n, sizeof(*out->modules));
    for (size_t i = 0; i < n; i++)
        DR_TRY(take(out, &tensors[i], path));
    hf_adapter_sort(out);
    for (size_t i = 0; i < out->count; i++) {
        hf_lora_module *mod = &out->modules[i];
        double r = out->r, alpha = out->alpha;
        DR_TRY(check_factors(mod, out->kind, path));
        DR_TRY(check_fit(mod, m, path));
        DR_TRY(
            hf_adapter_by_pattern(&r, dr_json_get(o, "rank_pattern"), mod->module, where));
        DR_TRY(hf_adapter_by_pattern(&alpha, dr_json_get(o, "alpha_pattern"), mod->module,
                                     where));
        if (!(r >= 1 && r <= 1 << 16))
            DR_FAIL(DR_EFORMAT, "%s: rank of %s: %g", where, mod->module, r);
        mod->r = (int)r;
        mod->scale = (float)(alpha / r);
    }
done:
    dr_map_close(&map);
    return st;
}

/* ---- dW ---- */

/* out = row i of a matrix, or of a product of two. */
static void factor_row(float *out, size_t cols, const hf_factor f[2], size_t i)
{
    const float *row = f[0].data + i * f[0].cols;

    if (f[1].rows == 0) {
        memcpy(out, row, cols * sizeof(*out));
        return;
    }
    memset(out, 0, cols * sizeof(*out));
    for (size_t j = 0; j < f[1].rows; j++)
        for (size_t k = 0; k < cols; k++)
            out[k] += row[j] * f[1].data[j * cols + k];
}

static size_t columns(const hf_factor f[2])
{
    return f[1].rows > 0 ? f[1].cols : f[0].cols;
}

void hf_lycoris_add_row(float *w, const hf_lora_module *mod, size_t row)
{
    const hf_factor *f = mod->f;
    size_t left = columns(&f[0]), right = columns(&f[2]), high = f[2].rows;
    bool kron = mod->kind == HF_ADAPTER_LOKR;
    float *p = dr_calloc(left + right, sizeof(*p)), *q = p + left;

    factor_row(p, left, &f[0], kron ? row / high : row);
    factor_row(q, right, &f[2], kron ? row % high : row);
    for (size_t k = 0; k < mod->n_in; k++)
        w[k] += kron ? p[k / right] * q[k % right] * mod->scale : p[k] * q[k] * mod->scale;
    free(p);
}

/* ---- writing ---- */

json_t *hf_lycoris_config(const hf_adapter *a, const char *base_model, json_t *targets)
{
    return json_pack(
        "{s:o, s:n, s:s?, s:n, s:b, s:b, s:n, s:n, s:f, s:n, s:s, s:i, s:f, s:n, s:o, "
        "s:s, s:b}",
        "alpha", hf_adapter_number(a->alpha), "auto_mapping", "base_model_name_or_path",
        base_model, "exclude_modules", "inference_mode", 1, "init_weights", 1,
        "layers_pattern", "layers_to_transform", "module_dropout", a->module_dropout,
        "modules_to_save", "peft_type", a->kind == HF_ADAPTER_LOHA ? "LOHA" : "LOKR", "r",
        a->r, "rank_dropout", a->dropout, "revision", "target_modules", targets,
        "task_type", "CAUSAL_LM", "use_effective_conv2d", 0);
}

void hf_lokr_keys(json_t *config, const hf_adapter *a)
{
    json_object_set_new(config, "decompose_both", json_boolean(a->decompose_both));
    json_object_set_new(config, "decompose_factor", json_integer(a->decompose_factor));
    json_object_set_new(config, "rank_dropout_scale", json_boolean(a->rank_dropout_scale));
}

size_t hf_lycoris_tensors(dr_tensor *t, dr_arena *arena, const hf_lora_module *mod,
                          hf_adapter_kind kind)
{
    const char *const *names = tails[kind - HF_ADAPTER_LOHA];
    size_t n = 0;

    for (size_t k = 0; k < HF_FACTORS; k++) {
        const hf_factor *f = &mod->f[k];
        bool whole = k % 2 == 0 && f[1].rows == 0;
        if (f->rows > 0)
            hf_adapter_tensor(&t[n++], arena, mod, names[whole ? 4 + k / 2 : k],
                              (int64_t)f->rows, (int64_t)f->cols, f->data);
    }
    return n;
}
