/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Linux/x86 boot protocol. Sources: Documentation/x86/boot.rst (header), zero-page.rst (boot_params).
 * Offsets below are the documents' own names.
 */
#include "machine/boot-int.h"

#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#include "base/bytes.h"

enum {
    HDR_START = 0x1f1, SETUP_SECTS = 0x1f1, JUMP_LEN = 0x201, PROTO = 0x206, LOADER = 0x210, LOADFLAGS = 0x211, CODE32 = 0x214,
    RAMDISK = 0x218, RAMDISK_SIZE = 0x21c, CMD_LINE_PTR = 0x228, INITRD_MAX = 0x22c, ALIGNMENT = 0x230, RELOCATABLE = 0x234,
    XLOADFLAGS = 0x236, CMDLINE_SIZE = 0x238, SETUP_DATA = 0x250, PREF_ADDRESS = 0x258, INIT_SIZE = 0x260,
    ZP_RSDP = 0x70, ZP_RAMDISK_HI = 0xc0, ZP_RAMDISK_SIZE_HI = 0xc4, ZP_ALT_MEM_K = 0x1e0, ZP_E820_N = 0x1e8, ZP_E820 = 0x2d0,
    LOADED_HIGH = 1, XLF_64 = 1, SETUP_RNG_SEED = 9, SEED_BYTES = 32,
};

/* A seed record, so that the guest's random pool is filled before its first user. */
static bool put_seed(const struct boot_config *cfg, struct err *err)
{
    uint8_t rec[16 + SEED_BYTES] = { 0 };
    store_le32(rec + 8, SETUP_RNG_SEED);
    store_le32(rec + 12, SEED_BYTES);
    if (getrandom(rec + 16, SEED_BYTES, GRND_NONBLOCK) != SEED_BYTES) {
        store_le32(rec + 12, 0);        /* an empty record is skipped */
    }
    return boot_write(cfg, BOOT_SETUP_DATA, rec, sizeof(rec), err);
}

bool boot_linux_zero_page(const struct boot_config *cfg, const uint8_t *hdr, size_t hdr_len, gpa_t initrd, uint64_t initrd_size, uint32_t cmdline_len, struct err *err)
{
    uint8_t zp[PAGE_SIZE] = { 0 };
    if (hdr) {
        memcpy(zp + HDR_START, hdr, hdr_len);
    } else {
        store_le16(zp + 0x1fe, 0xaa55);
        memcpy(zp + 0x202, "HdrS", 4);
        store_le16(zp + PROTO, 0x020c);
        store_le32(zp + CMDLINE_SIZE, cmdline_len);
    }
    zp[LOADER] = 0xff;                                  /* no assigned number */
    zp[LOADFLAGS] &= (uint8_t)~0x80;                    /* no heap: there is no 16-bit code that uses it */
    store_le16(zp + 0x1fa, 0xffff);                     /* normal video mode */
    store_le32(zp + CMD_LINE_PTR, BOOT_CMDLINE);
    store_le32(zp + RAMDISK, (uint32_t)initrd);
    store_le32(zp + RAMDISK_SIZE, (uint32_t)initrd_size);
    store_le32(zp + ZP_RAMDISK_HI, (uint32_t)(initrd >> 32));
    store_le32(zp + ZP_RAMDISK_SIZE_HI, (uint32_t)(initrd_size >> 32));
    store_le64(zp + SETUP_DATA, BOOT_SETUP_DATA);
    store_le64(zp + ZP_RSDP, cfg->rsdp);
    store_le32(zp + ZP_ALT_MEM_K, (uint32_t)((cfg->low_ram - MIB) / KIB));
    zp[ZP_E820_N] = (uint8_t)cfg->n_e820;
    for (unsigned i = 0; i < cfg->n_e820; i++) {
        uint8_t *e = zp + ZP_E820 + 20 * i;
        store_le64(e, cfg->e820[i].addr);
        store_le64(e + 8, cfg->e820[i].size);
        store_le32(e + 16, cfg->e820[i].type);
    }
    return put_seed(cfg, err) && boot_write(cfg, BOOT_ZERO_PAGE, zp, sizeof(zp), err);
}

