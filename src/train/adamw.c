/*
 * adamw.c - the optimizer: nn's operations on the parameters where they are.
 */
#include <math.h>

#include "train/train_impl.h"

/* Parameters, gradients and the two moments, in the memory that they train in. */
typedef struct {
    float *param, *grad, *m, *v;
} arrays;

static arrays arrays_of(const train_state *s)
{
    if (s->there == NULL)
        return (arrays){s->param, s->grad, s->m, s->v};
    return (arrays){s->there, s->there + s->count, s->there + 2 * s->count,
                    s->there + 3 * s->count};
}

dr_status train_grad_sum(nn_device *dev, train_state *s)
{
    return nn_sum_ranks(dev, arrays_of(s).grad, s->count, "gradients");
}

dr_status train_grad_norm(double *norm, nn_device *dev, const train_state *s)
{
    dr_status st = DR_OK;

    DR_TRY(nn_squares(dev, norm, arrays_of(s).grad, 1, s->count));
    *norm = sqrt(*norm);
done:
    return st;
}

dr_status train_adamw_step(nn_device *dev, train_state *s, const train_adamw *o, size_t t,
                           double grad_scale)
{
    double c1 = 1 - pow(o->beta1, (double)t), c2 = 1 - pow(o->beta2, (double)t);
    const arrays a = arrays_of(s);
    const nn_adam step = {.grad_scale = (float)grad_scale,
                          .rest1 = (float)(1 - o->beta1), /* rounded once, as torch's */
                          .beta2 = (float)o->beta2,
                          .rest2 = (float)(1 - o->beta2),
                          .decay = (float)(1 - o->lr * o->weight_decay),
                          .step_size = (float)(o->lr / c1),
                          .inv_sqrt_c2 = (float)(1 / sqrt(c2)),
                          .eps = (float)o->eps};

    return nn_adamw(dev, a.param, a.grad, a.m, a.v, s->count, &step);
}
