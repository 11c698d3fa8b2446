/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The child of the probe: a VM with 2 MiB of memory and one vCPU that runs a few instructions in each mode a kernel needs.
 * Every program ends with OUT of a number that it had to compute, then HLT. The modes alone do not tell a CPU from a module
 * that interprets a handful of instructions, as KVM does under a hypervisor that grants it no hardware support: so a kernel's
 * way to user mode and back follows, and a loop that only a CPU finishes in time. Source: Linux Documentation/virt/kvm/api.rst;
 * Intel SDM vol. 3A §3.4.5 (descriptors), §4.5 (4-level paging), §6.14 (64-bit gates).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "vmm/probe-int.h"

enum {
    MEM_SIZE = 2 * MIB,
    CODE = 0x1000, HANDLER = 0x2000, USER = 0x2400, ENTRY = 0x2800, GDT = 0x3000, PML4 = 0x4000, PDPT = 0x5000, PD = 0x6000, IDT = 0x7000, DATA = 0x8000, STACK = 0xa000, TSS = 0xb000,
    PORT = 0x510, VECTOR = 0x40, MAX_CPUID = 256, API_VERSION = 12, SEL_CODE = 8, SEL_DATA = 16, SEL_TSS = 24,
    CR0_PE = 1, CR0_MP = 2, CR0_EM = 4, CR0_TS = 8, CR4_PAE = 1 << 5, CR4_OSFXSR = 1 << 9, EFER_SCE = 1, EFER_LME = 1 << 8, EFER_LMA = 1 << 10,
    PTE_P_RW_US = 7, PTE_PS = 1 << 7,
};
#define CR0_PG 0x80000000u

struct probe_vm {
    int out, kvm, vm, vcpu;
    uint8_t *mem;
    struct kvm_run *run;
    struct probe_report report;
};

/* mov ax, 0x1234; add ax, 0x1111; mov dx, PORT; out dx, ax; hlt */
static const uint8_t real_code[] = { 0xb8, 0x34, 0x12, 0x05, 0x11, 0x11, 0xba, 0x10, 0x05, 0xef, 0xf4 };
/* mov eax, 0x12345678; mov [DATA], eax; add eax, [DATA]; mov edx, PORT; out dx, eax; hlt */
static const uint8_t protected_code[] = { 0xb8, 0x78, 0x56, 0x34, 0x12, 0xa3, 0, 0x80, 0, 0, 0x03, 0x05, 0, 0x80, 0, 0, 0xba, 0x10, 0x05, 0, 0, 0xef, 0xf4 };
/*
 * mov rax, 0x1122334455667788; mov rbx, 0xffff800000008000; mov [rbx], rax; mov rax, [DATA]; shr rax, 32; mov edx, PORT;
 * out dx, eax; hlt: what is written through the upper half is read through the lower one.
 */
static const uint8_t long_code[] = {
    0x48, 0xb8, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x48, 0xbb, 0, 0x80, 0, 0, 0, 0x80, 0xff, 0xff, 0x48, 0x89, 0x03,
    0x48, 0x8b, 0x04, 0x25, 0, 0x80, 0, 0, 0x48, 0xc1, 0xe8, 0x20, 0xba, 0x10, 0x05, 0, 0, 0xef, 0xf4,
};
/* sti; hlt; mov eax, 0xbeef; mov edx, PORT; out dx, eax; hlt */
static const uint8_t wait_code[] = { 0xfb, 0xf4, 0xb8, 0xef, 0xbe, 0, 0, 0xba, 0x10, 0x05, 0, 0, 0xef, 0xf4 };
/* mov eax, 0xcafe; mov edx, PORT; out dx, eax; iretq */
static const uint8_t handler_code[] = { 0xb8, 0xfe, 0xca, 0, 0, 0xba, 0x10, 0x05, 0, 0, 0xef, 0x48, 0xcf };

