/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The host's side: loads the whole register state, jumps to the case, and comes back through a jump behind it, or
 * through a signal for every kind of fault. Signals run on a stack of their own; the handler only notes the fault and
 * sends the thread to the common exit, which saves the state as sigreturn brought it back.
 */
#include "hostdiff.h"

#include <asm/ldt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define HIDDEN __attribute__((visibility("hidden")))

/* Offsets are spelt out in the assembly below. */
struct host_ctx {
    uint64_t in_r[16], in_rip, in_rflags, in_fs, in_gs;         /* 0 */
    uint64_t out_r[16], out_rip, out_rflags, out_fs, out_gs;    /* 160 */
    uint64_t host_rsp, host_fs;                                 /* 320 */
    uint32_t far_off;                                           /* 336 */
    uint16_t far_sel, pad;
    uint64_t sig_fs;                                            /* 344 */
    uint64_t spare;                                             /* 352 */
    uint16_t in_ds, in_ss;                                      /* 360 */
    uint8_t fill[20];
    uint8_t in_xsave[XS_SIZE] __attribute__((aligned(64)));     /* 384 */
    uint8_t out_xsave[XS_SIZE] __attribute__((aligned(64)));    /* 1216 */
};
_Static_assert(offsetof(struct host_ctx, out_r) == 160 && offsetof(struct host_ctx, host_rsp) == 320 &&
                   offsetof(struct host_ctx, sig_fs) == 344 && offsetof(struct host_ctx, in_ds) == 360 && offsetof(struct host_ctx, in_xsave) == 384 &&
                   offsetof(struct host_ctx, out_xsave) == 1216,
               "see the assembly");
HIDDEN struct host_ctx host_ctx;
HIDDEN void host_enter64(void), host_enter32(void), host_exit(void), host_signal_entry(int sig, siginfo_t *si, void *uc);
HIDDEN void host_signal(int sig, siginfo_t *si, void *arg);

#define LOAD_ALL                                                                                        \
    "mov host_ctx+0(%rip), %rax\n mov host_ctx+8(%rip), %rcx\n mov host_ctx+16(%rip), %rdx\n"           \
    "mov host_ctx+24(%rip), %rbx\n mov host_ctx+40(%rip), %rbp\n mov host_ctx+48(%rip), %rsi\n"         \
    "mov host_ctx+56(%rip), %rdi\n mov host_ctx+64(%rip), %r8\n mov host_ctx+72(%rip), %r9\n"           \
    "mov host_ctx+80(%rip), %r10\n mov host_ctx+88(%rip), %r11\n mov host_ctx+96(%rip), %r12\n"         \
    "mov host_ctx+104(%rip), %r13\n mov host_ctx+112(%rip), %r14\n mov host_ctx+120(%rip), %r15\n"      \
    "mov host_ctx+32(%rip), %rsp\n"
#define ENTER                                                                                           \
    "push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"                           \
    "mov %rsp, host_ctx+320(%rip)\n"                                                                    \
    "mov $7, %eax\n xor %edx, %edx\n xrstor64 host_ctx+384(%rip)\n"                                     \
    "mov host_ctx+144(%rip), %rax\n wrfsbase %rax\n mov host_ctx+152(%rip), %rax\n wrgsbase %rax\n"     \
    "pushq host_ctx+136(%rip)\n popfq\n"
#define DATA_SEGS                                                                                       \
    "mov host_ctx+360(%rip), %ds\n mov host_ctx+360(%rip), %es\n mov host_ctx+362(%rip), %ss\n"

__asm__(".text\n"
        ".globl host_enter64, host_enter32, host_exit, host_signal_entry\n"
        ".hidden host_enter64, host_enter32, host_exit, host_signal_entry\n"
        "host_enter64:\n" ENTER LOAD_ALL "jmp *host_ctx+128(%rip)\n"
        "host_enter32:\n" ENTER DATA_SEGS LOAD_ALL "ljmp *host_ctx+336(%rip)\n"
        "host_exit:\n"
        "mov %rax, host_ctx+160(%rip)\n mov %rcx, host_ctx+168(%rip)\n mov %rdx, host_ctx+176(%rip)\n"
        "mov %rbx, host_ctx+184(%rip)\n mov %rsp, host_ctx+192(%rip)\n mov %rbp, host_ctx+200(%rip)\n"
        "mov %rsi, host_ctx+208(%rip)\n mov %rdi, host_ctx+216(%rip)\n mov %r8, host_ctx+224(%rip)\n"
        "mov %r9, host_ctx+232(%rip)\n mov %r10, host_ctx+240(%rip)\n mov %r11, host_ctx+248(%rip)\n"
        "mov %r12, host_ctx+256(%rip)\n mov %r13, host_ctx+264(%rip)\n mov %r14, host_ctx+272(%rip)\n"
        "mov %r15, host_ctx+280(%rip)\n"
        "mov host_ctx+320(%rip), %rsp\n"
        "pushfq\n popq host_ctx+296(%rip)\n mov $0x2b, %eax\n mov %eax, %ds\n mov %eax, %es\n mov %eax, %ss\n pushq $0x202\n popfq\n"
        "rdfsbase %rax\n mov %rax, host_ctx+304(%rip)\n rdgsbase %rax\n mov %rax, host_ctx+312(%rip)\n"
        "mov host_ctx+328(%rip), %rax\n wrfsbase %rax\n"
        "mov $7, %eax\n xor %edx, %edx\n xsave64 host_ctx+1216(%rip)\n"
        "fninit\n vzeroupper\n push $0x1f80\n ldmxcsr (%rsp)\n pop %rax\n"
        "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
        /* FS belongs to the case; C code needs its own */
        "host_signal_entry:\n"
        "rdfsbase %rax\n mov %rax, host_ctx+344(%rip)\n"
        "mov host_ctx+328(%rip), %rax\n wrfsbase %rax\n jmp host_signal\n");

