/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>

#include "base/bytes.h"
#include "dev/pc/pc.h"

/*
 * What interrupt tests talk to, at the ports of QEMU's pc-testdev: 24 interrupt lines at 2000-2017 (a byte sets the GSI's
 * level to value != 0) and four bytes of echo at E0 and at E8 (the same four). Its page-flush port E4 and MMIO window are
 * left out. Only for guests that test interrupts: a machine makes it when told to.
 */
enum { ECHO_SIZE = 4 };
struct pc_testdev {
    struct dev dev;
    struct irq_line lines[N_GSIS];
    uint32_t levels;            /* of the lines */
    uint8_t echo[ECHO_SIZE];
};

static uint64_t echo_read(struct dev *dev, uint64_t off, unsigned width)
{
    return container_of(dev, struct pc_testdev, dev)->echo[off & 3];
}

static void echo_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    container_of(dev, struct pc_testdev, dev)->echo[off & 3] = val;
}

static void line_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct pc_testdev *t = container_of(dev, struct pc_testdev, dev);
    t->levels = val ? t->levels | 1u << off : t->levels & ~(1u << off);
    irq_set(&t->lines[off], val);
}

static uint64_t line_read(struct dev *dev, uint64_t off, unsigned width)
{
    return container_of(dev, struct pc_testdev, dev)->levels >> off & 1;
}

static const struct io_ops echo_io = { .read = echo_read, .write = echo_write, .width = 1 };
static const struct io_ops line_io = { .read = line_read, .write = line_write, .width = 1 };

static bool testdev_realize(struct dev *dev, struct err *err)
{
    struct pc_testdev *t = container_of(dev, struct pc_testdev, dev);
    for (unsigned i = 0; i < N_GSIS; i++) {
        irq_line_init(&t->lines[i], dev->env->irq, i);
    }
    return dev_map_pio(dev, "echo", &echo_io, 0xe0, ECHO_SIZE, err) &&
           dev_map_pio(dev, "echo-byte", &echo_io, 0xe8, ECHO_SIZE, err) &&
           dev_map_pio(dev, "lines", &line_io, 0x2000, N_GSIS, err);
}

static void testdev_settle(struct dev *dev)
{
    struct pc_testdev *t = container_of(dev, struct pc_testdev, dev);
    for (unsigned i = 0; i < N_GSIS; i++) {
        irq_set(&t->lines[i], t->levels >> i & 1);
    }
}

static void testdev_unrealize(struct dev *dev)
{
    struct pc_testdev *t = container_of(dev, struct pc_testdev, dev);
    t->levels = 0;
    testdev_settle(dev);
}

static const struct state_field testdev_fields[] = {
    STATE(struct pc_testdev, levels, .max = (1u << N_GSIS) - 1),
    STATE_BYTES(struct pc_testdev, echo),
    STATE_END
};

const struct dev_type pc_testdev_type = {
    .name = "pc-testdev", .size = sizeof(struct pc_testdev), .version = 1, .fields = testdev_fields,
    .realize = testdev_realize, .unrealize = testdev_unrealize, .settle = testdev_settle,
};

struct dev *pc_testdev_create(struct dev_env *env, const char *id, struct err *err)
{
    struct dev *dev = dev_create(env, &pc_testdev_type, id);
    return dev_realize(dev, err) ? dev : NULL;
}
