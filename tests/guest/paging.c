/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * 4-level paging. Source: SDM vol. 3A chapter 4. The guest's own memory is mapped 1:1 for ring 0 only and again at USER for
 * ring 3; TEST is where pages come and go.
 */
#include "paging-matrix.h"

#define TEST 0x8000000000ul             /* PML4 entry 1 */
#define USER 0x10000000000ul            /* PML4 entry 2 */
#define PAGE 0x600000ul                 /* the test page: start of a 2 MiB page too */
enum { N_PTES = 512 };
extern uint64_t pml4[512], pdpt[512], pds[2048];
static uint64_t pdpt_t[512] ALIGNED(4096), pd_t[512] ALIGNED(4096), pt_t[512] ALIGNED(4096), pdpt_u[512] ALIGNED(4096), pml4_b[512] ALIGNED(4096);
static uint64_t pt_b[512] ALIGNED(4096), pd_b[512] ALIGNED(4096), pdpt_b[512] ALIGNED(4096);

static void set_entry(unsigned level, uint64_t e) { *(volatile uint64_t *)(level ? &pt_t[0] : &pd_t[0]) = e; }
static uint64_t get_entry(unsigned level) { return *(volatile uint64_t *)(level ? &pt_t[0] : &pd_t[0]); }

static struct paging four_level = {
    .name = "4-level", .nx = true, .large = true, .large_rsvd = 1 << 13, .pte_page = PAGE, .va = TEST, .user_alias = USER,
    .set = set_entry, .get = get_entry,
};

static void map(unsigned page, uint64_t pte)
{
    *(volatile uint64_t *)&pt_t[page] = pte;
    invlpg((void *)(TEST + page * 4096ul));
}

static void setup(void)
{
    for (unsigned i = 0; i < 2048; i++) {
        pds[i] &= ~PT_U;
    }
    pml4[1] = (ulong)pdpt_t | 7;
    pdpt_t[0] = (ulong)pd_t | 7;
    pd_t[0] = (ulong)pt_t | 7;
    pml4[2] = (ulong)pdpt_u | 7;
    uint64_t *pd = (uint64_t *)0x700000;        /* free memory */
    pdpt_u[0] = (ulong)pd | 7;
    for (unsigned i = 0; i < 512; i++) {
        pd[i] = i * 0x200000ul | PT_P | PT_W | PT_U | PT_PS;
    }
    write_cr3((ulong)pml4);
    memset((void *)PAGE, 0xc3, 4096);
    four_level.pde_table = (ulong)pt_t;
    four_level.pte_rsvd = phys_rsvd_bit();
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
}

static ulong read_byte(ulong va) { return TRY("movb (%0), %%al", :: "r"(va) : "eax", "memory"); }
static ulong write_byte(ulong va) { return TRY("movb $0xc3, (%0)", :: "r"(va) : "memory"); }
static uint64_t load(ulong va) { return *(volatile uint64_t *)va; }

static void upper_levels(void)
{
    map(0, PAGE | 7);
    pd_t[0] = (ulong)pt_t | 7;
    static const struct { uint64_t clear, set; ulong user_read, kernel_write, user_fetch; const char *name; } t[] = {
        { 0, 0, NO_TRAP, NO_TRAP, NO_TRAP, "all rights" }, { PT_U, 0, PF, NO_TRAP, PF, "U clear" }, { PT_W, 0, NO_TRAP, PF, NO_TRAP, "W clear" },
        { 0, PT_NX, NO_TRAP, NO_TRAP, PF, "NX" }, { PT_P, 0, PF, PF, PF, "P clear" },
    };
    for (unsigned level = 0; level < 2; level++) {
        volatile uint64_t *e = level ? &pdpt_t[0] : &pml4[1];
        put(level ? "PDPT entry:\n" : "PML4 entry:\n");
        for (unsigned i = 0; i < ARRAY_LEN(t); i++) {
            uint64_t old = *e & ~(PT_A | PT_D);
            ulong got[3];
            *e = (old & ~t[i].clear) | t[i].set;
            invlpg((void *)TEST);
            got[0] = access_user(&four_level, ACC_READ, TEST);
            got[1] = access_kernel(ACC_WRITE, TEST);
            got[2] = access_user(&four_level, ACC_FETCH, TEST);
            got[0] = got[0] == VEC_USER_DONE ? NO_TRAP : got[0];
            got[2] = got[2] == VEC_USER_DONE ? NO_TRAP : got[2];
            check(got[0] == t[i].user_read && got[1] == t[i].kernel_write && got[2] == t[i].user_fetch, t[i].name);
            if (!t[i].clear) {
                check_eq(*e & PT_A, PT_A, "A is set there");
            }
            *e = old;
            invlpg((void *)TEST);
        }
        *e |= PT_PS;
        if (level == 0) {
            invlpg((void *)TEST);
            check_eq(read_byte(TEST), PF, "PS in a PML4 entry is reserved");
            check_hw(caught.error, PFE_P | PFE_RSVD, "error code");         /* TCG: without P */
        }
        *e &= ~PT_PS;
        if (phys_rsvd_bit()) {
            *e |= phys_rsvd_bit();
            invlpg((void *)TEST);
            check_eq(read_byte(TEST), PF, "an address beyond MAXPHYADDR");
            check_hw(caught.error, PFE_P | PFE_RSVD, "error code");         /* TCG: without P */
            *e &= ~phys_rsvd_bit();
        }
        invlpg((void *)TEST);
    }
}

