/*
 * train.h - fine-tuning: adapters on full-precision and on packed bases.
 *
 * Numerics follow PEFT and the Hugging Face Trainer (AdamW, betas .9/.999, eps 1e-8, weight
 * decay 0, clipping of the global norm at 1) in float; see train_lora.c for each source.
 */
#ifndef DRUPE_TRAIN_H
#define DRUPE_TRAIN_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/status.h"
#include "hf/hf.h"
#include "nn/nn.h"

/* The names of transformers' SchedulerType, in train_schedule_names. */
typedef enum {
    TRAIN_CONSTANT,
    TRAIN_LINEAR,
    TRAIN_COSINE,
    TRAIN_COSINE_RESTARTS,
    TRAIN_POLYNOMIAL,
    TRAIN_CONSTANT_WARMUP,
    TRAIN_INVERSE_SQRT,
    TRAIN_COSINE_MIN,
    TRAIN_STABLE_DECAY,
    TRAIN_PLATEAU /* needs evaluations */
} train_schedule;
extern const char *const train_schedule_names[]; /* ends with NULL */

/* What lr_scheduler_kwargs may hold; see schedule.c for who reads what. */
typedef struct {
    double num_cycles, power, lr_end, min_lr, min_lr_ratio;
    size_t timescale, num_decay_steps;
    double factor, threshold, eps; /* of TRAIN_PLATEAU, with min_lr */
    size_t patience, cooldown;
    bool absolute; /* threshold_mode abs, not rel */
} train_schedule_shape;
#define TRAIN_SHAPE_DEFAULTS                                                               \
    {                                                                                      \
        .power = 1, .lr_end = 1e-7, .factor = 0.1, .threshold = 1e-4, .eps = 1e-8,         \
        .patience = 10                                                                     \
    }

/* When something is done: never, every so many steps, at each epoch's end. */
typedef enum { TRAIN_NEVER, TRAIN_STEPS, TRAIN_EPOCH } train_when;

/*
 * ids [count][seq_len], lengths of each block (padding past them is not trained on): labels
 * are the inputs, shifted by one.
 */
typedef struct {
    const int32_t *ids;
    const size_t *lengths;
    size_t count, seq_len;
    size_t context;             /* first tokens of each block that are no labels */
    const unsigned char *marks; /* [count][seq_len], 1: a label; NULL: all are */
    const uint32_t *starts;     /* [count][seq_len] where each token's text begins: what is
                               before is neither seen nor answered; NULL: at 0 */
} train_blocks;

/* How a fresh LoRA adapter begins (PEFT's init_lora_weights): A uniform, or normal with a
 * deviation of 1 / r, and B zero; or both the largest part of the weights (PiSSA), which
 * the base then lacks: what is written has twice the rank, and fits the base as it is. */
typedef enum { TRAIN_INIT_UNIFORM, TRAIN_INIT_GAUSSIAN, TRAIN_INIT_PISSA } train_init;

/* Options that an adapter to start from has of its own. */
enum {
    TRAIN_ASKED_R = 1,
    TRAIN_ASKED_ALPHA = 2,
    TRAIN_ASKED_RSLORA = 4,
    TRAIN_ASKED_TARGETS = 8,
    TRAIN_ASKED_BOTH = 16,
    TRAIN_ASKED_FACTOR = 32
};

