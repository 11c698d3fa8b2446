/* SPDX-License-Identifier: GPL-2.0-or-later */
/* BT BTS BTR BTC BSF BSR TZCNT LZCNT POPCNT CRC32 ADCX ADOX. Source: SDM vol. 2. */
#include "engine/soft/interp/interp-int.h"

#define BT_CASE(insn, sfx, type)                                                                             \
    {                                                                                                        \
        type r_ = (type)d;                                                                                   \
        __asm__(FLAGS_IN insn sfx " %2, %1" FLAGS_OUT : "+&a"(ax), "+&r"(r_) : "r"((type)bit) : "cc");       \
        d = r_;                                                                                              \
        break;                                                                                               \
    }
#define SIZES_248(CASE, insn)                                                                                \
    switch (size) {                                                                                          \
    case 2: CASE(insn, "w", uint16_t)                                                                        \
    case 4: CASE(insn, "l", uint32_t)                                                                        \
    default: CASE(insn, "q", uint64_t)                                                                       \
    }                                                                                                        \
    break

/* bit is below the operand's width. */
ALWAYS uint64_t bit_op(struct soft_cpu *c, enum insn_op op, unsigned size, uint64_t d, uint64_t bit)
{
    uint16_t ax = c->af;
    switch (op) {
    case OP_BTS: SIZES_248(BT_CASE, "bts");
    case OP_BTR: SIZES_248(BT_CASE, "btr");
    case OP_BTC: SIZES_248(BT_CASE, "btc");
    default: SIZES_248(BT_CASE, "bt");
    }
    c->af = ax;
    return d;
}

/*
 * Memory: an immediate selects a bit of the operand, a register is a signed bit offset from it that reaches 2^(bits-1)
 * bits both ways; the word that holds the bit is what is accessed.
 */
ALWAYS uop_next bit_test(struct soft_cpu *c, const struct uop *u, enum insn_op op, unsigned size)
{
    unsigned bits = size * 8;
    uint64_t off = u->i.form == F_RM_R ? reg_get(c, u->i.reg, size) : u->i.imm, bit = off & (bits - 1);
    if (!(u->i.flags & INSN_MEM)) {
        uint64_t d = bit_op(c, op, size, reg_get(c, u->i.rm, size), bit);
        if (op != OP_BT) {
            reg_put(c, u->i.rm, size, d);
        }
        return next(c, u);
    }
    uint64_t add = u->i.form == F_RM_R ? ((uint64_t)((int64_t)sext(off, size) >> 3) & -(uint64_t)size) : 0;
    uint64_t lin = interp_lin_any(c, u, size, op != OP_BT, add);
    if (op == OP_BT) {
        bit_op(c, op, size, lin_load(c, lin, size, u->i.seg), bit);
    } else if (u->i.flags & INSN_LOCK) {
        struct locked l = { 0 };
        uint64_t d;
        locked_begin(c, &l, lin, size, u->i.seg);
        do {
            d = bit_op(c, op, size, l.old, bit);    /* CF is all it defines: a second try may start from its flags */
        } while (!locked_commit(c, &l, size, d));
    } else {
        struct rmw w = { 0 };
        uint64_t d = rmw_get_lin(c, lin, size, u->i.seg, &w);
        rmw_put_lin(c, size, &w, bit_op(c, op, size, d, bit));
    }
    return next(c, u);
}

#define BIT_BODY(name, op)                                                                                   \
    ALWAYS uop_next name(struct soft_cpu *c, const struct uop *u, unsigned size)                             \
    {                                                                                                        \
        return bit_test(c, u, op, size);                                                                     \
    }                                                                                                        \
    SIZES_W(name)
BIT_BODY(bt, OP_BT)
BIT_BODY(bts, OP_BTS)
BIT_BODY(btr, OP_BTR)
BIT_BODY(btc, OP_BTC)

/*
 * The whole 64-bit destination goes through the host instruction: BSF and BSR of 0 leave it, a 16-bit form keeps its upper
 * part, and both as the host does it.
 */
#define SCAN_CASE(insn, sfx, type)                                                                           \
    {                                                                                                        \
        if (sizeof(type) == 4) {                                                                             \
            __asm__(FLAGS_IN insn sfx " %2, %k1" FLAGS_OUT : "+&a"(ax), "+&r"(d) : "r"((type)s) : "cc");     \
        } else if (sizeof(type) == 2) {                                                                      \
            __asm__(FLAGS_IN insn sfx " %2, %w1" FLAGS_OUT : "+&a"(ax), "+&r"(d) : "r"((type)s) : "cc");     \
        } else {                                                                                             \
            __asm__(FLAGS_IN insn sfx " %2, %1" FLAGS_OUT : "+&a"(ax), "+&r"(d) : "r"((type)s) : "cc");      \
        }                                                                                                    \
        break;                                                                                               \
    }

