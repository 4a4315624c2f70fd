/*
 * hub_list.c - what a repository of the hub has, which of it a model is, and the hub's
 * refusals in words.
 */
#include <ctype.h>
#include <string.h>

#include "core/json.h"
#include "core/file.h"
#include "hf/hub_impl.h"

enum { LIST_BYTES_MAX = 64 << 20, NAMES_MAX = 1 << 16 };

/* ---- what the server said ---- */

const char *hub_escaped(dr_arena *a, const char *s, bool keep_slash)
{
    static const char hex[] = "0123456789ABCDEF";
    char *out = dr_arena_alloc(a, 3 * strlen(s) + 1, 1), *p = out;

    for (; *s != '\0'; s++) {
        unsigned char c = (unsigned char)*s;

        if (isalnum(c) || strchr("-._~", c) != NULL || (c == '/' && keep_slash)) {
            *p++ = (char)c;
        } else {
            *p++ = '%';
            *p++ = hex[c >> 4];
            *p++ = hex[c & 15];
        }
    }
    return out;
}

dr_status hub_refused(const hub_env *env, const hub_ref *ref, const hub_reply *r,
                      const char *what)
{
    const char *id = ref->id, *rev = ref->revision;
    bool token = env->token != NULL;

    if (r->status == 401 || r->status == 403) {
        (void)dr_fail(DR_EIO, "%s: the hub refuses %s (HTTP %ld%s%s)", id, what, r->status,
                      r->error_code[0] ? ", " : "", r->error_code);
        if (token)
            dr_hint("accept the model's licence at %s/%s, and check that the token in "
                    "HF_TOKEN may read it",
                    env->endpoint, id);
        else
            dr_hint("if %s exists and is gated or private: accept its licence at %s/%s and "
                    "set HF_TOKEN",
                    id, env->endpoint, id);
        return DR_EIO;
    }
    if (r->status == 404 && strcmp(r->error_code, "RevisionNotFound") == 0)
        return dr_fail(DR_EIO, "%s: the hub has no revision %s of it", id, rev);
    if (r->status == 404) {
        (void)dr_fail(DR_EIO, "%s: the hub does not have %s (HTTP 404)", id, what);
        dr_hint("check the name; there is no local folder %s either", id);
        return DR_EIO;
    }
    return dr_fail(DR_EIO, "%s: %s: HTTP %ld", id, what, r->status);
}

/* ---- list ---- */

static dr_status keep_names(hub_listing *l, const hub_env *env, const hub_ref *ref,
                            const json_t *siblings)
{
    size_t n = json_array_size(siblings);

    if (n > NAMES_MAX)
        return dr_fail(DR_EFORMAT, "%s: %zu files are too many", ref->id, n);
    l->names = dr_arena_alloc(env->a, n, sizeof(*l->names));
    l->wanted = dr_arena_alloc(env->a, n, sizeof(*l->wanted));
    for (size_t i = 0; i < n; i++) {
        const json_t *name = json_object_get(json_array_get(siblings, i), "rfilename");
        const char *s = json_string_value(name);

        if (s == NULL || strlen(s) != json_string_length(name) || !dr_is_safe_path(s))
            return dr_fail(DR_EFORMAT, "%s: the hub lists a file named \"%s\"", ref->id,
                           s ? s : "(none)");
        l->names[l->name_count++] = dr_arena_strdup(env->a, s);
    }
    return DR_OK;
}

dr_status hub_list(hub_listing *l, hub_net *net, const hub_env *env, const hub_ref *ref,
                   bool *reached)
{
    const char *url = dr_arena_printf(env->a, "%s/api/models/%s/revision/%s", env->endpoint,
                                      ref->id, hub_escaped(env->a, ref->revision, false));
    hub_reply r = {0};
    dr_buf body = {0};
    json_t *o = NULL;
    const char *sha = NULL;
    dr_status st = DR_OK;

    *l = (hub_listing){0};
    *reached = false;
    dr_buf_init(&body, LIST_BYTES_MAX);
    DR_TRY(hub_net_get(net, &r, url, &body));
    *reached = r.status < 500 && r.status != 429;
    if (r.status != 200)
        DR_TRY(hub_refused(env, ref, &r, "the model"));
    DR_TRY(dr_json_parse(&o, body.data, body.len, url));
    DR_TRY(dr_json_str(o, "sha", &sha, url));
    if (sha == NULL || !hub_is_commit(sha))
        DR_FAIL(DR_EFORMAT, "%s: sha is no commit: \"%s\"", url, sha ? sha : "(none)");
    l->commit = dr_arena_strdup(env->a, sha);
    DR_TRY(keep_names(l, env, ref, dr_json_get(o, "siblings")));
done:
    json_decref(o);
    dr_buf_release(&body);
    return st;
}

