/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Integer instructions against the host CPU: every row of the opcode tables that interp/ runs without sys/, in 64-bit code,
 * with random prefixes, registers, operands and edge values. The same bytes run natively on the same registers, flags and
 * RAM; registers, flags (undefined ones too), RAM, the way taken and the fault must be equal. What means the same in 16- and
 * 32-bit code must then do the same there, flat and with segment checks.
 *   test-host [cases a row] [seed]
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "fixture.h"

enum { TAKEN_OFF = 0x40, INSN_OFF = 0x200, EXIT_FALL = 0x400, EXIT_TAKEN = 0x600, DATA_OFF = 0x1000 };

struct native {
    uint64_t in[16], in_flags, out[16], out_flags, host_sp, taken;
};
static uint8_t *const code = (uint8_t *)(uintptr_t)(CODE_AT - INSN_OFF);
#define NATIVE ((struct native *)(code + DATA_OFF))
static sigjmp_buf native_fault;
static volatile int native_signal;

static uint64_t rng_state = 1;

static uint64_t rnd(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state * UINT64_C(0x2545f4914f6cdd1d);
}

static unsigned below(unsigned n)
{
    return (unsigned)((rnd() >> 32) % n);
}

static uint64_t rnd_value(void)
{
    static const uint64_t edges[] = {
        0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000,
        INT64_MAX, UINT64_C(1) << 63, UINT64_MAX, 31, 32, 33, 63, 64,
    };
    switch (below(4)) {
    case 0: return edges[below(ARRAY_SIZE(edges))];
    case 1: return edges[below(ARRAY_SIZE(edges))] + below(5) - 2;
    case 2: return rnd() >> below(64);
    default: return rnd();
    }
}

/* --- the native side --- */

static uint8_t *emit_abs(uint8_t *p, unsigned op, unsigned reg, const void *addr)
{
    uint32_t a = (uint32_t)(uintptr_t)addr;
    *p++ = (uint8_t)(0x48 | (reg >> 3) << 2);
    *p++ = (uint8_t)op;
    *p++ = (uint8_t)(0x04 | (reg & 7) << 3);
    *p++ = 0x25;
    memcpy(p, &a, 4);
    return p + 4;
}

static uint8_t *emit_jmp(uint8_t *p, const uint8_t *to)
{
    int32_t rel = (int32_t)(to - (p + 5));
    *p++ = 0xe9;
    memcpy(p, &rel, 4);
    return p + 4;
}

static void emit_exit(uint8_t *p, bool taken)
{
    static const uint8_t pops[] = { 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3 };
    uint32_t v = taken;
    for (unsigned r = 0; r < 16; r++) {
        p = emit_abs(p, 0x89, r, &NATIVE->out[r]);
    }
    p = emit_abs(p, 0x8b, R_SP, &NATIVE->host_sp);
    *p++ = 0x9c;                                        /* pushfq; pop [out_flags]; cld */
    p = emit_abs(p, 0x8f, 0, &NATIVE->out_flags);
    *p++ = 0xfc;
    p = emit_abs(p, 0xc7, 0, &NATIVE->taken);
    memcpy(p, &v, 4);
    p += 4;
    memcpy(p, pops, sizeof(pops));
}

static void native_init(void)
{
    static const uint8_t pushes[] = { 0xf3, 0x0f, 0x1e, 0xfa, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57 };
    void *m = mmap(code, 2 * PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    assert_ptr_equal(m, code);
    uint8_t *p = code;
    memcpy(p, pushes, sizeof(pushes));
    p = emit_abs(p + sizeof(pushes), 0x89, R_SP, &NATIVE->host_sp);
    p = emit_abs(p, 0xff, 6, &NATIVE->in_flags);        /* push [in_flags]; popfq */
    *p++ = 0x9d;
    for (unsigned r = 0; r < 16; r++) {
        p = r == R_SP ? p : emit_abs(p, 0x8b, r, &NATIVE->in[r]);
    }
    p = emit_abs(p, 0x8b, R_SP, &NATIVE->in[R_SP]);
    emit_jmp(p, code + INSN_OFF);
    emit_exit(code + EXIT_FALL, false);
    emit_exit(code + EXIT_TAKEN, true);
}

static void on_signal(int sig)
{
    native_signal = sig;
    siglongjmp(native_fault, 1);
}

static void catch_signals(void)
{
    static uint8_t stack[65536];
    static const int sigs[] = { SIGFPE, SIGSEGV, SIGILL, SIGBUS };
    stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };
    sigaltstack(&ss, NULL);
    for (unsigned n = 0; n < ARRAY_SIZE(sigs); n++) {
        struct sigaction sa = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK | SA_NODEFER };
        sigaction(sigs[n], &sa, NULL);
    }
}

