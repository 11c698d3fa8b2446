/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Control registers, MSRs, ports, clocks, paravirtual records, state in and out. */
#include "fixture.h"

static int mov_cr(unsigned cr, uint64_t val)
{
    struct uop u = uop_of(OP_MOV_TO_CR);
    u.i.reg = (uint8_t)cr;
    u.i.rm = R_AX;
    f.c->r[R_AX] = val;
    return CATCH(sys_insn(f.c, &u, 0));
}

static void test_reserved_control_bits_are_refused(void **unused)
{
    setup_cpus(1);
    enter_long(0);
    uint64_t cr0 = f.c->st.cr0, cr4 = f.c->st.cr4;
    assert_int_equal(mov_cr(0, cr0 | 1ull << 32), EXC_GP);
    assert_int_equal(mov_cr(0, cr0 & ~CR0_PE), EXC_GP);
    assert_int_equal(mov_cr(0, cr0 | CR0_NW), EXC_GP);
    assert_int_equal(mov_cr(0, cr0 & ~CR0_PG), EXC_GP);         /* in 64-bit code */
    assert_int_equal(mov_cr(4, cr4 | CR4_LA57), EXC_GP);
    assert_int_equal(mov_cr(4, cr4 | CR4_PKE), EXC_GP);
    assert_int_equal(mov_cr(4, cr4 | 1ull << 13 /* VMXE */), EXC_GP);
    assert_int_equal(mov_cr(4, cr4 & ~CR4_PAE), EXC_GP);
    assert_int_equal(mov_cr(3, 1ull << 52), EXC_GP);
    assert_int_equal(mov_cr(3, PML4 | 1ull << 63), EXC_GP);     /* without PCIDE it is an address bit */
    assert_int_equal(mov_cr(8, 16), EXC_GP);
    assert_int_equal(mov_cr(1, 0), EXC_UD);
    assert_int_equal(f.c->st.cr0, cr0);
    assert_int_equal(f.c->st.cr4, cr4);
    assert_int_equal(mov_cr(4, cr4 | CR4_PCIDE | CR4_PGE | CR4_SMEP | CR4_SMAP | CR4_UMIP | CR4_FSGSBASE), -1);
    assert_int_equal(mov_cr(3, PML4 | 5 | 1ull << 63), -1);
    assert_int_equal(f.c->st.cr3, PML4 | 5);
    assert_int_equal(mov_cr(0, (cr0 & ~CR0_PG)), EXC_GP);
    enter_long(3);
    assert_int_equal(mov_cr(0, cr0), EXC_GP);
    teardown();
}

static void test_long_mode_begins_with_paging_and_ends_with_it(void **unused)
{
    setup_cpus(1);
    enter_prot(0);
    poke(PML4, 8, PDPT | 7);
    poke(PDPT, 8, PD | 7);
    poke(PD, 8, 0x87);
    assert_true(sys_wrmsr(f.c, MSR_EFER, EFER_LME | EFER_NXE));
    assert_int_equal(mov_cr(3, PML4), -1);
    assert_int_equal(mov_cr(0, f.c->st.cr0 | CR0_PG), EXC_GP);  /* no PAE */
    assert_int_equal(mov_cr(4, CR4_PAE), -1);
    assert_int_equal(mov_cr(0, f.c->st.cr0 | CR0_PG), -1);
    assert_true(f.c->st.efer & EFER_LMA);
    assert_false(cpu_code64(f.c));                              /* compatibility mode first */
    assert_false(sys_wrmsr(f.c, MSR_EFER, 0));                  /* LME is fixed under paging */
    assert_runs(sys_jmp_far(f.c, CS64, 0x1000, 4));
    assert_true(cpu_code64(f.c));
    assert_runs(sys_jmp_far(f.c, CS32, 0x1000, 4); (void)0);
    assert_int_equal(mov_cr(0, f.c->st.cr0 & ~CR0_PG), -1);
    assert_false(f.c->st.efer & EFER_LMA);
    assert_true(sys_wrmsr(f.c, MSR_EFER, 0));
    teardown();
}

