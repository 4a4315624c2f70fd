/*
 * shared_tools.c - drupe shared-cache: what a shared place has, and taking it away.
 *
 * A manifest goes first, so that nobody is promised a content that goes next.  A run that
 * sends an entry meanwhile may count on a content that goes: its entry is then not taken by
 * others, with a line that says so, until one of them sends it again.
 */
#include <string.h>

#include "core/json.h"
#include "core/mem.h"
#include "flow/shared_cache_impl.h"

enum { LEAST_DIGITS = 8 };

typedef struct {
    char key[DR_SHA256_HEX];
    shared_manifest m;
    bool broken, chosen;
} shared_entry;

typedef struct {
    net_store *store; /* owned */
    shared_entry *list;
    size_t count;
    dr_arena a;
} look;

static bool is_entry(const char *name)
{
    return strspn(name, "0123456789abcdef") == DR_SHA256_HEX - 1 &&
           strcmp(name + DR_SHA256_HEX - 1, ".json") == 0;
}

static dr_status read_entry(shared_entry *e, bool *there, look *l)
{
    const char *name = shared_entry_name(&l->a, e->key);
    dr_buf b;
    dr_status st = DR_OK;

    dr_buf_init(&b, SHARED_MANIFEST_BYTES);
    DR_TRY(net_store_read(l->store, there, &b, name));
    if (*there && shared_parse(&e->m, &l->a, b.data, b.len, e->key, name) != DR_OK) {
        e->broken = true;
        e->m = (shared_manifest){.count = 0};
        dr_trail_clear();
    }
done:
    dr_buf_release(&b);
    return st;
}

static dr_status check_hash(const flow_shared_options *o, bool lists)
{
    const char *h = o->model_hash;
    const size_t n = h != NULL ? strlen(h) : 0;
    const size_t least = lists ? LEAST_DIGITS : DR_SHA256_HEX - 1;

    if (h == NULL && !lists)
        return dr_fail(DR_EUSAGE,
                       "a web server has no listing: model_hash names one entry by all of "
                       "its 64 digits");
    if (h != NULL &&
        (strspn(h, "0123456789abcdef") != n || n < least || n >= DR_SHA256_HEX))
        return dr_fail(DR_EUSAGE,
                       "model_hash: expected %zu%s digits of a hash, found \"%s\"", least,
                       lists ? " to 64" : "", h);
    return DR_OK;
}

/* All entries; those that model_hash begins are chosen, or all. */
static dr_status read_entries(look *l, const flow_shared_options *o)
{
    const bool lists = net_store_lists(l->store);
    const char *hash = o->model_hash != NULL ? o->model_hash : "";
    const char **names = NULL;
    size_t n = 1, chosen = 0;
    dr_status st = DR_OK;

    if (lists)
        DR_TRY(net_store_list(l->store, &l->a, &names, &n, "entries"));
    l->list = dr_arena_alloc(&l->a, n + 1, sizeof(*l->list));
    for (size_t i = 0; i < n; i++) {
        shared_entry *e = &l->list[l->count];
        bool there = false;
        if (lists && !is_entry(names[i]))
            continue;
        memcpy(e->key, lists ? names[i] : hash, DR_SHA256_HEX - 1);
        e->chosen = strncmp(e->key, hash, strlen(hash)) == 0;
        if (!e->chosen && !o->remove) /* of those that stay the contents are asked for */
            continue;
        DR_TRY(read_entry(e, &there, l));
        l->count += there;
        chosen += there && e->chosen;
    }
    if (o->model_hash != NULL && chosen == 0)
        DR_FAIL(DR_EUSAGE, "%s: no entry's hash begins with %s", net_store_name(l->store),
                hash);
done:
    return st;
}

static dr_status tell(flow_result *out, const look *l)
{
    json_t *all = json_array();
    double sum = 0;
    size_t count = 0;
    dr_status st = DR_OK;

    json_object_set_new(out->report, "entries", all);
    for (size_t i = 0; i < l->count; i++) {
        const shared_entry *e = &l->list[i];
        const char *pass = e->m.pass != NULL ? e->m.pass : "?";
        if (!e->chosen)
            continue;
        count++;
        sum += (double)e->m.bytes;
        json_array_append_new(all, json_pack("{s:s, s:s, s:f, s:f, s:b}", "key", e->key,
                                             "pass", pass, "bytes", (double)e->m.bytes,
                                             "seconds", e->m.seconds, "broken", e->broken));
        DR_TRY(dr_buf_addf(&out->text, "%.16s %12.0f bytes %9.3f s  %s%s\n", e->key,
                           (double)e->m.bytes, e->m.seconds, pass,
                           e->broken ? "  BROKEN" : ""));
    }
    DR_TRY(dr_buf_addf(&out->text, "entries        %zu, %.0f bytes, at %s\n", count, sum,
                       net_store_name(l->store)));
    json_object_set_new(out->report, "bytes", json_real(sum));
done:
    return st;
}

