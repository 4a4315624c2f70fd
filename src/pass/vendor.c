/*
 * vendor.c - programs of vendors: where they are, and what tells two versions apart.
 *
 * A program is looked for where its SDK has it (the variable of its row names the SDK's
 * folder), then in PATH, as a shell would.  Nothing is run to learn its version: the key of
 * a cached result has the program's path and content, the SDK's own sdk.yaml, and, for a
 * script of a Python environment, the names of the packages that are installed beside it
 * (openvino-2026.4.1.dist-info), since such a script is the same ten lines in all versions.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/file.h"
#include "core/hash.h"
#include "core/json.h"
#include "core/mem.h"
#include "ort/ort.h"
#include "pass/vendor_impl.h"

enum { IDENTITY_BYTES = 4 << 20 };

static const struct {
    const char *name, *variable, *install;
} rows[] = {
#define PROGRAM(name, variable, install) {name, variable, install},
#include "pass/vendor_programs.def"
#undef PROGRAM
};

static bool is_program(const char *path)
{
    return dr_is_file(path) && access(path, X_OK) == 0;
}

/* NULL: PATH has none of this name. */
static const char *in_path(dr_arena *a, const char *name)
{
    const char *path = getenv("PATH");

    for (const char *p = path != NULL ? path : ""; *p != '\0';) {
        const size_t n = strcspn(p, ":");
        const char *dir = n > 0 ? dr_arena_strndup(a, p, n) : ".";
        const char *file = dr_path_join(a, dir, name);
        if (is_program(file))
            return file;
        p += n + (p[n] == ':');
    }
    return NULL;
}

/* What this machine's programs are in an SDK of Qualcomm's: bin/x86_64-linux-clang. */
static const char *arch_of(dr_arena *a, const char *root)
{
    static const char *const beginnings[] = {"x86_64-linux", "aarch64-ubuntu",
                                             "aarch64-oe-linux"};
    struct utsname u;
    char **names = NULL;
    size_t count = 0;
    const bool x86 = uname(&u) != 0 || strcmp(u.machine, "x86_64") == 0;
    const char *bin = dr_path_join(a, root, "bin");

    if (!dr_is_dir(bin) || dr_list_dir(a, bin, &names, &count) != DR_OK)
        count = 0;
    for (size_t b = x86 ? 0 : 1; b < (x86 ? 1 : DR_COUNT(beginnings)); b++)
        for (size_t i = 0; i < count; i++)
            if (strncmp(names[i], beginnings[b], strlen(beginnings[b])) == 0)
                return names[i];
    return x86 ? "x86_64-linux-clang" : "aarch64-ubuntu-gcc9.4";
}

static void look_in_sdk(pass_program *p, dr_arena *a, const char *variable)
{
    const char *root = getenv(variable);

    if (root == NULL || *root == '\0') {
        p->looked = dr_arena_printf(a, "in PATH (%s is not set)", variable);
        return;
    }
    const char *arch = arch_of(a, root);
    const char *file = dr_arena_printf(a, "%s/bin/%s/%s", root, arch, p->name);
    p->looked = dr_arena_printf(a, "in %s/bin/%s (%s) and in PATH", root, arch, variable);
    if (!is_program(file))
        return;
    p->path = file;
    p->root = root;
    p->arch = arch;
}

static void find_program(pass_program *out, dr_arena *a, const char *name)
{
    size_t i = 0;

    while (i < DR_COUNT(rows) && strcmp(rows[i].name, name) != 0)
        i++;
    DR_BUG_IF(i == DR_COUNT(rows));
    *out = (pass_program){
        .name = rows[i].name, .install = rows[i].install, .looked = "in PATH"};
    if (rows[i].variable != NULL)
        look_in_sdk(out, a, rows[i].variable);
    if (out->path == NULL)
        out->path = in_path(a, name);
}

/* The library of a provider. */
static void find_library(pass_program *out, dr_arena *a, const char *provider)
{
    const char *file = ort_plugin_library(provider);
    ort_info info = {0};

    *out = (pass_program){.name = file != NULL ? file : provider,
                          .looked = "in DRUPE_LIB_PATH and beside the runtime",
                          .install =
                              "onnxruntime 1.22 or later and a provider that comes as a "
                              "library (pip install onnxruntime onnxruntime-qnn); name "
                              "both folders in DRUPE_LIB_PATH"};
    ort_probe(a, &info);
    out->runtime = info.ort_version;
    for (size_t i = 0; i < info.plugin_count; i++)
        if (strcmp(info.plugins[i].name, provider) == 0)
            out->path = info.plugins[i].path;
}

bool pass_program_find(pass_program *out, dr_arena *a, const pass_def *d,
                       const json_t *config)
{
    const dr_param *row =
        d->provided ? dr_param_find(d->params, d->params_count, "provider") : NULL;
    const char *given = json_string_value(json_object_get(config, "provider"));

    *out = (pass_program){0};
    if (d->program != NULL)
        find_program(out, a, d->program);
    else if (row != NULL)
        find_library(out, a, given != NULL ? given : row->dflt);
    return out->name != NULL;
}

dr_status pass_program_need(pass_program *out, dr_arena *a, const pass_def *d,
                            const json_t *config)
{
    dr_status st;

    if (!pass_program_find(out, a, d, config) || out->path != NULL)
        return DR_OK;
    st = dr_fail(DR_EUNSUPPORTED, "%s runs %s, which is not installed: looked for it %s",
                 d->name, out->name, out->looked);
    dr_hint("install it: %s", out->install);
    return st;
}

