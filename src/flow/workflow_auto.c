/*
 * workflow_auto.c - auto_optimizer_config: passes by device, provider and precision.
 *
 * Olive's template of level 0 (0.7 and 0.8; pass_capability.yaml there), as far as its
 * passes are here.  Of each precision there is one flow or more:
 *
 *     a Hugging Face model   ModelBuilder
 *     an ONNX model          OrtTransformersOptimization, then by precision
 *         int8 on cpu                OnnxQuantization; dynamic without a data set
 *         int4 on cpu and cuda       OnnxMatMul4Quantizer
 *         fp16 on cuda and dml       OrtMixedPrecision; or the first pass with float16
 *
 * With a data set OrtSessionParamsTuning comes last, on the CPU, and is a flow of its own
 * for a graph.  A precision that the provider has none of has no flow, and the same flow is
 * there once.
 * Without precisions: all four where a figure of accuracy may become worse, else fp32.
 */
#include <string.h>
#include <strings.h>

#include "flow/workflow_impl.h"

static const char *const precisions[] = {"fp32", "fp16", "int8", "int4", NULL};

/* All of the template, those that are not here, too: any of them may be excluded. */
static const char *const template[] = {
    "OnnxConversion",    "ModelBuilder",         "OrtTransformersOptimization",
    "OnnxQuantization",  "IncQuantization",      "VitisAIQuantization",
    "OrtMixedPrecision", "OnnxMatMul4Quantizer", "OrtSessionParamsTuning"};

/* What comes after the fusions. */
static const struct {
    const char *precision, *devices, *providers, *type;
} after[] = {{"fp16", "gpu", "cuda dml", "OrtMixedPrecision"},
             {"int8", "cpu", "cpu", "OnnxQuantization"},
             {"int4", "cpu gpu", "cpu cuda", "OnnxMatMul4Quantizer"}};

typedef struct {
    workflow *w;
    const dr_node *excluded;
    const json_t *data;            /* the one data set; NULL: none */
    const char *device, *provider; /* "gpu", "cuda" */
    json_t *passes, *flows;
} draft;

static bool has_word(const char *list, const char *word)
{
    const size_t n = strlen(word);

    for (const char *p = list; *p != '\0'; p += strspn(p, " ")) {
        size_t k = strcspn(p, " ");
        if (k == n && strncasecmp(p, word, n) == 0)
            return true;
        p += k;
    }
    return false;
}

static bool is_one_of(const dr_node *list, const char *word)
{
    if (list != NULL && json_is_string(list->value))
        return strcasecmp(wf_str(list), word) == 0;
    for (const dr_node *i = list != NULL ? list->first : NULL; i != NULL; i = i->next)
        if (strcasecmp(wf_str(i), word) == 0)
            return true;
    return false;
}

/* Every name of a list is one of those; what: of what they are. */
static dr_status check_words(const workflow *w, const dr_node *list, const char *what,
                             const char *const *names, size_t count)
{
    dr_status st = DR_OK;

    if (list == NULL)
        return DR_OK;
    const bool one = json_is_string(list->value);
    for (const dr_node *i = one ? list : list->first; i != NULL; i = one ? NULL : i->next) {
        bool known = false;
        for (size_t k = 0; k < count; k++)
            known = known || strcasecmp(names[k], wf_str(i)) == 0;
        if (!known)
            DR_TRY(wf_unknown(&w->doc, i, what, wf_str(i), names, count));
    }
done:
    return st;
}

/* "CUDAExecutionProvider" is "cuda"; without one it follows from the device. */
static const char *short_provider(dr_arena *a, const workflow *w, const char *device)
{
    if (w->provider == NULL)
        return strcasecmp(device, "gpu") == 0 ? "cuda" : "cpu";
    const char *end = strstr(w->provider, "ExecutionProvider");
    return end != NULL ? dr_arena_strndup(a, w->provider, (size_t)(end - w->provider))
                       : w->provider;
}

/* Whether the pass takes this config for the target. */
static bool is_possible(const draft *d, const char *type, const json_t *config)
{
    const pass_def *def = pass_find(type);
    const char *const keys[] = {"provider", "device"};
    const char *const values[] = {d->w->provider, d->w->device};
    json_t *whole = json_deep_copy(config);
    void *cfg = NULL;
    unsigned char *given = NULL;
    dr_arena a = {0};

    json_object_del(whole, "data_config");
    for (size_t i = 0; i < DR_COUNT(keys); i++) {
        const dr_param *row = dr_param_find(def->params, def->params_count, keys[i]);
        if (row != NULL && row->type != DR_PARAM_REFUSED && values[i] != NULL)
            json_object_set_new(whole, keys[i], json_string(values[i]));
    }
    dr_status st = wf_config(&cfg, &given, &a, def, whole);
    if (st == DR_OK && def->validate != NULL)
        st = def->validate(cfg, given);
    dr_trail_clear();
    json_decref(whole);
    dr_arena_release(&a);
    return st == DR_OK;
}

/* One more pass of the flow under the name KEY; takes config.  *possible becomes false
 * where the target has no such pass. */
static void step(const draft *d, json_t *flow, bool *possible, const char *type,
                 const char *key, json_t *config)
{
    if (is_one_of(d->excluded, type)) {
        json_decref(config);
        return;
    }
    *possible = *possible && is_possible(d, type, config);
    json_array_append_new(flow, json_string(key));
    json_object_set_new(config, "type", json_string(type));
    if (*possible && json_object_get(d->passes, key) == NULL)
        json_object_set_new(d->passes, key, config);
    else
        json_decref(config);
}

