/*
 * builtin.c - the text that drupe carries.
 */
#include "data/builtin_impl.h"

void data_load_builtin(dr_arena *a, data_texts *out, bool held_out)
{
    size_t n = data_builtin_count / 2;

    *out = (data_texts){.source = held_out ? "built-in text (held out)" : "built-in text"};
    out->columns = dr_arena_alloc(a, 1, sizeof(char *));
    out->columns[0] = dr_arena_strdup(a, "text");
    out->column_count = 1;
    out->texts = dr_arena_alloc(a, n, sizeof(char *));
    out->text_bytes = dr_arena_alloc(a, n, sizeof(size_t));
    for (size_t i = 0; i < n; i++) {
        const data_builtin_text *t = &data_builtin_texts[2 * i + (held_out ? 1 : 0)];
        out->texts[i] = dr_arena_strndup(a, t->text, t->bytes);
        out->text_bytes[i] = t->bytes;
    }
    out->count = n;
}
