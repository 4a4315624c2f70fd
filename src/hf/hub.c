/*
 * hub.c - what the user typed becomes a local path.
 *
 * In this order:
 *   1. what exists here: a .gguf file; a folder with config.json; a folder with
 *      model_config.json (Olive's and drupe's), whose config.model_path is followed; a
 *      folder that holds model/
 *   2. https://huggingface.co/ORG/NAME[/tree/REV | /blob/REV/FILE | /resolve/REV/FILE]
 *   3. ORG/NAME[@REV], ORG/NAME/FILE.gguf[@REV]
 * A local path wins over a hub id of the same name.  Other schemes are refused by name.
 */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "core/file.h"
#include "core/json.h"
#include "hf/hf.h"
#include "hf/hub_impl.h"

enum { DEPTH_MAX = 8, ID_PART_MAX = 96 };

/* ---- ids and links ---- */

/* One half of an id: letters, digits, - _ . ; neither end is - or ., no -- or .. inside. */
static bool is_id_part(const char *s, size_t n)
{
    if (n == 0 || n > ID_PART_MAX)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)s[i]) && strchr("-_.", s[i]) == NULL)
            return false;
        bool edge = i == 0 || i == n - 1;
        if ((s[i] == '-' || s[i] == '.') && (edge || s[i] == s[i - 1]))
            return false;
    }
    return true;
}

/* "ORG/NAME" or "ORG/NAME/FILE", file NULL or more; false: no id. */
static bool parse_id(dr_arena *a, hub_ref *ref, const char *s, size_t n)
{
    const char *slash = memchr(s, '/', n);

    if (slash == NULL)
        return false;
    size_t org = (size_t)(slash - s);
    const char *end = memchr(slash + 1, '/', n - org - 1);
    size_t name = end ? (size_t)(end - slash - 1) : n - org - 1;
    if (!is_id_part(s, org) || !is_id_part(slash + 1, name))
        return false;
    ref->id = dr_arena_strndup(a, s, org + 1 + name);
    ref->file = end ? dr_arena_strndup(a, end + 1, n - org - name - 2) : NULL;
    return true;
}

/* ORG/NAME[/FILE.gguf][@REV]; FOLDER/FILE.gguf is a file that is not there. */
static bool parse_name(dr_arena *a, hub_ref *ref, const char *s)
{
    const char *at = strrchr(s, '@');
    size_t n = at ? (size_t)(at - s) : strlen(s);

    *ref = (hub_ref){.revision = at ? dr_arena_strdup(a, at + 1) : "main"};
    return parse_id(a, ref, s, n) && dr_is_safe_path(ref->revision) &&
           hub_ends_with(ref->file ? ref->file : ref->id, ".gguf") == (ref->file != NULL) &&
           (ref->file == NULL || dr_is_safe_path(ref->file));
}

/* What follows the host in a link. */
static bool parse_link(dr_arena *a, hub_ref *ref, const char *s)
{
    static const char *const kinds[] = {"tree/", "blob/", "resolve/"};
    size_t n = strcspn(s, "?#");

    *ref = (hub_ref){.revision = "main"};
    while (n > 0 && s[n - 1] == '/')
        n--;
    if (!parse_id(a, ref, s, n))
        return false;
    if (ref->file == NULL)
        return true;
    for (size_t i = 0; i < DR_COUNT(kinds); i++) {
        size_t kind = strlen(kinds[i]);

        if (strncmp(ref->file, kinds[i], kind) != 0)
            continue;
        const char *rev = ref->file + kind, *slash = strchr(rev, '/');
        ref->revision =
            dr_arena_strndup(a, rev, slash ? (size_t)(slash - rev) : strlen(rev));
        ref->file = slash && i > 0 ? slash + 1 : NULL;
        if (slash != NULL && i == 0)
            return false; /* a folder within a repository */
        /* A link to a part of a model means the model. */
        if (ref->file != NULL && !hub_ends_with(ref->file, ".gguf"))
            ref->file = NULL;
        return dr_is_safe_path(ref->revision) &&
               (ref->file == NULL || dr_is_safe_path(ref->file));
    }
    return false;
}

/* What follows the hub's address in a link; NULL: another host. */
static const char *after_host(const char *link, const char *endpoint)
{
    const char *const hosts[] = {endpoint, "https://huggingface.co", "https://hf.co",
                                 "https://www.huggingface.co"};

    for (size_t i = 0; i < DR_COUNT(hosts); i++) {
        size_t n = strlen(hosts[i]);

        if (strncmp(link, hosts[i], n) == 0 && link[n] == '/')
            return link + n + 1;
    }
    return NULL;
}

