/*
 * packed_size.c - how many bytes a checkpoint will have, before anything is written: for
 * those who choose bits under a budget.  The sums are those of writer.c's plan.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "hf/roles_impl.h"

static dr_status packed_bytes(uint64_t *bytes, const hf_linear *l, const hf_quant *q)
{
    dr_arena a = {0};
    hf_packed plan = {0};
    dr_status st = DR_OK;

    *bytes = 0;
    DR_TRY(hf_pack_plan(&a, &plan, l, q));
    for (size_t i = 0; i < plan.count; i++)
        *bytes += plan.part[i].bytes;
done:
    dr_arena_release(&a);
    return st;
}

static uint64_t plain_bytes(const hf_model *m, const hf_linear *l)
{
    const hf_entry *e = hf_linear_parts(m, l)->weight;
    dr_dtype t = e == NULL || m->gguf ? m->c.dtype : e->t.dtype;

    return (uint64_t)l->n_out * l->n_in * dr_dtype_bytes(t);
}

/* Is it the weight, or a part of the weight, of a layer's linear? */
static bool *find_weights(const hf_model *m)
{
    bool *found = dr_calloc(m->entry_count + 1, sizeof(*found));

    for (size_t i = 0; i < m->linear_count; i++) {
        const hf_parts *p = &m->parts[i];
        const hf_entry *all[] = {p->weight, p->qweight, p->scales, p->qzeros, p->g_idx};
        if (m->linears[i].layer < 0)
            continue;
        for (size_t k = 0; k < DR_COUNT(all); k++) {
            if (all[k] != NULL)
                found[all[k] - m->entries] = true;
        }
        for (size_t k = 0; k < HF_OTHER_PARTS; k++) {
            if (p->others[k] != NULL)
                found[p->others[k] - m->entries] = true;
        }
    }
    return found;
}

static uint64_t other_bytes(const hf_model *m)
{
    bool *skip = find_weights(m);
    uint64_t sum = 0;

    for (size_t i = 0; i < m->entry_count; i++) {
        const hf_entry *e = &m->entries[i];
        if (skip[i] || (m->c.tied && strcmp(e->t.name, "lm_head.weight") == 0))
            continue;
        sum +=
            m->gguf ? (uint64_t)e->rows * e->cols * dr_dtype_bytes(m->c.dtype) : e->t.bytes;
    }
    free(skip);
    return sum;
}

dr_status hf_written_bytes(uint64_t *bytes, const hf_model *m, const hf_linear *l,
                           const hf_quant *q)
{
    if (l != NULL && q != NULL)
        return packed_bytes(bytes, l, q);
    *bytes = l != NULL ? plain_bytes(m, l) : other_bytes(m);
    return DR_OK;
}
