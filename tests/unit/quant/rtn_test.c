/*
 * rtn_test.c - rounding to nearest: error bounds, bytes, edges of the range.
 */
#include "quant_fixture.h"

static float worst_error(const dr_qtensor *q, const float *w)
{
    size_t blocks = dr_qtensor_blocks(q);
    float *back = dr_calloc(q->rows * q->cols, sizeof(*back)), worst = 0;

    dr_qtensor_to_f32(back, q, 0, q->rows);
    for (size_t r = 0; r < q->rows; r++) {
        for (size_t c = 0; c < q->cols; c++) {
            float scale = q->scales[r * blocks + c / (size_t)q->block];
            float e = fabsf(back[r * q->cols + c] - w[r * q->cols + c]) / scale;
            worst = e > worst ? e : worst;
        }
    }
    free(back);
    return worst;
}

static void bounds(dr_pool *pool)
{
    static const int bits[] = {2, 4, 8}, groups[] = {16, 32, 128, 96};
    enum { ROWS = 37, COLS = 192 };
    float *w = fix_normal((size_t)ROWS * COLS, 1, 0.3f);

    for (size_t i = 0; i < DR_COUNT(bits) * DR_COUNT(groups) * 2; i++) {
        quant_grid grid = {bits[i % 3], groups[i / 3 % 4], i >= 12};
        dr_qtensor q = {0};
        if (!CHECK_OK(quant_pack_rtn(&q, pool, w, ROWS, COLS, &grid, true)))
            continue;
        /* half a step, and 2^-11 of the range for the scale's own rounding */
        float slack = (float)(1 << bits[i % 3]) / 2048.0f;
        CHECK(worst_error(&q, w) <= 0.5f + slack);
        CHECK((q.zeros == NULL) == grid.symmetric);
        for (size_t k = 0; k < ROWS * dr_qtensor_blocks(&q); k++)
            CHECK(dr_f16_to_f32(dr_f32_to_f16(q.scales[k])) == q.scales[k]);
        dr_qtensor_release(&q);
    }
    free(w);
}

/* A weight that lies on a grid comes back as it was: same codes, scales and zero points. */
static void identity(dr_pool *pool)
{
    enum { ROWS = 20, COLS = 64 };
    quant_grid grid = {4, 32, false};
    dr_qtensor q = {0}, again = {0};
    float *w = fix_normal((size_t)ROWS * COLS, 2, 1.0f);

    CHECK_OK(quant_pack_rtn(&q, pool, w, ROWS, COLS, &grid, true));
    dr_qtensor_to_f32(w, &q, 0, ROWS);
    CHECK_OK(quant_pack_rtn(&again, pool, w, ROWS, COLS, &grid, true));
    CHECK_MEM(q.codes, again.codes, ROWS * dr_qtensor_row_bytes(&q));
    CHECK_MEM(q.zeros, again.zeros, ROWS * dr_qtensor_zero_bytes(&q));
    CHECK_MEM(q.scales, again.scales, ROWS * dr_qtensor_blocks(&q) * sizeof(float));
    dr_qtensor_release(&q);
    dr_qtensor_release(&again);
    free(w);
}

static void edges(dr_pool *pool)
{
    enum { COLS = 32 };
    float w[5 * COLS] = {0}, back[5 * COLS];
    quant_grid asym = {4, 32, false}, sym = {4, 32, true};
    dr_qtensor q = {0};

    for (int i = 0; i < COLS; i++) {               /* row 0: zeros */
        w[COLS + i] = 1.0f + (float)i / COLS;      /* positive */
        w[2 * COLS + i] = -2.0f - (float)i / COLS; /* negative */
        w[3 * COLS + i] = 1e-12f * (float)i;       /* below any half */
        w[4 * COLS + i] = 3.0f;                    /* constant */
    }
    CHECK_OK(quant_pack_rtn(&q, pool, w, 5, COLS, &asym, true));
    dr_qtensor_to_f32(back, &q, 0, 5);
    for (int i = 0; i < COLS; i++) {
        CHECK(back[i] == 0.0f);
        CHECK_NEAR(back[4 * COLS + i], 3.0, 2e-3);
    }
    for (int r = 0; r < 5; r++)
        CHECK(q.scales[r] > 0.0f);
    CHECK_EQ_INT(dr_qtensor_zero(&q, 1, 0), 0);
    CHECK_EQ_INT(dr_qtensor_zero(&q, 2, 0), 15);
    CHECK(worst_error(&q, w) <= 0.51f);
    dr_qtensor_release(&q);
    /* symmetric without negatives: no clipping to half of the range */
    CHECK_OK(quant_pack_rtn(&q, pool, w, 5, COLS, &sym, true));
    CHECK(worst_error(&q, w) <= 0.51f);
    dr_qtensor_release(&q);
    w[70] = NAN;
    CHECK_STATUS(quant_pack_rtn(&q, pool, w, 5, COLS, &asym, true), DR_EFORMAT);
    CHECK(q.codes == NULL);
}

/* A short last block is padded with its zero point. */
static void short_block(dr_pool *pool)
{
    enum { ROWS = 3, COLS = 40 };
    float *w = fix_normal((size_t)ROWS * COLS, 3, 1.0f);
    quant_grid grid = {4, 32, false};
    dr_qtensor q = {0};

    CHECK_OK(quant_pack_rtn(&q, pool, w, ROWS, COLS, &grid, false));
    CHECK_EQ_INT(dr_qtensor_blocks(&q), 2);
    CHECK(worst_error(&q, w) <= 0.5001f);
    for (size_t r = 0; r < ROWS; r++) {
        const uint8_t *last = q.codes + r * dr_qtensor_row_bytes(&q) + 31;
        int zero = dr_qtensor_zero(&q, r, 1);
        CHECK_EQ_INT(*last, zero | zero << 4);
    }
    dr_qtensor_release(&q);
    free(w);
}

int main(void)
{
    dr_pool *pool = NULL;

    CHECK_OK(dr_pool_open(&pool, 3));
    bounds(pool);
    identity(pool);
    edges(pool);
    short_block(pool);
    dr_pool_close(pool);
    return check_done();
}
