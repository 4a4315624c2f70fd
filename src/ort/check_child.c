/*
 * check_child.c - what is tried on a finished model folder.
 *
 * With GenAI: our ids of the probe texts against GenAI's, then two tokens without an
 * adapter and two with each, every logit finite.  Without: one run of the plain session on
 * dummy inputs, again with each adapter, every output finite.
 *
 */
#include "ort/check_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/mem.h"
#include "ort/api_impl.h"
#include "ort/generator_impl.h"
#include "ort/session_impl.h"

enum { STEPS = 2, PROMPT_MAX = 16, SEQUENCE = 4 };

/* ---- with GenAI ---- */

static dr_status compare_ids(ort_generator *g, const ort_check_request *q, size_t i)
{
    const int32_t *ours = q->ids[i];
    const size_t our_count = q->id_counts[i];
    int32_t *ids = NULL;
    size_t count = 0, at = 0;
    char theirs_text[16] = "nothing", our_text[16] = "nothing";
    dr_status st = DR_OK;

    DR_TRY(ort_generator_encode(g, q->texts[i], &ids, &count));
    while (at < count && at < our_count && ids[at] == ours[at])
        at++;
    if (at == count && at == our_count)
        goto done;
    if (at < count)
        (void)snprintf(theirs_text, sizeof(theirs_text), "%d", (int)ids[at]);
    if (at < our_count)
        (void)snprintf(our_text, sizeof(our_text), "%d", (int)ours[at]);
    st = dr_fail(DR_EDEVICE,
                 "%s: the tokenizers differ on \"%s\": id %zu is %s by GenAI, %s by "
                 "drupe (%zu and %zu ids in all)",
                 q->dir, q->texts[i], at, theirs_text, our_text, count, our_count);
    dr_hint("GenAI would run this model on other ids than it was made for: look at "
            "tokenizer.json (its decoder and its model type) and tokenizer_config.json");
done:
    free(ids);
    return st;
}

static dr_status check_genai(const ort_check_request *q)
{
    static const int32_t any[] = {1};
    dr_arena a = {0};
    ort_generator *g = NULL;
    const int32_t *prompt = any;
    size_t count = DR_COUNT(any);
    dr_status st = DR_OK;

    DR_TRYF(ort_generator_open(&g, q->dir, NULL), "loading the model");
    for (size_t i = 0; i < q->text_count; i++) {
        DR_TRYF(compare_ids(g, q, i), "comparing ids of text %zu of %zu", i + 1,
                q->text_count);
        if (prompt == any && q->id_counts[i] > 0) {
            prompt = q->ids[i];
            count = q->id_counts[i] < PROMPT_MAX ? q->id_counts[i] : PROMPT_MAX;
        }
    }
    DR_TRYF(generator_try(g, prompt, count, STEPS), "generating without an adapter");
    for (size_t i = 0; i < q->adapter_count; i++) {
        const char *file = q->adapter_files[i];
        DR_TRY(ort_generator_use(g, dr_path_join(&a, q->dir, file)));
        DR_TRYF(generator_try(g, prompt, count, STEPS), "generating with %s", file);
    }
done:
    ort_generator_close(g);
    dr_arena_release(&a);
    return st;
}

/* ---- without ---- */

static dr_status check_finite(const ort_value *v, const char *path)
{
    const size_t size = dr_dtype_bytes(v->dtype);
    const char *at = v->data;
    float x = 0;

    if (!dr_dtype_is_float(v->dtype))
        return DR_OK;
    for (size_t i = 0; i < v->bytes; i += size) {
        dr_to_f32(&x, at + i, v->dtype, 1);
        if (!isfinite(x))
            return dr_fail(DR_EDEVICE, "%s: element %zu of output %s is not finite", path,
                           i / size, v->name);
    }
    return DR_OK;
}

/* Values of parts that have been run; everything in the arena. */
typedef struct {
    dr_arena *a;
    ort_value *list;
    size_t count;
} part_values;

static const ort_value *find_value(const part_values *v, const char *name)
{
    for (size_t i = 0; v != NULL && i < v->count; i++)
        if (strcmp(v->list[i].name, name) == 0)
            return &v->list[i];
    return NULL;
}

