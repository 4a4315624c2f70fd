/*
 * answers_test.c - which tokens the model is to answer, in templates and conversations.
 */
#include "check.h"

#include "core/file.h"
#include "data/row_impl.h"
#include "toy_tok.h"

static dr_arena arena;

/* What is marked of the block, tokens spelled out, between | where it stops and begins. */
static void marked(const data_blocks *b, size_t i, const tok_tokenizer *t, const char *want)
{
    dr_buf got;
    bool before = false;

    dr_buf_init(&got, 1 << 20);
    if (!CHECK(b->marks != NULL))
        return;
    for (size_t k = 0; k < b->seq_len; k++) {
        bool on = b->marks[i * b->seq_len + k] != 0;
        if (on != before)
            CHECK_OK(dr_buf_adds(&got, "|"));
        before = on;
        if (k < b->lengths[i])
            CHECK_OK(tok_decode(t, &got, b->ids + i * b->seq_len + k, 1, false));
        else
            CHECK(!on);
    }
    CHECK_STR(got.data, want);
    dr_buf_release(&got);
}

static dr_status blocks_of(data_blocks *b, const char *rows, data_options o,
                           const tok_tokenizer *t)
{
    data_texts texts = {0};
    dr_status st = DR_OK;

    dr_trail_clear();
    o.data_name = "json";
    o.data_files = dr_path_join(&arena, check_tmp(), "rows.jsonl");
    o.answers_only = true;
    DR_TRY(dr_write_file(o.data_files, rows, strlen(rows)));
    DR_TRY(data_load(&arena, &texts, &o, t));
    DR_TRY(data_tokenize(b, &texts, &o, t));
done:
    return st;
}

static void test_template(const tok_tokenizer *t)
{
    static const char rows[] = "{\"q\": \"ab\", \"response\": \"cd\"}\n"
                               "{\"q\": \"e\", \"response\": \"the f\"}\n";
    data_options o = {.text_template = "{q}: {response}.\\n",
                      .strategy = DATA_LINE_BY_LINE,
                      .max_seq_len = 12};
    data_blocks b = {0};

    CHECK_OK(blocks_of(&b, rows, o, t));
    marked(&b, 0, t, "ab: |cd.\n|");
    marked(&b, 1, t, "e: |the f.\n|");
    data_blocks_release(&b);
    o.text_template = "{response} ({q})"; /* by its name, not the last */
    CHECK_OK(blocks_of(&b, rows, o, t));
    marked(&b, 0, t, "|cd (ab)|");
    data_blocks_release(&b);
    o.text_template = "{{q}} {q}"; /* the last one */
    CHECK_OK(blocks_of(&b, rows, o, t));
    marked(&b, 0, t, "{q} |ab|");
    data_blocks_release(&b);
    o.text_template = "t{response}";
    CHECK_OK(blocks_of(&b, "{\"response\": \"hen\"}\n", o, t));
    marked(&b, 0, t, "|then|"); /* "the" is one token and reaches over */
    data_blocks_release(&b);
    o.text_template = "{q}{response}";
    o.add_special_tokens = true;
    CHECK_OK(blocks_of(&b, rows, o, t));
    marked(&b, 0, t, "<s> ab|cd </s>|");
    data_blocks_release(&b);
}

/* Joined rows keep their marks, whatever a block cuts. */
static void test_joined(const tok_tokenizer *t)
{
    static const char rows[] = "{\"q\": \"ab\", \"response\": \"cd\"}\n"
                               "{\"q\": \"ef\", \"response\": \"gh\"}\n"
                               "{\"q\": \"ij\", \"response\": \"kl\"}\n";
    data_options o = {.text_template = "{q}:{response}", .max_seq_len = 4};
    data_blocks b = {0};

    CHECK_OK(blocks_of(&b, rows, o, t));
    CHECK_EQ_INT(b.count, 4); /* of 18 tokens */
    marked(&b, 0, t, "ab:|c");
    marked(&b, 1, t, "|d|\n\nef");
    marked(&b, 2, t, ":|gh|\n\n");
    marked(&b, 3, t, "ij:|k");
    data_blocks_release(&b);
}

static void test_chat(const tok_tokenizer *t)
{
    static const char rows[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": "
        "\"assistant\","
        " \"content\": \"b\"}, {\"role\": \"user\", \"content\": \"c\"}, {\"role\":"
        " \"assistant\", \"content\": \"d\"}]}\n"
        "{\"prompt\": \"p\", \"completion\": \"q\"}\n";
    data_options o = {
        .use_chat_template = true, .strategy = DATA_LINE_BY_LINE, .max_seq_len = 64};
    data_blocks b = {0};

    CHECK_OK(blocks_of(&b, rows, o, t));
    marked(&b, 0, t, "<|user|>a<|end|><|bot|>|b<|end|>|<|user|>c<|end|><|bot|>|d<|end|>|");
    marked(&b, 1, t, "<|user|>p<|end|><|bot|>|q<|end|>|");
    data_blocks_release(&b);
}

/* Writes all messages but the last without their first letter: its place is not known. */
static void test_changing(void)
{
    static const char rows[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": "
        "\"assistant\","
        " \"content\": \"b\"}, {\"role\": \"user\", \"content\": \"c\"}]}\n";
    data_options o = {
        .use_chat_template = true, .strategy = DATA_LINE_BY_LINE, .max_seq_len = 64};
    tok_tokenizer *t = NULL;
    data_blocks b = {0};

    t = toy_chat("{% for m in messages %}{{ '~' if loop.last else '' }}"
                 "{{ m['content'] }}{% endfor %}");
    CHECK_STATUS(blocks_of(&b, rows, o, t), DR_EUNSUPPORTED);
    CHECK_TRAIL("rows.jsonl:1: message 2:");
    data_blocks_release(&b);
    tok_close(t);
}

static void test_refused(const tok_tokenizer *t)
{
    data_options o = {.text_field = "q"};
    data_blocks b = {0};

    CHECK_STATUS(blocks_of(&b, "{}\n", o, t), DR_EUSAGE);
    CHECK_TRAIL("completion_only_loss needs text_template");
    o = (data_options){.text_template = "{{}} no column"};
    CHECK_STATUS(blocks_of(&b, "{}\n", o, t), DR_EUSAGE);
    CHECK_TRAIL("no column in text_template");
}

int main(void)
{
    tok_tokenizer *t = NULL;

    t = toy_chat("{% for m in messages %}{{ '<|user|>' if m['role'] == 'user' else "
                 "'<|bot|>' }}{{ m['content'] }}<|end|>{% endfor %}"
                 "{{ '<|bot|>' if add_generation_prompt else '' }}");
    test_template(t);
    test_joined(t);
    test_chat(t);
    test_changing();
    test_refused(t);
    tok_close(t);
    dr_arena_release(&arena);
    return check_done();
}
