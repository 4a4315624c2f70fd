/*
 * train_lora.c - the training loop.
 *
 * A step is `accumulation` micro-batches of `batch` blocks, as the Hugging Face Trainer
 * cuts them: the last batch of an epoch may be smaller, the last group of an epoch too. 
 * The loss of a micro-batch is the mean over its targets, that of a step the mean over
 * its micro-batches (Olive sets accepts_loss_kwargs = False).  Inside, sequences are run
 * one after another, so that memory is that of one sequence whatever the batch; on a device
 * whose products round, so many at once as its memory has room for (t->group): a product of
 * many rows takes less time a row.
 *
 *   forward   x0 = embed; for each layer: keep what the backward needs; loss, dx at the top
 *   backward  layers from the top down to the lowest that trains
 *
 * Of several ranks (core/ranks.h) each runs its share of a micro-batch, which has a batch
 * of each: the mean is over the targets of all, gradients and losses are added once a step,
 * and all make the same update.  So a step is what one process with a batch so many times
 * as large would make it, but for the order of sums.
 *
 * What the backward needs is kept of as many layers as memory has room for; of the others
 * only the input is kept and the layer is run again.  Both give the same bytes.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "train/train_impl.h"

static void trainer_release(trainer *t)
{
    for (size_t i = 0; i < t->acts_count; i++)
        nn_acts_free(&t->acts[i], t->mem);
    free(t->acts);
    nn_mem_free(t->mem, t->inputs);
    nn_mem_free(t->mem, t->x);
    nn_mem_free(t->mem, t->dx);
    free(t->targets);
    free(t->ids);
    free(t->starts);
    free(t->stale);
    dr_big_free(t->delta.block);
    free(t->sampler.order);
    dr_big_free(t->best);
    free(t->best_losses);
    free(t->last_losses);
    json_decref(t->identity);
    train_state_release(&t->state);
    nn_decoder_close(t->dec);
    nn_decoder_close(t->teacher);
    nn_mem_free(t->mem, t->taught);
}

/* Half of the machine's memory. */
static size_t default_keep(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);

    return pages > 0 && page > 0 ? (size_t)pages * (size_t)page / 2 : (size_t)2 << 30;
}

static dr_status floats(float **out, nn_device *mem, size_t a, size_t b, const char *what)
{
    return nn_mem_new(mem, out, a * b, NN_MEM_FLOAT, what);
}

/* DoRA's norms of all layers, and the magnitudes of a fresh adapter. */
static dr_status begin_norms(trainer *t)
{
    const nn_layer *w = NULL;
    dr_status st = DR_OK;

    t->stale = dr_calloc((size_t)t->layers, sizeof(*t->stale));
    for (int layer = 0; layer < t->layers && t->state.adapter.dora; layer++) {
        DR_TRY(nn_decoder_layer(t->dec, layer, &w));
        DR_TRY(train_state_norms(&t->state, t->dec, w, t->o->from_adapter == NULL));
    }
done:
    return st;
}

bool train_takes_integers(const hf_adapter *a, bool there)
{
    return !there && !a->dora && a->kind == HF_ADAPTER_LORA;
}

static dr_status check_integers(const hf_adapter *a, bool there)
{
    static const char *const kinds[] = {"LoRA", "LoHa", "LoKr"};
    dr_status st = DR_OK;

    if (train_takes_integers(a, there))
        return DR_OK;
    if (there) {
        st = dr_fail(DR_EUSAGE, "torch_dtype int8 is for the cpu");
        dr_hint("on a GPU the nearest is --torch_dtype bfloat16");
    } else {
        st = dr_fail(DR_EUSAGE, "torch_dtype int8: %s needs the base's weights as floats",
                     a->dora ? "DoRA" : kinds[a->kind]);
        dr_hint("lora, rslora, qlora, loftq and pissa train with it");
    }
    return st;
}

/* May all of it be in dev's own memory?  DoRA, LoHa and LoKr have steps of the host's. */
static bool trains_there(const trainer *t, nn_device *dev)
{
    return nn_mem_apart(dev) && t->o->teacher == NULL && !t->state.adapter.dora &&
           t->state.adapter.kind == HF_ADAPTER_LORA;
}

