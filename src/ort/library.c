/*
 * library.c - where the runtimes' libraries are looked for, and what is here.
 *
 * In this order: the folders of DRUPE_LIB_PATH; lib/drupe beside the program's folder; the
 * build's .deps/lib, from the program's folder up five levels; the loader's own places.
 *
 * 1. A file that exists under the right name but cannot be loaded is an error: falling
 *    through to another copy would hide what the user asked for.
 * 2. Libraries are opened with RTLD_NODELETE and RTLD_LOCAL: they start threads and exit
 *    handlers that cannot be unloaded, and need not see each other's symbols.
 */
#include <dlfcn.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/mem.h"
#include "ort/api_impl.h"
#include "ort/ort.h"

enum { PARENTS = 5 };

typedef struct {
    const char **dirs; /* arena; room for all that can be added */
    size_t count;
} places;

static void add_env(places *p, dr_arena *a, const char *list)
{
    while (*list != '\0') {
        size_t n = strcspn(list, ":");
        if (n > 0)
            p->dirs[p->count++] = dr_arena_strndup(a, list, n);
        list += n + (list[n] == ':');
    }
}

static void add_program(places *p, dr_arena *a)
{
    char dir[4096];
    ssize_t n = readlink("/proc/self/exe", dir, sizeof(dir) - 1);
    char *slash = NULL;

    if (n <= 0)
        return;
    dir[n] = '\0';
    for (int up = 0; up <= PARENTS && (slash = strrchr(dir, '/')) != NULL; up++) {
        *slash = '\0';
        if (up == 0)
            p->dirs[p->count++] = dr_arena_printf(a, "%s/../lib/drupe", dir);
        p->dirs[p->count++] = dr_arena_printf(a, "%s/.deps/lib", dir);
    }
}

static places all_places(dr_arena *a)
{
    const char *list = getenv("DRUPE_LIB_PATH");
    places p = {0};

    if (list == NULL)
        list = "";
    p.dirs = dr_arena_alloc(a, strlen(list) + PARENTS + 2, sizeof(*p.dirs));
    add_env(&p, a, list);
    add_program(&p, a);
    return p;
}

void library_hint(const char *what)
{
    dr_hint("run `make setup`, or set DRUPE_LIB_PATH to a folder with %s for this machine",
            what);
}

/* False when there is no such library, or it cannot be loaded (dlerror tells). */
static bool load(library *lib, const char *name)
{
    lib->handle = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    return lib->handle != NULL;
}

/* The file behind a name that the loader found. */
static char *loaded_path(void *handle, const char *name)
{
    struct link_map *map = NULL;

    if (dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && map != NULL && map->l_name[0] != '\0')
        return dr_strdup(map->l_name);
    return dr_strdup(name);
}

/* "A, B, or " or nothing; the trail's frame cuts what is too long. */
static const char *places_text(const places *p, dr_arena *a)
{
    const char *text = "";

    for (size_t i = 0; i < p->count; i++)
        text = dr_arena_printf(a, "%s%s, ", text, p->dirs[i]);
    return p->count == 0 ? text : dr_arena_printf(a, "%sor ", text);
}

/*
 * The file of one folder: under one of the names, or, as wheels have it, the first name
 * with more of its version ("libonnxruntime.so.1" as "libonnxruntime.so.1.24.1").
 */
static const char *file_in(dr_arena *a, const char *dir, const char *const *names)
{
    char **entries = NULL;
    size_t count = 0;

    for (const char *const *name = names; *name != NULL; name++) {
        const char *file = dr_path_join(a, dir, *name);
        if (dr_exists(file))
            return file;
    }
    if (!dr_is_dir(dir) || dr_list_dir(a, dir, &entries, &count) != DR_OK) {
        dr_trail_clear();
        return NULL;
    }
    const size_t n = strlen(names[0]);
    for (size_t i = 0; i < count; i++) {
        if (strncmp(entries[i], names[0], n) == 0 && entries[i][n] == '.')
            return dr_path_join(a, dir, entries[i]);
    }
    return NULL;
}

/* The library of one folder; lib->handle stays NULL when it is not there. */
static dr_status open_in(library *lib, dr_arena *a, const char *dir,
                         const char *const *names, const char *what)
{
    const char *file = file_in(a, dir, names);

    if (file == NULL)
        return DR_OK;
    if (load(lib, file)) {
        lib->path = dr_strdup(file);
        return DR_OK;
    }
    dr_status st = dr_fail(DR_EDEVICE, "%s: cannot be loaded: %s", file, dlerror());
    library_hint(what);
    return st;
}

