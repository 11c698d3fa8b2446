/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Private to sys/: descriptors, stacks, event delivery, and the pieces its files share. */
#ifndef LODGE_SOFT_SYS_SYS_INT_H
#define LODGE_SOFT_SYS_SYS_INT_H

#include "base/bytes.h"
#include "engine/soft/mmu/mmu.h"
#include "engine/soft/sys/sys.h"

/* A descriptor as read from its table. Nothing of it is trusted before the checks of the instruction that reads it. */
struct desc {
    uint64_t raw;
    uint64_t base_hi;           /* bits 63:32 of a 16-byte system descriptor's base or gate's offset, in place */
    uint64_t lin;               /* where it was */
};

/* Types of system descriptors. SDM vol. 3A table 3-2. */
enum {
    DT_TSS16 = 1, DT_LDT = 2, DT_TSS16_BUSY = 3, DT_CALL16 = 4, DT_TASK = 5, DT_INT16 = 6, DT_TRAP16 = 7,
    DT_TSS = 9, DT_TSS_BUSY = 11, DT_CALL = 12, DT_INT = 14, DT_TRAP = 15,
};

static inline unsigned desc_type(const struct desc *d)
{
    return (d->raw >> 40) & 15;
}
static inline bool desc_s(const struct desc *d)
{
    return d->raw >> 44 & 1;
}
static inline unsigned desc_dpl(const struct desc *d)
{
    return (d->raw >> 45) & 3;
}
static inline bool desc_p(const struct desc *d)
{
    return d->raw >> 47 & 1;
}
static inline bool desc_l(const struct desc *d)
{
    return d->raw >> 53 & 1;
}
static inline bool desc_db(const struct desc *d)
{
    return d->raw >> 54 & 1;
}
static inline bool desc_is_code(const struct desc *d)
{
    return desc_s(d) && (desc_type(d) & 8);
}
static inline bool desc_conforming(const struct desc *d)
{
    return (desc_type(d) & 12) == 12;
}
static inline bool desc_writable_data(const struct desc *d)
{
    return desc_s(d) && (desc_type(d) & 10) == 2;
}
static inline uint64_t desc_base(const struct desc *d)
{
    return ((d->raw >> 16) & 0xffffff) | ((d->raw >> 32) & 0xff000000) | d->base_hi;
}
static inline uint32_t desc_limit(const struct desc *d)
{
    uint32_t limit = (uint32_t)(d->raw & 0xffff) | ((uint32_t)(d->raw >> 32) & 0xf0000);
    return d->raw >> 55 & 1 ? (limit << 12) | 0xfff : limit;
}
static inline uint16_t gate_sel(const struct desc *d)
{
    return (uint16_t)(d->raw >> 16);
}
static inline uint64_t gate_off(const struct desc *d)
{
    return (d->raw & 0xffff) | ((d->raw >> 32) & 0xffff0000) | d->base_hi;
}

static inline bool is_null(uint16_t sel)
{
    return (sel & 0xfffc) == 0;
}
static inline bool canonical(uint64_t lin)
{
    return (uint64_t)((int64_t)(lin << 16) >> 16) == lin;
}
static inline bool in_prot(const struct soft_cpu *c)    /* protected mode, virtual-8086 included */
{
    return (c->st.cr0 & CR0_PE) != 0;
}
static inline bool in_v86(const struct soft_cpu *c)
{
    return in_prot(c) && (c->st.rflags & X86_VM);
}
static inline unsigned cpu_iopl(const struct soft_cpu *c)
{
    return (c->st.rflags >> 12) & 3;
}
static inline uint64_t size_mask(unsigned size)
{
    return size >= 8 ? ~0ull : (1ull << (size * 8)) - 1;
}

/* c->has */
enum { HAS_TSC_DEADLINE = 1, HAS_X2APIC = 2, HAS_TSC_ADJUST = 4, HAS_TSC_AUX = 8, HAS_SPEC_CTRL = 16, HAS_ARCH_CAPS = 32 };

