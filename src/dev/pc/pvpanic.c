/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/log.h"
#include "dev/pc/pc.h"

/* pvpanic at port 505. Source: QEMU docs/specs/pvpanic.rst. Reads give the events it knows, a write reports them. */
enum { PVPANIC_PANICKED = 1, PVPANIC_CRASH_LOADED = 2, PVPANIC_EVENTS = PVPANIC_PANICKED | PVPANIC_CRASH_LOADED };

static uint64_t pvpanic_read(struct dev *dev, uint64_t off, unsigned width)
{
    return PVPANIC_EVENTS;
}

static void pvpanic_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    if (val & ~(uint64_t)PVPANIC_EVENTS) {
        LOG_LIMITED(LOG_DEBUG, "pvpanic", "unknown event 0x%x", (unsigned)val);
    }
    if (val & PVPANIC_EVENTS) {
        dev_guest_request(dev, GUEST_PANIC, val & PVPANIC_EVENTS);
    }
}

static const struct io_ops pvpanic_io = { .read = pvpanic_read, .write = pvpanic_write, .width = 1 };

static bool pvpanic_realize(struct dev *dev, struct err *err)
{
    return dev_map_pio(dev, "pvpanic", &pvpanic_io, 0x505, 1, err);
}

const struct dev_type pvpanic_type = {
    .name = "pvpanic", .size = sizeof(struct dev), .version = 1, .realize = pvpanic_realize,
};

struct dev *pvpanic_create(struct dev_env *env, const char *id, struct err *err)
{
    struct dev *dev = dev_create(env, &pvpanic_type, id);
    return dev_realize(dev, err) ? dev : NULL;
}
