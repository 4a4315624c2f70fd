/*
 * ort_fixture.c - tiny models, byte by byte.
 *
 * A protobuf message is a sequence of (field << 3 | wire type) tags with a varint (0) or a
 * length and bytes (2); nested messages are written into a buffer of their own first.
 */
#include "ort_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/file.h"
#include "ort/ort.h"

enum { ONNX_FLOAT = 1, ONNX_INT64 = 7, ATTR_INT = 2, MODEL_MAX = 1 << 20 };

const float fixture_w[FIXTURE_K * FIXTURE_N] = {1, 2, 3, 4, 5, 6};

static void must(dr_status st)
{
    if (st != DR_OK) {
        (void)fprintf(stderr, "fixture: %s\n", dr_trail_get()->frames[0].text);
        exit(2);
    }
}

/* ---- protobuf ---- */

static dr_buf message(void)
{
    dr_buf b = {0};

    dr_buf_init(&b, MODEL_MAX);
    return b;
}

static void varint(dr_buf *b, uint64_t v)
{
    do {
        unsigned char byte = (unsigned char)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        must(dr_buf_add(b, &byte, 1));
        v >>= 7;
    } while (v > 0);
}

static void add_int(dr_buf *b, int field, int64_t v)
{
    varint(b, (uint64_t)field << 3);
    varint(b, (uint64_t)v);
}

static void add_bytes(dr_buf *b, int field, const void *data, size_t n)
{
    varint(b, (uint64_t)field << 3 | 2);
    varint(b, n);
    must(dr_buf_add(b, data, n));
}

static void add_text(dr_buf *b, int field, const char *s)
{
    add_bytes(b, field, s, strlen(s));
}

/* Takes the nested message over. */
static void add_message(dr_buf *b, int field, dr_buf *nested)
{
    add_bytes(b, field, nested->data, nested->len);
    dr_buf_release(nested);
}

/* shape: dims in words, a number or a symbol: "batch 2 past 4". */
static void add_value(dr_buf *graph, int field, const char *name, int type,
                      const char *shape)
{
    dr_buf value = message(), kind = message(), tensor = message(), dims = message();
    char word[64];
    int used = 0;

    while (sscanf(shape, "%63s%n", word, &used) == 1) {
        dr_buf dim = message();
        if (word[0] >= '0' && word[0] <= '9')
            add_int(&dim, 1, strtol(word, NULL, 10));
        else
            add_text(&dim, 2, word);
        add_message(&dims, 1, &dim);
        shape += used;
    }
    add_int(&tensor, 1, type);
    add_message(&tensor, 2, &dims);
    add_message(&kind, 1, &tensor);
    add_text(&value, 1, name);
    add_message(&value, 2, &kind);
    add_message(graph, field, &value);
}

static void add_input(dr_buf *graph, const char *name, int type, const char *shape)
{
    add_value(graph, 11, name, type, shape);
}

static void add_output(dr_buf *graph, const char *name, int type, const char *shape)
{
    add_value(graph, 12, name, type, shape);
}

static void add_tensor(dr_buf *graph, const char *name, int type, int rank, int64_t d0,
                       int64_t d1, const void *data, size_t bytes)
{
    dr_buf t = message();

    if (rank > 0)
        add_int(&t, 1, d0);
    if (rank > 1)
        add_int(&t, 1, d1);
    add_int(&t, 2, type);
    add_text(&t, 8, name);
    add_bytes(&t, 9, data, bytes);
    add_message(graph, 5, &t);
}

/* in and out: names in words.  attribute NULL: none. */
static void add_node(dr_buf *graph, const char *op, const char *in, const char *out,
                     const char *attribute, int64_t value)
{
    dr_buf node = message();
    char word[64];
    int used = 0;

    for (; sscanf(in, "%63s%n", word, &used) == 1; in += used)
        add_text(&node, 1, word);
    for (; sscanf(out, "%63s%n", word, &used) == 1; out += used)
        add_text(&node, 2, word);
    add_text(&node, 4, op);
    if (attribute != NULL) {
        dr_buf a = message();
        add_text(&a, 1, attribute);
        add_int(&a, 3, value);
        add_int(&a, 20, ATTR_INT);
        add_message(&node, 5, &a);
    }
    add_message(graph, 1, &node);
}

static void write_model(const char *path, dr_buf *graph)
{
    dr_buf model = message(), opset = message();

    add_text(graph, 2, "fixture");
    add_text(&opset, 1, "");
    add_int(&opset, 2, 17);
    add_int(&model, 1, 8);
    add_message(&model, 7, graph);
    add_message(&model, 8, &opset);
    must(dr_write_file(path, model.data, model.len));
    dr_buf_release(&model);
}

