/*
 * resources.c - will it fit?  Asked before long work, not found out after an hour.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/log.h"
#include "flow/flow_impl.h"

/* "3G" as bytes; 0 when the variable is not set. */
static dr_status limit(uint64_t *out, const char *variable)
{
    const char *text = getenv(variable);
    char *end = NULL;
    int shift = 0;

    *out = 0;
    if (text == NULL || *text == '\0')
        return DR_OK;
    double v = strtod(text, &end);
    if (*end == 'K' || *end == 'k')
        shift = 10;
    else if (*end == 'M' || *end == 'm')
        shift = 20;
    else if (*end == 'G' || *end == 'g')
        shift = 30;
    if (end == text || end[shift ? 1 : 0] != '\0' || !(v > 0) || v > 1e18)
        return dr_fail(DR_EUSAGE, "%s: expected a size such as 4G, found \"%s\"", variable,
                       text);
    *out = (uint64_t)(v * (double)(1ull << shift));
    return DR_OK;
}

/* Memory that can be had without swapping; 0: unknown. */
static uint64_t memory_available(void)
{
    char line[128];
    uint64_t kb = 0;
    FILE *f = fopen("/proc/meminfo", "r");

    if (f == NULL)
        return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    while (kb == 0 && fgets(line, sizeof(line), f) != NULL) {
        if (sscanf(line, "MemAvailable: %" SCNu64 " kB", &kb) != 1)
            kb = 0;
    }
    (void)fclose(f);
    return kb * 1024;
}

dr_status flow_check_resources(const pass_need *need, const char *output)
{
    uint64_t memory = 0, disk = 0, have = memory_available(), room = dr_disk_free(output);
    dr_status st = DR_OK;

    DR_TRY(limit(&memory, "DRUPE_MEMORY_LIMIT"));
    DR_TRY(limit(&disk, "DRUPE_DISK_LIMIT"));
    if (memory > 0 && (have == 0 || memory < have))
        have = memory;
    if (disk > 0 && disk < room)
        room = disk;
    dr_log(DR_DEBUG, "needs about %.0f MB of memory (%.0f MB available) and %.0f MB of disk "
                     "(%.0f MB free)",
           (double)need->memory / 1e6, (double)have / 1e6, (double)need->disk / 1e6,
           (double)room / 1e6);
    if (have > 0 && need->memory > have) {
        st = dr_fail(DR_ENOMEM, "this run needs about %.1f GB of memory; %.1f GB are available",
                     (double)need->memory / 1e9, (double)have / 1e9);
        goto done;
    }
    if (need->disk > room)
        DR_FAIL(DR_EIO, "%s: this run writes about %.1f GB; %.1f GB are free", output,
                (double)need->disk / 1e9, (double)room / 1e9);
done:
    return st;
}
