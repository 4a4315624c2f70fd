/*
 * wire_scan_test.c - onnx_inspect of good and of malformed files: truncation at every byte,
 * every byte changed, nesting, floods, groups, lengths that lie.
 */
#include "onnx_fixture.h"

static dr_arena arena;

/* ---- hand-written protobuf ---- */

static void varint(dr_buf *b, uint64_t v)
{
    for (; v > 127; v >>= 7)
        CHECK_OK(dr_buf_add(b, &(char){(char)(v | 128)}, 1));
    CHECK_OK(dr_buf_add(b, &(char){(char)v}, 1));
}

static void field(dr_buf *b, unsigned number, const void *data, size_t n)
{
    varint(b, number << 3 | 2);
    varint(b, n);
    CHECK_OK(dr_buf_add(b, data, n));
}

/* Without the fsync of dr_write_file: there are thousands. */
static const char *save(const dr_buf *b)
{
    const char *path = dr_path_join(&arena, check_tmp(), "x.onnx");
    dr_writer w;

    if (CHECK_OK(dr_writer_open(&w, path))) {
        CHECK_OK(dr_writer_add(&w, b->data, b->len));
        CHECK_OK(dr_writer_finish(&w));
        dr_writer_close(&w);
    }
    return path;
}

/* Inspecting must fail with DR_EFORMAT and say this. */
static void refused(const dr_buf *b, const char *why)
{
    onnx_info info;

    CHECK_STATUS(onnx_inspect(&arena, &info, save(b)), DR_EFORMAT);
    CHECK_TRAIL(why);
}

/* A model whose graph has a node with a graph attribute, and so on, depth graphs deep. */
static void nested(dr_buf *b, int depth)
{
    dr_buf in, out;

    dr_buf_init(&in, 1 << 24);
    dr_buf_init(&out, 1 << 24);
    for (int i = 1; i < depth; i++) {
        dr_buf_reset(&out);
        field(&out, 6, in.data, in.len); /* attribute.g */
        dr_buf_reset(&in);
        field(&in, 5, out.data, out.len); /* node.attribute */
        dr_buf_reset(&out);
        field(&out, 1, in.data, in.len); /* graph.node */
        dr_buf_reset(&in);
        CHECK_OK(dr_buf_add(&in, out.data, out.len));
    }
    field(b, 7, in.data, in.len);
    dr_buf_release(&in);
    dr_buf_release(&out);
}

static void limits(void)
{
    onnx_info info;
    dr_buf b, nodes;

    dr_buf_init(&b, 1 << 26);
    dr_buf_init(&nodes, 1 << 26);
    nested(&b, 20); /* 1 + 19 * 3 messages deep */
    CHECK_OK(onnx_inspect(&arena, &info, save(&b)));
    dr_buf_reset(&b);
    nested(&b, 23);
    refused(&b, "deeper than 64");
    dr_buf_reset(&b);
    nested(&b, 3000);
    refused(&b, "deeper than 64");

    char *room = NULL; /* empty nodes: 2 bytes here, 200 in memory */
    if (CHECK_OK(dr_buf_reserve(&nodes, 10000000, &room))) {
        for (size_t i = 0; i < 10000000; i++)
            room[i] = i % 2 ? '\0' : '\x0a';
        nodes.len += 10000000;
    }
    dr_buf_reset(&b);
    field(&b, 7, nodes.data, nodes.len);
    refused(&b, "512 MiB");
    dr_buf_release(&nodes);
    dr_buf_release(&b);
}

