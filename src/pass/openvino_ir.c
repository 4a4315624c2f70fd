/*
 * openvino_ir.c - inputs and outputs of an IR, read from its XML.
 *
 *   net > layers > layer[type=Parameter] > data[shape, element_type]
 *                                        > output > port[names] > dim
 *                  layer[type=Result, output_names] > input > port[precision] > dim
 *                  layer > output > port[id, names]
 *       > edges > edge[from-layer, from-port, to-layer]
 *       > rt_info > Runtime_version[value]
 *
 * A Result of an older IR has no output_names: its names are those of the port that its
 * edge comes from.  Layers within layers (bodies of loops) have inputs of their own and do
 * not count.  The reader knows elements, attributes, text, comments and the five entities,
 * which is all that an IR has; a document type is refused, so nothing expands.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/file.h"
#include "core/mem.h"
#include "pass/openvino_impl.h"

enum { DEPTH_MAX = 64, RANK_MAX = 64, NAME_MAX_BYTES = 64, FILE_BYTES = 1 << 28 };
enum { LAYER_DEPTH = 3, PART_DEPTH = 4, PORT_DEPTH = 5, DIM_DEPTH = 6 };

/* ---- tags ---- */

typedef struct {
    const char *text, *where;
    size_t n, at;
    char open[DEPTH_MAX][NAME_MAX_BYTES]; /* the elements that are open */
    int depth;
} scan;

typedef struct {
    const char *name; /* in the scan: open[depth - 1], or of one that just ended */
    size_t from, to;  /* of the attributes */
    int depth;        /* 1: the root */
    bool opens, closes;
} tag;

static dr_status broken(const scan *s, const char *what)
{
    size_t line = 1;

    for (size_t i = 0; i < s->at && i < s->n; i++)
        line += s->text[i] == '\n';
    return dr_fail(DR_EFORMAT, "%s:%zu: no OpenVINO IR: %s", s->where, line, what);
}

static bool starts(const scan *s, const char *word)
{
    const size_t k = strlen(word);

    return s->n - s->at >= k && memcmp(s->text + s->at, word, k) == 0;
}

/* Behind the next `end`; false: there is none. */
static bool skip_past(scan *s, const char *end)
{
    const char *found = memmem(s->text + s->at, s->n - s->at, end, strlen(end));

    if (found == NULL)
        return false;
    s->at = (size_t)(found - s->text) + strlen(end);
    return true;
}

/* To the next tag's '<'; comments and instructions are passed.  false: the text ends. */
static dr_status to_tag(scan *s, bool *some)
{
    *some = true;
    for (;;) {
        const char *found = memchr(s->text + s->at, '<', s->n - s->at);
        if (found == NULL) {
            *some = false;
            return DR_OK;
        }
        s->at = (size_t)(found - s->text);
        if (starts(s, "<!--")) {
            if (!skip_past(s, "-->"))
                return broken(s, "a comment has no end");
        } else if (starts(s, "<?")) {
            if (!skip_past(s, "?>"))
                return broken(s, "an instruction has no end");
        } else if (starts(s, "<!")) {
            return broken(s, "it has a document type");
        } else {
            return DR_OK;
        }
    }
}

/* The end of a tag, quotes passed; 0: there is none. */
static size_t tag_end(const scan *s)
{
    char quote = '\0';

    for (size_t i = s->at; i < s->n; i++) {
        const char c = s->text[i];
        if (quote != '\0')
            quote = c == quote ? '\0' : quote;
        else if (c == '"' || c == '\'')
            quote = c;
        else if (c == '>')
            return i;
    }
    return 0;
}

static dr_status open_tag(scan *s, tag *t, size_t name, size_t length)
{
    if (s->depth == DEPTH_MAX || length >= NAME_MAX_BYTES)
        return broken(s, "elements too deep, or a name too long");
    memcpy(s->open[s->depth], s->text + name, length);
    s->open[s->depth][length] = '\0';
    t->name = s->open[s->depth];
    t->depth = ++s->depth;
    t->opens = true;
    if (t->to > t->from && s->text[t->to - 1] == '/') {
        t->to--;
        t->closes = true;
        s->depth--;
    }
    return DR_OK;
}

