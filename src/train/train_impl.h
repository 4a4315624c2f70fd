/*
 * train_impl.h - the trainer's parts: the adapter in memory, the optimizer, the order of
 * blocks.
 */
#ifndef DRUPE_TRAIN_TRAIN_IMPL_H
#define DRUPE_TRAIN_TRAIN_IMPL_H

#include "core/arena.h"
#include "train/train.h"

/*
 * All trained parameters in one block, module after module: A [r][n_in], then B [n_out][r].
 * Gradients and the two moments lie alike, so that the optimizer is one loop.
 */
typedef struct {
    hf_adapter
        adapter; /* owned: names, ranks, scales; modules[].a and .b point into param */
    float *param, *grad, *m, *v; /* owned, [count] each */
    size_t count;
    nn_lora **layers;     /* arena: the modules of each layer */
    size_t *layer_counts; /* arena */
    size_t max_rank;      /* largest sum of ranks in a layer */
    const char **targets; /* arena: leaf names for adapter_config.json */
    size_t target_count;
    int lowest; /* first layer that has a module */
    dr_arena arena;
} train_state;

/* A fresh adapter (A uniform as PEFT's kaiming_uniform with a = sqrt(5), B zero), or the
 * one in o->from_adapter. */
DR_MUST_USE dr_status train_state_open(train_state *s, const hf_model *m,
                                       const train_options *o);
void train_state_release(train_state *s);
/* Dropout masks differ by step and sequence; the same two numbers give the same mask. */
void train_state_masks(train_state *s, uint64_t seed, uint64_t step, uint64_t sequence);

/* ---- AdamW (Loshchilov and Hutter 2019), as torch.optim.AdamW computes it in float
 * ---- */

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
} train_adamw;

/* Global L2 norm of the gradients, summed in a fixed order. */
DR_MUST_USE dr_status train_grad_norm(double *norm, dr_pool *pool, const train_state *s);
/* One update; gradients are multiplied by grad_scale first and zeroed after.  t from 1. */
DR_MUST_USE dr_status train_adamw_step(dr_pool *pool, train_state *s, const train_adamw *o,
                                       size_t t, double grad_scale);

/* Learning rate of optimizer step k (from 0) of total, as transformers' schedules. */
double train_rate(const train_options *o, size_t k, size_t total);

/* ---- the order of blocks ---- */

/* order[n] for an epoch: torch.randperm(n) from a generator seeded with seed + epoch, as
 * accelerate's seedable sampler does for the Hugging Face Trainer; identity when
 * !shuffle. */
void train_order(size_t *order, size_t n, uint64_t seed, size_t epoch, bool shuffle);

/* Which blocks a step trains on: cut as the Trainer's loader cuts an epoch. */
typedef struct {
    size_t *order;                 /* owned: of the current epoch */
    size_t epoch, batches, groups; /* micro-batches and steps in an epoch */
} train_sampler;
void train_sampler_open(train_sampler *s, const train_blocks *b, const train_options *o);
/* Micro-batches [*first, *end) of step k, in the order of its epoch. */
void train_sampler_step(train_sampler *s, size_t k, const train_blocks *b,
                        const train_options *o, size_t *first, size_t *end);

/* ---- the trainer ---- */

typedef struct {
    nn_decoder *dec;
    train_state state;
    const train_blocks *blocks;
    const train_options *o;
    int layers;
    size_t hidden;
    nn_acts *acts; /* [layers] when all are kept, else [1] */
    size_t acts_count;
    float *inputs;    /* [layers][seq_len][D] when acts are not kept */
    float *x, *dx;    /* [seq_len][D] */
    int32_t *targets; /* [seq_len] */
    size_t bytes;     /* of all that */
    train_sampler sampler;
    size_t logged;       /* steps that are in the history already */
    double *last_losses; /* owned: of the last evaluation's blocks */
    float *best;         /* owned: parameters of the best one; NULL: not asked for */
    double *best_losses; /* owned */
} trainer;

/* All layers upward from ids[n], with the adapter or without; what the backward needs stays
 * in acts or inputs. */
DR_MUST_USE dr_status train_forward(trainer *t, const int32_t *ids, size_t n, bool adapter);
/* Labels of block i in t->targets. */
void train_targets(trainer *t, const train_blocks *b, size_t i);

/* ---- what is done beside the steps (train_watch.c) ---- */

/* Evaluates the base; then what is due after step r->steps; then what is due at the end,
 * where the best adapter takes the last one's place. */
DR_MUST_USE dr_status train_watch_begin(trainer *t, train_report *r);
DR_MUST_USE dr_status train_watch_step(trainer *t, train_report *r);
DR_MUST_USE dr_status train_watch_end(trainer *t, train_report *r);

#endif