static void test_pae_pointers_are_checked_before_the_load(void **unused)
{
    setup_cpus(1);
    enter_prot(0);
    for (unsigned i = 0; i < 4; i++) {
        poke(PDPT + 8 * i, 8, PD | 1);
    }
    poke(PD, 8, 0x87);
    assert_int_equal(mov_cr(4, CR4_PAE), -1);
    assert_int_equal(mov_cr(3, PDPT), -1);
    assert_int_equal(mov_cr(0, f.c->st.cr0 | CR0_PG), -1);
    assert_int_equal(f.c->st.pdpte[3], PD | 1);
    poke(PDPT + 24, 8, PD | 3);                                 /* R/W is reserved here */
    assert_int_equal(mov_cr(3, PDPT), EXC_GP);
    assert_int_equal(f.c->st.pdpte[3], PD | 1);
    teardown();
}

static void test_umip_hides_tables_from_programs(void **unused)
{
    setup_cpus(1);
    enter_long(3);
    struct uop sidt = uop_of(OP_SIDT), smsw = uop_of(OP_SMSW), str = uop_of(OP_STR);
    sidt.i.flags = INSN_MEM;
    assert_runs(sys_insn(f.c, &sidt, DATA));
    assert_int_equal(peek(DATA, 2), 0xfff);
    assert_int_equal(peek(DATA + 2, 8), IDT);
    assert_runs(sys_insn(f.c, &str, 0));
    assert_int_equal(f.c->r[R_AX], TSSSEL);
    f.c->st.cr4 |= CR4_UMIP;
    assert_raises(EXC_GP, 0, sys_insn(f.c, &sidt, DATA));
    assert_raises(EXC_GP, 0, sys_insn(f.c, &smsw, 0));
    assert_raises(EXC_GP, 0, sys_insn(f.c, &str, 0));
    teardown();
}

static void test_msrs_refuse_what_hardware_refuses(void **unused)
{
    setup_cpus(1);
    enter_long(0);
    uint64_t v, bad = 0x800000000000;
    static const uint32_t canon[] = { MSR_LSTAR, MSR_CSTAR, MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE, MSR_SYSENTER_EIP, MSR_SYSENTER_ESP };
    for (size_t i = 0; i < ARRAY_SIZE(canon); i++) {
        assert_false(sys_wrmsr(f.c, canon[i], bad));
        assert_true(sys_wrmsr(f.c, canon[i], 0xffff800000000000));
        assert_true(sys_rdmsr(f.c, canon[i], &v));
        assert_int_equal(v, 0xffff800000000000);
    }
    assert_int_equal(f.c->segbase[SEG_GS], 0xffff800000000000);
    assert_false(sys_wrmsr(f.c, MSR_EFER, f.c->st.efer | 1ull << 12 /* SVME */));
    assert_false(sys_wrmsr(f.c, MSR_PAT, 2));
    assert_false(sys_wrmsr(f.c, MSR_MTRR_DEF, 2));
    assert_true(sys_wrmsr(f.c, MSR_MTRR_DEF, 0xc06));
    assert_false(sys_wrmsr(f.c, MSR_MTRR_CAP, 0));
    assert_false(sys_wrmsr(f.c, MSR_TSC_AUX, 1ull << 32));
    assert_false(sys_rdmsr(f.c, 0x12345, &v));
    assert_false(sys_wrmsr(f.c, 0x12345, 0));
    assert_false(sys_rdmsr(f.c, MSR_KVM_ASYNC_PF_EN, &v));
    assert_true(sys_wrmsr(f.c, MSR_PRED_CMD, 1));
    struct uop rdmsr = uop_of(OP_RDMSR);
    f.c->r[R_CX] = MSR_PAT;
    assert_runs(sys_insn(f.c, &rdmsr, 0));
    f.c->r[R_CX] = 0x12345;
    assert_raises(EXC_GP, 0, sys_insn(f.c, &rdmsr, 0));
    enter_long(3);
    f.c->r[R_CX] = MSR_PAT;
    assert_raises(EXC_GP, 0, sys_insn(f.c, &rdmsr, 0));
    teardown();
}

