/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Compiler and hand-written code in bulk: .text of whole ELF files, instruction by instruction, against Zydis; and the speed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "oracle.h"

static char **files;
static int n_files;

struct text {
    const uint8_t *file;
    size_t file_size;
    const uint8_t *bytes;       /* NULL when there is no .text */
    size_t n;
};

static const Elf64_Shdr *find_text(const uint8_t *f, size_t size)
{
    const Elf64_Ehdr *eh = (const void *)f;

    if (size < sizeof(*eh) || memcmp(eh->e_ident, ELFMAG, SELFMAG) || eh->e_ident[EI_CLASS] != ELFCLASS64 ||
        !range_ok(eh->e_shoff, (uint64_t)eh->e_shnum * sizeof(Elf64_Shdr), size) || eh->e_shstrndx >= eh->e_shnum) {
        return NULL;
    }
    const Elf64_Shdr *sh = (const void *)(f + eh->e_shoff);
    const Elf64_Shdr *names = &sh[eh->e_shstrndx];
    for (unsigned k = 0; k < eh->e_shnum; k++) {
        if (range_ok(names->sh_offset + sh[k].sh_name, 6, size) && range_ok(sh[k].sh_offset, sh[k].sh_size, size) &&
            !memcmp(f + names->sh_offset + sh[k].sh_name, ".text", 6)) {
            return &sh[k];
        }
    }
    return NULL;
}

static struct text text_open(const char *path)
{
    struct text t = {0};
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return t;
    }
    if (!fstat(fd, &st) && st.st_size > 0) {
        void *p = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p != MAP_FAILED) {
            const Elf64_Shdr *sh = find_text(p, st.st_size);
            t = (struct text){p, st.st_size, sh ? (const uint8_t *)p + sh->sh_offset : NULL, sh ? sh->sh_size : 0};
        }
    }
    close(fd);
    return t;
}

static double now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return ts.tv_sec * 1e9 + ts.tv_nsec;
}

static void measure(const struct text *t, const char *path)
{
    unsigned long n = 0;
    double start = now_ns();

    for (size_t at = 0; at < t->n;) {
        struct insn i;
        enum decode_result r = insn_decode(t->bytes + at, t->n - at, INSN_MODE_64, UINT64_MAX, &i);
        at += r == DECODE_OK ? i.len : 1;
        n++;
    }
    fprintf(stderr, "%s: %lu instructions, %.1f ns each\n", path, n, (now_ns() - start) / n);
}

static void test_whole_binaries_decode_as_zydis_says(void **unused)
{
    bool any = false;

    for (int k = 0; k < n_files; k++) {
        struct text t = text_open(files[k]);
        if (t.bytes) {
            any = true;
            measure(&t, files[k]);
            for (size_t at = 0; at < t.n;) {
                at += oracle_compare(t.bytes + at, t.n - at, INSN_MODE_64);
            }
        }
        if (t.file) {
            munmap((void *)t.file, t.file_size);
        }
    }
    struct oracle_counts c = oracle_counts();
    fprintf(stderr, "%lu decoded by both, %lu refused by both, %lu hidden features, %lu differences\n", c.accepted, c.refused,
            c.excused, oracle_differences());
    assert_int_equal(oracle_differences(), 0);
    if (!any) {
        skip();
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_whole_binaries_decode_as_zydis_says)};

    files = argv + 1;
    n_files = argc - 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
