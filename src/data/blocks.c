/*
 * blocks.c - texts become blocks of ids, by Olive's strategies.
 *
 * All rows are tokenized once, each by itself without special tokens (join strategies: the
 * ids of a blank line behind each), into one run of ids; a strategy is a list of spans of
 * that run.
 *
 * join: spans begin at b = 0, len, 2 len, ... as long as b + len is less than the total, as
 * in Olive 0.13: what is left, even if it is one whole block, is dropped.
 * join-sliding-window: the same with b = 0, stride, 2 stride, ...; Olive loses the overlap
 * at every 1,024th row, a matter of its batches, which is not copied.
 * join-random, line-by-line-random: rows are drawn by counter, block i from stream i, so
 * that a block does not depend on how many come before it; ten draws, then it is missed.
 * line-by-line: a row is a block, cut at max_seq_len, padded with the pad token.
 * packing: rows as with line-by-line, several a block (packing.c).
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"
#include "data/row_impl.h"

enum { SEQ_LEN_DEFAULT = 1024, DRAWS = 10 };

void data_blocks_release(data_blocks *b)
{
    dr_big_free(b->ids);
    free(b->lengths);
    free(b->marks);
    free(b->starts);
    *b = (data_blocks){0};
}

dr_status data_blocks_new(data_blocks *b, size_t count, size_t seq_len)
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

/* ---- spans of all rows' ids ---- */

typedef struct {
    size_t at, n;
    data_place to;
} span;

typedef struct {
    const data_options *o;
    tok_ids ids;          /* owned: of all rows */
    unsigned char *marks; /* owned: of ids; NULL: none */
    size_t *starts;       /* owned [rows + 1] */
    size_t rows;
    size_t seq_len;
    span *spans; /* owned */
    size_t count, cap;
    size_t blocks; /* of them: one a span, but with packing */
} cutter;

static dr_status encode_all(cutter *c, const data_texts *texts, const tok_tokenizer *t,
                            bool joined)
{
    dr_status st = DR_OK;

    c->rows = texts->count;
    c->starts = dr_calloc(c->rows + 1, sizeof(size_t));
    for (size_t i = 0; i < c->rows; i++) {
        DR_TRYF(data_encode_row(&c->ids, &c->marks, texts, i, c->o, t), "row %zu of %s",
                i + 1, texts->source);
        size_t end = c->ids.count;
        if (joined)
            DR_TRY(tok_encode(t, &c->ids, "\n\n", 2, false));
        if (c->marks != NULL) {
            c->marks = dr_realloc(c->marks, c->ids.count + 1, 1);
            memset(c->marks + end, 0, c->ids.count - end);
        }
        c->starts[i + 1] = c->ids.count;
    }
done:
    return st;
}

static void put_span(cutter *c, size_t at, size_t n, data_place to)
{
    if (c->count == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 256;
        c->spans = dr_realloc(c->spans, c->cap, sizeof(*c->spans));
    }
    c->spans[c->count++] = (span){at, n, to};
}

/* A block of its own; false when max_samples are there. */
static bool add_span(cutter *c, size_t at, size_t n)
{
    put_span(c, at, n, (data_place){c->blocks++, 0});
    return c->o->max_samples == 0 || c->blocks < c->o->max_samples;
}

static void cut_joined(cutter *c, size_t step)
{
    for (size_t b = 0; b + c->seq_len < c->ids.count; b += step)
        if (!add_span(c, b, c->seq_len))
            break;
}

/* One row as a block; false when max_samples are there. */
static bool add_row(cutter *c, data_blocks *out, size_t i)
{
    size_t n = c->starts[i + 1] - c->starts[i];

    out->cut_rows += n > c->seq_len;
    out->short_rows += n < c->seq_len;
    return n == 0 || add_span(c, c->starts[i], n < c->seq_len ? n : c->seq_len);
}

static void draw(cutter *c, data_blocks *out, bool joined)
{
    for (size_t i = 0; i < c->o->max_samples; i++) {
        bool found = false;
        dr_rng rng;
        dr_rng_init(&rng, c->o->random_seed, i);
        for (int k = 0; k < DRAWS && !found; k++) {
            size_t row = dr_rng_below(&rng, c->rows), at = c->starts[row];
            found = joined ? at + c->seq_len <= c->ids.count : c->starts[row + 1] > at;
            if (found && joined)
                (void)add_span(c, at, c->seq_len);
            else if (found)
                (void)add_row(c, out, row);
        }
        out->missed += !found;
    }
}

