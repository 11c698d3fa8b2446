/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guests that mean no good: random bytes as code, tables and state; more code than the caches hold; host code that runs
 * full under several vCPUs. Nothing here knows the right answer but two runs of the same thing; all of it must end.
 */
#include "guest.h"

static uint64_t rng_state;

static uint64_t rnd(void)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state;
}

static void fill_random(void)
{
    for (unsigned i = 0; i < GUEST_RAM; i += 8) {
        store_le64(g.ram + i, rnd());
    }
}

/* Interrupt vectors that lead into RAM on a stack that works, so that an exception goes on running instead of shutting down at once. */
static void random_vectors(void)
{
    for (unsigned v = 0; v < 256; v++) {
        uint64_t to = rnd() & 0x7ffff;
        guest_put64(IDT_AT + 16 * v, (to & 0xffff) | 8 << 16 | (uint64_t)0x8e01 << 32 | (to >> 16 & 0xffff) << 48);
        guest_put64(IDT_AT + 16 * v + 8, 0);
    }
    guest_put64(0x112000 + 0x24, STACK_AT);             /* IST1 */
}

static void random_registers(struct soft_cpu *c)
{
    for (unsigned r = 0; r < N_GPRS; r++) {
        c->r[r] = rnd() & 1 ? rnd() : rnd() % GUEST_RAM;
    }
    c->rip = rnd() & 0x7ffff;
}

static void *stop_watch(void *ms)
{
    usleep(1000 * (unsigned)(uintptr_t)ms);
    for (unsigned i = 0; i < g.vm->n_cpus; i++) {
        soft_kick(g.vm->cpus[i]);
    }
    return NULL;
}

static uint64_t n_insns;

static void run_random(unsigned n_cpus, unsigned mode, unsigned ms)
{
    pthread_t threads[4], watch;
    guest_create(n_cpus);
    fill_random();
    for (unsigned i = 0; i < n_cpus; i++) {
        if (mode == 0) {
            guest_real(i);
        } else {
            guest_long(i);
            random_vectors();
        }
        random_registers(g.vm->cpus[i]);
        if (mode == 2) {
            struct x86_state *st = &g.vm->cpus[i]->st;
            st->seg[SEG_CS] = seg_flat(0x23, 0xa0fb);
            st->seg[SEG_SS] = seg_flat(0x1b, 0xc0f3);
            cpu_update_mode(g.vm->cpus[i]);
        }
    }
    assert_int_equal(pthread_create(&watch, NULL, stop_watch, (void *)(uintptr_t)ms), 0);
    for (unsigned i = 0; i < n_cpus; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, cpu_thread, g.vm->cpus[i]), 0);
    }
    for (unsigned i = 0; i < n_cpus; i++) {
        pthread_join(threads[i], NULL);
    }
    pthread_join(watch, NULL);
    n_insns += g.vm->cpus[0]->insns;
    guest_destroy();
}

static void test_random_bytes_run_and_end(void **unused)
{
    const char *seed = getenv("SEED"), *rounds = getenv("ROUNDS");
    unsigned n = rounds ? (unsigned)strtoul(rounds, NULL, 0) : 90;
    rng_state = seed ? strtoull(seed, NULL, 0) : 0x9e3779b97f4a7c15ull;
    for (unsigned i = 0; i < n; i++) {
        uint64_t start = rng_state;
        if (rounds) {
            print_message("SEED=%#llx round %u\n", (unsigned long long)start, i);
        }
        run_random(i % 5 == 4 ? 2 : 1, i % 3, 3);
    }
    print_message("%llu instructions\n", (unsigned long long)n_insns);
}

/* pxor/paddd/psubd/pand/por/... xmm,xmm with every pair of registers: more thunks than 64 KiB of host code hold. */
static unsigned vector_code(uint8_t *to, unsigned n)
{
    static const uint8_t ops[] = { 0xef, 0xfe, 0xfa, 0xeb, 0xfd, 0xfc, 0xd4, 0x61, 0x62, 0x6c, 0xf4, 0xe4, 0x74, 0x66, 0xda, 0xee };
    unsigned at = 0;
    for (unsigned i = 0; i < n; i++) {
        unsigned reg = rnd() % 16, rm = rnd() % 16;
        to[at++] = 0x66;
        to[at++] = (uint8_t)(0x40 | (reg >> 3) << 2 | rm >> 3);
        to[at++] = 0x0f;
        to[at++] = ops[rnd() % sizeof(ops)];
        to[at++] = (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7));
    }
    return at;
}

