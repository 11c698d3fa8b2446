/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "dev/pc/pc.h"

/*
 * QEMU firmware configuration device. Source: QEMU docs/specs/fw_cfg.rst. Selector and data at ports 510/511, DMA at 514.
 * Items are what the machine was made of, not state: a saved VM holds only the selector and the position, and the
 * destination has built the same items. Nothing is writable by the guest. A read past an item's end gives zeros.
 */
struct fw_item {
    uint8_t *data;              /* owned */
    uint32_t len;
};
struct fw_file {
    char name[56];
    struct fw_item item;
};

struct fw_cfg {
    struct dev dev;
    struct fw_cfg_props props;
    struct fw_item keys[FW_CFG_FILE_FIRST];
    struct fw_file files[FW_CFG_MAX_FILES];     /* by name: key FW_CFG_FILE_FIRST + index */
    unsigned n_files;
    uint64_t dma_addr;          /* high half written, low half not yet */
    uint32_t pos;               /* in the selected item */
    uint16_t key;
};

enum {
    FEATURE_PORT = 1, FEATURE_DMA = 2,
    DMA_ERROR = 1, DMA_READ = 2, DMA_SKIP = 4, DMA_SELECT = 8, DMA_WRITE = 16,
    KEY_MASK = 0x3fff,          /* bit 14 asks for write access, bit 15 for the architecture's own items */
};
static const uint64_t dma_signature = 0x51454d5520434647ull;    /* "QEMU CFG" */

static const struct fw_item *selected(const struct fw_cfg *f)
{
    static const struct fw_item none;
    if (f->key < FW_CFG_FILE_FIRST) {
        return &f->keys[f->key];
    }
    return f->key - FW_CFG_FILE_FIRST < (int)f->n_files ? &f->files[f->key - FW_CFG_FILE_FIRST].item : &none;
}

static void select_key(struct fw_cfg *f, uint16_t key)
{
    f->key = key & 0x8000 ? KEY_MASK : key & KEY_MASK;
    f->pos = 0;
}

/* Up to `want` bytes at the position; moves past them and past the zeros that follow the end. Returns what is there. */
static uint32_t advance(struct fw_cfg *f, uint32_t want, const uint8_t **data)
{
    const struct fw_item *item = selected(f);
    uint32_t left = f->pos < item->len ? item->len - f->pos : 0;
    *data = left ? item->data + f->pos : NULL;
    f->pos = f->pos > UINT32_MAX - want ? UINT32_MAX : f->pos + want;
    return min_u64(left, want);
}

static uint64_t port_read(struct dev *dev, uint64_t off, unsigned width)
{
    struct fw_cfg *f = container_of(dev, struct fw_cfg, dev);
    const uint8_t *data;
    return off == 1 && width == 1 && advance(f, 1, &data) ? *data : 0;
}

static void port_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    if (off == 0 && width == 2) {
        select_key(container_of(dev, struct fw_cfg, dev), val);
    }
}

/* Zeroes behind an item's end that one command may ask for: more would keep the vCPU here for long. */
enum { DMA_ZERO_MAX = 16 * MIB };

/* Copies `len` bytes of the selected item to guest memory. RAM only: mem refuses anything else as a whole. */
static bool dma_read_item(struct fw_cfg *f, gpa_t to, uint32_t len)
{
    struct mem *m = f->dev.env->mem;
    const uint8_t *data;
    uint32_t n = advance(f, len, &data);
    if (len - n > DMA_ZERO_MAX) {
        return false;
    }
    return (!n || mem_write(m, to, data, n)) && (n == len || mem_zero(m, to + n, len - n));
}

/* Runs the command block at `gpa`: control, length, address, all big-endian. It is fetched once. */
static void dma_run(struct fw_cfg *f, gpa_t gpa)
{
    uint8_t cmd[16], result[4];
    uint32_t control, len;
    bool ok = true;
    if (!mem_read(f->dev.env->mem, gpa, cmd, sizeof(cmd))) {
        return;
    }
    control = load_be32(cmd);
    len = load_be32(cmd + 4);
    if (control & DMA_SELECT) {
        select_key(f, control >> 16);
    }
    if (control & DMA_READ) {
        ok = dma_read_item(f, load_be64(cmd + 8), len);
    } else if (control & DMA_WRITE) {
        ok = false;
    } else if (control & DMA_SKIP) {
        const uint8_t *data;
        advance(f, len, &data);
    }
    store_be32(result, ok ? 0 : DMA_ERROR);
    mem_write(f->dev.env->mem, gpa, result, sizeof(result));
}

/* The DMA address register is big-endian at port 514; reads give the signature the same way. */
static uint64_t dma_read(struct dev *dev, uint64_t off, unsigned width)
{
    uint8_t sig[8];
    store_be64(sig, dma_signature);
    return load_le32(sig + (off & 4));
}

static void dma_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    struct fw_cfg *f = container_of(dev, struct fw_cfg, dev);
    uint32_t half = __builtin_bswap32((uint32_t)val);
    if (off == 0) {
        f->dma_addr = (uint64_t)half << 32;
    } else if (off == 4) {
        gpa_t gpa = f->dma_addr | half;
        f->dma_addr = 0;
        dma_run(f, gpa);
    }
}

static const struct io_ops port_io = { .read = port_read, .write = port_write };
static const struct io_ops dma_io = { .read = dma_read, .write = dma_write, .width = 4 };

