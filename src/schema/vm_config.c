/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "schema/vm_config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/str.h"
#include "base/uuid.h"

enum cfg_kind { CFG_STR, CFG_UINT, CFG_BOOL, CFG_WORD, CFG_FD, CFG_OBJ, CFG_OBJS, CFG_STRS };

struct cfg_field {
    const char *name;
    enum cfg_kind kind;
    uint32_t offset;
    uint32_t max;                       /* CFG_STR: bytes; CFG_OBJS, CFG_STRS: elements */
    uint32_t n_offset;                  /* where the element count is */
    uint32_t elem_size;
    const char *const *words;
    const struct cfg_field *sub;
    void (*elem_init)(void *elem);
};

const char *const vm_engine_names[] = { "auto", "kvm", "soft", NULL };
const char *const vm_console_names[] = { "stdio", "unix", "file", "none", NULL };
const char *const vm_net_names[] = { "user", "none", NULL };
const char *const vm_machine_names[] = { "pc-1", "micro-1", "pc", "micro", NULL };

#define AT(type, member) .offset = offsetof(type, member)

static const struct cfg_field cpu_fields[] = {
    { "model", CFG_STR, AT(struct vm_cpu_config, model), .max = 1024 },
    { "count", CFG_UINT, AT(struct vm_cpu_config, count) },
    { "sockets", CFG_UINT, AT(struct vm_cpu_config, sockets) },
    { "cores", CFG_UINT, AT(struct vm_cpu_config, cores) },
    { "threads", CFG_UINT, AT(struct vm_cpu_config, threads) },
    { NULL }
};

static const struct cfg_field disk_fields[] = {
    { "file", CFG_STR, AT(struct vm_disk_config, file), .max = VM_PATH_MAX },
    { "format", CFG_STR, AT(struct vm_disk_config, format), .max = 16 },
    { "serial", CFG_STR, AT(struct vm_disk_config, serial), .max = 20 },
    { "readonly", CFG_BOOL, AT(struct vm_disk_config, readonly) },
    { "fd", CFG_FD, AT(struct vm_disk_config, fd) },
    { NULL }
};

static const struct cfg_field net_fields[] = {
    { "type", CFG_WORD, AT(struct vm_net_config, type), .words = vm_net_names },
    { "mac", CFG_STR, AT(struct vm_net_config, mac), .max = 17 },
    { "restrict", CFG_BOOL, AT(struct vm_net_config, restricted) },
    { "forwards", CFG_STRS, AT(struct vm_net_config, forwards), .max = VM_MAX_FORWARDS,
      .n_offset = offsetof(struct vm_net_config, n_forwards) },
    { "fd", CFG_FD, AT(struct vm_net_config, fd) },
    { NULL }
};

static const struct cfg_field channel_fields[] = {
    { "path", CFG_STR, AT(struct vm_channel_config, path), .max = 107 },
    { "name", CFG_STR, AT(struct vm_channel_config, name), .max = 63 },
    { "fd", CFG_FD, AT(struct vm_channel_config, fd) },
    { NULL }
};

static void channel_init(void *elem)
{
    struct vm_channel_config *c = elem;
    c->fd = -1;
}

static void disk_init(void *elem)
{
    struct vm_disk_config *d = elem;
    d->fd = -1;
    d->format = str_dup("raw");
}

static void net_init(void *elem)
{
    struct vm_net_config *n = elem;
    n->fd = -1;
}

