/*
 * hub_env.c - the environment variables of Python's huggingface_hub, read the same way, so
 * that both find the same cache, server and token.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/file.h"
#include "hf/hub_impl.h"

/* NULL when unset or empty. */
static const char *env_of(const char *name)
{
    const char *v = getenv(name);

    return v != NULL && *v != '\0' ? v : NULL;
}

static bool is_true(const char *v)
{
    static const char *const yes[] = {"1", "ON", "YES", "TRUE"};

    for (size_t i = 0; v != NULL && i < DR_COUNT(yes); i++)
        if (strcasecmp(v, yes[i]) == 0)
            return true;
    return false;
}

/* A leading ~ is the home folder. */
static const char *expand(dr_arena *a, const char *path)
{
    const char *home = env_of("HOME");

    if (path[0] == '~' && (path[1] == '/' || path[1] == '\0') && home != NULL)
        return dr_arena_printf(a, "%s%s", home, path + 1);
    return path;
}

static const char *hf_home(dr_arena *a)
{
    const char *home = env_of("HF_HOME"), *xdg = env_of("XDG_CACHE_HOME");

    if (home != NULL)
        return expand(a, home);
    return dr_path_join(a, expand(a, xdg ? xdg : "~/.cache"), "huggingface");
}

/* What a header may hold: printable, no spaces. */
static const char *clean_token(dr_arena *a, const char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t n = strlen(text);
    while (n > 0 && isspace((unsigned char)text[n - 1]))
        n--;
    for (size_t i = 0; i < n; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return NULL;
    return n > 0 ? dr_arena_strndup(a, text, n) : NULL;
}

static const char *find_token(dr_arena *a, const char *home)
{
    const char *token = env_of("HF_TOKEN"), *path = env_of("HF_TOKEN_PATH");
    dr_buf b = {0};

    if (is_true(env_of("HF_HUB_DISABLE_IMPLICIT_TOKEN")))
        return NULL;
    if (token == NULL)
        token = env_of("HUGGING_FACE_HUB_TOKEN");
    if (token != NULL)
        return clean_token(a, token);
    path = path ? expand(a, path) : dr_path_join(a, home, "token");
    if (!dr_is_file(path))
        return NULL;
    dr_buf_init(&b, 4096);
    if (dr_read_file(&b, path) == DR_OK)
        token = clean_token(a, b.data);
    else
        dr_trail_clear(); /* no token is no error */
    dr_buf_release(&b);
    return token;
}

dr_status hub_env_read(hub_env *env, dr_arena *a)
{
    const char *home = hf_home(a);
    const char *cache = env_of("HF_HUB_CACHE"), *endpoint = env_of("HF_ENDPOINT");

    if (cache == NULL)
        cache = env_of("HUGGINGFACE_HUB_CACHE");
    *env = (hub_env){.a = a};
    env->cache = cache ? expand(a, cache) : dr_path_join(a, home, "hub");
    if (endpoint == NULL)
        endpoint = "https://huggingface.co";
    size_t n = strlen(endpoint);
    while (n > 0 && endpoint[n - 1] == '/')
        n--;
    env->endpoint = dr_arena_strndup(a, endpoint, n);
    if (strncmp(env->endpoint, "https://", 8) != 0 &&
        strncmp(env->endpoint, "http://", 7) != 0)
        return dr_fail(DR_EUSAGE, "HF_ENDPOINT: %s is no http or https address", endpoint);
    env->offline =
        is_true(env_of("HF_HUB_OFFLINE")) || is_true(env_of("TRANSFORMERS_OFFLINE"));
    env->ca_file = net_ca_file();
    env->token = find_token(a, home);
    return DR_OK;
}
