/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writes the tables of both boards as files DIR/BOARD-SIG.aml and the SMBIOS structures as DIR/BOARD-smbios: for test-acpi.py. */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "machine/acpi.h"

static unsigned gsi(unsigned slot, unsigned pin)
{
    return 16 + (slot + pin) % 8;
}

static bool dump(const char *dir, const char *board, struct mem *mem, gpa_t at)
{
    char path[512], sig[5] = "";
    uint8_t head[8];
    if (!mem_read(mem, at, head, 8)) {
        return false;
    }
    memcpy(sig, head, 4);
    size_t len = load_le32(head + 4);
    AUTO_FREE uint8_t *table = alloc0(len);
    snprintf(path, sizeof(path), "%s/%s-%s.aml", dir, board, sig);
    FILE *f = fopen(path, "wb");
    bool ok = f && mem_read(mem, at, table, len) && fwrite(table, len, 1, f) == 1;
    uint8_t sum = 0;
    for (size_t i = 0; i < len; i++) {
        sum = (uint8_t)(sum + table[i]);
    }
    if (f) {
        fclose(f);
    }
    return ok && sum == 0;
}

static bool one_board(const char *dir, const char *board, bool legacy, unsigned cpus)
{
    struct err err = ERR_INIT;
    struct mem *mem = mem_create();
    struct acpi_config cfg = { .n_cpus = cpus, .legacy = legacy, .ecam = 0xb0000000, .ecam_size = 256 << 20, .pci32 = 0xc0000000, .pci32_end = 0xfec00000,
                               .pci64 = 1ull << 32, .pci64_end = 9ull << 32, .pm_base = 0x600, .slot_gsi = gsi };
    for (unsigned i = 0; i < cpus; i++) {
        cfg.apic_id[i] = i;
    }
    gpa_t rsdp, xsdt = 0, fadt = 0, dsdt;
    uint32_t len = 0;
    bool ok = mem_ram_add(mem, 0, 16 << 20, &err) && acpi_write(mem, &cfg, 0xe0000, 0x10000, &rsdp, &err) &&
              mem_read_le64(mem, rsdp + 24, &xsdt) && mem_read_le32(mem, xsdt + 4, &len) && dump(dir, board, mem, xsdt);
    for (gpa_t at = xsdt + 36; ok && at < xsdt + len; at += 8) {
        gpa_t table;
        ok = mem_read_le64(mem, at, &table) && dump(dir, board, mem, table);
        fadt = fadt ? fadt : table;
    }
    ok = ok && mem_read_le64(mem, fadt + 0x8c, &dsdt) && dump(dir, board, mem, dsdt);
    mem_destroy(mem);
    return ok;
}

int main(int argc, char **argv)
{
    return argc == 2 && one_board(argv[1], "pc", true, 8) && one_board(argv[1], "micro", false, 1) ? 0 : 1;
}