/* 0, or the signal the instruction raised. */
static int native_run(const uint8_t *bytes, unsigned len)
{
    memset(code + INSN_OFF, 0x90, 0x100);
    memcpy(code + INSN_OFF, bytes, len);
    emit_jmp(code + INSN_OFF + len, code + EXIT_FALL);
    emit_jmp(code + INSN_OFF + TAKEN_OFF, code + EXIT_TAKEN);
    native_signal = 0;
    if (!sigsetjmp(native_fault, 1)) {
        ((void (*)(void))code)();
    }
    __asm__ volatile("cld");
    return native_signal;
}

/* --- cases --- */

struct test_case {
    uint8_t bytes[32];
    unsigned disp_at;           /* of a disp32 that is absolute or RIP-relative; 0: none */
    bool rip_rel;
    struct insn i;
    uint64_t r[16];
    uint64_t flags;
};

static bool op_is_tested(unsigned op)
{
    switch (op) {
    case OP_ADD ... OP_RET:
    case OP_LOOP ... OP_POP:
    case OP_ENTER ... OP_OUTS:
    case OP_NOP ... OP_STD: return op != OP_INS && op != OP_OUTS && op != OP_IN && op != OP_OUT;
    case OP_ENDBR: return true;
    default: return false;
    }
}

static unsigned put_modrm(struct test_case *t, unsigned at, const struct insn_row *row, bool a32)
{
    unsigned mod = row->enc & RE_REG ? 3 : row->enc & RE_MEM ? below(3) : below(4);
    unsigned rm = row->rmx ? row->rmx - 1u : below(8);
    unsigned reg = row->ext != 0xff ? row->ext : below(8);
    t->bytes[at++] = (uint8_t)(mod << 6 | reg << 3 | rm);
    if (mod == 3) {
        return at;
    }
    uint8_t sib = (uint8_t)rnd();
    if (rm == 4) {
        t->bytes[at++] = sib;
    }
    if (mod == 0 && (rm == 5 || (rm == 4 && (sib & 7) == 5))) {
        t->disp_at = at;
        t->rip_rel = rm == 5;
        return at + 4;
    }
    return at + (mod == 1 ? 1 : mod == 2 ? 4 : 0);
}

/* Random bytes for `row`; whether they mean it is for the decoder to say. */
static void make_bytes(struct test_case *t, const struct insn_row *row)
{
    unsigned at = 0;
    bool a32 = below(8) == 0;
    memset(t, 0, sizeof(*t));
    for (unsigned n = 0; n < sizeof(t->bytes); n++) {
        t->bytes[n] = (uint8_t)rnd_value();
    }
    if (a32) {
        t->bytes[at++] = 0x67;
    }
    if (row->enc & RE_VEX) {
        t->bytes[at++] = 0xc4;
        t->bytes[at++] = (uint8_t)((rnd() & 0xe0) | row->map);
        t->bytes[at++] = (uint8_t)((rnd() & 0xf8 & (below(2) ? 0xff : 0x7f)) | row->pp);
        if (row->vvvv.kind == K_NONE) {
            t->bytes[at - 1] |= 0x78;
        }
        t->bytes[at++] = row->opcode;
        put_modrm(t, at, row, a32);
        return;
    }
    bool string = row->op >= OP_MOVS && row->op <= OP_SCAS;
    unsigned selects = row->pp == 2 ? 0xf3 : row->pp == 3 ? 0xf2 : 0;
    unsigned rep = row->enc & RE_PP ? selects : string && below(2) ? 0xf2 + below(2) : 0;
    /* 66 on near branches is ignored by Intel and cuts RIP on AMD; the decoder has Intel's rule */
    bool word = row->enc & RE_PP ? row->pp == 1 : row->size != SZ_F64 && below(4) == 0;
    if (word) {
        t->bytes[at++] = 0x66;
    }
    if (row->enc & RE_LOCK && below(3) == 0) {
        t->bytes[at++] = 0xf0;
    }
    if (rep) {
        t->bytes[at++] = (uint8_t)rep;
    }
    if (below(3)) {
        t->bytes[at++] = (uint8_t)(0x40 | (rnd() & 15));
    }
    if (row->map) {
        t->bytes[at++] = 0x0f;
    }
    if (row->map >= 2) {
        t->bytes[at++] = row->map == 2 ? 0x38 : 0x3a;
    }
    t->bytes[at++] = (uint8_t)(row->opcode + (row->enc & RE_OPREG ? below(8) : row->enc & RE_CC ? below(16) : 0));
    if (row->enc & RE_MODRM) {
        put_modrm(t, at, row, a32);
    }
}

