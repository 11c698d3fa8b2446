/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/launch.h"

static bool shell(const char *script, unsigned timeout_ms, size_t limit, char **out, int *status, struct err *err)
{
    char *argv[] = { (char *)"sh", (char *)"-c", (char *)script, NULL };
    return launch_output("/bin/sh", argv, timeout_ms, limit, out, status, err);
}

static void test_output_and_status_are_collected(void **unused)
{
    AUTO_FREE char *out = NULL;
    int status;
    assert_true(shell("echo hello; exit 3", 5000, 100, &out, &status, NULL));
    assert_string_equal(out, "hello\n");
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
}

static void test_output_beyond_the_limit_is_dropped_and_read(void **unused)
{
    AUTO_FREE char *out = NULL;
    int status;
    assert_true(shell("head -c 300000 /dev/zero | tr '\\0' x", 5000, 10, &out, &status, NULL));
    assert_string_equal(out, "xxxxxxxxxx");
    assert_int_equal(status, 0);
}

static void test_a_silent_program_and_its_children_are_killed_at_the_deadline(void **unused)
{
    char *out = NULL;
    int status;
    struct err err = ERR_INIT;
    uint64_t start = host_clock_ns();
    assert_false(shell("sleep 60 & sleep 60", 100, 10, &out, &status, &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_true(host_clock_ns() - start < 10ull * NS_PER_SEC);
    assert_null(out);
}

static void test_a_child_has_the_descriptors_it_was_given_and_no_other(void **unused)
{
    int pipefd[2], other[2], status;
    char text[256] = "";
    assert_true(pipe2(pipefd, O_CLOEXEC) == 0 && pipe(other) == 0);
    AUTO_FREE char *script = str_fmt("for f in %d %d %d %d; do if [ -e /proc/$$/fd/$f ]; then echo $f; fi; done >&%d", pipefd[0], pipefd[1], other[0], other[1],
                                     pipefd[1]);
    char *argv[] = { (char *)"sh", (char *)"-c", script, NULL };
    pid_t pid = launch("/bin/sh", argv, &pipefd[1], 1, true, NULL);
    assert_true(pid > 0);
    close(pipefd[1]);
    ssize_t n = fd_read_full(pipefd[0], text, sizeof(text) - 1);
    assert_true(n >= 0);
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    AUTO_FREE char *want = str_fmt("%d\n", pipefd[1]);
    assert_string_equal(text, want);
    close(pipefd[0]);
    close(other[0]);
    close(other[1]);
}

static void test_a_child_gets_few_variables_no_blocked_signal_and_its_own_group(void **unused)
{
    AUTO_FREE char *out = NULL;
    int status;
    sigset_t set, old;
    setenv("SECRET_TOKEN", "x", 1);
    setenv("LODGE_TEST", "y", 1);
    sigfillset(&set);
    sigprocmask(SIG_BLOCK, &set, &old);
    signal(SIGPIPE, SIG_IGN);
    bool ok = shell("echo \"${SECRET_TOKEN:-none} $LODGE_TEST\"; sed -n 's/^Sig\\(Blk\\|Ign\\):\\t//p' /proc/self/status", 5000, 200, &out, &status, NULL);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &old, NULL);
    assert_true(ok);
    assert_string_equal(out, "none y\n0000000000000000\n0000000000000000\n");
}

static void test_a_child_dies_with_its_parent(void **unused)
{
    int pipefd[2];
    char c;
    assert_int_equal(pipe(pipefd), 0);
    pid_t parent = fork();
    if (parent == 0) {
        char *argv[] = { (char *)"sleep", (char *)"60", NULL };
        launch("/bin/sleep", argv, &pipefd[1], 1, true, NULL);
        poll(NULL, 0, 300);
        _exit(0);
    }
    close(pipefd[1]);
    struct pollfd p = { .fd = pipefd[0], .events = POLLIN };
    assert_int_equal(poll(&p, 1, 10000), 1);    /* both ends are gone: end of file */
    assert_int_equal(read(pipefd[0], &c, 1), 0);
    waitpid(parent, NULL, 0);
    close(pipefd[0]);
}

static void test_what_is_not_there_is_said(void **unused)
{
    struct err err = ERR_INIT;
    AUTO_FREE char *path = launch_find("lodge-nonsense", &err);
    assert_null(path);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    AUTO_FREE char *out = NULL;
    int status;
    char *argv[] = { (char *)"x", NULL };
    assert_true(launch_output("/nonexistent", argv, 5000, 10, &out, &status, &err));
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 127);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_and_status_are_collected),
        cmocka_unit_test(test_output_beyond_the_limit_is_dropped_and_read),
        cmocka_unit_test(test_a_silent_program_and_its_children_are_killed_at_the_deadline),
        cmocka_unit_test(test_a_child_has_the_descriptors_it_was_given_and_no_other),
        cmocka_unit_test(test_a_child_gets_few_variables_no_blocked_signal_and_its_own_group),
        cmocka_unit_test(test_a_child_dies_with_its_parent),
        cmocka_unit_test(test_what_is_not_there_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
