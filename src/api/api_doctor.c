/*
 * api_doctor.c - what this machine offers.
 */
#include <stdlib.h>

#include "api/drupe_impl.h"
#include "core/file.h"
#include "core/pool.h"
#include "flow/flow.h"
#include "ort/ort.h"

/* The instruction sets that matter to quantized models. */
static dr_status add_cpu(drupe_result *r)
{
    json_t *list = json_array();
    dr_status st = DR_OK;

    DR_TRY(dr_buf_addf(&r->text, "processors     %d\n", dr_cpu_count()));
    api_set_int(r->report, "processors", (uint64_t)dr_cpu_count());
#if defined(__x86_64__)
    static const char *const names[] = {"avx2", "fma", "avx512f", "avx512vnni",
                                        "avx512bf16"};
    __builtin_cpu_init();
    const bool have[] = {
        __builtin_cpu_supports("avx2") != 0, __builtin_cpu_supports("fma") != 0,
        __builtin_cpu_supports("avx512f") != 0, __builtin_cpu_supports("avx512vnni") != 0,
        __builtin_cpu_supports("avx512bf16") != 0};
    DR_TRY(dr_buf_adds(&r->text, "instructions  "));
    for (size_t i = 0; i < DR_COUNT(names); i++) {
        if (!have[i])
            continue;
        DR_TRY(dr_buf_addf(&r->text, " %s", names[i]));
        json_array_append_new(list, json_string(names[i]));
    }
    DR_TRY(dr_buf_adds(&r->text, "\n"));
#endif
    json_object_set(r->report, "instructions", list);
done:
    json_decref(list);
    return st;
}

typedef struct {
    const char *label, *key; /* for people, for programs */
    bool found;
    const char *version, *path; /* NULL: unknown */
} runtime;

static dr_status add_runtime(drupe_result *r, const runtime *f, const char *why)
{
    json_t *j = json_pack("{s:b}", "found", (int)f->found);

    json_object_set_new(r->report, f->key, j);
    if (!f->found)
        return dr_buf_addf(&r->text, "%-14s not found%s%s\n", f->label, why ? ": " : "",
                           why ? why : "");
    json_object_set_new(j, "version", f->version ? json_string(f->version) : json_null());
    json_object_set_new(j, "path", f->path ? json_string(f->path) : json_null());
    return dr_buf_addf(&r->text, "%-14s %s %s\n", f->label,
                       f->version ? f->version : "found", f->path ? f->path : "");
}

static dr_status add_runtimes(drupe_result *r, dr_arena *a)
{
    ort_info info = {0};
    json_t *providers = json_array(), *plugins = json_object();
    dr_status st = DR_OK;

    ort_probe(a, &info);
    const runtime found[] = {
        {"onnxruntime", "onnxruntime", info.ort_found, info.ort_version, info.ort_path},
        {"genai", "onnxruntime_genai", info.genai_found, info.genai_version,
         info.genai_path}};
    for (size_t i = 0; i < DR_COUNT(found); i++)
        DR_TRY(add_runtime(r, &found[i], info.why));
    for (size_t i = 0; i < info.provider_count; i++) {
        DR_TRY(
            dr_buf_addf(&r->text, "%s%s", i ? ", " : "providers      ", info.providers[i]));
        json_array_append_new(providers, json_string(info.providers[i]));
    }
    if (info.provider_count > 0)
        DR_TRY(dr_buf_adds(&r->text, "\n"));
    for (size_t i = 0; i < info.plugin_count; i++) {
        const ort_plugin *p = &info.plugins[i];
        DR_TRY(
            dr_buf_addf(&r->text, "%-14s %s %s\n", i ? "" : "plugins", p->name, p->path));
        json_object_set_new(plugins, p->name, json_string(p->path));
    }
    json_object_set(r->report, "providers", providers);
    json_object_set(r->report, "plugins", plugins);
done:
    json_decref(providers);
    json_decref(plugins);
    return st;
}

static const char *env_of(const char *name)
{
    const char *v = getenv(name);

    return v != NULL && *v != '\0' ? v : NULL;
}

/* Where hf_resolve looks: as Python's huggingface_hub finds its cache. */
static const char *hub_cache(dr_arena *a)
{
    const char *cache = env_of("HF_HUB_CACHE"), *home = env_of("HF_HOME");

    if (cache == NULL)
        cache = env_of("HUGGINGFACE_HUB_CACHE");
    if (cache == NULL && home == NULL) {
        const char *xdg = env_of("XDG_CACHE_HOME");
        home = dr_path_join(a, xdg != NULL ? xdg : "~/.cache", "huggingface");
    }
    if (cache == NULL)
        cache = dr_path_join(a, home, "hub");
    if (cache[0] == '~' && cache[1] == '/' && env_of("HOME") != NULL)
        cache = dr_arena_printf(a, "%s%s", env_of("HOME"), cache + 1);
    return cache;
}

static dr_status add_disk(drupe_result *r, dr_arena *a)
{
    const char *cache = hub_cache(a);
    uint64_t free_bytes = dr_disk_free(".");
    dr_status st = DR_OK;

    DR_TRY(
        dr_buf_addf(&r->text, "free disk      %.1f GB here\n", (double)free_bytes / 1e9));
    DR_TRY(dr_buf_addf(&r->text, "hub cache      %s%s\n", cache,
                       dr_is_dir(cache) ? "" : " (none yet)"));
    api_set_int(r->report, "free_disk_bytes", free_bytes);
    json_object_set_new(r->report, "hub_cache", json_string(cache));
    json_object_set_new(r->report, "hub_cache_exists", json_boolean(dr_is_dir(cache)));
done:
    return st;
}

/* What quantize and finetune will compute on. */
static dr_status add_device(drupe_result *r, dr_arena *a)
{
    const char *text = NULL;
    dr_status st = DR_OK;

    DR_TRY(flow_describe_device(a, &text));
    DR_TRY(dr_buf_addf(&r->text, "device         %s\n", text));
    json_object_set_new(r->report, "device", json_string(text));
done:
    return st;
}

static dr_status add_memory(drupe_result *r)
{
    uint64_t bytes = flow_memory_available();
    dr_status st = DR_OK;

    DR_TRY(
        dr_buf_addf(&r->text, "memory         %.1f GB available\n", (double)bytes / 1e9));
    api_set_int(r->report, "memory_available_bytes", bytes);
done:
    return st;
}

drupe_status drupe_doctor(drupe_result **out)
{
    drupe_result *r = api_result_new();
    dr_arena a = {0};
    dr_status st = DR_OK;

    *out = NULL;
    dr_trail_clear();
    DR_TRY(dr_buf_addf(&r->text, "drupe          %s\n", DRUPE_VERSION));
    json_object_set_new(r->report, "drupe", json_string(DRUPE_VERSION));
    DR_TRY(add_cpu(r));
    DR_TRY(add_memory(r));
    DR_TRY(add_device(r, &a));
    DR_TRY(add_runtimes(r, &a));
    DR_TRY(add_disk(r, &a));
    api_result_seal(r);
    *out = r;
    r = NULL;
done:
    drupe_result_free(r);
    dr_arena_release(&a);
    return (drupe_status)st;
}
