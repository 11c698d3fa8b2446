/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/boot.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "machine/boot-int.h"

static bool file_size(int fd, const char *what, uint64_t *size, struct err *err)
{
    struct stat sb;
    if (fstat(fd, &sb) < 0) {
        return err_set_errno(err, errno, "%s", what);
    }
    if (!S_ISREG(sb.st_mode)) {
        return err_set(err, ERR_INVALID, "%s is not a regular file", what);
    }
    if (sb.st_size == 0) {
        return err_set(err, ERR_INVALID, "%s is empty", what);
    }
    *size = (uint64_t)sb.st_size;
    return true;
}

bool boot_file_to_ram(const struct boot_config *cfg, int fd, uint64_t off, gpa_t gpa, uint64_t len, struct err *err)
{
    struct mem_map map;
    if (!len) {
        return true;
    }
    if (!mem_map(cfg->mem, gpa, len, true, &map)) {
        return err_set(err, ERR_INVALID, "needs guest memory at %#" PRIx64 "-%#" PRIx64 ", which is not RAM: give the guest more --memory",
                       gpa, gpa + len - 1);
    }
    bool ok = true;
    for (unsigned i = 0; i < map.n_iov && ok; i++) {
        ssize_t n = fd_pread_full(fd, map.iov[i].iov_base, map.iov[i].iov_len, off);
        if (n < 0) {
            ok = err_set_errno(err, errno, "reading");
        } else if ((size_t)n < map.iov[i].iov_len) {
            ok = err_set(err, ERR_INVALID, "the file became shorter while it was read");
        }
        off += map.iov[i].iov_len;
    }
    mem_unmap(&map);
    return ok;
}

bool boot_file_read(const struct boot_config *cfg, uint64_t off, void *buf, size_t len, struct err *err)
{
    ssize_t n = fd_pread_full(cfg->kernel_fd, buf, len, off);
    if (n < 0) {
        return err_set_errno(err, errno, "reading");
    }
    return (size_t)n == len || err_set(err, ERR_INVALID, "it is cut off: %zu bytes at offset %" PRIu64 " are missing", len - (size_t)n, off + (uint64_t)n);
}

bool boot_write(const struct boot_config *cfg, gpa_t gpa, const void *buf, size_t len, struct err *err)
{
    return mem_write(cfg->mem, gpa, buf, len) ||
           err_set(err, ERR_INVALID, "no guest memory at %#" PRIx64 ": give the guest more --memory", gpa);
}

bool boot_put_cmdline(const struct boot_config *cfg, uint64_t max, uint32_t *len, struct err *err)
{
    const char *s = cfg->append ? cfg->append : "";
    size_t n = strlen(s);
    if (n > max || n >= BOOT_CMDLINE_MAX) {
        return err_set(err, ERR_LIMIT, "the command line has %zu bytes and this kernel takes at most %" PRIu64, n, min_u64(max, BOOT_CMDLINE_MAX - 1));
    }
    *len = (uint32_t)n;
    return boot_write(cfg, BOOT_CMDLINE, s, n + 1, err);
}

bool boot_put_initrd(const struct boot_config *cfg, uint64_t bottom, uint64_t top, gpa_t *gpa, uint64_t *size, struct err *err)
{
    *gpa = *size = 0;
    if (cfg->initrd_fd < 0) {
        return true;
    }
    if (!file_size(cfg->initrd_fd, "initrd", size, err)) {
        return false;
    }
    uint64_t end = min_u64(cfg->low_ram, top == UINT64_MAX ? top : top + 1);
    bottom = (bottom + PAGE_SIZE - 1) & ~(uint64_t)(PAGE_SIZE - 1);
    if (end < *size || ((end - *size) & ~(uint64_t)(PAGE_SIZE - 1)) < bottom) {
        return err_set(err, ERR_INVALID, "the initrd has %" PRIu64 " bytes and only %" PRIu64 " are free above the kernel: give the guest more --memory",
                       *size, end > bottom ? end - bottom : 0);
    }
    *gpa = (end - *size) & ~(uint64_t)(PAGE_SIZE - 1);
    return boot_file_to_ram(cfg, cfg->initrd_fd, 0, *gpa, *size, err) || err_prefix(err, "initrd: ");
}

/* GDT: null, null, flat code at 0x10, flat data at 0x18, 32-bit TSS at 0x20. */
static bool put_gdt(const struct boot_config *cfg, bool long_mode, struct err *err)
{
    uint8_t gdt[5 * 8] = { 0 };
    store_le64(gdt + 0x10, long_mode ? 0x00af9b000000ffff : 0x00cf9b000000ffff);
    store_le64(gdt + 0x18, 0x00cf93000000ffff);
    store_le64(gdt + 0x20, 0x00008b0000000067);
    return boot_write(cfg, BOOT_GDT, gdt, sizeof(gdt), err);
}

