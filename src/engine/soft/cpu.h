/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The software CPU's working state: one struct soft_cpu a vCPU, touched only by its thread (but for `pending`, the
 * requests and the LAPIC's lock-guarded part). Shared by decode's users: sys/, mmu/, interp/, native/, run/.
 *
 * While a vCPU runs, general registers live in c->r, the arithmetic flags in c->af and RIP in c->rip; the rest of the
 * architectural state is c->st. soft_cpu_export/import (sys/) move between this and a plain struct x86_state.
 *
 * Faults: whoever finds one calls cpu_raise*(), which does not return: it unwinds to the run loop, which takes the
 * faulting instruction's address from c->u. So an instruction makes every access that can fault before its first
 * architectural update (string instructions update registers per element instead). No lock is held across a raise.
 */
#ifndef LODGE_SOFT_CPU_H
#define LODGE_SOFT_CPU_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/soft/decode/insn.h"
#include "irq/irq.h"
#include "loop/loop.h"
#include "mem/mem.h"
#include "x86/cpuid.h"
#include "x86/x86_state.h"

struct soft_cpu;
struct soft_vm;
struct soft_block;

/*
 * A decoded instruction with its handler, 32 bytes. The block builder (run/) rewrites a few fields for speed:
 *  - base/index: INSN_REG_NONE -> R_ZERO, INSN_REG_RIP -> R_BLOCK_RIP with disp relative to the block's start;
 *  - F_J: imm = target relative to the block's start (rip of the block + imm, then masked by operand size), disp = that of
 *    the next instruction; the end marker (interp_block_end): imm = its own;
 *  - native copies: imm = address of the generated code (native/).
 */
struct uop {
    /* Executes and returns the next uop (u + 1), or NULL after setting c->rip: the block is left. */
    const struct uop *(*fn)(struct soft_cpu *c, const struct uop *u);
    struct insn i;
};
_Static_assert(sizeof(struct uop) == 32, "two uops a cache line");
typedef const struct uop *uop_fn(struct soft_cpu *c, const struct uop *u);

enum { R_ZERO = 16, R_BLOCK_RIP = 17, N_SOFT_REGS = 18 };

/*
 * Data TLB: direct-mapped, one table a context. A tag is the page's linear address; a hit is (lin - tag) <= 4096 - size,
 * one compare for page and crossing. An invalid tag of slot i is a page that slot i never looks up, so that no linear
 * address, canonical or not, can match it (TLB_INVALID).
 */
enum { TLB_BITS = 10, TLB_SIZE = 1 << TLB_BITS };
#define TLB_INVALID(slot) ((uint64_t)((slot) ^ 1) << PAGE_SHIFT)
enum { TLB_USER, TLB_SUPER /* CPL<3, SMAP enforced */, TLB_SUPER_AC /* AC=1, or SMAP off; implicit supervisor accesses */, N_TLBS,
       TLB_NONE = N_TLBS /* never filled: stands in while each access must be looked at, see c->watch */ };

struct tlb_entry {
    uint64_t tag_r;             /* readable */
    uint64_t tag_w;             /* writable, D already set, not a tracked (code) page, not logged */
    uint64_t addend;            /* host address - linear address */
    uint64_t gpa_flags;         /* GPA of the page | TLB_F_* */
};
enum { TLB_F_GLOBAL = 1, TLB_F_LARGE = 2, TLB_F_CODE = 4 };

/* Jump cache: linear address of a block's start -> block. Flushed with the TLB's rules for code. */
enum { JC_BITS = 14, JC_SIZE = 1 << JC_BITS };
struct jc_entry {
    uint64_t lin;
    struct soft_block *blk;     /* NULL: empty */
};

/* c->pending: why the run loop must look up from its blocks. Any thread sets bits; the vCPU clears them. */
enum cpu_pending {
    PEND_KICK = 1,              /* leave run() */
    PEND_IRQ = 2,               /* LAPIC or 8259 may have something */
    PEND_REQUEST = 4,           /* cross-vCPU request (TLB or code-tracking flush) waits for an acknowledgement */
    PEND_INIT_SIPI_NMI = 8,
    PEND_TIMER = 16,            /* LAPIC timer deadline passed */
    PEND_SHADOW = 32,           /* STI/MOV SS shadow, TF, or another reason to run one instruction at a time */
    PEND_STOP_WORLD = 64,       /* exclusive section asked for by another vCPU */
};

