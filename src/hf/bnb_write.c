/*
 * bnb_write.c - linears in bitsandbytes' 4 bits, as tensors of a checkpoint (bnb.c lists
 * them).
 *
 * The state is a JSON text whose length must be known before the mean of the scales is: it
 * ends in blanks, up to STATE_BYTES.
 */
#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "hf/bnb_impl.h"

enum { STATE_BYTES = 256 };

/* Which tensor a part is, in the order of the file. */
typedef enum { CODES, ABSMAX, MAP, STATE, NESTED_ABSMAX, NESTED_MAP } part;

static const char *type_name(const hf_bnb *g)
{
    return g->fp4 ? "fp4" : "nf4";
}

static void add(dr_arena *a, hf_packed *out, const hf_linear *l, const char *tail,
                dr_dtype dtype, size_t rows, size_t cols)
{
    dr_tensor *t = &out->part[out->count++];

    *t = (dr_tensor){.name = dr_arena_printf(a, "%s.weight%s", l->path, tail),
                     .dtype = dtype,
                     .ndim = cols > 0 ? 2 : 1,
                     .dims = {(int64_t)rows, (int64_t)cols}};
    t->bytes = dr_tensor_count(t) * dr_dtype_bytes(dtype);
}

void hf_bnb_plan(dr_arena *a, hf_packed *out, const hf_linear *l, const hf_bnb *g)
{
    size_t count = l->n_out * l->n_in, blocks = (count + HF_BNB_BLOCK - 1) / HF_BNB_BLOCK;

    out->count = 0;
    add(a, out, l, "", DR_DTYPE_U8, (count + 1) / 2, 1);
    add(a, out, l, ".absmax", g->nested ? DR_DTYPE_U8 : DR_DTYPE_F32, blocks, 0);
    add(a, out, l, ".quant_map", DR_DTYPE_F32, HF_BNB_LEVELS, 0);
    add(a, out, l, dr_arena_printf(a, ".quant_state.bitsandbytes__%s", type_name(g)),
        DR_DTYPE_U8, STATE_BYTES, 0);
    if (!g->nested)
        return;
    add(a, out, l, ".nested_absmax", DR_DTYPE_F32,
        (blocks + HF_BNB_NESTED - 1) / HF_BNB_NESTED, 0);
    add(a, out, l, ".nested_quant_map", DR_DTYPE_F32, HF_BNB_NESTED, 0);
}

static void state(char *dst, const hf_linear *l, const hf_bnb *g, const hf_bnb_packed *p)
{
    char nested[128] = "";

    if (g->nested)
        (void)snprintf(nested, sizeof(nested),
                       ", \"nested_blocksize\": %d, \"nested_dtype\": \"float32\", "
                       "\"nested_offset\": %.9g",
                       (int)HF_BNB_NESTED, (double)p->offset);
    int n = snprintf(dst, STATE_BYTES,
                     "{\"quant_type\": \"%s\", \"blocksize\": %d, \"dtype\": \"float32\", "
                     "\"shape\": [%zu, %zu]%s}",
                     type_name(g), (int)HF_BNB_BLOCK, l->n_out, l->n_in, nested);
    DR_BUG_IF(n < 0 || n >= STATE_BYTES);
    memset(dst + n, ' ', STATE_BYTES - (size_t)n);
}

void hf_bnb_part(void *dst, const hf_packed *plan, size_t i, const hf_linear *l,
                 const hf_bnb *g, const hf_bnb_packed *p)
{
    size_t bytes = plan->part[i].bytes;

    switch ((part)i) {
    case CODES:
        memcpy(dst, p->codes, bytes);
        break;
    case ABSMAX:
        memcpy(dst, g->nested ? (const void *)p->absmax8 : p->absmax, bytes);
        break;
    case MAP:
        memcpy(dst, hf_bnb_levels(g), bytes);
        break;
    case STATE:
        state(dst, l, g, p);
        break;
    case NESTED_ABSMAX:
        memcpy(dst, p->nested_absmax, bytes);
        break;
    case NESTED_MAP:
        hf_bnb_nested_levels(dst);
        break;
    }
}

json_t *hf_bnb_json(const hf_bnb *g)
{
    return json_pack("{s:s, s:b, s:b, s:s, s:b, s:s, s:s}", "quant_method", "bitsandbytes",
                     "load_in_4bit", 1, "load_in_8bit", 0, "bnb_4bit_quant_type",
                     type_name(g), "bnb_4bit_use_double_quant", (int)g->nested,
                     "bnb_4bit_compute_dtype", "float32", "bnb_4bit_quant_storage",
                     "uint8");
}