/* Runs the same vector code on n vCPUs with a host code buffer of `size`; returns vCPU 0's XMM registers. */
static void run_vectors(unsigned n_cpus, size_t size, uint8_t xmm[256])
{
    pthread_t t[4];
    struct err err = ERR_INIT;
    rng_state = 12345;
    guest_create(n_cpus);
    soft_vm_destroy(g.vm);
    g.vm = soft_vm_create(g.mem, &g.irq, &g.clock, &g.model, n_cpus, size, &err);
    assert_non_null(g.vm);
    static const uint8_t again[] = { 0xff, 0xce, 0x0f, 0x85 };          /* dec esi; jnz start */
    static const uint8_t done[] = { 0xf0, 0xff, 0x04, 0x25, 0, 0, 0x20, 0, 0xf4, 0xeb, 0xfd };      /* lock inc [0x200000]; hlt; jmp */
    unsigned n = vector_code(g.ram + GUEST_AT, 6000);
    guest_put(GUEST_AT + n, again, sizeof(again));
    int32_t back = -(int32_t)(n + 8);
    guest_put(GUEST_AT + n + 4, &back, 4);
    guest_put(GUEST_AT + n + 8, done, sizeof(done));
    for (unsigned i = 0; i < n_cpus; i++) {
        struct x86_state *st = &g.vm->cpus[i]->st;
        x86_state_reset(st, i, i == 0);
        st->gpr[R_SI] = 3;
        for (unsigned b = 0; b < 256; b++) {
            st->xsave[160 + b] = (uint8_t)(b * 7 + 1);
        }
        st->xsave[512] |= 3;
        guest_long(i);
    }
    for (unsigned i = 0; i < n_cpus; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, cpu_thread, g.vm->cpus[i]), 0);
    }
    while ((guest_get64(DATA_AT) & 0xff) != n_cpus) {
        usleep(500);
    }
    for (unsigned i = 0; i < n_cpus; i++) {
        soft_kick(g.vm->cpus[i]);
        pthread_join(t[i], NULL);
    }
    memcpy(xmm, g.vm->cpus[0]->st.xsave + 160, 256);
    for (unsigned i = 1; i < n_cpus; i++) {
        assert_memory_equal(xmm, g.vm->cpus[i]->st.xsave + 160, 256);
    }
    guest_destroy();
}

static void test_host_code_runs_full_under_several_cpus(void **unused)
{
    uint8_t big[256], small[256];
    run_vectors(1, 4 * MIB, big);
    run_vectors(1, 64 * KIB, small);
    assert_memory_equal(big, small, 256);
    run_vectors(3, 64 * KIB, small);
    assert_memory_equal(big, small, 256);
}

static void test_more_blocks_than_the_cache_holds(void **unused)
{
    guest_create(8);                    /* eight caches: 1.5 MiB each */
    guest_long(0);
    uint8_t *p = g.ram + 0x300000;
    unsigned n = 60000;
    for (unsigned i = 0; i < n; i++) {
        memcpy(p, "\x48\xff\xc0\xeb\x00", 5);   /* inc rax; jmp next */
        p += 5;
    }
    memcpy(p, "\xff\xce\x0f\x85", 4);
    store_le32(p + 4, (uint32_t)-(int32_t)(5 * n + 8));
    memcpy(p + 8, "\xe6\xf4\xf4", 3);
    g.vm->cpus[0]->rip = 0x300000;
    g.vm->cpus[0]->r[R_AX] = 0;
    g.vm->cpus[0]->r[R_SI] = 3;
    assert_int_equal(guest_run(), SOFT_EXIT_KICKED);
    assert_true(g.vm->cpus[0]->r[R_AX] == 3ull * n);
    assert_true(g.vm->cpus[0]->stats.blocks_built > 2 * n);
    guest_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_host_code_runs_full_under_several_cpus),
        cmocka_unit_test(test_more_blocks_than_the_cache_holds),
        cmocka_unit_test(test_random_bytes_run_and_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
