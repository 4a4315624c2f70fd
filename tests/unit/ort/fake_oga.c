/*
 * fake_oga.c - ONNX Runtime GenAI as its version 0.5 was: the same exports, the same order
 * of calls insisted on, and the same end of a process that did not shut it down.  No wheel
 * of 0.5 holds the C library, so this is what the tests of that generation run on.
 *
 * After token i comes (5 i + 3) mod 32, with an adapter always 7; 28 ends the sequence and
 * is put there.  A text's ids are its bytes mod 32.  A model folder whose name has `crash`
 * crashes, `hang` never returns.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#pragma GCC visibility push(default)
#pragma GCC diagnostic ignored "-Wmissing-prototypes"

enum { VOCAB = 32, EOS = 28, ROOM = 64 };

typedef struct {
    char text[128];
} OgaResult;
typedef struct {
    int unused;
} OgaObject; /* model, tokenizer, adapters */
typedef struct {
    int32_t ids[ROOM];
    size_t count, sequences;
} OgaSequences;
typedef struct {
    const int32_t *prompt;
    size_t count;
    int max_length;
} OgaParams;
typedef struct {
    int32_t ids[ROOM];
    size_t count;
    int max_length;
    bool computed, ran, adapter, done;
} OgaGenerator;
typedef struct {
    float logits[VOCAB];
} OgaTensor;

static int live; /* objects not yet destroyed */
static bool made_globals, shut_down;

static void die(const char *why)
{
    (void)fprintf(stderr, "fake GenAI: %s\n", why);
    abort();
}

static OgaResult *refuse(const char *why)
{
    OgaResult *r = calloc(1, sizeof(*r));

    (void)snprintf(r->text, sizeof(r->text), "%s", why);
    return r;
}

static void *make(size_t bytes)
{
    live++;
    return calloc(1, bytes);
}

static void destroy(void *object)
{
    live--;
    free(object);
}

static void validate_shutdown(void)
{
    if (!shut_down)
        die("Shutdown must be called before process exit");
}

/* As soon as it is mapped, it looks for ONNX Runtime. */
__attribute__((constructor)) static void init(void)
{
    const char *ort = getenv("ORT_LIB_PATH"), *quiet = getenv("ORT_DISABLE_TELEMETRY");

    if (ort == NULL || access(ort, R_OK) != 0)
        die("Failed to load onnxruntime");
    if (quiet == NULL || strcmp(quiet, "1") != 0)
        die("telemetry is on");
}

void OgaShutdown(void)
{
    if (live != 0)
        die("instances were leaked");
    shut_down = true;
}

const char *OgaResultGetError(const OgaResult *r)
{
    return r->text;
}

void OgaDestroyResult(OgaResult *r)
{
    free(r);
}

OgaResult *OgaCreateModel(const char *dir, OgaObject **out)
{
    if (!made_globals)
        (void)atexit(validate_shutdown);
    made_globals = true;
    if (strstr(dir, "crash") != NULL) {
        (void)fprintf(stderr, "noise\nlast words\n");
        (void)signal(SIGSEGV, SIG_DFL); /* a sanitizer may listen */
        (void)raise(SIGSEGV);
    }
    while (strstr(dir, "hang") != NULL)
        (void)pause();
    if (strstr(dir, "refuse") != NULL)
        return refuse("no such\n  model type.");
    *out = make(sizeof(**out));
    return NULL;
}

void OgaDestroyModel(OgaObject *m)
{
    destroy(m);
}

OgaResult *OgaCreateTokenizer(const OgaObject *model, OgaObject **out)
{
    (void)model;
    *out = make(sizeof(**out));
    return NULL;
}

void OgaDestroyTokenizer(OgaObject *t)
{
    destroy(t);
}

OgaResult *OgaCreateSequences(OgaSequences **out)
{
    *out = make(sizeof(**out));
    return NULL;
}

void OgaDestroySequences(OgaSequences *s)
{
    destroy(s);
}

OgaResult *OgaTokenizerEncode(const OgaObject *t, const char *text, OgaSequences *s)
{
    (void)t;
    for (s->count = 0; text[s->count] != '\0' && s->count < ROOM; s->count++)
        s->ids[s->count] = text[s->count] % VOCAB;
    s->sequences = 1;
    return NULL;
}

size_t OgaSequencesCount(const OgaSequences *s)
{
    return s->sequences;
}

size_t OgaSequencesGetSequenceCount(const OgaSequences *s, size_t i)
{
    (void)i;
    return s->count;
}

const int32_t *OgaSequencesGetSequenceData(const OgaSequences *s, size_t i)
{
    (void)i;
    return s->ids;
}

