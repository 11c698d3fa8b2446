/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dev/pc/pc.h"

/*
 * Two 8237A DMA controllers and the page registers, for guests that program them before asking whether anything is
 * attached. Source: Intel 8237A data sheet (231466-005). Registers remember what is written, through the flip-flop;
 * nothing ever requests a transfer, so status reads "no request, no terminal count".
 * Ports: 00-0F (channels 0-3), C0-DF (4-7, one register every two ports), 81-83, 87, 89-8B, 8F pages and scratch.
 */
struct dma_chip {
    uint16_t regs[8];           /* base address and count of each channel */
    uint8_t mask;               /* bit a channel */
    bool high;                  /* flip-flop: next byte is the high one */
};
struct dma8237 {
    struct dev dev;
    struct dma_chip chip[2];
    uint8_t page[15];           /* ports 81-8F */
};

enum {
    R_STATUS = 8, R_MASK_ONE = 10, R_FLIP_FLOP = 12, R_MASTER_CLEAR = 13, R_CLEAR_MASK = 14, R_MASK_ALL = 15,
};

static uint8_t chip_read(struct dma_chip *c, unsigned reg)
{
    uint8_t val;
    if (reg >= R_STATUS) {
        return reg == R_MASK_ALL ? 0xf0 | c->mask : 0;
    }
    val = c->regs[reg] >> (c->high ? 8 : 0);
    c->high = !c->high;
    return val;
}

static void chip_write(struct dma_chip *c, unsigned reg, uint8_t val)
{
    switch (reg) {
    case R_MASK_ONE:
        c->mask = val & 4 ? c->mask | 1 << (val & 3) : c->mask & ~(1 << (val & 3));
        break;
    case R_FLIP_FLOP:
        c->high = false;
        break;
    case R_MASTER_CLEAR:
        c->high = false;
        c->mask = 0x0f;
        break;
    case R_CLEAR_MASK:
        c->mask = 0;
        break;
    case R_MASK_ALL:
        c->mask = val & 0x0f;
        break;
    default:
        if (reg < R_STATUS) {
            c->regs[reg] = c->high ? (c->regs[reg] & 0x00ff) | val << 8 : (c->regs[reg] & 0xff00) | val;
            c->high = !c->high;
        }
        break;                  /* command, request and mode have no effect here */
    }
}

static uint64_t low_read(struct dev *dev, uint64_t off, unsigned width)
{
    return chip_read(&container_of(dev, struct dma8237, dev)->chip[0], off);
}

static void low_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    chip_write(&container_of(dev, struct dma8237, dev)->chip[0], off, val);
}

static uint64_t high_read(struct dev *dev, uint64_t off, unsigned width)
{
    return chip_read(&container_of(dev, struct dma8237, dev)->chip[1], off / 2);
}

static void high_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    chip_write(&container_of(dev, struct dma8237, dev)->chip[1], off / 2, val);
}

static uint64_t page_read(struct dev *dev, uint64_t off, unsigned width)
{
    return container_of(dev, struct dma8237, dev)->page[off];
}

static void page_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    container_of(dev, struct dma8237, dev)->page[off] = val;
}

static const struct io_ops low_io = { .read = low_read, .write = low_write, .width = 1 };
static const struct io_ops high_io = { .read = high_read, .write = high_write, .width = 1 };
static const struct io_ops page_io = { .read = page_read, .write = page_write, .width = 1 };

static bool dma_realize(struct dev *dev, struct err *err)
{
    dev->lock = &dev->env->legacy_lock;
    return dev_map_pio(dev, "dma-low", &low_io, 0x00, 16, err) && dev_map_pio(dev, "dma-high", &high_io, 0xc0, 32, err) &&
           dev_map_pio(dev, "dma-page", &page_io, 0x81, 15, err);
}

static const struct state_field chip_fields[] = {
    STATE_ARRAY(struct dma_chip, regs),
    STATE(struct dma_chip, mask, .reset = 0x0f, .max = 0x0f),
    STATE(struct dma_chip, high, .max = 1),
    STATE_END
};

static const struct state_field dma_fields[] = {
    STATE_STRUCTS(struct dma8237, chip, chip_fields),
    STATE_BYTES(struct dma8237, page),
    STATE_END
};

const struct dev_type dma8237_type = {
    .name = "dma8237", .size = sizeof(struct dma8237), .version = 1, .fields = dma_fields, .realize = dma_realize,
};

struct dev *dma8237_create(struct dev_env *env, const char *id, struct err *err)
{
    struct dev *dev = dev_create(env, &dma8237_type, id);
    return dev_realize(dev, err) ? dev : NULL;
}