/* ---- plain models ---- */

void fixture_add(const char *path)
{
    dr_buf g = message();

    add_node(&g, "Add", "x y", "z", NULL, 0);
    add_input(&g, "x", ONNX_FLOAT, "n");
    add_input(&g, "y", ONNX_FLOAT, "n");
    add_output(&g, "z", ONNX_FLOAT, "n");
    write_model(path, &g);
}

void fixture_nan(const char *path)
{
    const float two = 2;
    dr_buf g = message();

    add_node(&g, "Sub", "x two", "d", NULL, 0);
    add_node(&g, "Sqrt", "d", "y", NULL, 0);
    add_tensor(&g, "two", ONNX_FLOAT, 1, 1, 0, &two, sizeof(two));
    add_input(&g, "x", ONNX_FLOAT, "n");
    add_output(&g, "y", ONNX_FLOAT, "n");
    write_model(path, &g);
}

void fixture_dims(const char *path)
{
    dr_buf g = message();

    add_node(&g, "Identity", "input_ids", "ids", NULL, 0);
    add_node(&g, "Identity", "attention_mask", "mask", NULL, 0);
    add_node(&g, "Identity", "past_key_values.0.key", "present.0.key", NULL, 0);
    add_input(&g, "input_ids", ONNX_INT64, "batch_size sequence_length");
    add_input(&g, "attention_mask", ONNX_INT64, "batch_size total_sequence_length");
    add_input(&g, "past_key_values.0.key", ONNX_FLOAT,
              "batch_size 2 past_sequence_length 4");
    add_output(&g, "ids", ONNX_INT64, "batch_size sequence_length");
    add_output(&g, "mask", ONNX_INT64, "batch_size total_sequence_length");
    add_output(&g, "present.0.key", ONNX_FLOAT, "batch_size 2 past_sequence_length 4");
    write_model(path, &g);
}

/* y = x W + (x A) B, the last two being optional inputs. */
static void add_lora(dr_buf *g, const char *x, const char *y, int64_t k, int64_t n,
                     const float *w)
{
    char in[64], shape[32];

    (void)snprintf(in, sizeof(in), "%s W", x);
    add_node(g, "MatMul", in, "base", NULL, 0);
    (void)snprintf(in, sizeof(in), "%s lora_A", x);
    add_node(g, "MatMul", in, "low", NULL, 0);
    add_node(g, "MatMul", "low lora_B", "delta", NULL, 0);
    add_node(g, "Add", "base delta", y, NULL, 0);
    add_tensor(g, "W", ONNX_FLOAT, 2, k, n, w, (size_t)(k * n) * sizeof(*w));
    add_tensor(g, "lora_A", ONNX_FLOAT, 2, k, 0, "", 0);
    add_tensor(g, "lora_B", ONNX_FLOAT, 2, 0, n, "", 0);
    (void)snprintf(shape, sizeof(shape), "%d lora_r", (int)k);
    add_input(g, "lora_A", ONNX_FLOAT, shape);
    (void)snprintf(shape, sizeof(shape), "lora_r %d", (int)n);
    add_input(g, "lora_B", ONNX_FLOAT, shape);
}

void fixture_lora(const char *path)
{
    dr_buf g = message();

    add_input(&g, "x", ONNX_FLOAT, "m 3");
    add_lora(&g, "x", "y", FIXTURE_K, FIXTURE_N, fixture_w);
    add_output(&g, "y", ONNX_FLOAT, "m 2");
    write_model(path, &g);
}

/* ---- .onnx_adapter ---- */

static void put(dr_buf *b, uint64_t v, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        unsigned char byte = (unsigned char)(v >> (8 * i));
        must(dr_buf_add(b, &byte, 1));
    }
}

/* Up to a place where (length + skip) is a multiple of align. */
static void pad(dr_buf *b, size_t align, size_t skip)
{
    while ((b->len + skip) % align != 0)
        put(b, 0, 1);
}

/* The offset at `at` leads to here. */
static void lead_here(dr_buf *b, size_t at)
{
    uint32_t distance = (uint32_t)(b->len - at);

    memcpy(b->data + at, &distance, sizeof(distance));
}