dr_status library_open(library *lib, const char *const *names, const char *what)
{
    dr_arena a = {0};
    const places p = all_places(&a);
    dr_status st = DR_OK;

    *lib = (library){0};
    for (size_t i = 0; i < p.count && lib->handle == NULL; i++)
        DR_TRY(open_in(lib, &a, p.dirs[i], names, what));
    for (const char *const *name = names; *name != NULL && lib->handle == NULL; name++) {
        if (load(lib, *name))
            lib->path = loaded_path(lib->handle, *name);
    }
    if (lib->handle == NULL) {
        st = dr_fail(DR_EDEVICE, "%s was not found: no %s in %sthe loader's folders",
                     what, names[0], places_text(&p, &a));
        library_hint(what);
    }
done:
    dr_arena_release(&a);
    return st;
}

const char *library_find(dr_arena *a, const library *lib, const char *name)
{
    const places p = all_places(a);
    const char *slash = lib != NULL && lib->path != NULL ? strrchr(lib->path, '/') : NULL;

    for (size_t i = 0; i < p.count; i++) {
        const char *file = dr_path_join(a, p.dirs[i], name);
        if (dr_is_file(file))
            return file;
    }
    if (slash == NULL)
        return NULL;
    const char *dir = dr_arena_strndup(a, lib->path, (size_t)(slash - lib->path));
    const char *file = dr_path_join(a, dir, name);
    return dr_is_file(file) ? file : NULL;
}

void library_close(library *lib)
{
    if (lib->handle != NULL)
        (void)dlclose(lib->handle);
    free(lib->path);
    *lib = (library){0};
}

/* ---- what is here ---- */

static dr_status probe_providers(dr_arena *a, ort_info *out, const ort_runtime *r)
{
    char **names = NULL;
    int count = 0;
    dr_status st = DR_OK;

    DR_TRY(ort_result(&r->api, r->api.GetAvailableProviders(&names, &count), r->lib.path));
    out->providers = dr_arena_alloc(a, (size_t)count + 1, sizeof(char *));
    for (int i = 0; i < count; i++)
        out->providers[out->provider_count++] = dr_arena_strdup(a, names[i]);
    DR_TRY(
        ort_result(&r->api, r->api.ReleaseAvailableProviders(names, count), r->lib.path));
done:
    return st;
}

/* Providers in libraries of their own; their files are not loaded. */
static void probe_plugins(dr_arena *a, ort_info *out, const ort_runtime *r)
{
    static const char *const rows[][2] = {
#define ORT_PLUGIN(name, file, backend, option) {name, file},
#include "ort/plugins.def"
#undef ORT_PLUGIN
    };

    out->plugins = dr_arena_alloc(a, DR_COUNT(rows), sizeof(*out->plugins));
    for (size_t i = 0; i < DR_COUNT(rows); i++) {
        const char *path = library_find(a, &r->lib, rows[i][1]);
        if (path != NULL)
            out->plugins[out->plugin_count++] = (ort_plugin){rows[i][0], path};
    }
}

void ort_probe(dr_arena *a, ort_info *out)
{
    ort_runtime ort = {0};
    oga_runtime oga = {0};
    dr_status st = DR_OK;

    *out = (ort_info){0};
    DR_TRY(ort_runtime_open(&ort));
    out->ort_found = true;
    out->ort_path = dr_arena_strdup(a, ort.lib.path);
    out->ort_version = dr_arena_strdup(a, ort.version);
    DR_TRY(probe_providers(a, out, &ort));
    probe_plugins(a, out, &ort);

    DR_TRY(oga_runtime_open(&oga, &ort));
    out->genai_found = true;
    out->genai_path = dr_arena_strdup(a, oga.lib.path);
    out->genai_version = dr_arena_strdup(a, oga_runtime_generation(&oga));
done:
    if (st != DR_OK) {
        const dr_trail *t = dr_trail_get();
        out->why =
            dr_arena_strdup(a, t->count > 0 ? t->frames[0].text : dr_status_text(st));
        dr_trail_clear();
    }
    oga_runtime_close(&oga);
    ort_runtime_close(&ort);
}
