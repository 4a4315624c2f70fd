/*
 * fuzz_model.h - uses of an open model: each part that a pass would read, a few rows of it.
 *
 * Rows are bounded by what is read here, not by what the file claims: a reader must have
 * refused sizes that its file does not hold.
 */
#ifndef DRUPE_TESTS_FUZZ_MODEL_H
#define DRUPE_TESTS_FUZZ_MODEL_H

#include "core/mem.h"
#include "core/qtensor.h"
#include "fuzz/fuzz.h"
#include "hf/hf.h"

enum { FUZZ_VALUES = 1 << 16, FUZZ_LAYERS = 4 };

/* The last rows of n_out that fit FUZZ_VALUES; false: not even one. */
static inline bool fuzz_rows(size_t *row0, size_t *count, size_t n_out, size_t n_in)
{
    size_t rows = n_in > 0 ? FUZZ_VALUES / n_in : 1;

    *count = rows < n_out ? rows : n_out;
    *row0 = n_out - *count;
    return *count > 0;
}

static inline void fuzz_use_linear(const hf_model *m, const hf_linear *l, float *v)
{
    size_t row0, count;
    dr_qtensor q = {0};

    if (l == NULL)
        return;
    if (fuzz_rows(&row0, &count, l->n_out, l->n_in))
        (void)!hf_linear_read(m, l, v, row0, count);
    if (l->n_out <= FUZZ_VALUES)
        (void)!hf_linear_bias(m, l, v);
    if (l->packed && hf_linear_packed(m, l, &q, NULL) == DR_OK)
        dr_qtensor_release(&q);
}

static inline void fuzz_use_experts(const hf_model *m, int layer, float *v)
{
    const hf_config *c = hf_model_config(m);
    size_t row0, count;

    for (int i = 0; i < 2; i++) {
        const hf_expert_part part = i == 0 ? HF_EXPERT_GATE_UP : HF_EXPERT_DOWN;
        const size_t rows = hf_expert_out(c, part) * (size_t)c->experts.count;
        if (fuzz_rows(&row0, &count, rows, hf_expert_in(c, part)))
            (void)!hf_expert_read(m, layer, part, v, row0, count);
        if (rows <= FUZZ_VALUES)
            (void)!hf_expert_bias(m, layer, part, v);
    }
    if ((size_t)c->experts.count * (size_t)c->hidden <= FUZZ_VALUES) {
        (void)!hf_router_read(m, layer, v);
        (void)!hf_router_bias(m, layer, v);
    }
}

static inline void fuzz_use_layer(const hf_model *m, int layer, float *v)
{
    const hf_config *c = hf_model_config(m);
    const hf_linear *linears = NULL;
    const size_t n = hf_layer_linears(m, layer, &linears);

    for (size_t i = 0; i < n; i++)
        fuzz_use_linear(m, &linears[i], v);
    for (int i = 0; i < HF_NORM_COUNT; i++) {
        if (!hf_norm_exists(c, (hf_norm)i) || hf_norm_size(c, (hf_norm)i) > FUZZ_VALUES)
            continue;
        (void)!hf_norm_read(m, (hf_norm)i, layer, v);
        (void)!hf_norm_bias_read(m, (hf_norm)i, layer, v);
    }
    if (c->experts.count > 0)
        fuzz_use_experts(m, layer, v);
    if (c->sinks && c->heads <= FUZZ_VALUES)
        (void)!hf_sinks_read(m, layer, v);
}

/* The model of a folder or of a .gguf file. */
static inline void fuzz_use_model(const hf_model *m)
{
    const hf_config *c = hf_model_config(m);
    float *v = dr_calloc(FUZZ_VALUES, sizeof(*v));
    size_t row0, count;

    for (int i = 0; i < c->layers && i < FUZZ_LAYERS; i++)
        fuzz_use_layer(m, i, v);
    fuzz_use_linear(m, hf_head_linear(m), v);
    if (c->vocab <= FUZZ_VALUES)
        (void)!hf_head_bias(m, v);
    if (fuzz_rows(&row0, &count, (size_t)c->vocab, (size_t)c->hidden))
        (void)!hf_embed_read(m, v, row0, count);
    if (c->rope.rotary_dim <= FUZZ_VALUES / 16) {
        hf_rope_tables(&c->rope, false, 4, v, v + FUZZ_VALUES / 2);
        hf_rope_tables(&c->rope, true, 4, v, v + FUZZ_VALUES / 2);
    }
    free(v);
}

#endif
