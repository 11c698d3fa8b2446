/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interrupts: 8259, 8254, RTC, IOAPIC, local APIC and its timer, IPIs, NMI, x2APIC, shadows, HLT.
 * Sources: SDM vol. 3A 6.8 (masking), 10 (APIC), 4.10 of the 82093AA data sheet (IOAPIC), 8259A data sheet.
 * Lines are moved by the pc-testdev at ports 2000-2017 where it is there (port E0 echoes).
 */
#include "rt/apic.h"

enum { VEC = 0x40, VEC_LOW = 0x31, VEC_HIGH = 0x71, VEC_SPURIOUS = 0xff, TESTDEV = 0x2000, TESTDEV_ECHO = 0xe0 };
static volatile unsigned n_irqs[256], order[16], n_order;
static volatile ulong irq_ip;
static bool eoi_lapic = true, eoi_pic;
static bool have_testdev;

static void on_irq(struct regs *r)
{
    n_irqs[r->vector]++;
    if (n_order < ARRAY_LEN(order)) {
        order[n_order++] = (unsigned)r->vector;
    }
    irq_ip = r->ip;
    if (eoi_pic) {
        if (r->vector >= 0x28) {
            outb(0xa0, 0x20);
        }
        outb(0x20, 0x20);
    } else if (eoi_lapic && r->vector != VEC_SPURIOUS) {
        lapic_set(LAPIC_EOI, 0);
    }
}

static void forget(void)
{
    for (unsigned i = 0; i < 256; i++) {
        n_irqs[i] = 0;
    }
    n_order = 0;
}

static void window(void)                /* interrupts on for a moment */
{
    __asm__ volatile("sti; nop; nop; cli" ::: "memory");
}

/* Waits up to some 200 ms for `n` interrupts of a vector with interrupts on, asleep. */
static bool wait_irqs(unsigned vec, unsigned n)
{
    for (unsigned i = 0; i < 200 && n_irqs[vec] < n; i++) {
        sti();
        for (unsigned k = 0; k < 20 && n_irqs[vec] < n; k++) {
            delay_us(50);
        }
        cli();
    }
    return n_irqs[vec] >= n;
}

static void self_ipis(void)
{
    forget();
    ipi(ICR_SELF | VEC, 0);
    check(lapic_bit(LAPIC_IRR, VEC), "a self IPI waits in IRR");
    check_eq(n_irqs[VEC], 0, "not with IF = 0");
    window();
    check_eq(n_irqs[VEC], 1, "taken with IF = 1");
    check(!lapic_bit(LAPIC_IRR, VEC) && !lapic_bit(LAPIC_ISR, VEC), "IRR and ISR clear after EOI");
    ipi(ICR_SELF | VEC, 0);
    ipi(ICR_SELF | VEC, 0);
    window();
    check_eq(n_irqs[VEC], 2, "two of one vector before the first is taken are one");
    forget();
    ipi(ICR_SELF | VEC_LOW, 0);
    ipi(ICR_SELF | VEC_HIGH, 0);
    ipi(ICR_SELF | VEC, 0);
    window();
    check(n_order == 3 && order[0] == VEC_HIGH && order[1] == VEC && order[2] == VEC_LOW, "highest vector first");
    forget();
    ipi(ICR_ASSERT | VEC, lapic(LAPIC_ID) >> 24);
    window();
    check_eq(n_irqs[VEC], 1, "by physical destination");
    ipi(ICR_ASSERT | ICR_ALL | VEC, 0);
    window();
    check_eq(n_irqs[VEC], 2, "to all including self");
    ipi(ICR_ASSERT | VEC, 0xff);
    window();
    check_eq(n_irqs[VEC], 3, "broadcast address FF");
    lapic_set(LAPIC_DFR, 0xffffffff);
    lapic_set(LAPIC_LDR, 0x04000000);
    ipi(ICR_ASSERT | ICR_LOGICAL | VEC, 0x06);
    window();
    check_eq(n_irqs[VEC], 4, "flat logical destination");
    ipi(ICR_ASSERT | ICR_LOGICAL | VEC, 0x03);
    window();
    check_eq(n_irqs[VEC], 4, "another's logical destination");
    lapic_set(LAPIC_DFR, 0x0fffffff);
    lapic_set(LAPIC_LDR, 0x21000000);
    ipi(ICR_ASSERT | ICR_LOGICAL | VEC, 0x21);
    window();
    check_eq(n_irqs[VEC], 5, "cluster logical destination");
    ipi(ICR_ASSERT | ICR_LOGICAL | VEC, 0x11);
    window();
    check_eq(n_irqs[VEC], 5, "another cluster");
    lapic_set(LAPIC_DFR, 0xffffffff);
    ipi(ICR_ASSERT | VEC, (lapic(LAPIC_ID) >> 24) + 7);
    window();
    check_eq(n_irqs[VEC], 5, "a CPU that does not exist");
}

