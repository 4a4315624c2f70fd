/*
 * order.c - the order in which the Hugging Face Trainer sees its blocks: torch.randperm on
 * the CPU, which swaps forward with draws of MT19937 (Matsumoto and Nishimura 1998).
 */
#include "core/mem.h"
#include "train/train_impl.h"

enum { MT_N = 624, MT_M = 397 };

typedef struct {
    uint32_t state[MT_N];
    int at;
} mt19937;

static void mt_seed(mt19937 *g, uint32_t seed)
{
    g->state[0] = seed;
    for (uint32_t i = 1; i < MT_N; i++) {
        uint32_t p = g->state[i - 1];
        g->state[i] = 1812433253u * (p ^ p >> 30) + i;
    }
    g->at = MT_N;
}

static void mt_refill(mt19937 *g)
{
    for (int i = 0; i < MT_N; i++) {
        uint32_t y = (g->state[i] & 0x80000000u) | (g->state[(i + 1) % MT_N] & 0x7fffffffu);
        g->state[i] = g->state[(i + MT_M) % MT_N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
    g->at = 0;
}

static uint32_t mt_next(mt19937 *g)
{
    if (g->at == MT_N)
        mt_refill(g);
    uint32_t y = g->state[g->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

void train_order(size_t *order, size_t n, uint64_t seed, size_t epoch, bool shuffle)
{
    mt19937 g;

    for (size_t i = 0; i < n; i++)
        order[i] = i;
    if (!shuffle)
        return;
    mt_seed(&g, (uint32_t)(seed + epoch));
    for (size_t i = 0; i + 1 < n; i++) {
        size_t j = i + mt_next(&g) % (n - i), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}

/* ---- an epoch, cut into steps ---- */

void train_sampler_open(train_sampler *s, const train_blocks *b, const train_options *o,
                        size_t ranks)
{
    *s = (train_sampler){.order = dr_calloc(b->count, sizeof(size_t)), .epoch = SIZE_MAX};
    s->batch = o->batch * ranks;
    s->batches = (b->count + s->batch - 1) / s->batch;
    s->groups = (s->batches + o->accumulation - 1) / o->accumulation;
}

void train_sampler_step(train_sampler *s, size_t k, const train_blocks *b,
                        const train_options *o, size_t *first, size_t *end)
{
    size_t epoch = k / s->groups, group = k % s->groups;

    if (epoch != s->epoch) {
        train_order(s->order, b->count, o->seed, epoch, o->shuffle);
        s->epoch = epoch;
    }
    *first = group * o->accumulation;
    *end = *first + o->accumulation < s->batches ? *first + o->accumulation : s->batches;
}

/* As accelerate shares batches out (BatchSamplerShard): of so many in a row, each rank has
 * the next.  Its ranks repeat blocks until all have whole batches; here the last ranks have
 * less, and every block counts once, as in one process. */
void train_sampler_share(const train_sampler *s, size_t mb, const train_blocks *b,
                         size_t rank, size_t ranks, size_t *from, size_t *to)
{
    size_t each = s->batch / ranks;

    *from = mb * s->batch + rank * each;
    *to = *from + each;
    *from = *from < b->count ? *from : b->count;
    *to = *to < b->count ? *to : b->count;
}