/* *some false: the text ends. */
static dr_status next_tag(scan *s, tag *t, bool *some)
{
    static const char blanks[] = " \t\r\n/>";
    dr_status st = DR_OK;

    *t = (tag){0};
    DR_TRY(to_tag(s, some));
    if (!*some)
        goto done;
    s->at++;
    const bool closing = s->at < s->n && s->text[s->at] == '/';
    const size_t name = s->at + closing, end = tag_end(s);
    size_t length = 0;
    while (name + length < s->n && strchr(blanks, s->text[name + length]) == NULL)
        length++;
    if (end == 0 || length == 0 || name + length > end)
        DR_TRY(broken(s, "a tag has no end"));
    t->from = name + length;
    t->to = end;
    if (!closing) {
        DR_TRY(open_tag(s, t, name, length));
    } else {
        const char *top = s->depth > 0 ? s->open[s->depth - 1] : "";
        if (strlen(top) != length || memcmp(top, s->text + name, length) != 0)
            DR_TRY(broken(s, "an element ends that is not open"));
        t->name = top;
        t->depth = s->depth--;
        t->closes = true;
    }
    s->at = end + 1;
done:
    return st;
}

/* Where the value of a tag's attribute is; to 0: it has none of this name. */
static pass_ir_span attr_span(const scan *s, const tag *t, const char *name)
{
    const size_t k = strlen(name);
    size_t i = t->from;

    while (i < t->to) {
        while (i < t->to && strchr(" \t\r\n", s->text[i]) != NULL)
            i++;
        const size_t key = i;
        while (i < t->to && s->text[i] != '=')
            i++;
        const size_t key_end = i++;
        if (i >= t->to || (s->text[i] != '"' && s->text[i] != '\''))
            break;
        const char *end = memchr(s->text + i + 1, s->text[i], t->to - i - 1);
        if (end == NULL)
            break;
        const size_t value = i + 1;
        i = (size_t)(end - s->text) + 1;
        if (key_end - key == k && memcmp(s->text + key, name, k) == 0)
            return (pass_ir_span){value, i - 1};
    }
    return (pass_ir_span){0, 0};
}