static void on_low(struct regs *r)
{
    ipi(ICR_SELF | VEC_HIGH, 0);
    ipi(ICR_SELF | (VEC_LOW + 1), 0);       /* same class: must wait */
    window();
    order[n_order++] = VEC_LOW;
    lapic_set(LAPIC_EOI, 0);
}

static void priorities(void)
{
    forget();
    trap_handlers[VEC_LOW] = on_low;
    ipi(ICR_SELF | VEC_LOW, 0);
    window();
    window();
    trap_handlers[VEC_LOW] = on_irq;
    check(n_order == 3 && order[0] == VEC_HIGH && order[1] == VEC_LOW && order[2] == VEC_LOW + 1,
          "a higher class nests, the same class waits for EOI");
    forget();
    lapic_set(LAPIC_TPR, 0x40);
    check_eq(lapic(LAPIC_PPR), 0x40, "PPR follows TPR");
    ulong cr8;
    __asm__ volatile("mov %%cr8, %0" : "=r"(cr8));
    check_eq(cr8, 4, "CR8 is TPR's upper half");
    ipi(ICR_SELF | 0x4f, 0);
    ipi(ICR_SELF | 0x31, 0);
    window();
    check_eq(n_order, 0, "TPR holds its own class and lower");
    ipi(ICR_SELF | 0x50, 0);
    window();
    check(n_order == 1 && order[0] == 0x50, "and lets a higher one through");
    __asm__ volatile("mov %0, %%cr8" :: "r"(3ul));
    check_eq(lapic(LAPIC_TPR), 0x30, "CR8 writes TPR");
    window();
    check(n_order == 2 && order[1] == 0x4f, "lowering it lets the waiting one through");
    __asm__ volatile("sti; nop; mov %0, %%cr8; nop; cli" :: "r"(0ul));
    check(n_order == 3 && order[2] == 0x31, "also with IF = 1, at once");
    eoi_lapic = false;
    forget();
    ipi(ICR_SELF | VEC, 0);
    window();
    check_eq(lapic(LAPIC_PPR), VEC & 0xf0, "PPR is the class in service");
    check(lapic_bit(LAPIC_ISR, VEC), "ISR");
    ipi(ICR_SELF | VEC, 0);
    window();
    check_eq(n_irqs[VEC], 1, "its own vector waits until EOI");
    lapic_set(LAPIC_EOI, 0);
    window();
    check_eq(n_irqs[VEC], 2, "then comes again");
    lapic_set(LAPIC_EOI, 0);
    eoi_lapic = true;
    check_eq(lapic(LAPIC_PPR), 0, "PPR with nothing in service");
}

