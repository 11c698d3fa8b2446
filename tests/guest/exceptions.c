/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exceptions in 64-bit mode: every vector, its error code and return address, double faults, the interrupt stack table,
 * single-step, breakpoints, shadows. Sources: SDM vol. 3A chapter 6 (6.15 vector by vector, table 6-5 double fault
 * conditions, 6.14 in 64-bit mode), vol. 3B chapter 17 (debug).
 */
#include "rt/rt.h"

static ulong first_insn_faults(ulong vector)
{
    return vector != NO_TRAP && caught.ip == caught.start ? vector : NO_TRAP + 1;
}
#define FAULTS(text, vec, name) check_eq(first_insn_faults(TRY(text, ::: "rax", "rcx", "rdx", "memory", "cc")), vec, name)

static void invalid_opcodes(void)
{
    FAULTS("ud2", UD, "UD2");
    FAULTS(".byte 0x0f, 0xb9, 0xc0", UD, "UD1");
    FAULTS(".byte 0x0f, 0xff, 0xc0", UD, "UD0");
    static const struct { uint8_t len, b[6]; const char *name; } bad[] = {
        { 1, { 0x06 }, "PUSH ES in 64-bit mode" }, { 1, { 0x07 }, "POP ES" }, { 1, { 0x0e }, "PUSH CS" }, { 1, { 0x16 }, "PUSH SS" },
        { 1, { 0x17 }, "POP SS" }, { 1, { 0x1e }, "PUSH DS" }, { 1, { 0x1f }, "POP DS" }, { 1, { 0x27 }, "DAA" },
        { 1, { 0x2f }, "DAS" }, { 1, { 0x37 }, "AAA" }, { 1, { 0x3f }, "AAS" }, { 1, { 0x60 }, "PUSHA" }, { 1, { 0x61 }, "POPA" },
        { 3, { 0x82, 0xc0, 0 }, "opcode 82" }, { 6, { 0x9a, 0, 0, 0, 0, 8 }, "CALL far immediate" }, { 1, { 0xce }, "INTO" },
        { 2, { 0xd4, 10 }, "AAM" }, { 2, { 0xd5, 10 }, "AAD" }, { 1, { 0xd6 }, "SALC" }, { 6, { 0xea, 0, 0, 0, 0, 8 }, "JMP far immediate" },
        { 2, { 0xf0, 0x90 }, "LOCK NOP" }, { 3, { 0xf0, 0x01, 0xc0 }, "LOCK ADD with a register destination" },
        { 3, { 0xf0, 0x8b, 0x00 }, "LOCK MOV" }, { 3, { 0xf0, 0x3b, 0x00 }, "LOCK CMP" }, { 2, { 0x8e, 0xc8 }, "MOV to CS" },
        { 2, { 0x8e, 0xf0 }, "MOV to segment register 6" }, { 2, { 0x8d, 0xc0 }, "LEA of a register" },
        { 3, { 0x0f, 0x20, 0xc8 }, "MOV from CR1" }, { 3, { 0x0f, 0x22, 0xe8 }, "MOV to CR5" }, { 2, { 0xfe, 0xd0 }, "group 4 /2" },
        { 2, { 0xff, 0xf8 }, "group 5 /7" }, { 2, { 0xc6, 0xc8 }, "group 11 /1" }, { 3, { 0x0f, 0xc7, 0xc8 }, "CMPXCHG8B of a register" },
        { 2, { 0x0f, 0x04 }, "opcode 0F 04" }, { 2, { 0x0f, 0x0a }, "opcode 0F 0A" }, { 2, { 0x0f, 0x36 }, "opcode 0F 36" },
    };
    uint8_t *code = (uint8_t *)0x300000;
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        memset(code, 0xc3, 16);
        memcpy(code, bad[i].b, bad[i].len);
        ulong vec = TRY("mov %%rsp, %%rbx; call *%0; 8: mov %%rbx, %%rsp", :: "r"(code), "a"(0x400000) : "rbx", "memory", "cc");
        check_hw(vec == UD && caught.ip == (ulong)code, true, bad[i].name);     /* TCG takes LOCK before anything that reads memory */
    }
}

