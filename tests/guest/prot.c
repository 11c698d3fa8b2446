/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * 32-bit protected mode: descriptors, limits, rings, call gates, task switches. Sources: SDM vol. 3A 5 (protection), 7 (tasks).
 * TCG checks no segment limits and few segment types on accesses.
 */
#include "rt/rt.h"

enum { S0 = SEL_FREE, S1 = SEL_FREE + 8, S2 = SEL_FREE + 16, S3 = SEL_FREE + 24 };
static uint8_t area[8192] ALIGNED(4096);

static void seg(unsigned sel, uint32_t base, uint32_t limit, unsigned access, unsigned flags) { gdt[sel / 8] = seg_desc(base, limit, access, flags); }

/* One access of `n` bytes at `off` through FS = sel; gives the vector. */
static ulong rd(unsigned sel, ulong off, unsigned n)
{
    ulong v;
    __asm__ volatile("mov %0, %%fs" :: "r"(sel) : "memory");
    switch (n) {
    case 1: v = TRY("movb %%fs:(%0), %%al", :: "r"(off) : "eax", "memory"); break;
    case 2: v = TRY("movw %%fs:(%0), %%ax", :: "r"(off) : "eax", "memory"); break;
    default: v = TRY("movl %%fs:(%0), %%eax", :: "r"(off) : "eax", "memory"); break;
    }
    return v;
}
static ulong wr(unsigned sel, ulong off)
{
    __asm__ volatile("mov %0, %%fs" :: "r"(sel) : "memory");
    return TRY("movb $0, %%fs:(%0)", :: "r"(off) : "memory");
}

static void limits(void)
{
    seg(S0, (uint32_t)area, 0xff, 0x93, 4);
    check_eq(rd(S0, 0xff, 1), NO_TRAP, "last byte");
    check_hw(rd(S0, 0x100, 1), GP, "byte beyond the limit");
    check_hw(caught.error, 0, "error code");
    check_eq(rd(S0, 0xfe, 2), NO_TRAP, "last word");
    check_hw(rd(S0, 0xff, 2), GP, "word over the limit");
    check_eq(rd(S0, 0xfc, 4), NO_TRAP, "last dword");
    check_hw(rd(S0, 0xfd, 4), GP, "dword over the limit");
    check_hw(rd(S0, 0xffffffff, 4), GP, "dword that wraps");
    seg(S0, (uint32_t)area, 0, 0x93, 0xc);
    check_eq(rd(S0, 0xfff, 1), NO_TRAP, "4 KiB granularity: limit 0 is 4095");
    check_hw(rd(S0, 0x1000, 1), GP, "and no more");
    seg(S0, (uint32_t)area, 0xff, 0x97, 4);
    check_hw(rd(S0, 0xff, 1), GP, "expand-down: the limit itself is outside");
    check_eq(rd(S0, 0x100, 1), NO_TRAP, "above it is inside");
    seg(S0, (uint32_t)area, 0xff, 0x97, 0);
    check_hw(rd(S0, 0x10000, 1), GP, "expand-down, B = 0: up to FFFF");
    seg(S0, (uint32_t)area, 0xff, 0x91, 4);
    check_eq(rd(S0, 0, 1), NO_TRAP, "read-only data");
    check_hw(wr(S0, 0), GP, "is not written");
    seg(S0, (uint32_t)area, 0xff, 0x9b, 4);
    check_eq(rd(S0, 0, 1), NO_TRAP, "readable code is read");
    check_hw(wr(S0, 0), GP, "and not written");
    check_hw(TRY("mov %0, %%fs; movb %%fs:0, %%al", :: "r"(0) : "eax", "memory"), GP, "an access by a null selector");
    check_eq(caught.error, 0, "error code");
    seg(S0, (uint32_t)area, 0xff, 0x93, 4);
    ulong sp, v;
    v = TRY("mov %%esp, %0; mov %1, %%ss; mov $0x102, %%esp; push %%eax; 8: mov %2, %%ss; mov %0, %%esp", : "=&r"(sp) : "r"(S3), "r"(SEL_DATA) : "memory");
    check_eq(v, GP, "MOV SS from an empty descriptor");
    check_eq(caught.error, S3, "error code");
    uint32_t r;
    __asm__("lsl %1, %0" : "=r"(r) : "r"(S0) : "cc");
    check_eq(r, 0xff, "LSL in bytes");
    __asm__("lsl %1, %0" : "=r"(r) : "r"(SEL_DATA) : "cc");
    check_eq(r, 0xffffffff, "LSL in pages");
    __asm__("arpl %w1, %w0" : "=r"(r) : "r"(3), "0"(0x10) : "cc");
    check_eq(r & 0xffff, 0x13, "ARPL raises RPL");
}

