/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CLI, STI, PUSHF, POPF, CLAC, STAC, HLT: who may change which flag. Sources: SDM vol. 2 (these instructions; POPF table 4-15),
 * vol. 3A 20.3 (virtual-8086 mode extensions), 20.4 (protected-mode virtual interrupts).
 */
#include "engine/soft/sys/sys-int.h"

/* CLI/STI without the right to IF: VIF stands in for it in v86 with VME and at CPL 3 with PVI. */
static bool uses_vif(const struct soft_cpu *c)
{
    return in_v86(c) ? (c->st.cr4 & CR4_VME) != 0 : c->cpl == 3 && (c->st.cr4 & CR4_PVI);
}

static bool if_allowed(const struct soft_cpu *c)
{
    return !in_prot(c) || (in_v86(c) ? cpu_iopl(c) == 3 : c->cpl <= cpu_iopl(c));
}

static void cli(struct soft_cpu *c)
{
    if (if_allowed(c)) {
        c->st.rflags &= ~(uint64_t)X86_IF;
    } else if (uses_vif(c)) {
        c->st.rflags &= ~(uint64_t)X86_VIF;
    } else {
        raise_gp(c);
    }
}

/* True when interrupts became possible, after the shadow of one instruction. */
static bool sti(struct soft_cpu *c)
{
    if (if_allowed(c)) {
        if (c->st.rflags & X86_IF) {
            return false;
        }
        cpu_set_rflags(c, X86_IF, X86_IF);
        c->st.ev.int_shadow = 1;
        cpu_pend(c, PEND_SHADOW);
        return true;
    }
    if (!uses_vif(c) || (c->st.rflags & X86_VIP)) {
        raise_gp(c);
    }
    c->st.rflags |= X86_VIF;
    return false;
}

static void pushf(struct soft_cpu *c, unsigned size)
{
    uint64_t flags = cpu_rflags(c) & ~(uint64_t)(X86_VM | X86_RF);
    if (in_v86(c) && cpu_iopl(c) < 3) {
        if (size != 2 || !(c->st.cr4 & CR4_VME)) {
            raise_gp(c);
        }
        flags = (flags & ~(uint64_t)X86_IF) | X86_IOPL | (flags & X86_VIF ? X86_IF : 0);
    }
    sys_push(c, flags, size);
}

static void popf(struct soft_cpu *c, unsigned size)
{
    uint64_t mask = X86_ARITH | X86_TF | X86_DF | X86_NT | (size >= 4 ? X86_AC | X86_ID : 0);
    struct stk s;
    bool vme = in_v86(c) && cpu_iopl(c) < 3;
    if (vme && (size != 2 || !(c->st.cr4 & CR4_VME))) {
        raise_gp(c);
    }
    stk_current(c, &s);
    uint64_t val = stk_pop(c, &s, size);
    if (vme) {
        bool vif = val & X86_IF;
        if ((vif && (c->st.rflags & X86_VIP)) || (val & X86_TF)) {
            raise_gp(c);
        }
        val = (val & ~(uint64_t)X86_VIF) | (vif ? X86_VIF : 0);
        mask |= X86_VIF;
    } else if (!in_prot(c)) {
        mask |= X86_IF | X86_IOPL;
    } else if (in_v86(c)) {
        mask |= X86_IF;
    } else {
        mask |= c->cpl == 0 ? X86_IOPL : 0;
        mask |= c->cpl <= cpu_iopl(c) ? X86_IF : 0;
    }
    if (size >= 4) {
        mask |= X86_RF;
        val &= ~(uint64_t)X86_RF;           /* POPF clears RF */
    }
    stk_commit(c, &s);
    cpu_set_rflags(c, val, mask);
}

static void hlt(struct soft_cpu *c)
{
    need_cpl0(c);
    if (atomic_exchange(&c->pv_kicked, false)) {
        return;                         /* kicked between its last look and this HLT */
    }
    c->st.ev.halted = 1;
    c->st.ev.mp_state = MP_HALTED;
}

static void ac(struct soft_cpu *c, bool set)
{
    if (!(c->mode & MODE_PROT) || c->cpl != 0) {
        cpu_raise(c, EXC_UD);
    }
    cpu_set_rflags(c, set ? X86_AC : 0, X86_AC);
}

bool sys_flags_insn(struct soft_cpu *c, const struct uop *u)
{
    switch (insn_row(&u->i)->op) {
    case OP_CLI: cli(c); return false;
    case OP_STI: return sti(c);
    case OP_PUSHF: pushf(c, 1u << u->i.opsize); return false;
    case OP_POPF: popf(c, 1u << u->i.opsize); return true;
    case OP_CLAC: ac(c, false); return true;
    case OP_STAC: ac(c, true); return true;
    default: hlt(c); return true;
    }
}
