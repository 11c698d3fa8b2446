/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON on json-c: bounded parsing and typed member access. Values are json-c objects; json_put releases one.
 * Bounds: depth 64, one string 1 MiB, one text 4 MiB, duplicate keys refused. docs/security.md has the limits.
 */
#ifndef LODGE_BASE_JSON_H
#define LODGE_BASE_JSON_H

#include <json-c/json.h>

#include "base/err.h"

enum { JSON_MAX_DEPTH = 64, JSON_MAX_STRING = MIB, JSON_MAX_TEXT = 4 * MIB };

/* One complete value and nothing after it but white space. NULL with err. */
struct json_object *json_parse(const char *text, size_t len, struct err *err);
/* Each: false with err when the member is there with another type. Absent: true, *out untouched. */
bool json_get_str(struct json_object *o, const char *key, const char **out, struct err *err);
bool json_get_bool(struct json_object *o, const char *key, bool *out, struct err *err);
bool json_get_u64(struct json_object *o, const char *key, uint64_t *out, struct err *err);
bool json_get_obj(struct json_object *o, const char *key, struct json_object **out, struct err *err);
bool json_get_array(struct json_object *o, const char *key, struct json_object **out, struct err *err);

static inline void auto_json_fn(struct json_object **o)
{
    if (*o) {
        json_object_put(*o);
    }
}
#define AUTO_JSON __attribute__((cleanup(auto_json_fn)))

#endif
