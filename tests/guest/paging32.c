/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 32-bit paging with 4 MiB pages, and PAE with its PDPTE registers. Sources: SDM vol. 3A 4.3, 4.4. */
#include "paging-matrix.h"

#define TEST 0x80000000ul
#define USER 0x40000000ul
#define PAGE 0x800000ul                 /* start of a 4 MiB page too */
static uint32_t pd[1024] ALIGNED(4096), pt[1024] ALIGNED(4096);
static uint64_t pdpt[4] ALIGNED(32), pae_pd[3][512] ALIGNED(4096), pae_pt[512] ALIGNED(4096), pae_pd_b[512] ALIGNED(4096), pae_pt_b[512] ALIGNED(4096);

static void set32(unsigned level, uint64_t e) { *(volatile uint32_t *)(level ? &pt[0] : &pd[512]) = (uint32_t)e; }
static uint64_t get32(unsigned level) { return *(volatile uint32_t *)(level ? &pt[0] : &pd[512]); }
static void set_pae(unsigned level, uint64_t e) { *(volatile uint64_t *)(level ? &pae_pt[0] : &pae_pd[2][0]) = e; }
static uint64_t get_pae(unsigned level) { return *(volatile uint64_t *)(level ? &pae_pt[0] : &pae_pd[2][0]); }

static struct paging two_level = {
    .name = "32-bit", .large = true, .large_rsvd = 1 << 21, .pte_page = PAGE, .va = TEST, .user_alias = USER, .set = set32, .get = get32,
};
static struct paging pae = {
    .name = "PAE", .nx = true, .large = true, .large_rsvd = 1 << 13, .pte_page = PAGE, .va = TEST, .user_alias = USER, .set = set_pae, .get = get_pae,
};

static uint32_t load(ulong va) { return *(volatile uint32_t *)va; }

static void test_32bit(void)
{
    for (unsigned i = 0; i < 8; i++) {
        pd[i] = i << 22 | PT_P | PT_W | PT_PS;
        pd[256 + i] = i << 22 | PT_P | PT_W | PT_U | PT_PS;
    }
    memset((void *)PAGE, 0xc3, 4096);
    write_cr4(read_cr4() | CR4_PSE);
    write_cr3((ulong)pd);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
    check(true, "32-bit paging is on");
    two_level.pde_table = (ulong)pt;
    paging_matrix(&two_level);
    pd[512] = (ulong)pt | 7;
    pt[0] = PAGE | 7;
    write_cr3((ulong)pd);
    *(volatile uint32_t *)PAGE = 11;
    *(volatile uint32_t *)(PAGE + 0x1000) = 22;
    check_eq(load(TEST), 11, "a 4 KiB page");
    *(volatile uint32_t *)&pt[0] = (PAGE + 0x1000) | 7;
    invlpg((void *)TEST);
    check_eq(load(TEST), 22, "INVLPG");
    *(volatile uint32_t *)&pt[1] = 0;
    check_eq(TRY("movl (%0), %%eax", :: "r"(TEST + 0xffe) : "eax", "memory"), PF, "a read over a page's end");
    check_eq(caught.cr2, TEST + 0x1000, "CR2");
    *(volatile uint32_t *)&pd[512] = PAGE | 7 | PT_PS;
    write_cr3((ulong)pd);
    check_eq(load(TEST + 0x1000), 22, "a 4 MiB page");
    write_cr0(read_cr0() & ~CR0_PG);
    check(true, "paging is off again");
}

static void pae_registers(void)
{
    /* The four PDPTEs are read at MOV to CR3 and kept. */
    pae_pt[0] = PAGE | 7;
    pae_pd[2][0] = (ulong)pae_pt | 7;
    pae_pd_b[0] = (ulong)pae_pt_b | 7;
    pae_pt_b[0] = (PAGE + 0x1000) | 7;
    *(volatile uint32_t *)PAGE = 11;
    *(volatile uint32_t *)(PAGE + 0x1000) = 22;
    write_cr3((ulong)pdpt);
    check_eq(load(TEST), 11, "PAE: first table");
    *(volatile uint64_t *)&pdpt[2] = (ulong)pae_pd_b | 1;
    invlpg((void *)TEST);
    check_hw(load(TEST), 11, "a PDPTE changed in memory is not seen");      /* TCG reads it at each walk */
    write_cr3((ulong)pdpt);
    check_eq(load(TEST), 22, "until MOV to CR3");
    *(volatile uint64_t *)&pdpt[2] = (ulong)pae_pd[2] | 1 | 2;
    check_hw(TRY("mov %0, %%cr3", :: "r"(pdpt) : "memory"), GP, "a reserved bit in a PDPTE: #GP of MOV to CR3");
    *(volatile uint64_t *)&pdpt[2] = 0;
    write_cr3((ulong)pdpt);
    check_eq(access_kernel(ACC_READ, TEST), PF, "a PDPTE that is not present");
    check_eq(caught.error, 0, "error code");
    *(volatile uint64_t *)&pdpt[2] = (ulong)pae_pd[2] | 1;
    write_cr3((ulong)pdpt);
    check_eq(load(TEST), 11, "back again");
}

static void test_pae(void)
{
    pdpt[0] = (ulong)pae_pd[0] | 1;
    pdpt[1] = (ulong)pae_pd[1] | 1;
    pdpt[2] = (ulong)pae_pd[2] | 1;
    for (unsigned i = 0; i < 16; i++) {
        pae_pd[0][i] = (uint64_t)i << 21 | PT_P | PT_W | PT_PS;
        pae_pd[1][i] = (uint64_t)i << 21 | PT_P | PT_W | PT_U | PT_PS;
    }
    memset((void *)PAGE, 0xc3, 4096);
    write_cr4(read_cr4() | CR4_PAE);
    write_cr3((ulong)pdpt);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
    check(true, "PAE paging is on");
    pae.pde_table = (ulong)pae_pt;
    pae.pte_rsvd = phys_rsvd_bit();
    paging_matrix(&pae);
    pae_registers();
    write_cr0(read_cr0() & ~CR0_PG);
}

void guest_main(void)
{
    test_32bit();
    test_pae();
}
