/*
 * sample.c - text from a decoder, token by token, with kept keys and values.
 *
 * A step is one token of each of at most NN_SAMPLE_BATCH sequences: its products are those
 * of layer_parts.c with one row a sequence; only attention is another one, of one query
 * over the rows kept so far.  A task of it is one sequence and one key head.
 * Kept rows lie as [layer][sequence][key head][position][C], keys rotated.
 */
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"
#include "nn/decoder_impl.h"
#include "nn/nn_sample.h"

enum { LANES = 8 };

typedef struct {
    nn_decoder *d;
    const nn_sample_options *o;
    size_t n, first_sequence; /* sequences in hand */
    size_t at;                /* position of the token in hand */
    nn_attn_shape shape;      /* of the layer in hand, at this position */
    float *k, *v;             /* [L][n][G][len][C] */
    float *layer_k, *layer_v; /* of the layer in hand */
    float *x, *norm, *qkv, *attn, *wide, *act, *scores, *logits;
    int32_t *tokens; /* [n] */
} writer;

/* ---- attention of one query ---- */

/* Summed in LANES lanes, whatever the compiler makes of them. */
static float dot(const float *a, const float *b, size_t n)
{
    float lane[LANES] = {0}, sum = 0;
    size_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lane[j] += a[i + j] * b[i + j];
    for (; i < n; i++)
        lane[i % LANES] += a[i] * b[i];
    for (size_t j = 0; j < LANES; j++)
        sum += lane[j];
    return sum;
}

/* out[C] = softmax(q K^T) V over rows [from, to). */
static void one_query(const nn_attn_shape *s, float *out, float *scores, const float *q,
                      const float *k, const float *v, size_t from, size_t to)
{
    size_t c = s->head_dim;
    float top = -INFINITY, sum = 0;

    for (size_t j = from; j < to; j++) {
        float score = dot(q, k + j * c, c) * s->scale;
        if (s->softcap > 0)
            score = s->softcap * tanhf(score / s->softcap);
        scores[j] = score;
        top = score > top ? score : top;
    }
    memset(out, 0, c * sizeof(*out));
    for (size_t j = from; j < to; j++) {
        float p = expf(scores[j] - top);
        sum += p;
        for (size_t i = 0; i < c; i++)
            out[i] += p * v[j * c + i];
    }
    for (size_t i = 0; i < c; i++)
        out[i] /= sum;
}

static dr_status attend_task(void *ctx, size_t task, int worker)
{
    writer *w = ctx;
    const nn_attn_shape *s = &w->shape;
    const nn_dims *m = &w->d->dims;
    size_t c = m->c, row = task / m->g, g = task % m->g, group = m->h / m->g;
    size_t from = s->window > 0 && w->at + 1 > s->window ? w->at + 1 - s->window : 0;
    const float *qkv = w->qkv + row * m->qkv;
    float *k = w->layer_k + task * w->o->len * c, *v = w->layer_v + task * w->o->len * c;

    memcpy(k + w->at * c, qkv + m->hc + g * c, c * sizeof(float));
    memcpy(v + w->at * c, qkv + m->hc + (m->g + g) * c, c * sizeof(float));
    for (size_t h = g * group; h < (g + 1) * group; h++)
        one_query(s, w->attn + row * m->hc + h * c, w->scores + (size_t)worker * w->o->len,
                  qkv + h * c, k, v, from, w->at + 1);
    return DR_OK;
}

/* ---- a layer ---- */

static dr_status attention_half(writer *w, const nn_layer *l)
{
    nn_attn_shape *s = &w->shape;
    size_t kept = w->n * w->d->dims.g * w->o->len * w->d->dims.c;
    dr_status st = DR_OK;

    DR_TRY(nn_decoder_shape(w->d, s, l, w->n, w->o->len));
    s->t = 1;
    if (s->rotary_dim > 0) {
        s->cos += w->at * (s->rotary_dim / 2);
        s->sin += w->at * (s->rotary_dim / 2);
    }
    w->layer_k = w->k + (size_t)l->index * kept;
    w->layer_v = w->v + (size_t)l->index * kept;
    DR_TRY(nn_layer_norm(w->d, l, HF_NORM_ATTN, w->norm, w->x, w->n));
    DR_TRY(nn_layer_linear(w->d, l, HF_SLOT_QKV, w->qkv, w->norm, w->n, false));
    DR_TRY(nn_qk_forward(w->d, l, w->qkv, NULL, NULL, s));
    DR_TRY(dr_pool_run(nn_device_pool(w->d->dev), w->n * w->d->dims.g, attend_task, w));
    DR_TRY(nn_layer_residual(w->d, l, HF_SLOT_O, w->x, w->attn, w->n));
done:
    return st;
}

static dr_status mlp_half(writer *w, const nn_layer *l)
{
    dr_status st = DR_OK;

    if (!w->d->c->parallel || l->norm[HF_NORM_MLP] != NULL)
        DR_TRY(nn_layer_norm(w->d, l, HF_NORM_MLP, w->norm, w->x, w->n));
    DR_TRY(nn_layer_linear(w->d, l, HF_SLOT_GATE_UP, w->wide, w->norm, w->n, false));
    DR_TRY(nn_activate(w->d->dev, w->act, w->wide, w->n, w->d->dims.i, nn_layer_act(w->d)));
    DR_TRY(nn_layer_residual(w->d, l, HF_SLOT_DOWN, w->x, w->act, w->n));
done:
    return st;
}