static void simple_faults(void)
{
    check_eq(first_insn_faults(TRY("divl %0", :: "r"(0), "a"(5), "d"(0) : "memory")), DE, "DIV by zero");
    check_eq(first_insn_faults(TRY("divl %0", :: "r"(2), "a"(5), "d"(2) : "memory")), DE, "DIV overflow");
    check_eq(first_insn_faults(TRY("idivl %0", :: "r"(-1), "a"(0x80000000), "d"(-1) : "memory")), DE, "IDIV of the smallest number by -1");
    check_eq(first_insn_faults(TRY("idivq %0", :: "r"(-1l), "a"(1l << 63), "d"(-1l) : "memory")), DE, "IDIV, 64 bits");
    check_eq(TRY("int3", ::: "memory"), BP, "INT3");
    check_eq(caught.ip - caught.start, 1, "INT3 returns behind itself");
    check_eq(TRY(".byte 0xcd, 3", ::: "memory"), BP, "INT 3, the two-byte form");
    check_eq(caught.ip - caught.start, 2, "INT 3 returns behind itself");
    check_eq(TRY("int $0x55", ::: "memory"), 0x55, "INT n");
    check_eq(caught.ip - caught.start, 2, "INT n returns behind itself");
    check_eq(caught.error, 0, "INT n pushes no error code");
    check_eq(first_insn_faults(TRY("mov (%0), %%al", :: "b"(1ul << 63) : "rax", "memory")), GP, "read of a non-canonical address");
    check_eq(caught.error, 0, "its error code");
    check_eq(TRY("mov %%al, (%0)", :: "r"(0x800000000000) : "memory"), GP, "write to the first non-canonical address");
    ulong sp;
    check_hw(TRY("mov %%rbp, %0; mov %1, %%rbp; mov (%%rbp), %%al; 8: mov %0, %%rbp", : "=&r"(sp) : "r"(1ul << 63) : "rax", "memory"), SS,
             "non-canonical through RBP is #SS");         /* TCG: #GP */
    check_eq(TRY("mov %%rsp, %0; mov %1, %%rsp; push $1; 8: mov %0, %%rsp", : "=&r"(sp) : "r"(1ul << 63) : "memory"), DF,
             "PUSH at a non-canonical RSP: #SS cannot be pushed either, #DF on its own stack");
    check_eq(TRY("jmp *%0", :: "r"(1ul << 63) : "memory"), GP, "jump to a non-canonical address");
    check_hw(caught.ip, caught.start, "is a fault of the jump");      /* TCG: of the fetch after it */
    check_eq(TRY("mov %0, %%ds", :: "r"(0x1f8) : "memory"), GP, "MOV DS, empty descriptor");
    check_eq(caught.error, 0x1f8, "error code is the selector");
    check_eq(TRY("mov %0, %%ds", :: "r"(0x203) : "memory"), GP, "MOV DS beyond the table's limit");
    check_eq(caught.error, 0x200, "error code is the selector without RPL");
    check_eq(TRY("mov %0, %%ds", :: "r"(0x0c) : "memory"), GP, "MOV DS from an absent LDT");
    check_eq(caught.error, 0x0c, "error code has TI");
    check_eq(TRY("mov %0, %%ss", :: "r"(0x2b) : "memory"), GP, "MOV SS of another privilege");
    gdt[SEL_FREE / 8] = seg_desc(0, 0xfffff, 0x13, 0xc);
    check_eq(TRY("mov %0, %%ds", :: "r"(SEL_FREE) : "memory"), NP, "MOV DS not present");
    check_eq(caught.error, SEL_FREE, "error code of #NP");
    check_eq(TRY("mov %0, %%ss", :: "r"(SEL_FREE) : "memory"), SS, "MOV SS not present");
    check_eq(caught.error, SEL_FREE, "error code of #SS");
    gdt[SEL_FREE / 8] = seg_desc(0, 0xfffff, 0x92, 0xc);
    check_eq(TRY("mov %0, %%ds; mov %1, %%ds", :: "r"(SEL_FREE), "r"(SEL_DATA) : "memory"), NO_TRAP, "MOV DS");
    check_eq(gdt[SEL_FREE / 8] >> 40 & 0xff, 0x93, "sets the accessed bit");
    uint8_t *code = (uint8_t *)0x300000;
    memset(code, 0x66, 15);
    code[14] = 0x90;
    code[15] = 0xc3;
    check_eq(TRY("call *%0", :: "r"(code) : "memory"), NO_TRAP, "an instruction of 15 bytes");
    code[14] = 0x66;
    code[15] = 0x90;
    code[16] = 0xc3;
    check_eq(TRY("push %0; ret", :: "r"(code) : "memory"), GP, "an instruction of 16 bytes");
    check_eq(caught.error, 0, "error code");
    check_hw(TRY("mov %0, %%cr8", :: "r"(16l) : "memory"), GP, "MOV CR8 with reserved bits");       /* TCG takes any */
}