/* wrmsr LSTAR, ENTRY; wrmsr STAR, 0x13:0x08; wrmsr FMASK, IF; mov ecx, USER; mov r11d, 2; swapgs; sysretq */
static const uint8_t kernel_code[] = {
    0xb9, 0x82, 0, 0, 0xc0, 0xb8, 0, 0x28, 0, 0, 0x31, 0xd2, 0x0f, 0x30, 0xb9, 0x81, 0, 0, 0xc0, 0x31, 0xc0, 0xba, 0x08, 0, 0x13, 0, 0x0f, 0x30,
    0xb9, 0x84, 0, 0, 0xc0, 0xb8, 0, 0x02, 0, 0, 0x31, 0xd2, 0x0f, 0x30, 0xb9, 0, 0x24, 0, 0, 0x41, 0xbb, 0x02, 0, 0, 0, 0x0f, 0x01, 0xf8, 0x48, 0x0f, 0x07,
};
/* mov eax, 0x1234; movd xmm0, eax; paddd xmm0, xmm0; movd eax, xmm0; syscall */
static const uint8_t user_code[] = { 0xb8, 0x34, 0x12, 0, 0, 0x66, 0x0f, 0x6e, 0xc0, 0x66, 0x0f, 0xfe, 0xc0, 0x66, 0x0f, 0x7e, 0xc0, 0x0f, 0x05 };
/* swapgs; mov edx, PORT; out dx, eax; hlt */
static const uint8_t entry_code[] = { 0x0f, 0x01, 0xf8, 0xba, 0x10, 0x05, 0, 0, 0xef, 0xf4 };
/* mov ecx, 5000000; 1: dec ecx; jnz 1b; mov eax, 0x600d; mov edx, PORT; out dx, eax; hlt */
static const uint8_t speed_code[] = { 0xb9, 0x40, 0x4b, 0x4c, 0, 0xff, 0xc9, 0x75, 0xfc, 0xb8, 0x0d, 0x60, 0, 0, 0xba, 0x10, 0x05, 0, 0, 0xef, 0xf4 };

static volatile struct kvm_run *watched;

/* Ends KVM_RUN, also when it is entered only after the signal. */
static void on_alarm(int sig)
{
    if (watched) {
        watched->immediate_exit = 1;
    }
}

static void watch(unsigned ms)
{
    struct itimerval t = { .it_value = { .tv_usec = (suseconds_t)ms * 1000 }, .it_interval = { .tv_usec = ms ? 10000 : 0 } };
    setitimer(ITIMER_REAL, &t, NULL);
}

static void send_report(struct probe_vm *p)
{
    if (fd_write_full(p->out, &p->report, sizeof(p->report)) < 0) {
        _exit(EXIT_FAILURE);
    }
}

/* What went wrong. Returns false. */
static bool wrong(struct probe_vm *p, const char *fmt, ...) PRINTF_LIKE(2, 3);
static bool wrong(struct probe_vm *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->report.why, sizeof(p->report.why), fmt, ap);
    va_end(ap);
    return false;
}

static bool failed(struct probe_vm *p, const char *call)
{
    return wrong(p, "%s: %s", call, errno == EINTR ? "did not return within 100 ms" : strerror(errno));
}

static const char *exit_name(uint32_t reason)
{
    static const char *const names[] = {
        [KVM_EXIT_UNKNOWN] = "unknown", [KVM_EXIT_EXCEPTION] = "exception", [KVM_EXIT_IO] = "I/O", [KVM_EXIT_HYPERCALL] = "hypercall", [KVM_EXIT_DEBUG] = "debug",
        [KVM_EXIT_HLT] = "HLT", [KVM_EXIT_MMIO] = "MMIO", [KVM_EXIT_IRQ_WINDOW_OPEN] = "interrupt window", [KVM_EXIT_SHUTDOWN] = "shutdown (triple fault)",
        [KVM_EXIT_FAIL_ENTRY] = "failed entry", [KVM_EXIT_INTR] = "interrupted", [KVM_EXIT_INTERNAL_ERROR] = "internal error",
    };
    return reason < ARRAY_SIZE(names) && names[reason] ? names[reason] : "other";
}

