/*
 * blocks_test.c - texts become blocks as Olive's text_gen_pre_process cuts them.
 *
 * The oracle below is written from Olive's description, batch by batch with the overflow
 * carried from one batch to the next; blocks.c does it in one sweep.
 */
#include "check.h"

#include "core/mem.h"
#include "core/rng.h"
#include "data/data.h"
#include "toy_tok.h"

enum { ROWS_MAX = 64 };

static char *rows[ROWS_MAX];
static size_t row_bytes[ROWS_MAX];

static data_texts texts_of(size_t n)
{
    for (size_t i = 0; i < n; i++)
        row_bytes[i] = strlen(rows[i]);
    return (data_texts){
        .texts = rows, .text_bytes = row_bytes, .count = n, .source = "rows"};
}

static char *literal(const char *text)
{
    return dr_strdup(text);
}

static void free_rows(size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(rows[i]);
}

/* ---- Olive's way ---- */

typedef struct {
    int32_t *ids;
    size_t count, blocks;
} olive_result;

static olive_result olive_join(const tok_tokenizer *t, size_t n, size_t seq_len,
                               size_t max_samples, size_t batch)
{
    olive_result r = {.ids = dr_calloc(1 << 20, sizeof(int32_t))};
    tok_ids joined = {0};

    for (size_t at = 0; at < n && (max_samples == 0 || r.blocks < max_samples);
         at += batch) {
        size_t end = 0;
        for (size_t i = at; i < n && i < at + batch; i++) {
            CHECK_OK(tok_encode(t, &joined, rows[i], row_bytes[i], false));
            CHECK_OK(tok_encode(t, &joined, "\n\n", 2, false));
        }
        for (size_t b = 0; joined.count > seq_len && b < joined.count - seq_len;
             b += seq_len) {
            memcpy(r.ids + r.count, joined.ids + b, seq_len * sizeof(int32_t));
            r.count += seq_len;
            end = b + seq_len;
            if (++r.blocks == max_samples)
                break;
        }
        memmove(joined.ids, joined.ids + end, (joined.count - end) * sizeof(int32_t));
        joined.count -= end;
    }
    tok_ids_release(&joined);
    return r;
}

static void test_join_as_olive(const tok_tokenizer *t)
{
    static const char letters[] = "the quick. brown\nfox, jumps. ";
    dr_rng rng;

    dr_rng_init(&rng, 7, 0);
    for (int round = 0; round < 200; round++) {
        size_t n = 1 + dr_rng_below(&rng, ROWS_MAX - 1);
        for (size_t i = 0; i < n; i++) {
            size_t len = 1 + dr_rng_below(&rng, 40);
            rows[i] = dr_calloc(len + 1, 1);
            for (size_t j = 0; j < len; j++)
                rows[i][j] = letters[dr_rng_below(&rng, sizeof(letters) - 1)];
        }
        const data_texts texts = texts_of(n);
        const data_options o = {.max_seq_len = 1 + dr_rng_below(&rng, 24),
                                .max_samples = dr_rng_below(&rng, 3) ? 0 : 5};
        olive_result want =
            olive_join(t, n, o.max_seq_len, o.max_samples, 1 + dr_rng_below(&rng, 9));
        data_blocks got = {0};
        dr_status st = data_tokenize(&got, &texts, &o, t);
        if (want.blocks == 0) {
            CHECK_STATUS(st, DR_EFORMAT);
        } else if (CHECK_OK(st) && CHECK_EQ_INT(got.count, want.blocks)) {
            CHECK_MEM(got.ids, want.ids, want.count * sizeof(int32_t));
            CHECK_EQ_INT(got.seq_len, o.max_seq_len);
            CHECK_EQ_INT(got.tokens, got.count * got.seq_len + got.dropped);
            for (size_t i = 0; i < got.count; i++)
                CHECK_EQ_INT(got.lengths[i], got.seq_len);
        }
        data_blocks_release(&got);
        free(want.ids);
        free_rows(n);
    }
}

