/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

static int n_open_fds(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; fd++) {
        n += fcntl(fd, F_GETFD) >= 0;
    }
    return n;
}

static void test_descriptors_travel_and_surplus_ones_are_closed(void **unused)
{
    int before = n_open_fds(), sv[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
    int fds[3] = { 0, 1, 2 }, got[16];
    char buf[8];
    assert_int_equal(fd_send(sv[0], "hey", 3, fds, 3), 0);
    size_t n = 2;
    assert_int_equal(fd_recv(sv[1], buf, sizeof(buf), got, &n), 3);
    assert_int_equal(n, 2);
    assert_memory_equal(buf, "hey", 3);
    assert_true(fcntl(got[0], F_GETFD) & FD_CLOEXEC);
    close(got[0]);
    close(got[1]);
    assert_int_equal(fd_send(sv[0], "hey", 3, fds, 3), 0);
    assert_int_equal(fd_recv(sv[1], buf, sizeof(buf), NULL, NULL), 3);
    assert_int_equal(fd_send(sv[0], "x", 1, fds, 17), -EINVAL);
    assert_int_equal(fd_send(sv[0], "", 0, NULL, 0), -EINVAL);
    close(sv[0]);
    n = 16;
    assert_int_equal(fd_recv(sv[1], buf, sizeof(buf), got, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(fd_send(sv[1], "x", 1, NULL, 0), -EPIPE);
    close(sv[1]);
    assert_int_equal(n_open_fds(), before);
}

static void test_whole_transfers_cross_short_reads(void **unused)
{
    int p[2];
    char buf[16];
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    assert_int_equal(fd_write_full(p[1], "12345", 5), 0);
    assert_int_equal(fd_write_full(p[1], "678", 3), 0);
    close(p[1]);
    assert_int_equal(fd_read_full(p[0], buf, sizeof(buf)), 8);
    assert_memory_equal(buf, "12345678", 8);
    assert_true(fd_set_nonblock(p[0], true));
    assert_true(fcntl(p[0], F_GETFL) & O_NONBLOCK);
    assert_true(fd_set_cloexec(p[0], false));
    assert_false(fcntl(p[0], F_GETFD) & FD_CLOEXEC);
    close(p[0]);
    assert_int_equal(fd_read_full(-1, buf, 1), -1);
    assert_false(fd_set_nonblock(-1, true));
}

static void test_a_file_is_read_whole_or_refused(void **unused)
{
    struct err err = ERR_INIT;
    size_t len = 0;
    AUTO_FD int fd = memfd_create("t", MFD_CLOEXEC);
    assert_int_equal(fd_write_full(fd, "hello", 5), 0);
    AUTO_FREE char *s = fd_read_file(fd, 5, &len, &err);
    assert_non_null(s);
    assert_int_equal(len, 5);
    assert_string_equal(s, "hello");
    assert_null(fd_read_file(fd, 4, &len, &err));
    assert_int_equal(err.code, ERR_LIMIT);
    char two[2];
    assert_int_equal(fd_pread_full(fd, two, 2, 3), 2);
    assert_memory_equal(two, "lo", 2);
    assert_int_equal(fd_pread_full(fd, two, 2, UINT64_MAX), -1);

    AUTO_FREE char *proc = file_read("/proc/self/status", MIB, &len, &err);
    assert_non_null(proc);
    assert_true(len > 100 && strlen(proc) == len);
    assert_null(file_read("/proc/self/status", 50, &len, &err));
    assert_null(file_read("/dev/null", MIB, &len, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_null(file_read("/no/such", MIB, &len, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.msg, "'/no/such'"));
}

static void test_a_fifo_does_not_hang_the_reader(void **unused)
{
    struct err err = ERR_INIT;
    char dir[] = "/tmp/lodge-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    AUTO_FREE char *path = str_fmt("%s/fifo", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_null(file_read(path, MIB, NULL, &err));
    assert_int_equal(err.code, ERR_INVALID);
    unlink(path);
    rmdir(dir);
}

static void test_log_lines_are_escaped_and_limited(void **unused)
{
    AUTO_FD int fd = memfd_create("log", MFD_CLOEXEC);
    log_to_fd(fd);
    log_warn("test", "bell %c, text %s", 7, "a\nb\x1b[2J");
    log_info("test", "not shown");
    static struct log_limit limit;
    int shown = 0;
    for (int i = 0; i < 25; i++) {
        shown += log_limit_ok(&limit, "test");
    }
    assert_int_equal(shown, 10);
    limit.window_ns -= NS_PER_SEC;
    assert_true(log_limit_ok(&limit, "test"));
    log_to_fd(-1);
    AUTO_FREE char *s = fd_read_file(fd, MIB, NULL, NULL);
    assert_string_equal(s, "test: warning: bell \\x07, text a\\x0ab\\x1b[2J\n"
                           "test: warning: 15 similar messages were dropped\n");
    enum log_level level;
    assert_true(log_level_parse("trace", &level));
    assert_int_equal(level, LOG_TRACE);
    assert_false(log_level_parse("loud", &level));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptors_travel_and_surplus_ones_are_closed),
        cmocka_unit_test(test_whole_transfers_cross_short_reads),
        cmocka_unit_test(test_a_file_is_read_whole_or_refused),
        cmocka_unit_test(test_a_fifo_does_not_hang_the_reader),
        cmocka_unit_test(test_log_lines_are_escaped_and_limited),
    };
    return cmocka_run_group_tests_name("base-fd", tests, NULL, NULL);
}
