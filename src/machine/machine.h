/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A whole guest: from a checked vm_config to slots, buses, devices, vCPUs. The one place that knows everything.
 * Order of life: machine_create (all descriptors in hand, nothing untrusted parsed) -> sandbox closes -> machine_boot
 * (parses kernel and initrd, sets the boot CPU) -> machine_start. Main-loop thread, but for what says otherwise.
 */
#ifndef LODGE_MACHINE_MACHINE_H
#define LODGE_MACHINE_MACHINE_H

#include "base/json.h"
#include "dev/dev.h"
#include "engine/engine.h"
#include "loop/loop.h"
#include "schema/vm_config.h"

struct machine;

enum machine_event {
    MACHINE_EV_STOP,            /* vCPUs stand still */
    MACHINE_EV_RESUME,
    MACHINE_EV_RESET,           /* by guest or host */
    MACHINE_EV_POWERDOWN,       /* the button was pressed by us */
    MACHINE_EV_SHUTDOWN,        /* the guest is over; see machine_end */
    MACHINE_EV_PANICKED,
    MACHINE_EV_ERROR,           /* the engine gave up: message; the guest is stopped */
};
struct machine_listener {
    void (*event)(struct machine_listener *l, enum machine_event ev, bool by_guest, const char *msg);
    struct list node;
};

enum machine_status { MACHINE_PRELAUNCH, MACHINE_RUNNING, MACHINE_PAUSED, MACHINE_SHUTDOWN, MACHINE_PANICKED, MACHINE_ERROR };
/* QEMU's names: "prelaunch", "running", "paused", "shutdown", "guest-panicked", "internal-error". */
const char *machine_status_name(enum machine_status s);

/* Why it ended, for the exit status of lodge run. */
struct machine_end {
    bool over;
    bool by_guest;
    enum { END_SHUTDOWN, END_RESET /* with --no-reboot */, END_DEBUG_EXIT, END_TRIPLE_FAULT /* with --no-reboot */, END_PANIC, END_ERROR, END_QUIT } why;
    uint32_t code;              /* END_DEBUG_EXIT: value the guest wrote */
};

/* Takes over every descriptor in cfg (also on failure); cfg itself is borrowed for the machine's life. main_loop and io_loop may be one. */
struct machine *machine_create(const struct vm_config *cfg, struct loop *main_loop, struct loop *io_loop, struct err *err);
void machine_destroy(struct machine *m);
bool machine_boot(struct machine *m, struct err *err);
void machine_start(struct machine *m);          /* first run, and `cont` */
void machine_pause(struct machine *m);          /* `stop` */
void machine_reset(struct machine *m);          /* `system_reset`; by the host */
void machine_powerdown(struct machine *m);      /* `system_powerdown`: presses the button */
void machine_quit(struct machine *m);           /* the guest is over now; MACHINE_EV_SHUTDOWN by host */
enum machine_status machine_status(const struct machine *m);
const struct machine_end *machine_end(const struct machine *m);
void machine_listen(struct machine *m, struct machine_listener *l);
void machine_unlisten(struct machine *m, struct machine_listener *l);

const struct vm_config *machine_config(const struct machine *m);
struct dev_env *machine_env(struct machine *m);
struct engine *machine_engine(struct machine *m);
/* x-inspect: every device by its field table, the engine's counters, the memory map. The caller owns it. */
struct json_object *machine_inspect(struct machine *m, const char *dev_id, struct err *err);

#endif
