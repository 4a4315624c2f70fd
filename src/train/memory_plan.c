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

/* Logits of a chunk, its hidden states, and a piece of the head. */
static size_t head_bytes(const hf_config *c, size_t seq)
{
    size_t v = (size_t)c->vocab, d = (size_t)c->hidden, rows = NN_HEAD_LOGITS / v;

    rows = rows < 16 ? 16 : rows > NN_HEAD_ROWS ? NN_HEAD_ROWS : rows;
    rows = rows < seq ? rows : seq;
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

void train_memory_plan(train_memory *p, const hf_config *c, const train_state *s,
                       size_t seq, size_t budget, bool best, bool integers)
{
    size_t layers = (size_t)c->layers, row = seq * (size_t)c->hidden * sizeof(float);
    size_t one = nn_acts_bytes(c, 1, seq, s->max_kept);
    size_t head = head_bytes(c, seq);

    p->least = (best ? 20 : 16) * s->count + (s->start != NULL ? 4 * s->count : 0) +
               layer_bytes(c, seq) + one + train_delta_floats(s, c) * sizeof(float) +
               (layers + 2) * row + head + OTHER_BYTES;
    size_t left = budget > p->least ? budget - p->least : 0;
    p->kept = left / one < layers ? left / one : layers;
    left -= p->kept * one;
    p->weights = left;
    p->bytes = p->least + p->kept * one;
    size_t outer = (size_t)c->vocab * (size_t)c->hidden * sizeof(float);
    size_t all = layers * layer_bytes(c, 0) + outer;
    if (integers) {
        outer = nn_i8_packed_bytes((size_t)c->vocab, (size_t)c->hidden) +
                nn_i8_packed_bytes((size_t)c->hidden, (size_t)c->vocab);
        all = layers * nn_layer_packed_bytes(c) + outer;
    }
    p->bytes += all <= left ? all : outer <= left ? outer : 0;
}