static struct {
    bool active, hit;
    int sig, vector;
    uint32_t error;
    uint64_t cr2, rip;
} fault;

static struct sigaction previous_fpe;

void host_signal(int sig, siginfo_t *si, void *arg)
{
    ucontext_t *uc = arg;
    greg_t *g = uc->uc_mcontext.gregs;
    if (!fault.active) {
        if (sig == SIGFPE && previous_fpe.sa_flags & SA_SIGINFO) {
            previous_fpe.sa_sigaction(sig, si, arg);    /* native/: a numeric exception in a thunk */
        } else {
            signal(sig, SIG_DFL);                       /* our own mistake */
        }
        return;
    }
    fault.active = false;
    fault.hit = true;
    fault.sig = sig;
    fault.vector = (int)g[REG_TRAPNO];
    fault.error = (uint32_t)g[REG_ERR];
    fault.cr2 = (uint64_t)g[REG_CR2];
    fault.rip = (uint64_t)g[REG_RIP];
    g[REG_RIP] = (greg_t)(uintptr_t)host_exit;
    /* CS and, in the top bits, SS */
    g[REG_CSGSFS] = (greg_t)(((uint64_t)g[REG_CSGSFS] & 0x0000ffffffff0000ull) | 0x33 | 0x2bull << 48);
}

static uint8_t *code_rw;
static bool has_32, has_ldt;

void put_code_exit(uint8_t *page)
{
    memset(page, 0xcc, PG);
    /* jmp *[rip + 0]; address: in 64-bit mode */
    memcpy(page + (CODE_EXIT32 - CODE), (const uint8_t[]){0xff, 0x25, 0, 0, 0, 0}, 6);
    store_le64(page + (CODE_EXIT32 - CODE) + 6, (uintptr_t)host_exit);
}

