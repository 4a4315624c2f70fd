/* torch_file_test.c - files of torch.save: the tensors that torch wrote come back, nothing
 * in them is run, damaged ones are refused with the reason. */
#include "make_model.h"
#include "zip_make.h"

#include "hf/pickled_impl.h"

static dr_arena arena;

#define TORCH GOLDEN "torch/"

static void check_refused(const char *dir, dr_status st, const char *text)
{
    hf_model *m = NULL;

    if (!CHECK_STATUS(hf_model_open(&m, dir), st) || !CHECK_TRAIL(text))
        (void)printf("  wanted: %s\n", text);
    hf_model_close(m);
}

/* ---- what torch wrote ---- */

static void test_golden(void)
{
    const char *dir = tmp_dir(&arena, "expected");
    hf_model *m = NULL, *plain = NULL, *want = NULL;

    CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, "model.safetensors"),
                          TORCH "expected.safetensors"));
    CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, "config.json"), TORCH "config.json"));
    if (!CHECK_OK(hf_model_open(&m, GOLDEN "torch")) ||
        !CHECK_OK(hf_model_open(&plain, GOLDEN "llama")) ||
        !CHECK_OK(hf_model_open(&want, dir)))
        return;
    CHECK_STR(hf_model_origin(m), "bf16");
    check_same_values(m, plain);
    CHECK_EQ_INT(hf_tensor_count(m), hf_tensor_count(want));
    for (size_t i = 0; i < hf_tensor_count(want); i++) {
        const dr_tensor *x = hf_tensor_at(want, i), *y = hf_tensor_find(m, x->name);
        if (!CHECK(y != NULL)) {
            (void)printf("  %s\n", x->name);
            continue;
        }
        CHECK_EQ_INT(y->dtype, x->dtype);
        CHECK_EQ_INT(y->ndim, x->ndim);
        for (int d = 0; d < x->ndim; d++)
            CHECK_EQ_INT(y->dims[d], x->dims[d]);
        CHECK_EQ_INT(y->bytes, x->bytes);
        CHECK_MEM(y->data, x->data, x->bytes);
    }
    hf_model_close(m);
    hf_model_close(plain);
    hf_model_close(want);
}

static void test_shards(void)
{
    const char *dir = tmp_dir(&arena, "shards");
    const char *index = dr_path_join(&arena, dir, "pytorch_model.bin.index.json");
    const char *const files[] = {"pytorch_model-00001-of-00002.bin",
                                 "pytorch_model-00002-of-00002.bin",
                                 "pytorch_model.bin.index.json"};
    hf_model *m = NULL, *plain = NULL;
    dr_buf b;

    for (size_t i = 0; i < DR_COUNT(files); i++)
        CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, files[i]),
                              dr_path_join(&arena, TORCH "shards", files[i])));
    CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, "config.json"), TORCH "config.json"));
    if (CHECK_OK(hf_model_open(&m, dir)) && CHECK_OK(hf_model_open(&plain, GOLDEN "llama")))
        check_same_values(m, plain);
    hf_model_close(m);
    hf_model_close(plain);

    CHECK(remove(dr_path_join(&arena, dir, files[1])) == 0);
    check_refused(dir, DR_EIO, files[1]);
    CHECK_TRAIL("shard 2 of 2");
    CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, files[1]),
                          dr_path_join(&arena, TORCH "shards", files[0])));
    check_refused(dir, DR_EFORMAT, "the index places it in pytorch_model-00001-of-00002");
    dr_buf_init(&b, 1 << 20);
    CHECK_OK(dr_read_file(&b, index));
    for (char *p = b.data; (p = strstr(p, "pytorch_model-00002-of")) != NULL;)
        memcpy(p, "../../../../etc/passwd", 22);
    CHECK_OK(dr_write_file(index, b.data, b.len));
    check_refused(dir, DR_EFORMAT, "expected the name of a file beside it");
    dr_buf_release(&b);
}

/* Safetensors are taken where both are there. */
static void test_first(void)
{
    const char *dir = tmp_dir(&arena, "both");
    hf_model *m = NULL;

    put_text(&arena, dir, "pytorch_model.bin", "not looked at");
    CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, "model.safetensors"),
                          GOLDEN "llama/model.safetensors"));
    CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, "config.json"), TORCH "config.json"));
    CHECK_OK(hf_model_open(&m, dir));
    hf_model_close(m);
}

