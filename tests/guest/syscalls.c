/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ways between rings 0 and 3 in long mode: SYSCALL and SYSRET, SYSENTER and SYSEXIT, IRET, SWAPGS, FSGSBASE; 64-bit and
 * compatibility mode. Sources: SDM vol. 2B (each instruction), vol. 3A 5.8.7, 5.8.8; AMD APM vol. 2 6.1.
 */
#include "rt/rt.h"

enum { SEL_SE = 0x80 /* SYSENTER_CS: code 0, data 0, then ring 3: code 32, data, code 64, data */ };
/* SYSCALL enters here: stores what it finds and goes back as told, by SYSRET (64- or 32-bit) or to kernel code. */
volatile ulong sc_rcx, sc_r11, sc_rsp, sc_cs, sc_ss, sc_flags, sc_count, sc_return_to, sc_return_flags, sc_mode;
static uint8_t sc_stack[4096] ALIGNED(16);
ulong sc_stack_top = (ulong)(sc_stack + sizeof(sc_stack));
extern const char syscall_entry[], syscall_entry32[], sysenter_entry[];
__asm__(".text\n"
        "syscall_entry32:\n movq $32, sc_mode\n jmp 1f\n"
        "syscall_entry:\n movq $64, sc_mode\n"
        "1: movq %rcx, sc_rcx\n movq %r11, sc_r11\n movq %rsp, sc_rsp\n movq sc_stack_top, %rsp\n"
        " pushfq\n popq sc_flags\n movq $0, sc_cs\n movw %cs, sc_cs\n movq $0, sc_ss\n movw %ss, sc_ss\n incq sc_count\n"
        " cmpq $0, sc_return_flags\n je 2f\n movq sc_return_flags, %r11\n"
        "2: movq sc_rsp, %rsp\n cmpq $32, sc_mode\n je 3f\n sysretq\n3: sysretl\n"
        "sysenter_entry:\n movq %rsp, sc_rsp\n movq $0, sc_cs\n movw %cs, sc_cs\n movq $0, sc_ss\n movw %ss, sc_ss\n pushfq\n popq sc_flags\n"
        " incq sc_count\n cmpq $32, sc_mode\n je 4f\n rex.W sysexitl\n4: sysexitl\n");

/* Ring 3: code of its own, whose stack is RSP. Each ends with int $0x80; results in RAX and RDX. */
extern const char u_syscall[], u_syscall_flags[], u_sysenter[], u_segments[], u_compat[], u_compat_syscall[], u_compat_sysenter[], u_fsgs[], u_tf_syscall[];
extern const char u_syscall_back[];
__asm__(".text\n"
        "u_syscall: mov $0x1111, %r11\n movq %rsp, %rbx\n syscall\n u_syscall_back: movq %rsp, %rax\n subq %rbx, %rax\n xorl %edx, %edx\n movw %cs, %dx\n movw %ss, %si\n shl $16, %esi\n orl %esi, %edx\n int $0x80\n"
        "u_syscall_flags: push $0xad7\n popf\n syscall\n pushf\n pop %rax\n push $2\n popf\n movq %r11, %rdx\n int $0x80\n"
        "u_sysenter: movq %rsp, %rcx\n movabs $1f, %rdx\n sysenter\n 1: movw %cs, %ax\n movw %ss, %dx\n int $0x80\n"
        "u_segments: movw %cs, %ax\n movw %ss, %dx\n int $0x80\n"
        "u_fsgs: wrfsbase %rdi\n rdfsbase %rax\n wrgsbase %rdi\n rdgsbase %rdx\n int $0x80\n"
        ".code32\n"
        "u_compat: movl $-1, %eax\n incl %eax\n .byte 0x40\n pushl $7\n popl %edx\n int $0x80\n"       /* 40 is INC EAX here, a prefix in 64-bit code */
        "u_compat_syscall: movl $0x77, %eax\n syscall\n movw %cs, %ax\n movw %ss, %dx\n int $0x80\n"
        "u_compat_sysenter: movl %esp, %ecx\n movl $1f, %edx\n sysenter\n 1: movw %cs, %ax\n movw %ss, %dx\n int $0x80\n"
        ".code64\n");
