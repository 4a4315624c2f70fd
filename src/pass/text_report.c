/*
 * text_report.c - what became of a text that was read: what is lost is warned of, and
 * counted.
 */
#include "core/log.h"
#include "pass/shared_impl.h"

json_t *pass_text_json(const char *source, const data_texts *texts, const data_blocks *b)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "source", source,
                     "rows", (json_int_t)(texts->count + texts->empty_rows), "empty_rows",
                     (json_int_t)texts->empty_rows, "tokens", (json_int_t)b->tokens,
                     "cut_off_tokens", (json_int_t)b->dropped, "cut_rows",
                     (json_int_t)b->cut_rows, "short_rows", (json_int_t)b->short_rows,
                     "missed_blocks", (json_int_t)b->missed, "blocks", (json_int_t)b->count,
                     "block_tokens", (json_int_t)b->seq_len);
}

dr_status pass_say_losses(const data_texts *texts, const data_blocks *b,
                          const char *short_rows, size_t wanted)
{
    bool tell = b->short_rows > 0 && short_rows != NULL;
    dr_buf lost;
    dr_status st = DR_OK;

    dr_buf_init(&lost, 4096);
    DR_TRY(data_losses(&lost, texts, b));
    if (lost.len > 0)
        dr_warn_result("%s: %s%s%s%s", texts->source, lost.data, tell ? " (" : "",
                       tell ? short_rows : "", tell ? ")" : "");
    if (wanted > b->count)
        dr_warn_result("%s: %zu blocks of %zu tokens, not the %zu asked for", texts->source,
                       b->count, b->seq_len, wanted);
done:
    dr_buf_release(&lost);
    return st;
}
