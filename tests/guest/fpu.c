/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When x87, MMX, SSE and AVX may run and how their exceptions arrive: #NM, #UD, #MF, #XM; state by FXSAVE and XSAVE.
 * Sources: SDM vol. 3A 2.5, 13; table 13-1; vol. 1 8.5 to 8.7, 11.5. TCG has no #XM, no x87 stack faults, does not look at
 * reserved bits of MXCSR, and reads what a mask leaves out.
 */
#include "rt/rt.h"

static uint8_t area[4096] ALIGNED(64);
static void cr0(ulong set, ulong clear) { write_cr0((read_cr0() & ~clear) | set); }
static void cr4(ulong set, ulong clear) { write_cr4((read_cr4() & ~clear) | set); }

#define X87 "fld1; fstp %%st(0)"
#define MMX "pxor %%mm0, %%mm0; emms"
#define SSE "xorps %%xmm0, %%xmm0"
static ulong x87(void) { return TRY(X87, ::: "memory"); }
static ulong mmx(void) { return TRY(MMX, ::: "memory"); }
static ulong sse(void) { return TRY(SSE, ::: "memory"); }
static ulong fwait(void) { return TRY("fwait", ::: "memory"); }
static ulong avx(void) { return TRY("vxorps %%ymm0, %%ymm0, %%ymm0", ::: "memory"); }

static void availability(void)
{
    cr0(CR0_NE | CR0_MP, CR0_TS | CR0_EM);
    cr4(0, CR4_OSFXSR | CR4_OSXMM | CR4_OSXSAVE);
    __asm__ volatile("fninit");
    check_eq(x87(), NO_TRAP, "x87");
    check_eq(mmx(), NO_TRAP, "MMX");
    check_eq(sse(), UD, "SSE with CR4.OSFXSR clear");
    cr4(CR4_OSFXSR, 0);
    check_eq(sse(), NO_TRAP, "SSE");
    cr0(CR0_TS, 0);
    check_eq(x87(), NM, "x87 with CR0.TS");
    check_eq(mmx(), NM, "MMX with CR0.TS");
    check_eq(sse(), NM, "SSE with CR0.TS");
    check_eq(fwait(), NM, "FWAIT with TS and MP");
    cr0(0, CR0_MP);
    check_eq(fwait(), NO_TRAP, "FWAIT with TS, without MP");
    check_eq(TRY("fxsave (%0)", :: "r"(area) : "memory"), NM, "FXSAVE with CR0.TS");
    check_eq(TRY("prefetcht0 (%0); sfence; pause", :: "r"(area) : "memory"), NO_TRAP, "PREFETCH and SFENCE do not care");
    check_eq(TRY("movnti %0, (%1); lfence; mfence", :: "r"(1), "r"(area) : "memory"), NO_TRAP, "nor MOVNTI");
    cr0(CR0_EM | CR0_MP, CR0_TS);
    check_eq(x87(), NM, "x87 with CR0.EM");
    check_eq(mmx(), UD, "MMX with CR0.EM");
    check_eq(sse(), UD, "SSE with CR0.EM");
    check_eq(fwait(), NO_TRAP, "FWAIT with EM");
    cr0(CR0_TS, 0);
    check_hw(mmx(), UD, "MMX with EM and TS");
    cr0(0, CR0_EM | CR0_TS);
    if (!(cpuid(1).c >> 28 & 1)) {
        skip("AVX", "not there");
        return;
    }
    check_eq(avx(), UD, "AVX with CR4.OSXSAVE clear");
    cr4(CR4_OSXSAVE, 0);
    check_eq(avx(), UD, "AVX with XCR0 = 1");
    __asm__ volatile("xsetbv" :: "a"(7), "d"(0), "c"(0));
    check_eq(avx(), NO_TRAP, "AVX");
    cr0(CR0_TS, 0);
    check_eq(avx(), NM, "AVX with CR0.TS");
    cr0(0, CR0_TS);
}

