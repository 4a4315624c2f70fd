/*
 * identity.c - what a checkpoint belongs to: the model, the data and the start of the
 * adapter as hashes of what is computed with, no path among them; and the settings.
 *
 * Of the model its shape counts, and a sample: all norms, eight rows of each linear and of
 * the embedding, as the trainer reads them.  A quantized base is another one than what it
 * was made from.
 */
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/mem.h"
#include "train/train_impl.h"

enum { ROWS = 8, TEXT_MAX = 64 << 20 };

static dr_status add(dr_buf *b, const char *name, const void *data, size_t n)
{
    char hex[DR_SHA256_HEX];

    dr_sha256(hex, data, n);
    return dr_buf_addf(b, "%s %zu %s\n", name, n, hex);
}

static dr_status add_linears(dr_buf *b, const hf_model *m, int layer)
{
    const hf_linear *linears = NULL;
    size_t n = hf_layer_linears(m, layer, &linears);
    void *rows = NULL;
    dr_status st = DR_OK;

    for (size_t i = 0; i < n; i++) {
        const hf_linear *l = &linears[i];
        size_t count = l->n_out < ROWS ? l->n_out : ROWS;
        DR_TRY(dr_big_alloc(&rows, count * l->n_in, sizeof(float), "rows of a weight"));
        DR_TRY(hf_linear_read(m, l, rows, 0, count));
        DR_TRY(dr_buf_addf(b, "%zu ", l->n_out));
        DR_TRY(add(b, l->path, rows, count * l->n_in * sizeof(float)));
        dr_big_free(rows);
        rows = NULL;
    }
done:
    dr_big_free(rows);
    return st;
}

static dr_status add_norms(dr_buf *b, const hf_model *m, int layer)
{
    const hf_config *c = hf_model_config(m);
    dr_status st = DR_OK;

    for (hf_norm k = 0; k < HF_NORM_COUNT; k++) {
        bool last = k == HF_NORM_FINAL;
        if ((!last && !hf_norm_exists(c, k)) || (last && layer > 0))
            continue;
        size_t n = last ? (size_t)c->hidden : hf_norm_size(c, k);
        float *w = dr_calloc(n, sizeof(*w));
        st = hf_norm_read(m, k, layer, w);
        if (st == DR_OK)
            st = add(b, "norm", w, n * sizeof(*w));
        free(w);
        DR_TRY(st);
    }
done:
    return st;
}

dr_status train_model_hash(char hex[DR_SHA256_HEX], const hf_model *m)
{
    const hf_config *c = hf_model_config(m);
    size_t rows = c->vocab < ROWS ? (size_t)c->vocab : ROWS;
    float *embed = dr_calloc(rows * (size_t)c->hidden, sizeof(*embed));
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, TEXT_MAX);
    DR_TRY(dr_buf_addf(&b, "%s %d %d %d %d %.17g %.17g %.17g %.17g\n", c->arch_name,
                       c->vocab, c->heads, c->kv_heads, c->head_dim, c->norm_eps,
                       c->attn_scale, c->embed_scale, c->rope.theta));
    DR_TRY(hf_embed_read(m, embed, 0, rows));
    DR_TRY(add(&b, "embedding", embed, rows * (size_t)c->hidden * sizeof(*embed)));
    for (int layer = 0; layer < c->layers; layer++) {
        DR_TRY(add_norms(&b, m, layer));
        DR_TRY(add_linears(&b, m, layer));
    }
    dr_sha256(hex, b.data, b.len);
done:
    free(embed);
    dr_buf_release(&b);
    return st;
}

dr_status train_blocks_hash(char hex[DR_SHA256_HEX], const train_blocks *b)
{
    dr_buf text;
    dr_status st = DR_OK;

    dr_buf_init(&text, TEXT_MAX);
    DR_TRY(dr_buf_addf(&text, "%zu %zu %zu\n", b->count, b->seq_len, b->context));
    DR_TRY(add(&text, "ids", b->ids, b->count * b->seq_len * sizeof(*b->ids)));
    DR_TRY(add(&text, "lengths", b->lengths, b->count * sizeof(*b->lengths)));
    if (b->marks != NULL)
        DR_TRY(add(&text, "marks", b->marks, b->count * b->seq_len));
    if (b->starts != NULL)
        DR_TRY(add(&text, "starts", b->starts, b->count * b->seq_len * sizeof(*b->starts)));
    dr_sha256(hex, text.data, text.len);
done:
    dr_buf_release(&text);
    return st;
}

