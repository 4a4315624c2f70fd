/*
 * onnx_graph_test.c - what every exported graph must be, over models, precisions, versions
 * and adapters; the same bytes for any number of threads.
 */
#include "onnx_fixture.h"

static dr_arena arena;

/* ---- names ---- */

typedef struct {
    const char *list[4096];
    size_t count;
} names;

static bool has(const names *n, const char *name)
{
    for (size_t i = 0; i < n->count; i++) {
        if (strcmp(n->list[i], name) == 0)
            return true;
    }
    return false;
}

static void add_new(names *n, const char *name)
{
    if (!CHECK(!has(n, name)))
        (void)printf("  twice: %s\n", name);
    if (CHECK(n->count < DR_COUNT(n->list)))
        n->list[n->count++] = name;
}

/* Values are made once and before they are used; no node ends in an empty input. */
static void check_order(const exported *e)
{
    static names values, nodes;

    values.count = nodes.count = 0;
    for (size_t i = 0; i < e->g->n_initializer; i++)
        add_new(&values, e->g->initializer[i]->name);
    for (size_t i = 0; i < e->g->n_input; i++) {
        if (exported_init(e, e->g->input[i]->name) == NULL) /* an optional input is both */
            add_new(&values, e->g->input[i]->name);
    }
    for (size_t i = 0; i < e->g->n_node; i++) {
        const Onnx__NodeProto *n = e->g->node[i];
        add_new(&nodes, n->name);
        for (size_t j = 0; j < n->n_input; j++) {
            if (n->input[j][0] != '\0' && !CHECK(has(&values, n->input[j])))
                (void)printf("  not there yet: %s of %s\n", n->input[j], n->name);
        }
        CHECK(n->n_input == 0 || n->input[n->n_input - 1][0] != '\0');
        CHECK(n->n_output > 0 && n->output[n->n_output - 1][0] != '\0');
        for (size_t j = 0; j < n->n_output; j++) {
            if (n->output[j][0] != '\0')
                add_new(&values, n->output[j]);
        }
    }
    for (size_t i = 0; i < e->g->n_output; i++)
        CHECK(has(&values, e->g->output[i]->name));
}

static size_t type_bits(int32_t type)
{
    switch (type) {
    case ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT:
        return 32;
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT8:
        return 8;
    case ONNX__TENSOR_PROTO__DATA_TYPE__UINT4:
        return 4;
    default:
        return 0;
    }
}

/* Weights lie at multiples of 4096, inside the file, as long as their shape, and apart from
 * each other unless they are the same bytes. */
static void check_places(const exported *e)
{
    for (size_t i = 0; i < e->g->n_initializer; i++) {
        const Onnx__TensorProto *t = e->g->initializer[i];
        uint64_t at = exported_entry(t, "offset"), n = exported_entry(t, "length");
        uint64_t bits = type_bits(t->data_type);
        for (size_t d = 0; d < t->n_dims; d++)
            bits *= (uint64_t)t->dims[d];
        CHECK(type_bits(t->data_type) > 0);
        CHECK_EQ_INT(n, (bits + 7) / 8);
        if (n == 0) {
            CHECK(t->has_raw_data && t->raw_data.len == 0);
            continue;
        }
        CHECK_EQ_INT(at % 4096, 0);
        CHECK(at + n <= e->data.size);
        for (size_t j = 0; j < i; j++) {
            const Onnx__TensorProto *u = e->g->initializer[j];
            uint64_t u_at = exported_entry(u, "offset"), u_n = exported_entry(u, "length");
            if (u_n > 0)
                CHECK(u_at == at ? u_n == n : u_at + u_n <= at || at + n <= u_at);
        }
    }
}

static void check_model(const exported *e)
{
    CHECK_EQ_INT(e->model->ir_version, 10);
    CHECK_STR(e->model->producer_name, "drupe");
    CHECK_EQ_INT(e->model->n_opset_import, 2);
    CHECK_STR(e->model->opset_import[0]->domain, "");
    CHECK(e->model->opset_import[0]->version <= 21);
    CHECK_STR(e->model->opset_import[1]->domain, "com.microsoft");
    CHECK_STR(e->g->input[0]->name, "input_ids");
    CHECK_STR(e->g->input[1]->name, "attention_mask");
    CHECK_STR(e->g->output[0]->name, "logits");
}

static size_t count_op(const exported *e, const char *op)
{
    size_t n = 0;

    for (size_t i = 0; i < e->g->n_node; i++)
        n += strcmp(e->g->node[i]->op_type, op) == 0;
    return n;
}

/* ---- the models ---- */