/* An address in RAM with room on both sides; often near the page edges, in and out of the TLB's pages. */
static uint64_t rnd_addr(void)
{
    uint64_t page = RAM_AT + (2 + below(5)) * PAGE_SIZE;
    return below(3) ? page + below(PAGE_SIZE) : below(2) ? page - below(20) : (page + below(PAGE_SIZE)) & ~15ull;
}

static void put32(uint8_t *p, uint64_t v)
{
    uint32_t w = (uint32_t)v;
    memcpy(p, &w, 4);
}

/* Points the memory operand into RAM. False: this form cannot. */
static bool aim_operand(struct test_case *t)
{
    struct insn *i = &t->i;
    uint64_t to = rnd_addr(), garbage = i->asize == 2 ? rnd() << 32 : 0;
    if (insn_row(i)->op == OP_CMPXCHG8B && i->opsize == 3 && below(8)) {
        to &= ~15ull;
    }
    if (i->flags & INSN_MOFFS) {
        unsigned n = 1u << i->asize;
        memcpy(t->bytes + i->len - n, &to, n);
        return true;
    }
    if (t->disp_at) {
        if (i->base == INSN_REG_RIP) {
            put32(t->bytes + t->disp_at, to - (CODE_AT + i->len));
            return true;
        }
        if (i->index == INSN_REG_NONE) {
            put32(t->bytes + t->disp_at, to);
            return true;
        }
        put32(t->bytes + t->disp_at, to - (t->r[i->index] << i->scale));
        /* reaches only when the index is small */
        t->r[i->index] = below(0x1000);
        put32(t->bytes + t->disp_at, to - (t->r[i->index] << i->scale));
        return true;
    }
    if (i->base == i->index) {
        return false;
    }
    uint64_t idx = i->index == INSN_REG_NONE ? 0 : t->r[i->index] << i->scale;
    t->r[i->base] = to - idx - (uint64_t)(int64_t)i->disp;
    if (i->asize == 2) {
        t->r[i->base] = (uint32_t)t->r[i->base] | garbage;
    }
    return true;
}

/* Registers that an operation uses by itself. False: they collide with the address. */
static bool aim_implicit(struct test_case *t)
{
    struct insn *i = &t->i;
    bool mem = i->flags & INSN_MEM;
    switch (insn_row(i)->op) {
    case OP_BT ... OP_BTC:
        if (mem && i->form == F_RM_R) {
            if (i->reg == i->base || i->reg == i->index) {
                return false;
            }
            uint64_t off = (uint64_t)(int64_t)((int)below(16000) - 8000), keep = rnd();
            t->r[i->reg] = i->opsize == 3 ? off : i->opsize == 2 ? (uint32_t)off | keep << 32 : (uint16_t)off | keep << 16;
        }
        return true;
    case OP_XLAT: t->r[R_BX] = rnd_addr(); return true;
    case OP_MOVS ... OP_SCAS:
        t->r[R_SI] = rnd_addr();
        t->r[R_DI] = below(2) ? rnd_addr() : t->r[R_SI] + below(40) - 20;
        if (i->flags & (INSN_REP | INSN_REPNE)) {
            t->r[R_CX] = below(4) ? below(600) : below(3);
        }
        return true;
    case OP_DIV:
    case OP_IDIV:
        if (below(2)) {
            t->r[R_DX] = below(2) ? 0 : below(3) - 1;
        }
        if (below(2)) {
            t->r[R_AX] = (uint64_t)(int64_t)(int16_t)rnd() >> below(16);
        }
        return true;
    case OP_ENTER: t->bytes[i->len - 2] = 0; return true;       /* frame below 256 bytes */
    default: return true;
    }
}

