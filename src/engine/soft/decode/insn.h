/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One decoded instruction in 24 bytes, and the rows of the opcode tables. Knows no state, no memory, no host.
 * Sources: Intel SDM vol. 2 (2A ch. 2, appendix A), AMD APM vol. 3.
 */
#ifndef LODGE_SOFT_DECODE_INSN_H
#define LODGE_SOFT_DECODE_INSN_H

#include "base/base.h"

/* What an integer or system instruction does. Vector and x87 rows share OP_VEC/OP_X87/OP_MMX (run as native copies). */
enum insn_op {
    OP_ILLEGAL,                 /* #UD */
    /* two-operand arithmetic in the order of bits 5:3 of opcodes 00-3F: op - OP_ADD is that number */
    OP_ADD, OP_OR, OP_ADC, OP_SBB, OP_AND, OP_SUB, OP_XOR, OP_CMP,
    OP_TEST, OP_MOV, OP_XCHG, OP_LEA,
    OP_INC, OP_DEC, OP_NOT, OP_NEG,
    /* group 3: F6/F7 */
    OP_MUL, OP_IMUL1, OP_DIV, OP_IDIV,
    OP_IMUL,                    /* two and three operands: F_R_RM, F_R_RM_I */
    /* group 2, in the order of ModRM.reg: op - OP_ROL; count by form: F_RM_I, F_RM_1, F_RM_CL */
    OP_ROL, OP_ROR, OP_RCL, OP_RCR, OP_SHL, OP_SHR, OP_SAL, OP_SAR,
    OP_SHLD, OP_SHRD,           /* F_RM_R_I, F_RM_R_CL */
    OP_MOVZX, OP_MOVSX,         /* src size in insn.ssize; MOVSXD is OP_MOVSX with ssize 2 */
    OP_CMOVCC, OP_SETCC, OP_JCC,        /* condition in insn.cc */
    OP_JMP,                     /* F_J or F_RM (near) */
    OP_CALL,                    /* F_J or F_RM (near) */
    OP_RET,                     /* imm = bytes to pop */
    OP_JMPF, OP_CALLF,          /* F_FAR or F_RM (memory) */
    OP_RETF,
    OP_LOOP, OP_LOOPE, OP_LOOPNE, OP_JCXZ,      /* counter width = address size */
    OP_PUSH, OP_POP,            /* F_RM, F_I; opsize is the size on the stack */
    OP_PUSHSEG, OP_POPSEG,      /* insn.reg = segment number */
    OP_PUSHA, OP_POPA, OP_PUSHF, OP_POPF,
    OP_ENTER,                   /* imm = size | level << 16 */
    OP_LEAVE,
    OP_CBW, OP_CWD,             /* CBW/CWDE/CDQE, CWD/CDQ/CQO by opsize */
    OP_XLAT, OP_LAHF, OP_SAHF, OP_SALC,
    OP_DAA, OP_DAS, OP_AAA, OP_AAS, OP_AAM, OP_AAD,
    OP_BT, OP_BTS, OP_BTR, OP_BTC,      /* F_RM_R, F_RM_I */
    OP_BSF, OP_BSR, OP_TZCNT, OP_LZCNT, OP_POPCNT,
    OP_BSWAP, OP_CMPXCHG, OP_CMPXCHG8B /* opsize 2 or 3: 16B */, OP_XADD,
    OP_MOVBE, OP_CRC32, OP_ADCX, OP_ADOX, OP_MOVNTI,
    /* BMI, VEX-coded: reg, vvvv and rm as the manual orders them */
    OP_ANDN, OP_BEXTR, OP_BLSI, OP_BLSR, OP_BLSMSK, OP_BZHI, OP_MULX, OP_PDEP, OP_PEXT, OP_RORX, OP_SARX, OP_SHLX, OP_SHRX,
    /* string: opsize is the element; INSN_REP/INSN_REPNE */
    OP_MOVS, OP_CMPS, OP_STOS, OP_LODS, OP_SCAS, OP_INS, OP_OUTS,
    OP_IN, OP_OUT,              /* F_I: port imm; F_NONE: port DX */
    OP_NOP, OP_PAUSE, OP_PREFETCH /* no access, no fault */, OP_FENCE /* L/M/SFENCE */,
    OP_CLFLUSH                  /* CLFLUSH, CLFLUSHOPT, CLWB: checks the address as a byte read */,
    OP_CLC, OP_STC, OP_CMC, OP_CLD, OP_STD, OP_CLI, OP_STI,
    OP_INT, OP_INT3, OP_INT1, OP_INTO, OP_IRET, OP_BOUND, OP_UD /* UD0 UD1 UD2 */,
    OP_HLT,
    OP_SYSCALL, OP_SYSRET, OP_SYSENTER, OP_SYSEXIT,
    OP_MOVSEG_FROM,             /* mov r/m, sreg: insn.reg = segment */
    OP_MOVSEG_TO,               /* mov sreg, r/m */
    OP_LDSEG,                   /* LES LDS LSS LFS LGS: segment in insn.cc */
    OP_MOV_FROM_CR, OP_MOV_TO_CR, OP_MOV_FROM_DR, OP_MOV_TO_DR,     /* insn.reg = number, insn.rm = GPR */
    OP_LGDT, OP_SGDT, OP_LIDT, OP_SIDT, OP_LLDT, OP_SLDT, OP_LTR, OP_STR, OP_LMSW, OP_SMSW, OP_CLTS,
    OP_LAR, OP_LSL, OP_VERR, OP_VERW, OP_ARPL,
    OP_INVLPG, OP_INVPCID, OP_INVD, OP_WBINVD, OP_CLAC, OP_STAC, OP_SWAPGS,
    OP_RDMSR, OP_WRMSR, OP_RDTSC, OP_RDTSCP, OP_RDPMC, OP_RDPID, OP_CPUID, OP_XGETBV, OP_XSETBV,
    OP_RDFSBASE, OP_RDGSBASE, OP_WRFSBASE, OP_WRGSBASE,
    OP_RDRAND, OP_RDSEED,
    OP_RDPKRU, OP_WRPKRU, OP_MONITOR, OP_MWAIT, OP_RSM,
    OP_VMCALL,                  /* VMCALL and VMMCALL: hypercall */
    OP_CLZERO,                  /* AMD: zeroes the cache line at rAX */
    OP_ENDBR,                   /* ENDBR32/64 and other reserved NOPs with REP: nop */
    /* state-moving FPU/vector instructions handled by hand, not copied */
    OP_FXSAVE, OP_FXRSTOR, OP_XSAVE, OP_XSAVEC, OP_XSAVEOPT, OP_XSAVES, OP_XRSTOR, OP_XRSTORS, OP_LDMXCSR, OP_STMXCSR,
    OP_FWAIT, OP_EMMS, OP_VZERO /* VZEROUPPER (VEX.L=0), VZEROALL (L=1) */,
    OP_MASKMOV,                 /* MASKMOVQ, (V)MASKMOVDQU: implicit [rDI] */
    OP_VMASKMOV,                /* VMASKMOVPS/PD, VPMASKMOVD/Q load and store */
    OP_GATHER,                  /* AVX2 gathers (VSIB) */
    /* native copies */
    OP_X87, OP_MMX, OP_VEC,
    N_INSN_OPS
};