typedef struct {
    int r;          /* 64 */
    double alpha;   /* 16 */
    double dropout; /* 0.05 */
    bool rslora;
    hf_adapter_kind kind;
    bool decompose_both, rank_dropout_scale; /* of LoKr, as in hf_adapter */
    int decompose_factor;
    double module_dropout; /* of LoHa and LoKr, whose rank_dropout is in dropout */
    bool random_start;     /* of both: no factor begins at zero (init_weights false) */
    bool dora;             /* with magnitudes */
    train_init init;
    int pissa_niter;         /* 0: exact; or iterations of a randomized start */
    int loftq_iter;          /* of train_loftq: 1 */
    const hf_adapter *start; /* what train_loftq made; NULL: none */
    const hf_bnb *base_grid; /* the base's linears are rounded to it; NULL: as they are */
    const char *const *targets; /* leaf names; NULL: the family's default */
    size_t target_count;
    const hf_model *teacher;  /* KL to its logits is the loss, not the text's; NULL: none */
    const char *from_adapter; /* PEFT folder to start from; NULL: fresh */
    unsigned asked;           /* TRAIN_ASKED_...: what it must have as it is here */

    size_t max_steps;           /* 0: from epochs */
    double epochs;              /* 3 */
    size_t batch;               /* per_device_train_batch_size: 8 */
    size_t accumulation;        /* gradient_accumulation_steps: 1 */
    double learning_rate;       /* 2e-4 */
    train_schedule schedule;    /* constant */
    train_schedule_shape shape; /* transformers' defaults */
    double warmup_ratio;        /* 0.03; no effect with constant, as in transformers */
    size_t warmup_steps;        /* wins over the ratio */
    double weight_decay, beta1, beta2, eps; /* 0, .9, .999, 1e-8 */
    double max_grad_norm;                   /* 1; 0: no clipping */
    double label_smoothing;                 /* of the training's loss alone */
    uint64_t seed;                          /* 42 */
    bool shuffle;      /* torch.randperm of each epoch, seeded as the Trainer's */
    size_t keep_bytes; /* memory to use; 0: half of the machine's */
    bool strict;       /* and no more: DR_ENOMEM when it cannot do with that */
    /* Products with the base are of 8-bit integers (nn_i8.h): of LoRA without DoRA, and on
     * the cpu; DR_EUSAGE elsewhere. */
    bool integers;

    /* Of TRAIN_STEPS: so many, or below 1 a share of all steps. */
    double logging_steps, eval_steps, save_steps;
    train_when log_when; /* lines of the log, and entries of the history */
    bool log_first;      /* the first step, too */

    const train_blocks *eval; /* NULL: nothing is evaluated */
    const hf_model *original; /* that the base was made from, evaluated once; NULL: none */
    train_when eval_when;     /* beside the base before and the adapter after */
    bool load_best;   /* write the adapter whose evaluation was best, not the last */
    size_t patience;  /* stop after so many evaluations without a better one; 0: never */
    double threshold; /* by more than this is better, for patience */

    const char *checkpoints; /* folder that holds them; NULL: there are none */
    train_when save_when;
    size_t save_limit;  /* the last ones stay; 0: all */
    const char *resume; /* a checkpoint, or a folder of them; NULL: from the start */
    /* What a checkpoint must have been made with: names and values, for messages; NULL:
     * nothing.  Model, data and starting adapter are looked at in any case. */
    const json_t *settings;
} train_options;

/* A loss, in nats a token, after so many steps. */
typedef struct {
    size_t step;
    double loss;
} train_eval;

typedef struct {
    size_t steps, total;   /* done, of */
    size_t epoch_steps;    /* of one epoch */
    double *losses;        /* owned: one a step */
    double *grad_norms;    /* owned: before clipping */
    size_t tokens;         /* trained on, repeats counted */
    double seconds;        /* of this process's steps, without evaluations */
    size_t session_tokens; /* of these */
    double *step_seconds;  /* owned: of each step; 0: another process made it */
    size_t ranks;          /* processes that shared the work */
    size_t trainable;      /* parameters */
    size_t peak_bytes;     /* planned: weights, activations, gradients, optimizer */

    train_eval *evals; /* owned: the first is the base, at step 0 */
    size_t eval_count;
    size_t best_step; /* of the evaluations after the first; 0: there is none */
    double best_loss;
    size_t waited;    /* evaluations since one was better, by the threshold */
    bool stopped;     /* early */
    size_t made_step; /* the step whose adapter was written */
    double *base_losses, *made_losses; /* owned: means of the evaluation's blocks, of the
                                          base and of what was written; NaN: no target */
    double *original_losses;           /* owned: likewise, of o->original; NULL: none */
    json_t *history;                   /* owned: log_history, as the Trainer has it */
} train_report;
void train_report_release(train_report *r);

/*
 * Writes a PEFT folder to out_dir.
 * DR_EUSAGE: targets that the model does not have (named, with those it has); an adapter to
 * start from that is of another kind, or not as asked.
 * DR_EDEVICE: a loss or a gradient that is not finite, with its step.
 * DR_EUSAGE, with checkpoints: some are there and resume is NULL; resume names none that is
 * whole, or one of another model, other data or other settings, by name.
 */
DR_MUST_USE dr_status train_lora(train_report *report, nn_device *dev, const hf_model *base,
                                 const char *base_name, const train_blocks *blocks,
                                 const train_options *o, const char *out_dir);

/*
 * LoftQ: the layers' linears of m go to out rounded (hf_writer_bnb), those of the targets
 * so that start, the best adapter of rank r to what the rounding lost, begins near them.
 * start is for a train_lora on what was written; its names are m's.
 * DR_EUSAGE: as train_lora; a rank that is more than a module has.
 */
DR_MUST_USE dr_status train_loftq(hf_adapter *start, const hf_model *m,
                                  const train_options *o, dr_pool *pool, hf_writer *out);

/* The steps of a folder's checkpoints, the last first; none where it is not there. */
DR_MUST_USE dr_status train_checkpoint_list(dr_arena *a, size_t **steps, size_t *count,
                                            const char *dir);
/* PEFT's default target modules for a family ("q_proj", "v_proj"), Olive's for Phi-3. */
void train_default_targets(const hf_config *c, const char *const **names, size_t *count);
void train_options_default(train_options *o);

#endif
