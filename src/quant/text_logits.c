/*
 * text_logits.c - the logits of a Hugging Face model over texts, computed by nn.
 *
 * Texts go through in batches, padded behind to the longest (causal: what is behind changes
 * nothing); layers are streamed, so a batch should be large.  Of a batch only final hidden
 * states are kept, HIDDEN_BYTES at most; logits are made as they are asked for.  A batch
 * ends early where texts become much shorter than its first one: the caller puts texts of
 * one length together.  Layers stay in a device's own memory where they fit KEEP_SHARE of
 * it.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

#define HIDDEN_BYTES ((size_t)128 << 20)
enum {
    BATCH_TOKENS = 2048, /* enough to make reading the layers cheap */
    KEEP_SHARE = 4       /* of a device's free memory, what layers take at most */
};

struct quant_logits {
    nn_device *dev;          /* borrowed */
    nn_decoder *dec;         /* owned */
    const quant_text *texts; /* borrowed */
    size_t count, width;     /* width: D */
    float *hidden;           /* owned: [batch][longest][D], the device's */
    int32_t *ids;            /* owned: the batch, padded */
    size_t room;             /* tokens that hidden and ids hold */
    size_t from, end;        /* texts of the batch in hand */
    size_t longest;
    size_t text, at; /* the next position that was asked for */
};

/* The texts that go through with text `from`; *longest: their padded length. */
static size_t batch_end(const quant_logits *s, size_t from, size_t most, size_t *longest)
{
    size_t end = from;

    *longest = 0;
    for (; end < s->count; end++) {
        size_t len = s->texts[end].count, t = len > *longest ? len : *longest;
        size_t tokens = (end + 1 - from) * t;
        bool unlike = end > from && (len < t / 4 * 3 || *longest < t / 4 * 3);
        if (end > from && (tokens > most || (unlike && tokens > BATCH_TOKENS)))
            break;
        *longest = t;
    }
    return end;
}

static size_t most_tokens(const quant_logits *s)
{
    return HIDDEN_BYTES / (s->width * sizeof(float));
}

static dr_status make_room(quant_logits *s)
{
    size_t most = most_tokens(s), longest = 0;
    void *p = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0, end; i < s->count; i = end) {
        end = batch_end(s, i, most, &longest);
        s->room = (end - i) * longest > s->room ? (end - i) * longest : s->room;
    }
    DR_TRY(
        nn_mem_new(s->dev, &s->hidden, s->room * s->width, NN_MEM_FLOAT, "hidden states"));
    DR_TRY(dr_big_alloc(&p, s->room, sizeof(int32_t), "tokens"));
    s->ids = p;
done:
    return st;
}

dr_status quant_logits_open(quant_logits **out, nn_device *dev, const hf_model *m,
                            const quant_text *texts, size_t count)
{
    quant_logits *s = dr_calloc(1, sizeof(*s));
    dr_status st = DR_OK;

    *out = NULL;
    *s = (quant_logits){.dev = dev,
                        .texts = texts,
                        .count = count,
                        .width = (size_t)hf_model_config(m)->hidden};
    for (size_t i = 0; i < count; i++)
        DR_BUG_IF(texts[i].count == 0 || texts[i].from >= texts[i].count);
    DR_TRY(nn_decoder_open_there(&s->dec, dev, m, nn_mem_room(dev) / KEEP_SHARE));
    DR_TRY(make_room(s));
    s->at = count > 0 ? texts[0].from : 0;
    *out = s;
    s = NULL;
done:
    quant_logits_close(s);
    return st;
}

void quant_logits_close(quant_logits *s)
{
    if (s == NULL)
        return;
    nn_decoder_close(s->dec);
    nn_mem_free(s->dev, s->hidden);
    dr_big_free(s->ids);
    free(s);
}

void quant_logits_adapter(quant_logits *s, const hf_adapter *a)
{
    nn_decoder_merge(s->dec, a);
}

nn_decoder *quant_logits_decoder(quant_logits *s)
{
    return s->dec;
}

static dr_status next_batch(quant_logits *s)
{
    dr_status st = DR_OK;

    s->from = s->text;
    s->end = batch_end(s, s->from, most_tokens(s), &s->longest);
    for (size_t i = s->from; i < s->end; i++) {
        int32_t *row = s->ids + (i - s->from) * s->longest;
        size_t n = s->texts[i].count;
        memcpy(row, s->texts[i].ids, n * sizeof(*row));
        memset(row + n, 0, (s->longest - n) * sizeof(*row));
    }
    DR_TRY(nn_decoder_hidden(s->dec, s->hidden, s->ids, s->end - s->from, s->longest));
done:
    return st;
}

dr_status quant_logits_next(quant_logits *s, float *logits, size_t rows)
{
    size_t vocab = (size_t)nn_decoder_config(s->dec)->vocab;
    dr_status st = DR_OK;

    while (rows > 0) {
        DR_BUG_IF(s->text >= s->count);
        if (s->text >= s->end)
            DR_TRY(next_batch(s));
        size_t left = s->texts[s->text].count - s->at, n = rows < left ? rows : left;
        size_t row = (s->text - s->from) * s->longest + s->at;
        DR_TRY(nn_head_logits(s->dec, logits, s->hidden + row * s->width, n));
        logits += n * vocab;
        rows -= n;
        s->at += n;
        if (s->at == s->texts[s->text].count && ++s->text < s->count)
            s->at = s->texts[s->text].from;
    }
done:
    return st;
}