static dr_status keep_values(part_values *v, const ort_value *outputs,
                             const char *const *names, size_t count)
{
    ort_value *more = dr_arena_alloc(v->a, v->count + count + 1, sizeof(*more));
    dr_status st = DR_OK;

    if (v->count > 0)
        memcpy(more, v->list, v->count * sizeof(*more));
    v->list = more;
    for (size_t i = 0; i < count; i++) {
        ort_value *to = &more[v->count];
        *to = outputs[i];
        to->owner = NULL;
        to->name = dr_arena_strdup(v->a, names[i]);
        DR_TRY(dr_arena_big(v->a, &to->data, to->bytes, 1, names[i]));
        if (to->bytes > 0)
            memcpy(to->data, outputs[i].data, to->bytes);
        v->count++;
    }
done:
    return st;
}

/* kept: gets what comes out; NULL: nobody does. */
static dr_status run_once(dr_arena *a, ort_session *s, const ort_value *inputs,
                          size_t input_count, const char *path, part_values *kept)
{
    const size_t count = ort_session_output_count(s);
    const char **names = dr_arena_alloc(a, count + 1, sizeof(*names));
    ort_value *outputs = dr_arena_alloc(a, count + 1, sizeof(*outputs));
    dr_status st = DR_OK;

    for (size_t i = 0; i < count; i++)
        names[i] = ort_session_output_name(s, i);
    DR_TRY(ort_session_run(s, inputs, input_count, names, outputs, count));
    for (size_t i = 0; i < count; i++)
        DR_TRY(check_finite(&outputs[i], path));
    if (kept != NULL)
        DR_TRY(keep_values(kept, outputs, names, count));
done:
    ort_values_release(outputs, count);
    return st;
}

/* file: in the folder.  Inputs are what parts before gave (NULL: none were), or dummies. */
static dr_status check_graph(const ort_check_request *q, const char *file,
                             part_values *given)
{
    dr_arena a = {0};
    ort_session *s = NULL;
    ort_value *inputs = NULL, declared = {0};
    size_t count = 0;
    bool optional = false;
    const char *path = dr_path_join(&a, q->dir, file);
    dr_status st = DR_OK;

    DR_TRYF(ort_session_open(&s, path, 0, true), "loading the model");
    inputs = dr_arena_alloc(&a, ort_session_input_count(s) + 1, sizeof(*inputs));
    for (size_t i = 0; i < ort_session_input_count(s); i++) {
        DR_TRY(ort_session_input(s, i, &declared, &optional));
        const ort_value *before = find_value(given, declared.name);
        if (before != NULL)
            inputs[count++] = *before;
        else if (!optional)
            DR_TRY(session_dummy(&a, &inputs[count++], s, i, SEQUENCE));
    }
    DR_TRYF(run_once(&a, s, inputs, count, path, given), "running without an adapter");
    for (size_t i = 0; i < q->adapter_count; i++) {
        const char *adapter = q->adapter_files[i];
        DR_TRY(ort_session_adapter(s, dr_path_join(&a, q->dir, adapter)));
        DR_TRYF(run_once(&a, s, inputs, count, path, NULL), "running with %s", adapter);
    }
done:
    ort_session_close(s);
    dr_arena_release(&a);
    return st;
}

static dr_status check_session(const ort_check_request *q)
{
    dr_arena a = {0};
    part_values given = {.a = &a};
    dr_status st = DR_OK;

    if (q->parts == NULL)
        return check_graph(q, q->model_file ? q->model_file : "model.onnx", NULL);
    for (size_t i = 0; q->parts[i] != NULL; i++)
        DR_TRY(check_graph(q, q->parts[i], &given));
done:
    dr_arena_release(&a);
    return st;
}

dr_status check_folder(const void *request, bool *runtime)
{
    const ort_check_request *q = request;
    ort_runtime ort = {0};
    oga_runtime oga = {0};
    dr_status st = DR_OK;

    *runtime = false;
    if (!dr_is_dir(q->dir)) {
        *runtime = true;
        DR_FAIL(DR_EIO, "%s: no such folder", q->dir);
    }
    DR_TRY(ort_runtime_open(&ort));
    if (q->genai)
        DR_TRY(oga_runtime_open(&oga, &ort));
    *runtime = true;
    DR_TRY(q->genai ? check_genai(q) : check_session(q));
done:
    oga_runtime_close(&oga);
    ort_runtime_close(&ort);
    return st;
}
