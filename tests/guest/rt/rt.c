/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Output, checks, trap tables: what both widths share. */
#include "rt.h"

enum { COM1 = 0x3f8, COM_LSR = 5, EXIT_PORT = 0xf4, EXIT_DIED = 255, CPUS_MAX = 9 /* a CPU that starts again counts twice */, CMDLINE_MAX = 256 };

uint64_t gdt[GDT_SIZE / 8] ALIGNED(16);
struct gate idt[256] ALIGNED(16);
struct tss tss[CPUS_MAX] ALIGNED(16);
trap_fn *trap_handlers[256];
volatile struct caught caught;
bool on_tcg;
ulong user_cs, user_ss = SEL_USER_DATA, user_flags = 2;
uint8_t user_stack[16384] ALIGNED(16);
static char cmdline[CMDLINE_MAX];
static unsigned n_checks, n_failed, first_failed, n_skipped, n_oracle;

void rt_start(const uint32_t *info);    /* from the boot code */
void on_trap(struct regs *r);           /* from the stubs */

void *memset(void *p, int c, size_t n)
{
    void *d = p;
    __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
    return p;
}

void *memcpy(void *d, const void *s, size_t n)
{
    void *to = d;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(s), "+c"(n) :: "memory");
    return d;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    for (; n; n--, x++, y++) {
        if (*x != *y) {
            return *x - *y;
        }
    }
    return 0;
}

int strcmp(const char *a, const char *b)
{
    for (; *a && *a == *b; a++, b++) {
    }
    return *a - *b;
}

void put(const char *s)
{
    for (; *s; s++) {
        for (unsigned i = 0; i < 100000 && !(inb(COM1 + COM_LSR) & 0x20); i++) {
        }
        outb(COM1, *s);
    }
}

void put_hex(uint64_t v)
{
    char b[17], *p = b + 16;
    *p = 0;
    do {
        *--p = "0123456789abcdef"[v & 15];
        v >>= 4;
    } while (v);
    put(p);
}

void put_dec(uint64_t v)
{
    char b[11], *p = b + 10;
    uint32_t n = v;
    *p = 0;
    do {
        *--p = '0' + n % 10;
        n /= 10;
    } while (n);
    put(p);
}

static void result(const char *how, const char *name)
{
    put(how);
    put_dec(n_checks);
    put(" ");
    put(name);
}

static void values(uint64_t got, uint64_t want)
{
    put(": got ");
    put_hex(got);
    put(", want ");
    put_hex(want);
}

static void count(bool ok)
{
    if (!ok) {
        n_failed++;
        first_failed = first_failed ? first_failed : n_checks < EXIT_DIED ? n_checks : EXIT_DIED - 1;
    }
}

void check(bool ok, const char *name)
{
    n_checks++;
    result(ok ? "ok " : "FAIL ", name);
    count(ok);
    put("\n");
}

void check_eq(uint64_t got, uint64_t want, const char *name)
{
    n_checks++;
    result(got == want ? "ok " : "FAIL ", name);
    if (got != want) {
        values(got, want);
    }
    count(got == want);
    put("\n");
}

void check_hw(uint64_t got, uint64_t want, const char *name)
{
    if (!on_tcg || got == want) {
        check_eq(got, want, name);
        return;
    }
    n_checks++;
    n_oracle++;
    result("oracle ", name);
    values(got, want);
    put("\n");
}

bool not_on_tcg(const char *name)
{
    if (on_tcg) {
        n_checks++;
        n_oracle++;
        result("oracle ", name);
        put(": not tried\n");
    }
    return !on_tcg;
}

void skip(const char *name, const char *why)
{
    n_skipped++;
    put("skip ");
    put(name);
    put(": ");
    put(why);
    put("\n");
}

_Noreturn static void leave(unsigned value)
{
    outl(EXIT_PORT, value);
    for (;;) {
        __asm__ volatile("cli; hlt");
    }
}

_Noreturn void finish(void)
{
    put("done: ");
    put_dec(n_checks);
    put(" checks, ");
    put_dec(n_failed);
    put(" failed, ");
    put_dec(n_skipped);
    put(" skipped, ");
    put_dec(n_oracle);
    put(" where the oracle differs\n");
    leave(first_failed);
}

_Noreturn void die(const char *why)
{
    put("DIED after check ");
    put_dec(n_checks);
    put(": ");
    put(why);
    put("\n");
    leave(EXIT_DIED);
}

ulong option(const char *name, ulong otherwise)
{
    size_t n = 0;
    while (name[n]) {
        n++;
    }
    for (const char *p = cmdline; *p; p++) {
        if ((p == cmdline || p[-1] == ' ') && memcmp(p, name, n) == 0 && p[n] == '=') {
            ulong v = 0;
            for (p += n + 1; *p >= '0' && *p <= '9'; p++) {
                v = v * 10 + (ulong)(*p - '0');
            }
            return v;
        }
    }
    return otherwise;
}

void gate_set(struct gate *g, ulong target, uint16_t sel, unsigned type, unsigned dpl, unsigned ist)
{
    g->lo = (target & 0xffff) | (uint64_t)sel << 16 | (uint64_t)(ist | type << 8 | dpl << 13 | 0x8000) << 32 |
            (uint64_t)(target >> 16 & 0xffff) << 48;
#ifdef __x86_64__
    g->hi = target >> 32;
#endif
}

void idt_reset(void)
{
    for (unsigned i = 0; i < 256; i++) {
        gate_set(&idt[i], (ulong)trap_stubs + i * 16, SEL_CODE, GATE_INT, i == BP || i == OF || i == VEC_USER_DONE ? 3 : 0, 0);
    }
}

