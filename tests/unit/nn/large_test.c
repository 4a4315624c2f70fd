/*
 * large_test.c - operations that a GPU does in another way on as much as a chunk of text:
 * Gram blocks by its tensor cores, results that all threads bring back.
 */
#include "nn_check.h"

/* Tensor cores' sums are cut off where floats round. */
#define CUT_OFF 3e-5

static float *put(nn_device *dev, const float *values, size_t count)
{
    float *at = NULL;

    CHECK_OK(nn_mem_new(dev, &at, count, NN_MEM_FLOAT, "a test's operand"));
    CHECK_OK(nn_copy(dev, at, values, count * sizeof(*at)));
    return at;
}

/* More than one piece, and not a whole number of them; a result of the host's, too. */
static void copies(nn_device *dev)
{
    enum { COUNT = (9 << 20) / 4 + 13 };
    float *x = nn_random(COUNT, 9, 1.0f), *got = dr_calloc(COUNT, sizeof(*got));
    float *there = put(dev, x, COUNT), *twice = put(dev, got, COUNT);

    CHECK_OK(nn_copy_matrix(dev, twice, COUNT, there, COUNT, 1, COUNT, 2.0f));
    CHECK_OK(nn_copy(dev, got, twice, COUNT * sizeof(*got)));
    for (size_t i = 0; i < COUNT; i++)
        x[i] *= 2.0f;
    CHECK_MEM(got, x, COUNT * sizeof(*got));
    memset(got, 0xff, COUNT * sizeof(*got));
    CHECK_OK(nn_copy_matrix(dev, got, COUNT, there, COUNT, 1, COUNT, 2.0f));
    CHECK_MEM(got, x, COUNT * sizeof(*got));
    free(x);
    free(got);
    nn_mem_free(dev, there);
    nn_mem_free(dev, twice);
}

/* X twice, the second time added. */
static void grams(nn_device *ref, nn_device *dev, size_t block, float outlier)
{
    enum { ROWS = 1500, COLS = 384 };
    size_t count = COLS * block;
    float *x = nn_random((size_t)ROWS * COLS, 5, 1.0f);
    float *want = dr_calloc(count, sizeof(*want)), *got = dr_calloc(count, sizeof(*got));

    x[77] = outlier;
    for (size_t i = 0; i < count; i++)
        got[i] = NAN;
    float *to = put(dev, got, count), *x_ = put(dev, x, (size_t)ROWS * COLS);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(nn_gram_blocks(ref, want, x, ROWS, COLS, COLS, block, i == 0));
        CHECK_OK(nn_gram_blocks(dev, to, x_, ROWS, COLS, COLS, block, i == 0));
    }
    CHECK_OK(nn_copy(dev, got, to, count * sizeof(*got)));
    CHECK_NEAR(nn_far(got, want, count), 0.0, CUT_OFF);
    free(x);
    free(want);
    free(got);
    nn_mem_free(dev, to);
    nn_mem_free(dev, x_);
}

static void all(nn_device *ref, nn_device *dev)
{
    copies(dev);
    grams(ref, dev, 64, 1.0f);
    grams(ref, dev, 128, 1.0f);
    grams(ref, dev, 128, 300.0f);
}

int main(void)
{
    nn_device *ref = NULL, *apart = NULL, *cuda = NULL;

    CHECK_OK(nn_device_open(&ref, "ref", 1));
    CHECK_OK(nn_device_open(&apart, "cpu:apart", 2));
    all(ref, apart);
    if (nn_device_open(&cuda, "cuda", 1) == DR_OK)
        all(ref, cuda);
    else
        SKIP("gpu: none to use");
    nn_device_close(ref);
    nn_device_close(apart);
    nn_device_close(cuda);
    return check_done();
}