static void malformed(void)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *why;
    } cases[] = {
        {"", 0, "it has no graph"},
        {"\x08\x0a", 2, "it has no graph"},
        {"\x3a\x05\x0a", 3, "runs past its message"},
        {"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11, "runs past its message"},
        {"\x3b", 1, "found a group"},
        {"\x3c", 1, "found a group"},
        {"\x00\x01", 2, "no field has this number"},
        {"\x80", 1, "expected a number"},
        {"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80", 12, "expected a number"},
        {"\x09\x01\x02", 3, "runs past its message"},
        {"\x3a\x00\x3d\x01\x02", 5, "runs past its message"},
        {"\x38\x01", 2, "not of the type"},
    };
    dr_buf b;

    dr_buf_init(&b, 1 << 16);
    for (size_t i = 0; i < DR_COUNT(cases); i++) {
        dr_buf_reset(&b);
        CHECK_OK(dr_buf_add(&b, cases[i].bytes, cases[i].n));
        refused(&b, cases[i].why);
    }
    dr_buf_release(&b);
}

/* An exported graph, cut and changed: no crash, whatever it then says (run under ASAN). */
static void damaged(const char *dir)
{
    dr_map map = {0};
    onnx_info info;
    dr_buf b;
    size_t refusals = 0;

    dr_buf_init(&b, 1 << 24);
    CHECK_OK(dr_map_open(&map, dr_path_join(&arena, dir, "model.onnx")));
    for (size_t n = 0; n < map.size; n += 13) {
        dr_buf_reset(&b);
        CHECK_OK(dr_buf_add(&b, map.data, n));
        refusals += onnx_inspect(&arena, &info, save(&b)) != DR_OK;
    }
    CHECK(refusals > map.size / 13 - 10); /* the graph is one field: nearly every cut */
    for (size_t i = 0; i < map.size; i += 11) {
        dr_buf_reset(&b);
        CHECK_OK(dr_buf_add(&b, map.data, map.size));
        b.data[i] = (char)(map.data[i] ^ (1 << i % 8));
        (void)!onnx_inspect(&arena, &info, save(&b));
    }
    dr_map_close(&map);
    dr_buf_release(&b);
}

static void inspect(const char *dir)
{
    const char *path = dr_path_join(&arena, dir, "model.onnx");
    size_t nodes = 0;
    onnx_info info;

    if (!CHECK_OK(onnx_inspect(&arena, &info, path)))
        return;
    CHECK_EQ_INT(info.ir_version, 10);
    CHECK(strncmp(info.producer, "drupe ", 6) == 0);
    CHECK_EQ_INT(info.opset_count, 2);
    CHECK_STR(info.opsets[0], "ai.onnx 14");
    CHECK_STR(info.opsets[1], "com.microsoft 1");
    CHECK_EQ_INT(info.input_count, 4);
    CHECK_STR(info.inputs[0], "input_ids int64[batch_size,sequence_length]");
    CHECK_STR(info.inputs[2],
              "past_key_values.0.key float32[batch_size,1,past_sequence_length,16]");
    CHECK_STR(info.outputs[0], "logits float32[batch_size,sequence_length,24]");
    for (size_t i = 0; i < info.op_count; i++) {
        nodes += info.op_counts[i];
        CHECK(i == 0 || strcmp(info.ops[i - 1], info.ops[i]) < 0);
    }
    CHECK_STR(info.ops[info.op_count - 1],
              "com.microsoft.SkipSimplifiedLayerNormalization");
    CHECK_EQ_INT(info.op_counts[info.op_count - 1], 2);
    exported e;
    if (exported_open(&e, &arena, dir)) {
        CHECK_EQ_INT(nodes, e.g->n_node);
        CHECK_EQ_INT(info.initializer_count, e.g->n_initializer);
        CHECK(info.external_bytes <= e.data.size);
        CHECK_EQ_INT(info.initializer_bytes, info.external_bytes);
    }
    exported_close(&e);
}

int main(void)
{
    onnx_options o = fixture_options(ONNX_INT4);
    const char *dir = NULL;
    fixture f;

    fixture_llama(&f, &arena);
    const char *path = fixture_save(&f, "model", "");
    if (CHECK_OK(fixture_export(&arena, &dir, "int4", path, &o, 1))) {
        inspect(dir);
        damaged(dir);
    }
    malformed();
    limits();
    dr_arena_release(&arena);
    return check_done();
}
