/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Image locks, among ourselves and against real QEMU tools (skipped where they are not installed). */
#include "fixture.h"

#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

static pid_t start(char *const argv[], int in_fd, int out_fd)
{
    pid_t pid;
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, in_fd, 0);
    posix_spawn_file_actions_adddup2(&fa, out_fd, 1);
    posix_spawn_file_actions_adddup2(&fa, out_fd, 2);
    int r = posix_spawnp(&pid, argv[0], &fa, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    return r == 0 ? pid : -1;
}

/* Exit status; its output goes to *text. -1 when the program is not there. */
static int run(char *const argv[], char **text)
{
    AUTO_FD int out = memfd_create("out", MFD_CLOEXEC), null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    pid_t pid = start(argv, null, out);
    close(null);
    int status;
    if (pid < 0) {
        return -1;
    }
    waitpid(pid, &status, 0);
    *text = fd_read_file(out, 64 * KIB, NULL, NULL);
    return WEXITSTATUS(status);
}

static void test_two_writers_and_reader_beside_writer_are_refused(void **unused)
{
    struct fixture f = fixture_make(4096);
    struct err err = ERR_INIT;
    struct blk_node *w = fixture_open(&f, BLK_WRITE, &err), *r, *r2;
    assert_non_null(w);
    assert_null(fixture_open(&f, BLK_WRITE, &err));
    assert_int_equal(err.code, ERR_BUSY);
    assert_non_null(strstr(err.msg, "in use"));
    assert_null(fixture_open(&f, 0, &err));
    assert_int_equal(err.code, ERR_BUSY);
    blk_close(w);
    r = fixture_open(&f, 0, &err);
    r2 = fixture_open(&f, 0, &err);
    assert_non_null(r);
    assert_non_null(r2);
    assert_null(fixture_open(&f, BLK_WRITE, &err));
    blk_close(r);
    blk_close(r2);
    w = fixture_open(&f, BLK_WRITE, &err);
    assert_non_null(w);
    blk_close(w);
    fixture_fini(&f);
}

static void test_a_copy_of_the_descriptor_does_not_keep_the_lock(void **unused)
{
    struct fixture f = fixture_make(4096);
    struct err err = ERR_INIT;
    int fd = open(f.path, O_RDWR | O_CLOEXEC);
    AUTO_FD int brokers = dup(fd);
    struct blk_node *w = blk_open_fd(f.loop, fd, "raw", "d", BLK_WRITE, &err);
    assert_non_null(w);
    blk_close(w);
    w = fixture_open(&f, BLK_WRITE, &err);
    assert_non_null(w);
    blk_close(w);
    fixture_fini(&f);
}

static void test_qemu_tools_refuse_an_image_we_hold(void **unused)
{
    struct fixture f = fixture_make(1 * MIB);
    struct err err = ERR_INIT;
    char *write_it[] = { "qemu-io", "-f", "raw", "-c", "write 0 512", f.path, NULL };
    char *copy[] = { "qemu-img", "convert", "-f", "raw", "-O", "raw", f.path, "/dev/null", NULL };
    AUTO_FREE char *t1 = NULL, *t2 = NULL, *t3 = NULL, *t4 = NULL;
    struct blk_node *n = fixture_open(&f, BLK_WRITE, &err);
    assert_non_null(n);
    int r = run(write_it, &t1);
    if (r < 0) {
        blk_close(n);
        fixture_fini(&f);
        skip();
    }
    assert_int_not_equal(r, 0);
    assert_non_null(strstr(t1, "lock"));
    assert_int_not_equal(run(copy, &t2), 0);
    blk_close(n);
    n = fixture_open(&f, 0, &err);
    char *dd[] = { "qemu-io", "-r", "-f", "raw", "-c", "read 0 512", f.path, NULL };
    assert_int_equal(run(dd, &t3), 0);          /* two readers */
    assert_int_not_equal(run(write_it, &t4), 0);
    blk_close(n);
    free(t4);
    assert_int_equal(run(write_it, &t4), 0);
    fixture_fini(&f);
}

static void hold_with_qemu(struct fixture *f, bool readonly, bool writer_ok, bool reader_ok)
{
    struct err err = ERR_INIT;
    int in[2];
    AUTO_FD int out = memfd_create("out", MFD_CLOEXEC);
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    char *rw[] = { "qemu-io", "-f", "raw", f->path, NULL }, *ro[] = { "qemu-io", "-r", "-f", "raw", f->path, NULL };
    pid_t pid = start(readonly ? ro : rw, in[0], out);
    if (pid < 0) {
        close(in[0]);
        close(in[1]);
        skip();
    }
    /* It prompts when the image is open. */
    for (int i = 0; i < 500 && lseek(out, 0, SEEK_END) == 0; i++) {
        usleep(10000);
    }
    struct blk_node *n = fixture_open(f, BLK_WRITE, &err);
    assert_int_equal(n != NULL, writer_ok);
    assert_true(n || err.code == ERR_BUSY);
    blk_close(n);
    n = fixture_open(f, 0, &err);
    assert_int_equal(n != NULL, reader_ok);
    blk_close(n);
    close(in[0]);
    close(in[1]);
    waitpid(pid, NULL, 0);
    n = fixture_open(f, BLK_WRITE, &err);
    assert_non_null(n);
    blk_close(n);
}

static void test_we_refuse_an_image_that_qemu_holds(void **unused)
{
    struct fixture f = fixture_make(1 * MIB);
    hold_with_qemu(&f, false, false, false);
    hold_with_qemu(&f, true, true, true);        /* qemu-io reading lets others write, and says so */
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_writers_and_reader_beside_writer_are_refused),
        cmocka_unit_test(test_a_copy_of_the_descriptor_does_not_keep_the_lock),
        cmocka_unit_test(test_qemu_tools_refuse_an_image_we_hold),
        cmocka_unit_test(test_we_refuse_an_image_that_qemu_holds),
    };
    return cmocka_run_group_tests_name("block-lock", tests, NULL, NULL);
}
