/*
 * tok_golden_test.c - the small tokenizers of tests/golden/tok: ids and texts must be those
 * of Hugging Face's tokenizers.  Also several threads on one tokenizer.
 */
#include "core/pool.h"
#include "toy.h"

static const char *const names[] = {"phi3", "llama3", "meta",  "gpt2",
                                    "bert", "t5",     "bytes", "words"};

static const char *folder(const char *name, const char *file)
{
    static char path[4096];

    (void)snprintf(path, sizeof(path), "%s/tests/golden/tok/%s%s%s", DRUPE_SOURCE_DIR, name,
                   file[0] != '\0' ? "/" : "", file);
    return path;
}

/* ids from *at on are those of want; *at goes behind them. */
static bool next_ids(const tok_ids *ids, size_t *at, const json_t *want)
{
    const size_t n = json_array_size(want);

    if (ids->count - *at < n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (ids->ids[*at + i] != json_integer_value(json_array_get(want, i)))
            return false;
    *at += n;
    return true;
}

static bool same_ids(const tok_ids *ids, const json_t *c, bool special)
{
    size_t at = 0;

    return (!special || next_ids(ids, &at, json_array_get(c, 2))) &&
           next_ids(ids, &at, json_array_get(c, 1)) &&
           (!special || next_ids(ids, &at, json_array_get(c, 5))) && at == ids->count;
}

static bool same_text(const dr_buf *b, const json_t *want, const json_t *text)
{
    const json_t *s = json_is_null(want) ? text : want;

    return b->len == json_string_length(s) &&
           memcmp(b->data, json_string_value(s), b->len) == 0;
}

/* The first difference ends the case; true: none. */
static bool check_case(const tok_tokenizer *t, const json_t *c, tok_ids *ids, dr_buf *out)
{
    const json_t *text = json_array_get(c, 0);
    const char *s = json_string_value(text);
    const size_t n = json_string_length(text);
    tok_stream *stream = NULL;
    bool same = true;

    for (int special = 1; special >= 0 && same; special--) {
        ids->count = 0;
        same = tok_encode(t, ids, s, n, special != 0) == DR_OK &&
               same_ids(ids, c, special != 0);
    }
    for (int skip = 0; skip < 2 && same; skip++) {
        dr_buf_reset(out);
        same = tok_decode(t, out, ids->ids, ids->count, skip != 0) == DR_OK &&
               same_text(out, json_array_get(c, 3 + (size_t)skip), text);
    }
    dr_buf_reset(out);
    if (tok_stream_open(&stream, t) != DR_OK)
        return false;
    for (size_t i = 0; i < ids->count && same; i++)
        same = tok_stream_add(stream, ids->ids[i], out) == DR_OK;
    same = same && tok_stream_end(stream, out) == DR_OK &&
           same_text(out, json_array_get(c, 4), text);
    tok_stream_close(stream);
    return same;
}

typedef struct {
    const tok_tokenizer *t;
    const json_t *cases;
    size_t failed[4];
} shared;

static dr_status check_all(void *ctx, size_t task, int worker)
{
    shared *x = ctx;
    tok_ids ids = {0};
    dr_buf out;

    (void)worker;
    dr_buf_init(&out, 1 << 24);
    for (size_t i = 0; i < json_array_size(x->cases); i++) {
        const json_t *c = json_array_get(x->cases, i);
        if (check_case(x->t, c, &ids, &out))
            continue;
        x->failed[task]++;
        if (task == 0)
            (void)printf("  differs: case %zu: %s\n", i,
                         json_string_value(json_array_get(c, 0)));
    }
    tok_ids_release(&ids);
    dr_buf_release(&out);
    return DR_OK;
}

int main(void)
{
    for (size_t i = 0; i < DR_COUNT(names); i++) {
        shared x = {0};
        json_t *cases = NULL;
        tok_tokenizer *t = NULL;
        dr_pool *pool = NULL;
        if (!CHECK_OK(tok_open(&t, folder(names[i], ""))) ||
            !CHECK_OK(dr_json_read(&cases, folder(names[i], "cases.json"))))
            continue;
        x.t = t;
        x.cases = cases;
        CHECK(json_array_size(cases) >= 50);
        CHECK_OK(check_all(&x, 0, 0));
        CHECK_EQ_INT(x.failed[0], 0);
        CHECK_OK(dr_pool_open(&pool, 4));
        CHECK_OK(dr_pool_run(pool, DR_COUNT(x.failed), check_all, &x));
        for (size_t k = 0; k < DR_COUNT(x.failed); k++)
            CHECK_EQ_INT(x.failed[k], 0);
        dr_pool_close(pool);
        tok_close(t);
        json_decref(cases);
    }
    return check_done();
}
