/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "mem/mem.h"

/* A region that writes down what it is asked, and whose byte at offset n reads n + seed. */
struct scribe {
    struct io_region r;
    struct io_handler h;
    uint8_t seed;
    char log[256];
};

static void note(struct scribe *s, const char *fmt, uint64_t off, unsigned width, uint64_t val)
{
    size_t n = strlen(s->log);
    AUTO_FREE char *line = width ? str_fmt("%c%llx/%u=%llx ", *fmt, (unsigned long long)off, width, (unsigned long long)val) : NULL;
    if (line && n + strlen(line) < sizeof(s->log)) {
        memcpy(s->log + n, line, strlen(line) + 1);
    }
}

static uint64_t scribe_read(struct io_region *r, uint64_t off, unsigned width)
{
    struct scribe *s = container_of(r, struct scribe, r);
    uint64_t v = 0;
    for (unsigned i = 0; i < width; i++) {
        v |= (uint64_t)(uint8_t)(off + i + s->seed) << 8 * i;
    }
    assert_true(off % width == 0 && off + width <= r->size);
    note(s, "r", off, width, v);
    return v;
}

static void scribe_write(struct io_region *r, uint64_t off, uint64_t val, unsigned width)
{
    assert_true(off % width == 0 && off + width <= r->size);
    note(container_of(r, struct scribe, r), "w", off, width, val);
}

static void init_scribe(struct scribe *s, enum mem_space space, uint64_t base, uint64_t size, unsigned min, unsigned max)
{
    *s = (struct scribe){ .r = { .name = "scribe", .space = space, .base = base, .size = size } };
    s->h = (struct io_handler){ scribe_read, scribe_write, (uint8_t)min, (uint8_t)max };
    s->r.h = &s->h;
}

static void assert_log(struct scribe *s, const char *want)
{
    assert_string_equal(s->log, want);
    s->log[0] = 0;
}

static void test_nobody_there_reads_ones(void **unused)
{
    struct mem *m = mem_create();
    assert_int_equal(mem_io_read(m, MEM_PIO, 0x80, 1), 0xff);
    assert_int_equal(mem_io_read(m, MEM_MMIO, 0xfed00000, 4), 0xffffffff);
    assert_true(mem_io_read(m, MEM_MMIO, UINT64_MAX - 3, 8) == UINT64_MAX);
    mem_io_write(m, MEM_MMIO, UINT64_MAX, 1, 8);
    static const struct io_handler none = { 0 };
    struct io_region r = { .name = "mute", .space = MEM_PIO, .base = 0x80, .size = 1, .h = &none };
    assert_true(mem_io_map(m, &r, NULL));
    assert_int_equal(mem_io_read(m, MEM_PIO, 0x80, 1), 0xff);
    mem_io_write(m, MEM_PIO, 0x80, 1, 1);
    mem_io_unmap(m, &r);
    mem_destroy(m);
}

static void test_widths_are_split_and_merged(void **unused)
{
    struct mem *m = mem_create();
    struct scribe any, word, quad;
    init_scribe(&any, MEM_PIO, 0x100, 8, 0, 0);
    init_scribe(&word, MEM_PIO, 0x200, 8, 2, 2);
    init_scribe(&quad, MEM_MMIO, 0x1000, 16, 4, 4);
    assert_true(mem_io_map(m, &any.r, NULL) && mem_io_map(m, &word.r, NULL) && mem_io_map(m, &quad.r, NULL));

    assert_int_equal(mem_io_read(m, MEM_PIO, 0x104, 4), 0x07060504);
    assert_log(&any, "r4/4=7060504 ");
    assert_int_equal(mem_io_read(m, MEM_PIO, 0x101, 4), 0x04030201);          /* odd: aligned pieces */
    assert_log(&any, "r1/1=1 r2/2=302 r4/1=4 ");
    assert_true(mem_io_read(m, MEM_PIO, 0x100, 8) == 0x0706050403020100);
    assert_log(&any, "r0/8=706050403020100 ");

    assert_int_equal(mem_io_read(m, MEM_PIO, 0x200, 4), 0x03020100);
    assert_log(&word, "r0/2=100 r2/2=302 ");
    assert_int_equal(mem_io_read(m, MEM_PIO, 0x203, 1), 0x03);
    assert_log(&word, "r2/2=302 ");
    mem_io_write(m, MEM_PIO, 0x203, 0xab, 1);
    assert_log(&word, "w2/2=ab00 ");
    mem_io_write(m, MEM_PIO, 0x202, 0xffff1234, 2);
    assert_log(&word, "w2/2=1234 ");
    mem_io_write(m, MEM_PIO, 0x201, 0x44332211, 4);
    assert_log(&word, "w0/2=1100 w2/2=3322 w4/2=44 ");

    mem_io_write(m, MEM_MMIO, 0x1008, 0x8877665544332211, 8);
    assert_log(&quad, "w8/4=44332211 wc/4=88776655 ");
    assert_true(mem_io_read(m, MEM_MMIO, 0x1008, 8) == 0x0f0e0d0c0b0a0908);
    assert_log(&quad, "r8/4=b0a0908 rc/4=f0e0d0c ");
    assert_int_equal(mem_io_read(m, MEM_MMIO, 0x1006, 4), 0x09080706);        /* across two registers */
    assert_log(&quad, "r4/4=7060504 r8/4=b0a0908 ");
    mem_destroy(m);
    assert_false(any.r.mapped);
}

