/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FXSAVE, XSAVE and their relatives, LDMXCSR, VZEROUPPER: instructions that move whole vector state, done by hand on the
 * guest's image. Components offered: x87, SSE, AVX (XCR0 bits 0 to 2); XSS is 0. Sources: SDM vol. 1 §10.5, ch. 13,
 * vol. 2 (each instruction), vol. 1 §13.7 to 13.12 for which bytes are read and written.
 *
 * XSTATE_BV of the image is kept as an upper bound while thunks run; what a component is in truth (XINUSE) is looked up
 * in its bytes when somebody can see the difference. A component whose bit is clear holds its initial values.
 */
#include "engine/soft/native/native-int.h"

static bool all_zero(const uint8_t *p, unsigned n)
{
    uint64_t any = 0;
    for (unsigned i = 0; i < n; i += 8) {
        any |= load_le64(p + i);
    }
    return any == 0;
}

static void put_init(struct soft_cpu *c, unsigned component)
{
    switch (component) {
    case XC_X87:
        memset(xs(c, 0), 0, XS_MXCSR);
        memset(xs(c, XS_ST), 0, XS_XMM - XS_ST);
        store_le16(xs(c, XS_FCW), FCW_INIT);
        break;
    case XC_SSE:
        memset(xs(c, XS_XMM), 0, XS_LEGACY_END - XS_XMM);
        break;
    default:
        memset(xs(c, XS_YMM), 0, XS_YMM_END - XS_YMM);
        break;
    }
}

/* In 16- and 32-bit code only registers 0 to 7 are loaded, saved or cleared. */
static unsigned vec_bytes(struct soft_cpu *c)
{
    return cpu_code64(c) ? 256 : 128;
}

static bool x87_is_init(struct soft_cpu *c)
{
    return load_le64(xs(c, 0)) == FCW_INIT && all_zero(xs(c, XS_FIP), 16) && all_zero(xs(c, XS_ST), XS_XMM - XS_ST);
}

/* Components not in their initial state; MXCSR is not part of any. */
static unsigned xinuse(struct soft_cpu *c)
{
    unsigned used = 0, maybe = c->st.xsave[XS_BV];

    if (maybe & XC_X87 && !x87_is_init(c)) {
        used |= XC_X87;
    }
    if (maybe & XC_SSE && !all_zero(xs(c, XS_XMM), 256)) {
        used |= XC_SSE;
    }
    if (maybe & XC_AVX && !all_zero(xs(c, XS_YMM), 256)) {
        used |= XC_AVX;
    }
    return used;
}

/* Pointers in the 32-bit form: offset and selector; selectors are always 0 here. */
static void narrow_pointers(uint8_t *legacy)
{
    store_le32(legacy + XS_FIP + 4, 0);
    store_le32(legacy + XS_FDP + 4, 0);
}

/* Header of the legacy region as memory has it: bytes 0 to 31. */
static void legacy_head(struct soft_cpu *c, const struct uop *u, uint8_t *out)
{
    memcpy(out, xs(c, 0), 32);
    out[5] = 0;
    if (fx_quirks.hides_pointers && !(load_le16(out + XS_FSW) & FSW_ES)) {
        store_le16(out + XS_FOP, 0);
        memset(out + XS_FIP, 0, 16);
    }
    if (!(u->i.flags & INSN_W)) {
        narrow_pointers(out);
    }
    store_le32(out + XS_MXCSR_MASK, MXCSR_VALID);
}

static void check_mxcsr(struct soft_cpu *c, uint32_t v)
{
    if (v & ~(uint32_t)MXCSR_VALID) {
        cpu_raise_err(c, EXC_GP, 0);
    }
}

/* `area` holds bytes 0 to 159 of a legacy region. MXCSR is not touched. */
static void load_x87(struct soft_cpu *c, const struct uop *u, const uint8_t *area)
{
    memcpy(xs(c, 0), area, XS_MXCSR);
    c->st.xsave[5] = 0;
    store_le16(xs(c, XS_FCW), (load_le16(area) & FCW_VALID) | FCW_ONE);
    if (!(u->i.flags & INSN_W)) {
        narrow_pointers(xs(c, 0));
    }
    memcpy(xs(c, XS_ST), area + XS_ST, XS_XMM - XS_ST);
    for (unsigned i = 0; i < 8; i++) {
        memset(xs(c, XS_ST + 16 * i + 10), 0, 6);
    }
    store_le16(xs(c, XS_FOP), load_le16(xs(c, XS_FOP)) & 0x7ff);
    xs_settle_fsw(c);
}

static uint64_t area_lin(struct soft_cpu *c, const struct uop *u, unsigned size, unsigned align, bool write)
{
    return native_lin(c, u, ea_off(c, &u->i), size, align - 1, write);
}

/* --- FXSAVE, FXRSTOR --- */

