/*
 * preview_test.c - what a person is shown of the data before training.
 */
#include "check.h"

#include "data/data.h"
#include "toy_tok.h"

static dr_buf out;

static void show(const tok_tokenizer *t, char *text, data_options o)
{
    char prompt[] = "prompt", response[] = "response";
    char *columns[] = {prompt, response}, *texts[] = {text};
    size_t bytes[] = {strlen(text)};
    const data_texts d = {.columns = columns,
                          .column_count = 2,
                          .texts = texts,
                          .text_bytes = bytes,
                          .count = 1,
                          .source = "a.jsonl"};
    data_blocks b = {0};

    dr_buf_reset(&out);
    CHECK_OK(data_tokenize(&b, &d, &o, t));
    CHECK_OK(data_preview(&out, &d, &b, &o, t));
    data_blocks_release(&b);
}

int main(void)
{
    tok_tokenizer *t = toy_tok(true);
    char chat[] = "<|user|>hi<|end|>\nyes", control[] = "a\tb\x1b[31mc\x7f", *tall = NULL;

    dr_buf_init(&out, 1 << 20);
    show(t, chat, (data_options){.max_seq_len = 8});
    CHECK_STR(out.data, "data     a.jsonl\n"
                        "columns  prompt, response\n"
                        "rows     1\n"
                        "tokens   9 (rows joined by a blank line, all trained on)\n"
                        "blocks   1 of 8 tokens\n"
                        "cut off  1 tokens\n"
                        "sample   special tokens between \xc2\xab and \xc2\xbb\n"
                        "    \xc2\xab<|user|>\xc2\xbbhi\xc2\xab<|end|>\xc2\xbb\n"
                        "    yes\n");
    /* What a file holds cannot steer the terminal. */
    show(t, control, (data_options){.max_seq_len = 16, .strategy = DATA_LINE_BY_LINE});
    CHECK(strstr(out.data, "    a\tb\\x1b[31mc\\x7f\n") != NULL);
    CHECK(strstr(out.data, "one row a block") != NULL);
    CHECK(strchr(out.data, '\x1b') == NULL);
    /* A long block is shown in part. */
    tall = calloc(301, 1);
    if (CHECK(tall != NULL)) {
        memset(tall, 'x', 300);
        show(t, tall, (data_options){.max_seq_len = 200});
        CHECK(strstr(out.data, "... (200 tokens in this block)\n") != NULL);
        CHECK(out.len < 500);
    }
    free(tall);
    dr_buf_release(&out);
    tok_close(t);
    return check_done();
}
