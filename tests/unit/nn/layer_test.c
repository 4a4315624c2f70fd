/*
 * layer_test.c - a layer with adapters and dropout on the fast device: the same bytes for
 * any number of threads, near to ref, parts of it alone, early ends of the backward pass.
 *
 * The model is tests/golden/tiny/phi3 (grouped heads, partial rotation); the sequence is
 * longer than the tiles of attention.
 */
#include "nn_check.h"

enum { B = 3, T = 123, RANK = 5, MODULES = 4 };

typedef struct {
    nn_decoder *d;
    const nn_layer *w;
    nn_acts acts;
    nn_lora loras[MODULES];
    size_t count, row, grads; /* grads: floats of all da and db */
    float *a[MODULES], *b[MODULES];
} fixture;

static bool open_fixture(fixture *f, nn_device *dev, const hf_model *m)
{
    const hf_linear *l = NULL;

    *f = (fixture){.row = (size_t)hf_model_config(m)->hidden};
    f->count = hf_layer_linears(m, 1, &l);
    if (!CHECK_EQ_INT(f->count, MODULES) || !CHECK_OK(nn_decoder_open(&f->d, dev, m, 0)) ||
        !CHECK_OK(nn_acts_new(&f->acts, hf_model_config(m), B, T, MODULES * RANK)) ||
        !CHECK_OK(nn_decoder_layer(f->d, 1, &f->w)))
        return false;
    for (size_t i = 0; i < f->count; i++) {
        f->a[i] = nn_random(RANK * l[i].n_in, 10 + i, 0.2f);
        f->b[i] = nn_random(RANK * l[i].n_out, 20 + i, 0.2f);
        f->loras[i] = (nn_lora){.slot = l[i].slot,
                                .row0 = l[i].row0,
                                .n_out = l[i].n_out,
                                .n_in = l[i].n_in,
                                .r = RANK,
                                .scale = 0.7f,
                                .a = f->a[i],
                                .b = f->b[i],
                                .dropout = 0.1f,
                                .seed = 3,
                                .stream = i};
        f->grads += RANK * (l[i].n_in + l[i].n_out);
    }
    return true;
}

static void close_fixture(fixture *f)
{
    for (size_t i = 0; i < MODULES; i++) {
        free(f->a[i]);
        free(f->b[i]);
    }
    dr_big_free(f->acts.x);
    nn_decoder_close(f->d);
}

/* Gradients of all modules go to one array. */
static void give_grads(fixture *f, float *grads)
{
    for (size_t i = 0; i < f->count; i++) {
        nn_lora *l = &f->loras[i];
        l->da = grads;
        l->db = grads + RANK * l->n_in;
        grads += RANK * (l->n_in + l->n_out);
    }
}

/* out: the layer's output, its input's gradient, the adapters' gradients. */
typedef struct {
    const hf_model *m;
    const float *x, *dy;
    float dropout;
} step_case;

static dr_status whole_step(nn_device *dev, float *out, const void *ctx)
{
    const step_case *c = ctx;
    fixture f;
    dr_status st = DR_OK;

    if (open_fixture(&f, dev, c->m)) {
        size_t n = B * T * f.row;
        float *dx = out + n, *grads = out + 2 * n;
        for (size_t i = 0; i < f.count; i++)
            f.loras[i].dropout = c->dropout;
        memcpy(out, c->x, n * sizeof(*out));
        memcpy(dx, c->dy, n * sizeof(*out));
        memset(grads, 0, f.grads * sizeof(*out));
        give_grads(&f, grads);
        st = nn_layer_forward(f.d, f.w, B, T, out, &f.acts, f.loras, f.count);
        if (st == DR_OK)
            st = nn_layer_backward(f.d, f.w, B, T, dx, &f.acts, f.loras, f.count, true);
    }
    close_fixture(&f);
    return st;
}

static void test_step(const nn_devices *d, const hf_model *m)
{
    fixture f;
    step_case c = {.m = m};

    if (!open_fixture(&f, d->ref, m))
        return;
    size_t n = B * T * f.row;
    float *x = nn_random(n, 1, 1.0f), *dy = nn_random(n, 2, 1.0f);
    c.x = x;
    c.dy = dy;
    (void)nn_check_op(d, "a step", whole_step, &c, 2 * n + f.grads, NULL, 2e-5);
    c.dropout = 0.1f;
    (void)nn_check_op(d, "a step with dropout", whole_step, &c, 2 * n + f.grads, NULL,
                      2e-5);
    free(x);
    free(dy);
    close_fixture(&f);
}

