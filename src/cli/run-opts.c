/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Options of `lodge run`, as changes to a vm_config. */
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "cli/run-int.h"

enum { CONFIG_MAX = 1 * MIB };

static struct vm_config *cfg_of(void *ctx)
{
    return &((struct run_options *)ctx)->cfg;
}

#define SET_STR(fn, member)                                                                             \
    static bool fn(void *ctx, const char *value, struct err *err)                                       \
    {                                                                                                   \
        vm_set_str(&cfg_of(ctx)->member, value);                                                        \
        return true;                                                                                    \
    }
SET_STR(set_name, name)
SET_STR(set_uuid, uuid)
SET_STR(set_machine, machine)
SET_STR(set_kernel, kernel)
SET_STR(set_initrd, initrd)
SET_STR(set_append, append)
SET_STR(set_cpu, cpu.model)
SET_STR(set_rtc, rtc)
SET_STR(set_qmp, qmp)
SET_STR(set_log, log)
#undef SET_STR

#define SET_BOOL(fn, member, v)                                                                         \
    static bool fn(void *ctx, const char *value, struct err *err)                                       \
    {                                                                                                   \
        cfg_of(ctx)->member = (v);                                                                      \
        return true;                                                                                    \
    }
SET_BOOL(set_rng, rng, true)
SET_BOOL(set_balloon, balloon, true)
SET_BOOL(set_no_reboot, reboot, false)
SET_BOOL(set_paused, paused, true)
SET_BOOL(set_testdev, testdev, true)
#undef SET_BOOL

static bool set_dry_run(void *ctx, const char *value, struct err *err)
{
    ((struct run_options *)ctx)->dry_run = true;
    return true;
}

static bool on_off(const char *value, bool *out, struct err *err)
{
    if (strcmp(value, "on") == 0 || strcmp(value, "off") == 0) {
        *out = value[1] == 'n';
        return true;
    }
    return err_set(err, ERR_INVALID, "'on' or 'off', not '%.32s'", value);
}

static bool set_sandbox(void *ctx, const char *value, struct err *err)
{
    return on_off(value, &cfg_of(ctx)->sandbox, err);
}

static bool set_engine(void *ctx, const char *value, struct err *err)
{
    return vm_word("engine", value, vm_engine_names, &cfg_of(ctx)->engine, err);
}

static bool set_memory(void *ctx, const char *value, struct err *err)
{
    return str_parse_size(value, MIB, &cfg_of(ctx)->memory, err);
}

static bool set_code_size(void *ctx, const char *value, struct err *err)
{
    return str_parse_size(value, MIB, &cfg_of(ctx)->code_size, err);
}

static bool set_config(void *ctx, const char *value, struct err *err)
{
    size_t len;
    AUTO_FREE char *text = file_read(value, CONFIG_MAX, &len, err);
    AUTO_JSON struct json_object *o = text ? json_parse(text, len, err) : NULL;
    if (!o) {
        return text ? err_prefix(err, "%s: ", value) : false;
    }
    return vm_config_from_json(cfg_of(ctx), o, false, err) || err_prefix(err, "%s: ", value);
}

/* --- "first,key=value,..." --- */

struct part {
    const char *key;
    bool (*set)(void *target, const char *value, struct err *err);
};

