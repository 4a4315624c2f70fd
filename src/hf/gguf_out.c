/*
 * gguf_out.c - a model as one GGUF file (version 3) that llama.cpp runs.
 *
 * The head of the file has every tensor's place, so types and sizes are chosen first; then
 * the tensors are written one after another, rows in chunks.  Norms and biases are float.
 * Matrices have the type asked for, with two exceptions, as llama.cpp's own tools make
 * them: a row that is not whole blocks stays in half precision, and embedding and head of a
 * 4-bit file have 8 bits, since every token passes through them.
 *
 * A linear that is packed keeps its codes where the type has room for them
 * (gguf_quantize.c); its values are then those of the source.  All others are rounded from
 * floats.  q and k rows of a Llama and its kin are turned from halves, as Hugging Face has
 * a head's, to pairs; gguf_dequant.c turns them back.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "core/mem.h"
#include "hf/gguf_out_impl.h"
#include "hf/roles_impl.h"

#define HALF_MAX 65504.0f
enum { ALIGNMENT = 32, KEYS_MAX = 1 << 30, CHUNK_FLOATS = 1 << 20 };

/* ---- types and names ---- */

/* By hf_gguf_type: tensor type, general.file_type, and the type of embedding and head. */
static const struct {
    const char *name;
    int type, file_type, outer;
} types[HF_GGUF_TYPES] = {
    [HF_GGUF_F32] = {"f32", GGUF_OUT_F32, 0, GGUF_OUT_F32},
    [HF_GGUF_F16] = {"f16", GGUF_OUT_F16, 1, GGUF_OUT_F16},
    [HF_GGUF_BF16] = {"bf16", GGUF_OUT_BF16, 32, GGUF_OUT_BF16},
    [HF_GGUF_Q8_0] = {"q8_0", GGUF_OUT_Q8_0, 7, GGUF_OUT_Q8_0},
    [HF_GGUF_Q4_0] = {"q4_0", GGUF_OUT_Q4_0, 2, GGUF_OUT_Q8_0},
    [HF_GGUF_Q4_1] = {"q4_1", GGUF_OUT_Q4_1, 3, GGUF_OUT_Q8_0},
};

/* The name of a linear's tensor within its layer. */
static const struct {
    const char *leaf, *name;
} linear_names[] = {
    {"q_proj", "attn_q"},     {"k_proj", "attn_k"},       {"v_proj", "attn_v"},
    {"qkv_proj", "attn_qkv"}, {"o_proj", "attn_output"},  {"gate_proj", "ffn_gate"},
    {"up_proj", "ffn_up"},    {"gate_up_proj", "ffn_up"}, {"down_proj", "ffn_down"},
    {"dense", "attn_output"}, {"fc1", "ffn_up"},          {"fc2", "ffn_down"},
};

static const struct {
    hf_norm which;
    const char *name;
} layer_norms[] = {
    {HF_NORM_ATTN, "attn_norm"}, {HF_NORM_ATTN_OUT, "post_attention_norm"},
    {HF_NORM_MLP, "ffn_norm"},   {HF_NORM_MLP_OUT, "post_ffw_norm"},
    {HF_NORM_Q, "attn_q_norm"},  {HF_NORM_K, "attn_k_norm"},
};

/* What the source's weights are best kept in. */
static hf_gguf_type choose_type(const hf_model *m)
{
    const hf_quant q = hf_model_quant(m);

    if (q.method != HF_QUANT_NONE)
        return q.bits == 8                  ? HF_GGUF_Q8_0
               : q.bits == 2 || q.symmetric ? HF_GGUF_Q4_0
                                            : HF_GGUF_Q4_1;
    return hf_model_config(m)->dtype == DR_DTYPE_BF16 ? HF_GGUF_BF16 : HF_GGUF_F16;
}

/* ---- the list of tensors ---- */

typedef enum { MATRIX, BIAS, HEAD_BIAS, NORM, NORM_BIAS, TABLE } kind;

struct tensor {
    const char *name; /* arena */
    kind kind;
    int type;
    size_t rows, cols; /* a vector has one row */
    const hf_linear *l;
    hf_norm norm;
    int layer;
    const float *values; /* TABLE */
    bool turned;
    size_t bytes;
    uint64_t offset;
};

struct list {
    const hf_model *m;
    dr_arena *a;
    struct tensor *t; /* arena */
    size_t count, cap;
    int type, outer;
    bool turned;
};

