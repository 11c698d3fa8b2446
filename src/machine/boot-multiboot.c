/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Multiboot 1. Source: Multiboot specification 0.6.96, sections 3.1 (header), 3.2 (machine state), 3.3 (information).
 * --initrd is one module, passed with no arguments of its own.
 */
#include "machine/boot-int.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"

enum {
    MB_PAGE_ALIGN = 1, MB_MEMORY = 2, MB_VIDEO = 4, MB_ADDRESSES = 1 << 16, MB_KNOWN = MB_PAGE_ALIGN | MB_MEMORY | MB_VIDEO,
    MBI_MEMORY = 1, MBI_CMDLINE = 4, MBI_MODULES = 8, MBI_MMAP = 64, MBI_LOADER = 512,
    INFO_SIZE = 0x58, MODULE = 0x60, MMAP = 0x80, NAME = MMAP + 24 * BOOT_MAX_E820,
};

/* a.out kludge: the header itself says what part of the file goes where. */
static bool load_flat(struct boot_image *img, unsigned hoff, struct elf_info *info, struct err *err)
{
    const uint8_t *h = img->head + hoff;
    if (hoff + 32 > min_u64(img->size, BOOT_HEAD)) {
        return err_set(err, ERR_INVALID, "its multiboot header is cut off");
    }
    uint64_t header = load_le32(h + 12), load = load_le32(h + 16), load_end = load_le32(h + 20), bss_end = load_le32(h + 24);
    uint64_t start = hoff - (header - load);            /* in the file; wraps and is refused when header < load */
    if (header < load || header - load > hoff) {
        return err_set(err, ERR_INVALID, "its multiboot addresses contradict each other");
    }
    uint64_t len = load_end ? load_end - load : img->size - start;
    uint64_t end = max_u64(bss_end, load + len);
    if ((load_end && load_end < load) || !range_ok(start, len, img->size) || load < BOOT_HIGH_START || end < load || end > img->cfg->low_ram) {
        return err_set(err, ERR_INVALID, "its multiboot addresses lie outside the file or the guest's memory");
    }
    info->entry = load_le32(h + 28);
    info->top = end;
    return boot_file_to_ram(img->cfg, img->cfg->kernel_fd, start, load, len, err) &&
           (mem_zero(img->cfg->mem, load + len, end - load - len) || err_set(err, ERR_INVALID, "its bss is outside RAM"));
}

static bool put_info(const struct boot_config *cfg, gpa_t module, uint64_t module_size, struct err *err)
{
    static const char loader[] = "Lodge";
    uint8_t b[NAME + sizeof(loader)] = { 0 };
    store_le32(b, MBI_MEMORY | MBI_CMDLINE | MBI_MMAP | MBI_LOADER | (module_size ? MBI_MODULES : 0));
    store_le32(b + 4, BOOT_LOW_END / KIB);
    store_le32(b + 8, (uint32_t)((cfg->low_ram - MIB) / KIB));
    store_le32(b + 0x10, BOOT_CMDLINE);
    if (module_size) {
        store_le32(b + 0x14, 1);
        store_le32(b + 0x18, BOOT_START_INFO + MODULE);
        store_le32(b + MODULE, (uint32_t)module);
        store_le32(b + MODULE + 4, (uint32_t)(module + module_size));
    }
    store_le32(b + 0x2c, 24 * cfg->n_e820);
    store_le32(b + 0x30, BOOT_START_INFO + MMAP);
    store_le32(b + 0x40, BOOT_START_INFO + NAME);
    for (unsigned i = 0; i < cfg->n_e820; i++) {
        uint8_t *e = b + MMAP + 24 * i;
        store_le32(e, 20);
        store_le64(e + 4, cfg->e820[i].addr);
        store_le64(e + 12, cfg->e820[i].size);
        store_le32(e + 20, cfg->e820[i].type);
    }
    memcpy(b + NAME, loader, sizeof(loader));
    return boot_write(cfg, BOOT_START_INFO, b, sizeof(b), err);
}

bool boot_multiboot(struct boot_image *img, unsigned header_off, struct x86_state *st, const char **how, struct err *err)
{
    const struct boot_config *cfg = img->cfg;
    uint32_t flags = load_le32(img->head + header_off + 4), cmdline_len;
    struct elf_info info = { 0 };
    gpa_t module;
    uint64_t module_size;
    if (flags & 0xffff & ~MB_KNOWN) {
        return err_set(err, ERR_UNSUPPORTED, "its multiboot header demands features %#x that are not offered", flags & 0xffff & ~MB_KNOWN);
    }
    bool loaded;
    if (flags & MB_ADDRESSES) {
        loaded = load_flat(img, header_off, &info, err);
    } else if (memcmp(img->head, "\177ELF", 4) == 0) {
        loaded = boot_elf_load(img, &info, err);
    } else {
        loaded = err_set(err, ERR_INVALID, "its multiboot header has no addresses and it is not ELF");
    }
    if (!loaded || !boot_put_cmdline(cfg, BOOT_CMDLINE_MAX - 1, &cmdline_len, err) ||
        !boot_put_initrd(cfg, info.top, UINT32_MAX, &module, &module_size, err) || !put_info(cfg, module, module_size, err)) {
        return false;
    }
    if (info.entry > UINT32_MAX || !boot_state32(cfg, st, (uint32_t)info.entry, err)) {
        return err_set(err, ERR_INVALID, "its multiboot entry is above 4 GiB");
    }
    *how = "multiboot";
    st->gpr[R_AX] = 0x2badb002;
    st->gpr[R_BX] = BOOT_START_INFO;
    return true;
}
