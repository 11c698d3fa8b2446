/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A handler for each row of schema/qmp_schema.c. */
#include <string.h>
#include <unistd.h>

#include "qmp/qmp-int.h"

/* The release of QEMU whose vocabulary this is: clients choose what to say by it. */
enum { SPEAKS_MAJOR = 7, SPEAKS_MINOR = 2, SPEAKS_MICRO = 0 };

static struct json_object *none(void)
{
    return json_object_new_object();
}

static void add_str(struct json_object *o, const char *key, const char *value)
{
    json_object_object_add(o, key, json_object_new_string(value));
}

static void add_int(struct json_object *o, const char *key, uint64_t value)
{
    json_object_object_add(o, key, json_object_new_uint64(value));
}

static void add_bool(struct json_object *o, const char *key, bool value)
{
    json_object_object_add(o, key, json_object_new_boolean(value));
}

static struct json_object *qmp_capabilities(struct qmp_call *call, struct err *err)
{
    struct json_object *list = NULL;
    if (call->args && json_object_object_get_ex(call->args, "enable", &list) && json_object_array_length(list)) {
        struct json_object *first = json_object_array_get_idx(list, 0);
        err_set(err, ERR_INVALID, json_object_is_type(first, json_type_string) ? "Capability %.64s is not available" : "Invalid parameter type for '%s', expected: string",
                json_object_is_type(first, json_type_string) ? json_object_get_string(first) : "enable[0]");
        return NULL;
    }
    call->client->negotiated = true;
    return none();
}

static struct json_object *query_version(struct qmp_call *call, struct err *err)
{
    struct json_object *o = json_object_new_object(), *v = json_object_new_object();
    add_int(v, "micro", SPEAKS_MICRO);
    add_int(v, "minor", SPEAKS_MINOR);
    add_int(v, "major", SPEAKS_MAJOR);
    json_object_object_add(o, "qemu", v);
    add_str(o, "package", "lodge-" LODGE_VERSION);
    return o;
}

static struct json_object *query_status(struct qmp_call *call, struct err *err)
{
    struct json_object *o = json_object_new_object();
    enum machine_status status = machine_status(call->server->cfg.machine);
    add_str(o, "status", machine_status_name(status));
    add_bool(o, "singlestep", false);
    add_bool(o, "running", status == MACHINE_RUNNING);
    return o;
}

static struct json_object *query_commands(struct qmp_call *call, struct err *err)
{
    struct json_object *list = json_object_new_array();
    for (const struct qmp_command *c = qmp_commands; c->name; c++) {
        struct json_object *o = json_object_new_object();
        add_str(o, "name", c->name);
        json_object_array_add(list, o);
    }
    return list;
}

static struct json_object *query_qmp_schema(struct qmp_call *call, struct err *err)
{
    return qmp_introspect();
}

/* CPU numbers run through threads first, then cores, then sockets, as everywhere in Lodge. */
static struct json_object *query_cpus_fast(struct qmp_call *call, struct err *err)
{
    const struct vm_cpu_config *topo = &machine_config(call->server->cfg.machine)->cpu;
    struct engine *e = machine_engine(call->server->cfg.machine);
    uint64_t threads = max_u64(topo->threads, 1), cores = max_u64(topo->cores, 1);
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < topo->count; i++) {
        struct json_object *o = json_object_new_object(), *props = json_object_new_object();
        AUTO_FREE char *path = str_fmt("/machine/unattached/device[%u]", i);
        add_int(o, "thread-id", (uint64_t)e->vcpus[i].tid);
        add_int(props, "core-id", i / threads % cores);
        add_int(props, "thread-id", i % threads);
        add_int(props, "socket-id", i / (threads * cores));
        json_object_object_add(o, "props", props);
        add_str(o, "qom-path", path);
        add_int(o, "cpu-index", i);
        add_str(o, "target", "x86_64");
        json_object_array_add(list, o);
    }
    return list;
}

static struct json_object *query_name(struct qmp_call *call, struct err *err)
{
    struct json_object *o = json_object_new_object();
    const char *name = machine_config(call->server->cfg.machine)->name;
    if (name) {
        add_str(o, "name", name);
    }
    return o;
}

static struct json_object *query_uuid(struct qmp_call *call, struct err *err)
{
    struct json_object *o = json_object_new_object();
    const char *uuid = machine_config(call->server->cfg.machine)->uuid;
    add_str(o, "UUID", uuid ? uuid : "00000000-0000-0000-0000-000000000000");
    return o;
}

