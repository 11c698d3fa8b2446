/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ELF kernels: PVH by Xen note 18, else 64-bit vmlinux entered as the Linux 64-bit protocol enters it. */
#include "machine/boot-int.h"

#include <elf.h>
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"

enum { MAX_PHDRS = 64, MAX_NOTES = 65536, XEN_PHYS32_ENTRY = 18, PVH_MAGIC = 0x336ec578 };

struct segment {
    uint32_t type;
    uint64_t off, paddr, filesz, memsz;
};

static void read_phdr(const uint8_t *p, bool is64, struct segment *s)
{
    if (is64) {
        *s = (struct segment){ load_le32(p), load_le64(p + 8), load_le64(p + 24), load_le64(p + 32), load_le64(p + 40) };
    } else {
        *s = (struct segment){ load_le32(p), load_le32(p + 4), load_le32(p + 12), load_le32(p + 16), load_le32(p + 20) };
    }
}

static bool load_segment(struct boot_image *img, const struct segment *s, struct elf_info *info, struct err *err)
{
    const struct boot_config *cfg = img->cfg;
    if (s->filesz > s->memsz || !range_ok(s->off, s->filesz, img->size)) {
        return err_set(err, ERR_INVALID, "a segment reaches beyond the file: it is cut off or damaged");
    }
    if (s->paddr < BOOT_HIGH_START) {
        return err_set(err, ERR_UNSUPPORTED, "a segment wants memory at %#" PRIx64 ", below 1 MiB, where the loader keeps its own tables", s->paddr);
    }
    if (!range_ok(s->paddr, s->memsz, cfg->low_ram)) {
        return err_set(err, ERR_INVALID, "a segment wants memory at %#" PRIx64 "+%#" PRIx64 ", which the guest does not have: give it more --memory",
                       s->paddr, s->memsz);
    }
    if (s->paddr + s->memsz > info->top) {
        info->top = s->paddr + s->memsz;
    }
    return boot_file_to_ram(cfg, cfg->kernel_fd, s->off, s->paddr, s->filesz, err) &&
           (mem_zero(cfg->mem, s->paddr + s->filesz, s->memsz - s->filesz) || err_set(err, ERR_INVALID, "a segment is outside RAM"));
}

/* Looks for the PVH entry in one PT_NOTE segment; a damaged note ends the search, it is not an error. */
static bool scan_notes(struct boot_image *img, const struct segment *s, struct elf_info *info, struct err *err)
{
    uint64_t len = min_u64(s->filesz, MAX_NOTES);
    if (!range_ok(s->off, len, img->size)) {
        return err_set(err, ERR_INVALID, "its notes reach beyond the file");
    }
    AUTO_FREE uint8_t *notes = alloc0(len + 1);
    if (!boot_file_read(img->cfg, s->off, notes, len, err)) {
        return false;
    }
    for (uint64_t off = 0; range_ok(off, 12, len);) {
        uint64_t namesz = load_le32(notes + off), descsz = load_le32(notes + off + 4);
        uint32_t type = load_le32(notes + off + 8);
        uint64_t name = off + 12, desc = name + ((namesz + 3) & ~3ull);
        if (!range_ok(name, namesz, len) || !range_ok(desc, descsz, len)) {
            break;
        }
        if (type == XEN_PHYS32_ENTRY && namesz == 4 && memcmp(notes + name, "Xen", 4) == 0 && descsz >= 4) {
            info->pvh = load_le32(notes + desc);
        }
        off = desc + ((descsz + 3) & ~3ull);
    }
    return true;
}

