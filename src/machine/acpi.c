/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "machine/acpi.h"

#include <string.h>

#include "base/bytes.h"
#include "machine/aml.h"

enum { HEADER = 36, SCI_GSI = 9, IOAPIC_ADDR = 0xfec00000, LAPIC_ADDR = 0xfee00000, RSDP_SIZE = 36, FACS_SIZE = 64 };

static uint8_t checksum(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum = (uint8_t)(sum + p[i]);
    }
    return (uint8_t)-sum;
}

static void header(struct buf *t, const char *sig, uint8_t revision)
{
    buf_add(t, sig, 4);
    buf_add_le32(t, 0);
    buf_add_u8(t, revision);
    buf_add_u8(t, 0);
    buf_add(t, "LODGE ", 6);
    buf_add(t, "LODGEPC ", 8);
    buf_add_le32(t, 1);
    buf_add(t, "LDGE", 4);
    buf_add_le32(t, 1);
}

static void finish(struct buf *t)
{
    store_le32(t->data + 4, (uint32_t)t->len);
    t->data[9] = 0;
    t->data[9] = checksum(t->data, t->len);
}

static void gas(uint8_t *p, uint8_t space, uint8_t bits, uint8_t access, uint64_t addr)
{
    p[0] = space;
    p[1] = bits;
    p[2] = 0;
    p[3] = access;
    store_le64(p + 4, addr);
}

/* FADT revision 6 (276 bytes); offsets are those of ACPI 6.5 table 5.9. */
static void build_fadt(struct buf *t, const struct acpi_config *cfg, gpa_t facs, gpa_t dsdt)
{
    const uint16_t pm = cfg->pm_base;
    header(t, "FACP", 6);
    buf_add_zero(t, 276 - HEADER);
    uint8_t *p = t->data;
    store_le32(p + 0x24, (uint32_t)facs);
    store_le32(p + 0x28, (uint32_t)dsdt);
    store_le16(p + 0x2e, SCI_GSI);
    store_le32(p + 0x30, 0xb2);         /* SMI command port: 2 enters ACPI mode, 3 leaves it */
    p[0x34] = 2;
    p[0x35] = 3;
    store_le32(p + 0x38, pm);
    store_le32(p + 0x40, pm + 4u);
    store_le32(p + 0x4c, pm + 8u);
    store_le32(p + 0x50, pm + 0x20u);
    p[0x58] = 4;                /* PM1 event */
    p[0x59] = 2;                /* PM1 control */
    p[0x5b] = 4;                /* PM timer */
    p[0x5c] = 16;               /* GPE0 */
    store_le16(p + 0x60, 0xfff);        /* C2 latency: not there */
    store_le16(p + 0x62, 0xfff);
    p[0x6c] = cfg->legacy ? 0x32 : 0;   /* century */
    store_le16(p + 0x6d, (uint16_t)(cfg->legacy ? 0x1 | 0x2 | 0x4 : 0x4 | 0x20));       /* legacy, 8042, no VGA; no CMOS RTC */
    /* WBINVD, C1 works, no sleep button, RTC wake not fixed, reset register */
    store_le32(p + 0x70, 0x1 | 0x4 | 0x20 | 0x40 | 0x400);
    gas(p + 0x74, 1, 8, 1, 0xcf9);
    p[0x80] = 0x0f;
    store_le64(p + 0x8c, dsdt);
    gas(p + 0x94, 1, 32, 2, pm);
    gas(p + 0xac, 1, 16, 2, pm + 4u);
    gas(p + 0xd0, 1, 32, 3, pm + 8u);
    gas(p + 0xdc, 1, 128, 1, pm + 0x20u);
    finish(t);
}

static void madt_override(struct buf *t, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    buf_add(t, (const uint8_t[]){ 2, 10, 0, irq }, 4);
    buf_add_le32(t, gsi);
    buf_add_le16(t, flags);
}

static void build_madt(struct buf *t, const struct acpi_config *cfg)
{
    header(t, "APIC", 5);
    buf_add_le32(t, LAPIC_ADDR);
    buf_add_le32(t, cfg->legacy ? 1 : 0);       /* 8259 pair present */
    for (unsigned i = 0; i < cfg->n_cpus; i++) {
        buf_add(t, (const uint8_t[]){ 0, 8, (uint8_t)i, (uint8_t)cfg->apic_id[i] }, 4);
        buf_add_le32(t, 1);
    }
    buf_add(t, (const uint8_t[]){ 1, 12, 0, 0 }, 4);
    buf_add_le32(t, IOAPIC_ADDR);
    buf_add_le32(t, 0);
    madt_override(t, 0, 2, 0);
    madt_override(t, SCI_GSI, SCI_GSI, 0xd);    /* level, active high */
    madt_override(t, 5, 5, 0xd);
    madt_override(t, 10, 10, 0xd);
    madt_override(t, 11, 11, 0xd);
    buf_add(t, (const uint8_t[]){ 4, 6, 0xff, 0, 0, 1 }, 6);    /* NMI on LINT1 of every CPU */
    finish(t);
}

