/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/machine.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "base/log.h"
#include "dev/pc/pc.h"
#include "machine/machine-int.h"

const char *machine_status_name(enum machine_status s)
{
    static const char *const names[] = { "prelaunch", "running", "paused", "shutdown", "guest-panicked", "internal-error" };
    return names[s];
}

static void tell(struct machine *m, enum machine_event ev, bool by_guest, const char *msg)
{
    list_for_each(l, &m->listeners, struct machine_listener, node)
    {
        l->event(l, ev, by_guest, msg);
    }
}

/* vCPUs parked, time frozen, no request of a device in flight: guest RAM and every field table stand still. */
static void pause_cpus(struct machine *m)
{
    if (!engine_running(m->engine)) {
        return;
    }
    engine_pause(m->engine);
    vm_clock_stop(&m->clock);
    list_for_each(d, &m->env.devs, struct dev, node)
    {
        if (d->type->quiesce) {
            d->type->quiesce(d);
        }
    }
}

static void resume_cpus(struct machine *m)
{
    list_for_each(d, &m->env.devs, struct dev, node)
    {
        if (d->type->resume) {
            d->type->resume(d);
        }
    }
    vm_clock_start(&m->clock);
    engine_resume(m->engine);
    m->status = MACHINE_RUNNING;
}

static void finish(struct machine *m, int why, bool by_guest, uint32_t code, const char *msg)
{
    if (m->end.over) {
        return;
    }
    pause_cpus(m);
    m->status = why == END_PANIC ? MACHINE_PANICKED : why == END_ERROR ? MACHINE_ERROR : MACHINE_SHUTDOWN;
    m->end = (struct machine_end){ .over = true, .by_guest = by_guest, .why = (__typeof__(m->end.why))why, .code = code };
    tell(m, why == END_ERROR ? MACHINE_EV_ERROR : MACHINE_EV_SHUTDOWN, by_guest, msg);
}

static void do_reset(struct machine *m, bool by_guest)
{
    struct err err = ERR_INIT;
    bool was_running = engine_running(m->engine);
    pause_cpus(m);
    dev_reset_all(&m->env);
    engine_reset(m->engine);
    if (!board_boot(m, &err)) {
        log_error("machine", "reset: %s", err.msg);
        finish(m, END_ERROR, by_guest, 0, err.msg);
        return;
    }
    tell(m, MACHINE_EV_RESET, by_guest, NULL);
    if (was_running) {
        resume_cpus(m);
    }
}

/* A reset that the guest asked for or fell into. */
static void guest_reset(struct machine *m, bool triple_fault)
{
    if (triple_fault) {
        log_warn("machine", "the guest crashed with a triple fault%s", m->cfg->reboot ? "; resetting it" : "");
    }
    if (!m->cfg->reboot) {
        finish(m, triple_fault ? END_TRIPLE_FAULT : END_RESET, true, 0, NULL);
    } else {
        do_reset(m, true);
    }
}

static void on_request(struct loop_call *call)
{
    struct machine *m = container_of(call, struct machine, req_call);
    char msg[sizeof(m->req_msg)];
    pthread_mutex_lock(&m->req_lock);
    unsigned bits = m->req_bits;
    uint32_t code = m->req_code;
    memcpy(msg, m->req_msg, sizeof(msg));
    m->req_bits = 0;
    pthread_mutex_unlock(&m->req_lock);
    if (m->end.over) {
        return;
    }
    if (bits & 1u << REQ_ENGINE_ERROR) {
        finish(m, END_ERROR, true, 0, msg);
    } else if (bits & 1u << GUEST_EXIT) {
        finish(m, END_DEBUG_EXIT, true, code, NULL);
    } else if (bits & 1u << GUEST_PANIC) {
        tell(m, MACHINE_EV_PANICKED, true, NULL);
        finish(m, END_PANIC, true, 0, NULL);
    } else if (bits & 1u << GUEST_SHUTDOWN) {
        finish(m, END_SHUTDOWN, true, 0, NULL);
    } else if (bits & (1u << GUEST_RESET | 1u << REQ_TRIPLE_FAULT)) {
        guest_reset(m, bits & 1u << REQ_TRIPLE_FAULT);
    } else if (bits & 1u << GUEST_SUSPEND) {
        log_warn("machine", "the guest asked to suspend, which this board does not offer; ignored");
    }
}

