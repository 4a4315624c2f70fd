/*
 * session.c - a model in ONNX Runtime: what it takes, what it gives, one run.
 *
 * Names, types and dims are read once at the open.  Inputs are wrapped where they lie and
 * outputs are handed out where the runtime put them, so a run copies nothing.
 */
#include "ort/session_impl.h"

#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/log.h"
#include "core/mem.h"
#include "ort/api_impl.h"
#include "ort/plugin_impl.h"

enum { RANK_MAX = 8, VALUES_MAX = 4096 };

/* One input or output as the model declares it. */
typedef struct {
    const char *name; /* arena */
    int type;         /* ONNX TensorProto.DataType; 0: not a tensor */
    size_t rank;      /* more than RANK_MAX: dims are not kept */
    int64_t dims[RANK_MAX];
    const char *symbols[RANK_MAX]; /* arena */
    bool optional;
} port;

struct ort_session {
    ort_runtime rt;
    dr_arena arena;
    const char *path; /* arena */
    OrtSession *session;
    OrtMemoryInfo *memory;
    OrtRunOptions *options;
    OrtLoraAdapter *adapter;
    char *adapter_path; /* owned */
    port *inputs;       /* arena */
    size_t input_count;
    port *outputs; /* arena */
    size_t output_count;
};

/* What an output's owner points to: enough to release it without its session. */
typedef struct {
    OrtValue *value;
    void (*release)(OrtValue *);
} result_owner;

/* ---- what a model declares ---- */

typedef OrtStatus *(*count_fn)(const OrtSession *, size_t *);
typedef OrtStatus *(*name_fn)(const OrtSession *, size_t, OrtAllocator *, char **);
typedef OrtStatus *(*type_fn)(const OrtSession *, size_t, OrtTypeInfo **);

static dr_status read_shape(ort_session *s, port *p, const OrtTypeInfo *info)
{
    const ort_api *api = &s->rt.api;
    const OrtTensorInfo *tensor = NULL;
    const char *symbols[RANK_MAX] = {0};
    dr_status st = DR_OK;

    DR_TRY(ort_result(api, api->CastTypeInfoToTensorInfo(info, &tensor), s->path));
    if (tensor == NULL)
        goto done;
    DR_TRY(ort_result(api, api->GetTensorElementType(tensor, &p->type), s->path));
    DR_TRY(ort_result(api, api->GetDimensionsCount(tensor, &p->rank), s->path));
    if (p->rank > RANK_MAX)
        goto done;
    DR_TRY(ort_result(api, api->GetDimensions(tensor, p->dims, p->rank), s->path));
    DR_TRY(ort_result(api, api->GetSymbolicDimensions(tensor, symbols, p->rank), s->path));
    for (size_t d = 0; d < p->rank; d++)
        p->symbols[d] = dr_arena_strdup(&s->arena, symbols[d] ? symbols[d] : "");
done:
    return st;
}

static dr_status read_port(ort_session *s, port *p, size_t i, name_fn name_of,
                           type_fn type_of)
{
    const ort_api *api = &s->rt.api;
    OrtAllocator *allocator = NULL;
    OrtTypeInfo *info = NULL;
    char *name = NULL;
    dr_status st = DR_OK;

    DR_TRY(ort_result(api, api->GetAllocatorWithDefaultOptions(&allocator), s->path));
    DR_TRY(ort_result(api, name_of(s->session, i, allocator, &name), s->path));
    p->name = dr_arena_strdup(&s->arena, name);
    DR_TRY(ort_result(api, api->AllocatorFree(allocator, name), s->path));
    DR_TRY(ort_result(api, type_of(s->session, i, &info), s->path));
    DR_TRY(read_shape(s, p, info));
done:
    if (info != NULL)
        api->ReleaseTypeInfo(info);
    return st;
}

