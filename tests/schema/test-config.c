/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "schema/vm_config.h"

static bool overlay(struct vm_config *c, const char *text, bool fds, struct err *err)
{
    AUTO_JSON struct json_object *o = json_parse(text, strlen(text), err);
    return o && vm_config_from_json(c, o, fds, err);
}

static char *print(const struct vm_config *c, bool fds)
{
    AUTO_JSON struct json_object *o = vm_config_to_json(c, fds);
    return str_dup(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
}

/* text must be refused with `want` in the message, as JSON or as a definition; the rest must still be freed. */
static void assert_refused(const char *text, const char *want)
{
    struct vm_config c;
    struct err err = ERR_INIT;
    vm_config_init(&c);
    if (overlay(&c, text, false, &err) && vm_config_check(&c, &err)) {
        fail_msg("accepted: %s", text);
    }
    if (!strstr(err.msg, want)) {
        fail_msg("%s: '%s' lacks '%s'", text, err.msg, want);
    }
    vm_config_fini(&c);
}

static void test_a_default_definition_is_complete_after_the_check(void **unused)
{
    struct vm_config c;
    struct err err = ERR_INIT;
    vm_config_init(&c);
    assert_true(vm_config_check(&c, &err));
    assert_string_equal(c.machine, "pc-1");
    assert_int_equal(c.cpu.count, 1);
    assert_int_equal(c.cpu.sockets * c.cpu.cores * c.cpu.threads, 1);
    assert_non_null(c.uuid);
    assert_non_null(c.name);
    assert_int_equal(c.memory, 512ull * MIB);
    assert_true(c.sandbox && c.reboot);
    assert_int_equal(c.kernel_fd, -1);
    vm_config_fini(&c);
}

static void test_a_definition_survives_its_round_trip_and_the_check_is_idempotent(void **unused)
{
    static const char text[] =
        "{\"name\":\"a\",\"uuid\":\"01234567-89ab-cdef-0123-456789abcdef\",\"machine\":\"micro\",\"engine\":\"soft\",\"memory\":1073741824,"
        "\"cpu\":{\"model\":\"max,-avx2\",\"count\":8,\"cores\":2},\"kernel\":\"/k\",\"append\":\"\\u00fc\\\"\",\"disks\":[{\"file\":\"/d\",\"serial\":\"S\",\"readonly\":true},"
        "{\"file\":\"/e\"}],\"nets\":[{\"type\":\"user\",\"forwards\":[\"tcp:1:2\",\"tcp:3:4\"]},{\"type\":\"none\"}],\"console\":\"unix\",\"console-path\":\"/c\",\"rng\":true}";
    struct vm_config a, b;
    struct err err = ERR_INIT;
    vm_config_init(&a);
    vm_config_init(&b);
    assert_true(overlay(&a, text, false, &err) && vm_config_check(&a, &err));
    AUTO_FREE char *one = print(&a, false);
    assert_true(vm_config_check(&a, &err));
    AUTO_FREE char *again = print(&a, false);
    assert_string_equal(one, again);
    assert_true(overlay(&b, one, false, &err) && vm_config_check(&b, &err));
    AUTO_FREE char *two = print(&b, false);
    assert_string_equal(one, two);
    assert_int_equal(a.cpu.sockets, 4);
    assert_string_equal(b.nets[1].mac, "52:54:00:ab:cd:f0");
    assert_string_equal(b.nets[0].forwards[1], "tcp:3:4");
    vm_config_fini(&a);
    vm_config_fini(&b);
}

static void test_descriptors_pass_only_between_broker_and_vmm(void **unused)
{
    static const char text[] = "{\"kernel-fd\":7,\"broker-fd\":0,\"disks\":[{\"file\":\"/d\",\"fd\":9}],\"nets\":[{\"type\":\"user\",\"fd\":11}]}";
    struct vm_config a, b;
    struct err err = ERR_INIT;
    vm_config_init(&a);
    vm_config_init(&b);
    assert_true(overlay(&a, text, true, &err));
    assert_int_equal(a.disks[0].fd, 9);
    AUTO_FREE char *with = print(&a, true), *without = print(&a, false);
    assert_non_null(strstr(with, "\"kernel-fd\":7"));
    assert_null(strstr(without, "fd\""));
    assert_false(overlay(&b, text, false, &err));
    vm_config_fini(&b);
    vm_config_init(&b);
    assert_true(overlay(&b, with, true, &err));
    AUTO_FREE char *again = print(&b, true);
    assert_string_equal(with, again);
    static const char *const bad[] = { "{\"kernel-fd\":-1}", "{\"kernel-fd\":2147483648}", "{\"kernel-fd\":\"3\"}", "{\"kernel-fd\":18446744073709551615}" };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_false(overlay(&b, bad[i], true, &err));
    }
    vm_config_fini(&a);
    vm_config_fini(&b);
}