/* #GP(0), or with EXT while something is being delivered. */
_Noreturn void raise_gp(struct soft_cpu *c);
_Noreturn void raise_sel(struct soft_cpu *c, unsigned vector, uint16_t sel);
void need_cpl0(struct soft_cpu *c);

/* --- seg.c --- */
/* Reads the 8-byte descriptor of `sel`. False: null table or outside its limit. Faults of the access itself are raised. */
bool desc_read(struct soft_cpu *c, uint16_t sel, struct desc *d);
/* As desc_read, raising `vector`(sel) where that returns false. */
void desc_get(struct soft_cpu *c, uint16_t sel, struct desc *d, unsigned vector);
/* The upper half of a 16-byte descriptor (long mode's LDT, TSS and gates); `vector`(sel) when outside or malformed. */
void desc_get_hi(struct soft_cpu *c, uint16_t sel, struct desc *d, unsigned vector);
void desc_set_accessed(struct soft_cpu *c, struct desc *d);
struct x86_seg desc_to_seg(const struct desc *d, uint16_t sel);
/* Linear address within `s`, or `vector`(error). */
uint64_t seg_lin(struct soft_cpu *c, const struct x86_seg *s, uint64_t off, unsigned size, bool write, unsigned vector, uint32_t error);
void seg_set_null(struct soft_cpu *c, unsigned seg, uint16_t sel);
void seg_set_real(struct soft_cpu *c, unsigned seg, uint16_t sel);
/* Loads ES, SS, DS, FS, GS with every check, without the shadow of MOV SS. */
void seg_load(struct soft_cpu *c, unsigned seg, uint16_t sel);
/* SS for privilege level `cpl`, checked; faults are `vector`(sel), not present is #SS. */
void seg_check_ss(struct soft_cpu *c, uint16_t sel, unsigned cpl, unsigned vector, struct desc *d);
bool sys_seg_insn(struct soft_cpu *c, const struct uop *u, uint64_t lin);
void tr_load(struct soft_cpu *c, uint16_t sel, bool set_busy);
void ldt_load(struct soft_cpu *c, uint16_t sel, unsigned vector);

/* --- a stack being built or taken apart; registers change only at stk_commit --- */
struct stk {
    struct x86_seg seg;
    uint64_t sp, mask;          /* mask of the pointer: 16, 32 or 64 bits */
    bool is64;
    bool sys;                   /* accesses as supervisor: the stack of an inner level */
    uint16_t err;               /* selector in #SS */
};
void stk_current(struct soft_cpu *c, struct stk *s);
void stk_push(struct soft_cpu *c, struct stk *s, uint64_t val, unsigned size);
uint64_t stk_pop(struct soft_cpu *c, struct stk *s, unsigned size);
void stk_commit(struct soft_cpu *c, const struct stk *s);
/* Stack of inner level `dpl` from the TSS, its SS checked (#TS); fills *ss. Legacy modes. */
void stk_inner(struct soft_cpu *c, unsigned dpl, struct stk *s, struct desc *ss, uint16_t *ss_sel);
/* RSPn (n 0..2) or ISTn (n 1..7) of a 64-bit TSS. */
uint64_t tss64_rsp(struct soft_cpu *c, unsigned dpl);
uint64_t tss64_ist(struct soft_cpu *c, unsigned ist);

/* --- far.c --- */
/* Checks that RIP `off` may run in the code segment `d`; #GP(0). Returns it masked. */
uint64_t code_target(struct soft_cpu *c, const struct desc *d, uint64_t off);
/* Commits CS:RIP with CS.RPL = cpl; the descriptor is checked and its accessed bit set by the caller. */
void cs_commit(struct soft_cpu *c, const struct desc *d, uint16_t sel, unsigned cpl, uint64_t rip);
/* Flat 64-bit or compatibility segments of SYSCALL and its relatives. */
void cs_ss_flat(struct soft_cpu *c, uint16_t cs_sel, uint16_t ss_sel, unsigned cpl, bool code64);
/* Data segment registers that CPL `cpl` may not keep become null (RET and IRET to an outer level). */
void segs_leave_inner(struct soft_cpu *c, unsigned cpl);

