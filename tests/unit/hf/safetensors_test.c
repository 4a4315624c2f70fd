/* safetensors_test.c - damaged safetensors files are refused with the reason, good ones are
 * read as they were written. */
#include "make_model.h"

static dr_arena arena;

/* A folder whose model.safetensors has this header and so many bytes of data. */
static const char *file_with(const char *header, size_t data_bytes)
{
    const char *dir = tmp_dir(&arena, "file");
    size_t n = strlen(header);
    dr_buf b;

    dr_buf_init(&b, 1 << 20);
    for (int i = 0; i < 8; i++)
        CHECK_OK(dr_buf_add(&b, &(char){(char)(n >> 8 * i & 255)}, 1));
    CHECK_OK(dr_buf_adds(&b, header));
    for (size_t i = 0; i < data_bytes; i++)
        CHECK_OK(dr_buf_add(&b, "x", 1));
    CHECK_OK(dr_write_file(dr_path_join(&arena, dir, "model.safetensors"), b.data, b.len));
    put_text(&arena, dir, "config.json", "{}");
    dr_buf_release(&b);
    return dir;
}

static void check_refused(const char *dir, dr_status st, const char *text)
{
    hf_model *m = NULL;

    if (!CHECK_STATUS(hf_model_open(&m, dir), st) || !CHECK_TRAIL(text))
        (void)printf("  wanted: %s\n", text);
    hf_model_close(m);
}

#define T(dtype, shape, offsets)                                                           \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_headers(void)
{
    static const struct {
        const char *header;
        size_t data;
        dr_status st;
        const char *text;
    } cases[] = {
        {"{", 0, DR_EFORMAT, "not JSON"},
        {"[]", 0, DR_EFORMAT, "expected an object, found an array"},
        {"{\"a\":1}", 0, DR_EFORMAT, "a: expected an object"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, DR_EFORMAT,
         "dtype is missing"},
        {"{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, DR_EFORMAT,
         "dtype: expected a string"},
        {"{\"a\":" T("F8_E4M3", "[4]", "[0,4]") "}", 4, DR_EUNSUPPORTED, "F8_E4M3"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, DR_EFORMAT, "shape"},
        {"{\"a\":" T("F32", "[-1]", "[0,4]") "}", 4, DR_EFORMAT, "dimension 0"},
        {"{\"a\":" T("F32", "[1.5]", "[0,4]") "}", 4, DR_EFORMAT, "dimension 0"},
        {"{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4, DR_EUNSUPPORTED,
         "9 dimensions"},
        {"{\"a\":" T("F32", "[4294967296,4294967296]", "[0,4]") "}", 4, DR_EFORMAT,
         "overflows"},
        {"{\"a\":" T("F32", "[4611686018427387904]", "[0,4]") "}", 4, DR_EFORMAT,
         "overflows"},
        {"{\"a\":" T("F32", "[99999999999999999999]", "[0,4]") "}", 4, DR_EFORMAT,
         "not JSON"},
        {"{\"a\":" T("F32", "[1]", "[0]") "}", 4, DR_EFORMAT, "data_offsets"},
        {"{\"a\":" T("F32", "[1]", "[4,0]") "}", 4, DR_EFORMAT, "data_offsets"},
        {"{\"a\":" T("F32", "[1]", "[-4,0]") "}", 4, DR_EFORMAT, "data_offsets"},
        {"{\"a\":" T("F32", "[2]", "[0,8]") "}", 4, DR_EFORMAT, "cut short"},
        {"{\"a\":" T("F32", "[1]", "[0,8]") "}", 8, DR_EFORMAT, "8 bytes of data"},
        {"{\"a\":" T("F32", "[1]", "[0,4]") ",\"b\":" T("F32", "[1]", "[2,6]") "}", 6,
         DR_EFORMAT, "overlaps that of a"},
        {"{\"a\":" T("F32", "[1]", "[0,4]") ",\"b\":" T("F32", "[1]", "[0,4]") "}", 4,
         DR_EFORMAT, "overlaps"},
        {"{\"a\":" T("F32", "[1]", "[4,8]") "}", 8, DR_EFORMAT, "hole of 4 bytes"},
        {"{\"a\":" T("F32", "[1]", "[0,4]") "}", 5, DR_EFORMAT, "1 bytes after"},
        {"{\"a\":" T("F32", "[1]", "[0,4]") ",\"a\":" T("F32", "[1]", "[4,8]") "}", 8,
         DR_EFORMAT, "not JSON"},
        /* sound: what fails then is the empty config */
        {"{\"__metadata__\":{\"format\":\"pt\"}}", 0, DR_EFORMAT, "architectures"},
        {"{\"b\":" T("I64", "[1]", "[4,12]") ",\"a\":" T("U8", "[4]", "[0,4]") "}   ", 12,
         DR_EFORMAT, "architectures"},
        {"{\"a\":" T("F32", "[]", "[0,4]") ",\"e\":" T("F32", "[0,3]", "[4,4]") "}", 4,
         DR_EFORMAT, "architectures"},
        {"{\"a\":" T("F32", "[9223372036854775807,0]", "[0,0]") "}", 0, DR_EFORMAT,
         "architectures"},
    };

    for (size_t i = 0; i < DR_COUNT(cases); i++)
        check_refused(file_with(cases[i].header, cases[i].data), cases[i].st,
                      cases[i].text);
}

