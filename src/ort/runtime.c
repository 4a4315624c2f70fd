/*
 * runtime.c - ONNX Runtime and GenAI as tables of calls, made from what a library exports.
 *
 * 1. OrtApi is read by slot number, so one binary runs on ONNX Runtime 1.20 and all later
 *    ones.  A version below is told from the version string, because asking it for a newer
 *    table makes it print to stderr.
 * 2. Both libraries of the official packages send usage data to their makers unless told
 *    not to before they start (ORT_DISABLE_TELEMETRY; found in 1.32 and 0.18).  drupe sends
 *    nothing: the variable is set, and the calls that do the same are made.
 * 3. ONNX Runtime's messages go to our log at level debug: what matters comes back as a
 *    status and is in the error's text.  Its environment is one a process, and the first
 *    one made decides where messages go, so ours is made before GenAI makes its own.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "core/log.h"
#include "core/mem.h"
#include "ort/api_impl.h"

typedef void (*any_fn)(void);

/* What the library's one symbol gives. */
typedef struct {
    const any_fn *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} ort_api_base;

/* dlsym as ISO C would have it: an object pointer's bytes become a function pointer's. */
static bool symbol(void *fn, void *handle, const char *name)
{
    void *at = dlsym(handle, name);

    memcpy(fn, &at, sizeof(at));
    return at != NULL;
}

/* Foreign text on one line, without the blanks and full stops at its end. */
static void tidy(char *out, size_t size, const char *text)
{
    size_t n = 0;

    for (; *text != '\0' && n + 1 < size; text++) {
        const bool blank = strchr(" \n\t\r", *text) != NULL;
        if (!blank)
            out[n++] = *text;
        else if (n > 0 && out[n - 1] != ' ')
            out[n++] = ' ';
    }
    while (n > 0 && (out[n - 1] == ' ' || out[n - 1] == '.'))
        n--;
    out[n] = '\0';
}

static dr_status foreign_fail(const char *where, const char *text)
{
    char line[DR_TRAIL_TEXT];

    tidy(line, sizeof(line), text);
    return dr_fail(DR_EDEVICE, "%s: %s", where, line);
}

void ort_note_adapter(const char *path)
{
    const dr_trail *t = dr_trail_get();
    bool name = t->count > 0 && strstr(t->frames[0].text, "nvalid input name") != NULL;

    dr_note_at(__FILE__, __LINE__, "with the adapter %s", path);
    if (name)
        dr_hint(
            "a parameter of the adapter is no input of this model: was the adapter made "
            "for another model, or with other names");
}

dr_status ort_result(const ort_api *api, OrtStatus *status, const char *where)
{
    if (status == NULL)
        return DR_OK;
    dr_status st = foreign_fail(where, api->GetErrorMessage(status));
    api->ReleaseStatus(status);
    return st;
}

dr_status oga_result(const oga_api *api, OgaResult *result, const char *where)
{
    if (result == NULL)
        return DR_OK;
    dr_status st = foreign_fail(where, api->OgaResultGetError(result));
    api->OgaDestroyResult(result);
    return st;
}

static void on_log(void *ctx, int severity, const char *category, const char *logid,
                   const char *place, const char *message)
{
    (void)ctx, (void)severity, (void)category, (void)logid;
    dr_log(DR_DEBUG, "onnxruntime: %s (%s)", message, place);
}

/* Only when it is not so already: other threads may be reading the environment. */
static void set_env(const char *name, const char *value)
{
    const char *now = getenv(name);

    if (now == NULL || strcmp(now, value) != 0)
        (void)setenv(name, value, 1);
}

/* ---- ONNX Runtime ---- */

/* "1.32.0" -> 32; the table's version is the minor one.  -1: not of that form. */
static long minor_version(const char *version)
{
    char *end = NULL;

    if (strncmp(version, "1.", 2) != 0)
        return -1;
    long minor = strtol(version + 2, &end, 10);
    return end != version + 2 ? minor : -1;
}

static void fill_table(ort_api *api, const any_fn *table)
{
#define ORT_SLOT(number, name, result, arguments)                                          \
    _Static_assert((number) < ORT_SLOT_END, "above the version asked for");                \
    api->name = (result(*) arguments)table[number];
#include "ort/ort_slots.def"
#undef ORT_SLOT
}

static void fill_plugin_table(ort_api *api, const any_fn *table)
{
#define ORT_SLOT(number, name, result, arguments)                                          \
    _Static_assert((number) < ORT_PLUGIN_END, "above the version asked for");              \
    api->name = (result(*) arguments)table[number];
#include "ort/ort_plugin.def"
#undef ORT_SLOT
}

