/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runtime of the bare-metal guests: output on the first serial port, numbered checks, traps that a check can catch, ring 3,
 * further CPUs. One source for 32-bit and 64-bit guests; `ulong` is a register. Memory is mapped 1:1 (64-bit: the first
 * 4 GiB in 2 MiB pages, user-accessible; 32-bit: no paging). Interrupts are off unless a guest turns them on.
 */
#ifndef GUEST_RT_H
#define GUEST_RT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef unsigned long ulong;
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define ALIGNED(n) __attribute__((aligned(n)))
#define NOINLINE __attribute__((noinline))

void guest_main(void);                  /* each guest's own; finish() follows */

/* --- checks --- */
/* Numbers the check, prints it, and remembers the first that fails: its number is the guest's exit value. */
void check(bool ok, const char *name);
void check_eq(uint64_t got, uint64_t want, const char *name);
/*
 * As check_eq, for what QEMU's TCG (the oracle) is known to do otherwise: under TCG the difference is only printed. The
 * manual decides here; say which rule TCG lacks.
 */
void check_hw(uint64_t got, uint64_t want, const char *name);
/* For what would hurt under TCG: if (not_on_tcg("name")) { check... }. Says so when it is not tried. */
bool not_on_tcg(const char *name);
void skip(const char *name, const char *why);
void put(const char *s);
void put_hex(uint64_t v);
void put_dec(uint64_t v);
_Noreturn void finish(void);
_Noreturn void die(const char *why);    /* exit value 255 */
extern bool on_tcg;
/* Number after "NAME=" on the kernel's command line. */
ulong option(const char *name, ulong otherwise);

/* --- traps --- */
struct regs {
#ifdef __x86_64__
    ulong r15, r14, r13, r12, r11, r10, r9, r8;
    ulong di, si, bp, bx, dx, cx, ax;
    ulong vector, error, ip, cs, flags, sp, ss;
#else
    ulong di, si, bp, unused, bx, dx, cx, ax;
    ulong es, ds;
    ulong vector, error, ip, cs, flags, sp, ss /* sp, ss: only from an outer ring */;
#endif
};
typedef void trap_fn(struct regs *r);
extern trap_fn *trap_handlers[256];     /* asked first; NULL: caught by TRY or user_call, else the guest dies */

/* What the last TRY or user_call met. */
struct caught {
    ulong start, resume;                /* address of the tried instruction, and where to go on; 0: nothing is tried */
    ulong vector, error, cr2, ip, flags, cs, sp, ss, ax, dx;
};
extern volatile struct caught caught;
enum { NO_TRAP = 256, VEC_USER_DONE = 0x80 };

/*
 * Executes assembly text and gives the vector it raised, or NO_TRAP. caught.* says the rest; caught.ip == caught.start when
 * the text's first instruction faulted. TRY("mov (%0), %%al", :: "r"(p) : "eax", "memory")
 */
#ifdef __x86_64__
#define CAUGHT_RESUME "caught+8"
#else
#define CAUGHT_RESUME "caught+4"
#endif
#define TRY(text, ...) ({ \
    caught.vector = NO_TRAP; \
    __asm__ volatile("movl $7f, caught\n movl $8f, " CAUGHT_RESUME "\n 7: " text "\n 8: movl $0, " CAUGHT_RESUME __VA_ARGS__); \
    caught.vector; })

