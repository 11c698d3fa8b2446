/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The opcode table backwards: bytes for a row, so that tests can visit every instruction there is. */
#ifndef LODGE_TEST_DECODE_ENCODE_H
#define LODGE_TEST_DECODE_ENCODE_H

#include "engine/soft/decode/insn.h"

struct encode_wish {
    enum insn_mode mode;
    bool mem;                   /* a memory operand, if the row can have one */
    bool wide;                  /* REX.W or VEX.W, where the row leaves it free */
    bool word;                  /* 66, where the row leaves it free */
    bool ymm;                   /* VEX.L, where the row leaves it free */
    uint8_t reg, vvvv, rm;      /* register numbers; 8 and up only in 64-bit mode */
    uint8_t base;               /* memory: [base+disp32]; in 16-bit mode [disp16] */
    int32_t disp;
    uint64_t imm;               /* cut to what the row takes; IS4: the register */
};

/*
 * Writes the encoding of `row` that `wish` describes, at most 15 bytes. Returns its length, or 0 when the row has no such
 * form in that mode. Fixed parts of the row (ext, rmx, W, L) win over the wish.
 */
size_t row_encode(const struct insn_row *row, const struct encode_wish *wish, uint8_t out[15]);

#endif
