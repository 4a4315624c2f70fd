/*
 * random_phi3.c - a checkpoint of Phi-3.5-mini's exact shape with random weights, for what
 * only size shows: time and memory of an export.
 *
 *     random_phi3 OUT [LAYERS HIDDEN INTERMEDIATE HEADS VOCAB]
 *
 * bf16, normal with deviation 0.02, in shards of at most 4 GiB with an index; longrope, a
 * head of its own; no tokenizer.  The same arguments give the same bytes.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "core/rng.h"

enum { LIST_MAX = 8192, CHUNK = 1 << 20, TABLE = 1 << 16 };

typedef struct {
    const char *name;
    size_t rows, cols; /* rows 0: a vector of ones */
    int shard;
} tensor;

typedef struct {
    dr_arena arena;
    tensor list[LIST_MAX];
    size_t count;
    int shards;
    uint64_t shard_bytes; /* of the last one */
    uint16_t normal[TABLE];
} checkpoint;

static uint64_t bytes_of(const tensor *t)
{
    return 2 * (uint64_t)(t->rows > 0 ? t->rows : 1) * t->cols;
}

static void add(checkpoint *c, const char *name, size_t rows, size_t cols)
{
    tensor *t = &c->list[c->count++];

    DR_BUG_IF(c->count > LIST_MAX);
    *t = (tensor){.name = name, .rows = rows, .cols = cols};
    if (c->shards == 0 || c->shard_bytes + bytes_of(t) > (uint64_t)4 << 30) {
        c->shards++;
        c->shard_bytes = 0;
    }
    t->shard = c->shards;
    c->shard_bytes += bytes_of(t);
}

static void list_tensors(checkpoint *c, size_t layers, size_t d, size_t inner, size_t vocab)
{
    add(c, "model.embed_tokens.weight", vocab, d);
    for (size_t i = 0; i < layers; i++) {
        const char *at = dr_arena_printf(&c->arena, "model.layers.%zu", i);
        add(c, dr_arena_printf(&c->arena, "%s.self_attn.qkv_proj.weight", at), 3 * d, d);
        add(c, dr_arena_printf(&c->arena, "%s.self_attn.o_proj.weight", at), d, d);
        add(c, dr_arena_printf(&c->arena, "%s.mlp.gate_up_proj.weight", at), 2 * inner, d);
        add(c, dr_arena_printf(&c->arena, "%s.mlp.down_proj.weight", at), d, inner);
        add(c, dr_arena_printf(&c->arena, "%s.input_layernorm.weight", at), 0, d);
        add(c, dr_arena_printf(&c->arena, "%s.post_attention_layernorm.weight", at), 0, d);
    }
    add(c, "model.norm.weight", 0, d);
    add(c, "lm_head.weight", vocab, d);
}

/* Quantiles of the normal distribution by bisection: a table lookup a number. */
static void fill_table(uint16_t *table)
{
    for (int i = 0; i < TABLE; i++) {
        double p = (i + 0.5) / TABLE, lo = -6, hi = 6;
        for (int k = 0; k < 40; k++) {
            double mid = (lo + hi) / 2;
            if (0.5 * erfc(-mid / sqrt(2.0)) < p)
                lo = mid;
            else
                hi = mid;
        }
        table[i] = dr_f32_to_bf16((float)(0.02 * lo));
    }
}

static dr_status write_data(dr_writer *w, const checkpoint *c, size_t index, uint16_t *buf)
{
    const tensor *t = &c->list[index];
    size_t left = bytes_of(t) / 2;
    uint32_t word[4];
    dr_status st = DR_OK;

    for (uint64_t block = 0; left > 0;) {
        size_t n = left < CHUNK ? left : CHUNK;
        for (size_t i = 0; t->rows > 0 && i < n; i += 8) {
            dr_philox(word, 1, index, block++);
            for (size_t j = 0; j < 8 && i + j < n; j++)
                buf[i + j] = c->normal[word[j / 2] >> (j % 2 * 16) & 0xffff];
        }
        for (size_t i = 0; t->rows == 0 && i < n; i++)
            buf[i] = dr_f32_to_bf16(1.0f);
        DR_TRY(dr_writer_add(w, buf, 2 * n));
        left -= n;
    }
done:
    return st;
}