/* Runs until the next exit; it must be `want`. */
static bool run_to(struct probe_vm *p, uint32_t want, const char *what)
{
    if (ioctl(p->vcpu, KVM_RUN, 0) < 0) {
        return wrong(p, "%s: KVM_RUN: %s", what, errno == EINTR ? "the guest did not get there within 100 ms" : strerror(errno));
    }
    uint32_t got = p->run->exit_reason;
    if (got == want) {
        return true;
    }
    if (got == KVM_EXIT_INTERNAL_ERROR) {
        return wrong(p, "%s: exit 17 (internal error, kind %u)", what, p->run->internal.suberror);
    }
    if (got == KVM_EXIT_FAIL_ENTRY) {
        return wrong(p, "%s: the CPU refused the guest's state (exit 9, hardware reason %#llx)", what, (unsigned long long)p->run->fail_entry.hardware_entry_failure_reason);
    }
    return wrong(p, "%s: exit %u (%s) where %u (%s) was due", what, got, exit_name(got), want, exit_name(want));
}

static bool run_to_out(struct probe_vm *p, unsigned size, uint32_t want, const char *what)
{
    uint32_t got = 0;
    if (!run_to(p, KVM_EXIT_IO, what)) {
        return false;
    }
    if (p->run->io.direction != KVM_EXIT_IO_OUT || p->run->io.port != PORT || p->run->io.size != size || p->run->io.count != 1) {
        return wrong(p, "%s: the I/O exit tells port %#x, %u bytes", what, p->run->io.port, p->run->io.size);
    }
    memcpy(&got, (const uint8_t *)p->run + p->run->io.data_offset, size);
    return got == want || wrong(p, "%s: the guest computed %#x where %#x is right", what, got, want);
}

/* --- steps --- */

static bool step_open(struct probe_vm *p)
{
    p->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    p->report.value = p->kvm < 0 ? errno : 0;
    return p->kvm >= 0 || wrong(p, "%s", strerror(p->report.value));
}

static bool step_api(struct probe_vm *p)
{
    p->report.value = ioctl(p->kvm, KVM_GET_API_VERSION, 0);
    if (p->report.value < 0) {
        return failed(p, "KVM_GET_API_VERSION");
    }
    return p->report.value == API_VERSION || wrong(p, "version %d, not %d", p->report.value, API_VERSION);
}

static bool step_vm(struct probe_vm *p)
{
    p->vm = ioctl(p->kvm, KVM_CREATE_VM, 0);
    if (p->vm < 0) {
        return failed(p, "KVM_CREATE_VM");
    }
    /* Intel's real mode without unrestricted guest needs three pages of its own; elsewhere this is refused or ignored. */
    ioctl(p->vm, KVM_SET_TSS_ADDR, 0xfffbd000ul);
    return true;
}

static bool step_memory(struct probe_vm *p)
{
    p->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p->mem == MAP_FAILED) {
        return failed(p, "mmap");
    }
    struct kvm_userspace_memory_region r = { .memory_size = MEM_SIZE, .userspace_addr = (uintptr_t)p->mem };
    return ioctl(p->vm, KVM_SET_USER_MEMORY_REGION, &r) == 0 || failed(p, "KVM_SET_USER_MEMORY_REGION");
}

static bool step_vcpu(struct probe_vm *p)
{
    p->vcpu = ioctl(p->vm, KVM_CREATE_VCPU, 0);
    if (p->vcpu < 0) {
        return failed(p, "KVM_CREATE_VCPU");
    }
    int size = ioctl(p->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run)) {
        return failed(p, "KVM_GET_VCPU_MMAP_SIZE");
    }
    p->run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, p->vcpu, 0);
    if (p->run == MAP_FAILED) {
        p->run = NULL;
        return failed(p, "mapping the vCPU's page");
    }
    watched = p->run;
    return true;
}

