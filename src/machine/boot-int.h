/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef LODGE_MACHINE_BOOT_INT_H
#define LODGE_MACHINE_BOOT_INT_H

#include "machine/boot.h"

enum { BOOT_HEAD = 8192 };      /* bytes of the kernel looked at to tell its kind */

struct boot_image {
    const struct boot_config *cfg;
    uint64_t size;              /* of the kernel file */
    uint8_t head[BOOT_HEAD];    /* zero-filled beyond the file */
};

/* Copies [off, off+len) of a file into RAM at gpa. */
bool boot_file_to_ram(const struct boot_config *cfg, int fd, uint64_t off, gpa_t gpa, uint64_t len, struct err *err);
/* Reads file bytes that must be there. */
bool boot_file_read(const struct boot_config *cfg, uint64_t off, void *buf, size_t len, struct err *err);
bool boot_write(const struct boot_config *cfg, gpa_t gpa, const void *buf, size_t len, struct err *err);
/* Command line with its NUL at BOOT_CMDLINE; at most max bytes without it. *len without the NUL. */
bool boot_put_cmdline(const struct boot_config *cfg, uint64_t max, uint32_t *len, struct err *err);
/* Initrd as high as possible, page aligned, its last byte not above `top`, its first not below `bottom`. size 0: none. */
bool boot_put_initrd(const struct boot_config *cfg, uint64_t bottom, uint64_t top, gpa_t *gpa, uint64_t *size, struct err *err);
/* Zero page for the Linux protocols from a header copy (NULL: none) and the registers of the 64-bit entry. */
bool boot_linux_zero_page(const struct boot_config *cfg, const uint8_t *hdr, size_t hdr_len, gpa_t initrd, uint64_t initrd_size, uint32_t cmdline_len, struct err *err);
bool boot_state64(const struct boot_config *cfg, struct x86_state *st, uint64_t entry, struct err *err);
/* Flat 32-bit protected mode without paging; data selectors as given, GDT with flat segments at 0x10 and 0x18. */
bool boot_state32(const struct boot_config *cfg, struct x86_state *st, uint32_t entry, struct err *err);

bool boot_linux(struct boot_image *img, struct x86_state *st, const char **how, struct err *err);
bool boot_elf(struct boot_image *img, struct x86_state *st, const char **how, struct err *err);
bool boot_multiboot(struct boot_image *img, unsigned header_off, struct x86_state *st, const char **how, struct err *err);
/* Loads PT_LOAD segments at their physical addresses. *top: end of the highest. *pvh: entry of Xen note 18, 0 when there is none. */
struct elf_info {
    bool is64;
    uint64_t entry, top;
    uint32_t pvh;
};
bool boot_elf_load(struct boot_image *img, struct elf_info *info, struct err *err);

#endif