static void pack_rows(cutter *c, data_blocks *out)
{
    size_t *lengths = dr_calloc(c->rows + 1, sizeof(*lengths));
    data_place *places = dr_calloc(c->rows + 1, sizeof(*places));

    for (size_t i = 0; i < c->rows; i++)
        lengths[i] = c->starts[i + 1] - c->starts[i];
    c->blocks = data_pack(places, lengths, c->rows, c->seq_len, c->o->max_samples);
    for (size_t i = 0; i < c->rows; i++) {
        if (places[i].block == SIZE_MAX)
            continue;
        out->cut_rows += lengths[i] > c->seq_len;
        put_span(c, c->starts[i], lengths[i] < c->seq_len ? lengths[i] : c->seq_len,
                 places[i]);
    }
    free(lengths);
    free(places);
}

static dr_status cut(cutter *c, data_blocks *out, const char *source)
{
    switch (c->o->strategy) {
    case DATA_JOIN:
        cut_joined(c, c->seq_len);
        break;
    case DATA_JOIN_SLIDING_WINDOW:
        if (c->o->stride == 0 || c->o->stride > c->seq_len)
            return dr_fail(DR_EUSAGE, "stride: expected 1 to %zu (max_seq_len), found %zu",
                           c->seq_len, c->o->stride);
        cut_joined(c, c->o->stride);
        out->context = c->seq_len - c->o->stride;
        break;
    case DATA_LINE_BY_LINE:
        for (size_t i = 0; i < c->rows; i++)
            if (!add_row(c, out, i))
                break;
        break;
    case DATA_JOIN_RANDOM:
    case DATA_LINE_BY_LINE_RANDOM:
        if (c->o->max_samples == 0)
            return dr_fail(DR_EUSAGE, "strategy %s needs max_samples",
                           data_strategy_name(c->o->strategy));
        if (c->rows > 0)
            draw(c, out, c->o->strategy == DATA_JOIN_RANDOM);
        break;
    case DATA_PACKING:
        pack_rows(c, out);
        break;
    }
    if (c->count > 0)
        return DR_OK;
    dr_status st = dr_fail(DR_EFORMAT, "%s: %zu tokens do not fill one block of %zu",
                           source, c->ids.count, c->seq_len);
    if (c->ids.count > 1)
        dr_hint("give more text, or --max_seq_len below %zu", c->ids.count);
    return st;
}

/* The spans as blocks; what none of them has is dropped. */
static dr_status fill(data_blocks *out, const cutter *c, int32_t pad)
{
    unsigned char *used = dr_calloc(c->ids.count + 1, 1);
    dr_status st = DR_OK;

    DR_TRY(data_blocks_new(out, c->blocks, c->seq_len));
    if (c->marks != NULL)
        out->marks = dr_calloc(c->blocks * c->seq_len, 1);
    if (c->o->strategy == DATA_PACKING)
        out->starts = dr_calloc(c->blocks * c->seq_len, sizeof(*out->starts));
    for (size_t i = 0; i < c->blocks * c->seq_len; i++)
        out->ids[i] = pad >= 0 ? pad : 0;
    for (size_t i = 0; i < c->count; i++) {
        const span *s = &c->spans[i];
        size_t to = s->to.block * c->seq_len + s->to.at;
        memcpy(out->ids + to, c->ids.ids + s->at, s->n * sizeof(int32_t));
        memset(used + s->at, 1, s->n);
        if (c->marks != NULL)
            memcpy(out->marks + to, c->marks + s->at, s->n);
        for (size_t j = to; out->starts != NULL && j < (s->to.block + 1) * c->seq_len; j++)
            out->starts[j] = (uint32_t)s->to.at; /* and padding is the last row's */
        out->lengths[s->to.block] = s->to.at + s->n;
    }
    out->tokens = c->ids.count;
    for (size_t i = 0; i < c->ids.count; i++)
        out->dropped += !used[i];
done:
    free(used);
    return st;
}

dr_status data_tokenize(data_blocks *out, const data_texts *texts, const data_options *o,
                        const tok_tokenizer *t)
{
    cutter c = {.o = o, .seq_len = o->max_seq_len > 0 ? o->max_seq_len : SEQ_LEN_DEFAULT};
    bool joined = o->strategy != DATA_LINE_BY_LINE &&
                  o->strategy != DATA_LINE_BY_LINE_RANDOM && o->strategy != DATA_PACKING;
    dr_status st = DR_OK;

    *out = (data_blocks){0};
    DR_TRY(encode_all(&c, texts, t, joined));
    DR_TRY(cut(&c, out, texts->source));
    DR_TRY(fill(out, &c, tok_pad(t) >= 0 ? tok_pad(t) : tok_eos(t)));
done:
    tok_ids_release(&c.ids);
    free(c.starts);
    free(c.marks);
    free(c.spans);
    if (st != DR_OK)
        data_blocks_release(out);
    return st;
}