static volatile unsigned ran;
static volatile ulong seen_sp, seen_ss, seen_cs, seen_error, seen_vector, seen_ip, seen_flags;
static void on_any(struct regs *r)
{
    ran++;
    seen_sp = (ulong)r + sizeof(*r);
    seen_ss = r->ss;
    seen_cs = r->cs;
    seen_error = r->error;
    seen_vector = r->vector;
    seen_ip = r->ip;
    seen_flags = r->flags;
    caught_from(r);
    r->ip = caught.resume;
    caught.resume = 0;
}

/* A fault while delivering another: table 6-5 of the SDM. The IDT gate of `first` is broken as told. */
enum broken { GATE_ABSENT, GATE_NO_CODE, GATE_BAD_SELECTOR };
static void break_gate(unsigned vec, enum broken how)
{
    switch (how) {
    case GATE_ABSENT: idt[vec].lo &= ~(1ul << 47); break;
    case GATE_NO_CODE: gate_set(&idt[vec], (ulong)trap_stubs, SEL_DATA, GATE_INT, 0, 0); break;
    case GATE_BAD_SELECTOR: gate_set(&idt[vec], (ulong)trap_stubs, 0x1f8, GATE_INT, 0, 0); break;
    }
}

static void nested(void)
{
    break_gate(UD, GATE_ABSENT);
    check_eq(TRY("ud2", ::: "memory"), NP, "#NP while delivering #UD (benign) is delivered");
    check_hw(caught.error, UD << 3 | 3, "its error code: vector, IDT, EXT");    /* TCG: never sets EXT */
    check_eq(caught.ip, caught.start, "return address is the first fault's");
    break_gate(UD, GATE_BAD_SELECTOR);
    check_eq(TRY("ud2", ::: "memory"), GP, "#GP for a gate with an empty code descriptor");
    check_hw(caught.error, 0x1f8 | 1, "its error code: the selector, EXT");     /* TCG: never sets EXT */
    break_gate(UD, GATE_NO_CODE);
    check_eq(TRY("ud2", ::: "memory"), GP, "#GP for a gate to a data segment");
    idt_reset();
    break_gate(0x55, GATE_ABSENT);
    check_eq(TRY("int $0x55", ::: "memory"), NP, "INT n with an absent gate");
    check_hw(caught.error, 0x55 << 3 | 2, "error code without EXT for INT n");         /* TCG: 16 * vector in long mode */
    check_eq(caught.ip, caught.start, "returns to the INT");
    break_gate(GP, GATE_ABSENT);
    check_eq(TRY("mov (%0), %%al", :: "b"(1ul << 63) : "rax", "memory"), DF, "#NP while delivering #GP (contributory) is #DF");
    check_eq(caught.error, 0, "error code of #DF");
    idt_reset();
    break_gate(DE, GATE_ABSENT);
    check_eq(TRY("divl %0", :: "r"(0), "a"(5), "d"(0) : "memory"), DF, "#NP while delivering #DE is #DF");
    idt_reset();
    break_gate(PF, GATE_ABSENT);
    check_eq(TRY("mov (%0), %%al", :: "r"(0x140000000) : "rax", "memory"), DF, "#NP while delivering #PF is #DF");
    check_eq(read_cr2(), 0x140000000, "CR2 was set before");
    idt_reset();
    /* The stack of a vector's IST is not mapped: #PF while delivering #GP is delivered (not a double fault) ... */
    tss[0].ist[0] = 0x150001000;
    gate_set(&idt[GP], (ulong)trap_stubs + GP * 16, SEL_CODE, GATE_INT, 0, 1);
    check_eq(TRY("mov (%0), %%al", :: "b"(1ul << 63) : "rax", "memory"), PF, "#PF while delivering #GP is delivered");
    check_eq(caught.error, 2, "its error code: a supervisor write");
    check_eq(caught.cr2, 0x150001000 - 8, "CR2 is the first push");
    idt_reset();
    /* ... and while delivering #PF is a double fault. */
    gate_set(&idt[PF], (ulong)trap_stubs + PF * 16, SEL_CODE, GATE_INT, 0, 1);
    check_eq(TRY("mov (%0), %%al", :: "r"(0x140000000) : "rax", "memory"), DF, "#PF while delivering #PF is #DF");
    check_eq(caught.cr2, 0x150001000 - 8, "CR2 is the second fault's");
    idt_reset();
    tss[0].ist[0] = 1ul << 63;
    gate_set(&idt[UD], (ulong)trap_stubs + UD * 16, SEL_CODE, GATE_INT, 0, 1);
    check_eq(TRY("ud2", ::: "memory"), SS, "a non-canonical IST is #SS");
    idt_reset();
    const struct table_ptr small = { 0x20 * 16 - 1, (ulong)idt }, full = { 0xfff, (ulong)idt };
    lidt(&small);
    check_eq(TRY("int $0x20", ::: "memory"), GP, "INT n beyond the IDT's limit");
    check_hw(caught.error, 0x20 << 3 | 2, "error code");
    lidt(&full);
    gate_set(&idt[0x55], (ulong)trap_stubs, SEL_CODE, 5, 0, 0);
    check_eq(TRY("int $0x55", ::: "memory"), GP, "a task gate in long mode");
    gate_set(&idt[0x55], (ulong)trap_stubs, SEL_CODE32, GATE_INT, 0, 0);
    check_eq(TRY("int $0x55", ::: "memory"), GP, "a gate to 32-bit code in long mode");
    check_eq(caught.error, SEL_CODE32, "error code");
    gate_set(&idt[0x55], 1ul << 63, SEL_CODE, GATE_INT, 0, 0);
    ulong sp;                               /* TCG: faults in the handler's first fetch, the frame is pushed */
    check_eq(TRY("mov %%rsp, %0; int $0x55; 8: mov %0, %%rsp", : "=&r"(sp) :: "memory"), GP, "a gate to a non-canonical address");
    idt_reset();
}

