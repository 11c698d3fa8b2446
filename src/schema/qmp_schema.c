/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "schema/qmp_schema.h"

#include <string.h>

#define MEMBERS(...) (const struct qmp_member[]){ __VA_ARGS__, { NULL, NULL, false } }
#define VALUES(...) (const char *const[]){ __VA_ARGS__, NULL }

const struct qmp_type qmp_types[] = {
    { "VersionTriple", MEMBERS({ "major", "int" }, { "minor", "int" }, { "micro", "int" }), NULL },
    { "VersionInfo", MEMBERS({ "qemu", "VersionTriple" }, { "package", "str" }), NULL },
    { "RunState", NULL, VALUES("prelaunch", "running", "paused", "shutdown", "guest-panicked", "internal-error") },
    { "StatusInfo", MEMBERS({ "running", "bool" }, { "singlestep", "bool" }, { "status", "RunState" }), NULL },
    { "CommandInfo", MEMBERS({ "name", "str" }), NULL },
    { "NameInfo", MEMBERS({ "name", "str", true }), NULL },
    { "UuidInfo", MEMBERS({ "UUID", "str" }), NULL },
    { "KvmInfo", MEMBERS({ "enabled", "bool" }, { "present", "bool" }), NULL },
    { "SysEmuTarget", NULL, VALUES("x86_64") },
    { "CpuInstanceProperties", MEMBERS({ "socket-id", "int", true }, { "core-id", "int", true }, { "thread-id", "int", true }), NULL },
    { "CpuInfoFast", MEMBERS({ "cpu-index", "int" }, { "qom-path", "str" }, { "thread-id", "int" }, { "props", "CpuInstanceProperties", true }, { "target", "SysEmuTarget" }), NULL },
    { "MemoryInfo", MEMBERS({ "base-memory", "int" }, { "plugged-memory", "int", true }), NULL },
    { "AddfdInfo", MEMBERS({ "fdset-id", "int" }, { "fd", "int" }), NULL },
    { "FdsetFdInfo", MEMBERS({ "fd", "int" }, { "opaque", "str", true }), NULL },
    { "FdsetInfo", MEMBERS({ "fdset-id", "int" }, { "fds", "[FdsetFdInfo]" }), NULL },
    { "ShutdownCause", NULL, VALUES("none", "host-error", "host-qmp-quit", "host-qmp-system-reset", "host-signal", "guest-shutdown", "guest-reset", "guest-panic") },
    { "GuestPanicAction", NULL, VALUES("pause", "poweroff", "run") },
    { NULL, NULL, NULL }
};

const struct qmp_command qmp_commands[] = {
    { "qmp_capabilities", MEMBERS({ "enable", "[str]", true }), NULL, true },
    { "query-version", NULL, "VersionInfo", false },
    { "query-status", NULL, "StatusInfo", false },
    { "query-commands", NULL, "[CommandInfo]", false },
    { "query-qmp-schema", NULL, "[any]", false },
    { "query-cpus-fast", NULL, "[CpuInfoFast]", false },
    { "query-name", NULL, "NameInfo", false },
    { "query-uuid", NULL, "UuidInfo", false },
    { "query-kvm", NULL, "KvmInfo", false },
    { "query-memory-size-summary", NULL, "MemoryInfo", false },
    { "stop", NULL, NULL, false },
    { "cont", NULL, NULL, false },
    { "system_reset", NULL, NULL, false },
    { "system_powerdown", NULL, NULL, false },
    { "quit", NULL, NULL, false },
    { "getfd", MEMBERS({ "fdname", "str" }), NULL, false },
    { "closefd", MEMBERS({ "fdname", "str" }), NULL, false },
    { "add-fd", MEMBERS({ "fdset-id", "int", true }, { "opaque", "str", true }), "AddfdInfo", false },
    { "remove-fd", MEMBERS({ "fdset-id", "int" }, { "fd", "int", true }), NULL, false },
    { "query-fdsets", NULL, "[FdsetInfo]", false },
    { "x-inspect", MEMBERS({ "device", "str", true }), "any", false },
    { NULL, NULL, NULL, false }
};

const struct qmp_event qmp_events[] = {
    { "SHUTDOWN", MEMBERS({ "guest", "bool" }, { "reason", "ShutdownCause" }) },
    { "RESET", MEMBERS({ "guest", "bool" }, { "reason", "ShutdownCause" }) },
    { "STOP", NULL },
    { "RESUME", NULL },
    { "POWERDOWN", NULL },
    { "GUEST_PANICKED", MEMBERS({ "action", "GuestPanicAction" }) },
    { NULL, NULL }
};

const struct qmp_command *qmp_command_find(const char *name)
{
    for (const struct qmp_command *c = qmp_commands; c->name; c++) {
        if (strcmp(c->name, name) == 0) {
            return c;
        }
    }
    return NULL;
}

static bool type_fits(const char *type, struct json_object *v)
{
    if (type[0] == '[') {
        return json_object_is_type(v, json_type_array);
    }
    if (strcmp(type, "str") == 0) {
        return json_object_is_type(v, json_type_string);
    }
    if (strcmp(type, "int") == 0) {
        return json_object_is_type(v, json_type_int);
    }
    if (strcmp(type, "bool") == 0) {
        return json_object_is_type(v, json_type_boolean);
    }
    return true;
}

