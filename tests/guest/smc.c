/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Self-modifying code on one CPU: a store is seen by the next instruction that is fetched through the same linear address; after
 * a branch, or a serializing instruction for another alias. Source: SDM vol. 3A 11.6, 8.1.3.
 */
#include "rt/rt.h"

#define VA 0x8000000000ul
extern uint64_t pml4[512];
static uint64_t pdpt_t[512] ALIGNED(4096), pd_t[512] ALIGNED(4096), pt_t[512] ALIGNED(4096);
static uint8_t code[3 * 4096] ALIGNED(4096);
typedef uint32_t fn(void);
#define CALL(at) ((fn *)(ulong)(at))()

static void write_mov(uint8_t *p, uint32_t v)           /* mov $v, %eax; ret */
{
    p[0] = 0xb8;
    *(volatile uint32_t *)(p + 1) = v;
    p[5] = 0xc3;
}

static void next_instruction(void)
{
    uint32_t r;
    /* The store changes the immediate of the instruction right behind it, in a straight line. */
    __asm__ volatile("movl $1, 2f+1\n movl $0x22, 2f+1\n 2: movl $0x11, %%eax" : "=a"(r) :: "memory");
    check_eq(r, 0x22, "the next instruction");
    __asm__ volatile("movl $0x33, 3f+1\n nop\n nop\n incl %%ecx\n 3: movl $0x11, %%eax" : "=a"(r) :: "rcx", "memory");
    check_eq(r, 0x33, "one further on in the same block");
    __asm__ volatile("movb $0x90, 4f\n movb $0x90, 4f+1\n 4: ud2\n movl $1, %%eax" : "=a"(r) :: "memory");
    check_eq(r, 1, "UD2 becomes two NOPs just in time");
    __asm__ volatile("movl $5, %%ecx\n xorl %%eax, %%eax\n 5: addl $0x10, %%eax\n incb 5b+2\n loop 5b" : "=a"(r) :: "rcx", "memory", "cc");
    check_eq(r, 0x10 + 0x11 + 0x12 + 0x13 + 0x14, "a loop that changes its own immediate each time round");
    __asm__ volatile("lea 6f(%%rip), %%rdi\n mov $0x90, %%al\n mov $2, %%ecx\n rep stosb\n 6: ud2\n movl $2, %%eax" : "=a"(r) :: "rcx", "rdi", "memory");
    check_eq(r, 2, "REP STOSB over the next instruction");
    __asm__ volatile("jmp 1f\n 2: movl $0x44, %%eax\n jmp 3f\n 1: movl $0x55, 2b+1\n jmp 2b\n 3:" : "=a"(r) :: "memory");
    check_eq(r, 0x55, "the target of the next branch");
    __asm__ volatile("lock; addl $0x11, 2f+1\n 2: movl $0x11, %%eax" : "=a"(r) :: "memory", "cc");
    check_eq(r, 0x22, "a locked store");
    __asm__ volatile("movl $0x77, %%eax; xchgl %%eax, 2f+1\n 2: movl $0x11, %%eax" : "=a"(r) :: "memory");
    check_eq(r, 0x77, "XCHG");
}

static void across_pages(void)
{
    uint8_t *p = code + 4096 - 3;
    write_mov(p, 0x11223344);
    check_eq(CALL(p), 0x11223344, "an instruction on two pages");
    code[4096] = 0x99;                                  /* third byte of the immediate */
    check_eq(CALL(p), 0x11993344 & 0xffffffff, "a write to its second page");
    code[4095] = 0x88;
    check_eq(CALL(p), 0x11998844, "a write to its first page");
    uint8_t bytes[8] = { 0x90, 0xb8, 1, 2, 3, 4, 0xc3, 0x90 };
    for (unsigned i = 0; i < 8; i++) {
        ((volatile uint8_t *)code)[4092 + i] = bytes[i];
    }
    check_eq(CALL(code + 4092), 0x04030201, "byte by byte");
    *(volatile uint64_t *)(code + 4092) = 0x90c30a0b0c0db890;
    check_eq(CALL(code + 4092), 0x0a0b0c0d, "by one store over both pages");
}

