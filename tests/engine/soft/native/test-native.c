/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Native copies without the rest of the engine: linear addresses are host addresses, raises land in the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine/soft/native/native-int.h"

static jmp_buf raised_to;
static unsigned raised_vector;
static bool cross;              /* memory behaves as if every access crossed a page */

void cpu_raise(struct soft_cpu *c, unsigned vector)
{
    raised_vector = vector;
    longjmp(raised_to, 1);
}
void cpu_raise_err(struct soft_cpu *c, unsigned vector, uint32_t error)
{
    cpu_raise(c, vector);
}
void sys_fpu_check(struct soft_cpu *c, const struct insn *i)
{
    cpu_raise(c, EXC_NM);
}
uint64_t sys_seg_lin(struct soft_cpu *c, unsigned seg, uint64_t off, unsigned size, bool write)
{
    return off;
}
uint64_t cpu_insn_rip(const struct soft_cpu *c)
{
    return 0x1234;
}
uint64_t mmu_load_slow(struct soft_cpu *c, uint64_t lin, unsigned size)
{
    uint64_t v = 0;
    memcpy(&v, (void *)lin, size);
    return v;
}
void mmu_store_slow(struct soft_cpu *c, uint64_t lin, unsigned size, uint64_t val)
{
    memcpy((void *)lin, &val, size);
}
void *mmu_ptr_slow(struct soft_cpu *c, uint64_t lin, unsigned size, enum mmu_access acc)
{
    return cross && size > 1 ? NULL : (void *)lin;
}
void mmu_read_buf(struct soft_cpu *c, uint64_t lin, void *buf, unsigned len)
{
    memcpy(buf, (void *)lin, len);
}
void mmu_write_buf(struct soft_cpu *c, uint64_t lin, const void *buf, unsigned len)
{
    memcpy((void *)lin, buf, len);
}

static struct soft_vm vm;
static struct soft_cpu *cpu;
static uint8_t data[1024] __attribute__((aligned(64)));

static int setup(void **unused)
{
    struct err err = ERR_INIT;
    cpu = aligned_alloc(64, (sizeof(*cpu) + 63) & ~(size_t)63);
    memset(cpu, 0, sizeof(*cpu));
    for (unsigned t = 0; t < N_TLBS; t++) {
        for (unsigned i = 0; i < TLB_SIZE; i++) {
            cpu->tlbs[t][i].tag_r = cpu->tlbs[t][i].tag_w = TLB_INVALID(i);
        }
    }
    cpu->tlb = cpu->tlbs[TLB_USER];
    cpu->mode = INSN_MODE_64 | MODE_FLAT | MODE_PROT;
    cpu->st.cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    cpu->st.efer = EFER_LMA;
    cpu->st.xcr0 = 7;
    store_le16(cpu->st.xsave + XS_FCW, FCW_INIT);
    store_le32(cpu->st.xsave + XS_MXCSR, MXCSR_INIT);
    vm.code_buf = code_buf_create(64 * KIB, &err);
    assert_non_null(vm.code_buf);
    cpu->vm = &vm;
    assert_true(native_cpu_init(cpu, &err));
    memset(data, 0, sizeof(data));
    cross = false;
    return 0;
}

static int teardown(void **unused)
{
    code_buf_destroy(vm.code_buf);
    native_cpu_fini(cpu);
    free(cpu);
    return 0;
}

/* Decodes and prepares; registers as the block builder leaves them. */
static bool prepare(struct uop *u, const uint8_t *bytes, size_t n)
{
    memset(u, 0, sizeof(*u));
    assert_int_equal(insn_decode(bytes, n, INSN_MODE_64, ~0ull, &u->i), DECODE_OK);
    assert_int_equal(u->i.len, n);
    u->i.base = u->i.base == INSN_REG_NONE ? R_ZERO : u->i.base;
    if (insn_row(&u->i)->op != OP_GATHER) {
        u->i.index = u->i.index == INSN_REG_NONE ? R_ZERO : u->i.index;
    }
    return native_prepare(cpu, u, bytes);
}

