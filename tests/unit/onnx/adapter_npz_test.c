/*
 * adapter_npz_test.c - .npz files through a reader of their own: every member found from
 * the central directory, its checksum, its header word for word, its values.
 */
#include <zlib.h>

#include "check.h"
#include "core/file.h"
#include "onnx/onnx.h"

static dr_arena arena;
static dr_map file;

static uint64_t get(size_t at, size_t bytes)
{
    uint64_t v = 0;

    if (!CHECK(at + bytes <= file.size))
        return 0;
    for (size_t i = 0; i < bytes; i++)
        v |= (uint64_t)file.data[at + i] << (8 * i);
    return v;
}

/* A member whose central header is here: the place behind it. */
static size_t member(size_t at, const char *name, const char *dict, const dr_tensor *t)
{
    size_t n = (size_t)get(at + 28, 2), local = (size_t)get(at + 42, 4);
    size_t size = (size_t)get(at + 24, 4);

    CHECK_EQ_INT(get(at, 4), 0x02014b50);
    CHECK_EQ_INT(n, strlen(name));
    CHECK_MEM(file.data + at + 46, name, n);
    CHECK_EQ_INT(get(at + 20, 4), size); /* stored */
    CHECK_EQ_INT(get(local, 4), 0x04034b50);
    CHECK_EQ_INT(get(local + 26, 2), n);
    for (size_t i = 0; i < 26; i++) /* what both headers have alike */
        CHECK_EQ_INT(file.data[local + 4 + i], file.data[at + 6 + i]);
    CHECK_MEM(file.data + local + 30, name, n);
    size_t data = local + 30 + n, head = (size_t)get(data + 8, 2) + 10;
    CHECK_EQ_INT(get(at + 16, 4), crc32(0, file.data + data, (uInt)size));
    CHECK_MEM(file.data + data, "\x93NUMPY\x01\0", 8);
    CHECK_EQ_INT(head % 64, 0);
    CHECK_EQ_INT(file.data[data + head - 1], '\n');
    CHECK_MEM(file.data + data + 10, dict, strlen(dict));
    for (size_t i = 10 + strlen(dict); i + 1 < head; i++)
        CHECK_EQ_INT(file.data[data + i], ' ');
    CHECK_EQ_INT(size, head + t->bytes);
    CHECK_MEM(file.data + data + head, t->data, t->bytes);
    return at + 46 + n;
}

int main(void)
{
    static const float a[6] = {1, -2, 3.5f, 4, 5, 6};
    static const uint8_t codes[4] = {1, 2, 254, 255};
    const dr_tensor list[] = {
        {"m.lora_A.weight", DR_DTYPE_F32, 2, {3, 2}, a, sizeof(a)},
        {"m.lora_B.quant.scale", DR_DTYPE_F32, 1, {6}, a, sizeof(a)},
        {"m.lora_B.quant.weight", DR_DTYPE_U8, 3, {2, 1, 2}, codes, sizeof(codes)},
        {"half", DR_DTYPE_F16, 1, {2}, codes, sizeof(codes)}};
    const dr_tensor bf16 = {"b", DR_DTYPE_BF16, 1, {2}, codes, sizeof(codes)};
    const char *path = dr_path_join(&arena, check_tmp(), "a.npz");

    if (CHECK_OK(onnx_adapter_save(path, list, DR_COUNT(list), ONNX_ADAPTER_NPZ)) &&
        CHECK_OK(dr_map_open(&file, path))) {
        size_t end = file.size - 22, at = (size_t)get(end + 16, 4);
        CHECK_EQ_INT(get(end, 4), 0x06054b50);
        CHECK_EQ_INT(get(end + 8, 2), DR_COUNT(list));
        CHECK_EQ_INT(get(end + 10, 2), DR_COUNT(list));
        CHECK_EQ_INT(get(end + 12, 4), end - at);
        at =
            member(at, "m.lora_A.weight.npy",
                   "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", &list[0]);
        at = member(at, "m.lora_B.quant.scale.npy",
                    "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }", &list[1]);
        at = member(at, "m.lora_B.quant.weight.npy",
                    "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 1, 2), }",
                    &list[2]);
        at = member(at, "half.npy",
                    "{'descr': '<f2', 'fortran_order': False, 'shape': (2,), }", &list[3]);
        CHECK_EQ_INT(at, end);
    }
    dr_map_close(&file);
    CHECK_STATUS(onnx_adapter_save(path, &bf16, 1, ONNX_ADAPTER_NPZ), DR_EUNSUPPORTED);
    CHECK_TRAIL("NumPy has no type for BF16");
    dr_arena_release(&arena);
    return check_done();
}