static dr_status read_table(ort_runtime *r)
{
    const ort_api_base *(*get_base)(void) = NULL;
    const any_fn *table = NULL;
    dr_status st = DR_OK;

    if (!symbol(&get_base, r->lib.handle, "OrtGetApiBase")) {
        st = dr_fail(DR_EDEVICE, "%s: this is not ONNX Runtime: no OrtGetApiBase in it",
                     r->lib.path);
        library_hint("ONNX Runtime");
        goto done;
    }
    const ort_api_base *base = get_base();
    r->version = base->GetVersionString();
    long minor = minor_version(r->version);
    if (minor < 0 || minor >= ORT_API_VERSION)
        table = base->GetApi(ORT_API_VERSION);
    if (table == NULL) {
        st = dr_fail(DR_EDEVICE, "%s: ONNX Runtime %s is too old, 1.%d or later is needed",
                     r->lib.path, r->version, (int)ORT_API_VERSION);
        library_hint("a newer one");
        goto done;
    }
    fill_table(&r->api, table);
    table = minor >= ORT_PLUGIN_VERSION ? base->GetApi(ORT_PLUGIN_VERSION) : NULL;
    if (table != NULL)
        fill_plugin_table(&r->api, table);
done:
    return st;
}

dr_status ort_runtime_open(ort_runtime *r)
{
    static const char *const names[] = {"libonnxruntime.so.1", "libonnxruntime.so", NULL};
    dr_status st = DR_OK;

    *r = (ort_runtime){0};
    set_env("ORT_DISABLE_TELEMETRY", "1");
    DR_TRY(library_open(&r->lib, names, "ONNX Runtime"));
    DR_TRY(read_table(r));
    DR_TRY(ort_result(&r->api,
                      r->api.CreateEnvWithCustomLogger(on_log, NULL, ORT_SEVERITY_ERROR,
                                                       "drupe", &r->env),
                      r->lib.path));
    DR_TRY(ort_result(&r->api, r->api.DisableTelemetryEvents(r->env), r->lib.path));
done:
    if (st != DR_OK)
        ort_runtime_close(r);
    return st;
}

void ort_runtime_close(ort_runtime *r)
{
    if (r->env != NULL)
        r->api.ReleaseEnv(r->env);
    library_close(&r->lib);
    *r = (ort_runtime){0};
}

/* ---- GenAI ---- */

/* How many of a kind are there, and the first that is not. */
typedef struct {
    bool all;
    const char *lacking;
} oga_kind;

static void have(oga_kind *kind, bool found, const char *name)
{
    if (!found && kind->all)
        *kind = (oga_kind){.all = false, .lacking = name};
}

static dr_status read_exports(oga_runtime *r)
{
    oga_kind ALL = {.all = true}, OLD = {.all = true}, NEW = {.all = true}, MAYBE = {0};

#define OGA_FN(since, name, result, arguments)                                             \
    have(&(since), symbol(&r->api.name, r->lib.handle, #name), #name);
#include "ort/oga.def"
#undef OGA_FN
    (void)MAYBE;
    r->old = !NEW.all;
    if (ALL.all && (NEW.all || OLD.all))
        return DR_OK;
    dr_status st = dr_fail(DR_EDEVICE,
                           "%s: this is not ONNX Runtime GenAI 0.5 or later: no %s "
                           "in it",
                           r->lib.path, ALL.all ? NEW.lacking : ALL.lacking);
    library_hint("ONNX Runtime GenAI");
    return st;
}

dr_status oga_runtime_open(oga_runtime *r, const ort_runtime *ort)
{
    static const char *const names[] = {"libonnxruntime-genai.so", NULL};
    dr_status st = DR_OK;

    *r = (oga_runtime){0};
    set_env("ORT_LIB_PATH", ort->lib.path);
    DR_TRY(library_open(&r->lib, names, "ONNX Runtime GenAI"));
    DR_TRY(read_exports(r));
    if (r->api.OgaSetTelemetryEnabled != NULL)
        r->api.OgaSetTelemetryEnabled(false);
done:
    if (st != DR_OK)
        oga_runtime_close(r);
    return st;
}

void oga_runtime_close(oga_runtime *r)
{
    library_close(&r->lib);
    *r = (oga_runtime){0};
}

static void shut_down(int status, void *handle)
{
    void (*shutdown_oga)(void) = NULL;

    (void)status;
    if (symbol(&shutdown_oga, handle, "OgaShutdown"))
        shutdown_oga();
}

void oga_runtime_arrange_exit(const oga_runtime *r)
{
    /* A handle of its own, open to the end. */
    void *handle = dlopen(r->lib.path, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
    if (handle != NULL)
        (void)on_exit(shut_down, handle);
}

const char *oga_runtime_generation(const oga_runtime *r)
{
    return r->old ? "0.5 or earlier" : "0.6 or later";
}