static const struct uop *end_marker(struct soft_cpu *c, const struct uop *u)
{
    return NULL;
}

/* Runs one instruction; -1, or the vector it raised. */
static int run_bytes(const uint8_t *bytes, size_t n)
{
    struct uop u[2] = {{0}};
    assert_true(prepare(&u[0], bytes, n));
    u[1].fn = end_marker;
    cpu->u = u;
    if (setjmp(raised_to)) {
        return (int)raised_vector;
    }
    assert_null(u[0].fn(cpu, u));
    assert_true(cpu->u == &u[1]);
    return -1;
}
#define RUN(...) run_bytes((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void xmm_set(unsigned n, uint64_t lo, uint64_t hi)
{
    store_le64(xs_xmm(cpu, n), lo);
    store_le64(xs_xmm(cpu, n) + 8, hi);
}
static uint64_t xmm_lo(unsigned n)
{
    return load_le64(xs_xmm(cpu, n));
}
static uint64_t f64(double d)
{
    uint64_t v;
    memcpy(&v, &d, 8);
    return v;
}

static void test_sse_keeps_the_upper_half_and_vex_clears_it(void **unused)
{
    xmm_set(9, f64(1.5), 7);
    xmm_set(2, f64(2.25), 8);
    store_le64(xs_ymm_hi(cpu, 9), 77);
    assert_int_equal(RUN(0xf2, 0x44, 0x0f, 0x58, 0xca), -1);            /* addsd xmm9, xmm2 */
    assert_true(xmm_lo(9) == f64(3.75));
    assert_true(load_le64(xs_xmm(cpu, 9) + 8) == 7);
    assert_true(load_le64(xs_ymm_hi(cpu, 9)) == 77);
    assert_int_equal(RUN(0xc5, 0x33, 0x58, 0xca), -1);                  /* vaddsd xmm9, xmm9, xmm2 */
    assert_true(xmm_lo(9) == f64(6.0));
    assert_true(load_le64(xs_ymm_hi(cpu, 9)) == 0);
}

static void test_ymm_registers_move_whole_and_through_memory(void **unused)
{
    for (unsigned i = 0; i < 32; i++) {
        data[i] = (uint8_t)(i + 1);
    }
    cpu->r[R_BX] = (uintptr_t)data;
    for (int pass = 0; pass < 2; pass++) {
        cross = pass;
        memset(data + 64, 0, 32);
        assert_int_equal(RUN(0xc5, 0x7e, 0x6f, 0x2b), -1);              /* vmovdqu ymm13, [rbx] */
        assert_int_equal(RUN(0xc5, 0x7e, 0x7f, 0x6b, 0x40), -1);        /* vmovdqu [rbx+64], ymm13 */
        assert_memory_equal(data, data + 64, 32);
    }
    assert_int_equal(cpu->st.xsave[XS_BV] & 6, 6);
}

static void test_general_registers_cross_over_zero_extended(void **unused)
{
    cpu->r[R_13] = 0xffffffff00000005ull;
    assert_int_equal(RUN(0x66, 0x41, 0x0f, 0x6e, 0xdd), -1);            /* movd xmm3, r13d */
    assert_true(xmm_lo(3) == 5);
    cpu->r[R_SP] = ~0ull;
    assert_int_equal(RUN(0x66, 0x0f, 0x7e, 0xdc), -1);                  /* movd esp, xmm3 */
    assert_true(cpu->r[R_SP] == 5);
    cpu->r[R_DI] = (uint64_t)-3;
    assert_int_equal(RUN(0xf2, 0x48, 0x0f, 0x2a, 0xc7), -1);            /* cvtsi2sd xmm0, rdi */
    assert_true(xmm_lo(0) == f64(-3.0));
}

static void test_compares_set_the_flags(void **unused)
{
    xmm_set(0, f64(1), 0);
    xmm_set(1, f64(2), 0);
    assert_int_equal(RUN(0x66, 0x0f, 0x2f, 0xc1), -1);                  /* comisd xmm0, xmm1 */
    assert_int_equal(flags_arith(cpu->af), X86_CF);
    xmm_set(1, f64(1), 0);
    assert_int_equal(RUN(0x66, 0x0f, 0x2f, 0xc1), -1);
    assert_int_equal(flags_arith(cpu->af), X86_ZF);
}