/* A training checkpoint stands for its state_dict; an older file is refused with advice. */
static void test_forms(void)
{
    dr_tensor *t = NULL;
    dr_map map = {0};
    size_t n = 0;

    if (CHECK_OK(dr_map_open(&map, TORCH "training.bin")) &&
        CHECK_OK(hf_torch_parse(&arena, &t, &n, &map, "training.bin")) &&
        CHECK_EQ_INT(n, 1)) {
        CHECK_STR(t->name, "model.a");
        CHECK_MEM(t->data, ((const float[]){0, 1, 2}), 12);
    }
    dr_map_close(&map);
    if (CHECK_OK(dr_map_open(&map, TORCH "legacy.bin"))) {
        CHECK_STATUS(hf_torch_parse(&arena, &t, &n, &map, "x/legacy.bin"), DR_EUNSUPPORTED);
        CHECK_TRAIL("written by torch before 1.6");
        CHECK_TRAIL("f = 'legacy.bin'; torch.save(torch.load(f, weights_only=True), f)");
    }
    dr_map_close(&map);
}

static void test_adapter(void)
{
    const char *dir = tmp_dir(&arena, "adapter");
    hf_adapter x = {0}, y = {0};

    CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, "adapter_model.bin"),
                          TORCH "adapter_model.bin"));
    CHECK_OK(dr_copy_file(dr_path_join(&arena, dir, "adapter_config.json"),
                          GOLDEN "adapter/adapter_config.json"));
    if (CHECK_OK(hf_adapter_open(&x, dir, NULL)) &&
        CHECK_OK(hf_adapter_open(&y, GOLDEN "adapter", NULL)) &&
        CHECK_EQ_INT(x.count, y.count)) {
        for (size_t i = 0; i < y.count; i++) {
            const hf_lora_module *p = &x.modules[i], *q = &y.modules[i];
            CHECK_STR(p->module, q->module);
            CHECK_EQ_INT(p->r, q->r);
            CHECK_MEM(p->a, q->a, (size_t)q->r * q->n_in * sizeof(float));
            CHECK_MEM(p->b, q->b, (size_t)q->r * q->n_out * sizeof(float));
        }
    }
    hf_adapter_release(&x);
    hf_adapter_release(&y);
}

/* ---- pickles ---- */

#define REBUILD    "ctorch._utils\n_rebuild_tensor_v2\n"
#define FLOATS     "ctorch\nFloatStorage\n"
#define ID(key, n) "(X\x07\0\0\0storage" FLOATS "X\x01\0\0\0" key "X\x03\0\0\0cpuK" n "tQ"
#define HOOKS      "ccollections\nOrderedDict\n)R"
/* A dictionary of one tensor, "a": storage, offset, shape, strides. */
#define ONE_TENSOR(id, offset, shape, strides)                                             \
    "\x80\x02}X\x01\0\0\0a" REBUILD "(" id "K" offset shape strides "\x89" HOOKS "tRs."

