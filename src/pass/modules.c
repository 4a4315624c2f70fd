/*
 * modules.c - which modules a quantizer rounds, how, and whether the layout of the
 * checkpoint can hold that.
 *
 * Names match as Olive's: a plain name in modules_to_not_convert is a part of the module's
 * name, in overrides the whole of it; after "re:" both are regular expressions that match
 * the whole name.  The first override that matches counts.  Linears that share an input (q,
 * k and v; gate and up) get one grid, the finest that any of them asks for, as Olive
 * promotes it, since graphs and scales treat them as one.
 *
 * A name that matches nothing is refused: it would do nothing.
 */
#include <string.h>

#include "core/json.h"
#include "core/log.h"
#include "pass/quantize_impl.h"

enum { BITS_MAX = 8 };

const char *const pass_layouts[] = {"awq", "gptq", "olive", "compressed-tensors", NULL};
static const hf_quant_method methods[] = {HF_QUANT_AWQ, HF_QUANT_GPTQ, HF_QUANT_OLIVE,
                                          HF_QUANT_COMPRESSED};

hf_quant_method pass_layout_of(const pass_modules *w, hf_quant_method own)
{
    if (w->format < 0 && w->embeds) /* the only one that has a place for it */
        return HF_QUANT_OLIVE;
    return w->format >= 0 ? methods[w->format] : own;
}

/* ---- what can be said no to without a model ---- */

static dr_status check_bits(const char *name, int bits, bool symmetric)
{
    dr_status st = DR_OK;

    if (bits < 2 || bits > BITS_MAX || (bits > 4 && bits < BITS_MAX))
        return dr_fail(DR_EUSAGE, "%s: expected 2, 3, 4 or 8, found %d", name, bits);
    if (bits != 3 || !symmetric)
        return DR_OK;
    st = dr_fail(DR_EUSAGE, "%s: 3 bits are stored in 4, and need zero points", name);
    dr_hint("the nearest is an asymmetric grid, or 4 bits");
    return st;
}

static dr_status check_override(const char *name, const json_t *o)
{
    static const char *const keys[] = {"bits", "group_size", "symmetric"};
    int64_t bits = 4, group = -1;
    bool symmetric = false;
    const char *key = NULL;
    json_t *value = NULL;
    dr_status st = DR_OK;

    if (!json_is_object(o))
        return dr_fail(DR_EUSAGE, "overrides: %s: expected an object, found %s", name,
                       dr_json_type(o));
    json_object_foreach((json_t *)(uintptr_t)o, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < DR_COUNT(keys); i++)
            known = known || strcmp(keys[i], key) == 0;
        if (known)
            continue;
        const char *near = dr_nearest(key, keys, DR_COUNT(keys));
        st = dr_fail(DR_EUSAGE, "overrides: %s: no setting is called %s", name, key);
        dr_hint("the nearest is %s", near != NULL ? near : "symmetric");
        return st;
    }
    DR_TRY(dr_json_int(o, "bits", &bits, "overrides"));
    DR_TRY(dr_json_int(o, "group_size", &group, "overrides"));
    DR_TRY(dr_json_bool(o, "symmetric", &symmetric, "overrides"));
    DR_TRY(check_bits("bits", bits > 99 || bits < 0 ? 99 : (int)bits, false));
    DR_TRY(pass_check_group("group_size", group > 1 << 20 || group < -1 ? 0 : (int)group));
done:
    if (st != DR_OK)
        dr_note_at(__FILE__, __LINE__, "overrides: %s", name);
    return st == DR_EFORMAT ? DR_EUSAGE : st;
}

/* overrides as an object; NULL: there are none. */
static dr_status parse_overrides(json_t **out, const pass_modules *w)
{
    const char *name = NULL;
    json_t *one = NULL;
    dr_status st = DR_OK;

    *out = NULL;
    if (w->overrides == NULL)
        goto done;
    if (dr_json_parse(out, w->overrides, strlen(w->overrides), "overrides") != DR_OK ||
        !json_is_object(*out)) {
        st = dr_fail(DR_EUSAGE, "overrides: expected a JSON object, found \"%s\"",
                     w->overrides);
        dr_hint("such as {\"re:.*down_proj\": {\"bits\": 8, \"group_size\": 32}}");
        goto done;
    }
    json_object_foreach(*out, name, one) DR_TRY(check_override(name, one));
done:
    if (st != DR_OK) {
        json_decref(*out);
        *out = NULL;
    }
    return st;
}