static uint8_t stack_a[4096] ALIGNED(16), stack_b[4096] ALIGNED(16);

static void stacks(void)
{
    trap_handlers[UD] = trap_handlers[GP] = trap_handlers[0x55] = on_any;
    tss[0].ist[0] = (ulong)(stack_a + sizeof(stack_a));
    tss[0].ist[6] = (ulong)(stack_b + sizeof(stack_b)) - 8;      /* aligned down at delivery */
    gate_set(&idt[UD], (ulong)trap_stubs + UD * 16, SEL_CODE, GATE_INT, 0, 1);
    gate_set(&idt[GP], (ulong)trap_stubs + GP * 16, SEL_CODE, GATE_INT, 0, 7);
    (void)TRY("ud2", ::: "memory");
    check_eq(seen_sp, (ulong)(stack_a + sizeof(stack_a)), "IST1: frame at its top");
    check_eq(seen_ss, SEL_DATA, "same privilege keeps SS");
    (void)TRY("mov (%0), %%al", :: "b"(1ul << 63) : "rax", "memory");
    check_eq(seen_sp, (ulong)(stack_b + sizeof(stack_b)) - 16, "IST7 with an error code: aligned to 16");
    idt_reset();
    for (unsigned i = 0; i < 16; i += 3) {
        ulong sp;
        caught.vector = 0;
        (void)TRY("mov %%rsp, %0; sub %1, %%rsp; int $0x55; 8: mov %0, %%rsp", : "=&r"(sp) : "r"((ulong)i) : "memory");
        check(((seen_sp & 15) == 0) && seen_sp <= sp - i && seen_sp > sp - i - 16, "the frame is aligned to 16 whatever RSP was");
    }
    trap_handlers[UD] = trap_handlers[GP] = trap_handlers[0x55] = NULL;
    gdt[SEL_FREE / 8] = seg_desc(0, 0xfffff, 0x93, 0xc);
    ulong vec = TRY("mov %0, %%ss; int $0x55", :: "r"(0) : "memory");
    __asm__ volatile("mov %0, %%ss" :: "r"(SEL_DATA));
    check_eq(vec, 0x55, "a null SS is fine in ring 0");
    check_eq(caught.ss, 0, "and is pushed as null");
}

/* --- single-step and breakpoints --- */
static volatile unsigned n_steps;
static volatile ulong steps_ip[64], steps_dr6;
static void on_debug(struct regs *r)
{
    if (n_steps < ARRAY_LEN(steps_ip)) {
        steps_ip[n_steps] = r->ip;
    }
    n_steps++;
    steps_dr6 = read_dr6();
    write_dr6(0xffff0ff0);
    seen_flags = r->flags;
    r->flags |= FL_RF;
}