/* Text without its entities. */
static const char *decoded(dr_arena *a, const char *text, size_t n)
{
    static const struct {
        const char *word;
        char c;
    } entities[] = {
        {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
    char *out = dr_arena_alloc(a, n + 1, 1), *p = out;

    for (size_t i = 0; i < n; i++) {
        size_t e = 0;
        while (text[i] == '&' && e < DR_COUNT(entities) &&
               (n - i < strlen(entities[e].word) ||
                memcmp(text + i, entities[e].word, strlen(entities[e].word)) != 0))
            e++;
        if (text[i] != '&' || e == DR_COUNT(entities)) {
            *p++ = text[i];
            continue;
        }
        *p++ = entities[e].c;
        i += strlen(entities[e].word) - 1;
    }
    *p = '\0';
    return out;
}

/* NULL: the tag has none of this name. */
static const char *attr(const scan *s, dr_arena *a, const tag *t, const char *name)
{
    const pass_ir_span v = attr_span(s, t, name);

    return v.to != 0 ? decoded(a, s->text + v.from, v.to - v.from) : NULL;
}

/* ---- the graph ---- */

typedef struct {
    scan s;
    dr_arena *a;
    pass_ir *out;
    size_t input_room, output_room;
    const char **result_layers; /* [output_room]: ids */
    json_t *ports;              /* "LAYER:PORT" to its names */
    const char *layer;          /* id of the one that is open */
    pass_ir_value *value;       /* that it is; NULL: neither input nor output */
    bool is_input;
    char part[NAME_MAX_BYTES]; /* "data", "input", "output" */
    int64_t dims[RANK_MAX];
    int rank;
} reader;

static int type_of(const char *word)
{
    static const struct {
        const char *word;
        int type;
    } types[] = {{"f32", 1},     {"fp32", 1}, {"u8", 2},    {"i8", 3},     {"u16", 4},
                 {"i16", 5},     {"i32", 6},  {"i64", 7},   {"string", 8}, {"bool", 9},
                 {"boolean", 9}, {"f16", 10}, {"fp16", 10}, {"f64", 11},   {"fp64", 11},
                 {"u32", 12},    {"u64", 13}, {"bf16", 16}};

    for (size_t i = 0; word != NULL && i < DR_COUNT(types); i++)
        if (strcasecmp(word, types[i].word) == 0)
            return types[i].type;
    return 0;
}

static dr_status set_type(reader *r, const char *word)
{
    r->value->type = type_of(word);
    if (r->value->type == 0)
        return dr_fail(DR_EUNSUPPORTED,
                       "%s: %s %s has the type %s, which ONNX does not have", r->s.where,
                       r->is_input ? "the input" : "the output", r->value->layer,
                       word != NULL ? word : "(none)");
    return DR_OK;
}

static pass_ir_value *grown(dr_arena *a, pass_ir_value *list, size_t count, size_t *room)
{
    if (count < *room)
        return list;
    *room = 2 * *room + 16;
    pass_ir_value *more = dr_arena_alloc(a, *room, sizeof(*more));
    if (count > 0)
        memcpy(more, list, count * sizeof(*more));
    return more;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The first by byte of "a,b\,c"; NULL: there is none. */
static const char *first_name(dr_arena *a, const char *names)
{
    size_t count = 1, n = 0;

    if (names == NULL || *names == '\0')
        return NULL;
    for (const char *p = names; *p != '\0'; p++)
        count += *p == ',';
    const char **list = dr_arena_alloc(a, count, sizeof(*list));
    char *text = dr_arena_alloc(a, strlen(names) + 1, 1), *to = text;
    list[n++] = text;
    for (const char *p = names; *p != '\0'; p++) {
        if (*p == '\\' && p[1] != '\0') {
            *to++ = *++p;
        } else if (*p == ',') {
            *to++ = '\0';
            list[n++] = to;
        } else {
            *to++ = *p;
        }
    }
    *to = '\0';
    qsort(list, n, sizeof(*list), by_text);
    return list[0];
}

static void begin_layer(reader *r, const tag *t)
{
    const char *type = attr(&r->s, r->a, t, "type");
    const char *id = attr(&r->s, r->a, t, "id");
    pass_ir *o = r->out;

    r->layer = id != NULL ? id : "";
    r->value = NULL;
    r->part[0] = '\0';
    r->is_input = type != NULL && strcmp(type, "Parameter") == 0;
    if (r->is_input) {
        o->inputs = grown(r->a, o->inputs, o->input_count, &r->input_room);
        r->value = &o->inputs[o->input_count++];
    } else if (type != NULL && strcmp(type, "Result") == 0) {
        const size_t had = r->output_room;
        o->outputs = grown(r->a, o->outputs, o->output_count, &r->output_room);
        if (r->output_room != had) {
            const char **more = dr_arena_alloc(r->a, r->output_room, sizeof(*more));
            if (had > 0)
                memcpy(more, r->result_layers, had * sizeof(*more));
            r->result_layers = more;
        }
        r->result_layers[o->output_count] = r->layer;
        r->value = &o->outputs[o->output_count++];
    }
    if (r->value == NULL)
        return;
    *r->value = (pass_ir_value){.layer = attr(&r->s, r->a, t, "name"), .rank = -1};
    if (r->value->layer == NULL)
        r->value->layer = r->layer;
    if (!r->is_input) {
        r->value->name = first_name(r->a, attr(&r->s, r->a, t, "output_names"));
        r->value->names = attr_span(&r->s, t, "output_names");
        r->value->tag_end = t->to;
    }
}

/* "1,?,4" or "1, 3, 4"; "..." is of any rank. */
static dr_status set_shape(reader *r, const char *text)
{
    int64_t *dims = dr_arena_alloc(r->a, RANK_MAX, sizeof(*dims));
    int rank = 0;

    if (strstr(text, "...") != NULL)
        return DR_OK;
    for (const char *p = text; *p != '\0'; rank++) {
        const size_t n = strcspn(p, ",");
        char *end = NULL;
        if (rank == RANK_MAX)
            return broken(&r->s, "a shape of more than 64 sizes");
        errno = 0;
        dims[rank] = strtoll(p, &end, 10);
        if (errno != 0 || end == p || end != p + n || dims[rank] < 0)
            dims[rank] = -1; /* "?", "1..10" */
        p += n + (p[n] == ',');
    }
    r->value->dims = dims;
    r->value->rank = rank;
    return DR_OK;
}

static dr_status begin_part(reader *r, const tag *t)
{
    dr_status st = DR_OK;

    (void)memcpy(r->part, t->name, strlen(t->name) + 1);
    if (r->value == NULL || !r->is_input || strcmp(t->name, "data") != 0)
        return DR_OK;
    const char *shape = attr(&r->s, r->a, t, "shape");
    if (shape == NULL)
        DR_TRY(broken(&r->s, "a Parameter without a shape"));
    DR_TRY(set_shape(r, shape));
    DR_TRY(set_type(r, attr(&r->s, r->a, t, "element_type")));
    r->value->shape = attr_span(&r->s, t, "shape");
done:
    return st;
}

static dr_status begin_port(reader *r, const tag *t)
{
    const char *names = attr(&r->s, r->a, t, "names");
    const char *id = attr(&r->s, r->a, t, "id");
    const bool output = strcmp(r->part, "output") == 0;
    dr_status st = DR_OK;

    r->rank = 0;
    if (output && names != NULL && id != NULL)
        json_object_set_new(r->ports, dr_arena_printf(r->a, "%s:%s", r->layer, id),
                            json_string(names));
    if (r->value == NULL || output != r->is_input)
        return DR_OK;
    if (r->is_input) {
        r->value->name = first_name(r->a, names);
        r->value->names = attr_span(&r->s, t, "names");
        r->value->tag_end = t->to;
    } else {
        DR_TRY(set_type(r, attr(&r->s, r->a, t, "precision")));
    }
done:
    return st;
}

/* <dim>N</dim>, of which the first tag was read. */
static dr_status take_dim(reader *r, const tag *t)
{
    char *end = NULL;

    if (r->value == NULL || (strcmp(r->part, "output") == 0) != r->is_input)
        return DR_OK;
    if (r->rank == RANK_MAX)
        return broken(&r->s, "a shape of more than 64 sizes");
    if (r->value->port_dims.to == 0)
        r->value->port_dims.from = t->from - strlen("<dim");
    errno = 0; /* a text ends before the next tag: see pass_ir_parse */
    const int64_t size = strtoll(r->s.text + r->s.at, &end, 10);
    r->dims[r->rank++] = errno == 0 && end != NULL && *end == '<' && size >= 0 ? size : -1;
    return DR_OK;
}

static void end_port(reader *r)
{
    if (r->value == NULL || r->is_input || r->rank == 0 || strcmp(r->part, "input") != 0)
        return;
    r->value->dims = memcpy(dr_arena_alloc(r->a, (size_t)r->rank, sizeof(int64_t)), r->dims,
                            (size_t)r->rank * sizeof(int64_t));
    r->value->rank = r->rank;
}

static void take_edge(reader *r, const tag *t)
{
    const char *to = attr(&r->s, r->a, t, "to-layer");
    const char *from = attr(&r->s, r->a, t, "from-layer");
    const char *port = attr(&r->s, r->a, t, "from-port");
    pass_ir *o = r->out;

    for (size_t i = 0; to != NULL && from != NULL && port != NULL && i < o->output_count;
         i++) {
        if (o->outputs[i].name != NULL || strcmp(r->result_layers[i], to) != 0)
            continue;
        const char *key = dr_arena_printf(r->a, "%s:%s", from, port);
        o->outputs[i].name =
            first_name(r->a, json_string_value(json_object_get(r->ports, key)));
    }
}

static dr_status take_tag(reader *r, const tag *t)
{
    scan *s = &r->s;
    const bool layer = t->depth >= LAYER_DEPTH && strcmp(s->open[1], "layers") == 0;
    dr_status st = DR_OK;

    if (t->opens && t->depth == 1 && strcmp(t->name, "net") != 0)
        DR_TRY(broken(s, "its root is not <net>"));
    if (t->opens && t->depth == LAYER_DEPTH && strcmp(t->name, "edge") == 0 &&
        strcmp(s->open[1], "edges") == 0)
        take_edge(r, t);
    if (t->opens && t->depth == LAYER_DEPTH && strcmp(t->name, "Runtime_version") == 0)
        r->out->version = attr(s, r->a, t, "value");
    if (layer && t->opens && t->depth == LAYER_DEPTH && strcmp(t->name, "layer") == 0)
        begin_layer(r, t);
    else if (layer && t->opens && t->depth == PART_DEPTH)
        DR_TRY(begin_part(r, t));
    else if (layer && t->opens && t->depth == PORT_DEPTH && strcmp(t->name, "port") == 0)
        DR_TRY(begin_port(r, t));
    else if (layer && t->opens && t->depth == DIM_DEPTH && strcmp(t->name, "dim") == 0)
        DR_TRY(take_dim(r, t));
    if (t->closes && t->depth == DIM_DEPTH && r->value != NULL && r->is_input &&
        strcmp(t->name, "dim") == 0 && r->value->port_dims.from != 0)
        r->value->port_dims.to = t->to + 1;
    if (t->closes && t->depth == PORT_DEPTH && strcmp(t->name, "port") == 0)
        end_port(r);
done:
    return st;
}

dr_status pass_ir_parse(pass_ir *out, dr_arena *a, const char *text, size_t n,
                        const char *where)
{
    reader *r = dr_calloc(1, sizeof(*r));
    tag t = {0};
    bool some = true;
    dr_status st = DR_OK;

    *out = (pass_ir){0};
    r->s = (scan){.text = text, .n = n, .where = where};
    r->a = a;
    r->out = out;
    r->ports = json_object();
    DR_TRY(next_tag(&r->s, &t, &some));
    if (!some)
        DR_TRY(broken(&r->s, "there is no element in it"));
    while (some) {
        DR_TRY(take_tag(r, &t));
        DR_TRY(next_tag(&r->s, &t, &some));
    }
    if (r->s.depth > 0)
        DR_TRY(broken(&r->s, "it ends before its elements do"));
    if (out->output_count == 0)
        DR_TRY(broken(&r->s, "it has no Result"));
    for (size_t i = 0; i < out->input_count + out->output_count; i++)
        if ((i < out->input_count ? out->inputs[i] : out->outputs[i - out->input_count])
                .type == 0)
            DR_TRY(broken(&r->s, "an input or output without a type"));
done:
    json_decref(r->ports);
    free(r);
    return st;
}

dr_status pass_ir_read(pass_ir *out, dr_arena *a, const char *path)
{
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, FILE_BYTES); /* a zero byte follows its text: numbers end there */
    DR_TRY(dr_read_file(&b, path));
    DR_TRY(pass_ir_parse(out, a, b.data, b.len, path));
done:
    dr_buf_release(&b);
    return st;
}

const char *pass_ir_weights(dr_arena *a, const char *xml)
{
    return dr_arena_printf(a, "%.*s.bin", (int)(strlen(xml) - strlen(".xml")), xml);
}

dr_status pass_openvino_folders(const pass_job *job, const char *dir, const char *from)
{
    static const char *const names[] = {"openvino_tokenizer", "openvino_detokenizer"};
    dr_status st = DR_OK;

    for (size_t i = 0; i < DR_COUNT(names); i++) {
        const char *folder = dr_path_join(job->arena, from, names[i]);
        if (dr_is_dir(folder))
            DR_TRY(dr_place_tree(dr_path_join(job->arena, dir, names[i]), folder));
    }
done:
    return st;
}
