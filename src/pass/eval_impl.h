/*
 * eval_impl.h - judging: models by name with their logits, whoever computes them, and the
 * figures as people and programs see them.  quantize's table is one of those.
 */
#ifndef DRUPE_PASS_EVAL_IMPL_H
#define DRUPE_PASS_EVAL_IMPL_H

#include "hf/hf.h"
#include "nn/nn.h"
#include "ort/ort.h"
#include "pass/pass.h"
#include "quant/quant.h"
#include "tok/tok.h"

/* ---- models (eval_model.c) ---- */

/* A model that is judged; {0} is a valid closed one. */
typedef struct {
    const char *name;
    const char *file;    /* ONNX: model.onnx; NULL: a Hugging Face model */
    const char *adapter; /* ONNX: a file */
    hf_adapter peft;     /* owned: of a Hugging Face model; path NULL: none */
    hf_model *hf;        /* owned; NULL for ONNX */
    tok_tokenizer *tok;  /* owned; NULL: it has none */
    size_t context;      /* tokens that it can see; SIZE_MAX: nobody says */
    uint64_t bytes;      /* of its weights; ONNX: of the graph and its data */
    const char *origin;  /* arena */
    quant_logits *own;   /* owned: while logits are asked for */
    ort_logits *theirs;
    ort_text *list; /* owned: the texts as ort knows them */
} eval_model;

DR_MUST_USE dr_status eval_open(eval_model *m, dr_arena *a, const pass_judged *which);
void eval_close(eval_model *m);
/* DR_EUSAGE: a token is not the same in both, by id and name. */
DR_MUST_USE dr_status eval_same_vocabulary(const eval_model *a, const eval_model *b);

/* Of a graph and the data beside it. */
DR_MUST_USE dr_status eval_onnx_bytes(uint64_t *bytes, dr_arena *a, const char *file);

/* Logits of texts, in order; texts are borrowed until eval_end. */
DR_MUST_USE dr_status eval_begin(eval_model *m, nn_device *dev, const quant_text *texts,
                                 size_t count, int threads);
size_t eval_vocab(const eval_model *m); /* after eval_begin */
DR_MUST_USE dr_status eval_next(eval_model *m, float *logits, size_t rows);
void eval_end(eval_model *m);

/* ---- figures (quality.c) ---- */

/*
 * A value, its standard error and 95 % interval, no numbers where there is one block: of
 * a mean; of a share of 0 to 1 (a difference of two: floor -1); of exp of a mean loss.
 */
typedef struct {
    double value, error, low, high;
} eval_figure;
eval_figure eval_of_mean(quant_mean m);
eval_figure eval_of_share(quant_mean m, double floor);
eval_figure eval_of_loss(quant_mean loss);

/* Rows of a table for people: name, value, its standard error, the 95 % interval; and the
 * same for programs: key, key_stderr, key_low, key_high. */
DR_MUST_USE dr_status eval_head(dr_buf *text);
DR_MUST_USE dr_status eval_row(dr_buf *text, json_t *report, const char *name,
                               const char *key, double scale, quant_mean m);
/* A share of 0 to 1, in percent; a difference of two: floor -1. */
DR_MUST_USE dr_status eval_share_row(dr_buf *text, json_t *report, const char *name,
                                     const char *key, double floor, quant_mean m);
/* exp of a mean loss. */
DR_MUST_USE dr_status eval_exp_row(dr_buf *text, json_t *report, const char *name,
                                   const char *key, quant_mean loss);
/* What the two sides are called, in the table and in the report. */
typedef struct {
    const char *before, *before_key, *after, *after_key;
} eval_names;

/* All rows of a comparison, or of one model. */
DR_MUST_USE dr_status eval_quality(dr_buf *text, json_t *report, const quant_quality *q,
                                   const eval_names *names);

/* A limit that was set: into "limits" of the report, and a line that says whether it was
 * missed.  limit 0: none, nothing is said. */
DR_MUST_USE dr_status eval_limit(dr_buf *text, json_t *report, const char *name,
                                 double value, double limit);

/* ---- multiple choice (task_file.c, task.c) ---- */

/* With choices, or with targets: texts that a right answer is one of. */
typedef struct {
    const char *context;
    const char **choices;
    size_t choice_count, answer;
    const char **targets;
    size_t target_count;
    size_t line;
} eval_question;

/* Bytes of text without the white space at its end. */
size_t eval_without_end(const char *text, size_t n);
/* The text up to the first of these characters, without white space around it. */
const char *eval_trimmed(dr_arena *a, const char *text, const char *ends);

/* The rows of the file, all of one kind; arena.  DR_EFORMAT: file, line, what is wrong with
 * it. */
DR_MUST_USE dr_status eval_read_task(dr_arena *a, eval_question **list, size_t *count,
                                     const char *path, const data_options *o);
/* models[0] may be NULL: no reference. */
DR_MUST_USE dr_status eval_task(const pass_evaluation *e, eval_model *const models[2],
                                const tok_tokenizer *tok, nn_device *dev);

/* ---- written answers (written.c) ---- */

DR_MUST_USE dr_status eval_answers(const pass_evaluation *e, eval_model *const models[2],
                                   const eval_question *list, size_t count,
                                   const tok_tokenizer *tok, nn_device *dev);

/* ---- scores.c: what they are is said there ---- */

typedef enum { EVAL_BINARY, EVAL_MACRO, EVAL_MICRO, EVAL_WEIGHTED } eval_average;
typedef struct {
    double f1, precision, recall;
} eval_classes;
/* truth[n] and chosen[n] are below classes, which are two or more. */
eval_classes eval_class_scores(const size_t *truth, const size_t *chosen, size_t n,
                               size_t classes, eval_average average);
/* scores[n][classes]; NAN: a class is the answer of all questions or of none. */
double eval_auroc(const double *scores, const size_t *truth, size_t n, size_t classes);
typedef struct {
    size_t wrong, words; /* edits; words of target */
} eval_words;
eval_words eval_word_errors(const char *text, const char *target);

#endif
