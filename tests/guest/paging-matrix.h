/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef GUEST_PAGING_MATRIX_H
#define GUEST_PAGING_MATRIX_H

#include "rt/rt.h"

#define PT_P 1ull
#define PT_W 2ull
#define PT_U 4ull
#define PT_A 0x20ull
#define PT_D 0x40ull
#define PT_PS 0x80ull
#define PT_G 0x100ull
#define PT_NX (1ull << 63)
enum { PFE_P = 1, PFE_W = 2, PFE_U = 4, PFE_RSVD = 8, PFE_I = 16 };

/* How one paging mode is reached by the matrix: two levels of entries above one test page. */
struct paging {
    const char *name;
    bool nx;                    /* entries have bit 63 */
    uint64_t pde_table;         /* a PDE that points to the page table, without flags */
    uint64_t pte_page;          /* a PTE or large PDE that points to the test page, without flags */
    uint64_t pte_rsvd, large_rsvd;      /* a reserved bit of each; 0: none */
    bool large;
    ulong va;                   /* of the test page, offset 0 of both a small and a large page */
    ulong user_alias;           /* where ring 3 sees the guest's memory: address + this */
    void (*set)(unsigned level, uint64_t entry);        /* 0: PDE, 1: PTE */
    uint64_t (*get)(unsigned level);
};

/* Every combination of rights, privileges and control bits; one check a context. */
void paging_matrix(const struct paging *p);
/* One access by ring 3. Gives the vector. */
enum access { ACC_READ, ACC_WRITE, ACC_FETCH };
ulong access_user(const struct paging *p, enum access a, ulong va);
ulong access_kernel(enum access a, ulong va);
uint64_t phys_rsvd_bit(void);           /* lowest physical-address bit this CPU has not, or 0 */

#endif