/* Splits at commas (",," is a comma in a value); the first piece goes to `first`, the others to the part they name. */
static bool split(const char *text, bool (*first)(void *, const char *, struct err *), const struct part *parts, void *target, struct err *err)
{
    AUTO_BUF struct buf piece = { 0 };
    bool is_first = true;
    for (const char *p = text;; p++) {
        if (*p == ',' && p[1] == ',') {
            p++;
        } else if (*p == ',' || *p == '\0') {
            const char *s = buf_str(&piece), *eq = strchr(s, '=');
            if (is_first) {
                if (!first(target, s, err)) {
                    return false;
                }
            } else {
                AUTO_FREE char *key = str_fmt("%.*s", (int)(eq ? eq - s : (long)strlen(s)), s);
                const char *names[16];
                unsigned n = 0;
                const struct part *q = parts;
                for (; q->key && strcmp(q->key, key) != 0; q++) {
                    names[n++] = q->key;
                }
                if (!q->key) {
                    names[n] = NULL;
                    const char *near = str_nearest(key, names);
                    return err_set(err, ERR_INVALID, "'%.64s' is unknown%s%s%s", key, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
                }
                if (!eq) {
                    return err_set(err, ERR_INVALID, "'%s' needs a value: %s=...", key, key);
                }
                if (!q->set(target, eq + 1, err)) {
                    return err_prefix(err, "%s: ", key);
                }
            }
            is_first = false;
            buf_clear(&piece);
            if (!*p) {
                return true;
            }
            continue;
        }
        buf_add_u8(&piece, (uint8_t)*p);
    }
}

static bool number(const char *value, uint64_t *out, struct err *err)
{
    return (str_parse_u64(value, out) && *out > 0 && *out <= 4096) || err_set(err, ERR_INVALID, "a number from 1, not '%.32s'", value);
}

static bool cpus_count(void *t, const char *v, struct err *err)
{
    return number(v, &((struct vm_cpu_config *)t)->count, err);
}
static bool cpus_sockets(void *t, const char *v, struct err *err)
{
    return number(v, &((struct vm_cpu_config *)t)->sockets, err);
}
static bool cpus_cores(void *t, const char *v, struct err *err)
{
    return number(v, &((struct vm_cpu_config *)t)->cores, err);
}
static bool cpus_threads(void *t, const char *v, struct err *err)
{
    return number(v, &((struct vm_cpu_config *)t)->threads, err);
}

static bool set_cpus(void *ctx, const char *value, struct err *err)
{
    static const struct part parts[] = { { "sockets", cpus_sockets }, { "cores", cpus_cores }, { "threads", cpus_threads }, { NULL, NULL } };
    struct vm_cpu_config *c = &cfg_of(ctx)->cpu;
    c->count = c->sockets = c->cores = c->threads = 0;
    return split(value, cpus_count, parts, c, err);
}

static bool disk_file(void *t, const char *v, struct err *err)
{
    vm_set_str(&((struct vm_disk_config *)t)->file, v);
    return *v || err_set(err, ERR_INVALID, "a file name must come first");
}
static bool disk_format(void *t, const char *v, struct err *err)
{
    vm_set_str(&((struct vm_disk_config *)t)->format, v);
    return true;
}
static bool disk_serial(void *t, const char *v, struct err *err)
{
    vm_set_str(&((struct vm_disk_config *)t)->serial, v);
    return strlen(v) <= 20 || err_set(err, ERR_LIMIT, "at most 20 bytes");
}
static bool disk_readonly(void *t, const char *v, struct err *err)
{
    return on_off(v, &((struct vm_disk_config *)t)->readonly, err);
}

static bool set_disk(void *ctx, const char *value, struct err *err)
{
    static const struct part parts[] = { { "format", disk_format }, { "serial", disk_serial }, { "readonly", disk_readonly }, { NULL, NULL } };
    struct vm_config *c = cfg_of(ctx);
    if (c->n_disks == VM_MAX_DISKS) {
        return err_set(err, ERR_LIMIT, "at most %d disks", VM_MAX_DISKS);
    }
    struct vm_disk_config *d = &c->disks[c->n_disks];
    *d = (struct vm_disk_config){ .fd = -1, .format = str_dup("raw") };
    c->n_disks++;
    return split(value, disk_file, parts, d, err);
}

static bool net_type(void *t, const char *v, struct err *err)
{
    return vm_word("network", v, vm_net_names, &((struct vm_net_config *)t)->type, err);
}
static bool net_mac(void *t, const char *v, struct err *err)
{
    vm_set_str(&((struct vm_net_config *)t)->mac, v);
    return true;
}
static bool net_restrict(void *t, const char *v, struct err *err)
{
    return on_off(v, &((struct vm_net_config *)t)->restricted, err);
}
static bool net_forward(void *t, const char *v, struct err *err)
{
    struct vm_net_config *n = t;
    if (n->n_forwards == VM_MAX_FORWARDS) {
        return err_set(err, ERR_LIMIT, "at most %d forwards", VM_MAX_FORWARDS);
    }
    n->forwards[n->n_forwards++] = str_dup(v);
    return true;
}

static bool set_net(void *ctx, const char *value, struct err *err)
{
    static const struct part parts[] = { { "mac", net_mac }, { "restrict", net_restrict }, { "forward", net_forward }, { NULL, NULL } };
    struct vm_config *c = cfg_of(ctx);
    if (c->n_nets == VM_MAX_NETS) {
        return err_set(err, ERR_LIMIT, "at most %d networks", VM_MAX_NETS);
    }
    struct vm_net_config *n = &c->nets[c->n_nets];
    *n = (struct vm_net_config){ .fd = -1 };
    c->n_nets++;
    return split(value, net_type, parts, n, err);
}

static bool channel_path(void *t, const char *v, struct err *err)
{
    const char *path = str_after(v, "unix:");
    vm_set_str(&((struct vm_channel_config *)t)->path, path);
    return path || err_set(err, ERR_INVALID, "unix:PATH must come first");
}
static bool channel_name(void *t, const char *v, struct err *err)
{
    vm_set_str(&((struct vm_channel_config *)t)->name, v);
    return true;
}

static bool set_channel(void *ctx, const char *value, struct err *err)
{
    static const struct part parts[] = { { "name", channel_name }, { NULL, NULL } };
    struct vm_config *c = cfg_of(ctx);
    if (c->n_channels == VM_MAX_CHANNELS) {
        return err_set(err, ERR_LIMIT, "at most %d channels", VM_MAX_CHANNELS);
    }
    struct vm_channel_config *ch = &c->channels[c->n_channels];
    *ch = (struct vm_channel_config){ .fd = -1 };
    c->n_channels++;
    return split(value, channel_path, parts, ch, err);
}

static bool set_console(void *ctx, const char *value, struct err *err)
{
    struct vm_config *c = cfg_of(ctx);
    const char *colon = strchr(value, ':');
    AUTO_FREE char *word = str_fmt("%.*s", (int)(colon ? min_u64((uint64_t)(colon - value), 64) : min_u64(strlen(value), 64)), value);
    if (!vm_word("console", word, vm_console_names, &c->console, err)) {
        return false;
    }
    vm_set_str(&c->console_path, colon ? colon + 1 : NULL);
    bool wants = c->console == VM_CONSOLE_UNIX || c->console == VM_CONSOLE_FILE;
    return wants == (colon != NULL) || err_set(err, ERR_INVALID, wants ? "'%s' needs a path: %s:PATH" : "'%s' takes no path%.0s", word, word);
}

const struct cli_opt run_opts[] = {
    { "kernel", "FILE", "bzImage, PVH or 64-bit ELF, or multiboot 1 kernel", set_kernel },
    { "initrd", "FILE", "initial RAM disk, or the one multiboot module", set_initrd },
    { "append", "TEXT", "kernel command line", set_append },
    { "memory", "SIZE", "guest memory: 512M (default), 2G, a plain number means MiB", set_memory },
    { "cpus", "N[,sockets=,cores=,threads=]", "CPUs and their topology (1)", set_cpus },
    { "cpu", "MODEL[,+F,-F]", "CPU model: max (default), host or a name; features added or removed", set_cpu },
    { "disk", "FILE[,format=raw,readonly=on,serial=S]", "a virtio disk; repeatable (',,' is a comma in a name)", set_disk },
    { "net", "user[,forward=tcp:HOST:GUEST,restrict=on,mac=M]|none", "a network card; repeatable", set_net },
    { "console", "stdio|unix:PATH|file:PATH|none", "where the serial console goes (stdio)", set_console },
    { "channel", "unix:PATH,name=NAME", "a named port of a virtio console, a socket here; repeatable", set_channel },
    { "engine", "auto|kvm|soft", "CPU engine (auto)", set_engine },
    { "machine", "pc|micro", "board: a PC, or the least a paravirtual Linux needs; versions pc-1, micro-1", set_machine },
    { "rng", NULL, "a virtio random number generator", set_rng },
    { "balloon", NULL, "a virtio memory balloon", set_balloon },
    { "uuid", "UUID", "the guest's UUID (random)", set_uuid },
    { "rtc", "utc|localtime|TIME", "what the clock shows at start; TIME as 2026-01-31T12:00:00", set_rtc },
    { "qmp", "PATH", "listen for QMP at this socket, too", set_qmp },
    { "log", "LEVEL|FILE", "error, warn (default), info, debug, trace; or a file for messages up to info", set_log },
    { "no-reboot", NULL, "a reset ends the guest", set_no_reboot },
    { "sandbox", "on|off", "confine the VMM (on)", set_sandbox },
    { "name", "NAME", "the guest's name (made from the UUID)", set_name },
    { "paused", NULL, "start with CPUs stopped; QMP 'cont' starts them", set_paused },
    { "testdev", NULL, "an interrupt test device for bare-metal tests", set_testdev },
    { "code-size", "SIZE", "soft engine: room for generated code", set_code_size },
    { "config", "FILE", "read the definition from a JSON file; later options change it", set_config },
    { "dry-run", NULL, "print the resolved definition as JSON and exit", set_dry_run },
    { NULL }
};