static dr_status write_shard(checkpoint *c, const char *dir, int shard)
{
    const char *file = dr_arena_printf(&c->arena, "%s/model-%05d-of-%05d.safetensors", dir,
                                       shard, c->shards);
    uint16_t *buf = dr_calloc(CHUNK, sizeof(*buf));
    json_t *header = json_object();
    uint64_t at = 0;
    char *text = NULL;
    dr_writer w = {0};
    dr_status st = DR_OK;

    for (size_t i = 0; i < c->count; i++) {
        const tensor *t = &c->list[i];
        if (t->shard != shard)
            continue;
        json_t *shape = t->rows > 0
                            ? json_pack("[II]", (json_int_t)t->rows, (json_int_t)t->cols)
                            : json_pack("[I]", (json_int_t)t->cols);
        json_t *row =
            json_pack("{s:s,s:o,s:[II]}", "dtype", "BF16", "shape", shape, "data_offsets",
                      (json_int_t)at, (json_int_t)(at + bytes_of(t)));
        (void)json_object_set_new(header, t->name, row);
        at += bytes_of(t);
    }
    text = json_dumps(header, JSON_COMPACT | JSON_PRESERVE_ORDER);
    uint64_t len = (strlen(text) + 7) / 8 * 8;
    DR_TRY(dr_writer_open(&w, file));
    DR_TRY(dr_writer_add(&w, &len, sizeof(len)));
    DR_TRY(dr_writer_add(&w, text, strlen(text)));
    DR_TRY(dr_writer_add(&w, "        ", len - strlen(text)));
    for (size_t i = 0; i < c->count; i++) {
        if (c->list[i].shard == shard)
            DR_TRY(write_data(&w, c, i, buf));
    }
    DR_TRY(dr_writer_finish(&w));
done:
    dr_writer_close(&w);
    json_decref(header);
    free(text);
    free(buf);
    return st;
}

static json_t *factors(size_t n, double last)
{
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++)
        (void)json_array_append_new(list, json_real(pow(last, (double)i / (double)n)));
    return list;
}

static dr_status write_json(checkpoint *c, const char *dir, const size_t size[5])
{
    size_t half = size[1] / size[3] / 2;
    json_t *map = json_object(), *index = NULL;
    json_t *config = json_pack(
        "{s:[s],s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:s,s:b,s:s,s:i,s:i,s:i,"
        "s:{s:s,s:o,s:o}}",
        "architectures", "Phi3ForCausalLM", "model_type", "phi3", "num_hidden_layers",
        (json_int_t)size[0], "hidden_size", (json_int_t)size[1], "intermediate_size",
        (json_int_t)size[2], "num_attention_heads", (json_int_t)size[3],
        "num_key_value_heads", (json_int_t)size[3], "vocab_size", (json_int_t)size[4],
        "max_position_embeddings", (json_int_t)131072, "original_max_position_embeddings",
        (json_int_t)4096, "sliding_window", (json_int_t)262144, "rms_norm_eps", 1e-5,
        "rope_theta", 10000.0, "hidden_act", "silu", "tie_word_embeddings", 0,
        "torch_dtype", "bfloat16", "bos_token_id", 1, "eos_token_id", 2, "pad_token_id", 0,
        "rope_scaling", "type", "longrope", "short_factor", factors(half, 3.0),
        "long_factor", factors(half, 64.0));
    dr_status st = DR_OK;

    for (size_t i = 0; i < c->count; i++) {
        const char *file = dr_arena_printf(&c->arena, "model-%05d-of-%05d.safetensors",
                                           c->list[i].shard, c->shards);
        (void)json_object_set_new(map, c->list[i].name, json_string(file));
    }
    index = json_pack("{s:{},s:O}", "metadata", "weight_map", map);
    DR_BUG_IF(config == NULL || index == NULL);
    DR_TRY(dr_json_write(dr_path_join(&c->arena, dir, "config.json"), config));
    DR_TRY(
        dr_json_write(dr_path_join(&c->arena, dir, "model.safetensors.index.json"), index));
done:
    json_decref(config);
    json_decref(index);
    json_decref(map);
    return st;
}

static dr_status run(checkpoint *c, const char *dir, const size_t size[5])
{
    dr_status st = DR_OK;

    fill_table(c->normal);
    list_tensors(c, size[0], size[1], size[2], size[4]);
    DR_TRY(dr_make_dirs(dir));
    DR_TRY(write_json(c, dir, size));
    for (int i = 1; i <= c->shards; i++)
        DR_TRY(write_shard(c, dir, i));
done:
    return st;
}

int main(int argc, char **argv)
{
    size_t size[5] = {32, 3072, 8192, 32, 32064};
    checkpoint *c = dr_calloc(1, sizeof(*c));

    if (argc != 2 && argc != 7) {
        (void)fprintf(stderr,
                      "usage: random_phi3 OUT [LAYERS HIDDEN INTERMEDIATE HEADS VOCAB]\n");
        return 2;
    }
    for (int i = 2; i < argc; i++)
        size[i - 2] = strtoul(argv[i], NULL, 10);
    dr_status st = run(c, argv[1], size);
    const dr_trail *t = dr_trail_get();
    for (int i = 0; st != DR_OK && i < t->count; i++)
        (void)fprintf(stderr, "%s\n", t->frames[i].text);
    dr_arena_release(&c->arena);
    free(c);
    return st == DR_OK ? 0 : 1;
}