static struct json_object *query_kvm(struct qmp_call *call, struct err *err)
{
    struct json_object *o = json_object_new_object();
    bool enabled = strcmp(machine_engine(call->server->cfg.machine)->ops->name, "kvm") == 0;
    add_bool(o, "enabled", enabled);
    add_bool(o, "present", enabled || machine_config(call->server->cfg.machine)->kvm_fd >= 0);
    return o;
}

static struct json_object *query_memory_size_summary(struct qmp_call *call, struct err *err)
{
    struct json_object *o = json_object_new_object();
    add_int(o, "base-memory", machine_config(call->server->cfg.machine)->memory);
    add_int(o, "plugged-memory", 0);
    return o;
}

static struct json_object *stop(struct qmp_call *call, struct err *err)
{
    machine_pause(call->server->cfg.machine);
    return none();
}

static struct json_object *cont(struct qmp_call *call, struct err *err)
{
    struct machine *m = call->server->cfg.machine;
    if (machine_end(m)->over) {
        err_set(err, ERR_STATE, "Resetting the Virtual Machine is required");
        return NULL;
    }
    machine_start(m);
    return none();
}

static struct json_object *system_reset(struct qmp_call *call, struct err *err)
{
    machine_reset(call->server->cfg.machine);
    return none();
}

static struct json_object *system_powerdown(struct qmp_call *call, struct err *err)
{
    machine_powerdown(call->server->cfg.machine);
    return none();
}

/* The reply goes out first: the machine ends in a later round of the loop. */
static struct json_object *quit(struct qmp_call *call, struct err *err)
{
    call->server->quit_asked = true;
    loop_post(call->server->cfg.loop, &call->server->quit_call);
    return none();
}

static void fd_drop(struct qmp_fds *f, unsigned i)
{
    close(f->all[i].fd);
    free(f->all[i].name);
    free(f->all[i].opaque);
    f->all[i] = f->all[--f->n];
}

void qmp_fds_fini(struct qmp_fds *f)
{
    while (f->n) {
        fd_drop(f, f->n - 1);
    }
}

/* Moves the descriptor that came with the message to a new row, which the caller names. NULL with err. */
static struct qmp_fd *fd_take(struct qmp_call *call, struct err *err)
{
    struct qmp_fds *f = &call->server->fds;
    if (call->client->pending_fd < 0) {
        err_set(err, ERR_INVALID, "No file descriptor supplied via SCM_RIGHTS");
        return NULL;
    }
    if (f->n == ARRAY_SIZE(f->all)) {
        err_set(err, ERR_LIMIT, "At most %d file descriptors can be held", QMP_MAX_FDS);
        return NULL;
    }
    struct qmp_fd *fd = &f->all[f->n++];
    *fd = (struct qmp_fd){ .fd = TAKE_FD(call->client->pending_fd) };
    return fd;
}

