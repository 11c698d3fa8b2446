/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Several CPUs: start-up, atomic operations, memory order, IPIs, TLB shootdown, code changed by another CPU, cmpxchg16b.
 * Sources: SDM vol. 3A 8 (multiple processors; 8.2 memory order, 8.1.3 cross-modifying code), 8.4 (INIT-SIPI-SIPI).
 */
#include "rt/apic.h"

enum { VEC_PING = 0x40, VEC_PONG, VEC_SHOOT, ROUNDS = 8000 };
static unsigned n_cpus;

/* --- atomic operations --- */
static volatile uint64_t counter ALIGNED(64), bits_taken, cas_counter, xadd_sum, wide[2] ALIGNED(16), plain_under_lock;
static volatile uint32_t spin ALIGNED(64);
static volatile uint8_t byte_counter;
static uint8_t split_area[8192 + 64] ALIGNED(4096);
static volatile unsigned at_barrier, barrier_round;

static void barrier_of(unsigned n)
{
    unsigned round = barrier_round;
    if (__atomic_add_fetch(&at_barrier, 1, __ATOMIC_SEQ_CST) == n) {
        at_barrier = 0;
        __atomic_add_fetch(&barrier_round, 1, __ATOMIC_SEQ_CST);
    }
    while (barrier_round == round) {
        cpu_pause();
    }
}

static void barrier(void)
{
    barrier_of(n_cpus);
}

