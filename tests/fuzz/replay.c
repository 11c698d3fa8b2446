/* SPDX-License-Identifier: GPL-2.0-or-later */
/* main() for a libFuzzer entry without libFuzzer: runs each file named, and each file of each directory named, once. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_LIMIT = 1 * MIB };
static unsigned n_run;

static bool run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    AUTO_FREE uint8_t *data = alloc0(INPUT_LIMIT);
    if (!f) {
        perror(path);
        return false;
    }
    size_t n = fread(data, 1, INPUT_LIMIT, f);
    fclose(f);
    uint8_t *exact = alloc0(n + 1);     /* its own allocation, so that a sanitizer sees a read past the end */
    for (size_t i = 0; i < n; i++) {
        exact[i] = data[i];
    }
    LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    n_run++;
    return true;
}

static bool run_dir(const char *path)
{
    DIR *d = opendir(path);
    bool ok = d != NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        AUTO_FREE char *file = str_fmt("%s/%s", path, e->d_name);
        if (e->d_name[0] != '.') {
            ok = run_file(file) && ok;
        }
    }
    if (d) {
        closedir(d);
    }
    return ok;
}

int main(int argc, char **argv)
{
    bool ok = true;
    for (int i = 1; i < argc; i++) {
        struct stat st;
        ok = (!stat(argv[i], &st) && S_ISDIR(st.st_mode) ? run_dir(argv[i]) : run_file(argv[i])) && ok;
    }
    printf("%u inputs\n", n_run);
    return ok && n_run ? 0 : 1;
}
