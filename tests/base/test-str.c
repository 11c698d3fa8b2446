/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/str.h"
#include "base/uuid.h"

static void assert_size(const char *s, uint64_t want)
{
    uint64_t v = 1;
    struct err err = ERR_INIT;
    assert_true(str_parse_size(s, MIB, &v, &err));
    assert_int_equal(v, want);
}

static void test_sizes_take_units_and_refuse_overflow(void **unused)
{
    assert_size("512M", 512ull * MIB);
    assert_size("512", 512ull * MIB);
    assert_size("2g", 2ull * GIB);
    assert_size("2GiB", 2ull * GIB);
    assert_size("1048576B", MIB);
    assert_size("15E", 15ull << 60);
    assert_size("0", 0);
    const char *bad[] = { "", "M", "-1", "+1", " 1", "1 ", "1.5G", "16E", "18446744073709551616", "1Mi", "1MB", "1KK", "0x10",
                          "99999999999999999999M", "1i" };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint64_t v = 77;
        if (str_parse_size(bad[i], 1, &v, NULL) || v != 77) {
            fail_msg("accepted size '%s'", bad[i]);
        }
    }
}

static void test_numbers_are_whole_and_unsigned(void **unused)
{
    uint64_t v = 0;
    assert_true(str_parse_u64("18446744073709551615", &v));
    assert_int_equal(v, UINT64_MAX);
    assert_true(str_parse_u64("0xFf", &v));
    assert_int_equal(v, 255);
    assert_false(str_parse_u64("0x", &v));
    assert_false(str_parse_u64("", &v));
    assert_false(str_parse_u64("1a", &v));
    assert_false(str_parse_u64("18446744073709551616", &v));
    assert_false(str_parse_u64("0x10000000000000000", &v));
    assert_int_equal(v, 255);
}

static void test_the_nearest_word_is_suggested(void **unused)
{
    const char *const words[] = { "kernel", "initrd", "append", "memory", "cpus", "cpu", NULL };
    assert_string_equal(str_nearest("kernal", words), "kernel");
    assert_string_equal(str_nearest("KERNEL", words), "kernel");
    assert_string_equal(str_nearest("memroy", words), "memory");
    assert_string_equal(str_nearest("cpuss", words), "cpus");
    assert_null(str_nearest("bios", words));
    assert_null(str_nearest("zzzzzz", words));
    assert_int_equal(str_distance("ab", "ba"), 1);
    assert_int_equal(str_distance("", "abc"), 3);
    assert_int_equal(str_distance("kitten", "sitting"), 3);
    char big[1000];
    memset(big, 'a', sizeof(big) - 1);
    big[sizeof(big) - 1] = 0;
    assert_int_equal(str_distance(big, "b"), 64);
}

static void test_names_are_safe_as_file_names(void **unused)
{
    assert_true(str_name_ok("a"));
    assert_true(str_name_ok("web1.example-org_2+x:y@z"));
    assert_false(str_name_ok(""));
    assert_false(str_name_ok("."));
    assert_false(str_name_ok("-x"));
    assert_false(str_name_ok("a/b"));
    assert_false(str_name_ok("a b"));
    assert_false(str_name_ok("\xc3\xa9"));
    char s[130];
    memset(s, 'a', 129);
    s[129] = 0;
    assert_false(str_name_ok(s));
    s[128] = 0;
    assert_true(str_name_ok(s));
}

static void assert_escaped(const char *in, const char *want)
{
    AUTO_BUF struct buf b = { 0 };
    str_escape(&b, in, strlen(in));
    assert_string_equal(buf_str(&b), want);
}

static void test_foreign_text_cannot_drive_a_terminal(void **unused)
{
    assert_escaped("plain \xc3\xa9 \xe4\xb8\xad \xf0\x9f\x98\x80", "plain \xc3\xa9 \xe4\xb8\xad \xf0\x9f\x98\x80");
    assert_escaped("\x1b]0;x\x07", "\\x1b]0;x\\x07");
    assert_escaped("\xc2\x9b", "\\xc2\\x9b");                   /* C1 CSI */
    assert_escaped("\xe2\x80\xae", "\\xe2\\x80\\xae");          /* right-to-left override */
    assert_escaped("\xc0\x80 \xed\xa0\x80 \xff \xe4\xb8", "\\xc0\\x80 \\xed\\xa0\\x80 \\xff \\xe4\\xb8");
    assert_string_equal(str_after("tcp:80", "tcp:"), "80");
    assert_null(str_after("tc", "tcp:"));
}

static void test_a_uuid_reads_back_as_it_was_written(void **unused)
{
    struct uuid u = { { 0 } }, v;
    char s[UUID_STR_SIZE];
    assert_true(uuid_is_null(&u));
    assert_true(uuid_parse("C7A5FDBD-edaf-9455-926a-d65c16db1809", &u));
    uuid_format(&u, s);
    assert_string_equal(s, "c7a5fdbd-edaf-9455-926a-d65c16db1809");
    assert_int_equal(u.b[0], 0xc7);
    assert_false(uuid_parse("c7a5fdbd-edaf-9455-926a-d65c16db180", &v));
    assert_false(uuid_parse("c7a5fdbd-edaf-9455-926a-d65c16db18091", &v));
    assert_false(uuid_parse("c7a5fdbdxedaf-9455-926a-d65c16db1809", &v));
    assert_false(uuid_parse("g7a5fdbd-edaf-9455-926a-d65c16db1809", &v));
    uuid_random(&u);
    uuid_random(&v);
    assert_memory_not_equal(&u, &v, sizeof(u));
    uuid_format(&u, s);
    assert_int_equal(s[14], '4');
    assert_true(uuid_parse(s, &v));
    assert_memory_equal(&u, &v, sizeof(u));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes_take_units_and_refuse_overflow),
        cmocka_unit_test(test_numbers_are_whole_and_unsigned),
        cmocka_unit_test(test_the_nearest_word_is_suggested),
        cmocka_unit_test(test_names_are_safe_as_file_names),
        cmocka_unit_test(test_foreign_text_cannot_drive_a_terminal),
        cmocka_unit_test(test_a_uuid_reads_back_as_it_was_written),
    };
    return cmocka_run_group_tests_name("base-str", tests, NULL, NULL);
}
