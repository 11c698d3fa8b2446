/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Vector instructions whose memory operand is not one range: masked moves (an element that is masked off is not accessed
 * and cannot fault) and gathers (one address an element, restartable). Sources: SDM vol. 2, MASKMOVQ, MASKMOVDQU,
 * VMASKMOV, VPMASKMOV, VGATHER*, VPGATHER*.
 */
#include "engine/soft/native/native-int.h"

static void vec_get(struct soft_cpu *c, unsigned n, uint8_t out[32])
{
    memcpy(out, xs_xmm(c, n), 16);
    memcpy(out + 16, xs_ymm_hi(c, n), 16);
}

/* Writes `bytes` (16 or 32) and clears the rest of the register, as VEX does. */
static void vec_set(struct soft_cpu *c, unsigned n, const uint8_t *in, unsigned bytes)
{
    memcpy(xs_xmm(c, n), in, 16);
    if (bytes == 32) {
        memcpy(xs_ymm_hi(c, n), in + 16, 16);
        xs_used(c, XC_SSE | XC_AVX);
    } else {
        memset(xs_ymm_hi(c, n), 0, 16);
        xs_used(c, XC_SSE);
    }
}

static bool elem_selected(const uint8_t *mask, unsigned k, unsigned size)
{
    return mask[k * size + size - 1] & 0x80;
}

/* --- MASKMOVQ, MASKMOVDQU: bytes to seg:[rDI] --- */

const struct uop *masked_maskmov(struct soft_cpu *c, const struct uop *u)
{
    bool mmx = insn_row(&u->i)->reg.kind == K_MM;
    unsigned n = mmx ? 8 : 16;
    uint8_t data[16], mask[16];

    native_check(c, u);
    if (mmx) {
        if (load_le16(xs(c, XS_FSW)) & FSW_ES) {
            cpu_raise(c, EXC_MF);
        }
        xs_mmx_enter(c);        /* also when the store faults */
    }
    memcpy(data, mmx ? xs_mm(c, u->i.reg) : xs_xmm(c, u->i.reg), n);
    memcpy(mask, mmx ? xs_mm(c, u->i.rm) : xs_xmm(c, u->i.rm), n);
    uint64_t off = ea_mask(&u->i, c->r[R_DI]), lin[16];
    for (unsigned k = 0; k < n; k++) {
        if (mask[k] & 0x80) {
            lin[k] = ea_seg_lin(c, u->i.seg, ea_mask(&u->i, off + k), 1, true);
            native_claim_write(c, lin[k], 1);
        }
    }
    for (unsigned k = 0; k < n; k++) {
        if (mask[k] & 0x80) {
            mmu_store(c, lin[k], 1, data[k]);
        }
    }
    return native_next(c, u);
}

/* --- VMASKMOVPS/PD, VPMASKMOVD/Q --- */

static unsigned vmaskmov_size(const struct insn *i)
{
    unsigned opcode = insn_row(i)->opcode;
    return opcode >= 0x8c ? (i->flags & INSN_W ? 8 : 4) : opcode & 1 ? 8 : 4;   /* 2C 2E: PS, 2D 2F: PD, 8C 8E: D and Q */
}

const struct uop *masked_vmaskmov(struct soft_cpu *c, const struct uop *u)
{
    const struct insn *i = &u->i;
    unsigned opcode = insn_row(i)->opcode, size = vmaskmov_size(i), bytes = i->flags & INSN_L ? 32 : 16;
    bool store = opcode == 0x2e || opcode == 0x2f || opcode == 0x8e;
    uint8_t mask[32], data[32] = {0};

    native_check(c, u);
    vec_get(c, insn_vvvv(i), mask);
    if (store) {
        vec_get(c, i->reg, data);
    }
    uint64_t off = ea_off(c, i), lin[8];
    for (unsigned k = 0; k < bytes / size; k++) {
        if (elem_selected(mask, k, size)) {
            lin[k] = ea_seg_lin(c, i->seg, ea_mask(i, off + k * size), size, store);
            if (store) {
                native_claim_write(c, lin[k], size);
            } else {
                uint64_t v = mmu_load(c, lin[k], size);
                memcpy(data + k * size, &v, size);
            }
        }
    }
    if (!store) {
        vec_set(c, i->reg, data, bytes);
        return native_next(c, u);
    }
    for (unsigned k = 0; k < bytes / size; k++) {
        if (elem_selected(mask, k, size)) {
            uint64_t v = 0;
            memcpy(&v, data + k * size, size);
            mmu_store(c, lin[k], size, v);
        }
    }
    return native_next(c, u);
}

/* --- gathers: 90 VPGATHERD, 91 VPGATHERQ (index size), 92/93 the same for PS/PD; W is the element's size --- */

static uint64_t gather_off(struct soft_cpu *c, const struct insn *i, const uint8_t *index, unsigned k, unsigned isize)
{
    int64_t x = isize == 8 ? (int64_t)load_le64(index + 8 * k) : (int32_t)load_le32(index + 4 * k);
    return ea_mask(i, c->r[i->base] + ((uint64_t)x << i->scale) + (uint64_t)(int64_t)i->disp);
}

/*
 * Elements done are in the destination and out of the mask when a later one faults; the instruction is then begun again.
 * Without a fault the whole mask and everything above the last element are cleared.
 */
const struct uop *masked_gather(struct soft_cpu *c, const struct uop *u)
{
    const struct insn *i = &u->i;
    unsigned size = i->flags & INSN_W ? 8 : 4, isize = insn_row(i)->opcode & 1 ? 8 : 4;
    unsigned vl = i->flags & INSN_L ? 32 : 16, n = vl / (size > isize ? size : isize);
    unsigned mask_reg = insn_vvvv(i);
    uint8_t index[32], mask[32], dest[32];

    native_check(c, u);
    vec_get(c, i->index, index);
    vec_get(c, mask_reg, mask);
    for (unsigned k = 0; k < n; k++) {
        if (elem_selected(mask, k, size)) {
            uint64_t v = mmu_load(c, ea_seg_lin(c, i->seg, gather_off(c, i, index, k, isize), size, false), size);
            vec_get(c, i->reg, dest);
            memcpy(dest + k * size, &v, size);
            vec_set(c, i->reg, dest, 32);
        }
        memset(mask + k * size, 0, size);
        vec_set(c, mask_reg, mask, 32);
    }
    vec_get(c, i->reg, dest);
    memset(dest + n * size, 0, 32 - n * size);
    vec_set(c, i->reg, dest, 32);
    memset(mask, 0, 32);
    vec_set(c, mask_reg, mask, 32);
    return native_next(c, u);
}