static const struct cfg_field vm_fields[] = {
    { "name", CFG_STR, AT(struct vm_config, name), .max = 128 },
    { "uuid", CFG_STR, AT(struct vm_config, uuid), .max = 36 },
    { "machine", CFG_STR, AT(struct vm_config, machine), .max = 32 },
    { "engine", CFG_WORD, AT(struct vm_config, engine), .words = vm_engine_names },
    { "memory", CFG_UINT, AT(struct vm_config, memory) },
    { "cpu", CFG_OBJ, AT(struct vm_config, cpu), .sub = cpu_fields },
    { "kernel", CFG_STR, AT(struct vm_config, kernel), .max = VM_PATH_MAX },
    { "initrd", CFG_STR, AT(struct vm_config, initrd), .max = VM_PATH_MAX },
    { "append", CFG_STR, AT(struct vm_config, append), .max = VM_APPEND_MAX },
    { "disks", CFG_OBJS, AT(struct vm_config, disks), .max = VM_MAX_DISKS, .n_offset = offsetof(struct vm_config, n_disks),
      .elem_size = sizeof(struct vm_disk_config), .sub = disk_fields, .elem_init = disk_init },
    { "nets", CFG_OBJS, AT(struct vm_config, nets), .max = VM_MAX_NETS, .n_offset = offsetof(struct vm_config, n_nets),
      .elem_size = sizeof(struct vm_net_config), .sub = net_fields, .elem_init = net_init },
    { "channels", CFG_OBJS, AT(struct vm_config, channels), .max = VM_MAX_CHANNELS, .n_offset = offsetof(struct vm_config, n_channels),
      .elem_size = sizeof(struct vm_channel_config), .sub = channel_fields, .elem_init = channel_init },
    { "console", CFG_WORD, AT(struct vm_config, console), .words = vm_console_names },
    { "console-path", CFG_STR, AT(struct vm_config, console_path), .max = VM_PATH_MAX },
    { "rng", CFG_BOOL, AT(struct vm_config, rng) },
    { "balloon", CFG_BOOL, AT(struct vm_config, balloon) },
    { "reboot", CFG_BOOL, AT(struct vm_config, reboot) },
    { "sandbox", CFG_BOOL, AT(struct vm_config, sandbox) },
    { "paused", CFG_BOOL, AT(struct vm_config, paused) },
    { "testdev", CFG_BOOL, AT(struct vm_config, testdev) },
    { "rtc", CFG_STR, AT(struct vm_config, rtc), .max = 32 },
    { "qmp", CFG_STR, AT(struct vm_config, qmp), .max = 107 },
    { "log", CFG_STR, AT(struct vm_config, log), .max = VM_PATH_MAX },
    { "code-size", CFG_UINT, AT(struct vm_config, code_size) },
    { "kernel-fd", CFG_FD, AT(struct vm_config, kernel_fd) },
    { "initrd-fd", CFG_FD, AT(struct vm_config, initrd_fd) },
    { "console-in-fd", CFG_FD, AT(struct vm_config, console_in_fd) },
    { "console-out-fd", CFG_FD, AT(struct vm_config, console_out_fd) },
    { "kvm-fd", CFG_FD, AT(struct vm_config, kvm_fd) },
    { "qmp-fd", CFG_FD, AT(struct vm_config, qmp_fd) },
    { "qmp-user-fd", CFG_FD, AT(struct vm_config, qmp_user_fd) },
    { "log-fd", CFG_FD, AT(struct vm_config, log_fd) },
    { "broker-fd", CFG_FD, AT(struct vm_config, broker_fd) },
    { NULL }
};

void vm_set_str(char **slot, const char *s)
{
    char *copy = s ? str_dup(s) : NULL;
    free(*slot);
    *slot = copy;
}

void vm_config_init(struct vm_config *c)
{
    memset(c, 0, sizeof(*c));
    c->machine = str_dup("pc");
    c->memory = 512ull * MIB;
    c->cpu.model = str_dup("max");
    c->rtc = str_dup("utc");
    c->reboot = c->sandbox = true;
    c->kernel_fd = c->initrd_fd = c->console_in_fd = c->console_out_fd = -1;
    c->kvm_fd = c->qmp_fd = c->qmp_user_fd = c->log_fd = c->broker_fd = -1;
}

static void fields_fini(const struct cfg_field *f, uint8_t *obj)
{
    for (; f->name; f++) {
        uint8_t *at = obj + f->offset;
        if (f->kind == CFG_STR) {
            vm_set_str((char **)(void *)at, NULL);
        } else if (f->kind == CFG_OBJ) {
            fields_fini(f->sub, at);
        } else if (f->kind == CFG_OBJS) {
            for (unsigned i = 0; i < f->max; i++) {
                fields_fini(f->sub, at + (size_t)i * f->elem_size);
            }
        } else if (f->kind == CFG_STRS) {
            for (unsigned i = 0; i < f->max; i++) {
                vm_set_str((char **)(void *)at + i, NULL);
            }
        }
    }
}

void vm_config_fini(struct vm_config *c)
{
    fields_fini(vm_fields, (uint8_t *)c);
    memset(c, 0, sizeof(*c));
}

bool vm_word(const char *what, const char *word, const char *const *names, uint64_t *out, struct err *err)
{
    for (unsigned i = 0; names[i]; i++) {
        if (strcmp(word, names[i]) == 0) {
            *out = i;
            return true;
        }
    }
    const char *near = str_nearest(word, names);
    if (near) {
        return err_set(err, ERR_INVALID, "%s '%.64s' is unknown; did you mean '%s'?", what, word, near);
    }
    struct buf all = { 0 };
    for (unsigned i = 0; names[i]; i++) {
        buf_printf(&all, "%s%s", i ? ", " : "", names[i]);
    }
    err_set(err, ERR_INVALID, "%s '%.64s' is unknown; choose one of %s", what, word, buf_str(&all));
    buf_fini(&all);
    return false;
}

