/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MSRs, CPUID and control registers: what exists reads back, what is reserved is #GP, and CPUID tells the truth about it.
 * Sources: SDM vol. 4 (MSRs), vol. 3A 2.5 (control registers), vol. 2A CPUID. TCG checks next to nothing here.
 */
#include "rt/rt.h"

static ulong wr(uint32_t n, uint64_t v) { return try_wrmsr(n, v); }

static void msrs(void)
{
    uint64_t v;
    static const uint32_t unknown[] = { 0x2, 0x3c, 0x1a1, 0x7ff, 0xc01, 0x12345678, 0x40000200, 0x4b564dff, 0xc0000083 + 0x100, 0xc0010fff, 0xffffffff };
    for (unsigned i = 0; i < ARRAY_LEN(unknown); i++) {
        check_hw(try_rdmsr(unknown[i], &v), GP, "RDMSR of a register that does not exist");
        check_hw(wr(unknown[i], 0), GP, "WRMSR of it");
    }
    check_eq(try_rdmsr(MSR_EFER, &v), NO_TRAP, "EFER");
    check_eq(v & (EFER_LME | EFER_LMA), EFER_LME | EFER_LMA, "LME and LMA");
    check_hw(wr(MSR_EFER, v | 1 << 5), GP, "EFER bit 5");
    check_hw(wr(MSR_EFER, v | 1ull << 32), GP, "EFER bit 32");
    check_eq(wr(MSR_EFER, v & ~(uint64_t)EFER_LMA), NO_TRAP, "LMA is read-only and ignored");
    check_eq(rdmsr(MSR_EFER) & EFER_LMA, EFER_LMA, "it stays");
    static const struct { uint32_t msr; const char *name; } canonical[] = {
        { MSR_SYSENTER_ESP, "SYSENTER_ESP" }, { MSR_SYSENTER_EIP, "SYSENTER_EIP" }, { MSR_LSTAR, "LSTAR" }, { MSR_CSTAR, "CSTAR" },
        { MSR_FS_BASE, "FS base" }, { MSR_GS_BASE, "GS base" }, { MSR_KERNEL_GS, "kernel GS base" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(canonical); i++) {
        uint64_t old = rdmsr(canonical[i].msr);
        wrmsr(canonical[i].msr, 0xffff8000deadbeef);
        check_eq(rdmsr(canonical[i].msr), 0xffff8000deadbeef, canonical[i].name);
        check_hw(wr(canonical[i].msr, 0x0000800000000000), GP, "a non-canonical value there");
        wrmsr(canonical[i].msr, old);
    }
    wrmsr(MSR_STAR, 0x0023001000000000);
    check_eq(rdmsr(MSR_STAR), 0x0023001000000000, "STAR");
    wrmsr(MSR_FMASK, 0x47700);
    check_eq(rdmsr(MSR_FMASK), 0x47700, "FMASK");
    check_hw(wr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 1ull << 60), GP, "APIC base beyond MAXPHYADDR");
    check_hw(wr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 1), GP, "APIC base, reserved bits");
    check_eq(try_rdmsr(0x277, &v), NO_TRAP, "PAT");
    check_hw(wr(0x277, (v & ~7ull) | 2), GP, "PAT with memory type 2");
    check_hw(wr(0x277, v | 0x8), GP, "PAT with reserved bits");
    check_eq(wr(0x277, 0x0007040600070406), NO_TRAP, "PAT, its reset value");
    check_eq(try_rdmsr(0xfe, &v), NO_TRAP, "MTRRCAP");
    check_hw(wr(0xfe, v), GP, "MTRRCAP is read-only");
    check_eq(try_rdmsr(0x2ff, &v), NO_TRAP, "MTRR default type");
    check_eq(try_rdmsr(0x17a, &v), NO_TRAP, "MCG_STATUS");
    check_eq(try_rdmsr(0x179, &v), NO_TRAP, "MCG_CAP");
    check_eq(try_rdmsr(0x10, &v), NO_TRAP, "TSC");
    check_eq(try_rdmsr(MSR_TSC_AUX, &v), NO_TRAP, "TSC_AUX");
    check_hw(wr(MSR_TSC_AUX, 1ull << 32), GP, "TSC_AUX above 32 bits");
    wrmsr(MSR_TSC_AUX, 0x1234);
    uint32_t aux, a, d;
    __asm__ volatile("rdtscp" : "=a"(a), "=d"(d), "=c"(aux));
    check_eq(aux, 0x1234, "RDTSCP reads it");
    if (cpuid(7).c >> 22 & 1) {
        ulong pid;
        __asm__ volatile("rdpid %0" : "=r"(pid));
        check_eq(pid, 0x1234, "RDPID reads it");
    }
    check_eq(TRY("rdmsr", : "=a"(a), "=d"(d) : "c"(MSR_EFER | 0xffffffff00000000) : "memory"), NO_TRAP, "RDMSR looks at ECX only");
    ulong ax, dx;
    __asm__ volatile("rdmsr" : "=a"(ax), "=d"(dx) : "a"(-1l), "d"(-1l), "c"(MSR_EFER));
    check((ax | dx) >> 32 == 0, "and clears the upper halves of RAX and RDX");
}