static const char *type_word(const char *type)
{
    return type[0] == '[' ? "array" : strcmp(type, "str") == 0 ? "string" : strcmp(type, "int") == 0 ? "integer" : "boolean";
}

bool qmp_args_check(const struct qmp_command *c, struct json_object *args, struct err *err)
{
    if (args) {
        json_object_object_foreach(args, key, v)
        {
            const struct qmp_member *m = c->args;
            while (m && m->name && strcmp(m->name, key) != 0) {
                m++;
            }
            if (!m || !m->name) {
                return err_set(err, ERR_INVALID, "Parameter '%.64s' is unexpected", key);
            }
            if (!type_fits(m->type, v)) {
                return err_set(err, ERR_INVALID, "Invalid parameter type for '%s', expected: %s", key, type_word(m->type));
            }
        }
    }
    for (const struct qmp_member *m = c->args; m && m->name; m++) {
        if (!m->optional && (!args || !json_object_object_get_ex(args, m->name, NULL))) {
            return err_set(err, ERR_INVALID, "Parameter '%s' is missing", m->name);
        }
    }
    return true;
}

static struct json_object *schema_info(const char *name, const char *meta)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "name", json_object_new_string(name));
    json_object_object_add(o, "meta-type", json_object_new_string(meta));
    return o;
}

static void add_members(struct json_object *o, const struct qmp_member *m)
{
    struct json_object *list = json_object_new_array();
    for (; m && m->name; m++) {
        struct json_object *e = json_object_new_object();
        json_object_object_add(e, "name", json_object_new_string(m->name));
        json_object_object_add(e, "type", json_object_new_string(m->type));
        if (m->optional) {
            json_object_object_add(e, "default", NULL);
        }
        json_object_array_add(list, e);
    }
    json_object_object_add(o, "members", list);
}

static bool array_has(struct json_object *list, const char *name)
{
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        if (strcmp(json_object_get_string(json_object_object_get(json_object_array_get_idx(list, i), "name")), name) == 0) {
            return true;
        }
    }
    return false;
}

/* "[X]" is an array type of its own. */
static void add_array_type(struct json_object *list, const char *type)
{
    if (!type || type[0] != '[' || array_has(list, type)) {
        return;
    }
    struct json_object *o = schema_info(type, "array");
    AUTO_FREE char *element = str_fmt("%.*s", (int)strlen(type) - 2, type + 1);
    json_object_object_add(o, "element-type", json_object_new_string(element));
    json_object_array_add(list, o);
}

static void add_array_types(struct json_object *list, const struct qmp_member *m)
{
    for (; m && m->name; m++) {
        add_array_type(list, m->type);
    }
}

static void add_builtin(struct json_object *list, const char *name, const char *json_type)
{
    struct json_object *o = schema_info(name, "builtin");
    json_object_object_add(o, "json-type", json_object_new_string(json_type));
    json_object_array_add(list, o);
}

static void add_object(struct json_object *list, const char *name, const struct qmp_member *members)
{
    struct json_object *o = schema_info(name, "object");
    add_members(o, members);
    json_object_array_add(list, o);
    add_array_types(list, members);
}

static void add_enum(struct json_object *list, const struct qmp_type *t)
{
    struct json_object *o = schema_info(t->name, "enum"), *values = json_object_new_array(), *members = json_object_new_array();
    for (const char *const *v = t->values; *v; v++) {
        struct json_object *e = json_object_new_object();
        json_object_object_add(e, "name", json_object_new_string(*v));
        json_object_array_add(members, e);
        json_object_array_add(values, json_object_new_string(*v));
    }
    json_object_object_add(o, "members", members);
    json_object_object_add(o, "values", values);
    json_object_array_add(list, o);
}

struct json_object *qmp_introspect(void)
{
    struct json_object *list = json_object_new_array();
    for (const struct qmp_command *c = qmp_commands; c->name; c++) {
        AUTO_FREE char *args = c->args ? str_fmt("%s-arg", c->name) : str_dup("empty");
        struct json_object *o = schema_info(c->name, "command");
        json_object_object_add(o, "arg-type", json_object_new_string(args));
        json_object_object_add(o, "ret-type", json_object_new_string(c->returns ? c->returns : "empty"));
        json_object_array_add(list, o);
        if (c->args) {
            add_object(list, args, c->args);
        }
        add_array_type(list, c->returns);
    }
    for (const struct qmp_event *e = qmp_events; e->name; e++) {
        AUTO_FREE char *args = e->data ? str_fmt("%s-arg", e->name) : str_dup("empty");
        struct json_object *o = schema_info(e->name, "event");
        json_object_object_add(o, "arg-type", json_object_new_string(args));
        json_object_array_add(list, o);
        if (e->data) {
            add_object(list, args, e->data);
        }
    }
    for (const struct qmp_type *t = qmp_types; t->name; t++) {
        if (t->values) {
            add_enum(list, t);
        } else {
            add_object(list, t->name, t->members);
        }
    }
    add_object(list, "empty", NULL);
    add_builtin(list, "str", "string");
    add_builtin(list, "int", "int");
    add_builtin(list, "bool", "boolean");
    add_builtin(list, "any", "value");
    return list;
}