/* Decides decoding and address forms; part of a block's key. */
enum {
    MODE_SIZE_MASK = 3,         /* enum insn_mode */
    MODE_SS32 = 4,              /* stack pointer is ESP (RSP in 64-bit mode needs no bit) */
    MODE_CPL_SHIFT = 3, MODE_CPL_MASK = 3 << MODE_CPL_SHIFT,
    MODE_FLAT = 32,             /* ES CS SS DS have base 0, limit 4 GiB, usual rights (always set in 64-bit mode) */
    MODE_PROT = 64,             /* protected mode and not virtual-8086: selectors are descriptors */
};

/* c->watch: what makes the slow path look at each access of the guest's instructions. */
enum { WATCH_DATA = 1 /* data breakpoints */, WATCH_ALIGN = 2 /* #AC: CR0.AM, EFLAGS.AC, CPL 3 */ };

struct soft_cpu {
    /* hot */
    uint64_t r[N_SOFT_REGS];    /* GPRs, 0, RIP of the current block's start */
    uint64_t rip;               /* valid between blocks; inside one: block + uop offset */
    const struct uop *u;        /* instruction being executed */
    struct soft_block *blk;
    struct tlb_entry *tlb;      /* table of the current context */
    _Atomic uint32_t pending;   /* enum cpu_pending */
    uint16_t af;                /* AH:AL as `lahf; seto al` leave them: bits 8..15 SF ZF - AF - PF - CF, bit 0 OF */
    uint8_t cpl;
    uint8_t fpu_trap;           /* nonzero: an x87/MMX/SSE/AVX instruction must ask sys_fpu_check first (CR0.TS/EM, CR4.OSFXSR, XCR0) */
    uint32_t mode;              /* MODE_* */
    uint64_t segbase[N_SEGS];   /* bases as address forms use them: in 64-bit mode 0 but for FS and GS */
    uint64_t insns;             /* executed, whole blocks counted at entry and corrected at faults */
    int64_t df_step;            /* +1 or -1: RFLAGS.DF */

    struct x86_state st;        /* everything else; see the file's head for what is stale while running */

    /* raise: the exception in flight and where it unwinds to */
    void *jb[5];                /* __builtin_setjmp buffer of the run loop */
    uint8_t exc_vector;
    bool exc_has_error, exc_soft /* INT n, INT3, INTO: no EXT, saved RIP is the next instruction */;
    uint32_t exc_error;
    bool single;                /* the current block is one instruction; it may write tracked pages (run/) */

    /* set by mmu when a store hit a tracked code page while `single`; run/ acts on it after the instruction */
    unsigned n_smc;
    struct { gpa_t gpa; uint32_t len; } smc[8];

    uint8_t watch;              /* WATCH_*, made by mmu_select_context; nonzero: no data access hits the TLB */
    uint8_t watch_hits;         /* DR6.B0..B3 of the current instruction (c->single): run/ has #DB delivered behind it */
    struct tlb_entry tlbs[N_TLBS + 1][TLB_SIZE];
    struct jc_entry jc[JC_SIZE];
    bool has_large[N_TLBS];     /* a large-page entry was cut into this table: INVLPG flushes it whole */
    uint64_t pdpte_cr3;

    struct soft_vm *vm;
    const struct cpu_model *model;
    unsigned index;
    pthread_mutex_t apic_lock;  /* guards st.lapic and st.ev against other threads */
    void *native_scratch;       /* native/: bounce buffer and host FPU image */
    struct soft_stats {
        uint64_t blocks_built, blocks_run, tlb_misses, smc_hits, irqs, exceptions, pio, mmio, hlt, tlb_flushes;
    } stats;
    struct soft_run *run;       /* run/'s own: block cache, sleep, thread handshake */

