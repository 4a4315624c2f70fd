/*
 * flow_impl.h - the engine's parts: what comes in, what a run needs, what it leaves behind.
 */
#ifndef DRUPE_FLOW_FLOW_IMPL_H
#define DRUPE_FLOW_FLOW_IMPL_H

#include "core/file.h"
#include "core/ranks.h"
#include "flow/flow.h"
#include "pass/pass.h"

/* "a Hugging Face model" */
const char *flow_kind_text(pass_kind kind);

/* azure://ACCOUNT/CONTAINER of net_store.h.  DR_EUSAGE: no such names can be, or one of the
 * two is NULL. */
DR_MUST_USE dr_status flow_azure_url(dr_arena *a, const char **url, const char *account,
                                     const char *container);

/* Without trailing slashes: a folder's own name matters. */
const char *flow_clean_output(dr_arena *a, const char *path);

/* ---- input.c ---- */

/*
 * The model as spec names it, not resolved yet, and its adapters: those of spec, else the
 * one that the folder's model_config.json names.  kind: what the first pass takes.
 * DR_EUSAGE: an adapter, or an ONNX model, that is not there; DR_EUNSUPPORTED: a model that
 * is ONNX already.
 */
DR_MUST_USE dr_status flow_open_input(pass_model *in, dr_arena *a, const flow_spec *spec,
                                      pass_kind kind);

/* A folder's model_config.json: *type and *adapter stay NULL when it says nothing. */
DR_MUST_USE dr_status flow_read_model_config(dr_arena *a, const char *folder,
                                             const char **type, const char **adapter);
/* Its model_attributes as JSON; *attributes stays NULL where there are none. */
DR_MUST_USE dr_status flow_read_attributes(dr_arena *a, const char **attributes,
                                           const char *folder);
/* Whether that names an ONNX model. */
bool flow_is_onnx_type(const char *type);
/* Whether a model that a file calls so can be of this kind. */
bool flow_type_fits(pass_kind kind, const char *type);
/* What a first pass would take of the model as typed: parts, where it takes each of them
 * and there is no whole graph. */
DR_MUST_USE dr_status flow_input_kind(pass_kind *kind, const pass_def *first,
                                      const char *model);
/* Whether a model as typed is one; type: what a file calls it, or NULL. */
DR_MUST_USE dr_status flow_is_onnx_model(bool *onnx, dr_arena *a, const char *model,
                                         const char *type);

/* DR_EUSAGE: the output folder holds the model, an adapter or a data file, which the result
 * would replace. */
DR_MUST_USE dr_status flow_check_apart(const flow_spec *spec, const pass_model *in,
                                       const char *output);

/* ---- vendor_model.c ---- */

/* A model of a vendor's: its main file, its folder, or an earlier result. */
DR_MUST_USE dr_status flow_open_vendor(pass_model *in, dr_arena *a, const char *model,
                                       pass_kind kind);
/* Its model_config.json in dir. */
DR_MUST_USE dr_status flow_write_vendor_config(const char *dir, const pass_model *m);
/* The program that a pass would run, and where it is, for a dry run: a line, and a member
 * of list; nothing, where it runs none. */
DR_MUST_USE dr_status flow_tell_program(dr_buf *line, json_t *list, const pass_def *d,
                                        const json_t *config);

/* ---- workflow_json.c ---- */

/* A step of the spec, understood. */
typedef struct {
    const pass_def *def;
    void *config;         /* arena */
    unsigned char *given; /* arena: [params_count] */
} flow_planned;

/* The run as a workflow file of Olive's form: what was given, not what follows from it. */
DR_MUST_USE dr_status flow_workflow_json(json_t **out, const flow_spec *spec,
                                         const flow_planned *steps, bool reads_data);

/* ---- resources.c ---- */

/* What this run may use: what the machine has, or less by DRUPE_MEMORY_LIMIT and
 * DRUPE_DISK_LIMIT (bytes, or with K, M or G).  *memory 0: unknown. */