static bool fields_read(const struct cfg_field *fields, uint8_t *obj, struct json_object *o, bool fds, struct err *err);

static bool read_str(const char *name, size_t max, struct json_object *v, char **slot, struct err *err)
{
    if (!json_object_is_type(v, json_type_string)) {
        return err_set(err, ERR_INVALID, "'%s' must be a string", name);
    }
    const char *s = json_object_get_string(v);
    size_t len = (size_t)json_object_get_string_len(v);
    if (len > max || strlen(s) != len) {
        return err_set(err, ERR_INVALID, "'%s' must be at most %zu bytes without a NUL", name, max);
    }
    vm_set_str(slot, s);
    return true;
}

static bool read_uint(const char *name, struct json_object *v, uint64_t *out, struct err *err)
{
    if (!json_object_is_type(v, json_type_int) || (json_object_get_int64(v) < 0)) {
        return err_set(err, ERR_INVALID, "'%s' must be a whole number of 0 or more", name);
    }
    *out = json_object_get_uint64(v);
    return true;
}

static bool read_objs(const struct cfg_field *f, uint8_t *obj, struct json_object *v, bool fds, struct err *err)
{
    if (!json_object_is_type(v, json_type_array) || json_object_array_length(v) > f->max) {
        return err_set(err, ERR_INVALID, "'%s' must be a list of at most %u", f->name, f->max);
    }
    unsigned n = (unsigned)json_object_array_length(v);
    for (unsigned i = 0; i < n; i++) {
        struct json_object *item = json_object_array_get_idx(v, i);
        if (f->kind == CFG_STRS) {
            if (!read_str(f->name, VM_PATH_MAX, item, (char **)(void *)(obj + f->offset) + i, err)) {
                return false;
            }
        } else {
            uint8_t *elem = obj + f->offset + (size_t)i * f->elem_size;
            fields_fini(f->sub, elem);
            memset(elem, 0, f->elem_size);
            f->elem_init(elem);
            if (!fields_read(f->sub, elem, item, fds, err)) {
                return err_prefix(err, "%s[%u]: ", f->name, i);
            }
        }
    }
    memcpy(obj + f->n_offset, &n, sizeof(n));
    return true;
}

static bool field_read(const struct cfg_field *f, uint8_t *obj, struct json_object *v, bool fds, struct err *err)
{
    void *at = obj + f->offset;
    switch (f->kind) {
    case CFG_STR:
        return read_str(f->name, f->max, v, at, err);
    case CFG_UINT:
        return read_uint(f->name, v, at, err);
    case CFG_BOOL:
        if (!json_object_is_type(v, json_type_boolean)) {
            return err_set(err, ERR_INVALID, "'%s' must be true or false", f->name);
        }
        *(bool *)at = json_object_get_boolean(v);
        return true;
    case CFG_WORD:
        if (!json_object_is_type(v, json_type_string)) {
            return err_set(err, ERR_INVALID, "'%s' must be a string", f->name);
        }
        return vm_word(f->name, json_object_get_string(v), f->words, at, err);
    case CFG_FD:
        if (!fds || !json_object_is_type(v, json_type_int) || json_object_get_int64(v) < 0 || json_object_get_int64(v) > INT32_MAX) {
            return err_set(err, ERR_INVALID, "'%s' cannot be set in a definition", f->name);
        }
        *(int64_t *)at = json_object_get_int64(v);
        return true;
    case CFG_OBJ:
        return fields_read(f->sub, at, v, fds, err) || err_prefix(err, "%s: ", f->name);
    case CFG_OBJS:
    case CFG_STRS:
        return read_objs(f, obj, v, fds, err);
    }
    return false;
}

