/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * json-c keeps the last of two equal keys and cuts strings at \u0000 where we read them as C strings. Two readers that
 * disagree on a text are a hole, so both are refused here. Duplicates need no second parser: in valid JSON every colon
 * outside a string is one member, so the colons of the text and the members of the tree must be equally many.
 */
#include "base/json.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

struct json_scan {
    uint64_t colons;
    size_t longest;             /* string, bytes as written */
    bool nul;                   /* a \u0000 in a string */
    bool big;                   /* an integer that json-c would clamp */
    bool foreign;               /* what is not JSON although json-c takes it: 'strings', comments, NaN, raw control bytes */
};

/* The number literal at text[i]: its end; *clamped when it is an integer outside [INT64_MIN, UINT64_MAX]. */
static size_t scan_number(const char *text, size_t len, size_t i, bool *clamped)
{
    static const char max_pos[] = "18446744073709551615", max_neg[] = "9223372036854775808";
    bool neg = text[i] == '-', integer = true;
    size_t start = i + neg, end = start;
    while (end < len && (strchr("+-.eE", text[end]) ? text[end] != 0 : text[end] >= '0' && text[end] <= '9')) {
        integer = integer && text[end] >= '0' && text[end] <= '9';
        end++;
    }
    const char *max = neg ? max_neg : max_pos;
    size_t digits = end - start, most = strlen(max);
    if (integer && (digits > most || (digits == most && memcmp(text + start, max, most) > 0))) {
        *clamped = true;
    }
    return end > i ? end : i + 1;
}

static void json_scan_text(const char *text, size_t len, struct json_scan *s)
{
    bool in_string = false;
    size_t start = 0;
    for (size_t i = 0; i < len;) {
        char c = text[i];
        if (in_string) {
            if (c == '\\') {
                s->nul = s->nul || (len - i >= 6 && memcmp(text + i + 1, "u0000", 5) == 0);
                i += 2;
                continue;
            }
            s->foreign = s->foreign || (uint8_t)c < 0x20;
            in_string = c != '"';
            s->longest = max_u64(s->longest, i - start);
        } else if (c == '"') {
            in_string = true;
            start = i + 1;
        } else if (c == '-' || (c >= '0' && c <= '9')) {
            i = scan_number(text, len, i, &s->big);
            continue;
        } else if (c == ':') {
            s->colons++;
        } else if (!strchr("{}[], \t\r\ntruefalsn", c)) {
            s->foreign = true;
        }
        i++;
    }
}

/* Members in the whole tree. Depth is bounded by the tokener. *bad when there is a number that is none. */
static uint64_t count_members(struct json_object *o, bool *bad)
{
    uint64_t n = 0;
    switch (json_object_get_type(o)) {
    case json_type_object: {
        json_object_object_foreach(o, key, val) {
            (void)key;
            n += 1 + count_members(val, bad);
        }
        break;
    }
    case json_type_array:
        for (size_t i = 0; i < json_object_array_length(o); i++) {
            n += count_members(json_object_array_get_idx(o, i), bad);
        }
        break;
    case json_type_double:
        *bad = *bad || !isfinite(json_object_get_double(o));
        break;
    default:
        break;
    }
    return n;
}

static struct json_object *tokenize(const char *text, size_t len, struct err *err)
{
    struct json_tokener *tok = json_tokener_new_ex(JSON_MAX_DEPTH);
    if (!tok) {
        err_set(err, ERR_NO_MEMORY, "out of memory for a JSON parser");
        return NULL;
    }
    json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    struct json_object *o = json_tokener_parse_ex(tok, text, (int)len);
    enum json_tokener_error e = json_tokener_get_error(tok);
    size_t at = json_tokener_get_parse_end(tok);
    if (e == json_tokener_continue) {
        /* A bare number ends only at something else: give it the end of text. */
        o = json_tokener_parse_ex(tok, "", 1);
        e = json_tokener_get_error(tok);
        at = len;
    }
    json_tokener_free(tok);
    if (e != json_tokener_success) {
        if (o) {
            json_object_put(o);
        }
        err_set(err, e == json_tokener_error_depth ? ERR_LIMIT : ERR_INVALID, "JSON: %s at byte %zu",
                e == json_tokener_continue ? "text ends too early" : json_tokener_error_desc(e), at);
        return NULL;
    }
    for (; at < len; at++) {
        if (!strchr(" \t\r\n", text[at])) {
            if (o) {
                json_object_put(o);
            }
            err_set(err, ERR_INVALID, "JSON: more text after the value, at byte %zu", at);
            return NULL;
        }
    }
    if (!o) {
        err_set(err, ERR_INVALID, "JSON: the whole text is null");
    }
    return o;
}

