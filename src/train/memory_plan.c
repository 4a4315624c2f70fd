/*
 * memory_plan.c - what a training keeps in memory, so that it fits.
 *
 * First comes what it cannot do without: the adapter with gradients and moments, one
 * layer's weights and activations, the input of every layer, a chunk of logits.  What is
 * left keeps the activations of as many layers as fit, from the top (a layer whose
 * activations are not kept runs twice: up to a third more work), then the weights, as
 * floats or integers (else they are converted for every block).  The file of the model is
 * mapped, not counted: its pages are the system's to take back.  Nothing of this changes a
 * byte of the result.
 */
#include "core/log.h"
#include "train/train_impl.h"

enum { OTHER_BYTES = 8 << 20 }; /* the program, tokens, lists */

/* In a GPU's memory: CUDA itself and cuBLAS's workspace; copies of operands on their way
 * into products; the most rows that sequences at once may have. */
enum { RUNTIME_BYTES = 640 << 20, STAGING_BYTES = 64 << 20, ROWS_AT_ONCE = 16384 };

/* Logits of a chunk, its hidden states, and a piece of the head. */
static size_t head_bytes(const hf_config *c, size_t seq)
{
    size_t v = (size_t)c->vocab, d = (size_t)c->hidden, rows = nn_head_rows(v, seq, false);
    size_t piece = NN_HEAD_PIECE < v * d ? NN_HEAD_PIECE : v * d;

    return (rows * (v + 4 * d) + piece) * sizeof(float);
}

/* Floats of the widest layer, and its share of scratch for gradients. */
static size_t layer_bytes(const hf_config *c, size_t seq)
{
    size_t wide = 0;

    for (int s = 0; s < HF_SLOT_COUNT; s++)
        wide += hf_slot_in(c, (hf_slot)s) + hf_slot_out(c, (hf_slot)s);
    return (hf_layer_weights(c) + seq * wide) * sizeof(float);
}

/* What integers take whatever there is: the head both ways, its floats as they are turned,
 * and room to turn the widest slot of a layer. */
static size_t integer_bytes(const hf_config *c)
{
    size_t v = (size_t)c->vocab, d = (size_t)c->hidden, widest = 0;

    for (hf_slot s = 0; s < HF_SLOT_COUNT; s++) {
        size_t count = hf_slot_out(c, s) * hf_slot_in(c, s);
        widest = count > widest ? count : widest;
    }
    return nn_i8_packed_bytes(v, d) + nn_i8_packed_bytes(d, v) +
           (2 * v * d + widest) * sizeof(float);
}

void train_memory_plan(train_memory *p, const hf_config *c, const train_state *s,
                       size_t seq, size_t budget, bool best, bool integers)
{
    size_t layers = (size_t)c->layers, row = seq * (size_t)c->hidden * sizeof(float);
    size_t one = nn_acts_bytes(c, 1, seq, s->max_kept);
    size_t head = head_bytes(c, seq);

    p->least = (best ? 20 : 16) * s->count + (s->start != NULL ? 4 * s->count : 0) +
               layer_bytes(c, seq) + one + train_delta_floats(s, c) * sizeof(float) +
               (layers + 2) * row + head + OTHER_BYTES + (integers ? integer_bytes(c) : 0);
    size_t left = budget > p->least ? budget - p->least : 0;
    p->kept = left / one < layers ? left / one : layers;
    left -= p->kept * one;
    p->weights = left;
    p->group = 1;
    p->bytes = p->least + p->kept * one;
    size_t outer = (size_t)c->vocab * (size_t)c->hidden * sizeof(float);
    size_t all = layers * (integers ? nn_layer_packed_bytes(c) : layer_bytes(c, 0)) + outer;
    p->bytes += all <= left ? all : outer <= left ? outer : 0;
}

/* ---- in a device's own memory ---- */

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* What the head needs for m rows, beside its weights. */
static size_t head_there(const train_there *t, size_t m)
{
    size_t v = (size_t)t->c->vocab, rows = nn_head_rows(v, m, nn_device_rounds(t->dev));

    /* logits, and once more on their way into a product */
    return rows * (v * 6 + (size_t)t->c->hidden * 20) + (size_t)NN_HEAD_PIECE * 4;
}

/* Activations of a layer for g sequences. */
static size_t layer_there(const train_there *t, size_t g)
{
    return nn_acts_rounded_bytes(t->dev, t->c, g, t->seq, t->s->max_kept);
}

/* All but the weights and the activations of kept layers. */
static size_t fixed_there(const train_there *t, size_t g, bool all_kept)
{
    const hf_config *c = t->c;
    size_t m = g * t->seq, row = m * (size_t)c->hidden, d = (size_t)c->hidden;
    size_t each = nn_device_rounds(t->dev) ? sizeof(uint16_t) : sizeof(float);
    size_t gu = hf_slot_out(c, HF_SLOT_GATE_UP), qkv = hf_slot_out(c, HF_SLOT_QKV);
    size_t inner = larger((size_t)c->intermediate, hf_slot_in(c, HF_SLOT_O));
    size_t wide = larger(gu, qkv), lora = 2 * inner + 2 * t->s->max_kept;
    size_t params = t->s->count * (16 + (each == sizeof(uint16_t) ? each : 0) +
                                   (t->s->start != NULL ? sizeof(float) : 0));

    return params + m * (wide + inner + 3 * d + lora) * each + wide * 64 * each +
           2 * 4 * row + (all_kept ? 0 : layer_there(t, g) + (size_t)c->layers * 4 * row) +
           head_there(t, m) + 2 * row + STAGING_BYTES + RUNTIME_BYTES;
}

/* Layers unpacked at a time, one of them in the weights already. */
static size_t unpacked_there(const train_there *t, size_t left)
{
    size_t more = t->unpacked > 0 ? left / t->unpacked : 0;

    return more < NN_UNPACKED_MOST ? more + 1 : NN_UNPACKED_MOST;
}

/*
 * Weights come first: one that is not kept is read again for every group.  Then the largest
 * group of which all layers are kept, with what is left for packed weights unpacked; then
 * layers of one sequence.
 */
void train_memory_plan_there(train_memory *p, const train_there *t)
{
    size_t layers = (size_t)t->c->layers, left = 0, one = layer_there(t, 1);
    size_t most = nn_device_rounds(t->dev) ? larger(ROWS_AT_ONCE / t->seq, 1) : 1;
    size_t layer = hf_layer_weights(t->c) * sizeof(float);

    *p = (train_memory){.least = fixed_there(t, 1, false) + layer,
                        .group = 1,
                        .unpacked = 1};
    for (size_t g = most < t->batch ? most : t->batch; g > 0; g--) {
        size_t bytes = fixed_there(t, g, true) + t->weights + layers * layer_there(t, g);
        if (bytes > t->budget)
            continue;
        p->group = g;
        p->kept = layers;
        p->weights = t->weights;
        p->unpacked = unpacked_there(t, t->budget - bytes);
        p->bytes = bytes + (p->unpacked - 1) * t->unpacked;
        return;
    }
    p->bytes = fixed_there(t, 1, false);
    left = t->budget > p->bytes ? t->budget - p->bytes : 0;
    p->weights = t->weights <= left ? t->weights : 0;
    p->bytes += p->weights > 0 ? p->weights : layer;
    left = t->budget > p->bytes ? t->budget - p->bytes : 0;
    p->kept = left / one < layers ? left / one : layers;
    p->bytes += p->kept * one;
}
