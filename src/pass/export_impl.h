/*
 * export_impl.h - the look at an export before it is handed on.
 */
#ifndef DRUPE_PASS_EXPORT_IMPL_H
#define DRUPE_PASS_EXPORT_IMPL_H

#include "onnx/onnx.h"
#include "ort/ort.h"
#include "pass/pass.h"
#include "tok/tok.h"

/*
 * Loads and runs dir in the runtime, with each adapter, and compares the runtime's ids with
 * ours (tok; NULL: the folder is not for GenAI).  Without a runtime the result says so.
 */
DR_MUST_USE dr_status pass_check_export(const pass_job *job, const char *dir,
                                        const onnx_named_adapter *named, size_t count,
                                        const tok_tokenizer *tok);

/* "loaded and run in ..." into the result, or why it was not. */
DR_MUST_USE dr_status pass_tell_check(const pass_job *job, const ort_check_result *result);

/* "not run: X is not in this runtime" into the result. */
DR_MUST_USE dr_status pass_tell_not_run(const pass_job *job, const char *provider);

/* "not checked: <why>" into the result. */
DR_MUST_USE dr_status pass_tell_not_checked(const pass_job *job, const char *why);

#endif