/* The code segment a far return or IRET goes back to; faults as both raise them. */
void return_check_cs(struct soft_cpu *c, uint16_t sel, struct desc *d);
/*
 * The rest of a far return or IRET: checks SS and RIP, commits CS, SS and RSP, with the change of level. with_ss: SS:RSP came from
 * the stack; else the pointer becomes s->sp. `pop` bytes are released on the outer stack.
 */
void far_return(struct soft_cpu *c, struct desc *cs, uint16_t cs_sel, uint64_t rip, const struct stk *s, bool with_ss,
                uint16_t ss_sel, uint64_t rsp, uint16_t pop);

/* --- except.c --- */
struct event {
    uint8_t vector;
    bool soft;                  /* INT n, INT3, INTO: gate DPL is checked */
    bool has_error;
    bool ext;                   /* EXT in error codes */
    bool irq;                   /* interrupt or NMI: benign whatever its vector */
    uint32_t error;
    uint64_t ret;               /* saved RIP */
};
/* Delivers with nested faults handled; false: triple fault. Called outside an instruction. */
bool event_deliver(struct soft_cpu *c, struct event ev);

/* --- task.c: legacy task switch --- */
enum task_why { TASK_JMP, TASK_CALL, TASK_IRET, TASK_GATE };
/* `ret` is the old task's saved EIP. Pushes the error code on the new stack when has_error. */
void task_switch(struct soft_cpu *c, uint16_t sel, enum task_why why, uint64_t ret, bool has_error, uint32_t error);

/* --- cr.c, dbg.c --- */
bool sys_cr_insn(struct soft_cpu *c, const struct uop *u, uint64_t lin);
void dr6_or(struct soft_cpu *c, uint64_t bits);
bool efer_write(struct soft_cpu *c, uint64_t val);
void invpcid(struct soft_cpu *c, const struct uop *u, uint64_t lin);
enum { DR6_BD = 1 << 13, DR6_BS = 1 << 14, DR6_BT = 1 << 15, DR7_GD = 1 << 13 };
#define DR6_FIXED 0xffff0ff0ull
#define DR7_FIXED 0x400ull

/* --- flags.c, io.c, misc.c --- */
bool sys_flags_insn(struct soft_cpu *c, const struct uop *u);
bool sys_io_insn(struct soft_cpu *c, const struct uop *u, uint64_t lin);
bool sys_misc_insn(struct soft_cpu *c, const struct uop *u, uint64_t lin);
/* Register operands with the width rules: 4 bytes zero-extend, 1 and 2 keep the rest. */
uint64_t reg_get(const struct soft_cpu *c, unsigned reg, unsigned size);
void reg_set(struct soft_cpu *c, unsigned reg, unsigned size, uint64_t val);
/* A register or memory operand in ModRM.rm. */
uint64_t rm_get(struct soft_cpu *c, const struct uop *u, uint64_t lin, unsigned size);
void rm_set(struct soft_cpu *c, const struct uop *u, uint64_t lin, unsigned size, uint64_t val);

/* --- clock.c --- */
uint64_t vm_tsc(struct soft_vm *vm);
uint64_t tsc_to_ns(const struct soft_vm *vm, uint64_t ticks);
/* VM TSC minus what the VM clock alone gives: how far host TSC and host clock drifted apart. */
uint64_t vm_tsc_skew(struct soft_vm *vm);

/* --- kvmpv.c --- */
bool pv_rdmsr(struct soft_cpu *c, uint32_t msr, uint64_t *val);
bool pv_wrmsr(struct soft_cpu *c, uint32_t msr, uint64_t val);
void pv_clock_write(struct soft_cpu *c);
void pv_hypercall(struct soft_cpu *c);
/* PV EOI: takes an EOI the guest made in memory; withdraws the offer otherwise. Returns the vector to end, or -1. */
void pv_eoi_sync(struct soft_cpu *c);
void pv_eoi_offer(struct soft_cpu *c);