static bool uses_stack(unsigned op)
{
    return (op >= OP_PUSH && op <= OP_LEAVE) || op == OP_CALL || op == OP_RET;
}

/* Branch targets lead to the second exit. */
static void aim_branch(struct test_case *t)
{
    struct insn *i = &t->i;
    uint64_t to = CODE_AT + TAKEN_OFF;
    unsigned op = insn_row(i)->op;
    if (i->form == F_J) {
        int32_t rel = (int32_t)(TAKEN_OFF - i->len);
        unsigned n = insn_row(i)->imm == IMM_J8 ? 1 : 4;
        memcpy(t->bytes + i->len - n, &rel, n);
    }
    if (op == OP_RET) {
        memcpy((void *)(uintptr_t)t->r[R_SP], &to, 8);
    }
    if ((op == OP_JMP || op == OP_CALL) && i->form == F_RM && !(i->flags & INSN_MEM)) {
        t->r[i->rm] = to;
    }
}

/* Branches through memory find the target all over RAM, at the operand's alignment. */
static void fill_ram(const struct test_case *t)
{
    unsigned op = insn_row(&t->i)->op;
    for (unsigned n = 0; n < RAM_SIZE; n += 8) {
        uint64_t v = rnd();
        memcpy(ram + n, &v, 8);
    }
    if (op >= OP_MOVS && op <= OP_SCAS && below(2)) {
        memset(ram, (int)rnd(), RAM_SIZE);       /* long matches */
    }
}

static bool make_case(struct test_case *t, unsigned row_nr)
{
    const struct insn_row *row = &insn_rows[row_nr];
    make_bytes(t, row);
    if (insn_decode(t->bytes, 15, INSN_MODE_64, UINT64_MAX, &t->i) != DECODE_OK || t->i.row != row_nr) {
        return false;
    }
    if (row->op == OP_PREFETCH || (row->op == OP_NOP && t->i.flags & INSN_MEM)) {
        return false;           /* no access: nothing to see, and newer CPUs give some of these a meaning */
    }
    for (unsigned n = 0; n < 16; n++) {
        t->r[n] = rnd_value();
    }
    t->r[R_SP] = rnd_addr();
    if (row->op == OP_ENTER || row->op == OP_LEAVE) {
        t->r[R_BP] = rnd_addr();
    }
    t->flags = X86_F1 | X86_IF | (rnd() & (X86_ARITH | X86_DF));
    fill_ram(t);
    /* rSP is set after the address when both want it: an address on rSP is as good a stack */
    if ((t->i.flags & INSN_MEM && row->op != OP_LEA && !aim_operand(t)) || !aim_implicit(t)) {
        return false;
    }
    if (uses_stack(row->op) && !range_ok(t->r[R_SP] - RAM_AT - 0x1000, 8, RAM_SIZE - 0x1000)) {
        return false;
    }
    aim_branch(t);
    struct insn again;
    if (insn_decode(t->bytes, 15, INSN_MODE_64, UINT64_MAX, &again) != DECODE_OK || again.len != t->i.len) {
        return false;
    }
    t->i = again;
    if ((row->op == OP_JMP || row->op == OP_CALL) && t->i.form == F_RM) {
        uint64_t to = CODE_AT + TAKEN_OFF;
        if (t->i.rm == R_SP && !(t->i.flags & INSN_MEM)) {
            return false;
        }
        if (t->i.flags & INSN_MEM) {
            const struct insn *i = &t->i;
            uint64_t b = i->base == INSN_REG_RIP ? CODE_AT + i->len : i->base == INSN_REG_NONE ? 0 : t->r[i->base];
            uint64_t x = i->index == INSN_REG_NONE ? 0 : t->r[i->index] << i->scale, ea = b + x + (uint64_t)(int64_t)i->disp;
            memcpy((void *)(uintptr_t)(i->asize == 2 ? (uint32_t)ea : ea), &to, 8);
        }
    }
    return true;
}

