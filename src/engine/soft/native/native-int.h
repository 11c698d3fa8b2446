/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of native/ share: the code buffer's writer, thunks, the guest's XSAVE image, numeric exceptions. */
#ifndef LODGE_SOFT_NATIVE_INT_H
#define LODGE_SOFT_NATIVE_INT_H

#include "engine/soft/ea.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/native/native.h"

/* --- thunks --- */
/* Reads or writes registers in c and, if the instruction has a memory operand, bytes at mem. Uses no stack. */
typedef void thunk_fn(struct soft_cpu *c, void *mem);

/*
 * All that a thunk's code depends on, and the key under which it is shared: two instructions with equal specs differ
 * at most in where their memory operand is. 8 bytes, compared as one number; 0 is no spec (row 0 has no thunk).
 */
struct thunk_spec {
    uint16_t row;
    uint8_t flags;              /* INSN_MEM, INSN_VEX, INSN_W, INSN_L, THUNK_OP16 */
    uint8_t reg, vvvv, rm;      /* registers by number; 0 where the form has none */
    uint16_t imm;
};
_Static_assert(sizeof(struct thunk_spec) == 8, "one number");
enum { THUNK_OP16 = INSN_LOCK /* x87 environment in its 16-bit form; LOCK never gets here */ };

enum { THUNK_MAX = 256 };
struct emit {
    unsigned n;
    uint8_t b[THUNK_MAX];
};
/* Encodes the whole thunk; cannot fail for a row of the table. */
void thunk_emit(struct emit *e, const struct thunk_spec *s);
/* Runs between FXRSTOR and FXSAVE of the whole legacy region: x87, MMX, and SSE rows with an MMX operand. */
bool thunk_is_fx(const struct insn_row *r);

/* Executable address of the thunk for s, made if it is new; 0: the buffer is full. Any thread. */
uint64_t code_buf_thunk(struct code_buf *b, const struct thunk_spec *s);
bool code_buf_contains(const struct code_buf *b, uint64_t host);
/* A RET in the buffer: where an interrupted thunk is sent. */
uint64_t code_buf_ret(const struct code_buf *b);

/* --- the guest's image --- */
enum {
    XS_FCW = 0, XS_FSW = 2, XS_FTW = 4, XS_FOP = 6, XS_FIP = 8, XS_FDP = 16, XS_MXCSR = 24, XS_MXCSR_MASK = 28,
    XS_ST = 32, XS_XMM = 160, XS_LEGACY_END = 416, XS_BV = 512, XS_COMP = 520, XS_HDR_END = 576,
    XS_YMM = 576 /* checked against the host's CPUID */, XS_YMM_END = 832,
    XC_X87 = 1, XC_SSE = 2, XC_AVX = 4, XC_ALL = 7,
    FCW_INIT = 0x37f, FCW_VALID = 0x1f3f, FCW_ONE = 0x40 /* reads as 1 */, FSW_ES = 0x80, FSW_B = 0x8000, FSW_TOP = 0x3800,
    MXCSR_INIT = 0x1f80, MXCSR_FLAGS = 0x3f, MXCSR_MASKS = 0x1f80, MXCSR_VALID = 0xffff,
};

static inline uint8_t *xs(struct soft_cpu *c, unsigned off)
{
    return c->st.xsave + off;
}
static inline uint8_t *xs_xmm(struct soft_cpu *c, unsigned n)
{
    return c->st.xsave + XS_XMM + 16 * n;
}
static inline uint8_t *xs_ymm_hi(struct soft_cpu *c, unsigned n)
{
    return c->st.xsave + XS_YMM + 16 * n;
}
static inline void xs_used(struct soft_cpu *c, unsigned components)
{
    c->st.xsave[XS_BV] |= components;
}
/* FSW.ES and B follow from flags and masks, whatever an image in memory said. */
void xs_settle_fsw(struct soft_cpu *c);
/* Where the image has MM n. */
uint8_t *xs_mm(struct soft_cpu *c, unsigned n);
struct fx_quirks {
    bool hides_pointers, fop_on_exception, fdp_on_exception, cvtpi2ps_mem_is_mmx, sha_unaligned;
};
extern struct fx_quirks fx_quirks;
void fx_probe(void);
/* What every MMX instruction but EMMS does to the x87 state. */
void xs_mmx_enter(struct soft_cpu *c);