static void giant_pages(void)
{
    if (!(cpuid(0x80000001).d >> 26 & 1)) {
        skip("1 GiB pages", "not there");
        return;
    }
    pdpt_t[1] = PT_P | PT_W | PT_PS;
    ulong va = TEST + (1ul << 30);
    invlpg((void *)va);
    *(volatile uint64_t *)(PAGE + 8) = 0x1122334455667788;
    check_eq(load(va + PAGE + 8), 0x1122334455667788, "a 1 GiB page");
    check_eq(pdpt_t[1] & (PT_A | PT_D), PT_A, "A");
    *(volatile uint64_t *)(va + PAGE + 16) = 1;
    check_eq(pdpt_t[1] & (PT_A | PT_D), PT_A | PT_D, "D");
    *(volatile uint64_t *)&pdpt_t[1] = PT_P | PT_W | PT_PS | 1 << 13;
    invlpg((void *)(va + 0x12345678));
    check_eq(read_byte(va + PAGE), PF, "reserved bit of a 1 GiB page; INVLPG with any address in it");
    check_hw(caught.error, PFE_P | PFE_RSVD, "error code");         /* TCG: without P */
    *(volatile uint64_t *)&pdpt_t[1] = PT_P | PT_PS;
    invlpg((void *)va);
    check_eq(write_byte(va + PAGE), PF, "read-only 1 GiB page");
    *(volatile uint64_t *)&pdpt_t[1] = 0;
    invlpg((void *)va);
    check_eq(read_byte(va + 0x3fffffff), PF, "gone");
}

