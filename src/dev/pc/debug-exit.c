/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dev/pc/pc.h"

/* debug-exit, four ports that end the VM. Source: QEMU hw/misc/debugexit.c; what the value means is the machine's affair. */
struct debug_exit {
    struct dev dev;
    struct debug_exit_props props;
};

static uint64_t exit_read(struct dev *dev, uint64_t off, unsigned width)
{
    return 0;
}

static void exit_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    if (off == 0) {
        dev_guest_request(dev, GUEST_EXIT, val);
    }
}

static const struct io_ops exit_io = { .read = exit_read, .write = exit_write };

static bool exit_realize(struct dev *dev, struct err *err)
{
    struct debug_exit *d = container_of(dev, struct debug_exit, dev);
    return dev_map_pio(dev, "debug-exit", &exit_io, d->props.base ? d->props.base : 0xf4, 4, err);
}

const struct dev_type debug_exit_type = {
    .name = "debug-exit", .size = sizeof(struct debug_exit), .version = 1, .realize = exit_realize,
};

struct dev *debug_exit_create(struct dev_env *env, const char *id, const struct debug_exit_props *props, struct err *err)
{
    struct debug_exit *d = container_of(dev_create(env, &debug_exit_type, id), struct debug_exit, dev);
    d->props = *props;
    return dev_realize(&d->dev, err) ? &d->dev : NULL;
}