    /* sys/ */
    uint8_t ext;                /* EXT bit of error codes: 1 while an exception or external event is being delivered */
    bool amd;                   /* the model's vendor: rules of SYSCALL, SYSRET, SYSENTER */
    bool irq_waiting;           /* an interrupt was found but held off by IF: looked at again when IF is set */
    bool shutdown;              /* delivering an interrupt or NMI ended in a triple fault: run/ leaves with SOFT_EXIT_SHUTDOWN */
    bool tf_masked;             /* the instruction cleared TF on entry to a handler: no single-step trap after it */
    bool pv_eoi_pending;        /* the guest may have made its EOI by clearing bit 0 of its PV EOI word */
    bool pv_stale;              /* the PV clock record in guest memory must be written before guest code runs */
    _Atomic bool pv_kicked;     /* KVM_HC_KICK_CPU: leaves HLT whatever IF says */
    uint32_t has;               /* features sys/ asks for often, from the model */
    uint64_t cr4_valid, efer_valid;     /* bits the model has */
};

/* What all vCPUs of a VM share. Filled by run/ at creation. */
struct soft_vm {
    struct mem *mem;
    struct irq_hub *irq;
    struct vm_clock *clock;
    struct cpu_model model;     /* a copy, insn_feats filled */
    unsigned n_cpus;
    struct soft_cpu **cpus;
    uint64_t tsc_khz;           /* guest TSC = host TSC scaled 1:1; khz as measured or told by the host */
    struct code_map *code;      /* mmu/: which physical lines hold decoded code */
    struct code_buf *code_buf;  /* native/: W^X buffer */
    void (*on_reset)(struct soft_vm *vm);       /* triple fault */

    /* sys/clock.c: VM TSC = host TSC - delta while the VM clock runs; all zero is right for a clock paused at 0. */
    struct {
        pthread_mutex_t lock;
        _Atomic uint64_t key;       /* the clock's offset and running bit that delta was made for */
        _Atomic uint64_t delta, frozen;
        uint64_t ref_tsc, ref_ns;   /* one pair for every vCPU's PV clock record */
        bool have_ref;
    } tsc;
};

/* --- raise (implemented in sys/) --- */
_Noreturn void cpu_raise(struct soft_cpu *c, unsigned vector);                          /* no error code */
_Noreturn void cpu_raise_err(struct soft_cpu *c, unsigned vector, uint32_t error);
_Noreturn void cpu_raise_pf(struct soft_cpu *c, uint64_t cr2, uint32_t error);
/* Leaves the current block and executes the current instruction again as a block of its own (c->single set). */
_Noreturn void cpu_restart_single(struct soft_cpu *c);
/* What the run loop's setjmp sees: __builtin_setjmp only returns 1, so the reason is here. */
enum cpu_unwind { UNWIND_EXCEPTION = 1, UNWIND_SINGLE, UNWIND_LEAVE /* c->rip is set; look again */ };
extern _Thread_local enum cpu_unwind cpu_unwind_reason;
_Noreturn void cpu_leave(struct soft_cpu *c);

/* --- flags --- */
static inline uint64_t flags_arith(uint16_t af)
{
    return ((af >> 8) & (X86_SF | X86_ZF | X86_AF | X86_PF | X86_CF)) | ((uint64_t)(af & 1) << 11);
}
static inline uint16_t flags_pack(uint64_t rflags)
{
    return (uint16_t)(((rflags & (X86_SF | X86_ZF | X86_AF | X86_PF | X86_CF)) << 8) | 0x200 | ((rflags >> 11) & 1));
}
/* Whole RFLAGS. st.rflags holds the non-arithmetic bits (arithmetic ones there are stale). */
static inline uint64_t cpu_rflags(const struct soft_cpu *c)
{
    return (c->st.rflags & ~(uint64_t)X86_ARITH) | flags_arith(c->af) | X86_F1;
}
static inline bool cpu_long_mode(const struct soft_cpu *c)      /* LMA: long mode, 64-bit or compatibility code */
{
    return (c->st.efer & EFER_LMA) != 0;
}
static inline bool cpu_code64(const struct soft_cpu *c)
{
    return (c->mode & MODE_SIZE_MASK) == INSN_MODE_64;
}

/* --- where we are: implemented in run/, from c->u and c->blk --- */
uint64_t cpu_insn_rip(const struct soft_cpu *c);        /* of the current instruction */
uint64_t cpu_next_rip(const struct soft_cpu *c);        /* of the next one, masked to the code size */

static inline void cpu_pend(struct soft_cpu *c, uint32_t bits)
{
    atomic_fetch_or_explicit(&c->pending, bits, memory_order_release);
}

#endif
