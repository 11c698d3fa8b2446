/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptors, calls from other threads, quitting, children. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop/loop.h"

struct counter {
    struct loop_fd w;
    struct loop_fd *victim;     /* removed by the callback */
    uint32_t seen;
    int n;
    bool drain;
};

static void on_ready(struct loop_fd *w, uint32_t events)
{
    struct counter *c = container_of(w, struct counter, w);
    uint64_t v;
    c->n++;
    c->seen |= events;
    if (c->drain) {
        assert_true(read(w->fd, &v, sizeof(v)) > 0);
    }
    if (c->victim) {
        loop_fd_del(c->victim);
    }
}

static void add_counter(struct loop *loop, struct counter *c, int fd, uint32_t events)
{
    *c = (struct counter){ .w = { .fd = fd, .fn = on_ready } };
    assert_true(loop_fd_add(loop, &c->w, events, NULL));
}

static void test_a_ready_descriptor_calls_back_until_removed(void **unused)
{
    struct loop *loop = loop_create(NULL);
    AUTO_FD int fd = eventfd(0, EFD_CLOEXEC);
    struct counter c;
    struct err err = ERR_INIT;
    add_counter(loop, &c, fd, EPOLLIN);
    assert_false(loop_fd_add(loop, &c.w, EPOLLIN, &err));
    assert_int_equal(err.code, ERR_STATE);
    assert_int_equal(loop_once(loop, 0), 0);
    eventfd_write(fd, 1);
    assert_int_equal(loop_once(loop, 0), 1);
    assert_int_equal(loop_once(loop, 0), 1);
    c.drain = true;
    assert_int_equal(loop_once(loop, 0), 1);
    assert_int_equal(loop_once(loop, 0), 0);
    c.drain = false;
    loop_fd_mod(&c.w, EPOLLOUT);
    assert_int_equal(loop_once(loop, 0), 1);
    assert_true(c.seen & EPOLLOUT);
    loop_fd_del(&c.w);
    loop_fd_del(&c.w);
    assert_int_equal(loop_once(loop, 0), 0);
    loop_destroy(loop);
}

static void on_out(struct loop_fd *w, uint32_t events)
{
    container_of(w, struct counter, w)->n++;
}

