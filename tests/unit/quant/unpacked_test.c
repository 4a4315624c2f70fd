/*
 * unpacked_test.c - a packed model in a device's own memory: whatever is said of how many
 * layers are unpacked at a time, each layer is what the file's codes stand for, and those
 * last used are still there.
 */
#include "../hf/make_model.h"
#include "nn/nn.h"
#include "quant/quant.h"

enum { LAYERS = 5 };

static const char config[] =
    "{\"model_type\": \"llama\", \"architectures\": [\"LlamaForCausalLM\"], "
    "\"hidden_size\": 32, \"intermediate_size\": 64, \"num_attention_heads\": 2, "
    "\"num_hidden_layers\": 5, \"vocab_size\": 48, \"rms_norm_eps\": 1e-5, "
    "\"tie_word_embeddings\": true, \"torch_dtype\": \"float32\"}";

/* Up and down as training goes, then here and there. */
static const int walk[] = {0, 1, 2, 3, 4, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4, 2, 0, 4, 0, 3};

static void check_layer(nn_device *dev, const hf_model *m, const nn_layer *w, int layer)
{
    const hf_linear *l = NULL;
    size_t n = hf_layer_linears(m, layer, &l);

    for (size_t i = 0; i < n; i++) {
        size_t count = l[i].n_out * l[i].n_in;
        float *want = calloc(count, sizeof(float)), *found = calloc(count, sizeof(float));
        CHECK_OK(hf_linear_read(m, &l[i], want, 0, l[i].n_out));
        CHECK_OK(nn_copy(dev, found, w->w[l[i].slot] + l[i].row0 * l[i].n_in,
                         count * sizeof(float)));
        CHECK_MEM(found, want, count * sizeof(float));
        free(want);
        free(found);
    }
}

static void test_walk(nn_device *dev, const hf_model *m, size_t held)
{
    const nn_layer *w[LAYERS] = {NULL};
    nn_decoder *d = NULL;

    CHECK_OK(nn_decoder_open_there(&d, dev, m, nn_decoder_there_bytes(dev, m)));
    nn_decoder_unpacked(d, held);
    for (size_t i = 0; i < DR_COUNT(walk); i++) {
        bool seen[LAYERS] = {false};
        size_t distinct = 0;
        if (!CHECK_OK(nn_decoder_layer(d, walk[i], &w[walk[i]])))
            break;
        for (size_t back = 0; back <= i && distinct < held; back++) {
            int layer = walk[i - back];
            if (seen[layer])
                continue;
            seen[layer] = true;
            distinct++;
            check_layer(dev, m, w[layer], layer);
        }
    }
    nn_decoder_close(d);
}

int main(void)
{
    static const char *const kinds[] = {"cpu:apart", "cuda"};
    static const size_t held[] = {1, 2, 3, NN_UNPACKED_MOST};
    const quant_grid grid = {4, 16, false};
    const hf_quant layout = {HF_QUANT_GPTQ, 4, 16, false};
    dr_arena a = {0};
    const char *packed = tmp_dir(&a, "packed");
    hf_model *m = NULL, *q = NULL;
    hf_writer *w = NULL;
    nn_device *dev = NULL;

    CHECK_OK(nn_device_open(&dev, "cpu", 1));
    CHECK_OK(hf_model_open(&m, make_model(&a, "plain", config, DR_DTYPE_F32)));
    CHECK_OK(hf_writer_open(&w, packed, m, &layout));
    const quant_site site = {.dev = dev, .in = m, .out = w};
    CHECK_OK(quant_rtn(&site, &grid));
    CHECK_OK(hf_writer_finish(w));
    hf_writer_close(w);
    CHECK_OK(hf_model_open(&q, packed));
    CHECK_EQ_INT(hf_model_config(q)->layers, LAYERS);
    nn_device_close(dev);
    for (size_t i = 0; i < DR_COUNT(kinds); i++) {
        if (nn_device_open(&dev, kinds[i], 1) != DR_OK) {
            dr_trail_clear();
            SKIP("gpu: none to use");
            break;
        }
        CHECK(nn_unpacked_bytes(dev, q) > 0);
        CHECK_EQ_INT(nn_unpacked_bytes(dev, m), 0);
        for (size_t k = 0; k < DR_COUNT(held); k++)
            test_walk(dev, q, held[k]);
        nn_device_close(dev);
    }
    hf_model_close(q);
    hf_model_close(m);
    dr_arena_release(&a);
    return check_done();
}