/* ---- taking away ---- */

static void add_parts(json_t *set, const shared_entry *e)
{
    for (size_t i = 0; i < e->m.count; i++)
        for (size_t k = 0; k < e->m.files[i].part_count; k++)
            json_object_set_new(set, e->m.files[i].parts[k], json_true());
}

/* Contents of the chosen ones that no other one has. */
static dr_status remove_contents(look *l, size_t *gone)
{
    json_t *goes = json_object(), *stays = json_object(), *unused;
    const char *sha;
    dr_status st = DR_OK;

    for (size_t i = 0; i < l->count; i++)
        add_parts(l->list[i].chosen ? goes : stays, &l->list[i]);
    json_object_foreach(goes, sha, unused)
    {
        if (json_object_get(stays, sha) != NULL)
            continue;
        DR_TRY(net_store_delete(l->store, shared_content_name(&l->a, sha)));
        (*gone)++;
    }
done:
    json_decref(goes);
    json_decref(stays);
    return st;
}

/* Whatever is there, half of it, too. */
static dr_status remove_all(look *l, size_t *gone)
{
    static const char *const folders[] = {"entries", "figures", "content"};
    const char **names = NULL;
    size_t n = 0;
    dr_status st = DR_OK;

    for (size_t f = 0; f < DR_COUNT(folders); f++) {
        DR_TRY(net_store_list(l->store, &l->a, &names, &n, folders[f]));
        for (size_t i = 0; i < n; i++)
            DR_TRY(net_store_delete(l->store,
                                    dr_arena_printf(&l->a, "%s/%s", folders[f], names[i])));
        *gone += f == 2 ? n : 0;
    }
done:
    return st;
}

static dr_status remove_chosen(flow_result *out, look *l, bool all)
{
    const bool lists = net_store_lists(l->store);
    size_t entries = 0, contents = 0;
    dr_status st = DR_OK;

    for (size_t i = 0; i < l->count; i++) {
        if (!l->list[i].chosen)
            continue;
        DR_TRY(net_store_delete(l->store, shared_entry_name(&l->a, l->list[i].key)));
        entries++;
    }
    if (all)
        DR_TRY(remove_all(l, &contents));
    else if (lists)
        DR_TRY(remove_contents(l, &contents));
    DR_TRY(dr_buf_addf(&out->text, "taken away     %zu entries, %zu contents%s\n", entries,
                       contents,
                       lists ? ""
                             : ": a web server does not say what else has its contents, "
                               "they stay"));
    json_object_set_new(out->report, "entries_deleted", json_integer((json_int_t)entries));
    json_object_set_new(out->report, "contents_deleted",
                        json_integer((json_int_t)contents));
done:
    return st;
}

dr_status flow_look_at_shared(flow_result *out, const flow_shared_options *o)
{
    const char *url = o->url;
    look l = {.store = NULL};
    dr_status st = DR_OK;

    *out = (flow_result){.report = json_object()};
    dr_buf_init(&out->text, (size_t)64 << 20);
    if (o->account != NULL || o->container != NULL) {
        if (url != NULL)
            DR_FAIL(DR_EUSAGE, "shared_cache and account: two places");
        DR_TRY(flow_azure_url(&l.a, &url, o->account, o->container));
    }
    if (url == NULL)
        DR_FAIL(DR_EUSAGE, "no shared_cache, and no account and container");
    if (o->remove && (o->model_hash != NULL) == o->all)
        DR_FAIL(DR_EUSAGE, "delete: expected model_hash or all, and not both");
    DR_TRY(net_store_open(&l.store, url));
    DR_TRY(check_hash(o, net_store_lists(l.store)));
    DR_TRY(read_entries(&l, o));
    DR_TRY(tell(out, &l));
    if (o->remove)
        DR_TRY(remove_chosen(out, &l, o->all));
done:
    net_store_close(l.store);
    dr_arena_release(&l.a);
    return st;
}
