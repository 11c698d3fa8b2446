/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/runtime.h"

static char dir[64];

static int setup(void **unused)
{
    snprintf(dir, sizeof(dir), "/tmp/lodge-test-XXXXXX");
    return !mkdtemp(dir) || setenv("LODGE_RUNTIME_DIR", dir, 1);
}

static int teardown(void **unused)
{
    return rmdir(dir);          /* fails when a test left something */
}

static bool exists(const char *rest)
{
    AUTO_FREE char *path = str_fmt("%s/%s", dir, rest);
    return access(path, F_OK) == 0;
}

static struct json_object *some_status(const char *name)
{
    struct json_object *o = json_object_new_object();
    json_object_object_add(o, "name", json_object_new_string(name));
    return o;
}

/* Registers in a child that is then killed: what it leaves is what a crash leaves. */
static void leave_a_dead_one(const char *name)
{
    int pipefd[2], status;
    char c;
    assert_int_equal(pipe(pipefd), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct runtime_guest g;
        struct json_object *o = some_status(name);
        if (!runtime_claim(&g, name, NULL) || !runtime_set_status(&g, o, NULL) || runtime_listen(&g, NULL) < 0 || write(pipefd[1], "x", 1) != 1) {
            _exit(1);
        }
        pause();
    }
    assert_int_equal(read(pipefd[0], &c, 1), 1);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    close(pipefd[0]);
    close(pipefd[1]);
}

static void test_a_live_guest_is_listed_and_its_name_taken(void **unused)
{
    struct runtime_guest g, other;
    struct err err = ERR_INIT;
    struct stat sb;
    AUTO_JSON struct json_object *status = some_status("web");
    assert_true(runtime_claim(&g, "web", &err));
    assert_true(runtime_alive("web"));
    AUTO_JSON struct json_object *early = runtime_status("web", &err);
    assert_string_equal(json_object_get_string(json_object_object_get(early, "status")), "starting");
    assert_true(runtime_set_status(&g, status, &err));
    AUTO_FD int fd = runtime_listen(&g, &err);
    assert_true(fd >= 0);
    AUTO_FREE char *qmp = str_fmt("%s/web/qmp", dir);
    assert_int_equal(stat(qmp, &sb), 0);
    assert_int_equal(sb.st_mode & 0777, 0600);
    assert_false(runtime_claim(&other, "web", &err));
    assert_int_equal(err.code, ERR_EXISTS);
    assert_non_null(strstr(err.msg, "lodge stop web"));
    AUTO_JSON struct json_object *list = runtime_list(&err);
    assert_int_equal(json_object_array_length(list), 1);
    runtime_release(&g);
    assert_false(runtime_alive("web"));
    assert_false(exists("web"));
}

/* The VMM inherits the lock: it keeps the guest alive after the broker is gone. */
static void test_the_lock_lives_as_long_as_any_descriptor_of_it(void **unused)
{
    struct runtime_guest g;
    assert_true(runtime_claim(&g, "kept", NULL));
    int second = dup(g.lock_fd);
    close(g.lock_fd);
    g.lock_fd = second;
    assert_true(runtime_alive("kept"));
    runtime_release(&g);
    assert_false(runtime_alive("kept"));
}

static void test_a_dead_guest_leaves_nothing(void **unused)
{
    struct runtime_guest g;
    struct err err = ERR_INIT;
    leave_a_dead_one("dead");
    assert_true(exists("dead/qmp") && exists("dead/status"));
    AUTO_JSON struct json_object *list = runtime_list(&err);
    assert_int_equal(json_object_array_length(list), 0);
    assert_false(exists("dead"));
    leave_a_dead_one("dead");
    assert_null(runtime_status("dead", &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_false(exists("dead"));
    leave_a_dead_one("dead");
    assert_true(runtime_claim(&g, "dead", &err));
    AUTO_JSON struct json_object *o = runtime_status("dead", &err);
    assert_non_null(o);
    runtime_release(&g);
}

static void test_names_cannot_leave_the_directory(void **unused)
{
    static const char *const bad[] = { "", ".", "..", "../x", "a/b", "/etc", "-x", ".hidden" };
    struct err err = ERR_INIT;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_null(runtime_status(bad[i], &err));
        assert_int_equal(err.code, ERR_INVALID);
    }
}

static void test_a_broken_status_file_hides_nobody(void **unused)
{
    struct runtime_guest g;
    assert_true(runtime_claim(&g, "odd", NULL));
    AUTO_FREE char *path = str_fmt("%s/odd/status", dir);
    FILE *f = fopen(path, "w");
    fputs("{\"name\":", f);
    fclose(f);
    AUTO_JSON struct json_object *list = runtime_list(NULL);
    assert_int_equal(json_object_array_length(list), 1);
    assert_string_equal(json_object_get_string(json_object_object_get(json_object_array_get_idx(list, 0), "name")), "odd");
    runtime_release(&g);
}

static void test_a_directory_of_somebody_else_is_refused(void **unused)
{
    struct err err = ERR_INIT;
    AUTO_FREE char *link = str_fmt("%s/link", dir);
    assert_int_equal(symlink("/tmp", link), 0);
    setenv("LODGE_RUNTIME_DIR", link, 1);
    assert_null(runtime_dir(&err));
    assert_int_equal(err.code, ERR_DENIED);
    setenv("LODGE_RUNTIME_DIR", dir, 1);
    unlink(link);
}

/* Many at once for one name: exactly one has it at any time. */
static void test_a_race_for_a_name_has_one_winner(void **unused)
{
    enum { RACERS = 4, ROUNDS = 25 };
    AUTO_FREE char *mark = str_fmt("%s.mark", dir);
    pid_t pid[RACERS];
    for (int i = 0; i < RACERS; i++) {
        if ((pid[i] = fork()) == 0) {
            for (int n = 0; n < ROUNDS;) {
                struct runtime_guest g;
                if (!runtime_claim(&g, "race", NULL)) {
                    usleep(200);
                    continue;
                }
                int fd = open(mark, O_CREAT | O_EXCL | O_WRONLY, 0600);
                if (fd < 0) {
                    _exit(1);
                }
                close(fd);
                unlink(mark);
                runtime_release(&g);
                n++;
            }
            _exit(0);
        }
    }
    for (int i = 0; i < RACERS; i++) {
        int status;
        waitpid(pid[i], &status, 0);
        assert_int_equal(status, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_live_guest_is_listed_and_its_name_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_lock_lives_as_long_as_any_descriptor_of_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_dead_guest_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names_cannot_leave_the_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_broken_status_file_hides_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_directory_of_somebody_else_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_race_for_a_name_has_one_winner, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