uint64_t seg_desc(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 | (uint64_t)(limit >> 16 & 15) << 48 |
           (uint64_t)flags << 52 | (uint64_t)(base >> 24) << 56;
}

static void describe(const struct regs *r)
{
    static const char *const names[] = { "vector ", " error ", " ip ", " cs ", " flags ", " cr2 ", " ax " };
    uint64_t v[] = { r->vector, r->error, r->ip, r->cs, r->flags, read_cr2(), r->ax };
    for (unsigned i = 0; i < ARRAY_LEN(v); i++) {
        put(names[i]);
        put_hex(v[i]);
    }
    put("\n");
}

void caught_from(const struct regs *r)
{
    caught.vector = r->vector;
    caught.error = r->error;
    caught.cr2 = read_cr2();
    caught.ip = r->ip;
    caught.flags = r->flags;
    caught.cs = r->cs;
    caught.ax = r->ax;
    caught.dx = r->dx;
#ifdef __x86_64__
    caught.sp = r->sp;
    caught.ss = r->ss;
#else
    if (r->cs & 3 || r->flags & FL_VM) {
        caught.sp = r->sp;
        caught.ss = r->ss;
    }
#endif
}

void on_trap(struct regs *r)
{
    if (trap_handlers[r->vector & 255]) {
        trap_handlers[r->vector & 255](r);
    } else if ((r->cs & 3) == 3 || r->flags & FL_VM) {
        caught_from(r);
        user_leave();
    } else if (caught.resume) {
        caught_from(r);
        r->ip = caught.resume;
        r->flags &= ~(ulong)FL_TF;
        caught.resume = 0;
    } else {
        describe(r);
        die("a trap that nobody expected");
    }
}

ulong user_call(ulong (*fn)(ulong), ulong arg)
{
    extern const char user_return_stub[];
    ulong *sp = (ulong *)(user_stack + sizeof(user_stack)) - 4;
#ifdef __x86_64__
    sp -= 1;                                /* as after a call: RSP + 8 is a multiple of 16 */
#else
    sp[1] = arg;
#endif
    sp[0] = (ulong)user_return_stub;
    return user_enter((ulong)fn, arg, (ulong)sp);
}

ulong try_rdmsr(uint32_t n, uint64_t *v)
{
    uint32_t a = 0, d = 0;
    ulong vec = TRY("rdmsr", : "=a"(a), "=d"(d) : "c"(n) : "memory");
    *v = (uint64_t)d << 32 | a;
    return vec;
}

ulong try_wrmsr(uint32_t n, uint64_t v)
{
    return TRY("wrmsr", :: "c"(n), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}

static bool vendor_is(const char *name, uint32_t leaf)
{
    struct cpuid r = cpuid(leaf);
    uint32_t text[3] = { r.b, leaf ? r.c : r.d, leaf ? r.d : r.c };
    return memcmp(text, name, 12) == 0;
}

bool cpu_is_intel(void)
{
    return vendor_is("GenuineIntel", 0);
}

bool cpu_is_amd(void)
{
    return vendor_is("AuthenticAMD", 0) || vendor_is("HygonGenuine", 0);
}

void rt_start(const uint32_t *info)
{
    if (info[0] & 4) {
        const char *from = (const char *)(ulong)info[4];
        for (unsigned i = 0; i + 1 < CMDLINE_MAX && from[i]; i++) {
            cmdline[i] = from[i];
        }
    }
    outb(0x21, 0xff);                       /* what a firmware left running stays silent */
    outb(0xa1, 0xff);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3);
    on_tcg = (cpuid(1).c >> 31 & 1) && vendor_is("TCGTCGTCGTCG", 0x40000000);
    gdt[SEL_CODE32 / 8] = seg_desc(0, 0xfffff, 0x9b, 0xc);
    gdt[SEL_DATA / 8] = seg_desc(0, 0xfffff, 0x93, 0xc);
    gdt[SEL_USER_CODE32 / 8] = seg_desc(0, 0xfffff, 0xfb, 0xc);
    gdt[SEL_USER_DATA / 8] = seg_desc(0, 0xfffff, 0xf3, 0xc);
    gdt[SEL_CODE16 / 8] = seg_desc(0, 0xffff, 0x9b, 0);
    gdt[SEL_DATA16 / 8] = seg_desc(0, 0xffff, 0x93, 0);
#ifdef __x86_64__
    gdt[SEL_CODE / 8] = seg_desc(0, 0xfffff, 0x9b, 0xa);
    gdt[SEL_USER_CODE64 / 8] = seg_desc(0, 0xfffff, 0xfb, 0xa);
    user_cs = SEL_USER_CODE64;
    for (unsigned i = 0; i < CPUS_MAX; i++) {
        gdt[SEL_TSS0 / 8 + 2 * i] = seg_desc((uint32_t)(ulong)&tss[i], 0x67, 0x89, 0);
    }
#else
    gdt[SEL_CODE / 8] = gdt[SEL_CODE32 / 8];
    gdt[SEL_USER_CODE64 / 8] = gdt[SEL_USER_CODE32 / 8];
    user_cs = SEL_USER_CODE32;
    gdt[SEL_TSS0 / 8] = seg_desc((uint32_t)&tss[0], 0x67, 0x89, 0);
    tss[0].ss0 = SEL_DATA;
#endif
    for (unsigned i = 0; i < CPUS_MAX; i++) {
        tss[i].iomap = 0x68;                /* = its limit + 1: no port is allowed */
    }
    idt_reset();
}
