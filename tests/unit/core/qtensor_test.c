/*
 * qtensor_test.c - packing: what is put in comes out, for every width, and the bytes lie
 * where MatMulNBits wants them.
 */
#include "check.h"

#include "core/qtensor.h"
#include "core/rng.h"
#include "core/tensor.h"

static void test_identity(int bits, int block, size_t rows, size_t cols, bool symmetric)
{
    dr_qtensor q;
    dr_rng r;
    size_t wrong = 0, steps = (size_t)1 << bits;

    if (!CHECK_OK(dr_qtensor_new(&q, bits, block, rows, cols, symmetric)))
        return;
    size_t kb = dr_qtensor_blocks(&q), padded = kb * (size_t)block;
    uint8_t *codes = calloc(rows * padded, 1), *zeros = calloc(rows * kb, 1);
    float *out = calloc(rows * cols, sizeof(float));
    dr_rng_init(&r, 7, (uint64_t)bits);
    /* Written twice, in another order: a code must not disturb its neighbours. */
    for (int turn = 0; turn < 2; turn++) {
        for (size_t i = 0; i < rows * padded; i++) {
            size_t at = turn ? rows * padded - 1 - i : i;
            codes[at] = (uint8_t)dr_rng_below(&r, steps);
            dr_qtensor_set_code(&q, at / padded, at % padded, codes[at]);
        }
        for (size_t i = 0; i < rows * kb && !symmetric; i++) {
            zeros[i] = (uint8_t)dr_rng_below(&r, steps);
            dr_qtensor_set_zero(&q, i / kb, i % kb, zeros[i]);
        }
    }
    for (size_t i = 0; i < rows * kb; i++)
        q.scales[i] = 0.01f * dr_rng_normal(&r);

    dr_qtensor_to_f32(out, &q, 0, rows);
    for (size_t n = 0; n < rows; n++) {
        for (size_t k = 0; k < padded; k++)
            wrong += dr_qtensor_code(&q, n, k) != codes[n * padded + k];
        for (size_t k = 0; k < cols; k++) {
            size_t b = n * kb + k / (size_t)block;
            int zero = symmetric ? 1 << (bits - 1) : zeros[b];
            wrong += dr_qtensor_zero(&q, n, k / (size_t)block) != zero;
            wrong +=
                out[n * cols + k] != (float)(codes[n * padded + k] - zero) * q.scales[b];
        }
    }
    CHECK_EQ_INT(wrong, 0);
    /* Some rows alone are the same rows. */
    if (rows > 2) {
        float *two = calloc(2 * cols, sizeof(float));
        dr_qtensor_to_f32(two, &q, 1, 2);
        CHECK_MEM(two, out + cols, 2 * cols * sizeof(float));
        free(two);
    }
    free(codes);
    free(zeros);
    free(out);
    dr_qtensor_release(&q);
    CHECK(q.codes == NULL && q.zeros == NULL && !q.owned);
}

static void test_layout(void)
{
    dr_qtensor q;

    CHECK_OK(dr_qtensor_new(&q, 4, 16, 2, 40, false)); /* 3 blocks, the last of 8 */
    CHECK_EQ_INT(dr_qtensor_blocks(&q), 3);
    CHECK_EQ_INT(dr_qtensor_row_bytes(&q), 24);
    CHECK_EQ_INT(dr_qtensor_zero_bytes(&q), 2);
    dr_qtensor_set_code(&q, 1, 0, 0x3);
    dr_qtensor_set_code(&q, 1, 1, 0xa);
    CHECK_EQ_INT(q.codes[24], 0xa3);
    dr_qtensor_set_zero(&q, 1, 2, 0xf);
    CHECK_EQ_INT(q.zeros[3], 0x0f);
    dr_qtensor_release(&q);

    CHECK_OK(dr_qtensor_new(&q, 2, 16, 1, 16, true));
    CHECK_EQ_INT(dr_qtensor_row_bytes(&q), 4);
    for (int i = 0; i < 4; i++)
        dr_qtensor_set_code(&q, 0, (size_t)i, i);
    CHECK_EQ_INT(q.codes[0], 0xe4); /* 3 2 1 0, lowest first */
    CHECK_EQ_INT(dr_qtensor_zero(&q, 0, 0), 2);
    dr_qtensor_release(&q);
    dr_qtensor_release(&q);
}

static void test_borrowed(void)
{
    uint8_t codes[8] = {0x98, 0x98, 0x98, 0x98, 0x98, 0x98, 0x98, 0x98};
    float scales[1] = {2.0f}, out[16];
    dr_qtensor q = {
        .bits = 4, .block = 16, .rows = 1, .cols = 16, .codes = codes, .scales = scales};

    dr_qtensor_to_f32(out, &q, 0, 1);
    CHECK(out[0] == 0.0f && out[1] == 2.0f && out[15] == 2.0f);
    dr_qtensor_release(&q); /* frees nothing: not owned */
    CHECK_EQ_INT(codes[0], 0x98);
}

static void test_too_big(void)
{
    dr_qtensor q;

    CHECK_STATUS(dr_qtensor_new(&q, 8, 32, SIZE_MAX / 2, 1024, true), DR_ENOMEM);
    CHECK_TRAIL("packed weight");
    dr_qtensor_release(&q);

    const dr_tensor t = {.ndim = 3, .dims = {2, 3, 5}};
    CHECK_EQ_INT(dr_tensor_count(&t), 30);
    CHECK_EQ_INT(dr_tensor_count(&(dr_tensor){0}), 1); /* a scalar */
}

int main(void)
{
    static const int widths[] = {2, 4, 8};

    for (size_t i = 0; i < DR_COUNT(widths); i++) {
        test_identity(widths[i], 16, 3, 48, false);
        test_identity(widths[i], 32, 4, 33, false); /* a last block of one */
        test_identity(widths[i], 32, 5, 101, true);
        test_identity(widths[i], 128, 1, 127, false);
        test_identity(widths[i], 16, 3, 16 * 7,
                      false); /* odd blocks: zeros end in mid-byte */
        test_identity(widths[i], 256, 2, 1, true);
    }
    test_layout();
    test_borrowed();
    test_too_big();
    return check_done();
}
