/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SSE and AVX: handlers around a thunk. A handler checks that the state may be used, forms the address, checks alignment
 * and access, and only then runs the thunk, which cannot fault any more but by a numeric exception (fpe.c).
 *
 * MXCSR: with all exceptions masked and the default rounding the host's register holds the guest's value while the
 * thunk runs and may keep its sticky bits afterwards (C code does not look at them). Other controls are put back.
 *
 * In the memory form of a prepared uop, i.rm is the operand's size and i.reg the mask of address bits that must be 0.
 */
#include "engine/soft/native/native-int.h"

enum vec_mem { VEC_REG, VEC_LOAD, VEC_STORE };

static __attribute__((noinline)) void vec_call_controls(struct soft_cpu *c, thunk_fn *fn, void *mem)
{
    uint32_t v = load_le32(xs(c, XS_MXCSR)) & MXCSR_VALID;
    if ((v & MXCSR_MASKS) != MXCSR_MASKS) {
        if (fpe_run(c, fn, mem)) {
            fpe_raise(c);
        }
        return;
    }
    host_set_mxcsr(v);
    fn(c, mem);
    store_le32(xs(c, XS_MXCSR), host_mxcsr());
    host_set_mxcsr(MXCSR_INIT);
}

static inline __attribute__((always_inline)) void vec_call(struct soft_cpu *c, thunk_fn *fn, void *mem, bool fp)
{
    if (!fp) {
        fn(c, mem);
        return;
    }
    uint32_t v = load_le32(xs(c, XS_MXCSR));
    if (unlikely((v & ~(uint32_t)MXCSR_FLAGS) != MXCSR_INIT)) {
        vec_call_controls(c, fn, mem);
        return;
    }
    if (host_mxcsr() != v) {
        host_set_mxcsr(v);
    }
    fn(c, mem);
    store_le32(xs(c, XS_MXCSR), host_mxcsr());
}

static inline __attribute__((always_inline)) const struct uop *vec_run(struct soft_cpu *c, const struct uop *u, enum vec_mem kind,
                                                                       bool fp)
{
    native_check(c, u);
    if (kind == VEC_REG) {
        vec_call(c, native_thunk(u), NULL, fp);
        return native_next(c, u);
    }
    unsigned size = u->i.rm;
    uint64_t lin = native_lin(c, u, ea_off(c, &u->i), size, u->i.reg, kind == VEC_STORE);
    void *p = kind == VEC_STORE ? mmu_ptr_w(c, lin, size) : (void *)(uintptr_t)mmu_ptr_r(c, lin, size);
    if (likely(p)) {
        vec_call(c, native_thunk(u), p, fp);
    } else if (kind == VEC_LOAD) {
        mmu_read_buf(c, lin, bounce(c), size);
        vec_call(c, native_thunk(u), bounce(c), fp);
    } else {
        native_claim_write(c, lin, size);
        vec_call(c, native_thunk(u), bounce(c), fp);
        mmu_write_buf(c, lin, bounce(c), size);
    }
    return native_next(c, u);
}

static uop_fn vec_reg, vec_reg_fp, vec_load, vec_load_fp, vec_store, vec_store_fp;

static const struct uop *vec_reg(struct soft_cpu *c, const struct uop *u)
{
    return vec_run(c, u, VEC_REG, false);
}
static const struct uop *vec_reg_fp(struct soft_cpu *c, const struct uop *u)
{
    return vec_run(c, u, VEC_REG, true);
}
static const struct uop *vec_load(struct soft_cpu *c, const struct uop *u)
{
    return vec_run(c, u, VEC_LOAD, false);
}
static const struct uop *vec_load_fp(struct soft_cpu *c, const struct uop *u)
{
    return vec_run(c, u, VEC_LOAD, true);
}
static const struct uop *vec_store(struct soft_cpu *c, const struct uop *u)
{
    return vec_run(c, u, VEC_STORE, false);
}
static const struct uop *vec_store_fp(struct soft_cpu *c, const struct uop *u)
{
    return vec_run(c, u, VEC_STORE, true);
}

static bool names_gpr(const struct insn_row *r)
{
    return r->reg.kind == K_GPR || r->rm.kind == K_GPR || (r->implicit & IMP_R_AX_DX);
}

bool vec_prepare(struct soft_cpu *c, struct uop *u)
{
    static uop_fn *const fns[3][2] = {{vec_reg, vec_reg_fp}, {vec_load, vec_load_fp}, {vec_store, vec_store_fp}};
    struct insn *i = &u->i;
    const struct insn_row *r = insn_row(i);
    bool mem = i->flags & INSN_MEM;
    struct thunk_spec s = {
        .row = i->row,
        .flags = i->flags & (INSN_MEM | INSN_VEX | INSN_L | INSN_W),
        .reg = r->ext == 0xff ? i->reg & 15 : 0,
        .vvvv = i->flags & INSN_VEX ? insn_vvvv(i) : 0,
        .rm = mem ? 0 : i->rm & 15,
        .imm = r->imm == IMM_NONE ? 0 : (uint16_t)i->imm,
    };
    /* Outside 64-bit mode VEX.W does not widen a general register. */
    if (i->opsize != 3 && names_gpr(r)) {
        s.flags &= ~INSN_W;
    }
    uint64_t addr = code_buf_thunk(c->vm->code_buf, &s);
    if (!addr) {
        return false;
    }
    enum vec_mem kind = !mem ? VEC_REG : r->rm.write ? VEC_STORE : VEC_LOAD;
    u->fn = fns[kind][!!(r->attr & RA_FPEXC)];
    i->imm = addr;
    if (mem) {
        i->rm = (uint8_t)insn_mem_size(i);
        i->reg = r->attr & RA_ALIGN && !(r->feat == FEAT_SHA && fx_quirks.sha_unaligned) ? i->rm - 1 : 0;
    }
    return true;
}