static bool unknown_member(const struct cfg_field *fields, const char *key, struct err *err)
{
    const char *names[ARRAY_SIZE(vm_fields)];
    unsigned n = 0;
    for (const struct cfg_field *f = fields; f->name; f++) {
        if (f->kind != CFG_FD) {
            names[n++] = f->name;
        }
    }
    names[n] = NULL;
    const char *near = str_nearest(key, names);
    return err_set(err, ERR_INVALID, "member '%.64s' is unknown%s%s%s", key, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static bool fields_read(const struct cfg_field *fields, uint8_t *obj, struct json_object *o, bool fds, struct err *err)
{
    if (!json_object_is_type(o, json_type_object)) {
        return err_set(err, ERR_INVALID, "expected an object");
    }
    json_object_object_foreach(o, key, v)
    {
        const struct cfg_field *f = fields;
        while (f->name && strcmp(f->name, key) != 0) {
            f++;
        }
        if (!f->name) {
            return unknown_member(fields, key, err);
        }
        if (!field_read(f, obj, v, fds, err)) {
            return false;
        }
    }
    return true;
}

bool vm_config_from_json(struct vm_config *c, struct json_object *o, bool fds, struct err *err)
{
    return fields_read(vm_fields, (uint8_t *)c, o, fds, err);
}

static struct json_object *fields_write(const struct cfg_field *fields, const uint8_t *obj, bool fds)
{
    struct json_object *o = json_object_new_object();
    for (const struct cfg_field *f = fields; f->name; f++) {
        const void *at = obj + f->offset;
        struct json_object *v = NULL;
        unsigned n = 0;
        switch (f->kind) {
        case CFG_STR:
            v = *(char *const *)at ? json_object_new_string(*(char *const *)at) : NULL;
            break;
        case CFG_UINT:
            v = json_object_new_uint64(*(const uint64_t *)at);
            break;
        case CFG_BOOL:
            v = json_object_new_boolean(*(const bool *)at);
            break;
        case CFG_WORD:
            v = json_object_new_string(f->words[*(const uint64_t *)at]);
            break;
        case CFG_FD:
            v = fds && *(const int64_t *)at >= 0 ? json_object_new_int64(*(const int64_t *)at) : NULL;
            break;
        case CFG_OBJ:
            v = fields_write(f->sub, at, fds);
            break;
        case CFG_OBJS:
        case CFG_STRS:
            memcpy(&n, obj + f->n_offset, sizeof(n));
            v = json_object_new_array();
            for (unsigned i = 0; i < n; i++) {
                json_object_array_add(v, f->kind == CFG_STRS ? json_object_new_string(((char *const *)at)[i])
                                                             : fields_write(f->sub, (const uint8_t *)at + (size_t)i * f->elem_size, fds));
            }
            break;
        }
        if (v) {
            json_object_object_add(o, f->name, v);
        }
    }
    return o;
}

struct json_object *vm_config_to_json(const struct vm_config *c, bool fds)
{
    return fields_write(vm_fields, (const uint8_t *)c, fds);
}

/* Counts multiply out to `count`; what is 0 is derived: sockets first take the rest. */
static bool check_topology(struct vm_cpu_config *t, struct err *err)
{
    if (!t->count) {
        t->count = max_u64(t->sockets, 1) * max_u64(t->cores, 1) * max_u64(t->threads, 1);
    }
    if (t->count > VM_MAX_CPUS || t->sockets > VM_MAX_CPUS || t->cores > VM_MAX_CPUS || t->threads > VM_MAX_CPUS) {
        return err_set(err, ERR_LIMIT, "at most %d CPUs are supported, not %" PRIu64, VM_MAX_CPUS, t->count);
    }
    uint64_t threads = max_u64(t->threads, 1);
    if (!t->cores) {
        uint64_t sockets = max_u64(t->sockets, 1);
        t->cores = max_u64(t->count / (sockets * threads), 1);
    }
    if (!t->sockets) {
        t->sockets = max_u64(t->count / (t->cores * threads), 1);
    }
    t->threads = threads;
    if (t->sockets * t->cores * t->threads != t->count) {
        return err_set(err, ERR_INVALID, "%" PRIu64 " sockets x %" PRIu64 " cores x %" PRIu64 " threads is not %" PRIu64 " CPUs",
                       t->sockets, t->cores, t->threads, t->count);
    }
    return true;
}

static bool mac_ok(const char *s)
{
    for (int i = 0; i < 17; i++) {
        bool hex = (s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f') || (s[i] >= 'A' && s[i] <= 'F');
        if (i % 3 == 2 ? s[i] != ':' : !hex) {
            return false;
        }
    }
    return s[17] == '\0';
}

static bool check_nets(struct vm_config *c, const uint8_t uuid[16], struct err *err)
{
    for (unsigned i = 0; i < c->n_nets; i++) {
        struct vm_net_config *n = &c->nets[i];
        if (!n->mac) {
            n->mac = str_fmt("52:54:00:%02x:%02x:%02x", uuid[13], uuid[14], (uuid[15] + i) & 0xff);
        }
        if (!mac_ok(n->mac)) {
            return err_set(err, ERR_INVALID, "MAC address '%s' must be six hexadecimal bytes with colons", n->mac);
        }
        char first[3] = { n->mac[0], n->mac[1], 0 };
        if (strtoul(first, NULL, 16) & 1) {
            return err_set(err, ERR_INVALID, "MAC address '%s' is a multicast address: its first byte must be even", n->mac);
        }
        if (n->type == VM_NET_NONE && (n->n_forwards || n->restricted)) {
            return err_set(err, ERR_INVALID, "network 'none' takes no forward and no restrict");
        }
    }
    return true;
}

static bool check_disks(struct vm_config *c, struct err *err)
{
    for (unsigned i = 0; i < c->n_disks; i++) {
        struct vm_disk_config *d = &c->disks[i];
        if (!d->file || !d->file[0]) {
            return err_set(err, ERR_INVALID, "disk %u has no file", i);
        }
        if (strcmp(d->format, "raw") != 0) {
            return err_set(err, ERR_UNSUPPORTED, "disk '%s': format '%s' is not supported by this version, only raw", d->file, d->format);
        }
    }
    return true;
}

static bool check_channels(const struct vm_config *c, struct err *err)
{
    for (unsigned i = 0; i < c->n_channels; i++) {
        const struct vm_channel_config *ch = &c->channels[i];
        if (!ch->path || !ch->path[0] || !ch->name || !str_name_ok(ch->name)) {
            return err_set(err, ERR_INVALID, "channel %u needs a path and a name of letters, digits and _.+:@-", i);
        }
    }
    return true;
}

bool vm_rtc_parse(const char *text, enum vm_rtc *kind, int64_t *at, struct err *err)
{
    struct tm tm = { 0 };
    if (strcmp(text, "utc") == 0 || strcmp(text, "localtime") == 0) {
        *kind = text[0] == 'u' ? VM_RTC_UTC : VM_RTC_LOCALTIME;
        return true;
    }
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!end || *end || tm.tm_year < 70) {
        return err_set(err, ERR_INVALID, "rtc '%s' is none of utc, localtime, a time such as 2026-01-31T12:00:00", text);
    }
    *kind = VM_RTC_AT;
    *at = timegm(&tm);
    return true;
}

bool vm_config_check(struct vm_config *c, struct err *err)
{
    uint64_t machine;
    enum vm_rtc rtc;
    int64_t rtc_at;
    struct uuid uuid;
    if (!vm_word("machine", c->machine, vm_machine_names, &machine, err)) {
        return false;
    }
    if (!strchr(c->machine, '-')) {
        vm_set_str(&c->machine, vm_machine_names[machine - 2]);     /* the alias stands two places after its newest version */
    }
    if (!c->uuid) {
        char text[UUID_STR_SIZE];
        uuid_random(&uuid);
        uuid_format(&uuid, text);
        vm_set_str(&c->uuid, text);
    } else if (!uuid_parse(c->uuid, &uuid)) {
        return err_set(err, ERR_INVALID, "UUID '%s' is not of the form 01234567-89ab-cdef-0123-456789abcdef", c->uuid);
    }
    if (!c->name) {
        c->name = str_fmt("guest-%02x%02x%02x%02x", uuid.b[0], uuid.b[1], uuid.b[2], uuid.b[3]);
    }
    if (!str_name_ok(c->name)) {
        return err_set(err, ERR_INVALID, "name '%s': use letters, digits and _.+:@-, beginning with a letter or digit, at most 128", c->name);
    }
    if (c->memory < VM_MIN_MEMORY) {
        return err_set(err, ERR_INVALID, "memory of %" PRIu64 " bytes is too small: at least %d MiB", c->memory, VM_MIN_MEMORY / MIB);
    }
    if (c->memory % MIB) {
        return err_set(err, ERR_INVALID, "memory of %" PRIu64 " bytes must be a multiple of 1 MiB", c->memory);
    }
    if (c->append && !c->kernel) {
        return err_set(err, ERR_INVALID, "--append needs --kernel");
    }
    if (c->initrd && !c->kernel) {
        return err_set(err, ERR_INVALID, "--initrd needs --kernel");
    }
    if ((c->console == VM_CONSOLE_UNIX || c->console == VM_CONSOLE_FILE) && (!c->console_path || !c->console_path[0])) {
        return err_set(err, ERR_INVALID, "console '%s' needs a path", vm_console_names[c->console]);
    }
    return vm_rtc_parse(c->rtc, &rtc, &rtc_at, err) && check_topology(&c->cpu, err) && check_disks(c, err) && check_channels(c, err) && check_nets(c, uuid.b, err);
}
