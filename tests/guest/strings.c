/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * String instructions: counts, directions, overlap, address sizes, and faults in the middle, after which RCX, RSI and RDI tell
 * how far it came and the instruction can go on. Source: SDM vol. 2B "REP", 2A/2B of each instruction.
 */
#include "rt/rt.h"

#define VA 0x8000000000ul               /* PML4 entry 1: pages come and go here */
extern uint64_t pml4[512];
static uint64_t pdpt_t[512] ALIGNED(4096), pd_t[512] ALIGNED(4096), pt_t[512] ALIGNED(4096);
static uint8_t pages[8][4096] ALIGNED(4096);

static void map(unsigned page, unsigned phys, uint64_t flags)
{
    *(volatile uint64_t *)&pt_t[page] = flags ? (ulong)pages[phys] | flags : 0;
    __asm__ volatile("invlpg (%0)" :: "r"(VA + page * 4096ul) : "memory");
}

struct str { ulong c, s, d, a; bool zf; };

#define STR(text, st) ({ struct str *s_ = (st); ulong v_ = TRY(text "; 8:", : "+c"(s_->c), "+S"(s_->s), "+D"(s_->d), "+a"(s_->a) :: "memory", "cc"); v_; })

/* TRY's outputs are read after the trap too: the handler's registers come back as they were. */
static void faults(void)
{
    map(0, 0, 3);
    map(1, 1, 3);
    map(2, 0, 0);
    map(3, 3, 1);
    for (unsigned i = 0; i < 4096; i++) {
        pages[4][i] = (uint8_t)(i * 7 + 1);
    }
    ulong src = (ulong)pages[4], dst = VA + 2 * 4096 - 100;
    struct str st = { .c = 300, .s = src, .d = dst };
    check_eq(STR("rep movsb", &st), PF, "REP MOVSB into an absent page");
    check_eq(caught.cr2, VA + 2 * 4096, "CR2");
    check_eq(caught.error, 2, "error code");
    check(st.c == 200 && st.s == src + 100 && st.d == dst + 100, "100 bytes were done");
    check(memcmp(pages[1] + 3996, pages[4], 100) == 0, "they are there");
    map(2, 2, 3);
    check_eq(STR("rep movsb", &st), NO_TRAP, "it goes on");
    check(st.c == 0 && st.s == src + 300 && st.d == dst + 300 && memcmp(pages[2], pages[4] + 100, 200) == 0, "to the end");
    map(2, 0, 0);
    st = (struct str){ .c = 10, .s = src, .d = VA + 2 * 4096 - 20 };
    check_eq(STR("rep movsq", &st), PF, "REP MOVSQ, an element over the page's end");
    check(st.c == 8 && st.d == VA + 2 * 4096 - 4, "whole elements only");
    check_eq(caught.cr2, VA + 2 * 4096, "CR2");
    st = (struct str){ .c = 50, .s = VA + 2 * 4096 - 20, .d = (ulong)pages[5] };
    check_eq(STR("rep movsb", &st), PF, "REP MOVSB out of an absent page");
    check_eq(caught.error, 0, "error code of a read");
    check(st.c == 30 && st.s == VA + 2 * 4096, "20 bytes were done");
    st = (struct str){ .c = 50, .d = VA + 3 * 4096 - 20, .a = 0x5a };
    map(2, 2, 3);
    check_eq(STR("rep stosb", &st), PF, "REP STOSB into a read-only page");
    check_eq(caught.error, 3, "error code");
    check(st.c == 30 && pages[2][4095] == 0x5a, "20 bytes were done");
    st = (struct str){ .c = 5, .d = VA + 3 * 4096 - 20, .a = 0x11223344 };
    check_eq(STR("rep stosl", &st), NO_TRAP, "REP STOSL up to the page's end");
    map(2, 0, 0);
    st = (struct str){ .c = 50, .s = VA + 2 * 4096 + 19, .d = VA + 2 * 4096 + 5 };
    map(2, 2, 3);
    map(1, 0, 0);
    check_eq(STR("std; rep movsb", &st), PF, "backwards into an absent page");
    __asm__ volatile("cld");
    check_eq(caught.cr2, VA + 2 * 4096 - 1, "CR2");
    check(st.c == 44 && st.d == VA + 2 * 4096 - 1, "6 bytes were done");
    map(1, 1, 3);
    map(2, 0, 0);
    memset(pages[1], 7, 4096);
    st = (struct str){ .c = 200, .d = VA + 2 * 4096 - 30, .a = 7 };
    check_eq(STR("repe scasb", &st), PF, "REPE SCASB into an absent page");
    check(st.c == 170 && st.d == VA + 2 * 4096, "30 bytes were compared");
    memset(pages[5], 7, 4096);
    st = (struct str){ .c = 200, .s = (ulong)pages[5], .d = VA + 2 * 4096 - 30 };
    check_eq(STR("repe cmpsb", &st), PF, "REPE CMPSB into an absent page");
    check(st.c == 170 && st.s == (ulong)pages[5] + 30, "30 bytes were compared");
    st = (struct str){ .c = 200, .s = VA + 2 * 4096 - 16 };
    check_eq(STR("rep lodsq", &st), PF, "REP LODSQ");
    check(st.c == 198 && st.a == 0x0707070707070707, "RAX keeps the last element");
    st = (struct str){ .c = 4, .s = VA + 2 * 4096 - 2 };
    check_eq(TRY("mov $0x80, %%dx; rep outsb; 8:", : "+c"(st.c), "+S"(st.s) :: "rdx", "memory"), PF, "REP OUTSB");
    check(st.c == 2 && st.s == VA + 2 * 4096, "2 bytes were written");
    st = (struct str){ .c = 4, .d = VA + 2 * 4096 - 2 };
    check_eq(TRY("mov $0x80, %%dx; rep insb; 8:", : "+c"(st.c), "+D"(st.d) :: "rdx", "memory"), PF, "REP INSB");
    check(st.c == 2 && st.d == VA + 2 * 4096, "2 bytes were read");
    st = (struct str){ .c = 0, .s = 1ul << 63, .d = VA + 2 * 4096 };
    check_eq(STR("rep movsb", &st), NO_TRAP, "RCX = 0 touches nothing");
    st = (struct str){ .c = 5, .s = (ulong)pages[4], .d = 0x7fffffffffff };
    check_eq(STR("rep movsb", &st), PF, "the last canonical byte is not mapped");
    st = (struct str){ .c = 5, .s = 1ul << 63, .d = (ulong)pages[4] };
    check_eq(STR("rep movsb", &st), GP, "a non-canonical source");
    check_eq(st.c, 5, "nothing was done");
}