static dr_status too_little(const train_memory *plan, size_t budget)
{
    return dr_fail(DR_ENOMEM,
                   "memory: %zu MB are needed, %zu MB were given; a shorter "
                   "max_seq_len or a smaller rank needs less",
                   plan->least / 1000000 + 1, budget / 1000000);
}

static dr_status plan_there(trainer *t, train_memory *plan, nn_device *dev,
                            const hf_model *base)
{
    size_t room = nn_mem_room(dev) / 10 * 9, asked = t->o->strict ? t->o->keep_bytes : 0;
    const train_there ask = {.dev = dev,
                             .c = hf_model_config(base),
                             .s = &t->state,
                             .seq = t->blocks->seq_len,
                             .batch = t->o->batch,
                             .weights = nn_decoder_there_bytes(dev, base),
                             .unpacked =
                                 t->o->base_grid != NULL ? 0 : nn_unpacked_bytes(dev, base),
                             .budget = asked > 0 && asked < room ? asked : room};

    train_memory_plan_there(plan, &ask);
    return plan->least > ask.budget ? too_little(plan, ask.budget) : DR_OK;
}

static dr_status plan_here(trainer *t, train_memory *plan, const hf_config *c, bool best)
{
    size_t keep = t->o->keep_bytes > 0 ? t->o->keep_bytes : default_keep();

    keep /= t->o->strict ? 1 : dr_ranks_local_count(t->ranks);
    train_memory_plan(plan, c, &t->state, t->blocks->seq_len, keep, best, t->o->integers);
    return t->o->strict && plan->least > keep ? too_little(plan, keep) : DR_OK;
}

/* Activations and what else is as long as a group of sequences. */
static dr_status make_room(trainer *t, const train_memory *plan, const hf_config *c)
{
    size_t seq = t->blocks->seq_len, rows = plan->group * seq;
    dr_status st = DR_OK;

    t->group = plan->group;
    t->kept = plan->kept;
    t->acts_count = plan->kept + (plan->kept < (size_t)c->layers);
    t->acts = dr_calloc(t->acts_count, sizeof(*t->acts));
    for (size_t i = 0; i < t->acts_count; i++)
        DR_TRY(nn_acts_new_rounded(&t->acts[i], t->mem, c, plan->group, seq,
                                   t->state.max_kept));
    DR_TRY(floats(&t->inputs, t->mem, rows * ((size_t)c->layers - plan->kept), t->hidden,
                  "inputs of layers"));
    DR_TRY(floats(&t->x, t->mem, rows, t->hidden, "residual stream"));
    DR_TRY(floats(&t->dx, t->mem, rows, t->hidden, "its gradient"));
    t->targets = dr_calloc(rows, sizeof(*t->targets));
    t->ids = dr_calloc(rows, sizeof(*t->ids));
    t->starts = dr_calloc(rows, sizeof(*t->starts));
done:
    return st;
}

static dr_status trainer_open(trainer *t, nn_device *dev, const hf_model *base,
                              const train_blocks *blocks, const train_options *o)
{
    const hf_config *c = hf_model_config(base);
    bool best = o->eval != NULL && o->load_best;
    train_memory plan;
    dr_status st = DR_OK;

    *t = (trainer){.blocks = blocks,
                   .o = o,
                   .layers = c->layers,
                   .hidden = (size_t)c->hidden,
                   .ranks = nn_device_ranks(dev)};
    DR_TRY(train_state_open(&t->state, base, o, nn_device_pool(dev)));
    if (o->integers)
        DR_TRY(check_integers(&t->state.adapter, nn_mem_apart(dev)));
    if (trains_there(t, dev)) {
        t->mem = dev;
        DR_TRY(plan_there(t, &plan, dev, base));
        DR_TRY(train_state_place(&t->state, dev));
    } else {
        DR_TRY(plan_here(t, &plan, c, best));
    }
    DR_TRY(make_room(t, &plan, c));
    if (best)
        DR_TRY(floats(&t->best, NULL, t->state.count, 1, "the best adapter"));
    train_sampler_open(&t->sampler, blocks, o, dr_ranks_count(t->ranks));
    t->bytes = plan.bytes;
    if (t->mem != NULL) {
        DR_TRY(nn_decoder_open_there(&t->dec, dev, base, plan.weights));
        nn_decoder_unpacked(t->dec, plan.unpacked);
    } else {
        DR_TRY(nn_decoder_open(&t->dec, dev, base, plan.weights));
    }
    if (o->base_grid != NULL)
        nn_decoder_round(t->dec, o->base_grid);
    if (o->integers)
        nn_decoder_integers(t->dec);
    DR_TRY(begin_norms(t));
    DR_TRY(train_params_changed(t));
    DR_TRY(train_delta_open(&t->delta, &t->state, c));
    if (o->teacher != NULL) {
        DR_TRY(nn_decoder_open(&t->teacher, dev, o->teacher, plan.weights));
        DR_TRY(floats(&t->taught, t->mem, blocks->seq_len, t->hidden,
                      "the teacher's outputs"));
    }
    dr_log(DR_INFO,
           "%s; %zu parameters train; %zu sequences at once; activations of %zu of %d "
           "layers are kept; about %zu MB of memory",
           nn_device_describe(dev), t->state.count, plan.group, plan.kept, t->layers,
           plan.bytes / 1000000);
done:
    return st;
}