/* --- lapic.c, lapic-msg.c --- */
struct lapic_msg {
    uint8_t vector, mode;
    bool logical, level, assert_, wide /* x2APIC destination */;
    uint32_t dest;
};
enum { APIC_DM_FIXED, APIC_DM_LOWEST, APIC_DM_SMI, APIC_DM_NMI = 4, APIC_DM_INIT, APIC_DM_SIPI, APIC_DM_EXTINT };
enum { APIC_ID = 0x20, APIC_VER = 0x30, APIC_TPR = 0x80, APIC_APR = 0x90, APIC_PPR = 0xa0, APIC_EOI = 0xb0, APIC_LDR = 0xd0,
       APIC_DFR = 0xe0, APIC_SVR = 0xf0, APIC_ISR = 0x100, APIC_TMR = 0x180, APIC_IRR = 0x200, APIC_ESR = 0x280,
       APIC_LVT_CMCI = 0x2f0, APIC_ICR = 0x300, APIC_ICR_HI = 0x310, APIC_LVT_TIMER = 0x320, APIC_LVT_THERMAL = 0x330,
       APIC_LVT_PERF = 0x340, APIC_LVT_LINT0 = 0x350, APIC_LVT_LINT1 = 0x360, APIC_LVT_ERROR = 0x370, APIC_TMICT = 0x380,
       APIC_TMCCT = 0x390, APIC_TDCR = 0x3e0, APIC_SELF_IPI = 0x3f0 };
enum { APIC_LVT_MASKED = 1 << 16, APIC_SVR_ENABLE = 1 << 8 };
#define APIC_BASE_BSP (1ull << 8)
#define APIC_BASE_X2 (1ull << 10)
#define APIC_BASE_EN (1ull << 11)
#define APIC_TIMER_STOPPED UINT64_MAX       /* timer_start_ns of a one-shot count that ran out */

static inline bool lapic_x2(const struct soft_cpu *c)
{
    return (c->st.lapic.base_msr & (APIC_BASE_EN | APIC_BASE_X2)) == (APIC_BASE_EN | APIC_BASE_X2);
}
int lapic_top(const uint32_t bits[8]);                  /* highest vector set, or -1 */
uint32_t lapic_ppr_locked(const struct soft_cpu *c);
/* Sends to every target; true when one took it. No lock held. */
bool lapic_send(struct soft_vm *vm, const struct lapic_msg *m, const struct soft_cpu *self, unsigned shorthand);
void lapic_icr_write(struct soft_cpu *c, uint64_t icr);
bool lapic_accept_locked(struct soft_cpu *c, uint8_t vector, bool level);
void lapic_local(struct soft_cpu *c, uint32_t lvt);     /* a local source fires */
void lapic_eoi(struct soft_cpu *c);
void lapic_error(struct soft_cpu *c, uint32_t bit);      /* ESR bit, and the error LVT; vCPU thread */
bool lapic_base_write(struct soft_cpu *c, uint64_t val);
bool lapic_msr_read(struct soft_cpu *c, uint32_t msr, uint64_t *val);
bool lapic_msr_write(struct soft_cpu *c, uint32_t msr, uint64_t val);
void lapic_set_tpr(struct soft_cpu *c, uint32_t tpr);
uint64_t lapic_tsc_deadline(struct soft_cpu *c);
void lapic_set_tsc_deadline(struct soft_cpu *c, uint64_t val);
/* Highest vector that may be delivered now (PPR), or -1. */
int lapic_candidate_locked(const struct soft_cpu *c);
/* The candidate moves from IRR to ISR. */
void lapic_ack_locked(struct soft_cpu *c, uint8_t vector);
bool lapic_extint_ready(const struct soft_cpu *c);

#endif
