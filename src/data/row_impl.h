/*
 * row_impl.h - what the files of data share.
 */
#ifndef DRUPE_DATA_ROW_IMPL_H
#define DRUPE_DATA_ROW_IMPL_H

#include <jansson.h>

#include "data/data.h"

enum { DATA_COLUMNS_MAX = 256, DATA_ROW_MAX = 64 << 20 };

/* The line of Python that turns a Parquet file into JSON lines, as a hint. */
void data_hint_parquet(const char *path);

/* Rows [*from, *end) of so many that a split names.  DR_EUSAGE: what is no split. */
DR_MUST_USE dr_status data_split_rows(size_t *from, size_t *end, const char *split,
                                      size_t rows);

/* Rows of a file as they are read, from one place: each becomes a text of out. */
typedef struct data_loader data_loader;
DR_MUST_USE dr_status data_add_row(data_loader *l, const json_t *row, const char *where);

/* One kind of file each (load_json.c, load_csv.c); n bytes of text without byte order
 * mark. */
DR_MUST_USE dr_status data_load_json(data_loader *l, const char *text, size_t n,
                                     const char *path);
DR_MUST_USE dr_status data_load_csv(data_loader *l, const char *text, size_t n,
                                    const char *path);

/* ---- answers.c, encode.c ---- */

/* Where the answer's placeholder stands in a template; its length: there is none. */
size_t data_answer_field(const char *template_text);
DR_MUST_USE dr_status data_template_answer(dr_arena *a, data_spans *out,
                                           const char *template_text,
                                           const char *const *names,
                                           const char *const *values, size_t count,
                                           size_t text_bytes);
/* The rendered conversation is text from byte `from` on. */
DR_MUST_USE dr_status data_chat_answers(dr_arena *a, data_spans *out, const dr_buf *text,
                                        size_t from, const json_t *messages,
                                        const json_t *extra, const tok_tokenizer *t,
                                        const char *where);
/*
 * Text i behind ids; with texts->answers a mark for each id behind *marks (heap, grown).
 * With add_special_tokens the special tokens stand around it as literal text, with spaces,
 * as Olive has it; one that the tokenizer lacks is left out (Olive: "None").
 */
DR_MUST_USE dr_status data_encode_row(tok_ids *ids, unsigned char **marks,
                                      const data_texts *texts, size_t i,
                                      const data_options *o, const tok_tokenizer *t);

/* Where a row is put (packing.c); block SIZE_MAX: nowhere. */
typedef struct {
    size_t block, at;
} data_place;
/* Places for so many rows; returns the blocks, `most` (0: any number) or less.  A row that
 * is longer than seq_len takes a whole block. */
size_t data_pack(data_place *out, const size_t *lengths, size_t rows, size_t seq_len,
                 size_t most);

/*
 * The text of one row after what out holds: by template, chat template or column, as o
 * says.  columns are the file's, for advice; where ("a.jsonl:3") starts every message.
 * answers (in a) get its answers; NULL: not asked for.
 */
DR_MUST_USE dr_status data_row_text(dr_buf *out, dr_arena *a, data_spans *answers,
                                    const json_t *row, const data_options *o,
                                    const tok_tokenizer *t, const char *const *columns,
                                    size_t column_count, const char *where);

#endif
