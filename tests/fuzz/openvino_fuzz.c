/*
 * openvino_fuzz.c - an OpenVINO model's XML: its inputs renamed and fixed, and a graph
 * written around it.
 */
#include "core/file.h"
#include "fuzz/fuzz.h"
#include "pass/pass.h"

static void run(const char *name, const pass_model *in, const char *out)
{
    const pass_def *def = pass_find(name);
    dr_arena arena = {0};
    dr_buf text;
    void *config = dr_arena_alloc(&arena, 1, def->config_size);
    pass_model made = {0};
    json_t *report = json_object();

    dr_buf_init(&text, 1 << 20);
    dr_params_defaults(def->params, def->params_count, config);
    const pass_job job = {.def = def,
                          .config = config,
                          .out_dir = out,
                          .final_dir = out,
                          .arena = &arena,
                          .text = &text,
                          .report = report};
    if (dr_remove_tree(out) == DR_OK && dr_make_dirs(out) == DR_OK)
        (void)!def->run(&job, &made, in);
    json_decref(report);
    dr_buf_release(&text);
    dr_arena_release(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char folder[256], out[256];

    fuzz_begin();
    fuzz_put("ir.xml", data, size);
    fuzz_put("ir.bin", (const uint8_t *)"w", 1);
    const pass_model in = {.kind = PASS_MODEL_OPENVINO,
                           .path = fuzz_path(folder, "."),
                           .file = "ir.xml",
                           .name = "ir"};
    (void)fuzz_path(out, "out");
    run("OpenVINOIoUpdate", &in, out);
    run("OpenVINOEncapsulation", &in, out);
    return 0;
}