static void test_swapgs_and_the_base_instructions(void **unused)
{
    setup_cpus(1);
    enter_long(0);
    struct uop swapgs = uop_of(OP_SWAPGS), wr = uop_of(OP_WRFSBASE);
    f.c->st.seg[SEG_GS].base = 0x1000;
    f.c->st.kernel_gs_base = 0x2000;
    cpu_update_mode(f.c);
    assert_runs(sys_insn(f.c, &swapgs, 0));
    assert_int_equal(f.c->segbase[SEG_GS], 0x2000);
    assert_int_equal(f.c->st.kernel_gs_base, 0x1000);
    wr.i.opsize = 3;
    wr.i.rm = R_AX;
    f.c->r[R_AX] = 0x123456789000;
    assert_int_equal(CATCH(sys_insn(f.c, &wr, 0)), EXC_UD);
    f.c->st.cr4 |= CR4_FSGSBASE;
    assert_raises(EXC_GP, 0, f.c->r[R_AX] = 0x800000000000; sys_insn(f.c, &wr, 0));
    f.c->r[R_AX] = 0x123456789000;
    assert_runs(sys_insn(f.c, &wr, 0));
    assert_int_equal(f.c->segbase[SEG_FS], 0x123456789000);
    teardown();
}

static uint64_t port_last;
static uint64_t port_read(struct io_region *r, uint64_t off, unsigned width)
{
    return 0xa5a5a5a5;
}
static void port_write(struct io_region *r, uint64_t off, uint64_t val, unsigned width)
{
    port_last = val | (uint64_t)width << 32;
}

static void test_ports_need_iopl_or_a_bitmap_bit(void **unused)
{
    setup_cpus(1);
    struct err err = ERR_INIT;
    static const struct io_handler h = { port_read, port_write, 1, 4 };
    struct io_region r = { .name = "p", .space = MEM_PIO, .base = 0x400, .size = 8, .h = &h };
    assert_true(mem_io_map(f.mem, &r, &err));
    enter_long(3);
    struct uop out = uop_of(OP_OUT), in = uop_of(OP_IN), ins = uop_of(OP_INS);
    out.i.opsize = 1;
    in.i.opsize = 0;
    ins.i.opsize = 2;
    f.c->r[R_DX] = 0x407;
    f.c->r[R_AX] = 0xffff1234;
    poke(TSS + 0x66, 2, 0x101);
    assert_raises(EXC_GP, 0, sys_insn(f.c, &out, 0));           /* no bitmap in the TSS */
    poke(TSS + 0x66, 2, 0x68);
    memset(f.ram + TSS + 0x68, 0xff, 0x98);
    poke(TSS + 0x68 + 0x400 / 8, 2, 0xff00);
    assert_raises(EXC_GP, 0, sys_insn(f.c, &out, 0));           /* its second byte is port 408 */
    f.c->r[R_DX] = 0x406;
    assert_runs(sys_insn(f.c, &out, 0));
    assert_int_equal(port_last, 2ull << 32 | 0x1234);
    assert_runs(sys_insn(f.c, &in, 0));
    assert_int_equal(f.c->r[R_AX], 0xffff12a5);
    f.c->r[R_DX] = 0x404;
    assert_raises(EXC_PF, PF_U | PF_W, sys_insn(f.c, &ins, 0x80000000));
    assert_runs(sys_insn(f.c, &ins, DATA));
    assert_int_equal(peek(DATA, 4), 0xa5a5a5a5);
    f.c->r[R_DX] = 0x500;
    assert_raises(EXC_GP, 0, sys_insn(f.c, &in, 0));
    f.c->st.rflags |= X86_IOPL;
    assert_runs(sys_insn(f.c, &in, 0));
    assert_int_equal(f.c->r[R_AX] & 0xff, 0xff);                /* nobody there */
    mem_io_unmap(f.mem, &r);
    teardown();
}