static void test_an_access_over_the_edge_is_cut_there(void **unused)
{
    struct mem *m = mem_create();
    struct scribe a, b;
    init_scribe(&a, MEM_MMIO, 0x1000, 4, 0, 0);
    init_scribe(&b, MEM_MMIO, 0x1006, 2, 0, 0);
    b.seed = 0x40;
    assert_true(mem_io_map(m, &a.r, NULL) && mem_io_map(m, &b.r, NULL));
    assert_true(mem_io_read(m, MEM_MMIO, 0x1002, 8) == 0xffff4140ffff0302);
    assert_log(&a, "r2/2=302 ");
    assert_log(&b, "r0/2=4140 ");
    mem_io_write(m, MEM_MMIO, 0x1002, 0x1122334455667788, 8);
    assert_log(&a, "w2/2=7788 ");
    assert_log(&b, "w0/2=3344 ");
    assert_int_equal(mem_io_read(m, MEM_MMIO, 0xfff, 2), 0x00ff);
    mem_destroy(m);
}

static void test_of_overlapping_regions_the_higher_priority_answers(void **unused)
{
    struct mem *m = mem_create();
    struct scribe low, high, late;
    init_scribe(&low, MEM_MMIO, 0x1000, 0x100, 0, 0);
    init_scribe(&high, MEM_MMIO, 0x1040, 0x10, 0, 0);
    init_scribe(&late, MEM_MMIO, 0x1048, 0x40, 0, 0);
    high.r.priority = 1;
    high.seed = 0x80;
    late.seed = 0xc0;
    assert_true(mem_io_map(m, &high.r, NULL) && mem_io_map(m, &low.r, NULL) && mem_io_map(m, &late.r, NULL));
    assert_int_equal(mem_io_read(m, MEM_MMIO, 0x103f, 1), 0x3f);
    assert_int_equal(mem_io_read(m, MEM_MMIO, 0x1040, 1), 0x80);
    assert_int_equal(mem_io_read(m, MEM_MMIO, 0x104f, 1), 0x8f);
    assert_int_equal(mem_io_read(m, MEM_MMIO, 0x1050, 1), 0xc8);
    assert_int_equal(mem_io_read(m, MEM_MMIO, 0x1088, 1), 0x88);
    assert_int_equal(mem_io_read(m, MEM_MMIO, 0x103e, 4), 0x81803f3e);
    mem_io_unmap(m, &high.r);
    mem_io_unmap(m, &high.r);
    assert_int_equal(mem_io_read(m, MEM_MMIO, 0x1040, 1), 0x40);
    assert_true(mem_io_move(m, &low.r, 0x1000, NULL));         /* moved last: wins among equals */
    assert_int_equal(mem_io_read(m, MEM_MMIO, 0x1050, 1), 0x50);
    assert_true(mem_io_move(m, &low.r, 0x2000, NULL));
    assert_int_equal(mem_io_read(m, MEM_MMIO, 0x1000, 1), 0xff);
    assert_int_equal(mem_io_read(m, MEM_MMIO, 0x20ff, 1), 0xff & 0xff);
    assert_int_equal(mem_io_read(m, MEM_MMIO, 0x2001, 1), 0x01);
    mem_destroy(m);
}

