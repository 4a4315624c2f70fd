/*
 * masked_test.c - a low-rank adapter's products behind the mask of its dropout, by one
 * operation of the device (nn_impl.h): each is held to ref's dropout and product, sequence
 * by sequence, and gives the same bytes twice; shapes on and off what kernels take at once.
 */
#include "nn/nn_impl.h"
#include "nn_check.h"

enum { SEQUENCES = 2, STEP = 1000 };
static const double near = 8e-3; /* of the largest value: 2^-8, and a sum's own */
static const nn_mask its = {9, 4, 20000, 1.5f};

/* Values that bf16 has, and those in the device's memory. */
static float *rounded(nn_device *dev, float **p, size_t count, uint64_t seed)
{
    float *x = nn_random(count, seed, 1.0f);

    for (size_t i = 0; i < count; i++)
        x[i] = nn_rounded(x[i]);
    CHECK_OK(nn_mem_new(dev, p, count, NN_MEM_BF16, "test"));
    CHECK_OK(nn_copy(dev, *p, x, count * sizeof(*x)));
    return x;
}

/* y = (acc: +=) x masked, as ref does it. */
static void mask_rows(nn_device *ref, float *y, const float *x, size_t count, bool acc)
{
    nn_mask mask = its;
    size_t each = count / SEQUENCES;

    for (size_t i = 0; i < SEQUENCES; i++, mask.stream += STEP)
        CHECK_OK(nn_dropout(ref, y + i * each, x + i * each, each, &mask, acc));
}

/* y += x w masked. */
static void test_product(nn_device *ref, nn_device *dev, size_t m, size_t k, size_t r)
{
    float *p = NULL, *q = NULL, *s = NULL;
    float *y = rounded(dev, &p, m * k, 1), *x = rounded(dev, &q, m * r, 2);
    float *w = rounded(dev, &s, r * k, 3), *got = dr_calloc(m * k, sizeof(*got));
    float *wide = dr_calloc(m * k, sizeof(*wide));
    bool taken = false;

    CHECK_OK(
        dev->backend->masked_product(dev, &taken, p, q, s, m, k, r, &its, SEQUENCES, STEP));
    CHECK_EQ_INT(taken, k % 128 == 0 && r % 16 == 0);
    CHECK_OK(nn_copy(dev, got, p, m * k * sizeof(*got)));
    CHECK_OK(nn_matmul_nn(ref, wide, x, w, m, k, r, r, false));
    if (taken)
        mask_rows(ref, y, wide, m * k, true);
    CHECK_NEAR(nn_far(got, y, m * k), 0, near);
    nn_mem_free(dev, p);
    nn_mem_free(dev, q);
    nn_mem_free(dev, s);
    free(x);
    free(w);
    free(y);
    free(got);
    free(wide);
}

/* u = x masked, times w^T. */
static void test_factor(nn_device *ref, nn_device *dev, size_t m, size_t k, size_t r)
{
    float *p = NULL, *q = NULL, *s = NULL;
    float *u = rounded(dev, &p, m * r, 1), *x = rounded(dev, &q, m * k, 2);
    float *w = rounded(dev, &s, r * k, 3), *got = dr_calloc(m * r, sizeof(*got));
    float *again = dr_calloc(m * r, sizeof(*again)), *in = dr_calloc(m * k, sizeof(*in));
    bool taken = false;

    for (int i = 0; i < 2; i++) {
        for (size_t j = 0; j < m * r; j++)
            u[j] = NAN;
        CHECK_OK(nn_copy(dev, p, u, m * r * sizeof(*u)));
        CHECK_OK(dev->backend->masked_factor(dev, &taken, p, q, s, m, k, r, &its, SEQUENCES,
                                             STEP));
        CHECK_EQ_INT(taken, k % 128 == 0 && r % 16 == 0 && r <= 128);
        CHECK_OK(nn_copy(dev, i == 0 ? got : again, p, m * r * sizeof(*got)));
    }
    mask_rows(ref, in, x, m * k, false);
    CHECK_OK(nn_matmul_nt(ref, u, in, w, NULL, m, r, k, r, false));
    if (taken) {
        CHECK_NEAR(nn_far(got, u, m * r), 0, near);
        CHECK_MEM(got, again, m * r * sizeof(*got));
    }
    nn_mem_free(dev, p);
    nn_mem_free(dev, q);
    nn_mem_free(dev, s);
    free(u);
    free(x);
    free(w);
    free(got);
    free(again);
    free(in);
}

int main(void)
{
    static const char *const kinds[] = {"cuda:bf16", "cuda"};
    nn_device *ref = NULL, *dev = NULL;

    CHECK_OK(nn_device_open(&ref, "ref", 1));
    for (size_t i = 0; i < DR_COUNT(kinds); i++) {
        if (nn_device_open(&dev, kinds[i], 2) != DR_OK) {
            SKIP("gpu: none to use");
            break;
        }
        test_product(ref, dev, 50, 256, 64);
        test_product(ref, dev, 128, 384, 16);
        test_product(ref, dev, 128, 200, 16);
        test_product(ref, dev, 64, 128, 20);
        for (size_t r = 16; r <= 128; r += 16) {
            test_factor(ref, dev, 50, 256, r);
            test_factor(ref, dev, 130, 1152, r);
        }
        test_factor(ref, dev, 16, 200, 16);
        test_factor(ref, dev, 16, 128, 20);
        test_factor(ref, dev, 16, 128, 144);
        nn_device_close(dev);
        dev = NULL;
    }
    nn_device_close(ref);
    return check_done();
}
