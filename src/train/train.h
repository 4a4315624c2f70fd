/*
 * train.h - fine-tuning: LoRA adapters on full-precision and on packed bases.
 *
 * Numerics follow PEFT and the Hugging Face Trainer (AdamW, betas .9/.999, eps 1e-8, weight
 * decay 0, clipping of the global norm at 1) in float; see train_lora.c for each source.
 */
#ifndef DRUPE_TRAIN_H
#define DRUPE_TRAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"
#include "hf/hf.h"
#include "nn/nn.h"

typedef enum { TRAIN_CONSTANT, TRAIN_LINEAR, TRAIN_COSINE } train_schedule;

typedef struct {
    int r;          /* 64 */
    double alpha;   /* 16 */
    double dropout; /* 0.05 */
    bool rslora;
    const char *const *targets; /* leaf names; NULL: the family's default */
    size_t target_count;
    const char *from_adapter; /* PEFT folder to start from; NULL: fresh */

    size_t max_steps;        /* 0: from epochs */
    double epochs;           /* 3 */
    size_t batch;            /* per_device_train_batch_size: 8 */
    size_t accumulation;     /* gradient_accumulation_steps: 1 */
    double learning_rate;    /* 2e-4 */
    train_schedule schedule; /* constant */
    double warmup_ratio;     /* 0.03; no effect with constant, as in transformers */
    size_t warmup_steps;     /* wins over the ratio */
    double weight_decay, beta1, beta2, eps; /* 0, .9, .999, 1e-8 */
    double max_grad_norm;                   /* 1; 0: no clipping */
    uint64_t seed;                          /* 42 */
    bool shuffle;         /* torch.randperm of each epoch, seeded as the Trainer's */
    size_t logging_steps; /* 0: at the end only */
    size_t keep_bytes;    /* memory for weights and activations; 0: half of what is free */
} train_options;

typedef struct {
    size_t steps;
    double *losses;     /* owned: one a step */
    double *grad_norms; /* owned: before clipping */
    double seconds;     /* of the steps */
    size_t tokens;      /* trained on, repeats counted */
    size_t trainable;   /* parameters */
    size_t peak_bytes;  /* planned: weights, activations, gradients, optimizer */
} train_report;
void train_report_release(train_report *r);

/*
 * ids [count][seq_len], lengths of each block (padding past them is not trained on): labels
 * are the inputs, shifted by one.  Writes a PEFT folder to out_dir.
 * DR_EUSAGE: targets that the model does not have (named, with those it has).
 */
typedef struct {
    const int32_t *ids;
    const size_t *lengths;
    size_t count, seq_len;
    size_t context; /* first tokens of each block that are no labels */
} train_blocks;
DR_MUST_USE dr_status train_lora(train_report *report, nn_device *dev, const hf_model *base,
                                 const char *base_name, const train_blocks *blocks,
                                 const train_options *o, const char *out_dir);

/* PEFT's default target modules for a family ("q_proj", "v_proj"), Olive's for Phi-3. */
void train_default_targets(const hf_config *c, const char *const **names, size_t *count);
void train_options_default(train_options *o);

#endif
