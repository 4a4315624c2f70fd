/*
 * generator.c - generation by ONNX Runtime GenAI, of both generations.
 *
 *     0.5:  params(prompt) -> generator -> adapter -> { compute logits -> next token }
 *     0.6+: params -> generator -> adapter -> append prompt -> { next token }
 *
 * 1. An adapter is made active before the prompt is run.
 * 2. Params and prompt outlive their generator: 0.5 keeps pointers into both.
 * 3. What GenAI made goes in the reverse order, all of it before the process ends: 0.5
 *    aborts an exit that leaves something behind.
 * 4. New tokens are read off the sequence, which both generations have.  Some versions put
 *    the end-of-sequence id there and some do not, so it is told by the config's ids, and
 *    by a sequence that ends without having grown.
 */
#include "ort/generator_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "ort/api_impl.h"

struct ort_generator {
    ort_runtime ort;
    oga_runtime oga;
    char *dir;                    /* owned */
    ort_generate_options options; /* its string is not used after the open */
    char **adapter_paths;         /* owned: of those in adapters, which are their names */
    size_t adapter_count;
    const char *active; /* of these; NULL: none */
    int32_t *eos;       /* owned: the config's end-of-sequence ids */
    size_t eos_count;
    OgaModel *model;
    OgaAdapters *adapters;   /* made with the first one */
    OgaTokenizer *tokenizer; /* made with the first text */
    double load_s;
};

/* One generation under way. */
typedef struct {
    OgaParams *params;
    OgaGenerator *generator;
    size_t seen;  /* tokens of the sequence already handed out, the prompt's included */
    bool stop;    /* the listener has heard enough */
    bool ended;   /* an end-of-sequence id came */
    int32_t *ids; /* owned: handed out */
    size_t id_count;
} generation;

/* ---- open and close ---- */

static dr_status load_with_threads(ort_generator *g)
{
    const oga_api *api = &g->oga.api;
    OgaConfig *config = NULL;
    char *json = dr_asprintf("{\"model\":{\"decoder\":{\"session_options\":"
                             "{\"intra_op_num_threads\":%d}}}}",
                             g->options.threads);
    dr_status st = DR_OK;

    DR_TRY(oga_result(api, api->OgaCreateConfig(g->dir, &config), g->dir));
    DR_TRY(oga_result(api, api->OgaConfigOverlay(config, json), g->dir));
    DR_TRY(oga_result(api, api->OgaCreateModelFromConfig(config, &g->model), g->dir));
done:
    if (config != NULL)
        api->OgaDestroyConfig(config);
    free(json);
    return st;
}

static dr_status load_model(ort_generator *g)
{
    const oga_api *api = &g->oga.api;
    bool overlay = api->OgaConfigOverlay != NULL && api->OgaCreateConfig != NULL &&
                   api->OgaDestroyConfig != NULL && api->OgaCreateModelFromConfig != NULL;
    dr_status st = DR_OK;

    if (g->options.threads > 0 && !overlay)
        dr_log(DR_WARNING,
               "%s: this GenAI takes the number of threads from the model's "
               "genai_config.json only",
               g->oga.lib.path);
    if (g->options.threads > 0 && overlay)
        st = load_with_threads(g);
    else
        st = oga_result(api, api->OgaCreateModel(g->dir, &g->model), g->dir);
    oga_runtime_arrange_exit(&g->oga);
    return st;
}

/* model.eos_token_id, a number or a list, else model.pad_token_id: GenAI's own rule. */
static void keep_eos(ort_generator *g, const json_t *model)
{
    const json_t *eos = json_object_get(model, "eos_token_id");

    if (eos == NULL)
        eos = json_object_get(model, "pad_token_id");
    g->eos = dr_calloc(json_array_size(eos) + 1, sizeof(*g->eos));
    if (json_is_integer(eos))
        g->eos[g->eos_count++] = (int32_t)json_integer_value(eos);
    for (size_t i = 0; i < json_array_size(eos); i++)
        g->eos[g->eos_count++] = (int32_t)json_integer_value(json_array_get(eos, i));
}

static dr_status read_config(ort_generator *g)
{
    dr_arena a = {0};
    json_t *config = NULL;
    const char *path = dr_path_join(&a, g->dir, "genai_config.json");
    dr_status st = DR_OK;

    if (!dr_is_dir(g->dir))
        DR_FAIL(DR_EIO, "%s: no such folder", g->dir);
    if (!dr_is_file(path))
        DR_FAIL(DR_EFORMAT, "%s: no genai_config.json in this folder", g->dir);
    DR_TRY(dr_json_read(&config, path));
    keep_eos(g, json_object_get(config, "model"));
done:
    json_decref(config);
    dr_arena_release(&a);
    return st;
}

