/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "chr/chr.h"
#include "dev/pc/pc.h"
#include "fixture.h"

enum { COM1 = 0x3f8, RBR = COM1, IER = COM1 + 1, IIR = COM1 + 2, FCR = IIR, LCR = COM1 + 3, MCR = COM1 + 4,
       LSR = COM1 + 5, MSR = COM1 + 6, SCR = COM1 + 7 };

struct uart {
    struct fixture f;
    struct chr *chr;
    int peer;
};

static void setup(struct uart *u)
{
    int fds[2];
    fixture_init(&u->f);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    u->chr = chr_fd_open(u->f.env.main_loop, fds[0], fds[0], true, NULL);
    assert_non_null(u->chr);
    u->peer = fds[1];
    assert_non_null(serial_create(&u->f.env, "serial0", &(struct serial_props){ .chr = u->chr }, NULL));
}

static void finish(struct uart *u)
{
    dev_destroy(dev_find(&u->f.env, "serial0"));
    chr_close(u->chr);
    close(u->peer);
    fixture_fini(&u->f);
}

static bool irq(struct uart *u)
{
    return u->f.hub.gsi_count[4];
}

static void type(struct uart *u, const char *text)
{
    assert_int_equal(write(u->peer, text, strlen(text)), strlen(text));
    for (int i = 0; i < 10; i++) {
        loop_once(u->f.env.main_loop, 0);
    }
}

/* The steps of Linux's autoconfig(), serial8250 of 6.1. */
static void test_serial_is_seen_as_a_16550a(void **unused)
{
    struct uart u;
    setup(&u);
    struct fixture *f = &u.f;
    outb(f, IER, 0);
    assert_int_equal(inb(f, IER) & 0x0f, 0);
    outb(f, IER, 0xff);
    assert_int_equal(inb(f, IER), 0x0f);
    outb(f, IER, 0);
    outb(f, MCR, 0x1a);
    assert_int_equal(inb(f, MSR) & 0xf0, 0x90);
    outb(f, MCR, 0x08);
    outb(f, LCR, 0xbf);
    outb(f, FCR, 0);            /* EFR of later chips: here FCR */
    outb(f, LCR, 0);
    assert_int_equal(inb(f, IIR) & 0xc0, 0);
    outb(f, FCR, 1);
    assert_int_equal(inb(f, IIR) >> 6, 3);
    outb(f, FCR, 0x21);         /* no 64-byte FIFO */
    assert_int_equal(inb(f, IIR) & 0x20, 0);
    outb(f, SCR, 0xa5);
    assert_int_equal(inb(f, SCR), 0xa5);
    outb(f, LCR, 0x80);
    outb(f, RBR, 1);
    outb(f, IER, 0);
    assert_int_equal(inb(f, RBR), 1);
    outb(f, LCR, 3);
    assert_int_equal(inb(f, LSR), 0x60);
    assert_int_equal(inb(f, MSR) & 0xb0, 0xb0);
    finish(&u);
}

static void test_serial_thre_interrupt_comes_back_when_enabled_again(void **unused)
{
    struct uart u;
    setup(&u);
    struct fixture *f = &u.f;
    assert_false(irq(&u));
    outb(f, IER, 2);
    assert_true(irq(&u));
    assert_int_equal(inb(f, IIR) & 0x0f, 2);    /* reading it is the acknowledge */
    assert_false(irq(&u));
    assert_int_equal(inb(f, IIR) & 0x0f, 1);
    outb(f, IER, 0);
    outb(f, IER, 2);
    assert_int_equal(inb(f, IIR) & 0x0f, 2);
    outb(f, RBR, 'x');                          /* THR is empty again at once */
    assert_true(irq(&u));
    outb(f, IER, 0);
    assert_false(irq(&u));
    char c = 0;
    assert_int_equal(read(u.peer, &c, 1), 1);
    assert_int_equal(c, 'x');
    finish(&u);
}

