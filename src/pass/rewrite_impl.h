/*
 * rewrite_impl.h - passes that change an ONNX graph: what all of them do around the one
 * call of onnx_rewrite.h.
 */
#ifndef DRUPE_PASS_REWRITE_IMPL_H
#define DRUPE_PASS_REWRITE_IMPL_H

#include "core/mem.h"
#include "onnx/onnx.h"
#include "pass/pass.h"

/* Olive's options of external data, the first member of such a pass's config. */
typedef struct {
    bool save_as_external_data, all_tensors_to_one_file;
} pass_external;

#define PASS_EXTERNAL_ROWS                                                                 \
    {.name = "save_as_external_data",                                                      \
     .offset = offsetof(pass_external, save_as_external_data),                             \
     .type = DR_PARAM_BOOL,                                                                \
     .dflt = "true",                                                                       \
     .help = "weights lie in model.onnx.data where a pass writes them; false is refused"}, \
        {.name = "all_tensors_to_one_file",                                                \
         .offset = offsetof(pass_external, all_tensors_to_one_file),                       \
         .type = DR_PARAM_BOOL,                                                            \
         .dflt = "true",                                                                   \
         .help = "false is refused"},                                                      \
        DR_REFUSED("external_data_name", "the file is model.onnx.data", NULL),             \
        DR_REFUSED("size_threshold", "values of 1024 bytes and more are external", NULL),  \
        DR_REFUSED("convert_attribute", "attributes stay in the graph", NULL)

/* For .validate, or from it. */
DR_MUST_USE dr_status pass_external_validate(const void *config,
                                             const unsigned char *given);

/* "a,b,c" as onnx_names; NULL: none. */
onnx_names pass_names(dr_arena *a, const char *list);
/* "1,2,3"; DR_EUSAGE: no integers, or none.  label: the parameter. */
DR_MUST_USE dr_status pass_integers(dr_arena *a, const int64_t **out, size_t *count,
                                    const char *list, const char *label);

/*
 * Opens in's graph, has it changed, writes it to job->out_dir/model with all that belongs
 * to the model, and has the runtime load and run it.
 */
typedef dr_status (*pass_rewrite_fn)(onnx_edit *e, const pass_job *job,
                                     const pass_model *in);
DR_MUST_USE dr_status pass_rewrite(const pass_job *job, pass_model *out,
                                   const pass_model *in, pass_rewrite_fn change);

/* The files of a list that ends with NULL (it may be NULL), and what else belongs to the
 * model in `from`: settings, tokenizers, adapters; what dir has already stays. */
DR_MUST_USE dr_status pass_place_files(const pass_job *job, const char *dir,
                                       const char *from, const char *const *files);
/* The path of the graph that goes in. */
const char *pass_graph_path(const pass_job *job, const pass_model *in);

/* onnx_io_types, and a warning where nothing is of that type. */
DR_MUST_USE dr_status pass_convert_io(onnx_edit *e, const pass_model *in,
                                      const char *pattern, int from, int to);

/* The members that all such passes have. */
/* Of a pass that looks at nothing but its graph, and so at each part of a model. */
#define PASS_REWRITE_EACH(config, rows) PASS_REWRITE(config, rows), .each_part = true
#define PASS_REWRITE(config, rows)                                                         \
    .takes = PASS_MODEL_ONNX, .gives = PASS_MODEL_ONNX, .config_size = sizeof(config),     \
    .params = rows, .params_count = DR_COUNT(rows)

#endif