static void control_registers(void)
{
    ulong cr4 = read_cr4(), cr0 = read_cr0();
    struct cpuid f1 = cpuid(1), f7 = cpuid(7);
    static const struct { unsigned bit; uint8_t leaf, reg, at; const char *name; } feature[] = {
        { 0, 1, 'd', 1, "CR4.VME as CPUID says" }, { 1, 1, 'd', 1, "PVI" }, { 2, 1, 'd', 4, "TSD" }, { 3, 1, 'd', 2, "DE" }, { 4, 1, 'd', 3, "PSE" },
        { 6, 1, 'd', 7, "MCE" }, { 7, 1, 'd', 13, "PGE" }, { 9, 1, 'd', 24, "OSFXSR" }, { 10, 1, 'd', 25, "OSXMMEXCPT" }, { 11, 7, 'c', 2, "UMIP" },
        { 12, 7, 'c', 16, "LA57 (cannot change in long mode)" }, { 13, 1, 'c', 5, "VMXE" }, { 14, 1, 'c', 6, "SMXE" }, { 16, 7, 'b', 0, "FSGSBASE" },
        { 17, 1, 'c', 17, "PCIDE" }, { 18, 1, 'c', 26, "OSXSAVE" }, { 20, 7, 'b', 7, "SMEP" }, { 21, 7, 'b', 20, "SMAP" }, { 22, 7, 'c', 3, "PKE" },
        { 23, 7, 'c', 7, "CET" }, { 24, 7, 'd', 31, "PKS" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(feature); i++) {
        const struct cpuid *f = feature[i].leaf == 1 ? &f1 : &f7;
        uint32_t reg = feature[i].reg == 'b' ? f->b : feature[i].reg == 'c' ? f->c : f->d;
        bool has = reg >> feature[i].at & 1;
        has &= feature[i].bit != 12;
        if (has && (feature[i].bit == 20 || feature[i].bit == 21 || feature[i].bit == 23)) {
            continue;                           /* SMEP and SMAP would fault on this user-mapped code; CET wants CR0.WP */
        }
        if (on_tcg && !has) {
            continue;                           /* TCG masks bits off instead */
        }
        ulong v = TRY("mov %0, %%cr4", :: "r"(cr4 ^ BIT(feature[i].bit)) : "memory");
        write_cr4(cr4);
        check_eq(v, has ? NO_TRAP : GP, feature[i].name);
    }
    if (not_on_tcg("reserved bits of CR4 and CR8")) {
        for (unsigned bit = 26; bit < 64; bit += 5) {
            check_eq(TRY("mov %0, %%cr4", :: "r"(cr4 | BIT(bit)) : "memory"), GP, "a reserved bit of CR4");
        }
        check_eq(TRY("mov %0, %%cr8", :: "r"(0x10ul) : "memory"), GP, "CR8 above 4 bits");
    }
    check_eq(read_cr4(), cr4, "CR4 is as it was");
    write_cr0(cr0 | 1 << 10 | 1 << 20);
    check_hw(read_cr0(), cr0, "reserved bits of CR0 below 32 are ignored");
    write_cr0(cr0);
    check_eq(read_cr0() >> 4 & 1, 1, "CR0.ET is one");
    write_cr0(cr0 & ~16ul);
    check_eq(read_cr0() >> 4 & 1, 1, "and stays one");
    ulong msw;
    __asm__ volatile("smsw %0" : "=r"(msw));
    check_eq(msw & 0xffff, cr0 & 0xffff, "SMSW");
    __asm__ volatile("lmsw %w0" :: "r"(0));
    check_eq(read_cr0() & 1, 1, "LMSW cannot clear PE");
    write_cr0(cr0);
    __asm__ volatile("lmsw %w0" :: "r"(0xf));
    check_eq(read_cr0() & 0xf, 0xf, "LMSW sets MP, EM and TS");
    __asm__ volatile("clts");
    check_eq(read_cr0() & 8, 0, "CLTS");
    write_cr0(cr0);
    write_cr2(0x123456789abcdef0);
    check_eq(read_cr2(), 0x123456789abcdef0, "CR2 takes anything");
    struct table_ptr t;
    __asm__ volatile("sgdt %0" : "=m"(t));
    check(t.base == (ulong)gdt && t.limit == GDT_SIZE - 1, "SGDT");
    __asm__ volatile("sidt %0" : "=m"(t));
    check(t.base == (ulong)idt && t.limit == 0xfff, "SIDT");
    t.base = 1ul << 63;
    check_hw(TRY("lgdt %0", :: "m"(t) : "memory"), GP, "LGDT of a non-canonical base");
    const struct table_ptr own = { GDT_SIZE - 1, (ulong)gdt };
    lgdt(&own);
    uint16_t sel;
    __asm__ volatile("str %w0" : "=r"(sel));
    check_eq(sel, SEL_TSS0, "STR");
    __asm__ volatile("sldt %w0" : "=r"(sel));
    check_eq(sel, 0, "SLDT");
    check_eq(TRY("ltr %w0", :: "r"(SEL_TSS0) : "memory"), GP, "LTR of a busy TSS");
    check_eq(caught.error, SEL_TSS0, "error code");
    check_hw(TRY("ltr %w0", :: "r"(0) : "memory"), GP, "LTR of null");
    check_eq(TRY("lldt %w0", :: "r"(SEL_DATA) : "memory"), GP, "LLDT of a data segment");
    check_eq(gdt[SEL_TSS0 / 8] >> 40 & 0xf, 11, "LTR made the TSS busy");
    gdt[SEL_FREE / 8] = seg_desc(0x1000, 0xff, 0x82, 0);
    gdt[SEL_FREE / 8 + 1] = 0x7fff;
    check_eq(TRY("lldt %w0", :: "r"(SEL_FREE) : "memory"), NO_TRAP, "LLDT");
    gdt[SEL_FREE / 8 + 1] = 0x8000;
    check_hw(TRY("lldt %w0", :: "r"(SEL_FREE) : "memory"), GP, "LLDT of a non-canonical base");
    __asm__ volatile("lldt %w0" :: "r"(0));
    bool zf;
    uint32_t r;
    __asm__ volatile("lar %2, %0; setz %1" : "=r"(r), "=qm"(zf) : "r"(SEL_DATA) : "cc");
    check(zf && (r & 0xff00) == 0x9300, "LAR");
    __asm__ volatile("lsl %2, %0; setz %1" : "=r"(r), "=qm"(zf) : "r"(SEL_DATA) : "cc");
    check(zf && r == 0xffffffff, "LSL");
    __asm__ volatile("lar %2, %0; setz %1" : "=r"(r), "=qm"(zf) : "r"(0x1f8) : "cc");
    check(!zf, "LAR of an empty descriptor");
    __asm__ volatile("verr %w1; setz %0" : "=qm"(zf) : "r"(SEL_CODE) : "cc");
    check(zf, "VERR of readable code");
    __asm__ volatile("verw %w1; setz %0" : "=qm"(zf) : "r"(SEL_CODE) : "cc");
    check(!zf, "VERW of code");
}

static void xcr0(void)
{
    if (!(cpuid(1).c >> 26 & 1)) {
        skip("XSAVE", "not there");
        return;
    }
    check_eq(TRY("xgetbv", :: "c"(0) : "rax", "rdx", "memory"), UD, "XGETBV with CR4.OSXSAVE clear");
    check_eq(cpuid(1).c >> 27 & 1, 0, "CPUID: OSXSAVE follows CR4");
    write_cr4(read_cr4() | CR4_OSXSAVE | CR4_OSFXSR);
    check_eq(cpuid(1).c >> 27 & 1, 1, "in both directions");
    uint32_t a, d;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    check_eq(a, 1, "XCR0 after reset");
    struct cpuid x = cpuid2(0xd, 0);
    check_eq(x.a & 3, 3, "CPUID leaf D: x87 and SSE");
    check_eq(TRY("xsetbv", :: "a"(x.a), "d"(x.d), "c"(0) : "memory"), NO_TRAP, "XSETBV of all it offers");
    check_eq(TRY("xsetbv", :: "a"(x.a & ~1u), "d"(x.d), "c"(0) : "memory"), GP, "XCR0 without x87");
    check_eq(TRY("xsetbv", :: "a"(5), "d"(0), "c"(0) : "memory"), GP, "AVX without SSE");
    check_eq(TRY("xsetbv", :: "a"(3 | (~x.a & 0x8000000)), "d"(0x10000), "c"(0) : "memory"), GP, "bits it does not offer");
    check_eq(TRY("xsetbv", :: "a"(3), "d"(0), "c"(1) : "memory"), GP, "XCR1");
    check_eq(TRY("xgetbv", :: "c"(5) : "rax", "rdx", "memory"), GP, "XGETBV of XCR5");
    if (x.a & 4) {
        __asm__ volatile("xsetbv" :: "a"(3), "d"(0), "c"(0));
        uint32_t small = cpuid2(0xd, 0).b;
        __asm__ volatile("xsetbv" :: "a"(7), "d"(0), "c"(0));
        uint32_t big = cpuid2(0xd, 0).b;
        check(small == 576 && big == cpuid2(0xd, 2).b + cpuid2(0xd, 2).a, "leaf D: size follows XCR0");
        check(x.c >= big, "and its maximum covers it");
    }
    check_eq(TRY("xsetbv", :: "a"(1), "d"(0), "c"(0) : "memory"), NO_TRAP, "x87 alone");
}

static void cpuid_leaves(void)
{
    uint32_t max = cpuid(0).a, xmax = cpuid(0x80000000).a;
    check(max >= 0xd && xmax >= 0x80000008, "enough leaves");
    struct cpuid f1 = cpuid(1), e1 = cpuid(0x80000001);
    check(f1.d & 1 && f1.d >> 4 & 1 && f1.d >> 5 & 1 && f1.d >> 8 & 1 && f1.d >> 9 & 1 && f1.d >> 15 & 1, "FPU, TSC, MSR, CX8, APIC, CMOV");
    check(e1.d >> 29 & 1 && e1.d >> 11 & 1 && e1.d >> 20 & 1, "long mode, SYSCALL, NX");
    check_eq(f1.b >> 24, 0, "initial APIC ID of the boot CPU");
    check_hw(f1.c >> 3 & 1, 0, "MONITOR is hidden");
    struct cpuid size = cpuid(0x80000008);
    check((size.a & 255) >= 36 && (size.a & 255) <= 52 && (size.a >> 8 & 255) == (on_tcg ? 57 : 48), "address sizes");
    struct cpuid high = cpuid(max + 0x100), basic = cpuid(0x7fffffff);
    (void)basic;
    check(high.a == cpuid(max).a || high.a == 0, "beyond the last leaf: the last one or zeros");
    ulong a = 0xffffffff00000001, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    check((a | b | c | d) >> 32 == 0, "CPUID looks at EAX and clears the upper halves");
    if (f1.c >> 31 & 1) {
        check(cpuid(0x40000000).a >= 0x40000000 && cpuid(0x40000000).a < 0x40010000, "hypervisor leaves");
    }
    /* What CPUID hides must be #UD. */
    struct cpuid f7 = cpuid(7);
    static const struct { uint8_t leaf, reg, bit, len, b[6]; const char *name; } insn[] = {
        { 1, 'c', 3, 3, { 0x0f, 0x01, 0xc8 }, "MONITOR" }, { 1, 'c', 3, 3, { 0x0f, 0x01, 0xc9 }, "MWAIT" },
        { 7, 'b', 11, 6, { 0xc7, 0xf8, 0, 0, 0, 0 }, "XBEGIN" }, { 1, 'c', 5, 3, { 0x0f, 0x01, 0xc4 }, "VMXOFF" },
        { 1, 'c', 5, 4, { 0xf3, 0x0f, 0xc7, 0x31 }, "VMXON" },
    };
    for (unsigned i = 0; i < ARRAY_LEN(insn); i++) {
        const struct cpuid *f = insn[i].leaf == 1 ? &f1 : &f7;
        uint32_t reg = insn[i].reg == 'b' ? f->b : insn[i].reg == 'c' ? f->c : f->d;
        if (reg >> insn[i].bit & 1 || on_tcg) {
            continue;
        }
        uint8_t *code = (uint8_t *)0x300000;
        memset(code, 0xc3, 16);
        memcpy(code, insn[i].b, insn[i].len);
        check_eq(TRY("mov %%rsp, %%rbx; call *%0; 8: mov %%rbx, %%rsp", :: "r"(code), "a"(0), "c"(0x310000), "d"(0) : "rbx", "memory", "cc"), UD, insn[i].name);
    }
    if (!on_tcg) {
        check_eq(TRY("vmmcall", :: "a"(0x7777) : "memory"), f1.c >> 31 & 1 ? NO_TRAP : UD, "a hypercall nobody knows");
    }
}

void guest_main(void)
{
    msrs();
    control_registers();
    xcr0();
    cpuid_leaves();
}
