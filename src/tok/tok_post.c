/*
 * tok_post.c - post-processors: ids put before and after the text.
 *
 * Of TemplateProcessing the template for single texts counts; the text must stand in it
 * once.  BertProcessing and RobertaProcessing are such templates with their pieces named
 * cls and sep: for one text both put cls before and sep after it.  ByteLevel only moves
 * offsets, which drupe has not.  In a Sequence a later template
 * goes around an earlier one.
 */
#include <stdlib.h>
#include <string.h>

#include "tok/tok_impl.h"

static dr_status room_for_more(const tok_ids *ids, const char *where)
{
    if (ids->count < TOK_AROUND_LIMIT)
        return DR_OK;
    return dr_fail(DR_EFORMAT, "%s: post_processor: more than %d ids around a text", where,
                   TOK_AROUND_LIMIT);
}

static dr_status special_ids(tok_ids *out, const json_t *specials, const char *name,
                             const char *where)
{
    const json_t *ids = json_object_get(json_object_get(specials, name), "ids");
    const json_t *id = NULL;
    size_t i = 0;
    dr_status st = DR_OK;

    if (!json_is_array(ids))
        DR_FAIL(DR_EFORMAT, "%s: post_processor: no ids for \"%s\"", where, name);
    json_array_foreach(ids, i, id)
    {
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= TOK_ID_LIMIT)
            DR_FAIL(DR_EFORMAT, "%s: post_processor: ids of \"%s\"", where, name);
        DR_TRY(room_for_more(out, where));
        DR_TRY(tok_ids_add(out, (int32_t)value));
    }
done:
    return st;
}

/* Ids of the pieces before the text into before, after it into after. */
static dr_status read_template(tok_post *p, const json_t *spec, const char *where)
{
    const json_t *single = json_object_get(spec, "single"), *piece = NULL;
    const json_t *specials = json_object_get(spec, "special_tokens");
    size_t texts = 0, i = 0;
    dr_status st = DR_OK;

    if (!json_is_array(single))
        DR_FAIL(DR_EFORMAT, "%s: post_processor: single: expected an array, found %s",
                where, dr_json_type(single));
    json_array_foreach(single, i, piece)
    {
        const json_t *special = json_object_get(piece, "SpecialToken");
        const json_t *text = json_object_get(piece, "Sequence");
        const char *id = "";
        DR_TRY(dr_json_str(special != NULL ? special : text, "id", &id, where));
        if (special != NULL)
            DR_TRY(special_ids(texts == 0 ? &p->before : &p->after, specials, id, where));
        else if (text != NULL && strcmp(id, "A") == 0)
            texts++;
        else
            DR_FAIL(DR_EFORMAT, "%s: post_processor: single[%zu] is no piece", where, i);
    }
    if (texts != 1)
        DR_FAIL(DR_EUNSUPPORTED, "%s: post_processor: a template with the text %zu times",
                where, texts);
done:
    return st;
}

/* "sep": ["</s>", 2] */
static dr_status named_id(tok_ids *out, const json_t *spec, const char *key,
                          const char *where)
{
    const json_t *pair = json_object_get(spec, key), *id = json_array_get(pair, 1);
    const json_int_t value = json_integer_value(id);

    if (!json_is_string(json_array_get(pair, 0)) || !json_is_integer(id) || value < 0 ||
        value >= TOK_ID_LIMIT)
        return dr_fail(DR_EFORMAT, "%s: post_processor: %s: expected a piece and its id",
                       where, key);
    return tok_ids_add(out, (int32_t)value);
}

static dr_status read_pair(tok_post *p, const json_t *spec, const char *where)
{
    dr_status st = DR_OK;

    DR_TRY(named_id(&p->before, spec, "cls", where));
    DR_TRY(named_id(&p->after, spec, "sep", where));
done:
    return st;
}

static dr_status append(tok_ids *out, const tok_ids *ids, const char *where)
{
    dr_status st = DR_OK;

    for (size_t i = 0; i < ids->count; i++) {
        DR_TRY(room_for_more(out, where));
        DR_TRY(tok_ids_add(out, ids->ids[i]));
    }
done:
    return st;
}

/* p goes inside the new template. */
static dr_status wrap(tok_post *p, const json_t *spec, bool template, const char *where)
{
    tok_post around = {0};
    dr_status st = DR_OK;

    DR_TRY((template ? read_template : read_pair)(&around, spec, where));
    DR_TRY(append(&around.before, &p->before, where));
    DR_TRY(append(&p->after, &around.after, where));
    const tok_ids inner = p->before;
    p->before = around.before;
    around.before = inner;
done:
    tok_post_release(&around);
    return st;
}

dr_status tok_post_open(tok_post *p, const json_t *spec, const char *where)
{
    const char *type = "";
    const json_t *part = NULL;
    size_t i = 0;
    dr_status st = DR_OK;

    if (spec == NULL || json_is_null(spec))
        return DR_OK;
    if (!json_is_object(spec))
        DR_FAIL(DR_EFORMAT, "%s: post_processor: expected an object, found %s", where,
                dr_json_type(spec));
    DR_TRY(dr_json_str(spec, "type", &type, where));
    if (strcmp(type, "TemplateProcessing") == 0)
        return wrap(p, spec, true, where);
    if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0)
        return wrap(p, spec, false, where);
    if (strcmp(type, "ByteLevel") == 0)
        return DR_OK;
    if (strcmp(type, "Sequence") != 0)
        DR_FAIL(DR_EUNSUPPORTED, "%s: post-processor of type \"%s\"", where, type);
    const json_t *parts = json_object_get(spec, "processors");
    if (!json_is_array(parts))
        DR_FAIL(DR_EFORMAT, "%s: processors: expected an array, found %s", where,
                dr_json_type(parts));
    json_array_foreach(parts, i, part) DR_TRY(tok_post_open(p, part, where));
done:
    return st;
}

void tok_post_release(tok_post *p)
{
    tok_ids_release(&p->before);
    tok_ids_release(&p->after);
}