static void test_serial_loopback_sends_to_itself(void **unused)
{
    struct uart u;
    setup(&u);
    struct fixture *f = &u.f;
    outb(f, FCR, 1);
    inb(f, MSR);
    outb(f, MCR, 0x10);
    assert_int_equal(inb(f, MSR), 0x0b);        /* CTS, DSR and DCD fell */
    outb(f, MCR, 0x1f);
    assert_int_equal(inb(f, MSR) & 0xf0, 0xf0);
    outb(f, MCR, 0x1b);
    assert_int_equal(inb(f, MSR), 0xb4);        /* trailing edge of RI */
    for (unsigned i = 0; i < 17; i++) {
        outb(f, RBR, i);
    }
    assert_int_equal(inb(f, LSR) & 0x03, 0x03); /* data, and an overrun */
    assert_int_equal(inb(f, LSR) & 0x03, 0x01);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(inb(f, RBR), i);
    }
    assert_int_equal(inb(f, LSR) & 1, 0);
    char c;
    assert_int_equal(read(u.peer, &c, 1), -1);
    finish(&u);
}

static void test_serial_receives_by_level_and_time_out(void **unused)
{
    struct uart u;
    setup(&u);
    struct fixture *f = &u.f;
    outb(f, LCR, 0x80);
    outb(f, RBR, 1);                            /* 115200: a character takes 87 us */
    outb(f, LCR, 3);
    outb(f, FCR, 0x81);                         /* trigger at 8 */
    outb(f, IER, 1);
    type(&u, "abc");
    assert_false(irq(&u));
    assert_int_equal(inb(f, LSR) & 1, 1);
    fix_time(f, NS_PER_MS);
    assert_true(irq(&u));
    assert_int_equal(inb(f, IIR) & 0x0f, 0x0c);
    assert_int_equal(inb(f, RBR), 'a');
    assert_false(irq(&u));                      /* until nothing moves for four characters again */
    fix_time(f, 2 * NS_PER_MS);
    assert_true(irq(&u));
    inb(f, RBR);
    inb(f, RBR);
    fix_time(f, 3 * NS_PER_MS);
    assert_false(irq(&u));
    type(&u, "12345678");
    assert_true(irq(&u));
    assert_int_equal(inb(f, IIR) & 0x0f, 4);
    finish(&u);
}

static void test_serial_takes_no_more_than_its_fifo_holds(void **unused)
{
    struct uart u;
    setup(&u);
    struct fixture *f = &u.f;
    const char *text = "the quick brown fox jumps over the lazy dog";
    outb(f, FCR, 1);
    type(&u, text);
    for (unsigned i = 0; i < strlen(text); i++) {
        assert_int_equal(inb(f, LSR) & 3, 1);
        assert_int_equal(inb(f, RBR), text[i]);
        type(&u, "");
    }
    assert_int_equal(inb(f, LSR) & 1, 0);
    outb(f, FCR, 0);                            /* without FIFO: one at a time */
    type(&u, "xy");
    assert_int_equal(inb(f, RBR), 'x');
    type(&u, "");
    assert_int_equal(inb(f, RBR), 'y');
    finish(&u);
}

static void test_serial_holds_thr_while_nobody_reads(void **unused)
{
    struct uart u;
    setup(&u);
    struct fixture *f = &u.f;
    unsigned n = 0;
    while (n < 4 * MIB && inb(f, LSR) & 0x20) {
        outb(f, RBR, n++);
    }
    assert_true(n < 4 * MIB);
    assert_int_equal(inb(f, LSR) & 0x60, 0);
    unsigned got = 0;
    for (unsigned i = 0; i < 100000 && got < n; i++) {
        uint8_t part[65536];
        ssize_t r = read(u.peer, part, sizeof(part));
        for (ssize_t k = 0; k < r; k++) {
            assert_int_equal(part[k], (uint8_t)got++);
        }
        loop_once(f->env.main_loop, 0);
    }
    assert_int_equal(got, n);
    assert_int_equal(inb(f, LSR) & 0x60, 0x60);
    finish(&u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_serial_is_seen_as_a_16550a),
        cmocka_unit_test(test_serial_thre_interrupt_comes_back_when_enabled_again),
        cmocka_unit_test(test_serial_loopback_sends_to_itself),
        cmocka_unit_test(test_serial_receives_by_level_and_time_out),
        cmocka_unit_test(test_serial_takes_no_more_than_its_fifo_holds),
        cmocka_unit_test(test_serial_holds_thr_while_nobody_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
