/* SPDX-License-Identifier: GPL-2.0-or-later */
/* err, buf, bytes, list, iov, allocation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/iov.h"
#include "base/list.h"

static void test_an_error_keeps_its_code_and_takes_prefixes(void **unused)
{
    struct err err = ERR_INIT;
    assert_false(err_set(&err, ERR_LIMIT, "%d is too many", 7));
    assert_false(err_prefix(&err, "disk '%s': ", "a"));
    assert_int_equal(err.code, ERR_LIMIT);
    assert_string_equal(err.msg, "disk 'a': 7 is too many");
    err_set(&err, ERR_INVALID, "again: %s", err.msg);
    assert_string_equal(err.msg, "again: disk 'a': 7 is too many");
    err_set_errno(&err, ENOENT, "open '%s'", "x");
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_string_equal(err.msg, "open 'x': No such file or directory");
    assert_false(err_set(NULL, ERR_IO, "dropped"));
    assert_false(err_prefix(NULL, "dropped"));
    assert_string_equal(err_code_name(ERR_TIMEOUT), "timeout");
}

static void test_a_long_error_is_cut_not_overrun(void **unused)
{
    struct err err = ERR_INIT;
    char big[2 * ERR_MSG_SIZE];
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = 0;
    err_set_errno(&err, EIO, "%s", big);
    err_prefix(&err, "%s", big);
    assert_int_equal(strlen(err.msg), ERR_MSG_SIZE - 1);
}

static void test_a_buffer_grows_and_is_always_a_string(void **unused)
{
    AUTO_BUF struct buf b = { 0 };
    assert_string_equal(buf_str(&b), "");
    for (int i = 0; i < 1000; i++) {
        buf_printf(&b, "%d,", i);
    }
    assert_int_equal(b.len, 10 * 2 + 90 * 3 + 900 * 4);
    assert_int_equal(strlen(buf_str(&b)), b.len);
    buf_consume(&b, 4);
    assert_memory_equal(b.data, "2,3,", 4);
    buf_consume(&b, b.len + 1);
    assert_int_equal(b.len, 0);
    buf_add_u8(&b, 1);
    buf_add_le16(&b, 0x0302);
    buf_add_le32(&b, 0x07060504);
    buf_add_le64(&b, 0x0f0e0d0c0b0a0908);
    buf_add_zero(&b, 3);
    buf_add(&b, NULL, 0);
    for (uint8_t i = 0; i < 15; i++) {
        assert_int_equal(b.data[i], i + 1);
    }
    assert_int_equal(b.len, 18);
}

static void test_bytes_are_read_in_the_order_their_name_says(void **unused)
{
    const uint8_t raw[9] = { 0, 1, 2, 3, 4, 5, 6, 7, 8 };
    assert_int_equal(load_le16(raw + 1), 0x0201);
    assert_int_equal(load_be16(raw + 1), 0x0102);
    assert_int_equal(load_le32(raw + 1), 0x04030201);
    assert_int_equal(load_be64(raw + 1), 0x0102030405060708);
    uint8_t out[4];
    store_be32(out, 0x01020304);
    assert_memory_equal(out, raw + 1, 4);
}

struct item {
    int v;
    struct list node;
};

static void test_a_list_keeps_order_and_survives_removal_while_walked(void **unused)
{
    struct list head = LIST_INIT(head);
    struct item items[5];
    for (int i = 0; i < 5; i++) {
        items[i].v = i;
        list_add_tail(&head, &items[i].node);
    }
    int sum = 0;
    list_for_each(it, &head, struct item, node) {
        sum = sum * 10 + it->v;
        list_del(&it->node);
        list_del(&it->node);
    }
    assert_int_equal(sum, 1234);
    assert_true(list_empty(&head));
}

static void test_an_iterator_crosses_pieces_and_refuses_the_end(void **unused)
{
    char a[3] = "abc", b[4] = "defg", out[16] = "";
    struct iovec iov[] = { { a, 3 }, { NULL, 0 }, { b, 4 } };
    struct iov_iter it, to;
    iov_iter_init(&it, iov, 3);
    assert_int_equal(iov_left(&it), 7);
    assert_int_equal(iov_copy_from(&it, out, 8), -EINVAL);
    assert_int_equal(iov_copy_from(&it, out, 4), 0);
    assert_memory_equal(out, "abcd", 4);
    assert_int_equal(iov_discard(&it, 1), 0);
    assert_int_equal(iov_copy_to(&it, "XY", 2), 0);
    assert_memory_equal(b, "deXY", 4);
    assert_int_equal(iov_left(&it), 0);
    assert_int_equal(iov_zero(&it, 1), -EINVAL);
    assert_int_equal(iov_zero(&it, 0), 0);

    char c[2], d[5];
    struct iovec iov2[] = { { c, 2 }, { d, 5 } };
    iov_iter_init(&it, iov, 3);
    iov_iter_init(&to, iov2, 2);
    assert_int_equal(iov_copy(&to, &it, 7), 0);
    assert_memory_equal(c, "ab", 2);
    assert_memory_equal(d, "cdeXY", 5);

    struct iovec got[3];
    size_t bytes;
    iov_iter_init(&it, iov, 3);
    iov_discard(&it, 1);
    assert_int_equal(iov_take(&it, 4, got, 3, &bytes), 2);
    assert_int_equal(bytes, 4);
    assert_ptr_equal(got[0].iov_base, a + 1);
    assert_int_equal(got[1].iov_len, 2);
    assert_int_equal(iov_take(&it, 100, got, 3, &bytes), 1);
    assert_int_equal(iov_take(&it, 100, got, 3, &bytes), 0);
    iov_iter_init(&it, iov, 3);
    assert_int_equal(iov_zero(&it, 7), 0);
    assert_int_equal(b[3], 0);
}

static void test_memory_of_a_foreign_size_is_bounded(void **unused)
{
    struct err err = ERR_INIT;
    assert_null(try_alloc(SIZE_MAX / 2, 3, SIZE_MAX, &err));
    assert_int_equal(err.code, ERR_LIMIT);
    assert_null(try_alloc(11, 10, 100, &err));
    AUTO_FREE char *p = try_alloc(10, 10, 100, &err);
    assert_non_null(p);
    assert_int_equal(p[99], 0);
    AUTO_FREE char *q = try_alloc(0, 10, 100, &err);
    assert_non_null(q);
}

static void test_ranges_do_not_wrap(void **unused)
{
    assert_true(range_ok(0, 0, 0));
    assert_true(range_ok(5, 5, 10));
    assert_false(range_ok(5, 6, 10));
    assert_false(range_ok(UINT64_MAX, 2, UINT64_MAX));
    assert_false(range_ok(1, UINT64_MAX, UINT64_MAX));
    assert_int_equal(muldiv64(UINT64_MAX, NS_PER_SEC, NS_PER_SEC), UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_error_keeps_its_code_and_takes_prefixes),
        cmocka_unit_test(test_a_long_error_is_cut_not_overrun),
        cmocka_unit_test(test_a_buffer_grows_and_is_always_a_string),
        cmocka_unit_test(test_bytes_are_read_in_the_order_their_name_says),
        cmocka_unit_test(test_a_list_keeps_order_and_survives_removal_while_walked),
        cmocka_unit_test(test_an_iterator_crosses_pieces_and_refuses_the_end),
        cmocka_unit_test(test_memory_of_a_foreign_size_is_bounded),
        cmocka_unit_test(test_ranges_do_not_wrap),
    };
    return cmocka_run_group_tests_name("base-mem", tests, NULL, NULL);
}
