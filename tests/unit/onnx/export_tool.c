/*
 * export_tool.c - onnx_build as a program, for the proofs in tools/oracle/onnx_*.py:
 *
 *     export_tool MODEL OUT fp32|fp16|bf16|int8|int4|int2 [provider=cpu] [block=32] [asym]
 *                 [rtn | k_quant] [mixed=head|layers] [head=8] [acc=4] [qdq] [bf16] [f32]
 *                 [exclude=NODE ...] [ort=20] [threads=2] [max=4096]
 *                 [form=fp16|int4|int4asym]
 *                 [NAME=ADAPTER_FOLDER ...]
 *     export_tool --inspect model.onnx
 *     export_tool --adapter FOLDER OUT.onnx_adapter
 *
 * OUT is made; a file with the same name in it is replaced.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core/file.h"
#include "core/log.h"
#include "onnx/onnx.h"

enum { ADAPTERS_MAX = 8, EXCLUDE_MAX = 8 };

static int fail(void)
{
    const dr_trail *t = dr_trail_get();

    for (int i = 0; i < t->count; i++)
        (void)fprintf(stderr, "%s%s\n", i > 0 ? "  " : "export_tool: ", t->frames[i].text);
    if (t->hint[0] != '\0')
        (void)fprintf(stderr, "  hint: %s\n", t->hint);
    return 1;
}

static bool number(const char *arg, const char *key, long *out)
{
    size_t n = strlen(key);

    if (strncmp(arg, key, n) != 0 || arg[n] != '=')
        return false;
    *out = strtol(arg + n + 1, NULL, 10);
    return true;
}

typedef struct {
    onnx_options o;
    long threads;
    onnx_named_adapter named[ADAPTERS_MAX];
    hf_adapter adapters[ADAPTERS_MAX];
    char names[ADAPTERS_MAX][64];
    const char *exclude[EXCLUDE_MAX];
    onnx_adapter_form form;
} job;

/* Words that set one option. */
static bool word(onnx_options *o, const char *arg)
{
    if (strcmp(arg, "asym") == 0)
        o->symmetric = false;
    else if (strcmp(arg, "rtn") == 0)
        o->rounding = ONNX_ROUND_RTN;
    else if (strcmp(arg, "k_quant") == 0)
        o->rounding = ONNX_ROUND_K_QUANT;
    else if (strcmp(arg, "mixed=head") == 0)
        o->mix = ONNX_MIX_HEAD;
    else if (strcmp(arg, "mixed=layers") == 0)
        o->mix = ONNX_MIX_LAYERS;
    else if (strcmp(arg, "qdq") == 0)
        o->qdq = true;
    else if (strcmp(arg, "bf16") == 0)
        o->cuda_bf16 = true;
    else if (strcmp(arg, "f32") == 0)
        o->webgpu_fp32 = true;
    else if (strcmp(arg, "gather") == 0)
        o->ops = ONNX_OP_MATMUL | ONNX_OP_GATHER;
    else
        return false;
    return true;
}

static dr_status parse_precision(onnx_precision *out, const char *text)
{
    for (int i = 0; i < ONNX_PRECISION_COUNT; i++) {
        *out = (onnx_precision)i;
        if (strcmp(onnx_precision_name(*out), text) == 0)
            return DR_OK;
    }
    return dr_fail(DR_EUSAGE, "%s: no such precision", text);
}

static dr_status form(onnx_adapter_form *f, const char *name)
{
    *f = ONNX_ADAPTER_FLOATS;
    if (strcmp(name, "fp16") == 0)
        f->dtype = DR_DTYPE_F16;
    else if (strcmp(name, "int4") == 0 || strcmp(name, "int4asym") == 0)
        f->int4 = true;
    else if (strcmp(name, "fp32") != 0)
        return dr_fail(DR_EUSAGE, "%s: no such form", name);
    f->symmetric = strcmp(name, "int4asym") != 0;
    return DR_OK;
}

static dr_status argument(job *j, const hf_model *m, const char *arg)
{
    onnx_options *o = &j->o;
    const char *eq = strchr(arg, '=');
    long v = 0;

    if (word(o, arg))
        return DR_OK;
    if (strncmp(arg, "provider=", 9) == 0)
        return onnx_provider_parse(&o->provider, arg + 9);
    if (strncmp(arg, "exclude=", 8) == 0 && o->exclude_count < EXCLUDE_MAX) {
        j->exclude[o->exclude_count++] = arg + 8;
        o->exclude = j->exclude;
        return DR_OK;
    }
    if (number(arg, "block", &v))
        o->block_size = (int)v;
    else if (number(arg, "acc", &v))
        o->accuracy_level = (int)v;
    else if (number(arg, "ort", &v))
        o->min_ort_minor = (int)v;
    else if (number(arg, "head", &v))
        o->head_bits = (int)v;
    else if (number(arg, "threads", &v))
        j->threads = v;
    else if (number(arg, "max", &v))
        o->max_length = v;
    else if (strncmp(arg, "form=", 5) == 0) {
        o->adapter_form = &j->form;
        return form(&j->form, arg + 5);
    } else if (eq == NULL || o->adapter_count == ADAPTERS_MAX || eq - arg > 63)
        return dr_fail(DR_EUSAGE, "%s: no such option", arg);
    else {
        size_t i = o->adapter_count++;
        memcpy(j->names[i], arg, (size_t)(eq - arg));
        j->named[i] = (onnx_named_adapter){j->names[i], &j->adapters[i]};
        return hf_adapter_open(&j->adapters[i], eq + 1, m);
    }
    return DR_OK;
}