dr_status ort_generator_open(ort_generator **out, const char *model_dir,
                             const ort_generate_options *o)
{
    ort_generator *g = dr_calloc(1, sizeof(*g));
    const double start_s = dr_now_s();
    dr_status st = DR_OK;

    *out = NULL;
    g->options = o != NULL ? *o : ORT_GENERATE_DEFAULTS;
    g->dir = dr_strdup(model_dir);
    DR_TRY(read_config(g));
    DR_TRY(ort_runtime_open(&g->ort));
    DR_TRY(oga_runtime_open(&g->oga, &g->ort));
    DR_TRY(load_model(g));
    DR_TRY(ort_generator_use(g, g->options.adapter_path));
    g->load_s = dr_now_s() - start_s;
    *out = g;
done:
    if (st != DR_OK)
        ort_generator_close(g);
    return st;
}

void ort_generator_close(ort_generator *g)
{
    if (g == NULL)
        return;
    if (g->tokenizer != NULL)
        g->oga.api.OgaDestroyTokenizer(g->tokenizer);
    if (g->adapters != NULL)
        g->oga.api.OgaDestroyAdapters(g->adapters);
    if (g->model != NULL)
        g->oga.api.OgaDestroyModel(g->model);
    oga_runtime_close(&g->oga);
    ort_runtime_close(&g->ort);
    for (size_t i = 0; i < g->adapter_count; i++)
        free(g->adapter_paths[i]);
    free(g->adapter_paths);
    free(g->eos);
    free(g->dir);
    free(g);
}

void ort_generator_set(ort_generator *g, const ort_generate_options *o)
{
    g->options = *o;
}

dr_status ort_generator_use(ort_generator *g, const char *path)
{
    const oga_api *api = &g->oga.api;
    dr_status st = DR_OK;

    g->active = NULL;
    for (size_t i = 0; path != NULL && i < g->adapter_count; i++)
        if (strcmp(g->adapter_paths[i], path) == 0)
            g->active = g->adapter_paths[i];
    if (path == NULL || g->active != NULL)
        return DR_OK;
    if (!dr_is_file(path))
        DR_FAIL(DR_EIO, "%s: no such file", path);
    if (g->adapters == NULL)
        DR_TRY(oga_result(api, api->OgaCreateAdapters(g->model, &g->adapters), g->dir));
    DR_TRY(oga_result(api, api->OgaLoadAdapter(g->adapters, path, path), path));
    g->adapter_paths = dr_realloc(g->adapter_paths, g->adapter_count + 1, sizeof(char *));
    g->adapter_paths[g->adapter_count] = dr_strdup(path);
    g->active = g->adapter_paths[g->adapter_count++];
done:
    return st;
}

/* ---- text to ids ---- */

dr_status ort_generator_encode(ort_generator *g, const char *text, int32_t **ids,
                               size_t *count)
{
    const oga_api *api = &g->oga.api;
    OgaSequences *sequences = NULL;
    dr_status st = DR_OK;

    *ids = NULL;
    *count = 0;
    if (g->tokenizer == NULL)
        DR_TRYF(oga_result(api, api->OgaCreateTokenizer(g->model, &g->tokenizer), g->dir),
                "loading the tokenizer");
    DR_TRY(oga_result(api, api->OgaCreateSequences(&sequences), g->dir));
    DR_TRY(oga_result(api, api->OgaTokenizerEncode(g->tokenizer, text, sequences), g->dir));
    if (api->OgaSequencesCount(sequences) > 0)
        *count = api->OgaSequencesGetSequenceCount(sequences, 0);
    *ids = dr_calloc(*count + 1, sizeof(**ids));
    if (*count > 0)
        memcpy(*ids, api->OgaSequencesGetSequenceData(sequences, 0),
               *count * sizeof(**ids));
done:
    if (sequences != NULL)
        api->OgaDestroySequences(sequences);
    return st;
}

/* ---- one generation ---- */

static dr_status set_number(ort_generator *g, OgaParams *p, const char *name, double value)
{
    const oga_api *api = &g->oga.api;

    return oga_result(api, api->OgaGeneratorParamsSetSearchNumber(p, name, value), g->dir);
}

static dr_status set_bool(ort_generator *g, OgaParams *p, const char *name, bool value)
{
    const oga_api *api = &g->oga.api;

    return oga_result(api, api->OgaGeneratorParamsSetSearchBool(p, name, value), g->dir);
}