static dr_status read_ports(ort_session *s)
{
    const ort_api *api = &s->rt.api;
    size_t fed = 0, optional = 0;
    dr_status st = DR_OK;

    DR_TRY(ort_result(api, api->SessionGetInputCount(s->session, &fed), s->path));
    DR_TRY(ort_result(
        api, api->SessionGetOverridableInitializerCount(s->session, &optional), s->path));
    DR_TRY(
        ort_result(api, api->SessionGetOutputCount(s->session, &s->output_count), s->path));
    s->input_count = fed + optional;
    s->inputs = dr_arena_alloc(&s->arena, s->input_count + 1, sizeof(port));
    s->outputs = dr_arena_alloc(&s->arena, s->output_count + 1, sizeof(port));
    for (size_t i = 0; i < fed; i++)
        DR_TRY(read_port(s, &s->inputs[i], i, api->SessionGetInputName,
                         api->SessionGetInputTypeInfo));
    for (size_t i = 0; i < optional; i++) {
        port *p = &s->inputs[fed + i];
        DR_TRY(read_port(s, p, i, api->SessionGetOverridableInitializerName,
                         api->SessionGetOverridableInitializerTypeInfo));
        p->optional = true;
    }
    for (size_t i = 0; i < s->output_count; i++)
        DR_TRY(read_port(s, &s->outputs[i], i, api->SessionGetOutputName,
                         api->SessionGetOutputTypeInfo));
done:
    return st;
}

/* ---- open and close ---- */

static dr_status make_session(ort_session *s, const ort_settings *set, const char *provider,
                              bool strict)
{
    const ort_api *api = &s->rt.api;
    const int level = set->level < 0 ? ORT_OPTIMIZE_ALL : set->level;
    OrtSessionOptions *o = NULL;
    dr_status st = DR_OK;

    DR_TRY(ort_result(api, api->CreateSessionOptions(&o), s->path));
    DR_TRY(ort_result(api, api->SetSessionGraphOptimizationLevel(o, level), s->path));
    if (set->intra_threads > 0)
        DR_TRY(ort_result(api, api->SetIntraOpNumThreads(o, set->intra_threads), s->path));
    if (set->inter_threads > 0)
        DR_TRY(ort_result(api, api->SetInterOpNumThreads(o, set->inter_threads), s->path));
    if (set->parallel)
        DR_TRY(ort_result(api, api->SetSessionExecutionMode(o, 1), s->path));
    if (provider != NULL)
        DR_TRY(plugin_append(&s->rt, o, provider, strict, NULL, 0));
    DR_TRY(
        ort_result(api, api->CreateSession(s->rt.env, s->path, o, &s->session), s->path));
done:
    if (o != NULL)
        api->ReleaseSessionOptions(o);
    return st;
}

dr_status ort_optimize(const char *dst, const char *src, int level)
{
    static const char file[] = "session.optimized_model_external_initializers_file_name";
    static const char least[] =
        "session.optimized_model_external_initializers_min_size_in_bytes";
    dr_arena a = {0};
    ort_runtime rt = {0};
    OrtSessionOptions *o = NULL;
    OrtSession *session = NULL;
    const char *data = dr_arena_printf(&a, "%s.data", dr_path_base(dst));
    dr_status st = DR_OK;

    if (!dr_is_file(src))
        DR_FAIL(DR_EIO, "%s: no such file", src);
    DR_TRY(ort_runtime_open(&rt));
    const ort_api *api = &rt.api;
    DR_TRY(ort_result(api, api->CreateSessionOptions(&o), src));
    DR_TRY(ort_result(api, api->SetSessionGraphOptimizationLevel(o, level), src));
    DR_TRY(ort_result(api, api->SetIntraOpNumThreads(o, 1), src));
    DR_TRY(ort_result(api, api->SetOptimizedModelFilePath(o, dst), src));
    DR_TRY(ort_result(api, api->AddSessionConfigEntry(o, file, data), src));
    DR_TRY(ort_result(api, api->AddSessionConfigEntry(o, least, "1024"), src));
    DR_TRY(ort_result(api, api->CreateSession(rt.env, src, o, &session), src));
done:
    if (session != NULL)
        rt.api.ReleaseSession(session);
    if (o != NULL)
        rt.api.ReleaseSessionOptions(o);
    ort_runtime_close(&rt);
    dr_arena_release(&a);
    return st;
}