static void shadows(void)
{
    forget();
    ipi(ICR_SELF | VEC, 0);
    __asm__ volatile("sti; cli; nop; nop" ::: "memory");
    check_eq(n_irqs[VEC], 0, "STI; CLI lets nothing through");
    __asm__ volatile("cli; sti; sti; cli" ::: "memory");
    check_eq(n_irqs[VEC], 1, "the second STI has no shadow");
    ipi(ICR_SELF | VEC, 0);
    __asm__ volatile("movl $1f, caught; sti; nop; 1: nop; cli" ::: "memory");
    check_eq(n_irqs[VEC], 2, "STI; NOP");
    check_eq(irq_ip, caught.start, "is taken behind the instruction after STI");
    ipi(ICR_SELF | VEC, 0);
    __asm__ volatile("movl $1f, caught; pushf; orl $0x200, (%%rsp); popf; 1: nop; cli" ::: "memory", "cc");
    check_eq(n_irqs[VEC], 3, "POPF sets IF");
    check_eq(irq_ip, caught.start, "without a shadow");
    ipi(ICR_SELF | VEC, 0);
    __asm__ volatile("mov %%ss, %%eax; sti; mov %%eax, %%ss; cli" ::: "rax", "memory");
    check_hw(n_irqs[VEC], 3, "STI; MOV SS; CLI: MOV SS casts its own shadow");       /* TCG: one shadow does not follow another */
    window();
    check_eq(n_irqs[VEC], 4, "and it comes later");
    ipi(ICR_SELF | VEC, 0);
    __asm__ volatile("movl $1f, caught; sti; hlt; 1: cli" ::: "memory");
    check_eq(n_irqs[VEC], 5, "STI; HLT with one pending");
    check_eq(irq_ip, caught.start, "returns behind HLT");
    ipi(ICR_SELF | VEC, 0);
    __asm__ volatile("movl $1f, caught; mov %%rsp, %%rcx; push $0x10; push %%rcx; push $0x202; push $8; push $1f; iretq; 1: nop; nop; cli" ::: "rcx", "memory");
    check_eq(n_irqs[VEC], 6, "IRET sets IF");
    check_eq(irq_ip, caught.start, "without a shadow");
}

static volatile unsigned nmi_depth, nmi_max;
static void on_nmi(struct regs *r)
{
    n_irqs[NMI]++;
    nmi_depth++;
    nmi_max = nmi_depth > nmi_max ? nmi_depth : nmi_max;
    if (n_irqs[NMI] == 1) {
        ipi(ICR_ASSERT | ICR_NMI, lapic(LAPIC_ID) >> 24);      /* blocked until IRET */
        for (unsigned i = 0; i < 1000; i++) {
            cpu_pause();
        }
    }
    nmi_depth--;
}

static void nmis(void)
{
    forget();
    trap_handlers[NMI] = on_nmi;
    ipi(ICR_ASSERT | ICR_NMI, lapic(LAPIC_ID) >> 24);
    for (volatile unsigned i = 0; i < 1000; i++) {
    }
    check_eq(n_irqs[NMI], 2, "an NMI with IF = 0, and one sent in its handler");
    check_eq(nmi_max, 1, "the second waits for IRET");
    ipi(ICR_ASSERT | ICR_NMI, lapic(LAPIC_ID) >> 24);
    __asm__ volatile("nop; nop; nop; nop" ::: "memory");
    check_eq(n_irqs[NMI], 3, "another");
    trap_handlers[NMI] = NULL;
}

static uint64_t lapic_ticks_per_ms;
/* Ticks for 2^20 TSC ticks, divided as told. */
static uint64_t lapic_rate(uint32_t div)
{
    lapic_set(LAPIC_TIMER_DIV, div);
    lapic_set(LAPIC_TIMER_INIT, 0xffffffff);
    uint32_t a = lapic(LAPIC_TIMER_COUNT);
    uint64_t t0 = rdtsc();
    delay_us(10000);
    uint64_t ticks = a - lapic(LAPIC_TIMER_COUNT);
    return (ticks << 20) / (rdtsc() - t0);
}

