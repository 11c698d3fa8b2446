/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "engine/soft/native/native.h"

#include <cpuid.h>

#include "engine/soft/native/native-int.h"

/* The standard offset of the upper halves is fixed in practice and read from the host to be sure. */
static bool ymm_offset_ok(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(1, 0, &a, &b, &c, &d) || !(c & bit_AVX)) {
        return true;
    }
    return __get_cpuid_count(0xd, 2, &a, &b, &c, &d) && a == 256 && b == XS_YMM;
}

bool native_cpu_init(struct soft_cpu *c, struct err *err)
{
    if (!ymm_offset_ok()) {
        return err_set(err, ERR_UNSUPPORTED, "the host keeps AVX state in an unknown place of its XSAVE area");
    }
    fpe_init();
    fx_probe();
    struct native_cpu *n = aligned_alloc(64, sizeof(*n));
    if (!n) {
        abort();
    }
    memset(n, 0, sizeof(*n));
    c->native_scratch = n;
    return true;
}

void native_cpu_fini(struct soft_cpu *c)
{
    free(c->native_scratch);
    c->native_scratch = NULL;
}

static uop_fn *by_hand(unsigned op)
{
    switch (op) {
    case OP_FXSAVE: return xstate_fxsave;
    case OP_FXRSTOR: return xstate_fxrstor;
    case OP_XSAVE: return xstate_xsave;
    case OP_XSAVEC: return xstate_xsavec;
    case OP_XSAVEOPT: return xstate_xsaveopt;
    case OP_XSAVES: return xstate_xsaves;
    case OP_XRSTOR: return xstate_xrstor;
    case OP_XRSTORS: return xstate_xrstors;
    case OP_LDMXCSR: return xstate_ldmxcsr;
    case OP_STMXCSR: return xstate_stmxcsr;
    case OP_FWAIT: return xstate_fwait;
    case OP_VZERO: return xstate_vzero;
    case OP_MASKMOV: return masked_maskmov;
    case OP_VMASKMOV: return masked_vmaskmov;
    case OP_GATHER: return masked_gather;
    default: return NULL;
    }
}

bool native_prepare(struct soft_cpu *c, struct uop *u, const uint8_t *bytes)
{
    const struct insn_row *r = insn_row(&u->i);

    u->fn = by_hand(r->op);
    if (u->fn) {
        return true;
    }
    return thunk_is_fx(r) ? fx_prepare(c, u, bytes) : vec_prepare(c, u);
}
