/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fixture.h"

#include <string.h>
#include <sys/mman.h>

uint8_t *const ram = (uint8_t *)RAM_AT;
struct soft_cpu *cpu;
unsigned exclusive_calls, sys_calls;
bool sys_answer;
uint64_t sys_lin;

static sigjmp_buf unwind;
static struct uop uops[2];

/* --- raise, run/ --- */

void cpu_raise_err(struct soft_cpu *c, unsigned vector, uint32_t error)
{
    c->exc_vector = (uint8_t)vector;
    c->exc_has_error = true;
    c->exc_error = error;
    siglongjmp(unwind, 1);
}

void cpu_raise(struct soft_cpu *c, unsigned vector)
{
    c->exc_vector = (uint8_t)vector;
    c->exc_has_error = false;
    siglongjmp(unwind, 1);
}

uint64_t cpu_insn_rip(const struct soft_cpu *c)
{
    return c->r[R_BLOCK_RIP] + (c->u == uops ? 0 : uops[0].i.len);
}

uint64_t cpu_next_rip(const struct soft_cpu *c)
{
    return c->r[R_BLOCK_RIP] + uops[0].i.len;
}

/* --- mmu/ --- */

static void check_range(struct soft_cpu *c, uint64_t lin, unsigned size, enum mmu_access acc)
{
    if (!range_ok(lin - RAM_AT, size, RAM_SIZE)) {
        c->st.cr2 = lin < RAM_AT || lin >= RAM_AT + RAM_SIZE ? lin : RAM_AT + RAM_SIZE;
        cpu_raise_err(c, EXC_PF, acc);
    }
}

uint64_t mmu_load_slow(struct soft_cpu *c, uint64_t lin, unsigned size)
{
    uint64_t v = 0;
    check_range(c, lin, size, MMU_READ);
    memcpy(&v, (void *)(uintptr_t)lin, size);
    return v;
}

void mmu_store_slow(struct soft_cpu *c, uint64_t lin, unsigned size, uint64_t val)
{
    check_range(c, lin, size, MMU_WRITE);
    memcpy((void *)(uintptr_t)lin, &val, size);
}

void *mmu_ptr_slow(struct soft_cpu *c, uint64_t lin, unsigned size, enum mmu_access acc)
{
    if ((lin & (PAGE_SIZE - 1)) + size > PAGE_SIZE) {
        return NULL;
    }
    check_range(c, lin, size, acc);
    return (void *)(uintptr_t)lin;
}

void mmu_probe(struct soft_cpu *c, uint64_t lin, unsigned len, enum mmu_access acc)
{
    check_range(c, lin, len, acc);
}

void *mmu_span(struct soft_cpu *c, uint64_t lin, uint64_t want, enum mmu_access acc, uint64_t *n)
{
    check_range(c, lin, 1, acc);
    *n = min_u64(want, PAGE_SIZE - (lin & (PAGE_SIZE - 1)));
    return (void *)(uintptr_t)lin;
}

void mmu_exclusive_begin(struct soft_cpu *c)
{
    exclusive_calls++;
}

void mmu_exclusive_end(struct soft_cpu *c)
{
    exclusive_calls += 0x100;
}

/* --- sys/: segments as data with a limit; the rest only counts --- */

uint64_t sys_seg_lin(struct soft_cpu *c, unsigned seg, uint64_t off, unsigned size, bool write)
{
    if (off + size - 1 > c->st.seg[seg].limit) {
        cpu_raise_err(c, seg == SEG_SS ? EXC_SS : EXC_GP, 0);
    }
    return (uint32_t)(c->st.seg[seg].base + off);
}

uint64_t sys_branch_target(struct soft_cpu *c, uint64_t target, unsigned size)
{
    if (cpu_code64(c)) {
        if ((uint64_t)((int64_t)(target << 16) >> 16) != target) {
            cpu_raise_err(c, EXC_GP, 0);
        }
        return target;
    }
    target = size == 2 ? (uint16_t)target : (uint32_t)target;
    if (target > c->st.seg[SEG_CS].limit) {
        cpu_raise_err(c, EXC_GP, 0);
    }
    return target;
}