/* ---- which files ---- */

bool hub_ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n >= m && strcmp(s + n - m, end) == 0;
}

static bool has(const hub_listing *l, const char *name)
{
    for (size_t i = 0; i < l->name_count; i++)
        if (strcmp(l->names[i], name) == 0)
            return true;
    return false;
}

static bool is_side_file(const char *name)
{
    static const char *const names[] = {
        "config.json",          "generation_config.json", "special_tokens_map.json",
        "added_tokens.json",    "chat_template.jinja",    "chat_template.json",
        "quantize_config.json", "quant_config.json",      "adapter_config.json",
    };

    for (size_t i = 0; i < DR_COUNT(names); i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return strncmp(name, "tokenizer", 9) == 0 && hub_ends_with(name, ".json") &&
           strchr(name, '/') == NULL;
}

/* The forms that weights come in, best first. */
typedef enum { SINGLE, SHARDS, OTHER, TORCH, TORCH_SHARDS, TORCH_ADAPTER, FORMS } form;

/*
 * model.safetensors, else its shards with their index, else whatever else is safetensors
 * (an adapter's) but not consolidated.*, which are the same weights again in another
 * layout; without safetensors PyTorch's own files.
 */
static bool is_weight(const char *name, form f)
{
    if (strchr(name, '/') != NULL)
        return false;
    switch (f) {
    case SINGLE:
        return strcmp(name, "model.safetensors") == 0;
    case SHARDS:
        return strncmp(name, "model", 5) == 0 &&
               (hub_ends_with(name, ".safetensors") ||
                hub_ends_with(name, ".safetensors.index.json"));
    case OTHER:
        return hub_ends_with(name, ".safetensors") &&
               strncmp(name, "consolidated", 12) != 0;
    case TORCH:
        return strcmp(name, "pytorch_model.bin") == 0;
    case TORCH_SHARDS:
        return strncmp(name, "pytorch_model-", 14) == 0 && hub_ends_with(name, ".bin");
    case TORCH_ADAPTER:
        return strcmp(name, "adapter_model.bin") == 0;
    case FORMS:
        break;
    }
    return false;
}

static bool has_weights(const hub_listing *l, form f)
{
    if (f == SHARDS && !has(l, "model.safetensors.index.json"))
        return false;
    if (f == TORCH_SHARDS && !has(l, "pytorch_model.bin.index.json"))
        return false;
    for (size_t i = 0; i < l->name_count; i++)
        if (is_weight(l->names[i], f))
            return true;
    return false;
}

/* A repository without safetensors: its only GGUF file, or words about what it has. */
static dr_status choose_gguf(hub_listing *l, const hub_env *env, const hub_ref *ref)
{
    const char *list = "", *only = NULL;
    size_t ggufs = 0;

    for (size_t i = 0; i < l->name_count; i++) {
        const char *name = l->names[i];

        if (!hub_ends_with(name, ".gguf"))
            continue;
        only = name;
        if (++ggufs <= 8)
            list = dr_arena_printf(env->a, "%s%s%s", list, ggufs > 1 ? ", " : "", name);
    }
    if (ggufs == 1) {
        l->file = only;
        l->wanted[l->wanted_count++] = only;
        return DR_OK;
    }
    if (ggufs > 1) {
        (void)dr_fail(DR_EUSAGE, "%s: has %zu GGUF files: %s%s", ref->id, ggufs, list,
                      ggufs > 8 ? ", ..." : "");
        dr_hint("name one: %s/%s", ref->id, only);
        return DR_EUSAGE;
    }
    return dr_fail(DR_EUNSUPPORTED,
                   "%s: has no weights that drupe reads (safetensors, pytorch_model.bin, "
                   "GGUF)",
                   ref->id);
}

dr_status hub_choose(hub_listing *l, const hub_env *env, const hub_ref *ref)
{
    form f = SINGLE;

    l->wanted_count = 0;
    if (ref->file != NULL) {
        if (!has(l, ref->file))
            return dr_fail(DR_EIO, "%s: the hub has no file %s in it", ref->id, ref->file);
        l->wanted[l->wanted_count++] = ref->file;
        return DR_OK;
    }
    while (f < FORMS && !has_weights(l, f))
        f++;
    if (f == FORMS)
        return choose_gguf(l, env, ref);
    for (size_t i = 0; i < l->name_count; i++) {
        bool index =
            f == TORCH_SHARDS && strcmp(l->names[i], "pytorch_model.bin.index.json") == 0;

        if (index || is_weight(l->names[i], f) || is_side_file(l->names[i]))
            l->wanted[l->wanted_count++] = l->names[i];
    }
    return DR_OK;
}