static void crossing(void)
{
    map(0, PAGE | 7);
    map(1, 0);
    map(2, (PAGE + 0x1000) | 7);
    check_eq(TRY("movl (%0), %%eax", :: "r"(TEST + 0xffe) : "eax", "memory"), PF, "a read over a page's end");
    check_eq(caught.cr2, TEST + 0x1000, "CR2 is the second page's first byte");
    *(volatile uint32_t *)(PAGE + 0xffc) = 0x11111111;
    check_eq(TRY("movl $-1, (%0)", :: "r"(TEST + 0xffe) : "memory"), PF, "a write over a page's end");
    check_eq(caught.cr2, TEST + 0x1000, "CR2");
    check_eq(caught.error, PFE_W, "error code");
    check_eq(*(volatile uint32_t *)(PAGE + 0xffc), 0x11111111, "the first page was not written");
    map(1, (PAGE + 0x2000) | 5);
    check_eq(TRY("addl $1, (%0)", :: "r"(TEST + 0xffe) : "memory", "cc"), PF, "a read-modify-write over a page's end, second read-only");
    check_eq(caught.error, PFE_W | PFE_P, "error code");
    check_eq(*(volatile uint32_t *)(PAGE + 0xffc), 0x11111111, "the first page was not written");
    check_eq(TRY("lock; addl $1, (%0)", :: "r"(TEST + 0xffe) : "memory", "cc"), PF, "the same with LOCK");
    check_eq(TRY("cmpl $0, (%0)", :: "r"(TEST + 0xffe) : "memory", "cc"), NO_TRAP, "a comparison only reads");
    check_eq(TRY("cmpxchgl %%ecx, (%0)", :: "r"(TEST + 0x1010), "a"(0x5555), "c"(1) : "memory", "cc"), PF, "CMPXCHG that fails still needs the right to write");
    check_eq(caught.error, PFE_W | PFE_P, "error code");
    map(1, (PAGE + 0x2000) | 7);
    *(volatile uint64_t *)(TEST + 0xffc) = 0x8877665544332211;
    check_eq(*(volatile uint32_t *)(PAGE + 0xffc), 0x44332211, "a write to two pages: first half");
    check_eq(*(volatile uint32_t *)(PAGE + 0x2000), 0x88776655, "second half");
    check_eq(load(TEST + 0xffc), 0x8877665544332211, "read back");
    __asm__ volatile("lock; addq $1, (%0)" :: "r"(TEST + 0xffc) : "memory", "cc");
    check_eq(load(TEST + 0xffc), 0x8877665544332212, "LOCK ADD over two pages");
    /* Code over a page's end: mov $imm32, %eax; ret */
    static const uint8_t code[] = { 0xb8, 0x78, 0x56, 0x34, 0x12, 0xc3 };
    memcpy((void *)(PAGE + 0xffe), code, 2);
    memcpy((void *)(PAGE + 0x2000), code + 2, 4);
    ulong r;
    __asm__ volatile("call *%1" : "=a"(r) : "r"(TEST + 0xffe) : "memory");
    check_eq(r, 0x12345678, "an instruction on two pages");
    map(1, 0);
    ulong sp;
    check_eq(TRY("mov %%rsp, %0; call *%1; 8: mov %0, %%rsp", : "=&r"(sp) : "r"(TEST + 0xffe) : "rax", "memory"), PF, "its second page is absent");
    check_eq(caught.cr2, TEST + 0x1000, "CR2");
    check_eq(caught.ip, TEST + 0xffe, "RIP");
    check_eq(caught.error, PFE_I, "error code");
    map(1, (PAGE + 0x2000) | 7 | PT_NX);
    check_eq(TRY("mov %%rsp, %0; call *%1; 8: mov %0, %%rsp", : "=&r"(sp) : "r"(TEST + 0xffe) : "rax", "memory"), PF, "its second page is NX");
    check_eq(caught.error, PFE_I | PFE_P, "error code");
    *(volatile uint8_t *)(PAGE + 0xfff) = 0xc3;
    map(1, 0);
    check_eq(TRY("call *%0", :: "r"(TEST + 0xfff) : "memory"), NO_TRAP, "RET as a page's last byte: the next page is not touched");
    map(1, 0);
    *(volatile uint8_t *)(PAGE + 0xffe) = 0x90;
    *(volatile uint8_t *)(PAGE + 0xfff) = 0x90;
    check_eq(TRY("mov %%rsp, %0; call *%1; 8: mov %0, %%rsp", : "=&r"(sp) : "r"(TEST + 0xffe) : "memory"), PF, "running off a page's end");
    check_eq(caught.ip, TEST + 0x1000, "RIP is behind the last instruction");
    check_eq(caught.cr2, TEST + 0x1000, "CR2");
    memset((void *)PAGE, 0xc3, 4096);
}

