/*
 * plugin.c - execution providers in libraries of their own, registered with the runtime.
 *
 * 1. The runtime gives "devices": pairs of a provider and a piece of hardware that it can
 *    use.  An NPU is taken where the provider has one, else its first device, which for QNN
 *    and OpenVINO on a machine without their hardware is the CPU (QNN simulates its NPU).
 * 2. Whether a library was registered already is asked of the runtime, whose environment is
 *    one a process: nothing is remembered here.
 * 3. QNN, the one with a back end, gives rounding at the graph's edges to the CPU unless
 *    told not to, which would make every graph with float inputs a mixed one; and where it
 *    simulates its NPU it takes the oldest, whose 16-bit arithmetic is coarser.
 */
#include "ort/plugin_impl.h"

#include <string.h>

#include "core/file.h"
#include "core/mem.h"

#define SIMULATED_ARCH "73"

typedef struct {
    const char *name, *file, *backend, *option;
} plugin;

static const plugin plugins[] = {
#define ORT_PLUGIN(name, file, backend, option) {name, file, backend, option},
#include "ort/plugins.def"
#undef ORT_PLUGIN
};

static const plugin *find_plugin(const char *name)
{
    for (size_t i = 0; i < DR_COUNT(plugins); i++) {
        if (strcmp(plugins[i].name, name) == 0)
            return &plugins[i];
    }
    return NULL;
}

/* The device of this provider that is taken; NULL: it is not registered, or has none. */
static dr_status find_device(const ort_runtime *r, const OrtEpDevice **out,
                             const char *name)
{
    const ort_api *api = &r->api;
    const OrtEpDevice *const *devices = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    *out = NULL;
    DR_TRY(ort_result(api, api->GetEpDevices(r->env, &devices, &count), name));
    for (size_t i = 0; i < count; i++) {
        if (strcmp(api->EpDevice_EpName(devices[i]), name) != 0)
            continue;
        const int type = api->HardwareDevice_Type(api->EpDevice_Device(devices[i]));
        if (*out == NULL || type == ORT_HARDWARE_NPU)
            *out = devices[i];
    }
done:
    return st;
}

dr_status plugin_register(ort_runtime *r, const char *provider)
{
    const plugin *p = find_plugin(provider);
    const OrtEpDevice *device = NULL;
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_BUG_IF(p == NULL);
    if (r->api.RegisterExecutionProviderLibrary == NULL)
        DR_FAIL(DR_EDEVICE, "provider %s needs onnxruntime 1.%d, this is %s", provider,
                ORT_PLUGIN_VERSION, r->version);
    DR_TRY(find_device(r, &device, provider));
    if (device != NULL)
        goto done;
    const char *path = library_find(&a, &r->lib, p->file);
    if (path == NULL) {
        st = dr_fail(DR_EDEVICE, "provider %s is not in this runtime: there is no %s",
                     provider, p->file);
        dr_hint("set DRUPE_LIB_PATH to the folders of the runtime and of the provider");
        goto done;
    }
    DR_TRY(ort_result(
        &r->api, r->api.RegisterExecutionProviderLibrary(r->env, provider, path), path));
    DR_TRY(find_device(r, &device, provider));
    if (device == NULL)
        DR_FAIL(DR_EDEVICE, "provider %s has no device on this machine", provider);
done:
    dr_arena_release(&a);
    return st;
}

const char *ort_plugin_library(const char *provider)
{
    const plugin *p = find_plugin(provider);

    return p != NULL ? p->file : NULL;
}

/* What a provider is told; of two with one key the first one counts. */
typedef struct {
    const char **keys, **values; /* arena */
    size_t count;
} options;

static void tell(options *o, const char *key, const char *value)
{
    for (size_t i = 0; i < o->count; i++)
        if (strcmp(o->keys[i], key) == 0)
            return;
    o->keys[o->count] = key;
    o->values[o->count++] = value;
}

dr_status plugin_append(ort_runtime *r, OrtSessionOptions *o, const char *provider,
                        bool strict, const ort_option *more, size_t more_count)
{
    const ort_api *api = &r->api;
    const plugin *p = find_plugin(provider);
    const OrtEpDevice *device = NULL;
    options all = {0};
    dr_arena a = {0};
    dr_status st = DR_OK;

    DR_BUG_IF(p == NULL);
    all.keys = dr_arena_alloc(&a, more_count + 3, sizeof(*all.keys));
    all.values = dr_arena_alloc(&a, more_count + 3, sizeof(*all.values));
    for (size_t i = 0; i < more_count; i++)
        tell(&all, more[i].key, more[i].value);
    DR_TRY(find_device(r, &device, provider));
    DR_BUG_IF(device == NULL);
    if (p->backend != NULL) {
        const char *path = library_find(&a, &r->lib, p->backend);
        if (path != NULL)
            tell(&all, p->option, path);
        tell(&all, "offload_graph_io_quantization", "0");
        if (api->HardwareDevice_Type(api->EpDevice_Device(device)) != ORT_HARDWARE_NPU)
            tell(&all, "htp_arch", SIMULATED_ARCH);
    }
    if (strict)
        DR_TRY(ort_result(
            api, api->AddSessionConfigEntry(o, "session.disable_cpu_ep_fallback", "1"),
            provider));
    DR_TRY(ort_result(api,
                      api->SessionOptionsAppendExecutionProvider_V2(
                          o, r->env, &device, 1, all.keys, all.values, all.count),
                      provider));
done:
    dr_arena_release(&a);
    return st;
}