static void lapic_timer(void)
{
    forget();
    lapic_set(LAPIC_TIMER_DIV, 0xb);            /* by 1 */
    lapic_set(LAPIC_LVT_TIMER, LVT_MASKED | VEC);
    lapic_set(LAPIC_TIMER_INIT, 0xffffffff);
    delay_us(10000);
    lapic_ticks_per_ms = (0xffffffff - lapic(LAPIC_TIMER_COUNT)) / 10;
    check(lapic_ticks_per_ms > 1000, "the timer counts");
    uint32_t full = (uint32_t)lapic_ticks_per_ms;
    bool good = false;
    for (unsigned i = 0; i < 5 && !good; i++) {         /* the host may take the CPU away between two reads */
        uint64_t fast = lapic_rate(0xb), slow = lapic_rate(0x3);
        good = slow * 16 > fast / 4 * 3 && slow * 16 < fast / 4 * 5;
    }
    check(good, "divided by 16");
    lapic_set(LAPIC_TIMER_DIV, 0xb);
    lapic_set(LAPIC_LVT_TIMER, VEC);
    lapic_set(LAPIC_TIMER_INIT, full * 2);
    check(wait_irqs(VEC, 1), "one-shot");
    check_eq(lapic(LAPIC_TIMER_COUNT), 0, "stays at zero");
    sti();
    delay_us(10000);
    cli();
    check_eq(n_irqs[VEC], 1, "and does not come again");
    lapic_set(LAPIC_LVT_TIMER, LVT_MASKED | VEC);
    lapic_set(LAPIC_TIMER_INIT, full);
    sti();
    delay_us(5000);
    cli();
    check_eq(n_irqs[VEC], 1, "masked");
    forget();
    lapic_set(LAPIC_LVT_TIMER, LVT_PERIODIC | VEC);
    lapic_set(LAPIC_TIMER_INIT, full);
    check(wait_irqs(VEC, 5), "periodic");
    uint32_t a = lapic(LAPIC_TIMER_COUNT);
    check(a <= full, "the count stays below the initial one");
    lapic_set(LAPIC_TIMER_INIT, 0);
    window();
    forget();
    sti();
    delay_us(5000);
    cli();
    check_eq(n_irqs[VEC], 0, "an initial count of 0 stops it");
    forget();
    lapic_set(LAPIC_LVT_TIMER, VEC);
    lapic_set(LAPIC_TIMER_INIT, full * 5);
    uint64_t t0 = rdtsc();
    while (!n_irqs[VEC]) {
        sti_hlt_cli();
    }
    uint64_t slept = rdtsc() - t0;
    t0 = rdtsc();
    delay_us(5000);
    uint64_t five = rdtsc() - t0;
    check(slept > five / 4 && slept < five * 100, "it ends HLT after its time");
}

static void deadline_timer(void)
{
    if (!(cpuid(1).c >> 24 & 1)) {
        skip("TSC deadline", "not there");
        return;
    }
    forget();
    lapic_set(LAPIC_LVT_TIMER, LVT_DEADLINE | VEC);
    check_eq(rdmsr(MSR_TSC_DEADLINE), 0, "no deadline");
    uint64_t t0 = rdtsc();
    delay_us(1000);
    uint64_t ms = rdtsc() - t0;
    uint64_t due = rdtsc() + ms * 3;
    wrmsr(MSR_TSC_DEADLINE, due);
    check_eq(rdmsr(MSR_TSC_DEADLINE), due, "armed");
    while (!n_irqs[VEC]) {
        sti_hlt_cli();
    }
    check(rdtsc() >= due, "not before its time");
    check_eq(rdmsr(MSR_TSC_DEADLINE), 0, "disarmed when it fires");
    wrmsr(MSR_TSC_DEADLINE, 1);
    check(wait_irqs(VEC, 2), "a deadline in the past fires at once");
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + ms * 2);
    wrmsr(MSR_TSC_DEADLINE, 0);
    sti();
    delay_us(5000);
    cli();
    check_eq(n_irqs[VEC], 2, "0 disarms");
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + ms * 2);
    lapic_set(LAPIC_LVT_TIMER, VEC);
    check_eq(rdmsr(MSR_TSC_DEADLINE), 0, "leaving deadline mode disarms");
    lapic_set(LAPIC_TIMER_INIT, 0);
    lapic_set(LAPIC_LVT_TIMER, LVT_DEADLINE | VEC);
    lapic_set(LAPIC_TIMER_INIT, 1000);
    check_eq(lapic(LAPIC_TIMER_COUNT), 0, "the initial count is ignored in deadline mode");
    lapic_set(LAPIC_LVT_TIMER, LVT_MASKED);
}

