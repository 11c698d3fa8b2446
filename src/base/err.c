/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void PRINTF_LIKE(3, 0) set_msg(struct err *err, enum err_code code, const char *fmt, va_list ap)
{
    /* Formatted aside first: an argument may be the old message. */
    char msg[ERR_MSG_SIZE];
    vsnprintf(msg, sizeof(msg), fmt, ap);
    err->code = code;
    memcpy(err->msg, msg, strlen(msg) + 1);
}

bool err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        set_msg(err, code, fmt, ap);
        va_end(ap);
    }
    return false;
}

static enum err_code code_of_errno(int en)
{
    switch (en) {
    case ENOENT: case ENODEV: case ENXIO: case ESRCH:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case EACCES: case EPERM: case EROFS:
        return ERR_DENIED;
    case EBUSY: case EAGAIN: case ETXTBSY: case EADDRINUSE:
        return ERR_BUSY;
    case ENOMEM:
        return ERR_NO_MEMORY;
    case EINVAL: case EISDIR: case ENOTDIR: case ENAMETOOLONG: case ELOOP: case ENOEXEC:
        return ERR_INVALID;
    case EMFILE: case ENFILE: case EFBIG: case E2BIG: case EDQUOT:
        return ERR_LIMIT;
    case EIO: case ENOSPC: case EPIPE: case ECONNRESET: case ECONNREFUSED:
        return ERR_IO;
    case ENOSYS: case EOPNOTSUPP: case EAFNOSUPPORT: case EPROTONOSUPPORT:
        return ERR_UNSUPPORTED;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    default:
        return ERR_GENERIC;
    }
}

bool err_set_errno(struct err *err, int en, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        set_msg(err, code_of_errno(en), fmt, ap);
        va_end(ap);
        size_t n = strlen(err->msg);
        char text[128];
        /* GNU strerror_r: the result may or may not be in `text`. */
        snprintf(err->msg + n, sizeof(err->msg) - n, ": %s", strerror_r(en, text, sizeof(text)));
    }
    return false;
}

bool err_prefix(struct err *err, const char *fmt, ...)
{
    if (err) {
        char old[ERR_MSG_SIZE];
        memcpy(old, err->msg, sizeof(old));
        va_list ap;
        va_start(ap, fmt);
        set_msg(err, err->code, fmt, ap);
        va_end(ap);
        size_t n = strlen(err->msg);
        snprintf(err->msg + n, sizeof(err->msg) - n, "%s", old);
    }
    return false;
}

const char *err_code_name(enum err_code code)
{
    static const char *const names[N_ERR_CODES] = {
        [ERR_NONE] = "none", [ERR_GENERIC] = "generic", [ERR_INVALID] = "invalid", [ERR_NOT_FOUND] = "not-found",
        [ERR_EXISTS] = "exists", [ERR_DENIED] = "denied", [ERR_BUSY] = "busy", [ERR_STATE] = "state",
        [ERR_NO_MEMORY] = "no-memory", [ERR_LIMIT] = "limit", [ERR_IO] = "io", [ERR_UNSUPPORTED] = "unsupported",
        [ERR_TIMEOUT] = "timeout",
    };
    return (unsigned)code < N_ERR_CODES ? names[code] : "generic";
}
