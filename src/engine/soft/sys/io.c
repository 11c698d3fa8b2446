/* SPDX-License-Identifier: GPL-2.0-or-later */
/* IN, OUT, INS, OUTS and the right to use a port. Source: SDM vol. 1 ch. 18 (I/O; 18.5 protection). */
#include "engine/soft/sys/sys-int.h"

void sys_check_io(struct soft_cpu *c, uint16_t port, unsigned size)
{
    if (!in_prot(c) || (!in_v86(c) && c->cpl <= cpu_iopl(c))) {
        return;
    }
    const struct x86_seg *tr = &c->st.tr;
    if (tr->unusable || !(tr->attr & SEGA_P) || !(tr->attr & 8) || tr->limit < 0x67) {
        raise_gp(c);
    }
    uint64_t base = tr->base, wrap = cpu_long_mode(c) ? ~0ull : 0xffffffff;
    uint32_t at = (uint32_t)mmu_load_sys(c, (base + 0x66) & wrap, 2) + port / 8;
    if (at + 1 > tr->limit) {
        raise_gp(c);
    }
    uint32_t map = (uint32_t)mmu_load_sys(c, (base + at) & wrap, 2);
    if (map >> (port & 7) & ((1u << size) - 1)) {
        raise_gp(c);
    }
}

/* I/O breakpoints, SDM vol. 3B 17.2.4: a trap behind the instruction, which runs alone for that. */
static void watch_port(struct soft_cpu *c, uint16_t port, unsigned size)
{
    static const uint8_t lens[4] = { 1, 2, 8, 4 };
    for (unsigned i = 0; i < 4; i++) {
        unsigned n = lens[c->st.dr7 >> (18 + 4 * i) & 3];
        uint64_t at = c->st.dr[i] & ~(uint64_t)(n - 1);
        if (!(c->st.dr7 >> (2 * i) & 3) || (c->st.dr7 >> (16 + 4 * i) & 3) != 2 || port >= at + n || port + (uint64_t)size <= at) {
            continue;
        }
        if (!c->single && c->u) {
            cpu_restart_single(c);
        }
        c->watch_hits |= (uint8_t)(1u << i);
    }
}

bool sys_io_insn(struct soft_cpu *c, const struct uop *u, uint64_t lin)
{
    unsigned op = insn_row(&u->i)->op, size = u->i.opsize >= 2 ? 4 : 1u << u->i.opsize;
    uint16_t port = (uint16_t)((op == OP_IN || op == OP_OUT) && u->i.form == F_I ? u->i.imm & 0xff : c->r[R_DX]);
    sys_check_io(c, port, size);
    if (unlikely(c->st.dr7 & 0xff) && c->st.cr4 & CR4_DE) {
        watch_port(c, port, size);
    }
    c->stats.pio++;
    switch (op) {
    case OP_IN:
        reg_set(c, R_AX, size, mem_io_read(c->vm->mem, MEM_PIO, port, size));
        return false;
    case OP_OUT:
        mem_io_write(c->vm->mem, MEM_PIO, port, c->r[R_AX] & size_mask(size), size);
        return true;
    case OP_INS:
        mmu_probe(c, lin, size, MMU_WRITE);         /* the port is read once: nothing may fault after it */
        mmu_store(c, lin, size, mem_io_read(c->vm->mem, MEM_PIO, port, size));
        return false;
    default:
        mem_io_write(c->vm->mem, MEM_PIO, port, mmu_load(c, lin, size), size);
        return false;
    }
}