static void post_request(struct machine *m, unsigned bit, uint32_t code, const char *msg)
{
    pthread_mutex_lock(&m->req_lock);
    if (!(m->req_bits & 1u << bit)) {
        m->req_code = bit == GUEST_EXIT || !(m->req_bits & 1u << GUEST_EXIT) ? code : m->req_code;
        m->req_bits |= 1u << bit;
        if (msg) {
            snprintf(m->req_msg, sizeof(m->req_msg), "%s", msg);
        }
    }
    pthread_mutex_unlock(&m->req_lock);
    loop_post(m->main_loop, &m->req_call);
}

static void on_guest_request(struct dev_env *env, enum guest_request what, uint32_t code)
{
    post_request(env->owner, (unsigned)what, code, NULL);
}

static void on_vcpu_exit(struct engine *e, struct vcpu *vcpu, enum vcpu_exit why, const struct vcpu_exit_info *info)
{
    post_request(e->owner, why == VCPU_EXIT_SHUTDOWN ? REQ_TRIPLE_FAULT : REQ_ENGINE_ERROR, 0, info->msg);
}

static bool create_ram(struct machine *m, struct err *err)
{
    struct sysinfo si;
    if (sysinfo(&si) == 0) {
        uint64_t host = ((uint64_t)si.totalram + si.totalswap) * si.mem_unit;
        if (m->cfg->memory > host) {
            return err_set(err, ERR_LIMIT, "the guest wants %" PRIu64 " MiB of memory and the host has %" PRIu64 " MiB: give it less --memory",
                           m->cfg->memory / MIB, host / MIB);
        }
    }
    return mem_ram_add(m->mem, 0, m->map.low_ram, err) && (!m->map.high_ram || mem_ram_add(m->mem, BOARD_4G, m->map.high_ram, err));
}

static bool open_console(struct machine *m, struct err *err)
{
    const struct vm_config *c = m->cfg;
    switch (c->console) {
    case VM_CONSOLE_STDIO:
        m->console = chr_fd_open(m->main_loop, (int)c->console_in_fd, (int)c->console_out_fd, true, err);
        break;
    case VM_CONSOLE_UNIX:
        m->console = chr_listen_open(m->main_loop, (int)c->console_in_fd, err);
        break;
    case VM_CONSOLE_FILE:
        m->console = chr_file_open(m->main_loop, (int)c->console_out_fd, err);
        break;
    default:
        m->console = chr_null_open();
        break;
    }
    return m->console || err_prefix(err, "console: ");
}

static bool open_channels(struct machine *m, struct err *err)
{
    for (unsigned i = 0; i < m->cfg->n_channels; i++) {
        m->channels[i] = chr_listen_open(m->io_loop, (int)m->cfg->channels[i].fd, err);
        if (!m->channels[i]) {
            return err_prefix(err, "channel '%s': ", m->cfg->channels[i].name);
        }
    }
    return true;
}

/* Locks images against other guests and QEMU; reads no byte of them. */
static bool open_disks(struct machine *m, struct err *err)
{
    for (unsigned i = 0; i < m->cfg->n_disks; i++) {
        const struct vm_disk_config *d = &m->cfg->disks[i];
        m->disks[i] = blk_open_fd(m->io_loop, (int)d->fd, d->format, d->file, d->readonly ? 0 : BLK_WRITE | BLK_DISCARD, err);
        if (!m->disks[i]) {
            return err_prefix(err, "disk '%s': ", d->file);
        }
    }
    return true;
}

static bool open_nets(struct machine *m, struct err *err)
{
    for (unsigned i = 0; i < m->cfg->n_nets; i++) {
        const struct vm_net_config *n = &m->cfg->nets[i];
        if (n->type == VM_NET_USER && !(m->nets[i] = net_user_open(m->io_loop, (int)n->fd, err))) {
            return err_prefix(err, "network %u: ", i);
        }
    }
    return true;
}

