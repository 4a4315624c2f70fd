/*
 * registry.c - the list of passes.
 */
#include <strings.h>

#include "pass/pass.h"

#define PASS(symbol) extern const pass_def pass_##symbol;
#include "pass/passes.def"
#undef PASS

static const pass_def *const passes[] = {
#define PASS(symbol) &pass_##symbol,
#include "pass/passes.def"
#undef PASS
};

const char *pass_kind_type(pass_kind kind)
{
    static const char *const types[PASS_MODEL_KINDS] = {
        "HfModel",  "ONNXModel", "CompositeModel", "OpenVINOModel",
        "QNNModel", "QNNModel",  "QNNModel"};

    return types[kind];
}

const char *pass_kind_format(pass_kind kind)
{
    static const char *const formats[PASS_MODEL_KINDS] = {[PASS_MODEL_QNN_CPP] = "QNN.CPP",
                                                          [PASS_MODEL_QNN_LIB] = "QNN.LIB",
                                                          [PASS_MODEL_QNN_BIN] =
                                                              "QNN.SERIALIZED.BIN"};

    return formats[kind];
}

bool pass_kind_is_vendors(pass_kind kind)
{
    return kind >= PASS_MODEL_OPENVINO;
}

bool pass_takes(const pass_def *d, pass_kind kind)
{
    return kind == d->takes || (d->each_part && kind == PASS_MODEL_PARTS);
}

pass_kind pass_gives(const pass_def *d, pass_kind kind)
{
    return d->each_part && kind == PASS_MODEL_PARTS ? kind : d->gives;
}

const pass_def *pass_find(const char *name)
{
    for (size_t i = 0; i < DR_COUNT(passes); i++) {
        if (strcasecmp(passes[i]->name, name) == 0)
            return passes[i];
    }
    return NULL;
}

const char *pass_refused(const char *name, const char **instead)
{
    static const struct {
        const char *name, *why, *instead;
    } refused[] = {
#define REFUSED(name, why, instead) {name, why, instead},
#include "pass/refused.def"
#undef REFUSED
    };

    for (size_t i = 0; i < DR_COUNT(refused); i++) {
        if (strcasecmp(refused[i].name, name) != 0)
            continue;
        *instead = refused[i].instead;
        return refused[i].why;
    }
    return NULL;
}

const pass_def *const *pass_list(size_t *count)
{
    *count = DR_COUNT(passes);
    return passes;
}