static int fd_by_name(const struct qmp_fds *f, const char *name)
{
    for (unsigned i = 0; i < f->n; i++) {
        if (f->all[i].name && strcmp(f->all[i].name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static struct json_object *getfd(struct qmp_call *call, struct err *err)
{
    const char *name = json_object_get_string(json_object_object_get(call->args, "fdname"));
    if (call->client->pending_fd >= 0 && name[0] >= '0' && name[0] <= '9') {
        err_set(err, ERR_INVALID, "Parameter 'fdname' expects a name not starting with a digit");
        return NULL;
    }
    int old = call->client->pending_fd >= 0 ? fd_by_name(&call->server->fds, name) : -1;
    if (old >= 0) {
        fd_drop(&call->server->fds, (unsigned)old);     /* as in QEMU: the newer one replaces it */
    }
    struct qmp_fd *fd = fd_take(call, err);
    if (!fd) {
        return NULL;
    }
    fd->name = str_dup(name);
    return none();
}

static struct json_object *closefd(struct qmp_call *call, struct err *err)
{
    const char *name = json_object_get_string(json_object_object_get(call->args, "fdname"));
    int i = fd_by_name(&call->server->fds, name);
    if (i < 0) {
        err_set(err, ERR_INVALID, "File descriptor named '%.64s' not found", name);
        return NULL;
    }
    fd_drop(&call->server->fds, (unsigned)i);
    return none();
}

static bool set_exists(const struct qmp_fds *f, uint64_t set)
{
    for (unsigned i = 0; i < f->n; i++) {
        if (!f->all[i].name && f->all[i].set == set) {
            return true;
        }
    }
    return false;
}

static struct json_object *add_fd(struct qmp_call *call, struct err *err)
{
    struct qmp_fds *f = &call->server->fds;
    struct json_object *id = NULL;
    const char *opaque = NULL;
    uint64_t set = 0;
    if (call->args && json_object_object_get_ex(call->args, "fdset-id", &id)) {
        if (json_object_get_int64(id) < 0) {
            err_set(err, ERR_INVALID, "Parameter 'fdset-id' expects a non-negative value");
            return NULL;
        }
        set = (uint64_t)json_object_get_int64(id);
    }
    while (!id && set_exists(f, set)) {
        set++;                          /* the lowest free number; at most QMP_MAX_FDS steps */
    }
    struct qmp_fd *fd = fd_take(call, err);
    if (!fd) {
        return NULL;
    }
    fd->set = set;
    if (call->args && json_get_str(call->args, "opaque", &opaque, NULL) && opaque) {
        fd->opaque = str_dup(opaque);
    }
    struct json_object *o = json_object_new_object();
    add_int(o, "fd", (uint64_t)fd->fd);
    add_int(o, "fdset-id", set);
    return o;
}

static struct json_object *remove_fd(struct qmp_call *call, struct err *err)
{
    struct qmp_fds *f = &call->server->fds;
    struct json_object *fd = NULL;
    int64_t set = json_object_get_int64(json_object_object_get(call->args, "fdset-id"));
    bool found = false, one = json_object_object_get_ex(call->args, "fd", &fd);
    for (unsigned i = f->n; i-- > 0;) {
        if (!f->all[i].name && set >= 0 && f->all[i].set == (uint64_t)set && (!one || f->all[i].fd == json_object_get_int64(fd))) {
            fd_drop(f, i);              /* puts the last row here, which was looked at already */
            found = true;
        }
    }
    if (found) {
        return none();
    }
    AUTO_FREE char *what = one ? str_fmt(", fd:%lld", (long long)json_object_get_int64(fd)) : str_dup("");
    err_set(err, ERR_INVALID, "File descriptor named 'fdset-id:%lld%s' not found", (long long)set, what);
    return NULL;
}

static struct json_object *fds_of_set(const struct qmp_fds *f, uint64_t set)
{
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < f->n; i++) {
        if (!f->all[i].name && f->all[i].set == set) {
            struct json_object *o = json_object_new_object();
            add_int(o, "fd", (uint64_t)f->all[i].fd);
            if (f->all[i].opaque) {
                add_str(o, "opaque", f->all[i].opaque);
            }
            json_object_array_add(list, o);
        }
    }
    return list;
}

static struct json_object *query_fdsets(struct qmp_call *call, struct err *err)
{
    const struct qmp_fds *f = &call->server->fds;
    struct json_object *list = json_object_new_array();
    for (unsigned i = 0; i < f->n; i++) {
        bool first = !f->all[i].name;
        for (unsigned k = 0; k < i; k++) {
            first = first && (f->all[k].name || f->all[k].set != f->all[i].set);
        }
        if (first) {
            struct json_object *o = json_object_new_object();
            add_int(o, "fdset-id", f->all[i].set);
            json_object_object_add(o, "fds", fds_of_set(f, f->all[i].set));
            json_object_array_add(list, o);
        }
    }
    return list;
}

static struct json_object *x_inspect(struct qmp_call *call, struct err *err)
{
    const struct qmp_config *cfg = &call->server->cfg;
    const char *dev = NULL;
    if (call->args && !json_get_str(call->args, "device", &dev, err)) {
        return NULL;
    }
    struct json_object *o = machine_inspect(cfg->machine, dev, err);
    if (o && !dev && cfg->describe_sandbox) {
        json_object_object_add(o, "sandbox", cfg->describe_sandbox());
    }
    return o;
}

static const struct {
    const char *name;
    qmp_handler *fn;
} handlers[] = {
    { "qmp_capabilities", qmp_capabilities },
    { "query-version", query_version },
    { "query-status", query_status },
    { "query-commands", query_commands },
    { "query-qmp-schema", query_qmp_schema },
    { "query-cpus-fast", query_cpus_fast },
    { "query-name", query_name },
    { "query-uuid", query_uuid },
    { "query-kvm", query_kvm },
    { "query-memory-size-summary", query_memory_size_summary },
    { "stop", stop },
    { "cont", cont },
    { "system_reset", system_reset },
    { "system_powerdown", system_powerdown },
    { "quit", quit },
    { "getfd", getfd },
    { "closefd", closefd },
    { "add-fd", add_fd },
    { "remove-fd", remove_fd },
    { "query-fdsets", query_fdsets },
    { "x-inspect", x_inspect },
};

qmp_handler *qmp_handler_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(handlers); i++) {
        if (strcmp(handlers[i].name, name) == 0) {
            return handlers[i].fn;
        }
    }
    return NULL;
}

const char *qmp_handler_name(size_t i)
{
    return i < ARRAY_SIZE(handlers) ? handlers[i].name : NULL;
}
