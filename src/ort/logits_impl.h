/*
 * logits_impl.h - what parent and child share of a stream of logits: two slots that the
 * child fills and the parent empties in turn.
 */
#ifndef DRUPE_ORT_LOGITS_IMPL_H
#define DRUPE_ORT_LOGITS_IMPL_H

#include <semaphore.h>

#include "ort/ort.h"

enum { LOGITS_SLOTS = 2, LOGITS_SLOT_FLOATS = 4 << 20 };

/* In memory that both share. */
typedef struct {
    sem_t full, empty;         /* slots */
    size_t vocab;              /* set before the first slot is full */
    size_t rows[LOGITS_SLOTS]; /* in each slot */
    float slots[LOGITS_SLOTS][LOGITS_SLOT_FLOATS];
} logits_shared;

/* What the child is to do. */
typedef struct {
    const char *path, *adapter;
    const ort_text *texts;
    size_t count;
    int threads;
    logits_shared *shared;
} logits_job;

/* job: logits_job. */
DR_MUST_USE dr_status logits_run(const void *job, bool *runtime);

#endif
