/*
 * layers.c - a quantizer's layers in turn, so that a run which is killed can go on.
 *
 * After a layer its weights are synced in the writer's files, and one piece of state gets
 * how many layers are done, what the writer has got, and the text's hidden states in front
 * of the next layer.  The states are stored, not computed again: the text has gone through
 * rounded weights before their scales were folded, which the checkpoint does not hold.
 *
 * Keeping takes at most KEEP_SHARE of the time, and FREE_S beside that: it is left out
 * behind a layer where it would take more, by how long it took the last time, and at first
 * by the states' bytes.  That is decided by the clock and changes no bytes, only the layer
 * at which a later run begins.
 * A state that cannot be written is no error: the run goes on without.
 */
#include <string.h>

#include "core/mem.h"
#include "quant/quant_impl.h"

#define KEEP_SHARE   0.01
#define FREE_S       0.1  /* with text; without, a model takes a second */
#define FREE_SHORT_S 0.05
#define BYTES_A_S    1.5e9 /* a disk's */

static const char piece[] = "layers";
enum { PART_DONE, PART_WRITER, PART_X, PARTS };
enum { STATE_MAX = 1 << 30 };

typedef struct {
    const quant_site *site;
    float *x;
    size_t floats;
    double start_s, spent_s, last_s;
    int count;
    bool off;
} keeper;

static dr_status keep(keeper *k, uint64_t done)
{
    const double now = dr_now_s(), free_s = k->x != NULL ? FREE_S : FREE_SHORT_S;
    nn_device *dev = k->site->dev;
    void *here = NULL;
    dr_buf writer;
    dr_status st = DR_OK;

    dr_buf_init(&writer, STATE_MAX);
    if (k->site->resume == NULL || k->off ||
        k->spent_s + k->last_s > free_s + KEEP_SHARE * (now - k->start_s))
        goto done;
    DR_TRY(hf_writer_save(k->site->out, &writer));
    if (k->x != NULL && nn_mem_apart(dev)) {
        DR_TRY(dr_big_alloc(&here, k->floats, sizeof(*k->x), "hidden states"));
        DR_TRY(nn_copy(dev, here, k->x, k->floats * sizeof(*k->x)));
    }
    const dr_part parts[PARTS] = {{&done, sizeof(done)},
                                  {writer.data, writer.len},
                                  {here ? here : k->x, k->floats * sizeof(*k->x)}};
    k->off = !dr_resume_keep(k->site->resume, piece, parts, PARTS);
    k->last_s = dr_now_s() - now;
    k->spent_s += k->last_s;
    k->count++;
done:
    dr_big_free(here);
    dr_buf_release(&writer);
    return st;
}

/* *first: the layer after those that are kept; x is what goes into it. */
static dr_status take_up(keeper *k, int *first, int layers)
{
    dr_resume *r = k->site->resume;
    dr_part parts[PARTS];
    dr_map map = {0};
    uint64_t done = 0;
    bool taken = false;
    dr_status st = DR_OK;

    *first = 0;
    if (r == NULL || !dr_resume_get(r, piece, &map, parts, PARTS))
        goto done;
    if (parts[PART_DONE].bytes == sizeof(done))
        memcpy(&done, parts[PART_DONE].data, sizeof(done));
    if (done >= 1 && done <= (uint64_t)layers &&
        parts[PART_X].bytes == k->floats * sizeof(*k->x))
        DR_TRY(hf_writer_resume(k->site->out, &taken, parts[PART_WRITER].data,
                                parts[PART_WRITER].bytes));
    if (!taken) {
        dr_resume_tell_broken(r);
        goto done;
    }
    if (k->floats > 0)
        DR_TRY(nn_copy(k->site->dev, k->x, parts[PART_X].data, parts[PART_X].bytes));
    *first = (int)done;
    if (*first < layers)
        dr_tell("resuming at layer %d of %d", *first + 1, layers);
    else
        dr_tell("resuming after layer %d of %d", layers, layers);
done:
    dr_map_close(&map);
    return st;
}

/* While layers are worked on, where the writer has threads for it. */
static dr_status copy_outer(const quant_site *site)
{
    const hf_linear *const outer[] = {hf_embed_linear(site->in), hf_head_linear(site->in)};
    dr_status st = DR_OK;

    for (size_t i = 0; site->outer_stays && i < DR_COUNT(outer); i++)
        if (outer[i] != NULL)
            DR_TRY(hf_writer_stays(site->out, outer[i]));
done:
    return st;
}

void quant_tell_time(double *since, const char *what)
{
    const double now = dr_now_s();

    dr_log(DR_DEBUG, "%s: %.4f s", what, now - *since);
    *since = now;
}

dr_status quant_each_layer(const quant_site *site, float *x, size_t floats,
                           dr_status (*layer)(void *ctx, int layer), void *ctx)
{
    const int layers = hf_model_config(site->in)->layers;
    keeper k = {.site = site,
                .x = x,
                .floats = floats,
                .start_s = dr_now_s(),
                .last_s = (double)floats * sizeof(*x) / BYTES_A_S};
    int first = 0;
    dr_status st = DR_OK;

    DR_TRY(take_up(&k, &first, layers));
    DR_TRY(copy_outer(site));
    for (int i = first; i < layers; i++) {
        DR_TRY(layer(ctx, i));
        DR_TRY(keep(&k, (uint64_t)i + 1));
        if (site->progress != NULL)
            dr_progress_step(site->progress, (size_t)i + 1, NULL);
    }
    dr_log(DR_DEBUG, "%d states kept in %.3f s of %.1f s", k.count, k.spent_s,
           dr_now_s() - k.start_s);
done:
    return st;
}
