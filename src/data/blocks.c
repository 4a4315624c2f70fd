/*
 * blocks.c - texts become blocks of ids.
 *
 * join, as Olive 0.13 does it: each row is tokenized by itself without special tokens, the
 * ids of a blank line follow each row, and the whole is cut into blocks of max_seq_len.  A
 * block begins at b = 0, len, 2 len, ... as long as b + len is less than the total: what is
 * left, even if it is one whole block, is dropped.
 * line-by-line: a row is a block, cut at max_seq_len, padded with the pad token.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "data/data.h"

enum { SEQ_LEN_DEFAULT = 1024, SPECIAL_BYTES = 4096 };

void data_blocks_release(data_blocks *b)
{
    dr_big_free(b->ids);
    free(b->lengths);
    *b = (data_blocks){0};
}

/* A row's text; with add_special_tokens the special tokens as literal text around it, with
 * spaces, as Olive has it.  One that the tokenizer lacks is left out (Olive: "None"). */
static dr_status encode_row(tok_ids *ids, const data_texts *texts, size_t i,
                            const data_options *o, const tok_tokenizer *t)
{
    dr_buf text;
    dr_status st = DR_OK;

    if (!o->add_special_tokens)
        return tok_encode(t, ids, texts->texts[i], texts->text_bytes[i], false);
    const char *bos = tok_bos_text(t), *eos = tok_eos_text(t);
    dr_buf_init(&text, texts->text_bytes[i] + SPECIAL_BYTES);
    DR_TRY(dr_buf_addf(&text, "%s%s", bos, *bos != '\0' ? " " : ""));
    DR_TRY(dr_buf_add(&text, texts->texts[i], texts->text_bytes[i]));
    DR_TRY(dr_buf_addf(&text, "%s%s", *eos != '\0' ? " " : "", eos));
    DR_TRY(tok_encode(t, ids, text.data, text.len, false));
done:
    dr_buf_release(&text);
    return st;
}

static dr_status blocks_new(data_blocks *b, size_t count, size_t seq_len)
{
    void *ids = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    if (!dr_mul(&n, count, seq_len))
        return dr_fail(DR_ENOMEM, "%zu blocks of %zu tokens do not fit memory", count,
                       seq_len);
    DR_TRY(dr_big_alloc(&ids, n, sizeof(int32_t), "blocks of tokens"));
    b->ids = ids;
    b->lengths = dr_calloc(count, sizeof(size_t));
    b->count = count;
    b->seq_len = seq_len;
done:
    return st;
}

static dr_status join(data_blocks *out, const data_texts *texts, const data_options *o,
                      const tok_tokenizer *t, size_t seq_len)
{
    tok_ids all = {0};
    size_t count = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < texts->count; i++) {
        DR_TRYF(encode_row(&all, texts, i, o, t), "row %zu of %s", i + 1, texts->source);
        DR_TRY(tok_encode(t, &all, "\n\n", 2, false));
    }
    if (all.count > seq_len)
        count = (all.count - 1) / seq_len;
    if (count == 0) {
        st = dr_fail(DR_EFORMAT, "%s: %zu tokens do not fill one block of %zu",
                     texts->source, all.count, seq_len);
        dr_hint("give more text, or --max_seq_len below %zu", all.count);
        goto done;
    }
    if (o->max_samples > 0 && count > o->max_samples)
        count = o->max_samples;
    DR_TRY(blocks_new(out, count, seq_len));
    memcpy(out->ids, all.ids, count * seq_len * sizeof(int32_t));
    for (size_t i = 0; i < count; i++)
        out->lengths[i] = seq_len;
    out->tokens = all.count;
    out->dropped = all.count - count * seq_len;
done:
    tok_ids_release(&all);
    return st;
}

static dr_status line_by_line(data_blocks *out, const data_texts *texts,
                              const data_options *o, const tok_tokenizer *t, size_t seq_len)
{
    size_t count = texts->count;
    int32_t pad = tok_pad(t) >= 0 ? tok_pad(t) : tok_eos(t);
    tok_ids ids = {0};
    dr_status st = DR_OK;

    if (o->max_samples > 0 && count > o->max_samples)
        count = o->max_samples;
    DR_TRY(blocks_new(out, count, seq_len));
    for (size_t i = 0; i < count; i++) {
        ids.count = 0;
        DR_TRYF(encode_row(&ids, texts, i, o, t), "row %zu of %s", i + 1, texts->source);
        size_t n = ids.count < seq_len ? ids.count : seq_len;
        int32_t *row = out->ids + i * seq_len;
        if (n > 0)
            memcpy(row, ids.ids, n * sizeof(int32_t));
        for (size_t j = n; j < seq_len; j++)
            row[j] = pad >= 0 ? pad : 0;
        out->lengths[i] = n;
        out->tokens += ids.count;
        out->dropped += ids.count - n;
    }
    for (size_t i = count; i < texts->count; i++) { /* past max_samples */
        ids.count = 0;
        DR_TRYF(encode_row(&ids, texts, i, o, t), "row %zu of %s", i + 1, texts->source);
        out->tokens += ids.count;
        out->dropped += ids.count;
    }
done:
    tok_ids_release(&ids);
    return st;
}

dr_status data_tokenize(data_blocks *out, const data_texts *texts, const data_options *o,
                        const tok_tokenizer *t)
{
    size_t seq_len = o->max_seq_len > 0 ? o->max_seq_len : SEQ_LEN_DEFAULT;
    dr_status st = DR_OK;

    *out = (data_blocks){0};
    if (o->strategy == DATA_JOIN)
        DR_TRY(join(out, texts, o, t, seq_len));
    else
        DR_TRY(line_by_line(out, texts, o, t, seq_len));
done:
    if (st != DR_OK)
        data_blocks_release(out);
    return st;
}