static void test_popf_changes_what_the_level_may(void **unused)
{
    setup_cpus(1);
    enter_long(3);
    struct uop popf = uop_of(OP_POPF), pushf = uop_of(OP_PUSHF);
    popf.i.opsize = pushf.i.opsize = 3;
    cpu_set_rflags(f.c, X86_IF, X86_IF | X86_IOPL);
    sys_push(f.c, X86_IOPL | X86_CF | X86_DF | X86_VM | X86_RF | X86_VIF | X86_AC, 8);
    assert_runs(sys_insn(f.c, &popf, 0));
    assert_int_equal(cpu_rflags(f.c), X86_IF | X86_CF | X86_DF | X86_AC | X86_F1);
    assert_int_equal(f.c->df_step, -1);
    assert_ptr_equal(f.c->tlb, f.c->tlbs[TLB_USER]);
    assert_runs(sys_insn(f.c, &pushf, 0));
    assert_int_equal(sys_pop(f.c, 8), X86_IF | X86_CF | X86_DF | X86_AC | X86_F1);
    enter_long(0);
    f.c->st.cr4 |= CR4_SMAP;
    sys_push(f.c, X86_IOPL, 8);
    assert_runs(sys_insn(f.c, &popf, 0));
    assert_int_equal(cpu_rflags(f.c), X86_IOPL | X86_F1);
    assert_ptr_equal(f.c->tlb, f.c->tlbs[TLB_SUPER]);
    struct uop stac = uop_of(OP_STAC);
    assert_runs(sys_insn(f.c, &stac, 0));
    assert_ptr_equal(f.c->tlb, f.c->tlbs[TLB_SUPER_AC]);
    teardown();
}

static void test_fpu_traps_follow_cr0_and_cr4(void **unused)
{
    setup_cpus(1);
    enter_long(0);
    struct uop x87 = uop_of(OP_X87), vec = uop_of(OP_VEC), fwait = uop_of(OP_FWAIT);
    assert_int_equal(CATCH(sys_fpu_check(f.c, &vec.i)), EXC_UD);        /* no OSFXSR */
    assert_runs(sys_fpu_check(f.c, &x87.i));
    mov_cr(4, f.c->st.cr4 | CR4_OSFXSR | CR4_OSXSAVE);
    assert_runs(sys_fpu_check(f.c, &vec.i));
    vec.i.flags |= INSN_VEX;
    assert_int_equal(CATCH(sys_fpu_check(f.c, &vec.i)), EXC_UD);        /* XCR0 */
    struct uop xsetbv = uop_of(OP_XSETBV);
    f.c->r[R_CX] = 0;
    f.c->r[R_DX] = 0;
    f.c->r[R_AX] = 4 | 1;
    assert_raises(EXC_GP, 0, sys_insn(f.c, &xsetbv, 0));
    f.c->r[R_AX] = 0xe7;                                                /* AVX-512 is in no model */
    assert_raises(EXC_GP, 0, sys_insn(f.c, &xsetbv, 0));
    f.c->r[R_AX] = f.model.xcr0_mask;
    assert_runs(sys_insn(f.c, &xsetbv, 0));
    if (f.model.xcr0_mask == 7) {
        assert_runs(sys_fpu_check(f.c, &vec.i));
        assert_int_equal(f.c->fpu_trap, 0);
    }
    mov_cr(0, f.c->st.cr0 | CR0_TS);
    assert_int_equal(CATCH(sys_fpu_check(f.c, &vec.i)), f.model.xcr0_mask == 7 ? EXC_NM : EXC_UD);
    assert_int_equal(CATCH(sys_fpu_check(f.c, &x87.i)), EXC_NM);
    assert_runs(sys_fpu_check(f.c, &fwait.i));
    mov_cr(0, f.c->st.cr0 | CR0_MP);
    assert_int_equal(CATCH(sys_fpu_check(f.c, &fwait.i)), EXC_NM);
    teardown();
}

static void test_dr7_gd_guards_the_debug_registers(void **unused)
{
    setup_cpus(1);
    enter_long(0);
    struct uop to = uop_of(OP_MOV_TO_DR), from = uop_of(OP_MOV_FROM_DR);
    to.i.reg = from.i.reg = 7;
    f.c->r[R_AX] = 1ull << 32;
    assert_raises(EXC_GP, 0, sys_insn(f.c, &to, 0));
    f.c->r[R_AX] = 1 << 13;
    assert_runs(sys_insn(f.c, &to, 0));
    assert_int_equal(CATCH(sys_insn(f.c, &from, 0)), EXC_DB);
    assert_true(f.c->st.dr6 & 1 << 13);
    f.c->st.dr7 = 0x400;
    to.i.reg = 4;
    f.c->r[R_AX] = 0xf;
    assert_runs(sys_insn(f.c, &to, 0));                         /* DR4 is DR6 unless CR4.DE */
    assert_int_equal(f.c->st.dr6, 0xffff0fff);
    f.c->st.cr4 |= CR4_DE;
    assert_int_equal(CATCH(sys_insn(f.c, &to, 0)), EXC_UD);
    teardown();
}

