/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The section format, little-endian throughout:
 *
 *   section:  u32 version, record...                          to the end of the section
 *   record:   u8 name length, name, u8 kind, u32 payload size, payload
 *   payload:  UINT    u8 element size, elements
 *             BYTES   the bytes
 *             STRUCT  per element: u32 size, record...
 *             SECTION record...
 *
 * Records come in table order, so one walk of the table finds missing, doubled and unknown ones alike. Recursion is
 * as deep as the table, whatever the stream says. A load fills a shadow copy first; only when all of it was good are
 * the table's fields, and nothing else of the object, copied over.
 */
#include "state/state.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"

static void *at(const void *obj, const struct state_field *f, uint32_t i)
{
    return (char *)obj + f->offset + (size_t)i * f->size;
}

static uint64_t load_uint(const void *p, uint32_t size)
{
    uint8_t v8;
    uint16_t v16;
    uint32_t v32;
    uint64_t v64;
    switch (size) {
    case 1: memcpy(&v8, p, 1); return v8;
    case 2: memcpy(&v16, p, 2); return v16;
    case 4: memcpy(&v32, p, 4); return v32;
    case 8: memcpy(&v64, p, 8); return v64;
    default: abort();           /* a table of ours is wrong */
    }
}

static void store_uint(void *p, uint32_t size, uint64_t v)
{
    uint8_t v8 = (uint8_t)v;
    uint16_t v16 = (uint16_t)v;
    uint32_t v32 = (uint32_t)v;
    switch (size) {
    case 1: memcpy(p, &v8, 1); break;
    case 2: memcpy(p, &v16, 2); break;
    case 4: memcpy(p, &v32, 4); break;
    case 8: memcpy(p, &v, 8); break;
    default: abort();
    }
}

static void reset_field(const struct state_field *f, void *obj)
{
    if (f->keep) {
        return;
    }
    switch (f->kind) {
    case STATE_K_UINT:
        for (uint32_t i = 0; i < f->count; i++) {
            store_uint(at(obj, f, i), f->size, f->reset);
        }
        break;
    case STATE_K_BYTES:
        memset(at(obj, f, 0), (int)f->reset, f->count);
        break;
    case STATE_K_STRUCT:
        for (uint32_t i = 0; i < f->count; i++) {
            state_reset(f->sub, at(obj, f, i));
        }
        break;
    case STATE_K_SECTION:
        state_reset(f->sub, obj);
        break;
    case STATE_K_END:
        break;
    }
}

void state_reset(const struct state_field *fields, void *obj)
{
    for (const struct state_field *f = fields; f->kind != STATE_K_END; f++) {
        reset_field(f, obj);
    }
}

static void save_fields(const struct state_field *fields, const void *obj, struct buf *out);

/* Leaves room for a size and returns where; end_size() fills it with what was added since. */
static size_t begin_size(struct buf *out)
{
    buf_add_le32(out, 0);
    return out->len;
}

static void end_size(struct buf *out, size_t start)
{
    assert(out->len - start <= UINT32_MAX);
    store_le32(out->data + start - 4, (uint32_t)(out->len - start));
}

static void save_uints(const struct state_field *f, const void *obj, struct buf *out)
{
    buf_add_u8(out, (uint8_t)f->size);
    for (uint32_t i = 0; i < f->count; i++) {
        uint8_t le[8];
        store_le64(le, load_uint(at(obj, f, i), f->size));
        buf_add(out, le, f->size);
    }
}

static void save_field(const struct state_field *f, const void *obj, struct buf *out)
{
    size_t name_len = strlen(f->name), start;
    if (f->kind == STATE_K_SECTION && f->needed && !f->needed(obj)) {
        return;
    }
    assert(name_len > 0 && name_len <= UINT8_MAX);
    buf_add_u8(out, (uint8_t)name_len);
    buf_add(out, f->name, name_len);
    buf_add_u8(out, (uint8_t)f->kind);
    start = begin_size(out);
    switch (f->kind) {
    case STATE_K_UINT:
        save_uints(f, obj, out);
        break;
    case STATE_K_BYTES:
        buf_add(out, at(obj, f, 0), f->count);
        break;
    case STATE_K_STRUCT:
        for (uint32_t i = 0; i < f->count; i++) {
            size_t element = begin_size(out);
            save_fields(f->sub, at(obj, f, i), out);
            end_size(out, element);
        }
        break;
    case STATE_K_SECTION:
        save_fields(f->sub, obj, out);
        break;
    case STATE_K_END:
        break;
    }
    end_size(out, start);
}

static void save_fields(const struct state_field *fields, const void *obj, struct buf *out)
{
    for (const struct state_field *f = fields; f->kind != STATE_K_END; f++) {
        save_field(f, obj, out);
    }
}

