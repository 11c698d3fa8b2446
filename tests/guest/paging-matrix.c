/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Access rights by brute force: each combination of PDE and PTE bits, kind of access, privilege, CR0.WP, EFER.NXE, CR4.SMEP,
 * CR4.SMAP and EFLAGS.AC against a model of SDM vol. 3A 4.6 (rights), 4.7 (error codes) and 4.8 (A and D). A flag of a
 * faulting walk is not looked at: the manual lets a CPU set it early.
 */
#include "paging-matrix.h"

struct context {
    bool wp, nxe, smep, smap, ac;
};

/* Ring 3: the access, then back. The first argument is RDI, or on the stack. */
extern const char acc_read[], acc_write[], acc_fetch[];
#ifdef __x86_64__
#define ARG ""
#define CX "%rcx"
__asm__(".text\n acc_read: movb (%rdi), %al\n int $0x80\n acc_write: movb $0xc3, (%rdi)\n int $0x80\n acc_fetch: call *%rdi\n int $0x80\n");
#else
__asm__(".text\n acc_read: movl 4(%esp), %ecx\n movb (%ecx), %al\n int $0x80\n acc_write: movl 4(%esp), %ecx\n movb $0xc3, (%ecx)\n int $0x80\n"
        "acc_fetch: movl 4(%esp), %ecx\n call *%ecx\n int $0x80\n");
#endif
extern uint8_t user_stack[16384];

ulong access_user(const struct paging *p, enum access a, ulong va)
{
    const char *const fn[] = { acc_read, acc_write, acc_fetch };
    ulong *sp = (ulong *)(user_stack + sizeof(user_stack)) - 4;
    sp[1] = va;
    return user_enter((ulong)fn[a] + p->user_alias, va, (ulong)sp + p->user_alias);
}

ulong access_kernel(enum access a, ulong va)
{
    ulong sp;
    switch (a) {
    case ACC_READ: return TRY("movb (%0), %%al", :: "r"(va) : "eax", "memory");
    case ACC_WRITE: return TRY("movb $0xc3, (%0)", :: "r"(va) : "memory");
#ifdef __x86_64__
    default: return TRY("mov %%rsp, %0; call *%1; 8: mov %0, %%rsp", : "=&r"(sp) : "r"(va) : "memory");
#else
    default: return TRY("mov %%esp, %0; call *%1; 8: mov %0, %%esp", : "=&r"(sp) : "r"(va) : "memory");
#endif
    }
}

uint64_t phys_rsvd_bit(void)
{
    unsigned bits = cpuid(0x80000000).a >= 0x80000008 ? cpuid(0x80000008).a & 255 : 36;
    return bits < 52 ? 1ull << bits : 0;
}

/* The model. Gives NO_TRAP or PF with *error. */
static ulong expected(const struct paging *p, const struct context *c, uint64_t pde, uint64_t pte, enum access a, bool user, uint64_t *error)
{
    uint64_t e = (a == ACC_WRITE ? PFE_W : 0) | (user ? PFE_U : 0) | (a == ACC_FETCH && ((c->nxe && p->nx) || c->smep) ? PFE_I : 0);
    uint64_t nx_rsvd = p->nx && !c->nxe ? PT_NX : 0;
    bool large = p->large && pde & PT_PS;
    uint64_t last = large ? pde : pte;
    *error = e;
    if (!(pde & PT_P)) {
        return PF;
    }
    *error = e | PFE_RSVD | (on_tcg ? 0 : PFE_P);       /* TCG leaves P clear then */
    if (pde & nx_rsvd || (large && pde & p->large_rsvd)) {
        return PF;
    }
    if (!large) {
        if (!(pte & PT_P)) {
            *error = e;
            return PF;
        }
        if (pte & (nx_rsvd | p->pte_rsvd)) {
            return PF;
        }
    }
    *error = e | PFE_P;
    bool w = pde & last & PT_W, u = pde & last & PT_U, nx = p->nx && (pde | last) & PT_NX;
    if (user) {
        return !u || (a == ACC_WRITE && !w) || (a == ACC_FETCH && nx) ? PF : NO_TRAP;
    }
    if (a == ACC_FETCH) {
        return nx || (c->smep && u) ? PF : NO_TRAP;
    }
    return (a == ACC_WRITE && !w && c->wp) || (c->smap && u && !c->ac) ? PF : NO_TRAP;
}

static unsigned n_bad;

static void report(const char *what, uint64_t pde, uint64_t pte, enum access a, bool user, uint64_t got, uint64_t want)
{
    if (n_bad++ >= 4) {
        return;
    }
    put(what);
    put(user ? " (ring 3 " : " (ring 0 ");
    put(a == ACC_READ ? "read" : a == ACC_WRITE ? "write" : "fetch");
    put(") PDE ");
    put_hex(pde);
    put(" PTE ");
    put_hex(pte);
    put(" got ");
    put_hex(got);
    put(" want ");
    put_hex(want);
    put("\n");
}

