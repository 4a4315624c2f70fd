/*
 * head_test.c - the head of a model whose vocabulary comes in several pieces and whose rows
 * come in several chunks: kept or streamed, the same bytes; near to ref.
 *
 * The model has one small layer and 70,001 tokens; it is made here.
 */
#include "nn_check.h"

#include "core/arena.h"

enum { V = 70001, D = 64, HEADS = 2, I = 32, ROWS = 300 };

static void add(dr_tensor *t, size_t *n, const char *name, int64_t rows, int64_t cols,
                const float *data)
{
    t[*n] = (dr_tensor){.name = name,
                        .dtype = DR_DTYPE_F32,
                        .ndim = cols > 0 ? 2 : 1,
                        .dims = {rows, cols},
                        .data = data};
    t[*n].bytes = (size_t)(rows * (cols > 0 ? cols : 1)) * sizeof(float);
    ++*n;
}

static bool make_model(dr_arena *arena, const char *dir)
{
    static const char config[] =
        "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\","
        " \"hidden_size\": 64, \"intermediate_size\": 32, \"num_hidden_layers\": 1,"
        " \"num_attention_heads\": 2, \"num_key_value_heads\": 2, \"head_dim\": 32,"
        " \"vocab_size\": 70001, \"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-5,"
        " \"rope_theta\": 10000.0, \"tie_word_embeddings\": true, \"hidden_act\": \"silu\","
        " \"torch_dtype\": \"float32\"}";
    float *embed = nn_random((size_t)V * D, 1, 0.3f), *w = nn_random(D * D, 2, 0.1f);
    float *norm = nn_random(D, 3, 1.0f);
    dr_tensor t[16];
    size_t n = 0;

    add(t, &n, "model.embed_tokens.weight", V, D, embed);
    add(t, &n, "model.norm.weight", D, 0, norm);
    add(t, &n, "model.layers.0.input_layernorm.weight", D, 0, norm);
    add(t, &n, "model.layers.0.post_attention_layernorm.weight", D, 0, norm);
    add(t, &n, "model.layers.0.self_attn.q_proj.weight", D, D, w);
    add(t, &n, "model.layers.0.self_attn.k_proj.weight", D, D, w);
    add(t, &n, "model.layers.0.self_attn.v_proj.weight", D, D, w);
    add(t, &n, "model.layers.0.self_attn.o_proj.weight", D, D, w);
    add(t, &n, "model.layers.0.mlp.gate_proj.weight", I, D, w);
    add(t, &n, "model.layers.0.mlp.up_proj.weight", I, D, w);
    add(t, &n, "model.layers.0.mlp.down_proj.weight", D, I, w);
    bool ok = CHECK_OK(dr_make_dirs(dir)) &&
              CHECK_OK(dr_write_file(dr_path_join(arena, dir, "config.json"), config,
                                     sizeof(config) - 1)) &&
              CHECK_OK(hf_st_write(dr_path_join(arena, dir, "model.safetensors"), t, n));
    free(embed);
    free(w);
    free(norm);
    return ok;
}

typedef struct {
    double loss;
    size_t counted;
    float *dx, *logits; /* [ROWS][D]; [2][V] */
} outcome;

static void run(outcome *o, nn_device *dev, const hf_model *m, size_t keep, const float *x,
                const int32_t *targets)
{
    nn_decoder *d = NULL;

    *o = (outcome){.dx = dr_calloc(ROWS * D, sizeof(float)),
                   .logits = dr_calloc(2 * (size_t)V, sizeof(float))};
    CHECK_OK(nn_decoder_open(&d, dev, m, keep));
    CHECK_OK(nn_head_loss(d, x, targets, ROWS, &o->loss, &o->counted, o->dx, 0.125f, 0));
    CHECK_OK(nn_head_logits(d, o->logits, x, 2));
    nn_decoder_close(d);
}

static void release(outcome *o)
{
    free(o->dx);
    free(o->logits);
}

static void test_pieces(const nn_devices *devs, const hf_model *m)
{
    float *x = nn_random(ROWS * D, 9, 1.0f);
    int32_t targets[ROWS];
    outcome kept, streamed, three, ref;

    for (int i = 0; i < ROWS; i++) /* most rows have no target: ref is slow */
        targets[i] = i % 10 == 3 ? (i * 7919) % V : -100;
    targets[ROWS - 1] = V - 1;
    run(&kept, devs->dev[0][1], m, SIZE_MAX, x, targets);
    run(&streamed, devs->dev[0][0], m, 0, x, targets);
    run(&three, devs->dev[0][2], m, 0, x, targets);
    run(&ref, devs->ref, m, 0, x, targets);
    CHECK_EQ_INT(kept.counted, ROWS / 10 + 1);
    CHECK_NEAR(kept.loss / ref.loss, 1.0, 1e-6);
    CHECK_NEAR(nn_far(kept.dx, ref.dx, ROWS * D), 0.0, 1e-5);
    CHECK_NEAR(nn_far(kept.logits, ref.logits, 2 * (size_t)V), 0.0, 2e-6);
    CHECK(kept.loss == streamed.loss && kept.loss == three.loss);
    CHECK_MEM(kept.dx, streamed.dx, ROWS * D * sizeof(float));
    CHECK_MEM(kept.dx, three.dx, ROWS * D * sizeof(float));
    CHECK_MEM(kept.logits, streamed.logits, 2 * (size_t)V * sizeof(float));
    release(&kept);
    release(&streamed);
    release(&three);
    release(&ref);
    free(x);
}

/* All rows have targets: more than one chunk; the loss is the sum of its parts. */
static void test_chunks(nn_device *dev, const hf_model *m)
{
    float *x = nn_random(ROWS * D, 9, 1.0f);
    int32_t targets[ROWS];
    nn_decoder *d = NULL;
    double all = 0.0, parts = 0.0;
    size_t counted = 0, n = 0;

    for (int i = 0; i < ROWS; i++)
        targets[i] = (i * 7919) % V;
    CHECK_OK(nn_decoder_open(&d, dev, m, SIZE_MAX));
    CHECK_OK(nn_head_loss(d, x, targets, ROWS, &all, &counted, NULL, 0.0f, 0));
    CHECK_EQ_INT(counted, ROWS);
    for (size_t i = 0; i < ROWS; i += 100)
        CHECK_OK(nn_head_loss(d, x + i * D, targets + i, 100, &parts, &n, NULL, 0.0f, 0));
    CHECK_NEAR(parts / all, 1.0, 1e-12);
    CHECK_OK(nn_head_loss(d, x, targets, 0, &parts, &n, NULL, 0.0f, 0));
    CHECK_EQ_INT(n, ROWS);
    nn_decoder_close(d);
    free(x);
}

int main(void)
{
    nn_devices devs;
    hf_model *m = NULL;
    dr_arena arena = {0};
    char *dir = dr_path_join(&arena, check_tmp(), "wide");

    nn_devices_open(&devs);
    if (make_model(&arena, dir) && CHECK_OK(hf_model_open(&m, dir))) {
        test_pieces(&devs, m);
        test_chunks(devs.dev[0][1], m);
    }
    hf_model_close(m);
    nn_devices_close(&devs);
    dr_arena_release(&arena);
    return check_done();
}