static struct tensor *add(struct list *s, const char *name, kind k, int type, size_t rows,
                          size_t cols)
{
    int block = gguf_block_of(type).block;

    DR_BUG_IF(s->count == s->cap);
    if (cols % (size_t)block != 0)
        type = GGUF_OUT_F16;
    struct tensor *t = &s->t[s->count++];
    *t = (struct tensor){.name = name,
                         .kind = k,
                         .type = type,
                         .rows = rows,
                         .cols = cols,
                         .bytes = gguf_out_bytes(type, rows * cols)};
    return t;
}

/* The weight and the bias of a norm; base: "output_norm". */
static void add_norm(struct list *s, const char *base, hf_norm which, int layer)
{
    const hf_config *c = hf_model_config(s->m);
    size_t n = hf_norm_size(c, which);
    int parts = c->norm_kind == HF_NORM_KIND_LAYER ? 2 : 1;

    if (!hf_norm_exists(c, which))
        return;
    for (int i = 0; i < parts; i++) {
        const char *part = i == 0 ? "weight" : "bias";
        struct tensor *t = add(s, dr_arena_printf(s->a, "%s.%s", base, part),
                               i == 0 ? NORM : NORM_BIAS, GGUF_OUT_F32, 1, n);
        t->norm = which;
        t->layer = layer;
    }
}

/* The weight and the bias of a linear; base: "blk.0.attn_q". */
static void add_linear(struct list *s, const hf_linear *l, const char *base, int type)
{
    bool turned =
        s->turned && (strcmp(l->leaf, "q_proj") == 0 || strcmp(l->leaf, "k_proj") == 0);
    struct tensor *t =
        add(s, dr_arena_printf(s->a, "%s.weight", base), MATRIX, type, l->n_out, l->n_in);

    t->l = l;
    t->turned = turned;
    if (!l->has_bias)
        return;
    t = add(s, dr_arena_printf(s->a, "%s.bias", base), BIAS, GGUF_OUT_F32, 1, l->n_out);
    t->l = l;
    t->turned = turned;
}

static void add_layer(struct list *s, int layer)
{
    const hf_linear *l = NULL;
    size_t n = hf_layer_linears(s->m, layer, &l);

    for (size_t i = 0; i < DR_COUNT(layer_norms); i++)
        add_norm(s, dr_arena_printf(s->a, "blk.%d.%s", layer, layer_norms[i].name),
                 layer_norms[i].which, layer);
    for (size_t i = 0; i < n; i++) {
        const char *name = NULL;
        for (size_t k = 0; k < DR_COUNT(linear_names); k++)
            if (strcmp(l[i].leaf, linear_names[k].leaf) == 0)
                name = linear_names[k].name;
        DR_BUG_IF(name == NULL);
        add_linear(s, &l[i], dr_arena_printf(s->a, "blk.%d.%s", layer, name), s->type);
    }
}