static void spin_ns(uint64_t ns)
{
    for (uint64_t until = host_clock_ns() + ns; host_clock_ns() < until;) {
    }
}

static void test_the_tsc_follows_the_vm_clock_through_a_pause(void **unused)
{
    setup_cpus(2);
    uint64_t khz = f.vm->tsc_khz;
    assert_true(khz > 100000);
    uint64_t a = sys_read_tsc(f.c), na = vm_clock_ns(&f.clock);
    spin_ns(2000000);
    uint64_t b = sys_read_tsc(f.vm->cpus[1]), nb = vm_clock_ns(&f.clock);
    uint64_t ticks = muldiv64(nb - na, khz, 1000000);
    assert_true(b - a > ticks - ticks / 20 && b - a < ticks + ticks / 20);
    vm_clock_stop(&f.clock);
    uint64_t frozen = sys_read_tsc(f.c);
    assert_true(frozen >= b);
    spin_ns(3000000);
    assert_int_equal(sys_read_tsc(f.c), frozen);
    vm_clock_start(&f.clock);
    sys_clock_started(f.vm);
    uint64_t after = sys_read_tsc(f.c);
    assert_true(after >= frozen && after - frozen < muldiv64(2000000, khz, 1000000));
    assert_true(sys_wrmsr(f.c, MSR_TSC, 1000));
    assert_true(sys_read_tsc(f.c) < 1000 + khz * 10);
    uint64_t adjust;
    assert_true(sys_rdmsr(f.c, MSR_TSC_ADJUST, &adjust));
    assert_true((int64_t)adjust < 0);
    assert_true(sys_wrmsr(f.c, MSR_TSC_ADJUST, 0));
    assert_true(sys_read_tsc(f.c) >= after);
    teardown();
}

/* What a guest computes from the record at `gpa`. */
static uint64_t pvclock_ns(struct soft_cpu *c, uint64_t gpa)
{
    uint64_t delta = sys_read_tsc(c) - peek(gpa + 8, 8);
    int8_t shift = (int8_t)peek(gpa + 28, 1);
    assert_int_equal(peek(gpa, 4) & 1, 0);
    delta = shift < 0 ? delta >> -shift : delta << shift;
    return peek(gpa + 16, 8) + (uint64_t)((unsigned __int128)delta * peek(gpa + 24, 4) >> 32);
}

static void test_kvmclock_agrees_with_the_vm_clock(void **unused)
{
    setup_cpus(2);
    assert_true(sys_wrmsr(f.c, MSR_KVM_SYSTEM_TIME_NEW, DATA | 1));
    spin_ns(1000000);
    assert_true(sys_wrmsr(f.vm->cpus[1], MSR_KVM_SYSTEM_TIME_NEW, DATA + 64 + 1));
    assert_int_equal(peek(DATA + 29, 1), 1);            /* stable */
    assert_memory_equal(f.ram + DATA + 8, f.ram + DATA + 64 + 8, 24);    /* one and the same pair */
    for (int round = 0; round < 2; round++) {
        uint64_t before = vm_clock_ns(&f.clock), guest = pvclock_ns(f.c, DATA), after = vm_clock_ns(&f.clock);
        assert_true(guest + 50000 > before && guest < after + 50000);
        vm_clock_stop(&f.clock);
        spin_ns(3000000);
        vm_clock_start(&f.clock);
        sys_clock_started(f.vm);
    }
    assert_true(sys_wrmsr(f.c, MSR_TSC, 5));            /* the record moves with its CPU's TSC */
    uint64_t before = vm_clock_ns(&f.clock), guest = pvclock_ns(f.c, DATA);
    assert_true(guest + 50000 > before && guest < before + 500000);
    assert_true(sys_wrmsr(f.c, MSR_KVM_WALL_CLOCK_NEW, DATA + 128));
    assert_true(peek(DATA + 132, 4) > 1600000000);
    assert_true(sys_wrmsr(f.c, MSR_KVM_SYSTEM_TIME_NEW, (RAM + 0x10000) | 1));     /* outside RAM: nothing happens */
    teardown();
}