void state_save(const struct state_field *fields, const void *obj, uint32_t version, struct buf *out)
{
    buf_add_le32(out, version);
    save_fields(fields, obj, out);
}

/* What is left of the enclosing payload, and the section's version. */
struct reader {
    const uint8_t *p;
    size_t left;
    uint32_t version;
};

struct record {
    char name[UINT8_MAX + 1];
    uint8_t kind;
    struct reader body;
};

static const uint8_t *take(struct reader *r, size_t n)
{
    if (n > r->left) {
        return NULL;
    }
    const uint8_t *p = r->p;
    r->p += n;
    r->left -= n;
    return p;
}

/* A u32 size and that many bytes. */
static bool take_sized(struct reader *r, struct reader *body)
{
    const uint8_t *p = take(r, 4);
    uint32_t size = p ? load_le32(p) : 0;
    const uint8_t *data = p ? take(r, size) : NULL;
    *body = (struct reader){ data, size, r->version };
    return data;
}

static bool take_record(struct reader *r, struct record *rec, struct err *err)
{
    const uint8_t *len = take(r, 1);
    const uint8_t *name = len && *len ? take(r, *len) : NULL;
    const uint8_t *kind = name ? take(r, 1) : NULL;
    if (!kind || !take_sized(r, &rec->body)) {
        return err_set(err, ERR_INVALID, "state is truncated or damaged");
    }
    memcpy(rec->name, name, *len);
    rec->name[*len] = 0;
    rec->kind = *kind;
    /* A zero byte inside would let a longer name pass for a shorter one. */
    return strlen(rec->name) == *len || err_set(err, ERR_INVALID, "state has a field with a damaged name");
}

static bool load_fields(const struct state_field *fields, void *obj, struct reader r, struct err *err);

static bool load_uints(const struct state_field *f, void *obj, struct reader r, struct err *err)
{
    const uint8_t *size = take(&r, 1);
    if (!size || *size != f->size || r.left != (size_t)f->size * f->count) {
        return err_set(err, ERR_INVALID, "field '%s' must be %u integers of %u bytes", f->name, f->count, f->size);
    }
    uint64_t max = f->max ? f->max : f->is_bool ? 1 : UINT64_MAX;
    for (uint32_t i = 0; i < f->count; i++) {
        uint8_t le[8] = { 0 };
        memcpy(le, r.p + (size_t)i * f->size, f->size);
        uint64_t v = load_le64(le);
        if (v > max) {
            return err_set(err, ERR_INVALID, "field '%s' is %" PRIu64 ", at most %" PRIu64 " is possible", f->name, v, max);
        }
        store_uint(at(obj, f, i), f->size, v);
    }
    return true;
}

static bool load_structs(const struct state_field *f, void *obj, struct reader r, struct err *err)
{
    for (uint32_t i = 0; i < f->count; i++) {
        struct reader body;
        if (!take_sized(&r, &body)) {
            return err_set(err, ERR_INVALID, "field '%s' has fewer than %u elements", f->name, f->count);
        }
        if (!load_fields(f->sub, at(obj, f, i), body, err)) {
            return f->count > 1 ? err_prefix(err, "%s[%u]: ", f->name, i) : err_prefix(err, "%s: ", f->name);
        }
    }
    return r.left == 0 || err_set(err, ERR_INVALID, "field '%s' has more than %u elements", f->name, f->count);
}

static bool load_field(const struct state_field *f, void *obj, const struct record *rec, struct err *err)
{
    if (rec->kind != f->kind) {
        return err_set(err, ERR_INVALID, "field '%s' is of another kind", f->name);
    }
    switch (f->kind) {
    case STATE_K_UINT:
        return load_uints(f, obj, rec->body, err);
    case STATE_K_BYTES:
        if (rec->body.left != f->count) {
            return err_set(err, ERR_INVALID, "field '%s' must be %u bytes", f->name, f->count);
        }
        memcpy(at(obj, f, 0), rec->body.p, f->count);
        return true;
    case STATE_K_STRUCT:
        return load_structs(f, obj, rec->body, err);
    case STATE_K_SECTION:
        return load_fields(f->sub, obj, rec->body, err) || err_prefix(err, "%s: ", f->name);
    case STATE_K_END:
        break;
    }
    return false;
}

static bool may_be_absent(const struct state_field *f, uint32_t version)
{
    return f->since > version || (f->kind == STATE_K_SECTION && f->needed);
}