const struct uop *xstate_fxsave(struct soft_cpu *c, const struct uop *u)
{
    native_check(c, u);
    uint64_t lin = area_lin(c, u, 512, 16, true);
    uint8_t *out = bounce(c);
    legacy_head(c, u, out);
    memcpy(out + XS_ST, xs(c, XS_ST), XS_LEGACY_END - XS_ST);
    native_claim_write(c, lin, 512);
    mmu_write_buf(c, lin, out, XS_XMM + vec_bytes(c));
    return native_next(c, u);
}

const struct uop *xstate_fxrstor(struct soft_cpu *c, const struct uop *u)
{
    native_check(c, u);
    uint64_t lin = area_lin(c, u, 512, 16, false);
    const uint8_t *in = bounce(c);
    mmu_read_buf(c, lin, bounce(c), 512);
    uint32_t mxcsr = load_le32(in + XS_MXCSR);
    check_mxcsr(c, mxcsr);
    load_x87(c, u, in);
    store_le32(xs(c, XS_MXCSR), mxcsr);
    memcpy(xs(c, XS_XMM), in + XS_XMM, vec_bytes(c));
    xs_used(c, XC_X87 | XC_SSE);
    return native_next(c, u);
}

/* --- XSAVE family --- */

static void check_xsave(struct soft_cpu *c, const struct uop *u, bool supervisor)
{
    if (!(c->st.cr4 & CR4_OSXSAVE)) {
        cpu_raise(c, EXC_UD);
    }
    if (c->st.cr0 & CR0_TS) {
        cpu_raise(c, EXC_NM);
    }
    if (supervisor && c->cpl) {
        cpu_raise_err(c, EXC_GP, 0);
    }
}

static unsigned requested(const struct soft_cpu *c)
{
    uint64_t mask = (uint64_t)(uint32_t)c->r[R_DX] << 32 | (uint32_t)c->r[R_AX];
    return (unsigned)(mask & c->st.xcr0 & XC_ALL);
}

/* The writer has probed the area: nothing here faults. */
static void save_components(struct soft_cpu *c, const struct uop *u, uint64_t lin, unsigned which, bool mxcsr)
{
    uint8_t head[32];
    legacy_head(c, u, head);
    if (which & XC_X87) {
        mmu_write_buf(c, lin, head, XS_MXCSR);
        mmu_write_buf(c, lin + XS_ST, xs(c, XS_ST), XS_XMM - XS_ST);
    }
    if (mxcsr) {
        mmu_write_buf(c, lin + XS_MXCSR, head + XS_MXCSR, 8);
    }
    if (which & XC_SSE) {
        mmu_write_buf(c, lin + XS_XMM, xs(c, XS_XMM), vec_bytes(c));
    }
    if (which & XC_AVX) {
        mmu_write_buf(c, lin + XS_YMM, xs(c, XS_YMM), vec_bytes(c));
    }
}

/* Standard form: XSAVE writes what is asked for, XSAVEOPT only what is in use. */
static const struct uop *save_standard(struct soft_cpu *c, const struct uop *u, bool optimise)
{
    check_xsave(c, u, false);
    native_check(c, u);
    unsigned rfbm = requested(c), used = xinuse(c);
    unsigned size = rfbm & XC_AVX ? XS_YMM_END : XS_HDR_END;
    uint64_t lin = area_lin(c, u, size, 64, true);
    native_claim_write(c, lin, size);
    uint64_t bv;
    mmu_read_buf(c, lin + XS_BV, &bv, sizeof(bv));
    save_components(c, u, lin, optimise ? rfbm & used : rfbm, rfbm & (XC_SSE | XC_AVX));
    bv = (bv & ~(uint64_t)rfbm) | (rfbm & used);
    mmu_write_buf(c, lin + XS_BV, &bv, sizeof(bv));
    return native_next(c, u);
}

/* With at most component 2 the compacted form has AVX where the standard form has it. */
static const struct uop *save_compacted(struct soft_cpu *c, const struct uop *u, bool supervisor)
{
    check_xsave(c, u, supervisor);
    native_check(c, u);
    unsigned rfbm = requested(c), used = xinuse(c);
    if (load_le32(xs(c, XS_MXCSR)) != MXCSR_INIT) {
        used |= XC_SSE;         /* §13.10: XSAVEC and XSAVES count MXCSR as SSE state */
    }
    unsigned size = rfbm & XC_AVX ? XS_YMM_END : XS_HDR_END;
    uint64_t lin = area_lin(c, u, size, 64, true);
    native_claim_write(c, lin, size);
    save_components(c, u, lin, rfbm & used, rfbm & used & XC_SSE);
    uint64_t header[2] = {rfbm & used, 1ull << 63 | rfbm};
    mmu_write_buf(c, lin + XS_BV, header, sizeof(header));
    return native_next(c, u);
}

const struct uop *xstate_xsave(struct soft_cpu *c, const struct uop *u)
{
    return save_standard(c, u, false);
}