/* Bytes of "scheme://" at the start; 0: none. */
static size_t scheme_length(const char *s)
{
    size_t n = 0;

    while (isalnum((unsigned char)s[n]) || (n > 0 && strchr("+-.", s[n]) && s[n] != '\0'))
        n++;
    return n > 0 && strncmp(s + n, "://", 3) == 0 ? n + 3 : 0;
}

static dr_status get_link(dr_arena *a, const char **path, const char *name, size_t scheme)
{
    hub_env env = {0};
    hub_ref ref = {0};
    dr_status st = DR_OK;

    DR_TRY(hub_env_read(&env, a));
    const char *rest = after_host(name, env.endpoint);
    if (rest == NULL) {
        st = dr_fail(DR_EUNSUPPORTED, "%s: %.*s locations are not supported", name,
                     (int)scheme, name);
        dr_hint("give a local folder, a .gguf file or a hub id such as ORG/NAME");
        return st;
    }
    if (!parse_link(a, &ref, rest))
        DR_FAIL(DR_EUSAGE, "%s: this link names no model", name);
    DR_TRY(hub_get(path, &env, &ref));
done:
    return st;
}

static dr_status get_id(dr_arena *a, const char **path, const char *name)
{
    hub_env env = {0};
    hub_ref ref = {0};
    dr_status st = DR_OK;

    if (!parse_name(a, &ref, name)) {
        st = dr_fail(DR_EUSAGE, "%s: no such file or folder, and no hub id", name);
        dr_hint("a hub id has two parts, as in HuggingFaceTB/SmolLM2-135M-Instruct");
        return st;
    }
    DR_TRY(hub_env_read(&env, a));
    DR_TRY(hub_get(path, &env, &ref));
done:
    return st;
}

/* ---- what is here ---- */

static dr_status resolve(dr_arena *a, const char **path, const char *name, int depth);

/* The model_path of an Olive model_config.json; relative to the cwd, then to its folder. */
static dr_status follow_config(dr_arena *a, const char **path, const char *file, int depth)
{
    const char *dir = dr_arena_strndup(a, file, strlen(file) - strlen(dr_path_base(file)));
    const char *type = NULL, *next = NULL;
    json_t *o = NULL;
    dr_status st = DR_OK;

    DR_TRY(dr_json_read(&o, file));
    DR_TRY(dr_json_str(o, "type", &type, file));
    if (type != NULL && strcasecmp(type, "HfModel") != 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: type is %s, expected HfModel", file, type);
    const json_t *config = dr_json_get(o, "config");
    DR_TRY(dr_json_str(config ? config : o, "model_path", &next, file));
    if (next == NULL)
        DR_FAIL(DR_EFORMAT, "%s: config.model_path is missing", file);
    next = dr_arena_strdup(a, next);
    if (next[0] != '/' && scheme_length(next) == 0 && !dr_exists(next)) {
        const char *beside = dr_path_join(a, *dir ? dir : ".", next);

        if (dr_exists(beside))
            next = beside;
    }
    DR_TRYF(resolve(a, path, next, depth + 1), "following model_path of %s", file);
done:
    json_decref(o);
    return st;
}

static dr_status resolve_dir(dr_arena *a, const char **path, const char *dir, int depth)
{
    const char *config = dr_path_join(a, dir, "model_config.json");
    const char *model = dr_path_join(a, dir, "model");

    if (dr_is_file(dr_path_join(a, dir, "config.json"))) {
        *path = dr_arena_strdup(a, dir);
        return DR_OK;
    }
    if (dr_is_file(config))
        return follow_config(a, path, config, depth);
    if (dr_is_dir(model))
        return resolve(a, path, model, depth + 1);
    return dr_fail(DR_EFORMAT,
                   "%s: holds neither config.json, model_config.json nor model/", dir);
}

static dr_status resolve(dr_arena *a, const char **path, const char *name, int depth)
{
    size_t scheme = scheme_length(name);

    if (depth > DEPTH_MAX)
        return dr_fail(DR_EFORMAT, "%s: more than %d model_config.json lead here", name,
                       DEPTH_MAX);
    if (name[0] == '\0')
        return dr_fail(DR_EUSAGE, "the model's name is empty");
    if (scheme > 0)
        return get_link(a, path, name, scheme);
    if (dr_is_dir(name))
        return resolve_dir(a, path, name, depth);
    if (dr_is_file(name)) {
        if (strcmp(dr_path_base(name), "model_config.json") == 0)
            return follow_config(a, path, name, depth);
        if (!hub_ends_with(name, ".gguf"))
            return dr_fail(DR_EUSAGE, "%s: expected a folder or a .gguf file", name);
        *path = dr_arena_strdup(a, name);
        return DR_OK;
    }
    return get_id(a, path, name);
}

dr_status hf_resolve(dr_arena *a, const char **path, const char *name)
{
    *path = NULL;
    return resolve(a, path, name, 0);
}