static void x87_exceptions(void)
{
    uint16_t sw, cw = 0x37f;
    __asm__ volatile("fninit; fldcw %0" :: "m"(cw));
    check_eq(TRY("fldz; fld1; fdivp; fwait; fstp %%st(0)", ::: "memory"), NO_TRAP, "masked");
    __asm__ volatile("fnstsw %0" : "=m"(sw));
    check_eq(sw & 0xff, 0x4, "division by zero is flagged");
    __asm__ volatile("fnclex");
    cw = 0x37f & ~4;
    __asm__ volatile("fldcw %0" :: "m"(cw));
    check_eq(TRY("fldz; fld1; fdivp; nop; 3: fwait", ::: "memory"), MF, "unmasked: #MF");
    check_eq(caught.ip - caught.start, 7, "at the next waiting instruction, not at the one that failed");
    __asm__ volatile("fnstsw %0" : "=m"(sw));
    check_eq(sw & 0x80ff & ~0x20u, 0x8084, "ES and B are set");
    check_eq(TRY("fnstsw %%ax; fnstcw %0; fnclex", :: "m"(cw) : "rax", "memory"), NO_TRAP, "non-waiting instructions do not fault");
    check_eq(fwait(), NO_TRAP, "cleared");
    __asm__ volatile("fninit; fldcw %0" :: "m"(cw));
    __asm__ volatile("fldz; fld1; fdivp" ::: "memory");
    check_hw(TRY("fld1", ::: "memory"), MF, "the next x87 instruction faults too");
    check_hw(TRY("pxor %%mm0, %%mm0", ::: "memory"), MF, "and MMX");
    check_eq(sse(), NO_TRAP, "not SSE");
    __asm__ volatile("fninit");
    cw = 0x37e;
    __asm__ volatile("fldcw %0" :: "m"(cw));
    __asm__ volatile("fld1; fchs; fsqrt" ::: "memory");
    check_eq(fwait(), MF, "an invalid operation");
    __asm__ volatile("fninit; fldcw %0" :: "m"(cw));
    __asm__ volatile("fld1; fld1; fld1; fld1; fld1; fld1; fld1; fld1; fld1" ::: "memory");
    __asm__ volatile("fnstsw %0" : "=m"(sw));
    check_hw(sw & 0x241, 0x241, "stack overflow: IE, SF, C1");
    check_hw(fwait(), MF, "and #MF");
    __asm__ volatile("fninit; fldcw %0" :: "m"(cw));
    uint32_t one = 0x3f800000, r = 0;
    __asm__ volatile("flds %1; fstps %0" : "=m"(r) : "m"(one));
    check_eq(r, one, "a load and a store");
    check_eq(TRY("flds (%0)", :: "r"(0x140000000ul) : "memory"), PF, "a load from an absent page");
    __asm__ volatile("fnstsw %0" : "=m"(sw));
    check_eq(sw >> 11 & 7, 0, "leaves the stack");
    check_eq(TRY("fld1; fstps (%0)", :: "r"(0x140000000ul) : "memory"), PF, "a store to an absent page");
    __asm__ volatile("fnstsw %0" : "=m"(sw));
    check_eq(sw >> 11 & 7, 7, "does not pop");
    __asm__ volatile("fninit");
}

