/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest's definition as the two halves of Lodge say it to each other: what `lodge run` resolves its options to,
 * what --dry-run prints, what --config reads and what lodge-vmm is started from. One table describes the JSON form.
 * Members ending in _fd are set by whoever starts lodge-vmm (the broker): the descriptor that stands for the path beside it;
 * they exist only between broker and VMM and are refused in a user's file.
 */
#ifndef LODGE_SCHEMA_VM_CONFIG_H
#define LODGE_SCHEMA_VM_CONFIG_H

#include "base/err.h"
#include "base/json.h"

enum {
    VM_MAX_CPUS = 8,            /* of this version */
    VM_MAX_DISKS = 16,
    VM_MAX_NETS = 8,
    VM_MAX_FORWARDS = 32,
    VM_MAX_CHANNELS = 7,        /* ports of one virtio console beside port 0 */
    VM_MIN_MEMORY = 1 * MIB,
    VM_PATH_MAX = 4095,
    VM_APPEND_MAX = 65535,
};

enum vm_engine { VM_ENGINE_AUTO, VM_ENGINE_KVM, VM_ENGINE_SOFT };
enum vm_console { VM_CONSOLE_STDIO, VM_CONSOLE_UNIX, VM_CONSOLE_FILE, VM_CONSOLE_NONE };
enum vm_net { VM_NET_USER, VM_NET_NONE };

struct vm_cpu_config {
    char *model;                /* "max", "host" or a name, then ",+f,-f" */
    uint64_t count, sockets, cores, threads;    /* 0: derived by vm_config_check */
};

struct vm_disk_config {
    char *file;
    char *format;               /* "raw" */
    char *serial;               /* at most 20 bytes */
    bool readonly;
    int64_t fd;
};

struct vm_net_config {
    uint64_t type;              /* enum vm_net */
    char *mac;                  /* "52:54:00:..": made from the guest's UUID when absent */
    bool restricted;
    char *forwards[VM_MAX_FORWARDS];    /* "tcp:HOST:GUEST", HOST and GUEST being [address:]port */
    unsigned n_forwards;
    int64_t fd;                 /* seqpacket socket to the network helper */
};

/* A named byte channel between host and guest: a port of a virtio console, a listening unix socket outside. */
struct vm_channel_config {
    char *path;
    char *name;                 /* what the guest sees: "org.qemu.guest_agent.0" */
    int64_t fd;                 /* listening socket */
};

struct vm_config {
    char *name;
    char *uuid;
    char *machine;              /* "pc-1", "micro-1"; "pc" and "micro" mean the newest */
    uint64_t engine;            /* enum vm_engine */
    uint64_t memory;            /* bytes */
    struct vm_cpu_config cpu;
    char *kernel, *initrd, *append;
    struct vm_disk_config disks[VM_MAX_DISKS];
    unsigned n_disks;
    struct vm_net_config nets[VM_MAX_NETS];
    unsigned n_nets;
    struct vm_channel_config channels[VM_MAX_CHANNELS];
    unsigned n_channels;
    uint64_t console;           /* enum vm_console */
    char *console_path;
    bool rng, balloon;
    bool reboot;                /* false: a guest's reset ends it (--no-reboot) */
    bool sandbox;
    bool paused;                /* wait for `cont` */
    bool testdev;               /* pc-testdev, for bare-metal tests */
    char *rtc;                  /* "utc", "localtime" or "2026-01-31T12:00:00" */
    char *qmp;                  /* path of a listening control socket, beside the registered one */
    char *log;                  /* level or file */
    uint64_t code_size;         /* soft engine: bytes of host code, 0: default */
    int64_t kernel_fd, initrd_fd, console_in_fd, console_out_fd, kvm_fd, qmp_fd, qmp_user_fd, log_fd, broker_fd;
};

/* Empty config with every default and all descriptors -1. */
void vm_config_init(struct vm_config *c);
void vm_config_fini(struct vm_config *c);
/*
 * Overlays `o` on c. Unknown members are refused by name with the nearest known one. fds: accept the _fd members (only on
 * the broker's channel). On failure c keeps what was overlaid so far; it is only good for vm_config_fini.
 */
bool vm_config_from_json(struct vm_config *c, struct json_object *o, bool fds, struct err *err);
/* The whole definition. The caller owns it. */
struct json_object *vm_config_to_json(const struct vm_config *c, bool fds);
/*
 * Fills in what follows (topology, UUID, MAC addresses, machine alias) and refuses what cannot be: bounds, names, topology
 * that does not multiply out, formats. Idempotent.
 */
bool vm_config_check(struct vm_config *c, struct err *err);

/* What the guest's clock shows at its start; *at, seconds since 1970, is set for VM_RTC_AT only. */
enum vm_rtc { VM_RTC_UTC, VM_RTC_LOCALTIME, VM_RTC_AT };
bool vm_rtc_parse(const char *text, enum vm_rtc *kind, int64_t *at, struct err *err);

/* Words of an enum member for option parsing: "auto" -> VM_ENGINE_AUTO. NULL-terminated lists. */
extern const char *const vm_engine_names[], *const vm_console_names[], *const vm_net_names[], *const vm_machine_names[];
/* Index of `word`; false with the nearest word suggested. what: "engine". */
bool vm_word(const char *what, const char *word, const char *const *names, uint64_t *out, struct err *err);
/* Replaces an owned string. */
void vm_set_str(char **slot, const char *s);

#endif
