/*
 * fake_ort.c - a library that says it is ONNX Runtime of the version FAKE_VERSION and does
 * nothing: for what is said about old ones, and under fake_oga.c.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef void (*any_fn)(void);
typedef void (*log_fn)(void *, int, const char *, const char *, const char *, const char *);
typedef struct {
    const any_fn *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} api_base;

const api_base *OrtGetApiBase(void);

static void *create_env(log_fn log, void *ctx, int severity, const char *id, void **out)
{
    static int env;

    (void)log, (void)ctx, (void)severity, (void)id;
    *out = &env;
    return NULL;
}

static void *nothing(void *x)
{
    (void)x;
    return NULL;
}

static void release(void *x)
{
    (void)x;
}

static void *no_providers(char ***names, int *count)
{
    *names = NULL;
    *count = 0;
    return NULL;
}

static void *release_providers(char **names, int count)
{
    (void)names, (void)count;
    return NULL;
}

static const any_fn *get_api(uint32_t version)
{
    static const any_fn table[300] = {
        [4] = (any_fn)create_env,     [6] = (any_fn)nothing,
        [92] = (any_fn)release,       [93] = (any_fn)release,
        [125] = (any_fn)no_providers, [126] = (any_fn)release_providers,
    };

    return version <= 20 && strcmp(FAKE_VERSION, "1.20.0") >= 0 ? table : NULL;
}

static const char *get_version(void)
{
    return FAKE_VERSION;
}

EXPORT const api_base *OrtGetApiBase(void)
{
    static const api_base base = {get_api, get_version};

    return &base;
}