/* Where the operands are. "rm" is a register (INSN_MEM clear) or memory (INSN_MEM set). */
enum insn_form {
    F_NONE, F_RM, F_RM_R, F_R_RM, F_RM_I, F_R_RM_I, F_RM_R_I, F_RM_R_CL, F_RM_1, F_RM_CL,
    F_J,        /* imm = displacement from the next instruction */
    F_I, F_FAR, /* imm = offset | (uint64_t)selector << 32 */
    F_VEX,      /* reg, vvvv, rm as row->ops says */
};
/*
 * Short encodings are normalised: AL/eAX,imm is F_RM_I with rm = 0; opcode+r is F_RM (rm = r); xchg rAX,r is F_RM_R
 * (rm = r, reg = 0); mov r,imm is F_RM_I; moffs is F_R_RM/F_RM_R with INSN_MEM | INSN_MOFFS and the address in imm.
 */

enum insn_flag {
    INSN_MEM = 1 << 0,
    INSN_LOCK = 1 << 1,         /* valid LOCK prefix (otherwise OP_ILLEGAL) */
    INSN_REP = 1 << 2,          /* F3, only kept where it repeats or selects nothing else */
    INSN_REPNE = 1 << 3,
    INSN_MOFFS = 1 << 4,
    INSN_VEX = 1 << 5,
    INSN_W = 1 << 6,            /* REX.W or VEX.W */
    INSN_L = 1 << 7,            /* VEX.L: 256 bit */
};