static void atomics(unsigned cpu)
{
    barrier();
    for (unsigned i = 0; i < ROUNDS; i++) {
        __asm__ volatile("lock; incq %0" : "+m"(counter) :: "cc");
        __asm__ volatile("lock; incb %0" : "+m"(byte_counter) :: "cc");
        uint64_t one = 1, seen = cas_counter;
        __asm__ volatile("lock; xaddq %0, %1" : "+r"(one), "+m"(xadd_sum) :: "cc", "memory");
        do {
        } while (!__atomic_compare_exchange_n(&cas_counter, &seen, seen + 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    }
}

static void spinlock(unsigned cpu)
{
    barrier();
    for (unsigned i = 0; i < ROUNDS / 10; i++) {
        uint32_t v;
        for (;;) {
            v = 1;
            __asm__ volatile("xchgl %0, %1" : "+r"(v), "+m"(spin) :: "memory");
            if (!v) {
                break;
            }
            while (spin) {
                cpu_pause();
            }
        }
        plain_under_lock = plain_under_lock + 1;
        __asm__ volatile("" ::: "memory");
        spin = 0;
    }
}

static void wide_exchange(unsigned cpu)
{
    barrier();
    for (unsigned i = 0; i < ROUNDS / 4; i++) {
        uint64_t lo = wide[0], hi = wide[1];
        bool done;
        do {
            __asm__ volatile("lock; cmpxchg16b %0" : "+m"(*(volatile __int128 *)wide), "+a"(lo), "+d"(hi), "=@ccz"(done)
                             : "b"(lo + 1), "c"(hi + 3) : "memory");
        } while (!done);
    }
}

static void bit_race(unsigned cpu)
{
    for (unsigned i = 0; i < 64; i++) {
        bool was;
        __asm__ volatile("lock; btsq %2, %0" : "+m"(bits_taken), "=@ccc"(was) : "r"((uint64_t)i) : "memory");
        if (!was) {
            __atomic_add_fetch(&plain_under_lock, 1, __ATOMIC_SEQ_CST);
        }
    }
}

static volatile uint64_t *split_word;
static void split_atomics(unsigned cpu)
{
    barrier();
    for (unsigned i = 0; i < ROUNDS / 20; i++) {
        __asm__ volatile("lock; incq %0" : "+m"(*split_word) :: "cc");
    }
}

static void atomic_operations(void)
{
    smp_run_all(n_cpus, atomics);
    check_eq(counter, (uint64_t)n_cpus * ROUNDS, "LOCK INC");
    check_eq(byte_counter, (uint8_t)(n_cpus * ROUNDS), "LOCK INC of a byte");
    check_eq(xadd_sum, (uint64_t)n_cpus * ROUNDS, "LOCK XADD");
    check_eq(cas_counter, (uint64_t)n_cpus * ROUNDS, "LOCK CMPXCHG");
    smp_run_all(n_cpus, spinlock);
    check_eq(plain_under_lock, (uint64_t)n_cpus * (ROUNDS / 10), "a spinlock by XCHG");
    smp_run_all(n_cpus, wide_exchange);
    check(wide[0] == (uint64_t)n_cpus * (ROUNDS / 4) && wide[1] == 3 * wide[0], "LOCK CMPXCHG16B");
    plain_under_lock = 0;
    smp_run_all(n_cpus, bit_race);
    check_eq(plain_under_lock, 64, "LOCK BTS gives each bit to one CPU");
    split_word = (volatile uint64_t *)(split_area + 60);
    smp_run_all(n_cpus, split_atomics);
    check_eq(*split_word, (uint64_t)n_cpus * (ROUNDS / 20), "LOCK INC over two cache lines");
    split_word = (volatile uint64_t *)(split_area + 4092);
    smp_run_all(n_cpus, split_atomics);
    check_eq(*split_word, (uint64_t)n_cpus * (ROUNDS / 20), "LOCK INC over two pages");
    static uint64_t bad[4] ALIGNED(16);
    check_eq(TRY("lock; cmpxchg16b (%0)", :: "r"((uint8_t *)bad + 8), "a"(0), "b"(0), "c"(0), "d"(0) : "memory", "cc"), GP,
             "CMPXCHG16B of a misaligned operand");
}

/* --- memory order --- */
static volatile unsigned lit_x ALIGNED(64), lit_y ALIGNED(64), lit_r[2], lit_bad;

static void store_buffer(unsigned cpu)      /* CPUs 0 and 1; with MFENCE both cannot read 0 */
{
    for (unsigned i = 0; i < 400; i++) {
        barrier_of(2);
        volatile unsigned *mine = cpu ? &lit_y : &lit_x, *other = cpu ? &lit_x : &lit_y;
        *mine = 1;
        __asm__ volatile("mfence" ::: "memory");
        lit_r[cpu] = *other;
        barrier_of(2);
        if (cpu == 0) {
            lit_bad += !lit_r[0] && !lit_r[1];
            lit_x = lit_y = 0;
        }
    }
}

static void message_passing(unsigned cpu)   /* stores are seen in order */
{
    for (unsigned i = 1; i <= ROUNDS; i++) {
        if (cpu == 0) {
            lit_x = i;
            lit_y = i;
        } else if (cpu == 1) {
            unsigned y = lit_y;
            __asm__ volatile("" ::: "memory");
            unsigned x = lit_x;
            lit_bad += x < y;
        }
    }
}

static void order(void)
{
    smp_run_all(2, store_buffer);
    check_eq(lit_bad, 0, "store, MFENCE, load: one of two CPUs sees the other's store");
    lit_x = lit_y = 0;
    smp_run_all(2, message_passing);
    check_eq(lit_bad, 0, "another CPU's stores are seen in order");
}

/* --- interrupts --- */
static volatile unsigned pings[9], pongs, shot[9], shoot_ack;

static void on_ping(struct regs *r)
{
    lapic_set(LAPIC_EOI, 0);
    ipi(ICR_ASSERT | VEC_PONG, smp_apic_id(0));
}

static void on_pong(struct regs *r)
{
    pongs++;
    lapic_set(LAPIC_EOI, 0);
}

static volatile bool stop;
static void listen_asleep(unsigned cpu)
{
    while (!stop) {
        sti_hlt_cli();
    }
}

static void listen_busy(unsigned cpu)
{
    sti();
    while (!stop) {
        cpu_pause();
    }
    cli();
}

static void on_wake(struct regs *r)
{
    lapic_set(LAPIC_EOI, 0);
}

static void stop_listening(void)
{
    stop = true;
    for (unsigned i = 1; i < n_cpus; i++) {
        while (!smp_done(i)) {
            ipi(ICR_ASSERT | 0x50, smp_apic_id(i));
            delay_us(100);
        }
    }
    stop = false;
}

static bool ping_pong(unsigned cpu, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        unsigned before = pongs;
        ipi(ICR_ASSERT | VEC_PING, smp_apic_id(cpu));
        for (uint64_t t0 = rdtsc(); pongs == before && rdtsc() - t0 < 20000000000ull;) {
            __asm__ volatile("sti; nop; cli" ::: "memory");
            cpu_pause();
        }
        if (pongs != before + 1) {
            return false;
        }
    }
    return true;
}

static volatile unsigned nmis[9];
static void on_nmi(struct regs *r)
{
    nmis[lapic(LAPIC_ID) >> 24 & 7]++;
}

static void ipis(void)
{
    trap_handlers[VEC_PING] = on_ping;
    trap_handlers[VEC_PONG] = on_pong;
    trap_handlers[0x50] = on_wake;
    trap_handlers[NMI] = on_nmi;
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 1; i < n_cpus; i++) {
            smp_run(i, pass ? listen_busy : listen_asleep);
        }
        bool good = true;
        for (unsigned i = 1; i < n_cpus; i++) {
            good &= ping_pong(i, 200);
        }
        check(good, pass ? "200 IPIs to and from each busy CPU" : "200 IPIs to and from each halted CPU");
        if (pass == 0) {
            ipi(ICR_ASSERT | ICR_NMI | ICR_OTHERS, 0);
            delay_us(20000);
            unsigned n = 0;
            for (unsigned i = 1; i < n_cpus; i++) {
                n += nmis[smp_apic_id(i) & 7];
            }
            check_eq(n, n_cpus - 1, "an NMI to all others, halted");
            pongs = 0;
            ipi(ICR_ASSERT | VEC_PING | ICR_OTHERS, 0);
            for (unsigned i = 0; i < 200 && pongs == 0; i++) {
                sti();
                delay_us(1000);
                cli();
            }
            check(pongs >= 1 && pongs < n_cpus, "a broadcast is answered");
        }
        stop_listening();
    }
}

