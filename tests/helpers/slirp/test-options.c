/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <getopt.h>
#include <string.h>

#include "helpers/slirp/slirp-int.h"

static bool parse(struct options *o, struct err *err, unsigned n, ...)
{
    char *argv[12] = { "lodge-slirp" };
    va_list ap;
    va_start(ap, n);
    for (unsigned i = 0; i < n; i++) {
        argv[i + 1] = va_arg(ap, char *);
    }
    va_end(ap);
    optind = 0;
    return options_parse((int)n + 1, argv, o, err);
}

static void test_forwards_are_understood_with_and_without_addresses(void **unused)
{
    struct forward f;
    struct err err = ERR_INIT;
    assert_true(forward_parse("tcp:2222:22", &f, &err));
    assert_false(f.udp);
    assert_int_equal(f.host.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    assert_int_equal(f.host.sin_port, htons(2222));
    assert_int_equal(f.guest.sin_port, htons(22));
    assert_int_equal(f.guest.sin_addr.s_addr, 0);
    assert_true(forward_parse("udp:0.0.0.0:53:5353", &f, &err));
    assert_true(f.udp);
    assert_int_equal(f.host.sin_addr.s_addr, 0);
    assert_true(forward_parse("tcp:80:10.0.2.16:8080", &f, &err));
    assert_int_equal(f.host.sin_port, htons(80));
    assert_int_equal(f.guest.sin_addr.s_addr, inet_addr("10.0.2.16"));
    assert_true(forward_parse("tcp:127.0.0.2:80:10.0.2.16:8080", &f, &err));
    assert_int_equal(f.host.sin_addr.s_addr, inet_addr("127.0.0.2"));
    assert_int_equal(f.guest.sin_port, htons(8080));
    static const char *const bad[] = {
        "", "tcp", "tcp:", "tcp:22", "tcp:0:22", "tcp:22:0", "tcp:65536:22", "icmp:1:2", "tcp:1:2:3", "tcp:a:1:2", "tcp:1.2.3:1:2",
        "tcp:1:2:3:4", "tcp:127.0.0.1:1:10.0.2.15:2:3", "tcp:-1:22", "tcp::22", "tcp:1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16.17.18.19.20.21:1:22",
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_false(forward_parse(bad[i], &f, &err));
        assert_int_equal(err.code, ERR_INVALID);
    }
}

static void test_the_network_gives_the_usual_addresses(void **unused)
{
    struct options o;
    struct err err = ERR_INIT;
    assert_true(parse(&o, &err, 1, "--fd=3"));
    assert_int_equal(o.dhcp.s_addr, inet_addr("10.0.2.15"));
    assert_int_equal(o.host.s_addr, inet_addr("10.0.2.2"));
    assert_int_equal(o.dns.s_addr, inet_addr("10.0.2.3"));
    assert_true(o.sandbox && !o.restricted && o.host_loopback);
    assert_true(parse(&o, &err, 6, "--fd=3", "--network", "192.168.7.0/26", "--dns=192.168.7.9", "--restrict", "--sandbox=off"));
    assert_int_equal(o.dhcp.s_addr, inet_addr("192.168.7.15"));
    assert_int_equal(o.dns.s_addr, inet_addr("192.168.7.9"));
    assert_true(o.restricted && !o.sandbox);
}

static void test_wrong_options_say_what_is_wrong(void **unused)
{
    struct options o;
    struct err err = ERR_INIT;
    static char *const bad[] = {
        "--fd=x", "--fd=-1", "--nonsense", "stray", "--network=10.0.2.0", "--network=10.0.2.1/24", "--network=10.0.2.0/40",
        "--dns=10.9.9.9", "--dns=10.0.2.2", "--dns=x", "--restrict=maybe", "--hostname=", "--forward=x", "--fd",
    };
    assert_false(parse(&o, &err, 0));
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_false(parse(&o, &err, 2, "--fd=3", bad[i]));
        assert_int_equal(err.code, ERR_INVALID);
        assert_true(err.msg[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forwards_are_understood_with_and_without_addresses),
        cmocka_unit_test(test_the_network_gives_the_usual_addresses),
        cmocka_unit_test(test_wrong_options_say_what_is_wrong),
    };
    return cmocka_run_group_tests_name("slirp-options", tests, NULL, NULL);
}
