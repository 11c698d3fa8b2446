/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/buf.h"
#include "base/json.h"

static bool parses(const char *text)
{
    struct err err = ERR_INIT;
    AUTO_JSON struct json_object *o = json_parse(text, strlen(text), &err);
    assert_true(o || err.code != ERR_NONE);
    return o;
}

static void test_one_whole_value_is_accepted(void **unused)
{
    assert_true(parses("{}"));
    assert_true(parses(" { \"a\" : [1, -2, 3.5, true, null, \"x:y\\\":\"] } \r\n"));
    assert_true(parses("12"));
    assert_true(parses("\"s\""));
    assert_true(parses("{\"a\":{\"a\":{\"a\":18446744073709551615}}}"));
    assert_true(parses("-9223372036854775808"));
}

static void test_anything_else_is_refused(void **unused)
{
    const char *bad[] = {
        "", " ", "{", "[1,", "{\"a\"}", "{\"a\":1,}", "[1,]", "{'a':1}", "{a:1}", "[1 2]", "12 13", "{} x", "nul", "null",
        "\"\xff\"", "{\"a\":1,\"a\":2}", "{\"x\":{\"\\u0061\":1,\"a\":2}}", "[NaN]", "[Infinity]", "[-Infinity]", "[1e999]",
        "18446744073709551616", "-9223372036854775809", "[\"a\\u0000b\"]", "{\"a\\u0000\":1}", "[\"a", "\"\n\"", "[01]",
        "/* c */ {}", "{\"a\":1,,\"b\":2}", "{,}", "]", "[1}",
    };
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (parses(bad[i])) {
            fail_msg("accepted: %s", bad[i]);
        }
    }
    assert_null(json_parse("{}\0", 3, NULL));
}

static void test_depth_and_length_are_bounded(void **unused)
{
    struct err err = ERR_INIT;
    char deep[4001];
    memset(deep, '[', 2000);
    memset(deep + 2000, ']', 2000);
    deep[4000] = 0;
    assert_false(parses(deep));
    deep[2060] = 0;
    assert_true(parses(deep + 2000 - 60));
    AUTO_FREE char *big = alloc0(JSON_MAX_TEXT + 2);
    memset(big, ' ', JSON_MAX_TEXT + 1);
    big[0] = '1';
    AUTO_JSON struct json_object *o = json_parse(big, JSON_MAX_TEXT, &err);
    assert_non_null(o);
    assert_null(json_parse(big, JSON_MAX_TEXT + 1, &err));
    assert_int_equal(err.code, ERR_LIMIT);
    memset(big, 'x', JSON_MAX_STRING + 2);
    big[0] = big[JSON_MAX_STRING + 1] = '"';
    AUTO_JSON struct json_object *s = json_parse(big, JSON_MAX_STRING + 2, &err);
    assert_non_null(s);
    big[JSON_MAX_STRING + 1] = 'x';
    big[JSON_MAX_STRING + 2] = '"';
    assert_null(json_parse(big, JSON_MAX_STRING + 3, &err));
    assert_int_equal(err.code, ERR_LIMIT);
}

static void test_truncated_text_never_passes(void **unused)
{
    const char *text = "{\"a\":[1,{\"b\":\"c\\u00e9\"}],\"d\":-1.5e3}";
    for (size_t n = 0; n < strlen(text); n++) {
        assert_null(json_parse(text, n, NULL));
    }
    assert_true(parses(text));
}

static void test_members_are_typed(void **unused)
{
    struct err err = ERR_INIT;
    const char *text = "{\"s\":\"x\",\"b\":true,\"n\":18446744073709551615,\"neg\":-1,\"o\":{},\"a\":[],\"z\":null}";
    AUTO_JSON struct json_object *o = json_parse(text, strlen(text), &err);
    const char *s = "default";
    bool b = false;
    uint64_t n = 5;
    struct json_object *sub = NULL;
    assert_true(json_get_str(o, "s", &s, &err));
    assert_string_equal(s, "x");
    assert_true(json_get_bool(o, "b", &b, &err));
    assert_true(b);
    assert_true(json_get_u64(o, "n", &n, &err));
    assert_int_equal(n, UINT64_MAX);
    assert_true(json_get_u64(o, "absent", &n, &err));
    assert_int_equal(n, UINT64_MAX);
    assert_true(json_get_obj(o, "o", &sub, &err) && sub);
    assert_true(json_get_array(o, "a", &sub, &err) && sub);
    assert_false(json_get_u64(o, "neg", &n, &err));
    assert_false(json_get_u64(o, "s", &n, &err));
    assert_string_equal(err.msg, "'s' must be an int, not string");
    assert_false(json_get_str(o, "z", &s, &err));
    assert_false(json_get_array(o, "o", &sub, &err));
    assert_string_equal(err.msg, "'o' must be an array, not object");
    assert_false(json_get_bool(sub, "b", &b, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_whole_value_is_accepted),
        cmocka_unit_test(test_anything_else_is_refused),
        cmocka_unit_test(test_depth_and_length_are_bounded),
        cmocka_unit_test(test_truncated_text_never_passes),
        cmocka_unit_test(test_members_are_typed),
    };
    return cmocka_run_group_tests_name("base-json", tests, NULL, NULL);
}