enum { INSN_REG_NONE = 31, INSN_REG_RIP = 30, INSN_AH = 16 /* 16..19: ah ch dh bh */ };
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, N_SEGS };

struct insn {
    uint64_t imm;               /* widened as the instruction does and cut to opsize, zero above; displacements of F_J are
                                   sign-extended to 64 bits; PUSH imm8 is sign-extended to opsize */
    int32_t disp;
    uint16_t row;               /* index into insn_rows */
    uint8_t len;                /* 1..15 */
    uint8_t flags;              /* enum insn_flag */
    uint8_t form : 4;           /* enum insn_form */
    uint8_t opsize : 2;         /* operand: 0..3 = 1, 2, 4, 8 bytes */
    uint8_t asize : 2;          /* address size: 1, 2, 3 = 16, 32, 64 bits */
    uint8_t seg : 3;            /* effective segment of the memory operand (default DS/SS applied, overrides resolved;
                                   in 64-bit mode only FS and GS survive as overrides, others give the default) */
    uint8_t ssize : 2;          /* source size for MOVZX/MOVSX/CRC32; else opsize */
    uint8_t scale : 2;
    uint8_t seg_override : 1;
    uint8_t cc : 4;             /* condition, or segment for LDSEG */
    uint8_t n_legacy : 4;       /* prefix bytes before REX/VEX/opcode, REX not counted */
    uint8_t reg;                /* ModRM.reg + REX.R; byte registers ah..bh are INSN_AH.. */
    uint8_t rm;                 /* register form: ModRM.rm + REX.B */
    uint8_t base;               /* memory form: 0..15, INSN_REG_RIP, INSN_REG_NONE */
    uint8_t index;              /* 0..15 or INSN_REG_NONE; VSIB: vector register */
};
_Static_assert(sizeof(struct insn) == 24, "a decoded instruction is 24 bytes");
/* vvvv of VEX forms shares the displacement-free byte: */
static inline unsigned insn_vvvv(const struct insn *i)
{
    return i->cc;               /* VEX instructions have no condition */
}

/* CPUID feature a row needs; the guest's model has a bit for each (x86/cpuid.h). */
enum insn_feat {
    FEAT_BASE, FEAT_FPU, FEAT_TSC, FEAT_MSR, FEAT_CX8, FEAT_SEP, FEAT_CMOV, FEAT_CLFSH, FEAT_MMX, FEAT_FXSR, FEAT_SSE, FEAT_SSE2,
    FEAT_SSE3, FEAT_PCLMUL, FEAT_MONITOR, FEAT_SSSE3, FEAT_FMA, FEAT_CX16, FEAT_SSE41, FEAT_SSE42, FEAT_MOVBE, FEAT_POPCNT,
    FEAT_AES, FEAT_XSAVE, FEAT_AVX, FEAT_F16C, FEAT_RDRAND, FEAT_FSGSBASE, FEAT_BMI1, FEAT_AVX2, FEAT_SMEP, FEAT_BMI2,
    FEAT_INVPCID, FEAT_RDSEED, FEAT_ADX, FEAT_SMAP, FEAT_CLFLUSHOPT, FEAT_CLWB, FEAT_SHA, FEAT_UMIP, FEAT_PKU, FEAT_RDPID,
    FEAT_GFNI, FEAT_VAES, FEAT_VPCLMUL, FEAT_SYSCALL, FEAT_RDTSCP, FEAT_LM, FEAT_LAHF64, FEAT_LZCNT, FEAT_SSE4A, FEAT_PREFETCHW,
    FEAT_XSAVEOPT, FEAT_XSAVEC, FEAT_XSAVES, FEAT_MOVDIRI, FEAT_CLZERO, FEAT_NOPL,
    N_FEATS
};