static bool step_cpuid(struct probe_vm *p)
{
    AUTO_FREE struct kvm_cpuid2 *c = alloc0(sizeof(*c) + MAX_CPUID * sizeof(c->entries[0]));
    c->nent = MAX_CPUID;
    return (ioctl(p->kvm, KVM_GET_SUPPORTED_CPUID, c) == 0 || failed(p, "KVM_GET_SUPPORTED_CPUID")) &&
           (ioctl(p->vcpu, KVM_SET_CPUID2, c) == 0 || failed(p, "KVM_SET_CPUID2"));
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool l, bool db)
{
    return (struct kvm_segment){ .limit = 0xffffffff, .selector = selector, .type = type, .present = 1, .s = 1, .l = l, .db = db, .g = 1 };
}

static bool set_state(struct probe_vm *p, const struct kvm_sregs *s)
{
    struct kvm_regs r = { .rip = CODE, .rsp = STACK, .rflags = 2 };
    return (ioctl(p->vcpu, KVM_SET_SREGS, s) == 0 || failed(p, "KVM_SET_SREGS")) && (ioctl(p->vcpu, KVM_SET_REGS, &r) == 0 || failed(p, "KVM_SET_REGS"));
}

static bool step_real(struct probe_vm *p)
{
    struct kvm_sregs s;
    memcpy(p->mem + CODE, real_code, sizeof(real_code));
    if (ioctl(p->vcpu, KVM_GET_SREGS, &s) < 0) {
        return failed(p, "KVM_GET_SREGS");
    }
    s.cs.selector = 0;
    s.cs.base = 0;
    return set_state(p, &s) && run_to_out(p, 2, 0x2345, "OUT") && run_to(p, KVM_EXIT_HLT, "HLT");
}

static bool step_protected(struct probe_vm *p)
{
    struct kvm_sregs s;
    memcpy(p->mem + CODE, protected_code, sizeof(protected_code));
    if (ioctl(p->vcpu, KVM_GET_SREGS, &s) < 0) {
        return failed(p, "KVM_GET_SREGS");
    }
    s.cs = segment(SEL_CODE, 11, false, true);
    s.ds = s.es = s.fs = s.gs = s.ss = segment(SEL_DATA, 3, false, true);
    s.cr0 |= CR0_PE;
    return set_state(p, &s) && run_to_out(p, 4, 0x2468acf0, "OUT") && run_to(p, KVM_EXIT_HLT, "HLT");
}

/* 4-level tables that map the first 2 MiB at 0 and again at the start of the upper half; GDT, IDT with one gate. */
static void build_tables(uint8_t *mem)
{
    store_le64(mem + PML4, PDPT | PTE_P_RW_US);
    store_le64(mem + PML4 + 256 * 8, PDPT | PTE_P_RW_US);
    store_le64(mem + PDPT, PD | PTE_P_RW_US);
    store_le64(mem + PD, PTE_P_RW_US | PTE_PS);
    store_le64(mem + GDT + SEL_CODE, 0x00209b0000000000ull);
    store_le64(mem + GDT + SEL_DATA, 0x0000930000000000ull);
    store_le16(mem + IDT + VECTOR * 16, HANDLER);
    store_le16(mem + IDT + VECTOR * 16 + 2, SEL_CODE);
    store_le16(mem + IDT + VECTOR * 16 + 4, 0x8e00);    /* interrupt gate, present, DPL 0 */
}