/* Code through two views: the case's bytes are written where the host cannot execute them. */
static bool map_code(void)
{
    int fd = memfd_create("hostdiff-code", 0);
    if (fd < 0 || ftruncate(fd, PG) < 0) {
        return false;
    }
    code_rw = mmap(NULL, PG, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void *rx = mmap((void *)(uintptr_t)CODE, PG, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
    close(fd);
    if (code_rw == MAP_FAILED || rx != (void *)(uintptr_t)CODE) {
        return false;
    }
    put_code_exit(code_rw);
    return *(volatile uint8_t *)(uintptr_t)CODE == 0xcc;
}

static bool map_arena(void)
{
    uint8_t *p = mmap((void *)(uintptr_t)AR, AR_PAGES * PG, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (p != (void *)(uintptr_t)AR) {
        return false;
    }
    memcpy(p, pristine, AR_PAGES * PG);
    for (unsigned i = 0; i < AR_PAGES; i++) {
        if (!page_mapped(i)) {
            munmap(p + i * PG, PG);
        } else if (!page_writable(i)) {
            mprotect(p + i * PG, PG, PROT_READ);
        }
    }
    return true;
}

static void catch_signals(void)
{
    static const int sigs[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    stack_t ss = {.ss_size = 256 * KIB};
    ss.ss_sp = mmap(NULL, ss.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sigaltstack(&ss, NULL);
    struct sigaction sa = {.sa_sigaction = host_signal_entry, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigfillset(&sa.sa_mask);
    for (unsigned i = 0; i < ARRAY_SIZE(sigs); i++) {
        sigaction(sigs[i], &sa, sigs[i] == SIGFPE ? &previous_fpe : NULL);
    }
}

uint8_t *host_mem(void)
{
    return (uint8_t *)(uintptr_t)AR;
}

bool host_has_32(void)
{
    return has_32;
}

bool host_has_ldt(void)
{
    return has_ldt;
}

static bool make_ldt(void)
{
    struct user_desc d[] = {
        {.entry_number = SEL_CODE16 >> 3, .base_addr = CODE, .limit = 0xffff, .contents = 2, .useable = 1},
        {.entry_number = SEL_DATA16 >> 3, .base_addr = AR, .limit = SEG_LIMIT, .useable = 1},
        {.entry_number = SEL_DATA32 >> 3, .base_addr = AR, .limit = SEG_LIMIT, .seg_32bit = 1, .useable = 1},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(d); i++) {
        if (syscall(SYS_modify_ldt, 1, &d[i], sizeof(d[i])) != 0) {
            return false;
        }
    }
    return true;
}

/* Runs a trivial 32-bit case: kernels without IA32 emulation have no such code segment. */
static void probe_32(void)
{
    struct test_case *t = aligned_alloc(64, sizeof(*t));
    struct outcome *o = aligned_alloc(64, sizeof(*o));
    memset(t, 0, sizeof(*t));
    t->bits = 32;
    t->code[0] = 0x40;          /* inc eax; in 64-bit mode a lone REX */
    t->len = 1;
    t->in.r[R_AX] = 41;
    t->in.r[R_SP] = AR_STACK + 2048;
    t->in.rip = CODE + 1024;
    t->in.rflags = 0x202;
    store_le16(t->in.xsave, 0x37f);
    store_le32(t->in.xsave + 24, 0x1f80);
    host_run(t, o);
    has_32 = o->vector < 0 && o->s.r[R_AX] == 42;
    free(t);
    free(o);
}

bool host_init(void)
{
    uint64_t fs;
    if (!map_code() || !map_arena()) {
        return false;
    }
    __asm__ volatile("rdfsbase %0" : "=r"(fs));
    host_ctx.host_fs = fs;
    /* 32-bit code needs data segments; the 64-bit ABI leaves them null */
    __asm__ volatile("mov %0, %%ds\n mov %0, %%es" : : "r"(0x2b));
    catch_signals();
    probe_32();
    has_ldt = has_32 && make_ldt();
    return true;
}

unsigned put_code(const struct test_case *t, uint8_t *page)
{
    unsigned at = (unsigned)(t->in.rip - CODE), end = at + t->len;
    memcpy(page + at, t->code, t->len);
    if (t->bits == 64) {
        memcpy(page + end, (const uint8_t[]){0xff, 0x25, 0, 0, 0, 0}, 6);
        store_le64(page + end + 6, (uintptr_t)host_exit);
        return t->len + 14;
    }
    if (t->bits == 16) {
        page[end++] = 0x66;
    }
    page[end] = 0xea;           /* ljmp 0x33:CODE_EXIT32 */
    store_le32(page + end + 1, CODE_EXIT32);
    store_le16(page + end + 5, 0x33);
    return t->len + 8;
}

void host_run(const struct test_case *t, struct outcome *o)
{
    unsigned n = put_code(t, code_rw);
    memcpy(host_ctx.in_r, t->in.r, sizeof(host_ctx.in_r));
    host_ctx.in_rip = t->in.rip;
    host_ctx.in_rflags = t->in.rflags;
    host_ctx.in_fs = t->in.fs;
    host_ctx.in_gs = t->in.gs;
    uint64_t base = t->bits == 16 ? CODE : 0;
    host_ctx.far_off = (uint32_t)(t->in.rip - base);
    host_ctx.far_sel = t->bits == 16 ? SEL_CODE16 : 0x23;
    host_ctx.in_ds = host_ctx.in_ss = t->bits == 16 ? SEL_DATA16 : t->segs ? SEL_DATA32 : 0x2b;
    memcpy(host_ctx.in_xsave, t->in.xsave, XS_SIZE);
    memset(host_ctx.in_xsave + 512, 0, 64);
    store_le64(host_ctx.in_xsave + 512, 7);
    memset(&fault, 0, sizeof(fault));
    atomic_signal_fence(memory_order_seq_cst);
    fault.active = true;
    atomic_signal_fence(memory_order_seq_cst);
    if (t->bits == 64) {
        host_enter64();
    } else {
        host_enter32();
    }
    atomic_signal_fence(memory_order_seq_cst);
    fault.active = false;
    memset(code_rw + (t->in.rip - CODE), 0xcc, n);
    memcpy(o->s.r, host_ctx.out_r, sizeof(o->s.r));
    memcpy(o->s.xsave, host_ctx.out_xsave, XS_SIZE);
    o->s.rflags = host_ctx.out_rflags;
    o->s.fs = fault.hit ? host_ctx.sig_fs : host_ctx.out_fs;
    o->s.gs = host_ctx.out_gs;
    o->s.rip = t->in.rip + t->len;
    o->vector = -1;
    o->error = 0;
    o->cr2 = 0;
    fault.rip += base;
    if (fault.hit && fault.vector == 3 && fault.rip - 1 - CODE < PG &&
        !(fault.rip - 1 >= t->in.rip && fault.rip - 1 < t->in.rip + t->len)) {
        o->s.rip = fault.rip - 1;       /* a branch into the int3 around the case */
    } else if (fault.hit) {
        o->vector = fault.vector;
        o->error = fault.error;
        o->cr2 = fault.vector == EXC_PF ? fault.cr2 : 0;
        o->s.rip = fault.rip;
    }
}
