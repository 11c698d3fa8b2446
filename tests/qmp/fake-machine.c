/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "qmp/fake-machine.h"

#include <string.h>

static const struct engine_ops fake_ops = { .name = "soft" };

void fake_machine_init(struct machine *m)
{
    memset(m, 0, sizeof(*m));
    list_init(&m->listeners);
    m->cfg.name = (char *)"web1";
    m->cfg.uuid = (char *)"01234567-89ab-cdef-0123-456789abcdef";
    m->cfg.memory = 512ull * MIB;
    m->cfg.cpu = (struct vm_cpu_config){ .count = 4, .sockets = 1, .cores = 2, .threads = 2 };
    m->cfg.kvm_fd = -1;
    m->engine = (struct engine){ .ops = &fake_ops, .vcpus = m->vcpus };
    for (int i = 0; i < 4; i++) {
        m->vcpus[i].tid = 1000 + i;
    }
}

void fake_machine_tell(struct machine *m, enum machine_event ev, bool by_guest)
{
    list_for_each(l, &m->listeners, struct machine_listener, node)
    {
        l->event(l, ev, by_guest, NULL);
    }
}

void fake_machine_end(struct machine *m, int why, bool by_guest)
{
    m->end = (struct machine_end){ .over = true, .by_guest = by_guest, .why = (__typeof__(m->end.why))why };
    m->status = MACHINE_SHUTDOWN;
    if (why == END_PANIC) {
        fake_machine_tell(m, MACHINE_EV_PANICKED, true);
    }
    fake_machine_tell(m, why == END_ERROR ? MACHINE_EV_ERROR : MACHINE_EV_SHUTDOWN, by_guest);
}

const char *machine_status_name(enum machine_status s)
{
    static const char *const names[] = { "prelaunch", "running", "paused", "shutdown", "guest-panicked", "internal-error" };
    return names[s];
}

void machine_start(struct machine *m)
{
    if (m->status != MACHINE_RUNNING) {
        m->status = MACHINE_RUNNING;
        fake_machine_tell(m, MACHINE_EV_RESUME, false);
    }
}

void machine_pause(struct machine *m)
{
    if (m->status == MACHINE_RUNNING) {
        m->status = MACHINE_PAUSED;
        fake_machine_tell(m, MACHINE_EV_STOP, false);
    }
}

void machine_reset(struct machine *m)
{
    m->resets++;
    fake_machine_tell(m, MACHINE_EV_RESET, false);
}

void machine_powerdown(struct machine *m)
{
    m->powerdowns++;
    fake_machine_tell(m, MACHINE_EV_POWERDOWN, false);
}

void machine_quit(struct machine *m)
{
    fake_machine_end(m, END_QUIT, false);
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
    return &m->cfg;
}

struct engine *machine_engine(struct machine *m)
{
    return &m->engine;
}

struct json_object *machine_inspect(struct machine *m, const char *dev_id, struct err *err)
{
    if (dev_id && strcmp(dev_id, "rtc") != 0) {
        err_set(err, ERR_NOT_FOUND, "Device '%.64s' not found", dev_id);
        return NULL;
    }
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, dev_id ? "cmos" : "devices", json_object_new_object());
    return o;
}