static volatile unsigned other_steps;
static volatile ulong int_flags;
static void on_int_while_stepping(struct regs *r)
{
    int_flags = r->flags;
    other_steps++;
    __asm__ volatile("nop; nop");
}

#define STEP(text, ...) ({ n_steps = 0; write_dr6(0xffff0ff0); \
    __asm__ volatile("pushf; orl $0x100, (%%rsp); popf\n 7: " text "\n 8: pushf; andl $~0x100, (%%rsp); popf; 9: movl $7b, caught; movl $8b, caught+8" __VA_ARGS__); \
    caught.resume = 0; n_steps; })

static void single_step(void)
{
    trap_handlers[DB] = on_debug;
    unsigned n = STEP("nop; nop; nop", ::: "memory", "cc");
    check_eq(n, 3 + 3, "one trap an instruction (the POPF that clears TF still traps)");
    check_eq(steps_ip[0] - caught.start, 1, "after the first");
    check_eq(steps_dr6 & 0x4000, 0x4000, "DR6.BS");
    n = STEP("mov %%ss, %%eax; mov %%eax, %%ss; nop; nop", ::: "rax", "memory", "cc");
    check_eq(n, 4 - 1 + 3, "no trap between MOV SS and the next instruction");
    n = STEP("mov $3, %%ecx; rep stosb", :: "D"(0x300000) : "rcx", "memory", "cc");
    check_hw(n, 1 + 3 + 3, "a trap for each iteration of REP");
    n = STEP("cld; mov $5, %%ecx; 1: loop 1b", ::: "rcx", "memory", "cc");
    check_eq(n, 2 + 5 + 3, "branches are stepped");
    trap_handlers[0x55] = on_int_while_stepping;
    n = STEP("int $0x55", ::: "memory", "cc");
    check_eq(other_steps, 1, "INT n while stepping runs its handler");
    check_eq(int_flags & FL_TF, FL_TF, "TF is in the pushed flags");
    check_eq(n, 3, "no trap inside the handler, nor between IRET and the next instruction");
    trap_handlers[0x55] = NULL;
    n = STEP("jmp 1f; 1: pushf; pop %%rax", ::: "rax", "memory", "cc");
    check_eq(n, 3 + 3, "PUSHF");
    ulong pushed;
    n = STEP("pushf; pop %0", : "=r"(pushed) :: "memory", "cc");
    check_eq(pushed & FL_TF, FL_TF, "PUSHF shows TF");
    check_eq(TRY("ud2", ::: "memory"), UD, "a fault after stepping");
    n = STEP("cpuid; nop", ::: "rax", "rbx", "rcx", "rdx", "memory", "cc");
    check_eq(n, 2 + 3, "CPUID is stepped");
    n = STEP("rdtsc; nop", ::: "rax", "rdx", "memory", "cc");
    check_eq(n, 2 + 3, "RDTSC is stepped");
    n = STEP("outb %%al, $0x80; nop", ::: "memory", "cc");
    check_eq(n, 2 + 3, "OUT is stepped");
    if (not_on_tcg("HLT is stepped")) {         /* TCG sleeps for ever */
        n = STEP("hlt; nop", ::: "memory", "cc");
        check_eq(n, 2 + 3, "HLT is stepped: the trap ends it");
    }
    trap_handlers[DB] = NULL;
    check_hw(TRY(".byte 0xf1", ::: "memory"), DB, "INT1");             /* TCG: #UD */
    check_hw(caught.ip - caught.start, 1, "INT1 is a trap");
}

static volatile ulong watch_area[1024] ALIGNED(32);       /* room below: a trap of PUSH runs on this stack */
#define watched (&watch_area[1016])

