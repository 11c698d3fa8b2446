/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clocks against each other: TSC, 8254, ACPI PM timer, RTC, local APIC timer, kvmclock. Bounds are wide: the host may be busy.
 * Sources: 8254 data sheet; ACPI 6.5 4.8.3.3; MC146818 data sheet; Linux Documentation/virt/kvm/x86/msr.rst (pvclock).
 */
#include "rt/apic.h"

enum { PM_TMR = 0x608, PM_HZ = 3579545, PIT_HZ = 1193182, TENTH_PIT = 59659 /* 50 ms */ };
static uint64_t tsc_hz;

static void within(uint64_t got, uint64_t want, unsigned percent, const char *name)
{
    uint64_t slack = want / 100 * percent;
    check(got + slack >= want && got <= want + slack, name);
    if (got + slack < want || got > want + slack) {
        put("    got ");
        put_dec(got / 1000);
        put(" want ");
        put_dec(want / 1000);
        put(" thousands\n");
    }
}

/* TSC ticks a second by the 8254: the quickest of some measurements, since a pause of ours only lengthens them. */
static uint64_t tsc_by_pit(void)
{
    uint64_t best = UINT64_MAX;
    for (unsigned i = 0; i < 5; i++) {
        uint64_t t0 = rdtsc();
        pit_wait(TENTH_PIT);
        uint64_t d = rdtsc() - t0;
        best = d < best ? d : best;
    }
    return best * PIT_HZ / TENTH_PIT;
}

static void pm_timer(void)
{
    uint32_t a = inl(PM_TMR) & 0xffffff;
    bool forward = true;
    for (unsigned i = 0; i < 1000; i++) {
        uint32_t b = inl(PM_TMR) & 0xffffff;
        forward &= ((b - a) & 0xffffff) < 0x800000;
        a = b;
    }
    check(forward, "the PM timer goes forward");
    uint64_t best = UINT64_MAX;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t t0 = rdtsc();
        uint32_t p0 = inl(PM_TMR);
        while (((inl(PM_TMR) - p0) & 0xffffff) < PM_HZ / 20) {
            cpu_pause();
        }
        uint64_t d = rdtsc() - t0;
        best = d < best ? d : best;
    }
    within(best * 20, tsc_hz, 5, "50 ms of the PM timer in TSC ticks");
}

static uint8_t cmos(uint8_t r)
{
    outb(0x70, r);
    return inb(0x71);
}

static uint8_t rtc_second(void)
{
    while (cmos(0xa) & 0x80) {
        cpu_pause();
    }
    return cmos(0);
}

static bool bcd(uint8_t v) { return (v & 15) < 10 && v >> 4 < 10; }

static void rtc(void)
{
    check((cmos(0xd) & 0x80) != 0, "RTC: time is valid");
    bool all_bcd = true;
    if (!(cmos(0xb) & 4)) {
        for (unsigned r = 0; r < 10; r++) {
            all_bcd &= r == 1 || r == 3 || r == 5 || bcd(cmos((uint8_t)r) & 0x7f);
        }
    }
    check(all_bcd, "RTC: registers are BCD");
    check(cmos(8) >= 1 && cmos(8) <= 0x12 && cmos(7) >= 1 && cmos(7) <= 0x31, "RTC: a date");
    uint8_t s = rtc_second();
    while (rtc_second() == s) {
        cpu_pause();
    }
    uint64_t t0 = rdtsc();
    s = rtc_second();
    while (rtc_second() == s) {
        cpu_pause();
    }
    within(rdtsc() - t0, tsc_hz, 15, "an RTC second in TSC ticks");
}

static void lapic_timer(void)
{
    lapic_enable();
    lapic_set(LAPIC_TIMER_DIV, 0xb);
    lapic_set(LAPIC_TIMER_INIT, 0xffffffff);
    uint32_t a = lapic(LAPIC_TIMER_COUNT);
    uint64_t t0 = rdtsc();
    pit_wait(TENTH_PIT);
    uint64_t ticks = a - lapic(LAPIC_TIMER_COUNT), tsc = rdtsc() - t0;
    check(ticks > 10000, "the APIC timer counts");
    a = lapic(LAPIC_TIMER_COUNT);
    t0 = rdtsc();
    pit_wait(TENTH_PIT);
    uint64_t ticks2 = a - lapic(LAPIC_TIMER_COUNT), tsc2 = rdtsc() - t0;
    within(ticks2 * 1000 / (tsc2 / 1000), ticks * 1000 / (tsc / 1000), 5, "its rate is constant");
}

