/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Field tables: the one description of an object's state. reset, save, load and inspect walk the same table.
 * Stream form of one section: self-describing, little-endian, each field by name, so that a reader can skip, default
 * and refuse by name. An incoming stream is hostile: lengths are bounded by the table before anything is copied, and a
 * field with .max is refused above it before the object sees it. On failure the object is untouched.
 */
#ifndef LODGE_STATE_STATE_H
#define LODGE_STATE_STATE_H

#include "base/buf.h"
#include "base/json.h"

enum state_kind {
    STATE_K_END,
    STATE_K_UINT,       /* unsigned or signed integer or bool of .size 1, 2, 4, 8; .count elements */
    STATE_K_BYTES,      /* opaque bytes; .count is the size */
    STATE_K_STRUCT,     /* .count elements of .size bytes each described by .sub */
    STATE_K_SECTION,    /* named subsection: .sub on the same object, present when .needed(obj) */
};

struct state_field {
    const char *name;
    enum state_kind kind;
    uint32_t offset;            /* bytes from the object */
    uint32_t size;              /* bytes an element */
    uint32_t count;             /* elements; 1 for a scalar */
    uint64_t reset;             /* every element's value after reset */
    uint64_t max;               /* 0: no bound; else largest value accepted on load */
    uint16_t since;             /* section version that introduced it; 0 and 1 mean always */
    bool keep;                  /* reset leaves it alone (e.g. a MAC address set at realize) */
    bool is_bool;               /* set by STATE and STATE_ARRAY: only 0 and 1 are loaded */
    const struct state_field *sub;
    bool (*needed)(const void *obj);
};

#define STATE_FIELD_(type, member) .name = #member, .offset = offsetof(type, member)
#define STATE_BOOL_(x) .is_bool = _Generic((x), bool: true, default: false)
/* An integer or bool member. STATE(struct x, y, .reset = 1, .max = 7) */
#define STATE(type, member, ...)                                                                        \
    { STATE_FIELD_(type, member), .kind = STATE_K_UINT, .size = sizeof(((type *)0)->member), .count = 1,   \
      STATE_BOOL_(((type *)0)->member), ##__VA_ARGS__ }
/* An array of integers. */
#define STATE_ARRAY(type, member, ...)                                                                  \
    { STATE_FIELD_(type, member), .kind = STATE_K_UINT, .size = sizeof(((type *)0)->member[0]),         \
      .count = sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0]),                             \
      STATE_BOOL_(((type *)0)->member[0]), ##__VA_ARGS__ }
/* Opaque bytes: a fixed array or any member. */
#define STATE_BYTES(type, member, ...)                                                                  \
    { STATE_FIELD_(type, member), .kind = STATE_K_BYTES, .size = 1, .count = sizeof(((type *)0)->member), ##__VA_ARGS__ }
#define STATE_STRUCT(type, member, fields, ...)                                                         \
    { STATE_FIELD_(type, member), .kind = STATE_K_STRUCT, .size = sizeof(((type *)0)->member), .count = 1, \
      .sub = (fields), ##__VA_ARGS__ }
#define STATE_STRUCTS(type, member, fields, ...)                                                        \
    { STATE_FIELD_(type, member), .kind = STATE_K_STRUCT, .size = sizeof(((type *)0)->member[0]),       \
      .count = sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0]), .sub = (fields), ##__VA_ARGS__ }
#define STATE_SECTION(sect_name, fields, pred) { .name = (sect_name), .kind = STATE_K_SECTION, .count = 1, .sub = (fields), .needed = (pred) }
#define STATE_END { .kind = STATE_K_END }

void state_reset(const struct state_field *fields, void *obj);
void state_save(const struct state_field *fields, const void *obj, uint32_t version, struct buf *out);
/*
 * Reads one section of `len` bytes written by state_save. `version` is the newest the caller understands; the section
 * says its own. Fields newer than the section get their reset value (.keep: stay); all other fields must be there, in
 * table order, and nothing else.
 */
bool state_load(const struct state_field *fields, void *obj, size_t obj_size, uint32_t version, const uint8_t *data, size_t len, struct err *err);
/* A JSON object with a member a field. The caller owns it. */
struct json_object *state_inspect(const struct state_field *fields, const void *obj);

#endif
