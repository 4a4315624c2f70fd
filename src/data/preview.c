/*
 * preview.c - what a person sees of the data before an hour is spent on it.
 */
#include <string.h>

#include "data/data.h"

enum { SAMPLE_TOKENS = 96 };

/* A line as a terminal may show it: control characters in their hexadecimal form. */
static dr_status add_visible(dr_buf *out, const char *s, size_t n)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            DR_TRY(dr_buf_addf(out, "\\x%02x", c));
        else
            DR_TRY(dr_buf_add(out, s + i, 1));
    }
done:
    return st;
}

/* The sample's tokens, special ones in guillemets, line ends as they are. */
static dr_status sample(dr_buf *out, const data_blocks *b, const tok_tokenizer *t)
{
    size_t n = b->lengths[0] < SAMPLE_TOKENS ? b->lengths[0] : SAMPLE_TOKENS, from = 0;
    dr_buf text;
    dr_status st = DR_OK;

    dr_buf_init(&text, (size_t)1 << 20);
    for (size_t i = 0; i <= n; i++) {
        bool special = i < n && tok_is_special(t, b->ids[i]);
        if (i < n && !special)
            continue;
        if (i > from)
            DR_TRY(tok_decode(t, &text, b->ids + from, i - from, false));
        if (special)
            DR_TRY(dr_buf_addf(&text, "\xc2\xab%s\xc2\xbb", tok_piece(t, b->ids[i])));
        from = i + 1;
    }
    for (size_t at = 0; at < text.len;) { /* indent every line */
        const char *end = memchr(text.data + at, '\n', text.len - at);
        size_t line = end != NULL ? (size_t)(end - text.data) - at : text.len - at;
        DR_TRY(dr_buf_adds(out, "    "));
        DR_TRY(add_visible(out, text.data + at, line));
        DR_TRY(dr_buf_adds(out, "\n"));
        at += line + 1;
    }
    if (n < b->lengths[0])
        DR_TRY(dr_buf_addf(out, "    ... (%zu tokens in this block)\n", b->lengths[0]));
done:
    dr_buf_release(&text);
    return st;
}

/* Tokens of all blocks that are to be answered. */
static size_t marked(const data_blocks *b)
{
    size_t n = 0;

    for (size_t i = 0; i < b->count * b->seq_len; i++)
        n += b->marks[i];
    return n;
}

/* Blocks without one. */
static size_t unmarked_blocks(const data_blocks *b)
{
    size_t n = 0;

    for (size_t i = 0; i < b->count && b->marks != NULL; i++)
        n += memchr(b->marks + i * b->seq_len, 1, b->lengths[i]) == NULL;
    return n;
}

dr_status data_losses(dr_buf *out, const data_texts *texts, const data_blocks *b)
{
    const char *comma = "";
    dr_status st = DR_OK;

    if (texts->empty_rows > 0) {
        DR_TRY(dr_buf_addf(out, "%zu of %zu rows are empty and left out", texts->empty_rows,
                           texts->empty_rows + texts->count));
        comma = ", ";
    }
    if (b->cut_rows > 0) {
        DR_TRY(dr_buf_addf(out, "%s%zu of %zu blocks are rows cut at %zu tokens", comma,
                           b->cut_rows, b->count, b->seq_len));
        comma = ", ";
    }
    if (b->short_rows > 0) {
        DR_TRY(dr_buf_addf(out, "%s%zu rows are shorter than a block of %zu", comma,
                           b->short_rows, b->seq_len));
        comma = ", ";
    }
    if (b->missed > 0) {
        DR_TRY(dr_buf_addf(out, "%s%zu blocks found no row with %zu tokens from it on",
                           comma, b->missed, b->seq_len));
        comma = ", ";
    }
    if (unmarked_blocks(b) > 0)
        DR_TRY(dr_buf_addf(out, "%s%zu of %zu blocks have no token of an answer", comma,
                           unmarked_blocks(b), b->count));
done:
    return st;
}

dr_status data_preview(dr_buf *out, const data_texts *texts, const data_blocks *blocks,
                       const data_options *o, const tok_tokenizer *t)
{
    static const char *const hows[] = {
        [DATA_JOIN] = "rows joined by a blank line, all trained on",
        [DATA_JOIN_RANDOM] = "blocks from rows drawn at random",
        [DATA_JOIN_SLIDING_WINDOW] = "overlapping blocks, what is new in each trained on",
        [DATA_LINE_BY_LINE] = "one row a block",
        [DATA_LINE_BY_LINE_RANDOM] = "one row a block, drawn at random",
        [DATA_PACKING] = "rows side by side, none sees another"};
    const char *how = hows[o->strategy];
    dr_buf lost;
    dr_status st = DR_OK;

    dr_buf_init(&lost, 4096);
    DR_TRY(data_losses(&lost, texts, blocks));
    DR_TRY(dr_buf_addf(out, "data     %s\n", texts->source));
    DR_TRY(dr_buf_adds(out, "columns "));
    for (size_t i = 0; i < texts->column_count; i++)
        DR_TRY(dr_buf_addf(out, "%s %s", i ? "," : "", texts->columns[i]));
    DR_TRY(dr_buf_addf(out, "\nrows     %zu\n", texts->count));
    DR_TRY(dr_buf_addf(out, "tokens   %zu (%s)\n", blocks->tokens, how));
    DR_TRY(
        dr_buf_addf(out, "blocks   %zu of %zu tokens\n", blocks->count, blocks->seq_len));
    DR_TRY(dr_buf_addf(out, "cut off  %zu tokens\n", blocks->dropped));
    if (blocks->marks != NULL)
        DR_TRY(dr_buf_addf(out, "answers  %zu tokens, the only ones with a loss\n",
                           marked(blocks)));
    if (lost.len > 0)
        DR_TRY(dr_buf_addf(out, "beware   %s\n", lost.data));
    if (blocks->count > 0) {
        DR_TRY(dr_buf_adds(out, "sample   special tokens between \xc2\xab and \xc2\xbb\n"));
        DR_TRY(sample(out, blocks, t));
    }
done:
    dr_buf_release(&lost);
    return st;
}
