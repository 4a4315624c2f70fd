/*
 * module.c - finds and loads libdrupe_cuda.so.
 *
 * In this order: the folders of DRUPE_LIB_PATH; the program's own folder; lib/drupe beside
 * that; the loader's own places.  A library that is there but cannot be used is an error
 * and not passed over.  It stays loaded: the driver's threads cannot be unloaded.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/log.h"
#include "core/mem.h"
#include "nn/module_impl.h"

#define LIBRARY "libdrupe_cuda.so"

enum { PATH_ROOM = 4096 };

/* path = the library in one of the folders of DRUPE_LIB_PATH. */
static bool in_list(char *path, const char *list)
{
    while (list != NULL && *list != '\0') {
        size_t n = strcspn(list, ":");
        (void)snprintf(path, PATH_ROOM, "%.*s/%s", (int)n, list, LIBRARY);
        if (n > 0 && dr_is_file(path))
            return true;
        list += n + (list[n] == ':');
    }
    return false;
}

static bool beside_program(char *path)
{
    static const char *const places[] = {"", "../lib/drupe/", "../lib/"};
    char dir[PATH_ROOM / 2];
    ssize_t n = readlink("/proc/self/exe", dir, sizeof(dir) - 1);
    char *slash = NULL;

    if (n <= 0)
        return false;
    dir[n] = '\0';
    slash = strrchr(dir, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    for (size_t i = 0; i < DR_COUNT(places); i++) {
        (void)snprintf(path, PATH_ROOM, "%s/%s%s", dir, places[i], LIBRARY);
        if (dr_is_file(path))
            return true;
    }
    return false;
}

static dr_status open_library(void **lib)
{
    char path[PATH_ROOM];
    bool found = in_list(path, getenv("DRUPE_LIB_PATH")) || beside_program(path);

    *lib = dlopen(found ? path : LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (*lib == NULL) {
        dr_status st = found ? dr_fail(DR_EUNSUPPORTED, "cuda: %s", dlerror())
                             : dr_fail(DR_EUNSUPPORTED, "cuda: %s was not found", LIBRARY);
        dr_hint("it belongs beside the program or in a folder of DRUPE_LIB_PATH; builds "
                "make it with -D DRUPE_CUDA=ON");
        return st;
    }
    return DR_OK;
}

static dr_status ask(const nn_module **out, void *lib)
{
    static const nn_module_host host = {.abi = NN_MODULE_ABI,
                                        .backend_bytes = sizeof(nn_backend),
                                        .fail_at = dr_fail_at,
                                        .hint = dr_hint,
                                        .note_at = dr_note_at,
                                        .trail_get = dr_trail_get,
                                        .trail_set = dr_trail_set,
                                        .log = dr_log,
                                        .bug_at = dr_bug_at,
                                        .calloc_ = dr_calloc,
                                        .cancelled_check = dr_cancelled_check,
                                        .pool_run = dr_pool_run,
                                        .ranks_check = dr_ranks_check,
                                        .pool_threads = dr_pool_threads};
    union {
        void *object;
        nn_module_fn *fn;
    } symbol = {.object = dlsym(lib, NN_MODULE_SYMBOL)};

    if (symbol.fn == NULL)
        return dr_fail(DR_EUNSUPPORTED, "cuda: %s has no %s", LIBRARY, NN_MODULE_SYMBOL);
    *out = symbol.fn(&host);
    if (*out == NULL || (*out)->abi != NN_MODULE_ABI ||
        (*out)->backend_bytes != sizeof(nn_backend))
        return dr_fail(DR_EUNSUPPORTED, "cuda: %s is of another build of drupe", LIBRARY);
    return DR_OK;
}

dr_status nn_module_backend(const nn_backend **out, const char *kind)
{
    dr_status st = DR_OK;
    const nn_module *module = NULL;
    void *lib = NULL;

    DR_TRY(open_library(&lib));
    DR_TRY(ask(&module, lib));
    for (size_t i = 0; i < module->count; i++) {
        *out = module->backends[i];
        if (strcmp((*out)->name, kind) == 0)
            return DR_OK;
    }
    DR_FAIL(DR_EUSAGE, "unknown device '%s'", kind);
done:
    return st;
}