static void test_state_survives_export_and_import(void **unused)
{
    setup_cpus(1);
    enter_long(3);
    size_t size = (sizeof(struct x86_state) + 63) & ~(size_t)63;
    struct x86_state *a = aligned_alloc(64, size), *b = aligned_alloc(64, size);
    for (unsigned i = 0; i < N_GPRS; i++) {
        f.c->r[i] = 0x1111111111111111ull * i;
    }
    cpu_set_rflags(f.c, X86_OF | X86_SF | X86_DF | X86_IF | X86_AC, X86_ARITH | X86_DF | X86_IF | X86_AC);
    f.c->st.lapic.svr = 0x1ff;
    f.c->st.lapic.irr[2] = 2;
    lapic_write(f.c, 0x80, 0x60);
    vm_clock_stop(&f.clock);
    soft_cpu_export(f.c, a);
    assert_int_equal(a->rip, CODE);
    assert_int_equal(a->gpr[R_15], 0xffffffffffffffff);
    assert_int_equal(a->rflags, X86_OF | X86_SF | X86_DF | X86_IF | X86_AC | X86_F1);
    assert_int_equal(a->cr8, 6);
    struct err err = ERR_INIT;
    if (!x86_state_valid(a, &err)) {
        fail_msg("%s", err.msg);
    }
    uint32_t mode = f.c->mode;
    uint64_t tsc = sys_read_tsc(f.c);
    memset(f.c->r, 0xee, sizeof(f.c->r));
    f.c->mode = 0;
    f.c->af = 0;
    soft_cpu_import(f.c, a);
    soft_cpu_export(f.c, b);
    assert_memory_equal(a, b, sizeof(*a));
    assert_int_equal(f.c->mode, mode);
    assert_int_equal(f.c->cpl, 3);
    assert_int_equal(f.c->r[R_ZERO], 0);
    assert_int_equal(f.c->df_step, -1);
    assert_int_equal(sys_read_tsc(f.c), tsc);
    free(a);
    free(b);
    teardown();
}

static void test_a_loaded_clock_gives_the_saved_tsc(void **unused)
{
    setup_cpus(1);
    size_t size = (sizeof(struct x86_state) + 63) & ~(size_t)63;
    struct x86_state *st = aligned_alloc(64, size);
    assert_true(sys_wrmsr(f.c, MSR_TSC, 123456789));
    vm_clock_stop(&f.clock);
    soft_cpu_export(f.c, st);
    uint64_t tsc = sys_read_tsc(f.c), ns = vm_clock_ns(&f.clock);
    teardown();
    setup_cpus(1);                                      /* another process */
    vm_clock_stop(&f.clock);
    vm_clock_set(&f.clock, ns);
    soft_cpu_import(f.c, st);
    uint64_t now = sys_read_tsc(f.c);
    assert_true(now - tsc + 20000 < 40000);             /* the two measured frequencies differ by a few parts per million */
    free(st);
    teardown();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reserved_control_bits_are_refused),
        cmocka_unit_test(test_long_mode_begins_with_paging_and_ends_with_it),
        cmocka_unit_test(test_pae_pointers_are_checked_before_the_load),
        cmocka_unit_test(test_umip_hides_tables_from_programs),
        cmocka_unit_test(test_msrs_refuse_what_hardware_refuses),
        cmocka_unit_test(test_swapgs_and_the_base_instructions),
        cmocka_unit_test(test_ports_need_iopl_or_a_bitmap_bit),
        cmocka_unit_test(test_popf_changes_what_the_level_may),
        cmocka_unit_test(test_fpu_traps_follow_cr0_and_cr4),
        cmocka_unit_test(test_dr7_gd_guards_the_debug_registers),
        cmocka_unit_test(test_the_tsc_follows_the_vm_clock_through_a_pause),
        cmocka_unit_test(test_kvmclock_agrees_with_the_vm_clock),
        cmocka_unit_test(test_state_survives_export_and_import),
        cmocka_unit_test(test_a_loaded_clock_gives_the_saved_tsc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