static const struct engine_ops *find_engine(uint64_t wanted, struct err *err)
{
    const char *name = wanted == VM_ENGINE_AUTO ? engines[0]->name : vm_engine_names[wanted];
    for (unsigned i = 0; engines[i]; i++) {
        if (strcmp(engines[i]->name, name) == 0) {
            return engines[i];
        }
    }
    err_set(err, ERR_UNSUPPORTED, "this build has no %s engine", name);
    return NULL;
}

static bool create_engine(struct machine *m, struct err *err)
{
    const struct engine_ops *ops = find_engine(m->cfg->engine, err);
    struct engine_config ec = { .mem = m->mem, .irq = &m->irq, .clock = &m->clock, .model = &m->model, .topo = m->topo,
                                .code_size = m->cfg->code_size, .kvm_fd = (int)m->cfg->kvm_fd };
    m->engine = ops ? engine_create(ops, &ec, err) : NULL;
    if (!m->engine) {
        return false;
    }
    m->engine->owner = m;
    m->engine->on_exit = on_vcpu_exit;
    return true;
}

static void init_env(struct machine *m)
{
    vm_clock_init(&m->clock);
    irq_hub_init(&m->irq);
    dev_env_init(&m->env);
    m->mem = mem_create();
    m->env.mem = m->mem;
    m->env.irq = &m->irq;
    m->env.main_loop = m->main_loop;
    m->env.io_loop = m->io_loop;
    m->env.clock = &m->clock;
    m->env.request = on_guest_request;
    m->env.owner = m;
}

struct machine *machine_create(const struct vm_config *cfg, struct loop *main_loop, struct loop *io_loop, struct err *err)
{
    struct machine *m = new0(struct machine);
    m->cfg = cfg;
    m->main_loop = main_loop;
    m->io_loop = io_loop;
    m->kernel_fd = (int)cfg->kernel_fd;
    m->initrd_fd = (int)cfg->initrd_fd;
    m->legacy = strncmp(cfg->machine, "pc-", 3) == 0;
    m->topo = (struct cpu_topology){ (unsigned)cfg->cpu.count, (unsigned)cfg->cpu.sockets, (unsigned)cfg->cpu.cores, (unsigned)cfg->cpu.threads };
    m->req_call.fn = on_request;
    list_init(&m->req_call.node);
    list_init(&m->listeners);
    pthread_mutex_init(&m->req_lock, NULL);
    init_env(m);
    if (!cpu_model_make(&m->model, cfg->cpu.model, &m->topo, err)) {
        goto fail;
    }
    board_map_init(&m->map, cfg->memory, m->model.phys_bits);
    if (create_ram(m, err) && open_console(m, err) && open_channels(m, err) && open_disks(m, err) && open_nets(m, err) && create_engine(m, err) && board_create(m, err) &&
        engine_start_threads(m->engine, err)) {
        return m;
    }
fail:
    machine_destroy(m);
    return NULL;
}

void machine_destroy(struct machine *m)
{
    if (!m) {
        return;
    }
    if (m->engine) {
        pause_cpus(m);
        engine_destroy(m->engine);      /* threads first: nobody touches devices any more */
    }
    dev_env_fini(&m->env);
    for (unsigned i = 0; i < VM_MAX_NETS; i++) {
        if (m->nets[i]) {
            net_port_close(m->nets[i]);
        }
    }
    for (unsigned i = 0; i < VM_MAX_DISKS; i++) {
        blk_close(m->disks[i]);
    }
    for (unsigned i = 0; i < VM_MAX_CHANNELS; i++) {
        if (m->channels[i]) {
            chr_close(m->channels[i]);
        }
    }
    if (m->console) {
        chr_flush(m->console, 1000);
        chr_close(m->console);
    }
    mem_destroy(m->mem);
    vm_clock_fini(&m->clock);
    pthread_mutex_destroy(&m->req_lock);
    if (m->kernel_fd >= 0) {
        close(m->kernel_fd);
    }
    if (m->initrd_fd >= 0) {
        close(m->initrd_fd);
    }
    free(m);
}

