/*
 * train_impl.h - the trainer's parts: the adapter in memory, the optimizer, the order of
 * blocks.
 */
#ifndef DRUPE_TRAIN_TRAIN_IMPL_H
#define DRUPE_TRAIN_TRAIN_IMPL_H

#include "core/arena.h"
#include "core/hash.h"
#include "core/log.h"
#include "train/train.h"

/* A LoHa or LoKr module: its dW is added to the weights themselves (delta.c). */
typedef struct {
    const hf_lora_module *mod; /* f[].data: in param */
    hf_slot slot;
    size_t row0;
    bool kron;   /* LoKr */
    float *grad; /* of the factors, one after another */
    float *rows; /* [n_out] what dropout leaves of each */
    bool masked;
} train_delta;

/*
 * All trained parameters in one block, module after module: A [r][n_in], then B [n_out][r],
 * then DoRA's magnitude [n_out]; of LoHa and LoKr the factors.
 * Gradients and the two moments lie alike, so that the optimizer is one loop.
 */
typedef struct {
    hf_adapter
        adapter; /* owned: names, ranks, scales; modules[].a and .b point into param */
    float *param, *grad, *m, *v; /* owned, [count] each */
    size_t count;
    float *start;     /* owned: PiSSA's A and B, module after module; NULL without */
    float *norms;     /* owned: DoRA's, module after module [n_out]; nothing without */
    nn_device *mem;   /* borrowed: whose memory `there` is; NULL: there is none */
    float *there;     /* owned: param, grad, m and v where they train, [count] each, and
                         behind them a start */
    float *rounded;   /* owned: A and scale B once more, as param, for products of a device
                         that rounds; else NULL */
    nn_lora **layers; /* arena: the modules of each layer, and behind them their starts */
    train_delta **deltas;  /* arena: of each layer, LoHa and LoKr; else NULL */
    size_t *layer_counts;  /* arena */
    size_t *layer_trained; /* arena: without the starts */
    size_t max_kept;       /* largest sum of nn_lora_kept in a layer */
    const char **targets;  /* arena: leaf names for adapter_config.json */
    size_t target_count;
    int layer_count;
    int lowest; /* first layer that has a module */
    dr_arena arena;
} train_state;

/* A fresh adapter (A uniform as PEFT's kaiming_uniform with a = sqrt(5), B zero), or the
 * one in o->from_adapter or o->start.  pool: for PiSSA. */
DR_MUST_USE dr_status train_state_open(train_state *s, const hf_model *m,
                                       const train_options *o, dr_pool *pool);
/* As PEFT's folder; PiSSA's with its start, in twice the rank. */
DR_MUST_USE dr_status train_state_write(const train_state *s, const char *dir,
                                        const char *base_name);
/* Modules without values. */
DR_MUST_USE dr_status train_fresh_modules(hf_adapter *ad, const hf_model *m,
                                          const train_options *o);
/* Values for fresh modules (start.c): PiSSA's; with out LoftQ's, and the base's linears. */
DR_MUST_USE dr_status train_start(hf_adapter *ad, const hf_model *m, const train_options *o,
                                  dr_pool *pool, hf_writer *out);
/* From now on they train in the memory of dev, which has its own, m and v from zero on:
 * here they are what train_state_pull last brought, param also what train_state_params did;
 * train_state_push takes them there. */
DR_MUST_USE dr_status train_state_place(train_state *s, nn_device *dev);
/* Nothing where they train in param itself. */
DR_MUST_USE dr_status train_state_params(train_state *s);
DR_MUST_USE dr_status train_state_pull(train_state *s);
DR_MUST_USE dr_status train_state_push(train_state *s);
void train_state_release(train_state *s);
/* DoRA over w, a layer's weights, when the parameters are new: the norms; fresh: and
 * magnitudes that are equal to them, so that the adapter begins as nothing. */