OgaResult *OgaCreateGeneratorParams(const OgaObject *model, OgaParams **out)
{
    (void)model;
    *out = make(sizeof(**out));
    (*out)->max_length = ROOM / 2;
    return NULL;
}

void OgaDestroyGeneratorParams(OgaParams *p)
{
    destroy(p);
}

OgaResult *OgaGeneratorParamsSetSearchNumber(OgaParams *p, const char *name, double value)
{
    if (strcmp(name, "max_length") == 0)
        p->max_length = (int)value;
    return NULL;
}

OgaResult *OgaGeneratorParamsSetSearchBool(OgaParams *p, const char *name, bool value)
{
    (void)p, (void)name, (void)value;
    return NULL;
}

OgaResult *OgaGeneratorParamsSetInputIDs(OgaParams *p, const int32_t *ids, size_t count,
                                         size_t length, size_t batch)
{
    if (length * batch != count)
        return refuse("sequence length * batch size is not equal to input_ids_count");
    p->prompt = ids;
    p->count = count;
    return NULL;
}

OgaResult *OgaCreateGenerator(const OgaObject *model, const OgaParams *p,
                              OgaGenerator **out)
{
    (void)model;
    if (p->prompt == NULL)
        return refuse("input_ids not set in GeneratorParams");
    if (p->count >= (size_t)p->max_length || p->max_length > ROOM)
        return refuse("input sequence_length is >= max_length");
    *out = make(sizeof(**out));
    memcpy((*out)->ids, p->prompt, p->count * sizeof(int32_t));
    (*out)->count = p->count;
    (*out)->max_length = p->max_length;
    return NULL;
}

void OgaDestroyGenerator(OgaGenerator *g)
{
    destroy(g);
}

bool OgaGenerator_IsDone(const OgaGenerator *g)
{
    if (g->computed)
        die("IsDone() can't be called in the middle of processing logits");
    return g->done;
}

OgaResult *OgaGenerator_ComputeLogits(OgaGenerator *g)
{
    if (g->computed)
        return refuse("ComputeLogits called again without calling GenerateNextToken first");
    g->computed = true;
    g->ran = true;
    return NULL;
}

OgaResult *OgaGenerator_GenerateNextToken(OgaGenerator *g)
{
    if (!g->computed)
        return refuse("Must call ComputeLogits before GenerateNextToken");
    g->computed = false;
    int32_t id = g->adapter ? 7 : (g->ids[g->count - 1] * 5 + 3) % VOCAB;
    g->ids[g->count++] = id;
    g->done = id == EOS || g->count == (size_t)g->max_length;
    return NULL;
}

size_t OgaGenerator_GetSequenceCount(const OgaGenerator *g, size_t i)
{
    (void)i;
    return g->count;
}

const int32_t *OgaGenerator_GetSequenceData(const OgaGenerator *g, size_t i)
{
    (void)i;
    return g->ids;
}

OgaResult *OgaGenerator_GetOutput(const OgaGenerator *g, const char *name, OgaTensor **out)
{
    if (strcmp(name, "logits") != 0 || !g->ran)
        return refuse("no such output");
    *out = make(sizeof(**out));
    return NULL;
}

OgaResult *OgaTensorGetType(OgaTensor *t, int *out)
{
    (void)t;
    *out = 1;
    return NULL;
}

OgaResult *OgaTensorGetShapeRank(OgaTensor *t, size_t *out)
{
    (void)t;
    *out = 3;
    return NULL;
}

OgaResult *OgaTensorGetShape(OgaTensor *t, int64_t *dims, size_t rank)
{
    (void)t;
    for (size_t i = 0; i < rank; i++)
        dims[i] = i + 1 < rank ? 1 : VOCAB;
    return NULL;
}

OgaResult *OgaTensorGetData(OgaTensor *t, void **out)
{
    *out = t->logits;
    return NULL;
}

void OgaDestroyTensor(OgaTensor *t)
{
    destroy(t);
}

OgaResult *OgaCreateAdapters(const OgaObject *model, OgaObject **out)
{
    (void)model;
    *out = make(sizeof(**out));
    return NULL;
}

void OgaDestroyAdapters(OgaObject *a)
{
    destroy(a);
}

OgaResult *OgaLoadAdapter(OgaObject *a, const char *path, const char *name)
{
    (void)a, (void)name;
    return access(path, R_OK) == 0 ? NULL : refuse("no such adapter");
}

OgaResult *OgaSetActiveAdapter(OgaGenerator *g, OgaObject *a, const char *name)
{
    (void)a, (void)name;
    if (g->ran)
        return refuse("the prompt was run already");
    g->adapter = true;
    return NULL;
}
