/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Local APIC, IOAPIC, 8259 and 8254 for guests, and the further CPUs. */
#ifndef GUEST_APIC_H
#define GUEST_APIC_H

#include "rt.h"

enum { LAPIC_ID = 0x20, LAPIC_VERSION = 0x30, LAPIC_TPR = 0x80, LAPIC_PPR = 0xa0, LAPIC_EOI = 0xb0, LAPIC_LDR = 0xd0,
       LAPIC_DFR = 0xe0, LAPIC_SVR = 0xf0, LAPIC_ISR = 0x100, LAPIC_TMR = 0x180, LAPIC_IRR = 0x200, LAPIC_ESR = 0x280,
       LAPIC_ICR = 0x300, LAPIC_ICR_HIGH = 0x310, LAPIC_LVT_TIMER = 0x320, LAPIC_LVT_LINT0 = 0x350, LAPIC_LVT_LINT1 = 0x360,
       LAPIC_LVT_ERROR = 0x370, LAPIC_TIMER_INIT = 0x380, LAPIC_TIMER_COUNT = 0x390, LAPIC_TIMER_DIV = 0x3e0, LAPIC_SELF = 0x3f0 };
enum { ICR_NMI = 0x400, ICR_INIT = 0x500, ICR_STARTUP = 0x600, ICR_LOWEST = 0x100, ICR_LOGICAL = 0x800, ICR_ASSERT = 0x4000, ICR_LEVEL = 0x8000,
       ICR_SELF = 0x40000, ICR_ALL = 0x80000, ICR_OTHERS = 0xc0000, ICR_BUSY = 0x1000 };
enum { LVT_MASKED = 0x10000, LVT_PERIODIC = 0x20000, LVT_DEADLINE = 0x40000, LVT_EXTINT = 0x700, LVT_NMI = 0x400 };
#define LAPIC_BASE 0xfee00000ul
#define IOAPIC_BASE 0xfec00000ul
static inline uint32_t lapic(unsigned r) { return *(volatile uint32_t *)(LAPIC_BASE + r); }
static inline void lapic_set(unsigned r, uint32_t v) { *(volatile uint32_t *)(LAPIC_BASE + r) = v; }
static inline uint32_t ioapic(unsigned r)
{
    *(volatile uint32_t *)IOAPIC_BASE = r;
    return *(volatile uint32_t *)(IOAPIC_BASE + 16);
}
static inline void ioapic_set(unsigned r, uint32_t v)
{
    *(volatile uint32_t *)IOAPIC_BASE = r;
    *(volatile uint32_t *)(IOAPIC_BASE + 16) = v;
}
static inline void ioapic_route(unsigned pin, uint32_t low, uint32_t cpu)
{
    ioapic_set(0x10 + 2 * pin, 0x10000);
    ioapic_set(0x11 + 2 * pin, cpu << 24);
    ioapic_set(0x10 + 2 * pin, low);
}
static inline bool lapic_bit(unsigned r, unsigned vec) { return lapic(r + vec / 32 * 16) >> vec % 32 & 1; }
static inline void ipi(uint32_t low, uint32_t cpu)
{
    while (lapic(LAPIC_ICR) & ICR_BUSY) {
    }
    lapic_set(LAPIC_ICR_HIGH, cpu << 24);
    lapic_set(LAPIC_ICR, low);
}
/* 8259s: vectors `base` and base + 8, every line masked. */
static inline void pic_init(unsigned base)
{
    outb(0x20, 0x11);
    outb(0xa0, 0x11);
    outb(0x21, base);
    outb(0xa1, base + 8);
    outb(0x21, 4);
    outb(0xa1, 2);
    outb(0x21, 1);
    outb(0xa1, 1);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}
static inline void lapic_enable(void)
{
    lapic_set(LAPIC_SVR, 0x1ff);
    lapic_set(LAPIC_TPR, 0);
    lapic_set(LAPIC_LVT_TIMER, LVT_MASKED);
}
/* 8254 channel 2, gated by port 61 with the speaker off: busy-waits `n` ticks of 1193182 Hz, n <= 65535. */
static inline void pit_wait(unsigned n)
{
    outb(0x61, (inb(0x61) & ~3) | 1);
    outb(0x43, 0xb0);
    outb(0x42, n & 255);
    outb(0x42, n >> 8);
    outb(0x61, inb(0x61) & ~1);
    outb(0x61, inb(0x61) | 1);
    while (!(inb(0x61) & 0x20)) {
        cpu_pause();
    }
}
static inline void delay_us(unsigned us)
{
    for (; us > 50000; us -= 50000) {
        pit_wait(59659);
    }
    pit_wait((uint32_t)us * 1193 / 1000 + 1);
}

#ifdef __x86_64__
/* --- further CPUs (64-bit guests) --- */
extern volatile uint32_t cpus_up;       /* CPUs that run, the first included */
/* INIT and SIPI to all others; gives the CPUs that run after `want` came up or a second went by. */
unsigned smp_start(unsigned want);
/* Runs fn(cpu) on CPU 1.. (returns at once); smp_wait waits until it is done there. */
void smp_run(unsigned cpu, void (*fn)(unsigned cpu));
void smp_wait(unsigned cpu);
bool smp_done(unsigned cpu);
void smp_run_all(unsigned n, void (*fn)(unsigned cpu));    /* on 0 .. n - 1, and waits */
uint32_t smp_apic_id(unsigned cpu);
#endif

#endif