static void list_tensors(struct list *s, const gguf_out_table *tables, size_t table_count)
{
    const hf_config *c = hf_model_config(s->m);
    const hf_linear *head = hf_head_linear(s->m);
    uint64_t offset = 0;

    s->cap = (size_t)c->layers * 2 * (DR_COUNT(layer_norms) + s->m->linears_per_layer) + 5 +
             table_count;
    s->t = dr_arena_alloc(s->a, s->cap, sizeof(*s->t));
    add_linear(s, hf_embed_linear(s->m), "token_embd", s->outer);
    for (int i = 0; i < c->layers; i++)
        add_layer(s, i);
    add_norm(s, "output_norm", HF_NORM_FINAL, 0);
    if (head != NULL)
        add_linear(s, head, "output", s->outer);
    if (c->head_bias)
        add(s, "output.bias", HEAD_BIAS, GGUF_OUT_F32, 1, (size_t)c->vocab);
    for (size_t i = 0; i < table_count; i++)
        add(s, tables[i].name, TABLE, GGUF_OUT_F32, 1, tables[i].count)->values =
            tables[i].values;
    for (size_t i = 0; i < s->count; i++) {
        s->t[i].offset = offset;
        offset += (s->t[i].bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
}

/* ---- writing ---- */

struct sink {
    dr_writer file;
    const hf_model *m;
    float *rows;          /* owned: CHUNK_FLOATS, or one head or row */
    unsigned char *block; /* owned: as many elements in any type */
    size_t room;          /* floats in rows */
    hf_gguf_report *report;
    const char *unfit; /* the first tensor with a value that its type cannot hold */
};

/* The row of a source that stands at row r of the file: pairs from halves. */
static size_t halves_row(size_t r, size_t size)
{
    size_t in = r % size;

    return r - in + in % 2 * (size / 2) + in / 2;
}

/* Values that the type cannot hold; scales and norms of blocks are half precision. */
static void look_at(struct sink *w, const struct tensor *t, const float *v, size_t n)
{
    bool wide = t->type == GGUF_OUT_F32 || t->type == GGUF_OUT_BF16;
    float most = wide ? FLT_MAX : HALF_MAX;
    size_t bad = 0;

    if (w->unfit != NULL)
        return;
    for (size_t i = 0; i < n; i++)
        bad += !(fabsf(v[i]) <= most);
    if (bad > 0)
        w->unfit = t->name;
}

static dr_status put_floats(struct sink *w, const struct tensor *t, const float *v,
                            size_t n)
{
    look_at(w, t, v, n);
    gguf_quantize(w->block, v, t->type, n);
    return dr_writer_add(&w->file, w->block, gguf_out_bytes(t->type, n));
}

/* Floats, in chunks of whole heads where rows are turned. */
static dr_status write_rows(struct sink *w, const struct tensor *t)
{
    size_t head = t->turned ? (size_t)hf_model_config(w->m)->head_dim : 1;
    size_t per = w->room / (t->cols * head) * head;
    dr_status st = DR_OK;

    for (size_t r = 0; r < t->rows; r += per) {
        size_t n = t->rows - r < per ? t->rows - r : per;
        DR_TRY(hf_linear_read(w->m, t->l, w->rows, r, n));
        for (size_t i = 0; t->turned && i < n; i++)
            DR_TRY(put_floats(w, t, w->rows + halves_row(i, head) * t->cols, t->cols));
        if (!t->turned)
            DR_TRY(put_floats(w, t, w->rows, n * t->cols));
    }
done:
    return st;
}

/* *kept: its codes went over as they are. */
static dr_status write_packed(struct sink *w, const struct tensor *t, bool *kept)
{
    size_t head = t->turned ? (size_t)hf_model_config(w->m)->head_dim : 1;
    dr_qtensor q = {0};
    dr_status st = DR_OK;

    *kept = false;
    if (!t->l->packed)
        return DR_OK;
    DR_TRY(hf_linear_packed(w->m, t->l, &q, NULL));
    if (!gguf_keeps_codes(&q, t->type))
        goto done;
    look_at(w, t, q.scales, q.rows * dr_qtensor_blocks(&q));
    for (size_t r = 0; r < t->rows; r++) {
        gguf_from_packed(w->block, &q, t->type, t->turned ? halves_row(r, head) : r);
        DR_TRY(dr_writer_add(&w->file, w->block, gguf_out_bytes(t->type, t->cols)));
    }
    *kept = true;
done:
    dr_qtensor_release(&q);
    return st;
}

static dr_status write_vector(struct sink *w, const struct tensor *t)
{
    size_t head = (size_t)hf_model_config(w->m)->head_dim;
    dr_status st = DR_OK;

    if (t->kind == TABLE)
        return put_floats(w, t, t->values, t->cols);
    if (t->kind == NORM)
        DR_TRY(hf_norm_read(w->m, t->norm, t->layer, w->rows));
    else if (t->kind == NORM_BIAS)
        DR_TRY(hf_norm_bias_read(w->m, t->norm, t->layer, w->rows));
    else if (t->kind == HEAD_BIAS)
        DR_TRY(hf_head_bias(w->m, w->rows));
    else
        DR_TRY(hf_linear_bias(w->m, t->l, w->rows));
    if (!t->turned)
        return put_floats(w, t, w->rows, t->cols);
    for (size_t i = 0; i < t->cols; i++)
        DR_TRY(put_floats(w, t, w->rows + halves_row(i, head), 1));
done:
    return st;
}

static dr_status write_tensor(struct sink *w, const struct tensor *t)
{
    bool kept = false;
    dr_status st = DR_OK;

    DR_TRY(dr_cancelled_check());
    DR_TRY(dr_writer_align(&w->file, ALIGNMENT));
    if (t->kind != MATRIX)
        return write_vector(w, t);
    DR_TRY(write_packed(w, t, &kept));
    if (!kept)
        DR_TRY(write_rows(w, t));
    w->report->kept += kept;
    w->report->rounded += !kept && gguf_block_of(t->type).block > 1;
done:
    return st;
}

static void put_number(unsigned char **p, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        *(*p)++ = (unsigned char)(v >> 8 * i & 255);
}

/* Header, keys, the list of tensors. */
static dr_status write_head(struct sink *w, const gguf_out *o, const struct list *s)
{
    unsigned char head[64], *p = head;
    dr_status st = DR_OK;

    memcpy(p, "GGUF", 4);
    p += 4;
    put_number(&p, 3, 4);
    put_number(&p, s->count, 8);
    put_number(&p, o->key_count, 8);
    DR_TRY(dr_writer_add(&w->file, head, (size_t)(p - head)));
    DR_TRY(dr_writer_add(&w->file, o->keys.data, o->keys.len));
    for (size_t i = 0; i < s->count; i++) {
        const struct tensor *t = &s->t[i];
        p = head;
        put_number(&p, strlen(t->name), 8);
        DR_TRY(dr_writer_add(&w->file, head, (size_t)(p - head)));
        DR_TRY(dr_writer_add(&w->file, t->name, strlen(t->name)));
        p = head;
        put_number(&p, t->kind == MATRIX ? 2 : 1, 4);
        put_number(&p, t->cols, 8);
        if (t->kind == MATRIX)
            put_number(&p, t->rows, 8);
        put_number(&p, (uint64_t)t->type, 4);
        put_number(&p, t->offset, 8);
        DR_TRY(dr_writer_add(&w->file, head, (size_t)(p - head)));
    }
done:
    return st;
}

/* Room for a chunk: whole rows, whole heads of them, and every vector. */
static dr_status make_room(struct sink *w, const struct list *s)
{
    size_t head = (size_t)hf_model_config(w->m)->head_dim;
    void *p = NULL;
    dr_status st = DR_OK;

    w->room = CHUNK_FLOATS;
    for (size_t i = 0; i < s->count; i++) {
        size_t n = s->t[i].cols * (s->t[i].kind == MATRIX ? head : 1);
        w->room = n > w->room ? n : w->room;
    }
    DR_TRY(dr_big_alloc(&p, w->room, sizeof(float), "rows of a tensor"));
    w->rows = p;
    DR_TRY(dr_big_alloc(&p, w->room, sizeof(float), "rows of a tensor"));
    w->block = p;
done:
    return st;
}

static dr_status write_file(struct sink *w, const char *path, const gguf_out *o,
                            const struct list *s)
{
    dr_progress progress;
    dr_status st = DR_OK;

    DR_TRY(make_room(w, s));
    DR_TRY(dr_writer_open(&w->file, path));
    DR_TRY(write_head(w, o, s));
    dr_progress_begin(&progress, "writing GGUF", "tensors", s->count);
    for (size_t i = 0; i < s->count; i++) {
        DR_TRYF(write_tensor(w, &s->t[i]), "writing %s", s->t[i].name);
        dr_progress_step(&progress, i + 1, NULL);
    }
    dr_progress_end(&progress);
    DR_TRY(dr_writer_align(&w->file, ALIGNMENT));
    w->report->bytes = dr_writer_at(&w->file);
    DR_TRY(dr_writer_finish(&w->file));
    if (w->unfit != NULL)
        dr_warn_result("%s: %s has values that are not numbers, or too large for %s",
                       hf_model_path(w->m), w->unfit, w->report->type);
done:
    return st;
}

/* ---- the whole ---- */

static dr_status find_family(gguf_out *o, bool *turned)
{
    const gguf_family *f = gguf_family_of(hf_model_config(o->m)->arch);
    dr_status st = DR_OK;

    if (f == NULL) {
        st = dr_fail(DR_EUNSUPPORTED, "%s: %s is not written as GGUF", hf_model_path(o->m),
                     hf_model_config(o->m)->arch_name);
        dr_hint("GGUF files of %s are written", gguf_family_names(o->a));
        return st;
    }
    o->arch = f->name;
    *turned = f->turned;
    return st;
}

dr_status hf_gguf_write(const char *path, const hf_model *m, hf_gguf_type type,
                        const char *name, hf_gguf_report *report)
{
    dr_arena a = {0};
    gguf_out o = {.m = m, .a = &a};
    struct list s = {.m = m, .a = &a};
    struct sink w = {.file = {.fd = -1}, .m = m, .report = report};
    gguf_out_table tables[GGUF_OUT_TABLES];
    size_t table_count = 0;
    dr_status st = DR_OK;

    if (type == HF_GGUF_AUTO)
        type = choose_type(m);
    *report = (hf_gguf_report){.type = types[type].name};
    dr_buf_init(&o.keys, KEYS_MAX);
    DR_TRY(find_family(&o, &s.turned));
    DR_TRY(gguf_out_config(&o, name, types[type].file_type, tables, &table_count));
    DR_TRYF(gguf_out_tokenizer(&o), "writing the tokenizer");
    DR_TRY(o.st);
    s.type = types[type].type;
    s.outer = types[type].outer;
    list_tensors(&s, tables, table_count);
    DR_TRYF(write_file(&w, path, &o, &s), "writing %s", path);
done:
    dr_writer_close(&w.file);
    dr_big_free(w.rows);
    dr_big_free(w.block);
    dr_buf_release(&o.keys);
    dr_arena_release(&a);
    return st;
}
