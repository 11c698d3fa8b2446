/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzz target: byte 0 is the mode, bytes 1-8 the guest's features, the rest is code. Every instruction of the sweep is
 * decoded from a buffer of exactly the bytes given, so that a sanitizer sees any read beyond them.
 * Without libFuzzer (-DLODGE_REPLAY) it is a program that runs files, or --random N inputs of its own.
 */
#include "engine/soft/decode/insn.h"

#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok) {
        abort();
    }
}

static enum decode_result decode_exact(const uint8_t *bytes, size_t n, enum insn_mode mode, uint64_t feats, struct insn *i)
{
    AUTO_FREE uint8_t *exact = malloc(n);

    must(exact != NULL);
    memcpy(exact, bytes, n);
    return insn_decode(exact, n, mode, feats, i);
}

/* One instruction and all its cuts; returns how far to step. */
static size_t check_one(const uint8_t *bytes, size_t n, enum insn_mode mode, uint64_t feats)
{
    struct insn i, cut;
    char text[24];
    enum decode_result r = decode_exact(bytes, n, mode, feats, &i);

    must(i.len <= 15 && i.len <= n && i.row < n_insn_rows);
    must(r != DECODE_SHORT || n < 15);
    insn_format(&i, mode, 0x1000, text, sizeof(text));
    must(strnlen(text, sizeof(text)) < sizeof(text));
    if (r != DECODE_OK) {
        return 1;
    }
    must(i.len >= 1 && insn_row(&i)->op != OP_ILLEGAL);
    must(insn_mem_size(&i) <= 512);
    for (size_t k = 1; k < i.len; k++) {
        must(decode_exact(bytes, k, mode, feats, &cut) == DECODE_SHORT);
    }
    must(decode_exact(bytes, i.len, mode, feats, &cut) == DECODE_OK && !memcmp(&i, &cut, sizeof(i)));
    return i.len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t feats;

    if (size < 10 || size > 4096) {
        return 0;
    }
    enum insn_mode mode = data[0] % 3;
    memcpy(&feats, data + 1, 8);
    for (size_t at = 9; at < size;) {
        at += check_one(data + at, size - at, mode, feats);
    }
    return 0;
}

#ifdef LODGE_REPLAY
static int replay_file(const char *path)
{
    static uint8_t data[4096];
    FILE *f = fopen(path, "rb");

    if (!f) {
        perror(path);
        return 1;
    }
    size_t n = fread(data, 1, sizeof(data), f);
    fclose(f);
    return LLVMFuzzerTestOneInput(data, n);
}

static int replay_random(unsigned long n)
{
    uint64_t s = 0x9e3779b97f4a7c15ull;

    for (unsigned long k = 0; k < n; k++) {
        uint8_t data[64];
        for (size_t i = 0; i < sizeof(data); i++) {
            s = s * 6364136223846793005ull + 1442695040888963407ull;
            data[i] = s >> 56;
        }
        if (k & 1) {
            memset(data + 1, 0xff, 8);
        }
        LLVMFuzzerTestOneInput(data, sizeof(data));
    }
    return 0;
}

int main(int argc, char **argv)
{
    int failed = 0;

    if (argc == 3 && !strcmp(argv[1], "--random")) {
        return replay_random(strtoul(argv[2], NULL, 0));
    }
    for (int k = 1; k < argc; k++) {
        failed |= replay_file(argv[k]);
    }
    return failed;
}
#endif