static void tlb(void)
{
    *(volatile uint64_t *)PAGE = 1;
    *(volatile uint64_t *)(PAGE + 0x1000) = 2;
    map(0, 0);
    check_eq(read_byte(TEST), PF, "an absent page");
    *(volatile uint64_t *)&pt_t[0] = PAGE | 7;
    check_eq(read_byte(TEST), NO_TRAP, "becoming present needs no INVLPG");
    *(volatile uint64_t *)&pt_t[0] = PAGE | 5;
    invlpg((void *)TEST);
    check_eq(write_byte(TEST + 100), PF, "read-only");
    *(volatile uint64_t *)&pt_t[0] = PAGE | 7;
    check_eq(write_byte(TEST + 100), NO_TRAP, "becoming writable needs no INVLPG after the fault");
    for (unsigned i = 0; i < 3; i++) {
        map(0, PAGE | 7);
        check_eq(load(TEST), 1, "first page");
        *(volatile uint64_t *)&pt_t[0] = (PAGE + 0x1000) | 7 | (i == 2 ? PT_G : 0);
        switch (i) {
        case 0: invlpg((void *)(TEST + 77)); break;
        case 1: write_cr3(read_cr3()); break;
        default: write_cr4(read_cr4() ^ CR4_PGE); break;
        }
        check_eq(load(TEST), 2, i == 0 ? "INVLPG" : i == 1 ? "MOV to CR3" : "toggling CR4.PGE");
    }
    write_cr4(read_cr4() | CR4_PGE);
    map(0, PAGE | 7 | PT_G);
    (void)load(TEST);
    *(volatile uint64_t *)&pt_t[0] = (PAGE + 0x1000) | 7 | PT_G;
    invlpg((void *)TEST);
    check_eq(load(TEST), 2, "INVLPG drops a global page");
    *(volatile uint64_t *)&pt_t[0] = PAGE | 7 | PT_G;
    write_cr4(read_cr4() & ~(ulong)CR4_PGE);
    check_eq(load(TEST), 1, "clearing CR4.PGE drops global pages");
    /* A page table seen through the page it maps: a write to it, INVLPG, and the new page is there. */
    map(1, (ulong)pt_t | 7);
    *(volatile uint64_t *)(TEST + 0x1000 + 0 * 8) = (PAGE + 0x1000) | 7;
    invlpg((void *)TEST);
    check_eq(load(TEST), 2, "a page table written through its own mapping");
    /* Another set of tables at the same address. */
    memcpy(pml4_b, pml4, sizeof(pml4_b));
    pml4_b[1] = (ulong)pdpt_b | 7;
    pdpt_b[0] = (ulong)pd_b | 7;
    pd_b[0] = (ulong)pt_b | 7;
    pt_b[0] = PAGE | 7;
    for (unsigned i = 0; i < 3; i++) {
        write_cr3((ulong)pml4_b);
        check_eq(load(TEST), 1, "second address space");
        write_cr3((ulong)pml4);
        check_eq(load(TEST), 2, "first address space");
    }
    map(0, PAGE | 5);
    (void)load(TEST);
    check_eq(write_byte(TEST + 100), PF, "CR0.WP");
    write_cr0(read_cr0() & ~(ulong)CR0_WP);
    check_eq(write_byte(TEST + 100), NO_TRAP, "a change of WP is seen at once");
    write_cr0(read_cr0() | CR0_WP);
    check_eq(write_byte(TEST + 100), PF, "in both directions");
    map(0, PAGE | 7 | PT_NX);
    check_eq(access_kernel(ACC_FETCH, TEST + 200), PF, "NX");
    map(0, PAGE | 7);
    check_eq(access_kernel(ACC_FETCH, TEST + 200), NO_TRAP, "no NX");
    /* Two addresses of one page, and many pages that fight for the same TLB slots. */
    map(2, PAGE | 7);
    *(volatile uint64_t *)(TEST + 0x2000) = 77;
    check_eq(load(TEST), 77, "two addresses of one page");
    for (unsigned i = 0; i < N_PTES; i++) {
        map(i, (PAGE + (i % 64) * 0x1000) | 7);
        *(volatile uint64_t *)(PAGE + (i % 64) * 0x1000) = i % 64;
    }
    bool good = true;
    for (unsigned i = 0; i < 8 * N_PTES; i++) {
        unsigned k = i * 97 % N_PTES;
        good &= load(TEST + k * 4096ul) == k % 64;
    }
    check(good, "512 pages in random order");
    memset((void *)PAGE, 0xc3, 64 * 4096);
}

