/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Runs the filter programs over every system call and compares them with the table they were made of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "vmm/filter.h"

enum { DENY = SECCOMP_RET_TRAP, SELF = 4711, MAX_CALL = 600 };
static const enum filter_kind kinds[] = { FILTER_ALL, FILTER_MAIN, FILTER_IO, FILTER_VCPU };

/* The part of classic BPF that we emit; anything else fails the test. */
static uint32_t run(const struct sock_filter *code, size_t n, const struct seccomp_data *data)
{
    uint32_t a = 0;
    for (size_t pc = 0; pc < n; pc++) {
        const struct sock_filter *i = &code[pc];
        bool hit;
        switch (i->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            assert_true(i->k % 4 == 0 && i->k <= sizeof(*data) - 4);
            memcpy(&a, (const char *)data + i->k, 4);
            break;
        case BPF_ALU | BPF_AND | BPF_K:
            a &= i->k;
            break;
        case BPF_JMP | BPF_JEQ | BPF_K:
        case BPF_JMP | BPF_JGE | BPF_K:
            hit = BPF_OP(i->code) == BPF_JEQ ? a == i->k : a >= i->k;
            pc += hit ? i->jt : i->jf;
            break;
        case BPF_RET | BPF_K:
            return i->k;
        default:
            fail_msg("instruction %#x at %zu", i->code, pc);
        }
    }
    fail_msg("ran off the end");
    return 0;
}

static bool allowed(enum filter_kind kind, uint32_t nr, unsigned arg, uint64_t value)
{
    struct sock_filter code[FILTER_MAX];
    size_t n = filter_build(kind, DENY, SELF, code);
    struct seccomp_data d = { .nr = (int)nr, .arch = AUDIT_ARCH_X86_64 };
    d.args[arg] = value;
    uint32_t got = run(code, n, &d);
    assert_true(got == SECCOMP_RET_ALLOW || got == DENY);
    return got == SECCOMP_RET_ALLOW;
}

static bool table_allows(enum filter_kind kind, uint32_t nr, const uint64_t args[6])
{
    for (size_t i = 0; i < n_filter_rules; i++) {
        const struct filter_rule *r = &filter_rules[i];
        uint32_t want = r->value == FILTER_SELF ? SELF : r->value;
        if (r->nr == nr && (r->kinds & kind) && (!r->mask || ((uint32_t)args[r->arg] & r->mask) == want)) {
            return true;
        }
    }
    return false;
}

static void test_the_program_says_what_the_table_says(void **unused)
{
    static const uint64_t values[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 37, 38, 100, SELF, 0x1000, 0x1001, 0xffffffff, 0x100000000ull, 1030 };
    struct sock_filter code[FILTER_MAX];
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        size_t n = filter_build(kinds[k], DENY, SELF, code);
        assert_true(n > 10 && n <= FILTER_MAX);
        for (uint32_t nr = 0; nr < MAX_CALL; nr++) {
            for (size_t v = 0; v < ARRAY_SIZE(values) * 6; v++) {
                struct seccomp_data d = { .nr = (int)nr, .arch = AUDIT_ARCH_X86_64 };
                uint64_t args[6] = { 0 };
                d.args[v % 6] = args[v % 6] = values[v / 6];
                bool want = table_allows(kinds[k], nr, args);
                if (run(code, n, &d) != (want ? SECCOMP_RET_ALLOW : DENY)) {
                    fail_msg("kind %d, call %u, argument %zu = %#llx", kinds[k], nr, v % 6, (unsigned long long)values[v / 6]);
                }
            }
        }
    }
}

static void test_rows_of_one_call_stand_together_and_narrower_kinds_are_narrower(void **unused)
{
    for (size_t i = 0; i < n_filter_rules; i++) {
        assert_true(filter_rules[i].kinds & FILTER_ALL);
        assert_true(filter_rules[i].nr < MAX_CALL);
        for (size_t j = i + 2; j < n_filter_rules; j++) {
            assert_true(filter_rules[j].nr != filter_rules[i].nr || filter_rules[j - 1].nr == filter_rules[i].nr);
        }
    }
}

static void test_what_must_never_be_allowed_is_not(void **unused)
{
    static const uint32_t never[] = {
        SYS_execve, SYS_execveat, SYS_ptrace, SYS_open, SYS_openat, SYS_openat2, SYS_creat, SYS_mount, SYS_umount2, SYS_bpf, SYS_userfaultfd, SYS_keyctl,
        SYS_io_uring_setup, SYS_process_vm_readv, SYS_process_vm_writev, SYS_socket, SYS_socketpair, SYS_connect, SYS_bind, SYS_listen, SYS_clone, SYS_clone3,
        SYS_fork, SYS_vfork, SYS_unshare, SYS_setns, SYS_ioctl, SYS_kill, SYS_tkill, SYS_setuid, SYS_chroot, SYS_pivot_root, SYS_personality, SYS_memfd_create,
        SYS_pkey_mprotect, SYS_shmat, SYS_remap_file_pages, SYS_process_madvise, SYS_perf_event_open, SYS_init_module, SYS_kexec_load, SYS_link, SYS_unlink,
        SYS_rename, SYS_readlink, SYS_getdents64, SYS_pidfd_getfd, SYS_name_to_handle_at, SYS_open_by_handle_at, SYS_prlimit64, SYS_setrlimit,
    };
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        for (size_t i = 0; i < ARRAY_SIZE(never); i++) {
            assert_false(allowed(kinds[k], never[i], 0, 0));
        }
        for (uint64_t prot = 0; prot < 16; prot++) {
            assert_int_equal(allowed(kinds[k], SYS_mmap, 2, prot), !(prot & PROT_EXEC));
            assert_int_equal(allowed(kinds[k], SYS_mprotect, 2, prot), !(prot & PROT_EXEC));
        }
        assert_false(allowed(kinds[k], SYS_tgkill, 0, SELF + 1));
        assert_false(allowed(kinds[k], SYS_madvise, 2, MADV_MERGEABLE));
        assert_false(allowed(kinds[k], SYS_madvise, 2, MADV_HWPOISON));
        assert_false(allowed(kinds[k], SYS_fcntl, 1, F_SETOWN));
        assert_false(allowed(kinds[k], SYS_newfstatat, 3, 0));
    }
    assert_false(allowed(FILTER_VCPU, SYS_seccomp, 0, SECCOMP_SET_MODE_FILTER));
    assert_false(allowed(FILTER_VCPU, SYS_accept4, 0, 0));
    assert_false(allowed(FILTER_VCPU, SYS_recvmsg, 0, 0));
    assert_false(allowed(FILTER_VCPU, SYS_pwritev, 0, 0));
    assert_false(allowed(FILTER_VCPU, SYS_close, 0, 0));
}

static void test_other_calling_conventions_end_the_process(void **unused)
{
    struct sock_filter code[FILTER_MAX];
    size_t n = filter_build(FILTER_ALL, DENY, SELF, code);
    struct seccomp_data i386 = { .nr = SYS_read, .arch = AUDIT_ARCH_I386 }, x32 = { .nr = 0x40000000 | SYS_read, .arch = AUDIT_ARCH_X86_64 };
    assert_true(run(code, n, &i386) == SECCOMP_RET_KILL_PROCESS);
    assert_true(run(code, n, &x32) == SECCOMP_RET_KILL_PROCESS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_program_says_what_the_table_says),
        cmocka_unit_test(test_rows_of_one_call_stand_together_and_narrower_kinds_are_narrower),
        cmocka_unit_test(test_what_must_never_be_allowed_is_not),
        cmocka_unit_test(test_other_calling_conventions_end_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
