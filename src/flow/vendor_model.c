/*
 * vendor_model.c - models of vendors: found in a folder by the ends of their files' names,
 * and written down as Olive calls them.
 */
#include <string.h>
#include <strings.h>

#include "core/file.h"
#include "core/json.h"
#include "core/mem.h"
#include "flow/flow_impl.h"

/* How the main file's name ends, "" for none other; and what it lies beside. */
static const char *const ends[PASS_MODEL_KINDS][2] = {
    [PASS_MODEL_OPENVINO] = {".xml", ""},
    [PASS_MODEL_QNN_CPP] = {".cpp", ""},
    [PASS_MODEL_QNN_LIB] = {".so", ".dlc"},
    [PASS_MODEL_QNN_BIN] = {".bin", ""},
};

static bool has_end(pass_kind kind, const char *name)
{
    for (int i = 0; i < 2; i++)
        if (ends[kind][i][0] != '\0' && dr_ends_with(name, ends[kind][i]))
            return true;
    return false;
}

/* The one file of such a name in dir; NULL: there is none. */
static dr_status one_in(const char **file, dr_arena *a, const char *dir, pass_kind kind)
{
    char **names = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    *file = NULL;
    DR_TRY(dr_list_dir(a, dir, &names, &count));
    for (size_t i = 0; i < count; i++) {
        if (!has_end(kind, names[i]) || !dr_is_file(dr_path_join(a, dir, names[i])))
            continue;
        if (*file != NULL) {
            st = dr_fail(DR_EUSAGE, "%s: both %s and %s could be %s", dir, *file, names[i],
                         flow_kind_text(kind));
            dr_hint("name the file");
            goto done;
        }
        *file = names[i];
    }
done:
    return st;
}

/* Libraries lie in folders of their targets: this machine's is taken. */
static dr_status target_folder(const char **dir, dr_arena *a, const char *folder)
{
    char **names = NULL;
    size_t count = 0;
    dr_status st = DR_OK;

    DR_TRY(dr_list_dir(a, folder, &names, &count));
    for (size_t i = 0; i < count; i++) {
        const char *inside = dr_path_join(a, folder, names[i]);
        if (dr_is_dir(inside) &&
            (*dir == NULL || strncmp(names[i], "x86_64-linux", 12) == 0))
            *dir = inside;
    }
done:
    return st;
}

dr_status flow_open_vendor(pass_model *in, dr_arena *a, const char *model, pass_kind kind)
{
    const char *inside = dr_path_join(a, model, "model");
    const char *folder = dr_is_dir(inside) ? inside : model, *file = NULL, *target = NULL;
    dr_status st = DR_OK;

    if (dr_is_file(model)) {
        if (!has_end(kind, model))
            DR_FAIL(DR_EUSAGE, "%s: expected %s, a file that ends in %s", model,
                    flow_kind_text(kind), ends[kind][0]);
        folder = dr_path_dir(a, model);
        file = dr_path_base(model);
    } else if (!dr_is_dir(folder)) {
        DR_FAIL(DR_EUSAGE, "%s: no such file or folder", model);
    } else {
        DR_TRY(one_in(&file, a, folder, kind));
    }
    if (file == NULL && kind == PASS_MODEL_QNN_LIB) {
        DR_TRY(target_folder(&target, a, folder));
        folder = target != NULL ? target : folder;
        DR_TRY(one_in(&file, a, folder, kind));
    }
    if (file == NULL)
        DR_FAIL(DR_EUSAGE, "%s: expected %s, found no %s file", model, flow_kind_text(kind),
                ends[kind][0]);
    if (kind == PASS_MODEL_OPENVINO) {
        const char *bin = dr_arena_printf(a, "%.*s.bin", (int)(strlen(file) - 4), file);
        if (!dr_is_file(dr_path_join(a, folder, bin)))
            DR_FAIL(DR_EUSAGE, "%s: %s is there, and its weights %s are not", folder, file,
                    bin);
    }
    *in = (pass_model){.kind = kind, .path = folder, .file = file, .name = model};
done:
    return st;
}

dr_status flow_write_vendor_config(const char *dir, const pass_model *m)
{
    const char *format = pass_kind_format(m->kind);
    const bool folder = m->kind == PASS_MODEL_OPENVINO || m->kind == PASS_MODEL_QNN_LIB;
    dr_arena a = {0};
    const char *path = folder ? "model" : dr_path_join(&a, "model", m->file);
    json_t *j = json_pack("{s:s, s:{s:s}}", "type", pass_kind_type(m->kind), "config",
                          "model_path", path);
    dr_status st = DR_OK;

    if (j == NULL)
        DR_FAIL(DR_EUSAGE, "a name that is not UTF-8 cannot be in model_config.json");
    if (format != NULL)
        json_object_set_new(json_object_get(j, "config"), "model_file_format",
                            json_string(format));
    DR_TRY(dr_json_write(dr_path_join(&a, dir, "model_config.json"), j));
done:
    json_decref(j);
    dr_arena_release(&a);
    return st;
}

bool flow_type_fits(pass_kind kind, const char *type)
{
    if (kind == PASS_MODEL_ONNX || kind == PASS_MODEL_PARTS)
        return flow_is_onnx_type(type);
    return strcasecmp(type, pass_kind_type(kind)) == 0;
}

dr_status flow_tell_program(dr_buf *line, json_t *list, const pass_def *d,
                            const json_t *config)
{
    dr_arena a = {0};
    pass_program p = {0};
    dr_status st = DR_OK;

    if (!pass_program_find(&p, &a, d, config))
        goto done;
    if (p.path != NULL)
        DR_TRY(dr_buf_addf(line, "program        %s: %s\n", p.name, p.path));
    else
        DR_TRY(dr_buf_addf(line,
                           "program        %s: not installed, looked for %s; install: "
                           "%s\n",
                           p.name, p.looked, p.install));
    json_array_append_new(list,
                          json_pack("{s:s, s:s, s:s?, s:s}", "pass", d->name, "program",
                                    p.name, "path", p.path, "install", p.install));
done:
    dr_arena_release(&a);
    return st;
}