/* --- per vCPU --- */
enum { BOUNCE_SIZE = 1024 };
struct native_cpu {
    uint8_t bounce[BOUNCE_SIZE] __attribute__((aligned(64)));
};
static inline uint8_t *bounce(struct soft_cpu *c)
{
    return ((struct native_cpu *)c->native_scratch)->bounce;
}

/* --- MXCSR of the host --- */
static inline uint32_t host_mxcsr(void)
{
    uint32_t v;
    __asm__ volatile("stmxcsr %0" : "=m"(v) : : "memory");
    return v;
}
static inline void host_set_mxcsr(uint32_t v)
{
    __asm__ volatile("ldmxcsr %0" : : "m"(v) : "memory");
}

/*
 * Runs fn with the guest's MXCSR, of which some exception is not masked. True: one was raised, MXCSR in the image has its
 * flag, and nothing else was written. The host's MXCSR and x87 state are the usual ones afterwards.
 */
bool fpe_run(struct soft_cpu *c, thunk_fn *fn, void *mem);
/* Makes sure that SIGFPE is ours. */
void fpe_init(void);
/* #XM, or #UD when the guest's system did not ask for it. */
_Noreturn void fpe_raise(struct soft_cpu *c);

/* --- handlers by family; each sets u->fn (and u->i fields that the memory form leaves free) --- */
bool vec_prepare(struct soft_cpu *c, struct uop *u);
bool fx_prepare(struct soft_cpu *c, struct uop *u, const uint8_t *bytes);
uop_fn xstate_fxsave, xstate_fxrstor, xstate_xsave, xstate_xsavec, xstate_xsaveopt, xstate_xsaves, xstate_xrstor, xstate_xrstors,
    xstate_ldmxcsr, xstate_stmxcsr, xstate_vzero, xstate_fwait;
uop_fn masked_maskmov, masked_vmaskmov, masked_gather;

static inline void native_check(struct soft_cpu *c, const struct uop *u)
{
    if (unlikely(c->fpu_trap)) {
        sys_fpu_check(c, &u->i);
    }
}

/*
 * Before an instruction changes anything that a later mmu_write_buf or mmu_store goes with: raises what the store would
 * raise, and restarts the instruction alone where decoded code is in the way. size 1..4096.
 */
static inline void native_claim_write(struct soft_cpu *c, uint64_t lin, unsigned size)
{
    uint64_t last = lin + size - 1;
    mmu_ptr_w(c, lin, 1);
    if ((lin ^ last) >> PAGE_SHIFT) {
        last &= ~(uint64_t)(PAGE_SIZE - 1);     /* a fault names the first byte of the second page */
        mmu_ptr_w(c, cpu_long_mode(c) ? last : (uint32_t)last, 1);
    }
}

/*
 * Linear address of an operand that must be aligned to mask + 1 bytes. A misaligned address is #GP(0) even where it is
 * also non-canonical, or beyond the limit, through rSP or rBP.
 */
static inline __attribute__((always_inline)) uint64_t native_lin(struct soft_cpu *c, const struct uop *u, uint64_t off, unsigned size,
                                                                 unsigned mask, bool write)
{
    if (unlikely((c->segbase[u->i.seg] + off) & mask)) {
        cpu_raise_err(c, EXC_GP, 0);
    }
    return ea_seg_lin(c, u->i.seg, off, size, write);
}

/* Goes on with the next instruction of the block, without a round through the run loop where the compiler can jump. */
static inline __attribute__((always_inline)) const struct uop *native_next(struct soft_cpu *c, const struct uop *u)
{
    u++;
    c->u = u;
    return u->fn(c, u);
}

/* Host code address of a thunk as something to call. */
static inline thunk_fn *native_thunk(const struct uop *u)
{
    return (thunk_fn *)(uintptr_t)u->i.imm;
}

#endif