/* --- TLB shootdown --- */
#define SHOOT_VA 0x8000000000ul
extern uint64_t pml4[512];
static uint64_t pdpt_t[512] ALIGNED(4096), pd_t[512] ALIGNED(4096), pt_t[512] ALIGNED(4096);
static uint64_t page_a[512] ALIGNED(4096), page_b[512] ALIGNED(4096);
static volatile unsigned stale;
static volatile uint64_t shoot_value;

static void on_shoot(struct regs *r)
{
    invlpg((void *)SHOOT_VA);
    __atomic_add_fetch(&shoot_ack, 1, __ATOMIC_SEQ_CST);
    lapic_set(LAPIC_EOI, 0);
}

static void shoot_reader(unsigned cpu)
{
    sti();
    while (!stop) {
        cli();
        uint64_t want = shoot_value, got = *(volatile uint64_t *)SHOOT_VA;
        if (got != want && want == shoot_value && want) {
            stale++;
        }
        __asm__ volatile("sti; pause" ::: "memory");
    }
    cli();
}

static void shootdown(void)
{
    trap_handlers[VEC_SHOOT] = on_shoot;
    pml4[1] = (ulong)pdpt_t | 3;
    pdpt_t[0] = (ulong)pd_t | 3;
    pd_t[0] = (ulong)pt_t | 3;
    page_a[0] = 1;
    page_b[0] = 2;
    *(volatile uint64_t *)&pt_t[0] = (ulong)page_a | 3;
    shoot_value = 1;
    for (unsigned i = 1; i < n_cpus; i++) {
        smp_run(i, shoot_reader);
    }
    for (unsigned i = 0; i < 100; i++) {
        shoot_value = 0;                        /* until the next round the readers take the old value and the new one */
        *(volatile uint64_t *)&pt_t[0] = (i & 1 ? (ulong)page_a : (ulong)page_b) | 3;
        invlpg((void *)SHOOT_VA);
        shoot_ack = 0;
        ipi(ICR_ASSERT | ICR_OTHERS | VEC_SHOOT, 0);
        while (shoot_ack != n_cpus - 1) {
            cpu_pause();
        }
        shoot_value = i & 1 ? 1 : 2;
        for (unsigned k = 0; k < 50; k++) {
            cpu_pause();
        }
    }
    shoot_value = 0;
    stop = true;
    for (unsigned i = 1; i < n_cpus; i++) {
        smp_wait(i);
    }
    stop = false;
    check_eq(stale, 0, "after a shootdown no CPU sees the old page");
    /* Accessed and dirty bits set by several CPUs at once are not lost, nor are other bits of the entry. */
    check_eq(pt_t[0] & 0xfff, 0x23, "the entry was accessed and not written");
}