dr_status pass_modules_check(const pass_modules *w, const quant_grid *grid,
                             hf_quant_method own)
{
    const hf_quant_method layout = pass_layout_of(w, own);
    bool awq = layout == HF_QUANT_AWQ;
    json_t *overrides = NULL;
    const char *what = NULL;
    dr_status st = DR_OK;

    DR_TRY(check_bits("bits", grid->bits, grid->symmetric));
    DR_TRY(pass_mix_check(w, grid, layout));
    DR_TRY(parse_overrides(&overrides, w));
    if (awq && quant_stored_bits(grid) != 4)
        what = "bits: the awq layout holds 4 bits";
    else if (awq && w->lm_head)
        what = "lm_head: the awq layout has no place for a packed head";
    else if (awq && overrides != NULL)
        what = "overrides: the awq layout has one setting for all modules";
    if (w->embeds && layout != HF_QUANT_OLIVE) {
        st = dr_fail(DR_EUSAGE, "embeds: the %s layout has no place for a packed embedding",
                     pass_layouts[w->format]);
        dr_hint("the nearest is format olive");
        goto done;
    }
    if (w->distill_steps > 0 && !(w->distill_learning_rate > 0))
        DR_FAIL(DR_EUSAGE, "distill_learning_rate: expected more than 0, found %g",
                w->distill_learning_rate);
    if (what != NULL) {
        st = dr_fail(DR_EUSAGE, "%s", what);
        dr_hint("the nearest is format gptq (or olive, compressed-tensors)");
    }
done:
    json_decref(overrides);
    return st;
}

/* ---- matching ---- */

typedef struct {
    const hf_model *m;
    const char **names; /* modules_to_not_convert; arena */
    bool *name_hit;
    size_t name_count;
    json_t *overrides; /* owned */
    bool *override_hit;
} matcher;

static dr_status open_matcher(matcher *k, dr_arena *a, const hf_model *m,
                              const pass_modules *w)
{
    char *list =
        dr_arena_strdup(a, w->modules_to_not_convert ? w->modules_to_not_convert : "");
    char *rest = list;
    dr_status st = DR_OK;

    *k = (matcher){.m = m};
    DR_TRY(parse_overrides(&k->overrides, w));
    k->override_hit = dr_arena_alloc(a, json_object_size(k->overrides) + 1, 1);
    k->names = dr_arena_alloc(a, strlen(list) + 1, sizeof(char *));
    for (char *p = strtok_r(list, ",", &rest); p != NULL; p = strtok_r(NULL, ",", &rest)) {
        while (*p == ' ')
            p++;
        if (*p != '\0')
            k->names[k->name_count++] = p;
    }
    k->name_hit = dr_arena_alloc(a, k->name_count + 1, 1);
done:
    return st;
}

static dr_status is_excluded(bool *out, matcher *k, const char *path)
{
    dr_status st = DR_OK;

    *out = false;
    for (size_t i = 0; i < k->name_count; i++) {
        bool hit = strstr(path, k->names[i]) != NULL;
        if (strncmp(k->names[i], "re:", 3) == 0)
            DR_TRY(hf_pattern_match(&hit, k->names[i] + 3, true, path,
                                    "modules_to_not_convert"));
        k->name_hit[i] = k->name_hit[i] || hit;
        *out = *out || hit;
    }
done:
    return st;
}