/* What the base's weights are rounded to beyond what the file says. */
static const char *rounded(const hf_bnb *g)
{
    if (g == NULL)
        return "";
    if (g->fp4)
        return g->nested ? " fp4 nested" : " fp4";
    return g->nested ? " nf4 nested" : " nf4";
}

static const char batch_key[] = "per_device_train_batch_size";

/* With the batch of all ranks: as many blocks a step may be shared out otherwise. */
static json_t *settings_of(const trainer *t)
{
    json_t *j = t->o->settings != NULL ? json_deep_copy(t->o->settings) : json_object();
    const json_t *batch = json_object_get(j, batch_key);

    if (json_is_integer(batch))
        json_object_set_new(
            j, batch_key,
            json_integer(json_integer_value(batch) * (json_int_t)dr_ranks_count(t->ranks)));
    return j;
}

dr_status train_identity(json_t **out, const trainer *t, const hf_model *m)
{
    char hex[DR_SHA256_HEX];
    json_t *j = json_object();
    dr_status st = DR_OK;

    DR_TRY(train_model_hash(hex, m));
    json_object_set_new(j, "model", json_sprintf("%s%s", hex, rounded(t->o->base_grid)));
    DR_TRY(train_blocks_hash(hex, t->blocks));
    json_object_set_new(j, "training data", json_string(hex));
    if (t->o->eval != NULL) {
        DR_TRY(train_blocks_hash(hex, t->o->eval));
        json_object_set_new(j, "evaluation data", json_string(hex));
    }
    dr_sha256(hex, t->state.param, t->state.count * sizeof(float));
    json_object_set_new(j, "starting adapter", json_string(hex));
    json_object_set_new(j, "settings", settings_of(t));
    *out = j;
    j = NULL;
done:
    json_decref(j);
    return st;
}

/* May a run go on for longer than was meant?  Where the rate does not ask how long. */
static bool open_ended(const train_options *o)
{
    return o->schedule == TRAIN_CONSTANT || o->schedule == TRAIN_PLATEAU ||
           ((o->schedule == TRAIN_CONSTANT_WARMUP || o->schedule == TRAIN_INVERSE_SQRT) &&
            o->warmup_steps > 0);
}

/* A value for people; free(). */
static char *words(const json_t *v)
{
    char *text = v != NULL ? json_dumps(v, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6)) : NULL;

    return text != NULL ? text : dr_strdup("unknown");
}

static dr_status compare_settings(const trainer *t, const json_t *was, const json_t *is,
                                  const char *where)
{
    const char *key;
    json_t *value;
    char *a = NULL, *b = NULL;
    dr_status st = DR_OK;

    /* jansson's iterators take the object without const, and leave it as it is. */
    json_object_foreach((json_t *)(uintptr_t)is, key, value)
    {
        const json_t *old = json_object_get(was, key);
        bool length = strcmp(key, "max_steps") == 0 || strcmp(key, "num_train_epochs") == 0;
        if (json_equal(old, value) || (length && open_ended(t->o)))
            continue;
        a = words(old);
        b = words(value);
        bool shared = strcmp(key, batch_key) == 0 && dr_ranks_count(t->ranks) > 1;
        DR_FAIL(DR_EUSAGE, "%s: it was made with %s%s %s, this run has %s", where, key,
                shared ? " times ranks" : "", a, b);
    }
done:
    free(a);
    free(b);
    return st;
}

dr_status train_identity_check(const trainer *t, const json_t *was, const char *where)
{
    static const char *const keys[] = {"model", "training data", "evaluation data",
                                       "starting adapter"};
    dr_status st = DR_OK;

    DR_TRY(compare_settings(t, json_object_get(was, "settings"),
                            json_object_get(t->identity, "settings"), where));
    for (size_t i = 0; i < DR_COUNT(keys); i++) {
        const json_t *a = json_object_get(was, keys[i]);
        const json_t *b = json_object_get(t->identity, keys[i]);
        if (a != b && !json_equal(a, b))
            DR_FAIL(DR_EUSAGE, "%s: it was made with another %s than this run has", where,
                    keys[i]);
    }
done:
    if (st != DR_OK)
        dr_hint("give what the checkpoint was made with, or begin anew without "
                "resume_from_checkpoint");
    return st;
}
