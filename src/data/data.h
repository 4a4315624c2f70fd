/*
 * data.h - text for training and calibration: from files, from templates, built in.
 *
 * Rows become texts (a field, a template, or the model's chat template), texts become ids,
 * ids become blocks of equal length, by Olive's strategies.  What is lost on the way is
 * counted, for data_losses and for reports.
 */
#ifndef DRUPE_DATA_H
#define DRUPE_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/buf.h"
#include "core/status.h"
#include "tok/tok.h"

/*
 * How rows become blocks, by Olive's names.  join: joined by blank lines and cut.
 * join-sliding-window: likewise, but blocks begin every `stride` tokens.  join-random: each
 * block begins at a row drawn at random and goes on into the next rows.  line-by-line: a
 * row a block, in order.  line-by-line-random: rows drawn at random, with replacement.
 * Not Olive's: packing, whole rows side by side, which must not see each other.
 */
typedef enum {
    DATA_JOIN,
    DATA_JOIN_RANDOM,
    DATA_JOIN_SLIDING_WINDOW,
    DATA_LINE_BY_LINE,
    DATA_LINE_BY_LINE_RANDOM,
    DATA_PACKING
} data_strategy;

const char *data_strategy_name(data_strategy s);
/* NULL: join.  DR_EUSAGE: an unknown name, with the nearest. */
DR_MUST_USE dr_status data_strategy_named(data_strategy *out, const char *name);

/* Olive's dataset options.  NULL or 0 where not given; strings are borrowed. */
typedef struct {
    const char *data_name;  /* "json", "csv", "text": of data_files; NULL: built-in text */
    const char *data_files; /* comma-separated paths */
    const char *split;      /* rows of them: "train[:90%]"; NULL: all (split.c) */
    const char *text_field; /* one column */
    const char *text_template; /* "{prompt}...{response}", backslash escapes decoded */
    bool use_chat_template;    /* columns "messages", or "prompt" and "response" */
    bool answers_only;         /* marks what is answered: see data_blocks */
    bool add_special_tokens;
    size_t max_seq_len; /* tokens a block; 0: 1024 */
    size_t max_samples; /* blocks; 0: all */
    data_strategy strategy;
    size_t stride;        /* of join-sliding-window */
    uint64_t random_seed; /* of the random strategies and of self_written */
    bool held_out;        /* built-in text only: the half that judges */
    bool self_written;    /* the model's own text: no files; not for data_load */
    double temperature;   /* of self_written */
} data_options;

/*
 * Whether these options go together and their files are there; nothing is read.
 * DR_EUSAGE: options that contradict each other or lack another one, a kind of data that is
 * not read (with what to do); DR_EIO: no such file.
 */
DR_MUST_USE dr_status data_check(const data_options *o);
/* The paths of data_files; arena memory.  DR_EUSAGE: an empty name. */
DR_MUST_USE dr_status data_files_split(dr_arena *a, char ***paths, size_t *count,
                                       const char *data_files);

/* Bytes [from, end) of a text. */
typedef struct {
    size_t from, end;
} data_span;
typedef struct {
    data_span *list;
    size_t count;
} data_spans;

/* Texts as rendered, before tokens.  Everything lives in the arena. */
typedef struct {
    char **columns; /* names found, in order of first appearance */
    size_t column_count;
    char **texts; /* one a row, UTF-8, rendered; empty ones are left out */
    size_t *text_bytes;
    data_spans *answers; /* of each text; NULL: not asked for */
    size_t count;
    const char *source;             /* "data/travel.jsonl", "built-in text" */
    size_t empty_rows;              /* rows read whose text is empty: left out */
    size_t rows, from_row, end_row; /* in the files; those of the split, from 0 */
} data_texts;

/* data_check's errors; DR_EFORMAT: file, line and column; DR_EUNSUPPORTED: Parquet and the
 * like, with the line that converts it.  t is asked for the chat template only. */
DR_MUST_USE dr_status data_load(dr_arena *a, data_texts *out, const data_options *o,
                                const tok_tokenizer *t);

/* Blocks of ids. */
typedef struct {
    int32_t *ids;         /* owned: [count][seq_len], padded with pad where shorter */
    size_t *lengths;      /* owned: tokens of each block that are real */
    unsigned char *marks; /* owned: [count][seq_len], 1: the model is to answer it; NULL:
                             all tokens count (answers_only was not asked for) */
    uint32_t *starts;     /* owned: [count][seq_len], where each token's row begins in its
                         block; NULL: a block is one text */
    size_t count;
    size_t seq_len;
    size_t tokens;  /* in all, before cutting */
    size_t dropped; /* of these, in no block: past max_samples, the remainder, or past
                       seq_len */
    size_t cut_rows, short_rows; /* line-by-line: longer, shorter than a block */
    size_t missed;               /* random: blocks for which no row was long enough */
    size_t context; /* sliding window: a block's first tokens that the one before it had */
} data_blocks;

/* DR_EFORMAT: not one whole block (names the tokens had and the tokens needed).  DR_EUSAGE:
 * a random strategy without max_samples. */
DR_MUST_USE dr_status data_tokenize(data_blocks *out, const data_texts *texts,
                                    const data_options *o, const tok_tokenizer *t);
void data_blocks_release(data_blocks *b);

/* Room for count blocks, all of length 0.  DR_ENOMEM: with the bytes. */
DR_MUST_USE dr_status data_blocks_new(data_blocks *b, size_t count, size_t seq_len);

/* "3 of 40 rows are empty, 2 are cut at 512 tokens": what is not used as it stands in the
 * file, without join's remainder; nothing is appended where there is nothing to say. */
DR_MUST_USE dr_status data_losses(dr_buf *out, const data_texts *texts,
                                  const data_blocks *b);

/* What a person sees before training: columns, rows, a rendered sample with its special
 * tokens visible, tokens, blocks, what is cut. */
DR_MUST_USE dr_status data_preview(dr_buf *out, const data_texts *texts,
                                   const data_blocks *blocks, const data_options *o,
                                   const tok_tokenizer *t);

/*
 * Python's str.format over named columns: {name}, {{ and }}.  With decode_escapes Python's
 * backslash escapes (\n, \x41, \u00e9, ...) are decoded first; an unknown one stays as it
 * is.  A NULL value is a column that cannot be text (a list, an object).
 * DR_EFORMAT: a column that is not there, with the nearest; braces that do not match.
 * DR_EUNSUPPORTED: conversions, attributes, indexes, format specifications; a NULL value.
 */
DR_MUST_USE dr_status data_format(dr_buf *out, const char *template_text,
                                  bool decode_escapes, const char *const *names,
                                  const char *const *values, size_t count);

#endif