/* A file of torch.save with this pickle and a storage "0" of 8 floats, 0 to 7. */
static void make_file(dr_buf *b, const char *pickle, size_t n, const zip_wrong *w)
{
    static const float eight[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    const zip_part parts[] = {{"x/data.pkl", pickle, n},
                              {"x/byteorder", "little", 6},
                              {"x/data/0", eight, sizeof(eight)}};

    dr_buf_init(b, 1 << 24);
    zip_make(b, parts, DR_COUNT(parts), w);
}

static dr_status parse(const char *pickle, size_t n, const zip_wrong *w, dr_tensor **t,
                       size_t *count)
{
    const char *dir = tmp_dir(&arena, "made");
    const char *path = dr_path_join(&arena, dir, "pytorch_model.bin");
    dr_map map = {0};
    dr_buf b;

    make_file(&b, pickle, n, w);
    CHECK_OK(dr_write_file(path, b.data, b.len));
    dr_buf_release(&b);
    if (!CHECK_OK(dr_map_open(&map, path)))
        return DR_EIO;
    dr_status st = hf_torch_parse(&arena, t, count, &map, "made");
    if (st == DR_OK && *count > 0) { /* the view outlives the mapping here */
        void *copy = dr_arena_alloc(&arena, 1, (*t)->bytes + 1);
        memcpy(copy, (*t)->data, (*t)->bytes);
        (*t)->data = copy;
    }
    dr_map_close(&map);
    return st;
}

static void test_layouts(void)
{
    static const char plain[] =
        ONE_TENSOR(ID("0", "\x08"), "\x02", "K\x02K\x03\x86", "K\x03K\x01\x86");
    static const char turned[] =
        ONE_TENSOR(ID("0", "\x08"), "\x01", "K\x02K\x03\x86", "K\x01K\x02\x86");
    const zip_wrong good = {0}, wide = {.zip64 = true};
    dr_tensor *t = NULL;
    size_t n = 0;

    if (CHECK_OK(parse(plain, sizeof(plain) - 1, &good, &t, &n)) && CHECK_EQ_INT(n, 1))
        CHECK_MEM(t->data, ((const float[]){2, 3, 4, 5, 6, 7}), 24);
    if (CHECK_OK(parse(plain, sizeof(plain) - 1, &wide, &t, &n)) && CHECK_EQ_INT(n, 1))
        CHECK_MEM(t->data, ((const float[]){2, 3, 4, 5, 6, 7}), 24);
    if (CHECK_OK(parse(turned, sizeof(turned) - 1, &good, &t, &n)) && CHECK_EQ_INT(n, 1))
        CHECK_MEM(t->data, ((const float[]){1, 3, 5, 2, 4, 6}), 24);
}

#define BAD(text, status, words)                                                           \
    {                                                                                      \
        text, sizeof(text) - 1, status, words                                              \
    }

static void test_pickles(void)
{
    static const struct {
        const char *pickle;
        size_t n;
        dr_status st;
        const char *text;
    } cases[] = {
        BAD("", DR_EFORMAT, "cut short"),
        BAD("\x80\x02", DR_EFORMAT, "cut short"),
        BAD("\x80\x04N.", DR_EUNSUPPORTED, "protocol 4 is not supported"),
        BAD("\x80\x02"
            "cos\nsystem\nX\x04\0\0\0trueR.",
            DR_EUNSUPPORTED, "pickle: global os.system is not allowed"),
        BAD("\x80\x02"
            "c__builtin__\neval\n(X\x01\0\0\0"
            "1tR.",
            DR_EUNSUPPORTED, "global __builtin__.eval is not allowed"),
        BAD("\x80\x02"
            "ctorch\nload\n.",
            DR_EUNSUPPORTED, "global torch.load"),
        BAD("\x80\x02"
            "ccollections OrderedDict\n\n.",
            DR_EUNSUPPORTED, "global collections.OrderedDict  is not"),
        BAD("\x80\x02"
            "(S'true'\nios\nsystem\n.",
            DR_EUNSUPPORTED, "step STRING is not allowed"),
        BAD("\x80\x02(X\x01\0\0\0aios\nsystem\n.", DR_EUNSUPPORTED,
            "step INST is not allowed"),
        BAD("\x80\x02)\x81.", DR_EUNSUPPORTED, "step NEWOBJ is not allowed"),
        BAD("\x80\x02"
            "N0.",
            DR_EUNSUPPORTED, "step POP is not allowed"),
        BAD("\x80\x02\xff.", DR_EUNSUPPORTED, "step 0xff is not allowed"),
        BAD("\x80\x02.", DR_EFORMAT, "takes a value where there is none"),
        BAD("\x80\x02(.", DR_EFORMAT, "takes a value where there is none"),
        BAD("\x80\x02NN.", DR_EFORMAT, "more than one value is left"),
        BAD("\x80\x02N.N", DR_EFORMAT, "1 bytes after its end"),
        BAD("\x80\x02N.", DR_EUNSUPPORTED, "expected a dictionary of tensors, found none"),
        BAD("\x80\x02t.", DR_EFORMAT, "from a mark that is not there"),
        BAD("\x80\x02q\0.", DR_EFORMAT, "keeps a value where there is none"),
        BAD("\x80\x02h\x05.", DR_EFORMAT, "memo 5 was never set"),
        BAD("\x80\x02Nr\xff\xff\xff\xff.", DR_EUNSUPPORTED, "memo 4294967295, more than"),
        BAD("\x80\x02X\xff\xff\xff\x7f"
            "abc",
            DR_EFORMAT, "text of 2147483647 bytes passes its end"),
        BAD("\x80\x02\x8a\x09"
            "123456789.",
            DR_EUNSUPPORTED, "a number of 9 bytes"),
        BAD("\x80\x02}(NNNu.", DR_EFORMAT, "items for a dictionary"),
        BAD("\x80\x02](NNu.", DR_EFORMAT, "items for a list"),
        BAD("\x80\x02NN.\x65", DR_EFORMAT, "more than one value"),
        BAD("\x80\x02NNR.", DR_EFORMAT, "none called with none"),
        BAD("\x80\x02]}b.", DR_EUNSUPPORTED, "attributes of a list"),
        BAD("\x80\x02}NN\x86s.", DR_EFORMAT, "items for nothing"),
        BAD("\x80\x02}q\0X\x01\0\0\0ah\0s.", DR_EUNSUPPORTED, "nested more than 16 deep"),
        BAD("\x80\x02}K\x01}s.", DR_EFORMAT, "a tensor's name is a number"),
        BAD("\x80\x02}X\x01\0\0\0\xff}s.", DR_EFORMAT, "not UTF-8 text"),
        BAD("\x80\x02}X\x01\0\0\0a" HOOKS "(tR.", DR_EFORMAT, "called with"),
        BAD("\x80\x02}X\x01\0\0\0a" REBUILD ")Rs.", DR_EFORMAT, "made of 0 values"),
        BAD(ONE_TENSOR("N", "\0", ")", ")"), DR_EFORMAT, "expected a storage, found none"),
        BAD(ONE_TENSOR(")Q", "\0", ")", ")"), DR_EFORMAT, "expected a storage"),
        BAD(ONE_TENSOR(ID("1", "\x08"), "\0", ")", ")"), DR_EFORMAT,
            "entry x/data/1 is missing"),
        BAD(ONE_TENSOR(ID("0", "\x09"), "\0", ")", ")"), DR_EFORMAT,
            "has 32 bytes for 9 elements"),
        BAD(ONE_TENSOR(ID("0", "\x08"), "\x08", ")", ")"), DR_EFORMAT,
            "element 8 of a storage of 8"),
        BAD(ONE_TENSOR(ID("0", "\x08"), "\x01", "K\x08\x85", "K\x01\x85"), DR_EFORMAT,
            "element 8 of a storage of 8"),
        BAD(ONE_TENSOR(ID("0", "\x08"), "\0", "K\x08\x85", "K\x02\x85"), DR_EFORMAT,
            "element 14 of a storage of 8"),
        BAD(ONE_TENSOR(ID("0", "\x08"), "\0", "K\xff\x85", "K\0\x85"), DR_EUNSUPPORTED,
            "255 elements over a storage of 8: expanded"),
        BAD(ONE_TENSOR(ID("0", "\x08"), "\0", "J\xff\xff\xff\xff\x85", "K\x01\x85"),
            DR_EFORMAT, "shape: dimension 0 is no size"),
        BAD(ONE_TENSOR(ID("0", "\x08"), "\0", "K\x02\x85", "J\xff\xff\xff\xff\x85"),
            DR_EFORMAT, "strides: dimension 0 is no size"),
        BAD(ONE_TENSOR(ID("0", "\x08"), "\0",
                       "K\x02\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x86",
                       "K\x01\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x86"),
            DR_EFORMAT, "its shape has no size"),
        BAD(ONE_TENSOR(ID("0", "\x08"), "\0", "K\x02\x85", ")"), DR_EFORMAT,
            "0 strides for 1 dimensions"),
    };
    const zip_wrong good = {0};
    dr_tensor *t = NULL;
    size_t n = 0;

    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        if (!CHECK_STATUS(parse(cases[i].pickle, cases[i].n, &good, &t, &n), cases[i].st) ||
            !CHECK_TRAIL(cases[i].text))
            (void)printf("  case %zu, wanted: %s\n", i, cases[i].text);
    }
}

