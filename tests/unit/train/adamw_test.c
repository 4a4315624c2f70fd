/*
 * adamw_test.c - the optimizer against the textbook in double, for any number of threads.
 */
#include "check.h"
#include "core/mem.h"
#include "core/rng.h"
#include "train/train_impl.h"

enum { N = 150001, STEPS = 5 };

static dr_status state_new(train_state *s)
{
    float **const blocks[] = {&s->param, &s->grad, &s->m, &s->v};
    void *p = NULL;
    dr_status st = DR_OK;

    *s = (train_state){.count = N};
    for (size_t i = 0; i < DR_COUNT(blocks); i++) {
        DR_TRY(dr_big_alloc(&p, N, sizeof(float), "test"));
        *blocks[i] = p;
    }
done:
    return st;
}

static void fill(float *p, uint64_t stream)
{
    dr_rng r;

    dr_rng_init(&r, 1, stream);
    for (size_t i = 0; i < N; i++)
        p[i] = dr_rng_normal(&r);
}

static void run(train_state *s, int threads, double *norms)
{
    const train_adamw o = {0.01, 0.9, 0.999, 1e-8, 0.1};
    nn_device *dev = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", threads));
    CHECK_OK(state_new(s));
    fill(s->param, 100);
    for (size_t t = 1; t <= STEPS; t++) {
        fill(s->grad, t);
        CHECK_OK(train_grad_norm(&norms[t - 1], dev, s));
        CHECK_OK(train_adamw_step(dev, s, &o, t, 0.5));
    }
    nn_device_close(dev);
}

/* Loshchilov and Hutter's algorithm 2, element by element in double. */
static void expect(double *param, const float *start)
{
    static float g[N];
    static double m[N], v[N];

    for (size_t i = 0; i < N; i++)
        param[i] = (double)start[i];
    for (int t = 1; t <= STEPS; t++) {
        fill(g, (uint64_t)t);
        for (size_t i = 0; i < N; i++) {
            double d = 0.5 * (double)g[i];
            m[i] = 0.9 * m[i] + 0.1 * d;
            v[i] = 0.999 * v[i] + 0.001 * d * d;
            double mh = m[i] / (1 - pow(0.9, t)), vh = v[i] / (1 - pow(0.999, t));
            param[i] = param[i] - 0.01 * 0.1 * param[i] - 0.01 * mh / (sqrt(vh) + 1e-8);
        }
    }
}

int main(void)
{
    static double want[N], norms[2][STEPS];
    static float start[N], g[N];
    train_state one, three;
    double worst = 0, sum = 0;

    run(&one, 1, norms[0]);
    run(&three, 3, norms[1]);
    CHECK_MEM(one.param, three.param, N * sizeof(float));
    CHECK_MEM(norms[0], norms[1], sizeof(norms[0]));

    fill(start, 100);
    expect(want, start);
    for (size_t i = 0; i < N; i++)
        worst = fmax(worst, fabs((double)one.param[i] - want[i]));
    CHECK_NEAR(worst, 0, 2e-6);
    for (size_t i = 0; i < N; i++)
        CHECK_NEAR(one.grad[i], 0, 0); /* ready for the next step */
    fill(g, 1);
    for (size_t i = 0; i < N; i++)
        sum += (double)g[i] * (double)g[i];
    CHECK_NEAR(norms[0][0], sqrt(sum), 1e-9 * sqrt(sum));
    train_state_release(&one);
    train_state_release(&three);
    return check_done();
}