static void plain(void)
{
    uint8_t *b = pages[6];
    for (unsigned i = 0; i < 256; i++) {
        b[i] = (uint8_t)i;
    }
    struct str st = { .c = 20, .s = (ulong)b, .d = (ulong)b + 1 };
    (void)STR("rep movsb", &st);
    bool same = true;
    for (unsigned i = 0; i <= 20; i++) {
        same &= b[i] == 0;
    }
    check(same && b[21] == 21, "overlapping MOVSB repeats the first byte");
    for (unsigned i = 0; i < 256; i++) {
        b[i] = (uint8_t)i;
    }
    st = (struct str){ .c = 8, .s = (ulong)b, .d = (ulong)b + 3 };
    (void)STR("rep movsl", &st);
    check(*(uint64_t *)(b + 3) == 0x0703020103020100 && b[34] == 31, "overlapping MOVSL goes by elements");
    for (unsigned i = 0; i < 256; i++) {
        b[i] = (uint8_t)i;
    }
    st = (struct str){ .c = 100, .s = (ulong)b + 99, .d = (ulong)b + 109 };
    (void)STR("std; rep movsb; cld", &st);
    same = true;
    for (unsigned i = 0; i < 100; i++) {
        same &= b[i + 10] == i;
    }
    check(same && st.s == (ulong)b - 1 && st.d == (ulong)b + 9, "backwards over itself");
    st = (struct str){ .c = 100, .d = (ulong)b, .a = 50 };
    memset(b, 0, 100);
    b[57] = 50;
    (void)TRY("repne scasb; setz %1; 8:", : "+c"(st.c), "=m"(st.zf), "+D"(st.d) : "a"(50) : "memory", "cc");
    check(st.c == 42 && st.d == (ulong)b + 58 && st.zf, "REPNE SCASB stops behind the hit");
    memset(pages[5], 0, 100);
    pages[5][57] = 51;
    st = (struct str){ .c = 100, .s = (ulong)b, .d = (ulong)pages[5] };
    (void)TRY("repe cmpsb; setb %1; 8:", : "+c"(st.c), "=m"(st.zf), "+D"(st.d), "+S"(st.s) :: "memory", "cc");
    check(st.c == 42 && st.zf, "REPE CMPSB stops behind the difference, flags of 50 - 51");
    /* REP with no iteration leaves the flags. */
    bool z;
    st = (struct str){ .c = 0, .s = (ulong)b, .d = (ulong)b };
    (void)TRY("cmp $1, %%ecx; repe cmpsb; setz %1; 8:", : "+c"(st.c), "=m"(z), "+D"(st.d), "+S"(st.s) :: "memory", "cc");
    check(!z, "REPE CMPSB with RCX = 0 leaves the flags");
    /* 67: 32-bit counts and addresses; the upper halves are cleared when they are written. */
    st = (struct str){ .c = 0x100000000ul + 3, .s = 0x100000000ul + (ulong)b, .d = 0x100000000ul + (ulong)pages[5] };
    (void)STR(".byte 0x67; rep movsb", &st);
    check(st.c == 0 && st.s == (ulong)b + 3 && st.d == (ulong)pages[5] + 3, "address size 32");
    ulong c = 0x100000000ul;
    __asm__ volatile("jecxz 1f; mov $1, %%ecx; 1:" : "+c"(c));
    check_eq(c, 0x100000000ul, "JECXZ looks at ECX and changes nothing");
    c = 0x100000002ul;
    unsigned n = 0;
    __asm__ volatile("1: incl %1; .byte 0x67; loop 1b" : "+c"(c), "+r"(n) :: "cc");
    check(n == 2 && c == 0, "LOOP with address size 32");
    /* DS override is honoured in the source only; FS adds its base. */
    wrmsr(MSR_FS_BASE, 0x1000);
    st = (struct str){ .c = 4, .s = (ulong)b + 50 - 0x1000, .d = (ulong)pages[5] };
    memset(b + 50, 0x77, 4);
    (void)STR(".byte 0x64; rep movsb", &st);
    check_eq(*(uint32_t *)pages[5], 0x77777777, "FS: on the source");
    wrmsr(MSR_FS_BASE, 0);
    /* Large ones over many pages. */
    for (unsigned i = 0; i < 8; i++) {
        map(i, 7 - i, 3);
    }
    for (unsigned i = 0; i < 4096; i++) {
        ((uint64_t *)VA)[i] = i * 0x0101010101ul;
    }
    static uint64_t copy[4096];
    st = (struct str){ .c = 4095, .s = VA + 3, .d = (ulong)copy + 3 };
    (void)STR("rep movsq", &st);
    bool good = true;
    for (unsigned i = 1; i < 4095; i++) {
        good &= copy[i] == i * 0x0101010101ul;
    }
    check(good, "32 KiB over pages in any order, unaligned");
    st = (struct str){ .c = 32768, .d = VA, .a = 0xee };
    (void)STR("rep stosb", &st);
    good = true;
    for (unsigned i = 0; i < 4096; i++) {
        good &= ((volatile uint64_t *)VA)[i] == 0xeeeeeeeeeeeeeeee;
    }
    check(good && st.d == VA + 32768, "REP STOSB over 8 pages");
}

