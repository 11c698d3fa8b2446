/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an instruction may do to the machine: segments, control registers, MSRs, CPUID, exceptions and their delivery,
 * task and mode switches, the local APIC. Plain C on struct soft_cpu, used by interp and by the translator's helpers.
 * Every function raises the architectural fault itself (and then does not return). Sources: SDM vol. 2, 3A; AMD APM vol. 2.
 */
#ifndef LODGE_SOFT_SYS_SYS_H
#define LODGE_SOFT_SYS_SYS_H

#include "engine/soft/cpu.h"

/* Plain state in and out (vCPU parked). import recomputes everything derived; export composes RFLAGS and copies registers. */
void soft_cpu_export(const struct soft_cpu *c, struct x86_state *out);
void soft_cpu_import(struct soft_cpu *c, const struct x86_state *in);
/* Recomputes c->mode, c->cpl, c->segbase, c->fpu_trap, c->df_step and the TLB context from st. After any change of these. */
void cpu_update_mode(struct soft_cpu *c);
/* Writes RFLAGS bits in `mask`, keeps others; updates af, df_step, the TLB context (AC), single-step and IF polling. */
void cpu_set_rflags(struct soft_cpu *c, uint64_t value, uint64_t mask);

/* --- stack and segments, for interp --- */
/* Linear address of offset `off` in segment `seg` for an access of `size`: limit, type and canonical checks (#GP or #SS). */
uint64_t sys_seg_lin(struct soft_cpu *c, unsigned seg, uint64_t off, unsigned size, bool write);
void sys_load_seg(struct soft_cpu *c, unsigned seg, uint16_t sel);      /* MOV/POP/LxS; not CS */
/* Pushes and pops of 2, 4, 8 bytes with the current stack size; update RSP after the access. */
void sys_push(struct soft_cpu *c, uint64_t val, unsigned size);
uint64_t sys_pop(struct soft_cpu *c, unsigned size);

/* --- control transfers: set c->rip; the handler then leaves the block --- */
void sys_jmp_far(struct soft_cpu *c, uint16_t sel, uint64_t off, unsigned size);
void sys_call_far(struct soft_cpu *c, uint16_t sel, uint64_t off, unsigned size);
void sys_ret_far(struct soft_cpu *c, unsigned size, uint16_t pop);
void sys_iret(struct soft_cpu *c, unsigned size);
void sys_int(struct soft_cpu *c, uint8_t vector, enum insn_op kind);    /* OP_INT, OP_INT3, OP_INT1, OP_INTO */
void sys_syscall(struct soft_cpu *c);
void sys_sysret(struct soft_cpu *c, unsigned size);
void sys_sysenter(struct soft_cpu *c);
void sys_sysexit(struct soft_cpu *c, unsigned size);
/* Checks a near branch target: canonical in 64-bit mode, CS limit otherwise (#GP); returns it masked to `size` bytes. */
uint64_t sys_branch_target(struct soft_cpu *c, uint64_t target, unsigned size);

/*
 * Every OP_ from the system part of enum insn_op that is not named above, by one entry: LGDT..SMSW, MOV CR/DR, LAR.., INVLPG,
 * RDMSR.., CPUID, HLT, CLI/STI, PUSHF/POPF, IN/OUT/INS/OUTS (one element), SWAPGS, xGETBV, FSGSBASE, RDRAND, MOVSEG, LDSEG, BOUND...
 * lin: linear address of the memory operand, checked by the caller for segment limits only (0 when there is none).
 * True: what a block's decoding depends on may have changed, or an interrupt may have become deliverable: leave the block after it
 * (RIP is not advanced here). INS and OUTS move one element between the port and `lin`; indexes and counts are the caller's.
 */
bool sys_insn(struct soft_cpu *c, const struct uop *u, uint64_t lin);
/* Port access right by IOPL and the TSS bitmap (#GP). */
void sys_check_io(struct soft_cpu *c, uint16_t port, unsigned size);