/* Flat selectors of both runtimes; from SEL_FREE to SEL_FREE_END and in the LDT a guest puts what it likes. */
enum {
    SEL_CODE = 0x08, SEL_DATA = 0x10, SEL_CODE32 = 0x18,
    SEL_USER_CODE32 = 0x23, SEL_USER_DATA = 0x2b, SEL_USER_CODE64 = 0x33,
    SEL_CODE16 = 0x38, SEL_DATA16 = 0x40, SEL_FREE = 0x48, SEL_FREE_END = 0x100,
    SEL_TSS0 = 0x100 /* one each 16 bytes */, GDT_SIZE = 0x200,
};
extern uint64_t gdt[GDT_SIZE / 8];
struct gate { uint64_t lo;
#ifdef __x86_64__
    uint64_t hi;
#endif
};
extern struct gate idt[256];
extern const char trap_stubs[];         /* 16 bytes each */
struct table_ptr { uint16_t limit; ulong base; } __attribute__((packed));
enum { GATE_TASK = 5, GATE_CALL16 = 4, GATE_INT16 = 6, GATE_CALL = 12, GATE_INT = 14, GATE_TRAP = 15 };
void gate_set(struct gate *g, ulong target, uint16_t sel, unsigned type, unsigned dpl, unsigned ist);
void idt_reset(void);                   /* every vector to its stub; 3, 4 and 80 reachable from ring 3 */
uint64_t seg_desc(uint32_t base, uint32_t limit, unsigned access, unsigned flags);     /* access: P DPL S type; flags: G B L AVL */

#ifdef __x86_64__
struct tss { uint32_t r0; uint64_t rsp[3], r1, ist[7], r2; uint16_t r3, iomap; uint8_t io[8193]; } __attribute__((packed));
#else
struct tss {
    uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
    uint32_t es, cs, ss, ds, fs, gs, ldt;
    uint16_t trap, iomap;
    uint8_t io[8193];
} __attribute__((packed));
#endif
extern struct tss tss[];

/*
 * Runs fn(arg) in ring 3 and gives the vector it came back by: VEC_USER_DONE when it executed int $0x80 (its RAX is
 * caught.ax; returning from fn does that too). user_cs, user_ss and user_flags may be changed before.
 */
ulong user_call(ulong (*fn)(ulong arg), ulong arg);
ulong user_enter(ulong ip, ulong arg, ulong sp);
extern ulong user_cs, user_ss, user_flags;
_Noreturn void user_leave(void);        /* from a trap handler: what it met becomes user_call's result */
void caught_from(const struct regs *r);

