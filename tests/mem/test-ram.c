/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mem/mem.h"

/* [0, 64K) RAM, [64K, 128K) RAM in another block, hole, [1M, 1M+8K) ROM, RAM at 4G and at the very top. */
enum { A = 0, B = 64 * KIB, HOLE = 128 * KIB, ROM = MIB };
#define HIGH (4ull * GIB)
#define TOP (UINT64_MAX - 2 * PAGE_SIZE + 1)
static _Alignas(PAGE_SIZE) uint8_t rom[2 * PAGE_SIZE];

static struct mem *small_guest(void)
{
    struct mem *m = mem_create();
    struct err err = ERR_INIT;
    memset(rom, 0x5a, sizeof(rom));
    assert_true(mem_ram_add(m, A, 64 * KIB, &err));
    assert_true(mem_ram_add(m, B, 64 * KIB, &err));
    assert_true(mem_slot_add(m, ROM, sizeof(rom), rom, true, &err));
    assert_true(mem_ram_add(m, HIGH, PAGE_SIZE, &err));
    assert_true(mem_ram_add(m, TOP, PAGE_SIZE, &err));
    return m;
}

static void test_bad_slots_are_refused(void **unused)
{
    struct mem *m = small_guest();
    struct err err = ERR_INIT;
    assert_false(mem_ram_add(m, 10 * MIB, 0, &err));
    assert_false(mem_ram_add(m, 10 * MIB, 100, &err));
    assert_false(mem_ram_add(m, 10 * MIB + 1, PAGE_SIZE, &err));
    assert_false(mem_ram_add(m, UINT64_MAX - PAGE_SIZE + 1, 2 * PAGE_SIZE, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_false(mem_ram_add(m, 60 * KIB, 8 * KIB, &err));
    assert_int_equal(err.code, ERR_EXISTS);
    assert_false(mem_slot_add(m, ROM + PAGE_SIZE, 16 * MIB, rom, false, &err));
    assert_false(mem_ram_add(m, 1ull << 50, 1ull << 61, &err));
    unsigned n;
    for (mem_slots(m, &n); n < MEM_MAX_SLOTS; n++) {
        assert_true(mem_slot_add(m, 16 * MIB + n * PAGE_SIZE, PAGE_SIZE, rom, true, &err));
    }
    assert_false(mem_slot_add(m, 32 * MIB, PAGE_SIZE, rom, true, &err));
    assert_int_equal(err.code, ERR_LIMIT);
    assert_int_equal(mem_ram_size(m), 128 * KIB + 2 * PAGE_SIZE);
    mem_destroy(m);
    mem_destroy(NULL);
}

static void test_a_copy_crosses_slots_and_stops_nowhere_halfway(void **unused)
{
    struct mem *m = small_guest();
    char buf[64], got[64];
    memset(buf, 'x', sizeof(buf));
    assert_true(mem_write(m, B - 30, buf, 60));
    memset(got, 0, sizeof(got));
    assert_true(mem_read(m, B - 30, got, 60));
    assert_memory_equal(buf, got, 60);
    assert_int_equal(mem_slot_find(m, B - 1)->hva[64 * KIB - 1], 'x');
    assert_int_equal(mem_slot_find(m, B)->hva[0], 'x');

    /* One byte beyond: nothing is copied either way. */
    assert_false(mem_write(m, HOLE - 10, buf, 11));
    assert_int_equal(mem_slot_find(m, B)->hva[64 * KIB - 1], 0);
    memset(got, 7, sizeof(got));
    assert_false(mem_read(m, HOLE - 10, got, 11));
    assert_int_equal(got[0], 7);
    assert_true(mem_write(m, HOLE - 10, buf, 10));
    assert_false(mem_zero(m, HOLE - 10, 11));
    assert_int_equal(mem_slot_find(m, B)->hva[64 * KIB - 1], 'x');
    assert_true(mem_zero(m, B - 30, 60));
    assert_true(mem_read(m, B - 30, got, 60));
    assert_int_equal(got[0] | got[59], 0);
    assert_true(mem_read(m, HOLE, got, 0));
    mem_destroy(m);
}

static void test_holes_and_wrap_around_are_refused(void **unused)
{
    struct mem *m = small_guest();
    uint8_t buf[2 * PAGE_SIZE] = { 0 };
    struct mem_map map;
    uint64_t v;
    assert_false(mem_read(m, HOLE, buf, 1));
    assert_false(mem_read(m, UINT64_MAX, buf, 1));
    assert_false(mem_read(m, UINT64_MAX - 3, buf, 8));          /* would go on at 0, where RAM is */
    assert_true(mem_read(m, TOP, buf, PAGE_SIZE));
    assert_false(mem_read(m, TOP, buf, PAGE_SIZE + 1));
    assert_false(mem_read(m, HIGH + 1, buf, PAGE_SIZE));
    assert_false(mem_map(m, TOP, UINT64_MAX, false, &map));
    assert_false(mem_map(m, 0, UINT64_MAX, false, &map));
    assert_false(mem_read_le64(m, HOLE - 4, &v));
    assert_false(mem_read_le64(m, HOLE, &v));
    assert_false(mem_write_le32(m, HOLE - 2, 1));
    assert_null(mem_slot_find(m, HOLE));
    assert_null(mem_slot_find(m, UINT64_MAX));
    mem_destroy(m);
}

static void test_typed_accesses_work_at_any_alignment(void **unused)
{
    struct mem *m = small_guest();
    uint16_t v16;
    uint32_t v32;
    uint64_t v64;
    for (gpa_t at = B - 16; at < B + 16; at++) {        /* aligned, odd and crossing two slots */
        assert_true(mem_write_le64(m, at, 0x8877665544332211 + at));
        assert_true(mem_read_le64(m, at, &v64));
        assert_int_equal(v64, 0x8877665544332211 + at);
        assert_true(mem_write_le32(m, at, 0xaabbccdd));
        assert_true(mem_read_le32(m, at, &v32));
        assert_int_equal(v32, 0xaabbccdd);
        assert_true(mem_write_le16(m, at, 0xeeff));
        assert_true(mem_read_le16(m, at, &v16));
        assert_int_equal(v16, 0xeeff);
    }
    mem_destroy(m);
}

static void test_rom_is_read_and_never_written(void **unused)
{
    struct mem *m = small_guest();
    struct mem_map map;
    uint8_t b;
    assert_true(mem_read(m, ROM, &b, 1));
    assert_int_equal(b, 0x5a);
    assert_false(mem_write(m, ROM, &b, 1));
    assert_false(mem_zero(m, ROM, 1));
    assert_false(mem_write_le32(m, ROM, 0));
    assert_false(mem_write_le32(m, ROM + 1, 0));
    assert_false(mem_map(m, ROM, 1, true, &map));
    assert_true(mem_map(m, ROM, 1, false, &map));
    mem_unmap(&map);
    assert_int_equal(rom[0], 0x5a);
    mem_destroy(m);
}

struct witness {
    struct mem_listener l;
    int sets, removals, fail_at;
    gpa_t last;
    uint64_t bytes;
};

static bool on_slot(struct mem_listener *l, const struct memslot *s, struct err *err)
{
    struct witness *w = container_of(l, struct witness, l);
    if (s->size == 0) {
        w->removals++;
        return true;
    }
    return ++w->sets != w->fail_at || err_set(err, ERR_GENERIC, "no");
}

static void on_written(struct mem_listener *l, gpa_t gpa, uint64_t len)
{
    struct witness *w = container_of(l, struct witness, l);
    w->last = gpa;
    w->bytes += len;
}

static void test_listeners_hear_of_slots_and_of_device_writes(void **unused)
{
    struct mem *m = small_guest();
    struct err err = ERR_INIT;
    struct witness a = { .l = { on_slot, on_written } }, b = a;
    struct mem_map map;
    b.fail_at = 6;
    assert_true(mem_listener_add(m, &a.l, &err));
    assert_true(mem_listener_add(m, &b.l, &err));
    assert_int_equal(a.sets, 5);
    assert_false(mem_ram_add(m, 8 * MIB, PAGE_SIZE, &err));     /* b refuses: a is told it is gone again */
    assert_string_equal(err.msg, "no");
    assert_int_equal(a.removals, 1);
    assert_null(mem_slot_find(m, 8 * MIB));
    assert_true(mem_ram_add(m, 8 * MIB, PAGE_SIZE, &err));
    assert_int_equal(a.sets, 7);

    mem_write(m, B - 4, "12345678", 8);
    assert_int_equal(a.bytes, 8);
    mem_write_le16(m, 100, 1);
    assert_int_equal(a.bytes, 10);
    assert_int_equal(a.last, 100);
    assert_true(mem_map(m, B - 100, 200, true, &map));
    assert_int_equal(map.n_iov, 2);
    assert_int_equal(map.iov[0].iov_len + map.iov[1].iov_len, 200);
    memset(map.iov[1].iov_base, 0xee, 100);
    assert_int_equal(a.bytes, 10);
    mem_unmap(&map);
    mem_unmap(&map);
    assert_int_equal(a.bytes, 210);
    assert_true(mem_map(m, 0, 50, false, &map));
    mem_unmap(&map);
    assert_int_equal(a.bytes, 210);
    mem_written(m, 0, 1);
    assert_int_equal(b.bytes, 211);
    mem_listener_del(m, &a.l);
    mem_written(m, 0, 1);
    assert_int_equal(a.bytes, 211);
    mem_listener_del(m, &b.l);
    b.fail_at = b.sets + 2;
    assert_false(mem_listener_add(m, &b.l, &err));
    mem_destroy(m);
}

static void test_device_writes_are_logged_while_logging(void **unused)
{
    struct mem *m = small_guest();
    const struct memslot *a = mem_slot_find(m, A), *b = mem_slot_find(m, B);
    uint64_t bits = 0;
    mem_write_le32(m, 0, 1);
    mem_dirty_start(m);
    mem_write_le32(m, 3 * PAGE_SIZE, 1);
    mem_write(m, B - 1, "xy", 2);
    mem_zero(m, PAGE_SIZE - 1, PAGE_SIZE + 2);
    mem_dirty_fetch(m, a, &bits);
    assert_int_equal(bits, 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 15);
    bits = 0;
    mem_dirty_fetch(m, a, &bits);
    assert_int_equal(bits, 0);
    mem_dirty_fetch(m, b, &bits);
    assert_int_equal(bits, 1);
    mem_write_le32(m, 0, 1);
    mem_dirty_start(m);
    bits = 0;
    mem_dirty_fetch(m, a, &bits);
    assert_int_equal(bits, 0);
    assert_true(mem_ram_add(m, 8 * MIB, PAGE_SIZE, NULL));      /* comes while logging: logged too */
    mem_write_le32(m, 8 * MIB, 1);
    mem_dirty_fetch(m, mem_slot_find(m, 8 * MIB), &bits);
    assert_int_equal(bits, 1);
    mem_dirty_stop(m);
    mem_write_le32(m, 0, 1);
    bits = 0;
    mem_dirty_fetch(m, a, &bits);
    assert_int_equal(bits, 0);
    mem_destroy(m);
}

static void test_ram_is_sealed_and_fenced(void **unused)
{
    struct mem *m = small_guest();
    const struct memslot *s = mem_slot_find(m, A);
    assert_true(s->fd >= 0);
    assert_int_equal(ftruncate(s->fd, 0), -1);
    assert_int_equal(ftruncate(s->fd, (off_t)s->size * 2), -1);
    for (int side = 0; side < 2; side++) {
        pid_t pid = fork();
        if (pid == 0) {
            signal(SIGSEGV, SIG_DFL);
            *(volatile uint8_t *)(side ? s->hva + s->size : s->hva - 1) = 1;
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
    }
    mem_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_slots_are_refused),
        cmocka_unit_test(test_a_copy_crosses_slots_and_stops_nowhere_halfway),
        cmocka_unit_test(test_holes_and_wrap_around_are_refused),
        cmocka_unit_test(test_typed_accesses_work_at_any_alignment),
        cmocka_unit_test(test_rom_is_read_and_never_written),
        cmocka_unit_test(test_listeners_hear_of_slots_and_of_device_writes),
        cmocka_unit_test(test_device_writes_are_logged_while_logging),
        cmocka_unit_test(test_ram_is_sealed_and_fenced),
    };
    return cmocka_run_group_tests_name("mem-ram", tests, NULL, NULL);
}
