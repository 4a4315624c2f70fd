/*
 * shared_fuzz.c - a manifest at a place that machines share: read and listed, and taken
 * away with the contents that it names.
 */
#include "flow/flow.h"
#include "fuzz/fuzz.h"

#define KEY "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void look(const flow_shared_options *o)
{
    flow_result r;

    (void)!flow_look_at_shared(&r, o);
    flow_result_release(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    dr_arena a = {0};
    const char *entries = dr_path_join(&a, fuzz_dir(), "entries");
    flow_shared_options o = {.url = fuzz_dir()};

    fuzz_begin();
    if (dr_make_dirs(entries) != DR_OK)
        return 0;
    fuzz_put("entries/" KEY ".json", data, size);
    look(&o);
    o.remove = true;
    o.model_hash = KEY;
    look(&o);
    dr_arena_release(&a);
    return 0;
}