extern uint8_t user_stack[16384];
#define USER_SP ((ulong)user_stack + 8192)
static ulong run(const char *code, ulong arg) { return user_enter((ulong)code, arg, USER_SP); }

/* TCG takes non-canonical addresses in MSRs and by WRFSBASE, and SYSCALL in compatibility mode whatever the vendor. */
static void syscall_setup(void)
{
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    wrmsr(MSR_STAR, (uint64_t)0x23 << 48 | (uint64_t)SEL_CODE << 32);
    wrmsr(MSR_LSTAR, (ulong)syscall_entry);
    wrmsr(MSR_CSTAR, (ulong)syscall_entry32);
    wrmsr(MSR_FMASK, FL_TF | FL_IF | FL_DF | FL_CF);
}

static void syscalls(void)
{
    check_eq(run(u_syscall, 0), UD, "SYSCALL with EFER.SCE clear");
    syscall_setup();
    sc_count = 0;
    check_eq(run(u_syscall, 0), VEC_USER_DONE, "SYSCALL and SYSRET");
    check_eq(sc_count, 1, "the entry ran");
    check_eq(sc_cs, SEL_CODE, "CS from STAR");
    check_eq(sc_ss, SEL_CODE + 8, "SS from STAR");
    check_eq(sc_rcx, (ulong)u_syscall_back, "RCX is the return address");
    check_eq(sc_r11 & 2, 2, "R11 is RFLAGS");
    check_eq(sc_mode, 64, "64-bit code goes to LSTAR");
    check_eq(caught.ax, 0, "RSP is kept");
    check_eq(caught.dx & 0xffff, 0x33, "SYSRET: CS");
    check_eq(caught.dx >> 16 & 0xffff, 0x2b, "SYSRET: SS");
    check_eq(run(u_syscall_flags, 0), VEC_USER_DONE, "SYSCALL with flags set");
    check_eq(sc_flags & (FL_CF | FL_DF), 0, "FMASK clears");
    check_hw(sc_flags & FL_OF, FL_OF, "what it does not name stays");        /* TCG clears all arithmetic flags */
    check_eq(caught.ax & 0xdd5, 0x8d5 | (0xad7 & 0x500), "SYSRET restores the flags");
    sc_return_flags = 0x3000 | 0x200000 | 2 | FL_RF | FL_VM;
    check_eq(run(u_syscall_flags, 0), VEC_USER_DONE, "SYSRET with other flags in R11");
    check_eq(caught.ax & (FL_RF | FL_VM | FL_ID), FL_ID, "RF and VM are cleared, ID is loaded");
    sc_return_flags = FL_TF | 2;
    check_eq(run(u_syscall, 0), DB, "SYSRET that sets TF");
    check_eq(caught.ip, (ulong)u_syscall_back, "traps before the next instruction");
    write_dr6(0xffff0ff0);
    sc_return_flags = 0;
    user_cs = SEL_USER_CODE32;
    bool amd = cpu_is_amd();
    ulong v = run(u_compat_syscall, 0);
    if (amd) {
        check_eq(v, VEC_USER_DONE, "SYSCALL in compatibility mode (AMD)");
        check_eq(sc_mode, 32, "goes to CSTAR");
        check_eq(caught.ax & 0xffff, 0x23, "32-bit SYSRET: CS");
    } else {
        check_hw(v, UD, "SYSCALL in compatibility mode (Intel)");
    }
    user_cs = SEL_USER_CODE64;
    if (!amd && not_on_tcg("SYSRET to a non-canonical RIP")) {      /* AMD: faults in ring 3, at the fetch */
        check_eq(TRY("movl $2, %%r11d; sysretq", :: "c"(1ul << 63) : "r11", "memory"), GP, "SYSRET to a non-canonical RIP");
        check_eq(caught.cs, SEL_CODE, "faults in ring 0");
    }
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(uint64_t)EFER_SCE);
    check_eq(TRY("sysretq", :: "c"(0) : "r11", "memory"), UD, "SYSRET with EFER.SCE clear");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    check_hw(try_wrmsr(MSR_LSTAR, 1ul << 63), GP, "a non-canonical LSTAR");
    check_hw(try_wrmsr(MSR_CSTAR, 1ul << 63), GP, "a non-canonical CSTAR");
    extern const char u_sysret[];
    check_eq(run(u_sysret, 0), GP, "SYSRET in ring 3");
}
__asm__(".text\n u_sysret: sysretq\n int $0x80\n u_sysexit: sysexitl\n int $0x80\n");