static void test_what_cannot_be_is_refused_by_name(void **unused)
{
    static const char *const cases[][2] = {
        { "{\"memroy\":1}", "did you mean 'memory'" }, { "{\"xyzzyxyzzy\":1}", "unknown" }, { "{\"cpu\":{\"coers\":1}}", "did you mean 'cores'" },
        { "{\"cpu\":[]}", "object" }, { "{\"disks\":{}}", "disks" }, { "{\"disks\":[1]}", "object" }, { "{\"disks\":[{}]}", "no file" },
        { "{\"disks\":[{\"file\":\"\"}]}", "no file" }, { "{\"disks\":[{\"file\":\"a\",\"format\":\"qcow2\"}]}", "only raw" },
        { "{\"disks\":[{\"file\":\"a\",\"serial\":\"123456789012345678901\"}]}", "20" }, { "{\"memory\":0}", "too small" }, { "{\"memory\":1048577}", "multiple" },
        { "{\"memory\":1.5}", "whole number" }, { "{\"memory\":-5}", "whole number" }, { "{\"memory\":\"1\"}", "whole number" }, { "{\"rng\":1}", "true or false" },
        { "{\"name\":\"../a\"}", "name" }, { "{\"name\":\"\"}", "name" }, { "{\"name\":5}", "string" }, { "{\"uuid\":\"x\"}", "UUID" }, { "{\"machine\":\"pc-2\"}", "machine" },
        { "{\"engine\":\"kvmm\"}", "did you mean 'kvm'" }, { "{\"console\":\"unix\"}", "needs a path" }, { "{\"append\":\"x\"}", "needs --kernel" },
        { "{\"initrd\":\"x\"}", "needs --kernel" }, { "{\"cpu\":{\"count\":9}}", "at most 8" }, { "{\"cpu\":{\"count\":18446744073709551615}}", "at most 8" },
        { "{\"cpu\":{\"sockets\":18446744073709551615,\"cores\":2}}", "at most" }, { "{\"cpu\":{\"sockets\":4294967296,\"cores\":4294967296,\"threads\":1}}", "at most" },
        { "{\"cpu\":{\"count\":6,\"cores\":4}}", "is not 6" }, { "{\"nets\":[{\"mac\":\"52:54:00:12:34\"}]}", "MAC" }, { "{\"nets\":[{\"mac\":\"zz:54:00:12:34:56\"}]}", "MAC" },
        { "{\"nets\":[{\"mac\":\"53:54:00:12:34:56\"}]}", "multicast" }, { "{\"nets\":[{\"type\":\"none\",\"restrict\":true}]}", "takes no" },
        { "{\"nets\":[{\"type\":\"user\",\"forwards\":[1]}]}", "string" }, { "[]", "object" },
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_refused(cases[i][0], cases[i][1]);
    }
}

static void test_counts_and_lengths_are_bounded(void **unused)
{
    static const struct {
        const char *member, *element;
        unsigned max;
    } lists[] = { { "disks", "{\"file\":\"a\"}", VM_MAX_DISKS }, { "nets", "{}", VM_MAX_NETS } };
    for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
        for (unsigned n = lists[i].max; n <= lists[i].max + 1; n++) {
            AUTO_BUF struct buf b = { 0 };
            buf_printf(&b, "{\"%s\":[", lists[i].member);
            for (unsigned k = 0; k < n; k++) {
                buf_printf(&b, "%s%s", k ? "," : "", lists[i].element);
            }
            buf_printf(&b, "]}");
            struct vm_config c;
            vm_config_init(&c);
            assert_int_equal(overlay(&c, buf_str(&b), false, NULL), n <= lists[i].max);
            vm_config_fini(&c);
        }
    }
    for (unsigned len = VM_PATH_MAX; len <= VM_PATH_MAX + 1; len++) {
        struct vm_config c;
        AUTO_FREE char *path = alloc0(len + 1);
        memset(path, 'p', len);
        AUTO_FREE char *text = str_fmt("{\"kernel\":\"%s\"}", path);
        vm_config_init(&c);
        assert_int_equal(overlay(&c, text, false, NULL), len <= VM_PATH_MAX);
        vm_config_fini(&c);
    }
}

/* Overlays of the same list and string replace what was there, and nothing leaks or is freed twice. */
static void test_a_second_overlay_replaces_the_first(void **unused)
{
    struct vm_config c;
    struct err err = ERR_INIT;
    vm_config_init(&c);
    assert_true(overlay(&c, "{\"disks\":[{\"file\":\"a\",\"serial\":\"S\",\"readonly\":true},{\"file\":\"b\"}],\"kernel\":\"/1\",\"nets\":[{\"forwards\":[\"x\",\"y\"]}]}", false, &err));
    assert_true(overlay(&c, "{\"disks\":[{\"file\":\"c\"}],\"kernel\":\"/2\",\"nets\":[{\"forwards\":[\"z\"]}]}", false, &err));
    assert_int_equal(c.n_disks, 1);
    assert_string_equal(c.disks[0].file, "c");
    assert_null(c.disks[0].serial);
    assert_false(c.disks[0].readonly);
    assert_string_equal(c.disks[0].format, "raw");
    assert_string_equal(c.kernel, "/2");
    assert_int_equal(c.nets[0].n_forwards, 1);
    assert_string_equal(c.nets[0].forwards[0], "z");
    vm_config_fini(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_default_definition_is_complete_after_the_check),
        cmocka_unit_test(test_a_definition_survives_its_round_trip_and_the_check_is_idempotent),
        cmocka_unit_test(test_descriptors_pass_only_between_broker_and_vmm),
        cmocka_unit_test(test_what_cannot_be_is_refused_by_name),
        cmocka_unit_test(test_counts_and_lengths_are_bounded),
        cmocka_unit_test(test_a_second_overlay_replaces_the_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