static void put_bytes(const char *dir, const char *bytes, size_t n)
{
    CHECK_OK(dr_write_file(dr_path_join(&arena, dir, "model.safetensors"), bytes, n));
}

static void test_sizes(void)
{
    const char *dir = tmp_dir(&arena, "sizes");

    put_text(&arena, dir, "config.json", "{}");
    put_bytes(dir, "", 0);
    check_refused(dir, DR_EFORMAT, "no safetensors file");
    put_bytes(dir, "\2\0\0\0\0\0\0", 7);
    check_refused(dir, DR_EFORMAT, "no safetensors file");
    put_bytes(dir, "\3\0\0\0\0\0\0\0{}", 10);
    check_refused(dir, DR_EFORMAT, "cut short");
    put_bytes(dir, "\1\0\100\6\0\0\0\0{}", 10);
    check_refused(dir, DR_EFORMAT, "more than the");
    put_bytes(dir, "\377\377\377\377\377\377\377\377{}", 10);
    check_refused(dir, DR_EFORMAT, "more than the");
}

/* Every cut of a good file is refused. */
static void test_cuts(void)
{
    const char *dir = tmp_dir(&arena, "cuts");
    dr_map map = {0};

    put_text(&arena, dir, "config.json", "{}");
    if (!CHECK_OK(
            dr_map_open(&map, GOLDEN "llama_shards/model-00001-of-00003.safetensors")))
        return;
    for (size_t n = 0; n < map.size; n += n < 2048 ? 37 : 509) {
        hf_model *m = NULL;
        put_bytes(dir, (const char *)map.data, n);
        CHECK_STATUS(hf_model_open(&m, dir), DR_EFORMAT);
        hf_model_close(m);
    }
    dr_map_close(&map);
}

static void test_other_weights(void)
{
    const char *dir = tmp_dir(&arena, "other");

    check_refused(dir, DR_EIO, "config.json");
    put_text(&arena, dir, "config.json", "{}");
    check_refused(dir, DR_EFORMAT, "neither model.safetensors");
    put_text(&arena, dir, "pytorch_model.bin", "PK");
    check_refused(dir, DR_EFORMAT, "pytorch_model.bin: not a file of torch.save");
    CHECK(remove(dr_path_join(&arena, dir, "pytorch_model.bin")) == 0);
    put_text(&arena, dir, "tf_model.h5", "");
    check_refused(dir, DR_EUNSUPPORTED, "tf_model.h5: weights in this form");
}

static void test_index(void)
{
    static const struct {
        const char *index;
        dr_status st;
        const char *text;
    } cases[] = {
        {"{}", DR_EFORMAT, "weight_map: expected an object"},
        {"{\"weight_map\": {\"a\": \"../model.safetensors\"}}", DR_EFORMAT, "beside it"},
        {"{\"weight_map\": {\"a\": 3}}", DR_EFORMAT, "beside it"},
        {"{\"weight_map\": {\"a\": \"none.safetensors\"}}", DR_EIO, "none.safetensors"},
        {"{\"weight_map\": {\"a\": \"x.safetensors\", \"b\": \"y.safetensors\"}}",
         DR_EFORMAT, "c: the index places it in no file"},
        {"{\"weight_map\": {\"a\": \"y.safetensors\", \"c\": \"x.safetensors\"}}",
         DR_EFORMAT, "a: the index places it in y.safetensors"},
        {"{\"weight_map\": {\"a\": \"x.safetensors\", \"c\": \"x.safetensors\"}}",
         DR_EFORMAT, "c: not in x.safetensors"},
        {"{\"weight_map\": {\"a\": \"x.safetensors\", \"c\": \"y.safetensors\", \"d\": "
         "\"x.safetensors\"}}",
         DR_EFORMAT, "d: not in x.safetensors"},
        {"{\"weight_map\": {\"a\": \"x.safetensors\", \"c\": \"y.safetensors\"}}",
         DR_EFORMAT, "architectures"},
    };
    const char *dir = tmp_dir(&arena, "index");
    const float one = 1;
    dr_tensor t = {.name = "a", .dtype = DR_DTYPE_F32, .data = &one, .bytes = 4};

    put_text(&arena, dir, "config.json", "{}");
    CHECK_OK(hf_st_write(dr_path_join(&arena, dir, "x.safetensors"), &t, 1));
    t.name = "c";
    CHECK_OK(hf_st_write(dr_path_join(&arena, dir, "y.safetensors"), &t, 1));
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        put_text(&arena, dir, "model.safetensors.index.json", cases[i].index);
        check_refused(dir, cases[i].st, cases[i].text);
    }
}