DR_MUST_USE dr_status train_state_norms(train_state *s, nn_decoder *d, const nn_layer *w,
                                        bool fresh);
/* Where a device rounds: what it takes of the parameters as they are now. */
DR_MUST_USE dr_status train_state_round(train_state *s);
/* Dropout masks differ by step and sequence; the same two numbers give the same mask.
 * count: so many sequences, from that one on, are run at once. */
void train_state_masks(train_state *s, uint64_t seed, uint64_t step, uint64_t sequence,
                       size_t count);

/* ---- adapters as large as the weights (delta.c) ---- */

typedef struct {
    float *w[HF_SLOT_COUNT], *dw[HF_SLOT_COUNT]; /* [N][K], of slots with modules */
    float *full[3];                              /* of the largest module */
    void *block;                                 /* owned: dr_big_free */
} train_delta_work;
/* Floats that the work takes; 0: the adapter is another kind. */
size_t train_delta_floats(const train_state *s, const hf_config *c);
DR_MUST_USE dr_status train_delta_open(train_delta_work *k, const train_state *s,
                                       const hf_config *c);
/* own = w with the layer's adapter in its weights, and room for their gradients. */
DR_MUST_USE dr_status train_delta_apply(nn_layer *own, nn_device *dev, train_delta_work *k,
                                        const train_state *s, const nn_layer *w,
                                        const hf_config *c);
/* From the gradients of own's weights. */
DR_MUST_USE dr_status train_delta_grads(nn_device *dev, train_delta_work *k,
                                        const train_state *s, int layer);
void train_delta_masks(train_delta *d, const hf_adapter *a, uint64_t seed, uint64_t stream);

/* ---- AdamW (Loshchilov and Hutter 2019), as torch.optim.AdamW computes it in float
 * ---- */

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
} train_adamw;

/* Of several ranks: the gradients become the sum over all. */
DR_MUST_USE dr_status train_grad_sum(nn_device *dev, train_state *s);
/* Global L2 norm of the gradients, summed in a fixed order. */
DR_MUST_USE dr_status train_grad_norm(double *norm, nn_device *dev, const train_state *s);
/* One update; gradients are multiplied by grad_scale first and zeroed after.  t from 1. */
DR_MUST_USE dr_status train_adamw_step(nn_device *dev, train_state *s, const train_adamw *o,
                                       size_t t, double grad_scale);

/* Learning rate of optimizer step k (from 0) of total, as transformers' schedules. */
double train_rate(const train_options *o, size_t k, size_t total);
/* The same where it depends on the evaluations so far, the base's first: reduced after so
 * many in a row that were not better (torch's ReduceLROnPlateau). */
double train_plateau_rate(const train_options *o, const train_eval *evals, size_t count);
/* Either, of step k, which is the next or the last one of r. */
double train_rate_of(const train_options *o, const train_report *r, size_t k);

/* ---- the order of blocks ---- */

/* order[n] for an epoch: torch.randperm(n) from a generator seeded with seed + epoch, as
 * accelerate's seedable sampler does for the Hugging Face Trainer; identity when
 * !shuffle. */
void train_order(size_t *order, size_t n, uint64_t seed, size_t epoch, bool shuffle);

/* Which blocks a step trains on: cut as the Trainer's loader cuts an epoch. */
typedef struct {
    size_t *order;                 /* owned: of the current epoch */
    size_t batch;                  /* blocks of a micro-batch, of all ranks */
    size_t epoch, batches, groups; /* micro-batches and steps in an epoch */
} train_sampler;
/* A micro-batch has o->batch blocks of each of so many ranks. */
void train_sampler_open(train_sampler *s, const train_blocks *b, const train_options *o,
                        size_t ranks);
/* Micro-batches [*first, *end) of step k, in the order of its epoch. */
void train_sampler_step(train_sampler *s, size_t k, const train_blocks *b,
                        const train_options *o, size_t *first, size_t *end);