struct linux_header {
    uint16_t proto;
    uint64_t setup_size, load, init_size, align, cmdline_max, initrd_max;
    bool entry64, relocatable;
    size_t hdr_len;             /* bytes from HDR_START */
};

static bool parse_header(const struct boot_image *img, struct linux_header *h, struct err *err)
{
    const uint8_t *p = img->head;
    unsigned sects = p[SETUP_SECTS] ? p[SETUP_SECTS] : 4;
    h->setup_size = (sects + 1) * 512ull;
    h->proto = load_le16(p + PROTO);
    if (h->proto < 0x0202) {
        return err_set(err, ERR_UNSUPPORTED, "Linux boot protocol %u.%02u is too old: 2.02 or newer is needed", h->proto >> 8, h->proto & 0xff);
    }
    if (!(p[LOADFLAGS] & LOADED_HIGH)) {
        return err_set(err, ERR_UNSUPPORTED, "it is a zImage (loaded low); build a bzImage");
    }
    if (img->size <= h->setup_size) {
        return err_set(err, ERR_INVALID, "it is cut off: %u setup sectors need more than its %" PRIu64 " bytes", sects, img->size);
    }
    h->hdr_len = 0x202u + p[JUMP_LEN] - HDR_START;      /* the header ends where the jump at 0x200 lands */
    h->cmdline_max = h->proto >= 0x0206 ? load_le32(p + CMDLINE_SIZE) : 255;
    h->initrd_max = h->proto >= 0x0203 ? load_le32(p + INITRD_MAX) : 0x37ffffff;
    h->relocatable = h->proto >= 0x0205 && p[RELOCATABLE];
    h->align = h->proto >= 0x0205 ? load_le32(p + ALIGNMENT) : 0;
    h->entry64 = h->proto >= 0x020c && (load_le16(p + XLOADFLAGS) & XLF_64);
    uint64_t payload = img->size - h->setup_size;
    h->load = BOOT_HIGH_START;
    h->init_size = payload;
    if (h->proto >= 0x020a) {
        h->init_size = max_u64(load_le32(p + INIT_SIZE), payload);
        if (h->relocatable) {
            h->load = load_le64(p + PREF_ADDRESS);
        }
    }
    if (h->load < BOOT_HIGH_START || h->load > UINT32_MAX || (h->align && h->load % h->align)) {
        return err_set(err, ERR_INVALID, "its preferred load address %#" PRIx64 " makes no sense", h->load);
    }
    return true;
}

bool boot_linux(struct boot_image *img, struct x86_state *st, const char **how, struct err *err)
{
    const struct boot_config *cfg = img->cfg;
    struct linux_header h = { 0 };
    uint32_t cmdline_len;
    gpa_t initrd;
    uint64_t initrd_size;
    if (!parse_header(img, &h, err)) {
        return false;
    }
    if (!range_ok(h.load, h.init_size, cfg->low_ram)) {
        return err_set(err, ERR_INVALID, "it needs memory up to %" PRIu64 " MiB and the guest has %" PRIu64 ": give the guest more --memory",
                       (h.load + h.init_size + MIB - 1) / MIB, cfg->low_ram / MIB);
    }
    if (!boot_file_to_ram(cfg, cfg->kernel_fd, h.setup_size, h.load, img->size - h.setup_size, err) ||
        !boot_put_cmdline(cfg, h.cmdline_max, &cmdline_len, err) ||
        !boot_put_initrd(cfg, h.load + h.init_size, h.initrd_max, &initrd, &initrd_size, err)) {
        return false;
    }
    uint8_t hdr[0x202 + 0xff - HDR_START];
    memcpy(hdr, img->head + HDR_START, h.hdr_len);
    store_le32(hdr + CODE32 - HDR_START, (uint32_t)h.load);
    if (!boot_linux_zero_page(cfg, hdr, h.hdr_len, initrd, initrd_size, cmdline_len, err)) {
        return false;
    }
    if (h.entry64) {
        *how = "linux-64";
        return boot_state64(cfg, st, h.load + 0x200, err);
    }
    *how = "linux-32";
    if (!boot_state32(cfg, st, (uint32_t)h.load, err)) {
        return false;
    }
    st->gpr[R_SI] = BOOT_ZERO_PAGE;
    return true;
}