static void lapic_errors(void)
{
    if (not_on_tcg("ESR")) {                    /* TCG delivers vectors below 16 */
        lapic_set(LAPIC_LVT_ERROR, 0xe0);
        forget();
        lapic_set(LAPIC_ESR, 0);
        lapic_set(LAPIC_ESR, 0);
        ipi(ICR_SELF | 5, 0);
        lapic_set(LAPIC_ESR, 0);
        check_eq(lapic(LAPIC_ESR) & 0x20, 0x20, "ESR: sending vector 5");
        window();
        check_eq(n_irqs[0xe0], 1, "LVT error interrupt");
        lapic_set(LAPIC_LVT_ERROR, LVT_MASKED);
    }
    check_eq(lapic(LAPIC_VERSION) & 0xf0, 0x10, "an integrated APIC");
    check((lapic(LAPIC_VERSION) >> 16 & 255) >= 5, "with its LVT entries");
    uint32_t svr = lapic(LAPIC_SVR);
    lapic_set(LAPIC_SVR, svr & ~0x100u);
    check_hw(lapic(LAPIC_LVT_TIMER) & LVT_MASKED, LVT_MASKED, "disabling by SVR masks the LVT");      /* TCG leaves it */
    lapic_set(LAPIC_LVT_TIMER, VEC);
    check_hw(lapic(LAPIC_LVT_TIMER) & LVT_MASKED, LVT_MASKED, "and keeps it masked");
    lapic_set(LAPIC_SVR, svr);
}

/* --- 8259 and the chips behind it --- */
static void pit_periodic(unsigned mode, unsigned count)
{
    outb(0x43, 0x30 | mode << 1);
    outb(0x40, count & 255);
    outb(0x40, count >> 8);
}

static void pic(void)
{
    forget();
    pic_init(0x20);
    lapic_set(LAPIC_LVT_LINT0, LVT_EXTINT);
    eoi_pic = true;
    check_eq(inb(0x21), 0xff, "the 8259's mask reads back");
    outb(0x21, 0xfe);
    pit_periodic(2, 1193);
    check(wait_irqs(0x20, 5), "8254 channel 0, 1000 Hz, through the 8259");
    outb(0x21, 0xff);
    window();
    forget();
    sti();
    delay_us(5000);
    cli();
    check_eq(n_irqs[0x20], 0, "masked at the 8259");
    outb(0x20, 0x0a);
    check_eq(inb(0x20) & 1, 1, "it waits in the 8259's IRR");
    outb(0x21, 0xfe);
    window();
    check_eq(n_irqs[0x20], 1, "and comes when unmasked");
    lapic_set(LAPIC_LVT_LINT0, LVT_EXTINT | LVT_MASKED);
    forget();
    sti();
    delay_us(3000);
    cli();
    check_eq(n_irqs[0x20], 0, "LINT0 masked");
    lapic_set(LAPIC_LVT_LINT0, LVT_EXTINT);
    sti_hlt_cli();
    check(n_irqs[0x20] >= 1, "it ends HLT");
    outb(0x21, 0xff);
    window();
    forget();
    outb(0x21, 0xfe);
    pit_periodic(0, 2000);
    check(wait_irqs(0x20, 1), "mode 0: one shot");
    sti();
    delay_us(5000);
    cli();
    check_eq(n_irqs[0x20], 1, "once");
    outb(0x43, 0xe2);                                   /* read back channel 0: status */
    check_eq(inb(0x40) & 0xbf, 0xb0, "read-back: output high, two bytes, mode 0");
    outb(0x21, 0xff);
    /* Mode 2 counts down and reloads. */
    pit_periodic(2, 50000);
    unsigned reloads = 0, last = 65535;
    for (unsigned i = 0; i < 20; i++) {
        delay_us(10000);
        outb(0x43, 0);
        unsigned now = inb(0x40);
        now |= (unsigned)inb(0x40) << 8;
        reloads += now > last;
        last = now;
        if (now > 50000) {
            reloads = 100;
        }
    }
    check(reloads >= 2 && reloads <= 12, "latched count goes down and reloads");
    /* A spurious interrupt: masked between request and acknowledge. The 8259 gives vector 7 with nothing in service. */
    if (have_testdev) {
        forget();
        outb(0x21, 0xfb & ~8);
        outb(TESTDEV + 3, 1);
        outb(TESTDEV + 3, 0);
        window();
        check(n_irqs[0x23] <= 1, "a pulse on line 3");
        outb(0x21, 0xff);
        forget();
        outb(0x21, 0xfb);
        outb(0xa1, 0xef);                               /* line 12 of the second 8259 */
        outb(TESTDEV + 12, 1);
        window();
        outb(TESTDEV + 12, 0);
        check_eq(n_irqs[0x2c], 1, "line 12 through the second 8259");
        outb(0xa1, 0xff);
        outb(0x21, 0xff);
    } else {
        skip("lines of the 8259", "no test device");
    }
    eoi_pic = false;
    lapic_set(LAPIC_LVT_LINT0, LVT_MASKED);
}

