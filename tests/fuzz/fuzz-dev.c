/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Any device against any guest. The first two bytes choose the device (a hash of its type's name, so that kept inputs go
 * on meaning what they meant when types are added); 0xffff makes the chips of a PC together. Every following operation
 * is one byte and its operands. RAM is filled with the input itself, so that DMA reads hostile structures.
 * What must hold: no crash, no endless loop, no leak; a state that was saved loads again.
 */
#include <stdlib.h>
#include <string.h>

#include "dev/fixture.h"
#include "dev/pc/pc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_OPS = 2000, FILLED_RAM = 256 * KIB, WHOLE_PC = 0xffff };

struct input {
    const uint8_t *p;
    size_t left;
};

static uint64_t take(struct input *in, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n && in->left; i++, in->left--) {
        v |= (uint64_t)*in->p++ << 8 * i;
    }
    return v;
}

static uint16_t name_hash(const char *s)
{
    uint16_t h = 5381;
    while (*s) {
        h = h * 33 + (uint8_t)*s++;
    }
    return h;
}

static const struct dev_type *choose(uint16_t key)
{
    unsigned n = 0;
    for (; dev_types[n]; n++) {
        if (name_hash(dev_types[n]->name) == key) {
            return dev_types[n];
        }
    }
    return dev_types[key % n];
}

static struct dev *make_pc(struct fixture *f)
{
    struct dev_env *env = &f->env;
    if (!q35_host_create(env, "host", &(struct q35_props){ 0 }, NULL)) {
        return NULL;
    }
    struct dev *pm = acpi_pm_create(env, "pm", &(struct acpi_pm_props){ 0 }, NULL);
    bool ok = pm && lpc_create(env, "lpc", &(struct lpc_props){ .pm = pm }, NULL) && pic_create(env, "pic", NULL) &&
              ioapic_create(env, "ioapic", &(struct ioapic_props){ 0 }, NULL) && pit_create(env, "pit", NULL) &&
              rtc_create(env, "rtc", &(struct rtc_props){ .base = RTC_AT }, NULL) &&
              serial_create(env, "serial0", &(struct serial_props){ 0 }, NULL);
    return ok ? i8042_create(env, "kbc", NULL) : NULL;
}

static void fill_ram(struct fixture *f, const uint8_t *data, size_t size)
{
    for (size_t at = 0; size && at < FILLED_RAM; at += size) {
        mem_write(f->env.mem, at, data, min_u64(size, FILLED_RAM - at));
    }
}

/* The n-th region of all devices that is mapped, or NULL. */
static struct dev_region *pick(struct fixture *f, unsigned n)
{
    struct dev_region *first = NULL;
    list_for_each(dev, &f->env.devs, struct dev, node) {
        list_for_each(r, &dev->regions, struct dev_region, node) {
            if (!r->io.mapped) {
                continue;
            }
            first = first ? first : r;
            if (!n--) {
                return r;
            }
        }
    }
    return first;
}

static void access_region(struct fixture *f, struct input *in, bool write)
{
    struct dev_region *r = pick(f, take(in, 1));
    if (!r) {
        return;
    }
    unsigned how = take(in, 1), width = 1u << (how & 3);
    uint64_t addr = r->io.base + take(in, 2) % r->io.size;
    width = r->io.space == MEM_PIO && width > 4 ? 4 : width;
    if (write) {
        mem_io_write(f->env.mem, r->io.space, addr, take(in, width), width);
    } else {
        mem_io_read(f->env.mem, r->io.space, addr, width);
    }
}

static void access_config(struct fixture *f, struct input *in, bool write)
{
    if (!f->env.pci) {
        return;
    }
    unsigned bdf = take(in, 1), off = take(in, 1), width = 1u << take(in, 1) % 3;
    if (write) {
        pci_cfg_write(f->env.pci, bdf, off, take(in, width), width);
    } else {
        pci_cfg_read(f->env.pci, bdf, off, width);
    }
}

static void raw_access(struct fixture *f, struct input *in)
{
    unsigned how = take(in, 1), width = 1u << (how & 3);
    if (how & 4) {
        width = width > 4 ? 4 : width;
        fix_out(f, take(in, 2), take(in, width), width);
    } else {
        fix_write(f, take(in, how & 8 ? 8 : 4), take(in, width), width);
    }
}

static void round_trip(struct dev *dev)
{
    AUTO_BUF struct buf s = { 0 };
    dev_save(dev, &s);
    if (!dev_load(dev, dev->type->version, s.data, s.len, NULL)) {
        abort();                /* our own state refused */
    }
}

static void hostile_load(struct dev *dev, struct input *in)
{
    AUTO_BUF struct buf s = { 0 };
    dev_save(dev, &s);
    for (unsigned n = take(in, 1) % 8; n && s.len; n--) {
        s.data[take(in, 2) % s.len] = take(in, 1);
    }
    dev_load(dev, dev->type->version, s.data, s.len, NULL);
}

static void step(struct fixture *f, struct dev *dev, struct input *in, uint64_t *now)
{
    switch (take(in, 1) & 15) {
    case 0: case 1: case 2: case 3: access_region(f, in, true); break;
    case 4: case 5: access_region(f, in, false); break;
    case 6: access_config(f, in, true); break;
    case 7: access_config(f, in, false); break;
    case 8: raw_access(f, in); break;
    case 9:
        *now += take(in, 3) * 1000;
        fix_time(f, *now);
        break;
    case 10: loop_once(f->env.main_loop, 0); break;
    case 11: round_trip(dev); break;
    case 12: hostile_load(dev, in); break;
    case 13:
        if (f->hub.pic_ack) {
            f->hub.pic_ack(f->hub.pic);
        }
        if (f->hub.eoi) {
            f->hub.eoi(f->hub.ioapic, take(in, 1));
        }
        break;
    case 14:
        if (dev->type == &i8042_type) {
            i8042_key(dev, take(in, 2), take(in, 1) & 1);
            i8042_mouse(dev, (int8_t)take(in, 1), (int32_t)take(in, 4), (int8_t)take(in, 1), take(in, 1));
        } else {
            gpa_t gpa = take(in, 2) * 4;
            uint64_t n = take(in, 1);
            mem_write(f->env.mem, gpa, in->p, min_u64(in->left, n));
        }
        break;
    default:
        dev_reset_all(&f->env);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    struct fixture f;
    uint16_t key = take(&in, 2);
    uint64_t now = 0;
    fixture_init(&f);
    struct dev *dev = key == WHOLE_PC ? make_pc(&f) : fixture_make(&f, choose(key), NULL);
    if (!dev) {
        abort();
    }
    if (f.env.pci) {
        pci_assign_all(f.env.pci, 0xc0000000, 0xc8000000, 0x1000000000, 0x1100000000, 0xc000, 0xffff, NULL);
    }
    fill_ram(&f, data, size);
    for (unsigned n = 0; in.left && n < MAX_OPS; n++) {
        step(&f, dev, &in, &now);
    }
    for (unsigned n = 0; n < 20; n++) {
        loop_once(f.env.main_loop, 0);
    }
    fixture_fini(&f);
    return 0;
}
