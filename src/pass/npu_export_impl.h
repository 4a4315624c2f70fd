/*
 * npu_export_impl.h - what the NPU pass's files share: sizes, calibration, comparison.
 */
#ifndef DRUPE_PASS_NPU_EXPORT_IMPL_H
#define DRUPE_PASS_NPU_EXPORT_IMPL_H

#include "onnx/onnx.h"
#include "pass/pass.h"
#include "tok/tok.h"

/* Values of Olive's names of dims, from lists of words ("batch_size,sequence_length" and
 * "1,64"); what is not named keeps what o has, and the length in all is past and new.
 * DR_EUSAGE: names that are none, lists of different lengths, sizes that do not add up. */
DR_MUST_USE dr_status npu_dims(onnx_npu_options *o, const char *names, const char *values);

/*
 * Ranges of all values on calibration text, into o->ranges (job's arena), from a graph of
 * floats that is left in dir, which is made, with its file's name in *file.
 */
DR_MUST_USE dr_status npu_calibrate(const pass_job *job, const char *dir, const char **file,
                                    onnx_npu_options *o, const hf_model *m, dr_pool *pool,
                                    const tok_tokenizer *t);

/*
 * The graphs in dir, loaded and run: on the CPU, against the float graph (NULL: there is
 * none), and on the provider where it is.  What is found goes into the result.
 */
typedef struct {
    const char *dir, *float_graph, *provider;
    const onnx_npu_options *o;
    const hf_model *m;
    const tok_tokenizer *t; /* NULL: without text */
} npu_check;
DR_MUST_USE dr_status npu_check_run(const pass_job *job, const npu_check *c);

#endif
