/*
 * lora_impl.h - what training passes are made of: their options, their data, the base
 * beside the adapter.
 */
#ifndef DRUPE_PASS_LORA_IMPL_H
#define DRUPE_PASS_LORA_IMPL_H

#include "hf/hf.h"
#include "pass/pass.h"
#include "quant/quant.h"
#include "train/train.h"

/* data.h's default block. */
enum { PASS_LORA_SEQ_LEN = 1024 };

/* A pass for each; what they share is LoRA's. */
typedef enum {
    PASS_KIND_LORA,
    PASS_KIND_DORA,
    PASS_KIND_QLORA,
    PASS_KIND_LOFTQ,
    PASS_KIND_LOHA,
    PASS_KIND_LOKR
} pass_adapter_kind;

/* What the user may set; the rows are in train_rows_impl.h and in the passes' files. */
typedef struct {
    int r;
    double alpha;
    double lora_dropout;
    bool use_rslora;
    const char *target_modules;
    int max_steps;
    double num_train_epochs;
    int per_device_train_batch_size;
    int gradient_accumulation_steps;
    double learning_rate;
    int lr_scheduler_type;
    double warmup_ratio;
    int warmup_steps;
    double weight_decay;
    double adam_beta1;
    double adam_beta2;
    double adam_epsilon;
    double max_grad_norm;
    double label_smoothing_factor;
    int seed;
    bool shuffle;
    double logging_steps;
    int logging_strategy;
    bool logging_first_step;
    const char *lr_scheduler_kwargs;
    int eval_strategy;
    double eval_steps;
    bool load_best_model_at_end;
    int metric_for_best_model;
    int early_stopping_patience;
    double early_stopping_threshold;
    int save_strategy;
    double save_steps;
    int save_total_limit;
    bool save_quant_config; /* QLoRA: the base is left rounded, as it was trained on */
    bool double_quant;
    int quant_type;        /* of pass_quant_types */
    int loftq_iter;        /* LoftQ */
    int init_lora_weights; /* of pass_inits: train_init */
    int pissa_niter;
    double rank_dropout, module_dropout; /* LoHa, LoKr */
    bool init_weights;
    const char *exclude_modules;
    bool decompose_both, rank_dropout_scale; /* LoKr */
    int decompose_factor;
    const char
        *reference_model; /* NULL: the plain base that QLoRA and LoftQ round, or none */
    int torch_dtype;      /* of pass_train_dtypes; flow chooses the device by it */
} pass_lora_config;
extern const char *const pass_quant_types[], *const pass_inits[];
extern const char *const pass_train_dtypes[]; /* float32, bfloat16, int8 */

/* ---- what the Hugging Face Trainer takes beside numbers (trainer_options.c) ---- */

extern const char *const pass_trainer_whens[], *const pass_trainer_metrics[];

/* Options without effect on one another, schedules and what they may hold. */
DR_MUST_USE dr_status pass_trainer_check(const pass_lora_config *c, const dr_param *params,
                                         size_t count, const unsigned char *given);
/* Schedule, log and evaluations; o->eval says whether there is something to evaluate.
 * DR_EUSAGE: an option of evaluations without data for them. */
DR_MUST_USE dr_status pass_trainer_options(train_options *o, const pass_job *job,
                                           const pass_lora_config *c);

/* The config, the model's default targets and the adapter to start from as options of the
 * training; strings live in the job's arena. */
DR_MUST_USE dr_status pass_lora_options(train_options *o, const pass_job *job,
                                        const pass_model *in, const hf_model *m,
                                        pass_adapter_kind kind);

/* validate, estimate and run of a training pass; params: the pass's own. */
DR_MUST_USE dr_status pass_finetune_check(const pass_lora_config *c, const dr_param *params,
                                          size_t count, const unsigned char *given);
DR_MUST_USE dr_status pass_finetune_estimate(const pass_job *job, const pass_model *in,
                                             pass_need *need);
DR_MUST_USE dr_status pass_finetune(const pass_job *job, pass_model *out,
                                    const pass_model *in, pass_adapter_kind kind);

/* What a checkpoint must have been made with: the job's parameters but those of the log and
 * of checkpoints; released with json_decref. */
DR_MUST_USE dr_status pass_trainer_settings(json_t **out, const pass_job *job);
/* The checkpoints go with the result; *spent: their folder, or NULL. */
DR_MUST_USE dr_status pass_place_checkpoints(const char **spent, const pass_job *job,
                                             const train_options *o);

/* The blocks to train on, after their preview was shown, and those to evaluate on, none
 * where job->eval is NULL. */
DR_MUST_USE dr_status pass_training_blocks(const pass_job *job, data_blocks *blocks,
                                           data_blocks *eval, const hf_model *m);

/* The grid of a QLoRA pass. */
hf_bnb pass_base_grid(const pass_lora_config *c);
/* DR_EUSAGE: m cannot be rounded to it: it is packed. */
DR_MUST_USE dr_status pass_check_plain(const hf_model *m, const char *name);
/* The base as dir; *how says in words how its files got there. */
DR_MUST_USE dr_status pass_place_base(const pass_job *job, const char *dir,
                                      const hf_model *m, const char **how);

/* What a training was: its data, its base, what came of it. */
typedef struct {
    const train_report *report;
    const data_blocks *blocks, *eval;
    const hf_model *base;
    const char *how; /* the base's files got there */
} pass_training;

/* report.html: perplexities, curves, settings; no time and no path in it. */
DR_MUST_USE dr_status pass_training_report(const pass_job *job, const pass_training *t);
/* The means of the evaluation's blocks that have a label, with their error. */
quant_mean pass_eval_mean(const double *losses, size_t count);

/* The result for people and programs. */
DR_MUST_USE dr_status pass_tell_training(const pass_job *job, const pass_training *t);

#endif