static void set_segments(struct x86_state *st, bool long_mode)
{
    const uint16_t code = (uint16_t)(0xb | SEGA_S | SEGA_P | SEGA_G | (long_mode ? SEGA_L : SEGA_DB));
    const uint16_t data = 0x3 | SEGA_S | SEGA_P | SEGA_G | SEGA_DB;
    for (unsigned i = 0; i < 6; i++) {
        bool cs = i == 1;
        st->seg[i] = (struct x86_seg){ .base = 0, .limit = 0xffffffff, .sel = cs ? 0x10 : 0x18, .attr = cs ? code : data };
    }
    st->tr = (struct x86_seg){ .base = 0, .limit = 0x67, .sel = 0x20, .attr = 0xb | SEGA_P };
    st->gdt = (struct x86_dtable){ .base = BOOT_GDT, .limit = 5 * 8 - 1 };
    st->idt = (struct x86_dtable){ .base = 0, .limit = 0 };
    st->rflags = X86_F1;
}

bool boot_state32(const struct boot_config *cfg, struct x86_state *st, uint32_t entry, struct err *err)
{
    set_segments(st, false);
    memset(st->gpr, 0, sizeof(st->gpr));
    st->cr0 = CR0_PE | CR0_ET | CR0_NE;
    st->cr4 = st->cr3 = st->efer = 0;
    st->rip = entry;
    return put_gdt(cfg, false, err);
}

bool boot_state64(const struct boot_config *cfg, struct x86_state *st, uint64_t entry, struct err *err)
{
    uint8_t table[PAGE_SIZE] = { 0 };
    store_le64(table, (BOOT_PAGE_TABLES + PAGE_SIZE) | 3);
    if (!boot_write(cfg, BOOT_PAGE_TABLES, table, sizeof(table), err)) {
        return false;
    }
    for (unsigned i = 0; i < 4; i++) {
        store_le64(table + 8 * i, (uint64_t)(BOOT_PAGE_TABLES + (2 + i) * PAGE_SIZE) | 3);
    }
    if (!boot_write(cfg, BOOT_PAGE_TABLES + PAGE_SIZE, table, sizeof(table), err)) {
        return false;
    }
    for (unsigned d = 0; d < 4; d++) {
        for (unsigned i = 0; i < 512; i++) {
            store_le64(table + 8 * i, ((uint64_t)(d * 512 + i) << 21) | 0x83);  /* present, writable, 2 MiB */
        }
        if (!boot_write(cfg, BOOT_PAGE_TABLES + (2 + d) * PAGE_SIZE, table, sizeof(table), err)) {
            return false;
        }
    }
    set_segments(st, true);
    memset(st->gpr, 0, sizeof(st->gpr));
    st->gpr[R_SI] = BOOT_ZERO_PAGE;
    st->gpr[R_SP] = BOOT_STACK;
    st->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    st->cr3 = BOOT_PAGE_TABLES;
    st->cr4 = CR4_PAE;
    st->efer = EFER_LME | EFER_LMA;
    st->rip = entry;
    return put_gdt(cfg, true, err);
}

/* Offset of a multiboot 1 header in the first 8 KiB, or -1. */
static int find_multiboot(const struct boot_image *img)
{
    uint64_t n = min_u64(img->size, BOOT_HEAD);
    for (unsigned off = 0; off + 12 <= n; off += 4) {
        if (load_le32(img->head + off) == 0x1badb002 &&
            load_le32(img->head + off) + load_le32(img->head + off + 4) + load_le32(img->head + off + 8) == 0) {
            return (int)off;
        }
    }
    return -1;
}

static bool load_kernel(struct boot_image *img, struct x86_state *bsp, const char **how, struct err *err)
{
    if (img->size >= 0x268 && load_le16(img->head + 0x1fe) == 0xaa55 && memcmp(img->head + 0x202, "HdrS", 4) == 0) {
        return boot_linux(img, bsp, how, err);
    }
    int mb = find_multiboot(img);
    if (mb >= 0) {
        return boot_multiboot(img, (unsigned)mb, bsp, how, err);
    }
    if (memcmp(img->head, "\177ELF", 4) == 0) {
        return boot_elf(img, bsp, how, err);
    }
    return err_set(err, ERR_INVALID, "it is none of: Linux bzImage, ELF with a PVH note, 64-bit vmlinux, multiboot 1");
}

bool boot_load(const struct boot_config *cfg, struct x86_state *bsp, const char **how, struct err *err)
{
    AUTO_FREE struct boot_image *img = new0(struct boot_image);
    img->cfg = cfg;
    if (!file_size(cfg->kernel_fd, "kernel", &img->size, err)) {
        return false;
    }
    if (!boot_file_read(cfg, 0, img->head, min_u64(img->size, BOOT_HEAD), err) || !load_kernel(img, bsp, how, err)) {
        return err_prefix(err, "kernel: ");
    }
    return true;
}