/* All of it on the provider, else what it takes of it. */
static dr_status make_session_on(ort_session *s, const ort_settings *set,
                                 const char *provider, bool *wholly)
{
    dr_status st = DR_OK;

    DR_TRY(plugin_register(&s->rt, provider));
    st = make_session(s, set, provider, true);
    *wholly = st == DR_OK;
    if (st == DR_EDEVICE) {
        dr_log(DR_DEBUG, "%s: not wholly on %s: %s", s->path, provider,
               dr_trail_get()->frames[0].text);
        dr_trail_clear();
        st = make_session(s, set, provider, false);
    }
done:
    return st;
}

static dr_status open_session(ort_session **out, const char *model_path,
                              const ort_settings *set, const char *provider, bool *wholly)
{
    ort_session *s = dr_calloc(1, sizeof(*s));
    const ort_api *api = &s->rt.api;
    dr_status st = DR_OK;

    *out = NULL;
    s->path = dr_arena_strdup(&s->arena, model_path);
    if (!dr_is_file(model_path))
        DR_FAIL(DR_EIO, "%s: no such file", model_path);
    DR_TRY(ort_runtime_open(&s->rt));
    if (provider == NULL)
        DR_TRY(make_session(s, set, NULL, false));
    else
        DR_TRY(make_session_on(s, set, provider, wholly));
    DR_TRY(ort_result(api, api->CreateCpuMemoryInfo(0, 0, &s->memory), s->path));
    DR_TRY(read_ports(s));
    *out = s;
done:
    if (st != DR_OK)
        ort_session_close(s);
    return st;
}

dr_status ort_session_open(ort_session **out, const char *model_path, int threads,
                           bool optimize)
{
    const ort_settings set = {.intra_threads = threads,
                              .level = optimize ? ORT_OPTIMIZE_ALL : ORT_OPTIMIZE_NONE};

    return open_session(out, model_path, &set, NULL, NULL);
}

dr_status ort_session_open_set(ort_session **out, const char *model_path,
                               const ort_settings *set)
{
    return open_session(out, model_path, set, NULL, NULL);
}

dr_status ort_session_open_on(ort_session **out, const char *model_path, int threads,
                              const char *provider, bool *wholly)
{
    const ort_settings set = {.intra_threads = threads, .level = ORT_OPTIMIZE_ALL};

    *wholly = true;
    return open_session(out, model_path, &set, provider, wholly);
}

static void drop_adapter(ort_session *s)
{
    if (s->options != NULL)
        s->rt.api.ReleaseRunOptions(s->options);
    if (s->adapter != NULL)
        s->rt.api.ReleaseLoraAdapter(s->adapter);
    free(s->adapter_path);
    s->options = NULL;
    s->adapter = NULL;
    s->adapter_path = NULL;
}

void ort_session_close(ort_session *s)
{
    if (s == NULL)
        return;
    drop_adapter(s);
    if (s->memory != NULL)
        s->rt.api.ReleaseMemoryInfo(s->memory);
    if (s->session != NULL)
        s->rt.api.ReleaseSession(s->session);
    ort_runtime_close(&s->rt);
    dr_arena_release(&s->arena);
    free(s);
}

dr_status ort_session_adapter(ort_session *s, const char *path)
{
    const ort_api *api = &s->rt.api;
    dr_status st = DR_OK;

    drop_adapter(s);
    if (path == NULL)
        return DR_OK;
    if (!dr_is_file(path))
        DR_FAIL(DR_EIO, "%s: no such file", path);
    s->adapter_path = dr_strdup(path);
    DR_TRY(ort_result(api, api->CreateLoraAdapter(path, NULL, &s->adapter), path));
    DR_TRY(ort_result(api, api->CreateRunOptions(&s->options), path));
    DR_TRY(
        ort_result(api, api->RunOptionsAddActiveLoraAdapter(s->options, s->adapter), path));
done:
    if (st != DR_OK)
        drop_adapter(s);
    return st;
}