static int vector_of(int sig)
{
    return sig == SIGFPE ? EXC_DE : sig == SIGILL ? EXC_UD : EXC_GP;
}

static void report(const struct test_case *t, const char *what, uint64_t host, uint64_t soft)
{
    char text[128];
    fprintf(stderr, "%s: %s: host %#llx, interp %#llx\n ", insn_format(&t->i, INSN_MODE_64, CODE_AT, text, sizeof(text)), what,
            (unsigned long long)host, (unsigned long long)soft);
    for (unsigned n = 0; n < t->i.len; n++) {
        fprintf(stderr, " %02x", t->bytes[n]);
    }
    fprintf(stderr, "  flags %#llx\n ", (unsigned long long)t->flags);
    for (unsigned n = 0; n < 16; n++) {
        fprintf(stderr, " r%u=%llx", n, (unsigned long long)t->r[n]);
    }
    fprintf(stderr, "\n");
}

static uint8_t before[RAM_SIZE], after[RAM_SIZE];

static void load_case(const struct test_case *t, uint32_t mode, uint64_t reg_mask)
{
    fixture_reset(mode);
    memcpy(ram, before, RAM_SIZE);
    for (unsigned n = 0; n < 16; n++) {
        cpu->r[n] = t->r[n] & reg_mask;
    }
    cpu->af = flags_pack(t->flags);
    cpu->st.rflags = t->flags & ~(uint64_t)X86_ARITH;
    cpu->df_step = t->flags & X86_DF ? -1 : 1;
}

static bool equal_to_host(const struct test_case *t, uint64_t reg_mask)
{
    for (unsigned n = 0; n < 16; n++) {
        if ((NATIVE->out[n] & reg_mask) != cpu->r[n]) {
            char what[8];
            snprintf(what, sizeof(what), "r%u", n);
            report(t, what, NATIVE->out[n] & reg_mask, cpu->r[n]);
            return false;
        }
    }
    uint64_t mask = X86_ARITH | X86_DF, flags = cpu_rflags(cpu);
    if ((NATIVE->out_flags ^ flags) & mask) {
        report(t, "flags", NATIVE->out_flags & mask, flags & mask);
        return false;
    }
    for (unsigned n = 0; n < RAM_SIZE; n++) {
        if (ram[n] != after[n]) {
            report(t, "RAM", after[n], ram[n]);
            fprintf(stderr, "  at %#llx\n", (unsigned long long)(RAM_AT + n));
            return false;
        }
    }
    return true;
}

static unsigned other_mode_cases;

/* The same bytes, or with the size prefixes turned round, in another mode; the host's result is there already. */
static bool other_mode_ok(const struct test_case *t, uint32_t mode)
{
    uint8_t bytes[32] = { 0x67 };
    unsigned from = 0, to = 0;
    struct insn i;
    if ((mode & MODE_SIZE_MASK) == INSN_MODE_16) {
        from = t->bytes[0] == 0x66;
        to = 1;
        if (!from) {
            bytes[to++] = 0x66;
        }
    }
    memcpy(bytes + to, t->bytes + from, sizeof(bytes) - to - from);
    const struct insn *j = &t->i;
    if (insn_decode(bytes, 15, mode & MODE_SIZE_MASK, UINT64_MAX, &i) != DECODE_OK || i.row != j->row || i.asize != 2 ||
        i.opsize != j->opsize || i.ssize != j->ssize || i.reg != j->reg || i.rm != j->rm || i.base != j->base ||
        i.index != j->index || i.cc != j->cc || i.imm != j->imm) {
        return true;
    }
    load_case(t, mode, UINT32_MAX);
    other_mode_cases++;
    if (!fixture_run(bytes, 15)) {
        report(t, "fault in another mode", 0x100, cpu->exc_vector);
        return false;
    }
    return equal_to_host(t, UINT32_MAX);
}

