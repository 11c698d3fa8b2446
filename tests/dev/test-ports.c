/* SPDX-License-Identifier: GPL-2.0-or-later */
/* i8042, fw_cfg and the small ports. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "dev/pc/pc.h"
#include "fixture.h"

/* i8042 */

static struct dev *kbc_setup(struct fixture *f)
{
    fixture_init(f);
    return i8042_create(&f->env, "kbc", NULL);
}

static int take(struct fixture *f)
{
    if (!(inb(f, 0x64) & 1)) {
        return -1;
    }
    return inb(f, 0x60);
}

static void expect(struct fixture *f, const uint8_t *bytes, unsigned n, bool aux)
{
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(inb(f, 0x64) & 0x21, aux ? 0x21 : 0x01);
        assert_int_equal(inb(f, 0x60), bytes[i]);
    }
    assert_int_equal(inb(f, 0x64) & 1, 0);
}

static uint8_t config(struct fixture *f)
{
    outb(f, 0x64, 0x20);
    return take(f);
}

static void aux_write(struct fixture *f, uint8_t v)
{
    outb(f, 0x64, 0xd4);
    outb(f, 0x60, v);
}

/* i8042_controller_init, i8042_check_aux and i8042_check_mux of Linux 6.1. */
static void test_i8042_start_up_of_linux(void **unused)
{
    struct fixture f;
    kbc_setup(&f);
    assert_int_equal(inb(&f, 0x64) & 0x10, 0x10);       /* not locked */
    assert_int_equal(config(&f), config(&f));
    uint8_t c = config(&f);
    assert_int_equal(c & 0x40, 0x40);
    outb(&f, 0x64, 0x60);
    outb(&f, 0x60, (c | 0x30) & ~0x03);
    assert_int_equal(config(&f), (c | 0x30) & ~0x03);
    outb(&f, 0x64, 0xd3);
    outb(&f, 0x60, 0x5a);
    expect(&f, (uint8_t[]){ 0x5a }, 1, true);
    outb(&f, 0x64, 0xa8);
    assert_int_equal(config(&f) & 0x20, 0);
    outb(&f, 0x64, 0xa7);
    assert_int_equal(config(&f) & 0x20, 0x20);
    outb(&f, 0x64, 0x60);
    outb(&f, 0x60, 0x12 | 0x40);                        /* AUX interrupt on */
    outb(&f, 0x64, 0xd3);
    outb(&f, 0x60, 0xa5);
    assert_int_equal(f.hub.gsi_count[12], 1);
    expect(&f, (uint8_t[]){ 0xa5 }, 1, true);
    assert_int_equal(f.hub.gsi_count[12], 0);
    uint8_t mux[] = { 0xf0, 0x56, 0xa4 };
    for (unsigned i = 0; i < 3; i++) {
        outb(&f, 0x64, 0xd3);
        outb(&f, 0x60, mux[i]);
        expect(&f, &mux[i], 1, true);                   /* echoing A4: no multiplexer */
    }
    outb(&f, 0x64, 0xaa);
    expect(&f, (uint8_t[]){ 0x55 }, 1, false);
    outb(&f, 0x64, 0xab);
    expect(&f, (uint8_t[]){ 0 }, 1, false);
    outb(&f, 0x64, 0xa9);
    expect(&f, (uint8_t[]){ 0 }, 1, false);
    fixture_fini(&f);
}