dr_status train_params_changed(trainer *t)
{
    for (int layer = 0; layer < t->layers; layer++)
        t->stale[layer] = t->state.adapter.dora;
    return train_state_round(&t->state);
}

/* Where a layer's activations go; *input: room for its input when they are not kept. */
static nn_acts *acts_of(const trainer *t, int layer, float **input)
{
    size_t below = (size_t)(t->layers - 1 - layer);

    *input = NULL;
    if (below < t->kept)
        return &t->acts[below];
    *input = t->inputs + (size_t)layer * t->group * t->blocks->seq_len * t->hidden;
    return &t->acts[t->kept];
}

size_t train_longest(const uint32_t *starts, size_t n)
{
    size_t longest = 0;

    for (size_t k = 0; starts != NULL && k < n; k++)
        longest = k + 1 - starts[k] > longest ? k + 1 - starts[k] : longest;
    return longest;
}

/* Tells the decoder where the texts of blocks of n tokens begin. */
static void set_documents(trainer *t, const train_blocks *b, const size_t *blocks,
                          size_t count, size_t n)
{
    size_t longest = 0;

    if (b->starts == NULL) {
        nn_decoder_documents(t->dec, NULL, 0);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t *to = t->starts + i * n;
        memcpy(to, b->starts + blocks[i] * b->seq_len, n * sizeof(*to));
        size_t most = train_longest(to, n);
        longest = most > longest ? most : longest;
    }
    nn_decoder_documents(t->dec, t->starts, longest);
}

/* The layer's weights, with the adapter in them where it is of that kind. */
static dr_status weights_of(trainer *t, int layer, bool adapter, const nn_layer **w,
                            nn_layer *own)
{
    nn_device *dev = nn_decoder_device(t->dec);
    dr_status st = DR_OK;

    DR_TRY(nn_decoder_layer(t->dec, layer, w));
    if (!adapter || t->state.deltas == NULL)
        return DR_OK;
    DR_TRY(
        train_delta_apply(own, dev, &t->delta, &t->state, *w, nn_decoder_config(t->dec)));
    *w = own;
done:
    return st;
}

dr_status train_forward(trainer *t, const train_blocks *b, const size_t *blocks,
                        size_t count, bool adapter)
{
    size_t n = b->lengths[blocks[0]];
    const nn_layer *w = NULL;
    nn_layer own;
    float *input = NULL;
    dr_status st = DR_OK;

    DR_BUG_IF(count > t->group);
    set_documents(t, b, blocks, count, n);
    for (size_t i = 0; i < count; i++)
        memcpy(t->ids + i * n, b->ids + blocks[i] * b->seq_len, n * sizeof(*t->ids));
    DR_TRY(nn_decoder_embed(t->dec, t->x, t->ids, count * n));
    for (int layer = 0; layer < t->layers; layer++) {
        nn_acts *acts = acts_of(t, layer, &input);
        if (input != NULL)
            DR_TRY(nn_copy(nn_decoder_device(t->dec), input, t->x,
                           count * n * t->hidden * sizeof(float)));
        DR_TRY(weights_of(t, layer, adapter, &w, &own));
        if (t->stale[layer])
            DR_TRY(train_state_norms(&t->state, t->dec, w, false));
        t->stale[layer] = false;
        DR_TRY(nn_layer_forward(t->dec, w, count, n, t->x, acts, t->state.layers[layer],
                                adapter ? t->state.layer_counts[layer] : 0));
    }
done:
    return st;
}