DR_MUST_USE dr_status flow_limits(uint64_t *memory, uint64_t *disk, const char *output);

/* Refuses a run that cannot fit: DR_ENOMEM or DR_EIO with both figures. */
DR_MUST_USE dr_status flow_check_resources(const pass_need *need, const char *output,
                                           uint64_t memory, uint64_t disk);

/* ---- footprint.c ---- */

/*
 * A hash of what goes in, content and not names: the model's folder or file, adapters, data
 * files.  It costs milliseconds: small files count whole, large ones by size, head, tail
 * and 62 places between.
 */
DR_MUST_USE dr_status flow_fingerprint(char hex[65], const pass_model *in,
                                       const data_options *data, const data_options *eval);

/* A hash of what is in drupe.json, and of when the files that go in were changed last: what
 * the state of a killed run belongs to. */
DR_MUST_USE dr_status flow_state_key(char hex[65], const flow_spec *spec,
                                     const pass_model *in, const json_t *steps,
                                     bool with_data);
/* What drupe and Olive write beside a model, and hidden files. */
bool flow_no_model_file(const char *name);
/* For the cache's key: a file's SHA-256 as member key; data options with their files'. */
DR_MUST_USE dr_status flow_file_key(json_t *j, const char *key, const char *path);
DR_MUST_USE dr_status flow_data_key(json_t **out, const data_options *o);

/* drupe.json: what made the folder.  No time, no path of this machine. */
/* What drupe.json says. */
json_t *flow_footprint_json(const flow_spec *spec, const char *input_hash,
                            const json_t *steps, bool with_data);
DR_MUST_USE dr_status flow_write_footprint(const char *dir, const flow_spec *spec,
                                           const char *input_hash, const json_t *steps,
                                           bool with_data);

/* Olive's model_config.json beside an ONNX result in dir/model. */
DR_MUST_USE dr_status flow_write_onnx_config(const char *dir);
/* What the model has besides its files, into the model_config.json of dir. */
DR_MUST_USE dr_status flow_write_settings(const char *dir, const pass_model *m);
/* The graphs of a folder, split_2.onnx before split_10.onnx; ends with NULL. */
DR_MUST_USE dr_status flow_list_graphs(dr_arena *a, const char *const **files,
                                       size_t *count, const char *folder);

/* Which device is meant: "auto" is "cuda" where that can be opened (said in one line) and
 * else "cpu"; ":bf16" behind it, or behind "cuda", wants a GPU.  NULL: "cpu".  to->dev: the
 * caller's to close; a GPU is open, a cpu not yet.
 * DR_EUNSUPPORTED: "cuda" cannot be opened, with what is missing. */
DR_MUST_USE dr_status flow_compute(pass_device *to, const char *asked, int threads,
                                   dr_ranks *ranks);

/* ---- several processes (shared_run.c); of one, each is nothing ---- */

/* DR_EUSAGE: these passes are for one process. */
DR_MUST_USE dr_status flow_ranks_check(dr_ranks *r, const flow_planned *steps,
                                       size_t count);
/* Says that what a killed run of a quantizer has left is not gone on from. */
void flow_ranks_anew(const dr_ranks *r, const flow_planned *step, const char *final);
/* DR_EUSAGE: ranks have other versions of drupe, or other devices.  GPUs meet. */
DR_MUST_USE dr_status flow_ranks_device(dr_ranks *r, const pass_device *device);
/* DR_EUSAGE: they have other options or other files. */
DR_MUST_USE dr_status flow_ranks_same(const flow_spec *spec, const char *hash,
                                      const json_t *steps, bool with_data);
/* Where this rank writes: dir's, which the first one has opened, or a folder of its own. */
DR_MUST_USE dr_status flow_ranks_output(const char **tmp, dr_arena *a,
                                        const flow_spec *spec, const dr_outdir *dir,
                                        const char *final);
/* Not the first rank's, after all. */
void flow_ranks_drop(const char *tmp, const char *final);

#endif
