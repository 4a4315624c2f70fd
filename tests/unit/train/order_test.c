/*
 * order_test.c - the order of blocks is torch.randperm's; rates are transformers'.
 */
#include "check.h"
#include "train/train_impl.h"

/* torch.randperm(23, generator=torch.Generator().manual_seed(seed)), torch 2.15. */
static const size_t seed_42[] = {16, 8, 6,  17, 2,  0, 1,  11, 18, 5,  14, 21,
                                 15, 3, 10, 19, 22, 4, 20, 7,  12, 13, 9};
static const size_t seed_43[] = {13, 17, 16, 20, 18, 7, 1,  10, 15, 12, 11, 21,
                                 14, 6,  4,  8,  22, 2, 19, 0,  3,  9,  5};

static void test_order(void)
{
    size_t order[23];

    train_order(order, 23, 42, 0, true);
    CHECK_MEM(order, seed_42, sizeof(order));
    train_order(order, 23, 42, 1, true);
    CHECK_MEM(order, seed_43, sizeof(order));
    train_order(order, 23, 43, 0, true);
    CHECK_MEM(order, seed_43, sizeof(order));
    train_order(order, 23, 42, 5, false);
    for (size_t i = 0; i < 23; i++)
        CHECK_EQ_INT(order[i], i);
    train_order(order, 0, 42, 0, true);
    train_order(order, 1, 42, 0, true);
    CHECK_EQ_INT(order[0], 0);
}

/* More draws than one refill of the generator: still a permutation. */
static void test_large(void)
{
    enum { N = 5000 };
    static size_t order[N];
    static unsigned char seen[N];

    train_order(order, N, 7, 0, true);
    for (size_t i = 0; i < N; i++) {
        if (order[i] < N)
            seen[order[i]]++;
    }
    for (size_t i = 0; i < N; i++) {
        if (seen[i] != 1) {
            CHECK_EQ_INT(seen[i], 1);
            return;
        }
    }
    CHECK(order[0] != 0 || order[1] != 1);
}

static void test_rates(void)
{
    train_options o;

    train_options_default(&o);
    o.learning_rate = 1;
    CHECK_NEAR(train_rate(&o, 0, 100), 1, 0); /* constant: no warm-up, as transformers */
    o.schedule = TRAIN_LINEAR;
    o.warmup_steps = 10;
    CHECK_NEAR(train_rate(&o, 0, 100), 0, 0);
    CHECK_NEAR(train_rate(&o, 5, 100), 0.5, 1e-15);
    CHECK_NEAR(train_rate(&o, 10, 100), 1, 1e-15);
    CHECK_NEAR(train_rate(&o, 55, 100), 0.5, 1e-15);
    CHECK_NEAR(train_rate(&o, 100, 100), 0, 1e-15);
    o.schedule = TRAIN_COSINE;
    CHECK_NEAR(train_rate(&o, 55, 100), 0.5, 1e-15);
    CHECK_NEAR(train_rate(&o, 40, 100), 0.75, 1e-12); /* a third: cos 60 degrees */
    o.warmup_steps = 0;
    o.warmup_ratio = 0.031; /* ceil: 4 steps */
    CHECK_NEAR(train_rate(&o, 1, 100), 0.25, 1e-15);
}

int main(void)
{
    test_order();
    test_large();
    test_rates();
    return check_done();
}