/* The grid of the first override that matches, over the base. */
static dr_status own_grid(quant_grid *grid, matcher *k, const char *path)
{
    bool found = false, hit = false;
    const char *name = NULL;
    json_t *o = NULL;
    size_t i = 0;
    dr_status st = DR_OK;

    json_object_foreach(k->overrides, name, o)
    {
        int64_t bits = grid->bits, group = grid->group_size;
        hit = strcmp(name, path) == 0;
        if (strncmp(name, "re:", 3) == 0)
            DR_TRY(hf_pattern_match(&hit, name + 3, true, path, "overrides"));
        k->override_hit[i] = k->override_hit[i] || hit;
        i++;
        if (!hit || found)
            continue;
        found = true;
        DR_TRY(dr_json_int(o, "bits", &bits, name));
        DR_TRY(dr_json_int(o, "group_size", &group, name));
        DR_TRY(dr_json_bool(o, "symmetric", &grid->symmetric, name));
        grid->bits = (int)bits;
        grid->group_size = (int)group;
    }
    DR_TRYF(check_bits("bits", grid->bits, grid->symmetric), "overrides for %s", path);
done:
    return st;
}

static dr_status refuse_unused(const matcher *k)
{
    const hf_linear *l = NULL;
    const char *name = NULL;
    json_t *o = NULL;
    size_t i = 0;
    dr_status st = DR_OK;

    (void)hf_layer_linears(k->m, 0, &l);
    for (size_t n = 0; n < k->name_count; n++) {
        if (k->name_hit[n])
            continue;
        st = dr_fail(DR_EUSAGE, "modules_to_not_convert: no module is called %s",
                     k->names[n]);
        dr_hint("such as %s (a part of names), or re:EXPRESSION for whole ones", l->leaf);
        return st;
    }
    json_object_foreach(k->overrides, name, o)
    {
        if (k->override_hit[i++])
            continue;
        st = dr_fail(DR_EUSAGE, "overrides: no module is called %s", name);
        dr_hint("such as %s, or re:EXPRESSION for several", l->path);
        return st;
    }
    return DR_OK;
}

/* ---- choosing ---- */

/* More bits, then smaller groups, a whole row last. */
static bool is_finer(const quant_grid *a, const quant_grid *b)
{
    if (a->bits != b->bits)
        return a->bits > b->bits;
    return a->group_size > 0 && (b->group_size < 0 || a->group_size < b->group_size);
}

bool pass_same_grid(const quant_grid *a, const quant_grid *b)
{
    return a->bits == b->bits && a->group_size == b->group_size &&
           a->symmetric == b->symmetric;
}

/* Stays a part of what shares an input as it is, when the rest does not? */
static bool splits_slot(const quant_choice *c, const hf_linear *l, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++) {
            if (l[i].slot == l[k].slot && c[i].plain != c[k].plain)
                return true;
        }
    }
    return false;
}

/* One grid for the linears of each slot; *changed: some had to change. */
static void promote(quant_choice *c, const hf_linear *l, size_t n, bool *changed)
{
    for (int s = 0; s < HF_SLOT_COUNT; s++) {
        const quant_grid *best = NULL;
        for (size_t i = 0; i < n; i++) {
            if ((int)l[i].slot == s && !c[i].plain &&
                (best == NULL || is_finer(&c[i].grid, best)))
                best = &c[i].grid;
        }
        for (size_t i = 0; i < n && best != NULL; i++) {
            if ((int)l[i].slot != s || c[i].plain || pass_same_grid(&c[i].grid, best))
                continue;
            c[i].grid = *best;
            *changed = true;
        }
    }
}

static dr_status check_group(const quant_grid *grid, const hf_linear *l)
{
    dr_status st = DR_OK;

    if (grid->group_size <= 0 || l->n_in % (size_t)grid->group_size == 0)
        return DR_OK;
    st = dr_fail(DR_EUSAGE, "overrides: group_size %d does not divide the %zu inputs of %s",
                 grid->group_size, l->n_in, l->path);
    dr_hint("-1, a whole row, always fits");
    return st;
}

static dr_status choose_layer(quant_choice *c, matcher *k, int layer,
                              const quant_grid *base, bool *changed, bool *split)
{
    const hf_linear *l = NULL;
    size_t n = hf_layer_linears(k->m, layer, &l);
    dr_status st = DR_OK;

    DR_BUG_IF(n > QUANT_LAYER_LINEARS);
    for (size_t i = 0; i < n; i++) {
        c[i].grid = *base;
        DR_TRY(is_excluded(&c[i].plain, k, l[i].path));
        DR_TRY(own_grid(&c[i].grid, k, l[i].path));
        DR_TRY(check_group(&c[i].grid, &l[i]));
    }
    promote(c, l, n, changed);
    *split = *split || splits_slot(c, l, n);
done:
    return st;
}