static void large_to_small(void)
{
    *(volatile uint64_t *)&pd_t[0] = PAGE | 7 | PT_PS;
    write_cr3(read_cr3());
    *(volatile uint64_t *)(PAGE + 0x5000) = 5;
    *(volatile uint64_t *)(PAGE + 0x1f0000) = 6;
    check_eq(load(TEST + 0x5000), 5, "a 2 MiB page");
    check_eq(load(TEST + 0x1f0000), 6, "its end");
    map(5, (PAGE + 0x1000) | 7);
    *(volatile uint64_t *)(PAGE + 0x1000) = 9;
    *(volatile uint64_t *)&pd_t[0] = (ulong)pt_t | 7;
    invlpg((void *)(TEST + 0x10000));
    check_eq(load(TEST + 0x5000), 9, "INVLPG anywhere in a 2 MiB page drops all of it");
    memset((void *)(PAGE + 0x5000), 0xc3, 8);
}

static void control_bits(void)
{
    ulong cr0 = read_cr0(), cr3 = read_cr3(), cr4 = read_cr4();
    if (not_on_tcg("invalid values of CR0 and CR4")) {
        check_eq(TRY("mov %0, %%cr0", :: "r"(cr0 & ~(ulong)CR0_PE) : "memory"), GP, "PG without PE");
        check_eq(TRY("mov %0, %%cr0", :: "r"(cr0 | CR0_NW) : "memory"), GP, "NW without CD");
        check_eq(TRY("mov %0, %%cr0", :: "r"(cr0 | 1ul << 32) : "memory"), GP, "CR0 above bit 31");
        check_eq(TRY("mov %0, %%cr4", :: "r"(cr4 & ~(ulong)CR4_PAE) : "memory"), GP, "clearing PAE in long mode");
        check_eq(TRY("mov %0, %%cr4", :: "r"(cr4 | 1ul << 31) : "memory"), GP, "a reserved bit of CR4");
        check_eq(TRY("mov %0, %%cr4", :: "r"(cr4 | 1ul << 40) : "memory"), GP, "CR4 above bit 31");
        check_eq(try_wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(uint64_t)EFER_LME), GP, "clearing LME while paging is on");
        check_eq(TRY("mov %0, %%cr3", :: "r"(cr3 | 1ul << 60) : "memory"), GP, "CR3 beyond MAXPHYADDR");
    }
    check_hw(try_wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1 << 1), GP, "a reserved bit of EFER");   /* TCG masks it off */
    check_eq(read_cr0(), cr0, "nothing changed");
}

static void pcid(void)
{
    if (!(cpuid(1).c >> 17 & 1)) {
        skip("PCID", "not there");
        return;
    }
    check_eq(TRY("mov %0, %%cr3; mov %1, %%cr4", :: "r"((ulong)pml4 | 1 << 3), "r"(read_cr4() | CR4_PCIDE) : "memory"), GP,
             "setting PCIDE with CR3[11:0] nonzero");
    write_cr3((ulong)pml4);
    check_eq(TRY("mov %0, %%cr4", :: "r"(read_cr4() | CR4_PCIDE) : "memory"), NO_TRAP, "PCIDE");
    check_eq(TRY("mov %0, %%cr0", :: "r"(read_cr0() & ~CR0_PG) : "memory"), GP, "clearing PG with PCIDE");
    bool has_invpcid = cpuid2(7, 0).b >> 10 & 1;
    *(volatile uint64_t *)PAGE = 1;
    *(volatile uint64_t *)(PAGE + 0x1000) = 2;
    pt_b[0] = (PAGE + 0x1000) | 7;
    map(0, PAGE | 7);
    for (unsigned i = 0; i < 3; i++) {
        write_cr3((ulong)pml4_b | 2 | (i ? 1ul << 63 : 0));
        check_eq(load(TEST), 2, "PCID 2");
        write_cr3((ulong)pml4 | 1 | (i ? 1ul << 63 : 0));
        check_eq(load(TEST), 1, "PCID 1");
    }
    check_eq(read_cr3(), (ulong)pml4 | 1, "bit 63 is not stored");
    *(volatile uint64_t *)&pt_t[0] = (PAGE + 0x1000) | 7;
    invlpg((void *)TEST);
    check_eq(load(TEST), 2, "INVLPG works on the current PCID");
    pt_b[0] = PAGE | 7;
    write_cr3((ulong)pml4_b | 2);
    check_eq(load(TEST), 1, "MOV to CR3 without bit 63 flushes the new PCID");
    for (unsigned type = 0; has_invpcid && type < 4; type++) {
        struct { uint64_t pcid, lin; } d = { type < 2 ? 2 : 0, type ? 0 : TEST };
        pt_b[0] = PAGE | 7;
        write_cr3((ulong)pml4_b | 2);
        check_eq(load(TEST), 1, "before INVPCID");
        write_cr3((ulong)pml4 | 1 | 1ul << 63);
        pt_b[0] = (PAGE + 0x1000) | 7;
        __asm__ volatile("invpcid %0, %1" :: "m"(d), "r"((ulong)type) : "memory");
        write_cr3((ulong)pml4_b | 2 | 1ul << 63);
        static const char *const names[] = { "INVPCID of one address", "of one PCID", "of everything", "of everything but global pages" };
        check_eq(load(TEST), 2, names[type]);
    }
    if (has_invpcid) {
        struct { uint64_t pcid, lin; } d = { 2, 1ul << 63 };
        check_eq(TRY("invpcid %0, %1", :: "m"(d), "r"(4ul) : "memory"), GP, "INVPCID type 4");
        check_eq(TRY("invpcid %0, %1", :: "m"(d), "r"(0ul) : "memory"), GP, "INVPCID of a non-canonical address");
        d.pcid = 1 << 12;
        d.lin = 0;
        check_eq(TRY("invpcid %0, %1", :: "m"(d), "r"(1ul) : "memory"), GP, "INVPCID with reserved bits");
    } else {
        skip("INVPCID", "not there");
    }
    write_cr3((ulong)pml4);
    write_cr4(read_cr4() & ~(ulong)CR4_PCIDE);
}