static void sse_exceptions(void)
{
    uint32_t mxcsr = 0x1f80, one = 0x3f800000;
    __asm__ volatile("ldmxcsr %0" :: "m"(mxcsr));
    check_eq(TRY("xorps %%xmm1, %%xmm1; movss %0, %%xmm0; divss %%xmm1, %%xmm0", :: "m"(one) : "memory"), NO_TRAP, "SSE division by zero, masked");
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    check_eq(mxcsr & 0x3f, 4, "is flagged");
    mxcsr = 0x1f80 & ~0x200;
    __asm__ volatile("ldmxcsr %0" :: "m"(mxcsr));
    cr4(CR4_OSXMM, 0);
    __asm__ volatile("movss %0, %%xmm0" :: "m"(one));
    check_hw(TRY("divss %%xmm1, %%xmm0", ::: "memory"), XM, "unmasked: #XM");          /* TCG has no #XM */
    check_hw(caught.ip, caught.start, "a fault of the instruction");
    check_hw(TRY("movss %0, %%xmm0; divss %1, %%xmm0", :: "m"(one), "m"(area[1024]) : "memory"), XM, "with a memory operand");
    uint32_t r;
    __asm__ volatile("movss %%xmm0, %0" : "=m"(r));
    check_hw(r, one, "the destination is unchanged");
    cr4(0, CR4_OSXMM);
    check_hw(TRY("divss %%xmm1, %%xmm0", ::: "memory"), UD, "#UD with CR4.OSXMMEXCPT clear");
    cr4(CR4_OSXMM, 0);
    mxcsr = 0x1f80 & ~0x80;
    __asm__ volatile("ldmxcsr %0" :: "m"(mxcsr));
    check_hw(TRY("xorps %%xmm0, %%xmm0; divss %%xmm0, %%xmm0", ::: "memory"), XM, "invalid operation");
    mxcsr = 0x1f80 & ~0x1000;
    __asm__ volatile("ldmxcsr %0" :: "m"(mxcsr));
    uint32_t third = 0x40400000;
    check_hw(TRY("movss %0, %%xmm0; divss %1, %%xmm0", :: "m"(one), "m"(third) : "memory"), XM, "precision");
    mxcsr = 0x1f80;
    __asm__ volatile("ldmxcsr %0" :: "m"(mxcsr));
    mxcsr = 0x1f80 | 1 << 16;
    check_hw(TRY("ldmxcsr %0", :: "m"(mxcsr) : "memory"), GP, "a reserved bit of MXCSR");
    check_eq(TRY("movaps (%0), %%xmm0", :: "r"(area + 1) : "memory"), GP, "MOVAPS of a misaligned operand");
    check_eq(TRY("movups (%0), %%xmm0", :: "r"(area + 1) : "memory"), NO_TRAP, "MOVUPS");
    check_eq(TRY("addps (%0), %%xmm0", :: "r"(area + 4) : "memory"), GP, "ADDPS with a misaligned operand");
    check_eq(TRY("movaps (%0), %%xmm0", :: "r"(0x140000000ul) : "memory"), PF, "MOVAPS of an absent page");
    check_eq(TRY("movaps (%0), %%xmm0", :: "r"(1ul << 63) : "memory"), GP, "of a non-canonical address");
}

static void state(void)
{
    check_eq(TRY("fxsave (%0)", :: "r"(area + 8) : "memory"), GP, "FXSAVE to a misaligned address");
    uint64_t x[2] = { 0x1122334455667788, 0x99aabbccddeeff00 }, y[2] = { 0, 0 };
    __asm__ volatile("fninit; fld1; movups %1, %%xmm7; fxsave64 %0; fninit; xorps %%xmm7, %%xmm7; fxrstor64 %0; movups %%xmm7, %2; fstpl %3"
                     : "=m"(area) : "m"(x), "m"(y), "m"(area[600]) : "memory");
    check(y[0] == x[0] && y[1] == x[1] && *(uint64_t *)(area + 600) == 0x3ff0000000000000, "FXSAVE and FXRSTOR");
    check_eq(area[4], 0x80, "abridged tag word");
    *(uint32_t *)(area + 24) = 1 << 20;
    check_hw(TRY("fxrstor (%0)", :: "r"(area) : "memory"), GP, "FXRSTOR of a reserved MXCSR bit");
    if (!(cpuid(1).c >> 26 & 1) || !(cpuid(1).c >> 28 & 1)) {
        skip("XSAVE and AVX state", "not there");
        return;
    }
    memset(area, 0, 1024);
    __asm__ volatile("vxorps %%ymm3, %%ymm3, %%ymm3; vinsertf128 $1, %1, %%ymm3, %%ymm3; xsave64 %0; vzeroall; xrstor64 %0; vextractf128 $1, %%ymm3, %2"
                     : "+m"(area) : "m"(x), "m"(y), "a"(7), "d"(0) : "memory");
    check(y[0] == x[0] && y[1] == x[1], "XSAVE and XRSTOR keep the upper half of YMM3");
    check_eq(*(uint64_t *)(area + 512) & 6, 6, "XSTATE_BV");
    *(uint64_t *)(area + 512) = 0;
    __asm__ volatile("xrstor64 %0; vextractf128 $1, %%ymm3, %1" : "+m"(area) : "m"(y), "a"(7), "d"(0) : "memory");
    check(y[0] == 0 && y[1] == 0, "XRSTOR of a component that is not there initialises it");
    __asm__ volatile("vinsertf128 $1, %0, %%ymm3, %%ymm3; pxor %%xmm3, %%xmm3; vextractf128 $1, %%ymm3, %1" :: "m"(x), "m"(y) : "memory");
    check_eq(y[0], x[0], "an SSE instruction keeps the upper half");
    __asm__ volatile("vpxor %%xmm3, %%xmm3, %%xmm3; vextractf128 $1, %%ymm3, %0" :: "m"(y) : "memory");
    check_eq(y[0], 0, "a VEX one clears it");
    *(uint64_t *)(area + 512) = 1ull << 40;
    check_eq(TRY("xrstor (%0)", :: "r"(area), "a"(7), "d"(0) : "memory"), GP, "XRSTOR with a reserved bit of XSTATE_BV");
    *(uint64_t *)(area + 512) = 0;
    area[520] = 1;
    check_eq(TRY("xrstor (%0)", :: "r"(area), "a"(7), "d"(0) : "memory"), GP, "with a reserved header byte");
    check_eq(TRY("xsave (%0)", :: "r"(area + 16), "a"(7), "d"(0) : "memory"), GP, "XSAVE to an address that is not 64-aligned");
    check_eq(TRY("xsave (%0)", :: "r"(0x140000000ul), "a"(7), "d"(0) : "memory"), PF, "XSAVE to an absent page");
}