static void test_an_unmasked_exception_raises_xm_and_writes_nothing(void **unused)
{
    fpe_init();                 /* cmocka takes the signal between setup and test */
    xmm_set(0, f64(1), 5);
    xmm_set(1, 0, 0);
    store_le32(xs(cpu, XS_MXCSR), 0x1d80);                              /* ZM clear */
    assert_int_equal(RUN(0xf2, 0x0f, 0x5e, 0xc1), EXC_XM);              /* divsd xmm0, xmm1 */
    assert_true(xmm_lo(0) == f64(1));
    assert_int_equal(load_le32(xs(cpu, XS_MXCSR)), 0x1d84);
    cpu->st.cr4 &= ~CR4_OSXMMEXCPT;
    assert_int_equal(RUN(0xf2, 0x0f, 0x5e, 0xc1), EXC_UD);
    store_le32(xs(cpu, XS_MXCSR), 0x1780);                              /* UM clear: a tiny exact result */
    xmm_set(0, 2, 0);
    xmm_set(1, 1, 0);
    cpu->st.cr4 |= CR4_OSXMMEXCPT;
    assert_int_equal(RUN(0xf2, 0x0f, 0x5c, 0xc1), EXC_XM);              /* subsd of denormals */
    assert_true(host_mxcsr() == MXCSR_INIT || (host_mxcsr() & ~MXCSR_FLAGS) == MXCSR_INIT);
}

static void test_sticky_flags_and_rounding_are_the_guests(void **unused)
{
    xmm_set(0, f64(1), 0);
    xmm_set(1, f64(3), 0);
    assert_int_equal(RUN(0xf2, 0x0f, 0x5e, 0xc1), -1);
    assert_int_equal(load_le32(xs(cpu, XS_MXCSR)), MXCSR_INIT | 0x20);
    uint64_t nearest = xmm_lo(0);
    xmm_set(0, f64(1), 0);
    store_le32(xs(cpu, XS_MXCSR), 0x5f80);                              /* towards +inf */
    assert_int_equal(RUN(0xf2, 0x0f, 0x5e, 0xc1), -1);
    assert_true(xmm_lo(0) == nearest + 1);
    assert_int_equal(load_le32(xs(cpu, XS_MXCSR)), 0x5fa0);
    /* a fresh guest value is not polluted by what the host register still holds */
    store_le32(xs(cpu, XS_MXCSR), MXCSR_INIT);
    assert_int_equal(RUN(0xf2, 0x0f, 0x58, 0xc9), -1);
    assert_int_equal(load_le32(xs(cpu, XS_MXCSR)), MXCSR_INIT);
}

static void test_x87_works_on_the_guests_stack_and_hides_host_addresses(void **unused)
{
    double in = 2.0;
    memcpy(data, &in, 8);
    cpu->r[R_BX] = (uintptr_t)data;
    cross = true;
    assert_int_equal(RUN(0xdd, 0x03), -1);                              /* fld qword [rbx] */
    assert_int_equal(RUN(0xd9, 0xfa), -1);                              /* fsqrt */
    assert_int_equal(RUN(0xdd, 0x5b, 0x08), -1);                        /* fstp qword [rbx+8] */
    double out;
    memcpy(&out, data + 8, 8);
    assert_true(out > 1.41421356 && out < 1.41421357);
    assert_int_equal(cpu->st.xsave[XS_FTW], 0);
    assert_false(code_buf_contains(vm.code_buf, load_le64(xs(cpu, XS_FIP))));
    cpu->r[R_AX] = 0xaaaa0000ffffull;
    assert_int_equal(RUN(0xdf, 0xe0), -1);                              /* fnstsw ax */
    assert_true(cpu->r[R_AX] >> 16 == 0xaaaa0000ull);
    assert_int_equal(cpu->r[R_AX] & 0xff, load_le16(xs(cpu, XS_FSW)) & 0xff);
}