static void test_i8042_keyboard_answers(void **unused)
{
    struct fixture f;
    struct dev *k = kbc_setup(&f);
    outb(&f, 0x60, 0xff);
    assert_int_equal(f.hub.gsi_count[1], 1);
    expect(&f, (uint8_t[]){ 0xfa, 0xaa }, 2, false);
    outb(&f, 0x60, 0xf2);
    expect(&f, (uint8_t[]){ 0xfa, 0xab, 0x41 }, 3, false);      /* translated */
    outb(&f, 0x60, 0xed);
    expect(&f, (uint8_t[]){ 0xfa }, 1, false);
    outb(&f, 0x60, 0x02);
    expect(&f, (uint8_t[]){ 0xfa }, 1, false);
    outb(&f, 0x60, 0xf5);
    expect(&f, (uint8_t[]){ 0xfa }, 1, false);
    i8042_key(k, 0x1e, true);
    assert_int_equal(take(&f), -1);             /* scanning is off */
    outb(&f, 0x60, 0xf4);
    expect(&f, (uint8_t[]){ 0xfa }, 1, false);
    i8042_key(k, 0x1e, true);
    i8042_key(k, 0x1e, false);
    i8042_key(k, 0xe048, true);
    expect(&f, (uint8_t[]){ 0x1e, 0x9e, 0xe0, 0x48 }, 4, false);
    outb(&f, 0x64, 0x60);
    outb(&f, 0x60, 0x07);                       /* no translation: set 2 */
    i8042_key(k, 0x1e, true);
    i8042_key(k, 0xe048, false);
    expect(&f, (uint8_t[]){ 0x1c, 0xe0, 0xf0, 0x75 }, 4, false);
    outb(&f, 0x60, 0xf2);
    expect(&f, (uint8_t[]){ 0xfa, 0xab, 0x83 }, 3, false);
    outb(&f, 0x60, 0xf0);
    assert_int_equal(take(&f), 0xfa);
    outb(&f, 0x60, 0x00);
    expect(&f, (uint8_t[]){ 0xfa, 0x02 }, 2, false);
    outb(&f, 0x60, 0x77);                       /* no such command */
    expect(&f, (uint8_t[]){ 0xfe }, 1, false);
    fixture_fini(&f);
}

static void set_rate(struct fixture *f, uint8_t rate)
{
    aux_write(f, 0xf3);
    assert_int_equal(take(f), 0xfa);
    aux_write(f, rate);
    assert_int_equal(take(f), 0xfa);
}

static void test_i8042_mouse_answers_and_grows_a_wheel(void **unused)
{
    struct fixture f;
    struct dev *k = kbc_setup(&f);
    aux_write(&f, 0xff);
    expect(&f, (uint8_t[]){ 0xfa, 0xaa, 0x00 }, 3, true);
    aux_write(&f, 0xf2);
    expect(&f, (uint8_t[]){ 0xfa, 0x00 }, 2, true);
    aux_write(&f, 0xe9);
    expect(&f, (uint8_t[]){ 0xfa, 0x00, 0x02, 100 }, 4, true);
    set_rate(&f, 200);
    set_rate(&f, 100);
    set_rate(&f, 80);
    aux_write(&f, 0xf2);
    expect(&f, (uint8_t[]){ 0xfa, 0x03 }, 2, true);
    i8042_mouse(k, 5, -3, 1, 1);
    assert_int_equal(take(&f), -1);             /* reporting is off */
    aux_write(&f, 0xf4);
    expect(&f, (uint8_t[]){ 0xfa, 0x29, 5, 0xfd, 1 }, 5, true);
    i8042_mouse(k, 300, 0, 0, 0);
    expect(&f, (uint8_t[]){ 0x08, 255, 0, 0, 0x08, 45, 0, 0 }, 8, true);
    set_rate(&f, 200);
    set_rate(&f, 200);
    set_rate(&f, 80);
    aux_write(&f, 0xf2);
    expect(&f, (uint8_t[]){ 0xfa, 0x04 }, 2, true);
    fixture_fini(&f);
}

static void test_i8042_resets_the_machine(void **unused)
{
    struct fixture f;
    kbc_setup(&f);
    outb(&f, 0x64, 0xff);
    assert_int_equal(f.n_requests, 0);
    outb(&f, 0x64, 0xfe);
    assert_int_equal(f.n_requests, 1);
    assert_int_equal(f.request, GUEST_RESET);
    outb(&f, 0x64, 0xd1);
    outb(&f, 0x60, 0xdf);                       /* A20 on */
    assert_int_equal(f.n_requests, 1);
    outb(&f, 0x64, 0xd1);
    outb(&f, 0x60, 0xde);
    assert_int_equal(f.n_requests, 2);
    fixture_fini(&f);
}

static void test_i8042_survives_a_flood(void **unused)
{
    struct fixture f;
    struct dev *k = kbc_setup(&f);
    aux_write(&f, 0xf4);
    for (unsigned i = 0; i < 1000; i++) {
        i8042_key(k, 0xe000 | (i & 0x7f), i & 1);
        i8042_mouse(k, 30000, -30000, 100, i);
    }
    unsigned n = 0;
    while (take(&f) >= 0 && n < 10000) {
        n++;
    }
    assert_in_range(n, 64, 1000);
    fixture_fini(&f);
}

