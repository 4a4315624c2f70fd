/*
 * fault.c - reads DR_FAULT once and counts operations against it.
 */
#include "core/fault.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static long at[2];   /* 1-based operation that fails, 0: none; set once */
static long kill_at; /* file operation at which the process is killed */
static atomic_long seen[2];

static void parse(void)
{
    const char *s = getenv("DR_FAULT");

    if (s == NULL)
        return;
    if (strncmp(s, "io:", 3) == 0)
        at[DR_FAULT_IO] = strtol(s + 3, NULL, 10);
    else if (strncmp(s, "big:", 4) == 0)
        at[DR_FAULT_BIG] = strtol(s + 4, NULL, 10);
    else if (strncmp(s, "kill:", 5) == 0)
        kill_at = strtol(s + 5, NULL, 10);
}

bool dr_fault_hit(dr_fault kind)
{
    (void)pthread_once(&once, parse);
    if (at[kind] == 0 && (kind != DR_FAULT_IO || kill_at == 0))
        return false;
    long n = atomic_fetch_add(&seen[kind], 1) + 1;
    if (kind == DR_FAULT_IO && n == kill_at)
        (void)raise(SIGKILL);
    return n == at[kind];
}
