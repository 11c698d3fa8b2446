/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Page-table entries and CR3. Source: SDM vol. 3A §4.3 (32-bit), §4.4 (PAE), §4.5 (4- and 5-level). */
#ifndef LODGE_X86_PAGING_H
#define LODGE_X86_PAGING_H

#include <stdint.h>

enum {
    PTE_P = 1 << 0,
    PTE_W = 1 << 1,
    PTE_U = 1 << 2,
    PTE_PWT = 1 << 3,
    PTE_PCD = 1 << 4,
    PTE_A = 1 << 5,
    PTE_D = 1 << 6,
    PTE_PS = 1 << 7,            /* in an entry that may also point to a table: this one maps a page */
    PTE_PAT = 1 << 7,           /* in a 4 KiB page's entry */
    PTE_G = 1 << 8,
    PTE_PAT_LARGE = 1 << 12,    /* in a large page's entry */
};
#define PTE_NX (1ull << 63)
#define PTE_ADDR 0x000ffffffffff000ull          /* bits 51:12 */
#define PTE_PK_SHIFT 59                         /* protection key, bits 62:59 */
#define PTE_PK (0xfull << PTE_PK_SHIFT)

#define PDPTE_PAE_RSVD 0x00000000000001e6ull    /* reserved low bits of a PAE-mode PDPTE; besides those over MAXPHYADDR */
#define PDE32_PSE36_SHIFT 13                    /* 32-bit paging, 4 MiB page: entry bits 20:13 are address bits 39:32 */
#define PDE32_PSE36_MASK (0xffu << PDE32_PSE36_SHIFT)
#define PDE32_PSE36_RSVD (1u << 21)

#define CR3_PCID 0xfffull                       /* with CR4.PCIDE */
#define CR3_NOFLUSH (1ull << 63)                /* MOV to CR3 with CR4.PCIDE; never stored */
#define CR3_PAE_ADDR 0xffffffe0ull
enum { CR3_PWT = 1 << 3, CR3_PCD = 1 << 4 };

enum { PAGE_SHIFT_4K = 12, PAGE_SHIFT_2M = 21, PAGE_SHIFT_4M = 22, PAGE_SHIFT_1G = 30, PAGE_SHIFT_512G = 39, PAGE_SHIFT_256T = 48 };

/* The value with bit `bits` - 1 carried into all above, which is what a canonical address is already. */
static inline uint64_t canonical(uint64_t va, unsigned bits)
{
    return (uint64_t)((int64_t)(va << (64 - bits)) >> (64 - bits));
}

#endif
