/*
 * api_adapter.c - adapters as files of their own.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/drupe_impl.h"
#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "flow/flow.h"
#include "onnx/onnx.h"

/* ---- the form ---- */

typedef struct {
    onnx_format format;
    onnx_adapter_form form;
} target;

static dr_status parse_format(onnx_format *out, const char *text)
{
    static const struct {
        const char *name;
        onnx_format format;
    } formats[] = {{"onnx_adapter", ONNX_ADAPTER_FILE},
                   {"safetensors", ONNX_ADAPTER_SAFETENSORS},
                   {"numpy", ONNX_ADAPTER_NPZ}};

    if (text != NULL && strcmp(text, "pt") == 0) {
        dr_status st = dr_fail(
            DR_EUNSUPPORTED, "format pt: pickled files are not written: opening them runs "
                             "code");
        dr_hint("safetensors holds the same values");
        return st;
    }
    for (size_t i = 0; i < DR_COUNT(formats); i++) {
        if (text == NULL || strcmp(text, formats[i].name) == 0) {
            *out = formats[i].format;
            return DR_OK;
        }
    }
    return dr_fail(DR_EUSAGE,
                   "format: expected onnx_adapter, safetensors or numpy, found \"%s\"",
                   text);
}

static dr_status parse_form(target *t, const drupe_adapter_form *f)
{
    int block = f->block_size > 0 ? f->block_size : 32;
    dr_status st = DR_OK;

    t->form = ONNX_ADAPTER_FLOATS;
    DR_TRY(parse_format(&t->format, f->format));
    if (f->dtype != NULL && strcmp(f->dtype, "float16") == 0)
        t->form.dtype = DR_DTYPE_F16;
    else if (f->dtype != NULL && strcmp(f->dtype, "float32") != 0)
        DR_FAIL(DR_EUSAGE, "dtype: expected float32 or float16, found \"%s\"", f->dtype);
    if (block < 16 || block > 256 || (block & (block - 1)) != 0)
        DR_FAIL(DR_EUSAGE, "block size: expected 16, 32, 64, 128 or 256, found %d", block);
    t->form.int4 = f->int4;
    t->form.block = block;
    t->form.symmetric = !f->asymmetric;
done:
    return st;
}

/* ---- one adapter ---- */

/* What the folder holds, with the factors of DoRA where there is a base to take them
 * from. */
static dr_status open_adapter(hf_adapter *ad, dr_arena *a, const char *folder,
                              const char *base, int threads)
{
    const char *path = NULL;
    hf_model *m = NULL;
    dr_pool *pool = NULL;
    dr_status st = DR_OK;

    if (base == NULL)
        return hf_adapter_open(ad, folder, NULL);
    DR_TRYF(hf_resolve(a, &path, base), "finding the base model");
    DR_TRYF(hf_model_open(&m, path), "opening the base model");
    DR_TRY(hf_adapter_open(ad, folder, m));
    DR_TRY(dr_pool_open(&pool, threads));
    DR_TRY(hf_adapter_factors(ad, m, pool));
done:
    dr_pool_close(pool);
    hf_model_close(m);
    return st;
}

static dr_status tell(drupe_result *r, const char *path, const dr_tensor *list, size_t n)
{
    json_t *made = json_object_get(r->report, "adapters");
    size_t bytes = 0;

    if (made == NULL) {
        made = json_array();
        json_object_set_new(r->report, "adapters", made);
    }
    for (size_t i = 0; i < n; i++)
        bytes += list[i].bytes;
    json_array_append_new(made, json_pack("{s:s, s:I, s:I}", "path", path, "values",
                                          (json_int_t)n, "value_bytes", (json_int_t)bytes));
    return dr_buf_addf(&r->text, "adapter        %s, %zu values, %zu bytes\n", path, n,
                       bytes);
}

/* shown: the path as the user will find it. */
static dr_status write_adapter(drupe_result *r, const char *path, const char *shown,
                               const hf_adapter *ad, const target *t)
{
    dr_arena a = {0};
    dr_tensor *list = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(onnx_adapter_tensors(&a, &list, &count, ad, &t->form));
    DR_TRY(onnx_adapter_save(path, list, count, t->format));
    DR_TRY(tell(r, shown, list, count));
done:
    dr_arena_release(&a);
    return st;
}

/* ---- convert ---- */

static bool same_file(const char *a, const char *b)
{
    char *p = realpath(a, NULL), *q = realpath(b, NULL);
    bool same = p != NULL && q != NULL && strcmp(p, q) == 0;

    free(p);
    free(q);
    return same;
}

static dr_status check_output(dr_arena *a, const char *path, const char *folder)
{
    const char *weights = dr_path_join(a, folder, "adapter_model.safetensors");

    if (dr_is_dir(path))
        return dr_fail(DR_EUSAGE, "output %s: is a folder; name a file", path);
    if (same_file(path, weights))
        return dr_fail(DR_EUSAGE, "output %s: it is the adapter that is converted", path);
    return DR_OK;
}