static void breakpoints(void)
{
    trap_handlers[DB] = on_debug;
    write_dr6(0xffff0ff0);
    extern const char bp_here[];
    write_dr0((ulong)bp_here);
    write_dr7(0x401 | 2);
    n_steps = 0;
    __asm__ volatile("nop; nop; .globl bp_here; bp_here: nop; nop" ::: "memory");
    check_eq(n_steps, 1, "instruction breakpoint, once (RF)");
    check_eq(steps_ip[0], (ulong)bp_here, "a fault: before the instruction");
    check_eq(steps_dr6 & 0xf, 1, "DR6.B0");
    write_dr7(0x400);
    write_dr1((ulong)&watched[1]);
    write_dr7(0x400 | 1 << 2 | 1 << 20 | 2 << 22);        /* DR1: writes, 8 bytes */
    n_steps = 0;
    watched[0] = 1;
    check_eq(n_steps, 0, "a write beside the watched bytes");
    __asm__ volatile("movl $7f, caught; movl $5, %0; 7:" : "=m"(watched[1]) :: "memory");
    check_eq(n_steps, 1, "a write to them");
    check_eq(steps_ip[0], caught.start, "a trap: behind the write");
    check_eq(steps_dr6 & 0xf, 2, "DR6.B1");
    check_eq(watched[1], 5, "the write was done");
    n_steps = 0;
    (void)watched[1];
    check_eq(n_steps, 0, "reads are not watched by a write watch");
    *(volatile uint8_t *)((ulong)&watched[1] + 7) = 1;
    check_eq(n_steps, 1, "a write to the last byte");
    *(volatile uint16_t *)((ulong)&watched[1] - 1) = 1;
    check_eq(n_steps, 2, "a write that reaches the first byte from outside");
    __asm__ volatile("push %%rax; mov %0, %%rax; xchg %%rsp, %%rax; push $7; xchg %%rsp, %%rax; pop %%rax" :: "r"(&watched[2]) : "memory");
    check_eq(n_steps, 3, "PUSH");
    write_dr7(0x400 | 1 << 2 | 3 << 20 | 2 << 22);
    n_steps = 0;
    (void)watched[1];
    check_eq(n_steps, 1, "reads are watched by a read-write watch");
    ulong n = 4;
    void *at = (void *)watched;
    n_steps = 0;
    __asm__ volatile("rep stosq" : "+D"(at), "+c"(n) : "a"(0) : "memory");
    check_eq(n_steps, 1, "REP STOS over them");
    check_eq(n, 0, "and it is complete in the end");
    write_dr7(0x400);
    write_cr4(read_cr4() | CR4_DE);
    write_dr2(0x80);
    write_dr7(0x400 | 1 << 4 | 2 << 24);
    n_steps = 0;
    outb(0x81, 0);
    check_eq(n_steps, 0, "another port");
    outb(0x80, 0);
    check_eq(n_steps, 1, "I/O breakpoint");
    check_eq(steps_dr6 & 0xf, 4, "DR6.B2");
    write_dr7(0x400);
    trap_handlers[DB] = NULL;
    check_eq(TRY("mov %%dr4, %%rax", ::: "rax", "memory"), UD, "DR4 with CR4.DE");
    write_cr4(read_cr4() & ~(ulong)CR4_DE);
    check_eq(TRY("mov %%dr4, %%rax", ::: "rax", "memory"), NO_TRAP, "DR4 is DR6 without CR4.DE");
    write_dr7(0x400 | 1 << 13);
    ulong v = TRY("mov %%dr0, %%rax", ::: "rax", "memory");
    check_hw(v, DB, "DR7.GD: any access of a debug register");         /* TCG ignores GD */
    check_hw(read_dr6() & 0x2000, 0x2000, "DR6.BD");
    check_hw(read_dr7() & 0x2000, 0, "GD was cleared at delivery");
    write_dr7(0x400);
    write_dr6(0xffff0ff0);
    check_eq(TRY("mov %0, %%dr7", :: "r"(1ul << 32) : "memory"), GP, "DR7 above bit 31");
    check_eq(TRY("mov %0, %%dr6", :: "r"(1ul << 32) : "memory"), GP, "DR6 above bit 31");
    check_eq(TRY("mov %0, %%dr0", :: "r"(1ul << 40) : "memory"), NO_TRAP, "DR0 takes 64 bits");
    check_eq(read_dr0(), 1ul << 40, "and keeps them");
    check_eq(read_dr7() & 0x400, 0x400, "DR7 bit 10 is one");
    write_dr7(0);
    write_dr6(0);
    check_eq(read_dr6() & 0xffff0ff0, 0xffff0ff0, "DR6's fixed ones");
}