const struct uop *xstate_xsaveopt(struct soft_cpu *c, const struct uop *u)
{
    return save_standard(c, u, true);
}

const struct uop *xstate_xsavec(struct soft_cpu *c, const struct uop *u)
{
    return save_compacted(c, u, false);
}

const struct uop *xstate_xsaves(struct soft_cpu *c, const struct uop *u)
{
    return save_compacted(c, u, true);
}

/* #GP on a header that no XSAVE wrote. Returns whether it is compacted. */
static bool check_header(struct soft_cpu *c, const uint8_t *area, bool supervisor)
{
    uint64_t bv = load_le64(area + XS_BV), comp = load_le64(area + XS_COMP);
    bool compacted = comp >> 63;
    bool bad;

    if (compacted) {
        bad = (comp & ~(1ull << 63) & ~c->st.xcr0) || (bv & ~comp) || !all_zero(area + XS_COMP + 8, XS_HDR_END - XS_COMP - 8);
    } else {
        bad = supervisor || (bv & ~c->st.xcr0) || !all_zero(area + XS_COMP, 16);
    }
    if (bad || bv >> 63) {
        cpu_raise_err(c, EXC_GP, 0);
    }
    return compacted;
}

static void restore_vec(struct soft_cpu *c, unsigned off, const uint8_t *from, bool present)
{
    if (present) {
        memcpy(xs(c, off), from + off, vec_bytes(c));
    } else {
        memset(xs(c, off), 0, vec_bytes(c));
    }
}

static const struct uop *restore(struct soft_cpu *c, const struct uop *u, bool supervisor)
{
    check_xsave(c, u, supervisor);
    native_check(c, u);
    unsigned rfbm = requested(c);
    unsigned size = rfbm & XC_AVX ? XS_YMM_END : XS_HDR_END;
    uint64_t lin = area_lin(c, u, size, 64, false);
    uint8_t *in = bounce(c);
    mmu_read_buf(c, lin, in, XS_HDR_END);
    bool compacted = check_header(c, in, supervisor);
    unsigned load = rfbm & (unsigned)load_le64(in + XS_BV), init = rfbm & ~load;
    if (load & XC_AVX) {
        mmu_read_buf(c, lin + XS_YMM, in + XS_YMM, vec_bytes(c));
    }
    /* MXCSR: the standard form reads it with SSE or AVX whatever XSTATE_BV says, the compacted one is part of SSE. */
    bool mxcsr_load = compacted ? load & XC_SSE : rfbm & (XC_SSE | XC_AVX), mxcsr_init = compacted && init & XC_SSE;
    uint32_t mxcsr = mxcsr_init ? (uint32_t)MXCSR_INIT : load_le32(in + XS_MXCSR);
    if (mxcsr_load) {
        check_mxcsr(c, mxcsr);
    }
    if (mxcsr_load || mxcsr_init) {
        store_le32(xs(c, XS_MXCSR), mxcsr);
    }
    if (load & XC_X87) {
        load_x87(c, u, in);
    } else if (init & XC_X87) {
        put_init(c, XC_X87);
    }
    if (rfbm & XC_SSE) {
        restore_vec(c, XS_XMM, in, load & XC_SSE);
    }
    if (rfbm & XC_AVX) {
        restore_vec(c, XS_YMM, in, load & XC_AVX);
    }
    xs_used(c, load);
    c->st.xsave[XS_BV] = (uint8_t)xinuse(c);
    return native_next(c, u);
}

const struct uop *xstate_xrstor(struct soft_cpu *c, const struct uop *u)
{
    return restore(c, u, false);
}

const struct uop *xstate_xrstors(struct soft_cpu *c, const struct uop *u)
{
    return restore(c, u, true);
}

/* --- MXCSR, upper halves --- */

const struct uop *xstate_ldmxcsr(struct soft_cpu *c, const struct uop *u)
{
    native_check(c, u);
    uint32_t v = (uint32_t)mmu_load(c, ea_lin(c, u, 4, false), 4);
    check_mxcsr(c, v);
    store_le32(xs(c, XS_MXCSR), v);
    return native_next(c, u);
}

const struct uop *xstate_stmxcsr(struct soft_cpu *c, const struct uop *u)
{
    native_check(c, u);
    mmu_store(c, ea_lin(c, u, 4, true), 4, load_le32(xs(c, XS_MXCSR)));
    return native_next(c, u);
}

/* VZEROUPPER, VZEROALL: of registers 0 to 7 only outside 64-bit mode. */
const struct uop *xstate_vzero(struct soft_cpu *c, const struct uop *u)
{
    native_check(c, u);
    memset(xs(c, XS_YMM), 0, vec_bytes(c));
    if (u->i.flags & INSN_L) {
        memset(xs(c, XS_XMM), 0, vec_bytes(c));
    }
    if (cpu_code64(c)) {
        c->st.xsave[XS_BV] &= (uint8_t)~XC_AVX;
    }
    return native_next(c, u);
}