/* ---- inputs and outputs by number ---- */

size_t ort_session_input_count(const ort_session *s)
{
    return s->input_count;
}

const char *ort_session_input_name(const ort_session *s, size_t i)
{
    DR_BUG_IF(i >= s->input_count);
    return s->inputs[i].name;
}

size_t ort_session_output_count(const ort_session *s)
{
    return s->output_count;
}

const char *ort_session_output_name(const ort_session *s, size_t i)
{
    DR_BUG_IF(i >= s->output_count);
    return s->outputs[i].name;
}

const char *session_input_symbol(const ort_session *s, size_t i, int d)
{
    DR_BUG_IF(i >= s->input_count || d < 0 || (size_t)d >= s->inputs[i].rank);
    return s->inputs[i].symbols[d];
}

int64_t session_symbol_dim(const char *input, const char *symbol, int d, int64_t tokens)
{
    const bool cache = strstr(input, "past") != NULL;

    if (strstr(symbol, "batch") != NULL)
        return 1;
    if (strstr(symbol, "past") != NULL && strstr(symbol, "total") == NULL &&
        strchr(symbol, '+') == NULL)
        return 0;
    if (symbol[0] != '\0')
        return tokens;
    if (cache && d == 2)
        return 0;
    return d == 0 ? 1 : tokens;
}

static dr_status to_dtype(dr_dtype *out, int type, const char *path, const char *name)
{
    for (int t = 0; t < DR_DTYPE_COUNT; t++) {
        if (dr_dtype_onnx((dr_dtype)t) == type) {
            *out = (dr_dtype)t;
            return DR_OK;
        }
    }
    return dr_fail(DR_EUNSUPPORTED, "%s: %s has elements of ONNX type %d%s", path, name,
                   type, type == 0 ? " (not a tensor)" : "");
}

static dr_status describe(const ort_session *s, const port *p, ort_value *out)
{
    dr_status st = DR_OK;

    *out = (ort_value){.name = p->name, .ndim = (int)p->rank};
    if (p->rank > RANK_MAX)
        DR_FAIL(DR_EUNSUPPORTED, "%s: %s has %zu dims, more than %d", s->path, p->name,
                p->rank, (int)RANK_MAX);
    DR_TRY(to_dtype(&out->dtype, p->type, s->path, p->name));
    memcpy(out->dims, p->dims, p->rank * sizeof(p->dims[0]));
done:
    return st;
}

dr_status ort_session_input(const ort_session *s, size_t i, ort_value *out, bool *optional)
{
    DR_BUG_IF(i >= s->input_count);
    *optional = s->inputs[i].optional;
    return describe(s, &s->inputs[i], out);
}

dr_status ort_session_output(const ort_session *s, size_t i, ort_value *out)
{
    DR_BUG_IF(i >= s->output_count);
    return describe(s, &s->outputs[i], out);
}

/* ---- a run ---- */

/* The bytes that type and dims ask for; false for a negative dim or an overflow. */
static bool value_bytes(size_t *bytes, const ort_value *v)
{
    bool ok = v->ndim >= 0 && v->ndim <= RANK_MAX;

    *bytes = dr_dtype_bytes(v->dtype);
    for (int d = 0; ok && d < v->ndim; d++)
        ok = v->dims[d] >= 0 && dr_mul(bytes, *bytes, (size_t)v->dims[d]);
    return ok;
}

static dr_status wrap_input(ort_session *s, OrtValue **out, const ort_value *v)
{
    static char nothing[1]; /* an empty tensor still needs an address */
    const ort_api *api = &s->rt.api;
    size_t bytes = 0;

    if (!value_bytes(&bytes, v) || bytes != v->bytes)
        return dr_fail(DR_EUSAGE, "%s: input %s: %zu bytes given, its shape needs %zu",
                       s->path, v->name, v->bytes, bytes);
    return ort_result(api,
                      api->CreateTensorWithDataAsOrtValue(
                          s->memory, bytes > 0 ? v->data : nothing, bytes, v->dims,
                          (size_t)v->ndim, dr_dtype_onnx(v->dtype), out),
                      s->path);
}