/* Names of what pip installed in PREFIX/lib/python3.N. */
static dr_status add_packages(dr_buf *b, dr_arena *a, const char *prefix)
{
    static const char *const kinds[] = {"site-packages", "dist-packages"};
    const char *lib = dr_path_join(a, prefix, "lib");
    char **versions = NULL, **names = NULL;
    size_t count = 0, n = 0;
    dr_status st = DR_OK;

    if (!dr_is_dir(lib))
        return DR_OK;
    DR_TRY(dr_list_dir(a, lib, &versions, &count));
    for (size_t i = 0; i < 2 * count; i++) {
        const char *python = versions[i / 2];
        const char *dir = dr_arena_printf(a, "%s/%s/%s", lib, python, kinds[i % 2]);
        if (strncmp(python, "python3", strlen("python3")) != 0 || !dr_is_dir(dir))
            continue;
        DR_TRY(dr_list_dir(a, dir, &names, &n));
        for (size_t k = 0; k < n; k++)
            if (dr_ends_with(names[k], ".dist-info"))
                DR_TRY(dr_buf_addf(b, "%s %s\n", python, names[k]));
    }
done:
    return st;
}

dr_status pass_program_identity(char hex[DR_SHA256_HEX], const pass_program *p)
{
    dr_arena a = {0};
    char content[DR_SHA256_HEX];
    const char *path = NULL;
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, IDENTITY_BYTES);
    DR_TRY(vendor_absolute(&path, &a, p->path));
    DR_TRY(dr_sha256_file(content, path));
    DR_TRY(dr_buf_addf(&b, "%s %s\n", path, content));
    if (p->runtime != NULL)
        DR_TRY(dr_buf_addf(&b, "onnxruntime %s\n", p->runtime));
    if (p->root != NULL) {
        const char *sdk = dr_path_join(&a, p->root, "sdk.yaml");
        if (dr_is_file(sdk)) {
            DR_TRY(dr_sha256_file(content, sdk));
            DR_TRY(dr_buf_addf(&b, "sdk.yaml %s\n", content));
        }
        DR_TRY(add_packages(&b, &a, dr_path_join(&a, p->root, "olive-pyenv")));
    }
    DR_TRY(add_packages(&b, &a, dr_path_dir(&a, dr_path_dir(&a, path))));
    dr_sha256(hex, b.data, b.len);
done:
    dr_buf_release(&b);
    dr_arena_release(&a);
    return st;
}

dr_status vendor_absolute(const char **out, dr_arena *a, const char *path)
{
    char *whole = realpath(path, NULL);

    if (whole == NULL)
        return dr_fail(DR_EIO, "%s: it is not there", path);
    *out = dr_arena_strdup(a, whole);
    free(whole);
    return DR_OK;
}

dr_status vendor_hf_folder(const char **out, dr_arena *a, const pass_job *job,
                           const pass_model *in)
{
    dr_status st = DR_OK;

    if (!dr_is_dir(in->path))
        DR_FAIL(DR_EUNSUPPORTED, "%s: %s reads folders of Hugging Face", in->name,
                job->def->program);
    if (in->adapter_count > 0) {
        st = dr_fail(DR_EUNSUPPORTED, "%s: %s reads no adapters", in->name,
                     job->def->program);
        dr_hint("MergeAdapterWeights before it folds them into the weights");
        goto done;
    }
    DR_TRY(vendor_absolute(out, a, in->path));
done:
    return st;
}

dr_status vendor_check_name(const char *name, const char *label)
{
    if (name == NULL || *name == '\0' || *name == '.' || *name == '-' ||
        strchr(name, '/') != NULL)
        return dr_fail(DR_EUSAGE, "%s: expected a name without slashes, found \"%s\"",
                       label, name != NULL ? name : "");
    return DR_OK;
}

dr_status vendor_attributes(const char **out, const pass_job *job, const pass_model *in,
                            json_t *more)
{
    json_t *j = NULL;
    char *text = NULL;
    dr_status st = DR_OK;

    if (more == NULL)
        DR_FAIL(DR_EUSAGE, "a text that is not UTF-8 cannot be in model_config.json");
    if (in->attributes != NULL)
        DR_TRY(
            dr_json_parse(&j, in->attributes, strlen(in->attributes), "model_attributes"));
    else
        j = json_object();
    (void)json_object_update(j, more);
    text = json_dumps(j, JSON_COMPACT);
    *out = dr_arena_strdup(job->arena, text != NULL ? text : "{}");
done:
    free(text);
    json_decref(j);
    json_decref(more);
    return st;
}

dr_status vendor_tell(const pass_job *job)
{
    pass_program p = {0};
    char identity[DR_SHA256_HEX];
    dr_status st = DR_OK;

    DR_TRY(pass_program_need(&p, job->arena, job->def, NULL));
    DR_TRY(pass_program_identity(identity, &p));
    DR_TRY(dr_buf_addf(job->text, "program        %s\n", p.path));
    json_object_set_new(
        job->report, "program",
        json_pack("{s:s, s:s, s:s}", "name", p.name, "path", p.path, "identity", identity));
done:
    return st;
}