ALWAYS uop_next scan(struct soft_cpu *c, const struct uop *u, enum insn_op op, unsigned size)
{
    uint64_t s = rm_get(c, u, K_ANY, size), d = c->r[u->i.reg];
    uint16_t ax = c->af;
    switch (op) {
    case OP_BSF: SIZES_248(SCAN_CASE, "bsf");
    case OP_BSR: SIZES_248(SCAN_CASE, "bsr");
    case OP_TZCNT: SIZES_248(SCAN_CASE, "tzcnt");
    case OP_LZCNT: SIZES_248(SCAN_CASE, "lzcnt");
    default: SIZES_248(SCAN_CASE, "popcnt");
    }
    c->r[u->i.reg] = d;
    c->af = ax;
    return next(c, u);
}

#define SCAN_BODY(name, op)                                                                                  \
    ALWAYS uop_next name(struct soft_cpu *c, const struct uop *u, unsigned size)                             \
    {                                                                                                        \
        return scan(c, u, op, size);                                                                         \
    }                                                                                                        \
    SIZES_W(name)
SCAN_BODY(bsf, OP_BSF)
SCAN_BODY(bsr, OP_BSR)
SCAN_BODY(tzcnt, OP_TZCNT)
SCAN_BODY(lzcnt, OP_LZCNT)
SCAN_BODY(popcnt, OP_POPCNT)

/* The grid's size is the source's; the result is 32 bits wide, zero-extended. */
ALWAYS uop_next crc32(struct soft_cpu *c, const struct uop *u, unsigned size)
{
    uint64_t s = rm_get(c, u, K_ANY, size), d = (uint32_t)c->r[u->i.reg];
    switch (size) {
    case 1: __asm__("crc32b %b1, %k0" : "+r"(d) : "r"(s)); break;
    case 2: __asm__("crc32w %w1, %k0" : "+r"(d) : "r"(s)); break;
    case 4: __asm__("crc32l %k1, %k0" : "+r"(d) : "r"(s)); break;
    default: __asm__("crc32q %1, %0" : "+r"(d) : "r"(s)); break;
    }
    c->r[u->i.reg] = (uint32_t)d;
    return next(c, u);
}

SIZES(crc32)

#define ADX_BODY(name)                                                                                       \
    ALWAYS uop_next name(struct soft_cpu *c, const struct uop *u, unsigned size)                             \
    {                                                                                                        \
        uint64_t s = rm_get(c, u, K_ANY, size), d = reg_get(c, u->i.reg, size);                              \
        uint16_t ax = c->af;                                                                                 \
        if (size == 4) {                                                                                     \
            __asm__(FLAGS_IN #name " %k2, %k1" FLAGS_OUT : "+&a"(ax), "+&r"(d) : "r"(s) : "cc");             \
        } else {                                                                                             \
            __asm__(FLAGS_IN #name " %2, %1" FLAGS_OUT : "+&a"(ax), "+&r"(d) : "r"(s) : "cc");               \
        }                                                                                                    \
        reg_put(c, u->i.reg, size, d);                                                                       \
        c->af = ax;                                                                                          \
        return next(c, u);                                                                                   \
    }                                                                                                        \
    SIZES_FN(name, 4) SIZES_FN(name, 8)                                                                      \
    static uop_fn *const name##_tab[4] = { NULL, NULL, name##_4, name##_8 };
ADX_BODY(adcx)
ADX_BODY(adox)

uop_fn *interp_pick_bits(const struct insn *i, enum insn_op op, uint32_t mode)
{
    switch (op) {
    case OP_BT: return bt_tab[i->opsize];
    case OP_BTS: return bts_tab[i->opsize];
    case OP_BTR: return btr_tab[i->opsize];
    case OP_BTC: return btc_tab[i->opsize];
    case OP_BSF: return bsf_tab[i->opsize];
    case OP_BSR: return bsr_tab[i->opsize];
    case OP_TZCNT: return tzcnt_tab[i->opsize];
    case OP_LZCNT: return lzcnt_tab[i->opsize];
    case OP_POPCNT: return popcnt_tab[i->opsize];
    case OP_CRC32: return crc32_tab[i->ssize];
    case OP_ADCX: return adcx_tab[i->opsize];
    case OP_ADOX: return adox_tab[i->opsize];
    default: return NULL;
    }
}