static bool load_fields(const struct state_field *fields, void *obj, struct reader r, struct err *err)
{
    const struct state_field *f = fields;
    while (r.left) {
        struct record rec;
        if (!take_record(&r, &rec, err)) {
            return false;
        }
        for (; f->kind != STATE_K_END && strcmp(f->name, rec.name) != 0; f++) {
            if (!may_be_absent(f, r.version)) {
                return err_set(err, ERR_INVALID, "field '%s' is expected, not '%s'", f->name, rec.name);
            }
            reset_field(f, obj);
        }
        if (f->kind == STATE_K_END) {
            return err_set(err, ERR_INVALID, "unknown field '%s'", rec.name);
        }
        if (!load_field(f, obj, &rec, err)) {
            return false;
        }
        f++;
    }
    for (; f->kind != STATE_K_END; f++) {
        if (!may_be_absent(f, r.version)) {
            return err_set(err, ERR_INVALID, "field '%s' is missing", f->name);
        }
        reset_field(f, obj);
    }
    return true;
}

static void copy_fields(const struct state_field *fields, void *to, const void *from)
{
    for (const struct state_field *f = fields; f->kind != STATE_K_END; f++) {
        if (f->kind == STATE_K_SECTION) {
            copy_fields(f->sub, to, from);
        } else if (f->kind == STATE_K_STRUCT) {
            for (uint32_t i = 0; i < f->count; i++) {
                copy_fields(f->sub, at(to, f, i), at(from, f, i));
            }
        } else {
            memcpy(at(to, f, 0), at(from, f, 0), (size_t)f->size * f->count);
        }
    }
}

static bool fits(const struct state_field *fields, size_t obj_size)
{
    for (const struct state_field *f = fields; f->kind != STATE_K_END; f++) {
        if (f->kind == STATE_K_SECTION ? !fits(f->sub, obj_size)
                                       : !range_ok(f->offset, (uint64_t)f->size * f->count, obj_size)) {
            return false;
        }
        if (f->kind == STATE_K_STRUCT && !fits(f->sub, f->size)) {
            return false;
        }
    }
    return true;
}

bool state_load(const struct state_field *fields, void *obj, size_t obj_size, uint32_t version, const uint8_t *data, size_t len,
                struct err *err)
{
    struct reader r = { data, len, 0 };
    assert(fits(fields, obj_size));
    const uint8_t *p = take(&r, 4);
    if (!p) {
        return err_set(err, ERR_INVALID, "state is truncated");
    }
    r.version = load_le32(p);
    if (r.version == 0 || r.version > version) {
        return err_set(err, ERR_UNSUPPORTED, "state version %u, at most %u is understood", r.version, version);
    }
    AUTO_FREE void *shadow = alloc0(obj_size);
    memcpy(shadow, obj, obj_size);
    if (!load_fields(fields, shadow, r, err)) {
        return false;
    }
    copy_fields(fields, obj, shadow);
    return true;
}

static struct json_object *inspect_uint(const struct state_field *f, const void *p)
{
    uint64_t v = load_uint(p, f->size);
    return f->is_bool ? json_object_new_boolean(v != 0) : json_object_new_uint64(v);
}

static struct json_object *inspect_bytes(const struct state_field *f, const void *obj)
{
    static const char hex[] = "0123456789abcdef";
    const uint8_t *p = at(obj, f, 0);
    AUTO_FREE char *s = alloc0(2 * (size_t)f->count + 1);
    for (uint32_t i = 0; i < f->count; i++) {
        s[2 * i] = hex[p[i] >> 4];
        s[2 * i + 1] = hex[p[i] & 15];
    }
    return json_object_new_string(s);
}

static struct json_object *inspect_element(const struct state_field *f, const void *p)
{
    return f->kind == STATE_K_UINT ? inspect_uint(f, p) : state_inspect(f->sub, p);
}

static struct json_object *inspect_field(const struct state_field *f, const void *obj)
{
    if (f->kind == STATE_K_BYTES) {
        return inspect_bytes(f, obj);
    }
    if (f->kind == STATE_K_SECTION) {
        return state_inspect(f->sub, obj);
    }
    if (f->count == 1) {
        return inspect_element(f, at(obj, f, 0));
    }
    struct json_object *a = json_object_new_array();
    for (uint32_t i = 0; i < f->count; i++) {
        json_object_array_add(a, inspect_element(f, at(obj, f, i)));
    }
    return a;
}

struct json_object *state_inspect(const struct state_field *fields, const void *obj)
{
    struct json_object *o = json_object_new_object();
    for (const struct state_field *f = fields; f->kind != STATE_K_END; f++) {
        if (f->kind == STATE_K_SECTION && f->needed && !f->needed(obj)) {
            continue;
        }
        json_object_object_add(o, f->name, inspect_field(f, obj));
    }
    return o;
}
