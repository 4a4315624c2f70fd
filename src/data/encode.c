/*
 * encode.c - a row's text becomes ids, and its answers become marks on them.
 *
 * A text is tokenized whole.  A token is marked when it lies behind what the text up to the
 * answer has in common with it, token for token: one that reaches over the beginning counts
 * as the answer's, one that reaches over its end does not.
 */
#include <string.h>

#include "core/mem.h"
#include "data/row_impl.h"

enum { SPECIAL_BYTES = 4096 };

/* Tokens that whole (from its token `first` on) and text[0..n) begin with, both. */
static dr_status common(size_t *out, const tok_ids *whole, size_t first, const char *text,
                        size_t n, const tok_tokenizer *t)
{
    tok_ids ids = {0};
    dr_status st = DR_OK;

    *out = 0;
    DR_TRY(tok_encode(t, &ids, text, n, false));
    while (*out < ids.count && first + *out < whole->count &&
           ids.ids[*out] == whole->ids[first + *out])
        ++*out;
done:
    tok_ids_release(&ids);
    return st;
}

/* Marks behind marks[first..); shift: bytes before the row's own text. */
static dr_status mark(unsigned char *marks, const tok_ids *ids, size_t first,
                      const dr_buf *text, size_t shift, size_t row_bytes,
                      const data_spans *answers, const tok_tokenizer *t)
{
    size_t from = 0, end = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < answers->count; i++) {
        const data_span *s = &answers->list[i];
        DR_TRY(common(&from, ids, first, text->data, shift + s->from, t));
        end = ids->count - first;
        if (s->end < row_bytes)
            DR_TRY(common(&end, ids, first, text->data, shift + s->end, t));
        for (size_t k = from; k < end; k++)
            marks[first + k] = 1;
    }
done:
    return st;
}

dr_status data_encode_row(tok_ids *ids, unsigned char **marks, const data_texts *texts,
                          size_t i, const data_options *o, const tok_tokenizer *t)
{
    const char *bos = o->add_special_tokens ? tok_bos_text(t) : "";
    const char *eos = o->add_special_tokens ? tok_eos_text(t) : "";
    size_t first = ids->count;
    dr_buf text;
    dr_status st = DR_OK;

    dr_buf_init(&text, texts->text_bytes[i] + SPECIAL_BYTES);
    DR_TRY(dr_buf_addf(&text, "%s%s", bos, *bos != '\0' ? " " : ""));
    size_t shift = text.len;
    DR_TRY(dr_buf_add(&text, texts->texts[i], texts->text_bytes[i]));
    DR_TRY(dr_buf_addf(&text, "%s%s", *eos != '\0' ? " " : "", eos));
    DR_TRY(tok_encode(t, ids, text.data, text.len, false));
    if (texts->answers == NULL)
        goto done;
    *marks = dr_realloc(*marks, ids->count + 1, 1);
    memset(*marks + first, 0, ids->count - first);
    DR_TRY(mark(*marks, ids, first, &text, shift, texts->text_bytes[i], &texts->answers[i],
                t));
done:
    dr_buf_release(&text);
    return st;
}