static void smap_instructions(void)
{
    if (!(cpuid2(7, 0).b >> 20 & 1)) {
        return;
    }
    check_eq(TRY("stac; pushf; pop %%rax; clac", ::: "rax", "memory", "cc"), NO_TRAP, "STAC and CLAC in ring 0");
    map(0, PAGE | 7);
    write_cr4(read_cr4() | CR4_SMAP);
    check_eq(read_byte(TEST), PF, "SMAP");
    check_eq(TRY("stac; movb (%0), %%al; clac", :: "r"(TEST) : "rax", "memory", "cc"), NO_TRAP, "STAC opens it");
    check_eq(TRY("stac; clac; movb (%0), %%al", :: "r"(TEST) : "rax", "memory", "cc"), PF, "CLAC closes it");
    /* An implicit access (a descriptor) of a user page is never allowed, AC or not. */
    gdt[SEL_FREE / 8] = seg_desc((uint32_t)TEST, 0xfff, 0x82, 0);
    gdt[SEL_FREE / 8 + 1] = TEST >> 32;
    __asm__ volatile("lldt %w0" :: "r"(SEL_FREE));
    *(uint64_t *)(PAGE + 8) = seg_desc(0, 0xfffff, 0x92, 0xc);
    ulong v = TRY("stac; mov %0, %%es; clac", :: "r"(8 | 4) : "memory", "cc");
    __asm__ volatile("lldt %w0; mov %1, %%es" :: "r"(0), "r"(SEL_DATA));
    write_flags(2);
    check_hw(v, PF, "a descriptor table in a user page");         /* TCG treats it as an ordinary access */
    write_cr4(read_cr4() & ~(ulong)CR4_SMAP);
    check_eq(access_user(&four_level, ACC_READ, TEST), VEC_USER_DONE, "ring 3");
    memset((void *)PAGE, 0xc3, 4096);
}

extern const char u_loads_es[];
__asm__(".text\n u_loads_es: mov $0x2b, %eax\n mov %eax, %es\n int $0x80\n");

static void ring3_descriptor(void)
{
    /* Ring 3 loads a segment register while the table is supervisor memory: the access is implicit, hence supervisor's. */
    extern uint8_t user_stack[16384];
    check_eq(user_enter((ulong)u_loads_es + USER, 0, (ulong)user_stack + 8192 + USER), VEC_USER_DONE, "ring 3 loads ES from a supervisor page");
}

void guest_main(void)
{
    setup();
    paging_matrix(&four_level);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
    pd_t[0] = (ulong)pt_t | 7;
    upper_levels();
    giant_pages();
    crossing();
    tlb();
    large_to_small();
    control_bits();
    pcid();
    smap_instructions();
    ring3_descriptor();
}