/* Of count blocks of n tokens. */
static dr_status backward(trainer *t, size_t count, size_t n)
{
    const nn_layer *w = NULL;
    nn_layer own;
    float *input = NULL;
    bool whole = t->state.deltas != NULL;
    dr_status st = DR_OK;

    for (int layer = t->layers - 1; layer >= t->state.lowest; layer--) {
        nn_acts *acts = acts_of(t, layer, &input);
        DR_TRY(weights_of(t, layer, true, &w, &own));
        if (input != NULL) {
            DR_TRY(nn_copy(nn_decoder_device(t->dec), t->x, input,
                           count * n * t->hidden * sizeof(float)));
            DR_TRY(nn_layer_forward(t->dec, w, count, n, t->x, acts, t->state.layers[layer],
                                    t->state.layer_counts[layer]));
        }
        DR_TRY(nn_layer_backward(t->dec, w, count, n, t->dx, acts, t->state.layers[layer],
                                 t->state.layer_counts[layer],
                                 whole || layer > t->state.lowest));
        if (whole)
            DR_TRY(
                train_delta_grads(nn_decoder_device(t->dec), &t->delta, &t->state, layer));
    }
done:
    return st;
}

void train_targets(int32_t *targets, const train_blocks *b, size_t i)
{
    const int32_t *ids = b->ids + i * b->seq_len;
    size_t n = b->lengths[i];

    const uint32_t *starts = b->starts != NULL ? b->starts + i * b->seq_len : NULL;
    const unsigned char *marks = b->marks != NULL ? b->marks + i * b->seq_len : NULL;

    for (size_t k = 0; k < n; k++) {
        bool label = k + 1 < n && k + 1 >= b->context && (marks == NULL || marks[k + 1]) &&
                     (starts == NULL || starts[k + 1] <= k);
        targets[k] = label ? ids[k + 1] : -100;
    }
}

/* The block's KL to the teacher, and its gradient. */
static dr_status teach(trainer *t, size_t block, float grad_scale, double *loss_sum,
                       size_t *counted)
{
    size_t n = t->blocks->lengths[block];
    double kl = 0;
    dr_status st = DR_OK;

    DR_TRY(nn_decoder_hidden(t->teacher, t->taught,
                             t->blocks->ids + block * t->blocks->seq_len, 1, n));
    DR_TRY(nn_head_kl(t->dec, t->x, t->teacher, t->taught, n, &kl, t->dx, grad_scale));
    *loss_sum += kl;
    *counted += n;
done:
    return st;
}

/* Blocks at once: gradients are added, their losses summed. */
static dr_status run_blocks(trainer *t, const size_t *blocks, size_t count,
                            float grad_scale, double *loss_sum, size_t *counted)
{
    size_t n = t->blocks->lengths[blocks[0]];
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++)
        train_targets(t->targets + i * n, t->blocks, blocks[i]);
    DR_TRY(train_forward(t, t->blocks, blocks, count, true));
    if (t->teacher != NULL)
        DR_TRY(teach(t, blocks[0], grad_scale, loss_sum, counted));
    else
        DR_TRY(nn_head_loss(t->dec, t->x, t->targets, count * n, loss_sum, counted, t->dx,
                            grad_scale, (float)t->o->label_smoothing));
    DR_TRY(backward(t, count, n));
done:
    return st;
}

/* How many of the blocks may be run at once: as long as the first, and no more than a
 * group. */
static size_t group_of(const trainer *t, const size_t *blocks, size_t left)
{
    const size_t *lengths = t->blocks->lengths;
    size_t n = 1;

    while (n < left && n < t->group && lengths[blocks[n]] == lengths[blocks[0]])
        n++;
    return n;
}

/* Targets in a micro-batch. */
static size_t batch_targets(trainer *t, const size_t *order, size_t from, size_t to)
{
    size_t n = 0;

    for (size_t i = from; i < to; i++) {
        train_targets(t->targets, t->blocks, order[i]);
        for (size_t k = 0; k < t->blocks->lengths[order[i]]; k++)
            n += t->targets[k] >= 0;
    }
    return n;
}