static void sysenters(void)
{
    if (cpu_is_amd()) {
        wrmsr(MSR_SYSENTER_CS, SEL_SE);
        check_hw(run(u_sysenter, 0), UD, "SYSENTER in long mode (AMD)");
        return;
    }
    for (unsigned i = 0; i < 6; i++) {
        static const struct { unsigned access, flags; } d[6] = { { 0x9b, 0xa }, { 0x93, 0xc }, { 0xfb, 0xc }, { 0xf3, 0xc }, { 0xfb, 0xa }, { 0xf3, 0xc } };
        gdt[SEL_SE / 8 + i] = seg_desc(0, 0xfffff, d[i].access, d[i].flags);
    }
    wrmsr(MSR_SYSENTER_CS, 0);
    check_eq(run(u_sysenter, 0), GP, "SYSENTER with SYSENTER_CS null");
    wrmsr(MSR_SYSENTER_CS, SEL_SE);
    wrmsr(MSR_SYSENTER_ESP, sc_stack_top);
    wrmsr(MSR_SYSENTER_EIP, (ulong)sysenter_entry);
    sc_mode = 64;
    sc_count = 0;
    check_eq(run(u_sysenter, 0), VEC_USER_DONE, "SYSENTER and 64-bit SYSEXIT");
    check_eq(sc_count, 1, "the entry ran");
    check_eq(sc_cs, SEL_SE, "CS");
    check_eq(sc_ss, SEL_SE + 8, "SS");
    check_eq(sc_rsp, sc_stack_top, "RSP");
    check_eq(sc_flags & (FL_IF | FL_VM), 0, "IF is clear");
    check_eq(caught.ax & 0xffff, (SEL_SE + 32) | 3, "SYSEXIT: CS");
    check_eq(caught.dx & 0xffff, (SEL_SE + 40) | 3, "SYSEXIT: SS");
    sc_mode = 32;
    user_cs = SEL_USER_CODE32;
    check_eq(run(u_compat_sysenter, 0), VEC_USER_DONE, "SYSENTER from compatibility mode, 32-bit SYSEXIT");
    check_eq(caught.ax & 0xffff, (SEL_SE + 16) | 3, "SYSEXIT: CS");
    check_eq(caught.dx & 0xffff, (SEL_SE + 24) | 3, "SYSEXIT: SS");
    user_cs = SEL_USER_CODE64;
    if (not_on_tcg("SYSEXIT to a non-canonical RIP")) {
        check_eq(TRY("rex.W sysexitl", :: "c"(0), "d"(1ul << 63) : "memory"), GP, "SYSEXIT to a non-canonical RIP");
    }
    extern const char u_sysexit[];
    check_eq(run(u_sysexit, 0), GP, "SYSEXIT in ring 3");
}