/* Containers in containers: nothing recurses on them, memory stays in proportion. */
static void test_deep(void)
{
    const size_t n = 1 << 18;
    char *deep = calloc(n + 8, 1);
    const zip_wrong good = {0};
    dr_tensor *t = NULL;
    size_t count = 0;

    memcpy(deep, "\x80\x02N", 3);
    memset(deep + 3, '\x85', n);
    deep[3 + n] = '.';
    CHECK_STATUS(parse(deep, n + 4, &good, &t, &count), DR_EUNSUPPORTED);
    CHECK_TRAIL("found a tuple");
    memset(deep + 2, ']', n);
    deep[2 + n] = '.';
    CHECK_STATUS(parse(deep, n + 3, &good, &t, &count), DR_EFORMAT);
    CHECK_TRAIL("more than one value is left");
    free(deep);
}

/* ---- archives ---- */

static void test_archives(void)
{
    static const char empty[] = "\x80\x02}.";
    static const struct {
        zip_wrong wrong;
        dr_status st;
        const char *text;
    } cases[] = {
        {{.method = 8}, DR_EUNSUPPORTED, "compressed entries (method 8)"},
        {{.flags = 1}, DR_EUNSUPPORTED, "encrypted"},
        {{.more_size = 1000}, DR_EFORMAT, "pass the directory"},
        {{.more_at = 1}, DR_EFORMAT, "no entry at"},
        {{.more_at = 1 << 20}, DR_EFORMAT, "no entry at"},
        {{.more_count = 1}, DR_EFORMAT, "a zip directory of 4 entries"},
        {{.more_count = 1000}, DR_EFORMAT, "a zip directory of 1003 entries"},
        {{.zip64 = true, .more_size = 1ull << 62}, DR_EFORMAT, "pass the directory"},
        {{.zip64 = true, .more_at = 1ull << 62}, DR_EFORMAT, "no entry at"},
        {{.zip64 = true, .more_count = 1ull << 60}, DR_EFORMAT, "a zip directory of"},
        {{.other_name = "y"}, DR_EFORMAT, "its own header has another name"},
    };
    dr_tensor *t = NULL;
    size_t n = 0;

    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        if (!CHECK_STATUS(parse(empty, sizeof(empty) - 1, &cases[i].wrong, &t, &n),
                          cases[i].st) ||
            !CHECK_TRAIL(cases[i].text))
            (void)printf("  case %zu, wanted: %s\n", i, cases[i].text);
    }
}