/* A row and the blank line are tokenized apart, and one whole last block is dropped. */
static void test_join_edges(const tok_tokenizer *t)
{
    static const int32_t want[] = {'a', '.', TOY_BLANK, 'b', '.', TOY_BLANK};
    data_options o = {.max_seq_len = 3};
    data_blocks b = {0};

    rows[0] = literal("a.");
    rows[1] = literal("b.");
    rows[2] = literal("c");
    data_texts texts = texts_of(3);
    CHECK_OK(data_tokenize(&b, &texts, &o, t)); /* 8 tokens */
    CHECK_EQ_INT(b.count, 2);
    CHECK_MEM(b.ids, want, sizeof(want));
    CHECK_EQ_INT(b.tokens, 8);
    CHECK_EQ_INT(b.dropped, 2);
    data_blocks_release(&b);

    texts = texts_of(2); /* 6 tokens: the second block is whole, and dropped */
    CHECK_OK(data_tokenize(&b, &texts, &o, t));
    CHECK_EQ_INT(b.count, 1);
    CHECK_EQ_INT(b.dropped, 3);
    data_blocks_release(&b);

    o.max_seq_len = 6;
    CHECK_STATUS(data_tokenize(&b, &texts, &o, t), DR_EFORMAT);
    CHECK_TRAIL("rows: 6 tokens do not fill one block of 6");
    CHECK_TRAIL("--max_seq_len below 6");
    CHECK(b.ids == NULL && b.lengths == NULL);

    o.max_seq_len = 0;
    CHECK_STATUS(data_tokenize(&b, &texts, &o, t), DR_EFORMAT);
    CHECK_TRAIL("one block of 1024");
    free_rows(3);
}

static void test_special(const tok_tokenizer *t, const tok_tokenizer *bare)
{
    static const int32_t want[] = {TOY_BOS, ' ', 'a', ' ', TOY_EOS, TOY_BLANK};
    data_options o = {.max_seq_len = 6, .add_special_tokens = true};
    data_blocks b = {0};

    rows[0] = literal("a");
    rows[1] = literal("b");
    const data_texts texts = texts_of(2);
    CHECK_OK(data_tokenize(&b, &texts, &o, t));
    CHECK_EQ_INT(b.count, 1);
    CHECK_MEM(b.ids, want, sizeof(want));
    data_blocks_release(&b);
    o.max_seq_len = 2; /* a tokenizer without these tokens: nothing is added */
    CHECK_OK(data_tokenize(&b, &texts, &o, bare));
    CHECK_EQ_INT(b.tokens, 4);
    data_blocks_release(&b);
    free_rows(2);
}

static void test_line_by_line(const tok_tokenizer *t, const tok_tokenizer *bare)
{
    static const int32_t want[] = {'a', 'b', TOY_PAD, TOY_PAD, 257, 'n', ' ', 257};
    data_options o = {.max_seq_len = 4, .strategy = DATA_LINE_BY_LINE};
    data_blocks b = {0};

    rows[0] = literal("ab");
    rows[1] = literal("then then");
    const data_texts texts = texts_of(2);
    CHECK_OK(data_tokenize(&b, &texts, &o, t));
    CHECK_EQ_INT(b.count, 2);
    CHECK_MEM(b.ids, want, sizeof(want));
    CHECK_EQ_INT(b.lengths[0], 2);
    CHECK_EQ_INT(b.lengths[1], 4);
    CHECK_EQ_INT(b.tokens, 7);
    CHECK_EQ_INT(b.dropped, 1);
    data_blocks_release(&b);
    o.max_samples = 1;
    CHECK_OK(data_tokenize(&b, &texts, &o, bare)); /* no pad and no eos: 0 */
    CHECK_EQ_INT(b.count, 1);
    CHECK_EQ_INT(b.ids[2], 0);
    CHECK_EQ_INT(b.tokens, 7);
    CHECK_EQ_INT(b.dropped, 5);
    data_blocks_release(&b);
    free_rows(2);
}

int main(void)
{
    tok_tokenizer *t = toy_tok(true), *bare = toy_tok(false);

    test_join_as_olive(t);
    test_join_edges(t);
    test_special(t, bare);
    test_line_by_line(t, bare);
    tok_close(t);
    tok_close(bare);
    return check_done();
}
