/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "dev/dev.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

/*
 * Life of a device: dev_create (zeroed struct, id, defaults) -> properties set by the caller -> dev_realize (type's
 * realize, then reset) -> dev_destroy. Regions belong to the device and go with it, before its memory does.
 */

void dev_env_init(struct dev_env *env)
{
    memset(env, 0, sizeof(*env));
    list_init(&env->devs);
    pthread_mutex_init(&env->legacy_lock, NULL);
    pthread_mutex_init(&env->pci_lock, NULL);
}

void dev_env_fini(struct dev_env *env)
{
    while (!list_empty(&env->devs)) {
        dev_destroy(list_entry(env->devs.prev, struct dev, node));
    }
    pthread_mutex_destroy(&env->pci_lock);
    pthread_mutex_destroy(&env->legacy_lock);
}

struct dev *dev_create(struct dev_env *env, const struct dev_type *type, const char *id)
{
    struct dev *dev = alloc0(type->size);
    dev->type = type;
    dev->env = env;
    snprintf(dev->id, sizeof(dev->id), "%s", id);
    pthread_mutex_init(&dev->own_lock, NULL);
    dev->lock = &dev->own_lock;
    dev->loop = env->main_loop;
    list_init(&dev->node);
    list_init(&dev->regions);
    return dev;
}

bool dev_realize(struct dev *dev, struct err *err)
{
    if (dev_find(dev->env, dev->id)) {
        err_set(err, ERR_EXISTS, "device id '%s' is taken", dev->id);
        dev_destroy(dev);
        return false;
    }
    if (!dev->type->realize(dev, err)) {
        err_prefix(err, "device '%s': ", dev->id);
        dev_destroy(dev);
        return false;
    }
    dev->realized = true;
    list_add_tail(&dev->env->devs, &dev->node);
    dev_reset(dev);
    return true;
}

static void region_free(struct dev_region *r)
{
    dev_region_hide(r);
    list_del(&r->node);
    free(r);
}

/*
 * Accepts NULL, and a device whose realize failed: unrealize then sees whatever realize left. On the device's loop or
 * when that no longer runs, no lock held: accesses and callbacks that wait for the lock have to be gone before it goes.
 */
void dev_destroy(struct dev *dev)
{
    if (!dev) {
        return;
    }
    list_for_each(r, &dev->regions, struct dev_region, node) {
        dev_region_hide(r);
    }
    if (dev->type->unrealize) {
        dev->type->unrealize(dev);
    }
    if (!list_empty(&dev->regions)) {
        mem_io_quiesce(dev->env->mem);
    }
    list_for_each(r, &dev->regions, struct dev_region, node) {
        region_free(r);
    }
    list_del(&dev->node);
    pthread_mutex_destroy(&dev->own_lock);
    free(dev);
}

void dev_reset(struct dev *dev)
{
    const struct dev_type *type = dev->type;
    if (type->fields) {
        state_reset(type->fields, dev);
    }
    if (type->reset) {
        type->reset(dev);
    }
    if (type->settle) {
        type->settle(dev);
    }
}

void dev_reset_all(struct dev_env *env)
{
    list_for_each(dev, &env->devs, struct dev, node) {
        dev_reset(dev);
    }
}

struct dev *dev_find(struct dev_env *env, const char *id)
{
    list_for_each(dev, &env->devs, struct dev, node) {
        if (!strcmp(dev->id, id)) {
            return dev;
        }
    }
    return NULL;
}

static uint64_t region_read(struct io_region *io, uint64_t off, unsigned width)
{
    struct dev_region *r = container_of(io, struct dev_region, io);
    return r->ops->read ? r->ops->read(r->dev, off, width) : dev_bad_read(r->dev, off, width);
}

static void region_write(struct io_region *io, uint64_t off, uint64_t val, unsigned width)
{
    struct dev_region *r = container_of(io, struct dev_region, io);
    if (r->ops->write) {
        r->ops->write(r->dev, off, val, width);
    } else {
        dev_bad_write(r->dev, off, val, width);
    }
}

#define HANDLER(min, max) { .read = region_read, .write = region_write, .min_width = (min), .max_width = (max) }
static const struct io_handler handlers[] = { HANDLER(1, 8), HANDLER(1, 1), HANDLER(2, 2), HANDLER(4, 4), HANDLER(8, 8) };
#undef HANDLER

/* The handler whose widths are those of `ops`: dispatch then splits and merges for us. */
static const struct io_handler *handler_for(const struct io_ops *ops)
{
    switch (ops->width) {
    case 1: return &handlers[1];
    case 2: return &handlers[2];
    case 4: return &handlers[3];
    case 8: return &handlers[4];
    default: return &handlers[0];
    }
}