bool sys_insn(struct soft_cpu *c, const struct uop *u, uint64_t lin)
{
    sys_calls++;
    sys_lin = lin;
    return sys_answer;
}

void sys_load_seg(struct soft_cpu *c, unsigned seg, uint16_t sel)
{
    if (sel == 0xbad0) {
        cpu_raise_err(c, EXC_GP, sel);
    }
    c->st.seg[seg].sel = sel;
}

void sys_int(struct soft_cpu *c, uint8_t vector, enum insn_op kind)
{
    c->rip = 0x1000 + vector;
}

void sys_jmp_far(struct soft_cpu *c, uint16_t sel, uint64_t off, unsigned size)
{
    c->rip = ((uint64_t)sel << 32) + off;
}

void sys_call_far(struct soft_cpu *c, uint16_t sel, uint64_t off, unsigned size)
{
    c->rip = ((uint64_t)sel << 32) + off;
}

void sys_ret_far(struct soft_cpu *c, unsigned size, uint16_t pop)
{
    c->rip = pop;
}

#define CALL_STUB(name, ...) void name(struct soft_cpu *c, ##__VA_ARGS__) { sys_calls++; c->rip = 0; }
CALL_STUB(sys_iret, unsigned size)
CALL_STUB(sys_syscall)
CALL_STUB(sys_sysret, unsigned size)
CALL_STUB(sys_sysenter)
CALL_STUB(sys_sysexit, unsigned size)

/* --- the fixture --- */

void fixture_init(void)
{
    void *p = mmap(ram, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (p != ram) {
        abort();
    }
    cpu = aligned_alloc(64, (sizeof(*cpu) + 63) & ~(size_t)63);
    memset(cpu, 0, sizeof(*cpu));
}

void fixture_reset(uint32_t mode)
{
    memset(cpu->r, 0, sizeof(cpu->r));
    cpu->mode = mode;
    cpu->tlb = cpu->tlbs[0];
    cpu->df_step = 1;
    cpu->st.rflags = X86_F1;
    cpu->af = flags_pack(0);
    cpu->r[R_BLOCK_RIP] = CODE_AT;
    atomic_store(&cpu->pending, 0);
    for (unsigned n = 0; n < TLB_SIZE; n++) {
        cpu->tlb[n].tag_r = cpu->tlb[n].tag_w = TLB_INVALID(n);
    }
    for (unsigned n = 0; n < RAM_FAST_PAGES; n++) {
        struct tlb_entry *e = tlb_slot(cpu, RAM_AT + n * PAGE_SIZE);
        e->tag_r = e->tag_w = RAM_AT + n * PAGE_SIZE;
        e->addend = 0;
    }
    for (unsigned n = 0; n < N_SEGS; n++) {
        cpu->segbase[n] = 0;
        cpu->st.seg[n] = (struct x86_seg){ .limit = UINT32_MAX };
    }
    memset(ram, 0, RAM_SIZE);
    exclusive_calls = sys_calls = 0;
    sys_answer = false;
}

bool fixture_run(const uint8_t *bytes, size_t n)
{
    struct insn *i = &uops[0].i;
    if (insn_decode(bytes, n, cpu->mode & MODE_SIZE_MASK, UINT64_MAX, i) != DECODE_OK) {
        abort();
    }
    if (i->base == INSN_REG_RIP) {
        i->base = R_BLOCK_RIP;
        i->disp += i->len;
    } else if (i->base == INSN_REG_NONE) {
        i->base = R_ZERO;
    }
    if (i->index == INSN_REG_NONE) {
        i->index = R_ZERO;
    }
    if (i->form == F_J) {
        i->imm += i->len;
        i->disp = i->len;
    }
    interp_prepare(&uops[0], cpu->mode);
    uops[1].fn = interp_block_end;
    uops[1].i.imm = i->len;
    if (sigsetjmp(unwind, 0)) {
        cpu->rip = CODE_AT;
        return false;
    }
    const struct uop *u = uops;
    do {
        cpu->u = u;
        u = u->fn(cpu, u);
    } while (u);
    return true;
}