static volatile unsigned irqs;
static volatile ulong irq_c;
static void on_timer(struct regs *r)
{
    if (!irqs++) {
        irq_c = r->cx;
    }
    outb(0x20, 0x20);
}

static void interrupted(void)
{
    outb(0x20, 0x11);
    outb(0x21, 0x20);
    outb(0x21, 4);
    outb(0x21, 1);
    outb(0x21, 0xfe);
    trap_handlers[0x20] = on_timer;
    outb(0x43, 0x34);
    outb(0x40, 1193 & 255);
    outb(0x40, 1193 >> 8);
    uint8_t *big = (uint8_t *)0x1000000;                /* 16 MiB, 4 MiB long */
    ulong c = 4 << 20;
    void *d = big;
    unsigned rounds = 0;
    do {
        c = 4 << 20;
        d = big;
        __asm__ volatile("sti; rep stosb; cli" : "+c"(c), "+D"(d) : "a"(rounds) : "memory");
    } while ((!irqs || (!irq_c && !on_tcg)) && ++rounds < 50);
    outb(0x21, 0xff);
    check(irqs > 0, "an interrupt during a long REP STOSB");
    check(c == 0 && d == big + (4 << 20) && big[0] == (uint8_t)rounds && big[(4 << 20) - 1] == (uint8_t)rounds, "it is complete all the same");
}

void guest_main(void)
{
    pml4[1] = (ulong)pdpt_t | 3;
    pdpt_t[0] = (ulong)pd_t | 3;
    pd_t[0] = (ulong)pt_t | 3;
    faults();
    plain();
    interrupted();
}