/* nn_attn_block and nn_mlp_block are the layer without norms and residuals. */
static void test_halves(nn_device *dev, const hf_model *m)
{
    fixture f;

    if (!open_fixture(&f, dev, m))
        return;
    size_t n = B * T * f.row;
    float *x = nn_random(n, 1, 1.0f), *y = nn_random(n, 1, 1.0f);
    float *half = dr_calloc(n, sizeof(*half));
    const nn_layer *w = f.w;
    CHECK_OK(nn_layer_forward(f.d, w, B, T, y, &f.acts, NULL, 0));
    CHECK_OK(nn_attn_block(f.d, half, f.acts.norm1, w, B, T));
    for (size_t i = 0; i < n; i++)
        half[i] += x[i];
    CHECK_NEAR(nn_far(half, f.acts.mid, n), 0.0, 1e-6);
    CHECK_MEM(f.acts.x, x, n * sizeof(*x));
    CHECK_OK(nn_mlp_block(f.d, half, f.acts.norm2, w, B * T));
    for (size_t i = 0; i < n; i++)
        half[i] += f.acts.mid[i];
    CHECK_NEAR(nn_far(half, y, n), 0.0, 1e-6);
    free(x);
    free(y);
    free(half);
    close_fixture(&f);
}

/* A packed weight stands in for the floats, slot by slot: the floats are not looked at, and
 * the output is near theirs, as integer products are. */
static void test_packed(nn_device *dev, const hf_model *m)
{
    const hf_config *c = hf_model_config(m);
    fixture f;

    if (!open_fixture(&f, dev, m))
        return;
    size_t n = B * T * f.row;
    float *y = nn_random(n, 1, 1.0f);
    CHECK_OK(nn_layer_forward(f.d, f.w, B, T, y, &f.acts, NULL, 0));
    for (hf_slot s = 0; s < HF_SLOT_COUNT; s++) {
        size_t out = hf_slot_out(c, s), in = hf_slot_in(c, s);
        nn_layer w = *f.w;
        float *z = nn_random(n, 1, 1.0f);
        void *p = NULL;
        CHECK_OK(dr_big_alloc(&p, nn_i8_packed_bytes(out, in), 1, "packed weight"));
        CHECK_OK(nn_i8_pack(dev, p, w.w[s], out, in));
        w.packed[s] = p;
        w.w[s] = NULL;
        CHECK_OK(nn_layer_forward(f.d, &w, B, T, z, &f.acts, NULL, 0));
        CHECK(memcmp(y, z, n * sizeof(*y)) != 0);
        CHECK_NEAR(nn_far(z, y, n), 0.0, 5e-2);
        dr_big_free(p);
        free(z);
    }
    free(y);
    close_fixture(&f);
}

/* Without need_dx, whatever subset of modules trains gets the gradients of a full pass. */
static void test_early_end(nn_device *dev, const hf_model *m)
{
    fixture f;

    if (!open_fixture(&f, dev, m))
        return;
    size_t n = B * T * f.row;
    float *x = nn_random(n, 1, 1.0f), *dy = nn_random(n, 2, 1.0f);
    float *all = dr_calloc(f.grads, sizeof(*all)),
          *some = dr_calloc(f.grads, sizeof(*some));
    float *dx = dr_calloc(n, sizeof(*dx));
    CHECK_OK(nn_layer_forward(f.d, f.w, B, T, x, &f.acts, f.loras, f.count));
    memcpy(dx, dy, n * sizeof(*dx));
    give_grads(&f, all);
    CHECK_OK(nn_layer_backward(f.d, f.w, B, T, dx, &f.acts, f.loras, f.count, true));
    for (unsigned mask = 0; mask < 1u << MODULES; mask++) {
        memset(some, 0, f.grads * sizeof(*some));
        memcpy(dx, dy, n * sizeof(*dx));
        give_grads(&f, some);
        for (size_t i = 0; i < MODULES; i++)
            if ((mask >> i & 1) == 0)
                f.loras[i].da = f.loras[i].db = NULL;
        CHECK_OK(nn_layer_backward(f.d, f.w, B, T, dx, &f.acts, f.loras, f.count, false));
        size_t at = 0;
        for (size_t i = 0; i < MODULES; i++) {
            size_t len = RANK * (f.loras[i].n_in + f.loras[i].n_out);
            if ((mask >> i & 1) != 0)
                CHECK_MEM(some + at, all + at, len * sizeof(*some));
            at += len;
        }
    }
    free(x);
    free(dy);
    free(all);
    free(some);
    free(dx);
    close_fixture(&f);
}