bool boot_elf_load(struct boot_image *img, struct elf_info *info, struct err *err)
{
    const uint8_t *h = img->head;
    info->is64 = h[EI_CLASS] == ELFCLASS64;
    uint16_t machine = load_le16(h + 18);
    if (h[EI_DATA] != ELFDATA2LSB || machine != (info->is64 ? EM_X86_64 : EM_386)) {
        return err_set(err, ERR_INVALID, "it is an ELF file for another processor");
    }
    info->entry = info->is64 ? load_le64(h + 24) : load_le32(h + 24);
    uint64_t phoff = info->is64 ? load_le64(h + 32) : load_le32(h + 28);
    unsigned phsize = load_le16(h + (info->is64 ? 54 : 42)), phnum = load_le16(h + (info->is64 ? 56 : 44));
    if (phsize < (info->is64 ? 56u : 32u) || phsize > 256 || phnum == 0 || phnum > MAX_PHDRS ||
        !range_ok(phoff, (uint64_t)phsize * phnum, img->size)) {
        return err_set(err, ERR_INVALID, "its ELF program headers are missing, too many or cut off");
    }
    uint8_t phdrs[MAX_PHDRS * 256];
    if (!boot_file_read(img->cfg, phoff, phdrs, (size_t)phsize * phnum, err)) {
        return false;
    }
    for (unsigned i = 0; i < phnum; i++) {
        struct segment s;
        read_phdr(phdrs + (size_t)i * phsize, info->is64, &s);
        if ((s.type == PT_LOAD && s.memsz && !load_segment(img, &s, info, err)) || (s.type == PT_NOTE && !scan_notes(img, &s, info, err))) {
            return false;
        }
    }
    return info->top || err_set(err, ERR_INVALID, "its ELF file has nothing to load");
}

/* PVH start info with its module and memory map behind it. Source: xen/include/public/arch-x86/hvm/start_info.h. */
static bool put_start_info(const struct boot_config *cfg, gpa_t initrd, uint64_t initrd_size, struct err *err)
{
    uint8_t b[0x38 + 0x20 + 0x18 * BOOT_MAX_E820] = { 0 };
    const uint32_t module = 0x38, map = 0x58;
    store_le32(b, PVH_MAGIC);
    store_le32(b + 4, 1);
    store_le32(b + 0xc, initrd_size ? 1 : 0);
    store_le64(b + 0x10, initrd_size ? BOOT_START_INFO + module : 0);
    store_le64(b + 0x18, BOOT_CMDLINE);
    store_le64(b + 0x20, cfg->rsdp);
    store_le64(b + 0x28, BOOT_START_INFO + map);
    store_le32(b + 0x30, cfg->n_e820);
    store_le64(b + module, initrd);
    store_le64(b + module + 8, initrd_size);
    for (unsigned i = 0; i < cfg->n_e820; i++) {
        store_le64(b + map + 0x18 * i, cfg->e820[i].addr);
        store_le64(b + map + 0x18 * i + 8, cfg->e820[i].size);
        store_le32(b + map + 0x18 * i + 16, cfg->e820[i].type);
    }
    return boot_write(cfg, BOOT_START_INFO, b, sizeof(b), err);
}

bool boot_elf(struct boot_image *img, struct x86_state *st, const char **how, struct err *err)
{
    const struct boot_config *cfg = img->cfg;
    struct elf_info info = { 0 };
    uint32_t cmdline_len;
    gpa_t initrd;
    uint64_t initrd_size;
    if (!boot_elf_load(img, &info, err) || !boot_put_cmdline(cfg, BOOT_CMDLINE_MAX - 1, &cmdline_len, err) ||
        !boot_put_initrd(cfg, info.top, UINT32_MAX, &initrd, &initrd_size, err)) {
        return false;
    }
    if (info.pvh) {
        *how = "pvh";
        if (!put_start_info(cfg, initrd, initrd_size, err) || !boot_state32(cfg, st, info.pvh, err)) {
            return false;
        }
        st->cr0 = CR0_PE | CR0_ET;
        st->gpr[R_BX] = BOOT_START_INFO;
        return true;
    }
    if (!info.is64 || !range_ok(info.entry, 1, cfg->low_ram)) {
        return err_set(err, ERR_UNSUPPORTED, "an ELF kernel must have a PVH note (Xen note 18), a multiboot 1 header, or be a 64-bit vmlinux");
    }
    *how = "elf-64";
    return boot_linux_zero_page(cfg, NULL, 0, initrd, initrd_size, cmdline_len, err) && boot_state64(cfg, st, info.entry, err);
}
