/*
 * adapter_read_test.c - .onnx_adapter files read back, and such as nobody should read: cut
 * off anywhere, with every byte changed.  Sanitizers see what goes outside.
 */
#include "check.h"
#include "core/file.h"
#include "core/rng.h"
#include "onnx/onnx.h"

static dr_arena arena;
static const char *path;

static const float values[6] = {1, 2, 3, 4, 5, -6};
static const uint8_t codes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static const dr_tensor list[] = {
    {"model.layers.0.self_attn.q_proj.lora_A.weight", DR_DTYPE_F32, 2, {3, 2}, values, 24},
    {"b", DR_DTYPE_U8, 3, {2, 1, 4}, codes, 8},
    {"c.scale", DR_DTYPE_F16, 1, {4}, codes, 8},
    {"empty", DR_DTYPE_F32, 2, {0, 7}, values, 0}};

static void round_trip(void)
{
    onnx_adapter_file f;

    CHECK_OK(onnx_adapter_save(path, list, DR_COUNT(list), ONNX_ADAPTER_FILE));
    if (!CHECK_OK(onnx_adapter_open(&f, path)))
        return;
    if (CHECK_EQ_INT(f.count, DR_COUNT(list))) {
        for (size_t i = 0; i < f.count; i++) {
            const dr_tensor *t = &f.tensors[i];
            CHECK_STR(t->name, list[i].name);
            CHECK_EQ_INT(t->dtype, list[i].dtype);
            CHECK_EQ_INT(t->ndim, list[i].ndim);
            for (int d = 0; d < t->ndim; d++)
                CHECK_EQ_INT(t->dims[d], list[i].dims[d]);
            if (CHECK_EQ_INT(t->bytes, list[i].bytes))
                CHECK_MEM(t->data, list[i].data, t->bytes);
            CHECK_EQ_INT((uintptr_t)t->data % 8, 0);
        }
    }
    onnx_adapter_close(&f);
}

/* Whatever the bytes are, the call comes back; what it accepts lies in the file. */
static bool try_bytes(const void *data, size_t n)
{
    const char *bad = dr_path_join(&arena, check_tmp(), "bad.onnx_adapter");
    onnx_adapter_file f;
    unsigned sum = 0;

    if (!CHECK_OK(dr_write_file(bad, data, n)))
        return false;
    dr_status st = onnx_adapter_open(&f, bad);
    if (st != DR_OK)
        return CHECK(st == DR_EFORMAT || st == DR_EUNSUPPORTED) && false;
    for (size_t i = 0; i < f.count; i++) {
        for (size_t j = 0; j < f.tensors[i].bytes; j++)
            sum += ((const unsigned char *)f.tensors[i].data)[j];
    }
    onnx_adapter_close(&f);
    return sum != UINT32_MAX;
}

static void damaged(void)
{
    dr_map m = {0};
    size_t accepted = 0;
    dr_rng rng;

    dr_rng_init(&rng, 3, 1);
    if (!CHECK_OK(dr_map_open(&m, path)))
        return;
    unsigned char *copy = dr_arena_alloc(&arena, m.size, 1);
    for (size_t n = 0; n < m.size; n++)
        accepted += try_bytes(m.data, n);
    /* the last value is empty and its length stands at the end: no shorter file is whole */
    CHECK_EQ_INT(accepted, 0);
    for (size_t i = 0; i < m.size; i++) {
        for (int k = 0; k < 3; k++) {
            memcpy(copy, m.data, m.size);
            copy[i] = k == 0 ? 0xff : k == 1 ? 0 : (unsigned char)dr_rng_u32(&rng);
            (void)try_bytes(copy, m.size);
        }
    }
    dr_map_close(&m);
}

int main(void)
{
    static const dr_tensor strange = {"x", DR_DTYPE_F32, 1, {3}, values, 8};
    onnx_adapter_file f;

    path = dr_path_join(&arena, check_tmp(), "a.onnx_adapter");
    round_trip();
    damaged();
    CHECK_OK(onnx_adapter_save(path, &strange, 1, ONNX_ADAPTER_FILE));
    CHECK_STATUS(onnx_adapter_open(&f, path), DR_EFORMAT);
    CHECK_TRAIL("x: 8 bytes of values, its shape needs 12");
    CHECK_OK(dr_write_file(path, "{}", 2));
    CHECK_STATUS(onnx_adapter_open(&f, path), DR_EFORMAT);
    CHECK_TRAIL("no TORT at byte 4");
    dr_arena_release(&arena);
    return check_done();
}