/* fw_cfg */

static struct dev *fw_setup(struct fixture *f)
{
    fixture_init(f);
    struct fw_cfg_props props = { .ram_size = FIX_RAM, .n_cpus = 3, .max_cpus = 8, .uuid = { 1, 2, 3 } };
    return fw_cfg_create(&f->env, "fw", &props, NULL);
}

static void fw_read(struct fixture *f, uint16_t key, uint8_t *to, unsigned n)
{
    fix_out(f, 0x510, key, 2);
    for (unsigned i = 0; i < n; i++) {
        to[i] = inb(f, 0x511);
    }
}

static void test_fw_cfg_serves_keys_and_a_sorted_directory(void **unused)
{
    struct fixture f;
    struct dev *fw = fw_setup(&f);
    struct err err = ERR_INIT;
    uint8_t b[256];
    fw_read(&f, FW_CFG_SIGNATURE, b, 6);
    assert_memory_equal(b, "QEMU\0\0", 6);
    fw_read(&f, FW_CFG_FEATURES, b, 4);
    assert_int_equal(load_le32(b), 3);
    fw_read(&f, FW_CFG_N_CPUS, b, 2);
    assert_int_equal(load_le16(b), 3);
    fw_read(&f, FW_CFG_MAX_CPUS, b, 2);
    assert_int_equal(load_le16(b), 8);
    fw_read(&f, FW_CFG_RAM_SIZE, b, 8);
    assert_int_equal(load_le64(b), FIX_RAM);
    assert_true(fw_cfg_add_file(fw, "etc/zeta", "zz", 2, &err));
    assert_true(fw_cfg_add_file(fw, "bootorder", "HALT", 5, &err));
    assert_true(fw_cfg_add_file(fw, "etc/empty", NULL, 0, &err));
    assert_false(fw_cfg_add_file(fw, "bootorder", "x", 1, &err));
    assert_int_equal(err.code, ERR_EXISTS);
    assert_false(fw_cfg_add_file(fw, "a-name-that-is-longer-than-the-fifty-five-bytes-there-are-for-it", "x", 1, &err));
    fw_read(&f, FW_CFG_DIR, b, 4 + 3 * 64);
    assert_int_equal(load_be32(b), 3);
    assert_int_equal(load_be32(b + 4), 5);
    assert_int_equal(load_be16(b + 8), 0x20);
    assert_string_equal((char *)b + 12, "bootorder");
    assert_string_equal((char *)b + 4 + 64 + 8, "etc/empty");
    assert_string_equal((char *)b + 4 + 128 + 8, "etc/zeta");
    fw_read(&f, 0x22, b, 4);
    assert_memory_equal(b, "zz\0\0", 4);
    fw_read(&f, 0x3333, b, 4);
    assert_memory_equal(b, "\0\0\0\0", 4);
    fixture_fini(&f);
}

static uint32_t fw_dma(struct fixture *f, uint32_t control, uint32_t len, uint64_t to)
{
    uint8_t cmd[16];
    store_be32(cmd, control);
    store_be32(cmd + 4, len);
    store_be64(cmd + 8, to);
    mem_write(f->env.mem, 0x1000, cmd, 16);
    fix_out(f, 0x514, 0, 4);
    fix_out(f, 0x518, __builtin_bswap32(0x1000), 4);
    mem_read(f->env.mem, 0x1000, cmd, 4);
    return load_be32(cmd);
}

static void test_fw_cfg_dma(void **unused)
{
    struct fixture f;
    struct dev *fw = fw_setup(&f);
    uint8_t b[16];
    assert_int_equal(fix_in(&f, 0x514, 4), 0x554d4551);         /* "QEMU", big-endian register read by bytes */
    assert_true(fw_cfg_add_file(fw, "f", "0123456789", 10, NULL));
    memset(b, 0xee, sizeof(b));
    mem_write(f.env.mem, 0x2000, b, sizeof(b));
    assert_int_equal(fw_dma(&f, 0x20u << 16 | 8 | 2, 4, 0x2000), 0);
    assert_int_equal(fw_dma(&f, 4, 2, 0), 0);                   /* skip */
    assert_int_equal(fw_dma(&f, 2, 6, 0x2004), 0);              /* four bytes and two zeros */
    mem_read(f.env.mem, 0x2000, b, 11);
    assert_memory_equal(b, "01236789\0\0\xee", 11);
    assert_int_equal(fw_dma(&f, 16, 4, 0x2000), 1);             /* nothing is writable */
    assert_int_equal(fw_dma(&f, 0x20u << 16 | 8 | 2, 4, FIX_RAM - 2), 1);
    assert_int_equal(fw_dma(&f, 2, 0xffffffff, 0x3000), 1);
    assert_int_equal(fw_dma(&f, 2, 16, ~0ull - 3), 1);
    fix_out(&f, 0x514, 0xffffffff, 4);                          /* a command block outside RAM: no effect */
    fix_out(&f, 0x518, 0xffffffff, 4);
    fixture_fini(&f);
}