static void build_mcfg(struct buf *t, const struct acpi_config *cfg)
{
    header(t, "MCFG", 1);
    buf_add_zero(t, 8);
    buf_add_le64(t, cfg->ecam);
    buf_add_le16(t, 0);
    buf_add_u8(t, 0);
    buf_add_u8(t, (uint8_t)((cfg->ecam_size >> 20) - 1));
    buf_add_le32(t, 0);
    finish(t);
}

/* RTC and PM timer work as they should: saves Windows some care. */
static void build_waet(struct buf *t)
{
    header(t, "WAET", 1);
    buf_add_le32(t, 3);
    finish(t);
}

static void add_hid(struct buf *b, const char *hid, unsigned uid)
{
    aml_name(b, "_HID");
    if (strlen(hid) == 7) {
        aml_eisaid(b, hid);
    } else {
        aml_string(b, hid);
    }
    aml_name(b, "_UID");
    aml_int(b, uid);
}

static void add_isa_device(struct buf *b, const char *name, const char *hid, uint16_t io, uint8_t io_len, uint16_t io2, int irq)
{
    size_t dev = aml_open(b);
    add_hid(b, hid, 0);
    aml_name(b, "_STA");
    aml_int(b, 0xf);
    aml_name(b, "_CRS");
    size_t res = aml_res_begin(b);
    if (io_len) {
        aml_res_io(b, io, io_len);
    }
    if (io2) {
        aml_res_io(b, io2, io_len);
    }
    if (irq >= 0) {
        aml_res_irq(b, (unsigned)irq);
    }
    aml_res_end(b, res);
    aml_close_device(b, dev, name);
}

/* _PRT: {slot << 16 | 0xffff, pin, 0, GSI} for each slot and pin. */
static void add_prt(struct buf *b, const struct acpi_config *cfg)
{
    aml_name(b, "_PRT");
    size_t prt = aml_open(b);
    for (unsigned slot = 0; slot < 32; slot++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            size_t row = aml_open(b);
            aml_int(b, (uint64_t)slot << 16 | 0xffff);
            aml_int(b, pin);
            aml_int(b, 0);
            aml_int(b, cfg->slot_gsi(slot, pin + 1));
            aml_close_package(b, row, 4);
        }
    }
    aml_close_package(b, prt, 128);
}

/*
 * _OSC(UUID, revision, count, capabilities): grants PCIe capability control only, by returning the caller's buffer with the
 * other control bits cleared. Native hot-plug is not offered: there are no slots.
 */
static void add_osc(struct buf *b)
{
    enum { CREATE_DWORD = 0x8a, ARG3 = 0x6b, AND = 0x7b };
    size_t m = aml_open(b);
    buf_add_u8(b, CREATE_DWORD);        /* CreateDWordField(Arg3, 8, CTRL) */
    buf_add_u8(b, ARG3);
    aml_int(b, 8);
    aml_path(b, "CTRL");
    buf_add_u8(b, AND);                 /* CTRL &= 0x10 */
    aml_path(b, "CTRL");
    aml_int(b, 0x10);
    aml_path(b, "CTRL");
    aml_return(b);
    buf_add_u8(b, ARG3);
    aml_close_method(b, m, "_OSC", 4);
}

static void add_pci_host(struct buf *b, const struct acpi_config *cfg)
{
    size_t host = aml_open(b);
    add_hid(b, "PNP0A08", 0);
    aml_name(b, "_CID");
    aml_eisaid(b, "PNP0A03");
    aml_name(b, "_SEG");
    aml_int(b, 0);
    aml_name(b, "_BBN");
    aml_int(b, 0);
    aml_name(b, "_CRS");
    size_t res = aml_res_begin(b);
    aml_res_bus(b, 0, (uint16_t)((cfg->ecam_size >> 20) - 1));
    aml_res_io(b, 0xcf8, 8);
    aml_res_io_window(b, 0x0000, 0x0cf7);
    aml_res_io_window(b, 0x0d00, 0xffff);
    aml_res_mem32_window(b, (uint32_t)cfg->pci32, (uint32_t)(cfg->pci32_end - 1), false);
    if (cfg->pci64_end > cfg->pci64) {
        aml_res_mem64_window(b, cfg->pci64, cfg->pci64_end - 1);
    }
    aml_res_end(b, res);
    add_prt(b, cfg);
    add_osc(b);
    aml_close_device(b, host, "PCI0");
}