static void test_an_unmasked_x87_exception_waits_for_the_next_instruction(void **unused)
{
    store_le16(xs(cpu, XS_FCW), 0x37b);                                 /* ZM clear */
    assert_int_equal(RUN(0xd9, 0xe8), -1);                              /* fld1 */
    assert_int_equal(RUN(0xd9, 0xee), -1);                              /* fldz */
    assert_int_equal(RUN(0xde, 0xf9), -1);                              /* fdivp */
    assert_int_equal(RUN(0xd9, 0xe8), EXC_MF);
    assert_int_equal(RUN(0x9b), EXC_MF);                                /* fwait */
    assert_int_equal(RUN(0xdb, 0xe2), -1);                              /* fnclex */
    assert_int_equal(RUN(0xd9, 0xe8), -1);
}

static void test_fxsave_and_xsave_round_trip(void **unused)
{
    uint8_t before[XS_YMM_END];
    for (unsigned i = XS_XMM; i < XS_LEGACY_END; i++) {
        cpu->st.xsave[i] = (uint8_t)(i * 7);
    }
    for (unsigned i = XS_YMM; i < XS_YMM_END; i++) {
        cpu->st.xsave[i] = (uint8_t)(i * 5);
    }
    assert_int_equal(RUN(0xd9, 0xeb), -1);                              /* fldpi */
    cpu->st.xsave[XS_BV] = 7;
    memcpy(before, cpu->st.xsave, sizeof(before));
    cpu->r[R_BX] = (uintptr_t)data;
    cpu->r[R_AX] = 7;
    assert_int_equal(RUN(0x48, 0x0f, 0xc7, 0x23), -1);                  /* xsavec64 [rbx] */
    assert_true(load_le64(data + XS_COMP) == (1ull << 63 | 7));
    memset(cpu->st.xsave + XS_YMM, 0, 256);
    memset(cpu->st.xsave + XS_XMM, 0, 256);
    assert_int_equal(RUN(0x48, 0x0f, 0xae, 0x2b), -1);                  /* xrstor64 [rbx] */
    assert_memory_equal(before, cpu->st.xsave, XS_FOP);         /* the pointers may be hidden without an exception */
    assert_memory_equal(before + XS_MXCSR, cpu->st.xsave + XS_MXCSR, 4);
    assert_memory_equal(before + XS_ST, cpu->st.xsave + XS_ST, XS_LEGACY_END - XS_ST);
    assert_memory_equal(before + XS_YMM, cpu->st.xsave + XS_YMM, XS_YMM_END - XS_YMM);
    data[XS_HDR_END - 1] = 1;
    assert_int_equal(RUN(0x48, 0x0f, 0xae, 0x2b), EXC_GP);
    data[XS_HDR_END - 1] = 0;
    store_le32(data + XS_MXCSR, 0x10000);
    assert_int_equal(RUN(0x48, 0x0f, 0xae, 0x2b), EXC_GP);
    assert_int_equal(RUN(0x48, 0x0f, 0xae, 0x0b), EXC_GP);              /* fxrstor64: the same MXCSR */
    cpu->r[R_BX]++;
    assert_int_equal(RUN(0x48, 0x0f, 0xae, 0x03), EXC_GP);              /* fxsave64, misaligned */
}

static void test_misaligned_and_non_canonical_operands_fault(void **unused)
{
    cpu->r[R_BX] = (uintptr_t)data + 8;
    assert_int_equal(RUN(0x0f, 0x28, 0x03), EXC_GP);                    /* movaps */
    assert_int_equal(RUN(0x0f, 0x10, 0x03), -1);                        /* movups */
    cpu->r[R_BX] = 0x8000000000000000ull;
    assert_int_equal(RUN(0x0f, 0x10, 0x03), EXC_GP);
    cpu->r[R_BP] = 0x8000000000000000ull;
    assert_int_equal(RUN(0x0f, 0x10, 0x45, 0x00), EXC_SS);
    cpu->fpu_trap = 1;
    assert_int_equal(RUN(0x0f, 0x10, 0x03), EXC_NM);
}

