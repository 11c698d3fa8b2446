/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The words the opcode tables (rows-*.inc) are written in. One line is one row; every macro is an initialiser of
 * struct insn_row and nothing else. A table file defines MAP before its rows.
 */
#ifndef LODGE_SOFT_DECODE_ROWS_INT_H
#define LODGE_SOFT_DECODE_ROWS_INT_H

#include "engine/soft/decode/insn.h"

/* Mandatory prefixes as pp. */
enum { NP, P66, PF3, PF2 };
enum { NO_EXT = 0xff };

/* What follows the opcode. */
#define MODRM RE_MODRM                   /* ModRM, register or memory */
#define MODRM_MEM (RE_MODRM | RE_MEM)         /* memory only */
#define MODRM_REG (RE_MODRM | RE_REG)         /* register only */
#define LK RE_LOCK

/* Integer and system rows: opcode, [ModRM.reg,] mnemonic, operation, form, operand size, encoding, and more fields. */
#define I(opc, nm, o, frm, sz, en, ...)                                                                              \
    { .name = nm, .op = OP_##o, .map = MAP, .opcode = opc, .ext = NO_EXT, .form = F_##frm, .size = SZ_##sz,         \
      .enc = en, ##__VA_ARGS__ }
#define G(opc, reg, nm, o, frm, sz, en, ...)                                                                         \
    { .name = nm, .op = OP_##o, .map = MAP, .opcode = opc, .ext = reg, .form = F_##frm, .size = SZ_##sz, .enc = en, \
      ##__VA_ARGS__ }
/* The same with a mandatory prefix. */
#define IP(p, opc, nm, o, frm, sz, en, ...) I(opc, nm, o, frm, sz, (en) | RE_PP, .pp = p, ##__VA_ARGS__)
#define GP(p, opc, reg, nm, o, frm, sz, en, ...) G(opc, reg, nm, o, frm, sz, (en) | RE_PP, .pp = p, ##__VA_ARGS__)

#define IMM(kind) .imm = IMM_##kind
#define MEM(n) .mem_size = n
#define FEAT(f) .feat = FEAT_##f
#define FIXRM(n) .rmx = (n) + 1

/* Status flags. */
#define FL(r, w, u) .flags_r = (r), .flags_w = (w), .flags_u = (u)
#define FL_ARITH FL(0, FL_ALL, 0)
#define FL_CARRY FL(FL_CF, FL_ALL, 0)           /* ADC, SBB */
#define FL_LOGIC FL(0, FL_ALL, FL_AF)
#define FL_INCDEC FL(0, FL_ALL & ~FL_CF, 0)
#define FL_COND FL(FL_ALL & ~FL_AF, 0, 0)       /* any of the sixteen conditions */

/* Operands of vector rows: class then r read, w write, m both. */
#define K(kd, rd, wr) ((struct opnd){ .kind = kd, .read = rd, .write = wr })   /* the parentheses keep its commas */
#define No K(K_NONE, 0, 0)
#define Xr K(K_XMM, 1, 0)
#define Xw K(K_XMM, 0, 1)
#define Xm K(K_XMM, 1, 1)
#define Mr K(K_MM, 1, 0)
#define Mw K(K_MM, 0, 1)
#define Mm K(K_MM, 1, 1)
#define Gr K(K_GPR, 1, 0)
#define Gw K(K_GPR, 0, 1)
#define Gm K(K_GPR, 1, 1)
#define Pr K(K_MEM_ONLY, 1, 0)
#define Pw K(K_MEM_ONLY, 0, 1)
#define Pm K(K_MEM_ONLY, 1, 1)
#define Sr K(K_ST, 1, 0)
#define Sw K(K_ST, 0, 1)
#define Sm K(K_ST, 1, 1)

/* Legacy vector rows: prefix, opcode, mnemonic, operation, feature, form, reg, rm, memory bytes, more. */
#define S(p, opc, nm, o, ft, frm, rg, rmo, msz, ...)                                                                 \
    { .name = nm, .op = OP_##o, .feat = FEAT_##ft, .map = MAP, .pp = p, .opcode = opc, .ext = NO_EXT,               \
      .form = F_##frm, .size = SZ_Y, .reg = rg, .rm = rmo, .mem_size = msz, ##__VA_ARGS__ }
#define EN(e) .enc = RE_MODRM | RE_PP | (e)
/* load, store direction; with imm8; SSE arithmetic on 16 aligned bytes */
#define LD(p, opc, nm, ft, rg, rmo, msz, ...) S(p, opc, nm, VEC, ft, R_RM, rg, rmo, msz, EN(0), ##__VA_ARGS__)
#define ST(p, opc, nm, ft, rmo, rg, msz, ...) S(p, opc, nm, VEC, ft, RM_R, rg, rmo, msz, EN(0), ##__VA_ARGS__)
#define LDI(p, opc, nm, ft, rg, rmo, msz, ...)                                                                       \
    S(p, opc, nm, VEC, ft, R_RM_I, rg, rmo, msz, EN(0), IMM(8), ##__VA_ARGS__)
#define STI(p, opc, nm, ft, rmo, rg, msz, ...)                                                                       \
    S(p, opc, nm, VEC, ft, RM_R_I, rg, rmo, msz, EN(0), IMM(8), ##__VA_ARGS__)
#define LDR(p, opc, nm, ft, rg, rmo, ...) S(p, opc, nm, VEC, ft, R_RM, rg, rmo, 0, EN(RE_REG), ##__VA_ARGS__)
#define AL .attr = RA_ALIGN
#define FX .attr = RA_FPEXC
#define ALFX .attr = RA_ALIGN | RA_FPEXC
/* MMX rows run as OP_MMX: they switch the x87 state to MMX. */
#define MMX(p, opc, nm, ft, rg, rmo, msz, ...) S(p, opc, nm, MMX, ft, R_RM, rg, rmo, msz, EN(0), ##__VA_ARGS__)
/* An MMX instruction and the SSE instruction of the same opcode with 66: features of both. */
#define MX(opc, nm, mft, sft)                                                                                        \
    MMX(NP, opc, nm, mft, Mm, Mr, 8), LD(P66, opc, nm, sft, Xm, Xr, 16, AL)
/* Shift by immediate, register forms only: MMX and SSE2. */
#define MXSHIFT(opc, reg, nm)                                                                                        \
    { .name = nm, .op = OP_MMX, .feat = FEAT_MMX, .map = MAP, .pp = NP, .opcode = opc, .ext = reg, .form = F_RM_I,  \
      .size = SZ_Y, .rm = Mm, EN(RE_REG), IMM(8) },                                                                  \
    XSHIFT(opc, reg, nm)
#define XSHIFT(opc, reg, nm)                                                                                         \
    { .name = nm, .op = OP_VEC, .feat = FEAT_SSE2, .map = MAP, .pp = P66, .opcode = opc, .ext = reg,                \
      .form = F_RM_I, .size = SZ_Y, .rm = Xm, EN(RE_REG), IMM(8) }

/* VEX rows: prefix, opcode, mnemonic, operation, feature, W/L rules, reg, vvvv, rm, memory bytes, more. */
#define VX(p, opc, reg_ext, nm, o, ft, en, rg, vv, rmo, msz, at, ...)                                               \
    { .name = nm, .op = OP_##o, .feat = FEAT_##ft, .map = MAP, .pp = p, .opcode = opc, .ext = reg_ext,              \
      .form = F_VEX, .size = SZ_Y, .reg = rg, .vvvv = vv, .rm = rmo, .mem_size = msz, .attr = RA_NOREAL | (at),     \
      .enc = RE_MODRM | RE_PP | RE_VEX | (en), ##__VA_ARGS__ }
#define V(p, opc, nm, ft, en, rg, vv, rmo, msz, ...)                                                                \
    VX(p, opc, NO_EXT, nm, VEC, ft, en, rg, vv, rmo, msz, 0, .feat2 = FEAT_AVX, ##__VA_ARGS__)
#define VF(p, opc, nm, ft, en, rg, vv, rmo, msz, ...)                                                               \
    VX(p, opc, NO_EXT, nm, VEC, ft, en, rg, vv, rmo, msz, RA_FPEXC, .feat2 = FEAT_AVX, ##__VA_ARGS__)
#define VA(p, opc, nm, ft, en, rg, vv, rmo, msz, ...)                                                               \
    VX(p, opc, NO_EXT, nm, VEC, ft, en, rg, vv, rmo, msz, RA_ALIGN, .feat2 = FEAT_AVX, ##__VA_ARGS__)
/* Integer forms: 128 bits are AVX, 256 bits AVX2. */
#define V2(p, opc, nm, en, rg, vv, rmo, msz, ...)                                                                   \
    V(p, opc, nm, AVX, (en) | RE_L0, rg, vv, rmo, msz, ##__VA_ARGS__),                                               \
    V(p, opc, nm, AVX2, (en) | RE_L1, rg, vv, rmo, msz, ##__VA_ARGS__)
#define VI2(opc, nm) V2(P66, opc, nm, 0, Xw, Xr, Xr, MEM_VL)            /* the usual xmm, xmm, xmm/m */
/* General-register rows of BMI. */
#define B(p, opc, reg_ext, nm, o, ft, rg, vv, rmo, ...)                                                             \
    VX(p, opc, reg_ext, nm, o, ft, RE_L0, rg, vv, rmo, 0, 0, ##__VA_ARGS__)

/* x87 rows: opcode, ModRM.reg, mnemonic, operand, memory bytes | ST(i) | one row a ModRM.rm. */
#define X(opc, reg, nm, rmo, msz, ...)                                                                               \
    { .name = nm, .op = OP_X87, .feat = FEAT_FPU, .map = MAP, .opcode = opc, .ext = reg, .form = F_RM, .size = SZ_Z, \
      .rm = rmo, .mem_size = msz, .enc = MODRM_MEM, ##__VA_ARGS__ }
#define XR(opc, reg, nm, rmo, ...)                                                                                   \
    { .name = nm, .op = OP_X87, .feat = FEAT_FPU, .map = MAP, .opcode = opc, .ext = reg, .form = F_RM, .size = SZ_Z, \
      .rm = rmo, .enc = MODRM_REG, ##__VA_ARGS__ }
#define XF(opc, reg, n, nm, ...)                                                                                     \
    { .name = nm, .op = OP_X87, .feat = FEAT_FPU, .map = MAP, .opcode = opc, .ext = reg, .rmx = (n) + 1,             \
      .form = F_NONE, .size = SZ_Z, .enc = MODRM_REG, ##__VA_ARGS__ }

#endif
