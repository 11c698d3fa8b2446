/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The software CPU against the CPU it runs on. A case is one to six instructions with a full register state, run once by
 * the host natively and once by the interpreter (and native/), from the same bytes at the same linear address on equal
 * memory; everything an unprivileged program can see afterwards must be equal.
 *
 * A case is a function of (seed, number): memory starts from the same contents each time, so any case can be run alone.
 */
#ifndef LODGE_TEST_HOSTDIFF_H
#define LODGE_TEST_HOSTDIFF_H

#include "base/bytes.h"
#include "engine/soft/cpu.h"

/* Linear addresses, equal on host and guest. Below 2 GiB: every address form reaches them, and 32-bit code too. */
enum {
    PG = 4096,
    AR = 0x10000000, AR_PAGES = 7,      /* data */
    AR_HOLE1 = AR + 2 * PG, AR_RO = AR + 3 * PG, AR_IMAGES = AR + 4 * PG /* XSAVE and FXSAVE areas, 1 KiB apart */,
    AR_STACK = AR + 5 * PG, AR_HOLE2 = AR + 6 * PG,
    CODE = 0x20000000,                  /* one page, read and execute; int3 wherever no case is */
    CODE_EXIT32 = CODE + 16,            /* 32-bit code leaves through here */
    TABLES_GPA = 0x1000,
    /* LDT segments, index << 3 | 7: 16-bit code at CODE, data at AR with 16- and 32-bit stacks, byte limit */
    SEL_CODE16 = 7, SEL_DATA16 = 15, SEL_DATA32 = 23, SEG_LIMIT = 6 * PG - 1,
};
/* What is mapped, page by page from AR: R, W, or a hole. */
static inline bool page_mapped(unsigned page)
{
    return page != 2 && page != 6;
}
static inline bool page_writable(unsigned page)
{
    return page_mapped(page) && page != 3;
}

enum { XS_SIZE = 832, MAX_SEQ = 6, MAX_PATCHES = 4 };

struct cpu_image {
    uint64_t r[16];
    uint64_t rip, rflags, fs, gs;       /* rip is linear */
    uint8_t xsave[XS_SIZE] __attribute__((aligned(64)));
};

struct test_case {
    uint64_t seed, number;
    unsigned bits;              /* 64, 32 or 16 */
    bool segs;                  /* DS, ES and SS are LDT segments with base AR and limit SEG_LIMIT; always with 16 bits */
    uint8_t code[MAX_SEQ * 15];
    unsigned len, n;
    struct insn insn[MAX_SEQ];  /* as decoded */
    uint8_t undefined[MAX_SEQ]; /* FL_*: status flags left undefined after each */
    struct {
        uint64_t lin, val;      /* 8 bytes put into writable memory first */
    } patch[MAX_PATCHES];
    unsigned n_patches;
    struct cpu_image in;
};

struct outcome {
    struct cpu_image s;
    int vector;                 /* -1: none; then s.rip is the next instruction's address */
    uint32_t error;
    uint64_t cr2;
};

/* Contents of [AR, AR + AR_PAGES * PG) at the start of every case; holes are zero. */
extern uint8_t pristine[AR_PAGES * PG];

/* gen.c */
void gen_init(uint64_t feats);
bool gen_row_eligible(unsigned row, unsigned bits);
void gen_pristine(void);
void gen_case(struct test_case *t, uint64_t seed, uint64_t number, int only_row, unsigned bits, bool segs);

/* host.c */
bool host_init(void);
bool host_has_32(void), host_has_ldt(void);
void host_run(const struct test_case *t, struct outcome *o);
uint8_t *host_mem(void);        /* the arena itself */
/* Writes the case and the jump behind it into a copy of the code page; returns the bytes written at t->in.rip. */
/* The case's bytes and behind them a jump out of it (at most EXIT_SIZE bytes). Returns the length of both. */
enum { EXIT_SIZE = 14 };
unsigned put_code(const struct test_case *t, uint8_t *page);
void put_code_exit(uint8_t *page);

/* guest.c */
void guest_init(uint64_t feats);
void guest_run(const struct test_case *t, struct outcome *o);
uint8_t *guest_mem(void);
uint64_t host_feats(void);

#endif
