/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP's vocabulary: commands, their arguments and answers, events, types. One table drives argument checking, dispatch
 * (qmp/commands.c has a handler a row), query-commands and query-qmp-schema.
 */
#ifndef LODGE_SCHEMA_QMP_SCHEMA_H
#define LODGE_SCHEMA_QMP_SCHEMA_H

#include "base/json.h"

/* A member of an object type. type: "str", "int", "bool", "any", the name of an object or enum type, or "[name]". */
struct qmp_member {
    const char *name, *type;
    bool optional;
};
struct qmp_type {
    const char *name;
    const struct qmp_member *members;   /* ends with a NULL name; NULL for an enum */
    const char *const *values;          /* of an enum */
};
struct qmp_command {
    const char *name;
    const struct qmp_member *args;      /* may be NULL: none */
    const char *returns;                /* type; NULL: an empty object */
    bool before_caps;                   /* allowed before qmp_capabilities */
};
struct qmp_event {
    const char *name;
    const struct qmp_member *data;
};

extern const struct qmp_type qmp_types[];               /* end with a NULL name */
extern const struct qmp_command qmp_commands[];
extern const struct qmp_event qmp_events[];

const struct qmp_command *qmp_command_find(const char *name);
/* Unknown, missing and wrongly typed members are refused with QEMU's wording. args may be NULL. */
bool qmp_args_check(const struct qmp_command *c, struct json_object *args, struct err *err);
/* SchemaInfoList as query-qmp-schema answers it. The caller owns it. */
struct json_object *qmp_introspect(void);

#endif