/* Operands of OP_VEC/OP_MMX/OP_X87 and BMI rows, for native copies and for coverage. */
enum opnd_kind { K_NONE, K_GPR, K_XMM /* xmm or ymm */, K_MM, K_MEM_ONLY, K_ST };
struct opnd {
    uint8_t kind : 4;           /* enum opnd_kind; rm: kind when it is a register */
    uint8_t read : 1, write : 1;
};
enum vec_order { VO_NONE, VO_128, VO_256 };

/* Status flags as a byte mask for flags_* below. */
enum { FL_CF = 1, FL_PF = 2, FL_AF = 4, FL_ZF = 8, FL_SF = 16, FL_OF = 32, FL_DF = 64, FL_ALL = 63 };

struct insn_row {
    const char *name;           /* lower-case mnemonic */
    uint16_t op;                /* enum insn_op */
    uint8_t feat;               /* enum insn_feat */
    uint8_t attr;               /* enum row_attr */
    /*
     * Status flags read; written (also undefined ones); left undefined. Shifts and rotates write nothing when the count
     * is 0, REP CMPS/SCAS nothing when rCX is 0: for them "written" does not mean "killed".
     */
    uint8_t flags_r, flags_w, flags_u;
    uint8_t mem_size;           /* vector rows: bytes of the memory operand; 0: by opsize; MEM_VL: 16 or 32 by VEX.L;
                                   MEM_VL2/4/8: half, quarter, eighth of that */
    struct opnd reg, vvvv, rm;  /* vector and BMI rows */
    uint8_t map, pp, opcode;    /* where it is: map 0 (one byte), 1 (0F), 2 (0F38), 3 (0F3A); pp 0 none 1 66 2 F3 3 F2 */
    uint8_t ext;                /* ModRM.reg 0..7 when the row is one of a group, else 0xff */
    uint8_t rmx;                /* ModRM.rm + 1 when register forms have one row each (0F 01, x87 constants); 0: any */
    uint8_t form, imm, size;    /* enum insn_form, row_imm, row_size */
    uint8_t feat2;              /* a second feature needed */
    uint8_t implicit;           /* vector rows: IMP_* */
    uint32_t enc;               /* enum row_enc */
};
/*
 * mem_size values that depend on the instruction; insn_mem_size() resolves them. 0 is the source size (ssize, which is
 * opsize except for MOVZX/MOVSX/CRC32). MEM_FAR: offset and selector. MEM_DTR: limit and base, 6 or 10 bytes.
 * MEM_X87ENV: 14 or 28 bytes, MEM_X87SAVE: 94 or 108 bytes, the smaller with a 16-bit operand size. MEM_XSAVE: the
 * area's size follows XCR0, the decoder does not know it. MEM_NO: an address without an access (LEA, NOP, INVLPG).
 */
