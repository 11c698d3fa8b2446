/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dev/pc/pc.h"

/* POST code latch at port 80. Guests also write it to waste a microsecond, so it does nothing but remember. */
struct port80 {
    struct dev dev;
    uint8_t code;
};

static uint64_t port80_read(struct dev *dev, uint64_t off, unsigned width)
{
    return container_of(dev, struct port80, dev)->code;
}

static void port80_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    container_of(dev, struct port80, dev)->code = val;
}

static const struct io_ops port80_io = { .read = port80_read, .write = port80_write, .width = 1 };

static bool port80_realize(struct dev *dev, struct err *err)
{
    return dev_map_pio(dev, "post", &port80_io, 0x80, 1, err);
}

static const struct state_field port80_fields[] = { STATE(struct port80, code), STATE_END };

const struct dev_type port80_type = {
    .name = "port80", .size = sizeof(struct port80), .version = 1, .fields = port80_fields, .realize = port80_realize,
};

struct dev *port80_create(struct dev_env *env, const char *id, struct err *err)
{
    struct dev *dev = dev_create(env, &port80_type, id);
    return dev_realize(dev, err) ? dev : NULL;
}