static void aliases(void)
{
    write_mov(code, 1);
    *(volatile uint64_t *)&pt_t[0] = (ulong)code | 3;
    *(volatile uint64_t *)&pt_t[1] = (ulong)code | 3;
    check_eq(CALL(VA), 1, "code at another address");
    *(volatile uint32_t *)(code + 1) = 2;
    (void)cpuid(0);
    check_eq(CALL(VA), 2, "a write through another address");
    check_eq(CALL(VA + 4096), 2, "seen at a third");
    *(volatile uint32_t *)(VA + 4096 + 1) = 3;
    (void)cpuid(0);
    check_eq(CALL(code), 3, "a write through an alias");
    check_eq(CALL(VA), 3, "seen at all of them");
    write_mov(code + 4096, 9);
    *(volatile uint64_t *)&pt_t[0] = ((ulong)code + 4096) | 3;
    invlpg((void *)VA);
    check_eq(CALL(VA), 9, "another page at the same address");
    check_eq(CALL(VA + 4096), 3, "the first page elsewhere");
    *(volatile uint64_t *)&pt_t[0] = (ulong)code | 3;
    invlpg((void *)VA);
    check_eq(CALL(VA), 3, "back again");
    /* A page that is executed, freed, used as data, then executed again. */
    bool good = true;
    for (uint32_t i = 0; i < 2000; i++) {
        *(volatile uint32_t *)(code + 1) = i;
        good &= CALL(code) == i;
        ((volatile uint32_t *)code)[100 + i % 500] = i;
    }
    check(good, "2000 rewrites beside data in the same page");
    uint8_t *p = code + 2048;
    good = true;
    for (uint32_t i = 0; i < 300; i++) {
        p = code + (i * 29) % 4000;
        write_mov(p, i ^ 0x5555);
        good &= CALL(p) == (i ^ 0x5555);
    }
    check(good, "code made at 300 places");
    /* Page tables that hold code: the walker reads what the store wrote. */
    write_mov(code, 5);
    memcpy(code + 8192, code, 64);
    check_eq(CALL(code + 8192), 5, "copied code");
    memset(code + 8192, 0xc3, 64);
    check_eq(TRY("call *%0", :: "r"(code + 8192) : "rax", "memory"), NO_TRAP, "cleared code");
    for (uint32_t i = 0; i < 8; i++) {
        write_mov(code + 8192 + 8 * i, i);
    }
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 8; i++) {
        sum += CALL(code + 8192 + 8 * i);
    }
    check_eq(sum, 28, "eight functions in a line");
    memcpy(code, code + 8192, 64);
    void *d = code + 8192, *s = code;
    ulong n = 8;
    *(volatile uint32_t *)(code + 1) = 100;
    __asm__ volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(n) :: "memory");
    check_eq(CALL(code + 8192), 100, "REP MOVSQ over code");
}

/* A fault in the middle of a block whose later part was just rewritten must show the new bytes. */
static void rewritten_then_fault(void)
{
    for (uint32_t i = 0; i < 3; i++) {
        uint8_t text[] = { 0xc6, 0x05, 1, 0, 0, 0, 0x0f /* movb $0x0f, 1(%rip): the byte after the NOP */, 0x90, 0x90, 0x0b, 0xc3 };
        memcpy(code, text, sizeof(text));
        ulong sp;
        check_eq(TRY("mov %%rsp, %0; call *%1; 8: mov %0, %%rsp", : "=&r"(sp) : "r"(code) : "rax", "rcx", "memory", "cc"), UD, "a store that makes UD2 ahead of itself");
        check_eq(caught.ip, (ulong)code + 8, "RIP");
    }
}

void guest_main(void)
{
    pml4[1] = (ulong)pdpt_t | 3;
    pdpt_t[0] = (ulong)pd_t | 3;
    pd_t[0] = (ulong)pt_t | 3;
    next_instruction();
    across_pages();
    aliases();
    rewritten_then_fault();
}
