/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages may follow each other without line ends, and a line end may stand anywhere: so braces are counted. */
#include "qmp/qmp-int.h"

static enum qmp_frame finish(struct qmp_framer *f, enum qmp_frame how, size_t *len)
{
    *len = f->scanned;
    *f = (struct qmp_framer){ 0 };
    return how;
}

/* Before the first brace: blanks vanish; anything else up to the line's end is junk. */
static enum qmp_frame between(struct qmp_framer *f, const uint8_t *data, size_t n, size_t *len)
{
    bool junk = false;
    while (f->scanned < n && data[f->scanned] != '{') {
        uint8_t c = data[f->scanned++];
        junk |= c != ' ' && c != '\t' && c != '\r' && c != '\n';
        if (junk && c == '\n') {
            return finish(f, QMP_FRAME_JUNK, len);
        }
    }
    if (!junk) {
        return finish(f, QMP_FRAME_BLANK, len);
    }
    if (f->scanned < n) {
        return finish(f, QMP_FRAME_JUNK, len);
    }
    f->scanned = 0;
    return QMP_FRAME_MORE;
}

enum qmp_frame qmp_frame_next(struct qmp_framer *f, const uint8_t *data, size_t n, size_t *len)
{
    if (!f->started) {
        if (n == 0) {
            return QMP_FRAME_MORE;
        }
        if (data[0] != '{') {
            return between(f, data, n, len);
        }
        f->started = true;
    }
    while (f->scanned < n) {
        uint8_t c = data[f->scanned++];
        if (f->in_string) {
            f->in_string = f->escaped || c != '"';
            f->escaped = !f->escaped && c == '\\';
        } else if (c == '"') {
            f->in_string = true;
        } else if (c == '{' || c == '[') {
            f->depth++;
        } else if ((c == '}' || c == ']') && --f->depth == 0) {
            return finish(f, QMP_FRAME_DONE, len);
        }
    }
    return QMP_FRAME_MORE;
}