static void one(const struct paging *p, const struct context *c, uint64_t pde, uint64_t pte, enum access a, bool user)
{
    bool large = p->large && pde & PT_PS;
    p->set(1, pte);
    p->set(0, pde);
    invlpg((void *)p->va);
    uint64_t error;
    ulong want = expected(p, c, pde, pte, a, user, &error), got;
    if (user) {
        got = access_user(p, a, p->va);
        got = got == VEC_USER_DONE ? NO_TRAP : got;
    } else {
        if (c->ac) {
            write_flags(FL_AC | 2);
        }
        got = access_kernel(a, p->va);
        write_flags(2);
    }
    if (got != want) {
        report("vector", pde, pte, a, user, got, want);
        return;
    }
    if (got == PF) {
        if (caught.error != error) {
            report("error code", pde, pte, a, user, caught.error, error);
        }
        if (caught.cr2 != p->va) {
            report("CR2", pde, pte, a, user, caught.cr2, p->va);
        }
        if (!large && (p->get(1) & PT_D) != (pte & PT_D)) {
            report("D set by a fault", pde, pte, a, user, p->get(1), pte);
        }
        return;
    }
    uint64_t d = a == ACC_WRITE ? PT_D : 0;
    uint64_t pde_want = pde | PT_A | (large ? d : 0), pte_want = large ? pte : pte | PT_A | d;
    if (p->get(0) != pde_want) {
        report("PDE", pde, pte, a, user, p->get(0), pde_want);
    }
    if (p->get(1) != pte_want) {
        report("PTE", pde, pte, a, user, p->get(1), pte_want);
    }
}

static void all_accesses(const struct paging *p, const struct context *c, uint64_t pde, uint64_t pte)
{
    for (enum access a = ACC_READ; a <= ACC_FETCH; a++) {
        one(p, c, pde, pte, a, false);
        one(p, c, pde, pte, a, true);
    }
}

static void all_ptes(const struct paging *p, const struct context *c, uint64_t pde, bool with_ad)
{
    for (unsigned i = 0; i < 128; i++) {
        uint64_t pte = p->pte_page | (i & 1 ? PT_P : 0) | (i & 2 ? PT_W : 0) | (i & 4 ? PT_U : 0) | (i & 8 ? PT_NX : 0) |
                       (i & 16 ? p->pte_rsvd : 0) | (i & 32 ? PT_A : 0) | (i & 64 ? PT_D : 0);
        if ((i & 8 && !p->nx) || (i & 16 && !p->pte_rsvd) || (i & 96 && !with_ad)) {
            continue;
        }
        all_accesses(p, c, pde, pte);
    }
}

static void one_context(const struct paging *p, const struct context *c)
{
    char name[100], *n = name;
    const char *const parts[] = { p->name, ": rights, error codes, A and D", c->wp ? ", WP" : "", c->nxe ? ", NXE" : "", c->smep ? ", SMEP" : "",
                                  c->smap ? ", SMAP" : "", c->ac ? ", AC" : "" };
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        for (const char *s = parts[i]; *s; s++) {
            *n++ = *s;
        }
    }
    *n = 0;
    write_cr0((read_cr0() & ~(ulong)CR0_WP) | (c->wp ? CR0_WP : 0));
    write_cr4((read_cr4() & ~(ulong)(CR4_SMEP | CR4_SMAP)) | (c->smep ? CR4_SMEP : 0) | (c->smap ? CR4_SMAP : 0));
    if (p->nx) {
        wrmsr(MSR_EFER, (rdmsr(MSR_EFER) & ~(uint64_t)EFER_NXE) | (c->nxe ? EFER_NXE : 0));
    }
    n_bad = 0;
    const uint64_t rights[] = { PT_P | PT_W | PT_U, PT_P | PT_W, PT_P | PT_U, PT_P | PT_W | PT_U | PT_NX, PT_W | PT_U };
    for (unsigned i = 0; i < ARRAY_LEN(rights); i++) {
        if (rights[i] & PT_NX && !p->nx) {
            continue;
        }
        all_ptes(p, c, p->pde_table | rights[i], i == 0 && c->wp);
        for (unsigned ad = 0; p->large && ad < 4; ad++) {
            uint64_t pde = p->pte_page | rights[i] | PT_PS | (ad & 1 ? PT_A : 0) | (ad & 2 ? PT_D : 0);
            all_accesses(p, c, pde, 0);
            if (p->large_rsvd) {
                all_accesses(p, c, pde | p->large_rsvd, 0);
            }
        }
    }
    check_eq(n_bad, 0, name);
}

void paging_matrix(const struct paging *p)
{
    struct cpuid f = cpuid2(7, 0);
    bool smep = f.b >> 7 & 1, smap = f.b >> 20 & 1;
    if (!smep) {
        skip("SMEP", "not there");
    }
    if (!smap) {
        skip("SMAP", "not there");
    }
    for (unsigned i = 0; i < 32; i++) {
        struct context c = { .wp = i & 1, .nxe = i & 2, .smep = i & 4, .smap = i & 8, .ac = i & 16 };
        if ((c.smep && !smep) || (c.smap && !smap) || (c.nxe && !p->nx) || (c.ac && !c.smap)) {
            continue;
        }
        one_context(p, &c);
    }
    write_cr0(read_cr0() | CR0_WP);
    write_cr4(read_cr4() & ~(ulong)(CR4_SMEP | CR4_SMAP));
}