static dr_status set_search(ort_generator *g, OgaParams *p, const ort_generate_options *o)
{
    dr_status st = DR_OK;

    DR_TRY(set_bool(g, p, "do_sample", o->do_sample));
    if (o->do_sample && o->temperature > 0)
        DR_TRY(set_number(g, p, "temperature", o->temperature));
    if (o->do_sample && o->top_p > 0)
        DR_TRY(set_number(g, p, "top_p", o->top_p));
    if (o->do_sample && o->top_k > 0)
        DR_TRY(set_number(g, p, "top_k", o->top_k));
    if (o->max_length > 0)
        DR_TRY(set_number(g, p, "max_length", o->max_length));
    if (o->seed >= 0)
        DR_TRY(set_number(g, p, "random_seed", (double)(o->seed & INT32_MAX)));
    if (o->share_buffer >= 0)
        DR_TRY(set_bool(g, p, "past_present_share_buffer", o->share_buffer != 0));
done:
    return st;
}

static dr_status generation_begin(generation *n, ort_generator *g,
                                  const ort_generate_options *o, const int32_t *prompt,
                                  size_t count)
{
    const oga_api *api = &g->oga.api;
    dr_status st = DR_OK;

    if (count == 0)
        DR_FAIL(DR_EUSAGE, "%s: the prompt has no tokens", g->dir);
    if (o->max_length > 0 && count >= (size_t)o->max_length)
        DR_FAIL(DR_EUSAGE, "%s: a prompt of %zu tokens leaves no room in max_length %d",
                g->dir, count, o->max_length);
    DR_TRY(oga_result(api, api->OgaCreateGeneratorParams(g->model, &n->params), g->dir));
    DR_TRY(set_search(g, n->params, o));
    if (g->oga.old)
        DR_TRY(oga_result(
            api, api->OgaGeneratorParamsSetInputIDs(n->params, prompt, count, count, 1),
            g->dir));
    DR_TRY(oga_result(api, api->OgaCreateGenerator(g->model, n->params, &n->generator),
                      g->dir));
    if (g->active != NULL)
        DR_TRY(oga_result(api,
                          api->OgaSetActiveAdapter(n->generator, g->adapters, g->active),
                          g->active));
    if (!g->oga.old)
        DR_TRY(oga_result(api, api->OgaGenerator_AppendTokens(n->generator, prompt, count),
                          g->dir));
    n->seen = count;
done:
    if (st != DR_OK && g->active != NULL)
        ort_note_adapter(g->active);
    return st;
}

static void generation_end(generation *n, ort_generator *g)
{
    if (n->generator != NULL)
        g->oga.api.OgaDestroyGenerator(n->generator);
    if (n->params != NULL)
        g->oga.api.OgaDestroyGeneratorParams(n->params);
    free(n->ids);
    *n = (generation){0};
}

/* 0.5 asks for the logits by a call of their own; later ones have them already. */
static dr_status compute(generation *n, ort_generator *g)
{
    const oga_api *api = &g->oga.api;
    dr_status st = DR_OK;

    if (!g->oga.old)
        return DR_OK;
    st = oga_result(api, api->OgaGenerator_ComputeLogits(n->generator), g->dir);
    if (st != DR_OK && g->active != NULL)
        ort_note_adapter(g->active);
    return st;
}

static dr_status pick(generation *n, ort_generator *g)
{
    const oga_api *api = &g->oga.api;

    return oga_result(api, api->OgaGenerator_GenerateNextToken(n->generator), g->dir);
}

static bool is_eos(const ort_generator *g, int32_t id)
{
    for (size_t i = 0; i < g->eos_count; i++)
        if (g->eos[i] == id)
            return true;
    return false;
}

/* Hands out what the sequence has grown by. */
static void hand_out(generation *n, ort_generator *g, ort_token_fn on_token, void *ctx)
{
    const oga_api *api = &g->oga.api;
    const size_t have = api->OgaGenerator_GetSequenceCount(n->generator, 0);
    const int32_t *data = api->OgaGenerator_GetSequenceData(n->generator, 0);

    n->ended = n->seen == have;
    for (; n->seen < have && !n->stop && !n->ended; n->seen++) {
        const int32_t id = data[n->seen];
        n->ended = is_eos(g, id);
        if (n->ended)
            return;
        if ((n->id_count & (n->id_count - 1)) == 0) /* room doubles at powers of two */
            n->ids = dr_realloc(n->ids, n->id_count > 0 ? 2 * n->id_count : 1, sizeof(id));
        n->ids[n->id_count++] = id;
        n->stop = on_token != NULL && !on_token(ctx, id);
    }
}

