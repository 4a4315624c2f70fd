/*
 * descend_test.c - descent over codes, scales and zero points, and the chain that ends in
 * it: losses against plain sums over tokens in double, against all codes tried, never
 * worse than where it began.
 */
#include <math.h>

#include "quant_fixture.h"

enum { M = 96, K = 64, ROWS = 21 };

static const quant_grid four = {4, 32, false};

/* The sum over tokens of the squared change of the output, row by row. */
static double output_loss(const float *values, const float *w, const float *x, size_t row)
{
    double loss = 0;

    for (size_t t = 0; t < M; t++) {
        double y = 0;
        for (size_t i = 0; i < K; i++)
            y += (double)x[t * K + i] *
                 ((double)values[row * K + i] - (double)w[row * K + i]);
        loss += y * y;
    }
    return loss;
}

/* Whether values are what q holds. */
static void holds(const dr_qtensor *q, const float *values)
{
    float *held = dr_calloc(ROWS * K, sizeof(*held));

    dr_qtensor_to_f32(held, q, 0, ROWS);
    for (size_t i = 0; i < ROWS * K; i++)
        CHECK_NEAR(held[i], values[i], 1e-6);
    free(held);
}

static void losses(nn_device *dev, const float *w, const float *x, const float *h)
{
    float *values = fix_normal(ROWS * K, 70, 0.1f);
    double loss[ROWS] = {0};

    CHECK_OK(quant_row_losses(loss, dev, values, w, h, ROWS, K));
    for (size_t r = 0; r < ROWS; r++)
        CHECK_NEAR(loss[r] / output_loss(values, w, x, r), 1, 1e-3);
    free(values);
}

/* From rounding to nearest: every row better, and no single code could still be changed to
 * its gain. */
static void descending(nn_device *dev, const float *w, const float *x, const float *h,
                       const quant_grid *grid)
{
    float *values = dr_calloc(ROWS * K, sizeof(*values));
    double before[ROWS] = {0}, told[ROWS] = {0}, sum[2] = {0};
    dr_qtensor q = {0};

    CHECK_OK(quant_pack_rtn(&q, nn_device_pool(dev), w, ROWS, K, grid, true));
    dr_qtensor_to_f32(values, &q, 0, ROWS);
    for (size_t r = 0; r < ROWS; r++)
        before[r] = output_loss(values, w, x, r);
    CHECK_OK(quant_descend(&q, told, values, dev, w, h, grid, 0, 100));
    holds(&q, values);
    for (size_t r = 0; r < ROWS; r++) {
        double after = output_loss(values, w, x, r);
        CHECK(after <= before[r] * 1.0001);
        CHECK_NEAR(told[r] / after, 1, 1e-3);
        sum[0] += before[r];
        sum[1] += after;
        for (size_t i = 0; i < K; i++) {
            size_t b = i / (size_t)q.block;
            float was = values[r * K + i], s = q.scales[r * dr_qtensor_blocks(&q) + b];
            int code = dr_qtensor_code(&q, r, i), zero = dr_qtensor_zero(&q, r, b);
            for (int c = code - 1; c <= code + 1; c += 2) {
                if (c < 0 || c > 15)
                    continue;
                values[r * K + i] = (float)(c - zero) * s;
                CHECK(output_loss(values, w, x, r) >= after * 0.999);
            }
            values[r * K + i] = was;
        }
    }
    /* the loss that is told is without damping, which here is a tenth of H */
    CHECK_OK(quant_descend(&q, told, values, dev, w, h, grid, 0.1 * (double)h[0], 2));
    holds(&q, values);
    for (size_t r = 0; r < ROWS; r++)
        CHECK_NEAR(told[r] / output_loss(values, w, x, r), 1, 1e-3);
    (void)printf("group %d: loss %.4g before, %.4g after\n", grid->group_size, sum[0],
                 sum[1]);
    CHECK(sum[1] < 0.6 * sum[0]);
    free(values);
    dr_qtensor_release(&q);
}

/* The chain's rows lose no more than gptq's and rounding's; its loss is their sum. */
static void chained(nn_device *dev, const float *w, const float *x, const float *h)
{
    const quant_gptq_options o = {.damp_percent = 0.01, .desc_act = true, .sweeps = 3};
    float *values[3];
    dr_qtensor q[3] = {{0}};
    double loss = 0, total[3] = {0};

    for (int i = 0; i < 3; i++) {
        values[i] = dr_calloc(ROWS * K, sizeof(*values[i]));
        memcpy(values[i], w, ROWS * K * sizeof(*w));
    }
    CHECK_OK(
        quant_chain_solve(&q[0], &loss, NULL, dev, values[0], h, ROWS, K, &four, &o, "w"));
    CHECK_OK(quant_gptq_solve(&q[1], NULL, dev, values[1], h, ROWS, K, &four, &o, "w"));
    CHECK_OK(quant_pack_rtn(&q[2], nn_device_pool(dev), w, ROWS, K, &four, true));
    dr_qtensor_to_f32(values[2], &q[2], 0, ROWS);
    holds(&q[0], values[0]);
    for (size_t r = 0; r < ROWS; r++) {
        double row[3];
        for (int i = 0; i < 3; i++)
            total[i] += row[i] = output_loss(values[i], w, x, r);
        CHECK(row[0] <= row[1] * 1.001 && row[0] <= row[2] * 1.001);
    }
    (void)printf("loss: chain %.4g, gptq %.4g, rtn %.4g\n", total[0], total[1], total[2]);
    CHECK_NEAR(loss / total[0], 1, 1e-3);
    CHECK(total[0] < 0.95 * total[1] && total[1] < total[2]);
    for (int i = 0; i < 3; i++) {
        free(values[i]);
        dr_qtensor_release(&q[i]);
    }
}

int main(void)
{
    float *w = fix_normal(ROWS * K, 60, 0.1f), *x = fix_inputs(M, K, 61);
    float *h = fix_gram(x, M, K);
    const quant_grid balanced = {4, 16, true}, row = {4, 64, false};
    nn_device *dev = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", 2));
    losses(dev, w, x, h);
    descending(dev, w, x, h, &four);
    descending(dev, w, x, h, &balanced);
    descending(dev, w, x, h, &row);
    chained(dev, w, x, h);
    nn_device_close(dev);
    free(w);
    free(x);
    free(h);
    return check_done();
}