static dr_status convert(drupe_result *r, const drupe_adapter_conversion *c)
{
    const pass_adapter *list = NULL;
    const char *tmp = NULL;
    hf_adapter ad = {0};
    dr_arena a = {0};
    size_t count = 0;
    target t = {0};
    dr_status st = DR_OK;

    if (c->adapter == NULL || *c->adapter == '\0')
        DR_FAIL(DR_EUSAGE, "no adapter was named");
    if (c->output == NULL || *c->output == '\0')
        DR_FAIL(DR_EUSAGE, "no output file was named");
    DR_TRY(parse_form(&t, &c->form));
    DR_TRY(flow_find_adapters(&a, &list, &count, NULL, c->adapter));
    if (count > 1)
        DR_FAIL(DR_EUSAGE, "adapter_path: %zu adapters; one is converted at a time", count);
    const char *suffix = onnx_adapter_suffix(t.format);
    const char *path = dr_arena_printf(&a, "%s%s", c->output,
                                       dr_ends_with(c->output, suffix) ? "" : suffix);
    DR_TRY(check_output(&a, path, list[0].path));
    DR_TRY(open_adapter(&ad, &a, list[0].path, c->model, c->threads));
    tmp = dr_arena_printf(&a, "%s.tmp", path);
    DR_TRY(write_adapter(r, tmp, path, &ad, &t));
    DR_TRY(dr_replace_file(path, tmp));
    tmp = NULL;
done:
    if (tmp != NULL)
        (void)unlink(tmp);
    hf_adapter_release(&ad);
    dr_arena_release(&a);
    return st;
}

drupe_status drupe_convert_adapter(drupe_result **out, const drupe_adapter_conversion *c)
{
    drupe_result *r = api_result_new();
    dr_status st = DR_OK;

    *out = NULL;
    dr_trail_clear();
    DR_TRY(convert(r, c));
    api_result_seal(r);
    *out = r;
    r = NULL;
done:
    drupe_result_free(r);
    return (drupe_status)st;
}

/* ---- extract ---- */

/* The base of a PEFT folder that is given as the model: unknown. */
static const char *base_of(dr_arena *a, const char *model)
{
    return dr_is_file(dr_path_join(a, model, "adapter_config.json")) ? NULL : model;
}

static dr_status check_apart(const pass_adapter *list, size_t count, const char *output)
{
    for (size_t i = 0; i < count; i++) {
        if (same_file(list[i].path, output))
            return dr_fail(DR_EUSAGE, "output folder %s: it is the adapter %s", output,
                           list[i].name);
    }
    return DR_OK;
}

static dr_status extract_all(drupe_result *r, dr_arena *a, const char *dir,
                             const drupe_adapter_extraction *e, const target *t,
                             const pass_adapter *list, size_t count)
{
    hf_adapter ad = {0};
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++) {
        const char *file =
            dr_arena_printf(a, "%s%s", list[i].name, onnx_adapter_suffix(t->format));
        bool dora = false;
        DR_TRY(hf_adapter_open(&ad, list[i].path, NULL));
        dora = ad.dora;
        if (dora) {
            hf_adapter_release(&ad);
            DR_TRY(open_adapter(&ad, a, list[i].path, base_of(a, e->model), e->threads));
        }
        DR_TRYF(write_adapter(r, dr_path_join(a, dir, file),
                              dr_path_join(a, e->output, file), &ad, t),
                "extracting the adapter %s", list[i].name);
        hf_adapter_release(&ad);
    }
done:
    hf_adapter_release(&ad);
    return st;
}

static dr_status extract(drupe_result *r, const drupe_adapter_extraction *e)
{
    const pass_adapter *list = NULL;
    dr_outdir *dir = NULL;
    json_t *made = NULL;
    dr_arena a = {0};
    size_t count = 0;
    target t = {0};
    dr_status st = DR_OK;

    if (e->model == NULL || *e->model == '\0')
        DR_FAIL(DR_EUSAGE, "no model was named");
    if (e->output == NULL || *e->output == '\0')
        DR_FAIL(DR_EUSAGE, "no output folder was named");
    DR_TRY(parse_form(&t, &e->form));
    DR_TRY(flow_find_adapters(&a, &list, &count, e->model, e->adapters));
    DR_TRY(check_apart(list, count, e->output));
    DR_TRYF(dr_outdir_open(&dir, e->output), "opening the output folder");
    const char *tmp = dr_outdir_tmp(dir);
    DR_TRY(extract_all(r, &a, tmp, e, &t, list, count));
    made = json_pack("{s:s, s:s}", "drupe", DRUPE_VERSION, "command", "extract-adapters");
    DR_TRY(dr_json_write(dr_path_join(&a, tmp, "drupe.json"), made));
    DR_TRYF(dr_outdir_commit(dir), "committing %s", e->output);
done:
    json_decref(made);
    dr_outdir_close(dir);
    dr_arena_release(&a);
    return st;
}

drupe_status drupe_extract_adapters(drupe_result **out, const drupe_adapter_extraction *e)
{
    drupe_result *r = api_result_new();
    dr_status st = DR_OK;

    *out = NULL;
    dr_trail_clear();
    DR_TRY(extract(r, e));
    api_result_seal(r);
    *out = r;
    r = NULL;
done:
    drupe_result_free(r);
    return (drupe_status)st;
}