struct dev_region *dev_add_region(struct dev *dev, const char *name, enum mem_space space, const struct io_ops *ops,
                                  uint64_t size)
{
    struct dev_region *r = new0(struct dev_region);
    r->io.name = name;
    r->io.space = space;
    r->io.size = size;
    r->io.h = handler_for(ops);
    r->io.lock = dev->lock;
    r->dev = dev;
    r->ops = ops;
    list_add_tail(&dev->regions, &r->node);
    return r;
}

bool dev_region_place(struct dev_region *r, uint64_t base, struct err *err)
{
    struct mem *m = r->dev->env->mem;
    if (r->io.mapped) {
        return r->io.base == base || mem_io_move(m, &r->io, base, err);
    }
    r->io.base = base;
    return mem_io_map(m, &r->io, err);
}

void dev_region_hide(struct dev_region *r)
{
    if (r->io.mapped) {
        mem_io_unmap(r->dev->env->mem, &r->io);
    }
}

static struct dev_region *map_at(struct dev *dev, const char *name, enum mem_space space, const struct io_ops *ops,
                                 uint64_t base, uint64_t size, struct err *err)
{
    struct dev_region *r = dev_add_region(dev, name, space, ops, size);
    if (!dev_region_place(r, base, err)) {
        region_free(r);
        return NULL;
    }
    return r;
}

struct dev_region *dev_map_pio(struct dev *dev, const char *name, const struct io_ops *ops, uint16_t base,
                               uint16_t size, struct err *err)
{
    return map_at(dev, name, MEM_PIO, ops, base, size, err);
}

struct dev_region *dev_map_mmio(struct dev *dev, const char *name, const struct io_ops *ops, gpa_t base,
                                uint64_t size, struct err *err)
{
    return map_at(dev, name, MEM_MMIO, ops, base, size, err);
}

void dev_bad_write(struct dev *dev, uint64_t off, uint64_t val, unsigned width)
{
    dev->bad_accesses++;
    LOG_LIMITED(LOG_DEBUG, "dev", "%s: write of 0x%llx (%u bytes) to offset 0x%llx, where nothing is", dev->id,
                (unsigned long long)val, width, (unsigned long long)off);
}

uint64_t dev_bad_read(struct dev *dev, uint64_t off, unsigned width)
{
    dev->bad_accesses++;
    LOG_LIMITED(LOG_DEBUG, "dev", "%s: read of %u bytes at offset 0x%llx, where nothing is", dev->id, width,
                (unsigned long long)off);
    return ~0ull;
}

void dev_save(struct dev *dev, struct buf *out)
{
    if (dev->type->fields) {
        state_save(dev->type->fields, dev, dev->type->version, out);
    }
}

/* All or nothing: what validate() refuses is undone from a copy, so that a bad stream leaves the device as it was. */
bool dev_load(struct dev *dev, uint32_t version, const uint8_t *data, size_t len, struct err *err)
{
    const struct dev_type *type = dev->type;
    AUTO_BUF struct buf before = { 0 };
    if (!type->fields) {
        return !len || err_set(err, ERR_INVALID, "device '%s': %zu bytes of state for a device that has none", dev->id,
                               len);
    }
    dev_save(dev, &before);
    if (!state_load(type->fields, dev, type->size, version, data, len, err)) {
        return err_prefix(err, "device '%s': ", dev->id);
    }
    if (type->validate && !type->validate(dev, err)) {
        err_prefix(err, "device '%s': ", dev->id);
        state_load(type->fields, dev, type->size, type->version, before.data, before.len, NULL);
        return false;
    }
    if (type->settle) {
        type->settle(dev);
    }
    return true;
}

struct json_object *dev_inspect(struct dev *dev)
{
    struct json_object *o = json_object_new_object();
    struct json_object *regions = json_object_new_array();
    json_object_object_add(o, "id", json_object_new_string(dev->id));
    json_object_object_add(o, "type", json_object_new_string(dev->type->name));
    json_object_object_add(o, "bad-accesses", json_object_new_int64(dev->bad_accesses));
    list_for_each(r, &dev->regions, struct dev_region, node) {
        struct json_object *jr = json_object_new_object();
        json_object_object_add(jr, "name", json_object_new_string(r->io.name));
        json_object_object_add(jr, "space", json_object_new_string(r->io.space == MEM_PIO ? "pio" : "mmio"));
        json_object_object_add(jr, "mapped", json_object_new_boolean(r->io.mapped));
        json_object_object_add(jr, "base", json_object_new_uint64(r->io.base));
        json_object_object_add(jr, "size", json_object_new_uint64(r->io.size));
        json_object_array_add(regions, jr);
    }
    json_object_object_add(o, "regions", regions);
    if (dev->type->fields) {
        json_object_object_add(o, "state", state_inspect(dev->type->fields, dev));
    }
    return o;
}