static void rings(void)
{
    check_eq(run(u_segments, 0), VEC_USER_DONE, "IRET to ring 3");
    check_eq(caught.ax & 0xffff, SEL_USER_CODE64, "CS");
    check_eq(caught.dx & 0xffff, SEL_USER_DATA, "SS");
    user_cs = SEL_USER_CODE32;
    check_eq(run(u_compat, 0), VEC_USER_DONE, "32-bit code under long mode");
    check_eq((uint32_t)caught.ax, 1, "opcode 40 is INC there");
    check_eq(caught.dx, 7, "PUSH is 32 bits wide");
    user_cs = SEL_USER_CODE64;
    /* Data segments that ring 3 may not keep become null on the way out. */
    gdt[SEL_FREE / 8] = seg_desc(0, 0xfffff, 0x93, 0xc);
    extern const char u_read_segs[];
    __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %1, %%fs; mov %1, %%gs" :: "r"(SEL_FREE), "r"(SEL_USER_DATA) : "memory");
    check_eq(run(u_read_segs, 0), VEC_USER_DONE, "segments on the way to ring 3");
    check_eq(caught.ax & 0xffff, 0, "DS of ring 0 is null in ring 3");
    check_eq(caught.dx & 0xffff, SEL_USER_DATA, "FS of ring 3 stays");
    __asm__ volatile("mov %0, %%gs" :: "r"(SEL_FREE) : "memory");
    wrmsr(MSR_GS_BASE, 0x123456789000);
    (void)run(u_read_segs, 0);
    check_eq(rdmsr(MSR_GS_BASE), 0x123456789000, "a base from the MSR stays when ring 0's selector in GS becomes null");
    __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %1, %%fs; mov %1, %%gs" :: "r"(SEL_DATA), "r"(0) : "memory");
    /* Far transfers in 64-bit mode. */
    struct { uint64_t off; uint16_t sel; } __attribute__((packed)) far = { 0, SEL_CODE };
    ulong sp;
    __asm__ volatile("lea 1f(%%rip), %%rax; mov %%rax, %1; rex.W ljmp *%1; ud2; 1: mov %%rsp, %0" : "=r"(sp), "+m"(far) :: "rax", "memory");
    check(true, "far jump through memory, 64-bit offset");
    __asm__ volatile("lea 1f(%%rip), %%rax; mov %%rax, %0; rex.W lcall *%0; jmp 2f; 1: lretq; 2:" : "+m"(far) :: "rax", "memory");
    check(true, "far call and return, 64-bit");
    gdt[SEL_FREE / 8] = (uint64_t)SEL_CODE << 16 | 0x8c0000000000ull;
    gdt[SEL_FREE / 8 + 1] = 0;
    const struct { uint32_t off; uint16_t sel; } __attribute__((packed)) gate = { 0, SEL_FREE };
    __asm__ volatile("lea 1f(%%rip), %%rax; movw %%ax, %1; shr $16, %%rax; movw %%ax, 6+%1; lcall *%0; jmp 2f; 1: lretq; 2:"
                     :: "m"(gate), "m"(gdt[SEL_FREE / 8]) : "rax", "memory");
    check(true, "a 64-bit call gate within ring 0");
    check_eq(TRY("ljmp *%0", :: "m"((struct { uint32_t off; uint16_t sel; } __attribute__((packed))){ 0x1000, 0x1f8 }) : "memory"), GP, "far jump to an empty descriptor");
    check_eq(caught.error, 0x1f8, "error code");
}
__asm__(".text\n u_read_segs: movw %ds, %ax\n movw %fs, %dx\n int $0x80\n");

static void call_gate_ring3(void)
{
    extern const char u_gate[], gate_target[];
    ulong t = (ulong)gate_target;
    gdt[SEL_FREE / 8] = (t & 0xffff) | (uint64_t)SEL_CODE << 16 | 0xec0000000000ull | (t >> 16 & 0xffff) << 48;
    gdt[SEL_FREE / 8 + 1] = t >> 32;
    sc_count = 0;
    check_eq(run(u_gate, 0), VEC_USER_DONE, "a call gate from ring 3 and back");
    check_eq(sc_count, 1, "it ran");
    check_eq(sc_cs, SEL_CODE, "in ring 0");
    check_eq(sc_ss, 0, "with a null SS");
    check(sc_rsp == ((volatile struct tss *)tss)->rsp[0] - 32, "on the TSS's stack");
    check_eq(caught.ax & 0xffff, SEL_USER_CODE64, "RET goes back to ring 3");
    gdt[SEL_FREE / 8] &= ~0x600000000000ull;
    check_eq(run(u_gate, 0), GP, "a call gate of DPL 0");
    check_eq(caught.error, SEL_FREE, "error code");
}
const struct { uint32_t off; uint16_t sel; } __attribute__((packed)) gate_far = { 0, SEL_FREE | 3 };
__asm__(".text\n u_gate: lcall *gate_far\n movw %cs, %ax\n int $0x80\n"
        "gate_target: incq sc_count\n movq %rsp, sc_rsp\n movq $0, sc_cs\n movw %cs, sc_cs\n movq $0, sc_ss\n movw %ss, sc_ss\n lretq\n");