/* Small ports */

static void test_small_ports(void **unused)
{
    struct fixture f;
    fixture_init(&f);
    assert_non_null(debug_exit_create(&f.env, "exit", &(struct debug_exit_props){ 0 }, NULL));
    assert_non_null(port80_create(&f.env, "post", NULL));
    assert_non_null(debugcon_create(&f.env, "con", &(struct debugcon_props){ .base = 0x402 }, NULL));
    assert_non_null(pvpanic_create(&f.env, "panic", NULL));
    assert_non_null(dma8237_create(&f.env, "dma", NULL));
    fix_out(&f, 0xf4, 0x12345678, 4);
    assert_int_equal(f.request, GUEST_EXIT);
    assert_int_equal(f.request_code, 0x12345678);
    outb(&f, 0xf4, 0);
    assert_int_equal(f.n_requests, 2);
    assert_int_equal(f.request_code, 0);
    outb(&f, 0x80, 0x42);
    assert_int_equal(inb(&f, 0x80), 0x42);
    assert_int_equal(inb(&f, 0x402), 0xe9);
    for (unsigned i = 0; i < 1000; i++) {
        outb(&f, 0x402, i % 300 ? 'x' : '\n');
    }
    assert_int_equal(inb(&f, 0x505), 3);
    outb(&f, 0x505, 0xf0);
    assert_int_equal(f.n_requests, 2);
    outb(&f, 0x505, 1);
    assert_int_equal(f.request, GUEST_PANIC);
    outb(&f, 0x0c, 0);
    outb(&f, 0x02, 0x34);
    outb(&f, 0x02, 0x12);
    outb(&f, 0x0c, 0);
    assert_int_equal(inb(&f, 0x02), 0x34);
    assert_int_equal(inb(&f, 0x02), 0x12);
    assert_int_equal(inb(&f, 0x08), 0);
    outb(&f, 0x81, 0x77);
    assert_int_equal(inb(&f, 0x81), 0x77);
    assert_int_equal(inb(&f, 0x80), 0x42);
    fixture_fini(&f);
}

static void test_pc_testdev_drives_lines(void **unused)
{
    struct fixture f;
    fixture_init(&f);
    assert_non_null(pc_testdev_create(&f.env, "t", NULL));
    outb(&f, 0x2005, 1);
    assert_int_equal(f.hub.gsi_count[5], 1);
    outb(&f, 0x2005, 0);
    assert_int_equal(f.hub.gsi_count[5], 0);
    outb(&f, 0x2017, 1);
    assert_int_equal(f.hub.gsi_count[23], 1);
    fix_out(&f, 0xe0, 0x11223344, 4);
    assert_int_equal(fix_in(&f, 0xe0, 4), 0x11223344);
    outb(&f, 0xe2, 0x55);
    assert_int_equal(fix_in(&f, 0xe0, 4), 0x11553344);
    assert_int_equal(fix_in(&f, 0xea, 2), 0x1155);
    dev_reset_all(&f.env);
    assert_int_equal(f.hub.gsi_count[23], 0);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_i8042_start_up_of_linux),
        cmocka_unit_test(test_i8042_keyboard_answers),
        cmocka_unit_test(test_i8042_mouse_answers_and_grows_a_wheel),
        cmocka_unit_test(test_i8042_resets_the_machine),
        cmocka_unit_test(test_i8042_survives_a_flood),
        cmocka_unit_test(test_fw_cfg_serves_keys_and_a_sorted_directory),
        cmocka_unit_test(test_fw_cfg_dma),
        cmocka_unit_test(test_small_ports),
        cmocka_unit_test(test_pc_testdev_drives_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
