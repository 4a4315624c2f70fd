/*
 * train_options.c - defaults: Olive's over the Hugging Face Trainer's.
 */
#include <stdlib.h>

#include "train/train_impl.h"

void train_options_default(train_options *o)
{
    *o = (train_options){.r = 64,
                         .alpha = 16,
                         .dropout = 0.05,
                         .loftq_iter = 1,
                         .decompose_factor = -1,
                         .epochs = 3,
                         .batch = 8,
                         .accumulation = 1,
                         .learning_rate = 2e-4,
                         .schedule = TRAIN_CONSTANT,
                         .shape = TRAIN_SHAPE_DEFAULTS,
                         .warmup_ratio = 0.03,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .eps = 1e-8,
                         .max_grad_norm = 1,
                         .seed = 42,
                         .shuffle = true};
}

void train_default_targets(const hf_config *c, const char *const **names, size_t *count)
{
    static const char *const fused[] = {"o_proj", "qkv_proj"};
    static const char *const split[] = {"q_proj", "v_proj"};

    *names = c->fused ? fused : split;
    *count = 2;
}

void train_report_release(train_report *r)
{
    free(r->losses);
    free(r->grad_norms);
    free(r->step_seconds);
    free(r->evals);
    free(r->base_losses);
    free(r->made_losses);
    free(r->original_losses);
    json_decref(r->history);
    *r = (train_report){0};
}
