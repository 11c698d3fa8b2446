/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/log.h"
#include "dev/pc/pc.h"

/*
 * Debug console port, as Bochs (E9) and SeaBIOS and OVMF (402) write it. A line goes to the log at debug level, at the
 * rate the log allows a guest; the log escapes it. A line longer than the buffer is cut in pieces.
 */
enum { LINE_SIZE = 160 };
struct debugcon {
    struct dev dev;
    struct debugcon_props props;
    uint8_t line[LINE_SIZE];
    uint8_t n;
};

static uint64_t debugcon_read(struct dev *dev, uint64_t off, unsigned width)
{
    return 0xe9;                /* "I am here" */
}

static void debugcon_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct debugcon *d = container_of(dev, struct debugcon, dev);
    uint8_t c = val;
    if (c != '\n' && c != '\r' && c) {
        d->line[d->n++] = c;
    }
    if (d->n && (c == '\n' || d->n == LINE_SIZE)) {
        LOG_LIMITED(LOG_DEBUG, "firmware", "%.*s", (int)d->n, (const char *)d->line);
        d->n = 0;
    }
}

static const struct io_ops debugcon_io = { .read = debugcon_read, .write = debugcon_write, .width = 1 };

static bool debugcon_realize(struct dev *dev, struct err *err)
{
    struct debugcon *d = container_of(dev, struct debugcon, dev);
    return dev_map_pio(dev, "debugcon", &debugcon_io, d->props.base ? d->props.base : 0xe9, 1, err);
}

static const struct state_field debugcon_fields[] = {
    STATE_BYTES(struct debugcon, line),
    STATE(struct debugcon, n, .max = LINE_SIZE - 1),
    STATE_END
};

const struct dev_type debugcon_type = {
    .name = "debugcon", .size = sizeof(struct debugcon), .version = 1, .fields = debugcon_fields,
    .realize = debugcon_realize,
};

struct dev *debugcon_create(struct dev_env *env, const char *id, const struct debugcon_props *props, struct err *err)
{
    struct debugcon *d = container_of(dev_create(env, &debugcon_type, id), struct debugcon, dev);
    d->props = *props;
    return dev_realize(&d->dev, err) ? &d->dev : NULL;
}
