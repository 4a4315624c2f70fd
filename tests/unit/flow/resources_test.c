/*
 * resources_test.c - a run that cannot fit is refused at once, with both figures.
 */
#include "flow_fixture.h"

static dr_arena arena;

static void limited(const char *variable, const char *value, dr_status want,
                    const char *text)
{
    const flow_spec o = {.output = in_tmp(&arena, "limited")};

    CHECK(setenv(variable, value, 1) == 0);
    CHECK_STATUS(run_pass("Rtn", NULL, o), want);
    if (want != DR_OK) {
        CHECK_TRAIL(text);
        nothing_at(&arena, o.output);
    }
    CHECK(unsetenv(variable) == 0);
}

int main(void)
{
    limited("DRUPE_MEMORY_LIMIT", "1M", DR_ENOMEM, "MB of memory; 1.0 MB are available");
    limited("DRUPE_MEMORY_LIMIT", "1000", DR_ENOMEM, "this run needs about");
    limited("DRUPE_DISK_LIMIT", "2K", DR_EIO, "this run writes about");
    limited("DRUPE_DISK_LIMIT", "1024", DR_EIO, "KB are free");
    limited("DRUPE_MEMORY_LIMIT", "lots", DR_EUSAGE,
            "DRUPE_MEMORY_LIMIT: expected a size such as 4G, found \"lots\"");
    limited("DRUPE_MEMORY_LIMIT", "-1", DR_EUSAGE, "found \"-1\"");
    limited("DRUPE_MEMORY_LIMIT", "4GX", DR_EUSAGE, "found \"4GX\"");
    limited("DRUPE_DISK_LIMIT", "nan", DR_EUSAGE, "found \"nan\"");
    limited("DRUPE_DISK_LIMIT", "0", DR_EUSAGE, "found \"0\"");
    limited("DRUPE_MEMORY_LIMIT", "", DR_OK, "");
    limited("DRUPE_MEMORY_LIMIT", "0.5g", DR_OK, "");
    limited("DRUPE_MEMORY_LIMIT", "4GB", DR_OK, "");
    limited("DRUPE_DISK_LIMIT", "512m", DR_OK, "");
    CHECK(flow_memory_available() > 0);
    const char *text = NULL;
    if (CHECK_OK(flow_describe_device(&arena, &text)))
        CHECK(strncmp(text, "cpu, ", 5) == 0);
    dr_arena_release(&arena);
    return check_done();
}