static bool item_set(struct fw_item *item, const void *data, size_t len, struct err *err)
{
    uint8_t *copy = try_alloc(len ? len : 1, 1, FW_CFG_MAX_ITEM, err);
    if (!copy) {
        return false;
    }
    if (len) {
        memcpy(copy, data, len);
    }
    free(item->data);
    *item = (struct fw_item){ copy, len };
    return true;
}

bool fw_cfg_add_key(struct dev *dev, unsigned key, const void *data, size_t len, struct err *err)
{
    struct fw_cfg *f = container_of(dev, struct fw_cfg, dev);
    if (key >= FW_CFG_FILE_FIRST) {
        return err_set(err, ERR_INVALID, "0x%x is not a key of fw_cfg", key);
    }
    return item_set(&f->keys[key], data, len, err) || err_prefix(err, "fw_cfg key 0x%x: ", key);
}

static bool make_directory(struct fw_cfg *f, struct err *err)
{
    AUTO_BUF struct buf dir = { 0 };
    uint8_t word[4];
    store_be32(word, f->n_files);
    buf_add(&dir, word, 4);
    for (unsigned i = 0; i < f->n_files; i++) {
        store_be32(word, f->files[i].item.len);
        buf_add(&dir, word, 4);
        store_be16(word, FW_CFG_FILE_FIRST + i);
        buf_add(&dir, word, 2);
        buf_add_zero(&dir, 2);
        buf_add(&dir, f->files[i].name, sizeof(f->files[i].name));
    }
    return item_set(&f->keys[FW_CFG_DIR], dir.data, dir.len, err);
}

bool fw_cfg_add_file(struct dev *dev, const char *name, const void *data, size_t len, struct err *err)
{
    struct fw_cfg *f = container_of(dev, struct fw_cfg, dev);
    struct fw_file file = { 0 };
    unsigned at = 0;
    if (!*name || strlen(name) >= sizeof(file.name)) {
        return err_set(err, ERR_INVALID, "fw_cfg file name '%s' is empty or longer than 55 bytes", name);
    }
    if (f->n_files == FW_CFG_MAX_FILES) {
        return err_set(err, ERR_LIMIT, "no more than %u fw_cfg files", FW_CFG_MAX_FILES);
    }
    while (at < f->n_files && strcmp(f->files[at].name, name) < 0) {
        at++;
    }
    if (at < f->n_files && !strcmp(f->files[at].name, name)) {
        return err_set(err, ERR_EXISTS, "fw_cfg file '%s' is there already", name);
    }
    memcpy(file.name, name, strlen(name));
    if (!item_set(&file.item, data, len, err)) {
        return err_prefix(err, "fw_cfg file '%s': ", name);
    }
    memmove(&f->files[at + 1], &f->files[at], (f->n_files - at) * sizeof(file));
    f->files[at] = file;
    f->n_files++;
    return make_directory(f, err);
}

static bool add_int(struct fw_cfg *f, unsigned key, unsigned width, uint64_t v, struct err *err)
{
    uint8_t le[8];
    store_le64(le, v);
    return fw_cfg_add_key(&f->dev, key, le, width, err);
}

static bool fw_realize(struct dev *dev, struct err *err)
{
    struct fw_cfg *f = container_of(dev, struct fw_cfg, dev);
    const struct fw_cfg_props *p = &f->props;
    uint16_t max_cpus = p->max_cpus > p->n_cpus ? p->max_cpus : p->n_cpus;
    return fw_cfg_add_key(dev, FW_CFG_SIGNATURE, "QEMU", 4, err) &&
           add_int(f, FW_CFG_FEATURES, 4, FEATURE_PORT | FEATURE_DMA, err) &&
           fw_cfg_add_key(dev, FW_CFG_UUID, p->uuid, sizeof(p->uuid), err) &&
           add_int(f, FW_CFG_RAM_SIZE, 8, p->ram_size, err) && add_int(f, FW_CFG_NO_GRAPHIC, 2, 1, err) &&
           add_int(f, FW_CFG_N_CPUS, 2, p->n_cpus, err) && add_int(f, FW_CFG_MAX_CPUS, 2, max_cpus, err) &&
           add_int(f, FW_CFG_BOOT_MENU, 2, 0, err) && make_directory(f, err) &&
           dev_map_pio(dev, "fw-cfg", &port_io, 0x510, 2, err) && dev_map_pio(dev, "fw-cfg-dma", &dma_io, 0x514, 8, err);
}

static void fw_unrealize(struct dev *dev)
{
    struct fw_cfg *f = container_of(dev, struct fw_cfg, dev);
    for (unsigned i = 0; i < FW_CFG_FILE_FIRST; i++) {
        free(f->keys[i].data);
    }
    for (unsigned i = 0; i < f->n_files; i++) {
        free(f->files[i].item.data);
    }
}

static const struct state_field fw_fields[] = {
    STATE(struct fw_cfg, dma_addr),
    STATE(struct fw_cfg, pos),
    STATE(struct fw_cfg, key, .max = KEY_MASK),
    STATE_END
};

const struct dev_type fw_cfg_type = {
    .name = "fw-cfg", .size = sizeof(struct fw_cfg), .version = 1, .fields = fw_fields, .realize = fw_realize,
    .unrealize = fw_unrealize,
};

struct dev *fw_cfg_create(struct dev_env *env, const char *id, const struct fw_cfg_props *props, struct err *err)
{
    struct fw_cfg *f = container_of(dev_create(env, &fw_cfg_type, id), struct fw_cfg, dev);
    f->props = *props;
    return dev_realize(&f->dev, err) ? &f->dev : NULL;
}