/* Blocks [*from, *to) of the order: what a rank has of micro-batch mb; perhaps none. */
void train_sampler_share(const train_sampler *s, size_t mb, const train_blocks *b,
                         size_t rank, size_t ranks, size_t *from, size_t *to);

/* ---- memory (memory_plan.c) ---- */

typedef struct {
    size_t least;    /* bytes that it cannot do without */
    size_t kept;     /* layers, from the top, whose activations are kept */
    size_t weights;  /* bytes for weights, unless they are converted for every block */
    size_t bytes;    /* of all that will be used */
    size_t group;    /* sequences that are run at once */
    size_t unpacked; /* layers of packed weights at a time (nn_decoder_unpacked) */
} train_memory;
/* best: a copy of the parameters, too; integers: weights are such. */
void train_memory_plan(train_memory *p, const hf_config *c, const train_state *s,
                       size_t seq, size_t budget, bool best, bool integers);

/* In dev's own memory: weights: nn_decoder_there_bytes of the model. */
typedef struct {
    nn_device *dev;
    const hf_config *c;
    const train_state *s;
    size_t seq, batch; /* tokens; sequences of a micro-batch */
    size_t weights, budget;
    size_t unpacked; /* of a packed layer, unpacked; 0: they are not packed there */
} train_there;
void train_memory_plan_there(train_memory *p, const train_there *t);

/* ---- the trainer ---- */

/* The most tokens that one of n sees: of texts that begin at starts (NULL: one text). */
size_t train_longest(const uint32_t *starts, size_t n);
/* losses[count]: means of b's blocks by m alone, NaN where a block has no label. */
DR_MUST_USE dr_status train_original(double *losses, nn_device *dev, const hf_model *m,
                                     const train_blocks *b, size_t keep_bytes);

/* Can it train with products of integers?  Not on a device with memory of its own, nor
 * where something beside products wants the base's weights. */
bool train_takes_integers(const hf_adapter *a, bool there);

typedef struct {
    nn_decoder *dec;
    nn_device
        *mem; /* borrowed: whose memory x, dx, inputs and acts are; NULL: the host's */
    nn_decoder *teacher; /* owned: of o->teacher, else NULL */
    float *taught;       /* owned: [seq][D], its last layer's output */
    train_state state;
    train_delta_work delta;
    bool *stale; /* owned [layers]: norms of parameters before the last update; DoRA */
    const train_blocks *blocks;
    const train_options *o;
    int layers;
    size_t hidden;
    nn_acts *acts; /* of the kept layers, from the top; then one for all others */
    size_t acts_count, kept;
    size_t group;     /* sequences that may be run at once */
    float *inputs;    /* [layers - kept][group][seq_len][D] */
    float *x, *dx;    /* [group][seq_len][D] */
    int32_t *targets; /* [group][seq_len] */
    int32_t *ids;     /* owned, likewise */
    uint32_t *starts; /* owned, likewise */
    size_t bytes;     /* of all that */
    train_sampler sampler;
    dr_ranks *ranks;       /* borrowed; NULL: alone */
    size_t logged;         /* steps that are in the history already */
    double eval_seconds;   /* of the last evaluation */
    double *last_losses;   /* owned: of the last evaluation's blocks */
    float *best;           /* owned: parameters of the best one; NULL: not asked for */
    double *best_losses;   /* owned */
    const char *base_name; /* borrowed */
    json_t *identity;      /* owned: what a checkpoint belongs to; NULL: none is used */
} trainer;

/* After every change of the parameters: what was computed of them is no longer so. */
DR_MUST_USE dr_status train_params_changed(trainer *t);
/* So many blocks, at most a group, as long as each other, through all layers, with the
 * adapter or without; what the backward needs stays in acts or inputs. */
DR_MUST_USE dr_status train_forward(trainer *t, const train_blocks *b, const size_t *blocks,
                                    size_t count, bool adapter);