static void test_impossible_regions_are_refused(void **unused)
{
    struct mem *m = mem_create();
    struct err err = ERR_INIT;
    struct scribe s;
    init_scribe(&s, MEM_PIO, 0xfffc, 8, 0, 0);
    assert_false(mem_io_map(m, &s.r, &err));
    init_scribe(&s, MEM_MMIO, UINT64_MAX - 3, 8, 0, 0);
    assert_false(mem_io_map(m, &s.r, &err));
    init_scribe(&s, MEM_MMIO, 0, 0, 0, 0);
    assert_false(mem_io_map(m, &s.r, &err));
    init_scribe(&s, MEM_MMIO, 0, 6, 4, 4);
    assert_false(mem_io_map(m, &s.r, &err));
    init_scribe(&s, MEM_MMIO, 0, 6, 3, 4);
    assert_false(mem_io_map(m, &s.r, &err));
    init_scribe(&s, MEM_MMIO, 0, 8, 4, 2);
    assert_false(mem_io_map(m, &s.r, &err));
    init_scribe(&s, MEM_PIO, 0x10, 8, 0, 0);
    assert_true(mem_io_map(m, &s.r, &err));
    assert_false(mem_io_map(m, &s.r, &err));
    assert_int_equal(err.code, ERR_STATE);
    assert_false(mem_io_move(m, &s.r, 0xffff, &err));
    assert_int_equal(s.r.base, 0x10);
    assert_int_equal(mem_io_read(m, MEM_PIO, 0x11, 1), 1);
    mem_destroy(m);
}

static uint64_t event_count(int fd)
{
    uint64_t v = 0;
    return read(fd, &v, sizeof(v)) == sizeof(v) ? v : 0;
}

static void test_an_ioeventfd_takes_the_write_from_the_region(void **unused)
{
    struct mem *m = mem_create();
    struct err err = ERR_INIT;
    struct scribe s;
    AUTO_FD int any = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    AUTO_FD int two = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    init_scribe(&s, MEM_MMIO, 0x1000, 0x100, 0, 0);
    assert_true(mem_io_map(m, &s.r, NULL));
    assert_true(mem_ioeventfd_add(m, MEM_MMIO, 0x1010, 0, any, &err));
    assert_true(mem_ioeventfd_add(m, MEM_MMIO, 0x1020, 2, two, &err));
    assert_false(mem_ioeventfd_add(m, MEM_MMIO, 0x1020, 2, any, &err));
    assert_false(mem_ioeventfd_add(m, MEM_MMIO, 0x1020, 3, any, &err));
    mem_io_write(m, MEM_MMIO, 0x1010, 5, 1);
    mem_io_write(m, MEM_MMIO, 0x1010, 5, 4);
    mem_io_write(m, MEM_MMIO, 0x1020, 5, 2);
    assert_log(&s, "");
    mem_io_write(m, MEM_MMIO, 0x1020, 5, 4);
    mem_io_write(m, MEM_MMIO, 0x1011, 5, 1);
    assert_log(&s, "w20/4=5 w11/1=5 ");
    assert_int_equal(event_count(any), 2);
    assert_int_equal(event_count(two), 1);
    assert_int_equal(mem_io_read(m, MEM_MMIO, 0x1010, 1), 0x10);
    mem_ioeventfd_del(m, MEM_MMIO, 0x1010, two);
    mem_ioeventfd_del(m, MEM_MMIO, 0x1010, any);
    mem_io_write(m, MEM_MMIO, 0x1010, 7, 1);
    assert_log(&s, "r10/1=10 w10/1=7 ");
    assert_int_equal(event_count(any), 0);
    mem_destroy(m);
}

static void walk_cb(const struct io_region *r, void *arg)
{
    uint64_t *sum = arg;
    *sum = *sum * 0x100 + r->base;
}