/* --- pushed RF, IRET --- */
static void flags_and_iret(void)
{
    (void)TRY("ud2", ::: "memory");
    check_hw(caught.flags & FL_RF, FL_RF, "a fault pushes RF = 1");      /* TCG pushes what it has */
    (void)TRY("int $0x55", ::: "memory");
    check_eq(caught.flags & FL_RF, 0, "INT n pushes RF = 0");
    check_eq(TRY("pushf; orl $0x4000, (%%rsp); popf; iretq", ::: "memory", "cc"), GP, "IRET with NT in long mode");
    write_flags(2);
    ulong sp;
    check_eq(TRY("mov %%rsp, %0; push $0x10; push %0; push $2; push $0x1f8; push $8f; iretq; 8: mov %0, %%rsp", : "=&r"(sp) :: "memory"), GP, "IRET to an empty descriptor");
    check_eq(caught.error, 0x1f8, "error code");
    check_eq(TRY("mov %%rsp, %0; push $0x10; push %0; push $2; push $8; push %1; iretq; 8: mov %0, %%rsp", : "=&r"(sp) : "r"(1ul << 63) : "memory"), GP,
             "IRET to a non-canonical RIP");
    check_eq(TRY("mov %%rsp, %0; push $0x2b; push %0; push $2; push $8; push $1f; iretq; 1: 8: mov %0, %%rsp", : "=&r"(sp) :: "memory"), GP, "IRET to ring 0 with SS of ring 3");
    __asm__ volatile("mov %0, %%ss" :: "r"(SEL_DATA));
    check_eq(TRY("mov %%rsp, %0; push $0x10; push %0; push $2; push $8; push $1f; iretq; 1: nop; 8: mov %0, %%rsp", : "=&r"(sp) :: "memory"), NO_TRAP, "IRET within ring 0");
    uint32_t vals[2];
    __asm__ volatile("mov %%rsp, %%rbx; push $0x10; push %%rbx; push $0xad7; push $8; push $1f; iretq; 1: pushf; pop %%rax; push $2; popf" : "=a"(vals[0]) :: "rbx", "memory", "cc");
    check_eq(vals[0] & 0xfff, 0xad7, "IRET loads the flags");
}

static ulong unaligned(ulong p) { __asm__ volatile("movl (%0), %%eax" :: "r"(p) : "eax", "memory"); return 0; }
static ulong unaligned_ok(ulong p) { __asm__ volatile("movb (%0), %%al" :: "r"(p) : "eax", "memory"); return 0; }

static void alignment(void)
{
    user_flags = 2 | FL_AC;
    check_eq(user_call(unaligned, (ulong)stack_a + 1), VEC_USER_DONE, "CR0.AM = 0: nothing is checked");
    write_cr0(read_cr0() | CR0_AM);
    check_hw(user_call(unaligned, (ulong)stack_a + 1), AC, "#AC in ring 3");       /* TCG has no #AC */
    check_hw(caught.error, 0, "error code");
    check_eq(user_call(unaligned, (ulong)stack_a + 4), VEC_USER_DONE, "aligned");
    check_eq(user_call(unaligned_ok, (ulong)stack_a + 1), VEC_USER_DONE, "bytes are aligned");
    user_flags = 2;
    check_eq(user_call(unaligned, (ulong)stack_a + 1), VEC_USER_DONE, "without EFLAGS.AC");
    __asm__ volatile("pushf; orl $0x40000, (%%rsp); popf" ::: "cc", "memory");
    check_eq(TRY("movl (%0), %%eax", :: "r"(stack_a + 1) : "eax", "memory"), NO_TRAP, "nothing is checked in ring 0");
    write_flags(2);
    write_cr0(read_cr0() & ~(ulong)CR0_AM);
}

static ulong u_hlt(ulong a) { __asm__ volatile("hlt"); return 0; }
static ulong u_int55(ulong a) { __asm__ volatile("int $0x55"); return 0; }
static ulong u_int3(ulong a) { __asm__ volatile("int3"); return 0; }
static ulong u_ud(ulong a) { __asm__ volatile("ud2"); return 0; }
static ulong u_cli(ulong a) { __asm__ volatile("cli"); return 0; }
static ulong u_in(ulong a) { inb(0x80); return 0; }
static ulong u_cr(ulong a) { return read_cr0(); }
static ulong u_dr(ulong a) { return read_dr7(); }
static ulong u_msr(ulong a) { return rdmsr(MSR_EFER); }
static ulong u_lgdt(ulong a) { __asm__ volatile("lgdt (%0)" :: "r"(a)); return 0; }
static ulong u_clts(ulong a) { __asm__ volatile("clts"); return 0; }
static ulong u_invlpg(ulong a) { invlpg((void *)a); return 0; }
static ulong u_wbinvd(ulong a) { __asm__ volatile("wbinvd"); return 0; }
static ulong u_swapgs(ulong a) { __asm__ volatile("swapgs"); return 0; }
static ulong u_lmsw(ulong a) { __asm__ volatile("lmsw %w0" :: "r"(a)); return 0; }
static ulong u_flags(ulong a) { write_flags(FL_IF | FL_IOPL | 2); return read_flags(); }
static ulong u_cpuid(ulong a) { return cpuid(0).a; }
static ulong u_tsc(ulong a) { return rdtsc(); }
static ulong u_icebp(ulong a) { __asm__ volatile(".byte 0xf1"); return 0; }
static ulong u_sgdt(ulong a) { __asm__ volatile("sgdt (%0)" :: "r"(a) : "memory"); return 0; }