static bool other_modes_ok(const struct test_case *t)
{
    const struct insn *i = &t->i;
    unsigned op = insn_row(i)->op;
    bool stack = (op >= OP_PUSH && op <= OP_LEAVE) || (op >= OP_JCC && op <= OP_JCXZ);
    if (stack || i->opsize == 3 || i->ssize == 3 || i->asize == 2 || i->base == INSN_REG_RIP || i->flags & INSN_W) {
        return true;
    }
    return other_mode_ok(t, INSN_MODE_32 | MODE_FLAT | MODE_SS32 | MODE_PROT) &&
           other_mode_ok(t, INSN_MODE_32 | MODE_SS32 | MODE_PROT) && other_mode_ok(t, INSN_MODE_16 | MODE_SS32 | MODE_PROT);
}

/* Runs one case on both. -1: the host has not got the instruction; 0 equal, 1 different. */
static int compare(const struct test_case *t)
{
    memcpy(before, ram, RAM_SIZE);
    memcpy(NATIVE->in, t->r, sizeof(t->r));
    NATIVE->in_flags = t->flags;
    int sig = native_run(t->bytes, t->i.len);
    if (sig == SIGILL) {
        memcpy(ram, before, RAM_SIZE);
        return -1;
    }
    memcpy(after, ram, RAM_SIZE);
    load_case(t, INSN_MODE_64 | MODE_FLAT | MODE_PROT, UINT64_MAX);
    bool ok = fixture_run(t->bytes, 15);
    if (!ok || sig) {
        if (ok || !sig) {
            report(t, "fault", sig ? vector_of(sig) : 0x100, ok ? 0x100 : cpu->exc_vector);
            return 1;
        }
        bool same = vector_of(sig) == (cpu->exc_vector == EXC_PF || cpu->exc_vector == EXC_SS ? EXC_GP : cpu->exc_vector);
        if (!same) {
            report(t, "vector", vector_of(sig), cpu->exc_vector);
        }
        return !same;
    }
    if (NATIVE->taken != (cpu->rip == CODE_AT + TAKEN_OFF) || (!NATIVE->taken && cpu->rip != CODE_AT + t->i.len)) {
        report(t, "way", NATIVE->taken, cpu->rip);
        return 1;
    }
    return !(equal_to_host(t, UINT64_MAX) && other_modes_ok(t));
}

static unsigned cases_a_row = 200;

static void test_every_integer_row_does_what_the_host_does(void **unused)
{
    unsigned rows = 0, cases = 0, bad = 0, absent = 0, missed = 0;
    fixture_init();
    native_init();
    catch_signals();
    for (unsigned row = 0; row < n_insn_rows; row++) {
        if (!op_is_tested(insn_rows[row].op) || insn_rows[row].attr & RA_NO64) {
            continue;
        }
        unsigned done = 0, wrong = 0;
        for (unsigned tries = 0; done < cases_a_row && tries < cases_a_row * 20 && wrong < 3; tries++) {
            struct test_case t;
            if (!make_case(&t, row)) {
                continue;
            }
            int r = compare(&t);
            if (r < 0) {
                printf("%s: not on this host\n", insn_rows[row].name);
                absent++;
                break;
            }
            wrong += r;
            done++;
        }
        if (!done && insn_rows[row].op != OP_PREFETCH && insn_rows[row].op != OP_NOP) {
            printf("%s (%02x): no case\n", insn_rows[row].name, insn_rows[row].opcode);
            missed++;
        }
        bad += wrong;
        rows++;
        cases += done;
    }
    printf("%u rows, %u cases, and %u in other modes; %u rows absent from the host or never decoded\n", rows, cases,
           other_mode_cases, absent + missed);
    assert_int_equal(bad, 0);
    assert_true(rows > 250);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_integer_row_does_what_the_host_does) };
    if (argc > 1) {
        cases_a_row = (unsigned)strtoul(argv[1], NULL, 10);
    }
    rng_state = argc > 2 ? strtoull(argv[2], NULL, 10) | 1 : 88172645463325252ull;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
