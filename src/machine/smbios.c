/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SMBIOS 3.0 structures: types 0, 1, 3, 4, 16, 17, 19, 32, 127. Source: DMTF DSP0134 3.0. */
#include "machine/acpi.h"

#include <string.h>

#include "base/bytes.h"

struct table {
    struct buf buf;
    size_t start;               /* of the structure being written */
    uint16_t handle;
    unsigned n;
};

static void begin(struct table *t, uint8_t type, uint16_t handle)
{
    t->start = t->buf.len;
    t->n++;
    buf_add_u8(&t->buf, type);
    buf_add_u8(&t->buf, 0);
    buf_add_le16(&t->buf, handle);
}

/* Sets the length and adds the strings (NULL-terminated list; none: two NULs). */
static void end(struct table *t, const char *const *strings)
{
    t->buf.data[t->start + 1] = (uint8_t)(t->buf.len - t->start);
    for (unsigned i = 0; strings && strings[i]; i++) {
        buf_add(&t->buf, strings[i], strlen(strings[i]) + 1);
    }
    buf_add_zero(&t->buf, strings && strings[0] ? 1 : 2);
}

static void add_bios(struct table *t)
{
    begin(t, 0, 0);
    buf_add(&t->buf, (const uint8_t[]){ 1, 2 }, 2);
    buf_add_le16(&t->buf, 0xe800);
    buf_add(&t->buf, (const uint8_t[]){ 3, 0 }, 2);
    buf_add_le64(&t->buf, 1 << 3);              /* characteristics are not told */
    buf_add(&t->buf, (const uint8_t[]){ 0, 0x1c, 0, 0, 0xff, 0xff }, 6);        /* a virtual machine */
    end(t, (const char *[]){ "Lodge", LODGE_VERSION, "01/01/2026", NULL });
}

static void add_system(struct table *t, const struct smbios_config *cfg)
{
    const uint8_t *u = cfg->uuid;
    begin(t, 1, 0x100);
    buf_add(&t->buf, (const uint8_t[]){ 1, 2, 3, 4 }, 4);
    /* the first three UUID fields are little-endian here: DSP0134 section 7.2.1 */
    buf_add(&t->buf, (const uint8_t[]){ u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6] }, 8);
    buf_add(&t->buf, u + 8, 8);
    buf_add(&t->buf, (const uint8_t[]){ 6, 0, 0 }, 3);
    end(t, (const char *[]){ "Lodge", "Lodge virtual machine", LODGE_VERSION, cfg->name, NULL });
}

static void add_chassis(struct table *t)
{
    begin(t, 3, 0x300);
    buf_add(&t->buf, (const uint8_t[]){ 1, 1, 2, 0, 0, 3, 3, 3, 2 }, 9);
    buf_add_le32(&t->buf, 0);
    buf_add(&t->buf, (const uint8_t[]){ 0, 1, 0, 0, 0 }, 5);
    end(t, (const char *[]){ "Lodge", LODGE_VERSION, NULL });
}

static void add_processor(struct table *t, const struct smbios_config *cfg, unsigned socket)
{
    begin(t, 4, (uint16_t)(0x400 + socket));
    buf_add(&t->buf, (const uint8_t[]){ 1, 3, 2, 2 }, 4);
    buf_add_zero(&t->buf, 8);
    buf_add(&t->buf, (const uint8_t[]){ 0, 0 }, 2);
    buf_add_le16(&t->buf, 0);
    buf_add_le16(&t->buf, 2000);
    buf_add_le16(&t->buf, 2000);
    buf_add(&t->buf, (const uint8_t[]){ 0x41, 1 }, 2);
    buf_add_le16(&t->buf, 0xffff);
    buf_add_le16(&t->buf, 0xffff);
    buf_add_le16(&t->buf, 0xffff);
    buf_add(&t->buf, (const uint8_t[]){ 0, 0, 0, (uint8_t)cfg->cores, (uint8_t)cfg->cores, (uint8_t)(cfg->cores * cfg->threads) }, 6);
    buf_add_le16(&t->buf, 0xfc);
    buf_add_le16(&t->buf, 1);
    buf_add_le16(&t->buf, (uint16_t)cfg->cores);
    buf_add_le16(&t->buf, (uint16_t)cfg->cores);
    buf_add_le16(&t->buf, (uint16_t)(cfg->cores * cfg->threads));
    end(t, (const char *[]){ "CPU", "Lodge", NULL });
}

static void add_memory(struct table *t, const struct smbios_config *cfg)
{
    begin(t, 16, 0x1000);
    buf_add(&t->buf, (const uint8_t[]){ 1, 3, 6 }, 3);
    buf_add_le32(&t->buf, 0x80000000);
    buf_add_le16(&t->buf, 0xfffe);
    buf_add_le16(&t->buf, 1);
    buf_add_le64(&t->buf, cfg->ram_size);
    end(t, NULL);

    begin(t, 17, 0x1100);
    buf_add_le16(&t->buf, 0x1000);
    buf_add_le16(&t->buf, 0xfffe);
    buf_add_le16(&t->buf, 64);
    buf_add_le16(&t->buf, 64);
    uint64_t mib = cfg->ram_size / MIB;
    buf_add_le16(&t->buf, mib < 0x7fff ? (uint16_t)mib : 0x7fff);
    buf_add(&t->buf, (const uint8_t[]){ 9, 0, 1, 0, 7 }, 5);
    buf_add_le16(&t->buf, 0);
    buf_add_le16(&t->buf, 0);
    buf_add(&t->buf, (const uint8_t[]){ 2, 0, 0, 0, 0 }, 5);
    buf_add_le32(&t->buf, (uint32_t)min_u64(mib, 0x7fffffff));
    buf_add_zero(&t->buf, 8);
    end(t, (const char *[]){ "DIMM 0", "Lodge", NULL });

    begin(t, 19, 0x1300);
    buf_add_le32(&t->buf, 0);
    buf_add_le32(&t->buf, (uint32_t)(min_u64(cfg->ram_size, UINT32_MAX) / KIB - 1));
    buf_add_le16(&t->buf, 0x1000);
    buf_add_u8(&t->buf, 1);
    end(t, NULL);
}

bool smbios_write(struct mem *mem, const struct smbios_config *cfg, gpa_t at, uint64_t room, struct err *err)
{
    struct table t = { 0 };
    add_bios(&t);
    add_system(&t, cfg);
    add_chassis(&t);
    for (unsigned i = 0; i < cfg->sockets; i++) {
        add_processor(&t, cfg, i);
    }
    add_memory(&t, cfg);
    begin(&t, 32, 0x2000);
    buf_add_zero(&t.buf, 7);
    end(&t, NULL);
    begin(&t, 127, 0x7f00);
    end(&t, NULL);

    uint8_t e[24] = "_SM3_";
    e[6] = sizeof(e);
    e[7] = 3;
    e[10] = 1;
    store_le32(e + 12, (uint32_t)t.buf.len);
    store_le64(e + 16, at + 32);
    uint8_t sum = 0;
    for (size_t i = 0; i < sizeof(e); i++) {
        sum = (uint8_t)(sum + e[i]);
    }
    e[5] = (uint8_t)-sum;
    bool ok = 32 + t.buf.len <= room && mem_write(mem, at, e, sizeof(e)) && mem_write(mem, at + 32, t.buf.data, t.buf.len);
    buf_fini(&t.buf);
    return ok || err_set(err, ERR_INVALID, "no room for the SMBIOS tables");
}