/* Takes the tensor over, also when it fails. */
static dr_status unwrap_output(ort_session *s, ort_value *out, const char *name,
                               OrtValue *value)
{
    const ort_api *api = &s->rt.api;
    OrtTensorInfo *info = NULL;
    int is_tensor = 0, type = 0;
    size_t rank = 0;
    result_owner *owner = dr_calloc(1, sizeof(*owner));
    dr_status st = DR_OK;

    *owner = (result_owner){value, api->ReleaseValue};
    *out = (ort_value){.name = name, .owner = owner};
    DR_TRY(ort_result(api, api->IsTensor(value, &is_tensor), s->path));
    if (!is_tensor)
        DR_FAIL(DR_EUNSUPPORTED, "%s: output %s is not a tensor", s->path, name);
    DR_TRY(ort_result(api, api->GetTensorTypeAndShape(value, &info), s->path));
    DR_TRY(ort_result(api, api->GetTensorElementType(info, &type), s->path));
    DR_TRY(to_dtype(&out->dtype, type, s->path, name));
    DR_TRY(ort_result(api, api->GetDimensionsCount(info, &rank), s->path));
    if (rank > RANK_MAX)
        DR_FAIL(DR_EUNSUPPORTED, "%s: output %s has %zu dims, more than %d", s->path, name,
                rank, (int)RANK_MAX);
    out->ndim = (int)rank;
    DR_TRY(ort_result(api, api->GetDimensions(info, out->dims, rank), s->path));
    DR_TRY(ort_result(api, api->GetTensorMutableData(value, &out->data), s->path));
    DR_BUG_IF(!value_bytes(&out->bytes, out));
done:
    if (info != NULL)
        api->ReleaseTensorTypeAndShapeInfo(info);
    return st;
}

dr_status ort_session_run(ort_session *s, const ort_value *inputs, size_t input_count,
                          const char *const *output_names, ort_value *outputs,
                          size_t output_count)
{
    const ort_api *api = &s->rt.api;
    OrtValue **in = dr_calloc(input_count + 1, sizeof(*in));
    OrtValue **out = dr_calloc(output_count + 1, sizeof(*out));
    const char **names = dr_calloc(input_count + 1, sizeof(*names));
    dr_status st = DR_OK;

    DR_BUG_IF(input_count > VALUES_MAX || output_count > VALUES_MAX);
    memset(outputs, 0, output_count * sizeof(*outputs));
    for (size_t i = 0; i < input_count; i++) {
        names[i] = inputs[i].name;
        DR_TRY(wrap_input(s, &in[i], &inputs[i]));
    }
    st = ort_result(api,
                    api->Run(s->session, s->options, names, (const OrtValue *const *)in,
                             input_count, output_names, output_count, out),
                    s->path);
    if (st != DR_OK && s->adapter_path != NULL)
        ort_note_adapter(s->adapter_path);
    DR_TRY(st);
    for (size_t i = 0; i < output_count; i++) {
        OrtValue *value = out[i];
        out[i] = NULL;
        DR_TRY(unwrap_output(s, &outputs[i], output_names[i], value));
    }
done:
    for (size_t i = 0; i < input_count; i++)
        if (in[i] != NULL)
            api->ReleaseValue(in[i]);
    for (size_t i = 0; i < output_count; i++)
        if (out[i] != NULL)
            api->ReleaseValue(out[i]);
    if (st != DR_OK)
        ort_values_release(outputs, output_count);
    free(in);
    free(out);
    free(names);
    return st;
}

void ort_values_release(ort_value *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        result_owner *owner = values[i].owner;
        if (owner != NULL) {
            owner->release(owner->value);
            free(owner);
        }
        values[i] = (ort_value){0};
    }
}