static uint8_t cmos(uint8_t r)
{
    outb(0x70, r);
    return inb(0x71);
}
static void cmos_set(uint8_t r, uint8_t v)
{
    outb(0x70, r);
    outb(0x71, v);
}

static void rtc(void)
{
    forget();
    ioapic_route(8, VEC, lapic(LAPIC_ID) >> 24);
    (void)cmos(0xc);
    uint8_t a = cmos(0xa), b = cmos(0xb);
    cmos_set(0xa, (a & 0xf0) | 6);                      /* 1024 Hz */
    cmos_set(0xb, (b & 0x0f) | 0x40);
    bool came = true;
    for (unsigned i = 0; i < 5; i++) {
        came &= wait_irqs(VEC, i + 1);
        check(cmos(0xc) >= 0xc0, "RTC periodic interrupt: register C says so");
    }
    check(came, "five of them by the IOAPIC");
    cmos_set(0xb, b & 0x0f);
    (void)cmos(0xc);
    window();
    forget();
    sti();
    delay_us(5000);
    cli();
    check_eq(n_irqs[VEC], 0, "off");
    cmos_set(0xb, (b & 0x0f) | 0x10);
    for (unsigned i = 0; i < 15 && !n_irqs[VEC]; i++) {
        (void)wait_irqs(VEC, 1);
    }
    check_eq(n_irqs[VEC], 1, "RTC update interrupt within a second");
    check_eq(cmos(0xc) & 0x90, 0x90, "register C: update ended");
    check_eq(cmos(0xc) & 0x90, 0, "reading it clears it");
    cmos_set(0xb, b & 0x0f);
    cmos_set(0xa, a);
    ioapic_route(8, LVT_MASKED, 0);
}

static volatile unsigned level_line;
static void on_level(struct regs *r)
{
    n_irqs[r->vector]++;
    if (n_irqs[r->vector] == 3) {
        outb((uint16_t)(TESTDEV + level_line), 0);
    }
    lapic_set(LAPIC_EOI, 0);
}

