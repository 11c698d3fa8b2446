/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fixture.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <signal.h>
#include <sys/stat.h>

static void test_bytes_written_are_read_back_and_reach_the_file(void **unused)
{
    struct fixture f = fixture_make(1 * MIB);
    struct err err = ERR_INIT;
    struct blk_node *n = fixture_open(&f, BLK_WRITE, &err);
    assert_non_null(n);
    assert_int_equal(blk_size(n), 1 * MIB);
    assert_true(blk_writable(n));
    assert_false(blk_can_discard(n));
    char out[3000], in[3000];
    memset(out, 0xa5, sizeof(out));
    assert_int_equal(do_req(&f, n, BLK_WRITEV, 12345, out, sizeof(out)), 0);
    assert_int_equal(do_req(&f, n, BLK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(do_req(&f, n, BLK_READ, 12345, in, sizeof(in)), 0);
    assert_memory_equal(in, out, sizeof(in));
    AUTO_FD int fd = open(f.path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(fd_pread_full(fd, in, sizeof(in), 12345), sizeof(in));
    assert_memory_equal(in, out, sizeof(in));
    blk_close(n);
    fixture_fini(&f);
}

static void test_a_scatter_list_longer_than_one_call_moves_whole(void **unused)
{
    struct fixture f = fixture_make(1 * MIB);
    struct err err = ERR_INIT;
    struct blk_node *n = fixture_open(&f, BLK_WRITE, &err);
    static uint8_t mem[300 * 700];
    struct iovec iov[300];
    for (size_t i = 0; i < sizeof(mem); i++) {
        mem[i] = (uint8_t)(i * 7 + i / 256);
    }
    for (unsigned i = 0; i < 300; i++) {
        iov[i] = (struct iovec){ mem + (299 - i) * 700, 700 };
    }
    struct waiting w = { .r = { .op = BLK_WRITEV, .off = 512, .len = sizeof(mem), .iov = iov, .n_iov = 300, .done = waiting_done } };
    blk_submit(n, &w.r);
    blk_drain(n);
    assert_true(w.done);
    assert_int_equal(w.ret, 0);
    uint8_t piece[700];
    assert_int_equal(do_req(&f, n, BLK_READ, 512 + 17 * 700, piece, 700), 0);
    assert_memory_equal(piece, mem + (299 - 17) * 700, 700);
    blk_close(n);
    fixture_fini(&f);
}

static void test_the_tail_of_an_odd_sized_file_reads_as_zeros(void **unused)
{
    struct fixture f = fixture_make(1000);
    struct err err = ERR_INIT;
    struct blk_node *n = fixture_open(&f, BLK_WRITE, &err);
    uint8_t buf[512];
    assert_int_equal(blk_size(n), 1024);
    memset(buf, 0xff, sizeof(buf));
    assert_int_equal(do_req(&f, n, BLK_READ, 512, buf, 512), 0);
    for (int i = 0; i < 512; i++) {
        assert_int_equal(buf[i], 0);
    }
    memset(buf, 0x11, sizeof(buf));
    assert_int_equal(do_req(&f, n, BLK_WRITEV, 512, buf, 512), 0);
    uint8_t back[512];
    assert_int_equal(do_req(&f, n, BLK_READ, 512, back, 512), 0);
    assert_memory_equal(back, buf, 512);
    blk_close(n);
    fixture_fini(&f);
}

static void test_ranges_outside_the_disk_and_wrong_sums_are_refused(void **unused)
{
    struct fixture f = fixture_make(4096);
    struct err err = ERR_INIT;
    struct blk_node *n = fixture_open(&f, BLK_WRITE, &err);
    uint8_t buf[1024];
    assert_int_equal(do_req(&f, n, BLK_READ, 4096, buf, 1), -EINVAL);
    assert_int_equal(do_req(&f, n, BLK_READ, 3584, buf, 1024), -EINVAL);
    assert_int_equal(do_req(&f, n, BLK_READ, UINT64_MAX - 511, buf, 1024), -EINVAL);
    assert_int_equal(do_req(&f, n, BLK_WRITEV, UINT64_MAX, buf, 512), -EINVAL);
    assert_int_equal(do_req(&f, n, BLK_ZERO, 0, NULL, UINT64_MAX), -EINVAL);
    assert_int_equal(do_req(&f, n, BLK_READ, 0, NULL, 512), -EINVAL);
    assert_int_equal(do_req(&f, n, (enum blk_op)77, 0, NULL, 0), -EINVAL);
    assert_int_equal(do_req(&f, n, BLK_READ, 4096, buf, 0), 0);
    blk_close(n);
    n = fixture_open(&f, 0, &err);
    assert_int_equal(do_req(&f, n, BLK_WRITEV, 0, buf, 512), -EROFS);
    assert_int_equal(do_req(&f, n, BLK_DISCARD_OP, 0, NULL, 512), -EROFS);
    assert_int_equal(do_req(&f, n, BLK_FLUSH, 0, NULL, 0), 0);
    blk_close(n);
    fixture_fini(&f);
}

static void test_zeroing_and_discarding_leave_zeros_and_give_space_back(void **unused)
{
    struct fixture f = fixture_make(1 * MIB);
    struct err err = ERR_INIT;
    struct blk_node *n = fixture_open(&f, BLK_WRITE | BLK_DISCARD, &err);
    assert_true(blk_can_discard(n));
    uint8_t *all = alloc0(1 * MIB);
    memset(all, 0x77, 1 * MIB);
    assert_int_equal(do_req(&f, n, BLK_WRITEV, 0, all, 1 * MIB), 0);
    assert_int_equal(do_req(&f, n, BLK_FLUSH, 0, NULL, 0), 0);
    struct stat before, after;
    stat(f.path, &before);
    assert_int_equal(do_req(&f, n, BLK_ZERO, 512, NULL, 1024), 0);
    assert_int_equal(do_req(&f, n, BLK_ZERO_UNMAP, 256 * KIB, NULL, 256 * KIB), 0);
    assert_int_equal(do_req(&f, n, BLK_DISCARD_OP, 512 * KIB, NULL, 256 * KIB), 0);
    assert_int_equal(do_req(&f, n, BLK_READ, 0, all, 1 * MIB), 0);
    assert_int_equal(all[511], 0x77);
    assert_int_equal(all[512], 0);
    assert_int_equal(all[1535], 0);
    assert_int_equal(all[1536], 0x77);
    assert_int_equal(all[256 * KIB - 1], 0x77);
    assert_int_equal(all[256 * KIB], 0);
    assert_int_equal(all[512 * KIB - 1], 0);
    stat(f.path, &after);
    assert_int_equal(after.st_size, 1 * MIB);
    assert_true(after.st_blocks <= before.st_blocks);
    free(all);
    blk_close(n);
    fixture_fini(&f);
}

static void test_a_full_disk_is_reported_and_nothing_else_breaks(void **unused)
{
    struct fixture f = fixture_make(64 * KIB);
    struct err err = ERR_INIT;
    struct rlimit old, low = { 8 * KIB, RLIM_INFINITY };
    signal(SIGXFSZ, SIG_IGN);
    struct blk_node *n = fixture_open(&f, BLK_WRITE, &err);
    uint8_t buf[4096] = { 1 };
    getrlimit(RLIMIT_FSIZE, &old);
    setrlimit(RLIMIT_FSIZE, &low);
    assert_int_equal(do_req(&f, n, BLK_WRITEV, 32 * KIB, buf, 4096), -EFBIG);
    setrlimit(RLIMIT_FSIZE, &old);
    assert_int_equal(do_req(&f, n, BLK_WRITEV, 0, buf, 4096), 0);
    blk_close(n);
    fixture_fini(&f);
}

struct burst {
    struct waiting w[200];
    _Atomic int done;
    uint8_t buf[200][512];
};

static struct burst *the_burst;
static void burst_done(struct blk_req *r, int ret)
{
    assert_int_equal(ret, 0);
    atomic_fetch_add(&the_burst->done, 1);
}

static void *run_loop(void *loop)
{
    loop_run(loop);
    return NULL;
}

static void test_drain_from_another_thread_waits_for_every_done(void **unused)
{
    struct fixture f = fixture_make(1 * MIB);
    struct err err = ERR_INIT;
    struct blk_node *n = fixture_open(&f, BLK_WRITE, &err);
    struct burst *b = the_burst = new0(struct burst);
    pthread_t th;
    pthread_create(&th, NULL, run_loop, f.loop);
    struct iovec iov[200];
    for (int round = 0; round < 3; round++) {
        b->done = 0;
        for (unsigned i = 0; i < 200; i++) {
            iov[i] = (struct iovec){ b->buf[i], 512 };
            b->w[i].r = (struct blk_req){ .op = BLK_WRITEV, .off = i * 512, .len = 512, .iov = &iov[i], .n_iov = 1, .done = burst_done };
            blk_submit(n, &b->w[i].r);
        }
        while (loop_is_current(f.loop)) {
            usleep(100);        /* until the thread has taken the loop over */
        }
        blk_drain(n);
        assert_int_equal(b->done, 200);
    }
    loop_quit(f.loop);
    pthread_join(th, NULL);
    blk_close(n);
    free(b);
    fixture_fini(&f);
}

static void test_close_finishes_what_is_in_flight(void **unused)
{
    struct fixture f = fixture_make(1 * MIB);
    struct err err = ERR_INIT;
    struct blk_node *n = fixture_open(&f, BLK_WRITE, &err);
    uint8_t buf[512] = { 9 };
    struct iovec iov = { buf, 512 };
    struct waiting w[20];
    for (int i = 0; i < 20; i++) {
        w[i] = (struct waiting){ .r = { .op = BLK_WRITEV, .off = 512 * (uint64_t)i, .len = 512, .iov = &iov, .n_iov = 1, .done = waiting_done } };
        blk_submit(n, &w[i].r);
    }
    blk_close(n);
    for (int i = 0; i < 20; i++) {
        assert_true(w[i].done);
        assert_int_equal(w[i].ret, 0);
    }
    fixture_fini(&f);
}

static void test_what_is_in_flight_when_its_loop_has_ended_can_be_finished(void **unused)
{
    struct fixture f = fixture_make(1 * MIB);
    struct err err = ERR_INIT;
    struct blk_node *n = fixture_open(&f, BLK_WRITE, &err);
    uint8_t buf[512] = { 9 };
    struct iovec iov = { buf, 512 };
    pthread_t th;
    pthread_create(&th, NULL, run_loop, f.loop);
    while (loop_is_current(f.loop)) {
        usleep(100);
    }
    loop_quit(f.loop);
    pthread_join(th, NULL);
    struct waiting w = { .r = { .op = BLK_WRITEV, .len = 512, .iov = &iov, .n_iov = 1, .done = waiting_done } };
    blk_submit(n, &w.r);
    blk_finish(n);
    assert_true(w.done);
    blk_close(n);
    fixture_fini(&f);
}

static void test_what_is_not_a_raw_disk_is_refused_at_open(void **unused)
{
    struct fixture f = fixture_make(4096);
    struct err err = ERR_INIT;
    assert_null(blk_open_fd(f.loop, open(f.path, O_RDONLY | O_CLOEXEC), "qcow2", "d", 0, &err));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_null(blk_open_fd(f.loop, open(f.path, O_RDONLY | O_CLOEXEC), "raw", "d", BLK_WRITE, &err));
    assert_int_equal(err.code, ERR_DENIED);
    assert_null(blk_open_fd(f.loop, open("/dev/null", O_RDWR | O_CLOEXEC), "raw", "d", BLK_WRITE, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_null(blk_open_fd(f.loop, open("/tmp", O_RDONLY | O_CLOEXEC), "raw", "d", 0, &err));
    assert_int_equal(err.code, ERR_INVALID);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_written_are_read_back_and_reach_the_file),
        cmocka_unit_test(test_a_scatter_list_longer_than_one_call_moves_whole),
        cmocka_unit_test(test_the_tail_of_an_odd_sized_file_reads_as_zeros),
        cmocka_unit_test(test_ranges_outside_the_disk_and_wrong_sums_are_refused),
        cmocka_unit_test(test_zeroing_and_discarding_leave_zeros_and_give_space_back),
        cmocka_unit_test(test_a_full_disk_is_reported_and_nothing_else_breaks),
        cmocka_unit_test(test_drain_from_another_thread_waits_for_every_done),
        cmocka_unit_test(test_close_finishes_what_is_in_flight),
        cmocka_unit_test(test_what_is_in_flight_when_its_loop_has_ended_can_be_finished),
        cmocka_unit_test(test_what_is_not_a_raw_disk_is_refused_at_open),
    };
    return cmocka_run_group_tests_name("block-raw", tests, NULL, NULL);
}
