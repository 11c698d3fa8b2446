/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Further CPUs: each waits for a function to run. */
#include "apic.h"

enum { CPUS_MAX = 9, TRAMPOLINE = 0x8000 };
static void (*volatile work[CPUS_MAX])(unsigned);
static uint32_t apic_ids[CPUS_MAX];
extern const char smp_trampoline[], smp_trampoline_end[];
_Noreturn void ap_main(unsigned cpu);   /* from the boot code */

_Noreturn void ap_main(unsigned cpu)
{
    apic_ids[cpu] = lapic(LAPIC_ID) >> 24;
    lapic_enable();
    for (;;) {
        void (*fn)(unsigned) = work[cpu];
        if (fn) {
            fn(cpu);
            __atomic_store_n(&work[cpu], NULL, __ATOMIC_RELEASE);
        }
        cpu_pause();
    }
}

unsigned smp_start(unsigned want)
{
    apic_ids[0] = lapic(LAPIC_ID) >> 24;
    memcpy((void *)TRAMPOLINE, smp_trampoline, (size_t)(smp_trampoline_end - smp_trampoline));
    lapic_enable();
    ipi(ICR_OTHERS | ICR_INIT | ICR_ASSERT, 0);
    delay_us(10000);
    ipi(ICR_OTHERS | ICR_STARTUP | ICR_ASSERT | TRAMPOLINE >> 12, 0);
    for (unsigned i = 0; i < 100 && cpus_up < want; i++) {
        delay_us(10000);
    }
    return cpus_up;
}

void smp_run(unsigned cpu, void (*fn)(unsigned))
{
    __atomic_store_n(&work[cpu], fn, __ATOMIC_RELEASE);
}

bool smp_done(unsigned cpu)
{
    return !__atomic_load_n(&work[cpu], __ATOMIC_ACQUIRE);
}

void smp_wait(unsigned cpu)
{
    while (!smp_done(cpu)) {
        cpu_pause();
    }
}

void smp_run_all(unsigned n, void (*fn)(unsigned))
{
    for (unsigned i = 1; i < n; i++) {
        smp_run(i, fn);
    }
    fn(0);
    for (unsigned i = 1; i < n; i++) {
        smp_wait(i);
    }
}

uint32_t smp_apic_id(unsigned cpu)
{
    return apic_ids[cpu];
}
