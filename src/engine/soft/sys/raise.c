/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Unwinding: out of whatever found a fault, to the run loop or to the delivery in progress. */
#include "engine/soft/sys/sys-int.h"

_Thread_local enum cpu_unwind cpu_unwind_reason;

static _Noreturn void unwind(struct soft_cpu *c, enum cpu_unwind why)
{
    cpu_unwind_reason = why;
    __builtin_longjmp(c->jb, 1);
}

static _Noreturn void raise(struct soft_cpu *c, unsigned vector, bool has_error, uint32_t error)
{
    c->exc_vector = (uint8_t)vector;
    c->exc_has_error = has_error;
    c->exc_error = error;
    c->exc_soft = false;
    unwind(c, UNWIND_EXCEPTION);
}

void cpu_raise(struct soft_cpu *c, unsigned vector)
{
    raise(c, vector, false, 0);
}

void cpu_raise_err(struct soft_cpu *c, unsigned vector, uint32_t error)
{
    raise(c, vector, true, error);
}

void cpu_raise_pf(struct soft_cpu *c, uint64_t cr2, uint32_t error)
{
    c->st.cr2 = cr2;
    raise(c, EXC_PF, true, error);
}

void cpu_restart_single(struct soft_cpu *c)
{
    unwind(c, UNWIND_SINGLE);
}

void cpu_leave(struct soft_cpu *c)
{
    unwind(c, UNWIND_LEAVE);
}

void raise_gp(struct soft_cpu *c)
{
    raise(c, EXC_GP, true, c->ext);
}

void raise_sel(struct soft_cpu *c, unsigned vector, uint16_t sel)
{
    raise(c, vector, true, (sel & 0xfffcu) | c->ext);
}

void need_cpl0(struct soft_cpu *c)
{
    if (c->cpl != 0) {
        raise_gp(c);
    }
}