/* Another seed or stream is another mask; the same ones are the same mask. */
static void test_masks(nn_device *dev, const hf_model *m)
{
    fixture f;
    uint64_t seeds[][2] = {{3, 0}, {3, 0}, {4, 0}, {3, 1}};
    float *y[4];

    if (!open_fixture(&f, dev, m))
        return;
    size_t n = B * T * f.row;
    for (size_t i = 0; i < 4; i++) {
        y[i] = nn_random(n, 1, 1.0f);
        f.loras[0].seed = seeds[i][0];
        f.loras[0].stream = seeds[i][1];
        CHECK_OK(nn_layer_forward(f.d, f.w, B, T, y[i], &f.acts, f.loras, 1));
    }
    CHECK_MEM(y[0], y[1], n * sizeof(float));
    CHECK(memcmp(y[0], y[2], n * sizeof(float)) != 0);
    CHECK(memcmp(y[0], y[3], n * sizeof(float)) != 0);
    CHECK(memcmp(y[2], y[3], n * sizeof(float)) != 0);
    for (size_t i = 0; i < 4; i++)
        free(y[i]);
    close_fixture(&f);
}

/* Sequences at once have the masks that each would have by itself. */
static void test_sequences(nn_device *dev, const hf_model *m)
{
    enum { STEP = 1 << 20 };
    fixture f;

    if (!open_fixture(&f, dev, m))
        return;
    size_t n = T * f.row;
    float *all = nn_random(B * n, 1, 1.0f), *one = nn_random(B * n, 1, 1.0f);
    float *dall = nn_random(B * n, 2, 1.0f), *done = nn_random(B * n, 2, 1.0f);
    f.loras[0].sequences = B;
    f.loras[0].stream_step = STEP;
    CHECK_OK(nn_layer_forward(f.d, f.w, B, T, all, &f.acts, f.loras, 1));
    CHECK_OK(nn_layer_backward(f.d, f.w, B, T, dall, &f.acts, f.loras, 1, true));
    f.loras[0].sequences = 1;
    for (size_t i = 0; i < B; i++, f.loras[0].stream += STEP) {
        CHECK_OK(nn_layer_forward(f.d, f.w, 1, T, one + i * n, &f.acts, f.loras, 1));
        CHECK_OK(
            nn_layer_backward(f.d, f.w, 1, T, done + i * n, &f.acts, f.loras, 1, true));
    }
    CHECK_MEM(all, one, B * n * sizeof(*all));
    CHECK_MEM(dall, done, B * n * sizeof(*all));
    free(all);
    free(one);
    free(dall);
    free(done);
    close_fixture(&f);
}

/* Many short sequences at once are the same as one by one; kept and streamed too. */
static void test_batches(nn_device *dev, const hf_model *m)
{
    enum { SEQS = 70, LEN = 40 };
    nn_decoder *kept = NULL, *streamed = NULL;
    size_t row = (size_t)hf_model_config(m)->hidden, n = SEQS * LEN * row;
    int32_t ids[SEQS * LEN];
    float *x = dr_calloc(n, sizeof(*x)), *y = dr_calloc(n, sizeof(*y));

    for (int i = 0; i < SEQS * LEN; i++)
        ids[i] = (i * 31 + i / 7) % hf_model_config(m)->vocab;
    CHECK_OK(nn_decoder_open(&kept, dev, m, SIZE_MAX));
    CHECK_OK(nn_decoder_open(&streamed, dev, m, 0));
    CHECK_OK(nn_decoder_hidden(streamed, x, ids, SEQS, LEN));
    for (size_t i = 0; i < SEQS; i++)
        CHECK_OK(nn_decoder_hidden(kept, y + i * LEN * row, ids + i * LEN, 1, LEN));
    CHECK_MEM(x, y, n * sizeof(*x));
    /* a shorter one afterwards: below the switch of longrope, other tables */
    CHECK_OK(nn_decoder_hidden(kept, x, ids, 1, 20));
    CHECK_OK(nn_decoder_hidden(kept, y, ids, 1, 40));
    CHECK(nn_far(x, y, 20 * row) > 1e-3);
    ids[3] = hf_model_config(m)->vocab;
    CHECK_STATUS(nn_decoder_hidden(kept, y, ids, 1, 20), DR_EFORMAT);
    CHECK_TRAIL("outside of the vocabulary");
    nn_decoder_close(kept);
    nn_decoder_close(streamed);
    free(x);
    free(y);
}

int main(void)
{
    nn_devices d;
    hf_model *m = NULL;
    const char *path = DRUPE_SOURCE_DIR "/tests/golden/tiny/phi3";

    if (!dr_is_dir(path)) {
        SKIP(path);
        return check_done();
    }
    nn_devices_open(&d);
    if (CHECK_OK(hf_model_open(&m, path))) {
        test_step(&d, m);
        test_halves(d.dev[0][1], m);
        test_packed(d.dev[0][1], m);
        test_early_end(d.dev[0][1], m);
        test_masks(d.dev[0][1], m);
        test_sequences(d.dev[0][1], m);
        test_batches(d.dev[0][1], m);
    }
    hf_model_close(m);
    nn_devices_close(&d);
    return check_done();
}