/* This rank's share of micro-batch mb, whose n targets are those of all ranks; `sequence`
 * is the number of its first block in the step. */
static dr_status run_share(trainer *t, size_t k, size_t mb, float scale, size_t sequence,
                           double *sum)
{
    const train_options *o = t->o;
    train_sampler *s = &t->sampler;
    size_t from = 0, to = 0, counted = 0;
    dr_status st = DR_OK;

    train_sampler_share(s, mb, t->blocks, dr_ranks_id(t->ranks), dr_ranks_count(t->ranks),
                        &from, &to);
    sequence += from - mb * s->batch;
    for (size_t i = from, count; i < to; i += count, sequence += count) {
        DR_TRY(dr_cancelled_check());
        count = group_of(t, s->order + i, to - i);
        train_state_masks(&t->state, o->seed, k, sequence, count);
        DR_TRY(run_blocks(t, s->order + i, count, scale, sum, &counted));
    }
done:
    return st;
}

static dr_status run_step(trainer *t, size_t k, double *loss, size_t *tokens)
{
    train_sampler *s = &t->sampler;
    size_t first = 0, end = 0, sequence = 0;
    dr_status st = DR_OK;

    *loss = 0;
    train_sampler_step(s, k, t->blocks, t->o, &first, &end);
    for (size_t mb = first; mb < end; mb++) {
        size_t from = mb * s->batch, to = from + s->batch;
        double sum = 0;
        to = to < t->blocks->count ? to : t->blocks->count;
        size_t n = batch_targets(t, s->order, from, to);
        if (n == 0)
            continue;
        float scale = (float)(1.0 / ((double)n * (double)(end - first)));
        DR_TRY(run_share(t, k, mb, scale, sequence, &sum));
        for (size_t i = from; i < to; i++)
            *tokens += t->blocks->lengths[s->order[i]];
        sequence += to - from;
        *loss += sum / (double)n / (double)(end - first);
    }
    DR_TRY(dr_ranks_sum_doubles(t->ranks, loss, 1, "the loss"));
    if (!isfinite(*loss))
        DR_FAIL(DR_EDEVICE, "step %zu: the loss is %g; try a lower learning_rate", k + 1,
                *loss);
done:
    return st;
}

static dr_status update(trainer *t, train_report *r)
{
    const train_options *o = t->o;
    nn_device *dev = nn_decoder_device(t->dec);
    size_t k = r->steps;
    double clip = 1, *norm = &r->grad_norms[k];
    dr_status st = DR_OK;

    DR_TRY(train_grad_sum(dev, &t->state));
    DR_TRY(train_grad_norm(norm, dev, &t->state));
    if (!isfinite(*norm))
        DR_FAIL(DR_EDEVICE, "step %zu: the gradient is %g; try a lower learning_rate",
                k + 1, *norm);
    if (o->max_grad_norm > 0 && *norm > 0) {
        clip = o->max_grad_norm / (*norm + 1e-6);
        clip = clip < 1 ? clip : 1;
    }
    const train_adamw adam = {train_rate_of(o, r, k), o->beta1, o->beta2, o->eps,
                              o->weight_decay};
    DR_TRY(train_adamw_step(dev, &t->state, &adam, k + 1, clip));
    DR_TRY(train_params_changed(t));
done:
    return st;
}

/* A step, with what is due behind it. */
static dr_status step(trainer *t, train_report *r, dr_progress *progress)
{
    char text[64];
    size_t k = r->steps, before = r->tokens;
    double start = dr_now_s();
    dr_status st = DR_OK;

    DR_TRYF(run_step(t, k, &r->losses[k], &r->tokens), "step %zu of %zu", k + 1, r->total);
    DR_TRY(update(t, r));
    r->steps = k + 1;
    r->session_tokens += r->tokens - before;
    start = dr_now_s() - start;
    if (k == progress->from)
        train_forecast(t, r, progress, start);
    r->seconds += start;
    r->step_seconds[k] = start;
    (void)snprintf(text, sizeof(text), "loss %.4f, %.3g tokens/s", r->losses[k],
                   (double)r->session_tokens / r->seconds);
    dr_progress_step(progress, r->steps, text);
    DR_TRY(train_watch_step(t, r));
done:
    return st;
}