/* A vtable of four 4-byte fields and the start of its table; fields follow. */
static void begin_table(dr_buf *b)
{
    pad(b, 4, 0);
    put(b, 4 + 4 * 2, 2);
    put(b, 4 + 4 * 4, 2);
    for (unsigned i = 0; i < 4; i++)
        put(b, 4 + 4 * i, 2);
    put(b, 12, 4); /* the vtable lies 12 bytes before the table */
}

static void add_param(dr_buf *b, const fixture_param *p)
{
    const size_t bytes = (size_t)(p->dims[0] * p->dims[1]) * sizeof(float);

    begin_table(b);
    const size_t name_at = b->len, dims_at = name_at + 4, raw_at = name_at + 12;
    put(b, 0, 8);
    put(b, ONNX_FLOAT, 4);
    put(b, 0, 4);
    lead_here(b, name_at);
    put(b, strlen(p->name), 4);
    must(dr_buf_add(b, p->name, strlen(p->name) + 1));
    pad(b, 8, 4);
    lead_here(b, dims_at);
    put(b, 2, 4);
    put(b, (uint64_t)p->dims[0], 8);
    put(b, (uint64_t)p->dims[1], 8);
    pad(b, 8, 4);
    lead_here(b, raw_at);
    put(b, bytes, 4);
    must(dr_buf_add(b, p->data, bytes));
}

void fixture_adapter(const char *path, const fixture_param *params, size_t count)
{
    dr_buf b = message();

    put(&b, 0, 4);
    must(dr_buf_adds(&b, "TORT"));
    begin_table(&b);
    const uint32_t root = (uint32_t)(b.len - 4);
    memcpy(b.data, &root, sizeof(root));
    put(&b, 1, 4); /* format */
    put(&b, 1, 4); /* adapter */
    put(&b, 1, 4); /* model */
    put(&b, 0, 4);
    lead_here(&b, b.len - 4);
    put(&b, count, 4);
    const size_t list = b.len;
    put(&b, 0, 4 * count > 8 ? 8 : 4 * count);
    for (size_t i = 2; i < count; i++)
        put(&b, 0, 4);
    for (size_t i = 0; i < count; i++) {
        pad(&b, 4, 0);
        const size_t vtable = b.len;
        add_param(&b, &params[i]);
        const uint32_t distance = (uint32_t)(vtable + 12 - (list + 4 * i));
        memcpy(b.data + list + 4 * i, &distance, sizeof(distance));
    }
    must(dr_write_file(path, b.data, b.len));
    dr_buf_release(&b);
}

/* ---- a GenAI folder ---- */

int32_t fixture_next(int32_t id)
{
    return (id * 5 + 3) % FIXTURE_VOCAB;
}

static void write_text(const char *dir, const char *name, const char *text)
{
    char path[4200];

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    must(dr_write_file(path, text, strlen(text)));
}

static void write_tokenizer(const char *dir)
{
    dr_buf b = message();

    must(dr_buf_adds(
        &b,
        "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[{"
        "\"id\":28,\"content\":\"<eos>\",\"single_word\":false,\"lstrip\":false,"
        "\"rstrip\":false,\"normalized\":false,\"special\":true}],\"normalizer\":null,"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"trim_offsets\":true,\"use_regex\":true},\"post_processor\":null,\"decoder\":{"
        "\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,"
        "\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"dropout\":null,"
        "\"unk_token\":null,\"continuing_subword_prefix\":\"\","
        "\"end_of_word_suffix\":\"\",\"fuse_unk\":false,\"vocab\":{"));
    for (int i = 0; i < 26; i++)
        must(dr_buf_addf(&b, "\"%c\":%d,", 'a' + i, i));
    must(dr_buf_adds(&b, "\"\xc4\xa0\":26,\"ab\":27,\"<eos>\":28},\"merges\":[\"a b\"]}}"));
    write_text(dir, "tokenizer.json", b.data);
    write_text(dir, "tokenizer_config.json",
               "{\"tokenizer_class\":\"GPT2Tokenizer\",\"eos_token\":\"<eos>\","
               "\"bos_token\":\"<eos>\",\"unk_token\":\"<eos>\",\"add_prefix_space\":false,"
               "\"model_max_length\":64,\"clean_up_tokenization_spaces\":false}\n");
    dr_buf_release(&b);
}