/* --- code changed by another CPU --- */
static volatile unsigned code_round, code_seen[9], code_bad;
typedef unsigned code_fn(void);
static uint8_t code_page[4096] ALIGNED(4096);   /* mov $imm32, %eax; ret */

static void code_runner(unsigned cpu)
{
    code_fn *fn = (code_fn *)(ulong)code_page;
    unsigned last = 0;
    while (!stop) {
        unsigned before = code_round;
        (void)cpuid(0);                         /* serializes */
        unsigned got = fn();
        code_bad += got < before || got < last || got > code_round + 1;
        last = got;
        code_seen[cpu] = got;
        cpu_pause();
    }
}

static void cross_modifying(void)
{
    code_page[0] = 0xb8;
    *(volatile uint32_t *)(code_page + 1) = 0;
    code_page[5] = 0xc3;
    for (unsigned i = 1; i < n_cpus; i++) {
        smp_run(i, code_runner);
    }
    for (unsigned i = 1; i <= 100; i++) {
        *(volatile uint32_t *)(code_page + 1) = i;
        __asm__ volatile("mfence" ::: "memory");
        code_round = i;
        for (unsigned c = 1; c < n_cpus; c++) {
            while (code_seen[c] < i) {
                cpu_pause();
            }
        }
    }
    stop = true;
    for (unsigned i = 1; i < n_cpus; i++) {
        smp_wait(i);
    }
    stop = false;
    check_eq(code_bad, 0, "code written by another CPU is seen after serializing, 100 times");
}

/* --- time --- */
static volatile uint64_t last_tsc;
static volatile unsigned tsc_bad;
static void tsc_race(unsigned cpu)
{
    for (unsigned i = 0; i < 2000; i++) {
        while (__atomic_exchange_n(&spin, 1, __ATOMIC_ACQUIRE)) {
            cpu_pause();
        }
        uint64_t now = rdtsc();
        tsc_bad += now < last_tsc;
        last_tsc = now;
        __atomic_store_n(&spin, 0, __ATOMIC_RELEASE);
    }
}

/* --- INIT of a running CPU --- */
static volatile unsigned restarts;
static void spin_for_ever(unsigned cpu)
{
    restarts++;
    for (;;) {
        cpu_pause();
    }
}

static void init_again(void)
{
    unsigned last = n_cpus - 1, before = cpus_up;
    smp_run(last, spin_for_ever);
    while (!restarts) {
        cpu_pause();
    }
    ipi(ICR_ASSERT | ICR_INIT, smp_apic_id(last));
    delay_us(10000);
    ipi(ICR_ASSERT | VEC_PING, smp_apic_id(last));      /* nobody listens: must be dropped */
    delay_us(1000);
    ipi(ICR_ASSERT | ICR_STARTUP | 8, smp_apic_id(last));
    for (unsigned i = 0; i < 100 && cpus_up == before; i++) {
        delay_us(10000);
    }
    check_eq(cpus_up, before + 1, "a CPU in a loop with interrupts off starts again by INIT and SIPI");
    ipi(ICR_ASSERT | ICR_STARTUP | 8, smp_apic_id(last));
    delay_us(20000);
    check_eq(cpus_up, before + 1, "a SIPI without INIT is ignored");
}

void guest_main(void)
{
    n_cpus = (unsigned)option("cpus", 1);
    check_eq(smp_start(n_cpus), n_cpus, "INIT and SIPI start every CPU");
    if (cpus_up < n_cpus) {
        die("too few CPUs");
    }
    if (n_cpus < 2) {
        skip("everything else", "one CPU");
        return;
    }
    bool distinct = true;
    for (unsigned i = 0; i < n_cpus; i++) {
        for (unsigned k = 0; k < i; k++) {
            distinct &= smp_apic_id(i) != smp_apic_id(k);
        }
    }
    check(distinct, "each has its own APIC ID");
    atomic_operations();
    order();
    ipis();
    shootdown();
    if (not_on_tcg("code written by another CPU")) {    /* QEMU 7.2 never shows it the new code */
        cross_modifying();
    }
    smp_run_all(n_cpus, tsc_race);
    check_eq(tsc_bad, 0, "TSC never goes back from CPU to CPU");
    init_again();
}