/* --- exceptions and interrupts; called by run/ between instructions --- */
/* Delivers c->exc_* with c->rip = return address; handles double fault. False: triple fault (shutdown). May unwind again by itself. */
bool sys_deliver_exception(struct soft_cpu *c);
/*
 * Takes one interrupt, NMI, INIT or SIPI if something is pending and allowed. True when it did (c->rip changed, c->st.ev.halted
 * cleared). Consumes PEND_IRQ and PEND_INIT_SIPI_NMI; they are set again by whatever makes something deliverable (IF set, EOI,
 * TPR lowered, IRET after an NMI) and left set when only an int_shadow is in the way. c->shutdown is set on a triple fault.
 */
bool sys_take_interrupt(struct soft_cpu *c);
/* Something could be taken right now (HLT must not sleep). */
bool sys_interrupt_ready(struct soft_cpu *c);
/*
 * PEND_SHADOW: instructions run one at a time while sys_needs_single (TF, RF, a shadow, an enabled instruction breakpoint).
 * run/ clears c->st.ev.int_shadow before the instruction, calls sys_step_begin (false: #DB was delivered instead, look again),
 * executes one instruction, and after a successful one calls sys_step_done with the RFLAGS from before it and c->rip = next.
 */
bool sys_needs_single(const struct soft_cpu *c);
bool sys_step_begin(struct soft_cpu *c);
void sys_step_done(struct soft_cpu *c, uint64_t old_rflags);
/* #DB behind an instruction that ran alone: `step` for TF, and what data and I/O breakpoints left in c->watch_hits. */
void sys_trap(struct soft_cpu *c, bool step);
/* Before an x87/MMX/SSE/AVX instruction when c->fpu_trap: raises #UD or #NM, or returns. */
void sys_fpu_check(struct soft_cpu *c, const struct insn *i);

/* --- MSRs and CPUID --- */
/* False: #GP(0) is due. */
bool sys_rdmsr(struct soft_cpu *c, uint32_t msr, uint64_t *val);
bool sys_wrmsr(struct soft_cpu *c, uint32_t msr, uint64_t val);
uint64_t sys_read_tsc(struct soft_cpu *c);
/* The VM clock was started or set; vCPUs parked. Rewrites the PV clock records. The TSC itself follows the clock without being told. */
void sys_clock_started(struct soft_vm *vm);
/* Around a sleep in HLT (vCPU thread): lets other vCPUs leave their TLB flushes to our waking up (KVM PV TLB flush). */
void sys_sleep_begin(struct soft_cpu *c);
void sys_sleep_end(struct soft_cpu *c);
/* The model as bits per enum insn_feat. */
uint64_t sys_model_feats(const struct cpu_model *m);

/* --- local APIC --- */
void lapic_reset(struct soft_cpu *c, bool keep_id);
uint32_t lapic_read(struct soft_cpu *c, unsigned off);                  /* MMIO offset, or x2APIC MSR << 4 */
void lapic_write(struct soft_cpu *c, unsigned off, uint32_t val);
/* Message to all LAPICs it names (MSI address/data); any thread. False when none accepted it. */
bool lapic_msi(struct soft_vm *vm, uint64_t addr, uint32_t data);
void lapic_set_extint(struct soft_cpu *bsp, bool level);
void lapic_nmi(struct soft_cpu *c);
/* The LAPIC's page of MMIO registers is at `gpa` for this CPU: accesses go to lapic_read/lapic_write, 32 bits at multiples of 16. */
static inline bool lapic_at(const struct soft_cpu *c, gpa_t gpa)
{
    return (c->st.lapic.base_msr & 0xc00) == 0x800 && ((gpa ^ c->st.lapic.base_msr) & 0xffffffffff000ull) == 0;
}
/* VM-clock ns of the next timer expiry; UINT64_MAX when none. PEND_TIMER is set on the vCPU whenever this may have changed. */
uint64_t lapic_next_deadline(struct soft_cpu *c);
/* Timer expired? Posts its interrupt and rearms a periodic one. vCPU thread. */
void lapic_timer_poll(struct soft_cpu *c);
/* Wakes a vCPU out of HLT: implemented in run/. */
void cpu_wake(struct soft_cpu *c);

#endif