static void write_genai_model(const char *path, bool nan)
{
    static float w[FIXTURE_VOCAB * FIXTURE_VOCAB], eye[FIXTURE_VOCAB * FIXTURE_VOCAB];
    const int64_t axes[] = {1, 3};
    dr_buf g = message();

    for (int32_t i = 0; i < FIXTURE_VOCAB; i++) {
        for (int32_t j = 0; j < FIXTURE_VOCAB; j++) {
            eye[i * FIXTURE_VOCAB + j] = i == j ? 1.0F : 0.0F;
            w[i * FIXTURE_VOCAB + j] = j == fixture_next(i) ? 5.0F : 0.0F;
        }
    }
    add_node(&g, "Gather", "eye input_ids", "x", NULL, 0);
    add_lora(&g, "x", nan ? "sum" : "logits", FIXTURE_VOCAB, FIXTURE_VOCAB, w);
    if (nan)
        add_node(&g, "Log", "sum", "logits", NULL, 0); /* log 0 */
    add_node(&g, "Cast", "input_ids", "c", "to", ONNX_FLOAT);
    add_node(&g, "Unsqueeze", "c axes", "kv", NULL, 0);
    add_node(&g, "Concat", "past_key_values.0.key kv", "present.0.key", "axis", 2);
    add_node(&g, "Concat", "past_key_values.0.value kv", "present.0.value", "axis", 2);
    add_tensor(&g, "eye", ONNX_FLOAT, 2, FIXTURE_VOCAB, FIXTURE_VOCAB, eye, sizeof(eye));
    add_tensor(&g, "axes", ONNX_INT64, 1, 2, 0, axes, sizeof(axes));
    add_input(&g, "input_ids", ONNX_INT64, "batch_size sequence_length");
    add_input(&g, "past_key_values.0.key", ONNX_FLOAT,
              "batch_size 1 past_sequence_length 1");
    add_input(&g, "past_key_values.0.value", ONNX_FLOAT,
              "batch_size 1 past_sequence_length 1");
    add_output(&g, "logits", ONNX_FLOAT, "batch_size sequence_length 32");
    add_output(&g, "present.0.key", ONNX_FLOAT, "batch_size 1 total_sequence_length 1");
    add_output(&g, "present.0.value", ONNX_FLOAT, "batch_size 1 total_sequence_length 1");
    write_model(path, &g);
}

void fixture_genai(const char *dir, bool nan)
{
    char path[4200];

    must(dr_make_dirs(dir));
    (void)snprintf(path, sizeof(path), "%s/model.onnx", dir);
    write_genai_model(path, nan);
    write_tokenizer(dir);
    write_text(
        dir, "genai_config.json",
        "{\"model\":{\"type\":\"llama\",\"vocab_size\":32,\"context_length\":64,"
        "\"bos_token_id\":28,\"eos_token_id\":28,\"pad_token_id\":28,\"decoder\":{"
        "\"session_options\":{\"provider_options\":[]},"
        "\"filename\":\"model.onnx\",\"head_size\":1,\"hidden_size\":32,"
        "\"num_attention_heads\":1,\"num_hidden_layers\":1,\"num_key_value_heads\":1,"
        "\"inputs\":{\"input_ids\":\"input_ids\","
        "\"past_key_names\":\"past_key_values.%d.key\","
        "\"past_value_names\":\"past_key_values.%d.value\"},"
        "\"outputs\":{\"logits\":\"logits\",\"present_key_names\":\"present.%d.key\","
        "\"present_value_names\":\"present.%d.value\"}}},"
        "\"search\":{\"max_length\":24,\"do_sample\":false,"
        "\"past_present_share_buffer\":false}}\n");
}

void fixture_genai_adapter(const char *path, int token)
{
    float a[FIXTURE_VOCAB], b[FIXTURE_VOCAB] = {0};

    for (int i = 0; i < FIXTURE_VOCAB; i++)
        a[i] = 1;
    b[token] = 100;
    const fixture_param params[] = {{"lora_A", {FIXTURE_VOCAB, 1}, a},
                                    {"lora_B", {1, FIXTURE_VOCAB}, b}};
    fixture_adapter(path, params, 2);
}

void fixture_wrong_adapter(const char *path)
{
    const float x[] = {1, 2};
    const fixture_param param = {"no.such.input", {1, 2}, x};

    fixture_adapter(path, &param, 1);
}

/* ---- what is here ---- */

static bool has(bool genai)
{
    dr_arena a = {0};
    ort_info info = {0};

    ort_probe(&a, &info);
    bool found = genai ? info.genai_found : info.ort_found;
    if (!found)
        (void)printf("%s\n", info.why != NULL ? info.why : "no reason given");
    dr_arena_release(&a);
    return found;
}

bool fixture_has_ort(void)
{
    return has(false);
}

bool fixture_has_genai(void)
{
    return has(true);
}
