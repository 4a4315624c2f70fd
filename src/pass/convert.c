/*
 * convert.c - what the two passes that write a model in another form share.
 */
#include "pass/convert_impl.h"

#include "pass/shared_impl.h"

dr_status pass_convert_open(hf_model **out, const pass_model *in)
{
    dr_status st = DR_OK;

    if (in->adapter_count > 0) {
        st = dr_fail(DR_EUSAGE, "%s has an adapter, which converting would leave behind",
                     in->name);
        dr_hint(
            "convert the base alone, merge the adapter first (convert -a), or give it to "
            "auto-opt");
        return st;
    }
    DR_TRYF(hf_model_open(out, in->path), "opening the model to convert");
done:
    return st;
}

uint64_t pass_model_elements(const hf_config *c)
{
    return pass_layer_elements(c) * (uint64_t)c->layers +
           (c->tied ? 1 : 2) * pass_embed_elements(c);
}

dr_status pass_convert_tell(const pass_job *job, const hf_model *m, const char *type,
                            uint64_t bytes)
{
    uint64_t before = hf_model_weight_bytes(m);
    json_t *r = job->report;
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(job->text, "weights        %s\n", hf_model_origin(m)));
    DR_TRY(dr_buf_addf(job->text, "written        %s\n", type));
    DR_TRY(dr_buf_addf(job->text, "%-14s %14s %14s\n", "", "before", "after"));
    DR_TRY(dr_buf_addf(job->text, "%-14s %14llu %14llu\n", "bytes",
                       (unsigned long long)before, (unsigned long long)bytes));
    json_object_set_new(r, "origin", json_string(hf_model_origin(m)));
    json_object_set_new(r, "type", json_string(type));
    json_object_set_new(r, "bytes_before", json_integer((json_int_t)before));
    json_object_set_new(r, "bytes_after", json_integer((json_int_t)bytes));
done:
    return st;
}