static void add_resources(struct buf *b, const struct acpi_config *cfg)
{
    size_t dev = aml_open(b);
    add_hid(b, "PNP0C02", 1);
    aml_name(b, "_CRS");
    size_t res = aml_res_begin(b);
    aml_res_mem32(b, (uint32_t)cfg->ecam, (uint32_t)cfg->ecam_size);
    aml_res_end(b, res);
    aml_close_device(b, dev, "MBRD");
}

static void build_dsdt(struct buf *t, const struct acpi_config *cfg)
{
    header(t, "DSDT", 2);
    size_t scope = aml_open(t);
    for (unsigned i = 0; i < cfg->n_cpus; i++) {
        char name[5] = { 'C', '0', (char)('0' + i / 10 % 10), (char)('0' + i % 10), 0 };
        size_t cpu = aml_open(t);
        add_hid(t, "ACPI0007", i);
        aml_close_device(t, cpu, name);
    }
    add_pci_host(t, cfg);
    add_resources(t, cfg);
    add_isa_device(t, "COM1", "PNP0501", 0x3f8, 8, 0, 4);
    if (cfg->legacy) {
        add_isa_device(t, "RTC_", "PNP0B00", 0x70, 2, 0, 8);
        add_isa_device(t, "KBD_", "PNP0303", 0x60, 1, 0x64, 1);
        add_isa_device(t, "MOU_", "PNP0F13", 0, 0, 0, 12);
        add_isa_device(t, "PVP_", "QEMU0001", 0x505, 1, 0, -1);
        add_isa_device(t, "FWCF", "QEMU0002", 0x510, 12, 0, -1);
    }
    aml_close_scope(t, scope, "\\_SB");
    aml_name(t, "\\_S5");
    size_t s5 = aml_open(t);
    for (unsigned i = 0; i < 4; i++) {
        aml_int(t, 0);
    }
    aml_close_package(t, s5, 4);
    finish(t);
}

/* Where the next table goes, 64-byte aligned. */
struct placer {
    struct mem *mem;
    gpa_t at, end;
    bool ok;
};

static gpa_t place(struct placer *p, const void *data, size_t len)
{
    gpa_t at = (p->at + 63) & ~(gpa_t)63;
    p->ok = p->ok && range_ok(at, len, p->end) && mem_write(p->mem, at, data, len);
    p->at = at + len;
    return at;
}

bool acpi_write(struct mem *mem, const struct acpi_config *cfg, gpa_t at, uint64_t room, gpa_t *rsdp, struct err *err)
{
    struct placer p = { .mem = mem, .at = at + RSDP_SIZE, .end = at + room, .ok = true };
    AUTO_BUF struct buf dsdt = { 0 }, fadt = { 0 }, madt = { 0 }, mcfg = { 0 }, waet = { 0 }, xsdt = { 0 };
    uint8_t facs[FACS_SIZE] = { 'F', 'A', 'C', 'S', FACS_SIZE };
    facs[32] = 2;
    gpa_t facs_at = place(&p, facs, sizeof(facs));
    build_dsdt(&dsdt, cfg);
    gpa_t dsdt_at = place(&p, dsdt.data, dsdt.len);
    build_fadt(&fadt, cfg, facs_at, dsdt_at);
    build_madt(&madt, cfg);
    build_mcfg(&mcfg, cfg);
    build_waet(&waet);
    header(&xsdt, "XSDT", 1);
    buf_add_le64(&xsdt, place(&p, fadt.data, fadt.len));
    buf_add_le64(&xsdt, place(&p, madt.data, madt.len));
    buf_add_le64(&xsdt, place(&p, mcfg.data, mcfg.len));
    buf_add_le64(&xsdt, place(&p, waet.data, waet.len));
    finish(&xsdt);
    gpa_t xsdt_at = place(&p, xsdt.data, xsdt.len);

    uint8_t r[RSDP_SIZE] = "RSD PTR ";
    memcpy(r + 9, "LODGE ", 6);
    r[15] = 2;
    store_le32(r + 20, RSDP_SIZE);
    store_le64(r + 24, xsdt_at);
    r[8] = checksum(r, 20);
    r[32] = checksum(r, RSDP_SIZE);
    if (!p.ok || !mem_write(mem, at, r, sizeof(r))) {
        return err_set(err, ERR_INVALID, "no room for the ACPI tables at %#llx", (unsigned long long)at);
    }
    *rsdp = at;
    return true;
}