static void bases(void)
{
    wrmsr(MSR_GS_BASE, 0x1111);
    wrmsr(MSR_KERNEL_GS, 0x2222);
    __asm__ volatile("swapgs" ::: "memory");
    check(rdmsr(MSR_GS_BASE) == 0x2222 && rdmsr(MSR_KERNEL_GS) == 0x1111, "SWAPGS");
    static volatile uint64_t cell = 0x5566778899aabbcc;
    wrmsr(MSR_FS_BASE, (ulong)&cell - 0x1000);
    uint64_t v;
    __asm__ volatile("mov %%fs:(%1), %0" : "=r"(v) : "r"(0x1000ul) : "memory");
    check_eq(v, cell, "FS base adds");
    wrmsr(MSR_FS_BASE, (ulong)&cell + 0x1000);
    __asm__ volatile("mov %%fs:-0x1000, %0" : "=r"(v) :: "memory");
    check_eq(v, cell, "and wraps");
    __asm__ volatile("mov %0, %%fs" :: "r"(SEL_USER_DATA) : "memory");
    check_eq(rdmsr(MSR_FS_BASE), 0, "loading a descriptor sets the base from it");
    gdt[SEL_FREE / 8] = seg_desc(0x12345678, 0xfffff, 0xf3, 0xc);
    __asm__ volatile("mov %0, %%gs" :: "r"(SEL_FREE | 3) : "memory");
    check_eq(rdmsr(MSR_GS_BASE), 0x12345678, "32 bits of it");
    wrmsr(MSR_FS_BASE, 0x123456789000);
    __asm__ volatile("mov %0, %%fs" :: "r"(0) : "memory");
    if (cpu_is_intel()) {
        check_eq(rdmsr(MSR_FS_BASE), 0, "a null selector clears the base (Intel)");
    }
    check_hw(try_wrmsr(MSR_FS_BASE, 1ul << 63), GP, "a non-canonical FS base");
    check_hw(try_wrmsr(MSR_KERNEL_GS, 1ul << 63), GP, "a non-canonical kernel GS base");
    check_eq(TRY("rdfsbase %%rax", ::: "rax", "memory"), UD, "RDFSBASE with CR4.FSGSBASE clear");
    if (!(cpuid2(7, 0).b & 1)) {
        skip("FSGSBASE", "not there");
        return;
    }
    write_cr4(read_cr4() | CR4_FSGSBASE);
    check_eq(run(u_fsgs, 0x7fff12345678), VEC_USER_DONE, "WRFSBASE and WRGSBASE in ring 3");
    check(caught.ax == 0x7fff12345678 && caught.dx == 0x7fff12345678, "read back");
    check_eq(rdmsr(MSR_FS_BASE), 0x7fff12345678, "the MSR is the same");
    check_hw(run(u_fsgs, 1ul << 63), GP, "a non-canonical base");
    uint32_t lo;
    __asm__ volatile("wrfsbase %%rcx; wrfsbase %%edx; rdfsbase %%rax" : "=a"(v) : "c"(0x111122223333), "d"(0x44445555) : "memory");
    check_eq(v, 0x44445555, "WRFSBASE of 32 bits clears the upper half");
    __asm__ volatile("wrfsbase %%rcx; mov $-1, %%rax; rdfsbase %%eax" : "=a"(lo) : "c"(0x111122223333) : "memory");
    check_eq(lo, 0x22223333, "RDFSBASE of 32 bits");
    write_cr4(read_cr4() & ~(ulong)CR4_FSGSBASE);
}

void guest_main(void)
{
    rings();
    call_gate_ring3();
    syscalls();
    sysenters();
    bases();
}