/* Of several ranks, all go on from one checkpoint. */
static dr_status same_step(const trainer *t, size_t step)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "%zu", step);
    return dr_ranks_same(t->ranks, text, "step of the last checkpoint");
}

dr_status train_check_ranks(const trainer *t)
{
    char hex[DR_SHA256_HEX];
    dr_status st = DR_OK;

    if (dr_ranks_count(t->ranks) == 1)
        return DR_OK;
    dr_sha256(hex, t->state.param, t->state.count * sizeof(float));
    if (dr_ranks_same(t->ranks, hex, "adapter") != DR_OK)
        st = dr_fail(DR_EDEVICE, "%s: the same steps gave other parameters",
                     dr_trail_get()->frames[0].text);
    return st;
}

static dr_status train(trainer *t, train_report *r, const hf_model *base)
{
    const train_options *o = t->o;
    dr_progress progress;
    dr_status st = DR_OK;

    r->epoch_steps = t->sampler.groups;
    r->total = o->max_steps;
    if (r->total == 0)
        r->total = (size_t)ceil(o->epochs * (double)r->epoch_steps);
    r->losses = dr_calloc(r->total, sizeof(double));
    r->grad_norms = dr_calloc(r->total, sizeof(double));
    r->step_seconds = dr_calloc(r->total, sizeof(double));
    if (o->resume != NULL || train_watch_saves(o, r))
        DR_TRY(train_identity(&t->identity, t, base));
    train_watch_open(t, r);
    if (o->resume != NULL) {
        DR_TRY(train_checkpoint_read(t, r));
        DR_TRY(same_step(t, r->steps));
        if (dr_ranks_first(t->ranks))
            DR_TRY(train_checkpoint_rotate(o)); /* it may have been killed before that */
    } else {
        DR_TRY(train_checkpoint_none(o));
        DR_TRY(train_watch_begin(t, r));
    }
    dr_progress_begin(&progress, "training", "steps", r->total);
    progress.from = r->steps;
    while (r->steps < r->total && !r->stopped)
        DR_TRY(step(t, r, &progress));
    dr_progress_end(&progress);
    DR_TRY(train_state_params(&t->state));
    DR_TRY(train_watch_end(t, r));
done:
    if (st != DR_OK && r->steps > 0)
        train_checkpoint_tell(o);
    return st;
}

static dr_status check_blocks(const train_blocks *b, const hf_model *base, const char *what)
{
    int vocab = hf_model_config(base)->vocab;

    if (b->count == 0)
        return dr_fail(DR_EUSAGE, "no block to %s on", what);
    for (size_t i = 0; i < b->count * b->seq_len; i++) {
        if (b->ids[i] < 0 || b->ids[i] >= vocab)
            return dr_fail(DR_EFORMAT,
                           "token %d in block %zu is not in the vocabulary of %d",
                           (int)b->ids[i], i / b->seq_len, vocab);
    }
    if (b->marks != NULL && memchr(b->marks, 1, b->count * b->seq_len) == NULL)
        return dr_fail(DR_EFORMAT, "no token of the %zu blocks is of an answer", b->count);
    return DR_OK;
}

dr_status train_lora(train_report *report, nn_device *dev, const hf_model *base,
                     const char *base_name, const train_blocks *blocks,
                     const train_options *o, const char *out_dir)
{
    trainer t = {0};
    dr_status st = DR_OK;

    *report = (train_report){0};
    DR_TRY(check_blocks(blocks, base, "train"));
    if (o->eval != NULL)
        DR_TRYF(check_blocks(o->eval, base, "evaluate"), "evaluation");
    if (o->eval != NULL && o->original != NULL) {
        report->original_losses = dr_calloc(o->eval->count, sizeof(double));
        DR_TRY(train_original(report->original_losses, dev, o->original, o->eval,
                              o->keep_bytes > 0 ? o->keep_bytes : default_keep()));
    }
    DR_TRY(trainer_open(&t, dev, base, blocks, o));
    t.base_name = base_name;
    report->trainable = t.state.count;
    report->ranks = dr_ranks_count(t.ranks);
    report->peak_bytes = t.bytes;
    DR_TRY(train(&t, report, base));
    if (dr_ranks_first(t.ranks))
        DR_TRY(train_state_write(&t.state, out_dir, base_name));
done:
    trainer_release(&t);
    return st;
}