static void test_a_paused_watch_is_silent_even_when_the_peer_hangs_up(void **unused)
{
    struct loop *loop = loop_create(NULL);
    int sv[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    struct counter c;
    add_counter(loop, &c, sv[0], EPOLLIN);
    c.w.fn = on_out;
    loop_fd_mod(&c.w, 0);
    close(sv[1]);
    assert_int_equal(loop_once(loop, 10), 0);
    loop_fd_mod(&c.w, EPOLLIN);
    assert_int_equal(loop_once(loop, 0), 1);
    loop_fd_del(&c.w);
    /* Added paused, then started. */
    assert_true(loop_fd_add(loop, &c.w, 0, NULL));
    assert_int_equal(loop_once(loop, 0), 0);
    loop_fd_mod(&c.w, EPOLLIN);
    assert_int_equal(loop_once(loop, 0), 1);
    loop_fd_del(&c.w);
    close(sv[0]);
    loop_destroy(loop);
}

static void test_a_watch_removed_in_the_same_round_does_not_run(void **unused)
{
    struct loop *loop = loop_create(NULL);
    AUTO_FD int a = eventfd(1, EFD_CLOEXEC);
    AUTO_FD int b = eventfd(1, EFD_CLOEXEC);
    struct counter ca, cb;
    add_counter(loop, &ca, a, EPOLLIN);
    add_counter(loop, &cb, b, EPOLLIN);
    ca.victim = &cb.w;
    cb.victim = &ca.w;
    assert_int_equal(loop_once(loop, 0), 1);
    assert_int_equal(ca.n + cb.n, 1);
    loop_fd_del(&ca.w);
    loop_fd_del(&cb.w);
    loop_destroy(loop);
}

static void test_many_watches_and_an_unwatchable_file(void **unused)
{
    struct loop *loop = loop_create(NULL);
    AUTO_FD int fd = eventfd(1, EFD_CLOEXEC);
    struct counter c[40];
    int dups[40];
    for (int i = 0; i < 40; i++) {
        dups[i] = dup(fd);
        add_counter(loop, &c[i], dups[i], EPOLLIN);
    }
    assert_int_equal(loop_once(loop, 0), 40);
    for (int i = 0; i < 40; i += 2) {
        loop_fd_del(&c[i].w);
    }
    assert_int_equal(loop_once(loop, 0), 20);
    for (int i = 0; i < 40; i++) {
        loop_fd_del(&c[i].w);
        close(dups[i]);
    }
    struct err err = ERR_INIT;
    struct loop_fd bad = { .fd = -1, .fn = on_ready };
    assert_false(loop_fd_add(loop, &bad, EPOLLIN, &err));
    assert_null(bad.loop);
    loop_destroy(loop);
}

struct thread_loop {
    struct loop *loop;
    pthread_t thread;
};

static void *run_loop(void *arg)
{
    loop_run(arg);
    return NULL;
}

static struct thread_loop start_loop(void)
{
    struct thread_loop t = { .loop = loop_create(NULL) };
    assert_int_equal(pthread_create(&t.thread, NULL, run_loop, t.loop), 0);
    while (loop_is_current(t.loop)) {
        usleep(100);            /* until its thread owns it */
    }
    return t;
}

static void stop_loop(struct thread_loop *t)
{
    loop_quit(t->loop);
    pthread_join(t->thread, NULL);
    loop_destroy(t->loop);
}

/* The owner's side of the contract: removal under the lock, no callback after it, memory gone at once. */
struct owned {
    struct loop_fd w;
    _Atomic int n;
};

static void on_owned(struct loop_fd *w, uint32_t events)
{
    container_of(w, struct owned, w)->n++;
}

static void test_a_watch_freed_under_its_lock_by_another_thread_is_never_touched(void **unused)
{
    struct thread_loop t = start_loop();
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    AUTO_FD int fd = eventfd(1, EFD_CLOEXEC);       /* always ready */
    for (int i = 0; i < 2000; i++) {
        struct owned *o = new0(struct owned);
        o->w = (struct loop_fd){ .fd = fd, .fn = on_owned, .lock = &lock };
        pthread_mutex_lock(&lock);
        assert_true(loop_fd_add(t.loop, &o->w, EPOLLIN, NULL));
        pthread_mutex_unlock(&lock);
        if (i % 3 == 0) {
            sched_yield();
        }
        pthread_mutex_lock(&lock);
        loop_fd_del(&o->w);
        free(o);
        pthread_mutex_unlock(&lock);
    }
    stop_loop(&t);
}

struct count_call {
    struct loop_call c;
    struct loop *loop;
    _Atomic int n;
    _Atomic bool wrong_thread;
};

static void on_call(struct loop_call *c)
{
    struct count_call *cc = container_of(c, struct count_call, c);
    cc->n++;
    if (!loop_is_current(cc->loop)) {
        cc->wrong_thread = true;
    }
}

static void *poster(void *arg)
{
    struct loop *loop = arg;
    for (int i = 0; i < 1000; i++) {
        struct count_call cc = { .c.fn = on_call, .loop = loop };
        loop_run_sync(loop, &cc.c);
        if (cc.n != 1 || cc.wrong_thread) {
            return (void *)1;
        }
    }
    return NULL;
}

static void test_calls_from_many_threads_each_run_once_on_the_loop(void **unused)
{
    struct thread_loop t = start_loop();
    pthread_t th[4];
    for (int i = 0; i < 4; i++) {
        pthread_create(&th[i], NULL, poster, t.loop);
    }
    for (int i = 0; i < 4; i++) {
        void *r;
        pthread_join(th[i], &r);
        assert_null(r);
    }
    stop_loop(&t);
}

static void post_self(struct loop_call *c)
{
    struct count_call *cc = container_of(c, struct count_call, c);
    if (++cc->n < 3) {
        loop_post(cc->loop, c);
    }
}

static void test_a_posted_call_is_one_call_and_may_post_itself(void **unused)
{
    struct loop *loop = loop_create(NULL);
    struct count_call cc = { .c.fn = on_call, .loop = loop }, self = { .c.fn = post_self, .loop = loop };
    loop_post(loop, &cc.c);
    loop_post(loop, &cc.c);
    assert_int_equal(loop_once(loop, -1), 1);
    assert_int_equal(loop_once(loop, 0), 0);
    loop_post(loop, &self.c);
    assert_int_equal(loop_once(loop, -1), 1);
    assert_int_equal(loop_once(loop, -1), 1);
    assert_int_equal(loop_once(loop, -1), 1);
    assert_int_equal(loop_once(loop, 0), 0);
    loop_run_sync(loop, &cc.c);         /* on our own thread: at once */
    assert_int_equal(cc.n, 2);
    loop_destroy(loop);
}

static struct loop *signalled;

static void on_signal(int sig)
{
    loop_quit(signalled);
}

static void test_quit_from_a_signal_handler_and_before_run_both_end_it(void **unused)
{
    signalled = loop_create(NULL);
    loop_quit(signalled);
    loop_run(signalled);
    struct sigaction sa = { .sa_handler = on_signal }, old;
    sigaction(SIGALRM, &sa, &old);
    ualarm(20000, 0);
    loop_run(signalled);
    sigaction(SIGALRM, &old, NULL);
    loop_destroy(signalled);
}

struct child {
    struct loop_child c;
    int status, n;
};

static void on_child(struct loop_child *c, int status)
{
    struct child *ch = container_of(c, struct child, c);
    ch->status = status;
    ch->n++;
}

static void test_a_child_is_reaped_and_its_status_told(void **unused)
{
    struct loop *loop = loop_create(NULL);
    struct child ch = { .c.fn = on_child };
    ch.c.pid = fork();
    if (ch.c.pid == 0) {
        _exit(7);
    }
    assert_true(loop_child_add(loop, &ch.c, NULL));
    while (!ch.n) {
        loop_once(loop, -1);
    }
    assert_true(WIFEXITED(ch.status) && WEXITSTATUS(ch.status) == 7);
    assert_int_equal(waitpid(ch.c.pid, NULL, WNOHANG), -1);
    loop_child_del(&ch.c);

    ch.c.pid = fork();
    if (ch.c.pid == 0) {
        pause();
        _exit(0);
    }
    assert_true(loop_child_add(loop, &ch.c, NULL));
    loop_child_del(&ch.c);
    kill(ch.c.pid, SIGKILL);
    assert_int_equal(waitpid(ch.c.pid, NULL, 0), ch.c.pid);
    assert_int_equal(loop_once(loop, 0), 0);
    struct err err = ERR_INIT;
    assert_false(loop_child_add(loop, &ch.c, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    loop_destroy(loop);
    loop_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_ready_descriptor_calls_back_until_removed),
        cmocka_unit_test(test_a_paused_watch_is_silent_even_when_the_peer_hangs_up),
        cmocka_unit_test(test_a_watch_removed_in_the_same_round_does_not_run),
        cmocka_unit_test(test_many_watches_and_an_unwatchable_file),
        cmocka_unit_test(test_a_watch_freed_under_its_lock_by_another_thread_is_never_touched),
        cmocka_unit_test(test_calls_from_many_threads_each_run_once_on_the_loop),
        cmocka_unit_test(test_a_posted_call_is_one_call_and_may_post_itself),
        cmocka_unit_test(test_quit_from_a_signal_handler_and_before_run_both_end_it),
        cmocka_unit_test(test_a_child_is_reaped_and_its_status_told),
    };
    return cmocka_run_group_tests_name("loop-fds", tests, NULL, NULL);
}
