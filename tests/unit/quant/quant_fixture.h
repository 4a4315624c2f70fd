/*
 * quant_fixture.h - small random matrices and models for the tests of quant.
 */
#ifndef DRUPE_TESTS_QUANT_FIXTURE_H
#define DRUPE_TESTS_QUANT_FIXTURE_H

#include <math.h>

#include "check.h"
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/rng.h"
#include "quant/quant_impl.h"

/* n normal numbers times scale; the same for the same stream. */
static inline float *fix_normal(size_t n, uint64_t stream, float scale)
{
    float *v = dr_calloc(n, sizeof(*v));
    dr_rng rng;

    dr_rng_init(&rng, 11, stream);
    for (size_t i = 0; i < n; i++)
        v[i] = dr_rng_normal(&rng) * scale;
    return v;
}

/* Inputs as decoders have them: correlated columns, a few of them large. */
static inline float *fix_inputs(size_t m, size_t k, uint64_t stream)
{
    enum { RANK = 8 };
    float *mix = fix_normal(RANK * k, stream, 0.5f),
          *x = fix_normal(m * k, stream + 1, 0.5f);
    float *u = fix_normal(m * RANK, stream + 2, 1.0f);

    for (size_t r = 0; r < m; r++) {
        for (size_t c = 0; c < k; c++) {
            for (size_t i = 0; i < RANK; i++)
                x[r * k + c] += u[r * RANK + i] * mix[i * k + c];
            x[r * k + c] *= c % 29 == 3 ? 6.0f : 1.0f;
        }
    }
    free(mix);
    free(u);
    return x;
}

/* a[n][n] = its inverse (Gauss-Jordan; positive definite, so no pivoting). */
static inline void fix_invert(double *a, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        double pivot = 1.0 / a[k * n + k];
        for (size_t j = 0; j < n; j++)
            a[k * n + j] *= pivot;
        a[k * n + k] = pivot;
        for (size_t i = 0; i < n; i++) {
            double f = a[i * n + k];
            if (i == k)
                continue;
            a[i * n + k] = 0;
            for (size_t j = 0; j < n; j++)
                a[i * n + j] -= f * a[k * n + j];
        }
    }
}

/* KL of a written checkpoint to its original, on a text. */
static inline double fix_divergence(const hf_model *m, const char *made,
                                    const quant_calib *text)
{
    quant_quality q = {.kl = (double)INFINITY};
    nn_device *dev = NULL;
    hf_model *after = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    if (CHECK_OK(hf_model_open(&after, made)))
        CHECK_OK(quant_compare(&q, dev, m, after, text));
    hf_model_close(after);
    nn_device_close(dev);
    return q.kl;
}

/* x^T x. */
static inline float *fix_gram(const float *x, size_t m, size_t k)
{
    float *h = dr_calloc(k * k, sizeof(*h));

    for (size_t i = 0; i < k; i++) {
        for (size_t j = 0; j <= i; j++) {
            double sum = 0;
            for (size_t r = 0; r < m; r++)
                sum += (double)x[r * k + i] * (double)x[r * k + j];
            h[i * k + j] = h[j * k + i] = (float)sum;
        }
    }
    return h;
}

/* ---- a tiny decoder ---- */

typedef struct {
    bool phi3, bias;
    int hidden, inner, heads, kv_heads, layers, vocab;
} fix_shape;

typedef struct {
    dr_arena *a;
    dr_tensor list[128];
    size_t count;
    uint64_t stream;
} fix_weights;

static inline void fix_add(fix_weights *w, const char *name, int rows, int cols, float mean,
                           float spread)
{
    size_t n = (size_t)rows * (size_t)(cols > 0 ? cols : 1);
    float *v = fix_normal(n, w->stream++, spread);
    uint16_t *to = dr_arena_alloc(w->a, n, sizeof(*to));
    dr_tensor *t = &w->list[w->count++];

    for (size_t i = 0; i < n; i++)
        v[i] += mean;
    dr_from_f32(to, v, DR_DTYPE_BF16, n);
    *t = (dr_tensor){.name = dr_arena_strdup(w->a, name),
                     .dtype = DR_DTYPE_BF16,
                     .ndim = cols > 0 ? 2 : 1,
                     .dims = {rows, cols},
                     .data = to,
                     .bytes = n * sizeof(*to)};
    free(v);
}