static void test_regions_are_walked_by_base(void **unused)
{
    struct mem *m = mem_create();
    struct scribe a, b, c;
    uint64_t sum = 0;
    init_scribe(&a, MEM_PIO, 0x30, 1, 0, 0);
    init_scribe(&b, MEM_PIO, 0x10, 1, 0, 0);
    init_scribe(&c, MEM_PIO, 0x20, 1, 0, 0);
    mem_io_walk(m, MEM_PIO, walk_cb, &sum);
    assert_int_equal(sum, 0);
    assert_true(mem_io_map(m, &a.r, NULL) && mem_io_map(m, &b.r, NULL) && mem_io_map(m, &c.r, NULL));
    mem_io_walk(m, MEM_PIO, walk_cb, &sum);
    assert_int_equal(sum, 0x102030);
    mem_destroy(m);
}

/* A config register whose write moves, unmaps or maps regions, its own included: as PCI config space does. */
struct config {
    struct io_region r;
    struct io_handler h;
    struct mem *m;
    struct io_region *bar;
    int calls;
};

static void config_write(struct io_region *r, uint64_t off, uint64_t val, unsigned width)
{
    struct config *c = container_of(r, struct config, r);
    c->calls++;
    if (off == 0) {
        mem_io_move(c->m, c->bar, val, NULL);
    } else if (off == 4) {
        mem_io_unmap(c->m, c->bar);
    } else if (off == 8) {
        mem_io_map(c->m, c->bar, NULL);
    } else {
        mem_io_unmap(c->m, &c->r);
    }
}

static void test_a_handler_may_move_and_unmap_regions_itself_included(void **unused)
{
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, bar_lock = PTHREAD_MUTEX_INITIALIZER;
    for (int with_lock = 0; with_lock < 3; with_lock++) {
        struct mem *m = mem_create();
        struct scribe bar;
        struct config c = { .r = { .name = "config", .space = MEM_PIO, .base = 0xcf8, .size = 16 }, .m = m, .bar = &bar.r };
        c.h = (struct io_handler){ .write = config_write, .min_width = 4, .max_width = 4 };
        c.r.h = &c.h;
        init_scribe(&bar, MEM_MMIO, 0x1000, 16, 0, 0);
        c.r.lock = with_lock ? &lock : NULL;
        bar.r.lock = with_lock == 1 ? &lock : with_lock ? &bar_lock : NULL;
        assert_true(mem_io_map(m, &c.r, NULL) && mem_io_map(m, &bar.r, NULL));
        mem_io_write(m, MEM_PIO, 0xcf8, 0x5000, 4);
        assert_int_equal(mem_io_read(m, MEM_MMIO, 0x5001, 1), 1);
        mem_io_write(m, MEM_PIO, 0xcfc, 0, 4);
        assert_int_equal(mem_io_read(m, MEM_MMIO, 0x5001, 1), 0xff);
        mem_io_write(m, MEM_PIO, 0xd00, 0, 4);
        assert_int_equal(mem_io_read(m, MEM_MMIO, 0x5001, 1), 1);
        mem_io_write(m, MEM_PIO, 0xd04, 0, 4);
        assert_int_equal(c.calls, 4);
        mem_io_write(m, MEM_PIO, 0xd04, 0, 4);
        assert_int_equal(c.calls, 4);
        mem_io_quiesce(m);
        mem_destroy(m);
    }
}

/* A handler of the space it changes: as configuration space that moves BARs. */
struct mover {
    struct io_region r;
    struct io_handler h;
    struct mem *m;
    struct io_region *moved;
    unsigned n;                 /* publishes an access */
};

static void mover_write(struct io_region *r, uint64_t off, uint64_t val, unsigned width)
{
    struct mover *v = container_of(r, struct mover, r);
    for (unsigned i = 0; i < v->n; i++) {
        assert_true(mem_io_move(v->m, v->moved, 0x100000 + 0x1000 * ((val + i) & 1), NULL));
    }
}

static void test_tables_are_freed_however_often_a_handler_publishes(void **unused)
{
    for (unsigned n = 1; n <= 6; n++) {
        struct mem *m = mem_create();
        struct scribe bar;
        struct mover v = { .r = { .name = "ecam", .space = MEM_MMIO, .base = 0x1000, .size = 16 }, .m = m, .moved = &bar.r, .n = n };
        v.h = (struct io_handler){ .write = mover_write, .min_width = 4, .max_width = 4 };
        v.r.h = &v.h;
        init_scribe(&bar, MEM_MMIO, 0x100000, 16, 0, 0);
        assert_true(mem_io_map(m, &v.r, NULL) && mem_io_map(m, &bar.r, NULL));
        unsigned most = 0;
        for (unsigned i = 0; i < 500; i++) {
            mem_io_write(m, MEM_MMIO, 0x1000, i, 4);
            unsigned left = mem_io_retired(m, MEM_MMIO);
            most = left > most ? left : most;
        }
        assert_true(most <= 4 * n);
        mem_io_quiesce(m);
        mem_destroy(m);
    }
}