bool machine_boot(struct machine *m, struct err *err)
{
    return board_boot(m, err);
}

void machine_start(struct machine *m)
{
    if (m->end.over || engine_running(m->engine)) {
        return;
    }
    resume_cpus(m);
    tell(m, MACHINE_EV_RESUME, false, NULL);
}

void machine_pause(struct machine *m)
{
    if (engine_running(m->engine)) {
        pause_cpus(m);
        m->status = MACHINE_PAUSED;
        tell(m, MACHINE_EV_STOP, false, NULL);
    }
}

void machine_reset(struct machine *m)
{
    if (!m->end.over) {
        do_reset(m, false);
    }
}

void machine_powerdown(struct machine *m)
{
    if (!m->end.over) {
        acpi_pm_power_button(m->pm);
        tell(m, MACHINE_EV_POWERDOWN, false, NULL);
    }
}

void machine_quit(struct machine *m)
{
    finish(m, END_QUIT, false, 0, NULL);
}

enum machine_status machine_status(const struct machine *m)
{
    return m->status;
}

const struct machine_end *machine_end(const struct machine *m)
{
    return &m->end;
}

void machine_listen(struct machine *m, struct machine_listener *l)
{
    list_add_tail(&m->listeners, &l->node);
}

void machine_unlisten(struct machine *m, struct machine_listener *l)
{
    list_del(&l->node);
}

const struct vm_config *machine_config(const struct machine *m)
{
    return m->cfg;
}

struct dev_env *machine_env(struct machine *m)
{
    return &m->env;
}

struct engine *machine_engine(struct machine *m)
{
    return m->engine;
}

static void add_region(const struct io_region *r, void *arg)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "name", json_object_new_string(r->name));
    json_object_object_add(o, "base", json_object_new_uint64(r->base));
    json_object_object_add(o, "size", json_object_new_uint64(r->size));
    json_object_array_add(arg, o);
}

static struct json_object *inspect_memory(struct machine *m)
{
    struct json_object *o = json_object_new_object(), *ram = json_object_new_array(), *mmio = json_object_new_array(), *pio = json_object_new_array();
    unsigned n;
    const struct memslot *slots = mem_slots(m->mem, &n);
    for (unsigned i = 0; i < n; i++) {
        if (slots[i].size) {
            struct json_object *s = json_object_new_object();
            json_object_object_add(s, "gpa", json_object_new_uint64(slots[i].gpa));
            json_object_object_add(s, "size", json_object_new_uint64(slots[i].size));
            json_object_object_add(s, "readonly", json_object_new_boolean(slots[i].readonly));
            json_object_array_add(ram, s);
        }
    }
    mem_io_walk(m->mem, MEM_MMIO, add_region, mmio);
    mem_io_walk(m->mem, MEM_PIO, add_region, pio);
    json_object_object_add(o, "ram", ram);
    json_object_object_add(o, "mmio", mmio);
    json_object_object_add(o, "pio", pio);
    return o;
}

struct json_object *machine_inspect(struct machine *m, const char *dev_id, struct err *err)
{
    if (dev_id) {
        struct dev *d = dev_find(&m->env, dev_id);
        if (!d) {
            err_set(err, ERR_NOT_FOUND, "Device '%.64s' not found", dev_id);
            return NULL;
        }
        return dev_inspect(d);
    }
    struct json_object *o = json_object_new_object(), *devs = json_object_new_object(), *engine = json_object_new_object();
    list_for_each(d, &m->env.devs, struct dev, node)
    {
        json_object_object_add(devs, d->id, dev_inspect(d));
    }
    json_object_object_add(engine, "name", json_object_new_string(m->engine->ops->name));
    if (m->engine->ops->inspect) {
        m->engine->ops->inspect(m->engine, engine);
    }
    json_object_object_add(o, "engine", engine);
    json_object_object_add(o, "memory", inspect_memory(m));
    json_object_object_add(o, "devices", devs);
    return o;
}
