/*
 * merge_adapter_weights_pass.c - the MergeAdapterWeights pass: a base and its adapter
 * become one plain model.
 */
#include "core/file.h"
#include "core/log.h"
#include "pass/convert_impl.h"
#include "pass/shared_impl.h"

static dr_status check_input(const pass_model *in)
{
    dr_status st = DR_OK;

    if (in->adapter_count == 1)
        return DR_OK;
    if (in->adapter_count > 1)
        return dr_fail(DR_EUSAGE, "%zu adapters; one is merged at a time",
                       in->adapter_count);
    st = dr_fail(DR_EUSAGE, "%s has no adapter to merge", in->name);
    dr_hint("name it: --adapter_path FOLDER");
    return st;
}

static dr_status merge(const char *dir, const hf_model *m, const hf_adapter *adapter,
                       int threads)
{
    hf_writer *w = NULL;
    dr_pool *pool = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_pool_open(&pool, threads));
    DR_TRY(hf_writer_open(&w, dir, m, NULL));
    DR_TRY(hf_merge_adapter(w, adapter, m, pool));
    DR_TRY(hf_writer_finish(w));
done:
    hf_writer_close(w);
    dr_pool_close(pool);
    return st;
}

static dr_status tell(const pass_job *job, const hf_model *m, const hf_adapter *adapter,
                      const hf_model *made)
{
    const char *type = hf_model_origin(made);
    dr_status st = DR_OK;

    if (hf_model_quant(m).method != HF_QUANT_NONE)
        dr_warn_result("the base is quantized (%s): the merged model is dequantized, %s",
                       hf_model_origin(m), type);
    DR_TRY(pass_convert_tell(job, m, dr_arena_printf(job->arena, "safetensors %s", type),
                             hf_model_weight_bytes(made)));
    DR_TRY(dr_buf_addf(job->text, "merged         %zu modules\n", adapter->count));
    json_object_set_new(job->report, "merged_modules",
                        json_integer((json_int_t)adapter->count));
done:
    return st;
}

static dr_status run(const pass_job *job, pass_model *out, const pass_model *in)
{
    const char *dir = dr_path_join(job->arena, job->out_dir, "model");
    hf_model *m = NULL, *made = NULL;
    hf_adapter adapter = {0};
    dr_status st = DR_OK;

    DR_TRY(check_input(in));
    DR_TRYF(hf_model_open(&m, in->path), "opening the base model");
    DR_TRY(hf_adapter_open_any(&adapter, in->adapters[0].path, m));
    DR_TRY(dr_make_dirs(dir));
    DR_TRY(merge(dir, m, &adapter, job->threads));
    DR_TRYF(hf_model_open(&made, dir), "reading the result back");
    DR_TRY(tell(job, m, &adapter, made));
    *out = (pass_model){.kind = PASS_MODEL_HF, .path = dir, .name = in->name};
done:
    hf_adapter_release(&adapter);
    hf_model_close(made);
    hf_model_close(m);
    return st;
}

static dr_status estimate(const pass_job *job, const pass_model *in, pass_need *need)
{
    hf_model *m = NULL;
    dr_status st = DR_OK;

    (void)job;
    DR_TRY(check_input(in));
    DR_TRYF(hf_model_open(&m, in->path), "opening the base model");
    const hf_config *c = hf_model_config(m);
    need->disk = pass_model_elements(c) * dr_dtype_bytes(c->dtype);
    need->memory = 2 * sizeof(float) * pass_layer_elements(c);
done:
    hf_model_close(m);
    return st;
}

extern const pass_def pass_merge_adapter_weights; /* PASS(merge_adapter_weights) */
const pass_def pass_merge_adapter_weights = {
    .name = "MergeAdapterWeights",
    .version = 1,
    .summary = "an adapter folded into the weights of its base",
    .takes = PASS_MODEL_HF,
    .gives = PASS_MODEL_HF,
    .estimate = estimate,
    .run = run,
};