static void loads(void)
{
    static const struct { unsigned access; ulong ds, ss; const char *name; } t[] = {
        { 0x93, NO_TRAP, NO_TRAP, "writable data" }, { 0x91, NO_TRAP, GP, "read-only data" }, { 0x99, GP, GP, "execute-only code" },
        { 0x9b, NO_TRAP, GP, "readable code" }, { 0x13, NP, SS, "not present" }, { 0x82, GP, GP, "an LDT" }, { 0x8b, GP, GP, "a TSS" },
        { 0xf3, NO_TRAP, GP, "data of DPL 3" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(t); i++) {
        seg(S0, 0, 0xfffff, t[i].access, 0xc);
        ulong d = TRY("mov %0, %%gs", :: "r"(S0) : "memory");
        ulong s = TRY("mov %0, %%ss; nop", :: "r"(S0) : "memory");
        __asm__ volatile("mov %0, %%ss" :: "r"(SEL_DATA) : "memory");
        check(d == t[i].ds && s == t[i].ss, t[i].name);
    }
    __asm__ volatile("mov %0, %%gs" :: "r"(0));
    check_eq(TRY("mov %0, %%ss", :: "r"(0) : "memory"), GP, "a null SS");
    gdt[S1 / 8] = seg_desc((uint32_t)area, 0xff, 0x82, 0);
    ((uint64_t *)area)[2] = seg_desc(0x1234, 0xff, 0x92, 4);
    __asm__ volatile("lldt %w0" :: "r"(S1));
    check_eq(TRY("mov %0, %%gs", :: "r"(0x14) : "memory"), NO_TRAP, "a selector of the LDT");
    check_eq(area[16 + 5], 0x93, "its accessed bit is set in the LDT");
    check_eq(TRY("mov %0, %%gs", :: "r"(0x104) : "memory"), GP, "beyond the LDT's limit");
    check_eq(caught.error, 0x104, "error code");
    __asm__ volatile("mov %0, %%gs; lldt %w0" :: "r"(0));
}

/* --- rings and gates --- */
volatile uint32_t g_count, g_arg, g_ss, g_esp, g_cs;
struct far { uint32_t off; uint16_t sel; } __attribute__((packed));
struct far gate_far = { 0, S1 | 3 }, far_code;
extern const char gate_target[], u_gate[], conforming_target[];
__asm__(".text\n"
        "gate_target: incl g_count\n movl 8(%esp), %eax\n movl %eax, g_arg\n movw %ss, g_ss\n movl %esp, g_esp\n movw %cs, g_cs\n lret $8\n"
        "u_gate: movl %esp, %esi\n pushl $0x55\n pushl $0x1234\n lcall *gate_far\n subl %esp, %esi\n movl %cs, %eax\n movl %esi, %edx\n int $0x80\n"
        "conforming_target: movl %cs, %eax\n movl %eax, g_cs\n lret\n");
static ulong u_hlt(ulong a) { __asm__ volatile("hlt"); return 0; }
static ulong u_int(ulong a) { __asm__ volatile("int $0x55"); return 0; }
static ulong u_io(ulong a) { return inb((uint16_t)a); }
static ulong u_conf(ulong a) { __asm__ volatile("lcall *far_code" ::: "eax", "memory"); return g_cs; }
static ulong u_load_ds0(ulong a) { __asm__ volatile("mov %0, %%gs" :: "r"(SEL_DATA)); return 0; }
static ulong u_into(ulong a) { __asm__ volatile("movb $0x7f, %%al; incb %%al; into" ::: "eax", "cc"); return 0; }
static ulong u_bound(ulong a) { static const int32_t b[2] = { 1, 5 }; __asm__ volatile("bound %0, %1" :: "r"(a), "m"(b)); return 0; }

static void rings(void)
{
    check_eq(user_call(u_hlt, 0), GP, "HLT in ring 3");
    check_eq(caught.cs, SEL_USER_CODE32, "from ring 3");
    check_eq(user_call(u_int, 0), GP, "INT n through a gate of DPL 0");
    check_eq(caught.error, 0x55 << 3 | 2, "error code");
    check_eq(user_call(u_load_ds0, 0), GP, "ring 3 loads a segment of DPL 0");
    check_eq(user_call(u_into, 0), OF, "INTO");
    check_eq(user_call(u_bound, 3), VEC_USER_DONE, "BOUND inside");
    check_eq(user_call(u_bound, 6), BR, "BOUND outside");
    check_eq(user_call(u_io, 0x80), GP, "IN with IOPL 0");
    gdt[S1 / 8] = ((ulong)gate_target & 0xffff) | (uint64_t)SEL_CODE << 16 | (uint64_t)(0xec00 | 2) << 32 | (uint64_t)((ulong)gate_target >> 16) << 48;
    extern uint8_t user_stack[16384];
    check_eq(user_enter((ulong)u_gate, 0, (ulong)user_stack + 8192), VEC_USER_DONE, "a call gate to ring 0 with two parameters");
    check(g_count == 1 && g_arg == 0x1234 && (g_ss & 0xffff) == SEL_DATA && (g_cs & 0xffff) == SEL_CODE, "ran in ring 0 with its parameters");
    check_eq(tss[0].esp0 - g_esp, 24, "on the TSS's stack: SS, ESP, two parameters, CS, EIP");
    check_eq(caught.ax & 0xffff, SEL_USER_CODE32, "RET goes back to ring 3");
    check_eq(caught.dx, 0, "and takes the parameters off both stacks");
    gdt[S1 / 8] &= ~((uint64_t)0x8000 << 32);
    check_eq(user_enter((ulong)u_gate, 0, (ulong)user_stack + 8192), NP, "a gate that is not present");
    check_eq(caught.error, S1, "error code");
    gdt[S1 / 8] = (gdt[S1 / 8] | (uint64_t)0x8000 << 32) & ~((uint64_t)0x6000 << 32);
    check_eq(user_enter((ulong)u_gate, 0, (ulong)user_stack + 8192), GP, "a gate of DPL 0");
    seg(S2, 0, 0xfffff, 0x9f, 0xc);
    far_code = (struct far){ (uint32_t)conforming_target, S2 };
    check_eq(user_call(u_conf, 0), VEC_USER_DONE, "conforming code of DPL 0 called from ring 3");
    check_eq(caught.ax & 0xffff, S2 | 3, "runs in ring 3");
    far_code.sel = SEL_CODE;
    check_eq(user_call(u_conf, 0), GP, "nonconforming code of DPL 0");
    check_eq(caught.error, SEL_CODE, "error code");
    seg(SEL_TSS0, (uint32_t)&tss[0], sizeof(tss[0]) - 1, 0x89, 0);
    memset(tss[0].io, 0xff, sizeof(tss[0].io));
    ltr(SEL_TSS0);
    tss[0].io[0x10] = 0xfe;
    check_eq(user_call(u_io, 0x80), VEC_USER_DONE, "the I/O bitmap says yes");
    check_eq(user_call(u_io, 0x81), GP, "the I/O bitmap says no");
}

/* --- tasks --- */
static struct tss other ALIGNED(128);
static uint8_t task_stack[4096] ALIGNED(16);
volatile uint32_t task_ran, task_flags, task_ts;
extern const char task_code[];
__asm__(".text\n"
        "task_code: incl task_ran\n pushfl\n popl task_flags\n movl %cr0, %eax\n movl %eax, task_ts\n clts\n iretl\n jmp task_code\n");

static void task_setup(const char *code)
{
    memset(&other, 0, 0x68);
    other.eip = (uint32_t)code;
    other.eflags = 2;
    other.esp = (uint32_t)(task_stack + sizeof(task_stack));
    other.cs = SEL_CODE;
    other.ss = other.ds = other.es = SEL_DATA;
    other.ss0 = SEL_DATA;
    other.esp0 = other.esp;
    other.cr3 = read_cr3();
    other.iomap = 0x68;
    seg(S0, (uint32_t)&other, 0x67, 0x89, 0);
}

static void tasks(void)
{
    const struct far to = { 0, S0 };
    task_setup(task_code);
    task_ran = 0;
    check_eq(TRY("lcall *%0", :: "m"(to) : "eax", "memory", "cc"), NO_TRAP, "CALL of a task and back by IRET");
    check_eq(task_ran, 1, "it ran");
    check_eq(task_flags & FL_NT, FL_NT, "NT is set in it");
    check_eq(task_ts & CR0_TS, CR0_TS, "CR0.TS is set");
    check_eq(other.link, SEL_TSS0, "back link");
    check_eq(gdt[S0 / 8] >> 40 & 0xff, 0x89, "not busy after IRET");
    check_eq(gdt[SEL_TSS0 / 8] >> 40 & 0xff, 0x8b, "the caller is busy");
    check_eq(read_flags() & FL_NT, 0, "NT is clear again");
    uint16_t tr;
    __asm__ volatile("str %w0" : "=r"(tr));
    check_eq(tr, SEL_TSS0, "TR is back");
    gdt[S0 / 8] |= 2ull << 40;
    check_eq(TRY("lcall *%0", :: "m"(to) : "memory"), GP, "a busy task");
    check_eq(caught.error, S0, "error code");
    task_setup(task_code);
    gdt[S0 / 8] &= ~(0x80ull << 40);
    check_eq(TRY("lcall *%0", :: "m"(to) : "memory"), NP, "a task that is not present");
    task_setup(task_code);
    seg(S0, (uint32_t)&other, 0x66, 0x89, 0);
    check_eq(TRY("lcall *%0", :: "m"(to) : "memory"), TS, "a TSS too short");
    check_eq(caught.error, S0, "error code");
    task_ran = 0;
    task_setup(task_code);
    gate_set(&idt[0x55], 0, S0, GATE_TASK, 0, 0);
    check_eq(TRY("int $0x55", ::: "eax", "memory", "cc"), NO_TRAP, "INT n through a task gate");
    check_eq(task_ran, 1, "it ran");
    idt_reset();
    write_cr0(read_cr0() & ~(ulong)CR0_TS);
}

void guest_main(void)
{
    limits();
    loads();
    rings();
    tasks();
}