/* --- instructions --- */
static inline void outb(uint16_t p, uint8_t v) { __asm__ volatile("outb %0, %1" :: "a"(v), "Nd"(p) : "memory"); }
static inline void outw(uint16_t p, uint16_t v) { __asm__ volatile("outw %0, %1" :: "a"(v), "Nd"(p) : "memory"); }
static inline void outl(uint16_t p, uint32_t v) { __asm__ volatile("outl %0, %1" :: "a"(v), "Nd"(p) : "memory"); }
static inline uint8_t inb(uint16_t p) { uint8_t v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(p) : "memory"); return v; }
static inline uint16_t inw(uint16_t p) { uint16_t v; __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(p) : "memory"); return v; }
static inline uint32_t inl(uint16_t p) { uint32_t v; __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(p) : "memory"); return v; }
static inline void cli(void) { __asm__ volatile("cli" ::: "memory"); }
static inline void sti(void) { __asm__ volatile("sti" ::: "memory"); }
static inline void cpu_pause(void) { __asm__ volatile("pause" ::: "memory"); }
static inline void sti_hlt_cli(void) { __asm__ volatile("sti; hlt; cli" ::: "memory"); }
static inline ulong read_flags(void) { ulong f; __asm__ volatile("pushf; pop %0" : "=r"(f) :: "memory"); return f; }
static inline void write_flags(ulong f) { __asm__ volatile("push %0; popf" :: "r"(f) : "memory", "cc"); }
static inline uint64_t rdtsc(void) { uint32_t a, d; __asm__ volatile("lfence; rdtsc" : "=a"(a), "=d"(d) :: "memory"); return (uint64_t)d << 32 | a; }
static inline uint64_t rdmsr(uint32_t n) { uint32_t a, d; __asm__ volatile("rdmsr" : "=a"(a), "=d"(d) : "c"(n) : "memory"); return (uint64_t)d << 32 | a; }
static inline void wrmsr(uint32_t n, uint64_t v) { __asm__ volatile("wrmsr" :: "c"(n), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory"); }
/* Vector raised, or NO_TRAP. */
ulong try_rdmsr(uint32_t n, uint64_t *v);
ulong try_wrmsr(uint32_t n, uint64_t v);
struct cpuid { uint32_t a, b, c, d; };
static inline struct cpuid cpuid2(uint32_t leaf, uint32_t sub)
{
    struct cpuid r;
    __asm__ volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(sub) : "memory");
    return r;
}
static inline struct cpuid cpuid(uint32_t leaf) { return cpuid2(leaf, 0); }
#define CR_FN(n) \
    static inline ulong read_cr##n(void) { ulong v; __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v) :: "memory"); return v; } \
    static inline void write_cr##n(ulong v) { __asm__ volatile("mov %0, %%cr" #n :: "r"(v) : "memory"); }
CR_FN(0) CR_FN(2) CR_FN(3) CR_FN(4)
#define DR_FN(n) \
    static inline ulong read_dr##n(void) { ulong v; __asm__ volatile("mov %%dr" #n ", %0" : "=r"(v) :: "memory"); return v; } \
    static inline void write_dr##n(ulong v) { __asm__ volatile("mov %0, %%dr" #n :: "r"(v) : "memory"); }
DR_FN(0) DR_FN(1) DR_FN(2) DR_FN(3) DR_FN(6) DR_FN(7)
static inline void invlpg(const volatile void *p) { __asm__ volatile("invlpg (%0)" :: "r"(p) : "memory"); }
static inline void lgdt(const struct table_ptr *t) { __asm__ volatile("lgdt %0" :: "m"(*t) : "memory"); }
static inline void lidt(const struct table_ptr *t) { __asm__ volatile("lidt %0" :: "m"(*t) : "memory"); }
static inline void ltr(uint16_t s) { __asm__ volatile("ltr %0" :: "r"(s) : "memory"); }

#define BIT(n) (1ul << (n))
enum {
    DE = 0, DB = 1, NMI = 2, BP = 3, OF = 4, BR = 5, UD = 6, NM = 7, DF = 8, TS = 10, NP = 11, SS = 12, GP = 13, PF = 14,
    MF = 16, AC = 17, XM = 19,
};
enum { FL_CF = 1, FL_ZF = 64, FL_TF = 0x100, FL_IF = 0x200, FL_DF = 0x400, FL_OF = 0x800, FL_IOPL = 0x3000, FL_NT = 0x4000, FL_RF = 0x10000, FL_VM = 0x20000, FL_AC = 0x40000, FL_VIF = 0x80000, FL_VIP = 0x100000, FL_ID = 0x200000 };
enum { CR0_PE = 1, CR0_MP = 2, CR0_EM = 4, CR0_TS = 8, CR0_NE = 32, CR0_WP = 0x10000, CR0_AM = 0x40000, CR0_NW = 1 << 29, CR0_CD = 1 << 30 };
#define CR0_PG 0x80000000ul
enum { CR4_VME = 1, CR4_PVI = 2, CR4_TSD = 4, CR4_DE = 8, CR4_PSE = 16, CR4_PAE = 32, CR4_PGE = 128, CR4_PCE = 256, CR4_OSFXSR = 512, CR4_OSXMM = 1024, CR4_UMIP = 2048, CR4_FSGSBASE = 0x10000, CR4_PCIDE = 0x20000, CR4_OSXSAVE = 0x40000, CR4_SMEP = 0x100000, CR4_SMAP = 0x200000 };
enum { MSR_APIC_BASE = 0x1b, MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP, MSR_TSC_DEADLINE = 0x6e0 };
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_FMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u
enum { EFER_SCE = 1, EFER_LME = 0x100, EFER_LMA = 0x400, EFER_NXE = 0x800 };
bool cpu_is_intel(void);
bool cpu_is_amd(void);

void *memset(void *p, int c, size_t n);
void *memcpy(void *d, const void *s, size_t n);
int memcmp(const void *a, const void *b, size_t n);
int strcmp(const char *a, const char *b);

#endif