struct json_object *json_parse(const char *text, size_t len, struct err *err)
{
    if (len > JSON_MAX_TEXT) {
        err_set(err, ERR_LIMIT, "JSON: text of %zu bytes, at most %d are accepted", len, (int)JSON_MAX_TEXT);
        return NULL;
    }
    struct json_scan scan = { 0 };
    json_scan_text(text, len, &scan);
    if (scan.nul || memchr(text, 0, len)) {
        err_set(err, ERR_INVALID, "JSON: zero byte in the text");
        return NULL;
    }
    if (scan.longest > JSON_MAX_STRING) {
        err_set(err, ERR_LIMIT, "JSON: string of %zu bytes, at most %d are accepted", scan.longest, (int)JSON_MAX_STRING);
        return NULL;
    }
    if (scan.foreign) {
        err_set(err, ERR_INVALID, "JSON: a character that belongs to no value");
        return NULL;
    }
    if (scan.big) {
        err_set(err, ERR_INVALID, "JSON: an integer does not fit in 64 bits");
        return NULL;
    }
    struct json_object *o = tokenize(text, len, err);
    if (!o) {
        return NULL;
    }
    bool bad_number = false;
    uint64_t members = count_members(o, &bad_number);
    if (members != scan.colons || bad_number) {
        json_object_put(o);
        err_set(err, ERR_INVALID, bad_number ? "JSON: a number is out of range" : "JSON: a key appears twice in one object");
        return NULL;
    }
    return o;
}

/* 1: there and of the type, 0: absent, -1: err set. */
static int member(struct json_object *o, const char *key, enum json_type type, struct json_object **out, struct err *err)
{
    struct json_object *v;
    if (!json_object_is_type(o, json_type_object)) {
        err_set(err, ERR_INVALID, "an object with '%s' is expected, not %s", key, json_type_to_name(json_object_get_type(o)));
        return -1;
    }
    if (!json_object_object_get_ex(o, key, &v)) {
        return 0;
    }
    if (!json_object_is_type(v, type)) {
        err_set(err, ERR_INVALID, "'%s' must be %s %s, not %s", key, strchr("aio", *json_type_to_name(type)) ? "an" : "a",
                json_type_to_name(type), json_type_to_name(json_object_get_type(v)));
        return -1;
    }
    *out = v;
    return 1;
}

bool json_get_str(struct json_object *o, const char *key, const char **out, struct err *err)
{
    struct json_object *v;
    int r = member(o, key, json_type_string, &v, err);
    if (r > 0) {
        *out = json_object_get_string(v);
    }
    return r >= 0;
}

bool json_get_bool(struct json_object *o, const char *key, bool *out, struct err *err)
{
    struct json_object *v;
    int r = member(o, key, json_type_boolean, &v, err);
    if (r > 0) {
        *out = json_object_get_boolean(v);
    }
    return r >= 0;
}

bool json_get_u64(struct json_object *o, const char *key, uint64_t *out, struct err *err)
{
    struct json_object *v;
    int r = member(o, key, json_type_int, &v, err);
    if (r <= 0) {
        return r == 0;
    }
    /* json-c reads a negative number as 0 when asked for an unsigned one: look at it as signed first. */
    if (json_object_get_int64(v) < 0) {
        return err_set(err, ERR_INVALID, "'%s' must not be negative", key);
    }
    *out = json_object_get_uint64(v);
    return true;
}

bool json_get_obj(struct json_object *o, const char *key, struct json_object **out, struct err *err)
{
    return member(o, key, json_type_object, out, err) >= 0;
}

bool json_get_array(struct json_object *o, const char *key, struct json_object **out, struct err *err)
{
    return member(o, key, json_type_array, out, err) >= 0;
}
