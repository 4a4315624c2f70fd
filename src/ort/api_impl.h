/*
 * api_impl.h - the two runtimes as this room sees them: foreign types by their names,
 * tables of the calls that are used, and the libraries behind the tables.
 *
 * Nothing is global: each session and each generator opens its own runtime.  The loader
 * counts the opens, ONNX Runtime counts its environments (one a process, made at the first
 * open), and the libraries stay mapped to the end of the process (RTLD_NODELETE), since
 * neither can be unloaded safely.
 */
#ifndef DRUPE_ORT_API_IMPL_H
#define DRUPE_ORT_API_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/arena.h"
#include "core/status.h"

/* ---- ONNX Runtime ---- */

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtValue OrtValue;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorInfo;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtLoraAdapter OrtLoraAdapter;
typedef struct OrtEpDevice OrtEpDevice;
typedef struct OrtHardwareDevice OrtHardwareDevice;

/* severity: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal */
typedef void (*ort_log_fn)(void *ctx, int severity, const char *category, const char *logid,
                           const char *place, const char *message);

/* The version of the table that is asked for: 20 is the first with LoRA adapters. */
enum { ORT_API_VERSION = 20, ORT_SLOT_END = 285 };
/* The first with providers in libraries of their own, and the end of what is used of it. */
enum { ORT_PLUGIN_VERSION = 22, ORT_PLUGIN_END = 317 };
enum { ORT_HARDWARE_NPU = 2 };
enum { ORT_OPTIMIZE_NONE = 0, ORT_OPTIMIZE_ALL = 99, ORT_SEVERITY_ERROR = 3 };

typedef struct {
#define ORT_SLOT(number, name, result, arguments) result(*name) arguments;
#include "ort/ort_plugin.def"
#include "ort/ort_slots.def"
#undef ORT_SLOT
} ort_api;

/* A library that is open.  {0} is a valid closed one. */
typedef struct {
    void *handle; /* owned */
    char *path;   /* owned: the file that was loaded */
} library;

/*
 * Opens the first of `names` (NULL-terminated) that exists in the folders to search, else
 * what the loader finds under these names (library.c).
 */
DR_MUST_USE dr_status library_open(library *lib, const char *const *names,
                                   const char *what);
/*
 * The file of that name in the folders to search, or beside lib (NULL: only there); NULL:
 * there is none.
 */
const char *library_find(dr_arena *a, const library *lib, const char *name);
/* The advice when it is not there or not the right one. */
void library_hint(const char *what);
void library_close(library *lib);

/* ONNX Runtime, loaded.  {0} is a valid closed one. */
typedef struct {
    library lib;
    const char *version; /* borrowed from the library */
    OrtEnv *env;         /* owned */
    ort_api api;
} ort_runtime;

/* DR_EDEVICE: not found (the trail has the places), not loadable, another kind, too old. */
DR_MUST_USE dr_status ort_runtime_open(ort_runtime *r);
void ort_runtime_close(ort_runtime *r);

/* NULL is DR_OK; else the status is released and its text recorded after `where`. */
DR_MUST_USE dr_status ort_result(const ort_api *api, OrtStatus *status, const char *where);

/* After a run with this adapter failed: names it, with advice if it is to blame. */
void ort_note_adapter(const char *path);

/* ---- ONNX Runtime GenAI ---- */

typedef struct OgaResult OgaResult;
typedef struct OgaConfig OgaConfig;
typedef struct OgaModel OgaModel;
typedef struct OgaTokenizer OgaTokenizer;
typedef struct OgaSequences OgaSequences;
typedef struct OgaGeneratorParams OgaParams;
typedef struct OgaGenerator OgaGenerator;
typedef struct OgaAdapters OgaAdapters;
typedef struct OgaTensor OgaTensor;

typedef struct {
#define OGA_FN(since, name, result, arguments) result(*name) arguments;
#include "ort/oga.def"
#undef OGA_FN
} oga_api;

/* GenAI, loaded.  {0} is a valid closed one. */
typedef struct {
    library lib;
    bool old; /* 0.5: prompt in the parameters, ComputeLogits before each token */
    oga_api api;
} oga_runtime;

/*
 * ort must be open: GenAI is told to use that very library (it looks for one as soon as it
 * is mapped, and without one ends the process).  DR_EDEVICE as above.
 */
DR_MUST_USE dr_status oga_runtime_open(oga_runtime *r, const ort_runtime *ort);
void oga_runtime_close(oga_runtime *r);
/*
 * To be called once a model was made or refused: GenAI up to 0.6 aborts a process that
 * exits without OgaShutdown, which must then run before GenAI's own exit handlers, and so
 * be registered after them.  Registered by every call, since nothing here remembers the
 * others; shutting down again does nothing.
 */
void oga_runtime_arrange_exit(const oga_runtime *r);
const char *oga_runtime_generation(const oga_runtime *r);

DR_MUST_USE dr_status oga_result(const oga_api *api, OgaResult *result, const char *where);

#endif
