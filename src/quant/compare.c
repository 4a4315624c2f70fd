/*
 * compare.c - how close a quantized model stays to its original, on held-out text.
 *
 * Both models run over the same blocks of tokens, their layers streamed one at a time; only
 * final hidden states are kept, for as many blocks as HIDDEN_BYTES holds.  Logits exist for
 * LOGIT_ROWS positions of both models at a time.
 *
 * KL is judged at every position, perplexity at all but the last of a block, whose next
 * token is unknown.  The standard error is that of the mean over blocks: positions of one
 * block are not independent.
 */
#include <math.h>
#include <stdlib.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

#define HIDDEN_BYTES ((size_t)256 << 20)
enum { LOGIT_ROWS = 128 };

/* What one position adds. */
typedef struct {
    double kl, nll_before, nll_after;
    bool same;
} position;

typedef struct {
    nn_decoder *dec[2];    /* owned: before, after */
    float *hidden[2];      /* owned: [blocks][T][D] */
    float *logits[2];      /* owned: [LOGIT_ROWS][V] */
    position *rows;        /* owned: [LOGIT_ROWS] */
    const int32_t *target; /* [rows] of the chunk at hand */
    size_t vocab;
    double kl, kl_squares, nll_before, nll_after; /* kl: sums of block means */
    size_t same, targets;
} comparison;

typedef struct {
    float top;
    double log_sum; /* log sum exp(logit - top) */
    size_t at;      /* of the greatest; the first one in a tie */
} row_stats;

static row_stats stats_of(const float *logits, size_t n)
{
    row_stats s = {logits[0], 0, 0};
    double sum = 0;

    for (size_t i = 1; i < n; i++) {
        if (logits[i] > s.top) {
            s.top = logits[i];
            s.at = i;
        }
    }
    for (size_t i = 0; i < n; i++)
        sum += (double)expf(logits[i] - s.top);
    s.log_sum = log(sum);
    return s;
}

static dr_status judge_row(void *ctx, size_t task, int worker)
{
    comparison *c = ctx;
    size_t n = c->vocab;
    const float *a = c->logits[0] + task * n, *b = c->logits[1] + task * n;
    row_stats sa = stats_of(a, n), sb = stats_of(b, n);
    double lse_a = (double)sa.top + sa.log_sum, lse_b = (double)sb.top + sb.log_sum, kl = 0;
    size_t target = (size_t)c->target[task];

    (void)worker;
    for (size_t i = 0; i < n; i++) {
        double p = (double)expf((float)((double)a[i] - lse_a));
        kl += p * ((double)a[i] - (double)b[i]);
    }
    c->rows[task] = (position){kl - lse_a + lse_b, lse_a - (double)a[target],
                               lse_b - (double)b[target], sa.at == sb.at};
    return DR_OK;
}

static void comparison_release(comparison *c)
{
    for (int i = 0; i < 2; i++) {
        nn_decoder_close(c->dec[i]);
        dr_big_free(c->hidden[i]);
        dr_big_free(c->logits[i]);
    }
    free(c->rows);
}

static dr_status comparison_init(comparison *c, nn_device *dev, const hf_model *before,
                                 const hf_model *after, const quant_calib *text,
                                 size_t blocks)
{
    const hf_config *cb = hf_model_config(before), *ca = hf_model_config(after);
    const hf_model *models[2] = {before, after};
    dr_status st = DR_OK;
    void *p = NULL;

    if (cb->vocab != ca->vocab)
        DR_FAIL(DR_EUSAGE, "%s has %d tokens, %s has %d: no comparison",
                hf_model_path(before), cb->vocab, hf_model_path(after), ca->vocab);
    c->vocab = (size_t)cb->vocab;
    c->rows = dr_calloc(LOGIT_ROWS, sizeof(*c->rows));
    for (int i = 0; i < 2; i++) {
        size_t d = (size_t)hf_model_config(models[i])->hidden;
        DR_TRY(nn_decoder_open(&c->dec[i], dev, models[i], 0));
        DR_TRY(
            dr_big_alloc(&p, blocks * text->seq_len, d * sizeof(float), "hidden states"));
        c->hidden[i] = p;
        DR_TRY(dr_big_alloc(&p, LOGIT_ROWS, c->vocab * sizeof(float), "logits"));
        c->logits[i] = p;
    }
done:
    return st;
}

/* One block of t positions whose hidden states begin at row `at`. */
static dr_status judge_block(comparison *c, nn_device *dev, const int32_t *ids, size_t t,
                             size_t at)
{
    double kl = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    for (size_t r = 0; r < t; r += LOGIT_ROWS) {
        size_t m = t - r < LOGIT_ROWS ? t - r : LOGIT_ROWS;
        int32_t target[LOGIT_ROWS];
        for (size_t i = 0; i < m; i++)
            target[i] = r + i + 1 < t ? ids[r + i + 1] : ids[0]; /* the last is not used */
        for (int k = 0; k < 2; k++) {
            size_t d = (size_t)nn_decoder_config(c->dec[k])->hidden;
            DR_TRY(nn_head_logits(c->dec[k], c->logits[k], c->hidden[k] + (at + r) * d, m));
        }
        c->target = target;
        DR_TRY(dr_pool_run(nn_device_pool(dev), m, judge_row, c));
        for (size_t i = 0; i < m; i++) {
            kl += c->rows[i].kl;
            c->same += c->rows[i].same;
            if (r + i + 1 == t)
                continue;
            c->nll_before += c->rows[i].nll_before;
            c->nll_after += c->rows[i].nll_after;
            c->targets++;
        }
    }
    kl /= (double)t;
    c->kl += kl;
    c->kl_squares += kl * kl;
done:
    return st;
}

static void summarize(quant_quality *out, const comparison *c, const quant_calib *text)
{
    double n = (double)text->count, targets = c->targets > 0 ? (double)c->targets : 1;
    double mean = c->kl / n, spread = c->kl_squares / n - mean * mean;

    *out = (quant_quality){.tokens = text->count * text->seq_len,
                           .ppl_before = exp(c->nll_before / targets),
                           .ppl_after = exp(c->nll_after / targets),
                           .kl = mean};
    out->top1 = (double)c->same / (double)out->tokens;
    if (text->count > 1 && spread > 0)
        out->kl_stderr = sqrt(spread / (n - 1));
}

dr_status quant_compare(quant_quality *out, nn_device *dev, const hf_model *before,
                        const hf_model *after, const quant_calib *text)
{
    comparison c = {0};
    size_t t = text->seq_len, blocks = 0;
    size_t widest = (size_t)hf_model_config(before)->hidden;
    dr_status st = DR_OK;

    if (text->count == 0 || t == 0)
        DR_FAIL(DR_EUSAGE,
                "text to compare on: expected blocks of tokens, found %zu of %zu",
                text->count, t);
    blocks = HIDDEN_BYTES / (2 * widest * sizeof(float)) / t;
    blocks = blocks < 1 ? 1 : blocks;
    blocks = blocks < text->count ? blocks : text->count;
    DR_TRY(comparison_init(&c, dev, before, after, text, blocks));
    for (size_t i = 0; i < text->count; i += blocks) {
        size_t n = text->count - i < blocks ? text->count - i : blocks;
        for (int k = 0; k < 2; k++)
            DR_TRY(nn_decoder_hidden(c.dec[k], c.hidden[k], text->ids + i * t, n, t));
        for (size_t b = 0; b < n; b++)
            DR_TRY(judge_block(&c, dev, text->ids + (i + b) * t, t, b * t));
    }
    summarize(out, &c, text);
done:
    comparison_release(&c);
    return st;
}