static dr_status step(writer *w)
{
    const nn_layer *l = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    DR_TRY(nn_decoder_embed(w->d, w->x, w->tokens, w->n));
    for (int i = 0; i < w->d->c->layers; i++) {
        DR_TRY(nn_decoder_layer(w->d, i, &l));
        DR_TRY(attention_half(w, l));
        DR_TRY(mlp_half(w, l));
    }
    DR_TRY(nn_head_logits(w->d, w->logits, w->x, w->n));
done:
    return st;
}

/* ---- the next token ---- */

static int32_t likeliest(const float *logits, size_t n)
{
    size_t best = 0;

    for (size_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    return (int32_t)best;
}

/* Of the prompt, where that goes on. */
static bool given_token(const writer *w, size_t row, size_t at, int32_t *token)
{
    const nn_prompt *p = w->o->prompts;

    if (p == NULL || at >= p[w->first_sequence + row].count)
        return false;
    *token = p[w->first_sequence + row].ids[at];
    return true;
}

static dr_status draw_task(void *ctx, size_t row, int worker)
{
    const writer *w = ctx;
    size_t vocab = w->d->dims.v;
    float *p = w->logits + row * vocab;
    int32_t best = likeliest(p, vocab);
    float top = p[best], heat = (float)w->o->temperature;
    uint32_t r[4];
    double sum = 0, at = 0;

    (void)worker;
    w->tokens[row] = best;
    if (given_token(w, row, w->at + 1, &w->tokens[row]))
        return DR_OK;
    if (!isfinite(top))
        return dr_fail(DR_EFORMAT, "token %zu of sequence %zu: the logits are not finite",
                       w->at + 1, w->first_sequence + row);
    if (heat <= 0)
        return DR_OK;
    for (size_t i = 0; i < vocab; i++) {
        p[i] = expf((p[i] - top) / heat);
        sum += (double)p[i];
    }
    dr_philox(r, w->o->seed, w->first_sequence + row, w->at);
    double u = sum * ((double)r[0] + 0.5) / 4294967296.0;
    for (size_t i = 0; i < vocab; i++) {
        at += (double)p[i];
        if (at >= u && p[i] > 0) {
            w->tokens[row] = (int32_t)i;
            break;
        }
    }
    return DR_OK;
}

/* ---- all of it ---- */

/* n sequences from the one numbered w->first_sequence on. */
static dr_status write_batch(writer *w, int32_t *ids, dr_progress *progress)
{
    size_t len = w->o->len;
    dr_status st = DR_OK;

    for (size_t i = 0; i < w->n; i++)
        if (!given_token(w, i, 0, &w->tokens[i]))
            w->tokens[i] = w->o->first;
    for (w->at = 0; w->at < len; w->at++) {
        for (size_t i = 0; i < w->n; i++)
            ids[i * len + w->at] = w->tokens[i];
        if (progress != NULL)
            dr_progress_step(progress, w->first_sequence * len + (w->at + 1) * w->n, NULL);
        if (w->at + 1 == len)
            break;
        DR_TRYF(step(w), "token %zu", w->at);
        DR_TRY(dr_pool_run(nn_device_pool(w->d->dev), w->n, draw_task, w));
    }
done:
    return st;
}

static size_t place(writer *w, const hf_config *c, size_t n, size_t len, size_t threads,
                    float *at)
{
    const nn_dims s = nn_dims_of(c);
    size_t kept = (size_t)c->layers * n * s.g * len * s.c;
    const nn_part parts[] = {{&w->k, kept},         {&w->v, kept},
                             {&w->x, n * s.d},      {&w->norm, n * s.d},
                             {&w->qkv, n * s.qkv},  {&w->attn, n * s.hc},
                             {&w->wide, n * s.gu},  {&w->act, n * s.i},
                             {&w->logits, n * s.v}, {&w->scores, threads * len}};

    return nn_place(parts, DR_COUNT(parts), at);
}

static size_t batch_of(const nn_sample_options *o)
{
    return o->count < NN_SAMPLE_BATCH ? o->count : NN_SAMPLE_BATCH;
}

dr_status nn_sample(nn_decoder *d, int32_t *ids, const nn_sample_options *o,
                    dr_progress *progress)
{
    int32_t tokens[NN_SAMPLE_BATCH];
    size_t n = batch_of(o), threads = (size_t)dr_pool_threads(nn_device_pool(d->dev));
    writer w = {.d = d, .o = o, .tokens = tokens};
    void *room = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_big_alloc(&room, place(&w, d->c, n, o->len, threads, NULL), sizeof(float),
                        "keys and values of the text that the model writes"));
    (void)place(&w, d->c, n, o->len, threads, room);
    for (size_t i = 0; i < o->count; i += n) {
        w.first_sequence = i;
        w.n = o->count - i < n ? o->count - i : n;
        DR_TRYF(write_batch(&w, ids + i * o->len, progress), "writing text");
    }
done:
    dr_big_free(room);
    return st;
}

nn_sample_cost nn_sample_costs(const hf_config *c, const nn_sample_options *o)
{
    const nn_dims s = nn_dims_of(c);
    size_t n = batch_of(o);
    uint64_t weights = (uint64_t)s.v * s.d + (uint64_t)c->layers * hf_layer_weights(c);
    writer w = {0};

    double tokens = (double)o->count * (double)o->len;
    double steps = n > 0 ? (double)((o->count + n - 1) / n) * (double)o->len : 0;
    return (nn_sample_cost){
        .flops = 2 * tokens * (double)weights +
                 2 * tokens * (double)o->len * (double)(s.hc * (size_t)c->layers),
        .read_bytes = (uint64_t)(steps * 4 * (double)weights),
        .memory_bytes = 4 * (weights + place(&w, c, n, o->len, 64, NULL))};
}