/* The head or the embedding, l (NULL: the model has none of its own), which goes by path:
 * its grid, and whether it is rounded. */
static dr_status choose_outer(quant_grid *grid, bool *chosen, matcher *k,
                              const quant_grid *base, const char *path, const hf_linear *l,
                              bool wanted)
{
    bool excluded = false;
    dr_status st = DR_OK;

    DR_TRY(is_excluded(&excluded, k, path));
    *grid = *base;
    DR_TRY(own_grid(grid, k, path));
    if (!wanted || excluded)
        goto done;
    if (l == NULL) {
        st = dr_fail(DR_EUSAGE, "%s: the head of %s is its embedding, which stays", path,
                     hf_model_path(k->m));
        dr_hint("embeds rounds both; without it the export does");
        goto done;
    }
    DR_TRY(check_group(grid, l));
    *chosen = true;
done:
    return st;
}

dr_status pass_choose_modules(pass_choices *out, dr_arena *a, const hf_model *m,
                              const quant_grid *base, const pass_modules *w)
{
    int layers = hf_model_config(m)->layers;
    const hf_linear *embed = hf_embed_linear(m);
    bool changed = false, split = false;
    matcher k = {0};
    dr_status st = DR_OK;

    *out = (pass_choices){0};
    DR_TRY(open_matcher(&k, a, m, w));
    if (k.name_count > 0 || k.overrides != NULL)
        out->layers =
            dr_arena_alloc(a, (size_t)layers * QUANT_LAYER_LINEARS, sizeof(*out->layers));
    for (int i = 0; i < layers && out->layers != NULL; i++)
        DR_TRY(choose_layer(out->layers + (size_t)i * QUANT_LAYER_LINEARS, &k, i, base,
                            &changed, &split));
    DR_TRY(choose_outer(&out->head_grid, &out->head, &k, base, "lm_head", hf_head_linear(m),
                        w->lm_head));
    if (w->embeds)
        DR_TRY(choose_outer(&out->embed_grid, &out->embed, &k, base, embed->path, embed,
                            true));
    DR_TRY(refuse_unused(&k));
    if (changed)
        dr_warn_result("linears that share an input (q, k and v; gate and up) share the "
                       "finest grid that overrides gives one of them");
    if (split)
        dr_warn_result(
            "some linears stay as they are while others that share their input "
            "(q, k and v; gate and up) are packed; vLLM loads no such checkpoint");
done:
    json_decref(k.overrides);
    return st == DR_EFORMAT ? DR_EUSAGE : st; /* an expression is the user's own */
}

/* ---- the checkpoint ---- */

static hf_quant format_of(hf_quant_method layout, const quant_grid *g)
{
    return (hf_quant){layout, quant_stored_bits(g), g->group_size, g->symmetric};
}

dr_status pass_choices_formats(hf_writer *w, const pass_choices *c, const hf_model *m,
                               hf_quant_method layout)
{
    int layers = hf_model_config(m)->layers;
    const hf_linear *l = NULL;
    dr_status st = DR_OK;

    for (int i = 0; i < layers && c->layers != NULL; i++) {
        const quant_choice *of = c->layers + (size_t)i * QUANT_LAYER_LINEARS;
        size_t n = hf_layer_linears(m, i, &l);
        for (size_t k = 0; k < n; k++) {
            const hf_quant q = format_of(layout, &of[k].grid);
            DR_TRY(hf_writer_format(w, &l[k], of[k].plain ? NULL : &q));
        }
    }
    if (c->head) {
        const hf_quant q = format_of(layout, &c->head_grid);
        DR_TRY(hf_writer_format(w, hf_head_linear(m), &q));
    }
    if (c->embed) {
        const hf_quant q = format_of(layout, &c->embed_grid);
        DR_TRY(hf_writer_format(w, hf_embed_linear(m), &q));
    }
done:
    return st;
}