static void test_equal_instructions_share_a_thunk(void **unused)
{
    struct uop u[3];
    assert_true(prepare(&u[0], (const uint8_t[]){0x0f, 0x58, 0x03}, 3));                /* addps xmm0, [rbx] */
    size_t used = code_buf_used(vm.code_buf);
    assert_true(prepare(&u[1], (const uint8_t[]){0x41, 0x0f, 0x58, 0x44, 0x24, 0x10}, 6));      /* [r12+16] */
    assert_int_equal(code_buf_used(vm.code_buf), used);
    assert_true(u[0].i.imm == u[1].i.imm);
    assert_true(prepare(&u[2], (const uint8_t[]){0x0f, 0x58, 0x0b}, 3));                /* xmm1 */
    assert_true(code_buf_used(vm.code_buf) > used);
}

static void test_a_full_buffer_says_so_and_can_be_flushed(void **unused)
{
    struct uop u;
    unsigned n = 0;
    bool ok = true;
    for (unsigned imm = 0; ok && imm < 0x10000; imm++, n += ok) {
        const uint8_t shuf[] = {0x66, 0x0f, 0x70, (uint8_t)(0xc0 | (imm >> 8 & 63)), (uint8_t)imm};
        const uint8_t blend[] = {0x66, 0x0f, 0x3a, 0x0e, (uint8_t)(0xc0 | (imm >> 8 & 63)), (uint8_t)imm};
        ok = imm < 0x4000 ? prepare(&u, shuf, sizeof(shuf)) : prepare(&u, blend, sizeof(blend));
    }
    assert_false(ok);
    assert_true(n > 500);
    native_flush(vm.code_buf);
    test_sse_keeps_the_upper_half_and_vex_clears_it(NULL);
}

/* No mapping of this process is writable and executable. */
static void test_no_page_is_writable_and_executable(void **unused)
{
    FILE *f = fopen("/proc/self/maps", "re");
    char line[512];
    bool code = false;
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        assert_null(strstr(line, " rwx"));
        code = code || (strstr(line, " r-x") && strstr(line, "lodge-code"));
    }
    fclose(f);
    assert_true(code);
}

/* Every row that becomes a thunk, with extreme register numbers, fits the emitter's buffer with room to spare. */
static void test_every_row_fits_its_buffer(void **unused)
{
    for (unsigned row = 1; row < n_insn_rows; row++) {
        const struct insn_row *r = &insn_rows[row];
        if (r->op != OP_VEC && r->op != OP_MMX && r->op != OP_X87) {
            continue;
        }
        for (unsigned flags = 0; flags < 4; flags++) {
            struct thunk_spec s = {.row = (uint16_t)row, .reg = 15, .vvvv = 14, .rm = 13, .imm = 12};
            s.flags = (uint8_t)((r->enc & RE_VEX ? INSN_VEX | INSN_L : 0) | (flags & 1 ? INSN_MEM : 0) | (flags & 2 ? INSN_W : 0));
            struct emit e = {.n = 0};
            thunk_emit(&e, &s);
            assert_true(e.n <= THUNK_MAX - 32);
        }
    }
}

int main(void)
{
#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_sse_keeps_the_upper_half_and_vex_clears_it), T(test_ymm_registers_move_whole_and_through_memory),
        T(test_general_registers_cross_over_zero_extended), T(test_compares_set_the_flags),
        T(test_an_unmasked_exception_raises_xm_and_writes_nothing), T(test_sticky_flags_and_rounding_are_the_guests),
        T(test_x87_works_on_the_guests_stack_and_hides_host_addresses),
        T(test_an_unmasked_x87_exception_waits_for_the_next_instruction), T(test_fxsave_and_xsave_round_trip),
        T(test_misaligned_and_non_canonical_operands_fault), T(test_equal_instructions_share_a_thunk),
        T(test_a_full_buffer_says_so_and_can_be_flushed), T(test_no_page_is_writable_and_executable),
        T(test_every_row_fits_its_buffer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