/* The bytes of both files for 1 thread and for n. */
static void check_threads(const char *dir, const char *path, const onnx_options *o)
{
    static const char *const files[] = {"model.onnx", "model.onnx.data"};
    const char *other = NULL;

    for (int threads = 2; threads <= 5; threads += 3) {
        if (!CHECK_OK(fixture_export(&arena, &other, "threads", path, o, threads)))
            continue;
        for (size_t i = 0; i < DR_COUNT(files); i++) {
            dr_map a = {0}, b = {0};
            CHECK_OK(dr_map_open(&a, dr_path_join(&arena, dir, files[i])));
            CHECK_OK(dr_map_open(&b, dr_path_join(&arena, other, files[i])));
            if (CHECK_EQ_INT(a.size, b.size))
                CHECK_MEM(a.data, b.data, a.size);
            dr_map_close(&a);
            dr_map_close(&b);
        }
    }
}

static void one(const char *path, const onnx_options *o)
{
    const char *dir = NULL;
    exported e;

    if (!CHECK_OK(fixture_export(&arena, &dir, "one", path, o, 1)))
        return;
    if (exported_open(&e, &arena, dir)) {
        check_model(&e);
        check_order(&e);
        check_places(&e);
        CHECK_EQ_INT(count_op(&e, "GroupQueryAttention"), 2);
        CHECK_EQ_INT(count_op(&e, "SimplifiedLayerNormalization"), 1);
        CHECK_EQ_INT(count_op(&e, "SkipSimplifiedLayerNormalization"), 4);
        CHECK_EQ_INT(count_op(&e, "MatMulNBits"), o->precision == ONNX_INT4 ? 11 : 0);
        CHECK_EQ_INT(count_op(&e, "If"), 0);
    }
    exported_close(&e);
    check_threads(dir, path, o);
}

static void all_models(void)
{
    static const char *const models[] = {"llama", "qwen2", "phi3"};

    for (size_t i = 0; i < DR_COUNT(models); i++) {
        const char *path = dr_path_join(&arena, TINY, models[i]);
        if (!dr_is_dir(path)) {
            SKIP(path);
            continue;
        }
        for (int ort = 0; ort <= 20; ort += 20) {
            for (int symmetric = 0; symmetric <= 1; symmetric++) {
                onnx_options o = fixture_options(ONNX_INT4);
                o.min_ort_minor = ort;
                o.symmetric = symmetric != 0;
                one(path, &o);
            }
            onnx_options o = fixture_options(ONNX_FP32);
            o.min_ort_minor = ort;
            one(path, &o);
        }
    }
}

/* A tied table is in the file once: two initializers with the same place. */
static void tied_table(void)
{
    onnx_options o = fixture_options(ONNX_INT4);
    const char *dir = NULL;
    exported e;

    for (int ort = 0; ort <= 20; ort += 20) {
        o.min_ort_minor = ort;
        if (!CHECK_OK(fixture_export(&arena, &dir, "tied", TINY "llama", &o, 1)) ||
            !exported_open(&e, &arena, dir))
            return;
        const Onnx__TensorProto *head = exported_init(&e, "lm_head.MatMul.weight_Q4");
        const Onnx__TensorProto *rows =
            exported_init(&e, "model.embed_tokens.weight_packed");
        if (CHECK(head != NULL && rows != NULL)) {
            CHECK_EQ_INT(exported_entry(head, "offset"), exported_entry(rows, "offset"));
            CHECK_EQ_INT(exported_entry(head, "length"), exported_entry(rows, "length"));
            CHECK_EQ_INT(rows->data_type, ort ? ONNX__TENSOR_PROTO__DATA_TYPE__UINT4
                                              : ONNX__TENSOR_PROTO__DATA_TYPE__UINT8);
        }
        CHECK(exported_init(&e, "model.embed_tokens.weight") == NULL);
        exported_close(&e);
    }
}

/* ---- adapters ---- */

static float lora_values[64 * 1024];

static void add_lora(hf_adapter *a, const char *module, int r, size_t n_in, size_t n_out)
{
    a->modules[a->count++] = (hf_lora_module){.module = module,
                                              .r = r,
                                              .scale = 2.0f,
                                              .n_in = n_in,
                                              .n_out = n_out,
                                              .a = lora_values,
                                              .b = lora_values};
}

static void optional_input(const exported *e, const char *name, int64_t rows, int64_t cols)
{
    const Onnx__TensorProto *t = exported_init(e, name);
    bool found = false;

    for (size_t i = 0; i < e->g->n_input; i++)
        found = found || strcmp(e->g->input[i]->name, name) == 0;
    CHECK(found);
    if (CHECK(t != NULL)) {
        CHECK_EQ_INT(t->n_dims, 2);
        CHECK_EQ_INT(t->dims[0], rows);
        CHECK_EQ_INT(t->dims[1], cols);
    }
}