static void show(const onnx_report *r, double seconds)
{
    struct rusage use;

    (void)getrusage(RUSAGE_SELF, &use);
    (void)printf("graph %llu data %llu adapters %llu nodes %zu initializers %zu opset %d\n",
                 (unsigned long long)r->graph_bytes, (unsigned long long)r->data_bytes,
                 (unsigned long long)r->adapter_bytes, r->nodes, r->initializers, r->opset);
    (void)printf("%.3f s, peak RSS %ld MB\n", seconds, use.ru_maxrss / 1024);
    for (size_t i = 0; i < r->note_count; i++)
        (void)printf("note: %s\n", r->notes[i]);
}

static dr_status export_model(int argc, char **argv)
{
    static job j;
    hf_model *m = NULL;
    dr_pool *pool = NULL;
    onnx_report report = {0};
    dr_status st = DR_OK;

    j.o = (onnx_options){.block_size = 32,
                         .symmetric = true,
                         .accuracy_level = 4,
                         .genai = true,
                         .adapters = j.named};
    double start = dr_now_s();
    DR_TRY(parse_precision(&j.o.precision, argv[3]));
    DR_TRY(hf_model_open(&m, argv[1]));
    for (int i = 4; i < argc; i++)
        DR_TRY(argument(&j, m, argv[i]));
    DR_TRY(dr_pool_open(&pool, (int)j.threads));
    for (size_t i = 0; i < j.o.adapter_count; i++)
        DR_TRY(hf_adapter_factors(&j.adapters[i], m, pool));
    DR_TRY(dr_make_dirs(argv[2]));
    DR_TRY(onnx_build(&report, argv[2], m, pool, &j.o));
    show(&report, dr_now_s() - start);
done:
    onnx_report_release(&report);
    for (size_t i = 0; i < j.o.adapter_count; i++)
        hf_adapter_release(&j.adapters[i]);
    dr_pool_close(pool);
    hf_model_close(m);
    return st;
}

static dr_status inspect(const char *path)
{
    dr_arena a = {0};
    onnx_info info;
    dr_status st = DR_OK;

    DR_TRY(onnx_inspect(&a, &info, path));
    (void)printf("ir %lld, %s\n", (long long)info.ir_version, info.producer);
    for (size_t i = 0; i < info.opset_count; i++)
        (void)printf("opset %s\n", info.opsets[i]);
    for (size_t i = 0; i < info.input_count; i++)
        (void)printf("in  %s\n", info.inputs[i]);
    for (size_t i = 0; i < info.output_count; i++)
        (void)printf("out %s\n", info.outputs[i]);
    for (size_t i = 0; i < info.op_count; i++)
        (void)printf("%6zu %s\n", info.op_counts[i], info.ops[i]);
    (void)printf("%zu initializers, %llu bytes, %llu external\n", info.initializer_count,
                 (unsigned long long)info.initializer_bytes,
                 (unsigned long long)info.external_bytes);
done:
    dr_arena_release(&a);
    return st;
}

static dr_status convert_adapter(const char *folder, const char *out)
{
    hf_adapter a = {0};
    dr_arena arena = {0};
    dr_tensor *list = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(hf_adapter_open(&a, folder, NULL));
    DR_TRY(onnx_adapter_tensors(&arena, &list, &count, &a, &ONNX_ADAPTER_FLOATS));
    DR_TRY(onnx_adapter_save(out, list, count, ONNX_ADAPTER_FILE));
done:
    dr_arena_release(&arena);
    hf_adapter_release(&a);
    return st;
}

int main(int argc, char **argv)
{
    dr_status st = DR_EUSAGE;

    if (argc == 3 && strcmp(argv[1], "--inspect") == 0)
        st = inspect(argv[2]);
    else if (argc == 4 && strcmp(argv[1], "--adapter") == 0)
        st = convert_adapter(argv[2], argv[3]);
    else if (argc >= 4)
        st = export_model(argc, argv);
    else
        (void)fprintf(stderr, "usage: export_tool MODEL OUT fp32|int4 [option ...]\n");
    return st == DR_OK ? 0 : fail();
}
