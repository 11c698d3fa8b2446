/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "chr/chr.h"

struct user {
    struct chr_user u;
    pthread_mutex_t lock;
    size_t room, len;
    uint8_t got[64 * KIB];
    int opened, closed, writable;
};

static size_t can_receive(struct chr_user *u)
{
    return container_of(u, struct user, u)->room;
}

static void receive(struct chr_user *u, const uint8_t *data, size_t len)
{
    struct user *me = container_of(u, struct user, u);
    assert_true(len <= me->room);
    assert_int_not_equal(pthread_mutex_trylock(&me->lock), 0);
    memcpy(me->got + me->len, data, len);
    me->len += len;
    me->room -= len;
}

static void event(struct chr_user *u, bool open)
{
    struct user *me = container_of(u, struct user, u);
    me->opened += open;
    me->closed += !open;
}

static void writable(struct chr_user *u)
{
    container_of(u, struct user, u)->writable++;
}

static struct user *user_new(size_t room)
{
    struct user *me = new0(struct user);
    me->u = (struct chr_user){ can_receive, receive, event, writable };
    pthread_mutex_init(&me->lock, NULL);
    me->room = room;
    return me;
}

static void run(struct loop *loop)
{
    while (loop_once(loop, 20)) {
    }
}

static void test_bytes_pass_both_ways_and_room_is_respected(void **unused)
{
    struct err err = ERR_INIT;
    struct loop *loop = loop_create(&err);
    struct user *me = user_new(3);
    int sv[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    struct chr *c = chr_fd_open(loop, sv[0], sv[0], true, &err);
    assert_non_null(c);
    chr_attach(c, &me->u, &me->lock);
    assert_int_equal(write(sv[1], "hello", 5), 5);
    run(loop);
    assert_int_equal(me->len, 3);
    me->room = 100;
    chr_accept(c);
    run(loop);
    assert_int_equal(me->len, 5);
    assert_memory_equal(me->got, "hello", 5);
    assert_int_equal(chr_write(c, (const uint8_t *)"world", 5), 5);
    char back[8];
    assert_int_equal(read(sv[1], back, 8), 5);
    assert_memory_equal(back, "world", 5);
    close(sv[1]);
    run(loop);
    assert_int_equal(me->closed, 1);
    assert_false(chr_is_open(c));
    assert_int_equal(chr_write(c, (const uint8_t *)"lost", 4), 4);
    chr_close(c);
    free(me);
    loop_destroy(loop);
}

static void test_a_reader_that_sleeps_stalls_nobody_and_memory_is_bounded(void **unused)
{
    struct err err = ERR_INIT;
    struct loop *loop = loop_create(&err);
    struct user *me = user_new(0);
    int p[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    struct chr *c = chr_fd_open(loop, -1, p[1], true, &err);
    chr_attach(c, &me->u, &me->lock);
    static uint8_t block[64 * KIB];
    size_t total = 0, n;
    for (size_t i = 0; i < sizeof(block); i++) {
        block[i] = (uint8_t)(i * 31 >> 3);
    }
    while ((n = chr_write(c, block + total % sizeof(block), sizeof(block) - total % sizeof(block))) > 0) {
        total += n;
        assert_true(total <= CHR_QUEUE_MAX + 1 * MIB);
    }
    assert_true(total >= CHR_QUEUE_MAX);
    assert_int_equal(me->writable, 0);
    fd_set_nonblock(p[0], true);
    static uint8_t in[16 * KIB];
    size_t got = 0;
    while (got < total) {
        ssize_t r = read(p[0], in, sizeof(in));
        for (ssize_t i = 0; i < r; i++) {
            assert_int_equal(in[i], block[(got + (size_t)i) % sizeof(block)]);
        }
        got += r > 0 ? (size_t)r : 0;
        loop_once(loop, 10);
    }
    assert_int_equal(me->writable, 1);
    chr_close(c);
    close(p[0]);
    free(me);
    loop_destroy(loop);
}

static int listener(char *path, size_t size)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    strncpy(path, "/tmp/lodge-chr-XXXXXX", size);
    int fd = mkstemp(path);
    close(fd);
    unlink(path);
    memcpy(sa.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

static int dial(const char *path)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    memcpy(sa.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    return fd;
}

static void test_output_before_a_client_is_shown_to_it_and_the_next_client_gets_the_newest(void **unused)
{
    struct err err = ERR_INIT;
    struct loop *loop = loop_create(&err);
    struct user *me = user_new(1000);
    char path[64], in[64];
    struct chr *c = chr_listen_open(loop, listener(path, sizeof(path)), &err);
    assert_non_null(c);
    chr_attach(c, &me->u, &me->lock);
    assert_int_equal(chr_write(c, (const uint8_t *)"boot\n", 5), 5);
    int a = dial(path), b = dial(path);
    run(loop);
    assert_int_equal(me->opened, 1);
    assert_int_equal(read(a, in, sizeof(in)), 5);
    assert_int_equal(write(a, "x", 1), 1);
    run(loop);
    assert_int_equal(me->len, 1);
    close(a);
    run(loop);                                  /* the second comes in by itself */
    assert_int_equal(me->closed, 1);
    assert_int_equal(me->opened, 2);
    close(b);
    run(loop);
    static uint8_t big[100 * KIB];
    big[sizeof(big) - 1] = 'Z';
    assert_int_equal(chr_write(c, big, sizeof(big)), sizeof(big));
    assert_int_equal(chr_write(c, (const uint8_t *)"!", 1), 1);
    a = dial(path);
    size_t got = 0;
    char last[2] = { 0 };
    fd_set_nonblock(a, true);
    for (int i = 0; i < 200 && got < CHR_RING_SIZE; i++) {
        static char buf[8192];
        loop_once(loop, 5);
        ssize_t r = read(a, buf, sizeof(buf));
        if (r > 0) {
            got += (size_t)r;
            last[0] = r > 1 ? buf[r - 2] : last[1];
            last[1] = buf[r - 1];
        }
    }
    assert_int_equal(got, CHR_RING_SIZE);
    assert_memory_equal(last, "Z!", 2);
    /* a client that goes while we write does not raise a signal */
    close(a);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(chr_write(c, big, 1000), 1000);
    }
    run(loop);
    assert_int_equal(me->closed, 3);
    chr_close(c);
    unlink(path);
    free(me);
    loop_destroy(loop);
}

static void test_files_are_read_to_their_end_and_written_without_epoll(void **unused)
{
    struct err err = ERR_INIT;
    struct loop *loop = loop_create(&err);
    struct user *me = user_new(10);
    AUTO_FD int in = memfd_create("in", MFD_CLOEXEC), out = memfd_create("out", MFD_CLOEXEC);
    fd_write_full(in, "0123456789abcdef", 16);
    lseek(in, 0, SEEK_SET);
    struct chr *c = chr_fd_open(loop, in, out, false, &err);
    assert_non_null(c);
    chr_attach(c, &me->u, &me->lock);
    run(loop);
    assert_int_equal(me->len, 10);
    me->room = 100;
    chr_accept(c);
    run(loop);
    assert_int_equal(me->len, 16);
    assert_int_equal(me->closed, 1);
    assert_int_equal(chr_write(c, (const uint8_t *)"out", 3), 3);
    chr_flush(c, 100);
    AUTO_FREE char *s = fd_read_file(out, 100, NULL, NULL);
    assert_string_equal(s, "out");
    chr_close(c);
    struct chr *n = chr_null_open();
    chr_attach(n, &me->u, &me->lock);
    assert_int_equal(chr_write(n, (const uint8_t *)"gone", 4), 4);
    chr_close(n);
    assert_null(chr_listen_open(loop, dup(out), &err));
    assert_null(chr_fd_open(loop, 999, -1, false, &err));
    chr_close(NULL);
    free(me);
    loop_destroy(loop);
}

static void test_a_shared_pipe_keeps_its_blocking_mode(void **unused)
{
    struct err err = ERR_INIT;
    struct loop *loop = loop_create(&err);
    int p[2];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    struct chr *c = chr_fd_open(loop, p[0], p[1], false, &err);
    assert_false(fcntl(p[0], F_GETFL) & O_NONBLOCK);
    assert_false(fcntl(p[1], F_GETFL) & O_NONBLOCK);
    chr_close(c);
    close(p[0]);
    close(p[1]);
    loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_pass_both_ways_and_room_is_respected),
        cmocka_unit_test(test_a_reader_that_sleeps_stalls_nobody_and_memory_is_bounded),
        cmocka_unit_test(test_output_before_a_client_is_shown_to_it_and_the_next_client_gets_the_newest),
        cmocka_unit_test(test_files_are_read_to_their_end_and_written_without_epoll),
        cmocka_unit_test(test_a_shared_pipe_keeps_its_blocking_mode),
    };
    return cmocka_run_group_tests_name("chr-ports", tests, NULL, NULL);
}