/* Labels of block i. */
void train_targets(int32_t *targets, const train_blocks *b, size_t i);
/* Adds block i's losses and labels for its hidden states x; *mean of these, NaN: it has no
 * label.  targets: room for its labels. */
DR_MUST_USE dr_status train_block_loss(double *mean, double *sum, size_t *labels,
                                       nn_decoder *d, const float *x, int32_t *targets,
                                       const train_blocks *b, size_t i);

/* ---- what is done beside the steps (train_watch.c) ---- */

/* What logging_steps and the like are of so many steps in all. */
size_t train_every(double every, size_t total);
/* Room for it. */
void train_watch_open(trainer *t, train_report *r);
/* Will a checkpoint be written?  r->total is known. */
bool train_watch_saves(const train_options *o, const train_report *r);
/* Of several ranks, each of which has set its blocks of v[count][each] (block i is rank i %
 * count's): all get all. */
DR_MUST_USE dr_status train_share_blocks(dr_ranks *r, double *v, size_t each, size_t count);
/* DR_EDEVICE: the parameters that were pulled last are not the same on all ranks. */
DR_MUST_USE dr_status train_check_ranks(const trainer *t);
/* Evaluates the base; then what is due after step r->steps; then what is due at the end,
 * where the best adapter takes the last one's place. */
DR_MUST_USE dr_status train_watch_begin(trainer *t, train_report *r);
DR_MUST_USE dr_status train_watch_step(trainer *t, train_report *r);
DR_MUST_USE dr_status train_watch_end(trainer *t, train_report *r);

/* After this process's first step: how long the rest will take, and what would be faster,
 * where that is long. */
void train_forecast(const trainer *t, const train_report *r, const dr_progress *p,
                    double step_seconds);
/* In words; false: it is not long.  least: what is long, in seconds. */
bool train_forecast_text(char *text, size_t size, const trainer *t, const train_report *r,
                         double step_seconds, double least);

/* ---- checkpoints (checkpoint.c, checkpoint_read.c, identity.c) ---- */

enum { TRAIN_CHECKPOINT_FILES = 4, TRAIN_CHECKPOINT_FORMAT = 1 };
extern const char *const train_checkpoint_files[TRAIN_CHECKPOINT_FILES];

/* "checkpoint-40" is 40; false: no such name. */
bool train_checkpoint_step(size_t *step, const char *name);
/* DR_EUSAGE: a run that would write checkpoints finds some that it does not go on from. */
DR_MUST_USE dr_status train_checkpoint_none(const train_options *o);
/* The oldest beyond the limit go; so they do after each write. */
DR_MUST_USE dr_status train_checkpoint_rotate(const train_options *o);
/* After step r->steps. */
DR_MUST_USE dr_status train_checkpoint_write(trainer *t, const train_report *r);
/* Parameters, moments and the report as they were.  DR_EUSAGE: none is there, none is
 * whole, or it belongs to another run, with what differs. */
DR_MUST_USE dr_status train_checkpoint_read(trainer *t, train_report *r);
/* A hint behind an error: which checkpoint there is to go on from. */
void train_checkpoint_tell(const train_options *o);
/* Of drupe.json without its own checksum. */
void train_manifest_hash(char hex[DR_SHA256_HEX], const json_t *manifest);

DR_MUST_USE dr_status train_model_hash(char hex[DR_SHA256_HEX], const hf_model *m);
DR_MUST_USE dr_status train_blocks_hash(char hex[DR_SHA256_HEX], const train_blocks *b);
/* Before the first step; released with json_decref. */
DR_MUST_USE dr_status train_identity(json_t **out, const trainer *t, const hf_model *m);
/* DR_EUSAGE: was, a checkpoint's, is not this run's; where names the checkpoint. */
DR_MUST_USE dr_status train_identity_check(const trainer *t, const json_t *was,
                                           const char *where);

#endif
