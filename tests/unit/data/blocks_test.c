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

/* Rows of n letters each, row i of its own letter, without merges. */
static data_texts letter_rows(size_t count, const size_t *n)
{
    for (size_t i = 0; i < count; i++) {
        rows[i] = dr_calloc(n[i] + 1, 1);
        memset(rows[i], 'A' + (int)i, n[i]);
    }
    return texts_of(count);
}

/* A window every stride tokens, as the sum of ids says, which is written out here. */
static void test_sliding(const tok_tokenizer *t)
{
    static const size_t n[] = {3, 2, 4};
    static const int32_t all[] = {'A',       'A', 'A', TOY_BLANK, 'B', 'B',
                                  TOY_BLANK, 'C', 'C', 'C',       'C', TOY_BLANK};
    const data_texts texts = letter_rows(3, n);
    data_options o = {.max_seq_len = 5, .strategy = DATA_JOIN_SLIDING_WINDOW, .stride = 2};
    data_blocks b = {0};

    CHECK_OK(data_tokenize(&b, &texts, &o, t));
    CHECK_EQ_INT(b.count, 4); /* at 0, 2, 4, 6: 6 + 5 < 12 */
    for (size_t i = 0; i < b.count; i++)
        CHECK_MEM(b.ids + 5 * i, all + 2 * i, 5 * sizeof(int32_t));
    CHECK_EQ_INT(b.context, 3);
    CHECK_EQ_INT(b.dropped, 1);
    data_blocks_release(&b);
    o.stride = 0;
    CHECK_STATUS(data_tokenize(&b, &texts, &o, t), DR_EUSAGE);
    o.stride = 6;
    CHECK_STATUS(data_tokenize(&b, &texts, &o, t), DR_EUSAGE);
    free_rows(3);
}

/* Each block begins with a whole row and goes on into the next; all rows that can are drawn
 * about equally often. */
static void test_join_random(const tok_tokenizer *t)
{
    static const size_t n[] = {4, 4, 4, 4};
    const data_texts texts = letter_rows(4, n);
    data_options o = {.max_seq_len = 8,
                      .strategy = DATA_JOIN_RANDOM,
                      .max_samples = 300,
                      .random_seed = 5};
    data_blocks b = {0}, again = {0}, other = {0}, fewer = {0};
    size_t begins[4] = {0};

    CHECK_OK(data_tokenize(&b, &texts, &o, t));
    CHECK_EQ_INT(b.count + b.missed, 300);
    for (size_t i = 0; i < b.count; i++) {
        const int32_t *row = b.ids + 8 * i, c = row[0];
        const int32_t want[] = {c, c, c, c, TOY_BLANK, c + 1, c + 1, c + 1};
        CHECK_MEM(row, want, sizeof(want));
        if (CHECK(c >= 'A' && c <= 'C'))
            begins[c - 'A']++;
    }
    for (int i = 0; i < 3; i++)
        CHECK(begins[i] > 60 && begins[i] < 140);
    CHECK_EQ_INT(b.dropped, 2); /* the last D and its blank line are in no block */
    CHECK_OK(data_tokenize(&again, &texts, &o, t));
    CHECK_MEM(b.ids, again.ids, b.count * 8 * sizeof(int32_t));
    o.max_samples = 10;
    CHECK_OK(data_tokenize(&fewer, &texts, &o, t));
    CHECK_MEM(b.ids, fewer.ids, fewer.count * 8 * sizeof(int32_t));
    o.max_samples = 300;
    o.random_seed = 6;
    CHECK_OK(data_tokenize(&other, &texts, &o, t));
    CHECK(memcmp(b.ids, other.ids, 280 * sizeof(int32_t)) != 0);
    data_blocks_release(&b);
    data_blocks_release(&again);
    data_blocks_release(&other);
    data_blocks_release(&fewer);
    o.max_samples = 0;
    CHECK_STATUS(data_tokenize(&b, &texts, &o, t), DR_EUSAGE);
    CHECK_TRAIL("strategy join-random needs max_samples");
    free_rows(4);
}

static void test_line_by_line_random(const tok_tokenizer *t)
{
    static const size_t n[] = {2, 3, 6};
    const data_texts texts = letter_rows(3, n);
    const data_options o = {
        .max_seq_len = 4, .strategy = DATA_LINE_BY_LINE_RANDOM, .max_samples = 90};
    size_t drawn[3] = {0};
    data_blocks b = {0};

    CHECK_OK(data_tokenize(&b, &texts, &o, t));
    CHECK_EQ_INT(b.count, 90); /* more than there are rows: with replacement */
    for (size_t i = 0; i < b.count; i++) {
        int r = (int)(b.ids[4 * i] - 'A');
        if (!CHECK(r >= 0 && r < 3))
            break;
        drawn[r]++;
        CHECK_EQ_INT(b.lengths[i], n[r] < 4 ? n[r] : 4);
        CHECK_EQ_INT(b.ids[4 * i + 3], n[r] < 4 ? TOY_PAD : 'A' + r);
    }
    CHECK_EQ_INT(b.cut_rows, drawn[2]);
    CHECK_EQ_INT(b.short_rows, drawn[0] + drawn[1]);
    CHECK(drawn[0] > 15 && drawn[1] > 15 && drawn[2] > 15);
    CHECK_EQ_INT(b.dropped, 2);
    data_blocks_release(&b);
    free_rows(3);
}

static void test_names(void)
{
    data_strategy s = DATA_LINE_BY_LINE;

    CHECK_OK(data_strategy_named(&s, NULL));
    CHECK_EQ_INT(s, DATA_JOIN);
    CHECK_OK(data_strategy_named(&s, "line-by-line-random"));
    CHECK_EQ_INT(s, DATA_LINE_BY_LINE_RANDOM);
    CHECK_STATUS(data_strategy_named(&s, "join-randm"), DR_EUSAGE);
    CHECK_TRAIL("did you mean join-random?");
}

int main(void)
{
    tok_tokenizer *t = toy_tok(true), *bare = toy_tok(false);

    test_join_as_olive(t);
    test_join_edges(t);
    test_special(t, bare);
    test_line_by_line(t, bare);
    test_sliding(t);
    test_join_random(t);
    test_line_by_line_random(t);
    test_names();
    tok_close(t);
    tok_close(bare);
    return check_done();
}