static bool enter_long(struct probe_vm *p)
{
    struct kvm_sregs s;
    build_tables(p->mem);
    if (ioctl(p->vcpu, KVM_GET_SREGS, &s) < 0) {
        return failed(p, "KVM_GET_SREGS");
    }
    s.cs = segment(SEL_CODE, 11, true, false);
    s.ds = s.es = s.fs = s.gs = s.ss = segment(SEL_DATA, 3, false, true);
    s.tr = (struct kvm_segment){ .base = TSS, .limit = 0x67, .selector = SEL_TSS, .type = 11, .present = 1 };
    s.gdt = (struct kvm_dtable){ .base = GDT, .limit = 0x27 };
    s.idt = (struct kvm_dtable){ .base = IDT, .limit = 0xfff };
    s.cr3 = PML4;
    s.cr4 |= CR4_PAE | CR4_OSFXSR;
    s.cr0 = (s.cr0 | CR0_PE | CR0_PG | CR0_MP) & ~(uint64_t)(CR0_EM | CR0_TS);
    s.efer |= EFER_LME | EFER_LMA | EFER_SCE;
    return set_state(p, &s);
}

static bool step_long(struct probe_vm *p)
{
    memcpy(p->mem + CODE, long_code, sizeof(long_code));
    return enter_long(p) && run_to_out(p, 4, 0x11223344, "OUT") && run_to(p, KVM_EXIT_HLT, "HLT");
}

static bool step_interrupt(struct probe_vm *p)
{
    struct kvm_interrupt irq = { .irq = VECTOR };
    memcpy(p->mem + CODE, wait_code, sizeof(wait_code));
    memcpy(p->mem + HANDLER, handler_code, sizeof(handler_code));
    return enter_long(p) && run_to(p, KVM_EXIT_HLT, "HLT") && (ioctl(p->vcpu, KVM_INTERRUPT, &irq) == 0 || failed(p, "KVM_INTERRUPT")) &&
           run_to_out(p, 4, 0xcafe, "the handler") && run_to_out(p, 4, 0xbeef, "after IRET") && run_to(p, KVM_EXIT_HLT, "HLT");
}

static bool step_user(struct probe_vm *p)
{
    memcpy(p->mem + CODE, kernel_code, sizeof(kernel_code));
    memcpy(p->mem + USER, user_code, sizeof(user_code));
    memcpy(p->mem + ENTRY, entry_code, sizeof(entry_code));
    return enter_long(p) && run_to_out(p, 4, 0x2468, "OUT after SYSCALL") && run_to(p, KVM_EXIT_HLT, "HLT");
}

static bool step_speed(struct probe_vm *p)
{
    memcpy(p->mem + CODE, speed_code, sizeof(speed_code));
    return enter_long(p) && run_to_out(p, 4, 0x600d, "a loop of 5 million rounds") && run_to(p, KVM_EXIT_HLT, "HLT");
}

void probe_guest_run(int out)
{
    static bool (*const step_fns[N_PROBE_STEPS])(struct probe_vm *) = {
        [PROBE_OPEN] = step_open, [PROBE_API] = step_api, [PROBE_VM] = step_vm, [PROBE_MEMORY] = step_memory, [PROBE_VCPU] = step_vcpu,
        [PROBE_CPUID] = step_cpuid, [PROBE_REAL] = step_real, [PROBE_PROTECTED] = step_protected, [PROBE_LONG] = step_long, [PROBE_INTERRUPT] = step_interrupt, [PROBE_USER] = step_user, [PROBE_SPEED] = step_speed,
    };
    struct probe_vm p = { .out = out, .kvm = -1, .vm = -1, .vcpu = -1 };
    struct sigaction sa = { .sa_handler = on_alarm };
    sigaction(SIGALRM, &sa, NULL);
    for (uint32_t i = 0; i < N_PROBE_STEPS; i++) {
        p.report = (struct probe_report){ .step = i, .begun = true };
        send_report(&p);
        watch(PROBE_STEP_MS);
        p.report = (struct probe_report){ .step = i };
        p.report.ok = step_fns[i](&p);
        watch(0);
        if (p.run) {
            p.run->immediate_exit = 0;
        }
        send_report(&p);
        if (!p.report.ok) {
            return;
        }
    }
}