static inline void fix_linear(fix_weights *w, int layer, const char *module, int rows,
                              int cols, bool bias)
{
    const char *path = dr_arena_printf(w->a, "model.layers.%d.%s", layer, module);
    float spread = 1.0f / sqrtf((float)cols);

    fix_add(w, dr_arena_printf(w->a, "%s.weight", path), rows, cols, 0, spread);
    if (bias)
        fix_add(w, dr_arena_printf(w->a, "%s.bias", path), rows, 0, 0, 0.3f);
}

static inline void fix_layer(fix_weights *w, const fix_shape *s, int i)
{
    int d = s->hidden, hd = d / s->heads, q = s->heads * hd, kv = s->kv_heads * hd;

    fix_add(w, dr_arena_printf(w->a, "model.layers.%d.input_layernorm.weight", i), d, 0, 1,
            0.4f);
    fix_add(w, dr_arena_printf(w->a, "model.layers.%d.post_attention_layernorm.weight", i),
            d, 0, 1, 0.4f);
    if (s->phi3) {
        fix_linear(w, i, "self_attn.qkv_proj", q + 2 * kv, d, false);
        fix_linear(w, i, "mlp.gate_up_proj", 2 * s->inner, d, false);
    } else {
        fix_linear(w, i, "self_attn.q_proj", q, d, s->bias);
        fix_linear(w, i, "self_attn.k_proj", kv, d, s->bias);
        fix_linear(w, i, "self_attn.v_proj", kv, d, s->bias);
        fix_linear(w, i, "mlp.gate_proj", s->inner, d, false);
        fix_linear(w, i, "mlp.up_proj", s->inner, d, false);
    }
    fix_linear(w, i, "self_attn.o_proj", d, q, false);
    fix_linear(w, i, "mlp.down_proj", d, s->inner, false);
}

/* Writes a folder below the test's temporary one; its path. */
static inline const char *fix_model(dr_arena *a, const char *name, const fix_shape *s)
{
    const char *dir = dr_path_join(a, check_tmp(), name);
    const char *arch =
        s->phi3 ? "Phi3ForCausalLM" : (s->bias ? "Qwen2ForCausalLM" : "LlamaForCausalLM");
    const char *type = s->phi3 ? "phi3" : (s->bias ? "qwen2" : "llama");
    const char *text = dr_arena_printf(
        a,
        "{\"architectures\": [\"%s\"], \"model_type\": \"%s\", \"hidden_size\": %d, "
        "\"intermediate_size\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": "
        "%d, "
        "\"num_hidden_layers\": %d, \"vocab_size\": %d, \"max_position_embeddings\": 512, "
        "\"original_max_position_embeddings\": 512, \"rms_norm_eps\": 1e-05, "
        "\"rope_theta\": 10000.0, \"tie_word_embeddings\": true, \"torch_dtype\": "
        "\"bfloat16\", \"hidden_act\": \"silu\", \"bos_token_id\": 1, \"eos_token_id\": 2, "
        "\"pad_token_id\": 0}\n",
        arch, type, s->hidden, s->inner, s->heads, s->kv_heads, s->layers, s->vocab);
    fix_weights w = {.a = a, .stream = 100};

    CHECK_OK(dr_make_dirs(dir));
    CHECK_OK(dr_write_file(dr_path_join(a, dir, "config.json"), text, strlen(text)));
    fix_add(&w, "model.embed_tokens.weight", s->vocab, s->hidden, 0, 0.5f);
    for (int i = 0; i < s->layers; i++)
        fix_layer(&w, s, i);
    fix_add(&w, "model.norm.weight", s->hidden, 0, 1, 0.2f);
    CHECK_OK(hf_st_write(dr_path_join(a, dir, "model.safetensors"), w.list, w.count));
    return dir;
}

/* count x seq token ids below vocab. */
static inline quant_calib fix_ids(dr_arena *a, const fix_shape *s, size_t count, size_t seq,
                                  uint64_t stream)
{
    int32_t *ids = dr_arena_alloc(a, count * seq, sizeof(*ids));
    dr_rng rng;

    dr_rng_init(&rng, 5, stream);
    for (size_t i = 0; i < count * seq; i++)
        ids[i] = 3 + (int32_t)dr_rng_below(&rng, (uint64_t)s->vocab - 3);
    return (quant_calib){ids, count, seq};
}

#endif
