/*
 * layer_kinds.c - what differs from layer to layer: sliding windows, and whether and how q
 * and k are rotated.
 *
 * layer_types wins where transformers 5 reads it.  Older files say the same by a pattern
 * (Gemma), by a first layer (Qwen) or by the layers without rotation (SmolLM3).
 */
#include <string.h>

#include "core/json.h"
#include "hf/config_impl.h"
#include "hf/family_impl.h"

enum { KINDS_MAX = 1 << 20 }; /* of a key that counts layers */

/* kinds[layer] |= HF_LAYER_WINDOW by the names in layer_types. */
static dr_status by_names(uint8_t *kinds, const hf_config *c, const json_t *types,
                          const char *where)
{
    size_t n = json_array_size(types);
    dr_status st = DR_OK;

    if (n != (size_t)c->layers)
        DR_FAIL(DR_EFORMAT, "%s: layer_types: expected %d names, found %zu", where,
                c->layers, n);
    for (int i = 0; i < c->layers; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        if (type != NULL && strcmp(type, "sliding_attention") == 0)
            kinds[i] |= HF_LAYER_WINDOW;
        else if (type == NULL || strcmp(type, "full_attention") != 0)
            DR_FAIL(DR_EUNSUPPORTED, "%s: layer_types: %s of layer %d is not supported",
                    where, type ? type : "what is there", i);
    }
done:
    return st;
}

/* no_rope_layers: 1 where a layer is rotated; else every n-th is not. */
static dr_status no_rope(uint8_t *kinds, const hf_config *c, const json_t *o,
                         const char *where)
{
    const json_t *list = dr_json_get(o, "no_rope_layers");
    int every = 4;
    dr_status st = DR_OK;

    DR_TRY(hf_config_int(&every, o, "no_rope_layer_interval", 1, KINDS_MAX, where));
    if (list != NULL && json_array_size(list) < (size_t)c->layers)
        DR_FAIL(DR_EFORMAT, "%s: no_rope_layers: expected %d numbers, found %zu", where,
                c->layers, json_array_size(list));
    for (int i = 0; i < c->layers; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        bool rotated = (i + 1) % every != 0;
        if (list != NULL && !json_is_integer(v) && !json_is_boolean(v))
            DR_FAIL(DR_EFORMAT, "%s: no_rope_layers: expected 0 or 1, found %s", where,
                    dr_json_type(v));
        if (list != NULL)
            rotated = json_is_true(v) || json_integer_value(v) != 0;
        if (!rotated)
            kinds[i] |= HF_LAYER_NO_ROPE;
    }
done:
    return st;
}

/* Which layers have the window; *use: whether the config turns it on at all. */
static dr_status windows(uint8_t *kinds, bool *use, const hf_config *c, const json_t *o,
                         const char *where)
{
    const hf_family *f = hf_family_of(c->arch);
    const json_t *types = dr_json_get(o, "layer_types");
    bool by_switch = f->windows == HF_WINDOWS_SWITCH || f->windows == HF_WINDOWS_NOPE;
    int from = 28, pattern = f->window_pattern;
    dr_status st = DR_OK;

    *use = f->windows != HF_WINDOWS_NONE;
    if (by_switch) {
        *use = false;
        DR_TRY(dr_json_bool(o, "use_sliding_window", use, where));
    }
    if (f->windows == HF_WINDOWS_SWITCH)
        DR_TRY(hf_config_int(&from, o, "max_window_layers", 0, KINDS_MAX, where));
    if (f->windows == HF_WINDOWS_PATTERN) {
        DR_TRY(hf_config_int(&pattern, o, "_sliding_window_pattern", 1, KINDS_MAX, where));
        DR_TRY(hf_config_int(&pattern, o, "sliding_window_pattern", 1, KINDS_MAX, where));
    }
    if (types != NULL && (by_switch || f->windows == HF_WINDOWS_PATTERN)) {
        DR_TRY(by_names(kinds, c, types, where));
        goto done;
    }
    for (int i = 0; i < c->layers; i++) {
        if (f->windows == HF_WINDOWS_ALL ||
            (f->windows == HF_WINDOWS_SWITCH && i >= from) ||
            (f->windows == HF_WINDOWS_NOPE && (kinds[i] & HF_LAYER_NO_ROPE) != 0) ||
            (f->windows == HF_WINDOWS_PATTERN && (i + 1) % pattern != 0))
            kinds[i] |= HF_LAYER_WINDOW;
    }
done:
    return st;
}

dr_status hf_layer_kinds_parse(dr_arena *a, hf_config *c, const json_t *o,
                               const char *where)
{
    const hf_family *f = hf_family_of(c->arch);
    uint8_t *kinds = dr_arena_alloc(a, (size_t)c->layers, 1);
    int64_t window = f->window;
    bool use = false, any = false;
    dr_status st = DR_OK;

    memset(kinds, 0, (size_t)c->layers);
    c->layer_kinds = kinds;
    if (f->windows == HF_WINDOWS_NOPE)
        DR_TRY(no_rope(kinds, c, o, where));
    DR_TRY(windows(kinds, &use, c, o, where));
    if (json_is_null(json_object_get(o, "sliding_window")))
        window = 0;
    else if (use)
        DR_TRY(dr_json_int(o, "sliding_window", &window, where));
    if (use && window < 0)
        DR_FAIL(DR_EFORMAT, "%s: sliding_window: %lld is not above zero", where,
                (long long)window);
    /* A window as long as the context is none. */
    use = use && window > 0 && window < c->max_position;
    for (int i = 0; i < c->layers; i++) {
        bool local = (kinds[i] & HF_LAYER_WINDOW) != 0;
        if (local && f->theta_local > 0)
            kinds[i] |= HF_LAYER_LOCAL_ROPE;
        if (!use)
            kinds[i] &= (uint8_t)~HF_LAYER_WINDOW;
        any = any || (use && local);
    }
    c->sliding_window = any ? window : 0;
done:
    return st;
}

int64_t hf_layer_window(const hf_config *c, int layer)
{
    DR_BUG_IF(layer < 0 || layer >= c->layers);
    return (c->layer_kinds[layer] & HF_LAYER_WINDOW) != 0 ? c->sliding_window : 0;
}

const hf_rope *hf_layer_rope(const hf_config *c, int layer)
{
    DR_BUG_IF(layer < 0 || layer >= c->layers);
    if ((c->layer_kinds[layer] & HF_LAYER_NO_ROPE) != 0)
        return NULL;
    return (c->layer_kinds[layer] & HF_LAYER_LOCAL_ROPE) != 0 ? &c->rope_local : &c->rope;
}
