/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Kernel loaders on images made here: what they set up, and what they refuse. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "machine/boot.h"

#include <elf.h>      /* after x86_state.h: its PF_ macros are other words */

enum { RAM = 64 * MIB, SETUP = 4 * 512 + 512 };

struct fixture {
    struct boot_config cfg;
    struct x86_state st;
    const char *how;
    struct err err;
    uint8_t *image;
    size_t size;
};

static void fixture_init(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    x86_state_reset(&f->st, 0, true);
    f->cfg.mem = mem_create();
    assert_true(mem_ram_add(f->cfg.mem, 0, RAM, &f->err));
    f->cfg.low_ram = RAM;
    f->cfg.initrd_fd = f->cfg.kernel_fd = -1;
    f->cfg.rsdp = 0xe0000;
    f->cfg.e820[0] = (struct e820_entry){ 0, BOOT_LOW_END, E820_RAM };
    f->cfg.e820[1] = (struct e820_entry){ MIB, RAM - MIB, E820_RAM };
    f->cfg.n_e820 = 2;
}

static void fixture_fini(struct fixture *f)
{
    mem_destroy(f->cfg.mem);
    free(f->image);
}

static int memfile(const void *data, size_t size)
{
    int fd = memfd_create("image", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(fd_write_full(fd, data, size), 0);
    return fd;
}

static bool load(struct fixture *f)
{
    f->err = (struct err)ERR_INIT;
    f->cfg.kernel_fd = memfile(f->image, f->size);
    bool ok = boot_load(&f->cfg, &f->st, &f->how, &f->err);
    close(f->cfg.kernel_fd);
    return ok;
}

static void make_linux(struct fixture *f)
{
    f->size = SETUP + 8192;
    f->image = alloc0(f->size);
    uint8_t *p = f->image;
    p[0x1f1] = 4;
    store_le16(p + 0x1fe, 0xaa55);
    p[0x200] = 0xeb;
    p[0x201] = 0x6a;
    memcpy(p + 0x202, "HdrS", 4);
    store_le16(p + 0x206, 0x020f);
    p[0x211] = 1;
    store_le32(p + 0x22c, 0x7fffffff);
    store_le32(p + 0x230, 0x200000);
    p[0x234] = 1;
    store_le16(p + 0x236, 1);
    store_le32(p + 0x238, 2047);
    store_le64(p + 0x258, 0x1000000);
    store_le32(p + 0x260, 0x100000);
    memset(p + SETUP, 0x90, 8192);
}

static void test_linux_64_bit_entry_state_and_zero_page(void **unused)
{
    struct fixture f;
    fixture_init(&f);
    make_linux(&f);
    f.cfg.append = "console=ttyS0";
    f.cfg.initrd_fd = memfile("initrd", 6);
    assert_true(load(&f));
    assert_string_equal(f.how, "linux-64");
    assert_int_equal(f.st.rip, 0x1000200);
    assert_int_equal(f.st.gpr[R_SI], BOOT_ZERO_PAGE);
    assert_int_equal(f.st.efer, EFER_LME | EFER_LMA);
    assert_int_equal(f.st.seg[1].sel, 0x10);
    assert_true(x86_state_valid(&f.st, &f.err));
    uint8_t zp[4096];
    char text[14];
    assert_true(mem_read(f.cfg.mem, BOOT_ZERO_PAGE, zp, sizeof(zp)));
    assert_int_equal(load_le64(zp + 0x70), 0xe0000);
    assert_int_equal(zp[0x1e8], 2);
    assert_int_equal(load_le32(zp + 0x21c), 6);
    assert_int_equal(load_le32(zp + 0x218), RAM - 4096);
    assert_true(mem_read(f.cfg.mem, load_le32(zp + 0x228), text, 14));
    assert_string_equal(text, "console=ttyS0");
    assert_true(mem_read(f.cfg.mem, load_le32(zp + 0x218), text, 6));
    assert_memory_equal(text, "initrd", 6);
    close(f.cfg.initrd_fd);
    fixture_fini(&f);
}

static void test_linux_without_64_bit_entry_uses_the_32_bit_one(void **unused)
{
    struct fixture f;
    fixture_init(&f);
    make_linux(&f);
    store_le16(f.image + 0x236, 0);
    assert_true(load(&f));
    assert_string_equal(f.how, "linux-32");
    assert_int_equal(f.st.cr0 & (CR0_PG | CR0_PE), CR0_PE);
    assert_int_equal(f.st.rip, 0x1000000);
    fixture_fini(&f);
}

static void refused(struct fixture *f, const char *words)
{
    assert_false(load(f));
    if (!strstr(f->err.msg, words)) {
        fail_msg("expected '%s' in '%s'", words, f->err.msg);
    }
}

static void test_linux_headers_that_make_no_sense_are_refused(void **unused)
{
    struct fixture f;
    fixture_init(&f);
    make_linux(&f);
    store_le16(f.image + 0x206, 0x0201);
    refused(&f, "too old");
    store_le16(f.image + 0x206, 0x020f);
    f.image[0x211] = 0;
    refused(&f, "zImage");
    f.image[0x211] = 1;
    f.image[0x1f1] = 200;
    refused(&f, "cut off");
    f.image[0x1f1] = 4;
    store_le64(f.image + 0x258, UINT64_MAX - 4095);
    refused(&f, "load address");
    store_le64(f.image + 0x258, 0x1000);
    refused(&f, "load address");
    store_le64(f.image + 0x258, 0x1000000);
    store_le32(f.image + 0x260, UINT32_MAX);
    refused(&f, "--memory");
    store_le32(f.image + 0x260, 0x100000);
    store_le32(f.image + 0x238, 4);
    f.cfg.append = "too long";
    refused(&f, "command line");
    fixture_fini(&f);
}

static void test_an_initrd_that_does_not_fit_is_refused(void **unused)
{
    struct fixture f;
    fixture_init(&f);
    make_linux(&f);
    f.cfg.initrd_fd = memfd_create("big", MFD_CLOEXEC);
    assert_int_equal(ftruncate(f.cfg.initrd_fd, RAM - 0x1100000 + 1), 0);
    refused(&f, "initrd");
    assert_int_equal(ftruncate(f.cfg.initrd_fd, RAM - 0x1100000), 0);
    assert_true(load(&f));
    assert_int_equal(ftruncate(f.cfg.initrd_fd, 0), 0);
    refused(&f, "initrd is empty");
    close(f.cfg.initrd_fd);
    fixture_fini(&f);
}

/* One loadable segment at 1 MiB and one note segment. */
static void make_elf(struct fixture *f, bool note)
{
    f->size = 0x2000;
    f->image = alloc0(f->size);
    Elf64_Ehdr *e = (Elf64_Ehdr *)(void *)f->image;
    memcpy(e->e_ident, "\177ELF\2\1\1", 7);
    e->e_machine = EM_X86_64;
    e->e_entry = 0x100040;
    e->e_phoff = 64;
    e->e_phentsize = 56;
    e->e_phnum = 2;
    Elf64_Phdr *p = (Elf64_Phdr *)(void *)(f->image + 64);
    p[0] = (Elf64_Phdr){ .p_type = PT_LOAD, .p_offset = 0x1000, .p_paddr = 0x100000, .p_filesz = 0x800, .p_memsz = 0x4000 };
    p[1] = (Elf64_Phdr){ .p_type = PT_NOTE, .p_offset = 0x1800, .p_filesz = note ? 20 : 0 };
    store_le32(f->image + 0x1800, 4);
    store_le32(f->image + 0x1804, 4);
    store_le32(f->image + 0x1808, 18);
    memcpy(f->image + 0x180c, "Xen", 4);
    store_le32(f->image + 0x1810, 0x100010);
    memset(f->image + 0x1000, 0x5a, 0x800);
}

static void test_pvh_start_info(void **unused)
{
    struct fixture f;
    fixture_init(&f);
    make_elf(&f, true);
    f.cfg.initrd_fd = memfile("module", 6);
    assert_true(load(&f));
    assert_string_equal(f.how, "pvh");
    assert_int_equal(f.st.rip, 0x100010);
    assert_int_equal(f.st.gpr[R_BX], BOOT_START_INFO);
    assert_int_equal(f.st.cr0 & ~CR0_ET, CR0_PE);
    uint8_t b[0x60];
    assert_true(mem_read(f.cfg.mem, BOOT_START_INFO, b, sizeof(b)));
    assert_int_equal(load_le32(b), 0x336ec578);
    assert_int_equal(load_le32(b + 12), 1);
    assert_int_equal(load_le64(b + 0x20), 0xe0000);
    assert_int_equal(load_le64(b + 0x38 + 8), 6);
    uint8_t zero[16] = { 0 }, got[16];
    assert_true(mem_read(f.cfg.mem, 0x100800, got, 16));
    assert_memory_equal(got, zero, 16);
    close(f.cfg.initrd_fd);
    fixture_fini(&f);
}

static void test_elf_without_note_is_entered_as_vmlinux(void **unused)
{
    struct fixture f;
    fixture_init(&f);
    make_elf(&f, false);
    assert_true(load(&f));
    assert_string_equal(f.how, "elf-64");
    assert_int_equal(f.st.rip, 0x100040);
    fixture_fini(&f);
}

static void test_elf_files_that_lie_are_refused(void **unused)
{
    struct fixture f;
    fixture_init(&f);
    make_elf(&f, false);
    Elf64_Phdr *p = (Elf64_Phdr *)(void *)(f.image + 64);
    p[0].p_filesz = 0x100000;
    p[0].p_memsz = 0x100000;
    refused(&f, "beyond the file");
    p[0].p_filesz = 0x800;
    p[0].p_offset = UINT64_MAX - 0x100;
    refused(&f, "beyond the file");
    p[0].p_offset = 0x1000;
    p[0].p_memsz = UINT64_MAX;
    refused(&f, "--memory");
    p[0].p_memsz = 0x4000;
    p[0].p_paddr = 0x500;
    refused(&f, "wants memory");
    p[0].p_paddr = UINT64_MAX - 0x1000;
    refused(&f, "wants memory");
    p[0].p_paddr = 0x100000;
    store_le16(f.image + 54, 8);
    refused(&f, "program headers");
    store_le16(f.image + 54, 56);
    store_le16(f.image + 18, EM_AARCH64);
    refused(&f, "another processor");
    fixture_fini(&f);
}

static void make_multiboot(struct fixture *f)
{
    f->size = 0x400;
    f->image = alloc0(f->size);
    uint8_t *h = f->image + 16;
    store_le32(h, 0x1badb002);
    store_le32(h + 4, 0x10003);
    store_le32(h + 8, -(0x1badb002u + 0x10003u));
    store_le32(h + 12, 0x100010);
    store_le32(h + 16, 0x100000);
    store_le32(h + 20, 0);
    store_le32(h + 24, 0x101000);
    store_le32(h + 28, 0x100040);
}

static void test_multiboot_state_and_information(void **unused)
{
    struct fixture f;
    fixture_init(&f);
    make_multiboot(&f);
    assert_true(load(&f));
    assert_string_equal(f.how, "multiboot");
    assert_int_equal(f.st.gpr[R_AX], 0x2badb002);
    assert_int_equal(f.st.rip, 0x100040);
    uint8_t b[0x58];
    assert_true(mem_read(f.cfg.mem, (gpa_t)f.st.gpr[R_BX], b, sizeof(b)));
    assert_int_equal(load_le32(b + 0x2c), 48);
    assert_int_equal(load_le32(b + 8), (RAM - MIB) / KIB);
    store_le32(f.image + 16 + 12, 0x90000);
    refused(&f, "contradict");
    store_le32(f.image + 16 + 12, 0x100010);
    store_le32(f.image + 16 + 24, UINT32_MAX);
    refused(&f, "outside");
    fixture_fini(&f);
}

static void test_anything_else_is_refused(void **unused)
{
    struct fixture f;
    fixture_init(&f);
    f.size = 4096;
    f.image = alloc0(f.size);
    refused(&f, "none of");
    free(f.image);
    f.size = 1;
    f.image = alloc0(1);
    refused(&f, "none of");
    fixture_fini(&f);
}

static void test_damaged_images_never_leave_ram(void **unused)
{
    for (int kind = 0; kind < 3; kind++) {
        struct fixture f;
        fixture_init(&f);
        if (kind == 0) {
            make_linux(&f);
        } else if (kind == 1) {
            make_elf(&f, true);
        } else {
            make_multiboot(&f);
        }
        uint8_t *good = alloc0(f.size);
        memcpy(good, f.image, f.size);
        unsigned seed = 7;
        for (int i = 0; i < 3000; i++) {
            memcpy(f.image, good, f.size);
            for (int k = 0; k < 4; k++) {
                seed = seed * 1103515245 + 12345;
                unsigned at = kind == 0 ? 0x1f1 + (seed >> 8) % 0x80 : (seed >> 8) % 0xc0;
                f.image[at] = (uint8_t)(seed >> 20);
            }
            load(&f);           /* loads or refuses; the sanitizers and the guard pages around RAM watch */
        }
        free(good);
        fixture_fini(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linux_64_bit_entry_state_and_zero_page),
        cmocka_unit_test(test_linux_without_64_bit_entry_uses_the_32_bit_one),
        cmocka_unit_test(test_linux_headers_that_make_no_sense_are_refused),
        cmocka_unit_test(test_an_initrd_that_does_not_fit_is_refused),
        cmocka_unit_test(test_pvh_start_info),
        cmocka_unit_test(test_elf_without_note_is_entered_as_vmlinux),
        cmocka_unit_test(test_elf_files_that_lie_are_refused),
        cmocka_unit_test(test_multiboot_state_and_information),
        cmocka_unit_test(test_anything_else_is_refused),
        cmocka_unit_test(test_damaged_images_never_leave_ram),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