static void ioapics(void)
{
    uint32_t me = lapic(LAPIC_ID) >> 24;
    check_eq(ioapic(1) >> 16 & 255, 23, "the IOAPIC has 24 pins");
    ioapic_set(0x10, 0x1ffff);
    check_eq(ioapic(0x10) & ~0x5000u, 0x1afff & 0x1afff, "read-only bits of an entry stay clear");
    ioapic_set(0x10, 0x10000);
    forget();
    pit_periodic(2, 1193);
    ioapic_route(2, VEC, me);
    check(wait_irqs(VEC, 3), "8254 by the IOAPIC's pin 2");
    ioapic_route(2, LVT_MASKED, me);
    window();
    forget();
    sti();
    delay_us(3000);
    cli();
    check_eq(n_irqs[VEC], 0, "masked");
    pit_periodic(0, 1);
    if (!have_testdev) {
        skip("IOAPIC lines", "no test device");
        return;
    }
    /* edge */
    ioapic_route(14, VEC, me);
    forget();
    outb(TESTDEV + 14, 1);
    window();
    check_eq(n_irqs[VEC], 1, "edge: a rising line");
    outb(TESTDEV + 14, 1);
    window();
    check_hw(n_irqs[VEC], 1, "a line that stays high");             /* QEMU takes each call as an edge */
    forget();
    outb(TESTDEV + 14, 0);
    window();
    check_eq(n_irqs[VEC], 0, "a falling line");
    outb(TESTDEV + 14, 1);
    outb(TESTDEV + 14, 0);
    window();
    check_eq(n_irqs[VEC], 1, "a pulse is latched");
    ioapic_route(14, LVT_MASKED | VEC, me);
    outb(TESTDEV + 14, 1);
    window();
    check_eq(n_irqs[VEC], 1, "masked");
    ioapic_set(0x10 + 28, VEC);
    window();
    check_hw(n_irqs[VEC], 1, "an edge while masked is lost");       /* QEMU keeps it in IRR */
    outb(TESTDEV + 14, 0);
    ioapic_route(14, LVT_MASKED, me);
    /* level */
    trap_handlers[VEC] = on_level;
    level_line = 14;
    forget();
    ioapic_route(14, VEC | 0x8000, me);
    outb(TESTDEV + 14, 1);
    for (unsigned i = 0; i < 5; i++) {
        window();
    }
    check_eq(n_irqs[VEC], 3, "level: again after each EOI until the line falls");
    check(!(ioapic(0x10 + 28) & 0x4000), "remote IRR is clear at the end");
    trap_handlers[VEC] = on_irq;
    eoi_lapic = false;
    forget();
    outb(TESTDEV + 14, 1);
    window();
    check_eq(n_irqs[VEC], 1, "level, without EOI");
    check(ioapic(0x10 + 28) & 0x4000, "remote IRR is set");
    check(lapic_bit(LAPIC_TMR, VEC), "TMR is set");
    window();
    check_eq(n_irqs[VEC], 1, "it does not come again before EOI");
    outb(TESTDEV + 14, 0);
    lapic_set(LAPIC_EOI, 0);
    window();
    check_eq(n_irqs[VEC], 1, "nor after EOI when the line has fallen");
    check(!(ioapic(0x10 + 28) & 0x4000), "remote IRR is clear");
    eoi_lapic = true;
    ioapic_route(14, LVT_MASKED | VEC | 0x8000, me);
    outb(TESTDEV + 14, 1);
    window();
    check_eq(n_irqs[VEC], 1, "level, masked");
    trap_handlers[VEC] = on_level;
    forget();
    n_irqs[VEC] = 2;
    ioapic_set(0x10 + 28, VEC | 0x8000);
    window();
    check_eq(n_irqs[VEC], 3, "unmasking a level that is still there");
    trap_handlers[VEC] = on_irq;
    ioapic_route(14, LVT_MASKED, me);
    /* logical destination and lowest priority */
    lapic_set(LAPIC_LDR, 0x01000000);
    forget();
    ioapic_route(14, VEC | 0x800 | 0x100, 0x01);
    outb(TESTDEV + 14, 1);
    outb(TESTDEV + 14, 0);
    window();
    check_eq(n_irqs[VEC], 1, "logical destination, lowest priority");
    ioapic_route(14, VEC | 0x400, me);                  /* NMI */
    trap_handlers[NMI] = on_irq;
    eoi_lapic = false;
    outb(TESTDEV + 14, 1);
    outb(TESTDEV + 14, 0);
    for (volatile unsigned i = 0; i < 1000; i++) {
    }
    check_eq(n_irqs[NMI], 1, "NMI delivery mode");
    eoi_lapic = true;
    trap_handlers[NMI] = NULL;
    ioapic_route(14, LVT_MASKED, me);
}