static void privilege(void)
{
    static const struct { ulong (*fn)(ulong); ulong want; const char *name; } t[] = {
        { u_hlt, GP, "HLT in ring 3" }, { u_int55, GP, "INT n through a gate of DPL 0" }, { u_int3, BP, "INT3" }, { u_ud, UD, "UD2" },
        { u_cli, GP, "CLI" }, { u_in, GP, "IN" }, { u_cr, GP, "MOV from CR0" }, { u_dr, GP, "MOV from DR7" }, { u_msr, GP, "RDMSR" },
        { u_lgdt, GP, "LGDT" }, { u_clts, GP, "CLTS" }, { u_invlpg, GP, "INVLPG" }, { u_wbinvd, GP, "WBINVD" },
        { u_swapgs, GP, "SWAPGS" }, { u_lmsw, GP, "LMSW" }, { u_cpuid, VEC_USER_DONE, "CPUID" }, { u_tsc, VEC_USER_DONE, "RDTSC" },
        { u_icebp, DB, "INT1 ignores the gate's DPL" }, { u_sgdt, VEC_USER_DONE, "SGDT without UMIP" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(t); i++) {
        check_hw(user_call(t[i].fn, (ulong)stack_a), t[i].want, t[i].name);     /* TCG: INT1 is #UD */
    }
    (void)user_call(u_int55, 0);
    check_hw(caught.error, 0x55 << 3 | 2, "error code of INT n");
    check_eq(caught.ss, SEL_USER_DATA, "ring 3's SS is pushed");
    check_eq(caught.cs, SEL_USER_CODE64, "ring 3's CS");
    check_eq(user_call(u_flags, 0), VEC_USER_DONE, "POPF in ring 3");
    check_eq(caught.ax & (FL_IF | FL_IOPL), 0, "changes neither IF nor IOPL");
    user_flags = 2 | FL_IOPL;
    check_eq(user_call(u_in, 0), VEC_USER_DONE, "IN with IOPL 3");
    check_eq(user_call(u_flags, 0), VEC_USER_DONE, "POPF with IOPL 3");
    check_eq(caught.ax & (FL_IF | FL_IOPL), FL_IF | FL_IOPL, "changes IF");
    user_flags = 2;
    gdt[SEL_TSS0 / 8] = seg_desc((uint32_t)(ulong)&tss[0], sizeof(tss[0]) - 1, 0x89, 0);
    memset(tss[0].io, 0xff, sizeof(tss[0].io));
    ltr(SEL_TSS0);
    check_eq(user_call(u_in, 0), GP, "IN, bitmap says no");
    tss[0].io[0x80 / 8] = 0xfe;
    check_eq(user_call(u_in, 0), VEC_USER_DONE, "IN, bitmap says yes");
    write_cr4(read_cr4() | CR4_TSD);
    check_eq(user_call(u_tsc, 0), GP, "RDTSC with CR4.TSD");
    write_cr4(read_cr4() & ~(ulong)CR4_TSD);
    if (cpuid2(7, 0).c & 4) {
        write_cr4(read_cr4() | CR4_UMIP);
        check_eq(user_call(u_sgdt, (ulong)stack_a), GP, "SGDT with UMIP");
        write_cr4(read_cr4() & ~(ulong)CR4_UMIP);
    } else {
        skip("UMIP", "not there");
    }
}

void guest_main(void)
{
    tss[0].ist[1] = (ulong)(stack_a + 2048);
    gate_set(&idt[DF], (ulong)trap_stubs + DF * 16, SEL_CODE, GATE_INT, 0, 2);
    invalid_opcodes();
    simple_faults();
    nested();
    stacks();
    single_step();
    breakpoints();
    flags_and_iret();
    alignment();
    privilege();
}