static void check_parts(const zip_part *parts, size_t n, dr_status st, const char *text)
{
    const zip_wrong good = {0};
    dr_tensor *t = NULL;
    size_t count = 0;
    dr_buf b;

    dr_buf_init(&b, 1 << 16);
    zip_make(&b, parts, n, &good);
    const dr_map map = {.data = (const unsigned char *)b.data, .size = b.len};
    CHECK_STATUS(hf_torch_parse(&arena, &t, &count, &map, "parts"), st);
    CHECK_TRAIL(text);
    dr_buf_release(&b);
}

static void test_entries(void)
{
    const zip_part data = {"x/data.pkl", "\x80\x02}.", 4}, more = {"y/data.pkl", "", 0};
    const zip_part code = {"x/constants.pkl", "", 0}, order = {"x/byteorder", "big", 3};

    check_parts(&code, 1, DR_EFORMAT, "without data.pkl");
    check_parts((const zip_part[]){data, data}, 2, DR_EFORMAT, "there twice");
    check_parts((const zip_part[]){data, more}, 2, DR_EFORMAT, "two pickles");
    check_parts((const zip_part[]){data, code}, 2, DR_EUNSUPPORTED, "TorchScript");
    check_parts((const zip_part[]){data, order}, 2, DR_EUNSUPPORTED, "byteorder");
}

/* Cut at every byte, or with one byte changed: an error or a model, nothing else. */
static void test_damaged(void)
{
    dr_map map = {0};
    dr_tensor *t = NULL;
    size_t n = 0, opened = 0;

    if (!CHECK_OK(dr_map_open(&map, TORCH "training.bin")))
        return;
    unsigned char *copy = malloc(map.size);
    for (size_t i = 0; i < map.size; i++) {
        dr_arena a = {0};
        dr_map cut = {.data = copy, .size = i};
        memcpy(copy, map.data, map.size);
        CHECK(hf_torch_parse(&a, &t, &n, &cut, "cut") != DR_OK);
        cut.size = map.size;
        for (int bit = 0; bit < 8; bit++) {
            copy[i] ^= (unsigned char)(1 << bit);
            opened += hf_torch_parse(&a, &t, &n, &cut, "changed") == DR_OK;
            copy[i] = map.data[i];
        }
        dr_arena_release(&a);
    }
    CHECK(opened > 0 && opened < 8 * map.size);
    free(copy);
    dr_map_close(&map);
}

int main(void)
{
    test_golden();
    test_shards();
    test_first();
    test_forms();
    test_adapter();
    test_layouts();
    test_pickles();
    test_deep();
    test_archives();
    test_entries();
    test_damaged();
    dr_arena_release(&arena);
    return check_done();
}
