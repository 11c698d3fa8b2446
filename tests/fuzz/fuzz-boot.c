/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Kernel loaders: the bytes are the kernel; the last one decides whether there is an initrd and how much RAM. */
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "machine/boot.h"

enum { RAM_MAX = 48 * MIB };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mem *mem;
    struct err err = ERR_INIT;
    struct x86_state *st = new0(struct x86_state);
    const char *how;
    if (size < 1) {
        free(st);
        return 0;
    }
    if (!mem) {
        mem = mem_create();
        if (!mem_ram_add(mem, 0, RAM_MAX, &err)) {
            abort();
        }
    }
    uint8_t knob = data[size - 1];
    int kernel = memfd_create("kernel", MFD_CLOEXEC), initrd = knob & 1 ? memfd_create("initrd", MFD_CLOEXEC) : -1;
    struct boot_config cfg = { .mem = mem, .kernel_fd = kernel, .initrd_fd = initrd, .append = knob & 2 ? "console=ttyS0 quiet" : NULL, .rsdp = 0xe0000,
                               .low_ram = knob & 4 ? RAM_MAX : 2 * MIB, .e820 = { { 0, BOOT_LOW_END, E820_RAM }, { MIB, MIB, E820_RAM } }, .n_e820 = 2 };
    if (kernel >= 0 && fd_write_full(kernel, data, size) == 0 && (initrd < 0 || ftruncate(initrd, (off_t)knob * 4096) == 0)) {
        x86_state_reset(st, 0, true);
        if (boot_load(&cfg, st, &how, &err) && !x86_state_valid(st, &err)) {
            abort();            /* a loader made a CPU that cannot be */
        }
    }
    close(kernel);
    if (initrd >= 0) {
        close(initrd);
    }
    free(st);
    return 0;
}
