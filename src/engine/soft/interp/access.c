/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The roads the TLB's fast path does not take. A TLB hit implies a canonical address, so the canonical check lives here:
 * SDM vol. 1 §3.3.7.1 (#GP, or #SS when the stack segment is implied by rSP or rBP as base).
 */
#include "engine/soft/interp/interp-int.h"

#include <string.h>

void interp_check_lin(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg)
{
    uint64_t last = lin + size - 1;
    bool bad;
    if (cpu_code64(c)) {
        bad = !is_canonical(lin) || !is_canonical(last);
    } else {
        bad = last >> 32 != 0 && lin >> 32 == 0;    /* across 4 GiB: the SDM leaves it to the implementation (3A §5.3) */
    }
    if (unlikely(bad)) {
        cpu_raise_err(c, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
    }
}

/* What the thunks below call. */
uint64_t interp_load_miss_c(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg);
void interp_store_miss_c(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg, uint64_t v);
void *interp_ptr_w_miss_c(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg);
uint64_t interp_rmw_get_slow_c(struct soft_cpu *c, uint64_t lin, unsigned size);

uint64_t interp_load_miss_c(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg)
{
    interp_check_lin(c, lin, size, seg);
    return mmu_load_slow(c, lin, size);
}

void interp_store_miss_c(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg, uint64_t v)
{
    interp_check_lin(c, lin, size, seg);
    mmu_store_slow(c, lin, size, v);
}

void *interp_ptr_w_miss_c(struct soft_cpu *c, uint64_t lin, unsigned size, unsigned seg)
{
    interp_check_lin(c, lin, size, seg);
    return mmu_ptr_slow(c, lin, size, MMU_WRITE);
}

uint64_t interp_rmw_get_slow_c(struct soft_cpu *c, uint64_t lin, unsigned size)
{
    mmu_probe(c, lin, size, MMU_WRITE);
    return mmu_load(c, lin, size);
}

/* Called from inline asm, at any stack alignment; only rAX changes. */
#define MISS_THUNK(name)                                                                                     \
    __asm__(".text\n\t.p2align 4\n\t.hidden " name "\n\t.globl " name "\n\t.type " name ", @function\n" name ":\n\t" \
            ".cfi_startproc\n\tendbr64\n\tpush %rbp\n\t.cfi_def_cfa_offset 16\n\t.cfi_offset 6, -16\n\t"     \
            "mov %rsp, %rbp\n\t.cfi_def_cfa_register 6\n\tand $-16, %rsp\n\t"                                \
            "push %rdi\n\tpush %rsi\n\tpush %rdx\n\tpush %rcx\n\tpush %r8\n\tpush %r9\n\tpush %r10\n\tpush %r11\n\t" \
            "call " name "_c\n\t"                                                                            \
            "pop %r11\n\tpop %r10\n\tpop %r9\n\tpop %r8\n\tpop %rcx\n\tpop %rdx\n\tpop %rsi\n\tpop %rdi\n\t" \
            "leave\n\tret\n\t.cfi_endproc\n\t.size " name ", .-" name "\n")
MISS_THUNK("interp_load_miss");
MISS_THUNK("interp_store_miss");
MISS_THUNK("interp_ptr_w_miss");
MISS_THUNK("interp_rmw_get_slow");

uint64_t interp_lin_any(struct soft_cpu *c, const struct uop *u, unsigned size, bool write, uint64_t add)
{
    const struct insn *i = &u->i;
    uint64_t ea = i->flags & INSN_MOFFS ? i->imm & addr_masks[i->asize] : ea_of(c, u, add);
    if (cpu_code64(c) || ((c->mode & MODE_FLAT) && i->seg < SEG_FS && i->seg != SEG_CS)) {
        return c->segbase[i->seg] + ea;
    }
    return sys_seg_lin(c, i->seg, ea, size, write);
}

/*
 * Host pointers are taken when the others already stand still: none taken before would survive that. A raise in between is
 * rare (a flush came in while we waited) and ends the exclusive section (run/ aborts it).
 */
void interp_locked_begin_slow(struct soft_cpu *c, struct locked *l, unsigned size)
{
    l->n1 = PAGE_SIZE - (l->lin & (PAGE_SIZE - 1));
    l->p1 = l->p2 = NULL;
    if (l->n1 < size) {
        mmu_probe(c, l->lin, size, MMU_WRITE);
        mmu_exclusive_begin(c);
        l->p1 = mmu_ptr_w(c, l->lin, l->n1);
        l->p2 = mmu_ptr_w(c, l->lin + l->n1, size - l->n1);
        if (l->p1 && l->p2) {
            l->old = 0;
            memcpy(&l->old, l->p1, l->n1);
            memcpy((uint8_t *)&l->old + l->n1, l->p2, size - l->n1);
            return;
        }
        mmu_exclusive_end(c);
        l->p1 = NULL;           /* MMIO on one side */
    }
    l->old = rmw_get_slow(c, l->lin, size);
}

void interp_locked_commit_slow(struct soft_cpu *c, struct locked *l, unsigned size, uint64_t v)
{
    if (!l->p1) {
        mmu_store(c, l->lin, size, v);
        return;
    }
    memcpy(l->p1, &v, l->n1);
    memcpy(l->p2, (uint8_t *)&v + l->n1, size - l->n1);
    mmu_exclusive_end(c);
}
