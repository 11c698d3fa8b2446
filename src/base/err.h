/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An error on the caller's stack: a code and one sentence. Nothing to free or propagate; pass the same pointer down.
 * err_set returns false, so that failing is one line. A NULL err is allowed everywhere: the text is dropped.
 */
#ifndef LODGE_BASE_ERR_H
#define LODGE_BASE_ERR_H

#include "base/base.h"

enum err_code {
    ERR_NONE,
    ERR_GENERIC,
    ERR_INVALID,        /* malformed input: file, option, message */
    ERR_NOT_FOUND,
    ERR_EXISTS,
    ERR_DENIED,
    ERR_BUSY,           /* locked or in use by somebody else */
    ERR_STATE,          /* right request, wrong moment */
    ERR_NO_MEMORY,
    ERR_LIMIT,          /* over a documented bound */
    ERR_IO,
    ERR_UNSUPPORTED,
    ERR_TIMEOUT,
    N_ERR_CODES
};

enum { ERR_MSG_SIZE = 640 };

struct err {
    enum err_code code;
    char msg[ERR_MSG_SIZE];
};

#define ERR_INIT { ERR_NONE, "" }

/* Sets code and text, replacing what was there. Returns false. */
bool err_set(struct err *err, enum err_code code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* As err_set, code from errno value `en`, text followed by ": " and strerror. Returns false. */
bool err_set_errno(struct err *err, int en, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Puts text before the message that is there: what only this level knows. Returns false. */
bool err_prefix(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* "invalid", "not-found", ...: stable names for --json. */
const char *err_code_name(enum err_code code);

#endif