static void x2apic(void)
{
    if (!(cpuid(1).c >> 21 & 1)) {
        skip("x2APIC", "not there");
        return;
    }
    uint64_t base = rdmsr(MSR_APIC_BASE), v;
    check_eq(base & 0x900, 0x900, "APIC base: enabled, boot CPU");
    check_eq(try_wrmsr(MSR_APIC_BASE, (base & ~0x800ull) | 0x400), GP, "x2APIC without APIC");
    check_eq(try_rdmsr(0x802, &v), GP, "x2APIC registers in xAPIC mode");
    uint32_t id = lapic(LAPIC_ID) >> 24;
    wrmsr(MSR_APIC_BASE, base | 0x400);
    check_eq(rdmsr(0x802), id, "APIC ID");
    check_eq(rdmsr(0x80d), (uint64_t)(id >> 4) << 16 | 1u << (id & 15), "LDR follows the ID");
    forget();
    eoi_lapic = false;
    wrmsr(0x80f, 0x1ff);
    wrmsr(0x83f, VEC);
    window();
    check_eq(n_irqs[VEC], 1, "self IPI register");
    check_eq(rdmsr(0x812) & 1, 1, "ISR by MSR");                /* vector 40: bit 0 of the third register */
    wrmsr(0x80b, 0);
    check_eq(rdmsr(0x812), 0, "EOI by MSR");
    wrmsr(0x830, (uint64_t)id << 32 | ICR_ASSERT | VEC);
    window();
    check_eq(n_irqs[VEC], 2, "ICR by one MSR write");
    wrmsr(0x80b, 0);
    wrmsr(0x830, 0xffffffffull << 32 | ICR_ASSERT | VEC);
    window();
    check_eq(n_irqs[VEC], 3, "broadcast FFFFFFFF");
    wrmsr(0x80b, 0);
    wrmsr(0x830, rdmsr(0x80d) << 32 | ICR_LOGICAL | ICR_ASSERT | VEC);
    window();
    check_eq(n_irqs[VEC], 4, "logical destination");
    wrmsr(0x80b, 0);
    check_eq(try_wrmsr(0x80b, 1), GP, "EOI of a value other than 0");
    check_eq(try_wrmsr(0x802, 1), GP, "writing the ID");
    check_eq(try_rdmsr(0x80e, &v), GP, "there is no DFR");
    check_eq(try_rdmsr(0x831, &v), GP, "nor an upper ICR");
    check_eq(try_rdmsr(0x80b, &v), GP, "EOI is write-only");
    check_eq(try_rdmsr(0x83f, &v), GP, "self IPI is write-only");
    check_eq(try_wrmsr(0x808, 0x100), GP, "TPR above 8 bits");
    check_eq(try_wrmsr(MSR_APIC_BASE, base), GP, "x2APIC straight back to xAPIC");
    wrmsr(MSR_APIC_BASE, base & ~0xc00ull);
    check_eq(cpuid(1).d >> 9 & 1, 0, "switched off, CPUID hides the APIC");
    check_eq(try_wrmsr(MSR_APIC_BASE, base | 0x400), GP, "off straight to x2APIC");
    wrmsr(MSR_APIC_BASE, base);
    check_eq(lapic(LAPIC_ID) >> 24, id, "back in xAPIC mode");
    eoi_lapic = true;
    lapic_enable();
}

void guest_main(void)
{
    for (unsigned i = 0x20; i < 256; i++) {
        trap_handlers[i] = i == VEC_USER_DONE ? NULL : on_irq;
    }
    outb(TESTDEV_ECHO, 0x5a);
    have_testdev = inb(TESTDEV_ECHO) == 0x5a;
    lapic_enable();
    pic_init(0x20);
    self_ipis();
    priorities();
    shadows();
    nmis();
    lapic_timer();
    deadline_timer();
    lapic_errors();
    pic();
    rtc();
    ioapics();
    x2apic();
}