/* Names, types, shapes and bytes come back; the header fills whole words of 8 bytes. */
static void test_write(void)
{
    unsigned char bytes[64];
    dr_tensor t[DR_DTYPE_COUNT + 2];
    size_t n = 0, total = 0;
    dr_map map = {0};
    json_t *header = NULL;
    const char *path = dr_path_join(&arena, check_tmp(), "all.safetensors");

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (unsigned char)(7 * i);
    for (int i = 0; i < DR_DTYPE_COUNT; i++)
        t[n++] = (dr_tensor){.name = dr_arena_printf(&arena, "t\"%d\xc3\xa9", i),
                             .dtype = (dr_dtype)i,
                             .ndim = 2,
                             .dims = {2, 3},
                             .data = bytes,
                             .bytes = 6 * dr_dtype_bytes((dr_dtype)i)};
    t[n++] =
        (dr_tensor){.name = "scalar", .dtype = DR_DTYPE_F32, .data = bytes, .bytes = 4};
    t[n++] = (dr_tensor){.name = "none", .dtype = DR_DTYPE_F32, .ndim = 1, .data = bytes};
    CHECK_OK(hf_st_write(path, t, n));
    if (!CHECK_OK(dr_map_open(&map, path)))
        return;
    size_t head = map.data[0] + 256u * map.data[1];
    CHECK_EQ_INT(head % 8, 0);
    CHECK_OK(dr_json_parse(&header, (const char *)map.data + 8, head, path));
    CHECK_STR(json_string_value(
                  json_object_get(json_object_get(header, "__metadata__"), "format")),
              "pt");
    for (size_t i = 0; i < n; i++) {
        const json_t *o = json_object_get(header, t[i].name);
        const json_t *at = json_array_get(json_object_get(o, "data_offsets"), 0);
        CHECK_STR(json_string_value(json_object_get(o, "dtype")),
                  dr_dtype_name(t[i].dtype));
        CHECK_EQ_INT(json_array_size(json_object_get(o, "shape")), t[i].ndim);
        CHECK_EQ_INT(json_integer_value(at), total);
        CHECK_MEM(map.data + 8 + head + total, bytes, t[i].bytes);
        total += t[i].bytes;
    }
    CHECK_EQ_INT(map.size, 8 + head + total);
    json_decref(header);
    dr_map_close(&map);

    t[1].name = t[0].name;
    CHECK_STATUS(hf_st_write(path, t, n), DR_EFORMAT);
    CHECK_TRAIL("twice");
}

static void test_tensors(void)
{
    hf_model *m = NULL;
    uint64_t bytes = 0;

    if (!CHECK_OK(hf_model_open(&m, GOLDEN "llama_shards")))
        return;
    for (size_t i = 0; i < hf_tensor_count(m); i++) {
        const dr_tensor *t = hf_tensor_at(m, i);
        CHECK(hf_tensor_find(m, t->name) == t);
        CHECK_STR(hf_tensor_type(m, i), "BF16");
        CHECK_EQ_INT(t->bytes, 2 * dr_tensor_count(t));
        bytes += t->bytes;
    }
    CHECK_EQ_INT(hf_model_weight_bytes(m), bytes);
    CHECK(hf_tensor_find(m, "model.nothing") == NULL);
    CHECK_STR(hf_model_origin(m), "bf16");
    CHECK(!hf_model_is_gguf(m));
    hf_model_close(m);
}

int main(void)
{
    test_headers();
    test_sizes();
    test_cuts();
    test_other_weights();
    test_index();
    test_write();
    test_tensors();
    dr_arena_release(&arena);
    return check_done();
}
