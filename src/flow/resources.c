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
#include "core/param.h"
#include "flow/flow_impl.h"

/* Of a variable; 0 when it is not set. */
static dr_status limit(uint64_t *out, const char *variable)
{
    const char *text = getenv(variable);

    *out = 0;
    return text != NULL && *text != '\0' ? dr_parse_size(out, text, variable) : DR_OK;
}

/* The first number in a file of the system; false: no such file, or no number in it. */
static bool read_number(uint64_t *out, const char *path)
{
    FILE *f = fopen(path, "re");
    bool ok = f != NULL && fscanf(f, "%" SCNu64, out) == 1;

    if (f != NULL)
        (void)fclose(f);
    return ok;
}

/* What is left in this container's memory; UINT64_MAX: no limit is set. */
static uint64_t container_available(void)
{
    static const char *const files[][2] = {
        {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
        {"/sys/fs/cgroup/memory/memory.limit_in_bytes",
         "/sys/fs/cgroup/memory/memory.usage_in_bytes"}};
    uint64_t max = 0, used = 0;

    for (size_t i = 0; i < DR_COUNT(files); i++) {
        /* version 1 writes "no limit" as a number near 2^63 */
        if (read_number(&max, files[i][0]) && read_number(&used, files[i][1]) &&
            max < UINT64_MAX / 4)
            return max > used ? max - used : 0;
    }
    return UINT64_MAX;
}

uint64_t flow_memory_available(void)
{
    uint64_t kb = 0, container = container_available();
    char line[128];
    FILE *f = fopen("/proc/meminfo", "re");

    while (f != NULL && kb == 0 && fgets(line, sizeof(line), f) != NULL) {
        if (sscanf(line, "MemAvailable: %" SCNu64 " kB", &kb) != 1)
            kb = 0;
    }
    if (f != NULL)
        (void)fclose(f);
    uint64_t machine = kb * 1024;
    if (machine == 0)
        machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    return container < machine ? container : machine;
}

dr_status flow_limits(uint64_t *memory, uint64_t *disk, const char *output)
{
    uint64_t memory_max = 0, disk_max = 0;
    dr_status st = DR_OK;

    *memory = flow_memory_available();
    *disk = dr_disk_free(output);
    DR_TRY(limit(&memory_max, "DRUPE_MEMORY_LIMIT"));
    DR_TRY(limit(&disk_max, "DRUPE_DISK_LIMIT"));
    if (memory_max > 0 && (*memory == 0 || memory_max < *memory))
        *memory = memory_max;
    if (disk_max > 0 && disk_max < *disk)
        *disk = disk_max;
done:
    return st;
}

/* "3.2 GB", "41 MB" */
static const char *size_text(char text[32], uint64_t bytes)
{
    if (bytes >= 1000000000)
        (void)snprintf(text, 32, "%.1f GB", (double)bytes / 1e9);
    else if (bytes >= 1000000)
        (void)snprintf(text, 32, bytes < 10000000 ? "%.1f MB" : "%.0f MB",
                       (double)bytes / 1e6);
    else
        (void)snprintf(text, 32, "%.1f KB", (double)bytes / 1e3);
    return text;
}

static void tell(const pass_need *need, uint64_t memory, uint64_t disk)
{
    char a[32], b[32], c[32], d[32], time[64] = "";

    if (need->seconds >= 3600)
        (void)snprintf(time, sizeof(time), "; roughly %.1f hours", need->seconds / 3600);
    else if (need->seconds >= 90)
        (void)snprintf(time, sizeof(time), "; roughly %.0f minutes", need->seconds / 60);
    else if (need->seconds >= 5)
        (void)snprintf(time, sizeof(time), "; roughly %.0f seconds", need->seconds);
    dr_log(DR_INFO, "needs about %s of memory (%s available), %s of disk (%s free)%s",
           size_text(a, need->memory), size_text(b, memory), size_text(c, need->disk),
           size_text(d, disk), time);
}

dr_status flow_check_resources(const pass_need *need, const char *output, uint64_t memory,
                               uint64_t disk)
{
    char a[32], b[32];
    dr_status st = DR_OK;

    tell(need, memory, disk);
    if (memory > 0 && need->memory > memory)
        DR_FAIL(DR_ENOMEM, "this run needs about %s of memory; %s are available",
                size_text(a, need->memory), size_text(b, memory));
    if (need->disk > disk)
        DR_FAIL(DR_EIO, "%s: this run writes about %s; %s are free", output,
                size_text(a, need->disk), size_text(b, disk));
done:
    return st;
}