static void adapters(void)
{
    hf_lora_module one_modules[2], two_modules[2];
    hf_adapter first = {.modules = one_modules}, second = {.modules = two_modules};
    const onnx_named_adapter named[] = {{"first", &first}, {"second", &second}};
    onnx_options o = fixture_options(ONNX_INT4);
    const char *dir = NULL;
    exported e;

    add_lora(&first, "model.layers.0.self_attn.q_proj", 4, 32, 64);
    add_lora(&first, "model.layers.1.mlp.down_proj", 4, 64, 32);
    add_lora(&second, "model.layers.0.self_attn.q_proj", 8, 32, 64);
    add_lora(&second, "model.layers.0.self_attn.v_proj", 2, 32, 32);
    o.adapters = named;
    o.adapter_count = 2;
    one(TINY "llama", &o);
    if (!CHECK_OK(fixture_export(&arena, &dir, "adapters", TINY "llama", &o, 1)) ||
        !exported_open(&e, &arena, dir))
        return;
    optional_input(&e, "model.layers.0.self_attn.q_proj.lora_A.weight", 32, 0);
    optional_input(&e, "model.layers.0.self_attn.q_proj.lora_B.weight", 0, 64);
    optional_input(&e, "model.layers.0.self_attn.v_proj.lora_B.weight", 0, 32);
    optional_input(&e, "model.layers.1.mlp.down_proj.lora_A.weight", 64, 0);
    CHECK(exported_init(&e, "model.layers.1.self_attn.q_proj.lora_A.weight") == NULL);
    CHECK_EQ_INT(count_op(&e, "Concat"), 1);
    CHECK_EQ_INT(count_op(&e, "MatMul"), 8); /* q, k of zeros, v and down */
    exported_close(&e);
    CHECK(dr_is_file(dr_path_join(&arena, dir, "first.onnx_adapter")));
    CHECK(dr_is_file(dr_path_join(&arena, dir, "second.onnx_adapter")));
}

static void bad_adapters(void)
{
    hf_lora_module modules[1];
    hf_adapter a = {.modules = modules};
    onnx_named_adapter named[] = {{"a", &a}, {"a", &a}};
    onnx_options o = fixture_options(ONNX_FP32);
    const char *dir = NULL;

    o.adapters = named;
    o.adapter_count = 2;
    add_lora(&a, "model.layers.0.self_attn.q_proj", 4, 32, 64);
    CHECK_STATUS(fixture_export(&arena, &dir, "bad", TINY "llama", &o, 1), DR_EUSAGE);
    CHECK_TRAIL("two adapters are named a");
    o.adapter_count = 1;
    named[0].name = "../a";
    CHECK_STATUS(fixture_export(&arena, &dir, "bad", TINY "llama", &o, 1), DR_EUSAGE);
    named[0].name = "a";
    modules[0].n_out = 32;
    CHECK_STATUS(fixture_export(&arena, &dir, "bad", TINY "llama", &o, 1), DR_EFORMAT);
    CHECK_TRAIL("expected 64 x 32");
    modules[0].module = "lm_head";
    CHECK_STATUS(fixture_export(&arena, &dir, "bad", TINY "llama", &o, 1), DR_EUNSUPPORTED);
    CHECK_TRAIL("lm_head");
}

static void bad_options(void)
{
    onnx_options o = fixture_options(ONNX_INT4);
    const char *dir = NULL;

    o.block_size = 48;
    CHECK_STATUS(fixture_export(&arena, &dir, "bad", TINY "llama", &o, 1), DR_EUSAGE);
    CHECK_TRAIL("48");
    o = fixture_options(ONNX_INT4);
    o.head_bits = 8;
    o.min_ort_minor = 20;
    CHECK_STATUS(fixture_export(&arena, &dir, "bad", TINY "llama", &o, 1), DR_EUNSUPPORTED);
    o.min_ort_minor = 23;
    CHECK_OK(fixture_export(&arena, &dir, "bad", TINY "llama", &o, 1));
    o.head_bits = 3;
    CHECK_STATUS(fixture_export(&arena, &dir, "bad", TINY "llama", &o, 1), DR_EUSAGE);
}

int main(void)
{
    all_models();
    if (dr_is_dir(TINY "llama")) {
        tied_table();
        adapters();
        bad_adapters();
        bad_options();
    } else {
        SKIP(TINY "llama");
    }
    dr_arena_release(&arena);
    return check_done();
}