/* --- kvmclock --- */
static struct pvclock {
    uint32_t version, pad;
    uint64_t tsc_stamp, system_time;
    uint32_t mul;
    int8_t shift;
    uint8_t flags, pad2[2];
} clocks[8] ALIGNED(64);
static struct { uint32_t version, sec, nsec; } wall ALIGNED(16);

static uint64_t pvclock_read(volatile struct pvclock *p)
{
    uint32_t v;
    uint64_t ns;
    do {
        v = p->version;
        __asm__ volatile("lfence" ::: "memory");
        uint64_t d = rdtsc() - p->tsc_stamp;
        d = p->shift >= 0 ? d << p->shift : d >> -p->shift;
        ns = p->system_time + (uint64_t)((unsigned __int128)d * p->mul >> 32);
        __asm__ volatile("lfence" ::: "memory");
    } while (v & 1 || v != p->version);
    return ns;
}

static unsigned n_cpus;
static volatile uint64_t last_ns, last_tsc;
static volatile unsigned bad_ns, bad_tsc;
static volatile uint32_t lock;
static bool have_clock;

static void race(unsigned cpu)
{
    for (unsigned i = 0; i < 3000; i++) {
        while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) {
            cpu_pause();
        }
        uint64_t t = rdtsc();
        bad_tsc += t < last_tsc;
        last_tsc = t;
        if (have_clock) {
            uint64_t ns = pvclock_read(&clocks[cpu]);
            bad_ns += ns < last_ns;
            last_ns = ns;
        }
        __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
    }
}

static void clock_on(unsigned cpu)
{
    wrmsr(0x4b564d01, (ulong)&clocks[cpu] | 1);
}

static void kvmclock(void)
{
    struct cpuid h = cpuid(0x40000000), f = cpuid(0x40000001);
    have_clock = cpuid(1).c >> 31 && memcmp(&h.b, "KVMKVMKVM\0\0\0", 12) == 0 && f.a >> 3 & 1;
    if (!have_clock) {
        skip("kvmclock", "not offered");
        return;
    }
    smp_run_all(n_cpus, clock_on);
    check_eq(clocks[0].version & 1, 0, "kvmclock: an even version");
    check(f.a >> 24 & 1 ? clocks[0].flags & 1 : true, "stable bit as CPUID says");
    uint64_t a = pvclock_read(&clocks[0]), t0 = rdtsc();
    pit_wait(TENTH_PIT);
    uint64_t b = pvclock_read(&clocks[0]), t1 = rdtsc();
    within((b - a) / 1000, (t1 - t0) * 1000 / (tsc_hz / 1000), 5, "kvmclock against TSC by the 8254");
    wrmsr(0x4b564d00, (ulong)&wall);
    check(wall.sec > 1600000000 && !(wall.version & 1), "wall clock");
}

void guest_main(void)
{
    n_cpus = (unsigned)option("cpus", 1);
    if (smp_start(n_cpus) != n_cpus) {
        die("too few CPUs");
    }
    tsc_hz = tsc_by_pit();
    check(tsc_hz > 100000000 && tsc_hz < 10000000000, "TSC rate by the 8254");
    struct cpuid c15 = cpuid(0).a >= 0x15 ? cpuid(0x15) : (struct cpuid){ 0 };
    if (c15.a && c15.b && c15.c) {
        within((uint64_t)c15.c * c15.b / c15.a, tsc_hz, 5, "CPUID leaf 15 tells the TSC rate");
    } else {
        skip("CPUID leaf 15", "empty");
    }
    struct cpuid h = cpuid(0x40000000);
    if (cpuid(1).c >> 31 && h.a >= 0x40000010) {
        within((uint64_t)cpuid(0x40000010).a * 1000, tsc_hz, 5, "CPUID leaf 40000010 tells the TSC rate");
    } else {
        skip("CPUID leaf 40000010", "not there");
    }
    pm_timer();
    rtc();
    lapic_timer();
    kvmclock();
    smp_run_all(n_cpus, race);
    check_eq(bad_tsc, 0, "TSC never goes back from CPU to CPU");
    check_eq(bad_ns, 0, "nor does kvmclock");
    uint64_t was = rdtsc();
    wrmsr(0x10, 0x1000);
    check_hw(rdtsc() < was && rdtsc() >= 0x1000, true, "TSC is writable");      /* not in TCG */
    wrmsr(0x10, was);
    if (cpuid(7).b & 2) {
        uint64_t adj = rdmsr(0x3b);
        wrmsr(0x3b, adj + (1ull << 40));
        check(rdtsc() >= was + (1ull << 40), "TSC_ADJUST moves the TSC");
        wrmsr(0x10, 0x5000);
        check(rdmsr(0x3b) != adj + (1ull << 40), "writing the TSC moves TSC_ADJUST");
    } else {
        skip("TSC_ADJUST", "not there");
    }
}