/* Ends a flow with its tuning, which as in Olive is there only with data, though it does
 * not need it here; keeps it where it is possible and new.  Takes flow. */
static void keep(const draft *d, json_t *flow, bool possible)
{
    static const char last[] = "OrtSessionParamsTuning";
    json_t *other;
    size_t i;

    if (d->data != NULL && strcasecmp(d->provider, "cpu") == 0)
        step(d, flow, &possible, last, last, json_object());
    possible = possible && json_array_size(flow) > 0;
    json_array_foreach(d->flows, i, other)
    {
        possible = possible && !json_equal(other, flow);
    }
    if (possible)
        json_array_append(d->flows, flow);
    json_decref(flow);
}

static void build(const draft *d, const char *precision)
{
    json_t *flow = json_array();
    bool possible = true;

    step(d, flow, &possible, "ModelBuilder",
         dr_arena_printf(&d->w->arena, "ModelBuilder_%s", precision),
         json_pack("{s:s}", "precision", precision));
    keep(d, flow, possible);
}

static json_t *config_of(const draft *d, const char *type)
{
    if (strcmp(type, "OnnxQuantization") != 0)
        return json_object();
    json_t *j = json_pack("{s:s}", "quant_mode", d->data != NULL ? "static" : "dynamic");
    if (d->data != NULL)
        json_object_set_new(j, "data_config", json_deep_copy(d->data));
    return j;
}

static void rewrite(const draft *d, const char *precision)
{
    static const char fusions[] = "OrtTransformersOptimization";
    json_t *flow = json_array();
    bool possible = true, half = false;

    step(d, flow, &possible, fusions, fusions, json_object());
    for (size_t i = 0; i < DR_COUNT(after); i++) {
        if (strcmp(after[i].precision, precision) != 0 ||
            !has_word(after[i].devices, d->device) ||
            !has_word(after[i].providers, d->provider))
            continue;
        step(d, flow, &possible, after[i].type, after[i].type, config_of(d, after[i].type));
        half = strcmp(precision, "fp16") == 0;
    }
    keep(d, flow, possible);
    if (!half)
        return;
    flow = json_array();
    step(d, flow, &possible, fusions, "OrtTransformersOptimization_fp16",
         json_pack("{s:b}", "float16", 1));
    keep(d, flow, possible);
}

/* Whether a figure of accuracy may become worse than the input's. */
static bool may_lose(const workflow *w)
{
    for (size_t i = 0; i < w->evaluator.count; i++) {
        const wf_metric *m = &w->evaluator.metrics[i];
        for (size_t k = 0; k < m->figure_count; k++) {
            const search_goal g = m->figures[k].goal;
            if (m->kind == WF_ACCURACY && g.value > 0 &&
                (g.kind == SEARCH_MAX_DEGRADATION ||
                 g.kind == SEARCH_PERCENT_MAX_DEGRADATION))
                return true;
        }
    }
    return false;
}

static dr_status only_data(const json_t **out, const workflow *w, const dr_node *n)
{
    const dr_node *all = dr_node_get(w->doc.top, "data_configs");

    *out = NULL;
    if (all == NULL || all->first == NULL)
        return DR_OK;
    if (all->first->next != NULL)
        return dr_node_fail(&w->doc, n,
                            "several data_configs: one data set at most goes with it");
    *out = all->first->value;
    return DR_OK;
}

dr_status wf_auto_passes(json_t **out, workflow *w, const dr_node *n)
{
    const dr_node *wanted = dr_node_get(n, "precisions");
    const bool all = wanted == NULL && may_lose(w);
    draft d = {.w = w,
               .excluded = dr_node_get(n, "excluded_passes"),
               .device = w->device != NULL ? w->device : "cpu",
               .passes = json_object(),
               .flows = json_array()};
    bool onnx = false;
    dr_status st = DR_OK;

    *out = json_pack("{s:o, s:o}", "passes", d.passes, "pass_flows", d.flows);
    json_array_append_new(w->owned, *out);
    const dr_node *level = dr_node_get(n, "opt_level");
    if (wf_num(level, 0) != 0)
        DR_TRY(dr_node_fail(&w->doc, level, "there is one level: 0"));
    d.provider = short_provider(&w->arena, w, d.device);
    DR_TRY(check_words(w, wanted, "precision", precisions, DR_COUNT(precisions) - 1));
    DR_TRY(
        check_words(w, d.excluded, "pass of the template", template, DR_COUNT(template)));
    DR_TRY(only_data(&d.data, w, n));
    DR_TRY(flow_is_onnx_model(&onnx, &w->arena, w->model.path, w->model.type));
    for (const char *const *p = precisions; *p != NULL; p++) {
        if (wanted != NULL ? !is_one_of(wanted, *p) : !all && strcmp(*p, "fp32") != 0)
            continue;
        if (onnx)
            rewrite(&d, *p);
        else
            build(&d, *p);
    }
    if (onnx) /* the graph as it is, with a session that suits it */
        keep(&d, json_array(), true);
    if (json_array_size(d.flows) == 0)
        DR_TRY(dr_node_fail(&w->doc, n, "no pass makes such a model for %s on %s",
                            d.provider, d.device));
done:
    return st;
}