/* Threads read while another maps, moves, unmaps and frees. A freed region is poisoned: a late handler would be seen. */
struct victim {
    struct io_region r;
    uint32_t magic;
    _Atomic int inside;
};
enum { ALIVE = 0x600d600d };
static _Atomic bool stop;
static _Atomic int bad, reads;

static uint64_t victim_read(struct io_region *r, uint64_t off, unsigned width)
{
    struct victim *v = container_of(r, struct victim, r);
    v->inside++;
    if (v->magic != ALIVE || (r->lock && v->inside != 1)) {
        bad++;
    }
    reads++;
    v->inside--;
    return 0;
}

static void victim_write(struct io_region *r, uint64_t off, uint64_t val, unsigned width)
{
    victim_read(r, off, width);
}

static const struct io_handler victim_h = { .read = victim_read, .write = victim_write, .max_width = 4 };

static void *reader(void *arg)
{
    struct mem *m = arg;
    for (unsigned i = 0; !stop; i++) {
        if (mem_io_read(m, MEM_MMIO, 0x1000 + i % 4 * 0x1000, 8) == 1) {
            bad++;
        }
        mem_io_write(m, MEM_MMIO, 0x1000 + i % 4 * 0x1000, i, 4);
        mem_io_write(m, MEM_MMIO, 0x9000, i, 4);
        if (i % 64 == 0) {
            sched_yield();
        }
    }
    return NULL;
}

static void test_a_region_freed_after_unmap_is_never_entered(void **unused)
{
    struct mem *m = mem_create();
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_t th[3];
    stop = false;
    bad = reads = 0;
    for (int i = 0; i < 3; i++) {
        pthread_create(&th[i], NULL, reader, m);
    }
    for (int i = 0; i < 1500; i++) {
        struct victim *v = new0(struct victim);
        v->magic = ALIVE;
        v->r = (struct io_region){ .name = "v", .space = MEM_MMIO, .base = 0x1000, .size = 16, .h = &victim_h,
                                   .lock = i & 1 ? &lock : NULL };
        AUTO_FD int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        assert_true(mem_io_map(m, &v->r, NULL));
        assert_true(mem_ioeventfd_add(m, MEM_MMIO, 0x9000, 0, fd, NULL));
        for (int k = 0; k < 4; k++) {
            mem_io_move(m, &v->r, 0x1000 + (uint64_t)k * 0x1000, NULL);
            if (i % 8 == 0) {
                usleep(20);
            }
        }
        mem_ioeventfd_del(m, MEM_MMIO, 0x9000, fd);
        mem_io_unmap(m, &v->r);
        if (v->inside) {
            bad++;
        }
        v->magic = 0;
        free(v);
    }
    stop = true;
    for (int i = 0; i < 3; i++) {
        pthread_join(th[i], NULL);
    }
    assert_int_equal(bad, 0);
    assert_true(reads > 0);
    mem_io_quiesce(m);
    mem_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody_there_reads_ones),
        cmocka_unit_test(test_widths_are_split_and_merged),
        cmocka_unit_test(test_an_access_over_the_edge_is_cut_there),
        cmocka_unit_test(test_of_overlapping_regions_the_higher_priority_answers),
        cmocka_unit_test(test_impossible_regions_are_refused),
        cmocka_unit_test(test_an_ioeventfd_takes_the_write_from_the_region),
        cmocka_unit_test(test_regions_are_walked_by_base),
        cmocka_unit_test(test_a_handler_may_move_and_unmap_regions_itself_included),
        cmocka_unit_test(test_tables_are_freed_however_often_a_handler_publishes),
        cmocka_unit_test(test_a_region_freed_after_unmap_is_never_entered),
    };
    return cmocka_run_group_tests_name("mem-io", tests, NULL, NULL);
}
