/*
 * row_impl.h - what data_options.c, load.c and row.c share.
 */
#ifndef DRUPE_DATA_ROW_IMPL_H
#define DRUPE_DATA_ROW_IMPL_H

#include <jansson.h>

#include "data/data.h"

enum { DATA_COLUMNS_MAX = 256, DATA_ROW_MAX = 64 << 20 };

/* The paths of data_files; arena memory.  DR_EUSAGE: an empty name. */
DR_MUST_USE dr_status data_files_split(dr_arena *a, char ***paths, size_t *count,
                                       const char *data_files);

/*
 * The text of one row after what out holds: by template, chat template or column, as o
 * says.  columns are the file's, for advice; where ("a.jsonl:3") starts every message.
 */
DR_MUST_USE dr_status data_row_text(dr_buf *out, const json_t *row, const data_options *o,
                                    const tok_tokenizer *t, const char *const *columns,
                                    size_t column_count, const char *where);

#endif