dr_status ort_generate(ort_generator *g, const int32_t *prompt, size_t count,
                       ort_token_fn on_token, void *ctx, int32_t **ids_out,
                       size_t *new_count, ort_generate_stats *stats)
{
    const oga_api *api = &g->oga.api;
    const double start_s = dr_now_s();
    double first_s = start_s;
    generation n = {0};
    dr_status st = DR_OK;

    DR_TRY(generation_begin(&n, g, &g->options, prompt, count));
    while (!n.stop && !n.ended && !api->OgaGenerator_IsDone(n.generator)) {
        DR_TRY(dr_cancelled_check());
        DR_TRY(compute(&n, g));
        DR_TRY(pick(&n, g));
        if (n.id_count == 0)
            first_s = dr_now_s();
        hand_out(&n, g, on_token, ctx);
    }
    if (stats != NULL)
        *stats = (ort_generate_stats){.prompt_tokens = count,
                                      .new_tokens = n.id_count,
                                      .load_s = g->load_s,
                                      .prefill_s = first_s - start_s,
                                      .decode_s = dr_now_s() - first_s,
                                      .ended = n.ended};
    if (new_count != NULL)
        *new_count = n.id_count;
    if (ids_out != NULL) {
        *ids_out = n.ids;
        n.ids = NULL;
    }
done:
    generation_end(&n, g);
    return st;
}

/* ---- trying a model ---- */

/* The first value that is not finite, -1 when there is none. */
static ptrdiff_t first_bad(const void *data, dr_dtype type, size_t count)
{
    const char *at = data;
    float value = 0;

    for (size_t i = 0; i < count; i++) {
        dr_to_f32(&value, at + i * dr_dtype_bytes(type), type, 1);
        if (!isfinite(value))
            return (ptrdiff_t)i;
    }
    return -1;
}

static dr_status check_logits(generation *n, ort_generator *g)
{
    const oga_api *api = &g->oga.api;
    OgaTensor *t = NULL;
    void *data = NULL;
    int type = 0;
    int64_t dims[8] = {0};
    size_t rank = 0, count = 1;
    dr_status st = DR_OK;

    if (g->oga.old)
        DR_TRY(oga_result(api, api->OgaGenerator_GetOutput(n->generator, "logits", &t),
                          g->dir));
    else
        DR_TRY(oga_result(api, api->OgaGenerator_GetLogits(n->generator, &t), g->dir));
    DR_TRY(oga_result(api, api->OgaTensorGetType(t, &type), g->dir));
    DR_TRY(oga_result(api, api->OgaTensorGetShapeRank(t, &rank), g->dir));
    if (rank > DR_COUNT(dims))
        DR_FAIL(DR_EDEVICE, "%s: the logits have %zu dims", g->dir, rank);
    DR_TRY(oga_result(api, api->OgaTensorGetShape(t, dims, rank), g->dir));
    DR_TRY(oga_result(api, api->OgaTensorGetData(t, &data), g->dir));
    for (size_t d = 0; d < rank; d++)
        count *= (size_t)dims[d];
    dr_dtype kind = DR_DTYPE_F32; /* GenAI numbers element types as ONNX does */
    if (type == dr_dtype_onnx(DR_DTYPE_F16) || type == dr_dtype_onnx(DR_DTYPE_BF16))
        kind = type == dr_dtype_onnx(DR_DTYPE_F16) ? DR_DTYPE_F16 : DR_DTYPE_BF16;
    else if (type != dr_dtype_onnx(DR_DTYPE_F32))
        DR_FAIL(DR_EDEVICE, "%s: the logits are of ONNX type %d", g->dir, type);
    ptrdiff_t bad = first_bad(data, kind, count);
    if (bad >= 0)
        DR_FAIL(DR_EDEVICE, "%s: logit %td of %zu is not finite", g->dir, bad, count);
done:
    if (t != NULL)
        api->OgaDestroyTensor(t);
    return st;
}

dr_status generator_try(ort_generator *g, const int32_t *prompt, size_t count, int steps)
{
    ort_generate_options o = ORT_GENERATE_DEFAULTS;
    generation n = {0};
    dr_status st = DR_OK;

    o.max_length = (int)count + steps;
    DR_TRY(generation_begin(&n, g, &o, prompt, count));
    for (int i = 0; i < steps && !g->oga.api.OgaGenerator_IsDone(n.generator); i++) {
        DR_TRY(compute(&n, g));
        DR_TRY(check_logits(&n, g));
        DR_TRY(pick(&n, g));
    }
done:
    generation_end(&n, g);
    return st;
}
