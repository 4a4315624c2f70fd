/*
 * workflow_fuzz.c - a workflow file, JSON where it begins with a brace, else YAML: read,
 * held to the schema, planned over the tiny model; nothing is run.
 */
#include "core/doc.h"
#include "flow/flow.h"
#include "fuzz/fuzz.h"

/* Every node has a path and a place. */
static void walk(dr_arena *a, const dr_doc *d, const dr_node *n)
{
    (void)dr_node_place(a, d, n);
    for (const dr_node *i = n->first; i != NULL; i = i->next)
        walk(a, d, i);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *name = size > 0 && data[0] == '{' ? "w.json" : "w.yaml";
    dr_arena a = {0};
    flow_result r;
    dr_doc d;

    fuzz_begin();
    if (size < 4096 && dr_doc_parse(&d, (const char *)data, size, name) == DR_OK) {
        walk(&a, &d, d.top);
        dr_doc_release(&d);
    }
    fuzz_put(name, data, size);
    const flow_workflow_options o = {.config = dr_path_join(&a, fuzz_dir(), name),
                                     .model = DRUPE_SOURCE_DIR "/tests/golden/tiny/llama",
                                     .output = dr_path_join(&a, fuzz_dir(), "out"),
                                     .cache_dir = dr_path_join(&a, fuzz_dir(), "cache"),
                                     .dry_run = true};
    (void)!flow_workflow(&r, &o);
    flow_result_release(&r);
    dr_arena_release(&a);
    return 0;
}
