/*
 * ort_fixture.h - models and adapters small enough to be worked out by hand, written byte
 * by byte (protobuf, FlatBuffers), so that the tests of src/ort need no Python, no files.
 */
#ifndef DRUPE_TESTS_ORT_FIXTURE_H
#define DRUPE_TESTS_ORT_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* z = x + y, all float [n]. */
void fixture_add(const char *path);
/* y = sqrt(x - 2), float [n]: not finite for a dummy input of ones. */
void fixture_nan(const char *path);
/* What exporters declare: input_ids, attention_mask, an empty cache; all passed through. */
void fixture_dims(const char *path);

/*
 * y = x W + (x A) B with x [m, 3], W [3, 2] = fixture_w, and A [3, r], B [r, 2] optional:
 * initializers of rank 0 that are also inputs, lora_A and lora_B.
 */
enum { FIXTURE_K = 3, FIXTURE_N = 2 };
extern const float fixture_w[FIXTURE_K * FIXTURE_N];
void fixture_lora(const char *path);

typedef struct {
    const char *name;
    int64_t dims[2];
    const float *data;
} fixture_param;
/* An .onnx_adapter of these parameters. */
void fixture_adapter(const char *path, const fixture_param *params, size_t count);

/*
 * A GenAI folder of a bigram model over 32 tokens: after token i comes fixture_next(i); the
 * end-of-sequence id is FIXTURE_EOS.  nan: the logits are not finite.  The tokenizer knows
 * a-z (0-25), the space (26) and the merge "ab" (27).  fixture_genai_adapter writes an
 * adapter with which every token is followed by `token`.
 */
enum { FIXTURE_VOCAB = 32, FIXTURE_EOS = 28 };
int32_t fixture_next(int32_t id);
void fixture_genai(const char *dir, bool nan);
void fixture_genai_adapter(const char *path, int token);
/* One whose parameters are no inputs of the model. */
void fixture_wrong_adapter(const char *path);

/* Whether ONNX Runtime, and GenAI with it, is here; prints why not. */
bool fixture_has_ort(void);
bool fixture_has_genai(void);

#endif