enum {
    MEM_VL = 0x80, MEM_VL2, MEM_VL4, MEM_VL8, MEM_FAR, MEM_PAIR /* twice opsize */, MEM_DTR, MEM_X87ENV, MEM_X87SAVE,
    MEM_FX512, MEM_XSAVE, MEM_NO
};
/* Registers a vector row uses without naming them: insn_row.implicit. */
enum { IMP_R_XMM0 = 1, IMP_W_XMM0 = 2, IMP_R_AX_DX = 4, IMP_W_CX = 8, IMP_W_AX = 16 };
/* insn_row.imm: which immediate follows. insn_row.size: how prefixes choose opsize. insn_row.enc: the rest of the match. */
enum row_imm {
    IMM_NONE, IMM_8 /* zero-extended */, IMM_S8 /* sign-extended to opsize */, IMM_Z /* 16 or 32 bits, sign-extended */,
    IMM_V /* full opsize */, IMM_16, IMM_ENTER, IMM_FAR, IMM_MOFFS, IMM_J8, IMM_JZ,
    IMM_IS4 /* register in bits 7:4 */, IMM_8_8 /* EXTRQ, INSERTQ: length | index << 8 */
};
enum row_size {
    SZ_B, SZ_W, SZ_D,           /* always 1, 2, 4 bytes */
    SZ_V,                       /* 2, 4 or 8 by prefix and mode */
    SZ_Z,                       /* as SZ_V but at most 4 */
    SZ_Y,                       /* 4, or 8 with W in 64-bit mode; 66 means nothing or selects the row */
    SZ_D64,                     /* as SZ_V, but 8 by default in 64-bit mode */
    SZ_F64,                     /* as SZ_D64, and 66 is ignored there (near branches as Intel has them) */
    SZ_N,                       /* 8 in 64-bit mode, 4 elsewhere */
};
enum row_enc {
    RE_MODRM = 1 << 0, RE_REG = 1 << 1 /* mod 3 only */, RE_MEM = 1 << 2 /* mod 0..2 only */,
    RE_MODANY = 1 << 3,         /* mod is ignored: always a register */
    RE_LOCK = 1 << 4,           /* LOCK allowed with a memory operand */
    RE_OPREG = 1 << 5,          /* 8 opcodes, the low three bits are a register */
    RE_CC = 1 << 6,             /* 16 opcodes, the low four bits are a condition */
    RE_PP = 1 << 7,             /* pp must match; without it F2, F3 and 66 do not select the row */
    RE_NOF = 1 << 8,            /* no F2 or F3, 66 is free */
    RE_VEX = 1 << 9, RE_W0 = 1 << 10, RE_W1 = 1 << 11, RE_L0 = 1 << 12, RE_L1 = 1 << 13, RE_VSIB = 1 << 14,
    RE_SRC8 = 1 << 15, RE_SRC16 = 1 << 16, RE_SRC32 = 1 << 17, RE_SRCV = 1 << 18,   /* ssize; SRCV: as SZ_V would have it */
    RE_SEGREG = 1 << 19,        /* ModRM.reg is a segment register */
    RE_CRREG = 1 << 20, RE_DRREG = 1 << 21,             /* ModRM.reg is a control or debug register */
    RE_NOB = 1 << 22,           /* not with REX.B */
};
enum row_attr {
    RA_CPL0 = 1,                /* #GP(0) unless CPL 0 (checked by sys/) */
    RA_NO64 = 2,                /* #UD in 64-bit mode (decoder answers OP_ILLEGAL) */
    RA_ALIGN = 4,               /* memory operand must be aligned to its size, else #GP(0) (legacy SSE) */
    RA_ONLY64 = 8,
    RA_NOREAL = 16,             /* #UD in real and virtual-8086 mode */
    RA_FPEXC = 32,              /* may raise an SSE or AVX numeric exception (MXCSR) */
    RA_BLOCK_END = 64,          /* control transfer, or changes what a block's decoding depends on */
    RA_NOWAIT = 128,            /* x87: does not check pending exceptions */
};

extern const struct insn_row insn_rows[];
extern const unsigned n_insn_rows;

enum insn_mode { INSN_MODE_16, INSN_MODE_32, INSN_MODE_64 };
enum decode_result {
    DECODE_OK,
    DECODE_SHORT,               /* more bytes are needed than n: a page ends inside the instruction */
    DECODE_LONG,                /* over 15 bytes: #GP(0) */
    DECODE_ILLEGAL,             /* #UD; out->len is what was looked at */
};
/*
 * Decodes one instruction from n bytes (n >= 1; at most 15 are looked at). Never reads past what the instruction needs.
 * feats: bit per enum insn_feat that the guest has; a row whose feature is absent is DECODE_ILLEGAL (or the older
 * meaning of the same bytes where there is one: LZCNT -> BSR, TZCNT -> BSF). Pure; any thread.
 */
enum decode_result insn_decode(const uint8_t *bytes, size_t n, enum insn_mode mode, uint64_t feats, struct insn *out);

static inline const struct insn_row *insn_row(const struct insn *i)
{
    return &insn_rows[i->row];
}

/*
 * Bytes of the memory operand, 0 when there is none or it is not accessed (MEM_NO), or the decoder cannot know
 * (MEM_XSAVE). String instructions and PUSH/POP's stack side are not memory operands here.
 */
unsigned insn_mem_size(const struct insn *i);

/* Text of one instruction for logs, without operands' symbols: "add [rax+0x8], ecx". Returns buf. */
const char *insn_format(const struct insn *i, enum insn_mode mode, uint64_t rip, char *buf, size_t size);

#endif
