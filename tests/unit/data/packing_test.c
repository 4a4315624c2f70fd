/*
 * packing_test.c - rows side by side: none lost, none over the edge, little empty.
 */
#include "check.h"

#include "core/mem.h"
#include "core/rng.h"
#include "data/row_impl.h"
#include "toy_tok.h"

static void test_places(void)
{
    static const size_t lengths[] = {5, 4, 3, 0, 12, 1, 6, 2};
    static const data_place want[] = {{0, 0}, {0, 5}, {1, 0}, {SIZE_MAX, 0},
                                      {2, 0}, {0, 9}, {1, 3}, {3, 0}};
    data_place out[DR_COUNT(lengths)];

    CHECK_EQ_INT(data_pack(out, lengths, DR_COUNT(lengths), 10, 0), 4);
    for (size_t i = 0; i < DR_COUNT(want); i++) {
        CHECK_EQ_INT(out[i].block, want[i].block);
        CHECK_EQ_INT(out[i].at, want[i].at);
    }
    CHECK_EQ_INT(data_pack(out, lengths, DR_COUNT(lengths), 10, 2), 2);
    CHECK(out[4].block == SIZE_MAX && out[5].block == 0 && out[6].block == 1);
    CHECK(out[7].block == SIZE_MAX);
}

/* Random rows: each has its own place, and of two blocks that were open together the second
 * would not have fitted the first. */
static void test_random(void)
{
    enum { ROWS = 500, SEQ = 100 };
    static size_t lengths[ROWS];
    static unsigned char used[ROWS][SEQ];
    static data_place out[ROWS];
    size_t sum = 0, blocks = 0;
    dr_rng rng;

    dr_rng_init(&rng, 3, 0);
    for (size_t i = 0; i < ROWS; i++)
        sum += lengths[i] = 1 + dr_rng_below(&rng, 60);
    blocks = data_pack(out, lengths, ROWS, SEQ, 0);
    CHECK(blocks * SEQ < sum * 11 / 10); /* a tenth is empty at most */
    for (size_t i = 0; i < ROWS; i++) {
        if (!CHECK(out[i].block < blocks && out[i].at + lengths[i] <= SEQ))
            continue;
        for (size_t k = out[i].at; k < out[i].at + lengths[i]; k++)
            CHECK(used[out[i].block][k]++ == 0);
    }
}

static void test_blocks(void)
{
    static char one[] = "abc", two[] = "the the", three[] = "xy", four[] = "0123456789ab";
    char *rows[] = {one, two, three, four};
    static const int32_t ids[] = {'a', 'b', 'c', 'x', 'y', TOY_PAD, TOY_PAD, TOY_PAD};
    static const uint32_t starts[] = {0, 0, 0, 3, 3, 3, 3, 3};
    size_t bytes[] = {3, 7, 2, 12};
    const data_texts texts = {
        .texts = rows, .text_bytes = bytes, .count = 4, .source = "rows"};
    const data_options o = {.strategy = DATA_PACKING, .max_seq_len = 8};
    tok_tokenizer *t = toy_tok(true);
    data_blocks b = {0};

    bytes[1] = 0; /* as long as its text, which is empty here */
    if (!CHECK_OK(data_tokenize(&b, &texts, &o, t)))
        return;
    CHECK_EQ_INT(b.count, 2);
    CHECK_MEM(b.ids, ids, sizeof(ids));
    CHECK_MEM(b.starts, starts, sizeof(starts));
    CHECK_EQ_INT(b.lengths[0], 5);
    CHECK_EQ_INT(b.lengths[1], 8);
    CHECK_EQ_INT(b.cut_rows, 1);
    CHECK_EQ_INT(b.short_rows, 0);
    CHECK_EQ_INT(b.dropped, 4);
    data_blocks_release(&b);
    tok_close(t);
}

int main(void)
{
    test_places();
    test_random();
    test_blocks();
    return check_done();
}