/* Masked loads and gathers: no fault for what the mask leaves out. */
static void masked(void)
{
    if (!(cpuid(7).b >> 5 & 1)) {
        skip("AVX2", "not there");
        return;
    }
    extern uint64_t pml4[512];
    static uint64_t pdpt_t[512] ALIGNED(4096), pd_t[512] ALIGNED(4096), pt_t[512] ALIGNED(4096);
    const ulong va = 0x8000000000;
    pml4[1] = (ulong)pdpt_t | 3;
    pdpt_t[0] = (ulong)pd_t | 3;
    pd_t[0] = (ulong)pt_t | 3;
    pt_t[0] = ((ulong)area & ~0xffful) | 3;
    static const uint32_t first4[8] = { ~0u, ~0u, ~0u, ~0u, 0, 0, 0, 0 }, first5[8] = { ~0u, ~0u, ~0u, ~0u, ~0u, 0, 0, 0 };
    ulong end = va + 4096 - 16;
    check_hw(TRY("vmovdqu %1, %%ymm1; vpmaskmovd (%0), %%ymm1, %%ymm0", :: "r"(end), "m"(first4) : "memory"), NO_TRAP, "VPMASKMOVD up to a page's end");
    check_eq(TRY("vmovdqu %1, %%ymm1; vpmaskmovd (%0), %%ymm1, %%ymm0", :: "r"(end), "m"(first5) : "memory"), PF, "one element further");
    check_eq(caught.cr2, va + 4096, "CR2");
    check_eq(TRY("vmovdqu %1, %%ymm1; vpmaskmovd %%ymm0, %%ymm1, (%0)", :: "r"(end), "m"(first5) : "memory"), PF, "the store");
    check_eq(caught.error, 2, "error code");
    static const uint32_t index[8] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    uint32_t mask[8];
    for (unsigned i = 0; i < 4; i++) {
        ((uint32_t *)end)[i] = i + 10;
    }
    ulong v = TRY("vmovdqu %2, %%ymm2; vmovdqu %1, %%ymm1; vpxor %%ymm0, %%ymm0, %%ymm0; vpgatherdd %%ymm1, (%0, %%ymm2, 4), %%ymm0; 8:",
                  :: "r"(end), "m"(first5), "m"(index) : "memory");
    check_eq(v, PF, "a gather whose fifth element faults");
    __asm__ volatile("vmovdqu %%ymm1, %0" : "=m"(mask));
    check(mask[4] == ~0u, "keeps that element's mask");
    pt_t[1] = ((ulong)area & ~0xffful) | 3;
    __asm__ volatile("vpgatherdd %%ymm1, (%0, %%ymm2, 4), %%ymm0; vmovdqu %%ymm0, %1" :: "r"(end), "m"(mask) : "memory");
    check(mask[0] == 10 && mask[3] == 13 && mask[4] == *(uint32_t *)area && mask[5] == 0, "and can go on");
    __asm__ volatile("vzeroupper");
}

void guest_main(void)
{
    availability();
    x87_exceptions();
    sse_exceptions();
    state();
    masked();
}
